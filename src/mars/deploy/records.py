"""What this user knows of clusters on this machine: one private directory for each of them.

``$XDG_STATE_HOME/mars/clusters/<id>/`` (by default under ``~/.local/state``) holds
``cluster.json``, ``processes.json``, the credentials, and the output of the engine's processes.
Found by address. Called by all of `mars.deploy`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from mars.deploy import private_files
from mars.engines.kinds import CLUSTERS, KINDS, EngineKind
from mars.errors import CredentialsError, UnknownTarget

Origin = Literal["up", "join", "import"]

_RECORD: Final = "cluster.json"
_ENGINES: Final = frozenset(kind.name for kind in CLUSTERS)


@dataclass(frozen=True, slots=True)
class Record:
    """A cluster that this user started, joined, or has the credentials of."""

    id: str
    engine: str  # its name, one of a cluster
    host: str  # where other hosts reach it
    port: int  # where hosts join
    client_port: int  # where programs connect; Dask: the same
    web_port: int  # where it says what it is; 0: nowhere
    secure: bool  # TLS, and a token
    origin: Origin

    @property
    def directory(self) -> Path:
        """All that this machine has of the cluster."""
        return home() / self.id

    @property
    def credentials(self) -> Path:
        """Directory of its credentials."""
        return self.directory / "credentials"

    @property
    def address(self) -> str:
        """Where programs connect, as the engine writes it."""
        return self.kind.address(joined(self.host, self.client_port), secure=self.secure)

    @property
    def kind(self) -> EngineKind:
        """The engine that it runs on."""
        return KINDS[self.engine]

    @property
    def web_address(self) -> str:
        """What programs of the original pass to `new_session`."""
        return f"http://{joined(self.host, self.web_port)}"


def home() -> Path:
    """Directory of all records."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "mars" / "clusters"


def new_id() -> str:
    """Name for one more cluster."""
    return secrets.token_hex(6)


def save(record: Record) -> None:
    """Write a record down."""
    private_files.directory(home().parent)
    private_files.directory(home())
    private_files.directory(record.directory)
    private_files.replace(record.directory / _RECORD, json.dumps(asdict(record)).encode())


def load(directory: Path) -> Record:
    """Read one.

    Raises
    ------
    CredentialsError
        It is damaged, or others could have written it.
    """
    private_files.directory(directory)
    return parse(private_files.read(directory / _RECORD), str(directory))


def parse(data: bytes, where: str) -> Record:
    """Make a record of what was written down or sent.

    Raises
    ------
    CredentialsError
        It is none.
    """
    kinds = {"host": str, "id": str, "secure": bool, "origin": str, "engine": str}
    try:
        facts = json.loads(data)
        record = Record(**{field.name: facts[field.name] for field in fields(Record)})
        for field in fields(Record):
            if type(getattr(record, field.name)) is not kinds.get(field.name, int):
                raise TypeError(field.name)
        if not record.id.isalnum() or record.engine not in _ENGINES:
            raise ValueError(record.engine)
    except (KeyError, TypeError, ValueError) as error:
        raise CredentialsError(
            f"{where} is damaged: that is no record of a cluster ({error}); remove it"
        ) from error
    return record


def everything() -> list[Record]:
    """All records, the newest first."""
    if not home().exists():
        return []
    private_files.directory(home())
    found = [path for path in home().iterdir() if (path / _RECORD).exists()]
    found.sort(key=lambda path: (path / _RECORD).lstat().st_mtime_ns, reverse=True)
    return [load(path) for path in found]


def forget(record: Record) -> None:
    """Remove all that this machine has of a cluster."""
    private_files.remove(record.directory)


def find(address: str) -> Record | None:
    """Return the cluster at an address: of its engine or its web port, by name or number.

    Raises
    ------
    UnknownTarget
        That is no address (a ValueError).
    """
    host, port = split(address)
    here = None
    for record in everything():
        if port not in (record.port, record.client_port, record.web_port or record.port):
            continue
        if host == record.host:
            return record
        here = _addresses(host) if here is None else here
        if here & _addresses(record.host):
            return record
        if record.origin == "up" and is_loopback(host):
            return record  # started here, on an address of this machine
    return None


def split(address: str) -> tuple[str, int]:
    """Host and port of an address, with or without a scheme.

    Raises
    ------
    UnknownTarget
        It has none (a ValueError).
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None:
        raise UnknownTarget(f"{address!r} is no address; write it as 'host:port'")
    return parts.hostname, port


def joined(host: str, port: int) -> str:
    """``host:port``, with brackets around an address of version 6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host of this name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        found = _addresses(host)
        return bool(found) and all(ipaddress.ip_address(text).is_loopback for text in found)


def _addresses(host: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
