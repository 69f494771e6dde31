"""Locks between the calls of a session on a cluster: the program's process keeps who has which.

No file is shared by the hosts of a cluster, so the system cannot keep these locks. They are in one
object of the session, which is in the program's process. A call that waits for a lock waits for a
method of that object. A lock is free again if its call has ended, or its worker is lost.

::

    a call on some host:  ClusterLock.acquire ──► LockTable.acquire (a thread of the program)
                          ClusterLock.release ──► LockTable.release

Used by `mars.dask.locks`.
"""

from __future__ import annotations

import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Final

from mars.attempt import context
from mars.engines.objects import asker_is_there
from mars.errors import UsageError
from mars.settings import DASK_HOLDER_LOOK_S

NAME: Final = "mars.dask.locks"
"""What the table is called among the shared objects of a session."""


class LockTable:
    """Who has which lock, in the program's process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[Hashable, tuple[str, Callable[[], bool]]] = {}

    def acquire(self, token: Hashable, owner: str, timeout_s: float | None) -> bool:
        """Give a lock to ``owner``, once it is free; False: it was not within the time.

        None: for ever. That ends if whoever asks is there no more.
        """
        there = asker_is_there()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                holder = self._held.get(token)
                if holder is None or not holder[1]():
                    self._held[token] = owner, there
                    return True
                left = DASK_HOLDER_LOOK_S
                if deadline is not None:
                    left = min(left, deadline - time.monotonic())
                    if left <= 0:
                        return False
                if not self._changed.wait(left) and not there():
                    return False

    def release(self, token: Hashable, owner: str) -> bool:
        """Take a lock back; whether ``owner`` had it."""
        with self._changed:
            holder = self._held.get(token)
            if holder is None or holder[0] != owner:
                return False
            del self._held[token]
            self._changed.notify_all()
            return True


class LockOfCalls(ABC):
    """A lock that calls in several processes share, used as a `threading.Lock` is."""

    @abstractmethod
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock.

        Parameters
        ----------
        blocking : bool, default True
            Whether to wait for it.
        timeout : float, default -1
            Seconds to wait at most; -1: for ever.

        Returns
        -------
        bool
            Whether it was taken.
        """

    @abstractmethod
    def release(self) -> None:
        """Give the lock back.

        Raises
        ------
        RuntimeError
            It is not held.
        """

    def locked(self) -> bool:
        """Whether somebody holds it."""
        if self.acquire(blocking=False):
            self.release()
            return False
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class ClusterLock(LockOfCalls):
    """A lock that all calls of a session share, as `threading.Lock` is shared by threads.

    Parameters
    ----------
    token : hashable
        What the lock is called in its session.
    """

    def __init__(self, token: Hashable) -> None:
        self._token = token
        self._owner = ""  # while it is held through this object
        self._inner = threading.Lock()  # between threads that share this object

    def _ask(self, method: str, *args: object) -> object:
        """Call a method of the table, in the program's process."""
        attempt = context.current()
        if attempt is None:
            raise UsageError(
                "this lock belongs to the calls of a session on a cluster, and can be taken in "
                "these only; in the program use the lock that the graph was made with"
            )
        table = attempt.engine.get_object(attempt.session_id, NAME)
        call: Callable[..., object] = getattr(table, method)
        return call(*args)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; see `LockOfCalls`.

        Raises
        ------
        UsageError
            This is no call.
        """
        wait_s = None if timeout is None or timeout < 0 else timeout
        begun = time.monotonic()
        if not self._inner.acquire(blocking, -1 if wait_s is None else wait_s):
            return False
        owner = uuid.uuid4().hex
        taken = False
        try:
            if not blocking:
                wait_s = 0.0
            elif wait_s is not None:
                wait_s = max(0.0, wait_s - (time.monotonic() - begun))
            taken = bool(self._ask("acquire", self._token, owner, wait_s))
        finally:
            if not taken:
                self._inner.release()
        self._owner = owner if taken else self._owner
        return taken

    def release(self) -> None:
        """Give the lock back; see `LockOfCalls`."""
        owner, self._owner = self._owner, ""
        if not owner:
            raise RuntimeError("release of a lock that is not held")
        try:
            self._ask("release", self._token, owner)
        finally:
            self._inner.release()

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return ClusterLock, (self._token,)

    def __dask_tokenize__(self) -> object:
        return ("mars-cluster-lock", self._token)

    def __repr__(self) -> str:
        return f"<ClusterLock {self._token}>"


__all__ = ["NAME", "ClusterLock", "LockOfCalls", "LockTable"]
