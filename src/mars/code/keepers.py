"""Protocols of a pickler: whom it asks what becomes of a buffer, and where it writes.

A keeper takes a large buffer out of the pickle, or leaves it in.
"""

from __future__ import annotations

import pickle
from typing import Protocol


class Keeper(Protocol):
    """Takes the large buffers that a pickle leaves out; falsy: the buffer is taken."""

    buffers: list[pickle.PickleBuffer]

    def __call__(self, buffer: pickle.PickleBuffer) -> bool: ...

    def restart(self) -> None: ...


class Target(Protocol):
    """What a pickle is written to."""

    def write(self, data: bytes, /) -> object: ...

    def getvalue(self) -> bytes: ...


class InBand:
    """Takes no buffer: all of them stay in the pickle."""

    def __init__(self) -> None:
        self.buffers: list[pickle.PickleBuffer] = []

    def restart(self) -> None:
        """Forget all: the pickle is made again."""
        self.buffers.clear()

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        return True


class Apart(InBand):
    """Takes all buffers."""

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        self.buffers.append(buffer)
        return False
