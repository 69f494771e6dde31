"""Runs calls in a worker process: one call, or one block of items, and its failure.

`Performer` has what calls need: functions, runs and inputs. `process` gives it the calls, one at a
time, in the main thread, and takes what came of them. `perform` is the path of each small call; how
long it takes is shown by the benchmarks `noop` and `noop_map`. Its order is: note where the log of
the call begins, follow what the program has set, load the function, decode the inputs, give it its
cores, call it, pack the result, look what it has left, note where its log ends.

One long room on purpose: a call, a block and their values share what `perform` looks up once, and
each module more would cost every worker 0.1 ms as it starts.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol
from zlib import crc32

from mars.attempt import call as attempt_call
from mars.attempt import codec, context, threads
from mars.attempt.ambient import Ambient
from mars.attempt.memory import MemoryLimit
from mars.attempt.process_end import leave_fork
from mars.code import world
from mars.code.arriving import new_world
from mars.code.world import World
from mars.engines.wire import messages
from mars.engines.wire.arena import Inputs
from mars.engines.wire.messages import (
    FLAG_FAILURES,
    FLAG_PACKED,
    FLAG_STDERR,
    FLAG_STORED,
    CallMessage,
    FromWorker,
    FunctionMessage,
    Measured,
    Over,
    RunMessage,
)
from mars.engines.wire.regions import Key, parts_of
from mars.engines.wire.status import EXCEPTION, FATAL, INTERRUPTED, RETURNED, VALUE
from mars.engines.worker.aftermath import Aftermath
from mars.engines.worker.outbox import Outbox
from mars.errors import MarsError
from mars.settings import (
    BACKOFF_S,
    FEW_ITEMS,
    PEAK_AFTER_S,
    PROCESSOR_ASKED_AFTER_S,
    REPORT_S,
    RESULTS_KEPT,
    THREADS_ASKED_AFTER_S,
)
from mars.task import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from mars.attempt.codec import Arguments
    from mars.attempt.followed import Surroundings
    from mars.attempt.rows import Row
    from mars.engines.wire.regions import BlockResult, Region
    from mars.task import Buffer, Stored, Value

    _Run = tuple[str, int | None, tuple[int, ...], Surroundings | None]
    """As `RunMessage`, with the surroundings."""

lseek, SEEK_CUR = os.lseek, os.SEEK_CUR
processor_ns = time.process_time_ns
dumps, loads = pickle.dumps, pickle.loads
pack_record = RECORD.pack

_SMALL: Final = frozenset({bool, int, float})
"""Types whose values need no look at what is in them."""

_NOTHING: Final[messages.Extra] = {}  # never changed
_MOST_TRIED: Final = 65_535  # that a record has room for

NEVER_NS: Final = 1 << 63
_LONG_NS: Final = int(PROCESSOR_ASKED_AFTER_S * 1e9)
_REPORT_NS: Final = int(REPORT_S * 1e9)
_ASK_NS: Final = int(THREADS_ASKED_AFTER_S * 1e9)
_PEAK_AFTER_NS: Final = int(PEAK_AFTER_S * 1e9)


class Host(Protocol):
    """The process that a performer runs calls for.

    Attributes
    ----------
    reported_ns, report_at_ns : int
        When finished calls were told last, and when those that have ended since are to be told.
    """

    number: int
    pid: int
    address: str
    reported_ns: int
    report_at_ns: int

    @property
    def engine(self) -> context.Asked:
        """What calls ask for calls of their own."""

    def send(self, message: FromWorker) -> None:
        """Send a message to the driver."""

    def report(self) -> None:
        """Tell the driver what has been finished."""

    def peak_kib(self) -> int:
        """The most memory that the process has taken since it was asked last; 0: not known."""

    def finish(self, attempt: int, record: bytes) -> None:
        """Keep a finished call for the next report: its `RECORD`, and its result."""

    def put(self, buffers: Sequence[Buffer]) -> Region:
        """Copy large parts of a value to an arena."""


class Performer:
    """Runs calls, one at a time.

    Parameters
    ----------
    host : Host
        The process.
    outbox : Outbox
        Where it says which call runs, and where the driver says which one is to be interrupted.
    log : int
        Descriptor of the file that calls print to.
    inputs : Inputs
        Large inputs, mapped.

    Attributes
    ----------
    after : Aftermath
        What calls did to this process.
    budget : ThreadBudget
        The cores of the call that runs.
    attempt : int
        What this process is at, from reading its function to its outcome.
    in_call : int
        The attempt whose function runs right now: an interrupt may reach it; 0: none.
    """

    def __init__(self, host: Host, outbox: Outbox, log: int, inputs: Inputs) -> None:
        self._host = host
        self._finish = host.finish
        self._put = host.put
        self._started = outbox.started
        self._interrupts = outbox.interrupts
        self._log = log
        self.inputs = inputs
        self.after = Aftermath(log)
        self.budget = threads.ThreadBudget(1)
        self._functions: dict[int, FunctionMessage] = {}  # as they came, until their first call
        self._loaded: dict[
            int, tuple[Callable[..., object], World]
        ] = {}  # with the program's code as it was then
        self.plain = new_world()  # for what needs nothing of the program's own code
        self.plain.settled = True
        self.code = self.plain  # that is in place
        self._names: dict[int, str] = {}
        self._regions: dict[Key, int] = {}  # large parts of functions, and whose
        self._runs: dict[int, _Run] = {}
        self._kept: dict[int, Value | tuple[Value, ...]] = {}  # results that queued calls may read
        self.attempt = 0
        self.in_call = 0
        self.shielded = 0  # how often: an interrupt of the call waits
        self.interrupted = 0  # the attempt that was interrupted last
        self._told: Surroundings | None = None  # see `mars.engine.Run.surroundings`
        # Of the last call; `_told` is of the last run that we heard of.
        self._surroundings: Surroundings | None = None
        self._ambient: Ambient
        self._forked = False  # this is a child of the worker
        self._log_end = 0  # where the next call's log begins
        self._mapped = False  # the running call has mapped inputs
        self._brief: set[int] = set()  # functions whose last call was short
        self._processor_ns = 0  # the processor time of this process as we looked last
        self._longest_ns = 0  # of the items of the running block
        self._limit: MemoryLimit | None = None  # of the running call
        self._block: tuple[int, list[int]] = 0, []  # the last one: its attempt and its marks

    def begin(self, descriptors: Sequence[int], keeps: Sequence[str] = ()) -> None:
        """From here on calls run.

        ``descriptors`` of the process are none of theirs, and it ``keeps`` these variables,
        whatever the program sets them to.
        """
        os.register_at_fork(after_in_child=self._be_a_child)
        self._ambient = Ambient(descriptors, self.budget.differs, self.budget.reset, keeps)
        self.after.begin(self._ambient)

    def log_begins(self) -> None:
        """What is printed from here on belongs to the next call."""
        self._log_end = lseek(self._log, 0, SEEK_CUR)

    def _be_a_child(self) -> None:
        self._forked = True
        self.after.tame.clear()  # so that what looks at a call when it ends looks at this one

    def learn(
        self, functions: dict[int, FunctionMessage], runs: dict[int, RunMessage], over: Over
    ) -> None:
        """Take functions and runs that calls which follow belong to, and forget some of before."""
        runs_over, functions_over = over
        for number in runs_over:
            self._runs.pop(number, None)
        for number in functions_over:
            self._functions.pop(number, None)
            self._loaded.pop(number, None)
            self._names.pop(number, None)
            self._brief.discard(number)
            self.after.forget(number)
        if functions:
            self._functions.update(functions)
            self._names.update({number: known[0] for number, known in functions.items()})
        for number, (session_id, entropy, prefix, around) in runs.items():
            if around != messages.AS_BEFORE:
                self._told = around
            self._runs[number] = (session_id, entropy, prefix, self._told)

    def unmap(self, region: Key) -> None:
        """The driver wants a region back."""
        # A function whose large parts are there is not called again, either.
        number = self._regions.pop(region, 0)
        self._functions.pop(number, None)
        self._loaded.pop(number, None)
        self.inputs.unmap(*region)

    def has_descriptors(self) -> bool:
        """Whether the descriptors of the process are still its own."""
        return self._ambient.has_descriptors()

    def end(self) -> None:
        """No call follows: let go of all that calls used."""
        for code in {self.code, *(code for _, code in self._loaded.values())}:
            code.clear()
        self._loaded.clear()
        self._kept.clear()

    # -- interrupts ---------------------------------------------------------------------------

    def shield(self) -> AbstractContextManager[None]:
        """While inside, an interrupt of the running call waits."""
        return Shield(self)

    def on_interrupt(self, *_: object) -> None:
        """SIGINT: raise in the user's code if that is what it is meant for, else ignore it."""
        target = self._interrupts()
        if self.in_call and self.in_call == target:
            self.interrupted = target
            if not self.shielded:
                raise KeyboardInterrupt

    # -- one call -----------------------------------------------------------------------------

    def perform(self, task: CallMessage) -> None:
        """Run one call and keep its outcome."""
        now, brief = time.monotonic_ns, self._brief
        received = decoded = called = now()
        host, after = self._host, self.after
        attempt, run, function, payload, inputs, n_output, _, extra, serial = task
        # What somebody printed since the last call ended is in the log of this one. System calls
        # are dear on many machines: a small call has one of ours, `lseek` at its end.
        log_start = self._log_end
        self._started(attempt, log_start)
        # To read its function and its arguments is to run code of the program, too, which may ask
        # for calls. The attempt that `get_context` and `rng` tell of is made when somebody asks.
        self.attempt = attempt
        context.enter_process_lazily(self._attempt_of, task)
        arguments: Arguments | None = None
        flags, is_brief = 0, True
        try:
            surroundings = self._runs[run][3]
            if surroundings is not self._surroundings and surroundings is not None:
                if surroundings != self._surroundings:  # most often a new run has the same
                    self._ambient.follow(*surroundings)
                self._surroundings = surroundings
            known = self._loaded.get(function)
            if known is None:
                known = self._loaded[function] = self._load(function, self._functions[function])
                del self._functions[function]
            call, code = known
            if code is not self.code:
                world.switch(code)
                self.code = code
            if extra is not None and "refused" in extra:
                times = (now(),) * 5
                self._finish(
                    attempt, record_of(task, FATAL, (log_start, log_start), times, extra["refused"])
                )
                return
            if extra is not None and "memory" in extra:
                call = functools.partial(self._call_limited, extra["memory"], call)
            values = self._values(inputs) if inputs else ()
            if values is None:
                self._finish_unstarted(task, log_start)
                return
            if extra is not None and "rows" in extra:
                call, arguments = self._rows(call, payload, extra)
            elif isinstance(payload, bytes):
                if values:
                    arguments = codec.decode_arguments(payload, (), values)
                else:
                    arguments = loads(payload)
            else:
                arguments = self._decode_stored_arguments(payload, values)
            del values
            decoded = now()
            cpus = 1 if extra is None else extra.get("cpus", 1)
            if cpus != self.budget.cpus:
                self._ambient.keep(self.budget.apply, cpus)
            is_brief = function in brief
            if not is_brief:
                self._processor_ns = processor_ns()
            called = now()
            if extra is not None and "items" in extra:
                status, flags, data, returned = self._perform_block(
                    attempt, function, call, arguments, extra, log_start
                )
            else:
                self.in_call = attempt
                value = call(*arguments[0], **arguments[1])
                self.in_call = 0
                returned = now()
                if self._forked:
                    leave_fork(None)  # the function forked, and this is the child
                status = VALUE
                result: Value | tuple[Value, ...]
                if n_output is None:
                    if value is None or type(value) in _SMALL:
                        result = data = dumps(value, 5)
                    else:
                        result = attempt_call.pack(value, self._name_of(function, extra), self._put)
                        if isinstance(result, bytes):
                            data = result
                        else:
                            data, flags = pickle.dumps(result, 5), FLAG_PACKED | FLAG_STORED
                else:
                    name = self._name_of(function, extra)
                    result = tuple(
                        attempt_call.pack(output, name, self._put)
                        for output in attempt_call.split_outputs(value, n_output)
                    )
                    data = pickle.dumps(result, 5)
                    flags = FLAG_PACKED
                    if not all(type(x) is bytes for x in result):
                        flags |= FLAG_STORED
                del value
                if extra is not None and "keep" in extra:
                    self._keep(attempt, result)
        except BaseException as error:
            self.in_call = 0
            returned = now()
            if self._forked:
                leave_fork(error)
            status, data = self._failed(attempt, function, extra, error, arguments, log_start)
            flags = 0
            del error
        took_ns, used_s, same = returned - called, -1.0, 0
        if took_ns > _LONG_NS:
            used_s = self._used(function, took_ns)
            if not inputs and type(payload) is bytes:
                same = crc32(payload) or 1
        elif not is_brief:
            brief.add(function)
        arguments = None
        if self.code.used:
            self.code.end_call()
        look = (
            returned > after.look_at_ns
            or function not in after.tame
            # To tell libraries how many threads they may have takes long, to ask them does not.
            or (took_ns > _ASK_NS and self.budget.differs())
        )
        if look:
            if os.getpid() != host.pid:
                os._exit(0)  # forked in C, of which Python does not hear
            after.look(function, self._name_of(function, extra))
        else:
            after.unseen = True
        if self._mapped:
            self._mapped = False
            self.inputs.settle()
        try:
            after.stdout.flush()
            after.stderr.flush()
            log_end = lseek(self._log, 0, SEEK_CUR)
            if (
                log_end < log_start
                or sys.stdout is not after.stdout or sys.stderr is not after.stderr
            ):  # fmt: skip
                log_end = after.restore_streams(function)
        except (OSError, ValueError, AttributeError):  # closed, or the call has deleted one
            log_end = after.restore_streams(function)
        self._log_end = log_end
        if after.errors.written:
            after.wrote_errors()
            if log_end > log_start:
                flags |= FLAG_STDERR
        stored = now()
        peak_kib = host.peak_kib() if took_ns > _PEAK_AFTER_NS else 0
        read = len(payload) if not inputs and type(payload) is bytes else size_read(payload, inputs)
        written = len(data) if not flags else size_written(data, flags)
        label, size, tried, longest_s = function, 1, 0, 0.0
        if extra is not None:
            label, size = extra.get("label", function), extra.get("count", 1)
            tried = min(extra["tried"], _MOST_TRIED) if "tried" in extra else 0
            longest_s = self._longest_ns * 1e-9 if "items" in extra else 0.0
        # As `record_of` does it: each number by itself, as this is done for each small call.
        record = pack_record(
            attempt, status, flags, log_start, log_end, received, decoded, called, returned, stored,
            peak_kib, used_s, read, written, longest_s, serial, run, label, size, tried, same,
            len(data),
        )  # fmt: skip
        self._finish(attempt, record + data)
        within = _REPORT_NS if extra is None else extra.get("report", _REPORT_NS)
        due = host.reported_ns + within
        if due < host.report_at_ns:
            host.report_at_ns = due
        if stored > host.report_at_ns and not after.spoiled:
            host.report()
            host.reported_ns, host.report_at_ns = stored, NEVER_NS

    def _used(self, function: int, took_ns: int) -> float:
        """Seconds of processor time of a call that has just returned, and that took long."""
        now_ns = processor_ns()
        used_ns, self._processor_ns = now_ns - self._processor_ns, now_ns
        if function in self._brief:
            # Nobody looked as it began, because the one before was short. What short calls since
            # the last look have used is in this number.
            self._brief.discard(function)
            used_ns = min(used_ns, took_ns)
        return used_ns * 1e-9

    def _call_limited(
        self, size: int, call: Callable[..., object], /, *args: object, **kwargs: object
    ) -> object:
        with MemoryLimit(size) as limit:
            self._limit = limit
            try:
                return call(*args, **kwargs)
            except MemoryError as error:
                error.add_note(
                    f"the call may take memory={size:,} bytes (reserved memory counts, and each "
                    f"thread's stack); spawn it with a larger memory="
                )
                raise
            finally:
                self._limit = None

    def _name_of(self, function: int, extra: messages.Extra | None) -> str:
        return extra["name"] if extra and "name" in extra else self._names[function]

    def _where(self) -> str:
        """What errors call this worker."""
        host = self._host
        return f"worker {host.number} (pid {host.pid}, {host.address})"

    def _attempt_of(self, task: CallMessage) -> context.Attempt:
        _, run, function, _, _, _, place, extra, _ = task
        session_id, entropy, prefix, _ = self._runs[run]
        host = self._host
        return context.Attempt(
            session_id, self._name_of(function, extra), host.engine, host.address, entropy,
            (*prefix, *place) if isinstance(place, tuple) else (*prefix, place),
            self._set_progress,
        )  # fmt: skip

    def _set_progress(self, progress: float) -> None:
        if os.getpid() != self._host.pid:
            return  # a process that the call forked: its socket is ours
        with self.shield():
            self._host.send((messages.PROGRESS, self.attempt, progress))

    def _failed(
        self,
        attempt: int,
        function: int,
        extra: messages.Extra | None,
        error: BaseException,
        arguments: Arguments | None,
        log_start: int,
    ) -> tuple[int, bytes]:
        extra = extra or _NOTHING
        if self.interrupted == attempt and isinstance(error, KeyboardInterrupt):
            status = INTERRUPTED
        elif isinstance(error, _retry_on(extra, error)) and not isinstance(error, MarsError):
            status = EXCEPTION
        else:
            status = FATAL
        self.after.flush()
        for note in world.notes():
            error.add_note(note)
        packed = attempt_call.pack_failure(
            error,
            name=self._name_of(function, extra),
            arguments=arguments,
            attempt=extra.get("tried", 0) + 1,
            where=self._where(),
            printed=self.after.last_printed(log_start),
        )
        return status, packed

    # -- a block of items ---------------------------------------------------------------------

    def _perform_block(
        self,
        attempt: int,
        function: int,
        call: Callable[..., object],
        arguments: Arguments,
        extra: messages.Extra,
        log_start: int,
    ) -> tuple[int, int, bytes, int]:
        """Run many items of one function; each has its own result or error, log and place."""
        items: Sequence[object] = arguments[0][0]  # type: ignore[assignment]  # as they are packed
        name, after = self._name_of(function, extra), self.after
        session = context.current()
        assert session is not None
        spread = extra["spread"]
        retries = extra.get("retries", 0)
        values: list[object] = []
        failures: dict[int, bytes] = {}
        failed_before: dict[int, int] = {}  # of items that were tried again: so many times
        logs = [log_start]
        loud: list[int] = []  # items that wrote to stderr
        self._block = attempt, logs
        log, seek, ends = self._log, os.lseek, os.SEEK_CUR
        stdout, stderr, errors = after.stdout, after.stderr, after.errors
        first = extra["items"]
        indices = extra["indices"] if first < 0 else range(first, first + len(items))
        tame = after.tame
        now = time.monotonic_ns
        self._longest_ns = 0
        few = len(items) <= FEW_ITEMS  # so each of them takes a while, or it matters little
        for index, item in zip(indices, items, strict=True):
            session.item = index
            session.generator = None
            tries = 0
            begun = now() if few else 0
            while True:
                try:
                    self.in_call = attempt
                    value = call(*item) if spread else call(item)  # type: ignore[misc]
                    self.in_call = 0
                    values.append(value)
                except BaseException as error:
                    self.in_call = 0
                    if self.interrupted == attempt or self._forked:
                        raise
                    tries += 1
                    offset = len(values)
                    if tries <= retries and isinstance(error, _retry_on(extra, error)):
                        failed_before[offset] = tries
                        time.sleep(BACKOFF_S[min(tries, len(BACKOFF_S)) - 1])
                        continue
                    after.flush()
                    values.append(None)
                    failures[offset] = attempt_call.pack_failure(
                        error,
                        name=name,
                        arguments=_shown(call, item, spread),
                        attempt=tries,
                        where=self._where(),
                        printed=after.last_printed(logs[-1]),
                    )
                break
            if few and (took := now() - begun) > self._longest_ns:
                self._longest_ns = took
            try:
                stdout.flush()
                stderr.flush()
            except ValueError:  # closed by the item
                after.open_streams()
                stdout, stderr, errors = after.stdout, after.stderr, after.errors
            if function not in tame or (few and self.budget.differs()):
                if self._forked:
                    leave_fork(None)  # the function forked, and this is the child
                after.restore(function)
            if errors.written:
                after.wrote_errors()
                loud.append(len(logs) - 1)
            logs.append(seek(log, 0, ends))
        returned = time.monotonic_ns()
        if os.getpid() != self._host.pid:
            os._exit(0)
        try:
            packed = attempt_call.pack(values, name, self._put)
        except MarsError:
            # One value does not pickle: find out which, and let the others be.
            for offset, value in enumerate(values):
                try:
                    attempt_call.pack(value, name, self._put)
                except MarsError as error:
                    values[offset] = None
                    failures[offset] = attempt_call.pack_failure(
                        error,
                        name=name,
                        arguments=_shown(call, items[offset], spread, again=True),
                        attempt=1,
                        where=self._where(),
                        printed=b"",
                    )
            packed = attempt_call.pack(values, name, self._put)
        flags = FLAG_PACKED if type(packed) is bytes else FLAG_PACKED | FLAG_STORED
        if failures:
            flags |= FLAG_FAILURES
        marks = logs if logs[-1] != logs[0] else None
        if loud and marks:
            flags |= FLAG_STDERR
        result: BlockResult = packed, failures, marks, failed_before, loud
        return VALUE, flags, pickle.dumps(result, 5), returned

    def marks(self, attempt: int) -> list[int]:
        """Where the items of a block have begun to print, and where the last one ends now.

        Called by another thread, so the block goes on meanwhile.
        """
        block, logs = self._block
        while block == attempt:
            known = logs.copy()
            end = os.fstat(self._log).st_size
            if len(logs) == len(known):  # else what was printed may be the next item's
                return [*known, end]
        return []

    # -- values -------------------------------------------------------------------------------

    def _load(self, number: int, described: FunctionMessage) -> tuple[Callable[..., object], World]:
        _, data, buffers = described
        parts: list[memoryview] = []
        if buffers is not None:
            parts = [self._parts(region)[0] for region in buffers]
            self._regions.update(((region[1], region[2]), number) for region in buffers)
        code = self.code = new_world()
        world.switch(code)
        call = pickle.loads(parts.pop(0) if data is None else data, buffers=parts)
        code.settle()
        return call, self.plain if code.is_empty() else code

    def _parts(self, stored: Stored) -> list[memoryview]:
        self._mapped = True
        if self._limit is not None:
            with self._limit.lifted():  # the mapping of a whole arena is not what the call takes
                return self.inputs.buffers(stored)
        return self.inputs.buffers(stored)

    def _decode_stored_arguments(
        self, payload: tuple[bytes | None, Sequence[Stored]], values: Sequence[object]
    ) -> Arguments:
        data, regions = payload
        parts = [self._parts(region)[0] for region in regions]
        return codec.decode_arguments(parts.pop(0) if data is None else data, parts, values)

    def decode(self, value: Value) -> object:
        """A fresh object from a packed value."""
        if isinstance(value, bytes):
            return codec.loads(value)
        parts, data = self._parts(value), value[0]
        return codec.loads(parts.pop(0) if data is None else data, buffers=parts)

    def _rows(
        self, call: Callable[..., object], payload: messages.Payload, extra: messages.Extra
    ) -> tuple[Callable[..., object], Arguments]:
        """What to call with each of the items of a block, which are loaded one by one."""
        from mars.attempt import rows

        if isinstance(payload, bytes):
            shared, items = rows.unpacked(payload, ())
        else:
            data, regions = payload
            parts = [self._parts(region)[0] for region in regions]
            shared, items = rows.unpacked(parts.pop(0) if data is None else data, parts)
        if extra["rows"] == "plain" and "retries" not in extra:  # each try has them fresh
            extra["spread"] = True
            plain: Iterable[Arguments] = map(loads, items)  # type: ignore[arg-type]  # none has buffers
            return call, (([args for args, _ in plain],), {})
        return _WithRow(call, shared, rows.parts), ((items,), {})

    def _values(self, inputs: Sequence[messages.Input]) -> list[object] | None:
        """Decode inputs; None when one that was to be made here was not."""
        values = []
        for value in inputs:
            if not isinstance(value, bytes) and len(value) == 2:
                attempt, index = value
                if attempt not in self._kept:
                    return None
                kept = self._kept[attempt]
                values.append(self.decode(kept if index is None else kept[index]))  # type: ignore[arg-type]
            else:
                values.append(self.decode(value))
        return values

    def _keep(self, attempt: int, result: Value | tuple[Value, ...]) -> None:
        """Keep a result for calls queued behind it."""
        kept = self._kept
        kept[attempt] = result
        if len(kept) > RESULTS_KEPT:
            del kept[next(iter(kept))]

    def _finish_unstarted(self, task: CallMessage, log_start: int) -> None:
        times = (time.monotonic_ns(),) * 5
        self._finish(task[0], record_of(task, RETURNED, (log_start, log_start), times, b""))


def record_of(
    task: CallMessage,
    status: int,
    log: tuple[int, int],
    times: tuple[int, int, int, int, int],
    data: bytes,
    *,
    flags: int = 0,
    measured: Measured | None = None,
) -> bytes:
    """The `RECORD` of a call that has ended, and its result ``data`` behind it."""
    facts = measured or named(task)
    return pack_record(task[0], status, flags, *log, *times, 0, *facts, len(data)) + data


def named(task: CallMessage) -> Measured:
    """What is told of a call that was not measured; see `messages.Measured`."""
    extra = task[7] or _NOTHING
    size = extra.get("count", 1)
    return (
        -1.0, 0, 0, 0.0, task[8], task[1], extra.get("label", task[2]), size,
        min(extra.get("tried", 0), _MOST_TRIED), 0,
    )  # fmt: skip


def size_read(payload: messages.Payload, inputs: Sequence[messages.Input] | None) -> int:
    """Bytes of arguments and inputs of a call. Inputs that were kept here do not count."""
    if isinstance(payload, bytes):
        size = len(payload)
    else:
        data, regions = payload
        size = len(data or b"") + sum([region[3] for region in regions])
    for value in inputs or ():
        if isinstance(value, bytes):
            size += len(value)
        elif len(value) == 5:
            size += len(value[0] or b"") + value[3]
    return size


def size_written(data: bytes, flags: int) -> int:
    """Bytes of a packed result, with its parts in an arena."""
    if not flags & FLAG_STORED:
        return len(data)
    return len(data) + sum([part[3] for part in parts_of(loads(data))])


class _WithRow:
    """Calls a function with what a row of arguments holds."""

    __slots__ = ("_call", "_parts", "_shared", "arguments")

    def __init__(
        self,
        call: Callable[..., object],
        shared: Sequence[object],
        parts: Callable[[Row], tuple[bytes, Sequence[Buffer]]],
    ) -> None:
        self._parts = parts
        self._call, self._shared = call, shared
        self.arguments: Arguments | None = None  # of the last call

    def load(self, row: Row) -> Arguments:
        if type(row) is bytes and not self._shared:
            arguments: Arguments = loads(row)
            return arguments
        return codec.decode_arguments(*self._parts(row), self._shared)

    def __call__(self, row: Row) -> object:
        self.arguments = None  # while they are loaded, there are none
        self.arguments = arguments = self.load(row)
        return self._call(*arguments[0])


def _shown(
    call: Callable[..., object], item: object, spread: bool, again: bool = False
) -> Arguments | None:
    """Arguments of an item, for its error; ``again``: others have been called since."""
    if isinstance(call, _WithRow):
        return call.load(item) if again else call.arguments  # type: ignore[arg-type]
    return (tuple(item) if spread else (item,)), {}  # type: ignore[arg-type]


def _retry_on(
    extra: messages.Extra, error: BaseException
) -> type[BaseException] | tuple[type[BaseException], ...]:
    """Exceptions that are worth another attempt; loaded when something was raised."""
    data = extra.get("retry_on")
    if data is None:
        return Exception
    try:
        found: tuple[type[BaseException], ...] = loads(data)
        return found
    except Exception as trouble:
        error.add_note(
            f"not tried again, as retry_on= could not be read here "
            f"({type(trouble).__name__}: {trouble})"
        )
        return ()


class Shield:
    """While inside, an interrupt waits: a message must not be cut in half."""

    def __init__(self, performer: Performer) -> None:
        self._performer = performer

    def __enter__(self) -> None:
        self._performer.shielded += 1

    def __exit__(self, *_: object) -> None:
        performer = self._performer
        performer.shielded -= 1
        if (
            not performer.shielded
            and performer.in_call
            and performer.interrupted == performer.in_call
            and threading.current_thread() is threading.main_thread()
        ):
            raise KeyboardInterrupt
