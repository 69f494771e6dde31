"""The batches of one loop of joblib that are under way: each is a call of a session.

::

    joblib ── submit ──► Flight ──► call ──► worker
       ▲                    │
       └───── callback ─────┴◄── its end: the next one starts, what it printed is shown

Callbacks of joblib run code of the program, which takes the next items out of its iterator. So they
run where the callbacks of all futures run, in the thread of `mars.delivery`. Called by
`mars.joblib.backend`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING

from mars.attempt import codec, context
from mars.calls.objects import Object
from mars.calls.options import Options
from mars.calls.spawn import spawn
from mars.code.functions import describe, name_of
from mars.executors.executor import Calls
from mars.executors.futures import CallFuture, SubmittedCall
from mars.joblib.packing import Sharing
from mars.joblib.work import Initializer, Loop
from mars.logs import JoinedLog, LogFetcher, LogReader, LogSource
from mars.sessions.session import Session
from mars.settings import JOBLIB_FUNCTIONS
from mars.task import Function, Task

if TYPE_CHECKING:
    from joblib.parallel import BatchedCalls


class NestedFuture:
    """The call of a batch of a loop inside a call, which is a run of its own."""

    def __init__(self, session: Session, output: Object[list[object]]) -> None:
        self._realm = session.realm
        self._output = output
        self._execution = output.to_object(session=session, wait=False)

    @property
    def task(self) -> Task | None:
        """The task of the call."""
        return self._output.call.task_in(self._realm)

    def add_done_callback(self, callback: Callable[[object], object]) -> None:
        """Have ``callback`` called when the call has ended."""
        self._execution.add_done_callback(callback)

    def cancel(self) -> bool:
        """Stop the call, and wait for nothing."""
        self._execution.cancel_soon()
        return True

    def cancelled(self) -> bool:
        """Whether the call was stopped."""
        return bool(self._execution.cancelled())

    def result(self) -> list[object]:
        """What the call returned. It raises what the call raised."""
        return self._execution.result()  # type: ignore[no-any-return]


class Batch:
    """One batch: some calls of the program's loop that travel together.

    Attributes
    ----------
    name : str
        Name of the function that its first call calls.
    size : int
        How many calls of the loop it has.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._future: CallFuture[list[object]] | NestedFuture | None = None
        self._session: Session | None = None  # while it is under way
        self._log: LogSource | None = None  # once it has ended
        self._error: BaseException | None = None

    def fetch_log(self) -> LogFetcher:
        """What the calls of this batch have printed so far. It can be read while the batch runs.

        Returns
        -------
        LogFetcher
            A text. It is empty if the batch has not started.
        """
        return LogReader(self.name, self._source).read(sizes=-1)

    def _source(self) -> LogSource | None:
        session, future = self._session, self._future
        if session is None or future is None:
            return self._log
        task = future.task
        return None if task is None or session.closed else session.engine.log(task)

    def show_log(self) -> None:
        """Write what it has printed to the program's output."""
        if self._log is None:
            return
        reader = LogReader(self.name, self._source)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            # The program may have closed its output, or have none. Its results are all the same.
            while (part := reader.read()).raw:
                sys.stdout.write(str(part))
            sys.stdout.flush()

    def start(self, session: Session, future: CallFuture[list[object]] | NestedFuture) -> None:
        """Its call is about to run."""
        self._session, self._future = session, future

    def fail(self, error: BaseException) -> None:
        """There will be no call."""
        self._error = error

    def land(self) -> None:
        """Its call has ended. Of the call nothing but the log is kept."""
        session, future = self._session, self._future
        if session is None or future is None:
            return
        task = future.task
        if task is not None and task.logs:
            self._log = JoinedLog(list(task.logs))
        elif task is not None and not session.closed and context.current() is not None:
            self._log = session.engine.log(task)
        self._session = None

    def cancel_soon(self) -> None:
        """Stop its call, if there is one, and wait for nothing."""
        session, future = self._session, self._future
        if session is None or future is None or future.cancel():
            return
        task = future.task
        for run in () if task is None else task.runs:
            session.engine.cancel(run)

    def was_cancelled(self) -> bool:
        """Whether its call was stopped."""
        return self._future is not None and self._future.cancelled()

    def result(self) -> list[object]:
        """What the calls returned. Once joblib has it, nobody keeps it here.

        Raises
        ------
        BaseException
            The error of a call, or the reason why there is none.
        """
        if self._error is not None:
            raise self._error
        assert self._future is not None, "asked for before its end"
        try:
            return self._future.result()
        except BaseException as error:
            _keep_frames(error)
            raise

    def let_go(self) -> None:
        """Forget the result."""
        self._future = self._error = None

    def __repr__(self) -> str:
        return f"<Batch of {self.size} call(s) of {self.name}>"


@dataclass(frozen=True, slots=True)
class Plan:
    """How the batches of one loop run."""

    session: Session
    at_once: int | None
    """Batches that run at a time. None: the cores say that."""
    options: Callable[[str], Options]
    """Options of a call, made for its name."""
    nested: tuple[Callable[..., object], tuple[object, ...]]
    """Makes the backend for the loops inside: a function, and what it is called with."""
    threads: int | None
    """Threads for native libraries, if that is not what the cores of a call say."""
    share_bytes: int | None
    """Arrays from this size on are stored once for all batches. None: each has its own."""
    initializer: Initializer | None
    echo: bool
    """Whether the program's output gets what batches print."""


class Flight:
    """The batches of one loop.

    Parameters
    ----------
    plan : Plan
        How they run.
    batches : deque of Batch
        Gets each of them, in the order in which joblib gives them.
    """

    def __init__(self, plan: Plan, batches: deque[Batch]) -> None:
        self._plan = plan
        self._batches = batches
        self._sharing = Sharing(plan.session, plan.share_bytes)
        self._calls = Calls(plan.session, False, Options(), plan.at_once)
        self._options: dict[str, Options] = {}
        self._nested = context.current() is not None  # there, each call is a run of its own anyway
        self._lock = threading.Lock()
        self._flying: set[Batch] = set()
        self._waiting: deque[tuple[Batch, object, Callable[[Batch], object] | None]] = deque()
        self._abandoned = False
        self._functions: dict[tuple[FunctionType, ...], Function | None] = {}
        self._plain: Function | None = None

    def submit(self, work: BatchedCalls, callback: Callable[[Batch], object] | None) -> Batch:
        """Have a batch run, and ``callback`` called with it when it has ended, however it ended."""
        batch = Batch(_name_of(work), len(work.items))
        self._batches.append(batch)
        if self._nested:
            with self._lock:
                most = self._plan.at_once
                if most is not None and len(self._flying) >= most:
                    self._waiting.append((batch, work, callback))
                    return batch
                self._flying.add(batch)
        else:
            self._flying.add(batch)
        self._launch(batch, work, callback)
        return batch

    def _launch(
        self, batch: Batch, work: BatchedCalls, callback: Callable[[Batch], object] | None
    ) -> None:
        landed: Callable[[object], object] = lambda _: self._landed(batch, callback)
        session = self._plan.session
        try:
            call = self._described(batch, work)
            if self._nested:
                nested = NestedFuture(session, Object(call, 0))
                batch.start(session, nested)
                nested.add_done_callback(landed)
            else:
                future: CallFuture[list[object]] = CallFuture(self._calls, call)
                call.future = future
                batch.start(session, future)
                future.add_done_callback(landed)
                self._calls.start(future, call)
        except Exception as error:
            # joblib waits for the callback of each batch, so it hears of this one there, too.
            batch.fail(error)
            landed(None)
            return
        if self._abandoned:
            batch.cancel_soon()

    def _described(self, batch: Batch, work: BatchedCalls) -> SubmittedCall:
        try:
            function, items = self._function_for(work.items)
            packed = self._sharing.pack(items)
            # Arguments without lists are pickled in no time.
            args = packed if packed.buffers or packed.values else packed[:1]
            payload, buffers, found = codec.encode_arguments(args, {})
        except Exception:
            for func, args, kwargs in work.items:
                spawn(func, args=args, kwargs=kwargs)  # its error says what does not pickle
            raise
        inputs = tuple((output.call, output.index) for output in found)
        options = self._options.get(batch.name)
        if options is None:
            options = self._options[batch.name] = self._plan.options(batch.name)
            options.in_set = None if self._nested else self._calls
        return SubmittedCall(function, payload, tuple(buffers), inputs, options, None)

    def _function_for(
        self, items: Sequence[tuple[Callable[..., object], tuple[object, ...], dict[str, object]]]
    ) -> tuple[Function, Sequence[object]]:
        """The function of a call, and the items with numbers for the functions that it holds.

        A function of the program that travels with the items is pickled and unpickled for each
        batch, and it finds its modules as the program has them. One that the call's function holds
        travels once. As joblib's own backends do, it stays as it was when the loop met it.
        """
        functions = tuple(
            {id(one[0]): one[0] for one in items if type(one[0]) is FunctionType}.values()
        )
        known = self._functions.get(functions)
        if known is None and len(self._functions) < JOBLIB_FUNCTIONS:
            known = self._describe(functions)
            if known.large and self._plan.initializer is None:
                # It has large values, such as an array in a closure. With the items, these are
                # shared by all batches. As parts of a function each run would store them.
                known = None
            self._functions[functions] = known
        if known is None:
            if self._plain is None:
                self._plain = self._describe(())
            return self._plain, items
        if not functions:
            return known, items
        numbers = {id(function): number for number, function in enumerate(functions)}
        return known, [(numbers.get(id(func), func), args, kw) for func, args, kw in items]

    def _describe(self, functions: tuple[Callable[..., object], ...]) -> Function:
        plan = self._plan
        loop = Loop(functions, plan.nested, plan.initializer, plan.threads)
        return describe(loop, codec.Keep)

    def _landed(self, batch: Batch, callback: Callable[[Batch], object] | None) -> None:
        batch.land()
        with self._lock:
            self._flying.discard(batch)
            following = self._waiting.popleft() if self._waiting else None
            if following is not None:
                self._flying.add(following[0])
        if following is not None:
            self._launch(*following)
        if self._plan.echo and not batch.was_cancelled():
            batch.show_log()
        if callback is not None:
            callback(batch)
        batch.let_go()

    def abandon(self) -> None:
        """Stop what runs, drop what waits, and wait for nothing."""
        with self._lock:
            self._abandoned = True
            self._waiting.clear()
            flying = list(self._flying)
        for batch in flying:
            batch.cancel_soon()


def _keep_frames(error: BaseException) -> None:
    """Keep as a text where an error was raised: joblib takes its traceback away."""
    from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]

    text = "".join(traceback.format_exception(error))
    if error.__cause__ is None:
        error.__cause__ = RemoteTraceback(text)
    else:
        error.add_note(text)


def _name_of(work: BatchedCalls) -> str:
    """The name of the function that a batch calls first; wrappers of scikit-learn hide it."""
    function = work.items[0][0]
    while True:
        inner = getattr(function, "function", None) or getattr(function, "__wrapped__", None)
        if isinstance(function, functools.partial):
            inner = function.func
        if not callable(inner):
            return name_of(function)
        function = inner


__all__ = ["Batch", "Flight", "Plan"]
