"""Graphs that threads of the program compute faster than any call: cheap numpy on data at hand.

A graph that adds, scales or sums an array of the program reads each byte once. To hand the array
to other processes, and to take the result back, reads and writes each byte several times. numpy
needs no second process, because it lets threads run beside each other. So on one machine such a
graph is computed by threads here. `mars.dask.running` asks `stays_here`.

All else becomes calls: functions of the program, frames, objects, multiplications of matrices, data
that tasks make or read, and every graph on a cluster.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from mars.attempt import context
from mars.settings import DASK_STAY_BYTES

if TYPE_CHECKING:
    from types import ModuleType

    from dask._task_spec import GraphNode

Key = Hashable

_KNOWN: Final = frozenset(
    {"numpy", "dask", "toolz", "tlz", "cytoolz", "operator", "_operator", "builtins", "functools"}
)
"""Packages whose functions do nothing but numpy, where a graph has only arrays."""

_COSTLY: Final = frozenset(
    {
        "cholesky", "dot", "einsum", "fft", "linalg", "lu", "matmul", "qr", "solve", "svd",
        "tensordot", "vdot",
    }
)  # fmt: skip
"""Words in names of functions that do so much with each byte that moving it does not matter."""


def stays_here(nodes: Mapping[Key, GraphNode], address: str) -> bool:
    """Whether threads of this process should compute a graph.

    Parameters
    ----------
    nodes : mapping
        The graph.
    address : str
        The address of the engine that would run it.
    """
    if not address.startswith("local") or context.current() is not None:
        return False
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False
    size = 0
    for one in _contents(nodes):
        if callable(one):
            if not _is_cheap(one, numpy):
                return False
        elif type(one) is numpy.ndarray and not one.dtype.hasobject:
            size += one.nbytes
        else:
            return False
    return size >= DASK_STAY_BYTES


def _contents(nodes: Mapping[Key, object]) -> Iterator[GraphNode]:
    """All functions that tasks call or pass on, and all that may be data; each once."""
    from dask.task_spec import DataNode, GraphNode

    left: list[object] = list(nodes.values())
    seen: set[int] = set()
    while left:
        one = left.pop()
        if isinstance(one, (str, bytes, int, float, slice, type(None))) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, DataNode):
            left.append(one.value)
        elif isinstance(one, GraphNode):
            func = getattr(one, "func", None)
            if func is not None:
                left += [func, *one.args, *one.kwargs.values()]
        elif isinstance(one, functools.partial):
            left += [one.func, *one.args, *one.keywords.values()]
        elif isinstance(one, dict):
            left += one.values()
        elif isinstance(one, (list, tuple, set, frozenset)):
            left += one
        elif callable(one):
            inner = getattr(one, "funcs", None)
            if isinstance(inner, tuple) and hasattr(one, "first"):  # toolz.compose
                left += [one.first, *inner]
            else:
                yield one
        elif hasattr(one, "__len__") and not (isinstance(one, range) or _is_dtype(one)):
            yield one


def _is_dtype(value: object) -> bool:
    return hasattr(value, "itemsize") and hasattr(value, "subdtype")


def _is_cheap(func: object, numpy: ModuleType) -> bool:
    if isinstance(func, numpy.vectorize):
        return False
    name = getattr(func, "__name__", "")
    if not isinstance(name, str) or "(vectorized)" in name or name == "<lambda>":
        name, module = "", "" if isinstance(func, numpy.ufunc) else _module_of(func)
    else:
        module = _module_of(func)
    if module.partition(".")[0] not in _KNOWN:
        return False
    return _COSTLY.isdisjoint(f"{module}.{name}".replace("_", ".").split("."))


def _module_of(func: object) -> str:
    module = getattr(func, "__module__", None)
    if not isinstance(module, str):
        owner = getattr(func, "__self__", func)
        module = type(owner).__module__
    return module


__all__ = ["stays_here"]
