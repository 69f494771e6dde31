"""Interleaved rounds, every peer in a fresh process each time, with a time limit.

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
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, memory
from benchmarks.case import Case, Size

ROOT: Final = Path(__file__).resolve().parent.parent
PR_SET_CHILD_SUBREAPER: Final = 36
STRIKES: Final = 2
"""A peer that has failed so often is not asked again in later rounds."""

LEAST_ROUNDS: Final = 3
SHARE_S: Final = 10.0
"""A peer that has used so many seconds for a case has no more rounds of it, after the least."""

AT_ONCE: Final = 5
"""Cases that take turns together: few, so that ours and a peer's row are minutes apart at most."""

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
    size: Size
    workers: int = 2
    settle_s: float = 5.0
    limit_s: float | None = None
    """Replaces the limit of every case."""


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


@dataclass(frozen=True, slots=True)
class Ask:
    """One set of parameters of one case."""

    case: str
    variant: str
    params: Mapping[str, Any]
    limit_s: float


def _wait(process: subprocess.Popen[bytes], answers: Path, asks: Sequence[Ask]) -> int | None:
    """Exit status of a measuring process; None: what it was at took longer than its limit."""
    told, limit_s = -1, 0.0
    since = time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1.0)
        now_told = answers.read_text().count("\n") if answers.exists() else 0
        if now_told != told:
            told, since = now_told, time.monotonic()
            # After the last answer the peer stops, and may take as long again.
            limit_s = asks[min(told, len(asks) - 1)].limit_s
        if time.monotonic() - since > limit_s:
            return None


def measure_once(
    peer: str, asks: Sequence[Ask], workers: int, settle_s: float, env: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One process, from start to the last of its daemons gone; its answers, and the load.

    Fewer answers than questions: the process ended early, and the last answer says how.
    """
    load_before = machine.settle(settle_s)
    busy, own, begin = machine.busy_seconds(), _children_cpu_s(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        answers, errors = Path(folder, "answers.jsonl"), Path(folder, "stderr")
        order = {
            "peer": peer,
            "workers": workers,
            "asked": [{"case": ask.case, "params": dict(ask.params)} for ask in asks],
            "answers": str(answers),
        }
        # What calls print goes to a file, as that of a batch job does.
        with errors.open("wb") as stderr, Path(folder, "stdout").open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.measure", json.dumps(order)],
                cwd=folder,  # peers drop files where they stand
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
            status = _wait(process, answers, asks)
            if status is None:
                end_leftovers(0.0)
                process.wait()
        seconds = time.perf_counter() - begin
        leftovers = end_leftovers(GRACE_S)
        said = (
            [json.loads(line) for line in answers.read_text().splitlines()]
            if answers.exists()
            else []
        )
        if len(said) < len(asks):
            if status is None:
                limit_s = asks[len(said)].limit_s
                said.append({"outcome": "over budget", "detail": f"more than {limit_s:g} s"})
            else:
                lines = errors.read_text(errors="replace").strip().splitlines() or ["no message"]
                detail = f"status {status}: {lines[-1]}"[:300]
                said.append({"outcome": "failed", "detail": detail})
    whole = time.perf_counter() - begin
    others = machine.busy_seconds() - busy - (_children_cpu_s() - own)
    shared = {
        "process_s": round(seconds, 3),
        "leftovers": leftovers,
        "load_before": round(load_before, 3),
        "load_during": round(max(0.0, others / whole), 3),
    }
    return [{name: v for name, v in one.items() if name != "number"} | shared for one in said]


class Rounds:
    """Who is asked what, round after round, and who has had enough."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._strikes: Counter[tuple[str, str, str]] = Counter()
        self._spent_s: defaultdict[tuple[str, str], float] = defaultdict(float)

    def asks(self, name: str, peer: str, number: int) -> list[Ask]:
        """What a peer is asked of a case in a round."""
        case = self.plan.cases[name]
        if (case.only and peer not in case.only) or (peer == "bare" and not case.bare):
            return []
        if number >= LEAST_ROUNDS and self._spent_s[name, peer] > SHARE_S:
            return []
        return [
            Ask(name, variant, params, self.plan.limit_s or case.limit_s)
            for variant, params in case.variants(self.plan.size).items()
            if self._strikes[name, variant, peer] < STRIKES
        ]

    def groups(self, names: Sequence[str], peer: str, number: int) -> Iterator[list[Ask]]:
        """What may be asked in one process."""
        together: dict[bool, list[Ask]] = {}
        for name in names:
            case = self.plan.cases[name]
            for ask in self.asks(name, peer, number):
                if case.fresh == "always" or (case.fresh and self.plan.size == "full"):
                    yield [ask]
                else:
                    together.setdefault(case.started, []).append(ask)
        yield from together.values()

    def asked(self, ask: Ask) -> dict[str, Any]:
        """How much was asked for, where it may be cut."""
        size = self.plan.cases[ask.case].size
        return {"asked": ask.params[size]} if size else {}

    def note(self, peer: str, ask: Ask, said: Mapping[str, Any]) -> None:
        """Keep count of failures."""
        if said["outcome"] != "ok":
            # A failure may be chance; the other outcomes would only come again.
            again = 1 if said["outcome"] == "failed" else STRIKES
            self._strikes[ask.case, ask.variant, peer] += again

    def spend(self, peer: str, asks: Sequence[Ask], said: Sequence[Mapping[str, Any]]) -> None:
        """Keep count of time: a case's own, and its part of what starting and stopping took."""
        own = [float(one.get("seconds", 0.0)) for one in said]
        shared_s = (said[0]["process_s"] - sum(own)) / len(said)
        for ask, seconds in zip(asks, own, strict=True):
            self._spent_s[ask.case, peer] += seconds + shared_s


def neighbours(cases: Mapping[str, Case]) -> list[list[str]]:
    """Cases that follow each other and may share a process, a few at a time."""
    found: list[list[str]] = []
    before: Case | None = None
    for name, case in cases.items():
        alike = before and not (before.fresh or case.fresh) and before.started == case.started
        if alike and len(found[-1]) < AT_ONCE:
            found[-1].append(name)
        else:
            found.append([name])
        before = case
    return found


def run(plan: Plan) -> Iterator[dict[str, Any]]:
    """All measurements of a plan, in the order they are made.

    A few neighbouring cases with all their rounds, then the next. At small sizes all cases at once:
    most of the time would go into starting peers.
    """
    adopt_orphans()
    rounds = Rounds(plan)
    batches = neighbours(plan.cases) if plan.size == "full" else [list(plan.cases)]
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as cache:
        env = environment(cache)
        for names in batches:
            peers = [p for p in plan.peers if any(rounds.asks(name, p, 0) for name in names)]
            for number in range(plan.rounds):
                turn = number % max(1, len(peers))
                for peer in peers[turn:] + peers[:turn]:
                    for group in rounds.groups(names, peer, number):
                        waiting = group
                        while waiting:
                            said = measure_once(peer, waiting, plan.workers, plan.settle_s, env)
                            rounds.spend(peer, waiting[: len(said)], said)
                            for ask, one in zip(waiting, said, strict=False):
                                rounds.note(peer, ask, one)
                                yield {
                                    "kind": "measurement",
                                    "case": ask.case,
                                    "variant": ask.variant,
                                    "peer": peer,
                                    "round": number,
                                    **rounds.asked(ask),
                                    **one,
                                }
                            # A process that ended early is not the fault of those behind.
                            waiting = waiting[len(said) :]
