"""Runs calls in a thread beside others of the same process: one at a time in each thread.

`ThreadPerformer` does what `Performer` does in a process of its own, as far as threads allow. What
calls print through ``sys.stdout`` and ``sys.stderr`` is kept apart by thread. What C code and child
processes print is not: each call that ran meanwhile gets all of it. An interrupt is an exception
that Python raises in the thread, so it waits until compiled code returns. What calls change in the
process, such as its folder, stays as it is. Used by `mars.engines.worker.thread_host`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TextIO
from weakref import WeakKeyDictionary, WeakValueDictionary
from zlib import crc32

from mars.attempt import call as attempt_call
from mars.attempt import codec, context
from mars.attempt.capture import ByThread, log_stream
from mars.attempt.process_end import leave_fork
from mars.code import world
from mars.code.arriving import new_world
from mars.code.world import World
from mars.engines.wire.arena import Inputs
from mars.engines.wire.messages import (
    FLAG_PACKED,
    FLAG_STDERR,
    FLAG_STORED,
    CallMessage,
    FunctionMessage,
)
from mars.engines.wire.status import FATAL, VALUE
from mars.engines.worker.aftermath import Aftermath
from mars.engines.worker.gate import Gate
from mars.engines.worker.outbox import Outbox
from mars.engines.worker.perform import (
    NEVER_NS,
    Host,
    Performer,
    named,
    record_of,
    size_read,
    size_written,
)
from mars.engines.worker.stack_answer import CallNames
from mars.settings import OTHERS_PRINTED_BYTES, PROCESSOR_ASKED_AFTER_S, REPORT_S

if TYPE_CHECKING:
    from mars.attempt.codec import Arguments
    from mars.attempt.followed import Surroundings
    from mars.engines.wire import messages

    Outcome = tuple[int, bytes]
    """What `Host.finish` takes: an attempt, and its record."""

_LONG_NS: Final = int(PROCESSOR_ASKED_AFTER_S * 1e9)
_REPORT_NS: Final = int(REPORT_S * 1e9)


class ThreadHost(Host, Protocol):
    """The worker that a `ThreadPerformer` runs calls for."""

    calls: ThreadPerformer

    def text_of_module(self, digest: bytes) -> bytes | None:
        """The text of a module of the program whose file is not here, or holds another one."""


class Commons:
    """What the threads of one process share.

    Parameters
    ----------
    printed : int
        Descriptor of the file that C code and child processes print to.
    follow : callable
        Has the process follow the surroundings of a run; see `mars.attempt.ambient`.
    """

    def __init__(self, printed: int, follow: Callable[..., object]) -> None:
        self.gate = Gate()
        self.names = CallNames()
        self._printed = printed
        self._follow = follow
        self._surroundings: Surroundings | None = None
        self._workers: dict[context.Attempt, ThreadHost] = {}  # of calls that run
        # Functions that are loaded: each once for all threads, while one of them knows it.
        self._loading = threading.RLock()
        self._worlds: WeakValueDictionary[int, World] = WeakValueDictionary()
        self._functions: WeakKeyDictionary[World, Callable[..., object]] = WeakKeyDictionary()
        others = log_stream(1), log_stream(2)
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 (open for good)
        sys.stdout = sys.__stdout__ = ByThread(lambda: self._stream(0, others))  # type: ignore[misc, assignment]
        sys.stderr = sys.__stderr__ = ByThread(lambda: self._stream(1, others))  # type: ignore[misc, assignment]

    def _stream(self, which: int, others: tuple[TextIO, TextIO]) -> TextIO:
        worker = self.worker()
        return others[which] if worker is None else worker.calls.after.streams()[which]

    def worker(self) -> ThreadHost | None:
        """Whose call this thread belongs to."""
        attempt = context.current()
        return None if attempt is None else self._workers.get(attempt)

    def begin(self, attempt: context.Attempt, worker: ThreadHost) -> None:
        """From here on a call runs in this thread."""
        self._workers[attempt] = worker
        context.enter_thread(attempt)

    def end(self, attempt: context.Attempt) -> None:
        """It does no more."""
        context.enter_thread(None)
        self._workers.pop(attempt, None)

    def text_of_module(self, digest: bytes) -> bytes | None:
        """The text of a module of the program whose file is not here, or holds another one."""
        worker = self.worker()
        return None if worker is None else worker.text_of_module(digest)

    def printed_bytes(self) -> int:
        """How much C code and child processes have printed so far."""
        return os.fstat(self._printed).st_size

    def printed_since(self, start: int) -> bytes:
        """The end of what they have printed since there was so much."""
        end = self.printed_bytes()
        begin = max(start, end - OTHERS_PRINTED_BYTES)
        return os.pread(self._printed, end - begin, begin)

    def follow(self, surroundings: Surroundings | None) -> None:
        """Have what the program had when a run began; what runs already has it, too."""
        with self._loading:
            if surroundings is not None and surroundings != self._surroundings:
                self._follow(*surroundings)
                self._surroundings = surroundings

    def function(
        self, number: int, load: Callable[[], Callable[..., object]]
    ) -> tuple[Callable[..., object], World]:
        """A function and its world; ``load`` reads it, in the world of the thread that calls it."""
        with self._loading:
            code = self._worlds.get(number)
            if code is None:
                code = new_world()
                world.enter_thread(code)
                try:
                    call = load()
                finally:
                    world.enter_thread(None)
                if code.needs_the_process():
                    # What it puts in place has to be there while it is read.
                    code = new_world()
                    self.gate.enter(code, alone=True)
                    try:
                        call = load()
                    finally:
                        world.enter_thread(None)
                        self.gate.leave(code)
                code.settle()
                self._worlds[number], self._functions[code] = code, call
            return self._functions[code], code


class ThreadOutput(Aftermath):
    """The log of one thread; what its calls do to the process is not looked at."""

    def __init__(self, log: int) -> None:
        super().__init__(log)
        self.open_streams()

    def open_streams(self) -> None:
        """Write to the log of this thread."""
        self.stdout, self.stderr = log_stream(self._log), log_stream(self._log)
        self.errors = self.stderr.buffer.raw  # type: ignore[attr-defined]

    def streams(self) -> tuple[TextIO, TextIO]:
        """What stands for ``sys.stdout`` and ``sys.stderr``."""
        return self.stdout, self.stderr

    def look(self, function: int, name: str) -> None:
        """Other calls run meanwhile, so nobody can tell what this one did."""

    def restore(self, function: int) -> None:
        """What other calls have set would be put back, too."""


class _Shield:
    """While inside, an interrupt waits; see `mars.engines.worker.perform.Shield`."""

    def __init__(self, performer: ThreadPerformer) -> None:
        self._performer = performer

    def __enter__(self) -> None:
        with self._performer.guard:
            self._performer.shielded += 1

    def __exit__(self, *_: object) -> None:
        performer = self._performer
        with performer.guard:
            performer.shielded -= 1
            late = not performer.shielded and 0 < performer.in_call == performer.interrupted
        if late and threading.get_ident() == performer.thread:
            raise KeyboardInterrupt


class _Running(NamedTuple):
    """A call whose function runs."""

    task: CallMessage
    code: World
    arguments: Arguments | None
    log_start: int
    times: tuple[int, int, int]  # received, decoded, called


class ThreadPerformer(Performer):
    """Runs calls in one thread, one at a time.

    Parameters
    ----------
    host, outbox, log, inputs
        As of `Performer`, of this thread alone.
    commons : Commons
        What it shares with others.

    Attributes
    ----------
    guard : lock
        Held to change what says whether the call can be interrupted.
    thread : int
        Where it runs calls.
    slot : int
        Where the name of the running call is told; see `mars.engines.worker.stack_answer`.
    abandoned : bool
        The thread was given up, because its call did not end: what comes of it is dropped.
    """

    after: ThreadOutput

    def __init__(
        self, host: ThreadHost, outbox: Outbox, log: int, inputs: Inputs, commons: Commons
    ) -> None:
        super().__init__(host, outbox, log, inputs)
        self._worker = host
        self._commons = commons
        self.after = ThreadOutput(log)
        self.guard = threading.Lock()
        self.thread = 0
        self.slot = -1
        self.abandoned = False
        self._inside: World | None = None  # that this thread has entered
        self._running: _Running | None = None

    def shield(self) -> _Shield:
        """While inside, an interrupt of the running call waits."""
        return _Shield(self)

    def interrupt(self) -> None:
        """Have Python raise in the call's thread if that is what the driver wants; any thread."""
        target = self._interrupts()
        with self.guard:
            if self.in_call and self.in_call == target:
                self.interrupted = target
                if not self.shielded:
                    _raise(self.thread, KeyboardInterrupt)

    def abandon(self) -> Outcome | None:
        """Leave the call to its end, which does not come when it has to; in another thread.

        Gives the outcome of the call, as for `Host.finish`: an interrupt where the thread is now.
        None: no call runs.
        """
        with self.guard:
            self.abandoned = True
            running = self._running if self.in_call else None
        outcome = None if running is None else self._where_it_hangs(running)
        self.let_go(over=True)
        return outcome

    def _where_it_hangs(self, running: _Running) -> Outcome:
        error = KeyboardInterrupt()
        error.__traceback__ = _stack_of(self.thread)
        attempt, _, function, _, _, _, _, extra, _ = running.task
        self.interrupted = attempt
        world.enter_thread(running.code)
        try:
            status, data = self._failed(
                attempt, function, extra, error, running.arguments, running.log_start
            )
        finally:
            world.enter_thread(None)
        now = time.monotonic_ns()
        log = running.log_start, os.lseek(self._log, 0, os.SEEK_CUR)
        times = (*running.times, now, now)
        return attempt, record_of(running.task, status, log, times, data)

    def _begin_call(self, attempt: int) -> None:
        with self.guard:
            if self.abandoned:
                raise SystemExit  # while it waited for its turn
            self.in_call = attempt

    def _end_call(self) -> None:
        """From here on no interrupt can come, not even one that is on its way."""
        while True:
            try:
                with self.guard:
                    self.in_call = 0
                    if self.interrupted == self.attempt:
                        _raise(self.thread, None)
                return
            except KeyboardInterrupt:  # just now
                continue

    def let_go(self, *, over: bool) -> World | None:
        """Let others into their worlds while the call waits, or as it is over; what it was in."""
        with self.guard:
            code, self._inside = self._inside, None
        if code is not None:
            self._commons.gate.leave(code, over=over)
        return code

    def come_back(self, code: World | None) -> None:
        """Go on after `let_go`."""
        if code is None:
            return
        self._commons.gate.enter(code, again=True)
        with self.guard:
            abandoned = self.abandoned
            if not abandoned:
                self._inside = code
        if abandoned:
            self._commons.gate.leave(code)

    # -- one call -----------------------------------------------------------------------------

    def perform(self, task: CallMessage) -> None:
        """Run one call and keep its outcome."""
        now = time.monotonic_ns
        received = decoded = called = now()
        host, commons = self._worker, self._commons
        attempt, run, function, payload, inputs, n_output, _, extra, _ = task
        log_start, others = self._log_end, commons.printed_bytes()
        self._started(attempt, log_start)
        self.attempt, self.shielded = attempt, 0
        here = self._attempt_of(task)
        commons.begin(here, host)
        arguments: Arguments | None = None
        status, flags, data, used_ns = FATAL, 0, b"", 0
        try:
            commons.follow(self._runs[run][3])
            call, code = self._function(function)
            commons.gate.enter(code)
            self._inside = code
            if extra is not None and "refused" in extra:
                status, data = FATAL, extra["refused"]
                returned = now()
            else:
                values = self._values(inputs) if inputs else ()
                if values is None:
                    self._finish_unstarted(task, log_start)
                    return
                if extra is not None and "rows" in extra:
                    call, arguments = self._rows(call, payload, extra)
                elif isinstance(payload, bytes):
                    arguments = codec.decode_arguments(payload, (), values)
                else:
                    arguments = self._decode_stored_arguments(payload, values)
                commons.names.begins(self.slot, self._title(function, extra, arguments))
                decoded = called = now()
                self._running = _Running(
                    task, code, arguments, log_start, (received, decoded, called)
                )
                began_ns = used_ns = time.thread_time_ns()
                value: object = None
                self._begin_call(attempt)
                try:
                    if extra is not None and "items" in extra:
                        status, flags, data, returned = self._perform_block(
                            attempt, function, call, arguments, extra, log_start
                        )
                    else:
                        value = call(*arguments[0], **arguments[1])
                        returned = now()
                finally:
                    used_ns = time.thread_time_ns() - began_ns
                    self._end_call()
                if os.getpid() != host.pid:
                    leave_fork(None)  # the function forked, and this is the child
                if extra is None or "items" not in extra:
                    status, flags, data = self._packed(value, function, n_output, extra)
                    del value
        except BaseException as error:
            self._end_call()
            returned = now()
            if os.getpid() != host.pid:
                leave_fork(error)
            status, data = self._failed(attempt, function, extra, error, arguments, log_start)
            flags = 0
            del error
        finally:
            arguments = self._running = None
            self.let_go(over=True)
            world.enter_thread(None)
            commons.end(here)
            commons.names.begins(self.slot, "")
        if self._mapped:
            self._mapped = False
            self.inputs.settle()
        log_end = self._log_end = self._end_log(others)
        if self.after.errors.written:
            self.after.wrote_errors()
            flags |= FLAG_STDERR
        stored = now()
        times = (received, decoded, called, returned, stored)
        used_s, same = -1.0, 0
        if returned - called > _LONG_NS:
            used_s = used_ns * 1e-9
            if not inputs and type(payload) is bytes:
                same = crc32(payload) or 1
        longest_s = self._longest_ns * 1e-9 if extra is not None and "items" in extra else 0.0
        measured = (
            used_s, size_read(payload, inputs), size_written(data, flags), longest_s,
            *named(task)[4:9], same,
        )  # fmt: skip
        log = log_start, log_end
        self._finish(
            attempt, record_of(task, status, log, times, data, flags=flags, measured=measured)
        )
        within = _REPORT_NS if extra is None else extra.get("report", _REPORT_NS)
        due = host.report_at_ns = min(host.report_at_ns, host.reported_ns + within)
        if stored > due:
            host.report()
            host.reported_ns, host.report_at_ns = stored, NEVER_NS

    def _title(
        self, function: int, extra: messages.Extra | None, arguments: codec.Arguments
    ) -> str:
        """What ``mars stack`` calls a call."""
        name = self._name_of(function, extra)
        if extra is None or "items" not in extra:
            return name
        count = len(arguments[0][0])  # type: ignore[arg-type]  # the items
        first = extra["items"]
        indices = extra["indices"] if first < 0 else range(first, first + count)
        if count == 1:
            return f"item {indices[0]} of {name}"
        return f"items {indices[0]} to {indices[-1]} of {name}"

    def _function(self, number: int) -> tuple[Callable[..., object], World]:
        known = self._loaded.get(number)
        if known is None:
            described = self._functions[number]
            known = self._commons.function(number, lambda: self._read(number, described))
            self._loaded[number] = known
            del self._functions[number]
        return known

    def _read(self, number: int, described: FunctionMessage) -> Callable[..., object]:
        _, data, buffers = described
        parts: list[memoryview] = []
        if buffers is not None:
            parts = [self._parts(region)[0] for region in buffers]
            self._regions.update(((region[1], region[2]), number) for region in buffers)
        call: Callable[..., object] = pickle.loads(
            parts.pop(0) if data is None else data, buffers=parts
        )
        return call

    def _packed(
        self, value: object, function: int, n_output: int | None, extra: messages.Extra | None
    ) -> tuple[int, int, bytes]:
        """Status, flags and payload of a call that has returned."""
        name = self._name_of(function, extra)
        outputs = [
            attempt_call.pack(output, name, self._put)
            for output in attempt_call.split_outputs(value, n_output)
        ]
        result = outputs[0] if n_output is None else tuple(outputs)
        if extra is not None and "keep" in extra:
            self._keep(self.attempt, result)
        if isinstance(result, bytes):
            return VALUE, 0, result
        small = all(type(output) is bytes for output in outputs)
        return VALUE, FLAG_PACKED if small else FLAG_PACKED | FLAG_STORED, pickle.dumps(result, 5)

    def _end_log(self, others: int) -> int:
        """Where the log of the call ends; it gets what C code has printed since ``others``."""
        with contextlib.suppress(OSError, ValueError):
            self.after.flush()
            printed = self._commons.printed_since(others)
            if printed:
                os.write(self._log, _ABOUT_OTHERS + printed)
        return os.lseek(self._log, 0, os.SEEK_CUR)


_ABOUT_OTHERS: Final = (
    b"mars: C code and child processes printed this while the call ran, perhaps for other calls "
    b"with threads=:\n"
)


def _raise(thread: int, error: type[BaseException] | None) -> None:
    """Have Python raise something in a thread when that next runs Python; None: nothing, after all.

    `ctypes` has the one way to do that.
    """
    raised = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


def _stack_of(thread: int) -> TracebackType | None:
    """Where a thread is, as the traceback of an error that was raised there."""
    frame, trace = sys._current_frames().get(thread), None
    while frame is not None:
        trace = TracebackType(trace, frame, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return trace
