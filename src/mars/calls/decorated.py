"""Functions that are described by their name: ``@mars.remote`` before a ``def``.

A `RemoteFunction` is called as the function itself is, in the program's own process. Its methods
describe calls of it, as `mars.calls.spawn` does for any function. `mars.remote` makes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from mars.calls import mistakes
from mars.calls.objects import MapObjects, Object
from mars.calls.options import check_function, parse_options
from mars.calls.spawn import map as map_items
from mars.calls.spawn import spawn
from mars.tracebacks import trim

P = ParamSpec("P")
R = TypeVar("R")


class RemoteFunction(Generic[P, R]):
    """A function with methods that describe calls of it. ``@mars.remote`` makes it.

    To call it is to call the function, here and now. Type checkers do not know that a module such
    as ``mars.remote`` can be called; they take ``@mars.remote.RemoteFunction``, which is the same
    without options.

    Parameters
    ----------
    func : callable
        The function.
    **options
        Options of all its calls, as of `spawn`.

    Examples
    --------
    >>> import mars
    >>> @mars.remote(name="square")
    ... def squared(x: int) -> int:
    ...     return x * x
    >>> squared(3), squared.run(4)
    (9, 16)
    >>> squared.map([1, 2, 3]).execute().fetch()
    [1, 4, 9]
    """

    __module__ = "mars.remote"  # where programs find it

    __wrapped__: Callable[P, R]

    def __init__(self, func: Callable[P, R], /, **options: object) -> None:
        check_function(func)
        parse_options(
            {key: one for key, one in options.items() if key != "retry_when_fail"},
            unknown=lambda name: mistakes.unknown_keyword(name, options[name]),
        )
        functools.update_wrapper(self, func)
        self.__wrapped__ = func
        self._options = options

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__wrapped__(*args, **kwargs)

    def spawn(self, /, *args: object, **kwargs: object) -> Object[R]:
        """Describe a call with these arguments, to run later in another process.

        Parameters
        ----------
        *args, **kwargs
            Arguments of the function. An `Object` among them becomes an input.

        Returns
        -------
        Object
            As of `spawn`.
        """
        made: Object[R] = spawn(self.__wrapped__, args, kwargs, **self._options)  # type: ignore[call-overload]
        return made

    def map(self, /, *iterables: Iterable[object]) -> MapObjects[R]:
        """Describe one call for each item, as `map` does.

        Parameters
        ----------
        *iterables : iterable
            The function is called with one argument from each.

        Returns
        -------
        MapObjects
        """
        return map_items(self.__wrapped__, *iterables, **self._options)

    def run(self, /, *args: object, **kwargs: object) -> R:
        """Call the function in another process, and wait for its value.

        Parameters
        ----------
        *args, **kwargs
            Arguments of the function.

        Returns
        -------
        object
            What it returned.

        Raises
        ------
        BaseException
            The call failed: its own error.
        """
        try:
            value: R = self.spawn(*args, **kwargs).execute().fetch()
        except BaseException as error:
            trim(error)
            raise
        return value

    def options(self, **options: object) -> RemoteFunction[P, R]:
        """The same function with further options for its calls.

        Parameters
        ----------
        **options
            As of `spawn`. They count more than those of before.

        Returns
        -------
        RemoteFunction
            Another one; this one stays as it is.

        Raises
        ------
        TypeError, ValueError
            As of `spawn`.
        """
        return RemoteFunction(self.__wrapped__, **{**self._options, **options})

    def __get__(self, instance: object, owner: type | None = None) -> RemoteFunction[..., R]:
        """As a method, it is one of its object: ``model.fit.spawn(x)``."""
        if instance is None:
            return self
        return RemoteFunction(self.__wrapped__.__get__(instance, owner), **self._options)

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(RemoteFunction, **self._options), (self.__wrapped__,)

    if not TYPE_CHECKING:  # else a type checker would take any name for one that is there

        def __getattr__(self, name: str) -> object:
            from mars.calls import mistakes

            raise mistakes.missing(self, name)

    def __repr__(self) -> str:
        return f"<remote function {getattr(self, '__qualname__', repr(self.__wrapped__))}>"


def decorate(func: Callable[..., object] | None = None, /, **options: object) -> object:
    """``@mars.remote`` and ``@mars.remote(cpus=2)``."""
    if func is None:
        return functools.partial(decorate, **options)
    return RemoteFunction(func, **options)


__all__ = ["RemoteFunction", "decorate"]
