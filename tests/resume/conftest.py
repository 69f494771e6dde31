"""Programs that are run more than once on one checkpoint, on every engine.

On clusters a slice runs unless campaigns are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mars
from tests.cluster.conftest import DaskHosts

HERE = Path(__file__).parent

SLICE = {
    "dask": {
        "test_a_second_run_executes_nothing_and_has_the_same_values",
        "test_the_log_and_the_times_of_a_reused_call_are_those_of_the_run_that_made_it",
        "test_a_damaged_large_result_runs_again_when_it_is_fetched_or_needed",
    },
    "ray": {"test_the_log_and_the_times_of_a_reused_call_are_those_of_the_run_that_made_it"},
}
"""What `make test` runs on clusters; `make faults` runs the rest, which takes some minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent != HERE:
            continue  # all tests of the run come by here
        engine = getattr(item, "callspec", None) and item.callspec.params.get("engine")  # type: ignore[attr-defined]
        if engine in SLICE and item.originalname not in SLICE[engine]:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.campaign)


@pytest.fixture(scope="module", params=["local", "inline", "dask", "ray"])
def engine(request: pytest.FixtureRequest) -> str:
    """Name of the engine under test."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def dask_cluster(leak_guard: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskHosts]:
    """A Dask of two nodes with one core each; it outlives the sessions on it."""
    hosts = DaskHosts(tmp_path_factory.mktemp("dask"))
    try:
        hosts.add_node()
        hosts.add_node()
        hosts.session(2).stop_server()
        yield hosts
    finally:
        hosts.close()


@pytest.fixture(scope="module")
def opened(
    request: pytest.FixtureRequest, engine: str, leak_guard: None
) -> Callable[..., mars.session.Session]:
    """``opened(**options)``: a new session on the engine under test."""
    where: tuple[str, ...] = ()
    options: dict[str, Any] = {"engine": engine, "n_cpu": 2}
    if engine == "ray":
        request.getfixturevalue("ray_here")
    elif engine == "dask":
        cluster = request.getfixturevalue("dask_cluster")
        where, options = (cluster.address,), {"security": cluster.credentials}
    return lambda **more: mars.new_session(*where, **{**options, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the checkpoint is."""
    return tmp_path / "otto"


@pytest.fixture
def rerun(opened: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """``rerun(program)`` runs a program in a session of its own; gives what it returns.

    The session of the latest one is ``rerun.session``.
    """

    def run(program: Callable[[], Any], **options: Any) -> Any:
        with opened(**{"checkpoint": folder, **options}) as session:
            run.session = session  # type: ignore[attr-defined]
            return program()

    return run
