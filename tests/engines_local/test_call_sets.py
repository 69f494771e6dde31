"""How many calls of a set the scheduler has in flight, and which of them it does not start."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mars.calls.options import CallSet, Options
from mars.engine import Run
from mars.engines.driver.events import Assign, Cancelled, Finished, Outcome, Settled, Submitted
from mars.engines.driver.events import WorkerReady as Ready
from mars.engines.driver.scheduler import Scheduler
from mars.engines.wire.status import VALUE
from mars.task import Call, Function, Stage, Task, WorkerId


class Realm:
    def forget(self, task: Task) -> None:
        """Nothing is kept."""


class Refusing(CallSet):
    """A set of which some calls are not to start."""

    __slots__ = ("refused", "told")

    def __init__(self, most: int | None, refused: frozenset[int]) -> None:
        super().__init__(most)
        self.refused = refused
        self.told: list[Any] = []

    def claim(self, task: Any) -> bool:
        return task.place not in self.refused

    def settled(self, task: Any) -> None:
        self.told.append(task.place)


class History:
    """A scheduler with workers that end their calls when they are told to."""

    def __init__(self, workers: int) -> None:
        self.scheduler = Scheduler([("here", workers)])
        self.now = 0.0
        self.settled: list[Task] = []
        self.most = 0
        self.scheduler.start_all()
        for worker in list(self.scheduler.workers):
            self.on(Ready(worker))

    def on(self, event: Any) -> None:
        self.now += 0.001
        for command in self.scheduler.on(event, self.now):
            if isinstance(command, Settled):
                self.settled.append(command.task)
                in_set = command.task.call.options.in_set
                assert in_set is not None
                in_set.settled(command.task)
            elif isinstance(command, Assign):
                busy = [w for w in self.scheduler.workers.values() if w.queue]
                self.most = max(self.most, len(busy))

    def end_first(self, worker: WorkerId) -> bool:
        queue = self.scheduler.workers[worker].queue
        if not queue:
            return False
        self.on(Finished(worker, [Outcome(queue[0].attempt, VALUE, 0.2, b"")]))
        return True

    def play(self) -> None:
        ended = True
        while ended:
            ended = False
            for worker in list(self.scheduler.workers):
                ended |= self.end_first(worker)


def submit(history: History, options: Options, count: int, name: bytes) -> tuple[Run, list[Task]]:
    run = Run("s", Realm(), stop_on_error=False)
    run.number = len(name)
    function = Function(name, "f", b"")
    tasks = []
    for place in range(count):
        task = Task(Call(function, b"", (), (), options, None), Realm())
        task.call.handles, task.call.task, task.place = 1, task, place
        tasks.append(task)
    history.on(Submitted(run, tasks))
    return run, tasks


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 12), st.frozensets(st.integers(0, 12)))
def test_a_set_keeps_to_its_limit_and_hears_of_each_end_once(
    workers: int, most: int, count: int, refused: frozenset[int]
) -> None:
    history = History(workers)
    options = Options()
    options.in_set = in_set = Refusing(most, refused)
    _, tasks = submit(history, options, count, b"f")
    history.play()
    assert history.most <= min(workers, most)
    assert sorted(in_set.told) == list(range(count))
    for task in tasks:
        kept_out = task.place in refused
        assert task.stage is (Stage.ABANDONED if kept_out else Stage.DONE)
        assert bool(task.attempt) is not kept_out
    assert in_set.takes(None)


def test_calls_outside_of_a_set_take_the_workers_that_it_leaves() -> None:
    history = History(3)
    options = Options()
    options.in_set = Refusing(1, frozenset())
    submit(history, options, 4, b"f")
    submit(history, Options(), 4, b"gg")
    assert history.most == 3


def test_calls_of_a_run_that_is_cancelled_are_told_of_when_their_turn_comes() -> None:
    history = History(1)
    options = Options()
    options.in_set = in_set = Refusing(None, frozenset())
    run, tasks = submit(history, options, 3, b"f")
    history.on(Cancelled(run))
    history.play()
    submit(history, options, 1, b"gg")
    history.play()
    assert sorted(in_set.told) == [0, 0, 1, 2]
    assert all(task.finished for task in tasks)
