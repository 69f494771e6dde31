"""A cluster over the hosts of a lab, with TLS and token, and programs that run on it.

Head on ``head``, nodes on ``one`` and ``two``, credentials for programs on ``client``.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from tests.lab.hosts import Host, Lab

HEAD = "10.77.0.1:7103"
WEB = "http://10.77.0.1:7104"
NODES = ("one", "two")
SHARE = ("--n-cpu", "1", "--memory", "1GiB")


class LabCluster:
    """A cluster of `mars cluster` over a lab, for the tests of a module.

    Parameters
    ----------
    lab : Lab
        Its hosts.
    engine : {"dask", "ray"}
        What it runs on.
    nodes : sequence of str
        Hosts that join.
    share : sequence of str
        What of each of them, as options of ``mars cluster join``.
    """

    def __init__(
        self, lab: Lab, engine: str, nodes: Sequence[str] = NODES, share: Sequence[str] = SHARE
    ) -> None:
        self.lab, self.engine, self._share = lab, engine, share
        # On a slow machine a head of Ray gives up, and is started again.
        lab["head"].mars("cluster", "up", "--engine", engine, "--host", "10.77.0.1", limit_s=200)
        self.bundle = lab["head"].mars("cluster", "credentials", "export").stdout
        joining = [threading.Thread(target=self.join, args=(name,)) for name in nodes]
        for thread in joining:
            thread.start()
        for thread in joining:
            thread.join()
        for_clients = lab["head"].mars("cluster", "credentials", "export", "--client-only").stdout
        lab["client"].mars("cluster", "credentials", "import", stdin=for_clients)

    def __getitem__(self, name: str) -> Host:
        return self.lab[name]

    def join(self, name: str) -> None:
        """Have a host join."""
        self.lab[name].mars(
            "cluster",
            "join",
            HEAD,
            "--credentials",
            "-",
            *self._share,
            stdin=self.bundle,
            limit_s=200,
        )

    def kill(self, name: str) -> None:
        """SIGKILL to all that runs on a host, as if it had crashed."""
        self.lab[name].run("kill", "-KILL", "-1", check=False)

    def workers(self, name: str) -> list[str]:
        """Our own processes on a host: the zygote and the workers of programs."""
        return [line for line in self.lab[name].processes() if "zygote" in line]

    def close(self) -> None:
        """Take it down everywhere, whatever is left of it."""
        for name in sorted(self.lab.hosts, key=lambda name: name == "head"):
            self.lab[name].mars("cluster", "down", "--all", check=False)
            self.kill(name)
            self.lab[name].run(
                "sh", "-c", "rm -rf /mnt/tmp/* /mnt/home/.local /dev/shm/*", check=False
            )


class Driver:
    """A program on a host that one talks with: it prints lines, and waits for lines."""

    def __init__(self, host: Host, program: str, *arguments: str) -> None:
        self.process: subprocess.Popen[str] = host.start(
            sys.executable, "-u", "-W", "ignore", "-c", program, *arguments
        )
        self.said = ""

    def until(self, word: str) -> str:
        """The rest of the next line that begins with a word."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith(word):
                return line[len(word) :].strip()
        raise AssertionError(f"it ended without {word!r}:\n{self.said}")

    def json(self, word: str) -> Any:
        """The same, as JSON."""
        return json.loads(self.until(word))

    def go(self) -> None:
        """Let it go on behind its `input()`."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL."""
        Host.send(self.process, signal.SIGKILL)

    def end(self, limit_s: float = 30.0) -> int:
        """Wait for its end; its status."""
        rest, _ = self.process.communicate(timeout=limit_s)
        self.said += rest
        return self.process.returncode

    def close(self) -> None:
        """End it at the latest now."""
        self.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
