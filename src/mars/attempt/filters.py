"""Warning filters of a program, as its calls have them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, SupportsIndex

from mars.attempt.setting import Setting, importing


class _ByName(type):
    """Classes that stand for a class of the program: it need not be loaded here, nor ever be."""

    names: tuple[str, str]

    def __subclasscheck__(cls, other: type) -> bool:
        return any((one.__module__, one.__qualname__) == cls.names for one in other.__mro__)


class _FilterList(list[Any]):  # of which other code may put in anything
    """The filters of a worker. What an import adds stays, as it is not imported again."""

    def __init__(self, items: Sequence[object]) -> None:
        super().__init__(items)
        self.kept = list(items)
        self._first: list[object] = []
        self._last: list[object] = []

    def insert(self, index: SupportsIndex, item: object, /) -> None:
        super().insert(index, item)
        if importing():
            self._first.insert(0, item)
            self.kept.insert(0, item)

    def append(self, item: object, /) -> None:
        super().append(item)
        if importing():
            self._last.append(item)
            self.kept.append(item)

    def follow(self, items: Sequence[object]) -> None:
        first = [one for one in self._first if one not in items]
        last = [one for one in self._last if one not in items]
        self.kept = [*first, *items, *last]
        self[:] = self.kept


class Filters(Setting):
    """``warnings.filters``; categories that are not Python's own travel by their names."""

    def __init__(self) -> None:
        super().__init__("warnings", _filters, list, told=_all_encoded)
        self._list: _FilterList
        self._categories: dict[tuple[str, str], type] = {}

    def begin(self) -> None:
        self._list = _FilterList(warnings.filters)
        self._begun = True
        self.restore()

    def follow(self, told: object) -> None:
        if isinstance(told, list) and told != self._told:
            self._told = told
            self._list.follow([self._decoded(*one) for one in told])
            self.restore()

    def changed(self) -> bool:
        return warnings.filters is not self._list or self._list != self._list.kept

    def restore(self) -> None:
        self._list[:] = self._list.kept
        warnings.filters = self._list
        with warnings.catch_warnings():  # whoever remembers what was ignored looks again
            pass

    def _decoded(
        self, action: object, message: object, category: object, module: object, line: object
    ) -> Any:
        if type(category) is tuple:
            names = category
            category = self._categories.get(names)
            if category is None:
                category = _ByName(names[1].rpartition(".")[2], (Warning,), {"names": names})
                self._categories[names] = category
        return action, message, category, module, line


@contextmanager
def by_name() -> Iterator[None]:
    """Have filters mean classes by their names, for a while.

    For a call that runs in the program itself: it has classes of its own that stand for those of
    the program.
    """
    filters = Filters()
    before = warnings.filters
    known = [_encoded(one) for one in before]
    pairs = zip(before, known, strict=True)
    warnings.filters = [one if same is None else filters._decoded(*same) for one, same in pairs]
    with warnings.catch_warnings():  # whoever remembers what was ignored looks again
        pass
    try:
        yield
    finally:
        warnings.filters = before
        with warnings.catch_warnings():
            pass


def _filters() -> list[object]:
    return list(warnings.filters)


def _all_encoded(filters: Sequence[object]) -> list[object]:
    return [one for one in map(_encoded, filters) if one is not None]


def _encoded(one: object) -> tuple[object, ...] | None:
    """A filter as it travels; None: it is none that we know."""
    if type(one) is not tuple or len(one) != 5:
        return None
    action, message, category, module, line = one
    if type(action) is not str or not isinstance(category, type) or type(line) is not int:
        return None
    for pattern in (message, module):
        if not (pattern is None or type(pattern) is str or type(pattern).__module__ == "re"):
            return None
    if category.__module__ != "builtins":
        category = (category.__module__, category.__qualname__)
    return action, message, category, module, line
