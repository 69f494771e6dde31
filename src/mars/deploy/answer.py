"""The answer on a cluster's web port: which engine runs here, and at which address. Nothing else.

A program of its own, ``python -m mars.deploy.answer DIRECTORY``, started by `mars.deploy.clusters`.
It says nothing to whom it does not know: the connection is TLS, both sides prove themselves, and
the request carries the token. Only for a cluster without credentials, which is on loopback, it is
plain; then the request must name a loopback host, so that no web page can make a browser ask.
Asked by `ask`.
"""

from __future__ import annotations

import hmac
import http.client
import json
import signal
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import mars._version
from mars.deploy import credentials, knock, records
from mars.deploy.credentials import Credentials
from mars.deploy.records import Record
from mars.errors import CredentialsError
from mars.settings import KNOCK_S

CONNECTIONS: Final = 16
"""As many are served at once; further ones wait for their turn, or are hung up on."""

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names by which a request may call a host that is plain."""

ANSWER_BYTES: Final = 65_536

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
        Nobody listens there.
    CredentialsError
        It is another cluster, or something else.
    """
    knock.knock(host, port, None)
    client = http.client.HTTPSConnection(host, port, timeout=KNOCK_S, context=knock.context(files))
    try:
        client.request("GET", "/", headers={"Authorization": f"Bearer {files.token}"})
        answer = client.getresponse()
        text = answer.read(ANSWER_BYTES)
    except (ssl.SSLError, http.client.HTTPException, OSError) as error:
        raise CredentialsError(
            f"what answers at {records.joined(host, port)} is not the cluster of these "
            f"credentials ({error})"
        ) from error
    finally:
        client.close()
    if answer.status != 200:
        raise CredentialsError(
            f"the cluster at {records.joined(host, port)} refuses these credentials "
            f"({answer.status} {answer.reason})"
        )
    return records.parse(text, f"the answer of {records.joined(host, port)}")


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

    def log_message(self, *_: Any) -> None:
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


class _Server(ThreadingHTTPServer):
    """Serves a record to whom may see it."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, record: Record, files: Credentials | None) -> None:
        self.record, self.files = record, files
        self.facts = {name: getattr(record, name) for name in record.__slots__} | {
            "address": record.address,
            "mars": mars._version.__version__,
        }
        self._turns = threading.BoundedSemaphore(CONNECTIONS)
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

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection, in a thread of its own."""
        with self._turns:
            request.settimeout(KNOCK_S)
            try:
                if self._context is not None:
                    if request.recv(1, socket.MSG_PEEK) != _TLS_HANDSHAKE:
                        request.sendall(_NOT_TLS)
                        self.shutdown_request(request)
                        return
                    request = self._context.wrap_socket(request, server_side=True)
            except OSError:  # no certificate, a wrong one, or silence: there is nothing to say
                self.shutdown_request(request)
                return
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that broke."""


def main(directory: str) -> None:
    """Serve until SIGTERM."""
    record = records.load(Path(directory))
    files = credentials.load(record.credentials) if record.secure else None
    with _Server(record, files) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
