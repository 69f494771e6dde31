"""What a running call can ask about itself: `mars.get_context()` inside a function.

One call runs at a time in a worker process, so there the running attempt belongs to the whole
process, threads that the call starts included. With ``threads=`` it belongs to the thread. The
inline engine runs in the caller's thread, so there it belongs to that thread, and to those that are
started from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mars.code import world

if TYPE_CHECKING:
    from typing import Protocol

    class Asked(Protocol):
        """An engine, as the calls that run in it may ask it; `mars.engine.Engine` explains it."""

        address: str

        @property
        def n_cpu(self) -> float: ...
        @property
        def worker_addresses(self) -> Sequence[str]: ...
        def create_object(
            self,
            session: str,
            name: str,
            cls: Callable[..., object],
            args: tuple[object, ...],
            kwargs: dict[str, object],
        ) -> object: ...
        def get_object(self, session: str, name: str) -> object: ...
        def destroy_object(self, session: str, name: str) -> None: ...


Facts = TypeVar("Facts")
"""What only those know who enter a process."""


class Attempt:
    """A call while it runs.

    Attributes
    ----------
    session_id : str
        The session that asked for the call.
    name : str
        The call's name.
    engine : Asked
        Runs the calls that this one asks for.
    worker_address : str
        The worker group that it runs in.
    entropy, place : int or None, tuple of int
        What `mars.remote.rng` is seeded with: the run's seed, and the call's place in it.
    item : int or None
        Which item of a block runs; None: it is a call by itself.
    spawned : int
        Nested calls so far, for their places.
    shown : tuple of object or None
        What its failure shows in place of the call's arguments, see `show_arguments`.
    """

    __slots__ = (
        "_place", "engine", "entropy", "generator", "item", "name", "report_progress",
        "session", "session_id", "shown", "spawned", "worker_address",
    )  # fmt: skip

    def __init__(
        self,
        session_id: str,
        name: str,
        engine: Asked,
        worker_address: str,
        entropy: int | None,
        place: tuple[int, ...],
        report_progress: Callable[[float], None],
    ) -> None:
        self.session_id = session_id
        self.name = name
        self.engine = engine
        self.worker_address = worker_address
        self.entropy = entropy
        self._place = place
        self.item: int | None = None
        self.report_progress = report_progress
        self.spawned = 0
        self.shown: tuple[tuple[object, ...], Mapping[str, object]] | None = None
        self.session: object = None  # made when the call asks for it
        self.generator: object = None

    @property
    def place(self) -> tuple[int, ...]:
        """Made when somebody asks, as a block may have a million items that do not."""
        return self._place if self.item is None else (*self._place, self.item)


class _Here(threading.local):
    attempt: Attempt | None = None


_here = _Here()
_process: Attempt | None = None


def current() -> Attempt | None:
    """The attempt that this code runs in; None in the user's own program."""
    global _process
    if _process is None and _make is not None:
        _process = _make(_facts)
    return _here.attempt or _process


_make: Callable[..., Attempt] | None = None
_facts: object = None


def enter_process_lazily(make: Callable[[Facts], Attempt], facts: Facts) -> None:
    """From here on this process runs the attempt that ``make(facts)`` gives; for workers."""
    global _process, _make, _facts
    _process, _make, _facts = None, make, facts


def enter_thread(attempt: Attempt | None) -> Attempt | None:
    """From here on this thread runs ``attempt``; gives back what it ran before."""
    before, _here.attempt = _here.attempt, attempt
    return before


def show_arguments(*args: object, **kwargs: object) -> None:
    """The running call fails: say what its error shows as arguments, in place of the call's own.

    For calls whose arguments are ours, such as the pickle of a batch, and tell the user nothing.
    """
    attempt = current()
    if attempt is not None:
        attempt.shown = args, kwargs


def in_thread_of(attempt: Attempt) -> bool:
    """Whether this thread is one of an attempt that runs in this process."""
    here = _here.attempt
    if here is not None:
        return here is attempt
    # One that `threading` does not know of was started by code in C, most likely the call's.
    known: dict[int, threading.Thread] = getattr(threading, "_active", {})
    return type(known.get(threading.get_ident())) in (type(None), threading._DummyThread)


class FollowThreads:
    """While it is there, threads that calls start in this process belong to these calls.

    Python does not tell who starts a thread, so this stands in for `threading.Thread.start`.
    """

    def __init__(self) -> None:
        self._start = start = threading.Thread.start

        def start_in_attempt(self: threading.Thread) -> None:
            attempt = _here.attempt
            if attempt is not None:
                run, code = self.run, world.of_thread()

                def run_in_attempt() -> None:
                    vars(self).pop("run", None)  # another engine may stand in here, too
                    _here.attempt = attempt
                    world.enter_thread(code)
                    run()

                self.run = run_in_attempt  # type: ignore[method-assign]
            start(self)

        self._ours = threading.Thread.start = start_in_attempt  # type: ignore[method-assign]

    def end(self) -> None:
        """Put back what was there, unless somebody else stands in for it by now."""
        if threading.Thread.start is self._ours:
            threading.Thread.start = self._start  # type: ignore[method-assign]


class Context:
    """Where a function runs, and what it shares with others of its session.

    Obtained with `mars.get_context()` inside a function that was spawned.
    """

    def __init__(self, attempt: Attempt, get_session: Callable[[], object]) -> None:
        self._attempt = attempt
        self._get_session = get_session

    @property
    def session_id(self) -> str:
        """Id of the session that asked for the call."""
        return self._attempt.session_id

    @property
    def worker_address(self) -> str:
        """Address of the worker group that runs the call."""
        return self._attempt.worker_address

    local_address = worker_address

    @property
    def supervisor_address(self) -> str:
        """Address of the engine; on one machine there is no supervisor process."""
        return str(self._attempt.engine.address)

    @property
    def band(self) -> tuple[str, str]:
        """Worker group and device, as the original names it."""
        return self._attempt.worker_address, "numa-0"

    def get_current_session(self) -> Any:
        """The session, to spawn and execute further calls; also the default one here."""
        return self._get_session()

    def get_worker_addresses(self) -> list[str]:
        """Addresses of all worker groups, for ``spawn(..., expect_worker=address)``."""
        return list(self._attempt.engine.worker_addresses)

    def get_worker_bands(self) -> list[tuple[str, str]]:
        """Worker groups with their device."""
        return [(address, "numa-0") for address in self.get_worker_addresses()]

    def get_supervisor_addresses(self) -> list[str]:
        """Address of the engine, in a list."""
        return [self.supervisor_address]

    def get_total_n_cpu(self) -> int:
        """Cores of all worker groups together."""
        return int(self._attempt.engine.n_cpu)

    def get_slots(self) -> int:
        """Calls of one core that run at a time in this worker group."""
        return max(1, self.get_total_n_cpu() // max(1, len(self.get_worker_addresses())))

    def get_local_host_ip(self) -> str:
        """Address of this machine; nothing of mars listens on it."""
        return "127.0.0.1"

    def set_progress(self, progress: float) -> None:
        """Tell how far the call has come.

        Parameters
        ----------
        progress : float
            From 0 to 1.
        """
        self._attempt.report_progress(min(1.0, max(0.0, float(progress))))

    def create_remote_object(
        self, name: str, cls: Callable[..., object], *args: object, **kw: object
    ) -> Any:
        """Make an object that all calls of the session share, in the driver's process.

        Parameters
        ----------
        name : str
            What to ask for it by, in this session.
        cls : callable
            Called in the driver's process with ``*args`` and ``**kw`` to make it.
        *args, **kw
            What to call it with; they have to pickle, as have arguments and results of its methods.

        Returns
        -------
        RemoteObject
            Stands for it: calling a method runs the method there.

        Raises
        ------
        ValueError
            The session has one of that name.
        """
        return self._attempt.engine.create_object(self.session_id, name, cls, args, kw)

    def get_remote_object(self, name: str) -> Any:
        """The shared object of that name.

        Parameters
        ----------
        name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none.
        """
        return self._attempt.engine.get_object(self.session_id, name)

    def destroy_remote_object(self, name: str) -> None:
        """Forget a shared object.

        Parameters
        ----------
        name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none of that name.
        """
        self._attempt.engine.destroy_object(self.session_id, name)


def addresses(host: str, groups: int) -> Sequence[str]:
    """Names of worker groups."""
    return [f"{host}:{index}" for index in range(groups)]
