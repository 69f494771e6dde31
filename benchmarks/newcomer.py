"""Twelve programs of a data scientist, on mars and on what else people use for each.

``python -m benchmarks.newcomer`` runs each program on each system in turns, every run in a fresh
process. Each turn begins with another system. ``--programs 8 9`` chooses programs. It prints the
median seconds with the least and the most, processor seconds and the peak of memory, and how many
times as long as a peer mars takes: the median of the turns' own ratios, so that a slow minute of
the machine falls on both. At the end stands where mars takes longer than its goal allows.

The time is that of the work with the start of workers, without imports and the making of inputs.
Memory is that of all processes of a run, where a page that n processes share counts once.

A program whose packages are not installed is left out, and a line says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import machine, memory
from benchmarks.newcomer_programs import OURS, PROGRAMS, Program
from benchmarks.turns import in_turns, median_ratio, save

GOALS: Final[Mapping[tuple[int, str], float]] = {(8, "threads"): 1.1, (9, "threads"): 1.1}
"""How many times as long as a peer mars may take, where it is not `GOAL`."""
GOAL: Final = 1.05
SAMPLE_S: Final = 0.1
"""Memory is looked at so often while a program runs."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took."""

    seconds: float
    processor_s: float
    peak_mib: float
    """0 if nobody looked."""
    answer: str
    """What the program found, to compare systems by."""


@dataclass(slots=True)
class Row:
    """The turns of one program, by the name of the system."""

    program: Program
    runs: dict[str, list[Run]]
    peak_mib: dict[str, float]

    def ratio(self, peer: str) -> float:
        """How many times as long as a peer mars takes."""
        ours, theirs = ([run.seconds for run in self.runs[name]] for name in (OURS, peer))
        return median_ratio(ours, theirs)


def _watch(process: subprocess.Popen[bytes]) -> int:
    """The most memory that the process and all below it had together, once it has ended."""
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        pids = (process.pid, *memory.descendants(process.pid))
        peak = max(peak, sum(map(memory.pss_bytes, pids)))
        time.sleep(SAMPLE_S)
    return peak


def measured(program: Program, system: str, size: int, watch: bool) -> Run:
    """One run in a fresh process. To look at its memory takes time, so other runs are timed."""
    where = tempfile.mkdtemp(prefix="mars-newcomer-")
    command = [
        sys.executable, "-m", "benchmarks.newcomer_programs",
        str(program.number), system, str(size),
    ]  # fmt: skip
    try:
        with tempfile.TemporaryFile() as printed:
            process = subprocess.Popen(
                command,
                env={**os.environ, "MARS_NEWCOMER_FOLDER": where},
                stdout=printed,
                stderr=printed,
            )
            peak = _watch(process) if watch else 0
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                printed.seek(0)
                tail = printed.read().decode(errors="replace")[-2_000:]
                raise RuntimeError(f"program {program.number} on {system} failed:\n{tail}")
        told = json.loads(Path(where, "told.json").read_text())
    finally:
        shutil.rmtree(where, ignore_errors=True)
    return Run(told["seconds"], used.ru_utime + used.ru_stime, peak / 2**20, told["answer"])


def compared(
    program: Program,
    turns: int,
    size: int,
    run: Callable[[Program, str, int, bool], Run] = measured,
) -> Row:
    """Each turn begins with another system. All systems have to find the same.

    A run before the turns fills the caches of files, and its memory is looked at.
    """
    names = list(program.ways)
    watched = {name: run(program, name, size, True) for name in names}
    answers = {name: one.answer for name, one in watched.items()}
    if len(set(answers.values())) > 1:
        raise AssertionError(f"program {program.number}: systems disagree: {answers}")
    row = Row(program, {name: [] for name in names}, {n: w.peak_mib for n, w in watched.items()})
    for name in in_turns(names, turns):
        row.runs[name].append(run(program, name, size, False))
    return row


# -- what is printed ------------------------------------------------------------------------------


def lines(row: Row) -> Iterator[str]:
    """The rows of the table for one program: one for each system."""
    for system, runs in row.runs.items():
        seconds = [run.seconds for run in runs]
        used = statistics.median(run.processor_s for run in runs)
        ratio = "" if system == OURS else f"{row.ratio(system):.2f}"
        yield (
            f"| {row.program.number} | {row.program.name} | {system} | "
            f"{statistics.median(seconds):.2f} ({min(seconds):.2f} .. {max(seconds):.2f}) | "
            f"{used:.1f} | {row.peak_mib[system]:.0f} | {ratio} |"
        )


def behind(rows: Iterable[Row]) -> Iterator[str]:
    """Where mars takes longer than its goal allows, or more memory where that is part of it."""
    for row in rows:
        for peer in row.program.goals:
            goal = GOALS.get((row.program.number, peer), GOAL)
            if (ratio := row.ratio(peer)) > goal:
                yield (
                    f"program {row.program.number}: {ratio:.2f} times the seconds of {peer}, "
                    f"goal {goal}"
                )
            more = row.peak_mib[OURS] / row.peak_mib[peer]
            if row.program.number == 8 and more > goal:
                yield f"program 8: {more:.2f} times the memory of {peer}, goal {goal}"


def main(argv: list[str] | None = None) -> None:
    """Print the table of all programs, or of those that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.newcomer", description=__doc__)
    numbers = [program.number for program in PROGRAMS]
    parser.add_argument("--programs", nargs="+", type=int, choices=numbers, default=numbers)
    parser.add_argument("--turns", type=int, default=5, help="runs of each system (default: 5)")
    parser.add_argument("--tiny", action="store_true", help="does it work? no numbers")
    parser.add_argument("--json", type=Path, help="also write all runs there")
    options = parser.parse_args(argv)
    busy = machine.busy_cores(1.0)
    print(f"Before, others kept {busy:.1f} of {os.cpu_count()} cores busy.\n")
    print("| # | program | system | seconds (least .. most) | processor s | peak MiB | mars ÷ it |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rows: list[Row] = []
    left_out: list[str] = []
    for program in PROGRAMS:
        if program.number not in options.programs:
            continue
        if missing := [name for name in program.needs if importlib.util.find_spec(name) is None]:
            left_out.append(f"program {program.number} is left out: needs {', '.join(missing)}")
            continue
        size = program.tiny if options.tiny else program.full
        rows.append(compared(program, options.turns, size))
        print("\n".join(lines(rows[-1])), flush=True)
    print("", *left_out, sep="\n")
    if not options.tiny:
        print(*(list(behind(rows)) or ["mars reaches its goal in all of these programs"]), sep="\n")
    if options.json is not None:
        told = [
            {
                "program": row.program.number, "name": row.program.name,
                "runs": {
                    name: [[run.seconds, run.processor_s] for run in runs]
                    for name, runs in row.runs.items()
                },
                "peak_mib": row.peak_mib,
            }
            for row in rows
        ]  # fmt: skip
        save(options.json, busy, told, turns=options.turns)


if __name__ == "__main__":
    main()
