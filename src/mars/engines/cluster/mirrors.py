"""What workers on nodes have made, as the program has it: the mirrors of their arenas.

Each arena on a node has a mirror here, a file in which its values stand at the same places. On a
machine that driver and node share, the arena itself is opened instead. The store knows which values
are in use; `Mirrors` keeps their bytes as they come, passes them on to other nodes, and tells nodes
what is not needed any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.engines.cluster import carrier
from mars.engines.cluster.carrier import File
from mars.engines.cluster.remote_node import RemoteNode
from mars.engines.driver.store import Store
from mars.engines.wire.regions import ON_DISK, OWNER_SHIFT, Key
from mars.settings import (
    MIRRORS_IN_MEMORY_SHARE,
    SPARE_DESCRIPTORS,
)

if TYPE_CHECKING:
    from mars.task import Stored

_OURS_TO_BEAR: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO,
                                  errno.EDQUOT, errno.EFBIG, errno.EINTR})  # fmt: skip
"""What the system says when it is this process that lacks something, not a node that has ended."""

_NONE: Final = -1
"""In place of a descriptor."""


class _Coming:
    """A value on its way here, and to nodes that get each part as soon as it is here."""

    def __init__(self, size: int, number: int, start: int, length: int) -> None:
        self.start, self.end = start, start + length
        self._begin = (carrier.BYTES, number, size)
        self._file: File | None = None  # a descriptor, which few of them need
        self.position = start  # up to here it has come
        self.nodes: list[RemoteNode] = []

    def advance(self, begin: int, position: int) -> None:
        # Else it is sent once more, from another node; or a part before it could not be kept.
        if begin <= self.position < position:
            for node in self.nodes:
                self._send(node, self.position, position)
            self.position = position

    def pass_on(self, node: RemoteNode, descriptor: int) -> None:
        self._file = self._file or File(descriptor)
        self.nodes.append(node)
        self._send(node, self.start, self.position)

    def _send(self, node: RemoteNode, start: int, end: int) -> None:
        assert self._file is not None
        for part in carrier.parts(self._file, self._begin, start, end - start):
            node.send(part)


def _as_reader(node: RemoteNode) -> int:
    """A node among the processes that read a region, the others of which are workers."""
    return -1 - node.index


class Mirrors:
    """Arenas of all nodes: of each, this process has a mirror, or the arena itself.

    Parameters
    ----------
    nodes : list of RemoteNode
        Those that are there; its owner changes it.
    directory : str
        Where mirrors on disk are made.

    Attributes
    ----------
    store : Store
        Knows which values are in the arenas, and who reads them; set by whoever makes it.
    """

    store: Store

    def __init__(self, nodes: list[RemoteNode], directory: str) -> None:
        self.nodes = nodes
        self.directory = directory
        self._opened: dict[int, RemoteNode] = {}  # arenas of nodes on this machine: no mirrors
        self._on_disk: set[int] = set()  # mirrors that are files on disk
        self._orphaned: set[int] = set()  # of the opened ones, those whose node is lost
        self._coming: dict[int, list[_Coming]] = {}  # by arena
        # Arenas that have no descriptor here yet, as the system refused it, and how to get one.
        self._absent: dict[int, Callable[[], int]] = {}
        # Parts of arenas whose bytes have come and could not be kept, in order, and why.
        self._unkept: dict[int, list[tuple[int, int]]] = {}
        self._trouble: dict[int, str] = {}

    def open(self, number: int, size: int, address: platform.FileAddress, node: RemoteNode) -> None:
        """An arena has come about on a node of this machine: nothing of it is copied.

        Raises
        ------
        OSError
            The node has ended.
        """
        with self.store.lock:
            try:
                there = self._add(number, size, lambda: platform.open_at(address))
            except OSError as error:
                if error.errno not in _OURS_TO_BEAR:
                    raise
                there = self._add_absent(number, size, lambda: platform.open_at(address), error)
            if there:
                self._opened[number] = node

    def mirror(self, number: int, size: int) -> None:
        """An arena has come about on a node."""

        def make() -> int:
            budget = self.store.ledger.budget_bytes
            full = self.store.ledger.total() > MIRRORS_IN_MEMORY_SHARE * budget
            on_disk = bool(number & ON_DISK) or full
            descriptor = platform.sized_file(
                size, f"mirror-{number}", on_disk=on_disk, directory=self.directory
            )
            if on_disk:
                self._on_disk.add(number)
            return descriptor

        with self.store.lock:
            try:
                self._add(number, size, make)
            except OSError as error:
                self._add_absent(number, size, make, error)

    def _add(self, number: int, size: int, make: Callable[[], int]) -> bool:
        """Whether an arena is there from here on."""
        if self.store.closed or not self.store.lives(number >> OWNER_SHIFT):
            return False  # its maker has ended: nobody will ask for what is there
        descriptor = make()
        if not platform.have_descriptors(descriptor, SPARE_DESCRIPTORS):
            os.close(descriptor)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.store.add_arena(number, descriptor, size)
        return True

    def _add_absent(self, number: int, size: int, make: Callable[[], int], error: OSError) -> bool:
        """The same of one without a descriptor, which the system has refused."""
        if not self._add(number, size, lambda: _NONE):
            return False
        self._absent[number], self._trouble[number] = make, platform.refusal(error)
        return True

    def _descriptor(self, number: int) -> int:
        """That of an arena; the lock is held.

        Raises
        ------
        OSError
            It has none, and the system still refuses one.
        """
        make = self._absent.get(number)
        if make is not None:
            descriptor = make()
            del self._absent[number]
            self.store.give_descriptor(number, descriptor)
        return self.store.arena(number)[0]

    def write(self, number: int, offset: int, data: bytes | memoryview) -> None:
        """A part of a value has come; if there is no room for it, `trouble` tells so."""
        begin, end = offset, offset + len(data)
        try:
            with self.store.lock:
                if not self.store.has_arena(number):
                    return  # the engine has ended meanwhile
                descriptor = os.dup(self._descriptor(number))
            try:
                view = memoryview(data)
                while view:  # without the lock: a disk may be slow
                    done = os.pwrite(descriptor, view, offset)
                    offset += done
                    view = view[done:]
            finally:
                os.close(descriptor)
        except OSError as error:
            self._mark(number, begin, end, error)
            return
        if number in self._unkept:
            self._mark(number, begin, end, None)
        with self.store.lock:
            for coming in self._coming.get(number, ()):
                if coming.start < end <= coming.end:
                    coming.advance(begin, end)

    def _mark(self, number: int, begin: int, end: int, error: OSError | None) -> None:
        """A part of an arena could not be kept, or has come again and could."""
        with self.store.lock:
            if not self.store.has_arena(number):
                return
            parts: list[tuple[int, int]] = []
            for first, last in self._unkept.pop(number, ()):
                parts += [(first, min(last, begin)), (max(first, end), last)]
            if error is not None:
                parts.append((begin, end))
                self._trouble[number] = platform.refusal(error)
            parts = sorted(part for part in parts if part[0] < part[1])
            if parts:
                self._unkept[number] = parts

    @property
    def is_short(self) -> bool:
        """Whether there is any value whose bytes are not all here."""
        return bool(self._unkept or self._absent)

    def trouble(self, value: Stored) -> str:
        """Why the bytes of a value that have come are not all here; empty: they are."""
        _, number, offset, length, _ = value
        if number not in self._unkept and number not in self._absent:
            return ""
        with self.store.lock:
            if number in self._absent:
                try:
                    self._descriptor(number)
                except OSError as error:
                    return platform.refusal(error)
            unkept = self._unkept.get(number, ())
            if any(first < offset + length and offset < last for first, last in unkept):
                return self._trouble[number]
        return ""

    def expect(self, value: Stored) -> None:
        """A value is on its way here, from its beginning to its end."""
        _, number, offset, length, _ = value
        with self.store.lock:
            coming = _Coming(self.store.arena(number)[1], number, offset, length)
            self._coming.setdefault(number, []).append(coming)

    def pass_on(self, value: Stored, node: RemoteNode) -> None:
        """Have a node get a value while it comes here."""
        _, number, offset, _, _ = value
        with self.store.lock, contextlib.suppress(OSError):  # then it gets it once that is here
            for coming in self._coming.get(number, ()):
                if coming.start == offset:
                    coming.pass_on(node, self._descriptor(number))
            node.held.add((number, offset))  # once it has come: before, nobody there may read it
            node.arenas.add(number)

    def has_come(self, value: Stored) -> None:
        """A value is here."""
        self._forget_coming(value[1], value[2])

    def get(self, value: Stored, node: RemoteNode) -> None:
        """A node gets a value from another one: until it says how that ends, it is a reader."""
        self.store.lent(value, _as_reader(node))

    def got(self, key: Key, node: RemoteNode) -> None:
        """That has ended."""
        self.store.let_go(key, _as_reader(node))

    def _forget_coming(self, number: int, offset: int) -> _Coming | None:
        """What was known of a value that was on its way."""
        with self.store.lock:
            found = [one for one in self._coming.get(number, ()) if one.start == offset]
            for one in found:
                self._coming[number].remove(one)
                if not self._coming[number]:
                    del self._coming[number]
        return found[0] if found else None

    def close(self) -> None:
        """Pass on nothing any more."""
        with self.store.lock:
            self._coming.clear()

    # What an arena of a node holds is counted where it takes memory: by the node; and here, if
    # there is a mirror of it in memory, or if it is read where it is and its node is lost.

    def _counts(self, number: int) -> bool:
        """Whether this process counts what an arena of a node holds."""
        if number & ON_DISK or number in self._on_disk:
            return False
        return number not in self._opened or number in self._orphaned

    def node_lost(self, node: RemoteNode) -> None:
        """What is read where it is has nobody else now to count it."""
        with self.store.lock:
            for number, of in self._opened.items():
                if of is node and not number & ON_DISK and number not in self._orphaned:
                    self._orphaned.add(number)
                    self.store.ledger.change(self.store.bytes_in(number))

    def _forget_owner(self, owner: int) -> None:
        """Of a worker that has ended nothing is left once its arenas are gone."""
        if not (self.store.lives(owner) or self.store.has_arenas_of(owner)):
            for node in self.nodes:
                node.workers.discard(owner)

    # -- what the store tells, under its lock -------------------------------------------------

    def noted(self, number: int, length: int) -> None:
        """A region of an arena is in use from here on."""
        if number >> OWNER_SHIFT and self._counts(number):
            self.store.ledger.change(length)

    def freed(self, key: Key, length: int) -> None:
        """A region is not in use any more."""
        number, offset = key
        coming = self._forget_coming(number, offset)
        if number in self._unkept:
            self._mark(number, offset, offset + length, None)
        owner = number >> OWNER_SHIFT
        if owner and self._counts(number):
            self.store.ledger.change(-length)
        if owner and self.store.lives(owner) and number not in self._opened:
            platform.punch(self.store.arena(number)[0], offset, length)
        for node in self.nodes:  # once a value, whatever reads it
            if key in node.held:
                partly = coming is not None and node in coming.nodes
                held = coming.position - offset if coming is not None and partly else length
                node.held.discard(key)
                node.copies.discard(key)
                node.tell(carrier.FREED, number, offset, held)

    def given_back(self, number: int, offset: int, length: int) -> None:
        """Nobody asks any more for a part of an arena whose maker has ended."""
        for node in self.nodes:
            if number >> OWNER_SHIFT in node.workers:
                node.tell(carrier.FREED, number, offset, length)

    def removed(self, number: int) -> None:
        """Nobody asks any more for anything in an arena."""
        self._absent.pop(number, None)
        self._unkept.pop(number, None)
        self._trouble.pop(number, None)
        self._opened.pop(number, None)
        self._on_disk.discard(number)
        self._orphaned.discard(number)
        for node in self.nodes:
            if number in node.arenas or number >> OWNER_SHIFT in node.workers:
                node.arenas.discard(number)
                node.tell(carrier.GONE, number)
        self._forget_owner(number >> OWNER_SHIFT)

    def unwanted(self, reader: int, key: Key) -> None:
        """A value was dropped that a node gets from another one."""
        for node in self.nodes:
            if reader == _as_reader(node) and key in node.coming:
                node.tell(carrier.UNGET, *key)

    def worker_ended(self, worker: int) -> None:
        """A worker has ended, and what is left of its arenas is known."""
        self._forget_owner(worker)
