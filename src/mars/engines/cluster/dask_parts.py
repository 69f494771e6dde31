"""Our parts in processes of Dask: the relay in its scheduler, a node in each of its workers.

What goes between them and the driver is bytes to the relay. Large parts of messages travel beside
the pickle that speaks of them, so they are copied as seldom as Dask allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from mars._version import __version__
from mars.deploy.dask_scheduler import guard, peer_may_serve
from mars.engines.cluster.carrier import Message
from mars.engines.cluster.line import host_of
from mars.engines.cluster.node import Node
from mars.errors import StartupFailed
from mars.settings import CONNECT_S, JOIN_LOOK_S, RELAY_BYTES, SHIP_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from mars.engines.cluster import carrier

RELAY: Final = "mars-relay"
DRIVER_OP: Final = "mars_driver"
NODE_OP: Final = "mars_node"


_Foreign = Any
"""What Dask makes and has no types for: its comms, schedulers, workers, frames and plugins."""


def pack(messages: Sequence[Message]) -> tuple[int, list[object]]:
    """Messages as Dask carries them, large parts uncopied beside a pickle, and their size."""
    from distributed.protocol import to_serialize

    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(messages, 5, buffer_callback=buffers.append)
    parts = [to_serialize(buffer.raw()) for buffer in buffers]
    return len(head) + sum(buffer.raw().nbytes for buffer in buffers), [head, *parts]


def unpack(packed: Sequence[_Foreign]) -> list[Message]:
    """What `pack` was given."""
    head, *buffers = packed
    return pickle.loads(head, buffers=buffers)  # type: ignore[no-any-return]


def _packed_size(packed: Sequence[_Foreign]) -> int:
    """In the scheduler, which leaves the large parts as they came."""
    head, *parts = packed
    return len(head) + sum(memoryview(one).nbytes for part in parts for one in part.frames)


class _Pipe:
    """Sends through one connection of Dask what many have to say, in order; in its event loop.

    What is queued together is sent together: a message of its own costs Dask some 0.1 ms.
    """

    def __init__(self, comm: _Foreign) -> None:
        self.comm = comm
        self._queue: deque[tuple[int, object]] = deque()
        self._queued = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._bytes = 0
        self._task = asyncio.ensure_future(self._write())

    def put(self, item: object, size: int) -> None:
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
        except Exception:  # such as no memory: nobody may wait for what does not come
            self._room.set()
            self.comm.abort()

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
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self, work: Coroutine[object, object, object]) -> None:
        """Do something for this driver as long as it is there."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def has(self, address: str) -> bool:
        """Whether a worker has a node for it."""
        return any(name.rpartition(" ")[0] == address for name in self.nodes)


class Relay:
    """The plugin of Dask's scheduler: passes on bytes, and looks at none of them."""

    name = RELAY
    idempotent = True

    def __init__(self) -> None:
        self._drivers: dict[str, _Driver] = {}
        self._count = 0
        self._scheduler: _Foreign = None

    async def start(self, scheduler: _Foreign) -> None:
        """Take connections of drivers and nodes."""
        self._scheduler = scheduler
        guard(scheduler)  # also one that others have started
        scheduler.handlers[DRIVER_OP] = self.serve_driver
        scheduler.handlers[NODE_OP] = self.serve_node

    def remove_worker(self, scheduler: _Foreign, worker: str, **_: object) -> None:
        """Dask has given up a worker, such as one that has been stopped: so do we its nodes."""
        for driver in self._drivers.values():
            for name, pipe in driver.nodes.items():
                if name.startswith(f"{worker} "):
                    pipe.comm.abort()

    async def serve_driver(self, comm: _Foreign, key: str, plugin: bytes) -> _Foreign:
        """A driver's connection, until it ends; with it end its nodes."""
        from distributed.core import Status

        if key in self._drivers:  # each has its own: this one wants another's nodes
            await comm.close()
            return Status.dont_reply
        pipe = _Pipe(comm)
        driver = self._drivers[key] = _Driver(pipe)
        pipe.put(("version", __version__), 0)
        # Dask gives it to workers that come later. Those that are there get it from us, each by
        # itself: Dask itself gives up on all if one of them does not answer.
        self._scheduler.worker_plugins[plugin_name(key)] = plugin
        for address in list(self._scheduler.workers):
            driver.start(self._begin_node(driver, address, key, plugin))
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
            driver.stop()
            for node_pipe in list(driver.nodes.values()):
                await node_pipe.close()
            await pipe.close()
            await self._forget_plugin(key)
        return Status.dont_reply

    async def _begin_node(self, driver: _Driver, address: str, key: str, plugin: bytes) -> None:
        """Have a worker start our part; one that cannot be reached is asked again."""
        message = {"op": "plugin-add", "plugin": plugin, "name": plugin_name(key)}
        while address in self._scheduler.workers and not driver.has(address):
            try:
                told = await self._scheduler.broadcast(msg=message, workers=[address])
            except OSError:
                await asyncio.sleep(JOIN_LOOK_S)
                continue
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                answer = told[address]
                if answer["status"] != "error":
                    return
                reason = str(answer.get("exception_text") or answer.get("text") or answer)
            if "Import" in reason or "ModuleNotFound" in reason or "Attribute" in reason:
                reason += f"; mars {__version__} and what it needs have to be installed there"
            driver.pipe.put(("failed", address, reason), 0)
            return

    async def _forget_plugin(self, key: str) -> None:
        """Workers that come later have nobody to serve, and those that are there no more."""
        name = plugin_name(key)
        if self._scheduler.worker_plugins.pop(name, None) is None:
            return  # the driver has done so
        message = {"op": "plugin-remove", "name": name}
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(
                self._scheduler.broadcast(msg=message, on_error="ignore"), CONNECT_S
            )

    async def serve_node(self, comm: _Foreign, key: str, address: str) -> _Foreign:
        """A node's connection, until it ends."""
        from distributed.core import Status

        driver = self._drivers.get(key)
        if driver is None or not peer_may_serve(comm):
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


def plugin_name(key: str) -> str:
    """What Dask calls the worker plugin of a driver."""
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

    def __init__(self, key: str, facts: carrier.Facts) -> None:
        self._key, self._facts = key, facts
        self.name = plugin_name(key)
        self._node: Node | None = None
        self._pipe: _Pipe | None = None
        self._task: asyncio.Task[object] | None = None

    def __getstate__(self) -> tuple[object, ...]:
        return self._key, self._facts

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    async def setup(self, worker: _Foreign) -> None:
        """Connect with the scheduler, which relays, and start the node."""
        from distributed.comm import connect

        comm = await connect(worker.scheduler.address, **worker.connection_args)
        await comm.write(
            {"op": NODE_OP, "key": self._key, "address": worker.address, "reply": False}
        )
        self._pipe = _Pipe(comm)
        try:
            self._node = self._start(worker, self._pipe)
        except BaseException:
            await self._pipe.close()
            raise
        self._task = asyncio.ensure_future(self._serve(self._node, self._pipe))

    def _start(self, worker: _Foreign, pipe: _Pipe) -> Node:
        loop = asyncio.get_running_loop()

        def tell(messages: Sequence[Message]) -> None:
            size, data = pack(messages)
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(pipe.put, data, size)

        facts = {
            **self._facts,
            "directory": worker.local_directory,
            "memory": worker.memory_manager.memory_limit,
            "gpu_count": worker.state.total_resources.get("GPU"),
        }
        if facts["gpus"] is not None:  # the cluster is the program's own, which numbers its workers
            facts["gpus"] = facts["gpus"][worker.name]
        contexts = [None, None]
        if worker.address.startswith("tls://"):
            security = worker.security
            both = security.get_listen_args("worker"), security.get_connection_args("worker")
            contexts = [arguments["ssl_context"] for arguments in both]
        cpus = float(worker.state.nthreads)
        return Node(tell, facts, worker.address, cpus, host_of(worker.address), *contexts)

    async def _serve(self, node: Node, pipe: _Pipe) -> None:
        try:
            while True:
                for data in await pipe.comm.read():
                    node.take(unpack(data))
        except OSError:
            pass  # the driver has ended, or cannot be reached: nobody hears of what we do
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._node is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._node.close)
        if self._pipe is not None:
            await self._pipe.close()

    async def teardown(self, worker: _Foreign) -> None:
        """End the node and its processes."""
        await self._end()


def as_plugin(base: type, plugin: _Foreign) -> _Foreign:
    """A plugin as Dask wants it; ours do not inherit, or importing mars would import Dask."""
    cls = type(plugin)
    made: _Foreign = object.__new__(_plugin_class(base, cls))
    made.__dict__.update(plugin.__dict__)
    return made


def _plugin_class(base: type, cls: type) -> type:
    return type(cls.__name__, (cls, base), {"__reduce__": _reduce_plugin})


def _reduce_plugin(plugin: _Foreign) -> tuple[object, ...]:
    if isinstance(plugin, Relay):
        return _new_relay, ()
    return _new_node_plugin, plugin.__getstate__()


def _new_relay() -> _Foreign:
    return as_plugin(import_distributed().SchedulerPlugin, Relay())


def _new_node_plugin(key: str, facts: carrier.Facts) -> _Foreign:
    return as_plugin(import_distributed().WorkerPlugin, NodePlugin(key, facts))


def import_distributed() -> _Foreign:
    """Dask's package, imported when somebody wants it.

    Raises
    ------
    StartupFailed
        It is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise StartupFailed(
            "the Dask engine needs Dask's package distributed; "
            "install it with: pip install 'mars-remote[dask]'"
        ) from error
    return distributed
