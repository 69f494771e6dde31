"""One request for hosts in Slurm's queue, from ``salloc`` until the hosts are there.

Never waits: whoever has it waits until it is readable, or some time has passed, and has it look.
Called by `mars.deploy.slurm_keeper`, at the beginning and when a cluster is to grow.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Callable
from typing import Final

from mars import platform
from mars.deploy import slurm_queue
from mars.deploy.slurm_node import Lines
from mars.deploy.slurm_queue import Job, Request, Share
from mars.errors import StartupFailed, UsageError
from mars.settings import (
    SLURM_COMMAND_S,
    SLURM_LONG_LOOK_S,
    SLURM_QUEUE_LOOK_S,
    SLURM_QUEUE_NEW_S,
)

_GRANTED: Final = re.compile(r"job allocation (\d+)")


class Asking:
    """A job that waits in the queue; `close` takes it out, unless it has begun.

    Parameters
    ----------
    request : Request
        What is asked for.
    name : str
        Of the job.
    say : callable
        Takes lines for people: what the job waits for.
    timeout_s : float, optional
        How long it may wait.
    now : float
        The time, by `time.monotonic`.

    Attributes
    ----------
    job : str
        Its number; "" before Slurm has said one.

    Raises
    ------
    UsageError
        There is no Slurm here.
    """

    def __init__(
        self,
        request: Request,
        name: str,
        say: Callable[[str], object],
        timeout_s: float | None,
        now: float,
    ) -> None:
        self.job = ""
        self._request, self._say, self._timeout_s = request, say, timeout_s
        self._began, self._look_at = now, now + 1.0
        self._said: list[str] = []
        self._shown = self._doubted = ""
        self._taken = False
        command = request.command(name)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=_end_with_us,  # noqa: PLW1509  # this process has one thread
            )
        except FileNotFoundError:
            raise UsageError(slurm_queue.no_command(command[0])) from None
        assert self._process.stderr is not None
        self._lines = Lines(self._process.stderr.fileno())

    def fileno(self) -> int:
        """What is readable when ``salloc`` has said something, or has ended."""
        return self._lines.descriptor

    def read(self) -> None:
        """Read what came."""
        for line in self._lines.come():
            self._said.append(line)
            found = _GRANTED.search(line)
            self.job = found[1] if found else self.job

    def hosts(self, now: float) -> list[Share] | None:
        """What the job has on each of its hosts; None: it waits.

        Raises
        ------
        UsageError
            Slurm refuses it, or does not start it without somebody's help.
        StartupFailed
            Slurm does not answer, the job waits for too long, or it ended when it began.
        """
        if not self._lines.ended:
            if self.job and now >= self._look_at:
                is_new = now - self._began < SLURM_QUEUE_NEW_S
                self._look_at = now + (SLURM_QUEUE_LOOK_S if is_new else SLURM_LONG_LOOK_S)
                self._look(now)
            return None
        if self._process.wait() or not self.job:
            words = [one.removeprefix("salloc: ").removeprefix("error: ") for one in self._said]
            raise UsageError(f"Slurm refuses the job: {'; '.join(words) or 'it does not say why'}")
        found = slurm_queue.look(self.job)
        if found is None or found.is_over:
            raise StartupFailed(f"Slurm ended job {self.job} when it began{how_ended(found)}")
        size = self._request.memory_bytes or slurm_queue.memory_of_node(self.job)
        names = slurm_queue.hosts(found.hosts)
        self._taken = True
        return [Share(name, self._request.cpus, size) for name in names]

    def _look(self, now: float) -> None:
        """See what it waits for, and whether it does so in vain."""
        reason, why = self._reason()
        if why and self._doubted == reason:  # seen twice: it does not pass at once
            raise UsageError(
                f"Slurm does not start job {self.job}: {reason}. This does not pass by itself: "
                f"{why}. The job was taken out of the queue"
            )
        self._doubted = reason if why else ""
        limit_s = self._timeout_s
        if limit_s is not None and reason and now - self._began > limit_s:
            raise StartupFailed(
                f"Slurm did not start job {self.job} within timeout={limit_s:g} s: {reason}. "
                f"The job was taken out of the queue"
            )

    def _reason(self) -> tuple[str, str]:
        """Why it waits, and why it does so for ever; "": it does not."""
        try:
            waiting = slurm_queue.look(self.job)
            if waiting is None or waiting.state != "PENDING":
                return "", ""  # it begins, or was cancelled: `salloc` says more in a moment
            why = slurm_queue.why_never(waiting)
        except StartupFailed as error:  # a busy controller; the job keeps its place
            self._say(str(error))
            return "", ""
        if waiting.reason not in (self._shown, "None", ""):
            self._shown = waiting.reason
            self._say(f"Slurm job {self.job} waits: {waiting.reason}")
        return waiting.reason, why

    def close(self) -> None:
        """Take the job out of the queue, unless its hosts were given; may be called twice."""
        if self._process.poll() is None:
            self._process.terminate()  # it takes the job out of the queue
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SLURM_COMMAND_S)
        assert self._process.stderr is not None
        if not self._process.stderr.closed:
            self._process.stderr.close()
            if self.job and not self._taken:  # it may have begun in this moment
                with contextlib.suppress(StartupFailed):  # it is not there any more, as it shall be
                    slurm_queue.run("scancel", "--quiet", self.job)


def how_ended(job: Job | None) -> str:
    """How a job ended, as the end of a message."""
    if job is None:
        return ""
    return f": {job.state}" + (f" ({job.reason})" if job.reason not in ("None", "") else "")


def _end_with_us() -> None:
    platform.die_with_parent(signal.SIGTERM)
