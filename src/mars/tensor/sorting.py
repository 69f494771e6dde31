"""Sorting a long tensor of one axis in parallel: by samples, as the original does it.

Each chunk is sorted and gives some samples. The samples say where to cut, so that each part of the
result has elements of one range. Each part is then merged from its pieces of all chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dask.array import Array
    from numpy import ndarray


def sorted_by_samples(given: Array) -> Array:
    """A sorted array of Dask; the lengths of its chunks are known once it was executed."""
    import dask
    import dask.array as da
    import numpy

    count = given.numblocks[0]
    chunks = [dask.delayed(numpy.sort)(one) for one in given.to_delayed()]
    samples = [dask.delayed(_samples)(one, count) for one in chunks]
    cuts = dask.delayed(_cuts)(samples, count)
    pieces = [dask.delayed(_pieces, nout=count)(one, cuts) for one in chunks]
    parts = [dask.delayed(_merged)([one[i] for one in pieces]) for i in range(count)]
    arrays = [da.from_delayed(one, (numpy.nan,), dtype=given.dtype) for one in parts]
    return da.concatenate(arrays, allow_unknown_chunksizes=True)


def _samples(chunk: ndarray, count: int) -> ndarray:
    import numpy

    if not len(chunk):
        return chunk
    places = numpy.linspace(0, len(chunk) - 1, min(len(chunk), 16 * count)).astype(numpy.intp)
    return chunk[places]


def _cuts(samples: list[ndarray], count: int) -> ndarray:
    import numpy

    whole: ndarray = numpy.sort(numpy.concatenate(samples))
    if not len(whole):
        return whole
    return whole[(numpy.arange(1, count) * len(whole)) // count]


def _pieces(chunk: ndarray, cuts: ndarray) -> list[ndarray]:
    import numpy

    places = numpy.searchsorted(chunk, cuts)
    if not len(cuts):
        places = numpy.zeros(0, numpy.intp)
    return numpy.split(chunk, places)


def _merged(pieces: list[ndarray]) -> ndarray:
    import numpy

    return numpy.sort(numpy.concatenate(pieces), kind="stable")


__all__ = ["sorted_by_samples"]
