"""The worker's end of ``mars stack``; whoever asks is `stacks`, which workers need not load."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
from typing import Final

from mars import platform

SIGNAL: Final = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else None
"""A real-time signal: no library or shell gives it a meaning."""

FILE: Final = "stack"
"""Name of the file in memory that the answer is written to."""


def answer_requests() -> None:
    """Have this process write its stack whenever it is asked."""
    if SIGNAL is None:
        return
    try:
        descriptor = platform.memory_file(FILE)
    except OSError:  # no descriptor is left: this worker does not answer
        return
    # Who asks empties the file, and our position in it has to follow.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True)
