"""Interleaved rounds, every measurement a fresh process with a time limit.

Round after round goes through all peers, each time beginning with another one, so that a slow
minute of the machine falls on everybody. What a measurement leaves behind is ended before the
next one starts; only processes that this one started are touched.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, memory
from benchmarks.case import Case

ROOT: Final = Path(__file__).resolve().parent.parent
PR_SET_CHILD_SUBREAPER: Final = 36
STRIKES: Final = 2
"""A peer that has failed so often is not asked again in later rounds."""

GRACE_S: Final = 3.0
"""Time for daemons of a peer to follow their driver before they are ended."""

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS",
)
PEER_SETTINGS: Final = {
    "RAY_worker_niceness": "0",  # Ray's default of 15 would hand the machine to everybody else
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    cases: Mapping[str, Case]
    peers: Sequence[str]
    rounds: int
    quick: bool
    workers: int = 2
    settle_s: float = 5.0
    limit_s: float | None = None
    """Replaces the limit of every case."""

    def variants(self, case: Case) -> Mapping[str, Mapping[str, Any]]:
        """The sets of parameters to ask with."""
        return case.quick if self.quick else case.full


def environment(cache: str) -> dict[str, str]:
    """The environment of a measurement; workers of all peers inherit it."""
    env = os.environ | dict.fromkeys(THREAD_VARIABLES, "1") | PEER_SETTINGS
    # Parsl starts programs of its own that stand beside the interpreter.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    if env.pop("PYTHONDONTWRITEBYTECODE", None):
        # Compiling sources at every import is not what a user has. Cached outside the tree.
        env["PYTHONPYCACHEPREFIX"] = cache
    paths = [str(ROOT), str(ROOT / "src"), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return env


def adopt_orphans() -> None:
    """Make daemons whose parent ended our children, so that they can be counted and ended."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_leftovers(grace_s: float) -> int:
    """End all that is still below this process; how many had to be ended."""
    end = time.monotonic() + grace_s
    while (left := memory.descendants(os.getpid())) and time.monotonic() < end:
        _reap()
        time.sleep(0.02)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while memory.descendants(os.getpid()):
        _reap()
        time.sleep(0.01)
    return len(left)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_once(
    order: Mapping[str, Any], limit_s: float, settle_s: float, env: Mapping[str, str]
) -> dict[str, Any]:
    """One process, from start to the last of its daemons gone; what it said, and the load."""
    load_before = machine.settle(settle_s)
    busy, own, begin = machine.busy_seconds(), _children_cpu_s(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        answer, errors = Path(folder, "answer.json"), Path(folder, "stderr")
        full_order = {**order, "answer": str(answer)}
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.measure", json.dumps(full_order)],
                cwd=folder,  # peers drop files where they stand
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            try:
                status = process.wait(limit_s)
                over = False
            except subprocess.TimeoutExpired:
                over = True
                end_leftovers(0.0)
                status = process.wait()
        seconds = time.perf_counter() - begin
        leftovers = end_leftovers(GRACE_S)
        said: dict[str, Any]
        if answer.exists():
            said = json.loads(answer.read_text())
        elif over:
            said = {"outcome": "over budget", "detail": f"more than {limit_s:g} s"}
        else:
            lines = errors.read_text(errors="replace").strip().splitlines() or ["no message"]
            said = {"outcome": "failed", "detail": f"status {status}: {lines[-1]}"[:300]}
    whole = time.perf_counter() - begin
    others = machine.busy_seconds() - busy - (_children_cpu_s() - own)
    return said | {
        "seconds": round(seconds, 3),
        "leftovers": leftovers,
        "load_before": round(load_before, 3),
        "load_during": round(max(0.0, others / whole), 3),
    }


def run(plan: Plan) -> Iterator[dict[str, Any]]:
    """All measurements of a plan, in the order they are made."""
    adopt_orphans()
    strikes: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as cache:
        env = environment(cache)
        for case_name, case in plan.cases.items():
            peers = [peer for peer in plan.peers if not case.only or peer in case.only]
            for number in range(plan.rounds):
                turn = number % max(1, len(peers))
                for variant, params in plan.variants(case).items():
                    for peer in peers[turn:] + peers[:turn]:
                        if strikes[case_name, variant, peer] >= STRIKES:
                            continue
                        order = {
                            "case": case_name,
                            "peer": peer,
                            "workers": plan.workers,
                            "params": params,
                        }
                        limit_s = plan.limit_s or case.limit_s
                        said = measure_once(order, limit_s, plan.settle_s, env)
                        if said["outcome"] != "ok":
                            # A failure may be chance; the other outcomes would only come again.
                            again = 1 if said["outcome"] == "failed" else STRIKES
                            strikes[case_name, variant, peer] += again
                        yield {
                            "kind": "measurement",
                            "case": case_name,
                            "variant": variant,
                            "peer": peer,
                            "round": number,
                            "params": dict(params),
                            **said,
                        }
