"""The program's code as one call finds it: which module, class and function each name means.

A `World` is what the program had when a call was spawned. It holds the modules that travel by
value, ``__main__`` first of all, the classes and functions that came with them, and what the
program had changed in modules that a worker imports by name. While a world is entered, its modules
stand in ``sys.modules`` and its changes are in place; leaving it puts both aside. So calls that
were spawned at different states of the program run one after the other in one process, and each
sees its own.

In the program itself `HOME` stands for a world: what comes back finds the classes and functions
that are there, and nothing is ever written to them.

Classes and functions that travel by value have a *tag*, which is theirs alone in all processes. A
copy has the tag of what it was copied from. Pickles are made in `mars.code.pickling`; the functions
that they call when they are read ask `current` for the world.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import functools
import os
import pickle
import sys
import threading
import weakref
from abc import ABCMeta
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum, EnumMeta
from importlib.machinery import ModuleSpec
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, Protocol

from mars.code import importing, modules
from mars.code.importing import Generation
from mars.code.modules import Source
from mars.code.origin import found, is_project_module
from mars.errors import UsageError
from mars.settings import BUFFER_BYTES

MISSING: Final = object()
"""In place of a value: there is no such name."""
AS_IMPORTED: Final = b""
"""In place of a content: a module's own function or class, as its file makes it."""

# -- tags -----------------------------------------------------------------------------------------

_here: str = ""
_count = 0
_tags: dict[int, tuple[weakref.ref[Any], str]] = {}
_tagged: dict[str, weakref.ref[Any]] = {}
_tag_lock = threading.Lock()


def _process() -> str:
    """What the tags of this process begin with."""
    global _here
    if not _here:
        _here = os.urandom(8).hex()
    return _here


def _renew() -> None:
    """A process that was forked gives tags of its own."""
    global _here, _tag_lock
    _here, _tag_lock = "", threading.Lock()


os.register_at_fork(after_in_child=_renew)


def tag_of(value: Any) -> str:
    """The tag of a class or function; from now on it has one."""
    global _count
    known = _tags.get(id(value))
    if known is not None and known[0]() is value:
        return known[1]
    with _tag_lock:
        known = _tags.get(id(value))
        if known is not None and known[0]() is value:
            return known[1]
        _count += 1
        tag = f"{_process()}.{_count}"
        _note(value, tag)
    current().met(tag, value)
    return tag


def _note(value: Any, tag: str) -> None:
    if tag.startswith("@"):
        return  # a name, of something that cannot be referred to weakly
    key = id(value)
    reference = weakref.ref(value, functools.partial(_forget, _tags, _tagged, key, tag))
    _tags[key] = reference, tag
    _tagged.setdefault(tag, reference)


def _forget(tags: dict[int, Any], tagged: dict[str, Any], key: int, tag: str, gone: object) -> None:
    """Something is gone; at the end of a program the names of this module may be, too."""
    if tags.get(key, (None,))[0] is gone:
        del tags[key]
    if tagged.get(tag) is gone:
        del tagged[tag]


def is_of_this_process(tag: str) -> bool:
    """Whether a tag was given here, or in a process that this one was forked from."""
    return bool(_here) and tag.startswith(_here)


# -- worlds ---------------------------------------------------------------------------------------


class Home:
    """The program's own modules, classes and functions. What comes back writes nothing to them."""

    def find(self, tag: str, module: str, qualname: str) -> Any:
        """What a tag stands for here; `MISSING`: nothing that is still there."""
        reference = _tagged.get(tag)
        value = None if reference is None else reference()
        if value is not None:
            return value
        if is_of_this_process(tag):
            return MISSING  # it was defined again, or it is gone
        # Of a process that has ended: what stands in its place is known by its name.
        value = found(module, qualname)
        return value if isinstance(value, (type, FunctionType)) else MISSING

    def met(self, tag: str, value: Any) -> None:
        """Something got a tag."""

    def add(self, tag: str, module: str, qualname: str | None, value: Any) -> None:
        """Something was made that nobody here had."""
        if tag:
            with _tag_lock:
                _note(value, tag)

    def module(self, name: str, facts: Mapping[str, Any]) -> ModuleType:
        """A module that travels by value, where it stands in a value."""
        known = sys.modules.get(name)
        return known if known is not None else _made(name, facts)

    def namespace(self, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Global names for functions that nobody here has: names of their own."""
        return {**facts, "__name__": name, "__builtins__": builtins.__dict__}

    def ready(self, module: str, path: str) -> None:
        """What modules of the program hold is what it is."""

    def define(self, namespace: dict[str, Any], name: str, value: Any) -> None:
        """Give a function that came back what it refers to."""
        namespace.setdefault(name, value)


class _Outer:
    """Stands for a class of the script that did not come, as one that is defined in it did."""

    @staticmethod
    def holding(outer: Any, path: list[str], value: Any) -> Any:
        """Such a class with something at the end of a path of attributes."""
        made = outer if type(outer) is _Outer else _Outer()
        inside = made
        for step in path[:-1]:
            if not hasattr(inside, step):
                setattr(inside, step, _Outer())
            inside = getattr(inside, step)
        if type(inside) is _Outer:
            setattr(inside, path[-1], value)
        return made


_main_file: str | None = getattr(sys.modules.get("__main__"), "__file__", None)


def main_file() -> str | None:
    """The file of the program's script; None: it has none."""
    return _main_file


def set_main_file(path: str | None) -> None:
    """Have calls find the file of the program's script."""
    global _main_file
    _main_file = path


class _Main(ModuleType):
    """The ``__main__`` of a call, with the file of the program's script.

    ``multiprocessing`` runs that file in each process that it starts anew, but not if the module
    says in its spec that it is ``__main__`` itself.
    """

    @property
    def __file__(self) -> str:  # type: ignore[override]
        if _main_file is None:
            raise AttributeError("the program has no script with a file")
        return _main_file


def _made(name: str, facts: Mapping[str, Any]) -> ModuleType:
    module = _Main(name) if name == "__main__" else ModuleType(name)
    module.__dict__.update(facts)
    module.__dict__["__builtins__"] = builtins.__dict__
    if name == "__main__":
        module.__spec__ = ModuleSpec(name, None)
    return module


_OF_EMPTY_MODULE: Final = frozenset({*vars(ModuleType("")), "__builtins__"})


def _value_in(owner: Any, name: str) -> Any:
    """What a module or class has under a name itself; `MISSING`: nothing."""
    if name == "__bases__" and isinstance(owner, type):
        return owner.__bases__
    if name in _OF_FUNCTION and type(owner) is FunctionType:
        return getattr(owner, name) or MISSING
    if name == REGISTERED and isinstance(owner, ABCMeta):
        return registered_at(owner)
    return vars(owner).get(name, MISSING)


REGISTERED: Final = "_abc_registry"
"""In place of the name of an attribute: the classes that are registered at an abstract class."""


def registered_at(cls: Any) -> tuple[Any, ...]:
    """Classes that were registered as subclasses of an abstract class, in an order of their own."""
    references = abc._get_dump(cls)[0]  # type: ignore[attr-defined]
    found = [one for one in (reference() for reference in references) if one is not None]
    return tuple(sorted(found, key=lambda one: (str(one.__module__), str(one.__qualname__))))


def _register_only(cls: Any, wanted: tuple[Any, ...]) -> None:
    if set(map(id, registered_at(cls))) != set(map(id, wanted)):
        cls._abc_registry_clear()
        cls._abc_caches_clear()
        for one in wanted:
            ABCMeta.register(cls, one)


def _rename_member(member: Any, value: Any) -> None:
    """Have an enum find a member by another value."""
    by_value = type(member)._value2member_map_
    for one in [one for one, there in by_value.items() if there is member]:
        del by_value[one]
    with contextlib.suppress(TypeError):  # it has no hash: it is looked for among all
        by_value[value] = member


_OF_FUNCTION: Final = ("__defaults__", "__kwdefaults__")

_PLAIN: Final = frozenset({int, float, complex, str, bytes, bool, type(None), type(Ellipsis)})

_OBJECT: Final = "\0an object"
"""In place of a default that is no plain value, and stays the object that it is."""


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, or a tuple of such, which nobody can change."""
    kind = type(value)
    return kind in _PLAIN or (kind in (tuple, frozenset) and all(map(is_plain, value)))


def without_objects(defaults: Any) -> Any:
    """Defaults of a function, a mark in place of each object; None: they hold no plain value."""
    if not defaults or not any(map(is_plain, _items_of(defaults))):
        return None
    if type(defaults) is dict:
        return {name: one if is_plain(one) else _OBJECT for name, one in defaults.items()}
    return tuple([one if is_plain(one) else _OBJECT for one in defaults])


def _with_objects(plain: Any, defaults: Any) -> Any:
    """The other way: objects of ``defaults`` in place of the marks."""
    if type(plain) is dict:
        named = defaults if type(defaults) is dict else {}
        return {name: named.get(name) if one == _OBJECT else one for name, one in plain.items()}
    given = defaults if type(defaults) is tuple else ()
    given = (*given, *[None] * (len(plain) - len(given)))
    return tuple([given[at] if one == _OBJECT else one for at, one in enumerate(plain)])


def _items_of(defaults: Any) -> Any:
    return defaults.values() if type(defaults) is dict else defaults


class _Change:
    """One name of a module or class that the program had bound to something else."""

    __slots__ = ("base", "content", "name", "owner", "value")

    def __init__(self, owner: Any, name: str, value: Any) -> None:
        self.owner, self.name, self.value = owner, name, value
        self.base: Any = MISSING
        self.content: bytes | None = None

    def enter(self) -> None:
        """Put the program's value in place."""
        self.base = self.now()
        self.set(self.value)

    def leave(self) -> None:
        """Put back what the import made."""
        self.value = self.now()  # what calls made of it stays with this world
        self.set(self.base)

    def now(self) -> Any:
        """What is there."""
        return _value_in(self.owner, self.name)

    def set(self, value: Any) -> None:
        """Bind the name; `MISSING`: remove it."""
        if self.name in _OF_FUNCTION and type(self.owner) is FunctionType:
            setattr(self.owner, self.name, None if value is MISSING else value)
        elif self.name == REGISTERED and isinstance(self.owner, ABCMeta):
            _register_only(self.owner, value)
        elif isinstance(self.owner, type):
            if value is MISSING:
                with contextlib.suppress(AttributeError):
                    type.__delattr__(self.owner, self.name)
            else:
                type.__setattr__(self.owner, self.name, value)
        elif value is MISSING:
            vars(self.owner).pop(self.name, None)
        else:
            if self.name == "_value_" and isinstance(type(self.owner), EnumMeta):
                _rename_member(self.owner, value)
            vars(self.owner)[self.name] = value


class _Content(_Change):
    """An object of a module that the program had changed in place: it stays, with that content.

    So all that refers to it, such as the default of a parameter, sees the change.
    """

    __slots__ = ("other",)

    def __init__(self, owner: Any, name: str, value: Any, other: Any) -> None:
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


def _exchange(one: Any, other: Any) -> None:
    """Have two objects exchange what they hold."""
    if type(one) is list:
        one[:], other[:] = other[:], one[:]
        return
    if type(one) not in (dict, set):
        one, other = vars(one), vars(other)
    kept = one.copy()
    one.clear()
    one.update(other)
    other.clear()
    other.update(kept)


class _Kept:
    """What a module of the program itself holds, so that a call which runs beside it leaves that.

    Its names, those of its classes, what is in its own lists, dictionaries, sets and queues, and
    the attributes of its objects, at any depth. Other objects, such as counters, are copied for
    the call: see `World._settle`.
    """

    def __init__(self, module: ModuleType) -> None:
        self._owners: list[tuple[Any, dict[str, Any]]] = [(module, dict(vars(module)))]
        self._containers: list[tuple[Any, Any]] = []
        self._arrays: list[tuple[Any, Any]] = []
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
            if kind in (tuple, frozenset):
                pending.extend(value)
            elif kind is MethodType:
                pending.append(value.__self__)
            elif issubclass(kind, _CONTAINERS):
                self._keep(value, pending)
                if _has_plain_attributes(value):
                    self._keep(vars(value), pending)
            elif _is_small_array(value):
                self._arrays.append((value, value.copy()))
            elif _has_plain_attributes(value):
                self._keep(vars(value), pending)

    def _keep(self, value: Any, pending: list[Any]) -> None:
        base = _base_of(value)
        before = base(value)
        self._containers.append((value, before))
        pending.extend(before.values() if isinstance(before, dict) else before)

    def restore(self) -> None:
        """Put back what was changed."""
        for value, before in self._containers:
            if _holds_the_same(value, before):
                continue  # nor may another thread find it empty for a moment
            base = _base_of(value)
            base.clear(value)
            (base.extend if issubclass(base, (list, deque)) else base.update)(value, before)
        for array, before in self._arrays:
            if array.tobytes() != before.tobytes():
                array[...] = before
        for owner, names in self._owners:
            now = vars(owner)
            for name in [name for name in now if name not in names]:
                _Change(owner, name, MISSING).set(MISSING)
            for name, value in names.items():
                if now.get(name, MISSING) is not value:
                    _Change(owner, name, value).set(value)


_CONTAINERS: Final = (OrderedDict, dict, list, set, deque)
"""Types of what can be given back what it held, by their own methods, also in classes below."""


def _base_of(value: Any) -> Any:
    return next(one for one in _CONTAINERS if isinstance(value, one))


def _is_small_array(value: Any) -> bool:
    kind = type(value)
    return (
        any(base.__module__ == "numpy" and base.__name__ == "ndarray" for base in kind.__mro__)
        and value.nbytes <= BUFFER_BYTES
        and value.flags.writeable
        and not value.dtype.hasobject
    )


_ATOMS: Final = frozenset({int, float, str, bytes, bool, type(None), complex, FunctionType, type})
"""Types of what holds nothing, or has to be left as it is, so that they are soon passed by."""


def _holds_the_same(value: Any, before: Any) -> bool:
    """Whether the very same things are in it."""
    if len(value) != len(before):
        return False
    if isinstance(value, set):
        return set(map(id, value)) == set(map(id, before))
    if isinstance(value, dict) and not all(map(is_, value.values(), before.values())):
        return False
    return all(map(is_, value, before))


def _has_plain_attributes(value: Any) -> bool:
    """Whether an object is what its attributes are."""
    kind = type(value)
    return (kind.__module__ == "__main__" or is_project_module(kind.__module__)) and type(
        getattr(value, "__dict__", None)
    ) is dict


DEFAULT: Final = ".__defaults__."
"""Between the path of a function and the place of a default."""


class Seen:
    """Stands for an object that a function of a module has for the default of a parameter.

    It does not travel there. But it tells which names it is known by.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
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
        value: Any, lost: str, same: Any = None, group: Any = None,
    ) -> None:  # fmt: skip
        self.module, self.path, self.content, self.outline = module, path, content, outline
        self.value, self.lost, self.same, self.group = value, lost, same, group

    def __reduce__(self) -> tuple[Any, ...]:
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


class Reading(Protocol):
    """What a world needs to read what came beside a pickle; see `mars.code.states`."""

    def read(self, data: bytes) -> tuple[list[Source], list[State]]:
        """Files of modules, and what they held."""

    def compare(
        self, state: State, now: Any, held: dict[tuple[str, str], Any]
    ) -> tuple[Any] | None:
        """Whether what is there is what the program had: None, or the value to be set."""

    def outline(self, value: Any) -> bytes | None:
        """What tells one function from another, without what it holds."""


class World:
    """What the program's code was when a call was spawned.

    Parameters
    ----------
    reading : Reading, optional
        Reads what came beside a pickle, and compares it with what is there.
    """

    def __init__(self, reading: Reading | None = None) -> None:
        self.modules: dict[str, ModuleType] = {}  # those that travel by value
        self.generation: Generation | None = None  # those that travel by name
        self.manifest: dict[str, Source] = {}
        self.lost: dict[str, str] = {}  # what could not travel, by name
        self.settled = False  # the function is here: what comes now belongs to one call
        self.used = False  # something came that does
        self.entered = False
        self._unseen = False
        self._reading = reading
        self._objects: dict[str, Any] = {}
        self._expected: set[bytes] = set()
        self._states: dict[str, list[State]] = {}  # not compared yet, by module
        self._changes: dict[tuple[str, str], _Change] = {}
        self._one: dict[Any, Any] = {}  # objects that have several names
        self._groups: dict[Group, list[Any]] = {}  # those that were read; empty: just now
        self._told: list[State] = []  # all that came
        self._pending: list[State] = []  # of modules that are being looked at
        self._nested = 0  # looks inside each other
        self._settled_now: list[_Change] = []  # by them
        self._before: dict[str, Any] = {}  # in sys.modules, under the names of ours
        self._guests: dict[str, _Kept] | None = None  # modules of the program, as a guest of it
        # Of the call that runs:
        self._passing: dict[str, Any] = {}
        self._undo: list[Callable[[], object]] = []

    # -- what pickles ask for ------------------------------------------------------------------

    def find(self, tag: str, module: str, qualname: str) -> Any:
        """What a tag stands for in this world; `MISSING`: it did not come with the call."""
        value = self._objects.get(tag, MISSING)
        return self._passing.get(tag, MISSING) if value is MISSING else value

    def met(self, tag: str, value: Any) -> None:
        """A call defined something, and it got a tag: it is known by it until the call ends."""
        self.used = True
        self._passing[tag] = value

    def add(self, tag: str, module: str, qualname: str | None, value: Any) -> None:
        """Something was made; with ``qualname``, it is found under that name."""
        self.used |= self.settled
        if tag:
            (self._passing if self.settled else self._objects)[tag] = value
            with _tag_lock:
                _note(value, tag)
        if qualname is None or "<" in qualname:
            return
        namespace = self.module(module, {}).__dict__
        name, *inner = qualname.split(".")
        if inner:  # a class inside of one that may never come: pickle finds it on that way
            outer = namespace.get(name, MISSING)
            if outer is MISSING or type(outer) is _Outer:
                self._bind(namespace, name, _Outer.holding(outer, inner, value))
        elif type(namespace.get(name)) is _Outer:
            namespace[name] = value
        else:
            self._bind(namespace, name, value)

    def _bind(self, namespace: dict[str, Any], name: str, value: Any) -> None:
        if self.settled and name not in namespace:
            self._undo.append(functools.partial(namespace.pop, name, None))
        namespace.setdefault(name, value)

    def module(self, name: str, facts: Mapping[str, Any]) -> ModuleType:
        """A module that travels by value; an empty one at first."""
        module = self.modules.get(name)
        if module is None:
            module = self.modules[name] = _made(name, facts)
            if self.entered:
                self._show(name, module)
        else:
            for fact, value in facts.items():
                if module.__dict__.get(fact) is None:  # as in a module that is new
                    module.__dict__[fact] = value
        return module

    def _show(self, name: str, module: ModuleType) -> None:
        """Have ``import`` find a module."""
        if not self._unseen:
            self._before[name] = sys.modules.get(name)
            sys.modules[name] = module

    def namespace(self, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Global names of such a module."""
        return self.module(name, facts).__dict__

    def define(self, namespace: dict[str, Any], name: str, value: Any) -> None:
        """Give a module a name that functions refer to; what is there stays."""
        there = namespace.get(name)
        if type(there) is _Outer or (
            there is None and (name not in namespace or name in _OF_EMPTY_MODULE)
        ):
            if self.settled:
                self.used = True
                self._undo.append(functools.partial(namespace.pop, name, None))
            namespace[name] = value

    def expect(self, data: bytes, large: Iterable[State]) -> None:
        """Take what came with a pickle: files of modules, and what they held in the program."""
        if data in self._expected:
            return
        self.used |= self.settled
        assert self._reading is not None
        manifest, states = self._reading.read(data)
        new = {source.name: source for source in manifest}
        if any(self.manifest.get(name) != source for name, source in new.items()):
            self.manifest.update(new)
            chosen = importing.generation_for(self.manifest)
            if chosen is not self.generation:
                self.generation = chosen
                if self.entered:
                    importing.enter(chosen, self._imported)
        if self._guests is not None:
            for name in new:
                if name not in self._guests and name in sys.modules:
                    self._guests[name] = _Kept(sys.modules[name])
        for state in (*states, *large):
            self._states.setdefault(state.module, []).append(state)
            self._told.append(state)
            if self.settled:
                self._undo.append(functools.partial(self._withdraw, state))
        if self.entered:
            self._look_at_modules()
        if not self.settled and not large:
            self._expected.add(data)

    # -- what modules held ---------------------------------------------------------------------

    def _withdraw(self, state: State) -> None:
        for states in (self._states.get(state.module, []), self._told):
            if state in states:
                states.remove(state)

    def _look_at_modules(self) -> None:
        for name in list(self._states):
            module = sys.modules.get(name)
            if module is not None and not modules.is_being_imported(module):
                self._imported(name)

    def _imported(self, name: str) -> None:
        """A module was imported: have it hold what it held in the program."""
        states = self._states.pop(name, [])
        self._pending += states
        self._nested += 1
        try:
            with modules.only_looking():
                for state in states:
                    if state in self._pending:
                        self._pending.remove(state)
                        self._settle(state)
        finally:
            self._nested -= 1
        if not self._nested:
            # To read one state may import a module that changes what another one has set.
            settled, self._settled_now = self._settled_now, []
            for change in settled:
                if change.now() is not change.value:
                    change.set(change.value)

    def ready(self, module: str, path: str) -> None:
        """Somebody reads what a module holds under a name: first it has to be what it was."""
        loaded = sys.modules.get(module)
        if loaded is None or modules.is_being_imported(loaded):
            return
        for states in (self._pending, self._states.get(module, [])):
            for state in [one for one in states if (one.module, one.path) == (module, path)]:
                states.remove(state)
                with modules.only_looking():
                    self._settle(state)

    def _settle(self, state: State) -> None:
        """Compare what is there with what the program had, and set what differs."""
        if DEFAULT in state.path:
            self._settle_default(state)
            return
        owner, name = _owner_of(state)
        if owner is None:
            return
        key = state.module, state.path
        there = self._changes.get(key)
        now = _value_in(owner, name)
        base = now if there is None else there.base
        content = None  # of an object that stays
        if state.same in self._one:
            value = self._one[state.same]  # another name of it has been looked at
        elif state.lost:
            kind = type(base)
            if f"{kind.__module__}.{kind.__qualname__}" != state.lost.partition(":")[0]:
                self.lost[f"{state.module}.{state.path}"] = state.lost
            value = base
            assert self._reading is not None
            if state.outline is not None and self._reading.outline(base) != state.outline:
                value = _refusing(f"{state.module}.{state.path}", state.lost)
        else:
            assert self._reading is not None
            # The program goes on changing what it holds; in a worker that is what an import made.
            generation = self.generation if self._guests is None else None
            held = {} if generation is None else generation.held
            of_function = name in _OF_FUNCTION and type(owner) is FunctionType
            there_is = without_objects(base) if of_function else base
            try:
                other = self._reading.compare(state, there_is, held)
            except Exception as error:
                self.lost[f"{state.module}.{state.path}"] = f"{type(error).__name__}: {error}"
                other = None
            value = base if other is None else other[0]
            if of_function and other is not None:
                value = _with_objects(value, base)
                if there is not None and not self.settled:  # an object among them was set before
                    there.value = _with_objects(other[0], there.now())
                    there.set(there.value)
            if value is base and there is None:
                value = _with_own_cache(base)
            together = None
            if state.group is not None:
                # A call in the program itself gets copies of all, or of none.
                differs = self._guests is not None and self._is_copied(state.group[0])
                if other is not None and (there is None or state.content != there.content):
                    differs = True
                together = self._in_group(state, differs)
                if together is not None:
                    value = together[0]
            if together is None and other is None and self._guests is not None and state.content:
                value = _for_a_guest(base, state.content)
            if state.same is not None:
                # Names of one object in the program are names of one object here.
                stays = together is None and there is None and value is not base
                if stays and self._stays(state, base, value):
                    content, value = (value,), base
                self._one[state.same] = value
                if self.settled:
                    self._undo.append(functools.partial(self._one.pop, state.same, None))
                for one in self._told if value is not base else ():
                    if one.same == state.same and DEFAULT in one.path:
                        self._set_again(one, value)
        if there is None:
            # Also what is as the import made it: what calls bind the name to is this world's.
            change = _Change(owner, name, value)
            if content is not None:
                change = _Content(owner, name, value, *content)
            self._changes[key] = change
            try:
                change.enter()
            except TypeError as error:  # bases of another layout
                del self._changes[key]
                self.lost[f"{state.module}.{state.path}"] = f"{type(error).__name__}: {error}"
                return
            if self._nested:
                self._settled_now.append(change)
            if self.settled:
                self._undo.append(functools.partial(self._take_back, key))
        elif self.settled and there.now() is not value and state.content != there.content:
            # The call's own arguments say otherwise than its function: for this call only.
            before = there.now()
            there.set(value)
            self._undo.append(functools.partial(there.set, before))
        self._changes[key].content = self._changes[key].content or state.content

    def _settle_default(self, state: State) -> None:
        """The default of a parameter that has no name besides; others tell what is one object."""
        if state.same is not None or state.group is not None:
            if state.same in self._one and _bound(state) is not self._one[state.same]:
                self._set_again(state, self._one[state.same])
            return
        if state.content is None:
            return
        assert self._reading is not None
        generation = self.generation if self._guests is None else None
        held = {} if generation is None else generation.held
        try:
            other = self._reading.compare(state, _bound(state), held)
        except Exception as error:
            self.lost[f"{state.module}.{state.path}"] = f"{type(error).__name__}: {error}"
            return
        if other is not None:
            self._set_again(state, other[0])

    def _in_group(self, state: State, differs: bool) -> tuple[Any] | None:
        """The value of a name that holds objects with others; None: it stays what it is.

        As soon as one of a group differs, all of them are what the program had.
        """
        group, place = state.group
        values = self._groups.get(group)
        if values is None and differs:
            self._groups[group] = []
            values = self._groups[group] = pickle.loads(group.data)
            if self.settled:
                self._undo.append(functools.partial(self._groups.pop, group, None))
            for one in self._members(group):  # also those that were looked at while it was read
                if one is not state:
                    self._set_again(one, values[one.group[1]])
        return (values[place],) if values else None

    def _members(self, group: Group) -> list[State]:
        return [one for one in self._told if one.group is not None and one.group[0] is group]

    def _is_copied(self, group: Group) -> bool:
        """Whether a call in the program itself gets a copy of something in a group."""
        return not all(
            _stays_with_a_guest(_bound(one), one.content) for one in self._members(group)
        )

    def _set_again(self, state: State, value: Any) -> None:
        """Bind a name that has been looked at, or the default of a parameter, to another object."""
        path, is_default, place = state.path.rpartition(DEFAULT)
        key = state.module, f"{path}.__defaults__" if is_default else state.path
        change = self._changes.get(key)
        if is_default:
            func = found(state.module, path)
            if change is None and type(func) is FunctionType and func.__defaults__:
                change = self._changes[key] = _Change(func, "__defaults__", func.__defaults__)
                change.enter()
                if self.settled:
                    self._undo.append(functools.partial(self._take_back, key))
            if change is not None:
                values = change.now()
                value = (*values[: int(place)], value, *values[int(place) + 1 :])
        if change is None:
            return
        if self.settled:
            self._undo.append(functools.partial(change.set, change.now()))
        change.set(value)
        change.value = value
        if state.same in self._one and not is_default:
            self._one[state.same] = value

    def _stays(self, state: State, base: Any, value: Any) -> bool:
        """Whether an object gets the content of another one, instead of giving way to it.

        It does if it has several names, as in the program: nobody binds them all anew.
        """
        kind = type(base)
        if self._guests is not None or kind is not type(value):
            return False
        if kind not in (list, dict, set) and not _has_plain_attributes(base):
            return False
        alike = 0
        for one in self._told:
            if one is not state and _bound(one) is base:
                if one.same != state.same:
                    return False  # there it was another object: some names were bound anew
                alike += 1
        return alike > 0

    def _take_back(self, key: tuple[str, str]) -> None:
        change = self._changes.pop(key, None)
        if change is not None:
            change.leave()

    # -- entering and leaving ------------------------------------------------------------------

    def enter(self, *, as_guest: bool = False, unseen: bool = False) -> None:
        """From here on this process has the program's code as it was.

        Parameters
        ----------
        as_guest : bool, default False
            Whether the process is the program itself: what a call does to its modules is undone.
        unseen : bool, default False
            Whether modules that travel by value stay out of ``sys.modules``.
        """
        self.module("__main__", {})
        self.entered, self._unseen = True, unseen
        if as_guest:
            self._guests = {}
        importing.enter(self.generation, self._imported)
        for name, module in self.modules.items():
            self._show(name, module)
        for change in self._changes.values():
            change.enter()
        if self._states:
            self._look_at_modules()

    def leave(self) -> None:
        """Put aside what `enter` put in place."""
        self.end_call()
        for change in reversed(self._changes.values()):
            change.leave()
        for kept in (self._guests or {}).values():
            kept.restore()
        self._guests = None
        for name, before in self._before.items():
            if before is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = before
        self._before.clear()
        self.entered = False

    def is_empty(self) -> bool:
        """Whether nothing of the program's own code has come."""
        return not (self._objects or self.manifest or self._states or len(self.modules) > 1) and (
            "__main__" not in self.modules
            or self.modules["__main__"].__dict__.keys() <= _OF_EMPTY_MODULE
        )

    def clear(self) -> None:
        """Let go of all that it holds and its modules hold, in the order in which it came.

        As Python does it: for the end of a process, after the last call.
        """
        for module in self.modules.values():
            module.__dict__.clear()
        for held in (self._changes, self._states, self._objects, self._passing, self._before):
            held.clear()
        self._undo.clear()

    def end_call(self) -> None:
        """What came with the arguments of one call does not stay."""
        self.used = False
        self._passing.clear()
        while self._undo:
            self._undo.pop()()


HOME: Final = Home()


def _bound(state: State) -> Any:
    """What is there, under the name of a state or as a default; `MISSING`: nothing."""
    path, default, index = state.path.rpartition(DEFAULT)
    if default:
        values = getattr(found(state.module, path), "__defaults__", None) or ()
        return values[int(index)] if int(index) < len(values) else MISSING
    owner, name = _owner_of(state)
    return MISSING if owner is None else _value_in(owner, name)


_CachedFunction: Final[Any] = type(functools.lru_cache(len))


def _with_own_cache(func: Any) -> Any:
    """A function of `functools.lru_cache` without what calls in another state have put there.

    All else is given back as it is.
    """
    if type(func) in (classmethod, staticmethod):
        inner = _with_own_cache(func.__func__)
        return func if inner is func.__func__ else type(func)(inner)
    if type(func) is not _CachedFunction:
        return func
    given = func.cache_parameters()
    made = functools.lru_cache(given["maxsize"], given["typed"])(func.__wrapped__)
    vars(made).update(vars(func))
    return made


def _refusing(name: str, lost: str) -> Callable[..., object]:
    """What stands for a function of the program that cannot travel, and is not the module's own."""

    def refuse(*_: object, **__: object) -> object:
        raise UsageError(
            f"the program has replaced {name}, and what stands there now cannot travel ({lost}); "
            f"replace it inside the call, or with a plain function"
        )

    return refuse


def _owner_of(state: State) -> tuple[Any, str]:
    """What has the name of a state, a module or a class, and that name; None: it is not there."""
    *steps, name = state.path.split(".")
    owner = found(state.module, ".".join(steps)) if steps else sys.modules.get(state.module)
    return (owner if hasattr(owner, "__dict__") else None), name


def _for_a_guest(value: Any, content: bytes) -> Any:
    """What a call that runs in the program itself gets for an object of the program's modules."""
    return value if _stays_with_a_guest(value, content) else pickle.loads(content)


def _stays_with_a_guest(value: Any, content: bytes | None) -> bool:
    """Whether such a call gets the object itself, and `_Kept` undoes what it changes.

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
        if issubclass(kind, _CONTAINERS):
            pending += one.values() if isinstance(one, dict) else one
        elif kind in (tuple, frozenset):
            pending += one
        elif kind is MethodType:
            pending.append(one.__self__)
        elif _has_plain_attributes(one):
            pending += vars(one).values()
        elif not (_is_small_array(one) or _never_changes(one)):
            return False
    return True


def _never_changes(value: Any) -> bool:
    """Whether an object has nothing that a call could change, or belongs to its process."""
    kind = type(value)
    return (
        issubclass(kind, (type, ModuleType, BuiltinFunctionType, Enum, range))
        or kind is object
        or f"{kind.__module__}.{kind.__qualname__}" in modules.SETTLED
    )


_DEFINES: Final = b"mars.code.pickling"
"""In pickles that refer to what travels by value."""


class _OfThread(threading.local):
    world: World | None = None


_of_thread = _OfThread()
_of_process: World | None = None


def current() -> World | Home:
    """The world that this code runs in."""
    return _of_thread.world or _of_process or HOME


def of_thread() -> World | None:
    """The world that this thread is visiting, if any."""
    return _of_thread.world


def enter_thread(world: World | None) -> None:
    """From here on this thread visits ``world``, which another thread has entered."""
    _of_thread.world = world


def switch(world: World) -> None:
    """From here on this process runs calls of ``world``; for workers."""
    global _of_process
    if _of_process is world:
        return
    if _of_process is not None:
        _of_process.leave()
    _of_process = world
    world.enter()


def expected(name: str) -> Source | None:
    """What a module of the project was made from, in the world that this code runs in."""
    world = current()
    return world.manifest.get(name) if isinstance(world, World) else None


def settle() -> None:
    """The function is here: what comes from now on belongs to one call."""
    world = current()
    if isinstance(world, World):
        world.settled = True


def end_call() -> None:
    """A call has ended: what came with its arguments does not stay."""
    world = current()
    if isinstance(world, World) and world.used:
        world.end_call()


def notes() -> list[str]:
    """What a call that failed is told of: values of the program that it had to do without."""
    world = current()
    if not isinstance(world, World):
        return []
    return [
        f"{name} of the program is {lost.partition(':')[0]}, which cannot travel "
        f"({lost.partition(': ')[2]}); the call found what the import of its module made"
        for name, lost in world.lost.items()
    ]


class _Visit:
    """A world that a thread is in for a while."""

    __slots__ = ("around", "generation", "over", "world")

    def __init__(self, world: World, around: World | None) -> None:
        self.world, self.around = world, around
        self.generation = importing.current()  # what was in place before
        self.over = False

    def end(self) -> None:
        """Put everything back."""
        self.world.leave()
        around = self.around
        importing.enter(self.generation, None if around is None else around._imported)


# What a visit puts in place is there for the whole process. So one world at a time is visited, and
# out of it, those of calls that it asks for. They end in the opposite order.
_visits: list[_Visit] = []
_visits_change = threading.Condition(threading.RLock())


def _forget_visits() -> None:
    """In a process that was forked, the threads are gone that were in other worlds."""
    global _visits_change
    _visits_change = threading.Condition(threading.RLock())
    _visits.clear()


os.register_at_fork(after_in_child=_forget_visits)


def _may_enter(outer: World | None) -> bool:
    """Whether a thread that is in ``outer`` may go into another world from there."""
    if not _visits or _visits[-1].world is outer:
        return True
    # A call left this thread behind, and nobody waits for it.
    return outer is not None and all(visit.world is not outer for visit in _visits)


@contextlib.contextmanager
def visiting(world: World, *, unseen: bool = False) -> Iterator[World]:
    """Be in another world for a while, in this thread.

    Waits for the end of visits by other threads, unless they asked for this one.

    Parameters
    ----------
    world : World
        Where to be.
    unseen : bool, default False
        Whether ``sys.modules`` keeps ``__main__`` and all else that travels by value, as other
        threads see it: for who reads what came, and runs none of it.
    """
    outer = _of_thread.world
    around = outer or _of_process
    with _visits_change:
        _visits_change.wait_for(lambda: _may_enter(outer))
        visit = _Visit(world, around)
        _visits.append(visit)
        _of_thread.world = world
        world.enter(as_guest=around is None, unseen=unseen)
    try:
        yield world
    finally:
        _of_thread.world = outer
        with _visits_change:
            visit.over = True
            if visit not in _visits:
                visit.end()  # in a process that was forked meanwhile
            while _visits and _visits[-1].over:
                _visits.pop().end()
            _visits_change.notify_all()
