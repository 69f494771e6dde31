"""The cases by name: one question per file, in the order of the results page."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from benchmarks.case import Case

NAMES: Final = (
    "physical_limits",
    "cold_import",
    "first_result",
    "noop",
    "noop_map",
    "round_trip",
    "chain",
    "tree",
    "fan_in",
    "fan_out",
    "many_outputs",
    "shared_array",
    "large_results",
    "medium_results",
    "pi",
    "granularity",
    "task_bench",
    "nested",
    "logs",
    "memory_idle",
    "memory_tasks",
    "scheduler_alone",
)


def load(name: str) -> Case:
    """The case of that name."""
    case: Case = import_module(f"benchmarks.cases.{name}").CASE
    return case
