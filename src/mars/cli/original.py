"""``mars-supervisor`` and ``mars-worker``: the commands of the original, with its options.

They stay in the foreground, as there, and end what they started when they are ended. What they
start is a cluster of ``mars cluster``. Options of the original that mean nothing here are accepted,
and named in one line.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser
from typing import TYPE_CHECKING, Final

from mars.cli import cluster
from mars.deploy import clusters, processes, records
from mars.errors import MarsError, UsageError
from mars.settings import CLUSTER_PORT, CLUSTER_WEB_PORT, ORIGINAL_LOOK_S, RAY_CLIENT_PORT

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from mars.deploy.processes import Process
    from mars.deploy.records import Record

_ANY_HOST: Final = "0.0.0.0"
"""What the original listens on if it is told nothing."""


_INERT: Final = (
    "config", "config_file", "log_level", "log_format", "log_conf", "load_modules", "use_uvloop",
    "n_process", "n_io_process", "cuda_devices",
)  # fmt: skip


def supervisor(argv: Sequence[str] | None = None) -> int:
    """Run ``mars-supervisor``: begin a cluster, and end it when this command ends."""
    parser = _parser("mars-supervisor", "Begin a cluster; it ends with this command.")
    parser.add_argument("-w", "--web-port", type=int, default=CLUSTER_WEB_PORT)
    parser.add_argument("--n-process")
    parser.add_argument("--engine", choices=cluster.ENGINES, help="what it runs on")
    parser.add_argument("--insecure", action="store_true", help="loopback and Dask only")
    options = parser.parse_args(argv)

    def start() -> tuple[Record, list[Process], Callable[[], object]]:
        host, port = _own_place(options)
        if options.supervisors not in (None, "", records.joined(host, port)):
            raise UsageError(
                "a cluster has one supervisor here: leave out -s, and use mars-worker for others"
            )
        record = clusters.up(
            cluster.choose_engine(options.engine),
            host,
            port,
            options.web_port,
            RAY_CLIENT_PORT if port == CLUSTER_PORT else port + 2,
            secure=not options.insecure,
        )
        print(f"supervisor at {records.joined(record.host, record.port)} ({record.engine})")
        print(f"a host joins:  {cluster.how_to_join(record)}", flush=True)
        print(f"a program:     mars.new_session({record.web_address!r})", flush=True)
        known = [process for process, _ in clusters.local(record).processes]
        return record, known, lambda: clusters.down(record)

    return _stay("mars-supervisor", options, start)


def worker(argv: Sequence[str] | None = None) -> int:
    """Run ``mars-worker``: have this machine run calls until this command ends."""
    parser = _parser("mars-worker", "Run calls of a cluster, until this command ends.")
    parser.add_argument("--n-cpu", default="auto")
    parser.add_argument("--mem-bytes", default="auto")
    parser.add_argument("--n-io-process")
    parser.add_argument("--cuda-devices")
    options = parser.parse_args(argv)

    def start() -> tuple[Record, list[Process], Callable[[], object]]:
        record = cluster.chosen(options.supervisors or None)
        host, port = _host(options), _port(options)
        given = cluster.share(
            options.n_cpu,
            options.mem_bytes,
            host="" if host == _ANY_HOST else host,
            port=port or 0,
        )
        joined = clusters.join(record, given)
        node = joined.node
        print(f"worker {node.name} at {node.host} has joined {record.address}", flush=True)
        return record, [joined.process], lambda: clusters.leave(record, joined)

    return _stay("mars-worker", options, start)


def _parser(name: str, purpose: str) -> ArgumentParser:
    parser = ArgumentParser(prog=name, description=purpose)
    parser.add_argument("-e", "--endpoint", help="host:port, instead of -H and -p")
    parser.add_argument("-H", "--host", help="address of this machine that others reach")
    parser.add_argument("-p", "--ports", help="where it listens")
    parser.add_argument("-s", "--supervisors", help="host:port of the supervisor")
    for flags in (
        ("-c", "--config"),
        ("-f", "--config-file"),
        ("--log-level",),
        ("--log-format",),
        ("--log-conf",),
        ("--use-uvloop",),
    ):
        parser.add_argument(*flags)
    parser.add_argument("--load-modules", nargs="*")
    return parser


def _stay(
    name: str,
    options: Namespace,
    start: Callable[[], tuple[Record, list[Process], Callable[[], object]]],
) -> int:
    """Start, wait for SIGINT, SIGTERM or the end of a process, and end all."""
    inert = [f"--{key.replace('_', '-')}" for key in _INERT if getattr(options, key, None)]
    if inert:
        print(f"{name}: without effect here: {', '.join(inert)}", file=sys.stderr)
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        record, known, end = start()
        try:
            # Only now: what was started would inherit it.
            signal.pthread_sigmask(signal.SIG_BLOCK, ending)
            while all(map(processes.is_running, known)):
                if signal.sigtimedwait(ending, ORIGINAL_LOOK_S) is not None:
                    return 0
            print(f"{name}: a process of {record.address} has ended", file=sys.stderr)
            return 1
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, ending)
            end()
    except KeyboardInterrupt:  # while it started; that has been undone
        return 130
    except (MarsError, OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _own_place(options: Namespace) -> tuple[str, int]:
    host, port = _host(options), _port(options)
    return host or _ANY_HOST, port or CLUSTER_PORT


def _host(options: Namespace) -> str:
    if options.endpoint:
        return records.split(options.endpoint)[0]
    environ = os.environ
    return str(
        options.host or environ.get("MARS_BIND_HOST") or environ.get("MARS_CONTAINER_IP") or ""
    )


def _port(options: Namespace) -> int | None:
    if options.endpoint:
        return records.split(options.endpoint)[1]
    given = options.ports or os.environ.get("MARS_BIND_PORT")
    return int(str(given).split(",")[0]) if given else None
