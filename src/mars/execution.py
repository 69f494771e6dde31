"""The future that ``execute(wait=False)`` gives: for scripts, threads and asyncio alike.

A `concurrent.futures.Future`, so `concurrent.futures.wait` and `as_completed`,
`asyncio.wrap_future` and callbacks work with it.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, NamedTuple

from mars import delivery
from mars.completion import Completed, Ends
from mars.engine import Engine, Run
from mars.errors import UsageError
from mars.settings import FUTURE_CANCEL_WAIT_S
from mars.task import Handle
from mars.tracebacks import trim


class Execution(Future[Any]):
    """A run in the background.

    Its result is what was executed, so ``obj.execute(wait=False).result().fetch()`` gives the
    value.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        conclude: Callable[[Callable[[], object]], object],
        finish: Callable[[], object],
        objects: list[Handle],
        listen: Callable[[Callable[[float | None], bool], float | None], bool],
        plain: bool = False,
        ends: Ends | None = None,
    ) -> None:
        super().__init__()
        self._run = run
        self._listen = listen  # waits by a function, and tells of silent calls meanwhile
        self._engine = engine
        self._conclude = conclude  # raises the error of the run, if it has one
        self._finish = finish  # and this makes the result
        self._objects = objects
        self._ends = ends  # which calls have ended; None: of a single object
        self._completed: Completed | None = None
        self._alive: Callable[[], list[Handle]] | None = None  # the result, once objects are let go
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
                result = self._conclude(self._finish)
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

        Of several objects that the program has iterated over, only those are there that the program
        still holds.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the most; None: for ever.

        Raises
        ------
        TimeoutError
            It takes longer; the run goes on. The message says how far it is, and what runs.
        CancelledError
            The run was cancelled. The message says how far it was.
        BaseException
            The first failure, with ``on_error="raise"``.
        """
        try:
            value = super().result(self._await_end(timeout))
        except (TimeoutError, CancelledError) as error:
            told = self._explained(error, timeout)
            trim(told)
            if told is error:
                raise
            raise told from None
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not super().done() and not error.args:
                error.args = (f"the run goes on: {self.counts()}. Its cancel() stops it",)
            trim(error)
            raise
        return self._alive() if value is _LATE and self._alive is not None else value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that `result` would raise; None when there is none.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at the most; None: for ever.

        Raises
        ------
        TimeoutError
            It takes longer; the run goes on. The message says how far it is, and what runs.
        CancelledError
            The run was cancelled. The message says how far it was.
        """
        try:
            return super().exception(self._await_end(timeout))
        except (TimeoutError, CancelledError) as error:
            raise self._explained(error, timeout) from None

    def _explained(self, error: BaseException, timeout: float | None) -> BaseException:
        """An error of waiting, with words; the error of a call stays as it is."""
        if super().done() and not super().cancelled():
            return error
        if isinstance(error, CancelledError):
            return CancelledError(
                f"the run was cancelled: {self.counts()}. execute() runs the rest"
            )
        return TimeoutError(
            f"the run has not ended after {timeout:g} s: {self.counts()}{self._what_runs()}. It "
            f"goes on"
        )

    def _what_runs(self) -> str:
        """The calls that run, the longest running first, for messages."""
        from mars.observe.states import seconds

        now = self._engine.observe()
        running = [one for one in now.workers if self._run.number in one.runs and one.attempt]
        if not running:
            return ""
        running.sort(key=lambda one: one.sent)
        told = [f"{one.name} for {seconds(now.now - one.sent)}" for one in running[:3]]
        more = f" and {len(running) - 3} more" if len(running) > 3 else ""
        return f" ({', '.join(told)}{more})"

    def counts(self) -> Counts:
        """How many calls of the run are in which state now.

        Inputs that the run needs count, too. Calls that were done before it began do not count.

        Returns
        -------
        Counts
            A named tuple with ``done``, ``running``, ``failed``, ``cancelled``, ``not_started`` and
            ``reused``. As text it is a line for people.

        Examples
        --------
        >>> from mars import remote as mr
        >>> run = mr.ExecutableTuple([mr.spawn(abs, -1), mr.spawn(abs, -2)]).execute(wait=False)
        >>> print(run.result() and run.counts())
        2 of 2 done
        """
        run = self._run
        running = 0 if run.ended else self._engine.observe().running(run.number)
        rest = max(0, run.total - run.done - run.failed - run.withdrawn)
        running = min(running, rest)
        stopped = run.withdrawn
        if run.cancelled:
            stopped, rest = stopped + rest, 0
        return Counts(run.done, running, run.failed, stopped, rest - running, run.reused)

    # Results as they come.

    def __iter__(self) -> Completed:
        """The objects, each as soon as its call has ended; see `completed`."""
        return self.completed()

    def __aiter__(self) -> Completed:
        return self.completed()

    def completed(self, timeout: float | None = None, stop: bool = False) -> Completed:
        """The objects of the run, each as soon as its call has ended, well or not.

        ``for obj in run`` does the same without a time limit. A run is iterated over once, like a
        file. It lets go of each object that it gives, so that a value is freed once the program
        has dropped the object as well.

        Parameters
        ----------
        timeout : float, optional
            Seconds from now in which all have to come. None: no limit.
        stop : bool, default False
            Whether Ctrl-C while the program waits for the next object cancels the run.

        Returns
        -------
        Completed
            An iterator, and an async iterator, over objects. Maps are given item by item. With
            ``on_error="raise"`` it raises the failure that has ended the run after all objects
            whose calls have ended.
        """
        completed = self._completed
        if completed is None:
            completed = Completed(
                self._run,
                self._ends or Ends(),
                [leaf for one in self._objects for leaf in one.leaves()],
                listen=self._listen,
                over=self._end_of_iteration,
                progress=lambda: f"{self.counts()}{self._what_runs()}",
            )
            self._let_go()
            if not stop:  # else this is all that anybody has of the run
                self._completed = completed
        completed.limit(timeout, self.cancel if stop else None)
        return completed

    def _end_of_iteration(self) -> None:
        """Raise what has ended the run before its calls."""
        if self._run.cancelled and self._run.error is None:
            raise CancelledError(f"the run was cancelled: {self.counts()}. execute() runs the rest")
        self._conclude(lambda: None)

    def _let_go(self) -> None:
        """Hold no objects any more: they are the iteration's, and then the program's."""
        objects = self._objects
        members = objects
        if len(objects) == 1:
            (single,) = objects
            if not isinstance(single, tuple):
                return  # one object, or a map, whose items are kept in blocks
            members = list(single)
        held = [_weakly(one) for one in members]

        def alive() -> list[Handle]:
            there = [look() for look in held]
            return [one for one in there if one is not None]

        with self._condition:
            self._objects, self._alive = [], alive
            self._finish = lambda: _LATE
            if super().done() and self._exception is None and not super().cancelled():
                self._result = _LATE

    def __await__(self) -> Generator[object, None, Any]:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    @property
    def to_execute_tileables(self) -> list[Any]:
        """What is executed. Once the program iterates over the run: what of it is still held."""
        return self._alive() if self._alive is not None else list(self._objects)

    def get_future(self) -> Execution:
        """The future itself; the original wraps one."""
        return self

    def profiling_result(self) -> dict[str, object]:
        """Empty: the original's profile of its own services."""
        return {}

    if not TYPE_CHECKING:  # else a type checker would take any name for one that is there

        def __getattr__(self, name: str) -> object:
            from mars.calls import mistakes

            raise mistakes.missing(self, name)

    def __repr__(self) -> str:
        return f"<{self._told()}>"

    def _told(self) -> str:
        """The run in one line."""
        from mars.observe.states import seconds

        if not self.done():
            state = f"running for {seconds(time.monotonic() - self._run.started_at)}"
        elif self.cancelled():
            state = "cancelled"
        elif super().exception() is not None:
            state = f"failed with {type(super().exception()).__name__}"
        else:
            state = "done"
        return f"Execution, {state}: {self.counts()}"

    def _repr_html_(self) -> str:
        from mars.calls.shown import table_of

        leaves = [leaf for one in self.to_execute_tileables for leaf in one.leaves()]
        return table_of(leaves, self._told())


class Counts(NamedTuple):
    """How many calls of a run are in which state; see `Execution.counts`.

    Attributes
    ----------
    done : int
        They have a value.
    running : int
        Workers run them now.
    failed : int
        They have an error, or an input of them has one.
    cancelled : int
        The program has cancelled them.
    not_started : int
        They wait for inputs or for a worker, or the run ended before their turn.
    reused : int
        A checkpoint had their results. They are beside the others.
    """

    done: int
    running: int
    failed: int
    cancelled: int
    not_started: int
    reused: int

    def __str__(self) -> str:
        total = sum(self) - self.reused
        parts = [f"{self.done} of {total} done"]
        for name, count in zip(self._fields[1:], self[1:], strict=True):
            if count:
                parts.append(f"{count} {name.replace('_', ' ')}")
        return ", ".join(parts)


_LATE = object()
"""In place of a result: a list that is made when somebody asks, of objects that are still held."""


def _weakly(handle: Handle) -> Callable[[], Handle | None]:
    """Gives a handle as long as the program holds it."""
    try:
        return weakref.ref(handle)
    except TypeError:  # a tuple: its members are what counts
        members = [weakref.ref(one) for one in handle.leaves()]
        kind: Callable[[list[object]], Handle] = type(handle)
        return lambda: kind([one for look in members if (one := look()) is not None])


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

__all__ = ["CancelledError", "Counts", "Execution", "awaitable_error"]
