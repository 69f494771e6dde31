"""What a call changes in its process is not what the next call finds there."""

from __future__ import annotations

import decimal
import gc
import locale
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr
from mars.errors import TaskTimeout

Note = Callable[..., None]
Lines = Callable[[object], list[str]]
Wait = Callable[..., None]


@pytest.fixture(scope="module")
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    """One worker at a time, so the next call finds what the one before left."""
    opened = mars.new_session(n_cpu=1, default=True)
    yield opened
    opened.stop_server()


pytestmark = pytest.mark.usefixtures("session")


def once(function: Callable[..., object], *args: object, **options: Any) -> mr.Object:
    """A call that fails for good if its process dies under it."""
    return mr.spawn(function, args=args, idempotent=False, **options)


def run(*calls: mr.Object) -> list[Any]:
    return list(mr.ExecutableTuple(calls).execute().fetch())


# -- one after the other in one process --------------------------------------------------------


def replace_environment() -> None:
    os.environ = {"PATH": "/nowhere"}  # type: ignore[assignment]  # noqa: B003


def leave_removed_folder() -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def umask() -> int:
    found = os.umask(0o22)
    os.umask(found)
    return found


CHANGES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "umask": (lambda: os.umask(0o777), umask),
    "a variable": (
        lambda: os.environ.update(MARS_TEST_STATE="1"),
        lambda: (os.environ.get("MARS_TEST_STATE"), os.popen("echo $MARS_TEST_STATE").read()),
    ),
    "a variable past os.environ": (
        lambda: os.putenv("MARS_TEST_STATE", "1"),
        lambda: os.popen("echo $MARS_TEST_STATE").read(),
    ),
    "all variables": (lambda: os.environ.clear(), lambda: dict(os.environ)),
    "os.environ": (replace_environment, lambda: dict(os.environ)),
    "folder": (lambda: os.chdir("/"), os.getcwd),
    "a folder that is gone": (leave_removed_folder, os.getcwd),
    "sys.path": (lambda: sys.path.clear(), lambda: list(sys.path)),
    "another sys.path": (lambda: setattr(sys, "path", []), lambda: list(sys.path)),
    "SIGTERM": (
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGTERM),
    ),
    "SIGCHLD": (
        lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGCHLD),
    ),
    "SIGINT": (
        lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        lambda: signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    ),
    "signal mask": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals)),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    ),
    "a timer": (
        lambda: signal.setitimer(signal.ITIMER_REAL, 1000),
        lambda: signal.getitimer(signal.ITIMER_REAL),
    ),
    "an alarm": (lambda: signal.alarm(1000), lambda: signal.getitimer(signal.ITIMER_REAL)),
    "a soft limit": (
        lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (20, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        ),
        lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    ),
    "cores": (
        lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        lambda: os.sched_getaffinity(0),
    ),
    "locale": (
        lambda: locale.setlocale(locale.LC_ALL, "POSIX"),
        lambda: locale.setlocale(locale.LC_ALL),
    ),
    "recursion limit": (lambda: sys.setrecursionlimit(150), sys.getrecursionlimit),
    "switch interval": (lambda: sys.setswitchinterval(1), sys.getswitchinterval),
    "trace": (lambda: sys.settrace(lambda *_: None), sys.gettrace),
    "profile": (lambda: sys.setprofile(lambda *_: None), sys.getprofile),
    "garbage collection": (lambda: gc.disable(), gc.isenabled),
    "how often garbage is collected": (lambda: gc.set_threshold(1, 2, 3), gc.get_threshold),
    "digits of an int": (
        lambda: sys.set_int_max_str_digits(0),
        sys.get_int_max_str_digits,
    ),
    "a higher recursion limit": (lambda: sys.setrecursionlimit(5000), sys.getrecursionlimit),
    "sys.argv": (lambda: sys.argv.append("--more"), lambda: list(sys.argv)),
    "another sys.argv": (lambda: setattr(sys, "argv", None), lambda: list(sys.argv)),
    "time zone": (
        lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset()),
        lambda: (time.tzname, time.strftime("%H", time.localtime(0))),
    ),
    "warning filters": (
        lambda: warnings.filterwarnings("error", message="of a call"),
        lambda: len(warnings.filters),
    ),
    "all warning filters": (lambda: warnings.resetwarnings(), lambda: len(warnings.filters)),
    "other warning filters": (
        lambda: setattr(warnings, "filters", []),
        lambda: len(warnings.filters),
    ),
    "decimal context": (
        lambda: setattr(decimal.getcontext(), "prec", 5),
        lambda: decimal.getcontext().prec,
    ),
    "another decimal context": (
        lambda: decimal.setcontext(decimal.BasicContext),
        lambda: (decimal.getcontext().prec, dict(decimal.getcontext().traps)),
    ),
    "timeout of sockets": (lambda: socket.setdefaulttimeout(5), socket.getdefaulttimeout),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_the_next_call_in_the_process_does_not_find_a_changed(kind: str) -> None:
    change, look = CHANGES[kind]

    def spoil() -> int:
        change()
        return os.getpid()

    def see() -> tuple[int, object]:
        return os.getpid(), look()

    expected = run(mr.spawn(see))[0]
    for _ in range(2):  # the second time, the calls travel together and take microseconds
        calls = [mr.spawn(spoil if i % 2 else see) for i in range(8)]
        found = run(*calls)
        assert found[0::2] == [expected] * 4
        assert found[1::2] == [expected[0]] * 4


def test_what_a_function_changes_in_few_of_its_calls_is_undone_once_the_worker_waits(
    wait_until: Wait,
) -> None:
    def sometimes(spoil: bool) -> int:
        if spoil:
            os.umask(0o777)
        return os.getpid()

    calls = [mr.spawn(sometimes, args=(i == 99,)) for i in range(100)]
    pid = run(*calls)[-1]
    status = Path(f"/proc/{pid}/status")
    wait_until(lambda: "Umask:\t0777" not in status.read_text())


def test_an_item_of_a_map_does_not_find_what_the_one_before_changed() -> None:
    def change(i: int) -> int:
        before = umask()
        os.umask(0o700 + i % 8)
        return before

    found = mr.map(change, range(200)).execute().fetch()
    assert set(found) == {run(mr.spawn(umask))[0]}


def test_what_a_module_sets_in_the_environment_on_import_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported once in a process, and its library may look at any time."""
    (tmp_path / "sets_a_variable.py").write_text(
        "import os\nos.environ['MARS_TEST_IMPORTED'] = 'yes'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def use() -> str | None:
        import sets_a_variable  # type: ignore[import-not-found]  # noqa: F401

        os.environ["MARS_TEST_CALLED"] = "yes"
        return os.environ.get("MARS_TEST_IMPORTED")

    assert run(*[mr.spawn(use) for _ in range(3)]) == ["yes"] * 3

    def look() -> tuple[str | None, str | None]:
        return os.environ.get("MARS_TEST_IMPORTED"), os.environ.get("MARS_TEST_CALLED")

    assert run(mr.spawn(look)) == [("yes", None)]


def test_what_a_module_sets_on_import_stays_where_python_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets_more.py").write_text(
        "import sys, warnings\n"
        "sys.setrecursionlimit(7000)\n"
        "warnings.filterwarnings('error', message='of sets_more')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def use() -> tuple[int, list[str]]:
        import sets_more  # type: ignore[import-not-found]  # noqa: F401

        errors = [one[1].pattern for one in warnings.filters if one[0] == "error" and one[1]]  # type: ignore[union-attr]
        sys.setrecursionlimit(8000)
        warnings.filterwarnings("error", message="of use")
        return sys.getrecursionlimit(), errors

    first, *others = run(*[mr.spawn(use) for _ in range(3)])
    assert others == [first, first]
    assert "of sets_more" in first[1]
    assert "of use" not in first[1]
    assert run(mr.spawn(sys.getrecursionlimit)) == [7000]


# -- signals ----------------------------------------------------------------------------------


def leave_timer() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def leave_handler_that_raises() -> None:
    def late(*_: object) -> None:
        raise TimeoutError("of another call")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)


def leave_pending_alarm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    while signal.SIGALRM not in signal.sigpending():
        pass


@pytest.mark.parametrize(
    "leave", [leave_timer, leave_handler_that_raises, leave_pending_alarm], ids=lambda f: f.__name__
)
def test_an_alarm_that_a_call_left_does_not_reach_the_next(leave: Callable[[], None]) -> None:
    def outlast() -> int:
        time.sleep(0.15)  # past the alarm
        return os.getpid()

    before, _, after = run(once(os.getpid), once(leave), once(outlast))
    assert before == after


def ignore() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def take_over() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


@pytest.mark.parametrize("spoil", [ignore, take_over, block], ids=lambda f: f.__name__)
@pytest.mark.parametrize("end", ["timeout", "cancel"])
def test_after_a_call_that_spoiled_signals_the_next_is_stopped_by_an_interrupt(
    end: str, spoil: Callable[[], None], tmp_path: Path, note: Note, wait_until: Wait
) -> None:
    """Its process lives on: nothing had to be killed."""
    started, pid = tmp_path / "started", run(once(os.getpid))[0]

    def linger() -> None:
        note(started)
        time.sleep(60)

    run(once(spoil))
    if end == "timeout":
        with pytest.raises(TaskTimeout):
            mr.spawn(linger, timeout=0.1).execute()
    else:
        running = mr.ExecutableTuple([mr.spawn(linger)]).execute(wait=False)
        wait_until(started.exists)
        assert running.cancel()
    assert run(once(os.getpid)) == [pid]


# -- what cannot be undone --------------------------------------------------------------------


def lower_for_good() -> int:
    if os.getuid() == 0:
        os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    return os.getpid()


def test_calls_that_spoil_their_process_for_good_each_run_once_in_a_fresh_one(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    def spoil() -> int:
        note(tmp_path / "runs")
        return lower_for_good()

    pids = run(*[once(spoil) for _ in range(50)])
    assert len(set(pids)) == 50
    assert len(lines(tmp_path / "runs")) == 50


def test_what_is_queued_behind_a_call_that_spoils_its_process_runs_once_elsewhere(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    def look(i: int) -> tuple[int, object]:
        note(tmp_path / "runs", i)
        return i, (resource.getrlimit(resource.RLIMIT_NOFILE), os.getuid())

    def spoil(i: int) -> tuple[int, object]:
        found = look(i)
        lower_for_good()
        return found

    expected = resource.getrlimit(resource.RLIMIT_NOFILE), os.getuid()
    found = run(*[once(spoil if i % 20 == 19 else look, i) for i in range(200)])
    assert found == [(i, expected) for i in range(200)]
    assert sorted(map(int, lines(tmp_path / "runs"))) == list(range(200))


# -- what runs on -----------------------------------------------------------------------------


END = "they end with the worker"


def linger() -> None:
    for _ in range(2):
        threading.Thread(target=time.sleep, args=(60,)).start()
    warnings.simplefilter("ignore")  # that the child still runs
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid)


def test_what_a_call_leaves_running_is_told_once_per_function_and_ends_with_the_session(
    wait_until: Wait,
) -> None:
    own = mars.new_session(n_cpu=1, default=False)
    try:
        calls = [mr.spawn(linger) for _ in range(3)]
        mr.ExecutableTuple(calls).execute(session=own)
        logs = [str(call.fetch_log(session=own)).splitlines() for call in calls]
        assert [log[1:] for log in logs] == [
            ["mars: the call linger left 2 threads and 1 child process behind; " + END],
            [],
            [],
        ]
        children = [psutil.Process(int(log[0])) for log in logs]
        assert all(child.is_running() for child in children)
    finally:
        own.stop_server()
    wait_until(lambda: not any(child.is_running() for child in children))


def start_daemon() -> None:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def keep_pool() -> None:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(2)
    list(pool.map(abs, range(10)))
    keep_pool.pool = pool  # type: ignore[attr-defined]


def leave_zombie() -> None:
    warnings.simplefilter("ignore")  # that nobody has asked for its end
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def use_resource_tracker() -> None:
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


def use_joblib() -> None:
    import joblib

    joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(abs)(i) for i in range(4))


def close_joblib() -> None:
    """Its semaphores are gone only if it is told to end."""
    from joblib.executor import get_memmapping_executor

    get_memmapping_executor(2).terminate(kill_workers=True)
    gc.collect()


@pytest.mark.parametrize(
    "use",
    [start_daemon, keep_pool, leave_zombie, use_resource_tracker, use_joblib],
    ids=lambda f: f.__name__,
)
def test_pools_that_wait_for_work_and_what_has_ended_are_no_news(
    use: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if use is use_joblib:
        pytest.importorskip("joblib")
        monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path))
    calls = [mr.spawn(use) for _ in range(2)]
    mr.ExecutableTuple(calls).execute()
    if use is use_joblib:
        run(mr.spawn(close_joblib))
    assert [str(call.fetch_log()) for call in calls] == ["", ""]


# -- variables of the program -----------------------------------------------------------------


def seen(name: str) -> str | None:
    return os.environ.get(name)


def test_variables_that_the_program_changes_later_are_seen_by_its_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "MARS_TEST_LATER"
    assert run(mr.spawn(seen, args=(name,))) == [None]
    for value in ("1", "", "2"):
        monkeypatch.setenv(name, value)
        assert run(mr.spawn(seen, args=(name,))) == [value]
    monkeypatch.delenv(name)
    assert run(mr.spawn(seen, args=(name,))) == [None]
    # One that was there from the beginning.
    home = os.environ["PATH"]
    monkeypatch.delenv("PATH")
    assert run(mr.spawn(seen, args=("PATH",))) == [None]
    monkeypatch.setenv("PATH", home)
    assert run(mr.spawn(seen, args=("PATH",))) == [home]


def test_variables_of_the_program_are_seen_by_nested_calls_and_in_new_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MARS_TEST_LATER", "1")

    def ask() -> object:
        return mr.spawn(seen, args=("MARS_TEST_LATER",)).execute().fetch()

    run(once(lower_for_good))
    assert run(mr.spawn(ask)) == ["1"]


def test_the_number_of_threads_stays_what_the_call_owns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    def spoil() -> None:
        os.environ["OMP_NUM_THREADS"] = "9"

    run(mr.spawn(spoil))
    assert run(mr.spawn(seen, args=("OMP_NUM_THREADS",))) == ["1"]


def where() -> tuple[str, str | None]:
    return os.getcwd(), os.environ.get("MARS_TEST_MOMENT")


def test_calls_of_runs_at_once_each_have_what_their_program_had_when_it_executed_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(*[mr.spawn(where) for _ in range(3)])  # short: so what follows waits in the worker
    runs = []
    for moment in "aabbabbbaaba":
        folder = tmp_path / moment
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MARS_TEST_MOMENT", moment)
        calls = mr.ExecutableTuple([mr.spawn(where) for _ in range(3)])
        runs.append(((str(folder), moment), calls, calls.execute(wait=False)))
    for seen, calls, execution in runs:
        execution.result(timeout=60)
        assert list(calls.fetch()) == [seen] * 3


def test_a_worker_that_waits_leaves_its_core_to_others() -> None:
    def waits() -> float:
        before = time.process_time()
        mr.spawn(time.sleep, args=(0.5,)).execute()
        return time.process_time() - before

    run(*[mr.spawn(time.process_time) for _ in range(3)])
    (before,) = run(mr.spawn(time.process_time))
    time.sleep(0.5)
    (after,) = run(mr.spawn(time.process_time))
    assert after - before < 0.25  # for the next call
    assert run(mr.spawn(waits))[0] < 0.25  # for one that it has asked for
