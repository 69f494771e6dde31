"""A report says when memory was what calls waited for."""

from __future__ import annotations

import contextlib
import time

import mars
import mars.remote as mr


def test_calls_that_memory_held_back_are_named() -> None:
    with contextlib.closing(mars.new_session(n_cpu=2, default=False)) as session:
        engine = session.engine
        room = int(engine.loop.scheduler.core.admission._room())  # type: ignore[attr-defined]
        calls = [mr.spawn(time.sleep, 0.05, memory=int(room * 0.7), name="fit") for _ in range(4)]
        mr.ExecutableTuple(calls).execute(session=session)
        record = session.report().record
    assert record.held <= {call.call.serial for call in calls} and len(record.held) >= 2
