"""scikit-learn on tensors and frames gives what scikit-learn gives."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pandas as pd
import pytest

import mars.dataframe as md
import mars.tensor as mt

pytest.importorskip("sklearn")
from sklearn import datasets, decomposition, linear_model, metrics, model_selection
from sklearn import preprocessing as scaling
from sklearn.base import clone

X, Y = datasets.make_classification(120, 5, random_state=0)


def tensors() -> tuple[mt.Tensor, mt.Tensor]:
    return mt.tensor(X, chunk_size=40), mt.tensor(Y, chunk_size=40)


def test_rows_for_training_are_those_of_sklearn() -> None:
    from mars.learn.model_selection import train_test_split

    got = train_test_split(*tensors(), random_state=3, stratify=Y)
    wanted = model_selection.train_test_split(X, Y, random_state=3, stratify=Y)
    for one, two in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one.fetch(), two)


def test_a_model_fits_and_predicts_in_chunks() -> None:
    from mars.learn.linear_model import LogisticRegression
    from mars.learn.metrics import accuracy_score, roc_curve

    a, b = tensors()
    model, plain = LogisticRegression().fit(a, b), linear_model.LogisticRegression().fit(X, Y)
    np.testing.assert_allclose(model.coef_, plain.coef_)
    got = model.predict(a)
    assert isinstance(got, mt.Tensor) and got.chunk_shape == (3,)
    np.testing.assert_array_equal(got.fetch(), plain.predict(X))
    np.testing.assert_allclose(model.predict_proba(a).fetch(), plain.predict_proba(X))
    assert float(accuracy_score(b, got)) == metrics.accuracy_score(Y, plain.predict(X))
    assert model.score(a, b) == plain.score(X, Y)
    np.testing.assert_array_equal(
        roc_curve(b, got)[0].to_numpy(), metrics.roc_curve(Y, got.fetch())[0]
    )
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), plain.predict(X))
    assert clone(model).get_params() == plain.get_params()


def test_transformers_and_frames() -> None:
    from mars.learn.decomposition import PCA
    from mars.learn.preprocessing import MinMaxScaler, StandardScaler

    a, _ = tensors()
    got = StandardScaler().fit_transform(a).fetch()
    np.testing.assert_allclose(got, scaling.StandardScaler().fit_transform(X))
    frame = md.DataFrame(pd.DataFrame(X, columns=list("abcde")), chunk_size=40)
    wanted = scaling.MinMaxScaler().fit_transform(X)
    np.testing.assert_allclose(MinMaxScaler().fit(frame).transform(frame).fetch(), wanted)
    plain = decomposition.PCA(2).fit_transform(X)
    np.testing.assert_allclose(np.abs(PCA(2).fit_transform(a).fetch()), np.abs(plain))


def test_clusters_neighbours_and_searches() -> None:
    from mars.learn.cluster import KMeans
    from mars.learn.linear_model import LogisticRegression
    from mars.learn.model_selection import GridSearchCV
    from mars.learn.neighbors import NearestNeighbors

    a, b = tensors()
    labels = KMeans(3, random_state=0, n_init=1).fit_predict(a).to_numpy()
    assert labels.shape == (120,) and set(labels) == {0, 1, 2}
    _, near = NearestNeighbors(n_neighbors=1).fit(a).kneighbors(X[:3])
    assert near.ravel().tolist() == [0, 1, 2]
    search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1]}).fit(a, b)
    assert search.best_params_ == (
        model_selection.GridSearchCV(linear_model.LogisticRegression(), {"C": [0.01, 1]})
        .fit(X, Y)
        .best_params_
    )


def test_an_estimator_that_learns_in_parts_gets_all_chunks() -> None:
    from mars.learn.linear_model import SGDClassifier
    from mars.learn.wrappers import ParallelPostFit

    a, b = tensors()
    assert SGDClassifier(random_state=0).fit(a, b).score(a, b) > 0.7
    model = ParallelPostFit(linear_model.LogisticRegression()).fit(X, Y)
    np.testing.assert_array_equal(model.predict(a).fetch(), model.estimator.predict(X))


def test_made_up_data_are_tensors() -> None:
    from mars.learn.datasets import make_blobs

    points, labels = make_blobs(50, random_state=1)
    wanted = datasets.make_blobs(50, random_state=1)
    np.testing.assert_array_equal(points.to_numpy(), wanted[0])
    np.testing.assert_array_equal(labels.to_numpy(), wanted[1])


def test_predictions_for_frames_get_frames_and_chunks_may_be_empty() -> None:
    from mars.learn.ensemble import HistGradientBoostingClassifier

    frame = pd.DataFrame({"a": X[:, 0], "kind": pd.Categorical(Y.astype(str))}).sort_values("a")
    data, labels = md.DataFrame(frame, chunk_size=40), md.Series(frame["kind"], chunk_size=40)
    model = HistGradientBoostingClassifier(categorical_features="from_dtype").fit(data, labels)
    high = data[data["a"] > frame["a"].iloc[90]]
    got = model.predict_proba(high)
    assert isinstance(got, mt.Tensor) and got.shape == (29, 2)
    wanted = model.predict_proba(frame[frame["a"] > frame["a"].iloc[90]])
    np.testing.assert_allclose(got.fetch(), wanted)


def test_xgboost_trains_in_a_call() -> None:
    pytest.importorskip("xgboost")
    from mars.learn.contrib.xgboost import MarsDMatrix, XGBClassifier, predict, train

    a, b = tensors()
    assert XGBClassifier(n_estimators=5).fit(a, b).predict(a).fetch().shape == (120,)
    measured: dict[str, object] = {}
    data = MarsDMatrix(a, b)
    model = train(
        {"objective": "binary:logistic"}, data, [(data, "x")], measured, num_boost_round=3
    )
    assert ((predict(model, a).fetch() > 0.5) == Y).mean() > 0.8
    assert list(measured) == ["x"]


def test_copies_of_a_pytorch_script_know_of_each_other() -> None:
    from mars.learn.contrib.pytorch import run_pytorch_script

    script = io.StringIO(
        "import os\n"
        "print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['MASTER_ADDR'], extra)\n"
    )
    status = run_pytorch_script(script, 2, data={"extra": 5})
    assert status.fetch() == {"status": "ok"}
    assert "0 2 127.0.0.1 5" in str(status.fetch_log())
    with pytest.raises(ValueError, match="at least 1"):
        run_pytorch_script(script, 0)


def test_metrics_of_plain_values_can_be_executed_as_in_the_original() -> None:
    from mars.learn.metrics import accuracy_score
    from mars.learn.utils.multiclass import type_of_target

    score = accuracy_score([0, 1, 1], [0, 1, 0])
    assert score.execute().fetch() == pytest.approx(2 / 3) and score > 0.6
    assert type_of_target([0, 1, 1]).execute().fetch() == "binary"


def test_labels_that_a_model_knows_are_no_made_up_ones() -> None:
    from mars.learn.preprocessing import LabelBinarizer, LabelEncoder, OrdinalEncoder

    names = np.array(["b", "a", "c", "a"])
    lazy = mt.tensor(names, chunk_size=3)
    encoder = LabelEncoder()
    np.testing.assert_array_equal(encoder.fit_transform(lazy).fetch(), [1, 0, 2, 0])
    back = encoder.inverse_transform(mt.tensor([2, 0], chunk_size=1)).fetch()
    assert list(back) == ["c", "a"]
    rows = scaling.LabelBinarizer().fit_transform(names)
    np.testing.assert_array_equal(LabelBinarizer().fit_transform(lazy).fetch(), rows)
    columns = mt.tensor(names[:, None], chunk_size=3)
    np.testing.assert_array_equal(
        OrdinalEncoder().fit_transform(columns).fetch()[:, 0], [1, 0, 2, 0]
    )
    series = md.Series(pd.Series(names, name="n"), chunk_size=3)
    np.testing.assert_array_equal(
        LabelEncoder().fit(series).transform(series).fetch(), [1, 0, 2, 0]
    )


def test_a_model_is_not_taken_for_one_that_is_gone() -> None:
    from dask.base import tokenize

    from mars.learn.fitting import _OnRows

    found = {tokenize(_OnRows(linear_model.Ridge(), "predict", (), {})) for _ in range(50)}
    assert len(found) == 50


def test_neighbours_of_the_rows_of_all_chunks() -> None:
    from sklearn import neighbors

    from mars.learn.neighbors import NearestNeighbors

    a, _ = tensors()
    model = NearestNeighbors(n_neighbors=3).fit(a)
    wanted = neighbors.NearestNeighbors(n_neighbors=3).fit(X)
    for got, plain in zip(model.kneighbors(a), wanted.kneighbors(X), strict=True):
        np.testing.assert_allclose(got.fetch(), plain)
    near = model.kneighbors(a, n_neighbors=2, return_distance=False)
    np.testing.assert_array_equal(near.fetch(), wanted.kneighbors(X, 2, return_distance=False))
    frame = md.DataFrame(pd.DataFrame(X), chunk_size=50)
    np.testing.assert_allclose(model.kneighbors(frame)[0].fetch(), wanted.kneighbors(X)[0])
    np.testing.assert_allclose(model.kneighbors()[0], wanted.kneighbors()[0])


def test_k_means_takes_what_that_of_the_original_takes() -> None:
    from sklearn import cluster

    from mars.learn.cluster import KMeans, k_means

    a, _ = tensors()
    wanted = cluster.KMeans(3, random_state=0, n_init=1).fit(X)
    model = KMeans(
        n_clusters=3, init="k-means||", algorithm="auto", oversampling_factor=2, n_init=1,
        random_state=0,
    ).fit(a)  # fmt: skip
    np.testing.assert_array_equal(model.labels_, wanted.labels_)
    assert clone(model).get_params()["n_clusters"] == 3
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(a).fetch(), wanted.labels_)
    centers, _labels, _ = k_means(a, 3, init="k-means||", n_init=1, random_state=0)
    np.testing.assert_allclose(centers.fetch(), wanted.cluster_centers_)


def test_the_nearest_rows_are_those_of_the_distances() -> None:
    from mars.learn.metrics import pairwise_distances_topk

    a, _ = tensors()
    distances, places = pairwise_distances_topk(a, a, k=3, metric="cosine")
    wanted = metrics.pairwise_distances(X, metric="cosine")
    np.testing.assert_allclose(distances.to_numpy(), np.sort(wanted, axis=1)[:, :3], atol=1e-12)
    np.testing.assert_array_equal(places.to_numpy(), np.argsort(wanted, kind="stable")[:, :3])


def test_a_model_for_each_chunk_votes() -> None:
    from mars.learn.ensemble import BlockwiseVotingClassifier, BlockwiseVotingRegressor

    a, b = tensors()
    parts = [linear_model.LogisticRegression().fit(X[i : i + 40], Y[i : i + 40])
             for i in range(0, 120, 40)]  # fmt: skip
    hard = BlockwiseVotingClassifier(linear_model.LogisticRegression()).fit(a, b)
    assert len(hard.estimators_) == 3
    votes = np.sum([one.predict(X) for one in parts], axis=0)
    np.testing.assert_array_equal(hard.predict(a).fetch(), (votes >= 2).astype(int))
    soft = BlockwiseVotingClassifier(linear_model.LogisticRegression(), voting="soft").fit(a, b)
    odds = np.mean([one.predict_proba(X) for one in parts], axis=0)
    np.testing.assert_allclose(soft.predict_proba(a).fetch(), odds)
    assert soft.score(a, b) == pytest.approx(float((odds.argmax(axis=1) == Y).mean()))
    frame, target = md.DataFrame(pd.DataFrame(X), chunk_size=50), mt.tensor(X[:, 0], chunk_size=30)
    mean = BlockwiseVotingRegressor(linear_model.LinearRegression()).fit(frame, target)
    np.testing.assert_allclose(mean.predict(frame).fetch(), X[:, 0], atol=1e-8)
    with pytest.raises(ValueError, match="hard"):
        BlockwiseVotingClassifier(linear_model.LogisticRegression(), voting="loud").fit(a, b)
    with pytest.raises(ValueError, match="values to learn"):
        hard.fit(a, b[:50])
