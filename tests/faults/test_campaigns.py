"""Faults in large numbers, at moments that chance picks: nothing lost, nothing left, nobody hangs.

Each test has a slice that always runs, and a campaign (`make faults`). That faults happened is
part of what is tested: a run in which nothing was hit proves nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr
from mars.errors import DependencyFailed, NotExecuted, TaskCancelled, TaskTimeout, WorkerDied
from tests.faults.campaign import SEED, lengths
from tests.faults.conftest import Program

np = pytest.importorskip("numpy")

Start = Callable[..., Program]
Wait = Callable[..., None]

HANG_S = 30.0
"""No run here takes seconds: one that takes so long hangs."""

# -- drivers that are killed ---------------------------------------------------------------------

DRIVER = """
import os, subprocess, sys, time
print("starts", flush=True)
import numpy as np
import mars, mars.remote as mr

def small(i):
    print("working", i)
    if i % 16 == 5:
        subprocess.Popen(["sleep", "60"])
    time.sleep(0.002)
    return i

def large(i):
    return np.full(1 << 18, i)

def outer(i):
    return mr.ExecutableTuple([mr.spawn(small, args=(i + k,)) for k in range(3)]).execute().fetch()

session = mars.new_session(n_cpu=2)
shared = np.zeros(1 << 20)
while True:
    calls = [mr.spawn(small, args=(i,)) for i in range(20)]
    calls += [mr.spawn(large, args=(i,)) for i in range(6)]
    calls += [mr.spawn(outer, args=(i,)) for i in range(3)]
    calls.append(mr.spawn(lambda x, y: len(x), args=(shared, calls[21])))
    values = mr.ExecutableTuple(calls).execute().fetch()
    mr.map(small, range(50)).execute()
"""

AT_A_TIME = 3


@lengths("count", 6, 100, 600)
def test_a_driver_killed_at_any_moment_leaves_nothing_after_two_seconds(
    count: int, program: Start, within: Callable[[float], float]
) -> None:
    """In the import, the start of workers, calls that make calls, and large values on their way."""
    chance = random.Random(SEED)
    for _ in range(0, count, AT_A_TIME):
        drivers = [(program(DRIVER), chance.uniform(0.0, 1.5)) for _ in range(AT_A_TIME)]
        for one, _ in drivers:
            assert one.line() == "starts"
        begin = time.monotonic()
        for one, moment in sorted(drivers, key=lambda pair: pair[1]):
            # The moment is the input of this test; nothing is waited for.
            time.sleep(max(0.0, begin + moment - time.monotonic()))
            os.kill(one.process.pid, signal.SIGKILL)
            assert one.wait() == -signal.SIGKILL
            one.assert_nothing_left(within(2.0))
            assert one.errors() == ""


# -- workers that are killed ---------------------------------------------------------------------


def sign(ledger: str, index: int) -> int:
    """Note an attempt; its lock tells the next one, should that begin too early.

    The kernel frees the lock with the process, so who finds it taken runs beside another.
    """
    descriptor = os.open(ledger, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    word = "begins"
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
    except OSError:
        word = "overlaps"
    os.write(descriptor, f"{index} {word} {os.getpid()}\n".encode())
    return descriptor


def begun(ledger: Path) -> Counter[int]:
    """Attempts per call; none of them overlapped."""
    text = ledger.read_text() if ledger.exists() else ""
    assert "overlaps" not in text
    lines = [line.split() for line in text.splitlines()]
    return Counter(int(index) for index, word, _ in lines if word == "begins")


def zygote() -> psutil.Process | None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "mars.engines.local.zygote" in " ".join(child.cmdline()):
                return child
    return None


def workers() -> list[psutil.Process]:
    parent = zygote()
    with contextlib.suppress(psutil.Error):
        return [] if parent is None else parent.children()
    return []


class Striker:
    """Strikes from a thread of its own until the end of the ``with``."""

    def __init__(self, chance: random.Random, mean_s: float, strike: Callable[[], bool]) -> None:
        self.count = 0
        self._chance = chance
        self._mean_s = mean_s
        self._strike = strike
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(self._mean_s * self._chance.uniform(0.5, 1.5)):
            self.count += self._strike()

    def __enter__(self) -> Striker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def kill_one(chance: random.Random) -> bool:
    found = workers()
    if not found:
        return False
    victim = chance.choice(found)
    try:
        victim.kill()
        return True
    except psutil.NoSuchProcess:
        return False


@lengths("count", 300, 10_000, 900)
def test_random_kills_lose_nothing_double_nothing_and_spoil_nothing(
    count: int, session: mars.session.Session, still_works: None, tmp_path: Path
) -> None:
    def work(ledger: str, index: int) -> bytes:
        descriptor = sign(ledger, index)
        time.sleep(0.005)
        os.close(descriptor)
        return index.to_bytes(8, "little") * 128

    ledger = tmp_path / "ledger"
    chance = random.Random(SEED)
    calls = [mr.spawn(work, args=(str(ledger), index)) for index in range(count)]
    with Striker(chance, 0.1, lambda: kill_one(chance)) as striker:
        running = mr.ExecutableTuple(calls).execute(wait=False)
        running.result(timeout=HANG_S + 0.1 * count)
    assert striker.count >= count // 100
    for index, call in enumerate(calls):
        assert call.fetch() == index.to_bytes(8, "little") * 128
    attempts = begun(ledger)
    assert sorted(attempts) == list(range(count))
    # A kill costs one attempt. Some hit workers that were idle or about to start.
    assert count <= attempts.total() <= count + striker.count


def first_line(ledger: Path, count: int, word: str) -> list[str]:
    """Wait, briefly polling, until so many lines with that word are there; the last one's words."""
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:
        text = ledger.read_text() if ledger.exists() else ""
        found = [line.split() for line in text.splitlines() if word in line]
        if len(found) >= count:
            return found[-1]
        time.sleep(0.0002)
    raise AssertionError(f"{ledger.name} has no {count} lines with {word!r}")


def kill_pid(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@lengths("count", 5, 100, 900)
def test_a_kill_while_a_large_result_is_written_leaves_no_part_of_it(
    count: int, session: mars.session.Session, still_works: None, tmp_path: Path
) -> None:
    def make(ledger: str, index: int, size: int) -> Any:
        value = np.full(size // 8, index, dtype=np.int64)
        os.close(sign(ledger, index))
        return value

    def span(size: int) -> float:
        """Seconds from the end of the function to the end of the call."""
        ledger = tmp_path / f"undisturbed-{size}"
        running = mr.spawn(make, args=(str(ledger), 0, size)).execute(wait=False)
        first_line(ledger, 1, "begins")
        begin = time.monotonic()
        running.result(timeout=HANG_S)
        return time.monotonic() - begin

    chance = random.Random(SEED)
    spans = {size: span(size) for size in (8 << 20, 64 << 20, 256 << 20)}
    again = 0
    for index in range(count):
        size = chance.choice(list(spans))
        ledger = tmp_path / f"ledger-{index}"
        call = mr.spawn(make, args=(str(ledger), index, size))
        running = call.execute(wait=False)
        pid = int(first_line(ledger, 1, "begins")[2])
        # The moment is the input of this test; nothing is waited for.
        time.sleep(chance.uniform(0.0, spans[size]))
        kill_pid(pid)
        running.result(timeout=HANG_S)
        value = call.fetch()
        assert value.nbytes == size and (value == index).all()
        attempts = begun(ledger)[index]
        assert attempts <= 2
        again += attempts == 2
        del call, running, value
    assert again, "no kill came before the result was there"


@lengths("count", 20, 1000, 900)
def test_a_kill_after_the_result_was_reported_runs_nothing_again(
    count: int, session: mars.session.Session, still_works: None, tmp_path: Path
) -> None:
    """Also right behind the function's end, where the result may not be there: used once then."""

    def produce(ledger: str, index: int) -> Any:
        os.close(sign(ledger, index))
        return np.full(20_000, index)

    def consume(ledger: str, index: int, value: Any) -> int:
        os.close(sign(ledger, count + index))
        time.sleep(0.002)
        return int(value.sum())

    chance = random.Random(SEED)
    for index in range(count):
        ledger = tmp_path / f"ledger-{index}"
        made = mr.spawn(produce, args=(str(ledger), index))
        used = mr.spawn(consume, args=(str(ledger), index, made))
        running = used.execute(wait=False)
        pid = int(first_line(ledger, 1, "begins")[2])
        # The moment is the input of this test; nothing is waited for.
        time.sleep(chance.uniform(0.0, 0.003))
        kill_pid(pid)
        running.result(timeout=HANG_S)
        assert used.fetch() == 20_000 * index
        attempts = begun(ledger)
        assert attempts[index] <= 2 and attempts[count + index] <= 2
        order = [int(line.split()[0]) for line in ledger.read_text().splitlines()]
        committed = order.index(count + index)
        assert index not in order[committed:], "a result that had been used was made again"


# -- interrupts ----------------------------------------------------------------------------------

INTERRUPTED = """
import os, random, signal, sys, threading, time
import mars, mars.remote as mr

def work(x, *inputs):
    time.sleep(0.0005)
    return x + sum(inputs)

session = mars.new_session(n_cpu=2)
mr.spawn(work, args=(1,)).execute()
chance = random.Random(int(sys.argv[1]))
slowest, inside = 0.0, 0

def interrupt(delay):
    global struck
    time.sleep(delay)
    struck = time.monotonic()
    os.killpg(os.getpgrp(), signal.SIGINT)  # as a terminal does: workers get it, too

for turn in range(int(sys.argv[2])):
    calls = [mr.spawn(work, args=(i,)) for i in range(60)]
    total = mr.spawn(work, args=(0, *calls))
    ended = False
    thread = threading.Thread(target=interrupt, args=(chance.uniform(0.0, 0.03),))
    try:
        thread.start()
        if turn % 3:
            total.execute()
        else:
            mr.map(work, range(60)).execute()
        ended = True
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        slowest = max(slowest, time.monotonic() - struck)
        inside += not ended
    thread.join()
    # The very same calls, some of them done, some stopped, some never begun.
    assert total.execute(wait=False).result(timeout=20).fetch() == sum(range(60)), turn
print(inside, slowest, flush=True)
session.stop_server()
"""


@lengths("count", 10, 200, 600)
def test_ctrl_c_at_any_moment_returns_within_a_second_and_the_session_works_on(
    count: int, program: Start, within: Callable[[float], float]
) -> None:
    one = program(INTERRUPTED, str(SEED), str(count))
    assert one.wait(HANG_S + count) == 0, one.errors()
    inside, slowest = one.line().split()
    assert int(inside) >= count // 4, "most interrupts struck after the end"
    assert float(slowest) < within(1.0)
    one.assert_nothing_left()


# -- all at once ---------------------------------------------------------------------------------


class Mischief(Exception):
    """What some calls raise."""


def quick(ledger: str, index: int) -> int:
    descriptor = sign(ledger, index)
    time.sleep(0.002)
    os.close(descriptor)
    return index


def large(ledger: str, index: int) -> Any:
    descriptor = sign(ledger, index)
    value = np.full(1 << 18, index)
    os.close(descriptor)
    return value


def fails(ledger: str, index: int) -> None:
    os.close(sign(ledger, index))
    raise Mischief(index)


def leaves(ledger: str, index: int) -> None:
    sign(ledger, index)
    os._exit(3)


def sleeps(ledger: str, index: int) -> None:
    sign(ledger, index)
    time.sleep(60)


def joins(ledger: str, index: int, left: int, right: Any) -> int:
    descriptor = sign(ledger, index)
    total = left + int(right[-1])
    os.close(descriptor)
    return total


def asks(ledger: str, index: int) -> int:
    descriptor = sign(ledger, index)
    inner = [mr.spawn(pow, args=(index + k, 1)) for k in range(2)]
    total = sum(mr.ExecutableTuple(inner).execute().fetch())
    os.close(descriptor)
    return total


class Client:
    """Executes groups of calls until the end, and checks how each of them has ended."""

    def __init__(self, ledger: Path, chance: random.Random, indices: Iterator[int]) -> None:
        self.ledger = ledger
        self.chance = chance
        self.indices = indices
        self.outcomes: Counter[str] = Counter()
        self.once: list[int] = []  # calls that may begin once
        self.error: BaseException | None = None

    def serve(self, until: float) -> None:
        try:
            while time.monotonic() < until:
                self.group()
        except BaseException as error:
            self.error = error

    def call(self, kind: str, before: dict[str, Any]) -> tuple[Any, Any]:
        """A call, and what it may come to."""
        index = next(self.indices)
        args = (str(self.ledger), index)
        if kind == "quick":
            return mr.spawn(quick, args=args), index
        if kind == "large":
            return mr.spawn(large, args=args), index
        if kind == "fails":
            return mr.spawn(fails, args=args), Mischief
        if kind == "sleeps":
            return mr.spawn(sleeps, args=args, timeout=0.1), TaskTimeout
        if kind == "asks":
            return mr.spawn(asks, args=args), 2 * index + 1
        if kind == "joins":
            (left, first), (right, second) = before["quick"], before["large"]
            return mr.spawn(joins, args=(*args, left, right)), first + second
        self.once.append(index)
        if kind == "leaves":
            return mr.spawn(leaves, args=args, idempotent=False), WorkerDied
        return mr.spawn(quick, args=args, idempotent=False), index

    def group(self) -> None:
        chance = self.chance
        kinds = ["quick", "large", *chance.choices(KINDS, WEIGHTS, k=chance.randrange(20))]
        before: dict[str, Any] = {}
        calls = []
        for kind in kinds:
            call, expected = self.call(kind, before)
            before[kind] = (call, expected)
            calls.append((kind, call, expected))
        running = mr.ExecutableTuple([call for _, call, _ in calls]).execute(
            wait=False, on_error="continue"
        )
        cancelled = chance.random() < 0.2
        if cancelled:
            # The moment is an input; nothing is waited for.
            time.sleep(chance.uniform(0.0, 0.05))
            running.cancel()
        try:
            running.result(timeout=HANG_S)
            stopped = False
        except CancelledError:
            assert cancelled
            stopped = True
        for kind, call, expected in calls:
            ended = self.check(kind, call, expected, stopped)
            again = self.check(kind, call, expected, stopped)
            # What ran when it was cancelled may need a moment until it has ended.
            assert again == ended or (stopped and ended == "NotExecuted"), "it ended twice"
            self.outcomes[ended] += 1

    @staticmethod
    def check(kind: str, call: Any, expected: Any, stopped: bool) -> str:
        """How a call has ended; fails if it may not."""
        value: Any = None
        error: BaseException | None = None
        try:
            value = call.fetch()
        except Exception as caught:
            error = caught
        match error:
            case None:
                shape = (1 << 18,) if kind == "large" else ()
                fine = np.shape(value) == shape and bool((np.asarray(value) == expected).all())
            case TaskCancelled() | NotExecuted():
                fine = stopped
            case WorkerDied():
                fine = kind in ("once", "leaves") or error.attempt == 4
            case DependencyFailed():
                cause = error.__cause__
                fine = kind == "joins" and (
                    isinstance(cause, WorkerDied) or (stopped and isinstance(cause, TaskCancelled))
                )
            case _:
                fine = type(error) is expected
        assert fine, f"{kind} came to {value!r} / {error!r}, from {error and error.__cause__!r}"
        return "value" if error is None else type(error).__name__


KINDS: Sequence[str] = ("quick", "once", "large", "joins", "asks", "fails", "leaves", "sleeps")
WEIGHTS: Sequence[int] = (8, 6, 4, 4, 3, 3, 2, 1)


def disturb(chance: random.Random, counts: Counter[str], begun_now: Callable[[], int]) -> bool:
    """Kill a worker, or stop it for a while; rarely the zygote.

    Nothing is killed before a call has begun since the last kill. On a machine that is too busy to
    start a worker meanwhile, kills alone would make the engine give up, as it should.
    """
    what = chance.choices(("kill", "stop", "zygote"), (6, 5, 1))[0]
    if what != "stop":
        now = begun_now()
        if now == counts["begun at the last kill"]:
            return False
        counts["begun at the last kill"] = now
    victim = zygote() if what == "zygote" else chance.choice(workers() or [None])
    if victim is None:
        return False
    try:
        if what != "stop":
            victim.kill()
        else:
            victim.suspend()
            time.sleep(chance.uniform(0.0, 0.15))
            victim.resume()
    except psutil.NoSuchProcess:
        return False
    counts[what] += 1
    return True


@lengths("seconds", 5, 300, 900)
def test_whatever_happens_each_call_ends_once_as_it_may_and_no_attempts_overlap(
    seconds: int, session: mars.session.Session, still_works: None, tmp_path: Path
) -> None:
    """Three threads of a program; kills, stopped workers, time limits, cancels, exceptions."""
    ledger = tmp_path / "ledger"
    chance = random.Random(SEED)
    faults: Counter[str] = Counter()
    indices = itertools.count()
    clients = [Client(ledger, random.Random(SEED + k), indices) for k in (1, 2, 3)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client.serve, args=(until,)) for client in clients]

    def begun_now() -> int:
        return ledger.stat().st_size if ledger.exists() else 0

    with Striker(chance, 0.2, lambda: disturb(chance, faults, begun_now)):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for client in clients:
        if client.error is not None:
            raise client.error
    outcomes = sum((client.outcomes for client in clients), Counter())
    print(dict(outcomes), dict(faults))
    assert faults["kill"] and faults["stop"]
    assert {"value", "WorkerDied"} <= outcomes.keys()
    attempts = begun(ledger)
    twice = [index for client in clients for index in client.once if attempts[index] > 1]
    assert not twice, f"calls that are not idempotent began again: {twice}"
