"""Hosts for a module of tests: made of namespaces, where the machine allows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.hosts import Lab, why_not


@pytest.fixture(scope="module")
def lab(leak_guard: None) -> Iterator[Lab]:
    """Four hosts on one switch: ``head``, ``one``, ``two`` and ``client``."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Lab(["head", "one", "two", "client"]) as made:
        yield made
