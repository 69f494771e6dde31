"""``mars dashboard``: the address of the page of a running session, with its key.

Called by `mars.cli`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mars.cli.live import add_session, chosen

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars dashboard`` understands."""
    add_session(parser)


def run(options: Namespace) -> int:
    """Print the address; 1 if there is no page, or several."""
    found = chosen(options)
    if found is None:
        return 1
    if found.page is None:
        print(
            f"the session of program {found.pid} has no page; new_session(web=True) opens one. "
            f"`mars top` shows it here",
            file=sys.stderr,
        )
        return 1
    print(found.page)
    return 0
