"""`mars.Executor`: an executor of `concurrent.futures` whose calls run on an engine of mars.

::

    submit ─► CallFuture ─► CallStream of the engine ─► scheduler ─► worker
                  ▲                                         │
                  └───── claim, settle ◄──── Calls ◄────────┘

`Calls` is what an executor's futures share. It belongs to the futures as much as to the executor,
so futures end although the program has dropped the executor.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor as StandardExecutor
from numbers import Integral
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from mars import delivery
from mars.attempt import call as attempt_call
from mars.attempt import codec
from mars.calls.mistakes import unknown_keyword
from mars.calls.options import CallSet, Options, check_function, parse_options
from mars.calls.spawn import applied, argument_error, function_error, pack_retry_on
from mars.code import functions, modules
from mars.engine import Run
from mars.executors.futures import CallFuture, SubmittedCall
from mars.executors.initializers import Preparing
from mars.sessions.opening import choose, get_default_session, new_session
from mars.sessions.session import AnySession, Session
from mars.task import Function, Stage, Task

if TYPE_CHECKING:
    from mars.executors.futures import AnyFuture
    from mars.task import Buffer, Call

P = ParamSpec("P")
R = TypeVar("R")


class Calls(CallSet):
    """The calls of one executor that have not ended, and what becomes of them.

    Parameters
    ----------
    session : Session
        Where they run.
    own : bool
        Whether the session ends with the executor.
    options : Options
        Of each call.
    most : int or None
        How many of them may be in flight at a time.
    """

    __slots__ = (
        "__weakref__", "_closing", "_pending", "_pid", "_room", "_run", "_stream", "_telling",
        "_unread", "broken", "cancelling", "changed", "closed", "lock", "open", "options", "own",
        "prepared", "session",
    )  # fmt: skip

    def __init__(self, session: Session, own: bool, options: Options, most: int | None) -> None:
        super().__init__(most)
        self.session = session
        self.own = own
        self.options = options
        options.in_set = self
        self.open: dict[AnyFuture, None] = {}  # futures that have not ended
        self.closed = False
        self.cancelling = False  # what comes back from a worker is cancelled
        self.broken: BaseException | None = None
        self.prepared = False  # whether an initializer may have failed
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._closing = False
        self._telling = 0  # futures whose callbacks are being called
        self._run: Run | None = None  # of the stream, the last one
        self._pid = os.getpid()
        # Futures with results that only the engine can read. Who holds none of them needs none.
        self._unread: weakref.WeakSet[AnyFuture] = weakref.WeakSet()
        self._stream = session.engine.stream(session.realm, self._begin)
        # Where the engine takes whole runs only, calls wait here for their turn.
        self._pending: deque[AnyFuture] = deque()
        self._room = most or max(1, int(session.engine.n_cpu))

    # -- starting ------------------------------------------------------------------------------

    def start(self, future: AnyFuture, call: SubmittedCall) -> None:
        """Have a call run as soon as there is room for it."""
        self.open[future] = None
        if self.closed:  # by another thread, which may not have seen this future
            self.left(future)
            raise RuntimeError("cannot schedule new futures after shutdown")
        runs = self.session.runs
        try:
            if self._stream is None:
                self._pending.append(future)
                self._begin_pending()
            elif (
                call.inputs
                or call.stored is not None
                or call.function.large
                or runs.checkpoint is not None
            ):
                runs.submit_one(call, lambda run: self._run_over(run, future, call))
            else:
                self._stream.add(call, runs.next_place())
        except BaseException:
            self.left(future)
            raise

    def _begin(self) -> Run:
        """A run for calls of the stream; in the engine's thread."""
        run = self.session.runs.begin_one()
        run.on_end(self._stream_over)
        self._run = run
        return run

    def _stream_over(self, run: Run) -> None:
        """A run has ended: calls that were not at an end then never will be."""
        run.failure = None
        if run.error is None and not run.cancelled:
            return
        for future in list(self.open):
            task = future.task
            if task is not None and run in task.runs:
                self._cut_short(future, run)

    def _run_over(self, run: Run, future: AnyFuture, call: SubmittedCall) -> None:
        """The run of one call has ended."""
        task = call.task_in(self.session.realm)
        if task is not None and task.finished:
            self.settled_as(future, task)
        else:
            self._cut_short(future, run)

    def _cut_short(self, future: AnyFuture, run: Run) -> None:
        if run.error is not None:
            future.fail(run.error, future.task)
        else:
            future.cancel_anyway()
        self.left(future)

    def _begin_pending(self) -> None:
        """Where each call is a run: begin as many as may be in flight."""
        while True:
            with self.changed:
                if not self._pending or self._room <= 0:
                    return
                future = self._pending.popleft()
                if not future.claim():
                    continue
                future.begin()
                self._room -= 1
            try:
                call = future.call
                self.session.runs.submit_one(call, lambda run, f=future: self._next(run, f))  # type: ignore[misc]
            except BaseException as error:
                with self.changed:
                    self._room += 1
                future.fail(error)
                self.left(future)

    def _next(self, run: Run, future: AnyFuture) -> None:
        self._run_over(run, future, future.call)
        with self.changed:
            self._room += 1
        self._begin_pending()

    # -- what the scheduler says, in the engine's thread ---------------------------------------

    def claim(self, task: Task) -> bool:
        future: AnyFuture | None = getattr(task.call, "future", None)
        return future is not None and future.claim()

    def begins(self, task: Task) -> None:
        future: AnyFuture | None = getattr(task.call, "future", None)
        if future is not None:
            future.begin()

    def unclaim(self, task: Task) -> None:
        future: AnyFuture | None = getattr(task.call, "future", None)
        if future is not None:
            future.unclaim()
            if self.cancelling and not future.running():
                future.cancel_anyway()
                self.left(future)

    def settled(self, task: Task) -> None:
        future: AnyFuture | None = getattr(task.call, "future", None)
        if future is not None:
            self.settled_as(future, task)

    def settled_as(self, future: AnyFuture, task: Task) -> None:
        """A call has ended as its task says."""
        run = self._run
        if run is not None and run.partial:
            run.partial.pop(task, None)
        if future.settle(task):
            self._unread.add(future)
            if self.prepared and task.stage is Stage.FAILED:
                delivery.put(future.read)  # it may be the initializer that has failed
        self.open.pop(future, None)  # before the look: who closes looks the other way round
        if self.closed:
            self.left(future)

    def left(self, future: AnyFuture) -> None:
        """A future has ended, or was cancelled."""
        self.open.pop(future, None)
        if self.closed and not self.open:
            with self.changed:
                self.changed.notify_all()
                if not self.own or self._closing:
                    return
            # If the system refuses a thread, the end of the program ends the session.
            delivery.put(self.close)

    def tells(self, change: int) -> None:
        """So many futures more are having their callbacks called."""
        with self.changed:
            self._telling += change
            self.changed.notify_all()

    def wait_told(self) -> None:
        """Wait until all callbacks have been called, at the end of the program."""
        with self.changed:
            while self._telling > 0:
                self.changed.wait()

    # -- ending --------------------------------------------------------------------------------

    def broken_by(self, error: BaseException) -> None:
        """The executor cannot be used any more: futures that have not ended fail."""
        with self.changed:
            if self.broken is not None:
                return
            self.broken = error
        import logging  # late: it takes 5 ms, and is most often not needed

        log = logging.getLogger("concurrent.futures")  # as the standard library does
        log.critical("Exception in initializer:", exc_info=error)
        for future in list(self.open):
            future.fail(error)
            self.left(future)

    def cancel_pending(self) -> None:
        """Cancel all futures that have not started.

        In a session of our own nobody else has the workers. So as many calls as there are workers
        count as started as soon as they are submitted, as in the standard library.
        """
        futures = list(self.open)
        if self.own:
            free = int(self.session.engine.n_cpu) - sum(future.running() for future in futures)
            futures = [future for future in futures if not future.running()][max(0, free) :]
        else:
            self.cancelling = True
        for future in futures:
            future.cancel()

    def close(self, wait: bool = True) -> None:
        """Take no more calls; then wait for those that are there, and end a session of our own."""
        self.closed = True
        if os.getpid() != self._pid:
            return
        if not wait:
            if not self.open and self.own:
                delivery.put(self.close)
            return
        with self.changed:
            while self.open:
                self.changed.wait()
            if not self.own or self._closing:
                return
            self._closing = True
        for future in list(self._unread):
            future.read()
        self.session.stop_server()


_alive: weakref.WeakSet[Calls] = weakref.WeakSet()
"""What has to end before the program does, as with every executor of the standard library."""

os.register_at_fork(after_in_child=_alive.clear)


def _end_all() -> None:
    for calls in list(_alive):
        calls.close()
        calls.wait_told()


# So calls that are there at the end of the program are waited for, and its engines are still open.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]


class Executor(StandardExecutor):
    """Runs calls in worker processes, in place of `concurrent.futures.ProcessPoolExecutor`.

    What it adds: each future has the log of its call and says where it ran. Functions may be
    lambdas and closures. A worker that dies costs one future, and the executor goes on. It runs on
    clusters, too.

    Parameters
    ----------
    max_workers : int, optional
        How many of its calls may be in flight at a time. Default: as many as the session has cores.
    session : Session, optional
        Where the calls run. Default: the default session, or the session of the call that this
        stands in. If there is none, the executor starts an engine on this machine with
        ``max_workers`` workers, and ends it in `shutdown`.
    initializer : callable, optional
        Called in each worker before the first call there, also in workers that replace others. If
        it raises, the executor is broken, as in the standard library.
    initargs : tuple, default ()
        Its arguments.
    mp_context : object, optional
        Accepted for programs that are written for `ProcessPoolExecutor`, without effect.
    **options
        Options of each call, as of `mars.remote.spawn`: ``cpus``, ``memory``, ``timeout``,
        ``retries``, ``priority``, ``name``, …. ``idempotent`` is False unless it is given, or
        ``retries`` or ``death_retries`` is: a call whose worker died is not started again.

    Raises
    ------
    ValueError
        ``max_workers`` is less than 1, or there is no such option.
    TypeError
        ``initializer`` cannot be called, or an argument has the wrong type.
    EncodeError
        The initializer or its arguments do not pickle.
    StartupFailed
        Worker processes do not start.

    Notes
    -----
    Source: `concurrent.futures.Executor`. docs/howto/executor.md says what differs.

    Examples
    --------
    >>> with Executor(max_workers=2) as executor:
    ...     future = executor.submit(pow, 2, 10)
    ...     squares = list(executor.map(lambda x: x * x, range(4)))
    >>> future.result(), squares
    (1024, [0, 1, 4, 9])
    """

    __module__ = "mars"  # where programs find it

    def __init__(
        self,
        max_workers: int | None = None,
        session: AnySession | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[object, ...] = (),
        *,
        mp_context: object = None,
        **options: object,
    ) -> None:
        if max_workers is not None:
            if isinstance(max_workers, bool) or not isinstance(max_workers, Integral):
                raise TypeError(f"max_workers has to be an int, got {max_workers!r}")
            if max_workers < 1:
                raise ValueError("max_workers must be greater than 0")
            max_workers = int(max_workers)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        chosen = parse_options(
            _once_by_default(options),
            unknown=lambda name: unknown_keyword(name, options[name], _PARAMETERS),
        )
        if "retry_on" in options:
            pack_retry_on(chosen)
        there = get_default_session() if session is None else choose(session)
        own = there is None
        if there is None:
            processes = "auto" if chosen.threads else max_workers or "auto"
            there = new_session(n_cpu=processes, default=False)
        there.realm.check_open()
        # An engine of its own has so many workers, unless they are threads.
        most = None if own and not chosen.threads else max_workers
        self._calls = calls = Calls(there, own, chosen, most)
        self._finalizer = weakref.finalize(self, _dropped, calls)
        self._finalizer.atexit = False
        _alive.add(calls)
        # Others read this one: dask and adaptive do.
        self._max_workers = max_workers or chosen.threads or max(1, int(there.engine.n_cpu))
        self._checked = False
        self._preparing: Preparing | None = None
        if initializer is not None:
            self._preparing = Preparing(initializer, tuple(initargs))
            calls.prepared = True

    @property
    def _broken(self) -> BaseException | None:
        # By this name the standard library has it, and others look at it.
        return self._calls.broken

    @property
    def session(self) -> Session:
        """The session in which the calls run."""
        return self._calls.session

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> CallFuture[R]:
        """Start ``fn(*args, **kwargs)`` in a worker, as soon as one has room for it.

        Parameters
        ----------
        fn : callable
            What to call. It and its arguments are taken as they are now. An `Object` among the
            arguments becomes an input, so what `mars.remote.put` has stored is not sent again.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        CallFuture
            A `concurrent.futures.Future` that also has ``fetch_log()`` and ``attempts()``. If
            something does not pickle, its error is an `EncodeError` that is a `PicklingError`, too.

        Raises
        ------
        RuntimeError
            The executor was shut down.
        BrokenExecutor
            Its initializer has failed (a RuntimeError).
        TypeError
            ``fn`` cannot be called.
        NoAvailableBand
            A call asks for more than any group of workers has.
        SessionClosed
            The session was closed (a RuntimeError).
        """
        calls = self._calls
        if calls.broken is not None:
            raise calls.broken
        if calls.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        modules.note_importers()
        call, error = _described(fn, args, kwargs, calls.options, self._preparing)
        future: CallFuture[R] = CallFuture(calls, call)
        call.future = future
        if error is not None:
            future.fail(error)
            return future
        if not self._checked:
            calls.session.realm.check_open()
            calls.session.engine.check(call)
            self._checked = True
        calls.start(future, call)
        return future

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[object],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Call ``fn`` with one argument from each iterable, as the builtin ``map`` does.

        Parameters
        ----------
        fn : callable
            What to call.
        *iterables : iterable
            The shortest one decides how many calls there are. They are read at once, unless
            ``buffersize`` is given.
        timeout : float, optional
            Seconds from now in which all results have to be there.
        chunksize : int, default 1
            So many items are one call.
        buffersize : int, optional
            So many results, of ``chunksize`` items each, may be there or on their way that were
            not taken yet. Further items are read as results are taken. Default: no limit.

        Returns
        -------
        iterator
            The results, in the order of the items. If it is closed or fails, calls that have not
            started are cancelled.

        Raises
        ------
        TypeError
            ``fn`` cannot be called, or ``buffersize`` is no int.
        ValueError
            ``chunksize`` or ``buffersize`` is less than 1.
        RuntimeError
            The executor was shut down.
        TimeoutError
            While the results are taken: the time is over.
        """
        check_function(fn)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if isinstance(buffersize, bool) or not isinstance(buffersize, Integral):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        end_at = None if timeout is None else time.monotonic() + timeout
        items: Iterator[tuple[object, ...]] = zip(*iterables, strict=False)
        if chunksize == 1:
            started = (self.submit(fn, *item) for item in items)
            return _results(started, buffersize, end_at)
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        parts: Iterator[CallFuture[Iterable[R]]] = (
            self.submit(_each, fn, chunk) for chunk in chunks
        )
        return itertools.chain.from_iterable(_results(parts, buffersize, end_at))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end a session that the executor has started.

        Parameters
        ----------
        wait : bool, default True
            Whether to wait until all calls have ended. False: they go on, and the session ends
            after them; so does the program.
        cancel_futures : bool, default False
            Whether to cancel the calls that have not started.
        """
        calls = self._calls
        calls.closed = True
        if cancel_futures:
            calls.cancel_pending()
        calls.close(wait)

    if not TYPE_CHECKING:  # else a type checker would take any name for one that is there

        def __getattr__(self, name: str) -> object:
            from mars.calls import mistakes

            raise mistakes.missing(self, name)

    def __repr__(self) -> str:
        count = len(self._calls.open)
        state = "shut down" if self._calls.closed else f"{count} call{'s'[: count != 1]} open"
        return f"<mars.Executor of {self._max_workers} workers, {state}>"


_PARAMETERS: Final = ("max_workers", "session", "initializer", "initargs", "mp_context")


def _once_by_default(options: dict[str, object]) -> dict[str, object]:
    """Options of calls; a call is started once, unless the program says that more may be."""
    if options.get("retries") or options.get("death_retries") or "idempotent" in options:
        return options or {"idempotent": True}
    return {**options, "idempotent": False}


def _described(
    fn: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    options: Options,
    preparing: Preparing | None,
) -> tuple[SubmittedCall, BaseException | None]:
    """The call as it travels, and the error if it cannot."""
    check_function(fn)
    error: BaseException | None = None
    function, payload = _NOTHING, b""
    inputs: tuple[tuple[Call, int], ...] = ()
    buffers: Sequence[Buffer] = ()
    try:
        function = functions.describe(fn, codec.Keep)
        if preparing is not None:
            function = preparing.described(fn, function)
    except codec.HoldsObject:
        function, args = applied(fn), (fn, *args)
        if preparing is not None:
            function = preparing.described(attempt_call.apply, function)
    except (Exception, SystemExit) as caught:  # what pickles may raise anything
        error = function_error(fn, options, caught)
    if error is None:
        try:
            payload, buffers, found = codec.encode_arguments(args, kwargs)
            inputs = tuple([(one.call, one.index) for one in found]) if found else ()
        except (Exception, SystemExit) as caught:
            error = argument_error(args, kwargs, options.name or function.name, caught)
    call = SubmittedCall(function, payload, tuple(buffers), inputs, options, None)
    return call, error


_NOTHING: Final = Function(b"", "a call that does not pickle", b"")


def _dropped(calls: Calls) -> None:
    """The program has dropped an executor; by the collector, so in any thread."""
    calls.closed = True
    delivery.put(lambda: calls.close(wait=False))


def _results(
    started: Iterator[CallFuture[R]], buffersize: int | None, end_at: float | None
) -> Iterator[R]:
    """The results of futures that are started here: all of them at once, or a few ahead."""
    futures = deque(itertools.islice(started, buffersize))

    def take() -> Iterator[R]:
        try:
            while futures:
                if buffersize is not None:
                    futures.extend(itertools.islice(started, 1))
                yield _result(futures.popleft(), end_at)
        finally:
            for future in futures:
                future.cancel()

    return take()


def _result(future: CallFuture[R], end_at: float | None) -> R:
    """The result of a future, which nobody holds afterwards."""
    try:
        return future.result(None if end_at is None else end_at - time.monotonic())
    finally:
        future.cancel()
        del future


# -- in a worker ----------------------------------------------------------------------------------


def _each(fn: Callable[..., R], items: list[tuple[object, ...]]) -> Iterable[R]:
    """The calls of one chunk of `Executor.map`."""
    return [fn(*item) for item in items]


__all__ = ["Calls", "Executor"]
