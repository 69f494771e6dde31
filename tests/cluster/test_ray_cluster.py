"""Sessions on a Ray that is there, with certificates and a token."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import RAY_HEAD

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(200)]

DRIVER = """
import sys, time
from pathlib import Path
import mars, mars.remote as mr

class Credentials:
    ca_path = cert_path = Path(sys.argv[2]) / "cert.pem"
    key_path = Path(sys.argv[2]) / "key.pem"
    token = sys.argv[3]

security = Credentials() if Credentials.token else None
try:
    with mars.new_session(sys.argv[1], engine="ray", security=security):
        print("ran", mr.spawn(abs, -4).execute().fetch())
except mars.errors.StartupFailed as error:
    print("refused:", error)
"""


def make_certificate(folder: Path) -> None:
    """One that signs itself, for all addresses of this host."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mars-test")])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing; tells which address Ray takes for ours
        own = sock.getsockname()[0]
    hosts: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(one)) for one in {"127.0.0.1", own}
    ]
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture(scope="module")
def protected(leak_guard: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[
    tuple[str, Path, str]
]:  # fmt: skip
    """Address, folder and token of a Ray that asks for a certificate and a token."""
    folder = tmp_path_factory.mktemp("certificate")
    make_certificate(folder)
    token = secrets.token_hex(32)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "cert.pem"),
        "RAY_TLS_SERVER_KEY": str(folder / "key.pem"),
        "RAY_TLS_CA_CERT": str(folder / "cert.pem"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    head = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", RAY_HEAD], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert head.stdin is not None and head.stdout is not None
    line = head.stdout.readline()
    while line and not line.startswith("at "):
        line = head.stdout.readline()
    yield line.removeprefix("at ").strip(), folder, token
    head.stdin.close()
    head.wait()
    head.stdout.close()


@pytest.mark.parametrize(
    ("token", "told"),
    [("its own", "ran 4"), ("another", "refused: no connection"), ("", "refused: .* uses TLS")],
)
def test_a_protected_ray_takes_who_has_certificate_and_token(
    protected: tuple[str, Path, str], token: str, told: str,
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    import re

    address, folder, own = protected
    given = {"its own": own, "another": secrets.token_hex(32), "": ""}[token]
    done = run_python(DRIVER, address, str(folder), given, limit_s=60.0)
    assert re.search(told, done.stdout), done.stdout + done.stderr
