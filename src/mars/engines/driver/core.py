"""What the scheduler knows: workers, their groups, tasks that are ready, timers and estimates.

`Core` is the one state object. The modules beside it are functions over it: `reactor` changes it
by what an event says, with `consequences`, `early` and `blocks`; then `placement` gives out work.
`move` is the only place in the scheduler that changes the stage of a task. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from math import inf
from typing import Final

from mars.engines.driver.estimates import Admission, Estimates
from mars.engines.driver.events import (
    Command,
    Interrupt,
    Landed,
    RunState,
    StartWorker,
    StopWorker,
    TakeBack,
)
from mars.engines.driver.queues import (
    KILL,
    START,
    Group,
    Pool,
    ReadyQueue,
    Taken,
    Timers,
    WorkerState,
    cores_of,
    devices_beside,
    in_thread,
    place_of,
    threads_beside,
)
from mars.observe.attempts import Attempts
from mars.settings import BACKOFF_S, BATCH_S, CANCEL_GRACE_S, OVERDUE_S, START_PAUSE_S
from mars.task import AttemptId, Stage, Task, WorkerId

WAITING, READY, ASSIGNED, RETRYING = Stage.WAITING, Stage.READY, Stage.ASSIGNED, Stage.RETRYING
MADE = Stage.MADE
DONE, FAILED, CANCELLED, ABANDONED = Stage.DONE, Stage.FAILED, Stage.CANCELLED, Stage.ABANDONED

ARROWS: Final = frozenset(
    {
        (WAITING, READY),  # all inputs are done
        (WAITING, ASSIGNED),  # queued behind its inputs, in the same worker
        (WAITING, FAILED),  # an input failed
        (WAITING, ABANDONED),  # no live run wants it
        (WAITING, CANCELLED),
        (READY, ASSIGNED),
        (READY, WAITING),  # an input has to be made again
        (READY, FAILED),
        (READY, ABANDONED),
        (READY, CANCELLED),
        (READY, DONE),  # a map, whose blocks are what runs; FAILED when items failed
        (ASSIGNED, MADE),  # done, but for its value, which is on its way here
        (MADE, DONE),
        (MADE, RETRYING),  # its node was lost before
        (MADE, FAILED),
        (MADE, ABANDONED),
        (MADE, CANCELLED),
        (ASSIGNED, DONE),
        (ASSIGNED, FAILED),
        (ASSIGNED, CANCELLED),
        (ASSIGNED, READY),  # taken back, or its worker died before it started
        (ASSIGNED, WAITING),  # taken back together with an input
        (ASSIGNED, RETRYING),  # an exception or a death, with attempts left
        (ASSIGNED, ABANDONED),  # taken back, and no live run wants it any more
        (RETRYING, READY),  # the pause is over
        (RETRYING, WAITING),  # and an input, whose result was lost too, is not there yet
        (RETRYING, FAILED),  # or never will be
        (RETRYING, ABANDONED),
        (RETRYING, CANCELLED),
    }
)
"""Every legal step of a task. `DONE`, `FAILED`, `CANCELLED` and `ABANDONED` are final."""

_NEXT: Final = tuple(
    [frozenset([after for before, after in ARROWS if before is stage]) for stage in Stage]
)
"""For each stage the stages that may follow it."""


class IllegalMove(RuntimeError):
    """A task was about to make a step that is not in `ARROWS`. This is a bug of the scheduler."""

    def __init__(self, task: str, before: str, after: str) -> None:
        super().__init__(task, before, after)
        self.task, self.before, self.after = task, before, after

    def __str__(self) -> str:
        return f"{self.task} cannot go from {self.before} to {self.after}: this is a bug of mars"


def move(task: Task, to: Stage) -> None:
    """Let a task enter another stage.

    Raises
    ------
    IllegalMove
        No arrow leads there from the stage that the task is in.
    """
    before = task.stage
    if to not in _NEXT[before]:
        raise IllegalMove(task.call.name, before.name, to.name)
    if before is ASSIGNED:
        in_set = task.call.options.in_set
        if in_set is not None:
            in_set.leaves(task)
    task.stage = to


def backoff_s(number: int) -> float:
    """How long to wait before the next attempt, after so many that ended badly, seconds."""
    return BACKOFF_S[min(number, len(BACKOFF_S)) - 1]


class Core:
    """The state of one scheduler.

    Parameters
    ----------
    groups : sequence of (str, float)
        Address and cores of each group of workers.
    room : callable
        Gives the bytes that running calls may take together now.
    distance : callable or None
        Gives, for a ready task and the number of a group, how many seconds longer its inputs take
        to this group than to the one that has most of them. None: all groups have all inputs.
    prefetch_below_s : float
        A call that is predicted to take longer is not sent ahead, seconds.
    abandon : callable
        What to do with a task in the ready queue that no live run wants.
    """

    __slots__ = (
        "admission", "attempts", "blocked", "changed", "commands", "counts_memory", "deep",
        "device_groups", "distance", "ended", "estimates", "groups", "holders", "hungry", "idle",
        "idle_workers", "lost_groups", "made_in", "next_group", "next_worker", "nobody", "ready",
        "releases", "resuming", "roomy", "sent_at", "taken", "thread_groups", "timers", "workers",
    )  # fmt: skip

    def __init__(
        self,
        groups: Sequence[tuple[str, float]],
        room: Callable[[], float],
        distance: Callable[[Task, int], float] | None,
        prefetch_below_s: float,
        abandon: Callable[[Core, Task], None],
    ) -> None:
        self.admission = Admission(room)
        self.estimates = Estimates(prefetch_below_s)
        self.distance = distance
        self.groups: dict[int, Group] = {}  # by number, which is never used again
        # The groups that decisions look for. They are kept up to date as workers change, so that
        # no event costs a look at all groups.
        self.idle: dict[int, Group] = {}  # with workers that have nothing to do
        self.roomy: dict[int, Group] = {}  # with cores that are free
        self.resuming: dict[int, Group] = {}  # with workers that wait for their cores
        self.lost_groups: list[int] = []  # of which workers are left
        self.idle_workers = 0
        self.counts_memory = False  # whether some call has needed any
        self.taken = Taken()  # by calls of all groups that share the memory of this machine
        self.thread_groups = False  # whether there are groups of threads
        self.ready = ReadyQueue(lambda task: abandon(self, task))
        self.next_group = 0
        for address, cpus in groups:
            self.add_group(address, cpus)
        self.device_groups: dict[int, Group] = {}  # by number, those whose workers have GPUs
        # Processes that have GPUs, until they have ended: only then others may have them.
        self.holders: dict[WorkerId, WorkerState] = {}
        self.workers: dict[WorkerId, WorkerState] = {}
        self.next_worker = 0
        self.blocked = 0  # workers whose call waits for nested calls
        # The workers that decisions look for, kept up to date by `sort` for the same reason.
        self.changed: dict[WorkerState, None] = {}  # since the last `sort`
        self.hungry: dict[WorkerState, None] = {}  # run something, and have room for more
        self.deep: dict[WorkerState, None] = {}  # have something queued behind what runs
        self.timers = Timers(self.workers)
        self.attempts = 0  # number of the last one
        self.ended = Attempts()
        self.nobody: RunState | None = None  # the run of calls that the program has cancelled
        self.sent_at = -1.0  # when a task was sent last
        self.made_in: dict[int, tuple[Task, int]] = {}  # what is MADE, and in which group
        self.commands: list[Command] = []  # of the event that is being handled
        self.releases: list[Task] = []  # results that are given back at its end

    def add_group(self, address: str, cpus: float, memory: float | None = None) -> int:
        """Have a further group of workers, which share so many cores. Returns its number."""
        number = self.next_group
        self.next_group += 1
        taken = self.taken if memory is None else Taken()
        group = Group(address, cpus, memory, taken, number=number, ready=self.ready)
        self.groups[number] = self.roomy[number] = group
        if self.thread_groups:
            self._add_threads_beside(number, group)
        return number

    def add_thread_groups(self) -> None:
        """Have a group of threads beside each group of processes, for calls with ``threads=``.

        A call with ``threads=n`` takes the n-th part of what such a group has. The cores are those
        of the processes: calls that wait need none.
        """
        self.thread_groups = True
        for number, group in [*self.groups.items()]:
            if group.cpus:  # else it is lost
                self._add_threads_beside(number, group)

    def _add_threads_beside(self, number: int, group: Group) -> None:
        beside = threads_beside(number)
        made = Group(
            group.address, 1.0, group.memory, group.taken, threads=True,
            number=beside, ready=self.ready,
        )  # fmt: skip
        self.groups[beside] = self.roomy[beside] = made

    def add_devices(self, number: int, names: Sequence[str]) -> None:
        """Have a group of workers with GPUs beside a group of processes, for calls with ``gpus=``.

        Each of its workers sees the same devices for all its life.
        """
        group = self.groups.get(number)
        beside = devices_beside(number)
        if group is None or not group.cpus or not names or beside in self.groups:
            return
        assert self.ready.devices is not None
        made = Group(
            group.address, group.cpus, group.memory, group.taken,
            number=beside, ready=self.ready.devices,
        )  # fmt: skip
        made.pool, made.share, made.free = (
            Pool(names),
            group,
            0.0,
        )  # its cores are those of the other
        self.groups[beside] = self.device_groups[beside] = made

    def give_memory(self, number: int, memory: float) -> None:
        """A group has memory of its own, on a node; before any of its workers is started."""
        group = self.groups[number]
        group.memory, group.taken = memory, Taken()

    def forget_groups(self) -> None:
        """Forget groups that were lost, once the deaths of all their workers have been told."""
        there = {place_of(worker.group) for worker in self.workers.values()}
        for number in self.lost_groups:
            if place_of(number) not in there:
                del self.groups[number]
                for some in (self.idle, self.roomy, self.resuming, self.device_groups):
                    some.pop(number, None)
        self.lost_groups = [number for number in self.lost_groups if place_of(number) in there]

    def start_worker(self, group: int) -> WorkerId:
        """Have a process started for a new worker of a group. Returns the worker's id."""
        self.next_worker += 1
        worker = WorkerState(WorkerId(self.next_worker), group, self.groups[group].address)
        worker.share = self.groups[group].share
        self.workers[worker.id] = worker
        self.ended.workers[worker.id] = [worker, None, None]
        self.changed[worker] = None
        self.sort()
        self.commands.append(StartWorker(worker.id, group))
        return worker.id

    def start_with(self, group: Group, devices: tuple[int, ...], gpus: float) -> None:
        """Have a process started that sees some GPUs of a group."""
        assert group.pool is not None
        group.pool.take(devices, gpus)
        worker = self.workers[self.start_worker(group.number)]
        worker.devices, worker.gpus = devices, gpus
        self.holders[worker.id] = worker

    def stop(self, worker: WorkerState) -> None:
        """Have the process of a worker that does nothing end."""
        del self.workers[worker.id]
        self.changed[worker] = None
        self.sort()
        self.commands.append(StopWorker(worker.id))

    def let_go_of_devices(self, number: WorkerId) -> None:
        """A process has ended: what it had of GPUs is free."""
        holder = self.holders.pop(number, None)
        group = None if holder is None else self.groups.get(holder.group)
        if holder is not None and group is not None and group.pool is not None and not holder.lent:
            group.pool.give(holder.devices, holder.gpus)

    def pause_starts(self, group: Group, now: float) -> None:
        """Start no worker of a group for a moment."""
        group.pause_until = now + START_PAUSE_S
        self.timers.add(group.pause_until, START, 0, group)

    def is_idle(self, worker: WorkerState) -> bool:
        """Whether a worker could start something now; it may be long gone, and its group too."""
        group = self.groups.get(worker.group)
        return group is not None and worker in group.idle

    def note_near(self, task: Task, source: Task) -> None:
        """An input of a task is queued in a worker, so the task may be queued behind it."""
        worker = source.worker
        task.last_near = source.attempt
        if task.home is worker:
            task.near += 1
        else:
            # Inputs queued in another worker are no longer counted: `near` may be too small,
            # never too large, and a task that is not sent ahead is sent when it is ready.
            task.home, task.near = worker, 1

    def queue(self, worker: WorkerState, task: Task, now: float) -> None:
        """Begin a new attempt of a task: put it at the end of a worker's queue."""
        self.attempts += 1
        task.attempt = self.attempts
        move(task, ASSIGNED)
        in_set = task.call.options.in_set
        if in_set is not None:
            in_set.enters(task, worker)
        task.worker = worker
        task.sent_at = now
        if now != self.sent_at:  # what one event gives out is sent at one moment
            self.sent_at = now
            self.ended.sent(self.attempts, now)
        task.home = worker
        worker.queue.append(task)
        for dependent in task.dependents or ():
            self.note_near(dependent, task)

    def unqueue(self, task: Task) -> None:
        """Take a task that ends with its input out of the queue that it waits in.

        The worker returns it unstarted. By then it is not the current attempt of any task.
        """
        worker, task.worker = task.worker, None
        if task not in worker.queue:
            return  # the queue is about to be given back as a whole
        self.changed[worker] = None
        ran = worker.queue[0] is task  # on a lost node, with the input that it had read early
        worker.queue.remove(task)
        worker.load_s -= self.estimates.predict(task)
        if ran and worker.blocked:
            self.unblock(worker)
        if worker.stopping == task.attempt:
            worker.stopping, worker.kill_at, worker.reason = 0, 0.0, ""
        if not worker.queue:
            worker.share.free += worker.claim
            worker.claim = worker.load_s = 0.0

    def settle(self, worker: WorkerState, now: float) -> None:
        """Bring a worker up to date after its queue changed: what runs now, and until when."""
        self.changed[worker] = None
        worker.asked = False
        queue = worker.queue
        if worker.stopping and (not queue or queue[0].attempt != worker.stopping):
            worker.stopping, worker.kill_at, worker.reason = 0, 0.0, ""
        if queue:
            self.expect(worker, now)
            if not worker.stopping and queue[0].cancelled:
                # It began before we could take it back, or while we thought that another one runs.
                self.interrupt(worker, queue[0], "cancel", now + CANCEL_GRACE_S)
        else:
            worker.load_s = 0.0
            if worker.blocked:  # what waits is a thread that a call has left behind
                self.unblock(worker)
            if worker.claim:
                worker.share.free += worker.claim
                worker.claim = 0.0

    def expect(self, worker: WorkerState, now: float) -> None:
        """A worker begins with the first call of its queue: when it should tell something."""
        head = worker.queue[0]
        if head.attempt != worker.head:
            worker.head, worker.head_at = head.attempt, now
            in_set = head.call.options.in_set
            if in_set is not None:
                in_set.begins(head)
        worker.due_at = now + self.estimates.predict(head)
        if not worker.watched:
            worker.watched = True
            self.timers.watch(worker.due_at + OVERDUE_S, worker)

    def unblock(self, worker: WorkerState) -> None:
        """A call that waited for nested calls has ended without them, such as by its timeout."""
        worker.blocked = worker.resuming = False
        self.blocked -= 1
        if worker.queue:
            # The worker begins with the next call already, whether cores are free or not.
            worker.claim = worker.cpus
            worker.share.free -= worker.claim

    def interrupt(self, worker: WorkerState, task: Task, reason: str, kill_at: float) -> None:
        """Stop the call that a worker runs, and kill the worker if that takes too long."""
        worker.stopping = task.attempt
        worker.reason = reason
        worker.kill_at = kill_at
        self.timers.add(kill_at, KILL, task.attempt, worker)
        self.changed[worker] = None
        self.commands.append(Interrupt(worker.id, AttemptId(task.attempt)))
        if len(worker.queue) > 1 and not worker.taking_back:
            # Nothing else may begin there: a SIGKILL that has to follow would hit it.
            self.take_back(worker, len(worker.queue) - 1)

    def take_back(self, worker: WorkerState, count: int) -> None:
        """Ask a worker for the last calls of its queue."""
        worker.taking_back = True
        self.changed[worker] = None
        self.commands.append(TakeBack(worker.id, count))

    def land(self, run: RunState, task: Task) -> None:
        """Tell a run that keeps its results of one."""
        task.call.handles += 1  # given back by whoever keeps the result
        self.commands.append(Landed(run, task))

    def sort(self) -> None:
        """Bring the sets of workers and groups up to date with the workers that changed."""
        changed = self.changed
        if not changed:
            return
        self.changed = {}
        workers, some_hungry, some_deep = self.workers, self.hungry, self.deep
        for worker in changed:
            number = worker.group
            group = self.groups[number]
            depth = len(worker.queue)
            here = worker.id in workers
            usable = here and not worker.blocked
            could = usable and not (worker.taking_back or worker.stopping or worker.resuming)
            idle = could and worker.ready and not depth
            if idle is not (worker in group.idle):
                self.count_idle(worker, group, 1 if idle else -1)
            if (
                could
                and group.pool is None
                and (depth == 1 or (depth > 1 and worker.load_s < BATCH_S / 2))
            ):
                some_hungry[worker] = None
            elif worker in some_hungry:
                del some_hungry[worker]
            if depth > 1 and usable and not worker.taking_back:
                some_deep[worker] = None
            elif worker in some_deep:
                del some_deep[worker]
            empty = here and not depth
            if empty is not worker.empty:
                worker.empty = empty
                group.empty += 1 if empty else -1
            if usable is not worker.usable:
                worker.usable = usable
                group.usable += 1 if usable else -1
            if self.counts_memory:
                self.count_memory(worker)
            if group.share is not group:
                group = group.share
                number = group.number
            if group.free > 1e-9:
                self.roomy[number] = group
            elif number in self.roomy:
                del self.roomy[number]

    def count_memory(self, worker: WorkerState) -> None:
        """Keep up to date what the calls of a group need, by what one of its workers has."""
        counted = worker.counted
        if not worker.queue or worker.id not in self.workers:
            now = None
        elif counted is not None and counted[1] == worker.need and counted[0] is worker.blocked:
            return
        else:
            now = worker.blocked, worker.need
        taken = self.groups[worker.group].taken
        if counted is not None:
            taken.count(*counted, -1)
        if now is not None:
            taken.count(*now, 1)
        worker.counted = now

    def count_idle(self, worker: WorkerState, group: Group, change: int) -> None:
        """A worker begins to have nothing to do, or no longer."""
        if change > 0:
            group.idle[worker] = None
        else:
            del group.idle[worker]
        if group.pool is not None:
            return  # what has GPUs is looked for by itself
        self.idle_workers += change
        if group.idle:
            self.idle[worker.group] = group
        else:
            del self.idle[worker.group]

    def fits(self, need: float, group: Group) -> bool:
        """Whether an idle worker of a group may start a call that needs so much."""
        if not need and not self.admission.strict:
            return True
        if not self.counts_memory:
            self.counts_memory = True  # most programs have no such call
            for worker in self.workers.values():
                self.count_memory(worker)
        return self.admission.fits(need, group.taken, group.memory)

    def home_until(self, task: Task, index: int) -> float:
        """Until when a task is left to the group that has its inputs, and given to no other one.

        That is as long as the inputs would be under way, so no worker is idle for longer than it
        would be anyway. It is for ever while one of the inputs is nowhere else.
        """
        if self.distance is None:
            return 0.0
        distance = self.distance(task, place_of(index))
        if task.call.options.worker is not None and distance < inf:
            return 0.0
        return task.ready_at + distance

    def could_run(self, task: Task, now: float) -> bool:
        """Whether an idle worker could start the task now."""
        options = task.call.options
        for index, group in self.idle.items():
            if (
                cores_of(task) <= group.free + 1e-9
                and group.threads is in_thread(task)
                and options.worker in (None, group.address)
                and (not task.call.inputs or self.home_until(task, index) <= now)
                and self.fits(self.admission.need(task), group)
            ):
                return True
        return False

    def could_move(self, worker: WorkerState, count: int, now: float) -> bool:
        """Whether an idle worker could start one of the last calls of a queue now."""
        for task in islice(reversed(worker.queue), count):
            in_set = task.call.options.in_set
            if in_set is not None and not in_set.takes(None):
                continue  # it would come back to this worker
            if not task.waiting:  # else it waits for calls in front of it
                return self.could_run(task, now)
        return False
