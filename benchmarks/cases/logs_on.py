"""Tasks that print, with logs that reach the user."""

from __future__ import annotations

from benchmarks.case import Case
from benchmarks.cases import logs

CASE = Case(
    question="What does a task cost that prints 100 bytes, where a user gets to see them?",
    metric="talking_us_per_task",
    better="lower",
    run=logs.run,
    full={"10 000 lines": {"tasks": 10_000, "budget_s": 3.0, "logs": True}},
    quick={"1 000 lines": {"tasks": 1_000, "budget_s": 0.5, "logs": True}},
    tiny={"5 lines": {"tasks": 5, "budget_s": 1.0, "logs": True}},
    fresh="always",
    only=("mars", "ray"),
    size="tasks",
    note="Ours as it comes; Ray with `log_to_driver=True`, its default. No other peer does this.",
)
