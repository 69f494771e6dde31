"""A process whose threads are workers: many calls that wait need one process, not one each.

The zygote forks it for the first call with ``threads=``. Each `ThreadWorker` has sockets, a log and
an outbox of its own, so for the driver it is a worker like any other. The main thread runs no
calls: it starts threads, passes on what the driver orders, and interrupts calls.

::

    zygote ──(FORK, SIGNAL)──► main thread ──(ENDED)──► zygote
    driver ──(orders)────────► main thread
    driver ──(calls)─────────► thread of a worker ──(records)──► driver

A thread cannot be ended by force. One that has to end and does not is *abandoned*: its worker has
ended for the driver, what comes of its call is dropped, and the thread is left to its end.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import os
import pickle
import select
import signal
import sys
import threading
from collections import deque
from typing import Final, NoReturn

from mars import platform
from mars.attempt import context
from mars.attempt.ambient import Ambient
from mars.code import importing
from mars.engines.wire import messages
from mars.engines.wire.frames import Inbox, Outgoing
from mars.engines.wire.messages import DESCRIPTORS
from mars.engines.worker.in_threads import Commons, ThreadPerformer
from mars.engines.worker.process import Worker
from mars.engines.worker.stack_answer import answer_requests
from mars.errors import SessionClosed
from mars.settings import THREAD_DESCRIPTORS

_LOCK_S: Final = 1.0

_ABANDONED: Final = (
    "its thread did not end when it had to: it is left to its end, and what comes of the call is "
    "dropped"
)


class ThreadWorker(Worker):
    """One thread that runs calls, as the driver sees a worker process."""

    calls: ThreadPerformer

    def __init__(
        self, number: int, facts: messages.Facts, descriptors: list[int], commons: Commons
    ) -> None:
        self._commons = commons
        super().__init__(number, facts, descriptors, None)

    def performer(self) -> ThreadPerformer:
        """What runs the calls."""
        return ThreadPerformer(self, self.outbox, self.log, self.inputs, self._commons)

    def peak_kib(self) -> int:
        """Not known: other calls of this process take memory meanwhile."""
        return 0

    def finish(self, attempt: int, record: bytes) -> None:
        """Keep a finished call for the next report, if somebody is there to hear of it."""
        if not self.calls.abandoned:
            super().finish(attempt, record)

    def ask(self, kind: str, *rest: object) -> object:
        """As of `Worker`; a call that waits for others lets them into this process."""
        if kind != messages.WAIT or threading.get_ident() != self.calls.thread:
            return super().ask(kind, *rest)
        code = self.calls.let_go(over=False)
        try:
            return super().ask(kind, *rest)
        finally:
            self.calls.come_back(code)

    def give_up(self) -> NoReturn:
        """The call that waits was abandoned, or the session has ended."""
        raise SessionClosed("the call was given up, or its session has ended: nothing answers")

    def run(self) -> None:
        """Serve in this thread until the driver says stop, or the worker is abandoned."""
        self.calls.thread = threading.get_ident()
        self.calls.slot = self._commons.names.open(self.calls.thread)
        os.write(self.log, b"\n")  # a call whose log begins at 0 has not begun, for who reads it
        self.calls.log_begins()
        with contextlib.suppress(OSError):  # the driver is gone, or the sockets were shut
            self.serve()

    def abandon(self) -> None:
        """Have nothing that the thread does be heard of; it ends by itself, or never."""
        outcome = self.calls.abandon()
        # The thread has the lock if it hangs while it tells something: then nothing is added.
        if outcome is not None and self.lock.acquire(timeout=_LOCK_S):
            try:
                super().finish(*outcome)
            finally:
                self.lock.release()
        for sock in (self.sock, self.control):
            with contextlib.suppress(OSError):
                sock.shutdown(2)

    def close(self) -> None:
        """Close what only this worker has; its thread has ended."""
        self._commons.names.close(self.calls.slot)
        self.sock.close()
        self.control.close()
        os.close(self.log)
        self.inputs.close()
        self.allocator.close()
        self.ledger.close()


class ThreadHost:
    """The main thread of such a process.

    Parameters
    ----------
    control : socket
        To the zygote.
    commons : Commons
        What the workers share.
    """

    def __init__(self, control: platform.Socket, commons: Commons) -> None:
        self._inbox, self._outgoing, self._control = Inbox(control), Outgoing(), control
        self._commons = commons
        self._pid = os.getpid()
        self._workers: dict[int, ThreadWorker] = {}
        self._orders: dict[int, tuple[ThreadWorker, Inbox]] = {}  # by descriptor
        self._over: deque[ThreadWorker] = deque()  # whose threads end
        self._wake_read, self._wake_write = platform.pipe()
        self._poller = select.poll()

    def run(self) -> None:
        """Serve until the zygote ends, and with it this process."""
        poller = self._poller
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == self._control.fileno():
                    if not self._inbox.receive():
                        return
                    for _, data in self._inbox.frames():
                        self._act(pickle.loads(data))
                elif descriptor == self._wake_read:
                    os.read(descriptor, 4096)
                    while self._over:
                        self._bury(self._over.popleft())
                elif descriptor in self._orders:
                    worker, inbox = self._orders[descriptor]
                    with contextlib.suppress(OSError):  # its driver is gone, so it ends, too
                        if worker.take_orders(inbox, block=False):
                            continue
                    self._ignore_orders(worker)

    def _act(self, message: messages.ToZygote) -> None:
        if message[0] == messages.FORK:
            descriptors = self._inbox.descriptors[:DESCRIPTORS]
            del self._inbox.descriptors[:DESCRIPTORS]
            self._start(message[1], message[2], descriptors)
        elif message[0] == messages.SIGNAL and message[1] in self._workers:
            worker = self._workers[message[1]]
            if message[2] == signal.SIGINT:
                worker.calls.interrupt()
            elif message[2] == signal.SIGKILL:
                worker.abandon()
                self._end(worker, int(signal.SIGKILL), _ABANDONED)

    def _start(self, number: int, facts: messages.Facts, descriptors: list[int]) -> None:
        try:
            if len(descriptors) < DESCRIPTORS:  # the kernel dropped those for which was no room
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            # Several may come at a time, so there is always room for many.
            platform.have_descriptors(max(descriptors), THREAD_DESCRIPTORS)
            worker = ThreadWorker(number, facts, descriptors, self._commons)
            self._workers[number] = worker
            threading.Thread(
                target=self._run, args=(worker,), name=f"mars-calls-{number}", daemon=True
            ).start()
        except (OSError, RuntimeError) as error:  # such as no descriptor or thread left
            self._workers.pop(number, None)
            self._tell((messages.ENDED, number, self._pid, None, 0, f"cannot start it: {error}"))
            return
        descriptor = worker.control.fileno()
        self._orders[descriptor] = worker, Inbox(worker.control)
        self._poller.register(descriptor, select.POLLIN)

    def _run(self, worker: ThreadWorker) -> None:
        """What the thread of a worker does."""
        try:
            worker.run()
        finally:
            self._over.append(worker)
            os.write(self._wake_write, b"\0")

    def _bury(self, worker: ThreadWorker) -> None:
        """The thread of a worker has ended."""
        self._ignore_orders(worker)
        self._end(worker, 0, "")
        worker.close()

    def _ignore_orders(self, worker: ThreadWorker) -> None:
        for descriptor, (one, _) in self._orders.items():
            if one is worker:
                self._poller.unregister(descriptor)
                del self._orders[descriptor]
                return

    def _end(self, worker: ThreadWorker, status: int, note: str) -> None:
        """Tell once that a worker has ended."""
        self._ignore_orders(worker)
        if self._workers.pop(worker.number, None) is not None:
            self._tell((messages.ENDED, worker.number, self._pid, status, 0, note))

    def _tell(self, message: messages.Ended) -> None:
        with contextlib.suppress(OSError):  # the zygote is gone, and kills this process
            self._control.sendall(self._outgoing.frame(message))


def main(facts: messages.Facts, control: platform.Socket) -> int:
    """Entry point after the fork; gives the exit status of the process."""
    sys.path[:] = facts["path"]
    with contextlib.suppress(OSError):  # it is gone meanwhile
        os.chdir(facts["cwd"])
    platform.offer_to_oom_killer()
    printed = platform.nameless_file()
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(file=2)
    commons = Commons(printed, Ambient((control.fileno(),)).follow)
    importing.install(commons.text_of_module)
    context.FollowThreads()  # what a call starts prints to its log
    answer_requests()
    gc.freeze()  # what was loaded since the fork, too
    ThreadHost(control, commons).run()
    return 0
