"""Worker processes on nodes, as the loop reaches them.

`NodeWorkers` fulfils the same port as the workers of one machine; the port stands in
`mars.engines.driver.workers`. What the loop sends to a worker goes to its node. What nodes say
comes in here: about processes it is for the loop, about values and other nodes for `nodes`.
"""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from mars import platform
from mars.engines.cluster import carrier
from mars.engines.cluster.carrier import Carrier
from mars.engines.cluster.logs import WorkerLog
from mars.engines.cluster.nodes import Nodes
from mars.engines.cluster.remote_node import RemoteNode
from mars.engines.cluster.shipping import has
from mars.engines.driver.workers import Driver, GroupLost
from mars.engines.local.process import Watch
from mars.engines.local.workers import Ended
from mars.engines.wire import messages
from mars.engines.wire.messages import Order, ToWorker
from mars.engines.wire.regions import OWNER_SHIFT
from mars.task import Stored


class NodeProcess:
    """A worker process on a node."""

    def __init__(self, number: int, node: RemoteNode) -> None:
        self.number = number
        self.node = node
        self.pid = 0
        self.segment: WorkerLog = node.logs.begin()
        self.descriptors: list[int] = []  # none comes with a message
        self.arenas: set[int] = set()
        self.deaf = self.missed = self.leaving = False
        self.broken = ""
        self._running = (0, 0)

    @property
    def where(self) -> str:
        """The node that it runs on."""
        return self.node.title

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"{self.number} (pid {self.pid}) on node {self.node.title}"

    def send(self, message: ToWorker) -> None:
        """Send a message, after those before it."""
        if not self.deaf:
            self.node.tell(carrier.DATA, self.number, False, pickle.dumps(message, 5))

    def order(self, message: Order) -> None:
        """Send a message that a running call does not hold up."""
        self.node.tell(carrier.CONTROL, self.number, pickle.dumps(message, 5))

    def lend(self, value: Stored, arena: tuple[int, int]) -> None:
        """Make sure that it can map a value, whose arena is here that descriptor and size."""
        number = value[1]
        node = self.node
        try:
            if not has(node, value):
                node.ship(value, arena)
            if number not in self.arenas:
                self.arenas.add(number)
                address = None
                if node.reads and number >> OWNER_SHIFT not in node.workers:
                    address = platform.file_address(arena[0])
                    node.arenas.add(number)
                node.tell(carrier.LEND, self.number, number, arena[1], address)
        except OSError:  # the value cannot be read here: the worker does not get what it was to get
            self.missed = True
            self.kill()

    def printed(self, data: bytes, running: tuple[int, int]) -> OSError | None:
        """More of its log has come, and which attempt it belongs to; why it could not be kept."""
        self._running = running
        return self.segment.append(data)

    def running(self) -> tuple[int, int]:
        """The attempt that runs, 0 for none, and where its log starts, as far as is known here."""
        return self._running

    def interrupt(self, attempt: int) -> None:
        """Stop that attempt, and no other."""
        self.node.tell(carrier.SIGNAL, self.number, signal.SIGINT, attempt)

    def kill(self) -> None:
        """End it by force."""
        self.node.tell(carrier.SIGNAL, self.number, int(signal.SIGKILL), 0)


class NodeWorkers:
    """The worker processes on all nodes of one engine.

    Parameters
    ----------
    link : Carrier
        The foreign engine; it is closed here.
    nodes : Nodes
        The nodes, and what becomes of values.
    answers : mapping
        What to do with what nodes say of themselves, by kind: called with the node and what it
        says, in a thread of the carrier.
    """

    def __init__(
        self,
        link: Carrier,
        nodes: Nodes,
        answers: Mapping[str, Callable[..., object]],
    ) -> None:
        self._link = link
        self.nodes = nodes
        self.answers = answers
        self.processes: dict[int, NodeProcess] = {}
        self.dead: dict[int, Ended] = {}
        self.alive = True
        self._told_logs = False
        self._driver: Driver
        self._soon: Callable[[Callable[[], object]], object]

    def begin(
        self, driver: Driver, watch: Watch, soon: Callable[[Callable[[], object]], object]
    ) -> None:
        """Say who hears of the processes; nothing is watched, as nodes tell what happens."""
        self._driver, self._soon = driver, soon
        self.nodes.begin(driver, self)

    def start(self, number: int, facts: messages.Facts, group: int) -> NodeProcess:
        """Start a process on the node of a group.

        Raises
        ------
        GroupLost
            The node is lost.
        OSError
            This process has no room for its log.
        """
        nodes = self.nodes.shipping.nodes
        node = self.nodes.shipping.node(group)
        if node is None:
            raise GroupLost(f"the node of group {group} is lost")
        node.ask_clock()  # its answer is here before anything that the worker says
        process = self.processes[number] = NodeProcess(number, node)
        node.workers.add(number)
        there = {
            "address": node.address,
            "addresses": [one.address for one in nodes],
            "n_cpu": sum(one.cpus for one in nodes),
            "threads": facts["threads"],
            "gpus": facts.get("gpus"),
        }
        node.tell(carrier.FORK, number, there)
        return process

    # -- what nodes say -----------------------------------------------------------------------

    def take_from(self, node: RemoteNode, received: Sequence[carrier.Message]) -> None:
        """Act on messages of a node, in their order; in a thread of the carrier."""
        if node.unreadable:
            return
        rest: list[carrier.Message] = []
        for message in received:
            kind = message[0]
            if kind == carrier.BYTES:
                self.nodes.mirrors.write(message[1], message[3], message[4])
            elif kind in self.answers:
                self.answers[kind](node, *message[1:])
            elif kind == carrier.CLOCK:
                node.clock.learn(message[1], message[2], time.monotonic_ns())
            elif kind == carrier.ARENA:
                number, size, address = message[2:]
                if address is None:
                    self.nodes.mirrors.mirror(number, size)
                else:
                    try:
                        self.nodes.mirrors.open(number, size, address, node)
                    except OSError as error:
                        # It has ended, most likely: what it said until here holds, no more.
                        node.unreadable = True
                        rest.append((carrier.BROKEN, f"its values cannot be read: {error}"))
                        break
                rest.append(message)
            else:
                rest.append(message)
        if rest:
            self._soon(lambda: self._heard(node, rest))

    def _heard(self, node: RemoteNode, received: Sequence[carrier.Message]) -> None:
        """The same in the loop's thread, but for what needs not wait for it."""
        for message in received:
            if self.nodes.heard(node, message):
                continue
            process = self.processes.get(message[1])
            if process is not None:
                self._heard_of(process, message)

    def _heard_of(self, process: NodeProcess, message: carrier.Message) -> None:
        """What a node says of a process."""
        kind = message[0]
        if kind == carrier.DATA:
            process.node.ask_clock()
            if not process.broken:
                self._driver.came(process, [(message[2], memoryview(message[3]))])
                if process.broken:
                    process.kill()
        elif kind == carrier.LOG:
            trouble = process.printed(message[2], message[3:5])
            if trouble is not None:
                self._tell_logs(trouble)
        elif kind == carrier.ARENA:
            process.arenas.add(message[2])
        elif kind == carrier.STARTED:
            process.pid = message[2]
            self._driver.started(process)
            if process.missed:
                process.kill()
        elif kind == carrier.ENDED:
            _, number, status, peak_kib, note, starved, attempt, start = message
            process.printed(b"", (attempt, start))
            self.dead[number] = Ended(process.pid, status, peak_kib, note, starved=starved)

    def _tell_logs(self, error: OSError) -> None:
        if not self._told_logs:
            self._told_logs = True
            self._driver.tell(
                f"mars: no room for logs on the host of the program ({platform.refusal(error)}); "
                f"what calls print meanwhile is left out"
            )

    # -- ends ---------------------------------------------------------------------------------

    def lose(self, node: RemoteNode) -> list[NodeProcess]:
        """The processes of a node have ended, for all that we can know; those not known to."""
        lost = []
        for number, process in self.processes.items():
            if process.node is node and number not in self.dead:
                note = f"its node {node.title} was lost: {node.reason}"
                self.dead[number] = Ended(process.pid, signal.SIGKILL, note=note)
                lost.append(process)
        return lost

    def bury(self) -> None:
        """Tell of processes that have ended; their nodes have told all that they sent before."""
        dead, self.dead = self.dead, {}
        for number, ended in dead.items():
            process = self.processes.pop(number, None)
            if process is not None:
                process.deaf = True
                attempt, start = process.running()
                self._driver.ended(process, ended._replace(attempt=attempt, log_start=start))

    def starved(self, ended: Ended) -> bool:
        """Whether the kernel of the node ended a process because memory ran out."""
        return ended.starved

    def title_of(self, group: int, address: str) -> str:
        """What messages call a group."""
        node = self.nodes.shipping.node(group)
        return f"worker {address}" if node is None else f"node {node.title}"

    def complaint(self) -> str:
        """Nothing: nodes say with each process why it does not start."""
        return ""

    def dismiss(self) -> None:
        """Nodes start a process only when they are told to."""

    def stop(self) -> None:
        """End all nodes."""
        self.alive = False
        for node in self.nodes.shipping.nodes:
            node.alive = False
        self._link.close()

    def close(self) -> None:
        """Stop, and tell of nodes that were lost; idempotent."""
        for process in self.processes.values():
            process.deaf = True
        self.processes.clear()
        self.stop()
        self.nodes.close()

    def forget(self) -> None:
        """In a child that the program forked: nothing is sent any more."""
        self.alive = False
        for process in self.processes.values():
            process.deaf = True


__all__ = ["NodeProcess", "NodeWorkers"]
