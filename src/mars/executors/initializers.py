"""Has the initializer of an executor called in its workers. Called by `mars.executors.executor`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import ClassVar, Final

from mars.attempt import codec
from mars.code import functions
from mars.code.origin import is_project_module
from mars.task import Function

_HERE: Final = os.urandom(8).hex()


class Preparing:
    """Has an initializer called in each worker before the calls of an executor."""

    _numbers: ClassVar[Iterator[int]] = itertools.count(1)

    def __init__(self, initializer: Callable[..., object], initargs: tuple[object, ...]) -> None:
        self._token = f"{_HERE}-{os.getpid()}-{next(self._numbers)}"
        self._initializer, self._initargs = initializer, initargs
        home = getattr(initializer, "__module__", None) or "__main__"
        self._once = home != "__main__" and not is_project_module(home)
        self._known: dict[bytes, Function] = {}  # by the key of the function alone

    def described(self, fn: Callable[..., object], alone: Function) -> Function:
        """A function with the initializer in front of it. Each of them is pickled once."""
        known = self._known.get(alone.key)
        if known is None:
            whole = _Prepared(self._token, self._once, self._initializer, self._initargs, fn)
            made = functions.describe(whole, codec.Keep)
            known = Function(made.key, alone.name, made.data, made.buffers)
            known.packages, known.origin = made.packages, made.origin
            self._known[alone.key] = known
        return known


_initialized: set[str] = set()
"""The executors whose initializer has been called in this process, for all functions."""


class _Prepared:
    """A function of an executor with an initializer, as a worker gets it.

    Functions of the program have modules of their own in a worker. If the initializer is one of
    them, what it sets in such a module is there for this function only. So it is called once in
    each worker for each function. An initializer of an installed package is called once.
    """

    def __init__(
        self,
        token: str,
        once: bool,
        initializer: Callable[..., object],
        initargs: tuple[object, ...],
        fn: Callable[..., object],
    ) -> None:
        self._token, self._once = token, once
        self._initializer, self._initargs, self._fn = initializer, initargs, fn
        self._ready = False

    def __call__(self, *args: object, **kwargs: object) -> object:
        if not (self._ready or (self._once and self._token in _initialized)):
            try:
                self._initializer(*self._initargs)
            except BaseException as error:
                from mars.executors.lost import InitializerFailed

                raise InitializerFailed(f"{type(error).__name__}: {error}") from error
            self._ready = True
            _initialized.add(self._token)
        return self._fn(*args, **kwargs)


__all__ = ["Preparing"]
