"""What differs between a cluster on Dask and one on Ray, in pods. Pure.

::

                          Dask                        Ray
    nodes connect to      Service NAME                Service NAME-nodes, which is no address of its
                                                      own: its name is that of the head's pod
    programs connect to   Service NAME                Service NAME
    a pod shows           the certificate of the      one for its own address, which `certify` makes
                          Secret NAME-node            with the authority of the Secret NAME-node
    in /dev/shm           values                      values, and Ray's object store

`manifests` makes objects of Kubernetes of it. The programs are those of `mars cluster`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from mars.deploy import dask_programs, ray_programs
from mars.deploy.credentials import Credentials
from mars.deploy.kubernetes.places import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    POD_IP,
    POD_NAME,
    RAY_CLIENT_PORT,
    RAY_HEAD_PORT,
    RAY_NODE_PORT,
    SCHEDULER_PORT,
    SCRATCH,
    WORKER_PORT,
)
from mars.deploy.kubernetes.wanted import Wanted
from mars.deploy.programs import Node, Place, Program
from mars.deploy.records import Record
from mars.engines.kinds import RAY, EngineKind

_FILES: Final = Credentials(CA_FILE, CERTIFICATE_FILE, KEY_FILE, "")
_ALL: Final = "0.0.0.0"  # noqa: S104 (in its pod, with TLS)


@dataclass(frozen=True, slots=True)
class Container:
    """What an engine runs in a pod, and what it needs there.

    Attributes
    ----------
    program : Program
        Of the engine.
    ports : mapping of str to int
        On which it listens, by name. The liveness probe knocks at the first one.
    shm_bytes : int
        Size of ``/dev/shm``. 0: it needs none.
    certifies : bool
        Whether the pod makes its own certificate. Else the Secret has it.
    names : sequence of str
        Names that it is for, beside the pod's address.
    awaits : str
        What has to answer before the program starts, as ``host:port``. "": nothing.
    """

    program: Program
    ports: Mapping[str, int]
    shm_bytes: int = 0
    certifies: bool = False
    names: Sequence[str] = field(default=())
    awaits: str = ""


def program_port(kind: EngineKind) -> int:
    """Where the head's pod listens for programs."""
    return RAY_CLIENT_PORT if kind is RAY else SCHEDULER_PORT


def nodes_service(wanted: Wanted) -> str:
    """The name under which nodes find the head; "": the one that programs use, too."""
    return f"{wanted.name}-nodes" if wanted.kind is RAY else ""


def head(wanted: Wanted) -> Container:
    """The pod to which nodes and programs connect."""
    if wanted.kind is not RAY:
        place = _place(wanted, _ALL, SCHEDULER_PORT, SCRATCH)
        return Container(dask_programs.head(place), {"tls-dask": SCHEDULER_PORT})
    place = _place(wanted, f"$({POD_IP})", RAY_HEAD_PORT, SCRATCH)
    service = f"{wanted.service}.{wanted.namespace}.svc"
    names = nodes_service(wanted), wanted.service, service, f"{service}.cluster.local"
    return Container(
        _tried(ray_programs.head(place), SCRATCH),
        {"tls-head": RAY_HEAD_PORT, "tls-ray": RAY_CLIENT_PORT},
        shm_bytes=2 * ray_programs.HEAD_STORE_BYTES,
        certifies=True,
        names=names,
    )


def node(wanted: Wanted) -> Container:
    """A pod that runs calls."""
    given = wanted.workers
    port = RAY_NODE_PORT if wanted.kind is RAY else WORKER_PORT
    own = Node(
        f"$({POD_NAME})", f"$({POD_IP})", given.cores, given.memory_bytes, port, gpus=given.gpus
    )
    scratch = wanted.spill_paths[0]
    if wanted.kind is not RAY:
        place = _place(wanted, wanted.service, wanted.service_port, scratch)
        return Container(
            dask_programs.node(place, own),
            {"tls-worker": WORKER_PORT, "tls-nanny": WORKER_PORT + 1},
            shm_bytes=wanted.shm_bytes,
        )
    where = nodes_service(wanted)
    return Container(
        _tried(ray_programs.node(_place(wanted, where, RAY_HEAD_PORT, scratch), own), scratch),
        {"tls-node": RAY_NODE_PORT, "tls-objects": RAY_NODE_PORT + 1},
        shm_bytes=wanted.shm_bytes + ray_programs.store_bytes(given.memory_bytes),
        certifies=True,
        awaits=f"{where}:{RAY_HEAD_PORT}",
    )


def _tried(program: Program, folder: str) -> Program:
    """The program, started again if it ends before it has begun."""
    module = "mars.deploy.kubernetes.beginning"
    python, *words = program.command
    tries = str(ray_programs.TRIES)
    return replace(program, command=[python, "-P", "-m", module, folder, tries, "python", *words])


def _place(wanted: Wanted, host: str, port: int, scratch: str) -> Place:
    client_port = RAY_CLIENT_PORT if wanted.kind is RAY else port
    record = Record(
        wanted.name, wanted.kind.name, host, port, client_port, 0, secure=True, origin="up"
    )
    return Place(record, _FILES, Path(scratch), elsewhere=True)
