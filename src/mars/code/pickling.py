"""Pickles of values and of functions, with the program's own code in them.

Three picklers, each for what the one before does not take. `_Plain` writes what consists of
installed classes and functions, and of modules that travel by name, as names. `_Quick` adds
definitions of what travels by value. `_full` adds all the types that cloudpickle knows, and is
loaded only then.

In a *value* a class or function of the program is a reference: its tag, and a definition for a
world that lacks it. The definition is a pickle of its own, made once. In a *function* that is
spawned definitions stand as they are, so that what they share stays shared.

The module is long because the three picklers share their rules for each type of object.
"""

from __future__ import annotations

import _collections_abc
import copyreg
import enum
import functools
import io
import operator
import pickle
import sys
import threading
import types
import weakref
from collections import ChainMap, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar, Final

from mars.code import arrays, parameters, places
from mars.code import states as states_module
from mars.code.bytecode import facts_of, names_in_alias, names_in_hints
from mars.code.changes import (
    HEAP_TYPE,
    MISSING,
    CachedFunction,
)
from mars.code.definitions import (
    FIRST,
    Definition,
    bare,
    code_bytes,
    fill_accessor,
    fill_cell,
    fill_class,
    fill_function,
    fill_methods,
    fill_named,
    fill_singledispatch,
    global_of,
    imported,
    imported_namespace,
    itself,
    loose_module,
    make_accessor,
    make_cached_property,
    make_cell,
    make_class,
    make_context_variable,
    make_function,
    make_named,
    make_singledispatch,
    make_view,
    making,
    names_in,
    pieces_of_class,
    singleton_of,
    value_of,
    with_cache,
    world_module,
    world_namespace,
)
from mars.code.keepers import Apart, InBand, Keeper
from mars.code.modules import Homes, record_of, travels_by_value
from mars.code.origin import found, module_of
from mars.code.reach import EVERYTHING, Reach, reduces_as_any_object
from mars.code.states import note_changeable, prepared_of
from mars.code.world import (
    current,
    look_for_reduced,
    tag_of,
    waiting_reducers,
)
from mars.settings import PICKLE_DEPTH


class NotPlain(Exception):
    """A value needs more than names."""


_DEFINED: Final = (FunctionType, type, CachedFunction)
_SINGLE_TYPES: Final = frozenset(map(id, (type(None), type(...), type(NotImplemented))))
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

# What has to be looked at before it is written, by type: a name of a method of `_Special`.
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


class _Special:
    """Objects that are not written as they say themselves; for every pickler."""

    reached: dict[int, Any]
    arguments: bool
    locks: bool  # whether a new one stands for each
    globals_by_identity: dict[str, dict[int, str]]

    def method(self, value: Any) -> Any:
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

    def generator(self, value: Any) -> Any:
        """A random generator: a module's own one is the worker's own one there."""
        module = type(value).__module__
        name = _GENERATORS[module][1]
        if getattr(sys.modules.get(module), name, None) is value:
            return global_of, (module, name)
        return NotImplemented

    def lock(self, value: Any) -> Any:
        """A lock in what a module holds: each process has its own."""
        return (_locks()[type(value)], ()) if self.locks else NotImplemented

    def kind_of_field(self, value: Any) -> Any:
        """What data classes compare by identity."""
        return global_of, ("dataclasses", value.name)

    def array(self, value: Any) -> Any:
        """An array of a subclass of numpy's."""
        reduced = arrays.reduced(value, by_file=self.arguments)
        return NotImplemented if reduced is None else reduced

    def context_variable(self, value: Any) -> Any:
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

    def new_context_variable(self, value: Any, where: tuple[str, str] | None) -> Any:
        """A variable that no other process has."""
        raise NotPlain

    def decorated(self, value: Any) -> Any:
        """What a decorator made of a function: itself, where a module holds it under its name."""
        module: Any = getattr(value, "__module__", None)
        name = getattr(value, "__qualname__", None)
        if not isinstance(name, str) or found(module, name) is not value:
            return NotImplemented
        if travels_by_value(module):
            return NotImplemented
        if record_of(module) is not None:
            self.reached[id(sys.modules[module])] = sys.modules[module]
        return global_of, (module, name)

    def module(self, value: ModuleType) -> Any:
        """A module."""
        name = value.__name__
        if sys.modules.get(name) is not value or travels_by_value(name):
            raise NotPlain
        if record_of(name) is not None:
            self.reached[id(value)] = value
        return imported, (name,)

    def singleton(self, value: Any) -> Any:
        """An object without content that is known by its name, such as `dataclasses.MISSING`."""
        if getattr(value, "__dict__", None):
            return NotImplemented
        where = self.place_of(value)
        if where is None:
            return NotImplemented
        if travels_by_value(where[0]):
            raise NotPlain
        if record_of(where[0]) is not None:
            self.reached[id(sys.modules[where[0]])] = sys.modules[where[0]]
        return singleton_of, (*where, type(value))

    def place_of(self, value: Any) -> tuple[str, str] | None:
        """Module and name of a global variable that holds an object; None: there is none."""
        kind = type(value)
        if getattr(kind, "__slots__", ()):
            return None
        names = sorted(sys.modules, key=_nearness) if kind is object else [kind.__module__]
        places = (self.named_in(module, value) for module in names)
        return next((place for place in places if place is not None), None)

    def named_in(self, module: str, value: Any) -> tuple[str, str] | None:
        """The module and the name of its global variable that holds an object; None: none does."""
        known = self.globals_by_identity.get(module)
        if known is None:
            space = getattr(sys.modules.get(module), "__dict__", {})
            known = {id(one): name for name, one in [*space.items()] if name != "_"}
            self.globals_by_identity[module] = known
        name = known.get(id(value))
        return None if name is None else (module, name)

    def member(self, value: Any) -> Any:
        """A member of an enum: by its name, if a copy of its value may not be equal to it."""
        kind = type(value)
        if type(value._value_) not in _EQUAL_TO_COPIES:
            name = value._name_
            if isinstance(name, str) and kind._member_map_.get(name) is value:
                return operator.getitem, (kind, name)
        return self.says_name(value)

    def says_name(self, value: Any) -> Any:
        """An object that may say nothing but a name."""
        kind = type(value)
        module = None
        if kind.__module__ == "typing":
            module = getattr(value, "__module__", None)
            if found(module, value.__name__) is not value:
                raise NotPlain  # such as ``T`` in ``class Box[T]``
        if travels_by_value(kind.__module__) or travels_by_value(module):
            raise NotPlain
        if record_of(kind.__module__) is not None:
            self.reached[id(kind)] = kind
        return NotImplemented


class _Plain(_Special, pickle.Pickler):
    """Writes what is found under its name in a process that imports the same modules.

    Attributes
    ----------
    reached : dict
        Classes, functions and modules of the project that it wrote as names.
    """

    def __init__(
        self,
        file: io.BytesIO,
        keep: Callable[[Any], object],
        arguments: bool,
        locks: bool = False,
    ) -> None:
        super().__init__(file, 5, buffer_callback=keep)
        self.reached, self.globals_by_identity = {}, {}
        self.arguments, self.locks = arguments, locks

    def reducer_override(self, value: Any, /) -> Any:
        # type(), because isinstance() also asks the value, which may answer anything.
        kind = type(value)
        if issubclass(kind, _DEFINED):
            if kind is type and id(value) in _SINGLE_TYPES:
                return NotImplemented
            module = module_of(value)
            if module == "__main__" or found(module, value.__qualname__) is not value:
                raise NotPlain
            record = record_of(module)
            if record is not None:
                if not record.by_name:
                    raise NotPlain
                self.reached[id(value)] = value
            return NotImplemented
        handler = handler_of(kind)
        return getattr(self, handler)(value) if handler else NotImplemented


# -- definitions ----------------------------------------------------------------------------------

_METHODS: Final = frozenset({FunctionType, staticmethod, classmethod, property})
_SIMPLE: Final = _METHODS | {bool, int, float, str, bytes, type(None)}
_ACCESSORS: Final = (property, staticmethod, classmethod)

_DISPATCH_CODE: Final = (
    functools.singledispatch.__code__.co_filename, "singledispatch.<locals>.wrapper",
)  # fmt: skip

_PAD: Final[tuple[Any, ...]] = ()

_FACTS: Final = ("__package__", "__path__")
"""What a module that travels by value has from the beginning, for relative imports."""

_BUILTIN_TYPES: Final = {
    id(value): (module, name)
    for module, name, value in (
        *(("_collections_abc", *item) for item in vars(_collections_abc).items()),
        *(("types", *item) for item in vars(types).items()),
    )
    if type(value) is type
}
"""Types that Python knows by a name in one of these modules, and not by their own."""


class _Space:
    """The global names of functions, as it stands in a pickle."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        name = namespace.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        self.home: str | None = None
        self.by_name = False
        if module is not None and getattr(module, "__dict__", None) is namespace:
            self.home = name
            self.by_name = not travels_by_value(name)

        self.loose: _Loose | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.home is None:
            return vars, (self.as_module(""),)
        if self.by_name:
            return imported_namespace, (self.home,)
        return world_namespace, (self.home, facts_of_module(self.namespace))

    def as_module(self, tag: str) -> _Loose:
        """Stands for a module with these names that is not in ``sys.modules``."""
        if self.loose is None:
            self.loose = _Loose(tag, self.namespace)
        return self.loose


class _Loose:
    def __init__(self, tag: str, namespace: dict[str, Any]) -> None:
        self.parts = tag, namespace

    def __reduce__(self) -> tuple[Any, ...]:
        tag, namespace = self.parts
        name = namespace.get("__name__")
        facts = {"__name__": name, **facts_of_module(namespace)}
        return loose_module, (tag, name if isinstance(name, str) else "", facts)


def facts_of_module(namespace: dict[str, Any]) -> dict[str, Any]:
    """What a module that travels by value has from the beginning."""
    facts: dict[str, Any] = {key: namespace[key] for key in _FACTS if key in namespace}
    path = facts.get("__path__")
    if path is not None:
        facts["__path__"] = [one for one in path if isinstance(one, str)]
    return facts


class _Root:
    """The outermost object of a pickle with definitions."""

    def __init__(self, pickler: _Rich, value: Any, prepared: object) -> None:
        self.pickler, self.value, self.prepared = pickler, value, prepared

    def __reduce__(self) -> tuple[Any, ...]:
        return value_of, (_Body(self),)


class _Body:
    def __init__(self, root: _Root) -> None:
        self.root = root

    def __reduce__(self) -> tuple[Any, ...]:
        root = self.root
        return Definition, (root.prepared,), None, root.pickler.items(root.value)


class _Names:
    """Stands for names that a function needs.

    They are looked up when they are written. A function that refers to itself is begun twice, and
    pickle drops what was begun first.
    """

    def __init__(self, pickler: _Rich, space: _Space, names: list[str]) -> None:
        self.pickler, self.space, self.names = pickler, space, names

    def __reduce__(self) -> tuple[Any, ...]:
        return self.pickler.names_now(self.space, self.names)


class _Deeper:
    """Stands before and behind what is written inside something else, to count how deep it is."""

    def __init__(self, pickler: _Rich, change: int) -> None:
        self.pickler, self.change = pickler, change

    def __reduce__(self) -> tuple[Any, ...]:
        self.pickler.depth += self.change
        return bool, ()


_OURS: Final = frozenset(map(id, (_Root, _Body, _Space, _Loose, _Names, _Deeper)))


class _Rich(_Special):
    """Writes definitions of what travels by value; a part of two picklers.

    Attributes
    ----------
    inside : bool
        Whether this is a definition itself, in which others stand as they are.
    by_value : tuple
        Functions that travel by value, whatever their name.
    asked : dict
        Names that are needed of modules that travel by value.
    reaches : dict
        What the definitions reach that are referred to.
    """

    inside: bool
    dispatch_table: ClassVar[Any]
    by_value: tuple[Any, ...]
    asked: dict[str, dict[str, None]]
    reducers: Iterable[tuple[Any, ...]]
    reaches: dict[int, Reach]
    _spaces: dict[int, _Space]
    _told: set[tuple[int, str]]
    _pending: deque[tuple[Any, ...]]
    _alive: list[object]
    _homes: Homes
    _owned: Mapping[int, tuple[Any, int]] = types.MappingProxyType({})
    # parameters of aliases, by identity
    depth: int
    clear_memo: Callable[[], None]  # of the pickler

    def begin(
        self, arguments: bool, inside: bool, by_value: tuple[Any, ...],
        asked: dict[str, dict[str, None]], locks: bool = False,
        reducers: Iterable[tuple[Any, ...]] = (),
    ) -> None:  # fmt: skip
        """Take what is to be done; instead of an ``__init__``, which picklers have already."""
        self.arguments, self.inside, self.locks = arguments, inside, locks
        self.by_value, self.asked, self.reducers = by_value, asked, reducers
        self.reached, self.globals_by_identity = {}, {}
        self.reaches = {}
        self._spaces = {}
        self._told = set()
        self._pending = deque()
        self._alive = []  # so that no identity is used again
        self._homes = Homes()
        self.depth = 0

    def let_go(self) -> None:
        """Forget what was written: some of it refers to the pickler, and would stay with it."""
        self.clear_memo()
        self._alive.clear()
        self._spaces.clear()

    def items(self, value: Any) -> Iterator[tuple[Any, ...]]:
        """The value, and what its functions refer to, which is known once they are written."""
        # The pickler takes two items before it writes the first, so something has to come
        # between an item and those that it leads to.
        yield "value", value
        yield _PAD
        for name in self.asked:  # modules that code imports when it runs, also the script's own
            module = sys.modules.get(name)
            if module is not None:
                self._pending.append(("module", module))
        self._pending.extend(self.reducers)
        while self._pending:
            yield self._pending.popleft()
            if not self._pending:
                yield _PAD

    def _space(self, namespace: dict[str, Any]) -> _Space:
        known = self._spaces.get(id(namespace))
        if known is None:
            known = self._spaces[id(namespace)] = _Space(namespace)
        return known

    def _tell(self, space: _Space, names: Iterable[str]) -> None:
        """Have names of a namespace written, later."""
        for name, value in self._untold(space, names):
            self._pending.append(("name", space, name, value))

    def names_now(self, space: _Space, names: Iterable[str]) -> tuple[Any, ...]:
        """Names of a namespace that are written together with a function, unless it is too deep."""
        if self.depth >= PICKLE_DEPTH:
            self._tell(space, names)
            return bool, ()
        told = list(self._untold(space, names))
        if not told:
            return bool, ()
        return names_in, (_Deeper(self, 1), space, told, _Deeper(self, -1))

    def _untold(self, space: _Space, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Names of a namespace that are not written yet, and what stands for their values."""
        if space.by_name:
            return
        namespace = space.namespace
        waiting = deque(names)
        while waiting:
            name = waiting.popleft()
            key = id(namespace), name
            if key in self._told or name not in namespace:
                continue
            self._told.add(key)
            waiting.extend(names_in_alias(namespace[name]))
            value = self._at_home(namespace[name])
            if space.home not in (None, "__main__"):
                value = _fresh(value)
            yield name, value

    def _at_home(self, value: Any) -> Any:
        """What stands for an object that a module which travels by name has under a name."""
        home = self._homes.home_of(value)
        if home is None:
            return value
        module = sys.modules[home[0]]
        self.reached[id(module)] = module
        stands = _Call(global_of, home)
        self._alive.append(stands)
        return stands

    def reducer_override(self, value: Any, /) -> Any:
        kind = type(value)
        if kind is FunctionType:
            return self._function(value)
        if issubclass(kind, type):
            return self._class(value)
        if issubclass(kind, CachedFunction):
            if value not in self.by_value and self._by_name(value):
                return NotImplemented
            return with_cache, (value.__wrapped__, value.cache_parameters())
        if kind is CellType:
            try:
                contents = value.cell_contents
            except ValueError:
                return make_cell, ()
            return make_cell, (), (self._at_home(contents),), None, None, fill_cell
        if id(kind) in _OURS:  # by identity: a metaclass may have no hash
            return NotImplemented
        if issubclass(kind, _ACCESSORS) and kind not in _ACCESSORS:
            return self._accessor(value)
        if issubclass(kind, functools.cached_property):
            return make_cached_property, (kind, value.func, value.attrname, value.__doc__)
        handler = handler_of(kind)
        if handler:
            return getattr(self, handler)(value)
        custom = kind.__flags__ & HEAP_TYPE and not reduces_as_any_object(kind)
        if custom and kind not in self.dispatch_table:
            return self.says_name(value)
        return NotImplemented

    @staticmethod
    def _accessor(value: Any) -> tuple[Any, ...]:
        """An object of a class below property, staticmethod or classmethod."""
        kind = type(value)
        base = next(one for one in _ACCESSORS if issubclass(kind, one))
        parts: tuple[Any, ...]
        if base is property:
            parts = value.fget, value.fset, value.fdel, value.__doc__
        else:
            parts = (value.__func__,)
        state = dict(getattr(value, "__dict__", {}))
        for key, one in getattr(base(parts[0]), "__dict__", {}).items():
            if state.get(key) is one:
                del state[key]  # of the function, as everywhere
        return make_accessor, (kind, base, parts), state or None, None, None, fill_accessor

    def _by_name(self, value: Any) -> bool:
        """Whether a function or class is found under its name where it is read."""
        module = module_of(value)
        if module == "__main__" or found(module, value.__qualname__) is not value:
            return False
        record = record_of(module)
        if record is None:
            return True
        if record.by_name:
            self.reached[id(value)] = value
        return record.by_name

    def _function(self, func: Any) -> Any:
        forced = bool(self.by_value) and any(func is one for one in self.by_value)
        if not forced and self._by_name(func):
            return NotImplemented
        named = not forced and found(func.__module__, func.__qualname__) is func
        if named and not self.inside:
            return self._reference(func, is_class=False)
        return self._define_function(func, named=named)

    def _define_function(self, func: Any, *, named: bool = True) -> Any:
        module, qualname = func.__module__, func.__qualname__
        tag = tag_of(func) if named else ""
        code = func.__code__
        if (code.co_filename, code.co_qualname) == _DISPATCH_CODE:
            attributes = {
                key: value
                for key, value in func.__dict__.items()
                if key not in ("registry", "dispatch", "register", "_clear_cache", "__wrapped__")
            }
            registry = [(cls, one) for cls, one in func.registry.items()]
            return (
                make_singledispatch, (tag, module, qualname, named), (registry, attributes),
                None, None, fill_singledispatch,
            )  # fmt: skip
        space = self._space(func.__globals__)
        hints = func.__annotations__
        facts = facts_of(code)
        names = _Names(self, space, [*facts.globals, *facts.hinted, *names_in_hints(hints)])
        self._submodules(space, facts.globals, facts.mentioned, func.__closure__ or ())
        defaults, kwdefaults = func.__defaults__, func.__kwdefaults__
        if defaults:
            defaults = tuple(map(self._at_home, defaults))
        if kwdefaults:
            kwdefaults = {key: self._at_home(one) for key, one in kwdefaults.items()}
        state = (
            func.__name__, func.__doc__, defaults, kwdefaults, hints,
            func.__dict__, getattr(func, "__type_params__", None), names,
        )  # fmt: skip
        made = (tag, module, qualname, named, space, code_bytes(code), func.__closure__)
        return make_function, made, state, None, None, fill_function

    def _submodules(
        self, space: _Space, names: Iterable[str], mentioned: Collection[str],
        cells: Iterable[CellType],
    ) -> None:  # fmt: skip
        """Modules inside packages that code asks for as attributes: somebody has to import them."""
        if space.by_name:
            return
        values = [space.namespace.get(name) for name in names]
        for cell in cells:
            try:
                values.append(cell.cell_contents)
            except ValueError:
                continue
        for value in values:
            if type(value) is ModuleType and hasattr(value, "__path__"):
                pending = [value.__name__]
                while pending:
                    package = pending.pop()
                    for name in mentioned:
                        inner = sys.modules.get(f"{package}.{name}")
                        if inner is not None and (0, inner.__name__) not in self._told:
                            self._told.add((0, inner.__name__))
                            self._pending.append(("module", inner))
                            pending.append(inner.__name__)

    def _class(self, cls: Any) -> Any:
        if id(cls) in _SINGLE_TYPES:
            return NotImplemented
        forced = bool(self.by_value) and any(cls is one for one in self.by_value)
        if not forced and self._by_name(cls):
            return NotImplemented
        if id(cls) in _BUILTIN_TYPES:
            return global_of, _BUILTIN_TYPES[id(cls)]
        generic = vars(cls).get("__pydantic_generic_metadata__")
        if type(generic) is dict and generic.get("origin") is not None:
            return operator.getitem, (generic["origin"], generic["args"])  # as it was made
        if not self.inside and not forced:
            return self._reference(cls, is_class=True)
        return self._define_class(cls, forced=forced)

    def _define_class(self, cls: Any, *, forced: bool = False) -> Any:
        module, qualname = cls.__module__, cls.__qualname__
        named = not forced and found(module, qualname) is cls
        (meta, name, bases, body, members), state = pieces_of_class(cls)
        self._alive.append((bases, body, members, state))
        if isinstance(module, str) and module in sys.modules and travels_by_value(module):
            space = self._space(vars(sys.modules[module]))
            self._tell(space, names_in_hints(state.get("__annotations__")))
        made = (tag_of(cls), module, qualname, named, meta, name, bases, body, members)
        methods = {
            key: one
            for key, one in state.items()
            if type(one) in _METHODS and key not in ("__new__", "__init__")
        }
        if methods and any(type(one) not in _SIMPLE for one in state.values()):
            # First of all: what is made next may need them, such as keys of a mapping. But what
            # makes instances may look for the very instances that are attributes of the class.
            rest = {key: one for key, one in state.items() if key not in methods}
            state = {FIRST: _Call(fill_methods, (cls, methods)), **rest}
            self._alive.append((methods, state))
        return make_class, made, state, None, None, fill_class

    def _reference(self, value: Any, *, is_class: bool) -> Any:
        """What stands for a class or function in a value."""
        try:
            with places.collecting(None):
                data, buffers, reach = definition_of(value)
        except places.HoldsObject:
            # It refers to outputs: those are inputs of this very call.
            return self._define_class(value) if is_class else self._define_function(value)
        if reach is not None and (reach.modules or reach.held):
            self.reaches[id(reach)] = reach
        names = value.__module__, value.__qualname__
        return reference, (tag_of(value), *names, data, *buffers)

    def method(self, value: Any) -> Any:
        reduced = super().method(value)
        if reduced is NotImplemented and type(value) is MethodType:
            # Not as an attribute of its object: a class that is not complete has not got it yet.
            return MethodType, (value.__func__, value.__self__)
        return reduced

    def module(self, value: ModuleType) -> Any:
        name = value.__name__
        if sys.modules.get(name) is value:
            if not travels_by_value(name):
                return super().module(value)
            space = self._space(vars(value))
            names: Iterable[str] = self.asked.get(name) or ()
            if EVERYTHING in names or not (names or name == "__main__"):
                names = _public(value)
            self._tell(space, names)
            kind = () if type(value) is ModuleType or name == "__main__" else (type(value),)
            return world_module, (name, facts_of_module(vars(value)), *kind)
        space = self._space(vars(value))
        self._tell(space, [one for one in vars(value) if one != "__builtins__"])
        return itself, (space.as_module(tag_of(value)),)

    def singleton(self, value: Any) -> Any:
        if getattr(value, "__dict__", None):
            return NotImplemented
        where = self.place_of(value)
        if where is None:
            return NotImplemented
        if not travels_by_value(where[0]):
            return super().singleton(value)
        return self._named(value, *where, bare, (type(value),), None)

    def new_context_variable(self, value: Any, where: tuple[str, str] | None) -> Any:
        args: tuple[Any, ...] = (value.name,)
        try:
            now = value.get()
            dumps(now, Apart())
            args = value.name, now
        except Exception:  # it is not set, or its value cannot travel
            pass
        if where is None or not travels_by_value(where[0]):
            return make_context_variable, args
        return self._named(value, *where, make_context_variable, args, None)

    def says_name(self, value: Any) -> Any:
        kind = type(value)
        reduced = value.__reduce_ex__(5)
        if not isinstance(reduced, str):
            return reduced
        if kind.__module__ == "typing":
            return self._of_typing(value, reduced)
        module = pickle.whichmodule(value, reduced)  # type: ignore[attr-defined]
        if not travels_by_value(module):
            return reduced
        state = object.__getstate__(value)
        return self._named(value, module, reduced, bare, (kind,), state)

    def _of_typing(self, value: Any, name: str) -> Any:
        """A type variable, an alias of a type, and what else `typing` knows by a name."""
        module = getattr(value, "__module__", None)
        if found(module, name) is value and not travels_by_value(module):
            return NotImplemented
        if not isinstance(module, str):
            module = "typing"
        if not parameters.is_of_syntax(value):
            maker, args = parameters.parts_of(value)
            return self._named(value, module, name, maker, args, None)
        if id(value) in self._owned:
            return parameters.parameter_of, self._owned[id(value)]
        described, late = parameters.late_parts_of(value)
        maker, args = parameters.make_parameter, (described,)
        if type(value).__name__ == "TypeAliasType":
            maker, args = parameters.make_alias, (value.__name__, module, described)
            owned = {id(one): (value, at) for at, one in enumerate(value.__type_params__)}
            self._owned = {**self._owned, **owned}
        named = found(module, name) is value
        made = (_tag_or_name(value, module, name), module, name, named, maker, *args)
        return make_named, made, late, None, None, parameters.fill_late

    def _named(
        self, value: Any, module: str, name: str, maker: Any, args: tuple[Any, ...], state: Any
    ) -> Any:
        named = found(module, name) is value
        made = (_tag_or_name(value, module, name), module, name, named, maker, *args)
        return make_named, made, state or {}, None, None, fill_named


def _tag_or_name(value: Any, module: str, name: str) -> str:
    try:
        return tag_of(value)
    except TypeError:  # no weak reference to it
        return f"@{module}:{name}"


def _is_loaded_module(value: Any) -> bool:
    return issubclass(type(value), ModuleType) and sys.modules.get(value.__name__) is value


class _Listing(threading.local):
    def __init__(self) -> None:
        self.modules: list[ModuleType] = []  # that are looked through, one because of the other


_listing = _Listing()


def _public(module: ModuleType) -> list[str]:
    """Names of a module that pickle, where nobody knows which are needed."""
    listed = _listing.modules
    if any(one is module for one in listed):
        return []  # modules that refer to each other
    names = []
    listed.append(module)
    try:
        for name, value in [*vars(module).items()]:
            if name.startswith("__"):
                continue
            try:
                if not _is_loaded_module(value):
                    dumps(_fresh(value), Apart())
            except Exception:
                continue
            names.append(name)
    finally:
        listed.pop()
    return names


@functools.cache
def _locks() -> dict[type, Callable[[], Any]]:
    import _thread

    return {
        type(_thread.allocate_lock()): threading.Lock,
        type(threading.RLock()): threading.RLock,
        threading.Condition: threading.Condition,
        threading.Event: threading.Event,
        threading.local: threading.local,
    }


def _fresh(value: Any) -> Any:
    """A lock of a module is another one in each process: it stands for a new one."""
    maker = _locks().get(type(value))
    return value if maker is None else _New(maker)


class _New:
    """Stands for what a call without arguments makes."""

    def __init__(self, maker: Callable[[], Any]) -> None:
        self.maker = maker

    def __reduce__(self) -> tuple[Any, ...]:
        return self.maker, ()


# -- picklers for definitions ---------------------------------------------------------------------


def _code_reduce(code: CodeType) -> tuple[Any, ...]:
    data = code_bytes(code)
    if type(data) is bytes:
        return _code_of, (data,)
    raise pickle.PicklingError("code with constants that no file could hold does not travel")


def _code_of(data: bytes) -> CodeType:
    import marshal

    return marshal.loads(data)  # type: ignore[no-any-return]


def _wrapped_reduce(value: Any) -> tuple[Any, ...]:
    return type(value), (value.__func__,)


def _property_reduce(value: property) -> tuple[Any, ...]:
    return type(value), (value.fget, value.fset, value.fdel, value.__doc__)


def _proxy_reduce(value: types.MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return types.MappingProxyType, (dict(value),)


def _descriptor_reduce(value: Any) -> tuple[Any, ...]:
    return getattr, (value.__objclass__, value.__name__)


def _view_reduce(view: memoryview) -> tuple[Any, ...]:
    data = pickle.PickleBuffer(view) if view.contiguous else view.tobytes()
    return make_view, (data, view.format, view.shape)


def _weak_mapping_reduce(value: Any) -> tuple[Any, ...]:
    return type(value), (), None, None, iter(list(value.items()))


_TABLE: Final[dict[type, Callable[[Any], Any]]] = {
    CodeType: _code_reduce,
    staticmethod: _wrapped_reduce,
    classmethod: _wrapped_reduce,
    property: _property_reduce,
    memoryview: _view_reduce,
    weakref.WeakValueDictionary: _weak_mapping_reduce,
    weakref.WeakKeyDictionary: _weak_mapping_reduce,
    types.MappingProxyType: _proxy_reduce,
    types.GetSetDescriptorType: _descriptor_reduce,
    types.MemberDescriptorType: _descriptor_reduce,
}


class _Quick(_Rich, pickle.Pickler):
    """Writes definitions without cloudpickle, which takes long to load at both ends."""

    dispatch_table: ClassVar[Any] = ChainMap(_TABLE, copyreg.dispatch_table)  # type: ignore[misc]


@functools.cache
def _full() -> type[Any]:
    # Imported late: it takes ~15 ms, and most programs never need it. By the name that stands in
    # pickles: where one thread begins with the package and one with the module, one of them is
    # given what is not complete.
    import cloudpickle.cloudpickle as cloudpickle

    class Full(_Rich, cloudpickle.Pickler):  # type: ignore[misc]
        """Writes what cloudpickle can, and definitions in our own way."""

        dispatch_table: ClassVar[Any] = ChainMap(_TABLE, cloudpickle.Pickler.dispatch_table)

    return Full


@functools.cache
def _deep() -> type[Any]:
    from mars.code.deep import DeepPickler  # late: few values are nested so deep

    class Deep(_Rich, DeepPickler):
        """Writes definitions, and values that are nested deeper than Python's stack is."""

        dispatch_table = _full().dispatch_table  # type: ignore[misc]

    return Deep


def _next_pickler(made: type[Any], error: Exception) -> type[Any] | None:
    """What takes more than a pickler that failed; None: nothing does."""
    if made is _Quick and not isinstance(error, RecursionError):
        return _full()
    # cloudpickle says it in its own words.
    is_deep = isinstance(error, RecursionError) or isinstance(error.__context__, RecursionError)
    return _deep() if is_deep and made is not _deep() else None


def _rich_dumps(
    value: Any,
    keep: Keeper,
    *,
    arguments: bool = False,
    inside: bool = False,
    by_value: tuple[Any, ...] = (),
    asked: dict[str, dict[str, None]] | None = None,
    prepared: object = None,
    new_file: Callable[[], Any] = io.BytesIO,
    table: dict[Any, Any] | None = None,
    locks: bool = False,
    met: dict[int, Any] | None = None,
    reducers: Iterable[tuple[Any, ...]] = (),
) -> tuple[bytes, _Rich]:
    """Pickle with definitions."""
    made: Any = _Quick
    while True:
        keep.restart()
        file = new_file()
        pickler = made(file, 5, buffer_callback=keep)
        if table is not None:
            pickler.dispatch_table = ChainMap(*made.dispatch_table.maps[:-1], table)
        pickler.begin(arguments, inside, by_value, asked or {}, locks, reducers)
        try:
            pickler.dump(_Root(pickler, value, prepared))
        except Exception as error:
            made = _next_pickler(made, error)
            if made is None:
                raise
            continue
        if met is not None:
            note_changeable(pickler, met)
        pickler.let_go()
        return file.getvalue(), pickler


# -- what others call -----------------------------------------------------------------------------


class _Known:
    """A class or function that was defined before, or a function that was described."""

    __slots__ = ("made", "reach", "reference")

    def __init__(self, reference: weakref.ref[Any], reach: Reach, made: Any) -> None:
        self.reference, self.reach, self.made = reference, reach, made


class Memory:
    """What was made of classes and functions, for as long as nothing that they reach changes."""

    def __init__(self) -> None:
        self.known: dict[int, _Known] = {}

    def get(self, value: Any) -> _Known | None:
        """What was made, or None."""
        known = self.known.get(id(value))
        if known is not None and known.reference() is value and known.reach.unchanged():
            return known
        return None

    def put(self, value: Any, reach: Reach, made: Any) -> None:
        """Remember what was made."""
        key = id(value)
        forget = functools.partial(_forget, self.known, key)
        self.known[key] = _Known(weakref.ref(value, forget), reach, made)


def _forget(known: dict[int, _Known], key: int, _: object) -> None:
    """A function is gone; at the end of a program the names of this module may be, too."""
    known.pop(key, None)


_definitions: Final = Memory()
_entries: Final = Memory()


def definition_of(value: Any) -> tuple[bytes, list[pickle.PickleBuffer], Reach | None]:
    """A class or function for a world that lacks it: a pickle, its buffers, what it reaches."""
    known = _definitions.get(value)
    if known is not None:
        return (*known.made, known.reach)
    keep = Apart()
    reach = Reach(value)
    data, _ = _rich_dumps(value, keep, inside=True, asked=reach.asked)
    if reach.stable and not keep.buffers and not _listing.modules:
        _definitions.put(value, reach, (data, []))
    return data, keep.buffers, reach


def reference(tag: str, module: str, qualname: str, data: bytes, *buffers: Any) -> Any:
    """The class or function of that tag; made from its definition where nobody has it."""
    known = current().find(tag, module, qualname)
    if known is not MISSING:
        return known
    with making:
        known = current().find(tag, module, qualname)
        return pickle.loads(data, buffers=buffers) if known is MISSING else known


def opened(_: object, data: bytes, *buffers: Any) -> Any:
    """A value; what came beside it has been read before."""
    return pickle.loads(data, buffers=buffers)


def dumps(value: Any, keep: Keeper) -> bytes:
    """Pickle a value; large buffers are left to ``keep``.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    return _dumps(value, keep, arguments=False)[0]


def dumps_arguments(
    value: Any, keep: Keeper, origins: Callable[[], Iterable[Any]] = tuple
) -> bytes:
    """Pickle what a call is given, and what modules hold that it reaches.

    ``origins`` gives functions, or None in their place, that make what is put into it later.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    data, reached, reaches = _dumps(value, keep, arguments=True)
    makers = [one for one in origins() if one is not None]
    if makers:
        reached = [*reached, *{id(one): one for one in makers}.values()]
    if not reached and not reaches:
        return data
    with places.collecting(None):  # what modules hold is no part of the arguments
        prepared = _prepared([*_reaches_of(reached), *reaches])
    if prepared is None:
        return data
    call = _Call(opened, (prepared.in_band(_content_dumps), data, *keep.buffers))
    return pickle.dumps(call, 5, buffer_callback=lambda _: False)


def dumps_apart(value: Any, new_file: Callable[[], Any], leave_out: type) -> bytes:
    """Pickle a value into a file of one's own, and without reducers for some classes.

    Parameters
    ----------
    value : object
        What to pickle.
    new_file : callable
        Makes a file that is written to; it has ``getvalue``, and may refuse to grow.
    leave_out : type
        For this class, and all below it, no reducer counts that somebody registered.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    table = {
        cls: reduce
        for cls, reduce in copyreg.dispatch_table.items()
        if not (isinstance(cls, type) and issubclass(cls, leave_out))
    }
    return _dumps(value, InBand(), arguments=False, new_file=new_file, table=table)[0]


def _dumps(
    value: Any,
    keep: Keeper,
    *,
    arguments: bool,
    new_file: Callable[[], Any] = io.BytesIO,
    table: dict[Any, Any] | None = None,
    locks: bool = False,
    met: dict[int, Any] | None = None,
) -> tuple[bytes, Any, Any]:
    """A pickle, the definitions that it names, and what those that it holds reach.

    ``met`` gets the objects that it holds and that can be changed, by identity.
    """
    keep.restart()
    if waiting_reducers:
        look_for_reduced()
    file = new_file()
    plain = _Plain(file, keep, arguments, locks)
    if table is not None:
        plain.dispatch_table = table
    try:
        plain.dump(value)
        data = file.getvalue()
        if not names_main(data):  # else an object says that it is found there
            if met is not None:
                note_changeable(plain, met)
            return data, plain.reached.values(), ()
    except Exception:  # the next one takes more, and its error is the better one
        pass
    data, rich = _rich_dumps(
        value, keep, arguments=arguments, new_file=new_file, table=table, locks=locks, met=met
    )
    return data, rich.reached.values(), rich.reaches.values()


def names_main(data: bytes) -> bool:
    """Whether a pickle of protocol 5 refers to something by a name in ``__main__``."""
    if b"__main__" not in data:
        return False
    from mars.code import main_names  # late: most pickles do not have the text

    return main_names.names_main(data)


class _Call:
    """Stands for what a function makes of arguments."""

    def __init__(self, func: Any, args: tuple[Any, ...]) -> None:
        self._parts = func, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self._parts


def _reaches_of(values: Iterable[Any]) -> list[Reach]:
    """What classes and functions that travel by name reach."""
    found = []
    for value in values:
        known = _entries.get(value)
        if known is None:
            reach = Reach(value)
            if reach.stable:
                _entries.put(value, reach, None)
        else:
            reach = known.reach
        found.append(reach)
    return found


_last: tuple[tuple[int, ...], list[Reach], Any] = (), [], None


def _prepared(reaches: list[Reach]) -> Any:
    """What goes beside something that reaches so far; the last answer is remembered."""
    global _last
    key = tuple(map(id, reaches))
    if key == _last[0] and all(reach.stable for reach in reaches):
        return _last[2]
    prepared = prepared_of(reaches, _content_dumps)
    _last = key, reaches, prepared  # which also keeps them alive, and so their identities
    return prepared


def _content_dumps(
    value: Any, keep: Any, by_value: tuple[Any, ...] = (), met: dict[int, Any] | None = None
) -> bytes:
    if not by_value:
        return _dumps(value, keep, arguments=False, locks=True, met=met)[0]
    return _rich_dumps(value, keep, by_value=by_value, locks=True)[0]


def dumps_function(func: Any, keep: Keeper) -> tuple[bytes, Reach]:
    """Pickle what is to be called, with all that it reaches.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    keep.restart()
    reach = Reach(func)
    prepared = prepared_of([reach], _content_dumps)
    reducers = _told(reach.reducers)
    if prepared is None and not reducers:
        file = io.BytesIO()
        try:
            _Plain(file, keep, True).dump(func)
            data = file.getvalue()
            if not names_main(data):
                return data, reach
        except Exception:  # the next one takes more, and its error is the better one
            keep.restart()
    data, _ = _rich_dumps(
        func, keep, arguments=True, inside=True, asked=reach.asked, prepared=prepared,
        reducers=reducers,
    )  # fmt: skip
    return data, reach


def _place_of_class(cls: type) -> tuple[str, str] | None:
    """Module and name that other processes find a class by; None: it travels by value."""
    module = module_of(cls)
    if travels_by_value(module) or not isinstance(module, str):
        return None
    if found(module, cls.__qualname__) is cls:
        return module, cls.__qualname__
    if id(cls) in _BUILTIN_TYPES:
        return _BUILTIN_TYPES[id(cls)]
    for name, one in [*vars(sys.modules.get(module, types)).items()]:
        if one is cls:  # such as `_thread.lock`, which has another name there
            return module, name
    return None


def _told(reducers: Iterable[tuple[type, Callable[..., Any]]]) -> list[tuple[Any, ...]]:
    """Reducers as they travel: each beside the tag of its class, or its module and name."""
    told: list[tuple[Any, ...]] = []
    for cls, reducer in reducers:
        try:
            key = _place_of_class(cls) or tag_of(cls)
            told.append(("reducer", key, dumps(reducer, InBand())))
        except Exception:  # a closure with a lock, say: objects pickle as they say themselves
            continue
    return told


compare_state: Final = states_module.comparing(_content_dumps)
"""What a module has to get back of a state, given what its import made; None: nothing."""
