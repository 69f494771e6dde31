"""Tasks that the program runs itself: they write into what only it has, or put results together.

A chunk is stored under a lock because its target takes one writer at a time: a file of HDF5 or
netCDF that the program has open, or an array in its memory. In another process the target would be
another one, or could not be opened. So the chunks are computed by calls, and are stored here, one
after the other, as the lock would have it anyway. Likewise the last task of an array or a frame,
which puts all chunks together: in a worker, its result would be made there and copied.

Pure, but for the tasks themselves, which `run` calls. `mars.dask.running` uses this.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from mars.dask.fusion import sorted_tasks

if TYPE_CHECKING:
    from dask._task_spec import GraphNode

Key = Hashable

_STORES: Final = frozenset({"load_store_chunk", "store_chunk"})
_TOGETHER: Final = frozenset({"finalize", "_concat"})


def tasks_at_home(
    nodes: dict[Key, GraphNode], wanted: Collection[Key], *, together: bool
) -> list[Key]:
    """The tasks that the program itself runs, in this order.

    Parameters
    ----------
    nodes : dict
        The graph. Tasks that store, and are fused with what they store, are taken apart in it.
    wanted : collection
        Keys whose values are asked for.
    together : bool
        Whether tasks that put results together are among them.
    """
    first = set()
    for key, node in list(nodes.items()):
        if _is_task(node) and _stores(node):
            first |= _taken_apart(nodes, key)
    if first:
        home = []
        inside = set(first)
        graph = {key: node.dependencies for key, node in nodes.items()}
        for key in sorted_tasks(graph, wanted):
            if key in inside or not inside.isdisjoint(graph[key]):
                inside.add(key)
                home.append(key)
    else:
        home, inside = [], set()
    for key in wanted if together else ():
        if key not in inside and _puts_together(nodes[key]):
            home.append(key)
    return home


def inputs_of(nodes: Mapping[Key, GraphNode], home: Iterable[Key]) -> list[Key]:
    """What tasks of the program need of others."""
    inside = set(home)
    needs = [need for key in inside for need in nodes[key].dependencies]
    return [need for need in dict.fromkeys(needs) if need not in inside]


def run(nodes: Mapping[Key, GraphNode], home: Iterable[Key], values: dict[Key, object]) -> None:
    """Run tasks here. Their values join those of their inputs."""
    for key in home:
        node = nodes[key]
        values[key] = node({need: values[need] for need in node.dependencies})


def _is_task(node: object) -> bool:
    return hasattr(node, "has_subgraph")


def _parts(node: GraphNode) -> list[GraphNode]:
    """A task, and all that are fused in it, however deep."""
    found, left = [], [node]
    while left:
        one = left.pop()
        found.append(one)
        if _is_task(one) and one.has_subgraph():
            left += one.args[0].values()
    return found


def _stores(node: GraphNode) -> bool:
    """Whether a task stores something under a lock, or into memory of the program."""
    numpy, found = sys.modules.get("numpy"), False
    values: list[object] = []
    for part in _parts(node):
        func = getattr(part, "func", None)
        module = getattr(func, "__module__", None) or ""
        if getattr(func, "__name__", "") in _STORES and module.startswith("dask.array"):
            found = True
            values += part.kwargs.values()
        values += getattr(part, "args", ())
    if not found:
        return False
    for value in values:
        value = getattr(value, "value", value)  # of a data node
        # A variable of an open file of xarray has the lock of its file.
        lock = getattr(getattr(value, "datastore", None), "lock", value)
        if hasattr(lock, "acquire") or type(value).__module__.startswith("h5py"):
            return True
        if numpy is not None and type(value) is numpy.ndarray:
            return True
    return False


def _taken_apart(nodes: dict[Key, GraphNode], key: Key) -> set[Key]:
    """Put the tasks of a fused task into the graph; those that store are returned."""
    from dask.task_spec import Alias, GraphNode, TaskRef

    node = nodes[key]
    if not node.has_subgraph():
        return {key} if _stores_chunk(node) else set()
    inner, outkey, inkeys, *given = node.args
    names: dict[Key, Key] = {one: ("mars-inner", key, one) for one in inner}
    for inkey, value in zip(inkeys, given, strict=True):
        if isinstance(value, TaskRef):
            names[inkey] = value.key
        elif isinstance(value, GraphNode):
            names[inkey] = ("mars-inner", key, inkey)
            nodes[names[inkey]] = value.substitute({}, key=names[inkey])
    for one, part in inner.items():
        nodes[names[one]] = part.substitute(names, key=names[one])
    nodes[key] = Alias(key, names[outkey])
    found: set[Key] = set()
    for one, part in inner.items():
        if _is_task(part):
            found |= _taken_apart(nodes, names[one])
    return found


def _stores_chunk(part: GraphNode) -> bool:
    return getattr(part.func, "__name__", "") in _STORES


def _puts_together(node: object) -> bool:
    func = getattr(node, "func", None)
    module = getattr(func, "__module__", None) or ""
    return getattr(func, "__name__", "") in _TOGETHER and module.startswith("dask.")


__all__ = ["inputs_of", "run", "tasks_at_home"]
