"""The nodes of one engine: how they come and go, and how values get to the driver and to others.

`Nodes` fulfils the part of the port in `mars.engines.driver.workers` that only nodes need. What is
sent to which node, `shipping` decides; it is carried out here. All of it in the loop's thread.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from mars.attempt import failure
from mars.attempt.capture import Log
from mars.engines.cluster import carrier
from mars.engines.cluster.mirrors import Mirrors
from mars.engines.cluster.pairs import Pairs
from mars.engines.cluster.remote_node import RemoteNode
from mars.engines.cluster.shipping import Get, Hurry, PassOn, Ship, Shipping, Step
from mars.engines.driver import events
from mars.engines.driver.queues import serves
from mars.engines.driver.workers import Driver
from mars.engines.wire.messages import Submit
from mars.engines.wire.regions import Key, parts_of
from mars.engines.wire.status import FATAL
from mars.errors import MarsError, NoAvailableBand, StoreFull, WorkerDied
from mars.settings import (
    FAR_ROOM_WAIT_S,
    NODE_LOST_TOLD_S,
    NODE_WAIT_S,
    NODES_LOST_NAMED,
    ROOM_WAIT_S,
)
from mars.task import TIMING, Stage, Stored, Task, WorkerId

if TYPE_CHECKING:
    from mars.attempt.capture import Segment


class Process(Protocol):
    """A worker process on a node."""

    number: int
    broken: str

    @property
    def node(self) -> RemoteNode: ...
    @property
    def segment(self) -> Segment: ...

    def printed(self, data: bytes, running: tuple[int, int]) -> OSError | None:
        """More of its log has come, and which attempt it belongs to."""

    def running(self) -> tuple[int, int]:
        """The attempt that runs, and where its log starts."""


class Processes(Protocol):
    """The worker processes on all nodes."""

    def lose(self, node: RemoteNode) -> Sequence[Process]:
        """The processes of a node have ended, for all that we can know; those not known to."""


class Nodes:
    """The nodes of one engine.

    Parameters
    ----------
    changed : callable
        Called after a node has come or gone.

    Attributes
    ----------
    shipping : Shipping
        Knows the nodes that are there.
    mirrors : Mirrors
        Has the values that came from nodes; set by whoever makes it.
    """

    mirrors: Mirrors

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._pairs = Pairs(lambda node, *key: self._got(node, key, 0, False))
        self.shipping = Shipping(self._pairs.may_meet)
        self._driver: Driver
        self._processes: Processes
        self._gone = False  # the cluster has ended
        # Attempts whose values come after what is told of them, and which node says so.
        self._early: dict[int, RemoteNode] = {}
        self._lost_at = 0.0  # the last of them
        self._give_up_at = 0.0  # when to look for calls that no node can run
        self._lost: deque[str] = deque(maxlen=NODES_LOST_NAMED)  # nodes, and why
        # Attempts whose values were told of early, and for which there was no room as they came:
        # when they fail, and when their nodes are asked for them again.
        self._no_room: dict[int, tuple[float, float]] = {}
        self._untold: deque[tuple[float, str]] = deque()  # lines about lost nodes, and when to tell

    def begin(self, driver: Driver, processes: Processes) -> None:
        """Say to which loop, and to which workers, the nodes belong."""
        self._driver, self._processes = driver, processes
        self.shipping.moment = lambda: driver.now

    # -- nodes that come and go ---------------------------------------------------------------

    def start_on(self, nodes: Sequence[RemoteNode]) -> None:
        """The nodes that an engine begins with; before the loop starts."""
        for index, node in enumerate(nodes):
            node.index = index
            self._add(node)
            self._driver.scheduler.give_memory(index, node.memory)
            self._driver.scheduler.add_devices(index, node.gpus)
        self._learn_memory()

    def join(self, node: RemoteNode) -> None:
        """A node can be used from here on."""
        if not node.alive:
            return  # it was lost before we began
        node.index = self._driver.scheduler.add_group(node.address, node.cpus, node.memory)
        self._driver.scheduler.add_devices(node.index, node.gpus)
        self._add(node)
        self._learn_memory()
        self._changed()
        if self._driver.members or self._driver.runs:
            self._driver.on(events.Tick())

    def _add(self, node: RemoteNode) -> None:
        node.stands_in(self.shipping.where)
        self.shipping.add(node)

    def _learn_memory(self) -> None:
        memory = [node.memory for node in self.shipping.nodes]
        self._driver.scheduler.admission.most = max(memory, default=math.inf)

    def leave(self, node: RemoteNode, reason: str) -> None:
        """A node is lost: its workers have ended, for all that we can know."""
        if not node.alive:
            return
        node.alive = False
        node.reason = reason
        self.shipping.remove(node)
        self._lost.append(f"{node.address} ({reason})")
        self._lost_at = time.monotonic()
        self.mirrors.node_lost(node)
        if node.line is not None:
            node.line.close()
        handed = self._hand_on(node)
        self._driver.on(events.Lost(node.index, lambda task: _lost_value(node, task), handed))
        for key in list(node.coming):
            node.coming.end(key)
            self.mirrors.got(key, node)
        self.shipping.forget_all_of(node)
        self._pairs.lost(node)
        self._driver.forget_group(node.index)
        self._early = {attempt: one for attempt, one in self._early.items() if one is not node}
        for process in self._processes.lose(node):
            self._assume_begun(process)
        self._learn_memory()
        self._changed()
        if not self._gone:
            line = f"mars: node {node.title} was lost ({reason}); its calls run elsewhere"
            self._untold.append((self._lost_at + NODE_LOST_TOLD_S, line))

    def _hand_on(self, lost: RemoteNode) -> dict[int, int]:
        """Have values that a lost node has made sent by others that have them, by attempt."""
        handed = {}
        made = self._driver.scheduler.made_in.values()
        for task, node in self.shipping.hand_on(lost, made).items():
            node.tell(carrier.HAND, task.attempt, *task.result[1:4])
            handed[task.attempt] = node.index
        return handed

    def _assume_begun(self, process: Process) -> None:
        """Nobody can say any more what a worker had begun since we heard of it last.

        Its first call, for certain; and of those behind it any that must not run twice.
        """
        state = self._driver.scheduler.workers.get(WorkerId(process.number))
        if state is None or not state.queue:
            return
        once = [task for task in state.queue if not task.call.options.death_retries]
        last = once[-1] if once else state.queue[0]
        known, start = process.running()
        end = process.segment.size()
        for task in state.queue:
            if task.attempt == known and task is not last:
                task.logs = (*task.logs, Log(process.segment, start, end))
        if last.attempt != known:
            process.printed(b"", (last.attempt, end))

    def end(self, error: MarsError) -> None:
        """No node is left, and none will come: end what runs, and what comes later, with that."""
        self._gone = True
        self._untold.clear()  # the error says it all
        self._driver.refuse(error)
        for node in list(self.shipping.nodes):
            self.leave(node, "the cluster is gone")

    def close(self) -> None:
        """Tell what was not told yet; idempotent."""
        self._tell_of_losses(math.inf)
        self.mirrors.close()

    # -- what the loop asks, see `mars.engines.driver.workers.Nodes` ---------------------------

    @property
    def waits(self) -> bool:
        """Whether `look` is to be called also while nothing runs."""
        return bool(self._untold)

    def look(self, now: float) -> None:
        """Do what has to be done now and then."""
        if self._no_room:
            self._look_for_room(now)
        self._tell_of_losses(now)
        if now >= self._give_up_at and (self._lost or not self.shipping.nodes):
            self._give_up_at = now + NODE_WAIT_S / 10
            self._give_up_waiting(now - NODE_WAIT_S)

    def run_ends(self) -> None:
        """Who waits for a run goes on after it, and has a right to know of lost nodes."""
        self._tell_of_losses(math.inf)

    def _tell_of_losses(self, until: float) -> None:
        while self._untold and self._untold[0][0] <= until:
            self._driver.tell(self._untold.popleft()[1])

    def _give_up_waiting(self, since: float) -> None:
        """Runs with calls that no node could run ``since`` then do not wait for ever."""
        if self._lost_at > since:
            return
        scheduler = self._driver.scheduler
        groups = [group for group in scheduler.groups.values() if not group.closed]
        for task in list(scheduler.ready):
            if task.ready_at > since or any(serves(group, task) for group in groups):
                continue
            self._driver.fail_runs(task, _unschedulable(task, self._lost))

    def closed(self, address: str, why: str) -> None:
        """No worker process starts on a node; its calls run elsewhere."""
        self._lost.append(f"{address} (closed: {why})")
        self._lost_at = time.monotonic()

    def outcomes(
        self, process: Process, outcomes: Iterable[events.Outcome]
    ) -> list[events.Outcome]:
        """The outcomes of a worker as they hold here: by our clock, with values that are here."""
        told = []
        ahead = process.node.clock.ahead_ns
        self._driver.scheduler.core.ended.ahead_ns[process.number] = ahead
        for outcome in outcomes:
            if ahead and outcome.timing is not None:
                moments = (moment - ahead for moment in TIMING.unpack(outcome.timing))
                outcome = outcome._replace(timing=TIMING.pack(*moments))
            if self._early.pop(outcome.attempt, None) is not None:
                self.mirrors.expect(outcome.result)
                outcome = outcome._replace(early=True)
            else:
                outcome = self._refused(process, outcome)
            told.append(outcome)
        return told

    def carry_out(self, command: events.Command) -> None:
        """Carry out a command about values that go from node to node."""
        if isinstance(command, events.Unneeded):
            self._tell_group(command.group, carrier.DROP, command.attempt)
        elif isinstance(command, events.Needed):
            self._tell_group(command.group, carrier.HURRY, command.attempt)
        elif isinstance(command, events.Fetch):
            node = self.shipping.node(command.group)
            if node is not None:
                for step in self.shipping.fetch(node, command.task, command.work_s):
                    self._take_step(node, step)

    # -- values that go to nodes --------------------------------------------------------------

    def _take_step(self, node: RemoteNode, step: Step) -> None:
        """Have a large input go to a node ahead of a call."""
        if isinstance(step, Get):
            self._get(step.source.attempt, step.value, step.giver, node)
        elif isinstance(step, Ship):
            node.ship(step.value, self.mirrors.store.arena(step.value[1]))
        elif isinstance(step, PassOn):
            self._hurry(step.source)
            self.mirrors.pass_on(step.value, node)
        elif isinstance(step, Hurry):
            self._hurry(step.source)

    def _hurry(self, source: Task) -> None:
        """Have a value that was told of early come now."""
        _, made_in = self._driver.scheduler.made_in[source.attempt]
        self._tell_group(made_in, carrier.HURRY, source.attempt)

    def _tell_group(self, group: int, *message: object) -> None:
        """Send a message to the node of a group, if that is there."""
        node = self.shipping.node(group)
        if node is not None:
            node.tell(*message)

    def _get(self, attempt: int, value: Stored, giver: RemoteNode, node: RemoteNode) -> None:
        """Have a node get a value from another one."""
        _, number, offset, length, _ = value
        _, size = self.mirrors.store.arena(number)
        self.mirrors.get(value, node)
        node.coming.begin((number, offset), giver)
        self._pairs.get(giver, node, (attempt, number, size, offset, length))

    def _got(self, node: RemoteNode, key: Key, count: int, whole: bool) -> None:
        """A node has got a value from another one, or a part of it; in any case no more comes."""
        if not node.coming.end(key):
            return  # the node is lost
        if count:
            node.arenas.add(key[0])
        if whole:
            node.held.add(key)
            node.copies.add(key)
        elif count:
            node.tell(carrier.FREED, *key, count)
        self.mirrors.got(key, node)
        self._driver.collect_regions()
        # It may begin what reads the value; or the value is to be had in another way.
        self._driver.on(events.Tick())

    def heard(self, node: RemoteNode, message: carrier.Message) -> bool:
        """Act on what a node says of values, of other nodes and of itself; False: it is neither."""
        kind = message[0]
        if kind == carrier.EARLY:
            self._early.update(dict.fromkeys(message[1], node))
        elif kind == carrier.ARRIVED:
            self._values_came(message[1])
        elif kind == carrier.GOT:
            self._got(node, message[1:3], *message[3:])
        elif kind == carrier.OPENED:
            self._pairs.opened(*message[1:])
        elif kind == carrier.PARTED:
            self._pairs.parted(message[1])
        elif kind == carrier.BROKEN:
            self.leave(node, message[1])
        else:
            return False
        return True

    # -- values that this host has no room for ------------------------------------------------

    def _values_came(self, attempts: Sequence[int]) -> None:
        """Values that were told of early are here, unless there was no room for them."""
        kept = []
        for attempt in attempts:
            task, _ = self._driver.scheduler.made_in.get(attempt, (None, 0))
            if task is None:
                continue
            if self.mirrors.trouble(task.result):
                now = time.monotonic()
                give_up, _ = self._no_room.get(attempt, (now + FAR_ROOM_WAIT_S, 0.0))
                self._no_room[attempt] = give_up, now + ROOM_WAIT_S
            else:
                self._no_room.pop(attempt, None)
                self.mirrors.has_come(task.result)
                kept.append(attempt)
        if kept:
            self._driver.on(events.Arrived(kept))

    def _look_for_room(self, now: float) -> None:
        """Have values sent again for which there was no room, or let their calls fail.

        Calls that have one of them in reach go on meanwhile, and may be all that wants it.
        """
        for attempt, (give_up, again) in list(self._no_room.items()):
            task, group = self._driver.scheduler.made_in.get(attempt, (None, 0))
            if task is None:
                del self._no_room[attempt]
                continue
            reason = self.mirrors.trouble(task.result)
            read = any(one.stage is Stage.ASSIGNED for one in task.dependents or ())
            if now >= give_up and reason and not read:
                del self._no_room[attempt]
                failed = self._no_room_for(task, task.result, reason)
                self._driver.on(events.Unkept(attempt, failed))
            elif now >= again:
                self._no_room[attempt] = give_up, now + ROOM_WAIT_S
                self._tell_group(group, carrier.HAND, attempt, *task.result[1:4])
                self._tell_group(group, carrier.HURRY, attempt)  # or the next try begins anew

    def _no_room_for(self, task: Task, value: Stored, reason: str) -> bytes:
        """The failure of a task whose value cannot be kept here."""
        name = task.call.name
        return failure.encode_failure(self._full(f"the result of {name}", value, reason), call=name)

    def _full(self, what: str, value: Stored, reason: str) -> StoreFull:
        return StoreFull(
            what, value[3], f"on the host of the program, in {self.mirrors.directory}: {reason}"
        )

    def _refused(self, process: Process, outcome: events.Outcome) -> events.Outcome:
        """An outcome, or a failure in its place if its value cannot be kept here."""
        if not outcome.stored or not self.mirrors.is_short:
            return outcome
        state = self._driver.scheduler.workers.get(WorkerId(process.number))
        for value in parts_of(outcome.result):
            reason = self.mirrors.trouble(value)
            task = next((one for one in (state.queue if state is not None else ())
                         if one.attempt == outcome.attempt), None)  # fmt: skip
            if reason and task is not None:
                self.mirrors.store.discard(outcome.result)
                result = self._no_room_for(task, value, reason)
                return outcome._replace(status=FATAL, result=result, stored=False, failures=0)
        return outcome

    def trouble(self, message: Submit) -> MarsError | None:
        """Why a request for calls cannot be taken: a value in it could not be kept here."""
        if self.mirrors.is_short:
            for value in carrier.stored_values_in(message):
                reason = self.mirrors.trouble(value)
                if reason:
                    return self._full("what a nested call is given", value, reason)
        return None


def _lost_value(node: RemoteNode, task: Task) -> bytes:
    """The failure of a task that had ended, but whose value had not come here."""
    error = WorkerDied(
        task.call.name,
        f"on node {node.title}",
        "its node",
        task.tries + task.deaths,
        f"its value had not come yet when the node was lost: {node.reason}",
    )
    return failure.encode_failure(error, call=task.call.name)


def _unschedulable(task: Task, lost: Iterable[str]) -> NoAvailableBand:
    options = task.call.options
    wish = f"cpus={options.cpus:g}"
    if options.gpus:
        wish += f", gpus={options.gpus:g}"
    if options.memory is not None:
        wish += f", memory={options.memory:,}"
    if options.worker is not None:
        wish += f", expect_worker={options.worker!r}"
    gone = ", ".join(lost)
    return NoAvailableBand(
        f"{task.call.name} asks for {wish}, which no node has any more, and none has come within "
        f"{NODE_WAIT_S:g} s; lost: {gone}; what was finished stays, execute() runs the rest"
    )


__all__ = ["Nodes"]
