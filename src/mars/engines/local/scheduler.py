"""What the scheduler knows, and what it decides next.

Pure: no socket, thread, clock or log. `loop` turns what happened into an event, hands it to
`Scheduler.on` with the time and carries out the commands that come back, so a test can replay
any history, in any order, in microseconds.

How work is given out, in one paragraph: each worker has a queue, of which it runs the first
task. A queue is filled up to `BATCH_S` of predicted work, so short calls travel many in one
message and the next ones are there before the last one is done; long calls travel alone. A task
whose unfinished inputs are all queued in one worker is queued behind them. What was sent ahead
is taken back when another worker has nothing to do.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from math import inf
from typing import Any, Final

from mars.calls.options import DEFAULT_OPTIONS, Options
from mars.engines.local.admission import OUT_OF_MEMORY, Admission
from mars.engines.local.endings import EXCEPTION, INTERRUPTED, RETURNED, VALUE
from mars.engines.local.events import (
    Arrived,
    Assign,
    Blocked,
    Cancelled,
    Closed,
    Command,
    Died,
    Discard,
    Event,
    Fetch,
    Fewer,
    Finished,
    Forgotten,
    GaveBack,
    GiveUp,
    Interrupt,
    Kill,
    Landed,
    Left,
    Lost,
    Needed,
    Outcome,
    Release,
    Report,
    Resume,
    RunEnded,
    RunState,
    StartWorker,
    StopWorker,
    Submitted,
    TakeBack,
    Tick,
    Unblocked,
    Unkept,
    Unneeded,
    WorkerReady,
)
from mars.engines.local.queues import Group, ReadyQueue, Taken, WorkerState, wanted
from mars.settings import (
    ALONE_S,
    AWAITED_REPORT_S,
    BACKOFF_S,
    BATCH_S,
    BATCH_TASKS,
    BLOCK_ITEMS,
    BLOCK_S,
    CANCEL_GRACE_S,
    CLOSED_S,
    EVEN_S,
    FEW_INPUTS,
    FOLLOW_S,
    FUNCTIONS_KEPT,
    INTERRUPT_GRACE_S,
    LOOK_AT,
    OVERDUE_S,
    PREFETCH_BELOW_S,
    REPORT_S,
    SOON_REPORT_S,
    STALE_TIMERS,
    START_PAUSE_S,
    STARTS_WITHOUT_RESULT,
    TASK_FLOOR_S,
)
from mars.task import (
    AttemptId,
    Call,
    Function,
    Stage,
    Task,
    WorkerId,
)

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


_RETRY: Final = 0
_DEADLINE: Final = 1
_KILL: Final = 2
_OVERDUE: Final = 3
_START: Final = 4


def _origin(task: Task) -> WorkerState | None:
    """The worker that made most of its inputs, the large ones if there are any."""
    sources = task.sources
    if len(sources) > FEW_INPUTS:
        return None
    large = [source for source in sources if source.stored]
    homes: list[WorkerState | None] = [source.home for source in large or sources]
    return homes[0] if len(homes) < 3 else max(homes, key=homes.count)


def _report_within(task: Task) -> float:
    """How long a worker may keep the end of a task that it is given now to itself, in seconds.

    What runs behind it in the same worker does not wait for a report. What needs a later task of
    the same queue, too, waits for that one.
    """
    worker, within = task.worker, REPORT_S
    for dependent in task.dependents or ():
        if dependent.home is worker and (
            dependent.stage is ASSIGNED or dependent.last_near != task.attempt
        ):
            continue
        if len(dependent.sources) > FEW_INPUTS:  # nobody looks at all of them for each message
            later = dependent.near < dependent.waiting
        else:
            later = any(source.stage is WAITING for source in dependent.sources)
        if not later:
            return AWAITED_REPORT_S
        within = SOON_REPORT_S
    return within


def _some(workers: dict[WorkerState, None]) -> list[WorkerState]:
    """A few workers, other ones each time."""
    some = list(islice(workers, LOOK_AT))
    if len(workers) > LOOK_AT:
        for worker in some:
            del workers[worker]
            workers[worker] = None
    return some


def _load(worker: WorkerState) -> float:
    return worker.load_s


def _backoff_s(number: int) -> float:
    """How long to wait before another try, after so many."""
    return BACKOFF_S[min(number, len(BACKOFF_S)) - 1]


class Scheduler:
    """Decides which worker runs which task, and what becomes of a task when things go wrong.

    Parameters
    ----------
    groups : sequence of (str, float)
        Address and cores of each group of workers.
    room : callable, optional
        Bytes that running calls may take together, now. Default: no limit.
    distance : callable, optional
        Seconds that the inputs of a ready task take to a group, by its index, more than to the one
        that has most of them. Default: all groups have all inputs.
    prefetch_below_s : float, optional
        Calls predicted longer are not sent ahead.
    """

    def __init__(
        self,
        groups: Sequence[tuple[str, float]],
        room: Callable[[], float] = lambda: inf,
        distance: Callable[[Task, int], float] | None = None,
        prefetch_below_s: float = PREFETCH_BELOW_S,
    ) -> None:
        self.admission = Admission(room)
        self._prefetch_below_s = prefetch_below_s
        self._distance = distance
        self.groups: dict[int, Group] = {}  # by number, which is never used again
        # Those of them that are looked for, kept up to date as workers change, so that no event
        # costs a look at all groups.
        self._idle: dict[int, Group] = {}  # with workers that have nothing to do
        self._roomy: dict[int, Group] = {}  # with cores that are free
        self._resuming: dict[int, Group] = {}  # with workers that wait for their cores
        self._idle_workers = 0
        self._counts_memory = False  # whether some call has needed any
        self._taken = Taken()  # by calls of all groups that share the memory of this machine
        self._next_group = 0
        for address, cpus in groups:
            self.add_group(address, cpus)
        self.workers: dict[WorkerId, WorkerState] = {}
        self.ready = ReadyQueue(self._abandon)
        self.seconds: dict[bytes, float] = {}  # predicted duration of each function's calls
        self._attempts = 0
        self._next_worker = 0
        self.blocked = 0  # workers whose call waits for nested calls
        # When, a number that makes each unique, what is due, the attempt, and its task or worker.
        # A deadline does not hold its task, whose result may be dropped long before.
        self._timers: list[tuple[float, int, int, int, Any]] = []
        self._timer_count = 0
        self._timers_limit = STALE_TIMERS
        # Kept up to date by `_sort`, so that no event costs a look at all workers.
        self._changed: dict[WorkerState, None] = {}
        self._hungry: dict[WorkerState, None] = {}  # run something, and have room for more
        self._deep: dict[WorkerState, None] = {}  # have something queued behind what runs
        self._commands: list[Command] = []
        self._releases: list[Task] = []
        self._lost_groups: list[int] = []  # of which workers are left
        self.made_in: dict[int, tuple[Task, int]] = {}  # what is MADE, and in which group
        self._handlers = {
            Submitted: self._submitted,
            WorkerReady: self._worker_ready,
            Finished: self._finished,
            Arrived: self._arrived,
            Unkept: self._unkept,
            Lost: self._group_lost,
            GaveBack: self._gave_back,
            Blocked: self._worker_blocked,
            Unblocked: self._worker_unblocked,
            Died: self._died,
            Left: self._left,
            Cancelled: self._run_cancelled,
            Forgotten: self._forgotten,
            Tick: self._tick,
        }

    def on(self, event: Event, now: float) -> list[Command]:
        """What to do about ``event``; ``now`` is monotonic time in seconds."""
        commands: list[Command] = []
        self._commands = commands
        self._handlers[type(event)](event, now)  # type: ignore[operator]
        for number in sorted(self._resuming) if self._resuming else ():
            self._resume(number)
        self._assign(now)
        if self._lost_groups:
            self._forget_groups()
        if self._releases:
            commands.append(Release(self._releases))
            self._releases = []
        return commands

    def _predict(self, task: Task) -> float:
        """Seconds that the task will take; for a function never seen, too long to send ahead."""
        seconds = self.seconds.get(task.call.function.key)
        if seconds is None:
            return self._prefetch_below_s
        return seconds if task.items is None else seconds * len(task.items)

    def _next_of(self, task: Task) -> float:
        """The same for the least that is given out of it: of a map one item."""
        if task.items is None or task.source is not None:
            return self._predict(task)
        return self.seconds.get(task.call.function.key, self._prefetch_below_s)

    def _ahead_below_s(self, options: Options) -> float:
        """Predicted time below which a call is sent ahead.

        Of calls that a lost node had, nobody knows whether they had begun: of those that must not
        run twice it gets few.
        """
        return self._prefetch_below_s if options.death_retries else PREFETCH_BELOW_S

    def add_group(self, address: str, cpus: float, memory: float | None = None) -> int:
        """Have further workers, which share so many cores; the number of their group."""
        number = self._next_group
        self._next_group += 1
        taken = self._taken if memory is None else Taken()
        self.groups[number] = self._roomy[number] = Group(address, cpus, memory, taken)
        return number

    def give_memory(self, number: int, memory: float) -> None:
        """A group has memory of its own, on a node; before any of its workers is started."""
        group = self.groups[number]
        group.memory, group.taken = memory, Taken()

    def _forget_groups(self) -> None:
        """Groups that were lost are gone when the deaths of all their workers have been told."""
        there = {worker.group for worker in self.workers.values()}
        for number in self._lost_groups:
            if number not in there:
                del self.groups[number]
                for some in (self._idle, self._roomy, self._resuming):
                    some.pop(number, None)
        self._lost_groups = [number for number in self._lost_groups if number in there]

    def _is_idle(self, worker: WorkerState) -> bool:
        """Whether a worker could start something now; it may be long gone, and its group too."""
        group = self.groups.get(worker.group)
        return group is not None and worker in group.idle

    def next_timer(self) -> float | None:
        """When `Tick` is due at the latest; None: nothing waits for time to pass."""
        return self._timers[0][0] if self._timers else None

    def _due(self, when: float, kind: int, attempt: int, about: Any) -> None:
        """Have `_tick` look at something."""
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, kind, attempt, about))
        if len(self._timers) > self._timers_limit:
            # A look at all of them now and then, so that they do not grow with the calls that
            # had an hour and took a millisecond.
            self._timers = [timer for timer in self._timers if self._matters(*timer[2:])]
            heapq.heapify(self._timers)
            self._timers_limit = max(STALE_TIMERS, 2 * len(self._timers))

    def _matters(self, kind: int, attempt: int, about: Any) -> bool:
        """Whether `_tick` will have something to do when a timer is due, for all that is known."""
        if kind == _RETRY:
            return about.stage is RETRYING and bool(about.attempt == attempt)
        if kind == _DEADLINE:
            return bool(about.queue) and bool(about.queue[0].attempt == attempt)
        if kind == _KILL:
            return about.id in self.workers and bool(about.stopping == attempt)
        return kind == _START or about.id in self.workers

    # -- events -------------------------------------------------------------------------------

    def _submitted(self, event: Submitted, now: float) -> None:
        run = event.run
        runs = (run,)
        ready = self.ready
        run.remaining += len(event.tasks)
        for new in event.tasks:
            task = new
            call = task.call
            run.total += task.size
            known = call.task
            if known is not task:  # else the engine put it there
                known = call.task_in(task.realm)
            if known is task and not task.runs and not task.finished:
                pass
            elif known is None:
                task.elsewhere = call.task
                call.task = task
            elif known.available:
                known.asked |= task.asked
                run.remaining -= 1  # another run made it meanwhile
                run.done += task.size
                continue
            elif known.finished:
                run.total -= task.size
                if known is task:  # another run came first, took it, and has ended already
                    task = self._anew(known)
                self._replace(call, known, task)
                run.total += task.size
            elif known.runs:
                self._count_made(known, -1)
                known.runs += runs  # another run is at it
                known.asked |= task.asked
                self._count_made(known, 1)
                if known.stage is MADE and known.asked:
                    _, group = self.made_in[known.attempt]
                    self._commands.append(Needed(group, AttemptId(known.attempt)))
                if known.items is not None:
                    self._join_map(known, task)
                continue
            else:
                # The engine put it there, for a run that is on its way here, or that Ctrl-C kept
                # from coming.
                known.asked |= task.asked
                task = known
            task.runs = runs
            task.queued_at = now
            task.depth = run.depth
            if call.inputs:
                self._link(task)
                if task.waiting:
                    continue
            task.stage = READY
            task.ready_at = now
            if task.items is not None and not len(task.items):
                self._done(task, None, now)  # a map whose items all are calls of their own
            else:
                ready.append(task)
        if run.live and run.remaining == run.made:
            self._end(run)

    @staticmethod
    def _anew(old: Task) -> Task:
        """A task for a call whose task has ended without a value."""
        new = Task(old.call, old.realm)
        new.place, new.asked = old.place, old.asked
        old.call.begin(new)
        return new

    def _replace(self, call: Call, old: Task, new: Task) -> None:
        new.elsewhere = old.elsewhere
        new.logs = old.logs  # what earlier attempts printed stays readable
        new.ended = old.attempts()
        if old.parts is not None:
            # Blocks of it may have ended while the new one was on its way here.
            since = old.parts[len(new.parts) :]
            there = {
                i for part in since if part.stage is DONE and not part.tries for i in part.items
            }
            if there:
                new.items = [index for index in new.items if index not in there]
                new.size = len(new.items)
            new.parts = old.parts
            new.stored = old.stored
        if call.task is old:
            call.task = new
            return
        before = call.task
        while before is not None and before.elsewhere is not old:
            before = before.elsewhere
        assert before is not None
        before.elsewhere = new

    def _link(self, task: Task) -> None:
        realm = task.realm
        sources: list[Task] = []
        for call, _ in task.call.inputs:
            source = call.task
            if source is None or source.realm is not realm:
                source = call.task_in(realm)
                # Inputs are submitted before, or together with, what reads them.
                assert source is not None
            if len(sources) > FEW_INPUTS or source not in sources:
                sources.append(source)
        if len(sources) > FEW_INPUTS:
            sources = list(dict.fromkeys(sources))
        task.sources = sources
        for source in sources:
            source.consumers += 1
            if source.stage is DONE:
                continue
            if not source.early:
                task.waiting += 1
            if source.dependents is None:
                source.dependents = [task]
            else:
                source.dependents.append(task)
            if source.stage is ASSIGNED:
                self._near(task, source)

    def _near(self, task: Task, source: Task) -> None:
        worker = source.worker
        task.last_near = source.attempt
        if task.home is worker:
            task.near += 1
        else:
            # Inputs queued in another worker are no longer counted: `near` may be too small,
            # never too large, and a task that is not sent ahead is sent when it is ready.
            task.home, task.near = worker, 1

    def _worker_ready(self, event: WorkerReady, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            worker.ready = True
            group = self.groups[worker.group]
            group.pause_until, group.closed = 0.0, False
            self._changed[worker] = None

    def _finished(self, event: Finished, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        self.groups[worker.group].failed_starts = 0
        queue = worker.queue
        for outcome in event.outcomes:
            if not queue or queue[0].attempt != outcome.attempt:
                # Not a current attempt: its result is not accepted. What a worker tells twice,
                # because it died before it could cross it out, is accepted already.
                if outcome.stored and outcome.attempt > worker.told:
                    if outcome.early:
                        self._commands.append(Unneeded(worker.group, outcome.attempt))
                    self._commands.append(Discard(outcome.result))
                continue
            task = queue.popleft()
            worker.told = outcome.attempt
            if worker.blocked:
                self._unblock(worker)
            worker.load_s -= self._predict(task)
            task.worker = None
            task.timing = outcome.timing
            if outcome.log is not None:
                task.logs = (*task.logs, outcome.log)
            status = outcome.status
            if status == VALUE:
                task.where = worker.where
                self._learn(task, outcome.seconds)
                if outcome.peak:
                    self.admission.learn(task.call.function.key, outcome.peak)
                if task.source is not None:
                    self._block_done(task, outcome)
                else:
                    task.result = outcome.result
                    task.stored = outcome.stored
                    if outcome.early:
                        self._made(task, worker, now)
                    else:
                        self._done(task, worker, now)
            elif status == RETURNED:
                self._back(task, now)
            else:
                self._attempt_failed(task, worker, outcome, now)
        self._settle(worker, now)

    def _learn(self, task: Task, seconds: float) -> None:
        key = task.call.function.key
        if task.items is not None:
            seconds /= len(task.items)
        elif seconds < TASK_FLOOR_S:
            seconds = TASK_FLOOR_S
        known = self.seconds.get(key)
        if known is None:
            if len(self.seconds) >= 4 * FUNCTIONS_KEPT:
                del self.seconds[next(iter(self.seconds))]
            self.seconds[key] = seconds
        else:
            # Quick to believe that calls got slower, slower to believe the opposite: work sent
            # ahead by mistake waits, work not sent ahead costs 0.1 ms.
            self.seconds[key] = known + (seconds - known) * (0.5 if seconds > known else 0.2)

    def _done(
        self, task: Task, worker: WorkerState | None, now: float, stage: Stage = DONE
    ) -> None:
        task.stage = stage
        for run in task.runs:
            if run.landed is not None and stage is DONE and task.parts is None:
                self._land(run, task)
                break
        if task.dependents is not None:
            self._input_done(task, worker, now)
        call = task.call
        if call.inputs:
            self._consumed(task)
            call.satisfy()
        if not call.handles and not task.consumers:
            self._release(task)
        for run in task.runs:
            run.remaining -= 1
            run.done += task.size
            if run.remaining == run.made and run.live:
                self._end(run)
        task.runs = ()

    # -- values that are on their way here ----------------------------------------------------
    # A call counts as done once its value is here, so that no node takes it along. Calls in the
    # group that has made it may read it before. A run has ended when all that is left of it are
    # such calls, which it only needed to feed others: the program cannot fetch their values.

    def _made(self, task: Task, worker: WorkerState, now: float) -> None:
        task.stage = MADE
        self.made_in[task.attempt] = task, worker.group
        task.early = task.call.options.death_retries > 0 and not any(
            run.depth or run.landed is not None for run in task.runs
        )
        if task.asked or not task.early:
            self._commands.append(Needed(worker.group, AttemptId(task.attempt)))
        if not task.early:
            self._leave_home(task)
            return
        self._count_made(task, 1)
        dependents = task.dependents
        if dependents is not None:
            self._input_done(task, worker, now)
        if task.stage is not MADE:
            return  # nobody wanted those, nor, then, this one
        task.dependents = dependents  # in case it is lost
        for run in task.runs:
            if run.remaining == run.made and run.live:
                self._end(run)
        self._drop_made(task)

    @staticmethod
    def _count_made(task: Task, change: int) -> None:
        if task.early and not task.asked:
            for run in task.runs:
                run.made += change

    def _no_longer_made(self, task: Task) -> None:
        self._count_made(task, -1)
        task.early = False

    def _arrived(self, event: Arrived, now: float) -> None:
        for attempt in event.attempts:
            if attempt in self.made_in:
                task, _ = self.made_in.pop(attempt)
                self._end_made(task, now)

    def _unkept(self, event: Unkept, now: float) -> None:
        if event.attempt in self.made_in:
            task, _ = self.made_in.pop(event.attempt)
            self._unmake(task)
            task.ended = (*task.ended, (*(task.where or ("", 0)), "error"))
            self._terminal(task, event.failure)

    def _unmake(self, task: Task) -> None:
        """The value of a task is lost before it has come here."""
        self._commands.append(Discard(task.result))
        task.result, task.stored = None, False
        if task.early:
            for dependent in task.dependents or ():
                self._wait_again(dependent)
        self._no_longer_made(task)

    def _end_made(self, task: Task, now: float) -> None:
        if task.early:
            task.dependents = None  # they have been told
        self._no_longer_made(task)
        self._done(task, None, now)

    def _drop_made(self, task: Task) -> None:
        """Do not wait for a value that nobody will read."""
        if task.early and not (task.consumers or task.call.handles or task.asked):
            _, group = self.made_in.pop(task.attempt)
            self._commands.append(Unneeded(group, task.attempt))
            self._end_made(task, 0.0)  # nobody waits for it any more

    def _group_lost(self, event: Lost, now: float) -> None:
        group_lost = self.groups[event.group]
        group_lost.free -= group_lost.cpus
        group_lost.cpus = 0.0
        self._lost_groups.append(event.group)
        for worker in self.workers.values():
            if worker.group == event.group:
                worker.taking_back = True  # it is given nothing more
                self._changed[worker] = None
        for attempt, group in event.copied.items():
            self.made_in[attempt] = self.made_in[attempt][0], group
            self._commands.append(Needed(group, AttemptId(attempt)))
        lost = [task for task, group in self.made_in.values() if group == event.group]
        for task in lost:
            del self.made_in[task.attempt]
            self._unmake(task)
            task.stage = RETRYING
            task.deaths += 1
            task.ended = (*task.ended, (*(task.where or ("", 0)), "lost"))
        for task in lost:
            if task.stage is not RETRYING:
                continue  # it has ended with one before it
            if not wanted(task):
                self._abandon(task)
            elif task.deaths <= task.call.options.death_retries:
                self._due(now + _backoff_s(task.deaths), _RETRY, task.attempt, task)
            else:
                self._terminal(task, event.certificate(task))

    def _wait_again(self, task: Task) -> None:
        """An input of a task has to be made again."""
        if task.finished:
            return
        task.waiting += 1
        task.home, task.near = None, 0
        if task.stage is READY:
            self.ready.remove(task)
            task.stage = WAITING

    def _land(self, run: RunState, task: Task) -> None:
        task.call.handles += 1  # given back by whoever keeps the result
        self._commands.append(Landed(run, task))

    def _settle(self, worker: WorkerState, now: float) -> None:
        """After the queue changed: what is left, and when to hear of it."""
        self._changed[worker] = None
        worker.asked = False
        queue = worker.queue
        if worker.stopping and (not queue or queue[0].attempt != worker.stopping):
            worker.stopping, worker.kill_at, worker.reason = 0, 0.0, ""
        if queue:
            worker.due_at = now + self._predict(queue[0])
            if not worker.watched:
                worker.watched = True
                self._due(worker.due_at + OVERDUE_S, _OVERDUE, 0, worker)
            if not worker.stopping and queue[0].cancelled:
                # It began before we could take it back, or we thought that another one runs.
                self._interrupt(worker, queue[0], "cancel", now + CANCEL_GRACE_S)
        else:
            worker.load_s = 0.0
            if worker.claim:
                self.groups[worker.group].free += worker.claim
                worker.claim = 0.0

    def _input_done(self, task: Task, worker: WorkerState | None, now: float) -> None:
        dependents = task.dependents
        task.dependents = None
        assert dependents is not None
        for dependent in reversed(dependents):
            dependent.waiting -= 1
            if worker is not None and dependent.home is worker:
                dependent.near -= 1
            if not dependent.waiting and dependent.stage is WAITING:
                if wanted(dependent):
                    dependent.stage = READY
                    dependent.ready_at = now
                    dependent.home = _origin(dependent)
                    # In front of what waited longer: what has begun is finished first, so fewer
                    # intermediate results are alive at once.
                    self.ready.push_front(dependent)
                else:
                    self._abandon(dependent)

    def _consumed(self, task: Task) -> None:
        """The inputs of a task that ended have one reader less."""
        sources, task.sources = task.sources, ()
        for source in sources:
            source.consumers -= 1
            if not source.consumers and not source.call.handles:
                if source.stage is DONE:
                    self._release(source)
                elif source.stage is MADE:
                    self._drop_made(source)

    def _release(self, task: Task) -> None:
        """Nobody can ask for the result any more."""
        if not task.released:
            task.released = True
            if task.stored:
                self._releases.append(task)
            task.call.leave(task)

    def _attempt_failed(
        self, task: Task, worker: WorkerState, outcome: Outcome, now: float
    ) -> None:
        status = outcome.status
        reason = worker.reason if worker.stopping == outcome.attempt else ""
        task.ended = (*task.ended, (*worker.where, "stopped" if reason else "error"))
        if reason == "cancel":  # whatever the call made of the interrupt
            self._stopped(task, now)
            return
        task.blame = reason
        task.tries += 1
        options = task.call.options
        again = options.retry_late if reason else status in (EXCEPTION, INTERRUPTED)
        if again and task.tries <= options.retries and wanted(task):
            self._retry(task, task.tries, now)
            return
        self._terminal(task, outcome.result)

    def _stopped(self, task: Task, now: float) -> None:
        """An attempt was stopped because nobody wanted it; meanwhile somebody may."""
        if wanted(task):
            self._pause(task, now)
        else:  # it has not failed, nor have items of a block: whoever asks again gets them
            self._abandon(task)

    def _retry(self, task: Task, number: int, now: float) -> None:
        self._pause(task, now + _backoff_s(number))

    @staticmethod
    def _leave_home(task: Task) -> None:
        """A task is in no queue any more, so none can wait behind it there."""
        for dependent in task.dependents or ():
            dependent.home, dependent.near = None, 0

    def _pause(self, task: Task, until: float) -> None:
        task.stage = RETRYING
        self._leave_home(task)
        self._due(until, _RETRY, task.attempt, task)

    def _terminal(self, task: Task, result: Any) -> None:
        """A task fails, and with it all that needs its value."""
        if task.source is not None:
            self._block_lost(task, result)
            return
        task.stage = FAILED
        task.result = result
        self._consumed(task)
        self._count_failure(task)
        pending = [task]
        while pending:
            failed = pending.pop()
            dependents, failed.dependents = failed.dependents, None
            for dependent in dependents or ():
                if dependent.stage is ASSIGNED:
                    self._unqueue(dependent)
                elif dependent.stage not in (WAITING, RETRYING):
                    continue
                dependent.stage = FAILED
                dependent.failed_input = failed
                self._consumed(dependent)
                self._count_failure(dependent)
                pending.append(dependent)

    def _unqueue(self, task: Task) -> None:
        """Forget that a task is queued behind an input that will never come.

        Its worker returns it unstarted; by then it is not the current attempt of anything.
        """
        worker, task.worker = task.worker, None
        if task not in worker.queue:
            return  # the queue is about to be given back as a whole
        self._changed[worker] = None
        ran = worker.queue[0] is task  # on a lost node, with the input that it had read early
        worker.queue.remove(task)
        worker.load_s -= self._predict(task)
        if ran and worker.blocked:
            self._unblock(worker)
        if worker.stopping == task.attempt:
            worker.stopping, worker.kill_at, worker.reason = 0, 0.0, ""
        if not worker.queue:
            self.groups[worker.group].free += worker.claim
            worker.claim = worker.load_s = 0.0

    def _count_failure(self, task: Task) -> None:
        runs, task.runs = task.runs, ()
        for run in runs:
            run.remaining -= 1
            run.failed += 1
            if not run.live:
                continue
            if run.failure is None:
                run.failure = task
            if run.stop_on_error or run.remaining == run.made:
                self._end(run)

    def _end(self, run: RunState) -> None:
        run.live = False
        self._commands.append(RunEnded(run))
        if run.remaining:
            self._unwanted()

    def _unwanted(self) -> None:
        """A run ended early: take back what was sent ahead for it."""
        for worker in self.workers.values():
            if len(worker.queue) > 1 and not worker.taking_back:
                # Only the last ones can be taken: what is wanted among them is queued again.
                for index, task in enumerate(worker.queue):
                    if index and not wanted(task):
                        self._take_back(worker, len(worker.queue) - index)
                        break

    def _back(self, task: Task, now: float) -> None:
        """A task that was queued and not started is again as it was before."""
        task.worker = None
        task.home, task.near = None, 0
        for dependent in task.dependents or ():
            if dependent.home is not None:
                dependent.home, dependent.near = None, 0
        if not wanted(task):
            self._abandon(task)
        elif task.waiting:
            task.stage = WAITING
        else:
            task.stage = READY
            task.ready_at = task.ready_at or now
            self.ready.push_front(task)

    def _abandon(self, task: Task) -> None:
        """No live run wants the task, nor, then, what depends on it.

        What somebody cancelled is told to be cancelled; the rest was never executed.
        """
        if task.source is not None:
            task.stage = ABANDONED
            source = task.source
            source.blocks -= 1
            source.items = [*task.items, *source.items]
            task = source
        if task.blocks:
            return  # ends with the blocks that run, unless somebody asks for it meanwhile
        pending = [task]
        while pending:
            dropped = pending.pop()
            if dropped.stage >= DONE:
                continue
            dropped.stage = CANCELLED if dropped.cancelled else ABANDONED
            self._consumed(dropped)
            for run in dropped.runs:
                run.remaining -= 1
            dropped.runs = ()
            if not dropped.call.handles and not dropped.consumers:
                self._release(dropped)
            dependents, dropped.dependents = dropped.dependents, None
            for dependent in dependents or ():
                if dependent.stage is ASSIGNED:
                    self._unqueue(dependent)
                elif dependent.stage not in (WAITING, RETRYING):
                    continue
                pending.append(dependent)

    def _gave_back(self, event: GaveBack, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        worker.taking_back = False
        given = set(event.attempts)
        self._pull(worker, [task for task in worker.queue if task.attempt in given], now)
        self._settle(worker, now)
        if len(worker.queue) > 1 and not worker.taking_back:
            if worker.blocked or worker.stopping:
                # The worker may not have read all that was on its way.
                self._take_back(worker, len(worker.queue) - 1)
            else:
                self._unwanted()

    def _pull(self, worker: WorkerState, tasks: Sequence[Task], now: float) -> None:
        """Remove queued tasks from a worker; the order in which they were queued is kept."""
        if not tasks:
            return
        pulled = set(tasks)
        worker.queue = deque(task for task in worker.queue if task not in pulled)
        for task in reversed(tasks):
            worker.load_s -= self._predict(task)
            if task.stage is ASSIGNED:  # it has not ended with one behind it
                self._back(task, now)

    def _worker_blocked(self, event: Blocked, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or worker.blocked:
            return
        worker.blocked = True
        self._changed[worker] = None
        self.blocked += 1
        self.groups[worker.group].free += worker.claim
        worker.claim = 0.0
        if len(worker.queue) > 1 and not worker.taking_back:
            self._take_back(worker, len(worker.queue) - 1)

    def _worker_unblocked(self, event: Unblocked, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None and worker.blocked and not worker.resuming:
            worker.resuming = True
            self._changed[worker] = None
            group = self._resuming[worker.group] = self.groups[worker.group]
            group.resuming.append(worker)

    def _unblock(self, worker: WorkerState) -> None:
        """The call that was blocked has ended, such as by its timeout: nobody waits any more."""
        worker.blocked = worker.resuming = False
        self.blocked -= 1
        if worker.queue:
            # It begins with the next one already, whether cores are free or not.
            worker.claim = worker.cpus
            self.groups[worker.group].free -= worker.claim

    def _resume(self, number: int) -> None:
        """Let workers whose nested calls are done go on, before anything new starts."""
        group = self._resuming[number]
        while group.resuming:
            worker = group.resuming[0]
            if worker.resuming and worker.id in self.workers:
                if worker.cpus > group.free + 1e-9:
                    return
                worker.blocked = worker.resuming = False
                self._changed[worker] = None
                self.blocked -= 1
                worker.claim = worker.cpus
                group.free -= worker.claim
                self._commands.append(Resume(worker.id))
            group.resuming.popleft()
        del self._resuming[number]

    def _died(self, event: Died, now: float) -> None:
        worker = self.workers.pop(event.worker, None)
        if worker is None:
            return
        queue = worker.queue
        begun = []
        # More than one when what it told of the first ones was lost with it.
        while queue and queue[0].attempt <= event.started:
            begun.append(queue.popleft())
        if not self.groups[worker.group].cpus:
            for task in queue:  # its node was lost: nobody knows how far it comes there
                task.ended = (*task.ended, (*worker.where, "unknown"))
        self._vacate(worker, now)
        had_begun = bool(begun)
        begun = [task for task in begun if task.stage is ASSIGNED]
        for task in begun:
            if task.stage is not ASSIGNED:  # it has ended with its input, one before it
                task.ended = (*task.ended, (*worker.where, "died"))
                continue
            task.worker = None
            if task.attempt == event.started:
                if event.log is not None:
                    task.logs = (*task.logs, event.log)
                if event.starved:
                    self.admission.learn(task.call.function.key, event.peak)
            self._attempt_died(task, worker, event, now)
        if had_begun:
            return
        group = self.groups[worker.group]
        group.careful |= event.unable
        if event.unable and any(
            other.group == worker.group and not other.blocked for other in self.workers.values()
        ):
            # The system may have no room for another: those that are there go on without it.
            self._pause_starts(group, now)
            self._commands.append(Fewer(worker.id))
            return
        if not group.cpus:
            return  # it is lost, which says nothing about workers
        group.pause_until = 0.0
        if not worker.ready or queue:
            group.failed_starts += 1
            if group.failed_starts >= STARTS_WITHOUT_RESULT:
                self._close(worker.group, now)

    def _close(self, number: int, now: float) -> None:
        """Expect nothing of a group for a while, as its workers do not start."""
        group = self.groups[number]
        group.closed = group.careful = True
        if self._all_closed():
            for group in self.groups.values():  # whoever asks next has them tried anew
                group.failed_starts, group.pause_until = 0, 0.0
            self._commands.append(GiveUp())
            return
        group.pause_until = now + CLOSED_S
        self._due(group.pause_until, _START, 0, group)
        self._commands.append(Closed(number))

    def _all_closed(self) -> bool:
        return all(group.closed for group in self.groups.values() if group.cpus)

    def _left(self, event: Left, now: float) -> None:
        worker = self.workers.pop(event.worker, None)
        if worker is not None:
            self._vacate(worker, now)

    def _vacate(self, worker: WorkerState, now: float) -> None:
        """A worker is no more: its cores are free, and what is queued there goes elsewhere."""
        self._changed[worker] = None
        self.groups[worker.group].free += worker.claim
        worker.claim = 0.0
        if worker.blocked:
            self.blocked -= 1
            worker.blocked = False
        queue, worker.queue = worker.queue, deque()
        for task in reversed(queue):
            if task.stage is ASSIGNED:  # it has not ended with one behind it
                self._back(task, now)

    def _attempt_died(self, task: Task, worker: WorkerState, event: Died, now: float) -> None:
        task.home, task.near = None, 0
        for dependent in task.dependents or ():
            dependent.home, dependent.near = None, 0
        reason = worker.reason if worker.stopping == task.attempt else ""
        options = task.call.options
        task.ended = (*task.ended, (*worker.where, "stopped" if reason else "died"))
        if reason == "cancel":
            self._stopped(task, now)
            return
        if reason == "timeout":
            task.tries += 1
            number, limit = task.tries, options.retries if options.retry_late else 0
        else:
            task.deaths += 1
            number, limit = task.deaths, options.death_retries
            if event.starved:
                if task.blame == OUT_OF_MEMORY:
                    limit = 0  # it had all memory to itself
                reason = OUT_OF_MEMORY
                self.admission.strict = True
        task.blame = reason
        if not wanted(task):
            self._abandon(task)
        elif task.items is not None and len(task.items) > 1:
            task.deaths = task.tries = 0
            self._split(task)
        elif number <= limit:
            self._retry(task, number, now)
        else:
            self._terminal(task, event.certificate(task))

    def _run_cancelled(self, event: Cancelled, now: float) -> None:
        run = event.run
        again = run.cancelled  # somebody does not want to wait any longer
        if not run.live and not again:
            return
        run.cancelled = True
        if run.live:
            self._end(run)
        for worker in self.workers.values():
            if worker.queue:
                head = worker.queue[0]
                runs = head.runs if head.source is None else head.source.runs
                if run not in runs or wanted(head):
                    continue
                kill_at = now if again else now + CANCEL_GRACE_S
                if not worker.stopping:
                    self._interrupt(worker, head, "cancel", kill_at)
                elif worker.kill_at > kill_at:
                    worker.kill_at = kill_at
                    self._due(kill_at, _KILL, worker.stopping, worker)

    def _interrupt(self, worker: WorkerState, task: Task, reason: str, kill_at: float) -> None:
        worker.stopping = task.attempt
        worker.reason = reason
        worker.kill_at = kill_at
        self._due(kill_at, _KILL, task.attempt, worker)
        self._changed[worker] = None
        self._commands.append(Interrupt(worker.id, AttemptId(task.attempt)))
        if len(worker.queue) > 1 and not worker.taking_back:
            # Nothing may begin there: SIGKILL may have to follow, and would hit it.
            self._take_back(worker, len(worker.queue) - 1)

    def _forgotten(self, event: Forgotten, now: float) -> None:
        for task in event.tasks:
            if task.consumers or task.call.handles:
                continue
            if task.stage >= DONE:
                self._release(task)
            elif task.stage is MADE:
                self._drop_made(task)

    def _tick(self, event: Tick, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, _, kind, attempt, about = heapq.heappop(self._timers)
            if kind == _KILL:
                there = about.id in self.workers and about.stopping == attempt
                if there and 0 < about.kill_at <= now:
                    about.kill_at = 0.0
                    self._commands.append(Kill(about.id))
            elif kind == _OVERDUE:
                self._overdue(about, now)
            elif kind == _START:
                continue  # the pause of a group is over: `_assign` follows
            elif kind == _DEADLINE:
                if about.queue and about.queue[0].attempt == attempt and not about.stopping:
                    self._interrupt(about, about.queue[0], "timeout", now + INTERRUPT_GRACE_S)
            elif about.stage is RETRYING and about.attempt == attempt:
                if wanted(about) and about.waiting:
                    about.stage = WAITING
                elif wanted(about):
                    about.stage = READY
                    about.ready_at = about.ready_at or now
                    self.ready.push_front(about)
                else:
                    self._abandon(about)

    def _overdue(self, worker: WorkerState, now: float) -> None:
        """Ask a worker that should have told something by now."""
        worker.watched = bool(worker.queue)
        if not worker.queue:
            return
        late = now - worker.due_at
        if late < OVERDUE_S - 1e-9:
            self._due(worker.due_at + OVERDUE_S, _OVERDUE, 0, worker)
            return
        # And again after twice the time: the answer shows whether a frame was lost meanwhile.
        self._due(now + late, _OVERDUE, 0, worker)
        behind = len(worker.queue) - 1
        could = behind and not worker.asked and not worker.taking_back
        worker.asked = True
        if could and self._could_move(worker, behind, now):
            self._take_back(worker, behind)
        else:
            self._commands.append(Report(worker.id))

    # -- giving out work ----------------------------------------------------------------------

    def _take_back(self, worker: WorkerState, count: int) -> None:
        worker.taking_back = True
        self._changed[worker] = None
        self._commands.append(TakeBack(worker.id, count))

    def _sort(self) -> None:
        """Put the workers that changed where they are looked for."""
        changed = self._changed
        if not changed:
            return
        self._changed = {}
        workers, some_hungry, some_deep = self.workers, self._hungry, self._deep
        for worker in changed:
            number = worker.group
            group = self.groups[number]
            depth = len(worker.queue)
            here = worker.id in workers
            usable = here and not worker.blocked
            could = usable and not (worker.taking_back or worker.stopping or worker.resuming)
            idle = could and worker.ready and not depth
            if idle is not (worker in group.idle):
                self._count_idle(worker, group, 1 if idle else -1)
            if could and (depth == 1 or (depth > 1 and worker.load_s < BATCH_S / 2)):
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
            if self._counts_memory:
                self._count_memory(worker)
            if group.free > 1e-9:
                self._roomy[number] = group
            elif number in self._roomy:
                del self._roomy[number]

    def _count_memory(self, worker: WorkerState) -> None:
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

    def _count_idle(self, worker: WorkerState, group: Group, change: int) -> None:
        """A worker has nothing to do, or something again."""
        if change > 0:
            group.idle[worker] = None
        else:
            del group.idle[worker]
        self._idle_workers += change
        if group.idle:
            self._idle[worker.group] = group
        else:
            del self._idle[worker.group]

    def _assign(self, now: float) -> None:
        """Give work to workers that have room for it, and start workers that are missing."""
        changed = self._changed
        self._sort()
        ready = self.ready
        if ready.count:
            self._fill_idle(now)
        if ready.count:
            self._start_missing(now)
            first = ready.first()  # none when nobody wanted what was there
            short = first is not None and self._next_of(first) < self._prefetch_below_s
            # The one with the least to do first: what it takes is not queued behind others.
            for worker in sorted(_some(self._hungry), key=_load) if short else ():
                if not self._fill(worker, 1 + ready.count // (2 * len(self.workers)), now):
                    del self._hungry[worker]  # until its queue changes
                if not ready.count:
                    break
            return
        for worker in _some(self._hungry) if self._hungry else ():
            if worker.queue[-1].dependents is not None:
                self._lengthen(worker, now)
        if self._idle:
            for worker in changed:
                self._retire(worker)
            if self._deep:
                self._balance(now)

    def _fill_idle(self, now: float) -> None:
        """Share out what is ready among workers that have nothing to do."""
        ready = self.ready
        left = self._idle_workers
        for number in sorted(self._idle) if len(self._idle) > 1 else list(self._idle):
            group = self.groups[number]
            while group.idle and ready.count:
                task = ready.first()
                assert task is not None
                # A share of what is left, so that the last round is even. When all of it takes
                # little time, an even part at once: neighbours stay together.
                share, most_s = 1 + ready.count // (2 * len(self.workers)), BATCH_S
                part = -(-ready.count // left)
                seconds = self._predict(task)
                if ready.count * seconds < ALONE_S:
                    share, most_s = ready.count, ALONE_S
                elif part * seconds < (EVEN_S if task.dependents is None else BATCH_S):
                    share = part
                left = left - 1 or 1
                home = task.home
                if (
                    home is not None
                    and self._is_idle(home)
                    and self._fill(home, share, now, most_s)
                ):
                    continue
                if not self._fill(next(iter(group.idle)), share, now, most_s):
                    break

    def _fill(self, worker: WorkerState, share: int, now: float, most_s: float = BATCH_S) -> bool:
        """Whether a worker, which could take something, was given anything.

        It takes ``share`` tasks that are ready, less if that is predicted to be ``most_s`` of
        work, and what can follow them.
        """
        ready = self.ready
        group = self.groups[worker.group]
        if group.resuming:
            return False  # calls that waited for nested ones go on before anything new starts
        queue = worker.queue
        batch: list[Task] = []
        room = BATCH_TASKS - len(queue)
        load = worker.load_s
        taken = 0
        shelf: deque[Task] | None = None
        # What is known of the call before: the next one is most often of the same function.
        function: Function | None = None
        options: Options = DEFAULT_OPTIONS
        need = predicted = ahead_below_s = 0.0
        while taken < share and len(batch) < room:
            if not shelf or not wanted(shelf[0]):
                shelf = ready.shelf_for(group, worker.cpus if queue else None)
                if shelf is None:
                    break
            if self._distance is not None and not self._pick(shelf, worker.group, now):
                break
            task = shelf[0]
            call = task.call
            single = task.items is None and not self.admission.strict
            if not single or call.function is not function or call.options is not options:
                function, options = call.function if single else None, call.options
                need = self.admission.need(task)
                predicted = self._predict(task)
                ahead_below_s = self._ahead_below_s(options)
            if queue:
                if need > worker.need:
                    break  # it was let in for less
            elif not self._fits(need, group):
                break  # nor may anything behind it start, or it would wait for ever
            if task.items is not None and task.source is None:
                block = self._carve(task, load if queue else None)
                if block is None:
                    break
                if not len(task.items):
                    ready.pop(shelf)
                task = block
                predicted = self._predict(task)
            else:
                if queue and (
                    options.timeout_s is not None
                    or predicted >= ahead_below_s
                    or (load + predicted > most_s and len(queue) > 1)
                    or self._better_at_home(task, worker, load)
                ):
                    break
                ready.pop(shelf)
            taken += 1
            if not queue:
                worker.cpus = worker.claim = options.cpus
                worker.need = need
                group.free -= worker.claim
            load += predicted
            self._queue(worker, task, now)
            batch.append(task)
            if options.timeout_s is not None:
                self._due(now + options.timeout_s, _DEADLINE, task.attempt, worker)
                break
            if task.dependents is not None:
                load = self._follow(worker, task, batch, load, room, now)
        if batch:
            worker.load_s = load
            if len(queue) == len(batch):
                self._settle(worker, now)
            elif not worker.watched:
                worker.watched = True
                self._due(worker.due_at + OVERDUE_S, _OVERDUE, 0, worker)
            self._give(worker, batch)
        return bool(batch)

    def _fits(self, need: float, group: Group) -> bool:
        """Whether an idle worker of a group may start a call that needs so much."""
        if not need and not self.admission.strict:
            return True
        if not self._counts_memory:
            self._counts_memory = True  # most programs have no such call
            for worker in self.workers.values():
                self._count_memory(worker)
        return self.admission.fits(need, group.taken, group.memory)

    def _give(self, worker: WorkerState, batch: list[Task]) -> None:
        """Send tasks that were queued."""
        within = [REPORT_S if task.dependents is None else _report_within(task) for task in batch]
        self._commands.append(Assign(worker.id, batch, within))
        self._changed[worker] = None
        self._sort()

    def _better_at_home(self, task: Task, worker: WorkerState, load: float) -> bool:
        """Whether the worker that made the inputs of a task has room, and less to do."""
        home = task.home
        if home is None or home is worker or home.load_s > load:
            return False
        return home in self._hungry or self._is_idle(home)

    def _pick(self, shelf: deque[Task], index: int, now: float) -> bool:
        """Put to the front of a shelf what a group may take of its first tasks, if anything."""
        soonest = inf
        for place, task in enumerate(islice(shelf, LOOK_AT)):
            if not wanted(task):
                continue  # the first one is
            if task.call.inputs:
                until = self._home_until(task, index)
                if until > now:
                    soonest = min(soonest, until)
                    continue
            if place:
                del shelf[place]
                shelf.appendleft(task)
            return True
        group = self.groups[index]
        if soonest < inf and not now < group.look_at <= soonest:
            group.look_at = soonest
            self._due(soonest, _START, 0, None)
        work_s = self.ready.count * self._predict(shelf[0])
        self._commands.append(Fetch(index, shelf[0], work_s))
        return False

    def _home_until(self, task: Task, index: int) -> float:
        """Until when a task is left to the group that has its inputs, and not given to another.

        For as long as they would be under way: so nothing is idle for longer than it would be. For
        ever, as long as one of them is nowhere else.
        """
        if self._distance is None:
            return 0.0
        distance = self._distance(task, index)
        if task.call.options.worker is not None and distance < inf:
            return 0.0
        return task.ready_at + distance

    # -- many items of one function, `mars.remote.map` ----------------------------------------

    def _carve(self, task: Task, load: float | None) -> Task | None:
        """A block of items that takes about `BLOCK_S`; None: the worker has enough to do.

        ``load`` is what the worker has queued, None when it has nothing.
        """
        seconds = self.seconds.get(task.call.function.key)
        options = task.call.options
        if load is not None and (
            seconds is None
            or seconds >= self._ahead_below_s(options)
            or load > BLOCK_S
            or options.timeout_s is not None
        ):
            return None
        if seconds is None or options.timeout_s is not None or not options.death_retries:
            count = 1
        else:
            share = -(-len(task.items) // (2 * len(self.workers)))
            count = max(1, min(int(BLOCK_S / max(seconds, 1e-9)), share, BLOCK_ITEMS))
        block = Task(task.call, task.realm)
        block.items, task.items = task.items[:count], task.items[count:]
        block.size = len(block.items)
        block.source = task
        block.place = task.place
        block.depth = task.depth
        block.queued_at, block.ready_at = task.queued_at, task.ready_at
        task.blocks += 1
        return block

    def _join_map(self, known: Task, task: Task) -> None:
        """Another run asks for a map that is under way: items that failed have to run again."""
        there = set(known.items)
        under_way = [one for worker in self.workers.values() for one in worker.queue]
        under_way += self.ready
        under_way += [
            one for _, _, kind, _, one in self._timers if kind == _RETRY and not one.finished
        ]
        for one in under_way:
            if one.source is known:
                there.update(one.items)
        for part in known.parts:
            if part.stage is DONE and not part.tries:
                there.update(part.items)
        again = [index for index in task.items if index not in there]
        if again:
            known.items = [*known.items, *again]
            known.tries = 0
        if len(known.items) and not self.ready.has(known):
            self.ready.append(known)

    def _block_done(self, block: Task, outcome: Outcome) -> None:
        task = block.source
        assert task is not None
        block.stage = DONE
        block.result = outcome.result
        block.stored = outcome.stored
        block.tries = outcome.failures  # 0: all of its items have values
        task.parts.append(block)
        task.stored |= outcome.stored
        task.blocks -= 1
        for run in task.runs:
            if run.landed is not None:
                self._land(run, block)
                break
        for run in task.runs:
            run.done += block.size
            if outcome.failures:
                task.tries += outcome.failures  # of a map: items that failed
                run.failed += outcome.failures
                run.done -= outcome.failures
                if run.failure is None:
                    run.failure = block
                if run.stop_on_error and run.live:
                    self._end(run)
        self._block_ended(task)

    def _block_lost(self, block: Task, result: Any) -> None:
        """A block ended without telling anything of its items, such as by a worker's death."""
        task = block.source
        assert task is not None
        block.stage, block.result = FAILED, result
        task.parts.append(block)
        task.blocks -= 1
        task.tries += block.size
        for run in task.runs:
            run.failed += block.size
            if run.failure is None:
                run.failure = block
            if run.stop_on_error and run.live:
                self._end(run)
        self._block_ended(task)

    def _split(self, block: Task) -> None:
        """Run the items of a block one by one, to see which of them kills its worker."""
        task = block.source
        assert task is not None
        block.stage = ABANDONED
        task.blocks -= 1
        for index in range(len(block.items) - 1, -1, -1):
            single = Task(task.call, task.realm)
            single.items = block.items[index : index + 1]
            single.source, single.place, single.depth = task, block.place, block.depth
            single.logs = block.logs
            single.stage = READY
            task.blocks += 1
            self.ready.push_front(single)

    def _block_ended(self, task: Task) -> None:
        """All items of a map have ended once nothing of it is left to give out or running."""
        if task.blocks or task.stage is not READY:
            return
        if len(task.items):
            if not wanted(task) and not self.ready.has(task):
                self._abandon(task)
            return
        task.size = 0  # its blocks have been counted
        self._done(task, None, 0.0, FAILED if task.tries else DONE)

    def _queue(self, worker: WorkerState, task: Task, now: float) -> None:
        self._attempts += 1
        task.attempt = self._attempts
        task.stage = ASSIGNED
        task.worker = worker
        task.sent_at = now
        task.home = worker
        worker.queue.append(task)
        for dependent in task.dependents or ():
            self._near(dependent, task)

    def _follow(
        self,
        worker: WorkerState,
        task: Task,
        batch: list[Task],
        load: float,
        room: int,
        now: float,
    ) -> float:
        """Queue what needs only tasks of this queue right behind them.

        Of branches that workers with nothing to do can take soon it is a fair share.
        """
        helpers = 0
        if not self.ready.count:
            helpers = self._idle_workers - (worker in self.groups[worker.group].idle)
        frontier = [task]
        while frontier:
            dependents: Sequence[Task] = frontier.pop().dependents or ()
            if helpers and load > FOLLOW_S and (frontier or len(dependents) > 1):
                break
            share = len(dependents)
            if helpers and share > 1 and share * self._predict(dependents[0]) > ALONE_S:
                share = -(-share // (helpers + 1))
            for dependent in dependents:
                if not share:
                    break
                if (
                    dependent.stage is not WAITING
                    or dependent.home is not worker
                    or dependent.near != dependent.waiting
                    or len(batch) >= room
                ):
                    continue
                options = dependent.call.options
                predicted = self._predict(dependent)
                if (
                    load + predicted > BATCH_S
                    or options.cpus != worker.cpus
                    or self.admission.need(dependent) > worker.need
                    or options.timeout_s is not None
                    or options.worker not in (None, self.groups[worker.group].address)
                    or (
                        self._distance is not None
                        and self._home_until(dependent, worker.group) == inf
                    )
                    or not wanted(dependent)
                ):
                    continue
                share -= 1
                load += predicted
                self._queue(worker, dependent, now)
                batch.append(dependent)
                frontier.append(dependent)
        return load

    def _lengthen(self, worker: WorkerState, now: float) -> None:
        """Queue what follows the last call of a queue, so that a chain does not wait for us."""
        queue = worker.queue
        last = queue[-1]
        if last.call.options.timeout_s is not None:
            return
        if self.groups[worker.group].resuming:
            return  # calls that waited for nested ones go on before anything new starts
        batch: list[Task] = []
        room = BATCH_TASKS - len(queue)
        load = self._follow(worker, last, batch, worker.load_s, room, now)
        if batch:
            worker.load_s = load
            self._give(worker, batch)

    def _could_move(self, worker: WorkerState, count: int, now: float) -> bool:
        """Whether an idle worker could start one of the last calls of a queue now."""
        for task in islice(reversed(worker.queue), count):
            if not task.waiting:  # else it waits for calls in front of it
                return self._could_run(task, now)
        return False

    def _could_run(self, task: Task, now: float) -> bool:
        """Whether an idle worker could start the task now."""
        options = task.call.options
        for index, group in self._idle.items():
            if (
                options.cpus <= group.free + 1e-9
                and options.worker in (None, group.address)
                and (not task.call.inputs or self._home_until(task, index) <= now)
                and self._fits(self.admission.need(task), group)
            ):
                return True
        return False

    def _balance(self, now: float) -> None:
        """Nothing is ready and a worker is idle: take back what others have too much of."""
        for worker in _some(self._deep):
            if worker.load_s <= BATCH_S and worker.due_at + OVERDUE_S >= now:
                continue
            half = len(worker.queue) // 2
            if self._could_move(worker, half, now):
                self._take_back(worker, half)

    def _start_missing(self, now: float) -> None:
        """Start workers for cores that are free while no worker is."""
        for index in sorted(self._roomy) if len(self._roomy) > 1 else list(self._roomy):
            group = self.groups[index]
            shelf = self.ready.shelf_for(group, None)
            if shelf is None or group.pause_until > now:
                continue
            room = int((group.free + 1e-9) / shelf[0].call.options.cpus)
            missing = min(room, self.ready.count) - group.empty
            if missing > 0 and group.careful:
                missing = 1
                self._pause_starts(group, now)  # or until it is ready
            for _ in range(missing):
                self.start_worker(index)

    def _pause_starts(self, group: Group, now: float) -> None:
        group.pause_until = now + START_PAUSE_S
        self._due(group.pause_until, _START, 0, group)

    def start_worker(self, group: int) -> WorkerId:
        """A new worker of a group; its process is about to be started."""
        self._next_worker += 1
        worker = WorkerState(WorkerId(self._next_worker), group)
        self.workers[worker.id] = worker
        self._changed[worker] = None
        self._sort()
        self._commands.append(StartWorker(worker.id, group))
        return worker.id

    def start_all(self) -> list[Command]:
        """The workers that an engine begins with: one per core."""
        self._commands = []
        for index, group in self.groups.items():
            for _ in range(max(1, int(group.cpus))):
                self.start_worker(index)
        return self._commands

    def _retire(self, worker: WorkerState) -> None:
        """Stop an idle worker when there are more than cores; nested calls need many at times."""
        group = self.groups[worker.group]
        if worker in group.idle and group.usable > max(1, int(group.cpus)):
            del self.workers[worker.id]
            self._changed[worker] = None
            self._sort()
            self._commands.append(StopWorker(worker.id))
