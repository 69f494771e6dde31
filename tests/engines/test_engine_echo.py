"""What calls print, seen from the program: whole, live, by name, and on its own terminal."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr


def say(text: str) -> None:
    print(text)


def complain(number: int) -> int:
    print("working on", number)
    if number % 2:
        print("odd", number, file=sys.stderr)
    return number


def warn(number: int) -> None:
    warnings.warn(f"odd {number}", stacklevel=1)


def stumble(number: int) -> int:
    print("working on", number)
    if number == 2:
        raise ValueError("two")
    return number


# -- the whole log -----------------------------------------------------------------------------


def test_the_log_of_an_object_is_a_text_and_always_whole() -> None:
    call = mr.spawn(say, args=("hello",)).execute()
    assert call.log == call.log == "hello\n"
    assert type(call.log) is str
    assert call.fetch_log() == "hello\n"
    assert call.fetch_log() == ""
    assert call.log == "hello\n"


def test_the_log_of_a_call_that_was_not_executed_is_empty() -> None:
    assert mr.spawn(say, args=("hello",)).log == ""


def test_the_log_of_an_item_is_its_own() -> None:
    items = mr.map(say, ["a", "b", "c"]).execute()
    assert [one.log for one in items] == ["a\n", "b\n", "c\n"]


def test_the_log_of_a_failed_call_and_of_an_item_that_failed_is_there() -> None:
    call = mr.spawn(stumble, args=(2,))
    items = mr.map(stumble, range(4))
    for one in (call, items):
        with pytest.raises(ValueError):
            one.execute(on_error="continue").fetch()
    assert call.log == "working on 2\n"
    assert items[2].log == "working on 2\n"


@pytest.mark.filterwarnings("default")
def test_each_call_has_its_warnings_in_its_own_log(engine: str) -> None:
    if engine == "inline":
        pytest.skip("pytest takes the warnings of its own process for itself")
    # Python shows a warning once for each place; here every call is told of its own.
    calls = [mr.spawn(warn, args=(1,)) for _ in range(4)]
    mars.execute(calls)
    items = mr.map(warn, [1] * 4).execute()
    for one in (*calls, *items):
        assert "UserWarning: odd 1" in one.log


# -- live --------------------------------------------------------------------------------------


def test_the_log_of_an_item_can_be_read_while_it_runs(
    local_only: None,
    tmp_path: Path,
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
) -> None:
    gate = tmp_path / "gate"

    def run(number: int) -> None:
        print("started", number, flush=True)
        pass_gate(gate)
        print("finished", number)

    items = mr.map(run, range(2))
    execution = items.execute(wait=False)
    lines = iter(items[1].fetch_log(follow=True))
    assert next(lines) == "started 1"
    wait_until(lambda: items[1].log == "started 1\n")
    assert not execution.done()
    gate.touch()
    assert list(lines) == ["finished 1"]
    execution.result(60)
    assert items[1].log == "started 1\nfinished 1\n"


def test_the_log_of_an_item_can_be_read_while_others_are_in_its_block(
    engine: str,
    local_only: None,
    tmp_path: Path,
    pass_gate: Callable[..., None],
) -> None:
    gate = tmp_path / "gate"

    def run(number: int) -> None:
        print("quick", number)
        if number >= 90:
            print("started", number, flush=True)
            pass_gate(gate)
            print("finished", number)

    mr.map(run, range(60)).execute()  # so that items are known to be quick, and share blocks
    items = mr.map(run, range(91))
    execution = items.execute(wait=False)
    lines = iter(items[90].fetch_log(follow=True))
    assert [next(lines), next(lines)] == ["quick 90", "started 90"]
    assert not execution.done()
    gate.touch()
    assert list(lines) == ["finished 90"]
    execution.result(60)
    assert [one.log for one in items[:90]] == [f"quick {i}\n" for i in range(90)]


def test_several_calls_are_followed_by_name(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"

    def run(number: int) -> None:
        print("started", flush=True)
        pass_gate(gate)
        print("a half", end="", flush=True)
        print(" and a half")

    calls = mr.ExecutableTuple([*(mr.spawn(run, args=(i,)) for i in range(2)), mr.map(say, "x")])
    execution = calls.execute(wait=False)
    lines = iter(calls.fetch_log(follow=True))
    first = {next(lines), next(lines)}
    assert first == {"run 0 | started", "run 1 | started"}
    gate.touch()
    assert sorted(lines) == ["run 0 | a half and a half", "run 1 | a half and a half", "say 0 | x"]
    execution.result(60)
    assert max(calls.fetch_log(follow=True)) == "say 0 | x"


def test_a_map_is_followed_as_a_whole_also_after_its_end() -> None:
    items = mr.map(say, ["a\nb", "c"], name="talk").execute()
    assert sorted(items.fetch_log(follow=True)) == ["talk 0 | a", "talk 0 | b", "talk 1 | c"]
    assert list(items.fetch_log(follow=True)) == list(items.fetch_log(follow=True))
    assert list(mr.ExecutableTuple().fetch_log(follow=True)) == []


# -- echo --------------------------------------------------------------------------------------


def test_echo_shows_every_line_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    calls = [mr.spawn(stumble, args=(i,)) for i in range(4)]
    mars.execute(calls, on_error="continue", echo=True)
    out, err = capsys.readouterr()
    assert sorted(err.splitlines()) == [f"stumble {i} | working on {i}" for i in range(4)]
    assert out == ""


def test_echo_of_a_map_shows_its_items(capsys: pytest.CaptureFixture[str]) -> None:
    mr.map(say, ["a", "b\nc"]).execute(echo="all")
    assert sorted(capsys.readouterr().err.splitlines()) == ["say 0 | a", "say 1 | b", "say 1 | c"]


def test_echo_of_failures_shows_the_logs_of_calls_that_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = mr.ExecutableTuple([mr.spawn(stumble, args=(i,)) for i in range(4)])
    calls.execute(on_error="continue", echo="failures")
    mr.map(stumble, range(4)).execute(on_error="continue", echo="failures")
    assert capsys.readouterr().err.splitlines() == ["stumble 2 | working on 2"] * 2


def test_the_summary_names_the_calls_that_wrote_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mars.execute([mr.spawn(complain, args=(i,)) for i in range(4)], echo="summary")
    mr.map(complain, range(6), name="fit").execute(echo="summary")
    mr.map(say, ["quiet"]).execute(echo="summary")
    assert capsys.readouterr().err.splitlines() == [
        "mars: 2 of 4 calls wrote to stderr: complain 1, complain 3; '.log' of each shows it",
        "mars: 3 of 6 calls wrote to stderr: fit 1, fit 3, fit 5; '.log' of each shows it",
    ]


def test_the_summary_is_for_terminals_only_unless_it_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mr.spawn(complain, args=(1,)).execute()
    assert capsys.readouterr().err == ""


def test_the_option_holds_for_runs_that_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with mars.config.option_context(echo="all"):
        mr.spawn(say, args=("hello",)).execute()
        mr.spawn(say, args=("silent",)).execute(echo=False)
    assert capsys.readouterr().err == "say | hello\n"


def test_a_run_beside_the_program_shows_its_lines_before_its_result_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    items = mr.map(say, ["a", "b"])
    items.execute(wait=False, echo=True).result(60)
    assert sorted(capsys.readouterr().err.splitlines()) == ["say 0 | a", "say 1 | b"]
    assert "mars-echo" not in [thread.name for thread in threading.enumerate()]


def test_echo_is_live(
    local_only: None,
    tmp_path: Path,
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
) -> None:
    gate = tmp_path / "gate"

    def run() -> None:
        print("started", flush=True)
        pass_gate(gate)

    class Lines(list[str]):
        def write(self, text: str) -> int:
            self.append(text)
            return len(text)

        def flush(self) -> None:
            return

    lines, before = Lines(), sys.stderr
    sys.stderr = lines  # type: ignore[assignment]
    try:
        execution = mr.spawn(run).execute(wait=False, echo=True)
        wait_until(lambda: "run | started\n" in lines)
        assert not execution.done()
        gate.touch()
        execution.result(60)
    finally:
        sys.stderr = before


def test_what_would_steer_a_terminal_is_shown_and_not_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mr.spawn(say, args=("10 %\r50 %\r100 %\r\x1b[2J",), name="bar").execute(echo=True)
    assert capsys.readouterr().err == "bar | \\x1b[2J\n"


@pytest.mark.parametrize("wrong", ["loud", 1.5, "ALL"])
def test_other_modes_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="echo has to be True, False, 'all', 'failures'"):
        mr.spawn(say, args=("x",)).execute(echo=wrong)  # type: ignore[arg-type]


def test_calls_of_calls_have_their_output_in_their_own_logs_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def parent() -> str:
        print("parent")
        return mr.spawn(say, args=("child",)).execute().log

    assert mr.spawn(parent).execute(echo=True).fetch() == "child\n"
    assert capsys.readouterr().err == "parent | parent\n"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 60
    while "mars-echo" in [thread.name for thread in threading.enumerate()]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_run_shows_what_it_prints_and_not_what_was_printed_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = tmp_path / "flag"

    def fit(number: int) -> int:
        print("try", number, flag.exists(), file=sys.stderr)
        if number == 1 and not flag.exists():
            raise ValueError("one")
        return number

    call, items = mr.spawn(fit, args=(1,), name="call"), mr.map(fit, range(3), name="item")
    for one in (call, items):
        one.execute(on_error="continue", echo="summary")
    assert capsys.readouterr().err.splitlines() == [
        "mars: 1 of 1 call wrote to stderr: call; '.log' shows it",
        "mars: 3 of 3 calls wrote to stderr: item 0, item 1, item 2; '.log' of each shows it",
    ]
    for one in (call, items):
        one.execute(on_error="continue", echo="failures")
    assert capsys.readouterr().err.splitlines() == [
        "call | try 1 False", "item 1 | try 1 False",
    ]  # fmt: skip
    flag.touch()
    for one in (call, items):
        one.execute(echo="all")
    assert capsys.readouterr().err.splitlines() == ["call | try 1 True", "item 1 | try 1 True"]
    assert items.fetch() == [0, 1, 2]
    mr.ExecutableTuple([call, items]).execute(echo=True)
    assert capsys.readouterr().err == ""
