"""Functions of `scipy.special` on tensors, element by element: ``mt.special.erf(a)``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from mars.tensor.calling import lowered, placed, whole

if TYPE_CHECKING:
    from dask.array import Array


_ALONG: Final = frozenset({"log_softmax", "logsumexp", "softmax"})
"""Functions that look at several elements; one call gets the whole array."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from scipy import special

    func = getattr(special, name, None)
    if func is None:
        raise AttributeError(f"module 'mars.tensor.special' has no attribute {name!r}")
    if not callable(func):
        return func

    def call(*args: object, out: object = None, **kwargs: object) -> object:
        import dask.array as da
        import numpy

        given = [lowered(one) for one in args]
        if name in _ALONG:
            return placed(
                whole(func, [da.asarray(given[0]), *given[1:]], kwargs, varying=False), out
            )
        arrays = _arrays(given)
        kind: dict[str, object] = {"dtype": numpy.float64}
        with contextlib.suppress(Exception):  # then the call of a chunk says what is wrong
            small = func(*[numpy.ones((1,) * one.ndim, one.dtype) if isinstance(one, da.Array)
                           else one for one in arrays], **kwargs)  # fmt: skip
            if isinstance(small, tuple):
                return placed(whole(func, arrays, kwargs, varying=False), out)
            kind = {}  # Dask finds it out in the same way
        return placed(da.map_blocks(func, *arrays, **kwargs, **kind), out)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = func.__doc__
    return call


def _arrays(given: list[object]) -> list[object]:
    """Arrays of one shape and the same chunks, which `map_blocks` then takes one by one."""
    import dask.array as da
    import numpy

    made = [
        da.asarray(one) if isinstance(one, (da.Array, list, tuple, numpy.ndarray)) else one
        for one in given
    ]
    arrays = [one for one in made if isinstance(one, da.Array)]
    if not arrays:
        made[0] = da.asarray(given[0])
        return made
    if len(arrays) > 1:
        same = iter(
            da.core.unify_chunks_of(arrays)
            if hasattr(da.core, "unify_chunks_of")
            else _unified(arrays)
        )
        made = [next(same) if isinstance(one, da.Array) else one for one in made]
    return made


def _unified(arrays: list[Array]) -> list[Array]:
    import dask.array as da

    first, *others = da.broadcast_arrays(*arrays)
    return [first, *(one.rechunk(first.chunks) for one in others)]


def __dir__() -> list[str]:
    from scipy import special

    return sorted(name for name in dir(special) if not name.startswith("_"))
