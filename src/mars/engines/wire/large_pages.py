"""Files in memory that are made of large pages, where the system lets us have them.

With pages of 4 KiB most of the time of writing and of reading a large value goes to its pages:
about 1.5 us to get and write one, 0.3 us to map it. `memfd_create` gives no others unless the
administrator has said so. A tmpfs has those that whoever mounts it asks for. So the zygote starts
a child that mounts one, in no folder (`fsmount`). Where a user may not mount, the child does it in
namespaces of its own. The descriptor of its root is all there is of it: nobody else sees it, it has
no name, and it is gone with the last file in it.

With ``huge=within_size`` a page is as large as what is written at once, provided that the file ends
behind it. So these files are only as long as what was written to them.

`Mounting` is called by the zygote, which gives the descriptor to the driver and, as it forks them,
to workers; `LargePages` by who makes arenas. Where there is none, arenas have small pages.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import Final

from mars import platform
from mars.settings import MOUNT_S

# System calls that C libraries learned late; their numbers are the same on all usual machines.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_SET_STRING, _CREATE = 1, 6
_CLOEXEC: Final = 1
_NEW_USER, _NEW_MOUNTS = 0x1000_0000, 0x0002_0000

_OPTIONS: Final = (
    (b"huge", b"within_size"),
    (b"size", b"0"),
    (b"nr_inodes", b"0"),
    (b"mode", b"700"),
)
"""No limits of its own, as memory files have none."""

_SINCE: Final = (6, 14)
"""Linux that gives a tmpfs pages of the size of what is written, not of 2 MiB or 4 KiB only."""

_RESTRICTED: Final = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
"""Ubuntu: user namespaces without rights. To try would only add a line to the system's log."""


class LargePages:
    """Makes files with large pages.

    Parameters
    ----------
    descriptor : int
        From `Mounting.wait`; this object's from here on.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._device = os.fstat(descriptor).st_dev

    def file(self, name: str) -> int:
        """Descriptor of a new file; it is gone with its last descriptor.

        Raises
        ------
        OSError
            No memory or no descriptor is left, or a call has closed ours.
        """
        if os.fstat(self.descriptor).st_dev != self._device:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(f"mars-{name}", flags, dir_fd=self.descriptor)
        os.unlink(f"mars-{name}", dir_fd=self.descriptor)
        os.fchmod(descriptor, 0o600)  # whatever a call made of the umask
        return descriptor

    def close(self) -> None:
        """Make no further files; those that are there stay."""
        os.close(self.descriptor)


class Mounting:
    """A child process that mounts a file system; its parent can do something else meanwhile.

    The parent has one thread.
    """

    def __init__(self) -> None:
        self._pid = 0
        if not _is_worth_it():
            return
        with contextlib.suppress(OSError), contextlib.ExitStack() as undo:  # else small pages
            self._socket, theirs = map(undo.enter_context, platform.socket_pair())
            self._pid = os.fork()
            if self._pid == 0:
                _mount_and_send(theirs)
            undo.pop_all()
            theirs.close()

    def wait(self) -> int | None:
        """Descriptor of the root of the file system; None where there is none."""
        if not self._pid:
            return None
        descriptors: list[int] = []
        with self._socket:
            self._socket.settimeout(MOUNT_S)
            try:
                platform.receive(self._socket, 1, descriptors)
            except OSError:
                with platform.Process(self._pid) as child:
                    child.signal(signal.SIGKILL)
        os.waitpid(self._pid, 0)
        return descriptors[0] if descriptors else None


def _is_worth_it() -> bool:
    if not platform.LINUX:
        return False
    major, minor = os.uname().release.split(".")[:2]
    if (int(major), int(minor)) < _SINCE:
        return False
    try:
        with open(_RESTRICTED, "rb", buffering=0) as file:
            return file.read(1) == b"0" or os.geteuid() == 0
    except OSError:
        return True


def _mount_and_send(sock: platform.Socket) -> None:
    """What the child does, from its first step to its last."""
    try:
        try:
            descriptor = _mount()
        except PermissionError:
            _enter_namespaces()
            descriptor = _mount()
        platform.send(sock, b"\0", [descriptor])
    except OSError:  # the system has not got it, or does not let us
        os._exit(1)
    finally:
        os._exit(0)


def _mount() -> int:
    import ctypes

    system = _call(_FSOPEN, b"tmpfs", ctypes.c_uint(_CLOEXEC))
    for name, value in _OPTIONS:
        _call(_FSCONFIG, system, ctypes.c_uint(_SET_STRING), name, value, 0)
    _call(_FSCONFIG, system, ctypes.c_uint(_CREATE), None, None, 0)
    return _call(_FSMOUNT, system, ctypes.c_uint(_CLOEXEC), ctypes.c_uint(0))


def _enter_namespaces() -> None:
    """Have the right to mount, where nobody else sees what is mounted."""
    import ctypes

    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER | _NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for name, text in (
        ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")
    ):  # fmt: skip
        with open(f"/proc/self/{name}", "wb", buffering=0) as file:
            file.write(text.encode())


def _call(number: int, *arguments: object) -> int:
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    result: int = call(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
