"""Calls are sent to nodes ahead of time where they would be too long for it on one machine."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

import mars
import mars.remote as mr
from mars.settings import FAR_PREFETCH_BELOW_S, PREFETCH_BELOW_S

NAP_S = 0.25


@pytest.mark.parametrize("idempotent", [True, False])
def test_one_call_waits_on_the_node_behind_another_unless_it_must_not_run_twice(
    two_nodes: mars.session.Session, idempotent: bool
) -> None:
    assert PREFETCH_BELOW_S < NAP_S < FAR_PREFETCH_BELOW_S

    def nap() -> mr.Object:
        node = two_nodes.get_worker_addresses()[0]
        return mr.spawn(time.sleep, (NAP_S,), expect_worker=node, idempotent=idempotent)

    nap().execute()  # from here on it is known how long they take
    calls = [nap() for _ in range(3)]
    mr.ExecutableTuple(calls).execute()
    moments = sorted(call.times() for call in calls)
    ahead = [after.sent < before.returned for before, after in pairwise(moments)]
    assert ahead == [idempotent, idempotent]
