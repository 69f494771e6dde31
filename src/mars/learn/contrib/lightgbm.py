"""LightGBM with tensors and frames.

One call trains with all cores of a node. Data of several chunks are trained on all nodes: one call
on each, which `mars.learn.contrib.collective` joins. Predictions run on all chunks of rows beside
each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mars.calls.spawn import spawn
from mars.code import places
from mars.learn.contrib.collective import parts_for, train_on_nodes
from mars.learn.contrib.lightgbm_members import ON_NODES
from mars.learn.fitting import Fitted, bare, of_class
from mars.sessions.opening import choose
from mars.sessions.session import AnySession
from mars.tileables.tileable import Tileable

if TYPE_CHECKING:
    from numpy import ndarray

Pairs: TypeAlias = Sequence[tuple[object, object]]
"""Rows and labels."""

PASSED: Final = frozenset(
    ["callbacks", "categorical_feature", "eval_class_weight", "eval_init_score", "eval_metric",
     "eval_names", "eval_sample_weight", "eval_set", "eval_X", "eval_y", "feature_name",
     "init_model"]
)  # fmt: skip
"""What each member gets as the program has it, with whole data."""


def _fit(
    self: Fitted, X: object, y: object, sample_weight: object = None, init_score: object = None,
    session: AnySession | None = None, **kwargs: object,
) -> object:  # fmt: skip
    """Learn from data, on all nodes that have a part of them; see LightGBM's `fit`.

    A model of several nodes is as good as that of one, but not the same to the last digit. Each
    node measures all data of ``eval_set``. A metric or objective that is a function of the program
    sees the rows of one node. If a worker or node is lost, the fit begins anew. Data of one chunk,
    rankings, frames with categories, and arguments that `PASSED` does not have are for one node.
    """
    chosen = choose(session)
    kwargs.pop("run_kwargs", None)
    per_row = {"sample_weight": sample_weight, "init_score": init_score}
    more = {name: one for name, one in per_row.items() if one is not None}
    passed = {name: one for name, one in kwargs.items() if one is not None}
    if (
        passed.keys() - PASSED
        or not isinstance(y, Tileable)
        or parts_for(chosen, X, more) < 2
        or any(len(cast("Sized", one)) != len(cast("Sized", y)) for one in more.values())
    ):
        return Fitted.fit(self, X, y, **more, **kwargs)
    pairs = _pairs(passed)
    passed = {"eval_names": _names(pairs, X, y), **passed}
    if "eval_set" in passed:
        passed["eval_set"] = pairs
    classes, weights = None, None
    if hasattr(self, "predict_proba"):
        with places.whole_values():
            counted = spawn(_counted, (y,), name="classes")
        classes, counts = counted.to_object(session=chosen, show_progress=False)
        weights = _weights(vars(self)["class_weight"], classes, counts)
        metrics = passed.get("eval_metric", [])
        passed["eval_metric"] = [
            _of_kind(one, "multi" if len(classes) > 2 else "binary")
            for one in (metrics if isinstance(metrics, list) else [metrics])
        ]
    state = train_on_nodes(chosen, ON_NODES, (X, y, more), (), bare(self), passed, classes, weights)
    self.__dict__.update(cast("dict[str, object]", state))
    return self


def _pairs(given: Mapping[str, object]) -> list[tuple[object, object]]:
    """Rows and labels of the data to measure on: ``eval_set``, or ``eval_X`` and ``eval_y``."""
    if "eval_set" in given:
        sets = given["eval_set"]
        return [sets] if isinstance(sets, tuple) else list(cast("Pairs", sets))
    rows, labels = given.get("eval_X", ()), given.get("eval_y", ())
    both = [one if isinstance(one, tuple) else (one,) for one in (rows, labels)]
    return list(zip(*both, strict=True))


def _names(pairs: Pairs, X: object, y: object) -> list[str]:
    """LightGBM's own names of data to measure on: those that it learns from have another one."""
    return [
        "training" if data is X and label is y else f"valid_{number}"
        for number, (data, label) in enumerate(pairs)
    ]


def _counted(labels: object) -> tuple[ndarray, ndarray]:
    """The classes, and how many rows each has."""
    import numpy

    classes, counts = numpy.unique(numpy.ravel(numpy.asarray(labels)), return_counts=True)
    return classes, counts


def _weights(wanted: object, classes: ndarray, counts: ndarray) -> list[float] | None:
    """The weight of each class, as scikit-learn reads ``class_weight``."""
    if isinstance(wanted, dict):
        return [float(wanted.get(one, 1.0)) for one in classes.tolist()]
    if wanted == "balanced":
        return [float(counts.sum() / (len(counts) * count)) for count in counts]
    return None


def _of_kind(metric: object, kind: str) -> object:
    """A metric for two classes as that for many, and the other way round, as LightGBM has it."""
    if not isinstance(metric, str):
        return metric
    bare_name = metric.removeprefix("binary_").removeprefix("multi_")
    return f"{kind}_{bare_name}" if bare_name in ("logloss", "error") else metric


def __getattr__(name: str) -> Any:
    if name in ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"):
        import lightgbm

        return of_class(getattr(lightgbm, name), None if name == "LGBMRanker" else _fit)
    raise AttributeError(f"module 'mars.learn.contrib.lightgbm' has no attribute {name!r}")
