"""Sessions for ``async`` code. Programs find them in `mars.session`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mars.engines.objects import AsyncRemoteObject
from mars.sessions.opening import get_default_session, new_session
from mars.sessions.session import Session, SessionView

if TYPE_CHECKING:
    from mars.execution import Execution

T = TypeVar("T")


class AsyncSession(SessionView):
    """A session for ``async`` code: what may take time has to be awaited.

    Notes
    -----
    Source: ``AsyncSession`` of Mars; what differs is in docs/differences.md.
    """

    __module__ = "mars.session"  # where programs find it

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    async def init(
        cls, address: str | None = None, session_id: str | None = None, **kwargs: object
    ) -> AsyncSession:
        """Make a session. It does not become the default session.

        Parameters
        ----------
        address, session_id, **kwargs
            As of `new_session`.
        """
        return cls(await _in_thread(new_session, address, session_id, default=False, **kwargs))

    async def execute(self, *objects: object, **kwargs: Any) -> Execution:
        """Start a run, and return a future that can be awaited for its end.

        Parameters and errors as of `Session.execute`.
        """
        kwargs["wait"] = False
        execution: Execution = self.session.execute(*objects, **kwargs)
        return execution

    async def fetch(self, *objects: object, **_: object) -> Any:
        """The values of executed objects. One object: its value. Several objects: a list."""
        return await _in_thread(self.session.fetch, *objects)

    async def get_total_n_cpu(self) -> int:
        """Cores that the calls of this engine share."""
        return self.session.get_total_n_cpu()

    async def get_cluster_versions(self) -> list[str]:
        """Versions of mars that run in the engine."""
        return self.session.get_cluster_versions()

    async def get_web_endpoint(self) -> str | None:
        """None: nothing listens."""
        return self.session.get_web_endpoint()

    async def create_remote_object(
        self, session_id: str, name: str, cls: Callable[..., object], *args: object, **kw: object
    ) -> AsyncRemoteObject:
        """Make an object that all calls of a session share.

        Parameters
        ----------
        session_id : str
            Id of the session.
        name : str
            Name of the object in that session.
        cls : callable
            It is called with ``*args`` and ``**kw`` to make the object.

        Returns
        -------
        AsyncRemoteObject
            It stands for the object. A call of a method has to be awaited.

        Raises
        ------
        ValueError
            The session has an object of that name.
        """
        create = self.session.engine.create_object
        return AsyncRemoteObject(await _in_thread(create, session_id, name, cls, args, kw))

    async def get_remote_object(self, session_id: str, name: str) -> AsyncRemoteObject:
        """The shared object of that name.

        Parameters
        ----------
        session_id, name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none.
        """
        return AsyncRemoteObject(self.session.engine.get_object(session_id, name))

    async def destroy_remote_object(self, session_id: str, name: str) -> None:
        """Forget a shared object.

        Parameters
        ----------
        session_id, name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none.
        """
        self.session.engine.destroy_object(session_id, name)

    def as_default(self) -> AsyncSession:
        """Make this the default session.

        Returns
        -------
        AsyncSession
            Itself.
        """
        self.session.as_default()
        return self

    async def destroy(self) -> None:
        """End the session."""
        await _in_thread(self.session.close)

    async def stop_server(self) -> None:
        """End the engine."""
        await _in_thread(self.session.stop_server)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def __repr__(self) -> str:
        return repr(self.session).replace("<Session", "<AsyncSession")


async def _in_thread(act: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Do what may take time in a thread, so that the event loop goes on meanwhile."""
    import asyncio

    return await asyncio.to_thread(act, *args, **kwargs)


def get_default_async_session() -> AsyncSession | None:
    """The default session for ``async`` code."""
    session = get_default_session()
    return None if session is None else AsyncSession(session)


get_default_async_session.__module__ = "mars.session"  # where programs find it

__all__ = ["AsyncSession", "get_default_async_session"]
