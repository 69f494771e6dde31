"""Where printed bytes go: one append-only file per worker, a part of it for each attempt.

A worker process has its file on descriptors 1 and 2 from its start. The inline engine points
them at its file only while a call runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, Final

from mars import platform

_LONG_LINE_BYTES: Final = 4096


class Segment:
    """What one worker process has printed, call after call; closed with its last reader.

    The file only grows, and a place in it means the same for ever. What is left out to save disk
    becomes a hole in it, a gap: a reader asks `kept_from` where the text goes on.
    """

    def __init__(self) -> None:
        self.descriptor = platform.nameless_file()
        # Beginnings and ends. Replaced as a whole: other threads read while the loop trims.
        self._gaps: tuple[tuple[int, int], ...] = ()

    def size(self) -> int:
        """Bytes so far, what was left out included."""
        return os.fstat(self.descriptor).st_size

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``, but none from a gap or beyond it."""
        while True:
            gaps = self._gaps
            for begin, end in gaps:
                if start < end:
                    limit = min(limit, max(begin - start, 0))
                    break
            data = os.pread(self.descriptor, limit, start)
            if self._gaps is gaps:  # else a hole may have been made under what was read
                return data

    def kept_from(self, start: int) -> int:
        """``start``, or the end of the gap that it is in."""
        for begin, end in self._gaps:
            if begin <= start < end:
                return end
        return start

    def trim(self, start: int, end: int, limit: int) -> None:
        """Leave out the middle of what stands from ``start`` to ``end``, one attempt's log.

        About ``limit`` bytes stay, half of them at each end, whole lines where lines are not
        too long. Where the file system makes no holes, all stays. Only one thread may call this.
        """
        before = self._gaps
        last = self._line_end(end - limit // 2)
        if before and before[-1][0] >= start:  # the attempt still runs, and has a gap already
            *others, (first, begin) = before
        else:
            others = list(before)
            first = begin = self._line_end(start + limit // 2)
        if begin >= last:
            return
        self._gaps = (*others, (first, last))  # told of before it is there: see `read`
        if not platform.punch(self.descriptor, begin, last - begin):
            self._gaps = before

    def _line_end(self, position: int) -> int:
        """The first place from ``position`` on where a line begins, or ``position``."""
        return position + os.pread(self.descriptor, _LONG_LINE_BYTES, position).find(b"\n") + 1

    def close(self) -> None:
        """Forget what was printed; idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "descriptor", -1) >= 0:
            self.close()


class Log:
    """The part of a segment that one attempt wrote."""

    __slots__ = ("end", "segment", "start")

    def __init__(self, segment: Segment, start: int, end: int) -> None:
        self.segment, self.start, self.end = segment, start, end

    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``, but none from a gap or beyond it."""
        return self.segment.read(self.start + start, min(limit, self.size() - start))

    def kept_from(self, start: int) -> int:
        """``start``, or the end of the gap that it is in."""
        return min(self.segment.kept_from(self.start + start), self.end) - self.start

    def finished(self) -> bool:
        """True: more of the attempt is another `Log`."""
        return True


def text_stream(descriptor: int) -> IO[str]:
    """A stream that passes on every line at once."""
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


class _Tee:
    """Writes to the log and to the terminal, so that a debugger can talk to its user."""

    def __init__(self, log: IO[str], terminal: Any) -> None:
        self._log, self._terminal = log, terminal

    def write(self, text: str) -> int:
        self._log.write(text)
        return int(self._terminal.write(text) or len(text))

    def flush(self) -> None:
        self._log.flush()
        self._terminal.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


@contextlib.contextmanager
def capturing(segment: Segment) -> Iterator[None]:
    """Send what this process prints, C code and child processes included, to ``segment``.

    On a terminal, what Python prints is shown there as well.
    """
    log = text_stream(segment.descriptor)
    streams = sys.stdout, sys.stderr
    interactive = bool(sys.__stdin__ and sys.__stdin__.isatty())
    for stream in streams:
        with contextlib.suppress(Exception):  # the program may have put anything there
            stream.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        os.dup2(segment.descriptor, 1)
        os.dup2(segment.descriptor, 2)
        if interactive:
            terminals = [text_stream(descriptor) for descriptor in saved]
            sys.stdout, sys.stderr = (_Tee(log, terminal) for terminal in terminals)
        else:
            sys.stdout = sys.stderr = log
        yield
    finally:
        log.flush()
        sys.stdout, sys.stderr = streams
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
