"""Exceptions as values: arguments, results, and what code refers to.

An exception says of itself that it is made by a call of its class with its ``args``. That is wrong
of a class whose ``__init__`` wants other arguments, or makes the message of them. So such an
exception is made without its class's own code, as the raised ones are in `mars.attempt.failure`.
Called by `mars.code.special`.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from types import MethodDescriptorType
from typing import Final

from mars.code.changes import HEAP_TYPE

_WITH_NAME: Final = (AttributeError, NameError)
"""What keeps a name beside its arguments, and does not say so when it is pickled (3.11)."""


def builtin_base(cls: type[BaseException]) -> type[BaseException]:
    """The class that says how the memory of an instance looks; its ``__new__`` has to be used."""
    base: type = cls
    while base.__flags__ & HEAP_TYPE:  # not by the MRO: of two builtin bases one may be above it
        assert base.__base__ is not None
        base = base.__base__
    assert issubclass(base, BaseException)
    return base


def make_exception(cls: type[BaseException], args: tuple[object, ...]) -> BaseException:
    """An exception without the ``__new__`` and ``__init__`` of a class of the program."""
    builtin = builtin_base(cls)
    error = builtin.__new__(cls, *args)
    try:
        builtin.__init__(error, *args)
    except TypeError:
        pass  # such as an OSError: all done by its __new__
    return error


def reduced(value: BaseException, table: Mapping[type, object]) -> object:
    """What is written for an exception; None: what it says itself.

    Parameters
    ----------
    value : BaseException
        The exception.
    table : mapping
        Reducers that somebody registered. Those of tblib do not count: it has one for every class
        that there is, as soon as ``distributed`` is imported, and keeps less than Python does.
    """
    kind = type(value)
    reducer = table.get(kind)
    if reducer is not None and not getattr(reducer, "__module__", "").startswith("tblib."):
        return None
    as_it_says = None if reducer is None else value.__reduce_ex__(5)
    if not _reduces_as_builtin(kind):
        return as_it_says
    state = _more_of(value)
    builtin = builtin_base(kind)
    if kind.__init__ is builtin.__init__ and kind.__new__ is builtin.__new__ and not state:
        return as_it_says
    match value.__reduce_ex__(5):
        case (maker, args) if maker is kind:
            pass
        case (maker, args, dict() as attributes) if maker is kind:
            state.update(attributes)
        case _:
            return as_it_says
    return (make_exception, (kind, args), state) if state else (make_exception, (kind, args))


def _reduces_as_builtin(kind: type) -> bool:
    """Whether no class of the program says how its exceptions pickle."""
    return (
        type(kind.__reduce__) is MethodDescriptorType
        and getattr(kind, "__reduce_ex__", None) is object.__reduce_ex__
        and kind.__setstate__ is BaseException.__setstate__  # type: ignore[attr-defined]
        and not hasattr(kind, "__getnewargs__")
        and not hasattr(kind, "__getnewargs_ex__")
    )


def _more_of(value: BaseException) -> dict[str, object]:
    """What an exception has beside its arguments and its dictionary."""
    kind = type(value)
    more: dict[str, object] = {}
    for name in copyreg._slotnames(kind):  # type: ignore[attr-defined]
        try:
            more[name] = object.__getattribute__(value, name)
        except AttributeError:
            continue
    if isinstance(value, _WITH_NAME) and value.name is not None:
        more["name"] = value.name
    return more
