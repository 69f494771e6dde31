"""Nodes that come and go: what the program knows is of one moment, and nothing of them stays."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars
import mars.remote as mr
from mars.engines.cluster import nodes as cluster_nodes
from mars.engines.driver import loop as driver_loop
from mars.errors import NoAvailableBand
from mars.settings import CALL_MEMORY_SHARE

GIB = 1024**3
WaitUntil = Callable[..., None]


@pytest.mark.parametrize("direct", [False, True])
def test_of_nodes_that_left_nothing_stays(
    on_nodes: Callable[..., Any], apart: None, wait_until: WaitUntil, direct: bool
) -> None:
    there = on_nodes(1, direct=direct)
    session, loop, store = there.session, there.loop, there.store
    (stays,) = session.get_worker_addresses()
    kept = [mr.spawn(np.ones, args=(100_000,)).execute()]
    before = set(threading.enumerate())
    for _ in range(8):
        address = there.carrier.join()
        wait_until(lambda address=address: address in session.get_worker_addresses())
        kept.append(mr.spawn(np.ones, args=(100_000,), expect_worker=address).execute())
        mr.spawn(np.sum, args=(kept[0],), expect_worker=address).execute()
        there.carrier.lose(address)
        wait_until(lambda: session.get_worker_addresses() == [stays])

    def left() -> dict[str, int]:
        scheduler = loop.scheduler
        return {
            "groups": len(scheduler.groups),
            "nodes": len(there.nodes.shipping.nodes),
            "nodes of the store": len(there.nodes.mirrors.nodes),
            "nodes of the engine": len(there.cluster._nodes),
            "workers": len(scheduler.workers),
            "members": len(loop.members),
            "places": len(store._places),
            "of nodes": len({*there.nodes.shipping.nodes[0].workers} - loop.members.keys()),
        }

    expected = dict.fromkeys(left(), 1) | {"of nodes": 0}
    wait_until(lambda: there.in_loop(left) == expected)
    assert [value.fetch().sum() for value in kept] == [100_000] * 9
    del kept
    wait_until(lambda: not there.in_loop(lambda: set(store._arenas) - {1} - _of(loop)))
    wait_until(lambda: set(threading.enumerate()) <= before)


def _of(loop: Any) -> set[int]:
    """Arenas of workers that are there."""
    return {arena for member in loop.members.values() for arena in member.process.arenas}


def test_a_call_for_more_memory_than_the_nodes_that_are_left_have_is_refused(
    on_nodes: Callable[..., Any], wait_until: WaitUntil
) -> None:
    there = on_nodes(1)
    (first,) = there.session.get_worker_addresses()
    large = there.carrier.join(memory=1 << 50)
    wait_until(lambda: large in there.session.get_worker_addresses())
    memory = int(CALL_MEMORY_SHARE * (1 << 49))
    assert mr.spawn(abs, args=(-1,), memory=memory).execute().fetch() == 1
    with pytest.raises(NoAvailableBand, match="memory="):
        mr.spawn(abs, args=(-1,), memory=memory, expect_worker=first).execute()
    there.carrier.lose(large)
    wait_until(lambda: there.session.get_worker_addresses() == [first])
    with pytest.raises(NoAvailableBand, match="memory="):
        mr.spawn(abs, args=(-1,), memory=memory).execute()


def test_calls_are_checked_against_the_nodes_of_one_moment(
    on_nodes: Callable[..., Any], wait_until: WaitUntil
) -> None:
    there = on_nodes(2)
    engine, session = there.engine, there.session
    second = session.get_worker_addresses()[1]
    call = mr.spawn(abs, args=(-1,), expect_worker=second, memory=1).call
    nodes = list(there.nodes.shipping.nodes)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for some in (nodes[:1], [], nodes):
                there.nodes.shipping.nodes[:] = some
                there.cluster._nodes_changed()

    seen: set[type] = set()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(20_000):
            try:
                engine.check_schedulable(call)
            except Exception as error:
                seen.add(type(error))
    finally:
        done.set()
        changing.join()
        sys.setswitchinterval(interval)
    assert seen <= {NoAvailableBand}


def test_a_node_that_comes_back_under_its_old_address_is_used(
    on_nodes: Callable[..., Any], wait_until: WaitUntil
) -> None:
    there = on_nodes(1)
    (first,) = there.session.get_worker_addresses()
    second = there.carrier.join()
    wait_until(lambda: second in there.session.get_worker_addresses())
    for _ in range(3):
        there.carrier.lose(second)
        wait_until(lambda: there.session.get_worker_addresses() == [first])
        there.carrier.join(name=second.removeprefix("test://"))
        wait_until(lambda: second in there.session.get_worker_addresses())
        assert mr.spawn(abs, args=(-1,), expect_worker=second).execute().fetch() == 1


def test_a_call_that_becomes_ready_long_after_its_only_node_was_lost_does_not_wait_for_ever(
    on_nodes: Callable[..., Any],
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pass_gate: Callable[..., None],
) -> None:
    monkeypatch.setattr(cluster_nodes, "NODE_WAIT_S", 0.2)
    monkeypatch.setattr(driver_loop, "LOG_LOOK_S", 0.05)
    there = on_nodes(1)
    (first,) = there.session.get_worker_addresses()
    large = there.carrier.join(cpus=2)
    wait_until(lambda: large in there.session.get_worker_addresses())
    gate = tmp_path / "gate"
    needs = mr.spawn(pass_gate, args=(gate,), expect_worker=first)
    future = mr.spawn(repr, args=(needs,), cpus=2).execute(wait=False)
    there.carrier.lose(large)
    wait_until(lambda: there.session.get_worker_addresses() == [first])
    looked = there.nodes._give_up_at
    wait_until(lambda: there.nodes._give_up_at > looked + 0.5)
    assert not future.done()
    gate.touch()
    with pytest.raises(NoAvailableBand, match="no node has any more"):
        future.result(20)


def test_attempts_tell_of_each_call_that_may_have_run_on_a_node_that_was_lost(
    on_nodes: Callable[..., Any],
    wait_until: WaitUntil,
    tmp_path: Path,
    pass_gate: Callable[..., None],
) -> None:
    def work(gate: Path) -> None:
        where = mars.get_context().worker_address.rpartition("/")[2]
        gate.with_name(f"{gate.name} at {where}").touch()
        pass_gate(gate)

    there = on_nodes(2)
    first, second = there.session.get_worker_addresses()
    (tmp_path / "open").touch()
    mr.ExecutableTuple([mr.spawn(work, args=(tmp_path / "open",)) for _ in range(100)]).execute()
    # Calls that seem to be short are sent ahead. On a busy machine these need not seem so.
    seconds = there.loop.scheduler.seconds
    there.in_loop(lambda: seconds.update(dict.fromkeys(seconds, 1e-3)))
    calls = [mr.spawn(work, args=(tmp_path / "gate",)) for _ in range(20)]
    run = mr.ExecutableTuple(calls).execute(wait=False)

    def queued() -> int:
        workers = there.loop.scheduler.workers.values()
        return sum(len(worker.queue) for worker in workers if worker.group == 0)

    wait_until(lambda: there.in_loop(queued) > 2)
    wait_until((tmp_path / f"gate at {first.rpartition('/')[2]}").exists)
    there.carrier.lose(first)
    wait_until(lambda: there.session.get_worker_addresses() == [second])
    (tmp_path / "gate").touch()
    run.result(20)
    told = [[(one.node.split()[-1], one.ending) for one in call.attempts()] for call in calls]
    assert all(one[-1] == (f"({second})", "value") for one in told)
    again = [one[0] for one in told if len(one) > 1]
    # Meanwhile the other node may have been given some of the calls that waited here.
    assert again.count((f"({first})", "died")) == 1
    assert set(again) == {(f"({first})", "died"), (f"({first})", "unknown")}
