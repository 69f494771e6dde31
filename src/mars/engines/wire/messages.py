"""All messages that cross between the driver, the zygote and the workers of one machine.

A message is a tuple whose first item says what it is. Finished calls are the exception: they come
as packed records, because a worker keeps them in shared memory until it reports them, and there
they outlive the worker.

::

    driver ──(TASKS, ARENA, FREE, REPLY, STOP)──────────────────► worker     data socket
    driver ◄──(records; ARENA, UNMAPPED, SUBMIT, WAIT, ASK, …)─── worker     data socket
    driver ──(TAKE_BACK, REPORT, COOL)──────────────────────────► worker     control socket
    driver ──(FORK, SIGNAL)──► zygote ──(STARTED, ENDED, PAGES)──► driver    zygote socket
    zygote ──(FORK, SIGNAL)──► threads ──(ENDED)──► zygote    socket of a process of threads
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, TypedDict, cast

from mars.engines.wire.frames import BadFrame
from mars.engines.wire.regions import Key, Result
from mars.task import Ended as EndedAttempt
from mars.task import Place, Stored, Value

if TYPE_CHECKING:
    from mars.attempt.followed import Surroundings
    from mars.calls.options import Options

# Each message has its type behind its name. A message is a plain tuple, because a pickle of one is
# smaller and faster than one of any class; a type checker tells the kinds apart by the first item.

# -- driver -> worker, data socket ------------------------------------------------------------

FunctionMessage = tuple[str, bytes | None, list[Stored] | None]
"""A function: its name, its pickle (None: the first part is the pickle), and its large parts."""

AS_BEFORE: Final = "as before"
"""In place of the surroundings of a run: those that the worker was told of last."""

RunMessage = tuple[str, int | None, tuple[int, ...], "Surroundings | Literal['as before'] | None"]
"""A run: session, entropy and prefix for `mars.remote.rng`, and surroundings or `AS_BEFORE`."""

Payload = bytes | tuple[bytes | None, list[Stored]]
"""Arguments: a pickle, or a pickle (None: the first part is the pickle) and its large parts."""

Kept = tuple[int, int | None]
"""An input that a call before has made in the same worker: its attempt, and which of its outputs
(None: the one that it has)."""

Input = Value | Kept

if TYPE_CHECKING:

    class Extra(TypedDict, total=False):
        """What only some calls need to say. The last eight are of blocks of items."""

        name: str
        """Shown in place of the function's name."""
        cpus: float
        label: int
        """Its label in the table of attempts, if that is not the function."""
        memory: int
        """Bytes that it may take."""
        retries: int
        retry_on: bytes | None
        """Pickle of the exceptions that are worth another attempt; None: Exception."""
        tried: int
        """How many attempts were made before."""
        keep: Literal[True]
        """A call that is queued behind it reads its value."""
        report: int
        """Nanoseconds within which its end is to be told."""
        count: int
        """How many calls it stands for."""
        items: int
        """The index of its first item, if each is one more than the one before; else -1."""
        indices: list[int]
        """Those of its items, if they are no range."""
        spread: bool
        """Whether an item is a tuple of arguments."""
        rows: Literal["plain", "any"]
        """Items are rows of `mars.attempt.rows`; plain: to load them cannot fail."""
        refused: bytes
        """Why it cannot be run, as a failure."""


CallMessage = tuple[
    int, int, int, Payload, list[Input] | None, int | None, Place, "Extra | None", int
]  # fmt: skip
"""A call: attempt, run and function (all three are numbers), arguments, inputs, number of outputs
(None: its value is the one output), place, what only some calls need to say, and its serial."""

Over = tuple[list[int], list[int]]
"""Runs and functions that the worker is to forget."""

TASKS: Final = "tasks"
Tasks = tuple[
    Literal["tasks"], dict[int, FunctionMessage], dict[int, RunMessage], list[CallMessage], Over
]
"""Functions and runs that the worker has not been told of, by number, and calls."""

ARENA: Final = "arena"  # comes with its file; both ways
Arena = tuple[Literal["arena"], int, int]
"""The number of an arena, and its size."""

FREE: Final = "free"
Free = tuple[Literal["free"], list[Key], list[tuple[int, int, int]]]
"""Regions that the worker is to let go, and those that it may write again, with their length."""

REPLY: Final = "reply"
Refused = tuple[Literal["error"], bytes]
"""A failure."""

Submitted = tuple[Literal["run"], int] | tuple[Literal["too many"], int] | Refused
"""The number of the run; or how many calls wait for calls already."""

ToldBlock = tuple[
    Sequence[int], int, "Result | None", tuple[EndedAttempt, ...], str, int, tuple[int, int] | None
]  # fmt: skip
"""A block of a map that has ended: items, stage, result or failure, attempts, blame, tries, and
which part of its worker's log it wrote."""

ToldTask = tuple[
    int, int, "Result | None", bool, str, int, list[ToldBlock] | None, tuple[EndedAttempt, ...], int
]  # fmt: skip
"""A call of a run that has ended: the number that the worker gave it, stage, result or failure,
whether that has parts in an arena, blame, the input that failed it (0: none did), blocks of a map,
attempts, and tries."""

RunEnded = tuple[bool, int, list[ToldTask], bytes | None]
"""A run that has ended: whether it was cancelled, the call that failed it (0: none did), its calls,
and the failure of the engine."""

Waited = tuple[Literal["ended"], RunEnded] | tuple[Literal["running"], None]

LogPart = tuple[int, bytes, bool, int]
"""A part of the log of a call: bytes so far, those asked for, whether no more will come, and where
the log goes on from where they were asked for."""

BlockLogPart = tuple[bytes, int]
"""A part of what a block wrote, and where it goes on from where that was asked for."""

OfObject = tuple[Literal["value"], bytes] | Refused
"""The pickle of what a shared object gave."""

Answer = Submitted | Waited | LogPart | BlockLogPart | OfObject | tuple[bytes | None]
"""The last one: the text of a module of the program."""

Reply = tuple[Literal["reply"], int, *tuple[object, ...]]
"""The request that it answers, and the `Answer`."""

STOP: Final = "stop"
Stop = tuple[Literal["stop"]]

ToWorker = Tasks | Arena | Free | Reply | Stop

# -- driver -> worker, control socket ---------------------------------------------------------

TAKE_BACK: Final = "take back"
TakeBack = tuple[Literal["take back"], int]
"""How many calls to give back at most."""

REPORT: Final = "report"
Report = tuple[Literal["report"]]

COOL: Final = "cool"
Cool = tuple[Literal["cool"]]
"""Nothing has been freed for a while: what is kept for the next values goes back to the system."""

MARKS: Final = "marks"  # both ways
Marks = tuple[Literal["marks"], int]
"""A block of items that runs: where the log of each of its items begins is asked for."""

Order = TakeBack | Report | Cool | Marks

# -- worker -> driver -------------------------------------------------------------------------

READY: Final = "ready"
LEAVING: Final = "leaving"
REPORTED: Final = "reported"
Plain = tuple[Literal["ready", "leaving", "reported"]]

GAVE_BACK: Final = "gave back"
GaveBack = tuple[Literal["gave back"], list[int]]
"""Attempts."""

UNMAPPED: Final = "unmapped"
Unmapped = tuple[Literal["unmapped"], int, int]
"""Arena and offset of a region."""

SUBMIT: Final = "submit"
Given = tuple[int, int | None, Value | tuple[Value, ...]]
"""A value that was made in the worker itself: its number, number of outputs, and result."""

RunFacts = tuple[str, bool, int | None, tuple[int, ...], bool, list[Given]]
"""Of a run that is asked for: session, whether the first failure ends it, entropy and prefix as in
`RunMessage`, whether a call of it needs a process of its own, and inputs that are given."""

Again = tuple[int, bool]
"""A call that was described before, and whether the program asked for it."""

Apart = tuple[bytes, list[Stored]]
"""A pickle, and its large buffers in an arena."""

Taken = tuple[bytes | Apart | None, list[bytes | Apart | None], bool]
"""What the rows of a map share, the rows, and whether they are plain; see `mars.attempt.rows`."""

Items = tuple[tuple[Sequence[Sequence[object]], Taken | None], list[int], bool]
"""Of a map: its columns or its rows, the items that are to run, and whether it spreads them."""

Described = tuple[
    int, tuple[bytes, str, bytes, list[Stored]], bytes | None, list[Stored] | None,
    list[tuple[int, int]], int | None, "Options", Place, bool, Items | None,
]  # fmt: skip
"""A call that a worker asks for: its number there, function (key, name, pickle and large parts),
arguments and their large parts, inputs (numbers, and which of their outputs), number of outputs,
options, place, whether the program asked for it, and of a map its items."""

Submit = tuple[Literal["submit"], int, RunFacts, list[Again | Described]]
"""A request, facts of a run, and its calls."""

WAIT: Final = "wait"
WAITED: Final = "waited"
Wait = tuple[Literal["wait", "waited"], int, int]
"""A request, and a run."""

CANCEL: Final = "cancel"
Cancel = tuple[Literal["cancel"], int]
"""A run."""

ASK: Final = "ask"
Question = (
    tuple[Literal["log"], tuple[int, int, int]]
    | tuple[Literal["block's log"], tuple[int, int, int, int]]
    | tuple[Literal["text"], bytes]
    | tuple[Literal["object"], bytes]
)
"""What is asked, and about what: a part of a log (number of a call, and of a block of it; start and
limit in bytes), the text of a module, a pickled request to a shared object."""

Ask = tuple[Literal["ask"], int, str, object]
"""A request, and a `Question`."""

PROGRESS: Final = "progress"
Progress = tuple[Literal["progress"], int, float]
"""An attempt, and which part of it is done."""

ON_GPUS: Final = "on gpus"
OnGpus = tuple[Literal["on gpus"], int, int, float]
"""An attempt that is about to be told of, bytes that it had on GPUs, and how far it used them."""

Marked = tuple[Literal["marks"], int, list[int]]
"""An attempt, where the log of each item begins that has begun, and where that of the last one ends
now. Empty: it does not run."""

Request = Submit | Wait | Cancel | Ask
FromWorker = Plain | Arena | GaveBack | Unmapped | Progress | OnGpus | Marked | Request

# -- zygote -----------------------------------------------------------------------------------

FORK: Final = "fork"
if TYPE_CHECKING:

    class Facts(TypedDict, total=False):
        """What a worker process is told as it starts. Engine, workers and node each add a part."""

        path: list[str]
        """To import from, and the folder to begin in, as the program or the node has them."""
        cwd: str
        address: str
        """Of its group, and of all groups."""
        addresses: list[str]
        n_cpu: float
        object_memory: int
        """Bytes that large values take until further ones go to disk, and where to."""
        spill_directory: str
        place: int
        """Where in the ledger it counts."""
        threads: int
        """How many workers share its process, each as a thread; 0: none does."""
        gpus: Sequence[str]
        """That calls here see, by name; none: none does."""
        zygote: int
        """The process that is to be its parent."""
        cloudpickle: bool
        """Whether the program has loaded it."""


Fork = tuple[Literal["fork"], int, "Facts"]
"""A worker, and what it is told."""

DESCRIPTORS: Final = 5
"""That come with FORK: data and control socket, log, outbox, ledger."""

SIGNAL: Final = "signal"
Signal = tuple[Literal["signal"], int, int]
"""A worker, and the number of a signal."""

STARTED: Final = "started"
Started = tuple[Literal["started"], int, int, bool]
"""A worker, its process, and whether a descriptor of the process comes with it."""

ENDED: Final = "ended"
Ended = tuple[Literal["ended"], int, int, int | None, int, str]
"""A worker, its process, its wait status, the most memory that it took in KiB, and a note."""

PAGES: Final = "pages"
Pages = tuple[Literal["pages"], Literal[0]]
"""With a descriptor, for `LargePages`; about no worker."""

ToZygote = Fork | Signal | Stop
FromZygote = Started | Ended | Pages

# -- finished calls ---------------------------------------------------------------------------

Measured = tuple[float, float, float, float, int, int, int, int, int, int]
"""Seconds of processor time of the process while the function ran (-1: it was too short to be worth
the look), bytes of arguments and inputs that were read and of the result that was written, seconds
of the longest item of a block (0: not looked at); then what the message of the call said: serial,
run, label, how many calls it counts for, and tries before it; then a checksum of its arguments (0:
it has inputs, or was short). The engine's table of attempts keeps records as they are, so that the
engine has nothing to note of each call."""

UNMEASURED: Final[Measured] = (-1.0, 0, 0, 0.0, 0, 0, 0, 1, 0, 0)

FLAG_STORED: Final = 1  # the result has parts in an arena
FLAG_PACKED: Final = 4  # the payload is a pickle of values, not one value
FLAG_FAILURES: Final = 2  # a block in which items raised
FLAG_STDERR: Final = 8  # Python code of the call wrote to stderr

OUTBOX: Final = struct.Struct("<QQQQ")
"""Head of the shared memory of a worker: bytes of finished records behind it, the attempt that
runs (0: none), where its log starts, and the attempt that is to be interrupted."""
OUTBOX_FILLED: Final = struct.Struct("<Q")
OUTBOX_RUNNING: Final = struct.Struct("<QQ")
OUTBOX_RUNNING_AT: Final = 8
OUTBOX_INTERRUPT: Final = struct.Struct("<Q")
OUTBOX_INTERRUPT_AT: Final = 24


_SHAPES: Final[dict[str, tuple[type, ...]]] = {
    READY: (),
    LEAVING: (),
    REPORTED: (),
    ARENA: (int, int),
    GAVE_BACK: (list,),
    UNMAPPED: (int, int),
    SUBMIT: (int, tuple, list),
    WAIT: (int, int),
    WAITED: (int, int),
    CANCEL: (int,),
    ASK: (int, str, object),
    PROGRESS: (int, float),
    MARKS: (int, list),
    ON_GPUS: (int, int, float),
}


def from_worker(content: memoryview) -> FromWorker:
    """A message of a worker, of a kind and with items as it may send.

    Raises
    ------
    BadFrame
        It is none.
    BaseException
        Unpickling can raise anything.
    """
    message = pickle.loads(content)
    if not isinstance(message, tuple) or not message or not isinstance(message[0], str):
        raise BadFrame("it is no message")
    shape = _SHAPES.get(message[0])
    if (
        shape is None
        or len(shape) != len(message) - 1
        or not all(map(isinstance, message[1:], shape))
    ):
        raise BadFrame(f"no worker sends a message {message[0]!r:.40} like this")
    return cast(FromWorker, message)
