"""``mars run``: start a program on all hosts of an allocation of Slurm.

It starts a node on each host with ``srun``, then the program here, in this terminal. Sessions of
the program use these nodes, and the nodes end with it. Called by `mars.cli`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from argparse import REMAINDER
from typing import TYPE_CHECKING

from mars.deploy.slurm_start import Keeper
from mars.errors import MarsError, UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from types import FrameType

_BY_SIGNAL = 128
"""What a shell adds to the number of the signal that ended a program."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars run`` understands."""
    parser.add_argument(
        "--min-nodes",
        type=int,
        default=0,
        metavar="N",
        help="start the program as soon as so many hosts have joined; default: all",
    )
    parser.add_argument(
        "--host", default="", help="address of this host that the others reach; default: found"
    )
    parser.add_argument("-m", "--module", action="store_true", help="the program is a module")
    parser.add_argument(
        "program", nargs=REMAINDER, help="script or module, and what follows is for it"
    )


def run(options: Namespace) -> int:
    """Do it; the status of the program, or 1 or 2 if it could not be started."""
    try:
        return _run(options)
    except (MarsError, OSError) as error:
        print(f"mars run: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _run(options: Namespace) -> int:
    program = options.program
    if not program:
        raise UsageError("name a script, as in `mars run script.py`")
    if not options.module and not os.path.isfile(program[0]):
        raise UsageError(f"there is no file {program[0]!r} in {os.getcwd()}")
    if options.min_nodes < 0:
        raise UsageError(f"--min-nodes has to be 0 or more, got {options.min_nodes}")
    # What wants our end is for the program, once that is there; before, it ends us in order.
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if not running:
            sys.exit(_BY_SIGNAL + number)
        running[0].send_signal(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    keeper = Keeper(None, min_nodes=options.min_nodes, host=options.host)
    try:
        command = [sys.executable, *(["-m"] if options.module else []), *program]
        # A terminal sends Ctrl-C to the program as well. A handler, unlike SIG_IGN, stays here.
        signal.signal(signal.SIGINT, lambda *_: None)
        environment = {**os.environ, "MARS_ADDRESS": keeper.address}
        with subprocess.Popen(command, env=environment) as started:
            running.append(started)
            status = started.wait()
    finally:
        keeper.close()
    return _BY_SIGNAL - status if status < 0 else status
