"""Values that a node has made and that are still on their way to the program.

A call counts as done once its value is here, because its node may be lost before that, and the
value with it. Until then the task is MADE. Calls on the node that made the value may read it
before (`Task.early`). A run ends when all that is left of it are MADE calls that only feed others:
the program cannot fetch their values. Called by `reactor`. Pure.
"""

from __future__ import annotations

from mars.engines.driver.consequences import (
    abandon,
    count_made,
    drop_made,
    end_made,
    end_run,
    fail,
    leave_home,
    no_longer_made,
    tell_dependents,
)
from mars.engines.driver.core import MADE, READY, RETRYING, WAITING, Core, backoff_s, move
from mars.engines.driver.events import Arrived, Discard, Lost, Needed, Unkept
from mars.engines.driver.queues import (
    NOBODY,
    RETRY,
    WorkerState,
    devices_beside,
    place_of,
    threads_beside,
    wanted,
)
from mars.observe.attempts import ERROR, LOST
from mars.task import AttemptId, Task


def keep_early(core: Core, task: Task, worker: WorkerState, now: float) -> None:
    """A task has run, and its value is still on its way."""
    move(task, MADE)
    place = place_of(worker.group)
    core.made_in[task.attempt] = task, place
    task.early = task.call.options.death_retries > 0 and not any(
        run.depth or run.landed is not None for run in task.runs
    )
    if task.asked or not task.early:
        core.commands.append(Needed(place, AttemptId(task.attempt)))
    if not task.early:
        leave_home(task)
        return
    count_made(task, 1)
    dependents = task.dependents
    if dependents is not None:
        tell_dependents(core, task, worker, now)
    if task.stage is not MADE:
        return  # nobody wanted those, nor, then, this one
    task.dependents = dependents  # in case it is lost
    for run in task.runs:
        if run.remaining == run.made and run.live:
            end_run(core, run)
    drop_made(core, task)


def on_arrived(core: Core, event: Arrived, now: float) -> None:
    """Values are here: their tasks are done."""
    for attempt in event.attempts:
        if attempt in core.made_in:
            task, _ = core.made_in.pop(attempt)
            end_made(core, task, now)


def on_unkept(core: Core, event: Unkept, now: float) -> None:
    """There is no room for a value here: its task fails."""
    if event.attempt in core.made_in:
        task, _ = core.made_in.pop(event.attempt)
        _unmake(core, task)
        core.ended.note(task, (task.home or NOBODY).id, ERROR, timing=task.timing)
        task.ended = (*task.ended, (*(task.where or ("", 0)), "error"))
        fail(core, task, event.failure)


def on_lost(core: Core, event: Lost, now: float) -> None:
    """A group is lost, and with it the values that only it has. They are made again."""
    for number in (event.group, threads_beside(event.group), devices_beside(event.group)):
        group_lost = core.groups.get(number)
        if group_lost is not None:
            group_lost.free -= group_lost.cpus
            group_lost.cpus = 0.0
            core.lost_groups.append(number)
    for worker in core.workers.values():
        if place_of(worker.group) == event.group:
            worker.taking_back = True  # it is given nothing more
            core.changed[worker] = None
    for attempt, group in event.copied.items():
        core.made_in[attempt] = core.made_in[attempt][0], group
        core.commands.append(Needed(group, AttemptId(attempt)))
    lost = [task for task, group in core.made_in.values() if group == event.group]
    for task in lost:
        del core.made_in[task.attempt]
        _unmake(core, task)
        move(task, RETRYING)
        core.ended.note(task, (task.home or NOBODY).id, LOST, timing=task.timing)
        task.deaths += 1
        task.ended = (*task.ended, (*(task.where or ("", 0)), "lost"))
    for task in lost:
        if task.stage is not RETRYING:
            continue  # it has ended with a task before it in this list
        if not wanted(task):
            abandon(core, task)
        elif task.failed_input is not None:
            fail(core, task, None, task.failed_input)
        elif task.deaths <= task.call.options.death_retries:
            core.timers.add(now + backoff_s(task.deaths), RETRY, task.attempt, task)
        else:
            fail(core, task, event.certificate(task))


def _unmake(core: Core, task: Task) -> None:
    """The value of a task is lost before it has come here."""
    core.commands.append(Discard(task.result))
    task.result, task.stored = None, False
    if task.early:
        for dependent in task.dependents or ():
            _wait_again(core, dependent)
    no_longer_made(task)


def _wait_again(core: Core, task: Task) -> None:
    """An input of a task has to be made again."""
    if task.finished:
        return
    task.waiting += 1
    task.home, task.near = None, 0
    if task.stage is READY:
        core.ready.remove(task)
        move(task, WAITING)
