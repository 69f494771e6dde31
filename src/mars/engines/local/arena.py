"""Arenas: files in memory that hold large values, their space, and their mappings.

One process, the owner, allocates and writes; any process that has the descriptor maps. Mappings
are private copies-on-write: a reader sees the bytes without a copy, may write to them, and
nobody else sees that. Writes go through ``pwrite``, so a full machine is an error, never SIGBUS,
and regions that were freed are written again, which is several times faster than fresh memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import weakref
from bisect import insort
from collections.abc import Callable, Sequence
from typing import Any, Final

from mars import platform
from mars.errors import StoreFull
from mars.settings import ARENA_BYTES, IDLE_ARENA_BYTES, MAPPED_CACHE_BYTES

PAGE: Final = mmap.PAGESIZE
_ALIGN: Final = 64  # buffers begin on cache lines


Region = tuple[int, int, int, tuple[int, ...]]
"""Where a value's large parts are: arena, offset, length, and the size of each part in bytes.
A plain tuple, because millions of them cross between processes."""


class Space:
    """Which parts of one arena are free. Pure."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free: list[tuple[int, int]] = [(0, size)]  # offset, length; sorted, never adjacent

    def take(self, length: int) -> int | None:
        """Offset of ``length`` free bytes: the lowest that fits, whose pages are likely warm."""
        for index, (offset, available) in enumerate(self.free):
            if available >= length:
                if available == length:
                    del self.free[index]
                else:
                    self.free[index] = (offset + length, available - length)
                return offset
        return None

    def give_back(self, offset: int, length: int) -> None:
        """Free what `take` gave."""
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

    @property
    def empty(self) -> bool:
        return self.free == [(0, self.size)]


class Allocator:
    """The arenas that this process owns.

    ``announce`` is called with the number, descriptor and size of each new arena, before
    anything is written to it.
    """

    def __init__(self, first: int, step: int, announce: Callable[[int, int, int], None]) -> None:
        self._next = first
        self._step = step
        self._announce = announce
        self.arenas: dict[int, tuple[int, Space]] = {}

    def put(self, buffers: Sequence[Any], what: str) -> Region:
        """Copy buffers into an arena.

        Raises
        ------
        StoreFull
            The machine has no memory or descriptor left for them.
        """
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        sizes = tuple(view.nbytes for view in views)
        length = _round(sum(-(-size // _ALIGN) * _ALIGN for size in sizes), PAGE)
        try:
            number, descriptor, offset = self._reserve(length)
        except OSError as error:
            raise StoreFull(what, length, str(error)) from None
        position = offset
        try:
            for view in views:
                _write(descriptor, view, position)
                position += -(-view.nbytes // _ALIGN) * _ALIGN
            if position % PAGE:
                # The last page must exist to its end, or reading it would be SIGBUS.
                os.pwrite(descriptor, b"\0", _round(position, PAGE) - 1)
        except OSError as error:
            self.free(number, offset, length)
            raise StoreFull(what, length, str(error)) from None
        return number, offset, length, sizes

    def _reserve(self, length: int) -> tuple[int, int, int]:
        for number, (descriptor, space) in self.arenas.items():
            offset = space.take(length)
            if offset is not None:
                return number, descriptor, offset
        # Above half an arena a value has its own, in steps of an eighth of its size so that
        # the next value of about the size finds it.
        size = ARENA_BYTES
        if length > ARENA_BYTES // 2:
            step = max(PAGE, 1 << (length.bit_length() - 4))
            size = _round(length, step)
        number, self._next = self._next, self._next + self._step
        descriptor = platform.memory_file(f"arena-{number}")
        try:
            os.ftruncate(descriptor, size)
            self._announce(number, descriptor, size)
        except OSError:
            os.close(descriptor)
            raise
        space = Space(size)
        self.arenas[number] = (descriptor, space)
        offset = space.take(length)
        assert offset is not None
        return number, descriptor, offset

    def free(self, number: int, offset: int, length: int) -> None:
        """Take back what `put` gave; no reader may have it mapped any more."""
        descriptor, space = self.arenas[number]
        space.give_back(offset, length)
        if space.empty:
            idle = sum(space.size for _, space in self.arenas.values() if space.empty)
            if idle > IDLE_ARENA_BYTES:
                # Warm pages are worth keeping, but not all that a program ever used.
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, space.size)

    def close(self) -> None:
        for descriptor, _ in self.arenas.values():
            os.close(descriptor)
        self.arenas.clear()


def _write(descriptor: int, view: memoryview, position: int) -> None:
    done = 0
    while done < view.nbytes:
        done += os.pwrite(descriptor, view[done:], position + done)


def _round(size: int, to: int) -> int:
    return max(to, -(-size // to) * to)


class Mapping:
    """One arena as this process sees it: mapped once, copy-on-write."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._map = mmap.mmap(
            descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def view(self, offset: int, length: int) -> Any:
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


def split(view: Any, sizes: Sequence[int]) -> list[memoryview]:
    """The buffers of a region, over the object that `Mapping.view` gave."""
    whole = memoryview(view).cast("B")
    buffers = []
    position = 0
    for size in sizes:
        buffers.append(whole[position : position + size])
        position += -(-size // _ALIGN) * _ALIGN
    return buffers


def when_unused(view: Any, callback: Callable[[Any], object]) -> weakref.ref[Any]:
    """Have ``callback`` called when nothing holds a region's bytes any more."""
    return weakref.ref(view, callback)


Stored = tuple[Any, int, int, int, tuple[int, ...]]
"""A value with parts in an arena: its pickle (None: the first part is the pickle) and region."""

_UNUSED_COUNT: Final = 2
"""References to a view that no array is on: a dictionary's or variable's, and that of asking."""


class Inputs:
    """Large inputs, mapped; kept for the next calls as long as they are as they were sent."""

    def __init__(self, tell_unused: Callable[[int, int], None]) -> None:
        self._arenas: dict[int, tuple[int, int, Mapping | None]] = {}
        self.lock = threading.RLock()
        self._views: dict[tuple[int, int], Any] = {}  # least recently used first
        self._lengths: dict[tuple[int, int], int] = {}
        self._tell_unused = tell_unused
        self._dying: dict[tuple[int, int], Any] = {}  # let go here, and held by the program

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
        data = bytearray(length)
        done = 0
        while done < length:
            rest = memoryview(data)[done:]
            done += os.preadv(self._arenas[number][0], [rest], offset + done)
        return data

    def lend(self, value: Stored) -> list[memoryview]:
        """The parts of a stored value, for good: ``tell_unused`` follows when they are freed."""
        with self.lock:
            parts = self._buffers(value)
            if (value[1], value[2]) in self._views:
                self._part((value[1], value[2]))
            return parts

    def settle(self) -> None:
        """After a call: what it wrote to inputs is forgotten; what it still holds stays its own."""
        with self.lock:
            self._settle_all()

    def _settle_all(self) -> None:
        for key in list(self._views):
            self._settle(key)
        while len(self._views) > 1 and sum(self._lengths.values()) > MAPPED_CACHE_BYTES:
            self._part(next(iter(self._views)))

    def _settle(self, key: tuple[int, int]) -> None:
        if sys.getrefcount(self._views[key]) > _UNUSED_COUNT:
            self._part(key)
            return
        number, offset = key
        length = self._lengths[key]
        if platform.has_own_pages(self._mapping(number).address + offset, length):
            self._mapping(number).restore(offset, length)

    def _part(self, key: tuple[int, int]) -> None:
        """Keep a mapping no longer; the driver hears of it when nobody here has it any more."""
        view = self._views.pop(key)
        length = self._lengths.pop(key)

        def unused(_: Any) -> None:
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
        """Whether this process has a region mapped, for its next calls or for the program."""
        return key in self._views or key in self._dying

    def unmap(self, number: int, offset: int) -> None:
        """The driver wants the region back."""
        key = (number, offset)
        with self.lock:
            if key in self._views:
                self._part(key)
            elif key not in self._dying:
                self._tell_unused(number, offset)
