"""What the machine is, and how busy others keep it. Called by the runner, outside measurements."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
IDLE_FIELDS: Final = (3, 4)
"""Of /proc/stat's `cpu` line: idle and iowait. All the rest is somebody's work."""


def busy_seconds() -> float:
    """CPU seconds that anybody has used on this machine since it started."""
    with Path("/proc/stat").open() as file:
        # The last two fields, guest and guest_nice, are contained in the first two.
        fields = [int(field) for field in file.readline().split()[1:9]]
    return sum(v for i, v in enumerate(fields) if i not in IDLE_FIELDS) / TICKS_PER_S


def busy_cores(window_s: float = 0.15) -> float:
    """How many cores are busy right now."""
    begin, busy = time.perf_counter(), busy_seconds()
    time.sleep(window_s)
    return (busy_seconds() - busy) / (time.perf_counter() - begin)


def settle(limit_s: float, below_cores: float = 0.25) -> float:
    """Wait until the machine is quiet, at most `limit_s`; the load that was left, in cores."""
    end = time.monotonic() + limit_s
    while (busy := busy_cores()) > below_cores and time.monotonic() < end:
        pass
    return busy


def version(package: str | None) -> str:
    """Installed version of a distribution; Python's own for its own parts."""
    if package is None:
        return f"Python {platform.python_version()}"
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def commit(folder: Path) -> str:
    """Which sources these are, as git names them."""
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


def _first(path: str, key: str) -> str:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def describe() -> dict[str, object]:
    """The facts that a reader needs to place the numbers."""
    return {
        "processor": _first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _first("/proc/meminfo", "MemTotal"),
        # Without what a distributor or a host adds to the version.
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
    }
