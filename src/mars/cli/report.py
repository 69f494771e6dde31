"""``mars report``: where the time of a saved run went, and what would help.

Called by `mars.cli`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mars.cli.saved import read_run
from mars.errors import UsageError
from mars.report.report import report_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars report`` understands."""
    parser.add_argument(
        "run", metavar="RUN.json", help='what session.report().save("run.json") has written'
    )
    parser.add_argument("--html", metavar="FILE", help="write a page with a timeline there")


def run(options: Namespace) -> int:
    """Print the report, or write it; 1 when the file cannot be read or written."""
    record = read_run(options.run)
    if record is None:
        return 1
    report = report_of(record)
    if options.html is None:
        print(report)
        return 0
    try:
        report.save(options.html)
    except (OSError, UsageError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
