"""What waits where, and until when: the queue of each worker, tasks that are ready, and timers.

These are parts of the scheduler's state, without its decisions. Pure.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any, Final

from mars.calls.options import CallSet, Options
from mars.settings import ALONE_CORES, STALE_TIMERS
from mars.task import Stage, Task, WorkerId


class WorkerState:
    """One worker process, as the scheduler sees it."""

    __slots__ = (
        "address", "asked", "blocked", "claim", "counted", "cpus", "devices", "due_at", "empty",
        "gpus", "group", "head", "head_at", "id", "idle_since", "kill_at", "lent", "load_s",
        "need", "queue", "ready", "reason", "resuming", "share", "stopping", "taking_back", "told",
        "usable", "watched", "where",
    )  # fmt: skip
    share: Group  # whose cores it claims: its own group, or the one that its devices are beside

    def __init__(self, number: WorkerId, group: int, address: str) -> None:
        self.id = number
        self.group = group
        self.address = address  # of its group
        self.where: tuple[str, int] = ("", 0)  # name of its node, and process id there
        self.ready = False  # False until its process has said so
        self.queue: deque[Task] = deque()  # the first one runs
        self.load_s = 0.0  # predicted work in the queue
        self.claim = 0.0  # cores it holds of its group; 0: the queue is empty, or it is blocked
        self.cpus = 0.0  # what each task in the queue asks for
        self.blocked = False
        self.resuming = False  # unblocked, and waits for its cores
        self.taking_back = False  # asked to give back tasks
        self.head = 0  # the attempt that runs, and since when it is known to
        self.head_at = 0.0
        self.due_at = 0.0  # when it should have told something
        self.asked = False  # asked to report since it last did
        self.told = 0  # the last attempt whose end it has told
        self.stopping = 0  # the attempt that was interrupted
        self.kill_at = 0.0  # when an interrupted attempt has had enough time; 0: never
        self.reason = ""  # why it was interrupted
        self.need = 0.0  # bytes of memory that the most demanding call of its queue needs
        self.watched = False  # a timer looks whether it is overdue
        self.empty = False  # counted in `Group.empty`
        self.usable = False  # counted in `Group.usable`
        self.counted: tuple[bool, float] | None = None  # how it is counted in `Group.taken`
        self.devices: tuple[int, ...] = ()  # GPUs of its group that it sees, for all its life
        self.gpus = 0.0  # what it holds of each of them, or how many whole ones
        self.idle_since = 0.0  # when it was first found to do nothing with them; 0: it does
        self.lent = False  # its call waits for nested ones, and others may have its devices


NOBODY: Final = WorkerState(WorkerId(0), -1, "")
"""Stands for a worker that nobody knows any more."""


class Taken:
    """What workers that have something queued need together, kept up to date as that changes."""

    __slots__ = ("finite", "running", "whole")

    def __init__(self) -> None:
        self.running = 0  # workers whose call is not blocked
        self.finite = 0.0  # bytes, of all that say how many
        self.whole = 0  # workers whose call needs all that there is

    def count(self, blocked: bool, need: float, change: int) -> None:
        """Add a worker, or take it away."""
        self.running += 0 if blocked else change
        if need == inf:
            self.whole += change
        else:
            self.finite += change * need

    @property
    def bytes(self) -> float:
        """All together."""
        return inf if self.whole else self.finite


def threads_beside(group: int) -> int:
    """The number of the group of threads beside a group of processes."""
    return -1 - 2 * group


def devices_beside(group: int) -> int:
    """The number of the group of workers with GPUs beside a group of processes."""
    return -2 - 2 * group


def place_of(group: int) -> int:
    """The number of the group of processes that is where a group is, such as on the same node."""
    return group if group >= 0 else (-1 - group) // 2


class Group:
    """Workers that share cores: one per ``n_worker``."""

    __slots__ = (
        "address", "careful", "closed", "cpus", "empty", "failed_starts", "free", "idle", "kept",
        "look_at", "memory", "number", "pause_until", "pool", "ready", "resuming", "share", "taken",
        "threads", "usable",
    )  # fmt: skip

    def __init__(
        self,
        address: str,
        cpus: float,
        memory: float | None = None,
        taken: Taken | None = None,
        threads: bool = False,
        *,
        number: int,
        ready: ReadyQueue,
    ) -> None:
        self.number = number
        self.ready = ready  # where its calls come from
        self.address = address
        self.cpus = cpus
        self.memory = memory  # bytes for running calls, on a node of its own; None: the engine's
        self.free = cpus
        self.resuming: deque[WorkerState] = deque()  # blocked, and could go on
        self.careful = False  # a worker could not start: from then on, start one at a time
        self.pause_until = 0.0  # no process is started before this time
        self.failed_starts = 0  # workers that have ended since one of them has finished a call
        self.closed = False  # too many have ended: nothing is expected until one is ready
        self.look_at = 0.0  # when tasks that were left to other groups are looked at again
        self.idle: dict[WorkerState, None] = {}  # could start something now
        self.empty = 0  # workers without a queue, those too that are being started
        self.usable = 0  # workers that are not blocked
        self.taken = taken or Taken()  # by calls that have to fit into the same memory
        # Its workers are threads of one process, and get the calls with ``threads=`` and no other.
        self.threads = threads
        # Its workers have GPUs, and get the calls with ``gpus=`` and no other. They claim cores of
        # `share`, the group of processes that they are beside, which keeps some for them if a call
        # waits for nothing but cores.
        self.pool: Pool | None = None
        self.share: Group = self
        self.kept = False


_EPS: Final = 1e-9
"""Shares are sums of floats."""


class Pool:
    """The GPUs of one group, and what of each is free.

    Parameters
    ----------
    names : sequence of str
        What ``CUDA_VISIBLE_DEVICES`` calls them.
    """

    __slots__ = ("free", "names")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.free = [1.0] * len(self.names)

    def find(self, gpus: float) -> tuple[int, ...]:
        """Where a call finds room: so many whole devices, or a part of one. Empty: nowhere."""
        if gpus >= 1:
            whole = [at for at, free in enumerate(self.free) if free >= 1 - _EPS]
            return tuple(whole[: int(gpus)]) if len(whole) >= gpus else ()
        # Where least is left of it, so that others stay whole.
        room = [(free, at) for at, free in enumerate(self.free) if free >= gpus - _EPS]
        return (min(room)[1],) if room else ()

    def has(self, devices: Sequence[int], gpus: float) -> bool:
        """Whether these very devices have room."""
        return all(self.free[at] >= min(gpus, 1) - _EPS for at in devices)

    def take(self, devices: Sequence[int], gpus: float) -> None:
        """Somebody holds them from now on."""
        for at in devices:
            self.free[at] -= min(gpus, 1)

    def give(self, devices: Sequence[int], gpus: float) -> None:
        """Somebody holds them no longer."""
        for at in devices:
            self.free[at] += min(gpus, 1)

    def copy(self) -> Pool:
        """Another one, to see what would be."""
        made = Pool(self.names)
        made.free[:] = self.free
        return made


_Shape = tuple[float, str | None, CallSet | None, bool, float]
"""What tells whether a worker may take a task: cores, the place, the set that it belongs to,
whether it runs in a thread, and its GPUs."""


class ReadyQueue:
    """Tasks that could start, by urgency, then by the cores and the place that they ask for.

    Attributes
    ----------
    devices : DeviceQueue or None
        Has those that ask for GPUs. What follows counts and finds the others.
    """

    devices: DeviceQueue | None

    def __init__(self, abandon: Callable[[Task], None]) -> None:
        self.count = 0
        self.threads = False  # whether calls for threads have come
        self.devices = None if isinstance(self, DeviceQueue) else DeviceQueue(abandon)
        self._abandon = abandon  # what to do with a task that no live run wants
        self._levels: dict[tuple[int, int], dict[_Shape, deque[Task]]] = {}
        self._order: list[tuple[int, int]] = []
        # Where the last task went. The next one most likely goes there, too.
        self._last_options: Options | None = None
        self._last_depth = 0
        self._last_shelf: deque[Task] = deque()

    def _shelf(self, task: Task) -> deque[Task]:
        options = task.call.options
        urgency = urgency_of(task)
        level = self._levels.get(urgency)
        if level is None:
            level = self._levels[urgency] = {}
            self._order = sorted(self._levels)
        shape = (cores_of(task), options.worker, options.in_set, in_thread(task), options.gpus)
        shelf = level.get(shape)
        if shelf is None:
            shelf = level[shape] = deque()
            self.threads |= shape[3]
            # The largest come first. Tasks that need several cores would starve behind small ones.
            self._levels[urgency] = dict(
                sorted(level.items(), key=lambda item: (-item[0][4], -item[0][0]))
            )
        return shelf

    def append(self, task: Task) -> None:
        options = task.call.options
        if options is not self._last_options or task.depth != self._last_depth:
            if options.gpus and self.devices is not None:
                self.devices.append(task)
                return
            self._last_shelf = self._shelf(task)
            self._last_options, self._last_depth = options, task.depth
        self._last_shelf.append(task)
        self.count += 1

    def push_front(self, task: Task) -> None:
        if self.devices is not None and task.call.options.gpus:
            self.devices.push_front(task)
            return
        self._shelf(task).appendleft(task)
        self.count += 1

    def shelf_for(
        self, group: Group, claimed: float | None, worker: WorkerState | None = None
    ) -> deque[Task] | None:
        """The shelf whose first task ``worker``, of ``group``, should take now.

        ``claimed`` is what the worker's queue already asks for, None when it is empty. If no
        worker is given, it is one that is still to be started.
        """
        for urgency in self._order:
            level = self._levels[urgency]
            for (cpus, address, in_set, threads, _), shelf in level.items():
                while shelf and not wanted(shelf[0]):
                    self._abandon(self.pop(shelf))
                if not shelf or (address is not None and address != group.address):
                    continue
                if threads is not group.threads:
                    continue
                if in_set is not None and not in_set.takes(worker):
                    continue  # as many of the set as may be are in flight elsewhere
                if claimed is not None:
                    if cpus == claimed:
                        return shelf
                    return None  # the worker must finish first what is of another shape
                if cpus <= group.free + _EPS:
                    return shelf
                if cpus <= group.cpus:
                    return None  # the cores that are free are kept for it
        self._tidy()
        return None

    def first(self) -> Task | None:
        """The most urgent task. Perhaps nobody wants it any more."""
        for urgency in self._order:
            for shelf in self._levels[urgency].values():
                if shelf:
                    return shelf[0]
        return None

    def has(self, task: Task) -> bool:
        """Whether the task is here; looks at all of its shelf."""
        if self.devices is not None and task.call.options.gpus:
            return self.devices.has(task)
        return task in self._shelf(task)

    def remove(self, task: Task) -> None:
        """Take out a task, if it is here."""
        if self.devices is not None and task.call.options.gpus:
            self.devices.remove(task)
            return
        try:
            self._shelf(task).remove(task)
        except ValueError:
            return
        self.count -= 1

    def drop_first(self, shelf: deque[Task]) -> None:
        """Drop the first task of a shelf, which must not start."""
        self._abandon(self.pop(shelf))

    def pop(self, shelf: deque[Task]) -> Task:
        self.count -= 1
        return shelf.popleft()

    def _tidy(self) -> None:
        empty = [key for key, level in self._levels.items() if not any(level.values())]
        for key in empty:
            del self._levels[key]
        if empty:
            self._order = sorted(self._levels)
            self._last_options = None

    def __iter__(self) -> Iterator[Task]:
        for urgency in self._order:
            for shelf in self._levels[urgency].values():
                yield from shelf
        if self.devices is not None:
            yield from self.devices


class DeviceQueue(ReadyQueue):
    """Tasks that ask for GPUs and could start; those that ask for most come first."""

    def shelves(
        self, group: Group, urgency: tuple[int, int] | None
    ) -> Iterator[tuple[float, float, CallSet | None, deque[Task]]]:
        """GPUs, cores, set and shelf of what a group could run, the most urgent first.

        ``urgency`` is that of the last one that counts; None: all of them.
        """
        assert group.pool is not None
        most = len(group.pool.names)
        for level_at in list(self._order):
            if urgency is not None and level_at > urgency:
                break
            for (cpus, address, in_set, _, gpus), shelf in list(self._levels[level_at].items()):
                while shelf and not wanted(shelf[0]):
                    self._abandon(self.pop(shelf))
                fits = cpus <= group.share.cpus + _EPS and gpus <= most
                if shelf and fits and address in (None, group.address):
                    yield gpus, cpus, in_set, shelf
        self._tidy()

    def shelf_for(
        self, group: Group, claimed: float | None, worker: WorkerState | None = None
    ) -> deque[Task] | None:
        """The shelf whose first task ``worker`` should take now: one that asks for what it has.

        Nothing is queued behind a call that has a GPU. Such calls take long, and a queue would hold
        devices that other workers could have.
        """
        if claimed is not None or worker is None:
            return None
        for gpus, cpus, in_set, shelf in self.shelves(group, None):
            fits = gpus == worker.gpus and cpus <= group.share.free + _EPS
            if fits and (in_set is None or in_set.takes(worker)):
                return shelf
        return None


def urgency_of(task: Task) -> tuple[int, int]:
    """What a queue sorts by; the smallest first."""
    return -task.call.options.priority, -task.depth


def serves(group: Group, task: Task) -> bool:
    """Whether a group has what a task asks for, if all of it were free."""
    options = task.call.options
    return (
        options.cpus <= group.cpus
        and group.threads is in_thread(task)
        and options.gpus <= (0 if group.pool is None else len(group.pool.names))
        and bool(options.gpus) is (group.pool is not None)
        and options.worker in (None, group.address)
        and (group.memory is None or (options.memory or 0) <= group.memory)
    )


def in_thread(task: Task) -> bool:
    """Whether a task is to run in a thread of a process, beside others.

    Once that process died under it, it runs in one of its own. So a call that ends its process
    again and again takes no other calls with it.
    """
    return task.call.options.threads > 0 and not task.deaths


def cores_of(task: Task) -> float:
    """What a task takes of its group: cores, or a part of a process of threads."""
    options = task.call.options
    if options.threads and task.deaths:
        return max(options.cpus, ALONE_CORES)
    return options.cpus


def wanted(task: Task) -> bool:
    """Whether a live run still needs the task."""
    for run in task.runs if task.source is None else task.source.runs:
        if run.live:
            return True
    return False


RETRY: Final = 0
"""A kind of timer: the pause before another attempt of a task is over."""

DEADLINE: Final = 1
"""A kind of timer: an attempt has had all its time."""

KILL: Final = 2
"""A kind of timer: an interrupted attempt has had enough time to end."""

OVERDUE: Final = 3
"""A kind of timer: workers should have told something."""

START: Final = 4
"""A kind of timer: work may be given out, or workers started, that had to wait until now."""


class Timers:
    """What waits for time to pass.

    Parameters
    ----------
    workers : dict
        The workers that are there; the scheduler changes it.

    Attributes
    ----------
    heap : list
        The soonest first. Each is a time, a number that makes it unique, its kind, an attempt, and
        a task, a worker, a list of workers or a group. A deadline holds the worker and not the
        task, because the task's result may be dropped long before.
    """

    __slots__ = ("_count", "_limit", "_watched", "_workers", "heap")

    def __init__(self, workers: dict[WorkerId, WorkerState]) -> None:
        self.heap: list[tuple[float, int, int, int, Any]] = []
        self._count = 0
        self._limit = STALE_TIMERS
        self._workers = workers
        # Workers that are looked at, by the moment. One event gives work to many workers, which are
        # then due at one moment: a timer for each moment costs less than one for each worker.
        self._watched: dict[float, list[WorkerState]] = {}

    def add(self, when: float, kind: int, attempt: int, about: Any) -> None:
        """Have `Tick` look at something at a time."""
        self._count += 1
        heapq.heappush(self.heap, (when, self._count, kind, attempt, about))
        if len(self.heap) > self._limit:
            # All of them are looked through now and then. Otherwise they would grow with the
            # number of calls that had an hour and took a millisecond.
            self.heap = [timer for timer in self.heap if self._matters(*timer[2:])]
            heapq.heapify(self.heap)
            self._watched = {timer[0]: timer[4] for timer in self.heap if timer[2] == OVERDUE}
            self._limit = max(STALE_TIMERS, 2 * len(self.heap))

    def watch(self, when: float, worker: WorkerState) -> None:
        """Have `Tick` look at a time whether a worker is overdue."""
        there = self._watched.get(when)
        if there is not None:
            there.append(worker)
            return
        self._watched[when] = there = [worker]
        self.add(when, OVERDUE, 0, there)

    def drop_watch(self, when: float) -> None:
        """Forget who is looked at at a time, because that time has come."""
        del self._watched[when]

    def _matters(self, kind: int, attempt: int, about: Any) -> bool:
        """Whether there will be something to do when a timer is due, for all that is known."""
        if kind == RETRY:
            return about.stage is Stage.RETRYING and bool(about.attempt == attempt)
        if kind == DEADLINE:
            return bool(about.queue) and bool(about.queue[0].attempt == attempt)
        if kind == KILL:
            return about.id in self._workers and bool(about.stopping == attempt)
        if kind == OVERDUE:
            return any(worker.id in self._workers for worker in about)
        return kind == START or about.id in self._workers
