"""Nothing stays behind: after stop, after exit, after the driver is killed.

Every case runs a program of its own with a temporary directory of its own, and looks at what is
left from outside.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

GONE_S = 30.0
"""The promise is 2 seconds; a loaded test machine gets more, and `make faults` asks for the 2."""

PREAMBLE = """
import os, subprocess, sys, time
import mars, mars.remote as mr
import psutil

def family():
    return [p.pid for p in psutil.Process().children(recursive=True)]

def tell(*facts):
    print(*facts, flush=True)
"""


@pytest.fixture
def private_environment(script_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return {**script_environment, "TMPDIR": str(temporary)}


def start(code: str, environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    program = folder / "program.py"
    program.write_text(PREAMBLE + code)
    return subprocess.Popen(
        [sys.executable, str(program), str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )


def left_behind(environment: dict[str, str]) -> list[str]:
    return os.listdir(environment["TMPDIR"])


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


ENDINGS = {
    "stop_server": "session.stop_server()",
    "mars.stop_server": "mars.stop_server()",
    "close and end": "session.close()",
    "just end": "",
    "an exception": "raise SystemExit(0)",
    "with handles alive": "keep = [mr.spawn(bytes, args=(1 << 20,)).execute() for _ in range(3)]",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_after_a_program_that_ends_by(
    ending: str,
    private_environment: dict[str, str],
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    code = (
        "session = mars.new_session(n_cpu=2)\n"
        "values = mr.ExecutableTuple("
        "[mr.spawn(print, args=(i,)) for i in range(4)]).execute()\n"
        "assert str(values[2].fetch_log()) == '2\\n'\n"
        "data = mr.spawn(bytes, args=(1 << 20,)).execute()\n"
        "assert len(data.fetch()) == 1 << 20\n"
        "tell(*family())\n"
        f"{ENDINGS[ending]}\n"
    )
    process = start(code, private_environment, tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert err == ""
    pids = [int(pid) for pid in out.split()]
    assert len(pids) >= 2
    wait_until(lambda: not alive(pids), GONE_S)
    assert left_behind(private_environment) == []


def test_stop_ends_all_processes_before_it_returns_and_cycles_do_not_grow(
    private_environment: dict[str, str], tmp_path: Path
) -> None:
    code = """
import gc
def cycle():
    session = mars.new_session(n_cpu=2)
    assert mr.spawn(len, args=(mr.spawn(bytes, args=(1 << 20,)),)).execute().fetch() == 1 << 20
    assert str(mr.spawn(print, args=("x",)).execute().fetch_log()) == "x\\n"
    session.stop_server()
    gc.collect()
cycle()
me = psutil.Process()
before = me.num_fds(), me.num_threads(), len(family())
for _ in range(4):
    cycle()
deadline = time.monotonic() + 30
while True:
    # A thread that was joined takes the kernel a moment more to be gone.
    after = me.num_fds(), me.num_threads(), len(family())
    if before == after or time.monotonic() > deadline:
        break
    time.sleep(0.01)
tell(before == after, before, after)
tell(os.listdir(os.environ["TMPDIR"]))
"""
    process = start(code, private_environment, tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    first, second = out.splitlines()
    assert first.startswith("True"), first
    assert second == "[]"


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_nothing_runs_on_after_the_driver_is_killed(
    kind: signal.Signals,
    private_environment: dict[str, str],
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    code = """
folder = sys.argv[1]
session = mars.new_session(n_cpu=2)
def busy(i, folder=folder):
    subprocess.Popen(["sleep", "300"])
    open(os.path.join(folder, f"started{i}"), "w").close()
    time.sleep(300)
execution = mr.ExecutableTuple([mr.spawn(busy, args=(i,)) for i in range(2)]).execute(wait=False)
while not all(os.path.exists(os.path.join(folder, f"started{i}")) for i in range(2)):
    time.sleep(0.005)
tell(*family())
time.sleep(300)
"""
    process = start(code, private_environment, tmp_path)
    assert process.stdout is not None
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) >= 4  # two workers and what each of them started
        process.send_signal(kind)
        process.wait(20)
        wait_until(lambda: not alive(pids), GONE_S)
        temporary = Path(private_environment["TMPDIR"])
        folders = [temporary / name for name in left_behind(private_environment)]
        assert len(folders) <= 1
        assert all(f.stat().st_mode & 0o077 == 0 for f in folders)
    finally:
        process.kill()
        process.communicate()
        for pid in alive(pids):
            os.kill(pid, signal.SIGKILL)


def test_nothing_listens_on_any_port(private_environment: dict[str, str], tmp_path: Path) -> None:
    code = """
session = mars.new_session(n_cpu=2)
def ports():
    return [c for c in psutil.Process().net_connections(kind="inet")]
found = mr.ExecutableTuple([mr.spawn(ports) for _ in range(2)]).execute().fetch()
for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    found.append(process.net_connections(kind="inet"))
tell([c for connections in found for c in connections])
"""
    process = start(code, private_environment, tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert out == "[]\n"


def test_files_of_a_session_are_private_to_the_user(
    private_environment: dict[str, str], tmp_path: Path
) -> None:
    code = """
session = mars.new_session(n_cpu=1)
mr.spawn(print, args=("secret",)).execute()
for folder, _, names in os.walk(os.environ["TMPDIR"]):
    for name in names + [""]:
        path = os.path.join(folder, name)
        if path.rstrip("/") != os.environ["TMPDIR"] and os.stat(path).st_mode & 0o077:
            if os.stat(folder).st_mode & 0o077 or not name:
                tell("open to others:", path)
"""
    process = start(code, private_environment, tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert out == ""


def test_an_interrupt_ends_a_waiting_program_at_once_and_leaves_nothing(
    private_environment: dict[str, str], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    code = """
import threading
session = mars.new_session(n_cpu=2)
mr.spawn(int).execute()
tell(*family())

def waits():
    # Whether the program waits inside `execute`.
    frame = sys._current_frames()[threading.main_thread().ident]
    names = [frame.f_code.co_name]
    while frame := frame.f_back:
        names.append(frame.f_code.co_name)
    return {"execute", "wait"} <= set(names)

def tell_that_it_waits():
    while not waits():
        time.sleep(0.005)
    tell("waits")

threading.Thread(target=tell_that_it_waits, daemon=True).start()
try:
    mr.ExecutableTuple([mr.spawn(time.sleep, args=(300,)) for _ in range(4)]).execute()
except KeyboardInterrupt:
    tell("interrupted")
tell(mr.spawn(pow, args=(2, 5)).execute().fetch())
"""
    process = start(code, private_environment, tmp_path)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=40)  # its calls would take 300 s
    assert (process.returncode, out.split()) == (0, ["interrupted", "32"]), err
    wait_until(lambda: not alive(pids), GONE_S)
    assert left_behind(private_environment) == []
