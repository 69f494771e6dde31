"""The order of elements along an axis: sorted, partitioned, the largest ones, and their indices.

Each chunk gets all of the axis, but for `sort` of one axis, which is done in parallel by samples,
and the largest ones without indices, which Dask combines chunk by chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from mars.tensor.calling import fetched
from mars.tensor.creation import tensor

if TYPE_CHECKING:
    from dask.array import Array
    from numpy import ndarray
    from numpy.typing import DTypeLike

    Fields = str | Sequence[str] | None
    Kind = Literal["quicksort", "mergesort", "heapsort", "stable"] | None


def _prepared(a: object, axis: int | None) -> tuple[Array, int]:
    """An array of Dask and an axis of it that is not negative."""
    from numpy.exceptions import AxisError

    given = tensor(a)
    if axis is None:
        return given.ravel(), 0
    if not -given.ndim <= axis < max(1, given.ndim):
        raise AxisError(axis, given.ndim)
    return given, axis % max(1, given.ndim)


def _along(
    func: Callable[..., ndarray], given: Array, axis: int, dtype: DTypeLike,
    count: float | None = None,
) -> Array:  # fmt: skip
    """A function of numpy along one axis, with all of the axis in each chunk."""
    ready = given.rechunk({axis: -1})
    chunks: tuple[object, ...] = ready.chunks
    if count is not None:
        chunks = (*chunks[:axis], (count,), *chunks[axis + 1 :])
    return ready.map_blocks(functools.partial(func, axis=axis), dtype=dtype, chunks=chunks)


def sort(
    a: object, axis: int | None = -1, kind: Kind = None, order: Fields = None,
    return_index: bool = False, **_: object,
) -> Array | tuple[Array, Array]:  # fmt: skip
    """The elements sorted along an axis.

    Parameters
    ----------
    a : Tensor or array_like
        The elements.
    axis : int or None, default -1
        Which axis; None: all elements in one.
    kind, order : optional
        As of `numpy.sort`.
    return_index : bool, default False
        Whether the indices that sort are wanted, too.
    **_
        Arguments of the original that say how it is done in parallel.
    """
    import numpy

    given, axis = _prepared(a, axis)
    if return_index:
        places = argsort(given, axis, kind, order)
        return _picked(given, places, axis), places
    if given.ndim == 1 and given.numblocks[0] > 1 and order is None and given.dtype.kind != "V":
        from mars.tensor.sorting import sorted_by_samples

        return sorted_by_samples(given)
    return _along(functools.partial(numpy.sort, kind=kind, order=order), given, axis, given.dtype)


def argsort(
    a: object, axis: int | None = -1, kind: Kind = None, order: Fields = None, **_: object
) -> Array:
    """The indices that sort along an axis; see `sort`."""
    import numpy

    given, axis = _prepared(a, axis)
    return _along(functools.partial(numpy.argsort, kind=kind, order=order), given, axis, numpy.intp)


def partition(
    a: object, kth: object, axis: int | None = -1, kind: Kind = None, order: Fields = None,
    return_index: bool = False, **_: object,
) -> Array | tuple[Array, Array]:  # fmt: skip
    """The elements partitioned along an axis, as `numpy.partition` does it; see `sort`."""
    import numpy

    given, axis = _prepared(a, axis)
    if return_index:
        places = argpartition(given, kth, axis, kind, order)
        return _picked(given, places, axis), places
    func = functools.partial(_split_at, numpy.partition, fetched(kth), order)
    return _along(func, given, axis, given.dtype)


def argpartition(
    a: object,
    kth: object,
    axis: int | None = -1,
    kind: Kind = None,
    order: Fields = None,
    **_: object,
) -> Array:
    """The indices that partition along an axis; see `sort`."""
    import numpy

    given, axis = _prepared(a, axis)
    func = functools.partial(_split_at, numpy.argpartition, fetched(kth), order)
    return _along(func, given, axis, numpy.intp)


def _split_at(
    func: Callable[..., ndarray], kth: object, order: Fields, a: ndarray, axis: int
) -> ndarray:
    return func(a, kth, axis=axis, order=order)


def topk(
    a: object, k: int, axis: int | None = -1, largest: bool = True,
    sorted: bool = True,  # noqa: A002  as in the original
    order: Fields = None, return_index: bool = False, **_: object,
) -> Array | tuple[Array, Array]:  # fmt: skip
    """The largest elements along an axis.

    Parameters
    ----------
    a : Tensor or array_like
        The elements.
    k : int
        How many. A negative number asks for the smallest ones.
    axis : int or None, default -1
        Which axis; None: all elements in one.
    largest : bool, default True
        False: the smallest ones.
    sorted : bool, default True
        Accepted for programs of the original: the result is always sorted, with the largest first
        (the smallest first if ``largest`` is False).
    order : str or list of str, optional
        The fields of structured elements to compare by.
    return_index : bool, default False
        Whether their indices are wanted, too.
    **_
        Arguments of the original that say how it is done in parallel.
    """
    import dask.array as da

    given, axis = _prepared(a, axis)
    if k < 0:
        k, largest = -k, False
    plain = not return_index and order is None and given.dtype.kind in "biuf"
    if largest and plain and k <= given.shape[axis]:
        return da.topk(given, k, axis=axis)
    places = argtopk(given, k, axis, largest, order=order)
    made = _picked(given, places, axis)
    return (made, places) if return_index else made


def argtopk(
    a: object, k: int, axis: int | None = -1, largest: bool = True,
    sorted: bool = True,  # noqa: A002  as in the original
    order: Fields = None, **_: object,
) -> Array:  # fmt: skip
    """The indices of the largest elements along an axis; see `topk`."""
    import numpy

    given, axis = _prepared(a, axis)
    if k < 0:
        k, largest = -k, False
    length = given.shape[axis]
    count = min(k, length) if length == length else numpy.nan
    return _along(functools.partial(_first, k, largest, order), given, axis, numpy.intp, count)


def _first(k: int, largest: bool, order: Fields, a: ndarray, axis: int) -> ndarray:
    import numpy

    places: ndarray = numpy.argsort(a, axis=axis, order=order)
    if largest:
        places = numpy.flip(places, axis)
    return places[(slice(None),) * axis + (slice(k),)]


def _picked(given: Array, places: Array, axis: int) -> Array:
    """Elements at places along an axis, all of which each chunk has."""
    import dask.array as da
    import numpy

    return da.map_blocks(
        functools.partial(numpy.take_along_axis, axis=axis), given.rechunk({axis: -1}), places,
        dtype=given.dtype, chunks=places.chunks,
    )  # fmt: skip


__all__ = ["argpartition", "argsort", "argtopk", "partition", "sort", "topk"]
