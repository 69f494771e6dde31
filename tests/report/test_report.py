"""The numbers of a report, on records that were made up and on such as chance makes."""

from __future__ import annotations

import html.parser
import json
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mars
import mars.remote as mr
from mars.errors import UsageError
from mars.observe.attempts import Attempts
from mars.report.delays import delay_s, shares
from mars.report.losses import (
    AGAIN,
    CAUSES,
    DECODING,
    INPUTS,
    NO_WORKER,
    ON_CPU,
    STARTING,
    STORING,
    STRAGGLERS,
    UNTOLD,
    WAITING,
    losses,
)
from mars.report.path import critical_path
from mars.report.record import Record, RunRow, WorkerRow, from_json, to_json
from mars.report.report import as_text, report_of
from mars.report.timeline import trace_of
from mars.report.what_if import what_if
from tests.report.records import attempt, record


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Calls that ran one after the other in each of some workers, with inputs among them."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    cores = draw(st.integers(1, 4))
    workers = draw(st.integers(1, 5))
    free = dict.fromkeys(range(1, workers + 1), 0.0)
    attempts: list[Any] = []
    inputs = {}
    for number in range(1, draw(st.integers(0, 30)) + 1):
        worker = chance.randint(1, workers)
        ended = [one for one in attempts if one.ending == "value"]
        sources = chance.sample(ended, min(len(ended), chance.randint(0, 2)))
        ready = max((one.ended for one in sources), default=0.0)
        begun = max(free[worker], ready) + chance.choice([0.0, 0.1])
        attempts.append(
            attempt(
                number, begun, chance.choice([0.0, 0.5, 3.0]), worker=worker, ready=ready,
                ending=chance.choice(["value"] * 5 + ["error", "stopped"]), cpu=chance.random(),
                around=chance.choice([0.0, 0.01]), cpus=chance.choice([0.5, 1.0, 1.0]),
                size=chance.choice([1, 1, 7]), name=chance.choice("fg"),
            )
        )  # fmt: skip
        free[worker] = attempts[-1].ended
        if sources:
            inputs[number] = tuple(one.serial for one in sources)
    return record(attempts, inputs, cores=cores)


@given(records())
def test_losses_add_up_to_the_wall_time_of_all_cores(made: Record) -> None:
    report = report_of(made)
    assert set(report.losses) == set(CAUSES)
    assert all(seconds >= -1e-9 for seconds in report.losses.values())
    assert sum(report.losses.values()) == pytest.approx(report.wall_s * report.cores, abs=1e-6)


@given(records())
def test_the_critical_path_is_the_longest_chain_of_calls(made: Record) -> None:
    path = critical_path(made)
    by_serial = {one.serial: one for one in made.attempts}

    def longest(serial: int) -> float:
        one = by_serial[serial]
        if one.ending not in ("value", "error"):
            return 0.0
        assert one.times is not None
        before = [longest(low) for low in made.inputs.get(serial, ())]
        return one.times.running_s / one.size + max(before, default=0.0)

    assert path.seconds == pytest.approx(max(map(longest, by_serial), default=0.0))
    assert sum(path.own_s) == pytest.approx(path.seconds)
    for first, second in zip(path.attempts, path.attempts[1:], strict=False):
        assert first.serial in made.inputs[second.serial]


@given(records())
def test_a_run_takes_at_least_its_limit_and_never_more_advice_than_three(made: Record) -> None:
    report = report_of(made)
    assert 0 <= report.efficiency <= 1
    assert report.limit_s >= report.critical_path_s
    assert len(report.advice) <= 3
    assert all(len(line) <= 79 for line in as_text(report).splitlines())
    assert sum(row.work_s for row in report.workers) == pytest.approx(
        sum(row.work_s for row in report.functions)
    )


@given(records())
def test_what_was_saved_is_read_again(made: Record) -> None:
    assert from_json(to_json(made)) == made


def test_a_timeline_begins_with_the_first_moment_also_by_a_clock_that_goes_before() -> None:
    events = json.loads(trace_of(record([attempt(1, -0.002, 1.0), attempt(2, 1.0, 1.0)])))
    assert min(one["ts"] for one in events["traceEvents"] if "ts" in one) == 0


@given(records())
def test_a_timeline_has_a_slice_for_each_attempt_within_its_run(made: Record) -> None:
    events = json.loads(trace_of(made))["traceEvents"]
    slices = [one for one in events if one["ph"] == "X" and one["cat"] != "phase"]
    assert len(slices) == len(made.attempts)
    assert all(one["ts"] >= 0 and one["dur"] >= 0 for one in slices)
    starts = {one["id"]: one for one in events if one["ph"] == "s"}
    ends = {one["id"]: one for one in events if one["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert all(starts[arrow]["ts"] <= ends[arrow]["ts"] + 1 for arrow in starts)
    named = {(one["pid"], one["tid"]) for one in events if one["name"] == "thread_name"}
    assert {(one["pid"], one["tid"]) for one in slices} <= named


def test_each_core_second_has_the_cause_that_it_had() -> None:
    # worker 1: 1 s around, 4 s of which half is on a CPU, 1 s to store; worker 2: idle, then 2 s.
    first = attempt(1, 0.0, 4.0, around=1.0, cpu=0.5)
    second = attempt(2, 6.0, 2.0, worker=2, ready=6.0)
    found = losses(record([first, second], {2: (1,)}, cores=2))
    assert found[DECODING] + found["importing"] == pytest.approx(1)
    assert (found[ON_CPU], found[WAITING], found[STORING]) == pytest.approx((4, 2, 1))
    assert found[INPUTS] == pytest.approx(6)  # the second call waited for the first
    assert found[STRAGGLERS] == pytest.approx(2)  # and then there was nothing else


def test_of_a_run_that_goes_on_the_cores_of_calls_that_have_not_ended_are_not_told_yet() -> None:
    made = record([attempt(1, 0.0, 4.0, cpu=1.0)], cores=2)
    run = made.runs[1]._replace(ended=None)
    found = losses(made._replace(runs={1: run}, now=run.began + 10.0))
    assert found[ON_CPU] == pytest.approx(4)
    assert found[UNTOLD] == pytest.approx(2 * 10 - 4)


def test_attempts_that_had_to_be_repeated_are_lost() -> None:
    first = attempt(1, 0.0, 3.0, serial=1, ending="error")
    second = attempt(2, 3.0, 1.0, serial=1, tries=2)
    report = report_of(record([first, second]))
    assert report.losses[AGAIN] == pytest.approx(3)
    assert report.work_s == pytest.approx(1)
    assert report.critical_path_s == pytest.approx(1)


def test_an_attempt_whose_worker_died_is_lost_until_it_died() -> None:
    died = attempt(1, 1.0, 2.0, ending="died")._replace(times=None)
    found = losses(record([died], ended=3.0))
    assert found[AGAIN] == pytest.approx(2)


def test_workers_that_start_are_told_apart_from_those_that_are_busy() -> None:
    made = record([attempt(1, 2.0, 1.0)], cores=1)
    made = made._replace(workers={1: WorkerRow(1, "w0", "host", 1, 0.0, 1.5)})
    found = losses(made)
    assert found[STARTING] == pytest.approx(1.5)
    assert found[NO_WORKER] == pytest.approx(0.5)


def test_a_call_that_waits_for_its_own_calls_does_not_work_meanwhile() -> None:
    runs = {1: RunRow(1, "s", 0, 0, 0.0, 10.0), 2: RunRow(2, "s", 1, 1, 1.0, 9.0)}
    outer = attempt(1, 0.0, 10.0)
    inner = [attempt(n, 1.0, 8.0, worker=n, run=2, serial=10 + n) for n in (2, 3)]
    report = report_of(record([outer, *inner], cores=2, runs=runs))
    assert report.work_s == pytest.approx(2 + 16)
    assert report.critical_path_s == pytest.approx(10)
    assert report.losses[ON_CPU] == pytest.approx(18)
    assert report.efficiency == pytest.approx(1)


def test_a_block_of_a_map_counts_with_its_longest_item_in_the_critical_path() -> None:
    assert critical_path(record([attempt(1, 0.0, 8.0, size=4, longest=5.0)])).seconds == 5
    assert critical_path(record([attempt(1, 0.0, 8.0, size=4)])).seconds == 2


def test_between_two_runs_no_core_is_lost() -> None:
    runs = {1: RunRow(1, "s", 0, 0, 0.0, 1.0), 2: RunRow(2, "s", 0, 0, 100.0, 101.0)}
    made = [attempt(1, 0.0, 1.0), attempt(2, 100.0, 1.0, run=2)]
    report = report_of(record(made, runs=runs))
    assert (report.wall_s, report.efficiency) == (2, 1)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            record([attempt(n, 0.0, 1.0, worker=n) for n in (1, 2)]
                   + [attempt(3, 1.0, 9.0, ready=1.0, name="fit")], {3: (1,)}, cores=2),
            ["1 call of `fit` is 90% of the critical path (9 s of 10 s)", "split it"],
        ),
        (
            record([attempt(n, n * 0.002, 0.0002, around=0.0008) for n in range(2_000)]),
            ["2,000 calls of `work` take 200 us each", "use mr.map"],
        ),
        (
            record([attempt(n, n * 1.0, 1.0, name="load", arguments=77) for n in range(8)]),
            ["`load` ran 8 times with the same arguments", "spawn it once and pass the object"],
        ),
        (
            record([attempt(n, n * 1.0, 1.0, cpu=0.1) for n in range(8)]),
            ["ran 800 ms on a CPU and waited 7.2 s", "cpus="],
        ),
        (
            record([attempt(n, n * 1.0, 1.0, cpu=0.1) for n in range(8)])._replace(
                starved={1: 0.9}),
            ["calls of `work` waited 6.48 s for a core that something else had", "n_cpu="],
        ),
        (
            record([attempt(1, 0.0, 5.0, serial=1, ending="error"),
                    attempt(2, 5.0, 1.0, serial=1, tries=2)]),
            ["1 attempt of `work` had to be repeated", "took 5 s"],
        ),
        (
            record([attempt(n, n * 1.0, 1.0, name="fit") for n in range(4)],
                   cores=2)._replace(held=frozenset({1, 2, 3})),
            ["memory, not cores, held back 3 calls of `fit`", "3 s"],
        ),
    ],
)  # fmt: skip
def test_advice_names_what_it_rests_on_and_what_to_do(made: Record, words: list[str]) -> None:
    said = " ".join(report_of(made).advice)
    for word in words:
        assert word in said
    assert "saves up to" in said


def test_who_waits_for_a_core_is_not_told_to_run_more_calls_at_a_time() -> None:
    calls = [attempt(n, n * 1.0, 1.0, cpu=0.3) for n in range(8)]
    waits = " ".join(report_of(record(calls)).advice)
    starves = " ".join(report_of(record(calls)._replace(starved={1: 0.8})).advice)
    assert "with cpus=0" in waits and "with cpus=0" not in starves


def test_waiting_for_a_core_is_known_of_workers_here_that_have_not_ended() -> None:
    calls = [attempt(n, 0.0, 2.0, cpu=0.5, worker=n) for n in (1, 2, 3)]
    told = {101: 0.25, 102: 40.0, 103: None}
    assert shares(calls, lambda _, pid: told[pid]) == {1: 0.25, 2: 1.0}
    known = delay_s(socket.gethostname(), os.getpid())
    assert (known is None) != os.path.exists("/proc/self/schedstat")
    assert delay_s("elsewhere", os.getpid()) is None
    assert delay_s(socket.gethostname(), 2**22 + 1) is None


def test_a_session_that_ran_nothing_is_given_no_advice() -> None:
    assert report_of(record([])).advice == []


def test_a_run_without_losses_is_given_no_advice() -> None:
    made = record([attempt(n, 0.0, 5.0, worker=n) for n in (1, 2)], cores=2)
    assert report_of(made).advice == []
    assert repr(report_of(made)) == "<Report: 5 s on 2 cores, 100% of what is possible; print it>"


def test_a_report_without_the_oldest_attempts_is_about_the_time_of_those_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Attempts.__init__, "__defaults__", (40,))
    with mars.new_session(engine="inline", default=False) as session:
        session.execute(*[mr.spawn(abs, args=(-n,)) for n in range(200)], show_progress=False)
        made = session.report()
    kept = made.record.attempts
    assert made.record.missing and len(kept) + made.record.missing == 200
    (run,) = made.record.runs.values()
    assert made.wall_s == pytest.approx(run.ended - kept[0].ended) and made.wall_s > 0
    assert sum(made.losses.values()) == pytest.approx(made.wall_s * made.cores)
    assert from_json(to_json(made.record)).since == kept[0].ended


def test_every_view_says_that_older_attempts_are_missing() -> None:
    made = record([attempt(1, 0.0, 1.0)])._replace(folded={"old": (7, 7, 0, 1.0, 1.0)})
    report = report_of(made)
    assert "7 older attempts" in str(report) and "7 older attempts" in report._repr_html_()


class _Page(html.parser.HTMLParser):
    """Notes what a page would ask for, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asked += [str(v) for name, v in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_asks_for_nothing_and_shows_names_as_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    report_of(record([attempt(1, 0.0, 1.0, name=name)])).save(tmp_path / "run.html")
    text = (tmp_path / "run.html").read_text()
    page = _Page()
    page.feed(text)
    assert not page.asked and "@@" not in text
    assert name not in text and "&lt;script&gt;" in text
    assert page.tags.count("script") == 2
    assert "url(" not in text and "@import" not in text and "http:" not in text


def test_a_report_is_saved_under_names_that_say_how(tmp_path: Path) -> None:
    made = record([attempt(1, 0.0, 1.0)])
    report = report_of(made)
    report.save(tmp_path / "run.json")
    assert from_json((tmp_path / "run.json").read_text()) == made
    with pytest.raises(UsageError, match=r"\.html"):
        report.save(tmp_path / "run.txt")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "mars run 1"}', "null"])
def test_a_file_that_is_no_saved_run_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no saved run"):
        from_json(text)


def test_a_file_of_another_version_says_so() -> None:
    with pytest.raises(UsageError, match="mars run 2"):
        from_json('{"format": "mars run 2"}')


# -- what if ----------------------------------------------------------------------------------


def test_independent_calls_take_their_work_divided_by_the_cores() -> None:
    made = record([attempt(n, n * 1.0, 1.0) for n in range(64)])
    found = what_if(made, nodes=4, cpus=4, price=0.5)
    assert found.asked.wall_s == pytest.approx(4, rel=0.1)
    assert found.measured_s == 64
    assert found.asked.core_hours == pytest.approx(found.asked.wall_s * 16 / 3600)
    assert found.asked.cost == pytest.approx(found.asked.core_hours * 0.5)
    assert [one.nodes for one in found.curve] == [1, 2, 3, 4]
    assert found.knee.efficiency >= 0.8


def test_a_chain_takes_as_long_on_any_number_of_cores() -> None:
    made = record(
        [attempt(n, n * 1.0, 1.0, ready=n * 1.0) for n in range(10)],
        {n: (n - 1,) for n in range(1, 10)},
    )
    found = what_if(made, nodes=8, cpus=8)
    assert found.asked.wall_s == pytest.approx(10, rel=0.02)
    assert found.knee.nodes == 1


def test_calls_of_several_cores_take_them_in_the_prediction_too() -> None:
    made = record([attempt(n, n * 1.0, 1.0, cpus=2.0) for n in range(8)], cores=2)
    assert what_if(made, 1, 4).asked.wall_s == pytest.approx(4, rel=0.05)
    with pytest.raises(UsageError, match="cpus=2"):
        what_if(made, 4, 1)


def test_a_call_and_those_that_it_asked_for_follow_each_other() -> None:
    runs = {1: RunRow(1, "s", 0, 0, 0.0, 10.0), 2: RunRow(2, "s", 1, 1, 1.0, 9.0)}
    outer = attempt(1, 0.0, 10.0)
    inner = [attempt(n, 1.0, 8.0, worker=n, run=2, serial=10 + n) for n in (2, 3)]
    made = record([outer, *inner], cores=2, runs=runs)
    assert what_if(made, 1, 2).asked.wall_s == pytest.approx(10, rel=0.02)
    assert what_if(made, 1, 1).asked.wall_s == pytest.approx(18, rel=0.02)


def test_runs_follow_each_other_in_the_prediction() -> None:
    runs = {1: RunRow(1, "s", 0, 0, 0.0, 1.0), 2: RunRow(2, "s", 0, 0, 100.0, 101.0)}
    made = record([attempt(1, 0.0, 1.0), attempt(2, 100.0, 1.0, run=2)], runs=runs)
    assert what_if(made, 1, 8).asked.wall_s == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("wrong", [{"nodes": 0}, {"nodes": 1.5}, {"cpus": 0}, {"price": -1}])
def test_machines_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        what_if(record([attempt(1, 0.0, 1.0)]), **wrong)


def test_a_prediction_from_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no call has ended"):
        what_if(record([]))
