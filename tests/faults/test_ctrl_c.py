"""Ctrl-C at any moment: the program gets its KeyboardInterrupt, and the session works on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import itertools, random, signal, statistics, sys, time
import mars, mars.remote as mr

def work(x, *inputs):
    return x + sum(inputs)

session = mars.new_session(n_cpu=2)

def graph():
    return mr.spawn(work, args=(0, *[mr.spawn(work, args=(i,)) for i in range(60)]))

def seconds_undisturbed():
    total = graph()
    began = time.perf_counter()
    total.execute()
    return time.perf_counter() - began

def strike(*_):
    raise KeyboardInterrupt

mr.spawn(work, args=(1,)).execute()
# Where in a run an interrupt falls must not hang on how fast the machine is.
typical = statistics.median(seconds_undisturbed() for _ in range(9))
random.seed(int(sys.argv[1]))
interrupted = 0
signal.signal(signal.SIGALRM, strike)
for turn in itertools.count():
    if interrupted == int(sys.argv[2]):
        break
    total = graph()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, typical))
            total.execute()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    # The very same calls, some of them done, some stopped, some never begun.
    run = total.execute(wait=False)
    assert run.result(timeout=20).fetch() == sum(range(60)), turn
session.stop_server()
"""


def test_an_interrupt_at_any_moment_loses_nothing_and_hangs_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        # It ends when as many interrupts have struck: one that never did would prove nothing.
        [sys.executable, str(program), "7", "60"],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr


STUBBORN = """
import os, signal, sys, threading, time
import mars, mars.remote as mr
from mars.engines.driver import core, reactor

# What is not killed by the second Ctrl-C stays for ever.
core.CANCEL_GRACE_S = reactor.CANCEL_GRACE_S = 1000.0

def stubborn(path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(1000)

def strike_once(condition):
    def strike():
        while not condition():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=strike).start()

def written():
    return os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()

def waits():
    # Whether the program waits inside `execute`.
    frame = sys._current_frames()[threading.main_thread().ident]
    names = set()
    while frame:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return {"execute", "wait"} <= names

session = mars.new_session(n_cpu=1)
call = mr.spawn(stubborn, args=(sys.argv[1],))
strike_once(written)
try:
    if sys.argv[2] == "future":
        running = call.execute(wait=False)
        running.result()
    else:
        call.execute()
except KeyboardInterrupt:
    print("first", flush=True)
if sys.argv[2] == "future":
    assert running.cancel() and running.cancel()
else:
    # The core is not free yet: whoever waits for it can press Ctrl-C again.
    waiting = mr.spawn(abs, args=(-1,))
    strike_once(waits)
    try:
        waiting.execute()
    except KeyboardInterrupt:
        print("second", flush=True)
print(mr.spawn(abs, args=(-5,)).execute(wait=False).result(20).fetch())
session.stop_server()
"""


@pytest.mark.parametrize("way", ["execute", "future"])
def test_a_second_interrupt_kills_at_once_what_ignored_the_first(
    way: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(STUBBORN)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "runs"), way],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=script_environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == (["first", "second", "5"] if way == "execute" else ["first", "5"])
