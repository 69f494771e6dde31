"""The suite does not rot: every case runs with our own engine, through the same command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cases, peers, runner
from benchmarks.report import read, render

ROOT = Path(__file__).resolve().parents[2]


def test_every_file_of_a_case_and_of_a_peer_is_listed() -> None:
    def files(folder: str) -> set[str]:
        return {p.stem for p in (ROOT / "benchmarks" / folder).glob("*.py")} - {"__init__"}

    assert files("cases") == set(cases.NAMES)
    assert files("peers") == set(peers.MODULES.values())


@pytest.mark.parametrize("name", peers.NAMES)
def test_an_adapter_loads_without_its_runtime(name: str) -> None:
    assert peers.load(name).name == name


@pytest.mark.parametrize("name", cases.NAMES)
def test_a_case_says_what_a_table_needs(name: str) -> None:
    case = cases.load(name)
    assert case.question.endswith("?") or "?" in case.question
    for size in ("full", "quick", "tiny"):
        for params in case.variants(size).values():  # type: ignore[arg-type]
            assert not case.size or case.size in params
            json.dumps(dict(params))


@pytest.mark.timeout(180)
def test_every_case_gives_its_figure_for_our_engine(tmp_path: Path) -> None:
    runs = tmp_path / "runs.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--tiny", "--peers", "mars", "--json", str(runs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    records = read([runs])
    measured = [record for record in records if record["kind"] == "measurement"]
    wrong = [record for record in measured if record["outcome"] != "ok"]
    assert wrong == []
    for record in measured:
        figure = record["metrics"][cases.load(record["case"]).metric]
        assert figure > 0 or record["case"] in ("table_of_attempts", "page_on")  # differences
    asked = {
        (name, variant, peer)
        for name in cases.NAMES
        for variant in cases.load(name).tiny
        for peer in ("mars", "bare")
        if peer in (cases.load(name).only or ("mars", "bare"))
        and (peer == "mars" or cases.load(name).bare)
    }
    assert {(r["case"], r["variant"], r["peer"]) for r in measured} == asked
    assert render(records) == done.stdout == runs.with_suffix(".md").read_text(encoding="utf-8")


def test_neighbours_share_a_process_and_those_that_must_not_do_not() -> None:
    """A run at full sizes asks every case once, in order."""
    found = runner.neighbours({name: cases.load(name) for name in cases.NAMES})
    assert [name for batch in found for name in batch] == list(cases.NAMES)
    assert max(map(len, found)) == runner.AT_ONCE
    for batch in found:
        assert len({cases.load(name).started for name in batch}) == 1
        assert len(batch) == 1 or not any(cases.load(name).fresh for name in batch)
