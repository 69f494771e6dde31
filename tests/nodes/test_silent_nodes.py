"""A session begins with the nodes that answer, and takes the others when they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mars.remote as mr
from mars.engines.cluster import engine
from mars.errors import StartupFailed


def test_a_session_begins_with_the_nodes_that_answer_and_names_the_others(
    on_nodes: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    monkeypatch.setattr(engine, "NODES_START_S", 600)  # it does not wait so long
    there = on_nodes(2, silent=("far-1", "far-2"))
    assert len(there.session.get_worker_addresses()) == 2
    said = capfd.readouterr().err
    for address in ("test://far-1", "test://far-2"):
        assert f"node {address} has not answered" in said
    assert mr.spawn(abs, args=(-1,)).execute().fetch() == 1
    late = there.carrier.join(name="far-2")
    wait_until(lambda: late in there.session.get_worker_addresses())
    assert mr.spawn(abs, args=(-1,), expect_worker=late).execute().fetch() == 1
    assert "test://far-2) is there now" in capfd.readouterr().err
    assert there.cluster.silent == ["test://far-1"]


def test_when_no_node_answers_the_error_names_them(
    on_nodes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "NODES_START_S", 0.3)
    with pytest.raises(StartupFailed, match=r"no node answered within 0\.3 s: test://far-1"):
        on_nodes(0, silent=("far-1",))


def test_nodes_on_which_our_part_does_not_start_are_named_and_not_waited_for(
    on_nodes: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from tests.nodes.conftest import Nodes

    begin = Nodes.begin

    def fail(nodes: Any, listener: Any, facts: Any) -> list[str]:
        found = begin(nodes, listener, facts)
        listener.failed("test://far-1", "ModuleNotFoundError: No module named 'mars'")
        return found

    monkeypatch.setattr(Nodes, "begin", fail)
    monkeypatch.setattr(engine, "NODES_SILENT_S", 600)
    there = on_nodes(1, silent=("far-1",))
    (refused,) = there.cluster.refused
    assert f"mars: {refused}" in capfd.readouterr().err
    assert "test://far-1" in refused and "No module named 'mars'" in refused
