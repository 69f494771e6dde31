"""``mars doctor ADDRESS``: whether a cluster lets us in, and how its nodes are.

Connects as a program does, and runs a few short calls on each node: versions, cores, memory, free
space, the clock, and how fast values go there and back. Called by `mars.cli.doctor`.
"""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import socket
import statistics
import tempfile
import time
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, TypedDict, TypeVar

from mars._version import __version__
from mars.cli.findings import Finding, Section, package_versions, said, size_text
from mars.deploy import credentials, records
from mars.deploy.targets import resolve
from mars.errors import MarsError
from mars.observe.progress import format_duration
from mars.resources import cpu_count, memory_limit_bytes
from mars.settings import (
    CREDENTIALS_SOON_DAYS,
    DIRECT_S,
    LOW_DISK_BYTES,
    NODE_ROUND_TRIPS,
    NODE_SENT_BYTES,
    NODE_SKEW_S,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


R = TypeVar("R")


def examine(address: str, node_ports: str | None = None) -> list[Section]:
    """Look at a cluster, from where this program runs.

    Parameters
    ----------
    address : str
        As `mars.new_session` takes it.
    node_ports : str, optional
        The same.
    """
    cluster = Section("cluster")
    report = [cluster]
    try:
        cluster.findings.extend(_way_in(address))
        mars = import_module("mars")
        began = time.perf_counter()
        session = mars.new_session(address, default=False, node_ports=node_ports)
    except (MarsError, OSError, ValueError) as error:
        name = "credentials" if type(error).__name__ == "CredentialsError" else "connection"
        cluster.findings.append(Finding(name, said(error), said(error), ok=False))
        return report
    try:
        seconds = time.perf_counter() - began
        cluster.findings.append(Finding("connection", f"in {format_duration(seconds)}", seconds))
        nodes = session.get_worker_addresses()
        cluster.findings.append(Finding("nodes", str(len(nodes)), nodes))
        for refusal in session.engine.site.refused:
            cluster.findings.append(Finding("refused", refusal, refusal, ok=False))
        for silent in session.engine.site.silent:
            cluster.findings.append(
                Finding("silent", f"{silent} does not answer", silent, ok=False)
            )
        report += [_node(session, node) for node in nodes]
    finally:
        session.stop_server()
    return report


def _way_in(address: str) -> Iterator[Finding]:
    target = resolve(address)
    yield Finding("engine", f"{target.engine} at {target.address}", target.address)
    known = records.find(address)
    if target.credentials is None:
        yield Finding("credentials", "none are known here; mars offers none", False)
    elif known is not None:
        end = credentials.expiry(known.credentials)
        days = (end - datetime.datetime.now(datetime.UTC)).total_seconds() / 86_400
        hint = "take the cluster down and up for new ones" if days < CREDENTIALS_SOON_DAYS else ""
        yield Finding("credentials", f"valid for {days:.1f} days", end.isoformat(), hint)
    target.check()
    yield Finding("head", "answers, and accepts the credentials", True)


class Told(TypedDict):
    """What a node says of itself; of numbers, also where they come from."""

    host: str
    python: str
    mars: str
    packages: dict[str, str | None]
    cores: tuple[float, str]
    memory: tuple[float, str]
    spaces: dict[str, tuple[str, str | int, int]]


def look() -> Told:
    """What a node says of itself; runs there."""
    spaces: dict[str, tuple[str, str | int, int]] = {}
    for name, folder in (("/dev/shm", "/dev/shm"), ("temporary files", tempfile.gettempdir())):
        try:
            usage = shutil.disk_usage(folder)
        except OSError as error:
            spaces[name] = (folder, said(error), 0)
        else:
            spaces[name] = (folder, usage.free, usage.total)
    memory, reason = memory_limit_bytes()
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "mars": __version__,
        "packages": package_versions(),
        "cores": (cpu_count().n, cpu_count().reason),
        "memory": (memory, reason),
        "spaces": spaces,
    }


def give(size: int) -> bytes:
    """A value of so many bytes that no line can shorten; runs on a node."""
    return os.urandom(size)


def _called(session: object, address: str, func: Callable[..., R], *args: object) -> R:
    """Run a function on a node."""
    asked = import_module("mars.remote").spawn(func, args=args, expect_worker=address)
    asked.execute(session=session, show_progress=False)
    value: R = asked.fetch(session=session)
    return value


def _node(session: object, address: str) -> Section:
    section = Section(f"node {address}")
    try:
        section.findings.extend(_look_at(session, address))
    except Exception as error:  # a report with a hole is better than none
        section.findings.append(Finding("error", said(error), said(error), ok=False))
    return section


def _look_at(session: object, address: str) -> Iterator[Finding]:
    def call(func: Callable[..., R], *args: object) -> R:
        return _called(session, address, func, *args)

    facts = call(look)
    yield Finding("host", facts["host"], facts["host"])
    yield from _versions(facts)
    for name, (number, reason) in (("cores", facts["cores"]), ("memory", facts["memory"])):
        text = str(number) if name == "cores" else size_text(number)
        yield Finding(name, f"{text}, because of: {reason}", number)
    for name, (folder, free, total) in facts["spaces"].items():
        if isinstance(free, str):
            yield Finding(name, f"missing ({free})")
            continue
        low = name != "/dev/shm" and free < LOW_DISK_BYTES
        hint = "logs and spilled objects are written here; TMPDIR moves them" if low else ""
        yield Finding(name, f"{size_text(free)} free of {size_text(total)}, {folder}", free, hint)
    yield from _line(call, address)


def _versions(facts: Told) -> Iterator[Finding]:
    here = {
        "python": platform.python_version(),
        "mars": __version__,
        **package_versions(),
    }
    there: dict[str, str | None] = {"python": facts["python"], "mars": facts["mars"]}
    there.update(facts["packages"])
    for name, version in there.items():
        if version == here[name]:
            if version is not None:
                yield Finding(name, version, version)
            continue
        hint = f"this program has {here[name]}" if here[name] else "this program has none"
        if version is None:
            hint += f"; calls that import it fail there: pip install '{name}=={here[name]}'"
        yield Finding(name, version or "not installed", version, hint)


class _Call(Protocol):
    """Runs a function on a node."""

    def __call__(self, func: Callable[..., R], /, *args: object) -> R: ...


def _line(call: _Call, address: str) -> Iterator[Finding]:
    trips, skews = [], []
    for _ in range(NODE_ROUND_TRIPS):
        sent, began = time.time(), time.perf_counter()
        there = call(time.time)
        trips.append(time.perf_counter() - began)
        # Whatever the way took, the clock was read within it.
        skews.append((trips[-1] / 2, there - sent - trips[-1] / 2))
    trip = statistics.median(trips)
    yield Finding("round trip of a call", format_duration(trip), trip)
    error, skew = min(skews)
    hint = "set the clocks by NTP" if abs(skew) - error > NODE_SKEW_S else ""
    text = f"{skew * 1e3:+.1f} ms from ours, give or take {error * 1e3:.1f}"
    yield Finding("clock", text, skew, hint)
    data = os.urandom(NODE_SENT_BYTES)
    for name, func, argument in (
        ("to the node", len, data),
        ("from the node", give, NODE_SENT_BYTES),
    ):
        began = time.perf_counter()
        call(func, argument)
        rate = NODE_SENT_BYTES / max(time.perf_counter() - began - trip, 1e-6)
        yield Finding(name, f"{size_text(rate)} a second", rate)
    if address.startswith(("tls://", "tcp://")):
        yield _port(address)


def _port(address: str) -> Finding:
    host, port = records.split(address)
    try:
        socket.create_connection((host, port), DIRECT_S).close()
    except OSError as error:
        text = f"is not reached from here ({error.strerror or error})"
        return Finding("port", text, False, hint="values go by way of Dask's scheduler")
    return Finding("port", "is reached from here", True)
