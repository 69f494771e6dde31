"""Twelve programs of a data scientist, each on mars and on what else people use for it.

`benchmarks.newcomer` runs each of them in a process of its own, as
``python -m benchmarks.newcomer_programs 8 mars 500``. So the functions are in ``__main__``, as
those of a script are.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mars
import mars.remote as mr

CORES: Final = 2
OURS: Final = "mars"

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Program:
    """One program. Each way takes how much there is to do, makes inputs, and returns the work."""

    number: int
    name: str
    full: int
    tiny: int
    ways: Mapping[str, Callable[[int], Work]]
    goals: Sequence[str] = ("joblib",)
    """The peers that mars should not be behind."""
    needs: Sequence[str] = ("numpy", "joblib")


def parallel(calls: Iterable[object], **options: object) -> Any:
    """The calls on joblib's processes."""
    import joblib

    return joblib.Parallel(n_jobs=CORES, **options)(calls)


def later(function: Callable[..., object]) -> Any:
    """A call for joblib."""
    import joblib

    return joblib.delayed(function)


# -- 1 and 2: models ------------------------------------------------------------------------------


def table(rows: int) -> Any:
    """Numbers with classes that can be learned."""
    from sklearn.datasets import make_classification

    return make_classification(rows, 30, n_informative=12, n_classes=4, random_state=0)


Candidates = list[tuple[str, Mapping[str, object]]]


def candidates() -> Candidates:
    """18 models of three families."""
    forests: Candidates = [
        ("RandomForestClassifier", {"n_estimators": 60, "max_depth": depth, "max_features": part})
        for depth in (4, 8, 16)
        for part in (0.2, 0.5)
    ]
    linear: Candidates = [
        ("LogisticRegression", {"C": c, "max_iter": 300}) for c in (0.01, 0.1, 1, 3, 10, 30)
    ]
    boosted: Candidates = [
        ("HistGradientBoostingClassifier", {"max_iter": 25, "max_leaf_nodes": leaves})
        for leaves in (7, 11, 15, 21, 31, 41)
    ]
    return [*forests, *linear, *boosted]


def score(kind: str, options: Mapping[str, object], x: Any, y: Any, fold: int = 0) -> float:
    """Accuracy of a model on the rows of one fold of five."""
    import numpy as np
    from sklearn import ensemble, linear_model

    model = getattr(ensemble, kind, None) or getattr(linear_model, kind)
    seed = {} if kind == "LogisticRegression" else {"random_state": 0}
    test = np.arange(len(y)) % 5 == fold
    fitted = model(**options, **seed).fit(x[~test], y[~test])
    return round(float(fitted.score(x[test], y[test])), 3)


def search_mars(rows: int) -> Work:
    """The best so far is known as results come."""
    x, y = table(rows)

    def work() -> float:
        best = 0.0
        calls = [mr.spawn(score, args=(kind, how, x, y)) for kind, how in candidates()]
        for done in mars.as_completed(calls):
            best = max(best, done.fetch())
        return best

    return work


def search_joblib(rows: int) -> Work:
    """The same with an unordered generator."""
    x, y = table(rows)

    def work() -> float:
        calls = (later(score)(kind, how, x, y) for kind, how in candidates())
        best = 0.0
        for found in parallel(calls, return_as="generator_unordered"):
            best = max(best, found)
        return best

    return work


def search_loop(rows: int) -> Work:
    """One model after the other, with the threads that the models start."""
    x, y = table(rows)
    return lambda: max(score(kind, how, x, y) for kind, how in candidates())


def folds() -> list[tuple[str, Mapping[str, object], int]]:
    """Seven models, each on five folds."""
    return [(kind, how, fold) for kind, how in candidates()[::3] for fold in range(5)] + [
        ("ExtraTreesClassifier", {"n_estimators": 60}, fold) for fold in range(5)
    ]


def folds_mars(rows: int) -> Work:
    """All models on all folds."""
    x, y = table(rows)

    def work() -> list[float]:
        calls = [mr.spawn(score, args=(kind, how, x, y, fold)) for kind, how, fold in folds()]
        return list(mr.ExecutableTuple(calls).execute().fetch())

    return work


def folds_joblib(rows: int) -> Work:
    """All models on all folds."""
    x, y = table(rows)
    return lambda: parallel(later(score)(kind, how, x, y, fold) for kind, how, fold in folds())


# -- 3 and 6: many small pieces with random numbers -----------------------------------------------


def resample(seed: int) -> float:
    """One piece of a bootstrap."""
    import numpy as np

    sample = np.arange(1_000.0)
    return float(np.random.default_rng(seed).choice(sample, 1_000).mean())


def bootstrap_mars(count: int) -> Work:
    """A map."""
    return lambda: round(statistics.stdev(mr.map(resample, range(count)).execute().fetch()), 6)


def bootstrap_joblib(count: int) -> Work:
    """The same; joblib puts small calls together by itself."""
    return lambda: round(statistics.stdev(parallel(map(later(resample), range(count)))), 6)


def bootstrap_loop(count: int) -> Work:
    """A loop."""
    return lambda: round(statistics.stdev(map(resample, range(count))), 6)


def inside(seed: int, points: int = 2_000_000) -> int:
    """How many points lie in the circle."""
    import numpy as np

    x, y = np.random.default_rng(seed).random((2, points))
    return int((x * x + y * y < 1).sum())


def pi_mars(count: int) -> Work:
    """Monte Carlo, a seed for each call."""
    return lambda: sum(mr.map(inside, range(count)).execute().fetch())


def pi_joblib(count: int) -> Work:
    """The same."""
    return lambda: sum(parallel(map(later(inside), range(count))))


# -- 4 and 5: files -------------------------------------------------------------------------------


def folder() -> Path:
    """A folder that goes with the run's process."""
    return Path(tempfile.mkdtemp(dir=os.environ["MARS_NEWCOMER_FOLDER"]))


def tables(count: int) -> list[str]:
    """CSV files of 20 000 rows. All but the first are links to one file."""
    import numpy as np

    where = folder()
    numbers = np.random.default_rng(0)
    lines = [
        f"{k},{v:.6f}"
        for k, v in zip(numbers.integers(0, 50, 20_000), numbers.random(20_000), strict=True)
    ]
    first = where / "0.csv"
    first.write_text("k,v\n" + "\n".join(lines) + "\n")
    for number in range(1, count):
        os.link(first, where / f"{number}.csv")
    return [str(where / f"{number}.csv") for number in range(count)]


def by_key(path: str) -> Any:
    """A small frame from a file."""
    import pandas as pd

    return pd.read_csv(path).groupby("k")["v"].sum()


def frame_mars(count: int) -> Work:
    """A call for each file."""
    import pandas as pd

    paths = tables(count)
    return lambda: round(float(pd.concat(mr.map(by_key, paths).execute().fetch()).sum()), 3)


def frame_joblib(count: int) -> Work:
    """A call for each file."""
    import pandas as pd

    paths = tables(count)
    return lambda: round(float(pd.concat(parallel(map(later(by_key), paths))).sum()), 3)


WORD: Final = re.compile(r"\b[a-z]+tion\b")


def words(part: tuple[str, int, int]) -> int:
    """How often a pattern is in a part of a file."""
    path, start, size = part
    with open(path, "rb") as file:
        file.seek(start)
        return len(WORD.findall(file.read(size).decode()))


def parts(mib: int) -> list[tuple[str, int, int]]:
    """Parts of 4 MiB of a text file of some MiB."""
    path = folder() / "text"
    line = b"the station of a nation asks a question and has no other notion ...\n"
    block = (line * (4 * 2**20 // len(line) + 1))[: 4 * 2**20]
    with path.open("wb") as file:
        for _ in range(max(1, mib // 4)):
            file.write(block)
    return [(str(path), start, len(block)) for start in range(0, path.stat().st_size, len(block))]


def words_mars(mib: int) -> Work:
    """A call for each part."""
    wanted = parts(mib)
    return lambda: sum(mr.map(words, wanted).execute().fetch())


def words_joblib(mib: int) -> Work:
    """A call for each part."""
    wanted = parts(mib)
    return lambda: sum(parallel(map(later(words), wanted)))


def words_pool(mib: int) -> Work:
    """The standard pool."""
    import multiprocessing

    wanted = parts(mib)

    def work() -> int:
        with multiprocessing.get_context("fork").Pool(CORES) as pool:
            return sum(pool.imap_unordered(words, wanted))

    return work


# -- 7: a search that learns from what it has found -----------------------------------------------


def loss(rate: float, leaves: int, rows: int) -> float:
    """What a LightGBM model misses."""
    import lightgbm

    x, y = table(rows)
    half = rows // 2
    model = lightgbm.LGBMClassifier(
        learning_rate=rate, num_leaves=leaves, n_estimators=30, verbose=-1, random_state=0
    )
    return 1 - float(model.fit(x[:half], y[:half]).score(x[half:], y[half:]))


def _asked(trial: Any) -> tuple[float, int]:
    return trial.suggest_float("rate", 0.01, 0.3, log=True), trial.suggest_int("leaves", 4, 48)


def study() -> Any:
    """A study of optuna that says nothing."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))


def optuna_mars(trials: int) -> Work:
    """Ask and tell: a new trial starts when one has ended."""

    def work() -> int:
        mine = study()
        asked = {}

        def calls() -> Iterator[Any]:
            for _ in range(trials):
                trial = mine.ask()
                call = mr.spawn(loss, args=(*_asked(trial), 2_000), name=f"trial {trial.number}")
                asked[call.key] = trial
                yield call

        for done in mars.as_completed(calls(), window=CORES):
            mine.tell(asked[done.key], done.fetch())
        return len(mine.trials)

    return work


def optuna_own(trials: int) -> Work:
    """Threads that optuna starts."""

    def work() -> int:
        mine = study()
        mine.optimize(lambda trial: loss(*_asked(trial), 2_000), n_trials=trials, n_jobs=CORES)
        return len(mine.trials)

    return work


# -- 8: large results, read one by one ------------------------------------------------------------


def large(seed: int) -> Any:
    """4 MiB of numbers."""
    import numpy as np

    array = np.random.default_rng(seed).standard_normal(2**19)
    return np.sqrt(np.abs(array, out=array), out=array)


def large_mars(count: int) -> Work:
    """Values are freed as the loop goes on."""

    def work() -> float:
        calls = (mr.spawn(large, args=(seed,)) for seed in range(count))
        return round(sum(float(o.fetch().sum()) for o in mars.as_completed(calls, window=8)), 2)

    return work


def large_joblib(count: int) -> Work:
    """A generator that holds few results."""
    calls = map(later(large), range(count))
    return lambda: round(
        sum(float(a.sum()) for a in parallel(calls, return_as="generator_unordered")), 2
    )


def large_threads(count: int) -> Work:
    """Threads, of which at most 8 are ahead of the loop."""

    def work() -> float:
        total = 0.0
        with ThreadPoolExecutor(CORES) as pool:
            ahead = [pool.submit(large, seed) for seed in range(min(8, count))]
            for seed in range(len(ahead), count + len(ahead)):
                total += float(ahead.pop(0).result().sum())
                if seed < count:
                    ahead.append(pool.submit(large, seed))
        return round(total, 2)

    return work


# -- 9: calls that wait ---------------------------------------------------------------------------


def waits(number: int) -> int:
    """Wait for a server that fails once for each twentieth page."""
    time.sleep(0.6)
    mark = Path(os.environ["MARS_NEWCOMER_FOLDER"], f"asked-{number}")
    if number % 20 == 0 and not mark.exists():
        mark.touch()
        raise ConnectionError(number)
    return number


def waits_twice(number: int) -> int:
    """Retries by hand."""
    try:
        return waits(number)
    except ConnectionError:
        return waits(number)


def waits_mars(count: int) -> Work:
    """A map in threads, with retries."""
    return lambda: sum(
        mr.map(waits, range(count), threads=50, retries=1, retry_on=ConnectionError)
        .execute()
        .fetch()
    )


def waits_threads(count: int) -> Work:
    """The standard pool of threads."""

    def work() -> int:
        with ThreadPoolExecutor(50) as pool:
            return sum(pool.map(waits_twice, range(count)))

    return work


# -- 10: a simulation that writes -----------------------------------------------------------------


def walk(seed: int) -> float:
    """A random walk in Python with a log."""
    import random

    place, chance = 0.0, random.Random(seed)
    for step in range(400_000):
        place += chance.random() - 0.5
        if step % 40_000 == 0:
            logging.getLogger("walk").warning("walk %d is at %.3f after %d", seed, place, step)
    return round(place, 6)


def walks_mars(count: int) -> Work:
    """Each walk has a log of its own."""
    return lambda: mr.map(walk, range(count)).execute().fetch()


def walks_joblib(count: int) -> Work:
    """All walks write to the terminal."""
    return lambda: parallel(map(later(walk), range(count)))


# -- 11: stages whose results are kept ------------------------------------------------------------


def clean(number: int) -> list[int]:
    """The first stage."""
    return sorted((number * 7_919 * i) % 100_003 for i in range(150_000))


def feature(rows: list[int]) -> int:
    """The second stage."""
    return sum(a * b % 97 for a, b in itertools.pairwise(rows))


def total(features: list[int]) -> int:
    """The third stage."""
    return sum(features)


def stages_mars(count: int) -> Work:
    """Run, and run again: the second time all is there."""
    where = folder()

    def once() -> int:
        features = [
            mr.spawn(feature, args=(mr.spawn(clean, args=(number,)),)) for number in range(count)
        ]
        return int(mr.spawn(total, args=(features,)).execute(checkpoint=where).fetch())

    return lambda: (once(), once())


def stages_joblib(count: int) -> Work:
    """The same with joblib.Memory."""
    import joblib

    kept = joblib.Memory(folder(), verbose=0)

    def once() -> int:
        cleaned = parallel(map(later(kept.cache(clean)), range(count)))
        return int(kept.cache(total)(parallel(map(later(kept.cache(feature)), cleaned))))

    return lambda: (once(), once())


# -- 12: PyTorch ----------------------------------------------------------------------------------


def trained(seed: int) -> float:
    """The loss of a small network after some steps."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    x = torch.randn(4_000, 32)
    y = x[:, :1] * x[:, 1:2]
    net = torch.nn.Sequential(torch.nn.Linear(32, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1))
    steps = torch.optim.Adam(net.parameters(), 1e-3)
    missed = 0.0
    for step in range(200):
        steps.zero_grad()
        error = torch.nn.functional.mse_loss(net(x), y)
        error.backward()
        steps.step()
        missed = round(float(error), 4)
        if step % 50 == 0:
            print(f"step {step}: {missed}")
    return missed


def torch_mars(count: int) -> Work:
    """A call for each seed."""
    return lambda: mr.map(trained, range(count)).execute().fetch()


def torch_joblib(count: int) -> Work:
    """The same."""
    return lambda: parallel(map(later(trained), range(count)))


_ML: Final = ("numpy", "joblib", "sklearn")
PROGRAMS: Final = (
    Program(1, "search of 18 models, the best so far", 8_000, 300, {
        OURS: search_mars, "joblib": search_joblib, "loop": search_loop}, needs=_ML),
    Program(2, "7 models on 5 folds", 4_000, 300, {
        OURS: folds_mars, "joblib": folds_joblib}, needs=_ML),
    Program(3, "bootstrap", 10_000, 40, {
        OURS: bootstrap_mars, "joblib": bootstrap_joblib, "loop": bootstrap_loop}),
    Program(4, "CSV files to one frame", 200, 4, {
        OURS: frame_mars, "joblib": frame_joblib}, needs=("pandas", "joblib")),
    Program(5, "a pattern in a text", 512, 8, {
        OURS: words_mars, "joblib": words_joblib, "Pool": words_pool}),
    Program(6, "Monte Carlo", 60, 3, {OURS: pi_mars, "joblib": pi_joblib}),
    Program(7, "optuna with LightGBM", 30, 3, {
        OURS: optuna_mars, "optuna's threads": optuna_own},
        goals=(), needs=("optuna", "lightgbm", "sklearn")),
    Program(8, "500 arrays of 4 MiB, one by one", 500, 10, {
        OURS: large_mars, "joblib": large_joblib, "threads": large_threads},
        goals=("joblib", "threads")),
    Program(9, "400 calls that wait, 50 at a time", 400, 25, {
        OURS: waits_mars, "threads": waits_threads}, goals=("threads",), needs=()),
    Program(10, "a simulation with a log", 40, 3, {OURS: walks_mars, "joblib": walks_joblib}),
    Program(11, "three stages, kept and run again", 24, 3, {
        OURS: stages_mars, "joblib": stages_joblib}),
    Program(12, "PyTorch, 8 seeds", 8, 2, {
        OURS: torch_mars, "joblib": torch_joblib}, needs=("torch", "joblib")),
)  # fmt: skip


# -- one run, in a process of its own -------------------------------------------------------------


def one(number: int, system: str, size: int) -> None:
    """Run a program here; the answer and its seconds go to the file that the runner has named."""
    warnings.simplefilter("ignore")
    program = next(one for one in PROGRAMS if one.number == number)
    work = program.ways[system](size)
    begin = time.perf_counter()
    if system == OURS:
        mars.new_session(n_cpu=CORES)
    answer = work()
    told = {"seconds": time.perf_counter() - begin, "answer": repr(answer)}
    Path(os.environ["MARS_NEWCOMER_FOLDER"], "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    one(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
