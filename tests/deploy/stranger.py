"""A stranger at the ports of a cluster: what is said to whom has no certificate.

Also a program: ``python tests/deploy/stranger.py HOST PORT...`` prints it as JSON, one for a port.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys

LIMIT_S = 5.0
TLS_ALERT = b"\x15"
REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


def over_tls(host: str, port: int, certificate: tuple[str, str] | None = None) -> str:
    """The first word over TLS, or how the connection is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(*certificate)
    try:
        with (
            socket.create_connection((host, port), timeout=LIMIT_S) as plain,
            context.wrap_socket(plain) as secret,
        ):
            secret.sendall(REQUEST)
            said = secret.recv(4096)
    except OSError as error:
        return f"refused: {type(error).__name__}"
    return f"said: {said!r}" if said else "refused: hung up"


def over_tcp(host: str, port: int) -> str:
    """The first word without TLS, or how the connection is refused."""
    try:
        with socket.create_connection((host, port), timeout=LIMIT_S) as plain:
            plain.sendall(REQUEST)
            said = plain.recv(4096)
    except OSError as error:
        return f"refused: {type(error).__name__}"
    if said[:1] == TLS_ALERT:
        return "refused: a TLS alert"
    return f"said: {said!r}" if said else "refused: hung up"


if __name__ == "__main__":
    host, *ports = sys.argv[1:]
    print(json.dumps([[over_tls(host, int(port)), over_tcp(host, int(port))] for port in ports]))
