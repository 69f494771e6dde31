"""Results as they come: `as_completed`, iteration over a run, and how many calls are done."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.errors import DependencyFailed, SessionClosed

PassGate = Callable[[Path], None]
WaitUntil = Callable[..., None]


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that calls wait for. It is there at the end, so that no call waits for ever."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def held(gate: Path, pass_gate: PassGate, value: int = 0) -> mr.Object:
    def hold() -> int:
        pass_gate(gate)
        return value

    return mr.spawn(hold, name="held", priority=-1)


def test_each_object_comes_once_as_soon_as_it_is_done(gate: Path, pass_gate: PassGate) -> None:
    late = held(gate, pass_gate, 7)
    done = mr.spawn(abs, -5).execute()
    calls = [late, done, mr.spawn(abs, -6)]
    coming = mr.as_completed(calls)
    assert len(coming) == 3
    first = [next(coming), next(coming)]
    assert sorted(one.fetch() for one in first) == [5, 6] and len(coming) == 1
    gate.touch()
    assert [one.fetch() for one in coming] == [7]
    assert {*first, late} == set(calls)


def test_failures_come_like_all_others() -> None:
    bad = mr.spawn(fail, "bad")
    calls = [bad, mr.spawn(str, (bad,)), mr.spawn(abs, -1), mr.spawn(fail, "worse")]
    ended = {one: one.errors()[0] for one in mr.as_completed(calls)}
    kinds = [type(ended[one]) for one in calls]
    assert kinds == [ValueError, DependencyFailed, type(None), ValueError]


def test_items_of_maps_come_one_by_one() -> None:
    source = mr.spawn(abs, -3)
    mapped = mr.map(lambda x: x + 1, [1, source, 5])
    failing = mr.map(lambda x: 1 // x, [0, 1])
    values = [
        item.fetch() if item.errors() == [None] else "error"
        for item in mr.as_completed([mapped, mr.ExecutableTuple([failing])])
    ]
    assert sorted(map(str, values)) == ["1", "2", "4", "6", "error"]
    assert sorted(one.fetch() for one in mr.as_completed(mapped)) == [2, 4, 6]  # done already


def test_a_call_that_failed_before_comes_when_it_has_run_again(tmp_path: Path) -> None:
    def act() -> int:
        if not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            fail("the first time")
        return 4

    call, other = mr.spawn(act), mr.spawn(abs, -1)
    with pytest.raises(ValueError):
        call.execute()
    assert sorted(one.fetch() for one in mr.as_completed([call, other])) == [1, 4]


def test_all_calls_are_one_run(session: mars.session.Session) -> None:
    before = session.engine.observe(0).next
    list(mr.as_completed([mr.spawn(abs, -i) for i in range(4)]))
    runs = {one.run for one in session.engine.observe(before).attempts}
    assert len(runs) <= 1


def test_a_run_is_iterated_over_and_raises_what_ended_it() -> None:
    run = mars.execute(*[mr.spawn(abs, -i) for i in range(3)], wait=False)
    assert sorted(one.fetch() for one in run) == [0, 1, 2]
    assert list(run) == []  # once, like a file
    bad = mr.spawn(fail, "bad", priority=5)
    after = [mr.spawn(str, (bad,)), *[mr.spawn(time.sleep, 0.01) for _ in range(50)]]
    run, came = mars.execute(bad, *after, wait=False), []
    with pytest.raises(ValueError, match="bad"):
        for one in run:
            came += [one]
    assert bad in came and len(came) < 52


def test_a_single_object_is_a_run_of_one() -> None:
    call = mr.spawn(abs, -1)
    run = call.execute(wait=False)
    assert list(run) == [call] and run.result() is call
    assert [one.fetch() for one in mr.as_completed(mr.spawn(abs, -2))] == [2]
    assert list(mr.as_completed([])) == []


def test_objects_are_let_go_of_as_they_are_given() -> None:
    calls = [mr.spawn(abs, -i) for i in range(6)]
    kept, refs = calls[0], [weakref.ref(one) for one in calls]
    run = mars.execute(*calls, wait=False)
    coming = iter(run)
    del calls
    for _ in range(6):
        assert next(coming).fetch() < 6
    gc.collect()
    assert [ref() for ref in refs] == [kept, *[None] * 5]
    assert run.result() == [kept] and run.to_execute_tileables == [kept]


def test_an_iterator_that_is_dropped_drops_its_objects(gate: Path, pass_gate: PassGate) -> None:
    calls = [mr.spawn(abs, -1), held(gate, pass_gate)]
    refs = [weakref.ref(one) for one in calls]
    gc.disable()  # nothing may have to be found by it
    try:
        for one in mr.as_completed(calls):
            assert one.fetch() == 1
            break
        del calls, one
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()
    gate.touch()


def test_a_time_limit_says_how_far_the_calls_are(gate: Path, pass_gate: PassGate) -> None:
    coming = mr.as_completed([held(gate, pass_gate), mr.spawn(abs, -1)], timeout=0.3)
    with pytest.raises(TimeoutError, match=r"^1 objects? .*1 of 2 done, 1 running \(held for "):
        for _ in coming:
            pass
    gate.touch()
    assert len(list(mr.as_completed([held(gate, pass_gate)], timeout=60))) == 1


def test_it_is_an_async_iterator_too(gate: Path, pass_gate: PassGate) -> None:
    late = held(gate, pass_gate, 7)

    async def main() -> list[int]:
        values = []
        async for one in mr.as_completed([late, mr.spawn(abs, -1)]):
            values.append(one.fetch())
            gate.touch()
        run = mars.execute(mr.spawn(abs, -2), mr.spawn(abs, -3), wait=False)
        values += [one.fetch() async for one in run]
        with pytest.raises(ValueError):
            async for _ in mars.execute(mr.spawn(fail, "x"), mr.spawn(fail, "y"), wait=False):
                pass
        return values

    first, second, *others = asyncio.run(main())
    assert (first, second, sorted(others)) == (1, 7, [2, 3])


def test_counts_say_how_many_calls_are_where(
    gate: Path, pass_gate: PassGate, wait_until: WaitUntil
) -> None:
    late = held(gate, pass_gate)
    bad = mr.spawn(fail, "bad")
    run = mars.execute(
        mr.spawn(abs, -1), bad, late, mr.spawn(str, (late,)), wait=False, on_error="continue"
    )
    wait_until(lambda: (run.counts().done, run.counts().failed, run.counts().running) == (1, 1, 1))
    assert str(run.counts()) == "1 of 4 done, 1 running, 1 failed, 1 not started"
    gate.touch()
    run.result(60)
    assert run.counts() == (3, 0, 1, 0, 0, 0)


def test_errors_of_waiting_say_how_far_the_run_is(
    gate: Path, pass_gate: PassGate, wait_until: WaitUntil
) -> None:
    run = mars.execute(held(gate, pass_gate), mr.spawn(abs, -1), wait=False)
    wait_until(lambda: run.counts()[:2] == (1, 1))
    told = r"1 of 2 done, 1 running \(held for [\d.]+ s\)\. It goes on$"
    for wait in (run.result, run.exception):
        with pytest.raises(TimeoutError, match=told):
            wait(0.01)
    assert run.cancel()
    for wait in (run.result, run.exception, lambda: list(run)):
        with pytest.raises(
            CancelledError, match=r"cancelled: 1 of 2 done, 1 cancelled\. execute\("
        ):
            wait()


def numbered(number: int) -> mr.Object:
    return mr.spawn(int, (number,), name=f"number {number}")


def test_a_window_bounds_what_is_started_and_not_read(
    session: mars.session.Session, wait_until: WaitUntil
) -> None:
    refs: list[weakref.ref[mr.Object]] = []

    def objects() -> Iterator[mr.Object]:
        for number in range(12):
            made = [numbered(number)]
            refs.append(weakref.ref(made[0]))
            yield made.pop()

    coming = mr.as_completed(objects(), window=3)
    wait_until(lambda: len(refs) == 3)  # the iterator is read no further
    values = []
    for one in coming:
        values.append(one.fetch())
        assert len(refs) == min(12, 3 + len(values))
        del one
        gc.collect()
        assert len([ref for ref in refs if ref() is not None]) <= 3
    assert sorted(values) == list(range(12))


def test_a_window_gives_failures_items_of_maps_and_how_many_are_left() -> None:
    bad = mr.spawn(fail, "bad")
    coming = mr.as_completed(
        [bad, mr.spawn(str, (bad,)), mr.map(abs, [-1, -2, -3]), numbered(9)], window=2
    )
    assert len(coming) == 6
    found = [one.errors()[0] or one.fetch() for one in coming]
    assert len(coming) == 0
    told = sorted(type(one).__name__ for one in found)
    assert told == ["DependencyFailed", "ValueError", "int", "int", "int", "int"]
    assert sum(one for one in found if isinstance(one, int)) == 15


def test_in_a_window_a_call_that_has_failed_is_not_run_again_for_those_that_need_it(
    tmp_path: Path,
) -> None:
    def fail_and_count() -> int:
        with open(tmp_path / "runs", "a") as file:
            file.write("x")
        raise ValueError("once")

    bad = mr.spawn(fail_and_count)
    needs = [mr.spawn(abs, (bad,)), mr.spawn(abs, (mr.spawn(abs, (bad,)),))]
    found = [one.errors()[0] for one in mr.as_completed([bad, *needs], window=1)]
    assert [type(one).__name__ for one in found] == ["ValueError", *["DependencyFailed"] * 2]
    assert (tmp_path / "runs").read_text() == "x"
    again = next(mr.as_completed([bad], window=1))
    assert isinstance(again.errors()[0], ValueError)
    assert (tmp_path / "runs").read_text() == "xx"  # whoever asks anew has it run again


def test_values_of_a_map_are_freed_item_by_item_in_a_window() -> None:
    whole = mr.map(lambda number: number + 1, range(6))
    values = []
    for one in mr.as_completed(whole, window=2):
        values.append(one.fetch())
        del one
    gc.collect()
    assert sorted(values) == [1, 2, 3, 4, 5, 6]
    assert whole.states() == ["not started"] * 6  # nothing of it is kept
    assert whole.execute().fetch() == [1, 2, 3, 4, 5, 6]


def test_a_window_changes_no_random_number() -> None:
    def draw() -> float:
        return float(mr.rng().random())

    calls = [mr.spawn(draw) for _ in range(4)]
    at_once = mr.ExecutableTuple(calls).execute(seed=5).fetch()
    again = [mr.spawn(draw, name=str(at)) for at in range(4)]
    found = {one.name: one.fetch() for one in mr.as_completed(again, window=1, seed=5)}
    assert [found[str(at)] for at in range(4)] == at_once


def test_an_error_of_the_programs_iterator_loses_nothing() -> None:
    def objects() -> Iterator[mr.Object]:
        yield numbered(1)
        yield numbered(2)
        raise KeyError("no more")

    coming, values = mr.as_completed(objects(), window=1), []
    with pytest.raises(KeyError, match="no more"):
        values.extend(one.fetch() for one in coming)
    values += [one.fetch() for one in coming]
    assert values == [1, 2]
    with pytest.raises(TypeError, match="from an iterator"):
        len(coming)
    with pytest.raises(TypeError, match="got 7"):
        list(mr.as_completed(iter([numbered(1), 7]), window=2))


def test_a_window_is_left_early_and_no_further_call_starts() -> None:
    calls = [numbered(number) for number in range(5)]
    for one in mr.as_completed(calls, window=1):
        assert one.fetch() == 0
        break
    assert calls[3].states() == ["not started"]


def test_a_window_works_inside_a_call_and_in_asyncio(gate: Path, pass_gate: PassGate) -> None:
    def outer() -> list[int]:
        few = mr.as_completed((mr.spawn(abs, -i) for i in range(4)), window=2)
        return sorted(one.fetch() for one in few)

    async def main() -> list[int]:
        few = mr.as_completed((mr.spawn(abs, -i) for i in range(4)), window=2)
        return sorted([one.fetch() async for one in few])

    assert mr.spawn(outer).execute().fetch() == [0, 1, 2, 3]
    assert asyncio.run(main()) == [0, 1, 2, 3]
    late = mr.as_completed([held(gate, pass_gate)], window=1, timeout=0.2)
    with pytest.raises(TimeoutError, match=r"^1 object is .* 0 read, 1 under way"):
        next(late)
    gate.touch()


def test_ctrl_c_ends_a_window(local_only: None, ctrl_c: Callable[[float], None]) -> None:
    calls = [mr.spawn(time.sleep, 60) for _ in range(3)]
    coming = mr.as_completed(calls, window=2)
    with pytest.raises(KeyboardInterrupt, match=r"^0 read, 2 cancelled\. execute"):
        ctrl_c(0.2)
        next(coming)
    assert sorted(str(one.states()[0]) for one in coming) == ["cancelled", "cancelled"]
    assert calls[2].states() == ["not started"]


def test_a_window_that_makes_no_sense_is_refused() -> None:
    call = mr.spawn(abs, -1)
    with pytest.raises(ValueError, match="window has to be 1 or more, got 0"):
        mr.as_completed([call], window=0)
    with pytest.raises(TypeError, match="number of objects, got True"):
        mr.as_completed([call], window=True)
    assert call.states() == ["not started"]
    run = call.execute(wait=False)
    with pytest.raises(mars.errors.UsageError, match="comes too late"):
        mr.as_completed(run, window=2)
    run.result(60)


def test_results_as_they_come_work_inside_a_call() -> None:
    def outer() -> list[int]:
        return sorted(one.fetch() for one in mr.as_completed([mr.spawn(abs, -i) for i in range(3)]))

    assert mr.spawn(outer).execute().fetch() == [0, 1, 2]


def test_a_session_that_ends_ends_the_iteration(
    session: mars.session.Session, engine: str, gate: Path, pass_gate: PassGate
) -> None:
    if engine in ("dask", "ray"):
        pytest.skip("each session of its own costs a cluster here")
    other = mars.new_session(engine=engine, n_cpu=1, default=False)
    coming = mr.as_completed([held(gate, pass_gate), mr.spawn(abs, -1)], session=other)
    first = next(coming)
    threading.Timer(0.1, lambda: (gate.touch(), other.stop_server())).start()
    with pytest.raises(SessionClosed):
        for one in [first, *coming]:
            one.fetch(session=other)


@pytest.mark.parametrize("wrong", [3, [3], ["text"], None])
def test_what_is_no_object_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError):
        mr.as_completed(wrong)  # type: ignore[arg-type]
    call = mr.spawn(abs, -1)
    with pytest.raises(TypeError, match="timeout has to be seconds"):
        mr.as_completed([call], timeout="1")  # type: ignore[arg-type]
    assert call.states() == ["not started"]
