"""Graphs and values of every size and shape, code that comes and goes, and all of it at once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr
from mars.errors import NotExecuted, SessionClosed, TaskCancelled
from tests.faults.campaign import SEED, lengths
from tests.faults.conftest import Program

GIB = 2**30


def inc(number: int, *_: object) -> int:
    return number + 1


def echo(value: Any) -> Any:
    return value


# -- values -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("still_works")
def test_a_value_of_no_bytes_and_one_of_ten_thousand_parts_arrive_whole(
    session: mars.session.Session,
) -> None:
    np = pytest.importorskip("numpy")
    empty = [b"", bytearray(), np.empty(0), np.empty((3, 0, 2)), [], {}]
    for value in empty:
        got = mr.spawn(echo, args=(value,)).execute().fetch()
        assert type(got) is type(value) and np.shape(got) == np.shape(value)
    parts = [np.full(9000, number) for number in range(10_000)]  # 72 kB each, apart
    got = mr.spawn(echo, args=(parts[:200] * 50,)).execute().fetch()
    assert len(got) == 10_000 and all(part[0] == i % 200 for i, part in enumerate(got))
    small = [np.full(10, number) for number in range(10_000)]
    assert sum(x[3] for x in mr.spawn(echo, args=(small,)).execute().fetch()) == 49_995_000


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_an_argument_and_a_result_above_four_gib_arrive_whole(
    session: mars.session.Session,
) -> None:
    np = pytest.importorskip("numpy")
    data = np.arange(5 * GIB // 8 + 1)
    got = mr.spawn(echo, args=(data,)).execute().fetch()
    assert got.shape == data.shape and bool((got == data).all())


# -- graphs -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("still_works")
@pytest.mark.timeout(600)
@lengths("length", 3_000, 100_000, 600)
def test_a_chain_may_be_as_long_as_it_likes(session: mars.session.Session, length: int) -> None:
    call: Any = 0
    for _ in range(length):
        call = mr.spawn(inc, args=(call,))
    assert call.execute().fetch() == length


@pytest.mark.usefixtures("still_works")
@lengths("width", 10_000, 1_000_000, 900)
def test_any_number_of_calls_without_inputs_may_run(
    session: mars.session.Session, width: int
) -> None:
    calls = mr.ExecutableTuple([mr.spawn(inc, args=(number,)) for number in range(width)])
    assert sum(calls.execute().fetch()) == width * (width + 1) // 2


@pytest.mark.usefixtures("still_works")
def test_a_call_may_read_ten_thousand_others(session: mars.session.Session) -> None:
    leaves = [mr.spawn(inc, args=(number,)) for number in range(10_000)]
    assert mr.spawn(sum, args=(leaves,)).execute().fetch() == 50_005_000


@pytest.mark.usefixtures("still_works")
def test_a_thousand_diamonds_in_a_row_run_each_call_once(session: mars.session.Session) -> None:
    end: Any = mr.spawn(inc, args=(0,))
    for _ in range(1000):
        left, right = mr.spawn(inc, args=(end,)), mr.spawn(inc, args=(end,))
        end = mr.spawn(max, args=(left, right))
    assert end.execute().fetch() == 1001


@pytest.mark.usefixtures("still_works")
def test_a_graph_that_cannot_be_run_is_refused_before_anything_runs(
    session: mars.session.Session, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    first = mr.spawn(ran.touch)
    # A cycle cannot be written: an object exists before whoever reads it does. What comes nearest
    # is a list that holds itself, and the object that reads it, which is then too late.
    ring: list[Any] = [first]
    ring.append(ring)
    reader = mr.spawn(len, args=(ring,))
    ring.append(reader)
    assert reader.execute().fetch() == 2
    ran.unlink()
    with mars.new_session(n_cpu=1, default=False) as other:
        foreign = mr.spawn(echo, args=(1,))
        foreign.execute(session=other)
        with pytest.raises(NotExecuted):
            foreign.fetch()
        other.stop_server()
    with pytest.raises(SessionClosed):
        mr.ExecutableTuple([mr.spawn(ran.touch), foreign]).execute(session=other)
    assert not ran.exists()


def fan(depth: int) -> int:
    if not depth:
        return 1
    calls = [mr.spawn(fan, args=(depth - 1,)) for _ in range(2)]
    return sum(mr.ExecutableTuple(calls).execute().fetch())


@pytest.mark.usefixtures("still_works")
def test_calls_that_wait_for_calls_that_wait_never_wait_for_ever(
    session: mars.session.Session,
) -> None:
    calls = mr.ExecutableTuple([mr.spawn(fan, args=(3,)) for _ in range(6)])
    assert calls.execute().fetch() == [8] * 6


# -- code -------------------------------------------------------------------------------------

MODULE = """
import helper_of_it
def answer(): return helper_of_it.VALUE
def late():
    import late_helper
    return late_helper.VALUE
"""

CODE = """
import os, sys, tempfile
folder = tempfile.mkdtemp()
sys.path.insert(0, folder)
def write(name, text):
    with open(os.path.join(folder, name), "w") as file: file.write(text)
write("helper_of_it.py", "VALUE = 41")
write("late_helper.py", "VALUE = 'late'")
write("module_of_it.py", {module!r})
import mars.remote as mr, module_of_it
call = mr.spawn(module_of_it.answer)
late = mr.spawn(module_of_it.late)
os.unlink(os.path.join(folder, "helper_of_it.py"))
os.unlink(os.path.join(folder, "module_of_it.py"))
print(call.execute().fetch())
os.chdir("/")
print(late.execute().fetch())
os.unlink(os.path.join(folder, "late_helper.py"))
exec("def made(): return 'made here'")
print(mr.spawn(made).execute().fetch())
import shutil; shutil.rmtree(folder)
"""


@pytest.mark.parametrize("how", ["file", "stdin", "command"])
def test_code_that_is_removed_or_made_while_the_program_runs_is_the_code_it_had(
    how: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    code = CODE.format(module=MODULE)
    command, given = [sys.executable, "-W", "ignore"], None
    if how == "file":
        script = tmp_path / "program.py"
        script.write_text(code)
        command.append(str(script))
    elif how == "command":
        command += ["-c", code]
    else:
        command, given = [*command, "-"], code
    done = subprocess.run(
        command, input=given, env=script_environment, capture_output=True, text=True,
        cwd=tmp_path, timeout=200, check=False,
    )  # fmt: skip
    assert done.stdout.split("\n") == ["41", "late", "made here", ""], done.stderr


# -- the rest of the engine -------------------------------------------------------------------

ALONE = textwrap.dedent("""
    import os, sys, time
    import mars, mars.remote as mr

    session = mars.new_session(n_cpu=2, default=True)
    mr.spawn(abs, args=(-1,)).execute()
    print("ready", flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.005)
    calls = mr.ExecutableTuple([mr.spawn(pow, args=(i, 2)) for i in range(100)])
    print(sum(calls.execute().fetch()), flush=True)
""")


def test_all_processes_but_the_program_s_own_may_be_killed_at_once(
    tmp_path: Path, script_environment: dict[str, str]
) -> None:
    go = tmp_path / "go"
    one = Program(tmp_path, script_environment, ALONE, str(go))
    try:
        assert one.line() == "ready"
        for process in psutil.Process(one.process.pid).children(recursive=True):
            os.kill(process.pid, signal.SIGKILL)
        go.touch()
        assert one.line() == str(sum(i * i for i in range(100))), one.errors()
        assert one.wait() == 0
        one.assert_nothing_left()
    finally:
        one.close()


def nap(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


@pytest.mark.usefixtures("still_works")
@lengths("steps", 120, 3_000, 900)
def test_cancels_dropped_objects_and_new_runs_under_load_lose_nothing(
    session: mars.session.Session, steps: int
) -> None:
    chance = random.Random(SEED)
    held: dict[Any, int] = {}
    runs: list[tuple[Any, list[Any]]] = []

    def settle(run: Any, calls: list[Any]) -> None:
        with contextlib.suppress(CancelledError):
            assert run.exception(timeout=30) is None
        for call in calls:
            if call in held:
                try:
                    assert call.fetch() == held[call]
                except (TaskCancelled, NotExecuted):
                    assert run.cancelled()

    for step in range(steps):
        what = chance.random()
        if what < 0.45:
            new = {}
            inputs = chance.sample(list(held), min(len(held), chance.randint(0, 2)))
            for number in range(chance.randint(1, 12)):
                value = step * 100 + number
                pause = chance.choice((0.0, 0.0, 0.0005, 0.004))
                new[mr.spawn(nap, args=(pause, value))] = value
                if inputs:
                    call = mr.spawn(max, args=(*inputs, 0))
                    new[call] = max(held[one] for one in inputs)
            held.update(new)
            wanted = list(new)
            runs.append((mr.ExecutableTuple(wanted).execute(wait=False), wanted))
        elif what < 0.6 and runs:
            chance.choice(runs)[0].cancel()
        elif what < 0.8 and held:
            for call in chance.sample(list(held), len(held) // 2):
                held.pop(call, None)
        elif runs:
            settle(*runs.pop(chance.randrange(len(runs))))
    for run, calls in runs:
        settle(run, calls)
    missing = mr.ExecutableTuple(list(held))
    assert list(missing.execute().fetch()) == list(held.values())
