"""Programs with modules and classes of their own, as users write them, on every engine.

Each check of a program prints a line. The programs are in the folder beside this file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "programs"

CHECKS = {
    "modules_of_a_project": 37,
    "modules_that_share": 23,
    "objects_in_objects": 8,
    "registrations": 9,
    "states_of_modules": 23,
    "code_that_changes": 20,
    "classes_of_a_script": 67,
    "exceptions_as_values": 73,
    "names_of_modules": 10,
    "objects_of_a_script": 23,
    "odd_values": 40,
    "changed_modules": 23,
    **({"newer_syntax": 12} if sys.version_info >= (3, 12) else {}),
}
"""How many lines each prints, so that one which ends early is noticed."""


@pytest.mark.parametrize("program", CHECKS)
def test_a_program_finds_in_calls_what_it_has_itself(
    program: str, engine: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    shutil.copytree(HERE, tmp_path, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, f"{program}.py", engine],
        capture_output=True,
        text=True,
        timeout=200,
        env=script_environment,
        cwd=tmp_path,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == [], done.stderr
    assert done.returncode == 0, done.stderr
    assert len(lines) == CHECKS[program]
