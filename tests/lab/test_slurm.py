"""Clusters in jobs of a real Slurm: new_cluster, `mars run`, refusals, and what is left.

One Slurm for all of them; what takes minutes stands in `test_slurm_long`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.lab.hosts import Host
from tests.lab.slurm import SlurmLab, why_no_slurm

pytest.importorskip("distributed")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def slurm(
    leak_guard: None,
    tmp_path_factory: pytest.TempPathFactory,
    wait_until: Callable[..., None],
) -> Iterator[SlurmLab]:
    """A Slurm of two hosts, both idle."""
    reason = why_no_slurm()
    if reason:
        pytest.skip(reason)
    with SlurmLab(tmp_path_factory.mktemp("slurm")) as made:
        wait_until(made.is_ready)
        yield made


def write(slurm: SlurmLab, name: str, text: str) -> str:
    (slurm.folder / name).write_text(text)
    return name


HOSTS = """
import sys
import mars, mars.remote as mr
from mars.deploy.slurm import new_cluster

def where(i):
    import socket
    print("call", i)
    return socket.gethostname()

with new_cluster(nodes=2, cpus=1, memory="512MiB", time=5, seed=3) as cluster:
    session = cluster.session
    homes = session.get_worker_addresses()
    calls = [mr.spawn(where, args=(i,), expect_worker=homes[i]) for i in range(2)]
    mars.execute(calls)
    print("hosts", sorted(call.fetch() for call in calls))
    print("log", str(calls[1].fetch_log()).strip().splitlines()[-1])
    print("default", session is mars.session.get_default_session())
    print("job", cluster.job_id, cluster.endpoint)
    cluster.stop()
cluster.stop()
print("stopped")
"""


def test_new_cluster_runs_calls_on_each_host_and_leaves_nothing(slurm: SlurmLab) -> None:
    said = slurm.run(sys.executable, "-W", "error", write(slurm, "hosts.py", HOSTS), limit_s=100.0)
    lines = dict(line.partition(" ")[::2] for line in said.splitlines())
    assert lines["hosts"] == "['one', 'two']"
    assert lines["log"] == "call 1"
    assert lines["default"] == "True"
    assert "stopped" in lines
    assert slurm.jobs() == []
    assert slurm.left() == []


REFUSED = """
import sys, time
from mars.deploy.slurm import new_cluster
from mars.errors import MarsError

for options in [
    {"partition": "nope"}, {"time": 99}, {"memory": "9GiB"}, {"options": ["--hold"]},
    {"partition": "down"}, {"options": ["--begin=now+1hour"], "timeout": 3.0},
]:
    try:
        new_cluster(**options)
    except MarsError as error:
        print(type(error).__name__, error)
"""


def test_a_job_that_cannot_start_is_an_error_with_slurm_s_own_reason(slurm: SlurmLab) -> None:
    asked = slurm["login"].run(
        "env", f"--chdir={slurm.folder}", sys.executable, write(slurm, "refused.py", REFUSED),
        limit_s=150.0,
    )  # fmt: skip
    said = asked.stdout.splitlines()
    for line, reason in zip(
        said,
        [
            "Invalid partition name specified",
            "PartitionTimeLimit",
            "Memory specification can not be satisfied",
            "JobHeldUser",
            "DOWN",
            "BeginTime",
        ],
        strict=True,
    ):
        assert reason in line, said
    assert [line.split()[0] for line in said] == [*["UsageError"] * 5, "StartupFailed"]
    assert "waits: JobHeldUser" in asked.stderr, "the reason is shown while the job waits"
    assert slurm.jobs() == []
    assert slurm.left() == []


KILLED = """
import sys, time
import mars, mars.remote as mr
from mars.deploy.slurm import new_cluster

def stay():
    time.sleep(600)

cluster = new_cluster(cpus=1, time=5)
calls = mr.spawn(stay).execute(wait=False)
print("runs", flush=True)
time.sleep(600)
"""


def test_a_killed_program_leaves_no_job_and_no_process(
    slurm: SlurmLab, wait_until: Callable[..., None]
) -> None:
    program = slurm.start(sys.executable, write(slurm, "killed.py", KILLED))
    try:
        assert program.stdout is not None
        said = ""
        for line in program.stdout:
            said += line
            if line == "runs\n":
                break
        else:
            pytest.fail(f"it ended:\n{said}")
        assert slurm.jobs()
        Host.send(program, signal.SIGKILL)
        program.wait(10)
        wait_until(lambda: not slurm.jobs() and not slurm.left(), 60.0)
    finally:
        Host.send(program, signal.SIGKILL)
        program.communicate(timeout=10)


PROGRAM = """
import os, sys
import mars, mars.remote as mr

def where(i):
    import socket
    return socket.gethostname()

with mars.new_session(n_worker=1) as session:
    homes = session.get_worker_addresses()
    calls = [mr.spawn(where, args=(i,), expect_worker=homes[i]) for i in range(len(homes))]
    mars.execute(calls)
    print(sys.argv[1:], sorted(call.fetch() for call in calls))
    print("cores", session.get_total_n_cpu())
sys.exit(7)
"""


def test_mars_run_has_the_sessions_of_a_program_on_all_hosts_of_the_allocation(
    slurm: SlurmLab,
) -> None:
    write(slurm, "program.py", PROGRAM)
    script = f"#!/bin/sh\n{sys.executable} -m mars run program.py --fast x\necho status $?\n"
    batch = write(slurm, "batch.sh", script)
    slurm.run("sbatch", "--wait", "-N2", "--ntasks-per-node=1", "-c2", "-o", "said", batch)
    said = (slurm.folder / "said").read_text().splitlines()
    assert "['--fast', 'x'] ['one', 'two']" in said, said
    assert "cores 4" in said, "as Slurm gave them, not as the machine has them"
    assert "status 7" in said, "the program's own"
    assert slurm.left() == []


def test_mars_run_outside_of_an_allocation_says_what_to_do(slurm: SlurmLab) -> None:
    ended = slurm["login"].mars("run", __file__, check=False)
    assert ended.returncode == 2
    assert "SLURM_JOB_ID is not set" in ended.stderr
    missing = slurm["login"].mars("run", "nothing.py", check=False)
    assert missing.returncode == 2
    assert "there is no file 'nothing.py'" in missing.stderr


RESCALED = """
import subprocess, sys, time
import mars, mars.remote as mr
from mars.deploy.slurm import new_cluster
from mars.errors import MarsError

def where(i):
    import socket, time
    time.sleep(0.2)
    return socket.gethostname()

def hosts(session):
    homes = session.get_worker_addresses()
    calls = [mr.spawn(where, args=(i,), expect_worker=home) for i, home in enumerate(homes)]
    mars.execute(calls)
    return sorted(call.fetch() for call in calls)

def cores():
    listed = subprocess.run(["squeue", "-h", "-t", "running", "-o", "%C %N"],
                            capture_output=True, text=True, check=True).stdout
    return sorted(listed.splitlines())

with new_cluster(nodes=1, cpus=2, memory="512MiB", time=5) as cluster:
    session = cluster.session
    print("begun", len(hosts(session)), cluster.job_ids == (cluster.job_id,))
    calls = [mr.spawn(where, args=(i,)) for i in range(60)]
    running = mr.ExecutableTuple(calls).execute(wait=False)
    cluster.rescale(2)
    print("grown", hosts(session), len(cluster.job_ids), cores())
    try:
        cluster.rescale(3, timeout=3)
    except MarsError as error:
        print("refused", type(error).__name__, error)
    print("still", hosts(session), len(cluster.job_ids))
    cluster.rescale(1)
    print("shrunk", len(hosts(session)), cluster.job_ids == (cluster.job_id,), len(cores()))
    running.result()
    print("all", {call.fetch() for call in calls} <= {"one", "two"})
with new_cluster(nodes=2, cpus=1, memory="512MiB", time=5) as cluster:
    cluster.rescale(1)
    print("released", len(hosts(cluster.session)), len(cluster.job_ids), len(cores()[0].split(",")))
    cluster.rescale(2)
    print("again", len(hosts(cluster.session)), len(cluster.job_ids))
    subprocess.run(["scancel", cluster.job_ids[1]], check=True)
    while len(cluster.job_ids) == 2 or len(cluster.session.get_worker_addresses()) == 2:
        time.sleep(0.1)
    print("cancelled", len(hosts(cluster.session)), cluster.job_ids == (cluster.job_id,))
    cluster.rescale(2)
    print("replaced", len(hosts(cluster.session)), len(cluster.job_ids))
"""


def test_a_cluster_grows_by_further_jobs_and_gives_hosts_back(slurm: SlurmLab) -> None:
    words = [sys.executable, "-W", "error", write(slurm, "rescaled.py", RESCALED)]
    said = slurm.run(*words, limit_s=180.0)
    lines = dict(line.partition(" ")[::2] for line in said.splitlines())
    assert lines["begun"] == "1 True"
    assert lines["grown"] == "['one', 'two'] 2 ['2 one', '2 two']"
    assert "StartupFailed" in lines["refused"] and "within timeout=3 s" in lines["refused"], said
    assert lines["still"] == "['one', 'two'] 2"
    assert lines["shrunk"] == "1 True 1"
    assert lines["all"] == "True"
    assert lines["released"] == "1 1 1"
    assert lines["again"] == "2 2"
    assert lines["cancelled"] == "1 True", "a job that ended costs its own hosts only"
    assert lines["replaced"] == "2 2"
    assert slurm.jobs() == []
    assert slurm.left() == []


TERMINAL = """
import os, pty, sys

child, terminal = pty.fork()
if not child:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
said = b""
typed = 0  # so many Ctrl-C
while True:
    try:
        came = os.read(terminal, 65536)
    except OSError:  # all ends of it are closed
        break
    if not came:
        break
    said += came
    if said.count(b"waits: ") + said.count(b"TYPE") > typed:
        typed += 1
        os.write(terminal, bytes([3]))
os.write(1, said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

INTERRUPTED = """
import subprocess, time
from mars.deploy.slurm import new_cluster
from mars.errors import UsageError

def jobs():
    command = ["squeue", "-h", "-o", "%T"]
    return sorted(subprocess.run(command, capture_output=True, text=True).stdout.split())

with new_cluster(nodes=1, cpus=2, memory="512MiB", time=5) as cluster:
    taken = subprocess.run(["sbatch", "--parsable", "-c2", "--mem=64", "-o", "/dev/null",
                            "--wrap", "sleep 600"], capture_output=True, text=True).stdout.strip()
    while jobs() != ["RUNNING", "RUNNING"]:
        time.sleep(0.1)
    try:
        cluster.rescale(2)  # the terminal sends Ctrl-C when the job waits
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted")
    while "PENDING" in jobs():
        time.sleep(0.1)
    print("withdrawn", jobs(), len(cluster.session.get_worker_addresses()))
    subprocess.run(["scancel", taken])
    try:
        cluster.rescale(2, timeout=60)
    except UsageError as error:
        print("the answer of another change:", error)
    print("grown", len(cluster.session.get_worker_addresses()))
    cluster.rescale(1)
    print("shrunk", len(cluster.session.get_worker_addresses()))
    try:
        print("TYPE")
        time.sleep(60)
    except KeyboardInterrupt:
        pass
    print("alive", len(cluster.session.get_worker_addresses()), jobs())
print("stopped")
"""


def test_ctrl_c_takes_a_job_that_waits_out_of_the_queue_and_ends_no_job_that_runs(
    slurm: SlurmLab,
) -> None:
    write(slurm, "interrupted.py", INTERRUPTED)
    words = [sys.executable, write(slurm, "terminal.py", TERMINAL), "interrupted.py"]
    said = slurm.run(*words, limit_s=180.0)
    shown = said.replace("^C", "").splitlines()  # the terminal shows what is typed
    lines = dict(line.strip().partition(" ")[::2] for line in shown)
    assert "interrupted" in lines, said
    assert lines["withdrawn"] == "['RUNNING', 'RUNNING'] 1", said
    assert "the" not in lines, said
    assert lines["grown"] == "2", said
    assert lines["shrunk"] == "1", said
    assert lines["alive"].startswith("1 ['RUNNING']"), said
    assert "stopped" in lines, said
    assert slurm.jobs() == []
    assert slurm.left() == []
