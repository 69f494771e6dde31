"""Frames give what pandas gives, in the order of pandas."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mars.dataframe as md
import mars.tensor as mt
from mars.dataframe import names
from mars.errors import NotExecuted

RANDOM = np.random.RandomState(0)
ROWS = pd.DataFrame(
    {"a": RANDOM.randint(0, 5, 100), "b": RANDOM.rand(100), "s": RANDOM.choice(list("xyz"), 100)}
)
FEW = pd.DataFrame({"a": range(5), "c": list("vwxyz")})


def _timed(frame: Any) -> Any:
    frame = frame.copy()
    frame.index = pd.date_range("2020", periods=100, freq="s")
    return frame


CASES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "id": lambda d, e, m: d,
    "head": lambda d, e, m: d.head(40),
    "tail": lambda d, e, m: d.tail(35),
    "iloc": lambda d, e, m: d.iloc[20:70:3],
    "iloc2": lambda d, e, m: d.iloc[[1, 50, 99], [0, 1]],
    "ilocrow": lambda d, e, m: d.iloc[42],
    "loc": lambda d, e, m: d.loc[20:50],
    "loc1": lambda d, e, m: d.loc[33, "b"],
    "sum": lambda d, e, m: d[["a", "b"]].sum(),
    "ssum": lambda d, e, m: d.b.sum(),
    "mean": lambda d, e, m: d.b.mean(),
    "filter": lambda d, e, m: d[d.b > 0.5],
    "gsum": lambda d, e, m: d.groupby("a").b.sum(),
    "gagg": lambda d, e, m: d.groupby(["s", "a"]).agg({"b": ["mean", "sum"]}),
    "gaggn": lambda d, e, m: d.groupby("s", as_index=False).agg(t=("b", "sum"), n=("a", "max")),
    "gapply": lambda d, e, m: d.groupby("a")[["b"]].apply(lambda g: g.b.max() - g.b.min()),
    "gtrans": lambda d, e, m: d.groupby("a").b.transform("mean"),
    "gsize": lambda d, e, m: d.groupby("s").size(),
    "sort": lambda d, e, m: d.sort_values("b"),
    "sorta": lambda d, e, m: d.sort_values(["a", "b"], ascending=False),
    "sortidx": lambda d, e, m: d.sort_index(ascending=False),
    "reset": lambda d, e, m: d[d.b > 0.3].reset_index(drop=True),
    "reset2": lambda d, e, m: d.sort_values("b").reset_index(),
    "merge": lambda d, e, m: d.merge(e, on="a").sort_values("b").reset_index(drop=True),
    "mleft": lambda d, e, m: d.merge(e, on="a", how="left").sort_values("b").reset_index(drop=True),
    "concat": lambda d, e, m: m.concat([d, d], ignore_index=True),
    "concat1": lambda d, e, m: m.concat([d, e]),
    "apply": lambda d, e, m: d.apply(lambda r: r.a + r.b, axis=1),
    "apply0": lambda d, e, m: d[["a", "b"]].apply(lambda c: c.max()),
    "sapply": lambda d, e, m: d.b.apply(lambda x: x * 2),
    "map": lambda d, e, m: d.s.map({"x": 1, "y": 2, "z": 3}),
    "str": lambda d, e, m: d.s.str.upper(),
    "strc": lambda d, e, m: d.s.str.contains("x"),
    "roll": lambda d, e, m: d.b.rolling(5).mean(),
    "ewm": lambda d, e, m: d.b.ewm(alpha=0.5).mean(),
    "exp": lambda d, e, m: d.b.expanding().sum(),
    "desc": lambda d, e, m: d.describe(),
    "vc": lambda d, e, m: d.s.value_counts(),
    "dd": lambda d, e, m: d.drop_duplicates("a"),
    "nun": lambda d, e, m: d.s.nunique(),
    "quant": lambda d, e, m: d.b.quantile(0.3),
    "med": lambda d, e, m: d.b.median(),
    "std": lambda d, e, m: d.b.std(),
    "corr": lambda d, e, m: d[["a", "b"]].corr(),
    "cumsum": lambda d, e, m: d.b.cumsum(),
    "shift": lambda d, e, m: d.b.shift(2),
    "diff": lambda d, e, m: d.b.diff(),
    "fillna": lambda d, e, m: d.b.shift(1).fillna(0),
    "isin": lambda d, e, m: d.s.isin(["x", "y"]),
    "astype": lambda d, e, m: d.a.astype(float),
    "assign": lambda d, e, m: d.assign(z=1),
    "assign2": lambda d, e, m: d.assign(z=d.a * d.b),
    "drop": lambda d, e, m: d.drop(columns=["s"]),
    "rename": lambda d, e, m: d.rename(columns={"a": "A"}),
    "T": lambda d, e, m: d.T,
    "unique": lambda d, e, m: d.s.unique(),
    "setindex": lambda d, e, m: d.set_index("b"),
    "tailn": lambda d, e, m: d.tail(-35),
    "dropna1": lambda d, e, m: d.where(d.a > 1).dropna(axis=1, thresh=90),
    "category": lambda d, e, m: d.s.astype("category").cat.codes,
    "nafirst": lambda d, e, m: d.assign(b=d.b.where(d.b > 0.5)).sort_values(
        "b", na_position="first"
    ),
    "gunsorted": lambda d, e, m: d.groupby("s", sort=False).b.sum(),
    "gnunique": lambda d, e, m: d.groupby("a").s.nunique(),
    "gidx": lambda d, e, m: d.groupby("a").b.idxmax(),
    "groll": lambda d, e, m: d.groupby("a").b.rolling(2).sum(),
    "gcum": lambda d, e, m: d.groupby("a").b.cumsum(),
    "gtransf": lambda d, e, m: d.groupby("a")[["b"]].transform(lambda x: x - x.mean()),
    "glambda": lambda d, e, m: d.groupby("a").b.agg(lambda x: x.max() - x.min()),
    "ghead": lambda d, e, m: d.groupby("s").head(2),
    "gquant": lambda d, e, m: d.groupby(["a", "s"]).b.quantile(0.3),
    "unaligned": lambda d, e, m: d.b + d.b.sort_values(),
    "rowwise": lambda d, e, m: d[["a", "b"]].sub(d[["a", "b"]].mean()),
    "row": lambda d, e, m: d[["a", "b"]] + d[["a", "b"]].iloc[3],
    "shift-": lambda d, e, m: d.b.shift(-40),
    "diff40": lambda d, e, m: d[["a", "b"]].diff(40),
    "rollc": lambda d, e, m: d[["a", "b"]].rolling(41, min_periods=1, center=True).max(),
    "rolltime": lambda d, e, m: (
        d.set_axis(pd.date_range("2020", periods=100, freq="s")).b.rolling("40s").sum()
        if m is pd
        else _timed(d).b.rolling("40s").sum()
    ),
    "descmany": lambda d, e, m: d[["a", "b"]].describe(),
    "quantiles": lambda d, e, m: d[["a", "b"]].quantile([0.1, 0.7]),
    "concat3": lambda d, e, m: m.concat([d, d[["b", "a", "s"]]]),
    "transform": lambda d, e, m: d[["a", "b"]].transform(
        [np.sqrt, np.exp] if m is pd else [mt.sqrt, mt.exp]
    ),
    "eval": lambda d, e, m: m.eval("d.a + d.b"),
    "where": lambda d, e, m: d.b.where(d.b > 0.5, 0),
    "between": lambda d, e, m: d.b.between(0.2, 0.6),
    "pct": lambda d, e, m: d.b.pct_change(),
    "nl": lambda d, e, m: d.nlargest(5, "b"),
    "q": lambda d, e, m: d.query("b>0.5 and a<3"),
    "ari": lambda d, e, m: (d.a + d.b) * 2 - d.b,
    "neg": lambda d, e, m: -d.a,
    "dum": lambda d, e, m: m.get_dummies(d.s),
    "cut": lambda d, e, m: m.cut(d.b, 3),
    "agg": lambda d, e, m: d[["a", "b"]].agg(["sum", "mean"]),
    "agg2": lambda d, e, m: d.agg({"a": "sum", "b": "mean"}),
    "setidx": lambda d, e, m: d.set_index("b").sort_index(),
    "dup": lambda d, e, m: d.duplicated("a"),
    "stack": lambda d, e, m: d[["a", "b"]].stack(),
    "idx": lambda d, e, m: d.index,
    "melt": lambda d, e, m: d.melt(id_vars="s"),
    "piv": lambda d, e, m: d.pivot_table(index="s", columns="a", values="b"),
    "mod": lambda d, e, m: d.a.mode(),
    "clip": lambda d, e, m: d.b.clip(0.2, 0.4),
    "abs": lambda d, e, m: (-d.b).abs(),
    "rein": lambda d, e, m: d.reindex([1, 5, 200]),
    "cw": lambda d, e, m: d[["a", "b"]].corrwith(d.b),
    "gfirst": lambda d, e, m: d.groupby("a").first(),
    "gany": lambda d, e, m: d.groupby("a").any(),
    "samp": lambda d, e, m: d.sample(5, random_state=1),
}


def same(got: Any, wanted: Any) -> None:
    if isinstance(wanted, pd.DataFrame):
        pd.testing.assert_frame_equal(got, wanted)
    elif isinstance(wanted, pd.Series):
        pd.testing.assert_series_equal(got, wanted)
    elif isinstance(wanted, pd.Index):
        pd.testing.assert_index_equal(got, wanted)
    elif hasattr(wanted, "shape") and wanted.shape:
        assert list(got) == list(wanted)
    else:
        assert got == pytest.approx(wanted)


@pytest.mark.parametrize("name", CASES)
def test_gives_what_pandas_gives(name: str) -> None:
    case = CASES[name]
    got = case(md.DataFrame(ROWS, chunk_size=30), md.DataFrame(FEW, chunk_size=2), md)
    same(got.execute().fetch() if hasattr(got, "execute") else got, case(ROWS, FEW, pd))


def test_execute_returns_the_frame_and_fetch_needs_it() -> None:
    frame = md.DataFrame(ROWS, chunk_size=30)
    with pytest.raises(NotExecuted, match="unexecuted"):
        frame.fetch()
    assert (frame + frame).shape == (100, 3)  # known: no row is taken out
    assert np.isnan(frame[frame.a > 1].shape[0])
    assert frame.execute() is frame
    assert frame.shape == (100, 3) and len(frame) == 100
    same(frame.head(3).fetch(), ROWS.head(3))
    same(frame.iloc[35:50].fetch(), ROWS.iloc[35:50])


def test_texts_are_those_of_pandas_and_fetch_corners() -> None:
    frame = md.DataFrame(ROWS, chunk_size=30)
    assert repr(frame).startswith("DataFrame <op=")
    frame.execute()
    assert repr(frame) == repr(ROWS)
    assert repr(frame.b.execute()) == repr(ROWS.b)
    assert "100 rows" in str(frame._repr_html_())


def test_columns_are_set_and_taken_in_place() -> None:
    frame, plain = md.DataFrame(ROWS, chunk_size=30), ROWS.copy()
    for one in (frame, plain):
        one["n"] = one.a * 2
        one["k"] = 1
        one["l"] = list(range(100))
        one.insert(0, "first", one.b)
        one.pop("s")
        del one["a"]
    same(frame.to_pandas(), plain)
    frame.columns = plain.columns = list("vwxyz")[: len(plain.columns)]
    same(frame.to_pandas(), plain)


def test_csv_and_parquet_count_rows_over_all_files(tmp_path: Any) -> None:
    for i in range(3):
        ROWS.iloc[i * 30 : i * 30 + 30].to_csv(tmp_path / f"{i}.csv", index=False)
    frame = md.read_csv(f"{tmp_path}/*.csv")
    same(frame.to_pandas(), ROWS.iloc[:90])
    frame.to_parquet(f"{tmp_path}/parquet").execute()
    assert md.read_parquet(f"{tmp_path}/parquet").a.sum().execute().fetch() == ROWS.a[:90].sum()
    md.DataFrame(ROWS, chunk_size=30).to_csv(f"{tmp_path}/all.csv", index=False)
    same(pd.read_csv(tmp_path / "all.csv"), ROWS)
    same(md.read_csv(f"{tmp_path}/0.csv", nrows=4).to_pandas(), ROWS.head(4))


def test_frames_are_made_of_tensors_and_back() -> None:
    tensor = mt.tensor(np.arange(12).reshape(6, 2), chunk_size=3)
    frame = md.DataFrame(tensor, columns=["x", "y"])
    assert frame.sum().execute().fetch().to_dict() == {"x": 30, "y": 36}
    assert frame.to_tensor().sum().execute().fetch() == 66
    same(
        md.Series([3, 1, 2], name="n").sort_values().to_pandas(),
        pd.Series([3, 1, 2], name="n").sort_values(),
    )


def test_map_chunk_gets_frames_of_pandas() -> None:
    frame = md.DataFrame(ROWS, chunk_size=30)

    def mark(chunk: pd.DataFrame, chunk_index: Any) -> pd.DataFrame:
        return chunk.assign(chunk=chunk_index[0])

    got = frame.map_chunk(mark, with_chunk_index=True).to_pandas()
    assert got.chunk.tolist() == [i // 30 for i in range(100)]


def test_errors_of_functions_are_raised() -> None:
    def fail(row: Any) -> Any:
        raise LookupError("no such row")

    with pytest.raises(LookupError, match="no such row"):
        md.DataFrame(ROWS, chunk_size=30).apply(fail, axis=1).execute()
    with pytest.raises(KeyError):
        md.DataFrame(ROWS, chunk_size=30)["nothing"].execute()
    with pytest.raises(AttributeError):
        _ = md.DataFrame(ROWS).nothing


def test_each_name_of_the_table_is_there() -> None:
    assert all(getattr(md, name) is not None for name in names.TOP)


def test_merges_leave_out_columns_that_nobody_asks_for() -> None:
    one, two = md.DataFrame(ROWS, chunk_size=30), md.DataFrame(ROWS, chunk_size=40)
    merged = one.merge(two, on="a")
    text = merged.b_x.sum().lazy.simplify().expr.tree_repr()
    assert "'s'" not in text and "Numbered" in merged.lazy.expr.tree_repr()
    wanted = ROWS.merge(ROWS, on="a")
    assert merged.b_x.sum().to_pandas() == pytest.approx(wanted.b_x.sum())
    assert list(merged.to_pandas().index) == list(range(len(wanted)))


@pytest.mark.parametrize("how", ["inner", "left"])
def test_merges_with_a_small_frame_keep_the_order_of_pandas(how: Any) -> None:
    left, right = md.DataFrame(ROWS, chunk_size=30), ROWS[["a", "b"]].iloc[::-3]
    wanted = ROWS.merge(right, on="a", how=how)
    for other in (right, md.DataFrame(right), md.DataFrame(right, chunk_size=8)):
        merged = left.merge(other, how, on="a")
        assert merged.lazy.npartitions == 4
        same(merged.to_pandas(), wanted)


def test_what_writes_is_not_tried_with_made_up_rows(tmp_path: Any) -> None:
    import sqlite3

    file = sqlite3.connect(tmp_path / "rows.db")
    md.DataFrame(ROWS, chunk_size=30).to_sql("t", file, index=False).execute()
    assert file.execute("SELECT count(*) FROM t").fetchall() == [(100,)]
    file.close()
    assert md.DataFrame(FEW, chunk_size=2).to_dict() == FEW.to_dict()
    md.DataFrame(ROWS, chunk_size=30).to_parquet(str(tmp_path / "p-*.parquet")).execute()
    assert len(list(tmp_path.glob("p-*.parquet"))) == 4


def test_a_worker_killed_in_the_middle_of_a_merge_costs_only_its_chunk(tmp_path: Any) -> None:
    def counted(chunk: Any, folder: str) -> Any:
        number = int(chunk.index[0])
        with open(f"{folder}/{number}", "a") as file:
            file.write("x")
        if number == 60 and not os.path.exists(f"{folder}/killed"):
            open(f"{folder}/killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return chunk

    # The left side is finished before a chunk of the right side kills its worker.
    left = md.DataFrame(ROWS, chunk_size=30).map_chunk(counted, (str(tmp_path),))
    (tmp_path / "killed").touch()
    left.execute()
    (tmp_path / "killed").unlink()
    right = md.DataFrame(ROWS.set_index(ROWS.index + 1000), chunk_size=30)
    right = right.map_chunk(
        lambda chunk, folder: counted(chunk.set_index(chunk.index - 1000), folder), (str(tmp_path),)
    )
    merged = left.merge(right, on=["a", "s"]).to_pandas()
    order = ["a", "s", "b_x", "b_y"]
    same(
        merged.sort_values(order)[order].reset_index(drop=True),
        ROWS.merge(ROWS, on=["a", "s"]).sort_values(order)[order].reset_index(drop=True),
    )
    runs = {one: len((tmp_path / one).read_text()) for one in ("0", "30", "60", "90")}
    assert runs["60"] == 3, "once on the left side, twice on the right side"
    assert (tmp_path / "killed").exists() and runs["0"] >= 2 and runs["90"] >= 2


def test_frames_with_several_levels_of_labels() -> None:
    index = pd.MultiIndex.from_product([[0, 1], list("abc")], names=["i", "j"])
    plain = pd.DataFrame({"x": range(6), "y": 1.5}, index=index)
    frame = md.DataFrame(plain, chunk_size=4)
    same(frame.to_pandas(), plain)
    same(frame.loc[1].to_pandas(), plain.loc[1])
    same(frame.groupby(level="i").sum().to_pandas(), plain.groupby(level="i").sum())
    same(frame.reset_index(level="j").to_pandas(), plain.reset_index(level="j"))
    same(frame.unstack().to_pandas(), plain.unstack())


def test_elements_labels_and_columns_are_set_in_place() -> None:
    def change(m: Any, frame: Any) -> Any:
        frame[frame > 3] = 0
        frame.index = range(10, 15)
        frame.x = frame.y + 1
        frame += 1
        row = frame.x
        row[row > 2] = 9
        return m.concat([frame, row.to_frame()], axis=1)

    plain = pd.DataFrame({"x": range(5), "y": range(5)})
    same(change(md, md.DataFrame(plain, chunk_size=2)).to_pandas(), change(pd, plain.copy()))


def test_each_chunk_meets_each_other_one_and_reductions_of_ones_own() -> None:
    class Span(md.CustomReduction):  # type: ignore[misc, name-defined]
        def agg(self, column: Any) -> Any:
            return column.max() - column.min()

    frame = md.DataFrame(ROWS[["a", "b"]], chunk_size=30)
    wanted = ROWS[["a", "b"]].max() - ROWS[["a", "b"]].min()
    same(frame.agg(Span()).to_pandas(), wanted)
    pairs = frame.cartesian_chunk(
        frame, lambda one, two: pd.DataFrame({"n": [len(one) + len(two)]})
    )
    assert len(pairs.to_pandas()) == 16 and pairs.n.sum().to_pandas() == 2 * 4 * 100
    left, right = frame.align(md.DataFrame(FEW, chunk_size=2), join="inner", axis=0)
    assert len(left.to_pandas()) == len(right.to_pandas()) == 5


def test_functions_of_two_frames_give_what_pandas_gives() -> None:
    frame, few = md.DataFrame(ROWS, chunk_size=30), md.DataFrame(FEW, chunk_size=2)
    same(md.concat({"u": frame, "v": frame}).to_pandas(), pd.concat({"u": ROWS, "v": ROWS}))
    by = ["a", "b"]
    same(
        md.merge_asof(frame.sort_values(by), few, on="a").to_pandas(),
        pd.merge_asof(ROWS.sort_values(by), FEW, on="a"),
    )
    same(md.merge_ordered(frame, few, on="a").to_pandas(), pd.merge_ordered(ROWS, FEW, on="a"))
    other = pd.DataFrame({"b": [-1.0, np.nan, -3.0]}, index=[0, 1, 50])
    wanted = ROWS.copy()
    wanted.update(other)
    frame.update(md.DataFrame(other, chunk_size=2))
    same(frame.to_pandas(), wanted)


def test_the_originals_hints_and_named_reductions(capsys: pytest.CaptureFixture[str]) -> None:
    frame = md.DataFrame(ROWS, chunk_size=30)
    got = frame.groupby("s").agg(
        t=md.NamedAgg("b", "sum"), n=md.NamedAgg(column="a", aggfunc="max")
    )
    same(got.to_pandas(), ROWS.groupby("s").agg(t=("b", "sum"), n=("a", "max")))
    texts = frame.map_chunk(lambda c: c.a * 2, output_type="series", dtype=int, name="a")
    same(texts.to_pandas(), ROWS.a * 2)
    frame.info()
    assert "100 entries, 0 to 99" in capsys.readouterr().out


def test_categories_are_those_of_the_rows() -> None:
    series = md.DataFrame(ROWS, chunk_size=30).s.astype("category")
    assert list(series.cat.categories) == list("xyz")


def test_names_that_are_not_there_say_what_to_use() -> None:
    for name in names.TOP_MISSING:
        with pytest.raises(NotImplementedError, match="is not there: "):
            getattr(md, name)
    for name in names.MISSING:
        with pytest.raises(NotImplementedError, match="is not there: "):
            getattr(md.DataFrame(ROWS), name)
