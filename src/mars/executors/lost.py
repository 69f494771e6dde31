"""Errors of mars for programs that catch what `ProcessPoolExecutor` raises in their place.

They stand apart from `mars.errors` because their second base takes ten milliseconds to import. So
they are loaded when a call has failed in one of these ways. Called by `mars.executors.futures`.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError

from mars.errors import EncodeError, WorkerDied


class CallLost(WorkerDied, BrokenProcessPool):
    """The worker of one future's call died. Other than there, the executor can still be used.

    The facts are those of `mars.errors.WorkerDied`.
    """


class NotPickled(EncodeError, PicklingError):
    """A function, an argument or a result does not pickle.

    The facts are those of `mars.errors.EncodeError`.
    """


class NotUnpickled(BrokenProcessPool):
    """The arguments of a call, or its result, pickle, but cannot be unpickled where they went.

    The error that this raised there is the cause. Only this future is concerned.

    Parameters
    ----------
    call : str
        The call.
    what : str
        ``"arguments"`` or ``"result"``.
    told : str
        What was raised.
    """

    def __init__(self, call: str, what: str, told: str) -> None:
        super().__init__(call, what, told)
        self.call, self.what, self.told = call, what, told

    def __str__(self) -> str:
        return (
            f"the {self.what} of {self.call} cannot be unpickled ({self.told}); the executor can "
            f"still be used"
        )


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


def as_in_a_pool(error: WorkerDied | EncodeError) -> BaseException:
    """An error as programs for `ProcessPoolExecutor` catch it, with all that is known."""
    found: BaseException
    if isinstance(error, WorkerDied):
        found = CallLost(*error.args)
    else:
        found = NotPickled(*error.args)
    for note in getattr(error, "__notes__", ()):
        found.add_note(note)
    found.__cause__ = error.__cause__
    return found.with_traceback(error.__traceback__)


def not_unpickled(call: str, what: str, error: BaseException) -> NotUnpickled:
    """The error about arguments or a result that cannot be unpickled."""
    found = NotUnpickled(call, what, f"{type(error).__name__}: {error}")
    found.__cause__ = error
    return found


__all__ = [
    "CallLost",
    "InitializerFailed",
    "NotPickled",
    "NotUnpickled",
    "as_in_a_pool",
    "not_unpickled",
]
