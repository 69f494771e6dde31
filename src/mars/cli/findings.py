"""What ``mars doctor`` reports, of this machine and of nodes: facts with names, in sections.

One of these functions is called on each node of a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import metadata
from typing import Final

PACKAGES: Final = (
    "cloudpickle",
    "psutil",
    "threadpoolctl",
    "rich",
    "numpy",
    "pandas",
    "scikit-learn",
    "xgboost",
    "xgboost-cpu",
    "ray",
    "distributed",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact of the report."""

    name: str
    text: str  # for people
    value: object = None  # for programs: anything JSON can hold
    hint: str = ""  # what the reader can do about it
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Section:
    """Facts that belong together."""

    name: str
    findings: list[Finding] = field(default_factory=list)


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that matter, None for those that are not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    if found["xgboost-cpu"]:  # the same module, from another distribution
        found["xgboost"] = found["xgboost"] or f"{found['xgboost-cpu']} (xgboost-cpu)"
    del found["xgboost-cpu"]
    return found


def said(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def size_text(size_bytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
