"""What one call is: its function, arguments, options, and how far it has come.

`Call` is what a program described (`spawn` makes it, it never changes). `Task` is that call on
its way through one engine, and belongs to the engine's scheduler. `Output` is one value of a
call: users hold it as `mars.remote.Object`. Pure facts: no I/O, threads or clocks.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
import weakref
from collections.abc import Callable, Sequence
from enum import IntEnum
from numbers import Integral, Real
from typing import Any, Final, NewType, Protocol

from mars.config import plain_scalar
from mars.errors import TaskTimeout, UsageError
from mars.settings import DEATH_RETRIES, FUNCTION_BYTES, INLINE_BYTES, RETRY_WHEN_FAIL

RunId = NewType("RunId", int)
WorkerId = NewType("WorkerId", int)
AttemptId = NewType("AttemptId", int)

TIMING: Final = struct.Struct("<5q")
"""`Task.timing`: when a worker received a call, had its inputs, called, returned and stored the
result, in nanoseconds of the program's monotonic clock."""

Buffers = tuple[object, ...]
"""Large buffers of a pickled value, kept beside the pickle and never copied into it."""


Ended = tuple[str, int, str]
"""An attempt that has ended: name of its node, process id of its worker, and how it ended. See
`mars.observe.attempts.Attempt`."""


class Options:
    """How a call is to be run. Immutable; one instance serves all calls that ask the same.

    Attributes
    ----------
    name : str or None
        Shown in logs, errors and progress instead of the function's name.
    cpus : float
        Cores that the call owns while it runs.
    memory : int or None
        Bytes that the call may use.
    gpus : int
        GPUs that the call owns.
    timeout_s : float or None
        Limit for one attempt, in seconds of wall clock, from when it is sent to a free worker.
    retries : int
        Further attempts after an exception that `retry_on` names.
    retry_on : tuple of exception classes
        Which exceptions are worth another attempt.
    death_retries : int
        Further attempts after the worker process died under the call.
    priority : int
        Calls with a higher number start first.
    worker : str or None
        Address of the worker group that must run the call.
    cache : bool
        Whether a checkpoint may keep the call.
    depends : object
        What else the result depends on: part of the call's identity in a checkpoint.
    """

    __slots__ = (
        "cache", "cpus", "death_retries", "depends", "gpus", "memory", "name", "priority",
        "retries", "retry_data", "retry_late", "retry_on", "timeout_s", "worker",
    )  # fmt: skip

    def __init__(
        self,
        name: str | None = None,
        cpus: float = 1,
        memory: int | None = None,
        gpus: int = 0,
        timeout_s: float | None = None,
        retries: int = 0,
        retry_on: tuple[type[BaseException], ...] = (Exception,),
        death_retries: int = DEATH_RETRIES,
        priority: int = 0,
        worker: str | None = None,
    ) -> None:
        self.name = name
        self.cpus = cpus
        self.memory = memory
        self.gpus = gpus
        self.timeout_s = timeout_s
        self.retries = retries
        self.retry_on = retry_on
        self.death_retries = death_retries
        self.priority = priority
        self.worker = worker
        self.retry_data: bytes | None = None  # `retry_on` as it travels; None: Exception
        self.retry_late = True  # whether `retry_on` names timeouts, too
        self.cache = True
        self.depends: object = None

    def __reduce__(self) -> Any:
        # Without the exception classes: they may be the program's own, and travel pickled. Nor
        # with what is the driver's business.
        staying = ("retry_on", "cache", "depends")
        travelling = [name for name in self.__slots__ if name not in staying]
        return _options_from, ({name: getattr(self, name) for name in travelling},)


def _options_from(fields: dict[str, Any]) -> Options:
    options = Options()
    for name, value in fields.items():
        setattr(options, name, value)
    return options


DEFAULT_OPTIONS: Final = Options()

HINTS: Final = frozenset(
    {"expect_band", "reassign_worker", "fuseable", "memory_scale", "output_types"}
)
"""Scheduling hints of the original that mean nothing here: accepted, without effect."""


def parse_options(given: dict[str, Any], *, retry_when_fail: bool = False) -> Options:
    """Check what `spawn` was given beyond the function and its arguments.

    Raises
    ------
    ValueError
        An option that does not exist (``Unexpected kw: <name>``), or a value out of range.
    TypeError
        A value of the wrong type; the message names the option.
    """
    if not given and not retry_when_fail:
        return DEFAULT_OPTIONS
    options = Options()
    for option, value in given.items():
        check = _CHECKS.get(option)
        if check is not None:
            check(options, value if option == "depends" else plain_scalar(value))
        elif option not in HINTS:
            raise ValueError(f"Unexpected kw: {option}")
    band = given.get("expect_band")
    if band is not None:
        if not isinstance(band, (tuple, list)) or not band or not isinstance(band[0], str):
            raise TypeError(f"expect_band has to be (worker's address, device), got {band!r}")
        options.worker = options.worker or band[0]
    _check_output_types(given.get("output_types"))
    once = not given.get("idempotent", True)
    if once and options.retries:
        raise ValueError(
            "idempotent=False means that the call is started at most once, "
            f"so retries={options.retries} cannot be kept; drop one of the two"
        )
    if once and given.get("death_retries"):
        raise ValueError(
            "idempotent=False means that the call is started at most once, "
            f"so death_retries={given['death_retries']} cannot be kept; drop one of the two"
        )
    if retry_when_fail and given.get("retries") is None and not once:
        options.retries = RETRY_WHEN_FAIL
    return options


_OUTPUT_TYPES: Final = frozenset({"object", "dataframe", "series", "df_or_series", "tensor"})


def _check_output_types(given: object) -> None:
    for one in given if isinstance(given, (list, tuple)) else (given,):
        if one is not None and not (isinstance(one, str) and one in _OUTPUT_TYPES):
            raise ValueError(f"output_types has to be of {sorted(_OUTPUT_TYPES)}, got {one!r}")


def _take_name(options: Options, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"name has to be a str, got {value!r}")
    options.name = value


def _take_cpus(options: Options, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"cpus has to be a number, got {value!r}")
    cpus = float(value)
    if not 0 < cpus < float("inf"):
        raise ValueError(f"cpus has to be more than 0, got {value!r}")
    if cpus > 1 and cpus != int(cpus):
        raise ValueError(f"cpus above 1 have to be whole cores, got {value!r}")
    options.cpus = int(cpus) if cpus == int(cpus) else cpus


_UNITS: Final = {
    "": 1, "b": 1, "k": 2**10, "kb": 10**3, "kib": 2**10, "m": 2**20, "mb": 10**6, "mib": 2**20,
    "g": 2**30, "gb": 10**9, "gib": 2**30, "t": 2**40, "tb": 10**12, "tib": 2**40,
}  # fmt: skip


def parse_bytes(value: object, option: str) -> int:
    """Bytes from a number or a text such as ``"2GiB"``, ``"500MB"``, ``"1.5g"``."""
    value = plain_scalar(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{option} has to be bytes or a text such as '2GiB', got {value!r}")
    if isinstance(value, str):
        text = value.strip().lower()
        number = text.rstrip("bkmgti ")
        unit = text[len(number) :].strip()
        try:
            size = float(number) * _UNITS[unit]
        except (ValueError, KeyError):
            raise ValueError(f"{option}={value!r} is no size; write it as '2GiB'") from None
    else:
        size = float(value)
    if not 0 < size < float("inf"):
        raise ValueError(f"{option} has to be more than 0 bytes, got {value!r}")
    return int(size)


def _take_memory(options: Options, value: object) -> None:
    options.memory = None if value is None else parse_bytes(value, "memory")


def _take_gpus(options: Options, value: object) -> None:
    options.gpus = _count(value, "gpus")


def _take_gpu(options: Options, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"gpu has to be True or False, got {value!r}")
    options.gpus = max(options.gpus, int(bool(value)))


def _take_timeout(options: Options, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"timeout has to be seconds, got {value!r}")
    if not 0 < float(value) < float("inf"):
        raise ValueError(f"timeout has to be more than 0 seconds, got {value!r}")
    options.timeout_s = float(value)


def _take_retries(options: Options, value: object) -> None:
    if value is None:
        return
    options.retries = _count(value, "retries")


def _count(value: object, option: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{option} has to be an int, got {value!r}")
    if value < 0:
        raise ValueError(f"{option} has to be 0 or more, got {value!r}")
    return int(value)


def _take_death_retries(options: Options, value: object) -> None:
    if value is not None:
        options.death_retries = _count(value, "death_retries")


def _take_retry_on(options: Options, value: object) -> None:
    if value is None:
        return
    classes = value if isinstance(value, tuple) else (value,)
    for item in classes:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise TypeError(f"retry_on has to be an exception class or a tuple of them: {item!r}")
    options.retry_on = classes
    options.retry_late = issubclass(TaskTimeout, classes)


def _take_idempotent(options: Options, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"idempotent has to be True or False, got {value!r}")
    if not value:
        options.death_retries = 0


def _take_priority(options: Options, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"priority has to be an int, got {value!r}")
    options.priority = int(value)


def _take_cache(options: Options, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"cache has to be True or False, got {value!r}")
    options.cache = value


def _take_depends(options: Options, value: object) -> None:
    options.depends = value


def _take_worker(options: Options, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"expect_worker has to be a worker's address, got {value!r}")
    options.worker = value


_CHECKS: Final = {
    "name": _take_name,
    "cpus": _take_cpus,
    "memory": _take_memory,
    "gpus": _take_gpus,
    "gpu": _take_gpu,
    "timeout": _take_timeout,
    "retries": _take_retries,
    "retry_on": _take_retry_on,
    "death_retries": _take_death_retries,
    "idempotent": _take_idempotent,
    "priority": _take_priority,
    "expect_worker": _take_worker,
    "cache": _take_cache,
    "depends": _take_depends,
}


class Function:
    """A function as it travels: pickled once, known by its content.

    Attributes
    ----------
    key : bytes
        Digest of the pickle: equal functions have equal keys.
    name : str
        For logs and errors.
    data, buffers : bytes, tuple
        The pickle, and large buffers beside it. No pickle: it is the first of the buffers.
    large : bool
        It does not travel in a message, or not all of it.
    packages : callable
        Gives the packages that it certainly needs; see `mars.code.needs`.
    origin : weakref or None
        The function itself, if it refers to modules of the project: what these hold goes along
        with its results, too. None: it does not.
    """

    __slots__ = ("__weakref__", "buffers", "data", "key", "large", "name", "origin", "packages")

    def __init__(self, key: bytes, name: str, data: bytes, buffers: Buffers = ()) -> None:
        self.key, self.name, self.data, self.buffers = key, name, data, buffers
        self.large = bool(buffers) or len(data) > FUNCTION_BYTES
        self.packages: Callable[[], frozenset[str]] = frozenset
        self.origin: weakref.ref[Any] | None = None


_serial = itertools.count(1)
_KEY_PREFIX: Final = os.urandom(8).hex()


def key_of(serial: int) -> str:
    """The key of the call with a number; see `Call.key`."""
    return f"{_KEY_PREFIX}{serial:016x}"


class Call:
    """One call that a program described. Nothing in it changes but `task` and `handles`.

    Attributes
    ----------
    function : Function
        What to call.
    payload : bytes
        Pickle of ``(args, kwargs)`` in which every input is a numbered place.
    stored : tuple or None
        What of the arguments is too large for a message: buffers, and the payload itself.
    inputs : tuple of (Call, int)
        The values for these places: which output of which call.
    n_output : int or None
        None: one value. k: the result is a sequence of k values.
    task : Task or None
        How far the call has come; further sessions' tasks hang on it.
    place : int, tuple of int or None
        Its place among the calls of a session, given when it is first executed.
    handles : int
        How many may still ask for a result: outputs that the program holds, and calls not done
        yet that have it as an input. Changed in any thread, by ``+=`` alone, which CPython does
        not interrupt.
    serial : int
        Its number in this process; `key` is made of it.
    satisfied : bool
        The call needs its inputs no more: it is done, or nobody can ask for it.
    identity : tuple
        Whose checkpoint asked what the call is, and the answer. Not there before that.
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
        self.identity: tuple[object, Any]
        self.handles = 0
        self.satisfied = False
        # Calls whose logs come before its own. Held as outputs, so that there is something to read
        # after it has taken their values.
        self.speaks_for: tuple[Output, ...] = ()
        self.place: Any = None
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
    """The map that it is an item of."""

    spread = False
    """Of a map: whether each item is a tuple of arguments."""

    adoptable = False
    """Whether its result may have come about in another way; see `adopt`."""

    may_hold_errors = False
    """Whether single outputs can have failed although the call as a whole is done."""

    def own_place(self, place: int) -> int | tuple[int, ...]:
        """Its place for `mars.remote.rng`, given the next free one of the session."""
        return place

    def adopt(self, realm: Realm) -> Task | None:
        """A result that came about in another way; for items of a map."""
        return None

    def begin(self, task: Task) -> None:
        """A chance to prepare ``task`` before it goes to its engine; for maps."""

    def satisfy(self) -> None:
        """The call needs its inputs no more."""
        if not self.satisfied:
            self.satisfied = True
            for source, _ in self.inputs:
                source.handles -= 1
                if not source.handles:
                    source.handles = 1
                    source.drop()

    def drop(self) -> None:
        """One less may ask for a result; the last one frees it, and inputs that only it needs."""
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
                pending.append(call.whole)

    def leave(self, task: Task) -> None:
        """Part from a task whose result nobody can ask for, so that both can be freed."""
        if self.task is task:
            self.task = task.elsewhere

    def put_out(self, task: Task) -> None:
        """Part from a task whose place another one takes."""
        if self.task is task:
            self.task = task.elsewhere
            return
        before = self.task
        while before is not None and before.elsewhere is not task:
            before = before.elsewhere
        if before is not None:
            before.elsewhere = task.elsewhere

    def task_in(self, realm: object) -> Task | None:
        """The call's task in ``realm``, or None when it never came there."""
        task = self.task
        while task is not None and task.realm is not realm:
            task = task.elsewhere
        return task


class Handle:
    """What a program holds to execute and to fetch: one value, several together, or a map.

    Sessions ask it which calls it stands for, and have it put together what they know of these.
    """

    __slots__ = ()

    def _calls_in(self, realm: object) -> Sequence[Call]:
        """The calls to run so that it is there; those that have run may be among them."""
        raise NotImplementedError

    def _value_in(self, session: Any) -> Any:
        """Its value, as `fetch` gives it."""
        raise NotImplementedError

    def _error_in(self, session: Any) -> Any:
        """Its error, or those of its parts; None for what has a value or was not run."""
        raise NotImplementedError


class Output(Handle):
    """One value of a call. Opaque: equal only to itself, true, not a sequence."""

    __slots__ = ("__weakref__", "_call", "_index")

    def __init__(self, call: Call, index: int) -> None:
        self._call = call
        self._index = index
        call.handles += 1

    def __del__(self, is_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of a program the names of modules may be gone, and engines have been closed.
        if not is_the_end():
            self._call.drop()

    def _calls_in(self, realm: object) -> Sequence[Call]:
        return (self._call,)

    def _value_in(self, session: Any) -> Any:
        return session.value(self)

    def _error_in(self, session: Any) -> Any:
        return session.error(self)


class Stage(IntEnum):
    """Where a task is. `ARROWS` in the scheduler has every legal step."""

    WAITING = 0
    READY = 1
    ASSIGNED = 2
    RETRYING = 3
    MADE = 4  # there is a value, but on the node that made it alone, which may be lost
    DONE = 5
    FAILED = 6
    CANCELLED = 7
    ABANDONED = 8


class Realm(Protocol):
    """Where a task's result can be asked for: one session."""

    def forget(self, task: Task) -> None:
        """The program holds no output of the task any more; called in any thread, at any time."""


class Task:
    """One call to make in one session: the scheduler's record of it.

    The fields above the line belong to the scheduler; those below it are the engine's, and the
    scheduler only carries them.
    """

    __slots__ = (
        "__weakref__",
        "asked", "attempt", "blame", "blocks", "call", "consumers", "deaths", "dependents", "depth",
        "early", "elsewhere", "ended", "failed_input", "home", "items", "last_near", "logs", "near",
        "parts", "place", "queued_at", "ready_at", "realm", "released", "result", "runs", "sent_at",
        "size", "source", "sources", "stage", "stored", "timing", "tries", "waiting", "where",
        "worker",
    )  # fmt: skip

    def __init__(self, call: Call, realm: Realm) -> None:
        self.call = call
        self.realm = realm
        self.stage = Stage.WAITING
        self.runs: tuple[Any, ...] = ()
        self.waiting = 0  # inputs that are not done yet
        self.sources: Any = ()  # inputs, each once, while it may still read them
        self.dependents: list[Task] | None = None
        self.consumers = 0  # dependents that may still read the result
        self.worker: Any = None  # set exactly while ASSIGNED
        self.attempt = 0  # id of the current or last attempt; 0 before the first
        self.tries = 0  # attempts that ended in an exception or a timeout
        self.deaths = 0  # attempts that ended with their worker
        self.ended: tuple[Ended, ...] = ()  # attempts that ended otherwise than with a value
        self.where: tuple[str, int] | None = None  # node and process of the one with a value
        self.depth = 0  # how deep nested calls are below the driver's
        # The worker that `near` counts for; once no input is missing, the one that made most of
        # them; once it was given out, the one that got it.
        self.home: Any = None
        self.near = 0  # waiting inputs that are queued in `home`
        self.last_near = 0  # the attempt of the one that was queued last
        self.early = False  # MADE, and its dependents may run where the value is
        self.size = 1  # how many calls it counts for in progress
        self.items: Any = None  # of a map: items not given out yet; of a block: its items
        self.source: Task | None = None  # of a block: the map that it is a part of
        self.blocks = 0  # of a map: blocks that are on their way
        self.parts: Any = None  # of a map: blocks that are done
        # ---------------------------------------------------------------------------------
        self.elsewhere: Task | None = None  # the same call in another session
        self.asked = False  # the program executed it, not only something that needs it
        self.result: Any = None  # value or values, or the failure
        self.failed_input: Task | None = None  # set when FAILED because of an input
        self.stored = False  # the result has parts in an arena
        self.released = False  # the result was given back: only a new attempt can tell it
        self.place: tuple[int, ...] | int = 0  # for mars.remote.rng
        self.queued_at = 0.0  # these three in seconds of the monotonic clock
        self.ready_at = 0.0
        self.sent_at = 0.0
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
        """Whether somebody cancelled it and nobody wants it: at once, while it is being stopped."""
        if self.stage >= Stage.DONE:
            return self.stage is Stage.CANCELLED
        stopped = False
        for run in self.runs if self.source is None else self.source.runs:
            if run.live:
                return False
            stopped |= run.cancelled
        return stopped

    def attempts(self) -> tuple[Ended, ...]:
        """Its attempts that have ended, first to last; one that is being stopped counts."""
        if self.stage is Stage.DONE and self.where is not None and self.parts is None:
            return (*self.ended, (*self.where, "value"))
        worker = self.worker
        if worker is not None and worker.stopping == self.attempt and self.cancelled:
            return (*self.ended, (*worker.where, "stopped"))
        return self.ended


def check_function(func: object) -> None:
    """Refuse what cannot be called."""
    if not callable(func):
        raise TypeError(f"func has to be callable, got {type(func).__name__}: {func!r:.80}")


__all__ = [
    "DEFAULT_OPTIONS", "AttemptId", "Buffers", "Call", "Function", "Options", "Output", "RunId",
    "Stage", "Task", "UsageError", "WorkerId", "check_function", "parse_bytes", "parse_options",
]  # fmt: skip
