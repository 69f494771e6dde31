"""`mars.Executor` with a session of its own, at the end of programs, and in other libraries."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

import mars
import mars.session


def square(x: float) -> float:
    return x * x


@pytest.fixture(scope="module")
def executor(leak_guard: None) -> Iterator[mars.Executor]:
    with mars.new_session(n_cpu=2, default=False) as session, session.executor() as made:
        yield made


def test_an_executor_of_its_own_ends_with_its_workers(leak_guard: None) -> None:
    with mars.Executor(max_workers=2) as executor:
        large = executor.submit(np.ones, 100_000)
        small = executor.submit(square, 3)
    assert executor.session.closed
    assert mars.session.get_default_session() is None
    assert small.result(0) == 9  # also after the end
    assert large.result(0).sum() == 100_000
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(square, 1)
    executor.shutdown()


def test_a_result_that_is_not_there_in_time_says_what_is_late(
    executor: mars.Executor, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    def wait_for(path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.01)

    end = tmp_path / "end"
    running, waiting, late = (executor.submit(wait_for, str(end)) for _ in range(3))
    with pytest.raises(TimeoutError, match=r"^wait_for has not started after 0\.01 s; it goes on$"):
        late.result(0.01)
    cancelled = executor.submit(wait_for, str(end))
    wait_until(cancelled.cancel)
    with pytest.raises(CancelledError, match="cancelled before it started"):
        cancelled.result()
    end.touch()
    assert [one.result(50) for one in (running, waiting, late)] == [None] * 3


def test_the_default_session_is_used_and_stays_open(leak_guard: None) -> None:
    with mars.new_session(n_cpu=1) as session:
        with mars.Executor() as executor:
            assert executor.session is session
            assert executor._max_workers == 1
        assert not session.closed


def test_a_dropped_executor_ends_once_its_calls_have(
    leak_guard: None, wait_until: Callable[..., None]
) -> None:
    executor = mars.Executor(max_workers=1)
    session, futures = executor.session, [executor.submit(square, i) for i in range(5)]
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    assert [future.result(50) for future in futures] == [0, 1, 4, 9, 16]
    wait_until(lambda: session.closed)


def test_a_program_ends_after_the_calls_of_its_executors(
    script_environment: dict[str, str],
) -> None:
    program = """
import mars
executor = mars.Executor(1)
future = executor.submit(pow, 2, 5)
future.add_done_callback(lambda f: print("called back with", f.result()))
executor.shutdown(wait=False)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], env=script_environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr, ended.returncode) == ("called back with 32\n", "", 0)


def test_scipy_minimizes_with_its_map(executor: mars.Executor) -> None:
    optimize = pytest.importorskip("scipy.optimize")

    def bowl(point: np.ndarray) -> float:
        return float(((point - 3) ** 2).sum())

    found = optimize.differential_evolution(
        bowl, [(-5, 5), (-5, 5)], workers=executor.map, updating="deferred", rng=1, maxiter=5,
        popsize=5,
    )  # fmt: skip
    assert np.allclose(found.x, 3, atol=1e-3)


def test_dask_computes_with_it(executor: mars.Executor) -> None:
    dask = pytest.importorskip("dask")
    total = dask.delayed(sum)([dask.delayed(square)(x) for x in range(10)])
    assert total.compute(scheduler=executor) == 285
