"""``mars top``: how far the running sessions are, what runs, what failed. Called by `mars.cli`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from mars.cli.findings import size_text
from mars.cli.live import Found, ask, everything
from mars.logs import escape_control
from mars.observe.states import seconds

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Group, RenderableType
    from rich.table import Table

_Json = dict[str, Any]

_EVERY_S: Final = 1.0
_RUNNING: Final = 12
_OTHERS: Final = 6


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars top`` understands."""
    parser.add_argument(
        "--session", metavar="ID", default="", help="beginning of a session's id; default: all"
    )
    parser.add_argument("--once", action="store_true", help="print it once, and end")
    parser.add_argument(
        "--every", type=float, default=_EVERY_S, metavar="SECONDS",
        help=f"how often it is looked at; {_EVERY_S:g}",
    )  # fmt: skip


def run(options: Namespace) -> int:
    """Show the sessions until Ctrl-C, or once; 1 if there is none, or the folder is open."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    try:
        shown, some = _look(options.session, console.height)
        if options.once or not console.is_terminal:
            console.print(shown, highlight=False)
            return 0 if some else 1
        with Live(shown, console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(max(options.every, 0.1))
                shown, _ = _look(options.session, console.height)
                live.update(shown, refresh=True)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0  # this is how one leaves it


def _look(session: str, height: int) -> tuple[Group, bool]:
    """All sessions, and whether there is one."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    sessions = [one for one in everything() if one.session.startswith(session)]
    room = max(3, (height - 4) // max(1, len(sessions)) - 8)
    for found in sessions:
        try:
            told = ask(found, "/api/overview")
        except OSError:  # it has just ended
            continue
        parts += _session(found, told, room)
    if not parts:
        return Group(Text("no program of yours has a session of mars on this machine")), False
    return Group(*parts), True


def _session(found: Found, told: _Json, room: int) -> list[RenderableType]:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    program = escape_control(found.program) or "a program"
    head = Text.assemble(
        (program, "bold"), f"  pid {found.pid}, session {found.session[:8]}", style="default"
    )
    done, failed, total = told["done"], told["failed"], told["total"]
    if told["runs"]:
        far = f"{done:,} of {total:,} done"
        left = f", {_left(told['left'])} left" if told["left"] else ", time left not known yet"
    else:
        far, left = f"{told['ended']:,} call{'s' * (told['ended'] != 1)} done", ""
        total = 0
    failing = max(failed, told["failures"])
    line = Text(f"{far}{left}, {told['busy']:g} of {told['cores']:g} cores busy")
    if failing:
        line.append(f", ✕ {failing:,} failed", "red")
    parts: list[RenderableType] = [head, line]
    if total:
        bar = Table.grid()  # which ends its line, as the bar itself does not
        bar.add_row(ProgressBar(total=total, completed=done + failed, width=60))
        parts.append(bar)
    if told["holds"]:
        parts.append(Text(told["holds"], "dim"))
    nodes = _nodes(told["workers"])
    if len(nodes) > 1:
        parts.append(_nodes_table(nodes))
    if told["running"]:
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("▶ running", overflow="ellipsis", no_wrap=True, ratio=1)
        of = {one["number"]: one for one in told["workers"]}
        for name in ("for", "usual", "worker", "CPU", "memory"):
            table.add_column(name, justify="right", no_wrap=True, min_width=8)
        longest = sorted(told["running"], key=lambda one: -one["for"])
        for one in longest[: min(room, _RUNNING)]:
            usual = seconds(one["expected"]) if one["expected"] else "-"
            table.add_row(
                Text(one["name"]), seconds(one["for"]), usual, str(one["worker"]),
                *_used(of.get(one["worker"], {})),
            )  # fmt: skip
        parts.append(table)
        more = len(longest) - min(room, _RUNNING)
        if more > 0:
            parts.append(Text(f"and {more} more", "dim"))
    for one in told["failing"][-min(room, _OTHERS) :][::-1]:
        why = one["why"] or one["ending"]
        parts.append(Text.assemble(("✕ ", "red"), one["name"], ("  " + why, "dim"), no_wrap=True,
                                   overflow="ellipsis"))  # fmt: skip
    return [*parts, Text()]


def _used(worker: _Json) -> tuple[str, str]:
    """Processor time and memory of a worker's process, for people."""
    if worker.get("memory") is None:
        return "-", "-"
    return f"{100 * worker['cpu']:.0f} %", size_text(worker["memory"])


def _nodes(workers: list[_Json]) -> dict[str, list[_Json]]:
    """The workers of each node."""
    nodes: dict[str, list[_Json]] = {}
    for one in workers:
        nodes.setdefault(one["node"], []).append(one)
    return nodes


def _nodes_table(nodes: dict[str, list[_Json]]) -> Table:
    """What the workers of each node use together."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("node", overflow="ellipsis", no_wrap=True)
    for name in ("workers", "busy", "CPU", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, workers in sorted(nodes.items()):
        processes = {one["pid"]: one for one in workers if one["memory"] is not None}.values()
        cores = f"{sum(one['cpu'] for one in processes):.1f} cores" if processes else "-"
        memory = size_text(sum(one["memory"] for one in processes)) if processes else "-"
        busy = sum(bool(one["call"]) for one in workers)
        table.add_row(Text(name), str(len(workers)), str(busy), cores, memory)
    return table


def _left(left: tuple[float, float | None]) -> str:
    low, high = left
    if high is None:
        return f"over {seconds(low)}"
    return seconds(high) if seconds(low) == seconds(high) else f"{seconds(low)} to {seconds(high)}"


__all__ = ["add_arguments", "run"]
