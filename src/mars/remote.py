"""What programs import: `spawn`, `map`, `put`, `run_script`, `rng`, and the objects for results.

This module holds the public names and `rng`, nothing else. What is behind the names is in
`mars.calls`: `spawn` describes calls, `objects` stand for their results, and `executable` has what
all these objects can do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mars.attempt import context
from mars.calls.executable import Executable
from mars.calls.maps import ItemCall
from mars.calls.objects import ExecutableTuple, MapObjects, Object
from mars.calls.put import put
from mars.calls.spawn import map, run_script, spawn, wrappers  # noqa: A004 (it is mars.remote.map)
from mars.config import options as program_options
from mars.engine import Run

if TYPE_CHECKING:
    from mars.calls.completed import as_completed
    from mars.completion import Completed
    from mars.execution import Counts, Execution
else:
    # They are imported late because they need `concurrent.futures`, see `mars.errors`.
    _LATE = {
        "Completed": "completion",
        "Counts": "execution",
        "Execution": "execution",
        "as_completed": "calls.completed",
    }

    def __getattr__(name: str) -> object:
        home = _LATE.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(f"mars.{home}"), name)


def _tensor(one: Object[Any]) -> Any:
    from mars.tensor.core import Tensor

    return Tensor(objects=[one])


def _frame(one: Object[Any]) -> Any:
    from mars.dataframe.core import DataFrame

    return DataFrame(objects=[one])


def _series(one: Object[Any]) -> Any:
    from mars.dataframe.core import Series

    return Series(objects=[one])


wrappers.update(tensor=_tensor, dataframe=_frame, series=_series, df_or_series=_frame)


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


__all__ = [
    "Completed", "Counts", "Executable", "Execution", "ExecutableTuple", "ItemCall", "MapObjects",
    "Object", "Run", "as_completed", "map", "put", "rng", "run_script", "spawn",
]  # fmt: skip
