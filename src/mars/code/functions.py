"""A function as it travels: pickled once, known by its content, pickled again when that changes."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Final

from mars.code.digest import blake2b
from mars.code.keepers import Keeper
from mars.code.needs import packages_of
from mars.code.origin import found
from mars.code.pickling import Memory, dumps_function
from mars.task import Function

_described: Final = Memory[Function]()


def name_of(func: object) -> str:
    """What to call a function in logs and errors."""
    while isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return str(name).rpartition("<locals>.")[2]


def describe(func: object, keep_factory: Callable[[], Keeper]) -> Function:
    """The function as it travels, from memory where nothing that it refers to has changed.

    Parameters
    ----------
    func : callable
        What to pickle.
    keep_factory : callable
        Makes a collector of large buffers.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    known = _described.known.get(id(func))
    if (
        known is not None
        and known.reference() is func
        and known.reach.unchanged()
        and _may_be_kept(func)
    ):
        return known.made
    keep = keep_factory()
    data, reach = dumps_function(func, keep)
    buffers = tuple(keep.buffers)
    digest = blake2b(data, digest_size=16)
    for buffer in buffers:
        # By identity, not by content: hashing a large array at each spawn would cost more than
        # the call. An identity is unique only as long as its object lives, so engines must not
        # take such a key for the same function beyond the run whose calls hold it.
        view = buffer.raw()
        digest.update(f"{id(view.obj)}:{view.nbytes}".encode())
    function = Function(digest.digest(), name_of(func), data, buffers)
    # What is asked for later keeps code and names, not the values that the function refers to.
    function.packages = functools.partial(
        packages_of, tuple(reach.codes), tuple(reach.modules), tuple(reach.installed)
    )
    if reach.modules:
        with contextlib.suppress(TypeError):
            function.origin = weakref.ref(func)
    if _may_be_kept(func) and reach.stable and not buffers:
        _described.put(func, reach, function)
    return function


def _may_be_kept(func: object) -> bool:
    """Whether all that its pickle says is seen by `Reach.unchanged`, or is its name alone.

    By its name alone a function in C is pickled, as long as its module has it.
    """
    return type(func) is FunctionType or (
        type(func) is BuiltinFunctionType
        and type(func.__self__) is ModuleType
        and found(func.__module__, func.__name__) is func
    )
