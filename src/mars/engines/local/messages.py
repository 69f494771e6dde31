"""All that crosses between the driver, the zygote and the workers, and its framing.

A frame is its length and a pickle of a tuple whose first item says what it is. Finished calls
are the exception: they come as packed records, because a worker keeps them in shared memory
until it reports them, where they outlive it.

::

    driver ──(FUNCTIONS, RUN, TASKS, ARENA, FREE, REPLY, STOP)──► worker     data socket
    driver ◄──(records; ARENA, UNMAPPED, SUBMIT, WAIT, ASK, …)─── worker     data socket
    driver ──(TAKE_BACK, REPORT)────────────────────────────────► worker     control socket
    driver ──(FORK)──► zygote ──(STARTED, ENDED)──► driver                   zygote socket
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
from typing import Any, Final

from mars import platform
from mars.errors import InternalError
from mars.settings import RECEIVE_BYTES

HEADER: Final = struct.Struct("<I")
RECORDS_FLAG: Final = 0x8000_0000
"""Set in a frame's length: the frame is records, not a pickle."""

MAX_FRAME_BYTES: Final = 0x7FFF_FFFF

# driver -> worker
FUNCTIONS: Final = "functions"
RUN: Final = "run"
TASKS: Final = "tasks"
FREE: Final = "free"
REPLY: Final = "reply"
STOP: Final = "stop"
TAKE_BACK: Final = "take back"
REPORT: Final = "report"

# both ways
ARENA: Final = "arena"

# worker -> driver
READY: Final = "ready"
LEAVING: Final = "leaving"
GAVE_BACK: Final = "gave back"
UNMAPPED: Final = "unmapped"
SUBMIT: Final = "submit"
WAIT: Final = "wait"
WAITED: Final = "waited"
CANCEL: Final = "cancel"
ASK: Final = "ask"
PROGRESS: Final = "progress"

# zygote
FORK: Final = "fork"
DESCRIPTORS: Final = 5
"""That come with FORK: data and control socket, log, outbox, ledger."""

STARTED: Final = "started"
ENDED: Final = "ended"

RECORD: Final = struct.Struct("<QBBQQqqqqqII")
"""A finished call: attempt, status, flags, its log's start and end (bytes in the worker's log),
five times in ns (received, inputs decoded, called, returned, stored), the most memory that the
process took (KiB; 0: not looked at), size of what follows."""

TIMES: Final = slice(26, 66)
"""The five times inside a record."""

FLAG_STORED: Final = 1  # the result has parts in an arena
FLAG_PACKED: Final = 4  # the payload is a pickle of values, not one value
FLAG_FAILURES: Final = 2  # a block in which items raised

OUTBOX: Final = struct.Struct("<QQQQ")
"""Head of the shared memory of a worker: bytes of finished records behind it, the attempt that
runs (0: none), where its log starts, and the attempt that is to be interrupted."""
OUTBOX_FILLED: Final = struct.Struct("<Q")
OUTBOX_RUNNING: Final = struct.Struct("<QQ")
OUTBOX_RUNNING_AT: Final = 8
OUTBOX_INTERRUPT: Final = struct.Struct("<Q")
OUTBOX_INTERRUPT_AT: Final = 24


def frame(message: tuple[Any, ...]) -> bytes:
    """A message, ready to be sent.

    Raises
    ------
    InternalError
        It is too large for one frame; large values belong in an arena.
    """
    data = pickle.dumps(message, 5)
    if len(data) > MAX_FRAME_BYTES:
        raise InternalError(f"a message of {len(data):,} bytes is too large")
    return HEADER.pack(len(data)) + data


class Inbox:
    """Turns received bytes into frames. A frame that is cut off at the end is never seen."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.descriptors: list[int] = []
        self._buffer = bytearray()

    def receive(self, block: bool = True) -> bool:
        """Read once what is there; False at the end of the stream.

        Raises
        ------
        BlockingIOError
            Nothing is there now, and the socket, or ``block``, says not to wait.
        """
        data = platform.receive(self.sock, RECEIVE_BYTES, self.descriptors, block)
        self._buffer += data
        return bool(data)

    def frames(self) -> list[tuple[bool, memoryview]]:
        """Complete frames: whether each holds records, and its bytes."""
        buffer = self._buffer
        filled = len(buffer)
        if filled < 4:
            return []
        start = 0
        ends: list[tuple[bool, int, int]] = []
        while filled - start >= 4:
            (length,) = HEADER.unpack_from(buffer, start)
            size = length & MAX_FRAME_BYTES
            end = start + 4 + size
            if end > filled:
                break
            ends.append((length != size, start + 4, end))
            start = end
        if not start:
            return []
        taken = memoryview(bytes(buffer) if start == filled else bytes(buffer[:start]))
        del buffer[:start]
        return [(records, taken[begin:end]) for records, begin, end in ends]

    def close(self) -> None:
        """Close the socket and descriptors that nobody took."""
        self.sock.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
