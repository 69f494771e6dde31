"""Elements at several index arrays, and at masks of several axes.

`dask.array` takes one index array, or a mask of the whole array. Here the rest: one call gets the
whole array and picks, as numpy does.
"""

from __future__ import annotations

from typing import Any


def picked(lazy: Any, items: tuple[Any, ...]) -> Any:
    """What numpy gives for an index with several arrays in it."""
    import dask.array as da
    import numpy

    if len(items) == 1 and isinstance(items[0], da.Array) and items[0].ndim == lazy.ndim:
        return lazy[items[0]]
    from mars.tensor.calling import whole

    small = numpy.empty((0,) * lazy.ndim)
    ndim = _ndim(items, lazy.ndim)
    del small
    return whole(_pick, (lazy, list(items)), {}, ndim, lazy.dtype)


def _pick(array: Any, items: list[Any]) -> Any:
    import numpy

    return array[tuple(numpy.asarray(one) if isinstance(one, list) else one for one in items)]


def put(lazy: Any, index: Any, value: Any) -> Any:
    """An array with elements set at an index, by one call that gets the whole array."""
    import dask
    import dask.array as da

    made = dask.delayed(_put, pure=True)(lazy, index, value)
    return da.from_delayed(made, lazy.shape, dtype=lazy.dtype).rechunk(lazy.chunks)


def _put(array: Any, index: Any, value: Any) -> Any:
    made = array.copy(order="K")
    made[index] = value
    return made


def _ndim(items: tuple[Any, ...], ndim: int) -> int:
    """How many axes numpy's result has."""
    import numpy

    arrays: list[int] = []
    used = result = 0
    for one in items:
        if one is None:
            result += 1
        elif one is Ellipsis:
            continue
        elif isinstance(one, slice):
            used, result = used + 1, result + 1
        elif getattr(getattr(one, "dtype", None), "kind", "") == "b":
            used, arrays = used + one.ndim, [*arrays, 1]
        elif isinstance(one, list) or hasattr(one, "ndim"):
            used, arrays = used + 1, [*arrays, numpy.ndim(one)]
        else:
            used, arrays = used + 1, [*arrays, 0]
    return result + (ndim - used) + max(arrays, default=0)


__all__ = ["picked", "put"]
