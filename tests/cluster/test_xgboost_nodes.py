"""One model of XGBoost over the two nodes of a cluster."""

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
