"""Memory of a measurement, from /proc. Light: it is inside what it measures."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

KIB = 1024


def descendants(root: int) -> list[int]:
    """All processes below `root`, from one pass over /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue  # ended meanwhile
        parent = int(stat.rpartition(")")[2].split()[1])  # the name may hold spaces and brackets
        children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _field(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * KIB
    except OSError:
        pass
    return 0


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process: a page shared by n counts 1/n."""
    return _field(Path("/proc", str(pid), "smaps_rollup"), "Pss:")


def tree_pss_bytes() -> tuple[int, int]:
    """Bytes and number of processes of a measurement.

    Counted from its parent, the runner, which adopts the daemons that a peer detaches.
    """
    pids = descendants(os.getppid())
    return sum(pss_bytes(pid) for pid in pids), len(pids)


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return _field(Path("/proc/self/status"), "VmRSS:")


def processor_seconds(root: int) -> float:
    """Processor time so far of a process, and of all processes below it that are alive."""
    ticks = 0
    for pid in (root, *descendants(root)):
        with suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_resident_bytes() -> int:
    """Highest resident memory of this process since `forget_peak`."""
    return _field(Path("/proc/self/status"), "VmHWM:")


def forget_peak() -> None:
    """Start a new peak at today's resident memory."""
    Path("/proc/self/clear_refs").write_text("5")
