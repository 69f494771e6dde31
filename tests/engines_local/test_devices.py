"""How the scheduler gives out calls with ``gpus=``: never two on what only one may have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.calls.options import parse_options
from mars.engine import Run
from mars.engines.driver.events import (
    Assign,
    Died,
    Finished,
    Outcome,
    StopWorker,
    Submitted,
    Tick,
)
from mars.engines.driver.queues import Pool, WorkerState, devices_beside, place_of, threads_beside
from mars.engines.wire.status import VALUE
from mars.settings import GPU_IDLE_S
from mars.task import Call, Function, Stage, Task, WorkerId
from tests.engines_local import history
from tests.engines_local.history import Realm


class History(history.History):
    """A scheduler with GPUs; processes are ready at once, and end when they are told to."""

    def __init__(self, gpus: int = 2, cpus: float = 4) -> None:
        super().__init__([("node", cpus)])
        self.scheduler.add_devices(0, [str(number) for number in range(gpus)])
        self.stopped: list[WorkerId] = []
        self.carry_out(self.scheduler.start_all())

    def note(self, command: Any) -> None:
        if isinstance(command, StopWorker):
            self.stopped.append(command.worker)
        else:
            assert isinstance(command, Assign) or type(command).__name__ == "RunEnded", command

    def run(self, *wishes: dict[str, Any]) -> list[Task]:
        run = Run("s", Realm(), stop_on_error=False)
        tasks = []
        for wish in wishes:
            call = Call(Function(b"f", "f", b""), b"", (), (), parse_options(wish), None)
            call.handles += 1
            tasks.append(Task(call, run.realm))
        self.on(Submitted(run, tasks))
        return tasks

    def end(self, task: Task) -> None:
        assert task.worker is not None
        self.on(Finished(task.worker.id, [Outcome(task.attempt, VALUE, 1.0, b"")]))

    def end_processes(self) -> None:
        """The processes that were told to have ended."""
        while self.stopped:
            self.on(Died(self.stopped.pop(), 0))


def devices_of(tasks: list[Task]) -> list[tuple[int, ...] | None]:
    """The GPUs that each task has; None: it does not run."""
    return [None if task.worker is None else task.worker.devices for task in tasks]


def test_each_whole_gpu_has_one_call_at_a_time() -> None:
    history = History(gpus=2)
    tasks = history.run(*[{"gpus": 1}] * 3)
    assert devices_of(tasks) == [(0,), (1,), None]
    history.end(tasks[1])
    assert devices_of(tasks) == [(0,), None, (1,)]


def test_parts_of_a_gpu_share_one_and_leave_the_other_whole() -> None:
    history = History(gpus=2)
    halves = history.run({"gpus": 0.5}, {"gpus": 0.5})
    assert devices_of(halves) == [(0,), (0,)]
    assert halves[0].worker is not halves[1].worker
    (whole,) = history.run({"gpus": 1})
    assert devices_of([whole]) == [(1,)]


def test_a_call_gets_a_fresh_worker_when_its_devices_change() -> None:
    history = History(gpus=2)
    small = history.run({"gpus": 1}, {"gpus": 1})
    seen = [task.worker for task in small]
    for task in small:
        history.end(task)
    (large,) = history.run({"gpus": 2})
    assert large.worker is None, "the others still have the devices"
    assert len(history.stopped) == 2
    history.end_processes()
    assert devices_of([large]) == [(0, 1)]
    assert large.worker not in seen


def test_the_same_devices_stay_with_their_worker() -> None:
    history = History(gpus=1)
    (first,) = history.run({"gpus": 1})
    worker = first.worker
    history.end(first)
    (second,) = history.run({"gpus": 1})
    assert second.worker is worker
    assert not history.stopped


def test_a_large_call_does_not_starve_behind_small_ones() -> None:
    history = History(gpus=2)
    small = history.run({"gpus": 1}, {"gpus": 1})
    (large,) = history.run({"gpus": 2})
    more = history.run(*[{"gpus": 1}] * 4)
    history.end(small[0])
    assert devices_of([large, *more]) == [None] * 5
    history.end(small[1])
    history.end_processes()
    assert devices_of([large]) == [(0, 1)]


def test_calls_without_gpus_go_on_beside_those_that_wait_for_one() -> None:
    history = History(gpus=1, cpus=2)
    with_gpu = history.run({"gpus": 1}, {"gpus": 1})
    (plain,) = history.run({})
    assert plain.worker is not None
    assert plain.worker.devices == ()
    assert devices_of(with_gpu) == [(0,), None]


def test_a_call_with_a_gpu_takes_its_cores() -> None:
    history = History(gpus=2, cpus=2)
    (one,) = history.run({"gpus": 1, "cpus": 2})
    assert devices_of([one]) == [(0,)]
    (plain,) = history.run({})
    assert plain.stage is Stage.READY
    history.end(one)
    assert plain.stage is Stage.ASSIGNED


def test_cores_are_kept_for_a_call_that_waits_for_nothing_else() -> None:
    history = History(gpus=1, cpus=2)
    plain = history.run({}, {}, {}, {})
    (with_gpu,) = history.run({"gpus": 1, "cpus": 2})
    history.end(plain[0])
    history.end(plain[1])
    assert with_gpu.stage is Stage.ASSIGNED
    assert [task.stage for task in plain[2:]] == [Stage.READY] * 2


def test_a_more_urgent_call_without_gpus_has_its_core_first() -> None:
    history = History(gpus=1, cpus=1)
    (running,) = history.run({})
    later, urgent = history.run({"gpus": 1}, {"priority": 5})
    history.end(running)
    assert (urgent.stage, later.stage) == (Stage.ASSIGNED, Stage.READY)
    history.end(urgent)
    assert later.stage is Stage.ASSIGNED


def test_devices_are_free_when_their_process_has_ended_and_not_before() -> None:
    history = History(gpus=1)
    first, second = history.run({"gpus": 1, "death_retries": 0}, {"gpus": 1})
    assert first.worker is not None
    worker: WorkerState = first.worker
    history.on(Died(worker.id, first.attempt, lambda task: b"dead"))
    assert first.stage is Stage.FAILED
    assert second.stage is Stage.ASSIGNED
    assert second.worker is not worker


def test_a_worker_that_does_nothing_with_its_gpus_ends_after_a_while() -> None:
    history = History(gpus=1)
    (first,) = history.run({"gpus": 1})
    worker = first.worker
    assert worker is not None
    history.end(first)
    history.now += GPU_IDLE_S / 2
    (second,) = history.run({"gpus": 1})
    assert second.worker is worker
    history.end(second)
    history.on(Tick())
    history.now += GPU_IDLE_S - 1
    history.on(Tick())
    assert not history.stopped
    timer = history.scheduler.next_timer()
    assert timer is not None and timer <= history.now + 1
    history.now += 1
    history.on(Tick())
    assert history.stopped == [worker.id]
    history.end_processes()
    (third,) = history.run({"gpus": 1})
    assert third.worker is not worker


@pytest.mark.parametrize("number", [0, 1, 7, 1000])
def test_groups_beside_others_have_numbers_of_their_own(number: int) -> None:
    numbers = {number, threads_beside(number), devices_beside(number)}
    assert len(numbers) == 3
    assert {place_of(one) for one in numbers} == {number}


@given(st.lists(st.sampled_from([0.25, 0.5, 1, 2]), max_size=30), st.integers(1, 4))
def test_no_part_of_a_device_is_given_twice(wishes: list[float], count: int) -> None:
    pool = Pool([str(number) for number in range(count)])
    held: list[tuple[tuple[int, ...], float]] = []
    for step, gpus in enumerate(wishes):
        devices = pool.find(gpus)
        if devices:
            pool.take(devices, gpus)
            held.append((devices, gpus))
        elif held:
            pool.give(*held.pop(step % len(held)))
        used = [0.0] * count
        for some, part in held:
            assert len(set(some)) == max(1, int(part))
            for at in some:
                used[at] += min(part, 1)
        assert max(used) <= 1
        assert [round(1 - free, 6) for free in pool.free] == used
