"""``mars stack``: what each worker does now, with the Python stack of the call that it runs.

For a run that seems to hang. It looks from outside, so it needs nothing of the program, and
changes nothing in it. On a cluster each node looks at its own workers: it is asked by a short call,
of a session that takes no cores. Called by `mars.cli`.
"""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.engines.kinds import is_cluster
from mars.engines.local import stacks
from mars.engines.local.stacks import Processes, Report, State, ThreadCall
from mars.errors import MarsError
from mars.settings import NODE_STACK_S

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import TextIO

_COMMAND_COLUMNS: Final = 80


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars stack`` understands."""
    parser.add_argument(
        "pid_or_address",
        nargs="?",
        help="process of a program or of one worker here, or the address of a cluster, for the "
        "workers on its nodes; default: all programs of this user on this machine",
    )


def run(options: Namespace) -> int:
    """Print what the workers do; 1 if the asked process has nothing to do with mars."""
    what: str | None = options.pid_or_address
    if what is not None and not what.isdigit():
        return _on_nodes(what)
    pid = None if what is None else int(what)
    try:
        found = _chosen(stacks.find_engines(os.getuid() if pid is None else None), pid)
    except FileNotFoundError:
        print("mars stack needs /proc, which this system does not have", file=sys.stderr)
        return 1
    if not found:
        if pid is None:
            print(
                "no program of yours runs an engine of mars on this machine; for the nodes of a "
                "cluster: mars stack ADDRESS"
            )
            return 0
        print(f"process {pid} is no worker of mars, and has none", file=sys.stderr)
        return 1
    for engine in found:
        _write(engine, sys.stdout)
    return 0


def _on_nodes(address: str) -> int:
    """Print what the workers on each node of a cluster do; 1 if one of them does not say."""
    start = import_module("mars.engines.start")
    if not is_cluster(address):
        print(f"{address!r} is no process, and no address of a cluster", file=sys.stderr)
        return 2
    remote = import_module("mars.remote")
    sessions = import_module("mars.session")
    try:
        engine = start.beside(address)
    except (MarsError, OSError, ValueError) as error:
        print(f"mars stack: {error}", file=sys.stderr)
        return 1
    try:
        session = sessions.Session(engine, "stack")
        nodes = session.get_worker_addresses()
        asked = [
            remote.spawn(look, expect_worker=node, timeout=NODE_STACK_S, idempotent=False)
            for node in nodes
        ]
        session.execute(*asked, show_progress=False, on_error="continue")
        missing, seen = 0, set[tuple[str, int]]()
        for node, call in zip(nodes, asked, strict=True):
            try:
                host, found = call.fetch(session=session)
            except Exception as error:  # the others have answered
                print(f"node {node} does not say: {type(error).__name__}: {error}")
                missing += 1
                continue
            new = {zygote: text for zygote, text in found.items() if (host, zygote) not in seen}
            seen.update((host, zygote) for zygote in new)  # a host may have several nodes
            print(f"node {host} ({node}){'' if new else ': no worker of yours'}")
            for text in new.values():
                print(text, end="")
        session.close()
    finally:
        engine.close()
    return 1 if missing else 0


def look() -> tuple[str, dict[int, str]]:
    """What the workers of others on this host do, by their zygote; runs on a node."""
    found = {}
    for engine in stacks.find_engines(os.getuid()):
        if engine.zygote == os.getppid():
            continue  # it is ours
        text = io.StringIO()
        _write(engine, text)
        if f"{__file__}" not in text.getvalue():  # of a node beside us that looks, too
            found[engine.zygote] = text.getvalue()
    return socket.gethostname(), found


def _chosen(engines: Sequence[Processes], pid: int | None) -> list[Processes]:
    """The engines, or workers of one, that were asked for."""
    if pid is None:
        return list(engines)
    chosen = [engine for engine in engines if pid in (engine.driver, engine.zygote)]
    if not chosen:
        chosen = [
            Processes(engine.driver, engine.zygote, [pid])
            for engine in engines
            if pid in engine.workers
        ]
    return chosen


def _write(engine: Processes, stream: TextIO) -> None:
    stream.write(f"program {engine.driver}: {_command(engine.driver)}\n")
    for pid, note in ((engine.driver, "program"), (engine.zygote, "starter of its workers")):
        if platform.is_stopped(pid):
            stream.write(f"  the {note} (pid {pid}) is {_stopped(pid)}\n")
    for pid in engine.workers:
        try:
            _write_report(stacks.examine(pid), stream)
        except PermissionError:
            stream.write(f"  worker {pid}: belongs to another user\n")
        stream.flush()  # the next one may take a while to answer


def _write_report(report: Report, stream: TextIO) -> None:
    stream.write(f"  worker {report.pid}: {_said(report)}\n")
    stream.writelines(f"    {frame}\n" for frame in report.call)
    for one in report.calls:
        stream.write(f"    {one.name or 'a call'}: {_said_of_call(one)}\n")
        stream.writelines(f"      {frame}\n" for frame in one.call or ())
    for frames in report.threads:
        stream.write("    in another thread:\n")
        stream.writelines(f"      {frame}\n" for frame in frames)


def _said(report: Report) -> str:
    if report.state is State.STOPPED:
        return _stopped(report.pid)
    if report.state is State.SILENT:
        return "alive, but it does not answer: it starts, waits for a disk, or lost our files"
    if report.state is State.RUNNING and not report.call:
        return "running a call; it is in C code, with no Python function around it"
    if report.calls:
        several = f"{len(report.calls)} calls" if len(report.calls) > 1 else "a call"
        return f"running {several} in threads"
    if report.call:
        return f"{report.state.value}, most recent line first"
    return str(report.state.value)


def _said_of_call(one: ThreadCall) -> str:
    if one.call:
        return f"{one.state.value}, most recent line first"
    if one.call is None:
        return "running; its stack is not known, as only 100 threads of a process tell theirs"
    return f"{one.state.value}; it is in C code, with no Python function around it"


def _stopped(pid: int) -> str:
    return f"{State.STOPPED.value}; kill -CONT {pid} lets it go on"


def _command(pid: int) -> str:
    """The command line of a process, short enough for one line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().replace(b"\0", b" ").decode("utf-8", "replace").split()
    except OSError:
        return "has ended"
    text = " ".join(words)
    return text if len(text) <= _COMMAND_COLUMNS else f"{text[: _COMMAND_COLUMNS - 3]}..."
