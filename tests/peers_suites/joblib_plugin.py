"""A plugin for pytest: joblib's own tests also run on the backend "mars".

The tests are those of the installed joblib. Lists of backends that are made of joblib's registry
have "mars" in them, as the name is registered first. Lists that name "loky" and "multiprocessing"
get it here. Called by `tests.peers_suites`.
"""

from __future__ import annotations

from typing import Any

import pytest

import mars.joblib  # noqa: F401 (registers the name)
from tests.peers_suites.leaving_out import leave_out


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Add the name to lists of backends."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        values: Any = mark.args[1] if len(mark.args) > 1 else ()
        names = _names(values) if isinstance(values, list) else set()
        if {"loky", "multiprocessing"} <= names and "mars" not in names:
            values.append("mars")


def _names(values: list[Any]) -> set[str]:
    return {value for value in values if isinstance(value, str)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave only what runs on "mars"."""
    items[:] = [item for item in items if "mars" in item.name]
    leave_out("joblib_plugin", config, items)
