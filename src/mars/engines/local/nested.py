"""Calls that ask for calls: the engine inside a worker, and its other half in the driver.

`NestedEngine` fulfils the `Engine` contract in a worker process by messages. `NestedServer`
lives in the loop's thread, makes tasks of what workers ask for, and tells them how it ended. A
worker that waits gives its cores away, so calls that wait for calls never hold up each other.
"""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol
from weakref import WeakValueDictionary

from mars.attempt import call as attempt_call
from mars.attempt import codec, context, failure
from mars.engine import Run
from mars.engines.local import events, messages
from mars.engines.local.pool import Member
from mars.engines.objects import RemoteObject, SharedObjects
from mars.engines.outcome import failure_of, item_of
from mars.errors import SessionClosed, UsageError
from mars.logs import LogSource
from mars.settings import BLOCKED_WORKERS, INLINE_BYTES
from mars.task import Call, Function, Stage, Task, WorkerId

# -- in the worker ----------------------------------------------------------------------------


class Channel(Protocol):
    """What the worker process offers to the calls that run in it."""

    number: int
    pid: int
    address: str
    addresses: Sequence[str]
    n_cpu: float

    def ask(self, kind: str, *rest: Any) -> Any:
        """Send a request to the driver and wait for its reply."""

    def send(self, *message: Any) -> None:
        """Send a message to the driver."""

    def shield(self) -> AbstractContextManager[None]:
        """While inside, an interrupt of the running call waits."""

    def put(self, buffers: Sequence[Any]) -> tuple[int, int, int, tuple[int, ...]]:
        """Copy large parts of a value to an arena."""

    def decode(self, value: Any) -> object:
        """A fresh object from a packed value."""


class NestedEngine:
    """The engine of calls that run in this worker."""

    synchronous = False

    def __init__(self, worker: Channel) -> None:
        self._worker = worker
        self.address = worker.address.rpartition(":")[0]
        self.n_cpu = worker.n_cpu
        self.worker_addresses = worker.addresses
        self._numbers = itertools.count(1)
        # Whoever may still ask for a task holds it: an object through its call, a wait its run.
        self._tasks: WeakValueDictionary[int, Task] = WeakValueDictionary()
        self._here: WeakValueDictionary[int, Task] = WeakValueDictionary()  # ran in this process
        self._lock = threading.Lock()

    def submit(
        self, run: Run, calls: Sequence[Call], places: Sequence[Any], targets: Collection[Call]
    ) -> None:
        """Have the driver run calls; see `mars.engine.Engine`."""
        self._check_process()
        tasks = []
        described = []
        for call, place in zip(calls, places, strict=True):
            task = Task(call, run.realm)
            task.asked = call in targets
            task.attempt = next(self._numbers)
            self._join(task)
            call.begin(task)
            tasks.append(task)
            described.append(self._describe(task, place))
        run.total = run.remaining = len(tasks)
        if any(number in self._here for one in described for number, _ in one[4]):
            self._run_here(run, tasks, places)  # it reads what the driver has not
            return
        attempt = context.current()
        answer = self._worker.ask(
            messages.SUBMIT,
            (run.session_id, run.stop_on_error, run.entropy, run.prefix,
             attempt.name if attempt else ""),
            described,
        )  # fmt: skip
        kind, value = answer
        if kind == "error":
            raise failure.decode_failure(value)
        if kind == "too many":
            self._run_here(run, tasks, places)
            return
        run.number = value
        with self._lock:
            self._tasks.update((task.attempt, task) for task in tasks)
        run.tasks = tasks
        run.waits = self._wait

    def _check_process(self) -> None:
        """The socket to the driver is this process's, not that of one which a call forked."""
        if os.getpid() != self._worker.pid:
            raise SessionClosed(
                "this process was forked by a call, and cannot ask for calls or objects of the "
                "call's session; do that in the call itself, or call mars.new_session() here"
            )

    def _run_here(self, run: Run, tasks: Sequence[Task], places: Sequence[Any]) -> None:
        """Run calls in this process: too many workers wait for nested calls already.

        What they print goes to the log of the call that asks for them.
        """
        outer = context.current()
        try:
            for task, place in zip(tasks, places, strict=True):
                self._here[task.attempt] = task
                with self._lock:
                    self._tasks[task.attempt] = task
                if task.parts is not None:
                    raise UsageError(
                        "mars.remote.map cannot run this deep inside nested calls; use spawn"
                    )
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
        arguments: Any = None
        while True:
            context.enter_thread(
                context.Attempt(
                    run.session_id, call.name, self, self._worker.address, run.entropy,
                    (*run.prefix, *place), lambda _: None,
                )
            )  # fmt: skip
            try:
                values = [self.value(source, index) for source, index in sources if source]
                buffers = [x for x in call.stored or () if x is not call.payload]
                arguments = codec.decode_arguments(
                    call.payload,
                    [bytearray(memoryview(x).cast("B")) for x in buffers],  # type: ignore[arg-type]
                    values,
                )
                parts = [bytearray(memoryview(x).cast("B")) for x in call.function.buffers]  # type: ignore[arg-type]
                value = pickle.loads(call.function.data, buffers=parts)(
                    *arguments[0], **arguments[1]
                )
                outputs = [
                    attempt_call.pack(output, call.name, self._worker.put)
                    for output in attempt_call.split_outputs(value, call.n_output)
                ]
            except Exception as error:
                task.tries += 1
                task.result = attempt_call.pack_failure(
                    error,
                    name=call.name,
                    arguments=arguments,
                    attempt=task.tries,
                    where=f"worker {self._worker.number} (pid {self._worker.pid})",
                    log_tail="",
                )
                if task.tries <= call.options.retries and isinstance(error, call.options.retry_on):
                    continue
                task.stage = Stage.FAILED
                return
            task.result = outputs[0] if call.n_output is None else tuple(outputs)
            task.stage = Stage.DONE
            return

    def _join(self, task: Task) -> None:
        call = task.call
        known = call.task_in(task.realm)
        if known is None:
            task.elsewhere, call.task = call.task, task
        elif call.task is known:
            task.elsewhere, call.task = known.elsewhere, task

    def _describe(self, task: Task, place: Any) -> tuple[Any, ...]:
        call = task.call
        function = call.function
        stored: Any = None
        if call.stored is not None:
            stored = [(None, *self._worker.put((part,))) for part in call.stored]
        buffers = [(None, *self._worker.put((part,))) for part in function.buffers]
        inputs = []
        for source, index in call.inputs:
            there = source.task_in(task.realm)
            assert there is not None
            inputs.append((there.attempt, index))
        items: Any = None
        if task.parts is not None:
            whole: Any = call
            items = (whole.columns, list(task.items), whole.spread)
        payload = call.payload if call.stored is None or len(call.payload) <= INLINE_BYTES else None
        return (
            task.attempt, (function.key, function.name, function.data, buffers), payload, stored,
            inputs, call.n_output, call.options, place, task.asked, items,
        )  # fmt: skip

    def _wait(self, run: Run, timeout_s: float | None) -> bool:
        """Wait for the driver to end a run; the worker's cores are free meanwhile."""
        self._check_process()
        if timeout_s is None:
            kind, outcome = self._worker.ask(messages.WAIT, run.number)
        else:
            kind, outcome = self._worker.ask(messages.WAITED, run.number)
        if kind == "running":
            return False
        cancelled, failed, results, error = outcome
        for number, stage, result, stored, blame, broken, parts in results:
            task = self._tasks[number]
            task.stage, task.result, task.stored = Stage(stage), result, stored
            task.blame = blame
            task.failed_input = self._tasks.get(broken)
            if parts is not None:
                task.parts[:] = [self._block(task, *part) for part in parts]
            task.call.satisfy()
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

    def _block(self, task: Task, items: Any, stage: int, result: Any) -> Task:
        block = Task(task.call, task.realm)
        block.items, block.stage, block.result, block.source = items, Stage(stage), result, task
        return block

    def cancel(self, run: Run) -> None:
        """End the run early."""
        if run.number and not run.ended and os.getpid() == self._worker.pid:
            with self._worker.shield():
                self._worker.send(messages.CANCEL, run.number)

    def value(self, task: Task, index: int) -> object:
        """Decode one output."""
        if task.stage is not Stage.DONE:
            raise failure_of(task)
        call = task.call
        if task.parts is not None:
            return item_of(task, call.index, self.decode)  # type: ignore[attr-defined]
        return self.decode(task.result if call.n_output is None else task.result[index])

    def decode(self, value: Any) -> object:
        """A fresh object from a value."""
        return self._worker.decode(value)

    def install(self, task: Task, value: object) -> None:
        """Give a task a value: here, as a call of its own that the driver can refer to."""
        raise UsageError(
            "inside a call, an item of a map cannot be the input of another call; fetch() it first"
        )

    def failure(self, task: Task) -> BaseException:
        """The error of a task that failed."""
        return failure_of(task)

    def log(self, task: Task) -> Any:
        """What a nested call has printed."""
        if task.source is not None:
            return None
        self._check_process()
        return _RemoteLog(self._worker, task)

    def forget(self, task: Task) -> None:
        """The call that asked holds the object no more; its driver drops it with the call."""

    def running(self, run: Run) -> int:
        """Not known here."""
        return 0

    def silent_calls(self, after_s: float) -> Sequence[str]:
        """Not known here: the program's own process tells of them."""
        return ()

    def drop_objects(self, session: str) -> None:
        """The session is the driver's."""

    def close(self) -> None:
        """The engine is the driver's."""

    def create_object(self, session: str, name: str, cls: Any, args: Any, kwargs: Any) -> Any:
        """Make a shared object in the driver's process."""
        self._call_object("create", session, name, cls, args, kwargs)
        return self.get_object(session, name)

    def get_object(self, session: str, name: str) -> Any:
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

    def _call_object(self, *request: Any) -> Any:
        self._check_process()
        data, _, _ = codec.encode_arguments(request, {})
        kind, value = self._worker.ask(messages.ASK, "object", data)
        if kind == "error":
            raise failure.decode_failure(value)
        return codec.loads(value)


class _RemoteLog:
    """The log of a nested call, read from the driver."""

    def __init__(self, worker: Channel, task: Task) -> None:
        self._worker = worker
        self._number = task.attempt

    def _ask(self, start: int, limit: int) -> tuple[int, bytes, bool]:
        answer: tuple[int, bytes, bool] = self._worker.ask(
            messages.ASK, "log", (self._number, start, limit)
        )
        return answer

    def size(self) -> int:
        """Bytes so far."""
        return self._ask(0, 0)[0]

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        return self._ask(start, limit)[1]

    def finished(self) -> bool:
        """Whether no more will come."""
        return self._ask(0, 0)[2]


def _whole(block: Task) -> bool:
    return block.stage is Stage.DONE and not block.result[1]


# -- in the driver ----------------------------------------------------------------------------


class Host(Protocol):
    """The engine that the workers belong to."""

    loop: Any
    objects: SharedObjects

    def check_schedulable(self, call: Call) -> None:
        """Refuse a call that no worker can ever run."""

    def log(self, task: Task) -> LogSource | None:
        """What a task has printed so far."""

    def forget(self, task: Task) -> None:
        """Nobody holds an output of the task any more."""


class _Realm:
    """Where results of nested calls belong: the attempt that asked for them."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine

    def forget(self, task: Task) -> None:
        self._engine.forget(task)


class _Asker:
    """A worker whose running attempt has asked for calls."""

    def __init__(self, attempt: int, realm: _Realm) -> None:
        self.attempt = attempt
        self.realm = realm
        self.calls: dict[int, Call] = {}
        self.runs: dict[int, Run] = {}
        self.waiting: dict[int, list[int]] = {}  # run -> requests
        self.held: list[tuple[int, Run]] = []  # replies that wait for the worker's cores


class NestedServer:
    """Serves the workers of one engine, in the loop's thread."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._askers: dict[int, _Asker] = {}

    @property
    def _loop(self) -> Any:
        return self._engine.loop

    def take(self, member: Member, message: tuple[Any, ...]) -> None:
        """Act on a worker's request."""
        kind, *rest = message
        if kind == messages.SUBMIT:
            self._submit(member, *rest)
        elif kind == messages.WAIT:
            self._wait(member, *rest)
        elif kind == messages.WAITED:
            request, number = rest
            asker = self._askers.get(member.number)
            run = asker.runs.get(number) if asker is not None else None
            if run is None or run.ended:
                self._reply_run(member, request, run)
            else:
                self._reply(member, request, "running", None)
        elif kind == messages.CANCEL:
            asker = self._askers.get(member.number)
            run = asker.runs.get(rest[0]) if asker is not None else None
            if run is not None:
                self._loop.cancel(run)
        elif kind == messages.ASK:
            request, what, about = rest
            if what == "log":
                self._reply(member, request, *self._log(member, *about))
            else:
                threading.Thread(
                    target=self._call_object, args=(member, request, about), daemon=True,
                    name="mars-shared-object",
                ).start()  # fmt: skip

    def _asker(self, member: Member) -> _Asker:
        state = self._loop.scheduler.workers.get(WorkerId(member.number))
        attempt = state.queue[0].attempt if state is not None and state.queue else 0
        asker = self._askers.get(member.number)
        if asker is None or asker.attempt != attempt:
            if asker is not None:
                self._drop(member)
            asker = self._askers[member.number] = _Asker(attempt, _Realm(self._engine))
        return asker

    def _submit(
        self, member: Member, request: int, facts: tuple[Any, ...], described: Sequence[Any]
    ) -> None:
        asker = self._asker(member)
        session_id, stop_on_error, entropy, prefix, _name = facts
        if self._loop.scheduler.blocked >= BLOCKED_WORKERS:
            self._reply(member, request, "too many", None)
            return
        state = self._loop.scheduler.workers.get(WorkerId(member.number))
        parent = state.queue[0] if state is not None and state.queue else None
        run = Run(
            session_id,
            asker.realm,
            stop_on_error=stop_on_error,
            entropy=entropy,
            prefix=prefix,
            depth=parent.depth + 1 if parent is not None else 1,
        )
        run.surroundings = (
            parent.runs[0].surroundings if parent is not None and parent.runs else None
        )
        try:
            tasks = [self._task(asker, run, *one) for one in described]
        except Exception as error:
            data = failure.encode_failure(error, call="a nested call")
            self._reply(member, request, "error", data)
            return
        run.number = self._loop.number(run)
        asker.runs[run.number] = run
        run.member = member
        run.tasks = tasks
        self._reply(member, request, "run", run.number)
        self._loop.submit(run, tasks)

    def _task(
        self, asker: _Asker, run: Run, number: int, function: Any, payload: Any, stored: Any,
        inputs: Any, n_output: Any, options: Any, place: Any, asked: bool, items: Any,
    ) -> Task:  # fmt: skip
        key, name, data, buffers = function
        described = Function(key, name, data, tuple(buffers))
        if items is not None:
            from mars.items import MapCall

            columns, _, spread = items
            whole = MapCall(described, options, columns)
            whole.spread = spread
            call: Call = whole
        else:
            call = Call(
                described,
                payload or b"",
                (),
                tuple((asker.calls[source], index) for source, index in inputs),
                options,
                n_output,
            )
            if stored is not None:
                call.stored = tuple(stored)
                if payload is None:
                    call.payload = call.stored[0]  # type: ignore[assignment]
        self._engine.check_schedulable(call)
        call.handles += 1
        asker.calls[number] = call
        task = Task(call, asker.realm)
        task.place = place
        task.asked = asked
        call.begin(task)
        if items is not None:
            task.items = items[1]
            task.size = len(task.items)
        return task

    def _wait(self, member: Member, request: int, number: int) -> None:
        asker = self._askers.get(member.number)
        run = asker.runs.get(number) if asker is not None else None
        if asker is None or run is None or run.ended:
            self._reply_run(member, request, run)
            return
        asker.waiting.setdefault(number, []).append(request)
        self._loop.on(events.Blocked(WorkerId(member.number)))

    def run_ended(self, run: Run) -> None:
        """A run has ended; if a worker waits for it, it may go on once its cores are free."""
        member = run.member
        asker = self._askers.get(member.number) if member is not None else None
        if asker is None or asker.runs.get(run.number) is not run:
            return
        requests = asker.waiting.pop(run.number, [])
        asker.held.extend((request, run) for request in requests)
        if requests:
            self._loop.on(events.Unblocked(WorkerId(member.number)))

    def resume(self, member: Member) -> None:
        """The worker's cores are free: tell it what it waits for."""
        asker = self._askers.get(member.number)
        if asker is None:
            return
        held, asker.held = asker.held, []
        for request, run in held:
            self._reply_run(member, request, run)
        if asker.waiting:  # another of its threads still waits
            self._loop.on(events.Blocked(WorkerId(member.number)))

    def _reply_run(self, member: Member, request: int, run: Run | None) -> None:
        if run is None:
            error = failure.encode_failure(SessionClosed("the run is gone"), call="a nested call")
            self._reply(member, request, "ended", (True, 0, [], error))
            return
        asker = self._askers[member.number]
        numbers = {id(call): number for number, call in asker.calls.items()}
        results = []
        failed = 0
        for task in run.tasks:
            current = task.call.task_in(task.realm) or task
            number = numbers[id(task.call)]
            source = current.failed_input
            parts = None
            if current.parts is not None:
                parts = [(part.items, int(part.stage), part.result) for part in current.parts]
                for part in current.parts:
                    if part.stored:
                        self._lend(member, part.result[0])
            elif current.stored:
                values = (current.result,) if current.call.n_output is None else current.result
                for value in values:
                    self._lend(member, value)
            result = None if parts is not None else current.result
            results.append(
                (number, int(current.stage), result, current.stored, current.blame,
                 numbers.get(id(source.call), 0) if source is not None else 0, parts)
            )  # fmt: skip
            first = run.failure
            if first is not None and first.call is task.call:
                failed = number
        broken = None
        if run.error is not None:
            broken = failure.encode_failure(run.error, call="a nested call")
        self._reply(member, request, "ended", (run.cancelled, failed, results, broken))

    def _lend(self, member: Member, value: Any) -> None:
        if type(value) is not bytes and value is not None:
            self._loop.lend(member, value)

    def _log(self, member: Member, number: int, start: int, limit: int) -> tuple[int, bytes, bool]:
        asker = self._askers.get(member.number)
        call = asker.calls.get(number) if asker is not None else None
        task = call.task_in(asker.realm) if call is not None and asker is not None else None
        source = self._engine.log(task) if task is not None else None
        if source is None:
            return 0, b"", task is None or task.finished
        return source.size(), source.read(start, limit) if limit else b"", source.finished()

    def _call_object(self, member: Member, request: int, data: bytes) -> None:
        try:
            (what, *rest), _ = codec.decode_arguments(data, (), ())
            act: Callable[..., Any] = getattr(self._engine.objects, str(what))
            value = act(*rest)
            if what in ("create", "find"):
                value = None
            packed = attempt_call.encode_error  # named in errors of what cannot be sent
            try:
                answer, buffers = codec.encode(value)
                if buffers:
                    answer = codec.encode_in_band(value)
            except Exception as error:
                raise packed(value, "result", str(rest[1]), error) from None
            reply: tuple[str, Any] = ("value", answer)
        except BaseException as error:
            reply = ("error", failure.encode_failure(error, call="a remote object"))
        self._loop.post(lambda: self._reply(member, request, *reply))

    def _reply(self, member: Member, request: int, *answer: Any) -> None:
        self._loop.send(member, (messages.REPLY, request, *answer))

    def attempt_ended(self, member: Member) -> None:
        """An attempt of the worker has ended: nobody waits any more for what it asked for."""
        asker = self._askers.get(member.number)
        if asker is None:
            return
        state = self._loop.scheduler.workers.get(WorkerId(member.number))
        if state is None or not state.queue or state.queue[0].attempt != asker.attempt:
            self._drop(member)

    def worker_ended(self, member: Member) -> None:
        """The worker process has ended."""
        self._drop(member)

    def _drop(self, member: Member) -> None:
        asker = self._askers.pop(member.number, None)
        if asker is None:
            return
        for run in asker.runs.values():
            if not run.ended:
                self._loop.cancel(run)
        if member.open:
            # A thread that the call left behind may still wait: it learns that nothing comes.
            waiting = [request for requests in asker.waiting.values() for request in requests]
            for request in (*waiting, *(request for request, _ in asker.held)):
                self._reply_run(member, request, None)
        for call in asker.calls.values():
            call.drop()
