"""Methods that look at each column by itself: one call for each column, which gets all its rows.

So the columns of ``df.quantile(0.3)`` and ``df.describe()`` are computed at the same time, and no
call has the whole frame in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mars.dataframe.parts import of_parts, parts_of
from mars.dataframe.whole import joined

if TYPE_CHECKING:
    from dask.dataframe.dask_expr._collection import FrameBase

    from mars.dataframe.protocols import Rows

BY_COLUMN: Final = frozenset(
    ["describe", "kurt", "kurtosis", "median", "quantile", "rank", "skew", "interpolate"]
)
"""Methods of frames of which each column of the result needs one column of the frame."""


def by_column(
    lazy: FrameBase, columns: list[object], func: Callable[[Rows], Rows], small: Rows
) -> FrameBase:
    """A frame or series of Dask with one chunk, made of the results for single columns.

    Parameters
    ----------
    lazy : frame of Dask
        The frame.
    columns : list
        The columns that the result is made of, in their order.
    func : callable
        Gets a frame of pandas with one column.
    small : DataFrame or Series
        What the result for a few rows looks like.
    """
    import dask

    run = dask.delayed(_run, pure=True)
    results = [run(func, parts_of(lazy[[name]])) for name in columns]
    axis = 1 if small.ndim == 2 else 0
    made = dask.delayed(_together, pure=True)(results, axis, getattr(small, "name", None))
    return of_parts([made], small.iloc[:0])


def _run(func: Callable[[Rows], Rows], parts: list[Rows]) -> Rows:
    return func(joined(parts))


def _together(results: list[Rows], axis: int, name: object) -> Rows:
    import pandas

    made: Rows = pandas.concat(results, axis=axis)
    if axis == 0:
        made.name = name if len({one.name for one in results}) > 1 else results[0].name
    return made


__all__ = ["BY_COLUMN", "by_column"]
