"""Large values between two nodes of a driver, without a way round by its host.

The driver lets two nodes *meet*: it makes a key for them, one opens a door, the other goes there,
and what they have then is a line as between driver and node. Whoever is told to get a value asks
for it there, and tells the driver when it has all of it, or that it will not come. Nothing else
goes by these lines. A node asks only after it has acted on all that the driver said before, so
that no word about an older value in the same place comes late; and the driver lets go of a value
only when it has heard how its copy ended.

::

    driver: meet, get ──► node: Peers ──(want)──────────────────► Peers of the node that has it
    driver ◄──(got)────── node: Peers ◄──(parts of it, sent)───── Line
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from mars.engines.cluster import carrier
from mars.engines.cluster.carrier import Item, Message
from mars.engines.cluster.line import Door, Line, NoFreePort, Place, reach
from mars.settings import MEET_S, PEER_LOST_S

if TYPE_CHECKING:
    import socket
    import ssl

_WANT: Final = "want"  # attempt, arena, offset, length: send that
_UNWANT: Final = "unwant"  # arena, offset: no more of that
_SENT: Final = "sent"  # arena, offset, whether that was all

Key = tuple[int, int]  # arena, offset


class _Coming:
    """A value on its way from another node."""

    __slots__ = ("count", "length", "meeting")

    def __init__(self, meeting: int, length: int) -> None:
        self.meeting, self.length = meeting, length
        self.count = 0  # bytes that have come


class _Peer:
    """Another node: met, or expected."""

    __slots__ = ("door", "line", "unsaid")

    def __init__(self) -> None:
        self.door: Door | None = None
        self.line: Line | None = None
        self.unsaid: list[Message] = []  # until it is met


class Peers:
    """The other nodes, as one node knows them; all but `place` in the node's thread.

    Parameters
    ----------
    host : str
        The address to listen on.
    ports : pair of int
        The first and the last to listen on; zeros: any.
    coming, going : ssl.SSLContext, optional
        TLS of the foreign engine, for a node that comes and to go to one.
    soon : callable
        Has something done in the node's thread; from any thread.
    say : callable
        Tells the driver.
    copy : callable
        What sends a value of this node: of an arena, from an offset, so many bytes.
    put_off : callable
        Called with an attempt whose value another node gets, so that the driver need not hurry.
    write : callable
        Takes a part of a value: arena, its size, offset, bytes.
    """

    def __init__(
        self,
        host: str,
        ports: tuple[int, int],
        coming: ssl.SSLContext | None,
        going: ssl.SSLContext | None,
        soon: Callable[[Callable[[], object]], object],
        say: Callable[..., object],
        copy: Callable[[int, int, int], Iterable[Item]],
        put_off: Callable[[int], object],
        write: Callable[[int, int, int, memoryview], object],
    ) -> None:
        self._host, self._ports = host, ports
        self._coming_tls, self._going_tls = coming, going
        self._soon, self._say, self._copy = soon, say, copy
        self._put_off, self._write = put_off, write
        self._peers: dict[int, _Peer] = {}  # by meeting
        self._coming: dict[Key, _Coming] = {}
        self._doors: list[Door] = []
        self._threads: list[threading.Thread] = []
        self._new: list[Line] = []  # not begun

    def act(self, message: Message) -> None:
        """What the driver says of other nodes."""
        kind, *rest = message
        if kind == carrier.OPEN:
            self._open(*rest)
        elif kind == carrier.MEET:
            self._meet(*rest)
        elif kind == carrier.PART:
            self._part(*rest)
        elif kind == carrier.GET:
            self._get(*rest)
        elif kind == carrier.UNGET:
            self._unget(*rest)

    # -- how they meet ------------------------------------------------------------------------

    def _open(self, meeting: int, key: bytes) -> None:
        def opened(sending: socket.socket, receiving: socket.socket) -> None:
            self._met(meeting, sending, receiving)

        try:
            door = Door(self._host, key, self._coming_tls, opened, self._ports, PEER_LOST_S)
        except (OSError, NoFreePort):  # or no descriptor
            self._say(carrier.OPENED, meeting, None)
            return
        peer = self._peers[meeting] = _Peer()
        peer.door = door
        self._doors = [one for one in self._doors if one.is_open] + [door]
        self._say(carrier.OPENED, meeting, door.place)

    def _meet(self, meeting: int, place: Place, key: bytes) -> None:
        def go() -> None:
            try:
                self._met(meeting, *reach(place, key, self._going_tls, MEET_S, PEER_LOST_S))
            except OSError:
                self._soon(lambda: self._lost(meeting))

        self._peers[meeting] = _Peer()
        # In a thread of its own, as it may take as long as it is let.
        thread = threading.Thread(target=go, name="mars-meet", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _met(self, meeting: int, sending: socket.socket, receiving: socket.socket) -> None:
        """In a thread of its own, or the door's."""
        line = Line(
            sending, receiving,
            lambda messages: self._soon(lambda: self._told(meeting, messages)),
            self._place,
            lambda _: self._soon(lambda: self._lost(meeting)),
        )  # fmt: skip
        self._new.append(line)
        self._soon(lambda: self._begin(meeting, line))

    def _begin(self, meeting: int, line: Line) -> None:
        self._new.remove(line)
        peer = self._peers.get(meeting)
        if peer is None:  # it came too late
            line.forget()
            return
        peer.line = line
        line.start()
        line.send(peer.unsaid)

    def _lost(self, meeting: int) -> None:
        """There is no line to another node, or none any more."""
        if meeting in self._peers:
            self._part(meeting)
            self._say(carrier.PARTED, meeting)

    def _part(self, meeting: int) -> None:
        peer = self._peers.pop(meeting, None)
        if peer is None:
            return
        if peer.door is not None:
            peer.door.shut()
        if peer.line is not None:
            peer.line.close()  # before the next line: from then on nothing comes any more
        for key in [key for key, one in self._coming.items() if one.meeting == meeting]:
            self._end(key, False)

    def close(self) -> None:
        """Part with all; no thread is left. Idempotent."""
        for meeting in list(self._peers):
            self._part(meeting)
        for door in self._doors:
            door.close()
        for thread in self._threads:
            thread.join()
        for line in self._new:
            line.forget()
        self._new.clear()

    # -- values -------------------------------------------------------------------------------

    def _get(
        self, meeting: int, attempt: int, number: int, size: int, offset: int, length: int
    ) -> None:
        peer = self._peers.get(meeting)
        if peer is None:  # lost, which the driver has not heard yet
            self._say(carrier.GOT, number, offset, 0, False)
            return
        self._coming[number, offset] = _Coming(meeting, length)
        self._tell(peer, (_WANT, attempt, number, offset, length))

    def _unget(self, number: int, offset: int) -> None:
        coming = self._coming.get((number, offset))
        if coming is not None:  # else it has come, which the driver has not heard yet
            self._tell(self._peers[coming.meeting], (_UNWANT, number, offset))

    @staticmethod
    def _tell(peer: _Peer, message: Message) -> None:
        if peer.line is not None:
            peer.line.send((message,))
        else:
            peer.unsaid.append(message)

    def _told(self, meeting: int, messages: Sequence[Message]) -> None:
        """What another node says."""
        peer = self._peers.get(meeting)
        if peer is None or peer.line is None:
            return  # they have parted
        for kind, *rest in messages:
            if kind == _WANT:
                self._send(peer.line, *rest)
            elif kind == _UNWANT:
                if peer.line.drop(tuple(rest)):
                    peer.line.send([(_SENT, *rest, False)])
            elif kind == _SENT:
                number, offset, whole = rest
                self._end((number, offset), whole)

    def _send(self, line: Line, attempt: int, number: int, offset: int, length: int) -> None:
        self._put_off(attempt)
        items = [*self._copy(number, offset, length), (_SENT, number, offset, True)]
        line.send_later((number, offset), items, 0.0)

    def _end(self, key: Key, whole: bool) -> None:
        coming = self._coming.pop(key, None)
        if coming is not None:
            self._say(carrier.GOT, *key, coming.count, whole)

    def _place(self, number: int, size: int, offset: int, data: memoryview) -> None:
        """A part of a value, in the line's thread."""
        for (arena, start), coming in list(self._coming.items()):
            if arena == number and start <= offset < start + coming.length:
                coming.count += len(data)
                self._write(number, size, offset, data)


__all__ = ["Peers"]
