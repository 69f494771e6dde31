"""How a call is to be run: the options of `spawn` and `map`, checked.

`mars.calls.spawn` calls `parse_options` with what the program gave. The engines and the
schedulers read the `Options` that it returns. Everything here is pure: no I/O, threads or clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Final

from mars.config import plain_scalar
from mars.errors import TaskTimeout
from mars.settings import DEATH_RETRIES, MOST_THREADS, RETRY_WHEN_FAIL

_Task = Any
"""A task, which is of `mars.task`, a floor above."""


class CallSet:
    """Calls that belong together, such as those of one `mars.Executor`, and how many run at a time.

    The scheduler asks it where its calls may go. It counts workers, not calls: a worker runs one
    call at a time, so short calls may still be queued behind each other.

    Parameters
    ----------
    most : int or None
        How many of the calls may be in flight at a time. None: as many as there are workers.
    """

    __slots__ = ("_at", "_workers", "most")

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._at: dict[object, object] = {}  # the worker of each call in flight
        self._workers: dict[object, int] = {}  # how many calls each of them has

    def takes(self, worker: object) -> bool:
        """Whether a worker may get a call of the set; None: whether a further worker may."""
        return self.most is None or worker in self._workers or len(self._workers) < self.most

    def enters(self, task: object, worker: object) -> None:
        """A worker gets a call of the set."""
        if self.most is not None:
            self._at[task] = worker
            self._workers[worker] = self._workers.get(worker, 0) + 1

    def leaves(self, task: object) -> None:
        """A call of the set is in no worker any more."""
        worker = self._at.pop(task, None)
        if worker is not None:
            self._workers[worker] -= 1
            if not self._workers[worker]:
                del self._workers[worker]

    def claim(self, task: _Task) -> bool:
        """A call is about to be given to a worker. False: it was cancelled, and must not start."""
        return True

    def begins(self, task: _Task) -> None:
        """Nothing is in front of a call in its worker any more."""

    def unclaim(self, task: _Task) -> None:
        """A worker has given a call back unstarted."""

    def settled(self, task: _Task) -> None:
        """A call has ended, however; in the engine's thread, so nothing of the program runs."""


class Options:
    """How a call is to be run. Nobody changes it: one instance serves many calls.

    Attributes
    ----------
    name : str or None
        Shown in logs, errors and progress instead of the function's name.
    cpus : float
        Cores that the call owns while it runs.
    memory : int or None
        Bytes that the call may use.
    gpus : float
        GPUs that the call owns: whole ones, or a part of one.
    timeout_s : float or None
        Limit for one attempt, in seconds of wall clock. It counts from when the attempt is sent
        to a free worker.
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
        What else the result depends on. It is a part of the identity of the call in a checkpoint.
    threads : int
        How many calls such as this one may run at a time, as threads of one process. 0: the call
        has a process to itself while it runs.
    in_set : CallSet or None
        The set that the call belongs to, which limits how many of its calls are in flight.
    """

    __slots__ = (
        "cache", "cpus", "death_retries", "depends", "gpus", "in_set", "memory", "name", "priority",
        "retries", "retry_data", "retry_late", "retry_on", "threads", "timeout_s", "worker",
    )  # fmt: skip

    def __init__(
        self,
        name: str | None = None,
        cpus: float = 1,
        memory: int | None = None,
        gpus: float = 0,
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
        self.retry_data: bytes | None = None  # the pickle of `retry_on`; None: Exception
        self.retry_late = True  # whether `retry_on` names timeouts, too
        self.threads = 0
        self.cache = True
        self.depends: object = None
        self.in_set: CallSet | None = None

    def __reduce__(self) -> tuple[object, ...]:
        # The exception classes stay behind: they may be the program's own, so they travel as
        # `retry_data`. The other three matter to the driver only.
        staying = ("retry_on", "cache", "depends", "in_set")
        travelling = [name for name in self.__slots__ if name not in staying]
        return _options_from, ({name: getattr(self, name) for name in travelling},)


def _options_from(fields: dict[str, object]) -> Options:
    options = Options()
    for name, value in fields.items():
        setattr(options, name, value)
    return options


DEFAULT_OPTIONS: Final = Options()

HINTS: Final = frozenset(
    {"expect_band", "reassign_worker", "fuseable", "memory_scale", "output_types"}
)
"""Scheduling hints of the original. They are accepted and have no effect."""


def parse_options(
    given: dict[str, object],
    *,
    retry_when_fail: bool = False,
    unknown: Callable[[str], str] | None = None,
) -> Options:
    """Check the options that `spawn` or `map` was given.

    Parameters
    ----------
    given : dict
        The options by name.
    retry_when_fail : bool, default False
        The option of that name.
    unknown : callable, optional
        Makes the text of the error for a name that is no option.

    Raises
    ------
    ValueError
        There is no such option (``Unexpected kw: <name>``), or a value is out of range.
    TypeError
        A value has the wrong type. The message names the option.
    """
    if not given and not retry_when_fail:
        return DEFAULT_OPTIONS
    options = Options()
    for option, value in given.items():
        check = CHECKS.get(option)
        if check is not None:
            check(options, value if option == "depends" else plain_scalar(value))
        elif option not in HINTS:
            raise ValueError(f"Unexpected kw: {option}" if unknown is None else unknown(option))
    band = given.get("expect_band")
    if band is not None:
        if not isinstance(band, (tuple, list)) or not band or not isinstance(band[0], str):
            raise TypeError(f"expect_band has to be (worker's address, device), got {band!r}")
        options.worker = options.worker or band[0]
    _check_output_types(given.get("output_types"))
    if options.threads:
        _fit_into_thread(options, given)
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
    # A plain text: a member of an enum of texts would have workers ask for its class.
    options.name = None if value is None else str.__str__(value)


def _take_cpus(options: Options, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"cpus has to be a number, got {value!r}")
    cpus = float(value)
    if not 0 < cpus < float("inf"):
        raise ValueError(f"cpus has to be more than 0, got {value!r}")
    if cpus > 1 and cpus != int(cpus):
        raise ValueError(f"cpus above 1 have to be whole cores, got {value!r}")
    options.cpus = int(cpus) if cpus == int(cpus) else cpus


def _take_threads(options: Options, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"threads has to be an int, got {value!r}")
    threads = int(value)
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads has to be from 1 to {MOST_THREADS:,}, got {value!r}")
    options.threads = threads


def _fit_into_thread(options: Options, given: dict[str, object]) -> None:
    """A call shares its process: refuse what only a process of its own can have."""
    if given.get("cpus") is not None:
        raise ValueError(
            f"threads={options.threads} says how many calls share one process, which has one core; "
            f"cpus={given['cpus']!r} cannot be kept beside it; drop one of the two"
        )
    for option in ("memory", "gpus", "gpu"):
        if given.get(option):
            raise ValueError(
                f"{option}={given[option]!r} needs a process of its own, and threads="
                f"{options.threads} means that calls share one; drop one of the two"
            )
    options.cpus = 1 / options.threads


_UNITS: Final = {
    "": 1, "b": 1, "k": 2**10, "kb": 10**3, "kib": 2**10, "m": 2**20, "mb": 10**6, "mib": 2**20,
    "g": 2**30, "gb": 10**9, "gib": 2**30, "t": 2**40, "tb": 10**12, "tib": 2**40,
}  # fmt: skip


def parse_bytes(value: object, option: str) -> int:
    """The bytes that a number or a text such as ``"2GiB"``, ``"500MB"`` or ``"1.5g"`` means."""
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
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"gpus has to be a number, got {value!r}")
    gpus = float(value)
    if not 0 <= gpus < float("inf"):
        raise ValueError(f"gpus has to be 0 or more, got {value!r}")
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(f"gpus above 1 have to be whole devices, got {value!r}")
    options.gpus = int(gpus) if gpus == int(gpus) else gpus


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


CHECKS: Final[dict[str, Callable[[Options, object], None]]] = {
    "name": _take_name,
    "cpus": _take_cpus,
    "threads": _take_threads,
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
"""Every option of a call, and the function that checks its value and keeps it."""


def check_function(func: object) -> None:
    """Refuse what cannot be called."""
    if not callable(func):
        raise TypeError(f"func has to be callable, got {type(func).__name__}: {func!r:.80}")


__all__ = [
    "CHECKS", "CallSet", "DEFAULT_OPTIONS", "HINTS", "Options", "check_function", "parse_bytes",
    "parse_options",
]  # fmt: skip
