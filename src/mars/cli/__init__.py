"""The ``mars`` command; also ``python -m mars``.

One module per group of commands: it adds its own arguments and does its work. A module is
imported when its command is asked for, so ``mars --version`` stays quick.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "doctor": "show what mars found on this machine, or on a cluster, and whether it works",
    "cluster": "begin, join, show and end a cluster on Ray or Dask",
    "run": "run a program on all hosts of a Slurm allocation",
    "runs": "show what a checkpoint holds, and why a call ran again",
    "replay": "run one call of a checkpoint again, here",
    "stack": "show what each worker does now, and its Python stack",
    "dashboard": "print the address of the page of a running session",
    "top": "show how far the running sessions are, what runs, and what failed",
    "calls": "list the calls of a running session",
    "logs": "show what a call of a running session prints",
    "report": "show where the time of a saved run went, and what would help",
    "what-if": "predict how long a saved run would take on other machines",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. None: those of this process.

    Returns
    -------
    int
        Status for the shell: 0 is well, 1 is a problem that was found, 2 is a wrong command.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(prog="mars", description="Plain Python functions, on all cores.")
    parser.add_argument("--version", action="store_true", help="print the version and end")
    commands = parser.add_subparsers(dest="command", metavar="command")
    asked = next((word for word in arguments if not word.startswith("-")), "")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name == asked:
            import_module(_module(name)).add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        if options.version:
            print(f"mars {_version()}")
            return 0
        if options.command is None:
            parser.print_help()
            return 2
        status: int = import_module(_module(options.command)).run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `mars doctor | head`: the reader has seen enough
        # What is still buffered must go nowhere when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell reports a command that SIGINT ended
    return status


def _module(command: str) -> str:
    return f"mars.cli.{command.replace('-', '_')}"


def _version() -> str:
    import mars

    return str(getattr(mars, "__version__", "unknown"))
