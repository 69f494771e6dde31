"""Frames that are asked for together, fused as Dask fuses one alone.

Dask makes one task of all that happens to a chunk of rows: it is read, filtered and summed up
without leaving the process. It does so when one frame is computed by its own method. When frames
are persisted, or several are computed together, it leaves each operation a task of its own. What a
filter reads would then be stored, and read again, by several calls.

`mars.dask.running` calls `fused`, and `renamed` for what changes names.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dask._expr import Expr

Key = Hashable

_MODULE = "dask.dataframe.dask_expr._expr"


def fused(graph: Expr) -> Expr:
    """The graph with what happens to each chunk of rows in one task.

    Parameters
    ----------
    graph : expression
        As Dask gives it, optimized. Only expressions of frames change. What several frames that
        are asked for have in common stays one task, and is not done twice.
    """
    frames = sys.modules.get(_MODULE)
    if frames is None:
        return graph
    made: Expr = frames.optimize_blockwise_fusion(graph)
    return made


def renamed(before: Expr, after: Expr, keys: Sequence[Key]) -> dict[Key, Key]:
    """What some of the keys are called in the graph that was made of another."""
    from dask.core import flatten

    if after is before:
        return {}
    asked = set(keys)
    pairs = zip(flatten(before.__dask_keys__()), flatten(after.__dask_keys__()), strict=True)
    return {old: new for old, new in pairs if old != new and old in asked}


__all__ = ["fused", "renamed"]
