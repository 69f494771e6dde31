"""`DataFrame`, `Series`, `Index` and `Scalar`: frames in chunks, computed when they are executed.

What they are as handles stands in `handle`. A method that is not here is one of pandas, and
`methods` says how it is computed.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

from mars.dataframe import rows
from mars.dataframe.access import (
    Accessor,
    Chain,
    Labels,
    OnChunk,
    Places,
    Written,
    drop_hints,
    set_whole,
    with_column,
)  # fmt: skip
from mars.dataframe.groups import Groups
from mars.dataframe.handle import Handle
from mars.dataframe.joining import concat, of_pandas
from mars.dataframe.methods import by_row, by_row_with, call_method
from mars.dataframe.names import MISSING, UNKNOWN
from mars.dataframe.parts import aligned, of_parts, parts_of
from mars.dataframe.whole import (
    Method,
    has_rows,
    on_whole,
    sample_of,
    tileable_of,
    tried,
)
from mars.tileables.tileable import Tileable, of_kind, unwrap, value_of, wrap

if TYPE_CHECKING:
    from numpy import dtype, ndarray
    from numpy.typing import DTypeLike

    from mars.calls.executable import Executable
    from mars.dask.backend import Scheduler
    from mars.dataframe.protocols import Axis, Rows
    from mars.sessions.session import Session

T = TypeVar("T")


class Frame(Handle):
    """What frames, series and indices have in common."""

    __slots__ = ()
    __hash__ = Tileable.__hash__

    def map_chunk(
        self, func: Callable[..., object], args: Sequence[object] = (),
        kwargs: dict[str, object] | None = None, with_chunk_index: bool = False, **more: object,
    ) -> Tileable:  # fmt: skip
        """Have a function called with each chunk, which is a frame of pandas.

        Parameters
        ----------
        func : callable
            Gets a chunk, ``args`` and ``kwargs``, and returns a frame or a series.
        args : sequence, default ()
            Further arguments.
        kwargs : dict, optional
            Further arguments.
        with_chunk_index : bool, default False
            Whether ``func`` gets the number of the chunk as ``chunk_index``.
        **more
            Further arguments for ``func``. ``output_type``, ``dtypes`` and the like of the original
            are accepted: what the result looks like is found out.
        """
        drop_hints(more)
        keywords = {**(kwargs or {}), **more}
        import dask

        run = OnChunk(func, tuple(args), keywords, with_chunk_index)
        small = tried(run, [sample_of(self)])
        parts = [dask.delayed(run, pure=False)(one, i) for i, one in enumerate(parts_of(self.lazy))]
        if not has_rows(small):
            made: Rows = (
                parts[0].compute(scheduler="mars")
                if len(parts) == 1
                else on_whole(self, run).to_object()
            )
            small = made
        return wrap(of_parts(parts, small.iloc[:0]))

    def rechunk(
        self, chunk_size: int | Sequence[int] | Mapping[object, int], **_: object
    ) -> Tileable:
        """The same rows in chunks of so many rows."""
        if isinstance(chunk_size, Mapping):
            chunk_size = chunk_size.get(0, chunk_size.get("index", max(1, len(self))))
        size = chunk_size[0] if isinstance(chunk_size, Sequence) else chunk_size
        count = len(self)
        cuts = [*range(0, count, int(size)), count] if count else [0, 0]
        import dask.dataframe as dd

        parts = [rows.taken(self.lazy, slice(a, b), None) for a, b in itertools.pairwise(cuts)]
        return wrap(dd.concat([one.repartition(npartitions=1) for one in parts]))

    def rebalance(
        self, factor: object = None, num_partitions: int | None = None, **_: object
    ) -> Tileable:
        """Chunks of equal lengths."""
        count = int(num_partitions or self.lazy.npartitions)
        return self.rechunk(max(1, -(-len(self) // count)))

    def reset_index(self, level: object = None, drop: bool = False, **kwargs: object) -> object:
        """The index becomes columns, and rows are counted from 0 on, over all chunks."""
        in_place = kwargs.pop("inplace", False)
        kwargs.pop("incremental_index", None)
        if level is not None:
            return call_method(self, "reset_index", (), {"level": level, "drop": drop, **kwargs})
        made = wrap(rows.with_index_as_columns(self.lazy, {"drop": drop, **kwargs}))
        if in_place:
            self.become(made)
            return None
        return made

    def cartesian_chunk(
        self, right: Frame, func: Callable[..., object], args: Sequence[object] = (),
        **kwargs: object,
    ) -> Tileable:  # fmt: skip
        """Have a function called with each chunk of this frame and each chunk of another one.

        Parameters
        ----------
        right : Frame
            The other frame.
        func : callable
            Gets a chunk of each, ``args`` and ``kwargs``, and returns a frame or a series.
        args : sequence, default ()
            Further arguments.
        **kwargs
            Further arguments for ``func``.
        """
        drop_hints(kwargs)
        import dask

        run = OnChunk(func, tuple(args), kwargs, False, chunks=2)
        small = tried(run, [sample_of(self), sample_of(right)])
        if not has_rows(small):
            raise TypeError(
                "cartesian_chunk() needs a function that returns a frame or a series, also of "
                "made-up rows like those of the frames"
            )
        call = dask.delayed(run, pure=False)
        parts = [call(one, two) for one in parts_of(self.lazy) for two in parts_of(right.lazy)]
        return wrap(of_parts(parts, small.iloc[:0]))

    def copy(self, deep: bool = True) -> Self:
        """Another frame with the same rows."""
        if self._objects is None:
            return type(self)(self.lazy, part_of=self)
        return of_kind(type(self), self.lazy)

    def to_cpu(self) -> Self:
        """Itself: all frames are in memory of the CPU."""
        return self

    def to_gpu(self) -> NoReturn:
        """Not there.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("frames on a GPU are not there; leave it away")

    def drop_duplicates(self, *args: object, **kwargs: object) -> object:
        """The rows that were not there before."""
        kwargs.pop("method", None)
        return call_method(self, "drop_duplicates", args, kwargs)

    @property
    def iloc(self) -> Places:
        return Places(self)

    @property
    def loc(self) -> Labels:
        return Labels(self, "loc")

    @property
    def at(self) -> Labels:
        return Labels(self, "at")

    @property
    def iat(self) -> Labels:
        return Labels(self, "iat")

    @property
    def plot(self) -> Any:
        """Pandas' plots of the executed frame."""
        return self.to_pandas().plot

    def groupby(self, by: object = None, **kwargs: object) -> Groups:
        """Groups of rows; see `mars.dataframe.groups.Groups`."""
        return Groups(self, by, kwargs)

    def rolling(self, *args: object, **kwargs: object) -> Chain:
        return Chain(self, ("rolling", args, kwargs))

    def expanding(self, *args: object, **kwargs: object) -> Chain:
        return Chain(self, ("expanding", args, kwargs))

    def ewm(self, *args: object, **kwargs: object) -> Chain:
        return Chain(self, ("ewm", args, kwargs))

    def resample(self, *args: object, **kwargs: object) -> Chain:
        return Chain(self, ("resample", args, kwargs))

    def pipe(self, func: Callable[..., T], *args: object, **kwargs: object) -> T:
        """What a function makes of it."""
        return func(self, *args, **kwargs)

    def append(self, other: object, ignore_index: bool = False, **_: object) -> Executable[object]:
        """The rows of another frame after those of this one."""
        others = list(other) if isinstance(other, (list, tuple)) else [other]
        others = [_row_of(one) if isinstance(one, dict) else one for one in others]
        return concat([self, *others], ignore_index=ignore_index)

    def apply(
        self, func: object, axis: object = 0, *args: object, **kwargs: object
    ) -> Executable[object]:
        """A function applied to each row (``axis=1``), column or element, as pandas does it."""
        drop_hints(kwargs)
        if self.ndim == 1:
            given = (axis,) if axis != 0 else ()
            kwargs.pop("convert_dtype", None)
            if not callable(func):  # the names of methods, which look at all rows
                return on_whole(self, Method(("apply", (func, *given, *args), kwargs)))
            return by_row(self, "apply", (func, *given, *args), kwargs)
        if axis in (1, "columns"):
            return by_row(self, "apply", (func, *args), {"axis": 1, **kwargs})
        return on_whole(self, Method(("apply", (func, *args), {"axis": axis, **kwargs})))

    def transform(
        self, func: object, axis: object = 0, *args: object, **kwargs: object
    ) -> Executable[object]:
        """A function that gives as many rows as it gets, as pandas does it."""
        drop_hints(kwargs)
        if axis in (1, "columns"):
            return by_row(self, "transform", (func, *args), {"axis": 1, **kwargs})
        return on_whole(self, Method(("transform", (func, *args), kwargs)))

    def update(self, other: object, *args: object, **kwargs: object) -> None:
        """Take over the values of another frame where it has some, in place."""
        given = other if isinstance(other, Tileable) else of_pandas(other, None)
        self.become(tileable_of(on_whole(self, _Updated(args, kwargs), given)))

    def info(self, *args: object, **kwargs: object) -> None:
        """Print pandas' summary of the executed frame."""
        self.to_pandas().info(*args, **kwargs)

    def iterrows(self) -> Iterator[object]:
        yield from self.to_pandas().iterrows()

    def itertuples(self, *args: object, **kwargs: object) -> Iterator[object]:
        yield from self.to_pandas().itertuples(*args, **kwargs)

    def items(self) -> Iterator[object]:
        if self.ndim == 2:
            yield from ((name, self[name]) for name in self.lazy.columns)
        else:
            yield from self.to_pandas().items()

    def to_csv(self, path: object = None, **kwargs: object) -> Written:
        """Write a file; with ``*`` in the path, one for each chunk. It is executed for that."""
        if path is None or "*" not in str(path):
            value = self.to_pandas()
            return Written(value.to_csv(path, **kwargs))
        import dask

        with dask.config.set(scheduler=_scheduler()):
            return Written(self.lazy.to_csv(str(path), **kwargs))

    def to_parquet(self, path: object, **kwargs: object) -> Written:
        """Write a folder of Parquet files, one for each chunk; it is executed for that."""
        if str(path).endswith(".parquet") and self.lazy.npartitions == 1:
            return Written(self.to_pandas().to_parquet(path, **kwargs))
        import dask

        folder = str(path)
        if "*" in folder.rpartition("/")[2]:  # one file for each chunk, named by number
            folder, _, pattern = folder.rpartition("/")
            names = [pattern.replace("*", f"{i:06}") for i in range(self.lazy.npartitions)]
            os.makedirs(folder or ".", exist_ok=True)
            write = dask.delayed(_write_parquet, pure=False)
            dask.compute(
                *[
                    write(one, os.path.join(folder, name), kwargs)
                    for one, name in zip(parts_of(self.lazy), names, strict=True)
                ],
                scheduler=_scheduler(),
            )
            return Written()
        if "://" in folder or kwargs:
            if "partition_cols" in kwargs:
                kwargs["partition_on"] = kwargs.pop("partition_cols")
            with dask.config.set(scheduler=_scheduler()):
                return Written(self.lazy.to_parquet(folder, **kwargs))
        os.makedirs(folder, exist_ok=True)
        write = dask.delayed(_write_parquet, pure=False)
        parts = [
            write(one, f"{folder}/part.{i:06}.parquet", {})
            for i, one in enumerate(parts_of(self.lazy))
        ]
        dask.compute(*parts, scheduler=_scheduler())
        return Written()

    # -- elements and attributes ----------------------------------------------------------------

    def __getitem__(self, key: object) -> Executable[object]:
        given = unwrap(key)
        if isinstance(key, slice):
            return self.iloc[key]
        if self.ndim == 2 and (_repeat(given) or not self.lazy.columns.is_unique):
            method, others = Method(("[]", key)).lifted()
            return on_whole(self, method, *others)
        return self.by_dask(lambda lazy: lazy[given], Method(("[]", key)))

    def __iter__(self) -> Iterator[object]:
        if self.ndim == 2:
            return iter(self.lazy.columns)
        return iter(self.to_pandas())

    def __contains__(self, key: object) -> bool:
        if self.ndim == 2:
            return key in self.lazy.columns
        return key in self.to_pandas()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> ndarray:
        import numpy

        return numpy.asarray(self.to_pandas(), dtype=dtype)

    def __array_ufunc__(
        self, ufunc: object, method: str, *inputs: object, **kwargs: object
    ) -> object:
        given = [unwrap(one) for one in inputs]
        made: object = getattr(ufunc, method)(*given, **kwargs)
        return wrap(made)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        lazy = self.lazy
        if self.ndim == 2 and name in lazy.columns:
            return self[name]
        if name in MISSING or name in UNKNOWN:
            hint = MISSING.get(name, f"fetch it: to_pandas().{name}()")
            raise NotImplementedError(f"{self.kind}.{name} is not there: {hint}")
        meta = lazy._meta
        found = getattr(meta, _RENAMED.get(name, name))  # an AttributeError says what there is
        if name in ("str", "dt", "cat"):
            return Accessor(self, name)
        if not callable(found):
            return self._attribute(name, found)
        return lambda *args, **kwargs: call_method(self, name, args, kwargs)

    def __dir__(self) -> list[str]:
        columns = list(self.lazy.columns) if self.ndim == 2 else []
        return sorted({*super().__dir__(), *dir(self.lazy._meta), *map(str, columns)})

    def _attribute(self, name: str, found: object) -> object:
        if name in ("columns", "dtypes", "dtype", "name", "names", "nlevels", "attrs", "array"):
            return found
        if name == "T":
            return on_whole(self, Method(("T",)))
        if name in ("empty", "hasnans", "nbytes", "axes"):
            return getattr(self.to_pandas(), name)
        return on_whole(self, Method((_RENAMED.get(name, name),)))


_RENAMED: Final = {"is_monotonic": "is_monotonic_increasing"}
"""Attributes that pandas had under another name."""


class DataFrame(Frame):
    """A frame in chunks of rows. Programs make one with `mars.dataframe.DataFrame` or `read_csv`.

    Its methods are those of `pandas.DataFrame`.

    Examples
    --------
    >>> import pandas, mars.dataframe as md
    >>> df = md.DataFrame(pandas.DataFrame({"a": [1, 2, 3]}), chunk_size=2)
    >>> df.a.sum().execute().fetch().item()
    6
    """

    __slots__ = ()
    __module__ = "mars.dataframe"
    kind = "DataFrame"

    def __setitem__(self, key: object, value: object) -> None:
        lazy, new = self.lazy, unwrap(value)
        names = key if isinstance(key, list) else [key]
        plain = hasattr(new, "__array__") and not hasattr(new, "dask") and not hasattr(new, "iloc")
        if isinstance(key, Tileable) or (plain and getattr(new, "ndim", 0) > 1):
            self.become(set_whole(self, key, value))
            return
        listed = isinstance(new, (list, tuple)) or plain
        if listed and isinstance(new, Iterable) and not isinstance(key, list):
            self.become(with_column(self, key, list(new)))
            return
        if len(names) == 1 and not isinstance(key, list):
            made = lazy.copy()
            try:
                if isinstance(value, Frame) and value.ndim and not aligned(lazy, new):
                    raise ValueError("rows that Dask does not bring together")
                made[key] = new
            except Exception:  # Dask cannot; pandas tells what is wrong, if anything is
                self.become(set_whole(self, key, value))
                return
            self.become(wrap(made))
            return
        self.become(set_whole(self, key, value))

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_") or name in ("columns", "index") or name not in self.lazy.columns:
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __delitem__(self, key: object) -> None:
        self.become(self.drop(columns=[key]))

    def query(self, expr: str, **kwargs: object) -> object:
        """The rows for which an expression is true; see `pandas.DataFrame.query`."""
        return call_method(self, "query", (expr,), with_locals(expr, kwargs))

    def eval(self, expr: str, **kwargs: object) -> object:
        """What an expression of columns is; see `pandas.DataFrame.eval`."""
        return call_method(self, "eval", (expr,), with_locals(expr, kwargs))

    @property
    def columns(self) -> Axis:
        return self.lazy.columns

    @columns.setter
    def columns(self, names: Iterable[object]) -> None:
        self.become(self.rename(columns=dict(zip(self.lazy.columns, names, strict=True))))

    @property
    def index(self) -> Tileable:
        return wrap(self.lazy.index, self)

    @index.setter
    def index(self, labels: object) -> None:
        self.become(with_labels(self, labels))

    def __matmul__(self, other: object) -> object:
        return self.dot(other)

    def pop(self, item: object) -> Executable[object]:
        """Take a column out, in place."""
        found = self[item]
        del self[item]
        return found

    def insert(
        self, loc: int, column: object, value: object, allow_duplicates: bool = False
    ) -> None:
        """Put a column in at a place, in place."""
        if column in self.lazy.columns and not allow_duplicates:
            raise ValueError(f"cannot insert {column}, already exists")
        self[column] = value
        order = [one for one in self.lazy.columns if one != column]
        self.become(tileable_of(self[[*order[:loc], column, *order[loc:]]]))


class Series(Frame):
    """A series in chunks; its methods are those of `pandas.Series`."""

    __slots__ = ()
    __module__ = "mars.dataframe"
    kind = "Series"

    @property
    def index(self) -> Tileable:
        return wrap(self.lazy.index, self)

    @index.setter
    def index(self, labels: object) -> None:
        self.become(with_labels(self, labels))

    def __setitem__(self, key: object, value: object) -> None:
        self.become(set_whole(self, key, value))

    @property
    def name(self) -> object:
        return self.lazy.name

    @name.setter
    def name(self, name: object) -> None:
        self.become(self.rename(name))

    def unique(self, **_: object) -> Executable[object]:
        """The values without repetitions, as a tensor, in the order of their first places."""
        return on_whole(self, Method(("unique", (), {})))


class Index(Frame):
    """An index in chunks; its methods are those of `pandas.Index`."""

    __slots__ = ()
    __module__ = "mars.dataframe"
    kind = "Index"

    def __getitem__(self, key: object) -> Executable[object]:
        method, others = Method(("[]", key)).lifted()
        return on_whole(self, method, *others)

    def rechunk(
        self, chunk_size: int | Sequence[int] | Mapping[object, int], **_: object
    ) -> Tileable:
        """The same labels; they stay in their chunks."""
        return self

    @property
    def name(self) -> object:
        return self.lazy._meta.name

    @name.setter
    def name(self, name: object) -> None:
        self.become(tileable_of(on_whole(self, Method(("rename", (name,), {})))))

    def to_frame(self, *args: object, **kwargs: object) -> object:
        return call_method(self, "to_frame", args, kwargs)

    def append(self, other: object, **_: object) -> Executable[object]:  # type: ignore[override]
        """The labels of another index after those of this one."""
        others = list(other) if isinstance(other, (list, tuple)) else [other]
        return _appended(self, others)

    def to_tensor(self) -> Tileable:
        from mars.tensor import find

        made: Tileable = find.call("tensor", self.to_pandas().to_numpy())
        return made


class Scalar(Frame):
    """One value that is computed of a frame, such as a sum."""

    __slots__ = ()
    __module__ = "mars.dataframe"
    kind = "Scalar"

    @property
    def ndim(self) -> int:
        return 0

    @property
    def shape(self) -> tuple[float, ...]:
        return ()

    @property
    def dtype(self) -> dtype:
        import numpy

        return numpy.asarray(self.lazy._meta).dtype

    def value_in(self, session: Session | None) -> object:
        if self._objects is None and (self._here or self._shows(session)):
            return self.lazy.compute(scheduler="sync")
        return Tileable.value_in(self, session)

    def _assembled(self, values: Sequence[object]) -> object:
        return values[0]

    def item(self) -> Any:
        """The value as one of Python; it is executed for that."""
        value = self.executed_value()
        return value.item() if hasattr(value, "item") else value

    def __float__(self) -> float:
        return float(self.executed_value())

    def __int__(self) -> int:
        return int(self.executed_value())

    def __len__(self) -> int:
        raise TypeError("a scalar has no length")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.executed_value(), name)

    def __repr__(self) -> str:
        if self._here or self._all_done():
            return repr(self.fetch())
        return self._described()

    __str__ = __repr__

    def _repr_html_(self) -> None:
        return None


class _Updated:
    __name__ = "update"

    def __init__(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self._args, self._kwargs = args, kwargs

    def __call__(self, frame: Rows, other: object) -> Rows:
        made = frame.copy()
        made.update(other, *self._args, **self._kwargs)
        return made


def _repeat(names: object) -> bool:
    """Whether a column is asked for more than once."""
    if not isinstance(names, list) or all(isinstance(one, bool) for one in names):
        return False
    return len({one for one in names if isinstance(one, Hashable)}) < len(names)


def _row_of(values: dict[object, object]) -> object:
    import pandas

    return pandas.DataFrame([values])


def with_locals(expr: str, kwargs: dict[str, object]) -> dict[str, object]:
    """Arguments for `eval` and `query`, with the caller's variables that an expression names."""
    caller = sys._getframe(2)
    scope = {**caller.f_globals, **caller.f_locals}
    named = {name: scope[name] for name in re.findall(r"@(\w+)", expr) if name in scope}
    given = kwargs.get("local_dict")
    if not named:
        return kwargs
    more = {key: value_of(one) for key, one in named.items()}
    return {**kwargs, "local_dict": {**more, **(given if isinstance(given, dict) else {})}}


def _write_parquet(chunk: Rows, path: str, kwargs: dict[str, object]) -> None:
    chunk.to_parquet(path, **kwargs)


def _appended(index: Index, others: list[object]) -> Executable[object]:
    method, lifted = Method(("append", (others,), {})).lifted()
    return on_whole(index, method, *lifted)


def with_labels(frame: Frame, labels: object) -> Tileable:
    """A frame whose index has these labels, one for each row."""
    import pandas

    plain = value_of(labels)
    index = plain if isinstance(plain, pandas.Index) else pandas.Index(plain)
    return wrap(rows.with_index(frame.lazy, index))


def _scheduler() -> Scheduler:
    from mars.dask.backend import Scheduler

    return Scheduler()


_BINARY: Final = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor",
)  # fmt: skip
_COMPARED: Final = ("lt", "le", "gt", "ge", "eq", "ne")
_UNARY: Final = ("neg", "abs", "invert", "pos")


def _binary(name: str) -> Callable[[Frame, object], object]:
    def apply(self: Frame, other: object) -> object:
        given = unwrap(other)
        if isinstance(self, Scalar):
            value = getattr(self.lazy, name)(given)
            return value if value is NotImplemented else wrap(value)
        plain = Method((name, (other,), {}))
        if isinstance(given, (list, tuple)) or (
            hasattr(given, "__array__") and not hasattr(given, "dask")
        ):
            return on_whole(self, plain)
        if isinstance(other, Frame) and other.ndim:
            if self.ndim == 2 and other.ndim == 1:  # by the labels of columns
                return by_row_with(self, plain, True)
            if not aligned(self.lazy, given):
                method, others = plain.lifted()
                return on_whole(self, method, *others)
        return self.by_dask(lambda lazy: getattr(lazy, name)(given), plain)

    return apply


def _in_place(name: str) -> Callable[[Frame, object], Frame]:
    def apply(self: Frame, other: object) -> Frame:
        self.become(getattr(self, name)(other))
        return self

    return apply


def _unary(name: str) -> Callable[[Frame], Executable[object]]:
    return lambda self: self.by_dask(lambda lazy: getattr(lazy, name)(), Method((name, (), {})))


for _name in _BINARY:
    setattr(Frame, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(Frame, f"__r{_name}__", _binary(f"__r{_name}__"))
    setattr(Frame, f"__i{_name}__", _in_place(f"__{_name}__"))
for _name in _COMPARED:
    setattr(Frame, f"__{_name}__", _binary(f"__{_name}__"))
for _name in _UNARY:
    setattr(Frame, f"__{_name}__", _unary(f"__{_name}__"))

__all__ = ["DataFrame", "Frame", "Index", "Scalar", "Series"]
