"""How a session runs calls: it prepares a run, hands it to the engine, and waits for it.

A `Session` has one `Runs`; `mars.calls.executable` and the session itself call its `run`. What runs
where is decided by the engine.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, cast

from mars.attempt import context
from mars.code import modules
from mars.config import option_values, options, plain_scalar
from mars.engine import Run, SessionRealm
from mars.errors import UsageError
from mars.graph import needed_calls
from mars.observe.watchers import is_logged, is_watched
from mars.sessions.logs import CallLogs, Feed
from mars.settings import CANCEL_WAIT_S, PROGRESS_LOAD_S, PROGRESS_REDRAW_S
from mars.task import Call, Handle, Output, Stage, Task

if TYPE_CHECKING:
    from mars.checkpoint.checkpoint import Checkpoint
    from mars.completion import Ends
    from mars.observe.silence import Listener
    from mars.sessions.echoing import Echoing
    from mars.sessions.following import Following
    from mars.sessions.tally import Tally

    class _Notes(Protocol):
        """A display, as far as it shows lines."""

        def note(self, line: str, /) -> object: ...

    class RunArguments(TypedDict, total=False):
        """What ``execute`` may be given of `Runs.run`; that explains each."""

        show_progress: bool | str | None
        interval_s: float
        on_error: str
        seed: int | None
        cancelled: threading.Event | None
        checkpoint: object
        echo: bool | str | None
        report: str | os.PathLike[str] | None


class Series:
    """Runs that the program starts one after the other as one thing: see `mars.calls.windowed`.

    They store a large argument once, as long as one of them is under way. With a seed, their calls
    have the random numbers that they would have in one run.
    """

    __slots__ = ("__weakref__", "_numbered", "_places", "_started")

    def __init__(self) -> None:
        self._places = itertools.count()
        self._numbered: set[int] = set()
        self._started: set[int] = set()

    def number(self, targets: Iterable[Call]) -> None:
        """Give calls, and what they need, the next places. A call that has one keeps it."""
        for call in needed_calls(targets, None):
            if call.serial not in self._numbered:
                self._numbered.add(call.serial)
                call.place = call.own_place(next_place(call, self._places))

    def start(self, missing: Sequence[Call]) -> frozenset[Call]:
        """Note what the next run starts; gives what an earlier run of the series has started."""
        before = frozenset([call for call in missing if call.serial in self._started])
        self._started.update([call.serial for call in missing])
        return before


def next_place(call: Call, places: Iterator[int]) -> int:
    """The number that a call makes its place of. Items of a map have one together."""
    known = None if call.whole is None else call.whole.place
    return known if isinstance(known, int) else next(places)  # a map is no item itself


class Runs:
    """Runs calls for one session.

    Parameters
    ----------
    realm : SessionRealm
        What the tasks of the session belong to.
    session_id : str
        The session.
    seed : int or None
        Seed of `mars.remote.rng`, if neither the run nor the program has another one.
    timeout_s : float or None
        How long one run may take, in seconds.
    nested : bool
        Whether the session is one inside a call. Who waits in the program itself then shows the
        progress and tells of silent calls.

    Attributes
    ----------
    checkpoints : dict of str to Checkpoint
        The checkpoints that runs have used, each by its folder or URL.
    checkpoint : Checkpoint or None
        The one for runs that name no other.
    watcher : callable or None
        Told of each run that begins, and its calls: the page. It is quick.
    """

    def __init__(
        self,
        realm: SessionRealm,
        session_id: str,
        *,
        seed: int | None,
        timeout_s: float | None,
        nested: bool,
    ) -> None:
        self._realm = realm
        self._engine = realm.engine
        self._session_id = session_id
        self._seed = seed
        self._timeout_s = timeout_s
        self._nested = nested
        self._places = itertools.count()
        self._interrupted: weakref.WeakSet[Run] = weakref.WeakSet()
        self.checkpoints: dict[str, Checkpoint] = {}
        self.checkpoint: Checkpoint | None = None
        self.watcher: Callable[[Run, Sequence[Call]], object] | None = None
        self._following: Following | None = None
        self.under_way: dict[Run, Sequence[Call]] = {}  # for who begins to watch later

    def run(
        self,
        handles: Sequence[Handle],
        *,
        finish: Callable[[], object],
        plain: bool = False,
        wait: bool = True,
        show_progress: bool | str | None = None,
        interval_s: float = 1,
        on_error: str = "raise",
        seed: int | None = None,
        cancelled: threading.Event | None = None,
        checkpoint: object = None,
        echo: bool | str | None = None,
        report: str | os.PathLike[str] | None = None,
        series: Series | None = None,
        ended: Callable[[Run], object] | None = None,
    ) -> Any:
        """Run what handles stand for, as `Session.execute` does.

        ``finish`` makes the result once all is done. ``plain`` says that it unpickles nothing of
        the program for that. ``series`` has what the run has in common with others. ``ended`` is
        called when it has ended, in the engine's thread or in this one.
        """
        self._realm.check_open()
        wait, show_progress, interval_s, seed = _run_arguments(
            wait, show_progress, interval_s, on_error, seed
        )
        if report is not None:
            self._check_report(report)
        modules.note_importers()
        values = option_values()
        if seed is None and not self._nested:  # nested calls have the seed of the run they are in
            seed = values["seed"]
        run = self._new_run(on_error, seed)
        run.series = series
        targets: dict[Call, None] = {}
        for handle in handles:
            if isinstance(handle, Output):  # most programs have only these, and many
                targets[handle.call] = None
            else:
                targets.update(dict.fromkeys(handle.calls_in(self._realm)))
        kept = self.checkpoint if checkpoint is None else self.checkpoint_at(checkpoint)
        missing = needed_calls(targets, self._realm, self._adopt)
        self._give_places(missing, targets, seed, series)
        if kept is not None and missing:
            missing = self._recall(kept, targets, missing, run, show_progress)
        for call in targets:
            if call.task is not None:
                task = call.task_in(self._realm)
                if task is not None:
                    task.asked = True
        asked, loud = echo is not None, self._engine.loud
        before = {call: call.task for call in missing if call.task is not None}
        if echo is None:
            echo = values["echo"]
        if not missing or self._nested:
            echo = False
        elif echo != "summary" and echo is not False:
            echo = self._echo_mode(echo)
        run.beside = not wait and not self._nested
        ends = None
        if not wait and not (len(handles) == 1 and isinstance(handles[0], Output)):
            ends = _ends_of(run, targets, missing)
        if missing and self._timeout_s is not None:
            self._limit(run, self._timeout_s)
        if missing and cancelled is not None:
            self._heed(run, cancelled)
        if ended is not None:
            run.on_end(ended)
        if missing:
            if series is not None:
                run.once = series.start(missing)
            self._submit(run, missing, targets)
        else:
            run.end()
        named = functools.partial(self._named, targets, missing)
        echoing = None
        if echo in ("all", "failures"):
            from mars.sessions.echoing import Echoing

            echoing = Echoing(echo, CallLogs(self._realm).feeds(named(), before))
        if not wait:
            from mars.execution import Execution

            if echoing is not None:
                echoing.begin(run)
            if echoing is not None or report is not None:
                plain = False  # to settle it is to wait for the last lines, and to write the report

            def settle(make: Callable[[], object]) -> object:
                if echoing is not None:
                    echoing.wait()
                return self._finish(run, make, report)

            execution = Execution(
                run, self._engine, settle, finish, list(handles), self.listen, plain, ends
            )
            execution.begin()
            return execution
        try:
            self._wait(run, show_progress, interval_s, lambda: (named(), before), echoing)
        finally:
            if kept is not None:
                kept.flush()
            if echo == "summary" and self._engine.loud != loud and (asked or is_watched()):
                self._tell_loud(CallLogs(self._realm).feeds(named(), before))
        return self._finish(run, finish, report)

    def _echo_mode(self, given: object) -> bool | str:
        """What a run shows of what its calls print, if that is not the usual."""
        from mars.observe.echo import check_mode

        mode = check_mode(given)
        return False if self._engine.shows_calls else mode

    @staticmethod
    def _named(targets: Iterable[Call], missing: Sequence[Call]) -> list[tuple[str, Call]]:
        """The calls of a run, each with the name that people know it by."""
        from mars.observe.echo import labels

        run_now = set(missing)
        named = labels(list(dict.fromkeys([*targets, *missing])))
        return [one for one in named if one[1] in run_now]

    @staticmethod
    def _tell_loud(feeds: Sequence[Feed]) -> None:
        """Say which calls have written to stderr."""
        from mars.observe.echo import summary_line
        from mars.observe.progress import tell

        names = [name for feed in feeds for name in feed.loud()]
        if names:
            tell(summary_line(names, sum(feed.size() for feed in feeds)))

    def begin_one(self) -> Run:
        """A run for calls that come one at a time. Failed calls do not end it."""
        run = self._new_run("continue", option_values()["seed"] if not self._nested else None)
        run.beside = True
        self._follow(run)
        return run

    def next_place(self) -> int:
        """The place of a call that comes by itself."""
        return next(self._places)

    def submit_one(self, call: Call, ended: Callable[[Run], object]) -> None:
        """Run one call, and what it needs, in a run of its own; wait for nothing.

        Parameters
        ----------
        call : Call
            The call.
        ended : callable
            Called with the run when it has ended, in the engine's thread, or in this one.

        Raises
        ------
        NoAvailableBand, StoreFull, SessionClosed
            As of `mars.engine.Engine.submit`; then ``ended`` has been called, too, or will not be.
        """
        self._realm.check_open()
        modules.note_importers()
        run = self.begin_one()
        kept = self.checkpoint
        targets = {call: None}
        missing = needed_calls(targets, self._realm, self._adopt)
        self._give_places(missing, targets, None)
        if kept is not None:
            missing = self._recall(kept, targets, missing, run, False)
        task = call.task_in(self._realm)
        if task is not None:
            task.asked = True
        run.on_end(ended)
        if not missing:
            run.end()
            return
        self._submit(run, missing, targets)
        run.wait_beside()

    def _new_run(self, on_error: str, seed: int | None) -> Run:
        run = Run(
            self._session_id,
            self._realm,
            stop_on_error=on_error == "raise",
            entropy=self._seed if seed is None else seed,
        )
        attempt = context.current() if self._nested else None
        if attempt is not None:
            run.prefix = attempt.place
            if seed is None:
                run.entropy = attempt.entropy
        return run

    def _follow(self, run: Run) -> None:
        """Have the program told what happens in a run, if it wants that."""
        values = option_values()
        if self._nested or not (
            values["on_event"] is not None or values["open_telemetry"] or is_logged()
        ):
            return
        if self._following is None:
            from mars.sessions.following import Following

            self._following = Following(self._engine, self._session_id)
        self._following.begin(run)

    def end_following(self) -> None:
        """Tell the program what is left of runs that have ended, if it wants to be told."""
        if self._following is not None:
            self._following.end()
            self._following = None

    def checkpoint_at(self, where: object) -> Checkpoint | None:
        """The checkpoint in a folder or at an URL. A session opens each of them once."""
        if where is False or self._nested:
            return None  # nested calls are kept with the call that asks for them
        folder = os.fspath(cast("str", where))  # it raises for what is no path
        known = self.checkpoints.get(folder)
        if known is None:
            from mars.checkpoint.checkpoint import Checkpoint
            from mars.observe.progress import write_line

            known = Checkpoint(folder, self._realm, self._engine, write_line)
            self.checkpoints[folder] = known
        return known

    def _recall(
        self,
        kept: Checkpoint,
        targets: Iterable[Call],
        needed: Sequence[Call],
        run: Run,
        show_progress: bool | str | None,
    ) -> list[Call]:
        """Leave out of a run what a checkpoint has. The engine tells the checkpoint of the rest."""
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

    def _limit(self, run: Run, timeout_s: float) -> None:
        """End a run when it has taken ``timeout_s`` seconds."""

        def late() -> None:
            if not run.ended:
                run.error = self._too_late(run)
                self._engine.cancel(run)

        timer = threading.Timer(timeout_s, late)
        timer.daemon = True
        timer.start()
        run.on_end(lambda _: timer.cancel())

    def _heed(self, run: Run, cancelled: threading.Event) -> None:
        """End a run when the program sets an event, as the original does."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(PROGRESS_REDRAW_S):
                try:
                    if not cancelled.is_set():
                        continue
                except BaseException as error:  # the event is the program's own
                    run.error = error
                self._engine.cancel(run)
                return

        run.on_end(lambda _: ended.set())
        threading.Thread(target=look, name="mars-cancel", daemon=True).start()

    def _too_late(self, run: Run) -> TimeoutError:
        return TimeoutError(
            f"the run took longer than the session's timeout of {self._timeout_s:g} s: "
            f"{_how_far(run)}. What is done stays; execute() again runs the rest"
        )

    def _adopt(self, call: Call) -> bool:
        """Give a call the value that a block of its map has, if there is one."""
        found = call.adopt(self._realm)
        if found is None:
            return False
        if call.task is found:  # it was given its value already
            return True
        try:
            value = self._engine.value(found, 0)
        except Exception:  # the item failed, so the call is run by itself
            return False
        task = Task(call, self._realm)
        task.stage, task.logs, task.timing = Stage.DONE, found.logs, found.timing
        task.ended = found.attempts()
        self._engine.install(task, value)
        call.attach(task)
        return True

    def _submit(self, run: Run, missing: Sequence[Call], targets: Collection[Call]) -> None:
        if self.watcher is not None:
            self.watcher(run, missing)
        self._follow(run)
        if not self._nested:
            self.under_way[run] = missing
            run.on_end(self._over)
        try:
            places = [call.place for call in missing if call.place is not None]  # all have one
            self._engine.submit(run, missing, places, targets)
        except BaseException as error:
            if not run.ended:
                run.error = error
                run.end()
            _tell_how_far(error, run)  # Ctrl-C, where calls run in the thread that submits them
            raise

    def _over(self, run: Run) -> None:
        self.under_way.pop(run, None)

    def _give_places(
        self,
        missing: Sequence[Call],
        targets: Collection[Call],
        seed: int | None,
        series: Series | None = None,
    ) -> None:
        if seed is not None and series is not None:
            series.number(targets)
            return
        if seed is not None:
            # A run with a seed of its own counts from 0. Calls that are done already count, too.
            for place, call in enumerate(needed_calls(targets, None)):
                call.place = call.own_place(place)
            return
        attempt = context.current() if self._nested else None
        for call in missing:
            if call.place is None:
                if series is not None and attempt is None:
                    place = next_place(call, self._places)
                elif attempt is None:
                    place = next(self._places)
                else:
                    place = attempt.spawned
                    attempt.spawned += 1
                call.place = place if type(call) is Call else call.own_place(place)

    def _check_report(self, path: str | os.PathLike[str]) -> None:
        from mars.report.report import check_name

        check_name(path)
        if self._nested:
            raise UsageError(
                "report= inside a call: there is no record here; the program's own session has it"
            )

    def _report(self, run: Run, path: str | os.PathLike[str]) -> None:
        """Write the report on a run that has ended."""
        from mars.report.record import record_of
        from mars.report.report import report_of

        report_of(record_of(self._engine.table(), self._session_id, run.number)).save(path)

    def _finish(
        self, run: Run, finish: Callable[[], object], report: str | os.PathLike[str] | None = None
    ) -> object:
        if self._following is not None:
            self._following.wait(run)
        if report is not None:
            self._report(run, report)
        if run.error is not None:
            raise run.error
        failed = run.failure
        if failed is not None and run.stop_on_error:
            error = self._engine.failure(failed)
            self.tell_exit(error)
            raise error
        return finish()

    def tell_exit(self, error: BaseException) -> None:
        """Say which call asked for the end: a SystemExit ends a program without a word."""
        if not isinstance(error, SystemExit) or self._nested:
            return
        from mars.observe.progress import write_line

        notes = getattr(error, "__notes__", None) or ["a call"]
        which = notes[0].partition(" ·")[0]
        write_line(
            f"mars: {which} ended with sys.exit({'' if error.code is None else repr(error.code)}); "
            f"that is raised here as SystemExit, and ends the program unless it is caught"
        )

    def _wait(
        self,
        run: Run,
        show_progress: bool | str | None,
        interval_s: float,
        calls: Callable[[], tuple[list[tuple[str, Call]], dict[Call, Task]]],
        echoing: Echoing | None,
    ) -> None:
        try:
            if self._nested or run.ended:
                show_progress = False
            elif show_progress is None:
                show_progress = option_values()["show_progress"]
            if echoing is not None:
                self._watch(run, show_progress, interval_s, calls, echoing)
            elif show_progress is False:
                self._wait_listening(run)
            elif not run.wait(PROGRESS_LOAD_S):
                self._watch(run, show_progress, interval_s, calls, None)
        except BaseException as error:
            # Most likely this is Ctrl-C. What runs is stopped, and what is finished stays. Earlier
            # runs that ended so are cancelled once more, which kills what of them still runs.
            for late in [*self._interrupted, run]:
                self._engine.cancel(late)
            self._interrupted.add(run)
            if not self._nested:
                run.wait(CANCEL_WAIT_S)  # after that, its calls say that they were cancelled
                _tell_how_far(error, run)
            raise
        if run.cancelled and run.error is None:
            from concurrent.futures import CancelledError

            raise CancelledError(
                f"the run was cancelled: {_how_far(run)}; execute() again runs the rest"
            )

    def _watch(
        self,
        run: Run,
        show_progress: bool | str | None,
        interval_s: float,
        calls: Callable[[], tuple[list[tuple[str, Call]], dict[Call, Task]]],
        echoing: Echoing | None,
    ) -> None:
        from mars.observe.progress import display_for

        display = None if show_progress is False else display_for(show_progress)  # type: ignore[arg-type]
        tally: Tally | None = None
        if display is not None:
            from mars.sessions.tally import Tally

            tally = Tally(run, self._realm, *calls())
            display.start(run.total)
        listener = self._listener(display)
        if echoing is not None and display is not None:
            echoing.show_in(display)
        try:
            while not run.wait(min(interval_s, PROGRESS_REDRAW_S)):
                if display is not None and tally is not None:
                    display.update(tally.progress())
                listener.listen()
                if echoing is not None:
                    echoing.look()
        finally:
            if echoing is not None:
                echoing.look()
            if display is not None and tally is not None:
                display.finish(tally.progress(final=True))

    def _wait_listening(self, run: Run) -> None:
        """Wait for a run. The waiting thread tells of silent calls meanwhile."""
        if not run.ended:
            self.listen(run.wait, None)

    def listen(self, wait: Callable[[float | None], bool], timeout_s: float | None) -> bool:
        """Wait as ``wait(timeout_s)`` does. The waiting thread tells of silent calls meanwhile."""
        if self._nested:
            return wait(timeout_s)
        return bool(self._listener(None).wait(wait, timeout_s))

    def _listener(self, display: _Notes | None) -> Listener:
        """What tells of silent calls. If there is a display, it tells of them there."""
        from mars.observe.progress import write_line
        from mars.observe.silence import Listener

        show = write_line if display is None else display.note
        return Listener(self._engine.silent_calls, options.silent_notice, show)


def _how_far(run: Run) -> str:
    """How many calls of a run are done, for people."""
    failed = f", {run.failed:,} failed" if run.failed else ""
    return f"{run.done:,} of {run.total:,} done{failed}"


def _tell_how_far(error: BaseException, run: Run) -> None:
    """Say at Ctrl-C what is done, and what to do for the rest."""
    if isinstance(error, KeyboardInterrupt) and not error.args:
        error.args = (f"{_how_far(run)}; execute() again runs the rest",)


def _ends_of(run: Run, targets: Iterable[Call], missing: Iterable[Call]) -> Ends:
    """What hears of the calls of a run as they end. Those that were done before come first."""
    from mars.completion import Ends

    ends = Ends()
    run.heard = ends.put
    to_run = set(missing)
    for call in targets:
        if call not in to_run:
            ends.put_call(call)
    return ends


def _run_arguments(
    wait: object, show_progress: object, interval_s: float, on_error: object, seed: object
) -> tuple[bool, bool | str | None, float, int | None]:
    """The arguments of `Runs.run`, checked. Scalars of numpy become plain ones."""
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


__all__ = ["Runs", "Series"]
