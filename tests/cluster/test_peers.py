"""Large values that go from node to node: the line between them, and what they do without one."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import mars
import mars.remote as mr
from mars import platform
from mars.engines.cluster import carrier, line
from mars.engines.cluster.pairs import Pairs
from mars.engines.cluster.peers import Peers
from tests.cluster.test_loss import Held, dask_first, held, large

__all__ = ["held"]  # a fixture

Session = mars.session.Session
KEY = bytes(32)
SIZE = 10_000_000
VALUE = (7, 1, SIZE, 0, SIZE)  # attempt, arena, its size, offset, length


class End:
    """A node's end of lines to others: its thread, what it told its driver, and one arena."""

    def __init__(self, content: bytes = b"") -> None:
        self.said: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.put_off: list[int] = []
        self.file = platform.memory_file("test")
        os.ftruncate(self.file, SIZE)
        os.pwrite(self.file, content, 0)
        self._acts: queue.Queue[Callable[[], object] | None] = queue.Queue()
        self.peers = Peers(
            "127.0.0.1", (0, 0), None, None, self._acts.put, lambda *words: self.said.put(words),
            self._copy, self.put_off.append, self.write,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while (act := self._acts.get()) is not None:
            act()

    def _copy(self, number: int, offset: int, length: int) -> Iterator[carrier.Part]:
        return carrier.parts(carrier.File(self.file), (carrier.BYTES, number, SIZE), offset, length)

    def write(self, number: int, size: int, offset: int, data: memoryview) -> None:
        os.pwrite(self.file, data, offset)

    def act(self, *message: Any) -> None:
        """What a driver says."""
        self.do(lambda: self.peers.act(message))

    def do(self, act: Callable[[], object]) -> None:
        """Have something done in the node's thread."""
        self._acts.put(act)

    def tells(self) -> tuple[Any, ...]:
        return self.said.get(timeout=20)

    def close(self) -> None:
        self._acts.put(self.peers.close)
        self._acts.put(None)
        self._thread.join()
        os.close(self.file)


@pytest.fixture
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def ends(content: bytes) -> Iterator[tuple[End, End]]:
    """A node that has a value, and one that is to get it; the first has a door open."""
    both = End(content), End()
    both[0].act(carrier.OPEN, 3, KEY)
    yield both
    for end in both:
        end.close()


def test_a_node_gets_values_from_another_one_and_says_when_it_has_all(
    ends: tuple[End, End], content: bytes
) -> None:
    one, two = ends
    kind, meeting, place = one.tells()
    assert (kind, meeting) == (carrier.OPENED, 3)
    two.act(carrier.MEET, 3, place, KEY)
    two.act(carrier.GET, 3, *VALUE)  # asked for as soon as they have met
    assert two.tells() == (carrier.GOT, 1, 0, SIZE, True)
    assert os.pread(two.file, SIZE, 0) == content
    assert one.put_off == [7]
    os.ftruncate(one.file, 0)
    one.act(carrier.GET, 3, *VALUE)  # and the other way, through the same line
    assert one.tells() == (carrier.GOT, 1, 0, SIZE, True)
    assert os.pread(one.file, SIZE, 0) == content
    with pytest.raises(OSError):
        line.reach(place, KEY, None)  # the door has closed behind the first one


def test_who_does_not_know_the_key_of_a_meeting_gets_nothing(ends: tuple[End, End]) -> None:
    one, two = ends
    *_, place = one.tells()
    two.act(carrier.MEET, 3, place, b"another key")
    two.act(carrier.GET, 3, *VALUE)
    assert two.tells() == (carrier.GOT, 1, 0, 0, False)
    assert two.tells() == (carrier.PARTED, 3)
    one.act(carrier.PART, 3)  # as the driver says then
    one.act(carrier.GET, 3, *VALUE)
    assert one.tells() == (carrier.GOT, 1, 0, 0, False)
    with pytest.raises(OSError):
        line.reach(place, KEY, None)


class Slow:
    """Has a value come so far and no further, until it may."""

    def __init__(self, end: End) -> None:
        self.began, self.may = threading.Event(), threading.Event()
        write = end.write

        def slow(number: int, size: int, offset: int, data: memoryview) -> None:
            if offset:
                self.began.set()
                assert self.may.wait(20)
            write(number, size, offset, data)

        end.peers._write = slow


@pytest.mark.parametrize("how", ["dropped", "cut"])
def test_a_value_whose_way_ends_early_is_no_value_and_nothing_of_it_comes_later(
    ends: tuple[End, End], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = ends
    *_, place = one.tells()
    slow = Slow(two)
    ended = threading.Event()  # at the node that sends
    drop = line.Line.drop

    def noted(ours: line.Line, what: Any) -> bool:
        left = drop(ours, what)
        ended.set()
        return left

    monkeypatch.setattr(line.Line, "drop", noted)
    two.act(carrier.MEET, 3, place, KEY)
    two.act(carrier.GET, 3, *VALUE)
    assert slow.began.wait(20)
    if how == "dropped":
        two.act(carrier.UNGET, 1, 0)
    else:
        one.act(carrier.PART, 3)
        one.do(ended.set)
    assert ended.wait(20)
    slow.may.set()
    kind, arena, offset, count, whole = two.tells()
    assert (kind, arena, offset, whole) == (carrier.GOT, 1, 0, False)
    assert line.PART_BYTES <= count < SIZE
    assert os.pread(two.file, SIZE, 0)[count:] == bytes(SIZE - count)
    if how == "cut":
        assert two.tells() == (carrier.PARTED, 3)


# -- nodes in processes of their own -----------------------------------------------------------


def total(array: np.ndarray) -> tuple[int, str]:
    return int(array.sum()), mars.get_context().worker_address


@dask_first
def test_calls_on_another_node_read_a_value_that_has_not_come_to_the_program(
    held: Held, two_nodes: Session, tmp_path: Path
) -> None:
    first, second = two_nodes.get_worker_addresses()
    made = mr.spawn(large, (tmp_path / "runs",), expect_worker=first)
    there = mr.spawn(total, (made,), expect_worker=second)
    assert there.execute().fetch() == (sum(range(2_000_000)), second)
    assert made.states() == ["done"] and made.errors() == [None]
    held.may.set()
    assert (made.fetch() == np.arange(2_000_000)).all()  # which has it brought here
    assert len(made.attempts()) == 1


@dask_first
@pytest.mark.parametrize(
    "why",
    [
        "not let in",
        pytest.param("nobody there", marks=pytest.mark.campaign),
        pytest.param("no door", marks=pytest.mark.campaign),
    ],
)
def test_nodes_that_do_not_reach_each_other_have_the_program_pass_it_on(
    apart: None, two_nodes: Session, tmp_path: Path, lines: Callable[[object], list[str]],
    monkeypatch: pytest.MonkeyPatch, why: str,
) -> None:  # fmt: skip
    opened = Pairs.opened
    met: list[str] = []

    def misled(pairs: Pairs, number: int, place: tuple[str, int]) -> None:
        met.append(why)
        if why == "not let in":
            pairs._pairs[number].key = bytes(32)
        opened(pairs, number, {"nobody there": (place[0], 1), "no door": None}.get(why, place))

    monkeypatch.setattr(Pairs, "opened", misled)
    first, second = two_nodes.get_worker_addresses()
    for _ in range(2):
        made = mr.spawn(large, (tmp_path / "runs",), expect_worker=first)
        there = mr.spawn(total, (made,), expect_worker=second)
        assert there.execute().fetch() == (sum(range(2_000_000)), second)
    assert met == [why]  # and not again so soon
    assert len(lines(tmp_path / "runs")) == 2


@dask_first
def test_a_value_that_another_node_has_got_is_not_lost_with_its_maker(
    held: Held, two_nodes: Session, tmp_path: Path, lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"
    first, second = two_nodes.get_worker_addresses()
    made = mr.spawn(large, (ledger,), expect_worker=first)
    there = mr.spawn(total, (made,), expect_worker=second)
    assert there.execute().fetch() == (sum(range(2_000_000)), second)
    psutil.Process(int(lines(ledger)[0].split()[1])).kill()
    run = made.execute(wait=False)
    held.may.set()
    run.result(60)
    assert (made.fetch() == np.arange(2_000_000)).all()
    assert len(lines(ledger)) == 1
