"""The peers by name. An adapter is imported when it is asked for, its runtime when it starts."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from benchmarks.peer import Peer

MODULES: Final = {
    "mars": "ours",
    "ppe": "process_pool_executor",
    "pool": "multiprocessing_pool",
    "loky": "loky_executor",
    "joblib": "joblib_parallel",
    "mpire": "mpire_pool",
    "executorlib": "executorlib_executor",
    "dask": "dask_distributed",
    "ray": "ray_core",
    "parsl": "parsl_htex",
    "bare": "bare",
}
NAMES: Final = tuple(MODULES)


def adapter(name: str) -> type[Peer]:
    """The adapter of that name."""
    found: type[Peer] = import_module(f"benchmarks.peers.{MODULES[name]}").PEER
    return found


def load(name: str) -> Peer:
    """One of it, not started."""
    return adapter(name)()
