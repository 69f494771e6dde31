"""What is special to the inline engine: the program's own process, main thread and output."""

from __future__ import annotations

import concurrent.futures
import decimal
import importlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.attempt import capture
from mars.engines import main_thread

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def session() -> Iterator[mars.session.Session]:
    with mars.new_session(engine="inline") as opened:
        yield opened


# -- runs that break ---------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [True, False])
def test_an_error_of_the_engine_is_told_and_not_taken_for_success(
    wait: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = mr.ExecutableTuple([mr.spawn(abs, -i) for i in range(10)])
    real, looks = capture.Segment.size, []

    def size(segment: capture.Segment) -> int:
        looks.append(segment)
        if len(looks) > 6:
            raise OSError(28, "No space left on device")
        return real(segment)

    monkeypatch.setattr(capture.Segment, "size", size)
    with pytest.raises(OSError, match="No space left"):
        calls.execute(wait=wait).result(10)
    monkeypatch.undo()
    assert capfd.readouterr() == ("", "")
    assert calls.execute().fetch() == list(range(10))


def test_the_end_of_the_engine_ends_a_run_in_the_background(
    session: mars.session.Session,
    tmp_path: Path,
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
) -> None:
    def hold() -> None:
        (tmp_path / "begun").touch()
        pass_gate(tmp_path / "gate")

    calls = mr.ExecutableTuple([mr.spawn(hold), mr.spawn(abs, -1)])
    run = calls.execute(wait=False)
    wait_until((tmp_path / "begun").exists)
    session.stop_server()
    assert isinstance(run.exception(10), mars.errors.SessionClosed)
    (tmp_path / "gate").touch()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "mars-run"])


def test_a_session_of_the_program_is_inert_in_a_process_that_it_forks(run_python: Run) -> None:
    done = run_python("""
import os, mars, mars.remote as mr
session = mars.new_session(engine="inline")
pid = os.fork()
if not pid:
    try:
        mr.spawn(abs, -1).execute(session=session)
    except mars.errors.SessionClosed as error:
        print("forked" in str(error), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(mr.spawn(abs, -1).execute().fetch())
""")
    assert done.stdout == "True\n1\n", done.stderr


# -- output ------------------------------------------------------------------------------------


def test_what_the_program_prints_while_a_call_runs_beside_it_is_not_in_its_log(
    run_python: Run,
) -> None:
    done = run_python("""
import sys, threading, time, mars, mars.remote as mr
mars.new_session(engine="inline")
begun, go = threading.beside = threading.Event(), threading.Event()
def work():
    begun, go = threading.beside
    print("of the call")
    begun.set()
    go.wait(20)
    threading.Thread(target=print, args=("of its thread",)).start()
call = mr.spawn(work)
run = call.execute(wait=False)
begun.wait(20)
print("of the program")
print("on stderr", file=sys.stderr)
go.set()
run.result(20)
print(repr(str(call.fetch_log())))
""")
    assert done.stdout == "of the program\n'of the call\\nof its thread\\n'\n", done.stderr
    assert done.stderr == "on stderr\n"


def test_a_stream_that_a_call_has_kept_leads_to_the_program_s_output_later(
    run_python: Run,
) -> None:
    done = run_python("""
import logging, sys, mars, mars.remote as mr
mars.new_session(engine="inline")
def begin():
    import logging
    logging.getLogger().addHandler(logging.StreamHandler())
    logging.warning("in the call")
call = mr.spawn(begin).execute()
other = mr.spawn(print, "another call").execute()
logging.warning("after it")
print(repr(str(call.fetch_log())), repr(str(other.fetch_log())))
""")
    assert done.stdout == "'in the call\\n' 'another call\\n'\n", done.stderr
    assert done.stderr == "after it\n"


# -- the main thread ---------------------------------------------------------------------------


def test_ctrl_c_ends_the_call_and_not_the_session(ctrl_c: Callable[[float], None]) -> None:
    call, later = mr.spawn(time.sleep, 600), mr.spawn(abs, -1)
    ctrl_c(0.3)
    with pytest.raises(KeyboardInterrupt):
        mars.execute(call, later, on_error="continue")
    for one in (call, later):
        with pytest.raises(mars.errors.TaskCancelled):
            one.fetch()
    assert later.execute().fetch() == 1


def test_ctrl_c_ends_a_wait_for_another_thread_s_call(
    tmp_path: Path,
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
    ctrl_c: Callable[[float], None],
) -> None:
    def hold() -> None:
        (tmp_path / "begun").touch()
        pass_gate(tmp_path / "gate")

    run = mr.spawn(hold).execute(wait=False)
    wait_until((tmp_path / "begun").exists)
    ctrl_c(0.3)
    with pytest.raises(KeyboardInterrupt):
        mr.spawn(abs, -1).execute()
    (tmp_path / "gate").touch()
    run.result(10)


def test_handlers_and_the_timer_of_the_program_are_as_they_were() -> None:
    rung, handler = threading.Event(), signal.getsignal(signal.SIGINT)
    before = signal.signal(signal.SIGALRM, lambda *_: rung.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        mr.spawn(time.sleep, 0.1, timeout=5).execute()
        assert signal.getsignal(signal.SIGINT) is handler
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.4
        assert rung.wait(10)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_threads_are_started_as_ever_once_the_engine_has_ended(
    session: mars.session.Session,
) -> None:
    assert threading.Thread.start.__qualname__ != "Thread.start"
    session.stop_server()
    assert threading.Thread.start.__qualname__ == "Thread.start"


def test_threads_of_calls_run_while_two_engines_are_open(session: mars.session.Session) -> None:
    def in_a_thread() -> list[int]:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(mr.spawn(abs, -3).execute().fetch()))
        thread.start()
        thread.join(20)
        return found

    with mars.new_session(engine="inline", default=False) as other:
        for one in (session, other):
            assert mr.spawn(in_a_thread).execute(session=one).fetch(session=one) == [3]


def test_somebody_who_stands_in_for_thread_start_too_is_left_there(
    session: mars.session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = threading.Thread.start
    started: list[str] = []

    def theirs(thread: threading.Thread) -> None:
        started.append(thread.name)
        ours(thread)

    monkeypatch.setattr(threading.Thread, "start", theirs)
    session.stop_server()
    thread = threading.Thread(target=int, name="mine")
    thread.start()
    thread.join()
    assert started == ["mine"] and threading.Thread.start is theirs


@pytest.mark.skipif(sys.platform == "win32", reason="no alarm clock")
class TestLimits:
    """`main_thread` by itself."""

    def test_limits_inside_each_other_each_strike_in_time(self) -> None:
        struck = []
        with pytest.raises(main_thread.Late) as outer_late:  # noqa: SIM117
            with main_thread.code_of_a_call(0.4) as outer:
                for timeout_s in (0.1, 0.1, 30, 30):
                    with main_thread.code_of_the_engine():
                        try:
                            with main_thread.code_of_a_call(timeout_s) as inner:
                                time.sleep(5)
                        except main_thread.Late as late:
                            struck.append(late.limit is inner)
                            if late.limit is not inner:
                                raise
        assert struck == [True, True, False]
        assert outer_late.value.limit is outer

    def test_what_an_inner_call_swallows_is_told_again_outside_of_it(self) -> None:
        with pytest.raises(main_thread.Late):  # noqa: SIM117
            with main_thread.code_of_a_call(0.1):
                with main_thread.code_of_the_engine(), main_thread.code_of_a_call(None):
                    try:
                        time.sleep(5)
                    except KeyboardInterrupt:
                        pass
                time.sleep(5)

    def test_nothing_strikes_in_code_of_the_engine(self) -> None:
        done = False
        with pytest.raises(main_thread.Late):  # noqa: SIM117
            with main_thread.code_of_a_call(0.1):
                with main_thread.code_of_the_engine():
                    time.sleep(0.3)
                    done = True
                time.sleep(5)
        assert done

    def test_another_thread_can_end_a_limit_at_any_moment(self) -> None:
        ended = 0
        for turn in range(200):
            limits: list[main_thread.Limit] = []
            thread = threading.Thread(target=lambda kept=limits: kept[0].end_now())
            try:
                with main_thread.code_of_a_call(None) as limit:
                    limits.append(limit)
                    thread.start()
                    end = time.monotonic() + turn * 1e-6
                    while time.monotonic() < end:
                        pass
            except main_thread.Late:
                ended += 1
            thread.join()
        assert ended > 0
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    def test_other_threads_are_never_interrupted(self) -> None:
        def work() -> tuple[bool, bool]:
            with main_thread.code_of_a_call(0.05) as limit:
                time.sleep(0.2)
            return limit.late, limit.passed_s() > 0

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(work).result() == (False, True)


# -- what a call changes -----------------------------------------------------------------------


def of_process() -> dict[str, object]:
    return {
        "filters": list(warnings.filters),
        "stdout": sys.stdout,
        "stderr": sys.stderr,
        "progress": mars.options.show_progress,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "folder": os.getcwd(),
        "variable": os.environ.get("MARS_TEST_INLINE"),
        "limit": sys.getrecursionlimit(),
        "precision": decimal.getcontext().prec,
    }


def test_what_a_call_changes_in_its_process_stays_but_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(os.getcwd())
    monkeypatch.setenv("MARS_TEST_INLINE", "before")
    limit, precision = sys.getrecursionlimit(), decimal.getcontext().prec

    def change(folder: str) -> None:
        warnings.simplefilter("ignore")
        sys.stdout = sys.stderr = io.StringIO()
        mars.options.show_progress = not mars.options.show_progress
        os.environ["OMP_NUM_THREADS"] = "77"
        os.chdir(folder)
        os.environ["MARS_TEST_INLINE"] = "call"
        sys.setrecursionlimit(sys.getrecursionlimit() + 1)
        decimal.getcontext().prec += 1

    before = of_process()
    try:
        mr.spawn(change, args=(str(tmp_path),)).execute()
        after = of_process()
    finally:
        sys.setrecursionlimit(limit)
        decimal.getcontext().prec = precision
    changed = {name for name, value in before.items() if after[name] != value}
    assert changed == {"folder", "variable", "limit", "precision"}


MODULE = """
class Item:
    count = 0
    def __init__(self):
        self.parts = [{"deep": [1]}]
NUMBER, LIST, ITEM = 1, [1], Item()
SET, ORDER = {1, None}, {"x": 1, "y": 2}
NESTED = {"a": ([1], {2}), "b": [Item()]}
def change():
    global NUMBER, NEW
    NUMBER = NEW = 2
    LIST.append(2)
    Item.count += 1
    ITEM.parts[0]["deep"].append(2)
    NESTED["a"][0].append(2)
    NESTED["a"][1].clear()
    NESTED["b"][0].parts.clear()
    NESTED["c"] = 3
    SET.discard(1); SET.add(2); ORDER["x"] = ORDER.pop("x")
    return look()
def look():
    return repr((
        NUMBER, LIST, Item.count, ITEM.parts, NESTED["a"], NESTED["b"][0].parts, len(NESTED),
        "NEW" in globals(), 1 in SET, 2 in SET, list(ORDER),
    ))
"""


def test_what_a_call_changes_in_a_module_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "changed_by_calls.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("changed_by_calls")
    try:
        before = module.look()
        for _ in range(2):
            found = mr.spawn(module.change).to_object()
            assert found == (
                "(2, [1, 2], 1, [{'deep': [1, 2]}], ([1, 2], set()), [], 3, "
                "True, False, True, ['y', 'x'])"
            )
            assert module.look() == before
    finally:
        del sys.modules["changed_by_calls"]
