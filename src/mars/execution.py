"""The future that ``execute(wait=False)`` gives: for scripts, threads and asyncio alike.

A `concurrent.futures.Future`, so `concurrent.futures.wait` and `as_completed`,
`asyncio.wrap_future` and callbacks work with it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import Any

from mars.engine import Engine, Run


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
        wait: Callable[[float | None], bool],
    ) -> None:
        super().__init__()
        self._run = run
        self._wait = wait
        self._engine = engine
        self._finish = finish
        self._objects = objects
        self.set_running_or_notify_cancel()

    def begin(self) -> None:
        """Follow the run to its end."""
        self._run.on_end(self._ended)
        self._run.wait_beside()

    def _ended(self, run: Run) -> None:
        if run.cancelled and run.error is None:
            self._settle_cancelled()
            return
        try:
            result = self._finish()
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(result)

    def _settle_cancelled(self) -> None:
        with self._condition:
            self._state = "CANCELLED_AND_NOTIFIED"
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        # The engine's own thread ends runs. A callback may itself wait for a run, so it gets a
        # thread that nobody waits for.
        if self._done_callbacks:  # type: ignore[attr-defined]
            _callbacks.put(super()._invoke_callbacks)  # type: ignore[misc]

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
        self._engine.cancel(self._run)
        return self._run.wait(_CANCEL_WAIT_S) and self._run.cancelled

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
        self._wait(timeout)
        return super().result(timeout)

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
        self._wait(timeout)
        return super().exception(timeout)

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


_CANCEL_WAIT_S = 5.0
_log = logging.getLogger("concurrent.futures")


class _Callbacks:
    """One thread, started when first needed, that calls what waits for futures."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, action: Callable[[], object]) -> None:
        with self._lock:
            self._queue.put(action)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="mars-callbacks", daemon=True
                )
                self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                action = self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            try:
                action()
            except BaseException:  # SystemExit, say: Future has logged what is an Exception
                _log.exception("exception calling callback")
            del action


_IDLE_S = 0.2
_callbacks = _Callbacks()

__all__ = ["CancelledError", "Execution"]
