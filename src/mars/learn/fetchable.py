"""Arrays of numpy that programs of the original can execute and fetch: ``model.labels_.fetch()``.

The original gives tensors for what a model has learned. Here it is an array that the program has,
with the methods of a tensor that such programs call. Estimators and wrappers make them. Numpy is
loaded when the first one is made.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy


@functools.cache
def _kind() -> type[numpy.ndarray]:
    import numpy

    class Fetchable(numpy.ndarray):
        """An array of numpy with `execute`, `fetch` and `to_numpy`."""

        def execute(self, *_: object, **__: object) -> Self:
            return self

        def fetch(self, *_: object, **__: object) -> numpy.ndarray:
            return numpy.asarray(self)

        to_numpy = fetch

        def __repr__(self) -> str:
            return repr(numpy.asarray(self))

    Fetchable.__qualname__ = "Fetchable"  # a pickle finds it by its name
    return Fetchable


def __getattr__(name: str) -> object:
    if name != "Fetchable":
        raise AttributeError(f"module 'mars.learn.fetchable' has no attribute {name!r}")
    return _kind()


def fetchable(value: object) -> object:
    """A plain array as one that can be fetched, also within a tuple. All else stays as it is."""
    import numpy

    if type(value) is numpy.ndarray and value.ndim:
        return value.view(_kind())
    if type(value) is tuple:
        return tuple(map(fetchable, value))
    return value


def plain(value: object) -> object:
    """The array of numpy that can be fetched as one that cannot."""
    import numpy

    return value.view(numpy.ndarray) if isinstance(value, _kind()) else value


__all__ = ["fetchable", "plain"]
