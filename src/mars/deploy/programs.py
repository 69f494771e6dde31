"""What the processes of a cluster are started with, and what a module for an engine provides.

`Programs` is that interface; `mars.deploy.dask_programs` and `mars.deploy.ray_programs` fulfil it.
Nothing here starts a process; `mars.deploy.clusters` does that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

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
    environment: Mapping[str, str] = field(default_factory=dict)  # beside those of the caller
    unset: Sequence[str] = ()  # variables of the caller that the process does not get


@dataclass(frozen=True, slots=True)
class Place:
    """What a process of a cluster gets on this machine."""

    record: Record
    credentials: Credentials | None
    directory: Path  # the process keeps its files there, and nobody else does
    elsewhere: bool = False  # in a pod: nothing that is so on this machine says anything about it


@dataclass(frozen=True, slots=True)
class Node:
    """A host, or a part of one, that runs calls."""

    name: str  # "": one is made up
    host: str  # where others reach it; "": the address from which it reaches the head
    n_cpu: int
    memory_bytes: int
    port: int = 0  # the first port that it listens on; 0: the system chooses
    gpus: int | None = None  # that it offers; None: those that are found where it starts


class Programs(Protocol):
    """What a module provides for the clusters of one engine."""

    UNSET: Sequence[str]
    """Variables of the user that would lead a program to another cluster, or keep it out."""

    TRIES: int
    """How often a head or a node is started that ends before it has begun."""

    def head(self, place: Place) -> Program:
        """The process that a cluster begins with."""

    def has_begun(self, place: Place) -> bool:
        """Whether a head or node that answers has started completely, and so is there to stay."""

    def node(self, place: Place, node: Node) -> Program:
        """A process that runs calls."""

    def nodes(self, record: Record, credentials: Credentials | None, limit_s: float) -> list[Node]:
        """Ask the head for its nodes; the variables of `asking` have to be set."""

    def asking(self, record: Record) -> dict[str, str]:
        """Variables for a process that asks the head of a cluster."""

    def check(self, host: str, port: int, credentials: Credentials) -> None:
        """See whether the head takes the credentials, as far as TLS does not show that.

        Raises
        ------
        CredentialsError
            It does not.
        ClusterUnreachable
            It does not answer.
        """
