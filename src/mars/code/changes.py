"""What a program had under the names of its modules, and how a worker puts it there.

A `State` is what the program had under one name. A `Change` binds a name to that for as long as a
world is in place, and puts back what the import made. Called by `spawned`, which decides what is
changed, and by `states` and `reach`, which make the states.
"""

from __future__ import annotations

import abc
import contextlib
import copyreg
import functools
import sys
from abc import ABCMeta
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from enum import Enum
from types import FunctionType
from typing import TYPE_CHECKING, ClassVar, Final, TypeGuard, cast

from mars.code.origin import found
from mars.errors import UsageError

MISSING: Final = object()
"""In place of a value: there is none."""

HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class is made by a class statement

AS_IMPORTED: Final = b""
"""In place of a pickle: what the module's own import makes."""

CachedFunction: Final = functools._lru_cache_wrapper
"""The type of a function of `functools.lru_cache`."""

DEFAULT: Final = ".__defaults__."
"""Between the path of a function and the place of a default, or the name of its parameter."""


class Seen:
    """Stands for an object that a function of a module has for the default of a parameter.

    It tells which names the object is known by. If it has none, what it holds is a state, too.
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class State:
    """What the program had under one name of a module that travels by name.

    Attributes
    ----------
    module, path : str
        Where: ``path`` may lead into a class or function.
    content : bytes or None
        The value as a pickle, or what stands for a function in a wrapper; None: it is `value`, or
        it does not pickle.
    value : object
        A large value, or `MISSING` when there is no such name, or none of both.
    lost : str
        What cannot travel: its type, and why. Empty: all is here.
    same : object
        Equal for names that were bound to one object; None: there was one such name.
    group : tuple or None
        The `Group` that the value is part of, and its place there; None: it shares no object.
    """

    __slots__ = ("content", "group", "lost", "module", "outline", "path", "same", "value")

    def __init__(
        self, module: str, path: str, content: bytes | None, outline: bytes | None,
        value: object, lost: str, same: object = None,
        group: tuple[Group | int, int] | None = None,
    ) -> None:  # fmt: skip
        self.module, self.path, self.content, self.outline = module, path, content, outline
        self.value, self.lost, self.same, self.group = value, lost, same, group

    def __reduce__(self) -> tuple[object, ...]:
        if self.value is MISSING:
            return _gone, (self.module, self.path)
        return State, (
            self.module, self.path, self.content, self.outline, self.value, self.lost, self.same,
            self.group,
        )  # fmt: skip


class Group:
    """Values of several names that hold an object together, as one pickle: a list of them."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def _gone(module: str, path: str) -> State:
    return State(module, path, None, None, MISSING, "")


def value_in(owner: object, name: str) -> object:
    """What a module or class has under a name itself; `MISSING`: nothing."""
    if name == "__bases__" and isinstance(owner, type):
        return owner.__bases__
    if name in OF_FUNCTION and type(owner) is FunctionType:
        return getattr(owner, name) or MISSING
    if name == REGISTERED and isinstance(owner, ABCMeta):
        return registered_at(owner)
    return vars(owner).get(name, MISSING)


REGISTERED: Final = "_abc_registry"
"""In place of the name of an attribute: the classes that are registered at an abstract class."""


def registered_at(cls: object) -> tuple[object, ...]:
    """Classes that were registered as subclasses of an abstract class, in an order of their own."""
    references = abc._get_dump(cls)[0]  # type: ignore[attr-defined]
    found = [one for one in (reference() for reference in references) if one is not None]
    return tuple(sorted(found, key=lambda one: (str(one.__module__), str(one.__qualname__))))


if TYPE_CHECKING:

    class _Abstract(ABCMeta):
        """With the methods of ``ABCMeta`` that its types leave out."""

        def _abc_registry_clear(cls) -> None: ...

        def _abc_caches_clear(cls) -> None: ...


def _register_only(cls: _Abstract, wanted: Iterable[type]) -> None:
    if set(map(id, registered_at(cls))) != set(map(id, wanted)):
        cls._abc_registry_clear()
        cls._abc_caches_clear()
        for one in wanted:
            ABCMeta.register(cls, one)


def _rename_member(member: Enum, value: object) -> None:
    """Have an enum find a member by another value."""
    by_value: dict[object, Enum] = type(member)._value2member_map_
    for one in [one for one, there in by_value.items() if there is member]:
        del by_value[one]
    with contextlib.suppress(TypeError):  # it has no hash: it is looked for among all
        by_value[value] = member


OF_FUNCTION: Final = ("__defaults__", "__kwdefaults__")

_PLAIN: Final = frozenset({int, float, complex, str, bytes, bool, type(None), type(Ellipsis)})

_OBJECT: Final = "\0an object"
"""In place of a default that is no plain value, and stays the object that it is."""


def is_plain(value: object) -> bool:
    """Whether a value is a number, a text, or a tuple of such, which nobody can change."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is tuple or kind is frozenset:
        assert isinstance(value, (tuple, frozenset))
        return all(map(is_plain, value))
    return False


def without_objects(defaults: object) -> object:
    """Defaults of a function, a mark in place of each object; None: they hold no plain value."""
    if isinstance(defaults, dict):
        if any(map(is_plain, defaults.values())):
            return {name: one if is_plain(one) else _OBJECT for name, one in defaults.items()}
    elif isinstance(defaults, tuple) and any(map(is_plain, defaults)):
        return tuple([one if is_plain(one) else _OBJECT for one in defaults])
    return None


def with_objects(plain: object, defaults: object) -> object:
    """The other way: objects of ``defaults`` in place of the marks."""
    if isinstance(plain, dict):
        named = defaults if type(defaults) is dict else {}
        return {name: named.get(name) if one == _OBJECT else one for name, one in plain.items()}
    assert isinstance(plain, tuple)
    given: tuple[object, ...] = defaults if type(defaults) is tuple else ()
    given = (*given, *[None] * (len(plain) - len(given)))
    return tuple([given[at] if one == _OBJECT else one for at, one in enumerate(plain)])


class Change:
    """One name of a module or class that the program had bound to something else."""

    __slots__ = ("base", "content", "name", "owner", "value")

    def __init__(self, owner: object, name: str, value: object) -> None:
        self.owner, self.name, self.value = owner, name, value
        self.base: object = MISSING
        self.content: bytes | None = None

    def enter(self) -> None:
        """Put the program's value in place."""
        self.base = self.now()
        if self.value is not self.base:
            self.set(self.value)

    def leave(self) -> None:
        """Put back what the import made."""
        self.value = self.now()  # what calls made of it stays with this world
        if self.value is not self.base:
            self.set(self.base)

    def now(self) -> object:
        """What is there."""
        return value_in(self.owner, self.name)

    def set(self, value: object) -> None:
        """Bind the name; `MISSING`: remove it."""
        if self.name in OF_FUNCTION and type(self.owner) is FunctionType:
            setattr(self.owner, self.name, None if value is MISSING else value)
        elif self.name == REGISTERED and isinstance(self.owner, ABCMeta):
            assert isinstance(value, tuple)
            _register_only(cast("_Abstract", self.owner), value)
        elif isinstance(self.owner, type):
            if value is MISSING:
                with contextlib.suppress(AttributeError):
                    type.__delattr__(self.owner, self.name)
            else:
                type.__setattr__(self.owner, self.name, value)
        elif value is MISSING:
            vars(self.owner).pop(self.name, None)
        else:
            if self.name == "_value_" and isinstance(self.owner, Enum):
                _rename_member(self.owner, value)
            vars(self.owner)[self.name] = value


class Reducer(Change):
    """How objects of a class pickle, as the program has told `copyreg`."""

    __slots__ = ()
    _table: ClassVar[dict[type, object]] = vars(copyreg)["dispatch_table"]
    owner: type

    def __init__(self, cls: type, reducer: Callable[..., object]) -> None:
        super().__init__(cls, "a reducer", reducer)

    def now(self) -> object:
        return self._table.get(self.owner, MISSING)

    def set(self, value: object) -> None:
        if value is MISSING:
            self._table.pop(self.owner, None)
        else:
            self._table[self.owner] = value


class Content(Change):
    """An object of a module that the program had changed in place: it stays, with that content.

    So all that refers to it, such as the default of a parameter, sees the change.
    """

    __slots__ = ("other",)

    def __init__(self, owner: object, name: str, value: object, other: object) -> None:
        super().__init__(owner, name, value)
        self.other = other  # of the same type; has what is not in place

    def enter(self) -> None:
        """Put the program's content in place."""
        super().enter()
        _exchange(self.base, self.other)

    def leave(self) -> None:
        """Put back what the import made."""
        super().leave()
        _exchange(self.base, self.other)


def _exchange(one: object, other: object) -> None:
    """Have two objects exchange what they hold."""
    if is_container(one) and is_container(other):
        kept = copy_of(one)
        refill(one, copy_of(other))
        refill(other, kept)
    if type(getattr(one, "__dict__", None)) is dict:
        mine, others = vars(one), vars(other)
        before = dict(mine)
        mine.clear()
        mine.update(others)
        others.clear()
        others.update(before)


Container = dict[object, object] | list[object] | set[object] | deque[object]
"""What can be given back what it held, by its own methods, also in classes below."""

_CONTAINERS: Final = (dict, list, set, deque)


def is_container(value: object) -> TypeGuard[Container]:
    """Whether something can be given back what it held."""
    return issubclass(type(value), _CONTAINERS)


def copy_of(value: Container) -> Container:
    """What a container holds, without what the program's class makes of its methods."""
    if isinstance(value, OrderedDict):
        return OrderedDict(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list):
        return list(value)
    return set(value) if isinstance(value, set) else deque(value)


def refill(value: Container, items: Container) -> None:
    """Have a container hold what another one of its type holds, by the methods of that type."""
    if isinstance(value, dict) and isinstance(items, dict):
        base = OrderedDict if isinstance(value, OrderedDict) else dict
        base.clear(value)
        base.update(value, items)
    elif isinstance(value, set):
        set.clear(value)
        set.update(value, items)
    elif isinstance(value, list):
        list.clear(value)
        list.extend(value, items)
    elif isinstance(value, deque):
        deque.clear(value)
        deque.extend(value, items)


def bound(state: State) -> object:
    """What is there, under the name of a state or as a default; `MISSING`: nothing."""
    path, default, index = state.path.rpartition(DEFAULT)
    if default:
        func = found(state.module, path)
        if not index.isdigit():
            return (getattr(func, "__kwdefaults__", None) or {}).get(index, MISSING)
        values = getattr(func, "__defaults__", None) or ()
        return values[int(index)] if int(index) < len(values) else MISSING
    owner, name = owner_of(state)
    return MISSING if owner is None else value_in(owner, name)


def with_default(defaults: object, place: str, value: object) -> object:
    """Defaults of a function with another one at a place, or for the parameter of a name."""
    if isinstance(defaults, dict):
        return {**defaults, place: value}
    assert isinstance(defaults, tuple)
    return *defaults[: int(place)], value, *defaults[int(place) + 1 :]


def owner_of(state: State) -> tuple[object, str]:
    """What has the name of a state, a module or a class, and that name; None: it is not there."""
    *steps, name = state.path.split(".")
    owner = found(state.module, ".".join(steps)) if steps else sys.modules.get(state.module)
    return (owner if hasattr(owner, "__dict__") else None), name


def refusing(name: str, lost: str) -> Callable[..., object]:
    """What stands for a function of the program that cannot travel, and is not the module's own."""

    def refuse(*_: object, **__: object) -> object:
        raise UsageError(
            f"the program has replaced {name}, and what stands there now cannot travel ({lost}); "
            f"replace it inside the call, or with a plain function"
        )

    return refuse


def with_own_cache(func: object) -> object:
    """A function of `functools.lru_cache` without what calls in another state have put there.

    All else is given back as it is.
    """
    if type(func) is classmethod or type(func) is staticmethod:
        inner = with_own_cache(func.__func__)
        if inner is func.__func__ or not callable(inner):
            return func
        return staticmethod(inner) if type(func) is staticmethod else classmethod(inner)
    if type(func) is not CachedFunction:
        return func
    given = func.cache_parameters()
    made = functools.lru_cache(given["maxsize"], given["typed"])(func.__wrapped__)
    vars(made).update(vars(func))
    return made
