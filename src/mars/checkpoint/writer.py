"""The thread that writes a journal.

Whoever adds to a journal goes on at once, and waits only if the disk is slower than the workers.
Called by `mars.checkpoint.opening`, which starts it, and `mars.checkpoint.checkpoint`, which adds.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mars.checkpoint.index import Index
from mars.checkpoint.journal import BLOCK, CALL, HEADER, Raw
from mars.settings import (
    CHECKPOINT_PENDING,
    CHECKPOINT_PENDING_BYTES,
    CHECKPOINT_PRESSURE_S,
    CHECKPOINT_SYNC_S,
    MIB,
)

if TYPE_CHECKING:
    from mars.checkpoint.folder import Data


class Entry(NamedTuple):
    """Something that waits to be written.

    Attributes
    ----------
    encode : callable
        Makes the records, each as a list of buffers. It is called in the writing thread.
    about : tuple
        What ``encode`` is called with.
    done : callable
        Called when the records are written, and also if they could not be written.
    cost : int
        How many bytes wait because of this.
    """

    encode: Callable[..., list[list[Data]]]
    about: tuple[object, ...]
    done: Callable[[], object]
    cost: int


class Writer:
    """The thread that writes a journal.

    Parameters
    ----------
    index : Index
        Of the journal. It is told what is written.
    tell : callable
        Takes lines for the user.
    """

    def __init__(self, index: Index, tell: Callable[[str], object]) -> None:
        self._index = index
        self._folder = index.folder
        self._tell = tell
        self._queue: deque[Entry] = deque()
        self._added = self._written = 0  # costs; only the thread changes the second
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asleep = False  # the thread sleeps until the bell rings
        self._closing = False
        self._busy = False
        self._dirty = False  # written, and not yet synced
        self._synced_at = time.monotonic()
        self._told: set[str] = set()
        self.codes = set(index.codes)  # functions that are written, or about to be
        self.lost = 0
        self._thread: threading.Thread | None = None

    def add(self, entry: Entry) -> None:
        """Have something written soon. Waits for a while if too much waits already."""
        # This takes no lock, as the thread may hold it. Python does not interrupt such a `+=`.
        self._queue.append(entry)
        self._added += entry.cost
        if self._asleep:
            self._asleep = False
            self._bell.put(None)
        elif self._thread is None:
            self._start()
        waiting = self._added - self._written
        if waiting > CHECKPOINT_PENDING_BYTES or len(self._queue) > CHECKPOINT_PENDING:
            with self._lock:
                self._bell.put(None)
                self._room.wait(CHECKPOINT_PRESSURE_S)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="mars-journal", daemon=True
                )
                self._thread.start()

    def flush(self) -> None:
        """Return when all that was added before is written, or if the thread has ended."""
        with self._lock:
            while (self._queue or self._busy) and self._thread and self._thread.is_alive():
                self._bell.put(None)
                self._room.wait(CHECKPOINT_PRESSURE_S)

    def close(self) -> None:
        """Write what waits, have it on the disk, and end the thread."""
        with self._lock:
            self._closing = True
            thread = self._thread
        self._bell.put(None)
        if thread is not None:
            thread.join()

    def _serve(self) -> None:
        rested = True  # nothing came for a whole window
        while True:
            # Waking this thread costs the program about as much as ten records. So records are
            # gathered for a while. One that comes after a pause is written at once: calls are long
            # then, and each is worth a write.
            if rested:
                self._asleep = True
                if not self._queue and not self._closing:
                    self._listen(CHECKPOINT_SYNC_S if self._dirty else None)
                self._asleep = False
            if not self._closing and not (rested and self._folder.eager):
                self._listen(self._folder.window_s)
            with self._lock:
                batch = [self._queue.popleft() for _ in range(len(self._queue))]
                self._busy = bool(batch)
                closing = self._closing
            rested = not batch
            if batch:
                self._write(batch)
            self._sync(now=closing)
            with self._lock:
                self._busy = False
                self._room.notify_all()
                if closing and not self._queue:
                    return

    def _listen(self, limit_s: float | None) -> None:
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=limit_s)

    def _write(self, batch: list[Entry]) -> None:
        start = 0
        while start < len(batch):
            heads: list[tuple[int, bytes]] = []  # where in `buffers` records begin
            buffers: list[Data] = []
            size, stop = 0, start
            while stop < len(batch) and size < MIB:
                try:
                    made = batch[stop].encode(*batch[stop].about)
                except Exception as error:
                    self._missed(error)
                else:
                    for one in made:
                        heads.append((size, bytes(one[0])))  # bytes already, see `record`
                        buffers += one
                        for part in one:
                            size += len(part)
                stop += 1
            if buffers:
                try:
                    position = self._folder.append(buffers)
                except OSError as error:
                    self.codes = set(self._index.codes)
                    self._missed(error, sum(_is_result(head) for _, head in heads))
                else:
                    self._dirty = True
                    self._note(heads, position)
            for entry in batch[start:stop]:
                entry.done()
                self._written += entry.cost
            with self._lock:
                self._room.notify_all()
            start = stop

    def _note(self, heads: list[tuple[int, bytes]], position: int) -> None:
        """Tell the index where the records are; other sessions of this process look there."""
        calls = self._index.calls
        for offset, head in heads:
            if head[2] == CALL:
                calls[head[HEADER.size : HEADER.size + 16]] = (position + offset) << 16
            else:
                self._index.take(Raw(position + offset, head[2], head[HEADER.size :], 0, 0, 0))

    def _missed(self, error: Exception, count: int = 1) -> None:
        self.lost += count
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        if reason not in self._told:
            self._told.add(reason)
            self._tell(
                f"mars: a result could not be written to the checkpoint {self._folder.name}: "
                f"{reason}. The run goes on; what is not written runs again next time."
            )

    def _sync(self, *, now: bool) -> None:
        if self._dirty and (now or time.monotonic() - self._synced_at >= CHECKPOINT_SYNC_S):
            try:
                self._folder.sync()
            except OSError as error:
                self._missed(error, 0)
            self._dirty = False
            self._synced_at = time.monotonic()


def _is_result(head: bytes) -> bool:
    return head[2] in (CALL, BLOCK)
