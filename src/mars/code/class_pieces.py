"""Takes a class apart: what it is made from, and what it is filled with.

`mars.code.definitions` makes a class of the pieces again. Called by `mars.code.rich`.
"""

from __future__ import annotations

import abc
import enum
import sys
import types
from collections.abc import Callable, Mapping
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Final, cast

from mars.code.changes import registered_at

if TYPE_CHECKING:
    import weakref

_LEFT_OUT: Final = frozenset(
    {
        "__weakref__", "__slotnames__", "__subclasses__", "_abc_impl", "_abc_cache",
        "_abc_negative_cache",
        "_abc_negative_cache_version", "_abc_registry", "__annotate_func__",
    }
)  # fmt: skip
"""What a class has that belongs to one process, or is made anew."""

_OF_ENUM: Final = frozenset(
    {
        "_member_names_", "_member_map_", "_member_type_", "_value2member_map_",
        "_hashable_values_", "_unhashable_values_", "_unhashable_values_map_", "__new__",
        "_boundary_", "_flag_mask_", "_singles_mask_", "_all_bits_", "_inverted_",
    }
)  # fmt: skip
"""What an enum's metaclass makes when the class is made."""

MEMBERS: Final = "attributes of members"
"""Beside the attributes of an enum, which are names."""


Member = tuple[str, str, object, tuple[object, ...]]
"""A member of an enum: its name, the name that it was first given, its value, and what made it."""

Pieces = tuple[type, str, tuple[type, ...], dict[str, object], tuple[Member, ...] | None]
"""What a class is made from: metaclass, name, bases, body, and the members of an enum."""


def pieces_of_class(cls: type) -> tuple[Pieces, dict[str, object]]:
    """What a class is made from, and what it is filled with."""
    own = dict(type.__dict__["__dict__"].__get__(cls))
    if isinstance(cls, enum.EnumMeta) and own.get("_member_names_") is not None:
        return _pieces_of_enum(cast("type[enum.Enum]", cls), own)
    body: dict[str, object] = {
        "__module__": own.get("__module__"),
        "__qualname__": cls.__qualname__,
    }
    if "__slots__" in own:
        # By its descriptors: what the author wrote may have been used up, and names are mangled.
        slots = [
            name
            for name, value in own.items()
            if type(value) is MemberDescriptorType and value.__objclass__ is cls
        ]
        if _has_getset(own, cls, "__dict__"):
            slots.append("__dict__")
        if _has_getset(own, cls, "__weakref__"):
            slots.append("__weakref__")
        body["__slots__"] = tuple(slots)
    elif isinstance(own.get("__dict__"), property):
        body["__dict__"] = own["__dict__"]
    if "__orig_bases__" in own:
        body["__orig_bases__"] = own["__orig_bases__"]
    state = {
        name: value
        for name, value in own.items()
        if name not in _LEFT_OUT and name != "__dict__" and not _is_of_layout(value, cls)
    }
    if any(base.__module__ == "_ctypes" for base in cls.__mro__):
        body.update((name, state.pop(name)) for name in _OF_CTYPES if name in state)
        state = {name: one for name, one in state.items() if type(one).__name__ != "CField"}
    if issubclass(type(cls), abc.ABCMeta):
        state["_abc_impl"] = registered_at(cls)
    registered = _abstract_classes_of(cls)
    if registered:
        state[REGISTERED_AT] = registered
    return (type(cls), cls.__name__, cls.__bases__, body, None), state


_OF_CTYPES: Final = (
    "_pack_", "_align_", "_anonymous_", "_fields_", "_type_", "_length_", "_flags_", "_restype_",
    "_argtypes_",
)  # fmt: skip
"""What `ctypes` makes the layout of a class from, and descriptors of its fields."""

REGISTERED_AT: Final = "abstract classes"
"""Beside the attributes of a class, which are names."""

_ABSTRACT: Final = ("_collections_abc", "contextlib", "io", "numbers", "os")
"""Modules of Python with abstract classes at which programs register their own."""

_registrations: tuple[object, dict[int, list[tuple[weakref.ref[type], object]]]] = None, {}


def _abstract_classes_of(cls: type) -> list[object]:
    """Abstract classes of Python at which a class was registered as a subclass."""
    global _registrations
    token = abc.get_cache_token()
    known, found = _registrations
    if known != token:
        found = {}
        for name in _ABSTRACT:
            for one in list(vars(sys.modules.get(name, abc)).values()):
                if type(one) is abc.ABCMeta:
                    for reference in abc._get_dump(one)[0]:  # type: ignore[attr-defined]
                        found.setdefault(id(reference()), []).append((reference, one))
        _registrations = token, found
    return [one for reference, one in found.get(id(cls), ()) if reference() is cls]


def _has_getset(own: Mapping[str, object], cls: type, name: str) -> bool:
    value = own.get(name)
    return isinstance(value, types.GetSetDescriptorType) and value.__objclass__ is cls


def _is_of_layout(value: object, cls: type) -> bool:
    """Whether it is what Python makes for a slot."""
    if isinstance(value, (MemberDescriptorType, types.GetSetDescriptorType)):
        return value.__objclass__ is cls
    return False


def _pieces_of_enum(
    cls: type[enum.Enum], own: dict[str, object]
) -> tuple[Pieces, dict[str, object]]:
    members = []
    attributes: dict[str, dict[str, object]] = {}
    for name, member in cls.__members__.items():
        members.append((name, member._name_, member._value_, _raw(cls, member)))
        if name == member._name_:
            attributes[name] = {
                key: value
                for key, value in member.__dict__.items()
                if key != "__objclass__" and not (key.startswith("_") and key.endswith("_"))
            }
    boundary = own.get("_boundary_")
    body = {
        "__module__": cls.__module__, "__qualname__": cls.__qualname__,
        **({"boundary": boundary} if boundary is not None else {}),
    }  # fmt: skip
    state = {
        name: value
        for name, value in own.items()
        if name not in _LEFT_OUT
        and name not in _OF_ENUM
        and name not in cls.__members__
        and not _is_of_layout(value, cls)
    }
    state[MEMBERS] = attributes
    return (type(cls), cls.__name__, cls.__bases__, body, tuple(members)), state


def member_type(cls: type) -> type[object]:
    """The data type in front of an enum; `object`: none."""
    kind: type[object] = getattr(cls, "_member_type_", object)
    return kind


def _raw(cls: type[enum.Enum], member: object) -> tuple[object, ...]:
    """What the data type in front of the enum makes the member from."""
    kind = member_type(cls)
    if kind is object or kind.__new__ is object.__new__:
        return ()
    for base, plain in _RAW.items():
        if issubclass(kind, base):
            return (plain(member),)
    reduced = kind.__reduce_ex__(member, 2)
    assert isinstance(reduced, tuple)
    made_by, args = reduced[0], reduced[1]
    return tuple(args[1:]) if made_by.__name__ == "__newobj__" else tuple(args)


_RAW: Final[dict[type, Callable[..., object]]] = {
    int: int.__int__, float: float.__float__, complex: complex.__complex__, str: str.__str__,
    bytes: lambda member: bytes(memoryview(member)), tuple: tuple, frozenset: frozenset,
}  # fmt: skip
"""A member as a value of the builtin type that it is, past what its enum makes of that."""


__all__ = ["MEMBERS", "REGISTERED_AT", "Member", "member_type", "pieces_of_class"]
