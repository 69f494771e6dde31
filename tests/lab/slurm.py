"""A real Slurm on the hosts of a lab: ``control``, ``login``, and two or more that run jobs.

Each host has its own munged; ``control`` runs slurmctld, ``one`` and ``two`` run slurmd. They
have two cores and 4 GiB each, as declared, in the partition ``debug``. The one host of the
partition ``down`` does not exist. All hosts see the files of the machine; each has its own home,
temporary files, shared memory and ``/run``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.lab.hosts import NETWORK, Host, Lab, why_not

NODES = ("one", "two")
COMMANDS = ("munged", "slurmctld", "slurmd", "salloc", "sbatch", "srun", "squeue", "scancel")

# Cgroups belong to the whole machine, and two nodes on it would meddle with each other's. So
# nothing is fenced, processes are found by their parents, and a job over its memory is ended by
# what it was seen to use. Timers are short, so that tests need not wait for minutes.
_CONF = f"""
ClusterName=lab
SlurmctldHost=control({NETWORK}.1)
SlurmUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
StateSaveLocation=/run/slurm/state
SlurmdSpoolDir=/run/slurm/spool
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd.pid
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1024
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
OverTimeLimit=0
KillWait=5
SlurmdTimeout=10
TCPTimeout=2
MessageTimeout=5
CompleteWait=0
KeepAliveTime=5
ReturnToService=2
NodeName=@NODES@ CPUs=2 RealMemory=4096 State=UNKNOWN
NodeName=nowhere NodeAddr={NETWORK}.99 CPUs=2 RealMemory=4096 State=DOWN Reason="no such host"
PartitionName=debug Nodes=@NODES@ Default=YES DefaultTime=10 MaxTime=60 State=UP
PartitionName=down Nodes=nowhere DefaultTime=10 MaxTime=60 State=UP
"""

_SET_UP = """
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/munge /run/slurm/state /run/slurm/spool
install -m 400 "$1/key" /run/munge/key
mount --bind "$1/etc" /etc/slurm
echo 5 >/proc/sys/net/ipv4/tcp_keepalive_time
echo 2 >/proc/sys/net/ipv4/tcp_keepalive_intvl
echo 3 >/proc/sys/net/ipv4/tcp_keepalive_probes
"""


def why_no_slurm() -> str:
    """Why there can be no Slurm here, or nothing."""
    reason = why_not()
    if reason:
        return reason
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing or not os.path.isdir("/etc/slurm"):
        return f"there is no Slurm here ({', '.join(missing)}); tests/lab/install_slurm.sh"
    return ""


class SlurmLab:
    """Slurm on hosts of a lab.

    Parameters
    ----------
    folder : Path
        What all hosts share; jobs begin there.
    nodes : sequence of str
        Names of the hosts that run jobs.
    """

    def __init__(self, folder: Path, nodes: Sequence[str] = NODES) -> None:
        self.folder = folder
        self._nodes = nodes
        (folder / "etc").mkdir()
        (folder / "etc" / "slurm.conf").write_text(_CONF.replace("@NODES@", ",".join(nodes)))
        (folder / "etc" / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        self._services: list[subprocess.Popen[str]] = []
        self.lab = Lab(("control", "login", *nodes))
        try:
            for name in self.lab.hosts:
                self._set_up(name)
            self._serve("control", "slurmctld", "-D")
            for name in nodes:
                self._serve(name, "slurmd", "-D")
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return self.lab[name]

    def run(self, *words: str, limit_s: float = 50.0, check: bool = True) -> str:
        """What a command on ``login`` prints, in the folder that all hosts share."""
        ended = self["login"].run(*self._there(words), limit_s=limit_s, check=check)
        return ended.stdout + (ended.stderr if not check else "")

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command on ``login``, in that folder."""
        return self["login"].start(*self._there(words))

    def is_ready(self) -> bool:
        """Whether all hosts wait for jobs."""
        said = self.run("sinfo", "-h", "-p", "debug", "-t", "idle", "-o", "%D", check=False)
        return said.strip() == str(len(self._nodes))

    def jobs(self) -> list[str]:
        """Numbers and states of jobs that wait or run."""
        return self.run("squeue", "-h", "-o", "%i %T").splitlines()

    def left(self) -> list[str]:
        """Processes of mars or Dask on any host, and files of mars that are theirs alone."""
        found = []
        for name, host in self.lab.hosts.items():
            found += [
                f"{name}: {line}"
                for line in host.processes()
                if "mars" in line or "distributed" in line or "srun" in line
            ]
            found += [f"{name}: {path}" for path in host.files() if "/hosts" not in path]
        return found

    def switch_off(self, name: str) -> None:
        """End a host at once, as when its power fails."""
        self.lab[name].close()

    def close(self) -> None:
        """End all."""
        self.lab.close()
        while self._services:
            service = self._services.pop()
            service.wait(10)
            for stream in (service.stdin, service.stdout):
                if stream is not None:
                    stream.close()

    def __enter__(self) -> SlurmLab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _there(self, words: Sequence[str]) -> list[str]:
        return ["env", f"--chdir={self.folder}", "USER=root", "LOGNAME=root", *words]

    def _set_up(self, name: str) -> None:
        self[name].run("sh", "-c", _SET_UP, "sh", str(self.folder))
        self._serve(
            name,
            "munged",
            "--foreground",
            "--key-file=/run/munge/key",
            "--seed-file=/run/munge/seed",
        )
        self[name].run("sh", "-c", "until [ -S /run/munge/munge.socket.2 ]; do sleep 0.01; done")

    def _serve(self, name: str, *command: str) -> None:
        log = self.folder / f"{name}-{command[0]}.log"
        words = ["sh", "-c", 'log=$1; shift; cd /mnt; exec "$@" >"$log" 2>&1', "sh", str(log)]
        self._services.append(self[name].start(*words, *command))
