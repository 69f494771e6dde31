"""What programs of the original write otherwise than those of numpy, pandas and scikit-learn."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mars
import mars.dataframe as md
import mars.tensor as mt

DATA = np.random.RandomState(0).rand(12, 4)
FRAME = pd.DataFrame(DATA, columns=list("abcd"))


def computed(value: Any) -> Any:
    return value.execute().fetch()


def frame(chunk_size: int = 5) -> Any:
    return md.DataFrame(FRAME, chunk_size=chunk_size)


def test_what_changes_a_tensor_in_place_keeps_its_type_or_is_refused_as_by_numpy() -> None:
    small = mt.arange(4, dtype="float32", chunk_size=2)
    small *= np.float64(2.5)
    assert small.dtype == np.float32 and computed(small).tolist() == [0, 2.5, 5, 7.5]
    whole = mt.arange(4, chunk_size=2)
    with pytest.raises(TypeError, match="a tensor of int64 cannot hold"):
        whole /= 2.5
    whole //= 2
    assert computed(whole).tolist() == [0, 0, 1, 1]


# -- names ----------------------------------------------------------------------------------------


def test_modules_of_the_original_have_the_names_of_their_package() -> None:
    from mars.dataframe.datasource.dataframe import from_pandas
    from mars.dataframe.merge import concat
    from mars.tensor.arithmetic import truediv
    from mars.tensor.datasource import tensor

    assert (from_pandas, concat, tensor) == (md.from_pandas, md.concat, mt.tensor)
    assert truediv is mt.true_divide
    assert callable(mt.reshape)  # which was a module, too


def test_a_star_brings_functions_but_none_that_python_has() -> None:
    scope: dict[str, object] = {}
    exec("from mars.tensor import *", scope)
    assert scope["tensor"] is mt.tensor
    assert "sum" not in scope


# -- tensors --------------------------------------------------------------------------------------


def test_cholesky_gives_the_upper_factor_unless_asked_as_numpy_asks() -> None:
    matrix = DATA.T @ DATA + np.eye(4)
    t = mt.tensor(matrix, chunk_size=2)
    lower = np.linalg.cholesky(matrix)
    np.testing.assert_allclose(computed(mt.linalg.cholesky(t)), lower.T)
    np.testing.assert_allclose(computed(mt.linalg.cholesky(t, lower=True)), lower)
    np.testing.assert_allclose(computed(np.linalg.cholesky(t)), lower)


def test_an_order_that_says_how_to_count_is_not_one_in_memory() -> None:
    places = mt.unravel_index(mt.tensor([22, 41, 37], chunk_size=1), (7, 6), order="F")
    wanted = np.unravel_index([22, 41, 37], (7, 6), order="F")
    np.testing.assert_array_equal([computed(one) for one in places], wanted)


def test_sums_go_on_over_chunks_that_turn_out_empty() -> None:
    t = mt.tensor(np.arange(10), chunk_size=3)
    np.testing.assert_array_equal(computed(t[t > 4].cumsum()), np.arange(5, 10).cumsum())


def test_rows_and_columns_in_memory_are_as_numpy_has_them() -> None:
    by_columns = np.asfortranarray(DATA)
    t = mt.tensor(by_columns, chunk_size=5)
    assert computed(t.reshape(4, 12)).flags.c_contiguous
    assert computed(t.reshape(4, 12, order="F")).flags.f_contiguous
    assert computed(t.cumsum(axis=0)).flags.f_contiguous


def test_a_shape_that_is_not_known_yet_is_broadcast() -> None:
    t = mt.tensor(np.arange(4), chunk_size=2)
    made = mt.broadcast_to(t[t > 1], (3, 2))
    assert made.shape == (3, 2)
    np.testing.assert_array_equal(computed(made), [[2, 3]] * 3)


def test_variances_of_all_rows_are_those_that_distances_are_measured_by() -> None:
    from scipy.spatial import distance

    t = mt.tensor(DATA, chunk_size=5)
    for metric in ("seuclidean", "mahalanobis"):
        made = mt.spatial.distance.cdist(t, t[:7], metric)
        np.testing.assert_allclose(computed(made), distance.cdist(DATA, DATA[:7], metric))
    out = mt.empty((12, 12))
    mt.spatial.distance.cdist(t, t, out=out)
    np.testing.assert_allclose(computed(out), distance.cdist(DATA, DATA), atol=1e-9)


def test_a_test_has_a_statistic_and_a_pvalue() -> None:
    from scipy import stats

    one, two = mt.tensor(DATA[:, 0], chunk_size=5), mt.tensor(DATA[:, 1], chunk_size=7)
    for name, more in (("ttest_ind", {"alternative": "less"}), ("ks_2samp", {}), ("ttest_rel", {})):
        made = getattr(mt.stats, name)(one, two, **more)
        wanted = getattr(stats, name)(DATA[:, 0], DATA[:, 1], **more)
        np.testing.assert_allclose(made.execute().fetch(), (wanted.statistic, wanted.pvalue))
        np.testing.assert_allclose(made.statistic.fetch(), wanted.statistic)


def test_hints_of_the_original_have_no_effect() -> None:
    t = mt.tensor([1, 2, 2], chunk_size=2)
    assert computed(mt.bincount(t, chunk_size_limit=10)).tolist() == [0, 1, 2]
    assert computed(mt.setdiff1d(t, [1], aggregate_size=2)).tolist() == [2]
    assert computed(mt.full((2, 2), [1, 2], chunk_size=1)).tolist() == [[1, 2], [1, 2]]
    state = mt.random.RandomState.from_numpy(np.random.RandomState(0))
    other = mt.random.RandomState.from_numpy(np.random.RandomState(0))
    assert computed(state.rand(3)).tolist() == computed(other.rand(3)).tolist()


# -- frames ---------------------------------------------------------------------------------------


def same(made: Any, wanted: Any) -> None:
    made = computed(made)
    if isinstance(wanted, pd.DataFrame):
        pd.testing.assert_frame_equal(made, wanted)
    elif isinstance(wanted, pd.Series):
        pd.testing.assert_series_equal(made, wanted)
    elif isinstance(wanted, pd.Index):
        pd.testing.assert_index_equal(made, wanted)
    else:
        np.testing.assert_array_equal(made, wanted)


def test_what_needs_all_rows_does_not_look_at_single_chunks() -> None:
    df = frame()
    same(df.a.apply(["sum", "max"]), FRAME.a.apply(["sum", "max"]))
    other = pd.Series(range(12), index=range(2, 14))
    same(df.add(other, axis=0), FRAME.add(other, axis=0))
    same(df.drop(index=[1]), FRAME.drop(index=[1]))
    same(df.rank(axis=1), FRAME.rank(axis=1))
    same(df.corr(min_periods=13), FRAME.corr(min_periods=13))
    same(df.index.to_frame(index=False), FRAME.index.to_frame(index=False))
    lists = FRAME.assign(e=[[1, 2]] * 12)
    same(md.DataFrame(lists, chunk_size=5).explode("e", ignore_index=True),
         lists.explode("e", ignore_index=True))  # fmt: skip
    twice = FRAME.set_axis(list("aabc"), axis=1)
    same(md.DataFrame(twice, chunk_size=5)["a"], twice["a"])
    same(df[["a", "a"]], FRAME[["a", "a"]])


def test_new_labels_are_the_ones_that_frames_are_joined_by() -> None:
    one = pd.DataFrame({"k": [1, 6, 11, 16], "x": range(4)})
    two = pd.DataFrame({"k": [6, 16, 30, 1, 2], "y": range(5)})
    made = md.DataFrame(one, chunk_size=2).set_index("k").join(
        md.DataFrame(two, chunk_size=3).set_index("k"), method="shuffle"
    )  # fmt: skip
    same(made.sort_index(), one.set_index("k").join(two.set_index("k")).sort_index())


def test_whole_numbers_stay_whole_beside_others() -> None:
    mixed = FRAME.assign(n=range(12))
    same(md.DataFrame(mixed, chunk_size=5).cumsum(), mixed.cumsum())


def test_groups_whose_results_have_rows_are_looked_at_together() -> None:
    keyed = FRAME.assign(k=[1, 2, 3, 4] * 3)
    made = md.DataFrame(keyed, chunk_size=5).groupby("k").apply(lambda rows: rows.a)
    same(made, keyed.groupby("k").apply(lambda rows: rows.a))
    counted = md.DataFrame(keyed, chunk_size=5).groupby("k", as_index=False).size()
    same(counted, keyed.groupby("k", as_index=False).size())


def test_expressions_see_variables_of_the_caller() -> None:
    limit = 0.5
    same(frame().query("a > @limit"), FRAME.query("a > @limit"))
    same(frame().eval("a + @limit"), FRAME.a + limit, )  # fmt: skip


def test_hints_about_frames_have_no_effect() -> None:
    df = frame()
    same(df.sort_values("a", parallel_kind="PSRS", nrows=3), FRAME.sort_values("a").head(3))
    same(df.a.sort_values(psrs_kinds=["quicksort"] * 3), FRAME.a.sort_values())
    same(df.a.map(lambda x: x + 1, dtype=float, memory_scale=2), FRAME.a.map(lambda x: x + 1))
    same(df.reindex([3, 1], enable_sparse=True), FRAME.reindex([3, 1]))
    assert len(computed(df.sample(3, always_multinomial=True))) == 3
    same(df.rechunk({0: 4}), FRAME)


def test_forms_of_older_versions_of_pandas() -> None:
    df = frame()
    row = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    same(df.append(row, ignore_index=True),
         pd.concat([FRAME, pd.DataFrame([row])], ignore_index=True))  # fmt: skip
    assert computed(md.Series([1, 2], chunk_size=1).is_monotonic)
    assert computed(df.a.is_unique)
    records = np.ones(3, dtype=[("x", int), ("y", float)])
    same(md.DataFrame.from_records(records), pd.DataFrame.from_records(records))
    same(md.Index(pd.MultiIndex.from_tuples([(1, 2), (3, 4)])),
         pd.MultiIndex.from_tuples([(1, 2), (3, 4)]))  # fmt: skip


def test_functions_take_tensors_indices_and_lists() -> None:
    same(
        md.to_datetime(mt.tensor([1, 2], chunk_size=1), unit="D"), pd.to_datetime([1, 2], unit="D")
    )
    same(md.isna(md.Index([1.0, None])), np.array([False, True]))
    same(md.to_numeric(["1.0", "2"]), np.array([1.0, 2.0]))
    same(mt.sqrt(frame()), np.sqrt(FRAME))
    same(frame().iloc[mt.tensor(FRAME.a.to_numpy() > 0.5)], FRAME[FRAME.a > 0.5])


def test_a_reduction_of_ones_own_passes_tuples_on() -> None:
    class Both(md.CustomReduction):
        def pre(self, value: Any) -> Any:
            return value, value * 2

        def agg(self, one: Any, two: Any) -> Any:  # type: ignore[override]
            return one.sum(), two.sum()

        def post(self, one: Any, two: Any) -> Any:  # type: ignore[override]
            return one + two

    np.testing.assert_allclose(computed(frame().a.agg(Both())), 3 * FRAME.a.sum())


# -- models ---------------------------------------------------------------------------------------


def test_what_a_model_learned_can_be_fetched_and_is_an_array() -> None:
    pytest.importorskip("sklearn")
    from mars.learn.cluster import KMeans
    from mars.learn.preprocessing import LabelBinarizer, StandardScaler

    model = KMeans(n_clusters=2, random_state=0, n_init=1).fit(mt.tensor(DATA, chunk_size=5))
    labels = model.labels_.fetch()
    assert type(labels) is np.ndarray
    assert repr(model.labels_) == repr(labels)
    assert (model.labels_ == labels).all()
    assert pickle.loads(pickle.dumps(model)).cluster_centers_.fetch().shape == (2, 4)
    assert type(model.to_local().labels_) is np.ndarray
    scaled = StandardScaler().fit_transform(DATA)
    assert scaled.execute().fetch().shape == DATA.shape
    assert LabelBinarizer().fit_transform(["a", "b", "c"]).fetch().shape == (3, 3)


def test_arguments_of_the_original_for_ensembles_and_shuffles() -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LinearRegression

    from mars.learn.ensemble import BaggingRegressor
    from mars.learn.model_selection import train_test_split
    from mars.learn.utils import shuffle

    model = BaggingRegressor(base_estimator=LinearRegression(), n_estimators=2)
    assert len(computed(model.fit(DATA, DATA[:, 0]).predict(mt.tensor(DATA, chunk_size=5)))) == 12
    shuffled = computed(shuffle(mt.tensor(DATA, chunk_size=5), axes=(0, 1), random_state=0))
    assert sorted(shuffled.ravel()) == sorted(DATA.ravel())
    train, test = train_test_split(DATA, test_size=3)
    assert (len(train.fetch()), len(test.fetch())) == (9, 3)


def test_values_that_are_none_among_several_results_stay() -> None:
    pytest.importorskip("sklearn")
    from mars.learn.metrics import precision_recall_fscore_support

    made = precision_recall_fscore_support([0, 1, 1], [0, 1, 0], average="macro")
    assert made[3] is None
    assert 0 < mars.fetch(made[0]) < 1
