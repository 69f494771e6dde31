"""When an attempt went through its stages, and where each one ran.

`Times` is the one table that all views of time are made from. Pure. On one machine the driver's
clock and the workers' are one, the machine's monotonic clock. Attempts are noted in their task
where they end, by whoever hears of it: the scheduler, or the inline engine.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

from typing import NamedTuple

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
