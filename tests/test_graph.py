"""Which calls an `execute` needs, and in which order."""

from __future__ import annotations

import random
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mars.calls.options import Options
from mars.graph import needed_calls
from mars.task import Call, Function, Stage, Task

FUNCTION = Function(b"f", "f", b"")


class Realm:
    """A session, as far as a graph needs one."""

    def forget(self, task: Task) -> None:
        """Nothing is kept."""


def call(*inputs: Call) -> Call:
    made = Call(FUNCTION, b"", (), tuple((one, 0) for one in inputs), Options(), None)
    made.handles += 1
    return made


def done(one: Call, realm: Any, *, stage: Stage = Stage.DONE, released: bool = False) -> None:
    task = Task(one, realm)
    task.stage, task.released = stage, released
    task.elsewhere, one.task = one.task, task


def graph(edges: list[list[int]]) -> list[Call]:
    calls: list[Call] = []
    for sources in edges:
        calls.append(call(*(calls[source] for source in sources)))
    return calls


def random_edges(chance: random.Random, count: int) -> list[list[int]]:
    return [chance.sample(range(i), min(i, chance.randint(0, 3))) for i in range(count)]


@given(st.integers(0, 2**32), st.integers(1, 30))
@settings(deadline=None, derandomize=True, database=None, max_examples=200)
def test_inputs_come_first_each_call_once_and_nothing_else(seed: int, count: int) -> None:
    chance = random.Random(seed)
    edges = random_edges(chance, count)
    calls = graph(edges)
    realm = Realm()
    there = {i for i in range(count) if chance.random() < 0.2}
    for index in there:
        done(calls[index], realm)
    targets = chance.sample(range(count), chance.randint(1, count))
    order = [calls.index(one) for one in needed_calls([calls[i] for i in targets], realm)]
    assert len(order) == len(set(order))
    for place, index in enumerate(order):
        assert set(edges[index]) - there <= set(order[:place])
    needed: set[int] = set()
    pending = [index for index in targets if index not in there]
    while pending:
        index = pending.pop()
        if index not in needed:
            needed.add(index)
            pending += [source for source in edges[index] if source not in there]
    assert set(order) == needed


def test_a_diamond() -> None:
    #      ┌── b ──┐
    # a ───┤       ├── d
    #      └── c ──┘
    a = call()
    b, c = call(a), call(a)
    d = call(b, c)
    assert needed_calls([d], Realm()) == [a, b, c, d]


def test_the_order_of_targets_and_inputs_is_kept() -> None:
    calls = [call() for _ in range(5)]
    assert needed_calls(calls, Realm()) == calls
    assert needed_calls([call(*calls)], Realm())[:5] == calls


def test_an_input_that_is_read_twice_is_needed_once() -> None:
    a = call()
    b = Call(FUNCTION, b"", (), ((a, 0), (a, 1), (a, 0)), Options(), None)
    assert needed_calls([b, a, b], Realm()) == [a, b]


def test_a_chain_of_100_000_calls_needs_no_recursion() -> None:
    # c0 ── c1 ── c2 ┄┄ c99999
    assert sys.getrecursionlimit() < 100_000
    one = call()
    chain = [one]
    for _ in range(99_999):
        one = call(one)
        chain.append(one)
    assert needed_calls([one], Realm()) == chain
    while chain:  # from the last one on, so that dropping it needs no recursion either
        chain.pop()
    one.drop()


def test_dropping_the_end_of_a_chain_drops_all_of_it_without_recursion() -> None:
    first = one = Call(FUNCTION, b"", (), (), Options(), None)
    for _ in range(100_000):
        one = Call(FUNCTION, b"", (), ((one, 0),), Options(), None)
    one.handles += 1
    one.drop()
    assert (first.handles, one.handles) == (0, 0)
    assert first.satisfied and one.satisfied


def test_what_is_there_is_not_needed_again_nor_what_only_it_needs() -> None:
    # a ── b ── c       b is there
    a = call()
    b = call(a)
    c = call(b)
    realm = Realm()
    done(b, realm)
    assert needed_calls([c], realm) == [c]
    assert needed_calls([b], realm) == []


def test_what_was_released_or_failed_is_needed_again() -> None:
    # a ── b ── c
    a = call()
    b = call(a)
    c = call(b)
    realm = Realm()
    done(a, realm, released=True)
    done(b, realm, stage=Stage.FAILED)
    assert needed_calls([c], realm) == [a, b, c]


def test_a_result_in_another_session_does_not_count() -> None:
    a = call()
    here, there = Realm(), Realm()
    done(a, there)
    assert needed_calls([a], here) == [a]
    assert needed_calls([a], there) == []


def test_a_result_that_came_about_otherwise_is_adopted() -> None:
    class Item(Call):
        __slots__ = ()
        adoptable = True

    a = Item(FUNCTION, b"", (), (), Options(), None)
    b = Item(FUNCTION, b"", (), (), Options(), None)
    c = call(a, b)
    asked = []

    def adopt(one: Call) -> bool:
        asked.append(one)
        return one is a

    assert needed_calls([c], Realm(), adopt) == [b, c]
    assert asked == [a, b]
    assert needed_calls([c], Realm()) == [a, b, c]
