"""A port of this machine that leads into a pod, through the API server.

It listens on loopback. Whoever connects comes to the engine's port in the pod, which asks for a
certificate: so other users of this machine get no further than they would over a network. With TLS
the side that connects speaks first. The API server is asked only when it does, so a program that
just looks whether somebody listens, as Ray's does every other second, costs it nothing. Each
connection has two threads here, and one of the client of Kubernetes. Used by `client` for programs
outside of Kubernetes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from mars.deploy.kubernetes.api import Api
from mars.errors import MarsError
from mars.settings import MIB


class Tunnel:
    """A port on loopback whose connections end at a port of a pod.

    Parameters
    ----------
    api : Api
        By which it goes.
    find : callable
        The name of the pod, asked for each connection: another one may have taken its place.
    port : int
        In the pod.
    """

    def __init__(self, api: Api, find: Callable[[], str], port: int) -> None:
        self._api, self._find, self._to = api, find, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self.trouble: MarsError | None = None
        """Why the last connection could not be made."""
        self._go(self._serve)

    def _go(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name="mars-tunnel", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            self._go(self._join, here)

    def _join(self, here: socket.socket) -> None:
        """Make the other half of a connection, and carry what goes that way."""
        if not self._holds(here):
            return
        first = b""
        with contextlib.suppress(OSError):
            first = here.recv(MIB // 4)
        if not first:
            self._let_go(here)
            return
        try:
            way = self._api.forward(self._find(), self._to)
        except MarsError as error:
            self.trouble = error
            self._let_go(here)
            return
        self.trouble = None
        there = way.socket(self._to)
        there.setblocking(True)
        if not self._holds(there):
            return
        self._go(self._pump, there, here)
        self._pump(here, there, first)

    def _pump(self, source: socket.socket, sink: socket.socket, first: bytes = b"") -> None:
        with contextlib.suppress(OSError, ValueError):
            sink.sendall(first)
            while data := source.recv(MIB // 4):
                sink.sendall(data)
        self._let_go(source, sink)

    def _holds(self, end: socket.socket) -> bool:
        """Keep an end, so that `close` ends it; False: the tunnel is closed, and so is this end."""
        with self._lock:
            closed = self._closed
            if not closed:
                self._open.add(end)
        if closed:
            _close(end)
        return not closed

    def _let_go(self, *ends: socket.socket) -> None:
        _close(*ends)
        with self._lock:
            self._open.difference_update(ends)

    def close(self) -> None:
        """End all connections, and listen no more; idempotent."""
        with self._lock:
            self._closed = True
            left = list(self._open)
            threads = list(self._threads)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        _close(*left)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes who reads in another thread
        with contextlib.suppress(OSError):
            end.close()
