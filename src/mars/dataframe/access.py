"""What stands between a frame and what is done with it: ``iloc``, ``loc``, ``str``, ``rolling``, ….

The classes here hold a frame, and make others of it. The functions called by them run in workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from mars.dataframe import rows
from mars.dataframe.handle import Handle
from mars.dataframe.neighbours import with_rows_nearby
from mars.dataframe.whole import Method, has_rows, on_whole, sample_of, tileable_of, tried
from mars.tileables.tileable import Tileable, unwrap, value_of, wrap

if TYPE_CHECKING:
    from mars.calls.executable import Executable
    from mars.dataframe.protocols import Rows

HINTS: Final = (
    "output_type", "output_types", "dtypes", "dtype", "index", "skip_infer", "elementwise", "shape",
    "index_value", "columns_value",
)  # fmt: skip
"""Arguments of the original that say what a result looks like. Here it is found out."""


def drop_hints(kwargs: dict[str, object]) -> None:
    """Take out what says what a result looks like; beside such a hint also its ``name``."""
    if not kwargs.keys().isdisjoint(HINTS):
        kwargs.pop("name", None)
    for hint in HINTS:
        kwargs.pop(hint, None)


_NOT_BY_ROW: Final = frozenset({"cat", "get_dummies", "partition", "rpartition"})


class Places:
    """``iloc``: rows by their place over all chunks."""

    def __init__(self, frame: Handle) -> None:
        self._frame = frame

    def __getitem__(self, key: object) -> Executable[object]:
        frame = self._frame
        given: object = value_of(key)
        wanted: object
        if isinstance(given, tuple):
            given = tuple(map(value_of, given))
            wanted, columns = (*given, None)[:2]
        else:
            wanted, columns = given, None
        if hasattr(wanted, "tolist"):
            wanted = wanted.tolist()
        several = isinstance(wanted, slice) and (wanted.step is None or wanted.step > 0)
        if isinstance(columns, int):
            pass
        elif (isinstance(wanted, slice) and several) or _ascend(wanted):
            return wrap(rows.taken(frame.lazy, wanted, columns), frame)
        if isinstance(wanted, slice) and wanted == slice(None) and isinstance(columns, int):
            name = frame.lazy.columns[columns]
            return frame.by_dask(lambda lazy: lazy[name], Method(("[]", name)))
        return on_whole(frame, _ByPlace(wanted, columns))

    def __setitem__(self, key: object, value: object) -> None:
        self._frame.become(set_by(self._frame, "iloc", key, value))


def _ascend(wanted: object) -> TypeGuard[list[int]]:
    """Whether it is a list of places in the order of the rows."""
    if not isinstance(wanted, list) or any(isinstance(one, bool) for one in wanted):
        return False
    return all(one >= 0 for one in wanted) and sorted(wanted) == wanted


class _ByPlace:
    """``frame.iloc[...]`` as a function."""

    __name__ = "iloc"

    def __init__(self, wanted: object, columns: object) -> None:
        self._wanted, self._columns = wanted, columns

    def __call__(self, frame: Rows) -> object:
        if self._columns is None:
            return frame.iloc[self._wanted]
        return frame.iloc[self._wanted, self._columns]


class Labels:
    """``loc``, ``at`` and ``iat``."""

    def __init__(self, frame: Handle, name: str) -> None:
        self._frame, self._name = frame, name

    def __getitem__(self, key: object) -> Executable[object]:
        frame, given = self._frame, unwrap(key)
        first = given[0] if isinstance(given, tuple) else given
        masked = hasattr(first, "dask") or (isinstance(first, slice) and first == slice(None))
        if self._name == "loc" and masked:
            return frame.by_dask(lambda lazy: lazy.loc[given], Method(("loc",), ("[]", key)))
        method, others = Method((self._name,), ("[]", key)).lifted()
        return on_whole(frame, method, *others)

    def __setitem__(self, key: object, value: object) -> None:
        self._frame.become(set_by(self._frame, self._name, key, value))


class ByName:
    """Something made of a frame, whose columns and methods of pandas are found by name."""

    _frame: Handle

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._frame.ndim == 2 and name in self._frame.lazy.columns:
            return self[name]
        return lambda *args, **kwargs: self._call(name, args, kwargs)

    def __getitem__(self, key: object) -> ByName:
        raise NotImplementedError

    def _call(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Have a method called."""
        raise NotImplementedError


class Chain(ByName):
    """Methods of pandas that follow each other, such as ``rolling(3).mean()``."""

    def __init__(self, frame: Handle, *steps: tuple[object, ...]) -> None:
        self._frame, self._steps = frame, steps

    def __getitem__(self, key: object) -> Chain:
        return Chain(self._frame, *self._steps, ("[]", key))

    def _call(
        self, name: str, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Executable[object]:
        if name in ("apply", "transform", "agg", "aggregate"):
            drop_hints(kwargs)
        kwargs.pop("combine_size", None)
        method, others = Method(*self._steps, (name, args, kwargs)).lifted()
        if not others:
            made = self._in_chunks(method)
            if made is not None:
                return made
        return on_whole(self._frame, method, *others)

    def _in_chunks(self, method: Method) -> Tileable | None:
        """A rolling window chunk by chunk, if it is one over rows or over times."""
        import pandas

        frame, (name, *given) = self._frame, self._steps[0]
        if name != "rolling" or len(given) != 2 or frame.lazy.npartitions == 1:
            return None
        args, more = given
        if not isinstance(args, tuple) or not isinstance(more, dict):
            return None
        options = {**dict(zip(("window", "min_periods", "center"), args, strict=False)), **more}
        window = options.get("window")
        if not options.keys() <= {"window", "min_periods", "center", "win_type", "closed"}:
            return None
        small = tried(method, [sample_of(frame)])
        if not has_rows(small):
            return None
        if isinstance(small.index, pandas.MultiIndex):
            return None
        if isinstance(window, int):
            center = window if options.get("center") else 0
            lazy = with_rows_nearby(frame.lazy, method, small.iloc[:0], window, center)
            return wrap(lazy, frame)
        times = frame.lazy._meta.index
        if isinstance(window, bool) or not isinstance(times, pandas.DatetimeIndex):
            return None
        if options.get("center") or not isinstance(window, (str, pandas.Timedelta)):
            return None
        # Twice as far back: with ``closed`` the row at the edge may count.
        back = 2 * pandas.Timedelta(pandas.tseries.frequencies.to_offset(window))
        return wrap(with_rows_nearby(frame.lazy, method, small.iloc[:0], back), frame)


class Accessor:
    """``str``, ``dt`` and ``cat`` of a series."""

    def __init__(self, series: Handle, name: str) -> None:
        self._series, self._name = series, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(getattr(self._series.lazy._meta, self._name), name)
        if callable(found):
            return lambda *args, **kwargs: self._run((name, args, kwargs), name in _NOT_BY_ROW)
        if self._name == "cat" and name in ("categories", "ordered"):
            return getattr(self._series.to_pandas().cat, name)  # of the rows, not made up
        return self._run((name,), False) if hasattr(found, "iloc") else found

    def __getitem__(self, key: object) -> Executable[object]:
        return self._run(("[]", key), False)

    def __dir__(self) -> list[str]:
        return dir(getattr(self._series.lazy._meta, self._name))

    def _run(self, step: tuple[object, ...], together: bool) -> Executable[object]:
        series = self._series
        func = Method((self._name,), step)
        method, others = func.lifted()
        expands = len(step) > 1 and isinstance(step[-1], dict) and step[-1].get("expand")
        if others or together or expands or self._name == "cat" or series.lazy.npartitions == 1:
            return on_whole(series, method, *others)
        small = tried(func, [sample_of(series)])
        if not has_rows(small):
            return on_whole(series, func)
        return wrap(
            series.lazy.map_partitions(func, meta=small.iloc[:0], enforce_metadata=False), series
        )


class OnChunk:
    """A function of the program, called with a chunk."""

    def __init__(
        self,
        func: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        with_index: bool,
        chunks: int = 1,
    ) -> None:
        self._chunks = chunks
        self._func, self._args, self._kwargs, self._with = func, args, kwargs, with_index
        self.__name__ = getattr(func, "__name__", "map_chunk")

    def __call__(self, chunk: object, number: object = 0) -> object:
        if self._chunks == 2:  # the second chunk
            return self._func(chunk, number, *self._args, **self._kwargs)
        kwargs = self._kwargs
        if self._with:
            place = (number, 0) if getattr(chunk, "ndim", 1) == 2 else (number,)
            kwargs = {**kwargs, "chunk_index": place}
        return self._func(chunk, *self._args, **kwargs)


class Written:
    """What a method that has written a file returns: programs of the original execute it."""

    def __init__(self, value: object = None) -> None:
        self._value = value

    def execute(self, *_: object, **__: object) -> Written:
        return self

    def fetch(self, *_: object, **__: object) -> Any:
        return self._value

    def __str__(self) -> str:
        return str(self._value)

    def __repr__(self) -> str:
        return "" if self._value is None else repr(self._value)


class _SetColumn:
    __name__ = "set-column"

    def __init__(self, key: object, values: list[object] | None = None) -> None:
        self._key, self._values = key, values

    def __call__(self, frame: Rows, *values: Sequence[object]) -> Rows:
        made = frame.copy()
        new = values[0] if values else self._values or ()
        if len(made) != len(new) and not hasattr(new, "index") and len(new) > len(made):
            new = new[: len(made)]  # made-up rows
        made[self._key] = new
        return made


class _SetBy:
    __name__ = "set"

    def __init__(self, name: str, key: object, value: object) -> None:
        self._name, self._key, self._value = name, key, value

    def __call__(self, frame: Rows) -> Rows:
        made = frame.copy()
        getattr(made, self._name)[self._key] = self._value
        return made


class _SetItem:
    __name__ = "set-item"

    def __init__(self, key: object, value: object, given: list[bool]) -> None:
        self._key, self._value = key, value
        self._given = given  # whether key and value are frames, which are filled in

    def __call__(self, frame: Rows, *values: object) -> Rows:
        given = iter(values)
        key = next(given) if self._given[0] else self._key
        value = next(given) if self._given[1] else self._value
        made = frame.copy()
        made[key] = value
        return made


def with_column(frame: Handle, key: object, values: list[object]) -> Tileable:
    """A frame with one more column, of values that the program has."""
    if len(values) != len(frame):
        raise ValueError(
            f"Length of values ({len(values)}) does not match length of index ({len(frame)})"
        )
    return tileable_of(on_whole(frame, _SetColumn(key, values)))


def set_whole(frame: Handle, key: object, value: object) -> Tileable:
    """A frame with elements set, as ``frame[key] = value`` sets them."""
    others = [one for one in (key, value) if isinstance(one, Tileable)]
    given = [isinstance(one, Tileable) for one in (key, value)]
    func = _SetItem(None if given[0] else key, None if given[1] else value, given)
    return tileable_of(on_whole(frame, func, *others))


def set_by(frame: Handle, name: str, key: object, value: object) -> Tileable:
    """A frame with elements set by label or place."""
    where = tuple(map(value_of, key)) if isinstance(key, tuple) else value_of(key)
    return tileable_of(on_whole(frame, _SetBy(name, where, value_of(value))))


__all__ = [
    "Accessor", "Chain", "Labels", "OnChunk", "Places", "Written", "drop_hints", "set_by",
    "set_whole", "with_column",
]  # fmt: skip
