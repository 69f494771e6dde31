"""Plain Python functions, on all cores or many machines.

These are the public names. To follow one call from `spawn` to `fetch`, read these modules in
order: `calls.spawn` describes calls, `task` says what a call is, and `calls.executable` has it
run. `graph` finds the calls that are missing, `sessions.runs` hands them to an engine, and
`engine` is the contract of engines. `engines.kinds` says which engines there are.
`engines.driver.scheduler` decides what runs where, `engines.driver.loop` is the shell around it,
`engines.worker.process` is the process that runs the call, and `attempt.call` is what surrounds the
function there. `engines.driver.store` keeps large results, `sessions.session` fetches them, and
`logs` reads what a call printed. Workers of this machine are in
`engines.local`, those on nodes in `engines.cluster`.
"""

from __future__ import annotations

import atexit
import importlib
import sys

TYPE_CHECKING = False  # known to type checkers, as in `mars.config`
if TYPE_CHECKING:
    from mars import config, errors, remote, session
    from mars._version import __version__
    from mars.calls.objects import ExecutableTuple, Object
    from mars.calls.put import put
    from mars.config import options
    from mars.executors.executor import Executor
    from mars.executors.futures import CallFuture
    from mars.remote import as_completed, map, rng, run, spawn  # noqa: A004, F401 (mars.map)
    from mars.session import (
        Session,
        execute,
        fetch,
        fetch_log,
        get_context,
        new_session,
        stop_server,
    )

__all__ = [
    "CallFuture", "ExecutableTuple", "Executor", "Object", "Session", "__version__",
    "as_completed", "config", "errors", "execute", "fetch", "fetch_log", "get_context",
    "new_session", "options", "put", "remote", "rng", "run", "session", "spawn", "stop_server",
]  # fmt: skip

_PUBLIC = sorted([*__all__, "map"])  # ``from mars import *`` leaves the builtin `map` alone

_HOMES = {
    "config": "", "errors": "", "remote": "", "session": "", "__version__": "_version",
    "options": "config", "map": "remote", "run": "remote", "spawn": "remote", "put": "calls.put",
    "as_completed": "remote", "rng": "remote",
    "CallFuture": "executors.futures", "Executor": "executors.executor",
    "ExecutableTuple": "calls.objects", "Object": "calls.objects",
}  # fmt: skip
"""Modules of names that are not from `mars.session`; "": the name is a module."""

_OF_OTHERS = frozenset({
    "Client", "Future", "Parallel", "Pool", "ProcessPoolExecutor", "Session",
    "ThreadPoolExecutor", "apply", "apply_async", "call", "cancel", "close", "compute", "delayed",
    "gather", "get", "imap", "imap_unordered", "init", "progress", "set_progress", "shutdown",
    "starmap", "states", "submit", "wait",
})  # fmt: skip
"""What people look for here, as other libraries have it; `mars.calls.mistakes` says what it is."""


def __getattr__(name: str) -> object:
    # Loaded when somebody asks: worker processes import this package, too, and start faster
    # without all that describes calls.
    if name not in _PUBLIC:
        # Else nothing is loaded: the first import of each module of ours asks for its name here.
        if name in _OF_OTHERS:
            mistakes = importlib.import_module(f"{__name__}.calls.mistakes")
            raise AttributeError(mistakes.no_name(__name__, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "session")
    if not home:
        return importlib.import_module(f"{__name__}.{name}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return _PUBLIC


@atexit.register
def _close_all() -> None:
    # Registered here, not where engines are made: what a program registers after `import mars` is
    # called before, and can still make calls.
    loaded = sys.modules.get(f"{__name__}.sessions.session")
    if loaded is not None:
        loaded.opened.close()
