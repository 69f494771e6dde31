"""What clusters that we start listen on: the loopback address, unless asked for another one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(150)

LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1"}

OWN = """
import sys
import psutil
import mars, mars.remote as mr

if sys.argv[2] == "imported":
    import ray
with mars.new_session(engine=sys.argv[1], n_cpu=1):
    mr.spawn(abs, -1).execute()
    here = psutil.Process()
    for process in [here, *here.children(recursive=True)]:
        for one in process.net_connections():
            if one.status == psutil.CONN_LISTEN:
                print(one.laddr.ip)
"""


@pytest.mark.parametrize(
    ("engine", "before"),
    [
        ("dask", ""),
        ("ray", ""),
        pytest.param("ray", "imported", marks=pytest.mark.campaign),
    ],
)
def test_an_own_cluster_listens_on_the_loopback_address_only(
    engine: str, before: str, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run_python(OWN, engine, before, limit_s=90.0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() and set(done.stdout.split()) <= LOOPBACK


@pytest.fixture
def ray_cluster(tmp_path: Path, script_environment: dict[str, str]) -> Iterator[Path]:
    """Where a cluster on Ray keeps what it knows, which began without a host, and has a node."""
    environment = {**script_environment, "XDG_STATE_HOME": str(tmp_path)}
    assert environment["RAY_AUTH_TOKEN"]  # of a Ray that has nothing to do with this one
    join, web, client = _three_free_ports()

    def command(*words: object) -> None:
        line = [sys.executable, "-m", "mars", "cluster", *map(str, words)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr

    with ExitStack() as ending:
        ending.callback(command, "down", f"127.0.0.1:{join}")
        command("up", "--engine", "ray", "--port", join, "--web-port", web, "--client-port", client)
        command("join", f"127.0.0.1:{join}", "--n-cpu", 1, "--memory", "1GiB")
        yield tmp_path


@pytest.mark.campaign
def test_a_cluster_on_ray_without_a_host_is_for_this_machine_only(
    ray_cluster: Path,
) -> None:
    listeners = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is somebody else's
            if process.environ().get("XDG_STATE_HOME") == str(ray_cluster):
                for one in process.net_connections():
                    if one.status == psutil.CONN_LISTEN:
                        listeners.add((one.laddr.ip, process.name()))
    assert {name for _, name in listeners} >= {"gcs_server", "raylet"}
    assert {ip for ip, _ in listeners} <= LOOPBACK, listeners


THROUGH_THE_CLIENT_SERVER = """
import sys
import numpy as np
import mars, mars.remote as mr
from mars import platform
from mars.engines.cluster import carrier

platform.file_address = lambda descriptor: None  # as from another host
carrier.can_open = lambda address: False
with mars.new_session(sys.argv[1]):
    made = mr.spawn(np.arange, (3_000_000,))
    calls = mr.ExecutableTuple([made, mr.spawn(np.sum, (np.ones(2_000_000),))]).execute()
    print(made.fetch().sum(), calls[1].fetch())
"""


@pytest.mark.campaign
def test_large_values_go_through_the_client_server_of_ray(
    ray_cluster: Path, script_environment: dict[str, str]
) -> None:
    (known,) = ray_cluster.glob("mars/clusters/*/cluster.json")
    client = json.loads(known.read_text())["client_port"]
    done = subprocess.run(
        [sys.executable, "-c", THROUGH_THE_CLIENT_SERVER, f"ray://127.0.0.1:{client}"],
        env={**script_environment, "XDG_STATE_HOME": str(ray_cluster)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4499998500000", "2000000.0"]


def _three_free_ports() -> tuple[int, int, int]:
    """In a row, as Ray takes those that follow, and below those that the system gives out."""
    for first in range(20_000 + os.getpid() % 5_000, 30_000):
        with ExitStack() as closing, suppress(OSError):
            for port in range(first, first + 3):
                closing.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first, first + 1, first + 2
    raise AssertionError("no ports are free")
