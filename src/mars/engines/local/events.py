"""What happens to the scheduler, and what it wants done: its whole interface.

Pure facts. `loop` makes events of what happened and carries out commands; a simulator in the
tests does the same without processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mars.task import AttemptId, Task, WorkerId


class RunState(Protocol):
    """What the scheduler needs of a run."""

    live: bool
    total: int
    remaining: int
    done: int
    failed: int
    failure: Task | None
    cancelled: bool
    stop_on_error: bool
    depth: int
    landed: Callable[[Task], object] | None


# -- events -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Submitted:
    """A run begins: its tasks, inputs before the tasks that read them."""

    run: RunState
    tasks: Sequence[Task]


@dataclass(slots=True)
class WorkerReady:
    """A worker process waits for work."""

    worker: WorkerId


@dataclass(slots=True)
class Outcome:
    """How one attempt ended."""

    attempt: int
    status: int
    seconds: float
    result: Any = None
    stored: bool = False
    failures: int = 0  # items of a block that raised
    timing: bytes | None = None
    log: Any = None
    peak: int = 0  # bytes of memory that the process took; 0: not looked at


@dataclass(slots=True)
class Finished:
    """Attempts ended, in the order in which the worker ran them."""

    worker: WorkerId
    outcomes: Sequence[Outcome]


@dataclass(slots=True)
class GaveBack:
    """A worker took these attempts out of its queue; it never started them."""

    worker: WorkerId
    attempts: Sequence[int]


@dataclass(slots=True)
class Blocked:
    """The running call of a worker waits for a nested run."""

    worker: WorkerId


@dataclass(slots=True)
class Unblocked:
    """What the running call of a worker waited for is there; it wants its cores back."""

    worker: WorkerId


@dataclass(slots=True)
class Died:
    """A worker process has ended, for certain.

    ``started`` is the last attempt that it began, of those in its queue, 0 for none;
    ``certificate`` makes the failure of a task that it had begun; ``log`` is what it had printed
    for the last one. ``starved``: the kernel ended it because memory ran out;
    ``peak`` is the memory that the process had taken, in bytes. ``unable``: the system refused
    to start it, or it ended by itself before it was ready.
    """

    worker: WorkerId
    started: int
    certificate: Callable[[Task], Any] = lambda _: None
    log: Any = None
    starved: bool = False
    peak: int = 0
    unable: bool = False


@dataclass(slots=True)
class Left:
    """A worker is about to end, since a call spoiled its process; it starts nothing more."""

    worker: WorkerId


@dataclass(slots=True)
class Cancelled:
    """Somebody cancelled a run."""

    run: RunState


@dataclass(slots=True)
class Forgotten:
    """The program holds no output of these tasks any more."""

    tasks: Sequence[Task]


@dataclass(slots=True)
class Tick:
    """Time passed."""


# -- commands ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Assign:
    """Send tasks to a worker, to run in this order."""

    worker: WorkerId
    tasks: list[Task]


@dataclass(slots=True)
class TakeBack:
    """Ask a worker to give back tasks that it has not started, last ones first."""

    worker: WorkerId
    count: int


@dataclass(slots=True)
class Report:
    """Ask a worker to tell what it has finished."""

    worker: WorkerId


@dataclass(slots=True)
class Interrupt:
    """Stop an attempt: SIGINT."""

    worker: WorkerId
    attempt: AttemptId


@dataclass(slots=True)
class Kill:
    """Stop a worker process: SIGKILL. `Died` follows."""

    worker: WorkerId


@dataclass(slots=True)
class StartWorker:
    """Start a process for a worker."""

    worker: WorkerId
    group: int


@dataclass(slots=True)
class StopWorker:
    """A worker is not needed any more; it has nothing queued. No event follows."""

    worker: WorkerId


@dataclass(slots=True)
class Resume:
    """Let a blocked worker go on: its cores are free."""

    worker: WorkerId


@dataclass(slots=True)
class Release:
    """Nobody can ask for the results of these tasks any more: give their memory back."""

    tasks: list[Task]


@dataclass(slots=True)
class Discard:
    """A result was not accepted: give its memory back."""

    result: Any


@dataclass(slots=True)
class Landed:
    """Tell a run that keeps its results of one. Its call has one handle more until it is kept."""

    run: RunState
    task: Task


@dataclass(slots=True)
class RunEnded:
    """All tasks of a run have ended, or its first failure ends it."""

    run: RunState


@dataclass(slots=True)
class Fewer:
    """A worker did not start; the others of its group go on without it. Say so once."""

    worker: WorkerId


@dataclass(slots=True)
class GiveUp:
    """Worker processes end before they are ready, again and again."""


Event = (
    Submitted | WorkerReady | Finished | GaveBack | Blocked | Unblocked | Died | Left
    | Cancelled | Forgotten | Tick
)  # fmt: skip
Command = (
    Assign | TakeBack | Report | Interrupt | Kill | StartWorker | StopWorker | Resume | Release
    | Discard | Landed | RunEnded | Fewer | GiveUp
)  # fmt: skip
