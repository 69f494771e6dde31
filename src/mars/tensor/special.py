"""Functions of `scipy.special` on tensors, element by element: ``mt.special.erf(a)``."""

from __future__ import annotations

from typing import Any

from mars.tensor.calling import lowered, placed


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from scipy import special

    func = getattr(special, name, None)
    if func is None:
        raise AttributeError(f"module 'mars.tensor.special' has no attribute {name!r}")
    if not callable(func):
        return func

    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        import dask.array as da

        given = [lowered(one) for one in args]
        if name == "softmax" or name == "logsumexp":
            raise NotImplementedError(
                f"mars.tensor.special.{name} is not there: compute it with exp(), sum() and log()"
            )
        return placed(da.map_blocks(func, *_arrays(given), **kwargs), out)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = func.__doc__
    return call


def _arrays(given: list[Any]) -> list[Any]:
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


def _unified(arrays: list[Any]) -> list[Any]:
    import dask.array as da

    first, *others = da.broadcast_arrays(*arrays)
    return [first, *(one.rechunk(first.chunks) for one in others)]


def __dir__() -> list[str]:
    from scipy import special

    return sorted(name for name in dir(special) if not name.startswith("_"))
