"""A cluster on an existing engine: begin one, join one, look at it, end what was started here.

Everything that a cluster starts on this machine is written down before it is used, and `down` ends
exactly that. Nothing listens beyond this machine without TLS and a token. Called by
``mars cluster`` and by the commands of the original.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.deploy import (
    census,
    credentials,
    private_files,
    processes,
    records,
)
from mars.deploy.engine_programs import PROGRAMS
from mars.deploy.knock import knock
from mars.deploy.processes import MARK, Process
from mars.deploy.programs import Node, Place, Program
from mars.deploy.records import Record, is_loopback, joined
from mars.engines.kinds import KINDS, EngineKind
from mars.errors import ClusterUnreachable, CredentialsError, StartupFailed, UsageError
from mars.platform import machine
from mars.settings import (
    CLUSTER_END_S,
    CLUSTER_POLL_S,
    CLUSTER_SAID_BYTES,
    CREDENTIALS_DAYS,
    HEAD_START_S,
    KNOCK_S,
    NODE_START_S,
)

if TYPE_CHECKING:
    from collections.abc import Callable


_ANY: Final = ("", "0.0.0.0", "::")
"""What stands for all addresses of a machine; a cluster listens on one."""


@dataclass(frozen=True, slots=True)
class Local:
    """What this machine runs of a cluster."""

    record: Record
    processes: list[tuple[Process, bool]]  # and whether it is there

    @property
    def running(self) -> int:
        """How many are there."""
        return sum(running for _, running in self.processes)

    @property
    def is_whole(self) -> bool:
        """Whether all that was started here is still there."""
        return self.running == len(self.processes)


@dataclass(frozen=True, slots=True)
class Joined:
    """A node that was started here."""

    node: Node
    process: Process


def up(
    engine: str,
    host: str,
    port: int,
    web_port: int,
    client_port: int,
    *,
    secure: bool = True,
    valid_days: float = CREDENTIALS_DAYS,
) -> Record:
    """Begin a cluster: its head runs here, and no calls yet.

    Parameters
    ----------
    engine : str
        What it runs on, "dask" or "ray".
    host : str
        Name or address of this machine that others reach; one of loopback: for this machine only;
        "0.0.0.0": the address of the way out.
    port, web_port, client_port : int
        Where hosts join, where the cluster says what it is (0: nowhere), and where programs connect
        (on Dask, ``port``).
    secure : bool, default True
        False: no TLS and no token; on loopback only.
    valid_days : float, default 30
        How long its credentials are valid.

    Returns
    -------
    Record

    Raises
    ------
    UsageError
        That would be open to others, or something listens there already.
    StartupFailed
        The head does not answer.
    """
    kind = KINDS[engine]
    check_installed(kind)
    if kind.only_secure and not secure:
        raise UsageError(
            "mars starts Ray with TLS and a token only; leave out --insecure, or use --engine dask"
        )
    if not secure and not is_loopback(host):
        raise UsageError(
            f"--insecure is for loopback only: whoever reaches {host} could run programs as you; "
            f"leave it out, or use --host 127.0.0.1"
        )
    if host in _ANY:
        host = own_address()  # others need one that leads here
    if kind.one_port:
        client_port = port
    if kind.takes_numbers:
        host = _number(host)
    for number in {port, web_port or port, client_port}:
        _check_free(host, number)
    record = Record(
        records.new_id(), engine, host, port, client_port, web_port, secure, origin="up"
    )
    records.save(record)
    try:
        files = None
        if secure:
            valid_for = datetime.timedelta(days=valid_days)
            files = credentials.create(record.credentials, _names(host), valid_for)
        _begin(record, files, PROGRAMS[engine].head, _see_head)
        if web_port:
            command = [sys.executable, "-P", "-m", "mars.deploy.answer", str(record.directory)]
            answering = _start(record, Program("web", command), None)
            _wait(record, answering, HEAD_START_S, lambda: knock(host, web_port, None))
        _supersede(record)
    except BaseException:
        down(record)
        raise
    return record


def _begin(
    record: Record,
    files: credentials.Credentials | None,
    program: Callable[[Place], Program],
    see: Callable[[Place, Process], None],
) -> Process:
    """Start a head or a node; again if it ends before it has begun, as often as its engine says.

    ``program`` is what runs. ``see`` returns when it has begun, and raises `StartupFailed` if it
    does not.
    """
    for tries_left in reversed(range(PROGRAMS[record.engine].TRIES)):
        place = Place(record, files, _temporary())
        try:
            started = _start(record, program(place), place.directory)
        except BaseException:
            private_files.remove(place.directory)
            raise
        try:
            see(place, started)
        except StartupFailed:
            again = tries_left and not processes.is_running(started)
            _end(record, [started])
            if not again:
                raise
        else:
            return started
    raise AssertionError("the last try returns or raises")


def _see_head(place: Place, started: Process) -> None:
    def look() -> None:
        _knock(place.record, place.credentials)
        _check_begun(place)

    _wait(place.record, started, HEAD_START_S, look)


def _see_node(node: Node, place: Place, started: Process) -> None:
    record = place.record
    is_running = functools.partial(processes.is_running, started)
    try:
        nodes(record, NODE_START_S, awaited=node.name, while_=is_running)
        _wait(record, started, NODE_START_S, functools.partial(_check_begun, place))
    except (ClusterUnreachable, StartupFailed) as error:
        said = _tail(record, started) if isinstance(error, ClusterUnreachable) else ""
        text = f"the node did not join {record.address}: {error}{said}"
        raise StartupFailed(text) from error


def _check_begun(place: Place) -> None:
    if not PROGRAMS[place.record.engine].has_begun(place):
        raise ClusterUnreachable("it has not started completely")


def join(record: Record, node: Node) -> Joined:
    """Have this machine run calls of a cluster.

    Parameters
    ----------
    record : Record
        The cluster.
    node : Node
        What this machine gives. Without a host, the address by which it reaches the head.

    Returns
    -------
    Joined
        As it was started.

    Raises
    ------
    ClusterUnreachable
        The head does not answer.
    CredentialsError
        It refuses ours, or they are for clients only.
    StartupFailed
        The node does not become a part of the cluster.
    """
    check_installed(record.kind)
    files = credentials.load(record.credentials) if record.secure else None
    knock(record.host, record.port, files)
    if not node.host:
        node = dataclasses.replace(node, host=address_towards(record.host, record.port))
    elif record.kind.takes_numbers:
        node = dataclasses.replace(node, host=_number(node.host))
    if files is None and not is_loopback(node.host):
        raise UsageError(f"the cluster has no credentials, so {node.host} cannot listen for it")
    if not node.name:
        node = dataclasses.replace(node, name=f"{socket.gethostname()}-{secrets.token_hex(3)}")
    own = record.directory / f"node-{node.name}"
    private_files.directory(own)
    try:
        if files is not None:
            files = credentials.for_host(record.credentials, own / "files", _names(node.host))
            if record.origin != "up":
                credentials.forget_authority(record.credentials)  # of a mars that kept it
        started = _begin(
            record,
            files,
            lambda place: PROGRAMS[record.engine].node(place, node),
            functools.partial(_see_node, node),
        )
    except BaseException:
        private_files.remove(own)
        raise
    return Joined(node, started)


def leave(record: Record, joined: Joined) -> None:
    """End one node that was started here; forget a cluster that was known for it only."""
    _end(record, [joined.process])
    private_files.remove(record.directory / f"node-{joined.node.name}")
    if record.origin == "join" and not processes.remembered(record.directory):
        records.forget(record)


def nodes(
    record: Record,
    limit_s: float = KNOCK_S,
    awaited: str = "",
    while_: Callable[[], bool] = lambda: True,
) -> list[Node]:
    """Return the nodes that run calls, as the engine knows them.

    Parameters
    ----------
    record : Record
        The cluster.
    limit_s : float, default 5
        How long the engine may take, seconds.
    awaited : str, optional
        Wait until a node of this name is there.
    while_ : callable, optional
        Waiting ends when it returns False.

    Raises
    ------
    ClusterUnreachable
        The engine does not answer, or the node does not appear.
    """
    programs = PROGRAMS[record.engine]
    variables = {name: text for name, text in os.environ.items() if name not in programs.UNSET}
    variables |= programs.asking(record)
    return census.take(record.directory, variables, limit_s, awaited, while_)


def local(record: Record) -> Local:
    """Return what this machine runs of a cluster."""
    here = machine()
    known = [found for found in processes.remembered(record.directory) if found.machine == here]
    return Local(record, [(found, processes.is_running(found)) for found in known])


def down(record: Record) -> int:
    """End what was started here for a cluster, and nothing else.

    Parameters
    ----------
    record : Record
        The cluster. Forgotten, unless its bundle was imported and so is not ours to remove.

    Returns
    -------
    int
        How many of the processes that were started here were still running; 0, too, if the cluster
        is down already.
    """
    if not record.directory.exists():
        return 0
    found = local(record)
    _end(record, [process for process, _ in found.processes])
    if processes.remembered(record.directory):
        return found.running  # of another machine with the same files, to be ended there
    if record.origin == "import":
        for path in record.directory.glob("node-*"):
            private_files.remove(path)
    else:
        records.forget(record)
    return found.running


def export(record: Record, *, client_only: bool = False) -> bytes:
    """Return a bundle with which another host joins the cluster, or has programs use it.

    Parameters
    ----------
    record : Record
        The cluster.
    client_only : bool, default False
        True: programs can use it; hosts cannot join with it.
    """
    if not record.secure:
        raise UsageError(f"{record.address} is insecure and has no credentials to export")
    texts = credentials.pack(record.credentials, client_only=client_only)
    facts = {"record": dataclasses.asdict(record), "credentials": texts}
    return json.dumps({"mars_cluster": 1, **facts}, indent=1).encode() + b"\n"


def import_bundle(data: bytes, origin: records.Origin = "import", host: str = "") -> Record:
    """Keep what `export` returned elsewhere, but for the key of the authority.

    Parameters
    ----------
    data : bytes
        The bundle.
    origin : {"import", "join"}
        "join": it is forgotten when this host leaves the cluster.
    host : str, optional
        Name or address of this machine that others reach.

    Raises
    ------
    CredentialsError
        It is no bundle, or damaged.
    """
    try:
        bundle = json.loads(data)
        version, facts, texts = (bundle[key] for key in ("mars_cluster", "record", "credentials"))
        if version != 1 or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError(version)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CredentialsError(
            "this is no bundle of credentials; make one with `mars cluster credentials export` "
            "where the cluster was started"
        ) from error
    record = records.parse(json.dumps({**facts, "origin": origin}).encode(), "the bundle")
    if record.directory.exists():
        known = records.load(record.directory)
        credentials.unpack(texts, known.credentials, _own_names(known, host))
        return known
    records.save(record)
    try:
        credentials.unpack(texts, record.credentials, _own_names(record, host))
    except BaseException:
        records.forget(record)
        raise
    _supersede(record)
    return record


def own_address() -> str:
    """Address of this machine that others reach: that of the way out, or of its name."""
    for towards in ("192.0.2.1", ""):  # the first is of nobody, and nothing is sent there
        try:
            found = (
                address_towards(towards, 9)
                if towards
                else socket.gethostbyname(socket.gethostname())
            )
        except OSError:
            continue
        if not is_loopback(found):
            return found
    raise UsageError("this machine has no address that others reach; name one with --host")


def _supersede(record: Record) -> None:
    """Forget clusters that were at the same address before, of which nothing is left here."""
    for old in records.everything():
        same = (old.host, old.port) == (record.host, record.port) and old.id != record.id
        if same and not local(old).running:
            down(old)


def _start(record: Record, program: Program, directory: Path | None) -> Process:
    """Start a process, and write it down."""
    part = f"{record.id}.{secrets.token_hex(4)}"
    variables = {name: value for name, value in os.environ.items() if name not in program.unset}
    variables |= {**program.environment, MARK: part}
    if directory is not None:
        variables["TMPDIR"] = str(directory)
    output = record.directory / "output" / f"{part}.log"
    started = processes.start(
        program.command, variables, output, Process(program.role, part, str(directory or ""))
    )
    processes.remember(record.directory, add=[started])
    return started


def _end(record: Record, ours: list[Process]) -> None:
    """End processes that were started here, with all that they started; remove what they kept."""
    for process in reversed(ours):  # nodes before their head, or they wait for it
        processes.end(process, CLUSTER_END_S)
        if process.directory:
            private_files.remove(Path(process.directory))
    processes.remember(record.directory, drop=ours)


def _wait(record: Record, started: Process, limit_s: float, attempt: Callable[[], object]) -> None:
    """Try until it succeeds; fail when the process ends, or after the limit."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            attempt()
            return
        except ClusterUnreachable as error:
            if not processes.is_running(started):
                why = "it ended"
            elif time.monotonic() > deadline:
                why = f"no answer within {limit_s:g} s ({error})"
            else:
                time.sleep(CLUSTER_POLL_S)
                continue
            said = _tail(record, started)
            raise StartupFailed(f"the {started.role} did not start: {why}{said}") from error


def _knock(record: Record, files: credentials.Credentials | None) -> None:
    for port in (record.port, record.client_port):
        knock(record.host, port, files)


def _tail(record: Record, process: Process) -> str:
    """The last of what a process printed, as the end of a message."""
    path = record.directory / "output" / f"{process.mark}.log"
    try:
        text = path.read_bytes()[-CLUSTER_SAID_BYTES:].decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"; its output ends with:\n{text}" if text else ""


def _temporary() -> Path:
    """Directory for what a process keeps."""
    return Path(platform.private_directory("mars-"))


def check_installed(kind: EngineKind) -> None:
    """Refuse an engine that is not installed here.

    Raises
    ------
    UsageError
        The message says how to install it.
    """
    missing = missing_package(kind)
    if missing:
        raise UsageError(
            f"the package {missing} is not installed here; "
            f"python -m pip install 'mars-remote[{kind.name}]'"
        )


def missing_package(kind: EngineKind) -> str:
    """Name of a package that a cluster on this engine needs and that is not installed, or ""."""
    return next((name for name in kind.packages if find_spec(name) is None), "")


def _check_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=_family(host)):
            pass
    except OSError as error:
        raise UsageError(
            f"{joined(host, port)} cannot be listened on ({error.strerror}); choose another port, "
            f"or see `mars cluster status`"
        ) from error


def _names(host: str) -> list[str]:
    """Under which names and addresses this machine may be called, in a certificate."""
    return [host, socket.gethostname(), "localhost", "127.0.0.1", "::1"]


def _own_names(record: Record, host: str) -> list[str]:
    """Under which of them it is called by a cluster that it may join."""
    found = [*_names(socket.gethostname())]
    with contextlib.suppress(OSError):  # it has no name, or there is no way to the head now
        found.append(address_towards(record.host, record.port))
    if host:
        found.append(host)
        with contextlib.suppress(OSError):
            found.append(_number(host))
    return found


def address_towards(host: str, port: int = 9) -> str:
    """Address of this machine from which a connection to a host would come."""
    with socket.socket(_family(host), socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # nothing is sent
        return str(probe.getsockname()[0])


def _number(host: str) -> str:
    """The numeric address behind a name."""
    return str(socket.getaddrinfo(host, None)[0][4][0])


def _family(host: str) -> socket.AddressFamily:
    return socket.getaddrinfo(host, None)[0][0]
