"""What objects take is counted right on nodes and in the program, whatever workers come and go."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mars.remote as mr
from mars import platform
from mars.engines.driver import loop, store
from mars.engines.wire.regions import OWNER_SHIFT

MIB = 1024 * 1024


def make(size: int) -> Any:
    return np.ones(size, "u1")


def die() -> None:
    os._exit(1)


def held(node: Any) -> int:
    """Bytes that the arenas which a node knows take in memory."""
    return sum(
        platform.held_bytes(one.descriptor) for one in list(node._arenas.values()) if one.ours
    )


def kill_workers(count: int) -> None:
    for _ in range(count):
        with pytest.raises(Exception, match="die"):
            mr.spawn(die, death_retries=0).execute()


@pytest.mark.parametrize("direct", [False, True])
def test_accounts_are_right_after_workers_were_replaced_on_machines_of_their_own(
    on_nodes: Callable[..., Any],
    apart: None,
    wait_until: Callable[..., None],
    direct: bool,
) -> None:
    there = on_nodes(2, direct=direct)
    nodes = list(there.carrier.nodes.values())
    kept = mr.ExecutableTuple([mr.spawn(make, args=(8 * MIB,)) for _ in range(4)]).execute()
    one = make(8 * MIB)
    mr.ExecutableTuple([mr.spawn(np.sum, args=(one,)) for _ in range(4)]).execute()
    kill_workers(8)
    assert [value.nbytes for value in kept.fetch()] == [8 * MIB] * 4
    there.in_loop(there.store._own._cool_all)  # what was kept for the next argument

    def counted() -> list[int]:
        return [there.store.ledger.total(), sum(node._ledger.total() for node in nodes)]

    # The four results are in the program's mirrors, and on the nodes that made them.
    wait_until(lambda: counted()[0] == 4 * 8 * MIB)
    wait_until(lambda: counted()[1] == sum(map(held, nodes)))
    assert 4 * 8 * MIB <= counted()[1] < 4 * 8 * MIB + 2 * MIB
    del kept, one
    wait_until(lambda: counted() == [0, 0])
    # Nothing is left but the copy of the program's own arena, which is empty.
    wait_until(lambda: not any(one >> OWNER_SHIFT for node in nodes for one in list(node._arenas)))
    for node in there.in_loop(lambda: list(there.nodes.shipping.nodes)):
        assert node.workers <= there.loop.members.keys()


def test_accounts_are_right_after_workers_were_replaced_on_this_machine(
    on_nodes: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    there = on_nodes(2)
    nodes = list(there.carrier.nodes.values())
    kept = mr.ExecutableTuple([mr.spawn(make, args=(8 * MIB,)) for _ in range(4)]).execute()
    kill_workers(8)

    def counted() -> int:
        return sum(node._ledger.total() for node in nodes)

    wait_until(lambda: counted() == 4 * 8 * MIB)
    assert there.store.ledger.total() == 0  # the program only reads it
    del kept
    wait_until(lambda: counted() == 0)


def test_what_a_lost_node_on_this_machine_has_made_is_counted_by_the_program(
    on_nodes: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    there = on_nodes(2)
    first, second = there.session.get_worker_addresses()
    kept = [
        mr.spawn(make, args=(8 * MIB,), expect_worker=address).execute()
        for address in (first, second)
    ]
    assert there.store.ledger.total() == 0
    there.carrier.lose(first)
    wait_until(lambda: there.store.ledger.total() == 8 * MIB)
    assert [value.fetch().nbytes for value in kept] == [8 * MIB] * 2
    kept.clear()
    wait_until(lambda: there.store.ledger.total() == 0)


def test_memory_of_idle_workers_goes_back_on_nodes_too(
    on_nodes: Callable[..., Any],
    apart: None,
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (loop, store):
        monkeypatch.setattr(module, "IDLE_ARENA_S", 0.3)
    there = on_nodes(2)
    nodes = list(there.carrier.nodes.values())
    kept = mr.ExecutableTuple([mr.spawn(make, args=(8 * MIB,)) for _ in range(4)]).execute()
    mr.ExecutableTuple([mr.spawn(np.sum, args=(one,)) for one in kept]).execute()
    assert sum(node._ledger.total() for node in nodes) >= 4 * 8 * MIB
    del kept
    wait_until(lambda: [node._ledger.total() for node in nodes] == [0, 0])
    wait_until(lambda: there.store.ledger.total() == 0)
