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
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from mars.errors import CheckpointBusy, CheckpointUnusable
from mars.platform import machine
from mars.settings import (
    CHECKPOINT_INLINE_BYTES,
    CHECKPOINT_LOCK_S,
    CHECKPOINT_WINDOW_S,
    MIB,
)

SEGMENT_SHIFT: Final = 40
"""A position is the number of a segment, shifted by this, and an offset in it."""

_WRITEV: Final = 512  # buffers in one system call; Linux takes 1024
_MERGE_FROM: Final = 32  # segments; each is a request when a remote checkpoint is opened


class Folder(Protocol):
    """A checkpoint's folder. One thread writes; any may read."""

    name: str
    inline_bytes: int  # results up to this size stand in the segment itself
    window_s: float  # how long records are gathered until they are written
    eager: bool  # whether one that comes after a rest is written at once
    sign_s: float | None  # how often `sync` is due although nothing was written; None: never
    remark: str  # something that its user should know; empty: nothing

    def lock(self) -> None:
        """Keep other writers out.

        Raises
        ------
        CheckpointBusy
            Another process writes there.
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
        """Have these bytes in place of all segments, in one step."""

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
    sign_s: float | None = None

    def __init__(self, path: str, *, create: bool) -> None:
        self.name = path
        self.remark = ""
        self._path = os.path.abspath(os.path.expanduser(path))
        self._lock = -1
        journal = os.path.join(self._path, "journal.mars")
        try:
            if create:
                os.makedirs(self._path, mode=0o700, exist_ok=True)
            others = set(os.listdir(self._path)) - {"lock"}
        except OSError as error:
            raise CheckpointUnusable(path, _reason(error)) from None
        if not os.path.exists(journal) and (others or not create):
            raise CheckpointUnusable(
                path, "it holds other things, and no journal" if others else "there is no journal"
            )
        self._descriptor = -1
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        try:
            self._descriptor = os.open(journal, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CheckpointUnusable(path, _reason(error)) from None
        self._size = os.fstat(self._descriptor).st_size
        _open.add(self)

    def lock(self) -> None:
        """Keep other writers out; see `Folder.lock`."""
        import fcntl

        path = os.path.join(self._path, "lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        with open(os.path.join(self._path, name), "rb") as file:
            if not os.fstat(file.fileno()).st_size:
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
    return os.open(path, flags, 0o600)


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


def _described(holder: bytes) -> str:
    try:
        facts = json.loads(holder)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["since"]))
        return f"process {facts['pid']} on {facts['host']} since {since} ({facts['program']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class RemoteFolder:
    """A folder that fsspec reaches. Nothing can be appended there: each batch is an object."""

    inline_bytes = CHECKPOINT_INLINE_BYTES // 16
    window_s = 50 * CHECKPOINT_WINDOW_S
    eager = False  # each write is a request, and makes an object
    sign_s: float | None = CHECKPOINT_LOCK_S / 3

    def __init__(self, url: str, *, create: bool) -> None:
        self.name = url
        try:
            import fsspec
        except ModuleNotFoundError:
            raise CheckpointUnusable(
                url, "an URL needs fsspec, which is not installed: pip install mars-remote[fsspec]"
            ) from None
        try:
            self._system, self._path = fsspec.core.url_to_fs(url)
            self._path = self._path.rstrip("/")
            self._names = self._listed("journal")
        except Exception as error:  # whatever the protocol raises
            raise CheckpointUnusable(url, f"{type(error).__name__}: {error}") from error
        if not create and not self._names:
            raise CheckpointUnusable(url, "there is no journal")
        self.remark = (
            f"{url.partition('://')[0]} has no locks, so two runs that begin at the same moment "
            f"do not notice each other; see that there is one only"
        )
        self._parts: list[bytes] = []
        self._count = 0
        self._stamp = f"{time.time_ns():020d}-{os.getpid()}"
        self._locked = False
        self._told_at = 0.0

    def _listed(self, kind: str) -> list[str]:
        folder = f"{self._path}/{kind}"
        self._system.invalidate_cache()
        if not self._system.exists(folder):
            return []
        return sorted(self._system.find(folder))

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}"

    def lock(self) -> None:
        """Look whether somebody else writes, and say that we do."""
        try:
            holder = self._system.cat_file(self._full("lock"))
            facts = json.loads(holder)
            silent_s = time.time() - facts["told"]
        except (FileNotFoundError, ValueError, KeyError):
            silent_s, holder, facts = CHECKPOINT_LOCK_S, b"", {}
        if silent_s < CHECKPOINT_LOCK_S and not _has_ended(facts):
            raise CheckpointBusy(
                self.name,
                f"{_described(holder)}, which gave a sign of life {max(silent_s, 0):.0f} s ago and "
                f"counts as ended {CHECKPOINT_LOCK_S:.0f} s after its last one",
            )
        self._locked = True
        self._tell()

    def _tell(self) -> None:
        if self._locked and time.monotonic() - self._told_at >= (self.sign_s or 0.0) / 2:
            self._told_at = time.monotonic()
            facts = {**json.loads(_myself()), "told": time.time()}
            self._system.pipe_file(self._full("lock"), json.dumps(facts).encode())

    def segments(self) -> Iterator[tuple[int, Any]]:
        """All objects of the journal, in the order in which they were written."""
        if not self._parts and self._names:
            found = self._system.cat(self._names)
            self._parts = [found[name] for name in self._names]
            if self._locked and len(self._parts) >= _MERGE_FROM:
                self.replace(iter(self._parts))
        yield from enumerate(list(self._parts))

    def truncate(self, size: int) -> None:
        """Nothing to cut: what is next is another object."""

    def append(self, buffers: Sequence[Any]) -> int:
        """Write one more object."""
        data = b"".join(bytes(buffer) for buffer in buffers)
        name = f"{self._path}/journal/{self._stamp}-{self._count:08d}.mars"
        try:
            self._system.pipe_file(name, data)
        except OSError:
            raise
        except Exception as error:  # whatever the protocol raises
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error
        self._count += 1
        self._parts.append(data)
        return (len(self._parts) - 1) << SEGMENT_SHIFT

    def sync(self) -> None:
        """Objects are there when they have been written; only the sign of life is due."""
        try:
            self._tell()
        except OSError:
            raise
        except Exception as error:  # whatever the protocol raises
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error

    def read(self, position: int, size: int) -> bytes:
        """Bytes of an object, which are kept."""
        part = self._parts[position >> SEGMENT_SHIFT]
        offset = position & ((1 << SEGMENT_SHIFT) - 1)
        return part[offset : offset + size]

    def write_file(self, name: str, buffers: Sequence[Any]) -> None:
        """Write one object."""
        try:
            with self._system.open(self._full(name), "wb") as file:
                for buffer in buffers:
                    file.write(memoryview(buffer).cast("B"))
        except OSError:
            raise
        except Exception as error:  # whatever the protocol raises
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error

    def read_file(self, name: str) -> Any:
        """An object's bytes."""
        return bytearray(self._system.cat_file(self._full(name)))

    def file_size(self, name: str) -> int | None:
        """Bytes of an object."""
        try:
            return int(self._system.size(self._full(name)))
        except FileNotFoundError:
            return None

    def files(self) -> Iterator[tuple[str, int]]:
        """Names and sizes of all results and arguments."""
        for kind in ("results", "arguments"):
            for full in self._listed(kind):
                yield full[len(self._path) + 1 :], int(self._system.size(full))

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._system.rm_file(self._full(name))

    def replace(self, buffers: Iterator[Any]) -> None:
        """Have one object in place of all of the journal."""
        data = b"".join(bytes(buffer) for buffer in buffers)
        old = self._listed("journal")
        name = f"{self._path}/journal/{self._stamp}-{self._count:08d}.mars"
        self._count += 1
        self._system.pipe_file(name, data)
        for gone in old:
            if not gone.endswith(name.rpartition("/")[2]):
                self._system.rm_file(gone)
        self._names, self._parts = [name], [data]

    def close(self) -> None:
        """Let others write."""
        if self._locked:
            self._locked = False
            self._system.rm_file(self._full("lock"))


__all__ = ["SEGMENT_SHIFT", "Folder", "LocalFolder", "RemoteFolder", "open_folder"]
