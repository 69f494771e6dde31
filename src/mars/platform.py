"""Everything that depends on the operating system, in one place.

Tested on Linux. macOS has no `memfd_create`, process descriptors or parent-death signal: there
an unlinked temporary file serves as memory, and the rest is left out, which is untested.
Windows has no way to send a descriptor to another process, so the local engine does not start.

One long room on purpose: what a port to another system has to do is read here from top to bottom,
and each module more would cost every worker 0.1 ms as it starts.
"""

from __future__ import annotations

import _socket  # `socket` makes enums of its numbers, which takes 2 ms in each process
import array
import contextlib
import errno
import functools
import mmap
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

TYPE_CHECKING = False  # known to type checkers
if TYPE_CHECKING:

    class _Library(Protocol):
        """What is used of struct dl_phdr_info."""

        adds: int
        name: bytes | None

    class _Pointer(Protocol):
        """A pointer of ctypes to it."""

        @property
        def contents(self) -> _Library: ...


LINUX: Final = sys.platform.startswith("linux")
CAN_SEND_DESCRIPTORS: Final = hasattr(_socket, "SCM_RIGHTS")
HAS_MEMFD: Final = hasattr(os, "memfd_create")
HAS_PIDFD: Final = hasattr(os, "pidfd_open")

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_IONBF: Final = 2


def refusal(error: OSError) -> str:
    """What the system refuses, and which limit may be raised for it."""
    import resource  # not there on Windows

    reason = error.strerror or str(error)
    if error.errno == errno.EFBIG:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return f"{reason}: a file may have {most:,} bytes here (ulimit -f), also one in memory"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{reason}: this process may have {most:,} (ulimit -n)"
    return reason


class _Descriptors:
    """The soft limit of descriptors of this process, which is the program's, or raised by us."""

    def __init__(self) -> None:
        self.given = self.raised = -1

    def have(self, newest: int, spare: int) -> bool:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard not in (-1, resource.RLIM_INFINITY):
            spare = min(spare, hard // 4)
        if soft in (-1, resource.RLIM_INFINITY) or newest + spare < soft:
            return True
        most = max(2 * soft, newest + 2 * spare)
        more = most if hard in (-1, resource.RLIM_INFINITY) else min(most, hard)
        if more <= soft:
            return False
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        except (OSError, ValueError):  # some systems have a limit beside that
            return False
        if soft != self.raised:
            self.given = soft
        self.raised = more
        return newest + spare < more

    def limit(self) -> int:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.given if soft == self.raised else soft


_descriptors = _Descriptors()


def have_descriptors(newest: int, spare: int) -> bool:
    """Whether so many are left after the newest one, which has the lowest number that was free.

    If not, the soft limit is raised, as far as the hard one allows. A program that needs no more
    keeps its limit, as `select` and the like take small numbers only.
    """
    return _descriptors.have(newest, spare)


def descriptor_limit() -> int:
    """The soft limit of descriptors as the program has it, without what we have added."""
    return _descriptors.limit()


def limit_descriptors(soft: int) -> None:
    """Have a soft limit of so many from here on, as far as that can be."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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


def sized_file(size: int, name: str, *, on_disk: bool, directory: str | None = None) -> int:
    """Descriptor of a nameless file of ``size`` bytes, in memory or in a directory on disk.

    Raises
    ------
    OSError
        There is no room for it, or no descriptor is left.
    """
    descriptor = nameless_file(directory, append=False) if on_disk else memory_file(name)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def nameless_file(directory: str | None = None, *, append: bool = True) -> int:
    """Descriptor of a file on disk without a name, opened to append unless told otherwise.

    Raises
    ------
    OSError
        The directory cannot be written, or no descriptor is left.
    """
    directory = directory or _temporary_directory()
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_APPEND if append else 0)
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(directory, flags | os.O_TMPFILE, 0o600)
        except OSError:  # not every file system can: use a name for a moment
            pass
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="mars-", dir=directory)
    try:
        again = os.open(path, flags)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return again


FileAddress = tuple[str, int, int, int, int]
"""Machine, process, descriptor, and the device and number of the file: see `file_address`."""


def file_address(descriptor: int) -> FileAddress | None:
    """How another process of this machine finds a file that this one has open, also a nameless one.

    None where the system has no way for that.
    """
    here = machine()
    if not here:
        return None
    facts = os.fstat(descriptor)
    return here, os.getpid(), descriptor, facts.st_dev, facts.st_ino


def open_at(address: FileAddress) -> int:
    """Open a file that another process has open: the same file, not a copy.

    Raises
    ------
    OSError
        That process is on another machine, in another container, somebody else's, or has ended.
    """
    where, pid, there, *numbers = address
    if where != machine():
        raise OSError(errno.EXDEV, "the file is of another machine")
    descriptor = os.open(f"/proc/{pid}/fd/{there}", os.O_RDWR | os.O_CLOEXEC)
    facts = os.fstat(descriptor)
    if [facts.st_dev, facts.st_ino] != numbers:  # closed meanwhile, and the number used again
        os.close(descriptor)
        raise OSError(errno.ESTALE, "the file has been closed")
    return descriptor


def disk_directory() -> str:
    """Where large files go for a while: ``TMPDIR``, or ``/var/tmp``, as ``/tmp`` may be memory."""
    usual = "/var/tmp"  # noqa: S108 (files there have no name)
    if "TMPDIR" not in os.environ and os.access(usual, os.W_OK):
        return usual
    return _temporary_directory()


def quick_folder() -> Callable[[], str]:
    """Return what does as `os.getcwd`, and does not let other threads run meanwhile.

    A thread that asks for calls in a row asks for the folder each time. With `os.getcwd` it would
    hand over the interpreter each time, which takes twenty times longer than the look itself.
    """
    import ctypes  # late: most programs need none of it

    try:
        getcwd = ctypes.PyDLL(None).getcwd
    except (OSError, AttributeError):
        return os.getcwd
    getcwd.restype = ctypes.c_void_p
    room = ctypes.create_string_buffer(4096)  # PATH_MAX of Linux; threads share the folder, too
    # Made once: to convert numbers for each look would take as long as the look.
    where, size = ctypes.c_void_p(ctypes.addressof(room)), ctypes.c_size_t(len(room))
    last = b"", ""

    def folder() -> str:
        nonlocal last
        if not getcwd(where, size):
            return os.getcwd()
        found = room.value
        known, name = last
        if found == known:
            return name
        name = os.fsdecode(found)
        last = found, name
        return name

    return folder


def _temporary_directory() -> str:
    """What `tempfile` would say, which takes 5 ms to import, and writes a file to find out.

    It finds none where no file may be written (``ulimit -f 0``): ours can be empty.
    """
    chosen = getattr(sys.modules.get("tempfile"), "tempdir", None)
    usual = "/tmp"  # noqa: S108 (as above)
    for folder in (chosen, *map(os.environ.get, ("TMPDIR", "TEMP", "TMP")), usual):
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK):
            return os.path.abspath(os.fsdecode(folder))
    import tempfile

    return tempfile.gettempdir()


def private_directory(prefix: str) -> str:
    """A new folder that nobody else can enter; sockets that an engine makes below have short names.

    Engines make folders in there for everybody (Ray: mode 777), so what they are given has to be
    below it, not it.
    """
    import tempfile

    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _SOCKETS_BELOW:
        parent = "/tmp"  # noqa: S108 (the new folder is ours alone)
    return tempfile.mkdtemp(prefix=prefix, dir=parent)


_SOCKETS_BELOW: Final = 22
"""Bytes of its name so that 107 are enough for Ray's sockets below ``mars-ray-…/r`` in it."""


def offer_to_oom_killer() -> None:
    """When memory runs out the kernel is to end this process, and its children, first."""
    if LINUX:
        # Not everywhere can /proc be written to.
        with (
            contextlib.suppress(OSError),
            open("/proc/self/oom_score_adj", "wb", buffering=0) as file,
        ):
            file.write(b"1000")


_PUNCH_HOLE: Final = 1 | 2  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE


def punch(descriptor: int, offset: int, length: int) -> bool:
    """Give memory or disk behind a part of a file back, which reads as zeros then.

    False where the system or the file system cannot do that.
    """
    if not LINUX:
        return False
    import ctypes

    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    done = fallocate(descriptor, _PUNCH_HOLE, ctypes.c_longlong(offset), ctypes.c_longlong(length))
    return bool(done == 0)


def held_bytes(descriptor: int) -> int:
    """Memory or disk that is behind a file: holes take none."""
    return os.fstat(descriptor).st_blocks * 512


def pipe() -> tuple[int, int]:
    """A pipe whose ends do not block and are not inherited."""
    ends = os.pipe()  # not inherited since Python 3.4
    for end in ends:
        os.set_blocking(end, False)
    return ends


class Socket(_socket.socket):
    """A socket between two processes of ours."""

    __slots__ = ()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def socket_pair() -> tuple[Socket, Socket]:
    """Two connected sockets that block, whatever `socket.setdefaulttimeout` says.

    With a default timeout Python makes both ends non-blocking, and the process at the other end,
    which does not know, would ask in a circle.
    """
    one, other = (Socket(fileno=end.detach()) for end in _socket.socketpair())
    one.settimeout(None)
    other.settimeout(None)
    return one, other


class _Poller:
    """What `select.epoll` does, where there is none."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def register(self, descriptor: int, mask: int) -> None:
        self._poll.register(descriptor, mask)

    def modify(self, descriptor: int, mask: int) -> None:
        self._poll.modify(descriptor, mask)

    def unregister(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, int]]:
        return self._poll.poll(None if timeout_s is None else timeout_s * 1000)

    def close(self) -> None:
        """Nothing is held."""


class Poller(Protocol):
    """Waits for many descriptors."""

    def register(self, descriptor: int, mask: int, /) -> None: ...

    def modify(self, descriptor: int, mask: int, /) -> None: ...

    def unregister(self, descriptor: int, /) -> None: ...

    def poll(self, timeout_s: float | None, /) -> list[tuple[int, int]]: ...

    def close(self) -> None: ...


def poller() -> Poller:
    """Waits for many descriptors; with epoll's methods, its timeout in seconds."""
    return select.epoll() if hasattr(select, "epoll") else _Poller()


READABLE: Final = select.POLLIN  # the same numbers as epoll's
WRITABLE: Final = select.POLLOUT


def send(sock: _socket.socket, data: bytes | memoryview, descriptors: Sequence[int] = ()) -> int:
    """Send bytes, with descriptors attached to the first of them; how many bytes were taken."""
    if not descriptors:
        return sock.send(data)
    rights = array.array("i", descriptors)
    return sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])


def receive(sock: _socket.socket, limit: int, descriptors: list[int], block: bool = True) -> bytes:
    """Receive up to ``limit`` bytes; descriptors that come with them are appended to the list."""
    # A flag of this call alone: another thread may be sending through the same socket.
    flags = _RECEIVE_FLAGS if block else _RECEIVE_FLAGS | _socket.MSG_DONTWAIT
    data, ancillary, _, _ = sock.recvmsg(limit, _RIGHTS_SPACE, flags)
    if ancillary:
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(content[: len(content) - len(content) % rights.itemsize])
                descriptors.extend(rights)
    return data


_RIGHTS_SPACE: Final = _socket.CMSG_SPACE(64 * 4) if CAN_SEND_DESCRIPTORS else 0
_RECEIVE_FLAGS: Final = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the thread that forked it ends."""
    if LINUX:
        _prctl(_PR_SET_PDEATHSIG, number)


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


_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MOST_ON_HEAP: Final = 32 << 20  # more than that, glibc takes for no threshold


def keep_heap(kept: int) -> None:
    """Let this process, and those that it forks, keep so many bytes that were freed.

    For the C library of Linux, and unless the program's environment says how memory is allocated.
    """
    import ctypes

    said = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"
    if any(name in os.environ for name in said) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MOST_ON_HEAP)
        mallopt(_M_TRIM_THRESHOLD, kept)


def trim_heap() -> None:
    """Give memory that was freed back to the system."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Process:
    """One process, which it stays: its number is used again once it has been reaped.

    Where there are no descriptors of processes (before Linux 5.3, macOS), or none is left, it is
    the number all the same.

    Raises
    ------
    ProcessLookupError
        There is none of that number.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = -1
        if HAS_PIDFD:
            try:
                self._descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                raise
            except OSError:
                self._descriptor = -1

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor >= 0:
                signal.pidfd_send_signal(self._descriptor, number)
            else:
                os.kill(self.pid, number)

    def reap(self, limit_s: float) -> bool:
        """Reap it, a child of ours, when it ends; False when it has not ended in time.

        Also true when somebody else in the program has reaped it.
        """
        if self._descriptor >= 0:
            if not wait_for_end([self._descriptor], limit_s):
                return False
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
            return True
        deadline = time.monotonic() + limit_s
        pause_s = 0.0005
        while True:
            try:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return True
            except ChildProcessError:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)

    def close(self) -> None:
        """Let go of the descriptor; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def open_process(pid: int) -> int:
    """Descriptor of a child process that was not reaped, to send on; -1: there are none."""
    if not HAS_PIDFD:
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def signal_process(descriptor: int, number: int) -> None:
    """Send a signal to the process that a descriptor is of; nothing happens when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def is_of_process(descriptor: int, pid: int) -> bool:
    """Whether a descriptor is that of a process with this number."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
            return any(line.split() == ["Pid:", str(pid)] for line in file)
    except OSError:
        return False


def wait_for_end(descriptors: Sequence[int], limit_s: float) -> bool:
    """Whether processes, by their descriptors, have ended within so many seconds."""
    deadline = time.monotonic() + limit_s
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    left = set(descriptors)
    while left:
        ended = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ended:
            return False
        for descriptor, _ in ended:
            poller.unregister(descriptor)
            left.discard(descriptor)
    return True


def kill_descendants(root: int) -> None:
    """Send SIGKILL to all processes below one."""
    for pid in descendants(root):
        # A process of somebody else's may have got the number since we looked. So its descriptor
        # first, and then another look: from there on it is of that one, or of what has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError), Process(pid) as process:
            if _is_below(pid, root):
                process.signal(signal.SIGKILL)


def _is_below(pid: int, root: int) -> bool:
    while pid > 1:
        pid = parent_of(pid)
        if pid == root:
            return True
    return False


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when it is gone, or nobody knows."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return int(file.read().rpartition(b")")[2].split(None, 2)[1])
    except (OSError, IndexError):
        return 0


def machine() -> str:
    """Name of this boot and this process namespace, where a pid means something; else empty."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Processes below ``pid``, children before grandchildren."""
    if not LINUX:
        return []
    found: list[int] = []
    pending = [pid]
    while pending:
        try:
            last = pending.pop()
            with open(f"/proc/{last}/task/{last}/children", encoding="utf-8") as file:
                children = [int(child) for child in file.read().split()]
        except OSError:  # it ended meanwhile
            continue
        found.extend(children)
        pending.extend(children)
    return found


def running_children() -> list[int]:
    """Child processes of this one, whichever thread started them, that have not ended."""
    if not LINUX:
        return []
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with (
            contextlib.suppress(OSError),
            open(f"/proc/self/task/{thread}/children", "rb", buffering=0) as file,
        ):
            found.extend(int(child) for child in file.read().split())
    return [pid for pid in found if _stat_state(pid) not in b"ZX"]


def is_there(pid: int) -> bool:
    """Whether a process has this number, ours or another user's."""
    try:
        os.kill(pid, 0)  # does nothing but tell that
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_stopped(pid: int) -> bool:
    """Whether a signal, such as SIGSTOP, keeps a process from running; False if nobody knows."""
    return _stat_state(pid) in b"Tt"


def _stat_state(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split(None, 1)[0]
    except OSError:
        return b"X"


def usage_of(pid: int) -> tuple[float, float, int] | None:
    """The moment, processor seconds that a process has had, and its memory in bytes.

    The moment is in seconds of the monotonic clock. None: it has ended, or nobody tells.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
        used_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), used_s, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None


def command_line(pid: int) -> str:
    """What a process was started with; empty when it has ended, or nobody tells."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def map_over(address: int, length: int, descriptor: int) -> None:
    """Put a private, writable mapping of a file, of any length, in the place of another mapping.

    Raises
    ------
    OSError
        The system refuses.
    """
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
    got = call(
        ctypes.c_void_p(address), ctypes.c_size_t(length), protection, flags, descriptor,
        ctypes.c_long(0),
    )  # fmt: skip
    if got != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_MAP_FIXED: Final = 0x10


def library_count() -> int:
    """How many shared libraries this process has loaded so far; -1 where nobody tells.

    Takes 3 us.
    """
    return _libraries().count() if LINUX else -1


def library_paths() -> list[str]:
    """Where the shared libraries come from that this process has loaded."""
    return _libraries().paths() if LINUX else []


class _Libraries:
    """What ``dl_iterate_phdr`` tells of shared libraries."""

    def __init__(self) -> None:
        import ctypes

        class Info(ctypes.Structure):
            """struct dl_phdr_info of link.h."""

            _fields_ = (
                ("address", ctypes.c_void_p),
                ("name", ctypes.c_char_p),
                ("headers", ctypes.c_void_p),
                ("header_count", ctypes.c_uint16),
                ("adds", ctypes.c_ulonglong),
                ("subs", ctypes.c_ulonglong),
            )

        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p
        )
        self._walk = ctypes.CDLL(None).dl_iterate_phdr
        self._walk.argtypes = [kind, ctypes.c_void_p]
        self._count = -1
        self._paths: list[str] = []
        self._counting, self._listing = kind(self._take_count), kind(self._take_path)

    def count(self) -> int:
        self._walk(self._counting, None)
        return self._count

    def _take_count(self, info: _Pointer, *_: object) -> int:
        self._count = info.contents.adds
        return 1  # each library has it, so the first one is enough

    def paths(self) -> list[str]:
        self._paths.clear()
        self._walk(self._listing, None)
        return list(self._paths)

    def _take_path(self, info: _Pointer, *_: object) -> int:
        name = info.contents.name
        if name:
            self._paths.append(os.fsdecode(name))
        return 0


@functools.cache
def _libraries() -> _Libraries:
    return _Libraries()


def page_faults() -> int:
    """Page faults that the threads of this process have had so far."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


_PAGEMAP_SCAN: Final = 0xC0606610
_SCAN: Final = struct.Struct("<12Q")  # struct pm_scan_arg of linux/fs.h
_IS_FILE, _IS_PRESENT, _IS_SWAPPED = 1 << 2, 1 << 3, 1 << 4
_can_scan = LINUX


def has_own_pages(address: int, length: int) -> bool:
    """Whether this process has written to a private mapping of a file, so has copies of pages.

    True when the system does not tell.
    """
    global _can_scan
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            if _can_scan:
                try:
                    return _scan(file.fileno(), address, length)
                except OSError:  # before Linux 6.7
                    _can_scan = False
            file.seek(address // mmap.PAGESIZE * 8)
            data = file.read(-(-length // mmap.PAGESIZE) * 8)
    except OSError:
        return True
    # Of each page's 64 bits, 63 says that it is in memory, 62 in swap, 61 that it is the file's
    # own. All pages at once, as one large number.
    entries = int.from_bytes(data, "little")
    ones = int.from_bytes((b"\1" + bytes(7)) * (len(data) // 8), "little")
    return bool((entries >> 63 | entries >> 62) & ~(entries >> 61) & ones)


def _scan(descriptor: int, address: int, length: int) -> bool:
    """Have the kernel look for one page in memory or swap that is not the file's."""
    import ctypes
    import fcntl

    found = (ctypes.c_uint64 * 3)()
    end = address + -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
    request = _SCAN.pack(
        _SCAN.size, 0, address, end, 0, ctypes.addressof(found), 1, 1,
        _IS_FILE, _IS_FILE, _IS_PRESENT | _IS_SWAPPED, _IS_PRESENT,
    )  # fmt: skip
    pages: int = fcntl.ioctl(descriptor, _PAGEMAP_SCAN, bytearray(request))
    return pages > 0
