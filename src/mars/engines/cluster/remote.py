"""The driver's view of nodes: workers elsewhere as the loop knows them, their logs and values.

A worker on a node is a `Member` without a process here: what the loop sends it goes through the
carrier, and what comes back is put where the loop looks. Logs and large values are kept here as
soon as they have come about: `RemoteMember.segment` is a copy of the log, and each arena on a
node has a *mirror* here, a file in which its values stand at the same places.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from mars import platform
from mars.attempt import failure
from mars.attempt.capture import Log, Segment
from mars.engine import Run
from mars.engines.cluster import carrier
from mars.engines.cluster.carrier import Carrier, File, Item
from mars.engines.cluster.clock import Clock
from mars.engines.cluster.line import Line
from mars.engines.cluster.logs import NodeLogs, WorkerLog
from mars.engines.cluster.pairs import Pairs
from mars.engines.cluster.whereabouts import Coming, Key, Lacking, Noted, Whereabouts
from mars.engines.local import events
from mars.engines.local.endings import FATAL
from mars.engines.local.loop import Loop
from mars.engines.local.pool import Member
from mars.engines.local.scheduler import Scheduler
from mars.engines.local.store import Store
from mars.engines.wire import messages
from mars.engines.wire.regions import ON_DISK, OWNER_SHIFT, parts_of
from mars.errors import MarsError, NoAvailableBand, StoreFull, WorkerDied
from mars.settings import (
    CALL_MEMORY_SHARE,
    CLOCK_S,
    FAR_PREFETCH_BELOW_S,
    FAR_ROOM_WAIT_S,
    NODE_WAIT_S,
    ROOM_WAIT_S,
    SHIP_BYTES_PER_S,
    SPARE_DESCRIPTORS,
)
from mars.task import TIMING, Stage, Task, WorkerId

_HOPS: Final = 2
"""Of a value that goes to another node by way of this process."""

_MOST_OF_BUDGET: Final = 0.9
"""Mirrors that come when this part of the budget is taken are files on disk."""


_OURS_TO_BEAR: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO,
                                  errno.EDQUOT, errno.EFBIG, errno.EINTR})  # fmt: skip
"""What the system says when it is this process that lacks something, not a node that has ended."""

_NONE: Final = -1
"""In place of a descriptor."""

_NOBODY_ASKED: Final[tuple[Task | None, int, Lacking, float]] = None, -1, Lacking(), 0

_TOLD_AFTER_S: Final = 1.0
"""A node that is lost is told of so much later, in seconds, or when a run ends. If Dask's scheduler
or Ray's head has ended, all nodes are lost until then, in any order, and it is not true that their
calls run elsewhere."""

_LOST_TOLD: Final = 8
"""Of lost nodes, how many errors name: with autoscaling there may be hundreds."""


class RemoteNode:
    """One node, as the driver knows it."""

    def __init__(self, name: str, index: int, facts: dict[str, Any], link: Carrier) -> None:
        self.name = name
        self.index = index  # of its group in the scheduler
        self.facts = facts
        self.address: str = facts["address"]
        self.cpus: float = facts["cpus"]
        self.memory: float = CALL_MEMORY_SHARE * facts["memory"]
        self.title = f"{facts['host']} ({self.address})"
        self.alive = True
        self.reason = ""
        # On a machine that they share nothing is copied between driver and node.
        self.kept = carrier.can_open(facts["file"])  # we open its arenas
        self.unreadable = False  # we could not open one
        self.reads: bool = facts["reads"]  # it opens ours
        self.stands_in(Whereabouts())
        self.arenas: set[int] = set()  # of others
        self._link = link
        self.line: Line | None = None  # instead of the link, if the node can be reached
        self.lost = False  # and the loop told of it
        self.clock = Clock()
        self.logs = NodeLogs()
        self._ask_clock_ns = 0  # when, at the earliest

    def stands_in(self, where: Whereabouts) -> None:
        """What it has is noted there together with what others have; it has nothing yet."""
        self.workers = Noted(where.makers, self, where)  # that are there, or whose arenas are
        # Regions of others that it has a copy of, or is sent one.
        self.held = Noted(where.holders, self, where)
        self.copies = Noted(where.copies, self, where)  # those that it got from another node
        self.coming = Coming(self, where)  # what it gets from which other node
        if self.reads:
            where.readers[self] = None

    def begin(self, line: Line | None) -> None:
        """Choose the way: what the node hears from first is the one that it uses, too."""
        if line is not None:
            try:
                line.start()
            except RuntimeError:  # no thread is left
                line.close()
                line = None
        self.line = line
        self.tell(carrier.HERE)
        if self.kept:
            self.tell(carrier.KEEP)

    def ask_clock(self) -> None:
        """Ask what its clock shows, unless that was done a short time ago."""
        now = time.monotonic_ns()
        if now >= self._ask_clock_ns:
            self._ask_clock_ns = now + int(CLOCK_S * 1e9)
            self.tell(carrier.ASK_CLOCK, now)

    def tell(self, *message: Any) -> None:
        """Send a message."""
        self.send(message)

    def send(self, item: Item) -> None:
        if not self.alive:
            return
        if self.line is not None:
            self.line.send((item,))
        else:
            self._link.send(self.name, item)

    def has(self, value: Any) -> bool:
        """Whether a value's region is there, or read where it is."""
        _, number, offset, _, _ = value
        made = number >> OWNER_SHIFT in self.workers
        return self.reads or made or (number, offset) in self.held

    def may_read_early(self, value: Any) -> bool:
        """Whether calls there may read a value that is not here yet."""
        _, number, offset, _, _ = value
        return number >> OWNER_SHIFT in self.workers or (number, offset) in self.copies

    def ship(self, value: Any, arena: tuple[int, int]) -> None:
        """Have it hold the region of a value, whose arena here has that descriptor and size."""
        _, number, offset, length, _ = value
        self.held.add((number, offset))
        self.arenas.add(number)
        descriptor, size = arena
        file = carrier.readable(descriptor, offset, length)  # as long as there is more to be read
        for part in carrier.parts(file, (carrier.BYTES, number, size), offset, length):
            self.send(part)

    def give_folder(self, descriptor: int) -> None:
        """Have it unpack the program's folder, before it starts a worker."""
        size = os.fstat(descriptor).st_size
        for part in carrier.parts(File(descriptor), (carrier.FOLDER, size), 0, size):
            self.send(part)


class _NoSocket:
    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """Nothing to close."""


class _Frames:
    """What has come from a worker and was not looked at: the `Inbox` of a remote member."""

    def __init__(self) -> None:
        self.came: list[tuple[bool, memoryview]] = []
        self.descriptors: list[int] = []

    def receive(self) -> bool:
        return False  # all that comes is put here

    def frames(self) -> list[tuple[bool, memoryview]]:
        came, self.came = self.came, []
        return came

    def close(self) -> None:
        self.came.clear()


class RemoteMember(Member):
    """A worker process on a node, as the loop holds it."""

    def __init__(self, number: int, node: RemoteNode) -> None:
        self.number = number
        self.node = node
        self.pid = 0
        self.data = self.control = _NoSocket()  # type: ignore[assignment]
        self.inbox = _Frames()  # type: ignore[assignment]
        self.segment: WorkerLog = node.logs.begin()
        self.pending = deque()
        self.functions, self.runs, self.arenas = set(), set(), set()
        self.surroundings = None
        self.over = ([], [])
        self.unmap, self.free = [], []
        self.open = True
        self.missed = self.leaving = False
        self.broken = ""
        self.starved = False
        self._running = (0, 0)

    @property
    def title(self) -> str:
        return f"{self.number} (pid {self.pid}) on node {self.node.title}"

    def printed(self, data: bytes, running: tuple[int, int]) -> OSError | None:
        """More of its log has come, and which attempt it belongs to; why it could not be kept."""
        self._running = running
        return self.segment.append(data)

    def running(self) -> tuple[int, int]:
        return self._running

    def unreported(self) -> bytes:
        return b""  # its node has looked

    def interrupt(self, attempt: int) -> None:
        self.node.tell(carrier.SIGNAL, self.number, signal.SIGINT, attempt)

    def signal(self, number: int) -> None:
        self.node.tell(carrier.SIGNAL, self.number, int(number), 0)

    def close(self) -> None:
        self.open = False


class RemotePool:
    """Stands where the loop has the zygote of one machine."""

    def __init__(self, link: Carrier) -> None:
        self._link = link
        self.nodes: list[RemoteNode] = []  # that are there
        self.where = Whereabouts()
        self._by_index: dict[int, RemoteNode] = {}
        self.pid = 1
        self.errors = Segment()
        self.socket, self._other_end = platform.socket_pair()  # nothing ever comes: nodes tell

    def complaint(self) -> str:
        return ""

    def node(self, index: int) -> RemoteNode | None:
        """The node of a group; None: it is lost."""
        return self._by_index.get(index)

    def add(self, node: RemoteNode) -> None:
        """A node is there."""
        node.stands_in(self.where)
        self.nodes.append(node)
        self._by_index[node.index] = node

    def has(self, node: RemoteNode) -> bool:
        """Whether a node is there."""
        return self._by_index.get(node.index) is node

    def remove(self, node: RemoteNode) -> None:
        """A node is lost; what it had is still known."""
        if self.has(node):
            self.nodes.remove(node)
            del self._by_index[node.index]

    def forget_all_of(self, node: RemoteNode) -> None:
        """Nobody asks any more what a lost node had."""
        for noted in (node.held, node.copies, node.workers):
            noted.forget()
        self.where.readers.pop(node, None)

    def stop(self) -> None:
        """End all nodes."""
        self.pid = 0
        for node in self.nodes:
            node.alive = False
        self._link.close()
        self.socket.close()
        self._other_end.close()

    def close(self) -> None:
        self.stop()
        self.errors.close()

    def forget(self) -> None:
        """In a child that the program forked."""
        self.pid = 0
        self.socket.close()
        self._other_end.close()


class _Coming:
    """A value on its way here, and to nodes that get each part as soon as it is here."""

    def __init__(self, size: int, number: int, start: int, length: int) -> None:
        self.start, self.end = start, start + length
        self._begin = (carrier.BYTES, number, size)
        self._file: File | None = None  # a descriptor, which few of them need
        self.position = start  # up to here it has come
        self.nodes: list[RemoteNode] = []

    def advance(self, begin: int, position: int) -> None:
        # Else it is sent once more, from another node; or a part before it could not be kept.
        if begin <= self.position < position:
            for node in self.nodes:
                self._send(node, self.position, position)
            self.position = position

    def pass_on(self, node: RemoteNode, descriptor: int) -> None:
        self._file = self._file or File(descriptor)
        self.nodes.append(node)
        self._send(node, self.start, self.position)

    def _send(self, node: RemoteNode, start: int, end: int) -> None:
        assert self._file is not None
        for part in carrier.parts(self._file, self._begin, start, end - start):
            node.send(part)


def _as_reader(node: RemoteNode) -> int:
    """A node among the processes that read a region, the others of which are workers."""
    return -1 - node.index


class RemoteStore(Store):
    """Large values of all nodes, of which this process has a mirror, or the arena itself."""

    def __init__(
        self, wake: Callable[[Callable[[], object]], None], budget_bytes: int, directory: str
    ) -> None:
        super().__init__(wake, budget_bytes, directory)
        self.directory = directory
        self.nodes: list[RemoteNode] = []
        self._opened: dict[int, RemoteNode] = {}  # arenas of nodes on this machine: no mirrors
        self._on_disk: set[int] = set()  # mirrors that are files on disk
        self._orphaned: set[int] = set()  # of the opened ones, those whose node is lost
        self._coming: dict[int, list[_Coming]] = {}  # by arena
        # Arenas that have no descriptor here yet, as the system refused it, and how to get one.
        self._absent: dict[int, Callable[[], int]] = {}
        # Parts of arenas whose bytes have come and could not be kept, in order, and why.
        self._unkept: dict[int, list[tuple[int, int]]] = {}
        self._trouble: dict[int, str] = {}

    def open(self, number: int, size: int, address: platform.FileAddress, node: RemoteNode) -> None:
        """An arena has come about on a node of this machine: nothing of it is copied.

        Raises
        ------
        OSError
            The node has ended.
        """
        with self._lock:
            try:
                there = self._add(number, size, lambda: platform.open_at(address))
            except OSError as error:
                if error.errno not in _OURS_TO_BEAR:
                    raise
                there = self._add_absent(number, size, lambda: platform.open_at(address), error)
            if there:
                self._opened[number] = node

    def mirror(self, number: int, size: int) -> None:
        """An arena has come about on a node."""

        def make() -> int:
            budget = self.ledger.budget_bytes
            on_disk = bool(number & ON_DISK) or self.ledger.total() > _MOST_OF_BUDGET * budget
            descriptor = platform.sized_file(
                size, f"mirror-{number}", on_disk=on_disk, directory=self.directory
            )
            if on_disk:
                self._on_disk.add(number)
            return descriptor

        with self._lock:
            try:
                self._add(number, size, make)
            except OSError as error:
                self._add_absent(number, size, make, error)

    def _add(self, number: int, size: int, make: Callable[[], int]) -> bool:
        """Whether an arena is there from here on."""
        if self._closed or not self._lives(number >> OWNER_SHIFT):
            return False  # its maker has ended: nobody will ask for what is there
        descriptor = make()
        if not platform.have_descriptors(descriptor, SPARE_DESCRIPTORS):
            os.close(descriptor)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.add_arena(number, descriptor, size)
        return True

    def _add_absent(self, number: int, size: int, make: Callable[[], int], error: OSError) -> bool:
        """The same of one without a descriptor, which the system has refused."""
        if not self._add(number, size, lambda: _NONE):
            return False
        self._absent[number], self._trouble[number] = make, platform.refusal(error)
        return True

    def _descriptor(self, number: int) -> int:
        """That of an arena; the lock is held.

        Raises
        ------
        OSError
            It has none, and the system still refuses one.
        """
        make = self._absent.get(number)
        if make is not None:
            descriptor, size = make(), self._arenas[number][1]
            del self._absent[number]
            self._arenas[number] = descriptor, size
            self._inputs.add_arena(number, descriptor, size)
        return self._arenas[number][0]

    def write(self, number: int, offset: int, data: bytes | memoryview) -> None:
        """A part of a value has come; if there is no room for it, `trouble` tells so."""
        begin, end = offset, offset + len(data)
        try:
            with self._lock:
                if number not in self._arenas:
                    return  # the engine has ended meanwhile
                descriptor = os.dup(self._descriptor(number))
            try:
                view = memoryview(data)
                while view:  # without the lock: a disk may be slow
                    done = os.pwrite(descriptor, view, offset)
                    offset += done
                    view = view[done:]
            finally:
                os.close(descriptor)
        except OSError as error:
            self._mark(number, begin, end, error)
            return
        if number in self._unkept:
            self._mark(number, begin, end, None)
        with self._lock:
            for coming in self._coming.get(number, ()):
                if coming.start < end <= coming.end:
                    coming.advance(begin, end)

    def _mark(self, number: int, begin: int, end: int, error: OSError | None) -> None:
        """A part of an arena could not be kept, or has come again and could."""
        with self._lock:
            if number not in self._arenas:
                return
            parts: list[tuple[int, int]] = []
            for first, last in self._unkept.pop(number, ()):
                parts += [(first, min(last, begin)), (max(first, end), last)]
            if error is not None:
                parts.append((begin, end))
                self._trouble[number] = platform.refusal(error)
            parts = sorted(part for part in parts if part[0] < part[1])
            if parts:
                self._unkept[number] = parts

    @property
    def is_short(self) -> bool:
        """Whether there is any value whose bytes are not all here."""
        return bool(self._unkept or self._absent)

    def trouble(self, value: Any) -> str:
        """Why the bytes of a value that have come are not all here; empty: they are."""
        _, number, offset, length, _ = value
        if number not in self._unkept and number not in self._absent:
            return ""
        with self._lock:
            if number in self._absent:
                try:
                    self._descriptor(number)
                except OSError as error:
                    return platform.refusal(error)
            unkept = self._unkept.get(number, ())
            if any(first < offset + length and offset < last for first, last in unkept):
                return self._trouble[number]
        return ""

    def expect(self, value: Any) -> None:
        """A value is on its way here, from its beginning to its end."""
        _, number, offset, length, _ = value
        with self._lock:
            coming = _Coming(self._arenas[number][1], number, offset, length)
            self._coming.setdefault(number, []).append(coming)

    def pass_on(self, value: Any, node: RemoteNode) -> None:
        """Have a node get a value while it comes here."""
        _, number, offset, _, _ = value
        with self._lock, contextlib.suppress(OSError):  # then it gets it once that is here
            for coming in self._coming.get(number, ()):
                if coming.start == offset:
                    coming.pass_on(node, self._descriptor(number))
            node.held.add((number, offset))  # once it has come: before, nobody there may read it
            node.arenas.add(number)

    def has_come(self, value: Any) -> None:
        """A value is here."""
        self._forget_coming(value[1], value[2])

    def get(self, value: Any, node: RemoteNode) -> None:
        """A node gets a value from another one: until it says how that ends, it is a reader."""
        self.lent(value, _as_reader(node))

    def got(self, key: Key, node: RemoteNode) -> None:
        """It has ended."""
        with self._lock:
            region = self._regions.get(key)
            if region is not None:
                region.readers.discard(_as_reader(node))
                if region.dropped and not region.readers:
                    self._free(key, region)

    def take_news(self) -> list[Any]:
        news = super().take_news()
        for node in self.nodes:
            if node.coming:
                for reader, key, _ in news:
                    if key is not None and reader == _as_reader(node) and key in node.coming:
                        node.tell(carrier.UNGET, *key)
        return news

    def _forget_coming(self, number: int, offset: int) -> _Coming | None:
        """What was known of a value that was on its way."""
        with self._lock:
            found = [one for one in self._coming.get(number, ()) if one.start == offset]
            for one in found:
                self._coming[number].remove(one)
                if not self._coming[number]:
                    del self._coming[number]
        return found[0] if found else None

    def close(self) -> None:
        super().close()
        self._coming.clear()

    # What an arena of a node holds is counted where it takes memory: by the node; and here, if
    # there is a mirror of it in memory, or if it is read where it is and its node is lost.

    def worker_starts(self, worker: int) -> int:
        self._places[worker] = 0  # its node has a ledger of its own
        return 0

    def _close_place(self, place: int) -> None:
        """It was none of our ledger."""

    def _counts(self, number: int) -> bool:
        """Whether this process counts what an arena of a node holds."""
        if number & ON_DISK or number in self._on_disk:
            return False
        return number not in self._opened or number in self._orphaned

    def node_lost(self, node: RemoteNode) -> None:
        """What is read where it is has nobody else now to count it."""
        with self._lock:
            for number, of in self._opened.items():
                if of is node and not number & ON_DISK and number not in self._orphaned:
                    self._orphaned.add(number)
                    self.ledger.change(sum(length for _, length in self._regions_in(number)))

    def worker_ended(self, worker: int) -> None:
        super().worker_ended(worker)
        self._forget_owner(worker)

    def _forget_owner(self, owner: int) -> None:
        """Of a worker that has ended nothing is left once its arenas are gone."""
        if not (self._lives(owner) or any(one >> OWNER_SHIFT == owner for one in self._arenas)):
            for node in self.nodes:
                node.workers.discard(owner)

    def _inherits(self, number: int) -> bool:
        return False  # whoever has counted it goes on with that

    def _region(self, value: Any) -> Any:
        known = (value[1], value[2]) in self._regions
        region = super()._region(value)
        if not known and value[1] >> OWNER_SHIFT and self._counts(value[1]):
            self.ledger.change(value[3])
        return region

    def _free(self, key: tuple[int, int], region: Any) -> None:
        number, offset = key
        coming = self._forget_coming(number, offset)
        if number in self._unkept:
            self._mark(number, offset, offset + region.length, None)
        owner = number >> OWNER_SHIFT
        if owner and self._counts(number):
            self.ledger.change(-region.length)
        if owner and self._lives(owner) and number not in self._opened:
            platform.punch(self._arenas[number][0], offset, region.length)
        for node in self.nodes:  # once a value, whatever reads it
            if key in node.held:
                partly = coming is not None and node in coming.nodes
                length = coming.position - offset if partly else region.length  # type: ignore[union-attr]
                node.held.discard(key)
                node.copies.discard(key)
                node.tell(carrier.FREED, number, offset, length)
        super()._free(key, region)

    def _give_back(self, number: int, offset: int, length: int) -> None:
        super()._give_back(number, offset, length)
        for node in self.nodes:
            if number >> OWNER_SHIFT in node.workers:
                node.tell(carrier.FREED, number, offset, length)

    def _remove_arena(self, number: int) -> None:
        super()._remove_arena(number)
        for about in (self._absent, self._unkept, self._trouble):
            about.pop(number, None)
        self._opened.pop(number, None)
        self._on_disk.discard(number)
        self._orphaned.discard(number)
        for node in self.nodes:
            if number in node.arenas or number >> OWNER_SHIFT in node.workers:
                node.arenas.discard(number)
                node.tell(carrier.GONE, number)
        self._forget_owner(number >> OWNER_SHIFT)


class RemoteLoop(Loop):
    """The loop, with workers on nodes.

    Parameters are those of `Loop`; ``changed`` is called, in the loop's thread, after a node
    has come or gone.
    """

    pool: RemotePool  # type: ignore[assignment]
    store: RemoteStore

    def __init__(
        self,
        groups: Sequence[tuple[str, float]],
        pool: Any,
        store: Any,
        memory: int,
        tell: Callable[[str], object],
        changed: Callable[[], object],
        lacks: Callable[[RemoteNode, int, Sequence[str]], object],
    ) -> None:
        super().__init__(groups, pool, store, memory, tell)
        self._changed = changed
        self.lacks = lacks  # called with what a node says of packages, in a thread of the carrier
        self._gone: MarsError | None = None
        # Attempts whose values come after what is told of them, and which node says so.
        self._early: dict[int, RemoteNode] = {}
        self._lost_at = 0.0  # the last of them
        self._give_up_at = 0.0  # when to look for calls that no node can run
        self._lost: deque[str] = deque(maxlen=_LOST_TOLD)  # nodes, and why
        # Attempts whose values were told of early, and for which there was no room as they came:
        # when they fail, and when their nodes are asked for them again.
        self._no_room: dict[int, tuple[float, float]] = {}
        self._told_logs = False
        self._untold: deque[tuple[float, str]] = deque()  # lines about lost nodes, and when to tell
        # For which task nodes were asked for last, when, and what came of it.
        self._lacking = _NOBODY_ASKED
        self._pairs = Pairs(lambda node, *key: self._got(node, key, 0, False))

    def _new_scheduler(
        self, groups: Sequence[tuple[str, float]], room: Callable[[], float]
    ) -> Scheduler:
        return Scheduler(groups, room, self._distance, FAR_PREFETCH_BELOW_S)

    def on(self, event: events.Event) -> None:
        self._lacking = _NOBODY_ASKED
        super().on(event)

    def _distance(self, task: Task, index: int) -> float:
        """How much longer large inputs take to a node than to the one that has most of them."""
        node = self.pool.node(index)
        if node is None:
            return math.inf  # it is lost
        where = self.pool.where
        about, changes, lacking, least = self._lacking
        if about is not task or changes != where.changes:
            lacking = where.lacking(
                (value[1] >> OWNER_SHIFT, (value[1], value[2]), value[3], source.early)
                for value, source in self._large_inputs(task)
            )
            pool = self.pool
            least = lacking.least(len(pool.nodes), pool.has, where.readers) if lacking.any else 0
            self._lacking = task, where.changes, lacking, least  # others are asked for next
        missing = lacking.bytes(node) if lacking.any else 0
        return missing if missing == math.inf else (missing - least) / SHIP_BYTES_PER_S

    @staticmethod
    def _large_inputs(task: Task) -> Iterator[tuple[Any, Task]]:
        for call, index in task.call.inputs:
            source = call.task_in(task.realm)
            if source is not None and source.stored and source.stage in (Stage.DONE, Stage.MADE):
                value = source.result if call.n_output is None else source.result[index]
                if type(value) is not bytes:
                    yield value, source

    def _fetch(self, node: RemoteNode, task: Task, work_s: float) -> None:
        """Have large inputs go to a node ahead of calls, if others would work longer than that.

        Or if nobody else has all of them, and this node lacks least.
        """
        inputs = [
            (value, source, self._way(source, value, node))
            for value, source in self._large_inputs(task)
            if not node.has(value) and (value[1], value[2]) not in node.coming
        ]
        size = sum(
            value[3] * (_HOPS if source.early and way is None else 1)
            for value, source, way in inputs
        )
        if work_s < size / SHIP_BYTES_PER_S and self._nearest(task) is not node:
            return
        for value, source, way in inputs:
            if way is not None:
                self._get(source.attempt, value, way, node)
            elif source.early:
                self._hurry(source)
                self.store.pass_on(value, node)
            else:
                node.ship(value, self.store.arena(value[1]))
        if node.reads:
            for value, source in self._large_inputs(task):
                if source.early and not node.may_read_early(value):
                    self._hurry(source)  # else its maker may keep it for `SPARED_S`

    def _hurry(self, source: Task) -> None:
        """Have a value that was told of early come now."""
        _, made_in = self.scheduler.made_in[source.attempt]
        self._tell_group(made_in, carrier.HURRY, source.attempt)

    def _tell_group(self, group: int, *message: Any) -> None:
        """Send a message to the node of a group, if that is there."""
        node = self.pool.node(group)
        if node is not None:
            node.tell(*message)

    def _nearest(self, task: Task) -> RemoteNode | None:
        """The node that lacks least of a task's inputs, if none can have it as things are."""
        worker = task.call.options.worker
        able = [one for one in self.pool.nodes if worker in (None, one.address)]
        if any(self._distance(task, one.index) < math.inf for one in able):
            return None
        lacking = dict.fromkeys(able, 0)
        for value, _ in self._large_inputs(task):
            for one in able:
                if not one.has(value) and (value[1], value[2]) not in one.coming:
                    lacking[one] += value[3]
        return min(able, key=lacking.__getitem__, default=None)

    def _way(self, source: Task, value: Any, node: RemoteNode) -> RemoteNode | None:
        """Which node another one can get a value from that is not here yet; None: from none."""
        if not source.early or node.line is None:
            return None
        _, number, offset, _, _ = value
        where = self.pool.where
        having = [
            one for one in where.may_read_early(number >> OWNER_SHIFT, (number, offset))
            if self.pool.has(one) and self._pairs.may_meet(one, node)
        ]  # fmt: skip
        return min(having, key=lambda one: where.sending.get(one, 0), default=None)

    def _get(self, attempt: int, value: Any, source: RemoteNode, node: RemoteNode) -> None:
        """Have a node get a value from another one."""
        _, number, offset, length, _ = value
        _, size = self.store.arena(number)
        self.store.get(value, node)
        node.coming.begin((number, offset), source)
        self._pairs.get(source, node, (attempt, number, size, offset, length))

    def _got(self, node: RemoteNode, key: Key, count: int, whole: bool) -> None:
        """A node has got a value from another one, or a part of it; in any case no more comes."""
        if not node.coming.end(key):
            return  # the node is lost
        if count:
            node.arenas.add(key[0])
        if whole:
            node.held.add(key)
            node.copies.add(key)
        elif count:
            node.tell(carrier.FREED, *key, count)
        self.store.got(key, node)
        self.collect_regions()
        self.on(events.Tick())  # it may begin what reads that; or it is to be had in another way

    # -- what nodes say; called in a thread of the carrier -------------------------------------

    def take_from(self, node: RemoteNode, received: Sequence[carrier.Message]) -> None:
        """Act on messages of a node, in their order."""
        if node.unreadable:
            return
        frames: list[carrier.Message] = []
        for message in received:
            kind = message[0]
            if kind == carrier.BYTES:
                self.store.write(message[1], message[3], message[4])
            elif kind == carrier.LACK:
                self.lacks(node, *message[1:])
            elif kind == carrier.CLOCK:
                node.clock.learn(message[1], message[2], time.monotonic_ns())
            elif kind == carrier.ARENA:
                number, size, address = message[2:]
                if address is None:
                    self.store.mirror(number, size)
                else:
                    try:
                        self.store.open(number, size, address, node)
                    except OSError as error:
                        # It has ended, most likely: what it said until here holds, no more.
                        node.unreadable = True
                        frames.append((carrier.BROKEN, f"its values cannot be read: {error}"))
                        break
                frames.append(message)
            else:
                frames.append(message)
        if frames:
            self.post(lambda: self._heard(node, frames))

    def _heard(self, node: RemoteNode, received: Sequence[carrier.Message]) -> None:
        for message in received:
            kind = message[0]
            if kind == carrier.BROKEN:
                self.node_left(node, message[1])
                continue
            if kind == carrier.GOT:
                self._got(node, message[1:3], *message[3:])
                continue
            if kind == carrier.OPENED:
                self._pairs.opened(*message[1:])
                continue
            if kind == carrier.PARTED:
                self._pairs.parted(message[1])
                continue
            if kind == carrier.EARLY:
                self._early.update(dict.fromkeys(message[1], node))
                continue
            if kind == carrier.ARRIVED:
                self._values_came(message[1])
                continue
            member: Any = self.members.get(message[1])
            if member is None:
                continue
            if kind == carrier.DATA:
                node.ask_clock()
                if not member.broken:
                    member.inbox.came.append((message[2], memoryview(message[3])))
                    self._take_frames(member)
                    if member.broken:
                        member.signal(signal.SIGKILL)
            elif kind == carrier.LOG:
                trouble = member.printed(message[2], message[3:5])
                if trouble is not None:
                    self._tell_logs(trouble)
            elif kind == carrier.ARENA:
                member.arenas.add(message[2])
            elif kind == carrier.STARTED:
                self._started(member, message[2], member.node.title)
                if member.missed:
                    member.signal(signal.SIGKILL)
            elif kind == carrier.ENDED:
                _, number, status, peak_kib, note, starved, attempt, start = message
                member.printed(b"", (attempt, start))
                member.starved = starved
                self._endings[number] = (member.pid, status, peak_kib, note)
                self._dead.append(member)

    # -- values and logs that this host has no room for ----------------------------------------

    def _values_came(self, attempts: Sequence[int]) -> None:
        """Values that were told of early are here, unless there was no room for them."""
        kept = []
        for attempt in attempts:
            task, _ = self.scheduler.made_in.get(attempt, (None, 0))
            if task is None:
                continue
            if self.store.trouble(task.result):
                now = time.monotonic()
                give_up, _ = self._no_room.get(attempt, (now + FAR_ROOM_WAIT_S, 0.0))
                self._no_room[attempt] = give_up, now + ROOM_WAIT_S
            else:
                self._no_room.pop(attempt, None)
                self.store.has_come(task.result)
                kept.append(attempt)
        if kept:
            self.on(events.Arrived(kept))

    def _look_for_room(self, now: float) -> None:
        """Have values sent again for which there was no room, or let their calls fail.

        Calls that have one of them in reach go on meanwhile, and may be all that wants it.
        """
        for attempt, (give_up, again) in list(self._no_room.items()):
            task, group = self.scheduler.made_in.get(attempt, (None, 0))
            if task is None:
                del self._no_room[attempt]
                continue
            reason = self.store.trouble(task.result)
            read = any(one.stage is Stage.ASSIGNED for one in task.dependents or ())
            if now >= give_up and reason and not read:
                del self._no_room[attempt]
                self.on(events.Unkept(attempt, self._no_room_for(task, task.result, reason)))
            elif now >= again:
                self._no_room[attempt] = give_up, now + ROOM_WAIT_S
                self._tell_group(group, carrier.HAND, attempt, *task.result[1:4])
                self._tell_group(group, carrier.HURRY, attempt)  # or the next try begins anew

    def _no_room_for(self, task: Task, value: Any, reason: str) -> bytes:
        """The failure of a task whose value cannot be kept here."""
        name = task.call.name
        return failure.encode_failure(self._full(f"the result of {name}", value, reason), call=name)

    def _full(self, what: str, value: Any, reason: str) -> StoreFull:
        return StoreFull(
            what, value[3], f"on the host of the program, in {self.store.directory}: {reason}"
        )

    def _refused(self, member: Member, outcome: events.Outcome) -> events.Outcome:
        """An outcome, or a failure in its place if its value cannot be kept here."""
        if not outcome.stored or not self.store.is_short:
            return outcome
        for value in parts_of(outcome.result):
            reason = self.store.trouble(value)
            state = self.scheduler.workers.get(WorkerId(member.number))
            task = next((one for one in (state.queue if state is not None else ())
                         if one.attempt == outcome.attempt), None)  # fmt: skip
            if reason and task is not None:
                self.store.discard(outcome.result)
                result = self._no_room_for(task, value, reason)
                return outcome._replace(status=FATAL, result=result, stored=False, failures=0)
        return outcome

    def _take(self, member: Member, message: tuple[Any, ...]) -> None:
        if message[0] == messages.SUBMIT and self.store.is_short:
            for value in carrier.stored_values_in(message):
                reason = self.store.trouble(value)
                if reason:
                    error = self._full("what a nested call is given", value, reason)
                    self.nested.refuse(member, message, error)
                    return
        super()._take(member, message)

    def _tell_logs(self, error: OSError) -> None:
        if not self._told_logs:
            self._told_logs = True
            self._tell(
                f"mars: no room for logs on the host of the program ({platform.refusal(error)}); "
                f"what calls print meanwhile is left out"
            )

    # -- nodes ---------------------------------------------------------------------------------

    def node_joined(self, node: RemoteNode) -> None:
        """A node can be used from here on."""
        if not node.alive:
            return  # it was lost before we began
        node.index = self.scheduler.add_group(node.address, node.cpus, node.memory)
        self.pool.add(node)
        self.store.nodes.append(node)
        self._learn_memory()
        self._changed()
        if self.members or self.runs:
            self.on(events.Tick())

    def start_on(self, nodes: Sequence[RemoteNode]) -> None:
        """The nodes that an engine begins with; before `start`."""
        for index, node in enumerate(nodes):
            node.index = index
            self.pool.add(node)
            self.store.nodes.append(node)
            self.scheduler.give_memory(index, node.memory)
        self._learn_memory()

    def _learn_memory(self) -> None:
        memory = [node.memory for node in self.pool.nodes]
        self.scheduler.admission.most = max(memory, default=math.inf)

    def node_left(self, node: RemoteNode, reason: str) -> None:
        """A node is lost: its workers have ended, for all that we can know."""
        if not node.alive:
            return
        node.alive = False
        node.reason = reason
        self.pool.remove(node)
        if node in self.store.nodes:
            self.store.nodes.remove(node)
        self._lost.append(f"{node.address} ({reason})")
        self._lost_at = time.monotonic()
        self.store.node_lost(node)
        if node.line is not None:
            node.line.close()
        handed = self._hand_on(node)
        self.on(events.Lost(node.index, lambda task: self._lost_value(node, task), handed))
        for key in list(node.coming):
            node.coming.end(key)
            self.store.got(key, node)
        self.pool.forget_all_of(node)
        self._pairs.lost(node)
        self._last_words.pop(node.index, None)
        self._told_closed.pop(node.index, None)
        self._early = {attempt: one for attempt, one in self._early.items() if one is not node}
        for member in self.members.values():
            if member.node is node and member not in self._dead:  # type: ignore[attr-defined]
                note = f"its node {node.title} was lost: {reason}"
                self._endings[member.number] = (member.pid, signal.SIGKILL, 0, note)
                self._assume_begun(member)  # type: ignore[arg-type]
                self._dead.append(member)
        self._learn_memory()
        self._changed()
        if self._gone is None:
            line = f"mars: node {node.title} was lost ({reason}); its calls run elsewhere"
            self._untold.append((self._lost_at + _TOLD_AFTER_S, line))

    def _lost_value(self, node: RemoteNode, task: Task) -> bytes:
        """The failure of a task that had ended, but whose value had not come here."""
        error = WorkerDied(
            task.call.name,
            f"on node {node.title}",
            "its node",
            task.tries + task.deaths,
            f"its value had not come yet when the node was lost: {node.reason}",
        )
        return failure.encode_failure(error, call=task.call.name)

    def _hand_on(self, lost: RemoteNode) -> dict[int, int]:
        """Have values that a lost node has made sent by others that have them, by attempt."""
        handed = {}
        for task, made_in in self.scheduler.made_in.values():
            if made_in != lost.index:
                continue
            _, number, offset, length, _ = task.result
            for node in self.pool.where.copies.get((number, offset), ()):
                if self.pool.has(node):
                    node.tell(carrier.HAND, task.attempt, number, offset, length)
                    handed[task.attempt] = node.index
                    break
        return handed

    def _assume_begun(self, member: RemoteMember) -> None:
        """Nobody can say any more what a worker had begun since we heard of it last.

        Its first call, for certain; and of those behind it any that must not run twice.
        """
        state = self.scheduler.workers.get(WorkerId(member.number))
        if state is None or not state.queue:
            return
        once = [task for task in state.queue if not task.call.options.death_retries]
        last = once[-1] if once else state.queue[0]
        known, start = member.running()
        end = member.segment.size()
        for task in state.queue:
            if task.attempt == known and task is not last:
                task.logs = (*task.logs, Log(member.segment, start, end))
        if last.attempt != known:
            member.printed(b"", (last.attempt, end))

    def cluster_ended(self, error: MarsError) -> None:
        """No node is left, and none will come: end what runs, and what comes later, with that."""
        self._gone = error
        self._untold.clear()  # the error says it all
        self._fail(error)
        for node in list(self.pool.nodes):
            self.node_left(node, "the cluster is gone")

    def submit(self, run: Run, tasks: Sequence[Task]) -> None:
        """Begin a run; without a cluster it ends at once."""
        super().submit(run, tasks)
        if self._gone is not None:
            self._fail(self._gone)

    def _has_to_look(self) -> bool:
        return bool(self._untold) or super()._has_to_look()

    def _end_all(self) -> None:
        super()._end_all()
        self._tell_of_losses(math.inf)

    def _run_ended(self, run: Run) -> None:
        self._tell_of_losses(math.inf)  # who waits for it goes on, and has a right to know
        super()._run_ended(run)

    def _tell_of_losses(self, until: float) -> None:
        while self._untold and self._untold[0][0] <= until:
            self._tell(self._untold.popleft()[1])

    def _look(self, now: float) -> None:
        super()._look(now)
        if self._no_room:
            self._look_for_room(now)
        self._tell_of_losses(now)
        if now >= self._give_up_at and (self._lost or not self.pool.nodes):
            self._give_up_at = now + NODE_WAIT_S / 10
            self._give_up_waiting(now - NODE_WAIT_S)

    def _give_up_waiting(self, since: float) -> None:
        """Runs with calls that no node could run ``since`` then do not wait for ever."""
        if self._lost_at > since:
            return
        groups = [group for group in self.scheduler.groups.values() if not group.closed]
        for task in list(self.scheduler.ready):
            options = task.call.options
            if task.ready_at > since or any(
                options.cpus <= group.cpus
                and options.worker in (None, group.address)
                and (options.memory or 0) <= (group.memory or 0)
                for group in groups
            ):
                continue
            self._fail_runs(task, _unschedulable(task, self._lost))

    def _outcomes(self, member: Member, data: memoryview) -> list[events.Outcome]:
        told = []
        ahead = member.node.clock.ahead_ns  # type: ignore[attr-defined]
        for outcome in super()._outcomes(member, data):
            if ahead and outcome.timing is not None:
                moments = (moment - ahead for moment in TIMING.unpack(outcome.timing))
                outcome = outcome._replace(timing=TIMING.pack(*moments))
            if self._early.pop(outcome.attempt, None) is not None:
                self.store.expect(outcome.result)
                outcome = outcome._replace(early=True)
            else:
                outcome = self._refused(member, outcome)
            told.append(outcome)
        return told

    def _title(self, group: int) -> str:
        node = self.pool.node(group)
        return f"node {node.title}" if node is not None else super()._title(group)

    def _closed(self, number: int) -> None:
        group = self.scheduler.groups[number]
        why = [*self._last_words.get(number, ())][-1:] or ["no worker process starts"]
        self._lost.append(f"{group.address} (closed: {why[0]})")
        self._lost_at = time.monotonic()
        super()._closed(number)

    def _starved(self, member: Member) -> bool:
        return bool(member.starved) and not member.broken  # type: ignore[attr-defined]

    # -- workers -------------------------------------------------------------------------------

    def _carry_out_rare(self, command: events.Command) -> None:
        if isinstance(command, events.Unneeded):
            self._tell_group(command.group, carrier.DROP, command.attempt)
        elif isinstance(command, events.Fetch):
            node = self.pool.node(command.group)
            if node is not None:
                self._fetch(node, command.task, command.work_s)
        elif isinstance(command, events.Needed):
            self._tell_group(command.group, carrier.HURRY, command.attempt)
        else:
            super()._carry_out_rare(command)

    def _start_worker(self, command: events.StartWorker) -> None:
        node = self.pool.node(command.group)
        if node is None:  # it was lost just now
            self.post(lambda: self.on(events.Died(command.worker, 0)))
            return
        node.ask_clock()  # its answer is here before anything that the worker says
        try:
            member = RemoteMember(command.worker, node)
        except OSError as error:
            self._note_words(command.group, f"no descriptor left: {platform.refusal(error)}")
            self.post(lambda: self.on(events.Died(command.worker, 0, unable=True)))
            return
        self.members[command.worker] = member
        self._segments.add(member.segment)
        self.store.worker_starts(command.worker)
        node.workers.add(member.number)
        node.tell(
            carrier.FORK,
            member.number,
            {
                "address": node.address,
                "addresses": [one.address for one in self.pool.nodes],
                "n_cpu": sum(one.cpus for one in self.pool.nodes),
            },
        )

    def send(
        self, member: Member, message: tuple[Any, ...], descriptors: Sequence[int] = ()
    ) -> None:
        if member.open:
            content = pickle.dumps(message, 5)
            member.node.tell(carrier.DATA, member.number, False, content)  # type: ignore[attr-defined]

    def _assign(self, command: events.Assign) -> None:
        try:
            super()._assign(command)
        except OSError:  # a value cannot be read here: the worker has not got what it was to get
            member = self.members.get(command.worker)
            if member is not None:
                self._unreachable(member)

    def _tell_control(self, member: Member, *message: Any) -> None:
        content = pickle.dumps(message, 5)
        member.node.tell(carrier.CONTROL, member.number, content)  # type: ignore[attr-defined]

    def lend(self, member: Member, value: Any) -> None:
        number = value[1]
        arena = self.store.arena(number)
        node: RemoteNode = member.node  # type: ignore[attr-defined]
        self.store.lent(value, member.number)
        if not node.has(value):
            node.ship(value, arena)
        if number not in member.arenas:
            member.arenas.add(number)
            address = None
            if node.reads and number >> OWNER_SHIFT not in node.workers:
                address = platform.file_address(arena[0])
                node.arenas.add(number)
            node.tell(carrier.LEND, member.number, number, arena[1], address)


def _unschedulable(task: Task, lost: Iterable[str]) -> NoAvailableBand:
    options = task.call.options
    wish = f"cpus={options.cpus:g}"
    if options.memory is not None:
        wish += f", memory={options.memory:,}"
    if options.worker is not None:
        wish += f", expect_worker={options.worker!r}"
    gone = ", ".join(lost)
    return NoAvailableBand(
        f"{task.call.name} asks for {wish}, which no node has any more, and none has come within "
        f"{NODE_WAIT_S:g} s; lost: {gone}; what was finished stays, execute() runs the rest"
    )


__all__ = ["RemoteLoop", "RemoteMember", "RemoteNode", "RemotePool", "RemoteStore"]
