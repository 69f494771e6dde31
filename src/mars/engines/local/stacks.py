"""Where each worker is, asked from outside: ``mars stack``.

A worker has `faulthandler` write the Python stacks of its threads to a small file in memory when
a signal comes. It does so in the signal's handler, so it needs neither the interpreter's lock nor
any help of the running call, and a call that hangs in C answers too. Whoever asks finds the
processes, and that file, in ``/proc``. Nothing of this costs a call anything.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

from mars import platform
from mars.engines.worker.stack_answer import FILE, NAMES, SIGNAL, SLOT
from mars.settings import STACK_ANSWER_S, STACK_SETTLED_S

_ZYGOTE: Final = re.compile(
    rb"from mars\.engines\.local\.zygote import main; main\(\d+, (\d+), -?\d+\)\0$"
)
"""End of the command line of a zygote (see `launch`), and of all that was forked from it."""

_THREAD: Final = re.compile(
    r"(?:Current thread|Thread) 0x([0-9a-f]+).* \(most recent call first\):"
)
_WORKER_FILES: Final = "engines/worker/"


class State(Enum):
    """What a worker does."""

    RUNNING = "running a call"
    NESTED = "waiting for calls that its call has made"
    IDLE = "idle"
    STOPPED = "stopped by a signal"
    SILENT = "no answer"
    THREADS = "running calls in threads"
    GONE = "has ended"


class ThreadCall(NamedTuple):
    """A call that runs in a thread beside others.

    Attributes
    ----------
    name : str
        What the call is called. Empty: not known.
    state : State
        Whether it runs, or waits for calls that it has made.
    call : tuple of str or None
        Its frames, most recent first, without ours. None: they were not told.
    """

    name: str
    state: State
    call: Sequence[str] | None


class Report(NamedTuple):
    """What a worker does, and where.

    Attributes
    ----------
    pid : int
        Its process.
    state : State
        What it does.
    call : tuple of str
        Frames of the running call, most recent first, without ours.
    threads : tuple of tuple of str
        Frames of other threads in the process that are not ours.
    calls : tuple of ThreadCall
        What the threads of a process run that is for calls with ``threads=``.
    """

    pid: int
    state: State
    call: Sequence[str] = ()
    threads: Sequence[Sequence[str]] = ()
    calls: Sequence[ThreadCall] = ()


class Processes(NamedTuple):
    """The processes of one engine: the program, its zygote, the zygote's workers."""

    driver: int
    zygote: int
    workers: Sequence[int]


def find_engines(user: int | None = None) -> list[Processes]:
    """Find all engines that run on this machine.

    Parameters
    ----------
    user : int, optional
        Only those of this user, by number. None: of all.

    Raises
    ------
    FileNotFoundError
        The system has no ``/proc``.
    """
    drivers: dict[int, int] = {}  # zygotes, workers and what those forked -> the driver
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if user is not None and os.stat(f"/proc/{entry}").st_uid != user:
                continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                found = _ZYGOTE.search(file.read())
        except OSError:  # it has ended, or is not ours to look at
            continue
        status = _status(int(entry)) if found else None
        if found and status:
            drivers[int(entry)] = int(found[1])
            parents[int(entry)] = status[1]
    zygotes = [
        # Inside a container, the driver may call itself by another number than we do.
        pid for pid, parent in parents.items() if parent == drivers[pid] or parent not in drivers
    ]  # fmt: skip
    return [
        Processes(parents[zygote], zygote, sorted(p for p in parents if parents[p] == zygote))
        for zygote in sorted(zygotes)
    ]


def _status(pid: int) -> tuple[str, int] | None:
    """State letter and parent of a process; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except OSError:
        return None
    return state.decode(), int(parent)


def examine(pid: int, limit_s: float = STACK_ANSWER_S) -> Report:
    """Ask a worker what it does.

    Its call notices nothing, except that a system call of C code which ends early when a signal
    comes, such as ``usleep``, does so. A stopped worker is not asked.

    Parameters
    ----------
    pid : int
        Its process.
    limit_s : float, default 2
        Seconds to wait for the answer.

    Raises
    ------
    PermissionError
        The process belongs to somebody else.
    """
    status = _status(pid)
    if status is None or status[0] in "ZX":
        return Report(pid, State.GONE)
    if status[0] in "Tt":
        return Report(pid, State.STOPPED)
    try:
        answer = _ask(pid, limit_s)
    except (FileNotFoundError, ProcessLookupError):
        return Report(pid, State.GONE)
    if not answer:
        return Report(pid, State.SILENT)
    return _read(pid, answer, _names(pid))


def looked_at(pid: int) -> list[str]:
    """What a worker does, and the frames of its call below that, the most recent one first.

    Parameters
    ----------
    pid : int
        Its process; 0: there is none.
    """
    try:
        report = examine(pid) if pid else Report(pid, State.GONE)
    except (OSError, ValueError) as error:  # no /proc, no descriptor, or it is not ours
        return [f"{State.SILENT.value} ({type(error).__name__}: {error})"]
    return [report.state.value, *report.call]


def _ask(pid: int, limit_s: float) -> str:
    # First of all: then what we look at is the process that gets the signal, or it has ended.
    with platform.Process(pid) as process:
        return _ask_process(process, pid, limit_s)


def _ask_process(process: platform.Process, pid: int, limit_s: float) -> str:
    path = _file_in_memory(pid, FILE)
    # To a process that does not expect it, the signal would be the end.
    if path is None or SIGNAL is None or not _catches(pid, SIGNAL):
        return ""
    deadline = time.monotonic() + limit_s
    with open(path, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several who ask at once take turns
        file.truncate(0)
        process.signal(SIGNAL)
        size, grown_at = 0, deadline
        while True:
            now = time.monotonic()
            answer = os.pread(file.fileno(), 1 << 20, 0)
            if len(answer) != size:
                size, grown_at = len(answer), now
            # The main thread is the last one, and its outermost frame the zygote's command.
            whole = answer.endswith(b'File "<string>", line 1 in <module>\n')
            if whole or now > deadline or now - grown_at > STACK_SETTLED_S:
                return answer.decode("utf-8", "replace")
            time.sleep(0.002)


def _names(pid: int) -> dict[int, str] | None:
    """Which threads run which calls; None: the process is not for calls in threads."""
    try:
        path = _file_in_memory(pid, NAMES)
        if path is None:
            return None
        with open(path, "rb") as file:
            told = file.read()
    except OSError:  # it has just ended
        return None
    found = {}
    for start in range(0, len(told), SLOT):
        name = told[start + 8 : start + SLOT].rstrip(b"\0")
        if name:
            thread = int.from_bytes(told[start : start + 8], "little")
            found[thread] = name.decode("utf-8", "replace")
    return found


def _file_in_memory(pid: int, name: str) -> str | None:
    folder = f"/proc/{pid}/fd"
    for entry in os.listdir(folder):
        path = f"{folder}/{entry}"
        try:
            if f"memfd:mars-{name} " in f"{os.readlink(path)} ":
                return path
        except FileNotFoundError:  # closed meanwhile
            continue
    return None  # the call has closed descriptors that are not its own


def _catches(pid: int, number: int) -> bool:
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "SigCgt":
                return bool(int(value, 16) >> (number - 1) & 1)
    return False


def _read(pid: int, answer: str, names: dict[int, str] | None) -> Report:
    """Tell from the stacks of its threads what a worker does."""
    *others, (_, main) = _threads(answer)
    if names is not None:
        return _read_calls(pid, [*others, (0, main)], names)
    threads = [frames for _, frames in others if not any(map(_is_control, frames))]
    for position, frame in enumerate(main):
        if _is_ours(frame, "wait_reply"):
            asking = _above_ours(_below_package(main[position:]))
            return Report(pid, State.NESTED, asking, threads)
        if _is_ours(frame, "perform"):
            return Report(pid, State.RUNNING, _above_ours(main[: position + 1]), threads)
    if main and not main[-1].endswith(" in <module>"):  # so deep that our frames are cut off
        return Report(pid, State.RUNNING, main, threads)
    return Report(pid, State.IDLE, (), threads)


def _read_calls(
    pid: int, stacks: Sequence[tuple[int, Sequence[str]]], names: dict[int, str]
) -> Report:
    """What the threads of a process do that is for calls with ``threads=``.

    Only a hundred threads tell of their stacks. Of the calls in others the names are told.
    """
    calls, threads = [], []
    for thread, frames in stacks:
        asking = next((at for at, one in enumerate(frames) if _is_ours(one, "wait_reply")), None)
        own = names.pop(thread, "")
        if asking is not None and _is_in_call(frames):
            part = _above_ours(_below_package(frames[asking:]))
            calls.append(ThreadCall(own, State.NESTED, part))
        elif own or _is_in_call(frames):
            calls.append(ThreadCall(own, State.RUNNING, _above_ours(frames)))
        elif not any(_is_ours(one, "run") or _is_ours(one, "_run") for one in frames):
            threads.append(frames)
    calls += [ThreadCall(name, State.RUNNING, None) for name in names.values()]
    return Report(pid, State.THREADS if calls else State.IDLE, (), threads, calls)


def _is_in_call(frames: Sequence[str]) -> bool:
    return any(_is_ours(one, "perform") for one in frames)


def _threads(answer: str) -> Iterator[tuple[int, list[str]]]:
    """Identity and frames of each thread, the main thread's last."""
    thread, frames = 0, list[str]()
    for line in answer.splitlines():
        head = _THREAD.match(line)
        if head:
            if frames:
                yield thread, frames
            thread, frames = int(head[1], 16), []
        elif line.strip() and line != "...":
            frames.append(line.strip())
    yield thread, frames


def _is_ours(frame: str, name: str) -> bool:
    return frame.endswith((f" in {name}", f".{name}")) and _WORKER_FILES in frame


def _is_control(frame: str) -> bool:
    return _is_ours(frame, "serve_control")


def _below_package(frames: Sequence[str]) -> Sequence[str]:
    """The part of a stack that begins in `worker` from the first frame of somebody else on."""
    package = frames[0].partition(_WORKER_FILES)[0]
    theirs = (index for index, frame in enumerate(frames) if not frame.startswith(package))
    return frames[next(theirs, len(frames)) :]


def _above_ours(frames: Sequence[str]) -> list[str]:
    """The frames of the call: what is more recent than our function that calls it."""
    ours = [
        position for position, frame in enumerate(frames)
        if _is_ours(frame, "perform") or _is_ours(frame, "_perform_block")
        or _is_ours(frame, "_call_limited")
    ]  # fmt: skip
    return list(frames[: ours[0]] if ours else frames)
