"""The process that owns a cluster on Slurm: it begins it, watches its job, and ends all of it.

``python -m mars.deploy.slurm_keeper`` reads one line of JSON, what is wanted, from its standard
input, and prints lines of JSON: what happens. A further line says how many hosts there shall be: it
asks Slurm for a further job, or lets go of hosts. When its input ends, because the program has
closed it or has been killed, or when a signal comes, it ends the nodes, the jobs and the head, and
then itself. Nothing else holds any of these, so nothing is left. Started by
`mars.deploy.slurm_start`.

::

    the program ──input──► keeper ──► the head, Dask's scheduler, on this host
                ◄──lines──        ──► salloc for each job, and squeue now and then
                                  ──► srun, one for each host ──► slurm_node there
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypedDict

from mars.deploy import clusters, private_files, records, slurm_queue
from mars.deploy.dask_scheduler import WITH_PARENT
from mars.deploy.records import Record
from mars.deploy.slurm_asking import Asking, how_ended
from mars.deploy.slurm_node import Lines
from mars.deploy.slurm_queue import Request, Share
from mars.deploy.slurm_steps import Step
from mars.engines.kinds import DASK
from mars.errors import MarsError, StartupFailed, UsageError
from mars.settings import (
    CREDENTIALS_DAYS,
    SLURM_LONG_LOOK_S,
    SLURM_QUEUE_LOOK_S,
    SLURM_STEP_AGAIN_S,
    SLURM_STEP_END_S,
    SLURM_STEP_TRIES,
    SLURM_TICK_S,
    SLURM_WARNING_S,
)

SAY: Final = "say"  # a line for people
READY: Final = "ready"  # the address of the cluster
JOB: Final = "job"  # the number of a job
LEFT: Final = "left"  # the number of a job that is not there any more
RESCALED: Final = "rescaled"  # how that ended: which of the next two, or READY; why; its number
REFUSED: Final = "refused"  # why there is no cluster
MISUSED: Final = "misused"  # the same, and the caller can do something

_PORT_TRIES: Final = 3

_OURS: Final = "slurm"
"""File in the folder of a record that a keeper made."""


class Ended(Exception):
    """The program, or a signal, wants the end."""


@dataclass(slots=True, eq=False)
class Host:
    """A host of a job, and what runs there."""

    job: str
    share: Share
    step: Step | None
    tries: int = 0  # since a node was there
    again_at: float = 0.0
    was_there: bool = False
    given_up: bool = False
    is_new: bool = True  # it has not joined yet: if it cannot, it is not tried again
    why: str = ""  # it could not join
    leaves_by: float | None = None  # it is let go of, and is ended then


@dataclass(slots=True)
class Running:
    """A job that runs."""

    ends_at: float | None = None  # by our clock
    told: bool = False  # its calls know that it is nearly over


class Asked(TypedDict):
    """A change of the number of hosts, as the program asks for it."""

    nodes: int
    timeout_s: float | None
    number: int


@dataclass(slots=True)
class Rescale:
    """A change of the number of hosts that is under way: one that joins, or some that leave."""

    nodes: int
    number: int  # by which the program knows the answer
    asking: Asking | None = None
    growing: list[Host] = field(default_factory=list)
    leaving: list[Host] = field(default_factory=list)


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
        self._name = f"mars-{secrets.token_hex(6)}"
        self._is_ours = False  # whether there may be jobs of that name
        self._bundle = b""
        self._hosts: list[Host] = []
        self._jobs: dict[str, Running] = {}
        self._ready = False
        self._asked: deque[Asked] = deque()  # changes that the program wants
        self._rescale: Rescale | None = None

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
            plan.job, plan.shares = self._allocate(plan.request, plan.timeout_s)
            tell(SAY, f"Slurm job {plan.job} has begun")
        self._record = record = _begin_head(plan)  # nothing listens while a job waits for days
        self._bundle = clusters.export(record)
        self._add(plan, plan.job, plan.shares)
        self._watch(plan)

    def _allocate(self, request: Request, timeout_s: float | None) -> tuple[str, list[Share]]:
        """Wait until the job has its hosts; return its number, and what it has there."""
        asking = self._ask(request, timeout_s)
        try:
            while True:
                if asking in self._wait([asking]):
                    asking.read()
                shares = asking.hosts(time.monotonic())
                if shares is not None:
                    return asking.job, shares
        finally:
            asking.close()

    def _ask(self, request: Request, timeout_s: float | None) -> Asking:
        self._is_ours = True
        return Asking(
            request, self._name, lambda line: tell(SAY, line), timeout_s, time.monotonic()
        )

    def _add(self, plan: Plan, job: str, shares: Sequence[Share]) -> list[Host]:
        """Start a node on each host of a job."""
        tell(JOB, job)
        self._jobs[job] = Running()
        added = [Host(job, share, self._step(plan, job, share)) for share in shares]
        self._hosts += added
        return added

    def _step(self, plan: Plan, job: str, share: Share) -> Step:
        return Step(job, share, self._bundle, own_job=plan.request is not None)

    # -- the job ------------------------------------------------------------------------------

    def _watch(self, plan: Plan) -> None:
        """Stay until no job, or no host, is left."""
        look_at = time.monotonic() + SLURM_QUEUE_LOOK_S
        while True:
            ready = self._wait(self._readable())
            now = time.monotonic()
            for host in list(self._hosts):
                if host.step is not None and host.step in ready:
                    for line in host.step.read():
                        tell(SAY, f"{host.share.host}: {line}")
                self._attend(host, now)
                if host.step is None and not host.given_up and now >= host.again_at:
                    host.step = self._step(plan, host.job, host.share)
            asking = None if self._rescale is None else self._rescale.asking
            if asking is not None and asking in ready:
                asking.read()
            self._settle(plan)
            self._change(plan, now)
            if now >= look_at:
                look_at = now + SLURM_LONG_LOOK_S
                for job in list(self._jobs):
                    self._look(job, now)
            for job, running in self._jobs.items():
                ends_at = running.ends_at
                if ends_at is not None and now >= ends_at - SLURM_WARNING_S and not running.told:
                    running.told = True
                    self._tell_calls(job, ends_at - now)

    def _readable(self) -> list[Step | Asking]:
        found: list[Step | Asking] = [one.step for one in self._hosts if one.step is not None]
        if self._rescale is not None and self._rescale.asking is not None:
            found.append(self._rescale.asking)
        return found

    def _attend(self, host: Host, now: float) -> None:
        """See to a host whose node has joined or ended."""
        step = host.step
        if step is None:
            return
        if step.name and not host.was_there:
            host.was_there, host.tries, host.is_new = True, 0, False
            if self._ready:
                tell(SAY, f"{host.share.host} has joined")
        if host.leaves_by is not None and now >= host.leaves_by:
            step.kill()
        if not step.lines.ended:
            return  # also if it has ended: what it said last is read first
        why, lost = step.why, step.is_lost
        step.close()
        host.step = None
        host.was_there = False
        host.tries += 1
        is_new, host.is_new = host.is_new, False
        if lost or host.tries >= SLURM_STEP_TRIES or is_new or host.leaves_by is not None:
            host.given_up = True
        host.again_at = now + SLURM_STEP_AGAIN_S
        if host.leaves_by is not None:
            return
        host.why = (why if not lost else "Slurm cannot reach it") if is_new else ""
        if lost:
            tell(SAY, f"{host.share.host} is lost: Slurm cannot reach it")
        elif not is_new:
            # What else it said has been shown.
            tell(SAY, f"{host.share.host} has left" + (f": {step.failure}" if step.failure else ""))

    def _settle(self, plan: Plan) -> None:
        """Tell the program when enough hosts have joined, or when they cannot."""
        there = sum(host.was_there for host in self._hosts)
        possible = sum(not host.given_up for host in self._hosts)
        if not self._ready:
            wanted = min(plan.min_nodes, len(self._hosts)) or len(self._hosts)
            if there >= wanted:
                self._ready = True
                for host in self._hosts:
                    host.is_new = False  # those that come later are tried again
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
                    f"join the cluster. {_refusals(self._hosts)}"
                )
        elif not possible and self._rescale is None:
            raise StartupFailed(f"no host of Slurm job {', '.join(self._jobs)} is left")

    def _look(self, job: str, now: float) -> None:
        """Ask Slurm for a job: whether it is over, and when it ends."""
        running = self._jobs[job]
        try:
            found = slurm_queue.look(job)
        except MarsError as error:  # its controller may be away for a while, and jobs run on
            tell(SAY, str(error))
            return
        if found is None or found.is_over:
            over = f"Slurm job {job} has ended{how_ended(found)}"
            if len(self._jobs) == 1:
                raise StartupFailed(over)
            tell(SAY, f"{over}; the others go on")
            self._forget(job)
            return
        ends_at = running.ends_at = None if found.left_s is None else now + found.left_s
        if ends_at is None or ends_at - now > SLURM_WARNING_S:
            running.told = False  # somebody gave it more time

    def _forget(self, job: str) -> None:
        """A job is not there any more, nor are its hosts."""
        del self._jobs[job]
        tell(LEFT, job)
        for host in [one for one in self._hosts if one.job == job]:
            if host.step is not None:
                host.step.close()
            host.step, host.given_up = None, True
            self._hosts.remove(host)

    def _tell_calls(self, job: str, left_s: float) -> None:
        tell(
            SAY,
            f"Slurm ends job {job} in {max(0.0, left_s):.0f} s, at its time limit; calls that "
            f"handle SIGTERM get it now. A checkpoint keeps what is finished",
        )
        for host in self._hosts:
            if host.step is not None and host.job == job:
                host.step.tell()

    # -- more hosts, or fewer -----------------------------------------------------------------

    def _change(self, plan: Plan, now: float) -> None:
        """Begin with what the program wants changed, or go on with it; tell it how that ended."""
        try:
            if self._rescale is None and self._ready and self._asked:
                self._begin_rescale(plan, self._asked.popleft(), now)
            if self._rescale is not None and self._go_on(plan, self._rescale, now):
                self._end_rescale(READY, "")
        except UsageError as error:
            self._end_rescale(MISUSED, str(error))
        except (MarsError, OSError) as error:
            self._end_rescale(REFUSED, str(error))

    def _begin_rescale(self, plan: Plan, asked: Asked, now: float) -> None:
        nodes = asked["nodes"]
        self._rescale = Rescale(nodes, asked["number"])
        there = [host for host in self._hosts if not host.given_up]
        if plan.request is None:
            raise UsageError("the job is not ours; what it has is what was asked for")
        if nodes > len(there):
            request = replace(plan.request, nodes=nodes - len(there))
            self._rescale.asking = self._ask(request, asked["timeout_s"])
        # Those of jobs that came last go first: whole jobs end, and the first one stays.
        for host in there[nodes:]:
            host.leaves_by = now + SLURM_STEP_END_S
            if host.step is not None:
                host.step.leave()
            else:
                host.given_up = True
            self._rescale.leaving.append(host)

    def _go_on(self, plan: Plan, change: Rescale, now: float) -> bool:
        """Whether it is done."""
        if change.asking is not None:
            shares = change.asking.hosts(now)
            if shares is None:
                return False
            asking, change.asking = change.asking, None
            asking.close()
            tell(SAY, f"Slurm job {asking.job} has begun")
            change.growing = self._add(plan, asking.job, shares)
            self._check_reachable(asking.job, shares)
        if any(not host.was_there and not host.given_up for host in change.growing):
            return False
        failed = sum(host.given_up for host in change.growing)
        if failed:
            raise StartupFailed(
                f"of the hosts of Slurm job {change.growing[0].job}, {failed} did not join "
                f"the cluster. {_refusals(change.growing)}"
            )
        if any(host.step is not None for host in change.leaving):
            return False
        self._release(change.leaving)
        return True

    def _check_reachable(self, job: str, shares: Sequence[Share]) -> None:
        """See whether hosts of a further job can reach the head at all."""
        assert self._record is not None
        here = socket.gethostname().partition(".")[0]
        far = [share.host for share in shares if share.host.partition(".")[0] != here]
        if far and self._record.host == "127.0.0.1":
            slurm_queue.run("scancel", "--quiet", job)
            self._forget(job)
            raise UsageError(
                f"the cluster began on this host alone, and {far[0]} cannot reach it; start it "
                f"with new_cluster(host=...), the address of this host that others reach"
            )

    def _release(self, leaving: Sequence[Host]) -> None:
        """Give hosts back to Slurm, on which nothing of ours runs any more."""
        jobs = {host.job for host in leaving} & self._jobs.keys()
        self._hosts = [one for one in self._hosts if not (one.given_up and one.job in jobs)]
        for job in sorted(jobs):
            left = [host.share.host for host in self._hosts if host.job == job]
            try:
                if left:
                    slurm_queue.shrink(job, left)
                else:
                    slurm_queue.run("scancel", "--quiet", job)
                    self._forget(job)
            except StartupFailed as error:
                raise StartupFailed(
                    f"the hosts have left the cluster, but job {job} still has them until it ends: "
                    f"{error} (Slurm without accounting shrinks a job once)"
                ) from None

    def _end_rescale(self, how: str, why: str) -> None:
        change, self._rescale = self._rescale, None
        if change is not None and change.asking is not None:
            change.asking.close()
        tell(RESCALED, json.dumps([how, why, 0 if change is None else change.number]))

    def _hear(self, line: str) -> None:
        """Take a line of the program: a change that it wants, or one that it wants no more."""
        told = json.loads(line)
        withdrawn = told.get("withdrawn")
        if withdrawn is None:
            self._asked.append(told)
            return
        self._asked = deque(one for one in self._asked if one["number"] != withdrawn)
        change = self._rescale
        if change is not None and change.number == withdrawn and change.asking is not None:
            # A job that has begun goes on: its hosts join, and the program can give them back.
            tell(
                SAY, f"Slurm job {change.asking.job or 'of the change'} is not waited for any more"
            )
            self._end_rescale(REFUSED, "it was interrupted")

    # -- waiting and ending -------------------------------------------------------------------

    def _wait(self, readable: Sequence[Step | Asking]) -> list[object]:
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
            for line in self._lines.come():
                self._hear(line)
            if self._lines.ended:
                raise Ended("by the program")
        if os.getppid() != self._parent:  # also if a child of it holds our input open
            raise Ended("the program is gone")
        return list(ready)

    def close(self) -> None:
        """End the nodes, the job and the head, in this order; may be called twice."""
        if self._rescale is not None and self._rescale.asking is not None:
            self._rescale.asking.close()
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
        if self._is_ours:
            self._is_ours = False
            _cancel(self._name)
        for step in steps:
            step.close()
        self._hosts.clear()
        if self._record is not None:
            clusters.down(self._record)
            self._record = None


def _cancel(name: str) -> None:
    """End our job; whatever happens, what is left of the cluster is ended, too."""
    try:
        slurm_queue.cancel(name)
    except MarsError as error:
        tell(SAY, f"the job could not be cancelled; `scancel --name {name}` does it: {error}")


def _refusals(hosts: Sequence[Host]) -> str:
    """Why hosts could not join."""
    return "; ".join(f"{host.share.host}: {host.why}" for host in hosts if host.why)


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
