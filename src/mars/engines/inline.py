"""The reference engine: calls run one after the other in the thread that executes them.

For a debugger, and for reading: it keeps the contract in the plainest way. Arguments and results
are pickled all the same, so a program behaves as it does with worker processes. It cannot stop
a call that does not want to stop, nor survive one that ends the process.

One call at a time, as what a call prints is all that the process prints. Threads of the program
take turns, call by call. Calls that a call asks for run while it waits, in its thread or in
threads that it has started; these take turns among each other.

One long room on purpose: the whole contract of an engine is read here in one piece, without the
processes, sockets and orders that take the other engines apart.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Protocol, TypeVarTuple, cast

from mars import platform
from mars.attempt import call as attempt_call
from mars.attempt import codec, context, filters, threads
from mars.attempt.capture import Log, Segment, capturing, is_interactive
from mars.attempt.codec import loads
from mars.calls.options import Options
from mars.code import world
from mars.code.arriving import new_world
from mars.code.world import visiting
from mars.config import own_options
from mars.engine import Run
from mars.engines.given import Given, environment_with
from mars.engines.kinds import EngineOptions
from mars.engines.main_thread import (
    Late,
    Limit,
    code_of_a_call,
    code_of_the_engine,
    interrupts,
    waiting,
)
from mars.engines.objects import RemoteObject, SharedObjects
from mars.engines.outcome import TaskLog, check_open, failure_of, item_of, no_value_of
from mars.errors import MarsError, NoAvailableBand, SessionClosed
from mars.gpus import variables
from mars.logs import LogSource
from mars.observe.attempts import ENDINGS, Attempts, Rows
from mars.settings import BACKOFF_S, INLINE_BYTES, INTERRUPT_GRACE_S, LOG_TAIL_BYTES
from mars.task import TIMING, Call, Realm, Stage, Task

Sent = TypeVarTuple("Sent")

TYPE_CHECKING = False  # known to type checkers; loaded when somebody looks
if TYPE_CHECKING:
    from mars.calls.maps import MapCall
    from mars.observe.observation import Memory, Observation, WorkerFacts
    from mars.task import Buffer, Place

    _Packed = tuple[bytes, list[bytes]]
    """A value as it is kept here: its pickle, and its large buffers."""

    _Prepared = tuple[Callable[[], object], codec.Arguments]
    """What makes the outputs of an attempt, and the arguments of its call."""


class InlineEngine:
    """Runs calls in the calling thread.

    Parameters
    ----------
    name : str
        Its address.
    options : EngineOptions, optional
        What it is started with. Calls are told of its cores, but one call runs at a time.
    """

    def __init__(self, name: str, options: EngineOptions | None = None) -> None:
        options = options or EngineOptions()
        self.address = name
        self._given = Given(options.env, options.working_dir, options.storage)
        self.storage = options.storage
        self._options = options
        self._gpus: list[tuple[str, ...]] | None = None  # of each group, once a call asks for some
        self.n_cpu: float = sum(options.cores)
        self.worker_addresses: Sequence[str] = context.addresses(name, len(options.cores))
        self.objects = SharedObjects()
        self._largest = max(options.cores)
        self._pid = os.getpid()
        self._where = socket.gethostname(), self._pid
        # Held to look at tasks and runs, never while a call runs. Signalled when something ends.
        self._changed = threading.Condition(threading.RLock())
        self._runs: set[Run] = set()
        self._stack: list[context.Attempt] = []  # attempts that run, one inside the other
        self._turns: dict[context.Attempt | None, int] = {}  # whose call runs, and its thread
        self._running: dict[Task, tuple[Segment, int]] = {}  # where the log of a call starts
        self._limits: dict[Task, Limit] = {}  # of calls that run
        self._run_numbers, self._attempt_numbers = itertools.count(1), itertools.count(1)
        self._numbers: dict[Task, int] = {}  # of attempts that run
        self._used_s: dict[Task, float] = {}  # processor time of attempts that end
        self._ended = Attempts()
        address = self.worker_addresses[0]
        begun = time.monotonic()
        self._ended.workers[1] = [SimpleNamespace(address=address, where=self._where), begun, begun]
        self._free: list[Segment] = []  # for the logs of further calls
        self.loud = 0  # attempts that have written to stderr
        self._log_limit: int | None = None
        self._closed = False
        self._threads = context.FollowThreads()

    @property
    def shows_calls(self) -> bool:
        """Whether what calls print is on the program's terminal, for a debugger."""
        return is_interactive()

    # -- runs ---------------------------------------------------------------------------------

    def submit(
        self, run: Run, calls: Sequence[Call], places: Sequence[Place], targets: Collection[Call]
    ) -> None:
        """Run calls to the end of the run, here or in a thread; see `mars.engine.Engine`."""
        with code_of_the_engine():
            check_open(self._closed, self._pid)
            for call in calls:
                self.check(call)
            with self._changed:
                run.number = next(self._run_numbers)
                run.depth = len(self._stack)
                now = time.monotonic()
                self._ended.run_began(
                    run.number, run.session_id, run.depth,
                    next(reversed(self._numbers.values()), 0),
                )  # fmt: skip
                self._ended.run_queued(run.number, now)
                run.tasks = [
                    self._attach(run, call, place, call in targets, now)
                    for call, place in zip(calls, places, strict=True)
                ]
                run.total = run.remaining = sum(max(task.size, 1) for task in run.tasks)
                self._runs.add(run)
            if not run.beside:
                self._work(run)
                return
            thread = threading.Thread(
                target=self._work_beside, args=(run,), name="mars-run", daemon=True
            )
            try:
                thread.start()
            except BaseException as error:
                self._end(run, error)
                raise

    def stream(self, realm: Realm, begin: Callable[[], Run]) -> None:
        """None: each call is a run of its own."""

    def check(self, call: Call) -> None:
        """Refuse a call that asks for more than there is; see `mars.engine.Engine`."""
        options = call.options
        if options.cpus > self._largest:
            raise NoAvailableBand(
                f"{call.name} asks for cpus={options.cpus:g}, but a worker has {self._largest}"
            )
        if options.worker is not None and options.worker not in self.worker_addresses:
            raise NoAvailableBand(
                f"{call.name} asks for worker {options.worker!r}, which does not exist; "
                f"workers are {', '.join(self.worker_addresses)}"
            )
        if options.gpus:
            names = self._gpus_for(options)
            if options.gpus > len(names):
                has = f"a worker has {len(names)}" if names else "there is none"
                raise NoAvailableBand(
                    f"{call.name} asks for gpus={options.gpus:g}, but {has}; "
                    f"{self._options.how_to_have_gpus()}"
                )

    def _gpus_for(self, options: Options) -> tuple[str, ...]:
        """The GPUs of the group of workers that has most of them, and may run such a call."""
        if self._gpus is None:
            self._gpus = self._options.gpus_of_groups()
        able = [
            names
            for address, names in zip(self.worker_addresses, self._gpus, strict=True)
            if options.worker in (None, address)
        ]
        return max(able, key=len)

    def _attach(self, run: Run, call: Call, place: Place, asked: bool, now: float) -> Task:
        """The task of a call in a run: another run's, if that is at it or has made it."""
        known = call.task_in(run.realm)
        if known is not None and (
            known.available
            or not known.finished
            or (known.stage is Stage.FAILED and call in run.once)
        ):
            known.asked |= asked
            if not known.finished:
                known.runs += (run,)
            return known
        task = Task(call, run.realm)
        task.place = place
        task.asked = asked
        task.runs = (run,)
        task.queued_at = task.ready_at = now
        call.begin(task)
        if known is not None:
            # What earlier attempts printed, and how they ended, stays readable.
            task.logs, task.ended = known.logs, known.attempts()
            call.put_out(known)
        call.attach(task)
        return task

    def _work_beside(self, run: Run) -> None:
        with contextlib.suppress(BaseException):  # `run.error` tells it
            self._work(run)

    def _work(self, run: Run) -> None:
        error: BaseException | None = None
        try:
            for task in _by_urgency(run.tasks):
                if not run.live:
                    break
                with self._turn(run):
                    if run.live and not task.finished:
                        self._run_task(task, run)
                    self._count(task, run)
        except KeyboardInterrupt:  # Ctrl-C: as if the program had cancelled it
            self._cancel(run)
            raise
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._end(run, error)

    @contextlib.contextmanager
    def _turn(self, run: Run) -> Iterator[None]:
        """Wait until no other call of the same asker runs, or the run has ended meanwhile."""
        thread = threading.get_ident()
        with self._changed:
            asker = self._asker()
            # A thread that has the turn may be here again: for what it does beside a call.
            while run.live and self._turns.get(asker, thread) != thread:
                with waiting():
                    self._changed.wait()
                asker = self._asker()
            taken = asker not in self._turns
            if taken:
                self._turns[asker] = thread
        try:
            yield
        finally:
            if taken:
                with self._changed:
                    del self._turns[asker]
                    self._changed.notify_all()

    def _asker(self) -> context.Attempt | None:
        """The running call that this thread belongs to; None: the program itself."""
        attempt = context.current()
        if attempt is None or attempt.engine is not self:
            return None
        if attempt in self._stack:
            return attempt
        # A call left this thread behind. As in a worker, it is of the call that runs now.
        return self._stack[-1] if self._stack else None

    def _count(self, task: Task, run: Run) -> None:
        with self._changed:
            size = max(task.size, 1)
            if task.stage is Stage.DONE:
                run.done += size if task.parts is None else 0  # items have been counted
            elif task.stage is Stage.FAILED:
                run.failed += size if task.parts is None else 0
                if run.failure is None:
                    run.failure = _first_failure(task)
                if run.stop_on_error:
                    run.live = False
            run.remaining -= size
            if run.heard is not None and task.finished:
                run.heard(task)

    def _end(self, run: Run, error: BaseException | None) -> None:
        """A run is over: what it has not run, it leaves to others, or nobody wants it."""
        with self._changed:
            if run.error is None and not run.cancelled:
                run.error = error
            run.live = False
            for task in run.tasks:
                if not task.finished and not _wanted(task):
                    failed = _failed_input(task)
                    if failed is not None:
                        task.stage, task.failed_input = Stage.FAILED, failed
                        run.failed += 1
                    else:
                        task.stage = Stage.CANCELLED if task.cancelled else Stage.ABANDONED
                if task.finished:
                    task.runs = ()
            run.tasks = ()
            self._runs.discard(run)
            self._ended.run_ended(run.number, time.monotonic())
            self._changed.notify_all()
        run.end()

    def cancel(self, run: Run) -> None:
        """End a run now. A call that runs is left to its end, and what comes of it is dropped."""
        if self._cancel(run):
            run.end()

    def _cancel(self, run: Run) -> bool:
        with self._changed:
            if not run.live:
                return False
            run.cancelled = True
            run.live = False
            for task in run.tasks:
                if task.cancelled and not task.finished:
                    if task.stage is Stage.ASSIGNED and task.parts is None:
                        task.ended = (*task.ended, (*self._where, "stopped"))
                    task.stage = Stage.CANCELLED
            self._interrupt_cancelled()
            self._changed.notify_all()
        return True

    def withdraw(self, task: Task) -> bool:
        """Cancel one call; see `mars.engine.Engine`. One that runs is left to its end."""
        with self._changed:
            if task.finished or not _wanted(task):
                return False
            found, pending = [task], [*self._runs]
            dropped = {task}
            for one in [other for run in pending for other in run.tasks]:  # inputs come first
                needs = {source.task_in(one.realm) for source, _ in one.call.inputs}
                if not one.finished and one not in dropped and needs & dropped:
                    dropped.add(one)
                    found.append(one)
            for one in found:
                size = len(one.items) - len(one.parts) if one.parts is not None else 1
                for run in one.runs:
                    run.withdrawn += size
                    if run.heard is not None:
                        run.heard(one)
                if one.stage is Stage.ASSIGNED and one.parts is None:
                    one.ended = (*one.ended, (*self._where, "stopped"))
                one.runs, one.stage = (), Stage.CANCELLED
            self._interrupt_cancelled()
            self._changed.notify_all()
        return True

    def _interrupt_cancelled(self) -> None:
        """Stop calls that run and that nobody wants any more, where that can be done."""
        for task, limit in self._limits.items():
            if not _wanted(task):
                limit.end_now()

    # -- calls --------------------------------------------------------------------------------

    def _run_task(self, task: Task, run: Run) -> None:
        call = task.call
        failed = _failed_input(task)
        if failed is not None:
            task.stage, task.failed_input = Stage.FAILED, failed
            return
        if task.parts is not None:
            self._run_items(task, run)
        else:
            place = task.place if isinstance(task.place, tuple) else (task.place,)
            self._attempts(task, run, (*run.prefix, *place), lambda: self._outputs(task))
        if task.stage is not Stage.DONE:
            return
        if task.parts is None:
            _land(task, task.runs)
        task.runs = ()
        call.satisfy()
        if not call.handles:
            self.forget(task)

    def _outputs(self, task: Task) -> _Prepared:
        call = task.call
        function = self._load(call)
        values = [
            self.value(source, index)
            for source, index in ((one.task_in(task.realm), at) for one, at in call.inputs)
            if source is not None
        ]
        payload = call.payload
        buffers = tuple(x for x in call.stored or () if x is not payload)
        # Copied, as another process would have them.
        args, kwargs = codec.decode_arguments(payload, codec.copies(buffers), values)

        def run() -> object:
            value = function(*args, **kwargs)
            outputs = [
                self._packed(output, call.name)
                for output in attempt_call.split_outputs(value, call.n_output)
            ]
            return outputs[0] if call.n_output is None else tuple(outputs)

        return run, (args, kwargs)

    def _load(self, call: Call) -> Callable[..., object]:
        function = call.function
        loaded: Callable[..., object] = codec.loads(
            function.data, buffers=codec.copies(function.buffers)
        )
        world.settle()
        return loaded

    def _packed(self, value: object, name: str) -> _Packed:
        try:
            data, buffers = codec.encode(value)
        except Exception as error:
            raise attempt_call.encode_error(value, "result", name, error) from None
        return data, [bytes(buffer.raw()) for buffer in buffers]

    def pickled(self, value: object) -> tuple[Buffer, Sequence[Buffer]]:
        """A value as its pickle and its large buffers."""
        return cast("_Packed", value)  # there is no other kind

    def decode(self, value: object) -> object:
        """A fresh object from a value."""
        data, buffers = cast("_Packed", value)  # there is no other kind
        return codec.loads(data, buffers=[bytearray(buffer) for buffer in buffers])

    def install(self, task: Task, value: object) -> None:
        """Give a task a value, or its values."""
        name = task.call.name
        if task.call.n_output is None:
            task.result = self._packed(value, name)
        else:
            task.result = tuple([self._packed(one, name) for one in value])  # type: ignore[attr-defined]

    def _run_items(self, task: Task, run: Run) -> None:
        call = cast("MapCall", task.call)
        place = task.place if isinstance(task.place, tuple) else (task.place,)
        items = task.items
        for count, index in enumerate(items, 1):
            block = Task(call, task.realm)
            block.items, block.source = range(index, index + 1), task

            def prepare(index: int = index) -> _Prepared:
                function = self._load(call)
                arguments = call.loaded(index)
                return (lambda: self._packed([function(*arguments)], call.name)), (arguments, {})

            self._attempts(block, run, (*run.prefix, *place, index), prepare)
            if block.stage is Stage.ABANDONED:
                return  # and the map is cancelled
            if block.stage is Stage.DONE:
                log = block.logs[-1] if block.logs else None
                marks = None if log is None else [log.start, log.end]
                loud = [0] if log is not None and log.loud else []
                block.result = (block.result, {}, marks, {}, loud)
                _land(block, task.runs)
            else:
                task.tries += 1
            with self._changed:
                task.parts.append(block)
                for one in task.runs:
                    one.done += block.stage is Stage.DONE
                    one.failed += block.stage is not Stage.DONE
                    if block.stage is not Stage.DONE:
                        one.failure = one.failure or block
                        one.live &= not one.stop_on_error
                    if one.heard is not None:
                        one.heard(block)
                if count == len(items):
                    task.stage = Stage.FAILED if task.tries else Stage.DONE
                elif not _wanted(task):
                    task.stage = Stage.ABANDONED
                    return

    def _attempts(
        self, task: Task, run: Run, place: tuple[int, ...], prepare: Callable[[], _Prepared]
    ) -> None:
        options = task.call.options
        whole = task if task.source is None else task.source
        while True:
            task.attempt += 1
            task.sent_at = time.monotonic()  # whoever sees that it runs asks since when
            task.stage = whole.stage = Stage.ASSIGNED
            printed = len(task.logs)
            with visiting(new_world()):
                try:
                    error = self._attempt(task, run, place, prepare)
                except BaseException:  # Ctrl-C, or the end of the call that waits for this one
                    self._note(task, run, "stopped", printed)
                    raise
                again = options.retry_late if task.blame else _worth_another(error, options)
            with self._changed:
                if whole.stage is Stage.CANCELLED:  # meanwhile: what came of it does not count
                    self._note(task, run, "stopped", printed)
                    if whole is not task:
                        task.stage = Stage.ABANDONED
                    return
                ending = "value" if error is None else "stopped" if task.blame else "error"
                self._note(task, run, ending, printed)
                task.ended = (*task.ended, (*self._where, ending))
                if error is None:
                    task.stage = Stage.DONE
                    return
                task.tries += 1
                if task.tries > options.retries or not again or not _wanted(task):
                    task.stage = Stage.FAILED
                    return
                with waiting():
                    self._changed.wait_for(
                        lambda: not _wanted(task), BACKOFF_S[min(task.tries, len(BACKOFF_S)) - 1]
                    )

    def _attempt(
        self, task: Task, run: Run, place: tuple[int, ...], prepare: Callable[[], _Prepared]
    ) -> BaseException | None:
        """Run a task once; its result is then in it, and its error comes back."""
        options = task.call.options
        arguments: codec.Arguments | None = None
        attempt = context.Attempt(
            run.session_id, task.call.name, self, options.worker or self.worker_addresses[0],
            run.entropy, place, lambda progress: _progressed(task, progress),
        )  # fmt: skip
        with self._changed:
            check_open(self._closed, self._pid)
            number = self._numbers[task] = next(self._attempt_numbers)
            task.sent_at = time.monotonic()
            self._ended.sent(number, task.sent_at)
            segment = self._free.pop() if self._free else Segment()
            start = segment.size()
            self._running[task] = (segment, start)
            self._stack.append(attempt)
        task.blame = ""
        received = decoded = returned = time.monotonic_ns()
        used_before = time.process_time()
        before = context.enter_thread(attempt)
        struck = interrupts()
        limit: Limit | None = None
        capture = None
        try:
            given = self._given.here() if self._given else contextlib.nullcontext()
            gpus = self._show_gpus(options) if options.gpus else contextlib.nullcontext()
            with (
                given,
                gpus,
                capturing(segment, lambda: context.in_thread_of(attempt)) as capture,
                _threads(options.cpus),
                own_options(),
                filters.by_name(),
            ):
                with code_of_a_call(options.timeout_s) as limit:
                    self._limits[task] = limit
                    function, arguments = prepare()
                    decoded = time.monotonic_ns()
                    used_before = time.process_time()
                    result = function()
                returned = time.monotonic_ns()
                if limit.passed_s() > (INTERRUPT_GRACE_S if limit.late else 0):
                    # It took no notice, or could not be interrupted: a worker would be killed.
                    raise Late(limit)
            task.result = result
            return None
        except BaseException as error:
            if isinstance(error, Late) and error.limit is not limit:
                raise  # of the call that waits for this one
            if isinstance(error, KeyboardInterrupt) and interrupts() > struck:
                raise  # somebody pressed Ctrl-C
            if limit is not None and (limit.late or limit.passed_s() > 0):
                task.blame = "timeout"
            if isinstance(error, Late):
                error = KeyboardInterrupt(*error.args).with_traceback(error.__traceback__)
            for note in world.notes():
                error.add_note(note)
            end = segment.size()
            tail_start = max(start, end - LOG_TAIL_BYTES)
            task.result = attempt_call.pack_failure(
                error,
                name=task.call.name,
                arguments=arguments,
                attempt=task.attempt,
                where=f"worker {self.worker_addresses[0]} (pid {os.getpid()})",
                printed=segment.read(tail_start, end - tail_start),
            )
            return error
        finally:
            stored = time.monotonic_ns()
            returned = max(returned, decoded)
            self._used_s[task] = time.process_time() - used_before
            task.timing = TIMING.pack(received, decoded, decoded, returned, stored)
            context.enter_thread(before)
            with self._changed:
                self._stack.remove(attempt)
                del self._running[task]
                self._limits.pop(task, None)
                end = segment.size()
                if end > start:
                    loud = capture is not None and capture.loud
                    self.loud += loud
                    task.logs = (*task.logs, Log(segment, start, end, loud))
                if self._log_limit is not None and end - start > self._log_limit:
                    segment.trim(start, end, self._log_limit)
                if self._closed:
                    segment.close()
                else:
                    self._free.append(segment)
                self._changed.notify_all()

    def _show_gpus(self, options: Options) -> contextlib.AbstractContextManager[None]:
        """Have a call see the GPUs that it asked for.

        A library that is loaded already may have looked before, and see those of the program.
        """
        count = max(1, int(options.gpus))
        return environment_with(variables(self._gpus_for(options)[:count]))

    def blocks_of(self, whole: Task) -> Sequence[Task]:
        """The item of a map that runs now; see `mars.engine.Engine`."""
        with self._changed:
            return [task for task in self._running if task.source is whole]

    def limit_logs(self, limit: int | None) -> None:
        """Keep so many bytes of each call's log, cut when it ends; see `mars.engine.Engine`."""
        self._log_limit = limit

    def _running_log(self, task: Task) -> Log | None:
        found = self._running.get(task)
        if found is None:
            return None
        segment, start = found
        return Log(segment, start, segment.size())

    def running_items(self, task: Task) -> Sequence[tuple[int, int, Log]]:
        """The item of a map that runs now; see `mars.engine.Engine`."""
        with self._changed:
            return [
                (block.items[0], block.attempt, Log(segment, start, segment.size()))
                for block, (segment, start) in self._running.items()
                if block.source is task
            ]

    def value(self, task: Task, index: int) -> object:
        """Decode one output; see `mars.engine.Engine`."""
        check_open(self._closed, self._pid)
        if task.stage is not Stage.DONE:
            raise failure_of(task)
        call = task.call
        if task.parts is not None:
            return item_of(task, call.index, self.decode)  # type: ignore[attr-defined]
        if task.released:
            raise no_value_of(task)
        return self.decode(task.result if call.n_output is None else task.result[index])

    def failure(self, task: Task) -> BaseException:
        """The error of a task that failed."""
        return failure_of(task)

    def log(self, task: Task) -> LogSource | None:
        """What a task has printed so far."""
        if not task.attempt and not task.logs:
            return None
        return TaskLog(task, self._running_log, lambda: self._closed)

    def forget(self, task: Task) -> None:
        """The program holds no output of the task any more."""
        if task.finished:
            task.released = True
            task.result = None
            task.call.leave(task)

    def observe(self, since: int | None = None) -> Observation:
        """What there is now, and which attempts have ended; see `mars.engine.Engine`."""
        from mars.observe import observation as made  # late: most programs never look

        if self._pid != os.getpid():
            return made.Observation(time.monotonic())  # the engine is the parent's
        with self._changed:
            runs = [run for run in self._runs if run.live]
            rows = self._ended.since(self._ended.count if since is None else since)
            return made.Observation(
                time.monotonic(),
                tuple([
                    made.RunFacts(run.number, run.session_id, run.depth, run.total, run.done,
                                  run.failed, 1)
                    for run in runs
                ]),
                tuple([
                    made.GroupFacts(address, self._largest, 0 if runs else self._largest, 1)
                    for address in self.worker_addresses
                ]),
                (self._as_worker(made.WorkerFacts, tuple([run.number for run in runs])),),
                () if since is None else made.ended_attempts(rows),
                rows.next,
                0 if since is None else rows.missed,
            )  # fmt: skip

    def table(self, since: int = 0, limit: int | None = None) -> Rows:
        """A part of the table of attempts; see `mars.engine.Engine`. One call runs at a time."""
        if self._pid != os.getpid():
            return Attempts().since(0)
        with self._changed:
            return self._ended.since(since, limit)._replace(now=time.monotonic())

    def _as_worker(self, facts: type[WorkerFacts], runs: tuple[int, ...]) -> WorkerFacts:
        """The one worker is this process; of calls inside calls it runs the innermost."""
        group, (node, pid) = self.worker_addresses[0], self._where
        if not self._running:
            return facts(1, group, node, pid, True, 0, False, "", "", runs, 0, 0.0, 0, (), 0.0)
        task, (segment, _) = next(reversed(self._running.items()))
        asking = task.runs if task.source is None else task.source.runs
        return facts(
            1, group, node, pid, True, len(self._running), False, task.call.key, task.call.name,
            runs, self._numbers[task], task.sent_at, segment.size(),
            tuple([run.partial.get(task) for run in asking]), 0.0,
            None if task.source is None else (task.items[0], 1),
        )  # fmt: skip

    def _note(self, task: Task, run: Run, ending: str, printed: int) -> None:
        """Record that an attempt has ended; ``printed`` is how many logs there were before it."""
        log_bytes = sum(log.size() for log in task.logs[printed:])
        with self._changed:
            number = self._numbers.pop(task, 0)
            if not number:
                return  # the engine was closed before it began
            self._ended.note(
                task, 1, ENDINGS.index(ending), number=number, run=run.number, timing=task.timing,
                cpu_s=self._used_s.pop(task, -1.0), log_bytes=log_bytes,
                failed_items=int(ending == "error" and task.source is not None),
                read_bytes=_read_by(task), written_bytes=_bytes_in(task.result),
            )  # fmt: skip
            if task.call.inputs:
                self._ended.link(task)

    def kept_values(self, tasks: Sequence[Task], limit: int) -> Memory:
        """What values take; see `mars.engine.Engine`. All of them are in this process."""
        from mars.observe import observation as made  # late: most programs never look

        if self._closed or self._pid != os.getpid():
            return made.Memory(0, 0, 0, 0, ())
        sizes = [(_kept_by(task), number) for number, task in enumerate(tasks)]
        sizes = sorted((one for one in sizes if one[0] > INLINE_BYTES), reverse=True)
        small = sum(map(_kept_by, tasks)) - sum(size for size, _ in sizes)
        stored = [made.StoredFacts(size, number, "", False, 1, (0,)) for size, number in sizes]
        return made.Memory(
            sum(size for size, _ in sizes), 0, 0, small, tuple(stored[:limit]),
            max(0, len(stored) - limit), sum(size for size, _ in sizes[limit:]),
        )  # fmt: skip

    def silent_calls(self, after_s: float) -> Sequence[str]:
        """None: whoever waits runs the call."""
        return ()

    def usage(self, workers: Sequence[WorkerFacts]) -> Mapping[int, tuple[float, float, int]]:
        """The one worker is this process."""
        found = platform.usage_of(os.getpid())
        return {} if found is None else {1: found}

    def stack(self, worker: int) -> Sequence[str] | None:
        """None: there are no worker processes."""
        return None

    def close(self) -> None:
        """Forget everything. A call that runs is left to its end, and its run hears of that."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            runs = list(self._runs)
            for run in runs:
                run.error = run.error or SessionClosed()
                run.live = False
            self._interrupt_cancelled()
            while self._free:
                self._free.pop().close()
            self._changed.notify_all()
        for run in runs:
            run.end()
        self.objects.close()
        self._threads.end()

    def create_object(
        self,
        session: str,
        name: str,
        cls: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> RemoteObject:
        """Make a shared object; see `mars.attempt.context.Context`."""
        cls, args, kwargs = self._as_sent(cls, args, kwargs)
        self.objects.create(session, name, cls, args, kwargs)
        return self.get_object(session, name)

    def get_object(self, session: str, name: str) -> RemoteObject:
        """The shared object of that name."""
        self.objects.find(session, name)

        def call(name: str, method: str, args: Sequence[object], kw: dict[str, object]) -> object:
            value = self.objects.call(session, name, method, *self._as_sent(args, kw))
            if self._asker() is None:
                return value
            return self.decode(self._packed(value, name))

        return RemoteObject(name, call)

    def _as_sent(self, *arguments: *Sent) -> tuple[*Sent]:
        """What a call gives to a shared object, as another process would have it."""
        if self._asker() is None:
            return arguments
        data, buffers, _ = codec.encode_arguments(arguments, {})
        sent, _ = codec.decode_arguments(data, [bytearray(one.raw()) for one in buffers], ())
        return cast("tuple[*Sent]", sent)

    def destroy_object(self, session: str, name: str) -> None:
        """Forget a shared object."""
        self.objects.destroy(session, name)

    def drop_objects(self, session: str) -> None:
        """Forget all shared objects of a session."""
        self.objects.drop_session(session)


def _read_by(task: Task) -> int:
    """Bytes of the arguments and inputs of a call, or of an item of a map."""
    call = task.call
    parts = call.stored or (call.payload,)
    size = sum([memoryview(part).nbytes for part in parts])
    for source, index in call.inputs:
        made = source.task_in(task.realm)
        if made is not None and made.stage is Stage.DONE and made.parts is None:
            size += _bytes_in(made.result if source.n_output is None else made.result[index])
    return size


def _bytes_in(result: object) -> int:
    """Bytes of packed values, however they are put together."""
    if isinstance(result, bytes):
        return len(result)
    return sum(map(_bytes_in, result)) if isinstance(result, (tuple, list)) else 0


def _kept_by(task: Task) -> int:
    """Bytes of the results that a task, or the items of a map, have."""
    if task.parts is None:
        return _bytes_in(task.result) if task.stage is Stage.DONE else 0
    done = [part for part in task.parts if part.stage is Stage.DONE]
    return sum(_bytes_in(part.result[0]) for part in done)


def _wanted(task: Task) -> bool:
    """Whether a live run still needs the task."""
    whole = task if task.source is None else task.source
    return any(run.live for run in whole.runs)


def _failed_input(task: Task) -> Task | None:
    """The first of its inputs that failed."""
    for call, _ in task.call.inputs:
        source = call.task_in(task.realm)
        if source is not None and source.stage is Stage.FAILED:
            return source
    return None


def _first_failure(task: Task) -> Task:
    """What tells why a task failed: of a map, its first item that did."""
    for block in task.parts or ():
        if block.stage is not Stage.DONE:
            return block
    return task


def _worth_another(error: BaseException | None, options: Options) -> bool:
    """Whether an error is one to try again after; asked in the world of the call."""
    retry_on = Exception if options.retry_data is None else loads(options.retry_data)
    return isinstance(error, retry_on) and not isinstance(error, MarsError)


def _progressed(task: Task, progress: float) -> None:
    for run in task.runs:
        run.partial[task] = progress


def _land(task: Task, runs: Sequence[Run]) -> None:
    for run in runs:
        if run.landed is not None:
            task.call.handles += 1
            run.landed(task)
            return


def _by_urgency(tasks: Sequence[Task]) -> Iterator[Task]:
    """Tasks in an order in which they can run: inputs first, then higher priority first."""
    if not any(task.call.options.priority for task in tasks):
        yield from tasks  # they come with inputs first
        return
    position = {task.call: number for number, task in enumerate(tasks)}
    waiting = {}
    dependents: dict[int, list[int]] = {}
    ready: list[tuple[int, int]] = []
    for number, task in enumerate(tasks):
        sources = {position[call] for call, _ in task.call.inputs if call in position}
        waiting[number] = len(sources)
        for source in sources:
            dependents.setdefault(source, []).append(number)
        if not sources:
            heapq.heappush(ready, (-task.call.options.priority, number))
    while ready:
        _, number = heapq.heappop(ready)
        yield tasks[number]
        for dependent in dependents.get(number, ()):
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heapq.heappush(ready, (-tasks[dependent].call.options.priority, dependent))


class _Libraries(Protocol):
    """What threadpoolctl controls."""

    def limit(self, *, limits: int) -> contextlib.AbstractContextManager[object]: ...


_libraries: tuple[int, _Libraries | None] = (0, None)


def _loaded_libraries() -> _Libraries:
    """What threadpoolctl controls; looking takes ~3 ms, so only after something was imported."""
    global _libraries
    count, known = _libraries
    if known is None or count != len(sys.modules):
        import threadpoolctl

        known = threadpoolctl.ThreadpoolController()
        _libraries = len(sys.modules), known
    return known


@contextlib.contextmanager
def _threads(cpus: float) -> Iterator[None]:
    """Keep libraries to ``cpus`` cores for a block."""
    with (
        environment_with(threads.environment(cpus, os.environ)),
        _loaded_libraries().limit(limits=max(1, int(cpus))),
    ):
        yield
