"""What nodes are told apart by: versions, and messages that carry large values."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from mars._version import __version__
from mars.engines.cluster import carrier
from mars.engines.cluster.engine import ClusterEngine
from mars.engines.cluster.node import stored_values_in
from mars.engines.cluster.surroundings import Surroundings
from mars.errors import StartupFailed


class OneNode:
    """A foreign engine with one node, which says of itself what it is given."""

    address = "test://one"

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = {**carrier.node_facts("test://node", 1.0, 1 << 30, {}), **facts}
        self.closed = False

    def begin(self, listener: carrier.Listener, facts: Mapping[str, Any]) -> int:
        listener.joined("a")
        listener.told("a", [(carrier.HELLO, self.facts)])
        return 1

    def send(self, node: str, item: carrier.Item) -> None:
        raise AssertionError("a refused node is told nothing")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"mars": "0.0.1"}, [r"mars 0\.0\.1", __version__.replace(".", r"\.")]),
        ({"python": "3.9.2"}, [r"Python 3\.9\.2", carrier.system.python_version()]),
        ({"trouble": "none of node_ports is free"}, ["test://node cannot be used", "is free"]),
    ],
)
def test_a_node_with_other_versions_or_without_a_port_is_refused_saying_so(
    facts: dict[str, Any], told: list[str]
) -> None:
    link = OneNode(facts)
    with pytest.raises(StartupFailed, match=".*".join(told)):
        ClusterEngine(link)
    assert link.closed


def test_packages_that_differ_are_named_with_both_versions() -> None:
    facts = carrier.node_facts("test://node", 1.0, 1 << 30, {"numpy": "1.0", "nowhere": "2.0"})
    lines = carrier.differences(facts, {"numpy": "1.0", "nowhere": "2.0"})
    assert any("has numpy " in line and "numpy 1.0" in line for line in lines)
    assert not any("nowhere" in line for line in lines)  # told of when a call needs it
    assert not carrier.differences(facts, {"numpy": facts["packages"]["numpy"]})


def test_stored_values_are_found_in_nested_messages() -> None:
    value = (None, 1, 4096, 8192, (5000,))
    message = ("submit", 3, ("s", True), [(1, ("key", "f", b"", (value,)), None, (value, b"x"))])
    assert list(stored_values_in(message)) == [value, value]


def test_the_path_of_another_installation_is_put_together_on_the_node(tmp_path: Any) -> None:
    import sys

    told = Surroundings(
        ["/elsewhere/lib", str(tmp_path), "/elsewhere/mine"], ["/elsewhere/lib"], "/elsewhere", {},
        {"argv": ["program"]},
    )  # fmt: skip
    path, here, _, settings = pickle.loads(pickle.dumps(told))
    assert path == [str(tmp_path), *sys.path]
    assert (here, settings) == ("", {"argv": ["program"]})
