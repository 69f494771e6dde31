"""Kill a random worker again and again: what is lost, what is done twice, what it costs.

`python -m benchmarks.chaos` runs each system twice, undisturbed and under fire, each time in a
process of its own. The killer stands outside, in this process. It knows workers by the ledger in
which each attempt signs, so the same code strikes all systems; a worker that is starting, and has
run nothing yet, is left alone. A strike counts when the process was alive before and ended after.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, memory, peers, runner
from benchmarks.under_fire import ANSWER, COLLECTED, LEDGER, WAYS

STARTING_S: Final = 120.0
"""Time for a system to bring up its workers and run its first task."""

BEYOND: Final = (4.0, 60.0)
"""Under fire a system has so many times its undisturbed time, and so many seconds more."""

STOPPING_S: Final = 30.0
"""Time for a system to stop once it has delivered."""

LOOK_S: Final = 0.02
"""How often the ledger is read."""

MANY: Final = 4
"""From so many attempts on, tasks are counted together."""

DRIVER: Final = "benchmarks.under_fire"

COLUMNS: Final = (
    "system",
    "lost / duplicated / wrong results",
    "undisturbed, s",
    "under fire, s",
    "added",
    "kills",
    "tasks by number of attempts",
    "begun again after their end",
    "overlaps",
)

Record = Mapping[str, Any]


class Ledger:
    """Reads what attempts sign, as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._rest = b""
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.overlaps = 0
        self.again = 0  # begun although an attempt had come to its end

    def news(self) -> list[int]:
        """Processes that have signed since the last look."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
            self._position += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            return [self._note(*line.split()) for line in lines]
        return []

    def _note(self, index_text: bytes, pid: bytes, sign: bytes) -> int:
        index = int(index_text)
        if sign == b"ends":
            self.ended[index] += 1
        else:
            self.again += self.ended[index] > 0
            self.begun[index] += 1
            self.overlaps += sign == b"overlaps"
        return int(pid)


class Killer:
    """Ends random workers, and sees to it that they end."""

    def __init__(self, chance: random.Random, driver: int) -> None:
        self._chance = chance
        self._driver = driver
        self._workers: dict[int, int] = {}  # pid -> its process descriptor
        self.killed = 0
        self.missed = 0  # times when no worker was to be found

    def meet(self, pids: Sequence[int]) -> None:
        """Remember workers. A descriptor stays that process's, whoever gets the number next."""
        new = set(pids) - self._workers.keys()
        below = memory.descendants(os.getpid()) if new else ()
        for pid in new.intersection(below) - {self._driver}:
            with suppress(ProcessLookupError):
                self._workers[pid] = os.pidfd_open(pid)
        for pid, descriptor in list(self._workers.items()):
            if _ended(descriptor, 0):
                os.close(self._workers.pop(pid))

    def strike(self) -> None:
        """Kill one."""
        if not self._workers:
            self.missed += 1
            return
        descriptor = self._workers[self._chance.choice(sorted(self._workers))]
        if _ended(descriptor, 0):
            self.missed += 1
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        self.killed += _ended(descriptor, 5.0)

    def close(self) -> None:
        for descriptor in self._workers.values():
            os.close(descriptor)


def _ended(descriptor: int, limit_s: float) -> bool:
    return bool(select.select([descriptor], [], [], limit_s)[0])


@dataclass(frozen=True, slots=True)
class Trial:
    """One system, once."""

    system: str
    tasks: int
    task_s: float
    spin: bool
    workers: int
    every_s: float | None
    """Mean time between two kills; None: nobody is killed."""

    limit_s: float
    settle_s: float
    seed: int


def watch(
    trial: Trial, process: subprocess.Popen[bytes], folder: Path, killer: Killer
) -> tuple[Ledger, float, bool]:
    """Strike until all results have come; the ledger, seconds, and whether it was in time."""
    ledger = Ledger(folder / LEDGER)
    chance = random.Random(trial.seed)
    begun = due = 0.0
    end = time.monotonic() + STARTING_S
    while process.poll() is None and not (folder / COLLECTED).exists():
        now = time.monotonic()
        if now > end:
            return ledger, trial.limit_s, False
        news = ledger.news()
        if news and not begun:
            begun = now
            end = now + trial.limit_s
            due = now + (trial.every_s or 0.0)
        wait_s = LOOK_S
        if trial.every_s is not None and begun:
            killer.meet(news)
            if now >= due:
                killer.strike()
                # Not in step with the tasks, which all take the same time.
                due += trial.every_s * chance.uniform(0.5, 1.5)
            wait_s = min(wait_s, max(0.0, due - time.monotonic()))
        time.sleep(wait_s)
    ledger.news()
    return ledger, time.monotonic() - begun, True


def _start(trial: Trial, folder: Path) -> subprocess.Popen[bytes]:
    order = {**asdict(trial), "folder": str(folder)}
    with (folder / "stderr").open("wb") as stderr:
        return subprocess.Popen(
            # Imported, not run as a file: what it defines must not be of `__main__`.
            [sys.executable, "-c", f"from {DRIVER} import main; main()", json.dumps(order)],
            cwd=folder,  # systems drop files where they stand
            env=runner.environment(str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )


def _said(trial: Trial, folder: Path, ledger: Ledger, seconds: float, over: bool) -> dict[str, Any]:
    if (folder / ANSWER).exists():
        return {"outcome": "ok", **json.loads((folder / ANSWER).read_text())}
    left = trial.tasks - len(ledger.ended)
    if over:
        detail = f"{left} of {trial.tasks} tasks were not done after {seconds:.0f} s"
        return {"outcome": "did not finish", "detail": detail}
    lines = (folder / "stderr").read_text(errors="replace").strip().splitlines() or ["no message"]
    return {"outcome": "failed", "detail": f"{left} tasks were not done: {lines[-1]}"[:300]}


def run_once(trial: Trial) -> dict[str, Any]:
    """From the start of a system to the last of its processes gone."""
    load_before = machine.settle(trial.settle_s)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        process = _start(trial, folder)
        killer = Killer(random.Random(trial.seed), process.pid)
        in_time = False
        try:
            ledger, seconds, in_time = watch(trial, process, folder, killer)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOPPING_S if in_time else 0.0)
        finally:
            killer.close()
            leftovers = runner.end_leftovers(runner.GRACE_S if in_time else 0.0)
            process.wait()
        said = _said(trial, folder, ledger, seconds, not in_time)
    return {
        "kind": "measurement",
        **asdict(trial),
        **said,
        "killed": killer.killed,
        "nobody_to_kill": killer.missed,
        "attempts": dict(sorted(Counter(ledger.begun.values()).items())),
        "begun": ledger.begun.total(),
        "done_again": ledger.again,
        "overlaps": ledger.overlaps,
        "leftovers": leftovers,
        "load_before": round(load_before, 3),
    }


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each system undisturbed, then under fire."""
    runner.adopt_orphans()
    for system in options.systems:
        trial = Trial(
            system,
            options.tasks,
            options.seconds,
            options.spin,
            options.workers,
            None,
            4 * options.tasks * options.seconds / options.workers + 60,
            options.settle,
            options.seed,
        )
        calm = run_once(trial)
        yield calm
        if calm["outcome"] == "ok":
            times, more = BEYOND
            limit_s = times * calm["seconds"] + more
            yield run_once(replace(trial, every_s=options.every / 1000, limit_s=limit_s))


def _cells(calm: Record, fire: Record | None) -> list[str]:
    if fire is None:
        said = calm.get("detail", "not come to")  # it was interrupted before
        return [f"{calm['outcome']}: {said}", *[""] * (len(COLUMNS) - 2)]
    folded: Counter[str] = Counter()
    for number, count in fire["attempts"].items():
        folded[str(number) if int(number) < MANY else f"{MANY} and more"] += count
    attempts = ", ".join(f"{number}: {count:,}" for number, count in folded.items())
    ledger = [
        f"{fire['killed']:,}",
        attempts,
        f"{fire['done_again']:,}",
        f"{fire['overlaps']:,}",
    ]
    if fire["outcome"] != "ok":
        return [f"{fire['outcome']}: {fire['detail']}", f"{calm['seconds']:.1f}", "", "", *ledger]
    results = f"{fire['lost']:,} / {fire['duplicated']:,} / {fire['wrong']:,}"
    added = fire["seconds"] / calm["seconds"] - 1
    times = [f"{calm['seconds']:.1f}", f"{fire['seconds']:.1f}", f"{added:+.1%}"]
    return [results, *times, *ledger]


def render(records: Sequence[Record]) -> str:
    """The table."""
    found = [record for record in records if record["kind"] == "measurement"]
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for system in dict.fromkeys(record["system"] for record in found):
        own = [record for record in found if record["system"] == system]
        fire = own[1] if len(own) > 1 else None
        name = system
        if fire is not None and fire.get("broken"):
            name += f" (made anew {fire['broken']:,} times)"
        cells = [cell.replace("|", "/").replace("\n", " ") for cell in _cells(own[0], fire)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _systems(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in WAYS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return names


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=0.02, help="that one task takes")
    parser.add_argument("--spin", action="store_true", help="tasks compute; else they sleep")
    parser.add_argument("--every", type=float, default=200, help="milliseconds between kills, mean")
    parser.add_argument("--systems", type=_systems, default=list(WAYS), help=", ".join(WAYS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of whom is killed, and when")
    parser.add_argument("--settle", type=float, default=5.0, help="wait at most so long for quiet")
    parser.add_argument("--json", type=Path, help="append all measurements to this file")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; the status says whether ours kept its promise."""
    options = _arguments()
    records: list[dict[str, Any]] = []

    def keep(record: dict[str, Any]) -> None:
        records.append(record)
        text = json.dumps(record)
        print(text, file=sys.stderr, flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(text + "\n")

    versions = {name: machine.version(peers.load(name).package) for name in options.systems}
    keep({"kind": "machine", **machine.describe(), "versions": versions})
    try:
        for record in run(options):
            keep(record)
    except KeyboardInterrupt:
        runner.end_leftovers(0.0)
        print("interrupted; what was measured so far:", file=sys.stderr)
    print(render(records))
    broken = [r for r in records if r.get("system") == "mars" and not _kept(r)]
    return 1 if broken else 0


def _kept(record: Record) -> bool:
    sums = [record.get(name, 1) for name in ("lost", "duplicated", "wrong", "overlaps")]
    return record["outcome"] == "ok" and not any(sums)


if __name__ == "__main__":
    sys.exit(main())
