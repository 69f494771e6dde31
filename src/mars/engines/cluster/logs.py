"""What the workers of one node have printed, in one file at the driver.

A file for each worker would take a descriptor of the program each, of which a process has 1,024 as
a rule. So the workers of a node share a file, in which each has blocks of its own. A disk that is
full, or any other trouble with the file, costs what is printed meanwhile, and no more: it is left
out of the log, which says so where it is read.
"""

from __future__ import annotations

import os
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable

from mars import platform
from mars.attempt.capture import Segment
from mars.settings import LOG_BLOCK_BYTES


class NodeLogs:
    """The file of one node; it is there as long as any log is in it."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._end = 0
        self._unused: list[int] = []  # blocks whose worker has no reader any more
        self._users = 0  # logs of workers
        self._pid = os.getpid()
        # The end of a log may come with the collector, inside of whatever a thread does here.
        self._lock = threading.RLock()

    def begin(self) -> WorkerLog:
        """The log of another worker."""
        with self._lock:
            self._users += 1
        return WorkerLog(self)

    def block(self) -> int:
        """Where the next block is.

        Raises
        ------
        OSError
            There is no file, as no descriptor or no room is left for one.
        """
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = platform.nameless_file(append=False)
            if self._unused:
                return self._unused.pop()
            self._end += LOG_BLOCK_BYTES
            return self._end - LOG_BLOCK_BYTES

    def write(self, data: memoryview, position: int) -> int:
        """As `os.pwrite`."""
        return os.pwrite(self._descriptor, data, position)

    def read(self, position: int, limit: int) -> bytes:
        """As `os.pread`."""
        return os.pread(self._descriptor, limit, position)

    def punch(self, position: int, length: int) -> bool:
        """Give disk back; False where the file system cannot."""
        return self._descriptor >= 0 and platform.punch(self._descriptor, position, length)

    def leave(self, blocks: list[int]) -> None:
        """One user less, and what it had."""
        if os.getpid() != self._pid:
            return  # in a child that the program forked: the blocks are the program's
        with self._lock:
            self._users -= 1
            if not self._users and self._descriptor >= 0:
                descriptor, self._descriptor = self._descriptor, -1
                self._end, self._unused = 0, []
                os.close(descriptor)
            elif self._users:
                for position in blocks:
                    self.punch(position, LOG_BLOCK_BYTES)
                self._unused += blocks


class WorkerLog(Segment):
    """What one worker of a node has printed: a `Segment` in blocks of the node's file."""

    def __init__(self, file: NodeLogs) -> None:
        self.descriptor = -1  # it has none of its own
        self._gaps = ()
        self._file: NodeLogs | None = file
        self._starts: list[int] = []  # of blocks, in this log
        self._blocks: list[int] = []  # and in the file
        self._size = 0
        self._room = 0  # left in the last block

    def append(self, data: bytes) -> OSError | None:
        """More was printed. What cannot be kept is a gap, as a place in the log has to stay one."""
        view = memoryview(data)
        try:
            while view and self._file is not None:
                if not self._room:
                    self._blocks.append(self._file.block())
                    self._starts.append(self._size)
                    self._room = LOG_BLOCK_BYTES
                at = self._blocks[-1] + LOG_BLOCK_BYTES - self._room
                done = self._file.write(view[: self._room], at)
                self._room -= done
                self._size += done
                view = view[done:]
        except OSError as error:
            self._leave_out(len(view))
            return error
        return None

    def _leave_out(self, count: int) -> None:
        begin, end = self._size, self._size + count
        if self._gaps and self._gaps[-1][1] == begin:
            (*others, (begin, _)) = self._gaps
        else:
            others = list(self._gaps)
        self._gaps = (*others, (begin, end))  # before the size, up to which others read
        self._size = end
        self._room = 0  # what comes next begins another block

    def size(self) -> int:
        if self._file is None:
            raise OSError("the log is closed")
        return self._size

    def _at(self, start: int, limit: int) -> bytes:
        file, found = self._file, []
        if file is None:
            raise OSError("the log is closed")
        end = min(start + limit, self._size)
        while start < end:
            index = bisect_right(self._starts, start) - 1
            offset = start - self._starts[index] if index >= 0 else LOG_BLOCK_BYTES
            if offset >= LOG_BLOCK_BYTES:
                break  # it was left out
            most = min(end - start, LOG_BLOCK_BYTES - offset)
            data = file.read(self._blocks[index] + offset, most)
            if not data:
                break
            found.append(data)
            start += len(data)
        return b"".join(found)

    def _make_hole(self, begin: int, end: int) -> bool:
        file, given = self._file, False
        for start, block in zip(self._starts, self._blocks, strict=True):
            first, last = max(start, begin), min(start + LOG_BLOCK_BYTES, end)
            if file is not None and first < last:
                given |= file.punch(block + first - start, last - first)
        return given

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.leave(self._blocks)

    def __del__(self, is_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of a program the names of modules may be gone; files end with it.
        if getattr(self, "_file", None) is not None and not is_the_end():
            self.close()


__all__ = ["NodeLogs", "WorkerLog"]
