"""Starts the interpreter that becomes the zygote, and ends it.

A module of its own, and a small one: a session launches the zygote first and loads the engine
while that starts. What the process does then stands in `zygote`; `workers` talks to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Final

from mars import platform
from mars.attempt import threads
from mars.attempt.capture import Segment
from mars.attempt.setting import import_path
from mars.errors import StartupFailed
from mars.settings import KILLED_S, STOP_S

_CONTROL_DESCRIPTOR: Final = 3

_HASH_SEED: Final = "PYTHONHASHSEED"
_NOT_PASSED_ON: Final = frozenset(
    {"cpu_count", "dev", "importtime", "showalloccount", "showrefcount", "utf8"}
)
"""Options after ``-X`` that are ours to say, or that print, which would be in logs of calls."""

_OF_THE_PLACE: Final = frozenset({"frozen_modules", "pycache_prefix"})
"""Those that say something of a host."""


class Launch:
    """A zygote on its way, and its successors when it ends early.

    Parameters
    ----------
    like : Started, optional
        How the program was started, if that is not this process; default: `as_started`.

    Attributes
    ----------
    pid : int
        The process; 0 when it has ended.
    socket : socket
        Our end of the connection to it.
    errors : Segment
        What it prints: why it could not start.

    Raises
    ------
    StartupFailed
        The system refuses to start it.
    """

    def __init__(self, like: Started | None = None) -> None:
        seed, options, more = like or as_started()
        self._more = more  # behind -X
        self._options = [*_options_of_the_place(), *options]
        for name, value in more.items():
            if name not in _NOT_PASSED_ON and (like is None or name not in _OF_THE_PLACE):
                self._options += ["-X", name if value is True else f"{name}={value}"]
        self._options += threads.interpreter_options(os.environ)
        # Also of a zygote that is started later: changes since then are told with each run.
        self._environment = {**os.environ, **threads.environment(1, os.environ)}
        self._seed_before = self._environment.get(_HASH_SEED)  # calls have the program's variable
        self._environment[_HASH_SEED] = seed
        self.errors = Segment()
        self.pid = 0
        self._process: platform.Process | None = None
        self.socket: platform.Socket
        try:
            self.start()
        except BaseException:
            self.errors.close()
            raise

    def start(self) -> None:
        """Start a process; the one before has ended.

        Raises
        ------
        StartupFailed
            The system refuses to start it.
        """
        # Python has read the variable; processes that calls start have what the program's have.
        seed = f"os.environ[{_HASH_SEED!r}] = {self._seed_before!r}"
        if self._seed_before is None:
            seed = f"del os.environ[{_HASH_SEED!r}]"
        # Workers share what the zygote has loaded. Where the program needed it, they do, too.
        more = "import cloudpickle; " if "cloudpickle" in sys.modules else ""
        code = (
            # The collector would look through all that is imported, several times.
            f"import gc, os, sys; gc.disable(); sys.path[:] = {import_path()!r}; {seed}; {more}"
            f"sys._xoptions.clear(); sys._xoptions.update({self._more!r}); "
            f"from mars.engines.local.zygote import main; "
            f"main({_CONTROL_DESCRIPTOR}, {os.getpid()}, {platform.descriptor_limit()})"
        )
        if not sys.executable:
            raise StartupFailed(
                f"sys.executable is {sys.executable!r}, so it is not known which Python to start "
                f"for worker processes; set sys.executable to the path of the Python that this "
                f"program runs on, or use new_session(engine='inline')"
            )
        with contextlib.ExitStack() as closing:
            try:
                null = os.open(os.devnull, os.O_RDWR)
                closing.callback(os.close, null)
                ours, theirs = platform.socket_pair()
                closing.callback(theirs.close)
            except OSError as error:
                raise StartupFailed(f"cannot start {sys.executable}: {error}") from error
            actions = [
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, self.errors.descriptor, 1),
                (os.POSIX_SPAWN_DUP2, self.errors.descriptor, 2),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CONTROL_DESCRIPTOR),
            ]
            try:
                if theirs.fileno() == _CONTROL_DESCRIPTOR:
                    os.set_inheritable(_CONTROL_DESCRIPTOR, True)
                self.pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, *self._options, "-c", code],
                    self._environment,
                    file_actions=actions,
                    setpgroup=0,
                    setsigmask=[],
                    setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE],
                )
            except (OSError, ValueError) as error:
                ours.close()
                raise StartupFailed(f"cannot start {sys.executable!r}: {error}") from error
        with contextlib.suppress(ProcessLookupError):  # somebody in the program has reaped it
            self._process = platform.Process(self.pid)
            if platform.LINUX and platform.parent_of(self.pid) != os.getpid():
                self._let_go()  # and the number is that of another one
        self.socket = ours

    def stop(self) -> None:
        """Have the zygote kill all workers and end; returns when it has."""
        if not self.pid:
            return
        self.socket.close()
        self.pid = 0
        if self._process is not None and not self._process.reap(STOP_S):
            self._process.signal(signal.SIGKILL)
            self._process.reap(KILLED_S)
        self._let_go()

    def _let_go(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def close(self) -> None:
        """Stop, and let go of what the zygote printed; idempotent."""
        self.stop()
        self.errors.close()

    def forget(self) -> None:
        """In a child that the program forked: the zygote is the parent's."""
        self.pid = 0
        self.socket.close()
        self._let_go()


Started = tuple[str, list[str], dict[str, object]]
"""A ``PYTHONHASHSEED``, options, and what stands behind ``-X``."""


def as_started() -> Started:
    """How this program's Python was started, as far as its calls are to have it on any host."""
    flags = sys.flags
    options = ["-B"] if flags.dont_write_bytecode else []
    options += ["-O"] * flags.optimize
    options += ["-b"] * flags.bytes_warning
    if flags.dev_mode:
        options += ["-X", "dev"]
    # Also off: what the environment says may have changed since this program began.
    options += ["-X", f"utf8={flags.utf8_mode:d}"]
    # A program's own warning filters hold in its calls, too.
    options += [f"-W{warning}" for warning in sys.warnoptions]
    return _hash_seed(), options, dict(sys._xoptions)


def _hash_seed() -> str:
    """A seed for all workers of a session, the program's own if that is known.

    Workers that follow on others, and those on other nodes, give texts the hashes that the first
    ones did. What a program has that began without the variable cannot be given to another process,
    and under ``-E`` and ``-I`` Python does not look at it.
    """
    if not sys.flags.hash_randomization:
        return "0"
    given = os.environ.get(_HASH_SEED, "")
    if given.isascii() and given.isdigit() and int(given) < 2**32:
        return given
    return str(1 + int.from_bytes(os.urandom(4)) % (2**32 - 1))


def _options_of_the_place() -> list[str]:
    """What says where Python looks for modules and settings."""
    flags = sys.flags
    return [
        option
        for flag, option in (
            (flags.isolated, "-I"), (flags.ignore_environment and not flags.isolated, "-E"),
            (flags.no_user_site and not flags.isolated, "-s"), (flags.no_site, "-S"),
            (flags.safe_path and not flags.isolated, "-P"),
        )
        if flag
    ]  # fmt: skip
