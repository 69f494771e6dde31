"""Simulated worker processes: they do what `mars.engines.worker` does, in virtual time.

What crosses between the driver and a process waits in a channel for a random while. It keeps its
order on one channel, and comes in any order on two. A process may die at any moment, between any
two messages. Used by `world`, which is the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from mars.engines.driver.events import Event, GaveBack, Left, Outcome, WorkerReady
from mars.engines.driver.simulation.machine import FOREVER, Broken, Machine, SimulatedRun, named
from mars.engines.wire.status import EXCEPTION, FATAL, INTERRUPTED, RETURNED, VALUE
from mars.settings import CANCEL_GRACE_S, REPORT_S
from mars.task import RECORD, Call, Task, WorkerId

PROMPT_S: Final = 0.3
"""A cancelled call ends within the grace time and this, for the messages on their way, seconds."""


class Sent(NamedTuple):
    """A call in a message to a worker."""

    task: Task
    attempt: int
    local: list[int]  # attempts of its inputs that run before it in the same worker
    keep: bool  # whether a later call of the same worker may read its value


class Told(Outcome):
    """An outcome that knows which task it is of."""

    token: tuple[Task, int]


class Process:
    """One simulated worker process, and the channels to and from it."""

    def __init__(self, number: WorkerId, address: str) -> None:
        self.number = number
        self.address = address
        self.dead = False
        self.buried = False
        self.up = False  # the process runs
        self.queue: deque[Sent] = deque()
        self.running: tuple[Task, int] | None = None
        self.last = 0  # what the shared memory says is running
        self.broken = False  # a frame of it was torn: nothing more of it is read
        self.starved = False  # the kernel ended it because memory ran out
        self.serial = 0  # of the running call's next step: others are out of date
        self.phase = ""
        self.kept: set[int] = set()  # attempts whose values calls behind them read
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


class Driver(Protocol):
    """What processes need of the other side."""

    def on(self, event: Event) -> None:
        """Something has happened."""

    def take_records(self, process: Process, outcomes: list[Told]) -> None:
        """A report has arrived."""

    def submit_nested(self, process: Process, depth: int) -> None:
        """The running call asks for calls of its own."""

    def take_wait(self, process: Process, request: int) -> None:
        """The running call waits for them."""

    def bury(self, process: Process) -> None:
        """The end of a process is certain."""


class Processes:
    """All worker processes of a simulation.

    Parameters
    ----------
    machine : Machine
        Time, chance and memory.
    driver : Driver
        The other side.
    """

    def __init__(self, machine: Machine, driver: Driver) -> None:
        self._machine = machine
        self._driver = driver
        self._rng = machine.rng
        self.all: dict[int, Process] = {}
        self.live: dict[tuple[Call, int], int] = {}  # (call, item) -> the attempt that runs
        self._begun: set[Task] = set()

    # -- messages -----------------------------------------------------------------------------

    def down(self, process: Process, action: Callable[[], None], *, control: bool = False) -> None:
        """Send a message to a process."""
        machine = self._machine
        channel = process.control if control else process.data
        channel.append(action)
        when = max(machine.now + machine.delay(), process.free_at[control])
        process.free_at[control] = when
        machine.at(when, lambda: self._arrive(process, channel))

    def _arrive(self, process: Process, channel: deque[Callable[[], None]]) -> None:
        if channel and not process.dead:
            if not process.up:  # what is sent to a process that starts waits for it
                self._machine.after(0.001, lambda: self._arrive(process, channel))
                return
            channel.popleft()()
            self._maybe_die(process)

    def _send(self, process: Process, action: Callable[[], None]) -> None:
        """Send a message to the driver, after what has been finished before it."""
        self.report(process)
        self.send_only(process, action)

    def send_only(self, process: Process, action: Callable[[], None]) -> None:
        """Send a message to the driver."""
        if process.dead:
            return
        machine = self._machine
        if self._rng.random() < machine.chances.torn:
            action = lambda: self._tear(process)
        process.upwards.append(action)
        when = max(machine.now + machine.delay(), process.free_at[2])
        process.free_at[2] = when

        def arrive() -> None:
            if process.upwards and not process.buried:
                action = process.upwards.popleft()
                if not process.broken:
                    action()

        machine.at(when, arrive)

    def _tear(self, process: Process) -> None:
        """What comes is no frame: the driver reads nothing more, and ends the process."""
        self._machine.faults["torn"] += 1
        process.broken = True
        self.die(process, "after a torn frame")

    # -- what the driver asks for -------------------------------------------------------------

    def start(self, process: Process) -> None:
        """The process begins, or dies at once."""
        self.all[process.number] = process
        delay_s = self._rng.choice((0.0, 0.002, 0.01, 0.05))
        self._machine.after(delay_s, lambda: self._begin_process(process))

    def _begin_process(self, process: Process) -> None:
        if self._rng.random() < self._machine.chances.start_death:
            self.die(process, "at its start")
            return
        process.up = True
        self._send(process, lambda: self._driver.on(WorkerReady(process.number)))

    def take_stop(self, process: Process) -> None:
        """The process is not needed any more."""
        if process.queue or process.running:
            raise Broken(f"worker {process.number} is stopped with work in its queue")
        self.die(process, "")

    def take_tasks(self, process: Process, message: Sequence[Sent]) -> None:
        """Calls come."""
        process.queue.extend(message)
        if process.waiting:
            self._give_up_queue(process)
        if process.running is None:
            self._next(process)

    def give_back(self, process: Process, count: int) -> None:
        """The last calls of the queue are asked for."""
        if process.running is not None and process.phase != "waiting":
            while process.data:  # nobody reads: the second thread does
                process.data.popleft()()
        self._give_up_queue(process, count)

    def _give_up_queue(self, process: Process, count: int = FOREVER) -> None:
        given: list[int] = []
        while len(given) < count and process.queue:
            given.append(process.queue.pop()[1])
        self._send(process, lambda: self._driver.on(GaveBack(process.number, given)))

    def report(self, process: Process) -> None:
        """Tell what has been finished."""
        if process.outbox and not process.dead:
            outcomes, process.outbox = process.outbox, []
            process.told = outcomes
            process.reported_at = self._machine.now
            self.send_only(process, lambda: self._driver.take_records(process, outcomes))

    def interrupt(self, process: Process, attempt: int) -> None:
        """SIGINT comes, for an attempt."""
        if process.dead or process.running is None or process.running[1] != attempt:
            return
        task, _ = process.running
        catches = self._machine.behaviours[task.call].catches
        if catches == "ignore":
            return
        self._machine.faults["interrupt"] += 1
        if catches == "value":
            self._end(process, task, attempt, False)
            return
        if process.phase == "waiting":
            process.waiting.discard(process.request)
        result = ("raised", attempt)
        self._finish(process, task, attempt, Told(attempt, INTERRUPTED, 0.1, result))
        if not process.dead:
            self._next(process)

    def reply(self, process: Process, request: int) -> None:
        """What a thread of the running call waits for is there."""

        def take() -> None:
            if request in process.waiting:  # else an interrupt ended the wait
                process.waiting.discard(request)
                if process.phase == "waiting" and process.request == request:
                    process.resume()

        self.down(process, take)

    # -- calls --------------------------------------------------------------------------------

    def _next(self, process: Process) -> None:
        """The main thread has nothing to do: the next call, or sleep."""
        while process.queue and not process.dead:
            task, attempt, local, keep = process.queue.popleft()
            process.last = attempt
            if all(source in process.kept for source in local):
                self._begin(process, task, attempt, keep)
                return
            self._finish(process, task, attempt, Told(attempt, RETURNED, 0.0))
        if not process.dead:
            self.report(process)

    def _begin(self, process: Process, task: Task, attempt: int, keep: bool) -> None:
        machine, chance = self._machine, self._rng.random
        whole = task if task.source is None else task.source
        asked_again = whole in machine.withdrawn or any(
            run.cancelled for run in machine.runs_of(task)
        )
        if task in self._begun and not task.call.options.death_retries and not asked_again:
            raise Broken(f"{named(task)} is begun again after a death that it must not have")
        if not task.call.options.retries:
            self._begun.add(task)
        for key in _keys(task):
            if self.live.get(key):
                raise Broken(f"{named(task)} runs twice at once")
            self.live[key] = attempt
        process.running = (task, attempt)
        process.phase = "running"
        machine.say("        worker", process.number, "starts", named(task), "attempt", attempt)
        behaviour = machine.behaviours[task.call]
        behaviour.starts += 1
        seconds = behaviour.seconds * (1 if task.items is None else len(task.items))
        if self._starves(task):
            behaviour.starved += 1
            process.starved = True
            self._later(process, seconds * chance(), lambda: self.die(process, "memory"))
        elif behaviour.starts <= behaviour.deadly:
            self._later(process, seconds * chance(), lambda: self.die(process, "the call"))
        elif behaviour.nested:
            self._later(process, seconds / 2, lambda: self._ask(process, task, attempt, keep))
        elif chance() < machine.chances.death:
            self._later(process, seconds * chance(), lambda: self.die(process, "chance"))
        else:
            self._later(process, seconds, lambda: self._end(process, task, attempt, keep))

    def _starves(self, task: Task) -> bool:
        """Whether memory runs out because a call has begun."""
        machine = self._machine
        if not machine.behaviours[task.call].memory:
            return False
        running = [one.running[0] for one in self.all.values() if one.running is not None]
        taken = sum(machine.behaviours[one.call].memory for one in running)
        if taken <= machine.memory - machine.objects:
            return False
        machine.faults["starved"] += 1
        return True

    def _later(self, process: Process, seconds: float, action: Callable[[], None]) -> None:
        process.serial += 1
        serial = process.serial

        def act() -> None:
            if process.serial == serial and not process.dead:
                action()

        self._machine.after(seconds, act)

    def _end(self, process: Process, task: Task, attempt: int, keep: bool) -> None:
        """The function returns or raises."""
        behaviour = self._machine.behaviours[task.call]
        seconds = behaviour.seconds * (1 if task.items is None else len(task.items))
        if task.items is not None:
            bad = {o: b"" for o, index in enumerate(task.items) if index in behaviour.items}
            result: object = (("value", attempt), bad, None)
            outcome = Told(attempt, VALUE, seconds, result, behaviour.stored, len(bad))
        elif behaviour.fatal:
            outcome = Told(attempt, FATAL, seconds, ("raised", attempt))
        elif behaviour.tries < behaviour.fails:
            behaviour.tries += 1
            outcome = Told(attempt, EXCEPTION, seconds, ("raised", attempt))
        else:
            outcome = Told(attempt, VALUE, seconds, ("value", attempt), behaviour.stored)
            if keep:
                process.kept.add(attempt)
        self._finish(process, task, attempt, outcome)
        if not process.dead:
            leave = self._machine.chances.leave
            if leave and self._rng.random() < leave:
                self._leave(process)
            else:
                self._next(process)

    def _leave(self, process: Process) -> None:
        """The call has spoiled its process, which is to run no other."""
        self._machine.faults["leave"] += 1
        self.report(process)
        self.send_only(process, lambda: self._driver.on(Left(process.number)))
        self.die(process, "")

    def _finish(self, process: Process, task: Task, attempt: int, outcome: Told) -> None:
        machine = self._machine
        self._over(process)
        outcome = outcome._replace(peak=int(machine.behaviours[task.call].memory))
        if outcome.stored and task.items is None and self._rng.random() < machine.chances.early:
            outcome = outcome._replace(early=True)
        outcome.token = (task, attempt)
        if outcome.stored:
            machine.hold(attempt)
        process.outbox.append(outcome)
        if self._maybe_die(process):
            return
        waited = machine.now - process.reported_at > REPORT_S
        if waited or self._rng.random() > machine.chances.lazy_reports:
            self.report(process)
            self._maybe_die(process)

    def _over(self, process: Process) -> None:
        """The running attempt runs no more."""
        if process.running is None:
            return
        task, attempt = process.running
        process.running = None
        process.phase = ""
        process.serial += 1
        for key in _keys(task):
            if self.live.pop(key) != attempt:
                raise Broken(f"{named(task)} ran twice")
        runs = self._machine.runs_of(task)
        if runs and all(run.cancelled for run in runs):
            late = self._machine.now - max(run.ended_at or 0.0 for run in runs)
            if late > CANCEL_GRACE_S + PROMPT_S:
                raise Broken(f"{named(task)} ran {late:.2f} s on after it was cancelled")

    # -- nested calls -------------------------------------------------------------------------

    def _ask(self, process: Process, task: Task, attempt: int, keep: bool) -> None:
        """The running call submits calls of its own, and waits for them or not."""
        behaviour = self._machine.behaviours[task.call]
        half = behaviour.seconds / 2
        runs = self._machine.wanted_by.get(task, ())
        depth = 1 + (runs[0].depth if runs else 0)
        self._send(process, lambda: self._driver.submit_nested(process, depth))

        def go_on() -> None:
            self._end(process, task, attempt, keep)

        if behaviour.nested == "later":  # it does something else meanwhile
            self._later(process, half, lambda: self._wait(process, half, go_on))
        elif behaviour.nested == "beside":  # another thread waits; the call ends
            self._ask_to_wait(process)
            self._later(process, half, go_on)
        else:
            self._wait(process, half, go_on)

    def _wait(self, process: Process, half: float, go_on: Callable[[], None]) -> None:
        process.phase = "waiting"
        self._ask_to_wait(process)
        process.serial += 1
        serial = process.serial

        def resume() -> None:
            if process.serial == serial and process.phase == "waiting":
                process.phase = "running"
                self._later(process, half, go_on)

        process.resume = resume

    def _ask_to_wait(self, process: Process) -> None:
        process.requests += 1
        request = process.request = process.requests
        process.waiting.add(request)
        self._send(process, lambda: self._driver.take_wait(process, request))
        self._give_up_queue(process)

    # -- deaths -------------------------------------------------------------------------------

    def _maybe_die(self, process: Process) -> bool:
        chance = self._machine.chances.death
        if not process.dead and chance and self._rng.random() < chance / 4:
            self.die(process, "between messages")
        return process.dead

    def die(self, process: Process, why: str) -> None:
        """The process ends; ``why`` is empty if it was meant to."""
        if process.dead:
            return
        if why:
            self._machine.faults["death"] += 1
        self._machine.say("        worker", process.number, "dies:", why or "it was stopped")
        self._over(process)
        process.dead = True
        self._machine.after(self._machine.delay() * 5, lambda: self._driver.bury(process))


class Asker:
    """What the running attempt of a worker has asked for."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.calls: list[Call] = []
        self.run: SimulatedRun | None = None
        self.waiting = 0  # the request that waits for the run
        self.held = 0  # the request that waits for the worker's cores


def _keys(task: Task) -> list[tuple[Call, int]]:
    if task.items is None:
        return [(task.call, -1)]
    return [(task.call, index) for index in task.items]


def record_of(told: Told) -> bytes:
    """What a worker tells, as the table of attempts keeps it."""
    return RECORD.pack(
        told.attempt, told.status, 0, 0, 0, *(1,) * 5, 0, -1.0, 0.0, 0.0, 0.0, 0, 0, 0, 1, 0, 0, 0
    )
