"""One node, as the driver knows it: what it is, what it has, and the way to it."""

from __future__ import annotations

import os
import time

from mars.engines.cluster import carrier
from mars.engines.cluster.carrier import Carrier, Facts, File, Item
from mars.engines.cluster.clock import Clock
from mars.engines.cluster.line import Line
from mars.engines.cluster.logs import NodeLogs
from mars.engines.cluster.whereabouts import Coming, Noted, Whereabouts
from mars.settings import CALL_MEMORY_SHARE, CLOCK_S
from mars.task import Stored


class RemoteNode:
    """One node, as the driver knows it."""

    def __init__(self, name: str, index: int, facts: Facts, link: Carrier) -> None:
        self.name = name
        self.index = index  # of its group in the scheduler
        self.facts = facts
        self.address: str = facts["address"]
        self.cpus: float = facts["cpus"]
        self.gpus: tuple[str, ...] = tuple(facts.get("gpus", ()))
        self.memory: float = CALL_MEMORY_SHARE * facts["memory"]
        self.title = f"{facts['host']} ({self.address})"
        self.alive = True
        self.reason = ""
        # On a machine that they share nothing is copied between driver and node.
        self.kept = carrier.can_open(facts["file"])  # we open its arenas
        self.unreadable = False  # we could not open one
        self.reads: bool = facts["reads"]  # it opens ours
        self.stands_in(Whereabouts())
        self.arenas: set[int] = set()  # of others
        self._link = link
        self.line: Line | None = None  # instead of the link, if the node can be reached
        self.lost = False  # and the loop told of it
        self.clock = Clock()
        self.logs = NodeLogs()
        self._ask_clock_ns = 0  # when, at the earliest

    def stands_in(self, where: Whereabouts) -> None:
        """What it has is noted there together with what others have; it has nothing yet."""
        self.workers = Noted(where.makers, self, where)  # that are there, or whose arenas are
        # Regions of others that it has a copy of, or is sent one.
        self.held = Noted(where.holders, self, where)
        self.copies = Noted(where.copies, self, where)  # those that it got from another node
        self.coming = Coming(self, where)  # what it gets from which other node
        if self.reads:
            where.readers[self] = None

    @property
    def is_direct(self) -> bool:
        """Whether it has a line to this process, and so may have lines to other nodes."""
        return self.line is not None

    def begin(self, line: Line | None) -> None:
        """Choose the way: what the node hears from first is the one that it uses, too."""
        if line is not None:
            try:
                line.start()
            except RuntimeError:  # no thread is left
                line.close()
                line = None
        self.line = line
        self.tell(carrier.HERE)
        if self.kept:
            self.tell(carrier.KEEP)

    def ask_clock(self) -> None:
        """Ask what its clock shows, unless that was done a short time ago."""
        now = time.monotonic_ns()
        if now >= self._ask_clock_ns:
            self._ask_clock_ns = now + int(CLOCK_S * 1e9)
            self.tell(carrier.ASK_CLOCK, now)

    def tell(self, *message: object) -> None:
        """Send a message."""
        self.send(message)

    def send(self, item: Item) -> None:
        """Send a message, or what makes one when it is its turn."""
        if not self.alive:
            return
        if self.line is not None:
            self.line.send((item,))
        else:
            self._link.send(self.name, item)

    def ship(self, value: Stored, arena: tuple[int, int]) -> None:
        """Have it hold the region of a value, whose arena here has that descriptor and size."""
        _, number, offset, length, _ = value
        self.held.add((number, offset))
        self.arenas.add(number)
        descriptor, size = arena
        file = carrier.readable(descriptor, offset, length)  # as long as there is more to be read
        for part in carrier.parts(file, (carrier.BYTES, number, size), offset, length):
            self.send(part)

    def give_folder(self, descriptor: int) -> None:
        """Have it unpack the program's folder, before it starts a worker."""
        size = os.fstat(descriptor).st_size
        for part in carrier.parts(File(descriptor), (carrier.FOLDER, size), 0, size):
            self.send(part)
