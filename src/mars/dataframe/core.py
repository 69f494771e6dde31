"""`DataFrame`, `Series`, `Index` and `Scalar`: frames in chunks, computed when they are executed.

A method is looked up in the tables of `mars.dataframe.names`: Dask computes it in chunks, pandas
does each chunk, or one call gets the whole frame. Where Dask refuses the arguments of a method, the
last of these is done, too. The module is long because all that frames have beyond the tables stands
here.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

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
from mars.dataframe.columns import BY_COLUMN, by_column
from mars.dataframe.groups import Groups
from mars.dataframe.joining import concat, of_pandas
from mars.dataframe.names import BY_ROW, MISSING, PARALLEL, UNKNOWN
from mars.dataframe.neighbours import with_rows_nearby
from mars.dataframe.parts import aligned, array_of, lengths_of, of_parts, parts_of
from mars.dataframe.whole import Method, delayed_whole, joined, on_whole, sample_of, tried
from mars.sessions.opening import choose, get_default_session
from mars.tileables.tileable import Tileable, facts_of, stored_node, unwrap, wrap

_SHOWN_ROWS: Final = 60  # as pandas shows, of a longer frame it shows the ends


class Frame(Tileable):
    """What frames, series and indices have in common."""

    __slots__ = ("_lengths",)

    # -- facts ----------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        return int(self.lazy.ndim)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The number of rows, and of columns; nan rows before it is executed."""
        known = self._known_lengths()
        count = math.nan if known is None else sum(known)
        return (count, len(self.lazy.columns)) if self.ndim == 2 else (count,)

    @property
    def size(self) -> Any:
        return math.prod(self.shape)

    @property
    def nsplits(self) -> tuple[tuple[Any, ...], ...]:
        """The lengths of the chunks."""
        known = self._known_lengths()
        count = tuple(known or [math.nan] * self.lazy.npartitions)
        return (count, (len(self.lazy.columns),)) if self.ndim == 2 else (count,)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return (self.lazy.npartitions, 1) if self.ndim == 2 else (self.lazy.npartitions,)

    def __len__(self) -> int:
        known = self._known_lengths()
        if known is None:
            self.execute()
            known = self._known_lengths()
        return sum(known or ())

    def _known_lengths(self) -> list[int] | None:
        if self._here or self._all_done():
            stored = getattr(self, "_lengths", None)
            if stored is None or stored[0] is not self._objects:
                if self._here:
                    found = [len(self.value_in(None))]
                else:
                    found = [int(facts_of(len, one)) for one in self._objects or ()]
                stored = self._lengths = (self._objects, found)
            return list(stored[1])
        return None if self._lazy is None else lengths_of(self._lazy)

    def _all_done(self) -> bool:
        session = get_default_session()
        return bool(self._objects) and session is not None and self._is_done(session)

    # -- what a program calls -------------------------------------------------------------------

    def to_pandas(self, session: Any = None, **kwargs: Any) -> Any:
        """Execute it, unless that was done, and fetch it."""
        return self.value_in(None) if self._here else self.to_object(session=session, **kwargs)

    def to_numpy(self, *args: Any, **kwargs: Any) -> Any:
        """The values as an array of numpy; it is executed for that."""
        return self.to_pandas().to_numpy(*args, **kwargs)

    def to_tensor(self) -> Any:
        """The values as a tensor."""
        return wrap(array_of(self.lazy))

    @property
    def values(self) -> Any:
        return self.to_tensor()

    def to_dask(self) -> Any:
        """The frame of Dask that it stands for."""
        return self.lazy

    def map_chunk(
        self, func: Callable[..., Any], args: Sequence[Any] = (), kwargs: Any = None,
        with_chunk_index: bool = False, **more: Any,
    ) -> Any:  # fmt: skip
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
        if not hasattr(small, "iloc"):
            one = parts[0]
            small = (
                one.compute(scheduler="mars")
                if len(parts) == 1
                else on_whole(self, run).to_object()
            )
        return wrap(of_parts(parts, small.iloc[:0]))

    def rechunk(self, chunk_size: Any, **_: Any) -> Any:
        """The same rows in chunks of so many rows."""
        size = chunk_size[0] if isinstance(chunk_size, (tuple, list)) else chunk_size
        count = len(self)
        cuts = [*range(0, count, int(size)), count] if count else [0, 0]
        import dask.dataframe as dd

        parts = [rows.taken(self.lazy, slice(a, b), None) for a, b in itertools.pairwise(cuts)]
        return wrap(dd.concat([one.repartition(npartitions=1) for one in parts]))

    def rebalance(self, factor: Any = None, num_partitions: Any = None, **_: Any) -> Any:
        """Chunks of equal lengths."""
        count = int(num_partitions or self.lazy.npartitions)
        return self.rechunk(max(1, -(-len(self) // count)))

    def head(self, n: int = 5) -> Any:
        """The first rows."""
        return wrap(rows.taken(self.lazy, slice(0, n), None), self)

    def tail(self, n: int = 5) -> Any:
        """The last rows."""
        wanted = slice(0, 0) if n == 0 else slice(-n, None)
        return wrap(rows.taken(self.lazy, wanted, None), self)

    def reset_index(self, level: Any = None, drop: bool = False, **kwargs: Any) -> Any:
        """The index becomes columns, and rows are counted from 0 on, over all chunks."""
        in_place = kwargs.pop("inplace", False)
        kwargs.pop("incremental_index", None)
        if level is not None:
            return self._method("reset_index", (), {"level": level, "drop": drop, **kwargs})
        made = wrap(rows.with_index_as_columns(self.lazy, {"drop": drop, **kwargs}))
        if in_place:
            self.become(made)
            return None
        return made

    def cartesian_chunk(
        self, right: Any, func: Callable[..., Any], args: Sequence[Any] = (), **kwargs: Any
    ) -> Any:
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
        if not hasattr(small, "iloc"):
            raise TypeError(
                "cartesian_chunk() needs a function that returns a frame or a series, also of "
                "made-up rows like those of the frames"
            )
        call = dask.delayed(run, pure=False)
        parts = [call(one, two) for one in parts_of(self.lazy) for two in parts_of(right.lazy)]
        return wrap(of_parts(parts, small.iloc[:0]))

    def copy(self, deep: bool = True) -> Any:
        """Another frame with the same rows."""
        return type(self)(self.lazy, part_of=self) if self._objects is None else wrap(self.lazy)

    def to_cpu(self) -> Any:
        """Itself: all frames are in memory of the CPU."""
        return self

    def to_gpu(self) -> Any:
        """Not there.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("frames on a GPU are not there; leave it away")

    def drop_duplicates(self, *args: Any, **kwargs: Any) -> Any:
        """The rows that were not there before."""
        kwargs.pop("method", None)
        return self._method("drop_duplicates", args, kwargs)

    @property
    def iloc(self) -> Any:
        return Places(self)

    @property
    def loc(self) -> Any:
        return Labels(self, "loc")

    @property
    def at(self) -> Any:
        return Labels(self, "at")

    @property
    def iat(self) -> Any:
        return Labels(self, "iat")

    @property
    def plot(self) -> Any:
        """Pandas' plots of the executed frame."""
        return self.to_pandas().plot

    def groupby(self, by: Any = None, **kwargs: Any) -> Any:
        """Groups of rows; see `mars.dataframe.groups.Groups`."""
        return Groups(self, by, kwargs)

    def rolling(self, *args: Any, **kwargs: Any) -> Any:
        return Chain(self, ("rolling", args, kwargs))

    def expanding(self, *args: Any, **kwargs: Any) -> Any:
        return Chain(self, ("expanding", args, kwargs))

    def ewm(self, *args: Any, **kwargs: Any) -> Any:
        return Chain(self, ("ewm", args, kwargs))

    def resample(self, *args: Any, **kwargs: Any) -> Any:
        return Chain(self, ("resample", args, kwargs))

    def pipe(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """What a function makes of it."""
        return func(self, *args, **kwargs)

    def append(self, other: Any, ignore_index: bool = False, **_: Any) -> Any:
        """The rows of another frame after those of this one."""
        others = list(other) if isinstance(other, (list, tuple)) else [other]
        return concat([self, *others], ignore_index=ignore_index)

    def apply(self, func: Any, axis: Any = 0, *args: Any, **kwargs: Any) -> Any:
        """A function applied to each row (``axis=1``), column or element, as pandas does it."""
        drop_hints(kwargs)
        if self.ndim == 1:
            given = (axis,) if axis != 0 else ()
            return self._by_row("apply", (func, *given, *args), kwargs)
        if axis in (1, "columns"):
            return self._by_row("apply", (func, *args), {"axis": 1, **kwargs})
        return on_whole(self, Method(("apply", (func, *args), {"axis": axis, **kwargs})))

    def transform(self, func: Any, axis: Any = 0, *args: Any, **kwargs: Any) -> Any:
        """A function that gives as many rows as it gets, as pandas does it."""
        drop_hints(kwargs)
        if axis in (1, "columns"):
            return self._by_row("transform", (func, *args), {"axis": 1, **kwargs})
        return on_whole(self, Method(("transform", (func, *args), kwargs)))

    def update(self, other: object, *args: object, **kwargs: object) -> None:
        """Take over the values of another frame where it has some, in place."""
        given = other if isinstance(other, Tileable) else of_pandas(other, None)
        self.become(on_whole(self, _Updated(args, kwargs), given))

    def info(self, *args: object, **kwargs: object) -> None:
        """Print pandas' summary of the executed frame."""
        self.to_pandas().info(*args, **kwargs)

    def iterrows(self) -> Iterator[Any]:
        yield from self.to_pandas().iterrows()

    def itertuples(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from self.to_pandas().itertuples(*args, **kwargs)

    def items(self) -> Iterator[Any]:
        if self.ndim == 2:
            yield from ((name, self[name]) for name in self.lazy.columns)
        else:
            yield from self.to_pandas().items()

    def to_csv(self, path: Any = None, **kwargs: Any) -> Any:
        """Write a file; with ``*`` in the path, one for each chunk. It is executed for that."""
        if path is None or "*" not in str(path):
            value = self.to_pandas()
            return Written(value.to_csv(path, **kwargs))
        import dask

        with dask.config.set(scheduler=_scheduler()):
            return Written(self.lazy.to_csv(str(path), **kwargs))

    def to_parquet(self, path: Any, **kwargs: Any) -> Any:
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

    def __getitem__(self, key: Any) -> Any:
        given = unwrap(key)
        if isinstance(key, slice):
            return self.iloc[key]
        return self._tried(lambda lazy: lazy[given], Method(("[]", key)))

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 2:
            return iter(self.lazy.columns)
        return iter(self.to_pandas())

    def __contains__(self, key: object) -> bool:
        if self.ndim == 2:
            return key in self.lazy.columns
        return key in self.to_pandas()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy

        return numpy.asarray(self.to_pandas(), dtype=dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        given = [unwrap(one) for one in inputs]
        return wrap(getattr(ufunc, method)(*given, **kwargs))

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
        found = getattr(meta, name)  # an AttributeError of pandas says what there is
        if name in ("str", "dt", "cat"):
            return Accessor(self, name)
        if not callable(found):
            return self._attribute(name, found)
        return lambda *args, **kwargs: self._method(name, args, kwargs)

    def __dir__(self) -> list[str]:
        columns = list(self.lazy.columns) if self.ndim == 2 else []
        return sorted({*super().__dir__(), *dir(self.lazy._meta), *map(str, columns)})

    def _attribute(self, name: str, found: Any) -> Any:
        if name in ("columns", "dtypes", "dtype", "name", "names", "nlevels", "attrs", "array"):
            return found
        if name == "T":
            return on_whole(self, Method(("T",)))
        if name in ("empty", "is_unique", "is_monotonic_increasing", "is_monotonic_decreasing",
                    "hasnans", "nbytes", "axes"):  # fmt: skip
            return getattr(self.to_pandas(), name)
        return on_whole(self, Method((name,)))

    def _method(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hints = ("combine_size", "method") if name in _METHOD_IS_OURS else ("combine_size",)
        kwargs = {key: one for key, one in kwargs.items() if key not in hints}
        if kwargs.pop("inplace", False):
            self.become(self._method(name, args, kwargs))
            return None
        if name.startswith("to_") and name not in _FRAMES_OF_FRAMES:
            return self._given_out(name, args, kwargs)
        if name == "fillna" and kwargs.get("method") is not None:
            way = "ffill" if kwargs.pop("method") in ("pad", "ffill") else "bfill"
            return self._method(
                way, (), {key: one for key, one in kwargs.items() if key != "value"}
            )
        others = [one for one in (*args, *kwargs.values()) if _is_tileable(one)]
        if name in BY_ROW and not _is_across(name, args, kwargs):
            if not others:
                return self._by_row(name, args, kwargs)
            if self._is_small_beside(name, others, kwargs):
                by_labels = self.ndim == 2 and name in _BY_LABELS
                return self._by_row_with(Method((name, args, kwargs)), by_labels)
        plain = Method((name, args, kwargs))
        if name in ("shift", "diff", "pct_change"):
            made = self._by_neighbours(name, args, kwargs, plain)
            if made is not None:
                return made
        if name in BY_COLUMN and not others:
            made = self._by_column(plain)
            if made is not None:
                return made
        if name == "join":
            return self._joined(args, kwargs, plain)
        parallel = name in PARALLEL or (name in BY_ROW and others) or name == "drop_duplicates"
        if name in BY_ROW and parallel:
            parallel = not _is_across(name, args, kwargs) and all(
                isinstance(one, Frame) and aligned(self.lazy, one.lazy) for one in others
            )
        if not parallel:
            if name == "sort_values" and self.ndim == 2 and self.lazy.npartitions > 1:
                return self._sorted(args, kwargs, plain)
            method, lifted = plain.lifted()
            return on_whole(self, method, *lifted)
        if name == "merge":
            return self._merged(args, kwargs, plain)
        if name == "drop_duplicates":
            kwargs = {**kwargs, "split_out": 1} if self.lazy.npartitions > 1 else kwargs
        given = [unwrap(one) for one in args]
        more = {key: unwrap(one) for key, one in kwargs.items()}
        return self._tried(lambda lazy: getattr(lazy, name)(*given, **more), plain)

    def _given_out(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What pandas writes or makes of the executed frame, such as `to_sql` and `to_dict`."""
        value = getattr(self.to_pandas(), name)(*args, **kwargs)
        return Written() if value is None or name == "to_sql" else value

    def _is_small_beside(self, name: str, others: list[Any], kwargs: dict[str, Any]) -> bool:
        """Whether each chunk needs the others as a whole: labels of columns, or values to find."""
        axis = kwargs.get("axis", "columns")
        by_columns = self.ndim == 2 and axis not in (0, "index")
        return all(isinstance(one, Series | Index | Scalar) for one in others) and (
            name in ("isin", "map", "replace") or (by_columns and name in _BY_LABELS)
        )

    def _by_row_with(self, plain: Method, by_labels: bool = False) -> Any:
        """A method of pandas on each chunk, beside the whole of the frames in its arguments."""
        import dask

        method, others = plain.lifted()
        samples = [sample_of(one) for one in others]
        if by_labels:  # which labels those have, no made-up row tells; they are most often these
            samples = [
                one.iloc[:1].reset_index(drop=True).reindex([0] * self.lazy.shape[1])
                .set_axis(self.lazy.columns) if getattr(one, "ndim", 0) == 1 else one
                for one in samples
            ]  # fmt: skip
        small = tried(method, [sample_of(self), *samples])
        if not hasattr(small, "iloc"):
            return on_whole(self, method, *others)
        run = dask.delayed(method, pure=False)
        given = [delayed_whole(one) for one in others]
        parts = [run(one, *given) for one in parts_of(self.lazy)]
        return wrap(of_parts(parts, small.iloc[:0]), self)

    def _by_neighbours(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Method
    ) -> Any:
        """A method whose rows look at rows nearby. None: it has to see the whole frame."""
        periods = args[0] if args else kwargs.get("periods", 1)
        if len(args) > 1 or not kwargs.keys() <= {"periods", "fill_value", "axis"}:
            return None
        if kwargs.get("axis", 0) not in (0, "index") or not isinstance(periods, int):
            return self._by_row(name, args, kwargs) if name != "pct_change" else None
        small = tried(plain, [sample_of(self)])
        if not hasattr(small, "iloc") or self.lazy.npartitions == 1 or not periods:
            return None
        before, after = max(periods, 0), max(-periods, 0)
        return wrap(with_rows_nearby(self.lazy, plain, small.iloc[:0], before, after), self)

    def _by_column(self, plain: Method) -> Any:
        """A method that looks at each column by itself. None: pandas has to see them together."""
        lazy = self.lazy
        if self.ndim != 2 or lazy.npartitions == 1 or not lazy.columns.is_unique:
            return None
        small = tried(plain, [sample_of(self)])
        names = getattr(small, "columns", None)
        if names is None and hasattr(small, "index"):
            names = small.index
        if names is None or not len(names) or not set(names) <= set(lazy.columns):
            return None
        kinds = {lazy._meta[one].dtype.kind for one in names}
        if not kinds <= set("iuf") or len(names) < 2:
            return None
        return wrap(by_column(lazy, list(names), plain, small))

    def _joined(self, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Method) -> Any:
        other = args[0] if args else kwargs.get("other")
        how = kwargs.get("how", args[2] if len(args) > 2 else "left")
        method, others = plain.lifted()
        if how in ("left", "inner") and isinstance(other, Frame) and other.lazy.npartitions == 1:
            return self._by_row_with(plain)
        by_index = len(args) == 1 and kwargs.keys() <= {"how", "lsuffix", "rsuffix"}
        if by_index and isinstance(other, Frame) and how == "left":  # noqa: SIM102
            if self.lazy.known_divisions and other.lazy.known_divisions:
                return self._tried(lambda lazy: lazy.join(other.lazy, **kwargs), plain)
        return on_whole(self, method, *others)

    def _tried(self, func: Callable[[Any], Any], plain: Method) -> Any:
        """What Dask makes of it. If it refuses, one call gets the whole frame."""
        import warnings

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Dask, about what a user did not write
                made = func(self.lazy)
        except Exception:  # of any kind; then pandas says what is wrong, if anything is
            method, others = plain.lifted()
            return on_whole(self, method, *others)
        return wrap(made, self)

    def _by_row(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A method of pandas on each chunk."""
        import dask
        import dask.dataframe as dd

        func = Method((name, args, kwargs))
        lazy = self.lazy
        small = tried(func, [sample_of(self)])
        if not hasattr(small, "iloc") or lazy.npartitions == 1:
            return on_whole(self, func)
        meta = small.iloc[:0]
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = lazy.map_partitions(func, meta=meta, enforce_metadata=False)
        del dask, dd
        return wrap(made, self)

    def _sorted(self, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Method) -> Any:
        by = args[0] if args else kwargs.get("by")
        keys: list[Any] = [by] if isinstance(by, str) else list(by or ())
        more = {
            key: one
            for key, one in kwargs.items()
            if key not in ("by", "ignore_index", "parallel_kind", "psrs_kinds", "kind")
        }
        if (
            "key" in more
            or more.get("axis") not in (None, 0, "index")
            or (more.get("na_position", "last") != "last")
        ):
            return on_whole(self, plain)
        more.pop("axis", None)
        made = self._tried(lambda lazy: lazy.sort_values(keys, **more), plain)
        if kwargs.get("ignore_index"):
            return wrap(rows.numbered(made.lazy))
        return made

    def _merged(self, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Method) -> Any:
        more = dict(kwargs)
        for hint in ("auto_merge", "auto_merge_threshold", "bloom_filter", "bloom_filter_options",
                     "parallel"):  # fmt: skip
            more.pop(hint, None)
        right, *others = args or (more.pop("right"),)
        if not isinstance(right, Tileable):
            right = of_pandas(right, None)
        given = [unwrap(one) for one in others]
        options = {key: unwrap(one) for key, one in more.items()}
        keeps = options.get("left_index") or options.get("right_index")
        plain = Method(("merge", (right, *others), more))
        by_tasks = {"shuffle_method": "tasks", **options}
        made = self._tried(lambda lazy: lazy.merge(right.lazy, *given, **by_tasks), plain)
        whole = self.lazy.npartitions == 1 and right.lazy.npartitions == 1
        return made if keeps or whole else wrap(rows.numbered(made.lazy))

    # -- inside ---------------------------------------------------------------------------------

    @classmethod
    def of_value(cls, value: Any) -> Any:
        """A frame of one chunk, which this process has."""
        import dask.dataframe as dd

        return cls(dd.from_pandas(value, npartitions=1, sort=False), here=True)

    def _assembled(self, values: list[Any]) -> Any:
        return joined(values)

    def value_in(self, session: Any) -> Any:
        if self._objects is None and (self._here or self._shows(session)):
            import dask

            return joined(list(dask.compute(*parts_of(self.lazy), scheduler="sync")))
        return super().value_in(session)

    def _found_out(self) -> Any:
        from dask.dataframe.dask_expr import from_graph

        [stored] = self.objects or []
        meta = facts_of(_meta_of, stored)
        name = f"spawn-{stored.key}-{stored.index}"
        graph = {(name, 0): stored_node((name, 0), stored, choose(None))}
        return from_graph(graph, meta, (None, None), [(name, 0)], "spawn")

    def _described(self) -> str:
        if self._lazy is None:
            return f"{self.kind} <op=RemoteFunction, the result of a call>"
        return super()._described()

    def __repr__(self) -> str:
        shown = self._ends(repr)
        return self._described() if shown is None else shown

    def __str__(self) -> str:
        shown = self._ends(str)
        return self._described() if shown is None else shown

    def _ends(self, show: Callable[[Any], str]) -> str | None:
        """Pandas' text of the first and last rows, if it was executed."""
        value = self._corner()
        if value is None:
            return None
        count = len(self)
        text = show(value)
        if len(value) < count:
            text = text.replace(f"[{len(value)} rows", f"[{count} rows")
            text = text.replace(f"Length: {len(value)}", f"Length: {count}")
        return text

    def _corner(self) -> Any:
        if not (self._here or self._all_done()):
            return None
        if self._lazy is None or len(self) <= _SHOWN_ROWS:
            return self.fetch()
        import pandas

        half = _SHOWN_ROWS // 2 + 1
        ends = [self.head(half).fetch(), self.tail(half).fetch()]
        if isinstance(ends[0], pandas.Index):
            return ends[0].append(ends[1])
        return pandas.concat(ends)

    def _repr_html_(self) -> str | None:
        value = self._corner()
        if value is None or not hasattr(value, "_repr_html_"):
            return None
        return str(value._repr_html_()).replace(f"{len(value)} rows", f"{len(self)} rows")


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

    def __setitem__(self, key: Any, value: Any) -> None:
        lazy, new = self.lazy, unwrap(value)
        names = key if isinstance(key, list) else [key]
        plain = hasattr(new, "__array__") and not hasattr(new, "dask") and not hasattr(new, "iloc")
        if isinstance(key, Tileable) or (plain and new.ndim > 1):
            self.become(set_whole(self, key, value))
            return
        if (isinstance(new, (list, tuple)) or plain) and not isinstance(key, list):
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

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in ("columns", "index") or name not in self.lazy.columns:
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __delitem__(self, key: Any) -> None:
        self.become(self.drop(columns=[key]))

    @property
    def columns(self) -> Any:
        return self.lazy.columns

    @columns.setter
    def columns(self, names: Any) -> None:
        self.become(self.rename(columns=dict(zip(self.lazy.columns, names, strict=True))))

    @property
    def index(self) -> Any:
        return wrap(self.lazy.index, self)

    @index.setter
    def index(self, labels: Any) -> None:
        self.become(with_labels(self, labels))

    def pop(self, item: Any) -> Any:
        """Take a column out, in place."""
        found = self[item]
        del self[item]
        return found

    def insert(self, loc: int, column: Any, value: Any, allow_duplicates: bool = False) -> None:
        """Put a column in at a place, in place."""
        names = [str(one) for one in self.lazy.columns]
        if column in self.lazy.columns and not allow_duplicates:
            raise ValueError(f"cannot insert {column}, already exists")
        del names
        self[column] = value
        order = [one for one in self.lazy.columns if one != column]
        self.become(self[[*order[:loc], column, *order[loc:]]])


class Series(Frame):
    """A series in chunks; its methods are those of `pandas.Series`."""

    __slots__ = ()
    __module__ = "mars.dataframe"
    kind = "Series"

    @property
    def index(self) -> Any:
        return wrap(self.lazy.index, self)

    @index.setter
    def index(self, labels: Any) -> None:
        self.become(with_labels(self, labels))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.become(set_whole(self, key, value))

    @property
    def name(self) -> Any:
        return self.lazy.name

    @name.setter
    def name(self, name: Any) -> None:
        self.become(self.rename(name))

    def unique(self, **_: Any) -> Any:
        """The values without repetitions, as a tensor, in the order of their first places."""
        return on_whole(self, Method(("unique", (), {})))


class Index(Frame):
    """An index in chunks; its methods are those of `pandas.Index`."""

    __slots__ = ()
    __module__ = "mars.dataframe"
    kind = "Index"

    def to_frame(self, *args: Any, **kwargs: Any) -> Any:
        return self._method("to_frame", args, kwargs)

    def append(self, other: Any, **_: Any) -> Any:  # type: ignore[override]
        """The labels of another index after those of this one."""
        others = list(other) if isinstance(other, (list, tuple)) else [other]
        return _appended(self, others)

    def to_tensor(self) -> Any:
        from mars.tensor import find

        return find.call("tensor", self.to_pandas().to_numpy())


class Scalar(Frame):
    """One value that is computed of a frame, such as a sum."""

    __slots__ = ()
    __module__ = "mars.dataframe"
    kind = "Scalar"

    @property
    def ndim(self) -> int:
        return 0

    @property
    def shape(self) -> tuple[Any, ...]:
        return ()

    @property
    def dtype(self) -> Any:
        import numpy

        return numpy.asarray(self.lazy._meta).dtype

    def value_in(self, session: Any) -> Any:
        if self._objects is None and (self._here or self._shows(session)):
            return self.lazy.compute(scheduler="sync")
        return Tileable.value_in(self, session)

    def _assembled(self, values: list[Any]) -> Any:
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

    def __call__(self, frame: Any, other: object) -> object:
        made = frame.copy()
        made.update(other, *self._args, **self._kwargs)
        return made


def _write_parquet(chunk: Any, path: str, kwargs: dict[str, Any]) -> None:
    chunk.to_parquet(path, **kwargs)


def _appended(index: Any, others: list[Any]) -> Any:
    method, lifted = Method(("append", (others,), {})).lifted()
    return on_whole(index, method, *lifted)


def with_labels(frame: Any, labels: Any) -> Any:
    """A frame whose index has these labels, one for each row."""
    import pandas

    plain = labels.executed_value() if isinstance(labels, Tileable) else labels
    index = plain if isinstance(plain, pandas.Index) else pandas.Index(plain)
    return wrap(rows.with_index(frame.lazy, index))


def _is_across(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a method that looks at each row by itself has to see all rows this time."""
    if name == "dropna":
        return (args[0] if args else kwargs.get("axis", 0)) in (1, "columns")
    if name == "astype":
        given = args[0] if args else kwargs.get("dtype")
        kinds = given.values() if isinstance(given, dict) else [given]
        return any(str(one) == "category" for one in kinds)
    if name == "set_index":
        given = args[0] if args else kwargs.get("keys")
        several = given if isinstance(given, (list, tuple)) else [given]
        return any(hasattr(one, "__len__") and not isinstance(one, str) for one in several)
    if name == "drop":
        return _is_tileable(args[0] if args else kwargs.get("index"))
    return False


def _meta_of(value: Any) -> Any:
    return value.iloc[:0] if hasattr(value, "iloc") else value[:0]


def _is_tileable(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_tileable, value))
    if isinstance(value, dict):
        return any(map(_is_tileable, value.values()))
    return isinstance(value, Tileable)


def _scheduler() -> Any:
    from mars.dask.door import Scheduler

    return Scheduler()


_FRAMES_OF_FRAMES: Final = frozenset(
    {"to_frame", "to_period", "to_timestamp", "to_series", "to_flat_index"}
)
"""Methods that begin with "to_" and give frames."""

_BY_LABELS: Final = frozenset(
    [
        "add", "div", "divide", "eq", "fillna", "floordiv", "ge", "gt", "le", "lt", "mod", "mul",
        "multiply", "ne", "pow", "radd", "rdiv", "rfloordiv", "rmod", "rmul", "rpow", "rsub",
        "rtruediv", "sub", "subtract", "truediv",
    ]
)  # fmt: skip
"""Methods that take a series by the labels of columns."""

_METHOD_IS_OURS: Final = frozenset(
    ["drop_duplicates", "nunique", "merge", "value_counts", "groupby", "sum", "mean", "duplicated"]
)


_BINARY: Final = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor",
)  # fmt: skip
_COMPARED: Final = ("lt", "le", "gt", "ge", "eq", "ne")
_UNARY: Final = ("neg", "abs", "invert")


def _binary(name: str) -> Callable[[Any, Any], Any]:
    def apply(self: Any, other: Any) -> Any:
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
                return self._by_row_with(plain, True)
            if not aligned(self.lazy, given):
                return on_whole(self, *_lifted(plain))
        return self._tried(lambda lazy: getattr(lazy, name)(given), plain)

    return apply


def _lifted(plain: Method) -> list[Any]:
    method, others = plain.lifted()
    return [method, *others]


def _in_place(name: str) -> Callable[[Any, Any], Any]:
    def apply(self: Any, other: Any) -> Any:
        self.become(getattr(self, name)(other))
        return self

    return apply


def _unary(name: str) -> Callable[[Any], Any]:
    return lambda self: self._tried(lambda lazy: getattr(lazy, name)(), Method((name, (), {})))


for _name in _BINARY:
    setattr(Frame, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(Frame, f"__r{_name}__", _binary(f"__r{_name}__"))
    setattr(Frame, f"__i{_name}__", _in_place(f"__{_name}__"))
for _name in _COMPARED:
    setattr(Frame, f"__{_name}__", _binary(f"__{_name}__"))
for _name in _UNARY:
    setattr(Frame, f"__{_name}__", _unary(f"__{_name}__"))
Frame.__hash__ = Tileable.__hash__  # type: ignore[method-assign]

__all__ = ["DataFrame", "Frame", "Index", "Scalar", "Series"]
