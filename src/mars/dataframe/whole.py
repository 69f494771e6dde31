"""Operations that need a whole frame: one call gets it, and pandas does the rest.

What the result looks like is found out with a frame of a few made-up rows. Where that fails, the
call is executed at once, and its result tells.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from mars.calls.executable import Executable
from mars.calls.objects import ExecutableTuple, Object
from mars.calls.spawn import spawn
from mars.code import places
from mars.dataframe.parts import of_parts, parts_of
from mars.tileables.tileable import (
    Tileable,
    facts_of,
    kind_named,
    unwrap,
    wrap,
)

if TYPE_CHECKING:
    from dask.delayed import Delayed

    from mars.dask.collection import Collection
    from mars.dataframe.protocols import Rows


T = TypeVar("T")


class Method:
    """A method of pandas, or several in a row, with their arguments: called with a frame.

    Parameters
    ----------
    steps : sequence of tuple
        Each is a name, positional and keyword arguments; without these, it is an attribute.
    """

    def __init__(self, *steps: tuple[object, ...]) -> None:
        self._steps = [(step[0], *map(of_numpy, step[1:])) for step in steps]
        self.__name__ = "-".join(str(step[0]) for step in steps)

    def __call__(self, frame: Rows, *values: object) -> Rows:
        given = iter(values)
        for name, *arguments in self._steps:
            if name == "[]":
                frame = frame[_filled(arguments[0], given)]
                continue
            found = getattr(frame, str(name))
            if arguments:
                args, kwargs = [_filled(one, given) for one in arguments]
                if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
                    raise TypeError(f"a step of a method has no arguments: {args!r}, {kwargs!r}")
                found = found(*args, **kwargs)
            frame = found
        return frame

    def lifted(self) -> tuple[Method, list[Tileable]]:
        """The same with places for the tensors and frames among the arguments, and these."""
        found: list[Tileable] = []
        return Method(
            *[tuple(_placed(part, found) for part in step) for step in self._steps]
        ), found


def of_numpy(value: object) -> object:
    """Numpy's functions in the place of those of `mars.tensor`: pandas computes with these."""
    if type(value) is list or type(value) is tuple:
        return type(value)([of_numpy(one) for one in value])
    if type(value) is dict:
        return {key: of_numpy(one) for key, one in value.items()}
    if getattr(value, "__module__", None) == "mars.tensor" and hasattr(value, "__name__"):
        import numpy

        found: object = getattr(numpy, value.__name__, value)
        return found
    return value


class Place:
    """Where a frame is filled in."""


def _placed(value: object, found: list[Tileable]) -> object:
    if isinstance(value, Tileable):
        found.append(value)
        return Place()
    if type(value) is list or type(value) is tuple:
        return type(value)([_placed(one, found) for one in value])
    if type(value) is dict:
        return {key: _placed(one, found) for key, one in value.items()}
    return value


def _filled(value: object, given: Iterator[object]) -> object:
    if isinstance(value, Place):
        return next(given)
    if type(value) is list or type(value) is tuple:
        return type(value)([_filled(one, given) for one in value])
    if type(value) is dict:
        return {key: _filled(one, given) for key, one in value.items()}
    return value


def on_whole(frame: Tileable, func: Callable[..., object], *others: Tileable) -> Executable[object]:
    """The result of a function that gets a frame of pandas.

    Parameters
    ----------
    frame : Tileable
        The frame.
    func : callable
        Gets it, and the others.
    *others : Tileable
        Further tensors and frames.
    """
    import dask

    inputs = [frame, *others]
    small = tried(func, [sample_of(one) for one in inputs])
    if small is None:
        return at_once(func, inputs)
    made = dask.delayed(func, pure=False)(*[delayed_whole(one) for one in inputs])
    import pandas

    if isinstance(small, (pandas.DataFrame, pandas.Series, pandas.Index)):
        if isinstance(small, pandas.Index):
            return at_once(func, inputs)
        return wrap(of_parts([made], small.iloc[:0]))
    return at_once(func, inputs)


def has_rows(value: object) -> TypeGuard[Rows]:
    """Whether it is a frame or a series of pandas."""
    return hasattr(value, "iloc")


def tileable_of(made: Executable[object]) -> Tileable:
    """A result of `on_whole` that has to be a tensor or a frame."""
    if not isinstance(made, Tileable):
        raise TypeError(f"pandas made no frame, but {made!r}")
    return made


def at_once(func: Callable[..., object], inputs: Sequence[Tileable]) -> Executable[object]:
    """The result of a call that is executed now."""
    with places.whole_values():
        stored = spawn(func, tuple(inputs), name=getattr(func, "__name__", "pandas"))
    stored.execute(show_progress=False)
    return _known(stored)


def _known(stored: Object[object]) -> Executable[object]:
    kind = facts_of(_kind, stored)
    if kind in ("DataFrame", "Series", "Index"):
        return kind_named(kind)(objects=[stored])
    if kind == "Tensor":
        return kind_named("Array")(objects=[stored])
    if isinstance(kind, int):
        parts = [spawn(operator.itemgetter(i), (stored,)) for i in range(kind)]
        ExecutableTuple(parts).execute(show_progress=False)
        return ExecutableTuple([_known(one) for one in parts])
    return stored


def _kind(value: object) -> str | int:
    import numpy
    import pandas

    if (
        type(value) is tuple
        and value
        and (
            any(_kind(one) not in ("object", "Tensor") for one in value)
            or all(isinstance(one, numpy.ndarray) for one in value)
        )
    ):
        return len(value)  # such as of align() and cut(retbins=True)

    if isinstance(value, pandas.DataFrame):
        return "DataFrame"
    if isinstance(value, pandas.Series):
        return "Series"
    if isinstance(value, pandas.Index):
        return "Index"
    if isinstance(value, (numpy.ndarray, numpy.generic, int, float, bool)) or hasattr(
        value, "dtype"
    ):
        return "Tensor"
    return "object"


def delayed_whole(one: Tileable) -> Delayed | Collection:
    """The whole value of a tensor or frame, as a task."""
    import dask
    from dask.dataframe.dask_expr._collection import FrameBase

    lazy = one.lazy
    if isinstance(lazy, FrameBase):
        return dask.delayed(joined, pure=False)(parts_of(lazy))
    return lazy


def joined(parts: Sequence[Rows]) -> Rows:
    """One frame of its parts, in their order."""
    import pandas

    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], pandas.Index):
        labels: Rows = parts[0].append(parts[1:])
        return labels
    full = [one for one in parts if len(one)]
    made: Rows = pandas.concat(full) if full else parts[0]
    return _numbered_alike(made, full)


def _numbered_alike(made: Rows, parts: list[Rows]) -> Rows:
    """Indices that go on from part to part are one range, as pandas would have it."""
    import pandas

    stop = None
    for one in parts:
        index = one.index
        if not isinstance(index, pandas.RangeIndex) or index.step != 1:
            return made
        if stop is not None and index.start != stop:
            return made
        stop = index.stop
    if stop is not None:
        made.index = pandas.RangeIndex(parts[0].index.start, stop, name=made.index.name)
    return made


def sample_of(one: Tileable) -> Rows | None:
    """A few made-up rows like those of a frame."""
    from dask.dataframe.utils import meta_nonempty

    lazy = unwrap(one)
    meta = getattr(lazy, "_meta", None)
    return meta if meta is None or hasattr(lazy, "chunks") else meta_nonempty(meta)


def tried(func: Callable[..., T], samples: list[object]) -> T | None:
    """The result of a function for made-up rows. None: it fails, or has none."""
    import warnings

    with contextlib.suppress(Exception), warnings.catch_warnings():
        # What a function does with made-up rows says nothing about real ones, errors neither.
        warnings.simplefilter("ignore")
        return func(*samples)
    return None


__all__ = [
    "Method",
    "at_once",
    "delayed_whole",
    "has_rows",
    "joined",
    "on_whole",
    "sample_of",
    "tileable_of",
    "tried",
]
