"""A graph of Dask, as calls: which tasks each call runs, what it reads, and in which order.

`Plan` decides and runs nothing, but has the data of the graph stored on the way. What becomes of
each entry of a graph:

- a task that does something belongs to a group, see `mars.dask.fusion`; a group is a call,
- another name for a task (an alias) is written as this task,
- small data, and looks at stored data, go along with each group that needs them,
- large data and persisted tasks are inputs.

`mars.dask.running` makes a plan for each graph and spawns its calls.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

from mars.dask.annotations import Annotations, Labels
from mars.dask.fusion import Group, fuse
from mars.dask.lifting import Lifted, lift_nodes
from mars.dask.program import Kept
from mars.errors import UsageError
from mars.settings import DASK_PRIORITIES

if TYPE_CHECKING:
    from dask._task_spec import GraphNode


Key = Hashable


def nodes_of(graph: object) -> dict[Key, GraphNode]:
    """The nodes of whatever Dask gives a scheduler: an expression, a graph or a dict.

    Nodes that hold themselves under their own name are left out, as nobody can compute them.
    """
    from dask._task_spec import convert_legacy_graph
    from dask.utils import ensure_dict

    if hasattr(graph, "__dask_graph__"):
        graph = graph.__dask_graph__()
    return dict(convert_legacy_graph(ensure_dict(graph)))


class Step:
    """One call of a plan.

    Attributes
    ----------
    nodes : tuple of GraphNode
        What the call runs, in this order.
    outputs : list
        Keys of the values that it gives.
    names : dict
        Other names of keys.
    reads : list
        Keys of what it reads: outputs of other calls, and what is stored.
    name : str
        What the call is called.
    options : dict
        Further options of the call.
    """

    __slots__ = ("name", "names", "nodes", "options", "outputs", "reads")

    def __init__(self, group: Group, plan: Plan) -> None:
        nodes: list[object] = []
        names: dict[Key, Key] = {}
        reads: dict[Key, None] = {}
        inside = set(group.keys)
        for key in group.keys:
            node = plan.nodes[key]
            for need in node.dependencies:
                plan.collect(need, inside, nodes, names, reads)
            nodes.append(node)
        self.nodes = tuple(nodes)
        self.outputs = group.outputs
        self.names = names
        self.reads = list(reads)
        self.name = name_of(group.keys)
        self.options = Labels.options(group.label)


class Plan:
    """What is to be done for some keys of a graph.

    Parameters
    ----------
    nodes : dict
        The graph. It is changed.
    wanted : collection
        Keys whose values are asked for.
    store : callable
        Stores a value, and returns what stands for it in the arguments of a call.
    workers : int
        How many calls may run at the same time.
    annotations : mapping, default {}
        As of ``__dask_annotations__()``.
    for_all : mapping, default {}
        Annotations of all tasks.
    adopt : callable, optional
        Says what stands for the value of a persisted task. Default: its object.

    Attributes
    ----------
    steps : list of Step
        The calls, each after those that it reads.
    stored : dict
        What stands for data and persisted tasks, by key.
    values : dict
        Values of wanted keys that are data of the graph: no call is needed for these.
    roots : dict
        For each other wanted key the key under which its value is found: in `stored`, or as an
        output of a step.
    data : dict
        Nodes that hold data, by key.
    """

    def __init__(
        self,
        nodes: dict[Key, GraphNode],
        wanted: Collection[Key],
        *,
        store: Callable[[object], object],
        workers: int,
        annotations: Annotations | None = None,
        for_all: Mapping[str, object] | None = None,
        adopt: Callable[[Kept], object] = lambda kept: kept.stored,
    ) -> None:
        from dask.task_spec import Alias, DataNode, Task

        self.values: dict[Key, object] = {}
        for key in wanted:
            node: GraphNode = nodes.get(key)
            name = key
            # By the name it is found under: Dask has graphs with nodes of another name.
            while type(node) is Alias and node.target != name:
                name = node.target
                node = nodes.get(name)
            if type(node) is DataNode:
                self.values[key] = node.value
        wanted = [key for key in wanted if key not in self.values]
        nodes = needed(nodes, wanted)
        self.nodes = nodes
        lifted = Lifted(store, adopt)
        looks = lift_nodes(nodes, lifted)
        self.stored: dict[Key, object] = lifted.stored
        self.data: dict[Key, GraphNode] = {}
        self._names: dict[Key, Key] = {}
        graph: dict[Key, Collection[Key]] = {}
        selections: set[Key] = set()
        for key, node in nodes.items():
            kind = type(node)
            if kind is Alias:
                self._names[key] = node.target
            elif kind is DataNode or key in looks:
                self.data[key] = node
            elif type(getattr(node, "func", None)) is Kept:
                self.stored[key] = adopt(node.func)
            else:
                graph[key] = node.dependencies
                if kind is Task and node.func is operator.getitem and len(graph[key]) == 1:
                    selections.add(key)
        if self._names:
            for key, needs in graph.items():
                if not self._names.keys().isdisjoint(needs):
                    graph[key] = list(dict.fromkeys(map(self.root, needs)))
        self.roots = {key: self.root(key) for key in wanted}
        groups = fuse(
            graph,
            [root for root in dict.fromkeys(self.roots.values()) if root in graph],
            workers=workers,
            selections=selections,
            label=Labels(annotations or {}, for_all or {}),
            family=_prefix,
        )
        self.steps = [Step(group, self) for group in _by_order(groups)]

    def root(self, key: Key) -> Key:
        """The key that a name stands for in the end."""
        names = self._names
        for _ in range(len(names) + 1):
            target = names.get(key, key)
            if target is key:
                return key
            key = target
        raise UsageError(f"the graph has a circle: {key!r} is another name for itself")

    def collect(
        self,
        key: Key,
        inside: Collection[Key],
        nodes: list[GraphNode],
        names: dict[Key, Key],
        reads: dict[Key, None],
    ) -> None:
        """Find what a group needs for one dependency of its tasks."""
        root = self.root(key)
        if root is not key:
            names[key] = root
        if root in inside or root in reads:
            return
        node = self.data.get(root)
        if node is None:
            reads[root] = None
            return
        if not any(one is node for one in nodes):
            for need in node.dependencies:
                reads[need] = None
            nodes.append(node)


def needed(nodes: Mapping[Key, GraphNode], wanted: Iterable[Key]) -> dict[Key, GraphNode]:
    """The part of a graph that some keys need.

    Raises
    ------
    KeyError
        A key is asked for that is not in the graph.
    UsageError
        A task needs a key that is not in the graph.
    """
    found: dict[Key, GraphNode] = {}
    left = list(wanted)
    for key in left:
        if key not in nodes:
            raise KeyError(key)
    while left:
        key = left.pop()
        if key in found:
            continue
        node = nodes[key]
        if node.key != key and not hasattr(node, "target"):
            node = node.substitute({}, key=key)  # Dask has graphs with nodes of another name
        found[key] = node
        for need in node.dependencies:
            if need not in nodes:
                raise UsageError(
                    f"task {key!r} needs {need!r}, which is not in its graph. If that is a future "
                    f"of another scheduler, such as a Client's, compute it there first"
                )
            if need not in found:
                left.append(need)
    return found


def _by_order(groups: list[Group]) -> list[Group]:
    """Groups in the order in which Dask would start them, which keeps the least in memory."""
    from dask.order import order
    from dask.task_spec import Task, TaskRef

    if len(groups) < 3:
        return groups
    home = {key: number for number, group in enumerate(groups) for key in group.outputs}
    graph = {}
    for number, group in enumerate(groups):
        needs = dict.fromkeys([home[need] for need in group.needs])
        graph[number] = Task(number, run_nothing, *[TaskRef(need) for need in needs])
    rank = order(graph)
    return [groups[number] for number in sorted(graph, key=rank.__getitem__)]


def run_nothing(*_: object) -> None:
    """Stands for a task where only the shape of a graph matters."""


def priorities(count: int) -> list[int]:
    """The priority of each of so many calls that are to start in this order."""
    steps = min(DASK_PRIORITIES, count)
    return [-(number * steps // count) for number in range(count)]


def _prefix(key: Key) -> str:
    from dask.utils import key_split

    return str(key_split(key))


def name_of(keys: Iterable[Key]) -> str:
    """What a call is called that runs these tasks: their names, as Dask writes them."""
    names = list(dict.fromkeys(map(_prefix, keys)))
    if len(names) > 3:
        names = [*names[:1], "…", *names[-2:]]
    return "-".join(names) or "task"


__all__ = ["Plan", "Step", "name_of", "needed", "nodes_of", "priorities"]
