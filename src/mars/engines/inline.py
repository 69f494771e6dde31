"""The reference engine: calls run one after the other in the thread that executes them.

For a debugger, and for reading: it keeps the contract in the plainest way. Arguments and results
are pickled all the same, so a program behaves as it does with worker processes. It cannot stop
a call that does not want to stop, nor survive one that ends the process.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from mars.attempt import call as attempt_call
from mars.attempt import codec, context, filters, threads
from mars.attempt.capture import Log, Segment, capturing
from mars.attempt.codec import loads
from mars.attempt.diagnose import summarize_call
from mars.code import world
from mars.code.pickling import new_world
from mars.code.world import visiting
from mars.engine import Run
from mars.engines.given import Given, environment_with
from mars.engines.objects import RemoteObject, SharedObjects
from mars.engines.outcome import TaskLog, failure_of, item_of
from mars.errors import MarsError, NoAvailableBand, NotExecuted, SessionClosed
from mars.logs import TAIL_BYTES, LogSource
from mars.settings import BACKOFF_S, LOG_TAIL_LINES
from mars.task import TIMING, Call, Stage, Task


class InlineEngine:
    """Runs calls in the calling thread.

    Parameters
    ----------
    name : str
        Its address.
    n_cpu, n_worker : int
        What calls are told; one call runs at a time whatever they say.
    given : Given, optional
        What calls have beside what the program has.
    """

    synchronous = True

    def __init__(
        self, name: str, n_cpu: int, n_worker: int = 1, given: Given | None = None
    ) -> None:
        self.address = name
        self._given = given or Given()
        self.n_cpu: float = n_cpu
        self.worker_addresses: Sequence[str] = context.addresses(name, n_worker)
        self.objects = SharedObjects()
        self._largest = -(-n_cpu // n_worker)
        self._segments: list[Segment] = []  # one for each depth of nested calls
        self._lock = threading.RLock()  # one call at a time: its log is the process's output
        self._running: dict[
            Task, tuple[Segment, int]
        ] = {}  # where the log of a running call starts
        self._stack: list[Task] = []
        self._log_limit: int | None = None
        self._closed = False

    def submit(
        self, run: Run, calls: Sequence[Call], places: Sequence[Any], targets: Collection[Call]
    ) -> None:
        """Run calls to the end of the run; see `mars.engine.Engine`."""
        self._check_open()
        tasks = []
        for call, place in zip(calls, places, strict=True):
            self._check(call)
            task = Task(call, run.realm)
            task.place = place
            task.asked = call in targets
            task.queued_at = task.ready_at = time.monotonic()
            call.begin(task)
            tasks.append(task)
        run.total = run.remaining = sum(max(task.size, 1) for task in tasks)
        run.depth = len(self._stack)
        try:
            for task in _by_urgency(tasks):
                if not run.live or run.ended:
                    break
                task = self._join(task)
                if not task.finished:
                    self._run_task(task, run)
                    if task.stage is Stage.DONE and task.parts is None:
                        _land(task, run)
                run.remaining -= max(task.size, 1)
                if task.stage is Stage.DONE:
                    run.done += max(task.size, 1)
                else:
                    run.failed += 1
                    run.failure = run.failure or task
                    if run.stop_on_error:
                        break
        finally:
            run.end()

    def _check(self, call: Call) -> None:
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
            raise NoAvailableBand(f"{call.name} asks for gpus={options.gpus}; there is none")

    def _join(self, task: Task) -> Task:
        call = task.call
        known = call.task_in(task.realm)
        if known is None:
            task.elsewhere, call.task = call.task, task
            return task
        if known.available:
            known.asked |= task.asked
            return known
        task.elsewhere, task.logs = known.elsewhere, known.logs
        if call.task is known:
            call.task = task
        return task

    def _run_task(self, task: Task, run: Run) -> None:
        call = task.call
        failed = next(
            (
                source
                for source in (one.task_in(task.realm) for one, _ in call.inputs)
                if source is None or not source.available
            ),
            None,
        )
        if call.inputs and failed is not None:
            task.stage, task.failed_input = Stage.FAILED, failed
            return
        if task.parts is not None:
            self._run_items(task, run)
        else:
            place = task.place if isinstance(task.place, tuple) else (task.place,)
            self._attempts(task, run, (*run.prefix, *place), lambda: self._outputs(task))
        call.satisfy()

    def _outputs(self, task: Task) -> Any:
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
        copies = [bytearray(memoryview(x).cast("B")) for x in buffers]  # type: ignore[arg-type]
        args, kwargs = codec.decode_arguments(payload, copies, values)

        def run() -> Any:
            value = function(*args, **kwargs)
            outputs = [
                self._packed(output, call.name)
                for output in attempt_call.split_outputs(value, call.n_output)
            ]
            return outputs[0] if call.n_output is None else tuple(outputs)

        return run, (args, kwargs)

    def _load(self, call: Call) -> Callable[..., Any]:
        function = call.function
        loaded: Callable[..., Any] = codec.loads(
            function.data,
            buffers=[bytearray(x) for x in function.buffers],  # type: ignore[call-overload]
        )
        world.settle()
        return loaded

    def _packed(self, value: object, name: str) -> Any:
        try:
            data, buffers = codec.encode(value)
        except Exception as error:
            raise attempt_call.encode_error(value, "result", name, error) from None
        return data, [bytes(buffer.raw()) for buffer in buffers]

    def pickled(self, value: Any) -> tuple[Any, Sequence[Any]]:
        """A value as its pickle and its large buffers."""
        return value  # type: ignore[no-any-return]

    def decode(self, value: Any) -> object:
        """A fresh object from a value."""
        data, buffers = value
        return codec.loads(data, buffers=[bytearray(buffer) for buffer in buffers])

    def install(self, task: Task, value: object) -> None:
        """Give a task a value, or its values."""
        name = task.call.name
        if task.call.n_output is None:
            task.result = self._packed(value, name)
        else:
            task.result = tuple([self._packed(one, name) for one in value])  # type: ignore[attr-defined]

    def _run_items(self, task: Task, run: Run) -> None:
        call: Any = task.call
        place = task.place if isinstance(task.place, tuple) else (task.place,)
        for index in list(task.items):
            block = Task(call, task.realm)
            block.items, block.source = range(index, index + 1), task
            data, buffers, _ = codec.encode_arguments((call.items_at(block.items),), {})

            def prepare(data: bytes = data, buffers: Any = buffers) -> Any:
                copies = [bytearray(buffer.raw()) for buffer in buffers]
                function = self._load(call)
                (items,), _ = codec.decode_arguments(data, copies, ())
                arguments = tuple(items[0]) if call.spread else (items[0],)  # type: ignore[index]
                return (lambda: self._packed([function(*arguments)], call.name)), (arguments, {})

            self._attempts(block, run, (*run.prefix, *place, index), prepare)
            if block.stage is Stage.DONE:
                log = block.logs[-1] if block.logs else None
                marks = None if log is None else [log.start, log.end]
                block.result = (block.result, {}, marks)
                _land(block, run)
            else:
                task.tries += 1
            task.parts.append(block)
            if block.stage is not Stage.DONE and run.stop_on_error:
                run.failure = block
                task.stage = Stage.ABANDONED
                return
        task.stage = Stage.FAILED if task.tries else Stage.DONE

    def _attempts(
        self, task: Task, run: Run, place: tuple[int, ...], prepare: Callable[[], Any]
    ) -> None:
        options = task.call.options
        while True:
            task.attempt += 1
            with self._lock, visiting(new_world()):
                error = self._attempt(task, run, place, prepare)
                retry_on = Exception if options.retry_data is None else loads(options.retry_data)
                worth_it = isinstance(error, retry_on)
            if error is None:
                task.stage = Stage.DONE
                return
            task.tries += 1
            if task.tries > options.retries or not worth_it:
                task.stage = Stage.FAILED
                return
            if isinstance(error, MarsError) and not isinstance(error, TimeoutError):
                task.stage = Stage.FAILED
                return
            time.sleep(BACKOFF_S[min(task.tries, len(BACKOFF_S)) - 1])

    def _attempt(
        self, task: Task, run: Run, place: tuple[int, ...], prepare: Callable[[], Any]
    ) -> BaseException | None:
        """Run a task once; its result is then in it, and its error comes back."""
        options = task.call.options
        arguments: Any = None
        while len(self._segments) <= len(self._stack):
            self._segments.append(Segment())
        segment = self._segments[len(self._stack)]
        start = segment.size()
        self._running[task] = (segment, start)
        self._stack.append(task)
        task.stage = Stage.ASSIGNED
        task.blame = ""
        task.sent_at = time.monotonic()
        received = decoded = returned = time.monotonic_ns()
        attempt = context.Attempt(
            run.session_id, task.call.name, self, options.worker or self.worker_addresses[0],
            run.entropy, place, lambda progress: run.partial.__setitem__(task, progress),
        )  # fmt: skip
        before = context.enter_thread(attempt)
        try:
            given = self._given.here() if self._given else contextlib.nullcontext()
            with given, capturing(segment), _threads(options.cpus), filters.by_name():
                function, arguments = prepare()
                decoded = time.monotonic_ns()
                try:
                    with _deadline(options.timeout_s):
                        task.result = function()
                    returned = time.monotonic_ns()
                except _Late:
                    task.blame = "timeout"
                    raise
            return None
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            for note in world.notes():
                error.add_note(note)
            end = segment.size()
            tail_start = max(start, end - TAIL_BYTES)
            tail = (
                segment.read(tail_start, end - tail_start).decode("utf-8", "replace").splitlines()
            )
            task.result = attempt_call.pack_failure(
                error,
                name=task.call.name,
                arguments=arguments,
                attempt=task.attempt,
                where=f"worker {self.worker_addresses[0]} (pid {os.getpid()})",
                log_tail="\n".join(tail[-LOG_TAIL_LINES:]),
            )
            return TimeoutError() if task.blame else error
        finally:
            stored = time.monotonic_ns()
            returned = max(returned, decoded)
            task.timing = TIMING.pack(received, decoded, decoded, returned, stored)
            context.enter_thread(before)
            self._stack.pop()
            del self._running[task]
            end = segment.size()
            if end > start:
                task.logs = (*task.logs, Log(segment, start, end))
            if self._log_limit is not None and end - start > self._log_limit:
                segment.trim(start, end, self._log_limit)

    def limit_logs(self, limit: int | None) -> None:
        """Keep so many bytes of each call's log, cut when it ends; see `mars.engine.Engine`."""
        self._log_limit = limit

    def _running_log(self, task: Task) -> Log | None:
        found = self._running.get(task)
        if found is None:
            return None
        segment, start = found
        return Log(segment, start, segment.size())

    def cancel(self, run: Run) -> None:
        """Start nothing more of a run."""
        run.cancelled |= run.live
        run.live = False
        if not any(run.realm is task.realm for task in list(self._running)):
            run.end()

    def value(self, task: Task, index: int) -> object:
        """Decode one output; see `mars.engine.Engine`."""
        self._check_open()
        if task.stage is not Stage.DONE:
            raise failure_of(task)
        call = task.call
        if task.parts is not None:
            return item_of(task, call.index, self.decode)  # type: ignore[attr-defined]
        if task.released:
            raise NotExecuted(summarize_call(call.name, (), {}))
        return self.decode(task.result if call.n_output is None else task.result[index])

    def failure(self, task: Task) -> BaseException:
        """The error of a task that failed."""
        return failure_of(task)

    def log(self, task: Task) -> LogSource | None:
        """What a task has printed so far."""
        if not task.attempt and not task.logs:
            return None
        return TaskLog(task, self._running_log)

    def forget(self, task: Task) -> None:
        """The program holds no output of the task any more."""
        if task.finished:
            task.released = True
            task.result = None
            task.call.leave(task)

    def running(self, run: Run) -> int:
        """One, while a run runs."""
        return int(run.live)

    def silent_calls(self, after_s: float) -> Sequence[str]:
        """None: whoever waits runs the call."""
        return ()

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        for segment in self._segments:
            segment.close()

    def create_object(self, session: str, name: str, cls: Any, args: Any, kwargs: Any) -> Any:
        """Make a shared object; see `mars.attempt.context.Context`."""
        self.objects.create(session, name, cls, args, kwargs)
        return self.get_object(session, name)

    def get_object(self, session: str, name: str) -> Any:
        """The shared object of that name."""
        self.objects.find(session, name)
        return RemoteObject(
            name, lambda name, method, args, kw: self.objects.call(session, name, method, args, kw)
        )

    def destroy_object(self, session: str, name: str) -> None:
        """Forget a shared object."""
        self.objects.destroy(session, name)

    def drop_objects(self, session: str) -> None:
        """Forget all shared objects of a session."""
        self.objects.drop_session(session)


def _land(task: Task, run: Run) -> None:
    if run.landed is not None:
        task.call.handles += 1
        run.landed(task)


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


class _Late(BaseException):
    """Raised in a call that has taken too long."""


@contextlib.contextmanager
def _deadline(timeout_s: float | None) -> Iterator[None]:
    """Stop the block after a time; in other threads than the main one, only notice it."""
    if timeout_s is None:
        yield
        return
    started = time.monotonic()
    if threading.current_thread() is not threading.main_thread():
        yield
        if time.monotonic() - started > timeout_s:
            raise _Late
        return

    def late(*_: object) -> None:
        raise _Late

    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


_libraries: tuple[int, Any] = (0, None)


def _loaded_libraries() -> Any:
    """What threadpoolctl controls; looking takes ~3 ms, so only after something was imported."""
    global _libraries
    if _libraries[0] != len(sys.modules):
        import threadpoolctl

        _libraries = len(sys.modules), threadpoolctl.ThreadpoolController()
    return _libraries[1]


@contextlib.contextmanager
def _threads(cpus: float) -> Iterator[None]:
    """Keep libraries to ``cpus`` cores for a block."""
    with (
        environment_with(threads.environment(cpus, os.environ)),
        _loaded_libraries().limit(limits=max(1, int(cpus))),
    ):
        yield
