"""Starts worker processes, through the zygote; knows their descriptors and their end.

Nothing here decides when: `loop` carries out the scheduler's commands with it.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from mars import platform
from mars.attempt.capture import Segment
from mars.engines.local.launch import Launch
from mars.engines.wire import messages
from mars.engines.wire.frames import Inbox, Outgoing
from mars.settings import OUTBOX_BYTES, SPARE_DESCRIPTORS


class Member:
    """One worker process, as the driver holds it.

    Parameters
    ----------
    number : int
        Its number.
    others : iterable of Member, optional
        Those that are there. The first one may take the last descriptors of this process, others
        leave some to the program.

    Raises
    ------
    OSError
        The system refuses what it needs.
    """

    def __init__(self, number: int, others: Iterable[Member] = ()) -> None:
        self.number = number
        self.pid = 0
        self.process = -1  # its descriptor: a number can be that of another process by now
        self.pool: Pool | None = None  # through which it is signalled if there is no descriptor
        with contextlib.ExitStack() as undo:  # when the system refuses one of them
            self.data, self._their_data = map(undo.enter_context, platform.socket_pair())
            self.control, self._their_control = map(undo.enter_context, platform.socket_pair())
            self.data.setblocking(False)
            self.segment = Segment()
            undo.callback(self.segment.close)
            self._outbox_file = platform.memory_file("outbox")
            undo.callback(os.close, self._outbox_file)
            os.ftruncate(self._outbox_file, OUTBOX_BYTES)
            self.outbox = mmap.mmap(self._outbox_file, OUTBOX_BYTES)
            if not self._leaves_some(list(others)):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            undo.pop_all()
        self.inbox = Inbox(self.data)
        self.outgoing = Outgoing()  # through `data`
        self.orders = Outgoing()  # through `control`
        self.pending: deque[tuple[memoryview, Sequence[int]]] = deque()  # not sent yet
        self.functions: set[int] = set()
        self.runs: set[int] = set()
        self.surroundings: object = None  # as it was told last
        self.over: tuple[list[int], list[int]] = ([], [])  # runs, functions: to be forgotten
        self.arenas: set[int] = set()
        self.unmap: list[tuple[int, int]] = []
        self.free: list[tuple[int, int, int]] = []
        self.open = True
        self.missed = False  # a message to it was lost
        self.leaving = False  # it ends by itself, and has said so
        self.broken = ""  # why nothing that it sends is believed any more

    def _leaves_some(self, others: Sequence[Member]) -> bool:
        """Whether descriptors are left, also when each has that of its process and an arena."""
        expected = 2 + sum((one.process < 0) + (not one.arenas) for one in others)
        newest = self._outbox_file + expected
        return platform.have_descriptors(newest, SPARE_DESCRIPTORS) or not others

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

    def started(self, pid: int, process: int) -> None:
        """The process has been forked; its number and descriptor, -1: there is none."""
        self.pid = pid
        if process >= 0 and self.open and platform.is_of_process(process, pid):
            self.process = process
        elif process >= 0:
            os.close(process)

    def signal(self, number: int) -> None:
        """Send a signal to the process; nothing happens when it has ended."""
        if self.process >= 0:
            platform.signal_process(self.process, number)
        elif self.pid and self.open and self.pool is not None:
            self.pool.signal(self, number)

    def close(self) -> None:
        """Close all but the log, which its readers keep."""
        if self.open:
            self.open = False
            self.inbox.close()
            self.control.close()
            self.outbox.close()
            self._their_data.close()
            self._their_control.close()
            if self.process >= 0:
                os.close(self.process)
                self.process = -1


class Pool:
    """The zygote of one engine.

    Parameters
    ----------
    facts : dict
        What every worker is told when it starts.
    ledger : int
        Descriptor of the memory in which all processes count their arenas; the caller's.
    launch : Launch, optional
        A zygote that is on its way already; the pool closes it.

    Raises
    ------
    StartupFailed
        The system refuses to start the zygote.
    """

    def __init__(self, facts: dict[str, Any], ledger: int, launch: Launch | None = None) -> None:
        self.facts = facts
        self._ledger = ledger
        self._launch = launch or Launch()
        self.errors = self._launch.errors
        self._follow()

    def start(self) -> None:
        """Start another zygote process, as the first one has ended.

        Raises
        ------
        StartupFailed
            The system refuses to start it.
        """
        self._launch.start()
        self._follow()

    def _follow(self) -> None:
        self.facts["zygote"] = self._launch.pid
        self.socket = self._launch.socket
        self.inbox = Inbox(self.socket)
        self._outgoing = Outgoing()

    @property
    def pid(self) -> int:
        """The zygote; 0 when it has ended."""
        return self._launch.pid

    def fork(self, member: Member, facts: dict[str, Any]) -> None:
        """Ask for a worker process; STARTED or ENDED follows.

        Raises
        ------
        OSError
            The zygote is gone; its end follows, too.
        """
        # The program may have come to need it since the zygote began.
        facts = {**self.facts, **facts, "cloudpickle": "cloudpickle" in sys.modules}
        message = self._outgoing.frame((messages.FORK, member.number, facts))
        try:
            sent = platform.send(self.socket, message, [*member.theirs(), self._ledger])
            self.socket.sendall(memoryview(message)[sent:])
        finally:
            member.handed_over()
        member.pool = self

    def signal(self, member: Member, number: int) -> None:
        """Have the zygote signal a worker, which only it can reap."""
        with contextlib.suppress(OSError):  # the zygote is gone, and the kernel kills its workers
            self.socket.sendall(self._outgoing.frame((messages.SIGNAL, member.number, int(number))))

    def descriptor_of(self, message: tuple[Any, ...]) -> int:
        """What came with a message, for the caller to close; -1: nothing, or it was lost."""
        comes = message[0] == messages.PAGES or (message[0] == messages.STARTED and message[3])
        return self.inbox.descriptors.pop(0) if comes and self.inbox.descriptors else -1

    def complaint(self) -> str:
        """The last that the zygote printed."""
        text = self.errors.read(max(0, self.errors.size() - 4096), 4096)
        return text.decode("utf-8", "replace").strip()

    def stop(self) -> None:
        """Have the zygote kill all workers and end; returns when it has."""
        self._launch.stop()

    def close(self) -> None:
        """Stop, and let go of what the zygote printed."""
        self._launch.close()

    def forget(self) -> None:
        """In a child that the program forked: the zygote is the parent's."""
        self._launch.forget()
