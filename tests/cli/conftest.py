"""Commands are called in the process of the tests, and leave it as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from mars.code import importing, world


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back how modules are found: `mars replay` changes that for all of its own process.

    Later tests would find what a checkpoint knows of a module, and not what its file holds.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(importing, "fetch_text", importing.fetch_text)
    monkeypatch.setattr(importing, "_is_program", importing._is_program)
    before = world._of_process
    yield
    if world._of_process is not None and world._of_process is not before:
        world._of_process.leave()
        world._of_process = before
