"""One model of XGBoost or LightGBM over the two nodes of a cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars
import mars.dataframe as md
import mars.tensor as mt
from mars.learn.contrib import xgboost as in_chunks
from mars.learn.contrib.collective import BEGINNINGS
from mars.learn.contrib.lightgbm import LGBMClassifier, LGBMRegressor
from mars.learn.linear_model import LinearRegression
from tests.cluster.conftest import DaskHosts

xgboost = pytest.importorskip("xgboost")
pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.timeout(240)

RANDOM = np.random.RandomState(0)
ROWS = RANDOM.rand(3000, 6)
LABELS = (ROWS[:, 0] * ROWS[:, 1] + 0.1 * RANDOM.rand(3000) > 0.3).astype(int)
TRAINED, ROUNDS = 2400, 20
PARAMS = {"objective": "binary:logistic", "max_depth": 3}


@pytest.fixture(scope="module")
def two_nodes(leak_guard: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session on two nodes of one core."""
    hosts = DaskHosts(tmp_path_factory.mktemp("hosts"))
    hosts.add_node()
    hosts.add_node()
    session = hosts.session(2)
    yield session
    session.stop_server()
    hosts.close()


def members(_: Any, __: Any) -> tuple[str, float]:
    """A metric: how many members train the model."""
    return "members", float(xgboost.collective.get_world_size())


def train(**kwargs: Any) -> tuple[Any, dict[str, Any]]:
    measured: dict[str, Any] = {}
    data, labels = mt.tensor(ROWS, chunk_size=(700, 4)), mt.tensor(LABELS, chunk_size=500)
    booster = in_chunks.train(
        PARAMS, in_chunks.MarsDMatrix(data[:TRAINED], labels[:TRAINED]), num_boost_round=ROUNDS,
        evals=[(in_chunks.MarsDMatrix(data[TRAINED:], labels[TRAINED:]), "other")],
        evals_result=measured, custom_metric=members, **kwargs,
    )  # fmt: skip
    return booster, measured["other"]


def loss_on_one_machine() -> float:
    measured: dict[str, Any] = {}
    xgboost.train(
        {**PARAMS, "nthread": 1}, xgboost.DMatrix(ROWS[:TRAINED], LABELS[:TRAINED]), ROUNDS,
        evals=[(xgboost.DMatrix(ROWS[TRAINED:], LABELS[TRAINED:]), "other")],
        evals_result=measured, verbose_eval=False,
    )  # fmt: skip
    return float(measured["other"]["logloss"][-1])


def test_a_model_of_two_nodes_is_as_good_as_one_of_one_machine(two_nodes: Any) -> None:
    booster, measured = train()
    assert measured["members"] == [2.0] * ROUNDS
    assert measured["logloss"][-1] == pytest.approx(loss_on_one_machine(), rel=0.15)
    odds = in_chunks.predict(booster, mt.tensor(ROWS[TRAINED:], chunk_size=200)).to_numpy()
    booster.set_param("nthread", 1)
    alone = booster.predict(xgboost.DMatrix(ROWS[TRAINED:]))
    np.testing.assert_allclose(odds, alone, rtol=1e-5)


class Dies(xgboost.callback.TrainingCallback):  # type: ignore[misc, name-defined]
    """Ends the process of a member in the fourth round; ``times`` times in all."""

    def __init__(self, folder: Path, rank: int, times: int = 1) -> None:
        self.folder, self.rank, self.times = folder, rank, times

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        died = len(os.listdir(self.folder))
        if epoch == 3 and xgboost.collective.get_rank() == self.rank and died < self.times:
            (self.folder / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return False


@pytest.mark.parametrize("rank", [0, 1])
def test_a_training_begins_anew_if_a_member_dies(two_nodes: Any, tmp_path: Path, rank: int) -> None:
    _, measured = train(callbacks=[Dies(tmp_path, rank)])
    assert len(os.listdir(tmp_path)) == 1
    assert measured["members"] == [2.0] * ROUNDS
    assert measured["logloss"][-1] == pytest.approx(loss_on_one_machine(), rel=0.15)


def test_a_member_that_always_dies_is_an_error(two_nodes: Any, tmp_path: Path) -> None:
    with pytest.raises(mars.errors.WorkerDied):
        train(callbacks=[Dies(tmp_path, 1, times=BEGINNINGS)])
    assert len(os.listdir(tmp_path)) == BEGINNINGS


def test_what_xgboost_refuses_is_its_own_error(two_nodes: Any) -> None:
    data, labels = mt.tensor(ROWS, chunk_size=700), mt.tensor(LABELS, chunk_size=700)
    with pytest.raises(xgboost.core.XGBoostError, match="Unknown objective"):
        in_chunks.train({"objective": "nonsense"}, in_chunks.MarsDMatrix(data, labels))


def test_estimators_learn_of_frames_on_two_nodes(two_nodes: Any) -> None:
    frame = pd.DataFrame(ROWS, columns=list("abcdef"))
    classes = pd.Series(LABELS + (ROWS[:, 2] > 0.8))
    data, labels = md.DataFrame(frame, chunk_size=700), md.Series(classes, chunk_size=900)
    model = in_chunks.XGBClassifier(n_estimators=ROUNDS, max_depth=3, eval_metric=["mlogloss"])
    model.fit(data, labels, eval_set=[(data, labels)])
    alone = xgboost.XGBClassifier(n_estimators=ROUNDS, max_depth=3, n_jobs=1).fit(frame, classes)
    assert model.n_classes_ == 3
    assert len(model.evals_result_["validation_0"]["mlogloss"]) == ROUNDS
    right = float((model.predict(data).to_numpy() == classes).mean())
    assert right == pytest.approx(float((alone.predict(frame) == classes).mean()), abs=0.02)
    assert model.get_booster().feature_names == list("abcdef")


def test_other_models_are_fitted_with_the_cores_of_one_node(two_nodes: Any) -> None:
    data, labels = mt.tensor(ROWS, chunk_size=700), mt.tensor(LABELS, chunk_size=700)
    assert LinearRegression().fit(data, labels).score(data, labels) > 0.5


# LightGBM


def parted(rows: Any = ROWS, labels: Any = LABELS) -> tuple[Any, Any]:
    return mt.tensor(rows, chunk_size=(700, 4)), mt.tensor(labels, chunk_size=500)


def test_a_classifier_of_two_nodes_is_as_good_as_one_of_one_machine(two_nodes: Any) -> None:
    """Each node has some of the classes only, and the model knows all of them."""
    lightgbm = pytest.importorskip("lightgbm")
    order = np.argsort(ROWS[:, 5])
    rows, labels = ROWS[order], np.array(["no", "yes", "top"])[LABELS[order]]
    labels[rows[:, 5] > 0.8] = "top"
    settings: dict[str, Any] = {"n_estimators": ROUNDS, "num_leaves": 8, "verbose": -1}
    model = LGBMClassifier(**settings, class_weight={"no": 2.0})
    weights = np.where(rows[:, 0] > 0.5, 2.0, 1.0)
    data, wanted = parted(rows, labels)
    made = model.fit(
        data, wanted, sample_weight=mt.tensor(weights, chunk_size=400), eval_metric="logloss",
        eval_X=(data[:900], data), eval_y=(wanted[:900], wanted),
    )  # fmt: skip
    assert made is model
    assert list(model.classes_) == ["no", "top", "yes"]
    alone = lightgbm.LGBMClassifier(**settings, n_jobs=1, class_weight={0: 2.0})
    numbers = np.searchsorted(model.classes_, labels)  # LightGBM 4.7 refuses names in eval_y
    alone.fit(
        rows, numbers, weights, eval_metric="logloss",
        eval_X=(rows[:900], rows), eval_y=(numbers[:900], numbers),
    )  # fmt: skip
    assert {*model.evals_result_} == {"training", "valid_0"}
    assert [*model.evals_result_["valid_0"]] == [*alone.evals_result_["valid_0"]]
    loss = alone.evals_result_["valid_0"]["multi_logloss"][-1]
    assert model.evals_result_["valid_0"]["multi_logloss"][-1] == pytest.approx(loss, rel=0.15)
    right = float((model.predict(data).to_numpy() == labels).mean())
    assert right == pytest.approx(float((alone.predict(rows) == numbers).mean()), abs=0.02)
    assert "machines" not in {*model.get_params(), *model.booster_.params}
    copy = model.booster_.model_to_string()  # all rows were counted, those of both nodes
    assert "leaf_count" in copy and f"internal_count={len(rows)}" in copy


def test_a_fit_stops_early_and_one_on_a_node_can_follow(two_nodes: Any) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    data, _ = parted()
    wanted = mt.tensor(ROWS[:, 0] + 0.5 * RANDOM.rand(3000), chunk_size=600)
    model = LGBMRegressor(n_estimators=400, learning_rate=0.5, verbose=-1)
    stops = [lightgbm.early_stopping(3, verbose=False)]
    model.fit(
        data[:TRAINED], wanted[:TRAINED], callbacks=stops,
        eval_X=data[TRAINED:], eval_y=wanted[TRAINED:],
    )  # fmt: skip
    assert 0 < model.best_iteration_ < 400
    assert len(model.evals_result_["valid_0"]["l2"]) == model.best_iteration_ + 3
    assert model.score(data[TRAINED:], wanted[TRAINED:]) > 0.5
    whole = mt.tensor(ROWS, chunk_size=3000)
    model.set_params(n_estimators=3).fit(whole, wanted)
    assert model.booster_.current_iteration() == 3


class Ends:
    """Ends the process of a member in the fourth round, once."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank

    def __call__(self, env: Any) -> None:
        own = env.params["machines"].split(",")[self.rank]
        mine = own.endswith(f":{env.params['local_listen_port']}")
        if env.iteration == 3 and mine and not os.listdir(self.folder):
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_fit_begins_anew_if_a_member_dies(two_nodes: Any, tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    model = LGBMClassifier(n_estimators=ROUNDS, verbose=-1, class_weight="balanced")
    model.fit(*parted(), callbacks=[Ends(tmp_path, 0)])
    assert len(os.listdir(tmp_path)) == 1
    assert model.booster_.current_iteration() == ROUNDS


def test_what_lightgbm_refuses_is_its_own_error(two_nodes: Any) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    with pytest.raises(lightgbm.basic.LightGBMError, match="nonsense"):
        LGBMRegressor(objective="nonsense", verbose=-1).fit(*parted())
    assert LGBMRegressor(n_estimators=2, verbose=-1).fit(*parted()).n_features_in_ == 6


def test_frames_with_categories_are_learned_from_on_one_node(two_nodes: Any) -> None:
    pytest.importorskip("lightgbm")
    frame = pd.DataFrame({"a": ROWS[:, 0], "b": pd.Categorical(LABELS.astype(str))})
    data, labels = md.DataFrame(frame, chunk_size=700), md.Series(pd.Series(LABELS), chunk_size=700)
    model = LGBMClassifier(n_estimators=5, verbose=-1).fit(data, labels)
    assert float((model.predict(data).to_numpy() == LABELS).mean()) > 0.95
