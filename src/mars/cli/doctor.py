"""``mars doctor``: what mars found on this machine, why, and whether its engine works.

Looks, and changes nothing: optional packages are asked for their version, never imported.
Each part of the report survives the failure of the others. Text for people, ``--json`` for
bug reports and scripts. Called by `mars.cli`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import asdict
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

from mars.attempt.threads import VARIABLES
from mars.cli import nodes
from mars.cli.findings import (
    Finding,
    Section,
    package_versions,
    said,
    size_text,
)
from mars.gpus import find
from mars.observe.progress import format_duration
from mars.resources import cpu_count, memory_limit_bytes, memory_limits
from mars.settings import DOCTOR_ENGINE_S, DOCTOR_ROUND_TRIPS, LOW_DISK_BYTES, LOW_FILES

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator, Mapping
    from typing import TextIO


NAME_COLUMNS: Final = 22
LINE_COLUMNS: Final = 96


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars doctor`` understands."""
    parser.add_argument(
        "address",
        nargs="?",
        help="of a cluster, to look at it and its nodes; default: this machine",
    )
    parser.add_argument(
        "--node-ports",
        metavar="FIRST-LAST",
        help="where its nodes may listen, as in `new_session`; default: anywhere",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for a bug report")
    parser.add_argument(
        "--no-engine", action="store_true", help="do not start an engine to see if it works"
    )


def run(options: Namespace) -> int:
    """Print the report; 1 if something is wrong that keeps mars from working."""
    if options.address is None:
        report = examine(engine=not options.no_engine)
    else:
        report = nodes.examine(options.address, options.node_ports)
    if options.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        write_text(report, sys.stdout)
    return 0 if all(finding.ok for section in report for finding in section.findings) else 1


def examine(*, environ: Mapping[str, str] = os.environ, engine: bool = True) -> list[Section]:
    """Look at everything.

    Parameters
    ----------
    environ : mapping, default `os.environ`
        Where variables are looked up.
    engine : bool, default True
        Whether to start a local engine and time it.
    """
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "mars": _software,
        "cores": lambda: _cores(environ),
        "memory": lambda: _memory(environ),
        "gpus": lambda: _gpus(environ),
        "system": _system,
        "packages": _packages,
        "threads": lambda: _threads(environ),
    }
    if engine:
        parts["engine"] = _engine
    report = []
    for name, part in parts.items():
        section = Section(name)
        report.append(section)
        try:
            section.findings.extend(part())
        except Exception as error:  # a report with a hole is better than none
            section.findings.append(Finding("error", said(error), said(error), ok=False))
    return report


def as_json(report: list[Section]) -> dict[str, object]:
    """Return the report as JSON can hold it: ``report[section][name]["value"]``."""
    facts: dict[str, object] = {}
    for section in report:
        inner: dict[str, object] = {}
        for finding in section.findings:
            inner[finding.name] = {
                key: value for key, value in asdict(finding).items() if key != "name"
            }
        facts[section.name] = inner
    return facts


def write_text(report: list[Section], stream: TextIO) -> None:
    """Write the report for people: aligned, coloured on a terminal."""
    paint = _painter(stream)
    for position, section in enumerate(report):
        if position:
            stream.write("\n")
        stream.write(paint(section.name, "bold"))
        stream.write("\n")
        for finding in section.findings:
            lines = [paint(line, "" if finding.ok else "red") for line in _wrapped(finding.text)]
            if finding.hint:
                lines += [paint(line, "yellow") for line in _wrapped(f"-> {finding.hint}")]
            name = f"  {finding.name:<{NAME_COLUMNS}} "
            stream.write(name + f"\n{' ' * len(name)}".join(lines) + "\n")


def _wrapped(text: str) -> list[str]:
    width = LINE_COLUMNS - NAME_COLUMNS - 3
    return [line for part in text.splitlines() for line in textwrap.wrap(part, width)]


def _painter(stream: TextIO) -> Callable[[str, str], str]:
    """Return what colours a text: rich on a terminal, else nothing."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "").lower() == "dumb"
    if plain or not stream.isatty():
        return lambda text, style: text
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, force_terminal=True, force_jupyter=False, width=10_000)

    def paint(text: str, style: str) -> str:
        with console.capture() as captured:
            console.print(Text(text, style=style), end="")
        return captured.get()

    return paint


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


# -- what is looked at ------------------------------------------------------------------------


def _software() -> Iterator[Finding]:
    import mars

    version = str(getattr(mars, "__version__", "unknown"))
    place = os.path.dirname(str(mars.__file__)) if mars.__file__ else ""
    yield Finding("version", f"{version}, in {place}" if place else version, version)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Finding("python", f"{python}, {sys.executable}", python)
    # Absent before 3.13, which means that there is a lock.
    locked: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    if not locked:
        yield Finding("free threading", "on", True)
    yield Finding("platform", platform.platform(), platform.platform())
    if sys.platform != "linux":
        yield Finding(
            "support",
            "mars is tested on Linux only",
            False,
            hint="please tell us what works and what does not",
        )


def _cores(environ: Mapping[str, str]) -> Iterator[Finding]:
    count = cpu_count(environ=environ)
    hint = ""
    if count.reason != "MARS_CPUS" and min(cores for _, cores in count.considered) != count.n:
        hint = "rounded to a whole core; MARS_CPUS=<n> decides otherwise"
    yield Finding("used", f"{count.n}, because of: {count.reason}", count.n, hint)
    for name, cores in count.considered:
        yield Finding(name, _number(cores), cores)


def _gpus(environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        names, reason = find(environ=environ)
    except ValueError as error:
        yield Finding("used", str(error), None, ok=False)
        return
    text = f"{', '.join(names)}, because of: {reason}" if names else f"none; {reason}"
    yield Finding("used", text, list(names))


def _memory(environ: Mapping[str, str]) -> Iterator[Finding]:
    size, reason = memory_limit_bytes(environ=environ)
    yield Finding("limit", f"{size_text(size)}, because of: {reason}", size)
    for name, size in memory_limits(environ=environ):
        yield Finding(name, size_text(size), size)


def _system() -> Iterator[Finding]:
    for name, attempt, otherwise in (
        ("memfd", _try_memfd, "large results are kept in unlinked files instead"),
        ("descriptor passing", _try_descriptor_passing, "the embedded engine needs it"),
        (
            "pidfd",
            _try_pidfd,
            "the end of the program is seen by its closed socket alone",
        ),
    ):
        try:
            attempt()
        except (OSError, AttributeError) as error:
            yield Finding(name, f"missing ({said(error)})", False, hint=otherwise)
        else:
            yield Finding(name, "available", True)
    yield _large_pages()
    for name, folder in (("/dev/shm", "/dev/shm"), ("temporary files", tempfile.gettempdir())):
        try:
            usage = shutil.disk_usage(folder)
        except OSError as error:
            yield Finding(name, f"missing ({said(error)})")
            continue
        hint = ""
        # A small /dev/shm, as in Docker, is no concern: mars does not use it.
        if folder != "/dev/shm" and usage.free < LOW_DISK_BYTES:
            hint = "logs and spilled objects are written here; TMPDIR=<folder> moves them"
        text = f"{size_text(usage.free)} free of {size_text(usage.total)}"
        yield Finding(name, f"{text}, {folder}", usage.free, hint)
    yield from _open_files()


def _open_files() -> Iterator[Finding]:
    try:
        resource = import_module("resource")  # not on Windows
    except ImportError:
        return
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else int(limit)
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    low = soft is not None and soft < LOW_FILES
    yield Finding(
        "open files",
        f"{'no limit' if soft is None else soft}, can be raised to "
        f"{'any number' if hard is None else hard}",
        soft,
        hint=f"`ulimit -n {hard or 65_536}` before starting, for many workers" if low else "",
    )


def _try_memfd() -> None:
    descriptor = os.memfd_create("mars-doctor", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, 4096)
    finally:
        os.close(descriptor)


def _try_descriptor_passing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [ours.fileno()])
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        for descriptor in descriptors:
            os.close(descriptor)


def _large_pages() -> Finding:
    """Whether large values get large pages, as the engine finds it: in a process of its own."""
    code = (
        "from mars.engines.wire.large_pages import Mounting\n"
        "raise SystemExit(Mounting().wait() is None)"
    )
    refused = subprocess.run([sys.executable, "-c", code], check=False).returncode
    text = (
        "not here (Linux 6.14 or later, and root or user namespaces): to write takes longer"
        if refused
        else "available"
    )
    return Finding("large pages", text, not refused)


def _try_pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _packages() -> Iterator[Finding]:
    for name, version in package_versions().items():
        yield Finding(name, version or "not installed", version)


def _threads(environ: Mapping[str, str]) -> Iterator[Finding]:
    mine = {name: environ[name] for name in VARIABLES if name in environ}
    if not mine:
        yield Finding("variables", "none set", {})
    for name, value in mine.items():
        yield Finding(
            name,
            value,
            value,
            hint="holds in this process; in a task, mars sets it to the task's cpus",
        )


def _engine() -> Iterator[Finding]:
    """Time a local engine, in a thread of its own: a stuck one must not take us with it."""
    outcome: dict[str, float] = {}
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            _time_engine(outcome)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, name="mars-doctor", daemon=True)
    thread.start()
    thread.join(DOCTOR_ENGINE_S)
    for name, seconds in dict(outcome).items():
        text = format_duration(seconds) if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"
        yield Finding(name, text, seconds)
    if thread.is_alive():
        problem = f"no answer within {format_duration(DOCTOR_ENGINE_S)}"
    elif errors:
        problem = said(errors[0])
    else:
        yield Finding("local engine", "works", True)
        return
    yield Finding(
        "local engine",
        f"does not work: {problem}",
        False,
        hint="please report it with the output of `mars doctor --json`; until then, "
        'new_session(engine="inline") runs everything in the calling process',
        ok=False,
    )


def _time_engine(outcome: dict[str, float]) -> None:
    mars = import_module("mars")
    remote = import_module("mars.remote")
    began = time.perf_counter()
    session = mars.new_session(engine="local", default=False)
    try:
        _round_trip(session, remote)
        # Not the constructor alone: workers may start while it already returns.
        outcome["start, first result"] = time.perf_counter() - began
        outcome["round trip"] = statistics.median(
            _round_trip(session, remote) for _ in range(DOCTOR_ROUND_TRIPS)
        )
    finally:
        began = time.perf_counter()
        session.stop_server()
        outcome["stop"] = time.perf_counter() - began


def _round_trip(session: object, remote: ModuleType) -> float:
    began = time.perf_counter()
    call = remote.spawn(abs, args=(-42,))
    call.execute(session=session, show_progress=False)
    if call.fetch(session=session) != 42:
        raise ValueError("a call came back with another value than it returned")
    return time.perf_counter() - began
