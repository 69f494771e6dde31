"""A segment whose middle is left out: what stays, what it takes, and who reads meanwhile."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.attempt.capture import Segment, log_stream

LINE = b"line %09d\n"


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment()
    yield made
    made.close()


def lines(segment: Segment, first: int, count: int) -> None:
    os.write(segment.descriptor, b"".join(LINE % i for i in range(first, first + count)))


def kept(segment: Segment, start: int, end: int) -> list[tuple[int, bytes]]:
    """What can be read, each stretch with its place."""
    found = []
    while start < end:
        data = segment.read(start, end - start)
        if data:
            found.append((start, data))
        start = max(start + len(data), segment.kept_from(start + len(data)))
        assert data or start == end or segment.kept_from(start) == start
    return found


@given(
    st.lists(st.tuples(st.integers(1, 4000), st.booleans(), st.booleans()), max_size=12),
    st.integers(1000, 20_000),
)
def test_what_is_kept_is_both_ends_of_each_attempt_in_whole_lines(
    steps: list[tuple[int, bool, bool]], limit: int
) -> None:
    """Any history of one file: calls print, are looked at while they run, and end."""
    segment = Segment()
    try:
        start = number = 0
        attempts = []
        for count, looked_at, ends in steps:
            lines(segment, number, count)
            number += count
            end = segment.size()
            if (looked_at or ends) and end - start > limit:
                segment.trim(start, end, limit)
            if ends:
                attempts.append((start, end))
                start = end
        everything = b"".join(LINE % i for i in range(number))
        for begin, end in attempts:
            stretches = kept(segment, begin, end)
            assert stretches[0][0] == begin
            assert stretches[-1][0] + len(stretches[-1][1]) == end
            assert len(stretches) <= 2
            for place, data in stretches:
                assert data == everything[place : place + len(data)]
                assert data.endswith(b"\n")
            total = sum(len(data) for _, data in stretches)
            assert total <= max(limit, 0) + 2 * len(LINE % 0)
            assert total == end - begin or total >= limit - 2 * len(LINE % 0)
    finally:
        segment.close()


def test_the_disk_that_was_left_out_is_given_back(segment: Segment) -> None:
    start = 0
    for turn in range(5):
        lines(segment, turn * 100_000, 100_000)
        segment.trim(start, segment.size(), 100_000)
    assert segment.size() == 5 * 100_000 * len(LINE % 0)
    assert os.fstat(segment.descriptor).st_blocks * 512 < 200_000


def test_bytes_without_lines_are_left_out_as_well(segment: Segment) -> None:
    os.write(segment.descriptor, b"x" * 100_000)
    segment.trim(0, 100_000, 10_000)
    assert kept(segment, 0, 100_000) == [(0, b"x" * 5000), (95_000, b"x" * 5000)]


def test_where_no_holes_can_be_made_all_stays(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mars.platform.punch", lambda *_: False)
    lines(segment, 0, 10_000)
    segment.trim(0, segment.size(), 10_000)
    assert segment.read(0, 10**6) == b"".join(LINE % i for i in range(10_000))


def test_who_reads_while_it_is_trimmed_never_reads_a_hole(segment: Segment) -> None:
    over = threading.Event()
    holes: list[bytes] = []

    def read() -> None:
        while not over.is_set():
            for place in range(0, segment.size(), 50_000):
                data = segment.read(place, 10_000)
                if b"\0" in data:
                    holes.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        lines(segment, turn * 20_000, 20_000)
        segment.trim(0, segment.size(), 200_000)
    over.set()
    reader.join(30)
    assert not holes


def test_a_log_on_a_full_disk_loses_what_is_printed_meanwhile_and_says_so(tmp_path: Path) -> None:
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    place = os.open("/dev/full", os.O_WRONLY)
    stream = log_stream(place)
    print("lost", file=stream)
    stream.write("lost")
    stream.flush()
    os.dup2(log, place)  # there is room again
    print("after", file=stream)
    told, after = os.pread(log, 1000, 0).decode().splitlines()
    assert told.startswith("mars: 9 bytes that were printed before are missing")
    assert after == "after"
    stream.close()
    os.close(place)
    os.close(log)


def test_who_prints_into_a_file_of_its_own_is_told_that_the_disk_is_full(tmp_path: Path) -> None:
    place = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    full = os.open("/dev/full", os.O_WRONLY)
    stream = log_stream(place)
    os.dup2(full, place)
    with pytest.raises(OSError, match="No space left"):
        print("lost", file=stream)
    os.dup2(full, place)
    with contextlib.suppress(OSError):
        stream.close()
    os.close(place)
    os.close(full)
