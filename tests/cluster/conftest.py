"""Clusters of several nodes on the loopback address, whose processes the tests may kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import mars
import mars.remote as mr
from mars import platform
from mars.engines.cluster import carrier


@dataclass
class Credentials:
    """As `mars cluster` hands them out."""

    ca_path: Path
    cert_path: Path
    key_path: Path
    token: str = ""


class DaskHosts:
    """A scheduler of Dask, and workers that come and go; with TLS, as anything else is refused."""

    def __init__(self, folder: Path) -> None:
        from distributed import Security

        made = Security.temporary()
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        for name, content in (
            ("ca.pem", made.tls_ca_file),
            ("cert.pem", made.tls_client_cert),
            ("key.pem", made.tls_client_key),
        ):
            (folder / name).write_text(content)
            (folder / name).chmod(0o600)
        self.credentials = Credentials(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        self.file = folder / "scheduler.json"
        self._start("dask_scheduler", "--port", "0")
        self.address = ""

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-W", "ignore", "-m", f"distributed.cli.{program}",
            "--host", "127.0.0.1", "--protocol", "tls", "--no-dashboard",
            "--dashboard-address", "127.0.0.1:0",
            "--tls-ca-file", str(self.folder / "ca.pem"),
            "--tls-cert", str(self.folder / "cert.pem"),
            "--tls-key", str(self.folder / "key.pem"),
            "--scheduler-file", str(self.file), *arguments,
        ]  # fmt: skip
        environment = {
            **os.environ,
            "DASK_TEMPORARY_DIRECTORY": str(self.folder),
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        }
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def add_node(self, cpus: int = 1, memory: str = "auto") -> subprocess.Popen[bytes]:
        return self._start(
            "dask_worker", "--no-nanny", "--nthreads", str(cpus), "--memory-limit", memory,
            "--local-directory", str(self.folder),
        )  # fmt: skip

    def wait(self) -> None:
        """Until the scheduler is there."""
        deadline = time.monotonic() + 40
        while not self.address:
            assert time.monotonic() < deadline, "the scheduler did not start"
            try:
                self.address = json.loads(self.file.read_text())["address"]
            except (FileNotFoundError, json.JSONDecodeError):  # not there, or not all of it
                time.sleep(0.02)

    def session(self, nodes: int, **kwargs: object) -> mars.session.Session:
        """A session once so many nodes are there."""
        from distributed import Client, Security

        self.wait()
        known = Security(
            tls_ca_file=str(self.credentials.ca_path),
            tls_client_cert=str(self.credentials.cert_path),
            tls_client_key=str(self.credentials.key_path),
            require_encryption=True,
        )
        with Client(self.address, security=known, set_as_default=False) as client:
            client.wait_for_workers(nodes, timeout=40)
        return mars.new_session(self.address, security=self.credentials, **kwargs)  # type: ignore[arg-type]

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def dask_hosts(leak_guard: None, tmp_path: Path) -> Iterator[DaskHosts]:
    """A scheduler of Dask without workers."""
    hosts = DaskHosts(tmp_path)
    yield hosts
    hosts.close()


def node_process() -> int:
    """Inside a call: the process of the foreign engine that this node lives in."""
    zygote = psutil.Process().parent()
    assert zygote is not None
    parent = zygote.parent()
    assert parent is not None
    return parent.pid


@pytest.fixture(params=["dask", "ray"])
def two_nodes(request: pytest.FixtureRequest) -> Iterator[mars.session.Session]:
    """A session on two nodes of one core, each in a process of its own."""
    if request.param == "ray":
        request.getfixturevalue("ray_here")
        session = mars.new_session(engine="ray", n_worker=2, n_cpu=2)
    else:
        hosts = request.getfixturevalue("dask_hosts")
        hosts.add_node()
        hosts.add_node()
        session = hosts.session(2)
    yield session
    session.stop_server()


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if program and nodes were on machines of their own: nothing is read where it is."""
    monkeypatch.setattr(platform, "file_address", lambda descriptor: None)
    monkeypatch.setattr(carrier, "can_open", lambda address: False)


@pytest.fixture
def kill_node() -> Callable[[str], None]:
    """``kill_node(address)``: SIGKILL the process that the node lives in."""

    def kill(address: str) -> None:
        found = mr.spawn(node_process, expect_worker=address).execute().fetch()
        psutil.Process(found).kill()

    return kill
