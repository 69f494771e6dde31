"""Memory of a task."""

from __future__ import annotations

import gc
import threading
import time

from benchmarks import memory, workload
from benchmarks.case import Case, Metrics, Params, expect
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
    count = params["tasks"]
    gc.collect()
    memory.forget_peak()
    before = memory.resident_bytes()
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
    }


CASE = Case(
    question="How much memory of the driver does a task take, with handle, argument and result?",
    metric="peak_bytes_per_task",
    better="lower",
    run=run,
    full={
        "1 000 tasks": {"tasks": 1_000},
        "10 000 tasks": {"tasks": 10_000},
        "100 000 tasks": {"tasks": 100_000},
        "1 000 000 tasks": {"tasks": 1_000_000},
    },
    quick={"5 000 tasks": {"tasks": 5_000}},
    limit_s=150,
)
