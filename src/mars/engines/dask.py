"""Dask distributed as the engine under ours: its workers hold our nodes, its scheduler relays.

A worker plugin starts a `Node` in each Dask worker, also in those that join later. The node
connects to the scheduler, where a scheduler plugin passes messages on between nodes and drivers.
So a driver needs to reach the scheduler's port alone, and every byte goes through connections
that Dask has secured: with TLS, nobody without a certificate comes to where pickles are read.

Calls are no Dask tasks: a task cannot be stopped, its log cannot be read, and it is run again
when its worker dies. Dask does not know of them, so its own tasks do not wait for ours.

::

    driver: DaskLink ──TLS──► scheduler: Relay ──TLS──► Dask worker: NodePlugin ─► Node ─► workers
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mars._version import __version__
from mars.engines.cluster.carrier import Item, Listener, Message, size_of
from mars.engines.cluster.engine import ClusterEngine
from mars.engines.cluster.node import Node
from mars.errors import StartupFailed
from mars.settings import CONNECT_S, DIRECT_S, OBJECT_MEMORY_SHARE, RELAY_BYTES, SHIP_BYTES, STOP_S

_RELAY: Final = "mars-relay"
_DRIVER_OP: Final = "mars_driver"
_NODE_OP: Final = "mars_node"
_DIRECT_OP: Final = "mars_direct"

_log = logging.getLogger("mars.dask")


def _pack(messages: Sequence[Message]) -> tuple[int, list[Any]]:
    """Messages as Dask carries them, large parts uncopied beside a pickle, and their size."""
    from distributed.protocol import to_serialize

    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(messages, 5, buffer_callback=buffers.append)
    parts = [to_serialize(buffer.raw()) for buffer in buffers]
    return len(head) + sum(buffer.raw().nbytes for buffer in buffers), [head, *parts]


def _unpack(packed: Sequence[Any]) -> list[Message]:
    head, *buffers = packed
    return pickle.loads(head, buffers=buffers)  # type: ignore[no-any-return]


def _packed_size(packed: Sequence[Any]) -> int:
    """In the scheduler, which leaves the large parts as they came."""
    head, *parts = packed
    return len(head) + sum(memoryview(one).nbytes for part in parts for one in part.frames)


class _Pipe:
    """Sends through one connection of Dask what many have to say, in order; in its event loop.

    What is queued together is sent together: a message of its own costs Dask some 0.1 ms.
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self._queue: deque[tuple[int, Any]] = deque()
        self._queued = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._bytes = 0
        self._task = asyncio.ensure_future(self._write())

    def put(self, item: Any, size: int) -> None:
        self._queue.append((size, item))
        self._bytes += size
        if self._bytes > RELAY_BYTES:
            self._room.clear()
        self._queued.set()

    async def room(self) -> None:
        """Wait while too much is queued: who sends faster than others read has to wait."""
        if not self.comm.closed():
            await self._room.wait()

    async def _write(self) -> None:
        try:
            while True:
                await self._queued.wait()
                self._queued.clear()
                while self._queue:
                    batch, size = [], 0
                    while self._queue and size < SHIP_BYTES:
                        part, item = self._queue.popleft()
                        size += part
                        batch.append(item)
                    await self.comm.write(batch)
                    self._bytes -= size
                    if self._bytes <= RELAY_BYTES:
                        self._room.set()
        except OSError:  # CommClosedError is one: whoever reads sees it, too
            self._room.set()

    async def close(self) -> None:
        self._room.set()
        self._task.cancel()
        with contextlib.suppress(OSError):
            await self.comm.close()


# -- in the scheduler -------------------------------------------------------------------------


class _Driver:
    def __init__(self, pipe: _Pipe) -> None:
        self.pipe = pipe
        self.nodes: dict[str, _Pipe] = {}


class Relay:
    """The plugin of Dask's scheduler: passes on bytes, and looks at none of them."""

    name = _RELAY
    idempotent = True

    def __init__(self) -> None:
        self._drivers: dict[str, _Driver] = {}
        self._count = 0
        self._scheduler: Any = None

    async def start(self, scheduler: Any) -> None:
        """Take connections of drivers and nodes."""
        self._scheduler = scheduler
        scheduler.handlers[_DRIVER_OP] = self.serve_driver
        scheduler.handlers[_NODE_OP] = self.serve_node

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """Dask has given up a worker, such as one that has been stopped: so do we its nodes."""
        for driver in self._drivers.values():
            for name, pipe in driver.nodes.items():
                if name.startswith(f"{worker} "):
                    pipe.comm.abort()

    async def serve_driver(self, comm: Any, key: str) -> Any:
        """A driver's connection, until it ends; with it end its nodes."""
        from distributed.core import Status

        pipe = _Pipe(comm)
        driver = self._drivers[key] = _Driver(pipe)
        pipe.put(("version", __version__), 0)
        try:
            while True:
                for node, data in await comm.read():
                    target = driver.nodes.get(node)
                    if target is not None:
                        target.put(data, _packed_size(data))
                        await target.room()
        except OSError:
            pass  # it has ended, or was killed
        finally:
            del self._drivers[key]
            # Also for workers that come later: they have nobody to serve.
            with contextlib.suppress(ValueError):  # the driver has done so
                await self._scheduler.unregister_worker_plugin(None, _plugin_name(key))
            for node_pipe in list(driver.nodes.values()):
                await node_pipe.close()
            await pipe.close()
        return Status.dont_reply

    async def serve_node(self, comm: Any, key: str, address: str) -> Any:
        """A node's connection, until it ends."""
        from distributed.core import Status

        driver = self._drivers.get(key)
        if driver is None:
            await comm.close()
            return Status.dont_reply
        pipe = _Pipe(comm)
        self._count += 1
        name = f"{address} {self._count}"
        driver.nodes[name] = pipe
        driver.pipe.put(("joined", name), 0)
        reason = "its connection ended"
        try:
            while True:
                for data in await comm.read():
                    driver.pipe.put(("told", name, data), _packed_size(data))
                    await driver.pipe.room()
        except OSError as error:
            reason = f"{reason}: {type(error).__name__}"
        finally:
            driver.nodes.pop(name, None)
            driver.pipe.put(("left", name, reason), 0)
            await pipe.close()
        return Status.dont_reply


def _plugin_name(key: str) -> str:
    return f"mars-node-{key}"


# -- in a Dask worker -------------------------------------------------------------------------


class NodePlugin:
    """The plugin of Dask's workers: a node for one driver.

    Parameters
    ----------
    key : str
        Which driver.
    facts : mapping
        What it tells its nodes.
    """

    def __init__(self, key: str, facts: Mapping[str, Any]) -> None:
        self._key, self._facts = key, facts
        self.name = _plugin_name(key)
        self._node: Node | None = None
        self._relayed: _Pipe | None = None  # by way of the scheduler
        self._pipe: Any = None  # the way that the driver has chosen
        self._tasks: list[Any] = []

    def __getstate__(self) -> tuple[Any, ...]:
        return self._key, self._facts

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    async def setup(self, worker: Any) -> None:
        """Offer the driver two ways to us; it chooses one, and then the node starts."""
        from distributed.comm import connect

        self._worker = worker
        worker.handlers[f"{_DIRECT_OP}_{self._key}"] = self.serve_direct
        comm = await connect(worker.scheduler.address, **worker.connection_args)
        await comm.write(
            {"op": _NODE_OP, "key": self._key, "address": worker.address, "reply": False}
        )
        self._relayed = _Pipe(comm)
        self._tasks.append(asyncio.ensure_future(self._serve(self._relayed)))

    async def serve_direct(self, comm: Any) -> Any:
        """The driver can reach this worker: the way through the scheduler is not needed."""
        from distributed.core import Status

        await self._serve(_Pipe(comm))
        return Status.dont_reply

    def _start(self, pipe: _Pipe) -> Node:
        worker = self._worker
        loop = asyncio.get_running_loop()
        self._pipe = pipe

        def tell(messages: Sequence[Message]) -> None:
            size, data = _pack(messages)
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(pipe.put, data, size)

        facts = dict(self._facts)
        if facts["object_memory"] is None and worker.memory_manager.memory_limit:
            limit = worker.memory_manager.memory_limit
            facts["object_memory"] = int(OBJECT_MEMORY_SHARE * limit)
        return Node(tell, facts, worker.address, float(worker.state.nthreads))

    async def _serve(self, pipe: _Pipe) -> None:
        try:
            while True:
                for data in await pipe.comm.read():
                    if self._node is None:
                        self._node = self._start(pipe)
                    if pipe is self._pipe:
                        self._node.take(_unpack(data))
        except OSError:
            pass  # the driver has ended, or cannot be reached: nobody hears of what we do
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._node is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._node.close)
        for pipe in (self._pipe, self._relayed):
            if pipe is not None:
                await pipe.close()

    async def teardown(self, worker: Any) -> None:
        """End the node and its processes."""
        worker.handlers.pop(f"{_DIRECT_OP}_{self._key}", None)
        await self._end()


# -- in the driver ----------------------------------------------------------------------------


class _Route:
    """What is to be sent to a node, and which way."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.comm: Any = None  # None: by way of the scheduler
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
        self._security = security
        self._owned = owned
        self._key = os.urandom(8).hex()
        self._client: Any = None
        self._comm: Any = None
        self._routes: dict[str, _Route] = {}
        self._relaying: asyncio.Lock
        self._tasks: set[Any] = set()
        self._closed = False
        self._lock = threading.Lock()

    def begin(self, listener: Listener, facts: Mapping[str, Any]) -> int:
        """Connect, and have Dask start our nodes; see `Carrier`."""
        distributed = _import_distributed()
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
                f"certificate that it asks for (security=), and does it use TLS (tls://)?"
            ) from error
        try:
            expected = len(self._client.scheduler_info(n_workers=-1)["workers"])
            self._client.register_plugin(_as_plugin(distributed.SchedulerPlugin, Relay()), _RELAY)
            self._client.sync(self._connect, listener)
            plugin = _as_plugin(distributed.WorkerPlugin, NodePlugin(self._key, dict(facts)))
            self._client.register_plugin(plugin, _plugin_name(self._key))
        except StartupFailed:
            raise
        except Exception as error:  # whatever Dask, or our part in another process, raises
            raise StartupFailed(
                f"the Dask cluster at {self.address} does not take our part "
                f"({type(error).__name__}: {error}); mars {__version__} and what it needs have to "
                f"be installed where its scheduler and its workers run"
            ) from error
        return expected

    async def _connect(self, listener: Listener) -> None:
        from distributed.comm import connect

        client = self._client
        self._comm = await connect(client.scheduler.address, **client.connection_args)
        await self._comm.write({"op": _DRIVER_OP, "key": self._key, "reply": False})
        ((kind, version), *_) = await self._comm.read()
        if kind != "version" or version != __version__:
            raise StartupFailed(
                f"the Dask scheduler at {self.address} has mars {version}, this program has "
                f"{__version__}; install the same on both"
            )
        self._relaying = asyncio.Lock()
        self._go(self._read(listener))

    def _go(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, listener: Listener) -> None:
        reason = "the connection to Dask's scheduler ended"
        try:
            while True:
                for kind, node, *rest in await self._comm.read():
                    if kind == "joined":
                        route = self._routes[node] = _Route(node)
                        listener.joined(node)
                        self._go(self._reach(route, listener))
                    elif kind == "told":
                        listener.told(node, _unpack(rest[0]))
                    elif kind == "left":
                        self._left(node, rest[0], listener)
        except OSError as error:
            reason += f": {type(error).__name__}"
        finally:
            for node in list(self._routes):
                self._left(node, reason, listener)

    def _left(self, node: str, reason: str, listener: Listener) -> None:
        route = self._routes.pop(node, None)
        if route is not None and not self._closed:
            if route.comm is not None:
                route.comm.abort()
            listener.left(node, reason)

    async def _reach(self, route: _Route, listener: Listener) -> None:
        """Talk with a node directly if it can be reached, else by way of the scheduler."""
        from distributed.comm import connect

        address = route.node.partition(" ")[0]
        try:
            route.comm = await connect(address, timeout=DIRECT_S, **self._client.connection_args)
            await route.comm.write({"op": f"{_DIRECT_OP}_{self._key}", "reply": False})
        except OSError:  # a program outside of the cluster's network, most likely
            route.comm = None
        await self._write(route, [[]])  # what it hears from first is the way that it uses
        self._go(self._write_all(route))
        if route.comm is None:
            return
        reason = "its connection ended"
        try:
            while True:
                for packed in await route.comm.read():
                    listener.told(route.node, _unpack(packed))
        except OSError as error:
            reason += f": {type(error).__name__}"
        finally:
            self._left(route.node, reason, listener)

    async def _write(self, route: _Route, batches: Sequence[Sequence[Message]]) -> None:
        packed = [_pack(batch)[1] for batch in batches]
        if route.comm is not None:
            await route.comm.write(packed)
        else:
            async with self._relaying:
                await self._comm.write([(route.node, one) for one in packed])

    async def _write_all(self, route: _Route) -> None:
        queue = route.queue
        with contextlib.suppress(OSError):  # whoever reads sees it, too
            while True:
                await route.filled.wait()
                route.filled.clear()
                route.awake = False
                while queue:
                    batch, size = [], 0
                    while queue and size < SHIP_BYTES:
                        item = queue.popleft()
                        batch.append(item() if callable(item) else item)
                        size += size_of(batch[-1])
                    await self._write(route, [batch])

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
        await self._client.scheduler.unregister_worker_plugin(name=_plugin_name(self._key))
        for comm in (self._comm, *(route.comm for route in self._routes.values())):
            if comm is not None:
                await comm.close()


def _check_address(address: str, security: Any) -> None:
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


def _as_plugin(base: type, plugin: Any) -> Any:
    """A plugin as Dask wants it; ours do not inherit, or importing mars would import Dask."""
    cls = type(plugin)
    made: Any = object.__new__(_plugin_class(base, cls))
    made.__dict__.update(plugin.__dict__)
    return made


def _plugin_class(base: type, cls: type) -> type:
    return type(cls.__name__, (cls, base), {"__reduce__": _reduce_plugin})


def _reduce_plugin(plugin: Any) -> tuple[Any, ...]:
    if isinstance(plugin, Relay):
        return _new_relay, ()
    return _new_node_plugin, plugin.__getstate__()


def _new_relay() -> Any:
    return _as_plugin(_import_distributed().SchedulerPlugin, Relay())


def _new_node_plugin(key: str, facts: Mapping[str, Any]) -> Any:
    return _as_plugin(_import_distributed().WorkerPlugin, NodePlugin(key, facts))


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise StartupFailed(
            "the Dask engine needs Dask's package distributed; "
            "install it with: pip install 'mars-remote[dask]'"
        ) from error
    return distributed


def _dask_security(distributed: Any, security: Any) -> Any:
    if security is None or isinstance(security, distributed.Security):
        return security
    return distributed.Security(
        tls_ca_file=os.fspath(security.ca_path),
        tls_client_cert=os.fspath(security.cert_path),
        tls_client_key=os.fspath(security.key_path),
        require_encryption=True,
    )


# -- a cluster of our own ---------------------------------------------------------------------


class OwnCluster:
    """A scheduler and workers of Dask in one process on this machine, for one session.

    Calls run in processes of ours anyway. Everything listens on the loopback address only, with
    certificates that exist in memory and for this cluster alone.

    Parameters
    ----------
    cpus : sequence of int
        Cores of each worker.
    """

    def __init__(self, cpus: Sequence[int]) -> None:
        distributed = _import_distributed()
        try:
            self.security = distributed.Security.temporary()
        except ImportError as error:
            raise StartupFailed(
                "a Dask cluster of one's own needs the package cryptography, for its certificates; "
                "install it with: pip install 'mars-remote[dask]'"
            ) from error
        self._directory = tempfile.mkdtemp(prefix="mars-dask-")
        code = f"import sys; sys.path[:] = {sys.path!r}; from mars.engines.dask import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is the driver's to act on
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            secrets = {name: getattr(self.security, name) for name in _SECRETS}
            facts = {"cpus": list(cpus), "security": secrets, "directory": self._directory}
            # Not as arguments, which every user of the machine can read.
            self.process.stdin.write(json.dumps(facts) + "\n")
            self.process.stdin.flush()
            self.address = self.process.stdout.readline().strip()
            if not self.address.startswith("tls://"):
                said = self.address or "nothing"
                raise StartupFailed(f"the process for Dask did not start; it said: {said}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process; returns when it has ended."""
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()  # which it takes as the sign to end
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)


_SECRETS: Final = ("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key", "tls_worker_cert",
                   "tls_worker_key", "tls_client_cert", "tls_client_key")  # fmt: skip


def main() -> None:
    """The process of `OwnCluster`: serve until stdin ends, with the driver at the latest."""
    asyncio.run(_serve_own(json.loads(sys.stdin.readline())))


async def _serve_own(facts: dict[str, Any]) -> None:
    import dask
    import distributed

    # Dask has its scheduler and workers serve HTTP to anybody: it shall have nothing to serve.
    dask.config.set({"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": [],
                     "temporary-directory": facts["directory"]})  # fmt: skip
    security = distributed.Security(require_encryption=True, **facts["security"])
    where = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0",
             "protocol": "tls://", "security": security}  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(distributed.Scheduler(port=0, **where))
        for count in facts["cpus"]:
            worker = distributed.Worker(
                scheduler.address, nthreads=count, local_directory=facts["directory"], **where
            )
            await stack.enter_async_context(worker)
        print(scheduler.address, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def connect(
    address: str,
    security: object | None = None,
    environment: Mapping[str, str] | None = None,
    object_memory: int | None = None,
    spill_directory: str | None = None,
) -> ClusterEngine:
    """An engine on the Dask cluster whose scheduler is at ``address``.

    Raises
    ------
    StartupFailed
        It is not there, has no usable worker, or refuses us.
    """
    link = DaskLink(_dask_address(address, security), security)
    return ClusterEngine(link, environment, object_memory, spill_directory)


def _dask_address(address: str, security: object | None) -> str:
    """``dask://host:port`` and ``host:port`` leave open how it is spoken to."""
    scheme, found, rest = address.rpartition("://")
    if found and scheme != "dask":
        return address
    return f"{'tls' if security is not None else 'tcp'}://{rest}"


def start(
    cpus: Sequence[int],
    environment: Mapping[str, str] | None = None,
    object_memory: int | None = None,
    spill_directory: str | None = None,
) -> ClusterEngine:
    """An engine on a Dask cluster of its own, with a worker of so many cores each."""
    cluster = OwnCluster(cpus)
    link = DaskLink(cluster.address, cluster.security, cluster.close)
    return ClusterEngine(link, environment, object_memory, spill_directory)
