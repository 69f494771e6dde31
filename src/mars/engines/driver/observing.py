"""Makes an observation of the scheduler's state. Called in the engine's thread, by `loop`.

Pure: what only the loop knows, such as how much a worker has printed, comes as an argument.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from mars.engine import Run
from mars.engines.driver.queues import WorkerState
from mars.engines.driver.scheduler import Scheduler
from mars.observe.attempts import Rows
from mars.observe.observation import (
    GroupFacts,
    Observation,
    RunFacts,
    WorkerFacts,
)


def observe(
    scheduler: Scheduler,
    runs: Iterable[Run],
    printed: Callable[[WorkerState], int],
    since: int | None,
    now: float,
) -> tuple[Observation, Rows]:
    """What there is now, and the rows of the attempts that have ended since.

    Whoever asked decodes the rows, in a thread of its own.

    Parameters
    ----------
    scheduler : Scheduler
        Its state is read.
    runs : iterable of Run
        Those that have not ended.
    printed : callable
        Gives the bytes that a worker has printed.
    since : int or None
        `Observation.next` of an earlier observation; 0: all attempts that are kept; None: none.
    now : float
        Monotonic time, seconds.
    """
    core = scheduler.core
    workers = tuple([_worker(one, scheduler, printed) for one in scheduler.workers.values()])
    running = Counter([run for one in workers for run in one.runs])
    there = Counter([one.group for one in scheduler.workers.values()])
    rows = core.ended.since(core.ended.count if since is None else since)
    return Observation(
        now,
        tuple([
            RunFacts(run.number, run.session_id, run.depth, run.total, run.done, run.failed,
                     running[run.number])
            for run in runs
        ]),
        tuple([
            GroupFacts(group.address, group.cpus, group.free, there[number])
            for number, group in scheduler.groups.items()
            if number >= 0  # the others have no cores of their own
        ]),
        workers,
        (),
        rows.next,
        0 if since is None else rows.missed,
    ), rows  # fmt: skip


def _worker(
    worker: WorkerState, scheduler: Scheduler, printed: Callable[[WorkerState], int]
) -> WorkerFacts:
    node, pid = worker.where
    if not worker.queue:
        return WorkerFacts(worker.id, worker.address, node, pid, worker.ready, 0, False, "", "",
                           (), 0, 0.0, 0, (), 0.0)  # fmt: skip
    task = worker.queue[0]
    call = task.call
    runs = task.runs if task.source is None else task.source.runs
    expected_s = scheduler.seconds.get(call.function.key, 0.0)
    if task.items is not None:
        expected_s *= len(task.items)
    return WorkerFacts(
        worker.id, worker.address, node, pid, worker.ready, len(worker.queue), worker.blocked,
        call.key, call.name, tuple([run.number for run in runs]), task.attempt, task.sent_at,
        printed(worker), tuple([run.partial.get(task) for run in runs]), expected_s,
        None if task.items is None else (task.items[0], len(task.items)),
    )  # fmt: skip
