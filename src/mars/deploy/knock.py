"""Whether a cluster answers, and whether it accepts our credentials, before an engine is loaded.

Engines try again for long, and say little: a wrong certificate is a time-out to Ray. So this opens
one connection, offers the certificate, and waits until the other side says its first word, which
it does only to whom it accepts. Called for
an address that `mars.deploy.targets` has resolved, and by ``mars cluster``.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from mars.deploy.records import joined
from mars.errors import ClusterUnreachable, CredentialsError
from mars.settings import KNOCK_S

if TYPE_CHECKING:
    from mars.deploy.credentials import Credentials


def knock(host: str, port: int, credentials: Credentials | None, limit_s: float = KNOCK_S) -> None:
    """Return when somebody answers there, and accepts the credentials.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        Of an engine or a web port.
    credentials : Credentials or None
        None: only see whether anybody listens.
    limit_s : float, default 5
        How long an answer may take, seconds.

    Raises
    ------
    ClusterUnreachable
        Nobody listens there, or nobody answers.
    CredentialsError
        The other side refuses the credentials, or is not whom they are for.
    """
    where = joined(host, port)
    try:
        with socket.create_connection((host, port), timeout=limit_s) as plain:
            if credentials is not None:
                _offer(plain, where, credentials)
    except OSError as error:
        raise ClusterUnreachable(
            f"no cluster answers at {where} ({error.strerror or error}); is it up, and is the "
            f"address the one that `mars cluster status` prints there?"
        ) from error


def context(credentials: Credentials, *, server: bool = False) -> ssl.SSLContext:
    """TLS with both sides proving themselves.

    Parameters
    ----------
    credentials : Credentials
        Who is trusted, and what is shown.
    server : bool, default False
        Which side this is.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # The authority signs for one cluster only: its certificate says more than a name would.
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(credentials.ca_path)
    made.load_cert_chain(credentials.cert_path, credentials.key_path)
    return made


def _offer(plain: socket.socket, where: str, credentials: Credentials) -> None:
    offered = context(credentials)
    offered.set_alpn_protocols(["h2"])  # Ray asks for it; Dask does not look
    try:
        with offered.wrap_socket(plain) as secret:
            secret.sendall(_HTTP2_HELLO if secret.selected_alpn_protocol() else b"")
            if secret.recv(1):
                return
    except ssl.SSLCertVerificationError as error:
        raise CredentialsError(
            f"what answers at {where} is not the cluster of these credentials "
            f"({error.verify_message}); import the bundle of the cluster that runs there now"
        ) from error
    except (ssl.SSLError, ConnectionError) as error:
        said = getattr(error, "reason", None) or "it hung up"
        raise CredentialsError(_REFUSED.format(where=where, said=said)) from error
    raise CredentialsError(_REFUSED.format(where=where, said="it hung up"))


_REFUSED = (
    "what answers at {where} refuses these credentials ({said}); import the bundle of the cluster "
    "that runs there now: `mars cluster credentials export` makes it"
)

_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # with empty settings
