"""Finds the program's own modules, classes and functions for pickles that come back to it.

Modules that the program lacks, because a call has made them, are made here. Called by
`mars.code.world`.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Final

from mars.code import tags
from mars.code.changes import (
    MISSING,
)
from mars.code.origin import found


class Home:
    """The program's own modules, classes and functions. What comes back writes nothing to them."""

    def find(self, tag: str, module: str, qualname: str) -> object:
        """What a tag stands for here; `MISSING`: nothing that is still there."""
        value = tags.tagged(tag)
        if value is not None:
            return value
        if tags.is_of_this_process(tag):
            return MISSING  # it was defined again, or it is gone
        # Of a process that has ended: what stands in its place is known by its name.
        value = found(module, qualname)
        has_tag = not tag.startswith("@")  # else a name is all that it is known by
        return MISSING if has_tag and not isinstance(value, (type, FunctionType)) else value

    def met(self, tag: str, value: object) -> None:
        """Something got a tag."""

    def add(self, tag: str, module: str, qualname: str | None, value: object) -> None:
        """Something was made that nobody here had."""
        if tag:
            with tags.lock:
                tags.note(value, tag, of_a_world=False)

    def module(self, name: str, facts: Mapping[str, object]) -> ModuleType:
        """A module that travels by value, where it stands in a value."""
        known = sys.modules.get(name)
        return known if known is not None else made_module(name, facts)

    def namespace(self, name: str, facts: Mapping[str, object]) -> dict[str, object]:
        """Global names for functions that nobody here has: names of their own."""
        return {**facts, "__name__": name, "__builtins__": builtins.__dict__}

    def ready(self, module: str, path: str) -> None:
        """What modules of the program hold is what it is."""

    def show_as(self, name: str, value: object) -> None:
        """What the program has put into ``sys.modules`` is there."""

    def reduce_by(self, key: str | tuple[str, str], data: bytes) -> None:
        """The program's own reducers are here."""

    def define(self, namespace: dict[str, object], name: str, value: object) -> None:
        """Give a function that came back what it refers to."""
        namespace.setdefault(name, value)


class Outer:
    """Stands for a class of the script that did not come, as one that is defined in it did."""

    @staticmethod
    def holding(outer: object, path: list[str], value: object) -> object:
        """Such a class with something at the end of a path of attributes."""
        made = outer if type(outer) is Outer else Outer()
        inside = made
        for step in path[:-1]:
            if not hasattr(inside, step):
                setattr(inside, step, Outer())
            inside = getattr(inside, step)
        if type(inside) is Outer:
            setattr(inside, path[-1], value)
        return made


_main_file: str | None = getattr(sys.modules.get("__main__"), "__file__", None)
"""The file of the program's script; None: it has none."""


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


def made_module(name: str, facts: Mapping[str, object]) -> ModuleType:
    """A module with what it has from the beginning."""
    module = _Main(name) if name == "__main__" else ModuleType(name)
    module.__dict__.update(facts)
    module.__dict__["__builtins__"] = builtins.__dict__
    if name == "__main__":
        module.__spec__ = ModuleSpec(name, None)
    return module


OF_EMPTY_MODULE: Final = frozenset({*vars(ModuleType("")), "__builtins__"})
