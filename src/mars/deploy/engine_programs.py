"""The programs of each engine that `mars cluster` can start.

Called by `mars.deploy.clusters`, `mars.deploy.census` and `mars.deploy.targets`. To add an engine,
write a module that fulfils `Programs` and add it to `PROGRAMS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mars.deploy import dask_programs, ray_programs
from mars.engines.kinds import DASK, RAY

if TYPE_CHECKING:
    from mars.deploy.programs import Programs

PROGRAMS: Final[dict[str, Programs]] = {DASK.name: dask_programs, RAY.name: ray_programs}
"""The module of each engine, by the name of the engine."""
