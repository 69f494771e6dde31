"""A journal loses what is damaged, and nothing else; it never gives a wrong value."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mars
import mars.remote as mr
from mars.checkpoint import journal
from mars.checkpoint import writer as writing
from mars.checkpoint.framing import framed, unframed
from mars.checkpoint.index import Index
from mars.checkpoint.journal import record, scan
from mars.checkpoint.local_folder import LocalFolder
from mars.checkpoint.opening import problem_lines
from mars.checkpoint.reading import Damaged, body_of
from mars.checkpoint.writer import Entry, Writer

SEED = int(os.environ.get("MARS_SEED", "1"))


def work(index: int) -> tuple[int, bytes]:
    print("work", index)
    return index, bytes([index]) * 10


def program(folder: Path, count: int = 6) -> tuple[list[Any], int]:
    """Values, and how many calls were run for them."""
    with mars.new_session(engine="inline", n_cpu=1, checkpoint=folder) as session:
        objects = mars.execute([mr.spawn(work, index) for index in range(count)])
        return mars.fetch(objects), session.checkpoint.executed


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, bytes, list[Any]]:
    """A folder, its journal and its values; the last record is the last call's."""
    folder = tmp_path / "otto"
    values, executed = program(folder)
    assert executed == 6
    return folder, (folder / "journal.mars").read_bytes(), values


def test_a_record_that_is_cut_off_at_any_byte_costs_that_record_alone(
    kept: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, data, values = kept
    *_, last = scan(0, data)
    assert isinstance(last, journal.Raw) and last.kind == journal.CALL
    for end in range(last.position, len(data) + 1):
        (folder / "journal.mars").write_bytes(data[:end])
        found, executed = program(folder)
        assert found == values
        assert executed == (end < len(data))
        told = capfd.readouterr().err
        assert ("the last record is cut off" in told) is (last.position < end < len(data))
        # What was cut off is gone, and what came after it is whole.
        assert program(folder) == (values, 0)
        assert not capfd.readouterr().err


def test_a_flipped_bit_at_any_byte_costs_one_call_at_the_most(kept: Any, tmp_path: Path) -> None:
    folder, data, values = kept
    chance = random.Random(SEED)
    broken = tmp_path / "broken"
    broken.mkdir()
    source = LocalFolder(str(folder), create=False)
    everything = set(Index(source).calls)
    source.close()
    assert len(everything) == 6
    lost = []
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << chance.randrange(8)
        (broken / "journal.mars").write_bytes(changed)
        source = LocalFolder(str(broken), create=False)
        index = Index(source)
        source.close()
        assert set(index.calls) <= everything
        assert len(index.problems) <= 1
        lost.append(6 - len(index.calls))
        assert lost[-1] <= 1
    assert sum(lost) > len(data) // 3  # most bytes belong to calls
    for position in chance.sample(range(len(data)), 40):
        shutil.rmtree(folder)
        folder.mkdir()
        changed = bytearray(data)
        changed[position] ^= 1 << chance.randrange(8)
        (folder / "journal.mars").write_bytes(changed)
        found, executed = program(folder)
        assert found == values
        assert executed == lost[position]
        assert program(folder) == (values, 0)


def test_many_damaged_places_cost_what_stood_there(kept: Any) -> None:
    folder, data, values = kept
    chance = random.Random(SEED)
    for _ in range(30):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            start = chance.randrange(len(data))
            changed[start : start + chance.randrange(1, 80)] = chance.randbytes(
                chance.randrange(1, 80)
            )
        (folder / "journal.mars").write_bytes(changed)
        assert program(folder)[0] == values
        assert program(folder) == (values, 0)


def test_a_tail_of_zeros_as_a_power_loss_leaves_it_is_cut_off(kept: Any) -> None:
    folder, data, values = kept
    (folder / "journal.mars").write_bytes(data + bytes(5000))
    assert program(folder) == (values, 0)
    assert (folder / "journal.mars").stat().st_size < len(data) + 5000


def test_a_journal_of_a_newer_version_is_refused(kept: Any) -> None:
    folder, data, _ = kept
    newer = record(journal.SESSION, b"", [b"x"])[0]
    head = bytearray(newer)
    head[3] = journal.VERSION + 1
    head[16:20] = struct.pack("<I", zlib.crc32(head[:16]))
    (folder / "journal.mars").write_bytes(bytes(head) + b"x" + data)
    with pytest.raises(mars.errors.CheckpointUnusable, match="newer version"):
        program(folder)


@given(st.lists(st.lists(st.binary(max_size=40), max_size=4), max_size=4), st.sampled_from([1, 64]))
def test_values_in_parts_come_back_as_they_were(values: list[list[bytes]], align: int) -> None:
    data = b"".join(bytes(part) for part in framed(values, align))
    assert [[bytes(part) for part in value] for value in unframed(data, align)] == values


@given(st.lists(st.tuples(st.integers(1, 6), st.binary(max_size=80), st.binary(max_size=80))))
def test_records_come_back_as_they_were(records: list[tuple[int, bytes, bytes]]) -> None:
    data = b"".join(
        bytes(part) for kind, meta, body in records for part in record(kind, meta, [body])
    )
    found = []
    for one in scan(0, data):
        assert isinstance(one, journal.Raw)
        found.append((one.kind, one.meta, data[one.body_at : one.body_at + one.body_size]))
    assert found == records


def test_a_small_call_takes_less_than_two_hundred_bytes_beside_its_result(tmp_path: Path) -> None:
    def small(index: int, name: str) -> int:
        return index

    sizes = []
    for count in (100, 1100):
        with mars.new_session(engine="inline", n_cpu=1, checkpoint=tmp_path / str(count)):
            mars.execute([mr.spawn(small, (index, "otto")) for index in range(count)])
        sizes.append((tmp_path / str(count) / "journal.mars").stat().st_size)
    assert (sizes[1] - sizes[0]) / 1000 <= 200


class SlowFolder:
    """A disk that writes when it is told to."""

    name, remark, inline_bytes, window_s = "slow", "", 1 << 18, 0.0
    eager = True

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.size = self.synced = 0

    def segments(self) -> Iterator[Any]:
        return iter(())

    def append(self, buffers: Any) -> int:
        assert self.go.acquire(timeout=20)
        start = self.size
        self.size += sum(map(len, buffers))
        return start

    def sync(self) -> None:
        self.synced = self.size


def test_a_slow_disk_holds_back_whoever_adds_to_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "CHECKPOINT_PENDING_BYTES", 10_000)
    monkeypatch.setattr(writing, "CHECKPOINT_PRESSURE_S", 0.3)
    folder: Any = SlowFolder()
    writer = Writer(Index(folder), print)
    done: list[int] = []

    def entry(number: int) -> Entry:
        body = bytes(4000)
        return Entry(
            lambda: [record(journal.SESSION, b"", [body])], (), lambda: done.append(number), 4000
        )

    writer.add(entry(0))
    writer.add(entry(1))
    started = time.monotonic()
    writer.add(entry(2))  # beyond the limit
    assert time.monotonic() - started >= 0.25
    assert not done
    for _ in range(10):
        folder.go.release()
    writer.flush()
    assert done == [0, 1, 2]
    writer.close()
    assert folder.synced == folder.size > 12_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("size", [20_000, 500_000], ids=["in the journal", "as files"])
def test_a_disk_that_is_full_costs_what_did_not_fit_and_the_run_goes_on(
    small_disk: Path, capfd: pytest.CaptureFixture[str], size: int
) -> None:
    count = 8_000_000 // size

    def fill(index: int) -> Any:
        return np.full(size, index % 250, "u1")

    def run() -> tuple[list[int], int, int]:
        with mars.new_session(n_cpu=2, checkpoint=small_disk / "otto") as session:
            objects = mars.execute([mr.spawn(fill, index) for index in range(count)])
            values = [int(one.fetch()[-1]) for one in objects]
            checkpoint = session.checkpoint
            return values, checkpoint.executed, checkpoint.reused

    expected = [index % 250 for index in range(count)]
    values, executed, reused = run()
    assert (values, executed, reused) == (expected, count, 0)
    told = capfd.readouterr().err
    assert told.count("No space left on device. The run goes on") == 1
    assert f"result(s) of this program are not in the checkpoint {small_disk / 'otto'}" in told
    values, executed, reused = run()
    assert values == expected
    assert executed + reused == count
    assert executed > 0 and reused > 0
    # With room again, all is kept again.
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert run()[0] == expected
    assert run() == (expected, 0, count)


def test_problems_are_told_in_words(kept: Any) -> None:
    folder, data, _ = kept
    (folder / "journal.mars").write_bytes(data[:100] + b"!" + data[101:] + b"torn")
    source = LocalFolder(str(folder), create=False)
    lines = problem_lines(Index(source))
    source.close()
    assert lines == [
        "1 damaged place skipped; what stood there runs again",
        "the last record is cut off, as a crash leaves it; what it was about runs again",
    ]


def test_a_result_that_changed_after_it_was_found_is_never_given(kept: Any) -> None:
    folder, data, _ = kept
    source = LocalFolder(str(folder), create=False)
    index = Index(source)
    raw, _ = index.find(next(iter(index.calls))) or pytest.fail("it is there")
    changed = bytearray(data)
    changed[raw.body_at + raw.body_size - 1] ^= 1
    (folder / "journal.mars").write_bytes(changed)
    with pytest.raises(Damaged):
        body_of(source, raw)
    source.close()
