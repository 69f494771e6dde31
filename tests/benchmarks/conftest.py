"""A benchmark that runs as from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Ran = Callable[..., tuple[str, list[dict[str, Any]]]]


@pytest.fixture
def tiny(tmp_path: Path) -> Ran:
    """Runs a module of `benchmarks` at its smallest; what it printed, and the rows that it kept."""

    def run(module: str, *arguments: str) -> tuple[str, list[dict[str, Any]]]:
        kept = tmp_path / "kept.json"
        done = subprocess.run(
            [
                sys.executable, "-m", f"benchmarks.{module}", *arguments, "--tiny",
                "--turns", "1", "--json", str(kept),
            ],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads(kept.read_text())["rows"]

    return run
