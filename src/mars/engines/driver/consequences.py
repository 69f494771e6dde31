"""What follows for other tasks and for runs when something becomes of one task.

A task that is done makes its dependents ready, gives back its inputs and counts in its runs. A
task that fails takes its dependents with it. A task that nobody wants is dropped. Called by the
event handlers in `reactor`, `early` and `blocks`. Pure.
"""

from __future__ import annotations

from mars.engines.driver.core import (
    ABANDONED,
    ASSIGNED,
    CANCELLED,
    DONE,
    FAILED,
    MADE,
    READY,
    RETRYING,
    WAITING,
    Core,
    backoff_s,
    move,
)
from mars.engines.driver.events import RunEnded, RunState, Settled, Unneeded
from mars.engines.driver.queues import RETRY, WorkerState, wanted
from mars.settings import FEW_INPUTS
from mars.task import Stage, Task


def complete(
    core: Core, task: Task, worker: WorkerState | None, now: float, stage: Stage = DONE
) -> None:
    """A task is done; ``worker`` has run it. A map may have failed then."""
    move(task, stage)
    for run in task.runs:
        if run.landed is not None and stage is DONE and task.parts is None:
            core.land(run, task)
            break
    if task.dependents is not None:
        tell_dependents(core, task, worker, now)
    call = task.call
    if call.inputs:
        if task.attempt:
            core.ended.link(task)
        let_go_of_inputs(core, task)
        call.satisfy()
    if call.options.in_set is not None:
        core.commands.append(Settled(task))
    if not call.handles and not task.consumers:
        release(core, task)
    for run in task.runs:
        run.remaining -= 1
        run.done += task.size
        if run.heard is not None:
            run.heard(task)
        if run.remaining == run.made and run.live:
            end_run(core, run)
    task.runs = ()


def tell_dependents(core: Core, task: Task, worker: WorkerState | None, now: float) -> None:
    """The value of a task is there: tasks that waited for it alone become ready."""
    dependents = task.dependents
    task.dependents = None
    assert dependents is not None
    for dependent in reversed(dependents):
        dependent.waiting -= 1
        if worker is not None and dependent.home is worker:
            dependent.near -= 1
        if not dependent.waiting and dependent.stage is WAITING:
            if wanted(dependent):
                move(dependent, READY)
                dependent.ready_at = now
                dependent.home = _origin(dependent)
                # It goes in front of what waited longer. So what has begun is finished first, and
                # fewer intermediate results are alive at once.
                core.ready.push_front(dependent)
            else:
                abandon(core, dependent)


def let_go_of_inputs(core: Core, task: Task) -> None:
    """The inputs of a task that ended have one reader less."""
    sources, task.sources = task.sources, ()
    for source in sources:
        source.consumers -= 1
        if not source.consumers and not source.call.handles:
            if source.stage is DONE:
                release(core, source)
            elif source.stage is MADE:
                drop_made(core, source)


def release(core: Core, task: Task) -> None:
    """Nobody can ask for the result any more."""
    if not task.released:
        task.released = True
        if task.stored:
            core.releases.append(task)
        task.call.leave(task)


def retry(core: Core, task: Task, number: int, now: float) -> None:
    """Have a task run again, after a pause that grows with the number of the attempt."""
    pause(core, task, now + backoff_s(number))


def pause(core: Core, task: Task, until: float) -> None:
    """Have a task wait until a time, and then run again."""
    move(task, RETRYING)
    leave_home(task)
    core.timers.add(until, RETRY, task.attempt, task)


def leave_home(task: Task) -> None:
    """A task is in no queue any more, so no dependent can wait behind it there."""
    for dependent in task.dependents or ():
        dependent.home, dependent.near = None, 0


def put_back(core: Core, task: Task, now: float) -> None:
    """A task that was queued and not started is again as it was before."""
    task.worker = None
    task.home, task.near = None, 0
    leave_home(task)
    in_set = task.call.options.in_set
    if in_set is not None:
        in_set.unclaim(task)
    if not wanted(task):
        abandon(core, task)
    elif task.waiting:
        move(task, WAITING)
    else:
        move(task, READY)
        task.ready_at = task.ready_at or now
        core.ready.push_front(task)


def abandon(core: Core, task: Task) -> None:
    """No live run wants a task, so none wants its dependents either: all of them are dropped.

    They end as CANCELLED if somebody cancelled them, otherwise as ABANDONED: never executed.
    """
    if task.source is not None:
        move(task, ABANDONED)
        source = task.source
        source.blocks -= 1
        source.items = [*task.items, *source.items]
        task = source
    if task.blocks:
        return  # it ends with its blocks that run, unless somebody asks for it meanwhile
    pending = [task]
    while pending:
        dropped = pending.pop()
        if dropped.stage >= DONE:
            continue
        move(dropped, CANCELLED if dropped.cancelled else ABANDONED)
        let_go_of_inputs(core, dropped)
        for run in dropped.runs:
            run.remaining -= 1
        dropped.runs = ()
        if dropped.call.options.in_set is not None:
            core.commands.append(Settled(dropped))
        if not dropped.call.handles and not dropped.consumers:
            release(core, dropped)
        dependents, dropped.dependents = dropped.dependents, None
        for dependent in dependents or ():
            if dependent.stage is ASSIGNED:
                core.unqueue(dependent)
            elif dependent.stage not in (WAITING, RETRYING):
                continue
            pending.append(dependent)


def fail(core: Core, task: Task, result: object, failed_input: Task | None = None) -> None:
    """A task fails, by itself or with one of its inputs, and with it all that needs its value."""
    move(task, FAILED)
    task.result, task.failed_input = result, failed_input
    let_go_of_inputs(core, task)
    _count_failure(core, task)
    pending = [task]
    while pending:
        failed = pending.pop()
        dependents, failed.dependents = failed.dependents, None
        for dependent in dependents or ():
            if dependent.stage is ASSIGNED:
                core.unqueue(dependent)
            elif dependent.stage is MADE:
                dependent.failed_input = (
                    failed  # it has read the input; only if it is lost it fails
                )
                continue
            elif dependent.stage not in (WAITING, RETRYING):
                continue
            move(dependent, FAILED)
            dependent.failed_input = failed
            let_go_of_inputs(core, dependent)
            _count_failure(core, dependent)
            pending.append(dependent)


def _count_failure(core: Core, task: Task) -> None:
    """Count a task as failed in its runs."""
    runs, task.runs = task.runs, ()
    if task.call.options.in_set is not None:
        core.commands.append(Settled(task))
    for run in runs:
        run.remaining -= 1
        run.failed += 1
        if run.heard is not None:
            run.heard(task)
        if not run.live:
            continue
        if run.failure is None:
            run.failure = task
        if run.stop_on_error or run.remaining == run.made:
            end_run(core, run)


def end_run(core: Core, run: RunState) -> None:
    """A run is over; what is left of its tasks is not wanted by it any more."""
    run.live = False
    core.commands.append(RunEnded(run))
    if run.remaining:
        take_back_unwanted(core)


def take_back_unwanted(core: Core) -> None:
    """A run ended early: take back what was sent ahead for it."""
    for worker in core.workers.values():
        if len(worker.queue) > 1 and not worker.taking_back:
            # Only the last tasks of a queue can be taken back. The wanted ones among them are
            # queued again.
            for index, task in enumerate(worker.queue):
                if index and not wanted(task):
                    core.take_back(worker, len(worker.queue) - index)
                    break


def count_made(task: Task, change: int) -> None:
    """Count a task in its runs, or no longer, as one that is MADE and only feeds others."""
    if task.early and not task.asked:
        for run in task.runs:
            run.made += change


def no_longer_made(task: Task) -> None:
    """A task is MADE no longer: its value is here, or it is lost."""
    count_made(task, -1)
    task.early = False


def end_made(core: Core, task: Task, now: float) -> None:
    """A task that was MADE is done."""
    task.failed_input = None  # its value is here
    if task.early:
        task.dependents = None  # they have been told
    no_longer_made(task)
    complete(core, task, None, now)


def drop_made(core: Core, task: Task) -> None:
    """Do not wait for a value that nobody will read."""
    if task.early and not (task.consumers or task.call.handles or task.asked):
        _, group = core.made_in.pop(task.attempt)
        core.commands.append(Unneeded(group, task.attempt))
        end_made(core, task, 0.0)  # nobody waits for it any more


def _origin(task: Task) -> WorkerState | None:
    """The worker that made most of a task's inputs; only large ones count if there are any."""
    sources = task.sources
    if len(sources) > FEW_INPUTS:
        return None
    large = [source for source in sources if source.stored]
    homes: list[WorkerState | None] = [source.home for source in large or sources]
    return homes[0] if len(homes) < 3 else max(homes, key=homes.count)
