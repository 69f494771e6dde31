"""Processes of a cluster on this machine: started apart from the program, ended one by one.

A process is known by its number and the time when it started, in one boot and one process
namespace, because numbers are used again. Engines start further processes of their own, also in
other sessions of the operating system; each inherits the variable `MARK`, so these are found, and
no others. Called by `mars.deploy.clusters`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.deploy import private_files
from mars.platform import machine
from mars.settings import PROCESS_POLL_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MARK: Final = "MARS_CLUSTER"
"""Variable that a process of a cluster and all that it starts carry, with a value of its own."""


_LIST: Final = "processes.json"
_ENDED: Final = ("", "Z", "X")


@dataclass(frozen=True, slots=True)
class Process:
    """One process: what `start` returns."""

    role: str
    mark: str  # value of `MARK` in it and in all that it starts
    directory: str  # that is removed when it has ended
    pid: int = 0
    started: int = 0  # clock ticks after the boot
    machine: str = ""  # boot and process namespace


def start(
    command: Sequence[str], environment: Mapping[str, str], output: Path, plan: Process
) -> Process:
    """Start a process in a session of its own; what it prints goes to a private file."""
    private_files.directory(output.parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Not `subprocess`: nobody of this program waits for it, and `end` takes note of its end.
    pid = os.posix_spawnp(
        command[0], list(command), dict(environment), file_actions=actions, setsid=True
    )
    return replace(plan, pid=pid, started=_facts(pid)[1], machine=machine())


def is_running(process: Process) -> bool:
    """Whether it is there, and is that one."""
    if process.machine != machine():
        return False
    state, started, parent = _facts(process.pid)
    if state == "Z" and parent == os.getpid() and started == process.started:
        _reap(process.pid)
    return started == process.started and state not in _ENDED


def end(process: Process, grace_s: float) -> None:
    """End a process and all that carries its mark: SIGTERM, then SIGKILL.

    Parameters
    ----------
    process : Process
        That was started; it is asked, and ends what it started.
    grace_s : float
        How long that may take, seconds.
    """
    seen = _family(process)  # before it ends: some cannot be traced to it afterwards
    _signal(process, signal.SIGTERM)
    process = replace(process, role="", directory="")  # as `_family` has it
    asked = {process}
    deadline = time.monotonic() + grace_s
    while left := {one for one in seen if is_running(one)}:
        if time.monotonic() > deadline:
            for late in left:
                _signal(late, signal.SIGKILL)
        elif process not in left:  # nobody is there any more to end what it started
            for orphan in left - asked:
                _signal(orphan, signal.SIGTERM)
            asked |= left
        time.sleep(PROCESS_POLL_S)
        seen |= _family(process)


def marked(mark: str) -> list[Process]:
    """All processes on this machine that carry a mark."""
    needle = f"{MARK}={mark}".encode()
    here = machine()
    found = []
    for pid in _pids():
        state, started, _ = _facts(pid)
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # it ended, or is another user's
            continue
        if needle in variables and state not in _ENDED:
            found.append(Process("", mark, "", pid, started, here))
    return found


def remember(directory: Path, add: Iterable[Process] = (), drop: Iterable[Process] = ()) -> None:
    """Change what is written down of what a cluster has started; nobody else does meanwhile."""
    dropped = list(drop)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        kept = [process for process in remembered(directory) if process not in dropped]
        text = json.dumps([asdict(process) for process in (*kept, *add)])
        private_files.replace(directory / _LIST, text.encode())
    finally:
        os.close(descriptor)


def remembered(directory: Path) -> list[Process]:
    """What a cluster has started, on whatever machine that has this directory."""
    try:
        return [Process(**facts) for facts in json.loads(private_files.read(directory / _LIST))]
    except FileNotFoundError:
        return []


def _family(process: Process) -> set[Process]:
    """A process, all that carry its mark, and all that descend from these.

    A program that writes its name over its own arguments, as agents of Ray do, hides its mark.
    """
    here = machine()
    facts = {pid: _facts(pid) for pid in _pids()}
    found = {one.pid for one in marked(process.mark)}
    if is_running(process):
        found.add(process.pid)
    children: dict[int, list[int]] = {}
    for pid, (_, _, parent) in facts.items():
        children.setdefault(parent, []).append(pid)
    pending = list(found)
    while pending:
        below = children.get(pending.pop(), [])
        found.update(below)
        pending += below
    return {
        replace(process, role="", directory="", pid=pid, started=facts[pid][1], machine=here)
        for pid in found
        if pid in facts and facts[pid][0] not in _ENDED
    }


def _signal(process: Process, number: signal.Signals) -> None:
    """Send a signal to exactly this process: its descriptor is opened, then it is looked at."""
    with contextlib.suppress(ProcessLookupError), platform.Process(process.pid) as known:
        if is_running(process):
            known.signal(number)


def _reap(pid: int) -> None:
    """Take note of the end of a process if it is our child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _pids() -> list[int]:
    """All processes but this one."""
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and name != str(os.getpid())
    ]


def _facts(pid: int) -> tuple[str, int, int]:
    """State, start in clock ticks, and parent of a process; ("", 0, 0): it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0, 0
    words = text.rpartition(")")[2].split()  # a name may hold anything
    return words[0], int(words[19]), int(words[1])
