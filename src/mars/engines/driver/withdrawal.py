"""One call is cancelled by itself, while its runs go on.

The call, and all that needs its value, is taken out of its runs and given to a run that has ended.
From then on nobody wants it, so what happens to unwanted tasks happens to it: it is dropped,
taken back or interrupted. Called by `reactor`. Pure.
"""

from __future__ import annotations

from mars.engines.driver.consequences import abandon, end_run, take_back_unwanted
from mars.engines.driver.core import ASSIGNED, DONE, MADE, READY, Core
from mars.engines.driver.events import Withdrawn
from mars.engines.driver.queues import RETRY
from mars.settings import CANCEL_GRACE_S
from mars.task import Task


def on_withdrawn(core: Core, event: Withdrawn, now: float) -> None:
    """Cancel a call and its dependents, unless it has ended."""
    core.nobody = event.by
    found = _with_dependents(event.task)
    for task in found:
        runs, task.runs = task.runs, (event.by,)
        size = _items_left(core, task) if task.items is not None else task.size
        for run in runs:
            run.remaining -= 1
            run.withdrawn += size
            if run.heard is not None:
                run.heard(task)
            if run.live and run.remaining == run.made:
                end_run(core, run)
        event.by.remaining += 1
    for task in found:
        if task.stage >= DONE or task.stage is ASSIGNED:
            continue
        if task.stage is READY:
            core.ready.remove(task)
        abandon(core, task)  # of a map with blocks under way, when these have ended
    for worker in core.workers.values():
        if worker.queue and not worker.stopping and _is_withdrawn(worker.queue[0], found):
            core.interrupt(worker, worker.queue[0], "cancel", now + CANCEL_GRACE_S)
    take_back_unwanted(core)


def _with_dependents(task: Task) -> list[Task]:
    """A task that has not ended, and those that need its value, directly or not."""
    found: dict[Task, None] = {}
    pending = [task]
    while pending:
        one = pending.pop()
        if one in found or one.stage >= DONE or one.stage is MADE:
            continue
        found[one] = None
        pending.extend(one.dependents or ())
    return list(found)


def _is_withdrawn(head: Task, found: list[Task]) -> bool:
    return (head if head.source is None else head.source) in found


def _items_left(core: Core, whole: Task) -> int:
    """How many items of a map have not ended."""
    blocks: set[Task] = set()
    blocks.update(*[worker.queue for worker in core.workers.values()])
    blocks.update(core.ready)
    blocks.update(one for _, _, kind, _, one in core.timers.heap if kind == RETRY)
    left = [one for one in blocks if one.source is whole and not one.finished]
    return len(whole.items) + sum(block.size for block in left)


__all__ = ["on_withdrawn"]
