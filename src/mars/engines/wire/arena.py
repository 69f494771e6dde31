"""Arenas: files in memory that hold large values, their space, and their mappings.

One process, the owner, allocates and writes; any process that has the descriptor maps. Mappings
are private copies-on-write: a reader sees the bytes without a copy, may write to them, and
nobody else sees that. Writes go through ``pwrite``, so a full machine is an error, never SIGBUS,
and regions that were freed are written again, which is several times faster than fresh memory.
Beyond the budget for objects an arena is a nameless file on disk, mapped the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
import threading
import weakref
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.engines.wire.large_pages import LargePages
from mars.engines.wire.ledger import Ledger, write_all
from mars.engines.wire.regions import ON_DISK, OWNER_SHIFT, Region
from mars.errors import StoreFull
from mars.settings import (
    ARENA_BYTES,
    DISK_ARENA_BYTES,
    HUGE_PAGE_BYTES,
    IDLE_ARENA_BYTES,
    MAPPED_CACHE_BYTES,
)
from mars.task import Stored

if TYPE_CHECKING:
    from mars.task import Buffer

PAGE: Final = mmap.PAGESIZE
_ALIGN: Final = 64  # buffers begin on cache lines


class Space:
    """Free parts of one arena. Pure."""

    def __init__(self, size: int = 0) -> None:
        self.free: list[tuple[int, int]] = []  # offset, length; sorted, never adjacent
        self.free_bytes = size
        if size:
            self.free.append((0, size))

    def take(self, length: int) -> int | None:
        """Offset of ``length`` free bytes: the lowest that fits."""
        if length > self.free_bytes:
            return None
        for index, (offset, available) in enumerate(self.free):
            if available >= length:
                if available == length:
                    del self.free[index]
                else:
                    self.free[index] = (offset + length, available - length)
                self.free_bytes -= length
                return offset
        return None

    def give_back(self, offset: int, length: int) -> None:
        """Add a free part."""
        self.free_bytes += length
        insort(self.free, (offset, length))
        index = self.free.index((offset, length))
        if index + 1 < len(self.free):
            after, size = self.free[index + 1]
            if offset + length == after:
                length += size
                self.free[index : index + 2] = [(offset, length)]
        if index:
            before, size = self.free[index - 1]
            if before + size == offset:
                self.free[index - 1 : index + 1] = [(before, size + length)]

    def around(self, offset: int, length: int, step: int) -> tuple[int, int]:
        """Offset and length of what is free around a free part, to the next multiples of a step."""
        start, size = self.free[bisect_right(self.free, (offset, sys.maxsize)) - 1]
        first = max(start, offset - offset % step)
        after = offset + length
        return first, min(start + size, after + -after % step) - first

    def take_all(self) -> list[tuple[int, int]]:
        """Everything that is free."""
        parts, self.free = self.free, []
        self.free_bytes = 0
        return parts


class _Arena:
    """One file of an `Allocator`: its space with pages behind it, and that without."""

    __slots__ = ("cold", "descriptor", "size", "warm")

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.warm = Space()
        self.cold = Space(size)

    def cool(self, parts: Sequence[tuple[int, int]]) -> int:
        """Give the memory, or the disk, behind free parts back; how many bytes that are."""
        given = 0
        for offset, length in parts:
            if platform.punch(self.descriptor, offset, length):
                self.cold.give_back(offset, length)
                given += length
                more = self.cold.around(offset, length, HUGE_PAGE_BYTES)
                if more != (offset, length):  # the system may have filled holes beside it
                    platform.punch(self.descriptor, *more)
            else:
                self.warm.give_back(offset, length)
        return given


class Allocator:
    """The arenas that one process owns: in memory within the budget, beyond it on disk.

    Nothing moves between the two, so a value's place holds as long as the value, and readers
    map both alike. Any thread may put and free: while one writes, nobody waits for it.

    Parameters
    ----------
    owner : int
        Number of the process: 0 for the driver, else the worker's.
    announce : callable
        Called with the number, descriptor and size of each new arena, before anything is
        written to it.
    ledger : Ledger
        Counts the memory of all processes.
    spill_directory : str
        Where arenas on disk are made.
    pages : LargePages, optional
        Makes arenas in memory of large pages.
    """

    def __init__(
        self,
        owner: int,
        announce: Callable[[int, int, int], None],
        ledger: Ledger,
        spill_directory: str,
        pages: LargePages | None = None,
    ) -> None:
        self.pages = pages
        self._first = owner << OWNER_SHIFT
        self._count = 0  # arenas made
        self._announce = announce
        self._ledger = ledger
        self._spill_directory = spill_directory
        self._in_memory: dict[int, _Arena] = {}
        self._on_disk: dict[int, _Arena] = {}
        self._lock = threading.Lock()
        self._writing = 0  # threads that write to what they have reserved
        self._closed = False

    def put(self, buffers: Sequence[Buffer], what: str) -> Region:
        """Copy buffers into an arena.

        Raises
        ------
        StoreFull
            Neither memory nor disk has room, or no descriptor is left.
        """
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        sizes = tuple(view.nbytes for view in views)
        length = _round(sum(-(-size // _ALIGN) * _ALIGN for size in sizes), PAGE)
        reasons = []
        for where, reserve in (
            ("memory", self._reserve_in_memory),
            (self._spill_directory, self._reserve_on_disk),
        ):
            try:
                place = self._put(reserve, length, views)
            except OSError as error:
                reasons.append(f"{where}: {platform.refusal(error)}")
            else:
                if place is not None:
                    return *place, length, sizes
                budget = self._ledger.budget_bytes
                reasons.append(f"the budget of {budget:,} bytes for objects in memory is used")
        raise StoreFull(what, length, "; ".join(reasons))

    def _put(
        self,
        reserve: Callable[[int], tuple[int, int, int] | None],
        length: int,
        views: Sequence[memoryview],
    ) -> tuple[int, int] | None:
        """Arena and offset of what was written; None: the budget is used."""
        place = None
        written = False
        try:
            with self._lock:
                if self._closed:
                    raise OSError(errno.EBADF, "the session has ended")
                place = reserve(length)
                self._writing += place is not None
            if place is None:
                return None
            number, descriptor, offset = place
            _write_all(descriptor, views, offset)
            written = True
            return number, offset
        finally:
            if place is not None:
                with self._lock:
                    self._writing -= 1
                    if self._closed:
                        self._close_files()
                    elif not written:
                        self._take_back(place[0], place[2], length)

    def _reserve_in_memory(self, length: int) -> tuple[int, int, int] | None:
        for number, arena in self._in_memory.items():
            offset = arena.warm.take(length)
            if offset is not None:
                return number, arena.descriptor, offset
        if not self._ledger.grow(length):
            self._cool_all()
            if not self._ledger.grow(length):
                return None
        try:
            return self._reserve_cold(self._in_memory, length, ARENA_BYTES)
        except OSError:
            self._ledger.change(-length)
            raise

    def _reserve_on_disk(self, length: int) -> tuple[int, int, int]:
        return self._reserve_cold(self._on_disk, length, DISK_ARENA_BYTES)

    def _reserve_cold(
        self, arenas: dict[int, _Arena], length: int, usual: int
    ) -> tuple[int, int, int]:
        for number, arena in arenas.items():
            offset = arena.cold.take(length)
            if offset is not None:
                return number, arena.descriptor, offset
        # Above half an arena a value has its own, in steps of an eighth of its size so that
        # the next value of about the size finds it.
        size = usual
        if length > usual // 2:
            size = _round(length, max(PAGE, 1 << (length.bit_length() - 4)))
        # Never twice, also when nobody came to hear of it.
        self._count += 1
        number = self._first + self._count
        if arenas is self._on_disk:
            number += ON_DISK
            descriptor = platform.nameless_file(self._spill_directory, append=False)
        else:
            descriptor = self._memory_file(f"arena-{number}")
        try:
            self._announce(number, descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        arena = arenas[number] = _Arena(descriptor, size)
        offset = arena.cold.take(length)
        assert offset is not None
        return number, descriptor, offset

    def _memory_file(self, name: str) -> int:
        if self.pages is not None:
            with contextlib.suppress(OSError):  # a call has closed all descriptors
                return self.pages.file(name)
        return platform.memory_file(name)

    def free(self, number: int, offset: int, length: int) -> None:
        """Take back what `put` gave; no reader may have it mapped any more."""
        with self._lock:
            if self._closed:
                return
            if number & ON_DISK or self._ledger.tight:
                self._take_back(number, offset, length)
                return
            # Warm pages are worth keeping, but not all that a program ever used.
            self._in_memory[number].warm.give_back(offset, length)
            if sum(one.warm.free_bytes for one in self._in_memory.values()) > IDLE_ARENA_BYTES:
                self._cool_all()

    def _take_back(self, number: int, offset: int, length: int) -> None:
        if number & ON_DISK:
            self._on_disk[number].cool([(offset, length)])
        else:
            self._ledger.change(-self._in_memory[number].cool([(offset, length)]))

    def cool(self) -> None:
        """Give the memory that is kept for the next values back to the system."""
        with self._lock:
            if not self._closed:
                self._cool_all()

    def _cool_all(self) -> None:
        for arena in self._in_memory.values():
            self._ledger.change(-arena.cool(arena.warm.take_all()))

    def close(self) -> None:
        """Let go of all arenas; who still writes to one does so to its end."""
        with self._lock:
            self._closed = True
            self._close_files()

    def _close_files(self) -> None:
        if self._writing:
            return
        for arena in (*self._in_memory.values(), *self._on_disk.values()):
            os.close(arena.descriptor)
        self._in_memory.clear()
        self._on_disk.clear()
        if self.pages is not None:
            self.pages.close()
            self.pages = None


def _write_all(descriptor: int, views: Sequence[memoryview], start: int) -> None:
    position = start
    for view in views:
        write_all(descriptor, view, position)
        position += -(-view.nbytes // _ALIGN) * _ALIGN
    end = start + _round(position - start, PAGE)
    if position < end:
        # The last page must exist to its end, or reading it would be SIGBUS.
        os.pwrite(descriptor, b"\0", end - 1)


def _round(size: int, to: int) -> int:
    return max(to, -(-size // to) * to)


class Mapping:
    """One arena as this process sees it: mapped once, copy-on-write."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        # The file is as long as what was written so far, which `mmap` refuses to map: so it is
        # put in the place of a mapping of nothing.
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        platform.map_over(self.address, size, descriptor)

    def view(self, offset: int, length: int) -> ctypes.Array[ctypes.c_char]:
        """Bytes of a region, as an object whose life is that of all views and arrays on it."""
        return (ctypes.c_char * length).from_buffer(self._map, offset)

    def restore(self, offset: int, length: int) -> None:
        """Forget what was written to a region here: it shows the arena's bytes again."""
        self._map.madvise(mmap.MADV_DONTNEED, offset, length)

    def close(self) -> None:
        try:
            self._map.close()
        except BufferError:  # the program still holds an array: unmapped when that goes
            return


def split(view: Buffer, sizes: Sequence[int]) -> list[memoryview]:
    """The buffers of a region, over the object that `Mapping.view` gave."""
    whole = memoryview(view).cast("B")
    buffers = []
    position = 0
    for size in sizes:
        buffers.append(whole[position : position + size])
        position += -(-size // _ALIGN) * _ALIGN
    return buffers


def _copy_of(descriptor: int, offset: int, length: int) -> bytearray:
    data = bytearray(length)
    done = 0
    while done < length:
        done += os.preadv(descriptor, [memoryview(data)[done:]], offset + done)
    return data


def when_unused(view: object, callback: Callable[[object], object]) -> weakref.ref[object]:
    """Have ``callback`` called when nothing holds a region's bytes any more."""
    return weakref.ref(view, callback)


_UNUSED_COUNT: Final = 2
"""References to a view that no array is on: a dictionary's or variable's, and that of asking."""


class Inputs:
    """Large inputs, mapped; kept for the next calls as long as they are as they were sent."""

    def __init__(self, tell_unused: Callable[[int, int], None]) -> None:
        self._arenas: dict[int, tuple[int, int, Mapping | None]] = {}
        self.lock = threading.RLock()
        self._views: dict[
            tuple[int, int], ctypes.Array[ctypes.c_char]
        ] = {}  # least recently used first
        self._lengths: dict[tuple[int, int], int] = {}
        self._tell_unused = tell_unused
        self._dying: dict[tuple[int, int], object] = {}  # let go here, and held by the program
        self._copying: dict[tuple[int, int], int] = {}  # how many threads copy it just now
        self._faults = -1  # page faults of this process when all views were last known unwritten

    def add_arena(self, number: int, descriptor: int, size: int) -> None:
        self._arenas[number] = (descriptor, size, None)

    def _mapping(self, number: int) -> Mapping:
        descriptor, size, mapping = self._arenas[number]
        if mapping is None:
            mapping = Mapping(descriptor, size)
            self._arenas[number] = (descriptor, size, mapping)
        return mapping

    def buffers(self, value: Stored) -> list[memoryview]:
        """The parts of a stored value: shared until written to, and then this process's own."""
        with self.lock:
            return self._buffers(value)

    def _buffers(self, value: Stored) -> list[memoryview]:
        _, number, offset, length, sizes = value
        if not platform.LINUX:
            # Elsewhere `madvise` does not bring a written page back to what the file has.
            return split(self._copy(number, offset, length), sizes)
        key = (number, offset)
        view = self._views.pop(key, None)
        if view is None:
            if key in self._dying:
                return split(self._copy(number, offset, length), sizes)
            view = self._mapping(number).view(offset, length)
            self._lengths[key] = length
        elif sys.getrefcount(view) > _UNUSED_COUNT:
            self._views[key] = view
            return split(self._copy(number, offset, length), sizes)
        self._views[key] = view
        return split(view, sizes)

    def _copy(self, number: int, offset: int, length: int) -> bytearray:
        """A region's bytes once more: somebody here has it mapped, and may have written to it."""
        return _copy_of(self._arenas[number][0], offset, length)

    def lend(self, value: Stored) -> Callable[[], list[memoryview]]:
        """What gives the parts of a stored value, for good, once; to be called without a lock.

        ``tell_unused`` follows when they are freed, or copied.
        """
        _, number, offset, length, sizes = value
        key = (number, offset)
        with self.lock:
            in_use = key in self._dying or key in self._views
            if platform.LINUX and not in_use:
                parts = self._buffers(value)
                self._part(key)
                return lambda: parts
            descriptor = os.dup(self._arenas[number][0])
            self._copying[key] = self._copying.get(key, 0) + 1
        return lambda: self._lend_copy(key, descriptor, length, sizes)

    def _lend_copy(
        self, key: tuple[int, int], descriptor: int, length: int, sizes: Sequence[int]
    ) -> list[memoryview]:
        try:
            return split(_copy_of(descriptor, key[1], length), sizes)
        finally:
            os.close(descriptor)
            with self.lock:
                self._copying[key] -= 1
                if not self._copying[key]:
                    del self._copying[key]
                unused = not self.holds(key) and key[0] in self._arenas
            if unused:
                self._tell_unused(*key)

    def settle(self) -> None:
        """After a call: what it wrote to inputs is forgotten; what it still holds stays its own."""
        with self.lock:
            self._settle_all()

    def _settle_all(self) -> None:
        # To write to a shared page takes a page fault. Without one since the last look nothing was
        # written, and 65,536 pages need not be looked at, which takes 2 ms.
        written = platform.page_faults() != self._faults
        for key in list(self._views):
            self._settle(key, written)
        self._faults = platform.page_faults()
        while len(self._views) > 1 and sum(self._lengths.values()) > MAPPED_CACHE_BYTES:
            self._part(next(iter(self._views)))

    def _settle(self, key: tuple[int, int], written: bool) -> None:
        if sys.getrefcount(self._views[key]) > _UNUSED_COUNT:
            self._part(key)
            return
        number, offset = key
        if number & ON_DISK:
            self._part(key)  # its pages would count as memory of this process
            return
        length = self._lengths[key]
        if written and platform.has_own_pages(self._mapping(number).address + offset, length):
            self._mapping(number).restore(offset, length)

    def _part(self, key: tuple[int, int]) -> None:
        """Keep a mapping no longer; the driver hears of it when nobody here has it any more."""
        view = self._views.pop(key)
        length = self._lengths.pop(key)

        def unused(_: object, is_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
            if is_the_end():  # the names of modules may be gone, and nobody is there to be told
                return
            number, offset = key
            here = number in self._arenas
            if here:
                self._mapping(number).restore(offset, length)
            self._dying.pop(key, None)  # only now can it be mapped again
            if here:
                self._tell_unused(number, offset)

        self._dying[key] = when_unused(view, unused)

    def remove_arena(self, number: int) -> None:
        """Nothing in the arena is asked for any more."""
        _, _, mapping = self._arenas.pop(number)
        if mapping is not None:
            mapping.close()

    def close(self) -> None:
        """Unmap what no array of the program is on."""
        self._views.clear()
        for _, _, mapping in self._arenas.values():
            if mapping is not None:
                mapping.close()
        self._arenas.clear()

    def holds(self, key: tuple[int, int]) -> bool:
        """Whether this process reads a region, for its next calls or for the program."""
        return key in self._views or key in self._dying or key in self._copying

    def unmap(self, number: int, offset: int) -> None:
        """The driver wants the region back."""
        key = (number, offset)
        with self.lock:
            if key in self._views:
                self._part(key)
            elif key not in self._dying:
                self._tell_unused(number, offset)
