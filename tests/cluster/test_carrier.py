"""What nodes are told apart by: versions, and messages that carry large values."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from mars._version import __version__
from mars.engines.cluster import carrier, surroundings
from mars.engines.cluster import engine as cluster_engine
from mars.engines.cluster.surroundings import Surroundings
from mars.errors import StartupFailed


class OneNode:
    """A foreign engine with one node, which says of itself what it is given."""

    address = "test://one"
    own = False

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = {**carrier.node_facts("test://node", 1.0, 1 << 30, {}), **facts}
        self.closed = False

    def begin(self, listener: carrier.Listener, facts: Mapping[str, Any]) -> list[str]:
        listener.joined("a")
        listener.told("a", [(carrier.HELLO, self.facts)])
        return ["test://node"]

    def why_silent(self) -> str:
        return ""

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
        cluster_engine.start(link)
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
    assert list(carrier.stored_values_in(message)) == [value, value]


def test_the_path_of_another_installation_is_put_together_on_the_node(tmp_path: Any) -> None:
    import sys

    told = Surroundings(
        ["/elsewhere/lib", str(tmp_path), "/elsewhere/mine"], ["/elsewhere/lib"], "/elsewhere", {},
        {"argv": ["program"]},
    )  # fmt: skip
    path, here, _, settings = pickle.loads(pickle.dumps(told))
    assert path == [str(tmp_path), *sys.path]
    assert (here, settings) == ("", {"argv": ["program"]})


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_node_follows_the_program_only_where_nobody_else_can_write(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    import sys

    folder, gone = tmp_path / "job", tmp_path / "not there yet"
    folder.mkdir()
    folder.chmod(mode)
    path = ["", str(folder), str(gone), *sys.path]
    told = pickle.dumps(Surroundings(path, [], str(folder), {}, {}))
    asked = surroundings.whereabouts(path, [], str(folder), {})
    # On the program's own machine the program itself has run from there.
    assert pickle.loads(told)[:2] == (path, str(folder))
    assert surroundings.not_followed(asked) == []
    monkeypatch.setattr(surroundings, "_place", lambda: "another machine")
    followed, here, *_ = pickle.loads(told)
    assert str(gone) not in followed
    lines = surroundings.not_followed(asked)
    if mode == 0o755:
        assert (followed[:2], here, lines) == (["", str(folder)], str(folder), [])
    else:
        assert str(folder) not in followed and here == ""
        (line,) = lines
        assert line.startswith(f"does not follow this program to {folder}: every user may write")


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_variables_by_which_code_is_found_lead_only_where_nobody_else_can_write(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("PATH", "/usr/bin:/opt/own")
    here = os.fsencode(folder)
    changed = {
        b"PATH": here + b":/usr/bin:/opt/own:/not/there",
        b"PYTHONPATH": here,
        b"LD_PRELOAD": here + b"/mine.so libc.so.6",
        b"DATA": here,
        b"HOME": None,
    }
    given = {b"PYTHONPATH": b"/what/it/says", b"PERL5LIB": here}
    made = Surroundings([], [], str(folder), changed, {}, given)
    assert list(made)[2] == {**given, **changed}, "in the program's own process"
    told = pickle.dumps(made)
    asked = surroundings.whereabouts([], [], None, changed)
    assert pickle.loads(told)[2] == {**given, **changed}, "on the program's own machine"

    monkeypatch.setattr(surroundings, "_place", lambda: "another machine")
    found = pickle.loads(told)[2]
    lines = surroundings.not_followed(asked)
    assert found[b"DATA"] == here and found[b"HOME"] is None
    assert found[b"PERL5LIB"] == here, "named for calls"
    assert found[b"LD_PRELOAD"] == b"libc.so.6"
    if mode == 0o755:
        assert found[b"PATH"] == here + b":/usr/bin:/opt/own"
        assert found[b"PYTHONPATH"] == here
        assert lines == []
    else:
        assert found[b"PATH"] == b"/usr/bin:/opt/own"
        assert found[b"PYTHONPATH"] == b"/what/it/says"
        assert [line.split(",")[0] for line in lines] == [
            f"leaves {folder} out of PATH",
            f"leaves {folder} out of PYTHONPATH",
            f"leaves {folder}/mine.so out of LD_PRELOAD",
        ]
