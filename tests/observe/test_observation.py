"""The table of attempts that have ended, and how views read it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.observe.attempts import Attempts
from mars.observe.observation import Observation, ended_attempts
from mars.task import TIMING

WORKER = SimpleNamespace(address="w0", id=3, where=("host", 4))


def fact(number: int, timing: bytes | None = None) -> tuple[Any, ...]:
    """An attempt as engines note it."""
    return (
        number, 7, "name", 1, 2, 0, 0, WORKER, "value", 1.0, 2.0, 3.0, timing,
        None, 0, 0,
    )  # fmt: skip


def noted(count: int, limit: int) -> Attempts:
    table = Attempts(limit)
    for number in range(count):
        table.count += 1
        table.kept.append(fact(number))
    return table


@pytest.mark.parametrize(
    ("cursor", "there"), [(0, [6, 7, 8, 9]), (5, [6, 7, 8, 9]), (8, [8, 9]), (10, []), (99, [])]
)
def test_the_table_keeps_the_newest_and_gives_what_came_after_a_cursor(
    cursor: int, there: list[int]
) -> None:
    assert [one[0] for one in noted(10, 4).since(cursor)] == there


def test_whoever_asks_watches() -> None:
    table = Attempts()
    assert not table.watched
    table.since(0)
    assert table.watched


def test_a_record_has_the_moments_in_seconds_and_the_call_s_key() -> None:
    first, second = ended_attempts(
        [fact(1, TIMING.pack(*[n * 10**9 for n in range(4, 9)])), fact(2)]
    )
    assert first.times is not None and first.times == (1, 2, 3, 4, 5, 6, 7, 8)
    assert second.times is None
    assert len(first.call) == 32 and first.call.endswith("07")
    assert (first.node, first.pid, first.attempt, first.log_bytes) == ("host", 4, 1, 0)


def test_an_engine_tells_how_many_attempts_it_does_not_keep_any_more() -> None:
    session = mars.new_session(n_cpu=1, default=False)
    try:
        engine = session.engine
        engine.loop.scheduler.core.ended = Attempts(limit=10)  # type: ignore[attr-defined]
        assert engine.observe(0).next == 0
        calls = [mr.spawn(abs, index) for index in range(25)]
        mr.ExecutableTuple(calls).execute(session=session)
        seen = engine.observe(0)
        assert (len(seen.attempts), seen.missed, seen.next) == (10, 15, 25)
        assert engine.observe(20).missed == 0
    finally:
        session.stop_server()


def test_attempts_with_values_are_kept_once_somebody_watches() -> None:
    session = mars.new_session(n_cpu=1, default=False)
    try:
        mr.spawn(abs, -1).execute(session=session)
        assert session.engine.observe().next == session.engine.observe(0).next == 0
        mr.spawn(abs, -1).execute(session=session)
        assert len(session.engine.observe(0).attempts) == 1
    finally:
        session.stop_server()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_fork_the_engine_of_the_parent_tells_nothing_and_nobody_waits() -> None:
    session = mars.new_session(n_cpu=1, default=False)
    try:
        engine = session.engine
        assert engine.observe().groups
        child = os.fork()
        if not child:
            os._exit(0 if not engine.observe(0).groups else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        session.stop_server()


def test_calls_of_a_run_are_counted_by_the_workers_that_run_them() -> None:
    assert Observation(0.0).running(1) == 0
