"""Who writes to a checkpoint: what a lock says of its holder, and whose folder is refused.

Called by the two kinds of folders, `mars.checkpoint.local_folder` and `.remote_folder`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

from mars import owners, platform
from mars.errors import CheckpointUnusable
from mars.platform import machine

if TYPE_CHECKING:
    from mars.checkpoint.folder import Facts

WAY_OUT: Final = (
    "a program runs code of its checkpoint: use a folder of your own to which nobody else can write"
)


def refuse_strangers(where: str, path: str) -> None:
    """Refuse a folder in which somebody else may have put what a program would unpickle.

    Nor may every user put another folder in its place.
    """
    for found in (*owners.strangers_below(path), owners.stranger_on_the_way(path, owners.anyone)):
        if found:
            raise CheckpointUnusable(where, f"{found}; {WAY_OUT}")


def myself() -> Facts:
    """What a lock says of this process."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "machine": machine(),
        "since": time.time(),
        "program": " ".join(sys.argv)[:200],
    }


def described(holder: bytes | Facts) -> str:
    """Who holds a lock, in words."""
    try:
        facts = json.loads(holder) if isinstance(holder, bytes) else holder
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["since"]))
        return f"process {facts['pid']} on {facts['host']} since {since} ({facts['program']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def has_ended(facts: Facts) -> bool:
    """Whether a holder is known to have ended. Only its own machine can know that."""
    here = machine()
    return bool(here) and facts.get("machine") == here and not platform.is_there(facts["pid"])
