"""What an engine tells of itself at one moment: runs, groups, workers, and attempts that ended.

`Engine.observe` gives an `Observation`. It is made in the engine's own thread and never changes, so
any thread may read it. All views of an engine are readers of observations: the progress bar, the
notices about silent calls, and what shows attempts over time. Pure; loaded when somebody looks.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

from collections.abc import Iterable
from typing import Any, NamedTuple

from mars.observe.attempts import Times
from mars.task import TIMING, key_of


class EndedAttempt(NamedTuple):
    """One attempt that has ended, in any way.

    Attributes
    ----------
    number : int
        The number of the attempt in its engine. An attempt appears twice if its value was lost with
        its node after it had ended well; the second time its ending is ``"lost"``.
    call : str
        `Call.key` of the call. Blocks of a map have the key of the map.
    name : str
        The call's name.
    size : int
        How many calls it counts for: of a block of a map, its items.
    run : int
        The number of the run that it was made for.
    depth : int
        How deep it is nested: 0 for calls of the program itself.
    attempt : int
        1 for the first attempt of the call, 2 for the next one.
    group : str
        Address of the group of workers that it ran in.
    worker : int
        Number of the worker that it ran in.
    node : str
        Name of the host, as in `Attempt`.
    pid : int
        Process id of the worker there.
    ending : str
        ``"value"``, ``"error"``, ``"stopped"``, ``"died"``, ``"lost"`` or ``"unknown"``, as in
        `Attempt`.
    times : Times or None
        When it went through its stages; None if its worker died and could not tell.
    log_bytes : int
        How much it has printed.
    peak_bytes : int
        Memory that its process took; 0 if nobody looked.
    failed_items : int
        Of a block of a map: how many of its items raised. Its ending is ``"error"`` then, although
        the others have values.
    """

    number: int
    call: str
    name: str
    size: int
    run: int
    depth: int
    attempt: int
    group: str
    worker: int
    node: str
    pid: int
    ending: str
    times: Times | None
    log_bytes: int
    peak_bytes: int
    failed_items: int


class RunFacts(NamedTuple):
    """One run that has not ended. The counts are those of `Run`."""

    number: int
    session: str
    depth: int
    total: int
    done: int
    failed: int
    running: int  # workers that run a call of it now


class GroupFacts(NamedTuple):
    """One group of workers: on a cluster, one node."""

    address: str
    cpus: float
    free: float  # cores that no running call has
    workers: int


class WorkerFacts(NamedTuple):
    """One worker, and the call that it runs.

    Attributes
    ----------
    ready : bool
        False until its process has said that it is there.
    queued : int
        Calls that were sent to it and have not ended; the first of them runs.
    blocked : bool
        Its call waits for calls of its own.
    call, name : str
        Key and name of the call that it runs; empty: it runs none.
    runs : tuple of int
        Numbers of the runs that have asked for this call.
    attempt : int
        The number of the attempt that it runs; 0: none.
    sent : float
        When the call was sent to it, in seconds of the program's `time.monotonic`.
    printed_bytes : int
        How much the worker has printed, with all calls.
    progress : tuple of float or None
        What the call has told of its own progress, for each of its runs.
    expected_s : float
        Seconds that earlier calls of the function have taken; 0: none has ended.
    items : tuple of (int, int) or None
        Of a block of a map: its first item, and how many there are. None: it runs a single call.
    """

    number: int
    group: str
    node: str
    pid: int
    ready: bool
    queued: int
    blocked: bool
    call: str
    name: str
    runs: tuple[int, ...]
    attempt: int
    sent: float
    printed_bytes: int
    progress: tuple[float | None, ...]
    expected_s: float
    items: tuple[int, int] | None = None


class Observation(NamedTuple):
    """An engine at one moment.

    Attributes
    ----------
    now : float
        The moment, in seconds of the program's `time.monotonic`.
    runs, groups, workers : tuple
        What there is at this moment. Runs that have ended are not there.
    attempts : tuple of EndedAttempt
        Those that have ended since the cursor that was asked for, in that order. Those that ended
        with a value before anybody had asked for attempts are not there.
    next : int
        The cursor for the next time: what ends from now on.
    missed : int
        Attempts after the cursor that are not kept any more, because too many have ended.
    """

    now: float
    runs: tuple[RunFacts, ...] = ()
    groups: tuple[GroupFacts, ...] = ()
    workers: tuple[WorkerFacts, ...] = ()
    attempts: tuple[EndedAttempt, ...] = ()
    next: int = 0
    missed: int = 0

    def running(self, run: int) -> int:
        """How many workers run a call of the run with this number."""
        return sum(run in one.runs for one in self.workers)


def ended_attempts(kept: Iterable[tuple[Any, ...]]) -> tuple[EndedAttempt, ...]:
    """Records of attempts that `mars.observe.attempts.Attempts` keeps as plain tuples."""
    records = []
    for fact in kept:
        (number, serial, name, size, run, depth, before, worker, ending,
         queued, ready, sent, timing, printed, peak, failed_items) = fact  # fmt: skip
        node, pid = worker.where  # known now, if not when the attempt ended
        times = None
        if timing is not None:
            there = [moment * 1e-9 for moment in TIMING.unpack(timing)]
            times = Times(queued, ready, sent or there[0], *there)
        records.append(
            EndedAttempt(number, key_of(serial), name, size, run, depth, before + 1,
                         worker.address, worker.id, node, pid, ending, times, printed or 0, peak,
                         failed_items)
        )  # fmt: skip
    return tuple(records)
