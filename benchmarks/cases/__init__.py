"""The cases by name: one question per file."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from benchmarks.case import Case

NAMES: Final = (
    "physical_limits",
    "cold_import",
    "first_result",
    "round_trip",
    "chain",
    "tree",
    "noop",
    "noop_map",
    "fan_out",
    "many_outputs",
    "fan_in",
    "shared_array",
    "large_results",
    "medium_results",
    "granularity",
    "task_bench",
    "pi",
    "nested",
    "joblib_backends",
    "logs",
    "logs_on",
    "memory_idle",
    "memory_tasks",
    "scheduler_alone",
    "page_on",
    "table_of_attempts",
    "cost_of_a_call",
    "executor",
    "io_bound",
)
"""In the order in which they are asked; small ones first where they share a process."""


def load(name: str) -> Case:
    """The case of that name."""
    case: Case = import_module(f"benchmarks.cases.{name}").CASE
    return case
