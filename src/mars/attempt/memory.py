"""The memory of this process: the most that a call took, and a limit on what it may take."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from typing import Final

from mars import platform

_PAGE: Final = resource.getpagesize()
_SHARED, _DATA = 2, 5  # fields of /proc/self/statm, in pages


def _pages(field: int) -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[field])


def take_peak_kib() -> int:
    """Return the most memory that this process had of its own since the last time, in KiB.

    What it maps of others, such as inputs in arenas, does not count. 0 where the system does not
    tell. Takes 15 us.
    """
    if not platform.LINUX:
        return 0
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")  # the peak begins anew
        return max(0, peak_kib - _pages(_SHARED) * _PAGE // 1024)
    except OSError:
        return 0


class MemoryLimit:
    """While inside, this process can allocate ``size`` more bytes, and then gets `MemoryError`.

    The soft ``RLIMIT_DATA`` is raised again at the end. It counts what is reserved rather than
    what is used, so a thread counts with its whole stack.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._before = (0, 0)

    def __enter__(self) -> MemoryLimit:
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        platform.trim_heap()  # what calls before have freed is no room for this one
        self._set(_pages(_DATA) * _PAGE + self._size)
        return self

    def __exit__(self, *_: object) -> None:
        self._set(self._before[0])

    def _set(self, size: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]  # the call may have lowered it
        limits = [one for one in (size, self._before[0], hard) if one != resource.RLIM_INFINITY]
        soft = min(limits, default=resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """While inside, allocate without a limit what is not the call's own."""
        left = resource.getrlimit(resource.RLIMIT_DATA)[0] - _pages(_DATA) * _PAGE
        self._set(self._before[0])
        try:
            yield
        finally:
            self._set(_pages(_DATA) * _PAGE + left)
