"""Which large values go to which node, and by which way: decided here, carried out by `nodes`.

Pure: no socket, thread or clock, so that a test can let values and nodes come and go in any order.
`Shipping` knows which nodes are there and, by `whereabouts`, what each of them has. The scheduler
asks it for the distance of a call to a node, and `nodes` asks it what to send where.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from mars.engines.cluster.whereabouts import Coming, Key, Lacking, Noted, Whereabouts
from mars.engines.wire.regions import OWNER_SHIFT
from mars.settings import SHIP_BYTES_PER_S
from mars.task import Stage, Stored, Task

_HOPS: Final = 2
"""How often a value is sent that goes to another node by way of the driver."""


class Node(Protocol):
    """A node, as far as values are concerned.

    Attributes
    ----------
    index : int
        The number of its group in the scheduler.
    address : str
        What calls ask for that are to run there.
    reads : bool
        It reads what is in the driver's process without a copy.
    workers : set of int
        The workers that are there, or whose arenas are.
    held, copies : set of (arena, offset)
        Values of others that it has a copy of, or is sent one; and those of them that it has got
        from another node.
    coming : dict
        The values that it gets from another node, and from which.
    """

    index: int
    address: str
    reads: bool
    workers: Noted[int]
    held: Noted[Key]
    copies: Noted[Key]
    coming: Coming

    @property
    def is_direct(self) -> bool:
        """Whether it has a line to the driver, and so may have lines to other nodes."""


AnyNode = Any
"""A `Node`, of the class that the owner has for it, and that it gets back."""


class Ship(NamedTuple):
    """The driver sends its own copy of a value."""

    value: Stored


class PassOn(NamedTuple):
    """The node that makes a value sends it to the driver, which passes each part on at once."""

    source: Task
    value: Stored


class Get(NamedTuple):
    """The node gets a value from another node, without the driver."""

    source: Task
    value: Stored
    giver: AnyNode


class Hurry(NamedTuple):
    """The node that makes a value sends it to the driver now, as somebody waits for it."""

    source: Task


Step = Ship | PassOn | Get | Hurry


def has(node: Node, value: Stored) -> bool:
    """Whether a node has a value, or reads it where it is."""
    _, number, offset, _, _ = value
    return node.reads or number >> OWNER_SHIFT in node.workers or (number, offset) in node.held


def may_read_early(node: Node, value: Stored) -> bool:
    """Whether calls on a node may read a value that has not come to the driver yet."""
    _, number, offset, _, _ = value
    return number >> OWNER_SHIFT in node.workers or (number, offset) in node.copies


def large_inputs(task: Task) -> Iterator[tuple[Stored, Task]]:
    """The inputs of a task that are stored values, and the tasks that made them."""
    for call, index in task.call.inputs:
        source = call.task_in(task.realm)
        if source is not None and source.stored and source.stage in (Stage.DONE, Stage.MADE):
            value = source.result if call.n_output is None else source.result[index]
            if type(value) is not bytes:
                yield value, source


class Shipping:
    """The nodes that are there, and what to send to them.

    Parameters
    ----------
    may_meet : callable
        Whether a value may go from the first node to the second, for all that is known.

    Attributes
    ----------
    nodes : list
        Those that are there.
    where : Whereabouts
        Which of them has which values.
    moment : callable
        Gives something else for each event that is decided about. What tasks and values are does
        not change while one is.
    """

    def __init__(self, may_meet: Callable[[AnyNode, AnyNode], bool]) -> None:
        self._may_meet = may_meet
        self.nodes: list[AnyNode] = []
        self.where = Whereabouts()
        self.moment: Callable[[], object] = lambda: None
        self._by_index: dict[int, AnyNode] = {}
        # For which task distances were asked for last, at which moment, and what came of it: the
        # scheduler asks for those to several nodes in a row.
        self._asked: tuple[weakref.ref[Task] | None, object, int] = None, None, -1
        self._lacking, self._least = Lacking(), 0.0

    def node(self, index: int) -> AnyNode:
        """The node of a group; None: it is lost."""
        return self._by_index.get(index)

    def add(self, node: Node) -> None:
        """A node is there; what it has is noted in `where`."""
        self.nodes.append(node)
        self._by_index[node.index] = node

    def has_node(self, node: Node) -> bool:
        """Whether a node is there."""
        return self._by_index.get(node.index) is node

    def remove(self, node: Node) -> None:
        """A node is lost; what it had is known until `forget_all_of`."""
        if self.has_node(node):
            self.nodes.remove(node)
            del self._by_index[node.index]

    def forget_all_of(self, node: Node) -> None:
        """Nobody asks any more what a lost node had."""
        for noted in (node.held, node.copies, node.workers):
            noted.forget()
        self.where.readers.pop(node, None)

    # -- what the scheduler asks --------------------------------------------------------------

    def distance(self, task: Task, index: int) -> float:
        """How much longer large inputs take to a node than to the one that has most of them.

        In seconds. Infinite: the node is lost, or cannot have all of them as things are.
        """
        node = self._by_index.get(index)
        if node is None:
            return math.inf
        where = self.where
        asked = weakref.ref(task), self.moment(), where.changes
        if self._asked != asked:
            self._lacking = lacking = where.lacking(
                (value[1] >> OWNER_SHIFT, (value[1], value[2]), value[3], source.early)
                for value, source in large_inputs(task)
            )
            self._least = (
                lacking.least(len(self.nodes), self.has_node, where.readers) if lacking.any else 0
            )
            self._asked = asked
        lacking = self._lacking
        missing = lacking.bytes(node) if lacking.any else 0
        return missing if missing == math.inf else (missing - self._least) / SHIP_BYTES_PER_S

    # -- what is sent -------------------------------------------------------------------------

    def fetch(self, node: Node, task: Task, work_s: float) -> list[Step]:
        """What to send to a node ahead of a call, while others have so many seconds of work.

        Something is sent if that takes less time than the others work. It is also sent if nobody
        has all inputs of the call, and this node lacks the fewest bytes of them.
        """
        inputs = [
            (value, source, self.giver(source, value, node))
            for value, source in large_inputs(task)
            if not has(node, value) and (value[1], value[2]) not in node.coming
        ]
        size = sum(
            value[3] * (_HOPS if source.early and giver is None else 1)
            for value, source, giver in inputs
        )
        if work_s < size / SHIP_BYTES_PER_S and self.nearest(task) is not node:
            return []
        steps: list[Step] = []
        for value, source, giver in inputs:
            if giver is not None:
                steps.append(Get(source, value, giver))
            elif source.early:
                steps.append(PassOn(source, value))
            else:
                steps.append(Ship(value))
        if node.reads:
            # Else the node that makes it may keep it for `SPARED_S`.
            steps += [
                Hurry(source)
                for value, source in large_inputs(task)
                if source.early and not may_read_early(node, value)
            ]
        return steps

    def nearest(self, task: Task) -> AnyNode:
        """The node that lacks the fewest bytes of a task's inputs; None: some node can run it."""
        worker = task.call.options.worker
        able = [one for one in self.nodes if worker in (None, one.address)]
        if any(self.distance(task, one.index) < math.inf for one in able):
            return None
        lacking = dict.fromkeys(able, 0)
        for value, _ in large_inputs(task):
            for one in able:
                if not has(one, value) and (value[1], value[2]) not in one.coming:
                    lacking[one] += value[3]
        return min(able, key=lacking.__getitem__, default=None)

    def giver(self, source: Task, value: Stored, node: Node) -> AnyNode:
        """The node from which another one gets a value that the driver has not; None: from none."""
        if not source.early or not node.is_direct:
            return None
        _, number, offset, _, _ = value
        having = [
            one for one in self.where.may_read_early(number >> OWNER_SHIFT, (number, offset))
            if self.has_node(one) and self._may_meet(one, node)
        ]  # fmt: skip
        return min(having, key=lambda one: self.where.sending.get(one, 0), default=None)

    def hand_on(self, lost: Node, made: Iterable[tuple[Task, int]]) -> dict[Task, AnyNode]:
        """Who sends values to the driver instead of a lost node that has made them.

        Parameters
        ----------
        lost : Node
            The node; it is not among the nodes any more.
        made : iterable of (Task, int)
            Tasks whose values the driver has not, and the groups that have made them.
        """
        handed = {}
        for task, made_in in made:
            if made_in != lost.index:
                continue
            _, number, offset, _, _ = task.result
            for node in self.where.copies.get((number, offset), ()):
                if self.has_node(node):
                    handed[task] = node
                    break
        return handed


__all__ = ["Get", "Hurry", "Node", "PassOn", "Ship", "Shipping", "Step", "has", "large_inputs",
           "may_read_early"]  # fmt: skip
