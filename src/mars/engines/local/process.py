"""One worker process of this machine, as whoever started it holds it.

`workers` makes a `LocalProcess` for each worker. The driver's loop, or a node, sends messages
through it. It knows sockets and signals, and nothing of calls.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from mars import platform
from mars.attempt.capture import Segment
from mars.engines.wire import messages
from mars.engines.wire.frames import Inbox, Outgoing
from mars.engines.wire.messages import Order, ToWorker
from mars.settings import OUTBOX_BYTES, SPARE_DESCRIPTORS, TRY_AGAIN_EVERY_S, TRY_AGAIN_S
from mars.task import Stored

_HERE: Final = os.uname().nodename

_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC,
                             errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EINTR})  # fmt: skip
"""What the system says when it lacks something, which may be there again in a moment."""


R = TypeVar("R")


def patiently(act: Callable[..., R], *arguments: object, **named: object) -> R:
    """What ``act`` gives; tried again for a while if the system lacks something.

    Raises
    ------
    OSError
        The system still lacks it.
    """
    until = time.monotonic() + TRY_AGAIN_S
    while True:
        try:
            return act(*arguments, **named)
        except OSError as error:
            if error.errno not in _PASSING or time.monotonic() > until:
                raise
        time.sleep(TRY_AGAIN_EVERY_S)


Handler = Callable[..., None]
"""Called with what the descriptor belongs to, and with what is possible now."""


class Watch:
    """The descriptors that one thread waits for, and what is called when something comes."""

    def __init__(self) -> None:
        self._poller = platform.poller()
        self._handlers: dict[int, tuple[Handler, object]] = {}

    def add(self, descriptor: int, handler: Handler, about: object = None) -> None:
        """Have ``handler`` called when a descriptor can be read."""
        patiently(self._poller.register, descriptor, platform.READABLE)
        self._handlers[descriptor] = (handler, about)

    def wish_to_write(self, descriptor: int, wish: bool) -> None:
        """Have the handler called when the descriptor can be written to, too; or not any more."""
        if descriptor in self._handlers:
            mask = platform.READABLE | platform.WRITABLE if wish else platform.READABLE
            self._poller.modify(descriptor, mask)

    def remove(self, descriptor: int) -> bool:
        """Wait for a descriptor no more; False: nobody waited for it."""
        known = self._handlers.pop(descriptor, None) is not None
        if known:
            self._poller.unregister(descriptor)
        return known

    def wait(self, timeout_s: float | None) -> None:
        """Wait until something comes, for so long at most, and have it handled."""
        for descriptor, mask in self._poller.poll(timeout_s):
            entry = self._handlers.get(descriptor)
            if entry is not None:
                entry[0](entry[1], mask)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._poller.close()


class LocalProcess:
    """A worker process of this machine.

    Parameters
    ----------
    number : int
        The number of the worker.
    watch : Watch
        Of the thread that sends and receives.
    others : iterable of LocalProcess, optional
        Those that are there. The first one may take the last descriptors of this process. The
        later ones leave some to the program.

    Attributes
    ----------
    deaf : bool
        Nothing is sent to it any more, as it has ended.
    missed : bool
        A message to it was lost, so it has to end.
    leaving : bool
        It ends by itself, and has said so. Whoever reads its messages sets this.
    broken : str
        Why nothing that it sends is believed any more; empty: it is believed.

    Raises
    ------
    OSError
        The system refuses what the process needs.
    """

    where = _HERE

    def __init__(self, number: int, watch: Watch, others: Iterable[LocalProcess] = ()) -> None:
        self.number = number
        self.pid = 0
        self.descriptor = -1  # of the process: its number can be that of another one by now
        self._watch = watch
        # How to signal it where there is no descriptor; set when the zygote is asked for it.
        self.signal_by_zygote: Callable[[LocalProcess, int], None] | None = None
        with contextlib.ExitStack() as undo:  # when the system refuses one of them
            self._data, self._their_data = map(undo.enter_context, platform.socket_pair())
            self._control, self._their_control = map(undo.enter_context, platform.socket_pair())
            self._data.setblocking(False)
            self.segment = Segment()
            undo.callback(self.segment.close)
            self._outbox_file = platform.memory_file("outbox")
            undo.callback(os.close, self._outbox_file)
            os.ftruncate(self._outbox_file, OUTBOX_BYTES)
            self._outbox = mmap.mmap(self._outbox_file, OUTBOX_BYTES)
            if not self._leaves_some(list(others)):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            undo.pop_all()
        self.inbox = Inbox(self._data)
        self.descriptors = self.inbox.descriptors  # that came with its messages
        self._outgoing = Outgoing()  # through the data socket
        self._orders = Outgoing()  # through the control socket
        self._pending: deque[tuple[memoryview, Sequence[int]]] = deque()  # not sent yet
        self.arenas: set[int] = set()  # that it can map
        self.deaf = False
        self.missed = False
        self.leaving = False
        self.broken = ""
        self._closed = False

    def _leaves_some(self, others: Sequence[LocalProcess]) -> bool:
        """Whether descriptors are left, also when each has that of its process and an arena."""
        expected = 2 + sum((one.descriptor < 0) + (not one.arenas) for one in others)
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

    def listen(self, handler: Handler) -> None:
        """Have ``handler`` called when the process has sent something."""
        self._watch.add(self._data.fileno(), handler, self)

    def unlisten(self) -> bool:
        """Read nothing from it any more; False: that was so already."""
        return self._watch.remove(self._data.fileno())

    # -- to the process -----------------------------------------------------------------------

    def send(self, message: ToWorker | bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message, or the pickle of one, after those before it."""
        if self.deaf:
            return
        content = message if type(message) is bytes else pickle.dumps(message, 5)
        data = self._outgoing.wrap(content)
        if self._pending:
            self._put_off(memoryview(data), descriptors)
            return
        try:
            sent = platform.send(self._data, data, descriptors)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.lose_a_message()
            return
        if sent < len(data):
            self._put_off(memoryview(data)[sent:], () if sent else descriptors)
            self._watch.wish_to_write(self._data.fileno(), True)

    def _put_off(self, data: memoryview, descriptors: Sequence[int]) -> None:
        """Send the rest of a message once the process takes more."""
        # Duplicates of the descriptors: whose they are may close them before their turn has come.
        kept: list[int] = []
        try:
            with contextlib.ExitStack() as undo:
                for one in descriptors:
                    kept.append(patiently(os.dup, one))
                    undo.callback(os.close, kept[-1])
                undo.pop_all()
        except OSError:
            self.lose_a_message()
            return
        self._pending.append((data, kept))

    def send_pending(self) -> None:
        """Send what had to wait, as far as the process takes it now."""
        while self._pending:
            data, descriptors = self._pending[0]
            try:
                sent = platform.send(self._data, data, descriptors)
            except BlockingIOError:
                return
            except OSError:
                self._drop_pending()
                self.lose_a_message()
                return
            for descriptor in descriptors:
                os.close(descriptor)
            if sent < len(data):
                self._pending[0] = (data[sent:], ())
            else:
                self._pending.popleft()
        self._watch.wish_to_write(self._data.fileno(), False)

    def _drop_pending(self) -> None:
        for _, descriptors in self._pending:
            for descriptor in descriptors:
                os.close(descriptor)
        self._pending.clear()

    def order(self, message: Order | bytes) -> None:
        """Send a message, or the pickle of one, that a running call does not hold up."""
        content = message if type(message) is bytes else pickle.dumps(message, 5)
        try:
            self._control.send(self._orders.wrap(content))
        except OSError:
            self.lose_a_message()

    def lose_a_message(self) -> None:
        """A message was not sent: the process has ended, or has to, as it missed something."""
        self.missed = True
        if not self.leaving:
            self.kill()

    def lend(self, value: Stored, arena: tuple[int, int]) -> None:
        """Make sure that the process can map a value, whose arena is that descriptor and size."""
        self.lend_arena(value[1], *arena)

    def lend_arena(self, number: int, descriptor: int, size: int) -> None:
        """Make sure that the process can map an arena."""
        if number not in self.arenas:
            self.arenas.add(number)
            self.send((messages.ARENA, number, size), (descriptor,))

    # -- the process itself -------------------------------------------------------------------

    def running(self) -> tuple[int, int]:
        """The attempt that runs, 0 for none, and where its log starts."""
        attempt, start = messages.OUTBOX_RUNNING.unpack_from(
            self._outbox, messages.OUTBOX_RUNNING_AT
        )
        return attempt, start

    def unreported(self) -> bytes:
        """Records of calls that the process finished and did not report before it ended."""
        (filled,) = messages.OUTBOX_FILLED.unpack_from(self._outbox, 0)
        start = messages.OUTBOX.size
        return self._outbox[start : start + filled]

    def started(self, pid: int, descriptor: int) -> None:
        """The process has been forked; its number and descriptor, -1: there is none."""
        self.pid = pid
        if descriptor >= 0 and not self._closed and platform.is_of_process(descriptor, pid):
            self.descriptor = descriptor
        elif descriptor >= 0:
            os.close(descriptor)

    def interrupt(self, attempt: int) -> None:
        """Send SIGINT, for that attempt and no other."""
        messages.OUTBOX_INTERRUPT.pack_into(self._outbox, messages.OUTBOX_INTERRUPT_AT, attempt)
        self.signal(signal.SIGINT)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the process; nothing happens when it has ended."""
        if self.descriptor >= 0:
            platform.signal_process(self.descriptor, number)
        elif self.pid and not self._closed and self.signal_by_zygote is not None:
            self.signal_by_zygote(self, number)

    def close(self) -> None:
        """Close all but the log, which its readers keep; idempotent."""
        self.deaf = True
        if not self._closed:
            self._closed = True
            self._drop_pending()
            self.inbox.close()
            self._control.close()
            self._outbox.close()
            self._their_data.close()
            self._their_control.close()
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1
