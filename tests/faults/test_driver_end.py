"""However the program ends: soon nothing of ours is left, and nothing is printed.

That it takes two seconds at most is for the campaigns to say, in `test_campaigns.py`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

BEGIN = """
import atexit, os, signal, subprocess, sys, threading, time
import numpy as np
import mars, mars.remote as mr

def work(i, seconds=0.002):
    print("working", i)
    subprocess.Popen(["sleep", "60"]) if i % 10 == 3 else None
    time.sleep(seconds)
    return np.zeros(40_000) + i

session = mars.new_session(n_cpu=2)
def begin(seconds=0.002, count=2000):
    calls = [mr.spawn(work, args=(i, seconds)) for i in range(count)]
    return mr.ExecutableTuple(calls).execute(wait=False)
mr.ExecutableTuple([mr.spawn(work, args=(i,)) for i in range(8)]).execute()
"""

ENDS = {
    "returns": ("", 0),
    "returns in the middle of a run": ("running = begin()", 0),
    "closes and returns": ("running = begin(); session.stop_server()", 0),
    "closes twice": ("session.stop_server(); session.stop_server(); session.close()", 0),
    "closes in another thread": (
        "running = begin(); t = threading.Thread(target=session.stop_server); t.start(); t.join()",
        0,
    ),
    "closes in two threads at once": (
        (
            "running = begin()\n"
            "ts = [threading.Thread(target=session.stop_server) for _ in range(8)]\n"
            "[t.start() for t in ts]; [t.join() for t in ts]"
        ),
        0,
    ),
    "closes in atexit": ("running = begin(); atexit.register(session.stop_server)", 0),
    "closes in a finalizer": (
        (
            "class Owner:\n"
            "    def __init__(self): self.session = session\n"
            "    def __del__(self): self.session.stop_server(); self.session.close()\n"
            "running = begin(); owner = Owner(); cycle = [owner]; cycle.append(cycle)"
        ),
        0,
    ),
    "makes calls in atexit": (
        (
            "def last(): assert mr.spawn(pow, args=(2, 3)).execute().fetch() == 8\n"
            "atexit.register(last)"
        ),
        0,
    ),
    "closes while it submits": (
        (
            "t = threading.Timer(0.02, session.stop_server); t.start()\n"
            "try:\n"
            "    while True: begin(count=20).result(20)\n"
            "except mars.errors.SessionClosed: pass\n"
            "t.join()"
        ),
        0,
    ),
    "holds results to the last": (
        "x = mr.ExecutableTuple([mr.spawn(work, args=(i,)) for i in range(8)]).execute().fetch()",
        0,
    ),
    "sys.exit": ("running = begin(); sys.exit(4)", 4),
    "an exception": ("running = begin(); raise SystemExit(5)", 5),
    "os._exit": ("running = begin(); os._exit(6)", 6),
    "a daemon thread that fetches": (
        (
            "def fetching():\n"
            "    try:\n"
            "        while True: mr.spawn(work, args=(1,)).execute().fetch()\n"
            "    except mars.errors.SessionClosed: pass\n"
            "threading.Thread(target=fetching, daemon=True).start(); time.sleep(0.05)"
        ),
        0,
    ),
}


CLOSED_AT_ANY_MOMENT = (
    BEGIN
    + """
import gc, random
chance = random.Random(int(sys.argv[1]))
session.stop_server()
ended = refused = 0
for turn in range(int(sys.argv[2])):
    session = mars.new_session(n_cpu=2, default=False)
    def close(session=session, after=chance.uniform(0, 0.03)):
        time.sleep(after)
        session.stop_server()
        session.stop_server()
    closers = [threading.Thread(target=close) for _ in range(chance.choice([1, 3]))]
    for closer in closers:
        closer.start()
    try:
        while True:
            calls = [mr.spawn(work, args=(i, 0.0005)) for i in range(12)]
            execution = mr.ExecutableTuple(calls).execute(session=session, wait=False)
            try:
                execution.result(20)
                ended += 1
            except mars.errors.SessionClosed:
                refused += 1
    except mars.errors.SessionClosed:  # from `execute` itself
        pass
    for closer in closers:
        closer.join(20)
        assert not closer.is_alive(), turn
    session = calls = execution = None
    gc.collect()
print("closed", ended + refused > 0)
"""
)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_engine_may_be_closed_at_any_moment_of_submitting_and_twice(
    seed: int, program: Callable[..., object]
) -> None:
    one = program(CLOSED_AT_ANY_MOMENT, str(seed), "15")
    assert one.wait(50) == 0, one.errors()
    assert one.line() == "closed True"
    one.assert_nothing_left()
    assert one.errors() == ""


@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_ends_by_itself_leaves_nothing_and_prints_nothing(
    end: str, program: Callable[..., object]
) -> None:
    code, status = ENDS[end]
    one = program(BEGIN + code + "\n")
    assert one.wait() == status, one.errors()
    one.assert_nothing_left()
    assert one.errors() == ""


def test_a_program_that_ends_with_an_exception_prints_that_and_leaves_nothing(
    program: Callable[..., object],
) -> None:
    one = program(BEGIN + "running = begin()\nraise LookupError('mine')\n")
    assert one.wait() == 1
    one.assert_nothing_left()
    text = one.errors()
    assert text.startswith("Traceback (most recent call last):")
    assert text.rstrip().endswith("LookupError: mine")
    assert text.count("Traceback") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_program_that_is_killed_in_a_run_leaves_nothing(
    number: signal.Signals, program: Callable[..., object]
) -> None:
    one = program(BEGIN + "running = begin()\nprint('runs', flush=True)\nrunning.result()\n")
    assert one.line() == "runs"
    os.kill(one.process.pid, number)
    assert one.wait() == -number
    one.assert_nothing_left()
    assert one.errors() == ""


ANY_MOMENT = (
    """
print("starts", flush=True)
"""
    + BEGIN
    + """
while True:
    begin(count=60).result()
"""
)


@pytest.mark.parametrize("batch", range(4))
def test_a_program_killed_at_any_moment_leaves_nothing(
    batch: int, program: Callable[..., object]
) -> None:
    """Twenty programs, five at a time: in the import, the start of workers, the first calls."""
    chance = random.Random(batch)
    waiting = []
    for _ in range(5):
        one = program(ANY_MOMENT)
        waiting.append((one, chance.uniform(0.0, 1.2)))
    start = None
    for one, delay in sorted(waiting, key=lambda pair: pair[1]):
        assert one.line() == "starts"
        start = start or time.monotonic()
        # The moment is the input of this test; nothing is waited for.
        time.sleep(max(0.0, start + delay - time.monotonic()))
        os.kill(one.process.pid, signal.SIGKILL)
        one.wait()
    for one, _ in waiting:
        one.assert_nothing_left()
        assert one.errors() == ""


def test_a_killed_program_takes_the_children_of_its_calls_with_it(
    program: Callable[..., object], wait_until: Callable[..., None]
) -> None:
    """A child in its process group, one in a session of its own, and one whose parent is gone."""
    one = program(
        BEGIN
        + """
def family():
    subprocess.Popen(["sleep", "61"])
    subprocess.Popen(["sleep", "62"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "63"])
        os._exit(0)
    os.wait3(0)
    print("family", flush=True)
    time.sleep(60)
call = mr.spawn(family)
running = call.execute(wait=False)
while "family" not in str(call.fetch_log()): time.sleep(0.01)
print("runs", flush=True)
running.result()
"""
    )
    assert one.line() == "runs"
    expected = {"sleep 61", "sleep 62", "sleep 63"}
    wait_until(lambda: expected <= {" ".join(p.cmdline()) for p in one.alive()})
    os.kill(one.process.pid, signal.SIGKILL)
    one.wait()
    one.assert_nothing_left()


def test_a_program_killed_together_with_its_zygote_leaves_nothing(
    program: Callable[..., object], wait_until: Callable[..., None]
) -> None:
    one = program(BEGIN + "running = begin()\nprint('runs', flush=True)\nrunning.result()\n")
    assert one.line() == "runs"
    zygote = next(
        p for p in one.alive() if "zygote" in " ".join(p.cmdline()) and p.ppid() == one.process.pid
    )
    os.kill(one.process.pid, signal.SIGKILL)
    zygote.kill()
    one.wait()
    wait_until(lambda: not any("zygote" in " ".join(p.cmdline()) for p in one.alive()))


FORKS = {
    "a child that returns": """
running = begin(count=200)
pid = os.fork()
if pid == 0:
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
running.result(30)
""",
    "a child that calls": """
pid = os.fork()
if pid == 0:
    try:
        mr.spawn(work, args=(1,)).execute(session=session)
    except mars.errors.SessionClosed:
        os._exit(0)
    os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
""",
    "a child with a session of its own": """
pid = os.fork()
if pid == 0:
    own = mars.new_session(n_cpu=1)
    ok = mr.spawn(work, args=(7,)).execute(session=own).fetch(session=own)[0] == 7
    own.stop_server()
    os._exit(0 if ok else 1)
assert os.waitpid(pid, 0)[1] == 0
""",
    "multiprocessing": """
import multiprocessing
running = begin(count=200)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))
running.result(30)
""",
    "a child that outlives a close": """
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(read, 1)
    os._exit(0)
running = begin(count=200)
running.result(30)
session.stop_server()
os.write(write, b"x")
assert os.waitpid(pid, 0)[1] == 0
""",
}


NO_WARNING = """
import warnings  # Python 3.12 and later say that to every program with a thread
warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
"""


@pytest.mark.parametrize("fork", FORKS)
def test_a_fork_of_the_program_disturbs_nothing(fork: str, program: Callable[..., object]) -> None:
    one = program(BEGIN + NO_WARNING + FORKS[fork] + "\nprint('done', flush=True)\n")
    assert one.wait() == 0, one.errors()
    assert one.line() == "done"
    one.assert_nothing_left()
    assert one.errors() == ""


def test_workers_end_with_the_program_even_if_a_forked_child_of_it_lives_on(
    program: Callable[..., object], wait_until: Callable[..., None]
) -> None:
    """The child holds the sockets open: their end does not tell that the program is gone."""
    one = program(
        BEGIN
        + """
read, write = os.pipe()
if os.fork() == 0:
    time.sleep(600)
    os._exit(0)
running = begin()
print("runs", flush=True)
running.result()
"""
    )
    assert one.line() == "runs"
    os.kill(one.process.pid, signal.SIGKILL)
    one.wait()
    wait_until(lambda: len(one.alive()) == 1)
