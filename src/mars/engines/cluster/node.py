"""Our end on a node: worker processes of ours, and what goes between them and the driver.

A `Node` lives as a thread in a process of the foreign engine, and decides nothing. It has the same
`LocalWorkers` as the driver has on one machine. What the driver says is passed on to them. What
they say goes to the driver, and before it all that it refers to: the log up to there, and the bytes
of large values. So whatever the driver has heard of survives this node.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from mars import platform
from mars.attempt.setting import import_path
from mars.engines.cluster import carrier, folder
from mars.engines.cluster.carrier import Item, Message
from mars.engines.cluster.line import Door, Line, NoFreePort
from mars.engines.cluster.peers import Peers
from mars.engines.cluster.surroundings import not_followed
from mars.engines.local.launch import Launch
from mars.engines.local.process import LocalProcess, Watch, patiently
from mars.engines.local.workers import Ended, LocalWorkers
from mars.engines.wire import messages
from mars.engines.wire.frames import BadFrame
from mars.engines.wire.ledger import Ledger
from mars.engines.wire.messages import FLAG_PACKED, FLAG_STORED
from mars.engines.wire.regions import ON_DISK, OWNER_SHIFT, parts_of
from mars.engines.wire.status import VALUE
from mars.errors import StartupFailed
from mars.gpus import find
from mars.resources import memory_limit_bytes
from mars.settings import (
    EARLY_BYTES,
    LOG_CHUNK_BYTES,
    LOG_LEFT_BYTES,
    LOG_SHIP_S,
    OBJECT_MEMORY_SHARE,
    SPARED_S,
    STOP_S,
    UNKNOWN_MEMORY_BYTES,
)
from mars.task import RECORD

if TYPE_CHECKING:
    import socket
    import ssl

    from mars.engines.wire.regions import Result
    from mars.task import Stored


_OF_PROCESSES: Final = {carrier.DATA, carrier.CONTROL, carrier.SIGNAL, carrier.LEND}
_OF_PEERS: Final = {carrier.OPEN, carrier.MEET, carrier.PART, carrier.GET, carrier.UNGET}
_DO: Final = "do"  # what another thread of ours has for the node's


class _Arena:
    """A file that workers of this node map: one of theirs, or a copy of another node's.

    ``ours``: it is in memory, and no worker counts what it holds, so we do.
    """

    __slots__ = ("counted", "descriptor", "ours", "size")

    def __init__(self, descriptor: int, size: int, *, ours: bool = False) -> None:
        self.descriptor, self.size, self.ours = descriptor, size, ours
        self.counted = 0  # bytes in our place of the ledger


class Node:
    """The workers of one driver on one node.

    Parameters
    ----------
    tell : callable
        Sends messages to the driver by way of the foreign engine; called in the node's thread,
        must not wait.
    facts : mapping
        What the driver says: ``object_memory``, ``spill_directory``, ``packages``, ``file``,
        ``key``, ``ports``, ``started``, ``whereabouts``; and the foreign engine: ``directory``,
        which it removes some day if we cannot, and ``memory``, what the node may use, else None.
    address : str
        What the foreign engine calls this node.
    cpus : float
        Cores that it offers here.
    host : str
        Where the driver, and other nodes, may come to us directly.
    context : ssl.SSLContext, optional
        With which TLS.
    going : ssl.SSLContext, optional
        And with which we go to other nodes.
    """

    def __init__(
        self,
        tell: Callable[[Sequence[Message]], object],
        facts: carrier.Facts,
        address: str,
        cpus: float,
        host: str,
        context: ssl.SSLContext | None = None,
        going: ssl.SSLContext | None = None,
    ) -> None:
        self._tell = tell
        self._outgoing: list[Item] = []
        self._line: Line | None = None
        self._direct = False  # the driver has chosen the line
        self.is_orphan = False  # it has ended because its driver is gone
        self._settled = threading.Condition()  # all that was posted has been acted on
        self._acting = False
        self._trouble: OSError | None = None
        memory = facts["memory"] or memory_limit_bytes()[0] or UNKNOWN_MEMORY_BYTES
        self._budget = facts["object_memory"] or int(OBJECT_MEMORY_SHARE * memory)
        self._spill = facts["spill_directory"] or platform.disk_directory()
        self._shipped: dict[int, tuple[int, int]] = {}  # of a log: bytes, and what runs
        self._places: dict[int, int] = {}  # of workers, in the ledger
        self._arenas: dict[int, _Arena] = {}
        self._writing = threading.Lock()  # several threads make arenas, and count what they write
        self._posted: deque[Sequence[Message]] = deque()
        self._closing = False
        self._folder_file = -1  # the program's folder, while it comes
        self._folder = ""
        self._directory = facts.get("directory")
        self._kept = False  # the driver reads values where they are
        with contextlib.ExitStack() as undo:
            self._ledger_file = Ledger.new()
            undo.callback(os.close, self._ledger_file)
            self._ledger = Ledger(self._ledger_file, 0, self._budget)
            undo.callback(self._ledger.close)
            told: messages.Facts = {
                "object_memory": self._budget,
                "spill_directory": self._spill,
                "path": import_path(),
                "cwd": os.getcwd(),
                "addresses": [address],
                "n_cpu": cpus,
            }
            # It takes no large pages from the zygote: workers write most of what is here.
            self._workers = LocalWorkers(told, self._ledger_file, Launch(facts["started"]))
            undo.callback(self._workers.close)
            self._wake_read, self._wake_write = platform.pipe()
            undo.callback(os.close, self._wake_read)
            undo.callback(os.close, self._wake_write)
            self._watch = Watch()
            undo.callback(self._watch.close)
            self._undo = undo.pop_all()
        self._watch.add(self._wake_read, self._on_wake)
        self._workers.begin(self, self._watch, self._soon)
        ours, theirs = platform.file_address(self._ledger_file), facts.get("file")
        self._door: Door | None = None
        trouble = ""
        try:
            with contextlib.suppress(OSError):  # then it is no address of this machine
                self._door = Door(host, facts["key"], context, self._come_in, ports=facts["ports"])
        except NoFreePort as error:
            trouble = str(error)
        gpus: Sequence[str] = ()
        try:
            gpus = _gpus(facts)
        except ValueError as error:  # calls without GPUs run here all the same
            trouble = trouble or str(error)
        described = carrier.node_facts(
            address, cpus, memory, facts["packages"], ours, carrier.can_open(theirs),
            None if self._door is None else self._door.place, trouble,
            not_followed(facts.get("whereabouts")), gpus,
        )  # fmt: skip
        self._peers = Peers(
            host, facts["ports"], context, going, self._soon, self._say, self._copy, self._put_off,
            self._place_copy,
        )  # fmt: skip
        self._say(carrier.HELLO, described)
        self._thread = threading.Thread(target=self._run, name="mars-node", daemon=True)
        self._thread.start()

    # -- from other threads -------------------------------------------------------------------

    def take(self, received: Sequence[Message]) -> None:
        """Messages of the driver, by way of the foreign engine."""
        self._posted.append(received)
        self._wake()

    def _come_in(self, sending: socket.socket, receiving: socket.socket) -> None:
        self._line = Line(sending, receiving, self._take_directly, self._place, self._line_ended)
        self._line.start()

    def _take_directly(self, received: Sequence[Message]) -> None:
        self._direct = True
        self.take(received)

    def _place(self, number: int, size: int, offset: int, data: memoryview) -> None:
        """A part of a value, in the line's thread; not before all that came before it."""
        with self._settled:
            self._settled.wait_for(lambda: self._closing or not (self._posted or self._acting))
        self._place_copy(number, size, offset, data)

    def _place_copy(self, number: int, size: int, offset: int, data: memoryview) -> None:
        """A part of a value of another node, which nothing has to wait for."""
        if not self._closing:
            try:
                self._write(number, size, offset, data)
            except OSError as error:  # such as no room: half a value must not be read
                self._trouble = error
                self._wake()

    def _soon(self, act: Callable[[], object]) -> None:
        """Have something done in the node's thread."""
        self._posted.append([(_DO, act)])
        self._wake()

    def _line_ended(self, reason: str) -> None:
        if not self._direct:
            return  # the driver goes another way; if it has ended, that says so
        self.is_orphan = True
        self._closing = True  # as nobody hears of what we do
        self._wake()

    def close(self) -> None:
        """End all workers; returns when none is left. Idempotent."""
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def wait_ended(self) -> None:
        """Wait until no worker is left."""
        self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # closed, or full: then it is awake anyway
            os.write(self._wake_write, b"\0")

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        due = 0.0
        try:
            self._flush()
            while not self._closing:
                processes = self._workers.processes
                self._watch.wait(LOG_SHIP_S if processes else None)
                self._act_on_posted()
                if self._workers.dead:
                    self._workers.bury()
                if time.monotonic() >= due:
                    due = time.monotonic() + LOG_SHIP_S
                    for process in processes.values():
                        self._ship_log(process, process.running())
                self._flush()
        except Exception as error:
            # Such as no room for what the driver sent. Half a value must not be read: end.
            self._closing = True
            self._say(carrier.BROKEN, f"{type(error).__name__}: {error}")
            self._flush()
        finally:
            with self._settled:
                self._settled.notify_all()
            if self._door is not None:
                self._door.close()
            if self._line is not None:
                self._line.close(STOP_S)
            self._peers.close()
            for process in self._workers.processes.values():
                process.segment.close()
            for arena in self._arenas.values():
                os.close(arena.descriptor)
            self._undo.close()
            if self._folder_file >= 0:
                os.close(self._folder_file)
            if self._folder:
                folder.remove(self._folder)

    def _act_on_posted(self) -> None:
        if self._trouble is not None:
            raise self._trouble
        self._acting = True
        while self._posted:
            for message in self._posted.popleft():
                self._act(message)
        self._acting = False
        if self._direct:
            with self._settled:
                self._settled.notify_all()

    def _on_wake(self, _: object, __: int) -> None:
        os.read(self._wake_read, 4096)

    def _say(self, *message: object) -> None:
        self._outgoing.append(message)

    def _flush(self) -> None:
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            if self._direct and self._line is not None:
                self._line.send(outgoing)
            else:
                self._tell([carrier.made(item) for item in outgoing])

    # -- what the driver says -----------------------------------------------------------------

    def _act(self, message: Message) -> None:
        kind = message[0]
        if kind in _OF_PROCESSES:
            process = self._workers.processes.get(message[1])
            if process is not None:
                self._act_on(process, message)
        elif kind == carrier.BYTES:
            self._write(*message[1:])
        elif kind == carrier.FREED:
            arena_of = self._arenas.get(message[1])
            if arena_of is not None:
                platform.punch(arena_of.descriptor, message[2], message[3])
                self._count(arena_of)
        elif kind == carrier.HURRY and self._line is not None:
            self._line.hurry(message[1])
        elif kind == carrier.DROP and self._line is not None:
            self._line.drop(message[1])
        elif kind == carrier.GONE:
            self._forget_arena(message[1])
        elif kind == carrier.ASK_CLOCK:
            self._say(carrier.CLOCK, message[1], time.monotonic_ns())
        elif kind == carrier.NEED:
            self._say(carrier.LACK, message[1], carrier.missing_here(message[2], message[3]))
        elif kind == carrier.WHERE:
            self._say(carrier.APART, not_followed(message[1]))
        elif kind == carrier.ASK_STACK:
            self._ask_stack(*message[1:])
        elif kind == carrier.ASK_USAGE:
            processes = self._workers.processes
            looked = {one: platform.usage_of(process.pid) for one, process in processes.items()}
            known = {one: found for one, found in looked.items() if found is not None}
            self._say(carrier.USAGE, message[1], known)
        elif kind == carrier.KEEP:
            self._kept = True
        elif kind == carrier.FOLDER:
            self._take_folder(*message[1:])
        elif kind == carrier.FORK:
            self._fork(message[1], message[2])
        elif kind == _DO:
            message[1]()
        elif kind in _OF_PEERS:
            self._peers.act(message)
        elif kind == carrier.HAND:
            self._hand(*message[1:])
        elif kind == carrier.HERE and not self._direct and self._door is not None:
            self._door.close()

    def _act_on(self, process: LocalProcess, message: Message) -> None:
        """What the driver says to a process, or of it."""
        kind = message[0]
        if kind == carrier.DATA:
            process.send(message[3])
        elif kind == carrier.CONTROL:
            process.order(message[2])
        elif kind == carrier.SIGNAL and message[3]:
            process.interrupt(message[3])
        elif kind == carrier.SIGNAL:
            process.signal(message[2])
        elif kind == carrier.LEND:
            number, size, address = message[2:]
            arena = self._arena(number, size, address)
            process.send((messages.ARENA, number, size), (arena.descriptor,))

    def _write(self, number: int, size: int, offset: int, data: bytes | memoryview) -> None:
        arena = self._arena(number, size)
        _write(arena.descriptor, offset, data)
        self._count(arena)

    def _count(self, arena: _Arena) -> None:
        """Count what an arena holds, by what the system has given for it."""
        with self._writing:
            if arena.ours:
                holds = patiently(platform.held_bytes, arena.descriptor)
                self._ledger.change(holds - arena.counted)
                arena.counted = holds

    def _forget_arena(self, number: int) -> None:
        with self._writing:
            arena = self._arenas.pop(number, None)
            if arena is not None:
                os.close(arena.descriptor)
                self._ledger.change(-arena.counted)
                arena.ours = False

    def _arena(self, number: int, size: int, address: platform.FileAddress | None = None) -> _Arena:
        with self._writing:
            return self._known_arena(number, size, address)

    def _known_arena(self, number: int, size: int, address: platform.FileAddress | None) -> _Arena:
        arena = self._arenas.get(number)
        if arena is None and address is not None:
            arena = self._arenas[number] = _Arena(patiently(platform.open_at, address), size)
        elif arena is None:
            on_disk = number & ON_DISK or self._ledger.total() + size > self._budget
            descriptor = patiently(
                platform.sized_file, size, f"arena-{number}",
                on_disk=bool(on_disk), directory=self._spill,
            )  # fmt: skip
            arena = self._arenas[number] = _Arena(descriptor, size, ours=not on_disk)
        return arena

    def _take_folder(self, size: int, offset: int, data: bytes) -> None:
        """A part of the program's folder, which is there before any worker is."""
        if self._folder_file < 0:
            self._folder_file = platform.nameless_file(self._spill, append=False)
        _write(self._folder_file, offset, data)
        if offset + len(data) == size:
            self._folder = self._workers.facts["cwd"] = folder.unpack(
                self._folder_file, self._directory
            )
            os.close(self._folder_file)
            self._folder_file = -1

    def _ask_stack(self, question: int, number: int) -> None:
        """Look what a worker does, in a thread of its own: it may be slow to answer, or hang."""
        process = self._workers.processes.get(number)
        pid = 0 if process is None else process.pid

        def look() -> None:
            from mars.engines.local.stacks import looked_at  # late: somebody has to ask for it

            lines = looked_at(pid)
            self._soon(lambda: self._say(carrier.STACK, question, lines))

        try:
            threading.Thread(target=look, name="mars-stack", daemon=True).start()
        except RuntimeError as error:  # the system refuses one
            self._say(carrier.STACK, question, [f"no answer: {error}"])

    def _fork(self, number: int, facts: messages.Facts) -> None:
        place = -1
        try:
            place = self._ledger.open_place()
            self._workers.start(number, {**facts, "place": place})
        except OSError as error:
            if place >= 0:
                self._ledger.close_place(place)
            note = f"no descriptor or memory left: {platform.refusal(error)}"
            self._say(carrier.ENDED, number, None, 0, note, False, 0, 0)
            return
        self._places[number] = place
        self._shipped[number] = (0, 0)

    # -- from a worker ------------------------------------------------------------------------

    def started(self, process: LocalProcess) -> None:
        """A process is there."""
        self._say(carrier.STARTED, process.number, process.pid)

    def came(self, process: LocalProcess, frames: Sequence[tuple[bool, memoryview]]) -> None:
        """Pass on what a worker has sent, up to what is no message of ours."""
        self._ship_log(process, process.running())
        for records, data in frames:
            content = bytes(data)
            try:
                self._pass(process, records, content)
            except OSError:
                raise  # the node's own trouble
            except Exception as error:
                self._distrust(process, f"{type(error).__name__}: {error}")
                return

    def garbled(self, process: LocalProcess, error: BadFrame) -> None:
        """A worker has sent what is no frame."""
        self._distrust(process, str(error))

    def _distrust(self, process: LocalProcess, reason: str) -> None:
        process.broken = reason
        # The driver says of it what the loop says on one machine.
        self._say(carrier.DATA, process.number, False, pickle.dumps(("no message", reason), 5))

    def _pass(self, process: LocalProcess, records: bool, content: bytes) -> None:
        number = process.number
        if records:
            early = []
            for attempt, status, result in stored_results(content):
                if status == VALUE and self._may_be_early(result):
                    early.append((attempt, result))
                else:
                    self._ship_values(parts_of(result))
            if early:
                self._tell_early(number, content, early)
                return
        else:
            message = messages.from_worker(memoryview(content))
            if message[0] == messages.ARENA:
                if not process.descriptors:
                    raise BadFrame("an arena without its file")
                descriptor = process.descriptors.pop(0)
                self._arenas[message[1]] = _Arena(descriptor, message[2])
                address = patiently(platform.file_address, descriptor) if self._kept else None
                self._say(carrier.ARENA, number, message[1], message[2], address)
                return
            if message[0] == messages.LEAVING:
                process.leaving = True
            if message[0] == messages.SUBMIT:
                self._ship_values(list(carrier.stored_values_in(message)))
        self._say(carrier.DATA, number, records, content)

    def _may_be_early(self, result: Any) -> bool:
        """Whether a result is one large value of this node, which a line can send later."""
        return (
            self._direct
            and not self._kept
            and parts_of(result) == [result]
            and result[3] >= EARLY_BYTES
            and result[1] >> OWNER_SHIFT in self._shipped
            and result[1] in self._arenas
        )

    def _tell_early(self, number: int, content: bytes, early: Sequence[tuple[int, Any]]) -> None:
        """Tell of results before the bytes of their values, so that others here can read them."""
        assert self._line is not None
        self._say(carrier.EARLY, [attempt for attempt, _ in early])
        self._say(carrier.DATA, number, True, content)
        self._flush()
        for attempt, result in early:
            self._line.send_later(attempt, [*self._parts(result), (carrier.ARRIVED, [attempt])])

    def _ship_values(self, values: Sequence[Stored]) -> None:
        if self._kept:
            return
        for value in values:
            number = value[1]
            if number not in self._arenas or number >> OWNER_SHIFT not in self._shipped:
                continue  # an input of another process, which the driver has
            for part in self._parts(value):
                self._outgoing.append(part)
                self._flush()

    def _parts(self, value: Stored) -> Iterator[carrier.Part]:
        _, number, offset, length, _ = value
        return self._copy(number, offset, length)

    def _copy(self, number: int, offset: int, length: int) -> Iterator[carrier.Part]:
        arena = self._arenas[number]
        file = carrier.readable(arena.descriptor, offset, length)
        return carrier.parts(file, (carrier.BYTES, number, arena.size), offset, length)

    def _put_off(self, attempt: int) -> None:
        """Another node gets the value of an attempt: the driver can have it later."""
        if self._line is not None:
            self._line.put_off(attempt, SPARED_S)

    def _hand(self, attempt: int, number: int, offset: int, length: int) -> None:
        """The maker of a value is lost, and we have a copy."""
        assert self._line is not None
        parts = self._copy(number, offset, length)
        self._line.send_later(attempt, [*parts, (carrier.ARRIVED, [attempt])])

    def _ship_log(self, process: LocalProcess, running: tuple[int, int]) -> None:
        """Send what a worker has printed since the last time."""
        sent, told = self._shipped[process.number]
        size = patiently(process.segment.size)
        attempt, start = running
        while sent < size or attempt != told:
            data = self._printed(process, sent, min(size - sent, LOG_CHUNK_BYTES))
            self._say(carrier.LOG, process.number, data, attempt, start)
            told = attempt
            sent += len(data)
            if not data:
                break
        if sent // LOG_LEFT_BYTES > self._shipped[process.number][0] // LOG_LEFT_BYTES:
            # The driver has it. Errors made here still quote the end.
            platform.punch(process.segment.descriptor, 0, sent - LOG_CHUNK_BYTES)
        self._shipped[process.number] = (sent, told)

    @staticmethod
    def _printed(process: LocalProcess, start: int, count: int) -> bytes:
        try:
            return patiently(process.segment.read, start, count)
        except OSError:  # a place in a log has to stay one
            return b"?" * count

    # -- ends ---------------------------------------------------------------------------------

    def zygote_failed(self, error: StartupFailed) -> None:
        """No process can be started any more: the node ends."""
        self._trouble = OSError(str(error))

    def ended(self, process: LocalProcess, ended: Ended) -> None:
        """A process has ended, and what it had sent was passed on."""
        number = process.number
        if ended.unreported:
            with contextlib.suppress(pickle.UnpicklingError, ValueError, TypeError, IndexError):
                self._pass(process, True, ended.unreported)  # else a call scribbled over it
        self._ship_log(process, (ended.attempt, ended.log_start))
        starved = self._workers.starved(ended)
        note = ended.note
        pod = os.environ.get("MARS_K8S_POD_NAME") if starved else None
        if pod:  # the container goes on, so Kubernetes itself does not tell
            note = f"OOMKilled: pod {pod} was over its memory limit"
        self._say(
            carrier.ENDED, number, ended.status, ended.peak_kib, note, starved, ended.attempt,
            ended.log_start,
        )  # fmt: skip
        process.segment.close()
        del self._shipped[number]
        for arena_number, arena in list(self._arenas.items()):
            if arena_number >> OWNER_SHIFT == number and not arena_number & ON_DISK:
                arena.ours = True  # as long as somebody asks for what is in there
                self._count(arena)
        self._ledger.close_place(self._places.pop(number))


def _write(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        done = patiently(os.pwrite, descriptor, view, offset)
        offset += done
        view = view[done:]


def stored_results(records: bytes) -> Iterator[tuple[int, int, Result]]:
    """Attempt, status and result of those in a frame of records that have parts in an arena."""
    position = 0
    while position < len(records):
        fields = RECORD.unpack_from(records, position)
        attempt, status, flags, size = *fields[:3], fields[-1]
        position += RECORD.size
        if flags & FLAG_PACKED and flags & FLAG_STORED:
            yield attempt, status, pickle.loads(records[position : position + size])
        position += size


def _gpus(facts: carrier.Facts) -> Sequence[str]:
    """The names of the GPUs of this node: as the driver says, or as they are found here."""
    named: Sequence[str] | None = facts.get("gpus")
    if named is not None:
        return named
    count = facts.get("gpu_count")  # that Dask, or Ray, offers here
    return find(None if os.environ.get("MARS_GPUS") or not count else int(count)).names
