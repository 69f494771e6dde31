"""Everything that a call prints, by whatever means, is in its log; and only that."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mars
import mars.remote as mr


def log_of(func: Callable[..., object], *args: object) -> str:
    return str(mr.spawn(func, args=args).execute().fetch_log())


def say(text: str) -> None:
    print(text)


def by_stderr() -> None:
    print("to stderr", file=sys.stderr)


def by_logging() -> None:
    import logging

    logger = logging.getLogger("mars-contract")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    try:
        logger.warning("by logging")
    finally:
        logger.removeHandler(handler)


def by_descriptor() -> None:
    os.write(1, b"by descriptor 1\n")
    os.write(2, b"by descriptor 2\n")


def by_child_process() -> None:
    import subprocess

    subprocess.run(
        [sys.executable, "-S", "-c", "import os; os.write(1, b'out'); os.write(2, b'err')"],
        check=True,
    )


def by_c_code() -> None:
    import ctypes

    ctypes.CDLL(None).printf(b"from C %d\n", 42)


def by_threads() -> None:
    threads = [threading.Thread(target=print, args=(f"thread {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def by_system() -> None:
    os.system("echo by the shell")  # noqa: S605, S607


WAYS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "print to stderr": (by_stderr, ["to stderr"]),
    "logging": (by_logging, ["by logging"]),
    "os.write": (by_descriptor, ["by descriptor 1", "by descriptor 2"]),
    "a child process": (by_child_process, ["out", "err"]),
    "printf in C": (by_c_code, ["from C 42"]),
    "threads": (by_threads, [f"thread {i}" for i in range(4)]),
    "a shell": (by_system, ["by the shell"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_log_holds_what_is_written_by(way: str) -> None:
    func, expected = WAYS[way]
    text = log_of(func)
    for part in expected:
        assert part in text


def test_the_log_of_a_print_is_exactly_its_text() -> None:
    assert log_of(say, "hello") == "hello\n"


def test_repr_is_the_repr_of_the_text() -> None:
    log = mr.spawn(say, args=("hello",)).execute().fetch_log()
    assert repr(log) == repr("hello\n")


def test_logs_are_on_without_any_configuration_and_per_call() -> None:
    calls = mr.ExecutableTuple([mr.spawn(say, args=(f"call {i}",)) for i in range(10)]).execute()
    assert [str(log) for log in calls.fetch_log()] == [f"call {i}\n" for i in range(10)]


def test_a_call_that_prints_nothing_has_an_empty_log() -> None:
    log = mr.spawn(int).execute().fetch_log()
    assert str(log) == ""
    assert repr(log) == "''"


def test_a_log_before_execute_is_empty_and_has_no_chunk() -> None:
    log = mr.spawn(say, args=("later",)).fetch_log()
    assert len(log) == 0
    assert str(log) == ""
    assert repr(log) == "''"


def test_output_without_a_newline_is_kept() -> None:
    def partial() -> None:
        sys.stdout.write("no newline")

    assert log_of(partial) == "no newline"


def test_order_between_stdout_and_stderr_of_one_call_is_kept_when_flushed() -> None:
    def mixed() -> None:
        print("one", flush=True)
        print("two", file=sys.stderr, flush=True)
        print("three", flush=True)

    assert log_of(mixed).split() == ["one", "two", "three"]


def test_text_of_every_language_survives() -> None:
    text = "naïve – 数据 – 🎲"
    assert log_of(say, text) == f"{text}\n"


def test_bytes_that_are_not_utf8_do_not_break_the_log() -> None:
    def garbage() -> None:
        os.write(1, b"before \xff\xfe after\n")

    text = log_of(garbage)
    assert "before" in text and "after" in text


def test_a_character_cut_by_sizes_is_whole_in_the_concatenation() -> None:
    text = "é数🎲" * 20
    call = mr.spawn(say, args=(text,)).execute()
    pieces = [str(call.fetch_log(offsets=0, sizes=5))]
    while piece := str(call.fetch_log(sizes=5)):
        pieces.append(piece)
        assert len(pieces) < 200
    assert "".join(pieces) == f"{text}\n"
    assert len(pieces) > 10


def test_a_character_written_in_two_halves_is_whole() -> None:
    def halves() -> None:
        os.write(1, b"\xe2\x82")
        os.write(1, b"\xac\n")

    assert log_of(halves) == "€\n"


def test_the_log_of_a_failed_call_is_there() -> None:
    def fail() -> None:
        print("before the failure")
        raise ValueError("failure")

    call = mr.spawn(fail)
    with pytest.raises(ValueError):
        call.execute()
    assert "before the failure" in str(call.fetch_log())


def test_the_log_of_a_crashed_call_is_there(local_only: None) -> None:
    def crash() -> None:
        os.write(1, b"before the crash\n")
        os.kill(os.getpid(), 9)

    call = mr.spawn(crash, idempotent=False)
    with pytest.raises(mars.errors.WorkerDied):
        call.execute()
    assert "before the crash" in str(call.fetch_log())


def test_python_buffers_are_flushed_before_a_failure_is_told() -> None:
    def fail() -> None:
        sys.stdout.write("x" * 3000)
        raise ValueError("failure")

    call = mr.spawn(fail)
    with pytest.raises(ValueError):
        call.execute()
    assert str(call.fetch_log()).count("x") == 3000


def test_the_log_can_be_read_while_the_call_runs(
    local_only: None,
    tmp_path: Path,
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
) -> None:
    gate = tmp_path / "gate"

    def run() -> None:
        print("started", flush=True)
        pass_gate(gate)
        print("finished")

    call = mr.spawn(run)
    execution = call.execute(wait=False)
    wait_until(lambda: str(call.fetch_log(offsets=0)) == "started\n")
    assert not execution.done()
    gate.touch()
    execution.result(20)
    assert str(call.fetch_log(offsets=0)) == "started\nfinished\n"


def test_following_yields_lines_while_the_call_runs_and_ends_with_it(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"

    def run() -> None:
        print("one", flush=True)
        pass_gate(gate)
        print("two", flush=True)
        print("three", end="", flush=True)

    call = mr.spawn(run)
    execution = call.execute(wait=False)
    following = iter(call.fetch_log(follow=True))
    assert next(following).rstrip("\n") == "one"
    gate.touch()
    assert [line.rstrip("\n") for line in following] == ["two", "three"]
    execution.result(20)


def test_following_a_finished_call_yields_all_its_lines() -> None:
    call = mr.spawn(say, args=("a\nb\nc",)).execute()
    assert [line.rstrip("\n") for line in call.fetch_log(follow=True)] == ["a", "b", "c"]


def test_outputs_of_one_call_share_its_log() -> None:
    def two() -> tuple[int, int]:
        print("made two")
        return 1, 2

    first, second = mr.spawn(two, n_output=2)
    mr.ExecutableTuple([first, second]).execute()
    assert str(first.fetch_log(offsets=0)) == "made two\n"
    assert str(second.fetch_log(offsets=0)) == "made two\n"


def test_each_attempt_is_in_the_log_of_a_retried_call(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    def flaky() -> None:
        if not flag.exists():
            flag.touch()
            print("first attempt")
            raise ValueError("again")
        print("second attempt")

    text = log_of_retried(flaky)
    assert "second attempt" in text


def log_of_retried(func: Callable[[], None]) -> str:
    return str(mr.spawn(func, retries=1).execute().fetch_log())


def test_prints_of_the_driver_are_in_no_log() -> None:
    print("printed by the driver")
    call = mr.spawn(say, args=("printed by the call",)).execute()
    assert str(call.fetch_log()) == "printed by the call\n"


def test_stdout_inside_a_call_is_a_whole_text_stream() -> None:
    def look() -> tuple[bool, bool, str]:
        sys.stdout.flush()
        return sys.stdout.isatty(), sys.stdout.writable(), sys.stdout.encoding.lower()

    terminal, writable, encoding = mr.spawn(look).execute().fetch()
    assert (terminal, writable) == (False, True)
    assert encoding.replace("-", "") == "utf8"


def test_a_nested_call_has_its_own_log_and_its_parent_can_print_it() -> None:
    def parent() -> None:
        print("parent")
        child = mr.spawn(say, args=("child",)).execute()
        print(f"[{str(child.fetch_log()).strip()}]")

    text = log_of(parent)
    assert text.splitlines() == ["parent", "[child]"]


# -- parts of a log ----------------------------------------------------------------------------


@pytest.fixture
def digits() -> mr.Object:
    """An executed call whose log is ``0123456789`` five times and a newline: 51 bytes."""
    return mr.spawn(say, args=("0123456789" * 5,)).execute()


WHOLE = "0123456789" * 5 + "\n"


def test_fetch_log_continues_where_it_ended(digits: mr.Object) -> None:
    assert str(digits.fetch_log(sizes=4)) == "0123"
    assert str(digits.fetch_log(sizes=4)) == "4567"
    assert str(digits.fetch_log()) == WHOLE[8:]
    assert str(digits.fetch_log()) == ""
    assert str(digits.fetch_log(offsets=0)) == WHOLE


@pytest.mark.parametrize(
    ("offsets", "sizes", "expected"),
    [
        (0, None, WHOLE),
        (0, 10, WHOLE[:10]),
        (20, 5, WHOLE[20:25]),
        (-20, 10, WHOLE[-20:-10]),
        ("-0.02K", "0.01K", WHOLE[-20:-10]),
        ("0k", None, WHOLE),
        ("0", "10", WHOLE[:10]),
        ("0k", [1000], WHOLE),
        (0, "1k", WHOLE),
        (1000, None, ""),
        (-1000, 5, WHOLE[:5]),
    ],
)
def test_offsets_and_sizes_choose_the_part(
    digits: mr.Object, offsets: object, sizes: object, expected: str
) -> None:
    assert str(digits.fetch_log(offsets=offsets, sizes=sizes)) == expected


def test_offsets_and_sizes_may_be_dicts_by_chunk(digits: mr.Object) -> None:
    (key,) = digits.fetch_log().chunk_op_keys
    assert str(digits.fetch_log(offsets={key: 10}, sizes=5)) == WHOLE[10:15]
    assert str(digits.fetch_log(offsets={key: "-0.02K"}, sizes={key: 10})) == WHOLE[-20:-10]


def test_a_log_tells_its_chunks_results_and_offsets(digits: mr.Object) -> None:
    log = digits.fetch_log()
    assert len(log) == 1
    assert log.results == [WHOLE]
    assert log.offsets == [len(WHOLE)]
    assert [type(k) for k in log.chunk_op_keys] == [str]


def test_a_read_never_changes_what_was_read_before(digits: mr.Object) -> None:
    # In the original all reads of an object share one fetcher: what was returned before changes.
    first = digits.fetch_log(sizes=4)
    assert str(first) == "0123"
    assert str(digits.fetch_log(sizes=4)) == "4567"
    assert str(first) == "0123"


@pytest.mark.parametrize("wrong", [{"offsets": "many"}, {"sizes": "2 parsecs"}, {"offsets": 1.5j}])
def test_offsets_and_sizes_that_mean_nothing_are_refused(
    digits: mr.Object, wrong: dict[str, object]
) -> None:
    with pytest.raises((TypeError, ValueError)):
        digits.fetch_log(**wrong)


def test_one_read_gives_at_most_a_mebibyte_and_the_next_the_rest() -> None:
    call = mr.spawn(say, args=("x" * (1 << 20) + "tail",)).execute()
    assert len(str(call.fetch_log())) == 1 << 20
    assert str(call.fetch_log()) == "tail\n"


def test_module_level_fetch_log_takes_objects_or_a_list() -> None:
    calls = [mr.spawn(say, args=(f"call {i}",)) for i in range(2)]
    mars.execute(calls)
    assert [str(log) for log in mars.fetch_log(*calls)] == ["call 0\n", "call 1\n"]
    assert [str(log) for log in mars.fetch_log(calls, offsets=0)] == ["call 0\n", "call 1\n"]
    assert [str(log) for log in mars.fetch_log(calls, offsets=5, sizes=1)] == ["0", "1"]


def test_a_tuple_reads_parts_of_all_its_logs() -> None:
    calls = mr.ExecutableTuple([mr.spawn(say, args=(f"call {i}",)) for i in range(2)]).execute()
    assert [str(log) for log in calls.fetch_log(offsets="-0.003k", sizes=2)] == [" 0", " 1"] or [
        str(log) for log in calls.fetch_log(offsets=-3, sizes=2)
    ] == [" 0", " 1"]


def test_big_output_is_kept_whole() -> None:
    def flood() -> None:
        for i in range(20_000):
            print(f"line {i:06d}")

    call = mr.spawn(flood).execute()
    text = str(call.fetch_log(sizes=10 << 20))
    assert text.splitlines() == [f"line {i:06d}" for i in range(20_000)]


def test_a_log_limit_keeps_both_ends_and_says_what_it_leaves_out(
    engine: str, keep_default: None
) -> None:
    def flood(count: int) -> None:
        for i in range(count):
            print(f"line {i:06d}")

    with mars.new_session(engine=engine, n_cpu=1, log_limit="256 KiB"):
        call = mr.spawn(flood, args=(100_000,)).execute()
        brief = mr.spawn(flood, args=(3,)).execute()
        log = call.fetch_log(sizes=-1)
        assert str(brief.fetch_log()) == "line 000000\nline 000001\nline 000002\n"
    head, told, end = str(log).partition("[mars: 916 KiB are left out here")
    assert told
    assert head.splitlines() == [f"line {i:06d}" for i in range(len(head) // 12)]
    assert end.splitlines()[1:] == [
        f"line {i:06d}" for i in range(100_000 - end.count("\n") + 1, 100_000)
    ]
    assert 255 << 10 < len(log.raw) < 257 << 10
    assert log.offsets == [12 * 100_000]


@pytest.mark.parametrize("wrong", ["255 KiB", 0, -1, "much", 1.5j])
def test_a_log_limit_that_is_too_small_or_none_is_refused(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match="log_limit"):
        mars.new_session(log_limit=wrong)  # type: ignore[arg-type]


# Last: where it fails, it takes the logs of the calls after it along.
def test_a_call_that_replaces_or_closes_stdout_does_not_harm_the_next() -> None:
    def vandal() -> None:
        sys.stdout = None  # type: ignore[assignment]

    def deletes() -> int:
        del sys.stdout, sys.stderr
        return 7

    mr.spawn(vandal).execute()
    assert mr.spawn(deletes, idempotent=False).to_object() == 7
    calls = mr.ExecutableTuple([mr.spawn(say, args=(f"call {i}",)) for i in range(6)]).execute()
    assert [str(log) for log in calls.fetch_log()] == [f"call {i}\n" for i in range(6)]


# -- following what may never come -----------------------------------------------------------


def followed(call: mr.Object, limit_s: float = 20) -> list[str]:
    """All lines of a call's log, if following it ends in time."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(call.fetch_log(follow=True)), daemon=True)
    thread.start()
    thread.join(limit_s)
    assert not thread.is_alive(), "following goes on"
    return found


def boom() -> None:
    print("about to fail")
    raise ValueError("boom")


def test_following_a_call_that_never_starts_ends() -> None:
    bad = mr.spawn(boom)
    dependent = mr.spawn(str, (bad,))
    last = mr.spawn(str, (dependent,))
    assert followed(bad) == []  # not executed
    with pytest.raises(ValueError, match="boom"):
        last.execute()
    assert followed(bad) == ["about to fail"]
    assert followed(dependent) == followed(last) == []


def test_following_what_a_failure_left_out_ends() -> None:
    calls = [mr.spawn(boom, priority=5), *(mr.spawn(print, i) for i in range(50))]
    with pytest.raises(ValueError):
        mars.execute(calls)
    mr.spawn(int).execute()
    for call in calls[1:]:
        followed(call)


def test_following_a_call_before_its_turn_waits_for_it(
    tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    first = mr.spawn(pass_gate, args=(gate,))
    second = mr.spawn(lambda _: print("second"), args=(first,))
    run = mars.execute(first, second, wait=False)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(second.fetch_log(follow=True)))
    thread.start()
    gate.touch()
    thread.join(20)
    run.result(20)
    assert found == ["second"]


def test_following_ends_when_the_run_is_cancelled(
    tmp_path: Path, pass_gate: Callable[..., None], wait_until: Callable[..., None]
) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"

    def hold() -> None:
        begun.touch()
        pass_gate(gate)

    first = mr.spawn(hold)
    waiting, other = mr.spawn(str, (first,)), mr.map(print, range(3))
    run = mars.execute(first, waiting, *other, wait=False)
    wait_until(begun.exists)
    followers = [
        threading.Thread(target=lambda c=call: list(c.fetch_log(follow=True)), daemon=True)
        for call in (first, waiting, *other)
    ]
    for follower in followers:
        follower.start()
    assert run.cancel()
    gate.touch()  # the inline engine leaves a call in another thread to its end
    for follower in followers:
        follower.join(20)
        assert not follower.is_alive()


def test_following_ends_with_the_session(engine: str, keep_default: None) -> None:
    if engine in ("dask", "ray"):
        pytest.skip("each session of its own costs a cluster here")
    session = mars.new_session(engine=engine, n_cpu=1)
    first = mr.spawn(time.sleep, args=(0.5,) if engine == "inline" else (60,))
    second = mr.spawn(str, (first,))
    mars.execute(first, second, wait=False)
    followers = [
        threading.Thread(
            target=lambda c=call: list(c.fetch_log(session=session, follow=True)), daemon=True
        )
        for call in (first, second)
    ]
    for follower in followers:
        follower.start()
    session.stop_server()
    for follower in followers:
        follower.join(20)
        assert not follower.is_alive()


def test_following_an_item_of_a_map_yields_its_lines() -> None:
    mapped = mr.map(lambda i: print(f"item {i}"), range(5))
    run = mapped.execute(wait=False)
    assert [followed(item) for item in mapped] == [[f"item {i}"] for i in range(5)]
    run.result(20)


def test_following_inside_a_call_ends_too() -> None:
    def outer() -> list[list[str]]:
        bad = mr.spawn(boom)
        dependent = mr.spawn(str, (bad,))
        left_out = [mr.spawn(print, i) for i in range(20)]
        with contextlib.suppress(ValueError):
            mars.execute(dependent, *left_out)
        told = [list(call.fetch_log(follow=True)) for call in (bad, dependent, *left_out)]
        return told[:2]

    assert mr.spawn(outer, timeout=30).execute().fetch() == [["about to fail"], []]


def test_following_several_copies_of_a_script_yields_all_of_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, time\nprint('rank', os.environ['RANK'])\ntime.sleep(0.1)\n")
    status = mr.run_script(script, n_workers=3, run_kwargs={"wait": False})
    assert followed(status) == ["rank 0", "rank 1", "rank 2"]
