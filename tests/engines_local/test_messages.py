"""Frames between processes: whole or not at all, however the bytes arrive."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars import platform
from mars.engines.local import messages
from mars.engines.local.messages import HEADER, RECORD, RECORDS_FLAG, TIMES, Inbox
from mars.errors import InternalError

Pair = tuple[socket.socket, Inbox]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A socket to write to, and the inbox at its other end."""
    ours, theirs = socket.socketpair()
    inbox = Inbox(theirs)
    yield ours, inbox
    ours.close()
    inbox.close()


def received(data: bytes, cuts: list[int]) -> list[tuple[bool, bytes]]:
    """What an inbox makes of bytes that come in pieces; looked at after each piece."""
    inbox = Inbox(cast(socket.socket, None))
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        inbox._buffer += data[start:end]  # as `receive` does
        found += [(records, bytes(frame)) for records, frame in inbox.frames()]
    return found


def framed(content: bytes, records: bool) -> bytes:
    return HEADER.pack(len(content) | (RECORDS_FLAG if records else 0)) + content


CONTENTS = st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=6)


@given(CONTENTS, st.lists(st.integers(0, 10_000), max_size=12))
@settings(deadline=None, derandomize=True, database=None, max_examples=200)
def test_frames_come_out_as_they_went_in(
    frames: list[tuple[bytes, bool]], places: list[int]
) -> None:
    data = b"".join(framed(*frame) for frame in frames)
    cuts = sorted(place % len(data) for place in places)
    assert received(data, cuts) == [(records, content) for content, records in frames]


@given(CONTENTS, st.integers(0, 10_000))
@settings(deadline=None, derandomize=True, database=None, max_examples=200)
def test_a_frame_that_is_cut_off_is_never_seen(
    frames: list[tuple[bytes, bool]], place: int
) -> None:
    data = b"".join(framed(*frame) for frame in frames)
    cut = place % len(data)
    found = received(data[:cut], [])
    assert found == [(records, content) for content, records in frames][: len(found)]
    assert sum(4 + len(content) for _, content in found) <= cut
    assert len(found) < len(frames)


def test_a_message_over_a_socket(pair: Pair) -> None:
    ours, inbox = pair
    message = (messages.TASKS, {1: "f"}, {}, [(1, 2, b"payload")])
    data = messages.frame(message)
    ours.sendall(data[:7])
    assert inbox.receive()
    assert inbox.frames() == []
    ours.sendall(data[7:])
    assert inbox.receive()
    ((records, frame),) = inbox.frames()
    assert not records
    assert pickle.loads(frame) == message
    assert inbox.frames() == []


def test_the_end_of_the_stream_is_told_after_what_came_before(pair: Pair) -> None:
    ours, inbox = pair
    ours.sendall(messages.frame((messages.READY,)) + b"\x05\x00\x00\x00cut")
    ours.close()
    assert inbox.receive()
    assert len(inbox.frames()) == 1
    assert not inbox.receive()
    assert inbox.frames() == []


def test_nothing_there_is_no_end(pair: Pair) -> None:
    _, inbox = pair
    inbox.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        inbox.receive()


def test_descriptors_come_in_the_order_of_their_messages(pair: Pair) -> None:
    ours, inbox = pair
    sent = []
    for number in range(3):
        read, write = os.pipe()
        os.write(write, b"%d" % number)
        data = messages.frame((messages.ARENA, number, 1))
        assert platform.send(ours, data, (read,)) == len(data)
        sent.append((read, write))
    numbers = []
    while len(numbers) < 3:
        assert inbox.receive()
        numbers += [pickle.loads(frame)[1] for _, frame in inbox.frames()]
    assert numbers == [0, 1, 2]
    assert [os.read(descriptor, 1) for descriptor in inbox.descriptors] == [b"0", b"1", b"2"]
    for read, write in sent:
        os.close(read)
        os.close(write)


def test_descriptors_that_nobody_took_are_closed() -> None:
    ours, theirs = socket.socketpair()
    inbox = Inbox(theirs)
    read, write = os.pipe()
    platform.send(ours, b"x", (read,))
    inbox.receive()
    (received,) = inbox.descriptors
    inbox.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(received)
    for descriptor in (read, write):
        os.close(descriptor)
    ours.close()


def test_a_message_too_large_for_a_frame_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_FRAME_BYTES", 100)
    with pytest.raises(InternalError, match="too large"):
        messages.frame((messages.TASKS, b"x" * 200))


def test_the_times_of_a_record_are_where_they_are_said_to_be() -> None:
    times = (10, 20, 30, 40, 50)
    record = RECORD.pack(7, 1, 2, 100, 200, *times, 0, 0)
    assert len(record[TIMES]) == 5 * 8
    assert [
        int.from_bytes(record[TIMES][start : start + 8], "little") for start in range(0, 40, 8)
    ] == list(times)


def test_the_parts_of_the_outbox_do_not_overlap() -> None:
    assert messages.OUTBOX_FILLED.size <= messages.OUTBOX_RUNNING_AT
    running_end = messages.OUTBOX_RUNNING_AT + messages.OUTBOX_RUNNING.size
    assert running_end <= messages.OUTBOX_INTERRUPT_AT
    assert messages.OUTBOX_INTERRUPT_AT + messages.OUTBOX_INTERRUPT.size <= messages.OUTBOX.size
