"""Calls that ask for calls, the worker's end: an engine that asks the driver, by messages.

`NestedEngine` fulfils the `Engine` contract in a worker process. Its other end is
`mars.engines.driver.nested`.
"""

from __future__ import annotations

import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, cast, overload
from weakref import WeakValueDictionary

from mars.attempt import call as attempt_call
from mars.attempt import codec, context, failure
from mars.attempt.capture import Log
from mars.calls.options import DEFAULT_OPTIONS
from mars.code.arriving import new_world
from mars.code.world import settle, visiting
from mars.engine import Run
from mars.engines.objects import RemoteObject
from mars.engines.outcome import TaskLog, failure_of, item_of
from mars.engines.wire import messages
from mars.errors import SessionClosed, UsageError
from mars.settings import FUNCTION_BYTES, INLINE_BYTES
from mars.task import Call, Realm, Stage, Task

if TYPE_CHECKING:
    from mars.attempt.rows import Row
    from mars.calls.maps import ItemCall, MapCall
    from mars.engines.wire.regions import Region, Result
    from mars.logs import LogSource
    from mars.observe.attempts import Rows
    from mars.observe.observation import Observation, WorkerFacts
    from mars.task import Buffer, Ended, Place, Stored, Value


class Channel(Protocol):
    """What the worker process offers to the calls that run in it."""

    number: int
    pid: int
    address: str
    addresses: Sequence[str]
    n_cpu: float

    @property
    def cpus(self) -> float:
        """Cores of the call that runs."""

    @overload
    def ask(
        self,
        kind: Literal["submit"],
        facts: messages.RunFacts,
        described: list[messages.Again | messages.Described],
        /,
    ) -> messages.Submitted: ...
    @overload
    def ask(self, kind: Literal["wait", "waited"], run: int, /) -> messages.Waited: ...
    @overload
    def ask(
        self, kind: Literal["ask"], what: Literal["log"], about: tuple[int, int, int], /
    ) -> messages.LogPart: ...
    @overload
    def ask(
        self,
        kind: Literal["ask"],
        what: Literal["block's log"],
        about: tuple[int, int, int, int],
        /,
    ) -> messages.BlockLogPart: ...
    @overload
    def ask(
        self, kind: Literal["ask"], what: Literal["object"], about: bytes, /
    ) -> messages.OfObject: ...
    def ask(self, kind: str, *rest: object) -> object:
        """Send a request to the driver and wait for its reply."""

    def send(self, message: messages.FromWorker) -> None:
        """Send a message to the driver."""

    def shield(self) -> AbstractContextManager[None]:
        """While inside, an interrupt of the running call waits."""

    def put(self, buffers: Sequence[Buffer]) -> Region:
        """Copy large parts of a value to an arena."""

    def decode(self, value: Value) -> object:
        """A fresh object from a packed value."""


class NestedEngine:
    """The engine of calls that run in this worker."""

    def __init__(self, worker: Channel) -> None:
        self._worker = worker
        self.address = worker.address.rpartition(":")[0]
        self.n_cpu = worker.n_cpu
        self.worker_addresses = worker.addresses
        self.loud = 0  # the program's own engine counts
        self.shows_calls = False
        self.storage = None  # calls find it in the settings of fsspec
        self._numbers = itertools.count(1)
        # Whoever may still ask for a task holds it: an object through its call, a wait its run.
        self._tasks: WeakValueDictionary[int, Task] = WeakValueDictionary()
        self._here: WeakValueDictionary[int, Task] = WeakValueDictionary()  # ran in this process
        self._lock = threading.Lock()
        self._submitting = threading.Lock()

    def submit(
        self, run: Run, calls: Sequence[Call], places: Sequence[Place], targets: Collection[Call]
    ) -> None:
        """Have the driver run calls; see `mars.engine.Engine`."""
        self._check_process()
        for call in calls:
            self._await_here(call, run)
        with self._submitting:  # threads of the call may share calls
            if self._ask_for(run, calls, places, targets):
                return
        self._run_here(run, run.tasks, places)

    def _ask_for(
        self, run: Run, calls: Sequence[Call], places: Sequence[Place], targets: Collection[Call]
    ) -> bool:
        """Ask the driver for calls; False: they have to run in this process."""
        tasks = []
        described: list[messages.Again | messages.Described] = []
        for call, place in zip(calls, places, strict=True):
            asked = call in targets
            known = call.task_in(run.realm)
            if known is not None and not known.finished and any(one.live for one in known.runs):
                # Another thread's run is at it.
                task = known
                task.asked |= asked
                task.runs += (run,)
                described.append((task.attempt, asked))
            else:
                task = Task(call, run.realm)
                task.runs = (run,)
                task.asked = asked
                task.attempt = next(self._numbers)
                call.begin(task)
                if known is not None:
                    call.put_out(known)
                task.elsewhere, call.task = call.task, task
                described.append(self._describe(task, place))
            tasks.append(task)
        run.tasks = tasks
        run.total = run.remaining = sum(max(task.size, 1) for task in tasks if not task.finished)
        new = [task for task, one in zip(tasks, described, strict=True) if len(one) > 2]
        apart = next((task for task in new if self._has_to_be_apart(task)), None)
        given = self._given(described)
        answer = self._worker.ask(
            messages.SUBMIT,
            (run.session_id, run.stop_on_error, run.entropy, run.prefix, apart is not None,
             list(given.values())),
            described,
        )  # fmt: skip
        if answer[0] == "error":
            run.live = False
            raise failure.decode_failure(answer[1])
        value = answer[1]
        if answer[0] == "too many":
            if apart is not None:
                run.live = False
                raise UsageError(
                    f"{value} calls wait for calls already, and {apart.call.name} would be one "
                    f"more: it needs a process of its own, for its timeout, memory, cpus or "
                    f"expect_worker, or because it is a map. Let fewer calls wait for each other, "
                    f"or leave these options out below some depth"
                )
            return False
        for number in given:
            del self._here[number]  # from here on the driver has it, too
        run.number = value
        with self._lock:
            self._tasks.update((task.attempt, task) for task in tasks)
        run.waits = self._wait
        return True

    def stream(self, realm: Realm, begin: Callable[[], Run]) -> None:
        """None: the driver is asked for runs."""

    def check(self, call: Call) -> None:
        """The driver checks it when it is asked for."""
        self._check_process()

    def _await_here(self, call: Call, run: Run) -> None:
        """Wait for another thread that runs a call in this process, of which no driver knows."""
        known = call.task_in(run.realm)
        if known is not None and known.attempt in self._here and not known.finished:
            for other in known.runs:
                other.wait()

    def _has_to_be_apart(self, task: Task) -> bool:
        """Whether a call asks for what it can have in a process of its own only."""
        options = task.call.options
        return task.parts is not None or (
            options is not DEFAULT_OPTIONS
            and (
                options.timeout_s is not None
                or options.memory is not None
                or options.worker is not None
                or options.gpus > 0
                or options.cpus != self._worker.cpus
            )
        )

    def _given(
        self, described: Sequence[messages.Again | messages.Described]
    ) -> dict[int, messages.Given]:
        """Inputs that were made in this process and that the driver has not, as it gets them."""
        given: dict[int, messages.Given] = {}
        for one in described:
            for number, _ in one[4] if len(one) > 2 else ():
                task = self._here.get(number)
                if task is not None and number not in given:
                    several = task.call.n_output is not None
                    values: tuple[_Here, ...] = task.result if several else (task.result,)
                    packed = tuple([value.packed(self._worker.put) for value in values])
                    given[number] = number, task.call.n_output, packed if several else packed[0]
        return given

    def _check_process(self) -> None:
        """The socket to the driver is this process's, not that of one which a call forked."""
        if os.getpid() != self._worker.pid:
            raise SessionClosed(
                "this process was forked by a call, and cannot ask for calls or objects of the "
                "call's session; do that in the call itself, or call mars.new_session() here"
            )

    def _run_here(self, run: Run, tasks: Sequence[Task], places: Sequence[Place]) -> None:
        """Run calls in this process: too many workers wait for nested calls already.

        What they print goes to the log of the call that asks for them.
        """
        outer = context.current()
        try:
            for task, place in zip(tasks, places, strict=True):
                for other in task.runs:
                    if other is not run:  # of another thread, which has the driver run it
                        other.wait()
                if task.finished:
                    continue
                self._here[task.attempt] = task
                with self._lock:
                    self._tasks[task.attempt] = task
                with visiting(new_world()):  # of the call's own spawn
                    self._perform(task, run, place if isinstance(place, tuple) else (place,))
                task.call.satisfy()
                if task.stage is Stage.DONE:
                    run.done += 1
                    continue
                run.failed += 1
                run.failure = run.failure or task
                if run.stop_on_error:
                    break
        finally:
            context.enter_thread(outer)
            run.remaining = 0
            run.end()

    def _perform(self, task: Task, run: Run, place: tuple[int, ...]) -> None:
        call = task.call
        sources = [(source.task_in(task.realm), index) for source, index in call.inputs]
        for source, _ in sources:
            if source is None or not source.available:
                task.stage, task.failed_input = Stage.FAILED, source
                return
        arguments: codec.Arguments | None = None
        while True:
            context.enter_thread(
                context.Attempt(
                    run.session_id, call.name, self, self._worker.address, run.entropy,
                    (*run.prefix, *place), lambda _: None,
                )
            )  # fmt: skip
            where = os.uname().nodename, self._worker.pid
            try:
                function = pickle.loads(
                    call.function.data, buffers=codec.copies(call.function.buffers)
                )
                settle()
                values = [self.value(source, index) for source, index in sources if source]
                buffers = [x for x in call.stored or () if x is not call.payload]
                arguments = codec.decode_arguments(call.payload, codec.copies(buffers), values)
                value = function(*arguments[0], **arguments[1])
                outputs = [
                    _Here(output, call.name)
                    for output in attempt_call.split_outputs(value, call.n_output)
                ]
            except Exception as error:
                task.tries += 1
                task.ended = (*task.ended, (*where, "error"))
                task.result = attempt_call.pack_failure(
                    error,
                    name=call.name,
                    arguments=arguments,
                    attempt=task.tries,
                    where=f"worker {self._worker.number} (pid {self._worker.pid})",
                    printed=b"",
                )
                data = call.options.retry_data
                retry_on = Exception if data is None else codec.loads(data)  # as this world has it
                if task.tries <= call.options.retries and isinstance(error, retry_on):
                    continue
                task.stage = Stage.FAILED
                return
            task.result = outputs[0] if call.n_output is None else tuple(outputs)
            task.ended = (*task.ended, (*where, "value"))
            task.stage = Stage.DONE
            return

    def _describe(self, task: Task, place: Place) -> messages.Described:
        call = task.call
        function = call.function
        stored = None if call.stored is None else self._put(call.stored)
        data, parts = function.data, function.buffers
        if len(data) > FUNCTION_BYTES:
            data, parts = b"", (data, *parts)
        buffers = self._put(parts)
        inputs = []
        for source, index in call.inputs:
            there = source.task_in(task.realm)
            assert there is not None
            inputs.append((there.attempt, index))
        items: messages.Items | None = None
        if task.parts is not None:
            whole = cast("MapCall", call)
            assert task.items is not None
            items = (self._content(whole), list(task.items), whole.spread)
        payload = call.payload if call.stored is None or len(call.payload) <= INLINE_BYTES else None
        return (
            task.attempt, (function.key, function.name, data, buffers), payload, stored,
            inputs, call.n_output, call.options, place, task.asked, items,
        )  # fmt: skip

    def _put(self, buffers: Sequence[Buffer]) -> list[Stored]:
        """Copy large buffers to an arena, each by itself."""
        return [(None, *self._worker.put((buffer,))) for buffer in buffers]

    def _content(self, whole: MapCall) -> tuple[Sequence[Sequence[object]], messages.Taken | None]:
        """Arguments of all items of a map, as they can be sent."""
        taken = whole.taken
        if taken is None:
            return whole.columns, None
        rows = [self._sendable(row) for row in taken.rows]
        return (), (self._sendable(taken.shared), rows, taken.plain)

    def _sendable(self, row: Row | None) -> bytes | messages.Apart | None:
        if not isinstance(row, tuple):
            return row
        return row[0], self._put(row[1])

    def _wait(self, run: Run, timeout_s: float | None) -> bool:
        """Wait for the driver to end a run; the worker's cores are free meanwhile."""
        self._check_process()
        if timeout_s is None:
            _, outcome = self._worker.ask(messages.WAIT, run.number)
        else:
            _, outcome = self._worker.ask(messages.WAITED, run.number)
        if outcome is None:
            return False
        cancelled, failed, results, error = outcome
        for number, stage, result, stored, blame, broken, parts, ended, tries in results:
            task = self._tasks[number]
            if task.finished:
                continue  # a run of another thread has told it
            task.ended, task.tries = ended, tries
            task.result, task.stored, task.blame = result, stored, blame
            task.failed_input = self._tasks.get(broken)
            if parts is not None:
                before = [part for part in task.parts if part.source is not task]
                told = [self._block(task, place, *part) for place, part in enumerate(parts)]
                task.parts[:] = [*before, *told]
                run.done += sum(len(block.items) for block in told if _whole(block))
            task.stage = Stage(stage)
            if task.stage is Stage.DONE:
                run.done += parts is None
                task.call.satisfy()
            elif task.stage is Stage.FAILED:
                run.failed += 1
        run.cancelled = cancelled
        run.failure = self._tasks.get(failed)
        if run.failure is not None and run.failure.parts is not None:
            run.failure = next(
                (part for part in run.failure.parts if not _whole(part)), run.failure
            )
        if error is not None:
            run.error = failure.decode_failure(error)
        run.remaining = 0
        run.end()
        return True

    def _block(
        self, task: Task, place: int, items: Sequence[int], stage: int, result: Result | None,
        ended: tuple[Ended, ...], blame: str, tries: int, log: tuple[int, int] | None,
    ) -> Task:  # fmt: skip
        block = Task(task.call, task.realm)
        block.items, block.stage, block.result, block.source = items, Stage(stage), result, task
        block.ended, block.blame, block.tries = ended, blame, tries
        if log is not None:
            block.logs = (Log(_RemoteSegment(self._worker, task.attempt, place), *log),)
        return block

    def cancel(self, run: Run) -> None:
        """End the run early."""
        if run.number and not run.ended and os.getpid() == self._worker.pid:
            with self._worker.shield():
                self._worker.send((messages.CANCEL, run.number))

    def withdraw(self, task: Task) -> bool:
        """Refuse: calls inside a call are cancelled with their run."""
        raise UsageError(
            "inside a call, single calls cannot be cancelled; cancel the run that "
            "execute(wait=False) returned"
        )

    def value(self, task: Task, index: int) -> object:
        """Decode one output."""
        if task.stage is not Stage.DONE:
            raise failure_of(task)
        call = task.call
        if task.parts is not None:
            return item_of(task, cast("ItemCall", call).index, self.decode)
        return self.decode(task.result if call.n_output is None else task.result[index])

    def decode(self, value: object) -> object:
        """A fresh object from a value."""
        if isinstance(value, _Here):
            return value.decode()
        return self._worker.decode(cast("Value", value))  # there is no other kind

    def install(self, task: Task, value: object) -> None:
        """Give a task a value, which the driver gets if it is the input of another call."""
        task.result = _Here(value, task.call.name)
        task.attempt = next(self._numbers)
        self._here[task.attempt] = self._tasks[task.attempt] = task

    def failure(self, task: Task) -> BaseException:
        """The error of a task that failed."""
        return failure_of(task)

    def log(self, task: Task) -> LogSource:
        """What a nested call has printed."""
        if task.source is not None or task.logs:  # an item of a map
            return TaskLog(task, lambda _: None)
        self._check_process()
        return _RemoteLog(self._worker, task)

    def running_items(self, task: Task) -> Sequence[tuple[int, int, LogSource]]:
        """Not known here: the log of an item can be read once its block has ended."""
        return ()

    def forget(self, task: Task) -> None:
        """The call that asked holds the object no more; its driver drops it with the call."""

    def blocks_of(self, whole: Task) -> Sequence[Task]:
        """None: which blocks there are is known to the program's own engine."""
        return ()

    def observe(self, since: int | None = None) -> Observation:
        """Nothing: the program's own engine runs these calls, and tells of them."""
        from mars.observe.observation import Observation  # late: hardly ever asked for in a worker

        return Observation(time.monotonic())

    def table(self, since: int = 0, limit: int | None = None) -> Rows:
        """Nothing: the program's own engine has the table."""
        from mars.observe.attempts import Attempts

        return Attempts().since(since, limit)

    def silent_calls(self, after_s: float) -> Sequence[str]:
        """Not known here: the program's own process tells of them."""
        return ()

    def usage(self, workers: Sequence[WorkerFacts]) -> Mapping[int, tuple[float, float, int]]:
        """Not known here: the program's own process can ask."""
        return {}

    def stack(self, worker: int) -> Sequence[str] | None:
        """Not known here: the program's own process can ask."""
        return None

    def drop_objects(self, session: str) -> None:
        """The session is the driver's."""

    def close(self) -> None:
        """The engine is the driver's."""

    def create_object(
        self,
        session: str,
        name: str,
        cls: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> RemoteObject:
        """Make a shared object in the driver's process."""
        self._call_object("create", session, name, cls, args, kwargs)
        return self.get_object(session, name)

    def get_object(self, session: str, name: str) -> RemoteObject:
        """The shared object of that name."""
        self._call_object("find", session, name)
        return RemoteObject(
            name,
            lambda name, method, args, kw: self._call_object(
                "call", session, name, method, args, kw
            ),
        )

    def destroy_object(self, session: str, name: str) -> None:
        """Forget a shared object."""
        self._call_object("destroy", session, name)

    def _call_object(self, *request: object) -> object:
        self._check_process()
        data, _, _ = codec.encode_arguments(request, {})
        kind, value = self._worker.ask(messages.ASK, "object", data)
        if kind == "error":
            raise failure.decode_failure(value)
        return codec.loads(value)


class _Here:
    """A value that was made in this process, and that the driver does not know of."""

    __slots__ = ("_buffers", "_data", "_name")

    def __init__(self, value: object, name: str) -> None:
        self._name = name
        try:
            self._data, buffers = codec.encode(value)
        except Exception as error:
            raise attempt_call.encode_error(value, "result", name, error) from None
        self._buffers = [bytes(buffer.raw()) for buffer in buffers]

    def decode(self) -> object:
        """A fresh object."""
        return codec.loads(self._data, buffers=[bytearray(buffer) for buffer in self._buffers])

    def packed(self, put: attempt_call.Put) -> Value:
        """The value as engines keep it."""
        return attempt_call.pack_encoded(self._data, self._buffers, put)


class _RemoteLog:
    """The log of a nested call, read from the driver."""

    def __init__(self, worker: Channel, task: Task) -> None:
        self._worker = worker
        self._number = task.attempt

    def _ask(self, start: int, limit: int) -> tuple[int, bytes, bool, int]:
        return self._worker.ask(messages.ASK, "log", (self._number, start, limit))

    def size(self) -> int:
        """Bytes so far."""
        return self._ask(0, 0)[0]

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        return self._ask(start, limit)[1]

    def finished(self) -> bool:
        """Whether no more will come."""
        return self._ask(0, 0)[2]

    def kept_from(self, start: int) -> int:
        """``start``, or where the log goes on if what stood there was left out."""
        return self._ask(start, 0)[3]


class _RemoteSegment:
    """The file that a block of a map has printed to, read from the driver."""

    def __init__(self, worker: Channel, number: int, place: int) -> None:
        self._worker, self._block = worker, (number, place)

    def _ask(self, start: int, limit: int) -> tuple[bytes, int]:
        return self._worker.ask(messages.ASK, "block's log", (*self._block, start, limit))

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        return self._ask(start, limit)[0]

    def kept_from(self, start: int) -> int:
        """``start``, or where it goes on if what stood there was left out."""
        return self._ask(start, 0)[1]


def _whole(block: Task) -> bool:
    return block.stage is Stage.DONE and not block.result[1]
