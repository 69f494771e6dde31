"""The text about a worker process that ended: how, what it said last, why, and what to do.

Pure: `deaths` has the facts, and calls `evidence` for a death under a call and `ending_name`.
Certificates of TLS are in `mars.deploy`.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Final

from mars.engines.wire.status import START_REFUSED
from mars.settings import CRASH_LINES_BEFORE, LOG_TAIL_LINES

_CRASH: Final = "Fatal Python error: "


def ending_name(status: int | None) -> str:
    """A wait status as people say it."""
    if status is None:
        return "no known status"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def start_ending(status: int | None) -> str:
    """How a worker ended that never was ready."""
    code = None if status is None else os.waitstatus_to_exitcode(status)
    if code is None or code <= START_REFUSED:
        return f"ended with {ending_name(status)} before it was ready"
    number = code - START_REFUSED
    hint = {
        errno.ENOSPC: "; temporary files have no room there (TMPDIR)",
        errno.EDQUOT: "; temporary files have no room there (TMPDIR)",
        errno.EMFILE: " (ulimit -n)",
    }
    return f"could not begin: {os.strerror(number)}{hint.get(number, '')}"


def last_lines(text: str) -> list[str]:
    """The end of a log; of a crash its headline and the frames that are nearest to it."""
    lines = text.splitlines()
    crashes = [index for index, line in enumerate(lines) if line.startswith(_CRASH)]
    if not crashes:
        return lines[-LOG_TAIL_LINES:]
    begin = max(0, crashes[-1] - CRASH_LINES_BEFORE)
    end = crashes[-1] + LOG_TAIL_LINES
    left = len(lines) - end
    return lines[begin:end] + ([f"... and {left} more lines"] if left > 0 else [])


def evidence(
    status: int | None, *, peak_kib: int, starved: bool, note: str, broken: str, tail: str
) -> str:
    """What is known of a death, and what to do about it.

    Parameters
    ----------
    status : int or None
        As `os.wait` has it; None: not known.
    peak_kib : int
        Most memory that the process used, KiB; 0: not known.
    starved : bool
        The kernel ended it because memory ran out.
    note : str
        What whoever saw the end says of it.
    broken : str
        Why we ended it, if its messages were not believed any more.
    tail : str
        The end of what it printed.
    """
    lines = []
    if peak_kib:
        lines.append(f"it used at most {peak_kib / 1024:,.0f} MiB of memory")
    if starved:
        lines.append("the kernel ended it because memory ran out")
    lines += [told for told in (note, broken) if told]
    last = last_lines(tail)
    if last:
        lines.append("its log ends with:\n" + "\n".join("  " + line for line in last))
    lines.append(_advice(status, starved, note, broken))
    return "\n".join(line for line in lines if line)


def _advice(status: int | None, starved: bool, note: str, broken: str) -> str:
    if broken:
        return (
            "something in the call wrote to a descriptor that is not its own: look for descriptors "
            "used by number or after they were closed, and for forked processes that call mars"
        )
    if starved:
        return (
            "let the call take less memory, or spawn it with memory= so that what runs beside it "
            "leaves room"
        )
    if status is None or note:
        return ""
    if not os.WIFSIGNALED(status):
        code = os.waitstatus_to_exitcode(status)
        return (
            f"something in the call ended its process, such as os._exit({code}) or exit({code}) "
            f"of a C library; raise an exception instead"
        )
    number = os.WTERMSIG(status)
    if number == signal.SIGKILL:
        return (
            "it was killed from outside of mars: most likely memory ran out, of the machine or of "
            "a batch job (see memory= of spawn), or somebody sent the signal"
        )
    if number == signal.SIGABRT:
        return (
            "compiled code gave up with abort(), in the first frame above that is a library's; "
            "what it printed says why"
        )
    if number in _FAULTS:
        return (
            "compiled code crashed, most likely in the library of the first frame above: update "
            "it, or call it with smaller input to see which it cannot take"
        )
    if number == signal.SIGXCPU:
        return "its limit of processor time (RLIMIT_CPU) was used up"
    return "somebody sent it this signal, perhaps the call itself"


_FAULTS: Final = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
