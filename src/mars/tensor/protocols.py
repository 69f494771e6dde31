"""What numpy asks a tensor to do for its functions: `__array_ufunc__` and `__array_function__`.

A function that `mars.tensor` has makes a tensor. Any other function of numpy gets the values.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mars.tensor import find
from mars.tensor.calling import array_like, fetched, lowered, placed, whole

if TYPE_CHECKING:
    from numpy import ufunc as numpy_ufunc


def ufunc(
    func: numpy_ufunc, method: str, inputs: Sequence[object], kwargs: dict[str, object]
) -> object:
    """What numpy asks a tensor to do for one of its ufuncs."""
    import numpy

    given_out = kwargs.pop("out", None)
    out = given_out if isinstance(given_out, tuple) else ()
    given = [array_like(lowered(one)) for one in inputs]
    more = {key: lowered(one) for key, one in kwargs.items()}
    target = out[0] if out else None
    if isinstance(target, numpy.ndarray):
        target[...] = getattr(func, method)(*[fetched(one) for one in inputs], **more)
        return target
    if method == "__call__":
        made = placed(func(*given, **more), None)
    else:
        made = placed(whole(getattr(func, method), given, more, varying=False))
    if not out:
        return made
    placed(made if isinstance(made, tuple) else (made,), out)
    return target


def numpy_function(
    func: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> object:
    """What numpy asks a tensor to do for one of its functions."""
    module = func.__module__ or ""
    if module in ("numpy.linalg", "numpy.fft"):
        place = importlib.import_module(f"mars.tensor.{module.rpartition('.')[2]}")
        found = getattr(place, func.__name__, None)
    else:
        try:
            found = find.find(func.__name__)
        except NotImplementedError:
            found = None
    if found is not None and func.__name__ == "cholesky":
        return found(*args, lower=not kwargs.get("upper", False))  # numpy's default is the other
    if found is not None:
        return found(*args, **kwargs)
    return func(*map(fetched, args), **{key: fetched(one) for key, one in kwargs.items()})


__all__ = ["numpy_function", "ufunc"]
