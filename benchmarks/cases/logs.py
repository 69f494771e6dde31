"""Tasks that print.

Ours keeps every line, findable by its call, and cannot be told not to. Ray can bring lines to the
driver, or not. With all others a line goes where the worker's output goes, and nobody knows whose
it is.
"""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer, Unsupported


def run(peer: Peer, params: Params) -> Metrics:
    """The same number of silent tasks first, in the same process, for the difference."""
    if params["logs"] and peer.logs_can_be == "off":
        raise Unsupported("nothing brings a printed line to the user")

    def silent(count: int) -> None:
        expect(len(peer.one_by_one(workload.nothing, range(count))), count)

    def talking(count: int) -> None:
        expect(len(peer.one_by_one(workload.talk, range(count))), count)

    count = affordable(params["tasks"], params["budget_s"], talking)
    silent_s = seconds_for(lambda: silent(count))
    talking_s = seconds_for(lambda: talking(count))
    return {
        "talking_us_per_task": talking_s / count * 1e6,
        "silent_us_per_task": silent_s / count * 1e6,
        "tasks": count,
    }


def _variant(tasks: int, logs: bool, budget_s: float) -> dict[str, object]:
    return {"tasks": tasks, "logs": logs, "budget_s": budget_s}


CASE = Case(
    question="What does a task cost that prints a line of 100 bytes?",
    metric="talking_us_per_task",
    better="lower",
    run=run,
    full={
        "10 000 lines, logs off where they can be": _variant(10_000, False, 4.0),
        "10 000 lines, logs on": _variant(10_000, True, 4.0),
    },
    quick={
        "1 000 lines, logs off where they can be": _variant(1_000, False, 1.0),
        "1 000 lines, logs on": _variant(1_000, True, 1.0),
    },
    tiny={"5 lines, logs on": _variant(5, True, 1.0)},
    fresh=True,
    size="tasks",
    note=(
        "Ours has its logs on in both tables: it cannot do without. Only Ray has a switch "
        "(`log_to_driver`); with all others a line goes where the worker's output goes."
    ),
)
