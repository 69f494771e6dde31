"""What objects take is counted right, however many workers have come and gone."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mars import platform
from mars.calls.options import DEFAULT_OPTIONS
from mars.engine import Run, SessionRealm
from mars.engines.driver.store import Store
from mars.engines.wire.arena import Allocator
from mars.engines.wire.ledger import Ledger
from mars.engines.wire.regions import ON_DISK, OWNER_SHIFT
from mars.task import Call, Function

MIB = 1024 * 1024


class Worker:
    """The part of a worker process that the store has to do with, in this process."""

    def __init__(self, store: Store, number: int, directory: str) -> None:
        self.store, self.number = store, number
        place = store.worker_starts(number)
        self.ledger = Ledger(store.ledger_descriptor, place, store.ledger.budget_bytes)
        self.allocator = Allocator(number, self._announce, self.ledger, directory)

    def _announce(self, number: int, descriptor: int, size: int) -> None:
        self.store.add_arena(number, os.dup(descriptor), size)

    def make(self, size: int) -> Any:
        value = (None, *self.allocator.put([os.urandom(size)], "a result"))
        self.store.arrived(value)
        return value

    def take_news(self, news: list[Any]) -> None:
        for worker, unmap, free in news:
            if worker == self.number and unmap is not None:
                self.store.unmapped(*unmap, self.number)
            if worker == self.number and free is not None:
                self.allocator.free(*free)

    def end(self) -> None:
        self.allocator.close()
        self.ledger.close()
        self.store.worker_ended(self.number)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(lambda action: None, 2**40, str(tmp_path))
    yield made
    made.close()


def in_memory(store: Store) -> int:
    """Bytes that all arenas in memory take, as the system counts them."""
    return sum(
        platform.held_bytes(descriptor)
        for number, (descriptor, _) in store._arenas.items()
        if not number & ON_DISK
    )


def test_a_kept_result_of_a_worker_that_ended_counts_until_it_is_dropped(
    store: Store, tmp_path: Path
) -> None:
    first = Worker(store, 1, str(tmp_path))
    kept, dropped = first.make(4 * MIB), first.make(2 * MIB)
    store.discard(dropped)
    assert store.ledger.total() == 6 * MIB
    first.end()
    assert store.ledger.total() == in_memory(store) == 4 * MIB
    for number in range(2, 1200):  # the engine never gives out a number twice
        worker = Worker(store, number, str(tmp_path))
        worker.make(64 * 1024)
        assert store.ledger.total() > 4 * MIB
        store.discard(worker.make(64 * 1024))
        worker.end()
        store.discard((None, (number << OWNER_SHIFT) + 1, 0, 64 * 1024, (64 * 1024,)))
        assert store.ledger.total() == 4 * MIB
    store.worker_ended(1 + 512)  # nobody
    assert store.ledger.total() == in_memory(store) == 4 * MIB
    store.discard(kept)
    assert store.ledger.total() == in_memory(store) == 0


@pytest.mark.parametrize("seed", range(8))
def test_the_ledger_is_right_in_any_history_of_workers_and_values(
    store: Store, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    workers: list[Worker] = []
    values: list[Any] = []
    number = 0
    for _ in range(400):
        step = chance.random()
        if step < 0.15 or not workers:
            number += 1
            workers.append(Worker(store, number, str(tmp_path)))
        elif step < 0.3:
            workers.pop(chance.randrange(len(workers))).end()
        elif step < 0.7:
            values.append(chance.choice(workers).make(chance.randrange(1, MIB)))
        elif values:
            store.discard(values.pop(chance.randrange(len(values))))
        news = store.take_news()
        for worker in workers:
            worker.take_news(news)
        assert store.ledger.total() == in_memory(store)
    for value in values:
        store.discard(value)
    for worker in workers:
        worker.end()
    assert store.ledger.total() == in_memory(store) == 0
    assert not store._arenas and not store._regions and not store._places


def test_runs_of_a_series_share_what_they_store(store: Store) -> None:
    data, realm, series = bytearray(4 * MIB), SessionRealm(None), object()  # type: ignore[arg-type]
    function = Function(b"key", "of_data", b"pickle")
    runs = [Run("", realm) for _ in range(4)]

    def prepare(run: Run) -> int:
        call = Call(function, b"", (pickle.PickleBuffer(data),), (), DEFAULT_OPTIONS, None)
        store.prepare(call, run)
        return store.ledger.total()

    for run in runs[:3]:
        run.series = series
        assert prepare(run) == 4 * MIB
    assert prepare(runs[3]) == 8 * MIB  # of no series
    store.abandon(runs[3])
    store.run_ended(runs[0])
    store.run_ended(runs[1])
    assert store.ledger.total() >= 4 * MIB
    assert prepare(runs[2]) == store.ledger.total()  # it is there still
    store.run_ended(runs[2])
    again = Run("", realm)
    again.series = series
    assert prepare(again) > 0  # stored anew
    store.run_ended(again)
    assert store._series == {} and store._shared == {}


def test_a_value_whose_arena_has_gone_can_be_dropped(store: Store, tmp_path: Path) -> None:
    worker = Worker(store, 1, str(tmp_path))
    value = worker.make(MIB)
    store.discard(value)
    worker.end()
    assert value[1] not in store._live
    store.discard(value)
    assert (store._regions, in_memory(store)) == ({}, 0)
