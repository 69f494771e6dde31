"""What takes minutes on a real Slurm: time limits, lost hosts, kills of all, both seed programs.

`make slurm` runs them, and `test_slurm` before.
"""

from __future__ import annotations

import datetime
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import Host
from tests.lab.slurm import SlurmLab, why_no_slurm

pytest.importorskip("distributed")
pytestmark = [pytest.mark.hosts, pytest.mark.campaign, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def slurm(leak_guard: None, tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[SlurmLab]:
    """A Slurm of two hosts, both idle; a test may break it."""
    reason = why_no_slurm()
    if reason:
        pytest.skip(reason)
    with SlurmLab(tmp_path) as made:
        wait_until(made.is_ready)
        yield made


def until(program: subprocess.Popen[str], word: str) -> str:
    """The rest of the next line of a program that begins with a word."""
    assert program.stdout is not None
    said = ""
    for line in program.stdout:
        said += line
        if line.startswith(word):
            return line[len(word) :].strip()
    pytest.fail(f"it ended without {word!r}:\n{said}")


LIMITED = """
import os, pathlib, signal, time
import mars, mars.remote as mr

def quick(i):
    with open(f"ran-{i}", "a") as file:
        file.write("x")
    return i

def slow():
    def told(*_):
        pathlib.Path("told").touch()
    signal.signal(signal.SIGTERM, told)
    pathlib.Path("begun").touch()
    while not os.path.exists("go"):
        time.sleep(0.1)
    return 100

calls = [*(mr.spawn(quick, args=(i,)) for i in range(3)), mr.spawn(slow)]
mars.execute(calls)
print("sum", sum(call.fetch() for call in calls))
"""


def test_calls_are_told_before_the_time_limit_and_the_next_job_goes_on_by_the_checkpoint(
    slurm: SlurmLab, wait_until: Callable[..., None]
) -> None:
    folder = slurm.folder
    (folder / "limited.py").write_text(LIMITED)
    (folder / "batch.sh").write_text(f"#!/bin/sh\nexec {sys.executable} -m mars run limited.py\n")
    submit = [
        "env", f"MARS_CHECKPOINT={folder}/kept", "sbatch", "--parsable", "-N1", "-c2", "-t", "5",
        "-o", "said-%j", "batch.sh",
    ]  # fmt: skip
    job = slurm.run(*submit).strip()
    wait_until((folder / "begun").exists, 60.0)
    end = datetime.datetime.now() + datetime.timedelta(seconds=40)  # noqa: DTZ005  # as Slurm's
    slurm.run("scontrol", "update", f"JobId={job}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}")
    wait_until((folder / "told").exists, 60.0)
    assert slurm.jobs() == [f"{job} RUNNING"], "told while there is time left"
    wait_until(lambda: not slurm.jobs(), 150.0)
    said = (folder / f"said-{job}").read_text()
    assert re.search(rf"Slurm ends job {job} in \d+ s, at its time limit", said), said
    assert "sum" not in said
    wait_until(lambda: not slurm.left(), 60.0)
    (folder / "go").touch()
    again = slurm.run(*submit[:3], "--wait", *submit[3:], limit_s=120.0).strip()
    assert "sum 103" in (folder / f"said-{again}").read_text()
    assert [(folder / f"ran-{i}").read_text() for i in range(3)] == ["x"] * 3


LOST = """
import pathlib, sys, time
import mars, mars.remote as mr
from mars.deploy.slurm import new_cluster

def long(i):
    import socket
    with open(f"{i}-{socket.gethostname()}", "w"):
        pass
    while not pathlib.Path("go").exists():
        time.sleep(0.1)
    return i, socket.gethostname()

cluster = new_cluster(nodes=2, cpus=1, time=30)
calls = [mr.spawn(long, args=(i,)) for i in range(2)]
run = mr.ExecutableTuple(calls).execute(wait=False)
print("job", cluster.job_id, flush=True)
run.result()
print("values", [call.fetch() for call in calls], flush=True)
cluster.stop()
print("ended", flush=True)
"""


@pytest.mark.parametrize("host", ["one", "two"], ids=["first", "second"])
def test_a_lost_host_costs_only_the_calls_that_ran_there(
    slurm: SlurmLab, wait_until: Callable[..., None], host: str
) -> None:
    (slurm.folder / "lost.py").write_text(LOST)
    program = slurm.start(sys.executable, "lost.py")
    try:
        until(program, "job")
        wait_until(lambda: len(list(slurm.folder.glob("[01]-*"))) == 2)
        slurm.switch_off(host)
        (slurm.folder / "go").touch()  # the other call ends, and its core is free
        other = {"one": "two", "two": "one"}[host]
        assert until(program, "values") == f"[(0, '{other}'), (1, '{other}')]"
        until(program, "ended")
        assert program.wait(60) == 0
        wait_until(lambda: not slurm.jobs(), 60.0)
    finally:
        Host.send(program, signal.SIGKILL)
        program.communicate(timeout=10)


CANCELLED = """
import os, time
import mars, mars.remote as mr
from mars.deploy.slurm import new_cluster

def stay(i):
    import time
    print("begun", i, flush=True)
    time.sleep(600 * i)
    return "kept"

cluster = new_cluster(cpus=2, time=30)
calls = [mr.spawn(stay, args=(i,)) for i in range(2)]
calls[0].execute()
run = calls[1].execute(wait=False)
log = ""
while "begun" not in log:
    log += str(calls[1].fetch_log())
    time.sleep(0.05)
os.system(f"scancel {cluster.job_id}")
try:
    run.result()
except mars.errors.ClusterUnreachable as error:
    print(error)
print(calls[0].fetch(), calls[0].fetch_log())
cluster.stop()
"""


def test_when_the_job_ends_runs_end_with_slurm_s_reason_and_what_was_finished_stays(
    slurm: SlurmLab,
) -> None:
    (slurm.folder / "cancelled.py").write_text(CANCELLED)
    said = slurm.run(sys.executable, "cancelled.py", limit_s=150.0)
    assert "is gone (Slurm job 1 has ended: CANCELLED)" in said
    assert "kept begun 0" in said
    assert slurm.left() == []


KEPT = """
import sys, time
from mars.deploy.slurm import new_cluster

cluster = new_cluster(nodes=2, cpus=1, time=30)
print("job", cluster.job_id, flush=True)
time.sleep(0 if "end" in sys.argv else 600)
"""


def test_the_job_ends_also_when_all_processes_on_the_login_node_are_killed(
    slurm: SlurmLab, wait_until: Callable[..., None]
) -> None:
    (slurm.folder / "kept.py").write_text(KEPT)
    program = slurm.start(sys.executable, "kept.py")
    try:
        until(program, "job")
        slurm["login"].run("pkill", "-KILL", "-f", "kept.py|mars|srun", check=False)
        wait_until(lambda: not slurm.jobs(), 150.0)
        wait_until(lambda: not [one for one in slurm.left() if not one.startswith("login")], 60.0)
        slurm.run(sys.executable, "kept.py", "end", limit_s=100.0)
        assert slurm.left() == [], "the next one removes what the killed one could not"
    finally:
        Host.send(program, signal.SIGKILL)
        program.communicate(timeout=10)


@pytest.mark.parametrize(
    ("name", "arguments", "end"),
    [
        ("monte_carlo_pi.py", ["--points", "400_000", "--chunks", "8"], "What the call"),
        ("model_search.py", ["--rows", "600", "--skip-serial"], "The best three"),
    ],
    ids=["pi", "search"],
)
def test_a_seed_program_has_the_results_and_logs_that_it_has_on_one_machine(
    slurm: SlurmLab, name: str, arguments: list[str], end: str
) -> None:
    program = [str(ROOT / "examples" / name), *arguments]
    ends = []
    for command in (
        [sys.executable, *program],
        ["salloc", "-Q", "-N2", "--ntasks-per-node=1", "-c1", "--mem=2G",
         sys.executable, "-m", "mars", "run", *program],
    ):  # fmt: skip
        said = slurm.run(*command, limit_s=300.0)
        assert end in said
        digits = re.search(r"spawned +(3\.\d+)", said)
        ends.append((digits and digits[1], said.partition(end)[2]))
    assert ends[0] == ends[1]
    assert slurm.left() == []


FOUR = """
import subprocess, sys
import mars, mars.remote as mr
from mars.deploy.slurm import new_cluster

def where(i):
    import socket
    print("call", i)
    return socket.gethostname()

def hosts(session):
    homes = session.get_worker_addresses()
    calls = [mr.spawn(where, args=(i,), expect_worker=home) for i, home in enumerate(homes)]
    mars.execute(calls)
    for i, call in enumerate(calls):
        assert str(call.fetch_log()).strip().splitlines()[-1] == f"call {i}"
    return sorted(call.fetch() for call in calls)

def part(i):
    import numpy as np
    return np.full(200_000, i)

def total(parts):
    return int(sum(int(p.sum()) for p in parts))

with new_cluster(nodes=4, cpus=2, memory="512MiB", time=10) as cluster:
    print("four", hosts(cluster.session), cluster.session.get_total_n_cpu())
    parts = [mr.spawn(part, args=(i,)) for i in range(40)]
    print("sum", mr.spawn(total, args=(parts,)).execute().fetch())
    cluster.rescale(2)
    print("two", len(hosts(cluster.session)))
    cluster.rescale(4)
    print("again", hosts(cluster.session), len(cluster.job_ids))
    cluster.rescale(2)
    print("back", len(hosts(cluster.session)), len(cluster.job_ids))
    try:
        cluster.rescale(1)
    except mars.errors.StartupFailed as error:
        print("once", error)
    print("one", len(hosts(cluster.session)), len(cluster.job_ids))
"""


def test_four_hosts_and_back_by_a_part_of_a_job(
    leak_guard: None, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    reason = why_no_slurm()
    if reason:
        pytest.skip(reason)
    names = ("one", "two", "three", "four")
    with SlurmLab(tmp_path, names) as slurm:
        wait_until(slurm.is_ready)
        (slurm.folder / "hosts.py").write_text(FOUR)
        words = [sys.executable, "-W", "error", "hosts.py"]
        said = slurm.run(*words, limit_s=300.0)
        lines = dict(line.partition(" ")[::2] for line in said.splitlines())
        assert lines["four"] == f"{sorted(names)} 8", said
        assert lines["sum"] == str(200_000 * sum(range(40)))
        assert lines["two"] == "2"
        assert lines["again"] == f"{sorted(names)} 2", said
        assert lines["back"] == "2 1", "a whole job has ended"
        assert "job 1 still has them" in lines["once"], "this Slurm has no accounting"
        assert lines["one"] == "1 1", "its node has left all the same"
        (slurm.folder / "program.py").write_text(
            "import mars\nprint('cores', mars.new_session().get_total_n_cpu())\n"
        )
        said = slurm.run(
            "salloc", "-Q", "-N4", "--ntasks-per-node=1", "-c1", "--mem=512M",
            sys.executable, "-m", "mars", "run", "program.py", limit_s=200.0,
        )  # fmt: skip
        assert "cores 4" in said
        assert slurm.jobs() == []
        assert slurm.left() == []
