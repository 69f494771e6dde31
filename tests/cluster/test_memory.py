"""Memory of calls on a cluster: what each node gives out, whichever engine it is of."""

from __future__ import annotations

import time

import pytest

import mars
import mars.remote as mr


@pytest.mark.usefixtures("ray_here")
def test_calls_on_a_node_of_ray_run_together_while_they_fit_into_its_memory() -> None:
    def work() -> tuple[str, float, float]:
        began = time.monotonic()
        time.sleep(0.2)
        return mars.get_context().worker_address, began, time.monotonic()

    def most_together(ran: list[tuple[str, float, float]]) -> int:
        return max(sum(one <= at < end for _, one, end in ran) for _, at, _ in ran)

    with mars.new_session(engine="ray", n_worker=2, n_cpu=4) as session:
        memory = session._engine.loop.pool.nodes[0].memory  # type: ignore[attr-defined]
        for part, expected in ((0.3, 2), (0.6, 1)):
            calls = [mr.spawn(work, memory=int(part * memory)) for _ in range(8)]
            ran = mr.ExecutableTuple(calls).execute().fetch()
            nodes = [[one for one in ran if one[0] == node] for node in {one[0] for one in ran}]
            assert [most_together(node) for node in nodes] == [expected] * 2
        with pytest.raises(mars.errors.NoAvailableBand, match="node that has most"):
            mr.spawn(work, memory=int(1.1 * memory)).execute()
