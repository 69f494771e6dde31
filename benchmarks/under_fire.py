"""One run of `chaos`: one system, its tasks, and the ledger in which each attempt signs.

Started by `chaos` with a JSON object as its only argument, in a process of its own. Nothing here
kills: whoever does that stands outside and reads the ledger.
"""
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import warm_up
from benchmarks.peer import Peer
from benchmarks.peers import load
from benchmarks.peers.process_pool_executor import FromExecutor

LEDGER: Final = "ledger"
ANSWER: Final = "answer.json"
COLLECTED: Final = "collected"
"""Exists once all results have come: from then on nothing is killed."""

IN_FLIGHT: Final = 32
"""Calls that an executor holds at a time. All that it holds is lost when it breaks, and submitting
thousands again after each break would be a poor way to use it."""

Results = dict[int, list[bytes]]


def result_of(index: int) -> bytes:
    """What a task returns: 1 KiB in which a torn or exchanged result is noticed."""
    return index.to_bytes(8, "little") * 128


def task(folder: str, seconds: float, spin: bool, index: int) -> bytes:
    """Sign as begun, work, sign as ended.

    A lock on the task's own byte is held meanwhile. The kernel frees it with the process, so who
    finds it taken runs beside another attempt that is alive.
    """
    ledger = os.open(os.path.join(folder, LEDGER), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.lockf(ledger, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
            sign = "begins"
        except OSError:
            sign = "overlaps"
        os.write(ledger, f"{index} {os.getpid()} {sign}\n".encode())
        if spin:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                pass
        else:
            time.sleep(seconds)
        os.write(ledger, f"{index} {os.getpid()} ends\n".encode())
    finally:
        os.close(ledger)
    return result_of(index)


class Collected:
    """What a system handed out, and what it said instead."""

    def __init__(self) -> None:
        self.results: Results = {}
        self.errors: Counter[str] = Counter()
        self.broken = 0

    def take(self, index: int, value: bytes) -> None:
        self.results.setdefault(index, []).append(value)

    def refuse(self, error: BaseException) -> None:
        self.errors[type(error).__name__] += 1

    def each(self, indices: Sequence[int], fetch: Callable[[int], bytes]) -> None:
        for index in indices:
            try:
                self.take(index, fetch(index))
            except Exception as error:
                self.refuse(error)


def through_mars(peer: Any, func: Callable[[int], bytes], count: int) -> Collected:
    """Retried as by default: a call may lose its worker three times."""
    import mars.remote as mr

    calls = [mr.spawn(func, args=(index,), death_retries=1000) for index in range(count)]
    mr.ExecutableTuple(calls).execute(on_error="continue")
    found = Collected()
    found.each(range(count), lambda index: calls[index].fetch())
    return found


def through_executor(peer: FromExecutor, func: Callable[[int], bytes], count: int) -> Collected:
    """An executor breaks as a whole: make a new one, and submit again what it held."""
    from concurrent import futures
    from concurrent.futures.process import BrokenProcessPool

    found = Collected()
    waiting = list(range(count - 1, -1, -1))
    running: dict[Any, int] = {}
    while waiting or running:
        try:
            while waiting and len(running) < IN_FLIGHT:
                future = peer.submit(func, waiting[-1])
                running[future] = waiting.pop()
        except BrokenProcessPool:
            pass  # those that it holds say so, too
        broken = not running
        for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
            index = running.pop(future)
            try:
                found.take(index, future.result())
            except BrokenProcessPool:
                broken = True
                waiting.append(index)
        if broken:
            # What had ended before the break still has its result.
            for future in futures.wait(running).done:
                index = running.pop(future)
                if future.exception() is None:
                    found.take(index, future.result())
                else:
                    waiting.append(index)
            found.broken += 1
            peer.stop()
            peer.start(peer.workers)
    return found


def through_dask(peer: Any, func: Callable[[int], bytes], count: int) -> Collected:
    """Results are fetched as they come: one that stays in a worker is lost with it."""
    from distributed import as_completed

    found = Collected()
    futures = peer._client.map(func, range(count), pure=False)
    indices = {future.key: index for index, future in enumerate(futures)}
    for batch in as_completed(futures, with_results=True, raise_errors=False).batches():
        for future, value in batch:
            if isinstance(value, bytes):
                found.take(indices[future.key], value)
            else:
                found.errors[getattr(value[0], "__name__", "error")] += 1
    return found


def through_ray(peer: Any, func: Callable[[int], bytes], count: int) -> Collected:
    """Retried without end, as in Ray's own chaos tests. Small results are with the driver."""
    import ray

    # Ray takes functions, and `func` is a partial.
    remote = ray.remote(max_retries=-1)(lambda index: func(index))
    handles = [remote.remote(index) for index in range(count)]
    found = Collected()
    try:
        for index, value in enumerate(ray.get(handles)):
            found.take(index, value)
    except Exception:
        found.results.clear()
        found.each(range(count), lambda index: ray.get(handles[index], timeout=60))
    return found


WAYS: Final[dict[str, Callable[[Any, Callable[[int], bytes], int], Collected]]] = {
    "mars": through_mars,
    "ppe": through_executor,
    "loky": through_executor,
    "dask": through_dask,
    "ray": through_ray,
}
"""Systems, and how each of them is used at its best."""


def tally(found: Collected, count: int) -> dict[str, Any]:
    """Lost, duplicated and wrong results."""
    values = [(index, value) for index, several in found.results.items() for value in several]
    wrong = sum(value != result_of(index) for index, value in values)
    return {
        "lost": count - len(found.results),
        "duplicated": len(values) - len(found.results),
        "wrong": wrong,
        "errors": dict(found.errors),
        "broken": found.broken,
    }


def main() -> None:
    """Read the order, run it, write what happened."""
    order = json.loads(sys.argv[1])
    folder, count = Path(order["folder"]), order["tasks"]
    if order["system"] == "dask":
        import dask

        dask.config.set({"distributed.scheduler.allowed-failures": 10_000})
    peer: Peer = load(order["system"])
    peer.workers = order["workers"]
    peer.start(peer.workers)
    warm_up(peer)
    func = partial(task, str(folder), order["task_s"], order["spin"])
    begin = time.perf_counter()
    found = WAYS[order["system"]](peer, func, count)
    seconds = time.perf_counter() - begin
    (folder / COLLECTED).touch()
    (folder / ANSWER).write_text(json.dumps({"seconds": seconds, **tally(found, count)}))
    peer.stop()
