"""Whether something that was looked at has changed since, asked at each spawn.

C code compares what it can. `mars.code.reach` notes what is compared.
"""

from __future__ import annotations

import abc
import copyreg
import itertools
import operator
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from types import (
    CellType,
    CodeType,
    FunctionType,
    ModuleType,
)
from typing import Final, Protocol

from mars.code import modules
from mars.code.changes import (
    MISSING,
)
from mars.code.modules import (
    record_of,
)  # fmt: skip
from mars.code.origin import module_of


class Items(Protocol):
    """A mapping, whatever its keys are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[object]: ...

    def values(self) -> Iterable[object]: ...


class Watched:
    """What a walk has looked at, and whether it is as it was then."""

    def __init__(self) -> None:
        self._globals: dict[int, tuple[dict[str, object], list[str], list[object]]] = {}
        self._bound: list[tuple[dict[str, object], tuple[str, ...], tuple[object, ...]]] = []
        self._cells: list[tuple[CellType, object]] = []
        # Weak: the one that is remembered has to be able to go, and what it refers to is held.
        self._functions: list[tuple[weakref.ref[FunctionType], CodeType, object, object]] = []
        self._empty: list[Items] = []
        self._mappings: list[tuple[Items, tuple[object, ...], tuple[object, ...]]] = []
        self._collections: list[tuple[Collection[object], tuple[object, ...]]] = []
        self._specs: list[tuple[ModuleType, object]] = []
        self._files: list[tuple[str, tuple[int, int, int]]] = []
        self._bases: list[tuple[weakref.ref[type], tuple[type, ...]]] = []
        self._registrations: object = None  # of subclasses at abstract classes, so many so far
        self._instances: tuple[list[object], list[object]] = [], []
        self._reducers = len(copyreg.dispatch_table)
        self.reducers = reducers_of_project()
        self._is_short = False

    def _end_watch(self) -> None:
        """All has been looked at."""
        specs, self._specs = self._specs, []
        for module, spec in specs:
            space = module.__dict__
            if type(module) is ModuleType and space.get("__spec__") is spec:
                # Most often: then it is looked at together with the module's other names.
                _, names, values = self._globals.setdefault(id(space), (space, [], []))
                names.append("__spec__")
                values.append(spec)
            else:
                self._specs.append((module, spec))
        self._bound = [
            (space, tuple(names), tuple(values)) for space, names, values in self._globals.values()
        ]
        self._globals.clear()
        self._is_short = not (
            self._cells or self._mappings or self._collections or self._specs or self._files
            or self._instances[0] or self.reducers
        )  # fmt: skip

    def unchanged(self) -> bool:
        """Whether all is as it was when this was made."""
        try:
            for reference, func_code, defaults, kwdefaults in self._functions:
                func = reference()
                if (
                    func is None
                    or func.__code__ is not func_code
                    or func.__defaults__ is not defaults
                    or func.__kwdefaults__ is not kwdefaults
                ):
                    return False
            # What follows is looked at by C code, as far as that can be had: it happens at each
            # spawn.
            for namespace, names, values in self._bound:
                if not all(map(operator.is_, map(namespace.get, names, _MISSINGS), values)):
                    return False
            if len(copyreg.dispatch_table) != self._reducers or any(self._empty):
                return False
            return self._is_short or self._rest_unchanged()
        except RuntimeError:  # another thread changes one meanwhile
            return False

    def _rest_unchanged(self) -> bool:
        for cell, value in self._cells:
            if contents_of(cell) is not value:
                return False
        for mapping, keys, held in self._mappings:
            if (
                len(mapping) != len(keys)
                or not all(map(operator.is_, mapping.values(), held))
                or not all(map(operator.is_, mapping, keys))
            ):
                return False
        instances, kinds = self._instances
        if not all(map(operator.is_, map(type, instances), kinds)):
            return False
        for reduced, reducer in self.reducers:
            if copyreg.dispatch_table.get(reduced) is not reducer:
                return False
        if self._registrations not in (None, abc.get_cache_token()):
            return False
        for class_reference, bases in self._bases:
            cls = class_reference()
            if cls is None or cls.__bases__ is not bases:
                return False
        for module, spec in self._specs:
            if getattr(module, "__spec__", None) is not spec:
                return False
        for file, stamp in self._files:
            try:
                if modules.stamp_of(file) != stamp:
                    return False
            except OSError:
                return False
        return all(_same(collection, items) for collection, items in self._collections)


_MISSINGS: Final = itertools.repeat(MISSING)


def _same(collection: Collection[object], items: tuple[object, ...]) -> bool:
    return len(collection) == len(items) and all(map(operator.is_, collection, items))


def contents_of(cell: CellType) -> object:
    """What a closure's variable holds; `MISSING`: nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:  # still empty: a name that is assigned later
        return MISSING


Reducer = Callable[..., object]
"""What the program has told `copyreg` of how objects of a class pickle."""


def reducers_of_project() -> tuple[tuple[type, Reducer], ...]:
    """What the program, and no installed module, has told `copyreg`.

    What a module that travels by name tells of its own classes is left out: its import does it.
    """
    global _reducers
    table = copyreg.dispatch_table
    seen, known = _reducers
    if seen == table:
        return known
    seen, found = dict(table), []
    for cls, reducer in seen.items():
        module = module_of(reducer)
        record = record_of(module)
        if module == "__main__" or (
            record is not None and not (record.by_name and module == module_of(cls))
        ):
            found.append((cls, reducer))
    if not found:  # else it depends on how modules travel, which may change
        _reducers = seen, ()
    return tuple(found)


_reducers: tuple[dict[type, Reducer], tuple[tuple[type, Reducer], ...]] = {}, ()
"""What `copyreg` knew when nothing of it was the program's."""
