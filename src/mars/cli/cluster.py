"""``mars cluster``: begin a cluster on Ray or Dask, join it, look at it, end it, pass it on.

Prints what to type next. Called by `mars.cli`; the commands of the original stand in
`mars.cli.original`.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from mars.calls.options import parse_bytes
from mars.deploy import clusters, credentials, private_files, records, ssh
from mars.deploy.programs import Node
from mars.deploy.records import Record, joined
from mars.engines.kinds import CLUSTERS
from mars.errors import MarsError, UsageError
from mars.resources import cpu_count, memory_limit_bytes
from mars.settings import CLUSTER_PORT, CLUSTER_WEB_PORT, CREDENTIALS_DAYS, RAY_CLIENT_PORT

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

ENGINES: Final = tuple([kind.name for kind in CLUSTERS])
GIB: Final = 1 << 30


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars cluster`` understands."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)

    up = actions.add_parser("up", help="begin a cluster; its head runs here")
    up.add_argument(
        "--engine",
        choices=ENGINES,
        help="what it runs on; default: Ray if installed, else Dask; on Kubernetes Dask",
    )
    up.add_argument(
        "--host",
        default="127.0.0.1",
        help="address of this machine that other hosts reach; default: 127.0.0.1, this one only",
    )
    up.add_argument("--port", type=int, default=CLUSTER_PORT, help="where hosts join")
    up.add_argument(
        "--web-port",
        type=int,
        default=CLUSTER_WEB_PORT,
        help="where it says what it is, for `new_session('http://HOST:WEB_PORT')`; 0: nowhere",
    )
    up.add_argument(
        "--client-port", type=int, default=RAY_CLIENT_PORT, help="where programs connect, on Ray"
    )
    up.add_argument(
        "--insecure", action="store_true", help="no TLS and no token; loopback and Dask only"
    )
    up.add_argument(
        "--valid-days", type=float, default=CREDENTIALS_DAYS, help="how long credentials are valid"
    )
    up.add_argument("--ssh", default="", metavar="HOSTS", help="hosts that join over ssh: a,b,c")
    _add_share(up, "each of the hosts of --ssh")
    up.add_argument("--ssh-python", default=sys.executable, help="the Python there that has mars")
    up.add_argument(
        "--node-port", type=int, default=0, help="first of the ports of each of their nodes; 0: any"
    )
    up.add_argument("--ssh-config", help="configuration file for ssh, its -F")
    up.add_argument(
        "--kubernetes",
        action="store_true",
        help="all of it in pods; of the options above --engine and --valid-days hold",
    )
    up.add_argument("--timeout", type=float, help="seconds that pods may take to start")
    _kubernetes().add_arguments(up)

    join = actions.add_parser("join", help="have this machine run calls of a cluster")
    join.add_argument("address", help="of the cluster, as `up` prints it")
    join.add_argument(
        "--credentials", metavar="FILE", help="bundle of the cluster; - reads standard input"
    )
    join.add_argument("--host", default="", help="address of this machine that the head reaches")
    join.add_argument("--port", type=int, default=0, help="first of its ports; 0: any")
    _add_share(join, "this machine")

    status = actions.add_parser("status", help="show the clusters that this machine knows")
    status.add_argument("address", nargs="?", help="of one; default: all")
    status.add_argument("--json", action="store_true", help="print JSON")
    _add_kubernetes(status)

    down = actions.add_parser("down", help="end what was started here for a cluster")
    down.add_argument("address", nargs="?", help="of the cluster; not needed if there is one")
    down.add_argument(
        "--if-known", action="store_true", help="an address that is not known is well, too"
    )
    down.add_argument("--all", action="store_true", help="all clusters that this machine knows")
    _add_kubernetes(down)

    manifest = actions.add_parser("manifest", help="print a cluster on Kubernetes as YAML")
    _kubernetes().add_manifest(manifest)

    passing = actions.add_parser("credentials", help="pass a cluster on to another host or user")
    ways = passing.add_subparsers(dest="way", metavar="way", required=True)
    export = ways.add_parser("export", help="write a bundle")
    export.add_argument("file", nargs="?", default="-", help="a new file; default: standard output")
    export.add_argument("--address", help="of the cluster; not needed if there is one")
    export.add_argument(
        "--client-only", action="store_true", help="for programs; no host can join with it"
    )
    drop = ways.add_parser("forget", help="remove what `import` read")
    drop.add_argument("--address", help="of the cluster; not needed if there is one")
    take = ways.add_parser("import", help="read a bundle")
    take.add_argument("file", nargs="?", default="-", help="default: standard input")


def run(options: Namespace) -> int:
    """Do it; 1 if it fails, or if something of a cluster is not as it should be."""
    actions: dict[str, Callable[[Namespace], int]] = {
        "manifest": lambda given: _kubernetes().manifest(given),
        "up": _up,
        "join": _join,
        "status": _status,
        "down": _down,
        "export": _export,
        "import": _import,
        "forget": _forget,
    }
    try:
        if getattr(options, "kubernetes", False):
            return _ON_KUBERNETES[options.action](options)
        return actions[getattr(options, "way", options.action)](options)
    except BrokenPipeError:  # the reader has seen enough: see `mars.cli`
        raise
    except (MarsError, OSError, ValueError) as error:
        print(f"mars cluster: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _kubernetes() -> ModuleType:
    """The part for Kubernetes, which loads sessions: not for who joins a host."""
    from mars.cli import kubernetes

    return kubernetes


_ON_KUBERNETES: Final[dict[str, Callable[[Namespace], int]]] = {
    "up": lambda given: _kubernetes().up(given),
    "status": lambda given: _kubernetes().status(given),
    "down": lambda given: _kubernetes().down(given),
}


def _add_kubernetes(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--kubernetes", action="store_true", help="clusters on Kubernetes; ADDRESS is a name there"
    )
    _kubernetes().add_place(parser)


def choose_engine(asked: str | None) -> str:
    """The engine that was asked for, or one that is installed."""
    if asked is not None:
        return asked
    for kind in CLUSTERS:
        if not clusters.missing_package(kind):
            return kind.name
    raise UsageError(
        "neither Ray nor Dask is installed here; python -m pip install 'mars-remote[ray]', or "
        "'mars-remote[dask]'"
    )


def share(n_cpu: str, memory: str, *, name: str = "", host: str = "", port: int = 0) -> Node:
    """What this machine gives to a cluster."""
    cores = cpu_count().n if n_cpu == "auto" else int(n_cpu)
    if cores < 1:
        raise ValueError(f"--n-cpu has to be 1 or more, got {n_cpu}")
    size = memory_limit_bytes()[0] if memory == "auto" else parse_bytes(memory, "--memory")
    return Node(name, host, cores, size, port)


def chosen(address: str | None) -> Record:
    """The cluster at an address, or the only one that is known."""
    if address is not None:
        found = records.find(address)
        if found is not None:
            return found
        raise UsageError(f"this machine knows no cluster at {address}; see `mars cluster status`")
    known = records.everything()
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError("this machine knows no cluster; `mars cluster up` begins one")
    listed = ", ".join(record.address for record in known)
    raise UsageError(f"there are {len(known)} clusters, name one of them: {listed}")


def how_to_join(record: Record) -> str:
    """One line for the shell that has another host join, and no secret in it."""
    join = f"mars cluster join {joined(record.host, record.port)}"
    if records.is_loopback(record.host) or not record.secure:
        return join
    export = f"mars cluster credentials export --address {joined(record.host, record.port)}"
    return f"{export} | ssh HOST {join} --credentials -"


def _add_share(parser: ArgumentParser, who: str) -> None:
    parser.add_argument("--n-cpu", default="auto", help=f"cores that {who} gives; default: all")
    parser.add_argument(
        "--memory", default="auto", help=f"memory that {who} gives, as 8GiB; default: all"
    )


def _up(options: Namespace) -> int:
    record = clusters.up(
        choose_engine(options.engine),
        options.host,
        options.port,
        options.web_port,
        options.client_port,
        secure=not options.insecure,
        valid_days=options.valid_days,
    )
    print(f"{record.engine} cluster at {record.address}")
    shell = ssh.Shell(options.ssh_python, ["-F", options.ssh_config] if options.ssh_config else [])
    hosts = [host for host in options.ssh.split(",") if host]
    if hosts:
        try:
            given = ["--n-cpu", options.n_cpu, "--memory", options.memory]
            ssh.join(record, hosts, shell, [*given, "--port", str(options.node_port)])
        except BaseException:
            ssh.leave(record)
            clusters.down(record)
            raise
    for host in hosts:
        print(f"{host} has joined")
    print(f"a host joins:     {how_to_join(record)}")
    where = record.web_address if record.web_port else record.address
    print(f"a program:        mars.new_session({where!r})")
    if record.secure:
        print("elsewhere, first: mars cluster credentials import  (what `export` wrote here)")
    if not hosts:
        print("It has no workers yet. To have this machine run calls, type here:")
        print(f"                  mars cluster join {joined(record.host, record.port)}")
    print(f"it ends:          mars cluster down {joined(record.host, record.port)}")
    return 0


def _join(options: Namespace) -> int:
    if options.credentials is not None:
        clusters.import_bundle(_read(options.credentials), origin="join", host=options.host)
    record = records.find(options.address)
    if record is None:
        raise UsageError(
            f"this machine has no credentials for {options.address}; write them to a file with "
            f"`mars cluster credentials export FILE` where the cluster was started, and pass "
            f"--credentials FILE"
        )
    asked = share(options.n_cpu, options.memory, host=options.host, port=options.port)
    node = clusters.join(record, asked).node
    print(
        f"{node.name} has joined {record.address} with {node.n_cpu} cores and "
        f"{node.memory_bytes / GIB:.1f} GiB"
    )
    return 0


@dataclass(slots=True)
class Report:
    """A cluster, as ``status`` shows it."""

    engine: str
    address: str
    join_address: str
    web_address: str | None
    secure: bool
    expires: str | None = None
    processes: list[dict[str, object]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    problem: str | None = None
    ok: bool = True


def _status(options: Namespace) -> int:
    known = records.everything() if options.address is None else [chosen(options.address)]
    reports = [_report(record) for record in known]
    if options.json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
    elif not reports:
        print("this machine knows no cluster")
    else:
        for report in reports:
            _write(report)
    return 0 if all(report.ok for report in reports) else 1


def _report(record: Record) -> Report:
    report = Report(
        record.engine,
        record.address,
        joined(record.host, record.port),
        record.web_address if record.web_port else None,
        record.secure,
    )
    here = clusters.local(record)
    report.processes = [
        {"role": process.role, "pid": process.pid, "running": running}
        for process, running in here.processes
    ]
    try:
        if record.secure:
            report.expires = credentials.expiry(record.credentials).isoformat()
        report.nodes = clusters.nodes(record)
    except MarsError as error:
        report.problem = str(error)
    report.ok = report.problem is None and here.is_whole
    return report


def _write(report: Report) -> None:
    secure = "TLS and a token" if report.secure else "insecure, loopback only"
    if report.expires is not None:
        end = datetime.datetime.fromisoformat(report.expires)
        days = (end - datetime.datetime.now(datetime.UTC)).total_seconds() / 86_400
        secure += f", credentials valid for {days:.1f} days" if days > 0 else ", EXPIRED"
    print(f"{report.engine} cluster at {report.address} ({secure})")
    if report.web_address is not None:
        print(f"  in a program: mars.new_session({report.web_address!r})")
    for process in report.processes:
        state = "running" if process["running"] else "HAS ENDED"
        print(f"  here: {process['role']}, pid {process['pid']}, {state}")
    for node in report.nodes:
        size = f"{node.memory_bytes / GIB:.1f} GiB"
        print(f"  node {node.name} at {node.host}: {node.n_cpu} cores, {size}")
    if report.problem is not None:
        print(f"  {report.problem}")
    elif not report.nodes:
        print("  no node has joined, so no calls run yet")


def _down(options: Namespace) -> int:
    if options.if_known and options.address and records.find(options.address) is None:
        return 0
    known = records.everything() if options.all else [chosen(options.address)]
    status = 0
    for record in known:
        for complaint in ssh.leave(record):
            print(f"mars cluster: {complaint}", file=sys.stderr)
            status = 1
        ended = clusters.down(record)
        print(f"{record.address}: {ended} processes ended here")
    return status


def _export(options: Namespace) -> int:
    if options.file == "-" and sys.stdout.isatty():
        raise UsageError("a bundle is a secret: name a file for it, or pass it on through a pipe")
    bundle = clusters.export(chosen(options.address), client_only=options.client_only)
    if options.file == "-":
        sys.stdout.write(bundle.decode())
        return 0
    path = private_files.write_new(Path(options.file), bundle)
    print(f"{path}: whoever has it can run programs as you; keep it private (scp -p does)")
    return 0


def _import(options: Namespace) -> int:
    record = clusters.import_bundle(_read(options.file))
    print(f"credentials for {record.address} are here")
    if record.web_port:
        print(f"a program: mars.new_session({record.web_address!r})")
    return 0


def _forget(options: Namespace) -> int:
    record = chosen(options.address)
    if record.origin == "up" or clusters.local(record).running:
        raise UsageError(f"{record.address} runs here; `mars cluster down` ends and forgets it")
    records.forget(record)
    print(f"credentials for {record.address} are removed")
    return 0


def _read(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else private_files.read(Path(file))
