"""The shell around the scheduler: one thread that turns what happens into events.

The loop hands each event to `Scheduler.on` and carries out the commands that come back; it decides
nothing by itself. It reaches workers through the port in `workers`, `dispatch` makes messages of
the calls for them, and `deaths` knows what to tell of those that end. Other threads reach the loop
through `post`.

One long room on purpose: all that belongs to the loop's thread alone is read here in one piece.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from mars import platform
from mars.attempt.capture import Log, Segment
from mars.engine import Run
from mars.engines.driver import events
from mars.engines.driver.deaths import Deaths
from mars.engines.driver.dispatch import Dispatch
from mars.engines.driver.events import Outcome
from mars.engines.driver.live import LiveItems
from mars.engines.driver.queues import WorkerState, place_of
from mars.engines.driver.records import outcomes_in
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.store import Store
from mars.engines.driver.workers import GroupLost, Member, Process, Workers
from mars.engines.local.process import Watch
from mars.engines.local.workers import Ended
from mars.engines.wire import messages
from mars.engines.wire.frames import BadFrame
from mars.engines.wire.messages import (
    FromWorker,
    Request,
)
from mars.errors import InternalError, MarsError, SessionClosed, StartupFailed
from mars.settings import IDLE_ARENA_S, LOG_LOOK_S, STOP_S
from mars.task import RunId, Stage, Task, WorkerId

if TYPE_CHECKING:
    from mars.engines.driver.nested import NestedServer

    class _Stream(Protocol):
        """What is asked once a second whether its run is to end."""

        def look(self) -> None: ...


Answer = TypeVar("Answer")


class Loop:
    """The loop of one engine. Everything below `_run` happens in its thread.

    Parameters
    ----------
    scheduler : Scheduler
        Decides.
    workers : Workers
        The worker processes; the loop closes them.
    store : Store
        Large values; the loop closes it.
    tell : callable
        Shows the user a line.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        workers: Workers,
        store: Store,
        tell: Callable[[str], object],
    ) -> None:
        self.scheduler = scheduler
        self.workers = workers
        self.store = store
        self.tell = tell
        self.members: dict[int, Member] = {}
        self.runs: set[Run] = set()
        self.streams: set[_Stream] = set()  # whose runs may wait for more calls, see `Stream`
        self.dispatch = Dispatch(self.members, scheduler, store)
        self.deaths = Deaths(scheduler, workers, self.fail_runs, tell)
        self.live = LiveItems(self.members, scheduler)
        self.nested: NestedServer | None = None  # set by the engine
        self.error: BaseException | None = None
        self.now = 0.0  # when the event came that is being decided about
        self._nodes = workers.nodes
        self._refusal: MarsError | None = None  # how all runs end from now on
        self._events: deque[events.Event] = deque()
        self._busy = False
        self._posted: deque[Callable[[], object]] = deque()
        self._forgotten: deque[Task] = deque()
        self._late: list[Run] = []  # ended early: calls of theirs still run
        self._run_count = 0
        self._watch = Watch()
        self._wake_read, self._wake_write = platform.pipe()
        self._awake = False
        self._closing = False
        self._over = False  # the thread looks at nothing any more
        self._dirty: set[Member] = set()  # members with regions to tell of
        self._warm: dict[Member, float] = {}  # that keep memory, and until when; soonest first
        self._segments: weakref.WeakSet[Segment] = weakref.WeakSet()
        self.loud = 0  # attempts that wrote to stderr
        self.log_limit: float = math.inf  # bytes of one attempt's log
        self._look_at = 0.0
        self._watch.add(self._wake_read, self._on_wake)
        workers.begin(self, self._watch, self.post)
        self.thread = threading.Thread(target=self._run, name="mars-engine", daemon=True)

    # -- from other threads --------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the engine has ended: nothing runs any more."""
        return self._over

    def start(self) -> None:
        """Start the workers and the thread.

        Raises
        ------
        StartupFailed
            The system refuses the thread; nothing is left.
        """
        try:
            self._carry_out(self.scheduler.start_all(), time.monotonic())
            self.thread.start()
        except BaseException as error:
            self._end_all()
            if isinstance(error, RuntimeError):
                raise StartupFailed(
                    f"the system refuses a thread ({error}); let this program, or this user, run "
                    f"fewer threads and processes, or raise the limit (ulimit -u)"
                ) from error
            raise

    def post(self, action: Callable[[], object]) -> None:
        """Have ``action`` called in the loop's thread."""
        self._posted.append(action)
        if self._over:
            self._act_on_posted()  # nobody else will: a run that comes too late ends at once
        else:
            self.wake()

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """Have something looked up in the loop's thread, and wait for the answer.

        Other threads read what the loop has in this way only.
        """
        if threading.current_thread() is self.thread:
            return question()
        answers: list[Answer] = []
        failures: list[BaseException] = []
        answered = threading.Lock()
        answered.acquire()

        def look() -> None:
            try:
                answers.append(question())
            except BaseException as error:  # it is the asker's, and must not end the loop
                failures.append(error)
            answered.release()

        self.post(look)
        answered.acquire()
        if failures:
            raise failures[0]
        return answers[0]

    def forget(self, task: Task) -> None:
        """The program holds no output of the task any more. May be called by the collector."""
        self._forgotten.append(task)
        self.wake()

    def wake(self) -> None:
        """Have the loop look at what was posted."""
        if not self._awake:
            self._awake = True
            try:
                os.write(self._wake_write, b"\0")
            except OSError:  # closed, or full: then it is about to wake anyway
                return

    def close(self) -> None:
        """End the loop, all workers and all runs; returns when nothing is left."""
        self.post(self._close)
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def forget_in_child(self) -> None:
        """In a child that the program forked: let go of everything, touch nothing."""
        self._watch.close()
        if self._wake_write >= 0:  # else the loop has ended, and closed them
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1
        self.workers.forget()

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._step()
        except BaseException as error:  # a bug of ours: nobody may wait for ever because of it
            self.error = error
            raise
        finally:
            self._end_all()

    def _step(self) -> None:
        now = time.monotonic()
        due = self.scheduler.next_timer()
        timeout = None if due is None else max(0.0, due - now)
        if self.runs or self._late or (self._nodes is not None and self._nodes.waits):
            if now >= self._look_at:
                self._look_at = now + LOG_LOOK_S
                self._look(now)
            timeout = LOG_LOOK_S if timeout is None else min(timeout, LOG_LOOK_S)
        cool_at = math.inf
        if self._warm or self.store.cool_at < math.inf:
            cool_at = min(next(iter(self._warm.values()), math.inf), self.store.cool_at)
            left = max(0.0, cool_at - now)
            timeout = left if timeout is None else min(timeout, left)
        self._watch.wait(timeout)
        if due is not None and time.monotonic() >= due:
            self.on(events.Tick())
        if self.workers.dead:
            self.workers.bury()
        if cool_at < math.inf and cool_at <= (now := time.monotonic()):
            self._cool(now)
        if self._dirty:
            for member in list(self._dirty):
                self._send_regions(member)

    def _cool(self, now: float) -> None:
        """Give memory back that has been kept for the next values long enough."""
        for member in list(self._warm):
            if self._warm[member] > now:
                break
            del self._warm[member]
            member.process.order((messages.COOL,))
        if self.store.cool_at <= now:
            self.store.cool()
            self.collect_regions()

    def on(self, event: events.Event) -> None:
        """Have the scheduler decide about an event, and carry out what it wants."""
        # An event may come up while commands are carried out. It waits until all of them are:
        # what a worker is sent must be in the order in which the scheduler queued it.
        if self._closing:
            return  # nothing is decided any more
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                now = self.now = time.monotonic()
                self._carry_out(self.scheduler.on(self._events.popleft(), now), now)
        finally:
            self._busy = False

    def _on_wake(self, _: object, __: int) -> None:
        os.read(self._wake_read, 64)
        self._awake = False
        self._act_on_posted()
        self.collect_regions()
        if self._forgotten:
            tasks = []
            while self._forgotten:
                tasks.append(self._forgotten.popleft())
            self.on(events.Forgotten(tasks))

    def _act_on_posted(self) -> None:
        while self._posted:
            try:
                action = self._posted.popleft()
            except IndexError:  # another thread was faster, after the end
                return
            action()

    # -- runs ---------------------------------------------------------------------------------

    def submit(self, run: Run, tasks: Sequence[Task]) -> None:
        """Begin a run."""
        if self._closing:
            run.error = self._reason()
            run.end()
            return
        if not run.number:
            run.number = self.number(run)
        self.runs.add(run)
        asker = None if run.member is None else self.scheduler.workers.get(run.member.number)
        self.scheduler.core.ended.run_began(
            run.number, run.session_id, run.depth,
            asker.queue[0].attempt if asker is not None and asker.queue else 0,
        )  # fmt: skip
        self.on(events.Submitted(run, tasks))
        if self._refusal is not None:
            self._fail(self._refusal)

    def number(self, run: Run) -> RunId:
        """How messages call a run."""
        self._run_count += 1
        return RunId(self._run_count)

    def cancel(self, run: Run) -> None:
        """End a run early."""
        if run in self.runs or run in self._late:
            self.on(events.Cancelled(run))

    def withdraw(self, task: Task, by: Run) -> bool:
        """Cancel one call. False: it has ended, or no run is at it."""
        if task.finished or task.stage is Stage.MADE or not any(run.live for run in task.runs):
            return False
        self.on(events.Withdrawn(task, by))
        return True

    def fail_runs(self, task: Task, error: MarsError) -> None:
        """End the runs of a task with an error."""
        for run in task.runs if task.source is None else task.source.runs:
            if run.live:
                run.error = error
                self.on(events.Cancelled(run))

    def refuse(self, error: MarsError) -> None:
        """End all runs with an error, also those that come later."""
        self._refusal = error
        self._fail(error)

    def _fail(self, error: MarsError) -> None:
        for run in list(self.runs):
            run.error = error
            self.on(events.Cancelled(run))

    def _run_ended(self, run: Run) -> None:
        if self._nodes is not None:
            self._nodes.run_ends()
        self.runs.discard(run)
        self.scheduler.core.ended.run_ended(run.number, self.now)
        self.store.run_ended(run)
        if self.nested is not None:
            self.nested.run_ended(run)
        run.end()  # whoever waits wakes up while the rest is done
        self.collect_regions()
        if run.remaining or self._late:
            self._late.append(run)
            late, self._late = self._late, []
        else:  # as most often
            late = [run]
        for ended in late:
            if ended.remaining:
                self._late.append(ended)
            else:
                self.dispatch.forget_run(ended)

    # -- commands -----------------------------------------------------------------------------

    def _carry_out(self, commands: list[events.Command], now: float) -> None:
        for command in commands:
            kind = type(command)
            if kind is events.Assign:
                self.dispatch.assign(command)  # type: ignore[arg-type]
            elif kind is events.Landed:
                command.run.landed(command.task)  # type: ignore[union-attr, misc]
            elif kind is events.Settled:
                task = command.task  # type: ignore[union-attr]
                task.call.options.in_set.settled(task)  # type: ignore[union-attr]
            elif kind is events.RunEnded:
                self._run_ended(command.run)  # type: ignore[union-attr, arg-type]
            elif kind is events.Discard:
                self.store.discard(command.result)  # type: ignore[union-attr]
                self.collect_regions()
            elif kind is events.Release:
                self._release(command.tasks)  # type: ignore[union-attr]
            else:
                self._carry_out_rare(command)

    def _carry_out_rare(self, command: events.Command) -> None:
        if isinstance(command, events.StartWorker):
            self._start_worker(command)
        elif isinstance(command, events.GiveUp):
            self._fail(self.deaths.no_start())
        elif isinstance(command, events.Closed):
            self.deaths.close_group(command.group)
        elif isinstance(command, events.Fewer):
            self.deaths.tell_fewer(command.group)
        elif isinstance(command, (events.Fetch, events.Needed, events.Unneeded)):
            if self._nodes is not None:
                self._nodes.carry_out(command)
        else:
            member = self.members.get(command.worker)  # type: ignore[union-attr]
            if member is not None and not member.process.deaf:  # else it is being buried
                self._tell_worker(member, command)

    def _tell_worker(self, member: Member, command: events.Command) -> None:
        process = member.process
        if isinstance(command, events.TakeBack):
            process.order((messages.TAKE_BACK, command.most))
        elif isinstance(command, events.Report):
            process.order((messages.REPORT,))
        elif isinstance(command, events.Interrupt):
            process.interrupt(command.attempt)
        elif isinstance(command, events.Kill):
            process.kill()
        elif isinstance(command, events.StopWorker):
            process.send((messages.STOP,))
        elif isinstance(command, events.Resume) and self.nested is not None:
            self.nested.resume(member)

    def _release(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.store.release(task)
        self.collect_regions()

    def collect_regions(self) -> None:
        """Pass on what the store wants told to workers about regions."""
        for worker, unmap, free in self.store.take_news():
            member = self.members.get(worker)
            if member is None:
                continue
            if unmap is not None:
                member.unmap.append(unmap)
            if free is not None:
                member.free.append(free)
            self._dirty.add(member)

    def _send_regions(self, member: Member) -> None:
        self._dirty.discard(member)
        if member.unmap or member.free:
            self._warms(member)
            unmap, free, member.unmap, member.free = member.unmap, member.free, [], []
            member.process.send((messages.FREE, unmap, free))

    def _warms(self, member: Member) -> None:
        """A worker keeps memory that is free now."""
        self._warm.pop(member, None)
        self._warm[member] = time.monotonic() + IDLE_ARENA_S

    # -- workers ------------------------------------------------------------------------------

    def _start_worker(self, command: events.StartWorker) -> None:
        group = self.scheduler.groups[command.group]
        number = command.worker
        try:
            place = self.store.worker_starts(number)
            self.scheduler.core.ended.workers[number][1] = time.monotonic()
            facts: messages.Facts = {
                "address": group.address,
                "place": place,
                "threads": group.threads,
            }
            if group.pool is not None:
                names, worker = group.pool.names, self.scheduler.workers[number]
                facts["gpus"] = [names[at] for at in worker.devices]
            process = self.workers.start(number, facts, place_of(command.group))
        except GroupLost:  # just now
            self.store.worker_ended(number)
            self.post(lambda: self.on(events.Died(number, 0)))
            return
        except OSError as error:
            self.store.worker_ended(number)
            self.deaths.note(
                command.group, f"no descriptor or memory left: {platform.refusal(error)}"
            )
            self.post(lambda: self.on(events.Died(number, 0, unable=True)))
            return
        self.members[number] = Member(process)
        self._segments.add(process.segment)

    def started(self, process: Process) -> None:
        """The process of a worker is there: attempts are told to have been in it."""
        state = self.scheduler.workers.get(WorkerId(process.number))
        if state is not None:
            state.where = process.where, process.pid

    def came(self, process: Process, frames: Iterable[tuple[bool, memoryview]]) -> None:
        """Act on what a worker has sent, up to what is no message of ours."""
        member = self.members[process.number]
        outcomes: list[Outcome] = []  # of frames in a row: one event costs less than several
        for records, data in frames:
            # Only decoding is inside `try`: an error in what follows is ours, not the worker's.
            message: FromWorker | None = None
            try:
                if records:
                    outcomes += self._outcomes(process, data)
                else:
                    message = self._message(process, data)
            except BaseException as error:  # a pickle can raise anything, SystemExit too
                self.garbled(process, error)
                break
            if message is not None:
                self._finished(member, outcomes)
                outcomes = []
                self._take(member, message)
        self._finished(member, outcomes)

    def garbled(self, process: Process, error: BaseException) -> None:
        """What came is no message of ours: a call wrote to the socket.

        This worker is not believed any more, and ends; the others are not concerned.
        """
        process.broken = f"it sent what is no message ({type(error).__name__}: {error})"

    def _message(self, process: Process, data: memoryview) -> FromWorker:
        message = messages.from_worker(data)
        if message[0] == messages.ARENA and not process.descriptors:
            raise BadFrame("an arena without its file")
        return message

    def _finished(self, member: Member, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self.on(events.Finished(WorkerId(member.number), outcomes))
            self._warms(member)
            if self.nested is not None:
                self.nested.attempt_ended(member)

    def _outcomes(self, process: Process, data: memoryview | bytes) -> list[Outcome]:
        told = bytes(data)  # at once: each slice of a view would cost one more
        outcomes = outcomes_in(told, process.segment, self.store.arrived, self._printed)
        table = self.scheduler.core.ended
        table.add(process.number, told, len(outcomes))
        if self._nodes is None:
            return outcomes
        return self._nodes.outcomes(process, outcomes)

    def _printed(self, segment: Segment, log: Log) -> None:
        """A call that has ended has printed something."""
        self.loud += log.loud
        self._trim(segment, log)

    def _look(self, now: float) -> None:
        """Do what has to be done now and then while calls run."""
        for member in self.members.values():
            attempt, start = member.process.running()
            if attempt:
                segment = member.process.segment
                self._trim(segment, Log(segment, start, segment.size()))
        if self._nodes is not None:
            self._nodes.look(now)
        for stream in list(self.streams):
            stream.look()

    def _trim(self, segment: Segment, log: Log) -> None:
        """Keep a log within its limit."""
        if log.end - log.start > self.log_limit:
            segment.trim(log.start, log.end, int(self.log_limit))

    def _take(self, member: Member, message: FromWorker) -> None:
        worker = WorkerId(member.number)
        if message[0] == messages.READY:
            self.on(events.WorkerReady(worker))
        elif message[0] == messages.REPORTED:
            return  # it came where it had to: nothing before it is missing
        elif message[0] == messages.LEAVING:
            member.process.leaving = True
            self.on(events.Left(worker))
        elif message[0] == messages.GAVE_BACK:
            self.on(events.GaveBack(worker, message[1]))
        elif message[0] == messages.ARENA:
            descriptor = member.process.descriptors.pop(0)
            self.store.add_arena(message[1], descriptor, message[2])
            member.process.arenas.add(message[1])
        elif message[0] == messages.UNMAPPED:
            self.store.unmapped(message[1], message[2], member.number)
            self.collect_regions()
        elif message[0] == messages.PROGRESS:
            state = self.scheduler.workers.get(worker)
            if state is not None and state.queue and state.queue[0].attempt == message[1]:
                task = state.queue[0]
                for run in [one for one in task.runs if one.live]:
                    run.partial[task] = message[2]
        elif message[0] == messages.ON_GPUS:
            self.scheduler.core.ended.on_gpus(message[1], message[2], message[3])
        elif message[0] == messages.MARKS:
            self.live.take(member, message[1], message[2])
        elif self.nested is not None:
            self._take_request(member, message)

    def _take_request(self, member: Member, message: Request) -> None:
        assert self.nested is not None
        if message[0] == messages.SUBMIT and self._nodes is not None:
            trouble = self._nodes.trouble(message)
            if trouble is not None:
                self.nested.refuse(member, message, trouble)
                return
        self.nested.take(member, message)

    def printed(self, worker: WorkerState) -> int:
        """Bytes that a worker has printed, with all its calls."""
        member = self.members.get(worker.id)
        try:
            return 0 if member is None else member.process.segment.size()
        except OSError:  # it has just ended
            return 0

    def running_log(self, task: Task) -> Log | None:
        """The log of the attempt that runs now."""
        member = None if task.worker is None else self.members.get(task.worker.id)
        if member is None or member.process.deaf:
            return None
        running, start = member.process.running()
        if running != task.attempt:
            return None
        segment = member.process.segment
        return Log(segment, start, segment.size())

    # -- ends ---------------------------------------------------------------------------------

    def ended(self, process: Process, ended: Ended) -> None:
        """A worker has ended, and all that it had sent has been acted on."""
        member = self.members[process.number]
        if ended.unreported:
            outcomes: list[Outcome] = []
            with contextlib.suppress(BaseException):  # a call scribbled over it
                outcomes = self._outcomes(process, ended.unreported)
            if outcomes:
                self.on(events.Finished(WorkerId(member.number), outcomes))
        log = Log(process.segment, ended.log_start, process.segment.size())
        self._trim(process.segment, log)
        died = self.deaths.died(process, ended, log)
        del self.members[member.number]
        self._dirty.discard(member)
        self._warm.pop(member, None)
        self.store.worker_ended(member.number)
        if self.nested is not None:
            self.nested.worker_ended(member)
        self.on(died)
        self.collect_regions()

    def forget_group(self, group: int) -> None:
        """A group is lost: nothing is told of it any more."""
        self.deaths.forget_group(group)

    def zygote_failed(self, error: StartupFailed) -> None:
        """No worker can be started any more: the engine ends."""
        self.error = error
        self._closing = True

    def _close(self) -> None:
        self._closing = True

    def _reason(self) -> MarsError:
        """Why nothing runs any more."""
        if self.error is None:
            return SessionClosed()
        if isinstance(self.error, MarsError):
            return self.error
        return InternalError(
            f"the engine ended by an error of its own, {type(self.error).__name__}: {self.error}; "
            f"new_session() starts another"
        )

    def _dismiss(self) -> None:
        """Have workers that do nothing end regularly, with their exit handlers; wait for them.

        Others are killed after that: those in a call, and those that have never had one.
        """
        self.workers.dismiss()
        leaving = set()
        for member in self.members.values():
            state = self.scheduler.workers.get(WorkerId(member.number))
            if state is None:  # it is leaving already
                leaving.add(member.number)
            elif state.told and not state.queue:
                member.process.send((messages.STOP,))
                leaving.add(member.number)
        deadline = time.monotonic() + STOP_S
        while leaving := leaving.difference(self.workers.dead):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self.workers.alive:
                return
            self._watch.wait(left_s)

    def _end_all(self) -> None:
        self._closing = True
        with contextlib.ExitStack() as ending:  # from the last line to the first, whatever fails
            ending.callback(self._close_files)
            ending.callback(self._end_runs)
            ending.callback(self.workers.stop)
            if self.error is None:
                ending.callback(self._dismiss)

    def _end_runs(self) -> None:
        for run in list(self.runs):
            run.error = run.error or self._reason()
            with contextlib.suppress(BaseException):  # a callback must not cost the other runs
                run.end()
        self.runs.clear()
        self._over = True
        while self._posted:
            with contextlib.suppress(BaseException):  # nor one action the others
                self._act_on_posted()

    def _close_files(self) -> None:
        self.members.clear()
        self.workers.close()
        for segment in list(self._segments):
            segment.close()
        self.store.close()
        self._watch.close()
        os.close(self._wake_read)
        write, self._wake_write = self._wake_write, -1
        os.close(write)
