"""The results page: what a reader must be able to see on it, and that it is what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures import Results
from benchmarks.plots import plots
from benchmarks.report import (
    PLOT_FOLDER,
    number,
    ratio,
    read,
    read_predicted,
    read_under_fire,
    render,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"


def head(**more: Any) -> dict[str, Any]:
    return {
        "kind": "machine", "time": "2026-01-01T00:00:00Z", "size": "full", "rounds": 3,
        "workers": 2, "commit": "abc", "processor": "a processor", "cores": 2, "memory": "1 kB",
        "system": "Linux", "python": "3.11", "versions": {"mars": "1", "ray": "2"}, **more,
    }  # fmt: skip


def said(peer: str, value: float | None, number: int = 0, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (
        {"outcome": "failed", "detail": "it | broke\nbadly"}
        if value is None
        else {"outcome": "ok", "metrics": {"tasks_per_s": value, "tasks": 500.0}}
    )
    return {
        "kind": "measurement", "case": "noop", "variant": "10 000 tasks", "peer": peer,
        "round": number, "asked": 10_000, "load_before": 0.0, "load_during": 0.0, **answer, **more,
    }  # fmt: skip


def row(page: str, peer: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(f"| {peer} |"))


def test_numbers_have_three_digits_that_matter() -> None:
    found = [number(v) for v in (0, 0.012345, 1.5, 123.4, 1234.5, 1234567)]
    assert found == ["0", "0.0123", "1.5", "123", "1 230", "1 230 000"]


def test_a_loss_is_as_easy_to_see_as_a_win() -> None:
    assert ratio(3.0) == "3 ×"
    assert ratio(0.25) == "**0.25 × (behind)**"
    assert ratio(None) == ""
    page = render([head(), said("mars", 100), said("pool", 400), said("ray", 10)])
    assert "| 10 × |" in row(page, "ray")
    assert "| **0.25 × (behind)** |" in row(page, "pool")
    peers = [line.split(" | ")[0][2:] for line in page.splitlines() if " .. " in line]
    assert [p for p in peers if p in ("pool", "mars", "ray")] == ["pool", "mars", "ray"]


def test_spread_rounds_and_what_was_cut_stand_in_the_row() -> None:
    page = render([head(), *(said("ray", v, i) for i, v in enumerate((10, 30, 20)))])
    assert row(page, "ray") == "| ray | 20 | 10 .. 30 | 3 |  | cut to 500 of 10 000 |"


def test_failures_are_told_and_break_no_table() -> None:
    page = render([head(), said("ray", None), said("dask", 7), said("dask", None, 1)])
    assert row(page, "ray") == "| ray | failed: it / broke badly |  |  |  |  |"
    assert "round 1 failed" in row(page, "dask")


def test_noise_and_rows_of_other_runs_are_marked() -> None:
    page = render(
        [
            *(head(), said("dask", 5), said("ppe", 5)),
            *(head(), said("mars", 9), said("dask", 5, load_during=0.6)),
        ]
    )
    assert "| 5 ‡ |" in row(page, "dask")
    assert "| 5 † |" in row(page, "ppe")
    assert "| 9 |" in row(page, "mars")


def test_small_sizes_say_that_they_are_not_to_be_quoted() -> None:
    warning = "not to be quoted"
    assert warning in render([head(size="quick"), said("mars", 1)])
    assert warning not in render([head(), said("mars", 1)])


def test_machine_versions_and_time_are_on_the_page() -> None:
    page = render([head(), said("mars", 1), {"kind": "end", "seconds": 600}])
    assert "a processor, 2 cores" in page and "commit abc, 10 minutes" in page
    assert "- mars 1, ray 2" in page
    assert "not finished" in render([head(), said("mars", 1)])


def test_the_published_page_is_what_the_stored_measurements_say() -> None:
    """Whoever edits the page, the measurements or the report: `make bench-page`."""
    runs = sorted((ROOT / "benchmarks" / "results").glob("*.jsonl"))
    assert runs
    records = read(runs)
    more = read_predicted(runs[0].parent), read_under_fire(runs[0].parent)
    assert PAGE.read_text(encoding="utf-8") == render(records, PLOT_FOLDER, *more)
    made = {name: drawing for _, name, drawing in plots(Results(records))}
    stored = {p.name: p.read_text(encoding="utf-8") for p in (PAGE.parent / PLOT_FOLDER).iterdir()}
    assert stored == made


def test_a_plot_has_the_best_first_and_says_when_its_scale_is_logarithmic() -> None:
    results = Results([head(), *map(at_100_000, ("pool", "mars", "ray"), (100, 4_000, 10))])
    ((_, name, drawing),) = plots(results)
    assert name == "noop-100-000-tasks.svg"
    assert re.findall(r">(pool|mars|ray)<", drawing) == ["mars", "pool", "ray"]
    assert "tasks_per_s, higher is better, logarithmic scale" in drawing


def test_a_plot_of_like_numbers_begins_at_zero() -> None:
    results = Results([head(), at_100_000("pool", 100), at_100_000("mars", 200)])
    ((_, _, drawing),) = plots(results)
    assert "logarithmic" not in drawing
    ours, theirs = (float(w) for w in re.findall(r'<rect x="120" [^>]*width="([\d.]+)"', drawing))
    assert ours == pytest.approx(2 * theirs, abs=0.2)


def test_stored_measurements_are_small() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.jsonl"):
        assert path.stat().st_size < 1_000_000, path
        lines = path.read_text(encoding="utf-8").splitlines()
        assert json.loads(lines[0])["kind"] == "machine"


def at_100_000(peer: str, value: float) -> dict[str, Any]:
    return said(peer, value) | {"variant": "100 000 tasks"}


def test_targets_that_are_missed_say_why_and_no_others() -> None:
    missed = "Why mars misses the others:\n\n- *empty tasks, one by one*. The program's thread"
    assert missed in render([head(), at_100_000("mars", 99_000.0)])
    assert "Why mars misses" not in render([head(), at_100_000("mars", 100_000.0)])


def test_targets_by_a_peer_say_what_that_is_here() -> None:
    page = render([head(), at_100_000("mars", 120_000.0), at_100_000("ppe", 15_000.0)])
    assert "| ≥ 100 000 tasks/s | 120 000 | yes | ppe 15 000 | 8 × |" in page
    assert "| ≥ ppe × 6 (90 000) | 120 000 | yes | ppe 15 000 | 8 × |" in page
    assert "Reached: 2 of 2; not in these runs: 19." in page
    assert "| ≤ bare processes ÷ 0.97 | not in this run |" in page


def test_what_was_lost_under_fire_stands_in_a_table_for_each_run() -> None:
    trial = {
        "kind": "measurement", "tasks": 400, "task_s": 0.02, "spin": False, "workers": 2, "seed": 1,
        "every_s": None, "outcome": "ok", "seconds": 4.0,
    }  # fmt: skip
    fire = {"every_s": 0.2, "killed": 20, "done_again": 1, "overlaps": 0, "attempts": {"1": 400}}
    kept = {"lost": 0, "duplicated": 0, "wrong": 2, "seconds": 5.0}
    late = {"outcome": "did not finish", "detail": "7 of 400 tasks were not done after 76 s"}
    records = [
        head(note="It was busy."), {**trial, "system": "mars"},
        {**trial, "system": "mars", **fire, **kept}, head(time="2026-02-02"),
        {**trial, "system": "loky"}, {**trial, "system": "loky", **fire, **late},
    ]  # fmt: skip
    page = render([head()], None, None, records)
    assert "| mars | 0 / 0 / 2 | 4.0 | 5.0 | +25.0% | 20 |" in page
    assert "| loky | did not finish: 7 of 400 tasks were not done after 76 s | 4.0 |" in page
    assert "400 calls of 20 ms that sleep, on 2 workers, with a kill every 200 ms" in page
    assert page.index("It was busy.") < page.index("| mars | 0") < page.index("2026-02-02")
