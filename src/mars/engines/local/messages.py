"""All that crosses between the driver, the zygote and the workers, and its framing.

A frame is a header and a pickle of a tuple whose first item says what it is. Finished calls
are the exception: they come as packed records, because a worker keeps them in shared memory
until it reports them, where they outlive it.

Sockets lose nothing, but a call can write to the socket of its worker, read from it, or fork a
process that does. So a header has two checks: of the frame's content, and of the header together
with all headers before it. What is lost, repeated, out of order or forged fits neither, and is
seen at its header, before anything waits for a length that nobody meant.

::

    driver ──(TASKS, ARENA, FREE, REPLY, STOP)──────────────────► worker     data socket
    driver ◄──(records; ARENA, UNMAPPED, SUBMIT, WAIT, ASK, …)─── worker     data socket
    driver ──(TAKE_BACK, REPORT, COOL)──────────────────────────► worker     control socket
    driver ──(FORK, SIGNAL)──► zygote ──(STARTED, ENDED, PAGES)──► driver    zygote socket
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
from typing import Any, Final
from zlib import crc32

from mars import platform
from mars.errors import InternalError
from mars.settings import RECEIVE_BYTES

HEADER: Final = struct.Struct("<III")
"""Length with the flag, check of the content, check of this header and those before it."""
_FACTS: Final = struct.Struct("<II")
_CHECKED_BYTES: Final = 128
"""Of the content's beginning and end, each: what is cut off or put in moves its end, and so a
check of 64 KiB costs less than 1 us, not 40."""

RECORDS_FLAG: Final = 0x8000_0000
"""Set in a frame's length: the frame is records, not a pickle."""

MAX_FRAME_BYTES: Final = 0x7FFF_FFFF

# driver -> worker
TASKS: Final = "tasks"
FREE: Final = "free"
REPLY: Final = "reply"
STOP: Final = "stop"
AS_BEFORE: Final = "as before"
"""In place of the surroundings of a run: those that the worker was told of last."""

TAKE_BACK: Final = "take back"
REPORT: Final = "report"
COOL: Final = "cool"
"""Nothing has been freed for a while: what is kept for the next values goes back to the system."""

# both ways
ARENA: Final = "arena"

# worker -> driver
READY: Final = "ready"
LEAVING: Final = "leaving"
REPORTED: Final = "reported"
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

SIGNAL: Final = "signal"
STARTED: Final = "started"
"""With a descriptor of the process, if its last item is true."""

ENDED: Final = "ended"
PAGES: Final = "pages"
"""With a descriptor, for `LargePages`; about no worker."""

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


_SHAPES: Final[dict[str, tuple[type, ...]]] = {
    READY: (),
    LEAVING: (),
    REPORTED: (),
    ARENA: (int, int),
    GAVE_BACK: (list,),
    UNMAPPED: (int, int),
    SUBMIT: (int, tuple, list),
    WAIT: (int, int),
    WAITED: (int, int),
    CANCEL: (int,),
    ASK: (int, str, object),
    PROGRESS: (int, float),
}


class BadFrame(ValueError):
    """What came is no frame of ours, or not the next one."""


def _check_of(content: bytes | memoryview) -> int:
    if len(content) <= 2 * _CHECKED_BYTES:
        return crc32(content)
    return crc32(content[-_CHECKED_BYTES:], crc32(content[:_CHECKED_BYTES]))


class Outgoing:
    """Makes the frames that go one way through one socket, in the order in which they go."""

    def __init__(self) -> None:
        self._check = 0  # of all headers so far

    def frame(self, message: tuple[Any, ...]) -> bytes:
        """A message as the next frame.

        Raises
        ------
        InternalError
            It is too large for one frame; large values belong in an arena.
        """
        return self.wrap(pickle.dumps(message, 5))

    def wrap(self, content: bytes, flag: int = 0) -> bytes:
        """The next frame, of a pickle or, with `RECORDS_FLAG`, of records.

        Raises
        ------
        InternalError
            As of `frame`.
        """
        if len(content) > MAX_FRAME_BYTES:
            raise InternalError(f"a message of {len(content):,} bytes is too large")
        facts = _FACTS.pack(len(content) | flag, _check_of(content))
        self._check = crc32(facts, self._check)
        return facts + self._check.to_bytes(4, "little") + content


def from_worker(content: memoryview) -> tuple[Any, ...]:
    """A message of a worker, of a kind and with items as it may send.

    Raises
    ------
    BadFrame
        It is none.
    BaseException
        Unpickling can raise anything.
    """
    message = pickle.loads(content)
    if not isinstance(message, tuple) or not message or not isinstance(message[0], str):
        raise BadFrame("it is no message")
    shape = _SHAPES.get(message[0])
    if (
        shape is None
        or len(shape) != len(message) - 1
        or not all(map(isinstance, message[1:], shape))
    ):
        raise BadFrame(f"no worker sends a message {message[0]!r:.40} like this")
    return message


class Inbox:
    """Turns received bytes into frames. A frame that is cut off at the end is never seen."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.descriptors: list[int] = []
        self._buffer = bytearray()
        self._check = 0  # as `Outgoing` has it at the other end
        self._bad = ""  # why nothing more is read

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
        """Complete frames: whether each holds records, and its bytes.

        Raises
        ------
        BadFrame
            The first bytes that are left are not the next frame. Those before them are given
            first, so ask until nothing comes.
        """
        buffer = self._buffer
        filled = len(buffer)
        if self._bad:
            raise BadFrame(self._bad)
        if filled < HEADER.size:
            return []
        start = 0
        checks: list[int] = []
        ends: list[tuple[bool, int, int]] = []
        while filled - start >= HEADER.size:
            length, content_check, check = HEADER.unpack_from(buffer, start)
            if crc32(buffer[start : start + _FACTS.size], self._check) != check:
                self._bad = "a header that is not the next one"
                break
            size = length & MAX_FRAME_BYTES
            begin = start + HEADER.size
            end = begin + size
            if end > filled:
                break
            self._check = check
            checks.append(content_check)
            ends.append((length != size, begin, end))
            start = end
        if not start:
            if self._bad:
                raise BadFrame(self._bad)
            return []
        taken = memoryview(bytes(buffer) if start == filled else bytes(buffer[:start]))
        del buffer[:start]
        frames = [(records, taken[begin:end]) for records, begin, end in ends]
        for index, content_check in enumerate(checks):
            if _check_of(frames[index][1]) != content_check:
                self._bad = "content that is not what its header says"
                return frames[:index] if index else self.frames()
        return frames

    def close(self) -> None:
        """Close the socket and descriptors that nobody took."""
        self.sock.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
