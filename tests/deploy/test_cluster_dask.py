"""A cluster on Dask on one machine: what it opens, whom it lets in, and what `down` ends."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from mars.cli import main
from mars.deploy import clusters, credentials, dask_programs, knock, processes, records
from mars.deploy.answer import ask
from mars.deploy.programs import Node, Place, Program
from mars.deploy.records import Record
from mars.deploy.targets import resolve
from mars.errors import (
    ClusterUnreachable,
    CredentialsError,
    StartupFailed,
    UnknownTarget,
    UsageError,
)
from mars.settings import DASK_IDLE
from tests.deploy import stranger

pytest.importorskip("distributed")
pytest.importorskip("cryptography")

MIB = 1 << 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def begin(**options: Any) -> Record:
    return clusters.up("dask", "127.0.0.1", free_port(), free_port(), 0, **options)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, leak_guard: None) -> Iterator[Path]:
    """State of the module's cluster."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(place))
        yield place


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Record]:
    """A secure cluster of one node."""
    record = begin()
    try:
        clusters.join(record, Node("node", "", 1, 512 * MIB))
        yield record
    finally:
        clusters.down(record)


@pytest.fixture(autouse=True)
def state(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's state, not one for each test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(home))


@contextmanager
def elsewhere(tmp_path: Path) -> Iterator[None]:
    """As a user who knows no cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
        yield


def listeners(record: Record) -> list[tuple[str, int]]:
    """Where all processes of a cluster listen."""
    found = []
    for process, _ in clusters.local(record).processes:
        for one in processes.marked(process.mark):
            found += [
                (connection.laddr.ip, connection.laddr.port)
                for connection in psutil.Process(one.pid).net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            ]
    return found


# -- whom it lets in ------------------------------------------------------------------------------


def client(record: Record, files: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Dask's own client with some files, in a process of its own."""
    program = tmp_path / "client.py"
    program.write_text(
        "import sys\n"
        "from distributed import Client, Security\n"
        "ca, certificate, key = sys.argv[2:]\n"
        "security = Security(tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key,\n"
        "                    require_encryption=True)\n"
        "with Client(sys.argv[1], security=security, timeout=8) as client:\n"
        "    print(client.submit(pow, 7, 2).result())\n"
    )
    return subprocess.run(
        [sys.executable, str(program), record.address, *files.split()],
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_client_of_the_same_user_finds_the_way_in(cluster: Record, tmp_path: Path) -> None:
    target = resolve(cluster.web_address)
    target.check()
    files = target.credentials
    assert (target.engine, target.address) == ("dask", cluster.address)
    assert files is not None
    ran = client(cluster, f"{files.ca_path} {files.cert_path} {files.key_path}", tmp_path)
    assert ran.stdout == "49\n", ran.stderr


def test_credentials_of_another_cluster_are_refused(cluster: Record, tmp_path: Path) -> None:
    other = credentials.create(tmp_path / "other", ["127.0.0.1"], timedelta(days=1))
    own = credentials.load(cluster.credentials)
    for files in (other, replace(other, ca_path=own.ca_path)):
        target = replace(resolve(cluster.address), credentials=files)
        with pytest.raises(CredentialsError, match="import the bundle of the cluster"):
            target.check()
    mixed = f"{own.ca_path} {other.cert_path} {other.key_path}"
    assert client(cluster, mixed, tmp_path).returncode != 0


def test_nobody_gets_a_word_without_a_certificate(cluster: Record) -> None:
    found = listeners(cluster)
    assert len(found) >= 4
    assert {host for host, _ in found} == {"127.0.0.1"}
    for host, port in found:
        assert stranger.over_tls(host, port).startswith("refused"), port
    for port in (cluster.port, *worker_ports(cluster)):
        assert stranger.over_tcp("127.0.0.1", port).startswith("refused"), port


def worker_ports(record: Record) -> list[int]:
    """Where the node's processes speak Dask's protocol, as they say in their output."""
    output = "".join(path.read_text() for path in (record.directory / "output").iterdir())
    ports = {int(port) for port in re.findall(r"tls://127\.0\.0\.1:(\d+)", output)}
    assert len(ports) >= 3
    live = {port for _, port in listeners(record)}
    return sorted(ports & live)


def test_nothing_is_unpickled_before_a_certificate_is_shown(
    cluster: Record, tmp_path: Path
) -> None:
    """What would run at once if anybody unpickled it, as frames of Dask and without."""
    import pickle

    planted = tmp_path / "planted"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(planted),)

    load = pickle.dumps(Attack())
    pickle.loads(load)
    assert planted.exists()
    planted.rmdir()
    frames = len(load).to_bytes(8, "little") + load
    for port in (cluster.port, *worker_ports(cluster)):
        for data in (load, frames, (1).to_bytes(8, "little") + frames):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
                plain.sendall(data)
                with suppress(OSError):  # it has hung up already
                    plain.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    plain.recv(100)
    assert resolve(cluster.address).check() is None
    assert not planted.exists()


# -- the web port ---------------------------------------------------------------------------------


def web(record: Record, token: str | None, path: str = "/", method: str = "GET") -> str:
    """The answer's first line and body, with the right certificate."""
    from mars.deploy.knock import context

    files = credentials.load(record.credentials)
    with (
        socket.create_connection((record.host, record.web_port), timeout=5) as plain,
        context(files).wrap_socket(plain) as secret,
    ):
        shown = "" if token is None else f"Authorization: Bearer {token}\r\n"
        secret.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{shown}\r\n".encode())
        said = b""
        while part := secret.recv(4096):
            said += part
    return said.decode()


def test_the_web_port_tells_the_address_and_nothing_secret(cluster: Record) -> None:
    files = credentials.load(cluster.credentials)
    said = web(cluster, files.token)
    facts = json.loads(said.partition("\r\n\r\n")[2])
    assert (facts["engine"], facts["address"]) == ("dask", cluster.address)
    for secret in (files.token, "PRIVATE", str(cluster.directory)):
        assert secret not in said


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é"])
def test_the_web_port_wants_the_token_too(cluster: Record, token: str | None) -> None:
    assert web(cluster, token).startswith("HTTP/1.0 401")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_the_web_port_only_answers_get(cluster: Record, method: str) -> None:
    files = credentials.load(cluster.credentials)
    assert web(cluster, files.token, method=method).startswith("HTTP/1.0 501")
    assert web(cluster, files.token, "/../x").startswith("HTTP/1.0 404")


def test_a_web_port_behind_another_name_is_asked_and_believed_by_its_certificate(
    cluster: Record, tmp_path: Path
) -> None:
    files = credentials.load(cluster.credentials)
    assert ask("localhost", cluster.web_port, files).id == cluster.id
    bundle = clusters.export(cluster)
    with elsewhere(tmp_path):
        imported = clusters.import_bundle(bundle)
        records.save(replace(imported, host="10.77.0.9"))  # known by an address that is not asked
        assert records.find(cluster.web_address) is None
        assert resolve(cluster.web_address).engine == "dask"


def test_a_web_address_without_credentials_says_what_to_do(cluster: Record, tmp_path: Path) -> None:
    with (
        elsewhere(tmp_path),
        pytest.raises(CredentialsError, match="mars cluster credentials export"),
    ):
        resolve(cluster.web_address)


def test_a_server_that_is_no_cluster_is_not_believed(cluster: Record) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        other.listen()
        other.settimeout(5)
        files = credentials.load(cluster.credentials)
        hung = pytest.raises((CredentialsError, ClusterUnreachable))
        with pytest.MonkeyPatch.context() as patch, hung:
            patch.setattr("mars.deploy.answer.KNOCK_S", 0.3)
            ask("127.0.0.1", port, files)


@contextmanager
def half_open(port: int, count: int, hello: bytes) -> Iterator[list[socket.socket]]:
    """Connections that begin and do not go on."""
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(socket.create_connection(("127.0.0.1", port), 5))
            made[-1].sendall(hello)
        yield made
    finally:
        for one in made:
            one.close()


@pytest.mark.parametrize("hello", [b"\x16\x03\x01\x02\x00\x01\x00", b"\x16", b"G"])
def test_connections_that_say_nothing_do_not_keep_the_web_port_from_others(
    cluster: Record, hello: bytes
) -> None:
    files = credentials.load(cluster.credentials)
    for _ in range(10):
        with half_open(cluster.web_port, 100, hello) as others:
            assert ask("127.0.0.1", cluster.web_port, files).id == cluster.id
            # What is no TLS is hung up on at once. The others are until WEB_VISIT_S has passed, but
            # for those whose place a later one has taken.
            if hello == b"G" or len(select.select(others, [], [], 0)[0]) < len(others):
                return
    pytest.fail("nobody was answered before all connections that say nothing had been ended")


def test_a_connection_that_says_little_at_a_time_is_hung_up_on(cluster: Record) -> None:
    files = credentials.load(cluster.credentials)
    with (
        socket.create_connection(("127.0.0.1", cluster.web_port), 5) as plain,
        knock.context(files).wrap_socket(plain) as slow,
    ):
        slow.settimeout(0.5)
        began = time.monotonic()
        with suppress(ConnectionError, ssl.SSLError):
            slow.sendall(b"GET / HTTP/1.1\r\n")
            while True:
                with suppress(TimeoutError):
                    slow.sendall(b"X")
                    if not slow.recv(1):
                        break
                assert time.monotonic() - began < 60  # it never is, if not after WEB_VISIT_S


def test_a_web_port_that_hangs_up_is_not_taken_for_another_cluster(cluster: Record) -> None:
    files = credentials.load(cluster.credentials)
    with socket.create_server(("127.0.0.1", 0)) as busy:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    busy.accept()[0].close()

        hanging = threading.Thread(target=hang_up)
        hanging.start()
        try:
            with pytest.raises(ClusterUnreachable, match=r"does not answer .* try again"):
                ask("127.0.0.1", busy.getsockname()[1], files)
        finally:
            busy.shutdown(socket.SHUT_RDWR)
            hanging.join()


ASK_SETTINGS = """
import json, sys
import dask, distributed

def settings(names):
    return [str(dask.config.get(name)) for name in names]

ca, cert, key = sys.argv[2:5]
names = sys.argv[5:]
security = distributed.Security(
    tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True
)
with distributed.Client(sys.argv[1], security=security) as client:
    there = [
        client.run_on_scheduler(settings, names),
        *client.run(settings, names, nanny=True).values(),
        *client.run(settings, names).values(),
    ]
print(json.dumps([settings(names), *there]))
"""


def test_no_process_of_a_cluster_wakes_up_as_often_as_dask_has_it(cluster: Record) -> None:
    files = credentials.load(cluster.credentials)
    paths = [files.ca_path, files.cert_path, files.key_path]
    asked = subprocess.run(
        [sys.executable, "-c", ASK_SETTINGS, cluster.address, *paths, *DASK_IDLE],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    of_dask, *there = json.loads(asked.stdout.splitlines()[-1])  # which knows all of the names
    wanted = [str(value) for value in DASK_IDLE.values()]
    assert there == [wanted] * 3
    assert all(ours != theirs for ours, theirs in zip(wanted, of_dask, strict=True))


def test_addresses_without_a_record_keep_their_scheme(tmp_path: Path) -> None:
    with elsewhere(tmp_path):
        assert resolve("dask://h:1").address == "tcp://h:1"
        assert resolve("tls://h:1").address == "tls://h:1"
        assert resolve("ray://h:1").address == "ray://h:1"
        with pytest.raises(UnknownTarget, match="begins with one of"):
            resolve("ftp://h:1")


def test_a_wrong_port_is_told_with_the_cluster_that_is_known(cluster: Record) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(CredentialsError) as raised:
        resolve(f"http://127.0.0.1:{port}")
    assert f":{port} (nobody answers there) are here" in str(raised.value)
    assert str(raised.value).endswith(f"this user knows the cluster at {cluster.web_address}")


def test_an_engine_that_is_another_is_said(cluster: Record) -> None:
    with pytest.raises(UnknownTarget, match="runs on dask"):
        resolve(f"ray://127.0.0.1:{cluster.port}")


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "2001:db8::1", "example.invalid"])
def test_insecure_is_for_loopback_only(host: str) -> None:
    before = records.everything()
    with pytest.raises(UsageError, match="--insecure is for loopback only"):
        clusters.up("dask", host, free_port(), 0, 0, secure=False)
    assert records.everything() == before


def test_ray_is_never_insecure() -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="TLS and a token only"):
        clusters.up("ray", "127.0.0.1", free_port(), 0, free_port(), secure=False)


def test_a_port_that_is_taken_is_named(cluster: Record) -> None:
    before = records.everything()
    with pytest.raises(UsageError, match=f"127.0.0.1:{cluster.port} cannot be listened on"):
        clusters.up("dask", "127.0.0.1", cluster.port, 0, 0)
    assert records.everything() == before


@pytest.mark.parametrize("tries", [1, 2])
def test_a_head_that_answers_and_ends_before_it_has_begun_is_started_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    head = dask_programs.head
    started: list[Place] = []

    def gives_up_first(place: Place) -> Program:
        started.append(place)
        if len(started) > 1:
            return head(place)
        return Program("scheduler", [sys.executable, "-c", ANSWERS_ONCE, str(place.record.port)])

    monkeypatch.setattr(dask_programs, "TRIES", tries)
    monkeypatch.setattr(dask_programs, "head", gives_up_first)
    monkeypatch.setattr(dask_programs, "has_begun", lambda _: len(started) == 2)
    before = records.everything()
    if tries == 1:
        with pytest.raises(StartupFailed, match="the agent did not start in time"):
            begin(secure=False)
        assert records.everything() == before
        return
    record = begin(secure=False)
    try:
        assert len(started) == 2
        assert not started[0].directory.exists()
        assert clusters.local(record).running
    finally:
        clusters.down(record)


@pytest.mark.parametrize("tries", [1, 2])
def test_a_node_that_ends_before_the_head_knows_it_is_started_again(
    cluster: Record, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    node = dask_programs.node
    started: list[Place] = []

    def gives_up_first(place: Place, asked: Node) -> Program:
        started.append(place)
        if len(started) > 1:
            return node(place, asked)
        return Program("worker", [sys.executable, "-c", "raise SystemExit('timed out here')"])

    monkeypatch.setattr(dask_programs, "TRIES", tries)
    monkeypatch.setattr(dask_programs, "node", gives_up_first)
    before = clusters.local(cluster).running
    if tries == 1:
        with pytest.raises(StartupFailed, match="timed out here"):
            clusters.join(cluster, Node("again", "", 1, 512 * MIB))
    else:
        clusters.leave(cluster, clusters.join(cluster, Node("again", "", 1, 512 * MIB)))
    assert len(started) == tries
    assert not any(place.directory.exists() for place in started)
    assert clusters.local(cluster).running == before
    assert not (cluster.directory / "node-again").exists()


ANSWERS_ONCE = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as door:
    door.accept()[0].close()
sys.exit("the agent did not start in time")
"""


def test_a_head_that_does_not_start_is_told_with_its_output_and_leaves_nothing() -> None:
    before = records.everything()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__PRELOAD", "no_such_module_of_anybody")
        with pytest.raises(StartupFailed, match="no_such_module_of_anybody"):
            begin()
    assert records.everything() == before


# -- the end --------------------------------------------------------------------------------------


def test_an_insecure_cluster_is_on_loopback_and_down_ends_it_and_nobody_else(
    cluster: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger_port = free_port()
    bystander = subprocess.Popen(  # somebody's own Dask, which is not ours to end
        [
            sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host",
            f"tcp://127.0.0.1:{stranger_port}", "--dashboard-address", "127.0.0.1:0",
        ],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        record = begin(secure=False)
        kept = [psutil.Process(process.pid) for process, _ in clusters.local(record).processes]
        assert not record.credentials.exists()
        assert {host for host, _ in listeners(record)} == {"127.0.0.1"}
        plain = stranger.over_tcp("127.0.0.1", record.web_port)
        assert "501" in plain  # it wants GET, and a host of loopback: see below
        assert asked(record.web_port, f"127.0.0.1:{record.web_port}").startswith("HTTP/1.0 200")
        for name in ("evil.example", f"evil.example:{record.web_port}", "", "127.0.0.1:1"):
            assert asked(record.web_port, name).startswith("HTTP/1.0 403"), name
        assert main(["cluster", "down", f"127.0.0.1:{record.port}"]) == 0
        assert "2 processes ended here" in capsys.readouterr().out
        assert not any(one.is_running() and one.status() != "zombie" for one in kept)
        assert not record.directory.exists()
        assert bystander.poll() is None
        assert clusters.local(cluster).is_whole
    finally:
        bystander.terminate()
        bystander.wait()


def asked(port: int, host: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return plain.recv(4096).decode()


def test_status_says_when_a_process_is_gone_and_down_still_ends_the_rest(
    cluster: Record, wait_until: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The last test of the module's cluster: its head is killed."""
    head = next(p for p, _ in clusters.local(cluster).processes if p.role == "scheduler")
    os.kill(head.pid, 9)
    wait_until(lambda: not processes.is_running(head))
    assert main(["cluster", "status", cluster.web_address, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)[0]
    assert not report["ok"] and "does not tell its nodes" in report["problem"]
    assert [one["running"] for one in report["processes"] if one["role"] == "scheduler"] == [False]
    with pytest.raises(ClusterUnreachable, match="no cluster answers"):
        resolve(cluster.web_address).check()
    marks = [process.mark for process, _ in clusters.local(cluster).processes]
    kept = [Path(p.directory) for p, _ in clusters.local(cluster).processes if p.directory]
    assert kept and all(path.exists() for path in kept)
    assert main(["cluster", "down", cluster.web_address]) == 0
    assert [found for mark in marks for found in processes.marked(mark)] == []
    assert not any(path.exists() for path in kept)
    assert not cluster.directory.exists()
