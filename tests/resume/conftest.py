"""Programs that are run more than once on one checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars


@pytest.fixture(params=["local", "inline"])
def engine(request: pytest.FixtureRequest) -> str:
    """Name of the engine under test."""
    name: str = request.param
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the checkpoint is."""
    return tmp_path / "otto"


@pytest.fixture
def rerun(engine: str, folder: Path) -> Callable[..., Any]:
    """``rerun(program)`` runs a program in a session of its own; gives what it returns.

    The session of the latest one is ``rerun.session``.
    """

    def run(program: Callable[[], Any], **options: Any) -> Any:
        options = {"engine": engine, "n_cpu": 2, "checkpoint": folder, **options}
        with mars.new_session(**options) as session:
            run.session = session  # type: ignore[attr-defined]
            return program()

    return run
