"""What programs import: `spawn`, `map`, `put`, `run_script`, `rng`, and the objects for results.

This module holds the public names and `rng`, nothing else. What is behind the names is in
`mars.calls`: `spawn` describes calls, `objects` stand for their results, and `executable` has what
all these objects can do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mars.attempt import context
from mars.calls.executable import Executable
from mars.calls.maps import ItemCall
from mars.calls.objects import ExecutableTuple, MapObjects, Object
from mars.calls.put import put
from mars.calls.spawn import map, run_script, spawn  # noqa: A004 (it is mars.remote.map)
from mars.config import options as program_options
from mars.engine import Run

if TYPE_CHECKING:
    from mars.execution import Execution
else:

    def __getattr__(name: str) -> object:
        # It is imported late because it needs `concurrent.futures`, see `mars.errors`.
        if name != "Execution":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mars.execution import Execution

        return Execution


def rng() -> Any:
    """The random numbers of the running call.

    Returns
    -------
    numpy.random.Generator
        Its seed is made of the seed of the run and the place of the call among the calls of its
        session. So a program gets the same numbers on any number of workers, and no two calls share
        a stream. One call always gets the same generator. Outside of a call the seed is
        ``mars.options.seed``.

    Raises
    ------
    ModuleNotFoundError
        numpy is not installed.

    Examples
    --------
    >>> def throw() -> int:
    ...     return int(rng().integers(1, 7))
    >>> spawn(throw).execute().fetch() in range(1, 7)
    True
    """
    from mars.attempt.rng import generator

    attempt = context.current()
    if attempt is None:
        return generator(program_options.seed, ())
    if attempt.generator is None:
        attempt.generator = generator(attempt.entropy, attempt.place)
    return attempt.generator


__all__ = [
    "Executable", "Execution", "ExecutableTuple", "ItemCall", "MapObjects", "Object", "Run", "map",
    "put", "rng", "run_script", "spawn",
]  # fmt: skip
