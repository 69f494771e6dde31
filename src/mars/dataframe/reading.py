"""Functions of `mars.dataframe` that make frames: of files, of values, and of other frames."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

from mars.dataframe import core, rows
from mars.dataframe.joining import of_pandas
from mars.dataframe.whole import Method, at_once, on_whole, tileable_of
from mars.settings import FRAME_CHUNK_BYTES
from mars.tileables.tileable import Tileable, kind_named, unwrap, wrap

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from mars.dataframe.protocols import Rows

    Chunk = int | Sequence[int] | None


@overload
def _computed(data: dict[str, object]) -> dict[str, object]: ...


@overload
def _computed(data: list[object]) -> list[object]: ...


@overload
def _computed(data: object) -> object: ...


def _computed(data: object) -> object:
    """Values in the place of tensors and frames within lists and dicts."""
    if isinstance(data, Tileable):
        return data.executed_value()
    if isinstance(data, dict):
        return {key: _computed(one) for key, one in data.items()}
    if isinstance(data, (list, tuple)) and any(isinstance(one, Tileable) for one in data):
        return [_computed(one) for one in data]
    return data


def DataFrame(  # noqa: N802
    data: object = None, index: object = None, columns: Sequence[object] | None = None,
    dtype: DTypeLike | None = None, copy: bool = False, chunk_size: Chunk = None,
    num_partitions: int | None = None, gpu: object = None, sparse: object = None,
) -> Tileable:  # fmt: skip
    """A frame of what pandas takes, of a tensor, or of tensors and series by column.

    Parameters
    ----------
    data : object
        As of `pandas.DataFrame`; also a frame, a tensor of two axes, or a dict of tensors.
    index, columns, dtype, copy
        As of `pandas.DataFrame`.
    chunk_size : int or tuple, optional
        Rows of a chunk. Default: chunks of 32 MiB.
    num_partitions : int, optional
        How many chunks there are to be.
    gpu, sparse
        Refused if true.

    Returns
    -------
    mars.dataframe.core.DataFrame
    """
    import dask.array as da
    import pandas
    from dask.dataframe.dask_expr._collection import FrameBase

    _refuse(gpu, sparse)
    if isinstance(data, core.DataFrame) and index is None and columns is None and dtype is None:
        return data if chunk_size is None else data.rechunk(chunk_size)
    if isinstance(unwrap(data), da.Array) and index is None and dtype is None:
        return from_tensor(data, columns=columns)
    if isinstance(data, FrameBase):
        return wrap(data)
    made = pandas.DataFrame(_computed(data), _computed(index), columns, dtype, copy or None)
    return of_pandas(made, chunk_size, num_partitions)


def Series(  # noqa: N802
    data: object = None, index: object = None, dtype: DTypeLike | None = None, name: object = None,
    copy: bool = False, chunk_size: Chunk = None, num_partitions: int | None = None,
    gpu: object = None, sparse: object = None,
) -> Tileable:  # fmt: skip
    """A series of what pandas takes, or of a tensor of one axis; see `DataFrame`."""
    import dask.array as da
    import dask.dataframe as dd
    import pandas

    _refuse(gpu, sparse)
    if isinstance(data, core.Series) and index is None and dtype is None:
        if name is None:
            return data
        renamed: Tileable = data.rename(name)
        return renamed
    lazy = unwrap(data)
    if isinstance(lazy, da.Array) and index is None and dtype is None:
        return wrap(dd.from_dask_array(lazy, columns=name))
    made = pandas.Series(_computed(data), _computed(index), dtype, name)
    return of_pandas(made, chunk_size, num_partitions)


def Index(  # noqa: N802
    data: object,
    dtype: DTypeLike | None = None,
    copy: bool = False,
    name: object = None,
    chunk_size: Chunk = None,
    **_: object,
) -> Tileable:
    """An index of what pandas takes; see `DataFrame`."""
    import pandas

    if isinstance(data, pandas.MultiIndex):
        return of_pandas(data, None)
    return of_pandas(pandas.Index(_computed(data), dtype=dtype, name=name), chunk_size)


def from_pandas(
    data: Rows, chunk_size: Chunk = None, num_partitions: int | None = None
) -> Tileable:
    """A frame, a series or an index of pandas in chunks; see `DataFrame`."""
    return of_pandas(data, chunk_size, num_partitions)


def from_tensor(
    tensor: object, index: object = None, columns: Sequence[object] | None = None, **_: object
) -> Tileable:
    """A frame whose columns are those of a tensor."""
    import dask.array as da
    import dask.dataframe as dd
    import pandas

    if index is not None or isinstance(tensor, dict):
        return DataFrame(_computed(tensor), index=index, columns=columns)
    lazy = da.asarray(unwrap(tensor))
    if lazy.ndim == 1:
        return wrap(dd.from_dask_array(lazy.reshape((-1, 1)), columns=columns or [0]))
    lazy = lazy.rechunk({1: -1})
    names = pandas.RangeIndex(lazy.shape[1]) if columns is None else list(columns)
    return wrap(dd.from_dask_array(lazy, columns=names))


def from_records(data: object, chunk_size: Chunk = None, **kwargs: object) -> Tileable:
    """A frame of records; see `pandas.DataFrame.from_records`."""
    import pandas

    return of_pandas(pandas.DataFrame.from_records(_computed(data), **kwargs), chunk_size)


setattr(DataFrame, "from_records", from_records)  # noqa: B010  where pandas has it, too


def _refuse(gpu: object, sparse: object) -> None:
    if gpu or sparse:
        raise NotImplementedError("frames on a GPU and sparse frames are not there; leave it away")


# -- files ----------------------------------------------------------------------------------------


def read_csv(
    path: object, incremental_index: bool = True, chunk_bytes: int | str | None = None,
    storage_options: object = None, **kwargs: object,
) -> Tileable:  # fmt: skip
    """A frame of CSV files. Each chunk is read by a call.

    Parameters
    ----------
    path : str, path or list
        One or several files; ``*`` stands for any text. URLs are read with fsspec.
    incremental_index : bool, default True
        Whether rows are counted over all files. False: each chunk begins with 0, and nothing has to
        be counted.
    chunk_bytes : int or str, optional
        Bytes of a file that become a chunk. Default: 32 MiB.
    storage_options : dict, optional
        As of fsspec.
    **kwargs
        As of `pandas.read_csv`. Arguments with which a file cannot be read in parts, such as
        ``nrows``, have one call read it.
    """
    import dask
    import dask.dataframe as dd

    for hint in ("gpu", "memory_scale", "merge_small_files", "use_arrow_dtype", "head_bytes",
                 "head_lines"):  # fmt: skip
        kwargs.pop(hint, None)
    whole = {"nrows", "skipfooter", "chunksize", "iterator"} & kwargs.keys()
    index_col = kwargs.pop("index_col", None)
    if whole or (not isinstance(path, (str, list, tuple)) and hasattr(path, "read")):
        import pandas

        return of_pandas(pandas.read_csv(path, index_col=index_col, **kwargs), None)
    files = [str(one) for one in path] if isinstance(path, (list, tuple)) else str(path)
    size: int | str | None = chunk_bytes or FRAME_CHUNK_BYTES
    if kwargs.get("compression", "infer") not in (None, "infer") or str(files).endswith(
        (".gz", ".bz2", ".xz", ".zip", ".zst")
    ):
        size = None
    with dask.config.set({"dataframe.convert-string": False}):
        made = dd.read_csv(
            files, blocksize=size, storage_options=storage_options, assume_missing=False, **kwargs
        )
    if index_col is not None:
        names = [
            made.columns[one] if isinstance(one, int) else one
            for one in (index_col if isinstance(index_col, (list, tuple)) else [index_col])
        ]
        labels = [None if str(one).startswith("Unnamed: ") else one for one in names]
        func = Method(
            ("set_index", (names if len(names) > 1 else names[0],), {}),
            ("rename_axis", (labels if len(labels) > 1 else labels[0],), {}),
        )
        return wrap(made.map_partitions(func, meta=func(made._meta)))
    return wrap(rows.numbered(made) if incremental_index and made.npartitions > 1 else made)


def read_parquet(
    path: object, columns: Sequence[object] | None = None, engine: str = "auto",
    incremental_index: bool = False, storage_options: object = None, **kwargs: object,
) -> Tileable:  # fmt: skip
    """A frame of Parquet files. Only the columns that are needed are read.

    Parameters
    ----------
    path : str, path or list
        A file, a folder or several files; ``*`` stands for any text. URLs are read with fsspec.
    columns : list of str, optional
        Which columns to read.
    engine : str, default "auto"
        Accepted for programs of the original.
    incremental_index : bool, default False
        Whether rows are counted over all files. All columns are read then.
    storage_options : dict, optional
        As of fsspec.
    **kwargs
        As of `dask.dataframe.read_parquet`, such as ``filters``.
    """
    import dask
    import dask.dataframe as dd

    for hint in ("groups_as_chunks", "use_arrow_dtype", "memory_scale", "merge_small_files", "gpu"):
        kwargs.pop(hint, None)
    files = [str(one) for one in path] if isinstance(path, (list, tuple)) else str(path)
    with dask.config.set({"dataframe.convert-string": False}):
        made = dd.read_parquet(files, columns=columns, storage_options=storage_options, **kwargs)
    return wrap(rows.numbered(made) if incremental_index and made.npartitions > 1 else made)


def read_json(path: object, **kwargs: object) -> Tileable:
    """A frame of JSON files; see `pandas.read_json`. With ``lines=True`` they are read in parts."""
    import dask
    import dask.dataframe as dd
    import pandas

    if kwargs.get("lines"):
        with dask.config.set({"dataframe.convert-string": False}):
            made = dd.read_json(path, **kwargs)
        return wrap(rows.numbered(made) if made.npartitions > 1 else made)
    return of_pandas(pandas.read_json(path, **kwargs), None)


def read_sql(sql: object, con: object, chunk_size: Chunk = None, **kwargs: object) -> Tileable:
    """A frame of a query or a table; the program reads it, see `pandas.read_sql`."""
    import pandas

    for hint in ("test_rows", "partition_col", "num_partitions", "low_limit", "high_limit",
                 "engine_kwargs", "incremental_index"):  # fmt: skip
        kwargs.pop(hint, None)
    return of_pandas(pandas.read_sql(sql, con, **kwargs), chunk_size)


read_sql_query = read_sql_table = read_sql


# -- of other frames ------------------------------------------------------------------------------


def merge(left: object, right: object, **kwargs: object) -> object:
    """Two frames joined; see `pandas.merge`."""
    first = left if isinstance(left, Tileable) else DataFrame(left)
    join: Callable[..., object] = getattr(first, "merge")  # noqa: B009  of any kind of frame
    return join(right, **kwargs)


def date_range(*args: object, chunk_size: Chunk = None, **kwargs: object) -> Tileable:
    """Dates in equal steps, as an index; see `pandas.date_range`.

    ``closed`` and the frequencies "M", "Q" and "Y" of older versions of pandas are taken, too.
    """
    import pandas

    if "closed" in kwargs:
        kwargs["inclusive"] = kwargs.pop("closed") or "both"
    freq = kwargs.get("freq")
    if isinstance(freq, str) and freq.lstrip("0123456789") in ("M", "Q", "Y"):
        kwargs["freq"] = f"{freq}E"
    return Index(pandas.date_range(*args, **kwargs), chunk_size=chunk_size)


class _Top:
    """A function of pandas that gets a frame."""

    def __init__(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self.__name__, self._args, self._kwargs = name, args, kwargs

    def __call__(self, frame: object) -> object:
        import pandas

        func: Callable[..., object] = getattr(pandas, self.__name__)
        return func(frame, *self._args, **self._kwargs)

    def of(self, values: object) -> Callable[[], object]:
        """The same, without arguments, for values that the program has."""
        import numpy

        given = numpy.asarray(values) if isinstance(values, range) else values
        return functools.partial(self, given)


def _top(name: str, by_row: bool) -> Callable[..., object]:
    def call(data: object, *args: object, **kwargs: object) -> object:
        import pandas

        for hint in ("chunk_size", "gpu", "sparse_threshold"):
            kwargs.pop(hint, None)
        if not isinstance(data, Tileable):
            if name in ("cut", "qcut"):
                func = _Top(name, tuple(_computed(list(args))), _computed(kwargs))
                return at_once(func.of(_computed(data)), [])
            found = getattr(pandas, name)(data, *_computed(list(args)), **_computed(kwargs))
            if isinstance(found, (pandas.DataFrame, pandas.Series, pandas.Index)):
                return of_pandas(found, None)
            return kind_named("Array").of_value(found) if _is_plain_array(found) else found
        func = _Top(name, tuple(_computed(list(args))), _computed(kwargs))
        if by_row and isinstance(data, (core.DataFrame, core.Series)):
            return data.map_chunk(func)
        if not isinstance(data, (core.DataFrame, core.Series)):
            return at_once(func, [data])
        return on_whole(data, func)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"As `pandas.{name}`, for a frame."
    return call


def _is_plain_array(value: object) -> bool:
    import numpy

    return isinstance(value, numpy.ndarray)


def _top_of_two(name: str) -> Callable[..., object]:
    def call(left: object, right: object, *args: object, **kwargs: object) -> object:
        frames = [one if isinstance(one, Tileable) else of_pandas(one, None)
                  for one in (left, right)]  # fmt: skip
        func = _TopOfTwo(name, tuple(_computed(list(args))), _computed(kwargs))
        return on_whole(frames[0], func, frames[1])

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"As `pandas.{name}`, for two frames: one call gets both."
    return call


class _TopOfTwo:
    """A function of pandas that takes two frames."""

    def __init__(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self.__name__, self._args, self._kwargs = name, args, kwargs

    def __call__(self, left: object, right: object) -> object:
        import pandas

        func: Callable[..., object] = getattr(pandas, self.__name__)
        return func(left, right, *self._args, **self._kwargs)


class CustomReduction:
    """A reduction of a program's own: ``df.agg(MyReduction())``.

    Subclasses say in `agg` what a column is reduced to. `pre` may prepare the column, and `post`
    change the result; if one gives a tuple, the next gets its elements. One call gets the whole
    column.

    Parameters
    ----------
    name : str, optional
        What the result is called. Default: the name of the class.

    Examples
    --------
    >>> import pandas, mars.dataframe as md
    >>> class Span(md.CustomReduction):
    ...     def agg(self, column):
    ...         return column.max() - column.min()
    >>> df = md.DataFrame(pandas.DataFrame({"a": [1, 5, 3]}), chunk_size=2)
    >>> int(df.a.agg(Span()).execute().fetch())
    4
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = self.__name__ = name or type(self).__name__

    def pre(self, value: Any) -> Any:
        return value

    def agg(self, value: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a method agg()")

    def post(self, value: Any) -> Any:
        return value

    def __call__(self, column: Rows) -> object:
        prepared = self.pre(column)
        made = self.agg(*prepared) if isinstance(prepared, tuple) else self.agg(prepared)
        return self.post(*made) if isinstance(made, tuple) else self.post(made)


class _Evaluated:
    """An expression with the names of frames in it."""

    __name__ = "eval"

    def __init__(self, text: str, names: list[str], kwargs: dict[str, object]) -> None:
        self._text, self._names, self._kwargs = text, names, kwargs

    def __call__(self, *frames: Rows) -> object:
        import pandas

        given = dict(zip(self._names, frames, strict=False))
        more = {"target": frames[-1]} if len(frames) > len(self._names) else {}
        return pandas.eval(self._text, local_dict=given, **more, **self._kwargs)


def eval(  # noqa: A001  as in pandas
    expr: str, target: object = None, inplace: bool = False, **kwargs: object
) -> object:
    """An expression of frames that the caller's variables have; see `pandas.eval`."""
    import ast

    import pandas

    caller = sys._getframe(1)
    more = kwargs.pop("local_dict", {})
    scope = {**caller.f_globals, **caller.f_locals, **(more if isinstance(more, dict) else {})}
    wanted = {node.id for node in ast.walk(ast.parse(expr)) if isinstance(node, ast.Name)}
    found = {name: scope[name] for name in sorted(wanted) if name in scope}
    names = [name for name, one in found.items() if isinstance(one, Tileable)]
    frames = [found[name] for name in names]
    if isinstance(target, Tileable):
        frames.append(target)
    if not frames:
        return pandas.eval(expr, local_dict=scope, target=target, inplace=inplace, **kwargs)
    made = on_whole(frames[0], _Evaluated(expr, names, kwargs), *frames[1:])
    if inplace and isinstance(target, Tileable):
        target.become(tileable_of(made))
        return None
    return made


to_datetime = _top("to_datetime", True)
to_numeric = _top("to_numeric", True)
to_timedelta = _top("to_timedelta", True)
isna = _top("isna", True)
isnull = _top("isnull", True)
notna = _top("notna", True)
notnull = _top("notnull", True)
unique = _top("unique", False)
cut = _top("cut", False)
qcut = _top("qcut", False)
get_dummies = _top("get_dummies", False)
pivot_table = _top("pivot_table", False)
crosstab = _top("crosstab", False)
melt = _top("melt", False)
factorize = _top("factorize", False)
wide_to_long = _top("wide_to_long", False)
merge_asof = _top_of_two("merge_asof")
merge_ordered = _top_of_two("merge_ordered")
