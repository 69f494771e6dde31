"""A small world around the scheduler: workers, channels, a program, faults, and one seed.

Nothing is real but `Scheduler`, `Task` and `Call`. Time is a number; what crosses between two
processes waits in a queue for a random while, in order on one channel, in any order on two. The
simulated worker does what `mars.engines.worker.process` does, the driver what `loop` and `nested`
do. After every event the whole state is checked. Called by `test_scheduler_histories`.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, Final

from mars.engines.local import scheduler as module
from mars.engines.local.admission import OUT_OF_MEMORY
from mars.engines.local.endings import EXCEPTION, FATAL, INTERRUPTED, RETURNED, VALUE
from mars.engines.local.events import (
    Arrived,
    Assign,
    Blocked,
    Cancelled,
    Died,
    Finished,
    Forgotten,
    GaveBack,
    Left,
    Lost,
    Outcome,
    Submitted,
    Tick,
    Unblocked,
    Unkept,
    WorkerReady,
)
from mars.engines.local.scheduler import (
    ARROWS,
    ASSIGNED,
    DONE,
    MADE,
    READY,
    RETRYING,
    WAITING,
    Scheduler,
)
from mars.graph import needed_calls
from mars.settings import (
    CANCEL_GRACE_S,
    FAR_PREFETCH_BELOW_S,
    OBJECT_MEMORY_SHARE,
    PREFETCH_BELOW_S,
    REPORT_S,
)
from mars.task import Call, Output, Task

MAX_STEPS: Final = 6000
"""Events in one history at the most; more means that it never comes to rest."""

PROMPT_S: Final = 0.3
"""A cancelled call ends within the grace time and this, for the messages on their way."""

FOREVER: Final = 10**9


class Broken(AssertionError):
    """A promise of the scheduler does not hold."""


# -- what is watched --------------------------------------------------------------------------

_stage = Task.__dict__["stage"]
_made: list[Watched] = []


class Watched(Task):
    """A task whose every step is checked against `ARROWS`."""

    __slots__ = ("links", "wanted_by")

    def __init__(self, call: Call, realm: Any) -> None:
        super().__init__(call, realm)
        self.links: tuple[Watched, ...] | None = None  # inputs, once it counts as their reader
        self.wanted_by: list[SimRun] = []
        _made.append(self)

    @property
    def stage(self) -> Any:
        return _stage.__get__(self, Watched)

    @stage.setter
    def stage(self, new: Any) -> None:
        try:
            old = _stage.__get__(self, Watched)
        except AttributeError:
            old = new
        else:
            if (old, new) not in ARROWS:
                raise Broken(f"{named(self)}: {old.name} -> {new.name} is no arrow")
        _stage.__set__(self, new)


@contextmanager
def watching() -> Iterator[None]:
    """Have the scheduler make watched tasks for blocks of maps, too."""
    plain = module.Task
    module.Task = Watched  # type: ignore[misc]
    try:
        yield
    finally:
        module.Task = plain  # type: ignore[misc]
        _made.clear()


def named(task: Task) -> str:
    """A task, in a history."""
    if task.source is not None:
        return f"{task.call.name}{list(task.items)}"
    return task.call.name


class SimRun:
    """What the scheduler counts of one `execute`."""

    def __init__(self, name: str, *, stop_on_error: bool, depth: int = 0) -> None:
        self.name = name
        self.live = True
        self.total = self.remaining = self.made = self.done = self.failed = 0
        self.failure: Task | None = None
        self.cancelled = False
        self.stop_on_error = stop_on_error
        self.depth = depth
        self.submitted = False
        self.landed: Any = None
        self.ended_at: float | None = None
        self.given_up = False
        self.joined = False  # some of its tasks were made, or under way, for another run
        self.member: Member | None = None  # who asked for it, when nested
        self.tasks: Sequence[Task] = ()


class Behaviour:
    """What a call does when it is run."""

    __slots__ = (
        "catches", "deadly", "fails", "fatal", "items", "memory", "nested", "seconds", "starts",
        "starved", "stored", "tries",
    )  # fmt: skip

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.fails = 0  # so many first tries raise
        self.fatal = False  # it raises what no further try can help
        self.deadly = 0  # so many first starts kill the worker
        self.catches = ""  # SIGINT: "" lets it through, "ignore" goes on, "value" returns
        self.nested = ""  # "wait", "later" and "beside": how it waits for calls of its own
        self.items: frozenset[int] = frozenset()  # of a map: items that raise
        self.stored = False
        self.memory = 0.0  # bytes that it takes while it runs
        self.starved = 0  # so often it was ended because memory ran out
        self.starts = 0
        self.tries = 0


class Told(Outcome):
    """An outcome that knows which task it is of."""

    token: tuple[Task, int]


class Member:
    """One simulated worker process and the channels to it."""

    def __init__(self, number: int, address: str) -> None:
        self.number = number
        self.address = address
        self.dead = False
        self.buried = False
        self.up = False  # the process runs
        self.stopping = False
        self.queue: deque[tuple[Task, int, list[int], bool]] = deque()
        self.running: tuple[Task, int] | None = None
        self.last = 0  # what the shared memory says is running
        self.broken = False  # a frame of it was torn: nothing more of it is read
        self.starved = False  # the kernel ended it because memory ran out
        self.serial = 0  # of the running call's next step: others are out of date
        self.phase = ""
        self.kept: set[int] = set()
        self.outbox: list[Told] = []
        self.told: list[Told] = []  # reported last
        self.reported_at = 0.0
        self.data: deque[Callable[[], None]] = deque()
        self.control: deque[Callable[[], None]] = deque()
        self.upwards: deque[Callable[[], None]] = deque()
        self.free_at = [0.0, 0.0, 0.0]  # when the last message of a channel arrives
        self.waiting: set[int] = set()  # requests of threads that wait for nested calls
        self.requests = 0
        self.request = 0  # of the main thread
        self.resume: Callable[[], None] = lambda: None


class Asker:
    """What the running attempt of a worker has asked for."""

    def __init__(self, attempt: int, realm: World) -> None:
        self.attempt = attempt
        self.realm = realm
        self.calls: list[Call] = []
        self.run: SimRun | None = None
        self.waiting = 0  # the request that waits for the run
        self.held = 0  # the request that waits for the worker's cores


class World:
    """One history."""

    def __init__(self, seed: int, groups: Sequence[tuple[str, float]], log: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.log: list[str] | None = [] if log else None
        self.now = 0.0
        self.memory = inf  # bytes of the machine
        self.objects = 0.0  # and those of them that objects take
        self.object_bytes = 0.0  # size of a stored result
        self.unkept: set[Call] = set()
        self.no_room = 0.1  # and of them, so many have none when they arrive
        self.early = 0.0  # so many large values are told of before they are here
        self.copies: dict[int, int] = {}  # attempts whose values another group has got: which
        self.copying = random.Random(f"copies {seed}")
        self.lost_makers = 0.0  # so many groups are lost when another one has got what they made
        self.scheduler = Scheduler(
            groups, lambda: self.memory - self.objects, self._distance,
            FAR_PREFETCH_BELOW_S if len(groups) > 1 else PREFETCH_BELOW_S,
        )  # fmt: skip
        self.addresses = [address for address, _ in groups]
        self.number_at = list(self.scheduler.groups)  # of the group that is at a place now
        self.place_of = {number: place for place, number in enumerate(self.number_at)}
        self.members: dict[int, Member] = {}
        self.gone: set[int] = set()
        self.askers: dict[int, Asker] = {}
        self.runs: list[SimRun] = []
        self.behaviours: dict[Call, Behaviour] = {}
        self.tasks = _made
        self.tasks.clear()
        self.live: dict[tuple[Call, int], int] = {}  # (call, item) -> running attempts
        self.shipped: set[int] = set()  # attempts whose values are, or were, on their way
        self.regions: dict[int, str] = {}  # stored results of attempts: held, freed
        self.accepted: set[int] = set()
        self.highest = 0
        self.take_backs = 0
        self.kills = 0
        self.overdrawn: set[str] = set()
        self.steps = 0
        self.faults = Counter[str]()
        self.death_rate = 0.0
        self.start_death_rate = 0.0
        self.leave_rate = 0.0
        self.latency_s = 1e-4
        self.lazy_reports = 0.5
        self.duplicates = 0.0
        self.torn = 0.0
        self.begun: set[Task] = set()
        self.make_nested: Callable[[World, Member, int], list[Call]] = lambda *_: []
        self.on_run_end: Callable[[SimRun], None] = lambda _: None
        self.calls_made = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._events: deque[Any] = deque()
        self._busy = False
        self._ticks = 0

    # -- values that are on their way ----------------------------------------------------------

    def _distance(self, task: Task, index: int) -> float:
        """What `RemoteLoop` says: values that are not here are nowhere but in their group."""
        seconds = 0.0
        for call, _ in task.call.inputs:
            source = call.task_in(task.realm)
            assert source is not None
            if source.early and not self._has(index, source):
                return inf
            if source.stored and source.attempt % len(self.addresses) != self.place_of[index]:
                seconds += 0.01
        return seconds

    def _has(self, index: int, source: Task) -> bool:
        """Whether a value that is not here is in a group."""
        made_in = self.scheduler.made_in[source.attempt][1]
        return index in (made_in, self.copies.get(source.attempt))

    def _ship(self, outcomes: Sequence[Outcome]) -> None:
        for attempt in [one.attempt for one in outcomes if one.early]:
            if attempt not in self.shipped:
                self.shipped.add(attempt)
                if len(self.addresses) > 1 and self.copying.random() < 0.8:
                    self.after(
                        0.003 * (self.copying.random() > 0.7), lambda one=attempt: self._copy(one)
                    )  # type: ignore[misc]
                self.after(
                    self.rng.choice((0.01, 1.0)) * self.rng.random(),
                    lambda attempt=attempt: self._value_comes(attempt),  # type: ignore[misc]
                )

    def _value_comes(self, attempt: int) -> None:
        task, _ = self.scheduler.made_in.get(attempt, (None, 0))
        read = task is not None and any(one.stage is ASSIGNED for one in task.dependents or ())
        if task is None or read or self.copying.random() > self.no_room:
            self.on(Arrived([attempt]))
            return
        self.faults["no room"] += 1
        self.copies.pop(attempt, None)
        self.accepted.discard(attempt)
        self.behaviours[task.call].fatal = True  # what the model goes by
        self.unkept.add(task.call)
        for run in task.wanted_by:  # type: ignore[attr-defined]
            run.joined = True  # it may have ended without what was only needed to feed others
        self.on(Unkept(attempt, ("no room", attempt)))

    def _copy(self, attempt: int) -> None:
        """Another group has got a value from the one that made it, if that is still early."""
        made = self.scheduler.made_in.get(attempt)
        if made is None:
            return
        task, group = made
        place = self.place_of[group]
        other = self.number_at[(place + 1) % len(self.addresses)]
        if task.early and other in self.scheduler.groups:
            self.faults["copied"] += 1
            self.copies[attempt] = other
            self.on(Tick())
            if self.copying.random() < self.lost_makers:
                self.lose(place)

    def lose(self, place: int) -> None:
        """A group is lost, with all that is in it; after a moment there is another like it."""
        state = self.scheduler
        index = self.number_at[place]
        if index not in state.groups:
            return
        cpus = state.groups[index].cpus
        self.copies = {one: where for one, where in self.copies.items() if where != index}
        made = [task for task, where in state.made_in.values() if where == index]
        lost = [task for task in made if task.attempt not in self.copies]
        handed = {one.attempt: self.copies.pop(one.attempt) for one in made if one not in lost}
        self.faults["lost"] += 1
        self.faults["handed on"] += len(handed)
        self.faults["lost value"] += len(lost)
        self.accepted.difference_update(task.attempt for task in lost)
        for task in lost:
            for run in task.wanted_by:  # type: ignore[attr-defined]
                run.joined = True  # what it only needed to feed others may not be made again
        self.on(Lost(index, lambda task: ("lost", task.attempt), handed))
        for number, worker in list(state.workers.items()):
            if worker.group == index:
                member = self.members[number]
                member.upwards.clear()
                member.outbox, member.told = [], []
                self._die(member, "with its group")
                self._bury(member)

        if index in state.groups:
            raise Broken(f"group {index} was lost, its workers are gone, and it stays")

        def come_back() -> None:
            self.number_at[place] = state.add_group(self.addresses[place], cpus)
            self.place_of[self.number_at[place]] = place
            self.on(Tick())

        self.after(0.05, come_back)

    def _do_Fetch(self, command: Any) -> None:
        """A hint."""

    def _do_Needed(self, command: Any) -> None:
        """It comes in its time."""

    def _do_Unneeded(self, command: Any) -> None:
        self.faults["unneeded"] += 1

    # -- time ---------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have something happen at a time."""
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def delay(self) -> float:
        """How long one message is on its way."""
        rng = self.rng
        return self.latency_s * rng.random() * (1 if rng.random() < 0.9 else 30)

    def say(self, *words: object) -> None:
        if self.log is not None:
            self.log.append(f"{self.now:10.6f} " + " ".join(map(str, words)))

    def start(self) -> None:
        """Start the workers that an engine begins with."""
        self._carry_out(self.scheduler.start_all())

    def play(self) -> None:
        """Let everything happen until all is quiet."""
        heap = self._heap
        while True:
            due = self.scheduler.next_timer()
            if heap and (due is None or heap[0][0] <= due):
                when, _, action = heapq.heappop(heap)
                if when > self.now:
                    self.now = when
                    self._ticks = 0
                action()
            elif due is not None:
                if due > self.now:
                    self.now = due
                    self._ticks = 0
                self._ticks += 1
                if self._ticks > 20:
                    raise Broken("the timer is due again and again at the same time")
                self.on(Tick())
            else:
                return
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Broken("it does not come to rest")

    # -- the driver: what `loop` does ---------------------------------------------------------

    def on(self, event: Any) -> None:
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                event = self._events.popleft()
                if self.log is not None:
                    self.say("EVENT", show(event))
                blocked = [one for one in self.scheduler.workers.values() if one.blocked]
                commands = self.scheduler.on(event, self.now)
                for one in blocked:
                    # A blocked call ended, and its worker begins the next one of its queue
                    # without asking: the one case in which cores are lent twice.
                    if one.queue and one.claim and type(event) is Finished:
                        self.overdrawn.add(self.scheduler.groups[one.group].address)
                if type(event) is Submitted:
                    self._note_links(event)
                elif type(event) is Finished:
                    self._check_results(event)
                self._carry_out(commands)
                if not self._events:
                    self.check()
        finally:
            self._busy = False

    def _note_links(self, event: Submitted) -> None:
        run: Any = event.run
        for task in event.tasks:
            known: Any = task.call.task_in(task.realm)
            if known is not task:
                run.joined = True
            if known is not None:
                for other in known.wanted_by if known.items is not None else ():
                    other.joined = True  # items that failed for it may run again for this one
                known.wanted_by.append(run)
                if known is task:
                    task.links = tuple(  # type: ignore[attr-defined]
                        dict.fromkeys(call.task_in(task.realm) for call, _ in task.call.inputs)
                    )

    def _check_results(self, event: Finished) -> None:
        for outcome in event.outcomes:
            task, attempt = outcome.token  # type: ignore[attr-defined]
            ended = task.stage in (MADE, DONE)
            if outcome.status == VALUE and ended and task.attempt == attempt:
                self.accepted.add(attempt)

    def _carry_out(self, commands: Sequence[Any]) -> None:
        for command in commands:
            if self.log is not None:
                self.say("    ", show(command))
            kind = type(command).__name__
            worker = getattr(command, "worker", None)
            known = worker in self.members and worker not in self.gone
            if worker is not None and kind != "StartWorker" and not known:
                raise Broken(f"{kind} for worker {worker}, which has gone")
            getattr(self, f"_do_{kind}")(command)

    def _do_StartWorker(self, command: Any) -> None:
        member = Member(command.worker, self.addresses[self.place_of[command.group]])
        self.members[command.worker] = member
        self.after(self.rng.choice((0.0, 0.002, 0.01, 0.05)), lambda: self._process_starts(member))

    def _do_StopWorker(self, command: Any) -> None:
        member = self.members[command.worker]
        self.gone.add(command.worker)
        self.down(member, lambda: self._take_stop(member))

    def _do_Assign(self, command: Assign) -> None:
        member = self.members[command.worker]
        state = self.scheduler.workers[command.worker]
        group = self.scheduler.groups[state.group]
        message = []
        for task in command.tasks:
            if task.stage is not ASSIGNED or task.worker is not state:
                raise Broken(f"{named(task)} is sent without being assigned")
            if task.attempt <= self.highest:
                raise Broken(f"attempt {task.attempt} is used twice")
            self.highest = task.attempt
            runs = task.runs if task.source is None else task.source.runs
            if not any(run.live for run in runs):
                raise Broken(f"{named(task)} is started, and no live run wants it")
            if task.call.options.worker not in (None, group.address):
                raise Broken(f"{named(task)} is sent to the wrong group")
            local = []
            for call, _ in task.call.inputs:
                source = call.task_in(task.realm)
                if source is None:
                    raise Broken(f"{named(task)} reads {call.name}, which was released")
                if source.stage is DONE:
                    if source.released:
                        raise Broken(f"{named(task)} reads {named(source)}, which was released")
                    continue
                if source.early:
                    if not self._has(state.group, source):
                        raise Broken(f"{named(task)} is sent where {named(source)} is not")
                    self.faults["early"] += 1
                    continue
                if source.worker is not state or source.attempt >= task.attempt:
                    raise Broken(f"{named(task)} is not queued behind its input {named(source)}")
                local.append(source.attempt)
            message.append((task, task.attempt, local, task.dependents is not None))
        self._check_memory(state, command.tasks)
        self.down(member, lambda: self._take_tasks(member, message))

    def _check_memory(self, state: Any, tasks: Sequence[Task]) -> None:
        """What starts beside others fits beside them, by what is known of it."""
        if list(state.queue) != list(tasks):
            return  # queued behind others
        others = [one for one in self.scheduler.workers.values() if one.queue and one is not state]
        if all(one.blocked for one in others):
            return
        asked = sum(one.queue[0].call.options.memory or 0 for one in (state, *others))
        # Alone, and beside calls that wait for their own, a call is tried in any case.
        mattered = any(one.queue[0].call.options.memory and not one.blocked for one in others)
        if tasks[0].call.options.memory and mattered and asked > self.memory - self.objects:
            raise Broken(f"{named(tasks[0])} starts, and does not fit")
        if any(one.queue[0].blame == OUT_OF_MEMORY for one in (state, *others)):
            raise Broken(f"{named(tasks[0])} starts beside one that has to run alone")

    def _do_TakeBack(self, command: Any) -> None:
        self.take_backs += 1
        member = self.members[command.worker]
        if command.most < 1:
            raise Broken("takes back nothing")
        self.down(member, lambda: self._give_back(member, command.most), control=True)

    def _do_Report(self, command: Any) -> None:
        member = self.members[command.worker]
        self.down(member, lambda: self._report(member), control=True)

    def _do_Interrupt(self, command: Any) -> None:
        member = self.members[command.worker]
        self.after(self.delay(), lambda: self._interrupted(member, command.attempt))

    def _do_Kill(self, command: Any) -> None:
        member = self.members[command.worker]
        self.kills += 1
        state = self.scheduler.workers[command.worker]
        blamed = state.stopping

        def kill() -> None:
            if not member.dead:
                if member.running is not None and member.running[1] != blamed:
                    raise Broken(f"{named(member.running[0])} is killed in place of {blamed}")
                self._die(member, "killed")

        self.after(self.delay(), kill)

    def _do_Resume(self, command: Any) -> None:
        member = self.members[command.worker]
        asker = self.askers.get(member.number)
        if asker is not None and asker.held:
            held, asker.held = asker.held, 0
            self._reply(member, held)

    def _do_Release(self, command: Any) -> None:
        for task in command.tasks:
            for attempt in stored_attempts(task):
                self._free(attempt)
            task.result = None

    def _do_Discard(self, command: Any) -> None:
        attempt = command.result[1] if command.result[0] == "value" else command.result[0][1]
        if attempt in self.accepted:
            raise Broken(f"the accepted result of attempt {attempt} is discarded")
        self._free(attempt)

    def _free(self, attempt: int) -> None:
        if self.regions.get(attempt) == "freed":
            raise Broken(f"the result of attempt {attempt} is given back twice")
        self.regions[attempt] = "freed"
        self._count_objects()

    def _count_objects(self) -> None:
        """Memory that stored results take; beyond the budget they are on disk."""
        held = sum(state == "held" for state in self.regions.values()) * self.object_bytes
        budget = OBJECT_MEMORY_SHARE * self.memory
        if held > budget:
            self.faults["spill"] += 1
        self.objects = min(held, budget)

    def _do_RunEnded(self, command: Any) -> None:
        run: SimRun = command.run
        if run.ended_at is not None:
            raise Broken(f"run {run.name} ends twice")
        if run.live:
            raise Broken(f"run {run.name} has ended and is live")
        run.ended_at = self.now
        member = run.member
        asker = self.askers.get(member.number) if member is not None else None
        if asker is not None and asker.run is run and asker.waiting:
            asker.held, asker.waiting = asker.waiting, 0
            self.on(Unblocked(member.number))  # type: ignore[union-attr, arg-type]
        self.on_run_end(run)

    def _do_GiveUp(self, command: Any) -> None:
        self.faults["gave up"] += 1
        for run in self.runs:
            if run.submitted and run.live:
                run.given_up = True
                self.on(Cancelled(run))

    def _do_Closed(self, command: Any) -> None:
        self.faults["closed"] += 1
        there = [group for group in self.scheduler.groups.values() if not group.closed]
        for task in list(self.scheduler.ready):
            options = task.call.options
            if any(
                options.cpus <= one.cpus and options.worker in (None, one.address) for one in there
            ):
                continue
            for run in task.runs if task.source is None else task.source.runs:
                if run.live:
                    run.given_up = True  # type: ignore[attr-defined]
                    self.on(Cancelled(run))

    # -- the program --------------------------------------------------------------------------

    def forget(self, task: Task) -> None:
        """`Realm.forget`, as the engine has it."""
        if task.finished and not task.stored:
            if not task.consumers:
                task.released = True
                task.call.leave(task)
        else:
            self.after(self.delay(), lambda: self.on(Forgotten([task])))

    def submit(
        self, targets: Sequence[Call], *, stop_on_error: bool, name: str = ""
    ) -> SimRun | None:
        """Execute calls; None when their results are all there."""
        run = SimRun(name or f"R{len(self.runs) + 1}", stop_on_error=stop_on_error)
        calls = needed_calls(targets, self)
        if not calls:
            return None
        tasks = []
        for call in calls:
            task = Watched(call, self)
            task.asked = call in targets
            call.begin(task)
            tasks.append(task)
        self.runs.append(run)
        run.tasks = tasks
        held = [Output(call, 0) for call in calls]  # as an execution holds them

        def arrive() -> None:
            run.submitted = True
            self.on(Submitted(run, tasks))
            held.clear()

        self.after(self.delay(), arrive)
        return run

    def cancel(self, run: SimRun) -> None:
        """Cancel a run, unless it has ended."""
        if run.submitted and run.live:
            self.faults["cancel"] += 1
            self.on(Cancelled(run))

    # -- the process: what `worker` does ------------------------------------------------------

    def down(self, member: Member, action: Callable[[], None], *, control: bool = False) -> None:
        """Send a message to a worker."""
        channel = member.control if control else member.data
        channel.append(action)
        when = max(self.now + self.delay(), member.free_at[control])
        member.free_at[control] = when
        self.at(when, lambda: self._arrive(member, channel))

    def _arrive(self, member: Member, channel: deque[Callable[[], None]]) -> None:
        if channel and not member.dead:
            if not member.up:  # what is sent to a process that starts waits for it
                self.after(0.001, lambda: self._arrive(member, channel))
                return
            channel.popleft()()
            self._maybe_die(member)

    def _send(self, member: Member, action: Callable[[], None]) -> None:
        """Send a message to the driver, after what has been finished before it."""
        self._report(member)
        self._send_only(member, action)

    def _send_only(self, member: Member, action: Callable[[], None]) -> None:
        if member.dead:
            return
        if self.rng.random() < self.torn:
            action = lambda: self._tear(member)
        member.upwards.append(action)
        when = max(self.now + self.delay(), member.free_at[2])
        member.free_at[2] = when

        def arrive() -> None:
            if member.upwards and not member.buried:
                action = member.upwards.popleft()
                if not member.broken:
                    action()

        self.at(when, arrive)

    def _tear(self, member: Member) -> None:
        """What comes is no frame: the driver reads nothing more, and ends the process."""
        self.faults["torn"] += 1
        member.broken = True
        self._die(member, "after a torn frame")

    def _process_starts(self, member: Member) -> None:
        if self.rng.random() < self.start_death_rate:
            self._die(member, "at its start")
            return
        member.up = True
        self._send(member, lambda: self.on(WorkerReady(member.number)))  # type: ignore[arg-type]

    def _take_stop(self, member: Member) -> None:
        if member.queue or member.running:
            raise Broken(f"worker {member.number} is stopped with work in its queue")
        self._die(member, "")

    def _take_tasks(self, member: Member, message: Sequence[Any]) -> None:
        member.queue.extend(message)
        if member.waiting:
            self._give_up_queue(member)
        if member.running is None:
            self._next(member)

    def _give_back(self, member: Member, count: int) -> None:
        if member.running is not None and member.phase != "waiting":
            while member.data:  # nobody reads: the second thread does
                member.data.popleft()()
        self._give_up_queue(member, count)

    def _give_up_queue(self, member: Member, count: int = FOREVER) -> None:
        given: list[int] = []
        while len(given) < count and member.queue:
            given.append(member.queue.pop()[1])
        self._send(member, lambda: self.on(GaveBack(member.number, given)))  # type: ignore[arg-type]

    def _report(self, member: Member) -> None:
        if member.outbox and not member.dead:
            outcomes, member.outbox = member.outbox, []
            member.told = outcomes
            member.reported_at = self.now
            self._send_only(member, lambda: self._take_records(member, outcomes))

    def _next(self, member: Member) -> None:
        """The main thread has nothing to do: the next call, or sleep."""
        while member.queue and not member.dead:
            task, attempt, local, keep = member.queue.popleft()
            member.last = attempt
            if all(source in member.kept for source in local):
                self._begin(member, task, attempt, keep)
                return
            self._finish(member, task, attempt, Told(attempt, RETURNED, 0.0))
        if not member.dead:
            self._report(member)

    def _keys(self, task: Task) -> list[tuple[Call, int]]:
        if task.items is None:
            return [(task.call, -1)]
        return [(task.call, index) for index in task.items]

    def _begin(self, member: Member, task: Task, attempt: int, keep: bool) -> None:
        whole: Any = task if task.source is None else task.source
        asked_again = any(run.cancelled for run in whole.wanted_by)
        if task in self.begun and not task.call.options.death_retries and not asked_again:
            raise Broken(f"{named(task)} is begun again after a death that it must not have")
        if not task.call.options.retries:
            self.begun.add(task)
        for key in self._keys(task):
            if self.live.get(key):
                raise Broken(f"{named(task)} runs twice at once")
            self.live[key] = attempt
        member.running = (task, attempt)
        member.phase = "running"
        self.say("        worker", member.number, "starts", named(task), "attempt", attempt)
        behaviour = self.behaviours[task.call]
        behaviour.starts += 1
        seconds = behaviour.seconds * (1 if task.items is None else len(task.items))
        running = [one for one in self.members.values() if one.running is not None]
        taken = sum(self.behaviours[one.running[0].call].memory for one in running)  # type: ignore[index]
        if behaviour.memory and taken > self.memory - self.objects:
            self.faults["starved"] += 1
            behaviour.starved += 1
            member.starved = True
            self._later(member, seconds * self.rng.random(), lambda: self._die(member, "memory"))
        elif behaviour.starts <= behaviour.deadly:
            self._later(member, seconds * self.rng.random(), lambda: self._die(member, "the call"))
        elif behaviour.nested:
            self._later(member, seconds / 2, lambda: self._ask(member, task, attempt, keep))
        elif self.rng.random() < self.death_rate:
            self._later(member, seconds * self.rng.random(), lambda: self._die(member, "chance"))
        else:
            self._later(member, seconds, lambda: self._end(member, task, attempt, keep))

    def _later(self, member: Member, seconds: float, action: Callable[[], None]) -> None:
        member.serial += 1
        serial = member.serial

        def act() -> None:
            if member.serial == serial and not member.dead:
                action()

        self.after(seconds, act)

    def _end(self, member: Member, task: Task, attempt: int, keep: bool) -> None:
        """The function returns or raises."""
        behaviour = self.behaviours[task.call]
        seconds = behaviour.seconds * (1 if task.items is None else len(task.items))
        if task.items is not None:
            bad = {o: b"" for o, index in enumerate(task.items) if index in behaviour.items}
            result: Any = (("value", attempt), bad, None)
            outcome = Told(attempt, VALUE, seconds, result, behaviour.stored, len(bad))
        elif behaviour.fatal:
            outcome = Told(attempt, FATAL, seconds, ("raised", attempt))
        elif behaviour.tries < behaviour.fails:
            behaviour.tries += 1
            outcome = Told(attempt, EXCEPTION, seconds, ("raised", attempt))
        else:
            outcome = Told(attempt, VALUE, seconds, ("value", attempt), behaviour.stored)
            if keep:
                member.kept.add(attempt)
        self._finish(member, task, attempt, outcome)
        if not member.dead:
            if self.leave_rate and self.rng.random() < self.leave_rate:
                self._leave(member)
            else:
                self._next(member)

    def _leave(self, member: Member) -> None:
        """The call has spoiled its process, which is to run no other."""
        self.faults["leave"] += 1
        self._report(member)
        self._send_only(member, lambda: self.on(Left(member.number)))  # type: ignore[arg-type]
        self._die(member, "")

    def _finish(self, member: Member, task: Task, attempt: int, outcome: Told) -> None:
        self._over(member)
        outcome = outcome._replace(peak=int(self.behaviours[task.call].memory))
        if outcome.stored and task.items is None and self.rng.random() < self.early:
            outcome = outcome._replace(early=True)
        outcome.token = (task, attempt)
        if outcome.stored:
            self.regions[attempt] = "held"
            self._count_objects()
        member.outbox.append(outcome)
        if self._maybe_die(member):
            return
        if self.now - member.reported_at > REPORT_S or self.rng.random() > self.lazy_reports:
            self._report(member)
            self._maybe_die(member)

    def _over(self, member: Member) -> None:
        """The running attempt runs no more."""
        if member.running is None:
            return
        task, attempt = member.running
        member.running = None
        member.phase = ""
        member.serial += 1
        for key in self._keys(task):
            if self.live.pop(key) != attempt:
                raise Broken(f"{named(task)} ran twice")
        whole: Any = task if task.source is None else task.source
        runs = whole.wanted_by
        if runs and all(run.cancelled for run in runs):
            since = max(run.ended_at for run in runs)
            if self.now > since + CANCEL_GRACE_S + PROMPT_S:
                raise Broken(
                    f"{named(task)} ran {self.now - since:.2f} s on after it was cancelled"
                )

    def _interrupted(self, member: Member, attempt: int) -> None:
        if member.dead or member.running is None or member.running[1] != attempt:
            return
        task, _ = member.running
        catches = self.behaviours[task.call].catches
        if catches == "ignore":
            return
        self.faults["interrupt"] += 1
        if catches == "value":
            self._end(member, task, attempt, False)
            return
        if member.phase == "waiting":
            member.waiting.discard(member.request)
        result = ("raised", attempt)
        self._finish(member, task, attempt, Told(attempt, INTERRUPTED, 0.1, result))
        if not member.dead:
            self._next(member)

    # -- deaths -------------------------------------------------------------------------------

    def _maybe_die(self, member: Member) -> bool:
        if not member.dead and self.death_rate and self.rng.random() < self.death_rate / 4:
            self._die(member, "between messages")
        return member.dead

    def _die(self, member: Member, why: str) -> None:
        if member.dead:
            return
        if why:
            self.faults["death"] += 1
        self.say("        worker", member.number, "dies:", why or "it was stopped")
        self._over(member)
        member.dead = True
        self.after(self.delay() * 5, lambda: self._bury(member))

    def _bury(self, member: Member) -> None:
        """`Loop._bury`: the end of a process is certain."""
        if member.buried:
            return
        while member.upwards and not member.broken:
            member.upwards.popleft()()
        unreported = member.outbox
        if self.rng.random() < 0.3:  # it was told, and had no time to cross it out
            unreported = member.told + unreported
        if unreported:
            self.on(Finished(member.number, unreported))  # type: ignore[arg-type]
            self._ship(unreported)
            self._attempt_ended(member)
        member.buried = True
        state = self.scheduler.workers.get(member.number)  # type: ignore[call-overload]
        started = member.last
        self._drop_asker(member)
        self.on(
            Died(
                member.number,  # type: ignore[arg-type]
                started,
                lambda task: ("died", task.attempt),
                starved=member.starved,
                peak=int(self._peak_of(state, started)),
            )
        )
        self.gone.add(member.number)

    def _peak_of(self, state: Any, started: int) -> float:
        queue = () if state is None else state.queue
        return sum(self.behaviours[one.call].memory for one in queue if one.attempt == started)

    # -- records ------------------------------------------------------------------------------

    def _take_records(self, member: Member, outcomes: list[Told]) -> None:
        self.on(Finished(member.number, outcomes))  # type: ignore[arg-type]
        self._ship(outcomes)
        self._attempt_ended(member)
        if self.rng.random() < self.duplicates:
            self.faults["duplicate"] += 1
            self._send_only(member, lambda: self._take_records(member, outcomes))

    # -- nested calls: what `nested` does -----------------------------------------------------

    def _ask(self, member: Member, task: Task, attempt: int, keep: bool) -> None:
        """The running call submits calls of its own, and waits for them or not."""
        behaviour = self.behaviours[task.call]
        half = behaviour.seconds / 2
        depth = 1 + (task.wanted_by[0].depth if task.wanted_by else 0)  # type: ignore[attr-defined]
        self._send(member, lambda: self._submit_nested(member, depth))

        def go_on() -> None:
            self._end(member, task, attempt, keep)

        if behaviour.nested == "later":  # it does something else meanwhile
            self._later(member, half, lambda: self._wait(member, half, go_on))
        elif behaviour.nested == "beside":  # another thread waits; the call ends
            self._ask_to_wait(member)
            self._later(member, half, go_on)
        else:
            self._wait(member, half, go_on)

    def _wait(self, member: Member, half: float, go_on: Callable[[], None]) -> None:
        member.phase = "waiting"
        self._ask_to_wait(member)
        member.serial += 1
        serial = member.serial

        def resume() -> None:
            if member.serial == serial and member.phase == "waiting":
                member.phase = "running"
                self._later(member, half, go_on)

        member.resume = resume

    def _ask_to_wait(self, member: Member) -> None:
        member.requests += 1
        request = member.request = member.requests
        member.waiting.add(request)
        self._send(member, lambda: self._take_wait(member, request))
        self._give_up_queue(member)

    def _submit_nested(self, member: Member, depth: int) -> None:
        state = self.scheduler.workers.get(member.number)  # type: ignore[call-overload]
        if state is None or not state.queue:
            raise Broken("a call that asks for calls is not at the head of its queue")
        self._drop_asker(member)
        asker = self.askers[member.number] = Asker(state.queue[0].attempt, self)
        asker.calls = self.make_nested(self, member, depth)
        run = SimRun(f"N{len(self.runs) + 1}", stop_on_error=self.rng.random() < 0.7, depth=depth)
        run.member, run.submitted = member, True
        asker.run = run
        self.runs.append(run)
        tasks = []
        for call in asker.calls:
            call.handles += 1
            task = Watched(call, self)
            call.begin(task)
            tasks.append(task)
        run.tasks = tasks
        self.on(Submitted(run, tasks))

    def _take_wait(self, member: Member, request: int) -> None:
        asker = self.askers.get(member.number)
        if asker is None or asker.run is None or asker.run.ended_at is not None:
            self._reply(member, request)
            return
        asker.waiting = request
        self.on(Blocked(member.number))  # type: ignore[arg-type]

    def _reply(self, member: Member, request: int) -> None:
        def take() -> None:
            if request in member.waiting:  # else an interrupt ended the wait
                member.waiting.discard(request)
                if member.phase == "waiting" and member.request == request:
                    member.resume()

        self.down(member, take)

    def _attempt_ended(self, member: Member) -> None:
        asker = self.askers.get(member.number)
        if asker is None:
            return
        state = self.scheduler.workers.get(member.number)  # type: ignore[call-overload]
        if state is None or not state.queue or state.queue[0].attempt != asker.attempt:
            self._drop_asker(member)

    def _drop_asker(self, member: Member) -> None:
        asker = self.askers.pop(member.number, None)
        if asker is None:
            return
        if asker.run is not None and asker.run.live:
            self.on(Cancelled(asker.run))
        if (asker.waiting or asker.held) and not member.dead:
            self._reply(member, asker.waiting or asker.held)
        for call in asker.calls:
            call.drop()

    # -- checks -------------------------------------------------------------------------------

    def _check_indices(self) -> None:
        """What is kept so that nobody looks at all groups and workers is what a look would find."""
        state = self.scheduler
        groups = state.groups.items()
        if state._idle.keys() != {number for number, group in groups if group.idle}:
            raise Broken("groups with idle workers are not those that are noted")
        if state._idle_workers != sum(len(group.idle) for _, group in groups):
            raise Broken("the number of idle workers is wrong")
        if not {number for number, group in groups if group.free > 1e-9} <= state._roomy.keys():
            raise Broken("a group with free cores is not noted")
        if state._resuming.keys() != {number for number, group in groups if group.resuming}:
            raise Broken("groups with workers that resume are not those that are noted")
        for _, group in groups:
            sharing = {number for number, other in groups if other.taken is group.taken}
            busy = [w for w in state.workers.values() if w.group in sharing and w.queue]
            needs = [worker.need for worker in busy]
            if not state._counts_memory:
                continue
            if group.taken.running != sum(not worker.blocked for worker in busy):
                raise Broken(f"{group.address}: the number of calls that run is wrong")
            if group.taken.whole != needs.count(inf):
                raise Broken(f"{group.address}: the number of calls that run alone is wrong")
            if abs(group.taken.finite - sum(need for need in needs if need < inf)) > 1e-3:
                raise Broken(f"{group.address}: the memory of calls that run is wrong")

    def check(self) -> None:
        """What holds after every event."""
        state = self.scheduler
        held = dict.fromkeys(state.groups, 0.0)
        for worker in state.workers.values():
            queue = worker.queue
            held[worker.group] += worker.claim
            if worker.blocked and not queue:
                raise Broken(f"worker {worker.id} is blocked and runs nothing")
            if worker.claim != (worker.cpus if queue and not worker.blocked else 0):
                raise Broken(f"worker {worker.id} claims {worker.claim} cores")
            if worker.resuming and not worker.blocked:
                raise Broken(f"worker {worker.id} resumes and is not blocked")
            if worker.stopping and (not queue or queue[0].attempt != worker.stopping):
                raise Broken(f"worker {worker.id} stops attempt {worker.stopping}, not its head")
            if worker.kill_at and not worker.stopping:
                raise Broken(f"worker {worker.id} is about to be killed for nothing")
            for task in queue:
                if task.worker is not worker or task.stage is not ASSIGNED:
                    raise Broken(f"{named(task)} is in a queue and not assigned to it")
                if task.call.options.cpus != worker.cpus:
                    raise Broken(f"{named(task)} is queued behind tasks of another shape")
        for number, claimed in held.items():
            group = state.groups[number]
            if abs(group.cpus - group.free - claimed) > 1e-6:
                raise Broken(f"{group.address}: {claimed} claimed, {group.free} free")
            over = group.cpus and claimed > group.cpus + 1e-6  # none: it is lost
            if over and group.address not in self.overdrawn:
                raise Broken(
                    f"{group.address}: {claimed} of {group.cpus} claimed, {group.free} free"
                )
        if not state._changed:  # else they are brought up to date with the next event
            self._check_indices()
        counts: Counter[Any] = Counter()
        made: Counter[Any] = Counter()
        readers: Counter[Any] = Counter()
        ready = maybe_ready = 0
        for task in self.tasks:
            stage = task.stage
            if (stage is ASSIGNED) != (task.worker is not None):
                raise Broken(f"{named(task)} is {stage.name} and has worker {task.worker}")
            if stage is READY and (task.items is None or task.source or len(task.items)):
                if task.blocks and not any(run.live for run in task.runs):
                    maybe_ready += 1  # ends with the blocks that run
                else:
                    ready += 1
            if stage < DONE:
                if task.links:
                    for source in task.links:
                        readers[source] += 1
                    if stage in (WAITING, READY, RETRYING):
                        waits = sum(
                            source.stage is not DONE and not source.early for source in task.links
                        )
                        if waits != task.waiting:
                            raise Broken(f"{named(task)} waits for {waits}, counts {task.waiting}")
            elif task.runs:
                raise Broken(f"{named(task)} has ended and belongs to runs")
            if (stage is MADE) != (
                task.attempt in state.made_in and state.made_in[task.attempt][0] is task
            ):
                raise Broken(f"{named(task)} is {stage.name}, and its value is elsewhere")
            if task.early and stage is not MADE:
                raise Broken(f"{named(task)} is {stage.name} and early")
            for run in task.runs:
                counts[run] += 1
                made[run] += task.early and not task.asked
        count = state.ready.count
        if count != ready:  # a map that ended with its last block may stand there still
            count -= sum(task.stage >= DONE for task in state.ready if task.items is not None)
        if not ready <= count <= ready + maybe_ready:
            raise Broken(f"{ready} tasks are ready, {state.ready.count} queued")
        for task in self.tasks:
            if task.consumers != readers[task]:
                raise Broken(f"{named(task)} has {readers[task]} readers, counts {task.consumers}")
        for run in self.runs:
            if run.submitted:
                if counts[run] != run.remaining:
                    raise Broken(f"{run.name}: {counts[run]} remain, {run.remaining} counted")
                if made[run] != run.made:
                    raise Broken(f"{run.name}: {made[run]} are made, {run.made} counted")
                if run.remaining == run.made and run.live:
                    raise Broken(f"{run.name} has nothing left and is live")

    def check_quiet(self) -> None:
        """What holds when nothing happens any more."""
        state = self.scheduler
        for run in self.runs:
            if run.live:
                raise Broken(f"silent hang: {run.name} never ends")
            if run.ended_at is None:
                raise Broken(f"nobody was told that {run.name} ended")
            whole = not run.joined and not run.cancelled and not run.failure
            if whole and run.done + run.failed != run.total:
                raise Broken(f"{run.name}: {run.done} + {run.failed} of {run.total}")
        for task in self.tasks:
            if task.stage < DONE and task.links is not None:
                raise Broken(f"{named(task)} is left {task.stage.name}")
        for worker in state.workers.values():
            if worker.queue or worker.blocked or worker.claim or worker.taking_back:
                raise Broken(f"worker {worker.id} is not idle")
            if not worker.ready:
                raise Broken(f"worker {worker.id} never was ready")
        if any(state.ready) or state.ready.count:
            raise Broken("tasks are left in the ready queue")
        if self.live:
            raise Broken("something runs on")

    def check_freed(self) -> None:
        """What holds when the program has dropped all it had."""
        for task in self.tasks:
            if task.consumers:
                raise Broken(f"{named(task)} still has {task.consumers} readers")
            if task.links is not None and task.stage is DONE and not task.released:
                raise Broken(f"{named(task)} was never released")
        for attempt in self.accepted:
            if self.regions.get(attempt) == "held":
                raise Broken(f"the stored result of attempt {attempt} is never given back")


def stored_attempts(task: Task) -> list[int]:
    """Attempts whose stored results a task holds."""
    if task.parts is not None:
        return [part.attempt for part in task.parts if part.stored]
    return [task.attempt] if task.stored else []


def show(thing: Any) -> str:
    """An event or a command in one line."""
    words = [type(thing).__name__]
    for field in getattr(thing, "_fields", ()):
        value = getattr(thing, field, None)
        if isinstance(value, SimRun):
            words.append(value.name)
        elif field == "tasks":
            words.append(" ".join(f"{named(task)}#{task.attempt}" for task in value))
        elif field == "outcomes":
            words.append(
                " ".join(f"#{one.attempt}:{one.status}:{one.seconds:.6f}" for one in value)
            )
        elif field not in ("certificate", "result", "log"):
            words.append(f"{field}={value}")
    return " ".join(words)
