"""Stores that run for the tests: real servers, on the loopback address, each in a process.

`make test` has moto's S3 and OpenSSH where they are installed. `make storage` installs the others.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SERVERS = os.path.abspath(os.environ.get("MARS_STORAGE_SERVERS") or "no-such-folder")
"""A folder in which npm has installed s3rver and azurite."""


class Store(NamedTuple):
    """Where a store is, what opens it, and what of that nobody may see."""

    base: str
    options: dict[str, dict[str, Any]]
    secrets: list[str]


def needs(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; make storage installs it")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


START_S = 60.0
"""A server that has not begun after so long, in seconds, will not."""


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextlib.contextmanager
def served(command: list[str], port: int, folder: Path, **variables: str) -> Iterator[None]:
    """Run a server until the end of the block; it is there when the block begins."""
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **variables}, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        limit = time.monotonic() + START_S
        while not answers(port) and server.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        assert server.poll() is None, (folder / "server.log").read_text()
        yield
    finally:
        server.terminate()
        server.wait(20)


def npm_program(name: str) -> list[str]:
    program = Path(SERVERS) / "node_modules" / ".bin" / name
    if not program.exists() or shutil.which("node") is None:
        pytest.skip(f"needs {name} of npm; make storage installs it")
    return ["node", str(program.resolve())]


def make_bucket(options: dict[str, Any]) -> None:
    """In a process of its own: the client leaves threads behind."""
    code = (
        "import json, sys, fsspec; told = json.load(sys.stdin); "
        "fsspec.filesystem(told.pop('protocol'), **told).mkdir('bucket')"
    )
    told = json.dumps(options)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], input=told, text=True, check=True)


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Store]:
    needs("moto", "flask", "flask_cors", "s3fs")
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1"]
    with served([*command, "-p", str(port)], port, folder):
        key = secrets.token_hex(20)
        options = {"key": "otto", "secret": key, "endpoint_url": f"http://127.0.0.1:{port}"}
        make_bucket({"protocol": "s3", **options})
        yield Store("s3://bucket/otto", {"s3": options}, [key])


@contextlib.contextmanager
def s3rver(folder: Path) -> Iterator[Store]:
    """Checks signatures; its keys are fixed."""
    needs("s3fs")
    port = free_port()
    command = [*npm_program("s3rver"), "-d", str(folder), "-a", "127.0.0.1", "-p", str(port)]
    with served(command, port, folder):
        options = {"key": "S3RVER", "secret": "S3RVER", "endpoint_url": f"http://127.0.0.1:{port}"}
        make_bucket({"protocol": "s3", **options})
        yield Store("s3://bucket/otto", {"s3": options}, [])


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[Store]:
    """Microsoft's own emulator of Azure Blob Storage. It checks keys."""
    needs("adlfs")
    port = free_port()
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    command = [
        *npm_program("azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", str(port),
        "--location", str(folder), "--disableTelemetry", "--skipApiVersionCheck", "--silent",
    ]  # fmt: skip
    with served(command, port, folder, AZURITE_ACCOUNTS=f"otto:{key}"):
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName=otto;AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/otto;"
        )
        options = {"connection_string": connection}
        make_bucket({"protocol": "abfs", **options})
        yield Store("abfs://bucket/otto", {"abfs": options}, [key])


@contextlib.contextmanager
def sftp(folder: Path) -> Iterator[Store]:
    """OpenSSH, with a key that only its user may read."""
    needs("paramiko")
    sshd, keygen = shutil.which("sshd", path="/usr/sbin:/usr/bin"), shutil.which("ssh-keygen")
    if sshd is None or keygen is None:
        pytest.skip("needs OpenSSH's sshd and ssh-keygen")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # where sshd wants it
    for name in ("host", "user"):
        subprocess.run(
            [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    port = free_port()
    config = [
        "ListenAddress 127.0.0.1", f"Port {port}", f"HostKey {folder}/host", "UsePAM no",
        f"AuthorizedKeysFile {folder}/user.pub", "StrictModes no", f"PidFile {folder}/pid",
        "PermitRootLogin yes", "PasswordAuthentication no", "Subsystem sftp internal-sftp",
    ]  # fmt: skip
    (folder / "config").write_text("\n".join(config) + "\n")
    (folder / "data").mkdir()
    user = pwd.getpwuid(os.geteuid()).pw_name
    with served([sshd, "-D", "-e", "-f", str(folder / "config")], port, folder):
        options = {"username": user, "port": port, "key_filename": str(folder / "user")}
        yield Store(f"sftp://127.0.0.1{folder}/data", {"sftp": options}, [])


STORES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Store]]] = {
    "moto": moto, "s3rver": s3rver, "azurite": azurite, "sftp": sftp,
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(STORES))
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, leak_guard: None
) -> Iterator[Store]:
    """A store that is empty."""
    with STORES[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made
