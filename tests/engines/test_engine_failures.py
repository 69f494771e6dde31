"""How calls fail: with their own error, saying where; and what survives it."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr

Note = Callable[..., None]
Lines = Callable[[object], list[str]]


class OwnError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"failed with code {code}")
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return OwnError, (self.code,)


class NeedsTwo(Exception):
    """Pickles, but does not come back: its arguments are not what `__init__` takes."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left}+{right}")


class Locked:
    def __init__(self) -> None:
        self.lock = threading.Lock()


class LockedError(Exception):
    def __init__(self) -> None:
        super().__init__("told by the function")
        self.lock = threading.Lock()


def explode(x: int) -> None:
    raise ValueError(f"bad {x}")


def outer_frame(x: int) -> None:
    explode(x)


def rendered(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def notes_of(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def present(errors: object) -> list[BaseException]:
    return [e for e in errors if e is not None]  # type: ignore[attr-defined]


# -- the error itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ValueError("v"), KeyError("k"), OSError(2, "no file"), ZeroDivisionError(), StopIteration(1)],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_comes_back_with_its_own_type_and_arguments(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        mr.spawn(fail).execute()
    assert caught.value.args == error.args


def test_an_exception_of_the_program_comes_back_with_its_attributes() -> None:
    def fail() -> None:
        raise OwnError(7)

    with pytest.raises(OwnError, match="failed with code 7") as caught:
        mr.spawn(fail).execute()
    assert caught.value.code == 7


def test_a_local_exception_class_can_be_caught_by_the_caller() -> None:
    class LocalError(LookupError):
        pass

    def fail() -> None:
        raise LocalError("here")

    with pytest.raises(LocalError, match="here"):
        mr.spawn(fail).execute()


@pytest.mark.parametrize("show_progress", [False, None])
def test_the_traceback_holds_the_remote_frames(show_progress: bool | None) -> None:
    with pytest.raises(ValueError, match="bad 3") as caught:
        mr.spawn(outer_frame, args=(3,)).execute(show_progress=show_progress)
    frames = traceback.extract_tb(caught.value.__traceback__)
    names = [frame.name for frame in frames]
    assert {frame.filename for frame in frames if frame.name == "outer_frame"} == {__file__}
    text = rendered(caught.value)
    assert "outer_frame" in names and "explode" in names, text
    assert names.index("outer_frame") < names.index("explode")
    assert 'raise ValueError(f"bad {x}")' in text


def test_a_cause_inside_the_call_is_kept() -> None:
    def fail() -> None:
        try:
            explode(1)
        except ValueError as error:
            raise RuntimeError("wrapped") from error

    with pytest.raises(RuntimeError, match="wrapped") as caught:
        mr.spawn(fail).execute()
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__cause__.args == ("bad 1",)


def test_notes_name_the_call_its_arguments_the_worker_and_the_attempt() -> None:
    with pytest.raises(ValueError) as caught:
        mr.spawn(explode, args=(3,)).execute()
    notes = notes_of(caught.value)
    assert "task explode(3)" in notes
    assert "worker" in notes
    assert "attempt 1" in notes


def test_notes_carry_the_name_given_at_spawn() -> None:
    with pytest.raises(ValueError) as caught:
        mr.spawn(explode, args=(3,), name="fit-model").execute()
    assert "task fit-model(" in notes_of(caught.value)


def test_notes_end_with_the_last_lines_of_the_log() -> None:
    def fail() -> None:
        for i in range(200):
            print(f"line-{i}-end")
        raise ValueError("after printing")

    with pytest.raises(ValueError) as caught:
        mr.spawn(fail).execute()
    notes = notes_of(caught.value)
    assert "line-199-end" in notes and "line-190-end" in notes
    assert "line-0-end" not in notes


def test_notes_of_the_users_own_are_kept() -> None:
    def fail() -> None:
        error = ValueError("noted")
        error.add_note("from the user")
        raise error

    with pytest.raises(ValueError) as caught:
        mr.spawn(fail).execute()
    assert "from the user" in caught.value.__notes__


def test_an_argument_with_a_broken_repr_does_not_hide_the_error() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    with pytest.raises(ZeroDivisionError):
        mr.spawn(lambda _: 1 / 0, args=(Broken(),)).execute()


def test_a_large_argument_is_not_printed_whole_in_the_notes() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        mr.spawn(lambda _: 1 / 0, args=("x" * 100_000,)).execute()
    assert len(notes_of(caught.value)) < 5_000


def test_an_exception_group_comes_back() -> None:
    def fail() -> None:
        raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])

    with pytest.raises(ExceptionGroup) as caught:
        mr.spawn(fail).execute()
    assert [type(e) for e in caught.value.exceptions] == [ValueError, KeyError]


def test_sys_exit_in_a_call_ends_the_call_and_not_the_program() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises((SystemExit, mars.errors.MarsError)):
        mr.spawn(leave).execute()
    assert mr.spawn(int).execute().fetch() == 0


def test_a_failed_call_raises_its_own_error_at_fetch() -> None:
    bad = mr.spawn(explode, args=(3,))
    bad.execute(on_error="continue")
    for _ in range(2):
        with pytest.raises(ValueError, match="bad 3"):
            bad.fetch()


# -- siblings, dependents, running again -------------------------------------------------------


def test_finished_siblings_of_a_failure_stay_fetchable() -> None:
    good = [mr.spawn(pow, args=(i, 2)) for i in range(4)]
    late = mr.spawn(lambda *_: explode(1), args=tuple(good))
    with pytest.raises(ValueError, match="bad 1"):
        mr.ExecutableTuple([*good, late]).execute()
    assert [g.fetch() for g in good] == [0, 1, 4, 9]


def test_executing_again_runs_only_what_is_missing(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger, fixed = tmp_path / "runs", tmp_path / "fixed"

    def work(name: str, *_: object) -> str:
        note(ledger, name)
        return name

    def fragile(*_: object) -> str:
        note(ledger, "fragile")
        if not fixed.exists():
            raise OSError("not yet")
        return "fragile"

    good = [mr.spawn(work, args=(f"good{i}",)) for i in range(3)]
    bad = mr.spawn(fragile, args=tuple(good))
    last = mr.spawn(work, args=("last", bad))
    calls = mr.ExecutableTuple([*good, bad, last])
    with pytest.raises(OSError, match="not yet"):
        calls.execute()
    assert sorted(lines(ledger)) == ["fragile", "good0", "good1", "good2"]
    fixed.touch()
    assert calls.execute().fetch() == ["good0", "good1", "good2", "fragile", "last"]
    assert sorted(lines(ledger)) == ["fragile", "fragile", "good0", "good1", "good2", "last"]


def test_on_error_raise_starts_nothing_more(tmp_path: Path, note: Note, lines: Lines) -> None:
    ledger = tmp_path / "runs"

    def slow(i: int) -> None:
        note(ledger, i)
        time.sleep(0.05)

    first = mr.spawn(explode, args=(0,), priority=10)
    calls = mr.ExecutableTuple([first, *(mr.spawn(slow, args=(i,)) for i in range(40))])
    with pytest.raises(ValueError, match="bad 0"):
        calls.execute()
    mr.spawn(int).execute()
    assert len(lines(ledger)) < 20


def test_on_error_continue_runs_all_that_can_run(tmp_path: Path, note: Note, lines: Lines) -> None:
    #  bad ── child ── grandchild      good ── other
    ledger = tmp_path / "runs"

    def work(name: str, *_: object) -> str:
        note(ledger, name)
        return name

    bad = mr.spawn(explode, args=(1,))
    child = mr.spawn(work, args=("child", bad))
    grandchild = mr.spawn(work, args=("grandchild", [child]))
    good = mr.spawn(work, args=("good",))
    other = mr.spawn(work, args=("other", good))
    calls = mr.ExecutableTuple([bad, child, grandchild, good, other])
    assert calls.execute(on_error="continue") is calls
    assert (good.fetch(), other.fetch()) == ("good", "other")
    assert sorted(lines(ledger)) == ["good", "other"]
    with pytest.raises(ValueError, match="bad 1"):
        bad.fetch()
    for dependent in (child, grandchild):
        with pytest.raises(mars.errors.DependencyFailed) as caught:
            dependent.fetch()
        assert isinstance(caught.value.__cause__, ValueError)
        assert "bad 1" in str(caught.value.__cause__)


def test_errors_of_a_tuple_lists_what_failed() -> None:
    bad, good = mr.spawn(explode, args=(1,)), mr.spawn(int)
    child = mr.spawn(lambda x: x, args=(bad,))
    calls = mr.ExecutableTuple([good, bad, child])
    calls.execute(on_error="continue")
    kinds = [type(e) for e in present(calls.errors())]
    assert kinds == [ValueError, mars.errors.DependencyFailed]


def test_errors_of_a_tuple_that_succeeded_holds_none() -> None:
    calls = mr.ExecutableTuple([mr.spawn(int), mr.spawn(str)]).execute()
    assert present(calls.errors()) == []


def test_fetching_a_tuple_with_a_failed_member_raises_that_members_error() -> None:
    calls = mr.ExecutableTuple([mr.spawn(int), mr.spawn(explode, args=(2,))])
    calls.execute(on_error="continue")
    with pytest.raises(ValueError, match="bad 2"):
        calls.fetch()


def test_a_failed_intermediate_fails_the_only_call_asked_for() -> None:
    bad = mr.spawn(explode, args=(1,))
    with pytest.raises(ValueError, match="bad 1"):
        mr.spawn(lambda x: x, args=(bad,)).execute()


def test_dependency_failed_names_both_calls() -> None:
    bad = mr.spawn(explode, args=(1,), name="loader")
    child = mr.spawn(lambda x: x, args=(bad,), name="trainer")
    mr.ExecutableTuple([bad, child]).execute(on_error="continue")
    with pytest.raises(mars.errors.DependencyFailed) as caught:
        child.fetch()
    assert "trainer" in str(caught.value) and "loader" in str(caught.value)


def test_an_unknown_on_error_is_refused() -> None:
    with pytest.raises(ValueError, match="on_error"):
        mr.spawn(int).execute(on_error="ignore")


def test_all_outputs_of_a_failed_call_fail_alike() -> None:
    outputs = mr.spawn(lambda: explode(1), n_output=3)
    mr.ExecutableTuple(outputs).execute(on_error="continue")
    for output in outputs:
        with pytest.raises(ValueError, match="bad 1"):
            output.fetch()


def test_a_session_works_on_after_a_failure() -> None:
    for _ in range(5):
        with pytest.raises(ValueError):
            mr.spawn(explode, args=(1,)).execute()
    values = mr.ExecutableTuple([mr.spawn(pow, args=(i, 2)) for i in range(20)]).execute().fetch()
    assert values == [i * i for i in range(20)]


# -- trying again ------------------------------------------------------------------------------


def test_retries_run_the_call_again_until_it_succeeds(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger = tmp_path / "runs"

    def third_time() -> int:
        note(ledger)
        if len(lines(ledger)) < 3:
            raise ValueError("again")
        return len(lines(ledger))

    assert mr.spawn(third_time, retries=2).execute().fetch() == 3
    assert len(lines(ledger)) == 3


def test_retries_used_up_raise_the_last_error_and_its_attempt(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger = tmp_path / "runs"

    def never() -> None:
        note(ledger)
        raise ValueError(f"try {len(lines(ledger))}")

    with pytest.raises(ValueError, match="try 2") as caught:
        mr.spawn(never, retries=1).execute()
    assert len(lines(ledger)) == 2
    assert "attempt 2" in notes_of(caught.value)


@pytest.mark.parametrize(
    ("named", "runs"), [(ValueError, 2), (KeyError, 1), ((KeyError, ValueError), 2), (Exception, 2)]
)
def test_retry_on_tries_again_only_for_the_named_errors(
    tmp_path: Path, note: Note, lines: Lines, named: object, runs: int
) -> None:
    ledger = tmp_path / "runs"

    def never() -> None:
        note(ledger)
        raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        mr.spawn(never, retries=1, retry_on=named).execute()
    assert len(lines(ledger)) == runs


def test_a_failure_is_not_retried_unless_asked(tmp_path: Path, note: Note, lines: Lines) -> None:
    ledger = tmp_path / "runs"

    def never() -> None:
        note(ledger)
        raise OSError("once")

    with pytest.raises(OSError, match="once"):
        mr.spawn(never).execute()
    assert lines(ledger) == ["run"]


def test_retry_when_fail_means_three_further_tries_for_any_exception(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger = tmp_path / "runs"

    def never() -> None:
        note(ledger)
        raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        mr.spawn(never, retry_when_fail=True).execute()
    assert len(lines(ledger)) == 4


def test_a_retried_call_feeds_its_dependents(tmp_path: Path) -> None:
    flag = tmp_path / "seen"

    def flaky() -> int:
        if not flag.exists():
            flag.touch()
            raise ValueError("first time")
        return 5

    assert mr.spawn(pow, args=(mr.spawn(flaky, retries=1), 2)).execute().fetch() == 25


# -- time limits -------------------------------------------------------------------------------


def test_a_call_past_its_timeout_is_stopped_and_says_so(
    local_only: None, tmp_path: Path, note: Note, lines: Lines, wait_until: Callable[..., None]
) -> None:
    ledger = tmp_path / "beats"

    def forever() -> None:
        while True:
            note(ledger, os.getpid())
            time.sleep(0.01)

    with pytest.raises(mars.errors.TaskTimeout) as caught:
        mr.spawn(forever, timeout=0.2, name="endless").execute()
    assert isinstance(caught.value, TimeoutError)
    assert "endless" in str(caught.value) and "0.2" in str(caught.value)

    def still() -> bool:
        before = len(lines(ledger))
        time.sleep(0.1)
        return len(lines(ledger)) == before

    wait_until(still)
    assert len(lines(ledger)) > 1


def test_a_call_that_ignores_interrupts_is_stopped_too(
    local_only: None, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    psutil = pytest.importorskip("psutil")
    where = tmp_path / "pid"

    def stubborn() -> None:
        where.write_text(str(os.getpid()))
        while True:
            try:
                time.sleep(60)
            except BaseException:  # noqa: S112  the point of the test
                continue

    with pytest.raises(mars.errors.TaskTimeout):
        mr.spawn(stubborn, timeout=0.2).execute()
    wait_until(lambda: not psutil.pid_exists(int(where.read_text())))
    assert mr.spawn(int).execute().fetch() == 0


def test_a_call_within_its_timeout_is_left_alone() -> None:
    assert mr.spawn(pow, args=(2, 3), timeout=20).execute().fetch() == 8


def test_a_timeout_counts_from_the_start_of_the_call_not_from_execute(local_only: None) -> None:
    calls = [mr.spawn(time.sleep, args=(0.15,), timeout=0.6) for _ in range(10)]
    assert mr.ExecutableTuple(calls).execute().fetch() == [None] * 10


def test_a_timeout_leaves_the_siblings_alone(local_only: None) -> None:
    slow = mr.spawn(time.sleep, args=(30,), timeout=0.2)
    quick = [mr.spawn(pow, args=(i, 2)) for i in range(20)]
    calls = mr.ExecutableTuple([slow, *quick])
    calls.execute(on_error="continue")
    assert [q.fetch() for q in quick] == [i * i for i in range(20)]
    with pytest.raises(mars.errors.TaskTimeout):
        slow.fetch()


# -- values that do not pickle -----------------------------------------------------------------


def test_an_argument_that_does_not_pickle_is_refused_at_spawn_with_its_path() -> None:
    with pytest.raises(TypeError) as caught:
        mr.spawn(print, args=({"model": Locked()},))
    assert isinstance(caught.value, mars.errors.EncodeError)
    assert "args[0]['model'].lock: _thread.lock" in str(caught.value)


def test_a_keyword_argument_that_does_not_pickle_is_named() -> None:
    with pytest.raises(mars.errors.EncodeError, match=r"_thread\.lock") as caught:
        mr.spawn(print, kwargs={"guard": threading.Lock()})
    assert "guard" in str(caught.value)


def test_an_argument_beside_an_object_that_does_not_pickle_is_refused() -> None:
    source = mr.spawn(int)
    with pytest.raises(mars.errors.EncodeError, match=r"_thread\.lock"):
        mr.spawn(print, args=(source, [threading.Lock()])).execute()


def test_a_function_that_does_not_pickle_is_refused_with_the_culprits_type() -> None:
    lock = threading.Lock()

    def guarded() -> None:
        with lock:
            pass

    with pytest.raises(mars.errors.EncodeError, match=r"_thread\.lock"):
        mr.spawn(guarded).execute()


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: threading.Lock(), "_thread.lock"),
        (lambda: {"a": [threading.Lock()]}, "['a'][0]"),
        (lambda: Locked(), ".lock"),
        (lambda: (i for i in range(3)), "generator"),
    ],
    ids=["bare", "nested", "attribute", "generator"],
)
def test_a_result_that_does_not_pickle_is_an_error_that_names_it(
    make: Callable[[], object], path: str
) -> None:
    with pytest.raises(mars.errors.EncodeError) as caught:
        mr.spawn(make).execute()
    assert path in str(caught.value)
    assert "result" in str(caught.value)


def test_an_exception_that_does_not_pickle_is_an_error_that_keeps_its_text() -> None:
    def fail() -> None:
        raise LockedError()

    with pytest.raises(Exception) as caught:
        mr.spawn(fail).execute()
    text = rendered(caught.value)
    assert "LockedError" in text and "told by the function" in text
    assert type(caught.value).__name__ == "LockedError" or "_thread.lock" in text
    assert mr.spawn(int).execute().fetch() == 0


def test_an_exception_that_does_not_come_back_whole_keeps_its_text() -> None:
    def fail() -> None:
        raise NeedsTwo("left", "right")

    with pytest.raises(Exception) as caught:
        mr.spawn(fail).execute()
    text = rendered(caught.value)
    assert "NeedsTwo" in text and "left+right" in text
    assert mr.spawn(int).execute().fetch() == 0


def test_a_result_that_fails_to_unpickle_is_an_error_and_the_session_works_on() -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return int, ("not a number",)

    call = mr.spawn(Trap)
    with pytest.raises((ValueError, mars.errors.MarsError)):
        call.execute().fetch()
    assert mr.spawn(int).execute().fetch() == 0


def test_one_unpicklable_result_does_not_spoil_its_siblings() -> None:
    bad = mr.spawn(threading.Lock)
    good = mr.spawn(pow, args=(2, 3))
    mr.ExecutableTuple([bad, good]).execute(on_error="continue")
    assert good.fetch() == 8
    with pytest.raises(mars.errors.EncodeError):
        bad.fetch()


# -- workers that die --------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_and_its_call_runs_again(
    local_only: None, tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger = tmp_path / "runs"

    def die_once() -> int:
        note(ledger)
        if len(lines(ledger)) == 1:
            os.kill(os.getpid(), 9)
        return 5

    calls = mr.ExecutableTuple([mr.spawn(die_once), *(mr.spawn(int) for _ in range(20))])
    assert calls.execute().fetch() == [5] + [0] * 20
    assert len(lines(ledger)) == 2


def test_a_call_that_is_not_idempotent_is_never_run_twice(
    local_only: None, tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger = tmp_path / "runs"

    def die() -> None:
        note(ledger)
        print("last words", flush=True)
        os._exit(3)

    with pytest.raises(mars.errors.WorkerDied) as caught:
        mr.spawn(die, idempotent=False, name="fatal").execute()
    assert lines(ledger) == ["run"]
    text = rendered(caught.value)
    assert "fatal" in text and "3" in str(caught.value.ending) and "last words" in text
    assert mr.spawn(int).execute().fetch() == 0


def test_finished_results_survive_the_death_of_their_worker(local_only: None) -> None:
    kept = mr.ExecutableTuple([mr.spawn(bytes, args=(200_000,)) for _ in range(6)]).execute()

    def die() -> None:
        os.kill(os.getpid(), 9)

    killers = mr.ExecutableTuple([mr.spawn(die, idempotent=False) for _ in range(2)])
    killers.execute(on_error="continue")
    assert len(present(killers.errors())) == 2
    assert [len(v) for v in kept.fetch()] == [200_000] * 6


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_a_death_while_the_result_is_pickled_is_the_calls_own_end(
    local_only: None, size: int
) -> None:
    class DiesInPickle:
        def __init__(self) -> None:
            self.data = bytes(size)

        def __reduce__(self) -> tuple[object, ...]:
            os.kill(os.getpid(), 9)
            return int, ()

    call = mr.spawn(DiesInPickle, idempotent=False)
    with pytest.raises(mars.errors.WorkerDied):
        call.execute()
    assert mr.spawn(int).execute().fetch() == 0


def test_a_death_blames_only_the_call_that_ran(local_only: None) -> None:
    def die() -> None:
        os.kill(os.getpid(), 9)

    innocent = [mr.spawn(pow, args=(i, 2), idempotent=False) for i in range(100)]
    guilty = mr.spawn(die, idempotent=False)
    calls = mr.ExecutableTuple([*innocent[:50], guilty, *innocent[50:]])
    calls.execute(on_error="continue")
    assert [i.fetch() for i in innocent] == [i * i for i in range(100)]
    with pytest.raises(mars.errors.WorkerDied):
        guilty.fetch()


def test_an_error_while_an_argument_is_unpickled_is_the_calls_own() -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return int, ("not a number",)

    good = mr.spawn(int)
    bad = mr.spawn(lambda x: x, args=(Trap(),))
    mr.ExecutableTuple([bad, good]).execute(on_error="continue")
    assert good.fetch() == 0
    with pytest.raises(ValueError, match="not a number"):
        bad.fetch()


def test_a_deep_recursion_is_a_recursion_error() -> None:
    def dive(n: int) -> int:
        return dive(n + 1)

    with pytest.raises(RecursionError):
        mr.spawn(dive, args=(0,)).execute()
    assert mr.spawn(int).execute().fetch() == 0


def slow_once(flag: Path) -> str:
    if not flag.exists():
        flag.touch()
        time.sleep(60)
    return "second attempt"


@pytest.mark.parametrize(
    ("named", "again"),
    [
        (None, True), (Exception, True), (TimeoutError, True), (mars.errors.TaskTimeout, True),
        (OSError, True), ((KeyError, TimeoutError), True), (ValueError, False), (KeyError, False),
        ((KeyError, ValueError), False),
    ],
    ids=str,
)  # fmt: skip
def test_a_timeout_is_tried_again_when_retry_on_names_it(
    tmp_path: Path, named: object, again: bool
) -> None:
    call = mr.spawn(slow_once, tmp_path / "flag", timeout=0.4, retries=1, retry_on=named)
    if again:
        assert call.execute().fetch() == "second attempt"
    else:
        with pytest.raises(mars.errors.TaskTimeout):
            call.execute()


def test_a_timeout_is_not_tried_again_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(mars.errors.TaskTimeout):
        mr.spawn(slow_once, tmp_path / "flag", timeout=0.4).execute()


def test_a_nested_call_with_a_timeout_leaves_that_of_the_call_around_it_alone() -> None:
    def outer() -> str:
        mr.spawn(int, timeout=30).execute().fetch()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            pass
        return "outer ran to its end"

    with pytest.raises(mars.errors.TaskTimeout, match="outer was stopped"):
        mr.spawn(outer, timeout=0.7).execute()


def test_the_timeout_of_a_call_ends_nested_calls_that_it_waits_for() -> None:
    def outer() -> None:
        mr.spawn(time.sleep, 600, name="inner").execute()

    with pytest.raises(mars.errors.TaskTimeout, match="outer was stopped"):
        mr.spawn(outer, timeout=0.7).execute()


def test_a_nested_timeout_is_the_nested_calls_own_and_can_be_caught() -> None:
    def outer() -> list[str]:
        told = []
        for _ in range(2):
            try:
                mr.spawn(time.sleep, 60, timeout=0.3, name="inner").execute()
            except mars.errors.TaskTimeout as error:
                told.append(error.call)
        return told

    assert mr.spawn(outer, timeout=30).execute().fetch() == ["inner", "inner"]


def test_a_timeout_of_mars_inside_a_call_is_not_tried_again(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger = tmp_path / "runs"

    def outer() -> None:
        note(ledger)
        mr.spawn(time.sleep, 60, timeout=0.2).execute()

    with pytest.raises(mars.errors.TaskTimeout):
        mr.spawn(outer, retries=2).execute()
    assert lines(ledger) == ["run"]


def test_a_call_that_ends_well_after_the_interrupt_of_its_timeout_has_its_value() -> None:
    def tidy() -> str:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            return "tidied up"
        return "slept"

    assert mr.spawn(tidy, timeout=0.4).execute().fetch() == "tidied up"


def test_another_error_after_the_interrupt_of_its_timeout_is_the_timeout() -> None:
    def untidy() -> None:
        try:
            time.sleep(60)
        finally:
            raise LookupError("while tidying up")

    with pytest.raises(mars.errors.TaskTimeout):
        mr.spawn(untidy, timeout=0.4).execute()


def test_arguments_that_take_too_long_to_unpickle_count_against_the_timeout() -> None:
    with pytest.raises(mars.errors.TaskTimeout):
        mr.spawn(str, args=(SlowToLoad(),), timeout=0.4).execute()


class SlowToLoad:
    def __reduce__(self) -> tuple[object, ...]:
        return time.sleep, (60,)


# -- what is told of the others ----------------------------------------------------------------


def test_after_the_first_failure_each_call_tells_why_it_has_no_value() -> None:
    #  bad ── child ── grandchild        left, which nothing needs
    bad = mr.spawn(explode, args=(1,), priority=5)
    child = mr.spawn(abs, (bad,))
    grandchild = mr.spawn(abs, (child,))
    calls = mr.ExecutableTuple([bad, child, grandchild])
    with pytest.raises(ValueError, match="bad 1"):
        calls.execute()
    kinds = [type(error) for error in calls.errors()]
    assert kinds == [ValueError, mars.errors.DependencyFailed, mars.errors.DependencyFailed]
    for dependent in (child, grandchild):
        with pytest.raises(mars.errors.DependencyFailed):
            dependent.fetch()


def test_what_was_left_out_after_a_failure_was_not_executed() -> None:
    calls = mr.ExecutableTuple([mr.spawn(explode, args=(0,), priority=5)])
    slow = [mr.spawn(time.sleep, args=(0.1,)) for _ in range(20)]
    with pytest.raises(ValueError):
        mars.execute(*calls, *slow)
    with pytest.raises(mars.errors.NotExecuted):
        slow[-1].fetch()
    last = mr.ExecutableTuple(slow).errors()[-1]
    assert isinstance(last, mars.errors.NotExecuted) and last.state == "not started"


def test_inputs_of_a_call_that_failed_are_not_made_again(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger, fixed = tmp_path / "runs", tmp_path / "fixed"

    def load() -> int:
        note(ledger)
        return 7

    def fragile(x: int) -> int:
        if not fixed.exists():
            raise OSError("not yet")
        return x

    call = mr.spawn(fragile, (mr.spawn(load),))  # nobody else holds the input
    with pytest.raises(OSError):
        call.execute()
    fixed.touch()
    assert call.execute().fetch() == 7
    assert lines(ledger) == ["run"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, StopIteration])
def test_an_exception_that_stands_for_something_else_is_the_calls_own(
    kind: type[BaseException],
) -> None:
    def raises() -> None:
        raise kind("of the call")

    bad, good = mr.spawn(raises), mr.spawn(abs, -1)
    mars.execute(bad, good, on_error="continue")
    assert good.fetch() == 1
    with pytest.raises(kind, match="of the call"):
        bad.fetch()


def test_a_call_that_nothing_can_run_is_refused_before_anything_runs(
    tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger = tmp_path / "runs"
    fine, never = mr.spawn(note, args=(ledger,)), mr.spawn(abs, -1, cpus=1000)
    for wait in (True, False):
        with pytest.raises(mars.errors.NoAvailableBand):
            mars.execute(fine, never, wait=wait)
    assert lines(ledger) == []


@pytest.mark.parametrize("code", [None, 0, 2, "no input"])
@pytest.mark.parametrize("way", ["execute", "result", "fetch", "map"])
def test_who_asked_for_the_end_of_the_program_is_told(
    way: str, code: object, capfd: pytest.CaptureFixture[str]
) -> None:
    def step(i: int, code: object) -> int:
        if i == 1:
            sys.exit(code)
        return i

    calls: Any = mr.ExecutableTuple([mr.spawn(step, args=(i, code)) for i in range(3)])
    if way == "map":
        calls = mr.map(step, range(3), [code] * 3)
    with pytest.raises(SystemExit) as caught:
        if way == "result":
            calls.execute(wait=False).result(20)
        elif way == "fetch":
            calls.execute(on_error="continue")
            calls.fetch()
        else:
            calls.execute()
    assert caught.value.code == code
    said = capfd.readouterr().err
    shown = "" if code is None else repr(code)
    assert f"mars: task step(1, {code!r}) ended with sys.exit({shown}); " in said


def test_a_nested_exit_names_the_call_that_made_it(capfd: pytest.CaptureFixture[str]) -> None:
    def outer() -> None:
        mr.spawn(sys.exit, 4, name="inner").execute()

    with pytest.raises(SystemExit):
        mr.spawn(outer).execute()
    assert capfd.readouterr().err.startswith("mars: task inner(4) ended with sys.exit(4); ")


def frames_of(act: Callable[[], object]) -> list[str]:
    """The functions in the traceback of an error, ours as ``mars``; the first is the test's own."""
    try:
        act()
    except BaseException as error:
        ours = os.path.dirname(mars.__file__)
        stack = traceback.extract_tb(error.__traceback__)
        return ["mars" if one.filename.startswith(ours) else one.name for one in stack[1:]]
    raise AssertionError("no error")


def test_tracebacks_go_from_the_program_to_the_function_without_frames_of_ours() -> None:
    call, whole = mr.spawn(explode, args=(0,)), mr.map(explode, [0])
    for act in (
        call.execute,
        call.fetch,
        call.to_object,
        whole.execute,
        whole.fetch,
        mr.ExecutableTuple([call]).execute,
        lambda: mars.execute(call),
        lambda: mars.fetch(call),
        lambda: call.execute(wait=False).result(),
        lambda: mr.ExecutableTuple([call]).to_object(wait=False).result(),
    ):
        frames = frames_of(act)
        assert frames.count("mars") <= 1 and frames[-1] == "explode", frames
    for act in (mr.spawn(abs, -1).fetch, lambda: call.execute(nonsense=1)):
        assert frames_of(act).count("mars") <= 1


def test_a_timeout_carries_the_stack_at_the_interrupt() -> None:
    def inner() -> None:
        while True:
            pass

    def outer() -> None:
        inner()

    call = mr.spawn(outer, timeout=0.3)
    with pytest.raises(
        mars.errors.TaskTimeout, match=r"It was at line \d+ of \S+ in inner"
    ) as told:
        call.execute()
    names = [one.name for one in traceback.extract_tb(told.value.__traceback__)]
    assert names[-2:] == ["outer", "inner"]
    with pytest.raises(mars.errors.TaskTimeout, match="It was in compiled code"):
        mr.spawn(time.sleep, args=(60,), timeout=0.2).execute()
    assert pickle.loads(pickle.dumps(told.value)).where == told.value.where


def test_ctrl_c_says_how_far_the_run_was(ctrl_c: Callable[[float], None]) -> None:
    done, held = mr.spawn(abs, -1, priority=1), mr.spawn(time.sleep, args=(60,))
    ctrl_c(0.5)
    with pytest.raises(KeyboardInterrupt, match=r"^1 of 2 done; execute\(\) again runs the rest$"):
        mars.execute(done, held)
    assert done.fetch() == 1
