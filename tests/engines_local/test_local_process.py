"""Messages to one worker process: in order, whole, and with their descriptors, or it has to end."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from mars.engines.local import process as module
from mars.engines.local.process import LocalProcess, Watch
from mars.engines.wire import messages
from mars.engines.wire.frames import Inbox

LARGE = b"x" * 4_000_000
"""More than a socket takes at once."""


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


@pytest.fixture
def process(watch: Watch) -> Iterator[LocalProcess]:
    """A worker whose process is this very test: it has not taken its descriptors."""
    process = LocalProcess(1, watch)
    process.listen(lambda process, mask: process.send_pending())
    yield process
    process.unlisten()
    os.close(process._outbox_file)
    process.close()
    process.segment.close()


def received(process: LocalProcess, inbox: Inbox, watch: Watch, count: int) -> list[Any]:
    """What comes out at the other end, while this end sends what had to wait."""
    found: list[Any] = []
    while len(found) < count:
        inbox.receive()
        found += [pickle.loads(data) for _, data in inbox.frames()]
        watch.wait(0.0)
    return found


def reply(number: int, answer: bytes = b"") -> messages.ToWorker:
    return messages.REPLY, number, answer


def test_what_a_full_socket_does_not_take_comes_later_and_in_order(
    process: LocalProcess, watch: Watch
) -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    process.send(reply(1, LARGE))
    process.send(reply(2))
    process.send((messages.ARENA, 7, 1), (descriptor,))
    os.close(descriptor)  # whose it is need not keep it
    process.send(reply(3))
    inbox = Inbox(process._their_data)
    found = received(process, inbox, watch, 4)
    assert [one[1] for one in found] == [1, 2, 7, 3] and found[0][2] == LARGE
    (arena,) = inbox.descriptors
    assert os.fstat(arena).st_rdev == os.stat(os.devnull).st_rdev
    inbox.close()
    assert not process.missed


def test_a_descriptor_that_cannot_be_kept_until_its_turn_costs_the_worker_and_no_more(
    process: LocalProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.send(reply(1, LARGE))
    monkeypatch.setattr(module, "TRY_AGAIN_S", 0.0)

    def refuse(_: int) -> int:
        raise OSError(24, "no descriptor is left")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "dup", refuse)
        process.send((messages.ARENA, 7, 1), (0,))
    assert process.missed


def test_nothing_is_sent_to_a_worker_that_has_ended(process: LocalProcess) -> None:
    process.deaf = True
    process.send(reply(1))
    with pytest.raises(BlockingIOError):
        Inbox(process._their_data).receive(block=False)
