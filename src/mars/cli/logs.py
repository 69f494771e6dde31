"""``mars logs``: what a call of a running session prints, as it prints it. Called by `mars.cli`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

from mars.cli.live import add_session, ask, chosen, lines_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars logs`` understands."""
    add_session(parser)
    parser.add_argument("call", help="name of the call, or its key as `mars calls` prints it")
    parser.add_argument("--follow", action="store_true", help="go on until the call has ended")


def run(options: Namespace) -> int:
    """Print the log; 1 if there is no such call, or no page."""
    page = chosen(options)
    if page is None:
        return 1
    try:
        ask(page, "/api/overview")
        told = ask(page, "/api/calls")
        words = told["words"]
        named = [row[0] for row in told["rows"] if options.call in (row[0], words[row[1]])]
        if not named:
            print(f"no call is named {options.call!r}; `mars calls` lists them", file=sys.stderr)
            return 1
        kind = ""
        for line in lines_of(page, f"/api/log?call={quote(named[0])}"):
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: ") and kind == "log":
                print(json.loads(line[6:])["text"], end="", flush=True)
            if kind == "end" or (line.startswith(": ") and not options.follow):
                break
    except OSError as error:
        print(f"the page of program {page.pid} says nothing of it: {error}", file=sys.stderr)
        return 1
    return 0
