"""What numpy asks a tensor to do for its functions: `__array_ufunc__` and `__array_function__`.

A function that `mars.tensor` has makes a tensor. Any other function of numpy gets the values.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from mars.tensor import find
from mars.tensor.calling import array_like, lowered, placed
from mars.tileables.tileable import Tileable


def ufunc(func: Any, method: str, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What numpy asks a tensor to do for one of its ufuncs."""
    import numpy

    out = kwargs.pop("out", None)
    given = [array_like(lowered(one)) for one in inputs]
    more = {key: lowered(one) for key, one in kwargs.items()}
    if any(isinstance(one, numpy.ndarray) for one in out or ()):
        value = getattr(func, method)(*[_fetched(one) for one in inputs], **more)
        out[0][...] = value
        return out[0]
    made = placed(getattr(func, method)(*given, **more), None)
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
    return func(*_fetched(args), **{key: _fetched(one) for key, one in kwargs.items()})


def _fetched(value: Any) -> Any:
    if isinstance(value, Tileable):
        return value.executed_value()
    if type(value) in (list, tuple):
        return type(value)([_fetched(one) for one in value])
    return value


__all__ = ["numpy_function", "ufunc"]
