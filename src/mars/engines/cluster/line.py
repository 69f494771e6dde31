"""A line of our own between driver and node, for all that they say and every byte of large values.

Foreign engines carry messages well, and large values slowly: each of their copies costs as much as
the network. So a node opens a *door*, a port on its address, and names it in its first message. A
driver that reaches it comes in twice, once for each direction, so that no connection is used by
two threads; otherwise everything goes by way of the foreign engine.

Connections have the TLS of the foreign engine, if that has any, which wants a certificate of both
sides. Then both prove that they know the session's key, which they have by way of the foreign
engine. Until then a fixed number of bytes is read, and nothing unpickled or answered.

::

    driver: Line ──(frames: messages, or a part of a value)──► node: Line
    driver: Line ◄──(the same)──────────────────────────────── node: Line
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import pickle
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from mars.engines.cluster.carrier import BYTES, Item, Message, Part, next_messages
from mars.settings import DIRECT_S, LATER_S, LINE_LOST_S, PART_BYTES, SHIP_BYTES

if TYPE_CHECKING:
    import ssl

Place = tuple[str, int]  # host and port

_FRAME: Final = struct.Struct("!BQQQQ")  # kind, length, and of a part: arena, its size, offset
_MESSAGES: Final = 0
_PART: Final = 1

_TO_NODE: Final = b"n"
_TO_DRIVER: Final = b"d"
_NONCE_BYTES: Final = 32
_PROOF_BYTES: Final = hashlib.sha256().digest_size


class Line:
    """Both directions of a connection between a driver and a node, each with a thread.

    Parameters
    ----------
    sending, receiving : socket
        As `reach` and `Door` give them; the line closes them.
    told : callable
        Takes messages that have come.
    place : callable
        Takes a part of a value that has come: arena, its size, offset, bytes. They are in a
        buffer that is used again.
    ended : callable
        Called once with the reason when nothing comes or goes any more, but not by `close`.
    """

    def __init__(
        self,
        sending: socket.socket,
        receiving: socket.socket,
        told: Callable[[list[Message]], object],
        place: Callable[[int, int, int, memoryview], object],
        ended: Callable[[str], object],
    ) -> None:
        self._sending, self._receiving = sending, receiving
        self._told, self._place, self._ended = told, place, ended
        self._queue: deque[Item] = deque()
        self._later: dict[Hashable, _Later] = {}  # by attempt, or what else it belongs to
        self._filled = threading.Event()
        self._closing = False
        self._over = False
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._act, args=(act,), name=f"mars-line-{name}", daemon=True)
            for name, act in (("out", self._send_all), ("in", self._receive_all))
        ]

    def start(self) -> None:
        """Begin to send and to receive."""
        for thread in self._threads:
            thread.start()

    def send(self, items: Sequence[Item]) -> None:
        """Send messages after those before them; from any thread, never waits."""
        self._queue.extend(items)
        self._filled.set()

    def send_later(
        self, attempt: Hashable, items: Iterable[Item], wait_s: float | None = None
    ) -> None:
        """Send what belongs to an attempt, in its order, unless that is dropped within `LATER_S`.

        What is given to `send` goes before it, and between.
        """
        wait_s = LATER_S if wait_s is None else wait_s
        with self._lock:
            self._later[attempt] = _Later(time.monotonic(), wait_s, deque(items))
        self._filled.set()

    def hurry(self, attempt: Hashable) -> None:
        """Send what belongs to an attempt now."""
        with self._lock:
            if attempt in self._later:
                self._later[attempt].due = 0.0
        self._filled.set()

    def put_off(self, attempt: Hashable, wait_s: float) -> None:
        """Send what is left of an attempt so long after it was given, unless it is in a hurry."""
        with self._lock:
            later = self._later.get(attempt)
            if later is not None and later.due:
                later.due = later.since + wait_s

    def drop(self, attempt: Hashable) -> bool:
        """What is left of an attempt need not be sent; False if nothing is."""
        with self._lock:
            return self._later.pop(attempt, None) is not None

    def close(self, limit_s: float = 0.0) -> None:
        """Send what is queued, if the other side takes it in time, and hang up; idempotent."""
        self._closing = True
        self._filled.set()
        here = threading.current_thread()
        if limit_s and here not in self._threads:
            self._threads[0].join(limit_s)
        self._hang_up()
        for thread in self._threads:
            if thread is not here and thread.ident is not None:  # else the system refused it
                thread.join()
        self.forget()

    def forget(self) -> None:
        """Close the descriptors and no more, as in a child that the program forked."""
        self._sending.close()
        self._receiving.close()

    def _hang_up(self) -> None:
        for one in (self._sending, self._receiving):
            with contextlib.suppress(OSError):  # the other side was faster
                # Not by TLS, which would wait for an answer.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def _act(self, act: Callable[[], None]) -> None:
        reason = "its connection ended"
        try:
            act()
        except Exception as error:  # whatever it is, nobody may wait for what does not come
            reason += f": {type(error).__name__}: {error}"
        if act == self._send_all and self._closing:
            return  # all is sent, and the other side has not hung up
        with self._lock:
            first, self._over = not self._over, True
        self._hang_up()
        if first and not self._closing:
            self._ended(reason)

    # -- out ----------------------------------------------------------------------------------

    def _send_all(self) -> None:
        buffer = memoryview(bytearray(PART_BYTES))
        wait_s: float | None = None
        while True:
            self._filled.wait(wait_s)
            self._filled.clear()
            while True:
                if self._queue and _is_part(self._queue[0]):
                    self._send_part(self._queue.popleft(), buffer)
                elif self._queue:
                    self._send_messages(next_messages(self._queue, SHIP_BYTES, _is_part))
                item, wait_s = self._next_later()
                if item is not None and _is_part(item):
                    self._send_part(item, buffer)
                elif item is not None:
                    self._send_messages([item])
                elif not self._queue:
                    break
            if self._closing and not self._queue:
                return

    def _next_later(self) -> tuple[Item | None, float | None]:
        """What is due, and else in how many seconds something will be."""
        with self._lock:
            if not self._later:
                return None, None
            attempt, later = min(self._later.items(), key=lambda one: one[1].due)
            wait_s = later.due - time.monotonic()
            if wait_s > 0 and not self._closing:
                return None, wait_s
            item = later.items.popleft()
            if not later.items:
                del self._later[attempt]
            return item, None

    def _send_messages(self, batch: Sequence[Message | Part]) -> None:
        data = pickle.dumps(batch, 5)
        self._sending.sendall(_FRAME.pack(_MESSAGES, len(data), 0, 0, 0) + data)

    def _send_part(self, part: Any, buffer: memoryview) -> None:
        _, number, size = part.begin
        self._sending.sendall(_FRAME.pack(_PART, part.length, number, size, part.offset))
        position, end = part.offset, part.offset + part.length
        while position < end:
            some = buffer[: min(len(buffer), end - position)]
            part.read_into(some, position)
            self._sending.sendall(some)
            position += len(some)

    # -- in -----------------------------------------------------------------------------------

    def _receive_all(self) -> None:
        buffer = memoryview(bytearray(PART_BYTES))
        head = memoryview(bytearray(_FRAME.size))
        while _fill(self._receiving, head):
            kind, length, number, size, offset = _FRAME.unpack(head)
            if kind == _PART:
                while length:
                    some = buffer[: min(len(buffer), length)]
                    if not _fill(self._receiving, some):
                        return
                    self._place(number, size, offset, some)
                    offset += len(some)
                    length -= len(some)
            else:
                data = memoryview(bytearray(length))
                if not _fill(self._receiving, data):
                    return
                self._told(pickle.loads(data))


class _Later:
    __slots__ = ("due", "items", "since")

    def __init__(self, now: float, wait_s: float, items: deque[Item]) -> None:
        self.since, self.due, self.items = now, now + wait_s, items


def _is_part(item: Item) -> bool:
    """Whether it goes as raw bytes, not in a pickle."""
    return isinstance(item, Part) and item.begin[0] == BYTES


def _fill(source: socket.socket, buffer: memoryview) -> bool:
    """Whether so much has come; False at the end of the stream."""
    done = 0
    while done < len(buffer):
        count = source.recv_into(buffer[done:])
        if not count:
            return False
        done += count
    return True


# -- how the two find each other --------------------------------------------------------------


def _proof(key: bytes, who: bytes, direction: bytes, nonce: bytes) -> bytes:
    return hmac.digest(key, who + direction + nonce, "sha256")


def _settle(connection: socket.socket, lost_s: int) -> None:
    """From here on it waits as long as it takes, but for an end that has gone without a word."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probes = 5
    for name, value in (
        ("TCP_KEEPIDLE", lost_s // 2),
        ("TCP_KEEPINTVL", lost_s // 2 // probes),
        ("TCP_KEEPCNT", probes),
        ("TCP_USER_TIMEOUT", 1000 * lost_s),
    ):
        option = getattr(socket, name, None)  # Linux has them all
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, int(value))


def reach(
    place: Place,
    key: bytes,
    context: ssl.SSLContext | None,
    limit_s: float = DIRECT_S,
    lost_s: int = LINE_LOST_S,
) -> tuple[socket.socket, socket.socket]:
    """Go to a node's door: the connections for sending and for receiving.

    No step of it takes longer than ``limit_s``. If nothing comes through for ``lost_s``, they end.

    Raises
    ------
    OSError
        It cannot be reached from here, or one side does not trust the other.
    """
    made: list[socket.socket] = []
    try:
        for direction in (_TO_NODE, _TO_DRIVER):
            connection = socket.create_connection(place, limit_s)
            made.append(connection)
            if context is not None:
                connection = context.wrap_socket(connection, server_hostname=place[0])
                made[-1] = connection
            nonce = os.urandom(_NONCE_BYTES)
            connection.sendall(direction + nonce + _proof(key, b"driver", direction, nonce))
            answer = memoryview(bytearray(_PROOF_BYTES))
            expected = _proof(key, b"node", direction, nonce)
            if not _fill(connection, answer) or not hmac.compare_digest(answer, expected):
                raise ConnectionRefusedError("that is not the node")
            _settle(connection, lost_s)
    except BaseException:
        for connection in made:
            connection.close()
        raise
    return made[0], made[1]


class Door:
    """Where a node waits for its driver, or another node, until that has come or will not.

    Parameters
    ----------
    host : str
        The address to listen on.
    key : bytes
        The session's, or one that the driver has made for two nodes.
    context : ssl.SSLContext, optional
        Of the foreign engine.
    opened : callable
        Called once, with the connections for sending and for receiving.
    ports : pair of int, default (0, 0)
        The first and the last to listen on, of which it takes one that is free; zeros: any.
    lost_s : int
        For how long they may be cut, whole seconds, until they end.

    Raises
    ------
    NoFreePort
        None of them is free.
    OSError
        There is no such address here.
    """

    def __init__(
        self,
        host: str,
        key: bytes,
        context: ssl.SSLContext | None,
        opened: Callable[[socket.socket, socket.socket], object],
        ports: tuple[int, int] = (0, 0),
        lost_s: int = LINE_LOST_S,
    ) -> None:
        self._key, self._context, self._opened, self._lost_s = key, context, opened, lost_s
        self._listener = _listen(host, *ports)
        self.place: Place = (host, self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._wait, name="mars-door", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether somebody may still come in."""
        return self._thread.is_alive()

    def shut(self) -> None:
        """Let nobody in any more; whoever is at the door may still come in."""
        with contextlib.suppress(OSError):  # it is closed
            self._listener.shutdown(socket.SHUT_RDWR)  # else `accept` would go on waiting

    def close(self) -> None:
        """Let nobody in any more, and nobody is at the door; idempotent."""
        self.shut()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _wait(self) -> None:
        came: dict[bytes, socket.socket] = {}
        try:
            with self._listener:
                while len(came) < 2:
                    connection, _ = self._listener.accept()
                    with contextlib.suppress(OSError):  # a stranger, or it has gone
                        direction, connection = self._let_in(connection)
                        before, came[direction] = came.get(direction), connection
                        if before is not None:
                            before.close()
            self._opened(came.pop(_TO_DRIVER), came.pop(_TO_NODE))
        except OSError:  # `close`
            return
        finally:
            for connection in came.values():
                connection.close()

    def _let_in(self, connection: socket.socket) -> tuple[bytes, socket.socket]:
        try:
            connection.settimeout(DIRECT_S)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            said = memoryview(bytearray(1 + _NONCE_BYTES + _PROOF_BYTES))
            complete = _fill(connection, said)
            direction, nonce = bytes(said[:1]), bytes(said[1 : 1 + _NONCE_BYTES])
            proof = _proof(self._key, b"driver", direction, nonce)
            if (
                not complete
                or direction not in (_TO_NODE, _TO_DRIVER)
                or not hmac.compare_digest(said[1 + _NONCE_BYTES :], proof)
            ):
                raise ConnectionRefusedError("that is not the driver")
            connection.sendall(_proof(self._key, b"node", direction, nonce))
            _settle(connection, self._lost_s)
        except BaseException:
            connection.close()
            raise
        return direction, connection


class NoFreePort(Exception):
    """None of the ports that a door may have is free."""


def _listen(host: str, first: int, last: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, last + 1):
        try:
            return socket.create_server((host, port), family=family)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise NoFreePort(
        f"none of node_ports='{first}-{last}' is free at {host}; give it more of them, or others"
    )


def host_of(address: str) -> str:
    """The host in ``protocol://host:port`` or ``host:port``."""
    return address.rpartition("://")[2].rpartition(":")[0].strip("[]")


__all__ = ["Door", "Line", "NoFreePort", "Place", "host_of", "reach"]
