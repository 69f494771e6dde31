"""Sessions: what a program has executed, on which engine; and the default one.

`execute` works out which calls are missing, hands them to the engine and waits; `fetch` and
`fetch_log` read what the engine keeps. The default session is the only global state of mars.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final

from mars.attempt import context
from mars.code import modules
from mars.config import option_values, options, plain_scalar
from mars.engine import Engine, Run
from mars.engines import start
from mars.engines.objects import AsyncRemoteObject
from mars.engines.outcome import TaskLog, cancelled, never_again
from mars.errors import MarsError, NotExecuted, SessionClosed, UnknownTarget
from mars.graph import needed_calls
from mars.logs import JoinedLog, LogFetcher, LogSource, follow
from mars.observe.attempts import Attempt, Times, attempts_of, times_of
from mars.settings import CANCEL_WAIT_S, KIB, LOG_LIMIT_AT_LEAST, PROGRESS_LOAD_S, PROGRESS_REDRAW_S
from mars.task import Call, Handle, Output, Stage, Task, parse_bytes

if TYPE_CHECKING:
    from mars.execution import Execution

_NO_SESSION: Final = """
No session found, local session will be created in background, \
it may take a while before execution. \
If you want to new a local session by yourself, run code below:

```
import mars

mars.new_session()
```
"""
_NO_SESSION_LINE: Final = (
    "mars: there was no session, so one on all cores was started; "
    "mars.new_session() lets you choose"
)


class _Realm:
    """What tasks of one session belong to."""

    __slots__ = ("engine",)

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def forget(self, task: Task) -> None:
        self.engine.forget(task)


class Session:
    """A program's view of an engine: what it has executed there.

    Made by `new_session`. Used as a context manager it closes itself, not the engine, when other
    sessions use that.

    Attributes
    ----------
    session_id : str
    address : str
        Of the engine: ``new_session(address)`` makes another session on it.
    """

    def __init__(
        self,
        engine: Engine,
        session_id: str,
        *,
        seed: int | None = 0,
        timeout_s: float | None = None,
        nested: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        self.session_id = session_id
        self.address = engine.address
        self._engine = engine
        self._realm = _Realm(engine)
        self._seed = seed
        self._timeout_s = timeout_s
        self._nested = nested
        self._places = itertools.count()
        self._interrupted: weakref.WeakSet[Run] = weakref.WeakSet()
        self._closed = False
        self._lock = threading.Lock()
        self._checkpoints: dict[str, Any] = {}
        self._checkpoint = None if checkpoint is None else self._checkpoint_at(checkpoint)

    # -- executing ----------------------------------------------------------------------------

    def execute(
        self,
        *objects: Any,
        wait: bool = True,
        show_progress: bool | str | None = None,
        progress_update_interval: float = 1,
        on_error: str = "raise",
        seed: int | None = None,
        checkpoint: Any = None,
        **accepted: Any,
    ) -> Any:
        """Run all that ``objects`` need and that is not done yet.

        Parameters
        ----------
        objects : Object
            What to execute, or one list or tuple of them.
        wait : bool, default True
            False: give a future at once.
        show_progress : bool or "auto", optional
            Default: ``mars.options.show_progress``.
        progress_update_interval : float, default 1
            Seconds between two looks, at the most.
        on_error : {"raise", "continue"}
            "raise": the first failure ends the run and is raised; what was finished stays, what
            runs goes on, nothing more is started. "continue": run all that can run; an object
            that failed raises its own error on `fetch`.
        seed : int, optional
            Seed of `mars.remote.rng` in this run; default: the session's.
        checkpoint : path, URL or False, optional
            Where this run keeps its results, and looks for them. False: nowhere. Default: the
            session's.

        Returns
        -------
        Object, list or Execution
            The object; several: a list of them; with ``wait=False``: a future of that.

        Raises
        ------
        BaseException
            The first failing call's own error.
        SessionClosed
            The session was closed.
        NoAvailableBand
            A call asks for more than any worker has.
        """
        unknown = accepted.keys() - _ACCEPTED
        if unknown:
            raise TypeError(f"execute() got an unexpected keyword argument {min(unknown)!r}")
        given = _handles(objects, "execute")
        result: Any = given[0] if len(given) == 1 else list(given)
        return self.run(
            given,
            wait=wait,
            show_progress=show_progress,
            interval_s=progress_update_interval,
            on_error=on_error,
            seed=seed,
            finish=lambda: result,
            plain=True,
            cancelled=accepted.get("cancelled"),
            checkpoint=checkpoint,
        )

    def run(
        self,
        handles: Sequence[Handle],
        *,
        finish: Callable[[], Any],
        plain: bool = False,
        wait: bool = True,
        show_progress: bool | str | None = None,
        interval_s: float = 1,
        on_error: str = "raise",
        seed: int | None = None,
        cancelled: Any = None,
        checkpoint: Any = None,
    ) -> Any:
        """As `execute`; ``finish`` makes the result once all is done.

        ``plain``: for that it unpickles nothing of the program's.
        """
        self._check_open()
        wait, show_progress, interval_s, seed = _run_arguments(
            wait, show_progress, interval_s, on_error, seed
        )
        modules.note_importers()
        if seed is None and not self._nested:  # calls of calls go by the run that asked for them
            seed = option_values()["seed"]
        run = Run(
            self.session_id,
            self._realm,
            stop_on_error=on_error == "raise",
            entropy=self._seed if seed is None else seed,
        )
        attempt = context.current() if self._nested else None
        if attempt is not None:
            run.prefix = attempt.place
            if seed is None:
                run.entropy = attempt.entropy
        targets: dict[Call, None] = {}
        for handle in handles:
            if isinstance(handle, Output):  # of most programs all, and many
                targets[handle._call] = None
            else:
                targets.update(dict.fromkeys(handle._calls_in(self._realm)))
        kept = self._checkpoint if checkpoint is None else self._checkpoint_at(checkpoint)
        missing = needed_calls(targets, self._realm, self._adopt)
        self._give_places(missing, targets, seed)
        if kept is not None and missing:
            missing = self._recall(kept, targets, missing, run, show_progress)
        for call in targets:
            if call.task is not None:
                task = call.task_in(self._realm)
                if task is not None:
                    task.asked = True
        run.beside = not wait and not self._nested
        if missing and self._timeout_s is not None:
            self._limit(run, self._timeout_s)
        if missing and cancelled is not None:
            self._heed(run, cancelled)
        if missing:
            self._submit(run, missing, targets)
        else:
            run.end()
        if not wait:
            from mars.execution import Execution

            execution = Execution(
                run,
                self._engine,
                lambda: self._finish(run, finish),
                list(handles),
                self._listen,
                plain,
            )
            execution.begin()
            return execution
        try:
            self._wait(run, show_progress, interval_s)
        finally:
            if kept is not None:
                kept.flush()
        return self._finish(run, finish)

    def _checkpoint_at(self, where: Any) -> Any:
        """The checkpoint in a folder or at an URL; of a session each is opened once."""
        if where is False or self._nested:  # calls of calls are kept with the call that asks
            return None
        where = os.fspath(where)
        known = self._checkpoints.get(where)
        if known is None:
            from mars.checkpoint.checkpoint import Checkpoint
            from mars.observe.progress import write_line

            known = Checkpoint(where, self._realm, self._engine, write_line)
            self._checkpoints[where] = known
        return known

    def _recall(
        self, kept: Any, targets: Any, needed: Sequence[Call], run: Run, show_progress: Any
    ) -> list[Call]:
        """Leave out of a run what a checkpoint has; the engine tells it of the rest."""
        kept.identify(needed, run.entropy)
        missing = needed_calls(targets, self._realm, self._adopt, kept.recall)
        while not kept.load_inputs(missing):
            missing = needed_calls(targets, self._realm, self._adopt, kept.recall)
        kept.count(needed, missing, run)
        kept.run_begins()
        run.on_end(kept.run_over)
        run.landed = kept.landed
        run.on_end(lambda run: kept.failed(missing) if run.failure is not None else None)
        if run.reused:
            from mars.observe.progress import display_for, reused_line

            shown = options.show_progress if show_progress is None else show_progress
            display = display_for(shown)
            if display is not None:
                display.note(reused_line(run.reused, kept.where, run.saved_s))
        return missing

    @property
    def checkpoint(self) -> Any:
        """What the session keeps, with ``reused``, ``executed`` and ``saved_s``; or None."""
        return self._checkpoint

    def _limit(self, run: Run, timeout_s: float) -> None:
        """End a run when its time is over."""

        def late() -> None:
            if not run.ended:
                run.error = self._too_late()
                self._engine.cancel(run)

        timer = threading.Timer(timeout_s, late)
        timer.daemon = True
        timer.start()
        run.on_end(lambda _: timer.cancel())

    def _heed(self, run: Run, cancelled: Any) -> None:
        """End a run when somebody sets an event of the program's, as the original does."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(PROGRESS_REDRAW_S):
                try:
                    if not cancelled.is_set():
                        continue
                except BaseException as error:  # of the program's own event
                    run.error = error
                self._engine.cancel(run)
                return

        run.on_end(lambda _: ended.set())
        threading.Thread(target=look, name="mars-cancel", daemon=True).start()

    def _too_late(self) -> TimeoutError:
        return TimeoutError(
            f"the run took longer than the session's timeout of {self._timeout_s:g} s; "
            f"what was finished stays, execute() runs the rest"
        )

    def _adopt(self, call: Call) -> bool:
        """Give a call the result that a block of its map has, if that is a value."""
        found = call.adopt(self._realm)
        if found is None:
            return False
        try:
            value = self._engine.value(found, 0)
        except Exception:  # its item failed: the call is run by itself
            return False
        task = Task(call, self._realm)
        task.stage, task.logs, task.timing = Stage.DONE, found.logs, found.timing
        task.ended = found.attempts()
        self._engine.install(task, value)
        task.elsewhere, call.task = call.task, task
        return True

    def _submit(self, run: Run, missing: Sequence[Call], targets: Any) -> None:
        try:
            self._engine.submit(run, missing, [call.place for call in missing], targets)
        except BaseException as error:
            if not run.ended:
                run.error = error
                run.end()
            raise

    def _give_places(self, missing: Sequence[Call], targets: Any, seed: int | None) -> None:
        if seed is not None:
            # A run with a seed of its own counts from 0, calls that are done already included.
            for place, call in enumerate(needed_calls(targets, None)):
                call.place = call.own_place(place)
            return
        attempt = context.current() if self._nested else None
        for call in missing:
            if call.place is None:
                if attempt is None:
                    place = next(self._places)
                else:
                    place = attempt.spawned
                    attempt.spawned += 1
                call.place = place if type(call) is Call else call.own_place(place)

    def _finish(self, run: Run, finish: Callable[[], Any]) -> Any:
        if run.error is not None:
            raise run.error
        failed = run.failure
        if failed is not None and run.stop_on_error:
            error = self._engine.failure(failed)
            self._tell_exit(error)
            raise error
        return finish()

    def _tell_exit(self, error: BaseException) -> None:
        """Say which call asked for the end, as raising SystemExit ends a program without a word."""
        if not isinstance(error, SystemExit) or self._nested:
            return
        from mars.observe.progress import write_line

        notes = getattr(error, "__notes__", None) or ["a call"]
        which = notes[0].partition(" ·")[0]
        write_line(
            f"mars: {which} ended with sys.exit({'' if error.code is None else repr(error.code)}); "
            f"that is raised here as SystemExit, and ends the program unless it is caught"
        )

    def _wait(self, run: Run, show_progress: bool | str | None, interval_s: float) -> None:
        try:
            if self._nested or run.ended:
                show_progress = False
            elif show_progress is None:
                show_progress = option_values()["show_progress"]
            if show_progress is False:
                self._wait_listening(run)
            elif not run.wait(PROGRESS_LOAD_S):  # most runs end before anything could be drawn
                self._watch(run, show_progress, interval_s)
        except BaseException:
            # Ctrl-C, most likely: what runs is stopped, what is finished stays. Of runs that were
            # cancelled so before, what still runs has had its chance: it is killed.
            for late in [*self._interrupted, run]:
                self._engine.cancel(late)
            self._interrupted.add(run)
            if not self._nested:
                run.wait(CANCEL_WAIT_S)  # from here on, what it wanted says that it was cancelled
            raise
        if run.cancelled and run.error is None:
            from concurrent.futures import CancelledError

            raise CancelledError("the run was cancelled")

    def _watch(self, run: Run, show_progress: bool | str | None, interval_s: float) -> None:
        from mars.observe.progress import display_for

        pace: list[Any] = [-1, None]  # total, and the Pace for it
        display = None if show_progress is False else display_for(show_progress)  # type: ignore[arg-type]
        if display is not None:
            display.start(run.total)
        listener = self._listener(display)
        try:
            while not run.wait(min(interval_s, PROGRESS_REDRAW_S)):
                if display is not None:
                    display.update(self._progress(run, pace))
                listener.listen()
        finally:
            if display is not None:
                display.finish(self._progress(run, pace))

    def _wait_listening(self, run: Run, timeout_s: float | None = None) -> bool:
        """As `Run.wait`; the waiting thread tells of silent calls meanwhile."""
        return run.wait(timeout_s) if run.ended else self._listen(run.wait, timeout_s)

    def _listen(self, wait: Callable[[float | None], bool], timeout_s: float | None) -> bool:
        """As ``wait(timeout_s)``; the waiting thread tells of silent calls meanwhile."""
        # Calls of calls are the business of whoever waits in the program itself.
        if self._nested:
            return wait(timeout_s)
        return bool(self._listener(None).wait(wait, timeout_s))

    def _listener(self, display: Any) -> Any:
        """What tells of silent calls, beside the display if there is one."""
        from mars.observe.progress import write_line
        from mars.observe.silence import Listener

        show = write_line if display is None else display.note
        return Listener(self._engine.silent_calls, options.silent_notice, show)

    def _progress(self, run: Run, pace: list[Any]) -> Any:
        from mars.observe.progress import Pace

        if pace[0] != run.total:
            pace[:] = [run.total, Pace(run.total, run.reused, run.saved_s)]
        return pace[1].progress(
            done=run.done,
            failed=run.failed,
            running=self._engine.observe().running(run.number),
            partial=run.partial_sum(),
            elapsed_s=time.monotonic() - run.started_at,
        )

    # -- reading ------------------------------------------------------------------------------

    def fetch(self, *objects: Any, **_: Any) -> Any:
        """Values of objects that were executed in this session.

        Parameters
        ----------
        objects : Object
            One or several, or one list or tuple of them.

        Returns
        -------
        object or list
            The value of a single object; several: a list.

        Raises
        ------
        NotExecuted
            An object was not executed here (a ValueError).
        BaseException
            The object's call failed: its own error.
        """
        values = self.values(_handles(objects, "fetch"))
        return values[0] if len(values) == 1 else values

    def values(self, handles: Sequence[Handle]) -> list[Any]:
        """The values of several objects, as a list; errors as of `fetch`.

        Parameters
        ----------
        handles : sequence of Object
            Executed in this session.
        """
        self._check_open()
        task, value = self._sound if self._checkpoints else self._task, self._engine.value
        try:
            return [
                value(task(one), one._index) if isinstance(one, Output) else one._value_in(self)
                for one in handles
            ]
        except SystemExit as error:
            self._tell_exit(error)
            raise

    def value(self, output: Output) -> Any:
        """The value of one object."""
        return self.values((output,))[0]

    def _sound(self, output: Output) -> Task:
        """The task, when what a checkpoint has of it can be read; else it is run again."""
        from mars.checkpoint.kept import Damaged, KeptTask

        task = self._task(output)
        if isinstance(task, KeptTask):
            try:
                task.load()
            except Damaged:
                task.forget()
                self.run([output], finish=lambda: None, show_progress=False)
                return self._task(output)
        return task

    def _task(self, output: Output) -> Task:
        call = output._call
        task = call.task
        if task is None or task.realm is not self._realm:
            task = self._known(call)
            if task is None:
                whole = None if call.whole is None else call.whole.task_in(self._realm)
                if whole is not None and whole.cancelled:
                    raise cancelled(call)
                raise NotExecuted(repr(output))
        stage = task.stage
        if stage is Stage.DONE:
            if not task.asked:
                raise NotExecuted(repr(output))
        elif stage is not Stage.FAILED:
            raise cancelled(call) if task.cancelled else NotExecuted(repr(output))
        return task

    def _known(self, call: Call) -> Task | None:
        return call.task_in(self._realm) or call.adopt(self._realm)

    def times(self, output: Output) -> Times | None:
        """When the last attempt of an object's call went through its stages.

        Parameters
        ----------
        output : Object
            Whose call.

        Returns
        -------
        Times or None
            Eight moments in seconds of `time.monotonic`; None before the call has ended.
        """
        task = self._known(output._call)
        return None if task is None else times_of(task)

    def attempts(self, output: Output) -> list[Attempt]:
        """Where each attempt of an object's call ran, and how it ended; first to last.

        Parameters
        ----------
        output : Object
            Whose call.

        Returns
        -------
        list of Attempt
            Those that have ended. Empty if a checkpoint had the result.
        """
        task = self._known(output._call)
        return [] if task is None else attempts_of(task)

    def error(self, output: Output) -> BaseException | None:
        """The error of an object's call; None when it has a value, or was not run."""
        call = output._call
        task = self._known(call)
        if task is None:
            whole = None if call.whole is None else call.whole.task_in(self._realm)
            return cancelled(call) if whole is not None and whole.cancelled else None
        if task.stage not in (Stage.FAILED, Stage.DONE) and not task.cancelled:
            return None
        if task.stage is Stage.DONE and not call.may_hold_errors:
            return None
        try:
            self._engine.value(task, output._index)
        except MarsError as error:
            return error
        except BaseException as error:
            return error
        return None

    def executed(self, output: Output) -> bool:
        """Whether the object has a value here."""
        task = output._call.task_in(self._realm)
        return task is not None and task.available and task.asked

    def log_source(self, call: Call) -> LogSource | None:
        """What a call has printed so far; None before it was started."""
        self._check_open()
        task = self._known(call)
        own: LogSource | None = None
        if task is not None and self._checkpoints and type(task) is not Task:
            own = TaskLog(task, lambda _: None)  # of an earlier run: no engine knows it
        elif task is not None:
            own = self._engine.log(task)
        if not call.speaks_for:
            return own
        sources = []
        for other in call.speaks_for:
            # One after the other: what is read has its place, which nothing may move.
            source = self.log_source(other._call)
            if source is not None:
                sources.append(source)
            if not self._silent_from_here(other._call):
                break
        else:
            sources += [] if own is None else [own]
        return JoinedLog(sources)

    def _silent_from_here(self, call: Call) -> bool:
        """Whether a call will print nothing more."""
        if self._closed:
            return True
        if not all(self._silent_from_here(other._call) for other in call.speaks_for):
            return False
        task = self._known(call)
        if task is None and call.whole is not None:
            task = call.whole.task_in(self._realm)  # it comes with a block of the map
        if task is None:
            return True
        source = self._engine.log(task)
        return never_again(task) if source is None else source.finished()

    def follow_log(self, call: Call) -> Iterator[str]:
        """Lines of what a call prints, as they come, until it will print nothing more.

        Parameters
        ----------
        call : Call
            It may run, have ended, or wait for its turn.

        Raises
        ------
        SessionClosed
            The session was closed; if that happens later, the lines end.
        """
        self._check_open()
        return follow(_LogToCome(self, call))

    def fetch_log(self, *objects: Any, offsets: Any = None, sizes: Any = None) -> list[LogFetcher]:
        """What the calls of objects have printed.

        Parameters
        ----------
        objects : Object
            One or several, or one list or tuple of them.
        offsets, sizes : int, str, dict or list, optional
            See `mars.remote.Object.fetch_log`.

        Returns
        -------
        list of LogFetcher
            In the place of a map among others, a list of those of its items.
        """
        given: Sequence[Any] = _handles(objects, "fetch_log")
        logs = [one.fetch_log(session=self, offsets=offsets, sizes=sizes) for one in given]
        return logs[0] if len(given) == 1 and not isinstance(given[0], Output) else logs

    def fetch_infos(self, *objects: Any, fields: Sequence[str] | None = None) -> list[Any]:
        """Facts about stored results; see `mars.remote.Object._fetch_infos`."""
        given: Sequence[Any] = _handles(objects, "fetch_infos")
        return [one._fetch_infos(fields, session=self) for one in given]

    # -- the session itself --------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed

    def as_default(self) -> Session:
        """Make this the default session.

        Returns
        -------
        Session
            Itself.

        Raises
        ------
        SessionClosed
            The session was closed.
        """
        self._check_open()
        _set_default(self)
        return self

    def close(self) -> None:
        """End the session; the engine ends with its last session. Idempotent."""
        with self._lock:
            if self._closed or self._nested:
                return
            self._closed = True
        if _state.default is self:
            _set_default(None)
        with contextlib.ExitStack() as ending:  # all of it is done, whatever fails
            ending.callback(_leave_engine, self._engine, self)
            ending.callback(self._close_checkpoints)

    destroy = close

    def _close_checkpoints(self) -> None:
        """Have all that was kept on the disk; the engine is needed for that."""
        with contextlib.ExitStack() as ending:
            for checkpoint in self._checkpoints.values():
                ending.callback(checkpoint.close)

    def stop_server(self) -> None:
        """End the engine and all sessions on it. Idempotent."""
        if self._nested:
            return
        with contextlib.ExitStack() as ending:
            ending.callback(self.close)
            ending.callback(_stop_engine, self._engine)

    def __enter__(self) -> Session:
        self._check_open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return self._closed

    def get_total_n_cpu(self) -> int:
        """Cores that the calls of this engine share."""
        return int(self._engine.n_cpu)

    def get_worker_addresses(self) -> list[str]:
        """Addresses of worker groups, for ``spawn(..., expect_worker=address)``."""
        return list(self._engine.worker_addresses)

    def get_cluster_versions(self) -> list[str]:
        """Versions of mars that run in the engine."""
        from mars._version import __version__

        return [__version__]

    def get_web_endpoint(self) -> str | None:
        """None: the embedded engine listens on nothing."""
        return None

    def create_remote_object(
        self, name: str, cls: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any:
        """Make an object that all calls of the session share, in this process.

        As of `mars.attempt.context.Context.create_remote_object`, without pickling.
        """
        return self._engine.create_object(self.session_id, name, cls, args, kw)

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
        return self._engine.get_object(self.session_id, name)

    def destroy_remote_object(self, name: str) -> None:
        """Forget a shared object.

        Parameters
        ----------
        name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none.
        """
        self._engine.destroy_object(self.session_id, name)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._engine.n_cpu:g} cpus"
        return f"<Session {self.session_id} on {self.address}, {state}>"

    def _repr_html_(self) -> str:
        from html import escape

        state = "closed" if self._closed else "open"
        return (
            f"<table><tr><th>Session</th><td>{escape(self.session_id)}</td></tr>"
            f"<tr><th>engine</th><td>{escape(self.address)}</td></tr>"
            f"<tr><th>cpus</th><td>{self._engine.n_cpu:g}</td></tr>"
            f"<tr><th>state</th><td>{state}</td></tr></table>"
        )


class _LogToCome:
    """The log of a call that may not have begun: each look finds what is there by then."""

    def __init__(self, session: Session, call: Call) -> None:
        self._session, self._call = session, call
        self._last: LogSource | None = None

    def _source(self) -> LogSource | None:
        with contextlib.suppress(SessionClosed):  # what was printed before can still be read
            self._last = self._session.log_source(self._call) or self._last
        return self._last

    def size(self) -> int:
        """Bytes so far."""
        source = self._source()
        return 0 if source is None else source.size()

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        source = self._source()
        return b"" if source is None else source.read(start, limit)

    def kept_from(self, start: int) -> int:
        """``start``, or where the log goes on if what stood there was left out."""
        source = self._source()
        return start if source is None else source.kept_from(start)

    def finished(self) -> bool:
        """Whether no more will come."""
        return self._session._silent_from_here(self._call)


_ACCEPTED: Final = frozenset(
    {
        "cancelled", "extra_config", "fuse_enabled", "new_session_kwargs",
        "warn_duplicated_execution",
    }
)  # fmt: skip


def _run_arguments(
    wait: Any, show_progress: Any, interval_s: Any, on_error: object, seed: Any
) -> tuple[bool, bool | str | None, float, int | None]:
    """What `Session.run` was asked for, checked, and without scalars of numpy."""
    usual = wait is True and show_progress is None and seed is None and on_error == "raise"
    if usual and type(interval_s) in (int, float) and interval_s > 0:
        return True, None, interval_s, None
    wait, show_progress = plain_scalar(wait), plain_scalar(show_progress)
    interval_s, seed = plain_scalar(interval_s), plain_scalar(seed)
    if not isinstance(wait, bool):
        raise TypeError(f"wait has to be True or False, got {wait!r}")
    if show_progress not in (None, True, False, "auto"):
        raise ValueError(f"show_progress has to be True, False or 'auto', got {show_progress!r}")
    if isinstance(interval_s, bool) or not isinstance(interval_s, (int, float)):
        raise TypeError(f"progress_update_interval has to be seconds, got {interval_s!r}")
    if not interval_s > 0:
        raise ValueError(f"progress_update_interval has to be more than 0, got {interval_s!r}")
    if on_error not in ("raise", "continue"):
        raise ValueError(f"on_error has to be 'raise' or 'continue', got {on_error!r}")
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(f"seed has to be an int, got {seed!r}")
        if seed < 0:
            raise ValueError(f"seed has to be 0 or more, got {seed!r}")
    return wait, show_progress, float(interval_s), None if seed is None else int(seed)


def _handles(objects: Sequence[Any], what: str) -> Sequence[Any]:
    """What a function was given: objects, maps and tuples of such, or one list of them."""
    if len(objects) == 1 and isinstance(objects[0], (tuple, list)):
        objects = tuple(objects[0])
    for one in objects:
        if not isinstance(one, Handle):
            raise TypeError(f"{what} takes objects made by spawn or map, got {one!r:.80}")
    return objects


# -- engines and the default session ----------------------------------------------------------


class _State:
    def __init__(self) -> None:
        self.default: Session | None = None
        self.engines: dict[str, tuple[Engine, set[Session]]] = {}
        self.lock = threading.RLock()


_state = _State()


def _after_fork() -> None:
    # A child that the program forks begins without sessions: its parent's are not its own.
    global _state
    _state = _State()


os.register_at_fork(after_in_child=_after_fork)


def close_all() -> None:
    """End all engines, at the end of the program."""
    with _state.lock:
        engines = list(_state.engines.values())
    with contextlib.ExitStack() as ending:  # whatever fails, no process is left
        for engine, sessions in engines:
            ending.callback(engine.close)
            for session in list(sessions):
                ending.callback(session._close_checkpoints)


def _set_default(session: Session | None) -> None:
    _state.default = session


def _leave_engine(engine: Engine, session: Session) -> None:
    with _state.lock:
        _, sessions = _state.engines.get(engine.address, (engine, set()))
        sessions.discard(session)
        if sessions:
            known = {other.session_id for other in sessions}
        else:
            _state.engines.pop(engine.address, None)
            known = set()
    with contextlib.ExitStack() as ending:
        if not known:
            ending.callback(engine.close)
        if session.session_id not in known:
            engine.drop_objects(session.session_id)


def _stop_engine(engine: Engine) -> None:
    with _state.lock:
        _, sessions = _state.engines.pop(engine.address, (engine, set()))
    with contextlib.ExitStack() as ending:  # whatever fails, no process is left
        ending.callback(engine.close)
        for session in list(sessions):
            session._closed = True
            if _state.default is session:
                _set_default(None)
            ending.callback(engine.drop_objects, session.session_id)
            ending.callback(session._close_checkpoints)


def new_session(
    address: str | None = None,
    session_id: str | None = None,
    backend: str = "mars",
    default: bool = True,
    new: bool = True,
    *,
    engine: str = "local",
    n_worker: int = 1,
    n_cpu: int | str = "auto",
    object_memory: int | str | None = None,
    spill_directory: str | os.PathLike[str] | None = None,
    log_limit: int | str | None = "1GiB",  # more than anybody reads, less than fills a disk
    seed: int | None = 0,
    timeout: float | None = None,
    checkpoint: str | os.PathLike[str] | bool | None = None,
    web: bool = False,
    security: object | None = None,
    env: Mapping[str, str] | None = None,
    working_dir: str | os.PathLike[str] | None = None,
    node_ports: int | str | None = None,
    **accepted: Any,
) -> Session:
    """Start an engine, or join one, and make a session on it.

    Parameters
    ----------
    address : str, optional
        None: start an engine on this machine. The ``address`` of another session: join its
        engine. Of a cluster: ``"http://host:web_port"`` as ``mars cluster up`` or
        ``mars-supervisor`` prints it; ``"tls://host:port"``, ``"tcp://host:port"`` or
        ``"dask://host:port"`` of a Dask scheduler, ``"ray://host:port"`` of a Ray client server,
        ``"ray"`` for the Ray on this host. With ``engine="dask"`` or ``"ray"`` also what these
        call an address, such as ``"host:6379"``.
    session_id : str, optional
        Default: one is made up.
    backend : {"mars", "oscar"}, default "mars"
        The original's two names of one thing; nothing else is there.
    default : bool, default True
        Whether it becomes the default session.
    new : bool, default True
        False: with ``address`` and ``session_id``, give the session of that id if it is open.
    engine : {"local", "inline", "dask", "ray"}
        "local": worker processes. "inline": calls run in the calling thread, for a debugger.
        "dask", "ray": worker processes on a cluster; without an address, on one of its own on
        this machine, which ends with the session.
    n_worker : int, default 1
        Groups that the workers are divided into; ``expect_worker=`` chooses one.
    n_cpu : int or "auto"
        Cores that running calls share; "auto": those that this process may use.
    object_memory : int or str, optional
        Memory for large results and arguments, of all processes together, in bytes or as
        ``"2GiB"``; further ones go to disk until there is room again. Default: 40 % of the
        memory that this process may use.
    spill_directory : path, optional
        Where they go then, in files without a name. Default: ``TMPDIR``, or ``/var/tmp``.
    log_limit : int or str or None, default "1GiB"
        How much is kept of what one call prints, or one block of items of a map, in bytes or as
        ``"10MiB"``, at least 256 KiB. Of more, the middle is left out: a line in the log says
        how much. None: all is kept.
    seed : int or None, default 0
        Seed of `mars.remote.rng`; None: different numbers each time.
    timeout : float, optional
        Seconds that one `execute` may take.
    checkpoint : path, URL or False, optional
        Folder where each result is kept as soon as it is there. The same program, run again,
        finds it and runs only what is missing. Default: the environment variable
        ``MARS_CHECKPOINT``; without it, or with False, nothing is kept.
    web : bool, default False
        Accepted for programs of the original; nothing listens.
    security : object, optional
        For a cluster: has ``ca_path``, ``cert_path`` and ``key_path``, of PEM files, and for Ray
        ``token``. Default: the credentials that this user has of a cluster of ``mars cluster``.
    env : mapping of str to str, optional
        Environment variables that calls have; those that the program changes later win.
    working_dir : path, optional
        Folder that calls run in, and can import from. On this machine it is that folder; each node
        of a cluster gets a copy of its content now, up to 256 MiB, without ``.git`` and the like,
        which is removed with the session. Default: where the program is.
    node_ports : int or str, optional
        Where each node of a cluster listens for this program while the session begins, and for
        another node when a large value first goes there, as ``7200`` or ``"7200-7219"``: for
        firewalls between them. It takes the first that is free; sessions that begin at the same
        time, and nodes on one host, need one each. Default: any that is free.
    **accepted
        Further arguments of the original, without effect: ``config``, ``cuda_devices``,
        ``init_local``, ``loop``, ``mem_bytes``, ``n_supervisor_process``, ``request_rewriter``,
        ``subprocess_start_method``, ``use_uvloop``.

    Returns
    -------
    Session

    Raises
    ------
    UnknownTarget
        The address, engine or backend is unknown (a ValueError).
    TypeError, ValueError
        A wrong argument; the message names it.
    CredentialsError
        The credentials of a cluster are not here, or expired, or other users could read them.
    ClusterUnreachable
        Nobody answers there (a ConnectionError).
    StartupFailed
        The system refuses to start processes; a cluster is not there, refuses this program, or
        has no node with the same versions and a free one of ``node_ports``.
    CheckpointBusy
        Another process writes to the checkpoint.
    CheckpointUnusable
        It is no folder for checkpoints (a ValueError).

    Notes
    -----
    Source: ``mars.new_session``; what differs is in docs/differences.md.

    Examples
    --------
    >>> import mars, mars.remote as mr
    >>> with mars.new_session(n_cpu=2):
    ...     mr.spawn(sum, args=([1, 2, 3],)).execute().fetch()
    6
    """
    unknown = accepted.keys() - _SESSION_ACCEPTED
    if unknown:
        raise TypeError(f"new_session() got an unexpected keyword argument {min(unknown)!r}")
    if backend not in ("mars", "oscar"):
        raise UnknownTarget(f"backend {backend!r} is not there; this version has 'mars'")
    seed, timeout = plain_scalar(seed), plain_scalar(timeout)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise ValueError(f"seed has to be an int from 0 on, or None, got {seed!r}")
    log_bytes = None if log_limit is None else parse_bytes(log_limit, "log_limit")
    if log_bytes is not None and log_bytes < LOG_LIMIT_AT_LEAST:
        raise ValueError(
            f"log_limit has to be at least {LOG_LIMIT_AT_LEAST // KIB} KiB, or None for all of it, "
            f"got {log_limit!r}"
        )
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, Real)):
        raise TypeError(f"timeout has to be seconds, got {timeout!r}")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout has to be more than 0 seconds, got {timeout!r}")
    far = engine in ("dask", "ray") or start.is_cluster(address)
    with _state.lock:
        known = _state.engines.get(address) if address is not None else None
        if known is not None:
            started = known[0]
            if not new and session_id is not None:
                for session in known[1]:
                    if session.session_id == session_id:
                        return session.as_default() if default else session
        elif not (far or address in start.LOCAL):
            raise UnknownTarget(
                f"there is no engine at {address!r}; leave the address out to start one on this "
                f"machine, or pass the address of a session of this process, of a Dask scheduler "
                f"('tls://host:port', 'tcp://host:port' or 'dask://host:port') or of Ray "
                f"('ray://host:port'; 'ray' for the one on this host)"
            )
        else:
            try:
                started = start.engine(
                    engine, n_worker, n_cpu, object_memory, spill_directory,
                    None if address in start.LOCAL else address, security, env, working_dir,
                    node_ports,
                )  # fmt: skip
            except MarsError as error:
                # It says what to do; where in our files it was raised tells a user nothing. What
                # led to it, such as an error of Dask, stays in `__context__`.
                raise error.with_traceback(None) from None
            started.limit_logs(log_bytes)
            _state.engines[started.address] = (started, set())
            if far:
                # Before the handlers that Ray or Dask registered when it was imported: what they
                # end would look lost, and Ray ends a program that uses it then, with status 1.
                atexit.unregister(close_all)
                atexit.register(close_all)
        where = _where(checkpoint)
        try:
            session = Session(
                started,
                session_id or os.urandom(12).hex(),
                seed=seed,
                timeout_s=timeout,
                checkpoint=where,
            )
        except BaseException:
            if not _state.engines[started.address][1]:
                del _state.engines[started.address]
                started.close()
            raise
        _state.engines[started.address][1].add(session)
    if default:
        session.as_default()
    return session


def _where(checkpoint: Any) -> str | None:
    """The checkpoint that was asked for, by argument or environment."""
    if checkpoint is not None:
        return None if checkpoint is False else os.fspath(checkpoint)
    if context.current() is not None:  # inside a call, whose result is kept
        return None
    return os.environ.get("MARS_CHECKPOINT") or None


_SESSION_ACCEPTED: Final = frozenset(
    {
        "config", "cuda_devices", "init_local", "loop", "mem_bytes", "n_supervisor_process",
        "request_rewriter", "subprocess_start_method", "use_uvloop",
    }
)  # fmt: skip


def get_default_session() -> Session | None:
    """The default session; inside a call, the session that asked for the call."""
    attempt = context.current()
    if attempt is not None:
        return _session_of(attempt)
    session = _state.default
    return None if session is None or session.closed else session


def _session_of(attempt: context.Attempt) -> Session:
    session = attempt.session
    if session is None:
        session = attempt.session = Session(attempt.engine, attempt.session_id, nested=True)
    return session  # type: ignore[no-any-return]


def get_default_or_create(**kwargs: Any) -> Session:
    """The default session; when there is none, a new one, with a warning that is never an error.

    Parameters
    ----------
    **kwargs
        As of `new_session`, for a new one.
    """
    session = get_default_session()
    if session is None:
        with _state.lock:
            session = get_default_session()
            if session is None:
                session = new_session(**kwargs)
                _tell_of_session(_outside())
    return session


def _tell_of_session(level: int) -> None:
    """Say that there was no session, as the original does: by a warning.

    Nothing is wrong, so a program that makes errors of warnings, as many a test suite does, gets a
    line on stderr in its place.
    """
    try:
        warnings.warn(_NO_SESSION, stacklevel=level + 1)
    except Warning:
        from mars.observe.progress import write_line

        write_line(_NO_SESSION_LINE)


def _outside() -> int:
    """Stack level of the first caller that is not mars."""
    own = os.path.dirname(os.path.abspath(__file__)) + os.sep
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(own):
        level, frame = level + 1, frame.f_back
    return level


def clear_default_session() -> None:
    """Have no default session any more; the session itself stays."""
    _set_default(None)


def stop_server() -> None:
    """End the default session's engine, if there is one."""
    session = get_default_session()
    if session is not None:
        session.stop_server()


def get_context() -> context.Context | None:
    """What a running call can ask about itself; None outside of a call.

    Returns
    -------
    Context or None

    Examples
    --------
    >>> import mars.remote as mr
    >>> def where() -> str:
    ...     return get_context().session_id
    >>> mr.spawn(where).execute().fetch() == get_default_session().session_id
    True
    """
    attempt = context.current()
    if attempt is None:
        return None
    return context.Context(attempt, lambda: _session_of(attempt))


def choose(session: Any, **kwargs: Any) -> Session:
    """The session given, or the default one."""
    if session is None:
        return get_default_or_create(**kwargs)
    if isinstance(session, AsyncSession):
        return session.session
    if not isinstance(session, Session):
        raise TypeError(f"session has to be a Session, got {session!r:.80}")
    return session


def _existing(session: Any) -> Session:
    """The session to read from: reading never starts an engine."""
    if session is None:
        session = get_default_session()
        if session is None:
            raise NotExecuted("there is no session")
    return choose(session)


def execute(*objects: Any, session: Any = None, **kwargs: Any) -> Any:
    """Execute objects in a session; everything else as of `Session.execute`.

    Parameters
    ----------
    objects : Object
        What to execute, or one list or tuple of them.
    session : Session, optional
        Default: the default session; one is made, with a warning, when there is none.
    **kwargs
        As of `Session.execute`.

    Examples
    --------
    >>> import mars.remote as mr
    >>> one, two = execute(mr.spawn(abs, -1), mr.spawn(abs, -2))
    >>> fetch(one, two)
    [1, 2]
    """
    return choose(session).execute(*objects, **kwargs)


def fetch(*objects: Any, session: Any = None, **kwargs: Any) -> Any:
    """Values of executed objects; everything else as of `Session.fetch`.

    Parameters
    ----------
    objects : Object
        One or several, or one list or tuple of them; of a single one, its value.
    session : Session, optional
        Default: the default session.
    **kwargs
        Accepted for programs of the original, without effect.
    """
    return _existing(session).fetch(*objects, **kwargs)


def fetch_infos(*objects: Any, fields: Sequence[str] | None = None, session: Any = None) -> Any:
    """Facts about stored results, such as their size.

    Parameters
    ----------
    objects : Object
        One or several, or one list or tuple of them.
    fields : sequence of str, optional
        Of ``data_key``, ``object_id``, ``level``, ``memory_size``, ``store_size``, ``bands``;
        default: all.
    session : Session, optional
        Default: the default session.

    Returns
    -------
    dict or list of dict
        Of a single object its facts, each in a list with one item; of several a list of those.
    """
    infos = _existing(session).fetch_infos(*objects, fields=fields)
    return infos[0] if len(infos) == 1 else infos


def fetch_log(
    *objects: Any, session: Any = None, offsets: Any = None, sizes: Any = None
) -> list[LogFetcher]:
    """Logs of objects, as a list; everything else as of `Session.fetch_log`.

    Parameters
    ----------
    objects : Object
        One or several, or one list or tuple of them.
    session : Session, optional
        Default: the default session.
    offsets, sizes : int, str, dict or list, optional
        See `mars.remote.Object.fetch_log`.
    """
    return _existing(session).fetch_log(*objects, offsets=offsets, sizes=sizes)


class AsyncSession:
    """The same session for ``async`` code: what may take time is to be awaited.

    Notes
    -----
    Source: ``AsyncSession`` of Mars; what differs is in docs/differences.md.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    async def init(
        cls, address: str | None = None, session_id: str | None = None, **kwargs: Any
    ) -> AsyncSession:
        """Make a session, which does not become the default one.

        Parameters
        ----------
        address, session_id, **kwargs
            As of `new_session`.
        """
        return cls(await _in_thread(new_session, address, session_id, default=False, **kwargs))

    async def execute(self, *objects: Any, **kwargs: Any) -> Execution:
        """Start a run; await what comes back for its end.

        Parameters and errors as of `Session.execute`.
        """
        kwargs["wait"] = False
        execution: Execution = self.session.execute(*objects, **kwargs)
        return execution

    async def fetch(self, *objects: Any, **_: Any) -> Any:
        """Values of executed objects: of a single one its value, of several a list."""
        return await _in_thread(self.session.fetch, *objects)

    async def get_total_n_cpu(self) -> int:
        """Cores that the calls of this engine share."""
        return self.session.get_total_n_cpu()

    async def get_cluster_versions(self) -> list[str]:
        """Versions of mars that run in the engine."""
        return self.session.get_cluster_versions()

    async def get_web_endpoint(self) -> str | None:
        """None: nothing listens."""
        return self.session.get_web_endpoint()

    async def create_remote_object(
        self, session_id: str, name: str, cls: Callable[..., Any], *args: Any, **kw: Any
    ) -> AsyncRemoteObject:
        """Make an object that all calls of a session share.

        Parameters
        ----------
        session_id : str
            Id of the session.
        name : str
            What to ask for it by, in that session.
        cls : callable
            Called with ``*args`` and ``**kw`` to make it.

        Returns
        -------
        AsyncRemoteObject
            Stands for it: a call of a method is to be awaited.

        Raises
        ------
        ValueError
            The session has one of that name.
        """
        create = self.session._engine.create_object
        return AsyncRemoteObject(await _in_thread(create, session_id, name, cls, args, kw))

    async def get_remote_object(self, session_id: str, name: str) -> AsyncRemoteObject:
        """The shared object of that name.

        Parameters
        ----------
        session_id, name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none.
        """
        return AsyncRemoteObject(self.session._engine.get_object(session_id, name))

    async def destroy_remote_object(self, session_id: str, name: str) -> None:
        """Forget a shared object.

        Parameters
        ----------
        session_id, name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none.
        """
        self.session._engine.destroy_object(session_id, name)

    def as_default(self) -> AsyncSession:
        """Make this the default session.

        Returns
        -------
        AsyncSession
            Itself.
        """
        self.session.as_default()
        return self

    async def destroy(self) -> None:
        """End the session."""
        await _in_thread(self.session.close)

    async def stop_server(self) -> None:
        """End the engine."""
        await _in_thread(self.session.stop_server)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def __repr__(self) -> str:
        return repr(self.session).replace("<Session", "<AsyncSession")


async def _in_thread(act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Do what may take time without holding up the event loop."""
    import asyncio

    return await asyncio.to_thread(act, *args, **kwargs)


SyncSession = Session
"""What the original calls it."""


def __getattr__(name: str) -> object:
    # The original's name of what `execute(wait=False)` gives; late, see `mars.errors`.
    if name != "ExecutionInfo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mars.execution import Execution

    return Execution


def get_default_async_session() -> AsyncSession | None:
    """The default session for ``async`` code."""
    session = get_default_session()
    return None if session is None else AsyncSession(session)


@contextlib.contextmanager
def default_session(session: Session) -> Iterator[Session]:
    """Have ``session`` as the default for a block.

    Parameters
    ----------
    session : Session
        It stays open after the block; the default from before comes back.
    """
    before = _state.default
    _set_default(session)
    try:
        yield session
    finally:
        _set_default(before)
