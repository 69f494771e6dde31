"""XGBoost with tensors and frames: one call trains with all cores of a worker.

Predictions run on all chunks of rows beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mars.calls.spawn import spawn
from mars.code import places
from mars.learn.fitting import of_class, on_rows
from mars.sessions.opening import choose
from mars.tileables.tileable import Tileable

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix

    Given = tuple[object, object, dict[str, object]]


class MarsDMatrix:
    """Data for `train`: tensors or frames, and what XGBoost takes beside them.

    Parameters
    ----------
    data : Tensor, frame or array_like
        The rows.
    label : Tensor, frame or array_like, optional
        What is to be learned.
    **more
        As of `xgboost.DMatrix`, such as ``weight``.
    """

    def __init__(self, data: object, label: object = None, **more: object) -> None:
        self.data, self.label, self.more = data, label, more


def train(params: dict[str, object], dtrain: MarsDMatrix,
          evals: Sequence[tuple[MarsDMatrix, str]] = (),
          evals_result: dict[str, object] | None = None, num_class: int | None = None,
          num_boost_round: int = 10, **kwargs: object) -> Any:  # fmt: skip
    """Train one model in a call that owns all cores of a worker.

    Parameters
    ----------
    params : dict
        As of `xgboost.train`.
    dtrain : MarsDMatrix
        The data.
    evals : sequence of tuple, default ()
        Further data and their names, which each round is measured on.
    evals_result : dict, optional
        Gets what was measured.
    num_boost_round : int, default 10
        How many rounds to train.
    **kwargs
        As of `xgboost.train`.

    Returns
    -------
    xgboost.Booster
    """
    for hint in ("session", "run_kwargs"):
        kwargs.pop(hint, None)
    cores = choose(None).get_total_n_cpu()
    settings = {**params, "nthread": int(cores)}
    if num_class is not None:
        settings["num_class"] = num_class
    given = (dtrain.data, dtrain.label, dtrain.more)
    others = [((one.data, one.label, one.more), name) for one, name in evals]
    with places.whole_values():
        call = spawn(
            _train, (settings, given, others, num_boost_round, kwargs), name="xgboost.train",
            cpus=cores,
        )  # fmt: skip
    booster, measured = call.to_object()
    if evals_result is not None:
        evals_result.update(measured)
    return booster


def _train(
    settings: dict[str, object], given: Given, others: list[tuple[Given, str]], rounds: int,
    kwargs: dict[str, object],
) -> tuple[Booster, dict[str, object]]:  # fmt: skip
    import xgboost

    def matrix(data: object, label: object, more: dict[str, object]) -> DMatrix:
        return xgboost.DMatrix(data, label, **more)

    measured: dict[str, object] = {}
    booster = xgboost.train(
        settings, matrix(*given), rounds, evals=[(matrix(*one), name) for one, name in others],
        evals_result=measured, verbose_eval=bool(others), **kwargs,
    )  # fmt: skip
    return booster, measured


def predict(model: Any, data: object, **_: object) -> Any:
    """Predictions of a model for rows, on all chunks beside each other."""
    given = data.data if isinstance(data, MarsDMatrix) else data
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    if isinstance(given, Tileable):
        return on_rows(_Predicting(booster), "predict", given)
    return _Predicting(booster).predict(given)


class _Predicting:
    def __init__(self, booster: Booster) -> None:
        self._booster = booster

    def predict(self, rows: object) -> object:
        import xgboost

        made: object = self._booster.predict(xgboost.DMatrix(rows))
        return made


def __getattr__(name: str) -> Any:
    if name in ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"):
        import xgboost

        return of_class(getattr(xgboost, name))
    raise AttributeError(f"module 'mars.learn.contrib.xgboost' has no attribute {name!r}")


__all__ = ["MarsDMatrix", "predict", "train"]
