"""Where a large value is: the form in which every process names it in messages.

A region is a part of an arena. A stored value is the pickle of a value and the region that has its
large parts. Both are plain tuples, because messages carry them, and a pickle of a plain tuple is
smaller and faster than one of any class. This module is pure.
"""

from __future__ import annotations

from typing import Any, Final

OWNER_SHIFT: Final = 20
"""The number of an arena is the number of its owner, shifted by this, plus a count."""

ON_DISK: Final = 1 << (OWNER_SHIFT - 1)
"""Set in the number of an arena that is a file on disk."""

Key = tuple[int, int]
"""Arena and offset: what names a region."""

Region = tuple[int, int, int, tuple[int, ...]]
"""Where the large parts of a value are: arena, offset, length, and the bytes of each part."""

Stored = tuple[Any, int, int, int, tuple[int, ...]]
"""A value with parts in an arena: its pickle, and its region. If the pickle is None, then the first
part is the pickle."""


def parts_of(result: Any) -> list[Any]:
    """The stored values in a result: of one output, of several, or of a block of items."""
    if len(result) == 5 and type(result[1]) is int:
        return [result]
    return [value for value in result if type(value) is tuple and len(value) == 5]
