"""From the start of an interpreter to the first result."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.case import Case, Metrics, Params
from benchmarks.peer import Peer


def once(program: Path) -> tuple[float, float]:
    """Seconds to the first line that a program prints, and to its end."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = ""
        while line != "9\n":
            line = process.stdout.readline()
            if not line:
                message = (process.stderr.read().strip().splitlines() or ["no output"])[-1]
                raise RuntimeError(message)
        first_s = time.perf_counter() - begin
        process.communicate()
    return first_s, time.perf_counter() - begin


def run(peer: Peer, params: Params) -> Metrics:
    """Median of as many interpreters as the budget allows.

    A round's first is not left out: the page cache is warm, by `cold_import` or an earlier round.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program.py")
        program.write_text(peer.first_result)
        end = time.perf_counter() + params["budget_s"]
        found = [once(program)]
        while len(found) < params["times"] and time.perf_counter() < end:
            found.append(once(program))
    return {
        "first_result_ms": statistics.median(first for first, _ in found) * 1e3,
        "to_exit_ms": statistics.median(end for _, end in found) * 1e3,
    }


CASE = Case(
    question="How long from the start of a fresh interpreter to the first result of a call?",
    metric="first_result_ms",
    bare="a call without a runtime, in the same process",
    better="lower",
    run=run,
    full={"square(3)": {"times": 3, "budget_s": 1.5}},
    quick={"square(3)": {"times": 3, "budget_s": 0.3}},
    tiny={"square(3)": {"times": 1, "budget_s": 0.0}},
    limit_s=90,
    started=False,
)
