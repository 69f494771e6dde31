"""What is asked of Slurm, and what its words mean; `tests/lab/test_slurm.py` has the real one."""

from __future__ import annotations

import datetime
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mars.deploy import processes, slurm_queue
from mars.deploy.processes import Process
from mars.deploy.slurm import new_cluster
from mars.deploy.slurm_node import handles, remove_stale
from mars.deploy.slurm_queue import Job, Request, Share
from mars.errors import StartupFailed, UsageError

REQUEST = Request(2, 4, (1 << 30) + 1, "2:00:00", "debug", "", "", ["--exclusive"])


def answers(monkeypatch: pytest.MonkeyPatch, **said: str) -> None:
    """Have Slurm's commands say these things."""
    monkeypatch.setattr(slurm_queue, "run", lambda command, *_: said[command])


def waiting(reason: str) -> Job:
    return Job("7", "PENDING", reason, None, "debug", "")


def test_a_request_asks_for_hosts_that_may_be_lost_one_by_one() -> None:
    assert REQUEST.command("mars-x") == [
        "salloc", "--no-shell", "--no-kill", "--job-name=mars-x", "--nodes=2",
        "--ntasks-per-node=1", "--cpus-per-task=4", "--mem=1025M", "--time=2:00:00",
        "--partition=debug", "--exclusive",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cores"), [("2(x3),4", [2, 2, 2, 4]), ("16", [16]), ("1,2(x2)", [1, 2, 2]), ("", [])]
)
def test_cores_of_hosts_are_read_as_slurm_writes_them(text: str, cores: list[int]) -> None:
    assert slurm_queue.cores_of_hosts(text) == cores


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("NumNodes=2 TRES=cpu=2,mem=2G,node=2,billing=2 X=1", 1 << 30),
        ("ReqTRES=cpu=2,mem=9G,node=1 AllocTRES=cpu=2,mem=1536M,node=1", 1536 << 20),
        ("JobId=1 TRES=(null)", 0),
        ("", 0),
    ],
)
def test_memory_of_a_job_is_read_for_one_of_its_hosts(text: str, size: int) -> None:
    assert slurm_queue.parse_memory(text) == size


def test_the_end_of_a_job_is_counted_from_now() -> None:
    now = datetime.datetime(2026, 11, 30, 12, 0, 0)  # noqa: DTZ001  # as Slurm's
    assert slurm_queue.left_s("2026-11-30T12:01:30", now.timestamp()) == 90.0
    assert slurm_queue.left_s("Unknown", now.timestamp()) is None


@pytest.mark.parametrize(
    "reason",
    ["JobHeldUser", "JobHeldAdmin", "launch failed requeued held", "PartitionNodeLimit",
     "PartitionTimeLimit", "PartitionConfig", "BadConstraints", "InvalidQOS", "QOSNotAllowed",
     "AssocMaxWallDurationPerJobLimit", "QOSMaxCpuPerJobLimit", "QOSMaxNodePerJob",
     "DependencyNeverSatisfied"],
)  # fmt: skip
def test_a_job_that_needs_somebody_does_not_wait(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    answers(monkeypatch)  # the reason alone tells
    assert slurm_queue.why_never(waiting(reason))


@pytest.mark.parametrize("reason", ["Resources", "Priority", "BeginTime", "Licenses", "None", ""])
def test_a_job_that_has_its_turn_later_waits(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    answers(monkeypatch)
    assert slurm_queue.why_never(waiting(reason)) == ""


@pytest.mark.parametrize("reason", ["QOSMaxCpuPerUserLimit", "AssocGrpCpuLimit"])
def test_a_quota_is_waited_for_only_while_other_jobs_of_the_user_run(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    answers(monkeypatch, squeue="7\n6\n")
    assert slurm_queue.why_never(waiting(reason)) == ""
    answers(monkeypatch, squeue="")
    assert "quota" in slurm_queue.why_never(waiting(reason))


def test_hosts_that_are_down_are_waited_for_while_another_one_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher partitions"
    answers(monkeypatch, sinfo="down*\nidle~\n")
    assert slurm_queue.why_never(waiting(reason)) == ""
    answers(monkeypatch, sinfo="down\ndrained\nidle*\n")
    assert "no host of partition debug is up" in slurm_queue.why_never(waiting(reason))


def test_an_allocation_is_what_slurm_s_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, scontrol="a1\na2\n")
    inside = {
        "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_CPUS_PER_NODE": "2,4",
        "SLURM_MEM_PER_CPU": "1024",
    }  # fmt: skip
    assert slurm_queue.allocation(inside) == (
        "12", [Share("a1", 2, 2 << 30), Share("a2", 4, 4 << 30)]
    )  # fmt: skip
    with pytest.raises(StartupFailed, match="do not fit together"):
        slurm_queue.allocation({**inside, "SLURM_JOB_CPUS_PER_NODE": "2"})
    with pytest.raises(UsageError, match="no allocation"):
        slurm_queue.allocation({})


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"nodes": 0}, ValueError, "nodes has to be 1 or more"),
        ({"cpus": 1.5}, TypeError, "cpus has to be an int"),
        ({"memory": "many"}, ValueError, "memory"),
        ({"time": "soon"}, ValueError, "HH:MM:SS"),
        ({"time": datetime.timedelta(0)}, ValueError, "time"),
        ({"partition": ""}, UsageError, "partition"),
        ({"options": "--exclusive"}, TypeError, "list of str"),
        ({"options": ["exclusive"]}, ValueError, "options of salloc"),
        ({"min_nodes": 2}, ValueError, "min_nodes=2 is more than nodes=1"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"address": "ray"}, TypeError, "chooses the address"),
    ],
)
def test_a_wrong_argument_is_named_before_slurm_is_asked(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        new_cluster(**options)


def test_without_slurm_the_error_says_where_to_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(UsageError, match="no command salloc here; run this on a login node"):
        new_cluster()


def test_only_a_process_that_handles_a_signal_is_told() -> None:
    assert not handles(os.getpid(), signal.SIGUSR2)
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        assert handles(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_node_removes_what_a_killed_one_left_and_nothing_of_one_that_lives(
    tmp_path: Path,
) -> None:
    kept = {"lives": True, "killed": False}
    locks = []
    for name, lives in kept.items():
        own = tmp_path / f"mars-{name}"
        own.mkdir()
        record = tmp_path / f"mars-slurm-{name}" / "mars" / "clusters" / "c0"
        record.mkdir(parents=True)
        for folder in (record, *record.parents[:3]):
            folder.chmod(0o700)
        processes.remember(record, add=[Process("worker", "mark", str(own), 1, 1, "elsewhere")])
        home = tmp_path / f"mars-slurm-{name}"
        os.utime(home, (1, 1))
        locks.append(os.open(home, os.O_RDONLY))
        if lives:
            fcntl.flock(locks[-1], fcntl.LOCK_EX)
    (tmp_path / "mars-slurm-new").mkdir()
    remove_stale(tmp_path)
    for lock in locks:
        os.close(lock)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["mars-lives", "mars-slurm-lives", "mars-slurm-new"]


def test_mars_address_is_where_sessions_are_that_name_none(run_python: Callable[..., Any]) -> None:
    program = """
import os, mars
os.environ["MARS_ADDRESS"] = "nowhere://host:1"
print(mars.new_session(engine="inline").address[:6])
try:
    mars.new_session()
except mars.errors.UnknownTarget as error:
    print(error)
"""
    ended = run_python(program)
    assert ended.stdout.startswith("inline"), ended.stderr
    assert "nowhere://host:1" in ended.stdout
