"""Distances between the rows of tensors, as of `scipy.spatial.distance`.

`cdist` is computed for each pair of chunks of rows. `pdist` and `squareform` run as one call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mars.tensor.calling import fetched, lowered, ndim_of, placed, whole
from mars.tensor.core import Tensor

if TYPE_CHECKING:
    from dask.array import Array


def cdist(a: object, b: object, metric: object = "euclidean", **kwargs: object) -> Tensor:
    """The distance of each row of one tensor from each row of another one.

    Parameters
    ----------
    a, b : Tensor or array_like
        Matrices with the same number of columns.
    metric : str or callable, default "euclidean"
        As of `scipy.spatial.distance.cdist`.
    **kwargs
        Further arguments of the metric.

    Raises
    ------
    ValueError
        One of them has not two axes, or their columns differ in number.
    """
    import dask.array as da
    import numpy

    one, two = (da.asarray(lowered(given)) for given in (a, b))
    for letter, given in (("A", one), ("B", two)):
        if given.ndim != 2:
            raise ValueError(f"X{letter} must be a 2-dimensional array.")
    if one.shape[1] != two.shape[1]:
        raise ValueError("XA and XB must have the same number of columns")
    out = kwargs.pop("out", None)
    func = functools.partial(_between, metric, {key: fetched(v) for key, v in kwargs.items()})
    if metric in _OF_ALL_ROWS and kwargs.keys().isdisjoint({"V", "VI"}):
        made = whole(func, (one, two), {}, 2, numpy.float64)
        made._chunks = tuple((given.shape[0],) for given in (one, two))
        return _placed(made, out)
    made = da.blockwise(
        func, "ij", one.rechunk({1: -1}), "ik", two.rechunk({1: -1}), "jk",
        concatenate=True, dtype=numpy.float64,
    )  # fmt: skip
    return _placed(made, out)


_OF_ALL_ROWS: Final = frozenset({"mahalanobis", "seuclidean"})
"""Metrics for which scipy computes variances of all rows, unless they are given."""


def _placed(made: Array, out: object) -> Tensor:
    found = placed(made, out)
    if not isinstance(found, Tensor):
        raise TypeError(f"distances are a tensor, not {found!r}")
    return found


def _between(metric: object, kwargs: dict[str, object], one: object, two: object) -> object:
    from scipy.spatial.distance import cdist as of_scipy

    return of_scipy(one, two, metric, **kwargs)


def pdist(a: object, metric: object = "euclidean", **kwargs: object) -> Tensor:
    """The distances between all pairs of rows, in one axis."""
    kwargs.pop("aggregate_size", None)
    return _by_scipy("pdist", a, (metric,), kwargs)


def squareform(a: object, force: str = "no", checks: bool = True, **_: object) -> Tensor:
    """A matrix of distances made of those of all pairs, or the other way round."""
    return _by_scipy("squareform", a, (), {"force": force, "checks": False}, 3 - _ndim(a))


def _ndim(a: object) -> int:
    return int(getattr(a, "ndim", None) or ndim_of(a))


def _by_scipy(
    name: str, a: object, args: tuple[object, ...], kwargs: dict[str, object], ndim: int = 1
) -> Tensor:
    import dask.array as da
    import numpy
    from scipy.spatial import distance

    func: Callable[..., object] = getattr(distance, name)
    out = kwargs.pop("out", None)
    run = functools.partial(func, **{key: fetched(one) for key, one in kwargs.items()})
    return _placed(whole(run, (da.asarray(lowered(a)), *args), {}, ndim, numpy.float64), out)


__all__ = ["cdist", "pdist", "squareform"]
