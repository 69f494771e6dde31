"""Small frames travel between calls as bytes, and are afterwards what they were."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas", minversion="3")
pytest.importorskip("dask")

from mars.dask.program import Program, run_group  # noqa: E402  # after the checks
from mars.dask.small_frames import Packer, unpacked  # noqa: E402
from mars.settings import DASK_SMALL_FRAME_BYTES  # noqa: E402


def table(rows: int = 20) -> Any:
    return pd.DataFrame(
        {
            "k": np.arange(rows),
            "v": np.arange(rows) / 3,
            "yes": np.arange(rows) % 2 == 0,
            "small": np.arange(rows, dtype="i1"),
            "z": np.arange(rows) * 1j,
            "last": np.arange(rows)[::-1],
        }
    )


def parts() -> dict[str, Any]:
    whole = table()
    named = whole.set_index("v")
    twice = whole[["k", "k"]]
    levels = whole[["k", "last"]]
    levels.columns = pd.MultiIndex.from_tuples([("a", 1), ("a", 2)], names=["first", None])
    return {
        "all": whole,
        "a slice": whole.iloc[3:7],
        "no row": whole.iloc[:0],
        "no column": whole[[]],
        "nothing": pd.DataFrame(),
        "every second row, backwards": whole.iloc[::-2],
        "taken rows": whole.take([5, 3, 3]),
        "an index with a name": named.iloc[2:9],
        "a range with a name": whole.rename_axis("row"),
        "not a number": whole.assign(v=np.nan),
        "columns of one name": twice,
        "levels of columns": levels,
        "numbers as columns": pd.DataFrame(np.arange(6).reshape(2, 3)),
        "names of columns": whole.rename_axis("what", axis=1),
    }


@pytest.mark.parametrize("which", parts())
def test_a_frame_of_numbers_is_what_it_was(which: str) -> None:
    frame = parts()[which]
    packer = Packer()
    for one in (table(3), frame, frame.iloc[:2], frame):  # kinds that take turns
        packed = packer(one)
        assert type(packed) is tuple
        again: Any = unpacked(pickle.loads(pickle.dumps(packed)))
        pd.testing.assert_frame_equal(again, one, check_exact=True)
        assert again.index.equals(one.index) and type(again.index) is type(one.index)
        assert again.columns.names == one.columns.names


def test_what_comes_can_be_written_to_and_shares_nothing() -> None:
    packed = Packer()(table())
    first, second = unpacked(packed), unpacked(packed)
    assert isinstance(first, pd.DataFrame) and isinstance(second, pd.DataFrame)
    first.loc[0, "k"] = 99
    first.columns = list("abcdef")
    first.index.name = "row"
    pd.testing.assert_frame_equal(second, table())
    pd.testing.assert_frame_equal(unpacked(packed), table())


def test_whatever_else_there_is_stays_as_it_is() -> None:
    own: Any = type("Own", (pd.DataFrame,), {})
    whole = table()
    noted = table()
    noted.attrs["unit"] = "m"
    others: list[object] = [
        whole.assign(text="a"),
        whole.assign(what=pd.Series([object()] * 20, dtype=object)),
        whole.assign(when=pd.Timestamp("2026-01-01")),
        whole.assign(kind=pd.Categorical(["a", "b"] * 10)),
        whole.assign(perhaps=pd.array([1, None] * 10, dtype="Int64")),
        whole.set_index(["k", "v"]),
        whole.set_index(pd.date_range("2026-01-01", periods=20)),
        whole.set_index(pd.Index(list("abcdefghijklmnopqrst"))),
        whole.set_flags(allows_duplicate_labels=False),
        noted,
        own({"a": [1]}),
        table(DASK_SMALL_FRAME_BYTES // 8),
        whole["k"],
        whole.to_numpy(),
        ("a", "b", "c", "d", "e"),
        None,
    ]
    packer = Packer()
    for one in others:
        assert packer(one) is one
        assert unpacked(one) is one


def test_a_group_packs_only_what_other_groups_read() -> None:
    from dask.task_spec import Task, TaskRef

    cut = Task("cut", table, 4)
    program = Program([cut], ["cut"], {}, [])
    assert isinstance(run_group(program), pd.DataFrame)
    inside = run_group(Program([cut], ["cut"], {}, [], inside=True))
    assert type(inside) is tuple
    total = Task("total", pd.DataFrame.sum, TaskRef("cut"))
    pd.testing.assert_series_equal(
        run_group(Program([total], ["total"], {}, ["cut"]), inside), table(4).sum()
    )
