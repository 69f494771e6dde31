"""What type checkers see: a user's program under `mypy --strict`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from typing import assert_type

import mars
import mars.remote as mr


def add(x: int, y: int) -> int:
    return x + y


def halves(text: str) -> list[str]:
    return [text, text]


one = mr.spawn(add, args=(1, 2), cpus=1, name="add")
assert_type(one, mr.Object[int])
assert_type(one.fetch(), int)
two = mr.spawn(halves, args=("ab",), n_output=2)
assert_type(two, list[mr.Object[str]])
squares = mr.map(add, range(3), range(3))
assert_type(squares.fetch(), list[int])
assert_type(squares[0], mr.Object[int])
with mars.new_session(n_cpu=1) as session:
    assert_type(session.get_total_n_cpu(), int)
"""


def checked(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `mypy --strict` says of a program."""
    program = folder / "program.py"
    program.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder), str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_results_have_the_type_that_the_function_returns(tmp_path: Path) -> None:
    result = checked(PROGRAM, tmp_path)
    assert result.returncode == 0, result.stdout


def test_a_wrong_use_of_a_result_is_seen(tmp_path: Path) -> None:
    wrong = "import mars.remote as mr\nx: str = mr.spawn(len, args=('ab',)).fetch()\n"
    result = checked(wrong, tmp_path)
    assert result.returncode == 1
    assert "Incompatible types" in result.stdout
