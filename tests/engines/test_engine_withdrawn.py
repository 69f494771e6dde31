"""`cancel` of single calls: they stop, with all that needs them, and all other calls go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.errors import TaskCancelled, UsageError

PassGate = Callable[[Path], None]
WaitUntil = Callable[..., None]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that calls wait for. It is there at the end, so that no call waits for ever."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture
def hold(gate: Path, pass_gate: PassGate) -> Callable[[], int]:
    def hold() -> int:
        pass_gate(gate)
        return 5

    return hold


def test_a_running_call_and_what_needs_it_stop_and_others_go_on(
    hold: Callable[[], int], gate: Path, wait_until: WaitUntil
) -> None:
    held, other = mr.spawn(hold), mr.spawn(abs, -1, priority=-1)
    needs = mr.spawn(str, (held,))
    last = mr.spawn(len, (needs,))
    run = mars.execute(held, last, other, wait=False)
    wait_until(lambda: held.states() == ["running"])
    assert held.cancel() and not held.cancel()
    together = mr.ExecutableTuple([held, needs, last])
    assert together.states() == ["cancelled"] * 3
    with pytest.raises(TaskCancelled, match=r"^hold was cancelled; execute\(\) runs it again$"):
        held.fetch()
    gate.touch()  # the inline engine leaves a call in another thread to its end
    assert run.result(60) == [held, last, other] and other.fetch() == 1
    assert run.counts()[:4] == (1, 0, 0, 3)
    # On a cluster the interrupt may come after the gate was opened: then the call itself is done.
    assert [type(one) for one in together.errors()][1:] == [TaskCancelled] * 2
    assert held.states()[0] in ("cancelled", "done")
    assert last.execute().fetch() == 1 and held.fetch() == 5


def test_a_queued_call_is_dropped(
    hold: Callable[[], int], gate: Path, tmp_path: Path, wait_until: WaitUntil
) -> None:
    held = mr.spawn(hold, cpus=2)
    queued = mr.spawn((tmp_path / "ran").touch, cpus=2)
    run = mars.execute(held, queued, wait=False)
    wait_until(lambda: held.states() == ["running"])
    assert queued.cancel() and queued.states() == ["cancelled"]
    gate.touch()
    run.result(60)
    assert held.fetch() == 5 and not (tmp_path / "ran").exists() and not queued.attempts()


def test_what_is_cancelled_while_it_is_stopped_can_be_executed_again(
    hold: Callable[[], int], gate: Path, wait_until: WaitUntil
) -> None:
    held = mr.spawn(hold)
    run = mars.execute(held, mr.spawn(abs, -1), wait=False)
    wait_until(lambda: held.states() == ["running"])
    assert held.cancel()
    again = held.execute(wait=False)
    gate.touch()
    assert again.result(60).fetch() == 5
    run.result(60)


def test_a_cancelled_call_comes_among_the_results(
    hold: Callable[[], int], gate: Path, wait_until: WaitUntil
) -> None:
    held, other = mr.spawn(hold, priority=-1), mr.spawn(abs, -1)
    coming = mr.as_completed([held, other])
    assert next(coming) is other
    wait_until(lambda: held.states() == ["running"])
    held.cancel()
    assert list(coming) == [held]
    gate.touch()


def test_a_map_is_cancelled_as_a_whole(
    hold: Callable[[], int], gate: Path, wait_until: WaitUntil
) -> None:
    mapped = mr.map(lambda i: hold() + i, range(5), cpus=2)
    other = mr.spawn(abs, -1)
    run = mars.execute(mapped, other, wait=False)
    wait_until(lambda: mapped.states()[0] == "running")
    assert not mapped[1].cancel()  # it is a part of the map
    assert mapped.cancel()
    gate.touch()
    run.result(60)
    assert set(mapped.states()) <= {"cancelled", "done"} and mapped.states()[4] == "cancelled"
    assert other.fetch() == 1
    assert mapped.execute().fetch() == [5, 6, 7, 8, 9]


def test_what_has_ended_or_was_never_executed_is_not_cancelled() -> None:
    done, idle = mr.spawn(abs, -1).execute(), mr.spawn(abs, -2)
    assert not done.cancel() and not idle.cancel() and not mr.map(abs, []).cancel()
    assert done.fetch() == 1 and idle.states() == ["not started"]


def test_inside_a_call_it_says_what_to_do() -> None:
    def outer() -> str:
        call = mr.spawn(abs, -1)
        run = call.execute(wait=False)
        try:
            call.cancel()
        except UsageError as error:
            return str(error)
        finally:
            run.result(60)
        return "cancelled nothing"

    told = mr.spawn(outer).execute().fetch()
    assert "cancel the run" in told or told == "cancelled nothing"  # it may have ended before
