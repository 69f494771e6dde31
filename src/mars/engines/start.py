"""Which engine a name or an address means, and starting it.

Engines are loaded when they are asked for: no program waits for one that it does not use.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping
from typing import Final

from mars.config import plain_scalar
from mars.engine import Engine
from mars.engines.given import Given
from mars.errors import StartupFailed, UnknownTarget
from mars.task import parse_bytes

LOCAL: Final = frozenset({None, "127.0.0.1", "localhost", "local"})
"""Addresses that mean an engine of one's own, on this machine."""

_RAY: Final = "ray"  # with nothing behind it: the one on this host
_RESOLVED: Final = ("http", "https", "dask", "tls", "ray")  # what `mars cluster` may know of
_CLUSTERS: Final = ("tcp", *_RESOLVED)

_count = itertools.count(1)


def is_cluster(address: object) -> bool:
    """Whether an address is one of a cluster, by its form."""
    return address == _RAY or str(address).partition("://")[0] in _CLUSTERS


def engine(
    kind: str,
    n_worker: int,
    n_cpu: int | str,
    object_memory: int | str | None,
    spill_directory: str | os.PathLike[str] | None,
    address: str | None = None,
    security: object | None = None,
    env: Mapping[str, str] | None = None,
    working_dir: str | os.PathLike[str] | None = None,
    node_ports: int | str | None = None,
) -> Engine:
    """Start an engine, or connect to a cluster; parameters and errors as of `mars.new_session`."""
    env, folder, ports = _env(env), _folder(working_dir), _ports(node_ports)
    n_worker = plain_scalar(n_worker)
    object_bytes = None if object_memory is None else parse_bytes(object_memory, "object_memory")
    directory = None if spill_directory is None else os.fspath(spill_directory)
    if directory is not None and not (os.path.isdir(directory) and os.access(directory, os.W_OK)):
        raise ValueError(f"spill_directory={directory!r} is no folder that can be written to")
    if address is not None:
        return _connect(kind, address, security, env, object_bytes, directory, folder, ports)
    cpus = _cores(n_cpu, n_worker)
    name = f"{kind}-{os.getpid()}-{next(_count)}"
    if kind == "inline":
        from mars.engines.inline import InlineEngine

        return InlineEngine(name, cpus, n_worker, Given(env, folder))
    if kind in ("dask", "ray"):
        share, rest = divmod(cpus, n_worker)
        parts = [share + (index < rest) for index in range(n_worker)]
        if kind == "ray":
            from mars.engines import ray

            return ray.start(name, parts, env, object_bytes, directory, folder)
        from mars.engines import dask

        return dask.start(parts, env, object_bytes, directory, folder)
    if kind != "local":
        raise UnknownTarget(
            f"engine {kind!r} is not there; this version has 'local', 'inline', 'dask' and 'ray'"
        )
    if sys.platform == "win32":
        raise UnknownTarget("the local engine needs Linux or macOS; use engine='inline' on Windows")
    from mars.engines.local.launch import Launch

    launch = None
    try:
        launch = Launch()  # it starts while the engine is loaded, which takes about as long
        from mars.engines import one_machine

        given = Given(env, folder)
        return one_machine.start(name, cpus, n_worker, object_bytes, directory, given, launch)
    except BaseException as error:
        if launch is not None:
            launch.close()
        if isinstance(error, OSError):
            from mars.platform import refusal

            raise StartupFailed(
                f"the system refuses files that the engine needs ({refusal(error)}); "
                f"give this program more, or use new_session(engine='inline')"
            ) from error
        raise


def _connect(
    kind: str,
    address: str,
    security: object | None,
    env: Mapping[str, str],
    object_bytes: int | None,
    directory: str | None,
    folder: str | None,
    ports: tuple[int, int],
    *,
    beside: bool = False,
) -> Engine:
    """Join a cluster that is there."""
    known_as = address if security is None and is_cluster(address) else None
    if security is None and address.partition("://")[0] in _RESOLVED:
        from mars.deploy.targets import resolve

        target = resolve(address)
        target.check()
        kind, address, security = target.engine, target.address, target.credentials
    if kind == "ray" or address.startswith(_RAY):
        from mars.engines import ray

        made = ray.connect(
            address, security, env, object_bytes, directory, folder, ports, beside=beside
        )
    else:
        from mars.engines import dask

        made = dask.connect(address, security, env, object_bytes, directory, folder, ports)
    made.site.known_as = known_as
    return made


def beside(address: str) -> Engine:
    """Join a cluster for a short look, also while all of its cores are taken.

    Parameters
    ----------
    address : str
        As `mars.new_session` takes it.
    """
    return _connect("local", address, None, {}, None, None, None, (0, 0), beside=True)


def _cores(n_cpu: int | str, n_worker: int) -> int:
    """Cores that so many groups of workers share."""
    n_cpu = plain_scalar(n_cpu)
    if isinstance(n_worker, bool) or not isinstance(n_worker, int) or n_worker < 1:
        raise ValueError(f"n_worker has to be an int from 1 on, got {n_worker!r}")
    if n_cpu == "auto":
        from mars.resources import cpu_count

        return max(cpu_count().n, n_worker)
    if isinstance(n_cpu, bool) or not isinstance(n_cpu, int) or n_cpu < 1:
        raise ValueError(f"n_cpu has to be 'auto' or an int from 1 on, got {n_cpu!r}")
    if n_cpu < n_worker:
        raise ValueError(f"n_cpu={n_cpu} cores cannot be divided into n_worker={n_worker} groups")
    return n_cpu


def _env(env: Mapping[str, str] | None) -> dict[str, str]:
    """Variables for calls, looked at before anything is started."""
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
    """The first and the last of those that nodes may listen on; (0, 0): any."""
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
