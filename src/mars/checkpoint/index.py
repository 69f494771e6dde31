"""Where each call of a journal stands, and each function.

Made when a checkpoint is opened, from the heads of all records. Called by the modules that look up
calls. The writer's thread adds what it has written.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from mars.checkpoint.folder import OFFSET_MASK, Folder
from mars.checkpoint.journal import (
    BLOCK,
    BLOCK_META,
    CALL,
    CHECKED_BYTES,
    CODE,
    HEADER,
    MAGIC,
    META_LIMIT,
    NO_ITEM,
    Problem,
    Raw,
    scan,
    unpacked,
)  # fmt: skip
from mars.checkpoint.reading import Damaged, body_of

if TYPE_CHECKING:
    from mars.checkpoint.folder import Facts


class Index:
    """Where each record of a journal stands.

    Attributes
    ----------
    calls : dict
        Places of calls by key. A place is a position, shifted by 16, and a number: 0 for a call of
        its own, or 1 for the first item of a block, 2 for the second, and so on.
    codes : dict
        Positions of functions by digest.
    problems : list of Problem
        Bytes that are no record.
    torn_at : int or None
        Position of a record that was being written when the machine stopped.
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
            self.calls.pop(NO_ITEM, None)
        elif one.kind == CODE:
            self.codes[one.meta[:8]] = one.position

    def raw(self, position: int) -> Raw:
        """Return the record at a position.

        Raises
        ------
        Damaged
            It has changed since the journal was opened.
        """
        head = self.folder.read(position, HEADER.size)
        if len(head) < HEADER.size:
            raise Damaged
        magic, kind, _, meta_size, body_size, body_check, check = HEADER.unpack(head)
        if magic != MAGIC or meta_size > META_LIMIT:
            raise Damaged
        meta = self.folder.read(position + HEADER.size, meta_size)
        if zlib.crc32(meta, zlib.crc32(head[:CHECKED_BYTES])) != check:
            raise Damaged
        offset = position & OFFSET_MASK
        body_at = offset + HEADER.size + meta_size
        return Raw(position, kind, meta, body_at, body_size, body_check)

    def find(self, key: bytes) -> tuple[Raw, int] | None:
        """Return the record of a call, and its number in a block or -1; None: it is not there."""
        place = self.calls.get(key)
        if place is None:
            return None
        try:
            return self.raw(place >> 16), (place & 0xFFFF) - 1
        except Damaged:
            del self.calls[key]
            return None

    def code(self, digest: bytes) -> Facts | None:
        """Return what is known of a function; None: nothing."""
        position = self.codes.get(digest)
        if position is None:
            return None
        try:
            return unpacked(body_of(self.folder, self.raw(position)))
        except Damaged:
            return None
