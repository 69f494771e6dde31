"""What the items of a map print while their block runs.

A worker tells where the log of each item begins only when the block has ended: to tell it for each
item would cost more than a small item takes. So whoever wants to read the log of an item that runs
has the worker asked, see `mars.engines.worker.perform.Performer.marks`. A block of one item is not
asked about: all that its attempt prints is the item's. Used in the loop's thread only, but for what
`Look` says.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from mars.attempt.capture import Log
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.workers import Member
from mars.engines.wire import messages
from mars.task import Task, WorkerId


class Look:
    """One look at the running items of a map. The thread that asked waits for `answered`.

    Attributes
    ----------
    found : list of (int, int, Log)
        Index of an item, number of the attempt, and what the item has printed.
    missing : dict of int to sequence of int
        Attempts whose workers have not answered, and the items of these blocks.
    answered : threading.Event
        Set once nothing is missing.
    """

    def __init__(self) -> None:
        self.found: list[tuple[int, int, Log]] = []
        self.missing: dict[int, Sequence[int]] = {}
        self.answered = threading.Event()


class LiveItems:
    """Looks at the blocks of maps that run.

    Parameters
    ----------
    members : mapping of int to Member
        The workers that are there.
    scheduler : Scheduler
        It knows what they run.
    """

    def __init__(self, members: Mapping[int, Member], scheduler: Scheduler) -> None:
        self._members = members
        self._scheduler = scheduler
        self._looks: list[Look] = []

    def look_at(self, whole: Task) -> Look:
        """Begin a look at the items of a map that run."""
        look = Look()
        for member in self._members.values():
            state = self._scheduler.workers.get(WorkerId(member.number))
            if state is None or not state.queue or member.process.deaf:
                continue
            block = state.queue[0]
            attempt, start = member.process.running()
            if block.source is not whole or block.attempt != attempt:
                continue
            if len(block.items) == 1:
                segment = member.process.segment
                log = Log(segment, start, segment.size())
                look.found.append((block.items[0], attempt, log))
            else:
                look.missing[attempt] = block.items
                member.process.order((messages.MARKS, attempt))
        if look.missing:
            self._looks.append(look)
        return look

    def take(self, member: Member, attempt: int, marks: Sequence[int]) -> None:
        """A worker has answered."""
        segment = member.process.segment
        end = segment.size()  # on a cluster, what was printed may come later
        for look in self._looks:
            items = look.missing.pop(attempt, ())
            for index, start, stop in zip(items, marks, marks[1:], strict=False):
                if start < end:
                    look.found.append((index, attempt, Log(segment, start, min(stop, end))))
            if not look.missing:
                look.answered.set()

    def end(self, look: Look) -> None:
        """Nobody waits for the answers any more."""
        if look in self._looks:
            self._looks.remove(look)


__all__ = ["LiveItems", "Look"]
