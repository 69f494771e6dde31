"""Nodes in this very process, without Dask or Ray: they come, go and are looked into at once."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from mars import platform
from mars.engines.cluster import carrier
from mars.engines.cluster import engine as cluster_engine
from mars.engines.cluster.node import Node
from mars.session import Session, clear_default_session

NOWHERE = "203.0.113.1"
"""No address of this machine: a node there has no door, and all goes by way of the carrier."""


class Nodes:
    """A foreign engine whose nodes are threads of this process, each with a zygote and workers."""

    address = "test://nodes"
    own = False

    def __init__(self, count: int, *, direct: bool, silent: tuple[str, ...] = ()) -> None:
        self._count = count
        self._host = "127.0.0.1" if direct else NOWHERE
        self.nodes: dict[str, Node] = {}
        self.silent: tuple[str, ...] = silent  # names of nodes that should be there, and are not
        self._made = 0
        self._said: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._carry, name="test-carrier")
        self._lock = threading.Lock()

    def context(self) -> None:
        """No TLS."""

    def begin(self, listener: carrier.Listener, facts: Mapping[str, Any]) -> list[str]:
        self._listener, self._facts = listener, facts
        self._thread.start()
        return [self.join() for _ in range(self._count)] + [f"test://{one}" for one in self.silent]

    def join(self, cpus: float = 1.0, memory: int | None = None, name: str = "") -> str:
        """Another node comes; its address."""
        with self._lock:
            self._made += 1
            name = name or f"node-{self._made}"
        listener = self._listener
        self._said.put(lambda: listener.joined(name))

        known = threading.Event()

        def tell(messages: Any) -> None:
            assert known.wait(20)
            sent = [_sent(message) for message in messages]
            self._said.put(lambda: listener.told(name, sent))

        address = f"test://{name}"
        facts = {**self._facts, "memory": memory, "directory": None}
        self.nodes[name] = Node(tell, facts, address, cpus, self._host)
        known.set()
        return address

    def lose(self, address: str) -> None:
        """A node is lost, with all that runs there."""
        name = address.removeprefix("test://")
        node = self.nodes.pop(name)
        self._said.put(lambda: self._listener.left(name, "the test took it away"))
        node.close()

    def node(self, address: str) -> Node:
        return self.nodes[address.removeprefix("test://")]

    def why_silent(self) -> str:
        return ""

    def send(self, node: str, item: carrier.Item) -> None:
        known = self.nodes.get(node)
        if known is not None:
            known.take([_sent(carrier.made(item))])

    def _carry(self) -> None:
        while (act := self._said.get()) is not None:
            act()

    def close(self) -> None:
        while self.nodes:
            self.nodes.popitem()[1].close()
        if self._thread.is_alive():
            self._said.put(None)
            self._thread.join()


def _sent(message: carrier.Message) -> carrier.Message:
    """A message as it comes out at the other end."""
    return pickle.loads(pickle.dumps(message, 5))  # type: ignore[no-any-return]


class OnNodes:
    """A session on such nodes."""

    def __init__(self, count: int, *, direct: bool, silent: tuple[str, ...] = ()) -> None:
        self.carrier = Nodes(count, direct=direct, silent=silent)
        self.engine = cluster_engine.start(self.carrier)
        self.cluster: Any = self.engine.site
        self.session = Session(self.engine, "on-nodes").as_default()
        self.loop: Any = self.engine.loop
        self.store: Any = self.engine.store
        self.nodes: Any = self.cluster.nodes

    def in_loop(self, look: Callable[[], Any]) -> Any:
        """What something gives in the loop's thread, where nothing changes meanwhile."""
        found: list[Any] = []
        done = threading.Event()
        self.loop.post(lambda: (found.append(look()), done.set()))
        assert done.wait(20)
        return found[0]


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes and program do not open each other's files, as if they were on several machines."""
    monkeypatch.setattr(platform, "file_address", lambda _: None)


@pytest.fixture
def on_nodes(leak_guard: None) -> Iterator[Callable[..., OnNodes]]:
    """``on_nodes(2)``: a default session on so many nodes."""
    made: list[OnNodes] = []

    def make(count: int, *, direct: bool = False, silent: tuple[str, ...] = ()) -> OnNodes:
        made.append(OnNodes(count, direct=direct, silent=silent))
        return made[-1]

    yield make
    for one in made:
        one.session.stop_server()
    clear_default_session()
