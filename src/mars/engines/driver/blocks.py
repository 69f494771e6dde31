"""Blocks: some items of a `mars.remote.map`, given out and ended together.

A map is one task that stays READY while items of it are left. A block is a task of its own whose
`source` is the map. `placement` cuts blocks to size; `reactor` tells how they ended. Pure.
"""

from __future__ import annotations

from mars.engines.driver.consequences import abandon, complete, end_run
from mars.engines.driver.core import ABANDONED, DONE, FAILED, READY, Core, move
from mars.engines.driver.events import Outcome
from mars.engines.driver.queues import RETRY, wanted
from mars.settings import BLOCK_ITEMS, BLOCK_S
from mars.task import Task


def carve(core: Core, task: Task, load: float | None) -> Task | None:
    """Cut a block of items that takes about `BLOCK_S`; None: the worker has enough to do.

    ``load`` is the predicted work that the worker has queued; None: it has nothing queued.
    """
    seconds = core.estimates.seconds.get(task.call.function.key)
    options = task.call.options
    if load is not None and (
        seconds is None
        or seconds >= core.estimates.ahead_below_s(options)
        or load > BLOCK_S
        or options.timeout_s is not None
    ):
        return None
    if seconds is None or options.timeout_s is not None or not options.death_retries:
        count = 1
    else:
        share = -(-len(task.items) // (2 * len(core.workers)))
        count = max(1, min(int(BLOCK_S / max(seconds, 1e-9)), share, BLOCK_ITEMS))
    block = Task(task.call, task.realm)
    block.items, task.items = task.items[:count], task.items[count:]
    block.size = len(block.items)
    block.source = task
    block.place = task.place
    block.depth = task.depth
    block.queued_at, block.ready_at = task.queued_at, task.ready_at
    task.blocks += 1
    return block


def join_map(core: Core, known: Task, task: Task) -> None:
    """Another run asks for a map that is under way. Items that failed have to run again."""
    there = set(known.items)
    under_way = [one for worker in core.workers.values() for one in worker.queue]
    under_way += core.ready
    under_way += [
        one for _, _, kind, _, one in core.timers.heap if kind == RETRY and not one.finished
    ]
    for one in under_way:
        if one.source is known:
            there.update(one.items)
    for part in known.parts:
        if part.stage is DONE and not part.tries:
            there.update(part.items)
    again = [index for index in task.items if index not in there]
    if again:
        known.items = [*known.items, *again]
        known.tries = 0
    if len(known.items) and not core.ready.has(known):
        core.ready.append(known)


def end_block(core: Core, block: Task, outcome: Outcome) -> None:
    """A block has run. Some of its items may have raised."""
    task = block.source
    assert task is not None
    move(block, DONE)
    block.result = outcome.result
    block.stored = outcome.stored
    block.tries = outcome.failures  # 0: all of its items have values
    task.parts.append(block)
    task.stored |= outcome.stored
    task.blocks -= 1
    for run in task.runs:
        if run.landed is not None:
            core.land(run, block)
            break
    for run in task.runs:
        run.done += block.size
        if run.heard is not None:
            run.heard(block)
        if outcome.failures:
            task.tries += outcome.failures  # of a map: items that failed
            run.failed += outcome.failures
            run.done -= outcome.failures
            if run.failure is None:
                run.failure = block
            if run.stop_on_error and run.live:
                end_run(core, run)
    _end_map_if_last(core, task)


def fail_block(core: Core, block: Task, result: object) -> None:
    """A block ended without a word about its items, as when its worker died."""
    task = block.source
    assert task is not None
    move(block, FAILED)
    block.result = result
    task.parts.append(block)
    task.blocks -= 1
    task.tries += block.size
    for run in task.runs:
        run.failed += block.size
        if run.heard is not None:
            run.heard(block)
        if run.failure is None:
            run.failure = block
        if run.stop_on_error and run.live:
            end_run(core, run)
    _end_map_if_last(core, task)


def split(core: Core, block: Task) -> None:
    """Run the items of a block one by one, to see which of them kills its worker."""
    task = block.source
    assert task is not None
    move(block, ABANDONED)
    task.blocks -= 1
    for index in range(len(block.items) - 1, -1, -1):
        single = Task(task.call, task.realm)
        single.items = block.items[index : index + 1]
        single.source, single.place, single.depth = task, block.place, block.depth
        single.logs = block.logs
        move(single, READY)
        task.blocks += 1
        core.ready.push_front(single)


def _end_map_if_last(core: Core, task: Task) -> None:
    """A map has ended when none of its items is running or left to give out."""
    if task.blocks or task.stage is not READY:
        return
    if len(task.items):
        if not wanted(task) and not core.ready.has(task):
            abandon(core, task)
        return
    task.size = 0  # its blocks have been counted
    complete(core, task, None, 0.0, FAILED if task.tries else DONE)
