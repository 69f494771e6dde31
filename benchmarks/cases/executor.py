"""Single submits: a stream of futures, and the round trip of one."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import Executor, ProcessPoolExecutor

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params
from benchmarks.peer import Peer


def _stream_us(executor: Executor, count: int) -> float:
    begin = time.perf_counter()
    futures = [executor.submit(workload.nothing) for _ in range(count)]
    for future in futures:
        future.result()
    return (time.perf_counter() - begin) / count * 1e6


def _round_trip_us(executor: Executor, count: int) -> float:
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        executor.submit(workload.nothing).result()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def run(peer: Peer, params: Params) -> Metrics:
    """In turns with a `ProcessPoolExecutor`, so both meet the same machine."""
    import mars

    streams: list[tuple[float, float]] = []
    trips: list[tuple[float, float]] = []
    with (
        mars.Executor(peer.workers or None) as ours,
        ProcessPoolExecutor(ours._max_workers) as theirs,
    ):
        for executor in (ours, theirs):
            _stream_us(executor, 50)
        for _ in range(params["rounds"]):
            streams.append((_stream_us(ours, params["calls"]), _stream_us(theirs, params["calls"])))
            trips.append(
                (_round_trip_us(ours, params["trips"]), _round_trip_us(theirs, params["trips"]))
            )
    stream, pool_stream = (statistics.median(some) for some in zip(*streams, strict=True))
    trip, pool_trip = (statistics.median(some) for some in zip(*trips, strict=True))
    return {
        "stream_us": stream,
        "pool_stream_us": pool_stream,
        "round_trip_us": trip,
        "pool_round_trip_us": pool_trip,
        "times_faster": pool_stream / stream,
    }


CASE = Case(
    question="What does a future of its own cost for each call, beside a ProcessPoolExecutor?",
    metric="stream_us",
    better="lower",
    only=("mars",),
    started=False,
    run=run,
    full={"nothing": {"calls": 3_000, "trips": 500, "rounds": 9}},
    quick={"nothing": {"calls": 1_000, "trips": 100, "rounds": 3}},
    tiny={"nothing": {"calls": 20, "trips": 3, "rounds": 1}},
)
