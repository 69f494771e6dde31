"""Calls that ask for calls, the driver's end: makes tasks of what workers ask for.

`NestedServer` lives in the loop's thread, and tells the workers how their calls ended. A worker
that waits gives its cores away, so calls that wait for calls never hold up each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, cast

from mars.attempt import call as attempt_call
from mars.attempt import codec, failure
from mars.calls.options import DEFAULT_OPTIONS
from mars.code import modules
from mars.engine import Run
from mars.engines.driver import events
from mars.engines.driver.workers import Member
from mars.engines.objects import SharedObjects, asked_by
from mars.engines.wire import messages
from mars.engines.wire.regions import is_stored
from mars.errors import SessionClosed
from mars.logs import LogSource
from mars.settings import BLOCKED_WORKERS, BLOCKED_WORKERS_AT_MOST
from mars.task import Call, Function, Stage, Task, WorkerId

if TYPE_CHECKING:
    from mars.attempt.rows import Row
    from mars.calls.options import Options
    from mars.engines.driver.dispatch import Dispatch
    from mars.engines.driver.scheduler import Scheduler
    from mars.engines.driver.store import Store
    from mars.task import Buffers, Place, Stored, Value

    _Rows = tuple[Row | None, list[Row | None], bool]

_MADE_THERE: Final = Function(b"", "a call inside its worker", b"")
"""Function of calls that a worker has run by itself."""


class Loop(Protocol):
    """What of the engine's loop is used here."""

    dispatch: Dispatch
    scheduler: Scheduler
    store: Store

    @property
    def over(self) -> bool:
        """Whether the engine has ended."""

    def ask(self, question: Callable[[], int]) -> int:
        """Have something looked up in the loop's thread, and wait for the answer."""

    def post(self, action: Callable[[], object]) -> None:
        """Have something done in the loop's thread."""

    def on(self, event: events.Event) -> None:
        """Have the scheduler decide about an event."""

    def submit(self, run: Run, tasks: Sequence[Task]) -> None:
        """Start a run."""

    def cancel(self, run: Run) -> None:
        """End a run early."""

    def number(self, run: Run) -> int:
        """A number for a run, by which messages call it."""

    def collect_regions(self) -> None:
        """Pass on what the store wants told to workers."""


class Host(Protocol):
    """The engine that the workers belong to."""

    objects: SharedObjects

    @property
    def loop(self) -> Loop: ...

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
        self.unanswered: set[int] = set()  # runs whose end the worker has not heard of


def _large_parts(described: messages.Described) -> list[Stored]:
    """What a worker has put apart of a call that it describes."""
    _, function, _, stored, *_, items = described
    found = [*function[3], *(stored or ())]
    kept = None if items is None else items[0][1]
    if kept is not None:
        shared, rows, _ = kept
        found += [part for row in (shared, *rows) if isinstance(row, tuple) for part in row[1]]
    return found


def _values(n_output: int | None, result: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    """The values of a call as it gave them: one, or as many as it has outputs."""
    return cast("tuple[Value, ...]", (result,) if n_output is None else result)


def _in_place(parts: Sequence[Stored]) -> Buffers:
    """Large parts that a worker has put into an arena, in place of the buffers themselves.

    Only `Store` looks at what is large in a call, and it takes both.
    """
    return cast("Buffers", tuple(parts))


class NestedServer:
    """Serves the workers of one engine, in the loop's thread."""

    def __init__(self, engine: Host) -> None:
        self._engine = engine
        self._askers: dict[int, _Asker] = {}

    @property
    def _loop(self) -> Loop:
        return self._engine.loop

    def take(self, member: Member, message: messages.Request) -> None:
        """Act on a worker's request."""
        if message[0] == messages.SUBMIT:
            self._submit(member, *message[1:])
        elif message[0] == messages.WAIT:
            self._wait(member, *message[1:])
        elif message[0] == messages.WAITED:
            _, request, number = message
            asker = self._askers.get(member.number)
            run = asker.runs.get(number) if asker is not None else None
            if run is None or run.ended:
                self._reply_run(member, request, run)
            else:
                self._reply(member, request, ("running", None))
        elif message[0] == messages.CANCEL:
            asker = self._askers.get(member.number)
            run = asker.runs.get(message[1]) if asker is not None else None
            if run is not None:
                self._loop.cancel(run)
        elif message[0] == messages.ASK:
            request, question = message[1], cast(messages.Question, message[2:])
            if question[0] == "log":
                self._reply(member, request, self._log(member, *question[1]))
            elif question[0] == "text":
                self._reply(member, request, (modules.packed_text(question[1]),))
            elif question[0] == "block's log":
                self._reply(member, request, self._log_of_block(member, *question[1]))
            else:
                attempt = self._attempt_of(member)
                threading.Thread(
                    target=self._call_object,
                    args=(member, request, question[1], attempt),
                    daemon=True,
                    name="mars-shared-object",
                ).start()  # fmt: skip

    def refuse(self, member: Member, message: messages.Submit, error: BaseException) -> None:
        """Do not take a worker's request for calls."""
        _, request, facts, described = message
        self._give_back(facts[-1], described)
        data = failure.encode_failure(error, call="a nested call")
        self._reply(member, request, ("error", data))

    def _attempt_of(self, member: Member) -> int:
        """The attempt that a worker runs; 0: none."""
        state = self._loop.scheduler.workers.get(WorkerId(member.number))
        return state.queue[0].attempt if state is not None and state.queue else 0

    def _asker(self, member: Member) -> _Asker:
        attempt = self._attempt_of(member)
        asker = self._askers.get(member.number)
        if asker is None or asker.attempt != attempt:
            if asker is not None:
                self._drop(member)
            asker = self._askers[member.number] = _Asker(attempt, _Realm(self._engine))
        return asker

    def _submit(
        self,
        member: Member,
        request: int,
        facts: messages.RunFacts,
        described: Sequence[messages.Again | messages.Described],
    ) -> None:
        asker = self._asker(member)
        session_id, stop_on_error, entropy, prefix, apart, given = facts
        blocked = self._loop.scheduler.blocked
        if blocked >= (BLOCKED_WORKERS_AT_MOST if apart else BLOCKED_WORKERS):
            self._give_back(given, described)
            self._reply(member, request, ("too many", blocked))
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
        for one in given:
            self._take_value(asker, *one)
        try:
            tasks = [
                self._task(asker, run, *one) if len(one) > 2 else self._again(asker, *one)
                for one in described
            ]
        except Exception as error:
            self._give_back((), described)
            data = failure.encode_failure(error, call="a nested call")
            self._reply(member, request, ("error", data))
            return
        for task in tasks:
            if task.call.stored is not None or task.call.function.large:
                self._loop.store.prepare(task.call, run)  # the worker has written it
        run.number = self._loop.number(run)
        asker.runs[run.number] = run
        asker.unanswered.add(run.number)
        run.member = member
        run.tasks = tasks
        self._reply(member, request, ("run", run.number))
        self._loop.submit(run, tasks)

    def _take_value(
        self,
        asker: _Asker,
        number: int,
        n_output: int | None,
        result: Value | tuple[Value, ...],
    ) -> None:
        """A value that was made in the worker itself, as an input of what follows."""
        if number in asker.calls:  # another of its threads was faster
            self._give_back([(number, n_output, result)], ())
            return
        call = Call(_MADE_THERE, b"", (), (), DEFAULT_OPTIONS, n_output)
        call.handles += 1
        asker.calls[number] = call
        task = call.task = Task(call, asker.realm)
        task.stage, task.result, task.asked = Stage.DONE, result, True
        task.stored = any(map(is_stored, _values(n_output, result)))
        if task.stored:
            self._loop.store.arrived(result)

    def _give_back(
        self,
        given: Sequence[messages.Given],
        described: Sequence[messages.Again | messages.Described],
    ) -> None:
        """Let the worker write again where it has put large parts of what is not to be run."""
        results = [
            value
            for _, n_output, result in given
            for value in _values(n_output, result)
            if is_stored(value)
        ]
        for one in described:
            if len(one) > 2:  # else a call that is known
                results += _large_parts(one)
        for value in results:
            self._loop.store.discard(value)  # nobody has it mapped
        self._loop.collect_regions()

    def _again(self, asker: _Asker, number: int, asked: bool) -> Task:
        """A task for a call that another thread's run of the same asker is at."""
        call = asker.calls[number]
        task = Task(call, asker.realm)
        task.asked = asked
        call.begin(task)
        return task

    def _task(
        self, asker: _Asker, run: Run, number: int,
        function: tuple[bytes, str, bytes, list[Stored]], payload: bytes | None,
        stored: list[Stored] | None, inputs: list[tuple[int, int]], n_output: int | None,
        options: Options, place: Place, asked: bool, items: messages.Items | None,
    ) -> Task:  # fmt: skip
        key, name, data, buffers = function
        described = Function(key, name, data, _in_place(buffers))
        if items is not None:
            from mars.attempt.rows import Rows
            from mars.calls.maps import MapCall

            (columns, kept), _, spread = items
            taken = None if kept is None else Rows(*cast("_Rows", kept))  # as of `_in_place`
            whole = MapCall(described, options, columns, taken)
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
                call.stored = _in_place(stored)
                if payload is None:
                    call.payload = cast(bytes, call.stored[0])  # to be known as the same
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
        if not requests:
            return
        if self._is_blocked(member):
            self._loop.on(events.Unblocked(WorkerId(member.number)))
        else:  # a thread that a call left behind waits: no cores have to be free for it
            self.resume(member)

    def _is_blocked(self, member: Member) -> bool:
        state = self._loop.scheduler.workers.get(WorkerId(member.number))
        return state is not None and state.blocked

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
            self._reply(member, request, ("ended", (True, 0, [], error)))
            return
        asker = self._askers[member.number]
        asker.unanswered.discard(run.number)
        numbers = {id(call): number for number, call in asker.calls.items()}
        results: list[messages.ToldTask] = []
        failed = 0
        for task in run.tasks:
            current = task.call.task_in(task.realm) or task
            number = numbers[id(task.call)]
            source = current.failed_input
            parts: list[messages.ToldBlock] | None = None
            if current.parts is not None:
                parts = [
                    (part.items, int(part.stage), part.result, part.attempts(), part.blame,
                     part.tries, (part.logs[-1].start, part.logs[-1].end) if part.logs else None)
                    for part in current.parts
                ]  # fmt: skip
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
                 numbers.get(id(source.call), 0) if source is not None else 0, parts,
                 current.attempts(), current.tries)
            )  # fmt: skip
            first = run.failure
            if first is not None and first.call is task.call:
                failed = number
        broken = None
        if run.error is not None:
            broken = failure.encode_failure(run.error, call="a nested call")
        self._reply(member, request, ("ended", (run.cancelled, failed, results, broken)))

    def _lend(self, member: Member, value: Value | None) -> None:
        if is_stored(value):
            self._loop.dispatch.lend(member, value)

    def _log(
        self, member: Member, number: int, start: int, limit: int
    ) -> tuple[int, bytes, bool, int]:
        asker = self._askers.get(member.number)
        call = asker.calls.get(number) if asker is not None else None
        task = call.task_in(asker.realm) if call is not None and asker is not None else None
        source = self._engine.log(task) if task is not None else None
        if source is None:
            return 0, b"", task is None or task.finished, start
        data = source.read(start, limit) if limit else b""
        return source.size(), data, source.finished(), source.kept_from(start)

    def _log_of_block(
        self, member: Member, number: int, place: int, start: int, limit: int
    ) -> tuple[bytes, int]:
        """What a block of a map has printed, by its place among those of the map."""
        asker = self._askers.get(member.number)
        call = asker.calls.get(number) if asker is not None else None
        task = call.task_in(asker.realm) if call is not None and asker is not None else None
        if task is None or not task.parts or not task.parts[place].logs:
            return b"", start
        segment = task.parts[place].logs[-1].segment
        return segment.read(start, limit), segment.kept_from(start)

    def _call_object(self, member: Member, request: int, data: bytes, attempt: int) -> None:
        def there() -> bool:
            loop = self._loop
            return not loop.over and loop.ask(lambda: self._attempt_of(member)) == attempt

        try:
            (what, *rest), _ = codec.decode_arguments(data, (), ())
            act: Callable[..., object] = getattr(self._engine.objects, str(what))
            with asked_by(there):
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
            reply: messages.OfObject = ("value", answer)
        except BaseException as error:
            reply = ("error", failure.encode_failure(error, call="a remote object"))
        self._loop.post(lambda: self._reply(member, request, reply))

    def _reply(self, member: Member, request: int, answer: messages.Answer) -> None:
        member.process.send((messages.REPLY, request, *answer))

    def attempt_ended(self, member: Member) -> None:
        """An attempt of the worker has ended: nobody waits any more for what it asked for."""
        asker = self._askers.get(member.number)
        if asker is None:
            return
        if not asker.attempt and asker.unanswered:
            if asker.held and not self._is_blocked(member):
                self.resume(member)  # the call that seemed to wait for them has ended
            return  # a thread that an earlier call left behind asked, and will hear of the end
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
        if not member.process.deaf:
            # A thread that the call left behind may still wait: it learns that nothing comes.
            waiting = [request for requests in asker.waiting.values() for request in requests]
            for request in (*waiting, *(request for request, _ in asker.held)):
                self._reply_run(member, request, None)
        for call in asker.calls.values():
            call.drop()
