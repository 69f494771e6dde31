"""The future that ``execute(wait=False)`` gives: for scripts, threads and asyncio alike.

A `concurrent.futures.Future`, so `concurrent.futures.wait` and `as_completed`,
`asyncio.wrap_future` and callbacks work with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import Any

from mars import delivery
from mars.engine import Engine, Run
from mars.errors import UsageError
from mars.settings import FUTURE_CANCEL_WAIT_S


class Execution(Future[Any]):
    """A run in the background.

    Its result is what was executed, so ``obj.execute(wait=False).result().fetch()`` gives the
    value.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        finish: Callable[[], Any],
        objects: list[Any],
        listen: Callable[[Callable[[float | None], bool], float | None], bool],
        plain: bool = False,
    ) -> None:
        super().__init__()
        self._run = run
        self._listen = listen  # waits by a function, and tells of silent calls meanwhile
        self._engine = engine
        self._finish = finish
        self._objects = objects
        self._plain = plain  # nothing is unpickled to make the result
        self._guard = threading.Lock()
        self._takers = 0  # threads that wait, and will settle it
        self._settling = threading.RLock()
        self._making = False  # somebody settles it just now
        self._in_delivery = False  # and that is the thread for callbacks, too
        self._callbacks_due = False
        self._undelivered = False  # the system refused a thread for that
        self.set_running_or_notify_cancel()

    def begin(self) -> None:
        """Follow the run to its end."""
        self._run.on_end(self._ended)
        self._run.wait_beside()

    # How a future gets its result. To make it, values and errors are unpickled, which is code of
    # the program. So the engine's thread does not: who waits without a time limit does it, or, if
    # nobody does, the thread of `mars.delivery`, which also calls callbacks.

    def _ended(self, run: Run) -> None:
        """In the engine's thread: the run has ended."""
        with self._guard:
            somebody_waits = self._takers > 0
        if somebody_waits:
            return
        plain = self._plain and (run.failure is None or not run.stop_on_error)
        if plain and not self._done_callbacks:  # type: ignore[attr-defined]
            self._settle()
        else:
            self._deliver()

    def _deliver(self) -> None:
        """Have the future settled soon; if the system refuses a thread, once somebody asks."""
        self._undelivered = not delivery.put(self._settle_in_delivery)
        if self._undelivered:
            with self._condition:
                self._condition.notify_all()

    def done(self) -> bool:
        """Whether it has its result or its error, or was cancelled."""
        if self._undelivered and not super().done():
            self._deliver()
        if self._callbacks_due and not self._in_delivery:
            self._callbacks_due = False
            self._invoke_callbacks()
        return super().done()

    def _settle_in_delivery(self) -> None:
        """As `_settle`, in the thread that calls callbacks."""
        with self._settling:
            self._in_delivery = True
            try:
                self._settle()
            finally:
                due, self._callbacks_due = self._callbacks_due, False
                self._in_delivery = False
        if due:  # without the lock: a callback may wait for who waits for this
            self._call_back()

    def _settle(self) -> None:
        """Get the result of the run, which has ended, unless somebody else has."""
        with self._settling:
            if self.done():
                return
            if self._making:
                raise UsageError(
                    "a future was asked for its result by the code that unpickles this very result"
                )
            if self._run.cancelled and self._run.error is None:
                self._settle_cancelled()
                return
            self._making = True
            try:
                result = self._finish()
            except KeyboardInterrupt as error:
                if threading.current_thread() is threading.main_thread():
                    raise  # most likely Ctrl-C: the result is another matter
                self.set_exception(error)
            except BaseException as error:
                self.set_exception(error)
            else:
                self.set_result(result)
            finally:
                self._making = False

    def set_exception(self, exception: BaseException | None) -> None:
        """Keep the error that the run ended with.

        A StopIteration would end whatever generator or coroutine asks for it, and a future of
        asyncio refuses it, so that who awaits would wait for ever. As out of any coroutine, it
        comes as a RuntimeError that has it as its cause.

        Parameters
        ----------
        exception : BaseException
            The error.
        """
        super().set_exception(None if exception is None else awaitable_error(exception))

    def _settle_cancelled(self) -> None:
        with self._condition:
            self._state = "CANCELLED_AND_NOTIFIED"
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        # In a thread of its own: a callback may itself wait for a run. If the system refuses one,
        # by who settles this, or asks for it later.
        if not self._done_callbacks:  # type: ignore[attr-defined]
            return
        if self._in_delivery:
            self._callbacks_due = True
        elif not delivery.put(self._call_back):
            if threading.current_thread() is self._run.server:
                self._callbacks_due = True
            else:
                self._call_back()

    def _call_back(self) -> None:
        for callback in self._done_callbacks:  # type: ignore[attr-defined]
            try:
                callback(self)
            except BaseException:  # SystemExit, too: the next one is called all the same
                _log.exception("exception calling callback for %r", self)

    def _await_end(self, timeout: float | None) -> float | None:
        """Wait for the result; how much of the time is left."""
        if self.done():
            return timeout
        if timeout is not None:
            deadline = time.monotonic() + timeout
            self._listen(self._wait_settled, timeout)
            if self._undelivered and not self.done():
                self._settle()
            return max(0.0, deadline - time.monotonic())
        with self._guard:
            self._takers += 1
        try:
            self._listen(self._run.wait, None)
            self._settle()
        finally:
            with self._guard:
                self._takers -= 1
            if self._run.ended and not super().done():  # interrupted: nobody else may know
                self._deliver()
        return None

    def _wait_settled(self, timeout_s: float | None) -> bool:
        with self._condition:
            if not super().done() and not self._undelivered:
                self._condition.wait(timeout_s)
        return super().done() or self._undelivered

    def progress(self) -> float:
        """Part of the run that is done, from 0 to 1, with what running calls tell of themselves."""
        return self._run.fraction()

    def cancel(self) -> bool:
        """Stop the run; False when it has ended already.

        Calls that are done stay done; running ones get a KeyboardInterrupt and, when that does
        not help, their process is replaced: half a second later, or at once when `cancel` is
        called again. `result` then raises CancelledError.
        """
        if self.done():
            if self.cancelled():
                self._engine.cancel(self._run)
            return self.cancelled()
        run = self._run
        self._engine.cancel(run)
        if run.wait(FUTURE_CANCEL_WAIT_S) and run.cancelled and run.error is None:
            self._settle()
        return self.cancelled()

    def cancel_soon(self) -> None:
        """Ask for what `cancel` does, and wait for nothing. The future is done a moment later."""
        if not self._run.ended:
            self._engine.cancel(self._run)

    def result(self, timeout: float | None = None) -> Any:
        """What was executed, when all of it is done.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the most; None: for ever.

        Raises
        ------
        TimeoutError
            It takes longer; the run goes on.
        CancelledError
            The run was cancelled.
        BaseException
            The first failure, with ``on_error="raise"``.
        """
        return super().result(self._await_end(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that `result` would raise; None when there is none.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the most; None: for ever.

        Raises
        ------
        TimeoutError
            It takes longer; the run goes on.
        CancelledError
            The run was cancelled.
        """
        return super().exception(self._await_end(timeout))

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    @property
    def to_execute_tileables(self) -> list[Any]:
        """What is executed."""
        return list(self._objects)

    def get_future(self) -> Execution:
        """The future itself; the original wraps one."""
        return self

    def profiling_result(self) -> dict[str, Any]:
        """Empty: the original's profile of its own services."""
        return {}

    def __repr__(self) -> str:
        if not self.done():
            state = f"running, {self.progress():.0%}"
        elif self.cancelled():
            state = "cancelled"
        elif super().exception() is not None:
            state = f"failed: {type(super().exception()).__name__}"
        else:
            state = "done"
        return f"<Execution of {len(self._objects)} object(s), {state}>"


def awaitable_error(error: BaseException) -> BaseException:
    """An error that a future may have: a RuntimeError in place of a StopIteration."""
    if not isinstance(error, StopIteration):
        return error
    told = RuntimeError(f"the call raised {error!r}")
    told.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told


_log = logging.getLogger("concurrent.futures")

__all__ = ["CancelledError", "Execution", "awaitable_error"]
