"""Ray as the engine under ours: an actor on each of its nodes holds a `Node`.

The actor asks Ray for the cores that our calls use there, so Ray's own tasks and actors find them
taken. Between the driver and the actor go actor calls: ``take`` brings messages, ``poll`` waits
for some. Where the driver can reach the node, it has a line of ours instead. Ray starts the actors,
authenticates, and tells when one of them or a host is lost.

Calls are no Ray tasks: their logs would be lost with a crash, C code could not be stopped
without the death of a worker that Ray blames on all, and each would cost Ray a millisecond.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from mars import platform
from mars.deploy.ray_programs import BELOW, NO_METRICS
from mars.deploy.records import is_loopback
from mars.engines.cluster import engine as cluster_engine
from mars.engines.cluster.carrier import Item, Listener, Message, next_messages
from mars.engines.cluster.ray_parts import NodeActor, pack, tls, unpack
from mars.engines.driver.engine import DriverEngine
from mars.engines.given import environment_with
from mars.engines.kinds import RAY, EngineOptions
from mars.errors import StartupFailed
from mars.settings import (
    CONNECT_S,
    JOIN_LOOK_S,
    RAY_ANSWER_S,
    RAY_COME_BACK_S,
    RAY_NOT_LOCKED_S,
    RAY_POLLS,
    RAY_REFUSALS,
    RAY_SHIP_BYTES,
    RAY_UNDER_WAY,
    STOP_S,
)

if TYPE_CHECKING:
    from mars.engines.cluster import carrier

_COME_BACK: Final = "RAY_CLIENT_RECONNECT_GRACE_PERIOD"

_TOO_SLOW: Final = "Proxy failed to Connect to backend"
"""What Ray's client server says when the process that it started for us was not there in time, as
on a busy machine: a head of `mars cluster` waits long enough, others wait 30 seconds."""


_PREFIX: Final = "mars-ray-"
"""Of directories for Rays of our own."""


class _Own:
    """The connection to Ray, of which a process has one: it ends with the last engine on it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engines = 0
        self.ours = False  # whether we called `ray.init`, not the program
        self.directory = ""  # of a Ray that we have started
        self.held = -1  # that directory, open and locked for as long as we are there

    def make_directory(self) -> str:
        """A directory for a Ray of ours, which goes with it, or with the next one if we are killed.

        The folder in it is for Ray, which lets everybody into its own.
        """
        self.directory = platform.private_directory(_PREFIX)
        self.held = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self.held, fcntl.LOCK_EX)
        remove_left(os.path.dirname(self.directory), os.fstat(self.held).st_mtime)
        return os.path.join(self.directory, BELOW)

    def end(self, ray: _Foreign) -> None:
        """End the connection, and a Ray of ours; the lock is held."""
        self.ours = False
        ray.shutdown()
        self.remove()

    def remove(self) -> None:
        """Remove what a Ray of ours has kept."""
        directory, self.directory = self.directory, ""
        if directory:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(self.held)


def remove_left(parent: str, now_s: float) -> None:
    """Remove directories in ``parent`` of programs of ours that were killed.

    ``now_s`` is the time of a directory that was made there just now.
    """
    for entry in list(os.scandir(parent)):
        if not entry.name.startswith(_PREFIX):
            continue
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError):  # it is gone, somebody else's, or in use
            descriptor = os.open(entry.path, flags)
            try:
                facts = os.fstat(descriptor)
                is_new = now_s - facts.st_mtime < RAY_NOT_LOCKED_S
                if facts.st_uid == os.geteuid() and not is_new:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(descriptor)


_own = _Own()


_Foreign = Any  # what Ray makes and has no types for: actors, references, securities


class _Held:
    """One node, as the driver holds its actor; ``place`` is where Ray listens there."""

    def __init__(
        self, name: str, node: str, actor: _Foreign, place: tuple[str, int] | None
    ) -> None:
        self.name = name
        self.node = node  # what Ray calls it
        self.met = False  # it has answered
        self.actor = actor
        self.place = place
        self.queue: deque[Item] = deque()
        self.filled = threading.Event()
        self.gone = False
        self.threads: list[threading.Thread] = []


class RayLink:
    """A Ray cluster as `mars.engines.cluster.carrier.Carrier`.

    Parameters
    ----------
    address : str
        As `ray.init` takes it; "local" starts one here, for this engine alone.
    security : object, optional
        Has ``ca_path``, ``cert_path`` and ``key_path``, of PEM files, and ``token``.
    cpus : sequence of int, optional
        Of a cluster of our own: cores of each of the nodes on it.
    beside : bool, default False
        Ask Ray for no cores, so that it starts our nodes though all are taken.
    """

    def __init__(
        self,
        address: str,
        security: _Foreign = None,
        cpus: Sequence[int] | None = None,
        *,
        beside: bool = False,
    ) -> None:
        self._beside = beside
        self.address = address
        self.own = cpus is not None
        self._security = security
        self._cpus = cpus
        self._mapped = not address.startswith("ray://")
        self._ray: _Foreign = None
        self._actor: _Foreign = None
        self._listener: Listener | None = None
        self._facts: carrier.Facts = {}
        self._held: dict[str, _Held] = {}  # by name
        self._impostors: list[_Held] = []  # no nodes; Ray may not know it yet
        self._started = 0  # so many, which makes their names unique
        self._known: set[str] = set()  # nodes of Ray that have an actor, or had one
        self._joined = False  # counted in `_own`
        self._undo = contextlib.ExitStack()
        self._closed = threading.Event()
        self._looker: threading.Thread | None = None
        self._gone = False  # Ray has ended under us: asking it takes half a minute
        self._lock = threading.Lock()

    def begin(self, listener: Listener, facts: carrier.Facts) -> Sequence[str]:
        """Connect, and have Ray start our nodes; see `Carrier`."""
        self._listener, self._facts = listener, facts
        self._undo.enter_context(environment_with(self._settings()))
        try:
            ray = self._ray = _import_ray()
            with _own.lock:
                if not ray.is_initialized():
                    self._connect(ray)
                    _own.ours = True
                _own.engines += 1
                self._joined = True
        except BaseException:
            self._undo.close()
            raise
        if self._cpus is not None:
            here = ray.get_runtime_context().get_node_id()
            for index, count in enumerate(self._cpus):
                address = f"{self.address}:{index}"
                names = facts["gpus"][index]
                self._start(address, here, float(count), "127.0.0.1", asked=0.0, names=names)
        else:
            self._start_missing()
        self._looker = threading.Thread(target=self._look, name="mars-ray-nodes", daemon=True)
        self._looker.start()
        return [name.rpartition(" ")[0] for name in list(self._held)]

    def _settings(self) -> dict[str, str]:
        """What Ray is told by variables, most of which it reads while it is imported."""
        # Without the second one Ray tries a wrong token for 20 seconds.
        variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_NUM_REDIS_GET_RETRIES": "5"}
        if self._cpus is not None:
            variables |= NO_METRICS
        if _COME_BACK not in os.environ:  # else its user has decided
            variables[_COME_BACK] = str(RAY_COME_BACK_S)
        if self._security is not None:
            return variables | {
                "RAY_AUTH_MODE": "token",
                "RAY_USE_TLS": "1",
                "RAY_TLS_SERVER_CERT": os.fspath(self._security.cert_path),
                "RAY_TLS_SERVER_KEY": os.fspath(self._security.key_path),
                "RAY_TLS_CA_CERT": os.fspath(self._security.ca_path),
                "RAY_AUTH_TOKEN": self._security.token,
            }
        return variables  # the rest as the program, or its user, has set it up

    def _connect(self, ray: _Foreign) -> None:
        if self._cpus is None:
            _check_tls(self.address, self._security)
        quiet = {"log_to_driver": False, "configure_logging": False}
        try:
            if self._cpus is None:
                self._init(ray, quiet)
            else:
                _start_on_loopback(ray, quiet)
        except StartupFailed:
            raise
        except Exception as error:  # Ray raises many kinds
            raise StartupFailed(
                f"no connection to Ray at {self.address} ({type(error).__name__}: {error}); is it "
                f"there, is this program on one of its hosts (else use ray://host:port), and does "
                f"it have the token and certificate that Ray asks for (security=)?"
            ) from error

    def _init(self, ray: _Foreign, options: dict[str, bool]) -> None:
        if self._mapped:
            options = {**options, "job_config": _without_path(ray)}
        try:
            ray.init(address=self.address, **options)
        except ConnectionAbortedError as error:
            if _TOO_SLOW not in str(error):
                raise
            ray.init(address=self.address, **options)

    def _nodes(self) -> list[_Foreign]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _start_missing(self) -> None:
        nodes = self._nodes()
        self._known &= {node["NodeID"] for node in nodes}  # the others have left
        for node in nodes:
            if node["Resources"].get("CPU", 0) >= 1 and node["NodeID"] not in self._known:
                host = node["NodeManagerAddress"]
                address = f"{host}:{node['NodeManagerPort']}"
                offer = node["Resources"]
                cpus = float(int(offer["CPU"]))
                memory = sum(int(offer.get(kind, 0)) for kind in ("memory", "object_store_memory"))
                asked = 0.0 if self._beside else cpus
                gpus = 0.0 if self._beside else float(int(offer.get("GPU", 0)))
                self._start(
                    address, node["NodeID"], cpus, host, asked=asked, memory=memory, gpus=gpus
                )

    def _start(
        self, address: str, node: str, cpus: float, host: str, asked: float, memory: int = 0,
        gpus: float = 0.0, names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._known.add(node)
        if self._actor is None:  # sent to Ray once, not for each node
            self._actor = self._ray.remote(NodeActor)
        remote = self._actor.options(
            num_cpus=asked,
            num_gpus=gpus,  # Ray then says in CUDA_VISIBLE_DEVICES which ones are ours
            max_restarts=0,  # what it knew is gone: another one is another node
            max_task_retries=0,
            max_concurrency=RAY_POLLS + 2,  # they wait, while the others are served
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        facts = {**self._facts, "memory": memory or None, "gpus": names}
        actor = remote.remote(facts, address, cpus, host, self._mapped)
        with self._lock:
            self._started += 1
            place = _place(address) if asked and _leads_to(host, self.address) else None
            held = _Held(f"{address} {self._started}", node, actor, place)
            self._held[held.name] = held
        for act in (self._knock, self._poll, self._write):
            thread = threading.Thread(target=act, args=(held,), name="mars-ray", daemon=True)
            held.threads.append(thread)
            thread.start()

    def _look(self) -> None:
        """Start our part on nodes of Ray that come later; see whether Ray is still there.

        Ray itself tries for half a minute, and then, on a host of its own, ends the program.
        """
        if self._cpus is not None:
            return
        refusals = 0
        place = _place(self.address) or _place(self._ray.get_runtime_context().gcs_address)
        while not self._closed.wait(JOIN_LOOK_S):
            refusals = refusals + 1 if _is_refused(place) else 0
            if refusals == RAY_REFUSALS:
                self._ended(f"nothing listens at {self.address} any more")
                return
            if not refusals:
                with contextlib.suppress(Exception):  # Ray's head is gone, or about to come back
                    self._start_missing()

    def _ended(self, reason: str) -> None:
        assert self._listener is not None
        with self._lock:
            if self._gone or self._closed.is_set():
                return
            self._gone = True
        self._listener.ended(reason)

    def _knock(self, held: _Held) -> None:
        """See whether a node may be one: Ray itself lists it for long before it gives it up.

        Who cannot be reached from here may be, as Ray asks each for its certificate, too.
        """
        context = self.context()
        if held.place is None or context is None:
            return
        context.set_alpn_protocols(["h2"])
        try:
            with (
                socket.create_connection(held.place, RAY_ANSWER_S) as plain,
                context.wrap_socket(plain, server_hostname=held.place[0]),
            ):
                pass
        except ssl.SSLCertVerificationError as error:
            with self._lock:
                self._impostors.append(held)
            self._lost(held, f"its certificate is not one of a node ({error.verify_message})")
            # Else `_poll` would wait until Ray gives it up, and then ask a Ray that we have left.
            with contextlib.suppress(Exception):
                self._ray.kill(held.actor)
        except OSError:
            pass

    def _poll(self, held: _Held) -> None:
        assert self._listener is not None
        came: dict[int, list[Message]] = {}
        following = 0
        try:
            polls = [held.actor.poll.remote() for _ in range(RAY_POLLS)]
            while not self._closed.is_set():
                done, polls = self._ray.wait(polls, num_returns=1)
                if held.gone:
                    return
                number, packed = self._ray.get(done[0])
                polls.append(held.actor.poll.remote())
                came[number] = unpack(packed)
                while following in came:
                    if not following:
                        held.met = True
                        self._listener.joined(held.name)
                    messages = came.pop(following)
                    following += 1
                    if messages:
                        self._listener.told(held.name, messages)
        except ConnectionError as error:  # between us and Ray's client server
            self._ended(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        except Exception as error:  # of Ray: the actor, its process or its host is gone
            if not self._closed.is_set():
                self._lost(held, f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def _write(self, held: _Held) -> None:
        number = 0
        under_way: list[_Foreign] = []
        try:
            while True:
                held.filled.wait()
                held.filled.clear()
                while held.queue:
                    batch = next_messages(held.queue, RAY_SHIP_BYTES)
                    under_way.append(held.actor.take.remote(number, pack(batch, self._mapped)))
                    number += 1
                    if len(under_way) > RAY_UNDER_WAY:
                        done, under_way = self._ray.wait(under_way, num_returns=1)
                        self._ray.get(done)
                if held.gone or self._closed.is_set():
                    return
        except Exception as error:  # of Ray, as above
            if not self._closed.is_set():
                self._lost(held, f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def _lost(self, held: _Held, reason: str) -> None:
        assert self._listener is not None
        with self._lock:
            if held.gone:
                return
            held.gone = True
            del self._held[held.name]
            # If Ray still has the node, only the way to it was cut: it is taken again. Where our
            # part did not even begin, or must not, it would not begin the next time either.
            if held.met and held not in self._impostors:
                self._known.discard(held.node)
        held.filled.set()
        self._listener.left(held.name, reason)

    def why_silent(self) -> str:
        """Whether somebody has the cores that our nodes wait for; see `Carrier`."""
        try:
            free = self._ray.available_resources().get("CPU", 0.0)
            wanted = [int(node["Resources"].get("CPU", 0)) for node in self._nodes()]
        except Exception:  # of Ray, which cannot be asked
            return ""
        if any(0 < cpus <= free for cpus in wanted):
            return ""
        return (
            "No cores are free there. On Ray a session takes all cores of each node: if another "
            "program has one, this program has to wait until that session is closed"
        )

    def send(self, node: str, item: Item) -> None:
        """Send a message to a node; see `Carrier`."""
        held = self._held.get(node)
        if held is not None and not held.gone:
            held.queue.append(item)
            held.filled.set()

    def context(self) -> ssl.SSLContext | None:
        """TLS as Ray has it; see `Carrier`."""
        return tls(ssl.Purpose.SERVER_AUTH)

    def close(self) -> None:
        """End our nodes and the connection, and a Ray of our own."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            nodes = [*self._held.values(), *self._impostors]
        if self._ray is not None and not self._gone and self._ray.is_initialized():
            ends = [held.actor.end.remote() for held in nodes if not held.gone]
            with contextlib.suppress(Exception):  # what does not answer is killed
                self._ray.get(ends, timeout=STOP_S)
            for held in nodes:
                with contextlib.suppress(Exception):
                    self._ray.kill(held.actor)
        for held in nodes:
            held.filled.set()
            for thread in held.threads:
                if thread is not threading.current_thread():
                    thread.join(STOP_S)
        if self._looker is not None:
            self._looker.join(STOP_S)
        if self._joined:
            with _own.lock:
                _own.engines -= 1
                if not _own.engines and _own.ours:
                    _own.end(self._ray)
        self._undo.close()


def _place(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None of "auto", where Ray knows them."""
    host, found, port = address.rpartition("://")[2].rpartition(":")
    return (host.strip("[]"), int(port)) if found and port.isdigit() else None


def _leads_to(host: str, address: str) -> bool:
    """Whether the host that a node names is the node's from here, by the address of its cluster.

    Who comes through a tunnel, as to a Kubernetes, may find somebody else's host there.
    """
    way = _place(address)
    return way is None or not is_loopback(way[0]) or is_loopback(host)


def _is_refused(place: tuple[str, int] | None) -> bool:
    """Whether that host says that nobody listens there; one that says nothing may come back."""
    if place is None:
        return False
    try:
        socket.create_connection(place, JOIN_LOOK_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _check_tls(address: str, security: _Foreign) -> None:
    """See whether both sides mean to use TLS, and like each other's certificates.

    Ray itself waits for minutes where they do not, and does not say why.

    Raises
    ------
    StartupFailed
        They do not, or nothing listens there.
    """
    place = _place(address)
    if place is None:
        return
    context = ssl.create_default_context()
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    if security is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(os.fspath(security.ca_path))
        context.load_cert_chain(os.fspath(security.cert_path), os.fspath(security.key_path))
    try:
        with socket.create_connection(place, CONNECT_S) as raw:
            raw.settimeout(RAY_ANSWER_S)
            with context.wrap_socket(raw) as secure, contextlib.suppress(TimeoutError):
                secure.recv(1)  # only here does the other side refuse our certificate
    except (ssl.SSLError, ConnectionResetError, TimeoutError) as error:
        if security is None:
            return  # it does not speak TLS, or wants a certificate: the next line is not reached
        raise StartupFailed(
            f"Ray at {address} does not take our certificate, or does not use TLS ({error}); "
            f"pass the security= of that cluster"
        ) from error
    except OSError as error:
        raise StartupFailed(f"nothing listens at {address} ({error}); is Ray there?") from error
    if security is None:
        raise StartupFailed(
            f"Ray at {address} uses TLS: pass its certificate and token with security=; those of a "
            f"cluster that `mars cluster` started come here by `mars cluster credentials import`"
        )


def _without_path(ray: _Foreign) -> _Foreign:
    """A job whose processes on other nodes do not import from where the program is.

    Ray puts the program's folders first in their ``sys.path``, whosever they are on a node. Calls
    import by way of `mars.engines.cluster.surroundings`, which looks.
    """

    class Nothing(list[str]):
        def extend(self, _: object) -> None:
            pass

    config = ray.job_config.JobConfig()
    config._py_driver_sys_path = Nothing()
    return config


def _start_on_loopback(ray: _Foreign, options: dict[str, bool]) -> None:
    """Start a Ray that listens on the loopback address only, as it does on Windows and macOS.

    Elsewhere it takes the address of the way out for its own, and replaces 127.0.0.1 by that.
    """
    from ray._private import ray_constants

    # Not by its variable, which is read once, and would hold for clusters that are met later.
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    directory = _own.make_directory()
    try:
        ray.init(
            address="local", include_dashboard=False, _node_ip_address="127.0.0.1",
            _temp_dir=directory, **options,
        )  # fmt: skip
    except BaseException:
        _own.remove()
        raise
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if addresses != {"127.0.0.1"}:
        _own.end(ray)
        raise StartupFailed(
            f"ray {ray.__version__} does not keep to the loopback address, it took "
            f"{', '.join(addresses)}; use engine='dask', or start Ray yourself and pass its address"
        )


def _protect_own() -> None:
    """Have Ray ask for a token, that of this program: every user of the machine reaches loopback.

    It reads these variables once in a process, while it is imported, so they stay as they are.
    """
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _import_ray() -> _Foreign:
    try:
        import ray
    except ImportError as error:
        raise StartupFailed(
            "the Ray engine needs the package ray; install it with: pip install 'mars-remote[ray]'"
        ) from error
    return ray


def is_connected() -> bool:
    """Whether this process is connected to a Ray, by us or by the program."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def connect(address: str, options: EngineOptions) -> DriverEngine:
    """An engine on a Ray cluster: ``ray://host:port``, ``host:port`` of its head, or ``ray``.

    Raises
    ------
    StartupFailed
        It is not there, has no usable node, or refuses us.
    """
    where = "auto" if address == RAY.here else address
    link = RayLink(where, options.security, beside=options.beside)
    return cluster_engine.start(link, options)


def start(name: str, options: EngineOptions) -> DriverEngine:
    """An engine on a Ray of its own, which has a node for each group of cores."""
    _protect_own()
    link = RayLink(name, None, options.cores)
    return cluster_engine.start(link, options)
