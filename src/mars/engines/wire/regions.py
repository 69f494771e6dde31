"""Where a large value is: the form in which every process names it in messages.

A region is a part of an arena. A stored value is the pickle of a value and the region that has its
large parts. Both are plain tuples, because messages carry them, and a pickle of a plain tuple is
smaller and faster than one of any class. This module is pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeGuard

from mars.task import Stored, Value

OWNER_SHIFT: Final = 20
"""The number of an arena is the number of its owner, shifted by this, plus a count."""

ON_DISK: Final = 1 << (OWNER_SHIFT - 1)
"""Set in the number of an arena that is a file on disk."""

Key = tuple[int, int]
"""Arena and offset: what names a region."""

Region = tuple[int, int, int, tuple[int, ...]]
"""Where the large parts of a value are: arena, offset, length, and the bytes of each part."""


BlockResult = tuple[Value, dict[int, bytes], Sequence[int] | None, dict[int, int], list[int]]
"""What came of a block of items: their values in one list, failures by position (packed), where the
log of each item begins and that of the last one ends (None: none wrote any), how often items were
tried again, by position, and which items wrote to stderr."""

Result = Value | tuple[Value, ...] | BlockResult
"""What came of a call that ended well: one output, several, or a block of items."""


def is_stored(value: object) -> TypeGuard[Stored]:
    """Whether a value of a result has parts in an arena."""
    return type(value) is tuple and len(value) == 5 and type(value[1]) is int


def parts_of(result: Result) -> list[Stored]:
    """The stored values in a result: of one output, of several, or of a block of items."""
    if is_stored(result):
        return [result]
    return [value for value in result if is_stored(value)]
