"""How a method of pandas is computed: in chunks by Dask, chunk by chunk by pandas, or as a whole.

`call_method` decides that by the tables of `names` and by the arguments. Where Dask refuses these,
one call gets the whole frame. The classes of `core` call it for each method that they lack.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Final

from mars.dataframe import rows
from mars.dataframe.access import Written
from mars.dataframe.columns import BY_COLUMN, by_column
from mars.dataframe.handle import Handle
from mars.dataframe.joining import of_pandas
from mars.dataframe.names import BY_ROW, PARALLEL
from mars.dataframe.neighbours import with_rows_nearby
from mars.dataframe.parts import aligned, of_parts, parts_of
from mars.dataframe.whole import Method, delayed_whole, has_rows, on_whole, sample_of, tried
from mars.settings import MERGE_WHOLE_VALUES
from mars.tileables.tileable import Tileable, unwrap, wrap

if TYPE_CHECKING:
    from dask.dataframe.dask_expr._collection import FrameBase

    from mars.calls.executable import Executable


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
    [
        "drop_duplicates", "nunique", "merge", "value_counts", "groupby", "sum", "mean",
        "duplicated", "join", "max", "min", "prod", "count", "std", "var", "agg", "aggregate",
    ]
)  # fmt: skip
"""Methods for which ``method`` says how the original computes them in parallel."""

_HINTS: Final = {
    "join": ("auto_merge", "auto_merge_threshold", "bloom_filter", "bloom_filter_options"),
    "map": ("dtype", "memory_scale", "skip_infer"),
    "reindex": ("enable_sparse",),
    "sample": ("always_multinomial",),
    "sort_index": ("parallel_kind", "psrs_kinds"),
    "sort_values": ("parallel_kind", "psrs_kinds"),
}
"""Arguments of the original that say how a method is computed."""

_NEW_LABELS: Final = frozenset({"add_prefix", "add_suffix", "rename", "set_index", "to_timestamp"})
"""Methods of single rows after which rows have other labels."""

_UNITES: Final = frozenset(
    [
        "add", "combine_first", "div", "divide", "eq", "floordiv", "ge", "gt", "le", "lt", "mod",
        "mul", "multiply", "ne", "pow", "radd", "rdiv", "rfloordiv", "rmod", "rmul", "rpow", "rsub",
        "rtruediv", "sub", "subtract", "truediv",
    ]
)  # fmt: skip
"""Methods whose result has the labels of both sides."""


def call_method(
    frame: Handle, name: str, args: tuple[object, ...], kwargs: dict[str, object]
) -> object:
    """The result of a method of pandas: most often another frame."""
    hints = ("combine_size", *_HINTS.get(name, ()))
    if name in _METHOD_IS_OURS:
        hints = (*hints, "method")
    kwargs = {key: one for key, one in kwargs.items() if key not in hints}
    if kwargs.pop("inplace", False):
        made = call_method(frame, name, args, kwargs)
        if not isinstance(made, Tileable):
            raise TypeError(f"{name}() makes no frame, so it is not done in place")
        frame.become(made)
        return None
    if name.startswith("to_") and name not in _FRAMES_OF_FRAMES:
        return _given_out(frame, name, args, kwargs)
    if name == "fillna" and kwargs.get("method") is not None:
        way = "ffill" if kwargs.pop("method") in ("pad", "ffill") else "bfill"
        return call_method(
            frame, way, (), {key: one for key, one in kwargs.items() if key != "value"}
        )
    if name == "sort_values" and isinstance(count := kwargs.pop("nrows", None), int):
        ordered = call_method(frame, name, args, kwargs)
        return ordered.head(count) if isinstance(ordered, Handle) else ordered
    if name in _UNITES:
        args = tuple(_of_pandas(one) for one in args)
    others = [one for one in (*args, *kwargs.values()) if _is_tileable(one)]
    if name in BY_ROW and not _is_across(name, args, kwargs):
        if not others and kwargs.get("ignore_index"):
            kwargs.pop("ignore_index")
            made = by_row(frame, name, args, kwargs)
            return wrap(rows.numbered(made.lazy)) if isinstance(made, Handle) else made
        if not others:
            return by_row(frame, name, args, kwargs)
        if _is_small_beside(frame, name, others, kwargs):
            by_labels = frame.ndim == 2 and name in _BY_LABELS
            return by_row_with(frame, Method((name, args, kwargs)), by_labels)
    plain = Method((name, args, kwargs))
    if name in ("shift", "diff", "pct_change"):
        moved = _by_neighbours(frame, name, args, kwargs, plain)
        if moved is not None:
            return moved
    if name in _CUMULATIVE and _is_along_rows(args, kwargs):
        return by_row(frame, name, args, kwargs)
    if name in BY_COLUMN and not others and not _is_along_rows(args, kwargs):
        joined = _by_column(frame, plain)
        if joined is not None:
            return joined
    if name == "join":
        return _joined(frame, args, kwargs, plain)
    parallel = name in PARALLEL or (name in BY_ROW and others) or name == "drop_duplicates"
    if name in ("corr", "cov") and "min_periods" in kwargs:
        parallel = False  # Dask counts otherwise
    if "bool_only" in kwargs:
        parallel = False  # Dask ignores it
    if name == "mean" and _has_times(frame):
        parallel = False  # Dask would sum them up
    if name in BY_ROW and parallel:
        parallel = not _is_across(name, args, kwargs) and all(
            isinstance(one, Handle) and aligned(frame.lazy, one.lazy) for one in others
        )
    if not parallel:
        if name == "sort_values" and frame.ndim == 2 and frame.lazy.npartitions > 1:
            return _sorted(frame, args, kwargs, plain)
        method, lifted = plain.lifted()
        return on_whole(frame, method, *lifted)
    if name == "merge":
        return _merged(frame, args, kwargs, plain)
    if name == "drop_duplicates":
        kwargs = {**kwargs, "split_out": 1} if frame.lazy.npartitions > 1 else kwargs
    given = [unwrap(one) for one in args]
    more = {key: unwrap(one) for key, one in kwargs.items()}
    if name in _CUMULATIVE and frame.ndim == 2:
        return frame.by_dask(lambda lazy: _by_type(lazy, name, given, more), plain)
    return frame.by_dask(lambda lazy: getattr(lazy, name)(*given, **more), plain)


def _by_type(
    lazy: FrameBase, name: str, args: list[object], kwargs: dict[str, object]
) -> FrameBase:
    """A method of columns, for those of one type at a time: Dask would make one type of all."""
    import dask.dataframe as dd

    columns: dict[object, list[object]] = {}
    for one, kind in lazy._meta.dtypes.to_dict().items():
        columns.setdefault(kind, []).append(one)
    parts = [getattr(lazy[names], name)(*args, **kwargs) for names in columns.values()]
    return parts[0] if len(parts) == 1 else dd.concat(parts, axis=1)[list(lazy.columns)]


def _given_out(
    frame: Handle, name: str, args: tuple[object, ...], kwargs: dict[str, object]
) -> object:
    """What pandas writes or makes of the executed frame, such as `to_sql` and `to_dict`."""
    value = getattr(frame.to_pandas(), name)(*args, **kwargs)
    return Written() if value is None or name == "to_sql" else value


def _is_small_beside(
    frame: Handle, name: str, others: list[object], kwargs: dict[str, object]
) -> bool:
    """Whether each chunk needs the others as a whole: labels of columns, or values to find."""
    axis = kwargs.get("axis", "columns")
    by_columns = frame.ndim == 2 and axis not in (0, "index")
    return all(isinstance(one, Handle) and one.kind != "DataFrame" for one in others) and (
        name in ("isin", "map", "replace") or (by_columns and name in _BY_LABELS)
    )


def by_row_with(frame: Handle, plain: Method, by_labels: bool = False) -> Executable[object]:
    """A method of pandas on each chunk, beside the whole of the frames in its arguments."""
    import dask

    method, others = plain.lifted()
    samples = [sample_of(one) for one in others]
    if by_labels:  # which labels those have, no made-up row tells; they are most often these
        samples = [
            one.iloc[:1].reset_index(drop=True).reindex([0] * len(frame.lazy.columns))
            .set_axis(frame.lazy.columns) if has_rows(one) and one.ndim == 1 else one
            for one in samples
        ]  # fmt: skip
    small = tried(method, [sample_of(frame), *samples])
    if not has_rows(small):
        return on_whole(frame, method, *others)
    run = dask.delayed(method, pure=False)
    given = [delayed_whole(one) for one in others]
    parts = [run(one, *given) for one in parts_of(frame.lazy)]
    return wrap(of_parts(parts, small.iloc[:0]), frame)


def _by_neighbours(
    frame: Handle, name: str, args: tuple[object, ...], kwargs: dict[str, object], plain: Method
) -> Executable[object] | None:
    """A method whose rows look at rows nearby. None: it has to see the whole frame."""
    periods = args[0] if args else kwargs.get("periods", 1)
    if len(args) > 1 or not kwargs.keys() <= {"periods", "fill_value", "axis"}:
        return None
    if kwargs.get("axis", 0) not in (0, "index") or not isinstance(periods, int):
        return by_row(frame, name, args, kwargs) if name != "pct_change" else None
    small = tried(plain, [sample_of(frame)])
    if not has_rows(small) or frame.lazy.npartitions == 1 or not periods:
        return None
    before, after = max(periods, 0), max(-periods, 0)
    return wrap(with_rows_nearby(frame.lazy, plain, small.iloc[:0], before, after), frame)


def _by_column(frame: Handle, plain: Method) -> Tileable | None:
    """A method that looks at each column by itself. None: pandas has to see them together."""
    lazy = frame.lazy
    if frame.ndim != 2 or lazy.npartitions == 1 or not lazy.columns.is_unique:
        return None
    small = tried(plain, [sample_of(frame)])
    if small is None:
        return None
    names = getattr(small, "columns", None)
    if names is None and hasattr(small, "index"):
        names = small.index
    if names is None or not len(names) or not set(names) <= set(lazy.columns):
        return None
    kinds = {lazy._meta[one].dtype.kind for one in names}
    if not kinds <= set("iuf") or len(names) < 2:
        return None
    return wrap(by_column(lazy, list(names), plain, small))


def _joined(
    frame: Handle, args: tuple[object, ...], kwargs: dict[str, object], plain: Method
) -> Executable[object]:
    other = args[0] if args else kwargs.get("other")
    how = kwargs.get("how", args[2] if len(args) > 2 else "left")
    method, others = plain.lifted()
    if how in ("left", "inner") and isinstance(other, Handle) and other.lazy.npartitions == 1:
        return by_row_with(frame, plain)
    by_index = len(args) == 1 and kwargs.keys() <= {"how", "lsuffix", "rsuffix"}
    if by_index and isinstance(other, Handle) and how == "left":  # noqa: SIM102
        if frame.lazy.known_divisions and other.lazy.known_divisions:
            return frame.by_dask(lambda lazy: lazy.join(other.lazy, **kwargs), plain)
    return on_whole(frame, method, *others)


def by_row(
    frame: Handle, name: str, args: tuple[object, ...], kwargs: dict[str, object]
) -> Executable[object]:
    """A method of pandas on each chunk."""
    import warnings

    func = Method((name, args, kwargs))
    lazy = frame.lazy
    small = tried(func, [sample_of(frame)])
    if not has_rows(small) or lazy.npartitions == 1:
        return on_whole(frame, func)
    meta = small.iloc[:0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = lazy.map_partitions(func, meta=meta, enforce_metadata=False)
    if name in _NEW_LABELS or frame.kind == "Index":
        made = made.clear_divisions()
    return wrap(made, frame)


def _has_times(frame: Handle) -> bool:
    meta = frame.lazy._meta
    kinds = meta.dtypes.to_dict().values() if frame.ndim == 2 else [meta.dtype]
    return any(getattr(one, "kind", "") in "mM" for one in kinds)


_CUMULATIVE: Final = frozenset({"cummax", "cummin", "cumprod", "cumsum"})


def _is_along_rows(args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Whether a method goes along each row, by the argument ``axis``, which may be the first."""
    first = args[0] if len(args) == 1 and not isinstance(args[0], float) else 0
    return kwargs.get("axis", first) in (1, "columns")


def _sorted(
    frame: Handle, args: tuple[object, ...], kwargs: dict[str, object], plain: Method
) -> Executable[object]:
    by = args[0] if args else kwargs.get("by")
    keys: list[Hashable] = [] if by is None else [by]
    if isinstance(by, Iterable) and not isinstance(by, str):
        keys = list(by)
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
        return on_whole(frame, plain)
    more.pop("axis", None)
    made = frame.by_dask(lambda lazy: lazy.sort_values(keys, **more), plain)
    if kwargs.get("ignore_index") and isinstance(made, Handle):
        return wrap(rows.numbered(made.lazy))
    return made


def _merged(
    frame: Handle, args: tuple[object, ...], kwargs: dict[str, object], plain: Method
) -> Executable[object]:
    more = dict(kwargs)
    for hint in ("auto_merge", "auto_merge_threshold", "bloom_filter", "bloom_filter_options",
                 "parallel"):  # fmt: skip
        more.pop(hint, None)
    given_right, *others = args or (more.pop("right"),)
    right = given_right if isinstance(given_right, Tileable) else of_pandas(given_right, None)
    other = right.lazy
    given = [unwrap(one) for one in others]
    options = {key: unwrap(one) for key, one in more.items()}
    keeps = options.get("left_index") or options.get("right_index")
    plain = Method(("merge", (right, *others), more))
    how = options.get("how", given[0] if given else "inner")
    if how in ("inner", "left") and isinstance(right, Handle) and _is_few(right):
        other = right.lazy.repartition(npartitions=1)
    by_tasks = {"shuffle_method": "tasks", **options}
    made = frame.by_dask(lambda lazy: lazy.merge(other, *given, **by_tasks), plain)
    whole = frame.lazy.npartitions == 1 and getattr(other, "npartitions", 1) == 1
    if keeps or whole or not isinstance(made, Handle):
        return made
    return wrap(rows.numbered(made.lazy))


def _is_few(right: Handle) -> bool:
    """Whether a frame of several chunks is known to be small; see `MERGE_WHOLE_VALUES`."""
    chunks = right.lazy.npartitions
    return chunks > 1 and math.prod(right.shape) <= MERGE_WHOLE_VALUES  # False while it is nan


def _is_across(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Whether a method that looks at each row by itself has to see all rows this time."""
    if name == "to_frame":
        return kwargs.get("index") is False or False in args
    if name in _UNITES and any(isinstance(one, (list, tuple)) or _is_array(one) for one in args):
        return True
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
        rows = kwargs.get("index")
        if kwargs.get("axis", args[1] if len(args) > 1 else 0) not in (1, "columns"):
            rows = args[0] if args else kwargs.get("labels", rows)
        # pandas complains of labels that are not there, and a chunk has only some.
        return rows is not None and (_is_tileable(rows) or kwargs.get("errors") != "ignore")
    return False


def _of_pandas(value: object) -> object:
    return of_pandas(value, None) if has_rows(value) and not _is_tileable(value) else value


def _is_array(value: object) -> bool:
    """Whether it is an array of numpy, with an element for each row or column."""
    plain = not has_rows(value) and not _is_tileable(value)
    return plain and hasattr(value, "__array__") and bool(getattr(value, "ndim", 0))


def _is_tileable(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_tileable, value))
    if isinstance(value, dict):
        return any(map(_is_tileable, value.values()))
    return isinstance(value, Tileable)


__all__ = ["by_row", "by_row_with", "call_method"]
