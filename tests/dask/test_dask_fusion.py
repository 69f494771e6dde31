"""Which tasks share a call: promises about shapes of graphs, and properties of any graph."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.dask.fusion import Group, fuse, sorted_tasks
from mars.errors import UsageError
from mars.settings import DASK_GROUP_TASKS

Graph = dict[Hashable, list[Hashable]]


def parts(groups: list[Group]) -> list[list[Hashable]]:
    return [list(group.keys) for group in groups]


def chain(length: int) -> Graph:
    return {i: [i - 1] if i else [] for i in range(length)}


def test_a_chain_is_one_call() -> None:
    # 0 → 1 → … → 9999
    groups = fuse(chain(10_000), [9_999], workers=2)
    assert len(groups) == 1
    assert groups[0].keys == list(range(10_000)) and groups[0].outputs == [9_999]


def test_parallel_chains_stay_apart() -> None:
    graph: Graph = {(c, i): [(c, i - 1)] if i else [] for c in range(4) for i in range(3)}
    graph["all"] = [(c, 2) for c in range(4)]
    groups = fuse(graph, ["all"], workers=2)
    assert sorted(len(group.keys) for group in groups) == [1, 3, 3, 3, 3]


def test_diamonds_are_one_call_each_if_there_are_many() -> None:
    #   a → b, c → d
    graph: Graph = {}
    for i in range(16):
        graph[i, "a"] = []
        graph[i, "b"] = [(i, "a")]
        graph[i, "c"] = [(i, "a")]
        graph[i, "d"] = [(i, "b"), (i, "c")]
    groups = fuse(graph, [(i, "d") for i in range(16)], workers=2)
    assert len(groups) == 16
    assert all(group.outputs == [(group.keys[0][0], "d")] for group in groups)  # type: ignore[index]


def test_the_branches_of_a_single_diamond_run_beside_each_other() -> None:
    graph: Graph = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    assert len(fuse(graph, ["d"], workers=2)) == 4


def test_a_tree_keeps_calls_for_all_workers_and_makes_its_leaves_where_they_are_added() -> None:
    graph: Graph = {(0, i): [] for i in range(256)}
    level, width = 0, 256
    while width > 1:
        width //= 4
        level += 1
        for i in range(width):
            graph[level, i] = [(level - 1, 4 * i + j) for j in range(4)]
    groups = fuse(graph, [(level, 0)], workers=4)
    assert 4 * 4 <= len(groups) <= 40
    home = {key: group for group in groups for key in group.keys}
    assert all(home[0, i] is home[1, i // 4] for i in range(256))


def test_parts_of_a_value_are_outputs_of_the_call_that_makes_it() -> None:
    # 3 split into 4 parts each, then put together by part: the middle of a shuffle.
    graph: Graph = {("split", i): [] for i in range(3)}
    for i in range(3):
        for j in range(4):
            graph["part", i, j] = [("split", i)]
    for j in range(4):
        graph["join", j] = [("part", i, j) for i in range(3)]
    selections = {key for key in graph if key[0] == "part"}  # type: ignore[index]
    groups = fuse(graph, [("join", j) for j in range(4)], workers=2, selections=selections)
    assert len(groups) == 3 + 4
    splits = [group for group in groups if group.keys[0][0] == "split"]  # type: ignore[index]
    assert all(len(group.outputs) == 4 for group in splits)


def test_independent_tasks_share_calls_only_if_there_are_very_many() -> None:
    few: Graph = {i: [] for i in range(100)}
    assert len(fuse(few, list(few), workers=2)) == 100
    many: Graph = {i: [] for i in range(100_000)}
    groups = fuse(many, list(many), workers=2)
    assert len(groups) <= 1000
    assert max(len(group.keys) for group in groups) <= DASK_GROUP_TASKS


def test_tasks_with_other_options_do_not_share_a_call() -> None:
    groups = fuse(chain(4), [3], workers=1, label=lambda key: key == 2)
    assert parts(groups) == [[0, 1], [2], [3]]


def test_what_is_asked_for_leaves_its_call() -> None:
    [group] = fuse(chain(4), [1, 3], workers=1)
    assert group.outputs == [1, 3]


def test_a_circle_is_an_error_that_names_a_task() -> None:
    with pytest.raises(UsageError, match="circle"):
        sorted_tasks({"a": ["b"], "b": ["a"]}, ["a"])
    with pytest.raises(UsageError, match="'a'"):
        sorted_tasks({"a": ["a"]}, ["a"])


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, list[Hashable], set[Hashable]]:
    count = draw(st.integers(1, 40))
    graph: Graph = {}
    for i in range(count):
        needs = draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []
        graph[i] = list(needs)
    wanted = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5, unique=True))
    selections = draw(st.sets(st.integers(0, count - 1)))
    return graph, list(wanted), set(selections)


@given(graphs(), st.integers(1, 4), st.integers(1, 3))
def test_groups_hold_each_needed_task_once_and_never_wait_in_a_circle(
    drawn: tuple[Graph, list[Hashable], set[Hashable]], workers: int, labels: int
) -> None:
    graph, wanted, selections = drawn
    groups = fuse(
        graph, wanted, workers=workers, selections=selections, label=lambda key: hash(key) % labels
    )
    needed = sorted_tasks(graph, wanted)
    together = [key for group in groups for key in group.keys]
    assert sorted(together, key=hash) == sorted(needed, key=hash)
    there: set[Hashable] = set()
    for group in groups:  # each after those that it needs
        inside: set[Hashable] = set()
        for key in group.keys:
            assert all(need in inside or need in there for need in graph[key])
            inside.add(key)
            assert hash(key) % labels == group.label
        there.update(group.outputs)
    assert set(wanted) <= there


@given(st.integers(1, 3000), st.integers(1, 64))
def test_neighbours_hold_each_task_once_too(count: int, workers: int) -> None:
    graph: Graph = {("leaf", i): [] for i in range(count)}
    graph |= {("pair", i): [("leaf", i), ("leaf", (i + 1) % count)] for i in range(count)}
    wanted = [("pair", i) for i in range(count)]
    groups = fuse(graph, wanted, workers=workers, family=lambda key: key[0])  # type: ignore[index]
    there: set[Hashable] = set()
    for group in groups:
        inside = set(group.keys)
        assert all(n in inside or n in there for key in group.keys for n in graph[key])
        there.update(group.outputs)
    assert sum(len(group.keys) for group in groups) == 2 * count
