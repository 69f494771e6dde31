"""A run as a timeline in the Trace Event Format, which Perfetto and chrome://tracing open. Pure.

A process of the timeline is a node, a thread is a worker, a slice is an attempt, with what it did
inside. Arrows lead from the call that made a value to the calls that read it. Counters show running
calls, cores and memory.

Format: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from mars.observe.observation import EndedAttempt
from mars.report.record import Record, inputs_of

_LOW: Final = 2**32 - 1
Event = dict[str, object]


def trace_of(record: Record) -> str:
    """The timeline of a record, as JSON."""
    events = list(_events(record))
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def start_of(record: Record) -> float:
    """The moment that a timeline calls 0.

    Clocks of nodes are known to a millisecond or so. So a node may have received a call, by our
    clock, just before we sent it.
    """
    moments = [run.began for run in record.runs.values()]
    moments += [one.sent for one in record.attempts if one.sent]
    moments += [one.times.received for one in record.attempts if one.times is not None]
    return min(moments, default=0.0)


def _events(record: Record) -> Iterator[Event]:
    zero = start_of(record)
    nodes: dict[str, int] = {}
    known: set[tuple[int, int]] = set()
    made: dict[int, EndedAttempt] = {}

    def at(moment: float) -> float:
        return round((moment - zero) * 1e6, 3)

    for one in record.attempts:
        node = nodes.get(one.node)
        if node is None:
            node = nodes[one.node] = len(nodes) + 1
            yield _named("process_name", node, 0, one.node or "unknown")
        if (node, one.worker) not in known:
            known.add((node, one.worker))
            yield _named("thread_name", node, one.worker, f"worker {one.worker} (pid {one.pid})")
    arrow = 0
    for one in record.attempts:
        place = {"pid": nodes[one.node], "tid": one.worker}
        if one.ending == "lost":
            yield {"ph": "i", "s": "t", "name": f"{one.name}: its value was lost", "cat": "lost",
                   "ts": at(one.ended), **place}  # fmt: skip
            continue
        begin = one.times.received if one.times is not None else one.sent
        if (one.times is None and not begin) or one.ended < begin:
            continue
        yield {
            "ph": "X", "name": one.name, "cat": one.ending, "ts": at(begin),
            "dur": at(one.ended) - at(begin), **place,
            "args": {
                "call": one.call, "function": one.function, "attempt": one.attempt,
                "ending": one.ending, "calls": one.size, "run": one.run, "cpus": one.cpus,
                "CPU seconds": round(one.cpu_s, 6), "read bytes": one.read_bytes,
                "written bytes": one.written_bytes, "peak bytes": one.peak_bytes,
                "waited seconds": round(max(0.0, begin - one.queued), 6),
                **_gpus(one),
            },
            **({} if one.ending == "value" else {"cname": "terrible"}),
        }  # fmt: skip
        times = one.times
        if times is None:
            continue
        for name, low, high in (
            ("decode inputs", times.received, times.called),
            ("run", times.called, times.returned),
            ("store result", times.returned, times.stored),
        ):
            yield {"ph": "X", "name": name, "cat": "phase", "ts": at(low),
                   "dur": max(0.0, at(high) - at(low)), **place}  # fmt: skip
        for serial in inputs_of(record, one):
            maker = made.get(serial)
            if maker is None or maker.times is None:
                continue
            arrow += 1
            flow = {"name": "value", "cat": "value", "id": arrow}
            yield {"ph": "s", **flow, "ts": at(maker.times.returned), "pid": nodes[maker.node],
                   "tid": maker.worker}  # fmt: skip
            yield {"ph": "f", "bp": "e", **flow, "ts": at(times.received), **place}
        if one.ending == "value":
            made[one.serial & _LOW] = one
    yield from _counters(record, zero)


def _gpus(one: EndedAttempt) -> dict[str, object]:
    """What is told of an attempt with GPUs."""
    if not one.gpus:
        return {}
    told: dict[str, object] = {"gpus": one.gpus}
    if one.gpu_memory_bytes is not None and one.gpu_utilisation is not None:
        told["GPU bytes"] = one.gpu_memory_bytes
        told["GPU utilisation"] = round(one.gpu_utilisation, 3)
    return told


def _named(kind: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _counters(record: Record, zero: float) -> Iterator[Event]:
    """How many calls run, on how many cores, and what their processes took."""
    steps: list[tuple[float, int, float, int]] = []
    for one in record.attempts:
        if one.times is not None and one.ending != "lost":
            steps.append((one.times.received, 1, one.cpus, one.peak_bytes))
            steps.append((one.times.stored, -1, -one.cpus, -one.peak_bytes))
    steps.sort()
    calls, cores, memory = 0, 0.0, 0
    for number, (moment, more, cpus, peak) in enumerate(steps):
        calls, cores, memory = calls + more, cores + cpus, memory + peak
        if number + 1 < len(steps) and steps[number + 1][0] == moment:
            continue
        place = {"ph": "C", "pid": 0, "ts": round((moment - zero) * 1e6, 3)}
        yield {**place, "name": "running calls", "args": {"calls": calls}}
        yield {**place, "name": "cores", "args": {"busy": round(max(0.0, cores), 6)}}
        if memory or peak:
            yield {**place, "name": "memory of measured calls", "args": {"bytes": memory}}
