"""What joblib talks to: how many jobs there are, and where batches go.

joblib makes one `MarsBackend` for each ``parallel_config("mars")``, and configures it for each
`joblib.Parallel` inside. What is under way for one `Parallel` is in `mars.joblib.flight`.
"""

from __future__ import annotations

import functools
import operator
import sys
import threading
import uuid
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from joblib import register_parallel_backend
from joblib._parallel_backends import AutoBatchingMixin
from joblib.parallel import FallbackToBackend, ParallelBackendBase, SequentialBackend

from mars.attempt import context
from mars.calls.mistakes import unknown_keyword
from mars.calls.options import CHECKS, parse_options
from mars.config import plain_scalar
from mars.joblib.flight import Batch, Flight, Plan
from mars.joblib.work import Initializer, is_limited
from mars.resources import cpu_count
from mars.sessions.opening import get_default_session, new_session
from mars.sessions.session import AnySession, Session, SessionView, opened
from mars.settings import JOBLIB_BATCHES_KEPT

if TYPE_CHECKING:
    from joblib import Parallel

_OF_JOBLIB: Final = frozenset(
    {"context", "idle_worker_timeout", "max_nbytes", "mmap_mode", "temp_folder", "verbose"}
)
"""What joblib tells each backend. Only ``max_nbytes`` means something here."""

_OWN: Final = frozenset({"echo", "initializer", "initargs"})

_NAMES: Final = _OWN | {"inner_max_num_threads", "n_jobs", "session"}


class MarsBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs what a program runs with joblib as calls of a session.

    ``joblib.parallel_config("mars", …)`` makes one with these parameters. An instance can be given
    in the place of the name.

    Parameters
    ----------
    session : Session or str, optional
        Session that runs the calls, or the address of an engine or cluster to open one at. Default:
        the default session. If there is none, one on all cores is made.
    n_jobs : int, optional
        What ``n_jobs=None`` means. Default: all cores of the session, and 1 inside a call.
    cpus : float, optional
        Cores that each batch owns. Default: the cores of the session, divided by ``n_jobs``, but at
        most those of a worker group.
    inner_max_num_threads : int, optional
        Threads that native libraries use in a batch. Default: as many as the batch has cores.
    echo : bool, default True
        Whether the program's output gets what a batch has printed, when the batch has ended.
    initializer : callable, optional
        Called in each worker process before its first batch, also in one that replaces another.
    initargs : tuple, default ()
        Arguments for ``initializer``.
    service : str, optional
        The address of ``session``, by the name that the original has for it.
    n_parallel : int, optional
        ``n_jobs``, by the name that the original has for it.
    nesting_level : int, optional
        How deep the loop is below others. joblib sets it.
    **options
        Options of the calls, as of `mars.remote.spawn`: ``retries``, ``death_retries``,
        ``idempotent``, ``memory``, ``priority``, ``timeout`` and others. They hold for batches.

    Attributes
    ----------
    batches : deque of Batch
        The batches that were given to this backend last, up to 10 000, each with ``fetch_log()``.

    Raises
    ------
    TypeError, ValueError
        An option has the wrong type, or a value that is out of range, or there is no such option.

    Examples
    --------
    >>> import joblib, mars.joblib
    >>> with joblib.parallel_config(mars.joblib.MarsBackend(cpus=1), n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2))
    [1, 2]
    """

    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        *,
        session: AnySession | str | None = None,
        n_jobs: int | None = None,
        cpus: float | None = None,
        echo: bool = True,
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[object] = (),
        service: str | None = None,
        n_parallel: int | None = None,
        backend: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        if session is not None and not isinstance(session, (str, Session, SessionView)):
            raise TypeError(f"session has to be a Session or an address, got {session!r:.80}")
        jobs = n_jobs if n_jobs is not None else n_parallel
        if jobs is not None:
            self.default_n_jobs = _jobs(jobs)
        if cpus is not None:
            options["cpus"] = cpus
        # What is wrong is said here, and not in the middle of a loop.
        parse_options(options, unknown=lambda name: unknown_keyword(name, options[name], _NAMES))
        self.options = options
        self.echo = echo
        self.batches: deque[Batch] = deque(maxlen=JOBLIB_BATCHES_KEPT)
        self.parallel: Parallel = None
        self._address = session if isinstance(session, str) else service
        self._session = None if isinstance(session, str) else session
        self._initializer = _initializer(initializer, initargs)
        self._plan: Plan | None = None
        # joblib's own backends have their workers here. None: no loop goes on.
        self._workers: Flight | None = None
        self._lock = threading.Lock()
        self._first: MarsBackend | None = None

    def __reduce__(self) -> tuple[Callable[..., MarsBackend], tuple[object, ...]]:
        # It travels with batches, whose own loops it runs. There the session is that of the call.
        return _nested, (
            self.nesting_level, self.default_n_jobs, self.echo, self._initializer,
            self.inner_max_num_threads, self.options,
        )  # fmt: skip

    # -- how many jobs ------------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches run at a time, for an ``n_jobs``.

        Parameters
        ----------
        n_jobs : int or None
            Below 0: counted from the cores of the session; -1 means all of them. With the option
            ``threads`` it is counted from that. None: the default.

        Returns
        -------
        int
            1 in a process that the program has forked, in a daemonic process and in a worker of
            loky, with a warning: there, no workers can be started. 1 also inside a call of the
            inline engine, which runs one call at a time.

        Raises
        ------
        ValueError
            It is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        if n_jobs == 1 or _inside_inline():
            return 1
        reason = _why_alone()
        if reason:
            warnings.warn(
                f"the joblib backend 'mars' starts no workers in {reason}, so n_jobs is 1 here",
                stacklevel=3,
            )
            return 1
        if n_jobs < 0:
            threads = self.options.get("threads")
            most = threads or int(self._cores() / self.options.get("cpus", 1))
            n_jobs = max(most + 1 + n_jobs, 1)
        return int(n_jobs)

    def _cores(self) -> float:
        """Cores of the session; of this machine as long as there is no session."""
        session = self._known_session()
        if session is None and self._address is not None:
            session = self._open_session()
        return cpu_count().n if session is None else session.engine.n_cpu

    def _known_session(self) -> Session | None:
        if isinstance(self._session, SessionView):
            return self._session.session
        if self._session is not None:
            return self._session
        return None if self._address is not None else get_default_session()

    def _open_session(self) -> Session:
        session = self._known_session()
        if session is not None:
            return session
        with opened.lock:
            session = self._known_session()
            if session is None and self._address is not None:
                session = self._session = new_session(self._address, default=False)
                weakref.finalize(self, session.close)
            elif session is None:
                session = new_session()
        return session

    # -- what joblib calls --------------------------------------------------------------------

    def configure(
        self,
        n_jobs: int | None = 1,
        parallel: Parallel = None,
        prefer: str | None = None,
        require: str | None = None,
        **given: object,
    ) -> int:
        """Prepare for one `joblib.Parallel`.

        Returns
        -------
        int
            How many batches run at a time.

        Raises
        ------
        FallbackToBackend
            Another backend does it: joblib's own for one job.
        TypeError, ValueError
            `Parallel` was given an argument that is none of joblib's, nor an option of calls.
        """
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        with self._lock:
            if self._workers is not None and parallel is not self.parallel:
                # Two loops under one ``parallel_config``: to abort one must not touch the other.
                raise FallbackToBackend(self._sibling())
            self._plan = self._planned(n_jobs, given)
            self.parallel = parallel
            self._workers = Flight(self._plan, self.batches)
        return n_jobs

    def _sibling(self) -> MarsBackend:
        other = MarsBackend(
            self.nesting_level, self.inner_max_num_threads, session=self._known_session(),
            n_jobs=self.default_n_jobs, echo=self.echo, service=self._address, **self.options,
        )  # fmt: skip
        other._initializer = self._initializer
        other.batches = self.batches
        other._first = self  # which closes the session at an address when it goes
        return other

    def _planned(self, n_jobs: int, given: dict[str, Any]) -> Plan:
        options = dict(self.options)
        options.update((name, value) for name, value in given.items() if name in CHECKS)
        unknown = given.keys() - CHECKS.keys() - _OF_JOBLIB - _OWN
        if unknown:
            name = min(unknown)
            meant = unknown_keyword(name, given[name], _OWN).partition("; ")[2]
            raise TypeError(
                f"Parallel(backend='mars') got an unexpected keyword argument {name!r}"
                f"{meant and '; '}{meant}"
            )
        session = self._open_session()
        engine = session.engine
        cores = engine.n_cpu
        threads = self.inner_max_num_threads
        in_threads = options.get("threads")  # they share a process, and have no cores of their own
        if "cpus" not in options and not in_threads:
            largest = max(cores / max(1, len(engine.worker_addresses)), 1.0)
            share = cores / n_jobs
            options["cpus"] = int(min(share, largest)) if share >= 1 else _below(share)
        initializer = self._initializer
        if "initializer" in given:
            initializer = _initializer(given["initializer"], given.get("initargs", ()))
        parse_options(options)
        own = int(max(1, options.get("cpus", 1)))
        limited = n_jobs < in_threads if in_threads else n_jobs * options["cpus"] < cores
        named = functools.cache(lambda name: parse_options({**options, "name": name}))
        return Plan(
            session=session,
            at_once=n_jobs if limited else None,
            options=named,
            nested=_nested_like(self),
            threads=None if threads in (None, own) else threads,
            share_bytes=given.get("max_nbytes"),
            initializer=initializer,
            echo=given.get("echo", self.echo),
        )

    def start_call(self) -> None:
        """A loop begins: what the one before it has stored is not up to date."""
        with self._lock:
            if self._plan is not None:
                self._workers = Flight(self._plan, self.batches)

    def stop_call(self) -> None:
        """A loop has ended."""

    def submit(
        self, func: Callable[..., object], callback: Callable[[Batch], object] | None = None
    ) -> Batch:
        """Have a batch run.

        Parameters
        ----------
        func : callable
            The batch.
        callback : callable, optional
            Called with the returned object when the batch has ended, well or not.

        Returns
        -------
        Batch
        """
        flight = self._workers
        if flight is None:
            raise RuntimeError("this backend is not configured for a joblib.Parallel")
        return flight.submit(func, callback)

    def apply_async(
        self, func: Callable[..., object], callback: Callable[[Batch], object] | None = None
    ) -> Batch:
        """`submit`, by the name that older versions of joblib call."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, out: Batch) -> list[object]:
        """What a batch returned. It raises what the batch raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop all batches of the loop, and wait for none of them."""
        with self._lock:
            flight = self._workers
            ready = ensure_ready and self._plan is not None
            self._workers = Flight(self._plan, self.batches) if ready else None  # type: ignore[arg-type]
        if flight is not None:
            flight.abandon()

    def terminate(self) -> None:
        """The `Parallel` has ended."""
        with self._lock:
            self._workers = self._plan = self.parallel = None
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[MarsBackend, int | None]:
        """What runs the loops inside a batch: a backend like this one, with n_jobs=1 by default."""
        make, args = _nested_like(self)
        return make(*args), None


def _nested_like(backend: MarsBackend) -> tuple[Callable[..., MarsBackend], tuple[object, ...]]:
    """Makes the backend for loops inside the batches of another one."""
    level = (backend.nesting_level or 0) + 1
    return _nested, (level, 1, backend.echo, None, backend.inner_max_num_threads, {})


def _nested(
    nesting_level: int,
    n_jobs: int,
    echo: bool,
    initializer: Initializer | None,
    threads: int | None,
    options: dict[str, Any],
) -> MarsBackend:
    made = MarsBackend(nesting_level, threads, n_jobs=n_jobs, echo=echo, **options)
    made._initializer = initializer
    return made


def _initializer(
    function: Callable[..., object] | None, args: Sequence[object]
) -> Initializer | None:
    if function is None:
        return None
    if not callable(function):
        raise TypeError(f"initializer has to be callable, got {function!r:.80}")
    global _last
    known = _last
    same = known is not None and known.function is function and len(known.args) == len(args)
    if known is None or not (same and all(map(operator.is_, known.args, args))):
        _last = known = Initializer(uuid.uuid4().hex, function, tuple(args))
    return known


_last: Initializer | None = None  # a program that gives the same one again means the same


def _jobs(n_jobs: object) -> int:
    n_jobs = plain_scalar(n_jobs)
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int):
        raise TypeError(f"n_jobs has to be an int, got {n_jobs!r}")
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 in Parallel has no meaning")
    return n_jobs


def _below(share: float) -> float:
    """A part of a core, rounded so that n_jobs of them are never more than there are."""
    return int(share * 1e6) / 1e6


def _inside_inline() -> bool:
    """Whether this is a call of an inline engine.

    There, threads that deliver results belong to the program and not to the call. What they submit
    for the call's loop would wait for the call.
    """
    attempt = context.current()
    inline = sys.modules.get("mars.engines.inline")
    return bool(attempt and inline and isinstance(attempt.engine, inline.InlineEngine))


def _why_alone() -> str:
    """In what kind of process no workers can be started; empty: they can."""
    if is_limited():
        return "a process that was forked or is daemonic"
    if context.current() is None:
        from joblib.externals.loky import process_executor

        if process_executor._CURRENT_DEPTH > 0:
            return "a worker of loky"
    return ""


def register() -> None:
    """Tell joblib the name "mars". ``import mars.joblib`` does it.

    Examples
    --------
    >>> import joblib
    >>> register()
    >>> with joblib.parallel_config("mars", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(pow)(2, x) for x in range(3))
    [1, 2, 4]
    """
    register_parallel_backend("mars", MarsBackend)


__all__ = ["MarsBackend", "register"]
