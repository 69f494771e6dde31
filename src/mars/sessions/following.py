"""Tells a program what happens in its session: its hook, its log, and its spans.

Nothing is asked of the engine for it. While runs go on, a thread reads the table of attempts, and
tells what it finds there. A program that wants none of this pays for one question per run. Called
by `mars.sessions.runs`; loaded when somebody wants to be told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mars.config import option_values
from mars.delivery import log_failure
from mars.engine import Engine, Run
from mars.observe.events import ATTEMPT, BEGAN, ENDED, Event
from mars.observe.observation import each_attempt
from mars.observe.watchers import is_logged
from mars.settings import (
    EVENTS_EVERY_S,
    EVENTS_IDLE_S,
    EVENTS_STEP_ROWS,
    EVENTS_WAIT_S,
    EVENTS_WARNINGS,
)

if TYPE_CHECKING:
    from mars.observe.spans import Spans

Hook = Callable[[Event], object]


class _Followed:
    """A run that somebody is told of, and who is told.

    ``each``: of each attempt, as soon as it has ended. Otherwise only of those that went wrong,
    once the run has ended: to read all attempts of a flood of tiny calls would slow it down.
    """

    def __init__(self, run: Run, sinks: list[Hook], each: bool) -> None:
        self.run = run
        self.sinks = sinks
        self.each = each
        self.warnings = 0
        self.told = False
        self.over = threading.Event()


class Following:
    """Follows the runs of one session.

    Parameters
    ----------
    engine : Engine
        The engine.
    session_id : str
        Id of the session.
    """

    def __init__(self, engine: Engine, session_id: str) -> None:
        self._engine = engine
        self._session_id = session_id
        self._ahead_s = time.time() - time.monotonic()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._runs: dict[Run, _Followed] = {}
        self._thread: threading.Thread | None = None
        self._cursor = 0
        self._spans: Spans | None = None
        self._closed = False

    def begin(self, run: Run) -> None:
        """Follow a run that is about to be submitted, for those who want to be told now.

        Raises
        ------
        ImportError
            OpenTelemetry was asked for, and is not installed.
        """
        if run in self._runs:
            return
        sinks, each = self._sinks()
        with self._lock:
            self._runs[run] = _Followed(run, sinks, each)
            if self._thread is None and not self._closed:
                self._cursor = self._engine.observe().next
                self._thread = threading.Thread(
                    target=self._follow, name="mars-events", daemon=True
                )
                self._thread.start()
        run.on_end(lambda _: self._news.set())

    def wait(self, run: Run) -> None:
        """Wait until all of a run that has ended has been told."""
        followed = self._runs.get(run)
        if followed is not None and threading.current_thread() is not self._thread:
            followed.over.wait(EVENTS_WAIT_S)

    def settle(self) -> None:
        """Wait until all runs that have ended have been told of."""
        for run in [one for one in list(self._runs) if one.ended]:
            self.wait(run)

    def end(self) -> None:
        """Tell what is left, and end the thread. A second call does nothing.

        Runs that go on are ended by their engine after this; then the thread tells that, and ends.
        """
        self.settle()
        with self._lock:
            self._closed = True
            thread, going = self._thread, any(not run.ended for run in self._runs)
        self._news.set()
        if thread is not None and not going and thread is not threading.current_thread():
            thread.join(EVENTS_WAIT_S)

    def _sinks(self) -> tuple[list[Hook], bool]:
        """Who wants to be told now, and whether somebody wants to hear of each attempt."""
        values = option_values()
        sinks: list[Hook] = []
        hook = values["on_event"]
        if hook is not None:
            sinks.append(hook)
        if values["open_telemetry"]:
            from mars.observe.spans import Spans

            spans = self._spans = self._spans or Spans(self._ahead_s)
            parent = spans.here()
            sinks.append(lambda event: spans.tell(event, parent))
        each = bool(sinks)
        if is_logged():
            from mars.observe.event_log import log, logger

            sinks.append(log)
            each |= logger.isEnabledFor(10)  # DEBUG: calls that ended well, too
        return sinks, each

    # -- the thread ---------------------------------------------------------------------------

    def _follow(self) -> None:
        idle_s = 0.0
        while True:
            heard = self._news.wait(EVENTS_EVERY_S)
            self._news.clear()
            with self._lock:
                followed = list(self._runs.values())
                idle_s = 0.0 if followed or heard else idle_s + EVENTS_EVERY_S
                if not followed and (self._closed or idle_s > EVENTS_IDLE_S):
                    self._thread = None
                    return
            over = [one for one in followed if one.run.ended]
            if any(one.each or (one.run.ended and one.run.failed) for one in followed):
                self._look()  # what a run that has ended has done is in the table
            for one in over:
                self._begun(one)
                run = one.run
                if one.told:
                    now = self._ahead_s + time.monotonic()
                    self._tell(one, Event(ENDED, self._session_id, run.number, now, None,
                                          run.total, run.done, run.failed))  # fmt: skip
            with self._lock:
                for one in over:
                    del self._runs[one.run]
            for one in over:
                one.over.set()

    def _look(self) -> None:
        more = True
        while more:
            with self._lock:
                followed = list(self._runs.values())
            for one in followed:
                self._begun(one)
            rows = self._engine.table(self._cursor, EVENTS_STEP_ROWS)
            more = rows.next > self._cursor and bool(rows.pieces)
            self._cursor = max(rows.next, self._cursor)
            by_number = {one.run.number: one for one in followed}
            mine = {number for number, facts in rows.runs.items() if facts[0] == self._session_id}
            for attempt in each_attempt(rows):
                if attempt.run not in mine:
                    continue
                told = by_number.get(attempt.run) or (followed[0] if followed else None)
                if told is not None and not told.each:
                    told.warnings += attempt.ending != "value"
                    if attempt.ending == "value" or told.warnings > EVENTS_WARNINGS:
                        told = None
                if told is not None:  # a run inside a call is told to whoever follows
                    ended_s = attempt.ended or rows.now
                    self._tell(told, Event(ATTEMPT, self._session_id, attempt.run,
                                           ended_s + self._ahead_s, attempt))  # fmt: skip

    def _begun(self, one: _Followed) -> None:
        run = one.run
        if not one.told and run.number and run.total:
            one.told = True
            self._tell(one, Event(BEGAN, self._session_id, run.number,
                                  run.started_at + self._ahead_s, None, run.total))  # fmt: skip

    @staticmethod
    def _tell(one: _Followed, event: Event) -> None:
        for sink in one.sinks:
            try:
                sink(event)
            except BaseException as error:  # it is the program's, and must not end the thread
                log_failure("exception in mars.options.on_event", error)


__all__ = ["Following", "Hook"]
