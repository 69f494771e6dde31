"""A program that is killed again and again does each call once, and comes to the same result."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SEED = int(os.environ.get("MARS_SEED", "1"))

PROGRAM = """
import json, os, sys, time, types
import mars, mars.remote as mr

folder, count, ledger = sys.argv[1], int(sys.argv[2]), sys.argv[3]
where, options = json.loads(sys.argv[4])
if "security" in options:
    options["security"] = types.SimpleNamespace(**options["security"])

def sign(text):
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\\n".encode())
    os.close(descriptor)

def work(index):
    end = time.monotonic() + 0.015
    print("working on", index)
    while time.monotonic() < end:
        time.sleep(0.001)
    value = float(mr.rng().random()) if index % 3 == 0 else index * index
    sign(f"ended {index}")
    return value

def total(parts):
    sign("ended total")
    return sum(parts)

options["checkpoint"] = folder if folder != "-" else False
with mars.new_session(*where, **options) as session:
    # To import Ray or Dask and to reach its nodes takes seconds, with or without a checkpoint.
    cpu_s = time.process_time() if where else 0.0
    parts = [mr.spawn(work, index) for index in range(count - 101)]
    sums = [mr.spawn(total, (parts[k * 4 : k * 4 + 8],)) for k in range(100)]
    sign("begun")
    result = mr.spawn(total, (sums + parts,)).execute().fetch()
    print(repr(result), session.checkpoint and session.checkpoint.executed)
print(time.process_time() - cpu_s)
"""


@pytest.fixture
def command(request: pytest.FixtureRequest, tmp_path: Path, engine: str) -> list[str]:
    """The program and how it makes its session; a cluster outlives it."""
    where: list[str] = []
    options: dict[str, Any] = {"n_cpu": 2}
    if engine == "ray":
        request.getfixturevalue("ray_here")
        where, options = [request.getfixturevalue("ray_head")], {"engine": "ray"}
    elif engine == "dask":
        cluster = request.getfixturevalue("dask_cluster")
        paths = vars(cluster.credentials)
        where = [cluster.address]
        options = {"security": {name: str(path) for name, path in paths.items()}}
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return [sys.executable, str(program), json.dumps([where, options])]


def run(command: list[str], folder: object, count: int, ledger: Path, env: Any) -> list[str]:
    done = subprocess.run(
        [*command[:2], str(folder), str(count), str(ledger), command[2]],
        env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def signs(ledger: Path) -> str:
    return ledger.read_text() if ledger.exists() else ""


def has_work_begun(text: str, rounds: int) -> bool:
    return text.count("begun") > rounds and "ended" in text.rpartition("begun")[2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("engine", ["local", "dask", "ray"], scope="module")
def test_a_program_killed_five_times_ends_each_call_once_and_has_the_same_result(
    engine: str, command: list[str], tmp_path: Path, script_environment: dict[str, str]
) -> None:
    chance = random.Random(SEED)
    count, ledger, folder = 600, tmp_path / "ledger", tmp_path / "otto"
    undisturbed = run(command, "-", count, tmp_path / "other", script_environment)[0]
    kills = 0
    while kills < 5:
        rounds = signs(ledger).count("begun")
        with subprocess.Popen(
            [*command[:2], str(folder), str(count), str(ledger), command[2]],
            env=script_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            deadline = time.monotonic() + 50
            while not has_work_begun(signs(ledger), rounds):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.7))  # the moment of the kill is the point
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
    result, executed = run(command, folder, count, ledger, script_environment)[:2]
    assert result == undisturbed
    ended = collections.Counter(line for line in ledger.read_text().splitlines() if line != "begun")
    assert len(ended) == count - 101 + 1
    del ended["ended total"]
    again = sum(number - 1 for number in ended.values())
    print(f"{again} of {count} ended twice after {kills} kills; {executed} were left at last")
    # In flight at a kill: two run, and what ended within milliseconds before is not yet written.
    assert again <= 4 * kills
    size = ledger.stat().st_size
    result, executed, cpu_s = run(command, folder, count, ledger, script_environment)
    assert (result, executed) == (undisturbed, "0")
    assert ledger.stat().st_size == size + len("begun\n")
    # A second on a machine that has nothing else to do; others may be at work on this one.
    assert float(cpu_s) < 1.0
