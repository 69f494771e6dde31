"""Nodes of a job: one ``srun`` for each host, watched, told things and ended.

Each `Step` is a process ``srun`` here, and `mars.deploy.slurm_node` on a host of the job. What it
is to know goes through its standard input, so nothing of it stands in a file or in a list of
processes. Never asks the queue. Called by `mars.deploy.slurm_keeper`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.deploy.slurm_node import FAILED, JOINED, TOLD, Lines
from mars.deploy.slurm_queue import no_command
from mars.errors import UsageError
from mars.settings import SLURM_SAID_LINES

if TYPE_CHECKING:
    from mars.deploy.slurm_queue import Share

_OF_THE_JOB: Final = (
    "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_TASKS_PER_NODE",
    "SLURM_NTASKS_PER_", "SLURM_CPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_MEM_PER_",
    "SLURM_DISTRIBUTION", "SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_HINT", "SLURM_NODELIST",
    "SLURM_JOB_NODELIST", "SLURM_EXCLUSIVE", "SLURM_THREADS_PER_CORE", "SLURM_LABELIO",
    "SLURM_EXPORT_ENV", "SLURM_STDINMODE", "SLURM_STDOUTMODE", "SLURM_STDERRMODE",
)  # fmt: skip
"""How variables begin that ``srun`` would take for its options, and that are of the whole job."""

_LOST: Final = ("Node failure on", "node failure")


class Step:
    """One host of a job, with a node of the cluster on it.

    Attributes
    ----------
    name : str
        The node's name in the cluster; "" before it has joined.
    failure : str
        Why it did not join, or ended; "" as long as it did not say.
    is_lost : bool
        Whether Slurm has given the host up.
    """

    def __init__(self, job: str, share: Share, bundle: bytes, *, own_job: bool) -> None:
        self.share = share
        self.name = ""
        self.failure = ""
        self.is_lost = False
        self._said: deque[str] = deque(maxlen=SLURM_SAID_LINES)
        command = [
            "srun", f"--jobid={job}", f"--nodelist={share.host}", "--nodes=1", "--ntasks=1",
            # All that the job has on this host, also beside other steps of it.
            f"--cpus-per-task={share.cpus}", "--mem=0", "--overlap", "--no-kill",
            "--export=ALL", "--job-name=mars-node",
            sys.executable, "-P", "-m", "mars.deploy.slurm_node",
        ]  # fmt: skip
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={
                    name: text
                    for name, text in os.environ.items()
                    if not name.startswith(_OF_THE_JOB)
                },
                # It ends the step when we are killed, too.
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # this process has one thread
            )
        except FileNotFoundError:
            raise UsageError(no_command("srun")) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.lines = Lines(self._output.fileno())
        asked = {
            "bundle": bundle.decode(),
            "cpus": share.cpus,
            "memory_bytes": share.memory_bytes,
            "own_job": own_job,
        }
        self._send(json.dumps(asked))

    def fileno(self) -> int:
        """What is readable when the host has said something."""
        return self._output.fileno()

    def read(self) -> list[str]:
        """Read what came; return the lines that are for people."""
        shown = []
        for line in self.lines.come():
            if line.startswith(JOINED):
                self.name = line.removeprefix(JOINED)
            elif line.startswith(FAILED):
                self.failure = str(json.loads(line.removeprefix(FAILED)))
            else:
                self._said.append(line)
                if any(text in line for text in _LOST):
                    self.is_lost = True
                    self.kill()  # or it waits for ever for what the host has to say
                elif not line.startswith("srun:"):
                    shown.append(line)
        return shown

    @property
    def is_over(self) -> bool:
        """Whether its ``srun`` has ended."""
        return self._process.poll() is not None

    @property
    def why(self) -> str:
        """Why it ended, in the words of the host or of Slurm."""
        return self.failure or "\n".join(self._said) or f"it ended with {self._process.poll()}"

    def tell(self) -> None:
        """Have calls told that the job is nearly over."""
        self._send(TOLD)

    def leave(self) -> None:
        """Have the node leave; returns at once. May be called twice."""
        with contextlib.suppress(OSError):
            self._input.close()

    def kill(self) -> None:
        """End ``srun`` at once; Slurm ends what is left on the host."""
        if self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """End it, and let go of what it has here; may be called twice."""
        self.leave()
        self.kill()
        self._process.wait()
        self._output.close()

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended, which is seen elsewhere
            self._input.write(f"{line}\n".encode())
            self._input.flush()


def _end_with_parent() -> None:
    platform.die_with_parent(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # of a terminal; we end it in order
