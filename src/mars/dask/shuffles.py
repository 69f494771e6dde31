"""Shuffles of frames, done by tasks.

Dask shuffles on disk if no Client is there, and between the workers of a Client if there is one.
The first writes files beside the results of tasks, so a task that runs twice, because its worker
died, would write its rows twice; the second needs the Client. The third way has only tasks. So in a
graph that mars is to run, the first two are replaced by the third.

`mars.dask.running` calls `by_tasks`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dask._expr import Expr

_MODULE = "dask.dataframe.dask_expr._shuffle"


def by_tasks(graph: Expr) -> Expr:
    """The graph with all its shuffles done by tasks.

    Parameters
    ----------
    graph : expression
        As Dask gives it. What is no expression cannot hold other shuffles.

    Returns
    -------
    expression
        The same one, if it holds no other shuffle.
    """
    shuffles = sys.modules.get(_MODULE)
    if shuffles is None:
        return graph
    others = (shuffles.DiskShuffle, shuffles.P2PShuffle)
    changed = graph
    while True:
        found = next(iter(changed.find_operations(others)), None)
        if found is None:
            return changed
        changed = changed.substitute(found, shuffles.TaskShuffle(*found.operands))


__all__ = ["by_tasks"]
