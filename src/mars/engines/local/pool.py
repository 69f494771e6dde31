"""Starts the zygote and, through it, worker processes; knows their descriptors and their end.

Nothing here decides when: `loop` carries out the scheduler's commands with it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from mars import platform
from mars.attempt import threads
from mars.attempt.capture import Segment
from mars.engines.local import messages
from mars.engines.local.messages import Inbox, Outgoing
from mars.errors import StartupFailed
from mars.settings import OUTBOX_BYTES, STOP_S

_CONTROL_DESCRIPTOR: Final = 3


class Member:
    """One worker process, as the driver holds it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        with contextlib.ExitStack() as undo:  # when the system refuses one of them
            self.data, self._their_data = map(undo.enter_context, socket.socketpair())
            self.control, self._their_control = map(undo.enter_context, socket.socketpair())
            self.data.setblocking(False)
            self.segment = Segment()
            undo.callback(self.segment.close)
            self._outbox_file = platform.memory_file("outbox")
            undo.callback(os.close, self._outbox_file)
            os.ftruncate(self._outbox_file, OUTBOX_BYTES)
            self.outbox = mmap.mmap(self._outbox_file, OUTBOX_BYTES)
            undo.pop_all()
        self.inbox = Inbox(self.data)
        self.outgoing = Outgoing()  # through `data`
        self.orders = Outgoing()  # through `control`
        self.pending: deque[tuple[memoryview, Sequence[int]]] = deque()  # not sent yet
        self.functions: set[int] = set()
        self.runs: set[int] = set()
        self.over: tuple[list[int], list[int]] = ([], [])  # runs, functions: to be forgotten
        self.arenas: set[int] = set()
        self.unmap: list[tuple[int, int]] = []
        self.free: list[tuple[int, int, int]] = []
        self.open = True
        self.missed = False  # a message to it was lost
        self.broken = ""  # why nothing that it sends is believed any more

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"{self.number} (pid {self.pid})"

    def theirs(self) -> list[int]:
        """The descriptors that the process gets."""
        return [
            self._their_data.fileno(), self._their_control.fileno(),
            self.segment.descriptor, self._outbox_file,
        ]  # fmt: skip

    def handed_over(self) -> None:
        """The process has its descriptors: ours of them would hide its end."""
        self._their_data.close()
        self._their_control.close()
        os.close(self._outbox_file)

    def running(self) -> tuple[int, int]:
        """The attempt that runs, 0 for none, and where its log starts."""
        attempt, start = messages.OUTBOX_RUNNING.unpack_from(
            self.outbox, messages.OUTBOX_RUNNING_AT
        )
        return attempt, start

    def unreported(self) -> bytes:
        """Records of calls that the process finished and did not report before it ended."""
        (filled,) = messages.OUTBOX_FILLED.unpack_from(self.outbox, 0)
        start = messages.OUTBOX.size
        return self.outbox[start : start + filled]

    def interrupt(self, attempt: int) -> None:
        """SIGINT, for that attempt and no other."""
        messages.OUTBOX_INTERRUPT.pack_into(self.outbox, messages.OUTBOX_INTERRUPT_AT, attempt)
        self.signal(signal.SIGINT)

    def signal(self, number: int) -> None:
        """Send a signal to the process; nothing happens when it has ended."""
        if self.pid:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def close(self) -> None:
        """Close all but the log, which its readers keep."""
        if self.open:
            self.open = False
            self.inbox.close()
            self.control.close()
            self.outbox.close()
            self._their_data.close()
            self._their_control.close()


class Pool:
    """The zygote of one engine.

    Parameters
    ----------
    facts : dict
        What every worker is told when it starts.
    ledger : int
        Descriptor of the memory in which all processes count their arenas; the caller's.
    """

    def __init__(self, facts: dict[str, Any], ledger: int) -> None:
        self.facts = facts
        self._ledger = ledger
        # Also of a zygote that is started later: changes since then are told with each run.
        self._environment = {**os.environ, **threads.environment(1, os.environ)}
        self.errors = Segment()  # what the zygote prints: why it could not start
        self.pid = 0
        self.socket: socket.socket
        self.inbox: Inbox
        self._outgoing: Outgoing
        try:
            self.start()
        except BaseException:
            self.errors.close()
            raise

    def start(self) -> None:
        """Start the zygote process.

        Raises
        ------
        StartupFailed
            The system refuses to start it.
        """
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from mars.engines.local.zygote import main; "
            f"main({_CONTROL_DESCRIPTOR}, {os.getpid()})"
        )
        with contextlib.ExitStack() as closing:
            try:
                null = os.open(os.devnull, os.O_RDWR)
                closing.callback(os.close, null)
                ours, theirs = socket.socketpair()
                closing.callback(theirs.close)
            except OSError as error:
                raise StartupFailed(f"cannot start {sys.executable}: {error}") from error
            actions = [
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, self.errors.descriptor, 1),
                (os.POSIX_SPAWN_DUP2, self.errors.descriptor, 2),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CONTROL_DESCRIPTOR),
            ]
            try:
                if theirs.fileno() == _CONTROL_DESCRIPTOR:
                    theirs.set_inheritable(True)
                self.pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, *_interpreter_options(), "-c", code],
                    self._environment,
                    file_actions=actions,
                    setpgroup=0,
                    setsigmask=[],
                    setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE],
                )
            except OSError as error:
                ours.close()
                raise StartupFailed(f"cannot start {sys.executable}: {error}") from error
        self.facts["zygote"] = self.pid
        self.socket = ours
        self.inbox = Inbox(ours)
        self._outgoing = Outgoing()

    def fork(self, member: Member, facts: dict[str, Any]) -> None:
        """Ask for a worker process; STARTED or ENDED follows.

        Raises
        ------
        OSError
            The zygote is gone; its end follows, too.
        """
        message = self._outgoing.frame((messages.FORK, member.number, {**self.facts, **facts}))
        try:
            sent = platform.send(self.socket, message, [*member.theirs(), self._ledger])
            self.socket.sendall(memoryview(message)[sent:])
        finally:
            member.handed_over()

    def complaint(self) -> str:
        """The last that the zygote printed."""
        text = self.errors.read(max(0, self.errors.size() - 4096), 4096)
        return text.decode("utf-8", "replace").strip()

    def stop(self) -> None:
        """Have the zygote kill all workers and end; returns when it has."""
        if not self.pid:
            return
        self.socket.close()
        deadline = time.monotonic() + STOP_S
        pid, self.pid = self.pid, 0
        pause = 0.0005
        while True:
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    return
            except ChildProcessError:  # the program waits for all children itself
                return
            if time.monotonic() > deadline:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass
                return
            time.sleep(pause)
            pause = min(pause * 2, 0.02)

    def close(self) -> None:
        """Stop, and let go of what the zygote printed."""
        self.stop()
        self.errors.close()

    def forget(self) -> None:
        """In a child that the program forked: the zygote is the parent's."""
        self.pid = 0
        self.socket.close()


def _interpreter_options() -> list[str]:
    flags = sys.flags
    options = []
    for flag, option in (
        (flags.isolated, "-I"), (flags.ignore_environment and not flags.isolated, "-E"),
        (flags.no_user_site and not flags.isolated, "-s"), (flags.no_site, "-S"),
        (flags.dont_write_bytecode, "-B"), (flags.bytes_warning, "-b"),
    ):  # fmt: skip
        if flag:
            options.append(option)
    options += ["-O"] * flags.optimize
    if flags.dev_mode:
        options += ["-X", "dev"]
    options += ["-X", "utf8=1"] if flags.utf8_mode else []
    # A program's own warning filters hold in its calls, too.
    options += [f"-W{warning}" for warning in sys.warnoptions]
    return options
