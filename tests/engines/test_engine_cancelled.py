"""What was cancelled says so, at once, and how far it was; what is executed again runs again."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.errors import NotExecuted, TaskCancelled

WaitUntil = Callable[..., None]


class Gate:
    """A call that says that it has begun, and waits."""

    def __init__(self, folder: Path, pass_gate: Callable[..., None]) -> None:
        self._begun, self._open, self._pass = folder / "begun", folder / "open", pass_gate

    def hold(self) -> mr.Object:
        begun, gate, wait = self._begun, self._open, self._pass

        def hold() -> int:
            begun.touch()
            wait(gate)
            return 5

        return mr.spawn(hold)

    def begun(self) -> bool:
        return self._begun.exists()

    def open(self) -> None:
        self._open.touch()


@pytest.fixture
def gate(tmp_path: Path, pass_gate: Callable[..., None]) -> Iterator[Gate]:
    made = Gate(tmp_path, pass_gate)
    yield made
    made.open()  # the inline engine leaves a call in another thread to its end


def kind_of(call: mr.Object) -> type[BaseException] | None:
    try:
        call.fetch()
    except BaseException as error:
        return type(error)
    return None


def test_a_cancelled_call_is_cancelled_at_once_and_says_that_it_was_stopped(
    gate: Gate, wait_until: WaitUntil
) -> None:
    call = gate.hold()
    run = call.execute(wait=False)
    wait_until(gate.begun)
    assert run.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        run.result(0)
    with pytest.raises(TaskCancelled, match=r"hold was cancelled; execute\(\) runs it again"):
        call.fetch()
    assert [one.ending for one in call.attempts()] == ["stopped"]
    assert isinstance(mr.ExecutableTuple([call]).errors()[0], TaskCancelled)
    gate.open()
    assert call.execute().fetch() == 5
    # On a cluster the interrupt may come after the gate was opened: then it was of no use.
    assert [one.ending for one in call.attempts()] in (["stopped", "value"], ["value"])


def test_all_that_a_cancelled_run_wanted_is_cancelled_and_stays_so(
    gate: Gate, wait_until: WaitUntil
) -> None:
    #  done      held ── needs it ── and so on      waits
    done, held, waits = mr.spawn(abs, -1), gate.hold(), mr.spawn(abs, -2, priority=-1)
    needs = mr.spawn(str, (held,))
    last = mr.spawn(str, (needs,))
    never = mr.spawn(abs, -3)
    done.execute()
    run = mars.execute(done, held, needs, last, wait=False)
    wait_until(gate.begun)
    assert run.cancel()
    for _ in range(2):
        kinds = [kind_of(call) for call in (done, held, needs, last, never)]
        assert kinds == [None, TaskCancelled, TaskCancelled, TaskCancelled, NotExecuted]
        gate.open()
        mr.spawn(int).execute()  # its worker is free again
    assert [one.ending for one in needs.attempts()] == []
    assert last.execute().fetch() == "5" and waits.execute().fetch() == 2


def test_items_of_a_cancelled_map_are_cancelled(gate: Gate, wait_until: WaitUntil) -> None:
    held = gate.hold()
    # Each of them waits: one that ends before it hears of the cancel keeps its value.
    mapped = mr.map(abs, [held] * 3)
    run = mapped.execute(wait=False)
    wait_until(gate.begun)
    assert run.cancel()
    assert kind_of(mapped[0]) is TaskCancelled
    with pytest.raises(TaskCancelled, match="item 0 of abs was cancelled"):
        mapped.fetch()
    assert [type(error) for error in mapped.errors()] == [TaskCancelled] * 3
    assert [kind_of(item) for item in mapped] == [TaskCancelled] * 3
    gate.open()
    assert mapped.execute().fetch() == [5, 5, 5]


def test_a_call_that_makes_another_error_of_the_interrupt_is_cancelled_all_the_same(
    local_only: None, tmp_path: Path, wait_until: WaitUntil
) -> None:
    def stubborn() -> None:
        (tmp_path / "begun").touch()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise LookupError("in the way") from None

    call = mr.spawn(stubborn)
    run = call.execute(wait=False)
    wait_until((tmp_path / "begun").exists)
    run.cancel()
    assert kind_of(call) is TaskCancelled
    wait_until(lambda: "stopped" in [one.ending for one in call.attempts()])
    mr.spawn(int).execute()
    assert kind_of(call) is TaskCancelled


def test_what_another_run_wants_is_not_cancelled(gate: Gate, wait_until: WaitUntil) -> None:
    held = gate.hold()
    doomed = mars.execute(held, mr.spawn(str, (held,)), wait=False)
    kept = held.execute(wait=False)
    wait_until(gate.begun)
    assert doomed.cancel()
    gate.open()
    assert kept.result(20).fetch() == 5


def test_an_interrupt_cancels_what_execute_waits_for(ctrl_c: Callable[[float], None]) -> None:
    call = mr.spawn(time.sleep, args=(60,))
    ctrl_c(0.5)
    with pytest.raises(KeyboardInterrupt):
        call.execute()
    assert kind_of(call) is TaskCancelled
    assert mr.spawn(abs, -1).execute().fetch() == 1


@pytest.mark.parametrize("wait", [True, False])
def test_an_event_of_the_program_cancels_a_run(wait: bool) -> None:
    event, call = threading.Event(), mr.spawn(time.sleep, args=(3,))
    threading.Timer(0.3, event.set).start()
    with pytest.raises(concurrent.futures.CancelledError):
        run = call.execute(wait=wait, cancelled=event)
        run.result(20)
    assert kind_of(call) is TaskCancelled


def test_a_run_that_takes_longer_than_its_session_allows_is_cancelled(engine: str) -> None:
    if engine in ("dask", "ray"):
        pytest.skip("each session of its own costs a cluster here")
    session = mars.new_session(engine=engine, n_cpu=1, timeout=0.3, default=False)
    try:
        call = mr.spawn(time.sleep, args=(3,))
        for wait in (True, False):
            with pytest.raises(TimeoutError, match="session's timeout"):
                run = call.execute(session=session, wait=wait)
                run.result(20)
            with pytest.raises(TaskCancelled):
                call.fetch(session=session)
    finally:
        session.stop_server()


def test_cancelled_calls_inside_a_call_say_so() -> None:
    def outer() -> tuple[str, str]:
        first = mr.spawn(time.sleep, args=(0.3,))
        second = mr.spawn(str, (first,))
        event = threading.Event()
        event.set()
        with contextlib.suppress(concurrent.futures.CancelledError):
            mars.execute(first, second, cancelled=event)
        kinds = []
        for call in (first, second):
            try:
                call.fetch()
            except Exception as error:
                kinds.append(type(error).__name__)
        return tuple(kinds)

    assert mr.spawn(outer).execute().fetch() == ("TaskCancelled", "TaskCancelled")
