"""XGBoost with tensors and frames.

One call trains with all cores of a node. Data of several chunks are trained on all nodes: one call
on each, which `mars.learn.contrib.collective` joins. Predictions run on all chunks of rows beside
each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from mars.calls.spawn import spawn
from mars.code import places
from mars.learn.contrib.collective import parts_for, train_on_nodes
from mars.learn.contrib.xgboost_members import ON_NODES, Trained, train_here
from mars.learn.cores import cores_of_one
from mars.learn.fitting import Fitted, of_class, on_rows
from mars.sessions.opening import choose
from mars.sessions.session import AnySession
from mars.tileables.tileable import Tileable

if TYPE_CHECKING:
    from xgboost import Booster


class MarsDMatrix:
    """Data for `train`: tensors or frames, and what XGBoost takes besides them.

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


def train(
    params: dict[str, object], dtrain: MarsDMatrix, evals: Iterable[tuple[MarsDMatrix, str]] = (),
    evals_result: dict[str, object] | None = None, num_class: int | None = None,
    num_boost_round: int = 10, session: AnySession | None = None, **kwargs: object,
) -> Booster:  # fmt: skip
    """Train one model, in a call on each node that has a part of the data.

    Data of one chunk are trained by one call, which owns all cores of a node. So are data with
    ``qid`` or ``group``. A model of several nodes is as good as that of one, but not the same to
    the last digit: XGBoost looks for its cuts in parts of the rows. The nodes send each other sums
    over their rows, not the rows, over connections of XGBoost that are not encrypted. If a worker
    or node is lost, the training begins anew.

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
    session : Session, optional
        Default: the default session.
    **kwargs
        As of `xgboost.train`.

    Returns
    -------
    xgboost.Booster
    """
    chosen = choose(session)
    kwargs.pop("run_kwargs", None)
    settings = dict(params) if num_class is None else {**params, "num_class": num_class}
    given = (dtrain.data, dtrain.label, dtrain.more)
    others = [((one.data, one.label, one.more), name) for one, name in evals]
    if parts_for(chosen, dtrain.data, dtrain.more) > 1:
        trained = train_on_nodes(chosen, ON_NODES, given, others, settings, num_boost_round, kwargs)
        booster, measured = cast("Trained", trained)
    else:
        cores = cores_of_one(chosen)
        with places.whole_values():
            call = spawn(
                train_here,
                ({**settings, "nthread": cores}, given, others, num_boost_round, kwargs),
                name="xgboost.train", cpus=cores,
            )  # fmt: skip
        booster, measured = call.to_object(session=chosen)
    if evals_result is not None:
        evals_result.update(measured)
    return booster


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


def _fit(self: Any, X: object, y: object, **kwargs: Any) -> object:
    """Learn from data, on all nodes that have a part of them; see `train`, and XGBoost's `fit`."""
    import xgboost

    session = choose(kwargs.get("session"))
    more = {name: kwargs.get(name) for name in ("base_margin", "feature_weights")}
    more["weight"] = kwargs.get("sample_weight")
    known = {"sample_weight", "base_margin", "eval_set", "verbose", "session", "run_kwargs"}
    if (
        {name for name, one in kwargs.items() if one is not None} - known
        or callable(self.objective)
        or not isinstance(y, Tileable)
        or parts_for(session, X, more) < 2
    ):
        return Fitted.fit(self, X, y, **kwargs)
    params = self.get_xgb_params()
    params.pop("n_jobs", None)
    if isinstance(self, xgboost.XGBClassifier):
        with places.whole_values():
            found = spawn(_classes, (y,), name="classes")
        classes = found.to_object(session=session, show_progress=False)
        if classes != list(range(len(classes))):
            return Fitted.fit(self, X, y, **kwargs)  # XGBoost says what is wrong
        self.n_classes_ = len(classes)
        if len(classes) > 2:
            params["num_class"] = len(classes)
            if params.get("objective") != "multi:softmax":
                params["objective"] = self.objective = "multi:softprob"
    common = {"missing": self.missing, "enable_categorical": self.enable_categorical}
    kept = {name: one for name, one in more.items() if one is not None}
    evals = [
        (MarsDMatrix(data, label, **common), f"validation_{number}")
        for number, (data, label) in enumerate(kwargs.get("eval_set") or ())
    ]
    measured: dict[str, object] = {}
    self._Booster = train(
        params, MarsDMatrix(X, y, **common, **kept), evals, measured, session=session,
        num_boost_round=self.get_num_boosting_rounds(), callbacks=self.callbacks,
        early_stopping_rounds=self.early_stopping_rounds,
    )  # fmt: skip
    if measured:
        self.evals_result_ = measured
    return self


def _classes(labels: object) -> list[object]:
    import numpy

    return list(numpy.unique(numpy.asarray(labels)).tolist())


def __getattr__(name: str) -> Any:
    if name in ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"):
        import xgboost

        on_nodes = name in ("XGBClassifier", "XGBRegressor")
        return of_class(getattr(xgboost, name), _fit if on_nodes else None)
    raise AttributeError(f"module 'mars.learn.contrib.xgboost' has no attribute {name!r}")


__all__ = ["MarsDMatrix", "predict", "train"]
