"""A call that hangs, holds the interpreter or is stopped is told of, and never taken for dead."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import mars
import mars.remote as mr

Note = Callable[..., None]
Lines = Callable[[object], list[str]]
Wait = Callable[..., None]
Gate = Callable[..., None]

SOON_S = 0.2
"""When the tests want to hear of a silent call, seconds."""

pytestmark = [
    pytest.mark.usefixtures("still_works"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    with mars.config.option_context(silent_notice=SOON_S):
        yield


class Ear:
    """Stands for stderr: keeps what is written, and acts when something is."""

    def __init__(self, act: Callable[[str], object]) -> None:
        self.lines: list[str] = []
        self._act = act

    def write(self, text: str) -> int:
        self.lines += text.splitlines()
        self._act(text)
        return len(text)

    def flush(self) -> None:
        pass


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], object]], Ear]:
    def listen(act: Callable[[str], object]) -> Ear:
        ear = Ear(act)
        monkeypatch.setattr(sys, "stderr", ear)
        return ear

    return listen


Listen = Callable[[Callable[[str], object]], Ear]


def pid_in(text: str) -> int:
    found = re.search(r"\(pid (\d+)\)", text)
    assert found, text
    return int(found[1])


@pytest.mark.parametrize("way", ["wait", "quiet", "future"])
def test_a_silent_call_is_told_of_while_it_runs(
    way: str, tmp_path: Path, pass_gate: Gate, listen: Listen
) -> None:
    gate = tmp_path / "gate"
    ear = listen(lambda text: gate.touch())  # only the notice ends the call
    call = mr.spawn(pass_gate, args=(str(gate),), name="fit")
    if way == "future":
        call.execute(wait=False).result(20)
    else:
        call.execute(show_progress=None if way == "wait" else False)
    call.fetch()
    pid = pid_in(ear.lines[0])
    assert re.fullmatch(
        rf"mars: fit\(\.\.\.\) has run for \S+ m?s without output in worker \d+ \(pid {pid}\); "
        rf'"mars stack {pid}" shows where it is',
        ear.lines[0],
    )


def test_calls_of_a_call_are_told_of_and_not_the_one_that_waits_for_them(
    tmp_path: Path, pass_gate: Gate, listen: Listen
) -> None:
    gate = tmp_path / "gate"
    ear = listen(lambda text: gate.touch())

    def outer() -> None:
        mr.spawn(pass_gate, args=(str(gate),), name="inner").execute().fetch()

    mr.spawn(outer).execute(show_progress=False)
    assert "inner(...)" in ear.lines[0]
    assert not any("outer" in line for line in ear.lines)


def test_a_call_that_prints_or_tells_its_progress_is_not_told_of(
    listen: Listen, tmp_path: Path
) -> None:
    """The third call says nothing: a notice of it tells that there was time for one of the others.

    They say something a hundred times as often as it takes to be silent, so that a busy machine
    does not make them so.
    """
    gate, soon_s = tmp_path / "gate", 5 * SOON_S
    ear = listen(lambda text: gate.touch())

    def speak() -> None:
        while not gate.exists():
            print("still here")
            time.sleep(soon_s / 100)

    def tell() -> None:
        for step in range(1_000_000):
            mars.get_context().set_progress(step / 1_000_000)
            if gate.exists():
                return
            time.sleep(soon_s / 100)

    def silent() -> None:
        while not gate.exists():
            time.sleep(soon_s / 100)

    with mars.config.option_context(silent_notice=soon_s):
        for function in (speak, tell):
            gate.unlink(missing_ok=True)
            calls = [mr.spawn(function), mr.spawn(silent)]
            mr.ExecutableTuple(calls).execute(show_progress=False)
    assert len(ear.lines) == 2
    assert all(line.startswith("mars: silent(...) has run for") for line in ear.lines), ear.lines


def test_turned_off_nothing_is_told(listen: Listen) -> None:
    ear = listen(lambda text: None)
    with mars.config.option_context(silent_notice=None):
        mr.spawn(time.sleep, args=(4 * SOON_S,)).execute(show_progress=False)
    assert ear.lines == []


def test_a_stopped_worker_is_told_of_and_its_call_ends_in_its_only_attempt_once_it_goes_on(
    tmp_path: Path, note: Note, lines: Lines, listen: Listen
) -> None:
    ledger = tmp_path / "ledger"

    def stop(path: str) -> str:
        note(path, os.getpid())
        os.kill(os.getpid(), signal.SIGSTOP)
        return "went on"

    def go_on(text: str) -> None:
        os.kill(pid_in(text), signal.SIGCONT)  # only the notice ends the call

    ear = listen(go_on)
    call = mr.spawn(stop, args=(str(ledger),), name="fit")
    call.execute(show_progress=False)
    assert call.fetch() == "went on"
    (pid,) = lines(ledger)
    assert re.fullmatch(
        rf"mars: fit\(\.\.\.\) waits: worker \d+ \(pid {pid}\) is stopped by a signal, such as "
        rf'SIGSTOP; "kill -CONT {pid}" lets it go on',
        ear.lines[0],
    )


def test_a_worker_that_is_stopped_from_outside_loses_nothing(
    tmp_path: Path, note: Note, lines: Lines, pass_gate: Gate, wait_until: Wait
) -> None:
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"

    def work(path: str, door: str) -> int:
        note(path, os.getpid())
        pass_gate(door)
        return os.getpid()

    call = mr.spawn(work, args=(str(ledger), str(gate)))
    run = call.execute(wait=False)
    wait_until(lambda: lines(ledger))
    pid = int(lines(ledger)[0])
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    gate.touch()
    # Others go on meanwhile, and for longer than anything in the engine would wait.
    others = [mr.spawn(time.sleep, args=(0.05,)) for _ in range(20)]
    mr.ExecutableTuple(others).execute(show_progress=False)
    assert not run.done()
    assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
    os.kill(pid, signal.SIGCONT)
    run.result(30)
    assert call.fetch() == pid
    assert len(lines(ledger)) == 1


def test_a_stopped_worker_runs_out_of_its_timeout_as_ever() -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    with pytest.raises(mars.errors.TaskTimeout):
        mr.spawn(stop, timeout=0.1).execute(show_progress=False)


def test_a_call_that_holds_the_interpreter_in_c_is_told_of_and_runs_once(
    tmp_path: Path, note: Note, lines: Lines, listen: Listen
) -> None:
    ledger = tmp_path / "ledger"

    def hold(path: str) -> str:
        note(path, os.getpid())
        # `PyDLL` keeps the interpreter's lock: no thread of this process runs Python now.
        ctypes.PyDLL(None).sleep(3)
        return "done"

    ear = listen(lambda text: None)
    call = mr.spawn(hold, args=(str(ledger),), name="fit")
    behind = [mr.spawn(pow, args=(i, 2)) for i in range(100)]
    run = call.execute(wait=False)
    mr.ExecutableTuple(behind).execute(show_progress=False)
    run.result(20)
    assert call.fetch() == "done"
    assert "fit(...) has run for" in ear.lines[0]
    assert len(lines(ledger)) == 1
