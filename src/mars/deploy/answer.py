"""The answer on a cluster's web port: which engine runs here, and at which address. Nothing else.

A program of its own, ``python -m mars.deploy.answer DIRECTORY``, started by `mars.deploy.clusters`.
It says nothing to whom it does not know: the connection is TLS, both sides prove themselves, and
the request carries the token. Only for a cluster without credentials, which is on loopback, it is
plain; then the request must name a loopback host, so that no web page can make a browser ask. Who
comes and says nothing, or little at a time, is hung up on, and cannot keep others out. Asked by
`ask`.
"""

from __future__ import annotations

import collections
import contextlib
import hmac
import http.client
import ipaddress
import json
import signal
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import mars._version
from mars.deploy import credentials, knock, records
from mars.deploy.credentials import Credentials
from mars.deploy.records import Record
from mars.errors import ClusterUnreachable, CredentialsError
from mars.settings import (
    KNOCK_S,
    WEB_ANSWER_BYTES,
    WEB_CONNECTIONS,
    WEB_CONNECTIONS_OF_A_PEER,
    WEB_LOOK_S,
    WEB_TRIES,
    WEB_VISIT_S,
)

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names by which a request may call a host that is plain."""


_TLS_HANDSHAKE: Final = b"\x16"

_NOT_TLS: Final = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This is the port of a cluster. It answers over TLS only, and only to holders of its\n"
    b"credentials. In a program: mars.new_session('http://HOST:PORT')\n"
)


def ask(host: str, port: int, files: Credentials) -> Record:
    """Ask a web port which cluster is behind it.

    Parameters
    ----------
    host, port : str and int
        The web port, by whatever name or way it is reached.
    files : Credentials
        Of the cluster that is expected there.

    Raises
    ------
    ClusterUnreachable
        Nobody listens there, or it has no time for us.
    CredentialsError
        It is another cluster, or something else.
    """
    knock.knock(host, port, None)
    where = records.joined(host, port)
    for left in reversed(range(WEB_TRIES)):
        try:
            status, reason, text = _ask(host, port, files)
        except (ssl.SSLEOFError, ConnectionError, TimeoutError) as error:
            if left and not isinstance(error, TimeoutError):
                continue  # somebody else has taken our place
            raise ClusterUnreachable(
                f"the web port {where} does not answer ({error}); it hangs up on who keeps it "
                f"busy: try again, or use the address of the engine, which `mars cluster status` "
                f"prints where the cluster was started"
            ) from error
        except (ssl.SSLError, http.client.HTTPException, OSError) as error:
            raise CredentialsError(
                f"what answers at {where} is not the cluster of these credentials ({error})"
            ) from error
        if status == 200:
            return records.parse(text, f"the answer of {where}")
        raise CredentialsError(
            f"the cluster at {where} refuses these credentials ({status} {reason})"
        )
    raise AssertionError("the last try returns or raises")


def _ask(host: str, port: int, files: Credentials) -> tuple[int, str, bytes]:
    client = http.client.HTTPSConnection(host, port, timeout=KNOCK_S, context=knock.context(files))
    try:
        client.request("GET", "/", headers={"Authorization": f"Bearer {files.token}"})
        answer = client.getresponse()
        return answer.status, answer.reason, answer.read(WEB_ANSWER_BYTES)
    finally:
        client.close()


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    server_version = "mars"
    sys_version = ""
    timeout = KNOCK_S

    def do_GET(self) -> None:
        refusal = self.server.refusal(self.headers.get_all("Host", []), self._token())
        if refusal is None and self.path != "/":
            refusal = (404, "there is only /")
        if refusal is not None:
            self._say(refusal[0], {"error": refusal[1]})
        else:
            self._say(200, self.server.facts)

    def log_message(self, *_: object) -> None:
        """Say nothing: what strangers ask for does not belong into a log."""

    def _token(self) -> str:
        found = self.headers.get_all("Authorization", [])
        return found[0].removeprefix("Bearer ") if len(found) == 1 else ""

    def _say(self, status: int, facts: dict[str, object]) -> None:
        body = json.dumps(facts).encode() + b"\n"
        self.send_response(status)
        for name, value in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "default-src 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Visit:
    """One connection, from its beginning to its end."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.connection = connection
        self.peer = _network(address)
        self.until = time.monotonic() + WEB_VISIT_S
        self._lock = threading.Lock()

    def secure(self, context: ssl.SSLContext) -> None:
        """Go on over TLS."""
        with self._lock:  # the first object lets go of the connection, the second one takes it
            self.connection = context.wrap_socket(
                self.connection, server_side=True, do_handshake_on_connect=False
            )
        self.connection.do_handshake()

    def hang_up(self) -> None:
        """Have whoever reads or writes see an end; from any thread."""
        with self._lock, contextlib.suppress(OSError):
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)


def _network(address: str) -> str:
    """Who has an address; of version 6 everybody has very many, which begin alike."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if known.version == 4:
        return address
    return str(ipaddress.ip_network((int(known), 64), strict=False))


class _Server(ThreadingHTTPServer):
    """Serves a record to whom may see it."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = WEB_CONNECTIONS

    def __init__(self, record: Record, files: Credentials | None) -> None:
        self.record, self.files = record, files
        self.facts = {name: getattr(record, name) for name in record.__slots__} | {
            "address": record.address,
            "mars": mars._version.__version__,
        }
        self._visits: list[_Visit] = []  # the oldest first
        self._guard = threading.Lock()
        self._context = None if files is None else knock.context(files, server=True)
        self.address_family = socket.AF_INET6 if ":" in record.host else socket.AF_INET
        super().__init__((record.host, record.web_port), _Handler)

    def refusal(self, hosts: list[str], token: str) -> tuple[int, str] | None:
        """Status and reason if a request is not answered."""
        if self.files is None:
            allowed = {f"{name}:{self.record.web_port}" for name in LOOPBACK}
            return None if len(hosts) == 1 and hosts[0] in allowed else (403, "which host?")
        right = hmac.compare_digest(token.encode(), self.files.token.encode())
        return None if right else (401, "the token of the cluster is missing or wrong")

    def process_request(self, request: object, client_address: object) -> None:
        """Answer one connection, in a thread of its own."""
        assert isinstance(request, socket.socket) and isinstance(client_address, tuple)
        visit = _Visit(request, client_address[0])
        with self._guard:
            self._visits.append(visit)
            crowded = self._one_too_many(visit.peer)
            if crowded is not None:
                self._visits.remove(crowded)
        if crowded is not None:
            crowded.hang_up()
        serving = threading.Thread(target=self._serve, args=(visit, client_address), daemon=True)
        try:
            serving.start()
        except RuntimeError:  # there are no more threads
            self._end(visit)

    def _one_too_many(self, peer: str) -> _Visit | None:
        """Whose turn is over, as somebody of ``peer`` has come; the guard is held."""
        counts = collections.Counter(one.peer for one in self._visits)
        if counts[peer] <= WEB_CONNECTIONS_OF_A_PEER:
            if len(self._visits) <= WEB_CONNECTIONS:
                return None
            peer = max(counts, key=counts.__getitem__)
        return next(one for one in self._visits if one.peer == peer)

    def service_actions(self) -> None:
        """Hang up on those whose time is over; called twice a second."""
        now = time.monotonic()
        with self._guard:
            late = [one for one in self._visits if one.until < now]
        for one in late:
            one.hang_up()

    def _serve(self, visit: _Visit, client_address: object) -> None:
        with contextlib.suppress(Exception):  # there is nothing to say to who has gone
            visit.connection.settimeout(WEB_VISIT_S)
            if self._context is not None:
                if visit.connection.recv(1, socket.MSG_PEEK) != _TLS_HANDSHAKE:
                    visit.connection.sendall(_NOT_TLS)
                    self._end(visit)
                    return
                visit.secure(self._context)
            self.finish_request(visit.connection, client_address)
        self._end(visit)

    def _end(self, visit: _Visit) -> None:
        with self._guard, contextlib.suppress(ValueError):  # somebody has taken its place
            self._visits.remove(visit)
        self.shutdown_request(visit.connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that broke."""


def main(directory: str) -> None:
    """Serve until SIGTERM."""
    record = records.load(Path(directory))
    files = credentials.load(record.credentials) if record.secure else None
    with _Server(record, files) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.serve_forever(WEB_LOOK_S)


if __name__ == "__main__":
    main(sys.argv[1])
