"""The port through which the loop reaches workers, wherever their processes are.

`mars.engines.local.workers` fulfils it for the processes of this machine, and
`mars.engines.cluster.workers` for those on nodes. What the loop notes about each worker, such as
the functions that it has been sent, is a `Member`: the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mars.attempt.capture import Segment
from mars.engine import Run
from mars.engines.driver import events
from mars.engines.driver.scheduler import Scheduler
from mars.engines.local.process import Watch
from mars.engines.local.workers import Ended
from mars.engines.wire.frames import BadFrame
from mars.engines.wire.messages import Order, Submit, ToWorker
from mars.errors import MarsError, StartupFailed
from mars.task import RunId, Stored, Task

if TYPE_CHECKING:
    from mars.attempt.followed import Surroundings
    from mars.engines.wire.messages import Facts


class GroupLost(Exception):
    """A group of workers, such as a node, is not there any more."""


class Process(Protocol):
    """One worker process, as the loop reaches it.

    Attributes
    ----------
    number, pid : int
        Of the worker, and of the process; 0 until it has started.
    where : str
        The host, or the node, that it runs on.
    segment : Segment
        All that it has printed.
    descriptors : list of int
        That have come with its messages and that nobody has taken.
    deaf : bool
        Nothing is sent to it any more, as it has ended.
    leaving : bool
        It ends by itself, and has said so. The loop sets this.
    broken : str
        Why nothing that it sends is believed any more; empty: it is believed. The loop sets this.
    """

    number: int
    pid: int
    leaving: bool
    broken: str

    @property
    def where(self) -> str: ...
    @property
    def segment(self) -> Segment: ...
    @property
    def descriptors(self) -> list[int]: ...
    @property
    def arenas(self) -> set[int]: ...
    @property
    def deaf(self) -> bool: ...
    @property
    def title(self) -> str:
        """What errors call it."""

    def send(self, message: ToWorker) -> None:
        """Send a message, after those before it."""

    def order(self, message: Order) -> None:
        """Send a message that a running call does not hold up."""

    def lend(self, value: Stored, arena: tuple[int, int]) -> None:
        """Make sure that it can map a value, whose arena is that descriptor and size."""

    def interrupt(self, attempt: int) -> None:
        """Stop that attempt, and no other."""

    def kill(self) -> None:
        """End it by force."""

    def running(self) -> tuple[int, int]:
        """The attempt that runs, 0 for none, and where its log starts."""


class Driver(Protocol):
    """What workers may use of the loop that they belong to."""

    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def runs(self) -> set[Run]: ...
    @property
    def members(self) -> dict[int, Member]: ...
    @property
    def now(self) -> float:
        """When the event came that is being decided about; another one for each event."""

    def started(self, process: Process) -> None:
        """A process is there; it has its number now."""

    def came(self, process: Process, frames: Sequence[tuple[bool, memoryview]]) -> None:
        """A process has sent frames: whether each holds records, and its bytes."""

    def garbled(self, process: Process, error: BadFrame) -> None:
        """A process has sent what is no frame."""

    def ended(self, process: Process, ended: Ended) -> None:
        """A process has ended, and all that it had sent was given to `came`."""

    def zygote_failed(self, error: StartupFailed) -> None:
        """No process of this machine can be started any more."""

    def on(self, event: events.Event) -> None:
        """Have the scheduler decide about an event."""

    def collect_regions(self) -> None:
        """Pass on what the store wants told to workers."""

    def refuse(self, error: MarsError) -> None:
        """End all runs with an error, also those that come later."""

    def fail_runs(self, task: Task, error: MarsError) -> None:
        """End the runs of a task with an error."""

    def forget_group(self, group: int) -> None:
        """A group is lost: nothing is told of it any more."""

    @property
    def tell(self) -> Callable[[str], object]:
        """Shows the user a line."""


class Workers(Protocol):
    """The worker processes of one engine; all in the loop's thread, but `forget`."""

    @property
    def dead(self) -> Mapping[int, Ended]:
        """Those that have ended and are not buried yet: their number, and how."""

    @property
    def alive(self) -> bool:
        """Whether ends of processes are told of: the zygote, or the way to the nodes, is there."""

    @property
    def nodes(self) -> Nodes | None:
        """What only workers on nodes need of the loop; None: they are all here."""

    def begin(
        self, driver: Driver, watch: Watch, soon: Callable[[Callable[[], object]], object]
    ) -> None:
        """Say who hears of the workers; ``soon`` has something done in the loop's thread."""

    def start(self, number: int, facts: Facts, group: int) -> Process:
        """Start a process in a group; `Driver.started` or `Driver.ended` follows.

        Raises
        ------
        GroupLost
            The group is not there any more; nothing follows.
        OSError
            The system refuses what is needed here; nothing follows.
        """

    def bury(self) -> None:
        """Tell of processes that have ended: what they sent before, then how they ended."""

    def starved(self, ended: Ended) -> bool:
        """Whether the kernel ended a process because memory ran out; asked once for each."""

    def title_of(self, group: int, address: str) -> str:
        """What messages call a group."""

    def complaint(self) -> str:
        """The last that was said where processes are started."""

    def dismiss(self) -> None:
        """From here on processes end for good."""

    def stop(self) -> None:
        """End all processes; returns when they have ended, or are out of reach."""

    def close(self) -> None:
        """Stop, and let go of all but the logs; idempotent."""

    def forget(self) -> None:
        """In a child that the program forked: let go of everything, touch nothing."""


class Nodes(Protocol):
    """What the loop does only if its workers are on nodes: values come late, and nodes get lost."""

    @property
    def waits(self) -> bool:
        """Whether `look` is to be called also while nothing runs."""

    def look(self, now: float) -> None:
        """Do what has to be done now and then."""

    def run_ends(self) -> None:
        """A run is about to end: tell the user what is known until now."""

    def outcomes(self, process: Any, outcomes: Iterable[events.Outcome]) -> list[events.Outcome]:
        """The outcomes of a worker, which is one of these nodes: by our clock, with values here."""

    def trouble(self, message: Submit) -> MarsError | None:
        """Why a request for calls cannot be taken: a value in it could not be kept here."""

    def closed(self, address: str, why: str) -> None:
        """No worker process starts in a group; its calls run elsewhere."""

    def carry_out(self, command: events.Command) -> None:
        """Carry out a command about values that go from node to node."""


class Member:
    """A worker, and what the loop has told it."""

    __slots__ = ("free", "functions", "number", "over", "process", "runs", "surroundings", "unmap")

    def __init__(self, process: Process) -> None:
        self.number = process.number
        self.process = process
        self.functions: set[int] = set()  # that it has been sent
        self.runs: set[RunId] = set()  # that it has been told of
        self.surroundings: Surroundings | None = None  # as it was told last
        self.over: tuple[list[int], list[int]] = ([], [])  # runs, functions: it is to forget them
        self.unmap: list[tuple[int, int]] = []  # regions that it is to let go
        self.free: list[tuple[int, int, int]] = []  # regions that it may write again


__all__ = ["Driver", "GroupLost", "Member", "Nodes", "Process", "Workers"]
