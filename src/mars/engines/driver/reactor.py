"""What each event changes in the state of the scheduler.

`HANDLERS` has one function for each kind of event. `Scheduler.on` calls it, and then `placement`,
which gives out the work that became possible. Pure.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from mars.engines.driver.blocks import end_block, fail_block, join_map, split
from mars.engines.driver.consequences import (
    abandon,
    complete,
    count_made,
    drop_made,
    end_run,
    fail,
    leave_home,
    pause,
    put_back,
    release,
    retry,
    take_back_unwanted,
)
from mars.engines.driver.core import (
    ASSIGNED,
    DONE,
    FAILED,
    MADE,
    READY,
    RETRYING,
    WAITING,
    Core,
    move,
)
from mars.engines.driver.early import keep_early, on_arrived, on_lost, on_unkept
from mars.engines.driver.estimates import OUT_OF_MEMORY
from mars.engines.driver.events import (
    Arrived,
    Blocked,
    Cancelled,
    Closed,
    Died,
    Discard,
    Fewer,
    Finished,
    Forgotten,
    GaveBack,
    GiveUp,
    Kill,
    Left,
    Lost,
    Needed,
    Outcome,
    Report,
    Resume,
    Submitted,
    Tick,
    Unblocked,
    Unkept,
    Unneeded,
    Withdrawn,
    WorkerReady,
)
from mars.engines.driver.queues import (
    DEADLINE,
    KILL,
    OVERDUE,
    START,
    WorkerState,
    place_of,
    wanted,
)
from mars.engines.driver.withdrawal import on_withdrawn
from mars.engines.wire.status import EXCEPTION, INTERRUPTED, RETURNED, VALUE
from mars.observe.attempts import DIED, STOPPED, UNKNOWN
from mars.settings import (
    CANCEL_GRACE_S,
    CLOSED_S,
    FEW_INPUTS,
    INTERRUPT_GRACE_S,
    OVERDUE_S,
    STARTS_WITHOUT_RESULT,
    THREADS_AT_ONCE,
)
from mars.task import AttemptId, Call, Task


def _submitted(core: Core, event: Submitted, now: float) -> None:
    """A run begins. Calls that another run has made, or is at, are not started again."""
    run = event.run
    runs = (run,)
    core.ended.run_queued(run.number, now)
    ready = core.ready
    run.remaining += len(event.tasks)
    doomed: list[Task] = []
    for new in event.tasks:
        task = new
        call = task.call
        run.total += task.size
        known = call.task
        if known is not task:  # otherwise the engine has put it there
            known = call.task_in(task.realm)
        if known is task and task.stage is WAITING and not task.runs:
            pass
        elif known is None:
            task.elsewhere = call.task
            call.task = task
        elif known.available:
            known.asked |= task.asked
            run.remaining -= 1  # another run made it meanwhile
            run.done += task.size
            if run.heard is not None:
                run.heard(known)
            continue
        elif known.stage is FAILED and call in run.once:
            run.remaining -= 1
            run.failed += 1
            run.failure = run.failure or known
            continue
        elif known.finished:
            run.total -= task.size
            if known is task:  # another run came first, took it, and has ended already
                task = _anew(known)
            _replace(call, known, task)
            run.total += task.size
        elif known.runs:
            count_made(known, -1)
            if known.runs[0] is core.nobody:  # it was cancelled, and is being stopped
                core.nobody.remaining -= 1
                known.runs = runs
            else:
                known.runs += runs  # another run is at it
            known.asked |= task.asked
            count_made(known, 1)
            if known.stage is MADE and known.asked:
                _, group = core.made_in[known.attempt]
                core.commands.append(Needed(group, AttemptId(known.attempt)))
            if known.items is not None:
                join_map(core, known, task)
            continue
        else:
            # The engine put it there for another run, which is on its way here or which Ctrl-C
            # kept from coming.
            known.asked |= task.asked
            task = known
        task.runs = runs
        task.queued_at = now
        task.depth = run.depth
        if call.inputs:
            _link(core, task)
            if run.once and any(source.stage is FAILED for source in task.sources):
                doomed.append(task)
            if task.waiting:
                continue
        move(task, READY)
        task.ready_at = now
        if task.items is not None and not len(task.items):
            complete(core, task, None, now)  # a map whose items all are calls of their own
        else:
            ready.append(task)
    for task in doomed:
        if not task.finished:
            fail(core, task, None, next(one for one in task.sources if one.stage is FAILED))
    if run.live and run.remaining == run.made:
        end_run(core, run)


def _anew(old: Task) -> Task:
    """A new task for a call whose task has ended without a value."""
    new = Task(old.call, old.realm)
    new.place, new.asked = old.place, old.asked
    old.call.begin(new)
    return new


def _replace(call: Call, old: Task, new: Task) -> None:
    """Put a new task in the place of one that has ended without a value."""
    new.elsewhere = old.elsewhere
    new.logs = old.logs  # what earlier attempts printed stays readable
    new.ended = old.attempts()
    if old.parts is not None:
        # Blocks of it may have ended while the new one was on its way here.
        since = old.parts[len(new.parts) :]
        there = {i for part in since if part.stage is DONE and not part.tries for i in part.items}
        if there:
            new.items = [index for index in new.items if index not in there]
            new.size = len(new.items)
        new.parts = old.parts
        new.stored = old.stored
    if call.task is old:
        call.task = new
        return
    before = call.task
    while before is not None and before.elsewhere is not old:
        before = before.elsewhere
    assert before is not None
    before.elsewhere = new


def _link(core: Core, task: Task) -> None:
    """Note which tasks a new task reads, in both directions."""
    realm = task.realm
    sources: list[Task] = []
    for call, _ in task.call.inputs:
        source = call.task
        if source is None or source.realm is not realm:
            source = call.task_in(realm)
            # Inputs are submitted before, or together with, what reads them.
            assert source is not None
        if len(sources) > FEW_INPUTS or source not in sources:
            sources.append(source)
    if len(sources) > FEW_INPUTS:
        sources = list(dict.fromkeys(sources))
    task.sources = sources
    for source in sources:
        source.consumers += 1
        if source.stage is DONE:
            continue
        if not source.early:
            task.waiting += 1
        if source.dependents is None:
            source.dependents = [task]
        else:
            source.dependents.append(task)
        if source.stage is ASSIGNED:
            core.note_near(task, source)


def _worker_ready(core: Core, event: WorkerReady, now: float) -> None:
    worker = core.workers.get(event.worker)
    if worker is not None:
        worker.ready = True
        core.ended.workers[worker.id][2] = now
        group = core.groups[worker.group]
        group.pause_until, group.closed = 0.0, False
        core.changed[worker] = None


def _finished(core: Core, event: Finished, now: float) -> None:
    worker = core.workers.get(event.worker)
    if worker is None:
        for outcome in event.outcomes:
            core.ended.drop(outcome.attempt, outcome.attempt <= core.ended.told(event.worker))
        return
    core.groups[worker.group].failed_starts = 0
    queue = worker.queue
    estimates = core.estimates
    for outcome in event.outcomes:
        attempt = outcome.attempt
        task: Task | None
        if queue and queue[0].attempt == attempt:
            task = queue.popleft()
        elif (task := _from_behind(queue, attempt)) is None:
            # It is not a current attempt, so its result is not accepted. If a worker tells it
            # twice, because it died before it could cross it out, the result was accepted before.
            core.ended.drop(attempt, attempt <= worker.told)
            if outcome.stored and attempt > worker.told:
                if outcome.early:
                    core.commands.append(Unneeded(place_of(worker.group), attempt))
                core.commands.append(Discard(outcome.result))
            continue
        worker.told = attempt
        if worker.blocked:
            core.unblock(worker)
        worker.load_s -= estimates.predict(task)
        task.worker = None
        task.timing = outcome.timing
        if outcome.log is not None:
            task.logs = (*task.logs, outcome.log)
        status = outcome.status
        if status == VALUE:
            if outcome.failures:
                core.ended.failed_items(attempt, outcome.failures)
            task.where = worker.where
            estimates.learn(task, outcome.seconds)
            if outcome.peak:
                core.admission.learn(task.call.function.key, outcome.peak)
            if task.source is not None:
                end_block(core, task, outcome)
            else:
                task.result = outcome.result
                task.stored = outcome.stored
                if outcome.early:
                    keep_early(core, task, worker, now)
                else:
                    complete(core, task, worker, now)
        elif status == RETURNED:
            put_back(core, task, now)
        else:
            _attempt_failed(core, task, worker, outcome, now)
    core.settle(worker, now)


def _from_behind(queue: deque[Task], attempt: int) -> Task | None:
    """Take the task of an attempt that has ended out of its worker's queue, if it is there.

    Most often it is the first one. It is not if the worker was asked for its last call when it had
    read only the one before: then it gives that one back, and runs the last.
    """
    for task in queue:
        if task.attempt == attempt:
            queue.remove(task)
            return task
    return None


def _attempt_failed(
    core: Core, task: Task, worker: WorkerState, outcome: Outcome, now: float
) -> None:
    status = outcome.status
    reason = worker.reason if worker.stopping == outcome.attempt else ""
    ending = "stopped" if reason else "error"
    if reason:
        core.ended.stopped(outcome.attempt)
    if task.call.inputs:
        core.ended.link(task)
    task.ended = (*task.ended, (*worker.where, ending))
    if reason == "cancel":  # whatever the call made of the interrupt
        _end_stopped(core, task, now)
        return
    task.blame = reason
    task.tries += 1
    options = task.call.options
    again = options.retry_late if reason else status in (EXCEPTION, INTERRUPTED)
    if again and task.tries <= options.retries and wanted(task):
        retry(core, task, task.tries, now)
        return
    _fail_attempted(core, task, outcome.result)


def _fail_attempted(core: Core, task: Task, failure: object) -> None:
    """A task, or a block of a map, has had its last attempt."""
    if task.source is None:
        fail(core, task, failure)
    else:
        fail_block(core, task, failure)


def _end_stopped(core: Core, task: Task, now: float) -> None:
    """An attempt was stopped because nobody wanted it. Meanwhile somebody may want it again."""
    if wanted(task):
        pause(core, task, now)
    else:  # the task, or the items of the block, have not failed: whoever asks again gets them
        abandon(core, task)


def _gave_back(core: Core, event: GaveBack, now: float) -> None:
    worker = core.workers.get(event.worker)
    if worker is None:
        return
    worker.taking_back = False
    given = set(event.attempts)
    _pull(core, worker, [task for task in worker.queue if task.attempt in given], now)
    core.settle(worker, now)
    if len(worker.queue) > 1 and not worker.taking_back:
        if worker.blocked or worker.stopping:
            # The worker may not have read all that was on its way.
            core.take_back(worker, len(worker.queue) - 1)
        else:
            take_back_unwanted(core)


def _pull(core: Core, worker: WorkerState, tasks: Sequence[Task], now: float) -> None:
    """Remove queued tasks from a worker. They keep the order in which they were queued."""
    if not tasks:
        return
    pulled = set(tasks)
    worker.queue = deque(task for task in worker.queue if task not in pulled)
    for task in reversed(tasks):
        worker.load_s -= core.estimates.predict(task)
        if task.stage is ASSIGNED:  # it has not ended with a task behind it
            put_back(core, task, now)


def _blocked(core: Core, event: Blocked, now: float) -> None:
    worker = core.workers.get(event.worker)
    if worker is None or worker.blocked or not worker.queue:
        return  # without a call, it is a thread that a call left behind: it holds no cores
    worker.blocked = True
    core.changed[worker] = None
    core.blocked += 1
    worker.share.free += worker.claim
    worker.claim = 0.0
    if worker.devices:
        from mars.engines.driver.on_devices import lend  # late: hardly any program has GPUs

        lend(core, worker)
    if len(worker.queue) > 1 and not worker.taking_back:
        core.take_back(worker, len(worker.queue) - 1)


def _unblocked(core: Core, event: Unblocked, now: float) -> None:
    worker = core.workers.get(event.worker)
    if worker is not None and worker.blocked and not worker.resuming:
        worker.resuming = True
        core.changed[worker] = None
        group = core.resuming[worker.group] = core.groups[worker.group]
        group.resuming.append(worker)


def resume(core: Core, number: int) -> None:
    """Let workers whose nested calls are done go on, before anything new starts."""
    group = core.resuming[number]
    while group.resuming:
        worker = group.resuming[0]
        if worker.resuming and worker.id in core.workers:
            if worker.cpus > worker.share.free + 1e-9:
                return
            if worker.lent:
                from mars.engines.driver.on_devices import take_again

                if not take_again(core, worker):
                    return
            worker.blocked = worker.resuming = False
            core.changed[worker] = None
            core.blocked -= 1
            worker.claim = worker.cpus
            worker.share.free -= worker.claim
            core.commands.append(Resume(worker.id))
        group.resuming.popleft()
    del core.resuming[number]


def _died(core: Core, event: Died, now: float) -> None:
    worker = core.workers.pop(event.worker, None)
    if core.holders:
        core.let_go_of_devices(event.worker)
    if worker is None:
        return
    queue = worker.queue
    begun = []
    # There are several when its reports about the first ones were lost with it.
    while queue and queue[0].attempt <= event.started:
        begun.append(queue.popleft())
    if not core.groups[worker.group].cpus:
        for task in queue:  # its node was lost: nobody knows whether they have begun there
            core.ended.note(task, worker.id, UNKNOWN, ended=now)
            task.ended = (*task.ended, (*worker.where, "unknown"))
    _vacate(core, worker, now)
    had_begun = bool(begun)
    begun = [task for task in begun if task.stage is ASSIGNED]
    for task in begun:
        if task.stage is not ASSIGNED:  # it has ended with its input, a task before it
            task.ended = (*task.ended, (*worker.where, "died"))
            continue
        task.worker = None
        log = None
        if task.attempt == event.started:
            log = event.log
            if log is not None:
                task.logs = (*task.logs, log)
            if event.starved:
                core.admission.learn(task.call.function.key, event.peak)
        _attempt_died(core, task, worker, event, 0 if log is None else log.size(), now)
    if had_begun:
        return
    group = core.groups[worker.group]
    group.careful |= event.unable
    if event.unable and any(
        other.group == worker.group and not other.blocked for other in core.workers.values()
    ):
        # The system may have no room for another worker. Those that are there go on without it.
        core.pause_starts(group, now)
        core.commands.append(Fewer(worker.group))
        return
    if not group.cpus:
        return  # the group is lost, which says nothing about how workers start
    group.pause_until = 0.0
    if not worker.ready or queue:
        group.failed_starts += 1
        # Threads that were being started end together, with their process.
        together = THREADS_AT_ONCE if group.threads else 1
        if group.failed_starts >= STARTS_WITHOUT_RESULT * together:
            _close_group(core, worker.group, now)


def _attempt_died(
    core: Core, task: Task, worker: WorkerState, event: Died, log_bytes: int, now: float
) -> None:
    task.home, task.near = None, 0
    leave_home(task)
    reason = worker.reason if worker.stopping == task.attempt else ""
    options = task.call.options
    ending = "stopped" if reason else "died"
    core.ended.note(
        task, worker.id, STOPPED if reason else DIED, ended=now,
        log_bytes=log_bytes, peak=event.peak,
    )  # fmt: skip
    if task.call.inputs:
        core.ended.link(task)
    task.ended = (*task.ended, (*worker.where, ending))
    if reason == "cancel":
        _end_stopped(core, task, now)
        return
    if reason == "timeout":
        task.tries += 1
        number, limit = task.tries, options.retries if options.retry_late else 0
    else:
        task.deaths += 1
        number, limit = task.deaths, options.death_retries
        if event.starved:
            if task.blame == OUT_OF_MEMORY:
                limit = 0  # it had all memory to itself
            reason = OUT_OF_MEMORY
            core.admission.strict = True
    task.blame = reason
    if not wanted(task):
        abandon(core, task)
    elif task.items is not None and len(task.items) > 1:
        task.deaths = task.tries = 0
        split(core, task)
    elif number <= limit:
        retry(core, task, number, now)
    else:
        _fail_attempted(core, task, event.certificate(task))


def _vacate(core: Core, worker: WorkerState, now: float) -> None:
    """A worker is gone: its cores are free, and what is queued there goes elsewhere."""
    core.changed[worker] = None
    worker.share.free += worker.claim
    worker.claim = 0.0
    if worker.blocked:
        core.blocked -= 1
        worker.blocked = False
    queue, worker.queue = worker.queue, deque()
    for task in reversed(queue):
        if task.stage is ASSIGNED:  # it has not ended with a task behind it
            put_back(core, task, now)


def _close_group(core: Core, number: int, now: float) -> None:
    """Start no workers of a group for a while, because they do not start."""
    group = core.groups[number]
    group.closed = group.careful = True
    if _all_closed(core):
        for group in core.groups.values():  # the next run makes us try all of them again
            group.failed_starts, group.pause_until = 0, 0.0
        core.commands.append(GiveUp())
        return
    group.pause_until = now + CLOSED_S
    core.timers.add(group.pause_until, START, 0, group)
    core.commands.append(Closed(number))


def _all_closed(core: Core) -> bool:
    groups = core.groups.values()
    return all(
        group.closed for group in groups if group.cpus and not group.threads and group.pool is None
    )


def _left(core: Core, event: Left, now: float) -> None:
    worker = core.workers.pop(event.worker, None)
    if worker is not None:
        _vacate(core, worker, now)


def _cancelled(core: Core, event: Cancelled, now: float) -> None:
    run = event.run
    again = run.cancelled  # cancelled twice: somebody does not want to wait any longer
    if not run.live and not again:
        return
    run.cancelled = True
    if run.live:
        end_run(core, run)
    for worker in core.workers.values():
        if worker.queue:
            head = worker.queue[0]
            runs = head.runs if head.source is None else head.source.runs
            if run not in runs or wanted(head):
                continue
            kill_at = now if again else now + CANCEL_GRACE_S
            if not worker.stopping:
                core.interrupt(worker, head, "cancel", kill_at)
            elif worker.kill_at > kill_at:
                worker.kill_at = kill_at
                core.timers.add(kill_at, KILL, worker.stopping, worker)


def _forgotten(core: Core, event: Forgotten, now: float) -> None:
    for task in event.tasks:
        if task.consumers or task.call.handles:
            continue
        if task.stage >= DONE:
            release(core, task)
        elif task.stage is MADE:
            drop_made(core, task)


def _tick(core: Core, event: Tick, now: float) -> None:
    timers = core.timers
    while timers.heap and timers.heap[0][0] <= now:
        when, _, kind, attempt, about = heapq.heappop(timers.heap)
        if kind == KILL:
            there = about.id in core.workers and about.stopping == attempt
            if there and 0 < about.kill_at <= now:
                about.kill_at = 0.0
                core.commands.append(Kill(about.id))
        elif kind == OVERDUE:
            timers.drop_watch(when)
            _look_at_overdue(core, about, now)
        elif kind == START:
            continue  # the pause of a group is over: `place` follows
        elif kind == DEADLINE:
            if about.queue and about.queue[0].attempt == attempt and not about.stopping:
                core.interrupt(about, about.queue[0], "timeout", now + INTERRUPT_GRACE_S)
        elif about.stage is RETRYING and about.attempt == attempt:
            if wanted(about) and about.waiting:
                move(about, WAITING)
            elif wanted(about):
                move(about, READY)
                about.ready_at = about.ready_at or now
                core.ready.push_front(about)
            else:
                abandon(core, about)


def _look_at_overdue(core: Core, workers: Sequence[WorkerState], now: float) -> None:
    """Ask workers that should have told something by now."""
    watch = core.timers.watch
    for worker in workers:
        queue = worker.queue
        worker.watched = bool(queue)
        if not queue:
            continue
        late = now - worker.due_at
        if late < OVERDUE_S - 1e-9:
            watch(worker.due_at + OVERDUE_S, worker)
            continue
        # Look again after twice the time. The answer shows whether a frame was lost meanwhile.
        watch(now + late, worker)
        if len(queue) > 1 and not worker.asked and not worker.taking_back:
            behind = len(queue) - 1
            # A call that a set tells of has begun, or can be cancelled: it does not wait behind a
            # long one.
            in_set = queue[-1].call.options.in_set
            if in_set is not None or core.could_move(worker, behind, now):
                worker.asked = True
                core.take_back(worker, behind)
                continue
        worker.asked = True
        core.commands.append(Report(worker.id))


HANDLERS: Final[dict[type, Callable[..., None]]] = {
    Submitted: _submitted,
    WorkerReady: _worker_ready,
    Finished: _finished,
    Arrived: on_arrived,
    Unkept: on_unkept,
    Lost: on_lost,
    GaveBack: _gave_back,
    Blocked: _blocked,
    Unblocked: _unblocked,
    Died: _died,
    Left: _left,
    Cancelled: _cancelled,
    Withdrawn: on_withdrawn,
    Forgotten: _forgotten,
    Tick: _tick,
}
"""What to call for each kind of event, with the state, the event and the time."""
