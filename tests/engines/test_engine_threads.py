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
