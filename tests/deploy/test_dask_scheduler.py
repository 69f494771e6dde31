"""Who may be a worker of a Dask scheduler."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mars.deploy import credentials
from mars.deploy.dask_scheduler import guard

distributed = pytest.importorskip("distributed")
pytest.importorskip("cryptography")


class Comm:
    """A connection of Dask whose other end has shown a certificate, or none."""

    def __init__(self, pem: str | None, address: str = "tls://10.0.0.9:1") -> None:
        shown = None if pem is None else ssl.PEM_cert_to_DER_cert(pem)
        self.peer_address = address
        self.stream = SimpleNamespace(
            socket=SimpleNamespace(getpeercert=lambda binary_form: shown if binary_form else {})
        )
        self.written: list[Any] = []
        self.is_closed = False

    async def write(self, message: Any) -> None:
        self.written.append(message)

    async def close(self) -> None:
        self.is_closed = True


def registered(comm: Comm) -> bool:
    """Whether a scheduler that others have started takes who is there for a worker."""
    came = []

    async def add_worker(comm: Comm, **facts: Any) -> None:
        came.append(facts)

    scheduler = SimpleNamespace(
        handlers={"register-worker": add_worker, "register_nanny": add_worker}
    )
    guard(scheduler)
    once = dict(scheduler.handlers)
    guard(scheduler)
    assert scheduler.handlers == once
    for handler in once.values():
        asyncio.run(handler(comm, address="tls://10.0.0.9:2"))
    assert len(came) in (0, 2)
    return bool(came)


def test_only_who_shows_a_certificate_for_servers_becomes_a_worker(tmp_path: Path) -> None:
    files = credentials.create(tmp_path / "files", ["10.0.0.1"], datetime.timedelta(days=1))
    assert registered(Comm(Path(files.cert_path).read_text()))
    client = Comm(credentials.pack(tmp_path / "files", client_only=True)[credentials.CERTIFICATE])
    assert not registered(client)
    assert client.is_closed and {one["status"] for one in client.written} == {"error"}
    assert "this certificate is for clients" in client.written[0]["message"]
    assert not registered(Comm(None))


def test_a_certificate_without_purposes_is_for_all_and_without_tls_nobody_has_one() -> None:
    assert registered(Comm(distributed.Security.temporary().tls_client_cert))
    assert registered(Comm(None, "tcp://127.0.0.1:1"))
