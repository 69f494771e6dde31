"""The worker process: take calls from the driver, run one at a time, report how they ended.

The zygote forks it. The main thread runs calls, by way of `perform`, and reads the data socket when
nothing is queued. A second thread sleeps on the control socket, so that calls that wait behind a
long one can be taken back, and finished ones be reported, while that one runs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from mars import platform
from mars.attempt.memory import take_peak_kib
from mars.attempt.process_end import flush_files, has_open_files, open_descriptors, run_handlers
from mars.code import importing, modules, world
from mars.engines.wire import messages
from mars.engines.wire.arena import Allocator, Inputs
from mars.engines.wire.frames import RECORDS_FLAG, Inbox, Outgoing
from mars.engines.wire.large_pages import LargePages
from mars.engines.wire.ledger import Ledger
from mars.engines.wire.messages import (
    CallMessage,
    FromWorker,
    Order,
    ToWorker,
)
from mars.engines.wire.status import START_REFUSED
from mars.engines.worker.outbox import Outbox
from mars.engines.worker.perform import NEVER_NS, Performer
from mars.engines.worker.stack_answer import answer_requests
from mars.errors import SessionClosed, StoreFull
from mars.settings import AWAKE_PAUSE_MS, AWAKE_S, ROOM_WAIT_S, STOP_S

if TYPE_CHECKING:
    from mars.engines.wire.regions import Region
    from mars.engines.worker.requests import NestedEngine
    from mars.gpus import Meter
    from mars.task import Buffer

_AWAKE_NS: Final = int(AWAKE_S * 1e9)
_FOR_CALLS: Final = set(range(1, 32)) - {
    signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV,
    signal.SIGSYS,
}  # fmt: skip
"""Signals that only the thread which runs calls takes: all but those of faults in a thread."""


class Worker:
    """One worker process."""

    def __init__(
        self, number: int, facts: messages.Facts, descriptors: list[int], pages: int | None
    ) -> None:
        data, control, log, outbox, ledger = descriptors
        self.number = number
        self.pid = os.getpid()
        self.address: str = facts["address"]
        self.addresses: Sequence[str] = facts["addresses"]
        self.n_cpu: float = facts["n_cpu"]
        self.sock = platform.Socket(fileno=data)
        self.control = platform.Socket(fileno=control)
        self.log = log
        self.outbox = Outbox(outbox)
        os.close(outbox)
        self.ledger = Ledger(ledger, facts["place"], facts["object_memory"])
        os.close(ledger)
        self.inbox = Inbox(self.sock)
        self.outgoing = Outgoing()  # used under `lock`, where its frames are sent
        self._readable = select.poll()
        self._readable.register(self.sock, select.POLLIN)
        self.queue: deque[CallMessage] = deque()
        self.replies: dict[int, tuple[object, ...]] = {}
        self.allocator = Allocator(
            number, self._announce, self.ledger, facts["spill_directory"],
            None if pages is None else LargePages(pages),
        )  # fmt: skip
        self.inputs = Inputs(self._tell_unused)
        self.calls = self.performer()
        self.decode = self.calls.decode  # a fresh object from a packed value
        self.shield = self.calls.shield  # while inside, an interrupt of the running call waits
        self.to_free: deque[tuple[int, int, int]] = deque()
        self.unused: deque[tuple[int, int]] = deque()
        self.lock = threading.RLock()  # outbox and sending
        self.reading = threading.Lock()  # receiving
        self.idle = True  # the thread that runs calls is about to read, and nobody else may
        self.answered = threading.Condition()
        self.stopping = False
        self.ending = False  # exit handlers run: nothing can be asked for any more
        self.waiting = 0  # threads that wait for nested calls
        self.reported_ns = 0
        self.report_at_ns = NEVER_NS
        self.descriptors: frozenset[int] = frozenset()  # before any call
        self._engines: list[NestedEngine] = []  # the first one counts
        self._requests = 0
        self._gpus: Sequence[str] = facts.get("gpus") or ()  # that this process sees
        self._meter: Meter | None = None

    def performer(self) -> Performer:
        """What runs the calls."""
        return Performer(self, self.outbox, self.log, self.inputs)

    @property
    def engine(self) -> NestedEngine:
        """What calls ask for calls of their own. It is made when the first one asks."""
        if not self._engines:
            from mars.engines.worker.requests import NestedEngine

            self._engines.append(NestedEngine(self))  # threads of a call may be here at once
        return self._engines[0]

    @property
    def cpus(self) -> float:
        """Cores of the call that runs."""
        return self.calls.budget.cpus

    def _look_at_gpus(self) -> Sequence[str]:
        """Measure what calls do with the GPUs of this process; the variables that are its own."""
        from mars import gpus

        # Without NVML, or with a driver that does not tell, calls run all the same.
        with contextlib.suppress(Exception):
            self._meter = gpus.Meter(self._gpus, lambda: self.calls.attempt)
        return gpus.VISIBLE, gpus.ORDER

    # -- messages -----------------------------------------------------------------------------

    def send(self, message: FromWorker, descriptors: Sequence[int] = ()) -> None:
        """Send a message to the driver, after what has been finished before it."""
        content = pickle.dumps(message, 5)
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

    def finish(self, attempt: int, record: bytes) -> None:
        """Keep a finished call for the next report: its `RECORD`, and its result."""
        if self._meter is not None:
            self.send((messages.ON_GPUS, attempt, *self._meter.take(attempt)))
        with self.lock:
            if not self.outbox.add(record):
                self.report()
                if not self.outbox.add(record):
                    self.sock.sendall(self.outgoing.wrap(record, RECORDS_FLAG))

    def peak_kib(self) -> int:
        """The most memory that this process has taken since it was asked last; 0: not known."""
        return take_peak_kib()

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

    def _take(self, message: ToWorker) -> None:
        if message[0] == messages.TASKS:
            _, functions, runs, tasks, over = message
            self.calls.learn(functions, runs, over)
            self.queue.extend(tasks)
            if self.waiting and self.calls.in_call:
                self._give_back(len(self.queue))
        elif message[0] == messages.ARENA:
            self.inputs.add_arena(message[1], self.inbox.descriptors.pop(0), message[2])
        elif message[0] == messages.REPLY:
            with self.answered:
                self.replies[message[1]] = message[2:]
                self.answered.notify_all()
        elif message[0] == messages.FREE:
            _, unmap, free = message
            for region in unmap:
                self.calls.unmap(region)
            self.to_free.extend(free)
        elif message[0] == messages.STOP:
            self.stopping = True

    def _announce(self, number: int, descriptor: int, size: int) -> None:
        self.inputs.add_arena(number, descriptor, size)
        self.send((messages.ARENA, number, size), (descriptor,))

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
                self.send((messages.UNMAPPED, *key))

    def put(self, buffers: Sequence[Buffer]) -> Region:
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

    def ask(self, kind: str, *rest: object) -> Any:  # what `requests.Channel` says
        """Send a request and wait for its reply, in whatever thread the user's code has."""
        if self.ending:
            raise SessionClosed("exit handlers of a worker run after its session: nothing answers")
        with self.shield():
            with self.answered:
                self._requests += 1
                request = self._requests
            self.send(cast(messages.Request, (kind, request, *rest)))  # the same
        if kind != messages.WAIT:
            return self.wait_reply(request)
        # The running call waits for others, which may take long: what is queued behind it, or
        # still on its way here, has to run elsewhere.
        self.waiting += 1
        try:
            with self.shield():
                if self.calls.in_call:  # else a thread that a call has left behind waits
                    self._give_back(len(self.queue))
            return self.wait_reply(request)
        finally:
            self.waiting -= 1

    def give_up(self) -> NoReturn:
        """The driver is gone, so that no reply comes to the call that waits for one."""
        os._exit(0)

    def wait_reply(self, request: int) -> tuple[object, ...]:
        """The reply to a request; other messages that come meanwhile are acted on."""
        while True:
            with self.answered:
                if request in self.replies:
                    return self.replies.pop(request)
            # A thread that a call left behind reads only while another call runs: what comes to an
            # idle worker is for the thread that runs calls, which would wait for this one.
            if not self.idle and self.reading.acquire(blocking=False):
                try:
                    with self.answered:
                        if request in self.replies:
                            return self.replies.pop(request)
                    # An interrupt may end the wait, but not cut a message in half.
                    if not self._comes_soon():
                        self._readable.poll()
                    with self.shield():
                        if not self.receive(block=False):
                            self.give_up()
                finally:
                    self.reading.release()
                with self.answered:
                    self.answered.notify_all()
            else:
                # Another thread reads; it may stop without having read our reply.
                with self.answered:
                    if request not in self.replies:
                        self.answered.wait(0.02)

    # -- the control socket -------------------------------------------------------------------

    def serve_control(self) -> None:
        """Second thread: give back queued calls, report finished ones, while a call runs."""
        inbox = Inbox(self.control)
        while self.take_orders(inbox):
            continue

    def take_orders(self, inbox: Inbox, block: bool = True) -> bool:
        """Read what comes on the control socket, and do it; False: nothing will come."""
        try:
            if not inbox.receive(block):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
        for _, data in inbox.frames():
            message: Order = pickle.loads(data)
            if message[0] == messages.TAKE_BACK:
                self._read_and_give_back(message[1])
            elif message[0] == messages.REPORT:
                # An answer in any case: it shows if a frame before it never came.
                self.send((messages.REPORTED,))
            elif message[0] == messages.MARKS:
                self.send((messages.MARKS, message[1], self.calls.marks(message[1])))
            elif message[0] == messages.COOL:
                self._cool()
        return True

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
        if not self.calls.in_call:  # else it would have to take the same pages again
            platform.trim_heap()

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
        self.send((messages.GAVE_BACK, attempts))

    # -- calls --------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the driver says stop or is gone, or a call has spoiled the process."""
        calls = self.calls
        signal.signal(signal.SIGINT, calls.on_interrupt)
        calls.log_begins()
        # Signals are for the call's thread: one that the call blocks must not come to ours, where
        # it would end the process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_CALLS)
        threading.Thread(target=self.serve_control, name="mars-control", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        own = self.sock.fileno(), self.control.fileno(), self.log
        calls.begin(own, keeps=self._look_at_gpus() if self._gpus else ())
        self.descriptors = open_descriptors()
        self.serve()

    def serve(self) -> None:
        """Say that calls can come, and run them, to the end of the process."""
        calls, after = self.calls, self.calls.after
        self.send((messages.READY,))
        queue = self.queue
        perform = calls.perform
        while True:
            self.idle = False
            while queue:
                try:
                    task = queue.popleft()
                except IndexError:  # given back just now
                    break
                perform(task)
                if after.spoiled:
                    return
            self.idle = True
            if queue:
                continue  # another thread had read on, and might wait for the next message by now
            if self.stopping:
                return
            self.report()
            if self.unused:
                self._send_unused()
            with self.reading:
                # Not when the next call comes at once: a stream of small ones pauses often.
                if after.unseen and not queue and not self._comes_soon():
                    after.restore(0)
                    if after.spoiled:
                        return
                if not queue and not self.receive(block=True):
                    return
            # What comes after a pause is told together, not the first of it by itself.
            self.reported_ns, self.report_at_ns = time.monotonic_ns(), NEVER_NS

    def _comes_soon(self) -> bool:
        """Whether a message comes before this worker can be said to pause.

        At first awake, as a core that sleeps takes longer to wake than a small call takes. Whoever
        else wants the core has it at once.
        """
        comes = self._readable.poll
        until = time.monotonic_ns() + _AWAKE_NS
        while not comes(0):
            if time.monotonic_ns() > until:
                return bool(comes(AWAKE_PAUSE_MS))
            os.sched_yield()
        return True

    def text_of_module(self, digest: bytes) -> bytes | None:
        """The text of a module of the program whose file is not here, or holds another one."""
        (data,) = self.ask(messages.ASK, "text", digest)
        return None if data is None else modules.keep_packed_text(digest, data)

    def end(self) -> bool:
        """Run what the calls of this process left for its end; whether Python has to end it.

        To take an interpreter apart takes 10 ms, with large libraries 100, so that is done only
        where files are open whose buffers are written out then. If a call has spoiled the process,
        another one takes its place meanwhile.
        """
        if self.calls.has_descriptors():  # else who knows where it would be written to
            with contextlib.suppress(OSError):
                self.send((messages.LEAVING,))
        self.ending = True
        run_handlers(STOP_S)
        self.calls.after.flush()
        if has_open_files(self.descriptors):
            flush_files()
        # What only functions refer to, or we, ends before the interpreter does.
        self.calls.end()
        importing.clear_parked()
        return has_open_files(self.descriptors)


ENDS_BY_ITSELF: Final = -1
"""In place of an exit status: the process is to end as Python ends any other."""


def main(number: int, facts: messages.Facts, descriptors: list[int], pages: int | None) -> int:
    """Entry point after the fork; gives the exit status of the process, or `ENDS_BY_ITSELF`."""
    sys.path[:] = facts["path"]
    with contextlib.suppress(OSError):  # it is gone meanwhile
        os.chdir(facts["cwd"])
    platform.offer_to_oom_killer()
    if facts.get("gpus"):
        from mars import gpus  # late, as in `_look_at_gpus`: hardly any worker has one

        os.environ.update(gpus.variables(facts["gpus"]))
    try:
        worker = Worker(number, facts, descriptors, pages)
        worker.calls.after.open_streams()
        os.write(1, b"\n")  # position 0 is what /dev/null has, too: see `Aftermath`
    except OSError as error:
        with contextlib.suppress(OSError):  # it may be the log that is refused
            os.write(descriptors[2], f"{type(error).__name__}: {error}\n".encode())
        return START_REFUSED + (error.errno or 0)
    import faulthandler

    faulthandler.enable(file=2, all_threads=False)
    importing.install(worker.text_of_module)
    world.switch(worker.calls.plain)
    answer_requests()
    gc.freeze()  # what was loaded since the fork, too
    worker.run()
    if (worker.stopping or worker.calls.after.spoiled) and worker.end():
        return ENDS_BY_ITSELF
    return 0
