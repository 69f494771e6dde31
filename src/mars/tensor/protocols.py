"""What numpy asks a tensor to do for its functions: `__array_ufunc__` and `__array_function__`.

A function that `mars.tensor` has makes a tensor. Any other function of numpy gets the values.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from mars.tensor import find
from mars.tensor.calling import array_like, fetched, lowered, placed, whole


def ufunc(func: Any, method: str, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What numpy asks a tensor to do for one of its ufuncs."""
    import numpy

    out = kwargs.pop("out", None)
    given = [array_like(lowered(one)) for one in inputs]
    more = {key: lowered(one) for key, one in kwargs.items()}
    if any(isinstance(one, numpy.ndarray) for one in out or ()):
        value = getattr(func, method)(*[fetched(one) for one in inputs], **more)
        out[0][...] = value
        return out[0]
    if method == "__call__":
        made = placed(func(*given, **more), None)
    else:
        made = placed(whole(getattr(func, method), given, more, varying=False))
    if out is None:
        return made
    return placed(made if isinstance(made, tuple) else (made,), out)[0]


def numpy_function(func: Any, args: Any, kwargs: Any) -> Any:
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
    if found is not None:
        return found(*args, **kwargs)
    return func(*fetched(args), **{key: fetched(one) for key, one in kwargs.items()})


__all__ = ["numpy_function", "ufunc"]
