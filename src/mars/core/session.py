"""Names that programs of the original import from here; at home they are in `mars.session`."""

from mars.session import (
    AsyncSession,
    SyncSession,
    clear_default_session,
    execute,
    fetch,
    fetch_infos,
    fetch_log,
    get_default_async_session,
    get_default_or_create,
    get_default_session,
    new_session,
    stop_server,
)

__all__ = [
    "AsyncSession", "SyncSession", "clear_default_session", "execute", "fetch", "fetch_infos",
    "fetch_log", "get_default_async_session", "get_default_or_create", "get_default_session",
    "new_session", "stop_server",
]  # fmt: skip
