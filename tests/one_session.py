"""One session of two workers for each module: a folder's `conftest` imports these fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mars


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.Session]:
    opened = mars.new_session(n_cpu=2, default=True)
    yield opened
    opened.stop_server()


@pytest.fixture(autouse=True)
def default(session: mars.Session) -> None:
    """The module's session is the default one, whatever the test before has made of it."""
    session.as_default()
