"""Memory of calls on a cluster: what each node gives out, whichever engine it is of."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mars
import mars.remote as mr


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("ray_here")
def test_calls_on_a_node_of_ray_run_together_while_they_fit_into_its_memory(
    tmp_path: Path,
    note: Callable[..., None],
    lines: Callable[[object], list[str]],
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
) -> None:
    def work(ledger: Path, gate: Path) -> tuple[str, float, float]:
        began = time.monotonic()
        note(ledger)
        pass_gate(gate)
        time.sleep(0.2)
        return mars.get_context().worker_address, began, time.monotonic()

    def most_together(ran: list[tuple[str, float, float]]) -> int:
        return max(sum(one <= at < end for _, one, end in ran) for _, at, _ in ran)

    with mars.new_session(engine="ray", n_worker=2, n_cpu=4) as session:
        memory = session.engine.site.nodes.shipping.nodes[0].memory  # type: ignore[attr-defined]
        for part, expected in ((0.3, 2), (0.6, 1)):
            ledger, gate = tmp_path / f"begun-{expected}", tmp_path / f"gate-{expected}"
            calls = [mr.spawn(work, (ledger, gate), memory=int(part * memory)) for _ in range(8)]
            run = mr.ExecutableTuple(calls).execute(wait=False)
            # As many as fit on both nodes; their processes may take long to start.
            wait_until(lambda most=2 * expected, ledger=ledger: len(lines(ledger)) >= most, 40)
            gate.touch()
            run.result(60)
            ran = [call.fetch() for call in calls]
            nodes = [[one for one in ran if one[0] == node] for node in {one[0] for one in ran}]
            assert [most_together(node) for node in nodes] == [expected] * 2
        with pytest.raises(mars.errors.NoAvailableBand, match="node that has most"):
            mr.spawn(work, (ledger, gate), memory=int(1.1 * memory)).execute()
