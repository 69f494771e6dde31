"""`mars-supervisor` on one host, `mars-worker` on two others, a client on a fourth; and ssh."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import OWN, Host, Lab

pytest.importorskip("distributed")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

PROGRAM = """
import socket, time
import mars
import mars.remote as mr

def call(index):
    print("call", index)
    time.sleep(0.02)
    return index * index, socket.gethostname()

def total(found):
    return sum(square for square, _ in found), sorted({host for _, host in found})

mars.new_session("http://10.77.0.1:7002")
calls = [mr.spawn(call, args=(i,)) for i in range(100)]
number, hosts = mr.spawn(total, args=(calls,)).execute().fetch()
print(number)
print(str(calls[7].execute().fetch_log()).strip())
print(hosts)
mars.stop_server()
"""


def command(host: Host, name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start ``mars-supervisor`` or ``mars-worker``, as they are installed."""
    installed = str(Path(sys.executable).with_name(f"mars-{name}"))
    return host.start("env", "PYTHONUNBUFFERED=1", installed, *arguments)


def until(program: subprocess.Popen[str], text: str) -> str:
    """What it prints until a line with a text."""
    assert program.stdout is not None
    said = ""
    for line in program.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended without {text!r}:\n{said}")


def finish(host: Host, program: subprocess.Popen[str]) -> tuple[int, str]:
    """End it as a terminal does, by SIGTERM to the command itself; its status and last words."""
    host.send(program, signal.SIGTERM)
    said, _ = program.communicate(timeout=30)
    return program.returncode, said


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[str]]]:
    """Those that a test started; ended at the latest with it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for program in started:
        if program.poll() is None:
            Host.send(program, signal.SIGKILL)
        program.communicate(timeout=10)


def test_the_commands_of_the_original_make_a_cluster_and_take_it_down(
    lab: Lab, programs: list[subprocess.Popen[str]]
) -> None:
    supervisor = command(
        lab["head"], "supervisor", "-H", "10.77.0.1", "-p", "7001", "-w", "7002",
        "--engine", "dask", "--log-level", "INFO", "--n-process", "1",
    )  # fmt: skip
    programs.append(supervisor)
    said = until(supervisor, "http://10.77.0.1:7002")
    assert "without effect here: --log-level, --n-process" in said
    bundle = lab["head"].mars("cluster", "credentials", "export").stdout
    for name in ("one", "two", "client"):
        lab[name].mars("cluster", "credentials", "import", stdin=bundle)
    share = ("-s", "10.77.0.1:7001", "--n-cpu", "1", "--mem-bytes", "512m")
    workers = {
        "one": command(lab["one"], "worker", "-H", "10.77.0.2", "-p", "7100", *share),
        "two": command(lab["two"], "worker", *share),
    }
    programs += workers.values()
    for worker in workers.values():
        until(worker, "has joined tls://10.77.0.1:7001")
    assert {"7100", "7101"} <= set(lab["one"].ports())
    ran = lab["client"].python(PROGRAM)
    assert ran.stdout.splitlines() == ["328350", "call 7", "['one', 'two']"]
    for name, worker in workers.items():
        assert finish(lab[name], worker)[0] == 0
        assert lab[name].processes() == []
    assert finish(lab["head"], supervisor)[0] == 0
    assert (lab["head"].processes(), lab["head"].files()) == ([], [])
    for name in ("one", "two", "client"):
        lab[name].mars("cluster", "down")
        lab[name].mars("cluster", "credentials", "forget")
        assert lab[name].files() == []


def test_a_supervisor_whose_engine_dies_ends_with_a_word(
    lab: Lab, programs: list[subprocess.Popen[str]], wait_until: Callable[..., None]
) -> None:
    supervisor = command(lab["head"], "supervisor", "-H", "10.77.0.1", "--engine", "dask")
    programs.append(supervisor)
    until(supervisor, "http://10.77.0.1:7104")
    lines = [line for line in lab["head"].processes() if "dask_scheduler" in line]
    lab["head"].run("kill", "-KILL", lines[0].split()[0])
    said, _ = supervisor.communicate(timeout=30)
    assert (supervisor.returncode, lab["head"].processes()) == (1, [])
    assert "has ended" in said


# -- over ssh -------------------------------------------------------------------------------------


@pytest.fixture
def reachable(lab: Lab) -> Iterator[Callable[[str], None]]:
    """``reachable(name)``: a real sshd runs on ``one`` and ``two``; ``head`` knows one's key."""
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if not os.path.exists(sshd) or shutil.which("ssh") is None:
        pytest.skip("OpenSSH, server and client, is not installed")
    lab["head"].run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{OWN}/id")
    public = lab["head"].run("cat", f"{OWN}/id.pub").stdout
    lab["head"].run(
        "tee", f"{OWN}/ssh_config",
        stdin=f"User root\nIdentityFile {OWN}/id\nUserKnownHostsFile {OWN}/known\n"
        "GlobalKnownHostsFile /dev/null\n",
    )  # fmt: skip
    servers = []
    for name in ("one", "two"):
        host = lab[name]
        host.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        host.run("mkdir", "/run/sshd")
        host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{OWN}/host_key")
        host.run("tee", f"{OWN}/authorized", stdin=public)
        variables = {"XDG_STATE_HOME": f"{OWN}/home/state", **host.environment}
        words = " ".join(f"{key}={value}" for key, value in variables.items() if key != "HOME")
        host.run(
            "tee", f"{OWN}/sshd_config",
            stdin=f"HostKey {OWN}/host_key\nAuthorizedKeysFile {OWN}/authorized\n"
            f"StrictModes no\nPermitRootLogin yes\nPidFile none\nSetEnv {words}\n",
        )  # fmt: skip
        servers.append(host.start(sshd, "-D", "-e", "-f", f"{OWN}/sshd_config"))

    def known(name: str) -> None:
        key = lab[name].run("cat", f"{OWN}/host_key.pub").stdout
        lab["head"].run("tee", "-a", f"{OWN}/known", stdin=f"{name} {key}")

    yield known
    for server in servers:
        Host.send(server, signal.SIGTERM)
        server.communicate(timeout=10)


def over_ssh(lab: Lab, hosts: str) -> subprocess.CompletedProcess[str]:
    """``mars cluster up`` on the head, with hosts that join over ssh."""
    return lab["head"].mars(
        "cluster", "up", "--engine", "dask", "--host", "10.77.0.1", "--ssh", hosts,
        "--ssh-config", f"{OWN}/ssh_config", "--node-port", "7200",
        "--n-cpu", "1", "--memory", "512MiB", check=False,
    )  # fmt: skip


def test_hosts_join_and_leave_over_ssh_only_with_known_keys(
    lab: Lab, reachable: Callable[[str], None], wait_until: Callable[..., None]
) -> None:
    wait_until(lambda: "22" in lab["one"].ports())
    refused = over_ssh(lab, "one")
    assert refused.returncode == 1
    assert "no connection to one" in refused.stderr and "compare its key" in refused.stderr
    assert (lab["head"].processes(), calls(lab["one"])) == ([], [])

    reachable("one")
    joined = over_ssh(lab, "one")
    assert joined.returncode == 0, joined.stderr
    assert {"7200", "7201"} <= set(lab["one"].ports())
    assert "at 10.77.0.2: 1 cores" in lab["head"].mars("cluster", "status").stdout
    lab["head"].mars("cluster", "down")
    assert (lab["head"].processes(), calls(lab["one"])) == ([], [])


@pytest.mark.campaign
def test_if_one_host_cannot_join_the_others_leave_again(
    lab: Lab, reachable: Callable[[str], None], wait_until: Callable[..., None]
) -> None:
    wait_until(lambda: "22" in lab["one"].ports())
    reachable("one")
    refused = over_ssh(lab, "one,two")
    assert refused.returncode == 1
    assert "no connection to two" in refused.stderr
    assert (lab["head"].processes(), calls(lab["one"])) == ([], [])


def calls(host: Host) -> list[str]:
    """Processes of a cluster there."""
    return [line for line in host.processes() if "mars" in line or "dask" in line]
