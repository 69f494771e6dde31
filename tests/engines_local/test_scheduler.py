"""What the scheduler does in single, small situations, each drawn as a graph where there is one.

`Desk` is the other side of the scheduler: it keeps what every worker was sent and answers for
it. Times are made up, nothing sleeps. Random histories are in `test_scheduler_histories`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mars.calls.maps import MapCall
from mars.calls.options import Options
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
)
from mars.engines.driver.events import (
    Assign,
    Blocked,
    Cancelled,
    Closed,
    Died,
    Discard,
    Fewer,
    Finished,
    GaveBack,
    GiveUp,
    Interrupt,
    Kill,
    Left,
    Lost,
    Outcome,
    Release,
    Report,
    Resume,
    RunEnded,
    StartWorker,
    StopWorker,
    Submitted,
    TakeBack,
    Tick,
    Unblocked,
    Unkept,
    WorkerReady,
)
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.simulation.machine import SimulatedRun
from mars.engines.wire.status import EXCEPTION, FATAL, INTERRUPTED, RETURNED, VALUE
from mars.settings import (
    AWAITED_REPORT_S,
    BATCH_S,
    BATCH_TASKS,
    BLOCK_S,
    CANCEL_GRACE_S,
    CLOSED_S,
    INTERRUPT_GRACE_S,
    OVERDUE_S,
    PREFETCH_BELOW_S,
    REPORT_S,
    SOON_REPORT_S,
    START_PAUSE_S,
    STARTS_WITHOUT_RESULT,
)
from mars.task import AttemptId, Call, Function, Task, WorkerId

QUICK = Function(b"quick", "quick", b"")  # predicted: 1 ms
LONG = Function(b"long", "long", b"")  # predicted: 1 s
NEW = Function(b"new", "new", b"")  # never seen


class Desk:
    """Sends events, keeps commands, knows what each worker has."""

    def __init__(self, *cpus: float, ready: int | None = None, **how: Any) -> None:
        groups = [(f"w{index}", one) for index, one in enumerate(cpus or (2.0,))]
        self.scheduler = Scheduler(groups, **how)
        self.scheduler.seconds.update({QUICK.key: 0.001, LONG.key: 1.0})
        self.now = 0.0
        self.commands: list[Any] = []
        self.queues: dict[int, list[Task]] = {}
        self._take(self.scheduler.start_all())
        self.get_ready(ready)

    def get_ready(self, count: int | None = None) -> None:
        """Have workers that start tell that they wait for work."""
        starting = [one.id for one in self.scheduler.workers.values() if not one.ready]
        for worker in starting[:count]:
            self.on(WorkerReady(worker))

    def on(self, event: Any) -> list[Any]:
        commands = self.scheduler.on(event, self.now)
        self._take(commands)
        return commands

    def _take(self, commands: Sequence[Any]) -> None:
        self.commands += commands
        for command in commands:
            if isinstance(command, Assign):
                self.queues[command.worker] += command.tasks
            elif isinstance(command, StartWorker):
                self.queues[command.worker] = []

    def drain(self, kind: type) -> list[Any]:
        """Commands of one kind so far; all are forgotten."""
        found = [command for command in self.commands if type(command) is kind]
        self.commands.clear()
        return found

    def submit(
        self, *calls: Call, stop_on_error: bool = True, depth: int = 0, realm: Any = None
    ) -> SimulatedRun:
        run = SimulatedRun("run", stop_on_error=stop_on_error, depth=depth)
        tasks = []
        for call in calls:
            task = Task(call, realm or self)
            call.begin(task)
            tasks.append(task)
        run.tasks = tasks
        self.on(Submitted(run, tasks))
        return run

    def forget(self, task: Task) -> None:
        """`Realm.forget`: nothing is dropped here."""

    def finish(self, worker: int, *statuses: int, seconds: float = 0.001, **more: Any) -> list[Any]:
        """A worker's first calls end in these ways; without any, the first has a value."""
        outcomes = [
            Outcome(self.queues[worker].pop(0).attempt, status, seconds, **more)
            for status in statuses or (VALUE,)
        ]
        return self.on(Finished(WorkerId(worker), outcomes))

    def give_back(self, worker: int, count: int) -> list[Any]:
        """A worker gives back its last calls."""
        given = [self.queues[worker].pop().attempt for _ in range(count)]
        return self.on(GaveBack(WorkerId(worker), given))

    def die(self, worker: int, *, started: bool = True) -> list[Any]:
        queue = self.queues.pop(worker)
        attempt = queue[0].attempt if queue and started else 0
        return self.on(Died(WorkerId(worker), attempt, lambda _: b"died"))

    def within(self) -> dict[str, float]:
        """Seconds in which each call that was sent is to be reported."""
        return {
            task.call.name: seconds
            for command in self.commands
            if type(command) is Assign
            for task, seconds in zip(command.tasks, command.within, strict=True)
        }

    def sent(self) -> dict[int, list[str]]:
        """Names of what each worker has, in its order."""
        return {worker: [t.call.name for t in queue] for worker, queue in self.queues.items()}


def call(name: str = "", *inputs: Call, function: Function = QUICK, **options: Any) -> Call:
    made = Call(
        function, b"", (), tuple((one, 0) for one in inputs), Options(name=name, **options), None
    )
    made.handles += 1
    return made


def calls(count: int, function: Function = QUICK, **options: Any) -> list[Call]:
    return [call(f"c{index}", function=function, **options) for index in range(count)]


def mapping(count: int, function: Function = QUICK, **options: Any) -> MapCall:
    made = MapCall(function, Options(name="m", **options), [range(count)])
    made.handles += 1
    return made


def stage(one: Call) -> Any:
    assert one.task is not None
    return one.task.stage


# -- how much is sent at once -----------------------------------------------------------------


def test_short_calls_travel_by_predicted_time() -> None:
    desk = Desk(1)
    desk.submit(*calls(100))
    assert len(desk.queues[1]) == pytest.approx(BATCH_S / 0.001, abs=1)  # a sum of floats


def test_no_message_is_longer_than_its_limit() -> None:
    desk = Desk(1)
    desk.scheduler.seconds[QUICK.key] = 1e-9
    desk.submit(*calls(3 * BATCH_TASKS))
    assert max(len(command.tasks) for command in desk.drain(Assign)) <= BATCH_TASKS


def test_long_calls_travel_alone() -> None:
    desk = Desk(2)
    desk.submit(*calls(6, LONG))
    assert desk.sent() == {1: ["c0"], 2: ["c1"]}


def test_where_messages_take_longer_one_long_call_waits_behind_another() -> None:
    desk = Desk(1, 1, prefetch_below_s=2.0)
    desk.submit(*calls(5, LONG))
    assert desk.sent() == {1: ["c0", "c1"], 2: ["c2", "c3"]}
    desk.finish(1, seconds=1.0)
    assert desk.sent() == {1: ["c1", "c4"], 2: ["c2", "c3"]}


def test_a_long_call_that_must_not_run_twice_is_not_sent_ahead() -> None:
    desk = Desk(1, 1, prefetch_below_s=2.0)
    desk.submit(*calls(5, LONG, death_retries=0))
    assert desk.sent() == {1: ["c0"], 2: ["c1"]}


def test_a_long_call_that_was_sent_ahead_is_taken_back_for_an_idle_worker() -> None:
    desk = Desk(1, 1, prefetch_below_s=2.0)
    desk.submit(*calls(4, LONG))
    desk.finish(1, VALUE, VALUE, seconds=0.5)
    assert desk.drain(TakeBack) == [TakeBack(WorkerId(2), 1)]
    desk.give_back(2, 1)
    assert desk.sent() == {1: ["c3"], 2: ["c2"]}


def test_calls_of_a_new_function_travel_alone() -> None:
    desk = Desk(2)
    desk.submit(*calls(6, NEW))
    assert desk.sent() == {1: ["c0"], 2: ["c1"]}


def test_the_next_calls_are_there_before_the_last_is_done() -> None:
    desk = Desk(1)
    desk.submit(*calls(100))
    while len(desk.queues[1]) > 2:
        desk.finish(1)
    assert len(desk.queues[1]) > 1, "it would have to wait for the driver"


def test_few_calls_are_shared_out_evenly() -> None:
    desk = Desk(4)
    desk.submit(*calls(8))
    assert max(map(len, desk.queues.values())) <= 3
    assert min(map(len, desk.queues.values())) >= 1


def test_a_slow_call_is_learned_at_once_and_a_quick_one_slowly() -> None:
    desk = Desk(1)
    one, other = calls(2)
    desk.submit(one)
    desk.finish(1, seconds=0.101)
    assert desk.scheduler.seconds[QUICK.key] == pytest.approx(0.051)
    desk.submit(other)
    desk.finish(1, seconds=0.001)
    assert desk.scheduler.seconds[QUICK.key] == pytest.approx(0.041)


# -- graphs -----------------------------------------------------------------------------------


def test_a_chain_travels_in_one_message() -> None:
    # a ── b ── c
    desk = Desk(2)
    a = call("a")
    b = call("b", a)
    c = call("c", b)
    desk.submit(a, b, c)
    assert desk.sent() == {1: ["a", "b", "c"], 2: []}
    desk.finish(1, VALUE, VALUE, VALUE)
    assert [stage(one) for one in (a, b, c)] == [DONE] * 3


def test_a_call_whose_inputs_are_in_two_workers_waits_for_both() -> None:
    # a ──┬── c
    # b ──┘
    desk = Desk(2)
    a, b = call("a"), call("b")
    c = call("c", a, b)
    desk.submit(a, b, c)
    assert desk.sent() == {1: ["a"], 2: ["b"]}
    assert stage(c) is WAITING
    desk.finish(1)
    assert desk.sent() == {1: [], 2: ["b", "c"]}  # behind b, which is all that it waits for
    desk.finish(2, VALUE, VALUE)
    assert stage(c) is DONE


def stencil(width: int, steps: int, function: Function = QUICK) -> list[list[Call]]:
    """Each point reads itself and its neighbours of the step before."""
    rows = [[call(f"0.{point}", function=function) for point in range(width)]]
    for step in range(1, steps):
        before = rows[-1]
        rows.append(
            [
                call(f"{step}.{point}", *before[max(0, point - 1) : point + 2], function=function)
                for point in range(width)
            ]
        )
    return rows


def test_neighbours_are_made_in_one_place_and_stay_there() -> None:
    desk = Desk(2)
    rows = stencil(8, 12)
    desk.submit(*(one for row in rows for one in row))
    halves = dict.fromkeys((1, 2), 0)
    while any(desk.queues.values()):
        for worker in (1, 2):
            if desk.queues[worker]:
                point = int(desk.queues[worker][0].call.name.split(".")[1])
                halves[worker] += (point < 4) == (worker == 1)
                desk.finish(worker)
    assert all(stage(one) is DONE for row in rows for one in row)
    assert sum(halves.values()) > 0.9 * 8 * 12


def test_a_call_goes_where_its_large_input_is() -> None:
    desk = Desk(3)
    small, large = [call(f"small{number}") for number in range(2)], call("large")
    reader = call("reader", *small, large)
    desk.submit(*small, large, reader)
    assert [names[0] for names in desk.sent().values()] == ["small0", "small1", "large"]
    desk.finish(1)
    desk.finish(3, stored=True)
    desk.finish(2)  # now all three could take it
    assert desk.sent() == {1: [], 2: [], 3: ["reader"]}


def test_a_busy_worker_leaves_a_call_to_the_one_that_made_its_input_and_has_less_to_do() -> None:
    # b ──┬── d        worker 1: a x y, worker 2: b c
    # a ──┘
    desk = Desk(2)
    a, x, y, b, c = (call(name) for name in "axybc")
    d = call("d", b, a)
    desk.submit(a, x, y, b, c, d)
    assert desk.sent() == {1: ["a", "x", "y"], 2: ["b", "c"]}
    desk.finish(1)
    desk.finish(2)
    assert desk.sent() == {1: ["x", "y"], 2: ["c", "d"]}


def test_of_workers_that_could_take_a_call_the_one_with_the_least_to_do_gets_it() -> None:
    desk = Desk(2)
    desk.submit(*(call(name) for name in "abcde"))
    assert desk.sent() == {1: ["a", "b", "e"], 2: ["c", "d"]}
    desk.submit(call("f"))
    assert desk.sent() == {1: ["a", "b", "e"], 2: ["c", "d", "f"]}


def test_what_takes_no_time_wakes_one_worker() -> None:
    desk = Desk(2)
    desk.scheduler.seconds[QUICK.key] = 5e-6
    desk.submit(*calls(20))
    assert sorted(map(len, desk.queues.values())) == [0, 20]


def test_of_branches_that_an_idle_worker_could_take_soon_a_share_follows() -> None:
    #      ┌── b0 ──┬── c0 …
    # a ───┼── …    ┼── …       all of the step before
    #      └── b3 ──┴── c3 …
    desk = Desk(2)
    a = call("a")
    rows = [[a]]
    for step in range(1, 4):
        rows.append([call(f"{step}.{point}", *rows[-1]) for point in range(4)])
    desk.submit(*(one for row in rows for one in row))
    assert desk.sent() == {1: ["a", "1.0", "1.1"], 2: []}
    desk.finish(1)
    assert desk.sent() == {1: ["1.0", "1.1"], 2: ["1.2", "1.3"]}


def test_a_worker_tells_at_once_what_another_one_waits_for() -> None:
    desk = Desk(2)
    rows = stencil(8, 3)
    desk.submit(*(one for row in rows for one in row))
    within = desk.within()
    assert within["0.3"] == within["0.4"] == AWAITED_REPORT_S
    assert within["0.0"] == within["0.7"] == REPORT_S  # the one that reads it is queued behind it


def test_what_also_needs_a_call_that_cannot_begin_yet_is_told_soon() -> None:
    # a ────────┬── c        a alone fits in the message
    # z ── b ───┘
    desk = Desk(1)
    z = call("z", function=LONG)
    desk.submit(z)
    a, b = call("a"), call("b", z)
    c = call("c", a, b)
    desk.submit(a, b, c)
    assert desk.within()["a"] == SOON_REPORT_S


def test_a_chain_is_sent_on_before_its_worker_has_nothing_left() -> None:
    desk = Desk(2)
    links = [call("link0")]
    for number in range(1, 100):
        links.append(call(f"link{number}", links[-1]))
    desk.submit(*links)
    for left in range(99, 2, -1):
        desk.finish(1)
        assert len(desk.queues[1]) >= min(left, 2)
        assert not desk.queues[2]
    assert stage(links[-1]) is ASSIGNED


def test_what_waits_for_calls_in_front_of_it_is_not_taken_back() -> None:
    desk = Desk(2)
    links = [call("link0")]
    for number in range(1, 6):
        links.append(call(f"link{number}", links[-1]))
    desk.submit(*links)
    desk.now += 5  # the first one takes far longer than was thought, and a worker is idle
    desk.on(Tick())
    assert not desk.drain(TakeBack)


def test_what_a_worker_had_begun_before_its_last_call_has_begun() -> None:
    # Its end was lost with a frame, and the last call is in no queue any more.
    desk = Desk(1)
    once = call("once", death_retries=0)
    desk.submit(once)
    assert once.task is not None
    attempt = once.task.attempt
    desk.on(Died(WorkerId(1), attempt + 3, lambda _: b"died"))
    assert stage(once) is FAILED
    assert once.task.result == b"died"


def test_what_had_begun_and_ends_with_its_input_has_an_attempt() -> None:
    # once ── reader     both have begun when their worker dies, and nothing was told of the first
    desk = Desk(1)
    once = call("once", death_retries=0)
    reader, behind = call("reader", once), call("behind", once)
    desk.submit(once, reader, behind)
    assert desk.sent()[1] == ["once", "reader", "behind"]
    tasks = [one.task for one in (once, reader, behind)]
    assert all(tasks)
    desk.on(Died(WorkerId(1), tasks[1].attempt, lambda _: b"died"))
    assert [stage(one) for one in (once, reader, behind)] == [FAILED] * 3
    assert [[ending for *_, ending in task.attempts()] for task in tasks] == [
        ["died"],
        ["died"],
        [],
    ]


def test_a_call_behind_one_that_retries_is_not_counted_twice() -> None:
    # a ──┐
    # b ──┼── d       a fails once, and is queued again where it was
    # e ──┘
    desk = Desk(1)
    a, b, e = call("a", retries=1), call("b"), call("e", function=LONG)
    d = call("d", a, b, e)
    desk.submit(a, b, e, d)
    assert desk.sent()[1] == ["a", "b"]
    desk.finish(1, EXCEPTION)
    desk.on(Tick())
    assert "d" not in desk.sent()[1], "e is not there yet"


def test_what_a_failed_input_needs_is_failed_at_once() -> None:
    # a ── b ── c     all three are queued in one worker
    desk = Desk(1)
    a = call("a")
    b = call("b", a)
    c = call("c", b)
    run = desk.submit(a, b, c, stop_on_error=False)
    desk.finish(1, EXCEPTION, RETURNED, RETURNED)
    assert [stage(one) for one in (a, b, c)] == [FAILED] * 3
    assert b.task is not None and b.task.failed_input is a.task
    assert c.task is not None and c.task.failed_input is b.task
    assert (run.live, run.remaining, run.failed) == (False, 0, 3)


def test_a_failed_input_can_be_asked_for_again_before_the_worker_returns_the_rest() -> None:
    # a ── b
    desk = Desk(1)
    a = call("a")
    b = call("b", a)
    desk.submit(a, b)
    desk.finish(1, EXCEPTION)
    run = desk.submit(a, b)
    desk.finish(1, RETURNED)
    desk.finish(1, VALUE, VALUE)
    assert (stage(a), stage(b), run.done) == (DONE, DONE, 2)
    assert a.task is not None and a.task.consumers == 0


def test_what_has_begun_is_finished_first() -> None:
    # a ── b     x     y
    desk = Desk(1)
    a = call("a", function=NEW)
    b = call("b", a, function=LONG)
    desk.submit(a, b, *calls(2, LONG))
    desk.finish(1)
    assert desk.sent()[1] == ["b"]


# -- taking back ------------------------------------------------------------------------------


def test_what_was_sent_ahead_is_taken_back_for_an_idle_worker() -> None:
    desk = Desk(2, ready=1)
    desk.scheduler.seconds[QUICK.key] = BATCH_S
    desk.submit(*calls(2))
    assert desk.sent()[1] == ["c0", "c1"]
    desk.on(WorkerReady(WorkerId(2)))
    assert desk.drain(TakeBack) == [TakeBack(WorkerId(1), 1)]
    desk.give_back(1, 1)
    assert desk.sent() == {1: ["c0"], 2: ["c1"]}


def test_a_worker_that_is_silent_gives_up_what_it_has_not_started() -> None:
    desk = Desk(2, ready=1)
    desk.submit(*calls(2))
    desk.on(WorkerReady(WorkerId(2)))
    assert desk.sent() == {1: ["c0", "c1"], 2: []}
    desk.commands.clear()
    due = desk.scheduler.next_timer()
    assert due == pytest.approx(0.001 + OVERDUE_S)
    desk.now = due
    desk.on(Tick())
    assert desk.drain(TakeBack) == [TakeBack(WorkerId(1), 1)]


def test_a_silent_worker_is_only_asked_when_nobody_is_idle() -> None:
    desk = Desk(1)
    desk.submit(*calls(3))
    desk.now = 0.001 + OVERDUE_S
    desk.on(Tick())
    assert desk.drain(Report) == [Report(WorkerId(1))]
    assert desk.scheduler.next_timer() == pytest.approx(desk.now + OVERDUE_S), "twice the time"
    desk.now += OVERDUE_S
    desk.on(Tick())
    assert desk.drain(Report) == [Report(WorkerId(1))]
    assert desk.scheduler.next_timer() == pytest.approx(desk.now + 2 * OVERDUE_S)


def test_what_no_idle_worker_can_run_stays_where_it_is() -> None:
    #   the second worker has no cores to run it on:  c0 and c1 ask for both
    desk = Desk(2)
    desk.scheduler.seconds[QUICK.key] = BATCH_S
    desk.submit(*calls(2, cpus=2))
    assert desk.sent() == {1: ["c0", "c1"], 2: []}
    for _ in range(5):
        desk.now += 0.001
        desk.on(Tick())
    assert not desk.drain(TakeBack)


def test_a_call_may_start_while_it_is_asked_for() -> None:
    desk = Desk(2, ready=1)
    desk.scheduler.seconds[QUICK.key] = BATCH_S
    one, other = calls(2)
    desk.submit(one, other)
    desk.on(WorkerReady(WorkerId(2)))  # takes back c1, which has just begun
    desk.finish(1)
    desk.on(GaveBack(WorkerId(1), []))
    assert desk.sent() == {1: ["c1"], 2: []}
    assert stage(other) is ASSIGNED


def test_nothing_is_sent_behind_a_call_that_waits() -> None:
    desk = Desk(1)
    parent, child = call("parent", function=LONG), call("child")
    desk.submit(parent)
    desk.submit(child, depth=1)
    assert desk.sent()[1] == ["parent", "child"]
    desk.on(Blocked(WorkerId(1)))
    assert TakeBack(WorkerId(1), 1) in desk.commands
    desk.commands.clear()
    desk.on(GaveBack(WorkerId(1), []))  # it had not read of the child when it was asked
    assert desk.drain(TakeBack) == [TakeBack(WorkerId(1), 1)]
    desk.give_back(1, 1)
    desk.get_ready()
    assert desk.sent() == {1: ["parent"], 2: ["child"]}


def test_a_call_counts_that_ran_before_one_that_its_worker_gives_back() -> None:
    desk = Desk(1)
    one, other = calls(2)
    desk.submit(one, other)
    assert desk.sent() == {1: ["c0", "c1"]}
    # Asked for its last call, the worker had read only the first one. It runs the second.
    first, second = desk.queues[1]
    given = first.attempt
    desk.on(Finished(WorkerId(1), [Outcome(second.attempt, VALUE, 0.001)]))
    assert stage(other) is DONE
    desk.queues[1].clear()
    desk.on(GaveBack(WorkerId(1), [given]))
    assert desk.sent() == {1: ["c0"]}
    desk.finish(1)
    assert stage(one) is DONE
    assert desk.scheduler.groups[0].free == 1


def test_a_thread_that_waits_in_a_worker_without_a_call_takes_no_cores() -> None:
    desk = Desk(1)
    first = call("first", function=LONG)
    desk.submit(first)
    desk.finish(1, seconds=1.0)
    desk.on(Blocked(WorkerId(1)))  # a thread that the call has left behind waits for a run
    second = call("second", function=LONG)
    desk.submit(second)
    assert desk.sent()[1] == ["second"]
    desk.on(Unblocked(WorkerId(1)))
    desk.finish(1, seconds=1.0)
    assert desk.scheduler.groups[0].free == 1


def test_a_worker_that_seems_to_wait_and_gives_its_call_back_takes_no_cores() -> None:
    desk = Desk(1)
    only = call("only", function=LONG)
    desk.submit(only)
    given = desk.queues[1][0].attempt
    desk.on(Blocked(WorkerId(1)))  # in truth a thread waits that an earlier call has left behind
    desk.queues[1].clear()
    desk.on(GaveBack(WorkerId(1), [given]))
    desk.on(Unblocked(WorkerId(1)))
    assert desk.scheduler.blocked == 0
    [worker] = [number for number, names in desk.sent().items() if names]
    desk.finish(worker, seconds=1.0)
    assert stage(only) is DONE
    assert desk.scheduler.groups[0].free == 1


# -- cores, priorities, groups ----------------------------------------------------------------


def test_a_call_of_two_cores_is_not_starved_by_small_ones() -> None:
    desk = Desk(2)
    desk.submit(*calls(8, LONG))
    large = call("large", function=LONG, cpus=2)
    desk.submit(large)
    desk.finish(1, seconds=1.0)
    assert stage(large) is READY
    assert desk.sent()[1] == [], "a core is kept for it"
    desk.finish(2, seconds=1.0)
    assert stage(large) is ASSIGNED


def test_halves_of_a_core_run_side_by_side() -> None:
    desk = Desk(1)
    desk.submit(*calls(3, LONG, cpus=0.5))
    desk.get_ready()
    assert sorted(map(len, desk.queues.values())) == [1, 1]
    assert desk.scheduler.groups[0].free == 0


def test_a_higher_number_starts_first() -> None:
    desk = Desk(1)
    last, first, middle = (call(str(n), function=LONG, priority=n) for n in (-1, 7, 0))
    desk.submit(last, first, middle)
    order = []
    for _ in range(3):
        order += desk.sent()[1]
        desk.finish(1, seconds=1.0)
    assert order == ["7", "0", "-1"]


def test_a_call_runs_in_the_group_that_it_names() -> None:
    desk = Desk(1, 1)
    there = calls(3, LONG, worker="w1")
    desk.submit(*there)
    assert desk.sent() == {1: [], 2: ["c0"]}
    assert not desk.drain(TakeBack)


def test_a_worker_is_started_where_cores_are_free() -> None:
    desk = Desk(1, 1)
    desk.die(2)
    desk.commands.clear()
    desk.submit(*calls(3, LONG))
    assert desk.drain(StartWorker) == [StartWorker(WorkerId(3), 1)]


def test_an_idle_worker_beyond_the_cores_is_stopped() -> None:
    desk = Desk(1)
    desk.submit(*calls(2, LONG, cpus=0.5))
    desk.get_ready()
    desk.finish(1, seconds=1.0)
    assert desk.drain(StopWorker) == [StopWorker(WorkerId(1))]
    desk.finish(2, seconds=1.0)
    assert not desk.drain(StopWorker)


# -- nested calls -----------------------------------------------------------------------------


def test_calls_that_wait_for_calls_get_by_with_one_core() -> None:
    # outer ┄┄ inner ┄┄ innermost       each waits for the next
    desk = Desk(1)
    names = ["outer", "inner", "innermost"]
    for depth, name in enumerate(names):
        desk.submit(call(name, function=LONG), depth=depth)
        desk.get_ready()
        if name != "innermost":
            desk.on(Blocked(WorkerId(depth + 1)))
            desk.get_ready()
    assert desk.sent() == {1: ["outer"], 2: ["inner"], 3: ["innermost"]}
    assert desk.scheduler.groups[0].free == 0
    desk.finish(3, seconds=1.0)
    for worker in (2, 1):
        desk.commands.clear()
        desk.on(Unblocked(WorkerId(worker)))
        assert desk.drain(Resume) == [Resume(WorkerId(worker))]
        desk.finish(worker, seconds=1.0)
    assert desk.scheduler.groups[0].free == 1


def test_a_call_goes_on_when_its_cores_are_free() -> None:
    desk = Desk(1)
    parent, other = call("parent", function=LONG), call("other", function=LONG)
    desk.submit(parent)
    desk.on(Blocked(WorkerId(1)))
    desk.submit(other)
    desk.get_ready()
    desk.commands.clear()
    desk.on(Unblocked(WorkerId(1)))
    assert not desk.drain(Resume)
    desk.finish(2, seconds=1.0)
    assert desk.drain(Resume) == [Resume(WorkerId(1))]


@pytest.mark.parametrize("resuming", [False, True])
def test_a_call_that_waits_can_end_by_its_timeout(resuming: bool) -> None:
    desk = Desk(1)
    parent, other = call("parent", function=LONG, timeout_s=5), call("other", function=LONG)
    desk.submit(parent)
    desk.on(Blocked(WorkerId(1)))
    desk.submit(other)
    desk.get_ready()
    if resuming:
        desk.on(Unblocked(WorkerId(1)))
    desk.now = 5
    desk.on(Tick())
    assert len(desk.drain(Interrupt)) == 1
    desk.finish(1, INTERRUPTED)
    desk.finish(2, seconds=1.0)
    assert (stage(parent), stage(other)) == (FAILED, DONE)
    assert desk.scheduler.groups[0].free == 1
    desk.submit(call("next"))
    assert any("next" in names for names in desk.sent().values())


# -- maps -------------------------------------------------------------------------------------


def test_items_travel_in_blocks_of_predicted_time() -> None:
    desk = Desk(1)
    desk.submit(mapping(1000))
    assert len(desk.queues[1][0].items) == BLOCK_S / 0.001


def test_items_of_a_new_function_begin_one_by_one() -> None:
    desk = Desk(2)
    desk.submit(mapping(1000, NEW))
    assert [len(queue[0].items) for queue in desk.queues.values()] == [1, 1]


def test_the_last_items_are_shared_out() -> None:
    desk = Desk(2)
    desk.submit(mapping(8))
    assert [len(queue[0].items) for queue in desk.queues.values()] == [2, 2]


def test_items_that_must_not_run_twice_travel_alone() -> None:
    desk = Desk(1)
    desk.submit(mapping(1000, death_retries=0))
    assert {len(block.items) for block in desk.queues[1]} == {1}


def test_a_map_is_done_when_all_blocks_are() -> None:
    desk = Desk(1)
    whole = mapping(50)
    run = desk.submit(whole)
    while desk.queues[1]:
        assert run.live
        desk.finish(1, result=(b"", {}, None))
    assert (stage(whole), run.done, run.live) == (DONE, 50, False)
    assert whole.task is not None
    assert sorted(i for part in whole.task.parts for i in part.items) == list(range(50))


def test_items_that_fail_leave_the_others_alone() -> None:
    desk = Desk(1)
    whole = mapping(3, NEW)
    run = desk.submit(whole, stop_on_error=False)
    desk.finish(1, result=(b"", {}, None), seconds=1.0)
    desk.finish(1, result=(b"", {0: b"raised"}, None), failures=1, seconds=1.0)
    desk.finish(1, result=(b"", {}, None), seconds=1.0)
    assert (stage(whole), run.done, run.failed, run.live) == (FAILED, 2, 1, False)


def test_after_a_death_the_items_of_a_block_run_one_by_one() -> None:
    desk = Desk(1)
    whole = mapping(4)
    run = desk.submit(whole, stop_on_error=False)
    assert [list(block.items) for block in desk.queues[1]] == [[0, 1], [2]]
    desk.die(1)
    desk.get_ready()
    ran = []
    while worker := next((w for w, queue in desk.queues.items() if queue), None):
        ran.append(list(desk.queues[worker][0].items))
        desk.finish(worker, result=(b"", {}, None))
    assert ran == [[0], [1], [2], [3]]
    assert (stage(whole), run.done) == (DONE, 4)


def test_the_item_that_kills_its_worker_is_found() -> None:
    desk = Desk(1)
    whole = mapping(4)
    run = desk.submit(whole, stop_on_error=False)
    deaths = 0
    while stage(whole) is READY:
        desk.get_ready()
        worker = next((w for w, queue in desk.queues.items() if queue), None)
        if worker is None:
            due = desk.scheduler.next_timer()
            assert due is not None
            desk.now = max(desk.now, due)
            desk.on(Tick())
        elif 2 in desk.queues[worker][0].items:
            desk.die(worker)
            deaths += 1
        else:
            desk.finish(worker, result=(b"", {}, None))
    assert (stage(whole), run.done, run.failed) == (FAILED, 3, 1)
    assert whole.task is not None
    bad = [part for part in whole.task.parts if part.stage is FAILED]
    assert [list(part.items) for part in bad] == [[2]]
    assert deaths in (4, 5), "one attempt, three more, and one for its block if it was in one"


def test_a_map_without_items_of_its_own_is_done_at_once() -> None:
    desk = Desk(1)
    whole = mapping(3)
    whole.made = dict.fromkeys(range(3))  # type: ignore[arg-type]  # all are calls of their own
    run = desk.submit(whole)
    assert (stage(whole), run.live, desk.queues[1]) == (DONE, False, [])


def test_a_cancelled_map_stops_its_blocks() -> None:
    desk = Desk(1)
    whole = mapping(3, LONG)
    run = desk.submit(whole)
    desk.on(Cancelled(run))
    assert len(desk.drain(Interrupt)) == 1
    desk.finish(1, INTERRUPTED)
    assert (stage(whole), run.remaining, desk.queues[1]) == (CANCELLED, 0, [])


def test_no_item_runs_twice_when_a_cancelled_map_is_asked_for_again() -> None:
    desk = Desk(2)
    whole = mapping(3, LONG)
    first = desk.submit(whole)
    desk.on(Cancelled(first))
    run = desk.submit(whole)
    while worker := next((w for w, queue in desk.queues.items() if queue), None):
        now = [i for queue in desk.queues.values() for block in queue for i in block.items]
        assert len(now) == len(set(now))
        desk.finish(worker, result=(b"", {}, None), seconds=1.0)
    assert (stage(whole), run.live, run.failed) == (DONE, False, 0)


def test_items_that_failed_run_again_while_others_of_their_map_still_run() -> None:
    desk = Desk(2)
    whole = mapping(4, LONG)
    first = desk.submit(whole)
    desk.finish(1, result=(b"", {0: b"raised"}, None), failures=1, seconds=1.0)  # item 0
    assert not first.live
    run = desk.submit(whole)
    ran = []
    while worker := next((w for w, queue in desk.queues.items() if queue), None):
        ran += desk.queues[worker][0].items
        desk.finish(worker, result=(b"", {}, None), seconds=1.0)
    assert sorted(ran) == [0, 1, 2, 3]
    assert (stage(whole), run.failed, run.live) == (DONE, 0, False)


def test_an_item_that_ends_while_its_map_is_asked_for_again_does_not_run_again() -> None:
    desk = Desk(2)
    whole = mapping(2, LONG)
    desk.submit(whole)
    desk.finish(1, result=(b"", {0: b"raised"}, None), failures=1, seconds=1.0)  # item 0
    again = Task(whole, desk)
    whole.begin(again)  # in the program's thread, while item 1 still runs
    desk.finish(2, result=(b"", {}, None), seconds=1.0)
    run = SimulatedRun("again", stop_on_error=True)
    desk.on(Submitted(run, [again]))
    assert [list(block.items) for queue in desk.queues.values() for block in queue] == [[0]]
    desk.finish(1, result=(b"", {}, None), seconds=1.0)
    assert (stage(whole), run.total, run.done, run.live) == (DONE, 1, 1, False)


# -- threads of the program that execute one call ---------------------------------------------


def both(desk: Desk, whole: Call) -> tuple[Task, Task]:
    """Tasks of two threads: the second one's is the call's when both are on their way."""
    first, second = Task(whole, desk), Task(whole, desk)
    for task in (first, second):
        whole.begin(task)
    whole.task = second
    return first, second


@pytest.mark.parametrize("kind", [call, lambda: mapping(3)], ids=["call", "map"])
def test_a_call_that_two_threads_submit_runs_once_and_ends_both_runs(kind: Any) -> None:
    desk = Desk(1)
    one = kind()
    first, second = both(desk, one)
    runs = SimulatedRun("first", stop_on_error=True), SimulatedRun("second", stop_on_error=True)
    desk.on(Submitted(runs[0], [first]))
    desk.on(Submitted(runs[1], [second]))
    sent = []
    while queue := desk.queues[1]:
        sent += [item for task in queue for item in task.items or [-1]]
        desk.finish(1, *[VALUE] * len(queue), result=(b"", {}, None))
    assert sent == ([0, 1, 2] if isinstance(one, MapCall) else [-1])
    assert stage(one) == DONE
    assert [(run.live, run.remaining, run.failed) for run in runs] == [(False, 0, 0)] * 2


@pytest.mark.parametrize("kind", [call, lambda: mapping(1)], ids=["call", "map"])
def test_a_call_that_failed_before_the_second_thread_came_runs_again_for_it(kind: Any) -> None:
    desk = Desk(1)
    one = kind()
    first, second = both(desk, one)
    runs = SimulatedRun("first", stop_on_error=True), SimulatedRun("second", stop_on_error=True)
    desk.on(Submitted(runs[0], [first]))
    desk.finish(1, FATAL, result=b"")
    desk.on(Submitted(runs[1], [second]))
    desk.finish(1, VALUE, result=(b"", {}, None))
    assert stage(one) == DONE
    told = [(run.live, run.remaining, run.failed, run.done) for run in runs]
    assert told == [(False, 0, 1, 0), (False, 0, 0, 1)]


# -- deaths -----------------------------------------------------------------------------------


def test_a_death_blames_only_what_ran() -> None:
    desk = Desk(1)
    ran, queued = call("ran"), call("queued")
    desk.submit(ran, queued)
    assert desk.sent()[1] == ["ran", "queued"]
    desk.die(1)
    assert ran.task is not None and queued.task is not None
    assert (ran.task.deaths, queued.task.deaths) == (1, 0)
    assert (stage(ran), stage(queued)) == (RETRYING, READY)


def test_a_call_that_must_not_run_twice_fails_with_its_worker() -> None:
    desk = Desk(1)
    once, queued = call("once", death_retries=0), call("queued", death_retries=0)
    desk.submit(once, queued, stop_on_error=False)
    desk.die(1)
    assert (stage(once), stage(queued)) == (FAILED, READY)


def test_a_result_is_accepted_from_the_current_attempt_only() -> None:
    desk = Desk(1)
    one = call("one")
    desk.submit(one)
    assert one.task is not None
    stale = one.task.attempt
    desk.die(1, started=False)
    desk.get_ready()
    current = one.task.attempt
    assert current != stale
    desk.on(Finished(WorkerId(2), [Outcome(stale, VALUE, 0.1, b"stale", stored=True)]))
    assert stage(one) is ASSIGNED
    desk.finish(2, result=b"fresh")
    assert (stage(one), one.task.result) == (DONE, b"fresh")


def test_what_is_told_twice_is_taken_once() -> None:
    desk = Desk(1)
    one = call("one")
    desk.submit(one)
    assert one.task is not None
    outcome = Outcome(one.task.attempt, VALUE, 0.1, b"value", stored=True)
    desk.on(Finished(WorkerId(1), [outcome]))
    desk.on(Finished(WorkerId(1), [outcome]))
    assert one.task.result == b"value"
    assert not [c for c in desk.commands if isinstance(c, (Release, Discard))]


def test_workers_that_never_get_ready_are_given_up() -> None:
    desk = Desk(1, ready=0)
    desk.submit(call("one"))
    for worker in range(1, STARTS_WITHOUT_RESULT + 1):
        assert not desk.drain(GiveUp)
        desk.die(worker)
    assert desk.drain(GiveUp)


def test_workers_that_die_before_they_start_anything_are_given_up() -> None:
    desk = Desk(1)
    desk.submit(call("one"))
    for worker in range(1, STARTS_WITHOUT_RESULT + 1):
        assert not desk.drain(GiveUp)
        desk.die(worker, started=False)
        desk.get_ready()
    assert desk.drain(GiveUp)


def test_a_worker_that_cannot_start_beside_another_is_done_without_for_a_while() -> None:
    desk = Desk(2, ready=1)
    desk.submit(*calls(5, LONG))
    for turn in range(2 * STARTS_WITHOUT_RESULT):
        # Its process was refused: another one is tried only after the pause.
        desk.queues.pop(turn + 2)
        desk.on(Died(WorkerId(turn + 2), 0, unable=True))
        assert desk.drain(Fewer)
        desk.on(Tick())
        assert not desk.drain(StartWorker)
        desk.now += START_PAUSE_S
        due = desk.scheduler.next_timer()
        assert due is not None and due <= desk.now
        desk.on(Tick())
        assert len(desk.drain(StartWorker)) == 1
    for _ in range(4):
        desk.finish(1, seconds=1.0)
    assert not desk.drain(GiveUp)


def test_after_a_worker_that_could_not_start_they_are_started_one_at_a_time() -> None:
    desk = Desk(4, ready=0)
    desk.submit(*calls(9, LONG))
    desk.drain(StartWorker)
    for worker in (1, 2, 3, 4):
        desk.queues.pop(worker)
        desk.on(Died(WorkerId(worker), 0, unable=True))
    for _ in range(3):
        # The next one when the last is ready: each alone may find the room for its threads.
        assert len(desk.drain(StartWorker)) == 1
        desk.get_ready()
    assert not desk.drain(GiveUp)


def test_workers_that_cannot_start_are_given_up_when_none_is_left_that_runs() -> None:
    desk = Desk(2, ready=0)
    desk.submit(call("one"))
    for _ in range(STARTS_WITHOUT_RESULT):
        assert not desk.drain(GiveUp)
        for worker in sorted(desk.scheduler.workers):
            desk.queues.pop(worker)
            desk.on(Died(worker, 0, unable=True))
    assert desk.drain(GiveUp)


def test_a_group_whose_workers_do_not_start_is_closed_and_the_others_go_on() -> None:
    desk = Desk(1, 1, ready=0)

    def told() -> list[Any]:
        kinds = (Closed, GiveUp, StartWorker)
        found = [command for command in desk.commands if type(command) in kinds]
        desk.commands.clear()
        return found

    (bad, good) = [command.worker for command in told()]
    desk.submit(*calls(4, LONG))
    for _ in range(STARTS_WITHOUT_RESULT - 1):
        desk.queues.pop(bad)
        desk.on(Died(bad, 0, unable=True))
        (started,) = told()
        bad = started.worker
    desk.queues.pop(bad)
    desk.on(Died(bad, 0, unable=True))
    assert told() == [Closed(0)]
    desk.get_ready()
    desk.finish(good, seconds=1.0)
    assert not told()
    for _ in range(2):
        desk.now += CLOSED_S
        desk.on(Tick())
        (started,) = told()  # one, to see whether it is better now
        desk.queues.pop(started.worker)
        desk.on(Died(started.worker, 0, unable=True))
        assert told() == [Closed(0)]
    desk.now += CLOSED_S
    desk.on(Tick())
    (started,) = told()
    desk.get_ready()
    desk.finish(started.worker, seconds=1.0)
    assert not desk.scheduler.groups[0].closed


def test_when_all_groups_are_closed_the_engine_gives_up() -> None:
    desk = Desk(1, 1, ready=0)
    desk.submit(*calls(4, LONG))
    while not (gave_up := desk.drain(GiveUp)):
        assert len(desk.scheduler.workers) > 0
        for worker in sorted(desk.scheduler.workers):
            desk.queues.pop(worker)
            desk.on(Died(worker, 0, unable=True))
    assert len(gave_up) == 1


def test_a_worker_that_waits_for_a_call_that_nobody_can_run_does_not_wait_for_ever() -> None:
    desk = Desk(1)
    desk.submit(call("outer", function=LONG))
    desk.on(Blocked(WorkerId(1)))
    desk.submit(call("inner"), depth=1)
    for worker in range(2, 2 + STARTS_WITHOUT_RESULT):
        assert not desk.drain(GiveUp)
        desk.queues.pop(worker)
        desk.on(Died(WorkerId(worker), 0, unable=True))
    assert desk.drain(GiveUp)


def test_one_result_is_enough_to_go_on() -> None:
    desk = Desk(1, ready=0)
    desk.submit(*calls(5, LONG))
    for worker in range(1, STARTS_WITHOUT_RESULT):
        desk.die(worker)
    desk.get_ready()
    desk.finish(STARTS_WITHOUT_RESULT, seconds=1.0)
    desk.die(STARTS_WITHOUT_RESULT)
    assert not desk.drain(GiveUp)


def test_workers_that_leave_are_never_given_up_and_their_queue_goes_elsewhere() -> None:
    desk = Desk(1)
    one, two = calls(2)
    desk.submit(one, two)
    last = 3 * STARTS_WITHOUT_RESULT
    for worker in range(1, last):
        assert desk.sent()[worker] == ["c0", "c1"]
        desk.queues.pop(worker)
        desk.on(Left(WorkerId(worker)))
        assert stage(one) is READY
        desk.on(Died(WorkerId(worker), 0))  # when its process has ended
        desk.get_ready()
    assert not desk.drain(GiveUp)
    desk.finish(last, VALUE, VALUE)
    assert (stage(one), stage(two)) == (DONE, DONE)
    assert one.task is not None
    assert one.task.deaths == 0


# -- errors, timeouts, cancels ----------------------------------------------------------------


def test_the_first_error_starts_nothing_more() -> None:
    desk = Desk(1)
    first, *rest = calls(3, LONG)
    run = desk.submit(first, *rest)
    desk.finish(1, EXCEPTION, result=b"raised")
    assert not run.live and run.failure is first.task
    assert desk.sent()[1] == []
    assert [stage(one) for one in rest] == [ABANDONED, ABANDONED]
    assert run.remaining == 0


def test_what_was_sent_ahead_is_taken_back_after_the_first_error() -> None:
    # queued:  bad, mine 1, shared, mine 2      shared is another run's, too
    desk = Desk(1)
    bad, mine, shared, more = (call(name) for name in ("bad", "mine 1", "shared", "mine 2"))
    desk.scheduler.seconds[QUICK.key] = 0.0001
    desk.submit(bad, mine, shared, more)
    desk.submit(shared)
    assert desk.sent()[1] == ["bad", "mine 1", "shared", "mine 2"]
    desk.commands.clear()
    desk.finish(1, EXCEPTION)
    assert desk.drain(TakeBack) == [TakeBack(WorkerId(1), 1)]  # the next one has begun by now
    desk.give_back(1, 1)
    assert stage(shared) is ASSIGNED and stage(more) is ABANDONED


def test_continue_runs_all_that_can_run() -> None:
    # a ── b     c
    desk = Desk(1)
    a, c = call("a", function=LONG), call("c", function=LONG)
    b = call("b", a, function=LONG)
    run = desk.submit(a, b, c, stop_on_error=False)
    desk.finish(1, EXCEPTION, seconds=1.0)
    assert run.live
    desk.finish(1, seconds=1.0)
    assert [stage(one) for one in (a, b, c)] == [FAILED, FAILED, DONE]
    assert (run.done, run.failed, run.live) == (1, 2, False)


def test_an_exception_is_tried_again_after_a_pause() -> None:
    desk = Desk(1)
    one = call("one", retries=2)
    desk.submit(one)
    pauses = []
    for _ in range(2):
        desk.finish(1, EXCEPTION)
        assert stage(one) is RETRYING
        begin = desk.now
        while stage(one) is RETRYING:
            due = desk.scheduler.next_timer()
            assert due is not None
            desk.now = due
            desk.on(Tick())
        pauses.append(round(desk.now - begin, 6))
    assert pauses == [0.0, 0.1]
    desk.finish(1, EXCEPTION, result=b"last")
    assert stage(one) is FAILED and one.task is not None and one.task.result == b"last"


def test_what_no_attempt_can_help_is_not_tried_again() -> None:
    desk = Desk(1)
    one = call("one", retries=2)
    desk.submit(one)
    desk.finish(1, FATAL)
    assert stage(one) is FAILED


def test_a_call_past_its_timeout_is_interrupted_and_then_killed() -> None:
    desk = Desk(1)
    one = call("one", function=LONG, timeout_s=3)
    desk.submit(one)
    desk.now = 3
    desk.on(Tick())
    assert len(desk.drain(Interrupt)) == 1
    desk.now = 3 + INTERRUPT_GRACE_S
    desk.on(Tick())
    assert desk.drain(Kill) == [Kill(WorkerId(1))]
    desk.die(1)
    assert stage(one) is FAILED and one.task is not None and one.task.blame == "timeout"


def test_nothing_begins_behind_a_call_that_is_stopped() -> None:
    desk = Desk(1)
    one, behind = call("one", timeout_s=3), call("behind")
    desk.submit(one, behind)
    assert desk.sent()[1] == ["one", "behind"]
    desk.now = 3
    desk.commands.clear()
    desk.on(Tick())
    assert TakeBack(WorkerId(1), 1) in desk.commands


def test_a_timeout_of_long_ago_holds_no_result() -> None:
    desk = Desk(1)
    one = call("one", timeout_s=3600)
    desk.submit(one)
    desk.finish(1)
    assert not any(one.task in entry for entry in desk.scheduler.core.timers.heap)


def test_timers_of_calls_that_ended_do_not_grow_with_their_number() -> None:
    desk = Desk(2)
    for _ in range(3000):
        desk.now += 0.001
        one, two = call("one", timeout_s=3600), call("two", timeout_s=3500, retries=1)
        desk.submit(one, two)
        desk.finish(1)
        desk.finish(2, EXCEPTION)
        desk.now += 0.01
        desk.on(Tick())
        desk.finish(next(worker for worker, queue in desk.queues.items() if queue))
        assert (stage(one), stage(two)) == (DONE, DONE)
    assert len(desk.scheduler.core.timers.heap) < 200


def test_workers_that_are_due_at_the_same_moment_share_a_timer() -> None:
    desk = Desk(50)
    calls = [call(f"{i}", function=LONG) for i in range(50)]
    desk.submit(*calls)
    for _ in range(4):  # each look leads to the next one
        assert len(desk.scheduler.core.timers.heap) == 1
        desk.now = desk.scheduler.next_timer() or 0.0
        desk.commands.clear()
        desk.on(Tick())
        assert {one.worker for one in desk.commands if isinstance(one, Report)} == {*desk.queues}
    for worker in list(desk.queues):
        desk.finish(worker)
    assert {stage(one) for one in calls} == {DONE}
    desk.now = desk.scheduler.next_timer() or 0.0
    desk.on(Tick())
    assert desk.scheduler.next_timer() is None


def test_timers_that_matter_outlive_those_of_calls_that_ended() -> None:
    desk = Desk(2)
    slow, failing = call("slow", function=LONG, timeout_s=50), call("failing", retries=3)
    desk.submit(slow, failing)
    desk.finish(2, EXCEPTION)
    desk.on(Tick())
    desk.finish(2, EXCEPTION)
    assert stage(failing) is RETRYING
    for _ in range(500):
        one = call("one", timeout_s=3600, priority=1)
        desk.submit(one)
        desk.finish(2)
    desk.now = 10
    desk.on(Tick())
    assert stage(failing) is ASSIGNED
    desk.drain(Interrupt)
    desk.now = 50
    desk.on(Tick())
    assert [command.worker for command in desk.drain(Interrupt)] == [1]


def test_a_cancelled_call_is_interrupted_and_then_killed() -> None:
    desk = Desk(1)
    one, waiting = calls(2, LONG)
    run = desk.submit(one, waiting)
    desk.on(Cancelled(run))
    assert desk.commands[-2] == RunEnded(run)  # type: ignore[arg-type]
    assert len(desk.drain(Interrupt)) == 1
    assert stage(waiting) is READY or stage(waiting) is CANCELLED
    # What the program hears, whatever is still to be done about it.
    assert one.task is not None and waiting.task is not None
    assert one.task.cancelled and waiting.task.cancelled
    assert [ending for *_, ending in one.task.attempts()] == ["stopped"]
    desk.now = CANCEL_GRACE_S
    desk.on(Tick())
    assert desk.drain(Kill)
    desk.die(1)
    assert (stage(one), stage(waiting)) == (CANCELLED, CANCELLED)
    assert [ending for *_, ending in one.task.attempts()] == ["stopped"]
    assert not waiting.task.attempts()


def test_a_call_that_is_cancelled_again_is_killed_at_once() -> None:
    desk = Desk(1)
    run = desk.submit(call("one", function=LONG))
    desk.on(Cancelled(run))
    desk.now += CANCEL_GRACE_S / 10
    desk.on(Cancelled(run))
    assert len(desk.drain(Interrupt)) == 1
    due = desk.scheduler.next_timer()
    assert due is not None and due <= desk.now
    desk.on(Tick())
    assert desk.drain(Kill)


def test_a_cancelled_call_that_the_driver_did_not_know_to_run_is_stopped_later() -> None:
    desk = Desk(1)
    one, other = calls(2)
    run = desk.submit(one, other)
    desk.on(Cancelled(run))  # `one` ended long ago, and was not reported; `other` runs
    desk.commands.clear()
    desk.finish(1)
    assert desk.drain(Interrupt) == [Interrupt(WorkerId(1), other.task.attempt)]  # type: ignore[union-attr, arg-type]


def test_a_call_that_is_asked_for_again_while_it_is_cancelled_is_run_again() -> None:
    desk = Desk(1)
    one = call("one", function=LONG)
    first = desk.submit(one)
    desk.on(Cancelled(first))
    run = desk.submit(one)
    desk.finish(1, INTERRUPTED)
    desk.on(Tick())
    desk.finish(1)
    assert (stage(one), run.live, run.failed) == (DONE, False, 0)


def test_a_call_of_two_runs_goes_on_when_one_is_cancelled() -> None:
    desk = Desk(1)
    one = call("one", function=LONG)
    first = desk.submit(one)
    second = desk.submit(one)
    desk.on(Cancelled(first))
    assert not desk.drain(Interrupt)
    desk.finish(1)
    assert (stage(one), second.done, second.live) == (DONE, 1, False)


def test_prediction_limits_are_what_these_tests_take_them_for() -> None:
    assert 0.001 < BATCH_S < PREFETCH_BELOW_S < 1.0


# -- values that are still on their way -------------------------------------------------------


def test_what_has_read_an_input_that_finds_no_room_fails_if_its_own_value_is_lost() -> None:
    """Its input is not made again, so it could only wait for it for ever."""
    desk = Desk(1)
    source = call("source")
    reader = call("reader", source)
    last = call("last", reader)
    run = desk.submit(source, reader, last, stop_on_error=False)
    desk.finish(1, early=True, result=b"1", stored=True)
    desk.finish(1, early=True, result=b"2", stored=True)
    assert [stage(one) for one in (source, reader)] == [MADE, MADE]
    desk.on(Unkept(AttemptId(source.task.attempt), b"no room"))
    assert [stage(one) for one in (source, reader)] == [FAILED, MADE]
    desk.on(Lost(0, lambda _: b"lost", {}))
    desk.die(1)
    assert [stage(one) for one in (reader, last)] == [FAILED, FAILED]
    assert reader.task.failed_input is source.task
    assert not run.live
