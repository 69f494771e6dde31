"""Which nodes can reach each other, as the driver knows it; for values that go between them.

Two nodes meet when the first value is to go from one to the other, and then have one line for both
directions; see `mars.engines.cluster.peers` for its ends. Nodes that could not meet, or have lost
each other, are left apart for a while. All in the loop's thread.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Protocol

from mars.engines.cluster import carrier
from mars.settings import APART_S

Value = tuple[int, int, int, int, int]
"""What a node is told of a value: attempt, arena, its size, offset, length."""


class Node(Protocol):
    """One of a pair."""

    name: str

    def tell(self, *message: object) -> None:
        """Send it a message."""


class _Pair:
    """Two nodes that meet, or have met: the guest goes to the door of the host."""

    def __init__(self, number: int, host: Node, guest: Node) -> None:
        self.number, self.host, self.guest = number, host, guest
        self.names = frozenset((host.name, guest.name))
        self.key = os.urandom(32)
        self.asked = False  # the guest has been told where to go
        self.waiting: list[tuple[Node, Value]] = []  # who is to get what, until then

    def get(self, node: Node, value: Value) -> None:
        node.tell(carrier.GET, self.number, *value)


class Pairs:
    """The nodes that have met.

    Parameters
    ----------
    failed : callable
        Called with a node and the arena and offset of a value that it was never told to get.
    """

    def __init__(self, failed: Callable[[object, int, int], object]) -> None:
        self._failed = failed
        self._numbers = itertools.count(1)
        self._pairs: dict[int, _Pair] = {}
        self._of: dict[frozenset[str], _Pair] = {}
        self._apart: dict[frozenset[str], float] = {}  # until when

    def may_meet(self, source: Node, node: Node) -> bool:
        """Whether a value may go from one to the other, for all that is known."""
        return time.monotonic() >= self._apart.get(frozenset((source.name, node.name)), 0.0)

    def get(self, source: Node, node: Node, value: Value) -> None:
        """Have a node get a value from another one; it tells how that ends, or `failed` does."""
        pair = self._of.get(frozenset((source.name, node.name)))
        if pair is None:
            pair = _Pair(next(self._numbers), source, node)
            self._pairs[pair.number] = self._of[pair.names] = pair
            source.tell(carrier.OPEN, pair.number, pair.key)
        if pair.asked:
            pair.get(node, value)
        else:
            pair.waiting.append((node, value))

    def opened(self, number: int, place: object) -> None:
        """A host says where its door is, if it has one."""
        pair = self._pairs.get(number)
        if pair is None:
            return  # the guest was lost meanwhile
        if place is None:
            self._part(pair)
            return
        pair.asked = True
        pair.guest.tell(carrier.MEET, number, place, pair.key)
        waiting, pair.waiting = pair.waiting, []
        for node, value in waiting:
            pair.get(node, value)

    def parted(self, number: int) -> None:
        """One of two nodes says that it does not reach the other."""
        pair = self._pairs.get(number)
        if pair is not None:  # else the other one was faster
            self._part(pair)

    def lost(self, node: Node) -> None:
        """A node is lost."""
        for pair in list(self._pairs.values()):
            if node in (pair.host, pair.guest):
                self._part(pair)
        self._apart = {names: at for names, at in self._apart.items() if node.name not in names}

    def _part(self, pair: _Pair) -> None:
        del self._pairs[pair.number], self._of[pair.names]
        self._apart[pair.names] = time.monotonic() + APART_S
        for one in (pair.host, pair.guest):
            one.tell(carrier.PART, pair.number)
        for node, (_, arena, _, offset, _) in pair.waiting:
            self._failed(node, arena, offset)


__all__ = ["Pairs"]
