"""Which worker gets which task that asks for GPUs. Pure.

A worker with GPUs sees the same ones for all its life, because libraries look only once which ones
there are. It holds them until its process has ended, as memory of a GPU is given back only then. So
a call goes to a worker that has just as many, or to a new one on devices that are free. If others
hold what it needs and do nothing, their processes end first.

A call that waits for calls of its own lends its GPUs to others, as it does with its cores. It goes
on when they are free again.

    asks for 2 GPUs ──► an idle worker with 2 ──── or devices that are free: a new worker
                        └─ or workers that are idle: they end, and their devices are free

Beside the calls of `placement`, these come first if they are at least as urgent.
"""

from __future__ import annotations

from mars.engines.driver.core import Core
from mars.engines.driver.placement import count_calls, fill, place
from mars.engines.driver.queues import START, Group, WorkerState, urgency_of
from mars.settings import GPU_IDLE_S


def place_with_devices(core: Core, now: float) -> None:
    """Give out work after an event, where some groups have GPUs."""
    core.sort()
    queue = core.ready.devices
    assert queue is not None
    for group in core.device_groups.values():
        waits = group.resuming and group.resuming[0].cpus > group.share.free + 1e-9
        group.share.kept = bool(waits)
        for worker in list(group.idle):
            # What it has lent others have: its call ended without waiting for that.
            if worker.lent or 0 < worker.idle_since <= now - GPU_IDLE_S:
                core.stop(worker)
            elif not worker.idle_since:
                worker.idle_since = now
                core.timers.add(now + GPU_IDLE_S, START, 0, group)
    first = core.ready.first()
    urgency = None if first is None else urgency_of(first)
    spoken_for: list[tuple[Group, float]] = []  # cores for which workers are being started
    if queue.count:
        spoken_for = [
            (group.share, _serve(core, group, urgency, now))
            for group in list(core.device_groups.values())
        ]
    for share, cores in spoken_for:
        share.free -= cores
    place(core, now)
    for share, cores in spoken_for:
        share.free += cores
        if share.free > 1e-9:
            core.roomy[share.number] = share
    if queue.count and urgency is not None and not core.ready.count:
        for group in list(core.device_groups.values()):
            _serve(core, group, None, now)


def _serve(core: Core, group: Group, urgency: tuple[int, int] | None, now: float) -> float:
    """Give a group what it can take; the cores that calls will take when their workers are ready.

    ``urgency`` is that of the last task that counts.
    """
    cores = None
    while cores is None and group.cpus and not group.resuming and not group.share.resuming:
        cores = _serve_one(core, group, urgency, now)
    return cores or 0.0


def _serve_one(
    core: Core, group: Group, urgency: tuple[int, int] | None, now: float
) -> float | None:
    """Give out one task, or start workers for what waits.

    None: there may be more to give out. Otherwise the cores that calls wait for a worker with.
    """
    pool, share, queue = group.pool, group.share, core.ready.devices
    assert pool is not None
    assert queue is not None
    coming_cores = 0.0
    for gpus, cpus, in_set, shelf in queue.shelves(group, urgency):
        there = [one for one in group.idle if one.gpus == gpus]
        if in_set is not None:
            there = [one for one in there if in_set.takes(one)]
        free = share.free - coming_cores
        if cpus > free + 1e-9:
            if there or pool.find(gpus):
                share.kept = True  # it waits for cores alone
            return coming_cores
        if there:
            there[0].idle_since = 0.0
            return None if fill(core, there[0], 1, now) else coming_cores
        if in_set is not None and not in_set.takes(None):
            continue
        coming = sum(
            one.group == group.number and one.gpus == gpus and not one.queue and not one.ready
            for one in core.workers.values()
        )
        most = int((free + 1e-9) / cpus)
        wanting = min(count_calls(shelf, most), most)
        coming = min(coming, wanting)
        while coming < wanting and group.pause_until <= now:
            devices = pool.find(gpus)
            if not devices:
                break
            core.start_with(group, devices, gpus)
            coming += 1
            if group.careful:
                core.pause_starts(group, now)
        coming_cores += coming * cpus
        if coming < wanting and group.pause_until <= now:
            _make_room(core, group, gpus)
            break  # what becomes free is for this one, or it would starve behind small ones
    return coming_cores


def _make_room(core: Core, group: Group, gpus: float) -> None:
    """End processes that do nothing, if a task finds room then."""
    pool = group.pool
    assert pool is not None
    would = pool.copy()
    for holder in core.holders.values():
        if holder.group == group.number and holder.id not in core.workers and not holder.lent:
            would.give(holder.devices, holder.gpus)  # it is ending already
    ends: list[WorkerState] = []
    for worker in sorted(group.idle, key=lambda one: one.devices):
        if would.find(gpus):
            break
        if not worker.lent:
            would.give(worker.devices, worker.gpus)
            ends.append(worker)
    if would.find(gpus):
        for worker in ends:
            core.stop(worker)


def lend(core: Core, worker: WorkerState) -> None:
    """The call of a worker waits for calls of its own: others may have its devices."""
    group = core.groups[worker.group]
    if group.pool is not None and not worker.lent:
        worker.lent = True
        group.pool.give(worker.devices, worker.gpus)


def take_again(core: Core, worker: WorkerState) -> bool:
    """Have the devices back that a worker has lent. False: others still hold them."""
    group = core.groups[worker.group]
    pool = group.pool
    assert pool is not None
    if not pool.has(worker.devices, worker.gpus):
        core.sort()  # some that were idle may have ended with this event
        for other in [one for one in group.idle if {*one.devices} & {*worker.devices}]:
            if not other.lent:
                core.stop(other)
        return False
    worker.lent = False
    pool.take(worker.devices, worker.gpus)
    return True
