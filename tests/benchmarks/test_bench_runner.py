"""Who is asked what in a run: rounds, strikes, time spent, and processes that end early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmarks import cases, runner
from benchmarks.runner import LEAST_ROUNDS, SHARE_S, Ask, Plan, Rounds

NAMES = ("chain", "tree", "shared_array")


def plan(peers: Sequence[str] = ("mars", "ray"), rounds: int = 5, size: Any = "full") -> Plan:
    return Plan({name: cases.load(name) for name in NAMES}, peers, rounds, size)


def answers(count: int, outcome: str = "ok", process_s: float = 1.0) -> list[dict[str, Any]]:
    return [{"outcome": outcome, "process_s": process_s, "seconds": 0.0} for _ in range(count)]


class Machine:
    """Stands where processes are started: notes who was asked what, and answers as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.outcome: Mapping[str, str] = {}
        self.process_s: Mapping[str, float] = {}
        self.ends_after: Mapping[str, int] = {}
        monkeypatch.setattr(runner, "adopt_orphans", lambda: None)
        monkeypatch.setattr(runner, "measure_once", self.measure_once)

    def measure_once(self, peer: str, asks: Sequence[Ask], *_: object) -> list[dict[str, Any]]:
        self.asked.append((peer, [ask.variant for ask in asks]))
        count = min(len(asks), self.ends_after.get(peer, len(asks)))
        return answers(count, self.outcome.get(peer, "ok"), self.process_s.get(peer, 0.1))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_peers_take_turns_and_each_round_begins_with_another(machine: Machine) -> None:
    list(runner.run(plan(("mars", "ppe", "ray"), rounds=4)))
    batch = [peer for peer, variants in machine.asked if "1 000 links" in variants]
    assert batch == ["mars", "ppe", "ray", "ppe", "ray", "mars", "ray", "mars", "ppe", *batch[:3]]


def test_neighbours_share_a_process_and_fresh_ones_do_not(machine: Machine) -> None:
    list(runner.run(plan(("mars",), rounds=1)))
    shared, *fresh = [variants for _, variants in machine.asked]
    assert shared == [*cases.load("chain").full, *cases.load("tree").full]
    assert fresh == [[variant] for variant in cases.load("shared_array").full]


def test_every_ask_has_one_record_also_when_a_process_ends_early(machine: Machine) -> None:
    machine.ends_after = {"ray": 1}
    records = list(runner.run(plan(rounds=1)))
    found = [(r["peer"], r["case"], r["variant"]) for r in records]
    assert len(set(found)) == len(found)
    asked = sum(len(cases.load(name).full) for name in NAMES)
    assert len(found) == 2 * asked
    assert len([peer for peer, _ in machine.asked if peer == "ray"]) == asked


def test_a_failure_is_tried_once_more_and_a_missing_feature_is_not(machine: Machine) -> None:
    machine.outcome = {"ray": "failed", "mars": "unsupported"}
    records = list(runner.run(plan(rounds=5)))
    for peer, times in (("ray", 2), ("mars", 1)):
        assert len([r for r in records if (r["peer"], r["case"]) == (peer, "tree")]) == times


def test_a_slow_peer_has_the_least_number_of_rounds_and_a_quick_one_all(machine: Machine) -> None:
    machine.process_s = {"ray": 3 * SHARE_S}
    records = list(runner.run(plan(rounds=LEAST_ROUNDS + 2)))
    for peer, rounds in (("ray", LEAST_ROUNDS), ("mars", LEAST_ROUNDS + 2)):
        assert len([r for r in records if (r["peer"], r["case"]) == (peer, "tree")]) == rounds


def test_a_case_is_charged_for_its_own_time_and_its_part_of_starting() -> None:
    rounds = Rounds(plan())
    asks = rounds.asks("chain", "ray", 0)[:1] + rounds.asks("tree", "ray", 0)
    said = [
        {"outcome": "ok", "process_s": 12.0, "seconds": 1.0},
        {"outcome": "ok", "process_s": 12.0, "seconds": 9.0},
    ]
    rounds.spend("ray", asks, said)
    assert dict(rounds._spent_s) == {("chain", "ray"): 2.0, ("tree", "ray"): 10.0}
