"""Functions of `mars.tensor` that make tensors: of values, of a number, or of a rule.

They take ``chunk_size``, and give arrays of Dask, which `mars.tensor.calling` makes tensors of. The
functions of `own` begin with `tensor`, too: it makes an array of Dask of whatever they are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypedDict, Unpack

from mars.tensor.calling import chunks_for, fetched, in_order, lowered, ndim_of
from mars.tileables.tileable import Tileable

if TYPE_CHECKING:
    from dask.array import Array
    from numpy import dtype, ndarray
    from numpy.typing import DTypeLike


class Making(TypedDict, total=False):
    """Further arguments of `tensor`."""

    chunk_size: object
    copy: bool
    ndmin: int


def tensor(
    data: object = None, dtype: DTypeLike | None = None, order: str = "K",
    chunk_size: object = None, copy: bool = True, ndmin: int = 0,
) -> Array:  # fmt: skip
    """A tensor of an array, of nested lists, of a frame, or of tensors.

    Parameters
    ----------
    data : array_like, Tensor or list of Tensor
        The elements. An array is taken as it is when it is executed.
    dtype : dtype, optional
        Default: that of ``data``.
    order : str, default "K"
        "F": by columns in memory, "C": by rows, else as ``data``.
    chunk_size : int, tuple or dict, optional
        The lengths of chunks: one for all axes, one for each axis, or by axis. Default: chunks of
        32 MiB.
    copy : bool, default True
        Accepted for programs of numpy.
    ndmin : int, default 0
        How many axes it has at least; axes of length 1 are put before the others.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import mars.tensor as mt
    >>> mt.tensor([[1, 2], [3, 4]], chunk_size=1).sum(axis=0).execute().fetch()
    array([4, 6])
    """
    import dask.array as da
    import numpy

    if isinstance(data, Tileable) and not isinstance(lowered(data), da.Array):
        data = lowered(data)
    made: object
    given = lowered(data)
    if (type(given) is list or type(given) is tuple) and _holds_tensors(given):
        given = _stacked(given)
    if isinstance(given, da.Array):
        made = given if dtype is None else given.astype(dtype)
        made = made[(None,) * (ndmin - made.ndim)] if made.ndim < ndmin else made
        return in_order(made if chunk_size is None else made.rechunk(chunk_size), order)
    if hasattr(given, "toarray"):
        raise NotImplementedError("sparse tensors are not there; use dense ones: x.toarray()")
    array = numpy.array(given, dtype=dtype, ndmin=ndmin, copy=None)
    made = da.from_array(array, chunks=chunks_for(array.shape, array.dtype, chunk_size))
    by_columns = array.flags.f_contiguous and not array.flags.c_contiguous
    return in_order(made, "F" if order in ("K", "A") and by_columns else order)


def _holds_tensors(value: object) -> bool:
    import dask.array as da

    if type(value) is list or type(value) is tuple:
        return any(map(_holds_tensors, value))
    return isinstance(value, da.Array)


def _stacked(value: object) -> Array:
    import dask.array as da

    if type(value) is list or type(value) is tuple:
        return da.stack([_stacked(one) for one in value])
    return da.asarray(value)


array = asarray = tensor


def ascontiguousarray(a: object, dtype: DTypeLike | None = None, **kwargs: Unpack[Making]) -> Array:
    """A tensor whose chunks are by rows in memory."""
    return tensor(a, dtype, order="C", **kwargs)


def asfortranarray(a: object, dtype: DTypeLike | None = None, **kwargs: Unpack[Making]) -> Array:
    """A tensor whose chunks are by columns in memory."""
    return tensor(a, dtype, order="F", **kwargs)


def scalar(data: object, dtype: DTypeLike | None = None, **_: object) -> Array:
    """A tensor of one number."""
    made = tensor(data, dtype)
    if made.ndim:
        raise TypeError(f"scalar takes one number, got an array of shape {made.shape}")
    return made


def _filled(
    name: str,
    shape: int | Iterable[int],
    dtype: DTypeLike | None,
    chunk_size: object,
    *args: object,
) -> Array:
    import dask.array as da

    given = lengths_of(shape)
    kind = float if dtype is None else dtype
    chunks = chunks_for(given, kind, chunk_size)
    made: Array = getattr(da, name)(given, *args, dtype=kind, chunks=chunks)
    return made


def lengths_of(shape: int | Iterable[int]) -> tuple[int, ...]:
    """A shape as a tuple; a number is the length of the only axis."""
    return tuple(shape) if isinstance(shape, Iterable) else (shape,)


def ones(
    shape: int | Iterable[int],
    dtype: DTypeLike | None = None,
    chunk_size: object = None,
    order: str = "C",
) -> Array:
    """A tensor of ones; see `tensor` for ``chunk_size``."""
    return in_order(_filled("ones", shape, dtype, chunk_size), order)


def zeros(
    shape: int | Iterable[int],
    dtype: DTypeLike | None = None,
    chunk_size: object = None,
    order: str = "C",
) -> Array:
    """A tensor of zeros; see `tensor` for ``chunk_size``."""
    return in_order(_filled("zeros", shape, dtype, chunk_size), order)


def empty(
    shape: int | Iterable[int],
    dtype: DTypeLike | None = None,
    chunk_size: object = None,
    order: str = "C",
) -> Array:
    """A tensor whose elements are not set; see `tensor` for ``chunk_size``."""
    return in_order(_filled("empty", shape, dtype, chunk_size), order)


def full(
    shape: int | Iterable[int],
    fill_value: object,
    dtype: DTypeLike | None = None,
    chunk_size: object = None,
    order: str = "C",
) -> Array:
    """A tensor of one value; see `tensor` for ``chunk_size``."""
    import dask.array as da
    import numpy

    value = lowered(fill_value)
    kind = numpy.asarray(value).dtype if dtype is None else dtype
    if ndim_of(value):
        given = lengths_of(shape)
        made = da.broadcast_to(da.asarray(value), given)
        made = made.rechunk(chunks_for(given, kind, chunk_size))
        return in_order(made.astype(kind), order)
    return in_order(_filled("full", shape, kind, chunk_size, value), order)


def arange(
    *args: object, dtype: DTypeLike | None = None, chunk_size: object = None, **kwargs: object
) -> Array:
    """Numbers or dates in equal steps, as of `numpy.arange`; see `tensor` for ``chunk_size``.

    Numbers are made in their chunks. Dates are made in the program.
    """
    import dask.array as da
    import numpy

    given = [fetched(one) for one in args]
    named: dict[str, float] = {
        name: fetched(kwargs.pop(name)) for name in ("start", "stop", "step") if name in kwargs
    }
    if all(isinstance(one, (bool, int, float, numpy.integer, numpy.floating))
           for one in (*given, *named.values()) if one is not None):  # fmt: skip
        small = numpy.arange(0, dtype=dtype).dtype if dtype is not None else numpy.dtype("i8")
        if small.kind in "iufb":
            start, stop, step = _range_of(given, named)
            count = max(0, math.ceil((stop - start) / step))
            chunks = chunks_for((count,), small, chunk_size)
            return da.arange(start, stop, step, chunks=chunks, dtype=dtype)
    make: Callable[..., ndarray] = numpy.arange
    array = make(*given, dtype=dtype, **named)
    return da.from_array(array, chunks=chunks_for(array.shape, array.dtype, chunk_size))


def _range_of(given: list[float], named: Mapping[str, float]) -> tuple[float, float, float]:
    first: list[float | None] = [*given, None, None, None]
    start, stop, step = first[:3]
    if len(given) == 1 and "stop" not in named and "start" not in named:
        start, stop = 0, start
    start = named.get("start", start)
    stop, step = named.get("stop", stop), named.get("step", step)
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    if not step:
        raise ZeroDivisionError("arange() needs a step that is not 0")
    return 0 if start is None else start, stop, step


def linspace(
    start: object, stop: object, num: int = 50, endpoint: bool = True, retstep: bool = False,
    dtype: DTypeLike | None = None, chunk_size: object = None,
) -> Array | tuple[Array, ndarray]:  # fmt: skip
    """Numbers in equal distances, as of `numpy.linspace`; see `tensor` for ``chunk_size``."""
    import dask.array as da
    import numpy

    first, last = fetched(start), fetched(stop)
    if numpy.ndim(first) or numpy.ndim(last) or num < 2:
        array, step = numpy.linspace(first, last, num, endpoint, retstep=True, dtype=dtype)
        made = da.from_array(array, chunks=chunks_for(array.shape, array.dtype, chunk_size))
    else:
        step = (last - first) / (num - 1 if endpoint else num)
        kind = numpy.dtype(numpy.result_type(first, last, float) if dtype is None else dtype)
        places = da.arange(num, chunks=chunks_for((num,), kind, chunk_size))
        end = (num - 1, last) if endpoint else None
        made = places.map_blocks(_spaced, first, step, end, kind, dtype=kind)
    return (made, numpy.asarray(step)) if retstep else made


def _spaced(
    places: ndarray, start: float, step: float, end: tuple[int, float] | None, kind: dtype
) -> ndarray:
    import numpy

    made: ndarray = places * step + start
    if end is not None:
        made[places == end[0]] = end[1]
    if numpy.issubdtype(kind, numpy.integer):
        made = numpy.floor(made)
    return made.astype(kind, copy=False)


def eye(
    N: int,  # noqa: N803  as numpy's
    M: int | None = None,  # noqa: N803  as numpy's
    k: int = 0, dtype: DTypeLike | None = None, chunk_size: object = None, order: str = "C",
) -> Array:  # fmt: skip
    """A matrix with ones on a diagonal; see `tensor` for ``chunk_size``."""
    import dask.array as da

    kind = float if dtype is None else dtype
    shape = (N, N if M is None else M)
    if not N:
        return zeros(shape, kind, chunk_size, order)  # by this length Dask divides
    chunks = chunks_for(shape, kind, chunk_size)
    made = da.eye(N, chunks=max(1, *chunks[0]), M=shape[1], k=k, dtype=kind)
    return in_order(made if made.chunks == chunks else made.rechunk(chunks), order)


def identity(n: int, dtype: DTypeLike | None = None, chunk_size: object = None) -> Array:
    """The identity matrix."""
    import dask.array as da

    kind = float if dtype is None else dtype
    return da.eye(n, chunks=chunks_for((n, n), kind, chunk_size)[0][0], dtype=kind)


def diagflat(v: object, k: int = 0, chunk_size: object = None) -> Array:
    """A matrix with the elements on its diagonal."""
    import dask.array as da

    return da.diag(tensor(v, chunk_size=chunk_size).ravel(), k)


__all__ = [
    "arange", "array", "asarray", "ascontiguousarray", "asfortranarray", "diagflat", "empty",
    "eye", "full", "identity", "lengths_of", "linspace", "ones", "scalar", "tensor", "zeros",
]  # fmt: skip
