"""Values as one sequence of bytes that tells their parts apart.

A value is a pickle and the large buffers that were left out of it. Pure. Called by the modules that
write results into a journal or a file, and read them there.

::

    number of values ─ parts of each value ─ size of each part ─ the parts, at aligned places
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mars.checkpoint.folder import Data
    from mars.task import Buffer

ALIGN: Final = 64
"""In files the parts begin at multiples of this: arrays are read faster there."""

_ONE: Final = struct.Struct("<IIQ")  # the head of one value in one part


def framed(values: Sequence[Sequence[Buffer]], align: int = 1) -> list[Data]:
    """Put values, each in several parts, one behind the other."""
    if len(values) == 1 and len(values[0]) == 1 and align == 1 and type(values[0][0]) is bytes:
        return framed_bytes(values[0][0])
    sizes = [memoryview(part).nbytes for value in values for part in value]
    head = struct.pack(f"<I{len(values)}I", len(values), *map(len, values))
    head += struct.pack(f"<{len(sizes)}Q", *sizes)
    parts: list[Data] = [head]
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


def framed_bytes(data: bytes) -> list[Data]:
    """Do what `framed` does, for one value in one part. Most results are that."""
    return [_ONE.pack(1, 1, len(data)), data]


def unframed(data: Buffer, align: int = 1) -> list[list[memoryview]]:
    """Return the values that `framed` was given."""
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
