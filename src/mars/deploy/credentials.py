"""What proves that a process belongs to a cluster: certificates of its own authority, and a token.

`mars cluster up` makes an authority for each cluster. Whoever holds its key makes certificates, so
every host that joins makes one with its own names. A *bundle* carries the key to another host; one
for clients carries a finished certificate instead. All of it stands in a directory of mode 0700,
and is valid for some days. Called by `mars.deploy.clusters`, which makes them, and by
`mars.deploy.targets`, which has `load` read them for a session.
"""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars.deploy import certificates, private_files, records
from mars.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CA: Final = "ca.pem"
CA_KEY: Final = "ca.key"
CERTIFICATE: Final = "cert.pem"
KEY: Final = "key.pem"
TOKEN: Final = "token"
TOKEN_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files and token with which a process proves that it belongs to a cluster.

    Attributes
    ----------
    ca_path : str
        Certificate of the cluster's own authority: who is trusted.
    cert_path, key_path : str
        Certificate and private key of this host.
    token : str
        Shared by the whole cluster, for an engine that wants one.
    """

    ca_path: str
    cert_path: str
    key_path: str
    token: str = field(repr=False)


def find(address: str) -> Credentials | None:
    """Return this user's credentials for a cluster, if this machine has them.

    Parameters
    ----------
    address : str
        Of the engine or of the web port: ``"host:port"``, with or without a scheme.

    Returns
    -------
    Credentials or None
        None: no cluster with credentials is known at this address.

    Raises
    ------
    CredentialsError
        They are there, but expired, damaged, or other users could read them.
    """
    record = records.find(address)
    return None if record is None or not record.secure else load(record.credentials)


def load(directory: Path) -> Credentials:
    """Return the credentials in a directory, after a look at owner, mode and date.

    Raises
    ------
    CredentialsError
        They are missing, damaged, expired, or other users could read them.
    """
    private_files.directory(directory)
    try:
        for name in (CA, KEY):
            private_files.check(directory / name)
        end = expiry(directory)
        token = private_files.read(directory / TOKEN).decode()
    except FileNotFoundError as error:
        raise CredentialsError(f"{error.filename} is missing; import the bundle again") from error
    if end <= datetime.datetime.now(datetime.UTC):
        raise CredentialsError(
            f"the credentials in {directory} expired on {end:%Y-%m-%d %H:%M} UTC; end the cluster "
            f"with `mars cluster down`, start it again, and export its new credentials"
        )
    ca, certificate, key = (str(directory / name) for name in (CA, CERTIFICATE, KEY))
    return Credentials(ca, certificate, key, token)


def expiry(directory: Path) -> datetime.datetime:
    """When the credentials in a directory end."""
    return certificates.expiry(directory / CERTIFICATE)


def create(directory: Path, names: Iterable[str], valid_for: datetime.timedelta) -> Credentials:
    """Make an authority, a certificate for this host, and a token.

    Parameters
    ----------
    directory : Path
        Where; it is made.
    names : iterable of str
        Names and addresses under which this host is reached.
    valid_for : timedelta
        How long all of it is valid.
    """
    private_files.directory(directory)
    certificates.make_authority(directory / CA, directory / CA_KEY, valid_for)
    private_files.write_new(directory / TOKEN, secrets.token_hex(TOKEN_BYTES).encode())
    _issue(directory, directory, names)
    return load(directory)


def for_host(source: Path, directory: Path, names: Iterable[str]) -> Credentials:
    """Make credentials for one more host of a cluster.

    Parameters
    ----------
    source : Path
        Credentials of the cluster, with the key of its authority.
    directory : Path
        Where the host's own go; it is made.
    names : iterable of str
        Names and addresses of the host.

    Raises
    ------
    CredentialsError
        Those of the cluster are for clients only.
    """
    load(source)
    private_files.directory(directory)
    for name in (CA, TOKEN):
        private_files.write_new(directory / name, private_files.read(source / name))
    _issue(source, directory, names)
    return load(directory)


def pack(directory: Path, *, client_only: bool) -> dict[str, str]:
    """Return credentials as texts for a bundle.

    Parameters
    ----------
    directory : Path
        Where they are.
    client_only : bool
        Whether programs can use the bundle, and hosts cannot join with it.

    Raises
    ------
    CredentialsError
        Hosts shall join with it, but the credentials here are for clients only.
    """
    load(directory)
    if not client_only and not (directory / CA_KEY).exists():
        raise CredentialsError(_FOR_CLIENTS)
    if client_only and (directory / CA_KEY).exists():
        fresh = private_files.directory(directory / f".client-{secrets.token_hex(4)}")
        try:
            _issue(directory, fresh, ["client"], server=False)
            return _texts(directory, CA, TOKEN) | _texts(fresh, CERTIFICATE, KEY)
        finally:
            private_files.remove(fresh)
    return _texts(directory, CA, TOKEN, *((CERTIFICATE, KEY) if client_only else (CA_KEY,)))


def unpack(texts: Mapping[str, str], directory: Path, names: Iterable[str]) -> Credentials:
    """Write what `pack` returned, and make this host's certificate if that is allowed.

    Parameters
    ----------
    texts : mapping
        What `pack` returned.
    directory : Path
        Where; it is made.
    names : iterable of str
        Names and addresses of this host.
    """
    if set(texts) not in ({CA, TOKEN, CA_KEY}, {CA, TOKEN, CERTIFICATE, KEY}):
        raise CredentialsError("the bundle is damaged: parts are missing; export it again")
    private_files.directory(directory)
    for name, text in texts.items():
        private_files.write_new(directory / name, text.encode())
    if CA_KEY in texts:
        _issue(directory, directory, names)
    return load(directory)


def _issue(source: Path, directory: Path, names: Iterable[str], *, server: bool = True) -> None:
    if not (source / CA_KEY).exists():
        raise CredentialsError(_FOR_CLIENTS)
    authority = (source / CA, source / CA_KEY)
    certificates.issue(authority, directory / CERTIFICATE, directory / KEY, names, server)


def _texts(directory: Path, *names: str) -> dict[str, str]:
    return {name: private_files.read(directory / name).decode() for name in names}


_FOR_CLIENTS: Final = (
    "these credentials are for clients: no host can join with them, and they cannot be passed on "
    "for that; export them without --client-only where the cluster was started"
)
