"""Functions of `mars.tensor` that `dask.array` lacks, or that the original spells otherwise.

They take and return arrays of Dask, or what `mars.tensor.calling` makes tensors of. The module is
long because it is a list of short functions that have nothing to do with each other.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from mars.tensor.calling import chunks_for, fetched, in_order, lowered, whole
from mars.tileables.tileable import Tileable, wrap


def tensor(
    data: Any = None, dtype: Any = None, order: str = "K", chunk_size: Any = None,
    copy: bool = True, ndmin: int = 0,
) -> Any:  # fmt: skip
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
    made: Any
    given = lowered(data)
    if type(given) in (list, tuple) and _holds_tensors(given):
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


def _holds_tensors(value: Any) -> bool:
    import dask.array as da

    if type(value) in (list, tuple):
        return any(map(_holds_tensors, value))
    return isinstance(value, da.Array)


def _stacked(value: Any) -> Any:
    import dask.array as da

    if type(value) in (list, tuple):
        return da.stack([_stacked(one) for one in value])
    return da.asarray(value)


array = asarray = tensor


def ascontiguousarray(a: Any, dtype: Any = None, **kwargs: Any) -> Any:
    """A tensor whose chunks are by rows in memory."""
    return tensor(a, dtype, order="C", **kwargs)


def asfortranarray(a: Any, dtype: Any = None, **kwargs: Any) -> Any:
    """A tensor whose chunks are by columns in memory."""
    return tensor(a, dtype, order="F", **kwargs)


def scalar(data: Any, dtype: Any = None, **_: Any) -> Any:
    """A tensor of one number."""
    import numpy

    made = tensor(data, dtype)
    if made.ndim:
        raise TypeError(f"scalar takes one number, got an array of shape {numpy.shape(data)}")
    return made


def _filled(name: str, shape: Any, dtype: Any, chunk_size: Any, *args: Any) -> Any:
    import dask.array as da

    given = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    kind = float if dtype is None else dtype
    return getattr(da, name)(given, *args, dtype=kind, chunks=chunks_for(given, kind, chunk_size))


def ones(shape: Any, dtype: Any = None, chunk_size: Any = None, order: str = "C") -> Any:
    """A tensor of ones; see `tensor` for ``chunk_size``."""
    return in_order(_filled("ones", shape, dtype, chunk_size), order)


def zeros(shape: Any, dtype: Any = None, chunk_size: Any = None, order: str = "C") -> Any:
    """A tensor of zeros; see `tensor` for ``chunk_size``."""
    return in_order(_filled("zeros", shape, dtype, chunk_size), order)


def empty(shape: Any, dtype: Any = None, chunk_size: Any = None, order: str = "C") -> Any:
    """A tensor whose elements are not set; see `tensor` for ``chunk_size``."""
    return in_order(_filled("empty", shape, dtype, chunk_size), order)


def full(
    shape: Any, fill_value: Any, dtype: Any = None, chunk_size: Any = None, order: str = "C"
) -> Any:
    """A tensor of one value; see `tensor` for ``chunk_size``."""
    import dask.array as da
    import numpy

    value = lowered(fill_value)
    kind = numpy.asarray(value).dtype if dtype is None else dtype
    if numpy.ndim(value):
        given = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
        made = da.broadcast_to(da.asarray(value), given, chunks_for(given, kind, chunk_size))
        return in_order(made.astype(kind), order)
    return in_order(_filled("full", shape, kind, chunk_size, value), order)


def arange(*args: Any, dtype: Any = None, chunk_size: Any = None, **kwargs: Any) -> Any:
    """Numbers or dates in equal steps, as of `numpy.arange`; see `tensor` for ``chunk_size``.

    Numbers are made in their chunks. Dates are made in the program.
    """
    import dask.array as da
    import numpy

    given = [fetched(one) for one in args]
    named: dict[str, Any] = {
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
    array = numpy.arange(*given, dtype=dtype, **named)
    return da.from_array(array, chunks=chunks_for(array.shape, array.dtype, chunk_size))


def _range_of(given: list[Any], named: dict[str, Any]) -> tuple[Any, Any, Any]:
    start, stop, step = (*given, None, None, None)[:3]
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
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False,
    dtype: Any = None, chunk_size: Any = None,
) -> Any:  # fmt: skip
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


def _spaced(places: Any, start: Any, step: Any, end: Any, kind: Any) -> Any:
    import numpy

    made = places * step + start
    if end is not None:
        made[places == end[0]] = end[1]
    if numpy.issubdtype(kind, numpy.integer):
        made = numpy.floor(made)
    return made.astype(kind, copy=False)


def eye(
    N: int,  # noqa: N803  as numpy's
    M: int | None = None,  # noqa: N803  as numpy's
    k: int = 0, dtype: object = None, chunk_size: object = None, order: str = "C",
) -> Any:  # fmt: skip
    """A matrix with ones on a diagonal; see `tensor` for ``chunk_size``."""
    import dask.array as da

    kind = float if dtype is None else dtype
    shape = (N, N if M is None else M)
    chunks = chunks_for(shape, kind, chunk_size)
    made = da.eye(N, chunks=max(1, *chunks[0]), M=shape[1], k=k, dtype=kind)
    return in_order(made if made.chunks == chunks else made.rechunk(chunks), order)


def identity(n: int, dtype: Any = None, chunk_size: Any = None) -> Any:
    """The identity matrix."""
    import dask.array as da

    kind = float if dtype is None else dtype
    return da.eye(n, chunks=chunks_for((n, n), kind, chunk_size)[0][0], dtype=kind)


def diagflat(v: Any, k: int = 0, chunk_size: Any = None) -> Any:
    """A matrix with the elements on its diagonal."""
    import dask.array as da

    return da.diag(tensor(v, chunk_size=chunk_size).ravel(), k)


def copy(a: Any, order: str = "K") -> Any:
    """Another tensor with the same elements."""
    return in_order(tensor(a).copy(), order)


def astype(x: Any, dtype: Any, copy: bool = True) -> Any:
    """The elements with another type."""
    return tensor(x).astype(dtype)


def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """Copy elements into a tensor, in place."""
    import dask.array as da
    import numpy

    if not isinstance(dst, Tileable):
        raise TypeError("copyto() needs a tensor to copy into")
    target, source = dst.lazy, da.asarray(lowered(src))
    if not numpy.can_cast(source.dtype, target.dtype, casting):
        raise TypeError(
            f"cannot copy elements of type {source.dtype} into {target.dtype} with {casting!r}"
        )
    new = da.where(lowered(where), da.broadcast_to(source, target.shape), target)
    dst.become(wrap(new.astype(target.dtype)))


def ravel(a: Any, order: str = "C") -> Any:
    """All elements in one axis; with ``order="F"`` column after column."""
    import dask.array as da

    given = tensor(a)
    return da.transpose(given).ravel() if order == "F" else given.ravel()


flatten = ravel


def reshape(a: Any, newshape: Any = None, order: str = "C", *, shape: Any = None) -> Any:
    """The elements in another shape."""
    import dask.array as da
    import numpy

    given, wanted = tensor(a), shape if newshape is None else newshape
    wanted = tuple(wanted) if hasattr(wanted, "__iter__") else (wanted,)
    if numpy.isnan(given.shape).any():
        return whole(functools.partial(numpy.reshape, shape=wanted, order=order), (given,), {},
                     len(wanted), given.dtype)  # fmt: skip
    if order == "F":
        return da.transpose(_reshaped(da.transpose(given), tuple(reversed(wanted))))
    return _reshaped(given, wanted)


def _reshaped(given: Any, wanted: tuple[Any, ...]) -> Any:
    try:
        return given.reshape(wanted)
    except NotImplementedError:  # Dask merges or splits axes, and this does both
        return given.ravel().reshape(wanted)


def resize(a: Any, new_shape: Any) -> Any:
    """The elements, repeated as often as needed, in another shape."""
    import dask.array as da
    import numpy

    flat, wanted = tensor(a).ravel(), int(numpy.prod(new_shape))
    times = -(-wanted // max(1, flat.shape[0]))
    return da.concatenate([flat] * times)[:wanted].reshape(new_shape)


def matrix_transpose(x: Any) -> Any:
    """The last two axes in the other order."""
    import dask.array as da

    return da.swapaxes(tensor(x), -1, -2)


def inner(a: Any, b: Any) -> Any:
    """The inner product of the last axes."""
    import dask.array as da

    one, two = tensor(a), tensor(b)
    if not one.ndim or not two.ndim:
        return one * two
    return da.tensordot(one, two, axes=(-1, -1))


innerproduct = inner


def array_equal(a1: Any, a2: Any) -> Any:
    """Whether two tensors have the same shape and elements."""
    import dask.array as da

    one, two = tensor(a1), tensor(a2)
    if one.shape != two.shape:
        return da.asarray(False)
    return (one == two).all()


def iscomplexobj(x: object) -> bool:
    """Whether its type is a complex one; nothing is executed for that."""
    import numpy

    return bool(numpy.issubdtype(tensor(x).dtype, numpy.complexfloating))


def isrealobj(x: object) -> bool:
    """Whether its type is not a complex one; nothing is executed for that."""
    return not iscomplexobj(x)


def isscalar(element: object) -> bool:
    """Whether it is a number and no array."""
    import numpy

    return bool(numpy.isscalar(element))


def in1d(ar1: Any, ar2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """Which elements of one tensor are in another one."""
    import dask.array as da

    return da.isin(tensor(ar1).ravel(), lowered(ar2), assume_unique=assume_unique, invert=invert)


def setdiff1d(ar1: Any, ar2: Any, assume_unique: bool = False) -> Any:
    """The elements of one tensor that are not in another one."""
    import numpy

    func = functools.partial(numpy.setdiff1d, assume_unique=assume_unique)
    first = tensor(ar1)
    return whole(func, (first, tensor(ar2)), {}, 1, first.dtype)


def unique(
    ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False,
    axis: int | None = None, **_: Any,
) -> Any:  # fmt: skip
    """The elements without repetitions, sorted."""
    import dask.array as da
    import numpy

    given = tensor(ar)
    several = return_index or return_inverse or return_counts
    if axis is None and not given.dtype.hasobject and given.size:
        return da.unique(given, return_index, return_inverse, return_counts)
    func = functools.partial(
        numpy.unique, axis=axis, return_index=return_index, return_inverse=return_inverse,
        return_counts=return_counts,
    )  # fmt: skip
    if several:
        return whole(func, (given,), {})
    return whole(func, (given,), {}, given.ndim if axis is not None else 1, given.dtype)


# -- parts ----------------------------------------------------------------------------------------


def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    """Elements at indices along an axis; without one, of all elements in one axis."""
    import dask.array as da
    import numpy

    given, where = tensor(a), lowered(indices)
    if axis is None:
        given, axis = given.ravel(), 0
    if mode == "raise" and (isinstance(where, da.Array) or numpy.ndim(where) == 1):
        if not isinstance(where, da.Array):
            where = numpy.asarray(where)
        if where.ndim == 1:
            return da.take(given, where, axis)
    plain = where if isinstance(where, da.Array) else numpy.asarray(where)
    func = functools.partial(numpy.take, axis=axis, mode=mode)
    return whole(func, (given, plain), {}, given.ndim - 1 + plain.ndim, given.dtype, varying=False)


def compress(condition: Any, a: Any, axis: int | None = None) -> Any:
    """The slices along an axis where a condition is true; without one, of all elements."""
    import dask.array as da
    import numpy

    given = tensor(a)
    if axis is None:
        given, axis = given.ravel(), 0
    if not -given.ndim <= axis < given.ndim:
        from numpy.exceptions import AxisError

        raise AxisError(axis, given.ndim)
    chosen = lowered(condition)
    if isinstance(chosen, da.Array):
        return whole(numpy.compress, (chosen, given), {"axis": axis}, given.ndim, given.dtype)
    [places] = numpy.nonzero(numpy.asarray(chosen))
    if len(places) and places[-1] >= given.shape[axis]:
        raise IndexError(
            f"index {places[-1]} is out of bounds for axis {axis} with size {given.shape[axis]}"
        )
    return da.take(given, places, axis)


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    """Elements at indices along an axis."""
    import dask.array as da
    import numpy

    one, two = tensor(arr), tensor(indices)
    if axis is None:
        one, axis = one.ravel(), 0
    axis = axis % one.ndim
    one = one.rechunk({axis: -1})
    two = two.rechunk({d: (-1 if d == axis else one.chunks[d]) for d in range(two.ndim)})
    return da.map_blocks(
        functools.partial(numpy.take_along_axis, axis=axis), one, two, dtype=one.dtype,
        chunks=two.chunks,
    )  # fmt: skip


# -- splitting and joining ------------------------------------------------------------------------


def array_split(a: Any, indices_or_sections: Any, axis: int = 0) -> tuple[Any, ...]:
    """Parts of a tensor along an axis; their lengths may differ by one."""
    given = tensor(a)
    length = given.shape[axis]
    if hasattr(indices_or_sections, "__iter__"):
        cuts = [0, *map(int, fetched(indices_or_sections)), length]
    else:
        count = int(indices_or_sections)
        if count <= 0:
            raise ValueError("number sections must be larger than 0.")
        small, more = divmod(length, count)
        cuts = [0]
        for i in range(count):
            cuts.append(cuts[-1] + small + (i < more))
    before = (slice(None),) * (axis % given.ndim)
    return tuple(given[(*before, slice(start, end))] for start, end in itertools.pairwise(cuts))


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> tuple[Any, ...]:
    """Parts of a tensor along an axis; all of them have one length."""
    if not hasattr(indices_or_sections, "__iter__"):
        length = tensor(ary).shape[axis]
        if length % int(indices_or_sections):
            raise ValueError("array split does not result in an equal division")
    return array_split(ary, indices_or_sections, axis)


def hsplit(a: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """Parts along the second axis; along the first one if there is only one."""
    given = tensor(a)
    if not given.ndim:
        raise ValueError("hsplit only works on tensors of 1 or more dimensions")
    return split(given, indices_or_sections, 1 if given.ndim > 1 else 0)


def vsplit(a: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """Parts along the first axis."""
    if tensor(a).ndim < 2:
        raise ValueError("vsplit only works on tensors of 2 or more dimensions")
    return split(a, indices_or_sections, 0)


def dsplit(a: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """Parts along the third axis."""
    if tensor(a).ndim < 3:
        raise ValueError("dsplit only works on tensors of 3 or more dimensions")
    return split(a, indices_or_sections, 2)


def column_stack(tup: Sequence[Any]) -> Any:
    """Columns side by side."""
    import dask.array as da

    given = [tensor(one) for one in tup]
    return da.concatenate([one[:, None] if one.ndim < 2 else one for one in given], axis=1)


def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """Values after those of a tensor, along an axis; without one, all in one axis."""
    import dask.array as da

    one, two = tensor(arr), tensor(values)
    if axis is None:
        one, two, axis = one.ravel(), two.ravel(), 0
    return da.concatenate([one, two], axis=axis)


class Lengths(tuple[int, ...]):
    """What `shape` gives: a tuple of int that can be executed and fetched, as in the original."""

    def execute(self, *_: Any, **__: Any) -> Lengths:
        return self

    def fetch(self, *_: Any, **__: Any) -> tuple[int, ...]:
        return tuple(self)


def shape(a: Any) -> Any:
    """The lengths of the axes. A tensor whose lengths are not known is executed."""
    import numpy

    if not isinstance(a, Tileable):
        return Lengths(numpy.shape(fetched(a)))
    if any(math.isnan(one) for one in a.shape):  # type: ignore[attr-defined]
        a.execute()
    return Lengths(int(one) for one in a.shape)  # type: ignore[attr-defined]


def size(a: object, axis: int | None = None) -> int:
    """How many elements there are, in all or along an axis; see `shape`."""
    lengths = shape(a)
    return math.prod(lengths) if axis is None else int(lengths[axis])


def einsum_path(*operands: Any, optimize: Any = "greedy", **_: Any) -> Any:
    """In which order `einsum` best combines its operands; see `numpy.einsum_path`."""
    import numpy

    def outline(value: Any) -> Any:
        return (
            numpy.broadcast_to(0.0, lowered(value).shape) if isinstance(value, Tileable) else value
        )

    return numpy.einsum_path(*map(outline, operands), optimize=optimize)


# -- chunks ---------------------------------------------------------------------------------------


def rechunk(a: Any, chunk_size: Any, **_: Any) -> Any:
    """The same elements in chunks of other lengths."""
    return tensor(a).rechunk(chunk_size)


def rebalance(
    a: Any, factor: Any = None, axis: int = 0, num_partitions: Any = None, **_: Any
) -> Any:
    """Chunks of equal lengths along an axis."""
    given = tensor(a)
    count = num_partitions or given.numblocks[axis]
    return given.rechunk({axis: -(-given.shape[axis] // int(count))})


def map_chunk(
    a: Any, func: Callable[..., Any], *, args: tuple[Any, ...] = (),
    elementwise: bool | None = None, dtype: Any = None, with_chunk_index: bool = False,
    kwargs: dict[str, Any] | None = None, **more: Any,
) -> Any:  # fmt: skip
    """Have a function called with each chunk; see `Tensor.map_chunk`."""
    import numpy

    given = tensor(a)
    keywords = {**(kwargs or {}), **more}
    run = functools.partial(_run_on_chunk, func, args, keywords, with_chunk_index)
    made = given.map_blocks(run, dtype=dtype or _kind(run, given), meta=numpy.empty(
        (0,) * given.ndim, dtype or _kind(run, given)))  # fmt: skip
    if not elementwise:
        made._chunks = tuple((float("nan"),) * len(lengths) for lengths in made.chunks)
    return made


def _kind(run: Callable[..., Any], given: Any) -> Any:
    """The type of the results of a function, as a small chunk tells it."""
    import numpy

    try:
        with numpy.errstate(all="ignore"):
            return numpy.asarray(run(numpy.ones((1,) * given.ndim, given.dtype))).dtype
    except Exception:  # the function may need more than one element; then it tells nothing
        return given.dtype


def _run_on_chunk(
    func: Callable[..., Any], args: Any, keywords: Any, with_index: bool, chunk: Any,
    block_info: Any = None,
) -> Any:  # fmt: skip
    if with_index:
        place = block_info[0]["chunk-location"] if block_info else (0,) * chunk.ndim
        keywords = {**keywords, "chunk_index": tuple(place)}
    return func(chunk, *args, **keywords)


def to_cpu(a: Any) -> Any:
    """The tensor itself: all tensors are in memory of the CPU."""
    return tensor(a)


def to_gpu(a: Any) -> Any:
    """Not there.

    Raises
    ------
    NotImplementedError
        Always.
    """
    raise NotImplementedError("tensors on a GPU are not there; compute with numpy on all cores")


# -- numbers --------------------------------------------------------------------------------------


def _middle(name: str, a: Any, args: tuple[Any, ...], axis: Any, kwargs: dict[str, Any]) -> Any:
    """A function of numpy that needs all elements of an axis. Dask's own ones come close only."""
    import numpy

    given, func = tensor(a), getattr(numpy, name)
    plain = tuple(fetched(one) for one in args)
    run = functools.partial(_run_middle, func, plain, axis, kwargs)
    if isinstance(axis, int) and given.ndim > 1 and not any(map(numpy.ndim, plain)):
        axis = axis % given.ndim
        kept = bool(kwargs.get("keepdims"))
        chunks = list(given.rechunk({axis: -1}).chunks)
        chunks[axis : axis + 1] = [(1,)] if kept else []
        small = run(numpy.ones((1,) * given.ndim, given.dtype))
        return given.rechunk({axis: -1}).map_blocks(
            run, dtype=small.dtype, chunks=tuple(chunks), drop_axis=[] if kept else [axis]
        )
    return whole(run, (given,), {})


def _run_middle(func: Any, args: Any, axis: Any, kwargs: Any, a: Any) -> Any:
    return func(a, *args, axis=axis, **kwargs)


def median(a: Any, axis: Any = None, **kwargs: Any) -> Any:
    """The median; exact."""
    return _middle("median", a, (), axis, kwargs)


def nanmedian(a: Any, axis: Any = None, **kwargs: Any) -> Any:
    """The median without nan; exact."""
    return _middle("nanmedian", a, (), axis, kwargs)


def percentile(a: Any, q: Any, axis: Any = None, **kwargs: Any) -> Any:
    """Percentiles; exact."""
    return _middle("percentile", a, (q,), axis, _without_interpolation(kwargs))


def nanpercentile(a: Any, q: Any, axis: Any = None, **kwargs: Any) -> Any:
    """Percentiles without nan; exact."""
    return _middle("nanpercentile", a, (q,), axis, _without_interpolation(kwargs))


def quantile(a: Any, q: Any, axis: Any = None, **kwargs: Any) -> Any:
    """Quantiles; exact."""
    return _middle("quantile", a, (q,), axis, _without_interpolation(kwargs))


def nanquantile(a: Any, q: Any, axis: Any = None, **kwargs: Any) -> Any:
    """Quantiles without nan; exact."""
    return _middle("nanquantile", a, (q,), axis, _without_interpolation(kwargs))


def _without_interpolation(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The argument ``interpolation`` of the original under numpy's name of today."""
    found = dict(kwargs)
    if "interpolation" in found:
        found["method"] = found.pop("interpolation")
    return found


def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None, **_: Any) -> Any:
    """Where values belong in a sorted tensor."""
    import dask.array as da
    import numpy

    given, values = tensor(a), tensor(v)
    if sorter is not None:
        given = given[lowered(sorter)]
    if values.ndim and given.shape[0] == given.shape[0]:  # not nan: Dask counts with lengths
        return da.searchsorted(given, values, side=side)
    return whole(
        functools.partial(numpy.searchsorted, side=side), (given, values), {}, values.ndim,
        numpy.intp, varying=False,
    )  # fmt: skip


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """Elements put in before indices."""
    import dask.array as da
    import numpy

    given, where = tensor(arr), fetched(obj)
    if axis is None:
        given, axis = given.ravel(), 0
    if isinstance(where, int) and not numpy.ndim(lowered(values)):
        return da.insert(given, where, lowered(values), axis)
    func = functools.partial(numpy.insert, obj=where, values=fetched(values), axis=axis)
    return whole(func, (given,), {}, given.ndim, given.dtype)


def delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    """The elements without those at indices."""
    import dask.array as da

    given = tensor(arr)
    if axis is None:
        given, axis = given.ravel(), 0
    return da.delete(given, fetched(obj), axis)


def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Any:
    """The integral along an axis, by the trapezoidal rule."""
    import dask.array as da

    given = tensor(y)
    axis = axis % given.ndim
    first = (slice(None),) * axis + (slice(1, None),)
    last = (slice(None),) * axis + (slice(None, -1),)
    step: Any = dx
    if x is not None:
        step = da.diff(tensor(x))
        if step.ndim == 1:
            step = step.reshape([-1 if d == axis else 1 for d in range(given.ndim)])
    return (step * (given[first] + given[last]) / 2.0).sum(axis)


trapz = trapezoid


def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Set the diagonal of a tensor, in place."""
    import dask.array as da
    import numpy

    if not isinstance(a, Tileable):
        raise TypeError("fill_diagonal() needs a tensor")
    given, value = a.lazy, fetched(val)
    if given.ndim < 2:
        raise ValueError("array must be at least 2-d")
    if given.ndim > 2 and len(set(given.shape)) > 1:
        raise ValueError("All dimensions of input must be of equal length")
    values = numpy.asarray(value).ravel()
    columns = given.shape[1]
    rows = given.shape[0]

    indices = [
        da.arange(n, chunks=given.chunks[d]).reshape(
            [-1 if e == d else 1 for e in range(given.ndim)]
        )
        for d, n in enumerate(given.shape)
    ]
    if given.ndim == 2:
        step = indices[0] % (columns + 1) if wrap and rows > columns else indices[0]
        mask = step == indices[1]
        number = indices[0] - (indices[0] // (columns + 1) if wrap and rows > columns else 0)
    else:
        mask = indices[0] == indices[1]
        for one in indices[2:]:
            mask = mask & (indices[0] == one)
        number = indices[0]
    filler = (number % len(values)).map_blocks(lambda i: values[i], dtype=values.dtype)
    new = da.where(mask, filler, given).astype(given.dtype)
    a.become(globals()["_wrapped"](new))


_wrapped = wrap


# -- text -----------------------------------------------------------------------------------------


def array_repr(arr: Any) -> str:
    """The text of a tensor, as `repr` gives it."""
    return repr(arr)


def array_str(a: Any) -> str:
    """The text of a tensor, as `str` gives it."""
    return str(a)


array2string = array_str
