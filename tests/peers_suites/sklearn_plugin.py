"""A plugin for pytest: tests of scikit-learn run while the joblib backend is "mars".

The tests are those of the installed scikit-learn. With ``SUITE_BACKEND=loky`` they run on joblib's
own processes: what fails there, too, fails because the work is done in another process. Called by
`tests.peers_suites`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import joblib
import pytest

import mars
import mars.joblib
from tests.peers_suites.leaving_out import leave_out

BACKEND = os.environ.get("SUITE_BACKEND", "mars")
counted = {"batches": 0}


@pytest.fixture(autouse=True, scope="session")
def _session() -> Iterator[None]:
    if BACKEND != "mars":
        yield
        return
    with mars.new_session(n_cpu=2):
        yield


@pytest.fixture(autouse=True)
def _on_mars(_session: None) -> Iterator[None]:
    with joblib.parallel_config(BACKEND, n_jobs=2) as config:
        yield
    counted["batches"] += len(getattr(config["backend"], "batches", ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is listed, unless the list itself is in question."""
    if BACKEND == "mars" and "SUITE_ALL" not in os.environ:
        leave_out("sklearn_plugin", config, items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much ran on mars: a suite that uses nothing of it proves nothing."""
    terminalreporter.write_line(f"batches that ran on {BACKEND}: {counted['batches']}")
