"""Dask distributed as the engine under ours: Dask's workers hold our nodes, its scheduler relays.

A worker plugin starts a `Node` in each Dask worker, also in those that join later. The node
connects to the scheduler, where a scheduler plugin passes messages on between nodes and drivers.
So a driver needs to reach the scheduler's port alone, and every byte goes through connections
that Dask has secured: with TLS, nobody without a certificate comes to where pickles are read.

Calls are no Dask tasks: a task cannot be stopped, its log cannot be read, and it is run again
when Dask's worker dies. Dask does not know of them, so its own tasks do not wait for ours.

::

    driver: DaskLink ──TLS──► scheduler: Relay ──TLS──► Dask worker: NodePlugin ─► Node ─► workers

Where the driver can reach a node, it talks with it by a line of ours instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pickle
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mars._version import __version__
from mars.engines.cluster import engine as cluster_engine
from mars.engines.cluster.carrier import Item, Listener, Message, next_messages
from mars.engines.cluster.dask_own import OwnCluster
from mars.engines.cluster.dask_parts import (
    DRIVER_OP,
    RELAY,
    NodePlugin,
    Relay,
    as_plugin,
    import_distributed,
    pack,
    plugin_name,
    unpack,
)
from mars.engines.driver.engine import DriverEngine
from mars.engines.kinds import DASK, EngineOptions
from mars.errors import StartupFailed
from mars.settings import CONNECT_S, SHIP_BYTES, STOP_S

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from mars.engines.cluster import carrier


_Foreign = Any
"""What Dask makes and has no types for: the module, its clients, comms and securities."""


class _Route:
    """What is to be sent to a node."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.queue: deque[Item] = deque()
        self.filled = asyncio.Event()
        self.awake = False


class DaskLink:
    """A Dask cluster as `mars.engines.cluster.carrier.Carrier`.

    Parameters
    ----------
    address : str
        Of Dask's scheduler, ``tls://host:port`` or ``tcp://host:port``.
    security : object, optional
        Has ``ca_path``, ``cert_path`` and ``key_path``, of PEM files; or is a
        `distributed.Security`.
    owned : callable, optional
        Ends the cluster; for one that we have started.
    """

    def __init__(
        self,
        address: str,
        security: object | None = None,
        owned: Callable[[], object] | None = None,
    ) -> None:
        self.address = address
        self.own = owned is not None
        self._security = security
        self._owned = owned
        self._key = os.urandom(8).hex()
        self._client: _Foreign = None
        self._comm: _Foreign = None
        self._routes: dict[str, _Route] = {}
        self._relaying: asyncio.Lock
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False
        self._lock = threading.Lock()

    def begin(self, listener: Listener, facts: carrier.Facts) -> Sequence[str]:
        """Connect, and have Dask start our nodes; see `Carrier`."""
        distributed = import_distributed()
        try:
            security = _dask_security(distributed, self._security)
            _check_address(self.address, security)
            self._client = distributed.Client(
                self.address,
                security=security,
                set_as_default=False,
                timeout=CONNECT_S,
                name=f"mars-{self._key}",
            )
        except Exception as error:  # of TLS, of addresses, of Dask
            raise StartupFailed(
                f"no connection to a Dask scheduler at {self.address} "
                f"({type(error).__name__}: {error}); is it there, does this program have the "
                f"certificate that it asks for (security=, or, of a cluster that `mars cluster` "
                f"started, `mars cluster credentials import` here), and does it use TLS (tls://)?"
            ) from error
        # Who lost the scheduler has lost our relay in it, too: another one would not know us. And a
        # client that is closed while it tries to come back shows a traceback of its own.
        self._client._reconnect = functools.partial(_stay_lost, self._client)
        try:
            expected = list(self._client.scheduler_info(n_workers=-1)["workers"])
            self._client.register_plugin(as_plugin(distributed.SchedulerPlugin, Relay()), RELAY)
            plugin = as_plugin(distributed.WorkerPlugin, NodePlugin(self._key, dict(facts)))
            self._client.sync(self._connect, listener, pickle.dumps(plugin, 5))
        except StartupFailed:
            raise
        except Exception as error:  # whatever Dask, or our part in another process, raises
            raise StartupFailed(
                f"the Dask cluster at {self.address} does not take our part "
                f"({type(error).__name__}: {error}); mars {__version__} and what it needs have to "
                f"be installed where its scheduler runs"
            ) from error
        return expected

    async def _connect(self, listener: Listener, plugin: bytes) -> None:
        from distributed.comm import connect

        client = self._client
        self._comm = await connect(client.scheduler.address, **client.connection_args)
        hello = {"op": DRIVER_OP, "key": self._key, "plugin": plugin, "reply": False}
        await self._comm.write(hello)
        ((kind, version), *_) = await self._comm.read()
        if kind != "version" or version != __version__:
            raise StartupFailed(
                f"the Dask scheduler at {self.address} has mars {version}, this program has "
                f"{__version__}; install the same on both"
            )
        self._relaying = asyncio.Lock()
        self._go(self._read(listener))

    def _go(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, listener: Listener) -> None:
        reason = "the connection to Dask's scheduler ended"
        try:
            while True:
                for message in await self._comm.read():
                    try:
                        self._take(listener, *message)
                    except Exception as error:  # of one message, which is of one node
                        self._left(message[1], f"{type(error).__name__}: {error}", listener)
        except OSError as error:
            reason += f": {type(error).__name__}"
        finally:
            if not self._closed:
                listener.ended(reason)

    def _take(self, listener: Listener, kind: str, node: str, *rest: Any) -> None:
        if kind == "joined":
            route = self._routes[node] = _Route(node)
            listener.joined(node)
            self._go(self._write_all(route))
        elif kind == "told":
            listener.told(node, unpack(rest[0]))
        elif kind == "failed":
            listener.failed(node, rest[0])
        elif kind == "left":
            self._left(node, rest[0], listener)

    def _left(self, node: str, reason: str, listener: Listener) -> None:
        if self._routes.pop(node, None) is not None and not self._closed:
            listener.left(node, reason)

    async def _write(self, route: _Route, batch: Sequence[Message]) -> None:
        _, packed = pack(batch)
        async with self._relaying:
            await self._comm.write([(route.node, packed)])

    async def _write_all(self, route: _Route) -> None:
        queue = route.queue
        with contextlib.suppress(OSError):  # whoever reads sees it, too
            while True:
                await route.filled.wait()
                route.filled.clear()
                route.awake = False
                while queue:
                    await self._write(route, next_messages(queue, SHIP_BYTES))

    def why_silent(self) -> str:
        """Dask starts our part beside whatever runs there; see `Carrier`."""
        return ""

    def send(self, node: str, item: Item) -> None:
        """Send a message to a node; see `Carrier`."""
        route = self._routes.get(node)
        if route is None:
            return  # it is lost, or about to be told so
        route.queue.append(item)
        if not route.awake:
            route.awake = True
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._client.loop.asyncio_loop.call_soon_threadsafe(route.filled.set)

    def context(self) -> ssl.SSLContext | None:
        """TLS as Dask has it; see `Carrier`."""
        return self._client.connection_args.get("ssl_context")  # type: ignore[no-any-return]

    def close(self) -> None:
        """End our nodes, the connection, and a cluster of our own."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        client = self._client
        if client is not None:
            with contextlib.suppress(Exception):  # the cluster is gone: so are our nodes
                client.sync(self._leave, callback_timeout=2 * STOP_S)
            client.close(timeout=STOP_S)
        if self._owned is not None:
            self._owned()

    async def _leave(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await self._client.scheduler.unregister_worker_plugin(name=plugin_name(self._key))
        if self._comm is not None:
            await self._comm.close()


async def _stay_lost(client: _Foreign) -> None:
    """What a client of Dask does instead of coming back: it reads no more, and waits to end."""
    client.scheduler_comm = None


def _check_address(address: str, security: _Foreign) -> None:
    """See whether a scheduler lets us in: a `Client` that is refused leaves a thread behind."""
    from distributed.comm import connect

    errors: list[BaseException] = []

    async def knock() -> None:
        arguments = {} if security is None else security.get_connection_args("client")
        comm = await connect(address, timeout=CONNECT_S, **arguments)
        await comm.close()

    def run() -> None:
        try:
            asyncio.run(knock())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="mars-knock")  # the caller may have a loop already
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _dask_security(distributed: _Foreign, security: _Foreign) -> _Foreign:
    if security is None or isinstance(security, distributed.Security):
        return security
    return distributed.Security(
        tls_ca_file=os.fspath(security.ca_path),
        tls_client_cert=os.fspath(security.cert_path),
        tls_client_key=os.fspath(security.key_path),
        require_encryption=True,
    )


def connect(address: str, options: EngineOptions) -> DriverEngine:
    """An engine on the Dask cluster whose scheduler is at ``address``.

    Raises
    ------
    StartupFailed
        It is not there, has no usable worker of Dask, or refuses us.
    """
    link = DaskLink(_dask_address(address, options.security), options.security)
    return cluster_engine.start(link, options)


def _dask_address(address: str, security: object | None) -> str:
    """The address as Dask has it: ``dask://host:port`` and ``host:port`` do not say TLS or not."""
    scheme, found, rest = address.rpartition("://")
    if found and scheme != DASK.name:
        return address
    return DASK.address(rest, secure=security is not None)


def start(options: EngineOptions) -> DriverEngine:
    """An engine on a Dask cluster of its own, which has a worker for each group of cores."""
    cluster = OwnCluster(options.cores)
    link = DaskLink(cluster.address, cluster.security, cluster.close)
    return cluster_engine.start(link, options)
