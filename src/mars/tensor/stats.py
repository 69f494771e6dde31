"""Statistical tests on tensors: ``mt.stats.ttest_ind(a, b)``, as of `scipy.stats`.

Some are computed in chunks by `dask.array.stats`. The others run as one call on whole arrays:
``statistic, pvalue = mt.stats.ks_2samp(a, b).execute().fetch()``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mars.tensor.calling import lowered, placed, whole

if TYPE_CHECKING:
    from numpy import ndarray


IN_CHUNKS: Final = frozenset(
    [
        "chisquare", "f_oneway", "kurtosis", "kurtosistest", "moment", "normaltest",
        "power_divergence", "skew", "skewtest", "ttest_1samp", "ttest_ind", "ttest_rel",
    ]
)  # fmt: skip


IN_TWO: Final = frozenset(
    [
        "chisquare", "ks_1samp", "ks_2samp", "kstest", "power_divergence", "ttest_1samp",
        "ttest_ind", "ttest_ind_from_stats", "ttest_rel",
    ]
)  # fmt: skip
"""Tests whose results are a statistic and a p-value."""


class Tested(NamedTuple):
    """The result of a test."""

    statistic: object
    pvalue: object


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from scipy import stats

    func = getattr(stats, name, None)
    if func is None:
        if name == "entropy":
            return None
        raise AttributeError(f"module 'mars.tensor.stats' has no attribute {name!r}")

    def call(*args: object, **kwargs: object) -> object:
        import dask.array as da
        import numpy

        from mars.calls.objects import ExecutableTuple

        given = [lowered(one) for one in args]
        made = _in_chunks(name, given, kwargs) if name in IN_CHUNKS else None
        if made is not None:
            if isinstance(made, tuple):
                parts = [
                    placed(da.asarray(one))
                    if isinstance(one, da.Array)
                    else placed(_from_delayed(one))
                    for one in made
                ]
                return ExecutableTuple(Tested(*parts) if name in IN_TWO else parts)
            return placed(made)
        found = whole(_Run(func), given, kwargs, 1, numpy.float64)
        if name not in IN_TWO:
            return placed(found)
        found._chunks = ((2,),)
        return ExecutableTuple(Tested(placed(found[0]), placed(found[1])))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = func.__doc__
    return call


def _in_chunks(name: str, given: list[object], kwargs: dict[str, object]) -> object:
    """What Dask makes of it. None: it refuses, and scipy's function has to see whole arrays."""
    import dask.array as da
    import dask.array.stats as in_chunks

    arrays = [da.asarray(one) if hasattr(one, "__len__") else one for one in given]
    try:
        made = getattr(in_chunks, name)(*arrays, **kwargs)
    except (NotImplementedError, TypeError, ValueError):
        return None
    delayed = hasattr(made, "compute") and not isinstance(made, da.Array)
    return (made[0], made[1]) if delayed else made


def _from_delayed(value: object) -> object:
    import dask.array as da
    import numpy
    from dask.delayed import Delayed

    if isinstance(value, Delayed):
        return da.from_delayed(value, (), dtype=numpy.float64)
    return da.asarray(value)


class _Run:
    """A function whose results become one array."""

    def __init__(self, func: Callable[..., object]) -> None:
        self._func = func

    def __call__(self, *args: object, **kwargs: object) -> object:
        import numpy

        made: ndarray = numpy.asarray(self._func(*args, **kwargs), dtype=numpy.float64)
        return made


def __dir__() -> list[str]:
    from scipy import stats

    return sorted(name for name in dir(stats) if not name.startswith("_"))
