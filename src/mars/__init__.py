"""Plain Python functions, on all cores or many machines.

The public names. To follow one call from `spawn` to `fetch`, read: `remote` (describing calls),
`task` (what a call is), `graph` (what an `execute` needs), `session` (what was executed),
`engine` (the contract), `engines.local.scheduler` (what runs where), `engines.local.loop` (the
shell around it), `engines.local.worker` (the process that runs it), `attempt.call` (what
surrounds the function), `engines.local.store` (large results), `logs` (what it printed).
"""

from __future__ import annotations

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
