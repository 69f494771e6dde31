"""`engine=mars.pandas`: what comes out is what plain pandas gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas", minversion="3.0")

import mars  # noqa: E402  # after the check that pandas is new enough
import mars.pandas  # noqa: E402
from mars.errors import UsageError  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.Session]:
    opened = mars.new_session(n_cpu=2, default=True)
    yield opened
    opened.stop_server()


FRAME = pd.DataFrame(
    {"k": [1, 2, 3] * 7, "v": np.linspace(0, 1, 21), "s": list("abcdefghijklmnopqrstu")},
    index=[f"row {i}" for i in range(21)],
)


def scaled(row: Any, by: float = 1.0) -> float:
    return float(row["v"]) * by


def two(row: Any) -> Any:
    return pd.Series({"sum": row["k"] + row["v"], "text": row["s"] * 2})


@pytest.mark.parametrize(
    "func", [scaled, two, lambda row: None, lambda row: [row["k"]], lambda row: row["k"] > 1]
)
def test_rows(func: Callable[[Any], Any]) -> None:
    ours = FRAME.apply(func, axis=1, engine=mars.pandas)
    plain = FRAME.apply(func, axis=1)
    assert type(ours) is type(plain)
    (pd.testing.assert_frame_equal if ours.ndim == 2 else pd.testing.assert_series_equal)(
        ours, plain
    )


def test_further_arguments_and_columns() -> None:
    ours = FRAME.apply(scaled, axis=1, by=3, engine=mars.pandas)
    pd.testing.assert_series_equal(ours, FRAME.apply(scaled, axis=1, by=3))
    numbers = FRAME[["k", "v"]]
    pd.testing.assert_series_equal(numbers.apply(max, engine=mars.pandas), numbers.apply(max))
    pd.testing.assert_frame_equal(
        numbers.apply(lambda c: c + 1, engine=mars.pandas), numbers.apply(lambda c: c + 1)
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_raw_arrays(axis: int) -> None:
    numbers = FRAME[["k", "v"]]
    for func in (np.sum, lambda values: values * 2):
        ours = numbers.apply(func, axis=axis, raw=True, engine=mars.pandas)
        plain = numbers.apply(func, axis=axis, raw=True)
        assert np.allclose(ours, plain) and type(ours) is type(plain)


def test_map() -> None:
    holes = pd.Series([1.0, None, 3.0, 4.0] * 3, name="x")
    pd.testing.assert_series_equal(
        holes.map(lambda v: v + 1, na_action="ignore", engine=mars.pandas),
        holes.map(lambda v: v + 1, na_action="ignore"),
    )
    kinds = pd.Series(list("abcab"), dtype="category")
    pd.testing.assert_series_equal(kinds.map(str.upper, engine=mars.pandas), kinds.map(str.upper))


def test_empty_frames() -> None:
    for frame in (FRAME.iloc[:0], pd.DataFrame()):
        assert len(frame.apply(scaled, axis=1, engine=mars.pandas)) == 0


def test_the_function_runs_in_other_processes_and_an_engine_has_options() -> None:
    where = FRAME.apply(lambda row: os.getpid(), axis=1, engine=mars.pandas.Engine(blocks=4))
    assert os.getpid() not in set(where)
    with pytest.raises(ValueError, match="Unexpected kw: colour"):
        mars.pandas.Engine(colour="blue")


def test_an_error_names_the_rows_it_came_from() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        FRAME.apply(lambda row: 1 / (row["k"] - 3), axis=1, engine=mars.pandas)
    assert "<lambda> on rows(DataFrame(" in caught.value.__notes__[0]
    with pytest.raises(ZeroDivisionError) as caught:
        mars.pandas.apply_groups(FRAME.groupby("k"), lambda group: 1 / (group.name - 3))
    assert "<lambda> on groups(3, DataFrame(" in caught.value.__notes__[0]


def test_groups() -> None:
    def spread(group: Any, scale: int = 1) -> float:
        assert group.name in (1, 2, 3)
        return float((group["v"].max() - group["v"].min()) * scale)

    by_key = FRAME.groupby("k")
    pd.testing.assert_series_equal(
        mars.pandas.apply_groups(by_key, spread, scale=2), by_key.apply(spread, scale=2)
    )
    top = lambda group: group.nlargest(2, "v")
    pd.testing.assert_frame_equal(mars.pandas.apply_groups(by_key, top), by_key.apply(top))
    pd.testing.assert_series_equal(
        mars.pandas.apply_groups(by_key["v"], lambda v: v.sum()),
        by_key["v"].apply(lambda v: v.sum()),
    )
    with pytest.raises(UsageError, match="groupby"):
        mars.pandas.apply_groups(FRAME, spread)


def test_a_killed_worker_costs_no_row(tmp_path: Any) -> None:
    flag = str(tmp_path / "killed")

    def once(row: Any) -> int:
        if row["s"] == "k" and not os.path.exists(flag):
            with open(flag, "w"):
                pass
            os.kill(os.getpid(), 9)
        return int(row["k"])

    assert FRAME.apply(once, axis=1, engine=mars.pandas).tolist() == FRAME["k"].tolist()
    assert os.path.exists(flag)
