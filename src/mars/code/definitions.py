"""Classes and functions that travel by value: what they are made of, and making them again.

A definition in a pickle is a call of one of the ``make_…`` functions below with what has to be
known when the object comes into being, and then one of the ``fill_…`` functions with the rest. If
the world that it comes to has the object already, it is that one, and nothing is filled in.

A class is made without its metaclass's and its bases' own code where these are the project's: their
work is done, and its result is in the class. So keywords of a class statement are not needed again,
a registry does not get the class twice, and an enum's members are what their ``__init__`` made.
"""

from __future__ import annotations

import builtins
import contextlib
import enum
import functools
import importlib
import marshal
import sys
import threading
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Final, Literal, TypeVar

from mars.code.changes import MISSING
from mars.code.class_pieces import MEMBERS, REGISTERED_AT, Member, member_type
from mars.code.modules import travels_by_value
from mars.code.origin import is_project_module
from mars.code.world import (
    current,
    keep_apart,
)

T = TypeVar("T")

CODE_VERSION: Final = 2
"""Of `marshal`: later ones write the same code in several ways, by how often it is referred to."""

making: Final = threading.RLock()
"""Held while a definition is read, so that no other thread finds one that is not complete."""


class _Made(threading.local):
    """Objects that were made and not filled yet; held, so that no identity is used again."""

    def __init__(self) -> None:
        self.objects: dict[int, object] = {}


_made = _Made()


def _new(value: T) -> T:
    _made.objects[id(value)] = value
    return value


def is_new(value: object) -> bool:
    """Whether an object was just made, and has to be filled; asked once."""
    return _made.objects.pop(id(value), MISSING) is value


# -- names ----------------------------------------------------------------------------------------


def imported(name: str) -> ModuleType:
    """A module, by its name."""
    return importlib.import_module(name)


def imported_namespace(name: str) -> dict[str, object]:
    """The global names of a module that travels by name."""
    return vars(importlib.import_module(name))


def global_of(module: str, name: str) -> object:
    """What a module holds under a name, dots included."""
    value: object = importlib.import_module(module)
    current().ready(module, name)
    for step in name.split("."):
        value = getattr(value, step)
    return value


def singleton_of(module: str, name: str, kind: type) -> object:
    """An object without content that a module holds under a name; else another one like it."""
    try:
        value = global_of(module, name)
    except (ImportError, AttributeError):
        value = MISSING
    return value if type(value) is kind else bare(kind)


def world_module(
    name: str, facts: Mapping[str, object], kind: type[ModuleType] = ModuleType
) -> ModuleType:
    """A module that travels by value, of a class of its own perhaps."""
    module = current().module(name, facts)
    if kind is not ModuleType:
        module.__class__ = kind
    return module


def world_namespace(name: str, facts: Mapping[str, object]) -> dict[str, object]:
    """The global names of a module that travels by value."""
    return current().namespace(name, facts)


def loose_module(tag: str, name: str, facts: dict[str, object]) -> ModuleType:
    """A module that is not in ``sys.modules``, or the names of code that was run with `exec`."""
    world = current()
    known = world.find(tag, name, "") if tag else MISSING
    if isinstance(known, ModuleType):
        return known
    made = ModuleType(name)
    made.__dict__.update(facts)
    made.__dict__["__builtins__"] = builtins.__dict__
    world.add(tag, name, None, made)
    return made


def itself(value: object) -> object:
    """What it is given: for an object that stands in a pickle as another one."""
    return value


def make_view(
    data: bytes | bytearray | memoryview, form: str, shape: tuple[int, ...]
) -> memoryview:
    """A view of bytes, as what they were seen as."""
    view = memoryview(data).cast("B")
    return view if form == "B" and len(shape) == 1 else view.cast(form, shape)  # type: ignore[call-overload]


def make_context_variable(name: str, *value: object) -> ContextVar[object]:
    """A variable of `contextvars`; the value that it had where it comes from is its default."""
    return ContextVar(name, default=value[0]) if value else ContextVar(name)


Item = (
    tuple[()]
    | tuple[Literal["value", "module"], object]
    | tuple[Literal["name"], dict[str, object], str, object]
    | tuple[Literal["reducer"], str | tuple[str, str], bytes]
)
"""One item of a `Definition`, whose first part says what it is."""


class Definition:
    """What a pickle that holds definitions is read into: the value, then what functions refer to.

    Functions come with the global names that they need, so that values which are made with them
    can be made. Of functions that call each other in a long chain the names of later ones come
    after the value, one after the other, so that no deep stack is needed.
    """

    def __init__(self, _: object = None) -> None:
        self.value: object = None

    def extend(self, items: list[Item]) -> None:
        """Take the value, which comes first, and then ``(namespace, name, value)``."""
        for item in items:
            self.append(item)

    def append(self, item: Item) -> None:
        """Take one item."""
        match item:
            case ("value", value):
                self.value = value
            case ("name", namespace, name, value):
                current().define(namespace, name, value)
            case ("stands", name, value):
                current().show_as(name, value)
            case ("reducer", key, data):
                current().reduce_by(key, data)


def value_of(definition: Definition) -> object:
    """The value of a definition that is complete."""
    return definition.value


# -- functions ------------------------------------------------------------------------------------


def code_from(data: bytes) -> CodeType:
    """Code that has travelled."""
    code: CodeType = marshal.loads(data)
    return code


def code_bytes(code: CodeType) -> bytes | CodeType:
    """Code as it travels; itself, where somebody put odd constants into it."""
    try:
        return marshal.dumps(code, CODE_VERSION)
    except ValueError:
        return code


def make_cell() -> CellType:
    """A closure's variable, still empty."""
    return _new(CellType())


def fill_cell(cell: CellType, state: tuple[object]) -> None:
    """Give it its value."""
    if is_new(cell):
        (cell.cell_contents,) = state


def make_function(
    tag: str,
    module: str,
    qualname: str,
    named: bool,
    namespace: dict[str, object],
    code: bytes | CodeType,
    cells: tuple[CellType, ...] | None,
) -> object:
    """A function as far as it has to be known before what it holds can refer to it."""
    world = current()
    if tag:
        known = world.find(tag, module, qualname)
        if known is not MISSING:
            return known
    if isinstance(code, bytes):
        code = code_from(code)
    func = FunctionType(code, namespace, code.co_name, None, cells)
    func.__qualname__, func.__module__ = qualname, module
    world.add(tag, module, qualname if named else None, func)
    return _new(func)


_Names = tuple[dict[str, object], list[tuple[str, object]]]
"""Global names with their values, and the namespace that they are to be in."""


def names_in(
    _: bool, namespace: dict[str, object], told: list[tuple[str, object]], __: bool
) -> _Names:
    """Names that a function needs, and where."""
    return namespace, told


_FunctionState = tuple[
    str,
    str | None,
    tuple[object, ...] | None,
    dict[str, object] | None,
    dict[str, object] | None,
    dict[str, object] | None,
    tuple[object, ...] | None,
    _Names | Literal[False],
]


def fill_function(func: FunctionType, state: _FunctionState) -> None:
    """Give a function the rest."""
    name, doc, defaults, by_name, hints, attributes, parameters, names = state
    if names:
        namespace, told = names
        for key, value in told:
            current().define(namespace, key, value)
    if not is_new(func):
        return
    func.__name__, func.__doc__ = name, doc
    func.__defaults__, func.__kwdefaults__ = defaults, by_name
    if hints:
        func.__annotations__ = hints
    if attributes:
        func.__dict__.update(attributes)
    if parameters:
        func.__type_params__ = parameters  # type: ignore[attr-defined]


def make_singledispatch(tag: str, module: str, qualname: str, named: bool) -> object:
    """A function that `functools.singledispatch` made, without its implementations."""
    world = current()
    if tag:
        known = world.find(tag, module, qualname)
        if known is not MISSING:
            return known

    def nobody(*_: object) -> None:
        """Stands where an implementation comes."""

    made = functools.singledispatch(nobody)
    world.add(tag, module, qualname if named else None, made)
    return _new(made)


def fill_singledispatch(
    func: functools._SingleDispatchCallable[object],
    state: tuple[list[tuple[type, Callable[..., object]]], dict[str, object]],
) -> None:
    """Register its implementations."""
    if not is_new(func):
        return
    registry, attributes = state
    for cls, implementation in registry:
        func.register(cls, implementation)
    functools.update_wrapper(func, registry[0][1])
    func.__dict__.update(attributes)


def with_cache(func: Callable[..., object], parameters: functools._CacheParameters) -> object:
    """A function under a cache of its own, empty at first."""
    return functools.lru_cache(**parameters)(func)


def make_accessor(kind: type[object], base: type[object], parts: tuple[object, ...]) -> object:
    """An object of a class below property, staticmethod or classmethod; no code of it runs."""
    made = base.__new__(kind)
    _ACCESSORS[base](made, *parts)
    return made


_ACCESSORS: Final[dict[type, Callable[..., None]]] = {
    property: property.__init__,
    staticmethod: staticmethod.__init__,
    classmethod: classmethod.__init__,
}


def fill_accessor(accessor: object, state: dict[str, object]) -> None:
    """Give it what is its own."""
    vars(accessor).update(state)


def make_cached_property(
    cls: type[functools.cached_property[object]],
    func: Callable[..., object],
    name: str | None,
    doc: str | None,
) -> object:
    """A cached property; its lock, where it has one, is new."""
    made = cls(func)
    made.attrname, made.__doc__ = name, doc
    return made


# -- classes --------------------------------------------------------------------------------------


def make_class(
    tag: str,
    module: str,
    qualname: str,
    named: bool,
    meta: type,
    name: str,
    bases: tuple[type, ...],
    body: dict[str, object],
    members: tuple[Member, ...] | None,
) -> object:
    """A class as far as it has to be known before what it holds can refer to it."""
    world = current()
    known = world.find(tag, module, qualname)
    if known is not MISSING:
        return known
    if members is None:
        cls = _bare_class(meta, name, bases, body)
    else:
        cls = _bare_enum(meta, name, bases, body, members)
    world.add(tag, module, qualname if named else None, cls)
    keep_apart(cls)
    return _new(cls)


def _is_ours(cls: type) -> bool:
    module = cls.__module__
    return isinstance(module, str) and (
        module == "__main__"
        or module in getattr(current(), "modules", ())  # as a part of it has come
        or travels_by_value(module)
        or is_project_module(module)
    )


def _bare_class(meta: type, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
    """A class with its layout and bases; no code of the project runs."""
    trouble: Exception | None = None
    with _quiet(bases):
        for maker in meta.__mro__:
            if "__new__" in vars(maker) and not _is_ours(maker):
                try:
                    made: type = maker.__new__(meta, name, bases, dict(body))
                    if meta.__module__ == "_ctypes":  # which lays it out, from 3.13 on
                        getattr(meta, "__init__", type.__init__)(made, name, bases, dict(body))
                    return made
                except (TypeError, AttributeError) as error:
                    trouble = trouble or error  # one that makes classes of other parts
    raise TypeError(f"the class {name} of metaclass {meta!r} cannot be made again ({trouble})")


_quieting: Final = threading.RLock()


@contextlib.contextmanager
def _quiet(bases: tuple[object, ...]) -> Iterator[None]:
    """Keep ``__init_subclass__`` of the project's classes from running meanwhile."""
    hooked = [
        cls
        for cls in dict.fromkeys(one for base in bases for one in getattr(base, "__mro__", ()))
        if "__init_subclass__" in vars(cls) and _is_ours(cls)
    ]
    if not hooked:
        yield
        return
    with _quieting:
        before = [(cls, vars(cls)["__init_subclass__"]) for cls in hooked]
        for cls in hooked:
            type.__setattr__(cls, "__init_subclass__", classmethod(_say_nothing))
        try:
            yield
        finally:
            for cls, hook in before:
                type.__setattr__(cls, "__init_subclass__", hook)


def _say_nothing(_: type, /, **__: object) -> None:
    """In the place of an ``__init_subclass__`` whose work is done."""


def _bare_enum(
    meta: type,
    name: str,
    bases: tuple[type, ...],
    body: dict[str, object],
    members: tuple[Member, ...],
) -> type:
    """An enum whose members are there, as they were; its own ``__new__`` and ``__init__`` rest."""
    body = dict(body)
    keywords = {"boundary": body.pop("boundary")} if "boundary" in body else {}
    space = enum.EnumMeta.__prepare__(name, bases)
    for key, value in body.items():
        space[key] = value

    def new(cls: type[enum.Enum], number: int | tuple[int]) -> object:
        if isinstance(number, tuple):  # what an enum of tuples makes of it
            (number,) = number
        _, _, value, raw = members[number]
        kind = member_type(cls)
        if kind.__new__ is object.__new__:
            made = object.__new__(cls)
        else:
            made = kind.__new__(cls, *raw)
        made._value_ = value
        return made

    def init(self: object, *_: object) -> None:
        """What it would do is done."""

    space["__new__"], space["__init__"] = new, init
    for number, (member, canonical, _, _) in enumerate(members):
        if member == canonical:
            space[member] = number
    maker = next(one for one in meta.__mro__ if not _is_ours(one))
    with _quiet(bases):
        cls: type[enum.Enum] = maker.__new__(meta, name, bases, space, **keywords)
    for member, canonical, _, _ in members:
        if member != canonical:
            cls._member_map_.setdefault(member, cls._member_map_[canonical])
            if member not in vars(cls):
                type.__setattr__(cls, member, vars(cls)[canonical])
    for given in ("__init__", "__new_member__"):
        if given in vars(cls):
            type.__delattr__(cls, given)
    return cls


FIRST: Final = ""
"""In place of the name of an attribute: methods, which are in the class before the rest is made."""


def _setter(cls: type) -> Callable[[object, str, object], None]:
    """What sets attributes of a class, past what a metaclass in Python would say to it."""
    # Those of `ctypes` let nobody pass.
    return setattr if type(cls).__module__ == "_ctypes" else type.__setattr__


def fill_methods(cls: type, methods: dict[str, object]) -> None:
    """Give a class its methods, past what its metaclass would say to it."""
    if _made.objects.get(id(cls)) is cls:
        for name, method in methods.items():
            _setter(cls)(cls, name, method)


def _taken(state: dict[str, object], name: str) -> tuple[type, ...]:
    """Take classes out of a state, in which they stand beside the attributes."""
    classes = state.pop(name, ())
    return tuple(classes) if isinstance(classes, (tuple, list)) else ()


def fill_class(cls: type, state: dict[str, object]) -> None:
    """Give a class the rest, past what its metaclass would say to it."""
    if not is_new(cls):
        return
    state.pop(FIRST, None)
    put = functools.partial(_setter(cls), cls)
    registered = _taken(state, "_abc_impl")
    abstract_classes = _taken(state, REGISTERED_AT)
    of_members = state.pop(MEMBERS, None)
    if isinstance(of_members, dict) and isinstance(cls, enum.EnumMeta):
        for name, attributes in of_members.items():
            cls._member_map_[name].__dict__.update(attributes)
    for name, value in state.items():
        put(name, value)
    if sys.version_info >= (3, 13) and "__firstlineno__" in state:
        put("__firstlineno__", state["__firstlineno__"])  # setting `__module__` took it away
    if isinstance(cls, ABCMeta):
        for subclass in registered:
            ABCMeta.register(cls, subclass)
    for abstract in abstract_classes:
        if isinstance(abstract, ABCMeta):
            ABCMeta.register(abstract, cls)


# -- what is known by a name ----------------------------------------------------------------------


def make_named(
    tag: str, module: str, qualname: str, named: bool, maker: Callable[..., object], *args: object
) -> object:
    """Something that its class knows by a name in a module of the program, as sentinels are."""
    world = current()
    known = world.find(tag, module, qualname)
    if known is not MISSING:
        return known
    made = maker(*args)
    if getattr(made, "__module__", None) != module:
        with contextlib.suppress(AttributeError, TypeError):
            made.__module__ = module
    world.add(tag, module, qualname if named else None, made)
    return _new(made)


def fill_named(value: object, state: object) -> None:
    """Give it its attributes."""
    if not is_new(value):
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        value.__dict__.update(attributes)
    for name, one in (slots or {}).items():
        object.__setattr__(value, name, one)


def bare(cls: type[object]) -> object:
    """An instance without a call of its ``__init__``."""
    return cls.__new__(cls) if cls.__new__ is not object.__new__ else object.__new__(cls)
