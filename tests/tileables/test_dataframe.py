"""Frames give what pandas gives, in the order of pandas."""

from __future__ import annotations

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
    "gcum": lambda d, e, m: d.groupby("a").b.cumsum(),
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


def test_names_that_are_not_there_say_what_to_use() -> None:
    for name in names.TOP_MISSING:
        with pytest.raises(NotImplementedError, match="is not there: "):
            getattr(md, name)
    for name in names.MISSING:
        with pytest.raises(NotImplementedError, match="is not there: "):
            getattr(md.DataFrame(ROWS), name)
