"""Calls that spoil their own process: the next calls, the others and the program feel nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pytest

import mars
import mars.remote as mr
from mars.errors import MarsError, TaskCancelled, TaskTimeout, WorkerDied
from tests.faults.campaign import lengths

Note = Callable[..., None]
Lines = Callable[[object], list[str]]
Wait = Callable[..., None]

pytestmark = pytest.mark.usefixtures("still_works")


def close_all() -> str:
    os.closerange(0, 4096)
    return "closed"


def close_standard() -> str:
    os.closerange(0, 3)
    return "closed"


def redirect() -> str:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)
    return "closed"


def lose_streams() -> str:
    sys.stdout = sys.stderr = None  # type: ignore[assignment]
    return "closed"


def run_all(calls: list[object]) -> list[object]:
    mr.ExecutableTuple(calls).execute(on_error="continue")
    return calls


def test_a_call_that_closes_all_descriptors_is_a_death_and_others_are_unharmed() -> None:
    calls = run_all([mr.spawn(close_all, idempotent=False) for _ in range(3)])
    for call in calls:
        try:
            assert call.fetch() == "closed"  # type: ignore[attr-defined]
        except WorkerDied:
            continue


@pytest.mark.parametrize(
    "spoil", [close_standard, redirect, lose_streams], ids=lambda f: f.__name__
)
def test_the_next_call_prints_as_ever_after_one_that_lost_its_streams(
    spoil: Callable[[], str],
) -> None:
    def speak(i: int) -> None:
        print("out", i)
        os.system(f"echo child {i}")

    assert (
        mr.ExecutableTuple([mr.spawn(spoil) for _ in range(4)]).execute().fetch() == ["closed"] * 4
    )
    speakers = [mr.spawn(speak, args=(i,)) for i in range(6)]
    mr.ExecutableTuple(speakers).execute()
    for i, call in enumerate(speakers):
        assert str(call.fetch_log()).splitlines()[-2:] == [f"out {i}", f"child {i}"]


def test_signal_handlers_alarms_and_masks_of_a_call_do_not_keep_it_from_being_stopped() -> None:
    def stubborn() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(60)

    with pytest.raises(TaskTimeout):
        mr.spawn(stubborn, timeout=0.1).execute(wait=False).result(30)


def test_a_call_that_ignored_sigint_does_not_make_the_next_ones_immune() -> None:
    """The handler it left is not ours: the next call past its timeout ends all the same."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    mr.ExecutableTuple([mr.spawn(ignore) for _ in range(4)]).execute()
    with pytest.raises(TaskTimeout):
        mr.spawn(time.sleep, args=(60,), timeout=0.1).execute()


def test_a_changed_folder_umask_environment_and_limit_harm_no_later_call(tmp_path: Path) -> None:
    def spoil(folder: str) -> None:
        gone = Path(folder) / f"gone-{os.getpid()}"
        gone.mkdir(exist_ok=True)
        os.chdir(gone)
        gone.rmdir()
        os.umask(0o777)
        os.environ.clear()
        sys.path.clear()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.setitimer(signal.ITIMER_REAL, 0)

    mr.ExecutableTuple([mr.spawn(spoil, args=(str(tmp_path),)) for _ in range(4)]).execute()
    # Results of all sizes, and modules that were not imported yet.
    sizes = [1, 100_000, 3_000_000]
    calls = [mr.spawn(bytes, args=(size,)) for size in sizes]
    assert [len(v) for v in mr.ExecutableTuple(calls).execute().fetch()] == sizes


def test_a_limit_that_a_call_sets_fails_or_kills_only_by_name() -> None:
    """No descriptors and no memory left in the worker: values, typed errors or deaths, no hang."""

    def starve(kind: int, limit: int) -> str:
        resource.setrlimit(kind, (limit, limit))
        return "starved"

    limits = [(resource.RLIMIT_NOFILE, 3), (resource.RLIMIT_FSIZE, 1000)]
    for kind, limit in limits:
        # One attempt each, and large results to store after it, in the same processes.
        starved = [mr.spawn(starve, args=(kind, limit), idempotent=False) for _ in range(2)]
        run_all(starved)
        calls = run_all([mr.spawn(bytes, args=(3_000_000 + i,)) for i in range(4)])
        for call in (*starved, *calls):
            try:
                assert len(call.fetch()) >= 7  # type: ignore[attr-defined]
            except (MarsError, OSError):
                continue
        kill_workers()


def kill_workers() -> None:
    """What a call's limits spoiled for good is replaced by killing it."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "mars.engines.local.zygote" in " ".join(child.cmdline()):
                for worker in child.children():
                    worker.kill()


def test_threads_that_a_call_leaves_do_not_keep_it_from_ending_nor_the_next_from_beginning() -> (
    None
):
    def leave() -> int:
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(600,)).start()
        return 1

    calls = mr.ExecutableTuple([mr.spawn(leave) for _ in range(6)])
    calls.execute(wait=False).result(30)
    assert calls.fetch() == [1] * 6


def test_system_exit_in_a_thread_of_a_call_ends_that_thread_only() -> None:
    def leave() -> int:
        thread = threading.Thread(target=sys.exit)
        thread.start()
        thread.join()
        return 5

    assert mr.spawn(leave).execute().fetch() == 5


def test_children_that_a_call_leaves_are_killed_when_the_worker_ends(wait_until: Wait) -> None:
    own = mars.new_session(n_cpu=1, default=False)
    try:

        def leave(last: bool) -> list[int]:
            warnings.simplefilter("ignore")  # that they still run
            children = [
                subprocess.Popen(["sleep", "60"], start_new_session=apart).pid
                for apart in (False, False)
            ]
            if last:
                print(*children)
                sys.stdout.flush()
                os._exit(1)
            return children

        children = mr.spawn(leave, args=(False,)).execute(session=own).fetch(session=own)
        assert all(psutil.pid_exists(pid) for pid in children)
        call = mr.spawn(leave, args=(True,), idempotent=False)
        with pytest.raises(WorkerDied):
            call.execute(session=own)
        children += [int(word) for word in str(call.fetch_log(session=own)).split()]
        assert len(children) == 4
        wait_until(lambda: not any(map(runs, children)))
    finally:
        own.stop_server()


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_all_that_descends_from_calls_ends_with_the_session(wait_until: Wait) -> None:
    own = mars.new_session(n_cpu=1, default=False)
    try:
        children = (
            mr.spawn(
                lambda: [
                    subprocess.Popen(["sleep", "60"], start_new_session=apart).pid
                    for apart in (False, True)
                ]
            )
            .execute(session=own)
            .fetch(session=own)
        )
    finally:
        own.stop_server()
    wait_until(lambda: not any(map(runs, children)))


@pytest.mark.parametrize("end", ["returns", "raises", "exits"])
def test_a_child_that_a_call_forks_never_reports_a_result(end: str) -> None:
    def fork() -> str:
        pid = os.fork()
        if pid == 0:
            if end == "raises":
                raise LookupError("the child")
            if end == "exits":
                sys.exit(3)
            return "the child"
        os.waitpid(pid, 0)
        return "the parent"

    calls = [mr.spawn(fork) for _ in range(8)]
    assert mr.ExecutableTuple(calls).execute().fetch() == ["the parent"] * 8


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        (lambda: sys.exit(3), 3, ""),
        (sys.exit, 0, ""),
        (lambda: sys.exit("words"), 1, "words"),
        (lambda: {}["missing"], 1, "KeyError: 'missing'"),
        (lambda: "returned", 0, ""),
    ],
    ids=["status", "exit", "words", "raises", "returns"],
)
def test_a_child_that_a_call_forks_ends_as_in_the_program(
    end: Callable[[], object], status: int, told: str
) -> None:
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            print("a line without an end", end="")
            return end()  # type: ignore[return-value]
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    call = mr.spawn(fork).execute()
    assert call.fetch() == status
    log = str(call.fetch_log())
    assert "a line without an end" in log and told in log


def test_a_child_that_an_item_of_a_map_forks_runs_no_further_items(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "items"

    def item(number: int) -> int:
        pid = os.fork() if number % 100 == 50 else -1
        if pid == 0:
            if number % 200 == 50:
                raise LookupError(number)
            return 0
        note(ledger, number)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid > 0 else -1

    got = mr.map(item, range(1_000)).execute().fetch()
    assert [one for one in got if one >= 0] == [1, 0] * 5
    assert sorted(map(int, lines(ledger))) == list(range(1_000))


def test_a_process_that_a_call_forks_cannot_use_the_worker_s_channel() -> None:
    """It would mix its messages with ours, or read the replies that are not for it."""

    def ask() -> int:
        value: int = mr.spawn(pow, args=(3, 2)).execute().fetch()
        return value

    def fork() -> list[int]:
        mars.get_context().set_progress(0.1)
        pid = os.fork()
        if pid == 0:
            refused = 0
            mars.get_context().set_progress(0.5)
            for attempt in (ask, lambda: mars.get_context().create_remote_object("x", dict)):
                try:
                    attempt()
                except mars.errors.SessionClosed:
                    refused += 1
            os._exit(40 + refused)
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), ask()]

    calls = [mr.spawn(fork, idempotent=False) for _ in range(4)]
    assert mr.ExecutableTuple(calls).execute().fetch() == [[42, 9]] * 4


@lengths("rounds", 50, 1000, 300)
def test_a_storm_of_binary_output_without_a_line_end_is_kept_to_the_death(rounds: int) -> None:
    """50 MB, or 1 GB; the program does not read them until somebody asks."""
    pattern = bytes(range(256)) * 4096

    def storm() -> None:
        for _ in range(rounds):
            os.write(1, pattern)
        os.write(1, b"the end")
        os.kill(os.getpid(), signal.SIGKILL)

    before = psutil.Process().memory_info().rss
    call = mr.spawn(storm, idempotent=False)
    other = mr.spawn(pow, args=(2, 5))
    run_all([call, other])
    assert other.fetch() == 32
    with pytest.raises(WorkerDied) as caught:
        call.fetch()
    assert len(str(caught.value)) < 100_000
    assert psutil.Process().memory_info().rss - before < 30 << 20
    total = rounds * len(pattern) + 7
    log = call.fetch_log(offsets=str(total - 7), sizes=1000)
    assert "the end" in str(log)


@pytest.mark.timeout(120)
def test_a_call_that_prints_without_end_fills_no_disk() -> None:
    """It prints 16 MB as often as it sees that what it printed takes less than 2 MB again."""

    def endless(rounds: int) -> int:
        line = b"x" * 99 + b"\n"
        for turn in range(rounds):
            os.write(1, b"round %d\n" % turn + line * 160_000)
            deadline = time.monotonic() + 30
            while os.fstat(1).st_blocks * 512 > 2 << 20:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{os.fstat(1).st_blocks * 512} bytes are on disk")
                time.sleep(0.02)
        os.write(1, b"the end")
        return rounds

    with mars.new_session(n_cpu=2, log_limit="1 MiB", default=False) as other:
        call = mr.spawn(endless, args=(3,))
        assert call.execute(session=other).fetch(session=other) == 3
        log = str(call.fetch_log(session=other, sizes=-1))
    assert log.startswith("round 0\nxxxx")
    assert log.endswith("x\nthe end")
    assert "44.8 MiB are left out here" in log
    assert len(log) < (1 << 20) + 200


# -- frames that are not ours ------------------------------------------------------------------

# Bytes as they are, or with the header that the worker's next frame has: (content, records).
FORGERIES: dict[str, bytes | tuple[bytes, bool]] = {
    "noise": bytes(range(256)) * 40,
    "a little noise": b"x",
    "a huge length": struct.pack("<III", 0x7FFFFFFF, 0, 0) + b"x" * 1000,
    "a frame that is no pickle": (b"nopickle", False),
    "a pickle that is no message": (pickle.dumps(7), False),
    "an empty tuple": (pickle.dumps(()), False),
    "an unknown kind": (pickle.dumps(("what", 1)), False),
    "a message of another shape": (pickle.dumps(("unmapped", "x", 1, 2)), False),
    "records cut short": (b"\1" * 20, True),
    "a record of a strange attempt": (
        struct.pack("<QBBQQqqqqqII", 1 << 60, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0),
        True,
    ),
    "a record of a region that is nowhere": (
        struct.pack("<QBBQQqqqqqII", 1 << 60, 0, 5, 0, 0, 1, 1, 1, 1, 1, 0, 1 << 30),
        True,
    ),
    "an arena without its file": (pickle.dumps(("arena", 5, 10)), False),
    "a pickle that exits": (b"csys\nexit\n)R.    ", False),
}


def forge(forgery: bytes | tuple[bytes, bool]) -> str:
    """Write to every socket that the process has: ours are among them."""
    if isinstance(forgery, tuple):
        from mars.attempt import context
        from mars.engines.wire.frames import RECORDS_FLAG

        attempt = context.current()
        assert attempt is not None
        worker = attempt.engine._worker
        worker.sock.sendall(worker.outgoing.wrap(forgery[0], RECORDS_FLAG * forgery[1]))
    else:
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                    os.write(int(entry), forgery)
    time.sleep(0.05)
    return "forged"


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_frame_harms_at_most_the_worker_that_wrote_it(forgery: str) -> None:
    own = mars.new_session(n_cpu=2, default=False)
    try:
        guilty = mr.spawn(forge, args=(FORGERIES[forgery],), idempotent=False, timeout=2)
        rest = [mr.spawn(pow, args=(i, 2)) for i in range(60)]
        running = mr.ExecutableTuple([guilty, *rest]).execute(
            session=own, wait=False, on_error="continue"
        )
        running.result(timeout=25)
        assert [call.fetch(session=own) for call in rest] == [i * i for i in range(60)]
        try:
            assert guilty.fetch(session=own) == "forged"
        except (WorkerDied, TaskTimeout):
            pass
        after = [mr.spawn(pow, args=(i, 3)) for i in range(30)]
        again = mr.ExecutableTuple(after).execute(session=own, wait=False)
        again.result(timeout=25)
        assert [call.fetch(session=own) for call in after] == [i**3 for i in range(30)]
    finally:
        own.stop_server()


def test_no_process_of_an_engine_listens_on_the_network() -> None:
    """A program of its own: this process may have a cluster for other tests below it."""
    program = (
        "import psutil, mars.remote as mr\n"
        "mr.spawn(abs, args=(-1,)).execute()\n"
        "this = psutil.Process()\n"
        "family = [this, *this.children(recursive=True)]\n"
        "assert len(family) > 2, family\n"
        "found = [c for one in family for c in one.net_connections('inet')]\n"
        "print([c for c in found if c.status == 'LISTEN'])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=30
    )
    assert ended.stdout == "[]\n", ended.stderr


# -- calls that do not end ---------------------------------------------------------------------


def hold_the_interpreter() -> None:
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the interpreter's lock


def stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("hang", [hold_the_interpreter, stop_itself], ids=lambda f: f.__name__)
def test_a_timeout_ends_what_no_interrupt_reaches(hang: Callable[[], None]) -> None:
    with pytest.raises(TaskTimeout):
        mr.spawn(hang, timeout=0.1).execute(wait=False).result(30)


@pytest.mark.parametrize(
    "hang",
    [hold_the_interpreter, stop_itself, lambda: time.sleep(600)],
    ids=["holds the interpreter", "stopped", "sleeps"],
)
def test_cancel_waits_for_no_call_and_frees_the_cores(
    hang: Callable[[], None], tmp_path: Path, note: Note, lines: Lines, wait_until: Wait
) -> None:
    ledger = tmp_path / "begun"

    def begin() -> None:
        note(ledger, os.getpid())
        hang()

    done = mr.spawn(pow, args=(2, 3)).execute()
    running = mr.ExecutableTuple([mr.spawn(begin) for _ in range(2)]).execute(wait=False)
    wait_until(lambda: len(lines(ledger)) == 2)
    assert running.cancel()
    with pytest.raises((CancelledError, TaskCancelled)):
        running.result(timeout=20)
    # Both cores are needed for this, and are there after the grace.
    both = mr.spawn(pow, args=(3, 2), cpus=2)
    both.execute(wait=False).result(30)
    assert both.fetch() == 9
    assert done.fetch() == 8


def test_a_worker_that_is_stopped_for_a_while_is_not_taken_for_dead(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    def nap(path: str) -> int:
        note(path)
        subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)
        return 4

    assert mr.spawn(nap, args=(str(tmp_path / "runs"),)).execute().fetch() == 4
    assert len(lines(tmp_path / "runs")) == 1
