"""What each engine is: its name, the addresses that mean it, and what it needs.

Everything that tells engines apart by name reads the facts here: sessions, the commands of
`mars cluster`, and `mars.engines.start`, which has the functions that start and connect them.
`EngineOptions` is what an engine is started with. Nothing here starts or imports an engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from mars.calls.options import parse_bytes
from mars.config import plain_scalar

TYPE_CHECKING = False  # known to type checkers; loaded when somebody has credentials
if TYPE_CHECKING:
    from mars.storage import Storage


class EngineKind:
    """What one engine is. Nobody changes it.

    Parameters
    ----------
    name : str
        What programs and users call it.
    schemes : tuple of str
        What an address of it begins with, before ``://``. Empty: it runs on this machine only, and
        no other program can reach it.
    secure_scheme, open_scheme : str
        The schemes of addresses with TLS and without it.
    here : str
        An address without a scheme: the cluster that somebody started on this host.
    packages : tuple of str
        What has to be installed for a cluster of `mars cluster` on it, by the names of imports.
    only_secure : bool
        Whether `mars cluster` starts it with TLS and a token only.
    one_port : bool
        Whether programs connect to the port at which hosts join.
    takes_numbers : bool
        Whether it takes hosts by their numeric addresses only.
    """

    __slots__ = (
        "here", "name", "one_port", "only_secure", "open_scheme", "packages", "schemes",
        "secure_scheme", "takes_numbers",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        schemes: tuple[str, ...] = (),
        secure_scheme: str = "",
        open_scheme: str = "",
        here: str = "",
        packages: tuple[str, ...] = (),
        only_secure: bool = False,
        one_port: bool = False,
        takes_numbers: bool = False,
    ) -> None:
        self.name = name
        self.schemes = schemes
        self.secure_scheme = secure_scheme
        self.open_scheme = open_scheme
        self.here = here
        self.packages = packages
        self.only_secure = only_secure
        self.one_port = one_port
        self.takes_numbers = takes_numbers

    def address(self, where: str, *, secure: bool) -> str:
        """The address at which programs connect, given ``host:port``."""
        return f"{self.secure_scheme if secure else self.open_scheme}://{where}"

    def known_schemes(self) -> tuple[str, ...]:
        """The schemes that may have credentials here: all, but for one that means no TLS."""
        if self.secure_scheme == self.open_scheme:
            return self.schemes
        return tuple([scheme for scheme in self.schemes if scheme != self.open_scheme])

    def __repr__(self) -> str:
        return f"<EngineKind {self.name}>"


LOCAL: Final = EngineKind("local")
INLINE: Final = EngineKind("inline")
DASK: Final = EngineKind(
    "dask",
    schemes=("dask", "tls", "tcp"),
    secure_scheme="tls",
    open_scheme="tcp",
    packages=("distributed", "cryptography"),
    one_port=True,
)
RAY: Final = EngineKind(
    "ray",
    schemes=("ray",),
    secure_scheme="ray",
    open_scheme="ray",
    here="ray",
    packages=("ray", "grpc", "cryptography"),
    only_secure=True,
    takes_numbers=True,
)

KINDS: Final = {kind.name: kind for kind in (LOCAL, INLINE, DASK, RAY)}
"""All engines by their names."""

CLUSTERS: Final = (RAY, DASK)
"""The engines of clusters. `mars cluster` takes the first that is installed."""

WEB_SCHEMES: Final = ("http", "https")
"""What the address of a web port begins with. Any cluster of `mars cluster` can be behind it."""

HERE: Final = frozenset({None, "127.0.0.1", "localhost", "local"})
"""Addresses that mean an engine of one's own on this machine."""

_KNOWN: Final = {
    scheme: kind for kind in (DASK, RAY) for scheme in kind.known_schemes()
} | dict.fromkeys(WEB_SCHEMES)
_ALL: Final = {*WEB_SCHEMES, *(scheme for kind in CLUSTERS for scheme in kind.schemes)}


def known_schemes() -> Mapping[str, EngineKind | None]:
    """The schemes of clusters that this user may have credentials of; a web port has no kind."""
    return _KNOWN


def is_cluster(address: object) -> bool:
    """Whether an address has the form of the address of a cluster."""
    return str(address).partition("://")[0] in _ALL


def may_be_known(address: str) -> bool:
    """Whether this user may have credentials of the cluster at an address."""
    scheme, found, _ = address.partition("://")
    return bool(found) and scheme in _KNOWN


# -- what an engine is started with -----------------------------------------------------------


class EngineOptions:
    """What an engine is started with. Nobody changes it, so engines may share it.

    Parameters
    ----------
    cores : sequence of int, default (1,)
        Cores of each group of workers. Engines on clusters of others take what the nodes have.
    object_memory : int, optional
        Bytes that objects may take in memory; further ones go to disk. None: a part of the memory
        that the process may use.
    spill_directory : str, optional
        Where these go. None: ``TMPDIR``, or ``/var/tmp``.
    env : mapping of str to str, optional
        Environment variables for calls.
    working_dir : str, optional
        Absolute path of the folder that calls run in. Nodes of a cluster get a copy of it.
    node_ports : pair of int, default (0, 0)
        The first and the last port that a node may listen on for the driver. Zeros: any port.
    security : object, optional
        Has ``ca_path``, ``cert_path`` and ``key_path``, of PEM files, and for Ray ``token``.
    beside : bool, default False
        Whether it asks the cluster for no cores, so that it can look at nodes which are all taken.
    gpus : int, tuple of str or None
        How many GPUs it has on this machine, or which. None: those that are found.
    storage : Storage, optional
        What calls open URLs with.
    """

    __slots__ = (
        "beside", "cores", "env", "gpus", "node_ports", "object_memory", "security",
        "spill_directory", "storage", "working_dir",
    )  # fmt: skip

    def __init__(
        self,
        *,
        cores: Sequence[int] = (1,),
        object_memory: int | None = None,
        spill_directory: str | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        node_ports: tuple[int, int] = (0, 0),
        security: object | None = None,
        beside: bool = False,
        gpus: int | tuple[str, ...] | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.storage = storage
        self.gpus = gpus
        self.cores = tuple(cores)
        self.object_memory = object_memory
        self.spill_directory = spill_directory
        self.env = dict(env or {})
        self.working_dir = working_dir
        self.node_ports = node_ports
        self.security = security
        self.beside = beside

    def with_security(self, security: object | None) -> EngineOptions:
        """The same options with other credentials."""
        return EngineOptions(
            cores=self.cores,
            object_memory=self.object_memory,
            spill_directory=self.spill_directory,
            env=self.env,
            working_dir=self.working_dir,
            node_ports=self.node_ports,
            security=security,
            beside=self.beside,
            gpus=self.gpus,
            storage=self.storage,
        )

    def gpus_of_groups(self) -> list[tuple[str, ...]]:
        """The names of the GPUs of each group of workers on this machine.

        They are looked for when this is called, as most programs ask for none.

        Raises
        ------
        ValueError
            As of `mars.gpus.find`.
        """
        if isinstance(self.gpus, tuple):
            names = self.gpus
        else:
            from mars.gpus import find  # late: hardly any program asks

            names = find(self.gpus, {**os.environ, **self.env}).names
        share, rest = divmod(len(names), len(self.cores))
        found, begin = [], 0
        for index in range(len(self.cores)):
            end = begin + share + (index < rest)
            found.append(names[begin:end])
            begin = end
        return found

    def how_to_have_gpus(self) -> str:
        """What to do about a call that asks for more GPUs than there are, and why so few are."""
        if self.gpus is not None:
            return "ask for less, or new_session(n_gpu=...) with more"
        from mars.gpus import find

        reason = find(None, {**os.environ, **self.env}).reason
        return f"{reason}; where there are more, new_session(n_gpu=...) or MARS_GPUS says so"


def parse_options(
    *,
    object_memory: int | str | None = None,
    spill_directory: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    working_dir: str | os.PathLike[str] | None = None,
    node_ports: int | str | None = None,
    security: object | None = None,
    cores: Sequence[int] = (1,),
    n_gpu: int | str = "auto",
    cuda_devices: object = None,
    storage_options: object = None,
) -> EngineOptions:
    """Check what `mars.new_session` was given for its engine, before anything is started.

    The parameters and the errors are those of `mars.new_session`. ``cores`` comes from `divide`.
    """
    variables, folder, ports = _env(env), _folder(working_dir), _ports(node_ports)
    object_bytes = None if object_memory is None else parse_bytes(object_memory, "object_memory")
    directory = None if spill_directory is None else os.fspath(spill_directory)
    if directory is not None and not (os.path.isdir(directory) and os.access(directory, os.W_OK)):
        raise ValueError(f"spill_directory={directory!r} is no folder that can be written to")
    return EngineOptions(
        cores=cores,
        object_memory=object_bytes,
        spill_directory=directory,
        env=variables,
        working_dir=folder,
        node_ports=ports,
        security=security,
        gpus=_gpus(n_gpu, cuda_devices),
        storage=None if storage_options is None else _storage(storage_options),
    )


def _storage(given: object) -> Storage | None:
    from mars.storage import parse_storage  # late: most programs have no credentials

    return parse_storage(given)


def _gpus(n_gpu: int | str, devices: object) -> int | tuple[str, ...] | None:
    """How many GPUs, or which; None: those that are found."""
    n_gpu = plain_scalar(n_gpu)
    if n_gpu != "auto" and (isinstance(n_gpu, bool) or not isinstance(n_gpu, int) or n_gpu < 0):
        raise ValueError(f"n_gpu has to be 'auto' or an int from 0 on, got {n_gpu!r}")
    if isinstance(n_gpu, int):
        return n_gpu
    if devices is None or devices == "auto":
        return None
    some = devices.split(",") if isinstance(devices, str) else devices
    if not isinstance(some, Sequence):
        raise TypeError(f"cuda_devices has to be 'auto' or numbers such as [0, 1], got {devices!r}")
    names = [str(plain_scalar(one)).strip() for one in some]
    return tuple([name for name in names if name])


def divide(n_cpu: int | str, n_worker: int) -> tuple[int, ...]:
    """The cores of each of ``n_worker`` groups of workers; errors as of `mars.new_session`."""
    n_cpu, n_worker = plain_scalar(n_cpu), plain_scalar(n_worker)
    if isinstance(n_worker, bool) or not isinstance(n_worker, int) or n_worker < 1:
        raise ValueError(f"n_worker has to be an int from 1 on, got {n_worker!r}")
    if n_cpu == "auto":
        from mars.resources import cpu_count

        n_cpu = max(cpu_count().n, n_worker)
    elif isinstance(n_cpu, bool) or not isinstance(n_cpu, int) or n_cpu < 1:
        raise ValueError(f"n_cpu has to be 'auto' or an int from 1 on, got {n_cpu!r}")
    if n_cpu < n_worker:
        raise ValueError(f"n_cpu={n_cpu} cores cannot be divided into n_worker={n_worker} groups")
    share, rest = divmod(n_cpu, n_worker)
    return tuple([share + (index < rest) for index in range(n_worker)])


def _env(env: Mapping[str, str] | None) -> dict[str, str]:
    given = dict(env or {})
    for name, text in given.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"env has to map names to texts, got {name!r}: {text!r}")
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(f"env[{name!r}] cannot be a variable of the environment")
    return given


def _folder(working_dir: str | os.PathLike[str] | None) -> str | None:
    if working_dir is None:
        return None
    folder = os.path.abspath(os.fsdecode(working_dir))
    if not os.path.isdir(folder):
        raise ValueError(f"working_dir={folder!r} is no folder")
    return folder


def _ports(node_ports: int | str | None) -> tuple[int, int]:
    """The first and the last port that nodes may listen on; (0, 0): any port."""
    if node_ports is None:
        return 0, 0
    node_ports = plain_scalar(node_ports)
    if isinstance(node_ports, bool) or not isinstance(node_ports, (int, str)):
        raise TypeError(f"node_ports has to be a port or '7200-7219', got {node_ports!r}")
    first, dash, last = str(node_ports).partition("-")
    try:
        ports = int(first), int(last if dash else first)
    except ValueError:
        ports = 0, 0
    if not 1 <= ports[0] <= ports[1] <= 65_535:
        raise ValueError(
            f"node_ports={node_ports!r} are no ports; write one from 1 to 65535, or the first and "
            f"the last of a range, as '7200-7219'"
        )
    return ports


__all__ = [
    "CLUSTERS", "DASK", "EngineKind", "EngineOptions", "HERE", "INLINE", "KINDS", "LOCAL", "RAY",
    "WEB_SCHEMES", "divide", "is_cluster", "known_schemes", "may_be_known", "parse_options",
]  # fmt: skip
