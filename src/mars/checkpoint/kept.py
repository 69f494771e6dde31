"""A task whose result a checkpoint has: to everybody else, it looks like one that ran.

Made by `mars.checkpoint.recall`. Sessions ask it to read its result, or to forget it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from mars.attempt.capture import Log
from mars.checkpoint.folder import Folder
from mars.checkpoint.index import Index
from mars.checkpoint.journal import Block, Kept, Raw
from mars.checkpoint.reading import Damaged, body_of
from mars.task import TIMING, Call, Stage, Task

if TYPE_CHECKING:
    from mars.task import Realm


class Source(Protocol):
    """What a kept task asks of whoever made it.

    ``offset_s`` is how far the clock of this process is ahead of the time since 1970, in seconds.
    """

    realm: Realm
    index: Index
    offset_s: float

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held while a result is read."""

    def install(self, task: KeptTask) -> None:
        """Read a result and hand it to the engine; raises `Damaged`."""

    def forget(self, task: KeptTask) -> None:
        """Have the call run again."""


class KeptTask(Task):
    """A call that is done because a checkpoint has its result. The result is read when needed."""

    __slots__ = ("_loaded", "_source", "_value", "found")

    reused = True

    def __init__(self, call: Call, source: Source, found: Kept | Block) -> None:
        self._value: object = None
        self._loaded = False
        super().__init__(call, source.realm)
        self._source = source
        self.found = found
        self.stage = Stage.DONE
        self.queued_at = self.ready_at = self.sent_at = found.started + source.offset_s
        if found.sizes[1]:
            # To whoever reads logs, this looks like what a worker printed.
            segment = _KeptLog(source.index.folder, found.raw, found.sizes)
            self.logs = (Log(segment, 0, found.sizes[1]),)

    @property
    def result(self) -> object:
        """The result in the form in which the engine keeps it."""
        if not self._loaded and self._value is None:
            self.load()
        return self._value

    @result.setter
    def result(self, value: object) -> None:
        self._value = value

    @property
    def timing(self) -> bytes | None:
        """When the call went through its stages, in the clock of this process."""
        moments = [self.sent_at]
        for span in self.found.spans:
            moments.append(moments[-1] + span)
        return TIMING.pack(*[int(moment * 1e9) for moment in moments])

    @timing.setter
    def timing(self, value: bytes | None) -> None:
        """Do nothing: the times are those of the journal."""

    def load(self) -> None:
        """Read the result, unless it was read before.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        with self._source.lock:
            if not self._loaded:
                self._source.install(self)
                self._loaded = True

    def forget(self) -> None:
        """Have the call run again: its result turned out to be damaged."""
        self._source.forget(self)

    def wrap(self, marks: Sequence[int] | None) -> None:
        """Give the result the form that the result of some items of a map has."""
        self._value = (self._value, {}, marks, {}, [])


class _KeptLog:
    """What a call printed in an earlier run."""

    def __init__(self, folder: Folder, raw: Raw, sizes: tuple[int, int, int]) -> None:
        self._folder, self._raw, self._sizes = folder, raw, sizes

    def read(self, start: int, limit: int) -> bytes:
        """Return up to ``limit`` bytes from ``start`` on; none if the record is damaged."""
        try:
            body = body_of(self._folder, self._raw)
        except Damaged:
            return b""
        begin, size = self._sizes[0], self._sizes[1]
        return body[begin : begin + size][start : start + limit]

    def kept_from(self, start: int) -> int:
        """Return ``start``: nothing is left out of what was kept."""
        return start


__all__ = ["Damaged", "KeptTask", "Source"]
