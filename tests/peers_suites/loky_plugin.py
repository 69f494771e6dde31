"""A plugin for pytest: leaves out of the suite "loky" what its list names.

Called by `tests.peers_suites`.
"""

from __future__ import annotations

import pytest

from tests.peers_suites.leaving_out import leave_out


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is listed."""
    leave_out("loky_plugin", config, items)


def pytest_configure(config: pytest.Config) -> None:
    """Know the marks of the suite."""
    for name in ("broken_pool", "high_memory", "timeout"):
        config.addinivalue_line("markers", f"{name}: of the suite")
