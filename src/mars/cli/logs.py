"""``mars logs``: what a call of a running session prints, as it prints it. Called by `mars.cli`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mars.cli.live import Found, add_session, ask, chosen, lines_of
from mars.observe.states import QUEUED, WAITING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars logs`` understands."""
    add_session(parser)
    parser.add_argument("call", help="name of the call, or its key as `mars calls` prints it")
    parser.add_argument("--follow", action="store_true", help="go on until the call has ended")


def run(options: Namespace) -> int:
    """Print the log; 1 if there is no such call, or no session."""
    found = chosen(options)
    if found is None:
        return 1
    try:
        key = key_of(found, options.call)
        if key is None:
            print(f"no call is named {options.call!r}; `mars calls` lists them", file=sys.stderr)
            return 1
        for part in lines_of(found, "/api/log", call=key, follow=options.follow):
            print(part["text"], end="", flush=True)
    except OSError as error:
        print(f"program {found.pid} says nothing of it: {error}", file=sys.stderr)
        return 1
    return 0


def key_of(found: Found, call: str) -> str | None:
    """The key of the call that is meant: by its key, by its name, else by a part of it.

    Of several, the one that is under way, else the latest.
    """
    told = ask(found, "/api/calls")
    words = told["words"]
    rows = told["rows"]
    named = [row for row in rows if call in (row[0], words[row[1]])]
    if not named:
        named = [row for row in rows if call.lower() in words[row[1]].lower()]
    begun = [row for row in named if row[3] not in (QUEUED, WAITING)]
    return str((begun or named)[0][0]) if named else None


__all__ = ["add_arguments", "key_of", "run"]
