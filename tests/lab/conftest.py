"""Hosts for a module of tests: made of namespaces, where the machine allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.lab.clusters import WEB, Driver, LabCluster
from tests.lab.hosts import Lab, why_not


@pytest.fixture(scope="module")
def lab(leak_guard: None) -> Iterator[Lab]:
    """Four hosts on one switch: ``head``, ``one``, ``two`` and ``client``."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Lab(["head", "one", "two", "client"]) as made:
        yield made


@pytest.fixture(scope="module", params=["dask", pytest.param("ray", marks=pytest.mark.campaign)])
def cluster(lab: Lab, request: pytest.FixtureRequest) -> Iterator[LabCluster]:
    """Head, two nodes of one core, and a client; each on a host of its own."""
    made = LabCluster(lab, request.param)
    yield made
    made.close()


@pytest.fixture
def drive(cluster: LabCluster, request: pytest.FixtureRequest) -> Iterator[Callable[..., Driver]]:
    """``drive(program, *arguments)``: start it on the fourth host, with the web address.

    Behind what the module of the test has as ``BEGIN``; with ``host=`` on another one.
    """
    started: list[Driver] = []

    def start(program: str, *arguments: str, host: str = "client") -> Driver:
        text = request.module.BEGIN + program
        started.append(Driver(cluster[host], text, WEB, *arguments))
        return started[-1]

    yield start
    for driver in started:
        driver.close()
