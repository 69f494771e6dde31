"""A plugin of pytest: whatever the tests of Dask ask for, mars computes it.

`dask.array.utils.assert_eq` and its like compute with ``scheduler="sync"``. Here the names of
Dask's own schedulers mean mars, so suites of Dask and xarray run on our engine. At the end it says
how many computations went that way. Called by `tests.peers_suites`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers_suites.leaving_out import leave_out

NAMES = ("sync", "synchronous", "single-threaded", "threads", "threading")


class Counted:
    """The scheduler, and how often it was asked."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.count = 0
        self.persist = scheduler.persist

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self.scheduler(dsk, keys, **kwargs)


@pytest.fixture(scope="session", autouse=True)
def by_mars() -> Iterator[None]:
    import dask
    import dask.array
    import dask.bag
    import dask.delayed
    from dask.base import named_schedulers

    import mars
    import mars.dask

    session = mars.new_session(n_cpu=2, default=True)
    counted = Counted(mars.dask.scheduler)
    before = {name: named_schedulers[name] for name in NAMES}
    named_schedulers.update(dict.fromkeys(NAMES, counted))
    with dask.config.set({"scheduler": counted}):
        yield
    named_schedulers.update(before)
    session.stop_server()
    print(f"\n{counted.count} computations went through mars")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is listed."""
    leave_out("dask_plugin", config, items)
