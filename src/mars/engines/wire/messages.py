"""All messages that cross between the driver, the zygote and the workers of one machine.

A message is a tuple whose first item says what it is. Finished calls are the exception: they come
as packed records, because a worker keeps them in shared memory until it reports them, and there
they outlive the worker.

::

    driver ──(TASKS, ARENA, FREE, REPLY, STOP)──────────────────► worker     data socket
    driver ◄──(records; ARENA, UNMAPPED, SUBMIT, WAIT, ASK, …)─── worker     data socket
    driver ──(TAKE_BACK, REPORT, COOL)──────────────────────────► worker     control socket
    driver ──(FORK, SIGNAL)──► zygote ──(STARTED, ENDED, PAGES)──► driver    zygote socket
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, Final

from mars.engines.wire.frames import BadFrame

# driver -> worker
TASKS: Final = "tasks"
CallMessage = tuple[
    int, int, int, Any, "list[Any] | None", "int | None", Any, "dict[str, Any] | None"
]
"""One call in TASKS: attempt, run, function (all three are numbers), arguments (bytes, or a pickle
and stored values), inputs, number of outputs (None: its value is the one output), place, and what
only some calls need to say."""

FREE: Final = "free"
REPLY: Final = "reply"
STOP: Final = "stop"
AS_BEFORE: Final = "as before"
"""In place of the surroundings of a run: those that the worker was told of last."""

TAKE_BACK: Final = "take back"
REPORT: Final = "report"
COOL: Final = "cool"
"""Nothing has been freed for a while: what is kept for the next values goes back to the system."""

# both ways
ARENA: Final = "arena"

# worker -> driver
READY: Final = "ready"
LEAVING: Final = "leaving"
REPORTED: Final = "reported"
GAVE_BACK: Final = "gave back"
UNMAPPED: Final = "unmapped"
SUBMIT: Final = "submit"
WAIT: Final = "wait"
WAITED: Final = "waited"
CANCEL: Final = "cancel"
ASK: Final = "ask"
PROGRESS: Final = "progress"

# zygote
FORK: Final = "fork"
DESCRIPTORS: Final = 5
"""That come with FORK: data and control socket, log, outbox, ledger."""

SIGNAL: Final = "signal"
STARTED: Final = "started"
"""With a descriptor of the process, if its last item is true."""

ENDED: Final = "ended"
PAGES: Final = "pages"
"""With a descriptor, for `LargePages`; about no worker."""

RECORD: Final = struct.Struct("<QBBQQqqqqqII")
"""A finished call: attempt, status, flags, its log's start and end (bytes in the worker's log),
five times in ns (received, inputs decoded, called, returned, stored), the most memory that the
process took (KiB; 0: not looked at), size of what follows."""

TIMES: Final = slice(26, 66)
"""The five times inside a record."""

FLAG_STORED: Final = 1  # the result has parts in an arena
FLAG_PACKED: Final = 4  # the payload is a pickle of values, not one value
FLAG_FAILURES: Final = 2  # a block in which items raised

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
}


def from_worker(content: memoryview) -> tuple[Any, ...]:
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
    return message
