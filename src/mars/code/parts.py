"""What an object refers to: attributes, slots, and what its ``__reduce__`` gives.

Called by `mars.code.reach`, and by whoever asks the same of one class.
"""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Iterable
from enum import Enum
from types import (
    CodeType,
    FunctionType,
    ModuleType,
)
from typing import Final

from mars.code.bytecode import (
    facts_of,
)  # fmt: skip
from mars.code.changes import (
    HEAP_TYPE,
)
from mars.code.modules import (
    record_of,
)  # fmt: skip
from mars.code.origin import module_of

EVERYTHING: Final = "*"
"""In place of a name of the script: code may ask for any, so all come along that can travel."""

NOT_LOOKED_AT: Final = {
    "__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__",
    "_abc_impl", "__slotnames__", "__subclasses__",
}  # fmt: skip
"""What Python keeps in a class for itself, and nobody changes in place."""


OF_BODY: Final = frozenset(
    {
        "__qualname__", "__classcell__", "__classdictcell__", "__static_attributes__",
        "__classdict__", "__type_params__", "__annotations__", "__conditional_annotations__",
    }
)  # fmt: skip
"""Names in the body of a class that the class does not have."""

OF_MEMBER: Final = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})
"""What each member of an enum has."""

OF_CLASS: Final = frozenset(
    {
        "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__slots__",
        "__orig_bases__", "__parameters__", "__match_args__", "__hash__", "__annotations_cache__",
        "__classcell__", "__firstlineno__", "__static_attributes__", "__annotate_func__",
        "__non_callable_proto_members__", "__protocol_attrs__", "__callable_proto_members_only__",
        "__required_keys__", "__optional_keys__", "__total__", "__readonly_keys__",
        "__mutable_keys__", "__type_params__", "__final__",
    }
)  # fmt: skip
"""What Python and `typing` put into a class, and nobody sets."""

_OF_IMPORT: Final = frozenset(
    {
        "__name__", "__file__", "__cached__", "__path__", "__package__", "__spec__", "__loader__",
        "__builtins__", "__annotations__",
    }
)  # fmt: skip


def names_of(namespace: Iterable[str]) -> list[str]:
    """Names of a module, ``__version__`` among them, without those that each import makes."""
    # What an interactive session gave is under "__", too.
    return [
        one
        for one in namespace
        if one not in _OF_IMPORT and (not one.startswith("__") or one.strip("_"))
    ]


_WITHOUT_CALLS: Final = frozenset(
    {
        "__name__", "__module__", "__qualname__", "auto", "enum", "member", "nonmember", "property",
        "staticmethod", "classmethod", "__doc__",
    }
)  # fmt: skip


def computes(body: CodeType) -> bool:
    """Whether the values of an enum may be others at each import, as far as its body tells."""
    return not (set(body.co_names) - facts_of(body).stored) <= _WITHOUT_CALLS


def functions_in(value: object) -> tuple[FunctionType, ...]:
    """The functions that an attribute of a class is made of."""
    if type(value) is FunctionType:
        return (value,)
    kind = type(value)  # isinstance() alone would also ask the value, which may answer anything
    if issubclass(kind, _WRAPPERS) and isinstance(value, _WRAPPERS):
        inner = value.__func__
        return (inner,) if type(inner) is FunctionType else ()
    if issubclass(kind, property) and isinstance(value, property):
        parts = (value.fget, value.fset, value.fdel)
        return tuple(part for part in parts if type(part) is FunctionType)
    if issubclass(kind, functools.cached_property) and isinstance(value, functools.cached_property):
        func: object = value.func
        return (func,) if type(func) is FunctionType else ()
    return ()


_WRAPPERS: Final = (staticmethod, classmethod)


def is_generated(func: FunctionType, cls: type) -> bool:
    """Whether a method was made for the class from text, as those of data classes are."""
    name = func.__qualname__.removeprefix(f"{cls.__qualname__}.")
    return (
        func.__code__.co_filename.startswith("<") and name.startswith("__") and name.endswith("__")
    )


def reduces_as_any_object(kind: type[object]) -> bool:
    """Whether a class says nothing of its own about how its objects pickle."""
    return kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__


def has_only_attributes(kind: type[object]) -> bool:
    """Whether objects of a class are what their attributes are, and pickle as such."""
    copyreg._slotnames(kind)  # type: ignore[attr-defined]  # pickle would note it in the class
    return (
        all(base is object or base.__flags__ & HEAP_TYPE for base in kind.__mro__)
        and reduces_as_any_object(kind)
        and kind.__getstate__ is object.__getstate__
        and kind.__getattribute__ is object.__getattribute__
        and not hasattr(kind, "__getnewargs__")
        and not hasattr(kind, "__getnewargs_ex__")
        and not any("__slots__" in vars(base) for base in kind.__mro__)
        and not any(kind is one for one in copyreg.dispatch_table)
    )


def says_little(value: object) -> bool:
    """Whether an object of the project says itself how it pickles, perhaps without what it has."""
    kind = type(value)
    return (
        bool(kind.__flags__ & HEAP_TYPE)
        and not reduces_as_any_object(kind)
        and not issubclass(kind, (type, Enum, BaseException, ModuleType))
        and record_of(module_of(kind)) is not None
        and type(getattr(value, "__dict__", None)) is dict
    )
