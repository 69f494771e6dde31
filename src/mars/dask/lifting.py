"""Data in a graph, taken out of it and stored once.

A graph of Dask holds the data that a collection was made of: chunks that were cut from an array,
partitions of a frame, large arguments. If they travelled with the tasks, each task would pickle its
part, and a chunk that is not contiguous would be copied twice on the way. So data are stored with
`put` before any call is spawned, and the tasks have an input in their place.

Chunks that were cut from one array share it: its bytes are stored once, and each task looks at its
part of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeGuard

from mars.dask.program import Kept, part_of
from mars.settings import DASK_LIFT_BYTES

if TYPE_CHECKING:
    from dask._task_spec import GraphNode
    from numpy import ndarray
    from pandas import DataFrame

Key = Hashable


class Lifted:
    """What stands for data of a graph.

    Parameters
    ----------
    store : callable
        Stores a value, and returns what stands for it in the arguments of a call.
    adopt : callable
        Says what stands for the value of a persisted task.

    Attributes
    ----------
    stored : dict
        What stands for each stored value, by the key that tasks use for it.
    """

    def __init__(self, store: Callable[[object], object], adopt: Callable[[Kept], object]) -> None:
        self._store = store
        self._adopt = adopt
        self._keys: dict[int, Key] = {}  # by identity of the value
        self._alive: list[object] = []  # so that no identity is used twice
        self.stored: dict[Key, object] = {}

    def key_for(self, value: object) -> Key:
        """Store a value, unless it is stored already. The key is one that no graph has."""
        known = self._keys.get(id(value))
        if known is None:
            known = ("mars-data", len(self._keys))
            self._keys[id(value)] = known
            self._alive.append(value)
            self.stored[known] = self._store(contiguous(value))
        return known

    def key_of_kept(self, kept: Kept) -> Key:
        """The key of a persisted task that is fused into another task."""
        key = ("mars-kept", kept.stored.key, kept.stored.index)
        if key not in self.stored:
            self.stored[key] = self._adopt(kept)
        return key


def lift_nodes(nodes: dict[Key, GraphNode], lifted: Lifted) -> set[Key]:
    """Take the data out of the data nodes of a graph, and out of the arguments of its tasks.

    Parameters
    ----------
    nodes : dict
        The graph. Nodes that hold data are replaced by nodes that have an input in their place.
    lifted : Lifted
        Stores the data.

    Returns
    -------
    set
        Keys of nodes that only look at stored data. They cost nothing, so each group has its own.
    """
    from dask.task_spec import Alias, DataNode, Task, TaskRef

    looks: set[Key] = set()
    views: dict[int, list[tuple[Key, ndarray]]] = {}
    whole: dict[int, ndarray] = {}

    def taken(value: object) -> Key:
        """The key of a node that gives the value. It will be an alias, or a look at an array."""
        base = base_of(value)
        if base is None or not _is_array(value):
            return lifted.key_for(value)
        key = ("mars-part", len(looks) + sum(map(len, views.values())))
        whole[id(base)] = base
        views.setdefault(id(base), []).append((key, value))
        return key

    for key, node in list(nodes.items()):
        kind = type(node)
        if kind is DataNode:
            if size_of(node.value) >= DASK_LIFT_BYTES:
                nodes[key] = Alias(key, taken(node.value))
        elif kind is Task:
            nodes[key] = _lifted_task(node, taken, lifted)
    for mark, parts in views.items():
        base = whole[mark]
        used = sum(value.nbytes for _, value in parts)
        if 2 * used < base.nbytes:
            for key, value in parts:  # most of the array is not needed
                nodes[key] = Alias(key, lifted.key_for(value))
            continue
        flat = base.reshape(-1, order="A").view("u1")
        flat_key = lifted.key_for(flat)
        start = base.__array_interface__["data"][0]
        for key, value in parts:
            offset = value.__array_interface__["data"][0] - start
            nodes[key] = Task(
                key, part_of, TaskRef(flat_key), offset, value.shape, value.strides, value.dtype
            )
            looks.add(key)
    return looks


def _lifted_task(node: GraphNode, taken: Callable[[object], Key], lifted: Lifted) -> object:
    """A task with inputs in the place of its large arguments."""
    from dask.task_spec import Task

    if node.has_subgraph():
        return _lifted_subgraph(node, taken, lifted)
    args, changed = _lifted_arguments(node.args, taken)
    kwargs = node.kwargs
    if kwargs:
        values, more = _lifted_arguments(tuple(kwargs.values()), taken)
        if more:
            changed, kwargs = True, dict(zip(kwargs, values, strict=True))
    return Task(node.key, node.func, *args, **kwargs) if changed else node


def _lifted_subgraph(node: GraphNode, taken: Callable[[object], Key], lifted: Lifted) -> object:
    """A task that runs several nodes, with inputs in the place of the data in these."""
    from dask.task_spec import DataNode, Task, TaskRef

    inner, outkey, inkeys, *refs = node.args
    given, changed = _lifted_arguments(tuple(refs), taken)
    kept: dict[Key, GraphNode] = {}
    more: dict[Key, Key] = {}  # further names of inputs inside, and their keys outside
    for key, one in inner.items():
        if type(one) is DataNode and size_of(one.value) >= DASK_LIFT_BYTES:
            more[key] = taken(one.value)
            continue
        if type(getattr(one, "func", None)) is Kept:
            more[key] = lifted.key_of_kept(one.func)
            continue
        kept[key] = _lifted_task(one, taken, lifted) if type(one) is Task else one
        if kept[key] is not one:
            more.update({need: need for need in kept[key].dependencies - one.dependencies})
    if not changed and not more:
        return node
    return Task(
        node.key, node.func, kept, outkey, (*inkeys, *more), *given, *map(TaskRef, more.values())
    )


def _lifted_arguments(
    values: tuple[object, ...], taken: Callable[[object], Key]
) -> tuple[tuple[object, ...], bool]:
    from dask.task_spec import DataNode, TaskRef

    found: list[object] | None = None
    for place, value in enumerate(values):
        inner = value.value if isinstance(value, DataNode) else value
        if not _may_be_large(inner) or size_of(inner) < DASK_LIFT_BYTES:
            continue
        if found is None:
            found = list(values)
        found[place] = TaskRef(taken(inner))
    return (values, False) if found is None else (tuple(found), True)


_SMALL = frozenset({int, float, bool, complex, type(None), str, slice, type, tuple, list, dict})
"""Types of arguments that are not looked into, because few of them hold data."""


def _may_be_large(value: object) -> bool:
    kind = type(value)
    if kind in _SMALL or callable(value):
        return False
    return kind in (bytes, bytearray) or hasattr(kind, "nbytes") or hasattr(kind, "memory_usage")


def size_of(value: object) -> int:
    """How many bytes a value takes, roughly."""
    size = getattr(value, "nbytes", None)
    if type(size) is int:
        return size
    if isinstance(value, (int, float, bool, str, bytes, type(None))):
        return sys.getsizeof(value)
    from dask.sizeof import sizeof

    return int(sizeof(value))


def _is_array(value: object) -> TypeGuard[ndarray]:
    """Whether it is an array of numpy itself, which is not loaded to find out."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def _is_frame(value: object) -> TypeGuard[DataFrame]:
    pandas = sys.modules.get("pandas")
    return pandas is not None and type(value) is pandas.DataFrame


def base_of(value: object) -> ndarray | None:
    """The whole array that a chunk was cut from, if its bytes can be shared. None: they cannot."""
    if not _is_array(value) or value.dtype.hasobject:
        return None
    base = value
    while _is_array(base.base):
        base = base.base
    whole = base.flags.c_contiguous or base.flags.f_contiguous
    if not whole or base.dtype.hasobject or any(step < 0 for step in value.strides):
        return None
    return base


def contiguous(value: object) -> object:
    """The value, or a copy of it that pickles without being copied once more."""
    if _is_array(value):
        if value.dtype.hasobject or value.flags.c_contiguous or value.flags.f_contiguous:
            return value
        return value.copy(order="C")
    if _is_frame(value):
        return value.copy()  # rows that were cut out are not contiguous
    return value


__all__ = ["Lifted", "contiguous", "lift_nodes", "size_of"]
