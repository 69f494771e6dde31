"""Objects that the calls of a session share by name, in the driver's process.

The original keeps them on its supervisor. A method runs in a thread of its own, so one that
blocks, such as a lock's ``acquire``, holds up nobody else. Methods that are coroutines run in
one event loop, as they do there, so that they can wait for each other with asyncio's own locks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence

from mars.errors import SessionClosed
from mars.settings import STOP_S


def _always_there() -> bool:
    return True


class _Asking(threading.local):
    there: Callable[[], bool] = staticmethod(_always_there)


_asking = _Asking()


def asker_is_there() -> Callable[[], bool]:
    """For a method of a shared object: says whether the call that has called it still runs.

    The answer is always True for the program itself. It may be asked for at any time, in any
    thread but the engine's.
    """
    return _asking.there


@contextlib.contextmanager
def asked_by(there: Callable[[], bool]) -> Iterator[None]:
    """In this thread, methods of shared objects are called for somebody who may go meanwhile."""
    before, _asking.there = _asking.there, there
    try:
        yield
    finally:
        _asking.there = before


class SharedObjects:
    """All shared objects of one engine."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], object] = {}
        self._lock = threading.Lock()
        self._coroutines: _EventLoop | None = None
        self._closed = False

    def create(
        self,
        session: str,
        name: str,
        cls: Callable[..., object],
        args: Sequence[object],
        kwargs: dict[str, object],
    ) -> None:
        """Make an object.

        Raises
        ------
        ValueError
            The session has one of that name.
        """
        made = cls(*args, **kwargs)
        with self._lock:
            if (session, name) in self._objects:
                raise ValueError(f"a remote object named {name!r} exists in this session already")
            self._objects[session, name] = made

    def find(self, session: str, name: str) -> object:
        """The object.

        Raises
        ------
        KeyError
            There is none.
        """
        with self._lock:
            try:
                return self._objects[session, name]
            except KeyError:
                raise KeyError(f"no remote object named {name!r} in this session") from None

    def destroy(self, session: str, name: str) -> None:
        """Forget an object.

        Raises
        ------
        KeyError
            There is none.
        """
        self.find(session, name)
        with self._lock:
            self._objects.pop((session, name), None)

    def drop_session(self, session: str) -> None:
        """Forget all objects of a session."""
        with self._lock:
            for key in [key for key in self._objects if key[0] == session]:
                del self._objects[key]

    def call(
        self,
        session: str,
        name: str,
        method: str,
        args: Sequence[object],
        kwargs: dict[str, object],
    ) -> object:
        """Call a method, in this thread; one that is a coroutine, in the event loop."""
        result = getattr(self.find(session, name), method)(*args, **kwargs)
        if not hasattr(type(result), "__await__"):
            return result
        with self._lock:
            if self._closed:
                raise SessionClosed
            if self._coroutines is None:
                self._coroutines = _EventLoop()
            coroutines = self._coroutines
        return coroutines.run(result)

    def close(self) -> None:
        """End what still runs in the event loop; idempotent."""
        with self._lock:
            self._closed = True
            coroutines, self._coroutines = self._coroutines, None
        if coroutines is not None:
            coroutines.close()


class _EventLoop:
    """A thread that runs coroutines."""

    def __init__(self) -> None:
        import asyncio  # most programs need none of it

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="mars-shared-objects", daemon=True
        )
        self._thread.start()

    def run(self, awaitable: Awaitable[object]) -> object:
        """Wait for it; what it gives."""
        import asyncio

        async def awaited() -> object:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()

    def close(self) -> None:
        """Cancel what still runs there, and end the thread."""
        import asyncio

        async def cancel_all() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        if threading.current_thread() is self._thread:  # a coroutine ends the session that it is of
            self._loop.stop()
            return
        with contextlib.suppress(TimeoutError):  # one does not heed it, or holds the thread
            asyncio.run_coroutine_threadsafe(cancel_all(), self._loop).result(STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)
        if not self._thread.is_alive():
            self._loop.close()


class AsyncRemoteObject:
    """Stands for a shared object in ``async`` code: a call of a method is to be awaited."""

    def __init__(self, remote: object) -> None:
        self._remote = remote

    def __getattr__(self, method: str) -> Callable[..., object]:
        remote_method = getattr(self._remote, method)

        async def awaited(*args: object, **kwargs: object) -> object:
            import asyncio

            return await asyncio.to_thread(remote_method, *args, **kwargs)

        return awaited

    def __repr__(self) -> str:
        return repr(self._remote).replace("<Remote", "<AsyncRemote")


class RemoteObject:
    """Stands for a shared object: calling a method calls it there."""

    def __init__(self, name: str, call: Callable[..., object]) -> None:
        self._name = name
        self._call = call

    def __getattr__(self, method: str) -> Callable[..., object]:
        if method.startswith("__") and method.endswith("__"):
            raise AttributeError(method)

        def remote_method(*args: object, **kwargs: object) -> object:
            return self._call(self._name, method, args, kwargs)

        remote_method.__name__ = method
        return remote_method

    def __enter__(self) -> object:
        return self._call(self._name, "__enter__", (), {})

    def __exit__(self, *error: object) -> object:
        return self._call(self._name, "__exit__", (None, None, None), {})

    def __repr__(self) -> str:
        return f"<RemoteObject {self._name!r}>"
