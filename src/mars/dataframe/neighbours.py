"""What looks at rows nearby: ``rolling(3).mean()``, ``shift(2)``, ``diff()``, chunk by chunk.

Each chunk gets the rows before or after it that its own rows look at. These may be of several
chunks, so they are handed on from chunk to chunk::

    chunk 0 ──rows before──► chunk 1 ──rows before──► chunk 2

Pandas then computes with these rows, and they are taken off the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mars.dataframe.parts import of_parts, parts_of

if TYPE_CHECKING:
    from dask.dataframe.dask_expr._collection import FrameBase
    from dask.delayed import Delayed
    from pandas import Timedelta

    from mars.dataframe.protocols import Rows


def with_rows_nearby(
    lazy: FrameBase,
    func: Callable[[Rows], Rows],
    meta: Rows,
    before: int | Timedelta = 0,
    after: int = 0,
) -> FrameBase:
    """A frame of Dask, each chunk of which is computed with rows before and after it.

    Parameters
    ----------
    lazy : frame of Dask
        The frame.
    func : callable
        Gets a frame of pandas, and returns as many rows.
    meta : DataFrame or Series
        What the result looks like.
    before : int or Timedelta, default 0
        How many rows before it a row looks at, or how far back in an index of times.
    after : int, default 0
        How many rows after it a row looks at.
    """
    import dask

    parts = parts_of(lazy)
    last, first = dask.delayed(_last, pure=True), dask.delayed(_first, pure=True)
    earlier: list[Delayed | None] = [None]
    for one in parts[:-1]:
        earlier.append(last(earlier[-1], one, before) if before else None)
    later: list[Delayed | None] = [None]
    for one in reversed(parts[1:]):
        later.append(first(one, later[-1], after) if after else None)
    run = dask.delayed(_computed, pure=True)
    made = [
        run(func, one, two, three)
        for one, two, three in zip(parts, earlier, reversed(later), strict=True)
    ]
    return of_parts(made, meta)


def _last(earlier: Rows | None, part: Rows, wanted: int | Timedelta) -> Rows:
    whole = _together([earlier, part])
    if isinstance(wanted, int):
        return whole.iloc[max(0, len(whole) - wanted) :]
    if not len(whole):
        return whole
    return whole[whole.index > whole.index[-1] - wanted]


def _first(part: Rows, later: Rows | None, wanted: int) -> Rows:
    return _together([part, later]).iloc[:wanted]


def _together(parts: list[Rows | None]) -> Rows:
    import pandas

    given = [one for one in parts if one is not None and len(one)]
    if not given:
        return next(one for one in parts if one is not None)
    return given[0] if len(given) == 1 else pandas.concat(given)


def _computed(
    func: Callable[[Rows], Rows], part: Rows, earlier: Rows | None, later: Rows | None
) -> Rows:
    start = 0 if earlier is None else len(earlier)
    return func(_together([earlier, part, later])).iloc[start : start + len(part)]


__all__ = ["with_rows_nearby"]
