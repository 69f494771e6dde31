"""Where printed bytes go: one append-only file per worker, a part of it for each attempt.

A worker process has its file on descriptors 1 and 2 from its start. The inline engine points
them at its file only while a call runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from mars import platform


class Segment:
    """What one worker process has printed, call after call; closed with its last reader."""

    def __init__(self) -> None:
        self.descriptor = platform.nameless_file()

    def size(self) -> int:
        """Bytes so far."""
        return os.fstat(self.descriptor).st_size

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        return os.pread(self.descriptor, limit, start)

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
