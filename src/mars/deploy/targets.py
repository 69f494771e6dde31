"""Where an address leads: which engine, at which address, with which credentials.

Looks at what this user knows of clusters; only for a web port that it does not know, the network is
asked, over TLS. Called by `mars.engines.start` with what users pass to `new_session`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from mars.deploy import credentials, records
from mars.deploy.answer import ask
from mars.deploy.credentials import Credentials
from mars.deploy.engine_programs import PROGRAMS
from mars.deploy.knock import knock
from mars.deploy.records import Record, joined
from mars.engines import kinds
from mars.engines.kinds import EngineKind
from mars.errors import ClusterUnreachable, CredentialsError, UnknownTarget


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster to connect to.

    Attributes
    ----------
    kind : EngineKind
        The engine that runs there.
    address : str
        Where programs connect, as the engine writes it.
    credentials : Credentials or None
        None: no cluster with credentials is known there.
    """

    kind: EngineKind
    address: str
    credentials: Credentials | None

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return self.kind.name

    def check(self) -> None:
        """See within seconds whether it answers, and accepts the credentials.

        Raises
        ------
        ClusterUnreachable
            Nobody answers there.
        CredentialsError
            It refuses the credentials.
        """
        host, port = records.split(self.address)
        knock(host, port, self.credentials)
        if self.credentials is not None:
            PROGRAMS[self.engine].check(host, port, self.credentials)


def resolve(address: str) -> Target:
    """Find out where an address leads.

    Parameters
    ----------
    address : str
        ``"http://host:web_port"`` (or https) as of the original, ``"dask://host:port"``,
        ``"tls://host:port"`` (Dask, with credentials), ``"ray://host:port"``.

    Returns
    -------
    Target

    Raises
    ------
    UnknownTarget
        The scheme is another, or the address has no host or port (a ValueError).
    CredentialsError
        A web port of a cluster whose credentials are not here; or credentials that are expired,
        or that other users could read.
    """
    scheme = urlsplit(address).scheme
    schemes = kinds.known_schemes()
    if scheme not in schemes:
        raise UnknownTarget(
            f"{address!r} is no address of a cluster; it begins with one of "
            f"{', '.join(f'{name}://' for name in schemes)}"
        )
    host, port = records.split(address)
    kind = schemes[scheme]
    known = records.find(address)
    if known is None and kind is None:
        known = _ask_around(host, port)
    if known is not None and kind in (None, known.kind):
        files = credentials.load(known.credentials) if known.secure else None
        return Target(known.kind, known.address, files)
    if known is not None:
        raise UnknownTarget(
            f"the cluster at {joined(host, port)} runs on {known.engine}; its address is "
            f"{known.address}"
        )
    assert kind is not None
    secure = scheme == kind.secure_scheme
    return Target(kind, kind.address(joined(host, port), secure=secure), None)


def _ask_around(host: str, port: int) -> Record:
    """The cluster that answers on a web port which is reached by another name than its own."""
    known, silent = [], ""
    for record in records.everything():
        if record.secure and record.web_port:
            known.append(f"http://{joined(record.host, record.web_port)}")
            try:
                found = ask(host, port, credentials.load(record.credentials))
            except ClusterUnreachable:
                silent = " (nobody answers there)"
                continue
            except CredentialsError:
                continue
            if found.id == record.id:
                return record
    raise CredentialsError(
        f"no credentials for a cluster at http://{joined(host, port)}{silent} are here; where it "
        f"was started, `mars cluster credentials export FILE` writes them to a file, and `mars "
        f"cluster credentials import FILE` here reads it"
        + (f"; this user knows the cluster at {', '.join(known)}" if known else "")
    )
