"""The processes of a cluster on Dask, and what its scheduler says of them.

With credentials every connection is TLS, and both sides prove themselves before anything is
unpickled; Dask knows no token. Web pages of the processes are off, and what Dask cannot switch off
listens on loopback. Called by `mars.deploy.clusters` and `mars.deploy.census`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from mars.deploy.programs import Node, Place, Program
from mars.deploy.records import joined
from mars.engines.kinds import DASK
from mars.settings import DASK_IDLE, HEAD_LOST_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mars.deploy.credentials import Credentials
    from mars.deploy.records import Record

# With -P no file in the current directory takes the place of a module.
_PYTHON: Final = (sys.executable, "-P", "-m")
UNSET: Final[Sequence[str]] = ()
"""Variables of the user that would lead a program to another cluster: there are none."""

TRIES: Final = 1
"""How often a head or a node is started that ends before it has begun."""

_NO_PAGES: Final = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")


def head(place: Place) -> Program:
    """Return the scheduler."""
    record = place.record
    return Program(
        "scheduler",
        [
            *_PYTHON, "mars.deploy.dask_scheduler",
            "--host", f"{_protocol(place)}://{joined(record.host, record.port)}",
            "--no-jupyter", *_NO_PAGES, *_files(place),
        ],
        _environment(place),
    )  # fmt: skip


def has_begun(_: Place) -> bool:
    """Whether a scheduler or worker that answers has started completely: both answer at the end."""
    return True


def node(place: Place, node: Node) -> Program:
    """Return a worker, with a nanny that starts another when it dies."""
    record = place.record
    ports = []
    if node.port:
        ports = ["--worker-port", str(node.port), "--nanny-port", str(node.port + 1)]
    return Program(
        "worker",
        [
            *_PYTHON, "distributed.cli.dask_worker", record.address,
            "--host", f"{_protocol(place)}://{joined(node.host, 0).removesuffix(':0')}",
            "--name", node.name, "--nworkers", "1", "--nthreads", str(node.n_cpu),
            "--memory-limit", str(node.memory_bytes), "--local-directory", str(place.directory),
            "--death-timeout", f"{HEAD_LOST_S:g}", *ports, *_NO_PAGES, *_files(place),
        ],
        _environment(place),
    )  # fmt: skip


def nodes(record: Record, credentials: Credentials | None, limit_s: float) -> list[Node]:
    """Ask the scheduler for its workers."""
    distributed = import_module("distributed")
    security = None
    if credentials is not None:
        security = distributed.Security(
            tls_ca_file=credentials.ca_path,
            tls_client_cert=credentials.cert_path,
            tls_client_key=credentials.key_path,
            require_encryption=True,
        )
    with distributed.Client(
        record.address, security=security, timeout=limit_s, set_as_default=False
    ) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
    return [
        Node(str(facts["name"]), facts["host"], facts["nthreads"], facts["memory_limit"])
        for facts in workers.values()
    ]


def asking(_: Record) -> dict[str, str]:
    """Variables for a process that asks the scheduler: it needs none."""
    return {}


def check(host: str, port: int, credentials: Credentials) -> None:
    """See whether the scheduler takes the credentials: TLS has shown that, as there is no token."""


def _protocol(place: Place) -> str:
    return DASK.open_scheme if place.credentials is None else DASK.secure_scheme


def _files(place: Place) -> list[str]:
    files = place.credentials
    if files is None:
        return []
    return [
        "--tls-ca-file", files.ca_path, "--tls-cert", files.cert_path, "--tls-key", files.key_path,
    ]  # fmt: skip


def _environment(place: Place) -> dict[str, str]:
    """Settings that count more than the user's own files for Dask."""
    prefix = "DASK_DISTRIBUTED__"
    idle = {
        f"DASK_{name.replace('.', '__').replace('-', '_').upper()}": str(value)
        for name, value in DASK_IDLE.items()
    }
    return {
        **idle,
        f"{prefix}COMM__REQUIRE_ENCRYPTION": str(place.credentials is not None),
        f"{prefix}COMM__TLS__MIN_VERSION": "1.2",
        f"{prefix}SCHEDULER__HTTP__ROUTES": "[]",
        f"{prefix}WORKER__HTTP__ROUTES": "[]",
        # A call that kills its worker is not run on the next one: mars counts attempts itself.
        f"{prefix}SCHEDULER__ALLOWED_FAILURES": "0",
    }
