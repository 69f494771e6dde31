"""What proves that a process belongs to a cluster: certificates of its own authority, and a token.

`mars cluster up` makes an authority for each cluster. Whoever holds its key makes certificates, so
every host that joins makes one with its own names. A *bundle* carries the key to another host,
which makes its certificate and does not keep the key: calls that run there can read what is kept. A
bundle for clients carries a finished certificate instead. All of it stands in a directory of mode
0700, and is valid for some days. Called by `mars.deploy.clusters`, which makes them, and by
`mars.deploy.targets`, which has `load` read them for a session.
"""

from __future__ import annotations

import datetime
import os
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
    _issue(private_files.read(directory / CA_KEY), directory, names)
    return load(directory)


def for_host(source: Path, directory: Path, names: Iterable[str]) -> Credentials:
    """Make credentials for one more host of a cluster.

    Parameters
    ----------
    source : Path
        Credentials of the cluster, with the key of its authority; else those of this host.
    directory : Path
        Where the host's own go; it is made.
    names : iterable of str
        Names and addresses of the host.

    Raises
    ------
    CredentialsError
        Those of the cluster are for clients only, or this host's are for other names.
    """
    load(source)
    names = list(names)
    if not (source / CA_KEY).exists():
        if not certificates.is_for_servers(source / CERTIFICATE):
            raise CredentialsError(_FOR_CLIENTS)
        missing = certificates.missing_names(source / CERTIFICATE, names)
        if missing:
            raise CredentialsError(
                f"the certificate of this host is not for {', '.join(sorted(missing))}; pass the "
                f"bundle of the cluster again, with --credentials FILE"
            )
    private_files.directory(directory)
    for name in (CA, TOKEN):
        private_files.write_new(directory / name, private_files.read(source / name))
    if (source / CA_KEY).exists():
        _issue(private_files.read(source / CA_KEY), directory, names)
    else:
        for name in (CERTIFICATE, KEY):
            private_files.write_new(directory / name, private_files.read(source / name))
    return load(directory)


def forget_authority(directory: Path) -> None:
    """Remove the key of the authority, which a host that has joined does not need."""
    (directory / CA_KEY).unlink(missing_ok=True)


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
        The key of the authority is not here, and what is here is not for clients.
    """
    load(directory)
    known = (directory / CA_KEY).exists()
    if not known and certificates.is_for_servers(directory / CERTIFICATE):
        raise CredentialsError(_NOT_HERE)
    if not client_only and not known:
        raise CredentialsError(_FOR_CLIENTS)
    if client_only and known:
        fresh = private_files.directory(directory / f".client-{secrets.token_hex(4)}")
        try:
            private_files.write_new(fresh / CA, private_files.read(directory / CA))
            _issue(private_files.read(directory / CA_KEY), fresh, ["client"], server=False)
            return _texts(directory, CA, TOKEN) | _texts(fresh, CERTIFICATE, KEY)
        finally:
            private_files.remove(fresh)
    return _texts(directory, CA, TOKEN, *((CERTIFICATE, KEY) if client_only else (CA_KEY,)))


def unpack(texts: Mapping[str, str], directory: Path, names: Iterable[str]) -> Credentials:
    """Write what `pack` returned, and make this host's certificate if that is allowed.

    The key of the authority is not kept.

    Parameters
    ----------
    texts : mapping
        What `pack` returned.
    directory : Path
        Where; it is made. Credentials of the same cluster that are there are replaced if those of
        the bundle are for more.
    names : iterable of str
        Names and addresses of this host.
    """
    if set(texts) not in ({CA, TOKEN, CA_KEY}, {CA, TOKEN, CERTIFICATE, KEY}):
        raise CredentialsError("the bundle is damaged: parts are missing; export it again")
    there = directory.exists()
    if there and private_files.read(directory / CA) != texts[CA].encode():
        raise CredentialsError(
            "the bundle has the name of a cluster that is known here, and is not of it; end that "
            "one with `mars cluster down`, or remove it with `mars cluster credentials forget`"
        )
    if there and (CA_KEY not in texts or _is_as_good(directory, names)):
        return load(directory)
    fresh = private_files.directory(directory.with_name(f".{directory.name}-{os.urandom(4).hex()}"))
    try:
        for name in texts.keys() - {CA_KEY}:
            private_files.write_new(fresh / name, texts[name].encode())
        if CA_KEY in texts:
            _issue(texts[CA_KEY].encode(), fresh, names)
        load(fresh)
        if there:
            for name in (CA, TOKEN, KEY, CERTIFICATE):
                (fresh / name).replace(directory / name)
        else:
            fresh.rename(directory)
    finally:
        private_files.remove(fresh)
    return load(directory)


def _is_as_good(directory: Path, names: Iterable[str]) -> bool:
    """Whether what is there is for as much as what a bundle for hosts gives."""
    load(directory)
    own = directory / CERTIFICATE
    return (directory / CA_KEY).exists() or (
        certificates.is_for_servers(own) and not certificates.missing_names(own, names)
    )


def _issue(key: bytes, directory: Path, names: Iterable[str], *, server: bool = True) -> None:
    """Have the authority, whose certificate is in the directory, make one for this host."""
    certificates.issue(
        (directory / CA, key), directory / CERTIFICATE, directory / KEY, names, server
    )


def _texts(directory: Path, *names: str) -> dict[str, str]:
    return {name: private_files.read(directory / name).decode() for name in names}


_FOR_CLIENTS: Final = (
    "these credentials are for clients: no host can join with them, and they cannot be passed on "
    "for that; export them without --client-only where the cluster was started"
)

_NOT_HERE: Final = (
    "this host has joined, and has only its own certificate: export where the cluster was started"
)
