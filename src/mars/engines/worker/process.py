"""The worker process: take calls from the driver, run one at a time, report how they ended.

Forked by the zygote. The main thread runs the user's code and reads the data socket when it has
nothing queued; a second thread sleeps on the control socket, so that calls that wait behind a
long one can be taken back and finished ones be reported while it runs.

Finished calls are first written to memory that the driver shares (`Outbox`), then reported
together. A process that dies between the two loses nothing: the driver reads that memory.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from mars import platform
from mars.attempt import call as attempt_call
from mars.attempt import codec, context, rows, threads
from mars.attempt.ambient import LOST, RESTORED, SAME, Ambient
from mars.attempt.call import Value
from mars.attempt.capture import log_stream
from mars.attempt.memory import MemoryLimit, take_peak_kib
from mars.attempt.process_end import flush_files, has_open_files, open_descriptors, run_handlers
from mars.code import importing, modules, world
from mars.code.pickling import new_world
from mars.code.world import World
from mars.engines.local.endings import (
    EXCEPTION,
    FATAL,
    INTERRUPTED,
    RETURNED,
    START_REFUSED,
    VALUE,
)
from mars.engines.wire import messages
from mars.engines.wire.arena import Allocator, Inputs
from mars.engines.wire.frames import RECORDS_FLAG, Inbox, Outgoing
from mars.engines.wire.large_pages import LargePages
from mars.engines.wire.ledger import Ledger
from mars.engines.wire.messages import (
    FLAG_FAILURES,
    FLAG_PACKED,
    FLAG_STORED,
    RECORD,
)
from mars.engines.worker.outbox import Outbox
from mars.engines.worker.stack_answer import answer_requests
from mars.errors import MarsError, SessionClosed, StoreFull
from mars.settings import (
    AWAKE_S,
    BACKOFF_S,
    LOG_TAIL_BYTES,
    LOG_TAIL_LINES,
    LOOK_S,
    PEAK_AFTER_S,
    REPORT_S,
    ROOM_WAIT_S,
    STOP_S,
)

lseek, SEEK_CUR = os.lseek, os.SEEK_CUR
dumps, loads = pickle.dumps, pickle.loads

_SMALL: Final = frozenset({bool, int, float})
"""Types whose values need no look at what is in them."""

_PEAK_AFTER_NS: Final = int(PEAK_AFTER_S * 1e9)
_REPORT_NS: Final = int(REPORT_S * 1e9)
_NEVER_NS: Final = 1 << 63
_LOOK_NS: Final = int(LOOK_S * 1e9)
_AWAKE_NS: Final = int(AWAKE_S * 1e9)
_PAUSE_MS: Final = 1
_ASK_NS: Final = 1_000_000
_FEW_ITEMS: Final = 100
_KEPT_RESULTS: Final = 1024
_FOR_CALLS: Final = set(range(1, 32)) - {
    signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV,
    signal.SIGSYS,
}  # fmt: skip
"""Signals that only the thread which runs calls takes: all but those of faults in a thread."""

Message = tuple[Any, ...]


class Worker:
    """One worker process."""

    def __init__(
        self, number: int, facts: dict[str, Any], descriptors: list[int], pages: int | None
    ) -> None:
        data, control, log, outbox, ledger = descriptors
        self.number = number
        self.pid = os.getpid()
        self.address: str = facts["address"]
        self.addresses: Sequence[str] = facts["addresses"]
        self.n_cpu: float = facts["n_cpu"]
        self.sock = socket.socket(fileno=data)
        self.control = socket.socket(fileno=control)
        self.log = log
        self.outbox = Outbox(outbox)
        os.close(outbox)
        self.ledger = Ledger(ledger, facts["place"], facts["object_memory"])
        os.close(ledger)
        self.inbox = Inbox(self.sock)
        self.outgoing = Outgoing()  # used under `lock`, where its frames are sent
        self._readable = select.poll()
        self._readable.register(self.sock, select.POLLIN)
        self.queue: deque[Message] = deque()
        self.functions: dict[int, Any] = {}  # as they came, until their first call
        self.loaded: dict[int, tuple[Any, World]] = {}  # with the program's code as it was then
        self.plain = new_world()  # for what needs nothing of the program's own code
        self.plain.settled = True
        self.code = self.plain  # that is in place
        self.names: dict[int, str] = {}
        self.regions: dict[tuple[int, int], int] = {}  # large parts of functions, and whose
        self.runs: dict[int, tuple[Any, ...]] = {}
        self.kept: dict[int, Any] = {}  # results that queued calls may read
        self.replies: dict[int, Any] = {}
        self.allocator = Allocator(
            number, self._announce, self.ledger, facts["spill_directory"],
            None if pages is None else LargePages(pages),
        )  # fmt: skip
        self.inputs = Inputs(self._tell_unused)
        self.budget = threads.ThreadBudget(1)
        self.to_free: deque[tuple[int, int, int]] = deque()
        self.unused: deque[tuple[int, int]] = deque()
        self.lock = threading.RLock()  # outbox and sending
        self.reading = threading.Lock()  # receiving
        self.answered = threading.Condition()
        self.attempt = 0  # that this process is at, from reading its function to its outcome
        self.in_call = 0  # the attempt whose function runs right now: SIGINT may reach it
        self.shielded = 0
        self.interrupted = 0
        self.stopping = False
        self.ending = False  # exit handlers run: nothing can be asked for any more
        self.waiting = 0  # threads that wait for nested calls
        self.reported_ns = 0
        self.report_at_ns = _NEVER_NS  # when what has ended since is to be told
        self.told: tuple[Any, Any, Any, Any] | None = None  # see `mars.engine.Run.surroundings`
        self.surroundings = self.told  # of the last call; `told`: of the last run that we heard of
        self.ambient: Ambient
        self.descriptors: frozenset[int] = frozenset()  # before any call
        self.forked = False  # this is a child of the worker
        self.log_end = 0  # where the next call's log begins
        self.look_at_ns = 0  # when to look again at what calls did to this process
        self.unseen = False  # a call has ended since the last look
        self.tame: set[int] = set()  # functions that have changed nothing in this process
        self.wild: set[int] = set()  # functions after whose calls we always look
        self.warned: set[int] = set()  # functions whose log says what they left running
        self.spoiled = False  # no further call may run in this process
        self.mapped = False  # the running call has mapped inputs
        self.limit: MemoryLimit | None = None  # of the running call
        self._requests = 0

    @property
    def cpus(self) -> float:
        """Cores of the call that runs."""
        return self.budget.cpus

    # -- messages -----------------------------------------------------------------------------

    def send(self, *message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message to the driver, after what has been finished before it."""
        content = dumps(message, 5)
        with self.lock:
            self.report()
            data = self.outgoing.wrap(content)
            if descriptors:
                sent = platform.send(self.sock, data, descriptors)
                self.sock.sendall(memoryview(data)[sent:])
            else:
                self.sock.sendall(data)

    def report(self) -> None:
        """Tell the driver what has been finished."""
        with self.lock:
            if self.outbox.filled:
                data = self.outbox.take()
                self.sock.sendall(self.outgoing.wrap(data, RECORDS_FLAG))
                # Cleared after it was sent: what is told twice is taken once, by attempt.
                self.outbox.clear()

    def finish(
        self,
        attempt: int,
        status: int,
        flags: int,
        log: tuple[int, int],
        times: tuple[int, int, int, int, int],
        payload: bytes,
    ) -> None:
        """Keep a finished call for the next report."""
        # Looked at where it costs nothing to speak of, beside a call that took long.
        peak_kib = take_peak_kib() if times[3] - times[2] > _PEAK_AFTER_NS else 0
        facts = (attempt, status, flags, *log, *times, peak_kib, len(payload))
        with self.lock:
            if not self.outbox.add(facts, payload):
                self.report()
                if not self.outbox.add(facts, payload):
                    record = RECORD.pack(*facts)
                    self.sock.sendall(self.outgoing.wrap(record + payload, RECORDS_FLAG))

    def receive(self, block: bool) -> bool:
        """Read from the driver once and act on what came; False when it is gone."""
        try:
            alive = self.inbox.receive(block)
        except (BlockingIOError, InterruptedError):
            return True
        except ConnectionError:
            return False
        for _, data in self.inbox.frames():
            self._take(pickle.loads(data))
        return alive

    def _take(self, message: Message) -> None:
        kind = message[0]
        if kind == messages.TASKS:
            _, functions, runs, tasks, (runs_over, functions_over) = message
            for number in runs_over:
                self.runs.pop(number, None)
            for number in functions_over:
                self.functions.pop(number, None)
                self.loaded.pop(number, None)
                self.names.pop(number, None)
                for observed in (self.tame, self.wild, self.warned):
                    observed.discard(number)
            if functions:
                self.functions.update(functions)
                self.names.update({number: known[0] for number, known in functions.items()})
            for number, (*facts, around) in runs.items():
                if around != messages.AS_BEFORE:
                    self.told = around
                self.runs[number] = (*facts, self.told)
            self.queue.extend(tasks)
            if self.waiting:
                self._give_back(len(self.queue))
        elif kind == messages.ARENA:
            self.inputs.add_arena(message[1], self.inbox.descriptors.pop(0), message[2])
        elif kind == messages.REPLY:
            with self.answered:
                self.replies[message[1]] = message[2:]
                self.answered.notify_all()
        elif kind == messages.FREE:
            _, unmap, free = message
            for region in unmap:
                # A function whose large parts are there is not called again, either.
                number = self.regions.pop(region, 0)
                self.functions.pop(number, None)
                self.loaded.pop(number, None)
                self.inputs.unmap(*region)
            self.to_free.extend(free)
        elif kind == messages.STOP:
            self.stopping = True

    def _announce(self, number: int, descriptor: int, size: int) -> None:
        self.inputs.add_arena(number, descriptor, size)
        self.send(messages.ARENA, number, size, descriptors=(descriptor,))

    def _tell_unused(self, number: int, offset: int) -> None:
        # Called when an array dies, that is, anywhere: even inside `send`.
        self.unused.append((number, offset))

    def _send_unused(self) -> None:
        while self.unused:
            try:
                key = self.unused.popleft()
            except IndexError:  # another thread was faster
                return
            if not self.inputs.holds(key):  # else another word follows
                self.send(messages.UNMAPPED, *key)

    def put(self, buffers: Sequence[Any]) -> tuple[int, int, int, tuple[int, ...]]:
        """Copy large parts of a value to an arena."""
        with self.shield(), self.lock:  # a call may have threads, and be interrupted
            deadline = 0.0
            while True:
                self._free()
                try:
                    return self.allocator.put(buffers, "a result")
                except StoreFull:
                    # What was dropped may be on its way back to us, or to another worker.
                    deadline = deadline or time.monotonic() + ROOM_WAIT_S
                    if time.monotonic() > deadline:
                        raise
                self._await_room()

    def _await_room(self) -> None:
        self._send_unused()
        self._readable.poll(20)
        if self.reading.acquire(blocking=False):
            try:
                self.receive(block=False)
            finally:
                self.reading.release()

    # -- requests of nested calls --------------------------------------------------------------

    def ask(self, kind: str, *rest: Any) -> Any:
        """Send a request and wait for its reply, in whatever thread the user's code has."""
        if self.ending:
            raise SessionClosed("exit handlers of a worker run after its session: nothing answers")
        with self.shield():
            with self.answered:
                self._requests += 1
                request = self._requests
            self.send(kind, request, *rest)
        if kind != messages.WAIT:
            return self.wait_reply(request)
        # The running call waits for others, which may take long: what is queued behind it, or
        # still on its way here, has to run elsewhere.
        self.waiting += 1
        try:
            with self.shield():
                self._give_back(len(self.queue))
            return self.wait_reply(request)
        finally:
            self.waiting -= 1

    def wait_reply(self, request: int) -> Any:
        """The reply to a request; other messages that come meanwhile are acted on."""
        while True:
            with self.answered:
                if request in self.replies:
                    return self.replies.pop(request)
            if self.reading.acquire(blocking=False):
                try:
                    with self.answered:
                        if request in self.replies:
                            return self.replies.pop(request)
                    # An interrupt may end the wait, but not cut a message in half.
                    if not self._comes_soon():
                        self._readable.poll()
                    with self.shield():
                        if not self.receive(block=False):
                            os._exit(0)
                finally:
                    self.reading.release()
                with self.answered:
                    self.answered.notify_all()
            else:
                # Another thread reads; it may stop without having read our reply.
                with self.answered:
                    if request not in self.replies:
                        self.answered.wait(0.02)

    def shield(self) -> _Shield:
        """While inside, an interrupt of the running call waits."""
        return _Shield(self)

    def on_interrupt(self, *_: object) -> None:
        """SIGINT: raise in the user's code if that is what it is meant for, else ignore it."""
        target = self.outbox.interrupts()
        if self.in_call and self.in_call == target:
            self.interrupted = target
            if not self.shielded:
                raise KeyboardInterrupt

    # -- the control socket -------------------------------------------------------------------

    def serve_control(self) -> None:
        """Second thread: give back queued calls, report finished ones, while a call runs."""
        inbox = Inbox(self.control)
        while True:
            try:
                if not inbox.receive():
                    return
            except OSError:
                return
            for _, data in inbox.frames():
                message = pickle.loads(data)
                if message[0] == messages.TAKE_BACK:
                    self._read_and_give_back(message[1])
                elif message[0] == messages.REPORT:
                    # An answer in any case: it shows if a frame before it never came.
                    self.send(messages.REPORTED)
                elif message[0] == messages.COOL:
                    self._cool()

    def _read_and_give_back(self, count: int) -> None:
        self._read()
        self._give_back(count)

    def _read(self) -> None:
        """Act on what has come while the main thread is busy, if it is."""
        if self.reading.acquire(blocking=False):
            try:
                self.receive(block=False)
            finally:
                self.reading.release()

    def _cool(self) -> None:
        # What has been freed, or is to be let go, came on the other socket.
        self._read()
        self._send_unused()
        with self.lock:
            self._free()
            self.allocator.cool()

    def _free(self) -> None:
        """Let regions be written again that nobody reads; the lock is held."""
        while self.to_free:
            self.allocator.free(*self.to_free.popleft())

    def _give_back(self, count: int) -> None:
        """Give back the last ``count`` queued calls; the driver waits for an answer."""
        attempts: list[int] = []
        while len(attempts) < count:
            try:
                attempts.append(self.queue.pop()[0])
            except IndexError:
                break
        self.send(messages.GAVE_BACK, attempts)

    # -- calls --------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the driver says stop or is gone, or a call has spoiled the process."""
        signal.signal(signal.SIGINT, self.on_interrupt)
        os.register_at_fork(after_in_child=self._be_a_child)
        self.log_end = lseek(self.log, 0, SEEK_CUR)
        # Signals are for the call's thread: one that the call blocks must not come to ours, where
        # it would end the process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_CALLS)
        threading.Thread(target=self.serve_control, name="mars-control", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        descriptors = self.sock.fileno(), self.control.fileno(), self.log
        self.ambient = Ambient(descriptors, self.budget.differs, self.budget.reset)
        self.descriptors = open_descriptors()
        self.send(messages.READY)
        queue = self.queue
        perform = self.perform
        while True:
            while queue:
                try:
                    task = queue.popleft()
                except IndexError:  # given back just now
                    break
                perform(task)
                if self.spoiled:
                    return
            if self.stopping:
                return
            self.report()
            if self.unused:
                self._send_unused()
            with self.reading:
                # Not when the next call comes at once: a stream of small ones pauses often.
                if self.unseen and not queue and not self._comes_soon():
                    self._restore(0)
                    if self.spoiled:
                        return
                if not queue and not self.receive(block=True):
                    return
            # What comes after a pause is told together, not the first of it by itself.
            self.reported_ns, self.report_at_ns = time.monotonic_ns(), _NEVER_NS

    def _comes_soon(self) -> bool:
        """Whether a message comes before this worker can be said to pause.

        At first awake, as a core that sleeps takes longer to wake than a small call takes. Whoever
        else wants the core has it at once.
        """
        comes = self._readable.poll
        until = time.monotonic_ns() + _AWAKE_NS
        while not comes(0):
            if time.monotonic_ns() > until:
                return bool(comes(_PAUSE_MS))
            os.sched_yield()
        return True

    def _be_a_child(self) -> None:
        self.forked = True

    def perform(self, task: Message) -> None:
        """Run one call and keep its outcome."""
        now = time.monotonic_ns
        received = decoded = called = now()
        attempt, run, function, payload, inputs, n_output, _, extra = task
        # What somebody printed since the last call ended is in the log of this one. System calls
        # are dear on many machines: a small call has one of ours, `lseek` at its end.
        log_start = self.log_end
        self.outbox.started(attempt, log_start)
        # To read its function and its arguments is to run code of the program, too, which may ask
        # for calls. The attempt that `get_context` and `rng` tell of is made when somebody asks.
        self.attempt = attempt
        context.enter_process_lazily(self._attempt_of, task)
        arguments: Any = None
        flags = 0
        try:
            surroundings = self.runs[run][3]
            if surroundings is not self.surroundings and surroundings is not None:
                if surroundings != self.surroundings:  # most often a new run has the same
                    self.ambient.follow(*surroundings)
                self.surroundings = surroundings
            known = self.loaded.get(function)
            if known is None:
                known = self.loaded[function] = self._load(function, self.functions[function])
                del self.functions[function]
            call, code = known
            if code is not self.code:
                world.switch(code)
                self.code = code
            if extra is not None and "refused" in extra:
                now_ns = now()
                self.finish(
                    attempt, FATAL, 0, (log_start, log_start), (now_ns,) * 5, extra["refused"]
                )
                return
            if extra is not None and "memory" in extra:
                call = functools.partial(self._call_limited, extra["memory"], call)
            values = self._values(inputs) if inputs else ()
            if values is None:
                self._finish_unstarted(attempt, log_start)
                return
            if extra is not None and "rows" in extra:
                call, arguments = self._rows(call, payload, extra)
            elif type(payload) is bytes:
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
                self.ambient.keep(self.budget.apply, cpus)
            called = now()
            if extra is not None and "items" in extra:
                status, flags, data, returned = self._perform_block(
                    task, call, arguments[0][0], extra, self._name_of(task), log_start
                )
            else:
                self.in_call = attempt
                value = call(*arguments[0], **arguments[1])
                self.in_call = 0
                returned = now()
                if self.forked:
                    os._exit(0)  # the function forked, and this is the child
                status = VALUE
                if n_output is None:
                    result: Any
                    if value is None or type(value) in _SMALL:
                        result = data = dumps(value, 5)
                    else:
                        result = attempt_call.pack(value, self._name_of(task), self.put)
                        if type(result) is bytes:
                            data = result
                        else:
                            data, flags = pickle.dumps(result, 5), FLAG_PACKED | FLAG_STORED
                else:
                    name = self._name_of(task)
                    result = tuple(
                        attempt_call.pack(output, name, self.put)
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
            if self.forked:
                os._exit(1)
            status, data = self._failed(task, error, arguments, log_start)
            flags = 0
            del error
        arguments = None
        if self.code.used:
            self.code.end_call()
        look = (
            returned > self.look_at_ns
            or function not in self.tame
            # To tell libraries how many threads they may have takes long, to ask them does not.
            or (returned - called > _ASK_NS and self.budget.differs())
        )
        if look:
            if os.getpid() != self.pid:
                os._exit(0)  # forked in C, of which Python does not hear
            self._look_after(task)
        else:
            self.unseen = True
        if self.mapped:
            self.mapped = False
            self.inputs.settle()
        try:
            self.stdout.flush()
            self.stderr.flush()
            log_end = lseek(self.log, 0, SEEK_CUR)
            if (
                log_end < log_start
                or sys.stdout is not self.stdout or sys.stderr is not self.stderr
            ):  # fmt: skip
                log_end = self._restore_streams(function)
        except (OSError, ValueError):
            log_end = self._restore_streams(function)
        self.log_end = log_end
        stored = now()
        times = (received, decoded, called, returned, stored)
        self.finish(attempt, status, flags, (log_start, log_end), times, data)
        within = _REPORT_NS if extra is None else extra.get("report", _REPORT_NS)
        due = self.report_at_ns = min(self.report_at_ns, self.reported_ns + within)
        if stored > due and not self.spoiled:
            self.report()
            self.reported_ns, self.report_at_ns = stored, _NEVER_NS

    def _call_limited(
        self, size: int, call: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        with MemoryLimit(size) as limit:
            self.limit = limit
            try:
                return call(*args, **kwargs)
            except MemoryError as error:
                error.add_note(
                    f"the call may take memory={size:,} bytes (reserved memory counts, and each "
                    f"thread's stack); spawn it with a larger memory="
                )
                raise
            finally:
                self.limit = None

    def _look_after(self, task: Message) -> None:
        """Undo what a call did to this process, and tell what it left running."""
        function = task[2]
        alone = not self.unseen
        self._restore(function)
        threads, children = self.ambient.left_behind()
        if (threads or children) and alone and function not in self.warned:
            self.warned.add(function)
            left = " and ".join(
                f"{count} {noun if count == 1 else nouns}"
                for count, noun, nouns in (
                    (threads, "thread", "threads"),
                    (children, "child process", "child processes"),
                )
                if count
            )
            many = threads + children > 1
            self._flush()
            line = (
                f"mars: the call {self._name_of(task)} left {left} behind; "
                f"{'they end' if many else 'it ends'} with the worker\n"
            )
            with contextlib.suppress(OSError):
                os.write(self.log, line.encode("utf-8", "backslashreplace"))
        self.look_at_ns = time.monotonic_ns() + _LOOK_NS

    def _restore(self, function: int) -> None:
        """Undo what calls, the last one of them of ``function``, did to this process.

        To look costs more than a small call. So what a function does is looked at after its
        first call here, after each call if it ever did something, and else from time to time.
        """
        found = self.ambient.restore()
        if not self._has_streams():
            self.open_streams()
            found = max(found, RESTORED)
        if found == SAME:
            if function not in self.wild:
                self.tame.add(function)
        elif self.unseen:
            self.tame.clear()  # it may have been any of them
        else:
            self.wild.add(function)
            self.tame.discard(function)
        self.unseen = False
        self.spoiled = self.spoiled or found == LOST

    def _name_of(self, task: Message) -> str:
        extra = task[7]
        return extra["name"] if extra and "name" in extra else self.names[task[2]]

    def _attempt_of(self, task: Message) -> context.Attempt:
        _, run, _, _, _, _, place, _ = task
        session_id, entropy, prefix, _ = self.runs[run]
        return context.Attempt(
            session_id, self._name_of(task), self.engine, self.address, entropy,
            (*prefix, *place) if type(place) is tuple else (*prefix, place),
            self._set_progress,
        )  # fmt: skip

    def _load(self, number: int, described: tuple[str, Any, Any]) -> tuple[Any, World]:
        _, data, buffers = described
        if buffers is not None:
            parts = [self._parts(region)[0] for region in buffers]
            self.regions.update(((region[1], region[2]), number) for region in buffers)
            data = parts.pop(0) if data is None else data
        else:
            parts = []
        code = self.code = new_world()
        world.switch(code)
        call = pickle.loads(data, buffers=parts)
        code.settled = True
        return call, self.plain if code.is_empty() else code

    def text_of_module(self, digest: bytes) -> bytes | None:
        """The text of a module of the program whose file is not here, or holds another one."""
        (data,) = self.ask(messages.ASK, "text", digest)
        return None if data is None else modules.keep_packed_text(digest, data)

    def _parts(self, stored: attempt_call.Stored) -> list[memoryview]:
        self.mapped = True
        if self.limit is not None:
            with self.limit.lifted():  # the mapping of a whole arena is not what the call takes
                return self.inputs.buffers(stored)
        return self.inputs.buffers(stored)

    def _decode_stored_arguments(
        self, payload: tuple[Any, Sequence[attempt_call.Stored]], values: Sequence[object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        data, regions = payload
        parts = [self._parts(region)[0] for region in regions]
        if data is None:
            data = parts.pop(0)
        return codec.decode_arguments(data, parts, values)

    def decode(self, value: Value) -> object:
        """A fresh object from a packed value."""
        if isinstance(value, bytes):
            return codec.loads(value)
        parts: list[Any] = self._parts(value)
        data = value[0]
        if data is None:
            data = parts.pop(0)
        return codec.loads(data, buffers=parts)

    def _rows(
        self, call: Callable[..., Any], payload: Any, extra: dict[str, Any]
    ) -> tuple[Callable[..., Any], Any]:
        """What to call with each of the items of a block, which are loaded one by one."""
        if type(payload) is bytes:
            shared, items = rows.unpacked(payload, ())
        else:
            data, regions = payload
            parts = [self._parts(region)[0] for region in regions]
            shared, items = rows.unpacked(parts.pop(0) if data is None else data, parts)
        if extra["rows"] == "plain" and "retries" not in extra:  # each try has them fresh
            extra["spread"] = True
            return call, (([args for args, _ in map(loads, items)],), {})  # type: ignore[arg-type]
        return _WithRow(call, shared), ((items,), {})

    def _values(self, inputs: Sequence[Any]) -> list[object] | None:
        """Decode inputs; None when one that was to be made here was not."""
        values = []
        for value in inputs:
            if type(value) is not bytes and len(value) == 2:
                attempt, index = value
                if attempt not in self.kept:
                    return None
                value = self.kept[attempt]
                if index is not None:
                    value = value[index]
            values.append(self.decode(value))
        return values

    def _keep(self, attempt: int, result: Any) -> None:
        """Keep a result for calls queued behind it."""
        kept = self.kept
        kept[attempt] = result
        if len(kept) > _KEPT_RESULTS:
            del kept[next(iter(kept))]

    def _finish_unstarted(self, attempt: int, log_start: int) -> None:
        now = time.monotonic_ns()
        self.finish(attempt, RETURNED, 0, (log_start, log_start), (now,) * 5, b"")

    def _failed(
        self, task: Message, error: BaseException, arguments: Any, log_start: int
    ) -> tuple[int, bytes]:
        attempt = task[0]
        extra = task[7] or {}
        if self.interrupted == attempt and isinstance(error, KeyboardInterrupt):
            status = INTERRUPTED
        elif isinstance(error, _retry_on(extra, error)) and not isinstance(error, MarsError):
            status = EXCEPTION
        else:
            status = FATAL
        self._flush()
        for note in world.notes():
            error.add_note(note)
        packed = attempt_call.pack_failure(
            error,
            name=self._name_of(task),
            arguments=arguments,
            attempt=extra.get("try", 1),
            where=f"worker {self.number} (pid {self.pid}, {self.address})",
            log_tail=self.log_tail(log_start),
        )
        return status, packed

    def log_tail(self, start: int) -> str:
        """Last lines that the running call has printed."""
        end = os.lseek(self.log, 0, os.SEEK_CUR)
        begin = max(start, end - LOG_TAIL_BYTES)
        text = os.pread(self.log, end - begin, begin).decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    def _perform_block(
        self,
        task: Message,
        call: Callable[..., Any],
        items: Sequence[Any],
        extra: dict[str, Any],
        name: str,
        log_start: int,
    ) -> tuple[int, int, bytes, int]:
        """Run many items of one function; each has its own result or error, log and place."""
        attempt = task[0]
        session = context.current()
        assert session is not None
        spread: bool = extra["spread"]
        retries: int = extra.get("retries", 0)
        values: list[Any] = []
        failures: dict[int, bytes] = {}
        failed_before: dict[int, int] = {}  # of items that were tried again: so many times
        logs = [log_start]
        log, seek, ends = self.log, os.lseek, os.SEEK_CUR
        stdout, stderr = self.stdout, self.stderr
        first: int = extra["items"]
        indices = extra["indices"] if first < 0 else range(first, first + len(items))
        function, tame = task[2], self.tame
        few = len(items) <= _FEW_ITEMS  # so each of them takes a while, or it matters little
        for index, item in zip(indices, items, strict=True):
            session.item = index
            session.generator = None
            tries = 0
            while True:
                try:
                    self.in_call = attempt
                    value = call(*item) if spread else call(item)
                    self.in_call = 0
                    values.append(value)
                except BaseException as error:
                    self.in_call = 0
                    if self.interrupted == attempt:
                        raise
                    tries += 1
                    offset = len(values)
                    if tries <= retries and isinstance(error, _retry_on(extra, error)):
                        failed_before[offset] = tries
                        time.sleep(BACKOFF_S[min(tries, len(BACKOFF_S)) - 1])
                        continue
                    self._flush()
                    values.append(None)
                    failures[offset] = attempt_call.pack_failure(
                        error,
                        name=name,
                        arguments=_shown(call, item, spread),
                        attempt=tries,
                        where=f"worker {self.number} (pid {self.pid}, {self.address})",
                        log_tail=self.log_tail(logs[-1]),
                    )
                break
            try:
                stdout.flush()
                stderr.flush()
            except ValueError:  # closed by the item
                self.open_streams()
                stdout, stderr = self.stdout, self.stderr
            if function not in tame or (few and self.budget.differs()):
                self._restore(function)
            logs.append(seek(log, 0, ends))
        returned = time.monotonic_ns()
        if os.getpid() != self.pid:
            os._exit(0)
        try:
            packed: Any = attempt_call.pack(values, name, self.put)
        except MarsError:
            # One value does not pickle: find out which, and let the others be.
            for offset, value in enumerate(values):
                try:
                    attempt_call.pack(value, name, self.put)
                except MarsError as error:
                    values[offset] = None
                    failures[offset] = attempt_call.pack_failure(
                        error,
                        name=name,
                        arguments=_shown(call, items[offset], spread, again=True),
                        attempt=1,
                        where=f"worker {self.number} (pid {self.pid}, {self.address})",
                        log_tail="",
                    )
            packed = attempt_call.pack(values, name, self.put)
        flags = FLAG_PACKED if type(packed) is bytes else FLAG_PACKED | FLAG_STORED
        if failures:
            flags |= FLAG_FAILURES
        marks = logs if logs[-1] != logs[0] else None
        return VALUE, flags, pickle.dumps((packed, failures, marks, failed_before), 5), returned

    def _set_progress(self, progress: float) -> None:
        if os.getpid() != self.pid:
            return  # a process that the call forked: its socket is ours
        with self.shield():
            self.send(messages.PROGRESS, self.attempt, progress)

    def _restore_streams(self, function: int) -> int:
        """The call closed or replaced its output: the next one begins with its own again."""
        self.wild.add(function)
        self.tame.discard(function)
        self.open_streams()
        return lseek(self.log, 0, SEEK_CUR)

    def _has_streams(self) -> bool:
        """Whether descriptors 1 and 2 are the log.

        Only what shares the log's position is: a call may have put another file, or /dev/null,
        there.
        """
        try:
            end = lseek(self.log, 0, SEEK_CUR)
            return lseek(1, 0, SEEK_CUR) == end and lseek(2, 0, SEEK_CUR) == end
        except OSError:
            return False

    def _flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed by the call
            self.stdout.flush()
            self.stderr.flush()

    def open_streams(self) -> None:
        """Point stdin at nothing, and stdout and stderr, of C too, at this worker's log."""
        null = os.open(os.devnull, os.O_RDONLY)
        if null:
            os.dup2(null, 0)
            os.close(null)
        else:  # a call had closed 0, and this is it
            os.set_inheritable(0, True)
        os.dup2(self.log, 1)
        os.dup2(self.log, 2)
        self.stdout = log_stream(1)
        self.stderr = log_stream(2)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (open for good)
        sys.stdout = sys.__stdout__ = self.stdout  # type: ignore[misc, assignment]
        sys.stderr = sys.__stderr__ = self.stderr  # type: ignore[misc, assignment]

    def end(self) -> bool:
        """Run what the calls of this process left for its end; whether Python has to end it.

        To take an interpreter apart takes 10 ms, with large libraries 100, so that is done only
        where files are open whose buffers are written out then. If a call has spoiled the process,
        another one takes its place meanwhile.
        """
        if self.ambient.has_descriptors():  # else who knows where it would be written to
            with contextlib.suppress(OSError):
                self.send(messages.LEAVING)
        self.ending = True
        run_handlers(STOP_S)
        self._flush()
        if has_open_files(self.descriptors):
            flush_files()
        # What only functions refer to, or we, ends before the interpreter does.
        for code in {self.code, *(code for _, code in self.loaded.values())}:
            code.clear()
        self.loaded.clear()
        self.kept.clear()
        importing.clear_parked()
        return has_open_files(self.descriptors)

    engine: Any = None


class _WithRow:
    """Calls a function with what a row of arguments holds."""

    __slots__ = ("_call", "_shared", "arguments")

    def __init__(self, call: Callable[..., Any], shared: Sequence[object]) -> None:
        self._call, self._shared = call, shared
        self.arguments: Any = None  # of the last call

    def load(self, row: rows.Row) -> tuple[tuple[object, ...], dict[str, object]]:
        if type(row) is bytes and not self._shared:
            return loads(row)  # type: ignore[no-any-return]
        return codec.decode_arguments(*rows.parts(row), self._shared)

    def __call__(self, row: rows.Row) -> Any:
        self.arguments = None  # while they are loaded, there are none
        self.arguments = arguments = self.load(row)
        return self._call(*arguments[0])


def _shown(call: Any, item: Any, spread: bool, again: bool = False) -> Any:
    """Arguments of an item, for its error; ``again``: others have been called since."""
    if isinstance(call, _WithRow):
        return call.load(item) if again else call.arguments
    return (tuple(item) if spread else (item,)), {}


def _retry_on(extra: dict[str, Any], error: BaseException) -> Any:
    """Exceptions that are worth another attempt; loaded when something was raised."""
    data = extra.get("retry_on")
    if data is None:
        return Exception
    try:
        return loads(data)
    except Exception as trouble:
        error.add_note(
            f"not tried again, as retry_on= could not be read here "
            f"({type(trouble).__name__}: {trouble})"
        )
        return ()


class _Shield:
    """While inside, an interrupt waits: a message must not be cut in half."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        self._worker.shielded += 1

    def __exit__(self, *_: object) -> None:
        worker = self._worker
        worker.shielded -= 1
        if (
            not worker.shielded
            and worker.in_call
            and worker.interrupted == worker.in_call
            and threading.current_thread() is threading.main_thread()
        ):
            raise KeyboardInterrupt


ENDS_BY_ITSELF: Final = -1
"""In place of an exit status: the process is to end as Python ends any other."""


def main(number: int, facts: dict[str, Any], descriptors: list[int], pages: int | None) -> int:
    """Entry point after the fork; gives the exit status of the process, or `ENDS_BY_ITSELF`."""
    sys.path[:] = facts["path"]
    with contextlib.suppress(OSError):  # it is gone meanwhile
        os.chdir(facts["cwd"])
    platform.offer_to_oom_killer()
    try:
        worker = Worker(number, facts, descriptors, pages)
        worker.open_streams()
        os.write(1, b"\n")  # position 0 is what /dev/null has, too: see `_has_streams`
    except OSError as error:
        with contextlib.suppress(OSError):  # it may be the log that is refused
            os.write(descriptors[2], f"{type(error).__name__}: {error}\n".encode())
        return START_REFUSED + (error.errno or 0)
    import faulthandler

    faulthandler.enable(file=2, all_threads=False)
    importing.install(worker.text_of_module)
    world.switch(worker.plain)
    answer_requests()
    from mars.engines.worker.requests import NestedEngine

    worker.engine = NestedEngine(worker)
    gc.freeze()  # what was loaded since the fork, too
    worker.run()
    if (worker.stopping or worker.spoiled) and worker.end():
        return ENDS_BY_ITSELF
    return 0
