"""Starting an engine, and connecting to a cluster.

`mars.sessions.opening` calls `engine` for a new session; ``mars stack`` calls `beside`, which
looks at a cluster beside the program that uses it. What each
engine is stands in `mars.engines.kinds`. An engine is imported when it is asked for: no program
waits for one that it does not use.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mars.engines.kinds import (
    DASK,
    INLINE,
    KINDS,
    LOCAL,
    RAY,
    EngineKind,
    EngineOptions,
    is_cluster,
    may_be_known,
)
from mars.errors import StartupFailed, UnknownTarget

if TYPE_CHECKING:
    from mars.engine import Engine
    from mars.engines.driver.engine import DriverEngine

_count = itertools.count(1)


def engine(name: str, address: str | None, options: EngineOptions) -> Engine:
    """Start an engine, or connect to a cluster.

    Parameters
    ----------
    name : str
        The engine. If there is an address, its form decides, where it can.
    address : str or None
        Address of a cluster. None: start an engine of one's own.
    options : EngineOptions
        What it is started with.

    Raises
    ------
    UnknownTarget
        There is no engine of that name, or not on this system.
    StartupFailed
        The engine does not start, or the cluster does not let this program in.
    CredentialsError, ClusterUnreachable
        As of `mars.new_session`.
    """
    kind = KINDS.get(name)
    if address is not None:
        return _connect(kind, address, options)
    if kind is None:
        *others, last = [repr(known) for known in KINDS]
        raise UnknownTarget(
            f"engine {name!r} is not there; this version has {', '.join(others)} and {last}"
        )
    return _STARTS[kind](f"{kind.name}-{os.getpid()}-{next(_count)}", options)


def beside(address: str) -> Engine:
    """Connect to a cluster for a short look, also while all of its cores are taken.

    Parameters
    ----------
    address : str
        As `mars.new_session` takes it.
    """
    return _connect(LOCAL, address, EngineOptions(beside=True))


def _connect(kind: EngineKind | None, address: str, options: EngineOptions) -> Engine:
    known_as = address if options.security is None and is_cluster(address) else None
    if options.security is None and may_be_known(address):
        from mars.deploy.targets import resolve

        target = resolve(address)
        target.check()
        kind, address = target.kind, target.address
        options = options.with_security(target.credentials)
    on_ray = kind is RAY or address.startswith(RAY.schemes)
    made = _CONNECTS[RAY if on_ray else DASK](address, options)
    made.site.known_as = known_as
    return made


def _start_inline(name: str, options: EngineOptions) -> Engine:
    from mars.engines.inline import InlineEngine

    return InlineEngine(name, options)


def _start_local(name: str, options: EngineOptions) -> Engine:
    if sys.platform == "win32":
        raise UnknownTarget("the local engine needs Linux or macOS; use engine='inline' on Windows")
    from mars.engines.local.launch import Launch

    launch = None
    try:
        launch = Launch()  # it starts while the engine is loaded, which takes about as long
        from mars.engines import one_machine

        return one_machine.start(name, options, launch)
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


def _start_dask(_: str, options: EngineOptions) -> Engine:
    from mars.engines import dask

    return dask.start(options)


def _start_ray(name: str, options: EngineOptions) -> Engine:
    from mars.engines import ray

    return ray.start(name, options)


def _connect_dask(address: str, options: EngineOptions) -> DriverEngine:
    from mars.engines import dask

    return dask.connect(address, options)


def _connect_ray(address: str, options: EngineOptions) -> DriverEngine:
    from mars.engines import ray

    return ray.connect(address, options)


_STARTS: Final[dict[EngineKind, Callable[[str, EngineOptions], Engine]]] = {
    LOCAL: _start_local,
    INLINE: _start_inline,
    DASK: _start_dask,
    RAY: _start_ray,
}
"""How each engine is started, given its name and its options."""

_CONNECTS: Final[dict[EngineKind, Callable[[str, EngineOptions], DriverEngine]]] = {
    DASK: _connect_dask,
    RAY: _connect_ray,
}
"""How a program connects to each engine that runs on clusters."""
