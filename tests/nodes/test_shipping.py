"""Which values go to which node: random histories of values and nodes, without any process."""

from __future__ import annotations

import math
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mars.calls.options import DEFAULT_OPTIONS
from mars.engines.cluster.shipping import (
    Get,
    Hurry,
    PassOn,
    Ship,
    Shipping,
    has,
    may_read_early,
)
from mars.engines.cluster.whereabouts import Coming, Noted
from mars.engines.wire.regions import OWNER_SHIFT
from mars.settings import SHIP_BYTES_PER_S
from mars.task import Call, Function, Stage, Task

FUNCTION = Function(b"", "f", b"")
SIZE = 1_000_000


class Realm:
    """Where the tasks belong."""

    def forget(self, task: Task) -> None:
        raise AssertionError("nobody drops them")


class Node:
    """A node that is nothing but what it has."""

    def __init__(self, shipping: Shipping, index: int, *, reads: bool, is_direct: bool) -> None:
        where = shipping.where
        self.index, self.address = index, f"test://{index}"
        self.reads, self.is_direct = reads, is_direct
        self.workers: Noted[int] = Noted(where.makers, self, where)
        self.held: Noted[Any] = Noted(where.holders, self, where)
        self.copies: Noted[Any] = Noted(where.copies, self, where)
        self.coming = Coming(self, where)
        if reads:
            where.readers[self] = None


class World:
    """Nodes, the values that their workers have made, and a driver that carries out each step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.shipping = Shipping(lambda one, other: frozenset((one, other)) not in self.apart)
        self.moments = 0
        self.shipping.moment = lambda: self.moments
        self.apart: set[frozenset[Any]] = set()
        self.realm = Realm()
        self.made: dict[Task, int] = {}  # whose value the driver has not, and the group that has it
        self.tasks: list[Task] = []
        self.count = 0
        for _ in range(self.random.randint(2, 4)):
            self.join()

    @property
    def nodes(self) -> list[Node]:
        return self.shipping.nodes

    def join(self) -> None:
        self.count += 1
        chance = self.random.random
        node = Node(self.shipping, self.count, reads=chance() < 0.2, is_direct=chance() < 0.7)
        node.workers.add(self.count)
        self.shipping.add(node)

    def make(self) -> None:
        """A worker of some node has made a value; it may be that it has not come here yet."""
        node = self.random.choice(self.nodes)
        self.count += 1
        call = Call(FUNCTION, b"", (), (), DEFAULT_OPTIONS, None)
        task = call.task = Task(call, self.realm)
        task.attempt, task.stored = self.count, True
        size = self.random.randint(1, 9) * SIZE
        task.result = (None, (node.index << OWNER_SHIFT) + self.count, 0, size, (size,))
        task.early = self.random.random() < 0.5
        task.stage = Stage.MADE if task.early else Stage.DONE
        if task.early:
            self.made[task] = node.index
        self.tasks.append(task)

    def arrive(self) -> None:
        """A value has come to the driver."""
        if self.made:
            task = self.random.choice(list(self.made))
            del self.made[task]
            task.early, task.stage = False, Stage.DONE

    def end_get(self) -> None:
        """A value has got from one node to another, or the two have lost each other."""
        waiting = [(node, key) for node in self.nodes for key in node.coming]
        if waiting:
            node, key = self.random.choice(waiting)
            whole = self.random.random() < 0.7
            if not whole:
                self.apart.add(frozenset((node, node.coming[key])))
            node.coming.end(key)
            if whole:
                node.held.add(key)
                node.copies.add(key)

    def lose(self) -> None:
        """A node is lost; who has copies of what it made sends them instead of it."""
        if len(self.nodes) < 2:
            return
        node = self.random.choice(self.nodes)
        self.shipping.remove(node)
        handed = self.shipping.hand_on(node, self.made.items())
        for task, index in list(self.made.items()):
            if index != node.index:
                assert task not in handed
                continue
            key = task.result[1], task.result[2]
            copied = [one for one in self.nodes if key in one.copies]
            assert (handed[task] in copied) if copied else (task not in handed)
            if copied:
                self.made[task] = handed[task].index
            else:  # it is to be made once more
                del self.made[task]
                self.tasks.remove(task)
        for key in list(node.coming):
            node.coming.end(key)
        for other in self.nodes:  # it sends no more
            for key in [key for key, giver in other.coming.items() if giver is node]:
                other.coming.end(key)
        self.shipping.forget_all_of(node)

    def reader(self) -> Task:
        """A task that reads some of the values."""
        some = self.random.sample(self.tasks, min(len(self.tasks), self.random.randint(1, 4)))
        inputs = tuple((task.call, 0) for task in some)
        return Task(Call(FUNCTION, b"", (), inputs, DEFAULT_OPTIONS, None), self.realm)

    def fetch(self) -> None:
        if self.tasks:
            node = self.random.choice(self.nodes)
            self.carry_out(node, self.reader(), self.random.choice([0.0, 0.01, 1e9]))

    def carry_out(self, node: Node, task: Task, work_s: float) -> list[Any]:
        """Have values sent, after a look at what was decided."""
        steps = self.shipping.fetch(node, task, work_s)
        moved = [step.value for step in steps if not isinstance(step, Hurry)]
        assert len({value[1] for value in moved}) == len(moved), "a value is sent once"
        for step in steps:
            if isinstance(step, Hurry):
                assert step.source.early and node.reads
                continue
            key = step.value[1], step.value[2]
            assert not has(node, step.value) and key not in node.coming
            if isinstance(step, Ship):
                assert not any(one.result == step.value for one in self.made)
                node.held.add(key)
            elif isinstance(step, PassOn):
                assert step.source.early
                node.held.add(key)
            elif isinstance(step, Get):
                assert step.source.early and node.is_direct and step.giver is not node
                assert step.giver in self.nodes and may_read_early(step.giver, step.value)
                assert frozenset((node, step.giver)) not in self.apart
                node.coming.begin(key, step.giver)
        return steps

    def check_distances(self) -> None:
        """The nearest node that can run a task is at no distance, others as far as they lack."""
        if not self.tasks:
            return
        task = self.reader()
        self.moments += 1
        found = {node: self.shipping.distance(task, node.index) for node in self.nodes}
        lacks = {node: self.lacking(node, task) for node in self.nodes}
        least = min(lacks.values())
        for node, distance in found.items():
            if lacks[node] == math.inf:
                assert distance == math.inf
            else:
                assert distance == (lacks[node] - least) / SHIP_BYTES_PER_S
        nearest = self.shipping.nearest(task)
        assert (nearest is None) == (least < math.inf)

    def lacking(self, node: Node, task: Task) -> float:
        """What a node lacks of a task's inputs, found as one would say it."""
        missing = 0.0
        for call, _ in task.call.inputs:
            source = call.task
            assert source is not None
            value = source.result
            barred = source.early and not may_read_early(node, value)
            if barred or (value[1], value[2]) in node.coming:
                return math.inf
            if not has(node, value):
                missing += value[3]
        return missing


STEPS = ("make", "make", "arrive", "end_get", "fetch", "fetch", "lose", "join")


@given(st.integers(0, 2**32), st.lists(st.sampled_from(STEPS), max_size=60))
@settings(max_examples=300, deadline=None)
def test_values_go_only_where_they_are_missing_and_from_who_has_them(
    seed: int, happens: list[str]
) -> None:
    world = World(seed)
    for one in happens:
        world.moments += 1
        getattr(world, one)()
        world.check_distances()


@given(st.integers(0, 2**32), st.lists(st.sampled_from(STEPS), max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_call_that_no_node_can_run_can_be_run_by_one_at_last(
    seed: int, happens: list[str]
) -> None:
    world = World(seed)
    for one in ("make", *happens):
        world.moments += 1
        getattr(world, one)()
    if not world.tasks:
        return
    task = world.reader()
    nearest = world.shipping.nearest(task)
    if nearest is not None:
        world.carry_out(nearest, task, 0.0)
    for _ in range(1000):  # all that is on its way ends well or badly, and nothing else happens
        if world.made:
            world.arrive()
        world.end_get()
        world.moments += 1
        nearest = world.shipping.nearest(task)
        if nearest is None:
            return
        world.carry_out(nearest, task, 0.0)
    raise AssertionError("no node can ever run it")


def test_a_node_gets_a_value_from_the_node_that_sends_least() -> None:
    world = World(0)
    shipping = world.shipping
    world.shipping.nodes.clear()
    first, second, third = (
        Node(shipping, index, reads=False, is_direct=True) for index in (11, 12, 13)
    )
    for node in (first, second, third):
        shipping.add(node)
    first.workers.add(11)
    call = Call(FUNCTION, b"", (), (), DEFAULT_OPTIONS, None)
    source = call.task = Task(call, world.realm)
    source.attempt, source.stored, source.early, source.stage = 1, True, True, Stage.MADE
    source.result = (None, (11 << OWNER_SHIFT) + 1, 0, SIZE, (SIZE,))
    key = source.result[1], 0
    second.held.add(key)
    second.copies.add(key)
    second.coming.begin((5, 0), first)  # so the maker sends something already
    task = Task(Call(FUNCTION, b"", (), ((call, 0),), DEFAULT_OPTIONS, None), world.realm)
    assert shipping.fetch(third, task, 1e9) == [Get(source, source.result, second)]
