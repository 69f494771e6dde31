"""What calls do to the process of their worker, and how that is undone.

A call may change settings, leave threads running, or close its standard output. To look for that
costs more than a small call takes. So `Aftermath` decides when to look: after the first call of
each function, after each call of a function that ever changed something, and else from time to
time. What is looked at and put back is known to `mars.attempt.ambient`. `perform` calls it around
each call.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from typing import Final

from mars.attempt.ambient import LOST, RESTORED, SAME, Ambient
from mars.attempt.capture import log_stream
from mars.settings import LOG_TAIL_BYTES, LOOK_S

_LOOK_NS: Final = int(LOOK_S * 1e9)

lseek, SEEK_CUR = os.lseek, os.SEEK_CUR


class Aftermath:
    """What is known of the effects of calls on this process.

    Parameters
    ----------
    log : int
        Descriptor of the file that calls print to.

    Attributes
    ----------
    look_at_ns : int
        When to look again at what calls did, by the monotonic clock.
    unseen : bool
        A call has ended since the last look.
    tame : set of int
        Functions that have changed nothing in this process.
    spoiled : bool
        No further call may run in this process.
    errors : file
        What is behind stderr. Its ``written`` says whether a call wrote to it.
    """

    def __init__(self, log: int) -> None:
        self._log = log
        self._ambient: Ambient
        self.look_at_ns = 0
        self.unseen = False
        self.tame: set[int] = set()
        self._wild: set[int] = set()  # functions after whose calls we always look
        self._warned: set[int] = set()  # functions whose log says what they left running
        self.spoiled = False

    def begin(self, ambient: Ambient) -> None:
        """What the process is like now is what each call is to find."""
        self._ambient = ambient

    def forget(self, function: int) -> None:
        """A function is not called any more."""
        for observed in (self.tame, self._wild, self._warned):
            observed.discard(function)

    def look(self, function: int, name: str) -> None:
        """Undo what a call did to this process, and tell what it left running."""
        alone = not self.unseen
        self.restore(function)
        threads, children = self._ambient.left_behind()
        if (threads or children) and alone and function not in self._warned:
            self._warned.add(function)
            left = " and ".join(
                f"{count} {noun if count == 1 else nouns}"
                for count, noun, nouns in (
                    (threads, "thread", "threads"),
                    (children, "child process", "child processes"),
                )
                if count
            )
            many = threads + children > 1
            self.flush()
            line = (
                f"mars: the call {name} left {left} behind; "
                f"{'they end' if many else 'it ends'} with the worker\n"
            )
            with contextlib.suppress(OSError):
                os.write(self._log, line.encode("utf-8", "backslashreplace"))
        self.look_at_ns = time.monotonic_ns() + _LOOK_NS

    def restore(self, function: int) -> None:
        """Undo what calls, the last one of them of ``function``, did to this process.

        To look costs more than a small call. So what a function does is looked at after its
        first call here, after each call if it ever did something, and else from time to time.
        """
        found = self._ambient.restore()
        if not self._has_streams():
            self.open_streams()
            found = max(found, RESTORED)
        if found == SAME:
            if function not in self._wild:
                self.tame.add(function)
        elif self.unseen:
            self.tame.clear()  # it may have been any of them
        else:
            self._wild.add(function)
            self.tame.discard(function)
        self.unseen = False
        self.spoiled = self.spoiled or found == LOST

    def restore_streams(self, function: int) -> int:
        """The call closed or replaced its output: the next one begins with its own again."""
        self._wild.add(function)
        self.tame.discard(function)
        self.open_streams()
        return lseek(self._log, 0, SEEK_CUR)

    def _has_streams(self) -> bool:
        """Whether descriptors 1 and 2 are the log.

        Only what shares the log's position is: a call may have put another file, or /dev/null,
        there.
        """
        try:
            end = lseek(self._log, 0, SEEK_CUR)
            return lseek(1, 0, SEEK_CUR) == end and lseek(2, 0, SEEK_CUR) == end
        except OSError:
            return False

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed by the call
            self.stdout.flush()
            self.stderr.flush()

    def wrote_errors(self) -> None:
        """A call wrote to stderr. A warning that it was shown is shown to the next call, too."""
        self.errors.written = False
        with warnings.catch_warnings():  # Python then forgets what it has shown
            pass

    def last_printed(self, start: int) -> bytes:
        """Return the end of what the running call has printed."""
        end = os.lseek(self._log, 0, os.SEEK_CUR)
        begin = max(start, end - LOG_TAIL_BYTES)
        return os.pread(self._log, end - begin, begin)

    def open_streams(self) -> None:
        """Point stdin at nothing, and stdout and stderr, of C too, at this worker's log."""
        null = os.open(os.devnull, os.O_RDONLY)
        if null:
            os.dup2(null, 0)
            os.close(null)
        else:  # a call had closed 0, and this is it
            os.set_inheritable(0, True)
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        self.stdout = log_stream(1)
        self.stderr = log_stream(2)
        self.errors = self.stderr.buffer.raw  # type: ignore[attr-defined]
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (open for good)
        sys.stdout = sys.__stdout__ = self.stdout  # type: ignore[misc, assignment]
        sys.stderr = sys.__stderr__ = self.stderr  # type: ignore[misc, assignment]
