"""Memory of a task."""

from __future__ import annotations

import gc
import threading
import time

from benchmarks import memory, workload
from benchmarks.case import Case, Metrics, Params, affordable, expect
from benchmarks.peer import Peer

TICK_S = 0.005


class PauseWatch:
    """The longest time in which no other thread of the driver got to run."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        last = time.perf_counter()
        while not self._end.wait(TICK_S):
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - last - TICK_S)
            last = now

    def __enter__(self) -> PauseWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def run(peer: Peer, params: Params) -> Metrics:
    """All handles and all results are held at the end; the peak in between counts too."""
    gc.collect()
    memory.forget_peak()
    # Before the probes: what they leave behind is counted, rather than made use of.
    before = memory.resident_bytes()

    def probe(count: int) -> None:
        peer.gather([peer.submit(workload.increment, item) for item in range(count)])

    count = affordable(params["tasks"], params["budget_s"], probe, least=params["least"])
    with PauseWatch() as watch:
        begin = time.perf_counter()
        handles = [peer.submit(workload.increment, item) for item in range(count)]
        submitted = memory.resident_bytes()
        submitted_s = time.perf_counter() - begin
        results = peer.gather(handles)
        seconds = time.perf_counter() - begin
    expect((len(results), results[-1]), (count, count))
    return {
        "peak_bytes_per_task": (memory.peak_resident_bytes() - before) / count,
        "submitted_bytes_per_task": (submitted - before) / count,
        "end_bytes_per_task": (memory.resident_bytes() - before) / count,
        "seconds": seconds,
        "submit_seconds": submitted_s,
        "longest_pause_ms": watch.longest_s * 1e3,
        "tasks": count,
    }


def _variant(tasks: int, budget_s: float, least: float) -> dict[str, object]:
    return {"tasks": tasks, "budget_s": budget_s, "least": least}


CASE = Case(
    question="How much memory of the driver does a task take, with handle, argument and result?",
    metric="peak_bytes_per_task",
    better="lower",
    run=run,
    full={
        "10 000 tasks": _variant(10_000, 4.0, 0.0),
        "100 000 tasks": _variant(100_000, 10.0, 0.5),
        "1 000 000 tasks": _variant(1_000_000, 25.0, 0.5),
    },
    quick={"5 000 tasks": _variant(5_000, 0.6, 0.0)},
    tiny={"50 tasks": _variant(50, 1.0, 0.0)},
    limit_s=150,
    fresh="always",
    size="tasks",
    note=(
        "`submitted` is the time until all calls are described and, with runtimes that begin at "
        "once, under way. `longest_pause` is the longest time in which another thread of the "
        "driver could not run, whatever the reason. With fewer tasks the case would measure pages "
        "and not tasks."
    ),
)
