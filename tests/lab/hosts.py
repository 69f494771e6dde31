"""Hosts made of namespaces: each has its own network, processes, name, temporary files and memory.

A `Lab` is a switch and some hosts on it. A host is a process, number 1 of its own process
namespace; whatever runs there ends when that one ends, and nothing is left: no interface, no file,
no process. Needs root, Linux, iproute2 and util-linux.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

COMMANDS = ("ip", "unshare", "nsenter", "setpriv", "mount")
NETWORK = "10.77.0"
OWN = "/mnt"
"""Where a host has its own files; elsewhere it sees those of the machine."""

KEPT = sorted(
    {
        str(place)
        for place in [Path(__file__).parents[2], Path(sys.prefix)]
        if place.is_relative_to("/tmp") or place.is_relative_to("/var/tmp")
    }
)
"""What a host with a ``/tmp`` of its own sees there all the same: these tests, and their Python."""

# The first process of a host: makes its surroundings, says so, and reaps whoever is orphaned.
_INIT = f"""
import os, signal, socket, subprocess, sys
def run(*command):
    subprocess.run(command, check=True)
name, names, own_tmp, *kept = sys.argv[1:]
socket.sethostname(name)
run("mount", "--make-rprivate", "/")
run("mount", "-t", "proc", "proc", "/proc")
run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "{OWN}")
run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")
os.mkdir("{OWN}/home", 0o700)
os.mkdir("{OWN}/tmp")
os.chmod("{OWN}/tmp", 0o1777)
for number, place in enumerate(kept):
    os.mkdir(f"{OWN}/kept-{{number}}")
    run("mount", "--bind", place, f"{OWN}/kept-{{number}}")
for place in ["/tmp", "/var/tmp"] if own_tmp else []:
    run("mount", "--bind", "{OWN}/tmp", place)
for number, place in enumerate(kept):
    os.makedirs(place, exist_ok=True)
    run("mount", "--move", f"{OWN}/kept-{{number}}", place)
    os.rmdir(f"{OWN}/kept-{{number}}")
with open("{OWN}/hosts", "w") as file:
    file.write(names)
run("mount", "--bind", "{OWN}/hosts", "/etc/hosts")
run("ip", "link", "set", "lo", "up")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
print("ready", flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        signal.sigtimedwait([signal.SIGCHLD], 1.0)
"""


def why_not() -> str:
    """Why no hosts can be made here, or nothing."""
    if not sys.platform.startswith("linux"):
        return "hosts are made of Linux namespaces"
    if os.geteuid() != 0:
        return "hosts are made of namespaces, which needs root"
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return f"hosts need the commands {', '.join(missing)}"
    command = [
        "unshare",
        "--net",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "mount",
        "--make-rprivate",
        "/",
    ]
    tried = subprocess.run(command, capture_output=True, text=True)
    return f"namespaces are refused here: {tried.stderr.strip()}" if tried.returncode else ""


class Host:
    """One host of a lab."""

    def __init__(self, name: str, address: str, names: str, up_s: int, own_tmp: bool) -> None:
        self.name, self.address = name, address
        self._holder = subprocess.Popen(
            [
                # It ends with us, also when pytest ends a test that hangs, and itself with it.
                "setpriv", "--pdeathsig", "KILL",
                "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child",
                "--time", "--monotonic", str(up_s),
                sys.executable, "-c", _INIT, name, names,
                *(["own", *KEPT] if own_tmp else [""]),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self.pid = int(children.read_text())

    @property
    def environment(self) -> dict[str, str]:
        """Variables of what runs there: its own home and temporary directory."""
        kept = {
            name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ
        }
        return {**kept, "HOME": f"{OWN}/home", "TMPDIR": f"{OWN}/tmp"}

    def command(self, words: Sequence[str]) -> list[str]:
        """A command line that runs there."""
        entering = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--ipc"]
        return [*entering, "--pid", "--time", "--", *words]

    def run(
        self, *words: str, stdin: str | None = None, limit_s: float = 50.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there, and wait for it."""
        ended = subprocess.run(
            self.command(words),
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=limit_s,
        )
        assert not check or ended.returncode == 0, (
            f"{words} on {self.name}:\n{ended.stdout}\n{ended.stderr}"
        )
        return ended

    def mars(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command ``mars`` there."""
        return self.run(sys.executable, "-m", "mars", *words, **options)

    def python(self, program: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program there."""
        return self.run(sys.executable, "-", stdin=program, **options)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command there; to be ended by `close` at the latest."""
        return subprocess.Popen(
            self.command(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )

    @staticmethod
    def send(started: subprocess.Popen[str], number: int) -> None:
        """Send a signal to what `start` started, by the machine's number: it is nsenter's child."""
        if started.poll() is None:
            children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
            for pid in children.read_text().split():
                os.kill(int(pid), number)

    def processes(self) -> list[str]:
        """Command lines of all that runs there, but for the first process."""
        listed = self.run("ps", "-eo", "pid,args", "--no-headers").stdout.splitlines()
        ours = ("ps -eo", "<defunct>")
        return [
            line
            for line in listed
            if line.split()[0] != "1" and not any(text in line for text in ours)
        ]

    def ports(self) -> list[str]:
        """Ports on which something listens that other hosts reach."""
        rows = self.run("ss", "-H", "-ltn").stdout.splitlines()
        places = {row.split()[3].rpartition(":") for row in rows}
        return sorted(port for host, _, port in places if host not in ("127.0.0.1", "[::1]"))

    def files(self) -> list[str]:
        """Files of its own, in its home, its temporary directory and its shared memory."""
        places = [f"{OWN}/home", f"{OWN}/tmp", "/dev/shm"]
        return self.run("find", *places, "-type", "f").stdout.splitlines()

    def close(self) -> None:
        """End it and all that runs there."""
        if self._holder.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        self._holder.wait(10)
        if self._holder.stdout is not None:
            self._holder.stdout.close()


class Lab:
    """A switch, and hosts on it that reach each other at ``10.77.0.1``, ``10.77.0.2``, …

    Parameters
    ----------
    names : sequence of str
        Of the hosts.
    own_tmp : bool, default False
        Whether each has a ``/tmp`` of its own, too, and does not see that of the machine.
    """

    def __init__(self, names: Sequence[str], *, own_tmp: bool = False) -> None:
        self._own_tmp = own_tmp
        self._made: list[Host] = []
        addresses = {name: f"{NETWORK}.{n}" for n, name in enumerate(names, 1)}
        table = "127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in addresses.items())
        try:
            self._switch = self._add("switch", "", table)
            self._switch.run("ip", "link", "add", "br0", "type", "bridge")
            self._switch.run("ip", "link", "set", "br0", "up")
            self.hosts: Mapping[str, Host] = {
                name: self._connect(name, address, table) for name, address in addresses.items()
            }
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def cut(self, name: str) -> None:
        """Take the link of a host down."""
        self._switch.run("ip", "link", "set", f"to-{name}", "down")

    def mend(self, name: str) -> None:
        """Bring it up again."""
        self._switch.run("ip", "link", "set", f"to-{name}", "up")

    def close(self) -> None:
        """End all hosts."""
        while self._made:
            self._made.pop().close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, name: str, address: str, table: str) -> Host:
        # Hosts count `time.monotonic` from their own start.
        host = Host(name, address, table, 3600 * len(self._made), self._own_tmp)
        self._made.append(host)
        return host

    def _connect(self, name: str, address: str, table: str) -> Host:
        host = self._add(name, address, table)
        link = f"to-{name}"
        # By number as the machine sees it: the switch sees neither.
        subprocess.run(
            [
                "nsenter", "--target", str(self._switch.pid), "--net", "--",
                "ip", "link", "add", link, "type", "veth",
                "peer", "name", "eth0", "netns", str(host.pid),
            ],
            check=True,
        )  # fmt: skip
        self._switch.run("ip", "link", "set", link, "master", "br0", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        host.run(
            "ip", "route", "add", "default", "via", f"{NETWORK}.254"
        )  # nobody: see own_address
        return host
