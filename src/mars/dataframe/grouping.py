"""Groups of rows brought together: each part has all rows of some groups.

So functions that need whole groups, such as ``groupby("city").apply(func)``, run for several parts
at the same time. The rows go to parts by a hash of their keys, and the results are put into the
order of pandas in the end: by the keys, or by the places of the rows.

::

    chunks ──split by hash──► pieces ──► parts ──func──► results ──in order──► one chunk
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mars.dataframe.parts import lengths_of, of_parts, parts_of

if TYPE_CHECKING:
    from dask.dataframe.dask_expr._collection import FrameBase
    from dask.delayed import Delayed
    from numpy import ndarray

    from mars.dataframe.protocols import Rows

BY_ROWS: Final = frozenset(
    [
        "bfill", "cumcount", "cummax", "cummin", "cumprod", "cumsum", "diff", "ffill", "head",
        "pct_change", "rank", "shift", "tail", "transform",
    ]
)  # fmt: skip
"""Methods of groups whose results have rows of the frame, in the order of the frame."""

BY_KEYS: Final = frozenset(
    [
        "agg", "aggregate", "apply", "kurt", "median", "nunique", "prod", "quantile", "sem", "skew",
        "std", "value_counts", "var", "describe", "idxmax", "idxmin",
    ]
)  # fmt: skip
"""Methods of groups whose results are in the order of the keys."""


def grouped_together(
    lazy: FrameBase,
    keys: Sequence[object],
    func: Callable[[Rows], Rows],
    meta: Rows,
    by_rows: bool,
) -> FrameBase:
    """A frame of Dask with one chunk: the results of a function for parts with whole groups.

    Parameters
    ----------
    lazy : frame of Dask
        The frame.
    keys : sequence
        The columns that say which group a row is in.
    func : callable
        Gets a frame of pandas that has all rows of some groups, in their order.
    meta : DataFrame or Series
        What the result looks like.
    by_rows : bool
        Whether the rows of the result are in the order of the frame. Otherwise they are in the
        order of the keys, which are the first levels of the index.
    """
    import dask

    parts = parts_of(lazy)
    count = len(parts)
    split = dask.delayed(_split, pure=True, nout=count)
    run = dask.delayed(_run, pure=True)
    known = lengths_of(lazy)
    lengths: list[int] | Delayed
    if known is None:
        lengths = dask.delayed(_places, pure=True)([dask.delayed(len)(one) for one in parts])
    else:
        lengths = _places(known)
    pieces = [split(one, list(keys), count, lengths[i]) for i, one in enumerate(parts)]
    results = [run(func, [one[i] for one in pieces], by_rows) for i in range(count)]
    ordered = dask.delayed(_by_rows if by_rows else _by_keys, pure=True)
    return of_parts([ordered(results, len(keys), meta)], meta)


def _places(lengths: list[int]) -> list[int]:
    return [0, *itertools.accumulate(lengths)]


def _split(part: Rows, keys: list[object], count: int, place: int) -> list[tuple[Rows, ndarray]]:
    """The rows for each part, with their places in the whole frame."""
    import numpy
    import pandas

    home = pandas.util.hash_pandas_object(part[keys], index=False).to_numpy() % count
    found = []
    for number in range(count):
        [rows] = numpy.nonzero(home == number)
        found.append((part.iloc[rows], rows + place))
    return found


def _run(
    func: Callable[[Rows], Rows], pieces: list[tuple[Rows, ndarray]], by_rows: bool
) -> Rows | tuple[Rows, ndarray] | None:
    import numpy
    import pandas

    full = [one for one in pieces if len(one[0])] or pieces[:1]
    frame = pandas.concat([one for one, _ in full])
    if not len(frame):
        return None
    if not by_rows:
        return func(frame)
    places = numpy.concatenate([rows for _, rows in full])
    labels = frame.index
    frame.index = pandas.RangeIndex(len(frame))  # labels may come twice
    made = func(frame)
    rows = made.index.to_numpy()
    made.index = labels[rows]
    return made, places[rows]


def _by_rows(results: list[tuple[Rows, ndarray] | None], _: int, meta: Rows) -> Rows:
    import numpy
    import pandas

    full = [one for one in results if one is not None]
    if not full:
        return meta
    whole: Rows = pandas.concat([one for one, _ in full])
    return whole.iloc[numpy.argsort(numpy.concatenate([rows for _, rows in full]))]


def _by_keys(results: list[Rows | None], count: int, meta: Rows) -> Rows:
    import pandas

    full = [one for one in results if one is not None]
    if not full:
        return meta
    whole: Rows = pandas.concat(full)
    levels = list(range(count)) if whole.index.nlevels > 1 else 0
    return whole.sort_index(level=levels, kind="stable", sort_remaining=False)


__all__ = ["BY_KEYS", "BY_ROWS", "grouped_together"]
