"""The journal of a checkpoint: records that are only ever appended, each with a checksum.

A record is found again whatever happens around it: what does not fit its checksum is skipped up
to the next record that does, and what was being written when the machine stopped is cut off. A
journal is written by one thread of its own; whoever adds to it only waits when the disk is
slower than the workers. Called by `mars.checkpoint` and by ``mars runs``.

::

    record  = magic, kind, lengths, check of the body, check of all before ─ meta ─ body
    call    = key, digest of its function, times, place ─ digests of arguments, keys of inputs
              body: arguments as pickled, what it printed, its result
    block   = some items of a map, with a key for each
    code    = what a function consists of, and its pickle; once for all of its calls
    session = where and when a program began to write
    tally   = what one `execute` found here, and what it added
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from mars.checkpoint.folder import SEGMENT_SHIFT, Folder
from mars.errors import CheckpointUnusable
from mars.settings import (
    CHECKPOINT_CHECK_BYTES,
    CHECKPOINT_PENDING,
    CHECKPOINT_PENDING_BYTES,
    CHECKPOINT_PRESSURE_S,
    CHECKPOINT_SYNC_S,
    MIB,
)

MAGIC: Final = b"\xa5\x4d"
HEADER: Final = struct.Struct("<2sBBIIII")  # kind, version, meta, body, body's check, check
_HEAD: Final = struct.Struct("<2sBBIII")  # the same, without its check
_CHECKED: Final = _HEAD.size
VERSION: Final = 1

CALL, BLOCK, CODE, SESSION, TALLY, FAILED = range(1, 7)

CALL_META: Final = struct.Struct("<16s8sIIdffffIIIBBHIB")
BLOCK_META: Final = struct.Struct("<8sIIdffffIIB")

WHOLE: Final = 0xFFFFFFFF
"""In place of an item's number: a call of its own."""

AS_FILE, NO_ARGUMENTS, PARTED, SPREAD, ROWS = 1, 2, 4, 8, 16
"""Flags: the result is a file; the arguments are not there; they have large parts; of a map: an
item is a tuple of arguments, or has a pickle of its own, see `mars.attempt.rows`."""

_META_LIMIT: Final = 64 * MIB


class Raw(NamedTuple):
    """A record as it stands in a segment."""

    position: int
    kind: int
    meta: bytes
    body_at: int
    body_size: int
    body_check: int


class Problem(NamedTuple):
    """Bytes of a segment that are no record."""

    position: int
    size: int
    torn: bool  # the end of the segment: a record that was being written


def record(kind: int, meta: bytes, body: Sequence[Any] = ()) -> list[Any]:
    """A record as buffers to append."""
    check = size = 0
    for part in body:
        check = zlib.crc32(part, check)
        size += len(part)
    head = _HEAD.pack(MAGIC, kind, VERSION, len(meta), size, check)
    whole = zlib.crc32(meta, zlib.crc32(head)).to_bytes(4, "little")
    return [b"".join((head, whole, meta)), *body]


def scan(number: int, view: Any) -> Iterator[Raw | Problem]:
    """All records of a segment, and what is damaged between them."""
    position, end = 0, len(view)
    base = number << SEGMENT_SHIFT
    size = HEADER.size
    unpack, crc32 = HEADER.unpack_from, zlib.crc32
    while position < end:
        found = None
        body_at = body_size = body_check = 0
        if position + size <= end:
            magic, kind, version, meta_size, body_size, body_check, check = unpack(view, position)
            body_at = position + size + meta_size
            if magic == MAGIC and meta_size <= _META_LIMIT and body_at + body_size <= end:
                meta = view[position + size : body_at]
                if crc32(meta, crc32(view[position : position + _CHECKED])) == check:
                    if version > VERSION:
                        raise CheckpointUnusable(
                            "this folder", "it was written by a newer version of mars"
                        )
                    found = Raw(base | position, kind, meta, body_at, body_size, body_check)
        if found is None:
            following = _next(view, position + 1)
            yield Problem(base | position, (following or end) - position, following is None)
            if following is None:
                return
            position = following
            continue
        if body_size <= CHECKPOINT_CHECK_BYTES and (
            crc32(view[body_at : body_at + body_size]) != body_check
        ):
            yield Problem(found.position, body_at + body_size - position, False)
        else:
            yield found
        position = body_at + body_size


def _next(view: Any, position: int) -> int | None:
    """Where the next record that fits its checksum begins."""
    end = len(view)
    while True:
        position = view.find(MAGIC, position)
        if position < 0 or position + HEADER.size > end:
            return None
        _, _, _, meta_size, body_size, _, check = HEADER.unpack_from(view, position)
        body_at = position + HEADER.size + meta_size
        if meta_size <= _META_LIMIT and body_at + body_size <= end:
            meta = view[position + HEADER.size : body_at]
            if zlib.crc32(meta, zlib.crc32(view[position : position + _CHECKED])) == check:
                return int(position)
        position += 1


# -- values as bytes ------------------------------------------------------------------------------


_ONE: Final = struct.Struct("<IIQ")  # the head of one value in one part


def framed(values: Sequence[Sequence[Any]], align: int = 1) -> list[Any]:
    """Values, each in several parts, as one sequence of bytes that tells them apart."""
    if len(values) == 1 and len(values[0]) == 1 and align == 1 and type(values[0][0]) is bytes:
        return framed_bytes(values[0][0])
    sizes = [memoryview(part).nbytes for value in values for part in value]
    head = struct.pack(f"<I{len(values)}I", len(values), *map(len, values))
    head += struct.pack(f"<{len(sizes)}Q", *sizes)
    parts: list[Any] = [head]
    position = len(head)
    for value in values:
        for part in value:
            gap = -position % align
            if gap:
                parts.append(bytes(gap))
            view = memoryview(part).cast("B")
            parts.append(view)
            position += gap + view.nbytes
    return parts


def framed_bytes(data: bytes) -> list[Any]:
    """`framed`, for the one value in one part that most results are."""
    return [_ONE.pack(1, 1, len(data)), data]


def unframed(data: Any, align: int = 1) -> list[list[memoryview]]:
    """What `framed` was given."""
    view = memoryview(data).cast("B")
    (count,) = struct.unpack_from("<I", view)
    counts = struct.unpack_from(f"<{count}I", view, 4)
    position = 4 + 4 * count
    sizes = iter(struct.unpack_from(f"<{sum(counts)}Q", view, position))
    position += 8 * sum(counts)
    values = []
    for parts in counts:
        value = []
        for _ in range(parts):
            size = next(sizes)
            position += -position % align
            value.append(view[position : position + size])
            position += size
        values.append(value)
    return values


ALIGN: Final = 64
"""Parts of a file begin at multiples of this, as arrays like it."""


class Kept(NamedTuple):
    """What the journal knows of a call that is done.

    `times` are seconds since 1970 and four spans: until its arguments were there, the function
    was called, it returned, and the result was kept.
    """

    key: bytes
    function: bytes
    started: float
    spans: tuple[float, float, float, float]
    place: int
    item: int
    ordinal: int
    arguments: bytes
    names: int
    inputs: bytes
    n_output: int | None
    flags: int
    raw: Raw
    sizes: tuple[int, int, int]  # arguments, log and result in the body
    kind: int

    @property
    def seconds(self) -> float:
        """How long its function ran."""
        return self.spans[2]


INPUT_BYTES: Final = 10
INPUTS_KEPT: Final = 65_535


def kept(raw: Raw) -> Kept:
    """A call, or a failed one, out of its record."""
    fields = CALL_META.unpack_from(raw.meta)
    key, function, args, log, started, a, b, c, d, place, item, ordinal = fields[:12]
    count, names, inputs, n_output, flags = fields[12:]
    at = CALL_META.size
    middle = at + 8 * count
    return Kept(
        key, function, started, (a, b, c, d), place, item, ordinal, raw.meta[at:middle], names,
        raw.meta[middle : middle + INPUT_BYTES * inputs], n_output or None, flags, raw,
        (args, log, raw.body_size - args - log), raw.kind,
    )  # fmt: skip


class Block(NamedTuple):
    """What the journal knows of some items of a map."""

    function: bytes
    started: float
    spans: tuple[float, float, float, float]
    place: int
    flags: int
    keys: bytes  # 16 bytes for each item; zeros: it failed
    arguments: bytes
    items: tuple[int, ...]  # which of the map
    marks: tuple[int, ...]  # where the log of each item begins, and the last one ends
    raw: Raw
    sizes: tuple[int, int, int]

    @property
    def size(self) -> int:
        """How many items."""
        return len(self.keys) // 16


def block(raw: Raw) -> Block:
    """Items of a map out of their record."""
    function, args, log, started, a, b, c, d, place, count, flags = BLOCK_META.unpack_from(raw.meta)
    at = BLOCK_META.size
    keys = raw.meta[at : at + 16 * count]
    arguments = raw.meta[at + 16 * count : at + 24 * count]
    rest = raw.meta[at + 24 * count :]
    numbers = struct.unpack(f"<{len(rest) // 4}I", rest)
    items, marks = numbers[:count], numbers[count:]
    return Block(
        function, started, (a, b, c, d), place, flags, keys, arguments, items, marks, raw,
        (args, log, raw.body_size - args - log),
    )  # fmt: skip


class Damaged(Exception):
    """What a record promises is not there."""

    def __str__(self) -> str:
        return "a result in the checkpoint is damaged; a new session runs its call again"


def body_of(folder: Folder, raw: Raw) -> bytes:
    """A record's body.

    Raises
    ------
    Damaged
        It does not fit its checksum.
    """
    base = raw.position >> SEGMENT_SHIFT << SEGMENT_SHIFT
    data = folder.read(base | raw.body_at, raw.body_size)
    if len(data) != raw.body_size or zlib.crc32(data) != raw.body_check:
        raise Damaged
    return data


def block_key(keys: bytes) -> bytes:
    """What the file of a block's values is called after."""
    return blake2b(keys, digest_size=16).digest()


def file_key(found: Kept | Block) -> bytes:
    """What the file of a result is called after."""
    return found.key if isinstance(found, Kept) else block_key(found.keys)


_FILE: Final = struct.Struct("<QI")


def file_note(size: int, check: int) -> bytes:
    """What stands in a record for a result that is a file."""
    return _FILE.pack(size, check)


def result_file(key: bytes) -> str:
    """Name of a large result's file."""
    return f"results/{key.hex()[:2]}/{key.hex()}"


def argument_file(digest: bytes) -> str:
    """Name of the file of a large part of arguments."""
    return f"arguments/{digest.hex()[:2]}/{digest.hex()}"


def result_of(folder: Folder, key: bytes, flags: int, part: bytes) -> list[list[memoryview]]:
    """The values of a call, each as its pickle and its buffers.

    Raises
    ------
    Damaged
        The file is gone, or does not fit its checksum.
    """
    if not flags & AS_FILE:
        return unframed(bytearray(part))
    size, check = _FILE.unpack(part)
    try:
        data = folder.read_file(result_file(key))
    except FileNotFoundError:
        raise Damaged from None
    if len(data) != size or zlib.crc32(data) != check:
        raise Damaged
    return unframed(data, ALIGN)


def whole(folder: Folder, key: bytes, flags: int, part: bytes) -> bool:
    """Whether a result that is a file is there with its size, without reading it."""
    return not flags & AS_FILE or folder.file_size(result_file(key)) == _FILE.unpack(part)[0]


# -- reading --------------------------------------------------------------------------------------


class Index:
    """Where what is, of a whole journal.

    Attributes
    ----------
    calls : dict
        Positions by key; of an item of a map also which of its block it is, see `locate`.
    problems : list of Problem
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.calls: dict[bytes, int] = {}
        self.codes: dict[bytes, int] = {}
        self.problems: list[Problem] = []
        self.torn_at: int | None = None
        for number, view in folder.segments():
            for one in scan(number, view):
                if type(one) is Problem:
                    self.problems.append(one)
                    if one.torn:
                        self.torn_at = one.position
                else:
                    self.take(one)  # type: ignore[arg-type]

    def take(self, one: Raw) -> None:
        """Note a record."""
        if one.kind == CALL:
            self.calls[one.meta[:16]] = one.position << 16
        elif one.kind == BLOCK:
            count = BLOCK_META.unpack_from(one.meta)[9]
            at, place = BLOCK_META.size, one.position << 16
            for offset in range(count):
                self.calls[one.meta[at : at + 16]] = place | (offset + 1)
                at += 16
            self.calls.pop(_FAILED_ITEM, None)
        elif one.kind == CODE:
            self.codes[one.meta[:8]] = one.position

    def raw(self, position: int) -> Raw:
        """The record at a position.

        Raises
        ------
        Damaged
            It has changed since the journal was opened.
        """
        head = self.folder.read(position, HEADER.size)
        if len(head) < HEADER.size:
            raise Damaged
        magic, kind, _, meta_size, body_size, body_check, check = HEADER.unpack(head)
        if magic != MAGIC or meta_size > _META_LIMIT:
            raise Damaged
        meta = self.folder.read(position + HEADER.size, meta_size)
        if zlib.crc32(meta, zlib.crc32(head[:_CHECKED])) != check:
            raise Damaged
        offset = position & ((1 << SEGMENT_SHIFT) - 1)
        body_at = offset + HEADER.size + meta_size
        return Raw(position, kind, meta, body_at, body_size, body_check)

    def find(self, key: bytes) -> tuple[Raw, int] | None:
        """The record of a call, and its number in a block, or -1; None: not there."""
        place = self.calls.get(key)
        if place is None:
            return None
        try:
            return self.raw(place >> 16), (place & 0xFFFF) - 1
        except Damaged:
            del self.calls[key]
            return None

    def code(self, digest: bytes) -> dict[str, Any] | None:
        """What is known of a function; None: nothing."""
        position = self.codes.get(digest)
        if position is None:
            return None
        try:
            return unpacked(body_of(self.folder, self.raw(position)))
        except Damaged:
            return None


_FAILED_ITEM: Final = bytes(16)


def packed(facts: dict[str, Any]) -> bytes:
    """Facts as a body."""
    return zlib.compress(pickle.dumps(facts, 5), 1)


def unpacked(body: bytes) -> dict[str, Any]:
    """Facts out of a body."""
    facts: dict[str, Any] = pickle.loads(zlib.decompress(body))
    return facts


# -- writing --------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """Something to write down.

    Attributes
    ----------
    encode : callable
        Gives the records, each as buffers; called in the writing thread.
    about : tuple
        Its arguments.
    done : callable
        Called when they are written, or when that did not work.
    cost : int
        Bytes that wait.
    """

    encode: Callable[..., list[list[Any]]]
    about: tuple[Any, ...]
    done: Callable[[], object]
    cost: int


class Writer:
    """The thread that writes a journal.

    Parameters
    ----------
    index : Index
        Of the journal; learns what is written.
    tell : callable
        Takes lines for the user.
    """

    def __init__(self, index: Index, tell: Callable[[str], object]) -> None:
        self._index = index
        self._folder = index.folder
        self._tell = tell
        self._queue: deque[Entry] = deque()
        self._added = self._written = 0  # costs; who adds changes the one, the thread the other
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asleep = False  # the thread waits until somebody rings
        self._closing = False
        self._busy = False
        self._dirty = False  # written, and not yet synced
        self._synced_at = time.monotonic()
        self._told: set[str] = set()
        self.codes = set(index.codes)  # functions that are written, or about to be
        self.lost = 0
        self._thread: threading.Thread | None = None

    def add(self, entry: Entry) -> None:
        """Have something written soon; waits for a while when too much is waiting."""
        # Without the lock, which the thread holds now and then: a `+=` of an attribute is whole.
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
        """Return when all that was added before is written, or nobody writes any more."""
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
        rested = True  # nothing came in a whole window
        while True:
            # A wake-up costs the program about as much as ten records. So what comes is gathered
            # for a while, unless it comes after a rest: then calls are long, and each counts.
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
            heads: list[tuple[int, bytes]] = []  # how far into what is appended records begin
            buffers: list[Any] = []
            size, stop = 0, start
            while stop < len(batch) and size < MIB:
                try:
                    made = batch[stop].encode(*batch[stop].about)
                except Exception as error:
                    self._missed(error)
                else:
                    for one in made:
                        heads.append((size, one[0]))
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
        """The index learns where the records are, for other sessions of this process."""
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


__all__ = [
    "ALIGN", "AS_FILE", "BLOCK", "BLOCK_META", "CALL", "CALL_META", "CODE", "FAILED", "HEADER",
    "INPUTS_KEPT", "INPUT_BYTES", "MAGIC", "NO_ARGUMENTS", "PARTED", "SESSION", "SPREAD", "TALLY",
    "WHOLE", "Block", "Damaged", "Entry", "Index", "Kept", "Problem", "Raw", "Writer",
    "argument_file", "block", "block_key", "body_of", "file_key", "file_note", "framed",
    "framed_bytes", "kept", "packed", "record", "result_file", "result_of", "scan", "unframed",
    "unpacked", "whole",
]  # fmt: skip
