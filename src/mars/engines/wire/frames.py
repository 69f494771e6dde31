"""The frames in which processes of ours send messages to each other through a socket.

A frame is a header and its content: the pickle of a message, or records of finished calls; see
`messages`. Every process that sends uses `Outgoing`, and every process that receives `Inbox`.

Sockets lose nothing. But a call can write to the socket of its worker, read from it, or fork a
process that does. So a header has two checks: one of the frame's content, and one of this header
together with all headers before it. A frame that is lost, repeated, out of order or forged does
not fit these checks. The receiver sees that at the header, before it waits for a length that
nobody meant.
"""

from __future__ import annotations

import os
import pickle
import struct
from typing import Final
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

_HEADER_BYTES: Final = HEADER.size
_FACTS_BYTES: Final = _FACTS.size
_header_of: Final = HEADER.unpack_from

RECORDS_FLAG: Final = 0x8000_0000
"""Set in a frame's length: the frame is records, not a pickle."""

MAX_FRAME_BYTES: Final = 0x7FFF_FFFF


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

    def frame(self, message: tuple[object, ...]) -> bytes:
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


class Inbox:
    """Turns received bytes into frames. A frame that is cut off at the end is never seen."""

    def __init__(self, sock: platform.Socket) -> None:
        self.sock = sock
        self.descriptors: list[int] = []
        self._buffer: bytes | bytearray = b""  # what came and is in no frame yet
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
        if not self._buffer:
            self._buffer = data
        elif data:
            if type(self._buffer) is bytes:
                self._buffer = bytearray(self._buffer)
            self._buffer += data  # a long frame grows in place
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
        if filled < _HEADER_BYTES:
            return []
        length, content_check, check = _header_of(buffer)
        if (
            length & MAX_FRAME_BYTES == filled - _HEADER_BYTES
            and type(buffer) is bytes
            and crc32(buffer[:_FACTS_BYTES], self._check) == check
            and _check_of(content := memoryview(buffer)[_HEADER_BYTES:]) == content_check
        ):
            # Most often it is one frame, all of it. Whatever else it is, is found out below.
            self._check, self._buffer = check, b""
            return [(length > MAX_FRAME_BYTES, content)]
        start = 0
        checks: list[int] = []
        ends: list[tuple[bool, int, int]] = []
        while filled - start >= _HEADER_BYTES:
            length, content_check, check = _header_of(buffer, start)
            if crc32(buffer[start : start + _FACTS_BYTES], self._check) != check:
                self._bad = "a header that is not the next one"
                break
            size = length & MAX_FRAME_BYTES
            begin = start + _HEADER_BYTES
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
        self._buffer = buffer[start:]
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
