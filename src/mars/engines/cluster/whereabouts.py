"""Which nodes have which large values, and how much of a call's inputs each node lacks. Pure.

Kept up to date as nodes get values, so that no question costs a look at all nodes: what there is
to count are the inputs of a call, and for each of them the few nodes that have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

Key = tuple[int, int]
"""Arena and offset of a value."""


_Node = Any
"""A node, of whatever class the owner of `Shipping` has for it; see `shipping.Node`."""


class Noted(set[K], Generic[K]):
    """What one node has, which is noted under the node in an index of all nodes, too."""

    def __init__(self, index: dict[K, dict[_Node, None]], node: _Node, where: Whereabouts) -> None:
        super().__init__()
        self._index, self._node, self._where = index, node, where

    def add(self, one: K) -> None:
        """Note that the node has it."""
        super().add(one)
        self._index.setdefault(one, {})[self._node] = None
        self._where.changes += 1

    def discard(self, one: _Node, /) -> None:
        """Note that the node has it no more."""
        if one in self:
            super().discard(one)
            nodes = self._index[one]
            del nodes[self._node]
            if not nodes:
                del self._index[one]
            self._where.changes += 1

    def forget(self) -> None:
        """The node is gone."""
        for one in list(self):
            self.discard(one)


class Coming(dict[Key, _Node]):
    """What one node gets from which other node, noted in an index of all nodes, too."""

    def __init__(self, node: _Node, where: Whereabouts) -> None:
        super().__init__()
        self._node, self._where = node, where

    def begin(self, key: Key, source: object) -> None:
        """A value is on its way from another node."""
        self[key] = source
        self._where.coming.setdefault(key, {})[self._node] = None
        self._where.sending[source] = self._where.sending.get(source, 0) + 1
        self._where.changes += 1

    def end(self, key: Key) -> bool:
        """No more of it comes; False: it was not under way."""
        source = self.pop(key, None)
        if source is None:
            return False
        where = self._where
        nodes = where.coming[key]
        del nodes[self._node]
        if not nodes:
            del where.coming[key]
        where.sending[source] -= 1
        if not where.sending[source]:
            del where.sending[source]
        where.changes += 1
        return True


class Lacking:
    """How much of the inputs of one call each node lacks, in bytes."""

    def __init__(self) -> None:
        self.total = 0
        self.any = False  # whether there are large inputs
        self._have: dict[_Node, int] = {}
        self._barred: set[_Node] = set()  # one of them is on its way there
        self._able: set[_Node] | None = None  # may read what is not here yet; None: all may

    def bytes(self, node: _Node) -> float:
        """What a node lacks; infinite: it can not have all of them as things are."""
        if node in self._barred or (self._able is not None and node not in self._able):
            return math.inf
        return 0 if node.reads else self.total - self._have.get(node, 0)

    def least(self, count: int, has: Callable[[_Node], bool], readers: Iterable[_Node]) -> float:
        """What the node lacks that lacks least, of so many that are there; ``has`` says which."""
        if self._able is not None:
            some: Iterable[_Node] = self._able
        else:
            some = {*self._have, *readers}
        least = min((self.bytes(node) for node in some if has(node)), default=math.inf)
        if self._able is None and least > self.total and count > sum(map(has, self._barred)):
            return self.total  # one that has none of them
        return least

    def count(self, size: int, having: Iterable[_Node], able: Iterable[_Node] | None) -> None:
        """Take another input, the nodes that have it, and those that may read it already."""
        self.any = True
        self.total += size
        for node in having:
            self._have[node] = self._have.get(node, 0) + size
        if able is not None:
            self._able = set(able) if self._able is None else self._able.intersection(able)

    def bar(self, nodes: Iterable[_Node]) -> None:
        """An input is on its way to these nodes."""
        self._barred.update(nodes)


class Whereabouts:
    """Which nodes have, make and get which values.

    Attributes
    ----------
    holders, copies, coming : dict
        By arena and offset, the nodes that have a copy or are sent one, that have got one from
        another node, and that are getting one from another node.
    makers : dict
        By worker, the node that it is on.
    readers : dict
        Nodes that read what is in this process.
    sending : dict
        By node, how many values it is sending to others.
    changes : int
        Grows with every change.
    """

    def __init__(self) -> None:
        self.holders: dict[Key, dict[_Node, None]] = {}
        self.copies: dict[Key, dict[_Node, None]] = {}
        self.coming: dict[Key, dict[_Node, None]] = {}
        self.makers: dict[int, dict[_Node, None]] = {}
        self.readers: dict[_Node, None] = {}
        self.sending: dict[_Node, int] = {}
        self.changes = 0

    def may_read_early(self, worker: int, key: Key) -> dict[_Node, None]:
        """Nodes where calls may read a value of a worker that is not here yet."""
        made, copied = self.makers.get(worker, {}), self.copies.get(key, {})
        return {**made, **copied} if copied else made

    def lacking(self, inputs: Iterable[tuple[int, Key, int, bool]]) -> Lacking:
        """What nodes lack of inputs: of each its worker, its key, its size, and if it is early."""
        found = Lacking()
        for worker, key, size, early in inputs:
            made, held = self.makers.get(worker, {}), self.holders.get(key, {})
            able = self.may_read_early(worker, key) if early else None
            found.count(size, {**made, **held} if held else made, able)
            coming = self.coming.get(key)
            if coming:
                found.bar(coming)
        return found


__all__ = ["Coming", "Key", "Lacking", "Noted", "Whereabouts"]
