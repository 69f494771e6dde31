"""Makes messages of the calls that the scheduler assigns to workers.

`Dispatch` knows which functions, runs and surroundings each worker has been told of, so that each
of them is sent once, and when a worker is to forget them. `loop` calls it, in its thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mars.attempt import failure
from mars.calls.options import DEFAULT_OPTIONS
from mars.engine import Run
from mars.engines.driver import events
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.store import Store
from mars.engines.driver.workers import Member
from mars.engines.wire import messages
from mars.engines.wire.messages import CallMessage, FunctionMessage, RunMessage
from mars.settings import FUNCTIONS_KEPT, REPORT_S
from mars.task import Function, RunId, Stage, Task, WorkerId

if TYPE_CHECKING:
    from typing import Literal

    from mars.attempt.followed import Surroundings
    from mars.calls.maps import MapCall
    from mars.task import Stored, Value


def _function_key(function: Function, run: Run) -> bytes:
    """What a function is known by: with large parts only in its run, see `functions.describe`."""
    return function.key + run.number.to_bytes(8, "little") if function.buffers else function.key


class Dispatch:
    """What the workers of one engine have been told.

    Parameters
    ----------
    members : dict
        The workers that are there, by number; the loop changes it.
    scheduler : Scheduler
        Says what each worker has queued.
    store : Store
        Has the large parts of functions, arguments and inputs.
    """

    def __init__(self, members: dict[int, Member], scheduler: Scheduler, store: Store) -> None:
        self._members = members
        self._scheduler = scheduler
        self._store = store
        self.table = scheduler.core.ended
        self.functions: dict[bytes, int] = {}  # the numbers by which messages call them
        self._function_count = 0
        self._plain = DEFAULT_OPTIONS  # the last options that workers need not be told of
        self._functions_limit = 4 * FUNCTIONS_KEPT
        self._functions_of: dict[RunId, list[bytes]] = {}  # of one run, and useless after it
        store.function_dropped = self._function_dropped

    def assign(self, command: events.Assign) -> None:
        """Send tasks to a worker, to run in this order."""
        member = self._members.get(command.worker)
        if member is None or member.process.deaf:
            # It is being buried: what it had finished made room in its queue. Died follows, and
            # with it the scheduler takes these tasks elsewhere.
            return
        if len(member.functions) > FUNCTIONS_KEPT:
            self._forget_functions(member)
        functions: dict[int, FunctionMessage] = {}
        runs: dict[int, RunMessage] = {}
        outgoing: list[CallMessage] = []
        numbers = self.functions
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
                self.table.name(number, function.name)
                if function.buffers:
                    self._functions_of.setdefault(RunId(run.number), []).append(key)
            if number not in known:
                known.add(number)
                data, regions = self._store.function(function, run)
                for region in regions or ():
                    self.lend(member, region)
                functions[number] = (function.name, data, regions)
            if run.number not in member.runs:
                member.runs.add(RunId(run.number))
                told: Surroundings | Literal["as before"] | None = run.surroundings
                if run.surroundings is member.surroundings:
                    told = messages.AS_BEFORE
                else:
                    member.surroundings = run.surroundings
                runs[run.number] = (run.session_id, run.entropy, run.prefix, told)
            if task.items is not None:
                outgoing.append(self._block_message(member, task, number, run))
                continue
            payload: messages.Payload = call.payload
            if call.stored is not None:
                payload = self._store.arguments(call, run)
                for region in payload[1]:
                    self.lend(member, region)
            inputs = self._inputs(member, task) if call.inputs else None
            extra = self._extra(task)
            if within < REPORT_S:
                assert extra is not None  # something depends on it
                extra["report"] = int(within * 1e9)
            outgoing.append(
                (task.attempt, run.number, number, payload, inputs, call.n_output,
                 task.place, extra, call.serial)
            )  # fmt: skip
        over, member.over = member.over, ([], [])
        member.process.send((messages.TASKS, functions, runs, outgoing, over))

    def _extra(self, task: Task) -> messages.Extra | None:
        """What only some calls need to say."""
        options = task.call.options
        tries = task.tries + task.deaths
        if options is DEFAULT_OPTIONS or options is self._plain:
            if task.dependents is not None:
                return {"keep": True, "tried": tries} if tries else {"keep": True}
            return {"tried": tries} if tries else None
        extra: messages.Extra = {}
        if options.name is not None:
            extra["name"] = options.name
        if options.cpus != 1:
            extra["cpus"] = options.cpus
        if options.name is not None or options.cpus != 1 or options.gpus:
            extra["label"] = self.table.label_of(task.call)
        if options.memory is not None:
            extra["memory"] = options.memory
        if options.retries:
            extra["retry_on"] = options.retry_data
            extra["retries"] = options.retries
        if tries:
            extra["tried"] = tries
        if task.dependents is not None:
            extra["keep"] = True  # the value, for calls behind this one
        if extra:
            return extra
        self._plain = options  # as those of an executor, which has many calls
        return None

    def _block_message(self, member: Member, task: Task, number: int, run: Run) -> CallMessage:
        call = cast("MapCall", task.call)
        extra: messages.Extra = self._extra(task) or {}
        indices = task.items
        assert indices is not None
        extra["count"] = len(indices)
        extra["items"] = indices[0] if isinstance(indices, range) else -1
        if not isinstance(indices, range):
            extra["indices"] = list(indices)
        extra["spread"] = call.spread
        if call.taken is not None:
            extra["spread"], extra["rows"] = False, "plain" if call.taken.plain else "any"
        try:
            payload: messages.Payload = self._store.block_arguments(call, indices, run)
        except Exception as error:  # no room for them
            # The worker tells it when the block's turn has come: what is queued keeps its order.
            extra["refused"] = failure.encode_failure(error, call=call.name)
            payload = b""
        if isinstance(payload, tuple):
            for region in payload[1]:
                self.lend(member, region)
        return (
            task.attempt,
            run.number,
            number,
            payload,
            None,
            None,
            task.place,
            extra,
            call.serial,
        )

    def _inputs(self, member: Member, task: Task) -> list[messages.Input]:
        realm = task.realm
        inputs: list[messages.Input] = []
        for call, index in task.call.inputs:
            source = call.task
            if source is None or source.realm is not realm:
                source = call.task_in(realm)
                assert source is not None
            if source.stage is Stage.DONE or source.early:
                value: Value = source.result if call.n_output is None else source.result[index]
                if not isinstance(value, bytes):
                    self.lend(member, value)
                inputs.append(value)
            else:
                # Queued in the same worker before this task, which will find it there.
                inputs.append((source.attempt, None if call.n_output is None else index))
        return inputs

    def lend(self, member: Member, value: Stored) -> None:
        """Make sure that a worker can map a stored value."""
        arena = self._store.arena(value[1])
        self._store.lent(value, member.number)
        member.process.lend(value, arena)

    # -- what workers are to forget -----------------------------------------------------------

    def forget_run(self, run: Run) -> None:
        """No call of a run will be sent again: workers hear so with the next ones they get."""
        number = RunId(run.number)
        keys = self._functions_of.pop(number, ())
        functions = [self.functions.pop(key, 0) for key in keys]
        for member in self._members.values():
            runs_over, functions_over = member.over
            if number in member.runs:
                member.runs.discard(number)
                runs_over.append(number)
            if functions:
                functions_over += member.functions.intersection(functions)
                member.functions.difference_update(functions)

    def _function_dropped(self, key: bytes) -> None:
        """The program has a function no more, and with it went what was stored of it."""
        number = self.functions.pop(key, 0)
        for member in self._members.values():
            if number in member.functions:
                member.functions.discard(number)
                member.over[1].append(number)

    def _forget_functions(self, member: Member) -> None:
        """A worker has many functions: it may keep those of the calls that it has queued."""
        used = set()
        for task in self._scheduler.workers[WorkerId(member.number)].queue:
            run = (task.runs or task.source.runs)[0]  # type: ignore[union-attr]
            used.add(self.functions.get(_function_key(task.call.function, run), 0))
        member.over[1].extend(member.functions - used)
        member.functions &= used
        if len(self.functions) > self._functions_limit:
            # Numbers are not used again, so one that no worker knows means nothing any more.
            known = set().union(*[one.functions for one in self._members.values()])
            self.functions = {key: n for key, n in self.functions.items() if n in known}
            self._functions_limit = max(4 * FUNCTIONS_KEPT, 2 * len(self.functions))
