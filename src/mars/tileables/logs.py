"""The logs of the chunks of a tensor or frame, read as one.

Each call of a chunk has a log of its own. `ChunkLogs` reads them all and has what the original's
`LogFetcher` has: one text, and the parts with their keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mars.logs import LogFetcher

if TYPE_CHECKING:
    from mars.calls.objects import Object
    from mars.logs import Offsets
    from mars.sessions.session import AnySession


class ChunkLogs:
    """What the calls of several chunks have printed, as of the latest read.

    Attributes
    ----------
    chunk_op_keys : list of str
        The keys of the chunks that have printed something.
    results : list of str
        The text of each.
    offsets : list of int
        Where each read ended, in bytes.
    """

    def __init__(
        self, objects: Sequence[Object[object]], *, session: AnySession | None,
        offsets: Offsets | None, sizes: Offsets | None,
    ) -> None:  # fmt: skip
        found: dict[str, LogFetcher] = {}
        for one in objects:
            if one.key in found:
                continue
            log = one.fetch_log(
                session=session, offsets=_own(offsets, one.key), sizes=_own(sizes, one.key)
            )
            if len(log):
                found[one.key] = log
        self._read = list(found.items())

    @property
    def chunk_op_keys(self) -> list[str]:
        return [key for key, _ in self._read]

    @property
    def results(self) -> list[str]:
        return [str(log) for _, log in self._read]

    @property
    def offsets(self) -> list[int]:
        return [offset for _, log in self._read for offset in log.offsets]

    def __len__(self) -> int:
        return len(self._read)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        if len(self._read) == 1:
            return self.results[0]
        return "".join(
            f"\nChunk op key: {key}\nOut:\n{text}"
            for key, text in zip(self.chunk_op_keys, self.results, strict=True)
        )

    def __repr__(self) -> str:
        return repr(str(self))


def _own(given: Offsets | None, key: str) -> Offsets | None:
    """What is asked for one chunk, if a dict asks for some."""
    return given.get(key) if isinstance(given, Mapping) else given


__all__ = ["ChunkLogs"]
