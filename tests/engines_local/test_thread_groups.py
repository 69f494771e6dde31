"""How the scheduler gives out calls with ``threads=``: beside the cores, and never too many."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mars.calls.options import Options, parse_options
from mars.engine import Run
from mars.engines.driver.events import (
    Assign,
    Died,
    Finished,
    Lost,
    Outcome,
    Submitted,
    Tick,
)
from mars.engines.driver.queues import place_of, threads_beside
from mars.engines.wire.status import VALUE
from mars.task import Call, Function, Stage, Task, WorkerId
from tests.engines_local import history
from tests.engines_local.history import Realm


class History(history.History):
    """A scheduler whose workers are ready at once and end their calls when they are told to."""

    def __init__(self, nodes: int = 1, cpus: float = 2) -> None:
        super().__init__([(f"node{number}", cpus) for number in range(nodes)])
        self.most: Counter[int] = Counter()  # workers with a call at a time, by group
        self.carry_out(self.scheduler.start_all())

    def note(self, command: Any) -> None:
        if isinstance(command, Assign):
            busy = Counter(w.group for w in self.scheduler.workers.values() if w.queue)
            for group, count in busy.items():
                self.most[group] = max(self.most[group], count)

    def run(self, options: Options, count: int, name: bytes = b"f") -> list[Task]:
        run = Run("s", Realm(), stop_on_error=False)
        run.number = len(name)
        function = Function(name, "f", b"")
        tasks = []
        for place in range(count):
            task = Task(Call(function, b"", (), (), options, None), Realm())
            task.call.handles, task.call.task, task.place = 1, task, place
            tasks.append(task)
        self.on(Submitted(run, tasks))
        return tasks

    def groups_of(self, tasks: list[Task]) -> list[int]:
        return [task.worker.group for task in tasks if task.worker is not None]

    def end_all(self) -> None:
        ended = True
        while ended:
            ended = False
            for number, worker in list(self.scheduler.workers.items()):
                if worker.queue:
                    ended = True
                    outcome = Outcome(worker.queue[0].attempt, VALUE, 0.2, b"")
                    self.on(Finished(WorkerId(number), [outcome]))


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from([0, 1, 3, 7]), st.integers(0, 9)), max_size=5),
)
def test_all_calls_end_and_none_of_the_limits_is_passed(
    nodes: int, wishes: list[tuple[int, int]]
) -> None:
    history = History(nodes)
    tasks = []
    for number, (threads, count) in enumerate(wishes, 1):
        options = parse_options({"threads": threads}) if threads else Options()
        tasks += history.run(options, count, b"f" * number)
    for group, state in history.scheduler.groups.items():
        assert -1e-9 <= state.free <= state.cpus + 1e-9
        claimed = sum(w.claim for w in history.scheduler.workers.values() if w.group == group)
        assert abs(claimed + state.free - state.cpus) < 1e-9
    history.end_all()
    assert all(task.stage is Stage.DONE for task in tasks)
    limits = [threads for threads, count in wishes if threads and count]
    for group, most in history.most.items():
        assert most <= (2 if group >= 0 else max(limits))
    for state in history.scheduler.groups.values():
        assert abs(state.free - state.cpus) < 1e-9, "all is free again"


def test_calls_in_threads_take_no_cores() -> None:
    history = History()
    waiting = history.run(parse_options({"threads": 5}), 5)
    working = history.run(Options(), 2, b"gg")
    assert history.groups_of(waiting) == [threads_beside(0)] * 5
    assert history.groups_of(working) == [0] * 2
    assert history.scheduler.groups[0].free == 0


def test_a_program_without_such_calls_has_no_groups_for_them() -> None:
    history = History(nodes=3)
    history.run(Options(), 4)
    assert list(history.scheduler.groups) == [0, 1, 2]


def test_what_died_in_a_thread_runs_in_a_process_the_next_time() -> None:
    history = History()
    tasks = history.run(parse_options({"threads": 3}), 3)
    for task in tasks:
        worker = task.worker
        assert worker is not None
        history.on(Died(worker.id, task.attempt, lambda _: b""))
    assert {task.stage for task in tasks} == {Stage.RETRYING}
    history.now += 1000
    history.on(Tick())
    assert set(history.groups_of(tasks)) == {0}
    history.end_all()
    assert {task.stage for task in tasks} == {Stage.DONE}


def test_threads_of_a_lost_node_are_lost_with_it_and_come_with_a_new_one() -> None:
    history = History(nodes=2)
    tasks = history.run(parse_options({"threads": 2}), 4)
    assert Counter(map(place_of, history.groups_of(tasks))) == {0: 2, 1: 2}
    history.on(Lost(0))
    for number, worker in list(history.scheduler.workers.items()):
        if place_of(worker.group) == 0:
            started = worker.queue[0].attempt if worker.queue else 0
            history.on(Died(WorkerId(number), started, lambda _: b""))
    assert set(history.scheduler.groups) == {1, threads_beside(1)}
    history.scheduler.add_group("node2", 2)
    assert threads_beside(2) in history.scheduler.groups
    history.now += 1000
    history.on(Tick())
    history.end_all()
    assert {task.stage for task in tasks} == {Stage.DONE}
