"""What calls run is measured by coverage.py, with the setting that the guide names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("coverage")
pytest.importorskip("pytest_cov")

LIBRARY = """
import mars.remote as mr

def work(x):
    if x > 0:
        return x + 1
    return -1

def ask(x):
    return mr.spawn(inner, x).to_object()

def inner(x):
    y = 2 * x
    return y

def never():
    return "not called"
"""
NEVER = [17]

PROGRAM = """
import mars, mars.remote as mr
import measured
mars.new_session(n_cpu=2)
assert mr.map(measured.work, [-1, 1]).execute().fetch() == [-1, 2]
assert mr.spawn(measured.ask, 3).to_object() == 6
"""

CONFTEST = """
import mars, pytest

@pytest.fixture(scope="session", autouse=True)
def session():
    with mars.new_session(n_cpu=2):
        yield
"""

TESTS = """
import mars.remote as mr
import measured

def test_work():
    assert mr.map(measured.work, [-1, 1]).execute().fetch() == [-1, 2]

def test_ask():
    assert mr.spawn(measured.ask, 3).to_object() == 6
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in {
        "measured.py": LIBRARY,
        "program.py": PROGRAM,
        "conftest.py": CONFTEST,
        "test_measured.py": TESTS,
        ".coveragerc": "[run]\npatch = subprocess\n",
        "pytest.ini": "[pytest]\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(project: Path, environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True, text=True, cwd=project, env=environment, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def missing(project: Path) -> list[int]:
    facts = json.loads((project / "coverage.json").read_text())
    lines: list[int] = facts["files"]["measured.py"]["missing_lines"]
    return lines


def test_lines_that_calls_run_are_measured_by_coverage_run(
    project: Path, script_environment: dict[str, str]
) -> None:
    run(project, script_environment, "coverage", "run", "--source=measured", "program.py")
    run(project, script_environment, "coverage", "combine", "-q")
    run(project, script_environment, "coverage", "json", "-q")
    assert missing(project) == NEVER


def test_lines_that_calls_run_are_measured_by_pytest_cov(
    project: Path, script_environment: dict[str, str]
) -> None:
    run(
        project, script_environment, "pytest", "-q", "-p", "no:cacheprovider", "--cov=measured",
        "--cov-report=json",
    )  # fmt: skip
    assert missing(project) == NEVER
