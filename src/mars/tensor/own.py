"""Functions of `mars.tensor` that `dask.array` lacks, or that the original spells otherwise.

They take and return arrays of Dask, or what `mars.tensor.calling` makes tensors of. Functions that
make tensors of values are in `creation`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, SupportsInt

from mars.tensor.calling import fetched, in_order, lowered, ndim_of, whole
from mars.tensor.creation import lengths_of, tensor
from mars.tileables.tileable import Tileable, wrap

if TYPE_CHECKING:
    from dask.array import Array
    from numpy import dtype, ndarray
    from numpy.typing import DTypeLike

    Arrays = Array | tuple[Array, ...]
    Blocks = Mapping[object, Mapping[str, Sequence[int]]]
    Casting = Literal["no", "equiv", "safe", "same_kind", "unsafe"]
    Order = Literal["C", "F", "A"]
    Sections = SupportsInt | Iterable[int]


def copy(a: object, order: str = "K") -> Array:
    """Another tensor with the same elements."""
    return in_order(tensor(a).copy(), order)


def astype(x: object, dtype: DTypeLike, copy: bool = True) -> Array:
    """The elements with another type."""
    return tensor(x).astype(dtype)


def copyto(dst: object, src: object, casting: Casting = "same_kind", where: object = True) -> None:
    """Copy elements into a tensor, in place."""
    import dask.array as da
    import numpy

    if not isinstance(dst, Tileable) or not isinstance(dst.lazy, da.Array):
        raise TypeError("copyto() needs a tensor to copy into")
    target, source = dst.lazy, da.asarray(lowered(src))
    if not numpy.can_cast(source.dtype, target.dtype, casting):
        raise TypeError(
            f"cannot copy elements of type {source.dtype} into {target.dtype} with {casting!r}"
        )
    new = da.where(lowered(where), da.broadcast_to(source, target.shape), target)
    dst.become(wrap(new.astype(target.dtype)))


def ravel(a: object, order: str = "C") -> Array:
    """All elements in one axis; with ``order="F"`` column after column."""
    import dask.array as da

    given = tensor(a)
    return da.transpose(given).ravel() if order == "F" else given.ravel()


flatten = ravel


def reshape(
    a: object, newshape: int | Iterable[int] | None = None, order: Order = "C", *,
    shape: int | Iterable[int] | None = None,
) -> Array:  # fmt: skip
    """The elements in another shape."""
    import dask.array as da
    import numpy

    given, asked = tensor(a), shape if newshape is None else newshape
    if asked is None:
        raise TypeError("reshape() needs a shape")
    wanted = lengths_of(asked)
    if numpy.isnan(given.shape).any():
        return whole(functools.partial(numpy.reshape, shape=wanted, order=order), (given,), {},
                     len(wanted), given.dtype)  # fmt: skip
    if order == "F":
        made = da.transpose(_reshaped(da.transpose(given), tuple(reversed(wanted))))
        return in_order(made, "F")
    return in_order(_reshaped(given, wanted), order)


def _reshaped(given: Array, wanted: tuple[int, ...]) -> Array:
    try:
        return given.reshape(wanted)
    except NotImplementedError:  # Dask merges or splits axes, and this does both
        return given.ravel().reshape(wanted)


def broadcast_to(array: object, shape: int | Iterable[int], **_: object) -> Array:
    """The elements repeated along axes, so that they have a shape."""
    import dask.array as da
    import numpy

    given, wanted = tensor(array), lengths_of(shape)
    if not numpy.isnan(given.shape).any():
        return da.broadcast_to(given, wanted)
    func = functools.partial(numpy.broadcast_to, shape=wanted)
    made = whole(func, (given,), {}, len(wanted), given.dtype)
    made._chunks = tuple((n,) for n in wanted)
    return made


def resize(a: object, new_shape: int | tuple[int, ...]) -> Array:
    """The elements, repeated as often as needed, in another shape."""
    import dask.array as da
    import numpy

    flat, wanted = tensor(a).ravel(), int(numpy.prod(new_shape))
    times = -(-wanted // max(1, flat.shape[0]))
    return da.concatenate([flat] * times)[:wanted].reshape(new_shape)


def matrix_transpose(x: object) -> Array:
    """The last two axes in the other order."""
    import dask.array as da

    return da.swapaxes(tensor(x), -1, -2)


def inner(a: object, b: object) -> Array:
    """The inner product of the last axes."""
    import dask.array as da

    one, two = tensor(a), tensor(b)
    if not one.ndim or not two.ndim:
        return one * two
    return da.tensordot(one, two, axes=(-1, -1))


innerproduct = inner


def array_equal(a1: object, a2: object) -> Array:
    """Whether two tensors have the same shape and elements."""
    import dask.array as da

    one, two = tensor(a1), tensor(a2)
    if one.shape != two.shape:
        return da.asarray(False)
    return da.asarray((one == two).all())


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


def in1d(ar1: object, ar2: object, assume_unique: bool = False, invert: bool = False) -> Array:
    """Which elements of one tensor are in another one."""
    import dask.array as da

    return da.isin(tensor(ar1).ravel(), lowered(ar2), assume_unique=assume_unique, invert=invert)


def setdiff1d(ar1: object, ar2: object, assume_unique: bool = False) -> Array:
    """The elements of one tensor that are not in another one."""
    import numpy

    func = functools.partial(numpy.setdiff1d, assume_unique=assume_unique)
    first = tensor(ar1)
    return whole(func, (first, tensor(ar2)), {}, 1, first.dtype)


def unique(
    ar: object, return_index: bool = False, return_inverse: bool = False,
    return_counts: bool = False, axis: int | None = None, **_: object,
) -> Array | tuple[Array, ...]:  # fmt: skip
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


def take(a: object, indices: object, axis: int | None = None, mode: str = "raise") -> Array:
    """Elements at indices along an axis; without one, of all elements in one axis."""
    import dask.array as da
    import numpy

    given, where = tensor(a), lowered(indices)
    if axis is None:
        given, axis = given.ravel(), 0
    if mode == "raise" and (isinstance(where, da.Array) or ndim_of(where) == 1):
        if not isinstance(where, da.Array):
            where = numpy.asarray(where)
        if where.ndim == 1:
            return da.take(given, where, axis)
    plain = where if isinstance(where, da.Array) else numpy.asarray(where)
    func = functools.partial(numpy.take, axis=axis, mode=mode)
    return whole(func, (given, plain), {}, given.ndim - 1 + plain.ndim, given.dtype, varying=False)


def compress(condition: object, a: object, axis: int | None = None) -> Array:
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


def take_along_axis(arr: object, indices: object, axis: int | None = -1) -> Array:
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


def array_split(a: object, indices_or_sections: Sections, axis: int = 0) -> tuple[Array, ...]:
    """Parts of a tensor along an axis; their lengths may differ by one."""
    given = tensor(a)
    length = given.shape[axis]
    if isinstance(indices_or_sections, Iterable):
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


def split(ary: object, indices_or_sections: Sections, axis: int = 0) -> tuple[Array, ...]:
    """Parts of a tensor along an axis; all of them have one length."""
    if not isinstance(indices_or_sections, Iterable):
        length = tensor(ary).shape[axis]
        if length % int(indices_or_sections):
            raise ValueError("array split does not result in an equal division")
    return array_split(ary, indices_or_sections, axis)


def hsplit(a: object, indices_or_sections: Sections) -> tuple[Array, ...]:
    """Parts along the second axis; along the first one if there is only one."""
    given = tensor(a)
    if not given.ndim:
        raise ValueError("hsplit only works on tensors of 1 or more dimensions")
    return split(given, indices_or_sections, 1 if given.ndim > 1 else 0)


def vsplit(a: object, indices_or_sections: Sections) -> tuple[Array, ...]:
    """Parts along the first axis."""
    if tensor(a).ndim < 2:
        raise ValueError("vsplit only works on tensors of 2 or more dimensions")
    return split(a, indices_or_sections, 0)


def dsplit(a: object, indices_or_sections: Sections) -> tuple[Array, ...]:
    """Parts along the third axis."""
    if tensor(a).ndim < 3:
        raise ValueError("dsplit only works on tensors of 3 or more dimensions")
    return split(a, indices_or_sections, 2)


def column_stack(tup: Sequence[object]) -> Array:
    """Columns side by side."""
    import dask.array as da

    given = [tensor(one) for one in tup]
    return da.concatenate([one[:, None] if one.ndim < 2 else one for one in given], axis=1)


def append(arr: object, values: object, axis: int | None = None) -> Array:
    """Values after those of a tensor, along an axis; without one, all in one axis."""
    import dask.array as da

    one, two = tensor(arr), tensor(values)
    if axis is None:
        one, two, axis = one.ravel(), two.ravel(), 0
    return da.concatenate([one, two], axis=axis)


class Lengths(tuple[int, ...]):
    """What `shape` gives: a tuple of int that can be executed and fetched, as in the original."""

    def execute(self, *_: object, **__: object) -> Lengths:
        return self

    def fetch(self, *_: object, **__: object) -> tuple[int, ...]:
        return tuple(self)


def shape(a: object) -> Lengths:
    """The lengths of the axes. A tensor whose lengths are not known is executed."""
    import numpy

    if not isinstance(a, Tileable):
        return Lengths(numpy.shape(fetched(a)))
    lengths: tuple[float, ...] = getattr(a, "shape", ())
    if any(map(math.isnan, lengths)):
        a.execute()
        lengths = getattr(a, "shape", ())
    return Lengths(map(int, lengths))


def size(a: object, axis: int | None = None) -> int:
    """How many elements there are, in all or along an axis; see `shape`."""
    lengths = shape(a)
    return math.prod(lengths) if axis is None else int(lengths[axis])


def einsum_path(
    *operands: object, optimize: Literal["greedy", "optimal"] | bool = "greedy", **_: object
) -> tuple[list[object], str]:
    """In which order `einsum` best combines its operands; see `numpy.einsum_path`."""
    import dask.array as da
    import numpy

    def outline(value: object) -> object:
        lazy = lowered(value)
        return numpy.broadcast_to(0.0, lazy.shape) if isinstance(lazy, da.Array) else value

    find: Callable[..., tuple[list[object], str]] = numpy.einsum_path
    return find(*map(outline, operands), optimize=optimize)


# -- chunks ---------------------------------------------------------------------------------------


def rechunk(a: object, chunk_size: object, **_: object) -> Array:
    """The same elements in chunks of other lengths."""
    return tensor(a).rechunk(chunk_size)


def rebalance(
    a: object, factor: object = None, axis: int = 0, num_partitions: int | None = None, **_: object
) -> Array:
    """Chunks of equal lengths along an axis."""
    given = tensor(a)
    count = num_partitions or given.numblocks[axis]
    return given.rechunk({axis: -(-given.shape[axis] // int(count))})


def map_chunk(
    a: object, func: Callable[..., object], *, args: tuple[object, ...] = (),
    elementwise: bool | None = None, dtype: DTypeLike | None = None, with_chunk_index: bool = False,
    kwargs: dict[str, object] | None = None, **more: object,
) -> Array:  # fmt: skip
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


def _kind(run: Callable[..., object], given: Array) -> dtype:
    """The type of the results of a function, as a small chunk tells it."""
    import numpy

    try:
        with numpy.errstate(all="ignore"):
            return numpy.asarray(run(numpy.ones((1,) * given.ndim, given.dtype))).dtype
    except Exception:  # the function may need more than one element; then it tells nothing
        return given.dtype


def _run_on_chunk(
    func: Callable[..., object], args: tuple[object, ...], keywords: dict[str, object],
    with_index: bool, chunk: ndarray, block_info: Blocks | None = None,
) -> object:  # fmt: skip
    if with_index:
        place = block_info[0]["chunk-location"] if block_info else (0,) * chunk.ndim
        keywords = {**keywords, "chunk_index": tuple(place)}
    return func(chunk, *args, **keywords)


def to_cpu(a: object) -> Array:
    """The tensor itself: all tensors are in memory of the CPU."""
    return tensor(a)


def to_gpu(a: object) -> Array:
    """Not there.

    Raises
    ------
    NotImplementedError
        Always.
    """
    raise NotImplementedError("tensors on a GPU are not there; compute with numpy on all cores")


# -- numbers --------------------------------------------------------------------------------------


def _middle(
    name: str, a: object, args: tuple[object, ...], axis: object, kwargs: dict[str, object]
) -> Array | tuple[Array, ...]:
    """A function of numpy that needs all elements of an axis. Dask's own ones come close only."""
    import numpy

    given, func = tensor(a), getattr(numpy, name)
    plain = tuple(fetched(one) for one in args)
    run = functools.partial(_run_middle, func, plain, axis, kwargs)
    if isinstance(axis, int) and given.ndim > 1 and not any(map(ndim_of, plain)):
        axis = axis % given.ndim
        kept = bool(kwargs.get("keepdims"))
        chunks = list(given.rechunk({axis: -1}).chunks)
        chunks[axis : axis + 1] = [(1,)] if kept else []
        small = run(numpy.ones((1,) * given.ndim, given.dtype))
        return given.rechunk({axis: -1}).map_blocks(
            run, dtype=small.dtype, chunks=tuple(chunks), drop_axis=[] if kept else [axis]
        )
    return whole(run, (given,), {})


def _run_middle(
    func: Callable[..., ndarray], args: tuple[object, ...], axis: object,
    kwargs: dict[str, object], a: object,
) -> ndarray:  # fmt: skip
    return func(a, *args, axis=axis, **kwargs)


def median(a: object, axis: object = None, **kwargs: object) -> Arrays:
    """The median; exact."""
    return _middle("median", a, (), axis, kwargs)


def nanmedian(a: object, axis: object = None, **kwargs: object) -> Arrays:
    """The median without nan; exact."""
    return _middle("nanmedian", a, (), axis, kwargs)


def percentile(a: object, q: object, axis: object = None, **kwargs: object) -> Arrays:
    """Percentiles; exact."""
    return _middle("percentile", a, (q,), axis, _without_interpolation(kwargs))


def nanpercentile(a: object, q: object, axis: object = None, **kwargs: object) -> Arrays:
    """Percentiles without nan; exact."""
    return _middle("nanpercentile", a, (q,), axis, _without_interpolation(kwargs))


def quantile(a: object, q: object, axis: object = None, **kwargs: object) -> Arrays:
    """Quantiles; exact."""
    return _middle("quantile", a, (q,), axis, _without_interpolation(kwargs))


def nanquantile(a: object, q: object, axis: object = None, **kwargs: object) -> Arrays:
    """Quantiles without nan; exact."""
    return _middle("nanquantile", a, (q,), axis, _without_interpolation(kwargs))


def _without_interpolation(kwargs: dict[str, object]) -> dict[str, object]:
    """The argument ``interpolation`` of the original under numpy's name of today."""
    found = dict(kwargs)
    if "interpolation" in found:
        found["method"] = found.pop("interpolation")
    return found


def searchsorted(
    a: object, v: object, side: str = "left", sorter: object = None, **_: object
) -> Array:
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


def insert(arr: object, obj: object, values: object, axis: int | None = None) -> Array:
    """Elements put in before indices."""
    import dask.array as da
    import numpy

    given, where = tensor(arr), fetched(obj)
    if axis is None:
        given, axis = given.ravel(), 0
    if isinstance(where, int) and not ndim_of(lowered(values)):
        return da.insert(given, where, lowered(values), axis)
    func = functools.partial(numpy.insert, obj=where, values=fetched(values), axis=axis)
    return whole(func, (given,), {}, given.ndim, given.dtype)


def delete(arr: object, obj: object, axis: int | None = None) -> Array:
    """The elements without those at indices."""
    import dask.array as da

    given = tensor(arr)
    if axis is None:
        given, axis = given.ravel(), 0
    return da.delete(given, fetched(obj), axis)


def trapezoid(y: object, x: object = None, dx: float = 1.0, axis: int = -1) -> Array:
    """The integral along an axis, by the trapezoidal rule."""
    import dask.array as da

    given = tensor(y)
    axis = axis % given.ndim
    first = (slice(None),) * axis + (slice(1, None),)
    last = (slice(None),) * axis + (slice(None, -1),)
    step: float | Array = dx
    if x is not None:
        step = da.diff(tensor(x))
        if step.ndim == 1:
            step = step.reshape([-1 if d == axis else 1 for d in range(given.ndim)])
    return (step * (given[first] + given[last]) / 2.0).sum(axis)


trapz = trapezoid


def fill_diagonal(a: object, val: object, wrap: bool = False) -> None:
    """Set the diagonal of a tensor, in place."""
    import dask.array as da
    import numpy

    if not isinstance(a, Tileable) or not isinstance(a.lazy, da.Array):
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


def array_repr(arr: object) -> str:
    """The text of a tensor, as `repr` gives it."""
    return repr(arr)


def array_str(a: object) -> str:
    """The text of a tensor, as `str` gives it."""
    return str(a)


array2string = array_str
