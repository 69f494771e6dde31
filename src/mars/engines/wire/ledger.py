"""How much memory the arenas of all processes of an engine take, against their budget.

The driver, or a node, makes a ledger; each worker process gets a place in it.
"""

from __future__ import annotations

import errno
import heapq
import mmap
import os
import threading
from typing import Final

from mars import platform
from mars.settings import LARGE_PAGE_BYTES, LEDGER_BYTES

_LEDGER_HEAD: Final = 1
"""Words of a ledger before its places: the highest place that was ever given out."""


class Ledger:
    """How much memory the arenas of all processes of an engine take, against their budget.

    Each process adds to a place of its own in memory that all share, so no process waits for
    another. Two processes that ask at the same moment may go over the budget by what they write
    then. Place 0 is that of the process which made the ledger. It gives out the other ones and
    gets them back when their processes have ended, so a place never serves two at a time.

    Parameters
    ----------
    descriptor : int
        A file in memory from `Ledger.new`; the caller closes it when it likes.
    place : int
        Place of this process.
    budget_bytes : int
        What all arenas in memory together may take.
    """

    def __init__(self, descriptor: int, place: int, budget_bytes: int) -> None:
        self._memory = mmap.mmap(descriptor, LEDGER_BYTES)
        self._sums = memoryview(self._memory).cast("q")[_LEDGER_HEAD:]
        self._head = memoryview(self._memory).cast("q")[:_LEDGER_HEAD]
        self._place = place
        self._free: list[int] = []  # places that were given back; the lowest first
        self._lock = threading.Lock()  # of this process's threads
        self.budget_bytes = budget_bytes

    @staticmethod
    def new() -> int:
        """Descriptor of an empty ledger."""
        descriptor = platform.memory_file("ledger")
        try:
            write_all(
                descriptor, memoryview(bytes(LEDGER_BYTES)), 0
            )  # its pages exist from here on
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def open_place(self) -> int:
        """Give out a place for a process that is about to start; only by who made the ledger.

        Raises
        ------
        OSError
            There are no more.
        """
        with self._lock:
            if self._free:
                return heapq.heappop(self._free)
            last = self._head[0] + 1
            if last >= len(self._sums):
                raise OSError(errno.EAGAIN, f"there are {last - 1:,} worker processes already")
            self._head[0] = last
            return last

    def close_place(self, place: int) -> None:
        """Take a place back; its process has ended, and what it counted counts no more."""
        self.settle(0, place)
        with self._lock:
            heapq.heappush(self._free, place)

    def total(self) -> int:
        """Bytes of all processes."""
        return sum(self._sums[: self._head[0] + 1])

    def grow(self, size: int) -> bool:
        """Whether ``size`` more bytes are within the budget; they are counted then."""
        if self.total() + size > self.budget_bytes:
            return False
        self.change(size)
        return True

    def change(self, size: int) -> None:
        """Count bytes of this process that came or went."""
        with self._lock:
            self._sums[self._place] += size

    def settle(self, size: int, place: int) -> None:
        """Set what a place counts."""
        self._sums[place] = size

    def close(self) -> None:
        self._sums.release()
        self._head.release()
        self._memory.close()

    @property
    def tight(self) -> bool:
        """More than half of the budget is taken: nothing is kept only to be written faster."""
        return 2 * self.total() > self.budget_bytes


def write_all(descriptor: int, view: memoryview, position: int) -> None:
    """Write a buffer to a place in a file, in steps that end where large pages end."""
    done = 0
    while done < view.nbytes:
        step = LARGE_PAGE_BYTES - (position + done) % LARGE_PAGE_BYTES
        done += os.pwrite(descriptor, view[done : done + step], position + done)
