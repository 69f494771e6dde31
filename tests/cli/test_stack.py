"""``mars stack`` shows what each worker does, and where, without the worker's help."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

import mars
import mars.remote as mr
from mars import platform
from mars.cli import main
from mars.engines.local import stacks
from mars.engines.local.stacks import Report, State, find_engines

Note = Callable[..., None]
Lines = Callable[[object], list[str]]
Wait = Callable[..., None]

# A worker on a machine that has other work may need long for its answer.
examine = partial(stacks.examine, limit_s=20.0)

pytestmark = [
    pytest.mark.usefixtures("session"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]


@pytest.fixture(scope="module")
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    opened = mars.new_session(n_cpu=2, default=True)
    yield opened
    opened.stop_server()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command waits as long as the tests do."""
    monkeypatch.setattr(stacks, "examine", examine)


@pytest.fixture
def start(
    tmp_path: Path, note: Note, lines: Lines, wait_until: Wait
) -> Iterator[Callable[..., int]]:
    """``start(function)`` runs it as ``function(tell)``; returns its process once it has told."""
    runs = []

    def start(function: Callable[..., object]) -> int:
        ledger = tmp_path / f"ledger-{len(runs)}"

        def tell() -> None:
            note(ledger, os.getpid())

        runs.append(mr.spawn(function, args=(tell,), idempotent=False).execute(wait=False))
        wait_until(lambda: lines(ledger))
        return int(lines(ledger)[0])

    yield start
    for run in runs:
        run.cancel()


@pytest.fixture
def seen_in(wait_until: Wait) -> Callable[..., Report]:
    """``seen_in(pid, name)``: what a worker says once its call is in that function.

    A call that has told that it began may be on its way back from telling.
    """

    def seen_in(pid: int, name: str) -> Report:
        reports: list[Report] = []

        def is_there() -> bool:
            reports.append(examine(pid))
            return bool(reports[-1].call) and reports[-1].call[0].endswith(f" in {name}")

        wait_until(is_there)
        return reports[-1]

    return seen_in


Seen = Callable[..., Report]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["stack", *arguments]) == 0
    return capsys.readouterr().out


def workers() -> tuple[int, ...]:
    (engine,) = [engine for engine in find_engines() if engine.driver == os.getpid()]
    return tuple(engine.workers)


def linger(tell: Callable[[], None]) -> None:
    tell()
    time.sleep(60)


def test_the_stack_of_a_running_call_is_shown_without_frames_of_ours(
    start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    pid = start(linger)
    text = shown(capsys, str(pid))
    assert f"program {os.getpid()}: " in text
    assert f"worker {pid}: running a call, most recent line first\n" in text
    assert re.search(rf'\n    File "{re.escape(__file__)}", line \d+ in linger\n', text)
    assert "engines/local" not in text
    assert text.count("worker ") == 1


def test_a_call_goes_on_after_it_was_looked_at(tmp_path: Path, wait_until: Wait) -> None:
    gate = tmp_path / "gate"

    def work(door: Path) -> int:
        for turn in range(100_000):
            if door.exists():
                return turn
            time.sleep(0.001)
        raise RuntimeError("the gate was not opened")

    call = mr.spawn(work, args=(gate,))
    run = call.execute(wait=False)
    wait_until(lambda: any(examine(pid).call for pid in workers()))
    for _ in range(20):
        for pid in workers():
            examine(pid)
    gate.touch()
    run.result(20)
    assert call.fetch() > 0


def test_a_worker_without_a_call_is_idle(wait_until: Wait) -> None:
    # One that has just started does not answer yet.
    wait_until(lambda: {examine(pid).state for pid in workers()} == {State.IDLE})


def test_all_programs_of_the_user_are_shown_by_default_and_one_by_its_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int | None] = []

    def find(user: int | None = None) -> list[stacks.Processes]:
        asked.append(user)  # other programs of this user are not ours to disturb
        return [engine for engine in find_engines(user) if engine.driver == os.getpid()]

    monkeypatch.setattr(stacks, "find_engines", find)
    assert f"program {os.getpid()}: " in shown(capsys)
    assert asked == [os.getuid()]
    text = shown(capsys, str(os.getpid()))
    assert text.startswith(f"program {os.getpid()}: ")
    assert text.count("program ") == 1
    assert text.count("worker ") == len(workers())


def test_a_process_that_has_nothing_to_do_with_it_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["stack", "1"]) == 1
    assert capsys.readouterr().err == "process 1 is no worker of mars, and has none\n"


def test_a_call_that_holds_the_interpreter_in_c_answers(
    start: Callable[..., int], seen_in: Seen
) -> None:
    def backtrack(tell: Callable[[], None]) -> None:
        tell()
        re.match(r"(a+)+$", "a" * 60 + "b")  # longer than anybody lives, under the lock

    report = seen_in(start(backtrack), "match")
    assert report.state is State.RUNNING
    assert report.call[-1].endswith(" in backtrack")
    assert "re/__init__.py" in report.call[0]


def test_a_stopped_worker_is_shown_as_stopped_and_not_asked(
    start: Callable[..., int], capsys: pytest.CaptureFixture[str], wait_until: Wait
) -> None:
    pid = start(linger)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: platform.is_stopped(pid))
        text = shown(capsys, str(pid))
        assert f"worker {pid}: stopped by a signal; kill -CONT {pid} lets it go on\n" in text
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: examine(pid).state is State.RUNNING)


def test_a_call_that_waits_for_its_calls_is_shown_where_it_asked(
    start: Callable[..., int], wait_until: Wait
) -> None:
    def outer(tell: Callable[[], None]) -> None:
        call = mr.spawn(time.sleep, args=(60,))
        tell()
        call.execute()

    pid = start(outer)
    wait_until(lambda: examine(pid).state is State.NESTED)
    report = examine(pid)
    assert [frame.rpartition(" ")[2] for frame in report.call] == ["outer"]


def test_threads_of_a_call_are_shown(
    start: Callable[..., int], capsys: pytest.CaptureFixture[str], wait_until: Wait
) -> None:
    def threaded(tell: Callable[[], None]) -> None:
        import threading

        def beside() -> None:
            tell()
            time.sleep(60)

        threading.Thread(target=beside, daemon=True).start()
        time.sleep(60)

    pid = start(threaded)
    texts: list[str] = []

    def is_shown() -> bool:
        texts.append(shown(capsys, str(pid)))
        return bool(re.search(r"in another thread:\n      File .* in beside\n", texts[-1]))

    wait_until(is_shown)  # it may be on its way back from telling
    assert "serve_control" not in texts[-1]


def test_calls_in_threads_are_shown_by_their_names(
    capsys: pytest.CaptureFixture[str], wait_until: Wait, tmp_path: Path, pass_gate: Wait
) -> None:
    gate = tmp_path / "gate"

    def download() -> None:
        pass_gate(gate)

    def asks() -> None:
        mr.spawn(download, threads=3, name="the third").execute()

    def page(number: int) -> None:
        pass_gate(gate)

    run = mars.execute(
        mr.spawn(download, name="the first", threads=3),
        mr.spawn(asks, name="the second", threads=3),
        mr.map(page, range(2), threads=8),
        wait=False,
    )
    texts: list[str] = []
    running = "running a call, most recent line first"

    def are_shown() -> bool:
        texts.append(shown(capsys, str(os.getpid())))
        return all(
            re.search(rf"    {told}\n(      File .*\n)*      File .* in {last}\n", texts[-1])
            for told, last in (
                (f"the first: {running}", "download"),
                (f"the third: {running}", "download"),
                ("the second: waiting for calls that its call has made.*", "asks"),
                (f"item 0 of page: {running}", "page"),
                (f"item 1 of page: {running}", "page"),
            )
        )

    try:
        try:
            wait_until(are_shown)
        except AssertionError:
            pytest.fail(f"not all calls are shown in {texts[-1]}")
        _, found, ours = texts[-1].partition(": running 5 calls in threads\n")
        assert found
        ours = ours.partition("\n  worker ")[0]
        assert "engines/worker" not in ours and "in another thread" not in ours
    finally:
        gate.touch()
        run.result(60)


def test_of_calls_in_too_many_threads_the_names_are_shown(wait_until: Wait) -> None:
    pid, answer = (
        7,
        'Thread 0x00000000000000a1 (most recent call first):\n  File "p", line 1 in f\n',
    )
    main = 'Current thread 0x01 (most recent call first):\n  File "<string>", line 1 in <module>\n'
    told = stacks._read(pid, f"{answer}...\n{main}", {0xA1: "one", 0xB2: "two"})
    assert [(one.name, one.call) for one in told.calls] == [
        ("one", ['File "p", line 1 in f']),
        ("two", None),
    ]


def test_a_call_that_blocks_signals_answers_through_another_thread(
    start: Callable[..., int], seen_in: Seen
) -> None:
    def deaf(tell: Callable[[], None]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) | {signal.SIGRTMIN + 7})
        tell()
        time.sleep(60)

    assert seen_in(start(deaf), "deaf").state is State.RUNNING


@pytest.mark.parametrize("loss", ["descriptors", "handler"])
def test_a_worker_that_cannot_answer_is_not_harmed_by_the_question(
    loss: str,
    start: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    wait_until: Wait,
) -> None:
    def lose(tell: Callable[[], None]) -> None:
        if loss == "handler":  # without one, the signal ends a process
            signal.signal(signal.SIGRTMIN + 7, signal.SIG_DFL)
        else:
            for entry in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if "mars-stack" in os.readlink(f"/proc/self/fd/{entry}"):
                        os.close(int(entry))
        tell()
        time.sleep(60)

    pid = start(lose)
    assert f"worker {pid}: alive, but it does not answer" in shown(capsys, str(pid))
    assert psutil.pid_exists(pid)
    os.kill(pid, signal.SIGKILL)  # the next test needs one that answers
    wait_until(lambda: pid not in workers())


def test_a_deep_recursion_is_shown_as_running(start: Callable[..., int], seen_in: Seen) -> None:
    def descend(tell: Callable[[], None], depth: int = 300) -> None:
        if depth:
            descend(tell, depth - 1)
        else:
            tell()
            time.sleep(60)

    assert seen_in(start(descend), "descend").state is State.RUNNING


def test_a_process_that_has_ended_is_said_to_have_ended() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert examine(ended.pid).state is State.GONE


def test_several_who_ask_at_once_get_whole_answers(
    start: Callable[..., int], seen_in: Seen
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pid = start(linger)
    seen_in(pid, "linger")
    with ThreadPoolExecutor(4) as pool:
        for report in pool.map(examine, [pid] * 40):
            assert [frame.rpartition(" ")[2] for frame in report.call] == ["linger"]


def test_a_system_without_proc_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def listdir(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(stacks.os, "listdir", listdir)
    assert main(["stack"]) == 1
    assert "needs /proc" in capsys.readouterr().err


def test_c_code_without_a_python_function_around_it_is_named_as_such(
    capsys: pytest.CaptureFixture[str], wait_until: Wait
) -> None:
    run = mr.spawn(time.sleep, args=(60,)).execute(wait=False)
    try:
        wait_until(lambda: "running a call; it is in C code" in shown(capsys, str(os.getpid())))
    finally:
        run.cancel()


def test_what_is_no_process_and_no_cluster_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "nonsense"]) == 2
    assert "no process, and no address of a cluster" in capsys.readouterr().err
    assert main(["stack", "tcp://127.0.0.1:1"]) == 1
    assert "mars stack: no connection to a Dask scheduler" in capsys.readouterr().err
