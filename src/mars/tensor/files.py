"""Tensors of files and of frames: Zarr arrays, datasets in HDF5 files, and back."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from mars.tensor.calling import chunks_for, lowered, whole
from mars.tensor.creation import tensor
from mars.tileables.tileable import Tileable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy
    from dask.array import Array
    from dask.delayed import Delayed
    from numpy import ndarray
    from numpy.typing import DTypeLike

    Blocks = Mapping[object, Mapping[str, Sequence[tuple[int, int]]]]


def from_zarr(
    url: object,
    group: object = None,
    dataset: object = None,
    chunk_size: object = None,
    **kwargs: object,
) -> Array:
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


def to_zarr(
    x: object, url: object, group: object = None, dataset: object = None, **kwargs: object
) -> Array:
    """A tensor whose execution writes another one to a Zarr array.

    Its value is the number of bytes that were written. The function takes the array and the tensor
    also in the order of the original, ``to_zarr(url, x)``.
    """
    x, url = _tensor_first(x, url)
    component = "/".join(str(one) for one in (group, dataset) if one) or None
    given = tensor(x)
    store = given.to_zarr(url, component=component, compute=False, overwrite=True, **kwargs)
    return _written(store, given)


def from_hdf5(
    path: object, dataset: str | None = None, group: str | None = None, chunk_size: object = None
) -> Array:
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
        if not isinstance(path, (str, os.PathLike, h5py.File)):
            raise TypeError(f"from_hdf5() needs a path, a file or a dataset, got {path!r}")
        if dataset is None:
            raise ValueError("from_hdf5() needs the name of a dataset")
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


def _read_hdf5(file: str, name: str, block_info: Blocks | None = None) -> object:
    import h5py

    places = block_info[None]["array-location"] if block_info else ()
    where = tuple(slice(start, end) for start, end in places)
    with h5py.File(file, "r") as opened:
        read: object = opened[name][where]
        return read


def to_hdf5(
    x: object, path: object, dataset: str | None = None, group: str | None = None, **kwargs: object
) -> Array:
    """A tensor whose execution writes another one into a dataset of an HDF5 file.

    One call gets the whole tensor, because one process can write to such a file. The function takes
    file and tensor also in the order of the original, ``to_hdf5(path, x)``. A dataset of h5py says
    where it is.
    """
    import h5py
    import numpy

    x, path = _tensor_first(x, path)
    if isinstance(path, h5py.Dataset):
        dataset, group = path.name, None
        path = path.file.filename
    if dataset is None:
        raise TypeError("to_hdf5() needs the name of a dataset")
    name = f"{group or ''}/{dataset}".replace("//", "/")
    func = functools.partial(_write_hdf5, str(getattr(path, "filename", path)), name, kwargs)
    return whole(func, (tensor(x),), {}, 0, numpy.int64)


def _tensor_first(x: object, place: object) -> tuple[object, object]:
    return (x, place) if isinstance(x, Tileable) or not isinstance(place, Tileable) else (place, x)


def _write_hdf5(file: str, name: str, kwargs: dict[str, object], value: ndarray) -> numpy.int64:
    import h5py
    import numpy

    with h5py.File(file, "a") as opened:
        if name in opened:
            del opened[name]
        opened.create_dataset(name, data=value, **kwargs)
    return numpy.int64(value.nbytes)


def _written(store: Delayed, given: Array) -> Array:
    import dask
    import dask.array as da
    import numpy

    made = dask.delayed(_bytes_of)(store, given.nbytes)
    return da.from_delayed(made, (), dtype=numpy.int64)


def _bytes_of(_: object, count: int) -> numpy.int64:
    import numpy

    return numpy.int64(count)


fromzarr, tozarr, fromhdf5, tohdf5 = from_zarr, to_zarr, from_hdf5, to_hdf5


def from_dataframe(frame: object, dtype: DTypeLike | None = None) -> Array:
    """The values of a frame as a tensor."""
    given = lowered(frame)
    if hasattr(given, "to_numpy") and not hasattr(given, "dask"):
        given = given.to_numpy()
    made = tensor(given)
    return made if dtype is None else made.astype(dtype)


__all__ = [
    "from_dataframe", "from_hdf5", "from_zarr", "fromhdf5", "fromzarr", "to_hdf5", "to_zarr",
    "tohdf5", "tozarr",
]  # fmt: skip
