"""The machine refuses: descriptors, processes, shared memory, the interpreter. Never a hang."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest


def test_sixty_four_descriptors_are_enough_for_thousands_of_live_objects(
    program: Callable[..., object],
) -> None:
    one = program(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import mars, mars.remote as mr
session = mars.new_session(n_cpu=2)
calls = [mr.spawn(bytes, args=(70_000 + i % 100,)) for i in range(3000)]
mr.ExecutableTuple(calls).execute()
values = [call.fetch() for call in calls]
assert all(len(value) == 70_000 + i % 100 for i, value in enumerate(values))
total = mr.spawn(lambda parts: sum(map(len, parts)), args=(calls[:200],)).execute().fetch()
assert total == sum(70_000 + i % 100 for i in range(200))
session.stop_server()
print("right")
"""
    )
    assert one.wait() == 0, one.errors()
    assert one.line() == "right"
    assert one.errors() == ""
    one.assert_nothing_left()


@pytest.mark.parametrize("spare", [0, 1, 2, 4, 6, 8, 10, 12, 16, 20])
def test_descriptors_that_run_out_at_any_step_are_a_typed_error(
    spare: int, program: Callable[..., object]
) -> None:
    one = program(
        """
import os, resource, sys
import numpy, mars, mars.remote as mr
import mars.engines.local.engine
used = len(os.listdir("/proc/self/fd"))
limit = used + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
session = None
try:
    session = mars.new_session(n_cpu=2)
    call = mr.spawn(bytes, args=(200_000,))
    call.execute(wait=False).result(10)
    assert len(call.fetch()) == 200_000
    print("right")
except (mars.errors.MarsError, OSError) as error:
    print("typed", type(error).__name__)
if session is not None:
    session.stop_server()
""",
        str(spare),
    )
    assert one.wait(15) == 0, one.errors()
    assert one.line().split()[0] in ("right", "typed")
    one.assert_nothing_left()


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user, whose processes are counted")
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6])
def test_a_fork_that_the_system_refuses_is_a_typed_error_and_never_a_hang(
    processes: int, program: Callable[..., object]
) -> None:
    """Counted for a user that has no other processes; threads count, too."""
    one = program(
        """
import os, resource, sys, tempfile
import mars, mars.remote as mr
import mars.engines.local.engine, cloudpickle
os.environ["OPENBLAS_NUM_THREADS"] = "1"
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
os.chmod(tempfile.gettempdir(), 0o777)
os.setgid(61234)
os.setuid(61234)
session = None
try:
    session = mars.new_session(n_cpu=2)
    assert mr.spawn(pow, args=(2, 3)).execute(wait=False).result(10).fetch() == 8
    print("right")
except TimeoutError:
    print("hangs")
except (mars.errors.MarsError, OSError, RuntimeError) as error:
    print("typed", type(error).__name__, str(error).replace(chr(10), " "))
if session is not None:
    session.stop_server()
""",
        str(processes),
    )
    assert one.wait(20) == 0, one.errors()
    told = one.line()
    assert told.split()[0] in ("right", "typed"), told
    one.assert_nothing_left()


def test_a_wrong_interpreter_is_startup_failed_and_leaves_nothing(
    program: Callable[..., object],
) -> None:
    one = program(
        """
import sys
import mars, mars.remote as mr
right = sys.executable
for wrong in ("/no/such/python", "/dev/null", "/bin/false"):
    sys.executable = wrong
    session = None
    try:
        session = mars.new_session(n_cpu=1)
        mr.spawn(abs, args=(-1,)).execute(wait=False).result(10)
        print("runs")
    except mars.errors.StartupFailed as error:
        print("typed", error)
    if session is not None:
        session.stop_server()
sys.executable = right
session = mars.new_session(n_cpu=1)
print(mr.spawn(abs, args=(-1,)).execute().fetch())
session.stop_server()
"""
    )
    assert one.wait(20) == 0, one.errors()
    assert one.process.stdout is not None
    told = one.process.stdout.read().decode()
    assert told.count("typed") == 3 and "runs" not in told, told
    assert "/no/such/python" in told
    assert told.splitlines()[-1] == "1"
    assert one.errors() == ""
    one.assert_nothing_left()


def test_nothing_is_put_into_dev_shm_however_large_the_values(
    program: Callable[..., object],
) -> None:
    """So its size does not matter: values live in files in memory that have no name."""
    one = program(
        """
import os
import mars, mars.remote as mr
before = set(os.listdir("/dev/shm"))
session = mars.new_session(n_cpu=2)
calls = [mr.spawn(bytes, args=(20_000_000 + i,)) for i in range(4)]
values = mr.ExecutableTuple(calls).execute().fetch()
assert [len(v) for v in values] == [20_000_000 + i for i in range(4)]
large = os.urandom(5_000_000)
assert mr.spawn(len, args=(large,)).execute().fetch() == 5_000_000
print(sorted(set(os.listdir("/dev/shm")) - before))
session.stop_server()
"""
    )
    assert one.wait() == 0, one.errors()
    assert one.line() == "[]"
