"""Plain Python functions, on all cores or many machines.

The public names. To follow one call from `spawn` to `fetch`, read: `remote` (describing calls),
`task` (what a call is), `graph` (what an `execute` needs), `session` (what was executed),
`engine` (the contract), `engines.driver.loop` (the thread that sees to it),
`engines.local.scheduler` (what runs where), `engines.worker.process` (the process that runs it),
`attempt.call` (what surrounds the function), `engines.driver.store` (large results), `logs` (what
it printed). Workers of this machine are in `engines.local`, those on nodes in `engines.cluster`.
"""

from __future__ import annotations

import atexit
import importlib
import sys

TYPE_CHECKING = False  # known to type checkers, as in `mars.config`
if TYPE_CHECKING:
    from mars import config, errors, session
    from mars._version import __version__
    from mars.config import options
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
    "Session", "__version__", "config", "errors", "execute", "fetch", "fetch_log", "get_context",
    "new_session", "options", "session", "stop_server",
]  # fmt: skip

_HOMES = {"config": "", "errors": "", "session": "", "__version__": "_version", "options": "config"}
"""Modules of names that are not from `mars.session`; "": the name is a module."""


def __getattr__(name: str) -> object:
    # Loaded when somebody asks: worker processes import this package, too, and start faster
    # without all that describes calls.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "session")
    if not home:
        return importlib.import_module(f"{__name__}.{name}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@atexit.register
def _close_all() -> None:
    # Registered here, not where engines are made: what a program registers after `import mars` is
    # called before, and can still make calls.
    loaded = sys.modules.get(f"{__name__}.session")
    if loaded is not None:
        loaded.close_all()
