"""Where printed bytes go: one append-only file per worker, a part of it for each attempt.

A worker process has its file on descriptors 1 and 2 from its start. The inline engine points
them at its file only while a call runs.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol, TextIO, cast

from mars import platform
from mars.settings import LOG_LINE_BYTES

if TYPE_CHECKING:

    class _Bytes(Protocol):
        """Anything that has bytes."""

        def __buffer__(self, flags: int, /) -> memoryview: ...


_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM})
_MISSING: Final = "that were printed before are missing, as there was no room for logs (TMPDIR)"


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
            data = self._at(start, limit)
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
        if not self._make_hole(begin, last):
            self._gaps = before

    def _line_end(self, position: int) -> int:
        """The first place from ``position`` on where a line begins, or ``position``."""
        return position + self._at(position, LOG_LINE_BYTES).find(b"\n") + 1

    def _at(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes as they stand in the file."""
        return os.pread(self.descriptor, limit, start)

    def _make_hole(self, begin: int, end: int) -> bool:
        """Whether the disk behind a part could be given back."""
        return platform.punch(self.descriptor, begin, end - begin)

    def close(self) -> None:
        """Forget what was printed; idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self, is_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of a program the names of modules may be gone; files end with it.
        if getattr(self, "descriptor", -1) >= 0 and not is_the_end():
            self.close()


class Printed(Protocol):
    """What one worker process has printed, for who reads it."""

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``, but none from a gap or beyond it."""

    def kept_from(self, start: int) -> int:
        """``start``, or the end of the gap that it is in."""


class Log:
    """The part of a segment that one attempt wrote.

    Attributes
    ----------
    loud : bool
        Whether Python code of the attempt wrote to stderr: warnings, most of all.
    """

    __slots__ = ("end", "loud", "segment", "start")

    def __init__(self, segment: Printed, start: int, end: int, loud: bool = False) -> None:
        self.segment, self.start, self.end, self.loud = segment, start, end, loud

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


def text_stream(descriptor: int) -> TextIO:
    """A stream that passes on every line at once."""
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def log_stream(descriptor: int) -> TextIO:
    """The same for a log: what it has no room for is lost, and fails no call that prints."""
    buffer = io.BufferedWriter(_LogFile(descriptor))
    stream = io.TextIOWrapper(
        buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    stream.mode = "w"  # type: ignore[misc]
    return stream


class _LogFile(io.FileIO):
    """The file of a log. A call did not ask for it, so it does not hear of a disk that is full.

    What comes when there is room again begins with a line that says what is missing.

    Attributes
    ----------
    written : bool
        Whether something was written. Whoever looks at it makes it False again.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.written = False
        self._file = self._identity()
        self._lost = 0
        self._cut = False  # within a line

    def write(self, data: _Bytes, /) -> int:
        self.written = True
        try:
            if self._lost:
                line = f"mars: {self._lost:,} bytes {_MISSING}\n"
                new_line = "\n" * self._cut
                super().write(f"{new_line}{line}".encode())
                self._lost, self._cut = 0, False
            done = super().write(data)
            view = memoryview(data)
            if done < view.nbytes:  # the last room
                self._cut = bytes(view.cast("B")[done - 1 : done]) != b"\n"
            return done
        except OSError as error:
            # A call may have put a file of its own there, and is told of its trouble.
            if error.errno not in _NO_ROOM or self._identity() != self._file:
                raise
        size = memoryview(data).nbytes
        self._lost += size
        return size

    def _identity(self) -> tuple[int, int]:
        found = os.fstat(self.fileno())
        return found.st_dev, found.st_ino


class _Tee:
    """Writes to the log and to the terminal, so that a debugger can talk to its user."""

    def __init__(self, log: TextIO, terminal: TextIO) -> None:
        self._log, self._terminal = log, terminal

    def write(self, text: str) -> int:
        self._log.write(text)
        return int(self._terminal.write(text) or len(text))

    def flush(self) -> None:
        self._log.flush()
        self._terminal.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._terminal, name)


class _Routed(io.TextIOBase):
    """Goes to the log in threads of the call, and in others to where it went before."""

    def __init__(
        self, inside: Callable[[], bool], log: TextIO | None, before: TextIO | None
    ) -> None:
        self._inside, self._log, self._before = inside, log, before
        self.wrote = False  # to the log

    def _target(self) -> TextIO:
        target = self._log if self._inside() else self._before
        assert target is not None
        return target

    def write(self, text: str, /) -> int:
        target = self._target()
        self.wrote |= target is self._log
        return int(target.write(text) or len(text))

    def flush(self) -> None:
        self._target().flush()

    def close(self) -> None:
        self._target().close()

    @property
    def closed(self) -> bool:
        return bool(self._target().closed)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._target().encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._target().errors

    def fileno(self) -> int:
        return int(self._target().fileno())

    def isatty(self) -> bool:
        return bool(self._target().isatty())

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> object:
        return getattr(self._target(), name)

    def __del__(self) -> None:
        """Close nothing: the streams are others'."""

    def end(self, before: TextIO) -> None:
        """The call has ended; somebody may have kept its stream, as a logger does."""
        if self._before is not None and self._before is not before:
            self._before.flush()  # ours, of a descriptor that is about to be closed
        self._inside, self._before = bool, before  # bool() is False
        self._log = None


class ByThread(_Routed):
    """Goes where the thread that prints says: for a process in which several calls run at a time.

    Parameters
    ----------
    choose : callable
        Gives the stream of the thread that asks.
    """

    def __init__(self, choose: Callable[[], TextIO]) -> None:
        super().__init__(bool, None, None)
        self._choose = choose

    def _target(self) -> TextIO:
        return self._choose()

    def close(self) -> None:
        """Close nothing: the stream is that of other calls, too."""


class _Capture:
    """One call's hold on what this process prints."""

    def __init__(self, segment: Segment, inside: Callable[[], bool]) -> None:
        self.log = log_stream(segment.descriptor)
        self.streams = sys.stdout, sys.stderr  # they go back when the call ends
        self.descriptors = [os.dup(descriptor) for descriptor in (1, 2)]
        for descriptor in (1, 2):
            os.dup2(segment.descriptor, descriptor)
        interactive = is_interactive()
        routed = []
        for before, descriptor, copy in zip(self.streams, (1, 2), self.descriptors, strict=True):
            elsewhere = before
            if _descriptor_of(before) == descriptor:
                elsewhere = text_stream(copy)
            log = self.log
            if interactive:
                log = cast("TextIO", _Tee(self.log, text_stream(copy)))
            routed.append(_Routed(inside, log, elsewhere))
        self._routed = routed
        sys.stdout, sys.stderr = routed

    @property
    def loud(self) -> bool:
        """Whether the call wrote to stderr."""
        return self._routed[1].wrote

    def give_back(self) -> None:
        sys.stdout, sys.stderr = self.streams
        for descriptor, copy in zip((1, 2), self.descriptors, strict=True):
            os.dup2(copy, descriptor)

    def forget(self) -> None:
        for routed, before in zip(self._routed, self.streams, strict=True):
            routed.end(before)
        for copy in self.descriptors:
            os.close(copy)


def is_interactive() -> bool:
    """Whether a user sits before the program, and may talk to a debugger in a call."""
    given = sys.__stdin__
    return given is not None and not given.closed and given.isatty()


def _descriptor_of(stream: TextIO) -> int:
    if isinstance(stream, _Routed):
        return -1
    try:
        return int(stream.fileno())
    except Exception:  # the program may have put anything there
        return -1


_captures: list[_Capture] = []  # of calls that run now, one inside the other
_capturing = threading.Lock()


@contextlib.contextmanager
def capturing(segment: Segment, inside: Callable[[], bool]) -> Iterator[_Capture]:
    """Send what a call prints, C code and child processes included, to ``segment``.

    What Python prints in other threads goes where it went before: ``inside`` says whether the
    thread that asks is one of the call. On a terminal, what the call prints is shown there as
    well. Blocks stand inside each other. One that ends before a block inside of it, in a thread
    that its call has left behind, leaves the output to that one. The value of the block says
    whether the call is ``loud``.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the program may have put anything there
            stream.flush()
    with _capturing:
        capture = _Capture(segment, inside)
        _captures.append(capture)
    try:
        yield capture
    finally:
        with _capturing:
            with contextlib.suppress(ValueError):  # closed by the call
                capture.log.flush()
            place = _captures.index(capture)
            del _captures[place]
            if place == len(_captures):
                capture.give_back()
            else:  # what was before it is what goes back when the inner one ends
                inner = _captures[place]
                capture.descriptors, inner.descriptors = inner.descriptors, capture.descriptors
                inner.streams = capture.streams
            capture.forget()
