"""Large functions, arguments and values: who writes them, who waits for that, and when they go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import mars
import mars.remote as mr
from mars.engines.driver import nested as nested_server
from mars.engines.wire import arena

MIB = 1024 * 1024
WaitUntil = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    with mars.new_session(n_cpu=2) as session:
        yield session


@pytest.fixture
def store(session: mars.session.Session) -> Any:
    return session.engine.store  # type: ignore[attr-defined]


def large_function(number: int) -> Callable[[], int]:
    """A function whose pickle takes more than a message may hold."""
    numbers = [number] * 1_000_000

    def last() -> int:
        return numbers[-1]

    return last


def test_large_functions_are_given_back_once_the_program_has_them_no_more(
    store: Any, session: mars.session.Session, wait_until: WaitUntil
) -> None:
    held = mr.spawn(large_function(-1)).execute()
    for number in range(6):
        assert mr.spawn(large_function(number)).execute().fetch() == number
        assert mr.spawn(large_function(-1)).execute().fetch() == -1
    # The one that the program has, and the last one that it had, in case it is made again.
    wait_until(lambda: len(store._functions) <= 2)
    wait_until(lambda: sum(one.length for one in store._regions.values()) < 8 * MIB)
    del held
    wait_until(lambda: len(store._functions) == 1)
    loop = session.engine.loop  # type: ignore[attr-defined]
    known = set(loop.dispatch.functions.values())
    assert all(member.functions <= known for member in list(loop.members.values()))
    assert mr.spawn(large_function(-1)).execute().fetch() == -1


def test_of_equal_large_functions_the_last_one_counts() -> None:
    calls = [mr.spawn(large_function(7)) for _ in range(3)]
    for round_ in range(3):
        runs = [call.execute(wait=False) for call in calls]
        assert [run.result(20).fetch() for run in runs] == [7, 7, 7]
        del runs
        calls[round_] = mr.spawn(large_function(7))


def test_a_call_inside_a_call_may_have_a_large_function_too() -> None:
    def outer(number: int) -> int:
        found: int = mr.spawn(large_function(number)).execute().fetch()
        return found

    assert mr.ExecutableTuple([mr.spawn(outer, args=(i,)) for i in range(4)]).execute().fetch() == [
        0,
        1,
        2,
        3,
    ]


def test_large_arguments_of_nested_calls_that_run_where_they_are_asked_for_are_given_back(
    store: Any, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(nested_server, "BLOCKED_WORKERS", 0)

    def outer() -> int:
        total = 0
        for _ in range(10):
            array = np.ones(MIB)
            total += int(mr.spawn(np.sum, args=(array,)).execute().fetch())
        return total

    before, held = len(store._regions), store.ledger.total()
    assert mr.spawn(outer).execute().fetch() == 10 * MIB
    wait_until(lambda: len(store._regions) <= before)
    # Each was written where one before had been.
    assert store.ledger.total() - held < 5 * 8 * MIB


def test_the_engine_s_thread_writes_no_large_part_of_a_call(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.ones(MIB)
    writers = set()
    put = store._own.put

    def noted(*arguments: Any) -> Any:
        writers.add(threading.current_thread().name)
        return put(*arguments)

    monkeypatch.setattr(store._own, "put", noted)
    assert mr.spawn(np.sum, args=(array,)).execute().fetch() == MIB
    assert mr.spawn(lambda: array.sum()).execute().fetch() == MIB
    assert mr.spawn(large_function(5)).execute().fetch() == 5
    assert writers == {"MainThread"}


class Slow:
    """Holds up one thread in a function of `arena`, as a slow disk or machine does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        function = getattr(arena, name)
        self.reached, self.gate = threading.Event(), threading.Event()
        self._first = threading.Lock()

        def slow(*arguments: Any) -> Any:
            if self._first.acquire(blocking=False):
                self.reached.set()
                assert self.gate.wait(30)
            return function(*arguments)

        monkeypatch.setattr(arena, name, slow)


def others_go_on() -> None:
    """What has to do with large values and needs the store."""
    made = mr.spawn(np.ones, args=(MIB,)).execute()
    assert made.fetch().sum() == MIB
    assert mr.spawn(np.sum, args=(np.ones(MIB),)).execute().fetch() == MIB
    assert mr.spawn(np.sum, args=(made,)).execute().fetch() == MIB


def test_while_a_large_argument_is_written_all_other_calls_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow(monkeypatch, "_write_all")
    found: list[Any] = []
    array = np.ones(MIB)
    thread = threading.Thread(
        target=lambda: found.append(mr.spawn(np.sum, args=(array,)).execute().fetch())
    )
    thread.start()
    assert slow.reached.wait(20)
    others_go_on()
    slow.gate.set()
    thread.join(20)
    assert found == [MIB]


def test_while_a_large_value_is_copied_all_other_calls_go_on(
    monkeypatch: pytest.MonkeyPatch, store: Any, wait_until: WaitUntil
) -> None:
    made = mr.spawn(np.ones, args=(MIB,)).execute()
    first = made.fetch()  # as long as it is there, the next one is a copy
    slow = Slow(monkeypatch, "_copy_of")
    found: list[Any] = []
    value = made.call.task.result  # type: ignore[union-attr]
    thread = threading.Thread(target=lambda: found.append(store.decode(value)))
    thread.start()
    assert slow.reached.wait(20)
    del made, first  # nobody else reads it, and yet it must not be written again
    others_go_on()
    many = mr.ExecutableTuple([mr.spawn(np.zeros, args=(MIB,)) for _ in range(4)]).execute()
    assert [one.sum() for one in many.fetch()] == [0] * 4
    slow.gate.set()
    thread.join(20)
    assert found[0].sum() == MIB
    del many
    found.clear()
    wait_until(lambda: not [one for one in store._regions.values() if one.length >= 8 * MIB])


def test_a_session_that_ends_while_an_argument_is_written_leaves_no_file_open(
    monkeypatch: pytest.MonkeyPatch, session: mars.session.Session
) -> None:
    slow = Slow(monkeypatch, "_write_all")
    other = mars.new_session(n_cpu=1, default=False)
    found: list[BaseException] = []

    def execute() -> None:
        try:
            mr.spawn(np.sum, args=(np.ones(MIB),)).execute(session=other)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    assert slow.reached.wait(20)
    other.stop_server()
    slow.gate.set()
    thread.join(20)
    assert isinstance(found[0], mars.errors.SessionClosed)
