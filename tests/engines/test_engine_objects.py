"""Values large and small: whole, writable, private to each reader, and given back when dropped."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import mars.remote as mr

np = pytest.importorskip("numpy")

KIB = 1024
MIB = 1024 * KIB


def made(size: int, seed: int = 1) -> object:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def checksum(array: object) -> int:
    return int(np.asarray(array).astype(np.uint64).sum())


def spoil(array: object) -> int:
    before = checksum(array)
    array[:] = 0  # type: ignore[index]
    assert checksum(array) == 0
    return before


@pytest.mark.parametrize("size", [0, 1, 16 * KIB, 64 * KIB, 64 * KIB + 1, 256 * KIB, 3 * MIB])
def test_an_array_comes_back_whole_whatever_its_size(size: int) -> None:
    back = mr.spawn(made, args=(size,)).execute().fetch()
    assert back.dtype == np.uint8 and back.shape == (size,)
    assert checksum(back) == checksum(made(size))


@pytest.mark.parametrize("size", [8 * KIB, 256 * KIB, 4 * MIB])
def test_a_fetched_array_is_writable_and_nobody_sees_the_writes(size: int) -> None:
    call = mr.spawn(made, args=(size,)).execute()
    expected = checksum(made(size))
    first, second = call.fetch(), call.fetch()
    assert first.flags.writeable
    first[:] = 0
    assert checksum(second) == expected
    assert checksum(call.fetch()) == expected
    assert mr.spawn(checksum, args=(call,)).execute().fetch() == expected
    assert checksum(first) == 0


@pytest.mark.parametrize("size", [8 * KIB, 256 * KIB, 4 * MIB])
def test_an_input_array_is_writable_and_nobody_sees_the_writes(size: int) -> None:
    source = mr.spawn(made, args=(size,))
    spoilers = mr.ExecutableTuple([source, *(mr.spawn(spoil, args=(source,)) for _ in range(4))])
    expected = checksum(made(size))
    assert spoilers.execute().fetch()[1:] == [expected] * 4
    assert checksum(source.fetch()) == expected


@pytest.mark.parametrize("size", [8 * KIB, 256 * KIB, 4 * MIB])
def test_an_array_given_as_a_plain_argument_is_private_to_each_call(size: int) -> None:
    array = made(size)
    expected = checksum(array)
    calls = mr.ExecutableTuple([mr.spawn(spoil, args=(array,)) for _ in range(3)])
    assert calls.execute().fetch() == [expected] * 3
    assert checksum(array) == expected


@pytest.mark.parametrize("size", [256 * KIB, 4 * MIB, 64 * MIB])
def test_a_large_object_goes_through_several_calls(size: int) -> None:
    #  source ── inverted ── checksum
    #        └── checksum
    source = mr.spawn(np.ones, args=(size,), kwargs={"dtype": np.uint8})
    inverted = mr.spawn(np.subtract, args=(5, source))
    sums = [mr.spawn(np.sum, args=(a,), kwargs={"dtype": "u8"}) for a in (source, inverted)]
    assert mr.ExecutableTuple(sums).execute().fetch() == [size, 4 * size]


def test_outputs_of_one_call_may_be_large_and_are_apart() -> None:
    parts = mr.spawn(lambda: [made(MIB, seed) for seed in range(4)], n_output=4)
    arrays = mr.ExecutableTuple(parts).execute().fetch()
    assert [checksum(a) for a in arrays] == [checksum(made(MIB, seed)) for seed in range(4)]
    arrays[0][:] = 0
    assert checksum(parts[1].fetch()) == checksum(made(MIB, 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(60_000).reshape(200, 300),
        lambda: np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
        lambda: np.arange(120_000)[::2],
        lambda: np.zeros((0, 5)),
        lambda: np.array(3.5),
        lambda: np.array(["text", "é"]),
        lambda: np.array([{"a": 1}, None], dtype=object),
        lambda: np.zeros(1000, dtype=[("a", "i4"), ("b", "f8")]),
        lambda: np.datetime64("2020-01-01") + np.arange(10),
    ],
    ids=["2d", "fortran", "strided", "empty", "scalar", "text", "object", "records", "dates"],
)
def test_every_kind_of_array_arrives_and_comes_back(make: Callable[[], object]) -> None:
    array = make()
    back = mr.spawn(lambda a: a, args=(array,)).execute().fetch()
    assert back.dtype == array.dtype and back.shape == array.shape  # type: ignore[attr-defined]
    assert np.array_equal(back, array)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [100, 70_000, 3 * MIB])
def test_bytes_of_any_size_arrive_and_come_back(kind: type, size: int) -> None:
    value = kind(os.urandom(size))
    back = mr.spawn(lambda v: v, args=(value,)).execute().fetch()
    assert type(back) is kind and back == value


def test_a_structure_of_many_arrays_comes_back_whole() -> None:
    def build() -> dict[str, object]:
        return {f"k{i}": [np.full(10_000, i), f"text {i}"] for i in range(50)}

    back = mr.spawn(build).execute().fetch()
    assert all((back[f"k{i}"][0] == i).all() and back[f"k{i}"][1] == f"text {i}" for i in range(50))


def test_a_frame_arrives_and_comes_back() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": np.arange(50_000), "b": np.arange(50_000.0), "c": "text"})
    back = mr.spawn(lambda f: f, args=(frame,)).execute().fetch()
    pd.testing.assert_frame_equal(back, frame)
    back.loc[0, "a"] = 99
    assert frame.loc[0, "a"] == 0


def test_a_fetched_array_outlives_its_object() -> None:
    call = mr.spawn(made, args=(4 * MIB,)).execute()
    array = call.fetch()
    expected = checksum(array)
    del call
    gc.collect()
    for seed in range(2, 12):
        again = mr.spawn(made, args=(4 * MIB, seed)).execute()
        again.fetch()
        del again
    assert checksum(array) == expected


def test_an_input_outlives_the_handle_that_the_program_dropped() -> None:
    consumers = mr.ExecutableTuple(
        [mr.spawn(checksum, args=(mr.spawn(made, args=(MIB, seed)),)) for seed in range(8)]
    )
    gc.collect()
    assert consumers.execute().fetch() == [checksum(made(MIB, seed)) for seed in range(8)]


def _held_bytes() -> int:
    """Shared memory without a name that this process and its children hold, each file once."""
    import psutil

    held: dict[tuple[int, int], int] = {}
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    for process in processes:
        folder = Path(f"/proc/{process.pid}/fd")
        try:
            entries = list(folder.iterdir())
        except OSError:
            continue
        for entry in entries:
            try:
                if os.readlink(entry).startswith(("/memfd:", "/mars-arena")):
                    status = entry.stat()
                    held[status.st_dev, status.st_ino] = status.st_blocks * 512
            except OSError:
                continue
    return sum(held.values())


def test_dropped_objects_are_given_back(local_only: None, wait_until: Callable[..., None]) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see what processes hold")
    gc.collect()
    before = _held_bytes()
    kept = mr.spawn(np.ones, args=(16 * MIB,), kwargs={"dtype": np.uint8}).execute()
    assert _held_bytes() > before or before >= 16 * MIB
    most = 0
    for _ in range(16):
        call = mr.spawn(np.ones, args=(16 * MIB,), kwargs={"dtype": np.uint8}).execute()
        assert call.fetch()[-1] == 1
        most = max(most, _held_bytes())
        del call
        gc.collect()
    assert most - before < 160 * MIB
    assert kept.fetch().sum(dtype="u8") == 16 * MIB


def test_dropped_intermediates_of_a_chain_are_given_back(local_only: None) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see what processes hold")
    gc.collect()
    before = _held_bytes()
    call = mr.spawn(np.ones, args=(8 * MIB,), kwargs={"dtype": np.uint8})
    for _ in range(24):
        call = mr.spawn(np.add, args=(call, 1), kwargs={"dtype": np.uint8})
    assert call.execute().fetch()[0] == 25
    assert _held_bytes() - before < 160 * MIB
