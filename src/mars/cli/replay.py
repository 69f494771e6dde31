"""``mars replay``: one call of a checkpoint again, in this process, with its real inputs.

For a call that failed, or whose result looks wrong. Called by `mars.cli`.
"""

from __future__ import annotations

import os
import pdb
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from mars import owners
from mars.attempt import context
from mars.checkpoint.history import Damaged, History, PastCall
from mars.cli.runs import add_trust
from mars.code import importing, world
from mars.code.arriving import new_world
from mars.engines.inline import InlineEngine
from mars.errors import CheckpointUnusable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add what ``mars replay`` understands."""
    parser.add_argument("where", metavar="DIR", help="folder or URL of the checkpoint")
    parser.add_argument("call", metavar="CALL", help="a name, name#place, or how its key begins")
    add_trust(parser)
    parser.add_argument("--pdb", action="store_true", help="step through it in Python's debugger")


def run(options: Namespace) -> int:
    """Run the call; 1 when it raises, or is not there."""
    try:
        history = History(options.where)
    except CheckpointUnusable as error:
        print(error, file=sys.stderr)
        return 1
    try:
        found = history.find(options.call)
        if not found:
            print(f"no call here is meant by {options.call!r}", file=sys.stderr)
            return 1
        entry = found[-1]
        history.trust("mars replay", given=options.trust)
        _find_modules(entry, trusted=options.trust)
        importing.install(history.module_text)
        world.switch(new_world())
        try:
            function, (args, kwargs) = history.function(entry), history.arguments(entry)
        except Damaged:
            print(
                f"the function, an argument or an input of {entry.name} is not in the checkpoint: "
                f"it was too large to keep, failed itself, or is damaged (mars runs verify)",
                file=sys.stderr,
            )
            return 1
        return _call(entry, function, args, kwargs, debug=options.pdb)
    except CheckpointUnusable as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        history.close()


def _find_modules(entry: PastCall, *, trusted: bool) -> None:
    """Import from where the program did, if that is still its owner's."""
    facts = entry.run.facts
    if not facts.get("program"):
        return
    folder = os.path.dirname(os.path.join(facts["folder"], facts["program"][0]))
    if not os.path.isdir(folder):
        return
    found = "" if trusted else owners.stranger_on_the_way(folder)
    if found:
        print(f"mars replay: nothing is imported from {folder}: {found}", file=sys.stderr)
    else:
        sys.path.insert(0, folder)


def _call(
    entry: PastCall,
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    *,
    debug: bool,
) -> int:
    engine = InlineEngine("replay")
    attempt = context.Attempt(
        "replay", entry.name, engine, engine.worker_addresses[0], entry.run.entropy, entry.place,
        lambda _: None,
    )  # fmt: skip
    before = context.enter_thread(attempt)
    try:
        if debug:
            value = pdb.Pdb().runcall(function, *args, **kwargs)
        else:
            value = function(*args, **kwargs)
    except Exception as error:
        traceback.print_exception(error)
        if debug:
            pdb.post_mortem(error.__traceback__)
        return 1
    finally:
        context.enter_thread(before)
        engine.close()
    text = repr(value)
    print(f"{entry.name} returned {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}")
    return 0


_SHOWN = 2000
