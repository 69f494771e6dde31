"""Objects that the calls of a session share by name, in the driver's process.

The original keeps them on its supervisor. A method runs in a thread of its own, so one that
blocks, such as a lock's ``acquire``, holds up nobody else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any


class SharedObjects:
    """All shared objects of one engine."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def create(
        self, session: str, name: str, cls: Callable[..., Any], args: Any, kwargs: Any
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

    def find(self, session: str, name: str) -> Any:
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
        self, session: str, name: str, method: str, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Call a method, in this thread."""
        return getattr(self.find(session, name), method)(*args, **kwargs)


class RemoteObject:
    """Stands for a shared object: calling a method calls it there."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self._name = name
        self._call = call

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__") and method.endswith("__"):
            raise AttributeError(method)

        def remote_method(*args: Any, **kwargs: Any) -> Any:
            return self._call(self._name, method, args, kwargs)

        remote_method.__name__ = method
        return remote_method

    def __enter__(self) -> Any:
        return self._call(self._name, "__enter__", (), {})

    def __exit__(self, *error: Any) -> Any:
        return self._call(self._name, "__exit__", (None, None, None), {})

    def __repr__(self) -> str:
        return f"<RemoteObject {self._name!r}>"
