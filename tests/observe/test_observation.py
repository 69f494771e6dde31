"""The table of attempts that have ended, and how views read it."""

from __future__ import annotations

import os
import pickle
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mars
import mars.remote as mr
from mars.calls.options import DEFAULT_OPTIONS
from mars.observe.attempts import DIED, VALUE, Attempts
from mars.observe.observation import Observation, each_link, ended_attempts
from mars.task import RECORD, Call, Function, Task


class _Realm:
    def forget(self, task: Task) -> None:
        """Nothing is kept here."""


REALM = _Realm()
STATE = SimpleNamespace(address="w0", where=("host", 4))
TIMES_NS = [n * 10**9 for n in range(4, 9)]


def task_of(name: str, number: int, *inputs: Call) -> Task:
    call = Call(Function(b"key", name, b""), b"", (), tuple((one, 0) for one in inputs),
                DEFAULT_OPTIONS, None)  # fmt: skip
    task = Task(call, REALM)
    task.attempt = number
    task.queued_at, task.ready_at, task.sent_at = 1.0, 2.0, 3.0
    return task


def record(number: int, result: bytes = b"", serial: int = 7) -> bytes:
    """What a worker tells of an attempt."""
    return RECORD.pack(
        number, 0, 0, 5, 8, *TIMES_NS, 30, 0.5, 10.0, 20.0, 0.25, serial, 2, 1, 1, 0, 0, len(result)
    ) + result  # fmt: skip


def noted(count: int, limit: int) -> Attempts:
    table = Attempts(limit)
    table.workers[3] = [STATE, None, None]
    table.name(1, "name")
    table.run_began(2, "session", 0, 0)
    table.run_queued(2, 1.0)
    for number in range(count):
        table.sent(number, 3.0)
        table.add(3, record(number), 1)
    return table


@pytest.mark.parametrize(
    ("cursor", "there"), [(0, [6, 7, 8, 9]), (5, [6, 7, 8, 9]), (8, [8, 9]), (10, []), (99, [])]
)
def test_the_table_keeps_the_newest_and_gives_what_came_after_a_cursor(
    cursor: int, there: list[int]
) -> None:
    assert [one.number for one in ended_attempts(noted(10, 4).since(cursor))] == there


@given(count=st.integers(0, 60), limit=st.integers(1, 20), step=st.integers(1, 9))
def test_a_reader_with_a_cursor_sees_each_row_once_or_hears_that_it_missed_it(
    count: int, limit: int, step: int
) -> None:
    table = Attempts(limit)
    cursor, seen, missed = 0, [], 0
    for number in range(count):
        table.note(task_of("name", number), 3, VALUE)
        if not number % step:
            rows = table.since(cursor)
            missed += rows.missed
            seen += [one.number for one in ended_attempts(rows)]
            cursor = rows.next
    rows = table.since(cursor)
    seen += [one.number for one in ended_attempts(rows)]
    assert rows.next == table.count == count
    assert seen == sorted(set(seen)) and len(seen) + missed + rows.missed == count
    assert len(rows.data) <= limit * RECORD.size


def test_a_reader_may_ask_for_a_few_rows_at_a_time() -> None:
    table = noted(10, 100)
    first = table.since(0, limit=4)
    assert [one.number for one in ended_attempts(first)] == [0, 1, 2, 3]
    assert [one.number for one in ended_attempts(table.since(first.next, 4))] == [4, 5, 6, 7]


def test_rows_that_are_not_kept_are_summed_up_by_function() -> None:
    rows = noted(10, 4).since(0)
    assert rows.folded == {"name": (6, 6, 0, 6.0, 3.0)}
    assert (rows.missed, rows.first) == (6, 6)


def test_a_row_takes_at_most_150_bytes() -> None:
    table = Attempts()
    for number in range(0, 10_000, 20):
        told = b"".join(record(number + n, pickle.dumps(n)) for n in range(20))
        table.sent(number, 1.0)
        table.add(3, told, 20)
    held = sum(
        sys.getsizeof(getattr(table, name))
        for name in Attempts.__slots__
        if name not in ("workers", "_limit")
    )
    assert table.count == 10_000 and held <= 150 * 10_000


def test_large_results_are_not_kept() -> None:
    table = Attempts()
    table.add(3, b"".join(record(number, b"x" * 10_000) for number in range(20)), 20)
    rows = table.since(0)
    assert len(rows.data) == 20 * RECORD.size
    assert [one.number for one in ended_attempts(rows)] == list(range(20))


def test_names_of_single_calls_are_forgotten_with_their_rows() -> None:
    table = Attempts(limit=10)
    for number in range(100):
        table.note(task_of(f"name {number}", number), 3, VALUE)
    rows = table.since(0)
    assert [one.name for one in ended_attempts(rows)] == [f"name {n}" for n in range(90, 100)]
    assert len(rows.labels) <= 12


def test_a_record_has_the_moments_in_seconds_and_the_call_s_key() -> None:
    table = noted(1, 10)
    died = task_of("died", 2)
    table.note(died, 3, DIED, ended=9.0)
    first, second = ended_attempts(table.since(0))
    assert first.times is not None and first.times == (1, 1, 3, 4, 5, 6, 7, 8)
    assert (first.cpu_s, first.read_bytes, first.written_bytes) == (0.5, 10, 20)
    assert (first.peak_bytes, first.longest_s) == (30 * 1024, 0.25)
    assert first.call.endswith("07") and len(first.call) == 32
    assert second.times is None and (second.sent, second.ended) == (3.0, 9.0)
    assert (second.call, second.name) == (died.call.key, "died")
    assert (first.node, first.pid, first.attempt, first.log_bytes) == ("host", 4, 1, 3)


def test_clocks_of_other_hosts_are_put_into_the_time_of_the_program() -> None:
    table = noted(1, 10)
    table.ahead_ns[3] = 2 * 10**9
    (one,) = ended_attempts(table.since(0))
    assert one.times is not None and one.times == (1, 1, 3, 2, 3, 4, 5, 6)


def test_what_the_engine_knows_better_than_the_worker_is_told() -> None:
    table = noted(3, 10)
    table.add(3, record(1), 1)
    table.drop(1, again=True)
    table.add(3, record(8), 1)
    table.drop(8, again=False)
    table.add(3, record(9), 1)
    table.stopped(9)
    table.add(3, record(9), 1)
    table.drop(9, again=True)
    table.add(3, record(9), 1)
    table.drop(9, again=True)
    table.add(3, record(10), 1)
    table.failed_items(10, 4)
    told = ended_attempts(table.since(0))
    assert [(one.number, one.ending, one.failed_items) for one in told] == [
        (0, "value", 0), (1, "value", 0), (2, "value", 0), (9, "stopped", 0), (10, "error", 4),
    ]  # fmt: skip


def test_inputs_are_told_with_the_moment_at_which_they_were_there() -> None:
    source = task_of("source", 1)
    reader = task_of("reader", 2, source.call)
    table = noted(0, 10)
    table.link(reader)
    table.add(3, record(2, serial=reader.call.serial), 1)
    rows = table.since(0)
    assert list(each_link(rows)) == [(reader.call.serial, 1.0, (source.call.serial,))]
    (one,) = ended_attempts(rows)
    assert (one.queued, one.ready) == (1.0, 2.0)


def test_an_engine_tells_how_many_attempts_it_does_not_keep_any_more() -> None:
    session = mars.new_session(n_cpu=1, default=False)
    try:
        engine = session.engine
        engine.loop.scheduler.core.ended = table = Attempts(limit=10)  # type: ignore[attr-defined]
        table.workers.update(
            {n: [state, None, None] for n, state in engine.loop.scheduler.workers.items()}  # type: ignore[attr-defined]
        )
        assert engine.observe(0).next == 0
        for index in range(25):  # a worker tells of each by itself
            mr.spawn(abs, index).execute(session=session)
        seen = engine.observe(0)
        assert seen.next == 25 and 0 < len(seen.attempts) <= 10
        assert len(seen.attempts) + seen.missed == 25
        assert engine.observe(20).missed == 0
    finally:
        session.stop_server()


def test_attempts_with_values_are_kept_before_anybody_has_asked() -> None:
    session = mars.new_session(n_cpu=1, default=False)
    try:
        mr.spawn(abs, -1).execute(session=session)
        assert session.engine.observe().next == session.engine.observe(0).next == 1
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
