"""Memory at rest."""

from __future__ import annotations

import gc
import os
import time

from benchmarks import memory
from benchmarks.case import Case, Metrics, Params
from benchmarks.peer import Peer

MIB = 1024**2
REST_S = 0.5
"""Time for a runtime to put away what the warm-up needed."""


def run(peer: Peer, params: Params) -> Metrics:
    """Proportional set size of all processes, after some calls on every worker."""
    gc.collect()
    time.sleep(REST_S)
    whole, processes = memory.tree_pss_bytes()
    return {
        "pss_mib": whole / MIB,
        "driver_pss_mib": memory.pss_bytes(os.getpid()) / MIB,
        "processes": processes,
    }


CASE = Case(
    question="How much memory do the driver and its idle workers take?",
    metric="pss_mib",
    better="lower",
    run=run,
    full={"after warm-up": {}},
    quick={"after warm-up": {}},
    tiny={"after warm-up": {}},
    fresh="always",
)
