"""Makes an observation of the scheduler's state. Called in the engine's thread, by `loop`.

Pure: what only the loop knows, such as how much a worker has printed, comes as an argument. What
the store tells, `memory` puts together in the thread of whoever asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from mars.engine import Run
from mars.engines.driver.queues import WorkerState
from mars.engines.driver.scheduler import Scheduler
from mars.engines.wire.regions import ON_DISK, OWNER_SHIFT, Key, parts_of
from mars.observe.attempts import Rows
from mars.observe.observation import (
    GroupFacts,
    Memory,
    Observation,
    RunFacts,
    StoredFacts,
    WorkerFacts,
)
from mars.task import Task


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


class Budget(Protocol):
    """As `mars.engines.wire.ledger.Ledger`."""

    budget_bytes: int

    def total(self) -> int:
        """Bytes that are taken."""


class Kept(Protocol):
    """What is asked of `mars.engines.driver.store.Store`."""

    spilled_bytes: int

    @property
    def ledger(self) -> Budget: ...
    def kept(self) -> list[tuple[int, Key, str, tuple[int, ...]]]: ...


def memory(store: Kept, tasks: Sequence[Task], limit: int) -> Memory:
    """What the values of a store take, and which tasks have the largest of them.

    Parameters
    ----------
    store : Store
        The store.
    tasks : sequence of Task
        Their results are looked at.
    limit : int
        So many values are told one by one.
    """
    owner: dict[Key, int] = {}
    small_bytes = 0
    for number, task in enumerate(tasks):
        blocks = (task,) if task.parts is None else tuple(task.parts)
        for one in blocks:
            result = one.result if task.parts is None else (one.result or ((),))[0]
            if isinstance(result, bytes):
                small_bytes += len(result)
            elif one.stored and isinstance(result, tuple):
                for value in parts_of(result):
                    owner[value[1], value[2]] = number
    regions = sorted(store.kept(), reverse=True)
    told = tuple([
        StoredFacts(length, owner.get(key, -1), what, bool(key[0] & ON_DISK), key[0] >> OWNER_SHIFT,
                    tuple(sorted(one for one in readers if one >= 0)))
        for length, key, what, readers in regions[:limit]
    ])  # fmt: skip
    in_memory = sum(one[0] for one in regions if not one[1][0] & ON_DISK)
    return Memory(
        max(store.ledger.total(), in_memory),  # nodes of a cluster have ledgers of their own
        store.ledger.budget_bytes, store.spilled_bytes, small_bytes, told,
        len(regions) - len(told), sum(one[0] for one in regions[limit:]),
    )  # fmt: skip
