"""``mars calls``: the calls of a running session. Called by `mars.cli`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mars.cli.live import add_session, ask, chosen

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_DEFAULT_LINES = 50


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars calls`` understands."""
    add_session(parser)
    parser.add_argument("--find", metavar="TEXT", default="", help="only names that have this text")
    parser.add_argument(
        "--lines", type=int, default=_DEFAULT_LINES, help=f"at most so many; {_DEFAULT_LINES}"
    )


def run(options: Namespace) -> int:
    """Print calls, those under way first, then the newest; 1 if there is no session."""
    found = chosen(options)
    if found is None:
        return 1
    try:
        told = ask(found, "/api/calls")
    except OSError as error:
        print(f"program {found.pid} does not answer: {error}", file=sys.stderr)
        return 1
    words = told["words"]
    rows = [row for row in told["rows"] if options.find in words[row[1]]]
    print(f"{'call':32}  {'state':18}  {'seconds':>10}  name")
    for row in rows[: options.lines]:
        seconds = "" if row[8] is None else f"{row[8]:.3f}"
        state = "done" if row[3] == "value" else row[3]
        print(f"{row[0]:32}  {state:18}  {seconds:>10}  {words[row[1]]}")
    if len(rows) > options.lines:
        print(f"{len(rows) - options.lines} more; --lines shows them")
    return 0
