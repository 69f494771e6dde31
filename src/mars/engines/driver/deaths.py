"""What becomes known of workers that end, or do not start, and whom it is told.

`Deaths` makes the event and the error of a worker that died, tells the user of workers that are
missing, and ends the runs that cannot go on without them. `loop` calls it, in its thread.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from mars.attempt import failure
from mars.attempt.capture import Log, Printed
from mars.engines.driver import events
from mars.engines.driver.certificate import ending_name, evidence, last_lines, start_ending
from mars.engines.driver.queues import place_of, serves
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.workers import Process, Workers
from mars.engines.local.workers import Ended
from mars.errors import MarsError, StartupFailed, WorkerDied
from mars.settings import CLOSED_S, DEATH_LOG_BYTES, START_FAILURES_QUOTED
from mars.task import Task, WorkerId


class Deaths:
    """Ends of the workers of one engine.

    Parameters
    ----------
    scheduler : Scheduler
        Says what each worker had queued.
    workers : Workers
        Say what messages call a group, and whether memory ran out.
    fail_runs : callable
        Ends the runs of a task with an error.
    tell : callable
        Shows the user a line.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        workers: Workers,
        fail_runs: Callable[[Task, MarsError], object],
        tell: Callable[[str], object],
    ) -> None:
        self._scheduler = scheduler
        self._workers = workers
        self._fail_runs = fail_runs
        self._tell = tell
        # Of workers that never were ready, by group; the last one's at the end.
        self._last_words: dict[int, deque[str]] = {}
        self._told_fewer: set[int] = set()  # groups
        self._told_closed: dict[int, str] = {}  # by group, and why

    def died(self, process: Process, ended: Ended, log: Log) -> events.Died:
        """The event of a worker that has ended; ``log`` is of the attempt that it began last."""
        number = WorkerId(process.number)
        state = self._scheduler.workers.get(number)
        ours = bool(process.broken) or state is None or state.stopping  # it was us
        starved = not ours and self._workers.starved(ended)
        # Of what it began before the last attempt, a frame that was lost may have told.
        certificates = {
            task: self._certificate(process, ended, task, log, starved)
            for task in (() if state is None else state.queue)
            if task.attempt <= ended.attempt
        }
        unable = state is not None and not state.ready
        if state is not None and unable:
            self.note(state.group, _words_of(process, ended))
            unable = ended.status is None or not os.WIFSIGNALED(ended.status)
            if ended.status is not None and self._scheduler.groups[state.group].threads:
                unable = False  # a call of another thread has ended the process
        return events.Died(
            number,
            ended.attempt,
            certificates.__getitem__,
            log,
            starved,
            1024 * ended.peak_kib,
            unable,
        )

    def _certificate(
        self, process: Process, ended: Ended, task: Task, log: Log, starved: bool
    ) -> bytes:
        """The failure of a task whose worker died under it."""
        error = WorkerDied(
            task.call.name,
            process.title,
            ending_name(ended.status),
            task.tries + task.deaths + 1,
            evidence(
                ended.status,
                peak_kib=ended.peak_kib,
                starved=starved,
                note=ended.note,
                broken=process.broken,
                tail=_tail(log.segment, log.start, log.end),
            ),
        )
        return failure.encode_failure(error, call=task.call.name)

    def note(self, group: int, words: str) -> None:
        """A worker of a group did not start, and this is what is known of it."""
        before = self._last_words.pop(group, deque(maxlen=2))
        self._last_words[group] = before
        before.append(words)

    def forget_group(self, group: int) -> None:
        """A group is lost: nothing is told of it any more."""
        self._last_words.pop(group, None)
        self._told_closed.pop(group, None)
        self._told_fewer.discard(group)

    def tell_fewer(self, group: int) -> None:
        """A worker did not start, and others of its group go on without it: say so once."""
        if group not in self._told_fewer:
            self._told_fewer.add(group)
            words = self._last_words.get(group) or ["it does not say why"]
            where = "" if self._workers.nodes is None else f" on {self._title(group)}"
            self._tell(
                f"mars: fewer worker processes than cores{where}, as another one does not start "
                f"({_last_line(words[-1])}); calls run on those that are there"
            )

    def close_group(self, number: int) -> None:
        """Worker processes of a group do not start: calls for it end, the others run elsewhere."""
        group = self._scheduler.groups[number]
        words = [*self._last_words.get(number, ())]
        if self._workers.nodes is not None:
            self._workers.nodes.closed(
                group.address, words[-1] if words else "no worker process starts"
            )
        words = words or ["they do not say why"]
        why = _last_line(words[-1])
        if self._told_closed.get(number) != why:
            self._told_closed[number] = why
            self._tell(
                f"mars: {self._title(number)} is closed, as worker processes do not start there "
                f"({why}); its calls run elsewhere, and it is tried again every {CLOSED_S:g} s"
            )
        there = [one for one in self._scheduler.groups.values() if not one.closed]
        for task in list(self._scheduler.ready):
            if not any(serves(one, task) for one in there):
                self._fail_runs(
                    task,
                    StartupFailed(
                        f"{task.call.name} can run on {group.address} alone, and worker processes "
                        f"do not start there:\n" + "\n".join(words)
                    ),
                )

    def _title(self, group: int) -> str:
        """What messages call a group."""
        return self._workers.title_of(place_of(group), self._scheduler.groups[group].address)

    def no_start(self) -> StartupFailed:
        """The error of runs when workers end before they are ready, again and again."""
        # Most often all say the same, and so does the zygote, which prints what ended at once.
        groups = self._scheduler.groups
        words = [
            f"{self._title(group)}: {one}" if len(groups) > 1 and group in groups else one
            for group, some in self._last_words.items()
            for one in some
        ]
        told = dict.fromkeys((*words[-START_FAILURES_QUOTED:], self._workers.complaint()))
        detail = "\n".join(words for words in told if words)
        return StartupFailed(
            f"worker processes do not start:\n{detail}\n"
            f"what they say last is why; a limit (ulimit -a), an environment variable or a "
            f"sitecustomize that this program had before it began may be the cause"
        )


def _words_of(process: Process, ended: Ended) -> str:
    """How a worker ended that never was ready, and what it said."""
    segment = process.segment
    said = "\n".join(last_lines(_tail(segment, 0, segment.size())))
    ending = "" if ended.note else f"a worker {start_ending(ended.status)}"
    return "\n".join(part for part in (ended.note, ending, said.strip()) if part)


def _last_line(text: str) -> str:
    return (text.splitlines() or [""])[-1]


def _tail(segment: Printed, start: int, end: int) -> str:
    """The last that was printed between two places of a log file."""
    begin = max(start, end - DEATH_LOG_BYTES)
    return segment.read(begin, end - begin).decode("utf-8", "replace")
