"""The records of one call: what it is, how far it has come, and what stands for its values.

`Call` is what a program described; `spawn` makes it. `Task` is that call on its way through one
engine, and belongs to the scheduler of the engine. `Output` is one value of a call; users hold it
as `mars.remote.Object`. `Call` and `Task` stand in one module because each of them holds the
other. Sessions, engines and workers use all of these. Everything here is pure: no I/O, threads or
clocks.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
import weakref
from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NewType, Protocol

from mars.settings import FUNCTION_BYTES, INLINE_BYTES

if TYPE_CHECKING:
    from mars.calls.options import Options

    class Buffer(Protocol):
        """Bytes that somebody holds, as `memoryview` takes them: an array, a view, a file."""

        def __buffer__(self, flags: int, /) -> memoryview: ...


RunId = NewType("RunId", int)
WorkerId = NewType("WorkerId", int)
AttemptId = NewType("AttemptId", int)

TIMING: Final = struct.Struct("<5q")
"""The format of `Task.timing`: the moments at which a worker received the call, had its inputs,
called the function, got its result and had stored that. They are nanoseconds of the monotonic clock
of the program."""

RECORD: Final = struct.Struct("<QBBQQ5qIffffQIIIHII")
"""A finished call, as its worker tells of it: attempt, status, flags, its log's start and end
(bytes in the worker's log), the five times of `TIMING`, the most memory that the process took (KiB;
0: not looked at), what `mars.engines.wire.messages.Measured` has, and the size of what follows."""

RECORD_HEAD: Final = struct.Struct("<QBBQQq24xqI42xI")
"""Of a record what the engine needs at once: attempt, status, flags, log, received, stored, memory,
and the size of what follows."""

TIMES: Final = slice(26, 66)
"""The five times inside a record."""

Stored = tuple[bytes | None, int, int, int, tuple[int, ...]]
"""A value with parts in an arena: its pickle, and its region, which is an arena, an offset, a
length and the bytes of each part. If the pickle is None, then the first part is the pickle."""

Value = bytes | Stored
"""A value as workers make it and engines keep it: a pickle, or a stored value."""

Buffers = tuple["Buffer", ...]
"""The large buffers of a pickled value. They are kept beside the pickle, never copied into it."""

Place = int | tuple[int, ...]
"""The place of a call among the calls of its session, for `mars.remote.rng`."""

Ended = tuple[str, int, str]
"""An attempt that has ended: the name of its node, the process id of its worker, and how it ended.
`mars.observe.attempts.Attempt` explains these."""


class Function:
    """A function as it travels: it is pickled once and known by its content.

    Attributes
    ----------
    key : bytes
        Digest of the pickle. Equal functions have equal keys.
    name : str
        Name of the function in logs and errors.
    data, buffers : bytes, tuple
        The pickle, and the large buffers beside it. If ``data`` is empty, the first buffer is the
        pickle.
    large : bool
        Whether the function, or a part of it, does not travel in a message.
    packages : callable
        Returns the packages that the function certainly needs; see `mars.code.needs`.
    origin : weakref or None
        The function itself, if it refers to modules of the project: what these hold goes along
        with its results, too. None: it does not.
    """

    __slots__ = ("__weakref__", "buffers", "data", "key", "large", "name", "origin", "packages")

    def __init__(self, key: bytes, name: str, data: bytes, buffers: Buffers = ()) -> None:
        self.key, self.name, self.data, self.buffers = key, name, data, buffers
        self.large = bool(buffers) or len(data) > FUNCTION_BYTES
        self.packages: Callable[[], frozenset[str]] = frozenset
        self.origin: weakref.ref[object] | None = None


_serial = itertools.count(1)
_KEY_PREFIX: Final = os.urandom(8).hex()


def key_of(serial: int) -> str:
    """The key of the call with a number; see `Call.key`."""
    return f"{_KEY_PREFIX}{serial:016x}"


def serial_of(key: str) -> int:
    """The number of the call with a key of this program."""
    return int(key[len(_KEY_PREFIX) :], 16)


class Call:
    """One call that a program described.

    What it describes never changes. Its state does: `task`, `place`, `handles`, `satisfied` and
    `identity`.

    Attributes
    ----------
    function : Function
        The function to call.
    payload : bytes
        Pickle of ``(args, kwargs)``, in which every input is a numbered place.
    stored : tuple or None
        The parts of the arguments that are too large for a message: the buffers, and the payload
        if that is large itself.
    inputs : tuple of (Call, int)
        The value for each of these places: a call, and which of its outputs.
    n_output : int or None
        None: the result is one value. A number k: the result is a sequence of k values.
    task : Task or None
        The task that was made last. Its `Task.elsewhere` leads to the tasks of other sessions.
    place : int, tuple of int or None
        The place of the call among the calls of a session. The call gets it when it is first
        executed.
    handles : int
        How many may still ask for a result: the outputs that the program holds, and the calls that
        have this one as an input and are not done yet. Any thread may change it, with ``+=`` only,
        because CPython does not interrupt that.
    serial : int
        The number of the call in this process. `key` is made of it.
    satisfied : bool
        Whether the call no longer needs its inputs, because it is done or nobody can ask for it.
    identity : tuple
        The checkpoint that asked for the identity of the call, and the identity. The attribute is
        missing until a checkpoint asks.
    """

    __slots__ = (
        "function", "handles", "identity", "inputs", "n_output", "options", "payload",
        "place", "satisfied", "serial", "speaks_for", "stored",
        "task",
    )  # fmt: skip

    def __init__(
        self,
        function: Function,
        payload: bytes,
        buffers: Buffers,
        inputs: tuple[tuple[Call, int], ...],
        options: Options,
        n_output: int | None,
    ) -> None:
        self.function = function
        self.payload = payload
        self.stored: Buffers | None = buffers or None
        if len(payload) > INLINE_BYTES:
            self.stored = (payload, *buffers)
        self.inputs = inputs
        self.options = options
        self.n_output = n_output
        self.task: Task | None = None
        self.identity: tuple[object, object]
        self.handles = 0
        self.satisfied = False
        # The logs of these calls come before the log of this one. They are held as outputs, so
        # that the logs can be read after the call has taken the values.
        self.speaks_for: tuple[Output, ...] = ()
        self.place: Place | None = None
        self.serial = next(_serial)
        for source, _ in inputs:
            source.handles += 1

    @property
    def name(self) -> str:
        return self.options.name or self.function.name

    @property
    def key(self) -> str:
        """32 hexadecimal digits that no other call has."""
        return key_of(self.serial)

    whole: Call | None = None
    """The map that this call is an item of; None if it is not an item."""

    spread = False
    """For a map: whether each item is a tuple of arguments."""

    adoptable = False
    """Whether the result may be there although the call did not run by itself; see `adopt`."""

    may_hold_errors = False
    """Whether single outputs can have failed although the task of the call is done."""

    def own_place(self, place: int) -> Place:
        """The place of the call for `mars.remote.rng`, made from the next free number."""
        return place

    def state_of_item(self, realm: Realm, item: Call) -> Any:
        """Of a map: the state of an item that no block which has ended has."""
        raise NotImplementedError

    def adopt(self, realm: Realm) -> Task | None:
        """A task for a result that is there without a run of this call; for items of a map."""
        return None

    def dropped(self, item: Call) -> None:
        """Of a map: nobody asks for an item any more that was a call of its own."""

    def begin(self, task: Task) -> None:
        """Prepare ``task`` before it goes to its engine; for maps."""

    def satisfy(self) -> None:
        """Let go of the inputs: the call no longer needs them."""
        if not self.satisfied:
            self.satisfied = True
            for source, _ in self.inputs:
                source.handles -= 1
                if not source.handles:
                    source.handles = 1
                    source.drop()

    def drop(self) -> None:
        """Count one handle less. The last one frees the result, and inputs that only it needs."""
        pending = [self]
        while pending:
            call = pending.pop()
            call.handles -= 1
            if call.handles:
                continue
            task = call.task
            while task is not None:
                elsewhere = task.elsewhere
                task.realm.forget(task)
                task = elsewhere
            if not call.satisfied:
                call.satisfied = True
                pending.extend(source for source, _ in call.inputs)
            if call.whole is not None:
                call.whole.dropped(call)
                pending.append(call.whole)

    def attach(self, task: Task) -> None:
        """Make ``task`` the latest task of the call."""
        task.elsewhere = self.task
        self.task = task

    def leave(self, task: Task) -> None:
        """Let go of a task whose result nobody can ask for, so that both can be freed."""
        if self.task is task:
            self.task = task.elsewhere

    def put_out(self, task: Task) -> None:
        """Let go of a task that another task replaces."""
        if self.task is task:
            self.task = task.elsewhere
            return
        before = self.task
        while before is not None and before.elsewhere is not task:
            before = before.elsewhere
        if before is not None:
            before.elsewhere = task.elsewhere

    def task_in(self, realm: object) -> Task | None:
        """The task of the call in ``realm``; None if the call was never executed there."""
        task = self.task
        while task is not None and task.realm is not realm:
            task = task.elsewhere
        return task


class Handle:
    """What a program holds to execute and to fetch: one value, several values, or a map.

    A session asks a handle which calls it stands for. The handle puts together what the session
    knows about these calls.
    """

    __slots__ = ()

    def calls_in(self, realm: Realm) -> Sequence[Call]:
        """The calls that have to be done in ``realm``; some of them may be done already."""
        raise NotImplementedError

    def leaves(self) -> Sequence[Handle]:
        """The single objects that it consists of; itself, if it is one."""
        raise NotImplementedError

    def describe_beside(self, handles: Sequence[Handle], session: Any) -> None:
        """Describe calls that are not described yet.

        ``session`` asks this before it executes ``handles`` together. Most handles have nothing to
        do here: their calls are described when they are made.
        """

    def calls_logged(self, realm: Realm) -> Sequence[Call]:
        """The calls whose logs are its log, whether they are done or not."""
        return self.calls_in(realm)

    def value_in(self, session: Any) -> object:
        """The value, as `fetch` returns it."""
        raise NotImplementedError

    def error_in(self, session: Any) -> object:
        """The error, or a list of those of its parts. None: it has a value, or was not run."""
        raise NotImplementedError

    def state_in(self, realm: Any) -> object:
        """The state in words, or a list of those of its parts.

        Parameters
        ----------
        realm : object
            The session's realm. None: that of its last run.
        """
        raise NotImplementedError


class Output(Handle):
    """One value of a call. It is opaque: equal only to itself, true, and not a sequence.

    Attributes
    ----------
    call : Call
        The call.
    index : int
        Which of its values.
    """

    __slots__ = ("__weakref__", "call", "index")

    def __init__(self, call: Call, index: int) -> None:
        self.call = call
        self.index = index
        call.handles += 1

    def __del__(self, is_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of a program the names of modules may be gone. By then the engines are closed.
        if not is_the_end():
            self.call.drop()

    def calls_in(self, realm: Realm) -> Sequence[Call]:
        return (self.call,)

    def calls_logged(self, realm: Realm) -> Sequence[Call]:
        return (self.call,)

    def value_in(self, session: Any) -> Any:
        return session.value(self)

    def error_in(self, session: Any) -> Any:
        return session.error(self)


class Stage(IntEnum):
    """Where a task is. `ARROWS` in the scheduler lists every legal step."""

    WAITING = 0
    READY = 1
    ASSIGNED = 2
    RETRYING = 3
    MADE = 4  # only the node that made the value has it, and that node may be lost
    DONE = 5
    FAILED = 6
    CANCELLED = 7
    ABANDONED = 8


class Realm(Protocol):
    """What a task belongs to: one session. The result can be asked for there."""

    def forget(self, task: Task) -> None:
        """The program no longer holds an output of the task; any thread may say so at any time."""


class Task:
    """One call that is to be made in one session, as the scheduler records it.

    The attributes above the line in `__init__` belong to the scheduler. Those below the line belong
    to the engine; the scheduler only carries them.
    """

    __slots__ = (
        "__weakref__",
        "asked", "attempt", "blame", "blocks", "call", "consumers", "deaths", "dependents", "depth",
        "early", "elsewhere", "ended", "failed_input", "home", "items", "last_near", "logs", "near",
        "parts", "place", "queued_at", "ready_at", "realm", "released", "result", "runs", "sent_at",
        "size", "source", "sources", "stage", "stored", "timing", "tries", "waiting", "where",
        "worker",
    )  # fmt: skip

    reused = False
    """Whether the result is one of an earlier run, which a checkpoint had."""

    broken = False
    """Of an item of a map, shown as a task: whether it failed."""

    def __init__(self, call: Call, realm: Realm) -> None:
        self.call = call
        self.realm = realm
        self.stage = Stage.WAITING
        self.runs: tuple[Any, ...] = ()  # of `mars.engine.Run`
        self.waiting = 0  # inputs that are not done yet
        self.sources: Collection[Task] = ()  # inputs, each once, while it may still read them
        self.dependents: list[Task] | None = None
        self.consumers = 0  # dependents that may still read the result
        self.worker: Any = None  # set exactly while ASSIGNED
        self.attempt = 0  # id of the current or last attempt; 0 before the first
        self.tries = 0  # attempts that ended in an exception or a timeout
        self.deaths = 0  # attempts that ended with their worker
        self.ended: tuple[Ended, ...] = ()  # attempts that ended otherwise than with a value
        self.where: tuple[str, int] | None = None  # node and process of the one with a value
        self.depth = 0  # how deep nested calls are below the driver's
        # The worker that `near` counts for. Once no input is missing: the worker that made most of
        # them. Once the task was given out: the worker that got it.
        self.home: Any = None
        self.near = 0  # waiting inputs that are queued in `home`
        self.last_near = 0  # the attempt of the one that was queued last
        self.early = False  # MADE, and its dependents may run where the value is
        self.size = 1  # how many calls it counts for in progress
        # Map: items not given out yet; block: its items. None: it is neither, and is not asked for
        # them. The same holds for `parts`, the blocks of a map that are done.
        self.items: Sequence[int] = None  # type: ignore[assignment]
        self.source: Task | None = None  # block: the map that it is a part of
        self.blocks = 0  # map: blocks that are on their way
        self.parts: list[Task] = None  # type: ignore[assignment]
        # ---------------------------------------------------------------------------------
        self.elsewhere: Task | None = None  # the same call in another session
        self.asked = False  # the program executed it, not only something that needs it
        self.result: Any = None  # value or values, or the failure
        self.failed_input: Task | None = None  # set when FAILED because of an input
        self.stored = False  # the result has parts in an arena
        self.released = False  # the result was given back: only a new attempt can tell it
        self.place: Place = 0  # for mars.remote.rng
        self.queued_at = 0.0  # these three in seconds of the monotonic clock
        self.ready_at = 0.0
        self.sent_at = 0.0
        # These three, and `ended`, stand beside the table of attempts, which is bounded and packed:
        # docs/decisions/table-of-attempts.md.
        self.timing: bytes | None = None
        self.logs: tuple[Any, ...] = ()
        self.blame = ""

    @property
    def finished(self) -> bool:
        return self.stage >= Stage.DONE

    @property
    def available(self) -> bool:
        return self.stage is Stage.DONE and not self.released

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled and nobody wants it. This is true while it is being stopped."""
        if self.stage >= Stage.DONE:
            if self.stage is Stage.ABANDONED and self.source is not None:
                return self.source.cancelled  # a block: its items are those of the map again
            return self.stage is Stage.CANCELLED
        stopped = False
        for run in self.runs if self.source is None else self.source.runs:
            if run.live:
                return False
            stopped |= run.cancelled
        return stopped

    def attempts(self) -> tuple[Ended, ...]:
        """The attempts that have ended, first to last. One that is being stopped counts."""
        if self.stage is Stage.DONE and self.where is not None and self.parts is None:
            return (*self.ended, (*self.where, "value"))
        worker = self.worker
        if worker is not None and worker.stopping == self.attempt and self.cancelled:
            return (*self.ended, (*worker.where, "stopped"))
        return self.ended


__all__ = [
    "AttemptId", "Buffers", "Call", "Ended", "Function", "Handle", "Output", "Place", "Realm",
    "RunId", "RECORD", "RECORD_HEAD", "Stage", "Stored", "TIMES", "Task", "TIMING", "Value",
    "WorkerId",
]  # fmt: skip
