"""Workers do not start: that is said in seconds, with the reason, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

BREAKAGES = {
    # What a site or a user puts there runs in the process that forks the workers.
    "a sitecustomize that ends every fork": (
        """
import os, sys
def leave():
    os.write(2, b"the site does not allow forks\\n")
    os._exit(7)
if sys.argv[0] == "-c":
    os.register_at_fork(after_in_child=leave)
""",
        ["exit code 7", "the site does not allow forks"],
    ),
    "a sitecustomize that crashes every fork": (
        """
import faulthandler, os, sys
if sys.argv[0] == "-c":
    os.register_at_fork(after_in_child=os.abort)
""",
        ["SIGABRT"],
    ),
    "a sitecustomize in which a module of ours does not load": (
        """
import sys
if sys.argv[0] == "-c":
    sys.modules["mmap"] = None
""",
        ["import of mmap halted"],
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_workers_that_end_before_they_are_ready_end_the_run_with_their_last_words(
    breakage: str, program: Callable[..., object]
) -> None:
    site, words = BREAKAGES[breakage]
    one = program(
        """
import os, sys, tempfile
folder = tempfile.mkdtemp()
with open(os.path.join(folder, "sitecustomize.py"), "w") as file:
    file.write(sys.argv[1])
os.environ["PYTHONPATH"] = folder + os.pathsep + os.environ["PYTHONPATH"]
import mars, mars.remote as mr
session = mars.new_session(n_cpu=2)
for _ in range(2):
    try:
        mr.spawn(abs, args=(-1,)).execute(wait=False).result(20)
        print("runs")
    except mars.errors.StartupFailed as error:
        print("typed", str(error).replace(chr(10), " | "), flush=True)
session.stop_server()
import shutil
shutil.rmtree(folder)
""",
        site,
    )
    assert one.wait(30) == 0, one.errors()
    for _ in range(2):
        told = one.line()
        assert told.startswith("typed worker processes do not start"), told
        for word in words:
            assert word in told
    one.assert_nothing_left()


def test_too_little_address_space_for_workers_is_told_in_seconds(
    program: Callable[..., object],
) -> None:
    """What is there after Python has loaded is not enough for what a worker maps."""
    one = program(
        """
import os, resource
import mars, mars.remote as mr
session = mars.new_session(n_cpu=2)
def end():
    os.kill(os.getpid(), 9)
# Workers that were forked later than the first one: all that the zygote loads is loaded by then.
# A zygote that gets no memory while it loads ends, and the next one has no limit.
mr.ExecutableTuple([mr.spawn(end, idempotent=False) for _ in range(3)]).execute(
    wait=False, on_error="continue").result(20)
from pathlib import Path
zygote = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[0])
used = int(Path(f"/proc/{zygote}/statm").read_text().split()[0]) * 4096
resource.prlimit(zygote, resource.RLIMIT_AS, (used + 4096, used + 4096))
try:
    mr.spawn(end).execute(wait=False).result(20)
except (mars.errors.StartupFailed, mars.errors.WorkerDied) as error:
    print(type(error).__name__, str(error).replace(chr(10), " | "))
try:
    mr.ExecutableTuple([mr.spawn(end, idempotent=False) for _ in range(9)]).execute(
        wait=False, on_error="continue").result(20)
except mars.errors.StartupFailed as error:
    print(type(error).__name__, str(error).replace(chr(10), " | "))
session.stop_server()
"""
    )
    assert one.wait(40) == 0, one.errors()
    assert one.process.stdout is not None
    told = one.process.stdout.read().decode()
    assert "StartupFailed worker processes do not start" in told, told
    assert "Cannot allocate memory" in told or "can't start new thread" in told, told
    one.assert_nothing_left()
