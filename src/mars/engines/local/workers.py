"""The worker processes of one machine, for the driver and for a node alike.

`LocalWorkers` starts processes through the zygote, reads what they send, and tells how they ended.
Its owner, a `Listener`, says which ones to start and what to send; nothing is decided here. All of
it happens in one thread, the owner's.

::

    owner ──start──► LocalWorkers ──(fork)────► zygote ──forks──► worker
    owner ◄─started, ended── LocalWorkers ◄──(started, ended)──── zygote
    owner ◄─came──── LocalWorkers ◄──(frames)──────────────────── worker
"""

# Without `from __future__ import annotations`: NamedTuple compiles each annotation that is text,
# which takes 1 ms.

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from mars import platform
from mars.engines.local.launch import Launch
from mars.engines.local.process import LocalProcess, Watch
from mars.engines.wire import messages
from mars.engines.wire.frames import BadFrame, Inbox, Outgoing
from mars.errors import StartupFailed
from mars.resources import oom_kills
from mars.settings import STOP_S


class Ended(NamedTuple):
    """How a worker process ended."""

    pid: int
    status: int | None  # as `os.wait` has it; None: not known
    peak_kib: int = 0  # the most memory that it used; 0: not known
    note: str = ""  # what whoever saw the end says of it
    attempt: int = 0  # that it began last; 0: none
    log_start: int = 0  # where the log of that attempt starts
    unreported: bytes = b""  # records of calls that it finished and did not report
    starved: bool = False  # whoever saw the end says that memory ran out


class Listener(Protocol):
    """Whoever has the processes start, and hears of them."""

    def started(self, process: LocalProcess) -> None:
        """A process is there; it has its number now."""

    def came(self, process: LocalProcess, frames: Sequence[tuple[bool, memoryview]]) -> None:
        """A process has sent frames: whether each holds records, and its bytes.

        If one of them is no message, then `LocalProcess.broken` is set to the reason.
        """

    def garbled(self, process: LocalProcess, error: BadFrame) -> None:
        """A process has sent what is no frame; `LocalProcess.broken` has to be set."""

    def ended(self, process: LocalProcess, ended: Ended) -> None:
        """A process has ended, and all that it had sent was given to `came`."""

    def zygote_failed(self, error: StartupFailed) -> None:
        """The zygote has ended, all processes with it, and the system refuses another one."""


class LocalWorkers:
    """Worker processes of this machine.

    Parameters
    ----------
    facts : dict
        What every process is told when it starts.
    ledger : int
        Descriptor of the memory in which all processes count their arenas; the caller's.
    launch : Launch, optional
        A zygote that is on its way already; it is closed here.
    use_pages : callable, default `os.close`
        Takes the descriptor with which this process can make files of large pages.

    Attributes
    ----------
    processes : dict
        Those that are there, by number.
    dead : dict
        Of these, the ones that have ended and are not buried yet: their number, and how.

    Raises
    ------
    StartupFailed
        The system refuses to start the zygote.
    """

    nodes = None  # workers of one machine need nothing of what `driver.workers.Nodes` is for

    def __init__(
        self,
        facts: "messages.Facts",
        ledger: int,
        launch: Launch | None = None,
        use_pages: Callable[[int], object] = os.close,
    ) -> None:
        self.facts = facts
        self._ledger = ledger
        self._use_pages = use_pages
        self.processes: dict[int, LocalProcess] = {}
        self.dead: dict[int, Ended] = {}
        self._oom_kills = oom_kills()
        self._closing = False
        self._listener: Listener
        self._watch: Watch
        self._soon: Callable[[Callable[[], object]], object]
        self._launch = launch or Launch()
        self._follow()

    def _follow(self) -> None:
        self.facts["zygote"] = self._launch.pid
        self._inbox = Inbox(self._launch.socket)
        self._outgoing = Outgoing()

    def begin(
        self,
        listener: Listener,
        watch: Watch,
        soon: Callable[[Callable[[], object]], object],
    ) -> None:
        """Say who hears of the processes, and where; ``soon`` has something done there later."""
        self._listener, self._watch, self._soon = listener, watch, soon
        watch.add(self._launch.socket.fileno(), self._on_zygote)

    @property
    def alive(self) -> bool:
        """Whether there is a zygote, so that ends of processes are told of."""
        return bool(self._launch.pid)

    # -- starting -----------------------------------------------------------------------------

    def start(self, number: int, facts: "messages.Facts", group: int = 0) -> LocalProcess:
        """Start a process; `Listener.started` or `Listener.ended` follows.

        Parameters
        ----------
        number : int
            Of the worker.
        facts : dict
            What it is told beside the facts of all.
        group : int
            On one machine it makes no difference.

        Raises
        ------
        OSError
            The system refuses what is needed here; nothing follows.
        """
        process = LocalProcess(number, self._watch, self.processes.values())
        try:
            process.listen(self._on_process)
        except OSError:
            process.handed_over()
            process.close()
            process.segment.close()
            raise
        self.processes[number] = process
        try:
            self.fork(process, facts)
        except OSError as error:  # if the zygote is gone, `_on_zygote` will see it, too
            ended = Ended(0, None, note=f"cannot start it: {platform.refusal(error)}")
            self._soon(lambda: self.dead.setdefault(number, ended))
        return process

    def fork(self, process: LocalProcess, facts: "messages.Facts") -> None:
        """Ask the zygote for a process; its answer is STARTED or ENDED.

        Raises
        ------
        OSError
            The zygote is gone; its end follows, too.
        """
        # The program may have come to need cloudpickle since the zygote began.
        facts = {**self.facts, **facts, "cloudpickle": "cloudpickle" in sys.modules}
        message = self._outgoing.frame((messages.FORK, process.number, facts))
        sock = self._launch.socket
        try:
            sent = platform.send(sock, message, [*process.theirs(), self._ledger])
            sock.sendall(memoryview(message)[sent:])
        finally:
            process.handed_over()
        process.signal_by_zygote = self._signal

    def _signal(self, process: LocalProcess, number: int) -> None:
        """Have the zygote signal a process, which only it can reap."""
        message = messages.SIGNAL, process.number, int(number)
        with contextlib.suppress(OSError):  # the zygote is gone, and the kernel kills its workers
            self._launch.socket.sendall(self._outgoing.frame(message))

    # -- what processes send ------------------------------------------------------------------

    def _on_process(self, process: LocalProcess, mask: int) -> None:
        if mask & platform.WRITABLE:
            process.send_pending()
        if not mask & ~platform.WRITABLE:
            return
        try:
            alive = process.inbox.receive()
        except BlockingIOError:
            return
        except OSError:
            alive = False
        self._take_frames(process)
        # The process ends, or has closed all its descriptors, after which it is of no use.
        if (
            (process.broken or not alive)
            and process.unlisten()
            and (process.broken or not process.leaving)
        ):
            process.kill()

    def _take_frames(self, process: LocalProcess) -> None:
        """Tell what a process has sent, up to what is no message of ours."""
        while not process.broken:
            try:
                frames = process.inbox.frames()
            except BadFrame as error:
                self._listener.garbled(process, error)
                return
            if not frames:
                return
            self._listener.came(process, frames)

    # -- what the zygote says -----------------------------------------------------------------

    def _on_zygote(self, _: object, __: int) -> None:
        try:
            alive = self._inbox.receive()
        except OSError:
            alive = False
        try:
            frames = self._inbox.frames()
        except BadFrame:  # it could not send one
            frames, alive = [], False
        for _records, data in frames:
            message: messages.FromZygote = pickle.loads(data)
            number = message[1]
            descriptor = self._descriptor_of(message)
            process = self.processes.get(number)
            if message[0] == messages.STARTED and process is not None:
                process.started(message[2], descriptor)
                if process.missed:
                    process.kill()
                self._listener.started(process)
            elif message[0] == messages.ENDED and process is not None:
                self.dead.setdefault(number, Ended(*message[2:]))
            elif message[0] == messages.PAGES and descriptor >= 0:
                self._use_pages(descriptor)
            elif descriptor >= 0:
                os.close(descriptor)
        if not alive:
            self._restart_zygote()

    def _descriptor_of(self, message: messages.FromZygote) -> int:
        """What came with a message of the zygote; -1: nothing, or it was lost."""
        comes = message[0] == messages.PAGES or (message[0] == messages.STARTED and message[3])
        return self._inbox.descriptors.pop(0) if comes and self._inbox.descriptors else -1

    def _restart_zygote(self) -> None:
        """Somebody killed the zygote, and the kernel all processes with it: begin anew."""
        self.stop()
        note = f"the zygote ended; {self.complaint()}"
        for process in self.processes.values():
            process.kill()
        # Nobody tells of their ends any more, and a call is sent again only after they have ended.
        there = [one.descriptor for one in self.processes.values() if one.descriptor >= 0]
        platform.wait_for_end(there, STOP_S)
        for number, process in self.processes.items():
            self.dead.setdefault(number, Ended(process.pid, signal.SIGKILL, note=note))
        if self._closing:
            return
        try:
            self._launch.start()
        except StartupFailed as error:
            self._listener.zygote_failed(error)
            return
        self._follow()
        self._watch.add(self._launch.socket.fileno(), self._on_zygote)

    def complaint(self) -> str:
        """The last that the zygote printed."""
        errors = self._launch.errors
        return errors.read(max(0, errors.size() - 4096), 4096).decode("utf-8", "replace").strip()

    # -- ends ---------------------------------------------------------------------------------

    def bury(self) -> None:
        """Tell of processes that have ended: what they sent before, then how they ended."""
        dead, self.dead = self.dead, {}
        for number, ended in dead.items():
            process = self.processes.pop(number, None)
            if process is None:
                continue
            process.deaf = True
            # What it sent before it ended, to the last complete frame.
            with contextlib.suppress(OSError):
                while process.inbox.receive():
                    continue
            self._take_frames(process)
            attempt, start = process.running()
            unreported = process.unreported()
            process.unlisten()
            process.close()
            self._listener.ended(
                process, ended._replace(attempt=attempt, log_start=start, unreported=unreported)
            )

    def starved(self, ended: Ended) -> bool:
        """Whether the kernel ended a process because memory ran out; asked once for each."""
        status = ended.status
        if status is None or not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return False
        before, self._oom_kills = self._oom_kills, oom_kills()
        return self._oom_kills > before

    def title_of(self, group: int, address: str) -> str:
        """What messages call a group of workers."""
        return f"worker {address}"

    def dismiss(self) -> None:
        """From here on processes end for good; no zygote is started any more."""
        self._closing = True

    def stop(self) -> None:
        """Have the zygote kill all processes and end; returns when it has."""
        if self.alive:
            self._watch.remove(self._launch.socket.fileno())
            self._launch.stop()

    def close(self) -> None:
        """Stop, and let go of all but the logs, which their readers keep; idempotent."""
        for process in self.processes.values():
            process.close()
        self.processes.clear()
        self._launch.close()

    def forget(self) -> None:
        """In a child that the program forked: let go of everything, touch nothing."""
        for process in self.processes.values():
            process.close()
        self._launch.forget()
