"""What programs import of sessions: `new_session`, the default session, `execute`, `fetch`, ….

This module holds the public names, nothing else. What is behind them is in `mars.sessions`:
`opening` makes sessions and knows the default one, `session` has what they can do, `runs` runs
their calls, and `aio` is for ``async`` code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mars.sessions.aio import AsyncSession, get_default_async_session
from mars.sessions.opening import (
    clear_default_session,
    default_session,
    execute,
    fetch,
    fetch_infos,
    fetch_log,
    get_context,
    get_default_or_create,
    get_default_session,
    new_session,
    stop_server,
)
from mars.sessions.session import Session, above

if TYPE_CHECKING:
    from mars.calls.objects import Object
    from mars.executors.executor import Executor

SyncSession = Session
"""The name that the original has for it."""


def _put(value: object, session: Session | None = None) -> Object[object]:
    from mars.calls.put import put  # late: who only looks at sessions needs none of it

    return put(value, session=session)


def _executor(max_workers: int | None = None, **kwargs: Any) -> Executor:
    from mars.executors.executor import Executor  # late, for the same reason

    return Executor(max_workers, **kwargs)


above.update(put=_put, executor=_executor)


def __getattr__(name: str) -> object:
    # The name that the original has for what `execute(wait=False)` returns. It is imported late
    # because it needs `concurrent.futures`, see `mars.errors`.
    if name != "ExecutionInfo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mars.execution import Execution

    return Execution


__all__ = [
    "AsyncSession", "Session", "SyncSession", "clear_default_session", "default_session", "execute",
    "fetch", "fetch_infos", "fetch_log", "get_context", "get_default_async_session",
    "get_default_or_create", "get_default_session", "new_session", "stop_server",
]  # fmt: skip
