"""When a silent call is told of: a fake clock, and calls that are facts."""

from __future__ import annotations

import io
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from mars.observe import silence as silence_module
from mars.observe.progress import Progress, display_for, write_line
from mars.observe.silence import Listener, RunningCall, Silence

AFTER_S = 30.0


def call(worker: int = 1, sign: object = "first attempt", expected_s: float = 0.0) -> RunningCall:
    return RunningCall(worker, 1000 + worker, "fit", sign, expected_s)


def told(silence: Silence, calls: list[RunningCall], until_s: int, since_s: int = 0) -> list[int]:
    """Seconds at which a look, once a second, has something to tell."""
    return [now for now in range(since_s, until_s + 1) if silence.lines(calls, float(now), AFTER_S)]


def never(pid: int) -> bool:
    return False


def test_a_silent_call_is_told_of_once_and_then_when_its_silence_has_doubled() -> None:
    assert told(Silence(never), [call()], 500) == [30, 60, 120, 240, 480]


def test_the_line_names_the_call_the_worker_the_process_and_what_to_type() -> None:
    silence = Silence(never)
    silence.lines([call(3)], 0.0, AFTER_S)
    (line,) = silence.lines([call(3)], 30.0, AFTER_S)
    assert line == (
        "mars: fit(...) has run for 30 s without output in worker 3 (pid 1003); "
        '"mars stack 1003" shows where it is'
    )


def test_output_progress_or_another_attempt_begins_the_silence_anew() -> None:
    silence = Silence(never)
    assert told(silence, [call(sign="a")], 29) == []
    assert told(silence, [call(sign="b")], 100, since_s=30) == [60, 90]


def test_many_silent_calls_are_one_line() -> None:
    silence = Silence(never)
    calls = [call(worker) for worker in range(64)]
    silence.lines(calls, 0.0, AFTER_S)
    (line,) = silence.lines(calls, 31.0, AFTER_S)
    assert line.startswith("mars: 64 calls have run without output, such as fit(...) for 31 s")


def test_calls_that_fall_silent_one_after_the_other_are_told_of_at_most_every_so_often() -> None:
    silence = Silence(never)
    times = []
    for now in range(200):
        running = [call(worker) for worker in range(60) if worker <= now]
        if silence.lines(running, float(now), AFTER_S):
            times.append(now)
    assert times[0] == 30
    assert all(later - earlier >= AFTER_S for earlier, later in pairwise(times))


def test_a_call_that_takes_as_long_as_those_before_it_is_no_news() -> None:
    assert told(Silence(never), [call(expected_s=100.0)], 300) == [200, 240]


def test_a_stopped_worker_is_told_of_whatever_its_calls_usually_take() -> None:
    silence = Silence(lambda pid: pid == 1002)
    calls = [call(1, expected_s=1000.0), call(2, expected_s=1000.0)]
    silence.lines(calls, 0.0, AFTER_S)
    (line,) = silence.lines(calls, 30.0, AFTER_S)
    assert "worker 2 (pid 1002) is stopped by a signal" in line
    assert '"kill -CONT 1002" lets it go on' in line


def test_a_worker_that_has_ended_its_call_is_forgotten() -> None:
    silence = Silence(never)
    silence.lines([call()], 0.0, AFTER_S)
    silence.lines([], 10.0, AFTER_S)
    assert told(silence, [call()], 60, since_s=20) == [50]


@pytest.mark.parametrize("off", [None, 0, 0.0])
def test_turned_off_nobody_looks(off: float | None) -> None:
    waits: list[float | None] = []

    def wait(timeout_s: float | None) -> bool:
        waits.append(timeout_s)
        return True

    def ask(after_s: float) -> list[str]:
        raise AssertionError("asked")

    listener = Listener(ask, off, print)
    assert listener.wait(wait)
    listener.listen()
    assert waits == [None]


def test_a_limit_of_the_wait_is_kept_and_it_is_looked_four_times_as_often_as_there_is_to_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    waits: list[float] = []

    def wait(timeout_s: float | None) -> bool:
        nonlocal now
        assert timeout_s is not None
        waits.append(timeout_s)
        now += timeout_s
        return False

    monkeypatch.setattr(silence_module, "time", SimpleNamespace(monotonic=lambda: now))
    lines: list[str] = []
    listener = Listener(lambda after_s: [f"{after_s}"], 2.0, lines.append)
    assert not listener.wait(wait, 2.25)
    assert waits == [0.5, 0.5, 0.5, 0.5, 0.25]
    assert lines == ["2.0"] * 4


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["bar", "lines"])
def test_a_notice_stays_beside_the_bar_and_the_plain_lines(stream: io.StringIO) -> None:
    display = display_for(True, stream, {"TERM": "xterm"})
    assert display is not None
    display.start(3)
    display.note("mars: [bold]fit[/bold](...) has run for 30 s")
    display.finish(Progress(3, done=3, elapsed_s=31.0))
    # As it is, without markup, on a line of its own.
    assert "mars: [bold]fit[/bold](...) has run for 30 s\n" in stream.getvalue().replace("\r", "")


def test_a_notice_before_anything_is_drawn_goes_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = display_for("auto", Terminal(), {"TERM": "xterm"})
    assert display is not None
    display.note("mars: fit(...)")
    assert capsys.readouterr().err == "mars: fit(...)\n"


def test_a_notice_for_which_there_is_no_stderr_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (None, io.BytesIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        write_line("mars: fit(...)")
