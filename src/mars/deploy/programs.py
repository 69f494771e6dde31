"""What an engine's processes are started with: the interface of `dask_programs`, `ray_programs`.

Facts only. Called by `mars.deploy.clusters`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mars.deploy.credentials import Credentials
    from mars.deploy.records import Record


@dataclass(frozen=True, slots=True)
class Program:
    """One process to start."""

    role: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)  # beyond the caller's own
    unset: Sequence[str] = ()  # variables of the caller that it does not get


@dataclass(frozen=True, slots=True)
class Place:
    """What a process of a cluster is given on this machine."""

    record: Record
    credentials: Credentials | None
    directory: Path  # of its own, for what it keeps


@dataclass(frozen=True, slots=True)
class Node:
    """A host, or a part of one, that runs calls."""

    name: str  # "": one is made up
    host: str  # where others reach it; "": the address from which it reaches the head
    n_cpu: int
    memory_bytes: int
    port: int = 0  # the first of those that it listens on; 0: the system chooses
