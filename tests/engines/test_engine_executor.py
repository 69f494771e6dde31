"""`session.executor()`: an executor of `concurrent.futures` on every engine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

import mars
import mars.remote as mr
from mars.errors import EncodeError, WorkerDied

WaitUntil = Callable[..., None]
PassGate = Callable[[object], None]


def square(x: int) -> int:
    return x * x


def fail(text: str) -> None:
    raise ValueError(text)


def test_results_and_errors_are_those_of_the_calls(session: mars.Session) -> None:
    with session.executor() as executor:
        assert isinstance(executor, concurrent.futures.Executor)
        future = executor.submit(pow, 2, exp=5)
        assert isinstance(future, mars.CallFuture)
        assert future.result(50) == 32
        assert future.result() is future.result()
        assert future.exception() is None
        assert future.done() and not future.running() and not future.cancel()
        failed = executor.submit(fail, "in a call")
        with pytest.raises(ValueError, match="in a call"):
            failed.result(50)
        assert isinstance(failed.exception(), ValueError)
        offset = 3
        assert executor.submit(lambda x: x + offset, 4).result(50) == 7
    assert not session.closed
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(square, 1)


def test_futures_work_with_the_functions_of_the_standard_library(session: mars.Session) -> None:
    with session.executor() as executor:
        futures = [executor.submit(square, i) for i in range(20)]
        done, left = concurrent.futures.wait(futures, timeout=50)
        assert (len(done), left) == (20, set())
        results = [f.result() for f in concurrent.futures.as_completed(futures, timeout=50)]
        assert sorted(results) == [i * i for i in range(20)]
        failing = executor.submit(fail, "first")
        done, _ = concurrent.futures.wait([failing], 50, concurrent.futures.FIRST_EXCEPTION)
        assert done == {failing}


def test_callbacks_are_called_with_the_future(session: mars.Session, wait_until: WaitUntil) -> None:
    heard: list[object] = []
    with session.executor() as executor:
        future = executor.submit(square, 3)
        future.add_done_callback(lambda f: heard.append(f.result()))
        wait_until(lambda: heard == [9])
        future.add_done_callback(lambda f: heard.append(f))
        assert heard == [9, future]


def test_map_keeps_the_order_in_chunks_and_with_a_buffer(session: mars.Session) -> None:
    with session.executor() as executor:
        expected = [i**3 for i in range(23)]
        assert list(executor.map(pow, range(23), [3] * 30)) == expected
        assert list(executor.map(pow, range(23), [3] * 30, chunksize=5)) == expected
        read: list[int] = []

        def items() -> object:
            for i in range(23):
                read.append(i)
                yield i

        results = executor.map(square, items(), buffersize=4)  # type: ignore[arg-type]
        assert len(read) == 4
        assert next(results) == 0
        assert len(read) == 5
        assert list(results) == [i * i for i in range(1, 23)]
        with pytest.raises(ValueError, match="for item 1"):
            list(executor.map(lambda i: fail(f"for item {i}"), range(1, 4)))
        with pytest.raises(ValueError, match="chunksize must be >= 1"):
            executor.map(square, [1], chunksize=0)
        with pytest.raises(ValueError, match="buffersize must be None or > 0"):
            executor.map(square, [1], buffersize=0)
        assert list(executor.map(square, [])) == []


def test_the_log_of_each_call_can_be_read(session: mars.Session) -> None:
    def speak(text: str) -> None:
        print(text)
        if text == "loud":
            raise RuntimeError

    with session.executor() as executor:
        quiet, loud = executor.submit(speak, "quiet"), executor.submit(speak, "loud")
        assert quiet.exception(50) is None and loud.exception(50) is not None
        assert str(quiet.fetch_log()) == "quiet\n"
        assert list(loud.fetch_log(follow=True)) == ["loud"]
        assert (quiet.log, quiet.log, loud.log) == ("quiet\n", "quiet\n", "loud\n")
        assert [one.ending for one in quiet.attempts()] == ["value"]
        assert [one.ending for one in loud.attempts()] == ["error"]
        times = quiet.times()
        assert times is not None and times.running_s >= 0


def test_large_arguments_and_results_and_what_was_put(session: mars.Session) -> None:
    with session.executor() as executor:
        held = session.put(np.arange(200_000))
        futures = [executor.submit(lambda a, i: a[i:], held, i) for i in (0, 199_990)]
        assert int(futures[0].result(50).sum()) == sum(range(200_000))
        assert len(futures[1].result(50)) == 10
        assert executor.submit(np.sum, np.ones(100_000)).result(50) == 100_000
        described = mr.spawn(square, 5)
        assert executor.submit(square, described).result(50) == 625


def test_what_does_not_pickle_is_the_error_of_its_future(session: mars.Session) -> None:
    with session.executor() as executor:
        bad = executor.submit(square, threading.Lock())  # type: ignore[arg-type]
        assert executor.submit(square, 2).result(50) == 4
        with pytest.raises(EncodeError, match=r"args\[0\]"):
            bad.result(50)


def test_a_call_that_waits_can_be_cancelled_and_then_never_runs(
    session: mars.Session, tmp_path: Path, pass_gate: PassGate, wait_until: WaitUntil
) -> None:
    gate, ran = tmp_path / "gate", tmp_path / "ran"

    def wait_at_gate() -> str:
        pass_gate(gate)
        return "through"

    with session.executor(max_workers=1) as executor:
        first = executor.submit(wait_at_gate)
        wait_until(first.running)
        second = executor.submit(ran.touch)
        assert not second.running() and not second.done()
        heard: list[bool] = []
        second.add_done_callback(lambda f: heard.append(f.cancelled()))
        wait_until(second.cancel)  # at once, or when the worker has given it back
        assert second.cancelled() and heard == [True]
        assert not first.cancel()
        done, _ = concurrent.futures.wait([second], timeout=50)
        assert done == {second}
        with pytest.raises(CancelledError):
            second.result(50)
        third = executor.submit(square, 3)
        gate.touch()
        assert first.result(50) == "through"
        assert third.result(50) == 9
    assert not ran.exists()


def test_shutdown_cancels_what_has_not_started(
    session: mars.Session, tmp_path: Path, pass_gate: PassGate, wait_until: WaitUntil
) -> None:
    gate = tmp_path / "gate"
    executor = session.executor(max_workers=1)
    first = executor.submit(lambda: pass_gate(gate))
    wait_until(first.running)
    waiting = [executor.submit(square, i) for i in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    wait_until(lambda: all(f.cancelled() for f in waiting))
    assert not first.done()
    gate.touch()
    executor.shutdown()
    assert first.result(0) is None


def test_no_more_calls_are_in_flight_than_asked_for(
    session: mars.Session, local_only: None, tmp_path: Path, pass_gate: PassGate,
    wait_until: WaitUntil,
) -> None:  # fmt: skip
    gate, other_gate = tmp_path / "gate", tmp_path / "other"
    began = tmp_path / "began"
    began.mkdir()

    def hold(name: str, gate: Path) -> str:
        (began / name).touch()
        pass_gate(gate)
        return name

    def there() -> set[str]:
        return set(os.listdir(began))

    with session.executor(max_workers=1) as one, session.executor() as other:
        held = [one.submit(hold, f"one{i}", gate) for i in range(3)]
        wait_until(lambda: there() == {"one0"})
        beside = other.submit(hold, "beside", other_gate)
        wait_until(lambda: there() == {"one0", "beside"})  # the second core is not for `one`
        other_gate.touch()
        assert beside.result(50) == "beside"
        assert other.submit(square, 4).result(50) == 16
        assert there() == {"one0", "beside"}
        gate.touch()
        assert [f.result(50) for f in held] == ["one0", "one1", "one2"]


def test_a_death_costs_one_future(session: mars.Session, local_only: None, tmp_path: Path) -> None:
    def die(path: Path) -> None:
        with path.open("a") as file:
            file.write("x")
        print("last words", flush=True)
        os._exit(3)

    with session.executor() as executor:
        dead = executor.submit(die, tmp_path / "starts")
        others = [executor.submit(square, i) for i in range(10)]
        with pytest.raises(BrokenProcessPool) as told:
            dead.result(50)
        assert isinstance(told.value, WorkerDied)
        assert "exit code 3" in str(told.value)
        assert [f.result(50) for f in others] == [i * i for i in range(10)]
        assert str(dead.fetch_log()) == "last words\n"
        assert [one.ending for one in dead.attempts()] == ["died"]
        assert (tmp_path / "starts").read_text() == "x"  # it was started once
        assert executor.submit(square, 7).result(50) == 49


def test_with_idempotent_a_call_survives_its_worker(
    session: mars.Session, local_only: None, tmp_path: Path
) -> None:
    def die_once(path: Path) -> str:
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return "second start"
        os._exit(3)

    with session.executor(idempotent=True) as executor:
        future = executor.submit(die_once, tmp_path / "started")
        assert future.result(50) == "second start"
        assert [one.ending for one in future.attempts()] == ["died", "value"]


prepared: list[int] = []


def prepare(value: int) -> None:
    prepared.append(value)


def what_is_prepared() -> list[int]:
    return prepared


def test_the_initializer_has_prepared_each_worker(session: mars.Session, engine: str) -> None:
    with session.executor(initializer=prepare, initargs=(5,)) as executor:
        results = [executor.submit(what_is_prepared) for _ in range(8)]
        assert all(f.result(50) == [5] for f in results)
        if engine != "inline":
            with pytest.raises(BrokenProcessPool):
                executor.submit(os._exit, 1).result(50)
        assert executor.submit(what_is_prepared).result(50) == [5]


def test_an_initializer_that_raises_breaks_the_executor(
    session: mars.Session, wait_until: WaitUntil
) -> None:
    executor = session.executor(initializer=fail, initargs=("no model here",))
    future = executor.submit(square, 1)
    with pytest.raises(BrokenProcessPool, match="ValueError: no model here"):
        future.result(50)
    with pytest.raises(BrokenProcessPool, match="no model here"):
        executor.submit(square, 2)
    executor.shutdown()
    with session.executor() as other:
        assert other.submit(square, 2).result(50) == 4


def test_asyncio_runs_calls_in_it(session: mars.Session) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with session.executor() as executor:
            first = loop.run_in_executor(executor, square, 3)
            return [await first, await executor.submit(square, 4)]

    assert asyncio.run(main()) == [9, 16]


def test_a_stop_iteration_reaches_who_awaits(session: mars.Session) -> None:
    def stop() -> None:
        raise StopIteration("over")

    async def main(executor: mars.Executor) -> None:
        await asyncio.get_running_loop().run_in_executor(executor, stop)

    with session.executor() as executor, pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(main(executor))


def test_an_executor_inside_a_call_uses_the_session_of_the_call() -> None:
    def outer() -> list[int]:
        with mars.Executor(max_workers=2) as executor:
            return list(executor.map(square, range(5)))

    assert mr.spawn(outer).execute().fetch() == [0, 1, 4, 9, 16]


def test_wrong_arguments_are_refused(session: mars.Session) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        session.executor(max_workers=0)
    with pytest.raises(TypeError, match="max_workers has to be an int"):
        session.executor(max_workers="two")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="initializer must be a callable"):
        session.executor(initializer=1)
    with pytest.raises(ValueError, match="Unexpected kw: colour"):
        session.executor(colour="red")
    with session.executor(cpus=64) as executor, pytest.raises(mars.errors.NoAvailableBand):
        executor.submit(square, 1)
    with session.executor() as executor, pytest.raises(TypeError, match="func has to be callable"):
        executor.submit(3)  # type: ignore[arg-type]


def test_a_manager_of_multiprocessing_can_be_used_in_calls(
    session: mars.Session, local_only: None
) -> None:
    with multiprocessing.Manager() as manager:
        shared = manager.list()
        with session.executor() as executor:
            for future in [executor.submit(shared.append, i) for i in range(4)]:
                future.result(50)
        assert sorted(shared) == [0, 1, 2, 3]
