"""The worker's end of ``mars stack``; whoever asks is `stacks`, which workers need not load."""

from __future__ import annotations

import faulthandler
import fcntl
import mmap
import os
import signal
from typing import Final

from mars import platform
from mars.settings import MOST_THREADS

SIGNAL: Final = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else None
"""A real-time signal: no library or shell gives it a meaning."""

FILE: Final = "stack"
"""Name of the file in memory that the answer is written to."""

NAMES: Final = "calls"
"""Name of the file in memory in which a process with threads says which of them runs which call."""

SLOT: Final = 128
"""Bytes of one thread in this file: its identity in the first eight, then the call's name, both of
zeros where there is none."""


class CallNames:
    """Which thread of this process runs which call, for who asks from outside.

    It costs a call one write to memory, and no system call.
    """

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None
        self._free = list(range(MOST_THREADS - 1, -1, -1))
        try:
            descriptor = platform.memory_file(NAMES)  # it stays open: there it is found
            os.ftruncate(descriptor, MOST_THREADS * SLOT)
            self._map = mmap.mmap(descriptor, MOST_THREADS * SLOT)
        except OSError:  # no descriptor or memory is left: then calls have no names there
            self._free.clear()

    def open(self, thread: int) -> int:
        """A slot for a thread; -1: there is none."""
        slot = self._free.pop() if self._free else -1
        if self._map is not None and slot >= 0:
            self._map[slot * SLOT : slot * SLOT + 8] = thread.to_bytes(8, "little")
        return slot

    def close(self, slot: int) -> None:
        """The thread has ended."""
        if self._map is not None and slot >= 0:
            self._map[slot * SLOT : (slot + 1) * SLOT] = bytes(SLOT)
            self._free.append(slot)

    def begins(self, slot: int, name: str) -> None:
        """The thread runs a call from here on; without a name: none."""
        if self._map is not None and slot >= 0:
            text = name.encode("utf-8", "replace")[: SLOT - 8].ljust(SLOT - 8, b"\0")
            self._map[slot * SLOT + 8 : (slot + 1) * SLOT] = text


def answer_requests() -> None:
    """Have this process write its stack whenever it is asked."""
    if SIGNAL is None:
        return
    try:
        descriptor = platform.memory_file(FILE)
    except OSError:  # no descriptor is left: this worker does not answer
        return
    # Who asks empties the file, and our position in it has to follow.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True)
