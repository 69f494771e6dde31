"""What Slurm says of a job, and what is asked of Slurm: its own commands, nothing else.

Runs ``salloc``, ``squeue``, ``sinfo``, ``scontrol`` and ``scancel`` of the user. Reads what they
print, and tells from a job's reason whether it can start by itself one day. Called by
`mars.deploy.slurm_keeper`.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from mars.errors import StartupFailed, UsageError
from mars.settings import SLURM_COMMAND_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MIB: Final = 1 << 20

_USER: Final = str(os.getuid())
"""Whose jobs are ours, by number: variables such as USER may name another one."""

_NEEDS_SOMEBODY: Final = (
    ("Held", "somebody holds it; `scontrol release` lets it go"),
    ("requeued held", "Slurm could not start it on its hosts, and holds it"),
    ("PartitionNodeLimit", "no job of this partition gets that many nodes; ask for fewer"),
    ("PartitionTimeLimit", "no job of this partition may take that long; ask for less time"),
    ("PartitionDown", "the partition starts no jobs now; name another with partition="),
    ("PartitionInactive", "the partition is closed; name another with partition="),
    ("PartitionConfig", "no hosts of the partition have that much; ask for less"),
    ("BadConstraints", "no host is like that; ask for less of cpus, memory or options"),
    ("Invalid", "the account or the quality of service is not there; see account= and qos="),
    ("NotAllowed", "this account or quality of service may not use the partition"),
    ("NeverSatisfied", "what it depends on has failed"),
    ("PerJob", "one job may not have that much; ask for less"),
    ("PerNode", "one job may not have that much of a host; ask for less"),
    ("QOSMin", "jobs of this quality of service are larger; ask for more"),
)
"""Parts of reasons for which a job does not start until somebody does something, and what that is.
Others, such as Resources, Priority, BeginTime or Licenses, pass by themselves."""

_QUOTA: Final = re.compile(r"^(Assoc|QOS|Max)\w*|Limit$")
"""Reasons of a quota. They pass if other jobs of the same owners end."""

_NO_HOST: Final = ("Nodes required for job are DOWN", "ReqNodeNotAvail")

_UP: Final = frozenset(
    {"idle", "mixed", "allocated", "completing", "planned", "reserved", "powered_down",
     "powering_up", "powering_down", "blocked"}
)  # fmt: skip
"""States of hosts that may run a job later, without anybody's help."""

_OVER: Final = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
     "PREEMPTED", "REVOKED", "TIMEOUT"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of Slurm for a cluster."""

    nodes: int
    cpus: int  # on each node
    memory_bytes: int  # on each node; 0: what the partition gives for its cores
    time: str  # as Slurm writes it; "": what the partition gives
    partition: str
    account: str
    qos: str
    options: Sequence[str]  # further ones of salloc

    def command(self, name: str) -> list[str]:
        """The command that asks for it, and returns when the job has its hosts."""
        found = [
            # A lost host costs what runs there, not the whole job; nothing runs but our steps.
            "salloc", "--no-shell", "--no-kill", f"--job-name={name}",
            f"--nodes={self.nodes}", "--ntasks-per-node=1", f"--cpus-per-task={self.cpus}",
        ]  # fmt: skip
        if self.memory_bytes:
            found.append(f"--mem={-(-self.memory_bytes // _MIB)}M")
        for option in ("time", "partition", "account", "qos"):
            value = getattr(self, option)
            if value:
                found.append(f"--{option}={value}")
        return [*found, *self.options]

    def facts(self) -> dict[str, object]:
        """The same, as JSON has it."""
        return {**asdict(self), "options": list(self.options)}


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as Slurm describes it."""

    id: str
    state: str  # PENDING, RUNNING, …
    reason: str  # why it waits
    left_s: float | None  # until its time limit; None: there is none, or it has not begun
    partition: str
    hosts: str  # of a job that runs, as Slurm writes them: "node[1-3]"

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in _OVER


def run(*command: str, folder: str | None = None) -> str:
    """Run a command of Slurm, in a folder if that matters; return what it prints.

    Raises
    ------
    UsageError
        There is no such command.
    StartupFailed
        It failed, or did not end in time; the message says what Slurm said.
    """
    try:
        ended = subprocess.run(
            command,
            env={**os.environ, "SLURM_TIME_FORMAT": "standard"},  # others are for people
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SLURM_COMMAND_S,
            check=False,
            cwd=folder,
        )
    except FileNotFoundError:
        raise UsageError(no_command(command[0])) from None
    except subprocess.TimeoutExpired:
        raise StartupFailed(
            f"Slurm does not answer `{command[0]}` within {SLURM_COMMAND_S:g} s; `scontrol ping` "
            f"says whether its controller is up"
        ) from None
    if ended.returncode:
        said = ended.stderr.strip() or f"`{command[0]}` ended with {ended.returncode}"
        raise StartupFailed(f"Slurm says: {said}")
    return ended.stdout


def no_command(name: str) -> str:
    """What to say where a command of Slurm is missing."""
    return f"there is no command {name} here; run this on a login node of a Slurm cluster"


def look(job: str) -> Job | None:
    """Return what Slurm says of a job; None if it does not know it any more.

    Raises
    ------
    StartupFailed
        Slurm does not answer.
    """
    try:
        # The reason stands last: it is the only one that can hold the separator.
        printed = run("squeue", "--noheader", "--states=all", "--jobs", job, "--format",
                      "%T|%e|%P|%N|%r")  # fmt: skip
    except StartupFailed as error:
        if "Invalid job id" in str(error):
            return None
        raise
    for line in printed.splitlines():
        state, end, partition, hosts, reason = line.strip().split("|", 4)
        return Job(job, state, reason, left_s(end, time.time()), partition, hosts)
    return None


def cancel(name: str) -> None:
    """End all jobs of this user that have a name, waiting or running."""
    run("scancel", "--quiet", "--user", _USER, "--name", name)


def shrink(job: str, left: Sequence[str]) -> None:
    """Give back the hosts of a job that runs, but for those that are ``left``.

    Raises
    ------
    StartupFailed
        Slurm does not answer, or does not shrink jobs.
    """
    # It writes scripts for a shell in the job into its folder, which nobody here wants.
    with tempfile.TemporaryDirectory(prefix="mars-slurm-") as folder:
        run("scontrol", "update", f"JobId={job}", f"NodeList={','.join(left)}", folder=folder)


def hosts(listed: str) -> list[str]:
    """Names of hosts, one by one, of a list as Slurm writes it: "node[1-3]"."""
    return run("scontrol", "show", "hostnames", listed).split() if listed else []


def memory_of_node(job: str) -> int:
    """Bytes that a job with equal nodes has on each of them; 0: nobody says."""
    return parse_memory(run("scontrol", "--oneliner", "show", "job", job))


def parse_memory(text: str) -> int:
    """The same, of what ``scontrol show job`` prints."""
    given = re.search(r"(?:^|\s)(?:Alloc)?TRES=(\S+)", text)
    facts = dict(part.partition("=")[::2] for part in (given[1] if given else "").split(","))
    size = re.fullmatch(r"([\d.]+)([KMGTP]?)", facts.get("mem", ""))
    if size is None:
        return 0
    unit = 1024 ** ("KMGTP".index(size[2]) + 1) if size[2] else _MIB
    return int(float(size[1]) * unit) // max(1, int(facts.get("node", "1")))


def why_never(job: Job) -> str:
    """Why a job that waits does not start by itself, or "" if it may.

    Asks Slurm where the reason alone does not tell.
    """
    for part, advice in _NEEDS_SOMEBODY:
        if part in job.reason:
            return advice
    if _QUOTA.search(job.reason) and not _others_run(job.id):
        return "that is more than your quota, and no other job of yours runs; ask for less"
    if job.reason.startswith(_NO_HOST) and not _may_serve(job.partition):
        return f"no host of partition {job.partition} is up; name another with partition="
    return ""


def _others_run(job: str) -> bool:
    """Whether another job of this user runs."""
    printed = run("squeue", "--noheader", "--user", _USER, "--states=running",
                  "--format", "%i")  # fmt: skip
    return bool(set(printed.split()) - {job})


def _may_serve(partition: str) -> bool:
    """Whether a host of a partition is up."""
    printed = run("sinfo", "--noheader", "--partition", partition, "--format", "%T")
    # A mark behind a state says more of a host: "idle*" does not answer, "idle~" sleeps.
    return any(
        state.rstrip("~#!%$@^-+") in _UP for state in printed.lower().split() if state[-1:] != "*"
    )


def left_s(end: str, now: float) -> float | None:
    """Seconds until a moment as Slurm writes it, in this host's time; None: it is none.

    Not the time that Slurm itself calls left: an end that was moved does not change it.
    """
    try:
        return datetime.datetime.fromisoformat(end).timestamp() - now
    except ValueError:  # N/A, Unknown
        return None


def cores_of_hosts(text: str) -> list[int]:
    """Cores of each host, of a list as Slurm writes it: "2(x3),4"."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        number, _, times = part.rstrip(")").partition("(x")
        found += [int(number)] * int(times or 1)
    return found


@dataclass(frozen=True, slots=True)
class Share:
    """What a job has on one of its hosts."""

    host: str
    cpus: int
    memory_bytes: int  # 0: nobody says


def allocation(environ: Mapping[str, str]) -> tuple[str, list[Share]]:
    """Return the job that this process runs in, and what it has on each of its hosts.

    Parameters
    ----------
    environ : mapping of str to str
        The variables that Slurm sets in an allocation.

    Raises
    ------
    UsageError
        There is no allocation.
    StartupFailed
        Slurm does not answer.
    """
    job = environ.get("SLURM_JOB_ID", "")
    listed = environ.get("SLURM_JOB_NODELIST", "")
    if not job or not listed:
        raise UsageError(
            "this is no allocation of Slurm: SLURM_JOB_ID is not set; put `mars run` into a script "
            "for sbatch, or type it in a shell of salloc"
        )
    names = hosts(listed)
    cores = cores_of_hosts(environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    if len(cores) != len(names):
        raise StartupFailed(
            f"Slurm's variables do not fit together: {len(names)} hosts in SLURM_JOB_NODELIST="
            f"{listed}, {len(cores)} in SLURM_JOB_CPUS_PER_NODE"
        )
    per_node, per_core = (
        int(text) if text.isascii() and text.isdigit() else 0
        for text in (environ.get("SLURM_MEM_PER_NODE", ""), environ.get("SLURM_MEM_PER_CPU", ""))
    )
    return job, [
        Share(host, cpus, (per_node or per_core * cpus) * _MIB)
        for host, cpus in zip(names, cores, strict=True)
    ]
