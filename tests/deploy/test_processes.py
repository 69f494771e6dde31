"""Processes of a cluster are ended exactly: with all that they started, and nobody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mars.deploy import processes
from mars.deploy.processes import MARK, Process

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

Wait = Callable[..., None]

# Starts a child in a session of its own, and writes both numbers down.
FAMILY = """
import os, signal, subprocess, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
variables = {} if sys.argv[2] == "hidden" else None
child = subprocess.Popen(sleep, start_new_session=True, env=variables)
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
child.wait()
"""


@pytest.fixture
def start(tmp_path: Path, wait_until: Wait) -> Iterator[Callable[..., tuple[Process, list[int]]]]:
    """``start(mark, kind)``: a process and the numbers of it and of its child."""
    made: list[Process] = []

    def start(mark: str, kind: str = "") -> tuple[Process, list[int]]:
        told = tmp_path / f"pids-{len(made)}"
        command = [sys.executable, "-c", FAMILY, str(told), kind]
        process = processes.start(
            command,
            {**os.environ, MARK: mark},
            tmp_path / "output" / mark,
            Process("role", mark, ""),
        )
        made.append(process)
        wait_until(told.exists)
        return process, [int(word) for word in told.read_text().split()]

    yield start
    for process in made:
        processes.end(process, grace_s=0)


def alive(pids: list[int]) -> list[int]:
    return [
        pid
        for pid in pids
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


Start = Callable[..., tuple[Process, list[int]]]


def test_what_a_process_started_in_another_session_ends_with_it(start: Start) -> None:
    process, pids = start("id.1")
    assert processes.is_running(process) and len(alive(pids)) == 2
    processes.end(process, grace_s=5)
    assert not processes.is_running(process)
    assert alive(pids) == []


def test_a_child_that_hides_its_mark_ends_with_its_parent(start: Start) -> None:
    """Agents of Ray write their name over their variables."""
    process, pids = start("id.1", "hidden")
    assert [found.pid for found in processes.marked("id.1")] == pids[:1]
    processes.end(process, grace_s=5)
    assert alive(pids) == []


def test_who_ignores_sigterm_is_killed_after_the_grace(start: Start) -> None:
    process, pids = start("id.1", "stubborn")
    processes.end(process, grace_s=0.1)
    assert alive(pids) == []


def test_an_orphan_of_a_killed_process_is_found_and_ended(start: Start, wait_until: Wait) -> None:
    process, pids = start("id.1")
    os.kill(process.pid, 9)
    wait_until(lambda: not processes.is_running(process))
    assert alive(pids) == pids[1:]
    processes.end(process, grace_s=0)
    assert alive(pids) == []


def test_another_part_of_the_same_cluster_is_left_alone(start: Start) -> None:
    one, _ = start("id.1")
    other, pids = start("id.12")
    processes.end(one, grace_s=5)
    assert processes.is_running(other)
    assert alive(pids) == pids


def test_a_process_that_took_the_number_is_left_alone(start: Start) -> None:
    process, pids = start("id.1")
    earlier = replace(process, started=process.started - 1, mark="id.2")
    assert not processes.is_running(earlier)
    processes.end(earlier, grace_s=0)
    assert alive(pids) == pids


def test_a_number_of_another_machine_is_left_alone(start: Start) -> None:
    process, pids = start("id.1")
    elsewhere = replace(process, machine="other/pid:[1]", mark="id.2")
    assert not processes.is_running(elsewhere)
    processes.end(elsewhere, grace_s=0)
    assert alive(pids) == pids


def test_what_it_prints_is_private(start: Start, tmp_path: Path) -> None:
    start("id.1")
    assert (tmp_path / "output").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "output" / "id.1").stat().st_mode & 0o777 == 0o600


def test_what_is_written_down_is_read_again(tmp_path: Path) -> None:
    assert processes.remembered(tmp_path) == []
    one, two = Process("a", "x.1", "", 1, 2, "m"), Process("b", "x.2", "/tmp/d", 3, 4, "m")
    processes.remember(tmp_path, add=[one])
    processes.remember(tmp_path, add=[two])
    assert processes.remembered(tmp_path) == [one, two]
    processes.remember(tmp_path, drop=[one])
    assert processes.remembered(tmp_path) == [two]
