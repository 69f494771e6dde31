"""Attacks on the page, and on what finds a session. Each is one that others have fallen to.

- A1 a scan for ports: `test_nothing_listens_unless_it_is_asked_for`
- A2 from another address of the host: `test_it_listens_on_loopback_only`
- A3 a foreign name for loopback: `test_a_foreign_host_is_refused_on_every_route_and_method`
- A4 guessing the key: `test_without_the_key_nothing_is_told`, and where it might be read:
  `test_the_key_is_in_no_process_list_and_in_nothing_printed`
- A5 another site: `test_another_site_can_neither_read_nor_cancel`
- A6 smuggled, huge and slow requests: `test_smuggled_and_huge_requests_are_refused`,
  `test_a_head_without_end_is_cut_off`,
  `test_connections_that_say_nothing_or_never_read_hurt_nobody`
- A7 another user: `test_another_user_gets_neither_to_the_socket_nor_to_the_memory`
- A8 links and swapped folders: `test_a_folder_that_is_swapped_harms_nobody`, and in
  `test_commands`, `test_a_folder_that_others_may_enter_is_refused_by_both_sides`
- A9 names that are paths or markup: `test_names_and_logs_come_without_control_characters`
- A10 logs that steer a terminal, or have no end: the same one, and
  `test_a_line_without_end_takes_neither_the_page_nor_the_program`
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn

import mars
import mars.remote as mr
from mars.deploy import certificates
from mars.settings import PAGE_CONNECTIONS, PAGE_LOG_BYTES
from mars.web.desk import Desk
from mars.web.guard import OPEN, refusal
from mars.web.server import is_loopback

READ = [
    "/api/overview", "/api/calls", "/api/call?key=x", "/api/stack?worker=1", "/api/graph",
    "/api/objects",
    "/api/timeline?since=0", "/api/report", "/api/events", "/api/log?call=x", "/nothing",
]  # fmt: skip
CANCEL = "/api/cancel?key=x"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with mars.new_session(n_cpu=1, web=True, default=False) as opened:
        yield opened


class Probe:
    """Speaks HTTP as badly as it likes."""

    def __init__(self, session: Any) -> None:
        page = session.page
        self.token = page.token
        self.port = int(page.address.rsplit(":", 1)[1].strip("/"))
        self.host = f"127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def raw(self, data: bytes) -> bytes:
        with self.connect() as sock:
            sock.sendall(data)
            got = b""
            while part := sock.recv(65_536):
                got += part
        return got

    def ask(self, path: str, method: str = "GET", *more: str, host: str | None = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.host}", *more]
        return self.raw("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))

    def status(self, *given: str, host: str | None = None) -> int:
        return int(self.ask(*given, host=host).split(b" ", 2)[1])

    @property
    def key(self) -> str:
        return f"Authorization: Bearer {self.token}"


@pytest.fixture(scope="module")
def probe(session: Any) -> Probe:
    return Probe(session)


def test_nothing_listens_unless_it_is_asked_for() -> None:
    with mars.new_session(n_cpu=1, default=False) as session:
        mr.spawn(abs, args=(-1,)).execute(session=session)
        me = psutil.Process()
        own = {child.pid for child in me.children(recursive=True)} - _others(me)
        assert session.get_web_endpoint() is None
        for pid in own:
            assert not [
                one for one in psutil.Process(pid).net_connections("inet") if one.status == "LISTEN"
            ]


def _others(me: psutil.Process) -> set[int]:
    return {one.pid for one in me.children(recursive=True) if "ray" in " ".join(one.cmdline())}


def test_it_listens_on_loopback_only(probe: Probe) -> None:
    mine = [
        one.laddr.ip
        for one in psutil.Process().net_connections("inet")
        if one.status == "LISTEN" and one.laddr.port == probe.port
    ]
    assert mine == ["127.0.0.1"]
    others = {
        one.address
        for some in psutil.net_if_addrs().values()
        for one in some
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    }
    for address in others:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, probe.port), timeout=60)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
@pytest.mark.parametrize("more", [{}, {"token": "x" * 40}, {"certificate": "c", "key": "k"}])
def test_beyond_loopback_it_wants_a_token_and_a_certificate(host: str, more: Any) -> None:
    with pytest.raises(mars.errors.UsageError, match="does not listen"):
        mars.new_session(engine="inline", default=False, web={"host": host, **more})
    assert not is_loopback(host)


def test_a_certificate_that_is_none_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    web = {"certificate": str(bad), "key": str(bad)}
    with pytest.raises(OSError, match=r"PEM|SSL"):  # ssl.SSLError is one
        mars.new_session(engine="inline", default=False, web=web)


def test_a_short_token_and_unknown_options_are_refused() -> None:
    with pytest.raises(mars.errors.UsageError, match="22"):
        mars.new_session(engine="inline", default=False, web={"token": "secret"})
    with pytest.raises(mars.errors.UsageError, match="'prot'"):
        mars.new_session(engine="inline", default=False, web={"prot": 8000})


FOREIGN = (
    "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1",
    "127.0.0.1.evil.example:{port}", "localhost:{port}@evil",
)  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_host_is_refused_on_every_route_and_method(probe: Probe, host: str) -> None:
    host = host.format(port=probe.port)
    for path in [*READ, CANCEL, *OPEN]:
        for method in METHODS:
            assert probe.status(path, method, probe.key, host=host) == 403, (path, method)
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    shake = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    assert probe.status("/api/events", "GET", probe.key, *upgrade, shake, host=host) == 403


def test_a_request_without_a_host_or_with_two_is_refused(probe: Probe) -> None:
    assert probe.raw(b"GET /api/overview HTTP/1.0\r\n\r\n").split()[1] in (b"400", b"403")
    got = probe.ask("/api/overview", "GET", f"Host: {probe.host}", probe.key)
    assert got.split()[1] == b"400"


@pytest.mark.parametrize("path", [*READ, "/metrics"])
def test_without_the_key_nothing_is_told(probe: Probe, path: str) -> None:
    short = probe.token[:-1]
    for wrong in (
        (), (f"Authorization: Bearer {short}",), ("Authorization: Bearer ",),
        (f"Authorization: Bearer {probe.token}x",), (f"Authorization: Basic {probe.token}",),
        (f"Cookie: key={probe.token}",), (f"Referer: http://x/#key={probe.token}",),
    ):  # fmt: skip
        got = probe.ask(path, "GET", *wrong)
        assert got.split()[1] == b"401", wrong
        assert probe.token.encode() not in got
    assert probe.status(path, "GET", probe.key, probe.key) == 400
    assert probe.status(f"{path}{'&' if '?' in path else '?'}key={probe.token}") == 401


def test_the_key_is_in_no_process_list_and_in_nothing_printed(
    session: Any, probe: Probe, capfd: pytest.CaptureFixture[str]
) -> None:
    assert probe.status("/api/overview", "GET", probe.key) == 200
    assert probe.status("/api/overview") == 401
    for one in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        told = Path(f"/proc/{one.pid}/cmdline").read_bytes()
        told += Path(f"/proc/{one.pid}/environ").read_bytes()
        assert probe.token.encode() not in told
    out, err = capfd.readouterr()
    assert probe.token not in out + err + repr(session) + session._repr_html_()


@pytest.mark.parametrize(
    "more",
    [
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site", "Origin: http://localhost:1"),
        ("Sec-Fetch-Site: cross-site", "Content-Type: text/plain"),
    ],
)
def test_another_site_can_neither_read_nor_cancel(probe: Probe, more: tuple[str, ...]) -> None:
    assert probe.status(CANCEL, "POST", probe.key, *more) == 403
    assert probe.status("/api/overview", "GET", probe.key, *more) == 403
    assert b"access-control" not in probe.ask("/api/overview", "GET", probe.key, *more).lower()


def test_what_changes_something_is_a_post_and_all_else_a_get(probe: Probe) -> None:
    for method in METHODS:
        assert probe.status(CANCEL, method, probe.key) == (200 if method == "POST" else 405)
        if method != "GET":
            assert probe.status("/api/overview", method, probe.key) == 405


def test_every_answer_has_a_strict_policy(probe: Probe) -> None:
    for path, more in (
        ("/", ()),
        ("/page.js", ()),
        ("/api/overview", ()),
        ("/api/calls", (probe.key,)),
    ):
        head = probe.ask(path, "GET", *more).partition(b"\r\n\r\n")[0].lower()
        assert b"content-security-policy: default-src 'none'; script-src 'self'" in head
        assert b"unsafe" not in head and b"frame-ancestors 'none'" in head
        assert b"nosniff" in head and b"no-referrer" in head and b"set-cookie" not in head


def test_smuggled_and_huge_requests_are_refused(probe: Probe) -> None:
    huge = probe.ask("/", "GET", f"X: {'x' * 100_000}")
    assert not huge or huge.split()[1].startswith(b"4")
    assert probe.status(CANCEL, "POST", probe.key, "Content-Length: 100000000") == 413
    both = probe.ask(CANCEL, "POST", probe.key, "Content-Length: 4", "Transfer-Encoding: chunked")
    assert both.split()[1].startswith(b"4")
    for path in ("/../../etc/passwd", "/page.js/../../server.py", "/%2e%2e/server.py", "/\x01"):
        assert probe.status(path, "GET", probe.key) in (400, 404)
    for number in ("-1", "x", "9" * 40, "1e3", "²"):
        sent = number.encode().decode("latin-1")
        assert probe.status(f"/api/timeline?since={sent}", "GET", probe.key) in (400, 404)


def test_connections_that_say_nothing_or_never_read_hurt_nobody(
    session: Any, probe: Probe, wait_until: Callable[..., None]
) -> None:
    silent = [probe.connect() for _ in range(500)]
    try:
        for one in silent[:50]:
            one.sendall(b"GET / HTTP/1.1\r\nHost: ")
        deaf = probe.connect()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        head = f"GET /api/events HTTP/1.1\r\nHost: {probe.host}\r\n{probe.key}\r\n\r\n"
        deaf.sendall(head.encode())
        silent.append(deaf)
        me = psutil.Process()

        def held() -> int:  # ours; the other ends, which the test has, are at other ports
            return sum(one.laddr.port == probe.port for one in me.net_connections("tcp"))

        wait_until(lambda: held() <= PAGE_CONNECTIONS + 1)
        done = mr.map(abs, range(-2000, 0)).execute(session=session).fetch(session=session)
        assert len(done) == 2000
        got = json.loads(probe.ask("/api/overview", "GET", probe.key).partition(b"\r\n\r\n")[2])
        assert got["closed"] is False
    finally:
        for one in silent:
            one.close()


def test_a_head_without_end_is_cut_off(probe: Probe) -> None:
    before = psutil.Process().memory_info().rss
    sent = 0
    with probe.connect() as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {probe.host}\r\nX: ".encode())
        try:
            while sent < 100_000_000:
                sock.sendall(b"x" * 65_536)
                sent += 65_536
        except OSError:
            pass  # it has hung up
    assert sent < 50_000_000  # what lies in buffers of the system was sent, too
    assert psutil.Process().memory_info().rss < before + 50_000_000
    assert probe.status("/api/overview", "GET", probe.key) == 200


def _as_nobody(paths: list[str], sockets: list[str]) -> int:
    """How many of these a process of another user gets at; -1: it cannot be another user."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        got = 0
        try:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            for path in paths:
                try:
                    os.close(os.open(path, os.O_RDONLY))
                    got += 1
                except PermissionError:
                    continue
            for path in sockets:
                try:
                    with socket.socket(socket.AF_UNIX) as sock:
                        sock.connect(path)
                        got += bool(sock.send(b'{"path": "/sessions"}\n') and sock.recv(1))
                except OSError:
                    continue
        except BaseException:
            got = 255
        os.write(write, bytes([got]))
        os._exit(0)
    os.close(write)
    (got,) = os.read(read, 1)
    os.close(read)
    os.waitpid(child, 0)
    return got


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_neither_to_the_socket_nor_to_the_memory(
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    # Each folder above is open to all: it is ours that has to refuse, and the socket itself.
    above = Path(tempfile.mkdtemp(prefix="pytest-attack-", dir="/tmp"))
    above.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(above))
    lone = Desk()
    lone.come(lambda asked: [b"told\n"])
    try:
        wait_until(lambda: lone.path is not None)
        assert lone.path is not None
        with mars.new_session(n_cpu=1, default=False) as session:
            mr.spawn(shout).execute(session=session)
            held = [
                path
                for one in [psutil.Process(), *psutil.Process().children(recursive=True)]
                for path in (
                    f"/proc/{one.pid}/mem",
                    f"/proc/{one.pid}/fd",
                    f"/proc/{one.pid}/environ",
                )
            ]
            assert _as_nobody([str(above / "mars"), *held], [lone.path]) == 0
            Path(lone.path).chmod(0o777)
            (above / "mars").chmod(0o755)  # somebody has opened both: then the system tells us who
            assert _as_nobody([], [lone.path]) == 0
            (above / "mars").chmod(0o700)
    finally:
        lone.leave()
        shutil.rmtree(above)


def test_a_folder_that_is_swapped_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    lone = Desk()
    lone.come(lambda asked: [b"told\n"])
    wait_until(lambda: lone.path is not None)
    assert lone.path is not None
    victim = tmp_path / "victim"
    victim.mkdir()
    name = Path(lone.path).name
    (victim / name).write_text("precious")
    (tmp_path / "mars").rename(tmp_path / "away")
    (tmp_path / "mars").symlink_to(victim)
    lone.leave()
    assert (victim / name).read_text() == "precious"
    assert not list((tmp_path / "away").iterdir())  # it was removed where it was made


def flood(size: int) -> None:
    """Prints a line that does not end, in pieces."""
    for _ in range(size // 1_000_000):
        sys.stdout.write("x" * 1_000_000)
    sys.stdout.flush()


def test_a_line_without_end_takes_neither_the_page_nor_the_program(
    session: Any, probe: Probe
) -> None:
    before = psutil.Process().memory_info().rss
    call = mr.spawn(flood, args=(100_000_000,)).execute(session=session)
    log = probe.ask(f"/api/log?call={call.call.key}", "GET", probe.key)
    assert b"event: gap" in log and b"event: end" in log
    assert len(log) < 2 * PAGE_LOG_BYTES
    assert psutil.Process().memory_info().rss < before + 60_000_000


def test_the_guard_allows_what_the_page_needs() -> None:
    hosts = frozenset({"127.0.0.1:1"})
    scope = {"type": "http", "path": "/api/calls", "method": "GET", "query_string": b""}
    headers = [(b"host", b"127.0.0.1:1"), (b"authorization", b"Bearer t"),
               (b"sec-fetch-site", b"same-origin")]  # fmt: skip
    assert refusal(scope | {"headers": headers}, hosts, "http", "t") is None
    assert refusal(scope | {"headers": headers, "type": "websocket"}, hosts, "http", "t")


def shout() -> None:
    """Prints what would steer a terminal or a page."""
    print("\x1b]8;;http://evil\x07link\x1b]8;;\x07 \x1b[2J <script>alert(1)</script>\r\nsecond")


def test_names_and_logs_come_without_control_characters(session: Any, probe: Probe) -> None:
    name = "../../x\r\n\x1b]0;t\x07<script>" + "é" * 10_000
    call = mr.spawn(shout, name=name).execute(session=session)
    log = probe.ask(f"/api/log?call={call.call.key}", "GET", probe.key)
    body = log.partition(b"\r\n\r\n")[2]
    assert b"link" in body and b"event: end" in body
    assert b"\x1b" not in body and b"\\u001b" not in body and b"\\\\x1b" in body
    told = probe.ask(f"/api/call?key={call.call.key}", "GET", probe.key)
    assert b"\\u001b" not in told and len(told) < 20_000


def fail() -> None:
    """Fails."""
    raise ValueError("so")


def test_prometheus_reads_the_numbers_with_the_key(
    session: Any, probe: Probe, wait_until: Callable[..., None]
) -> None:
    calls = [mr.spawn(fail, name="fails"), *(mr.spawn(ord, args=("a",)) for _ in range(3))]
    session.execute(*calls, on_error="continue")

    def lines() -> list[str]:
        got = probe.ask("/metrics", "GET", probe.key)
        return got.partition(b"\r\n\r\n")[2].decode().splitlines()

    wait_until(lambda: 'mars_calls_total{ending="value",function="ord"} 3.0' in lines())
    assert 'mars_calls_total{ending="failed",function="fail"} 1.0' in lines()
    assert "mars_runs 0.0" in lines() and "mars_cores 1.0" in lines()


def picky(number: int) -> int:
    """Fails for one item."""
    print("looks at", number)
    if number == 3:
        raise KeyError("three")
    return number


def test_a_map_shows_the_error_of_its_item_and_the_lines_of_all(session: Any, probe: Probe) -> None:
    items = mr.map(picky, range(8))
    session.execute(items, on_error="continue")
    (call,) = items.calls_in(session.realm)
    told = probe.ask(f"/api/call?key={call.key}", "GET", probe.key)
    assert b"KeyError: 'three'" in told and b"in picky" in told
    log = probe.ask(f"/api/log?call={call.key}", "GET", probe.key).decode()
    assert all(rf"picky {n} \u2502 looks at {n}\n" in log for n in range(8))


def test_a_page_ends_with_its_session_also_before_who_never_reads() -> None:
    session = mars.new_session(engine="inline", default=False, web=True)
    probe = Probe(session)
    long = mr.spawn(print, args=("line of a log\n" * 2_000_000,)).execute(session=session)
    events, deaf = probe.connect(), probe.connect()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    asked = {events: "/api/events", deaf: f"/api/log?call={long.call.key}"}
    for client, path in asked.items():
        head = f"GET {path} HTTP/1.1\r\nHost: {probe.host}\r\n{probe.key}\r\n"
        client.sendall(f"{head}Last-Event-ID: 0\r\n\r\n".encode())
        assert b"200" in client.recv(1000)
    session.close()
    assert session.get_web_endpoint() is None
    for client in asked:
        with contextlib.suppress(ConnectionResetError):
            while client.recv(65_536):
                pass
        client.close()
    with pytest.raises(ConnectionRefusedError):
        probe.connect()


def test_a_page_that_nobody_watches_does_not_look_whether_it_shall_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    real = uvicorn.Server.on_tick

    async def on_tick(self: uvicorn.Server, counter: int) -> bool:
        looks.append(counter)
        return await real(self, counter)

    monkeypatch.setattr(uvicorn.Server, "on_tick", on_tick)
    with mars.new_session(engine="inline", default=False, web=True) as session:
        probe, until = Probe(session), time.monotonic() + 0.4
        while time.monotonic() < until:
            assert b" 200 " in probe.ask("/", "GET")
    assert looks == [0]


def test_a_page_beyond_loopback_speaks_tls_and_wants_its_token(tmp_path: Path) -> None:
    ca, ca_key, cert, key = (tmp_path / name for name in ("ca.pem", "ca.key", "c.pem", "c.key"))
    day = datetime.timedelta(days=1)
    certificates.make_authority(ca, ca_key, day)
    certificates.issue((ca, ca_key.read_bytes()), cert, key, ["127.0.0.1"], server=True)
    token = secrets.token_urlsafe(32)
    web = {"host": "0.0.0.0", "token": token, "certificate": str(cert), "key": str(key)}
    with mars.new_session(engine="inline", default=False, web=web) as session:
        port = int(session.page.address.rsplit(":", 1)[1].strip("/"))
        context = ssl.create_default_context(cafile=str(ca))
        for given, status in ((token, b"200"), (token[:-1], b"401")):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
            ):
                lines = ["GET /api/overview HTTP/1.1", f"Host: 127.0.0.1:{port}",
                         f"Authorization: Bearer {given}", "Connection: close", "", ""]  # fmt: skip
                sock.sendall("\r\n".join(lines).encode())
                assert sock.recv(1000).split()[1] == status
