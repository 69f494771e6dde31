"""The thread that runs what belongs to the program: in order, and nothing holds up everything."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from mars import delivery as delivery_module
from mars.delivery import Delivery

WaitUntil = Callable[..., None]


def running() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "mars-delivery"]


@pytest.fixture
def delivery(wait_until: WaitUntil) -> Iterator[Delivery]:
    wait_until(lambda: not running())
    yield Delivery()
    wait_until(lambda: not running())


def test_actions_are_done_in_order_and_the_thread_ends_after_them(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time stands still: no action stalls, however long a busy machine keeps its thread waiting.
    monkeypatch.setattr(delivery_module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    seen: list[int] = []
    done = threading.Event()
    for number in range(1000):
        delivery.put(lambda number=number: seen.append(number))  # type: ignore[misc]
    delivery.put(done.set)
    assert done.wait(10)
    assert seen == list(range(1000))
    assert len(running()) <= 3


def test_one_that_stalls_does_not_hold_up_what_waits_behind_it(delivery: Delivery) -> None:
    gates = [threading.Event() for _ in range(5)]
    reached = threading.Event()
    for gate in gates:
        delivery.put(lambda gate=gate: gate.wait(20))  # type: ignore[misc]
    delivery.put(reached.set)
    assert reached.wait(10)
    for gate in gates:
        gate.set()


def test_what_comes_while_one_stalls_is_done_too(delivery: Delivery) -> None:
    gate, began, reached = threading.Event(), threading.Event(), threading.Event()
    delivery.put(lambda: (began.set(), gate.wait(20)))
    assert began.wait(10)
    delivery.put(reached.set)
    assert reached.wait(10)
    gate.set()


def test_an_action_that_raises_ends_nothing(
    delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def leave() -> None:
        raise SystemExit

    delivery.put(leave)
    delivery.put(done.set)
    assert done.wait(10)
    assert [one.exc_info[0] for one in caplog.records if one.exc_info] == [SystemExit]


def test_where_the_system_refuses_a_thread_who_asks_is_told_so_and_nothing_is_left_to_do(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not delivery.put(lambda: seen.append("refused"))
    done = threading.Event()
    assert delivery.put(done.set)
    assert done.wait(10)
    assert not seen


def test_a_child_that_the_program_forks_delivers_for_itself(wait_until: WaitUntil) -> None:
    began, gate = threading.Event(), threading.Event()
    delivery_module.put(lambda: (began.set(), gate.wait(20)))
    assert began.wait(10)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            done = threading.Event()
            delivery_module.put(done.set)
            os.write(write_end, b"1" if done.wait(10) else b"0")
        finally:
            os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 1) == b"1"
    os.close(read_end)
    os.waitpid(pid, 0)
    gate.set()
