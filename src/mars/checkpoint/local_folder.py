"""A checkpoint in a folder of a file system.

Called by `mars.checkpoint.opening`; the rest of the package knows it as a `Folder`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mars import owners
from mars.checkpoint import holder
from mars.checkpoint.folder import say_nothing
from mars.errors import CheckpointBusy, CheckpointUnusable
from mars.settings import CHECKPOINT_INLINE_BYTES, CHECKPOINT_WINDOW_S, MIB

if TYPE_CHECKING:
    from mars.checkpoint.folder import Data, SegmentBytes

_WRITEV: Final = 512  # buffers in one system call; Linux takes 1024


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
                holder.refuse_strangers(path, self._path)
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
            raise CheckpointUnusable(path, f"{found}, so it may not be yours; {holder.WAY_OUT}")
        self._size = facts.st_size
        _open.add(self)

    def strangers(self) -> tuple[str, str]:
        """Say who else can write there, and who the owner is; see `Folder.strangers`."""
        written, owner = owners.strangers_below(self._path)
        journal = os.path.join(self._path, "journal.mars")
        facts = os.fstat(self._descriptor)
        if not owner and facts.st_uid not in (0, os.geteuid()):
            owner = f"{journal} belongs to user {facts.st_uid}"
        return written or owners.writers(journal, facts), owner

    def lock(self, tell: Callable[[str], object] = say_nothing) -> None:
        """Keep other writers out; see `Folder.lock`."""
        import fcntl

        path = os.path.join(self._path, "lock")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(path, flags, 0o600)
        except OSError as error:
            raise CheckpointUnusable(self.name, f"lock: {_reason(error)}") from None
        try:
            # The lock belongs to the open file. So it ends with this process, however that ends.
            # On NFS, Linux makes it a lock of the server.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                text = os.pread(self._lock, 4096, 0)
                self._close_lock()
                raise CheckpointBusy(self.name, holder.described(text)) from None
            self.remark = (
                f"its file system has no locks ({error.strerror}), so a second run on it at the "
                f"same time is not noticed; see that there is none"
            )
        else:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, json.dumps(holder.myself()).encode(), 0)
        self._size = os.fstat(self._descriptor).st_size
        for name, _ in self.files():
            if name.endswith(".new"):  # left by a program that ended while it wrote the file
                self.remove(name)

    def _close_lock(self) -> None:
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    def segments(self) -> Iterator[tuple[int, SegmentBytes]]:
        """Give the one segment."""
        if not self._size:
            return
        with mmap.mmap(self._descriptor, self._size, access=mmap.ACCESS_READ) as view:
            yield 0, view

    def truncate(self, size: int) -> None:
        """Cut the segment off at a size."""
        os.ftruncate(self._descriptor, size)
        self._size = size

    def append(self, buffers: Sequence[Data]) -> int:
        """Append all or nothing."""
        start = self._size
        small = sum(map(len, buffers)) <= 2 * MIB  # one copy is then quicker than many buffers
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
            with contextlib.suppress(OSError):  # a reader cuts off what stays there
                os.ftruncate(self._descriptor, start)
            raise
        self._size = position
        return start

    def sync(self) -> None:
        """Return when all that was written survives a loss of power."""
        os.fsync(self._descriptor)

    def read(self, position: int, size: int) -> bytes:
        """Return bytes of the segment."""
        return os.pread(self._descriptor, size, position)

    def write_file(self, name: str, buffers: Sequence[Data]) -> None:
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

    def read_file(self, name: str) -> Data:
        """Return a file's bytes, mapped. What a reader writes to them, nobody else sees."""
        path = os.path.join(self._path, name)
        with open(path, "rb", opener=_not_a_link) as file:
            facts = os.fstat(file.fileno())
            if not self.trusting and owners.stranger(path, facts):
                raise FileNotFoundError(errno.ENOENT, "that is somebody else's", path)
            if not facts.st_size:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def file_size(self, name: str) -> int | None:
        """Return the size of a file in bytes."""
        try:
            return os.stat(os.path.join(self._path, name)).st_size
        except FileNotFoundError:
            return None

    def files(self) -> Iterator[tuple[str, int]]:
        """Give the name and the size of each file."""
        for kind in ("results", "arguments"):
            for folder, _, names in os.walk(os.path.join(self._path, kind)):
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    yield os.path.relpath(path, self._path), os.stat(path).st_size

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(os.path.join(self._path, name))

    def replace(self, buffers: Iterator[Data]) -> None:
        """Replace the segment by these bytes."""
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
        """Let go of everything in a process that was forked: the lock belongs to its parent."""
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


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


__all__ = ["LocalFolder"]
