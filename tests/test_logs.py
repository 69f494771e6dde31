"""The log fetcher's contract: text, offsets, sizes, whole characters, lines as they come."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mars.logs import (
    JoinedLog,
    LogReader,
    Offsets,
    escape_control,
    follow,
    follow_several,
    gap_line,
    last_bytes,
    parse_size,
    whole_text,
)
from mars.settings import LOG_READ_BYTES


class Log:
    """A log in memory; what ``later`` holds is written piece by piece by `write`.

    What stands in ``gap`` was left out.
    """

    def __init__(
        self,
        data: bytes = b"",
        later: list[bytes] | None = None,
        gap: tuple[int, int] = (0, 0),
    ) -> None:
        self.data = data
        self.later = later or []
        self.gap = gap if gap[0] < gap[1] else (0, 0)

    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, limit: int) -> bytes:
        assert start >= 0
        assert limit >= 0
        begin, end = self.gap
        stop = start + limit
        return self.data[start : stop if start >= end else min(stop, begin)]

    def kept_from(self, start: int) -> int:
        begin, end = self.gap
        return end if begin <= start < end else start

    def finished(self) -> bool:
        return not self.later

    def write(self, _pause_s: float = 0) -> None:
        self.data += self.later.pop(0)


def reader_of(log: Log | None) -> LogReader:
    return LogReader("key", lambda: log)


# -- before there is anything -----------------------------------------------------------------


@pytest.mark.parametrize(
    "log", [None, Log(), Log(later=[b"x"])], ids=["unexecuted", "empty", "early"]
)
def test_without_output_it_is_empty(log: Log | None) -> None:
    reader = reader_of(log)
    got = reader.read()
    assert (len(got), str(got), repr(got)) == (0, "", "''")
    assert (got.results, got.offsets, got.chunk_op_keys, got.raw) == ([], [], [], b"")


def test_a_log_that_appears_later_is_read_then() -> None:
    logs: list[Log] = []
    reader = LogReader("key", lambda: logs[0] if logs else None)
    got = reader.read()
    logs.append(Log(b"hello\n"))
    got = reader.read()
    assert str(got) == "hello\n"


# -- reading on -------------------------------------------------------------------------------


def test_fetching_again_goes_on_where_the_last_read_ended() -> None:
    log = Log(b"one\n", later=[b"two\n", b"three\n"])
    reader = reader_of(log)
    got = reader.read()
    assert (str(got), repr(got), len(got)) == ("one\n", "'one\\n'", 1)
    assert (got.results, got.offsets, got.chunk_op_keys) == (["one\n"], [4], ["key"])
    log.write()
    got = reader.read()
    assert (str(got), got.offsets) == ("two\n", [8])
    got = reader.read()
    assert (str(got), len(got), got.offsets) == ("", 1, [8])
    got = reader.read(offsets=0)
    assert str(got) == "one\ntwo\n"


def test_what_was_returned_before_never_changes() -> None:
    log = Log(b"one\n", later=[b"two\n"])
    reader = reader_of(log)
    first = reader.read()
    log.write()
    second, third = reader.read(), reader.read()
    assert (str(first), first.offsets) == ("one\n", [4])
    assert (str(second), second.offsets) == ("two\n", [8])
    assert (str(third), len(third)) == ("", 1)


# -- a text -----------------------------------------------------------------------------------


def test_a_read_is_a_text_and_can_be_used_as_one(tmp_path: Path) -> None:
    got = reader_of(Log(b"loss 0.5\nloss 0.25\n")).read()
    assert "loss" in got
    assert "gain" not in got
    assert got == "loss 0.5\nloss 0.25\n"
    assert re.findall(r"[\d.]+", got) == ["0.5", "0.25"]
    assert got.splitlines() == list(got) == ["loss 0.5", "loss 0.25"]
    assert "log: " + got == f"log: {got}" == "log: loss 0.5\nloss 0.25\n"
    assert got[-5:] == "0.25\n"
    (tmp_path / "l.txt").write_text(got)
    assert (tmp_path / "l.txt").read_text() == got
    assert json.loads(json.dumps({"log": got})) == {"log": got}


def test_the_text_of_a_read_is_plain_and_pickles() -> None:
    got = reader_of(Log(b"x\n")).read()
    assert type(str(got)) is str
    again = pickle.loads(pickle.dumps(got))
    assert (again, again.raw, again.offsets, again.chunk_op_keys) == ("x\n", b"x\n", [2], ["key"])


@given(st.text())
@example("\r")
def test_the_lines_of_a_read_are_those_of_following(text: str) -> None:
    data = text.encode("utf-8", "replace")
    assert list(reader_of(Log(data)).read(sizes=-1)) == list(follow(Log(data)))


def test_the_whole_text_of_a_log_is_read_over_gaps() -> None:
    assert whole_text(Log(b"one\ntwo\n")) == "one\ntwo\n"
    assert whole_text(Log(b"one\ntwo\n", gap=(4, 8))) == f"one\n{gap_line(4)}"
    assert whole_text(Log()) == ""


def test_one_read_is_a_mebibyte_unless_said_otherwise() -> None:
    reader = reader_of(Log(b"x" * (LOG_READ_BYTES + 5)))
    got = reader.read()
    assert got.offsets == [LOG_READ_BYTES]
    got = reader.read()
    assert str(got) == "xxxxx"
    got = reader.read(offsets=0, sizes=-1)
    assert len(str(got)) == LOG_READ_BYTES + 5


def test_a_log_that_starts_anew_is_read_from_its_start() -> None:
    log = Log(b"first attempt\n")
    reader = reader_of(log)
    got = reader.read()
    log.data = b"again\n"
    got = reader.read()
    assert str(got) == "again\n"


TEXT = b"".join(b"%04d\n" % i for i in range(100))  # 500 bytes, lines of 5


@pytest.mark.parametrize(
    ("offsets", "sizes", "text"),
    [
        (0, 5, "0000\n"),
        (5, 5, "0001\n"),
        ("0k", [10], "0000\n0001\n"),
        (["0k"], [5], "0000\n"),
        ({"key": 10}, {"key": 5}, "0002\n"),
        ({"other": 10}, "5", "0000\n"),
        (-5, None, "0099\n"),
        (-10, 5, "0098\n"),
        ("-0.02K", "0.01K", "0096\n0097\n"),  # 20 bytes from the end, 10 of them
        (-10_000, 5, "0000\n"),
        (10_000, 5, ""),
        (495, 100, "0099\n"),
        ("0.25k", 4, "051\n"),
        ({"key": "-5"}, {}, "0099\n"),
        ([], [], TEXT.decode()),
        (0, 0, ""),
    ],
)
def test_forms_of_offsets_and_sizes(
    offsets: Offsets | None, sizes: Offsets | None, text: str
) -> None:
    reader = reader_of(Log(TEXT))
    got = reader.read(offsets=offsets, sizes=sizes)
    assert str(got) == text


def test_after_a_read_from_the_end_it_goes_on_from_there() -> None:
    reader = reader_of(Log(TEXT))
    got = reader.read(offsets=-10, sizes=5)
    got = reader.read()
    assert str(got) == "0099\n"


@pytest.mark.parametrize(
    ("offsets", "sizes", "error", "message"),
    [
        ("ten", None, ValueError, "offsets: not a size: 'ten'"),
        (None, "1 parsec", ValueError, "sizes: not a size"),
        (None, "nan", ValueError, "sizes"),
        (float("inf"), None, ValueError, "offsets"),
        (object(), None, TypeError, "offsets"),
        (None, True, TypeError, "sizes"),
        ([b"1"], None, TypeError, "offsets"),
    ],
)
def test_other_forms_are_refused_by_name(
    offsets: Offsets, sizes: Offsets, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        reader_of(Log(TEXT)).read(offsets=offsets, sizes=sizes)


# -- whole characters -------------------------------------------------------------------------


@given(st.text(), st.integers(1, 9))
def test_reading_on_never_cuts_a_character(text: str, size: int) -> None:
    data = text.encode("utf-8", "replace")
    reader, parts = reader_of(Log(data)), []
    while sum(len(part) for part in parts) < len(data):
        got = reader.read(sizes=size)
        parts.append(got.raw)
        assert str(got) == got.raw.decode()  # each part is whole by itself
        assert 0 < len(got.raw) <= max(size, 4)
    assert b"".join(parts) == data


@given(st.binary(max_size=60), st.integers(1, 9))
def test_any_bytes_come_through_in_parts_as_they_would_at_once(data: bytes, size: int) -> None:
    reader, raw, text = reader_of(Log(data)), b"", ""
    while len(raw) < len(data):
        got = reader.read(sizes=size)
        assert got.raw
        raw += got.raw
        text += str(got)
    assert raw == data
    assert text == data.decode("utf-8", "replace")


@given(st.text(min_size=1), st.integers(-40, 40))
def test_starting_inside_a_character_starts_after_it(text: str, offset: int) -> None:
    data = text.encode("utf-8", "replace")
    reader = reader_of(Log(data))
    got = reader.read(offsets=offset)
    assert data.endswith(got.raw)
    assert "\ufffd" not in str(got) or "\ufffd" in text
    assert len(data) - max(offset % 10**9 if offset >= 0 else len(data) + offset, 0) - 3 <= len(
        got.raw
    )


def test_the_first_half_of_a_character_waits_for_the_other() -> None:
    log = Log("aé".encode()[:2], later=["é".encode()[1:]])
    reader = reader_of(log)
    got = reader.read()
    assert (str(got), got.offsets) == ("a", [1])
    log.write()
    got = reader.read()
    assert (str(got), got.offsets) == ("é", [3])


def test_half_a_character_at_the_very_end_is_replaced() -> None:
    reader = reader_of(Log("aé".encode()[:2]))
    got = reader.read()
    assert (str(got), got.raw, got.offsets) == ("a\ufffd", b"a\xc3", [2])


# -- lines as they come -----------------------------------------------------------------------


@given(st.lists(st.binary(max_size=12)))
def test_following_yields_every_line_once(pieces: list[bytes]) -> None:
    log = Log(later=list(pieces))
    data = b"".join(pieces).decode("utf-8", "replace")
    lines = data.split("\n")
    wanted = [line.removesuffix("\r") for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    assert list(follow(log, sleep=log.write)) == wanted


def test_a_line_comes_when_it_ends_and_not_at_the_end_of_all() -> None:
    log = Log(b"one\ntw", later=[b"o\nthree"])
    lines: Iterator[str] = follow(log, sleep=log.write)
    assert next(lines) == "one"
    assert log.later
    assert next(lines) == "two"
    assert list(lines) == ["three"]


def test_following_pauses_as_long_as_it_is_told() -> None:
    log, pauses = Log(later=[b"x\n"]), []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        log.write()

    assert list(follow(log, poll_s=3, sleep=sleep)) == ["x"]
    assert pauses == [3]


def test_lines_of_several_logs_come_whole_and_by_name() -> None:
    one, two = Log(later=[b"a", b"b\nc", b"d\n"]), Log(later=[b"1\n", b"2", b"3"])

    def write(_: float) -> None:
        for log in (one, two):
            if log.later:
                log.write()

    lines = list(follow_several([("one", one), ("two", two)], sleep=write))
    assert [line for name, line in lines if name == "one"] == ["ab", "cd"]
    assert [line for name, line in lines if name == "two"] == ["1", "23"]
    assert lines.index(("two", "1")) < lines.index(("one", "ab"))


# -- what was left out ------------------------------------------------------------------------


@given(st.binary(max_size=60), st.data(), st.integers(1, 9))
def test_reading_on_passes_over_a_gap_and_tells_of_it(
    data: bytes, draw: st.DataObject, size: int
) -> None:
    begin = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(begin, len(data)))
    reader, raw, text = reader_of(Log(data, gap=(begin, end))), b"", ""
    for _ in range(len(data) + 1):
        got = reader.read(sizes=size)
        raw += got.raw
        text += str(got)
    assert raw == data[:begin] + data[end:]
    assert got.offsets == ([len(data)] if data else [])
    if end == begin:
        assert text == data.decode("utf-8", "replace")
        return
    before, told, after = text.partition(gap_line(end - begin))
    assert told
    assert before.removesuffix("\n") == data[:begin].decode("utf-8", "replace").removesuffix("\n")
    assert after == data[end:].decode("utf-8", "replace")
    whole = reader_of(Log(data, gap=(begin, end))).read(sizes=-1)
    assert whole.raw == raw
    assert gap_line(end - begin) in str(whole)


def test_what_was_left_out_has_a_line_of_its_own() -> None:
    reader = reader_of(Log(b"one\ntwo and three\n", gap=(7, 14)))
    got = reader.read()
    assert str(got) == (
        "one\ntwo\n[mars: 7 bytes are left out here; new_session(log_limit=...) says how much of a "
        "log is kept]\nree\n"
    )
    assert list(follow(Log(b"one\ntwo and three\n", gap=(7, 14)))) == str(got).splitlines()


def test_a_reader_that_is_overtaken_by_a_gap_goes_on_behind_it() -> None:
    log = Log(b"0123456789" * 10)
    reader = reader_of(log)
    got = reader.read(sizes=20)
    log.gap = (10, 90)
    got = reader.read()
    assert (got.raw, got.offsets) == (b"0123456789", [100])
    assert "70 bytes are left out" in str(got)


@given(st.binary(max_size=60), st.data(), st.integers(1, 70))
def test_the_end_of_a_log_begins_behind_the_last_gap(
    data: bytes, draw: st.DataObject, limit: int
) -> None:
    begin = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(begin, len(data)))
    log = Log(data, gap=(begin, end))
    first = max(len(data) - limit, end if end > begin else 0)
    assert last_bytes(log, limit) == data[first:]
    assert last_bytes(JoinedLog([Log(b"first\n", gap=(2, 4)), log]), limit).endswith(data[first:])


def test_joined_logs_are_read_over_their_gaps() -> None:
    joined = JoinedLog([Log(b"abcdef", gap=(2, 4)), Log(b"uvwxyz", gap=(0, 3)), Log(b"!")])
    assert joined.read(0, 100) == b"ab"
    assert [joined.kept_from(place) for place in range(14)] == [
        0, 1, 4, 4, 4, 5, 9, 9, 9, 9, 10, 11, 12, 13,
    ]  # fmt: skip
    reader = LogReader("key", lambda: joined)
    got = reader.read()
    assert got.raw == b"abefxyz!"


# -- sizes and showing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "number"),
    [
        (7, 7), ("7", 7), ("1k", 1024), ("1KB", 1024), ("1 KiB", 1024), ("0.5k", 512),
        ("-0.02K", -20), ("+2m", 2 * 1024**2), ("2GiB", 2 * 1024**3), ("1e3", 1000), (1.9, 1),
        ("9007199254740993", 9007199254740993), (".5k", 512), ("10b", 10),
    ],
)  # fmt: skip
def test_parse_size(size: int | float | str, number: int) -> None:
    assert parse_size(size) == number
    assert isinstance(parse_size(size), int)


@pytest.mark.parametrize("size", ["", "k", "1x", "1 2", "inf", "1e999", "--1", "1k k"])
def test_parse_size_refuses_the_rest(size: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(size)


@given(st.text())
def test_escaped_text_cannot_steer_a_terminal(text: str) -> None:
    escaped = escape_control(text)
    assert all(sign in "\n\t" or ord(sign) >= 32 for sign in escaped)
    assert not any(127 <= ord(sign) < 160 or 0xD800 <= ord(sign) < 0xE000 for sign in escaped)
    assert escape_control(escaped) == escaped


def test_escape_control_leaves_ordinary_text_alone() -> None:
    assert escape_control("é 漢字 → 😀\n\ttab") == "é 漢字 → 😀\n\ttab"
    assert escape_control("\x1b]0;title\x07\r\u202e\x9b") == "\\x1b]0;title\\x07\\r\\u202e\\x9b"


def test_html_shows_text_and_nothing_else() -> None:
    reader = reader_of(Log(b"<script>alert(1)</script>\x1b[0m"))
    got = reader.read()
    assert got._repr_html_() == "<pre>&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[0m</pre>"
