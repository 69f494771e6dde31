"""The program itself is stopped for a while: what its calls did meanwhile counts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PROGRAM = """
import sys, time
import mars, mars.remote as mr

def work(i, path):
    open(path + str(i), "w").close()
    time.sleep(0.5)
    return i

session = mars.new_session(n_cpu=2, timeout=60)
calls = [mr.spawn(work, args=(i, sys.argv[1]), timeout=1.5) for i in range(2)]
print("runs", flush=True)
values = mr.ExecutableTuple(calls).execute().fetch()
print("right" if values == [0, 1] else values, [call.times() is not None for call in calls])
session.stop_server()
"""


def test_calls_that_end_while_the_program_is_stopped_do_not_run_into_their_timeouts(
    program: Callable[..., object], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    path = str(tmp_path / "begun")
    one = program(PROGRAM, path)
    assert one.line() == "runs"
    wait_until(lambda: os.path.exists(path + "0") and os.path.exists(path + "1"))
    os.kill(one.process.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(one.process.pid).status() == psutil.STATUS_STOPPED)
    time.sleep(2.5)  # the time that passes is what is tested: longer than the timeout
    os.kill(one.process.pid, signal.SIGCONT)
    assert one.wait(20) == 0, one.errors()
    assert one.line() == "right [True, True]"
    assert one.errors() == ""
    one.assert_nothing_left()


def test_nothing_of_the_engine_asks_for_the_time_of_day() -> None:
    """A clock that is set, by a day or by a second, moves no deadline.

    What checkpoints and certificates say of when they were made is the time of day, of course, and
    so is what events say of when they happened.
    """
    import mars

    words = ("time.time(", "time.time_ns(", "datetime.now", "utcnow", "CLOCK_REALTIME")
    dated = {"checkpoint", "deploy", "cli"}
    package = Path(mars.__file__).parent
    texts = {file.relative_to(package): file.read_text() for file in package.rglob("*.py")}
    engine = {name: text for name, text in texts.items() if name.parts[0] not in dated}
    assert engine.pop(Path("sessions/following.py")).count(words[0]) == 1
    assert {Path("sessions/runs.py"), Path("engines/driver/loop.py")} <= engine.keys()
    assert [(name, word) for name, text in engine.items() for word in words if word in text] == []
