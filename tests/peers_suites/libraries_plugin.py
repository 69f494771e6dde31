"""A plugin for pytest: leaves out of the suite "libraries" what its list names.

Called by `tests.peers_suites`.
"""

from __future__ import annotations

import pytest

from tests.peers_suites.leaving_out import leave_out


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is listed."""
    leave_out("libraries_plugin", config, items)
