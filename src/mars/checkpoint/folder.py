"""What a checkpoint asks of the place where its bytes are: the protocol `Folder`.

A folder holds segments and files. Records are appended to a segment. A file is written once, and
appears whole or not at all. A folder does not know what its bytes mean. There are two kinds:
`mars.checkpoint.local_folder` and `mars.checkpoint.remote_folder`. This module does nothing itself.

::

    otto/journal.mars             the one segment of a local folder
    otto/journal/<when>-<n>.mars  a segment of a remote folder
    otto/results/4f/4f0c…         a large result
    otto/arguments/9a/9a31…       a large part of arguments, named by its content
    otto/lock                     who writes there
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    Facts = dict[str, Any]
    """What a record, or a holder, tells of itself. Folders of older versions have other facts, so
    readers ask for each."""

    class Data(Protocol):
        """Bytes, whoever holds them."""

        def __buffer__(self, flags: int, /) -> memoryview: ...
        def __len__(self) -> int: ...

    class SegmentBytes(Data, Protocol):
        """The bytes of a segment, in memory or mapped."""

        def find(self, sub: bytes, start: int, /) -> int: ...
        def __getitem__(self, part: slice, /) -> bytes: ...


SEGMENT_SHIFT: Final = 40
"""A position is the number of a segment, shifted by this, and an offset in that segment."""

OFFSET_MASK: Final = (1 << SEGMENT_SHIFT) - 1
"""The part of a position that is the offset."""


def say_nothing(line: str) -> None:
    """Take a line for the user when there is nobody to tell."""


class Folder(Protocol):
    """A checkpoint's folder. One thread writes to it; any thread may read it."""

    name: str
    inline_bytes: int  # results up to this size stand in the segment itself
    window_s: float  # how long records are gathered until they are written
    eager: bool  # whether a record that comes after a pause is written at once
    remark: str  # something that the user should know; empty: nothing
    trusting: bool  # whether files of other users are read, too

    def strangers(self) -> tuple[str, str]:
        """Say who else than the owner can write there, and who the owner is if not this user.

        Both texts are empty if there is nothing to say, and if the folder is not on this machine.
        """

    def lock(self, tell: Callable[[str], object] = ...) -> None:
        """Keep other writers out until `close`.

        Parameters
        ----------
        tell : callable, optional
            Takes a line for the user if the lock is lost later.

        Raises
        ------
        CheckpointBusy
            Another process writes there.
        CheckpointUnusable
            Nothing can be written there.
        """

    def segments(self) -> Iterator[tuple[int, SegmentBytes]]:
        """Give number and bytes of each segment; the bytes are valid until the next step."""

    def truncate(self, size: int) -> None:
        """Cut the last segment off at a size."""

    def append(self, buffers: Sequence[Data]) -> int:
        """Append all or nothing, and return the position of the first byte.

        Raises
        ------
        OSError
            That did not work. Nothing was appended.
        """

    def sync(self) -> None:
        """Return when all that was written survives a loss of power."""

    def read(self, position: int, size: int) -> bytes:
        """Return bytes of a segment."""

    def write_file(self, name: str, buffers: Sequence[Data]) -> None:
        """Write a file that appears whole, or not at all."""

    def read_file(self, name: str) -> Data:
        """Return a file's bytes; FileNotFoundError if there is no such file."""

    def file_size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None: there is no such file."""

    def files(self) -> Iterator[tuple[str, int]]:
        """Give the name and the size of each file."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def replace(self, buffers: Iterator[Data]) -> None:
        """Replace all segments that were read here by these bytes, in one step."""

    def close(self) -> None:
        """Let others write; may be called twice."""
