"""The measurements of one process: one peer, asked one thing after the other.

Started by `runner` with a JSON object as its only argument. Answers go to a file, one line each as
soon as it is known, because peers print what they like and may take this process down with them.
Kept light: what is imported here is in every memory figure.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from benchmarks import workload
from benchmarks.case import Case, OverBudget
from benchmarks.peer import Peer, Unsupported
from benchmarks.peers import load

WARM_UP_TASKS = 64
"""Enough that every worker has started, imported `workload` and run something."""

Answer = dict[str, Any]


def warm_up(peer: Peer) -> None:
    """Let workers start and import, so that a case measures work and not beginnings."""
    for value in peer.one_by_one(workload.nothing, range(WARM_UP_TASKS)):
        assert value is None


def in_words(error: Exception) -> Answer:
    """What kept a peer from answering."""
    if isinstance(error, Unsupported):
        return {"outcome": "unsupported", "detail": str(error)}
    if isinstance(error, OverBudget):
        return {"outcome": "over budget", "detail": str(error)}
    return {"outcome": "failed", "detail": f"{type(error).__name__}: {error}"[:300]}


def answer(case: Case, peer: Peer, params: Mapping[str, Any]) -> Answer:
    """Ask a peer, and put what happened in words if it did not work."""
    try:
        found = case.run(peer, params)
        # Five digits: more would say nothing, and stored runs are to be small.
        return {"outcome": "ok", "metrics": {k: float(f"{v:.5g}") for k, v in found.items()}}
    except Exception as error:  # a row of the table says so, and the run goes on
        return in_words(error)


def ask(peer: Peer, asked: list[Mapping[str, Any]], file: IO[str]) -> None:
    """All that is asked in this process, in order; cases agree on whether the peer is started."""

    def tell(number: int, said: Answer) -> None:
        file.write(json.dumps({"number": number, **said}) + "\n")
        file.flush()

    cases: list[Case] = [import_module(f"benchmarks.cases.{one['case']}").CASE for one in asked]
    started, start_s = False, 0.0
    try:
        # Asked beforehand: a part that is missing inside an installed peer is a failure.
        module = peer.module or peer.package
        if module and find_spec(module) is None:
            for number in range(len(asked)):
                tell(number, {"outcome": "not installed", "detail": module})
            return
        if cases[0].started:
            peer.logs = bool(asked[0]["params"].get("logs"))
            begin = time.perf_counter()
            peer.start(peer.workers)
            started = True
            warm_up(peer)
            start_s = time.perf_counter() - begin
        for number, (case, one) in enumerate(zip(cases, asked, strict=True)):
            begin = time.perf_counter()
            said = answer(case, peer, one["params"])
            seconds = time.perf_counter() - begin
            tell(number, {**said, "seconds": round(seconds, 3), "start_s": round(start_s, 3)})
            gc.collect()  # what is over is not the next one's burden
    except Exception as error:  # it did not start: so for all that is asked
        for number in range(len(asked)):
            tell(number, in_words(error))
    finally:
        if started:
            peer.stop()


def main() -> None:
    """Read the order, write the answers."""
    order = json.loads(sys.argv[1])
    peer = load(order["peer"])
    peer.workers = order["workers"]
    with Path(order["answers"]).open("w") as file:
        ask(peer, order["asked"], file)


if __name__ == "__main__":
    main()
