"""The future of one call that `mars.Executor.submit` has started.

Results are pickles when the engine's thread tells of them. Who asks for the result unpickles it,
because that is code of the program: it may take long, and must not hold up the engine. So a future
can have ended and still have its result to read.

::

    engine's thread:   claim (PENDING → RUNNING)  ─►  settle (→ FINISHED, the pickle is kept)
    asking thread:     cancel (PENDING → CANCELLED)   result: unpickles, once
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from mars import delivery
from mars.attempt import codec
from mars.errors import EncodeError, MarsError, WorkerDied
from mars.execution import awaitable_error
from mars.logs import LogFetcher, LogReader, LogSource, follow, whole_text
from mars.observe.attempts import Attempt, Times, attempts_of, times_of
from mars.sessions.session import Session
from mars.settings import PROGRESS_LOAD_S
from mars.task import TIMING, Call, Output, Stage, Task

if TYPE_CHECKING:
    from mars.logs import Offsets

T = TypeVar("T")

_CANCELLED: Final = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED})


class Owner(Protocol):
    """The calls of one executor, as a future sees them."""

    session: Session
    lock: threading.RLock
    changed: threading.Condition

    def left(self, future: AnyFuture) -> None:
        """A future has ended, or was cancelled; in whatever thread."""

    def tells(self, change: int) -> None:
        """So many futures more are having their callbacks called."""

    def broken_by(self, error: BaseException) -> None:
        """A future found that the executor cannot be used any more."""


class SubmittedCall(Call):
    """A call of an executor; it knows its future until it has ended."""

    __slots__ = ("future",)

    future: AnyFuture | None


class CallFuture(Future[T], Generic[T]):
    """The call that `mars.Executor.submit` has started: a `concurrent.futures.Future`.

    It is pending until a worker gets the call. Until then `cancel` keeps it from starting. A call
    that has started is not stopped by `cancel`, which then returns False.
    """

    __module__ = "mars"  # where programs find it

    def __init__(self, owner: Owner, call: SubmittedCall) -> None:
        # In place of `Future.__init__`: a condition of its own costs as much as all else here, so
        # the futures of one executor share one. Who waits has a lock of its own, see `_wait`.
        self._condition = owner.changed
        self._lock = owner.lock  # of that condition, which is left without a frame of its own
        self._state = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._waiters = []
        self._done_callbacks: list[Callable[[object], object]] = []
        self._sleepers: list[threading.Lock] | None = None
        self._owner = owner
        self._call: SubmittedCall = call
        self._task: Task | None = None  # once it has ended
        self._sent = False  # a worker has it, and has begun with it or is about to
        self._unread = False  # it has ended, and its result or error is still to be made
        self._data: bytes | None = None  # the pickle of the result, if that is all of it
        self._output: Output | None = None  # keeps a result with large parts
        self._fetcher: LogReader | None = None
        call.handles += 1

    # -- in the engine's thread ----------------------------------------------------------------

    def claim(self) -> bool:
        """A worker is about to get the call. False: it was cancelled, and must not start."""
        with self._lock:
            self._sent = self._state in (PENDING, RUNNING)
            return self._sent

    def begin(self) -> None:
        """Nothing is in front of the call in its worker any more."""
        with self._lock:
            if self._state == PENDING:
                self._state = RUNNING

    def unclaim(self) -> None:
        """The worker has given the call back unstarted."""
        self._sent = False

    def settle(self, task: Task) -> bool:
        """The call has ended. Nothing is unpickled here.

        Returns
        -------
        bool
            Whether its result can be read only as long as the engine runs.
        """
        call = self._call
        call.future = None
        needs_engine = True
        with self._lock:
            if self._state in (CANCELLED_AND_NOTIFIED, FINISHED):
                return self._unread and self._data is None
            self._task = task
            stage = task.stage
            if stage is Stage.DONE:
                result = task.result
                self._unread = True
                if type(result) is bytes:
                    self._data = result
                    needs_engine = False
                    call.leave(task)
                else:
                    self._output = Output(call, 0)
                self._end(FINISHED)
            elif stage is Stage.FAILED:
                self._unread = True
                self._end(FINISHED, failed=True)
            else:
                needs_engine = False
                self._end(CANCELLED_AND_NOTIFIED)
        if self._done_callbacks:
            self._tell()
        return needs_engine

    def fail(self, error: BaseException, task: Task | None = None) -> None:
        """The call has ended without a task that says how."""
        self._call.future = None
        with self._lock:
            if self._state in (CANCELLED_AND_NOTIFIED, FINISHED):
                return
            self._task, self._exception = task, self._known(error)
            self._end(FINISHED, failed=True)
        self._tell()

    def cancel_anyway(self) -> None:
        """The engine has stopped the call, whether it had begun or not."""
        self._call.future = None
        with self._lock:
            if self._state in (CANCELLED_AND_NOTIFIED, FINISHED):
                return
            self._end(CANCELLED_AND_NOTIFIED)
        self._tell()

    @property
    def call(self) -> SubmittedCall:
        """The call."""
        return self._call

    @property
    def task(self) -> Task | None:
        """The task of the call, once there is one."""
        return self._task or self._call.task_in(self._owner.session.realm)

    def _end(self, state: str, *, failed: bool = False) -> None:
        """Wake all who wait; the condition is held."""
        self._state = state
        for waiter in self._waiters:
            if state != FINISHED:
                waiter.add_cancelled(self)
            elif failed:
                waiter.add_exception(self)
            else:
                waiter.add_result(self)
        if self._sleepers is not None:
            for sleeper in self._sleepers:
                sleeper.release()
            self._sleepers = None

    def _tell(self) -> None:
        """Have callbacks called, in a thread that is not the engine's."""
        if not self._done_callbacks:
            return
        self._owner.tells(1)
        if not delivery.put(self._call_back):
            self._call_back()  # the system refuses a thread

    def _call_back(self) -> None:
        try:
            self._invoke_callbacks()  # type: ignore[attr-defined]
        finally:
            self._owner.tells(-1)

    # -- the program asks ----------------------------------------------------------------------

    def cancel(self) -> bool:
        """Keep the call from starting. It waits for nothing.

        Returns
        -------
        bool
            Whether it will never run. False: it has begun, it has ended, or a worker is about to
            begin with it. A call that waits behind a long one is given back after some
            milliseconds, and can be cancelled then.
        """
        with self._lock:
            if self._state in (RUNNING, FINISHED):
                return False
            if self._sent and self._state == PENDING:
                return False
            if self._state in _CANCELLED:
                return True
            self._end(CANCELLED_AND_NOTIFIED)
        self._owner.left(self)
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def result(self, timeout: float | None = None) -> T:
        """What the call returned, once it has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the most. None: for ever.

        Returns
        -------
        object
            The same object each time. Large arrays are not copied: they are mapped.

        Raises
        ------
        TimeoutError
            It takes longer. The call goes on.
        CancelledError
            It was cancelled.
        BrokenExecutor
            The worker died under the call; only this future is concerned. It is a
            `mars.errors.WorkerDied`, too.
        BaseException
            What the function raised.
        """
        self._wait_ended(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                del self  # no cycle with the frames of the error
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that `result` would raise. None: there is none.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the most. None: for ever.

        Raises
        ------
        TimeoutError
            It takes longer. The call goes on.
        CancelledError
            It was cancelled.
        """
        self._wait_ended(timeout)
        return self._exception

    def _wait_ended(self, timeout: float | None) -> None:
        if self._state != FINISHED:
            self._listen(timeout)
        if self._state in _CANCELLED:
            raise CancelledError(f"{self._call.name} was cancelled before it started")
        if self._state != FINISHED:
            state = "still runs" if self._state == RUNNING else "has not started"
            limit_s = round(timeout or 0, 2)
            raise TimeoutError(f"{self._call.name} {state} after {limit_s:g} s; it goes on")
        if self._unread:
            self.read()

    def _listen(self, timeout: float | None) -> None:
        """Wait; whoever waits long tells of silent calls, as anywhere in mars."""
        if timeout is not None or self._wait(PROGRESS_LOAD_S):
            self._wait(timeout)
        else:
            self._owner.session.runs.listen(self._wait, None)

    def _wait(self, timeout_s: float | None) -> bool:
        with self._lock:
            if self._state not in (PENDING, RUNNING):
                return True
            sleeper = threading.Lock()
            sleeper.acquire()
            if self._sleepers is None:
                self._sleepers = [sleeper]
            else:
                self._sleepers.append(sleeper)
        if not sleeper.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0)):
            with self._lock:
                if self._sleepers is not None and sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)
        return self._state not in (PENDING, RUNNING)

    def read(self) -> None:
        """Make the result or the error of a call that has ended, unless that has been done."""
        task, data, output = self._task, self._data, self._output
        if not self._unread or task is None:
            return
        # Without the lock, as this is code of the program. If two threads do it, the first counts.
        result: T | None = None
        error: BaseException | None = None
        engine = self._owner.session.engine
        if task.stage is Stage.FAILED:
            error = self._known(engine.failure(task))
        else:
            try:
                if data is not None:
                    result = codec.loads(data)
                else:
                    result = cast(T, engine.value(task, 0))
            except KeyboardInterrupt:
                raise  # most likely Ctrl-C, and the result can still be made
            except BaseException as caught:
                if not self._unread:
                    return  # another thread has made it, and given back what it was made of
                error = caught
                if not isinstance(caught, MarsError):
                    from mars.executors.lost import not_unpickled

                    error = not_unpickled(self._call.name, "result", caught)
        del output
        with self._lock:
            if self._unread:
                self._result, self._exception = result, error
                self._unread = False
                self._data = self._output = None

    def _known(self, error: BaseException) -> BaseException:
        """An error as programs of `concurrent.futures` know it."""
        if type(error).__name__ == "InitializerFailed":
            self._owner.broken_by(error)
        elif isinstance(error, (WorkerDied, EncodeError)):
            from mars.executors.lost import as_in_a_pool

            return as_in_a_pool(error)
        elif self._failed_before_its_call():
            from mars.executors.lost import not_unpickled

            return not_unpickled(self._call.name, "arguments", error)
        return awaitable_error(error)

    def _failed_before_its_call(self) -> bool:
        """Whether the last attempt failed before the function was called."""
        task = self._task
        if task is None or task.timing is None or task.blame or task.failed_input is not None:
            return False
        received, _, called, *_ = TIMING.unpack(task.timing)
        return bool(called == received)

    def _get_snapshot(self) -> tuple[bool, bool, object, BaseException | None]:
        # What asyncio reads from Python 3.14 on.
        if self._state == FINISHED:
            self.read()
            return True, False, self._result, self._exception
        cancelled = self._state in _CANCELLED
        return cancelled, cancelled, None, None

    if not TYPE_CHECKING:  # else a type checker would take any name for one that is there

        def __getattr__(self, name: str) -> object:
            from mars.calls import mistakes

            raise mistakes.missing(self, name)

    def __await__(self) -> Generator[object, None, T]:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def __repr__(self) -> str:
        with self._lock:
            state = self._state.lower().partition("_")[0]
            if self._state == FINISHED and not self._unread:
                if self._exception is not None:
                    state += f" raised {type(self._exception).__name__}"
                else:
                    state += f" returned {type(self._result).__name__}"
        return f"<CallFuture of {self._call.name} at {id(self):#x} state={state}>"

    # -- what only mars tells ------------------------------------------------------------------

    def fetch_log(
        self, offsets: Offsets | None = None, sizes: Offsets | None = None, follow: bool = False
    ) -> LogFetcher | Iterator[str]:
        """What the call has printed, also while it runs, and after its worker died.

        Parameters
        ----------
        offsets, sizes : int, str, dict or list, optional
            What to read, as of `mars.remote.Object.fetch_log`. Default: from where the last read
            ended, 1 MiB at the most.
        follow : bool, default False
            True: return an iterator of the lines, as they are printed, until the call has ended.

        Returns
        -------
        LogFetcher or iterator of str
            The text.
        """
        if follow:
            return _follow(_Log(self))
        if self._fetcher is None:
            self._fetcher = LogReader(self._call.key, self._log_source)
        return self._fetcher.read(offsets=offsets, sizes=sizes)

    @property
    def log(self) -> str:
        """All that the call has printed so far, also while it runs, and after its worker died.

        Each look gives the whole log again; `fetch_log` reads a log in parts.
        """
        source = self._log_source()
        return "" if source is None else whole_text(source)

    def _log_source(self) -> LogSource | None:
        task = self.task
        return None if task is None else self._owner.session.engine.log(task)

    def attempts(self) -> list[Attempt]:
        """Where each attempt of the call ran, and how it ended, first to last.

        Returns
        -------
        list of Attempt
            The attempts that have ended. There are several only if the executor was made with
            ``idempotent=True`` or ``retries=``.
        """
        task = self.task
        return [] if task is None else attempts_of(task)

    def times(self) -> Times | None:
        """When the last attempt went through its stages.

        Returns
        -------
        Times or None
            Eight moments, in seconds of `time.monotonic`. None: the call has not ended.
        """
        task = self.task
        return None if task is None else times_of(task)


_follow: Final[Callable[[LogSource], Iterator[str]]] = follow


class _Log:
    """The log of a future's call, which may not have begun."""

    def __init__(self, future: AnyFuture) -> None:
        self._future = future

    def size(self) -> int:
        """Bytes so far."""
        source = self._future._log_source()
        return 0 if source is None else source.size()

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        source = self._future._log_source()
        return b"" if source is None else source.read(start, limit)

    def kept_from(self, start: int) -> int:
        """``start``, or where the log goes on if what stood there was left out."""
        source = self._future._log_source()
        return start if source is None else source.kept_from(start)

    def finished(self) -> bool:
        """Whether no more will come."""
        return self._future.done()


AnyFuture = CallFuture[Any]
"""Whatever its function gives."""

__all__ = ["CallFuture", "Owner", "SubmittedCall"]
