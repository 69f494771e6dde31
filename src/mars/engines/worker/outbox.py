"""Finished calls in memory that the worker shares with its driver, until they are reported.

The worker writes every finished call there first, and then reports several together. If the process
dies between the two, nothing is lost: the driver reads that memory. The layout stands in
`mars.engines.wire.messages`.
"""

from __future__ import annotations

import mmap
from typing import Final

from mars.engines.wire.messages import (
    OUTBOX,
    OUTBOX_FILLED,
    OUTBOX_INTERRUPT,
    OUTBOX_INTERRUPT_AT,
    OUTBOX_RUNNING,
    OUTBOX_RUNNING_AT,
)
from mars.settings import OUTBOX_BYTES

_HEAD: Final = OUTBOX.size
_pack_filled = OUTBOX_FILLED.pack_into
_pack_running = OUTBOX_RUNNING.pack_into


class Outbox:
    """Finished calls in memory shared with the driver, until they are reported."""

    def __init__(self, descriptor: int) -> None:
        self.memory = mmap.mmap(descriptor, OUTBOX_BYTES)
        self.filled = 0  # bytes of records

    def started(self, attempt: int, log_start: int) -> None:
        """From here on, a death of this process is a death under ``attempt``."""
        _pack_running(self.memory, OUTBOX_RUNNING_AT, attempt, log_start)

    def interrupts(self) -> int:
        """The attempt that the driver wants stopped."""
        return int(OUTBOX_INTERRUPT.unpack_from(self.memory, OUTBOX_INTERRUPT_AT)[0])

    def add(self, record: bytes) -> bool:
        """Keep a finished call, its `RECORD` with its result; False when there is no room."""
        start = _HEAD + self.filled
        end = start + len(record)
        if end > OUTBOX_BYTES:
            return False
        memory = self.memory
        memory[start:end] = record
        # The count comes last: what it covers is whole, whenever this process dies.
        self.filled = end - _HEAD
        _pack_filled(memory, 0, self.filled)
        return True

    def take(self) -> bytes:
        """All records."""
        return self.memory[OUTBOX.size : OUTBOX.size + self.filled]

    def clear(self) -> None:
        self.filled = 0
        OUTBOX_FILLED.pack_into(self.memory, 0, 0)
