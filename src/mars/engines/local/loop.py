"""The shell around the scheduler: sockets, processes and timers in, frames and signals out.

One thread per engine. It turns what happens into events, hands them to `Scheduler.on` and
carries out the commands that come back; it decides nothing by itself. Other threads reach it
through `post`.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from mars import platform
from mars.attempt import failure
from mars.attempt.capture import Log, Segment
from mars.engine import Run
from mars.engines.local import events
from mars.engines.local.certificate import ending_name, evidence, last_lines, start_ending
from mars.engines.local.events import Outcome
from mars.engines.local.pool import Member, Pool
from mars.engines.local.scheduler import Scheduler
from mars.engines.local.store import Store
from mars.engines.wire import messages
from mars.engines.wire.frames import BadFrame
from mars.engines.wire.messages import FLAG_FAILURES, FLAG_PACKED, FLAG_STORED, RECORD, TIMES
from mars.errors import InternalError, MarsError, SessionClosed, StartupFailed, WorkerDied
from mars.resources import oom_kills
from mars.settings import (
    CLOSED_S,
    DEATH_LOG_BYTES,
    FUNCTIONS_KEPT,
    IDLE_ARENA_S,
    LOG_LOOK_S,
    OVERDUE_S,
    REPORT_S,
    STOP_S,
)
from mars.task import DEFAULT_OPTIONS, Function, RunId, Stage, Task, WorkerId

_POLL_AGAIN_S: Final = OVERDUE_S

_WORDS_TOLD: Final = 8
"""Of workers that did not start, how many an error quotes."""


def _function_key(function: Function, run: Run) -> bytes:
    """What a function is known by: with large parts only in its run, see `functions.describe`."""
    return function.key + run.number.to_bytes(8, "little") if function.buffers else function.key


class Loop:
    """Runs one engine. Everything below `run` happens in its thread.

    Parameters
    ----------
    groups : sequence of (str, float)
        Address and cores of each group of workers.
    pool : Pool
        Starts their processes.
    store : Store
        Large values.
    memory : int
        Bytes that objects in memory and running calls may take together.
    tell : callable
        Shows the user a line.
    """

    def __init__(
        self,
        groups: Sequence[tuple[str, float]],
        pool: Pool,
        store: Store,
        memory: int,
        tell: Callable[[str], object],
    ) -> None:
        self.scheduler = self._new_scheduler(groups, lambda: memory - store.ledger.total())
        self.pool = pool
        self.store = store
        self.members: dict[int, Member] = {}
        self.runs: set[Run] = set()
        self.nested: Any = None  # serves workers whose calls ask for calls; set by the engine
        self.error: BaseException | None = None
        self._here = socket.gethostname()
        self._oom_kills = oom_kills()
        self._events: deque[events.Event] = deque()
        self._busy = False
        self._posted: deque[Callable[[], object]] = deque()
        self._forgotten: deque[Task] = deque()
        self._functions: dict[bytes, int] = {}
        self._function_count = 0
        self._functions_limit = 4 * FUNCTIONS_KEPT
        self._functions_of: dict[RunId, list[bytes]] = {}  # of one run, and useless after it
        self._late: list[Run] = []  # ended early: calls of theirs still run
        self._run_count = 0
        self._by_descriptor: dict[int, tuple[Callable[[Any, int], None], Any]] = {}
        self._poller = platform.poller()
        store.function_dropped = self._function_dropped
        self._wake_read, self._wake_write = platform.pipe()
        self._awake = False
        self._closing = False
        self._over = False  # the thread looks at nothing any more
        self._dirty: set[Member] = set()  # members with regions to tell of
        self._warm: dict[Member, float] = {}  # that keep memory, and until when; soonest first
        self._segments: weakref.WeakSet[Segment] = weakref.WeakSet()
        self._dead: list[Member] = []
        self._endings: dict[int, tuple[Any, ...]] = {}
        # Of workers that never were ready, by group; the last one's at the end.
        self._last_words: dict[int, deque[str]] = {}
        self.log_limit: float = math.inf  # bytes of one attempt's log
        self._look_at = 0.0
        self._tell = tell
        self._told_fewer = False
        self._told_closed: dict[int, str] = {}  # and why
        self._watch(self._wake_read, self._on_wake, None)
        self._watch(pool.socket.fileno(), self._on_zygote, None)
        self.thread = threading.Thread(target=self._run, name="mars-engine", daemon=True)

    def _new_scheduler(
        self, groups: Sequence[tuple[str, float]], room: Callable[[], float]
    ) -> Scheduler:
        return Scheduler(groups, room)

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
        self._poller.close()
        if self._wake_write >= 0:  # else the loop has ended, and closed them
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1
        for member in self.members.values():
            member.close()
        self.pool.forget()

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
        if self._has_to_look():
            if now >= self._look_at:
                self._look_at = now + LOG_LOOK_S
                self._look(now)
            timeout = LOG_LOOK_S if timeout is None else min(timeout, LOG_LOOK_S)
        cool_at = math.inf
        if self._warm or self.store.cool_at < math.inf:
            cool_at = min(next(iter(self._warm.values()), math.inf), self.store.cool_at)
            left = max(0.0, cool_at - now)
            timeout = left if timeout is None else min(timeout, left)
        for descriptor, mask in self._poller.poll(timeout):
            entry = self._by_descriptor.get(descriptor)
            if entry is not None:
                entry[0](entry[1], mask)
        if due is not None and time.monotonic() >= due:
            self.on(events.Tick())
        if self._dead:
            self._bury()
        if cool_at < math.inf:
            self._cool(time.monotonic())
        if self._dirty:
            for member in list(self._dirty):
                self._send_regions(member)

    def _cool(self, now: float) -> None:
        """Give memory back that has been kept for the next values long enough."""
        for member in list(self._warm):
            if self._warm[member] > now:
                break
            del self._warm[member]
            self._tell_control(member, messages.COOL)
        if self.store.cool_at <= now:
            self.store.cool()
            self.collect_regions()

    def on(self, event: events.Event) -> None:
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
                now = time.monotonic()
                self._carry_out(self.scheduler.on(self._events.popleft(), now), now)
        finally:
            self._busy = False

    def _watch(self, descriptor: int, handler: Callable[[Any, int], None], about: Any) -> None:
        self._by_descriptor[descriptor] = (handler, about)
        self._poller.register(descriptor, platform.READABLE)

    def _unwatch(self, descriptor: int) -> None:
        if self._by_descriptor.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)

    def _on_wake(self, _: Any, __: int) -> None:
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
        self.on(events.Submitted(run, tasks))

    def number(self, run: Run) -> RunId:
        """How messages call a run."""
        self._run_count += 1
        return RunId(self._run_count)

    def cancel(self, run: Run) -> None:
        """End a run early."""
        if run in self.runs or run in self._late:
            self.on(events.Cancelled(run))

    def _run_ended(self, run: Run) -> None:
        self.runs.discard(run)
        self.store.run_ended(run)
        self.collect_regions()
        self._late.append(run)
        late, self._late = self._late, []
        for ended in late:
            if ended.remaining:
                self._late.append(ended)
            else:
                self._forget_run(ended)
        if self.nested is not None:
            self.nested.run_ended(run)
        run.end()

    def _forget_run(self, run: Run) -> None:
        """No call of a run will be sent again: workers hear so with the next ones they get."""
        number = RunId(run.number)
        keys = self._functions_of.pop(number, ())
        functions = [self._functions.pop(key, 0) for key in keys]
        for member in self.members.values():
            runs_over, functions_over = member.over
            if number in member.runs:
                member.runs.discard(number)
                runs_over.append(number)
            if functions:
                functions_over += member.functions.intersection(functions)
                member.functions.difference_update(functions)

    def _function_dropped(self, key: bytes) -> None:
        """The program has a function no more, and with it went what was stored of it."""
        number = self._functions.pop(key, 0)
        for member in self.members.values():
            if number in member.functions:
                member.functions.discard(number)
                member.over[1].append(number)

    def _forget_functions(self, member: Member) -> None:
        """A worker has many functions: it may keep those of the calls that it has queued."""
        used = set()
        for task in self.scheduler.workers[WorkerId(member.number)].queue:
            run = (task.runs or task.source.runs)[0]  # type: ignore[union-attr]
            used.add(self._functions.get(_function_key(task.call.function, run), 0))
        member.over[1].extend(member.functions - used)
        member.functions &= used
        if len(self._functions) > self._functions_limit:
            # Numbers are not used again, so one that no worker knows means nothing any more.
            known = set().union(*[one.functions for one in self.members.values()])
            self._functions = {key: n for key, n in self._functions.items() if n in known}
            self._functions_limit = max(4 * FUNCTIONS_KEPT, 2 * len(self._functions))

    # -- commands -----------------------------------------------------------------------------

    def _carry_out(self, commands: list[events.Command], now: float) -> None:
        for command in commands:
            kind = type(command)
            if kind is events.Assign:
                self._assign(command)  # type: ignore[arg-type]
            elif kind is events.Landed:
                command.run.landed(command.task)  # type: ignore[union-attr, misc]
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
            return
        if isinstance(command, events.GiveUp):
            self._give_up()
            return
        if isinstance(command, events.Closed):
            self._closed(command.group)
            return
        if isinstance(command, events.Fewer):
            self._tell_fewer()
            return
        member = self.members.get(command.worker)  # type: ignore[union-attr]
        if member is None:
            return
        if isinstance(command, events.TakeBack):
            self._tell_control(member, messages.TAKE_BACK, command.most)
        elif isinstance(command, events.Report):
            self._tell_control(member, messages.REPORT)
        elif isinstance(command, events.Interrupt):
            member.interrupt(command.attempt)
        elif isinstance(command, events.Kill):
            member.signal(signal.SIGKILL)
        elif isinstance(command, events.StopWorker):
            self.send(member, (messages.STOP,))
        elif isinstance(command, events.Resume) and self.nested is not None:
            self.nested.resume(member)

    def _assign(self, command: events.Assign) -> None:
        member = self.members.get(command.worker)
        if member is None:
            # It is being buried: what it had finished made room in its queue. Died follows, and
            # with it the scheduler takes these tasks elsewhere.
            return
        if len(member.functions) > FUNCTIONS_KEPT:
            self._forget_functions(member)
        functions: dict[int, tuple[Any, ...]] = {}
        runs: dict[int, tuple[Any, ...]] = {}
        outgoing = []
        numbers = self._functions
        known = member.functions
        for task, within in zip(command.tasks, command.within, strict=True):
            call = task.call
            function = call.function
            run = (task.runs or task.source.runs)[0]  # type: ignore[union-attr]
            key = _function_key(function, run) if function.buffers else function.key
            number = numbers.get(key)
            if number is None:
                self._function_count += 1
                number = numbers[key] = self._function_count
                if function.buffers:
                    self._functions_of.setdefault(RunId(run.number), []).append(key)
            if number not in known:
                known.add(number)
                data, regions = self.store.function(function, run)
                for region in regions or ():
                    self.lend(member, region)
                functions[number] = (function.name, data, regions)
            if run.number not in member.runs:
                member.runs.add(run.number)
                told: Any = run.surroundings
                if told is member.surroundings:
                    told = messages.AS_BEFORE
                else:
                    member.surroundings = told
                runs[run.number] = (run.session_id, run.entropy, run.prefix, told)
            if task.items is not None:
                outgoing.append(self._block_message(member, task, number, run))
                continue
            payload: Any = call.payload
            if call.stored is not None:
                payload = self.store.arguments(call, run)
                for region in payload[1]:
                    self.lend(member, region)
            inputs = self._inputs(member, task) if call.inputs else None
            extra = self._extra(task)
            if within < REPORT_S:
                assert extra is not None  # something depends on it
                extra["report"] = int(within * 1e9)
            outgoing.append(
                (task.attempt, run.number, number, payload, inputs, call.n_output,
                 task.place, extra)
            )  # fmt: skip
        over, member.over = member.over, ([], [])
        self.send(member, (messages.TASKS, functions, runs, outgoing, over))

    def _extra(self, task: Task) -> dict[str, Any] | None:
        """What only some calls need to say."""
        options = task.call.options
        tries = task.tries + task.deaths
        if options is DEFAULT_OPTIONS and not tries and task.dependents is None:
            return None
        extra: dict[str, Any] = {}
        if options.name is not None:
            extra["name"] = options.name
        if options.cpus != 1:
            extra["cpus"] = options.cpus
        if options.memory is not None:
            extra["memory"] = options.memory
        if options.retries:
            extra["retry_on"] = options.retry_data
            extra["retries"] = options.retries
        if tries:
            extra["try"] = tries + 1
        if task.dependents is not None:
            extra["keep"] = True  # the value, for calls behind this one
        return extra

    def _block_message(self, member: Member, task: Task, number: int, run: Run) -> tuple[Any, ...]:
        call: Any = task.call
        extra = self._extra(task) or {}
        indices = task.items
        extra["items"] = indices[0] if isinstance(indices, range) else -1
        if not isinstance(indices, range):
            extra["indices"] = list(indices)
        extra["spread"] = call.spread
        if call.taken is not None:
            extra["spread"], extra["rows"] = False, "plain" if call.taken.plain else "any"
        try:
            payload = self.store.block_arguments(call, indices, run)
        except Exception as error:  # no room for them
            # The worker tells it when the block's turn has come: what is queued keeps its order.
            extra["refused"] = failure.encode_failure(error, call=call.name)
            payload = b""
        if type(payload) is tuple:
            for region in payload[1]:
                self.lend(member, region)
        return (task.attempt, run.number, number, payload, None, None, task.place, extra)

    def _inputs(self, member: Member, task: Task) -> list[Any]:
        realm = task.realm
        inputs = []
        for call, index in task.call.inputs:
            source = call.task
            if source is None or source.realm is not realm:
                source = call.task_in(realm)
                assert source is not None
            if source.stage is Stage.DONE or source.early:
                value = source.result if call.n_output is None else source.result[index]
                if type(value) is not bytes:
                    self.lend(member, value)
                inputs.append(value)
            else:
                # Queued in the same worker before this task, which will find it there.
                inputs.append((source.attempt, None if call.n_output is None else index))
        return inputs

    def lend(self, member: Member, value: Any) -> None:
        """Make sure that a worker can map a stored value."""
        number = value[1]
        if number not in member.arenas:
            member.arenas.add(number)
            descriptor, size = self.store.arena(number)
            self.send(member, (messages.ARENA, number, size), (descriptor,))
        self.store.lent(value, member.number)

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
            self._warm.pop(member, None)
            self._warm[member] = time.monotonic() + IDLE_ARENA_S
            message = (messages.FREE, member.unmap, member.free)
            member.unmap, member.free = [], []
            self.send(member, message)

    # -- sending ------------------------------------------------------------------------------

    def send(
        self, member: Member, message: tuple[Any, ...], descriptors: Sequence[int] = ()
    ) -> None:
        """Send a message to a worker, after those before it."""
        if not member.open:
            return
        data = member.outgoing.frame(message)
        if member.pending:
            member.pending.append((memoryview(data), descriptors))
            return
        try:
            sent = platform.send(member.data, data, descriptors)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._unreachable(member)
            return
        if sent < len(data):
            rest = memoryview(data)[sent:]
            member.pending.append((rest, () if sent else descriptors))
            self._poller.modify(member.data.fileno(), platform.READABLE | platform.WRITABLE)

    def _send_pending(self, member: Member) -> None:
        while member.pending:
            data, descriptors = member.pending[0]
            try:
                sent = platform.send(member.data, data, descriptors)
            except BlockingIOError:
                return
            except OSError:
                member.pending.clear()
                self._unreachable(member)
                return
            if sent < len(data):
                member.pending[0] = (data[sent:], ())
            else:
                member.pending.popleft()
        self._poller.modify(member.data.fileno(), platform.READABLE)

    def _tell_control(self, member: Member, *message: Any) -> None:
        try:
            member.control.send(member.orders.frame(message))
        except OSError:
            self._unreachable(member)

    def _unreachable(self, member: Member) -> None:
        """A message could not be sent: the worker has ended, or has to, as it missed something."""
        member.missed = True
        if not member.leaving:
            member.signal(signal.SIGKILL)

    # -- workers ------------------------------------------------------------------------------

    def _start_worker(self, command: events.StartWorker) -> None:
        group = self.scheduler.groups[command.group]
        try:
            place = self.store.worker_starts(command.worker)
            member = Member(command.worker, self.members.values())
        except OSError as error:
            self.store.worker_ended(command.worker)
            self._note_words(
                command.group, f"no descriptor or memory left: {platform.refusal(error)}"
            )
            self.post(lambda: self.on(events.Died(command.worker, 0, unable=True)))
            return
        self.members[command.worker] = member
        self._segments.add(member.segment)
        try:
            self.pool.fork(member, {"address": group.address, "place": place})
        except OSError as error:  # if the zygote is gone, `_on_zygote` will see it, too
            note = f"cannot start it: {platform.refusal(error)}"
            self._endings[member.number] = (0, None, 0, note)
            self.post(lambda: self._dead.append(member))
            return
        self._watch(member.data.fileno(), self._on_member, member)

    def _on_member(self, member: Member, mask: int) -> None:
        if mask & platform.WRITABLE:
            self._send_pending(member)
        if not mask & ~platform.WRITABLE:
            return
        try:
            alive = member.inbox.receive()
        except BlockingIOError:
            return
        except OSError:
            alive = False
        self._take_frames(member)
        if (member.broken or not alive) and member.open:
            # The process ends, or has closed all its descriptors, after which it is of no use.
            self._unwatch(member.data.fileno())
            if member.broken or not member.leaving:
                member.signal(signal.SIGKILL)

    def _take_frames(self, member: Member) -> None:
        """Act on what a worker has sent, up to what is no message of ours."""
        outcomes: list[Outcome] = []  # of frames in a row: one event costs less than several
        while not member.broken:
            # Only decoding is inside `try`: an error in what follows is ours, not the worker's.
            try:
                frames = member.inbox.frames()
            except BadFrame as error:
                self._distrust(member, error)
                break
            if not frames:
                break
            for records, data in frames:
                message: tuple[Any, ...] = ()
                try:
                    if records:
                        outcomes += self._outcomes(member, data)
                    else:
                        message = self._message(member, data)
                except BaseException as error:  # a pickle can raise anything, SystemExit too
                    self._distrust(member, error)
                    break
                if message:
                    self._finished(member, outcomes)
                    outcomes = []
                    self._take(member, message)
        self._finished(member, outcomes)

    def _finished(self, member: Member, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self.on(events.Finished(WorkerId(member.number), outcomes))
            if self.nested is not None:
                self.nested.attempt_ended(member)

    def _message(self, member: Member, data: memoryview) -> tuple[Any, ...]:
        message = messages.from_worker(data)
        if message[0] == messages.ARENA and not member.inbox.descriptors:
            raise BadFrame("an arena without its file")
        return message

    def _distrust(self, member: Member, error: BaseException) -> None:
        """What came is no message of ours: a call wrote to the socket.

        This worker is not believed any more, and ends; the others are not concerned.
        """
        member.broken = f"it sent what is no message ({type(error).__name__}: {error})"

    def _outcomes(self, member: Member, data: memoryview) -> list[Outcome]:
        outcomes = []
        told = bytes(data)  # at once: each slice of a view would cost one more
        position = 0
        end = len(told)
        size_of = RECORD.size
        unpack = RECORD.unpack_from
        times_from, times_to = TIMES.start, TIMES.stop
        segment = member.segment
        while position < end:
            (attempt, status, flags, log_start, log_end, received, _, _, _, stored, peak, size) = (
                unpack(told, position)
            )
            payload = position + size_of
            result: Any = told[payload : payload + size]
            if flags & FLAG_PACKED:
                result = pickle.loads(result)
                if flags & FLAG_STORED:
                    self.store.arrived(result)
            log = None
            if log_end > log_start:
                log = Log(segment, log_start, log_end)
                self._trim_log(log)
            outcomes.append(
                Outcome(
                    attempt,
                    status,
                    (stored - received) * 1e-9,
                    result,
                    bool(flags & FLAG_STORED),
                    len(result[1]) if flags & FLAG_FAILURES else 0,
                    told[position + times_from : position + times_to],
                    log,
                    peak * 1024,
                )
            )
            position = payload + size
        return outcomes

    def _has_to_look(self) -> bool:
        """Whether `_look` is to be called now and then."""
        return bool(self.runs or self._late)

    def _look(self, now: float) -> None:
        """What has to be done now and then while calls run."""
        self._trim_logs()

    def _trim_logs(self) -> None:
        """Keep the logs of what runs within their limit."""
        for member in self.members.values():
            attempt, start = member.running()
            if attempt:
                self._trim_log(Log(member.segment, start, member.segment.size()))

    def _trim_log(self, log: Log) -> None:
        if log.end - log.start > self.log_limit:
            log.segment.trim(log.start, log.end, int(self.log_limit))

    def _take(self, member: Member, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == messages.READY:
            self.on(events.WorkerReady(WorkerId(member.number)))
        elif kind == messages.REPORTED:
            return  # it came where it had to: nothing before it is missing
        elif kind == messages.LEAVING:
            member.leaving = True
            self.on(events.Left(WorkerId(member.number)))
        elif kind == messages.GAVE_BACK:
            self.on(events.GaveBack(WorkerId(member.number), message[1]))
        elif kind == messages.ARENA:
            descriptor = member.inbox.descriptors.pop(0)
            self.store.add_arena(message[1], descriptor, message[2])
            member.arenas.add(message[1])
        elif kind == messages.UNMAPPED:
            self.store.unmapped(message[1], message[2], member.number)
            self.collect_regions()
        elif kind == messages.PROGRESS:
            state = self.scheduler.workers.get(WorkerId(member.number))
            if state is not None and state.queue and state.queue[0].attempt == message[1]:
                task = state.queue[0]
                for run in task.runs:
                    run.partial[task] = message[2]
        elif self.nested is not None:
            self.nested.take(member, message)

    def _started(self, member: Member, pid: int, node: str, descriptor: int = -1) -> None:
        """The process of a worker is there: attempts are told to have been in it."""
        member.started(pid, descriptor)
        state = self.scheduler.workers.get(WorkerId(member.number))
        if state is not None:
            state.where = node, pid

    # -- ends ---------------------------------------------------------------------------------

    def _on_zygote(self, _: Any, __: int) -> None:
        try:
            alive = self.pool.inbox.receive()
        except OSError:
            alive = False
        try:
            frames = self.pool.inbox.frames()
        except BadFrame:  # it could not send one
            frames, alive = [], False
        for _records, data in frames:
            message = pickle.loads(data)
            descriptor = self.pool.descriptor_of(message)
            if message[0] == messages.STARTED:
                member = self.members.get(message[1])
                if member is not None:
                    self._started(member, message[2], self._here, descriptor)
                    if member.missed:
                        member.signal(signal.SIGKILL)
                elif descriptor >= 0:
                    os.close(descriptor)
            elif message[0] == messages.ENDED:
                self._endings[message[1]] = message[2:]
                member = self.members.get(message[1])
                if member is not None:
                    self._dead.append(member)
            elif message[0] == messages.PAGES and descriptor >= 0:
                self.store.use_pages(descriptor)
        if not alive:
            self._zygote_ended()

    def _zygote_ended(self) -> None:
        """Somebody killed the zygote, and the kernel all workers with it: begin anew."""
        self._unwatch(self.pool.socket.fileno())
        self.pool.stop()
        complaint = self.pool.complaint()
        for member in self.members.values():
            member.signal(signal.SIGKILL)
        # Nobody tells of their ends any more, and a call is sent again only after they have ended.
        processes = [member.process for member in self.members.values() if member.process >= 0]
        platform.wait_for_end(processes, STOP_S)
        for member in self.members.values():
            self._endings.setdefault(
                member.number, (member.pid, signal.SIGKILL, 0, f"the zygote ended; {complaint}")
            )
            if member not in self._dead:
                self._dead.append(member)
        if self._closing:
            return
        try:
            self.pool.start()
        except StartupFailed as error:
            self.error = error
            self._closing = True
            return
        self._watch(self.pool.socket.fileno(), self._on_zygote, None)

    def _bury(self) -> None:
        dead, self._dead = self._dead, []
        for member in dead:
            if self.members.pop(member.number, None) is None:
                continue
            # What it sent before it ended, to the last complete frame.
            try:
                while member.inbox.receive():
                    pass
            except OSError:
                pass
            self._take_frames(member)
            unreported = member.unreported()
            if unreported:
                outcomes: list[Outcome] = []
                with contextlib.suppress(BaseException):  # a call scribbled over it
                    outcomes = self._outcomes(member, memoryview(unreported))
                if outcomes:
                    self.on(events.Finished(WorkerId(member.number), outcomes))
            # What it began last. Of what it began before, a frame that was lost may have told.
            started, log_start = member.running()
            state = self.scheduler.workers.get(WorkerId(member.number))
            log = Log(member.segment, log_start, member.segment.size())
            self._trim_log(log)
            starved = self._starved(member)
            queue = () if state is None else state.queue
            # Made at once: what it is made of goes with the member.
            certificates = {
                task: self._certificate(member, task, log, starved)
                for task in queue
                if task.attempt <= started
            }
            unable = state is not None and not state.ready
            if state is not None and unable:
                self._note_words(state.group, self._words_of(member))
            self._unwatch(member.data.fileno())
            self._dirty.discard(member)
            self._warm.pop(member, None)
            member.close()
            self.store.worker_ended(member.number)
            if self.nested is not None:
                self.nested.worker_ended(member)
            _, status, peak_kib, _ = self._endings.pop(member.number, (0, None, 0, ""))
            unable = unable and (status is None or not os.WIFSIGNALED(status))
            self.on(
                events.Died(
                    WorkerId(member.number),
                    started,
                    certificates.__getitem__,
                    log,
                    starved,
                    1024 * peak_kib,
                    unable,
                )
            )
            self.collect_regions()

    def _starved(self, member: Member) -> bool:
        """Whether the kernel ended a process because memory ran out."""
        status = self._endings.get(member.number, (0, None, 0, ""))[1]
        state = self.scheduler.workers.get(WorkerId(member.number))
        if status is None or not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return False
        if member.broken or state is None or state.stopping:
            return False  # it was us
        before, self._oom_kills = self._oom_kills, oom_kills()
        return self._oom_kills > before

    def _certificate(self, member: Member, task: Task, log: Log, starved: bool) -> bytes:
        """The failure of a task whose worker died under it."""
        _pid, status, peak_kib, note = self._endings.get(member.number, (0, None, 0, ""))
        error = WorkerDied(
            task.call.name,
            member.title,
            ending_name(status),
            task.tries + task.deaths + 1,
            evidence(
                status,
                peak_kib=peak_kib,
                starved=starved,
                note=note,
                broken=member.broken,
                tail=_tail(log.segment, log.start, log.end),
            ),
        )
        return failure.encode_failure(error, call=task.call.name)

    def _words_of(self, member: Member) -> str:
        """How a worker ended that never was ready, and what it said."""
        _pid, status, _, note = self._endings.get(member.number, (0, None, 0, ""))
        said = "\n".join(last_lines(_tail(member.segment, 0, member.segment.size())))
        ending = "" if note else f"a worker {start_ending(status)}"
        return "\n".join(part for part in (note, ending, said.strip()) if part)

    def _tell_fewer(self) -> None:
        if not self._told_fewer:
            self._told_fewer = True
            words = [words[-1] for words in self._last_words.values()] or ["it does not say why"]
            self._tell(
                f"mars: fewer worker processes than cores, as another one does not start "
                f"({_last_line(words[-1])}); calls run on those that are there"
            )

    def _note_words(self, group: int, words: str) -> None:
        before = self._last_words.pop(group, deque(maxlen=2))
        self._last_words[group] = before
        before.append(words)

    def _closed(self, number: int) -> None:
        """Worker processes of a group do not start: calls for it end, the others run elsewhere."""
        group = self.scheduler.groups[number]
        words = [*self._last_words.get(number, ())] or ["they do not say why"]
        why = _last_line(words[-1])
        if self._told_closed.get(number) != why:
            self._told_closed[number] = why
            self._tell(
                f"mars: {self._title(number)} is closed, as worker processes do not start there "
                f"({why}); its calls run elsewhere, and it is tried again every {CLOSED_S:g} s"
            )
        there = [one for one in self.scheduler.groups.values() if not one.closed]
        for task in list(self.scheduler.ready):
            options = task.call.options
            if not any(
                options.cpus <= one.cpus
                and options.worker in (None, one.address)
                and (one.memory is None or (options.memory or 0) <= one.memory)
                for one in there
            ):
                self._fail_runs(
                    task,
                    StartupFailed(
                        f"{task.call.name} can run on {group.address} alone, and worker processes "
                        f"do not start there:\n" + "\n".join(words)
                    ),
                )

    def _title(self, group: int) -> str:
        """What messages call a group."""
        return f"worker {self.scheduler.groups[group].address}"

    def _fail_runs(self, task: Task, error: MarsError) -> None:
        """End the runs of a task with an error."""
        for run in task.runs if task.source is None else task.source.runs:
            if run.live:
                run.error = error
                self.on(events.Cancelled(run))

    def _give_up(self) -> None:
        """Workers end before they are ready, again and again."""
        # Most often all say the same, and so does the zygote, which prints what ended at once.
        several = len(self.scheduler.groups) > 1
        words = [
            f"{self._title(group)}: {one}" if several and group in self.scheduler.groups else one
            for group, some in self._last_words.items()
            for one in some
        ]
        told = dict.fromkeys((*words[-_WORDS_TOLD:], self.pool.complaint()))
        detail = "\n".join(words for words in told if words)
        self._fail(
            StartupFailed(
                f"worker processes do not start:\n{detail}\n"
                f"what they say last is why; a limit (ulimit -a), an environment variable or a "
                f"sitecustomize that this program had before it began may be the cause"
            )
        )

    def _fail(self, error: MarsError) -> None:
        for run in list(self.runs):
            run.error = error
            self.on(events.Cancelled(run))

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
        workers = self.scheduler.workers
        leaving = set()
        for member in self.members.values():
            state = workers.get(WorkerId(member.number))
            if state is None:  # it is leaving already
                leaving.add(member)
            elif state.told and not state.queue:
                self.send(member, (messages.STOP,))
                leaving.add(member)
        deadline = time.monotonic() + STOP_S
        while leaving := leaving.difference(self._dead):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self.pool.pid:
                return
            for descriptor, mask in self._poller.poll(left_s):
                entry = self._by_descriptor.get(descriptor)
                if entry is not None:
                    entry[0](entry[1], mask)

    def _end_all(self) -> None:
        self._closing = True
        with contextlib.ExitStack() as ending:  # from the last line to the first, whatever fails
            ending.callback(self._close_files)
            ending.callback(self._end_runs)
            ending.callback(self._stop_pool)
            if self.error is None:
                ending.callback(self._dismiss)

    def _stop_pool(self) -> None:
        if self.pool.pid:
            self._unwatch(self.pool.socket.fileno())
            self.pool.stop()

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
        for member in self.members.values():
            member.close()
        self.members.clear()
        for segment in list(self._segments):
            segment.close()
        self.pool.errors.close()
        self.store.close()
        self._poller.close()
        os.close(self._wake_read)
        write, self._wake_write = self._wake_write, -1
        os.close(write)


def _last_line(text: str) -> str:
    return (text.splitlines() or [""])[-1]


def _tail(segment: Segment, start: int, end: int) -> str:
    """The last that was printed between two places of a log file."""
    begin = max(start, end - DEATH_LOG_BYTES)
    return segment.read(begin, end - begin).decode("utf-8", "replace")
