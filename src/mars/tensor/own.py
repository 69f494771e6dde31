"""Functions of `mars.tensor` that `dask.array` lacks, or that the original spells otherwise.

They take and return arrays of Dask, or what `mars.tensor.calling` makes tensors of. The module is
long because it is a list of short functions that have nothing to do with each other.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from mars.tensor.calling import chunks_for, lowered, whole
from mars.tileables.tileable import Tileable, wrap


def tensor(
    data: Any = None, dtype: Any = None, order: str = "K", chunk_size: Any = None, copy: bool = True
) -> Any:
    """A tensor of an array, of nested lists, of a frame, or of tensors.

    Parameters
    ----------
    data : array_like, Tensor or list of Tensor
        The elements. An array is taken as it is when it is executed.
    dtype : dtype, optional
        Default: that of ``data``.
    order : str, default "K"
        Accepted for programs of the original.
    chunk_size : int, tuple or dict, optional
        The lengths of chunks: one for all axes, one for each axis, or by axis. Default: chunks of
        32 MiB.
    copy : bool, default True
        Accepted for programs of numpy.

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
    if isinstance(given, da.Array):
        made = given if dtype is None else given.astype(dtype)
        return made if chunk_size is None else made.rechunk(chunk_size)
    if type(given) in (list, tuple) and _holds_tensors(given):
        made = _stacked(given)
        made = made if dtype is None else made.astype(dtype)
        return made if chunk_size is None else made.rechunk(chunk_size)
    if hasattr(given, "toarray"):
        raise NotImplementedError("sparse tensors are not there; use dense ones: x.toarray()")
    array = numpy.asarray(given, dtype=dtype)
    return da.from_array(array, chunks=chunks_for(array.shape, array.dtype, chunk_size))


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


array = asarray = ascontiguousarray = asfortranarray = tensor


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
    return _filled("ones", shape, dtype, chunk_size)


def zeros(shape: Any, dtype: Any = None, chunk_size: Any = None, order: str = "C") -> Any:
    """A tensor of zeros; see `tensor` for ``chunk_size``."""
    return _filled("zeros", shape, dtype, chunk_size)


def empty(shape: Any, dtype: Any = None, chunk_size: Any = None, order: str = "C") -> Any:
    """A tensor whose elements are not set; see `tensor` for ``chunk_size``."""
    return _filled("empty", shape, dtype, chunk_size)


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
        return made.astype(kind)
    return _filled("full", shape, kind, chunk_size, value)


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
    return tensor(a).copy()


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


def flatten(a: Any, order: str = "C") -> Any:
    """All elements in one axis."""
    return tensor(a).ravel()


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


def isscalar(element: Any) -> bool:
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
    if axis is not None or given.dtype.hasobject:
        several = return_index or return_inverse or return_counts
        if several:
            raise NotImplementedError(
                "unique(axis=) with indices or counts is not there; fetch the values first"
            )
        func = functools.partial(numpy.unique, axis=axis)
        return whole(func, (given,), {}, given.ndim if axis is not None else 1, given.dtype)
    return da.unique(given, return_index, return_inverse, return_counts)


# -- order ----------------------------------------------------------------------------------------


def _along(func: Callable[..., Any], a: Any, axis: int | None, dtype: Any = None) -> Any:
    """A function of numpy along one axis, with all of the axis in each chunk."""
    given = tensor(a)
    if axis is None:
        given, axis = given.ravel(), 0
    axis = axis % max(1, given.ndim)
    if not -given.ndim <= axis < given.ndim:
        raise ValueError(f"axis {axis} is out of bounds for a tensor of {given.ndim} axes")
    return given.rechunk({axis: -1}).map_blocks(
        functools.partial(func, axis=axis), dtype=given.dtype if dtype is None else dtype
    )


def sort(a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, **_: Any) -> Any:
    """The elements sorted along an axis."""
    import numpy

    given = tensor(a)
    if axis is None:
        given, axis = given.ravel(), 0
    if given.ndim == 1 and given.numblocks[0] > 1 and order is None:
        from mars.tensor.sorting import sorted_by_samples

        return sorted_by_samples(given)
    return _along(functools.partial(numpy.sort, kind=kind, order=order), given, axis)


def argsort(a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, **_: Any) -> Any:
    """The indices that sort along an axis."""
    import numpy

    return _along(functools.partial(numpy.argsort, kind=kind, order=order), a, axis, numpy.intp)


def partition(a: Any, kth: Any, axis: int | None = -1, **_: Any) -> Any:
    """The elements partitioned along an axis, as `numpy.partition` does it."""
    import numpy

    return _along(functools.partial(_partition, numpy.partition, _fetched(kth)), a, axis)


def argpartition(a: Any, kth: Any, axis: int | None = -1, **_: Any) -> Any:
    """The indices that partition along an axis."""
    import numpy

    return _along(
        functools.partial(_partition, numpy.argpartition, _fetched(kth)), a, axis, numpy.intp
    )


def _partition(func: Callable[..., Any], kth: Any, a: Any, axis: int) -> Any:
    return func(a, kth, axis=axis)


def _fetched(value: Any) -> Any:
    return value.executed_value() if isinstance(value, Tileable) else value


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


def array_split(a: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Parts of a tensor along an axis; their lengths may differ by one."""
    given = tensor(a)
    length = given.shape[axis]
    if hasattr(indices_or_sections, "__iter__"):
        cuts = [0, *map(int, _fetched(indices_or_sections)), length]
    else:
        count = int(indices_or_sections)
        if count <= 0:
            raise ValueError("number sections must be larger than 0.")
        small, more = divmod(length, count)
        cuts = [0]
        for i in range(count):
            cuts.append(cuts[-1] + small + (i < more))
    before = (slice(None),) * (axis % given.ndim)
    return [given[(*before, slice(start, end))] for start, end in itertools.pairwise(cuts)]


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Parts of a tensor along an axis; all of them have one length."""
    if not hasattr(indices_or_sections, "__iter__"):
        length = tensor(ary).shape[axis]
        if length % int(indices_or_sections):
            raise ValueError("array split does not result in an equal division")
    return array_split(ary, indices_or_sections, axis)


def hsplit(a: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along the second axis; along the first one if there is only one."""
    given = tensor(a)
    if not given.ndim:
        raise ValueError("hsplit only works on tensors of 1 or more dimensions")
    return split(given, indices_or_sections, 1 if given.ndim > 1 else 0)


def vsplit(a: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along the first axis."""
    if tensor(a).ndim < 2:
        raise ValueError("vsplit only works on tensors of 2 or more dimensions")
    return split(a, indices_or_sections, 0)


def dsplit(a: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along the third axis."""
    if tensor(a).ndim < 3:
        raise ValueError("dsplit only works on tensors of 3 or more dimensions")
    return split(a, indices_or_sections, 2)


def column_stack(tup: Sequence[Any]) -> Any:
    """Columns side by side."""
    import dask.array as da

    given = [tensor(one) for one in tup]
    return da.concatenate([one[:, None] if one.ndim < 2 else one for one in given], axis=1)


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
    plain = tuple(_fetched(one) for one in args)
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
    if values.ndim:
        return da.searchsorted(given, values, side=side)
    return whole(
        functools.partial(numpy.searchsorted, side=side), (given, values), {}, 0, numpy.intp
    )


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """Elements put in before indices."""
    import dask.array as da
    import numpy

    given, where = tensor(arr), _fetched(obj)
    if axis is None:
        given, axis = given.ravel(), 0
    if isinstance(where, int):
        return da.insert(given, where, lowered(values), axis)
    func = functools.partial(numpy.insert, obj=where, values=_fetched(values), axis=axis)
    return whole(func, (given,), {}, given.ndim, given.dtype)


def delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    """The elements without those at indices."""
    import dask.array as da

    given = tensor(arr)
    if axis is None:
        given, axis = given.ravel(), 0
    return da.delete(given, _fetched(obj), axis)


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
    given, value = a.lazy, _fetched(val)
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


# -- files ----------------------------------------------------------------------------------------


def from_zarr(
    url: Any, group: Any = None, dataset: Any = None, chunk_size: Any = None, **kwargs: Any
) -> Any:
    """A tensor that a Zarr array holds.

    Parameters
    ----------
    url : str or path
        The array. If it is a group, ``group`` and ``dataset`` name the array in it.
    chunk_size : int, tuple or dict, optional
        Default: as the array is stored.
    """
    import dask.array as da

    component = "/".join(str(one) for one in (group, dataset) if one) or None
    made = da.from_zarr(url, component=component, **kwargs)
    return made if chunk_size is None else made.rechunk(chunk_size)


def to_zarr(x: Any, url: Any, group: Any = None, dataset: Any = None, **kwargs: Any) -> Any:
    """A tensor whose execution writes another one to a Zarr array.

    Its value is the number of bytes that were written.
    """
    component = "/".join(str(one) for one in (group, dataset) if one) or None
    given = tensor(x)
    store = given.to_zarr(url, component=component, compute=False, overwrite=True, **kwargs)
    return _written(store, given)


def from_hdf5(
    path: Any, dataset: str | None = None, group: str | None = None, chunk_size: Any = None
) -> Any:
    """A tensor of a dataset in an HDF5 file. Each chunk is read by a call.

    Parameters
    ----------
    path : str, h5py.File or h5py.Dataset
        The file, or a dataset in it. The file has to be one that the workers can open.
    dataset, group : str, optional
        Name of the dataset, and the group that it is in.
    chunk_size : int, tuple or dict, optional
        See `tensor`.
    """
    import dask.array as da
    import h5py
    import numpy

    if isinstance(path, h5py.Dataset):
        name, file = path.name, path.file.filename
    else:
        if dataset is None:
            raise TypeError("from_hdf5() needs the name of a dataset")
        name = f"{group or ''}/{dataset}".replace("//", "/")
        file = path.filename if isinstance(path, h5py.File) else str(path)
    with h5py.File(file, "r") as opened:
        shape, dtype, stored = opened[name].shape, opened[name].dtype, opened[name].chunks
    chunks = chunks_for(shape, dtype, chunk_size)
    del stored
    return da.map_blocks(
        functools.partial(_read_hdf5, file, name), chunks=chunks, dtype=dtype,
        meta=numpy.empty((0,) * len(shape), dtype),
    )  # fmt: skip


def _read_hdf5(file: str, name: str, block_info: Any = None) -> Any:
    import h5py

    where = tuple(slice(start, end) for start, end in block_info[None]["array-location"])
    with h5py.File(file, "r") as opened:
        return opened[name][where]


def to_hdf5(
    x: Any, path: Any, dataset: str | None = None, group: str | None = None, **kwargs: Any
) -> Any:
    """A tensor whose execution writes another one into a dataset of an HDF5 file.

    One call gets the whole tensor, because one process can write to such a file.
    """
    import numpy

    if dataset is None:
        raise TypeError("to_hdf5() needs the name of a dataset")
    name = f"{group or ''}/{dataset}".replace("//", "/")
    func = functools.partial(_write_hdf5, str(getattr(path, "filename", path)), name, kwargs)
    return whole(func, (tensor(x),), {}, 0, numpy.int64)


def _write_hdf5(file: str, name: str, kwargs: dict[str, Any], value: Any) -> Any:
    import h5py
    import numpy

    with h5py.File(file, "a") as opened:
        if name in opened:
            del opened[name]
        opened.create_dataset(name, data=value, **kwargs)
    return numpy.int64(value.nbytes)


def _written(store: Any, given: Any) -> Any:
    import dask
    import dask.array as da
    import numpy

    made = dask.delayed(_bytes_of)(store, given.nbytes)
    return da.from_delayed(made, (), dtype=numpy.int64)


def _bytes_of(_: Any, count: int) -> Any:
    import numpy

    return numpy.int64(count)


fromzarr, tozarr, fromhdf5, tohdf5 = from_zarr, to_zarr, from_hdf5, to_hdf5


def from_dataframe(frame: Any, dtype: Any = None) -> Any:
    """The values of a frame as a tensor."""
    made = lowered(frame)
    if hasattr(made, "to_numpy") and not hasattr(made, "dask"):
        made = tensor(made.to_numpy())
    return made if dtype is None else made.astype(dtype)


# -- text and index tricks ------------------------------------------------------------------------


def array_repr(arr: Any) -> str:
    """The text of a tensor, as `repr` gives it."""
    return repr(arr)


def array_str(a: Any) -> str:
    """The text of a tensor, as `str` gives it."""
    return str(a)


array2string = array_str


class _Joined:
    """``r_`` and ``c_``."""

    def __init__(self, columns: bool) -> None:
        self._columns = columns

    def __getitem__(self, items: Any) -> Any:
        import dask.array as da
        import numpy

        given = items if isinstance(items, tuple) else (items,)
        parts = []
        for one in given:
            if isinstance(one, str):
                raise NotImplementedError("directives in r_ are not there; use concatenate()")
            made = numpy.r_[one] if isinstance(one, slice) else lowered(one)
            made = da.atleast_1d(da.asarray(made))
            parts.append(made[:, None] if self._columns and made.ndim == 1 else made)
        return wrap(da.concatenate(parts, axis=-1 if self._columns else 0))


class _Grid:
    """``mgrid`` and ``ogrid``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, items: Any) -> Any:
        import numpy

        made = getattr(numpy, self._name)[items]
        if isinstance(made, (list, tuple)):
            return [wrap(tensor(one)) for one in made]
        return wrap(tensor(made))


r_, c_ = _Joined(False), _Joined(True)
mgrid, ogrid = _Grid("mgrid"), _Grid("ogrid")


def ndindex(*shape: Any) -> Any:
    """An iterator over all indices of a shape."""
    import numpy

    return numpy.ndindex(*shape)
