"""What a session tells of its runs, on every engine: report, timeline, prediction, table."""

from __future__ import annotations

import contextlib
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

import mars
import mars.remote as mr
from mars.errors import UsageError


@pytest.fixture
def fresh(session: mars.session.Session) -> Iterator[mars.session.Session]:
    """A session of its own, with no past, on the engine of the module."""
    with contextlib.closing(mars.new_session(session.address, default=False)) as opened:
        yield opened


def nap(seconds: float, *inputs: object) -> float:
    time.sleep(seconds)
    return seconds


def diamond() -> Any:
    """Two long calls that read one, a short one beside, and one that reads all three."""
    first = mr.spawn(nap, 0.05, name="first")
    long = [mr.spawn(nap, (0.15, first), name="long") for _ in range(2)]
    short = mr.spawn(nap, (0.02, first), name="short")
    return mr.spawn(nap, (0.05, *long, short), name="last")


def test_the_numbers_of_a_report_are_those_of_the_table(fresh: mars.session.Session) -> None:
    diamond().execute(session=fresh)
    report = fresh.report()
    told = [one for one in fresh.engine.observe(0).attempts if one.run in report.record.runs]
    ran = {}
    for one in told:
        assert one.times is not None and one.ending == "value"
        ran.setdefault(one.name, []).append(one.times.running_s)
    assert [len(ran[name]) for name in ("first", "long", "short", "last")] == [1, 2, 1, 1]
    work_s = sum(map(sum, ran.values()))
    path_s = ran["first"][0] + max(ran["long"]) + ran["last"][0]
    assert report.work_s == pytest.approx(work_s, rel=0.02)
    assert report.critical_path_s == pytest.approx(path_s, rel=0.02)
    assert [one.name for one in report.critical_path] == ["first", "long", "last"]
    assert report.limit_s == pytest.approx(max(path_s, work_s / report.cores), rel=0.02)
    (run,) = report.record.runs.values()
    assert run.ended is not None
    assert report.wall_s == pytest.approx(run.ended - run.began)
    assert report.efficiency == pytest.approx(report.limit_s / report.wall_s)
    assert sum(report.losses.values()) == pytest.approx(report.wall_s * report.cores)
    assert report.losses["running but waiting"] > 0.8 * work_s  # they sleep
    assert [(row.function, row.calls) for row in report.functions] == [("nap", 5)]
    assert "nap" in str(report) and "nap" in report._repr_html_()


def burn(seconds: float, *inputs: object) -> float:
    """Be on a processor."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def shaky(seconds: float, ledger: str) -> float:
    """Fails the first time."""
    time.sleep(seconds)
    if not Path(ledger).exists():
        Path(ledger).touch()
        raise ConnectionError("for once")
    return seconds


def test_the_numbers_agree_with_an_independent_computation(
    fresh: mars.session.Session, tmp_path: Path
) -> None:
    # A chain of three is the critical path; beside it are short calls, a map, and one that is
    # tried twice. All is computed once more from the bare rows, in the plainest way.
    chain = mr.spawn(nap, 0.1, name="a")
    for name in "bc":
        chain = mr.spawn(nap, (0.1, chain), name=name)
    beside = [mr.spawn(burn, 0.02) for _ in range(6)]
    again = mr.spawn(shaky, (0.03, str(tmp_path / "ledger")), retries=1)
    items = mr.map(nap, [0.004] * 10)
    mr.ExecutableTuple([chain, *beside, again, items]).execute(session=fresh)
    report, frame = fresh.report(), fresh.attempts_frame()
    rows = [row for _, row in frame.iterrows()]
    links = fresh.engine.table().links  # serial, seconds waited, number of inputs, the inputs
    inputs, at = {}, 0
    while at < len(links):
        serial, _, count = struct.unpack_from("<IfH", links, at)
        inputs[serial] = struct.unpack_from(f"<{count}I", links, at + 10)
        at += 10 + 4 * count

    # Last attempts count; an earlier one that raised is lost, with all that its worker did for it.
    good = [row for row in rows if row["ending"] == "value"]
    lost = [row for row in rows if row["ending"] == "error"]
    assert len(lost) == 1 and sum(row["size"] for row in good) == 3 + 6 + 1 + 10
    ran = [(row, row["returned"] - row["called"]) for row in good]
    work_s = sum(seconds for _, seconds in ran)
    longest: dict[int, float] = {}
    for row, seconds in sorted(ran, key=lambda one: one[0]["stored"]):
        low = row["serial"] & 0xFFFFFFFF
        before = max((longest[one] for one in inputs.get(low, ())), default=0.0)
        longest[low] = max(longest.get(low, 0.0), before + seconds / row["size"])
    table_runs = [run for run in fresh.engine.table().runs.values() if run[0] == fresh.session_id]
    wall_s = sum(ended - began for _, _, _, began, ended in table_runs)
    cores = fresh.engine.n_cpu if len({row["worker"] for row in rows}) > 1 else report.cores
    assert report.wall_s == pytest.approx(wall_s, rel=0.02)
    assert report.cores == cores
    assert report.work_s == pytest.approx(work_s, rel=0.02)
    assert report.critical_path_s == pytest.approx(max(longest.values()), rel=0.02)
    assert report.limit_s == pytest.approx(max(*longest.values(), work_s / cores), rel=0.02)
    assert report.efficiency == pytest.approx(report.limit_s / wall_s, rel=0.02)

    def sum_of(begin: str, end: str, some: list[Any]) -> float:
        return float(sum((row[end] - row[begin]) * row["cpus"] for row in some))

    cpu_s = sum(min(row["cpu_s"], seconds) for row, seconds in ran)
    around = 0.02 * wall_s * cores / 10  # of small ones, two per cent are less than the clock shows
    for causes, seconds in (
        (("running on a CPU",), cpu_s),
        (("running but waiting",), work_s - cpu_s),
        (("decoding inputs", "importing"), sum_of("received", "called", good)),
        (("storing results",), sum_of("returned", "stored", good)),
        (("retried and lost attempts",), sum_of("received", "stored", lost)),
    ):
        found = sum(report.losses[cause] for cause in causes)
        assert found == pytest.approx(seconds, rel=0.02, abs=around), causes
    busy_s = sum_of("received", "stored", rows)
    idle = ("waiting for inputs", "no free worker", "sending", "starting workers",
            "idle at the end", "not told yet")  # fmt: skip
    assert sum(report.losses[cause] for cause in idle) == pytest.approx(
        wall_s * cores - busy_s, rel=0.02, abs=around
    )
    assert sum(report.losses.values()) == pytest.approx(wall_s * cores, rel=0.001)
    by_worker: dict[int, float] = {}  # whatever came of it
    for row in rows:
        by_worker.setdefault(row["worker"], 0.0)
        by_worker[row["worker"]] += row["returned"] - row["called"]
    assert {row.worker: pytest.approx(row.work_s, rel=0.02) for row in report.workers} == by_worker


def test_a_session_reports_its_own_runs_only(
    session: mars.session.Session, fresh: mars.session.Session
) -> None:
    mr.spawn(abs, -1).execute(session=session)
    mr.spawn(nap, 0.0).execute(session=fresh)
    assert [row.function for row in fresh.report().functions] == ["nap"]
    assert "nap" not in [row.function for row in session.report().functions]


def test_failed_calls_and_maps_are_in_the_report(fresh: mars.session.Session) -> None:
    with pytest.raises(ZeroDivisionError):
        mr.spawn(divmod, (1, 0), retries=1).execute(session=fresh)
    mr.map(lambda x: x, range(50)).execute(session=fresh)
    rows = {row.function: row for row in fresh.report().functions}
    assert (rows["divmod"].calls, rows["divmod"].attempts, rows["divmod"].failed) == (1, 2, 2)
    assert rows["<lambda>"].calls == 50


def test_nested_calls_are_work_and_waiting_for_them_is_not(fresh: mars.session.Session) -> None:
    def outer() -> float:
        return float(mr.spawn(nap, 0.1).execute().fetch())

    mr.spawn(outer, name="outer").execute(session=fresh)
    report = fresh.report()
    rows = {row.function: row for row in report.functions}
    assert rows["nap"].work_s >= 0.1 > rows["outer"].work_s
    assert report.critical_path_s == pytest.approx(rows["nap"].work_s + rows["outer"].work_s)
    assert {one.function for one in report.critical_path} == {"outer", "nap"}


def test_execute_writes_the_report_on_its_run_also_if_a_call_fails(
    fresh: mars.session.Session, tmp_path: Path
) -> None:
    mr.spawn(abs, -1).execute(session=fresh)
    with pytest.raises(ZeroDivisionError):
        mr.spawn(divmod, (1, 0)).execute(session=fresh, report=tmp_path / "run.json")
    saved = json.loads((tmp_path / "run.json").read_text())
    assert len(saved["attempts"]) == len(saved["runs"]) == 1
    mr.spawn(abs, -1).execute(session=fresh, wait=False, report=str(tmp_path / "a.html")).result()
    assert "abs" in (tmp_path / "a.html").read_text()
    with pytest.raises(UsageError, match="html"):
        mr.spawn(abs, -1).execute(session=fresh, report=tmp_path / "run.pdf")


def test_a_timeline_shows_each_attempt_in_its_worker(
    fresh: mars.session.Session, tmp_path: Path
) -> None:
    diamond().execute(session=fresh)
    fresh.timeline(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    slices = [one for one in events if one["ph"] == "X" and one["cat"] == "value"]
    assert sorted(one["name"] for one in slices) == ["first", "last", "long", "long", "short"]
    assert sum(one["ph"] == "s" for one in events) == 6  # 3 read the first, and the last reads 3
    assert {"running calls", "cores"} <= {one["name"] for one in events if one["ph"] == "C"}


def test_a_prediction_is_made_of_what_was_measured(fresh: mars.session.Session) -> None:
    calls = [mr.spawn(nap, 0.05) for _ in range(8)]
    mr.ExecutableTuple(calls).execute(session=fresh)
    frame = fresh.attempts_frame()
    ran_s, took_s = frame.returned - frame.called, frame.stored - frame.received
    # A busy machine makes some of them longer, so both are held to what each of them took.
    assert ran_s.sum() <= fresh.what_if(1, 1).asked.wall_s <= took_s.sum() * 1.1
    share_s = took_s.sum() / 4
    assert ran_s.sum() / 4 <= fresh.what_if(1, 4).asked.wall_s <= (share_s + took_s.max()) * 1.1


def test_the_table_comes_as_a_frame(fresh: mars.session.Session) -> None:
    diamond().execute(session=fresh)
    frame = fresh.attempts_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 5
    assert list(frame["ending"].unique()) == ["value"]
    assert (frame["returned"] >= frame["called"]).all()


def test_inside_a_call_there_is_no_report(fresh: mars.session.Session) -> None:
    def ask() -> str:
        try:
            mars.session.get_default_session().report()
        except UsageError as error:
            return str(error)
        return ""

    assert "inside a call" in mr.spawn(ask).execute(session=fresh).fetch(session=fresh)
