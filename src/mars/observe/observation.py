"""What an engine tells of itself at one moment: runs, groups, workers, and attempts that ended.

`Engine.observe` gives an `Observation`. It is made in the engine's own thread and never changes, so
any thread may read it. All views of an engine are readers of observations: the progress bar, the
notices about silent calls, and what shows attempts over time. Pure; loaded when somebody looks.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mars.engines.wire.messages import FLAG_FAILURES
from mars.engines.wire.status import RETURNED
from mars.observe.attempts import ENDINGS, ERROR, LINK, NOTED, VALUE, Rows, Times
from mars.task import RECORD, key_of


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
    function : str
        Name of the function.
    cpus : float
        Cores that it had.
    queued, ready, sent : float
        As in `Times`; also of attempts whose worker could not tell the rest.
    ended : float
        When it ended, in seconds of the program's `time.monotonic`; 0: not known.
    cpu_s : float
        Seconds of processor time, user and system, of all threads of its process while the function
        ran. A call of less than 1 ms is taken to have been on a processor all the time.
    read_bytes, written_bytes : int
        Size of the arguments and inputs that were read, and of the result, as they are pickled.
    longest_s : float
        Of a block of a map: how long the longest of its items took; 0 if nobody looked, which is so
        in blocks of more than 100 items.
    serial : int
        The number of the call in the program; of it, `call` is made.
    gpus : float
        GPUs that it had.
    gpu_memory_bytes : int or None
        Memory that it had on them, as often as somebody looked the most; None: NVML does not tell.
    gpu_utilisation : float or None
        Part of its time in which its GPUs were in use, by it or by others, 0 to 1; None: NVML does
        not tell.
    arguments : int
        A checksum of the arguments: calls of a function with equal ones have equal numbers. 0: the
        call has inputs, or took less than 1 ms.
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
    function: str = ""
    cpus: float = 1.0
    queued: float = 0.0
    ready: float = 0.0
    sent: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    longest_s: float = 0.0
    serial: int = 0
    arguments: int = 0
    gpus: float = 0
    gpu_memory_bytes: int | None = None
    gpu_utilisation: float | None = None


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
        Those that have ended since the cursor that was asked for, in that order.
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


class StoredFacts(NamedTuple):
    """One large value that an engine keeps.

    Attributes
    ----------
    size_bytes : int
        How large it is.
    task : int
        Which of the tasks that were asked about has it as its result, or as a part of it. -1: none.
    what : str
        Of what no task has: ``"argument"``, ``"function"``, or ``""``: nobody says what it is.
    on_disk : bool
        Whether it is in a file on disk, as there was no room in memory.
    maker : int
        The number of the worker that wrote it; 0: the program did.
    readers : tuple of int
        Numbers of the workers that may have it mapped; 0 is the program.
    """

    size_bytes: int
    task: int
    what: str
    on_disk: bool
    maker: int
    readers: tuple[int, ...]


class Memory(NamedTuple):
    """What the values that an engine keeps take at one moment.

    Attributes
    ----------
    used_bytes, limit_bytes : int
        Memory of large values of all processes, and how much it may be. 0: there is no limit.
    disk_bytes : int
        Large values that are on disk.
    small_bytes : int
        Results of the tasks that were asked about which are too small for an arena.
    stored : tuple of StoredFacts
        The largest of the large values, largest first.
    others, others_bytes : int
        How many further ones there are, and what these take.
    """

    used_bytes: int
    limit_bytes: int
    disk_bytes: int
    small_bytes: int
    stored: tuple[StoredFacts, ...]
    others: int = 0
    others_bytes: int = 0


def ended_attempts(rows: Rows) -> tuple[EndedAttempt, ...]:
    """The attempts of a part of the table, first to last."""
    return tuple(each_attempt(rows))


def each_attempt(rows: Rows, waited: Mapping[int, float] | None = None) -> Iterator[EndedAttempt]:
    """The attempts of a part of the table, one after the other.

    One takes about 1 KB of memory as an object, and about 140 bytes in the table. Whoever looks at
    many goes through them like this.

    Parameters
    ----------
    rows : Rows
        The part.
    waited : mapping of int to float, optional
        Of calls with inputs, seconds from queued to ready, as `each_link` tells them. Whoever looks
        at many small parts keeps them. Default: they are looked up in ``rows``.
    """
    labels, workers, runs, changes = rows.labels, rows.workers, rows.runs, rows.changes
    dropped, on_gpus = rows.dropped, rows.on_gpus
    data, unpack, size_of = rows.data, RECORD.unpack_from, RECORD.size
    sent_from, sent_at = rows.sent
    ready_after = waited
    if ready_after is None:
        ready_after = {serial: waited_s for serial, waited_s, _ in each_link(rows)}
    nobody = "", "", 0, None, None, 0
    position, at = 0, rows.first
    for count, worker in rows.pieces:
        group, node, pid, _, _, ahead_ns = workers.get(worker, nobody)
        for _ in range(count):
            (number, status, flags, log_start, log_end, received, decoded, called, returned, stored,
             peak_kib, cpu_s, read, written, longest_s, serial, run, label, size, tries,
             same, length,
            ) = unpack(data, position)  # fmt: skip
            position += size_of + length
            at += 1
            failed = 0
            if status >= NOTED:
                failed, log_start = log_start, 0
                ending = status - NOTED
                ahead = 0  # the engine has noted it by its own clock
            elif status == RETURNED:
                continue  # it has not been started
            else:
                ahead = ahead_ns
                ending = ERROR if status != VALUE or flags & FLAG_FAILURES else VALUE
            if status < NOTED:
                if number in dropped and dropped[number] < at:
                    continue
                if number in changes:
                    ending, failed = changes[number]
            name, function, cpus, gpus = labels.get(label) or ("", "", 1.0, 0)
            found = bisect_right(sent_from, number) - 1
            sent = sent_at[found] if found >= 0 else 0.0
            _, depth, _, queued, _ = runs.get(run) or ("", 0, 0, sent, None)
            waited_s = ready_after.get(serial & 0xFFFFFFFF, 0.0)
            ready = queued + waited_s if waited_s >= 0 else 0.0
            times = None
            ended = stored * 1e-9
            if received:
                ended = (stored - ahead) * 1e-9
                begun = (received - ahead) * 1e-9
                times = Times(
                    queued, ready, sent or begun, begun, (decoded - ahead) * 1e-9,
                    (called - ahead) * 1e-9, (returned - ahead) * 1e-9, ended,
                )  # fmt: skip
                if cpu_s < 0:
                    cpu_s = (returned - called) * 1e-9
            yield EndedAttempt(
                number, key_of(serial), name, size, run, depth, tries + 1, group, worker, node, pid,
                ENDINGS[ending], times, log_end - log_start, peak_kib * 1024, failed, function,
                cpus, queued, ready, sent, ended, max(cpu_s, 0.0), int(read), int(written),
                longest_s, serial, same, gpus, *(on_gpus.get(number) or (None, None)),
            )  # fmt: skip


def each_link(rows: Rows, begin: int = 0) -> Iterator[tuple[int, float, tuple[int, ...]]]:
    """Of calls with inputs: serial, seconds from queued to ready (-1: not known), and inputs.

    Serials are the low 32 bits of `EndedAttempt.serial`. ``begin`` is a length that `Rows.links`
    had before: what is new since.
    """
    position, links = begin, rows.links
    while position < len(links):
        serial, waited_s, count = LINK.unpack_from(links, position)
        position += LINK.size
        yield serial, waited_s, struct.unpack_from(f"<{count}I", links, position)
        position += 4 * count
