"""A search over 36 models of three families: a plain loop, then the same functions spawned.

Run it::

    python examples/model_search.py --rows 8_000            # as in `make demo`
    python examples/model_search.py                         # all 61 878 rows
    python examples/model_search.py --csv otto/train.csv    # the real data set, from Kaggle
    python examples/model_search.py --address http://10.0.0.1:7104    # on a cluster
    python examples/model_search.py --rows 8_000 --skip-serial --web  # watch it in the browser
    python examples/model_search.py --csv s3://bucket/train.csv --storage keys.json

In the last one the data is at a URL, and ``keys.json`` has what opens it, such as
``{"s3": {"key": "…", "secret": "…", "endpoint_url": "…"}}``. It needs fsspec and s3fs.

On a cluster every host needs scikit-learn and xgboost (``mars-remote[ml]``), and ``--csv`` has to
name a URL, or a file that is there on all of them; the plain loop runs where the program runs.

On two cores the first takes about a minute and a half, the second about ten minutes: it grows
36 models of up to 1.5 GB each, so have 12 GB of memory.

18 random forests, 6 logistic regressions and 12 XGBoost models learn to sort products into nine
classes. The plain loop gives every model all cores (``n_jobs=-1``), one model after the other. The
spawned run trains as many models at once as there are cores: there ``n_jobs=-1`` means the one
core that a call owns. Each call's training log is at hand, and the models come back as objects.

What differs from programs of 2020, when this search was first shown with Mars:

- scikit-learn: ``penalty="none"`` became ``penalty=None`` in 1.2, and since 1.8 even that is
  spelled ``C=np.inf``. The grid says ``penalty=None``; `train_logistic_regression` gives ``C``,
  which every version takes. It gives no ``n_jobs``, which has no effect with this solver.
- XGBoost has no ``criterion``; ``max_depth`` and ``learning_rate`` are searched in its place.
- The package is ``xgboost-cpu`` (imported as ``xgboost``, too): the plain wheel drags in 900 MB of
  GPU libraries.
- Seeds are fixed, so that the two runs can be compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias, cast

# Threads of OpenMP wait for each other by spinning, which on a machine that does other things,
# too, makes the serial run many times slower. Read when the library is loaded, so set before.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from xgboost import XGBClassifier

import mars
import mars.remote as mr

Features: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]
Split: TypeAlias = tuple[Features, Features, Labels, Labels]  # X train, X test, y train, y test
Params: TypeAlias = dict[str, object]


class Model(Protocol):
    """What the search needs of a fitted classifier."""

    def score(self, X: Features, y: Labels) -> float:
        """Return the share of rows put into the right class."""


Trained: TypeAlias = tuple[Model, float]  # the fitted model, its accuracy on the test rows
Train: TypeAlias = Callable[..., Trained]
Candidate: TypeAlias = tuple[str, Train, Params]
Storage: TypeAlias = dict[str, dict[str, object]]  # what opens URLs, by protocol

# The Otto data set of Kaggle: rows, features, and how many products each class has there.
ROWS = 61_878
FEATURES = 93
CLASS_SIZES = (1_929, 16_122, 8_004, 2_691, 2_739, 14_135, 2_839, 8_464, 4_955)

# The plain loop computes with more threads than a call does. That changes the order of sums in a
# logistic regression, and so its last digits; forests and XGBoost give the same on any number.
TOLERANCE = 0.01


# --- data ---------------------------------------------------------------------------------------


def otto_shaped(rows: int) -> tuple[Features, Labels]:
    """Make counts that look like Otto's: sparse, heavy-tailed, nine classes of unequal size.

    Each class has four kinds of products, and each kind its own rate per feature. So a class is not
    one cloud: trees find more in it than a linear model does, as in the real data.
    """
    rng = np.random.default_rng(2020)
    sizes = np.array(CLASS_SIZES)
    y = rng.choice(len(sizes), size=rows, p=sizes / sizes.sum()).astype(np.int64)
    kinds = 4
    base = rng.gamma(0.25, 2.0, size=FEATURES)
    by_class = rng.lognormal(0.0, 0.4, size=(len(sizes), 1, FEATURES))
    by_kind = rng.lognormal(0.0, 1.3, size=(len(sizes), kinds, FEATURES))
    rates = (base * by_class * by_kind)[y, rng.integers(kinds, size=rows)]
    counts = rng.poisson(rates * rng.gamma(0.5, 2.0, size=rates.shape))
    return counts.astype(np.float32), y


def read_csv(path: str, storage: Storage) -> tuple[Features, Labels]:
    """Read Otto's ``train.csv``: an id, 93 counts, and a class named ``Class_1`` to ``Class_9``.

    It may be at a URL. In a call the session has given what opens it.
    """
    with mr.open(path, "r", encoding="utf-8", **storage) if "://" in path else open(path) as file:
        table = np.loadtxt(
            file,
            delimiter=",",
            skiprows=1,
            dtype=np.float32,
            converters={FEATURES + 1: lambda name: float(str(name).strip().strip('"')[-1]) - 1},
        )
    return table[:, 1 : FEATURES + 1], table[:, FEATURES + 1].astype(np.int64)


def gen_data(csv: str | None, rows: int | None, storage: Storage | None = None) -> Split:
    """Load or make the data, and split it: two thirds to train on, one third to test with."""
    if csv is None:
        X, y = otto_shaped(ROWS if rows is None else rows)
    else:
        X, y = read_csv(csv, storage or {})
        if rows is not None:
            # The file is sorted by class, so its first rows would hold only some of the classes.
            chosen = np.random.default_rng(2020).permutation(len(y))[:rows]
            X, y = X[chosen], y[chosen]
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.33, random_state=123, stratify=y
    )
    return X_train, X_test, y_train, y_test


# --- three families of models -------------------------------------------------------------------


def train_random_forest(
    X_train: Features,
    X_test: Features,
    y_train: Labels,
    y_test: Labels,
    verbose: bool = True,
    **params: object,
) -> Trained:
    """Train one random forest; a line per tree goes to the log."""
    model = RandomForestClassifier(
        n_jobs=-1, random_state=123, verbose=2 if verbose else 0, **params
    )
    model.fit(X_train, y_train)
    model.verbose = 0
    return model, model.score(X_test, y_test)


def train_logistic_regression(
    X_train: Features,
    X_test: Features,
    y_train: Labels,
    y_test: Labels,
    verbose: bool = True,
    penalty: str | None = "l2",
    max_iter: int = 100,
) -> Trained:
    """Train one logistic regression; scikit-learn's advice on convergence goes to the log."""
    model = LogisticRegression(C=np.inf if penalty is None else 1.0, max_iter=max_iter)
    model.fit(X_train, y_train)
    accuracy = model.score(X_test, y_test)
    if verbose:
        print(f"{int(model.n_iter_[0])} of {max_iter} iterations, accuracy {accuracy:.4f}")
    return model, accuracy


def train_xgboost(
    X_train: Features,
    X_test: Features,
    y_train: Labels,
    y_test: Labels,
    verbose: bool = True,
    **params: object,
) -> Trained:
    """Train one XGBoost model; its loss on the test rows goes to the log after each round."""
    model = XGBClassifier(n_jobs=-1, random_state=123, **params)
    model.fit(X_train, y_train, eval_set=[(X_test, y_test)], verbose=verbose)
    return model, float(model.score(X_test, y_test))


def candidates(trees_scale: float) -> list[Candidate]:
    """List the 36 models to train: a name, the function that trains it, and its parameters."""

    def scaled(counts: Iterable[int]) -> list[int]:
        return [max(1, round(count * trees_scale)) for count in counts]

    families: list[tuple[str, Train, dict[str, Sequence[object]]]] = [
        (
            "random forest",
            train_random_forest,
            {
                "n_estimators": scaled([50, 100, 600]),
                "max_depth": [None, 3, 15],
                "criterion": ["gini", "entropy"],
            },
        ),
        (
            "logistic regression",
            train_logistic_regression,
            {"penalty": [None, "l2"], "max_iter": scaled([50, 100, 200])},
        ),
        (
            "XGBoost",
            train_xgboost,
            {
                "n_estimators": scaled([50, 100]),
                "max_depth": [3, 6, 9],
                "learning_rate": [0.1, 0.3],
            },
        ),
    ]
    return [
        (family, train, dict(zip(grid, values, strict=True)))
        for family, train, grid in families
        for values in itertools.product(*grid.values())
    ]


def describe(family: str, params: Params) -> str:
    """Name a model by its family and parameters, on one line."""
    return f"{family} ({', '.join(f'{name}={value}' for name, value in params.items())})"


# --- the two runs -------------------------------------------------------------------------------


def serial(
    csv: str | None, rows: int | None, search: list[Candidate], storage: Storage | None
) -> list[float]:
    """Train one model after the other in this process; return the accuracies."""
    data = gen_data(csv, rows, storage)
    accuracies = []
    with warnings.catch_warnings():
        # The same advice on convergence stands in the spawned calls' logs.
        warnings.simplefilter("ignore")
        for _, train, params in search:
            _, accuracy = train(*data, verbose=False, **params)
            accuracies.append(accuracy)
    return accuracies


def spawned(
    csv: str | None, rows: int | None, search: list[Candidate]
) -> tuple[list[mr.Object[Trained]], list[Trained]]:
    """Train the models as spawned calls; return the calls and what they gave."""
    # Four outputs of one call: the data is made once, in a worker, and every call reads it there.
    data = mr.spawn(gen_data, args=(csv, rows), n_output=4)
    models = [
        mr.spawn(
            train,
            args=tuple(data),
            kwargs=params,
            name=f"model {number}: {describe(family, params)}",
        )
        for number, (family, train, params) in enumerate(search)
    ]
    # The families need very different times. Shuffled, long calls do not pile up at the end.
    # (mypy: to numpy's types a list of opaque objects is no array; at run time it is.)
    shuffled = np.random.permutation(cast("list[str]", models))
    mr.ExecutableTuple(shuffled).execute()
    return models, list(mr.ExecutableTuple(models).fetch())


def compare(search: list[Candidate], baseline: list[float], results: list[Trained]) -> bool:
    """Print how the accuracies of the two runs agree; return whether they do."""
    equal, close, apart = 0, 0, []
    for (family, _, params), expected, (_, accuracy) in zip(search, baseline, results, strict=True):
        if accuracy == expected:
            equal += 1
        elif abs(accuracy - expected) <= TOLERANCE and family == "logistic regression":
            close += 1
        else:
            apart.append(f"{describe(family, params)}: {expected:.4f} and {accuracy:.4f}")
    print(f"equal metrics: {equal} of {len(search)} to the last digit, {close} up to rounding")
    for line in apart:
        print(f"DIFFERENT: {line}")
    return not apart


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="A search over 36 models, serial and spawned.")
    parser.add_argument(
        "--csv", help="Otto's train.csv, a file or a URL; default: a set like it, made on the spot"
    )
    parser.add_argument("--storage", help="a JSON file with what opens URLs, by protocol")
    parser.add_argument("--rows", type=int, help="use so many rows; default: all (61 878)")
    parser.add_argument(
        "--address", help="of a cluster, as http://HOST:7104; default: this machine"
    )
    parser.add_argument(
        "--web", action="store_true", help="a page shows the spawned run; needs mars-remote[web]"
    )
    parser.add_argument("--skip-serial", action="store_true", help="no plain loop to compare with")
    parser.add_argument(
        "--trees-scale",
        type=float,
        default=1.0,
        help="multiply the number of trees, rounds and iterations; default 1",
    )
    options = parser.parse_args()
    if options.csv and "://" not in options.csv and not os.path.isfile(options.csv):
        parser.error(f"no such file: {options.csv}")
    if options.rows is not None and options.rows < 500:
        parser.error("--rows must be at least 500, or a class may be missing from a part")
    if options.trees_scale <= 0:
        parser.error("--trees-scale must be above 0")
    return options


def main() -> None:
    """Run the search twice, compare, name the best model, show one call's log."""
    options = parse_options()
    storage: Storage | None = None
    if options.storage is not None:
        with open(options.storage, encoding="utf-8") as file:
            storage = json.load(file)
    search = candidates(options.trees_scale)
    families = [family for family, _, _ in search]
    print(
        f"{families.count('random forest')} random forests, "
        f"{families.count('logistic regression')} logistic regressions, "
        f"{families.count('XGBoost')} XGBoost models; "
        f"{options.csv or 'Otto-shaped data'}, "
        f"{'all' if options.rows is None else format(options.rows, ',')} rows",
        flush=True,
    )

    baseline, serial_s = None, 0.0
    if not options.skip_serial:
        started = time.perf_counter()
        baseline = serial(options.csv, options.rows, search, storage)
        serial_s = time.perf_counter() - started
        print(f"serial    {serial_s:7.1f} s   (one model at a time, n_jobs=-1)", flush=True)

    # The start of the worker processes is inside the measured time.
    started = time.perf_counter()
    with mars.new_session(options.address, storage_options=storage, web=options.web) as session:
        models, results = spawned(options.csv, options.rows, search)
        spawned_s = time.perf_counter() - started
        cores = f"{session.get_total_n_cpu():g}"
        print(f"spawned   {spawned_s:7.1f} s   ({cores} models at a time, a core each)")
        if baseline is not None:
            print(f"speed-up  {serial_s / spawned_s:7.2f}")

        ranking = sorted(range(len(search)), key=lambda i: results[i][1], reverse=True)
        print("\nThe best three by accuracy on the test rows:")
        for i in ranking[:3]:
            family, _, params = search[i]
            print(f"  {results[i][1]:.4f}  {describe(family, params)}")
        best_model, best_accuracy = results[ranking[0]]
        print(f"best model: {type(best_model).__name__}, accuracy {best_accuracy:.4f}")

        lines = str(models[0].fetch_log()).splitlines()
        print(f"\nThe first of {len(lines)} lines of models[0].fetch_log():")
        print("\n".join(f"  {line}" for line in lines[:8]))
        xgboost_call = families.index("XGBoost")
        lines = str(models[xgboost_call].fetch_log()).splitlines()
        print(f"\nThe first of {len(lines)} lines of models[{xgboost_call}].fetch_log():")
        print("\n".join(f"  {line}" for line in lines[:4]))

    if baseline is not None:
        print()
        if not compare(search, baseline, results):
            raise SystemExit("the two runs do not agree")


if __name__ == "__main__":
    main()
