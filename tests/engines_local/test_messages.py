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
from mars.engines.wire import frames, messages
from mars.engines.wire.frames import HEADER, RECORDS_FLAG, BadFrame, Inbox, Outgoing
from mars.engines.wire.messages import UNMEASURED
from mars.errors import InternalError
from mars.task import RECORD, TIMES

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


def framed(frames: list[tuple[bytes, bool]]) -> list[bytes]:
    """Frames as one end sends them, in order."""
    outgoing = Outgoing()
    return [outgoing.wrap(content, RECORDS_FLAG if records else 0) for content, records in frames]


CONTENTS = st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=6)


@given(CONTENTS, st.lists(st.integers(0, 10_000), max_size=12))
@settings(deadline=None, derandomize=True, database=None, max_examples=200)
def test_frames_come_out_as_they_went_in(
    frames: list[tuple[bytes, bool]], places: list[int]
) -> None:
    data = b"".join(framed(frames))
    cuts = sorted(place % len(data) for place in places)
    assert received(data, cuts) == [(records, content) for content, records in frames]


@given(CONTENTS, st.integers(0, 10_000))
@settings(deadline=None, derandomize=True, database=None, max_examples=200)
def test_a_frame_that_is_cut_off_is_never_seen(
    frames: list[tuple[bytes, bool]], place: int
) -> None:
    data = b"".join(framed(frames))
    cut = place % len(data)
    found = received(data[:cut], [])
    assert found == [(records, content) for content, records in frames][: len(found)]
    assert sum(HEADER.size + len(content) for _, content in found) <= cut
    assert len(found) < len(frames)


def spoiled(frames: list[bytes], fault: str, place: int, noise: bytes) -> bytes:
    """The bytes of frames after something happened to one of them, or between two."""
    index = place % len(frames)
    if fault == "lost":
        del frames[index]
    elif fault == "repeated":
        frames.insert(index, frames[index])
    elif fault == "late":
        frames.append(frames.pop(index))
    elif fault == "cut":
        frames[index] = frames[index][: place % len(frames[index])]
    elif fault == "cut in":
        middle = place % len(frames[index])
        frames[index] = frames[index][:middle] + noise + frames[index][middle:]
    return b"".join(frames)


@pytest.mark.parametrize("fault", ["lost", "repeated", "late", "cut", "cut in"])
@given(CONTENTS, st.integers(0, 10_000), st.binary(min_size=1, max_size=60), st.integers(0, 99))
@settings(deadline=None, derandomize=True, database=None, max_examples=100)
def test_what_is_lost_repeated_late_cut_or_mixed_with_noise_is_never_taken_for_a_frame(
    fault: str, frames: list[tuple[bytes, bool]], place: int, noise: bytes, cut: int
) -> None:
    more = [(b"what comes later" * 8, False)] * 2
    sent = framed([*frames, *more])
    data = spoiled(sent[:-2], fault, place, noise) + b"".join(sent[-2:])
    inbox = Inbox(cast(socket.socket, None))
    found: list[tuple[bool, bytes]] = []
    seen = False
    for part in (data[: cut % (len(data) + 1)], data[cut % (len(data) + 1) :]):
        inbox._buffer += part
        try:
            while taken := inbox.frames():
                found += [(records, bytes(frame)) for records, frame in taken]
        except BadFrame:
            seen = True
    assert found == [(records, content) for content, records in [*frames, *more]][: len(found)]
    assert seen or data == b"".join(sent)


def test_a_length_that_nobody_meant_is_not_waited_for() -> None:
    inbox = Inbox(cast(socket.socket, None))
    inbox._buffer += HEADER.pack(0x7FFF_FFFF, 0, 0)
    with pytest.raises(BadFrame):
        inbox.frames()


def test_frames_before_the_first_bad_one_are_taken() -> None:
    inbox = Inbox(cast(socket.socket, None))
    inbox._buffer += b"".join(framed([(b"one", False), (b"two", True)])) + b"noise" * 4
    assert [bytes(frame) for _, frame in inbox.frames()] == [b"one", b"two"]
    with pytest.raises(BadFrame):
        inbox.frames()


@pytest.mark.parametrize(
    "message",
    [7, (), ("what", 1), (messages.READY, 1), (messages.UNMAPPED, 1), (messages.WAIT, "x", 1)],
    ids=repr,
)
def test_a_pickle_that_is_no_message_of_a_worker_is_refused(message: object) -> None:
    with pytest.raises(BadFrame):
        messages.from_worker(memoryview(pickle.dumps(message)))


def test_a_message_over_a_socket(pair: Pair) -> None:
    ours, inbox = pair
    message = (messages.TASKS, {1: "f"}, {}, [(1, 2, b"payload")])
    data = Outgoing().frame(message)
    ours.sendall(data[:15])
    assert inbox.receive()
    assert inbox.frames() == []
    ours.sendall(data[15:])
    assert inbox.receive()
    ((records, frame),) = inbox.frames()
    assert not records
    assert pickle.loads(frame) == message
    assert inbox.frames() == []


def test_the_end_of_the_stream_is_told_after_what_came_before(pair: Pair) -> None:
    ours, inbox = pair
    outgoing = Outgoing()
    whole, cut = outgoing.frame((messages.READY,)), outgoing.frame((messages.LEAVING,))
    ours.sendall(whole + cut[:-3])
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
    outgoing = Outgoing()
    for number in range(3):
        read, write = os.pipe()
        os.write(write, b"%d" % number)
        data = outgoing.frame((messages.ARENA, number, 1))
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
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    with pytest.raises(InternalError, match="too large"):
        Outgoing().frame((messages.TASKS, b"x" * 200))


def test_the_times_of_a_record_are_where_they_are_said_to_be() -> None:
    times = (10, 20, 30, 40, 50)
    record = RECORD.pack(7, 1, 2, 100, 200, *times, 0, *UNMEASURED, 0)
    assert len(record[TIMES]) == 5 * 8
    assert [
        int.from_bytes(record[TIMES][start : start + 8], "little") for start in range(0, 40, 8)
    ] == list(times)


def test_the_parts_of_the_outbox_do_not_overlap() -> None:
    assert messages.OUTBOX_FILLED.size <= messages.OUTBOX_RUNNING_AT
    running_end = messages.OUTBOX_RUNNING_AT + messages.OUTBOX_RUNNING.size
    assert running_end <= messages.OUTBOX_INTERRUPT_AT
    assert messages.OUTBOX_INTERRUPT_AT + messages.OUTBOX_INTERRUPT.size <= messages.OUTBOX.size
