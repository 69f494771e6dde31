"""One model of XGBoost over two hosts, for a program on a third one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.clusters import LabCluster
from tests.lab.hosts import Lab

pytest.importorskip("distributed")
pytest.importorskip("xgboost")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(240)]

PROGRAM = """
import socket
import numpy as np
import xgboost
import mars
import mars.tensor as mt
from mars.learn.contrib import xgboost as in_chunks

class Tells(xgboost.callback.TrainingCallback):
    def before_training(self, model):
        print("trains on", socket.gethostname(), xgboost.collective.get_world_size())
        return model

mars.options.echo = "all"
random = np.random.RandomState(0)
rows = random.rand(2000, 4)
labels = (rows[:, 0] * rows[:, 1] > 0.25).astype(int)
params = {"objective": "binary:logistic", "max_depth": 3}
alone = xgboost.train({**params, "nthread": 1}, xgboost.DMatrix(rows, labels, nthread=1), 10)
with mars.new_session("http://10.77.0.1:7104"):
    data, wanted = mt.tensor(rows, chunk_size=500), mt.tensor(labels, chunk_size=500)
    model = in_chunks.train(
        params, in_chunks.MarsDMatrix(data, wanted), num_boost_round=10, callbacks=[Tells()]
    )
    right = float(((in_chunks.predict(model, data).to_numpy() > 0.5) == labels).mean())
model.set_param("nthread", 1)
same = float(((alone.predict(xgboost.DMatrix(rows, nthread=1)) > 0.5) == labels).mean())
print(model.num_boosted_rounds(), right > 0.9, abs(right - same) < 0.02)
"""


@pytest.fixture(scope="module")
def on_dask(lab: Lab) -> Iterator[LabCluster]:
    """Head, two nodes of one core, and a client; each on a host of its own."""
    made = LabCluster(lab, "dask")
    yield made
    made.close()


def test_the_members_of_a_training_find_each_other_between_hosts(on_dask: LabCluster) -> None:
    ended = on_dask["client"].python(PROGRAM, limit_s=150)
    assert ended.stdout.splitlines()[-1:] == ["10 True True"], ended.stdout + ended.stderr
    for name in ("one", "two"):
        assert f"trains on {name} 2" in ended.stderr
