"""``mars stack``: what each worker does now, with the Python stack of the call that it runs.

For a run that seems to hang. It looks from outside, so it needs nothing of the program, and
changes nothing in it. Called by `mars.cli`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.engines.local import stacks
from mars.engines.local.stacks import Processes, Report, State

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import TextIO

_COMMAND_COLUMNS: Final = 80


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars stack`` understands."""
    parser.add_argument(
        "pid",
        type=int,
        nargs="?",
        help="process of a program or of one worker; default: all programs of this user",
    )


def run(options: Namespace) -> int:
    """Print what the workers do; 1 if the asked process has nothing to do with mars."""
    pid: int | None = options.pid
    try:
        found = _chosen(stacks.find_engines(os.getuid() if pid is None else None), pid)
    except FileNotFoundError:
        print("mars stack needs /proc, which this system does not have", file=sys.stderr)
        return 1
    if not found:
        if pid is None:
            print("no program of yours runs an engine of mars on this machine")
            return 0
        print(f"process {pid} is no worker of mars, and has none", file=sys.stderr)
        return 1
    for engine in found:
        _write(engine, sys.stdout)
    return 0


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
    if report.call:
        return f"{report.state.value}, most recent line first"
    return str(report.state.value)


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
