"""Groups of rows: ``df.groupby("city").amount.sum()``.

Reductions are computed in chunks, if the keys are columns. Functions that need whole groups, such
as `apply` and `transform`, run on parts that have all rows of some groups; see `grouping`. All else
runs in one call that gets the whole frame. The order of rows is that of pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mars.dataframe import rows
from mars.dataframe.access import ByName, Chain, drop_hints
from mars.dataframe.grouping import BY_KEYS, BY_ROWS, grouped_together
from mars.dataframe.handle import Handle
from mars.dataframe.names import GROUPED
from mars.dataframe.whole import Method, has_rows, on_whole, sample_of, tried
from mars.tileables.tileable import Tileable, value_of, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas.api.typing import DataFrameGroupBy

    from mars.calls.executable import Executable


class Groups(ByName):
    """What ``groupby`` gives. Its methods are those of pandas' groups.

    Parameters
    ----------
    frame : Frame
        The rows.
    by : object
        The keys, as pandas takes them.
    kwargs : dict
        Further arguments of pandas' ``groupby``.
    selected : object, optional
        The columns that are looked at.
    """

    def __init__(
        self, frame: Handle, by: object, kwargs: dict[str, object], selected: object = None
    ) -> None:
        self._frame, self._by, self._kwargs, self._selected = frame, by, kwargs, selected

    def __getitem__(self, key: object) -> Groups:
        for one in key if isinstance(key, list) else [key]:
            if one not in self._frame.lazy.columns:
                raise KeyError(f"Column not found: {one}")
        return Groups(self._frame, self._by, self._kwargs, key)

    def agg(self, func: object = None, *args: object, **kwargs: object) -> object:
        """One or several reductions of each group, as pandas names them."""
        given = {key: _plainly(one) for key, one in kwargs.items()}
        return self._call("agg", () if func is None else (func, *args), given)

    aggregate = agg

    @property
    def ngroups(self) -> int:
        """How many groups there are; the frame is executed for that."""
        return int(self._of_pandas().ngroups)

    @property
    def groups(self) -> object:
        """The labels of the rows of each group; the frame is executed for that."""
        return self._of_pandas().groups

    @property
    def indices(self) -> object:
        """The places of the rows of each group; the frame is executed for that."""
        return self._of_pandas().indices

    def rolling(self, *args: object, **kwargs: object) -> Chain:
        return self._chain("rolling", args, kwargs)

    def expanding(self, *args: object, **kwargs: object) -> Chain:
        return self._chain("expanding", args, kwargs)

    def ewm(self, *args: object, **kwargs: object) -> Chain:
        return self._chain("ewm", args, kwargs)

    def resample(self, *args: object, **kwargs: object) -> Chain:
        return self._chain("resample", args, kwargs)

    def _chain(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Chain:
        return Chain(self._frame, *self._steps(), (name, args, kwargs))

    def _steps(self) -> list[tuple[object, ...]]:
        steps: list[tuple[object, ...]] = [("groupby", (self._by,), self._kwargs)]
        if self._selected is not None:
            steps.append(("[]", self._selected))
        return steps

    def _of_pandas(self) -> DataFrameGroupBy:
        grouped = self._frame.to_pandas().groupby(value_of(self._by), **self._kwargs)
        return grouped if self._selected is None else grouped[self._selected]

    def __iter__(self) -> Iterator[object]:
        return iter(self._of_pandas())

    def _call(
        self, name: str, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Executable[object]:
        for hint in ("method", "combine_size", "output_type", "dtypes", "skip_infer"):
            kwargs.pop(hint, None)
        if name in ("apply", "transform", "map_chunk"):
            drop_hints(kwargs)
        plain = Method(*self._steps(), (name, args, kwargs))
        if self._in_chunks(name, args, kwargs):
            made = self._by_dask(name, args, kwargs)
            if made is not None:
                return made
        method, others = plain.lifted()
        if not others:
            made = None if self._gives_rows(name, args) else self._together(name, method)
            if made is not None:
                return made
        return on_whole(self._frame, method, *others)

    def _gives_rows(self, name: str, args: tuple[object, ...]) -> bool:
        """Whether a function for `apply` gives a series with an element for each row.

        What pandas makes of those depends on how many groups it sees, so it has to see all.
        """
        if name != "apply" or not args or not callable(args[0]) or self._frame.ndim != 2:
            return False
        rows = sample_of(self._frame)
        given = rows if self._selected is None or rows is None else rows[self._selected]
        made = tried(args[0], [given])
        return (
            has_rows(made) and made.ndim == 1 and has_rows(rows) and made.index.equals(rows.index)
        )

    def _together(self, name: str, method: Method) -> Tileable | None:
        """A method on parts that have whole groups. None: the whole frame is needed."""
        frame = self._frame
        if (name not in BY_ROWS and name not in BY_KEYS) or frame.ndim != 2:
            return None
        if frame.lazy.npartitions == 1 or not _are_columns(self._by, frame):
            return None
        if not self._kwargs.keys() <= {"sort", "dropna", "observed", "group_keys"}:
            return None
        keys = list(self._by) if isinstance(self._by, (list, tuple)) else [self._by]
        meta = frame.lazy._meta
        if any(meta[one].dtype == "category" for one in keys):
            return None
        by_rows = name in BY_ROWS
        small = tried(method, [sample_of(frame)])
        if not has_rows(small):
            return None
        if not by_rows and (
            not self._kwargs.get("sort", True) or list(small.index.names)[: len(keys)] != keys
        ):
            return None
        return wrap(grouped_together(frame.lazy, keys, method, small.iloc[:0], by_rows))

    def _in_chunks(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
        frame = self._frame
        if frame.ndim != 2 or frame.lazy.npartitions == 1 or not _are_columns(self._by, frame):
            return False
        if not self._kwargs.keys() <= {"as_index", "sort", "dropna", "observed", "group_keys"}:
            return False
        if not self._kwargs.get("sort", True):  # Dask does not keep the order of first rows
            return False
        if name in GROUPED:
            return not args and kwargs.keys() <= {"numeric_only"}
        if name not in ("agg", "aggregate") or (kwargs and args):
            return False
        return all(one in GROUPED for one in _functions(args, kwargs))

    def _by_dask(
        self, name: str, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Tileable | None:
        import warnings

        options = dict(self._kwargs)
        as_index = options.pop("as_index", True)
        by = list(self._by) if isinstance(self._by, (list, tuple)) else self._by
        named = name in ("agg", "aggregate") and not args
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Dask, about what a user did not write
                grouped = self._frame.lazy.groupby(by, **{"sort": True, **options})
                if self._selected is not None:
                    grouped = grouped[self._selected]
                if named:
                    made = grouped.agg(**kwargs)
                else:
                    made = getattr(grouped, name)(*args, **kwargs)
        except Exception:  # Dask refuses; pandas tells what is wrong, if anything is
            return None
        if name == "nunique":  # which Dask leaves in any order
            made = made.map_partitions(Method(("sort_index", (), {})), meta=made._meta)
        if not as_index and made.ndim == 1 and made.name is None:
            made = made.rename("size")
        return wrap(made if as_index else rows.with_index_as_columns(made, {"drop": False}))


def _plainly(one: object) -> object:
    """A pair of column and function for a `pandas.NamedAgg`, which cannot be a key of a dict."""
    import pandas

    if isinstance(one, pandas.NamedAgg) and not isinstance(one, tuple):
        facts = vars(one)
        if not facts.get("args") and not facts.get("kwargs"):
            return facts["column"], facts["aggfunc"]
    return one


def _are_columns(by: object, frame: Handle) -> bool:
    keys = by if isinstance(by, (list, tuple)) else [by]
    if any(isinstance(one, Tileable) for one in keys):
        return False
    columns = frame.lazy.columns
    return bool(keys) and all(isinstance(one, (str, int)) and one in columns for one in keys)


def _functions(args: tuple[object, ...], kwargs: dict[str, object]) -> list[object]:
    if not args:
        return [one[1] if isinstance(one, tuple) else one for one in kwargs.values()]
    given = args[0]
    if isinstance(given, dict):
        found: list[object] = []
        for one in given.values():
            found += one if isinstance(one, list) else [one]
        return found
    return list(given) if isinstance(given, (list, tuple)) else [given]


__all__ = ["Groups"]
