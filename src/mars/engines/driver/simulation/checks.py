"""What always holds in a simulation: after each event, at rest, and when all was dropped.

Each check looks at the whole state and compares it with what the scheduler has counted. Called by
`world`.
"""

from __future__ import annotations

from collections import Counter
from math import inf

from mars.engines.driver.core import ASSIGNED, DONE, MADE, READY, RETRYING, WAITING
from mars.engines.driver.queues import Group
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.simulation.machine import Broken, Machine, SimulatedRun, named
from mars.observe.observation import each_attempt
from mars.task import Task


class Ledger:
    """What a simulation notes to compare the scheduler's counts with.

    Parameters
    ----------
    scheduler : Scheduler
        What is checked.
    machine : Machine
        Where it runs.
    """

    def __init__(self, scheduler: Scheduler, machine: Machine) -> None:
        self.scheduler = scheduler
        self.machine = machine
        self.tasks: dict[Task, None] = {}  # all that there have been, blocks of maps too
        self.links: dict[Task, tuple[Task, ...]] = {}  # inputs, once a task counts as their reader
        self.runs: list[SimulatedRun] = []
        self.accepted: set[int] = set()  # attempts whose results were taken
        self.overdrawn: set[str] = set()  # addresses of groups whose cores were lent twice


def _check_indices(ledger: Ledger) -> None:
    """What is kept so that nobody looks at all groups and workers is what a look would find."""
    state = ledger.scheduler.core
    groups = state.groups.items()
    if state.idle.keys() != {n for n, group in groups if group.idle and group.pool is None}:
        raise Broken("groups with idle workers are not those that are noted")
    if state.idle_workers != sum(len(group.idle) for _, group in groups if group.pool is None):
        raise Broken("the number of idle workers is wrong")
    if not {number for number, group in groups if group.free > 1e-9} <= state.roomy.keys():
        raise Broken("a group with free cores is not noted")
    if state.resuming.keys() != {number for number, group in groups if group.resuming}:
        raise Broken("groups with workers that resume are not those that are noted")
    for _, group in groups:
        sharing = {number for number, other in groups if other.taken is group.taken}
        busy = [w for w in state.workers.values() if w.group in sharing and w.queue]
        needs = [worker.need for worker in busy]
        if not state.counts_memory:
            continue
        if group.taken.running != sum(not worker.blocked for worker in busy):
            raise Broken(f"{group.address}: the number of calls that run is wrong")
        if group.taken.whole != needs.count(inf):
            raise Broken(f"{group.address}: the number of calls that run alone is wrong")
        if abs(group.taken.finite - sum(need for need in needs if need < inf)) > 1e-3:
            raise Broken(f"{group.address}: the memory of calls that run is wrong")


def _check_devices(ledger: Ledger, group: Group) -> None:
    """No part of a GPU has two owners, and what runs on one has it."""
    state = ledger.scheduler.core
    pool = group.pool
    assert pool is not None
    held = [0.0] * len(pool.names)
    for worker in state.holders.values():
        if worker.group == group.number and not worker.lent:
            for at in worker.devices:
                held[at] += min(worker.gpus, 1)
    if any(abs(1 - free - part) > 1e-6 for free, part in zip(pool.free, held, strict=True)):
        raise Broken(f"{group.address}: of its GPUs {held} are held, {pool.free} free")
    if max(held) > 1 + 1e-6:
        raise Broken(f"{group.address}: of its GPUs {held} are held")
    for worker in state.workers.values():
        if worker.group != group.number:
            continue
        if worker.queue and worker.lent and not worker.blocked:
            raise Broken(f"worker {worker.id} runs a call on GPUs that it has lent")
        if worker.lent and not worker.queue and worker.cpus and worker.claim:
            raise Broken(f"worker {worker.id} has lent its GPUs and claims cores")
        for task in worker.queue:
            gpus = task.call.options.gpus
            if gpus != worker.gpus or len(worker.devices) != max(1, int(gpus)):
                raise Broken(f"{named(task)} asks for {gpus} GPUs, its worker has {worker.gpus}")


def check(ledger: Ledger) -> None:
    """What holds after every event."""
    state = ledger.scheduler.core
    held = dict.fromkeys(state.groups, 0.0)
    for worker in state.workers.values():
        queue = worker.queue
        held[worker.share.number] += worker.claim
        if worker.blocked and not queue:
            raise Broken(f"worker {worker.id} is blocked and runs nothing")
        if worker.claim != (worker.cpus if queue and not worker.blocked else 0):
            raise Broken(f"worker {worker.id} claims {worker.claim} cores")
        if worker.resuming and not worker.blocked:
            raise Broken(f"worker {worker.id} resumes and is not blocked")
        if worker.stopping and (not queue or queue[0].attempt != worker.stopping):
            raise Broken(f"worker {worker.id} stops attempt {worker.stopping}, not its head")
        if worker.kill_at and not worker.stopping:
            raise Broken(f"worker {worker.id} is about to be killed for nothing")
        for task in queue:
            if task.worker is not worker or task.stage is not ASSIGNED:
                raise Broken(f"{named(task)} is in a queue and not assigned to it")
            if task.call.options.cpus != worker.cpus:
                raise Broken(f"{named(task)} is queued behind tasks of another shape")
    for number, claimed in held.items():
        group = state.groups[number]
        if group.pool is not None:
            _check_devices(ledger, group)
            continue
        if abs(group.cpus - group.free - claimed) > 1e-6:
            raise Broken(f"{group.address}: {claimed} claimed, {group.free} free")
        over = group.cpus and claimed > group.cpus + 1e-6  # none: it is lost
        if over and group.address not in ledger.overdrawn:
            raise Broken(f"{group.address}: {claimed} of {group.cpus} claimed, {group.free} free")
    if not state.changed:  # else they are brought up to date with the next event
        _check_indices(ledger)
    counts: Counter[object] = Counter()
    made: Counter[object] = Counter()
    readers: Counter[object] = Counter()
    ready = maybe_ready = 0
    links = ledger.links
    for task in ledger.tasks:
        stage = task.stage
        if (stage is ASSIGNED) != (task.worker is not None):
            raise Broken(f"{named(task)} is {stage.name} and has worker {task.worker}")
        if stage is READY and (task.items is None or task.source or len(task.items)):
            if task.blocks and not any(run.live for run in task.runs):
                maybe_ready += 1  # ends with the blocks that run
            else:
                ready += 1
        if stage < DONE:
            sources = links.get(task, ())
            if sources:
                for source in sources:
                    readers[source] += 1
                if stage in (WAITING, READY, RETRYING):
                    waits = sum(source.stage is not DONE and not source.early for source in sources)
                    if waits != task.waiting:
                        raise Broken(f"{named(task)} waits for {waits}, counts {task.waiting}")
        elif task.runs:
            raise Broken(f"{named(task)} has ended and belongs to runs")
        if (stage is MADE) != (
            task.attempt in state.made_in and state.made_in[task.attempt][0] is task
        ):
            raise Broken(f"{named(task)} is {stage.name}, and its value is elsewhere")
        if task.early and stage is not MADE:
            raise Broken(f"{named(task)} is {stage.name} and early")
        for run in task.runs:
            counts[run] += 1
            made[run] += task.early and not task.asked
    assert state.ready.devices is not None
    queued = count = state.ready.count + state.ready.devices.count
    if count != ready:  # a map that ended with its last block may stand there still
        count -= sum(task.stage >= DONE for task in state.ready if task.items is not None)
    if not ready <= count <= ready + maybe_ready:
        raise Broken(f"{ready} tasks are ready, {queued} queued")
    for task in ledger.tasks:
        if task.consumers != readers[task]:
            raise Broken(f"{named(task)} has {readers[task]} readers, counts {task.consumers}")
    for run in ledger.runs:
        if run.submitted:
            if counts[run] != run.remaining:
                raise Broken(f"{run.name}: {counts[run]} remain, {run.remaining} counted")
            if made[run] != run.made:
                raise Broken(f"{run.name}: {made[run]} are made, {run.made} counted")
            if run.remaining == run.made and run.live:
                raise Broken(f"{run.name} has nothing left and is live")


def check_quiet(ledger: Ledger) -> None:
    """What holds when nothing happens any more."""
    state = ledger.scheduler.core
    for run in ledger.runs:
        if run.live:
            raise Broken(f"silent hang: {run.name} never ends")
        if run.ended_at is None:
            raise Broken(f"nobody was told that {run.name} ended")
        whole = not run.joined and not run.cancelled and not run.failure
        if whole and run.done + run.failed + run.withdrawn != run.total:
            raise Broken(f"{run.name}: {run.done} + {run.failed} + {run.withdrawn} of {run.total}")
    for task in ledger.tasks:
        if task.stage < DONE and task in ledger.links:
            raise Broken(f"{named(task)} is left {task.stage.name}")
    for worker in state.workers.values():
        if worker.queue or worker.blocked or worker.claim or worker.taking_back:
            raise Broken(f"worker {worker.id} is not idle")
        if not worker.ready:
            raise Broken(f"worker {worker.id} never was ready")
    if any(state.ready) or state.ready.count:
        raise Broken("tasks are left in the ready queue")
    _check_attempts(ledger)


def _check_attempts(ledger: Ledger) -> None:
    """Each attempt is noted once; a value that is lost afterwards is noted once more."""
    endings: dict[int, list[str]] = {}
    for one in each_attempt(ledger.scheduler.core.ended.since(0)):
        endings.setdefault(one.number, []).append(one.ending)
    for number, noted in endings.items():
        if len(noted) > 1 and noted not in (["value", "lost"], ["value", "error"]):
            raise Broken(f"attempt {number} is noted as {noted}")
    for number in ledger.accepted:
        if number not in endings:
            raise Broken(f"attempt {number} has ended and is not noted")


def check_freed(ledger: Ledger) -> None:
    """What holds when the program has dropped all it had."""
    for task in ledger.tasks:
        if task.consumers:
            raise Broken(f"{named(task)} still has {task.consumers} readers")
        if task in ledger.links and task.stage is DONE and not task.released:
            raise Broken(f"{named(task)} was never released")
    for attempt in ledger.accepted:
        if ledger.machine.regions.get(attempt) == "held":
            raise Broken(f"the stored result of attempt {attempt} is never given back")
