"""A plugin for pytest: tests of scikit-learn run while the joblib backend is "mars".

The tests are those of the installed scikit-learn. Called by `tests.peers_suites`.
"""

from __future__ import annotations

from collections.abc import Iterator

import joblib
import pytest

import mars
import mars.joblib

_counted = {"batches": 0}


@pytest.fixture(autouse=True)
def _on_mars() -> Iterator[None]:
    backend = mars.joblib.MarsBackend()
    with joblib.parallel_config(backend, n_jobs=2):
        yield
    _counted["batches"] += len(backend.batches)


@pytest.fixture(autouse=True, scope="session")
def _session() -> Iterator[None]:
    with mars.new_session(n_cpu=2):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much ran on mars: a suite that uses nothing of it proves nothing."""
    terminalreporter.write_line(f"batches that ran on mars: {_counted['batches']}")
