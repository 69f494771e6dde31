"""Ctrl-C at any moment: the program gets its KeyboardInterrupt, and the session works on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import random, signal, sys, time
import mars, mars.remote as mr

def work(x, *inputs):
    return x + sum(inputs)

session = mars.new_session(n_cpu=2)
mr.spawn(work, args=(1,)).execute()
random.seed(int(sys.argv[1]))
interrupted = 0
for turn in range(int(sys.argv[2])):
    calls = [mr.spawn(work, args=(i,)) for i in range(60)]
    total = mr.spawn(work, args=(0, *calls))
    def strike(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, strike)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.006))
            total.execute()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    # The very same calls, some of them done, some stopped, some never begun.
    run = total.execute(wait=False)
    assert run.result(timeout=20).fetch() == sum(range(60)), turn
print("interrupted", interrupted)
session.stop_server()
"""


def test_an_interrupt_at_any_moment_loses_nothing_and_hangs_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), "7", "120"],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    # An interrupt that never struck would prove nothing.
    assert int(done.stdout.split()[-1]) > 30, done.stdout
