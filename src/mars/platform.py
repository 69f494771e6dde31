"""Everything that depends on the operating system, in one place.

Tested on Linux. macOS has no `memfd_create`, process descriptors or parent-death signal: there
an unlinked temporary file serves as memory, and the rest is left out, which is untested.
Windows has no way to send a descriptor to another process, so the local engine does not start.
"""

from __future__ import annotations

import array
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

LINUX: Final = sys.platform.startswith("linux")
CAN_SEND_DESCRIPTORS: Final = hasattr(socket, "SCM_RIGHTS")
HAS_MEMFD: Final = hasattr(os, "memfd_create")
HAS_PIDFD: Final = hasattr(os, "pidfd_open")

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_IONBF: Final = 2


def memory_file(name: str) -> int:
    """Descriptor of a nameless file in memory; it is gone with its last descriptor.

    Raises
    ------
    OSError
        No memory or no descriptor is left.
    """
    if HAS_MEMFD:
        return os.memfd_create(f"mars-{name}", os.MFD_CLOEXEC)
    return nameless_file()


def nameless_file(directory: str | None = None) -> int:
    """Descriptor of a file on disk without a name, opened to append.

    Raises
    ------
    OSError
        The directory cannot be written, or no descriptor is left.
    """
    directory = directory or tempfile.gettempdir()
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(directory, flags | os.O_TMPFILE, 0o600)
        except OSError:  # not every file system can: use a name for a moment
            pass
    descriptor, path = tempfile.mkstemp(prefix="mars-", dir=directory)
    try:
        again = os.open(path, flags)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return again


def send(sock: socket.socket, data: bytes | memoryview, descriptors: Sequence[int] = ()) -> int:
    """Send bytes, with descriptors attached to the first of them; how many bytes were taken."""
    if not descriptors:
        return sock.send(data)
    rights = array.array("i", descriptors)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def receive(sock: socket.socket, limit: int, descriptors: list[int]) -> bytes:
    """Receive up to ``limit`` bytes; descriptors that come with them are appended to the list."""
    data, ancillary, _, _ = sock.recvmsg(limit, _RIGHTS_SPACE, _RECEIVE_FLAGS)
    if ancillary:
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(content[: len(content) - len(content) % rights.itemsize])
                descriptors.extend(rights)
    return data


_RIGHTS_SPACE: Final = socket.CMSG_SPACE(64 * 4) if CAN_SEND_DESCRIPTORS else 0
_RECEIVE_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    if LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they can be killed."""
    if LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def unbuffer_c_output() -> None:
    """Let C's ``printf`` write at once, so that each byte lands in the log of its call."""
    import ctypes

    libc = ctypes.CDLL(None)
    for name in ("stdout", "stderr") if LINUX else ("__stdoutp", "__stderrp"):
        try:
            stream = ctypes.c_void_p.in_dll(libc, name)
        except ValueError:  # another C library: its buffer is flushed when it likes
            continue
        libc.setvbuf(stream, None, _IONBF, 0)


def descendants(pid: int) -> list[int]:
    """Processes below ``pid``, children before grandchildren."""
    if not LINUX:
        return []
    found: list[int] = []
    pending = [pid]
    while pending:
        try:
            with open(f"/proc/{pending[-1]}/task/{pending.pop()}/children") as file:
                children = [int(child) for child in file.read().split()]
        except OSError:  # it ended meanwhile
            continue
        found.extend(children)
        pending.extend(children)
    return found
