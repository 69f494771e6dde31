"""Calls that spawn calls: the same program text, no deadlock at any width or depth."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mars
import mars.remote as mr
from mars.engines.driver import nested as nested_server


def square(x: int) -> int:
    return x * x


def sum_of_squares(n: int) -> int:
    calls = mr.ExecutableTuple([mr.spawn(square, args=(i,)) for i in range(n)])
    return sum(calls.execute().fetch())


def descend(depth: int) -> int:
    if depth == 0:
        return 1
    return 1 + mr.spawn(descend, args=(depth - 1,)).execute().fetch()


def test_a_call_can_spawn_execute_and_fetch() -> None:
    assert mr.spawn(sum_of_squares, args=(4,)).execute().fetch() == 14


def test_more_drivers_than_cpus_do_not_deadlock() -> None:
    drivers = mr.ExecutableTuple([mr.spawn(sum_of_squares, args=(3,)) for _ in range(6)])
    assert drivers.execute().fetch() == [5] * 6


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_nesting_has_no_depth_at_which_it_stops(depth: int) -> None:
    assert mr.spawn(descend, args=(depth,)).execute().fetch() == depth + 1


def test_nesting_three_deep_with_several_drivers_on_one_cpu_does_not_deadlock(engine: str) -> None:
    narrow = mars.new_session(engine=engine, n_cpu=1, default=False)
    try:
        drivers = mr.ExecutableTuple([mr.spawn(descend, args=(3,)) for _ in range(3)])
        assert drivers.execute(session=narrow).fetch(session=narrow) == [4, 4, 4]
    finally:
        narrow.stop_server()


def test_a_nested_call_may_own_more_cpus_than_are_free() -> None:
    def parent() -> int:
        value: int = mr.spawn(square, args=(3,), cpus=2).execute().fetch()
        return value

    assert mr.ExecutableTuple([mr.spawn(parent) for _ in range(3)]).execute().fetch() == [9] * 3


def test_the_session_inside_a_call_is_the_callers(session: mars.session.Session) -> None:
    def look() -> str:
        found: str = mars.session.get_default_session().session_id
        return found

    assert mr.spawn(look).execute().fetch() == session.session_id


def test_a_nested_failure_comes_out_with_its_own_type_and_frames() -> None:
    def inner() -> None:
        raise KeyError("deep")

    def outer() -> None:
        mr.spawn(inner).execute()

    with pytest.raises(KeyError, match="deep"):
        mr.spawn(outer).execute()


def test_a_nested_failure_can_be_caught_by_the_parent() -> None:
    def inner() -> None:
        raise KeyError("deep")

    def outer() -> str:
        try:
            mr.spawn(inner).execute()
        except KeyError as error:
            return f"caught {error.args[0]}"
        return "nothing"

    assert mr.spawn(outer).execute().fetch() == "caught deep"


def test_nested_continue_gives_the_parent_what_succeeded() -> None:
    def inner(i: int) -> int:
        if i == 1:
            raise ValueError("one")
        return i

    def outer() -> list[int]:
        calls = mr.ExecutableTuple([mr.spawn(inner, args=(i,)) for i in range(3)])
        calls.execute(on_error="continue")
        return [calls[0].fetch(), calls[2].fetch()]

    assert mr.spawn(outer).execute().fetch() == [0, 2]


def test_nested_calls_may_not_wait() -> None:
    def outer() -> int:
        futures = [mr.spawn(square, args=(i,)).execute(wait=False) for i in range(4)]
        return sum(f.result(20).fetch() for f in futures)

    assert mr.spawn(outer).execute().fetch() == 14


def test_nested_map_and_outputs_work() -> None:
    def outer() -> tuple[int, list[int]]:
        outputs = mr.spawn(lambda: (1, 2), n_output=2)
        first = sum(mr.ExecutableTuple(outputs).execute().fetch())
        return first, list(mr.map(square, range(4)).execute().fetch())

    assert mr.spawn(outer).execute().fetch() == (3, [0, 1, 4, 9])


def test_nested_results_may_be_large() -> None:
    def outer() -> int:
        data = mr.spawn(bytes, args=(3_000_000,))
        size: int = mr.spawn(len, args=(data,)).execute().fetch()
        return size

    assert mr.spawn(outer).execute().fetch() == 3_000_000


def test_an_objects_value_given_to_a_parent_can_be_given_to_its_children() -> None:
    def outer(given: list[int]) -> int:
        value: int = mr.spawn(sum, args=(given,)).execute().fetch()
        return value

    source = mr.spawn(lambda: [1, 2, 3])
    assert mr.spawn(outer, args=(source,)).execute().fetch() == 6


def test_children_run_beside_their_waiting_parent(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    def meet(mine: Path, other: Path) -> bool:
        mine.touch()
        pass_gate(other)
        return True

    def parent(a: Path, b: Path) -> list[bool]:
        calls = [mr.spawn(meet, args=(a, b)), mr.spawn(meet, args=(b, a))]
        met: list[bool] = mr.ExecutableTuple(calls).execute().fetch()
        return met

    call = mr.spawn(parent, args=(tmp_path / "a", tmp_path / "b"))
    assert call.execute().fetch() == [True, True]


def test_a_call_after_nested_ones_finds_all_cpus_free(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    def meet(mine: Path, other: Path) -> bool:
        mine.touch()
        pass_gate(other)
        return True

    mr.ExecutableTuple([mr.spawn(descend, args=(2,)) for _ in range(4)]).execute()
    a, b = tmp_path / "a", tmp_path / "b"
    calls = [mr.spawn(meet, args=(a, b)), mr.spawn(meet, args=(b, a))]
    assert mr.ExecutableTuple(calls).execute().fetch() == [True, True]


# -- where too many calls wait for calls already -----------------------------------------------


@pytest.fixture
def no_room(local_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if as many calls as may waited for calls: nested ones run in the worker that asks."""
    monkeypatch.setattr(nested_server, "BLOCKED_WORKERS", 0)


def of_process(_: object = None) -> int:
    return os.getpid()


def test_plain_nested_calls_then_run_in_the_process_that_asks(no_room: None) -> None:
    def outer() -> tuple[int, int]:
        return os.getpid(), mr.spawn(of_process).execute().fetch()

    mine, child = mr.spawn(outer).execute().fetch()
    assert mine == child


def test_a_nested_call_keeps_its_timeout_there_too(no_room: None) -> None:
    def outer() -> str:
        try:
            mr.spawn(time.sleep, args=(40,), timeout=0.5).execute()
        except mars.errors.TaskTimeout:
            return "TaskTimeout"
        return "ran to its end"

    call = mr.spawn(outer)
    call.execute(wait=False).result(30)
    assert call.fetch() == "TaskTimeout"


def test_a_nested_call_keeps_its_memory_and_cpus_there_too(no_room: None) -> None:
    def threads() -> str:
        return os.environ["OMP_NUM_THREADS"]

    def outer() -> tuple[str, str]:
        try:
            mr.spawn(bytearray, args=(1_000_000_000,), memory=100_000_000).execute()
        except MemoryError:
            found = "MemoryError"
        else:
            found = "no limit"
        return found, mr.spawn(threads, cpus=2).execute().fetch()

    assert mr.spawn(outer).execute().fetch() == ("MemoryError", "2")


def test_a_map_runs_there_too(no_room: None) -> None:
    def outer() -> tuple[list[int], int]:
        squares = mr.map(lambda x: x * x, range(5))
        squares.execute()
        return squares.fetch(), mr.spawn(sum, args=([squares[1], squares[2]],)).execute().fetch()

    assert mr.spawn(outer).execute().fetch() == ([0, 1, 4, 9, 16], 5)


@pytest.mark.parametrize("size", [10, 300_000])
@pytest.mark.parametrize("outputs", [None, 2])
def test_what_a_call_made_in_the_process_that_asks_is_an_input_of_one_elsewhere(
    no_room: None, size: int, outputs: int | None
) -> None:
    def make() -> object:
        value = np.arange(size, dtype="f8")
        return value if outputs is None else (value, 2 * value)

    def outer() -> list[float]:
        made = mr.spawn(make, n_output=outputs)
        last = made if outputs is None else made[1]
        found = [mr.spawn(np.sum, args=(last,)).execute().fetch()]  # here
        found += [mr.spawn(np.sum, args=(last,), timeout=60).execute().fetch() for _ in "ab"]
        found.append(mr.spawn(np.sum, args=(last,)).execute().fetch())
        chained = mr.spawn(np.add, args=(mr.spawn(np.sum, args=(last,), timeout=60), 0))
        found.append(chained.execute().fetch())
        found.append(mr.spawn(np.sum, args=(last,)).execute().fetch())
        return [float(one) for one in found]

    total = size * (size - 1) / 2 * (1 if outputs is None else 2)
    assert mr.spawn(outer).execute().fetch() == [total] * 6


def test_more_calls_than_may_ever_wait_are_refused_saying_so(
    no_room: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nested_server, "BLOCKED_WORKERS_AT_MOST", 0)

    def outer() -> str:
        try:
            mr.spawn(abs, args=(-1,), timeout=60).execute()
        except mars.errors.UsageError as error:
            return str(error)
        return ""

    assert "a process of its own" in mr.spawn(outer).execute().fetch()


def test_an_item_of_a_map_inside_a_call_is_an_input_of_another_call() -> None:
    def outer() -> int:
        squares = mr.map(lambda x: x * x, range(5)).execute()
        found: int = mr.spawn(sum, args=([squares[3], squares[4]],)).execute().fetch()
        return found

    assert mr.spawn(outer).execute().fetch() == 25


def test_threads_that_failed_calls_leave_behind_hold_no_cores() -> None:
    def leave(number: int) -> None:
        def ask() -> None:
            for one in range(12):
                try:
                    mr.spawn(square, args=(one,)).execute()
                except BaseException:
                    return  # the call has ended, or its process is ending

        threading.Thread(target=ask, daemon=True).start()
        time.sleep(0.004)  # so that many of them ask after the call has ended
        raise ValueError(number)

    for number in range(8):
        calls = mr.ExecutableTuple([mr.spawn(leave, args=(number,)) for _ in range(4)])
        calls.execute(on_error="continue")
        assert [str(error) for error in calls.errors()] == [str(number)] * 4
        assert mr.spawn(square, args=(number,)).execute().fetch() == number * number


def test_a_thread_that_a_failed_call_leaves_behind_gets_an_answer(
    engine: str, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    def leave(folder: Path) -> None:
        def ask() -> None:
            while not (folder / "ended").exists():
                time.sleep(0.005)
            mr.spawn(Path.touch, args=(folder / "ran",)).execute()
            (folder / "answered").touch()

        threading.Thread(target=ask, daemon=True).start()
        raise ValueError("left")

    narrow = mars.new_session(engine=engine, n_cpu=1, default=False)
    try:
        left = mr.spawn(leave, args=(tmp_path,))
        left.execute(session=narrow, on_error="continue")
        (tmp_path / "ended").touch()
        wait_until((tmp_path / "answered").exists)
        assert (tmp_path / "ran").exists()
        assert mr.spawn(square, args=(3,)).execute(session=narrow).fetch(session=narrow) == 9
    finally:
        narrow.stop_server()
