"""A program on a cluster that just ends, with calls done and one under way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(100)

PROGRAM = """
import atexit, sys, time
import numpy as np
import mars, mars.remote as mr

def make(index):
    return np.full(2_000_000, index, dtype=np.uint8)

def first(array):
    return int(array[0])

def wait():
    time.sleep(60)

engine, folder = sys.argv[1:]
session = mars.new_session(engine=engine, n_cpu=2, checkpoint=folder)
atexit.register(lambda: print(mr.spawn(abs, (-7,)).execute().fetch()))
made = [mr.spawn(make, (index,)) for index in range(4)]
calls = [mr.spawn(first, (array,)) for array in made]
print(mr.ExecutableTuple([*made, *calls]).execute().fetch()[4:])
print(session.checkpoint.reused, session.checkpoint.executed)
mr.spawn(wait).execute(wait=False)
"""


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_program_that_just_ends_says_nothing_and_what_was_done_is_kept(
    engine: str, run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for told in ("0 8", "8 0"):
        done = run_python(PROGRAM, engine, str(tmp_path / "kept"))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["[0, 1, 2, 3]", told, "7"]


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_program_that_is_killed_leaves_no_folder_of_its_dask(
    kind: signal.Signals,
    script_environment: dict[str, str],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    program = """
import mars, time
mars.new_session(engine="dask", n_cpu=1)
print("there", flush=True)
time.sleep(60)
"""
    environment = {**script_environment, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        assert list(tmp_path.glob("mars-dask-*"))
        process.send_signal(kind)
    wait_until(lambda: not list(tmp_path.iterdir()), 30)
