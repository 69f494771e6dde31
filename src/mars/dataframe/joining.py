"""Frames of pandas cut into chunks, and frames put together: what other modules here start from."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, SupportsInt, cast

from mars.calls.executable import Executable
from mars.config import option_values
from mars.dataframe import rows
from mars.dataframe.handle import Handle
from mars.dataframe.parts import of_parts, parts_of
from mars.dataframe.whole import at_once, has_rows, on_whole, tileable_of
from mars.settings import FRAME_CHUNK_BYTES
from mars.tileables.tileable import Tileable, wrap

if TYPE_CHECKING:
    from mars.dataframe.protocols import Rows


def of_pandas(value: object, chunk_size: object, num_partitions: int | None = None) -> Tileable:
    """A frame, series or index of pandas in chunks; see `mars.dataframe.reading.DataFrame`."""
    import dask
    import dask.dataframe as dd
    import pandas
    from dask.dataframe.dask_expr._collection import FrameBase

    if isinstance(value, pandas.MultiIndex):  # of which Dask makes no index
        return tileable_of(at_once(functools.partial(_same, value), []))
    if isinstance(value, pandas.Index):
        frame = of_pandas(value.to_frame(index=True), chunk_size, num_partitions)
        lazy = frame.lazy
        return wrap(lazy.index) if isinstance(lazy, FrameBase) else frame
    if not has_rows(value):
        raise TypeError(f"a frame or a series of pandas is needed, got {value!r:.80}")
    if isinstance(chunk_size, (tuple, list)):
        chunk_size = chunk_size[0]
    if isinstance(chunk_size, dict):
        chunk_size = chunk_size.get(0)
    if chunk_size is None:
        chunk_size = option_values()["chunk_size"]
    if num_partitions:
        size = max(1, -(-len(value) // int(num_partitions)))
    elif chunk_size is None:
        each = value.memory_usage(deep=False)
        total = each if isinstance(each, int) else int(each.sum())
        size = max(1, len(value) // max(1, -(-total // FRAME_CHUNK_BYTES)))
        size = -(-len(value) // max(1, -(-len(value) // size))) if len(value) else 1
    else:
        size = _rows_of(chunk_size)
    index = value.index
    if isinstance(index, pandas.MultiIndex):  # of which Dask makes no frame, but it takes its parts
        cuts = [*range(0, len(value), max(1, size)), len(value)] if len(value) else [0, 0]
        parts = [dask.delayed(value.iloc[a:b]) for a, b in itertools.pairwise(cuts)]
        return wrap(of_parts(parts, value.iloc[:0]))
    ordered = (
        index.is_monotonic_increasing and index.is_unique and not index.hasnans and len(index) > 0
    )
    with dask.config.set({"dataframe.convert-string": False}):
        return wrap(dd.from_pandas(value, chunksize=max(1, size), sort=bool(ordered)))


def _same(value: object) -> object:
    return value


def _rows_of(chunk_size: object) -> int:
    if not isinstance(chunk_size, SupportsInt):
        raise TypeError(f"chunk_size has to be a number of rows, got {chunk_size!r}")
    return int(chunk_size)


def concat(
    objs: Iterable[object] | dict[object, object],
    axis: int | str = 0,
    ignore_index: bool = False,
    **kwargs: object,
) -> Executable[object]:
    """Frames one after the other, or side by side; see `pandas.concat`."""
    if isinstance(objs, dict):
        kwargs.setdefault("keys", list(objs))
        objs = [objs[key] for key in cast("list[object]", kwargs["keys"])]
    given = [one if isinstance(one, Tileable) else of_pandas(one, None) for one in objs]
    simple = axis in (0, "index") and not (kwargs.keys() - {"join", "verify_integrity", "sort"})
    alike = len({(type(one), *map(str, getattr(one.lazy, "columns", ()))) for one in given}) == 1
    lazies = [one.lazy for one in given if isinstance(one, Handle)]
    simple = simple and alike and len(lazies) == len(given)
    if simple and not kwargs.get("sort") and not kwargs.get("verify_integrity"):
        parts = [part for lazy in lazies for part in parts_of(lazy)]
        import pandas

        meta = pandas.concat([lazy._meta for lazy in lazies])
        made = of_parts(parts, meta)
        return wrap(rows.numbered(made) if ignore_index else made)
    return on_whole(given[0], _Concat(axis, ignore_index, kwargs), *given[1:])


class _Concat:
    __name__ = "concat"

    def __init__(self, axis: int | str, ignore_index: bool, kwargs: dict[str, object]) -> None:
        self._how = {"axis": axis, "ignore_index": ignore_index, **kwargs}

    def __call__(self, *frames: object) -> Rows:
        import pandas

        made: Rows = pandas.concat(list(frames), **self._how)
        return made


__all__ = ["concat", "of_pandas"]
