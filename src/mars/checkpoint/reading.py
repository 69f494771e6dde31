"""Results and arguments as they stand in a checkpoint, read back.

Called by the modules of this package that look up a call. `Damaged` is raised by everything that
reads, and means that the bytes are not those that were written.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from mars.checkpoint import journal
from mars.checkpoint.folder import SEGMENT_SHIFT, Folder
from mars.checkpoint.framing import ALIGN, unframed
from mars.checkpoint.journal import Block, Kept, Raw
from mars.checkpoint.loader import load

if TYPE_CHECKING:
    from collections.abc import Sequence


class Damaged(Exception):
    """What a record promises is not there, or is not what was written."""

    def __str__(self) -> str:
        return "a result in the checkpoint is damaged; a new session runs its call again"


def body_of(folder: Folder, raw: Raw) -> bytes:
    """Read a record's body.

    Raises
    ------
    Damaged
        The body does not fit its checksum.
    """
    base = raw.position >> SEGMENT_SHIFT << SEGMENT_SHIFT
    data = folder.read(base | raw.body_at, raw.body_size)
    if len(data) != raw.body_size or zlib.crc32(data) != raw.body_check:
        raise Damaged
    return data


def result_of(folder: Folder, found: Kept | Block, body: bytes) -> list[list[memoryview]]:
    """Read the values of a call, each as its pickle and its buffers, out of its body or its file.

    Raises
    ------
    Damaged
        The file is gone, or does not fit its checksum.
    """
    part = _result(found, body)
    if not found.flags & journal.AS_FILE:
        return unframed(bytearray(part))
    size, check = journal.FILE_NOTE.unpack(part)
    try:
        data = folder.read_file(journal.result_file(journal.file_key(found)))
    except FileNotFoundError:
        raise Damaged from None
    if len(data) != size or zlib.crc32(data) != check:
        raise Damaged
    return unframed(data, ALIGN)


def is_whole(folder: Folder, found: Kept | Block, body: bytes) -> bool:
    """Whether a result that is a file has its size; the file is not read."""
    if not found.flags & journal.AS_FILE:
        return True
    size = folder.file_size(journal.result_file(journal.file_key(found)))
    return bool(size == journal.FILE_NOTE.unpack(_result(found, body))[0])


def values_of(folder: Folder, found: Kept | Block) -> Sequence[object]:
    """Read the values that a record has, and unpickle them.

    Raises
    ------
    Damaged
        They are not what was written.
    """
    parts = result_of(folder, found, body_of(folder, found.raw))
    return [load(value[0], value[1:]) for value in parts]


def _result(found: Kept | Block, body: bytes) -> bytes:
    return body[found.sizes[0] + found.sizes[1] :]
