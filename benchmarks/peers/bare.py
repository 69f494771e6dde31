"""The machine without a runtime: the limits that no peer can pass. Not ranked.

Answers only what needs no runtime: start of an interpreter, a raw round trip, two plain processes.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.peer import Func, Peer, Unsupported

MESSAGE_BYTES = 100
"""About what a small call and its small result take."""


class Bare(Peer):
    """The machine without any runtime: a limit, not a peer."""

    name = "bare"
    import_line = "pass"
    first_result = """
def square(x): return x * x
print(square(3), flush=True)
"""

    def start(self, workers: int) -> None:
        self._near, far = socket.socketpair()
        self._echo = os.fork()
        if self._echo == 0:
            self._near.close()
            while data := far.recv(4096):
                far.send(data)
            os._exit(0)
        far.close()

    def stop(self) -> None:
        self._near.close()
        os.waitpid(self._echo, 0)

    def submit(self, func: Func, *args: object) -> object:
        return b"x" * MESSAGE_BYTES

    def gather(self, handles: Sequence[object]) -> list[Any]:
        """Send each message and wait for its echo; nothing is called."""
        if len(handles) > 1:
            raise Unsupported("one round trip only")
        for message in handles:
            assert isinstance(message, bytes)
            self._near.send(message)
            self._near.recv(4096)
        return [None for _ in handles]

    def one_by_one(self, func: Func, items: Iterable[object]) -> list[Any]:
        """A plain loop in this process."""
        return [func(item) for item in items]

    def map(self, func: Func, items: Sequence[object]) -> list[Any]:
        """Every worker forks, takes each n-th item and exits; results in no order."""
        readers = []
        for worker in range(self.workers):
            read, write = os.pipe()
            if os.fork() == 0:
                found = [func(item) for item in items[worker :: self.workers]]
                os.write(write, json.dumps(found).encode())
                os._exit(0)
            os.close(write)
            readers.append(os.fdopen(read))
        results: list[Any] = []
        for reader in readers:
            with reader:
                results += json.loads(reader.read())
        for _ in readers:
            os.wait()
        return results


PEER = Bare
