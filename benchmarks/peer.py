"""What a peer can be asked, and how the larger shapes are built from that.

`Peer` builds every shape level by level: what one does with a pool whose arguments cannot be
unfinished calls. `GraphPeer` hands the whole graph over: its arguments may be other calls. An
adapter overrides a shape where its runtime has a better way of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks import workload

if TYPE_CHECKING:
    from benchmarks.workload import Array

Func = Callable[..., Any]
Levels = Sequence[Sequence[Sequence[int]]]
"""A Task-Bench graph: for each step, for each point, which points of the step before it reads."""


class Unsupported(Exception):
    """A peer has no way to do what was asked. Not a failure: a row of the table says so."""


class Peer(ABC):
    """A runtime with plain futures, on a fixed number of worker processes."""

    name: ClassVar[str]
    package: ClassVar[str | None] = None
    """Distribution whose version is recorded; None: part of Python."""
    module: ClassVar[str | None] = None
    """What must be importable; None: a module named as the distribution, or nothing."""
    import_line: ClassVar[str]
    """What a user's program imports."""
    first_result: ClassVar[str]
    """The shortest program that prints one result, as the runtime's own manual writes it."""

    workers: int = 0
    logs: bool = False
    """Bring what calls print to the user, where there is a choice. Set before `start`."""

    @abstractmethod
    def start(self, workers: int) -> None:
        """Bring up `workers` processes, as far as the runtime does that ahead of work."""

    @abstractmethod
    def stop(self) -> None:
        """End all that `start` began."""

    @abstractmethod
    def submit(self, func: Func, *args: object) -> object:
        """Describe or start one call."""

    @abstractmethod
    def gather(self, handles: Sequence[object]) -> list[Any]:
        """All results, in order."""

    @abstractmethod
    def map(self, func: Func, items: Sequence[object]) -> list[Any]:
        """All `func(item)`, batched in the runtime's best way."""

    def one_by_one(self, func: Func, items: Iterable[object]) -> list[Any]:
        """All `func(item)`, one task each."""
        return self.gather([self.submit(func, item) for item in items])

    def level(self, func: Func, items: Sequence[object]) -> list[Any]:
        """A few equal tasks that all must end before the next level starts."""
        return self.map(func, items)

    def chain(self, length: int) -> int:
        """`length` calls, each on the result of the one before."""
        value = 0
        for _ in range(length):
            value = self.gather([self.submit(workload.increment, value)])[0]
        return value

    def tree(self, leaves: int) -> int:
        """Sum `leaves` ones in pairs; `leaves` is a power of two."""
        values = self.map(workload.one, range(leaves))
        while len(values) > 1:
            values = self.map(workload.add_pair, list(zip(values[::2], values[1::2], strict=True)))
        return int(values[0])

    def fan_in(self, width: int) -> int:
        """`width` calls, and one that takes all their results."""
        values = self.map(workload.one, range(width))
        return int(self.gather([self.submit(workload.total, values)])[0])

    def fan_out(self, width: int) -> int:
        """One call, and `width` that each take its result."""
        value = self.gather([self.submit(workload.one)])[0]
        return sum(self.map(workload.increment, [value] * width))

    def outputs(self, count: int) -> list[int]:
        """One call with `count` results: a list, where a result cannot have a handle of its own."""
        return list(self.gather([self.submit(workload.listing, count)])[0])

    def share_put(self, array: Array, readers: int) -> list[float]:
        """`readers` calls on one large array of the driver."""
        return self.gather([self.submit(workload.touch_for, array, i) for i in range(readers)])

    def share_task(self, mib: int, readers: int) -> list[float]:
        """`readers` calls on one large array that a call has made."""
        return self.share_put(self.gather([self.submit(workload.filled, mib)])[0], readers)

    def grid(self, levels: Levels, seconds: float) -> None:
        """A Task-Bench graph whose every point computes for `seconds`."""
        if not any(inputs for level in levels for inputs in level):
            self.map(workload.node, [seconds for level in levels for _ in level])
            return
        before: list[Any] = []
        for level in levels:
            items = [(seconds, [before[point] for point in inputs]) for inputs in level]
            before = self.level(workload.node_of, items)

    def nested(self, depth: int) -> int:
        """Calls that start two calls each and wait for them, `depth` deep; the number of leaves."""
        raise Unsupported("a call cannot wait for calls on the same workers")


class SharesByHand(Peer):
    """Large arrays go through a segment of shared memory, made by hand.

    Pickling 256 MiB for each of 40 tasks takes half a minute, so nobody would do that twice.
    """

    def share_put(self, array: Array, readers: int) -> list[float]:
        from multiprocessing.shared_memory import SharedMemory

        import numpy as np

        segment = SharedMemory(create=True, size=array.nbytes)
        try:
            view = np.ndarray(array.shape, array.dtype, segment.buf)
            view[:] = array
            del view  # an exported buffer would keep the segment from closing
            return self.one_by_one(workload.touch_segment, [segment.name] * readers)
        finally:
            segment.close()
            segment.unlink()

    def share_task(self, mib: int, readers: int) -> list[float]:
        name = self.gather([self.submit(workload.filled_segment, mib)])[0]
        try:
            return self.one_by_one(workload.touch_segment, [name] * readers)
        finally:
            workload.remove_segment(name)


class PoolPeer(SharesByHand):
    """A plain pool: it has neither graphs nor a store."""


class GraphPeer(Peer):
    """A runtime whose calls take other calls as arguments."""

    def chain(self, length: int) -> int:
        handle: object = 0
        for _ in range(length):
            handle = self.submit(workload.increment, handle)
        return int(self.gather([handle])[0])

    def tree(self, leaves: int) -> int:
        handles = [self.submit(workload.one, i) for i in range(leaves)]
        while len(handles) > 1:
            pairs = zip(handles[::2], handles[1::2], strict=True)
            handles = [self.submit(workload.add, left, right) for left, right in pairs]
        return int(self.gather(handles)[0])

    def fan_in(self, width: int) -> int:
        handles = [self.submit(workload.one, i) for i in range(width)]
        return int(self.gather([self.submit(workload.total, handles)])[0])

    def fan_out(self, width: int) -> int:
        source = self.submit(workload.one)
        return sum(self.gather([self.submit(workload.increment, source) for _ in range(width)]))

    def share_task(self, mib: int, readers: int) -> list[float]:
        source = self.submit(workload.filled, mib)
        return self.gather([self.submit(workload.touch_for, source, i) for i in range(readers)])

    def grid(self, levels: Levels, seconds: float) -> None:
        before: list[object] = []
        every: list[object] = []
        for level in levels:
            before = [
                self.submit(workload.node, seconds, *[before[point] for point in inputs])
                for inputs in level
            ]
            every += before
        self.gather(every)

    def map(self, func: Func, items: Sequence[object]) -> list[Any]:
        """In blocks, by hand: what the manuals of runtimes without chunks advise."""
        size = max(1, len(items) // (4 * self.workers))
        blocks = [items[start : start + size] for start in range(0, len(items), size)]
        handles = [self.submit(workload.apply_all, func, block) for block in blocks]
        return [value for block in self.gather(handles) for value in block]
