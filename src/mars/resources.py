"""How many cores and how much memory this process may use, and which limit says so.

Asks the machine, the affinity mask, the control groups and the batch system, and takes the
smallest answer: a container with two cores on a machine with 192 has two. Reads files and
variables only, changes nothing, and imports only `os`, because every new process asks.
Called by the engines when they start and by ``mars doctor``, which shows every answer.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # known to type checkers; `typing` itself would cost 8 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

_UNLIMITED_BYTES = 1 << 60
"""Control groups of version 1 say "no limit" with a number just below 2**63."""

_MIB = 1024 * 1024

_CPU_VARIABLES = (
    # (variable, a second one that must be set too)
    ("SLURM_CPUS_PER_TASK", None),
    ("SLURM_CPUS_ON_NODE", None),
    ("NCPUS", "PBS_JOBID"),  # PBS sets both; NCPUS alone may be anybody's
)


class CpuCount:
    """How many cores to use, and why.

    Attributes
    ----------
    n : int
        Cores to use, at least 1.
    reason : str
        The limit that decided, by the name it has in ``considered``.
    considered : tuple of (str, float)
        Every limit that was found, in cores.
    """

    __slots__ = ("considered", "n", "reason")

    def __init__(self, n: int, reason: str, considered: tuple[tuple[str, float], ...]) -> None:
        self.n: Final = n
        self.reason: Final = reason
        self.considered: Final = considered

    def __repr__(self) -> str:
        return f"CpuCount(n={self.n}, reason={self.reason!r}, considered={self.considered!r})"


def cpu_count(
    *,
    root: str | os.PathLike[str] = "/",
    environ: Mapping[str, str] = os.environ,
    affinity: int | None = None,
    machine: int | None = None,
) -> CpuCount:
    """Count the cores that this process may use: the smallest of all limits.

    Parameters
    ----------
    root : path, default "/"
        Where ``proc`` and ``sys`` are found.
    environ : mapping, default `os.environ`
        Variables of the batch system, and ``MARS_CPUS``, which wins over every limit.
    affinity : int, optional
        Cores in the affinity mask. None: ask the system.
    machine : int, optional
        Cores of the machine. None: ask the system.

    Returns
    -------
    CpuCount
        A part of a core does not count, unless there is no whole one: tasks that together ask
        for more than the quota are paused by the kernel, all at once, and the driver with them.

    Raises
    ------
    ValueError
        ``MARS_CPUS`` is neither a whole number from 1 nor ``auto``.
    """
    found: list[tuple[str, float]] = [("machine", float(machine or os.cpu_count() or 1))]
    if affinity is None and hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    if affinity:
        found.append(("affinity", float(affinity)))
    base = os.fspath(root)
    for version, group, folder in _groups(base, "cpu"):
        quota = _quota_v2(folder) if version == 2 else _quota_v1(folder)
        if quota is not None:
            found.append((f"cgroup v{version} {group}", quota))
    for variable, needs in _CPU_VARIABLES:
        if needs is None or needs in environ:
            cores = _whole(environ.get(variable, ""))
            if cores:
                found.append((variable, float(cores)))
    considered = tuple(found)
    wanted = environ.get("MARS_CPUS", "").strip()
    if wanted and wanted.lower() != "auto":
        n = _whole(wanted)
        if not n:
            raise ValueError(f"MARS_CPUS has to be a whole number from 1, or auto, got {wanted!r}")
        return CpuCount(n, "MARS_CPUS", (*considered, ("MARS_CPUS", float(n))))
    reason, cores_found = min(considered, key=lambda limit: limit[1])
    return CpuCount(max(1, int(cores_found)), reason, considered)


def memory_limit_bytes(
    *, root: str | os.PathLike[str] = "/", environ: Mapping[str, str] = os.environ
) -> tuple[int, str]:
    """Return the memory that this process may use, in bytes, and the limit that says so.

    Parameters
    ----------
    root : path, default "/"
        Where ``proc`` and ``sys`` are found.
    environ : mapping, default `os.environ`
        Variables of the batch system.

    Returns
    -------
    tuple of (int, str)
        The smallest entry of `memory_limits`; ``(0, "unknown")`` where nothing tells.
    """
    limits = memory_limits(root=root, environ=environ)
    if not limits:
        return 0, "unknown"
    reason, size = min(limits, key=lambda limit: limit[1])
    return size, reason


def oom_kills(*, root: str | os.PathLike[str] = "/") -> int:
    """Count the processes that the kernel has ended because memory ran out.

    On the whole machine, and in this process's own control groups where these count by
    themselves. Only its growth says something.
    """
    base = os.fspath(root)
    files = [os.path.join(base, "proc/vmstat")]
    for version, _, folder in _groups(base, "memory"):
        files.append(f"{folder}/{'memory.events' if version == 2 else 'memory.oom_control'}")
    count = 0
    for file in files:
        for line in _read(file).splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                count += _whole(number) or 0
    return count


def memory_limits(
    *, root: str | os.PathLike[str] = "/", environ: Mapping[str, str] = os.environ
) -> tuple[tuple[str, int], ...]:
    """Return every limit on memory that was found, by name, in bytes."""
    base = os.fspath(root)
    found: list[tuple[str, int]] = []
    physical = _physical_bytes(base)
    if physical:
        found.append(("machine", physical))
    for version, group, folder in _groups(base, "memory"):
        file = "memory.max" if version == 2 else "memory.limit_in_bytes"
        size = _whole(_read(f"{folder}/{file}"))
        if size and size < _UNLIMITED_BYTES:
            found.append((f"cgroup v{version} {group}", size))
    per_node = _whole(environ.get("SLURM_MEM_PER_NODE", ""))  # Slurm counts in MiB
    if per_node:
        found.append(("SLURM_MEM_PER_NODE", per_node * _MIB))
    per_core = _whole(environ.get("SLURM_MEM_PER_CPU", ""))
    on_node = _whole(environ.get("SLURM_CPUS_ON_NODE", ""))
    if per_core and on_node:
        found.append(("SLURM_MEM_PER_CPU", per_core * on_node * _MIB))
    return tuple(found)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _whole(text: str) -> int:
    """Return a positive whole number, or 0 for anything else."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _quota_v2(folder: str) -> float | None:
    fields = _read(f"{folder}/cpu.max").split()
    period = _whole(fields[1]) if len(fields) > 1 else 100_000  # the kernel's default
    quota = _whole(fields[0]) if fields else 0
    return quota / period if quota and period else None


def _quota_v1(folder: str) -> float | None:
    quota = _whole(_read(f"{folder}/cpu.cfs_quota_us"))  # -1: no limit
    period = _whole(_read(f"{folder}/cpu.cfs_period_us"))
    return quota / period if quota and period else None


def _physical_bytes(base: str) -> int:
    for line in _read(os.path.join(base, "proc/meminfo")).splitlines():
        if line.startswith("MemTotal:"):
            return _whole(line.split()[1]) * 1024
    if base == "/":
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return 0
    return 0


def _groups(base: str, controller: str) -> Iterator[tuple[int, str, str]]:
    """Yield (version, group, folder) of this process's own control group and all its parents.

    A parent's limit binds its children, and the own group often has none: a Slurm step or a
    container within a pod is limited two levels up.
    """
    mounts = _mounts(base, controller)
    for line in _read(os.path.join(base, "proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            version = 2
        elif controller in controllers.split(","):
            version = 1
        else:
            continue
        for of_version, top, point in mounts:
            if of_version != version:
                continue
            steps = _below(group, top)
            for depth in range(len(steps), -1, -1):
                inner = "/".join(steps[:depth])
                folder = f"{base.rstrip('/')}{point}"
                yield version, f"/{inner}", f"{folder}/{inner}" if inner else folder


def _below(group: str, top: str) -> list[str]:
    """Return the way from a mounted group to the own group, none if it cannot be seen.

    In a container the mount shows only a part of the tree, which begins at ``top``.
    """
    if top != "/":
        if group != top and not group.startswith(f"{top}/"):
            return []
        group = group[len(top) :]
    steps = [step for step in group.split("/") if step]
    return [] if ".." in steps else steps


def _mounts(base: str, controller: str) -> list[tuple[int, str, str]]:
    """Return (version, top group shown, mount point) of each mount that has the controller."""
    found: list[tuple[int, str, str]] = []
    for line in _read(os.path.join(base, "proc/self/mountinfo")).splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if len(fields) < 5 or not kind:
            continue
        top, point = (field.replace("\\040", " ") for field in fields[3:5])
        if kind[0] == "cgroup2":
            found.append((2, top, point))
        elif kind[0] == "cgroup" and controller in kind[-1].split(","):
            found.append((1, top, point))
    if found:
        return found
    usual = "/sys/fs/cgroup"
    return [  # /proc hides the mounts in some sandboxes: try where they usually are
        (2, "/", usual),
        (2, "/", f"{usual}/unified"),
        (1, "/", f"{usual}/{controller}"),
        (1, "/", f"{usual}/cpu,cpuacct" if controller == "cpu" else f"{usual}/{controller}"),
    ]
