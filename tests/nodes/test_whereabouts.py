"""What nodes lack of a call's inputs, by an index, and by a look at all nodes."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mars.engines.cluster.whereabouts import Coming, Noted, Whereabouts

Input = tuple[int, tuple[int, int], int, bool]


class Node:
    """A node that is nothing but what it has."""


def node_of(where: Whereabouts, *, reads: bool) -> Any:
    node: Any = Node()
    node.reads = reads
    node.workers = Noted(where.makers, node, where)
    node.held = Noted(where.holders, node, where)
    node.copies = Noted(where.copies, node, where)
    node.coming = Coming(node, where)
    if reads:
        where.readers[node] = None
    return node


def looked_at(node: Any, inputs: list[Input]) -> float:
    """What a node lacks, found as one would say it."""
    missing = 0.0
    for worker, key, size, early in inputs:
        may_read_early = worker in node.workers or key in node.copies
        if (early and not may_read_early) or key in node.coming:
            return math.inf
        if not (node.reads or worker in node.workers or key in node.held):
            missing += size
    return missing


places = st.integers(0, 3)
keys = st.tuples(st.integers(0, 2), st.integers(0, 1))
changes = st.lists(
    st.tuples(
        st.sampled_from(["hold", "copy", "drop", "begin", "end", "make", "unmake", "leave"]),
        places,
        keys,
    ),
    max_size=40,
)
inputs = st.lists(
    st.tuples(st.integers(0, 2), keys, st.integers(1, 9), st.booleans()), min_size=1, max_size=6
)


@given(st.lists(st.booleans(), min_size=4, max_size=4), changes, inputs)
@settings(max_examples=300, deadline=None)
def test_the_index_says_what_a_look_at_all_nodes_says(
    reads: list[bool], happens: list[tuple[str, int, Any]], asked: list[Input]
) -> None:
    where = Whereabouts()
    nodes = [node_of(where, reads=one) for one in reads]
    there = list(nodes)
    for what, place, key in happens:
        node = nodes[place]
        if node not in there:
            continue
        if what == "hold":
            node.held.add(key)
        elif what == "copy":
            node.held.add(key)
            node.copies.add(key)
        elif what == "drop":
            node.held.discard(key)
            node.copies.discard(key)
        elif what == "begin" and key not in node.coming:
            node.coming.begin(key, nodes[(place + 1) % 4])
        elif what == "end":
            node.coming.end(key)
        elif what == "make":
            node.workers.add(key[0])
        elif what == "unmake":
            node.workers.discard(key[0])
        elif what == "leave" and len(there) > 1:
            there.remove(node)
            for coming in list(node.coming):
                node.coming.end(coming)
            for noted in (node.held, node.copies, node.workers):
                noted.forget()
            where.readers.pop(node, None)
    found = where.lacking(asked)
    wanted = [looked_at(node, asked) for node in there]
    assert [found.bytes(node) for node in there] == wanted
    assert found.least(len(there), there.__contains__, where.readers) == min(wanted)
    gets = [source for node in nodes for source in node.coming.values()]
    assert where.sending == {node: gets.count(node) for node in nodes if node in gets}


def test_of_nodes_that_have_nothing_any_more_nothing_is_left() -> None:
    where = Whereabouts()
    node, other = node_of(where, reads=True), node_of(where, reads=False)
    node.held.add((1, 0))
    node.copies.add((1, 0))
    node.workers.add(3)
    node.coming.begin((2, 0), other)
    assert node.coming.end((2, 0)) and not node.coming.end((2, 0))
    for noted in (node.held, node.copies, node.workers):
        noted.forget()
    del where.readers[node]
    assert not (where.holders or where.copies or where.coming or where.makers or where.sending)
