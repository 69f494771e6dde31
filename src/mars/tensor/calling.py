"""Functions of numpy and Dask as functions of tensors.

Tensors among the arguments become arrays of Dask, and arrays among the results become tensors.
``chunk_size``, ``gpu``, ``sparse`` and ``out`` of the original are dealt with here, once for all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from mars.config import option_values
from mars.settings import TENSOR_CHUNK_BYTES
from mars.tensor import names
from mars.tileables.tileable import Tileable, unwrap, wrap


def chunks_for(shape: Sequence[Any], dtype: Any, chunk_size: Any = None) -> Any:
    """The chunks of a new array. They do not depend on the number of cores.

    Parameters
    ----------
    shape : sequence of int
        The lengths of the axes.
    dtype : dtype
        The type.
    chunk_size : int, tuple, dict or None
        What the program asks for. Default: ``mars.options.chunk_size``, and if that is None, chunks
        of `TENSOR_CHUNK_BYTES`.
    """
    import numpy
    from dask.array.core import normalize_chunks

    chosen = option_values()["chunk_size"] if chunk_size is None else unwrap(chunk_size)
    kind = numpy.dtype(float if dtype is None else dtype)
    if chosen is None:
        chosen, kind = "auto", kind if not kind.hasobject and kind.itemsize else numpy.dtype(float)
    elif isinstance(chosen, dict):
        chosen = tuple(chosen.get(axis, -1) for axis in range(len(shape)))
    elif isinstance(chosen, (tuple, list)) and len(chosen) < len(shape):
        chosen = (*chosen, *(-1 for _ in range(len(shape) - len(chosen))))
    return normalize_chunks(chosen, tuple(shape), limit=TENSOR_CHUNK_BYTES, dtype=kind)


def drop_hints(kwargs: dict[str, Any]) -> None:
    """Take out arguments of the original that ask for what is not there.

    Raises
    ------
    NotImplementedError
        A GPU or a sparse array is asked for.
    """
    if kwargs.pop("gpu", None):
        raise NotImplementedError("tensors on a GPU are not there; leave gpu= away")
    if kwargs.pop("sparse", None):
        raise NotImplementedError(
            "sparse tensors are not there; use dense ones, or scipy.sparse in map_chunk()"
        )
    if "combine_size" in kwargs:
        kwargs["split_every"] = kwargs.pop("combine_size")


def lowered(value: Any) -> Any:
    """An argument as Dask takes it: arrays of Dask for tensors, also within lists."""
    found = unwrap(value)
    if hasattr(found, "to_dask_array"):  # a frame
        import dask

        with dask.config.set({"dataframe.shuffle.method": "tasks"}):  # as in mars.dataframe.parts
            return found.to_dask_array()
    return found


def of_dask(name: str, func: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `dask.array` as one of `mars.tensor`."""
    creating = name in names.CREATING

    @functools.wraps(func, assigned=("__doc__",), updated=())
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if creating:
            _take_chunks(name, args, kwargs)
        elif "chunk_size" in kwargs and kwargs.pop("chunk_size") is not None:
            raise TypeError(f"{name}() takes no chunk_size; use tensor(..., chunk_size=)")
        if name == "meshgrid":
            kwargs.pop("gpu", None)
        else:
            drop_hints(kwargs)
        if kwargs.get("order", "K") in ("C", "K", "A") and name != "reshape":
            kwargs.pop("order", None)
        given = [array_like(lowered(one)) for one in args]
        more = {key: lowered(one) for key, one in kwargs.items()}
        return placed(func(*given, **more), out)

    return _named(call, name)


def public(name: str, func: Callable[..., Any]) -> Callable[..., Any]:
    """A function of our own as one of `mars.tensor`."""

    @functools.wraps(func, assigned=("__doc__",), updated=())
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        drop_hints(kwargs)
        return placed(func(*args, **kwargs), out)

    return _named(call, name)


def of_whole(name: str, func: Callable[..., Any], ndim: int | None) -> Callable[..., Any]:
    """A function of numpy that one call runs on the whole arrays."""

    @functools.wraps(func, assigned=("__doc__",), updated=())
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        drop_hints(kwargs)
        return placed(whole(func, args, kwargs, ndim), out)

    return _named(call, name)


def whole(
    func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], ndim: int | None = None,
    dtype: Any = None,
) -> Any:  # fmt: skip
    """The result of one call that gets whole arrays, as an array of Dask.

    Without ``ndim`` or ``dtype`` they are found out by a call of ``func`` with arrays of ones that
    have one element along each axis. The shape is known once it is executed.
    """
    import dask
    import dask.array as da
    import numpy

    given = [lowered(one) for one in args]
    more = {key: lowered(one) for key, one in kwargs.items()}
    if ndim is None or dtype is None:
        small = func(*map(_small, given), **{key: _small(one) for key, one in more.items()})
        small = numpy.asarray(small)
        ndim = small.ndim if ndim is None else ndim
        dtype = small.dtype if dtype is None else dtype
    made = dask.delayed(func, pure=True)(*given, **more)
    return da.from_delayed(made, (numpy.nan,) * ndim, dtype=dtype)


def _small(value: Any) -> Any:
    import dask.array as da
    import numpy

    if isinstance(value, da.Array):
        return numpy.ones([min(3, int(n)) if n == n else 3 for n in value.shape], value.dtype)
    if type(value) in (list, tuple):
        return type(value)([_small(one) for one in value])
    return value


def placed(value: Any, out: Any = None) -> Any:
    """A result as a tensor, in ``out`` if that is given."""
    import numpy

    if isinstance(value, (numpy.ndarray, numpy.generic)):
        import dask.array as da

        value = da.from_array(numpy.asarray(value), chunks=-1)
    made = value if isinstance(value, Tileable) else wrap(value)
    if type(value) in (list, tuple):
        made = type(value)([placed(one) for one in value])
        if type(made) is tuple:
            from mars.calls.objects import ExecutableTuple

            if made and all(isinstance(one, Tileable) for one in made):
                made = ExecutableTuple(made)
    if out is None:
        return made
    targets = out if isinstance(out, tuple) else (out,)
    results = made if isinstance(made, tuple) else (made,)
    for target, one in zip(targets, results, strict=True):
        if not isinstance(target, Tileable):
            raise TypeError(f"out has to be a tensor, got {type(target).__name__}")
        kind = wrap(target.lazy).dtype
        target.become(one if one.dtype == kind else one.astype(kind))
    return out


def array_like(value: Any) -> Any:
    """Lists of arrays of Dask stay; lists of numbers become arrays, as numpy takes them."""
    if type(value) is list and value and _plain(value):
        import numpy

        return numpy.asarray(value)
    return value


def _plain(value: Any) -> bool:
    if type(value) is list:
        return all(map(_plain, value))
    return isinstance(value, (int, float, complex, bool)) and not isinstance(value, str)


def _take_chunks(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    size = kwargs.pop("chunk_size", None)
    if size is None:
        size = option_values()["chunk_size"]
    if size is not None:
        kwargs["chunks"] = unwrap(size)
    elif "chunks" not in kwargs and name in ("arange", "linspace"):
        kwargs["chunks"] = TENSOR_CHUNK_BYTES // 8


def _named(func: Callable[..., Any], name: str) -> Callable[..., Any]:
    func.__name__ = func.__qualname__ = name
    func.__module__ = "mars.tensor"
    return func


__all__ = [
    "array_like", "chunks_for", "drop_hints", "lowered", "of_dask", "of_whole", "placed",
    "public", "whole",
]  # fmt: skip
