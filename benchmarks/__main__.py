"""Command line of the benchmarks: what to run, and where the results go."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import cases, machine, peers, runner
from benchmarks.case import Size
from benchmarks.report import headline, read, render

SETTLE_S: Final[dict[Size, float]] = {"full": 5.0, "quick": 1.0, "tiny": 0.0}


def _names(text: str, known: Sequence[str], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"unknown {what}: {', '.join(unknown)}; known: {', '.join(known)}")
    return names


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes, one round")
    size.add_argument("--tiny", action="store_true", help="does every case work? no numbers")
    parser.add_argument("--cases", default=",".join(cases.NAMES), help="comma separated")
    parser.add_argument("--peers", default=",".join(peers.NAMES), help="comma separated")
    parser.add_argument("--rounds", type=int, help="default: 5, small sizes 1")
    parser.add_argument("--limit", type=float, help="seconds for one measurement")
    parser.add_argument("--settle", type=float, help="wait at most so many seconds for quiet")
    parser.add_argument(
        "--json",
        type=Path,
        help="append all measurements to this file; tables go beside it, as .md",
    )
    parser.add_argument("--list", action="store_true", help="list cases and peers, and stop")
    return parser.parse_args()


def main() -> None:
    """Run what was asked for; tables go to standard output, progress to standard error."""
    options = _arguments()
    if options.list:
        for name in cases.NAMES:
            print(f"{name:18} {cases.load(name).question}")
        print("\npeers:", ", ".join(peers.NAMES))
        return
    # The machine's own limits belong to every run.
    peer_names = list(dict.fromkeys([*_names(options.peers, peers.NAMES, "peers"), "bare"]))
    size: Size = "quick" if options.quick else "tiny" if options.tiny else "full"
    if options.json and options.json.exists():
        held = {head["size"] for head in read([options.json]) if head["kind"] == "machine"}
        if held - {size}:
            sys.exit(f"{options.json} holds a run of {held.pop()} sizes; this one is {size}")
    plan = runner.Plan(
        cases={name: cases.load(name) for name in _names(options.cases, cases.NAMES, "cases")},
        peers=peer_names,
        rounds=options.rounds or (5 if size == "full" else 1),
        size=size,
        settle_s=options.settle if options.settle is not None else SETTLE_S[size],
        limit_s=options.limit,
    )
    head: dict[str, Any] = {
        "kind": "machine",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "size": size,
        "rounds": plan.rounds,
        "workers": plan.workers,
        "commit": machine.commit(runner.ROOT),
        **machine.describe(),
        "versions": {name: machine.version(peers.load(name).package) for name in peer_names},
    }
    records: list[dict[str, Any]] = []
    begin = time.monotonic()

    def keep(record: dict[str, Any]) -> None:
        records.append(record)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            with options.json.open("a") as file:
                file.write(json.dumps(record) + "\n")

    keep(head)
    try:
        for record in runner.run(plan):
            keep(record)
            print(headline(record), file=sys.stderr, flush=True)
        keep({"kind": "end", "seconds": round(time.monotonic() - begin)})
    except KeyboardInterrupt:
        runner.end_leftovers(0.0)
        print("interrupted; what was measured so far:", file=sys.stderr)
    # With what the file held before: a run may be made in pieces.
    text = render(read([options.json]) if options.json else records)
    if options.json:
        options.json.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
