"""The contract that every engine fulfils, and a run: one `execute` on its way through an engine.

What holds after each call, also after one that failed, stands here; `tests/engines` runs the
same cases against every engine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from mars.errors import SessionClosed, UsageError
from mars.logs import LogSource
from mars.task import Call, Place, Realm, Stage, Task

TYPE_CHECKING = False  # known to type checkers; the module is loaded by engines that are asked
if TYPE_CHECKING:
    from mars.attempt.followed import Surroundings
    from mars.observe.attempts import Rows
    from mars.observe.observation import Memory, Observation, WorkerFacts
    from mars.storage import Storage
    from mars.task import Buffer


class Run:
    """One `execute`: the tasks it waits for, how many have ended, and how.

    The engine's scheduler counts; any thread may wait.

    Attributes
    ----------
    live : bool
        False as soon as the run has ended; tasks that no live run wants are not started.
    failure : Task or None
        The first task that failed.
    """

    # What most runs never set is here: an `execute` of one call makes a run, and objects with more
    # than 30 attributes of their own are slow to make and to read.
    live: bool = True
    made: int = 0  # calls that only feed others, and have done so
    failed: int = 0
    withdrawn: int = 0  # calls that the program has cancelled one by one
    failure: Task | None = None
    cancelled: bool = False
    error: BaseException | None = None  # the engine's own end, not a call's failure
    # What calls have of the program: sys.path, folder, the variables that it has changed, and
    # its settings, see `mars.attempt.followed`. None: as the calls before.
    surroundings: Surroundings | None = None
    number: int = 0  # how its engine calls it, in messages and in observations
    member: Any = None  # the worker that asked for it, when it is nested: a `Member`
    server: threading.Thread | None = None  # which ends it, and must not wait for it
    waits: Callable[[Run, float | None], bool] | None = None  # how, inside a worker
    # For checkpoints: told of each task, and each block of a map, that has ended well. The
    # engine first counts one more handle of its call, which whoever is told gives back.
    landed: Callable[[Task], object] | None = None
    # Told of each task that has ended in any way, for whoever iterates over the run.
    heard: Callable[[Task], object] | None = None
    beside: bool = False  # nobody waits for it in the thread that submits it
    # What it has in common with other runs: they store a large argument once, as long as one of
    # them is under way. None: nothing.
    series: object | None = None
    # Calls that earlier runs of the series have started. If one has failed, it stays failed.
    once: Collection[Call] = frozenset()
    reused: int = 0  # calls that a checkpoint had
    saved_s: float = 0.0  # what they took when they ran
    _waiter: threading.Thread | None = None

    def __init__(
        self,
        session_id: str,
        realm: Realm,
        *,
        stop_on_error: bool = True,
        entropy: int | None = 0,
        prefix: tuple[int, ...] = (),
        depth: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session_id = session_id
        self.realm = realm
        self.stop_on_error = stop_on_error
        self.entropy = entropy
        self.prefix = prefix
        self.depth = depth
        self.total = 0
        self.done = 0
        self.remaining = 0
        self.started_at = clock()
        self.tasks: Sequence[Task] = ()  # of a nested run
        self.partial: dict[Task, float] = {}  # set_progress of running tasks
        # Apart from the lock: Ctrl-C may strike a thread that waits between its taking of the lock
        # and its giving back.
        self._over = False
        self._ended = threading.Lock()
        self._ended.acquire()
        self._callbacks: list[Callable[[Run], object]] = []
        self._guard = threading.Lock()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether the run ended within ``timeout_s`` seconds; None waits for ever."""
        if self._over:
            return True
        if self.waits is not None:
            return self._wait_nested(timeout_s)
        if self.server is threading.current_thread() and not self.ended:
            raise UsageError(
                "a call was waited for in the engine's own thread, which would wait for itself for "
                "ever. Finalizers (__del__, weakref callbacks) run in any thread: let them ask for "
                "calls with execute(wait=False), or not at all"
            )
        if not self._ended.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0)):
            return False
        self._ended.release()
        return True

    def _wait_nested(self, timeout_s: float | None) -> bool:
        assert self.waits is not None
        if timeout_s is None and self._waiter is None:
            return self.waits(self, None)
        self.wait_beside()
        if not self._ended.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0)):
            return False
        self._ended.release()
        return True

    def wait_beside(self) -> None:
        """Inside a call: have a thread wait for the end, as only who waits hears of it."""
        if self._waiter is None and self.waits is not None:
            self._waiter = threading.Thread(
                target=self.waits, args=(self, None), name="mars-nested", daemon=True
            )
            self._waiter.start()

    @property
    def ended(self) -> bool:
        return self._over

    def end(self) -> None:
        """The engine is through with the run: wake everybody who waits."""
        self.live = False
        with self._guard:
            if self._over:
                return
            self._over = True
            self._ended.release()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def on_end(self, callback: Callable[[Run], object]) -> None:
        """Have ``callback`` called when the run ends, in the engine's thread; at once if it has.

        It is ours, and quick: code of the program is for `mars.delivery`.
        """
        with self._guard:
            if not self._over:
                self._callbacks.append(callback)
                return
        callback(self)

    def fraction(self) -> float:
        """Part of the run that is done, 0 to 1, with what running calls report of themselves."""
        if self.ended and not self.cancelled and self.failure is None and self.error is None:
            return 1.0
        if not self.total:
            return 0.0
        return min(1.0, (self.done + self.failed + self.partial_sum()) / self.total)

    def partial_sum(self) -> float:
        """What running calls have told of their own progress, added up."""
        return sum(
            fraction
            for task, fraction in list(self.partial.items())
            if task.stage is Stage.ASSIGNED
        )


class CallStream(Protocol):
    """Takes calls that have neither inputs nor large parts, one at a time.

    The `CallSet` of a call's options is told of its end. If the engine or the run ends before,
    `Run.end` tells it.
    """

    def add(self, call: Call, place: int) -> None:
        """Start a call soon; see `Engine.submit` for ``place``.

        Raises
        ------
        SessionClosed
            The engine has been closed.
        """


class Engine(Protocol):
    """Runs calls. Every method may be called from any thread."""

    address: str

    @property
    def loud(self) -> int:
        """How many attempts have written to stderr so far."""

    @property
    def shows_calls(self) -> bool:
        """Whether what calls print is on the program's terminal anyway."""

    @property
    def storage(self) -> Storage | None:
        """What calls open URLs with."""

    @property
    def n_cpu(self) -> float:
        """Cores that running calls share."""

    @property
    def worker_addresses(self) -> Sequence[str]:
        """Of the groups of workers, as they are now."""

    def submit(
        self, run: Run, calls: Sequence[Call], places: Sequence[Place], targets: Collection[Call]
    ) -> None:
        """Start ``calls``, inputs first; `Run.end` follows, whatever happens.

        An engine without processes may run them before it returns, unless `Run.beside` is set.

        ``places`` has each call's place for `mars.remote.rng`; ``targets`` are the calls that
        the program asked for, the others only feed them.

        Raises
        ------
        NoAvailableBand
            A call asks for more than any group of workers has; nothing was started.
        SessionClosed
            The engine has been closed.
        """

    def stream(self, realm: Realm, begin: Callable[[], Run]) -> CallStream | None:
        """What takes small calls one at a time, at a low price; None: nothing here does.

        ``begin`` makes a run when one is needed. It is called in the engine's thread.
        """

    def check(self, call: Call) -> None:
        """See to what a call needs, and refuse it if no worker can ever run it.

        Raises
        ------
        NoAvailableBand
            It asks for more than any group of workers has.
        SessionClosed
            The engine has been closed.
        """

    def cancel(self, run: Run) -> None:
        """End the run now; calls that only it wants are stopped, finished ones stay."""

    def withdraw(self, task: Task) -> bool:
        """Cancel one call, and all that need its value. Its runs go on without them.

        A call that runs is interrupted. False: it has ended, or no run is at it.

        Raises
        ------
        UsageError
            The engine cannot cancel single calls.
        """

    def value(self, task: Task, index: int) -> object:
        """Decode one output of a task that is done: a fresh value each time.

        Raises
        ------
        BaseException
            The task's failure, when it has failed.
        """

    def decode(self, value: object) -> object:
        """A fresh object from a value as this engine keeps it."""

    def pickled(self, value: object) -> tuple[Buffer, Sequence[Buffer]]:
        """A value as this engine keeps it, as its pickle and its large buffers."""

    def install(self, task: Task, value: object) -> None:
        """Give a task that never ran a value, or its values, as its result."""

    def failure(self, task: Task) -> BaseException:
        """The error of a task that failed, or of a block of items in which some did."""

    def log(self, task: Task) -> LogSource | None:
        """What the task has printed so far; None before its first attempt."""

    def running_items(self, task: Task) -> Sequence[tuple[int, int, LogSource]]:
        """The items of a map that run now, and items before them in the same block.

        Each comes as its index, the number of the attempt that runs it, and what it has printed.
        """

    def blocks_of(self, whole: Task) -> Sequence[Task]:
        """The blocks of a map that were sent to workers and have not ended, at this moment."""

    def limit_logs(self, limit: int | None) -> None:
        """Keep so many bytes of each call's log, half of them from its end; None: all."""

    def forget(self, task: Task) -> None:
        """The program holds no output of the task any more."""

    def observe(self, since: int | None = None) -> Observation:
        """What there is now, and which attempts have ended since; see `Observation`.

        It may be called at any time, also after `close`. It is made where the engine decides, so it
        shows one moment. An attempt is there as soon as anything that follows from its end is seen.

        Parameters
        ----------
        since : int, optional
            `Observation.next` of an earlier observation, 0 for all attempts that are kept.
            Default: no attempts.
        """

    def table(self, since: int = 0, limit: int | None = None) -> Rows:
        """A part of the table of attempts that have ended, packed.

        It may be called at any time, also after `close`. The engine's thread only copies the rows;
        `mars.observe.observation.each_attempt` decodes them where they are looked at.

        Parameters
        ----------
        since : int, default 0
            `Rows.next` of an earlier time. Default: all that are kept.
        limit : int, optional
            At most so many, the oldest of them. Default: all.
        """

    def kept_values(self, tasks: Sequence[Task], limit: int) -> Memory:
        """What the values that the engine keeps take, and which tasks have the largest of them.

        It may be called at any time; after `close` nothing is kept.

        Parameters
        ----------
        tasks : sequence of Task
            Tasks of the program, whose results are looked at.
        limit : int
            So many large values at most are told one by one.
        """

    def silent_calls(self, after_s: float) -> Sequence[str]:
        """Lines about running calls that have printed nothing for so many seconds.

        Each call is told of once, then each time its silence has doubled.
        """

    def usage(self, workers: Sequence[WorkerFacts]) -> Mapping[int, tuple[float, float, int]]:
        """What the processes of workers use, by the worker's number; without those not known.

        Of each: the moment it was looked at, in seconds, processor seconds that it has had, and its
        memory in bytes. Moments of one worker are of one clock. On a cluster it is what nodes have
        told last, and they are asked to tell it again.

        Parameters
        ----------
        workers : sequence of WorkerFacts
            Those that are asked about, as `Observation.workers` has them.
        """

    def stack(self, worker: int) -> Sequence[str] | None:
        """What a worker process does now: in a line, and below it the stack of its call.

        The most recent frame comes first. None: there is no such worker, or the node that it is on
        does not say. It may take some seconds. The call notices nothing.
        """

    def create_object(
        self,
        session: str,
        name: str,
        cls: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        """Make an object that all calls of the session share by name.

        Raises
        ------
        ValueError
            There is one of that name.
        """

    def get_object(self, session: str, name: str) -> object:
        """What stands for the shared object of that name.

        Raises
        ------
        KeyError
            There is none.
        """

    def destroy_object(self, session: str, name: str) -> None:
        """Forget a shared object.

        Raises
        ------
        KeyError
            There is none.
        """

    def drop_objects(self, session: str) -> None:
        """Forget all shared objects of a session, which has ended."""

    def close(self) -> None:
        """Stop everything the engine started; idempotent."""


class SessionRealm:
    """What the tasks of one session belong to.

    Attributes
    ----------
    engine : Engine
        The engine that the session uses.
    session_id : str
        Id of the session, for messages.
    closed : bool
        Whether the session has ended.
    """

    __slots__ = ("closed", "engine", "session_id")

    def __init__(self, engine: Engine, session_id: str = "") -> None:
        self.engine = engine
        self.session_id = session_id
        self.closed = False

    def forget(self, task: Task) -> None:
        """The program no longer holds an output of the task."""
        self.engine.forget(task)

    def check_open(self) -> None:
        """Refuse to go on if the session has ended.

        Raises
        ------
        SessionClosed
            It has.
        """
        if self.closed:
            raise SessionClosed
