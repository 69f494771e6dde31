"""Calls with ``threads=``: many that wait run at a time in one process."""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars
import mars.remote as mr
from mars.errors import TaskCancelled, TaskTimeout, WorkerDied

WaitUntil = Callable[..., None]
PassGate = Callable[[object], None]


def where() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def meet(folder: Path, number: int, all_of: int) -> tuple[int, int]:
    """Return once so many calls run at the same time."""
    (folder / str(number)).touch()
    deadline = time.monotonic() + 50
    while len(os.listdir(folder)) < all_of:
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.005)
    return where()


def test_calls_run_at_a_time_in_one_process(local_only: None, tmp_path: Path) -> None:
    calls = [mr.spawn(meet, args=(tmp_path, i, 40), threads=40) for i in range(40)]
    places = mr.ExecutableTuple(calls).execute().fetch()
    assert len({pid for pid, _ in places}) == 1
    assert len({thread for _, thread in places}) == 40
    items = mr.map(lambda _: where(), range(40), threads=40)
    assert {pid for pid, _ in items.execute().fetch()} == {places[0][0]}


def test_no_more_calls_run_at_a_time_than_said(local_only: None, tmp_path: Path) -> None:
    def count(number: int) -> int:
        mine = tmp_path / str(number)
        mine.touch()
        time.sleep(0.02)
        there = len(os.listdir(tmp_path))
        mine.unlink()
        return there

    counts = mr.map(count, range(12), threads=3).execute().fetch()
    assert 1 <= max(counts) <= 3


def test_calls_beside_them_have_all_cores(
    local_only: None, tmp_path: Path, pass_gate: PassGate
) -> None:
    gate = tmp_path / "gate"
    waiting = mr.spawn(pass_gate, args=(gate,), threads=4)
    run = waiting.execute(wait=False)
    folder = tmp_path / "met"
    folder.mkdir()
    both = [mr.spawn(meet, args=(folder, i, 2)) for i in range(2)]  # of two cores
    assert len({pid for pid, _ in mr.ExecutableTuple(both).execute().fetch()}) == 2
    gate.touch()
    run.result(50)


def test_each_call_has_its_own_log(session: mars.Session, engine: str, tmp_path: Path) -> None:
    def talk(number: int) -> None:
        print(f"begin {number}")
        if engine != "inline":
            meet(tmp_path, number, 6)
        thread = threading.Thread(target=print, args=(f"in a thread of {number}",))
        thread.start()
        thread.join()
        print(f"end {number}", file=sys.stderr)

    calls = [mr.spawn(talk, args=(i,), threads=6) for i in range(6)]
    mr.ExecutableTuple(calls).execute()
    for number, call in enumerate(calls):
        lines = str(call.fetch_log()).splitlines()
        assert sorted(lines) == sorted(
            [f"begin {number}", f"in a thread of {number}", f"end {number}"]
        )


def test_what_c_code_and_children_print_is_in_the_logs_of_calls_that_ran_meanwhile(
    local_only: None,
) -> None:
    def talk() -> None:
        print("python")
        subprocess.run(["echo", "a child"], check=True)
        ctypes.CDLL(None).puts(b"compiled")

    call = mr.spawn(talk, threads=2).execute()
    lines = str(call.fetch_log()).splitlines()
    assert lines[0] == "python"
    assert lines[1].startswith("mars: C code and child processes printed this")
    assert lines[2:] == ["a child", "compiled"]


def test_values_go_from_threads_to_processes_and_back() -> None:
    def load(number: int) -> Any:
        return np.full(50_000, number)

    def add(one: Any, other: Any) -> Any:
        return one + other

    loaded = [mr.spawn(load, args=(i,), threads=8) for i in range(8)]
    added = [mr.spawn(add, args=pair) for pair in zip(loaded[::2], loaded[1::2], strict=True)]
    sent = mr.spawn(lambda them: [float(one[0]) for one in them], args=(added,), threads=8)
    assert sent.execute().fetch() == [1.0, 5.0, 9.0, 13.0]
    halves = mr.spawn(divmod, args=(7, 3), n_output=2, threads=2)
    assert mr.ExecutableTuple(halves).execute().fetch() == [2, 1]


def test_errors_and_retries_are_as_of_other_calls(tmp_path: Path) -> None:
    def once_more(number: int) -> int:
        first = tmp_path / f"first-{number}"
        if not first.exists():
            first.touch()
            raise OSError("not yet")
        return number

    call = mr.spawn(once_more, args=(1,), threads=4, retries=2).execute()
    assert call.fetch() == 1
    assert [one.ending for one in call.attempts()] == ["error", "value"]
    failed = mr.spawn(once_more, args=(2,), threads=4)
    with pytest.raises(OSError, match="not yet"):
        failed.execute()
    assert mr.map(once_more, range(3, 9), threads=4, retries=1).execute().fetch() == [*range(3, 9)]


def spin() -> None:
    while True:
        pass


def hang() -> None:
    print("about to hang")
    threading.Event().wait(1000)


def test_a_timeout_ends_python_code_and_gives_up_what_hangs(
    local_only: None, tmp_path: Path, pass_gate: PassGate
) -> None:
    before = mr.spawn(where, threads=9).execute().fetch()[0]
    neighbour = mr.spawn(
        lambda: pass_gate(tmp_path / "gate") or os.getpid(),  # type: ignore[func-returns-value]
        threads=9,
    )
    run = neighbour.execute(wait=False)
    for function in (spin, hang):
        call = mr.spawn(function, threads=9, timeout=0.2)
        with pytest.raises(TaskTimeout, match=f"at line .* in {function.__name__}|in wait"):
            call.execute()
        assert [one.ending for one in call.attempts()] == ["stopped"]
    assert "about to hang" in call.fetch_log()
    (tmp_path / "gate").touch()
    run.result(50)
    assert neighbour.fetch() == before, "the process of both goes on"
    assert mr.spawn(where, threads=9).execute().fetch()[0] == before


def test_cancelled_calls_end_and_others_go_on(
    local_only: None, tmp_path: Path, pass_gate: PassGate, wait_until: WaitUntil
) -> None:
    gate = tmp_path / "gate"
    other = mr.spawn(pass_gate, args=(gate,), threads=9)
    run = other.execute(wait=False)
    hanging = mr.spawn(hang, threads=9)
    hanging_run = hanging.execute(wait=False)
    wait_until(lambda: "about" in hanging.fetch_log())
    assert hanging.cancel()
    with pytest.raises(TaskCancelled):
        hanging.fetch()
    gate.touch()
    run.result(50)
    assert hanging_run.done()


def test_a_call_that_ends_the_process_does_so_alone_the_next_time(
    local_only: None, tmp_path: Path
) -> None:
    """The calls beside it are run again, each in a process of its own, and have values."""

    def work(number: int) -> int:
        first = tmp_path / str(number)
        if not first.exists():
            meet(tmp_path, number, 4)
        if number == 2:
            os._exit(7)
        return os.getpid()

    calls = [mr.spawn(work, args=(i,), threads=4) for i in range(4)]
    run = mr.ExecutableTuple(calls).execute(wait=False)
    with pytest.raises(WorkerDied, match="work"):
        run.result(50)
    mr.ExecutableTuple([one for one in calls if one is not calls[2]]).execute()
    pids = {calls[i].fetch() for i in (0, 1, 3)}
    assert os.getpid() not in pids
    died = {one.worker for one in calls[2].attempts()}
    assert len(died) == len(calls[2].attempts()) > 1, "another process each time"
    assert all(one.ending == "died" for one in calls[2].attempts())


def test_calls_of_calls_do_not_wait_for_each_other_for_ever() -> None:
    def leaf(number: int) -> int:
        return number + 1

    def inner(number: int, **options: int) -> int:
        return int(mr.spawn(leaf, args=(number,), **options).execute().fetch())

    def outer(number: int) -> int:
        here = mr.spawn(inner, args=(number,), kwargs={"threads": 1}, threads=1)
        there = mr.spawn(inner, args=(number,))
        return int(here.execute().fetch()) + int(there.execute().fetch())

    assert mr.map(outer, range(4), threads=1).execute().fetch() == [2, 4, 6, 8]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the program, imported by name."""
    (tmp_path / "of_the_program.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("of_the_program")
    del sys.modules["of_the_program"]


def test_each_call_finds_the_program_as_it_was_when_spawned(module: Any) -> None:
    def look(number: int) -> tuple[int, int]:
        import of_the_program as here  # type: ignore[import-not-found]

        before = here.VALUE
        time.sleep(0.01)
        assert here.VALUE == before == module.VALUE, "another call's value was put in place"
        return number, before

    calls = []
    for number in range(24):
        module.VALUE = number % 3
        calls.append(mr.spawn(look, args=(number,), threads=24))
    found = mr.ExecutableTuple(calls).execute().fetch()
    assert found == [(number, number % 3) for number in range(24)]


def test_a_checkpoint_keeps_their_results(tmp_path: Path, keep_default: None, engine: str) -> None:
    ledger = tmp_path / "ran"
    if engine not in ("local", "inline"):
        pytest.skip("the same code keeps results on all engines; this one would start a cluster")

    def work(number: int) -> int:
        with ledger.open("a") as file:
            file.write("ran\n")
        return number

    for _ in range(2):
        with mars.new_session(engine=engine, n_cpu=1, checkpoint=tmp_path / "kept"):
            calls = [mr.spawn(work, args=(i,), threads=3) for i in range(3)]
            assert mr.ExecutableTuple(calls).execute().fetch() == [0, 1, 2]
    assert ledger.read_text() == "ran\n" * 3


def test_an_executor_can_have_them(local_only: None, session: mars.Session, tmp_path: Path) -> None:
    with mars.Executor(12, session, threads=20) as executor:
        futures = [executor.submit(meet, tmp_path, i, 12) for i in range(12)]
        assert len({future.result(50)[0] for future in futures}) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threads": 0}, ValueError, "threads has to be from 1 to 1,000, got 0"),
        ({"threads": 2.5}, TypeError, "threads has to be an int, got 2.5"),
        ({"threads": 4, "cpus": 2}, ValueError, "cpus=2 cannot be kept beside it"),
        ({"threads": 4, "memory": "1GiB"}, ValueError, "memory='1GiB' needs a process of its own"),
        ({"threads": 4, "gpus": 1}, ValueError, "gpus=1 needs a process of its own"),
    ],
)
def test_what_does_not_go_together_is_refused(
    engine: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    if engine != "local":
        pytest.skip("options are checked before any engine hears of them")
    with pytest.raises(error, match=message):
        mr.spawn(where, **options)
