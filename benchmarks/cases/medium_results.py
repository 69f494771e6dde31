"""Many results of medium size."""

from __future__ import annotations

from benchmarks.case import Case
from benchmarks.cases import large_results

CASE = Case(
    question="How fast do many results of a megabyte reach the driver?",
    metric="gb_per_s",
    limit="memcpy_gb_per_s",
    better="higher",
    run=large_results.run,
    full={"1 000 x 1 MiB": {"mib": 1, "results": 1_000}},
    quick={"100 x 1 MiB": {"mib": 1, "results": 100}},
    tiny={"3 x 1 MiB": {"mib": 1, "results": 3}},
    fresh="full",
)
