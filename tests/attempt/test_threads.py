"""The thread budget: n_jobs=-1 inside a call means the call's cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import timeit
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.attempt.threads import VARIABLES, ThreadBudget, environment, interpreter_options

WANTED = {
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "PYTHON_CPU_COUNT",
}

settings_of_users = st.dictionaries(
    st.sampled_from(VARIABLES), st.integers(1, 9).map(str) | st.sampled_from(["", "x", "0", "-1"])
)


@pytest.mark.parametrize(
    ("cpus", "threads"), [(0.1, "1"), (1, "1"), (1.5, "2"), (2, "2"), (8.0, "8")]
)
def test_budget_is_rounded_up_and_at_least_one(cpus: float, threads: str) -> None:
    variables = environment(cpus, {})
    assert set(variables) >= WANTED
    assert {variables[name] for name in VARIABLES} == {threads}


@given(st.floats(0.01, 16), settings_of_users)
def test_no_variable_exceeds_the_budget_or_what_the_user_set(
    cpus: float, user: Mapping[str, str]
) -> None:
    variables = environment(cpus, user)
    for name in VARIABLES:
        assert 1 <= int(variables[name]) <= max(1, -(-cpus // 1))
        if user.get(name, "").isdigit() and int(user[name]) > 0:
            assert int(variables[name]) <= int(user[name])


@given(st.lists(st.floats(0.01, 16), min_size=1), settings_of_users)
def test_a_budget_depends_on_the_user_and_not_on_earlier_budgets(
    history: list[float], user: dict[str, str]
) -> None:
    environ = dict(user)
    for cpus in history:
        environ |= environment(cpus, environ)
    assert environ == user | environment(history[-1], user)


def test_smaller_openmp_number_holds_for_libraries_that_fall_back_to_it() -> None:
    variables = environment(4, {"OMP_NUM_THREADS": "1"})
    assert variables["OPENBLAS_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "1"
    assert variables["LOKY_MAX_CPU_COUNT"] == "4"


def test_number_for_the_outer_level_counts_in_a_list_of_levels() -> None:
    assert environment(4, {"OMP_NUM_THREADS": "2,8"})["OMP_NUM_THREADS"] == "2"
    assert environment(1, {"OMP_NUM_THREADS": "2,8"})["OMP_NUM_THREADS"] == "1"


def test_apply_changes_variables_only_when_the_budget_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (*VARIABLES, "MARS_THREADS_ASKED"):
        monkeypatch.setenv(name, "1")  # so that all of them are put back afterwards
        monkeypatch.delenv(name)
    budget = ThreadBudget(1)
    assert os.environ["LOKY_MAX_CPU_COUNT"] == "1"
    os.environ["LOKY_MAX_CPU_COUNT"] = "7"  # by the user's function
    budget.apply(1)
    assert os.environ["LOKY_MAX_CPU_COUNT"] == "7"
    budget.apply(3)
    assert os.environ["LOKY_MAX_CPU_COUNT"] == os.environ["OMP_NUM_THREADS"] == "3"
    same = min(timeit.repeat(lambda: budget.apply(3), number=10_000, repeat=5)) / 10_000
    assert same < 1e-6, "0.06 us on the reference machine; a call must not notice it"


class Pool:
    """A module with a pool of its own, such as numexpr and torch."""

    def __init__(self, number: int) -> None:
        self.number = number

    def get_num_threads(self) -> int:
        return self.number

    def set_num_threads(self, number: int) -> None:
        self.number = number


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> ThreadBudget:
    for name in (*VARIABLES, "MARS_THREADS_ASKED"):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    return ThreadBudget(2)


@pytest.mark.parametrize("name", ["numexpr", "torch"])
def test_a_pool_of_a_module_that_was_told_another_number_is_told_the_budget(
    monkeypatch: pytest.MonkeyPatch, budget: ThreadBudget, name: str
) -> None:
    pool = Pool(2)
    monkeypatch.setitem(sys.modules, name, pool)  # type: ignore[arg-type]
    assert not budget.differs()
    for number in (1, 5):
        pool.set_num_threads(number)
        assert budget.differs()
        budget.reset()
        assert pool.number == 2 and not budget.differs()
    budget.apply(1)
    assert pool.number == 1 and not budget.differs()


def test_numba_is_not_asked_before_it_has_threads(
    monkeypatch: pytest.MonkeyPatch, budget: ThreadBudget
) -> None:
    pool = Pool(7)
    monkeypatch.setitem(sys.modules, "numba", pool)  # type: ignore[arg-type]
    assert not budget.differs()
    started = type(sys)("numba.np.ufunc.parallel")
    started._is_initialized = True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, started.__name__, started)
    assert budget.differs()


def test_to_ask_libraries_costs_microseconds(budget: ThreadBudget) -> None:
    budget.differs()
    # CPU time: the machine may be busy with something else.
    took = min(timeit.repeat(budget.differs, number=1000, repeat=5, timer=time.process_time)) / 1000
    assert took < 100e-6, "3 us on the reference machine"


# -- real libraries, in a process of their own ------------------------------------------------

COUNT = """
import json, os, sys, threading, time
from mars.attempt.threads import ThreadBudget, environment

def cpu_seconds():
    '''Processor time so far, by thread; those of native libraries are threads, too.'''
    found = {}
    for thread in os.listdir("/proc/self/task"):
        try:
            found[thread] = time.clock_gettime(~int(thread) << 3 | 6)  # its own clock
        except OSError:
            continue  # it has just ended
    return found

def working_threads(work):
    '''Threads that do the work: each has at least a fifth of its processor time.

    How long the threads get a core, and when, is the machine's business. How they share the work
    is not: a thread that only hands out tasks, as joblib has, takes next to nothing.
    '''
    before, after, done = cpu_seconds(), {}, threading.Event()
    def watch():
        while True:  # threads that end take their clocks along
            ended = done.is_set()
            after.update(cpu_seconds())
            if ended:
                return
            done.wait(0.002)
    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    after.pop(str(watcher.native_id), None)
    spent = [seconds - before.get(thread, 0) for thread, seconds in after.items()]
    return sum(seconds >= sum(spent) / 5 for seconds in spent)

def forest():
    from sklearn.ensemble import RandomForestClassifier
    model = RandomForestClassifier(n_estimators=32, n_jobs=-1, random_state=0)
    return lambda: model.fit(X, y)

def boosting():
    from xgboost import XGBClassifier
    model = XGBClassifier(n_estimators=40, n_jobs=-1, max_bin=64)
    return lambda: model.fit(X, y)

def matmul():
    import numpy
    a = numpy.random.default_rng(0).random((700, 700))
    return lambda: [a @ a for _ in range(20)]

def data():
    import numpy
    rng = numpy.random.default_rng(0)
    X = rng.random((6_000, 30))
    return X, (X[:, 0] + X[:, 1] > 1).astype(int)

budgets = json.loads(sys.argv[1])
budget = ThreadBudget(budgets[0])
found = []
for cpus in budgets:
    budget.apply(cpus)
    X, y = data()
    found.append({name: working_threads(globals()[name]()) for name in sys.argv[2:]})
print(json.dumps(found))
"""


def busy(budgets: list[float], *works: str) -> list[dict[str, int]]:
    environ = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environ.pop("MARS_THREADS_ASKED", None)
    environ |= environment(budgets[0], environ)
    done = subprocess.run(
        [sys.executable, *interpreter_options(environ), "-c", COUNT, json.dumps(budgets), *works],
        env=environ,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: list[dict[str, int]] = json.loads(done.stdout)
    return found


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts through /proc")
two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")


@linux
@two_cores
@pytest.mark.parametrize("budgets", [[1.0, 2.0, 1.0], [2.0, 1.0, 2.0]])
def test_models_with_all_jobs_keep_to_the_budget_of_each_call(budgets: list[float]) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("xgboost")
    found = busy(budgets, "forest", "boosting", "matmul")
    for cpus, threads in zip(budgets, found, strict=True):
        assert max(threads.values()) <= cpus, (cpus, threads)
    # The larger budget is really used: a limit of one for ever would be no budget.
    assert {max(threads[name] for threads in found) for name in ("forest", "boosting")} == {2}
