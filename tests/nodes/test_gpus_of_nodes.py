"""GPUs of nodes: each says what it has, no device is had twice, and calls go on after a loss."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import mars.remote as mr
from mars.errors import NoAvailableBand
from tests.nodes.conftest import OnNodes


def visible() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def wait_for(begun: str, gate: str) -> str | None:
    with open(begun, "a") as file:
        file.write("begun\n")
    while not os.path.exists(gate):
        os.sched_yield()
    return visible()


def test_of_several_nodes_on_one_host_only_one_has_the_devices(
    on_nodes: Callable[..., OnNodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARS_GPUS", "2")
    here = on_nodes(2)
    assert sorted(here.engine.groups.gpus or ()) == [(), ("0", "1")]
    seen = mr.ExecutableTuple([mr.spawn(visible, gpus=1) for _ in range(6)]).execute().fetch()
    assert set(seen) <= {"0", "1"}
    with pytest.raises(NoAvailableBand, match="gpus=3, but a worker has 2; nodes tell by"):
        mr.spawn(visible, gpus=3).execute()


def test_a_call_with_a_gpu_goes_on_at_the_next_node_that_has_one(
    on_nodes: Callable[..., OnNodes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    here = on_nodes(1)
    monkeypatch.setenv("MARS_GPUS", "1")
    with_gpu = here.carrier.join()
    wait_until(lambda: len(here.engine.groups.addresses) == 2)
    run = mr.spawn(wait_for, (str(begun), str(gate)), gpus=1).execute(wait=False)
    wait_until(begun.exists)
    here.carrier.lose(with_gpu)
    wait_until(lambda: len(here.engine.groups.addresses) == 1)
    here.carrier.join()
    wait_until(lambda: begun.read_text().count("begun") == 2)
    gate.touch()
    assert run.result(60).fetch() == "0"


def test_a_node_whose_declaration_makes_no_sense_is_refused_and_says_so(
    on_nodes: Callable[..., OnNodes],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    here = on_nodes(1)
    monkeypatch.setenv("MARS_GPUS", "some")
    here.carrier.join()
    wait_until(lambda: here.cluster.refused)
    assert "MARS_GPUS has to be a whole number, or auto, got 'some'" in here.cluster.refused[0]
