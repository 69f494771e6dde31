"""``mars doctor ADDRESS`` without a cluster: what it says of differences. With one: tests/lab."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from mars.cli import main, nodes
from mars.cli.findings import Finding


def by_name(findings: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_versions_that_differ_and_packages_that_are_missing_are_named_with_both() -> None:
    facts = nodes.look()
    assert not any(finding.hint for finding in nodes._versions(facts))
    cloudpickle = facts["packages"]["cloudpickle"]
    facts["packages"] |= {"cloudpickle": "0.1", "rich": None}
    facts["python"] = "3.11.0rc1"
    found = by_name(nodes._versions(facts))
    assert found["cloudpickle"].value == "0.1"
    assert found["cloudpickle"].hint == f"this program has {cloudpickle}"
    assert "pip install 'rich==" in found["rich"].hint and found["rich"].text == "not installed"
    assert "this program has 3." in found["python"].hint


@pytest.mark.parametrize(("skew_s", "told"), [(0.0, False), (-7.0, True), (30.0, True)])
def test_a_clock_that_is_off_is_told_of_within_what_the_way_takes(
    monkeypatch: pytest.MonkeyPatch, skew_s: float, told: bool
) -> None:
    monkeypatch.setattr(nodes, "NODE_SENT_BYTES", 1024)

    def call(func: Callable[..., Any], *args: Any) -> Any:
        return time.time() + skew_s if func is time.time else func(*args)

    found = by_name(nodes._line(call, "10.0.0.3:41119"))
    assert found["clock"].value == pytest.approx(skew_s, abs=0.5)
    assert bool(found["clock"].hint) is told
    assert found["to the node"].value > 0 and found["from the node"].value > 0


def test_an_address_that_leads_nowhere_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["doctor", "tls://127.0.0.1:9"]) == 1
    assert "no cluster answers at 127.0.0.1:9" in " ".join(capsys.readouterr().out.split())
    assert main(["doctor", "http://127.0.0.1:9"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "credentials" in said and "mars cluster credentials import" in said
    assert main(["doctor", "nothing"]) == 1
    assert "is no address of a cluster" in " ".join(capsys.readouterr().out.split())
