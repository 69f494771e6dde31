"""What calls can change in the process that runs them, and how it is put back for the next one.

A worker makes one `Ambient` when it starts and calls `restore` after calls. What cannot be put
back, such as a hard limit that was lowered, is reported as `LOST`: then the process has to be
replaced. Nothing here talks to the driver.

Not put back, on purpose: modules and what is in them, the state of random generators
(`mars.remote.rng` has its own), and all that only native code can see. What a module sets in the
environment *while it is being imported* stays, too, since it stays imported: the next call would
not set it again. When a worker looks is decided by `mars.engines.worker.aftermath`. What calls have
of the program, such as its recursion limit, stands in `followed`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` looks up an enum for each number
import importlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.attempt.followed import Followed
from mars.attempt.setting import importing

SAME: Final = 0
"""Nothing had changed."""
RESTORED: Final = 1
"""Something had, and is as before."""
LOST: Final = 2
"""Something is not as before, and cannot be."""

_LIMITS: Final = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
_HELPERS: Final = ("resource_tracker", "semaphore_tracker", "forkserver", "loky")
"""In the command lines of processes that multiprocessing and joblib start once, and keep."""

_POOLS: Final = ("concurrent.futures", "joblib", "loky")
"""Modules whose threads look after pools that are kept for the next use."""

_FIRST_REAL_TIME: Final = 32
_ZONE: Final = b"TZ"


if TYPE_CHECKING:
    StrOrBytes = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    """What `os.fsencode` takes."""


class _Fact:
    """One thing that calls can change: how to look at it, and how to set it.

    ``vital``: when it cannot be put back, the process is of no use for other calls. If not, what
    is found is accepted.
    """

    __slots__ = ("read", "vital", "write")

    def __init__(
        self, read: Callable[[], object], write: Callable[..., object], *, vital: bool = True
    ) -> None:
        self.read, self.write, self.vital = read, write, vital


class Ambient:
    """The state of this process as calls should find it.

    Made in the main thread, after the process has become what calls are to see.

    Parameters
    ----------
    descriptors : sequence of int
        What the process cannot live without.
    differs, reset : callable
        Whether something else than what is known here has changed, and what puts it back.
    keeps : sequence of str
        Variables that this process has by itself, whatever the program sets them to.
    """

    def __init__(
        self,
        descriptors: Sequence[int],
        differs: Callable[[], bool] = lambda: False,
        reset: Callable[[], object] = lambda: None,
        keeps: Sequence[str] = (),
    ) -> None:
        self.environment = _Environment(frozenset(map(os.fsencode, keeps)))
        self._followed = Followed()
        self._path = _Fact(lambda: getattr(sys, "path", None), _set_path)
        self._here = _Fact(_here, os.chdir, vital=False)
        self._own = [_Fact(partial(_identity, number), _refuse) for number in descriptors]
        self._facts = [
            *self._own,
            *_signal_facts(),  # early: a handler that a call left may raise here as well
            _Fact(self.environment.changed, self.environment.restore),
            self._path,
            self._here,
            *_process_facts(),
            _Fact(sys.gettrace, sys.settrace),
            _Fact(sys.getprofile, sys.setprofile),
            _Fact(self._followed.changed, self._followed.restore),
        ]
        self._facts.append(_Fact(differs, lambda _: reset(), vital=False))
        self._reads = [fact.read for fact in self._facts]
        self._values: list[object] = []
        self._remember()
        self._threads = {thread.ident for thread in threading.enumerate()}
        self._children: set[int] = set()

    def _remember(self) -> None:
        self._values = [read() for read in self._reads]
        self._values[self._facts.index(self._path)] = list(sys.path)

    def restore(self) -> int:
        """Put back what calls have changed since the last time; `SAME`, `RESTORED` or `LOST`.

        Takes about 20 us when nothing has changed, most of it in some 30 system calls.
        """
        found = [read() for read in self._reads]
        if found == self._values:
            return SAME
        result = RESTORED
        for index, fact in enumerate(self._facts):
            value = self._values[index]
            if found[index] == value or _put_back(fact, value):
                continue
            if fact.vital:
                result = LOST
            else:
                self._values[index] = fact.read()
        return result

    def has_descriptors(self) -> bool:
        """Whether the descriptors of the process are still what they were."""
        return all(
            fact.read() == value for fact, value in zip(self._own, self._values, strict=False)
        )

    def keep(self, change: Callable[..., object], *arguments: object) -> None:
        """Call what changes the environment of this process for good."""
        with self.environment.keeping():
            change(*arguments)

    def follow(
        self,
        path: Sequence[str],
        here: str,
        environment: Mapping[bytes, bytes | None],
        settings: Mapping[str, object],
    ) -> None:
        """Have the path, folder, variables and settings that the program has.

        Parameters
        ----------
        path : sequence of str
            The program's ``sys.path``.
        here : str
            Its working directory; empty when it has none.
        environment : mapping
            Variables that it has changed since this process got them; None: it removed them.
        settings : mapping
            What `mars.attempt.followed.Program` has found.
        """
        if sys.path != path:
            _set_path(list(path))
        if here:
            try:
                os.chdir(here)
            except OSError:  # it is gone: stay where we are
                pass
        self.environment.follow(environment)
        self._followed.follow(settings)
        self._values[self._facts.index(self._path)] = list(path)
        self._values[self._facts.index(self._here)] = _here()

    def left_behind(self) -> tuple[int, int]:
        """Threads and child processes that run on and that were not there the last time.

        Threads that end with the process anyway (daemons) and those of pools that wait for work
        do not count, nor do the helpers that multiprocessing and joblib keep.
        """
        return self._new_threads(), self._new_children()

    def _new_threads(self) -> int:
        before = self._threads
        pools = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())
        running = threading.enumerate()
        self._threads = {thread.ident for thread in running}
        return sum(
            not thread.daemon
            and thread.ident not in before
            and thread not in pools
            and not type(thread).__module__.startswith(_POOLS)
            for thread in running
        )

    def _new_children(self) -> int:
        try:
            # Leaves all of them to whoever started them.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return 0
        before, self._children = self._children, set(platform.running_children())
        count = 0
        for pid in self._children - before:
            command = platform.command_line(pid)
            if not command:  # it is just becoming another program: the next look tells which
                self._children.discard(pid)
            elif not any(helper in command for helper in _HELPERS):
                count += 1
        return count


class _Environment:
    """Variables. Who sets one goes through `os.putenv`, so we know without looking at all."""

    def __init__(self, own: frozenset[bytes]) -> None:
        self._own = own  # they do not follow the program
        self._mapping = os.environ
        self._start = dict(os.environb)
        self._base = dict(self._start)
        self._followed: Mapping[bytes, bytes | None] = {}
        self._touched: set[bytes] = set()
        self._keep = False
        self._put, self._unset = os.putenv, os.unsetenv
        os.putenv, os.unsetenv = self._on_put, self._on_unset

    def _on_put(self, name: StrOrBytes, value: StrOrBytes, /) -> None:
        self._put(name, value)
        self._note(os.fsencode(name), os.fsencode(value))

    def _on_unset(self, name: StrOrBytes, /) -> None:
        self._unset(name)
        self._note(os.fsencode(name), None)

    def _note(self, name: bytes, value: bytes | None) -> None:
        if not self._keep and not importing():
            self._touched.add(name)
        elif value is None:
            self._base.pop(name, None)
        else:
            self._base[name] = value

    def changed(self) -> bool:
        return bool(self._touched) or os.environ is not self._mapping

    def restore(self, _: object = None) -> None:
        os.environ = self._mapping  # noqa: B003 (the same object as ever)
        zone = _ZONE in self._touched
        with self.keeping():
            while self._touched:
                name = self._touched.pop()
                self._set(name, self._base.get(name))
        if zone:
            time.tzset()

    def follow(self, changes: Mapping[bytes, bytes | None]) -> None:
        before = self._followed
        if changes == before:
            return
        self._followed = changes
        zone = self._base.get(_ZONE)
        with self.keeping():
            for name in {**before, **changes}:
                value = changes.get(name, self._start.get(name))
                if value != self._base.get(name) and name not in self._own:
                    self._set(name, value)
        if zone != self._base.get(_ZONE):
            time.tzset()

    def keeping(self) -> _Keeping:
        """While inside, what is set stays."""
        return _Keeping(self)

    @staticmethod
    def _set(name: bytes, value: bytes | None) -> None:
        if value is not None:
            os.environb[name] = value
        elif name in os.environb:
            del os.environb[name]
        else:
            os.unsetenv(name)  # it was set past `os.environ`


class _Keeping:
    def __init__(self, environment: _Environment) -> None:
        self._environment = environment

    def __enter__(self) -> None:
        self._environment._keep = True

    def __exit__(self, *_: object) -> None:
        self._environment._keep = False


def _signal_facts() -> list[_Fact]:
    """Timers before handlers before the mask: what is on its way must not end the process."""
    facts = [
        _Fact(partial(_signal.getitimer, number), partial(_set_timer, number))
        for number in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    ]
    facts.extend(
        _Fact(partial(_signal.getsignal, number), partial(_signal.signal, number))
        for number in range(1, _FIRST_REAL_TIME)
        if number not in (signal.SIGKILL, signal.SIGSTOP)
    )
    facts.append(_Fact(partial(_signal.pthread_sigmask, signal.SIG_BLOCK, ()), _set_mask))
    facts.append(_Fact(partial(_signal.set_wakeup_fd, -1), _signal.set_wakeup_fd))
    return facts


def _process_facts() -> list[_Fact]:
    """What the kernel knows of this process."""
    umask = os.umask(0)
    os.umask(umask)
    facts = [
        # Looking at it is setting it.
        _Fact(partial(os.umask, umask), os.umask),
        _Fact(partial(os.getpriority, os.PRIO_PROCESS, 0), _set_priority),
        _Fact(os.geteuid, _refuse),
        _Fact(os.getegid, _refuse),
        _Fact(partial(_identity, "/"), _refuse),
    ]
    if hasattr(os, "sched_getaffinity"):
        facts.append(
            _Fact(partial(os.sched_getaffinity, 0), partial(os.sched_setaffinity, 0), vital=False)
        )
    for name in _LIMITS:
        limit = getattr(resource, f"RLIMIT_{name}", None)
        if limit is not None:
            facts.append(
                _Fact(partial(resource.getrlimit, limit), partial(resource.setrlimit, limit))
            )
    return facts


def _put_back(fact: _Fact, value: object) -> bool:
    try:
        fact.write(value)
        return bool(fact.read() == value)
    except BaseException:  # what refuses, and what a handler that a call left raises
        return False


def _refuse(_: object) -> None:
    raise PermissionError


def _identity(file: str | os.PathLike[str] | int) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # somebody removed it
        return ""


def _set_path(path: list[str]) -> None:
    # A call may have put another list, or anything else, in its place.
    if isinstance(sys.path, list):
        sys.path[:] = path
    else:
        sys.path = list(path)
    importlib.invalidate_caches()


def _set_mask(blocked: set[int]) -> None:
    for number in _signal.sigpending() - {signal.SIGTERM, signal.SIGCHLD}:
        # A late alarm, say: it would end the process now. What is ignored is also forgotten.
        if number < _FIRST_REAL_TIME and _signal.getsignal(number) == _signal.SIG_DFL:
            _signal.signal(number, _signal.SIG_IGN)
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _set_priority(priority: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, priority)


def _set_timer(number: int, values: tuple[float, float]) -> None:
    _signal.setitimer(number, *values)
