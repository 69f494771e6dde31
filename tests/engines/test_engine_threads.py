"""A call's `cpus` are the threads that libraries in it use."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

import mars
import mars.remote as mr

pytest.importorskip("threadpoolctl")
pytest.importorskip("sklearn")
pytest.importorskip("xgboost")


def runnable(work: Callable[[], object]) -> float:
    """How many threads of this process ran or could run while ``work`` ran: the median."""
    counts = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            running = 0
            for thread in os.listdir("/proc/self/task"):
                try:
                    with open(f"/proc/self/task/{thread}/stat") as file:
                        running += file.read().rpartition(")")[2].split()[0] == "R"
                except OSError:  # it has just ended
                    continue
            # The watching thread runs while it looks.
            counts.append(running - 1)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    # Threads on their way to sleep are seen now and then, so the most says little.
    return median(counts)


def fit(family: str) -> tuple[float, str, str]:
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from xgboost import XGBClassifier

    rs = np.random.RandomState(0)
    x, y = rs.rand(4000, 30), rs.randint(0, 3, 4000)
    model = {
        "forest": lambda: RandomForestClassifier(n_estimators=60, n_jobs=-1, random_state=0),
        "boosted": lambda: XGBClassifier(n_estimators=40, n_jobs=-1),
    }[family]()
    count = runnable(lambda: model.fit(x, y))
    return count, os.environ["OMP_NUM_THREADS"], os.environ["LOKY_MAX_CPU_COUNT"]


@pytest.mark.parametrize("family", ["forest", "boosted"])
def test_n_jobs_minus_one_means_the_cpus_of_the_call(engine: str, family: str) -> None:
    if engine == "inline":
        pytest.skip("inline shares its process with the test's own threads")
    for cpus in (1, 2, 1):
        count, openmp, loky = mr.spawn(fit, args=(family,), cpus=cpus).execute().fetch()
        assert (openmp, loky) == (str(cpus), str(cpus))
        assert 0 < count <= cpus


def test_calls_of_two_cpus_do_not_run_beside_others() -> None:
    session = mars.session.get_default_session()
    assert session is not None
    total = session.get_total_n_cpu()

    def mark(path: str, cpus: int) -> None:
        with open(path, "a") as file:
            file.write(f"+{cpus}\n")
        time.sleep(0.02)
        with open(path, "a") as file:
            file.write(f"-{cpus}\n")

    with tempfile.NamedTemporaryFile() as ledger:
        calls = [mr.spawn(mark, args=(ledger.name, 1 + i % 2), cpus=1 + i % 2) for i in range(12)]
        mr.ExecutableTuple(calls).execute()
        held = most = 0
        for line in Path(ledger.name).read_text().splitlines():
            held += int(line)
            most = max(most, held)
    assert 0 < most <= total


def limits() -> tuple[int, dict[str, int]]:
    """The process, and how many threads each library of it uses in a call."""
    import numpy as np
    import sklearn.ensemble  # noqa: F401  # brings OpenMP and another BLAS
    from threadpoolctl import threadpool_info

    np.dot(np.ones((64, 64)), np.ones((64, 64)))
    return os.getpid(), {one["filepath"]: one["num_threads"] for one in threadpool_info()}


def limit(threads: int, inside: str = "") -> int:
    from threadpoolctl import threadpool_limits

    limits()
    if inside == "thread":
        other = threading.Thread(target=threadpool_limits, args=(threads,))
        other.start()
        other.join()
    else:
        threadpool_limits(threads)
    assert inside or set(limits()[1].values()) == {threads}
    return os.getpid()


@pytest.fixture
def one_worker(local_only: None, session: mars.session.Session) -> str:
    """Address of a group; calls that ask for all cores of it have one worker at a time."""
    return session.get_worker_addresses()[0]


@pytest.mark.parametrize("inside", ["", "thread"])
@pytest.mark.parametrize(("cpus", "threads"), [(1, 4), (2, 1)])
def test_thread_limits_that_a_call_sets_end_with_it(
    one_worker: str, cpus: int, threads: int, inside: str
) -> None:
    session = mars.session.get_default_session()
    assert session is not None
    cpus = min(cpus, session.get_total_n_cpu() // len(session.get_worker_addresses()))
    where = {"cpus": cpus, "expect_worker": one_worker}
    spoiled = {mr.spawn(limit, args=(threads, inside), **where).execute().fetch()}
    for _ in range(6):
        pid, found = mr.spawn(limits, **where).execute().fetch()
        assert set(found.values()) == {cpus}, pid in spoiled


def test_thread_limits_that_an_item_of_a_map_sets_end_with_it(local_only: None) -> None:
    def item(number: int) -> set[int]:
        found = set(limits()[1].values())
        if number % 3 == 0:
            limit(4)
        return found

    assert mr.map(item, range(12)).execute().fetch() == [{1}] * 12


def test_thread_limits_that_are_set_past_threadpoolctl_end_with_their_call(
    one_worker: str,
) -> None:
    def openmp() -> tuple[int, int]:
        import ctypes

        library = next(path for path in limits()[1] if "gomp" in path)
        loaded = ctypes.CDLL(library)
        before = loaded.omp_get_max_threads()
        loaded.omp_set_num_threads(7)
        return before, loaded.omp_get_max_threads()

    for _ in range(4):
        assert mr.spawn(openmp, expect_worker=one_worker).execute().fetch() == (1, 7)
