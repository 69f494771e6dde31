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
import mars.engines.one_machine
used = len(os.listdir("/proc/self/fd"))
limit = used + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
session = None
try:
    session = mars.new_session(n_cpu=2)
    call = mr.spawn(bytes, args=(200_000,))
    call.execute(wait=False).result(20)
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


def test_a_first_call_that_takes_all_descriptors_still_tells_its_error_and_its_result(
    program: Callable[..., object],
) -> None:
    """What packs them is loaded when it is needed, and loading takes descriptors."""
    one = program(
        """
import datetime, os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
import mars, mars.remote as mr
def fail():
    kept = []
    while True:
        kept.append(os.open(os.devnull, os.O_RDONLY))
def work():
    first = os.open(os.devnull, os.O_RDONLY)
    try:
        while True:
            os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return datetime.date.fromordinal(first)
for call in (fail, work):
    with mars.new_session(n_cpu=1):
        try:
            print(type(mr.spawn(call).execute().fetch()).__name__)
        except OSError as error:
            print(error.errno, error.filename, error.__traceback__.tb_next is not None)
"""
    )
    assert one.wait(30) == 0, one.errors()
    assert one.line() == "24 /dev/null True"
    assert one.line() == "date"
    one.assert_nothing_left()


AS_ANOTHER_USER = """
import ctypes, os, resource, sys, tempfile
import mars, mars.remote as mr
import mars.engines.one_machine, cloudpickle
from pathlib import Path
os.environ["OPENBLAS_NUM_THREADS"] = "1"
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
libc = ctypes.CDLL(None)
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgid(61234)
os.setuid(20_000 + os.getpid() % 40_000)  # its own, also where other tests run beside
# It may read and write everywhere, as root, so that it finds Python; nothing else.
files = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert libc.capset(header, (ctypes.c_uint32 * 6)(files, files, files, 0, 0, 0)) == 0
for capability in (1, 2):
    assert libc.prctl(47, 2, capability, 0, 0) == 0  # PR_CAP_AMBIENT_RAISE: after exec, too
"""
"""A program of a user that has no other processes, with a limit of them; threads count, too."""

other_user = pytest.mark.skipif(
    os.getuid() != 0, reason="needs another user, whose processes are counted"
)


@other_user
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6])
def test_a_fork_that_the_system_refuses_is_a_typed_error_and_never_a_hang(
    processes: int, program: Callable[..., object]
) -> None:
    one = program(
        AS_ANOTHER_USER
        + """
session = None
try:
    session = mars.new_session(n_cpu=2)
    assert mr.spawn(pow, args=(2, 3)).execute(wait=False).result(20).fetch() == 8
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
    assert one.wait() == 0, one.errors()
    told = one.line()
    assert told.split()[0] in ("right", "typed"), told
    one.assert_nothing_left()


@other_user
def test_a_system_that_refuses_the_engines_thread_is_startup_failed_and_leaves_nothing(
    program: Callable[..., object],
) -> None:
    one = program(
        AS_ANOTHER_USER
        + """
before = sorted(os.listdir("/proc/self/fd"))
for _ in range(3):
    try:
        mars.new_session(n_cpu=2)
    except mars.errors.StartupFailed as error:
        assert "refuses a thread" in str(error), error
    else:
        raise SystemExit("it started")
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    print(children, sorted(os.listdir("/proc/self/fd")) == before)
""",
        "2",  # the program and the process that forks workers
    )
    assert one.wait() == 0, one.errors()
    assert [one.line() for _ in range(3)] == ["[] True"] * 3
    assert one.errors() == ""
    one.assert_nothing_left()


@other_user
@pytest.mark.parametrize("processes", [8, 9])
def test_a_run_goes_on_with_fewer_workers_when_the_system_refuses_more_and_says_so_once(
    processes: int, program: Callable[..., object]
) -> None:
    one = program(
        AS_ANOTHER_USER
        + """
import time
session = mars.new_session(n_cpu=4)
deadline = time.monotonic() + 30
told = rounds = 0
while rounds < 3 or told < 2:  # once more after it was told
    rounds += 1
    told += os.fstat(2).st_size > 0
    assert time.monotonic() < deadline, "nobody is told"
    calls = [mr.spawn(pow, args=(i, 2)) for i in range(40)]
    done = mr.ExecutableTuple(calls).execute(wait=False)
    done.result(20)
    assert [call.fetch() for call in calls] == [i * i for i in range(40)]
print("right")
session.stop_server()
""",
        # Program, its loop, the zygote, a worker with two threads, and up to three threads of the
        # program that deliver results now and then; all four workers would take 11.
        str(processes),
    )
    assert one.wait(40) == 0, one.errors()
    assert one.line() == "right"
    (told,) = one.errors().splitlines()
    assert told.startswith("mars: fewer worker processes than cores")
    assert "Resource temporarily unavailable" in told or "can't start new thread" in told
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
        mr.spawn(abs, args=(-1,)).execute(wait=False).result(20)
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
    assert one.wait() == 0, one.errors()
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


def test_more_workers_than_the_soft_limit_has_descriptors_for_raise_it_and_calls_do_not_see_that(
    program: Callable[..., object],
) -> None:
    one = program(
        """
import os, resource, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (96, hard))
import mars, mars.remote as mr
def look(gate):
    while not os.path.exists(gate):
        time.sleep(0.005)
    return os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)
session = mars.new_session(n_cpu=2)
print(mr.spawn(look, args=("/",)).execute().fetch()[1] == (96, hard),
      resource.getrlimit(resource.RLIMIT_NOFILE) == (96, hard), flush=True)
session.stop_server()
import tempfile
gate = tempfile.mktemp()
session = mars.new_session(n_cpu=40)
calls = [mr.spawn(look, args=(gate,), cpus=1) for _ in range(40)]
run = mr.ExecutableTuple(calls).execute(wait=False)
deadline = time.monotonic() + 30
def running():
    workers = list(session.engine.loop.scheduler.workers.values())
    return sum(bool(worker.queue) for worker in workers)
while running() < 40:
    assert time.monotonic() < deadline, "they do not all start"
    time.sleep(0.01)
files = [open(os.devnull) for _ in range(50)]
open(gate, "w").close()
run.result(30)
os.unlink(gate)
found = [call.fetch() for call in calls]
print(len({pid for pid, _ in found}), {limit for _, limit in found} == {(96, hard)}, flush=True)
session.stop_server()
session = mars.new_session(n_cpu=1)  # its zygote is started with the higher limit
print(mr.spawn(look, args=("/",)).execute().fetch()[1] == (96, hard), flush=True)
session.stop_server()
"""
    )
    assert one.wait(60) == 0, one.errors()
    assert [one.line() for _ in range(3)] == ["True True", "40 True", "True"]
    assert one.errors() == ""
    one.assert_nothing_left()


def test_where_no_more_descriptors_are_allowed_some_are_left_to_the_program_and_it_is_told(
    program: Callable[..., object],
) -> None:
    one = program(
        """
import os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
import mars, mars.remote as mr
def nap(i):
    time.sleep(0.01)
    return i, bytes(70_000)
session = mars.new_session(n_cpu=40)
calls = [mr.spawn(nap, args=(i,)) for i in range(200)]
mr.ExecutableTuple(calls).execute()
files = [open(os.devnull) for _ in range(8)]
print([call.fetch()[0] for call in calls] == list(range(200)), flush=True)
session.stop_server()
"""
    )
    assert one.wait(60) == 0, one.errors()
    assert one.line() == "True"
    told = one.errors()
    assert "fewer worker processes than cores" in told
    assert "this process may have 128 (ulimit -n)" in told
    one.assert_nothing_left()
