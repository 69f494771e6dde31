"""scikit-learn's `sklearn.utils` with tensors and frames; see `mars.learn.facade`.

`shuffle` takes ``axes``, as that of the original does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mars.learn.facade import names_of, of_function

if TYPE_CHECKING:
    import numpy


def _shuffle(
    *arrays: object, random_state: int | numpy.random.RandomState | None = None,
    n_samples: int | None = None, axes: int | Iterable[int] = 0,
) -> object:  # fmt: skip
    """Arrays and frames in random order along axes; along an axis all have the same order."""
    import numpy
    from sklearn.utils import _safe_indexing, check_random_state, resample

    wanted = (axes,) if isinstance(axes, int) else tuple(axes)
    if wanted == (0,):
        return resample(*arrays, replace=False, n_samples=n_samples, random_state=random_state)
    source = check_random_state(random_state)
    made = list(arrays)
    for axis in wanted:
        order: dict[int, numpy.ndarray] = {}
        for i, one in enumerate(made):
            length = getattr(one, "shape", numpy.shape(numpy.asarray(one)))[axis]
            places = order.setdefault(length, source.permutation(length))
            if axis == 0:
                places = places[:n_samples]
            made[i] = _safe_indexing(one, places, axis=axis)
    return made[0] if len(made) == 1 else made


_shuffle.__name__ = _shuffle.__qualname__ = "shuffle"

__getattr__, __dir__ = names_of("sklearn.utils", {"shuffle": of_function(_shuffle)})
