"""Where a checkpoint's bytes are: a folder on this machine, or anywhere that fsspec reaches.

A folder holds segments, to which records are appended, and files, which are written once and
then appear whole. It knows nothing of what the bytes mean. Called by `mars.journal`.

::

    otto/journal.mars        the one segment of a local folder; beyond: journal/<when>-<n>.mars
    otto/results/4f/4f0c…    a large result
    otto/arguments/9a/9a31…  a large part of arguments, by its content
    otto/lock                who writes
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from mars import owners
from mars.errors import CheckpointBusy, CheckpointUnusable
from mars.platform import machine
from mars.settings import (
    CHECKPOINT_INLINE_BYTES,
    CHECKPOINT_LOCK_S,
    CHECKPOINT_WINDOW_S,
    MIB,
    STOP_S,
)

SEGMENT_SHIFT: Final = 40
"""A position is the number of a segment, shifted by this, and an offset in it."""

_WRITEV: Final = 512  # buffers in one system call; Linux takes 1024
_LOOKS: Final = 3  # at a journal that somebody else changes meanwhile
_MERGE_FROM: Final = 32  # segments; each is a request when a remote checkpoint is opened


def _say_nothing(line: str) -> None:
    """For who has nobody to tell."""


class Folder(Protocol):
    """A checkpoint's folder. One thread writes; any may read."""

    name: str
    inline_bytes: int  # results up to this size stand in the segment itself
    window_s: float  # how long records are gathered until they are written
    eager: bool  # whether one that comes after a rest is written at once
    remark: str  # something that its user should know; empty: nothing
    trusting: bool  # whether files of other users are read, too

    def strangers(self) -> tuple[str, str]:
        """Who else than its owner can write there, and whose it is if not ours; or nothing.

        Of what is not on this machine nobody knows.
        """

    def lock(self, tell: Callable[[str], object] = ...) -> None:
        """Keep other writers out until `close`.

        Parameters
        ----------
        tell : callable, optional
            Takes a line for the user when that does not work any more.

        Raises
        ------
        CheckpointBusy
            Another process writes there.
        CheckpointUnusable
            Nothing can be written there.
        """

    def segments(self) -> Iterator[tuple[int, Any]]:
        """Numbers and bytes of all segments; the bytes are good until the next step."""

    def truncate(self, size: int) -> None:
        """Cut the last segment off."""

    def append(self, buffers: Sequence[Any]) -> int:
        """Append, all or nothing; the position of the first byte.

        Raises
        ------
        OSError
            It did not work; nothing was appended.
        """

    def sync(self) -> None:
        """Return when all that was written survives a loss of power."""

    def read(self, position: int, size: int) -> bytes:
        """Bytes of a segment."""

    def write_file(self, name: str, buffers: Sequence[Any]) -> None:
        """Write a file that appears whole, or not at all."""

    def read_file(self, name: str) -> Any:
        """A file's bytes; FileNotFoundError if there is none."""

    def file_size(self, name: str) -> int | None:
        """Bytes of a file; None: there is none."""

    def files(self) -> Iterator[tuple[str, int]]:
        """Names and sizes of all files."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def replace(self, buffers: Iterator[Any]) -> None:
        """Have these bytes in place of all segments that were read here, in one step."""

    def close(self) -> None:
        """Let others write; idempotent."""


def open_folder(where: str, *, create: bool) -> Folder:
    """The folder at a path or an URL.

    Raises
    ------
    CheckpointUnusable
        It is no folder for checkpoints, or cannot be made or reached.
    """
    if "://" in where:
        return RemoteFolder(where, create=create)
    return LocalFolder(where, create=create)


class LocalFolder:
    """A folder of a file system."""

    inline_bytes = CHECKPOINT_INLINE_BYTES
    window_s = CHECKPOINT_WINDOW_S
    eager = True

    def __init__(self, path: str, *, create: bool) -> None:
        self.name = path
        self.remark = ""
        self.trusting = False
        self._path = os.path.abspath(os.path.expanduser(path))
        self._lock = -1
        journal = os.path.join(self._path, "journal.mars")
        try:
            if create:
                os.makedirs(self._path, mode=0o700, exist_ok=True)
            others = set(os.listdir(self._path)) - {"lock"}
            if create:
                _refuse_strangers(path, self._path)
        except OSError as error:
            raise CheckpointUnusable(path, _reason(error)) from None
        if not os.path.exists(journal) and (others or not create):
            raise CheckpointUnusable(
                path, "it holds other things, and no journal" if others else "there is no journal"
            )
        self._descriptor = -1
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        try:
            self._descriptor = os.open(journal, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise CheckpointUnusable(path, _reason(error)) from None
        facts = os.fstat(self._descriptor)
        found = owners.stranger(journal, facts) if create else ""
        if found:
            self.close()
            raise CheckpointUnusable(path, f"{found}, so it may not be yours; {_WAY_OUT}")
        self._size = facts.st_size
        _open.add(self)

    def strangers(self) -> tuple[str, str]:
        """Who else than its owner can write there, and whose it is; see `Folder.strangers`."""
        written, owner = owners.strangers_below(self._path)
        journal = os.path.join(self._path, "journal.mars")
        facts = os.fstat(self._descriptor)
        if not owner and facts.st_uid not in (0, os.geteuid()):
            owner = f"{journal} belongs to user {facts.st_uid}"
        return written or owners.writers(journal, facts), owner

    def lock(self, tell: Callable[[str], object] = _say_nothing) -> None:
        """Keep other writers out; see `Folder.lock`."""
        import fcntl

        path = os.path.join(self._path, "lock")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(path, flags, 0o600)
        except OSError as error:
            raise CheckpointUnusable(self.name, f"lock: {_reason(error)}") from None
        try:
            # Of the open file, so it ends with this process however that ends. On NFS Linux
            # makes it a lock of the server.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                holder = os.pread(self._lock, 4096, 0)
                self._close_lock()
                raise CheckpointBusy(self.name, _described(holder)) from None
            self.remark = (
                f"its file system has no locks ({error.strerror}), so a second run on it at the "
                f"same time is not noticed; see that there is none"
            )
        else:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, _myself(), 0)
        self._size = os.fstat(self._descriptor).st_size
        for name, _ in self.files():
            if name.endswith(".new"):  # a run ended while it wrote a file
                self.remove(name)

    def _close_lock(self) -> None:
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    def segments(self) -> Iterator[tuple[int, Any]]:
        """The one segment."""
        if not self._size:
            return
        with mmap.mmap(self._descriptor, self._size, access=mmap.ACCESS_READ) as view:
            yield 0, view

    def truncate(self, size: int) -> None:
        """Cut the segment off."""
        os.ftruncate(self._descriptor, size)
        self._size = size

    def append(self, buffers: Sequence[Any]) -> int:
        """Append, all or nothing."""
        start = self._size
        small = sum(map(len, buffers)) <= 2 * MIB  # then one copy is quicker than many buffers
        joined = [b"".join(buffers)] if small else buffers
        pending = [memoryview(buffer).cast("B") for buffer in joined if len(buffer)]
        position = start
        try:
            while pending:
                written = os.pwritev(self._descriptor, pending[:_WRITEV], position)
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                position += written
                done = 0
                while done < len(pending) and written >= pending[done].nbytes:
                    written -= pending[done].nbytes
                    done += 1
                del pending[:done]
                if written:
                    pending[0] = pending[0][written:]
        except OSError:
            with contextlib.suppress(OSError):  # what stays there is known as torn
                os.ftruncate(self._descriptor, start)
            raise
        self._size = position
        return start

    def sync(self) -> None:
        """Return when all that was written survives a loss of power."""
        os.fsync(self._descriptor)

    def read(self, position: int, size: int) -> bytes:
        """Bytes of the segment."""
        return os.pread(self._descriptor, size, position)

    def write_file(self, name: str, buffers: Sequence[Any]) -> None:
        """Write a file that appears whole, or not at all."""
        path = os.path.join(self._path, name)
        folder = os.path.dirname(path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        try:
            with open(f"{path}.new", "wb", buffering=0, opener=_private) as file:
                for buffer in buffers:
                    view = memoryview(buffer).cast("B")
                    while view.nbytes:
                        view = view[file.write(view) :]
                os.fsync(file.fileno())
            os.rename(f"{path}.new", path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.new")
            raise
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read_file(self, name: str) -> Any:
        """A file's bytes, mapped: what is written to them is the reader's own."""
        path = os.path.join(self._path, name)
        with open(path, "rb", opener=_not_a_link) as file:
            facts = os.fstat(file.fileno())
            if not self.trusting and owners.stranger(path, facts):
                raise FileNotFoundError(errno.ENOENT, "that is somebody else's", path)
            if not facts.st_size:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def file_size(self, name: str) -> int | None:
        """Bytes of a file."""
        try:
            return os.stat(os.path.join(self._path, name)).st_size
        except FileNotFoundError:
            return None

    def files(self) -> Iterator[tuple[str, int]]:
        """Names and sizes of all files."""
        for kind in ("results", "arguments"):
            for folder, _, names in os.walk(os.path.join(self._path, kind)):
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    yield os.path.relpath(path, self._path), os.stat(path).st_size

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(os.path.join(self._path, name))

    def replace(self, buffers: Iterator[Any]) -> None:
        """Have these bytes in place of the segment."""
        journal = os.path.join(self._path, "journal.mars")
        with open(f"{journal}.new", "wb", opener=_private) as file:
            file.writelines(buffers)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{journal}.new", journal)
        os.close(self._descriptor)
        self._descriptor = os.open(journal, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Let others write."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self._close_lock()

    def inert(self) -> None:
        """In a process forked from the writer's: the lock is the parent's alone."""
        self.close()


_open: weakref.WeakSet[LocalFolder] = weakref.WeakSet()


def _inert_all() -> None:
    for folder in list(_open):
        folder.inert()
    _open.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_inert_all)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _not_a_link(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(errno.ENOENT, "that is a link", path) from None
        raise


_WAY_OUT: Final = (
    "a program runs code of its checkpoint: use a folder of your own to which nobody else can write"
)


def _refuse_strangers(where: str, path: str) -> None:
    """Refuse a folder in which somebody else may have put what a program would unpickle."""
    for found in owners.strangers_below(path):
        if found:
            raise CheckpointUnusable(where, f"{found}; {_WAY_OUT}")


def _myself() -> bytes:
    facts = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "machine": machine(),
        "since": time.time(),
        "program": " ".join(sys.argv)[:200],
    }
    return json.dumps(facts).encode()


def _has_ended(facts: dict[str, Any]) -> bool:
    """Whether it is known that a writer is gone, which is so on its own machine only."""
    here = machine()
    return bool(here) and facts.get("machine") == here and not _is_there(facts["pid"])


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _described(holder: bytes | dict[str, Any]) -> str:
    try:
        facts = json.loads(holder) if isinstance(holder, bytes) else holder
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["since"]))
        return f"process {facts['pid']} on {facts['host']} since {since} ({facts['program']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class RemoteFolder:
    """A folder that fsspec reaches. Nothing can be appended there: each batch is an object.

    Nor can it be locked: an object says who writes there, and a thread of its own renews it for as
    long as the folder is locked, whether anything is written or not. Objects that another process
    has written are never removed unread, so nothing is lost if two write after all.
    """

    inline_bytes = CHECKPOINT_INLINE_BYTES // 16
    window_s = 50 * CHECKPOINT_WINDOW_S
    eager = False  # each write is a request, and makes an object
    sign_s: float = CHECKPOINT_LOCK_S / 3

    def __init__(self, url: str, *, create: bool) -> None:
        self.name = url
        try:
            import fsspec
        except ModuleNotFoundError:
            raise CheckpointUnusable(
                url, "an URL needs fsspec, which is not installed: pip install mars-remote[fsspec]"
            ) from None
        # Of folders of this machine those in ours have to be made.
        options = {"auto_mkdir": True} if url.startswith(("file://", "local://")) else {}
        with self._unusable():
            self._system, path = fsspec.core.url_to_fs(url, **options)
            self._path = str(path).rstrip("/")
            if options:
                os.stat(os.path.dirname(self._path))
                if create and os.path.exists(self._path):
                    _refuse_strangers(url, self._path)
            self._here = bool(options)
            self._names = self._listed("journal")
        if not create and not self._names:
            raise CheckpointUnusable(url, "there is no journal")
        self.remark = (
            f"{url.partition('://')[0]} has no locks, so two runs that begin at the same moment "
            f"do not notice each other; see that there is one only"
        )
        self.trusting = False
        self._parts: list[bytes] = []  # of the first so many of `_names`: all, or none
        self._count = 0
        self._stamp = f"{time.time_ns():020d}-{os.getpid()}"
        self._locked = False
        self._token = os.urandom(8).hex()  # by which we know our lock
        self._guard = threading.Lock()  # who looks at the lock object, and changes it
        self._ending = threading.Event()
        self._signs: threading.Thread | None = None
        self._tell: Callable[[str], object] = _say_nothing
        self._told = False

    def strangers(self) -> tuple[str, str]:
        """What is known of that, which is of this machine's own files only."""
        return owners.strangers_below(self._path) if self._here else ("", "")

    @contextlib.contextmanager
    def _unusable(self, *passing: type[Exception]) -> Iterator[None]:
        """Whatever the protocol raises, but for some, means that the checkpoint cannot be used."""
        passed: tuple[type[Exception], ...] = (CheckpointBusy, CheckpointUnusable, *passing)
        try:
            yield
        except passed:
            raise
        except Exception as error:
            raise CheckpointUnusable(self.name, f"{type(error).__name__}: {error}") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Whatever the protocol raises means that this was not written."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error

    def _listed(self, kind: str) -> list[str]:
        folder = f"{self._path}/{kind}"
        self._system.invalidate_cache()
        if not self._system.exists(folder):
            return []
        return sorted(self._system.find(folder))

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}"

    # -- the lock -----------------------------------------------------------------------------

    def lock(self, tell: Callable[[str], object] = _say_nothing) -> None:
        """Look whether somebody else writes, and say from now on that we do."""
        self._tell = tell
        with self._unusable(), self._guard:
            holder = self._holder()
            silent_s = time.time() - holder["told"] if holder else CHECKPOINT_LOCK_S
            if silent_s < CHECKPOINT_LOCK_S and not _has_ended(holder):
                raise CheckpointBusy(
                    self.name,
                    f"{_described(holder)}, which gave a sign of life {max(silent_s, 0):.0f} s ago "
                    f"and counts as ended {CHECKPOINT_LOCK_S:.0f} s after its last one",
                )
            self._sign()
            holder = self._holder()  # of two that began together, the last one has it
            if holder and holder.get("token") != self._token:
                raise CheckpointBusy(self.name, _described(holder))
        self._locked = True
        self._signs = threading.Thread(target=self._give_signs, name="mars-lock", daemon=True)
        self._signs.start()

    def _holder(self) -> dict[str, Any]:
        """Who has said last that he writes here; empty: nobody."""
        try:
            facts = json.loads(self._system.cat_file(self._full("lock")))
            facts["told"] += 0.0
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}
        return facts  # type: ignore[no-any-return]

    def _sign(self) -> None:
        facts = {**json.loads(_myself()), "told": time.time(), "token": self._token}
        self._system.pipe_file(self._full("lock"), json.dumps(facts).encode())

    def _give_signs(self) -> None:
        told_at = time.monotonic()
        while not self._ending.wait(self.sign_s):
            try:
                with self._guard:
                    if self._ending.is_set() or not self._renew():
                        return
                told_at = time.monotonic()
            except Exception as error:  # whatever the protocol raises: it may be better next time
                if time.monotonic() - told_at > CHECKPOINT_LOCK_S and not self._told:
                    self._told = True
                    self._tell(
                        f"mars: checkpoint {self.name}: no sign of life could be given there for "
                        f"{CHECKPOINT_LOCK_S:.0f} s ({type(error).__name__}: {error}), so another "
                        f"program may begin to write there, too"
                    )

    def _renew(self) -> bool:
        """Give a sign of life, unless somebody has taken us for ended."""
        holder = self._holder()
        if holder and holder.get("token") != self._token:
            self._locked = False
            self._tell(
                f"mars: checkpoint {self.name}: {_described(holder)} writes there, too, as this "
                f"program gave no sign of life for {CHECKPOINT_LOCK_S:.0f} s; the results of both "
                f"are kept"
            )
            return False
        self._sign()
        return True

    def close(self) -> None:
        """Let others write."""
        self._ending.set()
        if not self._guard.acquire(timeout=STOP_S):
            self._tell_of_lock("it does not answer")
            return
        try:
            if self._locked:
                self._locked = False
                if self._holder().get("token") == self._token:
                    self._system.rm_file(self._full("lock"))
        except FileNotFoundError:
            return  # somebody has removed it already
        except Exception as error:  # whatever the protocol raises
            self._tell_of_lock(f"{type(error).__name__}: {error}")
        finally:
            self._guard.release()
            if self._signs is not None:
                self._signs.join(STOP_S)

    def _tell_of_lock(self, reason: str) -> None:
        self._tell(
            f"mars: checkpoint {self.name}: its lock could not be removed ({reason}); the next "
            f"program elsewhere can use it {CHECKPOINT_LOCK_S:.0f} s from now"
        )

    # -- the journal --------------------------------------------------------------------------

    def segments(self) -> Iterator[tuple[int, Any]]:
        """All objects of the journal, in the order in which they were written."""
        if not self._parts and self._names:
            with self._unusable():
                self._read_all()
            if self._locked and len(self._parts) >= _MERGE_FROM:
                with self._unusable():
                    self.replace(iter(self._parts))
        yield from enumerate(list(self._parts))

    def _read_all(self) -> None:
        for _ in range(_LOOKS):
            try:
                found = self._system.cat(self._names)
            except FileNotFoundError:  # a writer has made one of many: look again
                self._names = self._listed("journal")
                continue
            self._parts = [found[name] for name in self._names]
            return
        raise CheckpointUnusable(self.name, "its journal changes while it is read")

    def truncate(self, size: int) -> None:
        """Nothing to cut: what is next is another object."""

    def append(self, buffers: Sequence[Any]) -> int:
        """Write one more object."""
        data = b"".join(bytes(buffer) for buffer in buffers)
        name = f"{self._path}/journal/{self._stamp}-{self._count:08d}.mars"
        with self._writing():
            self._system.pipe_file(name, data)
        self._count += 1
        self._names.append(name)
        self._parts.append(data)
        return (len(self._parts) - 1) << SEGMENT_SHIFT

    def sync(self) -> None:
        """Objects are there when they have been written."""

    def read(self, position: int, size: int) -> bytes:
        """Bytes of an object, which are kept."""
        part = self._parts[position >> SEGMENT_SHIFT]
        offset = position & ((1 << SEGMENT_SHIFT) - 1)
        return part[offset : offset + size]

    def replace(self, buffers: Iterator[Any]) -> None:
        """Have one object in place of those that were read or written here, and of no other."""
        data = b"".join(bytes(buffer) for buffer in buffers)
        old = self._names
        name = f"{self._path}/journal/{self._stamp}-{self._count:08d}.mars"
        self._count += 1
        with self._writing():
            self._system.pipe_file(name, data)
        self._names, self._parts = [name], [data]
        for gone in old:
            with self._writing(), contextlib.suppress(FileNotFoundError):
                self._system.rm_file(gone)

    # -- files --------------------------------------------------------------------------------

    def write_file(self, name: str, buffers: Sequence[Any]) -> None:
        """Write one object."""
        with self._writing(), self._system.open(self._full(name), "wb") as file:
            for buffer in buffers:
                file.write(memoryview(buffer).cast("B"))

    def read_file(self, name: str) -> Any:
        """An object's bytes."""
        with self._unusable(FileNotFoundError):
            return bytearray(self._system.cat_file(self._full(name)))

    def file_size(self, name: str) -> int | None:
        """Bytes of an object."""
        try:
            with self._unusable(FileNotFoundError):
                return int(self._system.size(self._full(name)))
        except FileNotFoundError:
            return None

    def files(self) -> Iterator[tuple[str, int]]:
        """Names and sizes of all results and arguments."""
        for kind in ("results", "arguments"):
            with self._unusable():
                found = [(full, int(self._system.size(full))) for full in self._listed(kind)]
            for full, size in found:
                yield full[len(self._path) + 1 :], size

    def remove(self, name: str) -> None:
        """Remove an object."""
        with self._writing():
            self._system.rm_file(self._full(name))


__all__ = ["SEGMENT_SHIFT", "Folder", "LocalFolder", "RemoteFolder", "open_folder"]
