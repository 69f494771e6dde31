"""The error of a call whose worker died, for programs that catch what `concurrent.futures` raises.

It stands apart from `mars.errors` because its second base takes ten milliseconds to import. So it
is loaded when a worker has died. Called by `mars.executors.futures`.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from mars.errors import WorkerDied


class CallLost(WorkerDied, BrokenProcessPool):
    """The worker of one future's call died. Other than there, the executor can still be used.

    The facts are those of `mars.errors.WorkerDied`.
    """


class InitializerFailed(BrokenProcessPool):
    """The initializer of an executor raised in a worker, so the executor cannot be used any more.

    Parameters
    ----------
    told : str
        What it raised.
    """

    def __init__(self, told: str) -> None:
        super().__init__(told)
        self.told = told

    def __str__(self) -> str:
        return f"the initializer of the executor raised in a worker: {self.told}"


def call_lost(died: WorkerDied) -> CallLost:
    """The error of a future whose worker died, with all that is known about that."""
    lost = CallLost(*died.args)
    for note in getattr(died, "__notes__", ()):
        lost.add_note(note)
    lost.__cause__ = died.__cause__
    return lost


__all__ = ["CallLost", "InitializerFailed", "call_lost"]
