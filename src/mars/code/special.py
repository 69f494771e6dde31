"""Objects that are not written as they say themselves, and the pickler that writes names.

`handler_of` says by the type which method of `Special` looks at an object. `Plain` is the first of
the three picklers that `mars.code.pickling` tries. Called by `mars.code.rich` and
`mars.code.pickling`.
"""

from __future__ import annotations

import _collections_abc
import copyreg
import enum
import operator
import pickle
import sys
import threading
import types
import weakref
from contextvars import ContextVar
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from mars.code import arrays, exceptions
from mars.code.changes import (
    HEAP_TYPE,
    CachedFunction,
)
from mars.code.definitions import (
    global_of,
    imported,
    singleton_of,
)
from mars.code.keepers import Keeper, Target
from mars.code.modules import record_of, travels_by_value
from mars.code.origin import found, module_of
from mars.code.parts import reduces_as_any_object
from mars.code.stand_ins import new_locks

BUILTIN_TYPES: Final = {
    id(value): (module, name)
    for module, name, value in (
        *(("_collections_abc", *item) for item in vars(_collections_abc).items()),
        *(("types", *item) for item in vars(types).items()),
    )
    if type(value) is type
}
"""Types that Python knows by a name in one of these modules, and not by their own."""


def place_of_lying(cls: type) -> tuple[str, str] | None:
    """Where an installed class is found that names another module as its own; None: nowhere.

    ``pytest.skip`` raises such a one, in whose name nobody would import it.
    """
    for method in vars(cls).values():
        module = getattr(method, "__globals__", {}).get("__name__")
        if type(method) is FunctionType and isinstance(module, str):
            ours = module == "__main__" or record_of(module) is not None
            if not ours and found(module, cls.__qualname__) is cls:
                return module, cls.__qualname__
    return None


class NotPlain(Exception):
    """A value needs more than names."""


_DEFINED: Final = (FunctionType, type, CachedFunction)
SINGLE_TYPES: Final = frozenset(map(id, (type(None), type(...), type(NotImplemented))))
"""Identities, as a metaclass may say what it likes about equality, and may have no hash."""
_NAMED_TYPES: Final = frozenset(
    {"NewType", "TypeVar", "ParamSpec", "TypeVarTuple", "TypeAliasType"}
)
"""Types of `typing` whose objects pickle as a name."""
_GENERATORS: Final = {
    "random": ("Random", "_inst"),
    "numpy.random.mtrand": ("RandomState", "_rand"),
}
"""The random generators of whole modules: a copy would draw the same numbers in each process."""

_EQUAL_TO_COPIES: Final = frozenset({int, str, bytes, bool, type(None)})
"""Types of values that an enum finds its members by, whoever made the value."""

# What has to be looked at before it is written, by type: a name of a method of `Special`.
_handlers: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def handler_of(kind: type) -> str:
    """Which method looks at objects of a type; empty: they are written as they say."""
    try:
        known = _handlers.get(kind)
    except TypeError:  # a metaclass whose classes cannot be keys
        return _choose(kind)
    if known is None:
        known = _choose(kind)
        if known != "says_name":  # a module may travel otherwise one day
            _handlers[kind] = known
    return known


def _choose(kind: type) -> str:
    if kind is BuiltinFunctionType or kind is MethodType:
        return "method"
    if kind is ContextVar:
        return "context_variable"
    if kind is ModuleType or issubclass(kind, ModuleType):
        return "module"
    if kind is object:
        return "singleton"
    if any(kind is one for one in _BARE_LOCKS):
        return "lock"
    module = getattr(kind, "__module__", None)
    if module in _GENERATORS and kind.__name__ == _GENERATORS[module][0]:
        return "generator"
    if arrays.is_special(kind):
        return "array"
    if module == "dataclasses" and kind.__name__ == "_FIELD_BASE":
        return "kind_of_field"
    if issubclass(kind, BaseException):
        return "exception"
    if any("__wrapped__" in vars(one) for one in kind.__mro__):
        return "decorated"  # a proxy, such as those of wrapt
    if module == "typing" and kind.__name__ in _NAMED_TYPES:
        return "says_name"
    if not kind.__flags__ & HEAP_TYPE:
        return ""
    if kind.__reduce_ex__ is enum.Enum.__reduce_ex__:
        return "member"
    if kind in copyreg.dispatch_table:
        return ""
    if not reduces_as_any_object(kind):
        ours = module == "__main__" or record_of(module) is not None
        return "says_name" if ours else ""
    # What is also a list, say, has content beside its attributes.
    only_attributes = all(one is object or one.__flags__ & HEAP_TYPE for one in kind.__mro__)
    return "singleton" if kind.__dictoffset__ and only_attributes else ""


def _nearness(module: str) -> int:
    """Where an object is looked for: where it comes from before where it was imported to."""
    record = record_of(module)
    if record is not None:
        return 0 if record.by_name else 1
    return 2 if module == "__main__" else 3


_BARE_LOCKS: Final = (type(threading.Lock()), type(threading.RLock()))


class Special:
    """Objects that are not written as they say themselves; for every pickler."""

    reached: dict[int, object]
    arguments: bool
    locks: bool  # whether a new one stands for each
    globals_by_identity: dict[str, dict[int, str]]

    def method(self, value: BuiltinFunctionType | MethodType) -> object:
        """A bound method: of a module's own generator it is that module's function."""
        owner = value.__self__
        if owner is None or isinstance(owner, (ModuleType, type)):
            return NotImplemented
        module = type(owner).__module__
        space = getattr(sys.modules.get(module), "__dict__", {})
        if module in _GENERATORS and space.get(_GENERATORS[module][1]) is owner:
            name = value.__name__
            there = space.get(name)
            if there == value:
                return global_of, (module, name)
        return NotImplemented

    def generator(self, value: object) -> object:
        """A random generator: a module's own one is the worker's own one there."""
        module = type(value).__module__
        name = _GENERATORS[module][1]
        if getattr(sys.modules.get(module), name, None) is value:
            return global_of, (module, name)
        return NotImplemented

    def lock(self, value: object) -> object:
        """A lock in what a module holds: each process has its own."""
        return (new_locks()[type(value)], ()) if self.locks else NotImplemented

    def exception(self, value: BaseException) -> object:
        """An exception: with all that it has, whatever its class wants to be called with."""
        reduced = exceptions.reduced(value, getattr(self, "dispatch_table", copyreg.dispatch_table))
        if reduced is not None and not isinstance(reduced, str):
            return reduced
        kind = type(value)
        ours = kind.__module__ == "__main__" or record_of(kind.__module__) is not None
        return self.says_name(value) if ours else NotImplemented

    def kind_of_field(self, value: object) -> object:
        """What data classes compare by identity."""
        return global_of, ("dataclasses", getattr(value, "name", ""))

    def array(self, value: arrays.Array) -> object:
        """An array of a subclass of numpy's."""
        reduced = arrays.reduced(value, by_file=self.arguments)
        return NotImplemented if reduced is None else reduced

    def context_variable(self, value: ContextVar[object]) -> object:
        """A variable of `contextvars`: that of a module, or one that has the value of this one."""
        names = sorted(sys.modules, key=_nearness)
        where = next(filter(None, (self.named_in(one, value) for one in names)), None)
        if where is not None and not travels_by_value(where[0]):
            if record_of(where[0]) is None:
                return global_of, where
            if not self.locks:  # else it is what the module holds that is written
                self.reached[id(sys.modules[where[0]])] = sys.modules[where[0]]
                return global_of, where
        return self.new_context_variable(value, where)

    def new_context_variable(
        self, value: ContextVar[object], where: tuple[str, str] | None
    ) -> object:
        """A variable that no other process has."""
        raise NotPlain

    def decorated(self, value: object) -> object:
        """What a decorator made of a function: itself, where a module holds it under its name."""
        module: object = getattr(value, "__module__", None)
        name = getattr(value, "__qualname__", None)
        if not isinstance(name, str) or not isinstance(module, str):
            return NotImplemented
        if found(module, name) is not value:
            return NotImplemented
        if travels_by_value(module):
            return NotImplemented
        if record_of(module) is not None:
            self.reached[id(sys.modules[module])] = sys.modules[module]
        return global_of, (module, name)

    def module(self, value: ModuleType) -> object:
        """A module."""
        name = value.__name__
        if sys.modules.get(name) is not value or travels_by_value(name):
            raise NotPlain
        if record_of(name) is not None:
            self.reached[id(value)] = value
        return imported, (name,)

    def singleton(self, value: object) -> object:
        """An object without content that is known by its name, such as `dataclasses.MISSING`."""
        if getattr(value, "__dict__", None):
            return NotImplemented
        where = self.place_of(value)
        if where is None:
            return NotImplemented
        if travels_by_value(where[0]):
            return self.singleton_by_value(value, *where)
        if record_of(where[0]) is not None:
            self.reached[id(sys.modules[where[0]])] = sys.modules[where[0]]
        return singleton_of, (*where, type(value))

    def singleton_by_value(self, value: object, module: str, name: str) -> object:
        """Such an object of a module that travels by value."""
        raise NotPlain

    def place_of(self, value: object) -> tuple[str, str] | None:
        """Module and name of a global variable that holds an object; None: there is none."""
        kind = type(value)
        if getattr(kind, "__slots__", ()):
            return None
        names = sorted(sys.modules, key=_nearness) if kind is object else [kind.__module__]
        places = (self.named_in(module, value) for module in names)
        return next((place for place in places if place is not None), None)

    def named_in(self, module: str, value: object) -> tuple[str, str] | None:
        """The module and the name of its global variable that holds an object; None: none does."""
        known = self.globals_by_identity.get(module)
        if known is None:
            space = getattr(sys.modules.get(module), "__dict__", {})
            known = {id(one): name for name, one in [*space.items()] if name != "_"}
            self.globals_by_identity[module] = known
        name = known.get(id(value))
        return None if name is None else (module, name)

    def member(self, value: enum.Enum) -> object:
        """A member of an enum: by its name, if a copy of its value may not be equal to it."""
        kind = type(value)
        if type(value._value_) not in _EQUAL_TO_COPIES:
            name = value._name_
            if isinstance(name, str) and kind._member_map_.get(name) is value:
                return operator.getitem, (kind, name)
        return self.says_name(value)

    def says_name(self, value: object) -> object:
        """An object that may say nothing but a name."""
        kind = type(value)
        module = None
        if kind.__module__ == "typing":
            module = getattr(value, "__module__", None)
            if found(module, getattr(value, "__name__", "")) is not value:
                raise NotPlain  # such as ``T`` in ``class Box[T]``
        if travels_by_value(kind.__module__) or travels_by_value(module):
            raise NotPlain
        if record_of(kind.__module__) is not None:
            self.reached[id(kind)] = kind
        return NotImplemented


class Plain(Special, pickle.Pickler):
    """Writes what is found under its name in a process that imports the same modules.

    Attributes
    ----------
    reached : dict
        Classes, functions and modules of the project that it wrote as names.
    """

    def __init__(
        self,
        file: Target,
        keep: Keeper,
        arguments: bool,
        locks: bool = False,
    ) -> None:
        super().__init__(file, 5, buffer_callback=keep)
        self.reached, self.globals_by_identity = {}, {}
        self.arguments, self.locks = arguments, locks

    def reducer_override(self, value: object, /) -> Any:  # also tuples of six, unlike its base
        # type(), because isinstance() also asks the value, which may answer anything.
        kind = type(value)
        if issubclass(kind, _DEFINED):
            if kind is type and id(value) in SINGLE_TYPES:
                return NotImplemented
            module = module_of(value)
            qualname = getattr(value, "__qualname__", "")
            if module == "__main__" or found(module, qualname) is not value:
                raise NotPlain
            record = record_of(module)
            if record is not None:
                if not record.by_name:
                    raise NotPlain
                self.reached[id(value)] = value
            return NotImplemented
        handler = handler_of(kind)
        return getattr(self, handler)(value) if handler else NotImplemented
