"""What the page tells, asked without a browser: graphs, calls that come once, and its pace."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.web import app, clerk, facts, graph, index
from mars.web.facts import Facts

STEP = 10


def outer(number: int, gate: str) -> Any:
    """Makes a call inside itself."""
    return mr.spawn(inner, args=(number, gate)).execute().fetch()


def inner(number: int, gate: str) -> int:
    """Goes on until a file is there."""
    while not os.path.exists(gate):
        time.sleep(0.005)
    return number


def add(*numbers: int) -> int:
    """Adds up; fails for a sum of 13."""
    if sum(numbers) == 13:
        raise ValueError("not 13")
    return sum(numbers)


@pytest.fixture(params=["inline", "local"])
def session(request: pytest.FixtureRequest) -> Iterator[Any]:
    given = {"engine": "inline"} if request.param == "inline" else {"n_cpu": 2}
    with mars.new_session(default=False, **given) as found:
        yield found


def facts_now(session: Any) -> Facts:
    found = clerk.facts_of(session)
    found.index.advance(60)
    return found


def boxes_by(told: dict[str, Any], place: int) -> list[Any]:
    return sorted(box[place] for box in told["boxes"])


def named(told: dict[str, Any]) -> set[tuple[str, str, int, bool]]:
    """The arrows, with names for places."""
    names = [box[1] for box in told["boxes"]]
    return {(names[a], names[b], count, made) for a, b, count, made in told["arrows"]}


def test_a_graph_has_calls_inside_calls_while_they_run_and_afterwards(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    with mars.new_session(n_cpu=2, default=False) as session:
        page = clerk.facts_of(session)
        calls = [mr.spawn(outer, args=(n, str(gate)), name=f"outer {n}") for n in range(2)]
        end = mr.spawn(add, args=tuple(calls))
        run = session.execute(end, wait=False, show_progress=False)
        try:
            wait_until(
                lambda: sum(made for *_, made in page.graph("", "")["arrows"]) == 2, limit_s=60
            )
            live = page.graph("", "")
        finally:
            gate.touch()
        assert run.result().fetch(session=session) == 1
        told = [named(live), named(facts_now(session).graph("", ""))]
        assert [box[3] for box in live["boxes"] if box[1] == "inner"] == [{"running": 1}] * 2
        for arrows in told:
            assert arrows == {
                ("outer 0", "add", 1, False), ("outer 1", "add", 1, False),
                ("outer 0", "inner", 1, True), ("outer 1", "inner", 1, True),
            }  # fmt: skip
        grouped = page.graph("", "function")
        assert named(grouped) == {("outer", "add", 2, False), ("outer", "inner", 2, True)}
        assert {box[1]: box[3] for box in grouped["boxes"]}["inner"] == {"done": 2}


def test_a_graph_of_many_calls_is_the_same_counted_at_once_and_box_by_box(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    clerk.facts_of(session)
    leaves = [mr.spawn(add, args=(n,)) for n in range(20)]
    sums = [mr.spawn(add, args=tuple(leaves[n : n + 3]), name=f"sum {n}") for n in range(0, 18, 3)]
    nests = [mr.spawn(outer, args=(n, str(gate))) for n in range(4)]
    session.execute(*sums, *nests, on_error="continue", show_progress=False)
    page = facts_now(session)
    slow = page.graph("", "function")
    monkeypatch.setattr(graph, "PAGE_GRAPH_MOST", 8)
    fast = page.graph("", "function")
    counts = [{box[1]: (box[2], box[3]) for box in told["boxes"]} for told in (slow, fast)]
    assert counts[0] == counts[1]
    assert counts[0]["inner"] == (4, {"done": 4})
    assert counts[0]["add"][1]["failed"] == 2  # one, and the one that reads it
    assert named(slow) == named(fast)
    assert ("outer", "inner", 4, True) in named(fast)


def test_a_flood_of_one_function_is_not_counted_call_by_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setattr(graph, "PAGE_GRAPH_MOST", 8)
    monkeypatch.setattr(index, "PAGE_STEP_ROWS", STEP)
    monkeypatch.setattr(facts, "PAGE_FLOOD_LISTED", 5)
    with mars.new_session(n_cpu=1, default=False) as session:
        page = clerk.facts_of(session)
        first = [mr.spawn(inner, args=(n, os.devnull)) for n in range(3 * STEP)]
        held = [mr.spawn(inner, args=(n, str(gate))) for n in range(20)]
        run = session.execute(*first, *held, wait=False, show_progress=False)
        try:
            wait_until(lambda: run.counts().done == len(first), limit_s=60)
            looked: list[object] = []
            states_of = graph._FACTS
            monkeypatch.setattr(graph, "_FACTS", lambda one: looked.append(one) or states_of(one))
            (box,) = page.graph("", "")["boxes"]
            assert box[2:4] == [50, {"done": 30, "queued": 19, "running": 1}] and not looked
            told = page.calls()  # nobody has read of those that have ended
            assert (told["under_way"], told["more"]) == (5, 15)
            page.index.advance(60)
            assert page.calls()["under_way"] == 20
            assert held[-1].cancel(session=session)
            states = {"done": 30, "queued": 18, "running": 1, "stopped": 1}
            wait_until(lambda: page.graph("", "")["boxes"][0][3] == states, limit_s=60)
            assert looked  # the engine's counts do not say which calls were cancelled
        finally:
            gate.touch()
        run.result()


def test_events_of_a_flood_leave_the_program_its_processor_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(had=1.0, wall=0.0, events=0)
    page = SimpleNamespace(busy=True)

    def overview() -> dict[str, int]:
        clock.events += 1
        clock.own += 0.002
        return {"runs": 1, "behind": 1_000}

    async def pause(self: app.App, seconds: float) -> None:
        clock.wall += seconds
        clock.had += 0.1 * seconds  # the machine is busy with other things

    clock.own, page.overview = 0.0, overview
    monkeypatch.setattr(
        app, "time",
        SimpleNamespace(
            thread_time=lambda: clock.own, process_time=lambda: clock.had,
            monotonic=lambda: clock.wall,
        ),
    )  # fmt: skip
    monkeypatch.setattr(app.App, "_pause", pause)

    async def watch(count: int) -> None:
        found = app.App(page, frozenset(), "http", "key")  # type: ignore[arg-type]
        async for event in found._overviews():
            assert event.startswith(b"event: overview\n")
            if clock.events == count:
                return

    asyncio.run(watch(11))
    assert 10 * 1.9 < clock.wall < 10 * 2.6  # 0.002 s are a hundredth of 0.2 s, of 2 s by the clock
    page.busy = False  # the run has ended: that is told at once
    clock.events, clock.wall = 0, 0.0
    asyncio.run(watch(11))
    assert clock.wall == pytest.approx(10 * app.PAGE_TICK_S)


def test_a_window_waits_longer_for_its_next_answer_only_while_a_flood_of_calls_goes_on() -> None:
    page = SimpleNamespace(busy=True, index=SimpleNamespace(behind=0))
    found = app.App(page, frozenset(), "http", "key")  # type: ignore[arg-type]
    used_s, took_s = 0.002, 0.4  # others have the cores
    assert found._rest_after(used_s, took_s) == pytest.approx(used_s / app.PAGE_FREE_SHARE)
    page.index.behind = 1_000
    assert found._rest_after(used_s, took_s) == pytest.approx(took_s / app.PAGE_SHARE)
    page.busy = False
    assert found._rest_after(used_s, took_s) == 0


def test_calls_of_a_run_that_is_counted_after_its_first_rows_are_counted_once(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = clerk.facts_of(session)
    monkeypatch.setattr(index.Index, "_count", lambda self, most=None: False)  # no number yet
    session.execute(*[mr.spawn(add, args=(n,)) for n in range(20, 30)], show_progress=False)
    page.index.advance(60)
    assert page.index.kinds["add"].done == 10
    monkeypatch.undo()
    page.index.advance(60)
    assert page.index.kinds["add"].total == 10


def test_calls_that_have_ended_are_told_once(session: Any) -> None:
    page = clerk.facts_of(session)
    first = [mr.spawn(add, args=(n,), name=f"first {n}") for n in range(3)]
    session.execute(*first, show_progress=False)
    told = facts_now(session).calls()
    assert sorted(told["words"][row[1]] for row in told["rows"]) == [f"first {n}" for n in range(3)]
    assert page.calls(told["next"])["rows"] == []
    session.execute(mr.spawn(add, args=(5,), name="second"), show_progress=False)
    again = facts_now(session).calls(told["next"])
    assert [again["words"][row[1]] for row in again["rows"]] == ["second"]
    assert again["next"] == 4


def test_a_page_stops_where_others_wait_and_rests_until_the_program_has_had_its_time(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = clerk.facts_of(session)
    calls = [mr.spawn(add, args=(n + 100,)) for n in range(8 * STEP)]
    session.execute(*calls, show_progress=False)
    found = index.Index(session.engine)
    clock = SimpleNamespace(wall=0.0, had=0.0, used=0.0)

    def look(costs_s: float, takes_s: float) -> None:
        real = session.engine.table

        def table(*args: Any) -> Any:
            clock.had, clock.used = clock.had + costs_s, clock.used + costs_s
            clock.wall += takes_s
            return real(*args)

        found._engine = SimpleNamespace(table=table)  # type: ignore[assignment]

    monkeypatch.setattr(
        index, "time",
        SimpleNamespace(
            perf_counter=lambda: clock.wall, monotonic=lambda: clock.wall,
            thread_time=lambda: clock.had, process_time=lambda: clock.used,
        ),
    )  # fmt: skip
    monkeypatch.setattr(index, "PAGE_STEP_ROWS", STEP)
    monkeypatch.setattr(index, "_FEW", 0)
    look(costs_s=0.001, takes_s=0.01)  # it waits nine tenths of the time
    found.keep_up(len(calls), known=True)
    assert 0 < found.taken <= STEP
    seen = found.taken
    clock.used += 0.5 * 0.001 / index.PAGE_SHARE
    found.keep_up(len(calls), known=True)
    assert found.taken == seen  # the program has not had 99 times as much yet
    clock.used += 0.6 * 0.001 / index.PAGE_SHARE
    found.keep_up(len(calls), known=True)
    assert seen < found.taken <= 2 * STEP
    clock.wall += index.PAGE_LATE_S + 1  # the program does nothing: the page is not late for long
    seen = found.taken
    found.keep_up(len(calls), known=True)
    assert found.taken > seen
    clock.used += 1
    look(costs_s=0.001, takes_s=0.001)  # nobody else wants anything
    found.keep_up(len(calls), known=True)
    assert found.taken == len(calls)
    assert page.index is not found


def test_a_report_of_many_attempts_waits_for_the_end_or_for_somebody_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    with mars.new_session(n_cpu=2, default=False) as session:
        page = clerk.facts_of(session)
        session.execute(*[mr.spawn(add, args=(n,)) for n in range(5)], show_progress=False)
        monkeypatch.setattr(facts, "PAGE_REPORT_ROWS", 3)
        run = session.execute(mr.spawn(inner, args=(1, str(gate))), wait=False, show_progress=False)
        try:
            assert page.answer("/api/report", {}) == {"many": 5}
            assert page.answer("/api/report", {"now": "1"})["functions"][0][1] == 5
        finally:
            gate.touch()
        run.result()
        assert page.answer("/api/report", {})["cores"] == 2


def test_the_time_left_of_calls_that_nobody_has_read_yet_follows_from_their_rate() -> None:
    def tops(done: int) -> list[Any]:
        return [SimpleNamespace(done=done, failed=0, total=10_000)]

    assert facts._by_rate(tops(5_000), 10.0) == pytest.approx((7.0, 15.0))
    assert facts._by_rate(tops(5_000), 0.1) is None
    assert facts._by_rate(tops(3), 10.0) is None
