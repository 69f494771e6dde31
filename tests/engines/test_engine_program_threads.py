"""Threads: of the program that share calls, and of a call that asks for calls."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mars
import mars.remote as mr


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """What ``work`` gives in so many threads at once, or its error."""
    told: list[object] = [None] * count

    def one(index: int) -> None:
        try:
            told[index] = work(index)
        except BaseException as error:
            told[index] = error

    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread waits for ever"
    return told


def test_threads_that_execute_one_call_run_it_once(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"

    def once() -> int:
        note(ledger)
        time.sleep(0.1)
        return 7

    call = mr.spawn(once)
    assert in_threads(4, lambda _: call.execute().fetch()) == [7] * 4
    assert lines(ledger) == ["run"]


def test_threads_whose_calls_share_an_input_make_it_once(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"

    def once() -> int:
        note(ledger)
        time.sleep(0.1)
        return 7

    shared = mr.spawn(once)
    calls = [mr.spawn(lambda x, i=i: x + i, args=(shared,)) for i in range(4)]
    assert in_threads(4, lambda i: calls[i].execute().fetch()) == [7, 8, 9, 10]
    assert lines(ledger) == ["run"]


def test_threads_that_execute_a_call_that_fails_all_have_its_error() -> None:
    def fail() -> None:
        time.sleep(0.1)
        raise LookupError("for all")

    call = mr.spawn(fail)
    told = in_threads(3, lambda _: call.execute())
    assert [type(error) for error in told] == [LookupError] * 3


def test_threads_that_execute_one_map_have_all_its_values() -> None:
    mapped = mr.map(lambda i: i * i, range(50))
    values = [i * i for i in range(50)]
    assert in_threads(3, lambda _: mapped.execute().fetch()) == [values] * 3


def test_the_failure_of_one_threads_run_leaves_the_others_their_calls() -> None:
    def fail() -> None:
        raise LookupError("mine")

    shared = [mr.spawn(abs, -i) for i in range(20)]

    def work(index: int) -> object:
        if index == 0:
            return mars.execute(mr.spawn(fail, priority=5), *shared)
        return sum(mars.fetch(mars.execute(shared)))

    first, *others = in_threads(4, work)
    assert isinstance(first, LookupError)
    assert others == [sum(range(20))] * 3


def test_each_threads_calls_have_their_own_logs() -> None:
    def work(index: int) -> object:
        calls = [mr.spawn(print, args=(f"{index} {i}",)) for i in range(10)]
        mars.execute(calls)
        return [str(call.fetch_log()) for call in calls]

    told = in_threads(4, work)
    assert told == [[f"{index} {i}\n" for i in range(10)] for index in range(4)]


# -- in a call -------------------------------------------------------------------------------


def test_threads_of_a_call_can_ask_for_calls() -> None:
    def outer() -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda i: mr.spawn(abs, -i).execute().fetch(), range(8)))

    assert mr.spawn(outer, timeout=60).execute().fetch() == list(range(8))


@pytest.mark.parametrize("directly", [True, False])
def test_threads_of_a_call_that_share_a_call_run_it_once(
    directly: bool, tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"

    def once() -> int:
        note(ledger)
        time.sleep(0.1)
        return 7

    def outer() -> list[int]:
        shared = mr.spawn(once)
        told: list[int] = []

        def work(i: int) -> None:
            call = shared if directly else mr.spawn(lambda x: x, (shared,))
            told.append(call.execute().fetch())

        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return told

    assert mr.spawn(outer, timeout=60).execute().fetch() == [7, 7, 7]
    assert lines(ledger) == ["run"]


def test_threads_two_deep_can_ask_for_calls() -> None:
    def inner(x: int) -> int:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            parts = [pool.submit(lambda i=i: mr.spawn(abs, -i).to_object()) for i in range(x)]
            return sum(part.result() for part in parts)

    def outer() -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda i: mr.spawn(inner, i).to_object(), range(4)))

    assert mr.spawn(outer, timeout=60).execute().fetch() == [0, 0, 1, 3]


def test_a_thread_of_a_call_has_the_calls_context(session: mars.session.Session) -> None:
    def outer() -> tuple[str, bool]:
        found: list[object] = []

        def look() -> None:
            context = mars.get_context()
            context.set_progress(0.5)
            found.append(context.session_id)
            found.append(mars.session.get_default_session() is context.get_current_session())

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return tuple(found)

    assert mr.spawn(outer).execute().fetch() == (session.session_id, True)


def test_a_thread_that_a_call_left_behind_gets_an_answer(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    def leave(folder: Path) -> None:
        def later() -> None:
            while not (folder / "go").exists():
                time.sleep(0.01)
            try:
                told = str(mr.spawn(abs, -3).execute().fetch())
            except BaseException as error:
                told = type(error).__name__
            (folder / "part").write_text(told)
            (folder / "part").rename(folder / "told")

        threading.Thread(target=later, daemon=True).start()

    mr.spawn(leave, tmp_path).execute()
    (tmp_path / "go").touch()
    wait_until((tmp_path / "told").exists, 20)
    assert (tmp_path / "told").read_text() in ("3", "SessionClosed")


def test_the_program_has_no_context_while_its_calls_run() -> None:
    run = mr.spawn(time.sleep, 0.2).execute(wait=False)
    assert mars.get_context() is None
    told = in_threads(1, lambda _: mars.get_context())
    assert told == [None]
    run.result(20)
