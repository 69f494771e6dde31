"""``mars report`` and ``mars what-if`` on saved runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars.cli import main
from mars.report.report import report_of
from tests.report.records import attempt, record


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run of eight calls of a second each, on one core."""
    made = record([attempt(n, n * 1.0, 1.0, name="fit") for n in range(8)])
    report_of(made).save(tmp_path / "run.json")
    return tmp_path / "run.json"


def test_a_saved_run_is_reported(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(saved)]) == 0
    said = capsys.readouterr().out
    assert "8 calls" in said and "fit" in said and "critical path" in said


def test_a_saved_run_is_made_a_page(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = saved.with_name("run.html")
    assert main(["report", str(saved), "--html", str(page)]) == 0
    assert "fit" in page.read_text() and not capsys.readouterr().out
    assert main(["report", str(saved), "--html", str(saved.with_name("run.txt"))]) == 1
    assert ".html" in capsys.readouterr().err


def test_what_if_is_asked_of_a_saved_run(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["what-if", str(saved), "--nodes", "2", "--cpus", "4", "--price", "0.04"]) == 0
    said = capsys.readouterr().out
    assert "on 2 x 4 cores" in said and "knee" in said and "cost" in said and "assumed" in said
    assert main(["what-if", str(saved), "--nodes", "0"]) == 2
    assert "nodes=0" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "what-if"])
def test_what_is_no_saved_run_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path / "none.json")]) == 1
    (tmp_path / "other.json").write_text("[1]")
    assert main([command, str(tmp_path / "other.json")]) == 1
    said = capsys.readouterr().err
    assert "none.json" in said and "no saved run" in said
