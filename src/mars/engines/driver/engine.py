"""The engine that runs calls in worker processes, as sessions see it.

`DriverEngine` is the `Engine` contract over a loop, a store and workers. It is the same for the
workers of one machine and for those on nodes: a `Site` says what differs.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, cast

from mars import delivery, platform
from mars.attempt import call as attempt_call
from mars.attempt import codec, threads
from mars.attempt.capture import Log
from mars.attempt.followed import Program
from mars.attempt.setting import import_path
from mars.calls.options import DEFAULT_OPTIONS
from mars.engine import Run, SessionRealm
from mars.engines.driver.events import Tick
from mars.engines.driver.loop import Loop
from mars.engines.driver.nested import NestedServer
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.store import Store
from mars.engines.driver.stream import Stream
from mars.engines.driver.workers import Workers
from mars.engines.kinds import EngineOptions
from mars.engines.objects import RemoteObject, SharedObjects
from mars.engines.outcome import TaskLog, check_open, failure_of, item_of, no_value_of
from mars.errors import NoAvailableBand
from mars.logs import LogSource
from mars.observe.attempts import Attempts, Rows
from mars.observe.progress import write_line
from mars.observe.silence import RunningCall, Silence
from mars.resources import memory_limit_bytes
from mars.settings import (
    CALL_MEMORY_SHARE,
    LAST_LINES_S,
    MARKS_WAIT_S,
    OBJECT_MEMORY_SHARE,
    UNKNOWN_MEMORY_BYTES,
)
from mars.task import Call, Realm, Stage, Task

TYPE_CHECKING = False  # known to type checkers; loaded when somebody looks
if TYPE_CHECKING:
    from mars.attempt.followed import Surroundings
    from mars.engines.wire.messages import Facts
    from mars.observe.observation import Memory, Observation, WorkerFacts
    from mars.task import Buffer, Place, Value


class Groups:
    """The groups of workers at one moment. Never changed, only replaced as a whole.

    The loop's thread replaces it as nodes come and go, and the program's threads read it.
    """

    __slots__ = ("addresses", "cpus", "gpus", "memory")

    def __init__(
        self,
        groups: Sequence[tuple[str, float, float | None]],
        gpus: Sequence[Sequence[str]] | None = None,
    ) -> None:
        # The names of those of each group; None: nobody has looked for them.
        self.gpus = None if gpus is None else tuple(map(tuple, gpus))
        self.addresses = tuple([address for address, _, _ in groups])
        self.cpus = tuple([cpus for _, cpus, _ in groups])
        self.memory = tuple([memory for _, _, memory in groups])  # for calls; None: the engine's


class Site(Protocol):
    """Where the workers of an engine are, and what follows from that.

    `mars.engines.one_machine` has the site of this machine, `mars.engines.cluster.engine` that of
    a cluster.

    Attributes
    ----------
    known_as : str or None
        The address by which other programs get to the same workers, too.
    refused : sequence of str
        Why nodes cannot be used.
    silent : sequence of str
        Addresses of nodes that the session began without, as they have not answered.
    memory_bytes : int
        Memory that objects and calls may take together.
    """

    known_as: str | None
    memory_bytes: int

    @property
    def refused(self) -> Sequence[str]: ...
    @property
    def silent(self) -> Sequence[str]: ...

    def new_store(
        self, wake: Callable[[Callable[[], object]], object], budget_bytes: int, directory: str
    ) -> Store:
        """What keeps the large values."""

    def new_workers(self, facts: Facts, store: Store) -> Workers:
        """The worker processes, none of which runs yet; ``facts`` are for each of them."""

    def new_scheduler(
        self, groups: Sequence[tuple[str, float]], room: Callable[[], float]
    ) -> Scheduler:
        """What decides; ``room`` are bytes of memory that are free for calls."""

    def begin(self, engine: DriverEngine) -> None:
        """The engine is there, and its loop is about to start."""

    def look_at(self, calls: Sequence[Call]) -> None:
        """See to what calls need, before they are sent."""

    def as_told(
        self,
        path: list[str],
        here: str,
        variables: dict[bytes, bytes | None],
        settings: dict[str, object],
    ) -> Surroundings:
        """What calls are told of the program: its import path, folder, variables and settings."""

    def find_gpus(self) -> Sequence[Sequence[str]]:
        """The GPUs of each group, by their names. Asked once, when a call first wants one.

        Raises
        ------
        ValueError
            What says how many there are makes no sense.
        """

    def more_cores(self) -> str:
        """What its user can do about a call that asks for more cores than there are."""

    def more_gpus(self) -> str:
        """The same of GPUs; what is known of why there are no more."""

    def is_stopped(self, pid: int) -> bool:
        """Whether a worker process is held up, as by a debugger."""

    def usage(self, workers: Sequence[WorkerFacts]) -> Mapping[int, tuple[float, float, int]]:
        """What workers use, see `mars.engine.Engine`."""

    def stack(self, worker: int, pid: int) -> Sequence[str] | None:
        """What a worker does now, see `mars.engine.Engine`; None: its node does not say."""

    def how_to_look(self, call: RunningCall, several: bool) -> tuple[str, str]:
        """On which node a call runs, and what shows where it is; see `Silence`."""

    def ending(self) -> None:
        """The engine is about to end."""

    def close(self) -> None:
        """The engine has ended; idempotent."""

    def inert(self) -> None:
        """In a process forked from the engine's: let go, touch nothing."""


class DriverEngine:
    """An engine whose calls run in worker processes.

    Parameters
    ----------
    name : str
        Its address.
    site : Site
        Where the workers are. The engine closes it.
    groups : sequence of (str, float)
        Address and cores of each group of workers.
    options : EngineOptions
        What the engine is started with.

    Attributes
    ----------
    groups : Groups
        The groups that are there now. The loop's thread replaces them as nodes come and go.
    """

    def __init__(
        self,
        name: str,
        site: Site,
        groups: Sequence[tuple[str, float]],
        options: EngineOptions,
    ) -> None:
        self.address = name
        self.site = site
        self.storage = options.storage
        self.groups = Groups([(address, cpus, None) for address, cpus in groups])
        self.objects = SharedObjects()
        self._lines: deque[threading.Event] = deque()  # that are being shown
        self._pid = os.getpid()
        self._closed = False
        self._folder = os.getcwd
        self._submitting = 0  # runs posted to the loop; changed by `+=` alone, as Call.handles
        self._lock = threading.Lock()
        # Who wants calls that the program has cancelled one by one: a run that has ended.
        self._nobody = Run("", SessionRealm(self))
        self._nobody.live, self._nobody.cancelled = False, True
        self._silence = Silence(site.is_stopped, site.how_to_look)
        self._variables = self._variables_at_start = dict(_variables())
        self._changed_variables: dict[bytes, bytes | None] = {}
        self._settings = Program()
        # As found last, and what calls are told of it.
        self._around: tuple[tuple[object, ...], Surroundings | None] = (None,) * 4, None
        path, here, *_ = self._surroundings()
        self.memory = memory = int(CALL_MEMORY_SHARE * site.memory_bytes)
        object_memory = options.object_memory
        if object_memory is None:
            object_memory = int(
                OBJECT_MEMORY_SHARE * (memory_limit_bytes()[0] or UNKNOWN_MEMORY_BYTES)
            )
        spill_directory = options.spill_directory or platform.disk_directory()
        facts: Facts = {
            "object_memory": object_memory,
            "spill_directory": spill_directory,
            "path": path,
            "cwd": here or "/",
            "addresses": list(self.worker_addresses),
            "n_cpu": self.n_cpu,
        }
        self.store = store = site.new_store(self._wake, object_memory, spill_directory)
        with contextlib.ExitStack() as undo:
            undo.callback(store.close)
            workers = site.new_workers(facts, store)
            undo.callback(workers.close)
            scheduler = site.new_scheduler(groups, lambda: memory - store.ledger.total())
            self.loop = Loop(scheduler, workers, store, self._tell)
            self.loop.nested = NestedServer(self)
            site.begin(self)
            undo.pop_all()  # from here on the loop closes them
            self.loop.start()
        _engines.add(self)

    @property
    def loud(self) -> int:
        """How many attempts have written to stderr so far."""
        return self.loop.loud

    @property
    def shows_calls(self) -> bool:
        """False: calls have files of their own."""
        return False

    @property
    def n_cpu(self) -> float:
        """Cores that running calls share."""
        return sum(self.groups.cpus)

    @property
    def worker_addresses(self) -> Sequence[str]:
        """Addresses of the groups of workers."""
        return self.groups.addresses

    def _wake(self, action: Callable[[], object]) -> None:
        self.loop.post(action)

    def _tell(self, line: str) -> None:
        """Show a line, but not in the loop's thread: stderr may be the program's, and may wait."""
        shown = threading.Event()

        def show() -> None:
            try:
                write_line(line)
            finally:
                shown.set()

        while self._lines and self._lines[0].is_set():
            self._lines.popleft()
        self._lines.append(shown)
        if not delivery.put(show):
            show()  # the system refuses a thread: that may be what the line is about

    # -- the contract -------------------------------------------------------------------------

    def submit(
        self, run: Run, calls: Sequence[Call], places: Sequence[Place], targets: Collection[Call]
    ) -> None:
        """Start calls; see `mars.engine.Engine`."""
        check_open(self._closed, self._pid)
        self.site.look_at(calls)
        tasks = []
        realm = run.realm
        for call in calls:
            if call.options is not DEFAULT_OPTIONS:
                self.check_schedulable(call)
        for call, place in zip(calls, places, strict=True):
            if call.stored is not None or call.function.large:
                try:
                    self.store.prepare(call, run)
                except BaseException:
                    self.store.abandon(run)
                    raise
            task = Task(call, realm)
            task.place = place
            task.asked = call in targets
            if type(call) is not Call:
                call.begin(task)
            tasks.append(task)
            if call.task is None:
                # Already here, so that the program finds a log as soon as `execute` returns;
                # the scheduler decides when several threads do this at once.
                call.task = task
        run.surroundings = self._surroundings()
        run.server = self.loop.thread
        # While it is on its way, the scheduler alone knows what can be forgotten.
        self._submitting += 1

        def begin() -> None:
            self._submitting -= 1
            self.loop.submit(run, tasks)

        self.loop.post(begin)

    def stream(self, realm: Realm, begin: Callable[[], Run]) -> Stream:
        """What takes calls one at a time; see `mars.engine.Engine`."""
        self._folder = platform.quick_folder()

        def surroundings() -> Surroundings:
            if self._closed or self._pid != os.getpid():
                check_open(self._closed, self._pid)
            return self._surroundings()

        return Stream(self.loop, realm, begin, surroundings)

    def check(self, call: Call) -> None:
        """Refuse a call that no worker can ever run; see `mars.engine.Engine`."""
        check_open(self._closed, self._pid)
        self.site.look_at((call,))
        self.check_schedulable(call)

    def _surroundings(self) -> Surroundings:
        """What calls have of the program: the same object until something changes.

        Where the program imports from, what it calls "here", and what it has changed. Its calls
        follow, except in how many threads libraries use, which is ours to say.
        """
        try:
            here = self._folder()
        except OSError:  # somebody removed the folder
            here = ""
        variables = _variables()
        if variables != self._variables:
            self._variables = dict(variables)
            self._changed_variables = _changes(self._variables_at_start, self._variables)
        path, settings = import_path(), self._settings.look()
        # All but the name of the folder are the same objects as long as nothing changes.
        known = self._around  # threads may be here at once
        found = known[0]
        if (
            found[3] is settings
            and found[0] is path
            and found[1] == here
            and found[2] is self._changed_variables
            and known[1] is not None
        ):
            return known[1]
        found = path, here, self._changed_variables, settings
        told = known[1]
        if told is None or found != known[0]:
            told = self.site.as_told(*found)
        self._around = found, told
        return told

    def check_schedulable(self, call: Call) -> None:
        """Refuse a call that no worker can ever run."""
        groups = self.groups
        if not groups.addresses:
            return  # it waits for a node, but not for ever
        options = call.options
        if options.worker is not None and options.worker not in groups.addresses:
            raise NoAvailableBand(
                f"{call.name} asks for worker {options.worker!r}, which does not exist; "
                f"workers are {', '.join(groups.addresses)}"
            )
        wanted = options.worker
        able = [at for at, address in enumerate(groups.addresses) if wanted in (None, address)]
        largest = max(groups.cpus[at] for at in able)
        if options.cpus > largest:
            raise NoAvailableBand(
                f"{call.name} asks for cpus={options.cpus:g}, but a worker has {largest:g}; "
                f"ask for less, or {self.site.more_cores()}"
            )
        if options.memory is not None and options.memory > self.memory:
            raise NoAvailableBand(
                f"{call.name} asks for memory={options.memory:,} bytes, but calls may take "
                f"{self.memory:,} together here"
            )
        most = max(groups.memory[at] or 0 for at in able)
        if options.memory is not None and 0 < most < options.memory:
            raise NoAvailableBand(
                f"{call.name} asks for memory={options.memory:,} bytes, but calls may take "
                f"{most:,.0f} together on the node that has most; ask for less, or let a node "
                f"with more memory join"
            )
        if options.gpus:
            self._check_gpus(call, able)

    def _check_gpus(self, call: Call, able: Sequence[int]) -> None:
        """Refuse a call for whose GPUs no group has enough; ``able`` could have it otherwise."""
        options, groups = call.options, self.groups
        if groups.gpus is None:
            self._find_gpus()
            groups = self.groups
        gpus = groups.gpus or ()
        able = [at for at in able if groups.cpus[at] >= options.cpus]
        most = max((len(gpus[at]) for at in able), default=0)
        if options.gpus > most:
            has = f"a worker has {most}" if most else "there is none"
            raise NoAvailableBand(
                f"{call.name} asks for gpus={options.gpus:g}, but {has}; {self.site.more_gpus()}"
            )

    def _find_gpus(self) -> None:
        """Look for the GPUs of this machine, and have the scheduler know of them."""
        with self._lock:
            groups = self.groups
            if groups.gpus is not None:
                return  # another thread was faster
            found = self.site.find_gpus()
            old = zip(groups.addresses, groups.cpus, groups.memory, strict=True)
            self.groups = Groups(list(old), found)

            def learn() -> None:
                for number, names in enumerate(found):
                    self.loop.scheduler.add_devices(number, names)
                self.loop.on(Tick())  # calls of a call may be there already

            self.loop.post(learn)

    def cancel(self, run: Run) -> None:
        """End a run early."""
        if not self._closed:
            self.loop.post(lambda: self.loop.cancel(run))

    def withdraw(self, task: Task) -> bool:
        """Cancel one call; see `mars.engine.Engine`."""
        if self._closed or self._pid != os.getpid():
            return False
        return self.loop.ask(lambda: self.loop.withdraw(task, self._nobody))

    def value(self, task: Task, index: int) -> object:
        """Decode one output; see `mars.engine.Engine`."""
        check_open(self._closed, self._pid)
        if task.stage is not Stage.DONE:
            raise failure_of(task)
        if task.released:
            raise no_value_of(task)
        if task.parts is not None:
            return item_of(task, task.call.index, self.store.decode)  # type: ignore[attr-defined]
        result = task.result if task.call.n_output is None else task.result[index]
        return codec.loads(result) if type(result) is bytes else self.store.decode(result)

    def decode(self, value: object) -> object:
        """A fresh object from a value."""
        check_open(self._closed, self._pid)
        return self.store.decode(cast("Value", value))  # as `Engine` has it: what results hold

    def pickled(self, value: object) -> tuple[Buffer, Sequence[Buffer]]:
        """A value as its pickle and its large buffers."""
        check_open(self._closed, self._pid)
        return self.store.pickled(cast("Value", value))

    def install(self, task: Task, value: object) -> None:
        """Give a task a value, or its values, that the driver has."""
        name, put = task.call.name, self.store.put
        if task.call.n_output is None:
            task.result = attempt_call.pack(value, name, put)
            task.stored = type(task.result) is not bytes
        else:
            task.result = tuple([attempt_call.pack(one, name, put) for one in value])  # type: ignore[attr-defined]
            task.stored = any(type(one) is not bytes for one in task.result)

    def failure(self, task: Task) -> BaseException:
        """The error of a task that failed."""
        return failure_of(task)

    def log(self, task: Task) -> LogSource | None:
        """What a task has printed so far."""
        if not task.attempt and not task.logs:
            return None
        return TaskLog(task, self.running_log, lambda: self.loop.over)

    def blocks_of(self, whole: Task) -> Sequence[Task]:
        """The blocks of a map that are under way; see `mars.engine.Engine`."""
        if self._closed or self._pid != os.getpid():
            return ()
        return self.loop.ask(
            lambda: [
                task
                for worker in self.loop.scheduler.workers.values()
                for task in worker.queue
                if task.source is whole
            ]
        )

    def limit_logs(self, limit: int | None) -> None:
        """Keep so many bytes of each call's log; see `mars.engine.Engine`."""
        self.loop.log_limit = math.inf if limit is None else limit

    def running_log(self, task: Task) -> Log | None:
        """The log of the attempt that runs now."""
        if task.worker is None or self._pid != os.getpid():
            return None
        return self.loop.ask(lambda: self.loop.running_log(task))

    def running_items(self, task: Task) -> Sequence[tuple[int, int, Log]]:
        """The items of a map that run now; see `mars.engine.Engine`."""
        if self._pid != os.getpid():
            return ()
        loop = self.loop
        look = loop.ask(lambda: loop.live.look_at(task))
        if look.missing:
            look.answered.wait(MARKS_WAIT_S)
            loop.post(lambda: loop.live.end(look))
        return list(look.found)

    def forget(self, task: Task) -> None:
        """The program holds no output of the task any more."""
        if task.finished and not task.stored and not self._submitting:
            if not task.consumers:
                task.released = True
                task.call.leave(task)
        elif not self._closed and self._pid == os.getpid():
            self.loop.forget(task)

    def close(self) -> None:
        """Stop everything; returns when no process is left."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _engines.discard(self)
        self.site.ending()
        with contextlib.ExitStack() as ending:  # from the last line to the first, whatever fails
            ending.callback(self.site.close)
            if self._pid == os.getpid():
                ending.callback(self._end)

    def _end(self) -> None:
        self.loop.close()
        deadline = time.monotonic() + LAST_LINES_S
        for shown in self._lines:
            shown.wait(max(0.0, deadline - time.monotonic()))
        self.objects.close()

    def inert(self) -> None:
        """In a process forked from the engine's: let go, touch nothing."""
        self._closed = True
        self.loop.forget_in_child()
        self.site.inert()

    def observe(self, since: int | None = None) -> Observation:
        """What there is now, and which attempts have ended; see `mars.engine.Engine`."""
        from mars.engines.driver.observing import observe  # late: most programs never look
        from mars.observe.observation import Observation, ended_attempts

        loop = self.loop
        if self._pid != os.getpid():
            return Observation(time.monotonic())  # the engine is the parent's
        seen, rows = loop.ask(
            lambda: observe(loop.scheduler, loop.runs, loop.printed, since, time.monotonic())
        )
        return seen if since is None else seen._replace(attempts=ended_attempts(rows))

    def table(self, since: int = 0, limit: int | None = None) -> Rows:
        """A part of the table of attempts; see `mars.engine.Engine`."""
        loop = self.loop
        if self._pid != os.getpid():
            return Attempts().since(0)
        rows = loop.ask(lambda: loop.scheduler.core.ended.since(since, limit))
        return rows._replace(now=time.monotonic(), cores=self.n_cpu)

    def kept_values(self, tasks: Sequence[Task], limit: int) -> Memory:
        """What values take, and whose they are; see `mars.engine.Engine`."""
        from mars.engines.driver.observing import memory  # late: most programs never look
        from mars.observe.observation import Memory

        if self._closed or self._pid != os.getpid():
            return Memory(0, 0, 0, 0, ())
        return memory(self.store, tasks, limit)

    def silent_calls(self, after_s: float) -> Sequence[str]:
        """Lines about calls that have printed nothing for long; see `mars.engine.Engine`."""
        return self._silence.lines(self._running_calls(), time.monotonic(), after_s)

    def usage(self, workers: Sequence[WorkerFacts]) -> Mapping[int, tuple[float, float, int]]:
        """What workers use; see `mars.engine.Engine`."""
        if self._closed or self._pid != os.getpid():
            return {}
        return self.site.usage(workers)

    def stack(self, worker: int) -> Sequence[str] | None:
        """What a worker does now; see `mars.engine.Engine`."""
        if self._closed or self._pid != os.getpid():
            return None
        for one in self.observe().workers:
            if one.number == worker:
                return self.site.stack(worker, one.pid)
        return None

    def _running_calls(self) -> list[RunningCall]:
        return [
            RunningCall(
                one.number, one.pid, one.name,
                (one.attempt, one.printed_bytes, one.progress), one.expected_s,
            )
            for one in self.observe().workers
            if one.attempt and not one.blocked  # what a blocked call waits for is looked at, too
        ]  # fmt: skip

    # -- shared objects -----------------------------------------------------------------------

    def create_object(
        self,
        session: str,
        name: str,
        cls: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> RemoteObject:
        """Make a shared object; see `mars.attempt.context.Context`."""
        self.objects.create(session, name, cls, args, kwargs)
        return self.get_object(session, name)

    def get_object(self, session: str, name: str) -> RemoteObject:
        """The shared object of that name."""
        self.objects.find(session, name)
        return RemoteObject(
            name, lambda name, method, args, kw: self.objects.call(session, name, method, args, kw)
        )

    def destroy_object(self, session: str, name: str) -> None:
        """Forget a shared object."""
        self.objects.destroy(session, name)

    def drop_objects(self, session: str) -> None:
        """Forget all shared objects of a session."""
        self.objects.drop_session(session)


def _variables() -> dict[bytes, bytes]:
    """The environment as it is kept, which compares a hundred times faster than `os.environ`."""
    kept = getattr(os.environ, "_data", None)
    if isinstance(kept, dict):
        return kept
    return {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}


def _changes(before: dict[bytes, bytes], now: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """Variables that have another value; None: that are gone."""
    changes: dict[bytes, bytes | None] = {
        name: value for name, value in now.items() if before.get(name) != value
    }
    changes.update(dict.fromkeys(before.keys() - now.keys()))
    for name in threads.NAMES:
        changes.pop(os.fsencode(name), None)
    return changes


_engines: weakref.WeakSet[DriverEngine] = weakref.WeakSet()


def _inert_all() -> None:
    for engine in list(_engines):
        engine.inert()
    _engines.clear()


os.register_at_fork(after_in_child=_inert_all)
