"""Functions and classes of scikit-learn that take tensors and frames.

A function gets plain arrays and frames in one call on a worker, which has all cores of it; what it
returns are tensors. Without tensors and frames it is scikit-learn's own, in the program. A class is
scikit-learn's own with the methods of `mars.learn.fitting`, so it is one for all of scikit-learn.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

from mars.calls.executable import Executable
from mars.calls.objects import ExecutableTuple
from mars.dataframe.access import Written
from mars.dataframe.whole import at_once
from mars.learn.fetchable import fetchable
from mars.learn.fitting import of_class
from mars.tileables.tileable import Tileable, kind_named


def names_of(
    module: str, own: dict[str, object] | None = None, *, always: bool = False
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for a module that stands for one of scikit-learn's.

    Parameters
    ----------
    module : str
        The module of scikit-learn.
    own : dict, optional
        What stands in the place of some of its names.
    always : bool, default False
        Whether the results of functions are tensors even if no tensor is among the arguments, as
        programs of the original expect it, which execute and fetch them.
    """
    known = own or {}

    def get(name: str) -> object:
        if name in known:
            return known[name]
        if name.startswith("__"):
            raise AttributeError(name)
        origin = importlib.import_module(module)
        found = getattr(origin, name)
        if inspect.isclass(found):
            return of_class(cast("Hashable", found))
        return of_function(found, executed=always) if inspect.isfunction(found) else found

    def names() -> list[str]:
        origin = importlib.import_module(module)
        return sorted({*known, *getattr(origin, "__all__", dir(origin))})

    return get, names


def of_function(
    func: Callable[..., object], *, always: bool = False, executed: bool = False
) -> Callable[..., object]:
    """A function of scikit-learn that takes tensors and frames.

    Parameters
    ----------
    func : callable
        The function.
    always : bool, default False
        Whether its results are tensors even if no tensor is among the arguments.
    executed : bool, default False
        The same, and the tensors are executed.
    """

    @functools.wraps(func)
    def call(*args: object, **kwargs: object) -> object:
        for hint in ("chunk_size", "session", "run_kwargs", "gpu", "execute"):
            if hint not in inspect.signature(func).parameters:
                kwargs.pop(hint, None)
        found = tileables_in((args, kwargs))
        if not found and executed:
            return done(func(*args, **kwargs))
        if not found:
            made = func(*args, **kwargs)
            return as_tileables(made) if always else fetchable(made)
        run = Filled(func, args, kwargs, found)
        made = at_once(run, found)
        if isinstance(made, ExecutableTuple):
            return made
        return done(made.fetch()) if executed and not isinstance(made, Tileable) else unpacked(made)

    return call


class Filled:
    """A call of a function with values in the place of tensors and frames."""

    def __init__(
        self, func: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object],
        found: list[Tileable],
    ) -> None:  # fmt: skip
        self.__name__ = getattr(func, "__name__", type(func).__name__)
        numbers = {id(one): number for number, one in enumerate(found)}
        self._func = func
        self._args = [_placed(one, numbers) for one in args]
        self._kwargs = {key: _placed(one, numbers) for key, one in kwargs.items()}

    def __call__(self, *values: object) -> object:
        args = [_filled(one, values) for one in self._args]
        return self._func(*args, **{key: _filled(one, values) for key, one in self._kwargs.items()})


class _Place:
    def __init__(self, number: int) -> None:
        self.number = number


def _placed(value: object, numbers: dict[int, int]) -> object:
    if isinstance(value, Tileable):
        return _Place(numbers[id(value)])
    if type(value) is list or type(value) is tuple:
        return type(value)([_placed(one, numbers) for one in value])
    if type(value) is dict:
        return {key: _placed(one, numbers) for key, one in value.items()}
    return value


def _filled(value: object, values: Sequence[object]) -> object:
    if isinstance(value, _Place):
        return values[value.number]
    if type(value) is list or type(value) is tuple:
        return type(value)([_filled(one, values) for one in value])
    if type(value) is dict:
        return {key: _filled(one, values) for key, one in value.items()}
    return value


def tileables_in(value: object) -> list[Tileable]:
    """The tensors and frames among arguments, each once."""
    found: dict[int, Tileable] = {}

    def look(one: object) -> None:
        if isinstance(one, Tileable):
            found[id(one)] = one
        elif type(one) is list or type(one) is tuple:
            for part in one:
                look(part)
        elif type(one) is dict:
            for part in one.values():
                look(part)

    look(value)
    return list(found.values())


def unpacked(made: Executable[object]) -> object:
    """A result of `at_once`; several results as tensors, each by itself."""
    if isinstance(made, Tileable):
        return made
    return as_tileables(made.fetch())


def as_tileables(value: object) -> object:
    """Arrays and frames as tensors and frames, also within lists and tuples."""
    import numpy
    import pandas

    if isinstance(value, (tuple, list)):
        return (
            type(value)(map(as_tileables, value))
            if (type(value) is list or type(value) is tuple)
            else value
        )
    if isinstance(value, (numpy.ndarray, numpy.number)) and not value.dtype.hasobject:
        from mars.tensor import find

        return find.call("tensor", value)
    if isinstance(value, (pandas.DataFrame, pandas.Series)):
        from mars.dataframe.joining import of_pandas

        return of_pandas(value, None)
    return value


def done(value: object) -> object:
    """A value that is here, as what a program can execute and fetch."""
    import numpy

    if type(value) is tuple:
        parts = [done(one) for one in value]
        if any(one is None for one in parts):
            return tuple(parts)
        return ExecutableTuple(parts)
    if isinstance(value, Tileable):
        return value
    if isinstance(value, (int, float, numpy.ndarray, numpy.generic)):
        return kind_named("Array").of_value(value)
    return Written(value) if isinstance(value, str) else value


__all__ = ["Filled", "as_tileables", "names_of", "of_class", "of_function", "tileables_in"]
