"""Programs with joblib: the backend "mars" beside joblib's own, in one process and in turns."""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import memory
from benchmarks.case import Case, Metrics, Params, seconds_for
from benchmarks.peer import Peer
from benchmarks.turns import in_turns

BACKENDS = ("mars", "loky", "threading")


def run(peer: Peer, params: Params) -> Metrics:
    """Median seconds of each backend; `over_loky` above 1: mars is faster."""
    import joblib

    import mars.joblib  # noqa: F401 (registers the name)

    work, plain = WORK[params["work"]](params, peer.workers)

    def measured(backend: str) -> tuple[float, float]:
        with joblib.parallel_config(backend, n_jobs=peer.workers):
            before = memory.processor_seconds(os.getpid())
            seconds = seconds_for(work)
            return seconds, memory.processor_seconds(os.getpid()) - before

    for backend in BACKENDS:
        measured(backend)  # its processes start, and load what they need
    found: dict[str, list[tuple[float, float]]] = {backend: [] for backend in BACKENDS}
    for backend in in_turns(BACKENDS, params["turns"]):
        found[backend].append(measured(backend))
    wall = {backend: statistics.median(one for one, _ in found[backend]) for backend in BACKENDS}
    busy = {backend: statistics.median(one for _, one in found[backend]) for backend in BACKENDS}
    return {
        "seconds": wall["mars"],
        "over_loky": wall["loky"] / wall["mars"],
        "loky_s": wall["loky"],
        "threads_s": wall["threading"],
        "plain_s": seconds_for(plain),
        "cpu_s": busy["mars"],
        "loky_cpu_s": busy["loky"],
        "threads_cpu_s": busy["threading"],
    }


Work = tuple[Callable[[], object], Callable[[], object]]


def _data(params: Params) -> Any:
    from sklearn.datasets import make_classification

    return make_classification(params["rows"], params["columns"], random_state=0)


def search(params: Params, jobs: int) -> Work:
    """A grid of support vector machines, or of linear models where data are large."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    X, y = _data(params)
    large = params["rows"] > 50_000
    model = SGDClassifier(max_iter=2, tol=None, random_state=0) if large else SVC()
    grid = {"alpha": [1e-5, 1e-4, 1e-3]} if large else {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}
    return (
        lambda: GridSearchCV(model, grid, n_jobs=jobs, cv=3).fit(X, y),
        lambda: GridSearchCV(model, grid, cv=3).fit(X, y),
    )


def forest(params: Params, jobs: int) -> Work:
    """The trees of a forest."""
    from sklearn.ensemble import RandomForestClassifier

    X, y = _data(params)
    return (
        lambda: RandomForestClassifier(params["trees"], n_jobs=jobs, random_state=0).fit(X, y),
        lambda: RandomForestClassifier(params["trees"], random_state=0).fit(X, y),
    )


def short(params: Params, jobs: int) -> Work:
    """Calls that take microseconds, one in a batch."""
    from joblib import Parallel, delayed

    calls = [delayed(abs)(x) for x in range(params["calls"])]
    return (
        lambda: Parallel(n_jobs=jobs, batch_size=1, pre_dispatch="all")(calls),
        lambda: [func(*args, **kwargs) for func, args, kwargs in calls],
    )


def large(params: Params, jobs: int) -> Work:
    """Calls that read one large array."""
    import numpy as np
    from joblib import Parallel, delayed

    array = np.ones(params["mib"] * 2**17)
    calls = [delayed(np.add.reduce)(array) for _ in range(params["calls"])]
    return (
        lambda: Parallel(n_jobs=jobs)(calls),
        lambda: [func(*args, **kwargs) for func, args, kwargs in calls],
    )


WORK: dict[str, Callable[[Params, int], Work]] = {
    "search": search,
    "forest": forest,
    "short": short,
    "large": large,
}

CASE = Case(
    question="How long does a program with joblib take, on mars and on joblib's own backends?",
    metric="seconds",
    better="lower",
    run=run,
    full={
        "GridSearchCV, 2 000 rows": {
            "work": "search", "rows": 2_000, "columns": 20, "turns": 5
        },
        "GridSearchCV, 128 MiB": {
            "work": "search", "rows": 167_772, "columns": 100, "turns": 3
        },
        "RandomForest, 5 000 rows": {
            "work": "forest", "rows": 5_000, "columns": 20, "trees": 100, "turns": 5
        },
        "2 000 short calls": {"work": "short", "calls": 2_000, "turns": 7},
        "20 calls that read 256 MiB": {"work": "large", "mib": 256, "calls": 20, "turns": 5},
    },
    quick={
        "GridSearchCV, 1 000 rows": {"work": "search", "rows": 1_000, "columns": 20, "turns": 3},
        "500 short calls": {"work": "short", "calls": 500, "turns": 3},
        "8 calls that read 32 MiB": {"work": "large", "mib": 32, "calls": 8, "turns": 3},
    },
    tiny={"20 short calls": {"work": "short", "calls": 20, "turns": 1}},
    limit_s=300.0,
    only=("mars",),
    note=(
        "All backends run in one process, in turns, with their workers warm. `over_loky` above 1: "
        "mars is faster than joblib's default backend. `threads_s` is `threading`, `plain_s` one "
        "core without joblib. `cpu_s` is processor time of the program and its workers."
    ),
)  # fmt: skip
