"""What it costs that every attempt is noted in the engine's table."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect
from benchmarks.peer import Peer


def _processor_s(work: Callable[[], object]) -> float:
    gc.collect()
    begin = time.process_time()
    work()
    return time.process_time() - begin


def run(peer: Peer, params: Params) -> Metrics:
    """Empty calls with the table and with one that keeps nothing, in turn; the program's own time.

    By processor time of the program, as its thread is what bounds how many calls a second there
    are. The best of the rounds counts, since others on the machine only ever add to it.
    """
    import mars
    import mars.remote as mr
    from mars.observe.attempts import Attempts

    class Nothing(Attempts):
        """Keeps nothing."""

        def add(self, worker: int, records: bytes, count: int) -> None:
            """Forget it."""

        def sent(self, attempt: int, now: float) -> None:
            """Forget it."""

    count = params["tasks"]

    def work() -> None:
        calls = mr.ExecutableTuple([mr.spawn(workload.nothing, item) for item in range(count)])
        expect(len(calls.execute(session=session).fetch(session=session)), count)

    with_s, without_s, held = [], [], 0.0
    with mars.new_session(n_cpu=1, default=False) as session:
        engine: Any = session.engine
        core = engine.loop.scheduler.core
        work()
        for _ in range(params["rounds"]):
            for kind, times in ((Attempts, with_s), (Nothing, without_s)):
                table = kind()
                table.workers.update(core.ended.workers)
                core.ended = engine.loop.dispatch.table = table
                times.append(_processor_s(work))
                if kind is Attempts:
                    expect(table.count, count)
                    held = _bytes_of(table)
    return {
        "share_of_program": max(0.0, min(with_s) / min(without_s) - 1),
        "us_with": min(with_s) / count * 1e6,
        "us_without": min(without_s) / count * 1e6,
        "bytes_per_call": held / count,
    }


def _bytes_of(table: Any) -> float:
    kept = [name for kind in type(table).__mro__ for name in getattr(kind, "__slots__", ())]
    return float(sum(sys.getsizeof(getattr(table, name)) for name in kept))


CASE = Case(
    question="Which part of the time for an empty call does the table of attempts take?",
    metric="share_of_program",
    better="lower",
    run=run,
    full={"100 000 tasks": {"tasks": 100_000, "rounds": 7}},
    quick={"20 000 tasks": {"tasks": 20_000, "rounds": 5}},
    tiny={"50 tasks": {"tasks": 50, "rounds": 1}},
    limit_s=300,
    started=False,
    fresh="always",
    only=("mars",),
    size="tasks",
    note=(
        "Processor time of the program for describing, running and fetching, with the table and "
        "with one that keeps nothing. What workers measure is in both; it takes them 0.3 us a call."
    ),
)
