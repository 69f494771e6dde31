"""What programs import: `spawn`, `map`, `put`, `run`, `rng`, and the objects for results.

This module holds the public names, `run` and `rng`, nothing else. What is behind the names is in
`mars.calls`: `spawn` describes calls, `objects` stand for their results, and `executable` has what
all these objects can do. The module can be called, too: ``@mars.remote`` is a decorator, see
`mars.calls.decorated`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from mars.attempt import context
from mars.calls.executable import Executable
from mars.calls.objects import ExecutableTuple, MapObjects, Object
from mars.calls.spawn import map, run_script, spawn  # noqa: A004 (it is mars.remote.map)
from mars.config import options as program_options
from mars.sessions.opening import execute, fetch, new_session
from mars.tracebacks import trim

if TYPE_CHECKING:
    from mars.calls.completed import as_completed
    from mars.calls.decorated import RemoteFunction
    from mars.calls.maps import ItemCall
    from mars.calls.put import put
    from mars.completion import Completed
    from mars.engine import Run
    from mars.execution import Counts, Execution
    from mars.sessions.urls import open as open  # noqa: A004, PLC0414 (not for ``import *``)
else:
    # They are imported late because a first result needs none of them, and most of them need
    # `concurrent.futures`, see `mars.errors`.
    _LATE = {
        "Completed": "completion",
        "Counts": "execution",
        "Execution": "execution",
        "ItemCall": "calls.maps",
        "RemoteFunction": "calls.decorated",
        "Run": "engine",
        "as_completed": "calls.completed",
        "open": "sessions.urls",
        "put": "calls.put",
    }

    def __getattr__(name: str) -> object:
        home = _LATE.get(name)
        if home is None:
            from mars.calls import mistakes

            raise AttributeError(mistakes.no_name(__name__, name))
        import importlib

        value = getattr(importlib.import_module(f"mars.{home}"), name)
        if name in __all__:  # the next look finds it; `open` would hide the builtin one here
            globals()[name] = value
        return value


R = TypeVar("R")


def run(func: Callable[..., R], /, *args: object, **kwargs: object) -> R:
    """Call a function in another process, wait for it, and return its value.

    Several calls run at the same time with `spawn` or `map`; this is one call.

    Parameters
    ----------
    func : callable
        As of `spawn`.
    *args, **kwargs
        Its arguments.

    Returns
    -------
    object
        What it returned.

    Raises
    ------
    EncodeError
        The function or an argument does not pickle (a TypeError).
    BaseException
        The call failed: its own error.

    Examples
    --------
    >>> run(max, 3, 5, key=abs)
    5
    """
    try:
        made = spawn(func, args, kwargs)
        value: R = made.execute().fetch()
    except BaseException as error:
        trim(error)
        raise
    return value


def rng() -> Any:
    """The random numbers of the running call.

    Returns
    -------
    numpy.random.Generator
        Its seed is made of the seed of the run and the place of the call among the calls of its
        session. So a program gets the same numbers on any number of workers, and no two calls share
        a stream. One call always gets the same generator. Outside of a call the seed is
        ``mars.options.seed``.

    Raises
    ------
    ModuleNotFoundError
        numpy is not installed.

    Examples
    --------
    >>> def throw() -> int:
    ...     return int(rng().integers(1, 7))
    >>> spawn(throw).execute().fetch() in range(1, 7)
    True
    """
    from mars.attempt.rng import generator

    attempt = context.current()
    if attempt is None:
        return generator(program_options.seed, ())
    if attempt.generator is None:
        attempt.generator = generator(attempt.entropy, attempt.place)
    return attempt.generator


def __dir__() -> list[str]:
    return sorted(__all__)


class _Remote(ModuleType):
    """What this module is when it is called: ``@mars.remote`` and ``@mars.remote(cpus=2)``."""

    def __call__(self, func: Callable[..., object] | None = None, /, **options: object) -> object:
        """Give a function the methods ``spawn``, ``map`` and ``run``; see `RemoteFunction`.

        Parameters
        ----------
        func : callable, optional
            The function. It stays what it is when it is called.
        **options
            Options of its calls, as of `spawn`.

        Returns
        -------
        RemoteFunction

        Raises
        ------
        TypeError, ValueError
            As of `spawn`.
        """
        from mars.calls.decorated import decorate

        return decorate(func, **options)


sys.modules[__name__].__class__ = _Remote

__all__ = [
    "Completed", "Counts", "Executable", "Execution", "ExecutableTuple", "ItemCall", "MapObjects",
    "Object", "RemoteFunction", "Run", "as_completed", "execute", "fetch", "map", "new_session",
    "put", "rng", "run", "run_script", "spawn",
]  # fmt: skip
