"""Objects that are pickled in the place of others: of global names, of a lock, of a whole value.

Each says in its ``__reduce__`` what is written in its place. Called by the picklers for
definitions, `mars.code.rich` and `mars.code.pickling`.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from mars.code.definitions import (
    Definition,
    imported_namespace,
    loose_module,
    value_of,
    world_namespace,
)
from mars.code.modules import travels_by_value

PAD: Final[tuple[object, ...]] = ()

_FACTS: Final = ("__package__", "__path__")
"""What a module that travels by value has from the beginning, for relative imports."""


class Writer(Protocol):
    """A pickler for definitions, as far as stand-ins need it."""

    depth: int

    def items(self, value: object) -> Iterator[tuple[object, ...]]:
        """The value, and then what its functions refer to."""

    def names_now(self, space: Space, names: Iterable[str]) -> tuple[object, ...]:
        """What is written for names of a namespace."""


class Space:
    """The global names of functions, as it stands in a pickle."""

    def __init__(self, namespace: dict[str, object]) -> None:
        self.namespace = namespace
        name = namespace.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        self.home: str | None = None
        self.by_name = False
        if isinstance(name, str) and getattr(module, "__dict__", None) is namespace:
            self.home = name
            self.by_name = not travels_by_value(name)

        self.loose: Loose | None = None

    def __reduce__(self) -> tuple[object, ...]:
        if self.home is None:
            return vars, (self.as_module(""),)
        if self.by_name:
            return imported_namespace, (self.home,)
        return world_namespace, (self.home, facts_of_module(self.namespace))

    def as_module(self, tag: str) -> Loose:
        """Stands for a module with these names that is not in ``sys.modules``."""
        if self.loose is None:
            self.loose = Loose(tag, self.namespace)
        return self.loose


class Loose:
    """A module that is not in ``sys.modules``, with what it has from the beginning."""

    def __init__(self, tag: str, namespace: dict[str, object]) -> None:
        self.parts = tag, namespace

    def __reduce__(self) -> tuple[object, ...]:
        tag, namespace = self.parts
        name = namespace.get("__name__")
        facts = {"__name__": name, **facts_of_module(namespace)}
        return loose_module, (tag, name if isinstance(name, str) else "", facts)


def facts_of_module(namespace: dict[str, object]) -> dict[str, object]:
    """What a module that travels by value has from the beginning."""
    facts: dict[str, object] = {key: namespace[key] for key in _FACTS if key in namespace}
    path = facts.get("__path__")
    if isinstance(path, Iterable):
        facts["__path__"] = [one for one in path if isinstance(one, str)]
    return facts


class Root:
    """The outermost object of a pickle with definitions."""

    def __init__(self, pickler: Writer, value: object, prepared: object) -> None:
        self.pickler, self.value, self.prepared = pickler, value, prepared

    def __reduce__(self) -> tuple[object, ...]:
        return value_of, (_Body(self),)


class _Body:
    def __init__(self, root: Root) -> None:
        self.root = root

    def __reduce__(self) -> tuple[object, ...]:
        root = self.root
        return Definition, (root.prepared,), None, root.pickler.items(root.value)


class Names:
    """Stands for names that a function needs.

    They are looked up when they are written. A function that refers to itself is begun twice, and
    pickle drops what was begun first.
    """

    def __init__(self, pickler: Writer, space: Space, names: list[str]) -> None:
        self.pickler, self.space, self.names = pickler, space, names

    def __reduce__(self) -> tuple[object, ...]:
        return self.pickler.names_now(self.space, self.names)


class Deeper:
    """Stands before and behind what is written inside something else, to count how deep it is."""

    def __init__(self, pickler: Writer, change: int) -> None:
        self.pickler, self.change = pickler, change

    def __reduce__(self) -> tuple[object, ...]:
        self.pickler.depth += self.change
        return bool, ()


STAND_INS: Final = frozenset(map(id, (Root, _Body, Space, Loose, Names, Deeper)))


class Call:
    """Stands for what a function makes of arguments."""

    def __init__(self, func: object, args: tuple[object, ...]) -> None:
        self._parts = func, args

    def __reduce__(self) -> tuple[object, ...]:
        return self._parts


@functools.cache
def new_locks() -> dict[type, Callable[[], object]]:
    """What makes a new lock, by the type of the one in whose place it stands."""
    import _thread

    return {
        type(_thread.allocate_lock()): threading.Lock,
        type(threading.RLock()): threading.RLock,
        threading.Condition: threading.Condition,
        threading.Event: threading.Event,
        threading.local: threading.local,
    }


def fresh(value: object) -> object:
    """A lock of a module is another one in each process: it stands for a new one."""
    maker = new_locks().get(type(value))
    return value if maker is None else New(maker)


class New:
    """Stands for what a call without arguments makes."""

    def __init__(self, maker: Callable[[], object]) -> None:
        self.maker = maker

    def __reduce__(self) -> tuple[object, ...]:
        return self.maker, ()
