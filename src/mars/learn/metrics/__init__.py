"""scikit-learn's `sklearn.metrics` with tensors and frames; see `mars.learn.facade`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from mars.learn.facade import names_of, of_function

if TYPE_CHECKING:
    import numpy

Block: TypeAlias = "numpy.ndarray[tuple[int, int], numpy.dtype[numpy.float64]]"


def _topk(
    X: object, Y: object = None, k: int = 5, metric: str = "euclidean", *, axis: int = 1,
    working_memory: float | None = None, metric_kwargs: dict[str, object] | None = None,
) -> tuple[object, object]:  # fmt: skip
    """The ``k`` smallest distances of each row to other rows, and which rows these are."""
    import numpy
    from sklearn.metrics import pairwise_distances_chunked

    if axis == 0:
        X, Y = (X if Y is None else Y), X
    elif axis != 1:
        raise ValueError(f"axis has to be 0 or 1, got {axis!r}")

    def nearest(block: Block, _: int) -> object:
        found = numpy.argsort(block, axis=1, kind="stable")[:, :k]
        return numpy.take_along_axis(block, found, axis=1), found

    blocks = pairwise_distances_chunked(
        X, Y, reduce_func=nearest, metric=metric, working_memory=working_memory,
        **(metric_kwargs or {}),
    )  # fmt: skip
    distances, places = zip(*blocks, strict=True)
    return numpy.concatenate(distances), numpy.concatenate(places)


_topk.__name__ = _topk.__qualname__ = "pairwise_distances_topk"

__getattr__, __dir__ = names_of(
    "sklearn.metrics", {"pairwise_distances_topk": of_function(_topk, always=True)}, always=True
)
