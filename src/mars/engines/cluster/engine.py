"""What the engine needs on a cluster: its workers are on the nodes of a foreign engine.

The foreign engine starts our part on its nodes, connects it with the driver, encrypts and
authenticates, and notices what is lost; see `mars.engines.cluster.carrier`. All that a call means,
such as chains, retries, timeouts and nested calls, is the same as on one machine, and stands in
`mars.engines.driver`. `start` gives the engine; adapters of foreign engines call it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from mars import platform
from mars.attempt.setting import import_path
from mars.engines.cluster import carrier, folder
from mars.engines.cluster.carrier import Carrier
from mars.engines.cluster.line import Line, reach
from mars.engines.cluster.mirrors import Mirrors
from mars.engines.cluster.nodes import Nodes
from mars.engines.cluster.remote_node import RemoteNode
from mars.engines.cluster.surroundings import (
    Surroundings,
    Whereabouts,
    installed_entries,
    whereabouts,
)
from mars.engines.cluster.workers import NodeWorkers
from mars.engines.driver.engine import DriverEngine, Groups
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.store import Store
from mars.engines.given import Given
from mars.engines.kinds import EngineOptions
from mars.engines.local.launch import as_started
from mars.errors import ClusterUnreachable, StartupFailed
from mars.observe.progress import write_line
from mars.observe.silence import RunningCall
from mars.settings import (
    DIRECT_S,
    FAR_PREFETCH_BELOW_S,
    NODES_SILENT_S,
    NODES_SILENT_TIMES,
    NODES_START_S,
    PACKAGES_S,
    REFUSED_NODES_KEPT,
    SPARE_DESCRIPTORS,
    STACK_ANSWER_S,
    USAGE_ANSWER_S,
    USAGE_EVERY_S,
)
from mars.task import Call, Function

if TYPE_CHECKING:
    from mars.attempt import followed
    from mars.engines.wire.messages import Facts
    from mars.observe.observation import WorkerFacts

_MORE_CORES = "new_session(n_cpu=...) with more"
"""What to do about a call that asks for more cores, on a cluster that the program has started."""

_MEMORY_OF_A_NODE = 1 << 60
"""No limit for all nodes together: each says what calls may take there."""


class _Asked:
    """Nodes that were asked for packages and have not answered yet, and what to tell."""

    def __init__(self) -> None:
        self.waiting: set[RemoteNode] = set()
        self.lines: list[str] = []


def start(link: Carrier, options: EngineOptions | None = None) -> DriverEngine:
    """Start an engine with workers on the nodes of a foreign engine.

    Parameters
    ----------
    link : Carrier
        The foreign engine.
    options : EngineOptions, optional
        What the engine is started with. Limits of memory hold for this process and each node.

    Raises
    ------
    StartupFailed
        The cluster is not there, has no usable node, or refuses us.
    UsageError
        ``working_dir`` is too large, or cannot be read.
    """
    options = options or EngineOptions()
    cluster = Cluster(link, Given(options.env, options.working_dir, options.storage))
    try:
        groups = cluster.wait_for_nodes(options)
        engine = DriverEngine(link.address, cluster, groups, options)
    except BaseException:
        link.close()
        cluster.close()
        raise
    cluster.take_late_nodes()
    return engine


class Cluster:
    """The `Site` of an engine whose workers are on nodes; and the carrier's `Listener`.

    Parameters
    ----------
    link : Carrier
        The foreign engine.
    given : Given
        What calls have besides what the program has.
    """

    def __init__(self, link: Carrier, given: Given) -> None:
        self._link = link
        self._given = given
        self.known_as: str | None = None
        # Given the host of a node that was lost, and the reason as far as known: a better reason.
        # It may take some seconds.
        self.why_lost: Callable[[str, str], str] | None = None
        self.fate: Callable[[], str] = str  # why the cluster ended, of who started it; "": unknown
        self.memory_bytes = _MEMORY_OF_A_NODE
        self.engine: DriverEngine
        self._folder = -1
        self._installed = installed_entries(import_path())
        self._packages = carrier.packages_here()
        self._nodes: dict[str, RemoteNode] = {}
        self._first: list[RemoteNode] = []  # those that the engine begins with
        self.nodes = Nodes(self._nodes_changed)
        answers: dict[str, Callable[..., object]] = {
            carrier.LACK: self._lacks, carrier.APART: self._stays_apart, carrier.STACK: self._says,
            carrier.USAGE: self._uses,
        }  # fmt: skip
        self.workers = NodeWorkers(link, self.nodes, answers)
        self._looked_at: weakref.WeakSet[Function] = weakref.WeakSet()  # for what they need
        self._where = self._whereabouts(here_too=given.working_dir is None)
        self._apart: set[str] = set()  # where nodes do not follow the program, as was told
        self._needed: dict[str, str] = {}  # packages, and a function that needs each
        self._questions = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._stacks: dict[int, Sequence[str] | None] = {}  # by question; None: not answered yet
        self._usage: dict[int, tuple[float, float, int]] = {}  # by worker, as nodes told it last
        self._usage_asked = 0.0  # when
        self._usage_missing: set[int] = set()  # questions that are not answered yet
        self.refused: list[str] = []
        self.silent: list[str] = []
        self._heard: set[str] = set()  # addresses of nodes that have answered
        self._known: set[str] = set()  # and of those that were met or refused
        self._met_at = 0.0  # the first of them
        self._greeted = threading.Condition()
        self._begun = False
        self._ended = False
        self._over = False  # the cluster has ended before we began
        self._key = os.urandom(32)  # by which driver and nodes know each other
        self._reaching: dict[str, threading.Thread] = {}  # nodes that we try to reach directly
        self._probe = platform.memory_file("probe")  # for nodes to see whether they can open it

    def wait_for_nodes(self, options: EngineOptions) -> list[tuple[str, float]]:
        """Have the foreign engine start our nodes; address and cores of those that answer."""
        facts = {
            "file": platform.file_address(self._probe),
            "key": self._key,
            "ports": options.node_ports,
            "started": as_started(),
            "object_memory": options.object_memory,
            "spill_directory": options.spill_directory,
            "memory": None,
            "gpus": options.gpus_of_groups() if self._link.own else None,
            "packages": self._packages,
            "whereabouts": self._where,
        }
        if options.working_dir is not None:
            self._folder = folder.pack(options.working_dir)
        self._first = self._wait_for_nodes(self._link.begin(self, facts))
        return [(node.address, node.cpus) for node in self._first]

    def take_late_nodes(self) -> None:
        """The engine runs: it may have nodes that came meanwhile, and lose those that left."""
        with self._greeted:
            self._begun = True
            late = [one for one in self._nodes.values() if one not in self._first and one.alive]
        for node in late:
            self._join(node)
        for node in self._first:
            if not node.alive:
                self._lose(node, node.reason)

    def _join(self, node: RemoteNode) -> None:
        self.engine.loop.post(lambda: self.nodes.join(node))

    def _wait_for_nodes(self, expected: Sequence[str]) -> list[RemoteNode]:
        """Begin with the nodes that answer; the others are taken when they come."""
        begun = time.monotonic()
        with self._greeted:
            while True:
                there = [node for node in self._nodes.values() if node.alive]
                missing = [address for address in expected if address not in self._known]
                if self._over or ((there or self.refused) and not missing):
                    break
                until = begun + NODES_START_S
                if there:
                    wait_s = NODES_SILENT_TIMES * (self._met_at - begun)
                    until = begun + max(NODES_SILENT_S, wait_s)
                    if any(address in self._heard for address in missing):
                        until += 2 * DIRECT_S  # the driver is trying to reach them
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._greeted.wait(left)
            if there:
                self.silent = missing
        for refusal in self.refused if there else ():
            write_line(f"mars: {refusal}")
        for address in self.silent:
            write_line(
                f"mars: node {address} has not answered within {time.monotonic() - begun:.1f} s; "
                f"the session begins without it, and takes it when it comes"
            )
        if there:
            return there
        if self.refused:
            raise StartupFailed("\n".join(self.refused))
        if expected:
            why = self._link.why_silent()
            raise StartupFailed(
                f"of the cluster at {self._link.address} no node answered within "
                f"{NODES_START_S:g} s: {', '.join(expected[:REFUSED_NODES_KEPT])}"
                + (f". {why}" if why else "")
            )
        raise StartupFailed(
            f"the cluster at {self._link.address} has no worker; none came within "
            f"{NODES_START_S:g} s. Have a host join it: if it is one of `mars cluster`, then "
            f"`mars cluster join ADDRESS`, which may run on this host, too; "
            f"`mars cluster status` shows the address"
        )

    # -- what the carrier tells; in a thread of its own ----------------------------------------

    def joined(self, node: str) -> None:
        """A node is there; it says what it is next."""
        with self._greeted:
            self._heard.add(_address_in(node))
            self._greeted.notify_all()

    def failed(self, address: str, reason: str) -> None:
        """Our part cannot be started on a node."""
        self._refuse_node(address, f"node {address} cannot be used: {reason}")

    def _refuse_node(self, address: str, why: str) -> None:
        with self._greeted:
            self._known.add(address)
            self._refuse(why)
        if self._begun:
            write_line(f"mars: {why}")

    def told(self, node: str, messages: Sequence[carrier.Message]) -> None:
        """Messages of a node."""
        known = self._nodes.get(node)
        if known is None:
            if messages[0][0] != carrier.HELLO:
                return  # it was refused
            self._meet(node, messages[0][1])  # it says no more until it has heard of us
        elif messages and known.alive:
            self.workers.take_from(known, messages)

    def _meet(self, name: str, facts: carrier.Facts) -> None:
        refusal = carrier.refusal(facts)
        if refusal:
            self._refuse_node(facts["address"], refusal)
            return
        for line in carrier.differences(facts, self._packages):
            write_line(f"mars: {line}")
        self._tell_apart(f"node {facts['address']}", facts["not_followed"])
        # In a thread of its own, as the other nodes shall not wait for one that does not answer.
        thread = threading.Thread(
            target=self._greet, args=(name, facts), name="mars-reach", daemon=True
        )
        with self._greeted:
            if self._ended:
                return
            self._reaching[name] = thread
            try:
                thread.start()
                return
            except RuntimeError:  # the system refuses one
                pass
        self._greet(name, {**facts, "door": None})

    def _refuse(self, why: str) -> None:
        """A node cannot be used; the lock is held."""
        self.refused.append(why)
        del self.refused[:-REFUSED_NODES_KEPT]
        self._greeted.notify_all()

    def _reach(self, name: str, facts: carrier.Facts) -> Line | None:
        if facts["door"] is None:
            return None
        try:
            sending, receiving = reach(facts["door"], self._key, self._link.context())
        except OSError:  # we are outside of the cluster's network, most likely
            return None
        platform.have_descriptors(receiving.fileno(), SPARE_DESCRIPTORS)
        return Line(
            sending,
            receiving,
            lambda messages: self.told(name, messages),
            lambda number, _, offset, data: self.nodes.mirrors.write(number, offset, data),
            lambda reason: self.left(name, reason),
        )

    def _greet(self, name: str, facts: carrier.Facts) -> None:
        line = self._reach(name, facts)
        with self._greeted:
            if self._ended or self._reaching.pop(name, None) is None:  # it has left meanwhile
                if line is not None:
                    line.forget()
                return
            node = RemoteNode(name, len(self._nodes), facts, self._link)
            node.begin(line)
            if self._folder >= 0:
                node.give_folder(self._folder)
            # Each of several nodes on one host may have found all that are there.
            beside = [
                other
                for other in self._nodes.values()
                if other.alive and other.facts["host"] == node.facts["host"]
            ]
            taken = {one for other in beside for one in other.gpus}
            node.gpus = tuple([one for one in node.gpus if one not in taken])
            self._nodes[name] = node
            self._known.add(node.address)
            self._met_at = self._met_at or time.monotonic()
            begun = self._begun
            missed = node.address in self.silent
            if missed:
                self.silent.remove(node.address)
            self._greeted.notify_all()
            if self._needed:
                list(self._ask(0, [node], self._needed))
            if begun:  # the program may have gone elsewhere since
                node.tell(carrier.WHERE, self._where)
        if missed:
            write_line(f"mars: node {node.title} is there now, and takes part")
        if begun:
            self._join(node)

    def left(self, node: str, reason: str) -> None:
        """A node is lost."""
        with self._greeted:
            self._reaching.pop(node, None)
            known = self._nodes.get(node)
            if known is None:
                # Refused, or lost before it was met; or told twice, by its line and by Dask or Ray.
                if not self._begun:
                    self._known.add(_address_in(node))
                    self._refuse(
                        f"node {_address_in(node)} was lost before it could be used: {reason}"
                    )
                return
            if known.lost or self._ended:
                return  # its line and the foreign engine both tell; or we are ending it
            known.lost = True
            if not self._begun:
                known.alive, known.reason = False, reason
                return
        why_lost = self.why_lost
        if why_lost is None:
            self._lose(known, reason)
            return

        def ask() -> None:
            told = why_lost(known.facts["host"], reason)
            if not self._ended:
                self._lose(known, told)

        try:
            threading.Thread(target=ask, name="mars-why-lost", daemon=True).start()
        except RuntimeError:  # the system refuses one
            self._lose(known, reason)

    def ended(self, reason: str) -> None:
        """The cluster is gone: nothing runs any more, and what has come can still be read."""
        with self._greeted:
            if not self._begun:
                self._refuse(f"the cluster at {self._link.address} ended: {reason}")
                self._over = True
                return
        error = ClusterUnreachable(
            f"the cluster at {self._link.address} is gone ({self.fate() or reason}); what was "
            f"finished can still be fetched; start the cluster again, as with `mars cluster up`, "
            f"and execute() in a new session"
        )
        self.engine.loop.post(lambda: self.nodes.end(error))

    def _lose(self, node: RemoteNode, reason: str) -> None:
        node.alive = True  # for the loop to change
        self.engine.loop.post(lambda: self.nodes.leave(node, reason))

    def _nodes_changed(self) -> None:
        """In the loop's thread: what can be asked for is otherwise now."""
        self._set_groups(self.nodes.shipping.nodes)
        with self._greeted:
            there = self._nodes.items()
            self._nodes = {name: node for name, node in there if node.alive and not node.lost}

    # -- packages that calls need ---------------------------------------------------------------

    def look_at(self, calls: Sequence[Call]) -> None:
        """Tell of packages that calls need and nodes lack, before calls are sent.

        Each function is looked at once, and each node asked once for each package.
        """
        new: dict[str, str] = {}
        last = None
        for call in calls:
            function = call.function
            if function is last or function in self._looked_at:
                continue
            last = function
            self._looked_at.add(function)
            for name in function.packages():
                if name not in self._needed:
                    new.setdefault(name, function.name)
        if not new:
            return
        with self._greeted:
            self._needed.update(new)
            question = next(self._questions)
            nodes = [node for node in self._nodes.values() if node.alive and not node.lost]
            asked = self._asked[question] = _Asked()
            asked.waiting.update(self._ask(question, nodes, new))
            self._greeted.wait_for(
                lambda: not any(node.alive and not node.lost for node in asked.waiting),
                PACKAGES_S,
            )
            del self._asked[question]  # what comes now is told at once
        for line in asked.lines:
            write_line(line)

    def _ask(
        self, question: int, nodes: Sequence[RemoteNode], packages: Mapping[str, str]
    ) -> Iterator[RemoteNode]:
        """Ask nodes whether they have packages, if that is not known; those that were asked."""
        for node in nodes:
            has = node.facts["packages"]
            unknown = [name for name in packages if not has.get(name)]
            if unknown:
                node.tell(carrier.NEED, question, unknown, import_path())
                yield node

    def _lacks(self, node: RemoteNode, question: int, packages: Sequence[str]) -> None:
        needed = {name: self._needed[name] for name in packages}
        line = needed and f"mars: {carrier.line_about_missing(node.title, needed, self._packages)}"
        with self._greeted:
            asked = self._asked.get(question)
            if asked is not None:
                asked.waiting.discard(node)
                if line:
                    asked.lines.append(line)
                self._greeted.notify_all()
                return
        if line:
            write_line(line)

    # -- what differs from one machine, see `mars.engines.driver.engine.Site` ------------------

    def new_store(
        self, wake: Callable[[Callable[[], object]], object], budget_bytes: int, directory: str
    ) -> Store:
        """What keeps the large values; with mirrors of the arenas on nodes."""
        mirrors = self.nodes.mirrors = Mirrors(self.nodes.shipping.nodes, directory)
        mirrors.store = Store(wake, budget_bytes, directory, mirrors)
        return mirrors.store

    def new_workers(self, facts: Facts, store: Store) -> NodeWorkers:
        """The worker processes; nodes know the facts themselves."""
        return self.workers

    def new_scheduler(
        self, groups: Sequence[tuple[str, float]], room: Callable[[], float]
    ) -> Scheduler:
        """What decides, with regard to where the inputs of a call are."""
        return Scheduler(groups, room, self.nodes.shipping.distance, FAR_PREFETCH_BELOW_S)

    def begin(self, engine: DriverEngine) -> None:
        """The engine is there, and its loop is about to start."""
        self.engine = engine
        self.nodes.start_on(self._first)
        self._set_groups(self._first)

    def _set_groups(self, nodes: Sequence[RemoteNode]) -> None:
        self.engine.groups = Groups(
            [(node.address, node.cpus, node.memory) for node in nodes],
            [node.gpus for node in nodes],
        )

    def as_told(
        self,
        path: list[str],
        here: str,
        variables: dict[bytes, bytes | None],
        settings: dict[str, object],
    ) -> followed.Surroundings:
        """What calls are told of the program; each node finds its own import path for it."""
        told = None if self._folder >= 0 else here
        where = whereabouts(path, self._installed, told or None, variables)
        if where != self._where:
            with self._greeted:
                self._where = where
                nodes = [node for node in self._nodes.values() if node.alive and not node.lost]
            for node in nodes:
                node.tell(carrier.WHERE, where)
        given = self._given
        around = Surroundings(
            path, self._installed, told, variables, given.settings(settings), given.variables({})
        )
        return cast("followed.Surroundings", around)  # which is what its pickle reads as there

    def _whereabouts(self, here_too: bool) -> Whereabouts:
        try:
            here = os.getcwd() if here_too else None
        except OSError:  # somebody removed the folder
            here = None
        return whereabouts(import_path(), self._installed, here, {})

    def _stays_apart(self, node: RemoteNode, lines: Sequence[str]) -> None:
        """A node does not follow the program to where it has gone meanwhile."""
        self._tell_apart(f"node {node.title}", lines)

    def _tell_apart(self, node: str, lines: Sequence[str]) -> None:
        """Say where nodes do not follow the program: of many that do the same, the first one."""
        with self._greeted:
            new = [line for line in lines if line not in self._apart]
            self._apart.update(new)
        for line in new:
            write_line(f"mars: {node} {line}")

    def ending(self) -> None:
        """The engine is about to end: nodes that leave from here on are not lost."""
        self._ended = True

    def close(self) -> None:
        """End the lines, and close our files; idempotent."""
        with contextlib.ExitStack() as ending:  # from the last line to the first, whatever fails
            ending.callback(self._close_files)
            ending.callback(self._hang_up)

    def _hang_up(self) -> None:
        """End the lines; by now the nodes have ended."""
        with self._greeted:
            self._ended = True
            reaching = [one for one in self._reaching.values() if one.ident is not None]
        for thread in reaching:
            thread.join()
        for node in self._nodes.values():
            if node.line is not None:
                node.line.close()

    def inert(self) -> None:
        """In a process forked from the engine's: let go, touch nothing."""
        for node in self._nodes.values():
            if node.line is not None:
                node.line.forget()
        self._close_files()

    def _close_files(self) -> None:
        with self._greeted:
            for descriptor in (self._probe, self._folder):
                if descriptor >= 0:
                    os.close(descriptor)
            self._probe = self._folder = -1

    def more_cores(self) -> str:
        """What to do about a call that asks for more cores than there are."""
        return _MORE_CORES if self._link.own else "let a node with more cores join"

    def find_gpus(self) -> Sequence[Sequence[str]]:
        """Not asked: each node says what it has as it comes."""
        return []

    def more_gpus(self) -> str:
        """What to do about a call that asks for more GPUs than there are."""
        return (
            "nodes tell by MARS_GPUS, by what Dask (resources GPU) or Ray (num_gpus) offers there, "
            "by CUDA_VISIBLE_DEVICES, or by NVML (nvidia-ml-py); see docs/gpus.md"
        )

    def is_stopped(self, pid: int) -> bool:
        """Not known: the number is of a process elsewhere."""
        return False

    def usage(self, workers: Sequence[WorkerFacts]) -> Mapping[int, tuple[float, float, int]]:
        """What workers use, as nodes have told it last; they are asked for the next time."""
        now = time.monotonic()
        with self._greeted:
            if now - self._usage_asked > USAGE_EVERY_S:
                self._usage_asked = now
                nodes = [one for one in self._nodes.values() if one.alive and not one.lost]
                asked = {next(self._questions): node for node in nodes}
                self._usage_missing = set(asked)
                for question, node in asked.items():
                    node.tell(carrier.ASK_USAGE, question)
                if not self._usage:  # who looks once shall see something
                    self._greeted.wait_for(lambda: not self._usage_missing, USAGE_ANSWER_S)
            there = {one.number for one in workers}
            self._usage = {one: found for one, found in self._usage.items() if one in there}
            return self._usage.copy()

    def _uses(
        self, node: RemoteNode, question: int, told: Mapping[int, tuple[float, float, int]]
    ) -> None:
        """What the workers of a node use."""
        with self._greeted:
            self._usage.update(told)
            self._usage_missing.discard(question)
            self._greeted.notify_all()

    def stack(self, worker: int, pid: int) -> Sequence[str] | None:
        """What a worker does now; its node is asked, and looks from outside as we do here."""
        process = self.workers.processes.get(worker)
        if process is None:
            return None
        with self._greeted:
            question = next(self._questions)
            self._stacks[question] = None
            process.node.tell(carrier.ASK_STACK, question, worker)
            self._greeted.wait_for(
                lambda: self._stacks[question] is not None or not process.node.alive,
                STACK_ANSWER_S + PACKAGES_S,
            )
            return self._stacks.pop(question)

    def _says(self, node: RemoteNode, question: int, lines: Sequence[str]) -> None:
        """What a node says of one of its workers."""
        with self._greeted:
            if question in self._stacks:
                self._stacks[question] = lines
                self._greeted.notify_all()

    def how_to_look(self, call: RunningCall, several: bool) -> tuple[str, str]:
        """On which node a call runs, and what shows where it is; see `Silence`."""
        process = self.workers.processes.get(call.worker)
        node = None if process is None else process.node
        if node is None or node.kept:  # its processes are those of this machine
            return "", '"mars stack"' if several else f'"mars stack {call.pid}"'
        on = f" on node {node.title}"
        if self.known_as is not None:
            return on, f'"mars stack {self.known_as}"'
        return on, f'"mars stack{"" if several else f" {call.pid}"}" on {node.facts["host"]}'


def _address_in(node: str) -> str:
    """The address in the name that the carrier has for a node: others may follow on it."""
    return node.rpartition(" ")[0] or node
