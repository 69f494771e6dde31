"""What happens to the scheduler, and what it wants done: its whole interface.

Pure facts. `loop` makes events of what happened and carries out commands; `simulation` does the
same without processes. They are tuples, because so many data classes take 15 ms to make, and every
program would wait for that.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mars.task import AttemptId, Call, Task, WorkerId


class RunState(Protocol):
    """What the scheduler needs of a run."""

    number: int
    live: bool
    total: int
    remaining: int
    made: int
    done: int
    failed: int
    failure: Task | None
    cancelled: bool
    stop_on_error: bool
    depth: int
    landed: Callable[[Task], object] | None
    heard: Callable[[Task], object] | None
    withdrawn: int
    once: Collection[Call]


# -- events -----------------------------------------------------------------------------------


class Submitted(NamedTuple):
    """A run begins: its tasks, inputs before the tasks that read them."""

    run: RunState
    tasks: Sequence[Task]


class WorkerReady(NamedTuple):
    """A worker process waits for work."""

    worker: WorkerId


class Outcome(NamedTuple):
    """How one attempt ended."""

    attempt: int
    status: int
    seconds: float
    result: Any = None
    stored: bool = False
    failures: int = 0  # items of a block that raised
    timing: bytes | None = None
    log: Any = None  # the part of a log that it wrote
    peak: int = 0  # bytes of memory that the process took; 0: not looked at
    early: bool = False  # its value is still on its way here, and `Arrived` follows


class Finished(NamedTuple):
    """Attempts ended, in the order in which the worker ran them."""

    worker: WorkerId
    outcomes: Sequence[Outcome]


class Arrived(NamedTuple):
    """Values that had been told of before they were here have arrived."""

    attempts: Sequence[int]


class Unkept(NamedTuple):
    """There is no room here for a value that had been told of before: its task fails.

    No worker has a call in its queue that could read the value where it is.
    """

    attempt: int
    failure: object


class Lost(NamedTuple):
    """A group is lost, and with it all values that are nowhere else.

    The deaths of its workers follow. After these nothing of the group is left, and its number is
    not used again. ``copied`` has attempts whose values are not here but in another group as well,
    and the number of that group.
    """

    group: int
    certificate: Callable[[Task], object] = lambda _: None
    copied: Mapping[int, int] = {}


class GaveBack(NamedTuple):
    """A worker took these attempts out of its queue. It has not started them, and never will."""

    worker: WorkerId
    attempts: Sequence[int]


class Blocked(NamedTuple):
    """The running call of a worker waits for a nested run."""

    worker: WorkerId


class Unblocked(NamedTuple):
    """What the running call of a worker waited for is there. The worker wants its cores back."""

    worker: WorkerId


class Died(NamedTuple):
    """A worker process has ended, for certain.

    ``started`` is the last attempt that it began, 0 for none. It had begun all attempts of its
    queue up to that one. ``certificate`` makes the failure of a task that it had begun. ``log`` is
    what it had printed for the last attempt. ``starved`` says that the kernel ended it because
    memory ran out, and ``peak`` is the memory that the process had taken, in bytes. ``unable`` says
    that the system refused to start it, or that it ended by itself before it was ready.
    """

    worker: WorkerId
    started: int
    certificate: Callable[[Task], object] = lambda _: None
    log: Any = None
    starved: bool = False
    peak: int = 0
    unable: bool = False


class Left(NamedTuple):
    """A worker is about to end, because a call spoiled its process. It starts nothing more."""

    worker: WorkerId


class Cancelled(NamedTuple):
    """Somebody cancelled a run."""

    run: RunState


class Withdrawn(NamedTuple):
    """The program cancelled one call. It goes over to a run that has ended, and was cancelled."""

    task: Task
    by: RunState


class Forgotten(NamedTuple):
    """The program holds no output of these tasks any more."""

    tasks: Sequence[Task]


class Tick:
    """Time passed."""


# -- commands ---------------------------------------------------------------------------------


class Assign(NamedTuple):
    """Send tasks to a worker, to run in this order."""

    worker: WorkerId
    tasks: list[Task]
    within: list[float]  # seconds in which each is to be reported


class TakeBack(NamedTuple):
    """Ask a worker to give back tasks that it has not started. The last ones come first."""

    worker: WorkerId
    most: int


class Report(NamedTuple):
    """Ask a worker to tell what it has finished."""

    worker: WorkerId


class Interrupt(NamedTuple):
    """Stop an attempt: SIGINT."""

    worker: WorkerId
    attempt: AttemptId


class Kill(NamedTuple):
    """Stop a worker process: SIGKILL. `Died` follows."""

    worker: WorkerId


class StartWorker(NamedTuple):
    """Start a process for a worker."""

    worker: WorkerId
    group: int


class StopWorker(NamedTuple):
    """A worker is not needed any more. It has nothing queued, and no event follows."""

    worker: WorkerId


class Resume(NamedTuple):
    """Let a blocked worker go on: its cores are free."""

    worker: WorkerId


class Release(NamedTuple):
    """Nobody can ask for the results of these tasks any more. Give their memory back."""

    tasks: list[Task]


class Discard(NamedTuple):
    """A result was not accepted. Give its memory back."""

    result: Any


class Fetch(NamedTuple):
    """`group` could take `task`, but its inputs are in another group.

    That one has work for `work_s` seconds. Having the inputs sent over may be faster.
    """

    group: int
    task: Task
    work_s: float


class Needed(NamedTuple):
    """Somebody waits for a value that is on its way here."""

    group: int
    attempt: int


class Unneeded(NamedTuple):
    """Nobody will read a value that is on its way here."""

    group: int
    attempt: int


class Landed(NamedTuple):
    """Tell a run that keeps its results about one.

    The call of that task has one more handle until the result is kept.
    """

    run: RunState
    task: Task


class Settled(NamedTuple):
    """Tell the set that a task belongs to that it has ended."""

    task: Task


class RunEnded(NamedTuple):
    """All tasks of a run have ended, or its first failure ends it."""

    run: RunState


class Fewer(NamedTuple):
    """A worker did not start, and the others of its group go on without it. Say so once."""

    group: int


class Closed(NamedTuple):
    """The workers of a group end before they are ready, again and again. Other groups go on."""

    group: int


class GiveUp:
    """The workers of all groups end before they are ready, again and again."""


Event = (
    Submitted | WorkerReady | Finished | Arrived | Unkept | Lost | GaveBack | Blocked | Unblocked
    | Died | Left | Cancelled | Withdrawn | Forgotten | Tick
)  # fmt: skip
Command = (
    Assign | TakeBack | Report | Interrupt | Kill | StartWorker | StopWorker | Resume | Release
    | Discard | Fetch | Needed | Unneeded | Landed | Settled | RunEnded | Fewer
    | Closed | GiveUp
)  # fmt: skip
