"""What stands in the journal of a checkpoint: the format of its records.

Records are only ever appended, and each has checksums. So a record is found again whatever happens
to its neighbours: a reader skips what does not fit its checksum, up to the next record that does.
If the machine stopped while a record was being written, the reader cuts that record off. Pure.
Called by the modules of this package that read and write journals.

::

    record  = magic, kind, lengths, checksum of the body, checksum of all before ─ meta ─ body
    call    = key, digest of its function, times, place ─ digests of arguments, keys of inputs
              body: arguments as pickled, what the call printed, its result
    failed  = a call that failed, for `mars replay`; in the place of the result the error
    block   = some items of a map, with a key for each
    code    = what a function consists of, and its pickle; once for all of its calls
    session = where and when a program began to write
    tally   = what one `execute` found here, and what it added
"""

from __future__ import annotations

import array
import pickle
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from mars.checkpoint.folder import SEGMENT_SHIFT
from mars.errors import CheckpointUnusable
from mars.settings import CHECKPOINT_CHECK_BYTES, MIB

if TYPE_CHECKING:
    from mars.checkpoint.folder import Data, Facts, SegmentBytes

MAGIC: Final = b"\xa5\x4d"
HEADER: Final = struct.Struct("<2sBBIIII")  # kind, version, meta, body, body's check, check
_HEAD: Final = struct.Struct("<2sBBIII")  # HEADER without its last field
CHECKED_BYTES: Final = _HEAD.size
VERSION: Final = 1

CALL, BLOCK, CODE, SESSION, TALLY, FAILED = range(1, 7)

CALL_META: Final = struct.Struct("<16s8sIIdffffIIIBBHIB")
BLOCK_META: Final = struct.Struct("<8sIIdffffIIB")

WHOLE: Final = 0xFFFFFFFF
"""Stands in the place of an item's number: the call is no item of a map."""

AS_FILE, NO_ARGUMENTS, PARTED, SPREAD, ROWS = 1, 2, 4, 8, 16
"""Flags. AS_FILE: the result is a file. NO_ARGUMENTS: the arguments are not kept. PARTED: large
parts of the arguments are files. SPREAD, of a map: an item is a tuple of arguments. ROWS, of a map:
each item has a pickle of its own, see `mars.attempt.rows`."""

INPUT_BYTES: Final = 10
"""What one input takes in a record: the beginning of a key, and which value it is."""

INPUTS_KEPT: Final = 65_535
"""A record has room for the number of this many inputs. A call with more has none in its record."""

META_LIMIT: Final = 64 * MIB
"""A longer meta is taken for damage. One with all items of the largest block is far smaller."""

NO_ITEM: Final = bytes(16)
"""Stands in the place of an item's key: the item failed, or is a call of its own."""


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


def record(kind: int, meta: bytes, body: Sequence[Data] = ()) -> list[Data]:
    """Return a record as buffers to append."""
    check = size = 0
    for part in body:
        check = zlib.crc32(part, check)
        size += len(part)
    head = _HEAD.pack(MAGIC, kind, VERSION, len(meta), size, check)
    whole = zlib.crc32(meta, zlib.crc32(head)).to_bytes(4, "little")
    return [b"".join((head, whole, meta)), *body]


def scan(number: int, view: SegmentBytes) -> Iterator[Raw | Problem]:
    """Give all records of a segment, and what is damaged between them."""
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
            if magic == MAGIC and meta_size <= META_LIMIT and body_at + body_size <= end:
                meta = view[position + size : body_at]
                if crc32(meta, crc32(view[position : position + CHECKED_BYTES])) == check:
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


def _next(view: SegmentBytes, position: int) -> int | None:
    """Find where the next record that fits its checksum begins."""
    end = len(view)
    while True:
        position = view.find(MAGIC, position)
        if position < 0 or position + HEADER.size > end:
            return None
        _, _, _, meta_size, body_size, _, check = HEADER.unpack_from(view, position)
        body_at = position + HEADER.size + meta_size
        if meta_size <= META_LIMIT and body_at + body_size <= end:
            meta = view[position + HEADER.size : body_at]
            if zlib.crc32(meta, zlib.crc32(view[position : position + CHECKED_BYTES])) == check:
                return int(position)
        position += 1


class Kept(NamedTuple):
    """What the journal knows of a call that is done.

    ``started`` is in seconds since 1970. ``spans`` are four times in seconds: until the arguments
    were there, until the function was called, until it returned, and until the result was kept.
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


def kept(raw: Raw) -> Kept:
    """Read a call, or a failed one, out of its record."""
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
    keys: bytes  # 16 bytes for each item; NO_ITEM: it failed
    arguments: bytes
    items: tuple[int, ...]  # their numbers in the map
    marks: tuple[int, ...]  # where each item's log begins, and the last one ends
    raw: Raw
    sizes: tuple[int, int, int]

    @property
    def size(self) -> int:
        """How many items."""
        return len(self.keys) // 16


def block(raw: Raw) -> Block:
    """Read items of a map out of their record."""
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


def block_key(keys: bytes) -> bytes:
    """Return the key that names the file of a block's values."""
    return blake2b(keys, digest_size=16).digest()


def file_key(found: Kept | Block) -> bytes:
    """Return the key that names the file of a result."""
    return found.key if isinstance(found, Kept) else block_key(found.keys)


FILE_NOTE: Final = struct.Struct("<QI")


def file_note(size: int, check: int) -> bytes:
    """Return what stands in a record for a result that is a file."""
    return FILE_NOTE.pack(size, check)


def result_file(key: bytes) -> str:
    """Return the name of a large result's file."""
    return f"results/{key.hex()[:2]}/{key.hex()}"


def argument_file(digest: bytes) -> str:
    """Return the name of the file of a large part of arguments."""
    return f"arguments/{digest.hex()[:2]}/{digest.hex()}"


def packed(facts: Facts) -> bytes:
    """Turn facts into a body."""
    return zlib.compress(pickle.dumps(facts, 5), 1)


def packed_positions(positions: Iterable[int]) -> bytes:
    """Turn positions of records into few bytes."""
    deltas = array.array("Q", [b - a for a, b in pairwise([0, *sorted(positions)])])
    return zlib.compress(deltas.tobytes(), 1)


def unpacked_positions(data: bytes) -> list[int]:
    """Return the positions that `packed_positions` was given, in order."""
    return list(accumulate(array.array("Q", zlib.decompress(data))))


def unpacked(body: bytes) -> Facts:
    """Read facts out of a body."""
    facts: Facts = pickle.loads(zlib.decompress(body))
    return facts
