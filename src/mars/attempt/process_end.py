"""What Python does at the end of a process, for a worker that would otherwise just be gone.

Calls register handlers (`atexit`, `weakref.finalize`, `multiprocessing`), leave threads that write,
and files whose last lines are still in a buffer. A worker that ends regularly lets all of that run,
for a limited time. Called by the worker, in its main thread, after its last call, and in
processes that calls have forked.
"""

from __future__ import annotations

import _io
import atexit
import contextlib
import fcntl
import gc
import os
import signal
import sys
import threading
from collections.abc import Collection
from typing import Final, NoReturn

_NO_FILES: Final = ("/dev/", "/memfd:", "anon_inode:", "socket:")
"""What descriptors lead to that have nothing to write out."""


def run_handlers(limit_s: float) -> None:
    """Wait for threads and run exit handlers, as Python does; past the limit the process is killed.

    By a timer of the system, which also ends handlers that hold the interpreter.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    for act in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
        try:
            act()
        except BaseException as error:
            sys.__excepthook__(type(error), error, error.__traceback__)


def leave_fork(error: BaseException | None) -> NoReturn:
    """End a process that a call has forked, as Python would at the end of its program.

    Parameters
    ----------
    error : BaseException, optional
        What the function raised there. It gives the status, and its traceback is in the log.
    """
    status = 0
    with contextlib.suppress(BaseException):  # whatever happens, the process ends
        if isinstance(error, SystemExit):
            status = 0 if error.code is None else 1
            if isinstance(error.code, int):
                status = error.code & 0xFF
            elif error.code is not None:
                print(error.code, file=sys.stderr)
        elif error is not None:
            status = 1
            sys.__excepthook__(type(error), error, error.__traceback__)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or the disk is full
            stream.flush()
    os._exit(status)


def flush_files() -> None:
    """Write out what is in the buffers of files, whoever holds them.

    Python closes a file when nobody needs it any more. Where that is found out for a whole circle
    of objects, such as a class and its instance, it may close what lies below a buffer before the
    buffer, which is lost then.
    """
    for found in gc.get_objects():
        if _io._IOBase in type(found).__mro__:
            with contextlib.suppress(Exception):  # closed, only to be read, or the disk is full
                found.flush()


def open_descriptors() -> frozenset[int]:
    """Descriptors of this process; empty where the system does not tell."""
    try:
        listed = list(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        return frozenset()
    return frozenset(filter(_is_open, listed))  # one was that of the listing


def _is_open(descriptor: int) -> bool:
    try:
        os.get_inheritable(descriptor)
    except OSError:
        return False
    return True


def has_open_files(before: Collection[int]) -> bool:
    """Whether a file is open to write, so that something of it may still be in a buffer.

    Parameters
    ----------
    before : collection of int
        Descriptors that do not count: what `open_descriptors` gave before any call.
    """
    descriptors = open_descriptors()
    return not descriptors or any(
        descriptor not in before and _may_be_written(descriptor) for descriptor in descriptors
    )


def _may_be_written(descriptor: int) -> bool:
    try:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            return False
        target = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # another thread has closed it
        return False
    return not target.startswith(_NO_FILES) and not target.endswith(" (deleted)")
