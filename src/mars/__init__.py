"""Plain Python functions, on all cores or many machines.

These are the public names. A call goes this way from `spawn` to `fetch`::

    calls.spawn        describes it: `code` and `attempt.codec` pickle it into a `task.Call`
    calls.executable   gets the session from `sessions.opening`
    sessions.runs      makes a run, has `graph` find the missing calls, gives them to an engine
    engines.driver     `engine` makes tasks, `scheduler` decides, `loop` acts, `dispatch` sends
    engines.local      carries it to a worker of this machine, `engines.cluster` to one on a node
    engines.worker     `process` takes it, `perform` calls the function; `attempt` surrounds that
    engines.driver     `loop` hears of its end, and the run ends
    sessions.outcomes  reads the value: of the task, or of `driver.store` if it is large

`engine` is the contract of engines, and `engines.kinds` lists them. `engines.wire` has the messages
between processes, `observe` notes each call that has ended, and `logs` reads what a call printed.
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
