"""Which worker gets which task. `place` runs once after each event. Pure.

Each worker has a queue, of which it runs the first task. A queue is filled up to `BATCH_S` of
predicted work. So many short calls travel in one message, and the next calls are there before the
last one is done; long calls travel alone. A task whose unfinished inputs are all queued in one
worker is queued behind them. What was sent ahead is taken back when another worker has nothing to
do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from math import inf

from mars.calls.options import DEFAULT_OPTIONS, Options
from mars.engines.driver.blocks import carve
from mars.engines.driver.core import ASSIGNED, WAITING, Core
from mars.engines.driver.events import Assign, Fetch
from mars.engines.driver.queues import (
    DEADLINE,
    START,
    WorkerState,
    cores_of,
    in_thread,
    place_of,
    wanted,
)
from mars.settings import (
    ALONE_S,
    AWAITED_REPORT_S,
    BATCH_S,
    BATCH_TASKS,
    EVEN_S,
    FEW_INPUTS,
    FOLLOW_S,
    LOOK_AT,
    MOST_THREADS,
    OVERDUE_S,
    REPORT_S,
    SOON_REPORT_S,
    THREADS_AT_ONCE,
)
from mars.task import Function, Task


def place(core: Core, now: float) -> None:
    """Give work to workers that have room for it, and start workers that are missing."""
    changed = core.changed
    core.sort()
    ready = core.ready
    if ready.threads and not core.thread_groups:
        core.add_thread_groups()
    if ready.count:
        _fill_idle(core, now)
    if ready.count:
        if core.roomy:
            _start_missing(core, now)
        if core.hungry:
            _fill_hungry(core, now)
        return
    for worker in _some(core.hungry) if core.hungry else ():
        if worker.queue[-1].dependents is not None:
            _lengthen(core, worker, now)
    if core.idle:
        for worker in changed:
            if not worker.queue:
                _retire(core, worker)
        if core.deep:
            _balance(core, now)


def _fill_idle(core: Core, now: float) -> None:
    """Share out what is ready among workers that have nothing to do."""
    ready = core.ready
    left = core.idle_workers
    for number in sorted(core.idle) if len(core.idle) > 1 else list(core.idle):
        group = core.groups[number]
        while group.idle and ready.count:
            task = ready.first()
            assert task is not None
            # Give a share of what is left, so that the last round is even. When all of it takes
            # little time, give an even part at once, so that neighbours stay together.
            share, most_s = 1 + ready.count // (2 * len(core.workers)), BATCH_S
            part = -(-ready.count // left)
            seconds = core.estimates.predict(task)
            if group.threads:
                share = 1  # another thread costs less than to wait behind a call
            elif ready.count * seconds < ALONE_S:
                share, most_s = ready.count, ALONE_S
            elif part * seconds < (EVEN_S if task.dependents is None else BATCH_S):
                share = part
            left = left - 1 or 1
            home = task.home
            if home is not None and core.is_idle(home) and fill(core, home, share, now, most_s):
                continue
            if not fill(core, next(iter(group.idle)), share, now, most_s):
                break


def _fill_hungry(core: Core, now: float) -> None:
    """Queue short calls behind what workers run."""
    ready, estimates = core.ready, core.estimates
    first = ready.first()  # None when nobody wanted what was there
    if first is None or estimates.predict_next(first) >= estimates.prefetch_below_s:
        return
    # The worker with the least to do comes first: what it takes waits least.
    for worker in sorted(_some(core.hungry), key=_load):
        if not fill(core, worker, 1 + ready.count // (2 * len(core.workers)), now):
            del core.hungry[worker]  # until its queue changes
        if not ready.count:
            break


def fill(core: Core, worker: WorkerState, share: int, now: float, most_s: float = BATCH_S) -> bool:
    """Give tasks to a worker that has room; whether it was given any.

    It takes ``share`` tasks that are ready and what can follow them, but no more than is
    predicted to be ``most_s`` of work.
    """
    admission, estimates = core.admission, core.estimates
    group = core.groups[worker.group]
    if group.resuming or group.kept:
        return False  # calls that waited for nested ones go on before anything new starts
    ready = group.ready
    queue = worker.queue
    batch: list[Task] = []
    room = BATCH_TASKS - len(queue)
    load = worker.load_s
    taken = 0
    shelf: deque[Task] | None = None
    # What is known of the call before. The next one is most often of the same function.
    function: Function | None = None
    options: Options = DEFAULT_OPTIONS
    need = predicted = ahead_below_s = 0.0
    while taken < share and len(batch) < room:
        # Most often the first run of a task is there, and wants it.
        if not shelf or not (((runs := shelf[0].runs) and runs[0].live) or wanted(shelf[0])):
            shelf = ready.shelf_for(group, worker.cpus if queue else None, worker)
            if shelf is None:
                break
        if core.distance is not None and not _pick(core, shelf, worker.group, now):
            break
        task = shelf[0]
        call = task.call
        single = task.items is None and not admission.strict
        if not single or call.function is not function or call.options is not options:
            function, options = call.function if single else None, call.options
            need = admission.need(task)
            predicted = estimates.predict(task)
            ahead_below_s = estimates.ahead_below_s(options)
        if queue:
            if need > worker.need:
                break  # it was let in for less
        elif (need or admission.strict) and not core.fits(need, group):
            core.ended.hold_back(task)
            break  # nor may anything behind it start, or it would wait for ever
        if task.items is not None and task.source is None:
            block = carve(core, task, load if queue else None)
            if block is None:
                break
            if not len(task.items):
                ready.pop(shelf)
            task = block
            predicted = estimates.predict(task)
        else:
            if queue and (
                options.timeout_s is not None
                or predicted >= ahead_below_s
                or (load + predicted > most_s and len(queue) > 1)
                or (task.home is not None and _better_at_home(core, task, worker, load))
                or (options.in_set is not None and now - worker.head_at > OVERDUE_S)
            ):
                break
            if options.in_set is not None and not options.in_set.claim(task):
                ready.drop_first(shelf)
                continue
            ready.pop(shelf)
        taken += 1
        if not queue:
            worker.cpus = worker.claim = cores_of(task)
            worker.need = need
            worker.share.free -= worker.claim
        load += predicted
        core.queue(worker, task, now)
        batch.append(task)
        if options.timeout_s is not None:
            core.timers.add(now + options.timeout_s, DEADLINE, task.attempt, worker)
            break
        if task.dependents is not None and group.pool is None:
            load = _follow(core, worker, task, batch, load, room, now)
    if batch:
        worker.load_s = load
        if len(queue) == len(batch):
            worker.asked = False
            core.expect(worker, now)
        elif not worker.watched:
            worker.watched = True
            core.timers.watch(worker.due_at + OVERDUE_S, worker)
        _give(core, worker, batch)
    return bool(batch)


def _give(core: Core, worker: WorkerState, batch: list[Task]) -> None:
    """Send tasks that were queued."""
    within = [REPORT_S if task.dependents is None else _report_within(task) for task in batch]
    core.commands.append(Assign(worker.id, batch, within))
    core.changed[worker] = None
    core.sort()


def _better_at_home(core: Core, task: Task, worker: WorkerState, load: float) -> bool:
    """Whether the worker that made the inputs of a task has room, and less to do."""
    home = task.home
    if home is None or home is worker or home.load_s > load:
        return False
    return home in core.hungry or core.is_idle(home)


def _pick(core: Core, shelf: deque[Task], index: int, now: float) -> bool:
    """Put a task that a group may take to the front of a shelf; False: it may take none."""
    soonest = inf
    for place, task in enumerate(islice(shelf, LOOK_AT)):
        if not wanted(task):
            continue  # the first one is
        if task.call.inputs:
            until = core.home_until(task, index)
            if until > now:
                soonest = min(soonest, until)
                continue
        if place:
            del shelf[place]
            shelf.appendleft(task)
        return True
    group = core.groups[index]
    if soonest < inf and not now < group.look_at <= soonest:
        group.look_at = soonest
        core.timers.add(soonest, START, 0, None)
    work_s = core.ready.count * core.estimates.predict(shelf[0])
    core.commands.append(Fetch(place_of(index), shelf[0], work_s))
    return False


def _follow(
    core: Core,
    worker: WorkerState,
    task: Task,
    batch: list[Task],
    load: float,
    room: int,
    now: float,
) -> float:
    """Queue what needs only tasks of this queue right behind them.

    Of branches that workers with nothing to do can take soon, queue a fair share only.
    """
    helpers, group, predict = 0, core.groups[worker.group], core.estimates.predict
    if not core.ready.count:
        helpers = core.idle_workers - (worker in group.idle)
    frontier, fitting = [task], None
    while frontier:
        dependents: Sequence[Task] = frontier.pop().dependents or ()
        if helpers and load > FOLLOW_S and (frontier or len(dependents) > 1):
            break
        share = len(dependents)
        if helpers and share > 1 and share * predict(dependents[0]) > ALONE_S:
            share = -(-share // (helpers + 1))
        for dependent in dependents:
            if not share:
                break
            if (
                dependent.stage is not WAITING
                or dependent.home is not worker
                or dependent.near != dependent.waiting
                or len(batch) >= room
            ):
                continue
            options = dependent.call.options
            if options is not fitting:  # most calls have the same ones, the default
                if (
                    options.cpus != worker.cpus
                    or options.gpus
                    or options.timeout_s is not None
                    or (options.worker is not None and options.worker != group.address)
                ):
                    continue
                fitting = options
            predicted = predict(dependent)
            if (
                load + predicted > BATCH_S
                or group.threads is not in_thread(dependent)
                or core.admission.need(dependent) > worker.need
                or (core.distance is not None and core.home_until(dependent, worker.group) == inf)
                or not wanted(dependent)
                or not (
                    options.in_set is None
                    or (options.in_set.takes(worker) and options.in_set.claim(dependent))
                )
            ):
                continue
            share -= 1
            load += predicted
            core.queue(worker, dependent, now)
            batch.append(dependent)
            frontier.append(dependent)
    return load


def _lengthen(core: Core, worker: WorkerState, now: float) -> None:
    """Queue what follows the last call of a queue, so that a chain does not wait for us."""
    queue = worker.queue
    last = queue[-1]
    if last.call.options.timeout_s is not None:
        return
    group = core.groups[worker.group]
    if group.resuming or group.pool is not None:
        return  # calls that waited for nested ones go on before anything new starts
    batch: list[Task] = []
    room = BATCH_TASKS - len(queue)
    load = _follow(core, worker, last, batch, worker.load_s, room, now)
    if batch:
        worker.load_s = load
        _give(core, worker, batch)


def _balance(core: Core, now: float) -> None:
    """Nothing is ready and a worker is idle: take back what others have too much of."""
    for worker in _some(core.deep):
        if worker.load_s <= BATCH_S and worker.due_at + OVERDUE_S >= now:
            continue
        half = len(worker.queue) // 2
        if core.could_move(worker, half, now):
            core.take_back(worker, half)


def _start_missing(core: Core, now: float) -> None:
    """Start workers for cores that are free while no worker is."""
    for index in sorted(core.roomy) if len(core.roomy) > 1 else list(core.roomy):
        group = core.groups[index]
        shelf = None if group.kept else core.ready.shelf_for(group, None)
        if shelf is None or group.pause_until > now:
            continue
        room = int((group.free + 1e-9) / cores_of(shelf[0]))
        if group.threads:
            room = min(room, THREADS_AT_ONCE)
        waiting = core.ready.count if not group.threads else count_calls(shelf, room)
        missing = min(room, waiting) - group.empty  # of which most are just being started
        if missing > 0 and group.careful:
            missing = 1
            core.pause_starts(group, now)  # or until it is ready
        for _ in range(missing):
            core.start_worker(index)


def count_calls(shelf: deque[Task], most: int) -> int:
    """How many calls wait in a shelf, each item of a map counted; about ``most`` are enough."""
    count = 0
    for task in shelf:
        count += 1 if task.items is None else len(task.items)
        if count >= most:
            break
    return count


def _retire(core: Core, worker: WorkerState) -> None:
    """Stop an idle worker when there are more workers than cores, as after nested calls."""
    group = core.groups[worker.group]
    most = MOST_THREADS if group.threads else max(1, int(group.cpus))
    if worker in group.idle and group.usable > most and group.pool is None:
        core.stop(worker)


def _report_within(task: Task) -> float:
    """How long a worker may keep the end of a task that it is given now to itself, in seconds.

    Dependents that are queued in the same worker need no report. A dependent that also needs a
    later task of this queue can wait for that task's report.
    """
    worker, within = task.worker, REPORT_S
    for dependent in task.dependents or ():
        if dependent.home is worker and (
            dependent.stage is ASSIGNED or dependent.last_near != task.attempt
        ):
            continue
        if len(dependent.sources) > FEW_INPUTS:  # nobody looks at all of them for each message
            later = dependent.near < dependent.waiting
        else:
            later = any(source.stage is WAITING for source in dependent.sources)
        if not later:
            return AWAITED_REPORT_S
        within = SOON_REPORT_S
    return within


def _some(workers: dict[WorkerState, None]) -> list[WorkerState]:
    """A few of the workers, different ones each time."""
    some = list(islice(workers, LOOK_AT))
    if len(workers) > LOOK_AT:
        for worker in some:
            del workers[worker]
            workers[worker] = None
    return some


def _load(worker: WorkerState) -> float:
    return worker.load_s
