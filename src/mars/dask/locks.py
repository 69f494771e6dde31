"""Locks in a graph that hold between processes.

Dask runs tasks in threads, where a lock in the graph is one lock for all of them. Pickled to other
processes, a plain lock fails, and Dask's `SerializableLock` becomes one lock for each process. HDF5
and netCDF files that several processes write at once then break. So on one machine, locks in a
graph travel as a `ProcessLock`, which is the same lock in all processes of the program.

The lock is a range of bytes in a file without a name that the program holds. The system gives it
back when a process ends, also when it is killed, and nothing is left on disk. On a cluster no file
is shared by all hosts: there a lock travels as a `mars.dask.lock_table.ClusterLock`, which the
program keeps.
"""

from __future__ import annotations

import contextlib
import copyreg
import fcntl
import os
import struct
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Hashable
from typing import Final, Protocol

from mars.dask.lock_table import NAME, ClusterLock, LockOfCalls, LockTable
from mars.engines.kinds import is_cluster
from mars.sessions.session import Session
from mars.settings import DASK_LOCK_LOOK_S

_FLOCK: Final = struct.Struct("hhqqi4x")
"""The system's ``struct flock``: type, origin, first byte, number of bytes, process."""

_PlainLock: Final = type(threading.Lock())

_HERE: Final = uuid.uuid4().hex
"""This process and those that it forks, among all that may use one cluster's session."""


class ProcessLock(LockOfCalls):
    """A lock that all processes of a program share, as `threading.Lock` is shared by its threads.

    Parameters
    ----------
    path : str
        The file, as other processes can open it.
    place : int
        The byte of the file that stands for the lock.
    """

    def __init__(self, path: str, place: int) -> None:
        self._path = path
        self._place = place
        self._shared = _shared_part(path, place)  # held, so that it is there as long as this
        self._inner = self._shared.lock
        self._file: int | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; see `LockOfCalls`."""
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        if not self._inner.acquire(blocking, -1 if timeout is None else timeout):
            return False
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            taken = False
            try:
                wait = blocking and deadline is None
                while not (taken := _take(file, self._place, wait=wait)):
                    if not blocking or (deadline is not None and time.monotonic() >= deadline):
                        return False
                    time.sleep(DASK_LOCK_LOOK_S)
            finally:
                if not taken:
                    os.close(file)
        except BaseException:
            self._inner.release()
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock back; see `LockOfCalls`."""
        file, self._file = self._file, None
        if file is None:
            raise RuntimeError("release of a lock that is not held")
        os.close(file)  # which gives back what was locked through it
        self._inner.release()

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return ProcessLock, (self._path, self._place)

    def __dask_tokenize__(self) -> object:
        return ("mars-lock", self._path, self._place)

    def __repr__(self) -> str:
        return f"<ProcessLock {self._place}>"


class _Shared:
    """The part of a lock that the threads of one process share."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()


_shared: weakref.WeakValueDictionary[tuple[str, int], _Shared] = weakref.WeakValueDictionary()
_guard: Final = threading.Lock()


def _shared_part(path: str, place: int) -> _Shared:
    with _guard:
        known = _shared.get((path, place))
        if known is None:
            known = _shared[path, place] = _Shared()
        return known


def _take(file: int, place: int, *, wait: bool) -> bool:
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(file, command, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
    except (BlockingIOError, PermissionError):  # the two ways to say that somebody has it
        return False
    return True


class _Registry:
    """The file of the locks of this program, and the byte of each lock that has travelled."""

    def __init__(self) -> None:
        self.file: int | None = None
        self.places: dict[object, int] = {}
        self.count = 0
        self.users = 0  # graphs whose locks are held
        self.pickling = 0  # threads that pickle some

    def path(self) -> str:
        if self.file is None:
            self.file = os.memfd_create("mars-locks")
        return f"/proc/{os.getpid()}/fd/{self.file}"

    def place_of(self, name: object) -> int:
        place = self.places.get(name)
        if place is None:
            self.count += 1
            place = self.places[name] = self.count
        return place

    def close(self) -> None:
        """Give the file back; a lock that is still held in another process loses its meaning."""
        file, self.file = self.file, None
        self.places.clear()
        if file is not None:
            os.close(file)


_here = _Registry()
_plain: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()


def _forget() -> None:
    # A child has locks of its own: those of its parent are for the processes of the parent.
    _here.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_forget)


class _Travel(threading.local):
    on = False
    far = False  # to other hosts


_travel = _Travel()


class _Named(Protocol):
    """What is used of a SerializableLock of Dask."""

    token: Hashable


class _File(Protocol):
    filename: str
    mode: str


class _Dataset(Protocol):
    """What is used of a dataset of h5py."""

    file: _File
    name: str


def _reduce_named(
    lock: _Named,
) -> (
    tuple[Callable[..., object], tuple[object, ...]]
    | tuple[Callable[..., object], tuple[object, ...], object]
):
    """A SerializableLock of Dask: a name stands for it in each process."""
    if not _travel.on:
        return copyreg.__newobj__, (type(lock),), lock.token  # type: ignore[attr-defined]
    if _travel.far:
        return ClusterLock, (("named", lock.token),)
    with _guard:
        return ProcessLock, (_here.path(), _here.place_of(("named", lock.token)))


def _reduce_plain(lock: object) -> tuple[Callable[..., object], tuple[object, ...]]:
    if not _travel.on:
        raise TypeError(f"cannot pickle {type(lock).__name__!r} object")
    with _guard:
        place = _plain.get(lock)
        if place is None:
            _here.count += 1
            place = _plain[lock] = _here.count
        if _travel.far:
            return ClusterLock, (("plain", _HERE, os.getpid(), place),)
        return ProcessLock, (_here.path(), place)


def _reduce_dataset(dataset: _Dataset) -> tuple[Callable[..., object], tuple[object, ...]]:
    """A dataset of h5py: other processes open its file for themselves."""
    file = dataset.file
    if not _travel.on or _travel.far or file.mode != "r":
        raise TypeError(
            "h5py objects cannot be pickled. A dataset of a file that is open for reading only can "
            f"go to other processes: they open the file again. {file.filename} is open with mode "
            f"{file.mode!r}; open it with h5py.File(path, 'r')"
        )
    return open_dataset, (os.path.abspath(file.filename), dataset.name)


def open_dataset(path: str, name: str) -> object:
    """A dataset of h5py in a file that is opened for reading. It is closed with the dataset."""
    import h5py

    opened: object = h5py.File(path, "r")[name]
    return opened


class Held:
    """The locks of one graph. As a context manager, it lets this thread pickle them.

    Inside the block, locks become locks between processes. The locks exist until `close`; those of
    a cluster as long as its session. On one machine, datasets of h5py travel if their file is open
    for reading only.

    Parameters
    ----------
    session : Session
        The session whose calls are spawned.
    """

    def __init__(self, session: Session) -> None:
        self._far = is_cluster(session.address)
        self._closed = self._far
        self._before = False, False
        if self._far:
            with contextlib.suppress(ValueError):  # it has one
                session.create_remote_object(NAME, LockTable)
        else:
            with _guard:
                _here.users += 1

    def __enter__(self) -> None:
        table = copyreg.dispatch_table
        with _guard:
            _here.pickling += 1
            table[_PlainLock] = _reduce_plain
            # xarray has a class of its own for the locks of libraries, which are for each process.
            for module, name, how in (
                ("dask.utils", "SerializableLock", _reduce_named),
                ("h5py", "Dataset", _reduce_dataset),
            ):
                kind = getattr(sys.modules.get(module), name, None)
                if kind is not None:
                    table[kind] = how
        self._before = _travel.on, _travel.far
        _travel.on, _travel.far = True, self._far

    def __exit__(self, *_: object) -> None:
        _travel.on, _travel.far = self._before
        table = copyreg.dispatch_table
        with _guard:
            _here.pickling -= 1
            if not _here.pickling:
                for kind in [kind for kind, how in table.items() if how in _REDUCERS]:
                    del table[kind]

    def close(self) -> None:
        """Give the locks back. A second call does nothing."""
        with _guard:
            if self._closed:
                return
            self._closed = True
            _here.users -= 1
            if not _here.users:
                _here.close()


_REDUCERS: Final = (_reduce_named, _reduce_plain, _reduce_dataset)

__all__ = ["Held", "ProcessLock", "open_dataset"]
