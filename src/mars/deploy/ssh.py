"""Hosts that join and leave over OpenSSH.

Uses the user's own ``ssh`` with their configuration. Host keys have to be known: nobody is asked,
and no unknown key is accepted. The bundle goes through standard input, so no secret stands in a
list of processes. Called by ``mars cluster``.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mars.deploy import clusters, private_files
from mars.deploy.records import Record, joined
from mars.errors import StartupFailed
from mars.settings import NODE_START_S, SSH_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPTIONS: Final = (
    "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10",
)  # fmt: skip


_HOSTS: Final = "ssh.json"

_NO_CONNECTION: Final = 255
"""Status of ssh itself; others are of the command."""


@dataclass(frozen=True, slots=True)
class Shell:
    """How commands are run on other hosts.

    Attributes
    ----------
    python : str
        The interpreter there that has mars.
    options : sequence of str
        Further arguments of ssh, such as ``["-F", "file"]``.
    """

    python: str = sys.executable
    options: Sequence[str] = field(default=())

    def run(self, host: str, arguments: Sequence[str], data: bytes = b"") -> str:
        """Run ``mars`` with arguments on a host; return what it prints.

        Raises
        ------
        StartupFailed
            There is no connection, or the command failed; the message says what it said.
        """
        command = shlex.join([self.python, "-m", "mars", *arguments])
        try:
            ended = subprocess.run(
                ["ssh", *_OPTIONS, *self.options, "--", host, command],
                input=data,
                capture_output=True,
                timeout=2 * NODE_START_S,
                check=False,
            )
        except FileNotFoundError:
            raise StartupFailed("there is no command ssh here; install OpenSSH") from None
        except subprocess.TimeoutExpired:
            raise StartupFailed(f"{host} did not end `{command}` within its time") from None
        said = ended.stderr.decode("utf-8", "replace").strip()
        if ended.returncode == _NO_CONNECTION:
            hint = ""
            if "host key" in said.lower():
                hint = f"; connect once with `ssh {host}`, and compare its key, then try again"
            raise StartupFailed(f"no connection to {host} over ssh: {said}{hint}")
        if ended.returncode:
            raise StartupFailed(f"{host} says of `mars {' '.join(arguments)}`: {said}")
        return ended.stdout.decode("utf-8", "replace")


def join(record: Record, hosts: Sequence[str], shell: Shell, share: Sequence[str]) -> None:
    """Have hosts join a cluster that was begun here, all at the same time.

    Parameters
    ----------
    record : Record
        The cluster.
    hosts : sequence of str
        As ssh knows them.
    shell : Shell
        How they are reached.
    share : sequence of str
        Options of ``mars cluster join``: what each of them gives.

    Raises
    ------
    StartupFailed
        A host does not join; others may have.
    """
    bundle = clusters.export(record)
    command = ["cluster", "join", joined(record.host, record.port), "--credentials", "-", *share]
    facts = {"hosts": list(hosts), "python": shell.python, "options": list(shell.options)}
    # Before they join: whatever happens then, `leave` knows them.
    private_files.replace(record.directory / _HOSTS, json.dumps(facts).encode())
    with ThreadPoolExecutor(SSH_AT_ONCE) as pool:
        joining = [pool.submit(shell.run, host, command, bundle) for host in hosts]
    for one in joining:
        one.result()


def leave(record: Record) -> list[str]:
    """Have the hosts that joined over ssh end what they run; return what they complain of."""
    try:
        facts = json.loads(private_files.read(record.directory / _HOSTS))
    except FileNotFoundError:
        return []
    shell = Shell(facts["python"], facts["options"])
    command = ["cluster", "down", "--if-known", joined(record.host, record.port)]
    with ThreadPoolExecutor(SSH_AT_ONCE) as pool:
        leaving = [pool.submit(shell.run, host, command) for host in facts["hosts"]]
    return [str(error) for error in map(Future.exception, leaving) if error is not None]
