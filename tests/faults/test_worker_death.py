"""A worker process ends under its call: what is lost, what is not, and what is said."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr
from mars.errors import WorkerDied

np = pytest.importorskip("numpy")

Note = Callable[..., None]
Lines = Callable[[object], list[str]]
Wait = Callable[..., None]

pytestmark = pytest.mark.usefixtures("still_works")


def fault() -> None:
    print("just before")
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def leave() -> None:
    os._exit(3)


def leave_as_if_well() -> None:
    os._exit(0)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def overflow() -> None:
    """Calls C that calls Python that calls C, until the C stack is used up."""
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(3)[1]))
    sys.setrecursionlimit(1_000_000)
    libc = ctypes.CDLL(None)
    numbers = (ctypes.c_int * 4)(4, 3, 2, 1)

    def compare(left: int, right: int) -> int:
        libc.qsort(numbers, 4, 4, callback)
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(compare)
    compare(0, 0)


def zygote_pid() -> int:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "mars.engines.local.zygote" in " ".join(child.cmdline()):
                return child.pid
    raise AssertionError("there is no zygote")


def children_of(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # it has ended
        return []
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def worker_pids() -> list[int]:
    return children_of(zygote_pid())


ENDS = {
    "SIGSEGV": fault,
    "SIGABRT": abort,
    "exit code 3": leave,
    "exit code 0": leave_as_if_well,
    "SIGKILL": kill,
}


@pytest.mark.parametrize("ending", ENDS)
def test_worker_died_names_the_call_the_worker_the_ending_and_the_attempt(ending: str) -> None:
    with pytest.raises(WorkerDied) as caught:
        mr.spawn(ENDS[ending], idempotent=False, name="the_culprit").execute()
    error = caught.value
    assert (error.call, error.ending, error.attempt) == ("the_culprit", ending, 1)
    assert f"ended with {ending} while it ran the_culprit (attempt 1)" in str(error)
    assert "(pid " in error.worker and "MiB of memory" in error.evidence


def test_worker_died_carries_the_last_printed_lines_and_the_python_stack_of_a_crash() -> None:
    call = mr.spawn(fault, idempotent=False)
    with pytest.raises(WorkerDied) as caught:
        call.execute()
    text = str(caught.value)
    assert "just before" in text
    assert "Fatal Python error: Segmentation fault" in text
    assert "in fault" in text
    assert "in string_at" in str(call.fetch_log())


def noisy_deep_fault(depth: int) -> None:
    if depth:
        noisy_deep_fault(depth - 1)
    else:
        print("\n".join(f"line {i}" for i in range(100)), flush=True)
        fault()


def test_the_headline_of_a_crash_and_its_nearest_frames_are_there_however_deep_it_was() -> None:
    with pytest.raises(WorkerDied) as caught:
        mr.spawn(noisy_deep_fault, args=(80,), idempotent=False).execute()
    told = caught.value.evidence.splitlines()
    headline = next(i for i, line in enumerate(told) if "Fatal Python error: Segm" in line)
    assert "just before" in told[headline - 1]
    assert any("in string_at" in line for line in told[headline : headline + 6])
    assert any("in fault" in line for line in told[headline : headline + 8])
    assert len(told) < 40 and "more lines" in caught.value.evidence


def write_to_sockets() -> None:
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                os.write(int(entry), b"this is not for you")
    time.sleep(30)  # it is ended for that


def exit_in_c() -> None:
    ctypes.CDLL(None).exit(4)


WHAT_TO_DO = {
    fault: "compiled code crashed, most likely in the library of the first frame above",
    abort: "compiled code gave up with abort()",
    leave: "such as os._exit(3)",
    exit_in_c: "exit(4) of a C library",
    kill: "most likely memory ran out",
    write_to_sockets: "wrote to a descriptor that is not its own",
}


@pytest.mark.parametrize("way", WHAT_TO_DO, ids=lambda way: way.__name__)
def test_a_death_ends_with_what_to_do_about_it(way: Callable[[], None]) -> None:
    with pytest.raises(WorkerDied) as caught:
        mr.spawn(way, idempotent=False).execute()
    assert WHAT_TO_DO[way] in str(caught.value).splitlines()[-1]


def test_an_overflow_of_the_c_stack_is_a_death_with_the_stack_in_the_log() -> None:
    call = mr.spawn(overflow, idempotent=False)
    with pytest.raises(WorkerDied) as caught:
        call.execute()
    assert caught.value.ending == "SIGSEGV"
    assert "in compare" in caught.value.evidence
    assert "Fatal Python error: Segmentation fault" in str(call.fetch_log())


def test_a_crash_loop_of_one_call_ends_after_three_further_attempts(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    def die(path: str) -> None:
        note(path)
        os._exit(5)

    with pytest.raises(WorkerDied) as caught:
        mr.spawn(die, args=(str(tmp_path / "runs"),)).execute()
    assert caught.value.attempt == 4
    assert len(lines(tmp_path / "runs")) == 4


def test_how_often_a_call_may_die_can_be_said(tmp_path: Path, note: Note, lines: Lines) -> None:
    path = tmp_path / "runs"

    def die(deaths: int) -> str:
        note(str(path))
        if len(path.read_text().split()) <= deaths:
            os._exit(5)
        return "alive"

    assert mr.spawn(die, args=(5,), death_retries=5).execute().fetch() == "alive"
    assert len(lines(path)) == 6
    with pytest.raises(WorkerDied):
        mr.spawn(die, args=(99,), death_retries=0).execute()
    assert len(lines(path)) == 7


@pytest.mark.parametrize("how", [kill, leave, abort], ids=lambda f: f.__name__)
def test_what_is_not_idempotent_runs_at_most_once_however_its_worker_dies(
    how: Callable[[], None], tmp_path: Path, note: Note, lines: Lines
) -> None:
    def once(path: str) -> None:
        note(path)
        how()

    ledger = tmp_path / "runs"
    calls = [mr.spawn(once, args=(str(ledger),), idempotent=False) for _ in range(6)]
    mr.ExecutableTuple(calls).execute(on_error="continue")
    for call in calls:
        with pytest.raises(WorkerDied):
            call.fetch()
    assert len(lines(ledger)) == 6


def test_a_kill_in_the_middle_runs_only_the_running_call_again(
    tmp_path: Path, note: Note, lines: Lines, wait_until: Wait
) -> None:
    """Prefetched calls move on, finished ones stay: each of them has begun exactly once."""

    def step(index: int, path: str, gate: str) -> int:
        note(path, f"{index} {os.getpid()}")
        if index == 60 and not os.path.exists(gate):
            note(gate, os.getpid())
            time.sleep(30)
        return index * 3

    ledger, gate = tmp_path / "runs", tmp_path / "victim"
    # Short calls first, so that later ones are sent ahead in batches.
    calls = [mr.spawn(step, args=(i, str(ledger), str(gate))) for i in range(200)]
    running = mr.ExecutableTuple(calls).execute(wait=False)
    wait_until(lambda: lines(gate))
    os.kill(int(lines(gate)[0]), signal.SIGKILL)
    running.result(timeout=20)
    assert [call.fetch() for call in calls] == [i * 3 for i in range(200)]
    begun = [int(line.split()[0]) for line in lines(ledger)]
    assert {i: begun.count(i) for i in range(200) if begun.count(i) != 1} == {60: 2}


def test_a_death_after_the_result_and_before_the_report_loses_no_finished_work(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    """Calls of one batch finish, and are reported together: the last one kills the worker."""

    def step(index: int, path: str) -> int:
        note(path, index)
        if index % 50 == 49 and lines(path).count(str(index)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    ledger = tmp_path / "runs"
    # Known to be short: the next calls travel in batches, and wait in the worker's outbox.
    warm = [mr.spawn(step, args=(0, str(tmp_path / "warm"))) for _ in range(100)]
    mr.ExecutableTuple(warm).execute()
    calls = [mr.spawn(step, args=(i, str(ledger))) for i in range(400)]
    assert mr.ExecutableTuple(calls).execute().fetch() == list(range(400))
    begun = [int(line) for line in lines(ledger)]
    again = {i: begun.count(i) for i in range(400) if begun.count(i) != 1}
    assert again == dict.fromkeys(range(49, 400, 50), 2)


@pytest.mark.parametrize("seed", range(6))
def test_kills_at_any_moment_of_writing_large_results_lose_and_spoil_nothing(
    session: mars.session.Session, seed: int
) -> None:
    """1 MiB to 64 MiB: a death in the middle of a copy leaves a part that nobody may see."""
    chance = random.Random(seed)

    def make(index: int, size: int) -> object:
        return np.full(size // 8, index, dtype=np.int64)

    sizes = [chance.choice([1, 4, 16, 64]) << 20 for _ in range(14)]
    calls = [mr.spawn(make, args=(i, size)) for i, size in enumerate(sizes)]
    ended = threading.Event()
    killed = []
    zygote = zygote_pid()

    def strike() -> None:
        # As many as one call survives for certain, wherever they hit.
        while len(killed) < 3 and not ended.wait(chance.uniform(0.0005, 0.02)):
            pids = children_of(zygote)
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    killed.append(1)

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        mr.ExecutableTuple(calls).execute()
    finally:
        ended.set()
        striker.join()
    assert killed
    for index, (call, size) in enumerate(zip(calls, sizes, strict=True)):
        value = call.fetch()
        assert value.nbytes == size and (value == index).all()


def test_large_results_of_a_worker_that_died_stay_readable(session: mars.session.Session) -> None:
    calls = [mr.spawn(np.arange, args=(300_000 + i,)) for i in range(4)]
    mr.ExecutableTuple(calls).execute()
    for pid in worker_pids():
        os.kill(pid, signal.SIGKILL)
    sums = [mr.spawn(np.sum, args=(call,)) for call in calls]
    mr.ExecutableTuple(sums).execute()
    for i, (call, total) in enumerate(zip(calls, sums, strict=True)):
        n = 300_000 + i
        assert call.fetch()[-1] == n - 1
        assert total.fetch() == n * (n - 1) // 2


def test_a_poison_call_does_not_stop_the_rest() -> None:
    poison = mr.spawn(kill)
    after = mr.spawn(abs, args=(poison,))
    rest = [mr.spawn(pow, args=(i, 2)) for i in range(100)]
    mr.ExecutableTuple([poison, after, *rest]).execute(on_error="continue")
    assert [call.fetch() for call in rest] == [i * i for i in range(100)]
    with pytest.raises(WorkerDied) as caught:
        poison.fetch()
    assert caught.value.attempt == 4
    with pytest.raises(mars.errors.DependencyFailed):
        after.fetch()


def test_many_poison_calls_in_a_row_do_not_end_the_engine() -> None:
    """Deaths under calls say nothing about whether workers start."""
    calls = [mr.spawn(leave, idempotent=False) for _ in range(15)]
    rest = [mr.spawn(pow, args=(i, 2)) for i in range(20)]
    mr.ExecutableTuple([*calls, *rest]).execute(on_error="continue")
    assert [call.fetch() for call in rest] == [i * i for i in range(20)]
    for call in calls:
        with pytest.raises(WorkerDied):
            call.fetch()


def test_idle_workers_that_are_killed_are_replaced(
    session: mars.session.Session, wait_until: Wait
) -> None:
    for _ in range(8):
        before = worker_pids()
        for pid in before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert mr.spawn(pow, args=(3, 2)).execute(wait=False).result(20).fetch() == 9


def test_a_killed_zygote_takes_only_running_attempts_and_the_run_goes_on(
    session: mars.session.Session, tmp_path: Path, note: Note, lines: Lines, wait_until: Wait
) -> None:
    def step(index: int, path: str, gate: str) -> int:
        note(path, index)
        while index >= 10 and not os.path.exists(gate):
            time.sleep(0.005)
        return index

    ledger, gate = tmp_path / "runs", tmp_path / "gate"
    calls = [mr.spawn(step, args=(i, str(ledger), str(gate))) for i in range(30)]
    running = mr.ExecutableTuple(calls).execute(wait=False)
    try:
        # Some two of them: calls known to be short are sent ahead, and wait behind the first.
        wait_until(lambda: sum(int(i) >= 10 for i in lines(ledger)) == 2)
        victims = [zygote_pid(), *worker_pids()]
        os.kill(victims[0], signal.SIGKILL)
        wait_until(lambda: not any(map(alive, victims)))
    finally:
        note(gate)
    running.result(timeout=20)
    assert [call.fetch() for call in calls] == list(range(30))
    begun = [int(line) for line in lines(ledger)]
    assert all(begun.count(i) == 1 for i in range(10))
    assert all(begun.count(i) <= 2 for i in range(10, 30))


def test_the_zygote_may_be_killed_again_and_again_while_calls_run(
    session: mars.session.Session,
) -> None:
    def step(index: int) -> int:
        time.sleep(0.005)
        return index

    for _ in range(4):
        calls = [mr.spawn(step, args=(i,)) for i in range(40)]
        running = mr.ExecutableTuple(calls).execute(wait=False)
        os.kill(zygote_pid(), signal.SIGKILL)
        running.result(timeout=20)
        assert [call.fetch() for call in calls] == list(range(40))


def test_the_other_core_works_on_while_a_dead_worker_is_replaced(
    session: mars.session.Session,
    tmp_path: Path,
    note: Note,
    lines: Lines,
    wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The replacement is withheld until all is done: whoever waited for it would wait for ever."""
    met, died, ledger = tmp_path / "met", tmp_path / "died", tmp_path / "ended"

    def meet() -> None:
        note(met)
        while len(lines(met)) < 2:
            time.sleep(0.005)

    def step(index: int) -> int:
        if index == 5 and not died.exists():
            note(died)
            os._exit(1)
        time.sleep(0.01)
        note(ledger, index)
        return index

    mr.ExecutableTuple([mr.spawn(meet) for _ in range(2)]).execute(wait=False).result(30)
    loop = session.engine.loop  # type: ignore[attr-defined]
    withheld: list[tuple[Any, ...]] = []
    calls = [mr.spawn(step, args=(i,)) for i in range(40)]
    with monkeypatch.context() as patch:
        patch.setattr(loop.workers, "fork", lambda *asked: withheld.append(asked))
        running = mr.ExecutableTuple(calls).execute(wait=False)
        wait_until(lambda: len(lines(ledger)) == 40)
        running.result(20)
        assert withheld, "no replacement was asked for"
    for asked in withheld:
        loop.post(lambda asked=asked: loop.workers.fork(*asked))
    assert [call.fetch() for call in calls] == list(range(40))
    met.unlink()
    mr.ExecutableTuple([mr.spawn(meet) for _ in range(2)]).execute(wait=False).result(30)
