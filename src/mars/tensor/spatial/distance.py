"""Distances between the rows of tensors, as of `scipy.spatial.distance`.

`cdist` is computed for each pair of chunks of rows. `pdist` and `squareform` run as one call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from mars.tensor.calling import lowered, ndim_of, whole
from mars.tensor.core import Tensor, tensor_of


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
    func = functools.partial(_between, metric, kwargs)
    return tensor_of(
        da.blockwise(
            func, "ij", one.rechunk({1: -1}), "ik", two.rechunk({1: -1}), "jk",
            concatenate=True, dtype=numpy.float64,
        )
    )  # fmt: skip


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
    run = functools.partial(func, **kwargs)
    return tensor_of(whole(run, (da.asarray(lowered(a)), *args), {}, ndim, numpy.float64))


__all__ = ["cdist", "pdist", "squareform"]
