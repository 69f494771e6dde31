"""What runs in a worker for joblib: one batch, with what its program asked for around it.

A batch comes as a pickle of its own, because its large buffers are values that batches share; see
`mars.joblib.packing`. Called by workers, for calls that `mars.joblib.flight` describes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from mars.attempt import codec


class Initializer(NamedTuple):
    """What a worker process does before its first batch, and only once."""

    token: str
    function: Callable[..., object]
    args: tuple[Any, ...]


class _Process:
    """What this process has done for joblib."""

    def __init__(self) -> None:
        self.forked = False  # by the program, or by a call; workers themselves do not count
        self.initialized: set[str] = set()

    def forget(self) -> None:
        """In a process that was just forked."""
        self.forked = True
        self.initialized = set()


process = _Process()
os.register_at_fork(after_in_child=process.forget)


def is_limited() -> bool:
    """Whether this process is one that must not start workers: forked or daemonic."""
    return process.forked or bool(multiprocessing.current_process().daemon)


def run_batch(
    data: bytes, buffers: Sequence[Any], values: Sequence[object], threads: int | None
) -> list[object]:
    """Run one batch of joblib.

    Parameters
    ----------
    data : bytes
        Pickle of the batch, and of its `Initializer` or None.
    buffers : sequence of buffers
        The large parts of the pickle.
    values : sequence of object
        Values of the objects of mars that are among the arguments.
    threads : int or None
        Threads for native libraries, if that is not what the call's cores say.

    Returns
    -------
    list of object
        What the functions of the batch returned.
    """
    process.forked = False  # a worker was forked, but not by the program
    (batch, initializer), _ = cast(
        tuple[tuple[Callable[[], list[object]], Initializer | None], object],
        codec.decode_arguments(data, buffers, values),
    )
    del buffers
    with _threads(threads) if threads is not None else contextlib.nullcontext():
        if initializer is not None and initializer.token not in process.initialized:
            initializer.function(*initializer.args)
            process.initialized.add(initializer.token)
        return batch()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let libraries, and child processes, use so many threads."""
    from threadpoolctl import threadpool_limits

    from mars.attempt.threads import environment
    from mars.engines.given import environment_with

    asked = {name: str(count) for name in environment(count, {}) if name.endswith("_THREADS")}
    with environment_with(asked), threadpool_limits(count):
        yield


__all__ = ["Initializer", "is_limited", "process", "run_batch"]
