"""What is behind a name of `mars.tensor`: the tables of `mars.tensor.names`, looked up.

`mars.tensor` asks it for its names, and `mars.tensor.core` for the methods of a tensor.
"""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Callable
from typing import Any

from mars.tensor import creation, files, own, ranking, tricks
from mars.tensor.calling import of_dask, of_whole, public
from mars.tensor.names import (
    DASK,
    INDEX_TRICKS,
    METHODS,
    MISSING,
    MODULES,
    OWN,
    RENAMED,
    RENAMED_VALUES,
    VALUES,
    WHOLE,
)


def find(name: str) -> Any:
    """What a name of `mars.tensor` is; None: it has no such name.

    Raises
    ------
    NotImplementedError
        The original or numpy has it, and it is not there. The message says what to use.
    """
    if name in OWN:
        home = next(one for one in (creation, own, ranking, files) if hasattr(one, name))
        return public(name, getattr(home, name))
    if name in DASK or name in RENAMED:
        import dask.array as da

        return of_dask(name, getattr(da, RENAMED.get(name, name)))
    if name in WHOLE:
        import numpy

        return of_whole(name, getattr(numpy, name), WHOLE[name])
    if name in INDEX_TRICKS:
        return getattr(tricks, name)
    if name in VALUES or name in RENAMED_VALUES:
        import numpy

        found: object = numpy
        for part in RENAMED_VALUES.get(name, name).split("."):
            found = getattr(found, part)
        return found
    if name == "NINF":
        return -float("inf")
    if name in MODULES:
        return importlib.import_module(f"mars.tensor.{name}")
    if name.startswith("__"):
        return None
    import numpy

    if name in MISSING or callable(getattr(numpy, name, None)):
        hint = MISSING.get(name, f"fetch the values and call numpy.{name}, or use map_chunk()")
        raise NotImplementedError(f"mars.tensor.{name} is not there: {hint}")
    return None


def call(name: str, *args: object, **kwargs: object) -> Any:
    """Call a function of `mars.tensor`."""
    return find(name)(*args, **kwargs)


def method(name: str) -> Callable[..., object] | None:
    """The function behind a method of a tensor. None: there is no such method."""
    if name not in METHODS:
        return None
    found: Callable[..., object] = find(name)
    return found


def public_names() -> list[str]:
    """All names of `mars.tensor`, sorted."""
    return sorted(
        {*OWN, *DASK, *RENAMED, *WHOLE, *INDEX_TRICKS, *VALUES, *RENAMED_VALUES, *MODULES, "NINF"}
        | {"Tensor", "ExecutableTuple"}
    )


def starred_names() -> list[str]:
    """What ``from mars.tensor import *`` brings: names that Python itself has stay Python's."""
    return [name for name in public_names() if not hasattr(builtins, name)]


__all__ = ["call", "find", "method", "public_names", "starred_names"]
