"""Where the `mars` commands of the same user ask a running program: a socket in a private folder.

Each program that has a session opens one, for all of its sessions, a moment after the first began.
So a program that is over sooner pays for nothing but the start of a thread. It opens no port. Only
the user can enter the folder, and whoever connects is asked who they are by the system.

A client sends one line of JSON: ``{"session": ..., "path": ..., "query": {...}}``. The answer is
lines of JSON, and then the end. What is needed to answer is loaded when somebody asks. Opened by
`mars.sessions.opening`; `mars.cli.live` is the client.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Final

from mars import platform
from mars.settings import DESK_AFTER_S, DESK_CLIENTS, DESK_HEAD_BYTES, DESK_STALL_S

TYPE_CHECKING = False  # known to type checkers; loaded a moment after the program began
if TYPE_CHECKING:
    from socket import socket

_HOST: Final = os.uname().nodename


def folder() -> str:
    """The folder of this user's running programs: ``$XDG_RUNTIME_DIR/mars``, or one of the state.

    Without a runtime directory it is ``$XDG_STATE_HOME/mars/pages``, by default under
    ``~/.local/state``.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return os.path.join(runtime, "mars")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "mars", "pages")


def enter(path: str) -> int:
    """A descriptor of the folder, which is made if it is not there.

    Raises
    ------
    OSError
        It cannot be made, it is another user's, or others may enter it.
    """
    # The folder above may have the records of clusters, too, which are no less private.
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # looked at below, like one that was just made
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(descriptor)
        raise PermissionError(f"other users may enter {path}; if all in it is yours: chmod 700")
    return descriptor


def is_mine(connection: socket) -> bool:
    """Whether the other end of a connection is a process of this user, as the system says."""
    import _socket
    import struct

    if not hasattr(_socket, "SO_PEERCRED"):
        return True  # not on Linux: the folder alone keeps others out
    form = struct.Struct("iII")  # process, user, group
    found = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, form.size)
    return bool(form.unpack(found)[1] == os.geteuid())


def address_in(place: int, name: str) -> str:
    """The path of a socket in the folder, never too long for the system."""
    if sys.platform == "linux":
        return f"/proc/self/fd/{place}/{name}"
    return os.path.join(folder(), name)


class Desk:
    """The socket of this program, and its threads. It is there while a session is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions = 0
        self._thread: threading.Thread | None = None
        self._left = threading.Event()
        self._listening: socket | None = None
        self._clients: dict[socket, threading.Thread] = {}
        self._heard: set[socket] = set()  # those that have asked
        self._answers: Callable[[bytes], Iterable[bytes]] = lambda asked: ()
        self.path: str | None = None

    def come(self, answers: Callable[[bytes], Iterable[bytes]]) -> None:
        """A session has been opened.

        Parameters
        ----------
        answers : callable
            Gives the lines that answer a line. Whatever it needs, it loads when it is called.
        """
        with self._lock:
            self._sessions += 1
            self._answers = answers
            if self._thread is not None:
                return
            self._left = threading.Event()
            thread = threading.Thread(
                target=self._attend, args=(self._left,), name="mars-desk", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the system refuses a thread: then the commands find nothing
                return
            self._thread = thread

    def leave(self) -> None:
        """A session has been closed. With the last one the socket is gone, and its threads are."""
        with self._lock:
            self._sessions -= 1
            if self._sessions > 0 or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._left.set()
            listening = self._listening
            clients = dict(self._clients)
        for one in [listening, *clients]:
            _shut(one)
        for waiting in (thread, *clients.values()):
            if waiting is not threading.current_thread():
                waiting.join()

    def forget(self) -> None:
        """In a process that the program has forked: let go, and touch nothing of the parent."""
        listening, clients = self._listening, list(self._clients)
        self.__init__()  # type: ignore[misc] # its threads and its lock stayed with the parent
        for one in [listening, *clients]:
            if one is not None:
                one.close()

    # -- the thread that waits for clients ------------------------------------------------------

    def _attend(self, left: threading.Event) -> None:
        if left.wait(DESK_AFTER_S):
            return
        from socket import AF_UNIX, SOCK_STREAM, socket

        try:
            place = enter(folder())
        except OSError:
            return  # nobody can be found where others may write, and the program runs without
        name = f"{_HOST}-{os.getpid()}-{os.urandom(4).hex()}.sock"
        try:
            _remove_left(place)
            listening = socket(AF_UNIX, SOCK_STREAM)
            listening.settimeout(None)  # whatever the program has as its default
            # Under its name only once it listens: who is refused takes it for one left behind.
            listening.bind(address_in(place, f"{name}.new"))
            os.chmod(f"{name}.new", 0o600, dir_fd=place)
            listening.listen(DESK_CLIENTS)
            os.rename(f"{name}.new", name, src_dir_fd=place, dst_dir_fd=place)
        except OSError:
            os.close(place)
            return
        with self._lock:
            gone = left.is_set()
            if not gone:
                self._listening, self.path = listening, os.path.join(folder(), name)
        try:
            while not gone:
                try:
                    connection, _ = listening.accept()
                except OSError:  # it was shut, or the system lacks a descriptor
                    if left.wait(0.1):
                        break
                    continue
                self._admit(connection, left)
        finally:
            with self._lock:
                if self._listening is listening:
                    self._listening, self.path = None, None
            listening.close()
            try:
                os.unlink(name, dir_fd=place)
            except OSError:  # somebody has cleaned up already
                pass
            os.close(place)

    def _admit(self, connection: socket, left: threading.Event) -> None:
        connection.settimeout(DESK_STALL_S)
        thread = threading.Thread(
            target=self._serve, args=(connection,), name="mars-desk-client", daemon=True
        )
        with self._lock:
            if len(self._clients) >= DESK_CLIENTS:  # who has said nothing yet makes room
                silent = next((one for one in self._clients if one not in self._heard), None)
                _shut(silent)
                self._clients.pop(silent, None)  # type: ignore[arg-type]
            welcome = (
                not left.is_set() and len(self._clients) < DESK_CLIENTS and is_mine(connection)
            )
            if welcome:
                self._clients[connection] = thread
        try:
            if welcome:
                thread.start()
                return
        except RuntimeError:  # the system refuses a thread
            with self._lock:
                self._clients.pop(connection, None)
        connection.close()

    def _serve(self, connection: socket) -> None:
        try:
            asked = b""
            while not asked.endswith(b"\n"):
                part = connection.recv(DESK_HEAD_BYTES)
                if not part or len(asked) > DESK_HEAD_BYTES:
                    return
                asked += part
            self._heard.add(connection)
            for line in self._answers(asked):
                connection.sendall(line)
        except (OSError, TimeoutError):
            return  # it has gone, reads nothing, or the last session is closed
        finally:
            with self._lock:
                self._clients.pop(connection, None)
                self._heard.discard(connection)
            connection.close()


def _shut(connection: socket | None) -> None:
    if connection is not None:
        try:
            connection.shutdown(2)  # both ways; whoever waits at it wakes up
        except OSError:  # the other end has gone first
            return


def _remove_left(place: int) -> None:
    """Remove sockets of programs of this host that were killed."""
    for name in os.listdir(place):
        host, _, rest = name.removesuffix(".new").rpartition("-")[0].rpartition("-")
        if (
            ".sock" in name
            and host == _HOST
            and rest.isdigit()
            and not platform.is_there(int(rest))
        ):
            try:
                os.unlink(name, dir_fd=place)
            except OSError:  # another program was faster
                continue


desk: Final = Desk()
os.register_at_fork(after_in_child=desk.forget)

__all__ = ["Desk", "address_in", "desk", "enter", "folder", "is_mine"]
