"""Elements at several index arrays, and at masks of several axes.

`dask.array` takes one index array, or a mask of the whole array. Here the rest: one call gets the
whole array and picks, as numpy does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from mars.tensor.calling import ndim_of, whole

if TYPE_CHECKING:
    from dask.array import Array


def picked(lazy: Array, items: tuple[object, ...]) -> Array:
    """What numpy gives for an index with several arrays in it."""
    import dask.array as da

    if len(items) == 1 and isinstance(items[0], da.Array) and items[0].ndim == lazy.ndim:
        return lazy[items[0]]
    return whole(_pick, (lazy, list(items)), {}, _ndim(items, lazy.ndim), lazy.dtype)


class Elements(Protocol):
    """An array of numpy, whatever it is asked for."""

    def __getitem__(self, index: object) -> object: ...
    def __setitem__(self, index: object, value: object) -> None: ...
    def copy(self, *, order: str) -> Self: ...


def _pick(array: Elements, items: list[object]) -> object:
    import numpy

    return array[tuple(numpy.asarray(one) if isinstance(one, list) else one for one in items)]


def put(lazy: Array, index: object, value: object) -> Array:
    """An array with elements set at an index, by one call that gets the whole array."""
    import dask
    import dask.array as da

    made = dask.delayed(_put, pure=True)(lazy, index, value)
    return da.from_delayed(made, lazy.shape, dtype=lazy.dtype).rechunk(lazy.chunks)


def _put(array: Elements, index: object, value: object) -> Elements:
    made = array.copy(order="K")
    made[index] = value
    return made


def _ndim(items: tuple[object, ...], ndim: int) -> int:
    """How many axes numpy's result has."""
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
            used, arrays = used + ndim_of(one), [*arrays, 1]
        elif isinstance(one, list) or hasattr(one, "ndim"):
            used, arrays = used + 1, [*arrays, ndim_of(one)]
        else:
            used, arrays = used + 1, [*arrays, 0]
    return result + (ndim - used) + max(arrays, default=0)


__all__ = ["picked", "put"]
