"""The processes of a cluster on Ray, and what its head says of its nodes.

TLS and token together, always: but for a cluster on loopback, Ray's processes listen on every
address of the machine, whichever they are told. No dashboard, no usage statistics, explicit
ports. Called by `mars.deploy.clusters` and `mars.deploy.census`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars.deploy.credentials import TOKEN, load
from mars.deploy.programs import Node, Place, Program
from mars.deploy.records import is_loopback, joined
from mars.errors import ClusterUnreachable, CredentialsError, UsageError
from mars.gpus import find
from mars.settings import (
    KNOCK_S,
    LINE_LOST_S,
    MIB,
    RAY_HEALTH_CHECKS,
    RAY_PROGRAM_START_S,
    RAY_STORE_SHARE,
    RAY_WORKER_PORTS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mars.deploy.credentials import Credentials
    from mars.deploy.records import Record

_RAY: Final = ("-m", "mars.deploy.ray_start")

_LISTENERS: Final = (
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "dashboard-port",
    "ray-client-server-port",
)
"""Of each node, on its first ports, also those that are off or of the head only: Ray checks its
plan for overlaps, with its own numbers for what is not given. Its worker processes have the
`RAY_WORKER_PORTS` that follow."""


_LAST_PORT: Final = 65_535


_ANY_QUESTION: Final = "/ray.rpc.RayletDriver/ClusterInfo"

LOOPBACK: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray, told that it is for one machine: it takes 127.0.0.1 for its address and listens there only.
Otherwise it replaces 127.0.0.1 by the address of the way out."""


_PATIENCE: Final = {
    "RAY_health_check_failure_threshold": str(RAY_HEALTH_CHECKS),
    "RAY_health_check_period_ms": str(1000 * LINE_LOST_S // RAY_HEALTH_CHECKS // 2),
    "RAY_health_check_timeout_ms": str(1000 * LINE_LOST_S // RAY_HEALTH_CHECKS // 2),
}
"""A node that our driver does not reach itself is lost as soon as others: Ray by itself takes twice
as long."""

NO_METRICS: Final = {"AUTOSCALER_METRIC_PORT": "-1"}
"""Where prometheus-client is installed, Ray's head serves numbers of the cluster to everybody, on
port 44217, without TLS and token. A port that cannot be keeps Ray from it: it logs that, and goes
on."""

UNSET: Final[Sequence[str]] = ("RAY_ADDRESS", "RAY_AUTH_TOKEN")
"""Variables of the user that would lead what we start to another cluster, or keep it out."""

TRIES: Final = 3
"""How often a head or a node is started that ends before it has begun. Ray's raylet waits only 15
seconds for its agent to start, and ``ray start`` waits 30 for the raylet. A busy machine may need
more."""

BELOW: Final = "r"
"""Name of Ray's folder in one that only we can enter: Ray lets everybody into its own, to write."""

HEAD_STORE_BYTES: Final = 128 * MIB
"""What Ray's object store gets on the head, which runs no calls, in bytes."""

_LABEL: Final = "mars-node"
_MEMORY: Final = ("memory", "object_store_memory")


def head(place: Place) -> Program:
    """Return the head: it runs no calls."""
    record = place.record
    options: dict[str, int | str] = {
        "port": record.port,
        "ray-client-server-port": record.client_port,
        "num-cpus": 0,
        "num-gpus": 0,
        "object-store-memory": HEAD_STORE_BYTES,
    }
    own = Node("head", record.host, 0, 0, record.client_port + 1)
    return _program("head", place, own, ["--head", "--include-dashboard=false"], options)


def has_begun(place: Place) -> bool:
    """Whether ``ray start`` has started completely, for a head or a node.

    The head itself answers long before. ``ray start`` waits for the raylet, and for what the head
    knows of it, and ends with all if one of both takes too long; behind that it writes this file.
    """
    return ray_has_begun(place.directory)


def ray_has_begun(directory: Path) -> bool:
    """The same by the folder in which Ray was told to keep its files."""
    return (directory / BELOW / "ray_current_cluster").exists()


def node(place: Place, node: Node) -> Program:
    """Return a node that runs calls."""
    record = place.record
    store = store_bytes(node.memory_bytes)
    options: dict[str, int | str] = {
        "address": joined(record.host, record.port),
        "num-cpus": node.n_cpu,
        "object-store-memory": store,
        "memory": max(128 * MIB, node.memory_bytes - store),
        "labels": f"{_LABEL}={node.name}",
    }
    if node.gpus is not None:
        options["num-gpus"] = node.gpus
    elif os.environ.get("MARS_GPUS"):  # else Ray finds them by itself
        options["num-gpus"] = len(find().names)
    return _program("node", place, node, [], options)


def store_bytes(memory_bytes: int) -> int:
    """What Ray's object store gets of the memory of a node; it lies in ``/dev/shm``."""
    return max(128 * MIB, int(memory_bytes * RAY_STORE_SHARE))


def nodes(record: Record, credentials: Credentials | None, limit_s: float) -> list[Node]:
    """Ask the head for its nodes; the variables of `asking` have to be set."""
    raylet = import_module("ray._raylet")  # compiled, without types
    client = raylet.GcsClient(address=joined(record.host, record.port))
    found = client.get_all_node_info(timeout=limit_s).values()
    return [
        Node(
            facts.labels[_LABEL],
            facts.node_manager_address,
            int(facts.resources_total.get("CPU", 0)),
            int(sum(facts.resources_total.get(kind, 0) for kind in _MEMORY)),
        )
        for facts in found
        if facts.state == facts.ALIVE and _LABEL in facts.labels
    ]


def check(host: str, port: int, credentials: Credentials, limit_s: float = KNOCK_S) -> None:
    """See at once whether Ray takes the token: its own client asks for half a minute.

    Raises
    ------
    CredentialsError
        It does not.
    ClusterUnreachable
        It does not answer.
    """
    grpc = import_module("grpc")
    paths = credentials.ca_path, credentials.key_path, credentials.cert_path
    pem = (Path(path).read_bytes() for path in paths)
    where = joined(host, port)
    with grpc.secure_channel(where, grpc.ssl_channel_credentials(*pem)) as channel:
        ask = channel.unary_unary(_ANY_QUESTION)
        try:
            ask(b"", metadata=[("authorization", f"Bearer {credentials.token}")], timeout=limit_s)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise CredentialsError(
                    f"the cluster at {where} refuses the token ({error.details()}); import the "
                    f"bundle of the cluster that runs there now"
                ) from None
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ClusterUnreachable(
                    f"Ray does not answer at {where}: {error.details()}"
                ) from None
            # Any other complaint is about the question, and comes after the token was taken.


def asking(record: Record) -> dict[str, str]:
    """Variables for a process that asks the head."""
    return environment(load(record.credentials))


def environment(credentials: Credentials) -> dict[str, str]:
    """Variables with which a process takes part in a cluster, or asks it."""
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_CA_CERT": credentials.ca_path,
        "RAY_TLS_SERVER_CERT": credentials.cert_path,
        "RAY_TLS_SERVER_KEY": credentials.key_path,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(Path(credentials.ca_path).with_name(TOKEN)),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _program(
    role: str, place: Place, node: Node, flags: list[str], options: dict[str, int | str]
) -> Program:
    if place.credentials is None:
        raise UsageError("Ray is not started without credentials")
    ports = dict.fromkeys(("node-manager-port", "object-manager-port"), 0)  # any
    ports |= {"min-worker-port": 0, "max-worker-port": 0}
    if node.port:
        ports = {name: node.port + place for place, name in enumerate(_LISTENERS)}
        first = node.port + len(_LISTENERS)
        ports |= {"min-worker-port": first, "max-worker-port": first + RAY_WORKER_PORTS - 1}
        if ports["max-worker-port"] > _LAST_PORT:
            raise UsageError(
                f"a node of Ray takes {len(_LISTENERS) + RAY_WORKER_PORTS} ports from its first "
                f"one on, and from {node.port} there are not as many; choose a lower one"
            )
    given = (
        ports
        | options
        | {
            "node-ip-address": node.host,
            "temp-dir": str(place.directory / BELOW),
            "log-style": "record",
        }
    )
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    variables = environment(place.credentials)
    # The client server forks while threads of its own are inside gRPC, whose handlers for that
    # abort the child then: a third of all first programs on a cluster waited 40 seconds in vain.
    variables["GRPC_ENABLE_FORK_SUPPORT"] = "false"
    variables["RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S"] = str(RAY_PROGRAM_START_S)
    variables |= _PATIENCE | NO_METRICS
    if not place.elsewhere and is_loopback(place.record.host):
        variables |= LOOPBACK
    return Program(
        role, [sys.executable, "-P", *_RAY, "start", "--block", *flags, *words], variables, UNSET
    )
