"""Frames of Dask and the tasks that give their chunks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dask.array import Array
    from dask.dataframe.dask_expr._collection import FrameBase
    from dask.delayed import Delayed

    from mars.dataframe.protocols import Rows


def parts_of(lazy: FrameBase) -> list[Delayed]:
    """The chunks of a frame of Dask, as tasks.

    Shuffles are done by tasks. Dask would do them on the disk of one machine, as soon as it is
    asked for the chunks, and a task that runs twice would write its rows twice.
    """
    import dask

    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        return list(lazy.to_delayed())


def array_of(lazy: FrameBase) -> Array:
    """The values of a frame of Dask, as an array of Dask."""
    import dask

    with dask.config.set({"dataframe.shuffle.method": "tasks"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Dask, about texts that become objects
        return lazy.to_dask_array()


def of_parts(parts: Sequence[Delayed], meta: Rows) -> FrameBase:
    """A frame of Dask.

    Parameters
    ----------
    parts : sequence of Delayed
        The chunks.
    meta : DataFrame or Series
        What they look like, without rows.
    """
    import dask
    import dask.dataframe as dd

    # Dask would make strings of another type of them, and pandas has its own.
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_delayed(list(parts), meta=meta, verify_meta=False)


def lengths_of(lazy: FrameBase) -> list[int] | None:
    """How many rows the chunks of a frame of Dask have, if that is known without computing."""
    from dask.dataframe.dask_expr._expr import Elemwise

    expr = lazy.expr
    while True:
        known = getattr(expr, "_get_lengths", None)
        if known is not None:
            found = known()
            return None if found is None else [int(one) for one in found]
        if not isinstance(expr, Elemwise):
            return None
        frames = [one for one in expr.dependencies() if one.ndim]
        if not frames:
            return None
        expr = max(frames, key=lambda one: one.npartitions)


def aligned(*frames: object) -> bool:
    """Whether Dask computes with the rows of several frames that belong together.

    It does if all were made of one frame, chunk by chunk, or if their divisions are known.
    """
    from dask.dataframe.dask_expr._collection import FrameBase
    from dask.dataframe.dask_expr._expr import are_co_aligned

    several = [one for one in frames if isinstance(one, FrameBase) and one.ndim]
    if all(one.known_divisions for one in several):
        return True
    return bool(are_co_aligned(*[one.expr for one in several]))


__all__ = ["aligned", "array_of", "lengths_of", "of_parts", "parts_of"]
