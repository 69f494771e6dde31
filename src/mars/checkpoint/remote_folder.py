"""A checkpoint at an URL that fsspec reaches, such as a bucket of an object store.

Called by `mars.checkpoint.opening`; the rest of the package knows it as a `Folder`. fsspec is
imported when a folder is opened.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mars import owners
from mars.checkpoint import holder
from mars.checkpoint.folder import OFFSET_MASK, SEGMENT_SHIFT, say_nothing
from mars.errors import CheckpointBusy, CheckpointUnusable
from mars.settings import (
    CHECKPOINT_LOCK_S,
    CHECKPOINT_LOOKS,
    CHECKPOINT_MERGE_SEGMENTS,
    CHECKPOINT_REMOTE_INLINE_BYTES,
    CHECKPOINT_REMOTE_WINDOW_S,
    STOP_S,
)

if TYPE_CHECKING:
    from mars.checkpoint.folder import Data, Facts, SegmentBytes


class RemoteFolder:
    """A folder that fsspec reaches.

    Nothing can be appended there, so each batch of records is an object of its own. The folder
    cannot be locked either. Instead, an object says who writes there. A thread renews that object
    as long as this program uses the folder, whether anything is written or not. An object of
    another process is never removed before it was read. So nothing is lost if two programs write
    at the same time.
    """

    inline_bytes = CHECKPOINT_REMOTE_INLINE_BYTES
    window_s = CHECKPOINT_REMOTE_WINDOW_S
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
        # With these protocols the folders below ours must be made by us.
        options = {"auto_mkdir": True} if url.startswith(("file://", "local://")) else {}
        with self._unusable():
            self._system, path = fsspec.core.url_to_fs(url, **options)
            self._path = str(path).rstrip("/")
            if options:
                os.stat(os.path.dirname(self._path))
                if create and os.path.exists(self._path):
                    holder.refuse_strangers(url, self._path)
            self._here = bool(options)
            self._names = self._listed("journal")
        if not create and not self._names:
            raise CheckpointUnusable(url, "there is no journal")
        self.remark = (
            f"{url.partition('://')[0]} has no locks, so two runs that begin at the same moment "
            f"do not notice each other; see that there is one only"
        )
        self.trusting = False
        self._parts: list[bytes] = []  # bytes of all of `_names`, or of none yet
        self._count = 0
        self._stamp = f"{time.time_ns():020d}-{os.getpid()}"
        self._locked = False
        self._token = os.urandom(8).hex()  # shows that a lock object is ours
        self._guard = threading.Lock()  # for looking at the lock object and changing it
        self._ending = threading.Event()
        self._signs: threading.Thread | None = None
        self._tell: Callable[[str], object] = say_nothing
        self._told = False

    def strangers(self) -> tuple[str, str]:
        """Say what is known; see `Folder.strangers`."""
        return owners.strangers_below(self._path) if self._here else ("", "")

    @contextlib.contextmanager
    def _unusable(self, *passing: type[Exception]) -> Iterator[None]:
        """Turn what the protocol raises, except ``passing``, into `CheckpointUnusable`."""
        passed: tuple[type[Exception], ...] = (CheckpointBusy, CheckpointUnusable, *passing)
        try:
            yield
        except passed:
            raise
        except Exception as error:
            raise CheckpointUnusable(self.name, f"{type(error).__name__}: {error}") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the protocol raises into an OSError: something was not written."""
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

    def lock(self, tell: Callable[[str], object] = say_nothing) -> None:
        """Look whether somebody else writes there, and say from now on that we do."""
        self._tell = tell
        with self._unusable(), self._guard:
            other = self._holder()
            silent_s = time.time() - other["told"] if other else CHECKPOINT_LOCK_S
            if silent_s < CHECKPOINT_LOCK_S and not holder.has_ended(other):
                raise CheckpointBusy(
                    self.name,
                    f"{holder.described(other)}, which gave a sign of life "
                    f"{max(silent_s, 0):.0f} s ago and counts as ended {CHECKPOINT_LOCK_S:.0f} s "
                    f"after its last one",
                )
            self._sign()
            other = self._holder()  # if two began at the same moment, the second one has the lock
            if other and other.get("token") != self._token:
                raise CheckpointBusy(self.name, holder.described(other))
        self._locked = True
        self._signs = threading.Thread(target=self._give_signs, name="mars-lock", daemon=True)
        self._signs.start()

    def _holder(self) -> Facts:
        """Return what the lock object says of who writes here; empty: nobody."""
        try:
            facts = json.loads(self._system.cat_file(self._full("lock")))
            facts["told"] += 0.0
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}
        return facts  # type: ignore[no-any-return]

    def _sign(self) -> None:
        facts = {**holder.myself(), "told": time.time(), "token": self._token}
        self._system.pipe_file(self._full("lock"), json.dumps(facts).encode())

    def _give_signs(self) -> None:
        told_at = time.monotonic()
        while not self._ending.wait(self.sign_s):
            try:
                with self._guard:
                    if self._ending.is_set() or not self._renew():
                        return
                told_at = time.monotonic()
            except Exception as error:  # a protocol may raise anything; the next sign may succeed
                if time.monotonic() - told_at > CHECKPOINT_LOCK_S and not self._told:
                    self._told = True
                    self._tell(
                        f"mars: checkpoint {self.name}: no sign of life could be given there for "
                        f"{CHECKPOINT_LOCK_S:.0f} s ({type(error).__name__}: {error}), so another "
                        f"program may begin to write there, too"
                    )

    def _renew(self) -> bool:
        """Give a sign of life, unless another program has taken the lock."""
        other = self._holder()
        if other and other.get("token") != self._token:
            self._locked = False
            self._tell(
                f"mars: checkpoint {self.name}: {holder.described(other)} writes there, too, as "
                f"this program gave no sign of life for {CHECKPOINT_LOCK_S:.0f} s; the results of "
                f"both are kept"
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
            return  # somebody has already removed it
        except Exception as error:  # a protocol may raise anything
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

    def segments(self) -> Iterator[tuple[int, SegmentBytes]]:
        """Give all objects of the journal, in the order in which they were written."""
        if not self._parts and self._names:
            with self._unusable():
                self._read_all()
            if self._locked and len(self._parts) >= CHECKPOINT_MERGE_SEGMENTS:
                with self._unusable():
                    self.replace(iter(self._parts))
        yield from enumerate(list(self._parts))

    def _read_all(self) -> None:
        for _ in range(CHECKPOINT_LOOKS):
            try:
                found = self._system.cat(self._names)
            except FileNotFoundError:  # a writer has replaced many by one: look again
                self._names = self._listed("journal")
                continue
            self._parts = [found[name] for name in self._names]
            return
        raise CheckpointUnusable(self.name, "its journal changes while it is read")

    def truncate(self, size: int) -> None:
        """Do nothing: what is written next is another object."""

    def append(self, buffers: Sequence[Data]) -> int:
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
        """Do nothing: an object that was written is there."""

    def read(self, position: int, size: int) -> bytes:
        """Return bytes of an object; they are held in memory."""
        part = self._parts[position >> SEGMENT_SHIFT]
        offset = position & OFFSET_MASK
        return part[offset : offset + size]

    def replace(self, buffers: Iterator[Data]) -> None:
        """Replace the objects that were read or written here, and no other, by one object."""
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

    def write_file(self, name: str, buffers: Sequence[Data]) -> None:
        """Write one object."""
        with self._writing(), self._system.open(self._full(name), "wb") as file:
            for buffer in buffers:
                file.write(memoryview(buffer).cast("B"))

    def read_file(self, name: str) -> Data:
        """Return an object's bytes."""
        with self._unusable(FileNotFoundError):
            return bytearray(self._system.cat_file(self._full(name)))

    def file_size(self, name: str) -> int | None:
        """Return the size of an object in bytes."""
        try:
            with self._unusable(FileNotFoundError):
                return int(self._system.size(self._full(name)))
        except FileNotFoundError:
            return None

    def files(self) -> Iterator[tuple[str, int]]:
        """Give the name and the size of each result and each part of arguments."""
        for kind in ("results", "arguments"):
            with self._unusable():
                found = [(full, int(self._system.size(full))) for full in self._listed(kind)]
            for full, size in found:
                yield full[len(self._path) + 1 :], size

    def remove(self, name: str) -> None:
        """Remove an object."""
        with self._writing():
            self._system.rm_file(self._full(name))


__all__ = ["RemoteFolder"]
