"""Starts the interpreter that becomes the zygote, and ends it.

A module of its own, and a small one: a session launches the zygote first and loads the engine
while that starts. What the process does then stands in `zygote`, who talks to it is `pool`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import Final

from mars import platform
from mars.attempt import threads
from mars.attempt.capture import Segment
from mars.attempt.setting import import_path
from mars.errors import StartupFailed
from mars.settings import STOP_S

_CONTROL_DESCRIPTOR: Final = 3

_HASH_SEED: Final = "PYTHONHASHSEED"
_NOT_PASSED_ON: Final = frozenset({"cpu_count", "importtime", "showalloccount", "showrefcount"})
"""Options after ``-X`` that are ours to say, or that print, which would be in logs of calls."""


class Launch:
    """A zygote on its way, and its successors when it ends early.

    Parameters
    ----------
    hash_seed : str, optional
        ``PYTHONHASHSEED`` of all of them; default: `own_hash_seed`.

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

    def __init__(self, hash_seed: str | None = None) -> None:
        # Also of a zygote that is started later: changes since then are told with each run.
        self._environment = {**os.environ, **threads.environment(1, os.environ)}
        self._seed_before = self._environment.get(_HASH_SEED)  # calls have the program's variable
        self._environment[_HASH_SEED] = hash_seed or own_hash_seed()
        self.errors = Segment()
        self.pid = 0
        self.socket: socket.socket
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
        # Workers share what the zygote has loaded. Where the program needed it, they do, too.
        more = "import cloudpickle; " if "cloudpickle" in sys.modules else ""
        code = (
            f"import sys; sys.path[:] = {import_path()!r}; {more}"
            f"sys._xoptions.clear(); sys._xoptions.update({sys._xoptions!r}); "
            f"from mars.engines.local.zygote import main; "
            f"main({_CONTROL_DESCRIPTOR}, {os.getpid()}, {self._seed_before!r})"
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
                    theirs.set_inheritable(True)
                self.pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, *_interpreter_options(), "-c", code],
                    self._environment,
                    file_actions=actions,
                    setpgroup=0,
                    setsigmask=[],
                    setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE],
                )
            except (OSError, ValueError) as error:
                ours.close()
                raise StartupFailed(f"cannot start {sys.executable!r}: {error}") from error
        self.socket = ours

    def stop(self) -> None:
        """Have the zygote kill all workers and end; returns when it has."""
        if not self.pid:
            return
        self.socket.close()
        pid, self.pid = self.pid, 0
        if not platform.wait_for_child(pid, STOP_S):
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass

    def close(self) -> None:
        """Stop, and let go of what the zygote printed; idempotent."""
        self.stop()
        self.errors.close()

    def forget(self) -> None:
        """In a child that the program forked: the zygote is the parent's."""
        self.pid = 0
        self.socket.close()


def own_hash_seed() -> str:
    """A ``PYTHONHASHSEED`` for all workers of a session, the program's own if that is known.

    Workers that follow on others, and those on other nodes, give texts the hashes that the first
    ones did. What a program has that began without the variable cannot be given to another process.
    """
    if not sys.flags.hash_randomization:
        return "0"
    given = os.environ.get(_HASH_SEED, "")
    if given.isascii() and given.isdigit() and int(given) < 2**32:
        return given
    return str(1 + int.from_bytes(os.urandom(4)) % (2**32 - 1))


def _interpreter_options() -> list[str]:
    flags = sys.flags
    options = []
    for flag, option in (
        (flags.isolated, "-I"), (flags.ignore_environment and not flags.isolated, "-E"),
        (flags.no_user_site and not flags.isolated, "-s"), (flags.no_site, "-S"),
        (flags.safe_path and not flags.isolated, "-P"), (flags.dont_write_bytecode, "-B"),
    ):  # fmt: skip
        if flag:
            options.append(option)
    options += ["-O"] * flags.optimize
    options += ["-b"] * flags.bytes_warning
    if flags.dev_mode:
        options += ["-X", "dev"]
    # Also off: what the environment says may have changed since this program began.
    options += ["-X", f"utf8={flags.utf8_mode:d}"]
    for name, value in sys._xoptions.items():
        if name not in _NOT_PASSED_ON and name not in ("dev", "utf8"):
            options += ["-X", name if value is True else f"{name}={value}"]
    options += threads.interpreter_options(os.environ)
    # A program's own warning filters hold in its calls, too.
    options += [f"-W{warning}" for warning in sys.warnoptions]
    return options
