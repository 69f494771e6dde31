"""Decides which worker runs which task, and what becomes of a task when things go wrong.

Pure: no socket, thread, clock or log. `loop` turns what happened into an event, hands it to
`Scheduler.on` with the time, and carries out the commands that come back. So a test can replay any
history, in any order, in microseconds.

    event ──► reactor ──────────────┐
              consequences          ├──► core ──► commands
              early, blocks         │
              placement (after it) ─┘
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from mars.engines.driver.consequences import abandon
from mars.engines.driver.core import Core
from mars.engines.driver.events import Command, Event, Release
from mars.engines.driver.placement import place
from mars.engines.driver.reactor import HANDLERS, resume
from mars.settings import PREFETCH_BELOW_S
from mars.task import Task


class Scheduler:
    """The scheduler as the loop sees it.

    Parameters
    ----------
    groups : sequence of (str, float)
        Address and cores of each group of workers.
    room : callable, optional
        Gives the bytes that running calls may take together now. Default: no limit.
    distance : callable, optional
        Gives, for a ready task and the number of a group, how many seconds longer its inputs take
        to this group than to the one that has most of them. Default: all groups have all inputs.
    prefetch_below_s : float, optional
        A call that is predicted to take longer is not sent ahead, seconds.

    Attributes
    ----------
    groups, workers, ready, made_in, admission
        Parts of the state that others read: groups by number, workers by id, tasks that are
        ready, values that are not here yet, and the memory of calls.
    seconds : dict
        Predicted duration of each function's calls, by the function's key.
    """

    __slots__ = ("admission", "core", "groups", "made_in", "ready", "seconds", "workers")

    def __init__(
        self,
        groups: Sequence[tuple[str, float]],
        room: Callable[[], float] = lambda: inf,
        distance: Callable[[Task, int], float] | None = None,
        prefetch_below_s: float = PREFETCH_BELOW_S,
    ) -> None:
        core = self.core = Core(groups, room, distance, prefetch_below_s, abandon)
        self.groups, self.workers, self.ready = core.groups, core.workers, core.ready
        self.made_in, self.admission = core.made_in, core.admission
        self.seconds = core.estimates.seconds

    def on(self, event: Event, now: float) -> list[Command]:
        """What to do about ``event``; ``now`` is monotonic time in seconds."""
        core = self.core
        commands: list[Command] = []
        core.commands = commands
        HANDLERS[type(event)](core, event, now)
        if core.resuming:
            for number in sorted(core.resuming):
                resume(core, number)
        if core.device_groups:
            from mars.engines.driver.on_devices import place_with_devices  # late: few have GPUs

            place_with_devices(core, now)
        else:
            place(core, now)
        if core.lost_groups:
            core.forget_groups()
        if core.releases:
            commands.append(Release(core.releases))
            core.releases = []
        return commands

    def start_all(self) -> list[Command]:
        """The workers that an engine begins with: one per core."""
        core = self.core
        core.commands = []
        for index, group in core.groups.items():
            if index < 0:
                continue  # those beside others begin when calls for them come
            for _ in range(max(1, int(group.cpus))):
                core.start_worker(index)
        return core.commands

    @property
    def blocked(self) -> int:
        """How many workers have a call that waits for nested calls."""
        return self.core.blocked

    def add_group(self, address: str, cpus: float, memory: float | None = None) -> int:
        """Have further workers, which share so many cores. Returns the number of their group."""
        return self.core.add_group(address, cpus, memory)

    def add_devices(self, number: int, names: Sequence[str]) -> None:
        """A group has GPUs, by the names that ``CUDA_VISIBLE_DEVICES`` gives them."""
        self.core.add_devices(number, names)

    def give_memory(self, number: int, memory: float) -> None:
        """A group has memory of its own, on a node; before any of its workers is started."""
        self.core.give_memory(number, memory)

    def next_timer(self) -> float | None:
        """When `Tick` is due at the latest; None: nothing waits for time to pass."""
        heap = self.core.timers.heap
        return heap[0][0] if heap else None
