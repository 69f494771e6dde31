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
from mars.errors import StartupFailed
from mars.settings import STOP_S

_CONTROL_DESCRIPTOR: Final = 3

_KILLED_S: Final = 10.0
"""How long the end of a process that was killed is waited for, seconds; it takes milliseconds."""


class Launch:
    """A zygote on its way, and its successors when it ends early.

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

    def __init__(self) -> None:
        # Also of a zygote that is started later: changes since then are told with each run.
        self._environment = {**os.environ, **threads.environment(1, os.environ)}
        self.errors = Segment()
        self.pid = 0
        self._process: platform.Process | None = None
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
            f"import sys; sys.path[:] = {sys.path!r}; {more}"
            f"from mars.engines.local.zygote import main; "
            f"main({_CONTROL_DESCRIPTOR}, {os.getpid()})"
        )
        with contextlib.ExitStack() as closing:
            try:
                null = os.open(os.devnull, os.O_RDWR)
                closing.callback(os.close, null)
                ours, theirs = socket.socketpair()
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
            except OSError as error:
                ours.close()
                raise StartupFailed(f"cannot start {sys.executable}: {error}") from error
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
            self._process.reap(_KILLED_S)
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


def _interpreter_options() -> list[str]:
    flags = sys.flags
    options = []
    for flag, option in (
        (flags.isolated, "-I"), (flags.ignore_environment and not flags.isolated, "-E"),
        (flags.no_user_site and not flags.isolated, "-s"), (flags.no_site, "-S"),
        (flags.dont_write_bytecode, "-B"), (flags.bytes_warning, "-b"),
    ):  # fmt: skip
        if flag:
            options.append(option)
    options += ["-O"] * flags.optimize
    if flags.dev_mode:
        options += ["-X", "dev"]
    options += ["-X", "utf8=1"] if flags.utf8_mode else []
    options += threads.interpreter_options(os.environ)
    # A program's own warning filters hold in its calls, too.
    options += [f"-W{warning}" for warning in sys.warnoptions]
    return options
