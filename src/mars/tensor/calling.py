"""Functions of numpy and Dask as functions of tensors.

Tensors among the arguments become arrays of Dask, and arrays among the results become tensors.
``chunk_size``, ``gpu``, ``sparse`` and ``out`` of the original are dealt with here, once for all.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from mars.config import option_values
from mars.settings import TENSOR_CHUNK_BYTES
from mars.tensor import names
from mars.tileables.tileable import Tileable, unwrap, wrap

if TYPE_CHECKING:
    from dask.array import Array
    from dask.delayed import Delayed
    from numpy import ndarray
    from numpy.typing import DTypeLike


def chunks_for(
    shape: Sequence[int], dtype: DTypeLike | None, chunk_size: object = None
) -> tuple[tuple[int, ...], ...]:
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


def drop_hints(kwargs: dict[str, object]) -> None:
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
    for hint in ("aggregate_size", "chunk_size_limit"):
        kwargs.pop(hint, None)


def lowered(value: object) -> object:
    """An argument as Dask takes it: arrays of Dask for tensors, also within lists."""
    found = unwrap(value)
    if hasattr(found, "to_dask_array"):  # a frame
        import dask

        with dask.config.set({"dataframe.shuffle.method": "tasks"}):  # as in mars.dataframe.parts
            return found.to_dask_array()
    return found


def of_dask(name: str, func: Callable[..., object]) -> Callable[..., object]:
    """A function of `dask.array` as one of `mars.tensor`.

    Where Dask refuses the arguments, one call runs numpy's function on the whole arrays. If numpy
    refuses them, too, its error is raised.
    """
    creating = name in names.CREATING
    inputs = _inputs_of(name)

    @functools.wraps(func, assigned=("__doc__",), updated=())
    def call(*args: object, out: object = None, **kwargs: object) -> object:
        if creating:
            _take_chunks(name, args, kwargs)
        elif "chunk_size" in kwargs and kwargs.pop("chunk_size") is not None:
            raise TypeError(f"{name}() takes no chunk_size; use tensor(..., chunk_size=)")
        if name == "meshgrid":
            kwargs.pop("gpu", None)
        else:
            drop_hints(kwargs)
        order = kwargs.pop("order", "K") if name not in names.OWN_ORDER else "K"
        if inputs and len(args) > inputs:
            more_args, args = args[inputs:], args[:inputs]
            out = more_args[0] if len(more_args) == 1 else more_args
        if inputs and out is None and any(map(_is_frame, args)):
            import numpy

            return getattr(numpy, name)(*args, **kwargs)
        where: object = True
        if inputs and isinstance(out, Tileable):
            where = kwargs.pop("where", True)
        given = [lowered(one) for one in args]
        if name != "einsum":  # whose lists number axes
            given = [array_like(one) for one in given]
        more = {key: lowered(one) for key, one in kwargs.items()}
        if name in names.KEEPS_ORDER and order == "K" and any(map(_is_by_columns, given)):
            order = "F"
        made = in_order(_run(name, func, given, more), order)
        if where is not True and isinstance(out, Tileable):
            import dask.array as da

            made = da.where(lowered(where), made, out.lazy)
        return placed(made, out)

    return _named(call, name)


def _run(
    name: str, func: Callable[..., object], given: list[object], more: dict[str, object]
) -> object:
    if _inputs_of(name):
        chunked = [_chunked(one, False) for one in given]
    elif given and name not in names.TAKES_LISTS and name not in names.CREATING:
        chunked = [_chunked(given[0], True), *given[1:]]
    else:
        chunked = given
    try:
        kind = getattr(chunked[0], "dtype", None) if name in names.OF_NUMBERS else None
        if getattr(kind, "hasobject", False):
            raise TypeError(f"{name}() of objects needs numbers")
        if name in names.KEEPS_ORDER and math.isnan(sum(getattr(chunked[0], "shape", ()))):
            raise ValueError(f"{name}() takes no chunks that may be empty")
        made = func(*chunked, **more)
        if made is NotImplemented:
            raise TypeError(f"{name}() does not take these")
    except Exception as refused:
        import numpy

        plain = getattr(numpy, name, None)
        if plain is None:
            raise
        try:
            made = whole(plain, given, more, varying=name in names.VARYING)
        except Exception as wrong:
            # Of arrays that are not small, made-up parts were tried, and say nothing certain.
            raise (wrong if _are_small((*given, *more.values())) else refused) from None
    if name == "linspace" and isinstance(made, tuple):
        import numpy

        return made[0], numpy.asarray(made[1])
    if name == "gradient" and isinstance(made, (list, tuple)) and len(made) == 1:
        return made[0]  # of one axis numpy gives an array, and Dask a list
    if isinstance(made, (bool, int, float, complex)) and name not in names.PLAIN:
        import numpy

        return numpy.asarray(made)
    return made


def _inputs_of(name: str) -> int:
    """How many arguments a ufunc of numpy takes; what follows is ``out``. 0: it is no ufunc."""
    import numpy

    found = getattr(numpy, name, None)
    return found.nin if isinstance(found, numpy.ufunc) else 0


def _chunked(value: object, numbers: bool) -> object:
    """An array of Dask for what numpy takes as one.

    Numbers are left alone unless ``numbers``: beside an array they must not decide the type.
    """
    import dask.array as da
    import numpy

    if (type(value) is list or type(value) is tuple) and any(
        isinstance(one, da.Array) for one in value
    ):
        return da.stack([da.asarray(one) for one in value], allow_unknown_chunksizes=True)
    several = isinstance(value, list) or (type(value) is tuple and _plain(value))
    if (
        several
        or (isinstance(value, numpy.ndarray) and (value.ndim or numbers))
        or (numbers and isinstance(value, (bool, int, float, complex, numpy.generic)))
    ):
        array = numpy.asarray(value)
        return da.from_array(array, chunks=chunks_for(array.shape, array.dtype))
    return value


@overload
def in_order(made: Array, order: object) -> Array: ...


@overload
def in_order(made: object, order: object) -> object: ...


def in_order(made: object, order: object) -> object:
    """An array of Dask whose chunks have an order in memory: "F" by columns, "C" by rows.

    "A" and "K" leave them as they are. A fetched tensor of such chunks has the same order.
    """
    import dask.array as da
    import numpy

    if isinstance(made, tuple):
        return tuple(in_order(one, order) for one in made)
    if order not in ("C", "F") or not isinstance(made, da.Array) or made.ndim < 2:
        return made
    func = numpy.asfortranarray if order == "F" else numpy.ascontiguousarray
    if order == "C" and made._meta is not None and not may_be_by_columns(made):
        return made
    return made.map_blocks(func, dtype=made.dtype, meta=made._meta)


def _is_frame(value: object) -> bool:
    return isinstance(value, Tileable) and value.kind in ("DataFrame", "Series", "Index")


def _is_by_columns(value: object) -> bool:
    import dask.array as da

    return isinstance(value, da.Array) and may_be_by_columns(value)


def may_be_by_columns(made: Array) -> bool:
    """Whether something that an array of Dask is made of was put by columns in memory."""
    return bool(made.dask.layers) and any("asfortranarray" in name for name in made.dask.layers)


def public(name: str, func: Callable[..., object]) -> Callable[..., object]:
    """A function of our own as one of `mars.tensor`."""

    @functools.wraps(func, assigned=("__doc__",), updated=())
    def call(*args: object, out: object = None, **kwargs: object) -> object:
        drop_hints(kwargs)
        return placed(func(*args, **kwargs), out)

    return _named(call, name)


def of_whole(name: str, func: Callable[..., object], ndim: int | None) -> Callable[..., object]:
    """A function of numpy that one call runs on the whole arrays."""

    @functools.wraps(func, assigned=("__doc__",), updated=())
    def call(*args: object, out: object = None, **kwargs: object) -> object:
        drop_hints(kwargs)
        return placed(whole(func, args, kwargs, ndim), out)

    return _named(call, name)


@overload
def whole(
    func: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object], ndim: int,
    dtype: DTypeLike | None = None, varying: bool = True,
) -> Array: ...  # fmt: skip


@overload
def whole(
    func: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object],
    ndim: int | None = None, dtype: DTypeLike | None = None, varying: bool = True,
) -> Array | tuple[Array, ...]: ...  # fmt: skip


def whole(
    func: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object],
    ndim: int | None = None, dtype: DTypeLike | None = None, varying: bool = True,
) -> Array | tuple[Array, ...]:  # fmt: skip
    """The result of one call that gets whole arrays, as an array of Dask, or several.

    Parameters
    ----------
    func : callable
        Gets arrays of numpy.
    args, kwargs
        Its arguments; tensors and arrays of Dask among them become arrays.
    ndim, dtype : optional
        What the result looks like. Without these they are found out by a call of ``func`` with
        arrays of ones; large ones have few elements along each axis.
    varying : bool, default True
        Whether the shape of the result depends on values. It is known only once it is executed
        then, or if the arrays are large.
    """
    import dask
    import dask.array as da
    import numpy

    given = [lowered(one) for one in args]
    more = {key: lowered(one) for key, one in kwargs.items()}
    known = not varying and _are_small((*given, *more.values()))
    small: object = None
    if ndim is None or dtype is None or known:
        with numpy.errstate(all="ignore"):
            small = func(*map(_small, given), **{key: _small(one) for key, one in more.items()})
    made = dask.delayed(func, pure=True)(*given, **more)
    if ndim is None and type(small) is not numpy.ndarray and isinstance(small, (tuple, list)):
        return tuple(
            _whole_part(made[i], numpy.asarray(one), known, None, None)
            for i, one in enumerate(small)
        )
    if small is None:
        return da.from_delayed(made, (numpy.nan,) * int(ndim or 0), dtype=dtype)
    return _whole_part(made, numpy.asarray(small), known, ndim, dtype)


def _whole_part(
    made: Delayed, small: ndarray, known: bool, ndim: int | None, dtype: DTypeLike | None
) -> Array:
    import dask.array as da
    import numpy

    count = small.ndim if ndim is None else ndim
    shape = small.shape if known and count == small.ndim else (numpy.nan,) * count
    return da.from_delayed(made, shape, dtype=small.dtype if dtype is None else dtype)


def _small(value: object) -> object:
    import dask.array as da
    import numpy

    if isinstance(value, da.Array):
        lengths = [int(n) if n == n else 3 for n in value.shape]
        if not _is_small(value):
            lengths = [min(3, n) for n in lengths]
        if value.dtype.kind in "OSU":
            return numpy.full(lengths, "1", dtype=value.dtype)
        return numpy.ones(lengths, value.dtype)
    if type(value) is list or type(value) is tuple:
        return type(value)([_small(one) for one in value])
    if type(value) is dict:
        return {key: _small(one) for key, one in value.items()}
    return value


def _is_small(value: Array) -> bool:
    return bool(value.size <= names.TRIED_ELEMENTS)  # nan: it is not


def _are_small(value: object) -> bool:
    """Whether all arrays of Dask among the arguments are small, and their lengths known."""
    import dask.array as da

    if isinstance(value, da.Array):
        return _is_small(value)
    if type(value) is list or type(value) is tuple:
        return all(map(_are_small, value))
    if type(value) is dict:
        return all(map(_are_small, value.values()))
    return True


@overload
def placed(value: Array, out: None = None) -> Tileable: ...


@overload
def placed(value: object, out: object = None) -> object: ...


def placed(value: object, out: object = None) -> object:
    """A result as a tensor, in ``out`` if that is given."""
    import dask.array as da
    import numpy

    if isinstance(value, (numpy.ndarray, numpy.generic)):
        value = da.from_array(numpy.asarray(value), chunks=-1)
    made = value if isinstance(value, Tileable) else wrap(value)
    if type(value) is list or type(value) is tuple:
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
        if not isinstance(target, Tileable) or not isinstance(target.lazy, da.Array):
            raise TypeError(f"out has to be a tensor, got {type(target).__name__}")
        new, old = da.asarray(unwrap(one)), target.lazy
        _check_fits(new, old)
        fits = isinstance(one, Tileable) and new.dtype == old.dtype
        target.become(one if fits else wrap(new.astype(old.dtype)))
    return out


def _check_fits(made: Array, target: Array) -> None:
    shapes = made.shape, target.shape
    if shapes[0] != shapes[1] and all(n == n for shape in shapes for n in shape):
        raise ValueError(f"output tensor has shape {shapes[1]}, but the result has {shapes[0]}")


def fetched(value: object) -> Any:
    """The values in the place of tensors and frames, which are executed for that."""
    if isinstance(value, Tileable):
        return value.executed_value()
    if type(value) is list or type(value) is tuple:
        return type(value)([fetched(one) for one in value])
    return value


def ndim_of(value: object) -> int:
    """How many axes something has."""
    import numpy

    known = getattr(value, "ndim", None)
    return known if isinstance(known, int) else numpy.asarray(value).ndim


def array_like(value: object) -> object:
    """Lists of arrays of Dask stay; lists of numbers become arrays, as numpy takes them."""
    if type(value) is list and value and _plain(value):
        import numpy

        with contextlib.suppress(ValueError):  # lengths differ: then the function says so
            return numpy.asarray(value)
    return value


def _plain(value: object) -> bool:
    if type(value) is list or type(value) is tuple:
        return all(map(_plain, value))
    return isinstance(value, (int, float, complex, bool))


def _take_chunks(name: str, args: Sequence[object], kwargs: dict[str, object]) -> None:
    size = kwargs.pop("chunk_size", None)
    if size is None:
        size = option_values()["chunk_size"]
    if size is not None:
        kwargs["chunks"] = unwrap(size)
    elif "chunks" not in kwargs and name in ("arange", "linspace"):
        kwargs["chunks"] = TENSOR_CHUNK_BYTES // 8


def _named(func: Callable[..., object], name: str) -> Callable[..., object]:
    func.__name__ = func.__qualname__ = name
    func.__module__ = "mars.tensor"
    return func


__all__ = [
    "array_like", "chunks_for", "drop_hints", "fetched", "in_order", "lowered",
    "may_be_by_columns", "ndim_of", "of_dask", "of_whole", "placed", "public", "whole",
]  # fmt: skip
