"""The engines that the contract is tested on, one session of two CPUs for each module.

Every test in this folder runs once per engine, against the public names only. A test that asks
for something one engine cannot do takes ``local_only``, which says so when it skips. On clusters a
slice of them runs unless campaigns are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mars

HERE = Path(__file__).parent

SLICE = {
    "dask": {
        "test_engine_arrays",
        "test_engine_failures",
        "test_engine_gpus",
        "test_engine_joblib",
        "test_engine_logs",
        "test_engine_nesting",
        "test_engine_programs",
        "test_engine_put",
        "test_engine_report",
        "test_engine_same",
        "test_engine_settings",
        "test_engine_waiting_calls",
    },
    "ray": {
        "test_engine_failures",
        "test_engine_joblib",
        "test_engine_nesting",
        "test_engine_programs",
        "test_engine_put",
        "test_engine_same",
    },
}
"""What `make test` runs on clusters; `make faults` runs the rest, which takes ten minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent != HERE:
            continue  # all tests of the run come by here
        engine = getattr(item, "callspec", None) and item.callspec.params.get("engine")  # type: ignore[attr-defined]
        if engine in SLICE and item.path.stem not in SLICE[engine]:
            item.add_marker(pytest.mark.campaign)


@pytest.fixture(scope="module", params=["local", "inline", "dask", "ray"])
def engine(request: pytest.FixtureRequest) -> str:
    """Name of the engine under test."""
    name: str = request.param
    return name


@pytest.fixture(scope="module", autouse=True)
def session(
    request: pytest.FixtureRequest, engine: str, leak_guard: None
) -> Iterator[mars.session.Session]:
    """The module's default session on the engine under test.

    With two cores, unless the module says otherwise in ``SESSION``.
    """
    if engine == "ray":
        # All sessions of the module are on this one; to start another takes ten seconds.
        request.getfixturevalue("ray_here")
    options: dict[str, Any] = {"n_cpu": 2, **getattr(request.module, "SESSION", {})}
    opened = mars.new_session(engine=engine, default=True, **options)
    yield opened
    opened.stop_server()


@pytest.fixture
def local_only(engine: str) -> None:
    """Skip on an engine without processes of its own."""
    if engine == "inline":
        pytest.skip("inline runs in the calling thread: nothing runs beside it or can be killed")


@pytest.fixture
def keep_default(session: mars.session.Session) -> Iterator[None]:
    """Make the module's session the default again after a test that changes it."""
    yield
    session.as_default()
