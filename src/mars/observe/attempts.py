"""When an attempt went through its stages, where it ran, and the table of attempts that have ended.

Whoever hears that an attempt has ended notes it: the scheduler, or the inline engine. It does so in
the task, for `Object.attempts`, and in the engine's table `Attempts`, for `Engine.observe`. On one
machine the clocks of the program and its workers are one, the machine's monotonic clock. Pure.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

from collections import deque
from typing import Any, NamedTuple

from mars.settings import ATTEMPTS_KEPT
from mars.task import TIMING, Task


class Times(NamedTuple):
    """Eight moments of an attempt, in seconds of the program's `time.monotonic`.

    What a worker on another host saw is put into the program's time. That is wrong by half of the
    time that a message takes there and back, at the most; so there a call may seem to have been
    received a moment before it was sent.

    Attributes
    ----------
    queued : float
        Its run was submitted.
    ready : float
        All inputs were there. A call that is sent behind its inputs is sent before that.
    sent : float
        It was sent to a worker.
    received : float
        The worker took it from its queue.
    decoded : float
        Its function, inputs and arguments were there as objects.
    called : float
        The function was called.
    returned : float
        The function returned, or raised.
    stored : float
        The result was kept.
    """

    queued: float
    ready: float
    sent: float
    received: float
    decoded: float
    called: float
    returned: float
    stored: float

    @property
    def waiting_s(self) -> float:
        """Seconds from queued to received."""
        return self.received - self.queued

    @property
    def running_s(self) -> float:
        """Seconds that the function ran."""
        return self.returned - self.called


class Attempt(NamedTuple):
    """One attempt of a call that has ended.

    Attributes
    ----------
    node : str
        Name of the host; on a cluster with the node's address, as ``two (tls://10.0.0.3:41119)``.
    worker : int
        Process id of the worker there.
    ending : str
        ``"value"``, ``"error"``, ``"stopped"`` (by a timeout or a cancel), ``"died"`` (its worker
        did), ``"lost"`` (its value, with its node, before the program had it) or ``"unknown"``
        (its node was lost while it was queued there, so nobody knows whether it has begun).
    """

    node: str
    worker: int
    ending: str


class Attempts:
    """The attempts of one engine that have ended. Only the newest are kept.

    Attempts that end with a value are noted only once somebody watches. To note one takes 0.4 us, a
    twentieth of all that the scheduler does for a call (benchmark `scheduler_alone`), and most
    programs are never watched. All other attempts are always noted.

    Each is a plain tuple, because one is made for each call. `mars.observe.observation` makes an
    `EndedAttempt` of it when somebody asks.

    Parameters
    ----------
    limit : int
        So many are kept.

    Attributes
    ----------
    kept : deque of tuple
        The newest, oldest of them first. Only the engine's thread changes and reads it.
    count : int
        All that have been noted.
    watched : bool
        Whether somebody has asked for attempts.
    """

    __slots__ = ("count", "kept", "watched")

    def __init__(self, limit: int = ATTEMPTS_KEPT) -> None:
        self.kept: deque[tuple[Any, ...]] = deque(maxlen=limit)
        self.count = 0
        self.watched = False

    def since(self, cursor: int) -> list[tuple[Any, ...]]:
        """Those noted after the first ``cursor`` ones, as far as they are kept."""
        self.watched = True
        new = self.count - cursor
        if new <= 0:
            return []
        kept = list(self.kept)
        return kept[-new:] if new < len(kept) else kept


def attempts_of(task: Task) -> list[Attempt]:
    """The attempts of a task that have ended, first to last; none if a checkpoint had it.

    Parameters
    ----------
    task : Task
        Of an item of a map: the item's own.
    """
    return [Attempt(*one) for one in task.attempts()]


def times_of(task: Task) -> Times | None:
    """The moments of a task's last attempt; None before it has ended."""
    if task.timing is None:
        return None
    block = task if task.source is None else task.source
    there = [moment * 1e-9 for moment in TIMING.unpack(task.timing)]
    return Times(block.queued_at, block.ready_at, task.sent_at or there[0], *there)
