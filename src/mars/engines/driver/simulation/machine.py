"""The machine on which a simulation happens: virtual time, chance and memory.

Time is a number. It goes on when nothing is left to happen at the present moment. Chance comes from
one seed, so each history can be played again. Used by `processes` and `world`.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from mars.settings import OBJECT_MEMORY_SHARE
from mars.task import Call, Task

FOREVER: Final = 10**9
"""As a number of attempts: all of them."""

MAX_STEPS: Final = 6000
"""Events in one history at the most; more means that it never comes to rest."""

MAX_TICKS: Final = 20
"""Timers that may be due at one moment."""


class Broken(AssertionError):
    """A promise of the scheduler does not hold in a simulation."""


@dataclass(slots=True)
class Chances:
    """How long messages take, and how often something unusual happens: 0 never, 1 always.

    Attributes
    ----------
    latency_s : float
        The longest time that most messages are on their way, seconds.
    slow : float
        How often a message takes up to thirty times longer.
    lazy_reports : float
        How often a worker keeps the end of a call to itself for a while, as it may.
    death, start_death : float
        How often a worker dies while it runs a call or between messages, and at its start.
    leave : float
        How often a call spoils its process, which then ends.
    duplicates, torn : float
        How often a report comes twice, and how often a message is torn.
    early : float
        How often a stored value is told of before it is here.
    no_room : float
        How often such a value finds no room when it arrives.
    lost_makers : float
        How often a group is lost when another one has got a value that it made.
    """

    latency_s: float = 1e-4
    slow: float = 0.1
    lazy_reports: float = 0.5
    death: float = 0.0
    start_death: float = 0.0
    leave: float = 0.0
    duplicates: float = 0.0
    torn: float = 0.0
    early: float = 0.0
    no_room: float = 0.1
    lost_makers: float = 0.0


class Behaviour:
    """What a call does when it is run.

    Parameters
    ----------
    seconds : float
        How long it runs; for a map, each of its items.

    Attributes
    ----------
    fails : int
        So many first tries raise.
    fatal : bool
        It raises what no further try can help.
    deadly : int
        So many first starts kill the worker.
    catches : str
        What it makes of an interrupt: ``""`` lets it through, ``"ignore"`` goes on, ``"value"``
        returns a value.
    nested : str
        How it waits for calls of its own: ``""`` it has none, ``"wait"`` at once, ``"later"`` after
        some work, ``"beside"`` in another thread, which goes on after the call.
    items : frozenset of int
        Of a map: the items that raise.
    stored : bool
        Its value is stored and has to be given back.
    memory : float
        Bytes that it takes while it runs.
    """

    __slots__ = (
        "catches", "deadly", "fails", "fatal", "items", "memory", "nested", "seconds", "starts",
        "starved", "stored", "tries",
    )  # fmt: skip

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.fails = 0
        self.fatal = False
        self.deadly = 0
        self.catches = ""
        self.nested = ""
        self.items: frozenset[int] = frozenset()
        self.stored = False
        self.memory = 0.0
        self.starved = 0  # so often it was ended because memory ran out
        self.starts = 0
        self.tries = 0


class SimulatedRun:
    """What the scheduler counts of one `execute`, and what a simulation notes of it."""

    def __init__(self, name: str, *, stop_on_error: bool, depth: int = 0) -> None:
        self.name = name
        self.number = 0
        self.live = True
        self.total = self.remaining = self.made = self.done = self.failed = 0
        self.failure: Task | None = None
        self.cancelled = False
        self.stop_on_error = stop_on_error
        self.depth = depth
        self.landed: Callable[[Task], object] | None = None
        self.heard: Callable[[Task], object] | None = None
        self.withdrawn = 0
        self.once: Collection[Call] = frozenset()
        self.submitted = False
        self.ended_at: float | None = None
        self.given_up = False
        self.joined = False  # some of its tasks were made, or under way, for another run
        self.worker: int | None = None  # who asked for it, when it is nested
        self.tasks: Sequence[Task] = ()


class Machine:
    """Time, chance, memory and notes, shared by all that is simulated.

    Parameters
    ----------
    seed : int
        Decides all that is left to chance.
    log : bool
        Whether the story is kept, in `log`.
    """

    def __init__(self, seed: int, log: bool = False) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.chances = Chances()
        self.log: list[str] | None = [] if log else None
        self.nobody = SimulatedRun("nobody", stop_on_error=False)  # has what was cancelled alone
        self.nobody.live, self.nobody.cancelled = False, True
        self.withdrawn: set[Task] = set()  # calls that the program has cancelled one by one
        self.faults = Counter[str]()  # what has happened, and how often
        self.behaviours: dict[Call, Behaviour] = {}
        self.wanted_by: dict[Task, list[SimulatedRun]] = {}  # the runs that have asked for a task
        self.memory = inf  # bytes of the machine
        self.objects = 0.0  # and those of them that objects take
        self.object_bytes = 0.0  # size of a stored result
        self.regions: dict[int, str] = {}  # stored results of attempts: held, freed
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    # -- time ---------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have something happen at a time."""
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, action))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Have something happen after so many seconds."""
        self.at(self.now + delay_s, action)

    def next_at(self) -> float | None:
        """When the next thing happens; None: nothing will."""
        return self._heap[0][0] if self._heap else None

    def take_next(self) -> Callable[[], None]:
        """Take out what happens next."""
        return heapq.heappop(self._heap)[2]

    def delay(self) -> float:
        """How long one message is on its way, seconds."""
        rng = self.rng
        longest_s = self.chances.latency_s * rng.random()
        return longest_s if rng.random() < 1 - self.chances.slow else 30 * longest_s

    def say(self, *words: object) -> None:
        """Add a line to the story."""
        if self.log is not None:
            self.log.append(f"{self.now:10.6f} " + " ".join(map(str, words)))

    # -- memory -------------------------------------------------------------------------------

    def hold(self, attempt: int) -> None:
        """An attempt has stored a result."""
        self.regions[attempt] = "held"
        self._count_objects()

    def free(self, attempt: int) -> None:
        """The stored result of an attempt is given back."""
        if self.regions.get(attempt) == "freed":
            raise Broken(f"the result of attempt {attempt} is given back twice")
        self.regions[attempt] = "freed"
        self._count_objects()

    def _count_objects(self) -> None:
        """Count the memory that stored results take. What is beyond the budget is on disk."""
        if not self.object_bytes:
            return
        held = sum(state == "held" for state in self.regions.values()) * self.object_bytes
        budget = OBJECT_MEMORY_SHARE * self.memory
        if held > budget:
            self.faults["spill"] += 1
        self.objects = min(held, budget)

    # -- notes --------------------------------------------------------------------------------

    def runs_of(self, task: Task) -> list[SimulatedRun]:
        """The runs that have asked for a task, or for the map that it is a block of."""
        return self.wanted_by.get(task if task.source is None else task.source, [])


def named(task: Task) -> str:
    """A task, as a story names it."""
    if task.source is not None:
        return f"{task.call.name}{list(task.items)}"
    return task.call.name


def show(thing: object) -> str:
    """An event or a command in one line."""
    words = [type(thing).__name__]
    for field in getattr(thing, "_fields", ()):
        value = getattr(thing, field)
        if isinstance(value, SimulatedRun):
            words.append(value.name)
        elif field == "tasks":
            words.append(" ".join(f"{named(task)}#{task.attempt}" for task in value))
        elif field == "outcomes":
            words.append(
                " ".join(f"#{one.attempt}:{one.status}:{one.seconds:.6f}" for one in value)
            )
        elif field not in ("certificate", "result", "log"):
            words.append(f"{field}={value}")
    return " ".join(words)
