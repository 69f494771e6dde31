"""Long lives: what a session takes does not grow with what it has done.

Memory of the driver and of its processes, descriptors and processes, over many runs. The
allocator takes new pages now and then, wherever the program is. So growth is looked at from a warm
start, over several stretches of the same length: what is kept of each run shows in all of them.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr
from mars.observe import attempts
from mars.observe.attempts import Attempts
from tests.faults.campaign import lengths

np = pytest.importorskip("numpy")

MIB = 1 << 20
BATCH = 10_000
STRETCHES = 4


class Footprint:
    """What this process and those below it take."""

    def __init__(self) -> None:
        gc.collect()
        self.me = psutil.Process()
        self.below = {child.pid: child for child in self.me.children(recursive=True)}
        self.bytes = {pid: one.memory_info().rss for pid, one in self.below.items()}
        self.bytes[self.me.pid] = self.me.memory_info().rss
        self.descriptors = {
            pid: set(os.listdir(f"/proc/{pid}/fd")) for pid in (self.me.pid, *self.below)
        }

    def since(self, before: Footprint, allowed_bytes: float) -> list[str]:
        """What is more than before, in words."""
        assert self.below.keys() == before.below.keys(), "other processes than before"
        found = []
        for pid, now in self.bytes.items():
            grown = now - before.bytes[pid]
            who = "the driver" if pid == self.me.pid else " ".join(self.below[pid].cmdline())[:60]
            if grown > allowed_bytes:
                found.append(f"{who} has grown by {grown / MIB:.2f} MiB")
            more = len(self.descriptors[pid]) - len(before.descriptors[pid])
            if more > 0:
                found.append(f"{who} has {more} descriptors more")
        return found


def assert_keeps_its_size(stretch: Callable[[], None], allowed_bytes: float) -> None:
    """In one of some stretches at least, nothing grows by more."""
    found = []
    for _ in range(STRETCHES):
        before = Footprint()
        stretch()
        more = Footprint().since(before, allowed_bytes)
        if not more:
            return
        found.append(", ".join(more))
    pytest.fail(f"in each of {STRETCHES} stretches: {'; '.join(found)}")


@pytest.fixture
def session_of_short_memory(
    session: mars.session.Session, monkeypatch: pytest.MonkeyPatch
) -> mars.session.Session:
    """Its table of attempts has room for a thousand, so that what else grows is seen.

    It takes some 131 bytes a call, and is full at a million of them; and 200 bytes a run, of which
    it keeps 65 536.
    """
    monkeypatch.setattr(attempts, "RUNS_KEPT", 1000)
    engine: Any = session.engine
    known = engine.loop.scheduler.core.ended
    engine.loop.scheduler.core.ended = table = Attempts(limit=1000)
    table.workers.update(known.workers)
    return session


def nothing(_: int) -> None: ...


def asks(index: int) -> int:
    value: int = mr.spawn(abs, args=(-index,)).execute().fetch()
    return value


def refuses(index: int) -> None:
    raise ValueError(index)


@lengths("tasks", 30_000, 1_000_000, 900)
def test_memory_does_not_grow_with_the_number_of_calls(
    tasks: int, session_of_short_memory: mars.session.Session
) -> None:
    """At most 1 MiB for each 100 000, in the driver and in each worker."""

    def run() -> None:
        mr.ExecutableTuple([mr.spawn(nothing, args=(i,)) for i in range(BATCH)]).execute()

    for _ in range(3):
        run()

    def stretch() -> None:
        for _ in range(tasks // BATCH):
            run()

    # The allocator's own ups and downs, of some ten thousand calls alive at a time.
    assert_keeps_its_size(stretch, 2 * MIB + tasks / 100_000 * MIB)


def one_call(index: int) -> None:
    assert mr.spawn(abs, args=(-index,)).execute().fetch() == index


def one_captured_array(index: int) -> None:
    array = np.full(20_000, index)
    assert mr.spawn(lambda: int(array[-1])).execute().fetch() == index


def one_closure(index: int) -> None:
    data = bytes(10_000)
    assert mr.spawn(lambda: index + len(data)).execute().fetch() == index + len(data)


def one_nested(index: int) -> None:
    assert mr.spawn(asks, args=(index,)).execute().fetch() == index


def one_failure(index: int) -> None:
    with pytest.raises(ValueError, match=str(index)):
        mr.spawn(refuses, args=(index,)).execute()


def one_log(index: int) -> None:
    assert str(mr.spawn(print, args=(index,)).execute().fetch_log()) == f"{index}\n"


def one_large(index: int) -> None:
    assert len(mr.spawn(bytes, args=(200_000 + index,)).execute().fetch()) == 200_000 + index


def one_map(index: int) -> None:
    assert mr.map(abs, range(index, index + 5)).execute().fetch()[0] == index


def one_future(index: int) -> None:
    assert mr.spawn(abs, args=(index,)).execute(wait=False).result(20).fetch() == index


KINDS: dict[str, Callable[[int], None]] = {
    kind.__name__: kind
    for kind in (
        one_call, one_captured_array, one_closure, one_nested, one_failure, one_log, one_large,
        one_map, one_future,
    )
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@lengths("runs", 2000, 100_000, 900)
def test_memory_does_not_grow_with_the_number_of_runs(
    kind: str, runs: int, session_of_short_memory: mars.session.Session
) -> None:
    """A loop that executes one call at a time: nothing stays of a run when it is over."""
    run = KINDS[kind]
    for index in range(1000):
        run(index)

    def stretch() -> None:
        for index in range(runs):
            run(index)

    # A hundred bytes kept of each run are seen in the campaign, a thousand in the slice.
    assert_keeps_its_size(stretch, MIB + 40 * runs)


def test_more_functions_than_a_worker_keeps_are_all_called_right(
    session: mars.session.Session,
) -> None:
    """What it forgot is sent again, also while calls of many functions are queued in it."""
    functions = [lambda index=index: index for index in range(1500)]
    for _ in range(3):
        calls = [mr.spawn(function) for function in functions]
        assert mr.ExecutableTuple(calls).execute().fetch() == list(range(1500))
