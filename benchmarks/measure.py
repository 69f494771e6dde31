"""One measurement: one case, one peer, one set of parameters, in a process of its own.

Started by `runner` with a JSON object as its only argument; the answer goes to a file, because
peers print what they like. Kept light: what is imported here is in every memory figure.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.case import Case
from benchmarks.peer import Peer, Unsupported
from benchmarks.peers import load

WARM_UP_TASKS = 64
"""Enough that every worker has started, imported `workload` and run something."""


def warm_up(peer: Peer) -> None:
    """Let workers start and import, so that a case measures work and not beginnings."""
    for value in peer.one_by_one(workload.nothing, range(WARM_UP_TASKS)):
        assert value is None


def answer(case: Case, peer_name: str, workers: int, params: dict[str, Any]) -> dict[str, Any]:
    """Run it, and put what happened in words if it did not work."""
    try:
        peer = load(peer_name)
        peer.workers = workers
        # Asked beforehand: a part that is missing inside an installed peer is a failure.
        module = peer.module or peer.package
        if module and find_spec(module) is None:
            return {"outcome": "not installed", "detail": module}
        if not case.started:
            return {"outcome": "ok", "metrics": case.run(peer, params)}
        begin = time.perf_counter()
        peer.start(workers)
        try:
            warm_up(peer)
            start_s = time.perf_counter() - begin
            return {"outcome": "ok", "metrics": case.run(peer, params), "start_s": start_s}
        finally:
            peer.stop()
    except Unsupported as reason:
        return {"outcome": "unsupported", "detail": str(reason)}
    except Exception as error:  # a row of the table says so, and the run goes on
        return {"outcome": "failed", "detail": f"{type(error).__name__}: {error}"[:300]}


def main() -> None:
    """Read the order, write the answer."""
    order = json.loads(sys.argv[1])
    case: Case = import_module(f"benchmarks.cases.{order['case']}").CASE
    said = answer(case, order["peer"], order["workers"], order["params"])
    Path(order["answer"]).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
