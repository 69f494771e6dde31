"""Which large values are where, who reads them, and when their memory can be used again.

A region is used again only when nobody can read it any more: the program has dropped it, no
call needs it, and every process that has it mapped has said that it let go. The loop's thread
changes the records; the program's threads read values, under the lock. Where workers are on nodes,
`Mirrors` has its say in what becomes of their arenas.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from mars import platform
from mars.attempt import codec
from mars.engine import Run
from mars.engines.wire.arena import Allocator, Inputs
from mars.engines.wire.large_pages import LargePages
from mars.engines.wire.ledger import Ledger
from mars.engines.wire.regions import ON_DISK, OWNER_SHIFT, Key, is_stored, parts_of
from mars.errors import SessionClosed, StoreFull
from mars.settings import IDLE_ARENA_S, INLINE_BYTES, SPARE_DESCRIPTORS
from mars.task import Call, Function, Task

if TYPE_CHECKING:
    from mars.calls.maps import MapCall
    from mars.engines.wire import regions
    from mars.engines.wire.regions import Result
    from mars.task import Buffer, Stored, Value

    _Shared = dict[tuple[int, int], tuple[Stored, object]]
    """What was stored for a run, by what it was made of, and that."""

_DRIVER: Final = 0
_NO_PLACE: Final = 0


class Region:
    """A region in use."""

    __slots__ = ("dropped", "length", "readers")

    def __init__(self, length: int) -> None:
        self.length = length
        self.readers: set[int] = set()  # processes that may have it mapped
        self.dropped = False  # nobody can ask for it any more


class _StoredFunction:
    """A large function that was stored, and who in the program still has it."""

    __slots__ = ("_holders", "_unheld", "value")

    def __init__(self, value: Stored, unheld: Callable[[bytes], None]) -> None:
        self.value = value
        self._unheld = unheld
        self._holders: dict[int, weakref.ref[Function]] = {}

    def hold(self, function: Function) -> None:
        """Keep it as long as this function is alive; there may be several equal ones."""
        known = self._holders.get(id(function))
        if known is None or known() is not function:
            key, unheld = function.key, self._unheld
            at_end = sys.is_finalizing  # of the program: the names of modules may be gone
            self._holders[id(function)] = weakref.ref(
                function, lambda _: None if at_end() else unheld(key)
            )

    def held(self) -> bool:
        """Whether anybody has it."""
        self._holders = {key: one for key, one in self._holders.items() if one() is not None}
        return bool(self._holders)


class _InSeries:
    """A value that runs of one series share, and how many of them have it."""

    __slots__ = ("runs", "value")

    def __init__(self, value: Stored) -> None:
        self.value, self.runs = value, 1


class Mirrors(Protocol):
    """What becomes of arenas that workers on nodes have made; called under the store's lock.

    On one machine there is none: then this process counts, and gives back, what they hold.
    """

    def noted(self, number: int, length: int) -> None:
        """A region of an arena is in use from here on."""

    def freed(self, key: Key, length: int) -> None:
        """A region is not in use any more."""

    def given_back(self, number: int, offset: int, length: int) -> None:
        """Nobody asks any more for a part of an arena whose maker has ended."""

    def removed(self, number: int) -> None:
        """Nobody asks any more for anything in an arena."""

    def unwanted(self, reader: int, key: Key) -> None:
        """A region was dropped while a reader that is no worker has it; see `Store.lent`."""

    def worker_ended(self, worker: int) -> None:
        """A worker has ended, and what is left of its arenas is known."""


class Store:
    """Large values of one engine.

    Parameters
    ----------
    wake : callable
        Runs something in the loop's thread.
    budget_bytes : int
        Memory that objects take, of all processes, until further ones go to disk.
    spill_directory : str
        Where they go then.
    mirrors : Mirrors, optional
        Of arenas on nodes, if workers are there.
    """

    def __init__(
        self,
        wake: Callable[[Callable[[], object]], object],
        budget_bytes: int,
        spill_directory: str,
        mirrors: Mirrors | None = None,
    ) -> None:
        self._wake = wake
        self._mirrors = mirrors
        self.ledger_descriptor = Ledger.new()
        try:
            self.ledger = Ledger(self.ledger_descriptor, _DRIVER, budget_bytes)
        except OSError:
            os.close(self.ledger_descriptor)
            raise
        self.spilled_bytes = 0  # of live objects on disk
        self.lock = threading.RLock()
        self._arenas: dict[int, tuple[int, int]] = {}
        self._live: dict[int, int] = {}  # regions in use, by arena
        self._regions: dict[Key, Region] = {}
        self._places: dict[int, int] = {}  # workers that may still write, and theirs in the ledger
        self._news: list[tuple[int, Key | None, tuple[int, int, int] | None]] = []
        self._own = Allocator(_DRIVER, self._announce, self.ledger, spill_directory)
        self._inputs = Inputs(self._returned)
        self._own_free: deque[tuple[int, int, int]] = deque()  # regions that nobody reads
        self.cool_at = math.inf  # when memory goes back that is kept for the next values
        self._functions: dict[bytes, _StoredFunction] = {}  # by key, as long as the program has it
        self._unheld_functions: deque[bytes] = deque()
        self._last_function = b""  # of those that the program has no more, and that are kept
        self.function_dropped: Callable[[bytes], object] = lambda _: None  # told of its key
        self._shared: dict[Run, _Shared] = {}
        # Of runs that share: each value, and how many of the runs have it.
        self._series: dict[object, dict[tuple[int, int], _InSeries]] = {}
        self._late: list[Run] = []
        self._returned_keys: deque[Key] = deque()
        self.closed = False

    # -- arenas -------------------------------------------------------------------------------

    def _announce(self, number: int, descriptor: int, size: int) -> None:
        # By the allocator, which holds its lock. So nobody asks it for anything who has ours.
        self.add_arena(number, os.dup(descriptor), size)

    def use_pages(self, descriptor: int) -> None:
        """Have this process's arenas made of large pages from here on."""
        with self.lock:
            if self.closed or self._own.pages is not None:  # of a zygote that has ended
                os.close(descriptor)
            else:
                self._own.pages = LargePages(descriptor)

    def worker_starts(self, worker: int) -> int:
        """A worker is about to start; where it is to count what its arenas take.

        Raises
        ------
        OSError
            There are too many.
        """
        # A node has a ledger of its own.
        place = self.ledger.open_place() if self._mirrors is None else _NO_PLACE
        with self.lock:
            self._places[worker] = place
        return place

    def lives(self, owner: int) -> bool:
        """Whether a process may still write to its arenas."""
        return owner == _DRIVER or owner in self._places

    def add_arena(self, number: int, descriptor: int, size: int) -> None:
        """An arena that a worker, or this process, has made."""
        with self.lock:
            if self.closed or not self.lives(number >> OWNER_SHIFT):
                # Its maker has ended: nobody will ask for what is there.
                if descriptor >= 0:
                    os.close(descriptor)
                return
            platform.have_descriptors(descriptor, SPARE_DESCRIPTORS)
            self._arenas[number] = (descriptor, size)
            self._live[number] = 0
            self._inputs.add_arena(number, descriptor, size)

    def give_descriptor(self, number: int, descriptor: int) -> None:
        """An arena that had no descriptor has one now."""
        size = self._arenas[number][1]
        self._arenas[number] = descriptor, size
        self._inputs.add_arena(number, descriptor, size)

    def has_arena(self, number: int) -> bool:
        """Whether an arena is there; the lock is held."""
        return number in self._arenas

    def has_arenas_of(self, owner: int) -> bool:
        """Whether an arena of a process is there; the lock is held."""
        return any(number >> OWNER_SHIFT == owner for number in self._arenas)

    def arena(self, number: int) -> tuple[int, int]:
        """Descriptor and size."""
        return self._arenas[number]

    def _region(self, value: Stored) -> Region:
        key = (value[1], value[2])
        region = self._regions.get(key)
        if region is None:
            region = self._regions[key] = Region(value[3])
            self._live[value[1]] += 1
            if value[1] & ON_DISK:
                self.spilled_bytes += value[3]
            if self._mirrors is not None:
                self._mirrors.noted(value[1], value[3])
        return region

    def lent(self, value: Stored, reader: int) -> None:
        """A worker is about to be told of a value; or another reader, which has no such number."""
        with self.lock:
            self._region(value).readers.add(reader)

    def let_go(self, key: Key, reader: int) -> None:
        """A reader has a region no more."""
        with self.lock:
            region = self._regions.get(key)
            if region is not None:
                region.readers.discard(reader)
                if region.dropped and not region.readers:
                    self._free(key, region)

    # -- arguments ----------------------------------------------------------------------------

    # Large parts are written in the thread that executes, and outside of the lock: the loop needs
    # the lock for the results of all other calls.

    def prepare(self, call: Call, run: Run) -> None:
        """Store the large parts of a call; in the thread that executes.

        Raises
        ------
        StoreFull
            There is no room for them.
        """
        if call.function.large:
            self.function(call.function, run)
        if call.stored is not None:
            for buffer in call.stored:
                self._share(buffer, run, f"an argument of {call.name}")

    def _shared_in(self, run: Run) -> _Shared:
        with self.lock:
            return self._shared.setdefault(run, {})

    def function(self, function: Function, run: Run) -> tuple[bytes | None, list[Stored] | None]:
        """A function as it is sent: its pickle, and its large parts as stored values."""
        if not function.large:
            return function.data, None
        what = f"the function {function.name}"
        if function.buffers:
            regions = [self._share(buffer, run, what) for buffer in function.buffers]
            return function.data or None, regions
        with self.lock:
            known = self._functions.get(function.key)
            if known is not None:
                known.hold(function)
                return None, [known.value]
        value = self._put(function.data, what)
        with self.lock:
            known = self._functions.get(function.key)
            if known is None:
                known = self._functions[function.key] = _StoredFunction(value, self._unheld)
            else:  # another thread was faster
                self._drop(value)
            known.hold(function)
            return None, [known.value]

    def _unheld(self, function: bytes) -> None:
        # Called when a function dies, in any thread at any time: only note it.
        self._unheld_functions.append(function)
        self._wake(self._drop_functions)

    def _drop_functions(self) -> None:
        """Give back functions of which the program has none any more, but for the last one.

        What is pickled at each `spawn` is a new function each time, most often equal to the last.
        """
        while self._unheld_functions and not self.closed:
            key = self._unheld_functions.popleft()
            if key != self._last_function:
                last, self._last_function = self._last_function, key
                self._drop_function(last)
                self.cool_at = time.monotonic() + IDLE_ARENA_S  # then this one goes, too

    def _drop_function(self, key: bytes) -> None:
        with self.lock:
            known = self._functions.get(key)
            if known is None or known.held():
                return
            del self._functions[key]
            self._drop(known.value)
        self.function_dropped(key)

    def arguments(self, call: Call, run: Run) -> tuple[bytes | None, list[Stored]]:
        """A call's arguments as they are sent: its pickle, and its large parts."""
        assert call.stored is not None
        regions = [self._share(buffer, run) for buffer in call.stored]
        return (None if call.stored[0] is call.payload else call.payload), regions

    def _share(self, buffer: Buffer | Stored, run: Run, what: str = "an argument") -> Stored:
        """Store a buffer once per run, however many of its calls have it as an argument."""
        shared = self._shared_in(run)
        whole: object = buffer
        size = 0
        if not isinstance(buffer, tuple):
            view = memoryview(buffer)
            whole, size = view.obj, 0 if view.obj is buffer else view.nbytes
        key = (id(whole), size)
        known = shared.get(key)
        if known is None:
            # The object stays alive with the entry, so its id stays its own.
            known = shared[key] = (self._put_in_series(buffer, run.series, key, what), whole)
        return known[0]

    def _put_in_series(
        self, buffer: Buffer | Stored, series: object | None, key: tuple[int, int], what: str
    ) -> Stored:
        """Store a buffer, unless another run of the same series has it now."""
        if series is None:
            return self._put(buffer, what)
        with self.lock:
            known = self._series.setdefault(series, {}).get(key)
            if known is not None:
                known.runs += 1
                return known.value
        value = self._put(buffer, what)
        with self.lock:
            self._series.setdefault(series, {})[key] = _InSeries(value)
        return value

    def _drop_shared(self, run: Run) -> None:
        """Give back what was stored for a run; the lock is held."""
        of_series = None if run.series is None else self._series.get(run.series)
        for key, (value, _) in self._shared.pop(run, {}).items():
            known = None if of_series is None else of_series[key]
            if known is not None:
                known.runs -= 1
                if known.runs:
                    continue
                assert of_series is not None
                del of_series[key]
            self._drop(value)
        if of_series is not None and not of_series:
            self._series.pop(run.series, None)

    def block_arguments(
        self, call: MapCall, indices: Sequence[int], run: Run
    ) -> bytes | tuple[bytes | None, list[Stored]]:
        """Arguments of a block of items: their pickle, or stored parts when it is large."""
        data, buffers = call.block(indices)
        if not buffers and len(data) <= 4 * INLINE_BYTES:
            return data
        what = f"items of {call.name}"
        regions = [self._share(buffer, run, what) for buffer in buffers]
        if len(data) <= INLINE_BYTES:
            return data, regions
        return None, [self._share(data, run, what), *regions]

    def _put(self, buffer: Buffer | Stored, what: str) -> Stored:
        if isinstance(buffer, tuple):  # a worker's: a nested call's argument
            return buffer
        return (None, *self.put((buffer,), what))

    def put(self, buffers: Sequence[Buffer], what: str = "a value") -> regions.Region:
        """Store the large parts of a value that this process has."""
        self._free_own()
        try:
            region = self._own.put(buffers, what)
        except (StoreFull, ValueError):
            if self.closed:  # meanwhile
                raise SessionClosed from None
            raise
        with self.lock:
            if self.closed:
                raise SessionClosed
            self._region((None, *region))
        return region

    def abandon(self, run: Run) -> None:
        """A run that never began: give back what was stored for it."""
        with self.lock:
            self._drop_shared(run)
        self._free_own()

    def run_ended(self, run: Run) -> None:
        """Give back what was stored for a run, once none of its calls can read it."""
        if not self._late and run not in self._shared and run.series is None:
            return  # as most often
        self._late.append(run)
        late, self._late = self._late, []
        for ended in late:
            if ended.remaining:
                self._late.append(ended)
                continue
            with self.lock:
                self._drop_shared(ended)

    # -- results ------------------------------------------------------------------------------

    def arrived(self, result: Result) -> None:
        """A worker has told of a result with large parts."""
        with self.lock:
            for value in parts_of(result):
                # Its maker may read it, too, for a call queued behind, and keep it mapped.
                owner = value[1] >> OWNER_SHIFT
                region = self._region(value)
                if self.lives(owner):
                    region.readers.add(owner)

    def discard(self, result: Result) -> None:
        """A result that nobody wants."""
        for value in parts_of(result):
            self._drop(value)

    def release(self, task: Task) -> None:
        """Nobody can ask for the results of a task any more."""
        values = stored_values(task)
        task.result = None
        for value in values:
            self._drop(value)

    def _drop(self, value: Stored) -> None:
        with self.lock:
            if value[1] not in self._live:
                return  # the arena has gone, with the worker or the node that had it
            region = self._region(value)
            region.dropped = True
            key = (value[1], value[2])
            if not region.readers:
                self._free(key, region)
            for reader in region.readers:
                if reader > _DRIVER:
                    self._news.append((reader, key, None))
                elif reader < _DRIVER and self._mirrors is not None:
                    self._mirrors.unwanted(reader, key)

    def unmapped(self, arena: int, offset: int, worker: int) -> None:
        """A process does not have the region mapped any more."""
        with self.lock:
            region = self._regions.get((arena, offset))
            if region is None:
                return
            if worker == _DRIVER:
                if self._inputs.holds((arena, offset)):
                    return  # fetched again meanwhile: another word follows
            elif not region.dropped:
                return  # it may have been lent again: it is asked once that is dropped
            region.readers.discard(worker)
            if region.dropped and not region.readers:
                self._free((arena, offset), region)

    def _free(self, key: Key, region: Region) -> None:
        if self._mirrors is not None:
            self._mirrors.freed(key, region.length)
        del self._regions[key]
        number = key[0]
        if number & ON_DISK:
            self.spilled_bytes -= region.length
        owner = number >> OWNER_SHIFT
        if owner == _DRIVER:
            self._own_free.append((number, key[1], region.length))
        elif owner not in self._places:
            self._live[number] -= 1
            if self._inherits(number):
                self.ledger.change(-region.length)
            if not self._live[number]:
                self._remove_arena(number)
            else:
                self._give_back(number, key[1], region.length)
            return
        else:
            self._news.append((owner, None, (number, key[1], region.length)))
        self._live[number] -= 1

    def _remove_arena(self, number: int) -> None:
        descriptor, _ = self._arenas.pop(number)
        del self._live[number]
        self._inputs.remove_arena(number)
        if descriptor >= 0:  # else the system has refused one
            os.close(descriptor)
        if self._mirrors is not None:
            self._mirrors.removed(number)

    def _inherits(self, number: int) -> bool:
        """Whether this process counts what an arena holds, as its maker has ended."""
        return self._mirrors is None and not number & ON_DISK

    def worker_ended(self, worker: int) -> None:
        """A worker reads nothing any more; what it wrote stays as long as it is asked for."""
        with self.lock:
            place = self._places.pop(worker, None)
            if place is None:
                return
            made = [number for number in self._arenas if number >> OWNER_SHIFT == worker]
            for number in filter(self._inherits, made):
                self.ledger.change(self.bytes_in(number))
            for key, region in list(self._regions.items()):
                if worker in region.readers:
                    region.readers.discard(worker)
                    if region.dropped and not region.readers:
                        self._free(key, region)
            for number in made:
                if self._live.get(number):
                    self._punch_around(number)
                elif number in self._arenas:
                    self._remove_arena(number)
            if self._mirrors is None:
                self.ledger.close_place(place)
            else:
                self._mirrors.worker_ended(worker)

    def bytes_in(self, number: int) -> int:
        """How much of an arena is in use."""
        return sum(length for _, length in self._regions_in(number))

    def _regions_in(self, number: int) -> list[tuple[int, int]]:
        """Offset and length of the regions in use of an arena, in order."""
        return sorted(
            (key[1], region.length) for key, region in self._regions.items() if key[0] == number
        )

    def _punch_around(self, number: int) -> None:
        """Give back what a dead worker's arena has beside its regions."""
        position = 0
        size = self._arenas[number][1]
        for offset, length in (*self._regions_in(number), (size, 0)):
            if offset > position:
                self._give_back(number, position, offset - position)
            position = offset + length

    def _give_back(self, number: int, offset: int, length: int) -> None:
        """Have the system take back what is behind a part of a dead worker's arena."""
        platform.punch(self._arenas[number][0], offset, length)
        if self._mirrors is not None:
            self._mirrors.given_back(number, offset, length)

    def _free_own(self) -> None:
        """Let regions of this process be written again; without the lock, see `_announce`."""
        while self._own_free:
            try:
                freed = self._own_free.popleft()
            except IndexError:  # another thread was faster
                return
            self._own.free(*freed)
            self.cool_at = time.monotonic() + IDLE_ARENA_S

    def cool(self) -> None:
        """Nothing has been freed for a while: give back what is kept for the next values."""
        last, self._last_function = self._last_function, b""
        self._drop_function(last)
        self._free_own()
        self.cool_at = math.inf
        self._own.cool()

    def take_news(self) -> list[tuple[int, Key | None, tuple[int, int, int] | None]]:
        """What workers have to be told: (worker, region to let go, region to write again)."""
        if self._own_free:
            self._free_own()
        if not self._news:
            return []
        with self.lock:
            news, self._news = self._news, []
        return news

    # -- telling ------------------------------------------------------------------------------

    def kept(self) -> list[tuple[int, Key, str, tuple[int, ...]]]:
        """Each region that somebody may still ask for: its length, its key, what of, its readers.

        What of is ``"argument"``, ``"function"`` or ``""``, which is most often a result.
        """
        with self.lock:
            what = {
                (value[1], value[2]): "argument"
                for shared in self._shared.values()
                for value, _ in shared.values()
            }
            for known in self._functions.values():
                what[known.value[1], known.value[2]] = "function"
            return [
                (region.length, key, what.get(key, ""), tuple(region.readers))
                for key, region in self._regions.items()
                if not region.dropped
            ]

    # -- reading ------------------------------------------------------------------------------

    def decode(self, value: Value) -> object:
        """A fresh object from a value, in any thread; large parts are shared until written to."""
        if isinstance(value, bytes):
            return codec.loads(value)
        data, parts = self.pickled(value)
        return codec.loads(data, buffers=parts)

    def pickled(self, value: Value) -> tuple[Buffer, Sequence[Buffer]]:
        """A value as its pickle and its large parts, in any thread."""
        if isinstance(value, bytes):
            return value, []
        with self.lock:
            if self.closed:
                raise SessionClosed
            self._region(value).readers.add(_DRIVER)
            lent = self._inputs.lend(value)
        # A copy, if there has to be one, is made without the lock.
        parts, data = lent(), value[0]
        return parts.pop(0) if data is None else data, parts

    def _returned(self, arena: int, offset: int) -> None:
        # Called when an array dies, in any thread at any time, even inside the lock's owner:
        # only note it.
        self._returned_keys.append((arena, offset))
        self._wake(self._take_returned)

    def _take_returned(self) -> None:
        while self._returned_keys:
            self.unmapped(*self._returned_keys.popleft(), _DRIVER)

    def close(self) -> None:
        """Let go of all memory that nobody reads."""
        with self.lock:
            self.closed = True
        self._own.close()  # without our lock, see `_announce`
        with self.lock:
            os.close(self.ledger_descriptor)
            self.ledger.close()
            self._inputs.close()
            for descriptor, _ in self._arenas.values():
                if descriptor >= 0:
                    os.close(descriptor)
            self._arenas.clear()
            self._regions.clear()
            self._shared.clear()


def stored_values(task: Task) -> list[Stored]:
    """The values of a task that have parts in an arena."""
    if task.parts is not None:
        return [part.result[0] for part in task.parts if part.stored]
    if not task.stored:
        return []
    values = (task.result,) if task.call.n_output is None else task.result
    return [value for value in values if is_stored(value)]
