"""A pickler for what is nested deeper than Python's recursion limit: a linked list, a deep tree.

It writes what `pickle` writes, with a stack of its own in place of the interpreter's. Written in
Python, it takes some thirty times as long as `pickle.Pickler`, so `mars.code.pickling` takes it
only after a `RecursionError`. Reading such a pickle needs no deep stack.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from mars.settings import PICKLE_LEVELS

_BATCH: Final = 1_000  # items that are given to a container at a time, as in `pickle`

_CONTAINERS: Final = (list, tuple, dict, set, frozenset)
_ATOMS: Final = frozenset(
    {type(None), bool, int, float, bytes, bytearray, str, pickle.PickleBuffer}
)
"""Types that are never given to ``reducer_override``, as in `pickle.Pickler`."""

_TUPLES: Final = (pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)

if TYPE_CHECKING:

    class _Framer(Protocol):
        def commit_frame(self) -> None: ...


Steps = Iterator[object]
"""Objects to be written next; between two of them, something is written about the whole."""


class DeepPickler(pickle._Pickler):
    """Writes protocol 5 like `pickle.Pickler`, however deep an object is nested.

    Raises
    ------
    RecursionError
        It is nested deeper than `PICKLE_LEVELS`, as by a ``__reduce__`` that never ends.
    """

    # Of `pickle._Pickler`, which its types leave out.
    dispatch: ClassVar[dict[type, Callable[..., None]]]
    memo: dict[int, tuple[int, object]]
    framer: _Framer
    memoize: Callable[[object], object]
    save_global: Callable[..., object]
    get: Callable[[int], bytes]
    write: Callable[[bytes], object]

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        """Write an object and all that is in it."""
        first = self._start(obj)
        stack = [] if first is None else [first]
        while stack:
            for inner in stack[-1]:
                steps = self._start(inner)
                if steps is not None:
                    stack.append(steps)
                    if len(stack) > PICKLE_LEVELS:
                        raise RecursionError(f"nested deeper than {PICKLE_LEVELS:,} levels")
                    break
            else:
                stack.pop()

    def _start(self, obj: object) -> Steps | None:
        """Write an object that has nothing in it, or begin with another one."""
        self.framer.commit_frame()
        known = self.memo.get(id(obj))
        if known is not None:
            self.write(self.get(known[0]))
            return None
        kind = type(obj)
        if kind in _ATOMS:
            self.dispatch[kind](self, obj)
            return None
        if kind in _CONTAINERS:
            return self._container(obj)
        reduced: object = self.reducer_override(obj)
        if reduced is NotImplemented:
            reduce = self.dispatch_table.get(kind)
            if kind in self.dispatch or (reduce is None and issubclass(kind, type)):
                self.save_global(obj)  # a class or function
                return None
            reduced = obj.__reduce_ex__(5) if reduce is None else reduce(obj)
        if isinstance(reduced, str):
            self.save_global(obj, reduced)
            return None
        if not isinstance(reduced, tuple) or not 2 <= len(reduced) <= 6:
            raise pickle.PicklingError(f"the __reduce__ of {kind.__qualname__} gave no valid tuple")
        return self._reduced(obj, *reduced)

    def _container(self, obj: object) -> Steps:
        if type(obj) is tuple:
            yield from self._tuple(obj)
        elif type(obj) is frozenset:
            self.write(pickle.MARK)
            yield from obj
            self._finish(obj, pickle.FROZENSET, pickle.POP_MARK)
        elif type(obj) is dict:
            self.write(pickle.EMPTY_DICT)
            self.memoize(obj)
            yield from self._pairs(obj.items())
        elif type(obj) is list:
            self.write(pickle.EMPTY_LIST)
            self.memoize(obj)
            yield from self._items(obj, pickle.APPENDS)
        elif type(obj) is set:
            self.write(pickle.EMPTY_SET)
            self.memoize(obj)
            yield from self._items(obj, pickle.ADDITEMS)

    def _tuple(self, obj: tuple[object, ...]) -> Steps:
        short = len(obj) < len(_TUPLES)
        if not short:
            self.write(pickle.MARK)
        yield from obj
        if not obj:
            self.write(pickle.EMPTY_TUPLE)
        elif short:
            self._finish(obj, _TUPLES[len(obj)], pickle.POP * len(obj))
        else:
            self._finish(obj, pickle.TUPLE, pickle.POP_MARK)

    def _finish(self, obj: object, code: bytes, drop: bytes) -> None:
        """Make what cannot be changed, unless what is in it has written it already."""
        known = self.memo.get(id(obj))
        if known is not None:
            self.write(drop + self.get(known[0]))
        else:
            self.write(code)
            self.memoize(obj)

    def _items(self, items: Iterable[object], code: bytes) -> Steps:
        count = 0
        for item in items:  # one at a time: some iterators know the next only when this is written
            if not count:
                self.write(pickle.MARK)
            yield item
            count = (count + 1) % _BATCH
            if not count:
                self.write(code)
        if count:
            self.write(code)

    def _pairs(self, pairs: Iterable[tuple[object, object]]) -> Steps:
        count = 0
        for key, value in pairs:
            if not count:
                self.write(pickle.MARK)
            yield key
            yield value
            count = (count + 1) % _BATCH
            if not count:
                self.write(pickle.SETITEMS)
        if count:
            self.write(pickle.SETITEMS)

    def _reduced(
        self, obj: object, func: object, args: tuple[object, ...], state: object = None,
        items: Iterable[object] | None = None,
        pairs: Iterable[tuple[object, object]] | None = None, setter: object = None,
    ) -> Steps:  # fmt: skip
        name = getattr(func, "__name__", "")
        if name == "__newobj_ex__":
            yield from args  # a class, its arguments, and those by name
            self.write(pickle.NEWOBJ_EX)
        elif name == "__newobj__":
            yield args[0]
            yield args[1:]
            self.write(pickle.NEWOBJ)
        else:
            yield func
            yield args
            self.write(pickle.REDUCE)
        known = self.memo.get(id(obj))
        if known is not None:  # what it is made from refers to it
            self.write(pickle.POP + self.get(known[0]))
        else:
            self.memoize(obj)
        if items is not None:
            yield from self._items(items, pickle.APPENDS)
        if pairs is not None:
            yield from self._pairs(pairs)
        if state is None:
            return
        if setter is None:
            yield state
            self.write(pickle.BUILD)
        else:
            yield setter
            yield obj
            yield state
            self.write(pickle.TUPLE2 + pickle.REDUCE + pickle.POP)
