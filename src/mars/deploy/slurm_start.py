"""Starting the keeper of a cluster on Slurm, listening to it, ending it.

The keeper (`mars.deploy.slurm_keeper`) is a process of its own, so that it can end everything when
this program is killed. Called by `mars.deploy.slurm` and by ``mars run``.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

from mars.deploy.slurm_keeper import JOB, LEFT, MISUSED, READY, REFUSED, RESCALED, SAY
from mars.errors import StartupFailed, UsageError
from mars.observe.progress import write_line
from mars.settings import SLURM_KEEPER_END_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mars.deploy.slurm_queue import Request

_LINES: Final = "mars: "


class Keeper:
    """The process that keeps a cluster, as the program has it.

    Attributes
    ----------
    address : str
        Where programs connect.
    job : str
        Number of the first job.
    jobs : list of str
        Numbers of all jobs that run.
    over : str
        How the last job ended; "" as long as one runs.

    Raises
    ------
    UsageError
        Slurm refuses the job, or does not start it without somebody's help; or there is no Slurm.
    StartupFailed
        Slurm does not answer, the job ended early, or hosts did not join.
    """

    def __init__(
        self,
        request: Request | None,
        *,
        min_nodes: int = 0,
        timeout_s: float | None = None,
        host: str = "",
        quiet: bool = False,
    ) -> None:
        self.address = self.job = self.over = ""
        self.jobs: list[str] = []
        self._rescaling = threading.Lock()
        self._changes = 0
        self._answers: queue.SimpleQueue[tuple[str, str, int] | None] = queue.SimpleQueue()
        self._quiet = quiet
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mars.deploy.slurm_keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the program, which then ends the keeper in order.
            start_new_session=True,
        )
        facts = {
            "request": None if request is None else request.facts(),
            "min_nodes": min_nodes,
            "timeout_s": timeout_s,
            "host": host,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._listener: threading.Thread | None = None
        try:
            with contextlib.suppress(BrokenPipeError):  # it says why, or has just been killed
                self._ask(facts)
            self._wait_ready()
            self._listener = threading.Thread(target=self._listen, name="mars-slurm", daemon=True)
            self._listener.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the nodes, the job and the head, and wait for that; may be called twice."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(SLURM_KEEPER_END_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(SLURM_KEEPER_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._listener is not None and self._listener is not threading.current_thread():
            self._listener.join()
        self._output.close()

    def rescale(self, nodes: int, timeout_s: float | None) -> None:
        """Have another number of hosts; returns when they have joined, or have left.

        If this is interrupted, a job that waits in the queue is taken out of it. What has begun
        goes on.

        Raises
        ------
        UsageError
            Slurm refuses a further job, or does not start it without somebody's help.
        StartupFailed
            Slurm does not answer, hosts did not join, or the cluster has ended.
        """
        with self._rescaling:
            self._changes += 1
            number = self._changes
            try:
                self._ask({"nodes": nodes, "timeout_s": timeout_s, "number": number})
                answer = self._answers.get()
                while answer is not None and answer[2] != number:  # of one that was interrupted
                    answer = self._answers.get()
            except (OSError, ValueError):  # it has ended; or it was closed, by us
                answer = None
            except BaseException:
                with contextlib.suppress(OSError, ValueError):
                    self._ask({"withdrawn": number})
                raise
        if answer is None:
            raise StartupFailed(f"the cluster has ended{self.over and f': {self.over}'}")
        how, why, _ = answer
        if how == MISUSED:
            raise UsageError(why)
        if how == REFUSED:
            raise StartupFailed(why)

    def _ask(self, facts: Mapping[str, object]) -> None:
        self._input.write(f"{json.dumps(facts)}\n")
        self._input.flush()

    def _wait_ready(self) -> None:
        for what, text in self._said():
            if what == READY:
                self.address = text
                return
            if what == MISUSED:
                raise UsageError(text)
            if what == REFUSED:
                raise StartupFailed(text)
        raise StartupFailed(
            "the process that keeps the cluster on Slurm has ended without a word; was it killed?"
        )

    def _listen(self) -> None:
        for what, text in self._said():
            if what == RESCALED:
                how, why, number = json.loads(text)
                self._answers.put((how, why, number))
            elif what in (MISUSED, REFUSED):
                self.over = text
                self._show(text)
        self._answers.put(None)

    def _said(self) -> Iterator[tuple[str, str]]:
        """What the keeper says, and lines for people are shown."""
        for line in self._output:
            what, text = json.loads(line)
            if what == SAY:
                self._show(text)
            elif what == JOB:
                self.job = self.job or text
                self.jobs.append(text)
            elif what == LEFT:
                self.jobs.remove(text)
            else:
                yield what, text

    def _show(self, text: str) -> None:
        if not self._quiet:
            write_line(f"{_LINES}{text}")
