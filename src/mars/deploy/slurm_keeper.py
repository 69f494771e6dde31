"""The process that owns a cluster on Slurm: it begins it, watches its job, and ends all of it.

``python -m mars.deploy.slurm_keeper`` reads one line of JSON, what is wanted, from its standard
input, and prints lines of JSON: what happens. When its input ends, because the program has closed
it or has been killed, or when a signal comes, it ends the nodes, the job and the head, and then
itself. Nothing else holds any of these, so nothing is left. Started by `mars.deploy.slurm_start`.

::

    the program ──input──► keeper ──► the head, Dask's scheduler, on this host
                ◄──lines──        ──► salloc, and squeue now and then
                                  ──► srun, one for each host ──► slurm_node there
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from mars import platform
from mars.deploy import clusters, private_files, records, slurm_queue
from mars.deploy.dask_scheduler import WITH_PARENT
from mars.deploy.records import Record
from mars.deploy.slurm_node import Lines
from mars.deploy.slurm_queue import Job, Request, Share
from mars.deploy.slurm_steps import Step
from mars.engines.kinds import DASK
from mars.errors import MarsError, StartupFailed, UsageError
from mars.settings import (
    CREDENTIALS_DAYS,
    SLURM_COMMAND_S,
    SLURM_LONG_LOOK_S,
    SLURM_QUEUE_LOOK_S,
    SLURM_QUEUE_NEW_S,
    SLURM_STEP_AGAIN_S,
    SLURM_STEP_END_S,
    SLURM_STEP_TRIES,
    SLURM_TICK_S,
    SLURM_WARNING_S,
)

SAY: Final = "say"  # a line for people
READY: Final = "ready"  # the address of the cluster
JOB: Final = "job"  # the number of the job
REFUSED: Final = "refused"  # why there is no cluster
MISUSED: Final = "misused"  # the same, and the caller can do something

_GRANTED: Final = re.compile(r"job allocation (\d+)")
_PORT_TRIES: Final = 3

_OURS: Final = "slurm"
"""File in the folder of a record that a keeper made."""


class Ended(Exception):
    """The program, or a signal, wants the end."""


@dataclass(slots=True)
class Host:
    """A host of the job, and what runs there."""

    share: Share
    step: Step | None
    tries: int = 0  # since a node was there
    again_at: float = 0.0
    was_there: bool = False
    given_up: bool = False


@dataclass(slots=True)
class Plan:
    """What is wanted: a job of our own, or a cluster in the job that this process is in."""

    request: Request | None
    min_nodes: int
    timeout_s: float | None
    host: str
    shares: list[Share] = field(default_factory=list)
    job: str = ""


class Keeper:
    """One cluster on Slurm, from its beginning to its end."""

    def __init__(self, lines: Lines, woken: int, parent: int) -> None:
        self._lines, self._woken, self._parent = lines, woken, parent
        self._record: Record | None = None
        self._name = ""
        self._hosts: list[Host] = []
        self._refusals: list[str] = []
        self._shown = ""  # why the job waits, as people know
        self._told = False
        self._ready = False

    def run(self, plan: Plan) -> None:
        """Begin, and stay until the job or the program ends.

        Raises
        ------
        Ended
            The program has ended, or wants the end.
        StartupFailed, UsageError
            There is no cluster.
        """
        if plan.request is not None:
            plan.job, plan.shares = self._allocate(plan, plan.request)
            tell(SAY, f"Slurm job {plan.job} has begun")
        tell(JOB, plan.job)
        self._record = record = _begin_head(plan)  # nothing listens while a job waits for days
        bundle = clusters.export(record)
        own_job = plan.request is not None
        for share in plan.shares:
            self._hosts.append(Host(share, Step(plan.job, share, bundle, own_job=own_job)))
        self._watch(plan, bundle)

    # -- the queue ----------------------------------------------------------------------------

    def _allocate(self, plan: Plan, request: Request) -> tuple[str, list[Share]]:
        """Wait until the job has its hosts; return its number, and what it has there."""
        self._name = f"mars-{secrets.token_hex(6)}"
        command = request.command(self._name)
        try:
            asking = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=_end_with_us,  # noqa: PLW1509  # this process has one thread
            )
        except FileNotFoundError:
            raise UsageError(slurm_queue.no_command(command[0])) from None
        assert asking.stderr is not None
        try:
            job = self._wait_granted(plan, asking, Lines(asking.stderr.fileno()))
        finally:
            if asking.poll() is None:
                asking.terminate()  # it takes the job out of the queue
            with contextlib.suppress(subprocess.TimeoutExpired):
                asking.wait(SLURM_COMMAND_S)
            asking.stderr.close()
        found = slurm_queue.look(job)
        if found is None or found.is_over:
            raise StartupFailed(f"Slurm ended job {job} when it began{_how(found)}")
        size = request.memory_bytes or slurm_queue.memory_of_node(job)
        names = slurm_queue.hosts(found.hosts)
        return job, [Share(name, request.cpus, size) for name in names]

    def _wait_granted(self, plan: Plan, asking: subprocess.Popen[bytes], lines: Lines) -> str:
        began = time.monotonic()
        look_at = began + 1.0
        said: list[str] = []
        doubted = job = ""
        while not lines.ended:
            ready = self._wait([lines.descriptor])
            if lines.descriptor in ready:
                for line in lines.come():
                    said.append(line)
                    found = _GRANTED.search(line)
                    job = found[1] if found else job
            now = time.monotonic()
            if not job or now < look_at or lines.ended:
                continue
            is_new = now - began < SLURM_QUEUE_NEW_S
            look_at = now + (SLURM_QUEUE_LOOK_S if is_new else SLURM_LONG_LOOK_S)
            reason, why = self._look_at_queue(job)
            if why and doubted == reason:  # seen twice: it does not pass at once
                raise UsageError(
                    f"Slurm does not start job {job}: {reason}. This does not pass by itself: "
                    f"{why}. The job was taken out of the queue"
                )
            doubted = reason if why else ""
            if plan.timeout_s is not None and reason and now - began > plan.timeout_s:
                raise StartupFailed(
                    f"Slurm did not start job {job} within timeout={plan.timeout_s:g} s: {reason}. "
                    f"The job was taken out of the queue"
                )
        if asking.wait() == 0 and job:
            return job
        words = [line.removeprefix("salloc: ").removeprefix("error: ") for line in said]
        raise UsageError(f"Slurm refuses the job: {'; '.join(words) or 'it does not say why'}")

    def _look_at_queue(self, job: str) -> tuple[str, str]:
        """Why a job waits, and why it does so for ever; "": it does not."""
        try:
            waiting = slurm_queue.look(job)
            if waiting is None or waiting.state != "PENDING":
                return "", ""  # it begins, or was cancelled: `salloc` says more in a moment
            why = slurm_queue.why_never(waiting)
        except StartupFailed as error:  # a busy controller; the job keeps its place
            tell(SAY, str(error))
            return "", ""
        if waiting.reason not in (self._shown, "None", ""):
            self._shown = waiting.reason
            tell(SAY, f"Slurm job {job} waits: {waiting.reason}")
        return waiting.reason, why

    # -- the job ------------------------------------------------------------------------------

    def _watch(self, plan: Plan, bundle: bytes) -> None:
        """Stay until the job is over, or no host is left."""
        look_at = time.monotonic() + SLURM_QUEUE_LOOK_S
        ends_at: float | None = None
        while True:
            ready = self._wait([host.step for host in self._hosts if host.step is not None])
            now = time.monotonic()
            for host in self._hosts:
                if host.step is not None and host.step in ready:
                    for line in host.step.read():
                        tell(SAY, f"{host.share.host}: {line}")
                self._attend(host, now)
                if host.step is None and not host.given_up and now >= host.again_at:
                    host.step = Step(plan.job, host.share, bundle, own_job=plan.request is not None)
            self._settle(plan)
            if now >= look_at:
                look_at = now + SLURM_LONG_LOOK_S
                ends_at = self._look(plan.job, now, ends_at)
            if ends_at is not None and now >= ends_at - SLURM_WARNING_S and not self._told:
                self._told = True
                self._tell_calls(plan.job, ends_at - now)

    def _attend(self, host: Host, now: float) -> None:
        """See to a host whose node has joined or ended."""
        step = host.step
        if step is None:
            return
        if step.name and not host.was_there:
            host.was_there, host.tries = True, 0
            if self._ready:
                tell(SAY, f"{host.share.host} has joined")
        if not step.lines.ended:
            return  # also if it has ended: what it said last is read first
        why, lost = step.why, step.is_lost
        step.close()
        host.step = None
        host.was_there = False
        host.tries += 1
        if lost or host.tries >= SLURM_STEP_TRIES or not self._ready:
            host.given_up = True
        host.again_at = now + SLURM_STEP_AGAIN_S
        if lost:
            tell(SAY, f"{host.share.host} is lost: Slurm cannot reach it")
        elif self._ready:
            # What else it said has been shown.
            tell(SAY, f"{host.share.host} has left" + (f": {step.failure}" if step.failure else ""))
        else:
            self._refusals.append(f"{host.share.host}: {why}")

    def _settle(self, plan: Plan) -> None:
        """Tell the program when enough hosts have joined, or when they cannot."""
        there = sum(host.was_there for host in self._hosts)
        possible = sum(not host.given_up for host in self._hosts)
        if not self._ready:
            wanted = min(plan.min_nodes, len(self._hosts)) or len(self._hosts)
            if there >= wanted:
                self._ready = True
                assert self._record is not None
                joined = [host.share for host in self._hosts if host.was_there]
                tell(
                    SAY,
                    f"{there} of {len(self._hosts)} hosts of Slurm job {plan.job} have joined, "
                    f"with {sum(share.cpus for share in joined)} cores",
                )
                tell(READY, self._record.address)
            elif possible < wanted:
                raise StartupFailed(
                    f"of the hosts of Slurm job {plan.job}, {len(self._hosts) - possible} did not "
                    f"join the cluster. {'; '.join(self._refusals)}"
                )
        elif not possible:
            raise StartupFailed(f"no host of Slurm job {plan.job} is left")

    def _look(self, job: str, now: float, ends_at: float | None) -> float | None:
        """Ask Slurm for the job; return when it ends, by our clock."""
        try:
            found = slurm_queue.look(job)
        except MarsError as error:  # its controller may be away for a while, and jobs run on
            tell(SAY, str(error))
            return ends_at
        if found is None or found.is_over:
            raise StartupFailed(f"Slurm job {job} has ended{_how(found)}")
        ends_at = None if found.left_s is None else now + found.left_s
        if ends_at is None or ends_at - now > SLURM_WARNING_S:
            self._told = False  # somebody gave it more time
        return ends_at

    def _tell_calls(self, job: str, left_s: float) -> None:
        tell(
            SAY,
            f"Slurm ends job {job} in {max(0.0, left_s):.0f} s, at its time limit; calls that "
            f"handle SIGTERM get it now. A checkpoint keeps what is finished",
        )
        for host in self._hosts:
            if host.step is not None:
                host.step.tell()

    # -- waiting and ending -------------------------------------------------------------------

    def _wait(self, readable: list[int] | list[Step]) -> list[object]:
        """Wait for one of these, for at most a tick.

        Raises
        ------
        Ended
            The program has ended, or wants the end.
        """
        ready, _, _ = select.select(
            [self._lines.descriptor, self._woken, *readable], [], [], SLURM_TICK_S
        )
        if self._woken in ready:
            raise Ended("by a signal")
        if self._lines.descriptor in ready:
            for _ in self._lines.come():
                pass
            if self._lines.ended:
                raise Ended("by the program")
        if os.getppid() != self._parent:  # also if a child of it holds our input open
            raise Ended("the program is gone")
        return list(ready)

    def close(self) -> None:
        """End the nodes, the job and the head, in this order; may be called twice."""
        steps = [host.step for host in self._hosts if host.step is not None]
        for step in steps:
            step.leave()
        deadline = time.monotonic() + SLURM_STEP_END_S
        open_steps = list(steps)
        while open_steps and time.monotonic() < deadline:
            ready, _, _ = select.select(open_steps, [], [], SLURM_TICK_S)
            for step in ready:
                step.read()
            open_steps = [step for step in open_steps if not step.lines.ended and not step.is_lost]
        if self._name:
            _cancel(self._name)
        for step in steps:
            step.close()
        self._hosts.clear()
        if self._record is not None:
            clusters.down(self._record)
            self._record = None


def _end_with_us() -> None:
    platform.die_with_parent(signal.SIGTERM)


def _cancel(name: str) -> None:
    """End our job; whatever happens, what is left of the cluster is ended, too."""
    try:
        slurm_queue.cancel(name)
    except MarsError as error:
        tell(SAY, f"the job could not be cancelled; `scancel --name {name}` does it: {error}")


def _how(job: Job | None) -> str:
    """How a job ended, as the end of a message."""
    if job is None:
        return ""
    return f": {job.state}" + (f" ({job.reason})" if job.reason not in ("None", "") else "")


def _begin_head(plan: Plan) -> Record:
    """Begin the cluster, on a port that is free."""
    _remove_stale()
    host = plan.host or _own_address(plan)
    for tries_left in reversed(range(_PORT_TRIES)):
        family = socket.getaddrinfo(host, None)[0][0]
        with socket.create_server((host, 0), family=family) as server:
            port = server.getsockname()[1]
        os.environ[WITH_PARENT] = "1"  # if we are killed, the head ends, and with it the nodes
        try:
            record = clusters.up(DASK.name, host, port, 0, 0, valid_days=CREDENTIALS_DAYS)
            private_files.replace(record.directory / _OURS, b"")
            return record
        except UsageError:
            if not tries_left:  # somebody took that port each time, or it is something else
                raise
        finally:
            del os.environ[WITH_PARENT]
    raise AssertionError("the last try returns or raises")


def _remove_stale() -> None:
    """Remove what keepers on this host have left that were killed: their heads are gone."""
    for record in records.everything():
        if (record.directory / _OURS).exists():
            here = clusters.local(record)
            if here.processes and not here.running:
                clusters.down(record)


def _own_address(plan: Plan) -> str:
    """Address of this host that the hosts of the job reach."""
    here = socket.gethostname().partition(".")[0]
    others = [share.host for share in plan.shares if share.host.partition(".")[0] != here]
    if not others:
        return "127.0.0.1"  # all runs here
    with contextlib.suppress(OSError):
        found = clusters.address_towards(others[0])
        if not found.startswith("127."):
            return found
    return clusters.own_address()


def tell(what: str, text: str) -> None:
    """Print what happens; the program may be gone."""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps([what, text]), flush=True)


def _plan(facts: dict[str, object]) -> Plan:
    asked = facts["request"]
    plan = Plan(
        None if asked is None else Request(**asked),  # type: ignore[arg-type]
        int(str(facts["min_nodes"])),
        None if facts["timeout_s"] is None else float(str(facts["timeout_s"])),
        str(facts["host"]),
    )
    if plan.request is None:
        plan.job, plan.shares = slurm_queue.allocation(os.environ)
    return plan


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that is readable when a signal wants the end."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # it is written down
    yield woken


def main() -> int:
    """Keep a cluster; the exit status."""
    parent = os.getppid()
    lines = Lines(sys.stdin.fileno())
    first = lines.first()
    if not first:
        return 1
    with _signals() as woken:
        keeper = Keeper(lines, woken, parent)
        try:
            keeper.run(_plan(json.loads(first)))
        except Ended:
            return 0
        except UsageError as error:
            tell(MISUSED, str(error))
        except (MarsError, OSError) as error:
            tell(REFUSED, str(error))
        finally:
            keeper.close()
    return 1


if __name__ == "__main__":
    sys.exit(main())
