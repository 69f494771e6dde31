"""A real Kubernetes of two nodes, started once for all tests here, and a namespace for each.

The scripts in `cluster/` build it once, in five to ten minutes, start it in ten seconds and end
all of it. ``MARS_KUBERNETES_DIR`` names a folder with one that runs already, and that stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "cluster"
PROJECT = Path(__file__).parents[2]
IMAGE = "mars.test/worker:1"
KINDS = ("jobs", "deployments", "pods", "services", "secrets", "networkpolicies", "replicasets")


@dataclass
class Kubernetes:
    """A cluster that runs."""

    folder: Path
    kubectl_path: str

    @property
    def kubeconfig(self) -> str:
        return str(self.folder / "kubeconfig")

    def kubectl(self, *arguments: str, data: str = "") -> str:
        ended = subprocess.run(
            [self.kubectl_path, "--kubeconfig", self.kubeconfig, *arguments],
            input=data, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def link(self, node: str, state: str) -> None:
        """Cut a node off, or connect it again."""
        name = (self.folder / "name").read_text().strip()
        command = ["nsenter", f"--net=/run/netns/{name}", "ip", "link", "set", node, state]
        subprocess.run(command, check=True)


@dataclass
class Space:
    """A namespace of one test."""

    kubernetes: Kubernetes
    name: str
    home: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "KUBECONFIG": self.kubernetes.kubeconfig,
            # A program that is killed leaves the temporary files of Kubernetes' client.
            "TMPDIR": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "MARS_K8S_IMAGE": IMAGE,
            "SPACE": self.name,
            "PYTHONUNBUFFERED": "1",
        }

    def kubectl(self, *arguments: str, data: str = "") -> str:
        return self.kubernetes.kubectl("-n", self.name, *arguments, data=data)

    def start(self, program: str, **more: str) -> subprocess.Popen[str]:
        """Start a program as a user would."""
        path = self.home / f"program-{len(self.running)}.py"
        path.write_text(textwrap.dedent(program))
        started = subprocess.Popen(
            [sys.executable, str(path)], cwd=self.home, env=self.environment | more, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.running.append(started)
        return started

    def run(self, program: str, *, status: int = 0, **more: str) -> tuple[str, str]:
        """Run one to its end; what it printed."""
        started = self.start(program, **more)
        try:
            out, err = started.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGINT)  # it says where it is, and takes away what it made
            out, err = started.communicate(timeout=60)
            pytest.fail(f"it has not ended within 400 s:\n{out}\n{err}")
        assert started.returncode == status, f"{out}\n{err}"
        return out, err

    def mars(self, *arguments: str, status: int = 0) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "mars", *arguments],
            env=self.environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert ended.returncode == status, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def left(self) -> list[str]:
        """What carries our label."""
        found = self.kubectl(
            "get", ",".join(KINDS), "-l", "app.kubernetes.io/name=mars", "-o", "name"
        )
        return found.split()

    def wait_empty(self, limit_s: float) -> None:
        wait_for(lambda: not self.left(), limit_s, self.left)


def wait_for(
    holds: Callable[[], object], limit_s: float, what: Callable[[], Any] = lambda: ""
) -> None:
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, f"not within {limit_s} s: {what()}"
        time.sleep(0.3)


def _script(name: str, *arguments: str, **more: str) -> None:
    command = [str(SCRIPTS / name), *arguments]
    ended = subprocess.run(command, env=os.environ | more, capture_output=True, text=True)
    assert ended.returncode == 0, f"{name}: {ended.stdout}\n{ended.stderr}"


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mars-kubernetes"
    kubectl = str(cache / "bin" / "kubectl")
    given = os.environ.get("MARS_KUBERNETES_DIR")
    if given:
        yield Kubernetes(Path(given), kubectl)
        return
    if os.geteuid() != 0:
        pytest.skip("a Kubernetes of namespaces needs root")
    folder = tmp_path_factory.mktemp("kubernetes")
    _script("build.sh")
    versions = folder / "versions"
    freeze = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    versions.write_bytes(subprocess.run(freeze, capture_output=True, check=True).stdout)
    archive = str(folder / "worker.tar")
    _script(
        "image.sh", str(PROJECT), archive, EXTRAS="kubernetes,ml,ray", CONSTRAINTS=str(versions)
    )
    try:
        _script("up.sh", str(folder / "cluster"))
        _script("load-image.sh", str(folder / "cluster"), archive)
        yield Kubernetes(folder / "cluster", kubectl)
    finally:
        _script("down.sh", str(folder / "cluster"))


@pytest.fixture
def space(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Space]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubernetes.kubectl("create", "namespace", name)
    made = Space(kubernetes, name, tmp_path)
    # Pods are refused until the new namespace's service account has a token.
    token = "jsonpath={.secrets[0].name}"
    wait_for(lambda: made.kubectl("get", "serviceaccount", "default", "-o", token), 60)
    yield made
    for one in made.running:
        one.kill()
        one.communicate()
    with contextlib.suppress(AssertionError):
        kubernetes.kubectl("delete", "namespace", name, "--wait=false")
