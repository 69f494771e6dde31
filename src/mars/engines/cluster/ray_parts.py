"""Our part in processes of Ray: an actor on each of its nodes, which holds a `Node`.

What it loads is what each node loads before it answers, so nothing of the driver is here. The
driver's side is `mars.engines.ray`, which starts the actors, and packs and unpacks messages alike.
"""

from __future__ import annotations

import os
import pickle
import signal
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mars.engines.cluster.carrier import Item, Message, next_messages
from mars.engines.cluster.node import Node
from mars.gpus import VISIBLE
from mars.settings import RAY_POLL_S, RAY_SHIP_BYTES

if TYPE_CHECKING:
    from mars.engines.cluster import carrier

Packed = tuple[bytes, Sequence[object]]
"""Messages as Ray carries them: their pickle, and beside it large parts, which are then in Ray's
object store and mapped from there."""


def pack(messages: Sequence[Message], mapped: bool) -> Packed:
    """Messages as Ray carries them; ``mapped`` unless the driver is a client from outside.

    Such a one has no object store to map.
    """
    if not mapped:
        return pickle.dumps(messages, 5), []
    buffers: list[pickle.PickleBuffer] = []
    return pickle.dumps(messages, 5, buffer_callback=buffers.append), buffers


def unpack(packed: Packed) -> list[Message]:
    """What `pack` was given."""
    head, buffers = packed
    return pickle.loads(head, buffers=buffers)  # type: ignore[no-any-return]


class NodeActor:
    """What Ray runs: a node for one driver.

    Its methods are called in several threads, so what comes is not held up by who waits.
    """

    def __init__(
        self, facts: carrier.Facts, address: str, cpus: float, host: str, mapped: bool
    ) -> None:
        self._mapped = mapped
        self._outgoing: deque[Item] = deque()
        self._came: dict[int, Packed] = {}
        self._next = 0
        self._told = 0  # batches
        self._is_over = False
        self._lock = threading.Condition()
        # Ray sets this for each of its workers, as if their user had asked for so many threads.
        os.environ.pop("OMP_NUM_THREADS", None)
        if os.environ.get("MARS_GPUS") and not os.environ.get(VISIBLE):
            os.environ.pop(VISIBLE, None)  # Ray hides GPUs that it was not told of; the user has us
        contexts = [tls(purpose) for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH)]
        self._node = Node(self._tell, facts, address, cpus, host, *contexts)
        threading.Thread(target=self._end_alone, name="mars-alone", daemon=True).start()

    def _end_alone(self) -> None:
        """Give the cores back at once when the driver has gone: Ray waits for it to come back."""
        self._node.wait_ended()
        if self._node.is_orphan:
            with self._lock:
                self._is_over = True  # for Ray's worker waits for the calls under way
                self._lock.notify_all()
            signal.raise_signal(signal.SIGTERM)  # on which Ray's worker ends in order

    def _tell(self, messages: Sequence[Message]) -> None:
        with self._lock:
            self._outgoing.extend(messages)
            self._lock.notify_all()

    def take(self, number: int, packed: Packed) -> None:
        """Messages of the driver; they are acted on in the order of their numbers."""
        with self._lock:
            self._came[number] = packed
            while self._next in self._came:
                self._node.take(unpack(self._came.pop(self._next)))
                self._next += 1

    def poll(self) -> tuple[int, Packed]:
        """What there is to tell the driver, as soon as there is something, and its number.

        Two of them are under way, so that one is being sent while the next is put together.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._outgoing or self._is_over, RAY_POLL_S)
            messages = next_messages(self._outgoing, RAY_SHIP_BYTES)
            number = self._told
            self._told += 1
        return number, pack(messages, self._mapped)

    def end(self) -> None:
        """End all workers."""
        self._node.close()
        self._tell(())


def tls(purpose: ssl.Purpose) -> ssl.SSLContext | None:
    """As Ray itself is told to use it, by variables; with a certificate of both sides."""
    if os.environ.get("RAY_USE_TLS", "0") not in ("1", "true", "True"):
        return None
    context = ssl.create_default_context(purpose, cafile=os.environ["RAY_TLS_CA_CERT"])
    context.load_cert_chain(os.environ["RAY_TLS_SERVER_CERT"], os.environ["RAY_TLS_SERVER_KEY"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = False  # who it is, it shows by the session's key
    return context
