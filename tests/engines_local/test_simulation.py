"""Simulations as such: virtual time, other machines, and checks that see what breaks."""

from __future__ import annotations

import pytest

from mars.calls.options import DEFAULT_OPTIONS
from mars.engines.driver.core import ARROWS, IllegalMove, move
from mars.engines.driver.simulation.machine import Behaviour, Broken
from mars.engines.driver.simulation.world import World
from mars.task import Call, Function, Stage, Task

SECOND = Function(b"second", "second", b"")


def took(calls: int, cores: float, *, checked: bool = False) -> float:
    """Virtual seconds in which calls of one second each end on so many cores."""
    world = World(0, [("w0", cores)], checked=checked)
    asked = []
    for _ in range(calls):
        call = Call(SECOND, b"", (), (), DEFAULT_OPTIONS, None)
        call.handles += 1
        world.behaviours[call] = Behaviour(1.0)
        asked.append(call)
    world.start()
    run = world.submit(asked, stop_on_error=True)
    world.play()
    assert run is not None and run.done == calls
    assert run.ended_at is not None
    return run.ended_at


def test_a_simulation_says_how_long_a_program_would_take_on_more_cores() -> None:
    assert took(64, 4.0) == pytest.approx(16, rel=0.02)
    assert took(64, 64.0) == pytest.approx(1, rel=0.1)


def test_a_simulation_without_checks_goes_on_as_long_as_it_takes() -> None:
    assert took(4_000, 500.0) == pytest.approx(8, rel=0.1)  # far more than `MAX_STEPS`


def test_checks_change_nothing_but_the_time_that_a_simulation_needs() -> None:
    assert took(20, 2.0, checked=True) == took(20, 2.0)


def test_a_count_that_is_wrong_breaks_a_checked_simulation() -> None:
    world = World(0, [("w0", 2.0)])
    world.start()
    world.scheduler.groups[0].free -= 1.0
    with pytest.raises(Broken, match="claimed"):
        world.play()


@pytest.mark.parametrize("before", Stage)
@pytest.mark.parametrize("after", Stage)
def test_a_task_makes_no_step_that_is_not_an_arrow(before: Stage, after: Stage) -> None:
    task = Task(Call(SECOND, b"", (), (), DEFAULT_OPTIONS, None), World(0, [("w0", 1.0)]))
    task.stage = before
    if (before, after) in ARROWS:
        move(task, after)
        assert task.stage is after
        return
    with pytest.raises(IllegalMove, match=f"from {before.name} to {after.name}"):
        move(task, after)
    assert task.stage is before
