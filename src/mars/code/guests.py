"""What a call in the program itself may do to the program's modules, and how it is undone.

For the inline engine. A call gets the objects of the modules themselves where all that it may
change in them can be put back, and copies of the others. Called by `spawned`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from enum import Enum
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Final, TypeGuard

from mars.code import modules
from mars.code.changes import MISSING, Change, copy_of, is_container, refill
from mars.code.origin import is_project_module
from mars.settings import BUFFER_BYTES

if TYPE_CHECKING:
    import numpy

    from mars.code.changes import Container

    _Array = numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]


class Kept:
    """What a module of the program itself holds, so that a call which runs beside it leaves that.

    Its names, those of its classes, what is in its own lists, dictionaries, sets and queues, and
    the attributes of its objects, at any depth. Other objects, such as counters, are copied for
    the call: see `World._settle`.
    """

    def __init__(self, module: ModuleType) -> None:
        self._owners: list[tuple[object, dict[str, object]]] = [(module, dict(vars(module)))]
        self._containers: list[tuple[Container, Container]] = []
        self._arrays: list[tuple[_Array, _Array]] = []
        for value in self._owners[0][1].values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                self._owners.append((value, dict(vars(value))))
        pending = [
            value
            for _, names in self._owners
            for name, value in names.items()
            if not name.startswith("__")
        ]
        seen: set[int] = set()
        while pending:
            value = pending.pop()
            kind = type(value)
            if kind in _ATOMS or id(value) in seen:
                continue
            seen.add(id(value))
            if type(value) is tuple or type(value) is frozenset:
                pending.extend(value)
            elif type(value) is MethodType:
                pending.append(value.__self__)
            elif is_container(value):
                self._keep(value, pending)
                if has_plain_attributes(value):
                    self._keep(vars(value), pending)
            elif _is_small_array(value):
                self._arrays.append((value, value.copy()))
            elif has_plain_attributes(value):
                self._keep(vars(value), pending)

    def _keep(self, value: object, pending: list[object]) -> None:
        assert is_container(value)
        before = copy_of(value)
        self._containers.append((value, before))
        pending.extend(before.values() if isinstance(before, dict) else before)

    def restore(self) -> None:
        """Put back what was changed."""
        for value, before in self._containers:
            if _holds_the_same(value, before):
                continue  # nor may another thread find it empty for a moment
            refill(value, before)
        for array, kept in self._arrays:
            if array.tobytes() != kept.tobytes():
                array[...] = kept
        for owner, names in self._owners:
            now: Mapping[str, object] = vars(owner)
            for name in [name for name in now if name not in names]:
                if not _is_submodule(owner, name, now[name]):
                    Change(owner, name, MISSING).set(MISSING)
            for name, one in names.items():
                if now.get(name, MISSING) is not one:
                    Change(owner, name, one).set(one)


def _is_submodule(owner: object, name: str, value: object) -> bool:
    """Whether a call has imported a module inside a package: it stays, and its name with it."""
    return isinstance(owner, ModuleType) and sys.modules.get(f"{owner.__name__}.{name}") is value


def _is_small_array(value: object) -> TypeGuard[_Array]:
    return (
        _is_array(value)
        and value.nbytes <= BUFFER_BYTES
        and value.flags.writeable
        and not value.dtype.hasobject
    )


def _is_array(value: object) -> TypeGuard[_Array]:
    mro = type(value).__mro__
    return any(base.__module__ == "numpy" and base.__name__ == "ndarray" for base in mro)


_ATOMS: Final = frozenset({int, float, str, bytes, bool, type(None), complex, FunctionType, type})
"""Types of what holds nothing, or has to be left as it is, so that they are soon passed by."""


def _holds_the_same(value: Container, before: Container) -> bool:
    """Whether the very same things are in it."""
    if len(value) != len(before):
        return False
    if isinstance(value, set):
        return set(map(id, value)) == set(map(id, before))
    if isinstance(value, dict) and isinstance(before, dict):
        same = all(map(is_, value.values(), before.values()))
        return same and all(map(is_, value, before))
    return all(map(is_, value, before))


def has_plain_attributes(value: object) -> bool:
    """Whether an object is what its attributes are."""
    kind = type(value)
    return (kind.__module__ == "__main__" or is_project_module(kind.__module__)) and type(
        getattr(value, "__dict__", None)
    ) is dict


def for_a_guest(value: object, content: bytes) -> object:
    """What a call that runs in the program itself gets for an object of the program's modules."""
    return value if stays_with_a_guest(value, content) else pickle.loads(content)


def stays_with_a_guest(value: object, content: bytes | None) -> bool:
    """Whether such a call gets the object itself, and `Kept` undoes what it changes.

    Classes of the script are other ones in the call, so an object that refers to one is copied.
    """
    if type(value) is FunctionType or (content is not None and _DEFINES in content):
        return False
    pending, seen = [value], set[int]()
    while pending:
        one = pending.pop()
        kind = type(one)
        if kind in _ATOMS or id(one) in seen:
            continue
        seen.add(id(one))
        if is_container(one):
            pending += one.values() if isinstance(one, dict) else one
        elif type(one) is tuple or type(one) is frozenset:
            pending += one
        elif type(one) is MethodType:
            pending.append(one.__self__)
        elif has_plain_attributes(one):
            pending += vars(one).values()
        elif not (_is_small_array(one) or _never_changes(one)):
            return False
    return True


def _never_changes(value: object) -> bool:
    """Whether an object has nothing that a call could change, or belongs to its process."""
    kind = type(value)
    return (
        issubclass(kind, (type, ModuleType, BuiltinFunctionType, Enum, range))
        or kind is object
        or modules.is_settled(kind)
    )


_DEFINES: Final = b"mars.code.pickling"
"""In pickles that refer to what travels by value."""
