"""``mars runs``: what a checkpoint holds, why a call ran again, what is damaged, what can go.

Called by `mars.cli`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mars.checkpoint.history import Damaged, History, PastCall
from mars.checkpoint.upkeep import damages, prune
from mars.checkpoint.why import differences, nearest
from mars.errors import CheckpointBusy, CheckpointUnusable
from mars.observe.progress import format_duration, write_line

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars runs`` understands."""
    parser.usage = "mars runs [-h] {list,show,why,prune,verify} DIR ..."
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="action", prog="mars runs",
        help="list, show, why, prune or verify",
    )  # fmt: skip
    for name, purpose in (
        ("list", "runs and functions, with counts, times and sizes"),
        ("show", "one call: what it is, when it ran, what it printed"),
        ("why", "what differs between a call and the most similar one of an earlier run"),
        ("prune", "remove what the last run neither used nor made"),
        ("verify", "look at every byte, and load each result, which runs code"),
    ):
        action = actions.add_parser(name, help=purpose, description=purpose)
        action.add_argument("where", metavar="DIR", help="folder or URL of the checkpoint")
        if name in ("show", "why"):
            action.add_argument(
                "call", metavar="CALL", help="a name, name#place, or how its key begins"
            )
        if name == "verify":
            add_trust(action)
        if name == "prune":
            action.add_argument(
                "--runs", type=int, default=1, help="how many runs count (default: 1)"
            )


def add_trust(parser: ArgumentParser) -> None:
    """Add ``--trust``."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="the folder is another user's, and code that is in it may run with your rights",
    )


def run(options: Namespace) -> int:
    """Do what was asked; 1 when something is damaged, busy or not there."""
    try:
        if options.action == "prune":
            return _prune(options)
        history = History(options.where)
    except (CheckpointUnusable, CheckpointBusy) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        return _ACTIONS[options.action](history, options)
    except CheckpointUnusable as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        history.close()


def _list(history: History, options: Namespace) -> int:
    print(f"{options.where}: {len(history.entries):,} calls, {len(history.runs)} run(s)\n")
    rows: list[tuple[str, ...]] = [("run", "began", "program", "kept", "reused", "saved")]
    for one in history.runs:
        facts = one.facts
        rows.append(
            (
                str(one.number),
                _date(facts.get("at")),
                " ".join([*facts.get("program", ["?"])])[-40:],
                f"{one.executed:,}",
                f"{one.reused:,}",
                format_duration(one.saved_s),
            )
        )
    _table(rows)
    functions: dict[str, list[float]] = {}
    for entry in history.entries.values():
        sums = functions.setdefault(entry.name, [0, 0.0, 0])
        sums[0] += 1
        sums[1] += entry.seconds
        sums[2] += history.size(entry)
    print()
    rows = [("function", "calls", "time", "size")]
    for name, (count, seconds, size) in sorted(functions.items()):
        rows.append((name, f"{count:,}", format_duration(seconds), _size(size)))
    _table(rows)
    if history.failures:
        print(f"\n{len(history.failures)} failed call(s), for mars replay")
    return 0


def _show(history: History, options: Namespace) -> int:
    entry = _one(history, options.call)
    if entry is None:
        return 1
    print(f"{entry.name}, key {entry.key.hex()}{', failed' if entry.failed else ''}")
    print(f"  ran in run {entry.run.number}, {_date(entry.found.started)}, ", end="")
    print(f"for {format_duration(entry.seconds)}")
    print(f"  result: {_size(history.size(entry))}")
    print(f"  place: {'.'.join(map(str, entry.place))}")
    for position, digest in enumerate(entry.arguments):
        print(f"  argument {entry.label(position)}: {digest.hex()}")
    for beginning, index in entry.inputs:
        source = history.input(beginning)
        name = "?" if source is None else source.name
        print(f"  input: value {index} of {name} ({beginning.hex()})")
    for part, digest in sorted(entry.code.get("parts", {}).items()):
        print(f"  {part}: {digest}")
    try:
        log = history.log(entry)
    except Damaged:
        print("its record is damaged", file=sys.stderr)
        return 1
    if log:
        print("  printed:")
        for line in log.decode("utf-8", "replace").splitlines():
            print(f"    {line}")
    return 0


def _why(history: History, options: Namespace) -> int:
    entry = _one(history, options.call)
    if entry is None:
        return 1
    other = nearest(history, entry)
    about = f"{entry.name} ({entry.key.hex()[:8]}, run {entry.run.number})"
    if other is None:
        print(f"{about} ran because no earlier run has a call of that name")
        return 0
    print(f"{about} is not {other.key.hex()[:8]} of run {other.run.number} because")
    for line in differences(history, other, entry):
        print(f"  {line}")
    return 0


def _verify(history: History, options: Namespace) -> int:
    history.trust("mars runs verify", given=options.trust)
    found = damages(history)
    for line in found:
        print(line)
    print(f"{options.where}: {len(history.entries):,} calls, {len(found)} problem(s)")
    return 1 if found else 0


def _prune(options: Namespace) -> int:
    if options.runs < 1:
        print("--runs has to be 1 or more", file=sys.stderr)
        return 2
    gone, free = prune(options.where, options.runs, write_line)
    print(f"{options.where}: {gone:,} record(s) removed, {_size(free)} free")
    return 0


def _one(history: History, text: str) -> PastCall | None:
    found = history.find(text)
    if not found:
        print(f"no call here is meant by {text!r}; mars runs list has the names", file=sys.stderr)
        return None
    if len(found) > 1:
        print(f"{len(found)} calls are meant by {text!r}; this is the latest", file=sys.stderr)
    return found[-1]


_ACTIONS: dict[str, Callable[[History, Namespace], int]] = {
    "list": _list,
    "show": _show,
    "why": _why,
    "verify": _verify,
}


def _date(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return ""


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
