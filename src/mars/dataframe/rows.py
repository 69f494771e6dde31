"""The order of rows over all chunks: numbers from 0 on, and rows by their place.

Chunks know only their own rows. So the lengths of all chunks are computed first, as tasks of the
same graph, and each chunk then gets its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from mars.dataframe.parts import lengths_of, of_parts, parts_of

if TYPE_CHECKING:
    from dask.dataframe.dask_expr._collection import FrameBase
    from dask.delayed import Delayed

    from mars.dataframe.protocols import Axis, Rows


def numbered(lazy: FrameBase, name: Hashable = None) -> FrameBase:
    """A frame of Dask whose index counts all rows from 0 on."""
    from mars.dataframe import numbering

    return numbering.numbered(lazy, name)


def with_index_as_columns(lazy: FrameBase, kwargs: dict[str, object]) -> FrameBase:
    """What ``reset_index`` gives: the index becomes columns, and rows are counted from 0 on."""
    if kwargs.keys() <= {"drop"} and lazy._meta.index.nlevels == 1:
        made = lazy.reset_index(drop=bool(kwargs.get("drop")))
        return made if made.npartitions == 1 else numbered(made)
    return _with_places(lazy, _reset, kwargs)


def taken(lazy: FrameBase, rows: slice | list[int], columns: object) -> FrameBase:
    """Rows of all chunks by their place, in the order of the frame.

    Parameters
    ----------
    lazy : frame of Dask
        The frame.
    rows : slice or list of int
        Places; negative ones count from the end.
    columns : object
        What ``iloc`` takes for columns, or None.
    """
    return _with_places(lazy, _taken, rows, columns)


def with_index(lazy: FrameBase, index: Axis) -> FrameBase:
    """A frame of Dask with another index of pandas, which has one label for each row."""
    import dask

    meta = lazy._meta.set_axis(index[:0])
    return _with_places(lazy, _indexed, dask.delayed(index), meta=meta)


def _indexed(part: Rows, place: int, total: int, index: Axis) -> Rows:
    if len(index) != total:
        raise ValueError(
            f"Length mismatch: Expected axis has {total} elements, new values have {len(index)}"
        )
    return part.set_axis(index[place : place + len(part)])


def _with_places(
    lazy: FrameBase, func: Callable[..., Rows], *args: object, meta: Rows | None = None
) -> FrameBase:
    """Each chunk by ``func``, which gets it, its place and the number of all rows."""
    import dask

    parts = parts_of(lazy)
    if meta is None:
        meta = func(lazy._meta, 0, 0, *args)
    known = lengths_of(lazy)
    run = dask.delayed(func, pure=True)
    if known is not None:
        places: list[int] | Delayed = _places(known)
    else:
        length = dask.delayed(len, pure=True)
        places = dask.delayed(_places, pure=True)([length(one) for one in parts])
    made = [run(one, places[i], places[-1], *args) for i, one in enumerate(parts)]
    return of_parts(made, meta)


def _places(lengths: list[int]) -> list[int]:
    return [0, *itertools.accumulate(lengths)]


def _reset(part: Rows, place: int, _: int, kwargs: dict[str, object]) -> Rows:
    import pandas

    made = part.reset_index(**kwargs)
    if kwargs.get("level") is None:
        made.index = pandas.RangeIndex(place, place + len(part))
    return made


def _taken(part: Rows, place: int, total: int, rows: slice | list[int], columns: object) -> Rows:
    import numpy

    if isinstance(rows, slice):
        wanted: range | list[int] = range(*rows.indices(total))
        if isinstance(wanted, range) and wanted.step > 0:
            first = wanted.start + -(-max(0, place - wanted.start) // wanted.step) * wanted.step
            inside = slice(
                first - place, max(0, min(wanted.stop, place + len(part)) - place), wanted.step
            )
            if first >= wanted.stop or first - place >= len(part):
                inside = slice(0, 0)
            made = part.iloc[inside]
            return made if columns is None else made.iloc[:, columns]
    else:
        wanted = [one + total if one < 0 else one for one in rows]
        if total and any(not 0 <= one < total for one in wanted):
            raise IndexError("positional indexers are out-of-bounds")
    own = numpy.asarray(
        [one - place for one in wanted if place <= one < place + len(part)], dtype=numpy.int64
    )
    made = part.iloc[own]
    return made if columns is None else made.iloc[:, columns]


__all__ = ["numbered", "taken", "with_index", "with_index_as_columns"]
