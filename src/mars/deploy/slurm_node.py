"""The program that Slurm starts on each host of a cluster: the host joins, and leaves in order.

``srun … python -m mars.deploy.slurm_node`` reads lines from its standard input. The first one is
JSON: the bundle of the cluster, and what the host gives. A line `TOLD` means that the time of the
job is nearly over: calls that run here and handle SIGTERM get it. The end of the input, or a
signal, means: leave. All that it keeps is in a private folder of this host, so no host sees files
of another, and no secret stands in a list of processes. Started by `mars.deploy.slurm_steps`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.deploy import clusters, private_files, processes
from mars.deploy.programs import Node
from mars.deploy.slurm_queue import run
from mars.engines.local import stacks
from mars.errors import MarsError
from mars.resources import memory_limit_bytes
from mars.settings import KNOCK_S, NODE_START_S, SLURM_TICK_S

if TYPE_CHECKING:
    from collections.abc import Iterator

JOINED: Final = "mars-node-joined "
FAILED: Final = "mars-node-failed "
"""How lines begin that are for whoever started this."""

TOLD: Final = "told"

_HOME: Final = "mars-slurm-"
"""How the folder is called that a node has for its own files."""

_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Join, stay until told to leave, leave; the exit status."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    for number in _ENDING:
        signal.signal(number, lambda *_: None)  # `set_wakeup_fd` writes it down
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    lines = Lines(sys.stdin.fileno())
    asked = json.loads(lines.first())
    home = Path(platform.private_directory(_HOME))
    lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    remove_stale(home.parent)
    os.environ["XDG_STATE_HOME"] = str(home)
    head: tuple[str, int] | None = None
    try:
        record = clusters.import_bundle(asked["bundle"].encode(), origin="join")
        size = asked["memory_bytes"] or memory_limit_bytes()[0]
        joined = clusters.join(record, Node("", "", asked["cpus"], size))
        try:
            _say(f"{JOINED}{joined.node.name}")
            status = _stay(joined.process, lines, woken)
            if lines.ended or status != 0:
                head = (record.host, record.port)
            return status
        finally:
            clusters.leave(record, joined)
    except (MarsError, OSError) as error:
        _say(f"{FAILED}{json.dumps(str(error))}")
        return 1
    finally:
        private_files.remove(home)
        os.close(lock)
        # Whoever asked for the job ends it, after the nodes have left. If that one was killed, its
        # head has gone with it.
        if asked["own_job"] and head is not None and not _answers(*head):
            _end_job()


def remove_stale(folder: Path) -> None:
    """Remove what nodes have left in a folder for temporary files that Slurm has killed.

    Slurm does so without a warning where a host was cut off, or used more memory than it has. A
    node that lives holds a lock on its home; one that has just been made may not yet.
    """
    for home in folder.glob(f"{_HOME}*"):
        try:
            found = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # another user's, or it has just gone
            continue
        try:
            facts = os.fstat(found)
            if facts.st_uid != os.getuid() or time.time() - facts.st_mtime < NODE_START_S:
                continue
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for record in home.glob("mars/clusters/*"):
                for process in processes.remembered(record):
                    if process.directory and not processes.is_running(process):
                        private_files.remove(Path(process.directory))
            private_files.remove(home)
        except (MarsError, OSError, ValueError):  # its node lives, or nobody can tell
            continue
        finally:
            os.close(found)


def _stay(process: processes.Process, lines: Lines, woken: int) -> int:
    """Return when the host is to leave (0), or the node has ended by itself (1)."""
    while processes.is_running(process):
        ready, _, _ = select.select([lines.descriptor, woken], [], [], SLURM_TICK_S)
        if woken in ready:
            return 0
        if lines.descriptor in ready:
            for line in lines.come():
                if line == TOLD:
                    _say(f"{tell_calls()} of the calls that run here were told")
            if lines.ended:
                return 0
    _say(f"{FAILED}{json.dumps('the node has ended by itself')}")
    return 1


class Lines:
    """Lines that come through a descriptor, as they come."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._rest = b""

    def first(self) -> str:
        """Wait for one line; "" at the end."""
        while not self.ended:
            for line in self.come():
                return line
        return ""

    def come(self) -> Iterator[str]:
        """Read once; yield the lines that are whole."""
        if b"\n" not in self._rest:
            data = os.read(self.descriptor, 1 << 16)
            self.ended = not data
            self._rest += data
        while b"\n" in self._rest:
            line, _, self._rest = self._rest.partition(b"\n")
            yield line.decode("utf-8", "replace")


def tell_calls() -> int:
    """Send SIGTERM to each worker here whose call handles it; return how many there are.

    Others would end by it, and have the more time the longer they go on.
    """
    told = 0
    for engine in stacks.find_engines(os.getuid()):
        for pid in engine.workers:
            with contextlib.suppress(ProcessLookupError), platform.Process(pid) as worker:
                if handles(pid, signal.SIGTERM):
                    worker.signal(signal.SIGTERM)
                    told += 1
    return told


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal; False if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    caught = next((line for line in text.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _say(line: str) -> None:
    """Print a line; nobody may be left to read it."""
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), KNOCK_S).close()
    except OSError:
        return False
    return True


def _end_job() -> None:
    job = os.environ.get("SLURM_JOB_ID", "")
    if job:
        with contextlib.suppress(MarsError):
            run("scancel", "--quiet", job)


if __name__ == "__main__":
    sys.exit(main())
