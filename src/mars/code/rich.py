"""Definitions of what travels by value: the part that two picklers share.

Classes and functions of the program, its modules, and objects that only their name tells are
written with all that they are made from. `mars.code.pickling` makes picklers of it, and says what a
value holds in place of a definition.
"""

from __future__ import annotations

import functools
import operator
import pickle
import sys
import types
from collections import ChainMap, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, Final, cast

from mars.code.bytecode import facts_of, names_in_alias, names_in_hints
from mars.code.changes import (
    HEAP_TYPE,
    MISSING,
    CachedFunction,
)
from mars.code.class_pieces import pieces_of_class
from mars.code.definitions import (
    FIRST,
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
    itself,
    make_accessor,
    make_cached_property,
    make_cell,
    make_class,
    make_context_variable,
    make_function,
    make_named,
    make_singledispatch,
    names_in,
    with_cache,
    world_module,
)
from mars.code.modules import Homes, record_of, travels_by_value
from mars.code.origin import found, module_of
from mars.code.parts import EVERYTHING, reduces_as_any_object
from mars.code.reach import Reach
from mars.code.reductions import Reducer
from mars.code.special import (
    BUILTIN_TYPES,
    SINGLE_TYPES,
    Special,
    handler_of,
    place_of_lying,
)
from mars.code.stand_ins import PAD, STAND_INS, Call, Deeper, Names, Space, facts_of_module, fresh
from mars.code.world import (
    tag_of,
)
from mars.settings import PICKLE_DEPTH

_METHODS: Final = frozenset({FunctionType, staticmethod, classmethod, property})
_SIMPLE: Final = _METHODS | {bool, int, float, str, bytes, type(None)}
_ACCESSORS: Final = (property, staticmethod, classmethod)

_DISPATCH_CODE: Final = (
    functools.singledispatch.__code__.co_filename, "singledispatch.<locals>.wrapper",
)  # fmt: skip


class Rich(Special):
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
    defined : dict
        Functions and classes whose definitions were written, by identity.
    """

    inside: bool
    dispatch_table: ChainMap[type, Reducer]
    by_value: tuple[object, ...]
    asked: dict[str, dict[str, None]]
    reducers: Iterable[tuple[object, ...]]
    stands: Iterable[str]
    held: Collection[tuple[str, str]]
    shared: Mapping[tuple[str, str], object]
    reaches: dict[int, Reach]
    defined: dict[int, object]
    _spaces: dict[int, Space]
    _told: set[tuple[int, str]]
    _pending: deque[tuple[object, ...]]
    _alive: list[object]
    _homes: Homes
    _owned: Mapping[int, tuple[object, int]] = types.MappingProxyType({})
    # parameters of aliases, by identity
    depth: int
    clear_memo: Callable[[], None]  # of the pickler

    def begin(
        self, arguments: bool, inside: bool, by_value: tuple[object, ...],
        asked: dict[str, dict[str, None]], locks: bool = False,
        reducers: Iterable[tuple[object, ...]] = (), stands: Iterable[str] = (),
        held: Collection[tuple[str, str]] = (),
        shared: Mapping[tuple[str, str], object] = types.MappingProxyType({}),
    ) -> None:  # fmt: skip
        """Take what is to be done; instead of an ``__init__``, which picklers have already."""
        self.arguments, self.inside, self.locks = arguments, inside, locks
        self.by_value, self.asked, self.reducers = by_value, asked, reducers
        self.stands, self.held, self.shared = stands, held, shared
        self.reached, self.globals_by_identity = {}, {}
        self.reaches, self.defined = {}, {}
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

    def items(self, value: object) -> Iterator[tuple[object, ...]]:
        """The value, and what its functions refer to, which is known once they are written."""
        # The pickler takes two items before it writes the first, so something has to come
        # between an item and those that it leads to.
        if self.shared:
            stands = [Call(global_of, home) for home in self.shared]
            yield "shared", stands
            yield PAD
            self._write_as(dict(zip(map(id, stands), self.shared.values(), strict=True)))
        yield "value", value
        yield PAD
        for name in self.asked:  # modules that code imports when it runs, also the script's own
            module = sys.modules.get(name)
            if module is not None:
                self._pending.append(("module", module))
        self._pending.extend(("stands", name, sys.modules.get(name)) for name in self.stands)
        self._pending.extend(self.reducers)
        while self._pending:
            yield self._pending.popleft()
            if not self._pending:
                yield PAD

    def _write_as(self, known: Mapping[int, object]) -> None:
        """Have objects written as what was written for others, by the identity of those.

        A pickler asks nobody before it writes a dictionary or a list. It only looks whether it has
        written this one before, and refers to its place then.
        """
        pickler = cast("pickle.Pickler", self)
        places = pickler.memo.copy()  # of what it has written, by identity
        for stands, value in known.items():
            places[id(value)] = places.pop(stands)[0], value
        pickler.memo = places

    def _space(self, namespace: dict[str, object]) -> Space:
        known = self._spaces.get(id(namespace))
        if known is None:
            known = self._spaces[id(namespace)] = Space(namespace)
        return known

    def _tell(self, space: Space, names: Iterable[str]) -> None:
        """Have names of a namespace written, later."""
        for name, value in self._untold(space, names):
            self._pending.append(("name", space, name, value))

    def names_now(self, space: Space, names: Iterable[str]) -> tuple[object, ...]:
        """Names of a namespace that are written together with a function, unless it is too deep."""
        if self.depth >= PICKLE_DEPTH:
            self._tell(space, names)
            return bool, ()
        told = list(self._untold(space, names))
        if not told:
            return bool, ()
        return names_in, (Deeper(self, 1), space, told, Deeper(self, -1))

    def _untold(self, space: Space, names: Iterable[str]) -> Iterator[tuple[str, object]]:
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
                value = fresh(value)
            yield name, value

    def _at_home(self, value: object) -> object:
        """What stands for an object that a module which travels by name has under a name."""
        home = self._home_of(value)
        if home is None:
            return value
        stands = Call(global_of, home)
        self._alive.append(stands)
        return stands

    def _home_of(self, value: object) -> tuple[str, str] | None:
        """Where a module that travels by name holds an object; None: nowhere."""
        home = self._homes.home_of(value)
        if home is not None:
            module = sys.modules[home[0]]
            self.reached[id(module)] = module
        return home

    def reducer_override(self, value: object, /) -> Any:  # also tuples of six, unlike its base
        kind = type(value)
        if kind is FunctionType:
            assert isinstance(value, FunctionType)
            return self._function(value)
        if issubclass(kind, type) and isinstance(value, type):
            return self._class(value)
        if issubclass(kind, CachedFunction):
            assert isinstance(value, CachedFunction)
            if value not in self.by_value and self._by_name(value):
                return NotImplemented
            return with_cache, (value.__wrapped__, value.cache_parameters())
        if kind is CellType:
            assert isinstance(value, CellType)
            try:
                contents = value.cell_contents
            except ValueError:
                return make_cell, ()
            return make_cell, (), (self._at_home(contents),), None, None, fill_cell
        if id(kind) in STAND_INS:  # by identity: a metaclass may have no hash
            return NotImplemented
        if self.held and kind.__flags__ & HEAP_TYPE:
            # Inside something of the script: what the module holds goes beside this pickle.
            home = self._home_of(value)
            if home in self.held:
                return global_of, home
        if issubclass(kind, _ACCESSORS) and kind not in _ACCESSORS:
            return self._accessor(value)
        if issubclass(kind, functools.cached_property):
            assert isinstance(value, functools.cached_property)
            return make_cached_property, (kind, value.func, value.attrname, value.__doc__)
        handler = handler_of(kind)
        if handler:
            return getattr(self, handler)(value)
        custom = kind.__flags__ & HEAP_TYPE and not reduces_as_any_object(kind)
        if custom and kind not in self.dispatch_table:
            return self.says_name(value)
        return NotImplemented

    @staticmethod
    def _accessor(value: object) -> tuple[object, ...]:
        """An object of a class below property, staticmethod or classmethod."""
        kind = type(value)
        base: type
        plain: object
        parts: tuple[object, ...]
        if isinstance(value, property):
            base, plain = property, property(value.fget)
            parts = value.fget, value.fset, value.fdel, value.__doc__
        elif isinstance(value, staticmethod):
            base, plain, parts = staticmethod, staticmethod(value.__func__), (value.__func__,)
        else:
            assert isinstance(value, classmethod)
            base, plain, parts = classmethod, classmethod(value.__func__), (value.__func__,)
        state = dict(getattr(value, "__dict__", {}))
        for key, one in getattr(plain, "__dict__", {}).items():
            if state.get(key) is one:
                del state[key]  # of the function, as everywhere
        return make_accessor, (kind, base, parts), state or None, None, None, fill_accessor

    def _by_name(self, value: object) -> bool:
        """Whether a function or class is found under its name where it is read."""
        module = module_of(value)
        if module == "__main__" or found(module, getattr(value, "__qualname__", "")) is not value:
            return False
        record = record_of(module)
        if record is None:
            return True
        if record.by_name:
            self.reached[id(value)] = value
        return record.by_name

    def _function(self, func: FunctionType) -> object:
        forced = bool(self.by_value) and any(func is one for one in self.by_value)
        if not forced and self._by_name(func):
            return NotImplemented
        named = not forced and found(func.__module__, func.__qualname__) is func
        if named and not self.inside:
            return self.refer(func)
        return self.define_function(func, named=named)

    def define_function(self, func: FunctionType, *, named: bool = True) -> object:
        self.defined[id(func)] = func
        module, qualname = func.__module__, func.__qualname__
        tag = tag_of(func) if named else ""
        code = func.__code__
        if (code.co_filename, code.co_qualname) == _DISPATCH_CODE:
            attributes = {
                key: value
                for key, value in func.__dict__.items()
                if key not in ("registry", "dispatch", "register", "_clear_cache", "__wrapped__")
            }
            registry = [*vars(func)["registry"].items()]
            return (
                make_singledispatch, (tag, module, qualname, named), (registry, attributes),
                None, None, fill_singledispatch,
            )  # fmt: skip
        space = self._space(func.__globals__)
        hints = func.__annotations__
        facts = facts_of(code)
        names = Names(self, space, [*facts.globals, *facts.hinted, *names_in_hints(hints)])
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
        self, space: Space, names: Iterable[str], mentioned: Collection[str],
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

    def _class(self, cls: type) -> object:
        if id(cls) in SINGLE_TYPES:
            return NotImplemented
        forced = bool(self.by_value) and any(cls is one for one in self.by_value)
        if not forced and self._by_name(cls):
            return NotImplemented
        if id(cls) in BUILTIN_TYPES:
            return global_of, BUILTIN_TYPES[id(cls)]
        if module_of(cls) == "_ctypes":  # a metaclass, which has no name there
            made = [*vars(sys.modules["_ctypes"]).values()]
            return type, (next(one for one in made if type(one) is cls),)
        place = None if travels_by_value(module_of(cls)) else place_of_lying(cls)
        if place is not None:
            return global_of, place
        generic = vars(cls).get("__pydantic_generic_metadata__")
        if type(generic) is dict and generic.get("origin") is not None:
            return operator.getitem, (generic["origin"], generic["args"])  # as it was made
        if not self.inside and not forced:
            return self.refer(cls)
        return self.define_class(cls, forced=forced)

    def define_class(self, cls: type, *, forced: bool = False) -> object:
        self.defined[id(cls)] = cls
        module, qualname = cls.__module__, cls.__qualname__
        named = not forced and found(module, qualname) is cls
        (meta, name, bases, body, members), state = pieces_of_class(cls)
        self._alive.append((bases, body, members, state))
        if isinstance(module, str) and module in sys.modules and travels_by_value(module):
            space = self._space(vars(sys.modules[module]))
            self._tell(space, names_in_hints(state.get("__annotations__")))
        if members is None:
            state = {key: self._at_home(one) for key, one in state.items()}
            self._alive.append(state)
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
            state = {FIRST: Call(fill_methods, (cls, methods)), **rest}
            self._alive.append((methods, state))
        return make_class, made, state, None, None, fill_class

    def refer(self, value: FunctionType | type) -> object:
        """What stands for a class or function in a value."""
        raise NotImplementedError

    def public_names(self, module: ModuleType) -> list[str]:
        """Names of a module that travel, where nobody knows which are needed."""
        raise NotImplementedError

    def can_travel(self, value: object) -> bool:
        """Whether a value pickles by itself."""
        raise NotImplementedError

    def method(self, value: BuiltinFunctionType | MethodType) -> object:
        reduced = super().method(value)
        if reduced is NotImplemented and type(value) is MethodType:
            # Not as an attribute of its object: a class that is not complete has not got it yet.
            return MethodType, (value.__func__, value.__self__)
        return reduced

    def module(self, value: ModuleType) -> object:
        name = value.__name__
        if sys.modules.get(name) is value:
            if not travels_by_value(name):
                return super().module(value)
            space = self._space(vars(value))
            names: Iterable[str] = self.asked.get(name) or ()
            if EVERYTHING in names or not (names or name == "__main__"):
                names = self.public_names(value)
            self._tell(space, names)
            kind = () if type(value) is ModuleType or name == "__main__" else (type(value),)
            return world_module, (name, facts_of_module(vars(value)), *kind)
        space = self._space(vars(value))
        self._tell(space, [one for one in vars(value) if one != "__builtins__"])
        return itself, (space.as_module(tag_of(value)),)

    def singleton_by_value(self, value: object, module: str, name: str) -> object:
        return self._named(value, module, name, bare, (type(value),), None)

    def new_context_variable(
        self, value: ContextVar[object], where: tuple[str, str] | None
    ) -> object:
        args: tuple[object, ...] = (value.name,)
        try:
            now = value.get()
        except LookupError:  # it has no value
            now = MISSING
        if now is not MISSING and self.can_travel(now):
            args = value.name, now
        if where is None or not travels_by_value(where[0]):
            return make_context_variable, args
        return self._named(value, *where, make_context_variable, args, None)

    def says_name(self, value: object) -> object:
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

    def _of_typing(self, value: object, name: str) -> object:
        """A type variable, an alias of a type, and what else `typing` knows by a name."""
        from mars.code import parameters  # late: few programs have such things

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
            maker, args = parameters.make_alias, (name, module, described)
            owned = {id(one): (value, at) for at, one in enumerate(parameters.parameters_of(value))}
            self._owned = {**self._owned, **owned}
        named = found(module, name) is value
        made = (_tag_or_name(value, module, name), module, name, named, maker, *args)
        return make_named, made, late, None, None, parameters.fill_late

    def _named(
        self,
        value: object,
        module: str,
        name: str,
        maker: object,
        args: tuple[object, ...],
        state: object,
    ) -> object:
        named = found(module, name) is value
        made = (_tag_or_name(value, module, name), module, name, named, maker, *args)
        return make_named, made, state or {}, None, None, fill_named


def _tag_or_name(value: object, module: str, name: str) -> str:
    try:
        return tag_of(value)
    except TypeError:  # no weak reference to it
        return f"@{module}:{name}"
