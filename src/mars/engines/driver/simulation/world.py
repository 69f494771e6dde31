"""One history: a scheduler, workers, a program and faults, in virtual time.

Nothing is real but `Scheduler`, `Task` and `Call`. `World` does what `loop` and `nested` do:
it makes events of what happens and carries out the scheduler's commands. `World.play` lets all of
it happen until nothing is left to happen. If wanted, the whole state is checked after each event.

    program ──► World ──events───► Scheduler
                  │  ◄──commands──
                  ▼
              Processes (machine: time, chance, memory)

Without faults it says how long a program would take on other machines. With faults and many seeds
it shows that the scheduler keeps its promises; `tests/engines_local` plays thousands of histories.

One long room on purpose: it stands in for the loop and the server of nested calls together, whose
steps change one state here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mars.engines.driver.core import ASSIGNED, DONE, MADE
from mars.engines.driver.estimates import OUT_OF_MEMORY
from mars.engines.driver.events import (
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
    Finished,
    Forgotten,
    GiveUp,
    Interrupt,
    Kill,
    Lost,
    Needed,
    Release,
    Report,
    Resume,
    RunEnded,
    StartWorker,
    StopWorker,
    Submitted,
    TakeBack,
    Tick,
    Unblocked,
    Unkept,
    Unneeded,
    Withdrawn,
)
from mars.engines.driver.queues import WorkerState, place_of, serves
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.simulation.checks import Ledger, check, check_freed, check_quiet
from mars.engines.driver.simulation.machine import (
    MAX_STEPS,
    MAX_TICKS,
    Behaviour,
    Broken,
    Chances,
    Machine,
    SimulatedRun,
    named,
    show,
)
from mars.engines.driver.simulation.processes import (
    Asker,
    Process,
    Processes,
    Sent,
    Told,
    record_of,
)
from mars.engines.wire.status import VALUE
from mars.graph import needed_calls
from mars.settings import FAR_PREFETCH_BELOW_S, PREFETCH_BELOW_S
from mars.task import Call, Output, Task, WorkerId

if TYPE_CHECKING:
    from collections.abc import Iterable


class World:
    """One history.

    Parameters
    ----------
    seed : int
        Decides all that is left to chance.
    groups : sequence of (str, float)
        Address and cores of each group of workers.
    log : bool, default False
        Whether the story is kept, in `machine.log`.
    checked : bool, default True
        Whether the whole state is checked after each event. That takes far longer than the events.
    devices : sequence of int, optional
        How many GPUs each group has. Default: none.

    Attributes
    ----------
    chances : Chances
        What goes wrong; set it before `start`.
    behaviours : dict
        What each call does. Every call has to be in it before it is submitted.
    make_nested : callable
        Gives the calls that a call asks for, by how deep they are nested.
    on_run_end : callable
        Called with each run that ends.
    """

    def __init__(
        self,
        seed: int,
        groups: Sequence[tuple[str, float]],
        log: bool = False,
        *,
        checked: bool = True,
        devices: Sequence[int] = (),
    ) -> None:
        machine = self.machine = Machine(seed, log)
        self.processes = Processes(machine, self)
        self.behaviours: dict[Call, Behaviour] = machine.behaviours
        self.faults = machine.faults
        self.scheduler = Scheduler(
            groups, lambda: machine.memory - machine.objects, self._distance,
            FAR_PREFETCH_BELOW_S if len(groups) > 1 else PREFETCH_BELOW_S,
        )  # fmt: skip
        self.ledger = Ledger(self.scheduler, machine)
        self.runs = self.ledger.runs
        self.unkept: set[Call] = set()
        self.take_backs = 0
        self.kills = 0
        self.make_nested: Callable[[int], list[Call]] = lambda _: []
        self.on_run_end: Callable[[SimulatedRun], None] = lambda _: None
        self._checked = checked
        self._rng = machine.rng
        self._copying = random.Random(f"copies {seed}")
        self._copies: dict[int, int] = {}  # attempts whose values another group has got: which
        self._addresses = [address for address, _ in groups]
        self._number_at = list(self.scheduler.groups)  # of the group that is at a place now
        self._place_of = {number: place for place, number in enumerate(self._number_at)}
        self._devices = [tuple(map(str, range(count))) for count in devices]
        for number, names in zip(self._number_at, self._devices, strict=False):
            self.scheduler.add_devices(number, names)
        self._gone: set[int] = set()
        self._askers: dict[int, Asker] = {}
        self._shipped: set[int] = set()  # attempts whose values are, or were, on their way
        self._highest = 0
        self._steps = 0
        self._events: deque[Event] = deque()
        self._busy = False
        self._ticks = 0
        self._carriers: dict[type, Callable[..., None]] = {
            Assign: self._assign,
            TakeBack: self._take_back,
            Report: self._report,
            Interrupt: self._interrupt,
            Kill: self._kill,
            StartWorker: self._start_worker,
            StopWorker: self._stop_worker,
            Resume: self._resume,
            Release: self._release,
            Discard: self._discard,
            Fetch: lambda command: None,  # a hint
            Needed: lambda command: None,  # it comes in its time
            Unneeded: self._unneeded,
            RunEnded: self._run_ended,
            Closed: self._closed,
            GiveUp: self._give_up,
        }

    @property
    def chances(self) -> Chances:
        """What goes wrong, and how often."""
        return self.machine.chances

    # -- the program --------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers that an engine begins with."""
        self._carry_out(self.scheduler.start_all())

    def submit(
        self, targets: Sequence[Call], *, stop_on_error: bool, name: str = ""
    ) -> SimulatedRun | None:
        """Execute calls; None when their results are all there."""
        run = SimulatedRun(name or f"R{len(self.runs) + 1}", stop_on_error=stop_on_error)
        calls = needed_calls(targets, self)
        wanted = set(targets)
        if not calls:
            return None
        tasks = []
        for call in calls:
            task = Task(call, self)
            self.ledger.tasks[task] = None
            task.asked = call in wanted
            call.begin(task)
            tasks.append(task)
        self.runs.append(run)
        run.tasks = tasks
        held = [Output(call, 0) for call in calls]  # as an execution holds them

        def arrive() -> None:
            run.submitted = True
            self.on(Submitted(run, tasks))
            held.clear()

        self.machine.after(self.machine.delay(), arrive)
        return run

    def cancel(self, run: SimulatedRun) -> None:
        """Cancel a run, unless it has ended."""
        if run.submitted and run.live:
            self.faults["cancel"] += 1
            self.on(Cancelled(run))

    def withdraw(self, task: Task) -> None:
        """Cancel one call, unless it has ended, as `Loop.withdraw` does."""
        if task.finished or task.stage is MADE or not any(run.live for run in task.runs):
            return
        self.faults["withdraw"] += 1
        self.machine.withdrawn.add(task)
        self.on(Withdrawn(task, self.machine.nobody))

    def forget(self, task: Task) -> None:
        """`Realm.forget`, as the engine has it."""
        if task.finished and not task.stored:
            if not task.consumers:
                task.released = True
                task.call.leave(task)
        else:
            self.machine.after(self.machine.delay(), lambda: self.on(Forgotten([task])))

    def play(self) -> float:
        """Let everything happen until all is quiet. Returns the time then, in seconds.

        Raises
        ------
        Broken
            A promise of the scheduler does not hold.
        """
        machine = self.machine
        while True:
            due, following = self.scheduler.next_timer(), machine.next_at()
            if following is not None and (due is None or following <= due):
                self._go_on_to(following)
                machine.take_next()()
            elif due is not None:
                self._go_on_to(due)
                self._ticks += 1
                if self._ticks > MAX_TICKS:
                    raise Broken("the timer is due again and again at the same time")
                self.on(Tick())
            else:
                return machine.now
            self._steps += 1
            if self._checked and self._steps > MAX_STEPS:
                raise Broken("it does not come to rest")

    def _go_on_to(self, when: float) -> None:
        if when > self.machine.now:
            self.machine.now = when
            self._ticks = 0

    def check_quiet(self) -> None:
        """Check what holds when nothing happens any more."""
        check_quiet(self.ledger)
        if self.processes.live:
            raise Broken("something runs on")

    def check_freed(self) -> None:
        """Check what holds when the program has dropped all it had."""
        check_freed(self.ledger)

    # -- events and commands: what `loop` does ------------------------------------------------

    def on(self, event: Event) -> None:
        """Tell the scheduler, carry out its commands, check the state."""
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        machine = self.machine
        try:
            while self._events:
                event = self._events.popleft()
                if machine.log is not None:
                    machine.say("EVENT", show(event))
                blocked = [one for one in self.scheduler.workers.values() if one.blocked]
                commands = self.scheduler.on(event, machine.now)
                for one in blocked:
                    # A blocked call ended, and its worker begins the next one of its queue
                    # without asking: the one case in which cores are lent twice.
                    if one.queue and one.claim and type(event) is Finished:
                        self.ledger.overdrawn.add(self.scheduler.groups[one.group].address)
                if type(event) is Submitted:
                    self._note_links(event)
                elif type(event) is Finished:
                    self._note_results(event)
                elif type(event) is Died:
                    self._note_blocks(self.scheduler.ready)  # a block may have been split
                self._carry_out(commands)
                if self._checked and not self._events:
                    check(self.ledger)
        finally:
            self._busy = False

    def _note_links(self, event: Submitted) -> None:
        run = event.run
        assert isinstance(run, SimulatedRun)
        wanted_by, links = self.machine.wanted_by, self.ledger.links
        for task in event.tasks:
            known = task.call.task_in(task.realm)
            if known is not task:
                run.joined = True
            if known is not None:
                self.ledger.tasks[known] = None
                runs = wanted_by.setdefault(known, [])
                for other in runs if known.items is not None else ():
                    other.joined = True  # items that failed for it may run again for this one
                runs.append(run)
                if known is task:
                    sources = (call.task_in(task.realm) for call, _ in task.call.inputs)
                    links[task] = tuple({one: None for one in sources if one is not None})

    def _note_results(self, event: Finished) -> None:
        for outcome in event.outcomes:
            assert isinstance(outcome, Told)
            task, attempt = outcome.token
            ended = task.stage in (MADE, DONE)
            if outcome.status == VALUE and ended and task.attempt == attempt:
                self.ledger.accepted.add(attempt)

    def _note_blocks(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            if task.source is not None:
                self.ledger.tasks[task] = None

    def _carry_out(self, commands: Sequence[Command]) -> None:
        machine = self.machine
        for command in commands:
            if type(command) is Assign:
                self._note_blocks(command.tasks)
        for command in commands:
            if machine.log is not None:
                machine.say("    ", show(command))
            worker = getattr(command, "worker", None)
            known = worker in self.processes.all and worker not in self._gone
            if worker is not None and type(command) is not StartWorker and not known:
                raise Broken(f"{type(command).__name__} for worker {worker}, which has gone")
            self._carriers[type(command)](command)

    def _start_worker(self, command: StartWorker) -> None:
        address = self._addresses[self._place_of[place_of(command.group)]]
        self.processes.start(Process(command.worker, address))

    def _stop_worker(self, command: StopWorker) -> None:
        process = self.processes.all[command.worker]
        self._gone.add(command.worker)
        self.processes.down(process, lambda: self.processes.take_stop(process))

    def _assign(self, command: Assign) -> None:
        process = self.processes.all[command.worker]
        state = self.scheduler.workers[command.worker]
        address = self.scheduler.groups[state.group].address
        message = []
        for task in command.tasks:
            if task.stage is not ASSIGNED or task.worker is not state:
                raise Broken(f"{named(task)} is sent without being assigned")
            if task.attempt <= self._highest:
                raise Broken(f"attempt {task.attempt} is used twice")
            self._highest = task.attempt
            runs = task.runs if task.source is None else task.source.runs
            if not any(run.live for run in runs):
                raise Broken(f"{named(task)} is started, and no live run wants it")
            if task.call.options.worker not in (None, address):
                raise Broken(f"{named(task)} is sent to the wrong group")
            keep = task.dependents is not None
            message.append(Sent(task, task.attempt, self._local_inputs(task, state), keep))
        self._check_memory(state, command.tasks)
        self.processes.down(process, lambda: self.processes.take_tasks(process, message))

    def _local_inputs(self, task: Task, state: WorkerState) -> list[int]:
        """Attempts of a task's inputs that run before it in the same worker."""
        local = []
        for call, _ in task.call.inputs:
            source = call.task_in(task.realm)
            if source is None:
                raise Broken(f"{named(task)} reads {call.name}, which was released")
            if source.stage is DONE:
                if source.released:
                    raise Broken(f"{named(task)} reads {named(source)}, which was released")
            elif source.early:
                if not self._has(place_of(state.group), source):
                    raise Broken(f"{named(task)} is sent where {named(source)} is not")
                self.faults["early"] += 1
            elif source.worker is not state or source.attempt >= task.attempt:
                raise Broken(f"{named(task)} is not queued behind its input {named(source)}")
            else:
                local.append(source.attempt)
        return local

    def _check_memory(self, state: WorkerState, tasks: Sequence[Task]) -> None:
        """What starts beside others fits beside them, by what is known of it."""
        if list(state.queue) != list(tasks):
            return  # queued behind others
        others = [one for one in self.scheduler.workers.values() if one.queue and one is not state]
        if all(one.blocked for one in others):
            return
        asked = sum(one.queue[0].call.options.memory or 0 for one in (state, *others))
        # Alone, and beside calls that wait for their own, a call is tried in any case.
        mattered = any(one.queue[0].call.options.memory and not one.blocked for one in others)
        room = self.machine.memory - self.machine.objects
        if tasks[0].call.options.memory and mattered and asked > room:
            raise Broken(f"{named(tasks[0])} starts, and does not fit")
        if any(one.queue[0].blame == OUT_OF_MEMORY for one in (state, *others)):
            raise Broken(f"{named(tasks[0])} starts beside one that has to run alone")

    def _take_back(self, command: TakeBack) -> None:
        self.take_backs += 1
        process = self.processes.all[command.worker]
        if command.most < 1:
            raise Broken("takes back nothing")
        self.processes.down(
            process, lambda: self.processes.give_back(process, command.most), control=True
        )

    def _report(self, command: Report) -> None:
        process = self.processes.all[command.worker]
        self.processes.down(process, lambda: self.processes.report(process), control=True)

    def _interrupt(self, command: Interrupt) -> None:
        process = self.processes.all[command.worker]
        self.machine.after(
            self.machine.delay(), lambda: self.processes.interrupt(process, command.attempt)
        )

    def _kill(self, command: Kill) -> None:
        process = self.processes.all[command.worker]
        self.kills += 1
        blamed = self.scheduler.workers[command.worker].stopping

        def kill() -> None:
            if not process.dead:
                if process.running is not None and process.running[1] != blamed:
                    raise Broken(f"{named(process.running[0])} is killed in place of {blamed}")
                self.processes.die(process, "killed")

        self.machine.after(self.machine.delay(), kill)

    def _resume(self, command: Resume) -> None:
        process = self.processes.all[command.worker]
        asker = self._askers.get(process.number)
        if asker is not None and asker.held:
            held, asker.held = asker.held, 0
            self.processes.reply(process, held)

    def _release(self, command: Release) -> None:
        for task in command.tasks:
            if task.parts is not None:
                for part in task.parts:
                    if part.stored:
                        self.machine.free(part.attempt)
            elif task.stored:
                self.machine.free(task.attempt)
            task.result = None

    def _discard(self, command: Discard) -> None:
        result = command.result
        attempt = result[1] if result[0] == "value" else result[0][1]
        if attempt in self.ledger.accepted:
            raise Broken(f"the accepted result of attempt {attempt} is discarded")
        self.machine.free(attempt)

    def _unneeded(self, command: Unneeded) -> None:
        self.faults["unneeded"] += 1

    def _run_ended(self, command: RunEnded) -> None:
        run = command.run
        assert isinstance(run, SimulatedRun)
        if run.ended_at is not None:
            raise Broken(f"run {run.name} ends twice")
        if run.live:
            raise Broken(f"run {run.name} has ended and is live")
        run.ended_at = self.machine.now
        asker = self._askers.get(run.worker) if run.worker is not None else None
        if asker is not None and asker.run is run and asker.waiting:
            asker.held, asker.waiting = asker.waiting, 0
            assert run.worker is not None
            self.on(Unblocked(WorkerId(run.worker)))
        self.on_run_end(run)

    def _give_up(self, command: GiveUp) -> None:
        self.faults["gave up"] += 1
        for run in self.runs:
            if run.submitted and run.live:
                run.given_up = True
                self.on(Cancelled(run))

    def _closed(self, command: Closed) -> None:
        self.faults["closed"] += 1
        there = [group for group in self.scheduler.groups.values() if not group.closed]
        for task in list(self.scheduler.ready):
            if any(serves(one, task) for one in there):
                continue
            for run in task.runs if task.source is None else task.source.runs:
                if run.live:
                    run.given_up = True
                    self.on(Cancelled(run))

    # -- deaths and records -------------------------------------------------------------------

    def bury(self, process: Process) -> None:
        """The end of a process is certain; see `Driver`."""
        if process.buried:
            return
        while process.upwards and not process.broken:
            process.upwards.popleft()()
        unreported = process.outbox
        if self._rng.random() < 0.3:  # it was told, and had no time to cross it out
            unreported = process.told + unreported
        if unreported:
            self._take(process, unreported)
        process.buried = True
        state = self.scheduler.workers.get(process.number)
        started = process.last
        self._drop_asker(process)
        queue = () if state is None else state.queue
        peak = sum(self.behaviours[one.call].memory for one in queue if one.attempt == started)
        self.on(
            Died(
                process.number,
                started,
                lambda task: ("died", task.attempt),
                starved=process.starved,
                peak=int(peak),
            )
        )
        self._gone.add(process.number)

    def take_records(self, process: Process, outcomes: list[Told]) -> None:
        """A report has arrived; see `Driver`."""
        self._take(process, outcomes)
        if self._rng.random() < self.chances.duplicates:
            self.faults["duplicate"] += 1
            self.processes.send_only(process, lambda: self.take_records(process, outcomes))

    def _take(self, process: Process, outcomes: list[Told]) -> None:
        if self._checked:
            records = b"".join(map(record_of, outcomes))
            self.scheduler.core.ended.add(process.number, records, len(outcomes))
        self.on(Finished(process.number, outcomes))
        self._ship(outcomes)
        asker = self._askers.get(process.number)
        if asker is not None:
            state = self.scheduler.workers.get(process.number)
            if state is None or not state.queue or state.queue[0].attempt != asker.attempt:
                self._drop_asker(process)

    # -- nested calls: what `nested_server` does ----------------------------------------------

    def submit_nested(self, process: Process, depth: int) -> None:
        """The running call asks for calls of its own; see `Driver`."""
        state = self.scheduler.workers.get(process.number)
        if state is None or not state.queue:
            raise Broken("a call that asks for calls is not at the head of its queue")
        self._drop_asker(process)
        asker = self._askers[process.number] = Asker(state.queue[0].attempt)
        asker.calls = self.make_nested(depth)
        stop_on_error = self._rng.random() < 0.7
        run = SimulatedRun(f"N{len(self.runs) + 1}", stop_on_error=stop_on_error, depth=depth)
        run.worker, run.submitted = process.number, True
        asker.run = run
        self.runs.append(run)
        tasks = []
        for call in asker.calls:
            call.handles += 1
            task = Task(call, self)
            self.ledger.tasks[task] = None
            call.begin(task)
            tasks.append(task)
        run.tasks = tasks
        self.on(Submitted(run, tasks))

    def take_wait(self, process: Process, request: int) -> None:
        """The running call waits for its calls; see `Driver`."""
        asker = self._askers.get(process.number)
        if asker is None or asker.run is None or asker.run.ended_at is not None:
            self.processes.reply(process, request)
            return
        asker.waiting = request
        self.on(Blocked(process.number))

    def _drop_asker(self, process: Process) -> None:
        asker = self._askers.pop(process.number, None)
        if asker is None:
            return
        if asker.run is not None and asker.run.live:
            self.on(Cancelled(asker.run))
        if (asker.waiting or asker.held) and not process.dead:
            self.processes.reply(process, asker.waiting or asker.held)
        for call in asker.calls:
            call.drop()

    # -- values that are on their way ---------------------------------------------------------

    def _distance(self, task: Task, index: int) -> float:
        """What a cluster's loop says: values that are not here are nowhere but in their group."""
        seconds = 0.0
        for call, _ in task.call.inputs:
            source = call.task_in(task.realm)
            assert source is not None
            if source.early and not self._has(index, source):
                return float("inf")
            if source.stored and source.attempt % len(self._addresses) != self._place_of[index]:
                seconds += 0.01
        return seconds

    def _has(self, index: int, source: Task) -> bool:
        """Whether a value that is not here is in a group."""
        made_in = self.scheduler.made_in[source.attempt][1]
        return index in (made_in, self._copies.get(source.attempt))

    def _ship(self, outcomes: Sequence[Told]) -> None:
        """Values that were told of early are on their way."""
        machine, chance = self.machine, self._copying.random
        for attempt in [one.attempt for one in outcomes if one.early]:
            if attempt not in self._shipped:
                self._shipped.add(attempt)
                if len(self._addresses) > 1 and chance() < 0.8:
                    machine.after(0.003 * (chance() > 0.7), lambda one=attempt: self._copy(one))  # type: ignore[misc]
                machine.after(
                    self._rng.choice((0.01, 1.0)) * self._rng.random(),
                    lambda attempt=attempt: self._value_comes(attempt),  # type: ignore[misc]
                )

    def _value_comes(self, attempt: int) -> None:
        task, _ = self.scheduler.made_in.get(attempt, (None, 0))
        read = task is not None and any(one.stage is ASSIGNED for one in task.dependents or ())
        if task is None or read or self._copying.random() > self.chances.no_room:
            self.on(Arrived([attempt]))
            return
        self.faults["no room"] += 1
        self._copies.pop(attempt, None)
        self.ledger.accepted.discard(attempt)
        self.behaviours[task.call].fatal = True  # what the model goes by
        self.unkept.add(task.call)
        for run in self.machine.wanted_by.get(task, ()):
            run.joined = True  # it may have ended without what was only needed to feed others
        self.on(Unkept(attempt, ("no room", attempt)))

    def _copy(self, attempt: int) -> None:
        """Another group has got a value from the one that made it, if that is still early."""
        made = self.scheduler.made_in.get(attempt)
        if made is None:
            return
        task, group = made
        place = self._place_of[group]
        other = self._number_at[(place + 1) % len(self._addresses)]
        if task.early and other in self.scheduler.groups:
            self.faults["copied"] += 1
            self._copies[attempt] = other
            self.on(Tick())
            if self._copying.random() < self.chances.lost_makers:
                self.lose(place)

    def lose(self, place: int) -> None:
        """A group is lost, with all that is in it; after a moment there is another like it."""
        state, faults = self.scheduler, self.faults
        index = self._number_at[place]
        if index not in state.groups:
            return
        cpus = state.groups[index].cpus
        self._copies = {one: where for one, where in self._copies.items() if where != index}
        made = [task for task, where in state.made_in.values() if where == index]
        lost = [task for task in made if task.attempt not in self._copies]
        handed = {one.attempt: self._copies.pop(one.attempt) for one in made if one not in lost}
        faults["lost"] += 1
        faults["handed on"] += len(handed)
        faults["lost value"] += len(lost)
        self.ledger.accepted.difference_update(task.attempt for task in lost)
        for task in lost:
            for run in self.machine.wanted_by.get(task, ()):
                run.joined = True  # what it only needed to feed others may not be made again
        self.on(Lost(index, lambda task: ("lost", task.attempt), handed))
        for number, worker in list(state.workers.items()):
            if place_of(worker.group) == index:
                process = self.processes.all[number]
                process.upwards.clear()
                process.outbox, process.told = [], []
                self.processes.die(process, "with its group")
                self.bury(process)
        if index in state.groups:
            raise Broken(f"group {index} was lost, its workers are gone, and it stays")

        def come_back() -> None:
            self._number_at[place] = state.add_group(self._addresses[place], cpus)
            self._place_of[self._number_at[place]] = place
            if self._devices:
                state.add_devices(self._number_at[place], self._devices[place])
            self.on(Tick())

        self.machine.after(0.05, come_back)
