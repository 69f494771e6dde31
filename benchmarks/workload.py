"""What the tasks do. Imported by every peer's workers, so it imports next to nothing.

numpy is imported where it is needed: a case about empty tasks must not pay for it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

PAGE_ITEMS = 512
"""float64 values in a page of 4 KiB: reading every 512th value touches every page once."""

LINE = "x" * 99
"""What a talking task prints: 100 bytes with its newline."""


def nothing(_item: object = None) -> None:
    """Do nothing: what remains is the runtime's own cost."""


def one(_item: object = None) -> int:
    """Return 1."""
    return 1


def waited(seconds: float) -> int:
    """Return 1 after a while, without work."""
    time.sleep(seconds)
    return 1


def increment(value: int) -> int:
    """One link of a chain."""
    return value + 1


def add(left: int, right: int) -> int:
    """Join two branches of a tree."""
    return left + right


def add_pair(pair: tuple[int, int]) -> int:
    """Join two branches, for runtimes whose `map` passes one argument."""
    return pair[0] + pair[1]


def total(values: Iterable[int]) -> int:
    """Add up a list: the wide end of a fan-in."""
    return sum(values)


def listing(count: int) -> list[int]:
    """Very many results of one call."""
    return list(range(count))


def talk(_item: object = None) -> None:
    """Print one line."""
    print(LINE)


def spin(seconds: float) -> None:
    """Use `seconds` of CPU time of this thread: a preempted task must not look efficient."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def node(seconds: float, *read: object) -> int:
    """One Task-Bench point: reads its inputs, computes for `seconds`, yields a small value."""
    if seconds:
        spin(seconds)
    return len(read)


def node_of(item: tuple[float, Sequence[object]]) -> int:
    """`node` with all its arguments in one, for runtimes whose `map` passes one argument."""
    return node(item[0], *item[1])


def points_inside(count: int, seed: int) -> int:
    """How many of `count` random points of the unit square lie in the circle."""
    import numpy as np

    points = np.random.default_rng(seed).random((2, count))
    return int(np.count_nonzero((points * points).sum(axis=0) < 1.0))


def points_inside_of(item: tuple[int, int]) -> int:
    """`points_inside` with one argument."""
    return points_inside(*item)


def filled(mib: int) -> Array:
    """An array of `mib` MiB whose pages have all been written (untouched zeros cost nothing)."""
    import numpy as np

    return np.full(mib * 1024 * 1024 // 8, 1.0)


def written(mib: int) -> int:
    """Make such an array and write it once to new shared memory, there until the process ends."""
    array = filled(mib)
    return os.pwrite(os.memfd_create("written"), memoryview(array), 0)


def touch(array: Array) -> float:
    """Read one value of every page."""
    return float(array[::PAGE_ITEMS].sum())


def touch_for(array: Array, _item: int) -> float:
    """`touch`, as one of many readers of the same array."""
    return touch(array)


def apply_all(func: Callable[..., Any], items: Sequence[object]) -> list[Any]:
    """One task that makes many calls: how runtimes without chunks are told to batch."""
    return [func(item) for item in items]


# -- arrays in named shared memory: what one does by hand with a plain pool ----------------------


@functools.lru_cache(maxsize=2)
def attached(name: str) -> tuple[object, Array]:
    """The segment and the array in it; kept, so that a worker maps each segment once."""
    from multiprocessing.shared_memory import SharedMemory

    import numpy as np

    segment = SharedMemory(name)
    return segment, np.ndarray(segment.size // 8, np.float64, segment.buf)


def touch_segment(name: str) -> float:
    """`touch` for an array in shared memory."""
    return touch(attached(name)[1])


def filled_segment(mib: int) -> str:
    """`filled`, written straight into a new segment whose name is returned."""
    from multiprocessing.shared_memory import SharedMemory

    import numpy as np

    segment = SharedMemory(create=True, size=mib * 1024 * 1024)
    np.ndarray(segment.size // 8, np.float64, segment.buf)[:] = 1.0
    name = segment.name
    _kept.append(segment)
    return name


_kept: list[object] = []
"""Segments stay open until their process ends; the driver removes their names."""


def remove_segment(name: str) -> None:
    """Take away the name of a segment; memory goes with the last process that has it open."""
    with contextlib.suppress(FileNotFoundError):  # or some process's resource tracker was first
        os.unlink(f"/dev/shm/{name}")


def same(value: object) -> object:
    """Hand the argument back."""
    return value
