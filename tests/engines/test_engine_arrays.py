"""Arrays that are more than plain ones: memory-mapped files, and subclasses of numpy's array."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import mars.remote as mr

np = pytest.importorskip("numpy")


@pytest.fixture
def mapped(tmp_path: Path) -> Any:
    array = np.memmap(tmp_path / "data", np.float64, "w+", shape=(100, 50))
    array[:] = np.arange(5000).reshape(100, 50)
    return array


def fill(array: Any, value: float) -> None:
    array[:] = value


def test_what_calls_write_to_a_mapped_file_is_in_it(mapped: Any) -> None:
    calls = [mr.spawn(fill, args=(mapped[i : i + 10], i)) for i in range(0, 100, 10)]
    mr.ExecutableTuple(calls).execute()
    assert (mapped[:, 0] == np.arange(100) // 10 * 10).all()


def test_a_part_of_a_mapped_file_is_that_part(mapped: Any) -> None:
    for part in (mapped, mapped[3:7, 2:9], mapped[::2, ::3], mapped.T, mapped[5], mapped[2:3, 4]):
        kind, same, shape = mr.spawn(
            lambda a, b: (type(a), bool((a == b).all()), a.shape), args=(part, np.array(part))
        ).to_object()
        assert kind is np.memmap and same and shape == part.shape


def test_a_mapped_file_that_may_only_be_read_stays_so(mapped: Any) -> None:
    mapped.flush()
    reading = np.memmap(mapped.filename, mapped.dtype, "r", shape=mapped.shape)
    with pytest.raises(ValueError, match="read-only"):
        mr.spawn(fill, args=(reading, 1)).execute()
    assert mapped[0, 1] == 1


def test_what_is_written_to_a_private_mapping_stays_private(mapped: Any) -> None:
    mapped.flush()
    private = np.memmap(mapped.filename, mapped.dtype, "c", shape=mapped.shape)
    private[0, 0] = -5
    assert mr.spawn(lambda a: float(a[0, 0]), args=(private,)).to_object() == -5
    mr.spawn(fill, args=(private, 1)).execute()
    assert private[0, 1] == mapped[0, 1] == 1 and mapped[0, 0] == 0


def test_a_mapped_array_as_a_result_is_a_copy(tmp_path: Path) -> None:
    def make(folder: str) -> Any:
        made = np.memmap(f"{folder}/made", np.int32, "w+", shape=(1000,))
        made[:] = 7
        return made

    back = mr.spawn(make, args=(str(tmp_path),)).to_object()
    (tmp_path / "made").unlink()
    assert (back == 7).all()


def test_a_file_that_is_gone_is_named(mapped: Any, tmp_path: Path) -> None:
    call = mr.spawn(lambda a: a.sum(), args=(mapped,))
    (tmp_path / "data").unlink()
    with pytest.raises(FileNotFoundError, match=r"memory-mapped from .*data"):
        call.execute()


class Tagged(np.ndarray):  # type: ignore[misc]
    """A subclass as projects have them."""


SUBCLASSES = {
    "matrix": np.arange(60_000.0).reshape(2, -1).view(np.matrix),
    "masked": np.ma.MaskedArray(np.arange(60_000.0), np.arange(60_000) % 3 == 0, fill_value=-1),
    "records": np.rec.fromarrays([np.arange(30_000), np.arange(30_000.0)], names="a,b"),
    "of the project": np.arange(60_000.0).view(Tagged),
    "in the order of Fortran": np.asfortranarray(np.ones((100, 600))).view(np.matrix),
}


@pytest.mark.parametrize("what", SUBCLASSES)
def test_subclasses_arrive_and_come_back_as_they_are(what: str) -> None:
    value = SUBCLASSES[what]
    back = mr.spawn(lambda a: a, args=(value,)).to_object()
    assert type(back) is type(value) and back.dtype == value.dtype and back.shape == value.shape
    assert bool(np.all(back == value))
    if isinstance(value, np.ma.MaskedArray):
        assert (back.mask == value.mask).all() and back.fill_value == value.fill_value
    total = mr.spawn(lambda a: a.dtype.str, args=(value,)).to_object()
    assert total == value.dtype.str


def test_a_large_subclass_is_not_copied_into_the_pickle() -> None:
    value = np.zeros((4_000, 1_000)).view(np.matrix)
    tracemalloc.start()
    try:
        mr.spawn(len, args=(value,))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < value.nbytes / 4
