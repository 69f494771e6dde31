"""``mars what-if``: how long a saved run would take on other machines. Called by `mars.cli`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mars.cli.saved import read_run
from mars.errors import UsageError
from mars.report.what_if import what_if

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars what-if`` understands."""
    parser.add_argument(
        "run", metavar="RUN.json", help='what session.report().save("run.json") has written'
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--cpus", type=float, default=1, help="cores of each (default: 1)")
    parser.add_argument(
        "--gpus", type=int, help="GPUs of each (default: as many as a call has asked for)"
    )
    parser.add_argument("--price", type=float, help="what one core costs for an hour")


def run(options: Namespace) -> int:
    """Print the prediction; 1 when the file cannot be read, 2 when there are no such machines."""
    record = read_run(options.run)
    if record is None:
        return 1
    try:
        print(what_if(record, options.nodes, options.cpus, options.price, options.gpus))
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
