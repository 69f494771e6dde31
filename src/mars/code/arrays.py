"""Arrays that are more than plain ones: they travel without a copy of their data in the pickle.

A memory-mapped array that is an argument travels by its file: calls read the file, and what they
write to it is seen in the program, as with threads. Other subclasses of numpy's array travel as the
array below them, whose memory is shared as that of any array is.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import TYPE_CHECKING, Final, Literal, cast

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
    Mapped = np.memmap[tuple[int, ...], np.dtype[np.generic]]

_READABLE: Final = ("r", "r+", "w+")


def is_special(kind: type) -> bool:
    """Whether a type is a subclass of numpy's arrays, which numpy copies into the pickle."""
    base = getattr(sys.modules.get("numpy"), "ndarray", None)
    return base is not None and kind is not base and issubclass(kind, base)


def reduced(array: Array, *, by_file: bool) -> tuple[object, ...] | None:
    """What an array of a subclass is made from; None: as numpy does it.

    Parameters
    ----------
    array : ndarray
        Of a subclass of numpy's array.
    by_file : bool
        Whether memory-mapped ones may travel by their file.
    """
    numpy = sys.modules["numpy"]
    kind = type(array)
    if by_file:
        mapped = _mapped(array)
        if mapped is not None:
            return mapped
    if array.dtype.hasobject or not (array.flags.c_contiguous or array.flags.f_contiguous):
        return None
    if kind is numpy.ma.MaskedArray:
        masked = cast("np.ma.MaskedArray[tuple[int, ...], np.dtype[np.generic]]", array)
        return _masked, (masked.data, masked.mask, masked.fill_value, masked.hardmask)
    if kind is numpy.memmap:
        return numpy.asarray, (array.view(numpy.ndarray),)
    if (
        kind.__reduce__ is not numpy.ndarray.__reduce__
        or kind.__reduce_ex__ is not numpy.ndarray.__reduce_ex__
        or kind.__setstate__ is not numpy.ndarray.__setstate__
    ):
        return None
    return _viewed, (array.view(numpy.ndarray), kind)


def _viewed(array: Array, kind: type[Array]) -> Array:
    return array.view(kind)


def _masked(data: object, mask: object, fill_value: object, hard: bool) -> object:
    masked = sys.modules["numpy"].ma.MaskedArray
    return masked(data, mask=mask, fill_value=fill_value, hard_mask=hard)


def _mapped(array: Array) -> tuple[object, ...] | None:
    """A memory-mapped array, or a part of one, by its file."""
    numpy = sys.modules["numpy"]
    whole: Mapped | None = None
    below: object = array
    while isinstance(below, numpy.ndarray):
        if isinstance(below, numpy.memmap) and isinstance(below.base, mmap.mmap):
            whole = below
        below = below.base
    if whole is None or not isinstance(below, mmap.mmap):
        return None
    file = getattr(whole, "filename", None)
    if file is None or whole.mode not in _READABLE or array.dtype.hasobject:
        return None
    file = os.path.abspath(os.fspath(file))
    try:
        status = os.stat(file)
    except OSError:  # nobody else could open it
        return None
    start = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    if start < 0 or any(stride < 0 for stride in array.strides) or not array.size:
        return None
    mode = "r" if whole.mode == "r" else "r+"
    facts = (
        file, (status.st_ino, status.st_size), mode, whole.offset + start, array.dtype,
        array.shape, array.strides,
    )  # fmt: skip
    return open_mapped, (*facts, type(array), array.flags.writeable)


def open_mapped(
    file: str,
    stamp: tuple[int, int],
    mode: Literal["r", "r+"],
    offset: int,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    kind: object,
    writeable: bool,
) -> Array:
    """Map a file again.

    Raises
    ------
    FileNotFoundError
        The file is not there, or is another one.
    """
    import numpy

    try:
        status = os.stat(file)
    except OSError as error:
        raise FileNotFoundError(
            f"an argument is memory-mapped from {file}, which cannot be opened here ({error}); on "
            f"a cluster, put the file where all nodes reach it, or pass numpy.array(argument)"
        ) from error
    if status.st_size < stamp[1]:
        raise FileNotFoundError(
            f"an argument is memory-mapped from {file}, which has {status.st_size} bytes here and "
            f"had {stamp[1]} in the program; pass numpy.array(argument) to send a copy"
        )
    extent = dtype.itemsize + sum(
        (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
    )
    raw = numpy.memmap(file, numpy.uint8, mode, offset, extent)
    array = numpy.ndarray(shape, dtype, raw, 0, strides)
    if isinstance(kind, type) and issubclass(kind, numpy.memmap):
        view = raw.view(numpy.memmap)
        made = numpy.ndarray.__new__(kind, shape, dtype, raw, 0, strides)
        for name in ("_mmap", "filename", "offset", "mode"):
            setattr(made, name, getattr(view, name, None))
        made.offset = offset
        array = made
    if not writeable:
        array.flags.writeable = False
    return array
