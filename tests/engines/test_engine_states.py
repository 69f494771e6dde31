"""The states of calls are true at every moment, in one set of words, for every kind of handle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.errors import NotExecuted, TaskCancelled

WaitUntil = Callable[..., None]


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that calls wait for. It is there at the end, so that no call waits for ever."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def reason(call: mr.Object) -> str:
    with pytest.raises(NotExecuted) as caught:
        call.fetch()
    return str(caught.value)


def test_a_call_says_what_it_is_doing(
    gate: Path, pass_gate: Callable[[Path], None], wait_until: WaitUntil, engine: str
) -> None:
    def hold(i: int) -> int:
        pass_gate(gate)
        return i

    held = mr.ExecutableTuple([mr.spawn(hold, i, name=f"hold {i}", cpus=2) for i in range(2)])
    total = mr.spawn(sum, (list(held),), name="total")
    assert [*held.states(), *total.states()] == ["not started"] * 3
    assert reason(total) == "total is not started. Call execute() on it first"
    run = mars.execute(*held, total, wait=False)
    wait_until(lambda: held.states() == ["running", "queued"])
    assert total.states() == ["waiting for inputs"]
    assert reason(held[0]).startswith("hold 0 is still running, for ")
    assert reason(held[1]) == "hold 1 is queued. execute() waits for it"
    assert reason(total) == "total is waiting for hold 0 and hold 1. execute() waits for it"
    assert [error.state for error in held.errors()] == ["running", "queued"]
    gate.touch()
    run.result(60)
    assert [*held.states(), *total.states()] == ["done"] * 3
    assert held.errors() == [None, None]


def test_finished_calls_are_fetched_during_a_run(
    gate: Path, pass_gate: Callable[[Path], None], wait_until: WaitUntil
) -> None:
    first, held = mr.spawn(abs, -1, priority=1), mr.spawn(pass_gate, gate)
    run = mars.execute(first, held, wait=False)
    wait_until(lambda: first.states() == ["done"])
    assert first.fetch() == 1
    assert held.states() != ["done"]
    gate.touch()
    run.result(60)


def test_failed_and_left_out_calls_are_told_apart() -> None:
    bad, good, idle = mr.spawn(fail, "bad"), mr.spawn(abs, -1), mr.spawn(abs, -2)
    after = mr.spawn(str, (bad,))
    mars.execute(bad, good, after, on_error="continue")
    everything = mr.ExecutableTuple([bad, good, after, idle])
    assert everything.states() == ["failed", "done", "failed", "not started"]
    assert [None if one is None else type(one).__name__ for one in everything.errors()] == [
        "ValueError", None, "DependencyFailed", "NotExecuted",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="bad"):
        mars.fetch(idle, bad)  # that one failed is the news, not that another did not run


def test_items_of_a_map_have_states(
    gate: Path, pass_gate: Callable[[Path], None], wait_until: WaitUntil
) -> None:
    def act(i: int) -> int:
        if i == 1:
            fail("item 1")
        pass_gate(gate)
        return i

    mapped = mr.map(act, range(4), cpus=2)
    assert mapped.states() == ["not started"] * 4
    run = mapped.execute(wait=False, on_error="continue")
    wait_until(lambda: mapped.states()[0] == "running")
    assert mapped.states()[2:] == ["queued", "queued"]
    assert mapped[3].states() == ["queued"]
    assert reason(mapped[3]) == "item 3 of act is queued. execute() waits for it"
    gate.touch()
    run.result(60)
    assert mapped.states() == ["done", "failed", "done", "done"]
    assert mapped[1].states() == ["failed"] and mapped[2].states() == ["done"]
    with pytest.raises(ValueError, match="item 1"):
        mapped.fetch()


def test_a_map_raises_the_failure_and_not_what_was_left_out_because_of_it() -> None:
    def act(i: int) -> int:
        if i == 3:
            fail("third")
        return i

    mapped = mr.map(act, range(40), cpus=2)
    with pytest.raises(ValueError, match="third"):
        mapped.execute()
    with pytest.raises(ValueError, match="third"):
        mapped.fetch()
    for state, error in zip(mapped.states(), mapped.errors(), strict=True):
        expected = {"done": type(None), "failed": ValueError}.get(state, NotExecuted)
        assert type(error) is expected, state


def test_a_cancelled_call_is_cancelled(
    gate: Path, pass_gate: Callable[[Path], None], wait_until: WaitUntil
) -> None:
    call = mr.spawn(pass_gate, gate)
    run = call.execute(wait=False)
    wait_until(lambda: call.states() == ["running"])
    assert run.cancel()
    assert call.states() == ["cancelled"]
    with pytest.raises(TaskCancelled):
        call.fetch()


def test_a_call_of_another_session_says_so(
    session: mars.session.Session, keep_default: None
) -> None:
    call = mr.spawn(abs, -1, name="here").execute()
    other = mars.new_session(session.address, session_id="other", default=False)
    with pytest.raises(NotExecuted, match=r"^here was executed in another session, \w+"):
        call.fetch(session=other)
    assert call.states(session=other) == ["not started"] and call.states() == ["done"]
    there = mr.spawn(abs, -2, name="there").execute(session=other)
    assert "in another session, other." in reason(there)
    other.close()
    assert "was executed in a session that is closed" in reason(there)
    assert there.execute().fetch() == 2


def test_a_result_of_a_checkpoint_is_reused(
    session: mars.session.Session, tmp_path: Path, keep_default: None
) -> None:
    def program(name: str) -> list[str]:
        opened = mars.new_session(session.address, session_id=name, checkpoint=tmp_path)
        try:
            call, mapped = mr.spawn(abs, -1), mr.map(abs, [-1, -2])
            mars.execute(call, mapped)
            return [*call.states(), *mapped.states(), *mapped[1].states()]
        finally:
            opened.close()

    assert program("first") == ["done"] * 4
    assert program("second") == ["reused"] * 4


def test_a_state_is_read_without_a_session_of_its_own() -> None:
    call = mr.spawn(abs, -1).execute()
    default = mars.session.get_default_session()
    assert default is not None
    mars.session.clear_default_session()
    try:
        assert call.states() == ["done"] and mr.spawn(abs, -1).states() == ["not started"]
        assert mars.session.get_default_session() is None
    finally:
        default.as_default()
