"""Start of an interpreter, with the import."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.case import Case, Metrics, Params, seconds_for
from benchmarks.peer import Peer


def interpreter(program: str) -> None:
    """Run a program to its end."""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(last)


def run(peer: Peer, params: Params) -> Metrics:
    """Median of several interpreters; the first one fills the page cache and is not counted."""
    interpreter(peer.import_line)
    times = [seconds_for(lambda: interpreter(peer.import_line)) for _ in range(params["times"])]
    bare = [seconds_for(lambda: interpreter("pass")) for _ in range(params["times"])]
    whole_s, bare_s = statistics.median(times), statistics.median(bare)
    return {"whole_ms": whole_s * 1e3, "import_alone_ms": (whole_s - bare_s) * 1e3}


CASE = Case(
    question="How long does a fresh interpreter take to start and import the library?",
    metric="whole_ms",
    bare="an interpreter that imports nothing",
    better="lower",
    run=run,
    full={"warm page cache": {"times": 3}},
    quick={"warm page cache": {"times": 1}},
    tiny={"warm page cache": {"times": 1}},
    started=False,
)
