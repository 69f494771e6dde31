"""Options of a program: ``mars.options`` and `option_context`.

Holds values and checks them; acts on none. Read by the session when a run starts. Imports
next to nothing, because ``import mars`` imports it.

An assignment to ``mars.options`` holds for the whole process, in every thread. Inside a
``with option_context(...)`` it holds for that block, in the thread (or asyncio task) that
entered it; a thread started inside the block does not see it.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar

TYPE_CHECKING = False  # known to type checkers; `typing` itself would cost 8 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

_DEFAULTS: dict[str, object] = {
    "show_progress": "auto",  # True, False, or "auto": where somebody watches
    "eager_mode": False,  # spawn executes at once
    "seed": None,  # of mars.remote.rng(); None: the session's
    "echo": "summary",  # "all", "failures", "summary", or False: what calls print is not shown
    "on_event": None,  # a function that is told what happens
    "open_telemetry": False,  # attempts become spans
    "silent_notice": 30.0,  # seconds; as long as nobody wonders yet, and before they give up
}

INERT: dict[str, object] = {
    "check_interval": 20,
    "chunk_size": None,
    "chunk_store_limit": 128 * 1024**2,
    "combine_size": 4,
    "custom_log_dir": None,
    "kv_store": ":inproc:",
    "optimize_tileable_graph": True,
    "serialize_method": "pickle",
    "tcp_timeout": 30,
    "verbose": False,
    "warn_duplicated_execution": False,
}
"""Options of the original, with its defaults, that steer what we do not have: they can be set
and read back, and have no effect."""

_ECHOES = ("all", "failures", "summary")

INERT_SECTIONS = (
    "client",
    "dataframe",
    "dataframe.arrow_array",
    "dataframe.mode",
    "deploy",
    "learn",
    "optimize",
    "rechunk",
    "scheduler",
    "tensor",
    "tensor.rechunk",
    "vineyard",
    "worker",
    "worker.filemerger",
)
"""Sections of the original's options, as in ``options.rechunk.threshold``. Every name within
is as inert; one that was not set reads as None."""

_process_wide: dict[str, object] = {**_DEFAULTS, **INERT}
_block: ContextVar[dict[str, object] | None] = ContextVar("mars_options", default=None)


def plain_scalar(value: Any) -> Any:
    """A scalar of numpy as Python's own; anything else as it is.

    For options, which come out of arrays and settings of models: `np.int64` is no `int`.
    """
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


def is_eager() -> bool:
    """``options.eager_mode``, for `spawn`, which asks a million times."""
    values = _block.get()  # not by `option_values`: a call less
    return (_process_wide if values is None else values)["eager_mode"] is True


def option_values() -> Mapping[str, Any]:
    """All options by name. For `execute`: two by attribute would be 6 us of a round trip."""
    values = _block.get()
    return _process_wide if values is None else values


@contextlib.contextmanager
def own_options() -> Iterator[None]:
    """Have options of its own in a block, as a call has in another process."""
    outer = _block.get()
    _block.set({**_DEFAULTS, **INERT})
    try:
        yield
    finally:
        _block.set(outer)


class Options:
    """Options by attribute: ``mars.options.show_progress = False``.

    Attributes
    ----------
    show_progress : bool or "auto", default "auto"
        Whether `execute` shows its progress. "auto": on a terminal, in a notebook and in CI.
    eager_mode : bool, default False
        Whether `spawn` executes the call at once.
    seed : int or None, default None
        Seed of the generators that ``mars.remote.rng()`` returns. None: the session's seed.
    echo : {"summary", "failures", "all", True, False}, default "summary"
        What `execute` shows of what calls print. "all", or True: each line, as soon as it is
        complete, behind the name of its call. "failures": the log of each call that failed.
        "summary": at the end, one line that names the calls which wrote to stderr; only on a
        terminal and in a notebook. False: nothing.
    on_event : callable or None, default None
        Called with an `mars.observe.events.Event` when a run began, an attempt of a call ended, or
        a run ended; in a thread of its own, one after the other, up to a quarter of a second late.
        `execute` returns once its run has been told, or 10 seconds later. What the function raises
        is logged. It holds for runs that begin while it is set.
    open_telemetry : bool, default False
        Whether each run, and each attempt of a call, becomes a span of OpenTelemetry, below the
        span that the program is in. It needs the extra ``otel``.
    silent_notice : float or None, default 30
        Seconds. Whoever waits for a call that has printed nothing for so long gets a line about
        it on stderr, and again each time this has doubled. None or 0: never.

    Raises
    ------
    AttributeError
        There is no such option; the message names similar ones.
    ValueError
        The option cannot have this value.
    """

    __slots__ = ("_section",)

    _section: str  # with its dot, such as "rechunk."; "" for the options themselves
    show_progress: bool | str
    eager_mode: bool
    seed: int | None
    echo: bool | str
    on_event: Callable[[Any], object] | None
    open_telemetry: bool
    silent_notice: float | None

    def __init__(self, section: str = "") -> None:
        object.__setattr__(self, "_section", section)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        full = self._section + name
        values = option_values()
        if full in values:
            return values[full]
        known = _known(full)
        if known == "section":
            return Options(f"{full}.")
        if known == "inert":
            return None
        raise AttributeError(_unknown(full))

    def __setattr__(self, name: str, value: object) -> None:
        full = self._section + name
        value = plain_scalar(value)
        _check(full, value)
        values = _block.get()
        (_process_wide if values is None else values)[full] = value

    def __dir__(self) -> Iterable[str]:
        names = (
            name for name in (*option_values(), *INERT_SECTIONS) if name.startswith(self._section)
        )
        return sorted({name.removeprefix(self._section).partition(".")[0] for name in names})

    def __repr__(self) -> str:
        values = option_values()
        names = sorted(name for name in values if name.startswith(self._section))
        return f"<mars.options {' '.join(f'{name}={values[name]!r}' for name in names)}>"

    def __reduce__(self) -> tuple[type[Options], tuple[str]]:
        # A function that reads `options` may travel: it then finds those of the other process.
        return Options, (self._section,)


class option_context:  # noqa: N801 - the original's name, used like a function
    """Set options for a block, and restore them after it.

    Parameters
    ----------
    config : mapping, optional
        Options by name. A dotted name reaches into a section: ``{"rechunk.threshold": 4}``.
    **options : object
        More options, by keyword.

    Raises
    ------
    AttributeError
        There is no such option. Raised before any is set.
    ValueError
        An option cannot have this value. Raised before any is set.

    Notes
    -----
    Source: ``mars.config.option_context`` of Mars. What is assigned to ``mars.options`` within
    the block is gone after it, as there. Differs: an unknown name is an error.

    Examples
    --------
    >>> with option_context({"show_progress": False}):
    ...     options.show_progress
    False
    """

    __slots__ = ("_given", "_outer")

    def __init__(self, config: Mapping[str, object] | None = None, **options: object) -> None:
        given = {**(config or {}), **options}
        self._given = {name: plain_scalar(value) for name, value in given.items()}
        self._outer: list[dict[str, object] | None] = []  # a stack: one object may be entered twice
        for name, value in self._given.items():
            _check(name, value)

    def __enter__(self) -> Options:
        self._outer.append(_block.get())
        _block.set({**option_values(), **self._given})
        return options

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not ContextVar.reset: a generator may be closed in another context than it began in.
        _block.set(self._outer.pop())


def _known(full: str) -> str:
    """Return "own", "inert", "section", or "" for a name that is no option."""
    if full in _DEFAULTS:
        return "own"
    if full in INERT_SECTIONS:
        return "section"
    return "inert" if full in INERT or full.partition(".")[0] in INERT_SECTIONS else ""


def _check(full: str, value: object) -> None:
    known = _known(full)
    if not known:
        raise AttributeError(_unknown(full))
    if known == "section":
        raise AttributeError(f"{full!r} is a section of options: set {full}.<name>")
    problem = ""
    if full == "show_progress" and not (isinstance(value, bool) or value == "auto"):
        problem = "True, False or 'auto'"
    elif full == "on_event" and value is not None and not callable(value):
        problem = "a function of one argument, or None"
    elif full in ("eager_mode", "open_telemetry") and not isinstance(value, bool):
        problem = "True or False"
    elif full == "seed" and value is not None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        problem = "" if whole and value >= 0 else "a whole number from 0, or None"  # type: ignore[operator]
    elif full == "echo" and not (isinstance(value, bool) or value in _ECHOES):
        problem = "True, False, 'all', 'failures' or 'summary'"
    elif full == "silent_notice" and value is not None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        problem = "" if number and value >= 0 else "seconds from 0, or None"  # type: ignore[operator]
    if problem:
        raise ValueError(f"Cannot set value `{value!r}` for option {full}: it has to be {problem}")


_ELSEWHERE = {
    **dict.fromkeys(
        ("n_cpu", "n_worker", "checkpoint", "object_memory", "web", "engine"),
        "it is an argument of mars.new_session",
    ),
    **dict.fromkeys(
        ("cpus", "threads", "timeout", "retries", "memory", "gpus"),
        "it is an option of a call: spawn(..., {name}=...)",
    ),
}
"""What people look for among the options of the process, and where it is."""


def _unknown(full: str) -> str:
    if full in _ELSEWHERE:
        return f"mars.options has no option {full!r}; {_ELSEWHERE[full].format(name=full)}"
    from difflib import get_close_matches  # 8 ms, and only somebody's typing error needs it

    names = [*_DEFAULTS, *INERT, *INERT_SECTIONS]
    close = get_close_matches(full, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(_DEFAULTS)}"
    return f"mars.options has no option {full!r}; {hint}"


options = Options()
"""The options of this process; `mars.options` is this object."""
