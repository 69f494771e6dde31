"""Every error that mars itself raises, and who must act on it.

::

    MarsError
    ├── UsageError            the caller: the program asks for something that cannot be
    │   ├── EncodeError           a value that does not pickle (also a TypeError)
    │   ├── NotExecuted           fetch before execute (also a ValueError)
    │   ├── NoAvailableBand       no worker matches what the call asks for (also a ValueError)
    │   ├── UnknownTarget         there is no such engine or address (also a ValueError)
    │   ├── CredentialsError      a cluster's credentials are missing, wrong, expired or unsafe
    │   ├── SessionClosed         the session or its engine has ended (also a RuntimeError)
    │   ├── CheckpointBusy        another process writes to the checkpoint
    │   └── CheckpointUnusable    it is no folder for checkpoints (also a ValueError)
    ├── TaskError             one call did not end well, and not by an exception of its own
    │   ├── TaskTimeout           it took longer than ``timeout`` (also a TimeoutError)
    │   ├── TaskCancelled         somebody cancelled it (also a CancelledError)
    │   ├── DependencyFailed      an input of it failed
    │   └── WorkerDied            its worker process ended under it
    ├── StoreFull             the machine: no room for an object (also a MemoryError)
    ├── StartupFailed         the machine: worker processes, or a cluster's, do not start
    ├── ClusterUnreachable    the network: nothing answers there (also a ConnectionError)
    └── InternalError         us: a bug in mars, please report it

An exception raised by the user's function is none of these: it comes back with its own type.
Every error here pickles: its facts are its ``args``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "MarsError", "UsageError", "EncodeError", "NotExecuted", "NoAvailableBand", "UnknownTarget",
    "CredentialsError", "SessionClosed", "CheckpointBusy", "CheckpointUnusable", "TaskError",
    "TaskTimeout", "TaskCancelled", "DependencyFailed", "WorkerDied", "StoreFull",
    "StartupFailed", "ClusterUnreachable", "InternalError",
]  # fmt: skip


class MarsError(Exception):
    """Root of all errors of mars."""


class UsageError(MarsError):
    """The program asks for something that cannot be done."""


class EncodeError(UsageError, TypeError):
    """A function, argument, result or exception does not pickle.

    Parameters
    ----------
    call : str
        The call it belongs to, as ``name(args…)``.
    where : str
        Path of the offending value and its type, such as
        ``args[0]['model'].lock: _thread.lock``.
    reason : str
        What pickle said.
    """

    def __init__(self, call: str, where: str, reason: str) -> None:
        super().__init__(call, where, reason)
        self.call, self.where, self.reason = call, where, reason

    def __str__(self) -> str:
        return f"cannot pickle {self.where} of {self.call} ({self.reason}); {self._advice()}"

    def _advice(self) -> str:
        kind = self.where.rpartition(": ")[2]
        if kind == "coroutine":
            return "a call is a plain function: let one return asyncio.run(...) of the async one"
        is_result = self.where.startswith("result")
        if kind == "generator":
            return "return list(...) of it" if is_result else "pass list(...) of it"
        if is_result and kind != "mars.remote.Object":
            return "return what it is made from, or plain data"
        return "create it inside the function, or pass what it is made from"


class NotExecuted(UsageError, ValueError):
    """There is no value to fetch: the call has not ended, or was not executed in this session.

    Parameters
    ----------
    described : str
        The call.
    reason : str
        Why it has no value, and what to do: how the sentence goes on after the call.
    state : str
        The state of the call, in the words of `Object.state`.
    """

    def __init__(
        self,
        described: str,
        reason: str = "is not started. Call execute() on it first",
        state: str = "not started",
    ) -> None:
        super().__init__(described, reason, state)
        self.described, self.reason, self.state = described, reason, state

    def __str__(self) -> str:
        return f"{self.described} {self.reason}"

    def __repr__(self) -> str:
        return f"NotExecuted({f'{self.described} is {self.state}'!r})"  # short, for lists of errors


class NoAvailableBand(UsageError, ValueError):
    """No worker of this session can ever run the call."""


class UnknownTarget(UsageError, ValueError):
    """There is no such engine, address or backend."""


class CredentialsError(UsageError):
    """Credentials of a cluster are missing, wrong, expired, or readable by others."""


class SessionClosed(UsageError, RuntimeError):
    """The session, or the engine under it, has ended."""

    def __init__(self, message: str = "Session closed already") -> None:
        super().__init__(message)


class CheckpointBusy(UsageError):
    """Another process writes to the checkpoint."""

    def __init__(self, where: str, holder: str) -> None:
        super().__init__(where, holder)
        self.where, self.holder = where, holder

    def __str__(self) -> str:
        return (
            f"the checkpoint {self.where} is in use by {self.holder}; wait for its end, or give "
            f"each run a folder of its own"
        )


class CheckpointUnusable(UsageError, ValueError):
    """What was given as a checkpoint is no folder for one."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where, self.reason = where, reason

    def __str__(self) -> str:
        return f"cannot use {self.where!r} as a checkpoint: {self.reason}"


class TaskError(MarsError):
    """A call did not end well, and not by an exception of its own."""


class TaskTimeout(TaskError, TimeoutError):
    """An attempt took longer than the call's ``timeout``.

    Its traceback is the stack of the call at the moment when it was stopped.

    Parameters
    ----------
    call : str
        The call.
    timeout_s : float
        Its ``timeout``, in seconds.
    attempt : int
        Which attempt this was, counted from 1.
    where : str
        Where it was stopped, as ``at line 3 of file.py in f``. Empty: nobody knows, as its process
        had to be killed.
    """

    def __init__(self, call: str, timeout_s: float, attempt: int = 1, where: str = "") -> None:
        super().__init__(call, timeout_s, attempt, where)
        self.call, self.timeout_s, self.attempt, self.where = call, timeout_s, attempt, where

    def __str__(self) -> str:
        where = (
            f"It was {self.where}"
            if self.where
            else "Where it was is not known, as its process had to be killed; `mars stack` shows "
            "where a call is while it runs"
        )
        return (
            f"{self.call} was stopped after its timeout of {self.timeout_s:g} s "
            f"(attempt {self.attempt}). {where}. Raise `timeout` if it needs more time"
        )


if TYPE_CHECKING:
    from concurrent.futures import CancelledError

    class TaskCancelled(TaskError, CancelledError):
        """The call was cancelled before it ended."""

        def __init__(self, call: str) -> None:
            self.call = call

else:

    def __getattr__(name: str) -> type:
        # Made when it is first asked for: its base comes with `logging` and more, which together
        # would take a fifth of `import mars.remote`.
        if name != "TaskCancelled":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from concurrent.futures import CancelledError

        class TaskCancelled(TaskError, CancelledError):
            """The call was cancelled before it ended."""

            __qualname__ = "TaskCancelled"  # it is of the module, not of this function

            def __init__(self, call: str) -> None:
                super().__init__(call)
                self.call = call

            def __str__(self) -> str:
                return f"{self.call} was cancelled; execute() runs it again"

        return globals().setdefault(name, TaskCancelled)  # the first one, if two threads ask


class DependencyFailed(TaskError):
    """An input of the call failed, so the call was not started.

    ``__cause__`` is the input's own error.
    """

    def __init__(self, call: str, failed: str) -> None:
        super().__init__(call, failed)
        self.call, self.failed = call, failed

    def __str__(self) -> str:
        return f"{self.call} was not started because its input {self.failed} failed"


class WorkerDied(TaskError):
    """The worker process that ran the call ended before the call did.

    Parameters
    ----------
    call : str
        The call it ran, as ``name(args…)``.
    worker : str
        Which worker, with its process id.
    ending : str
        Signal or exit code by name, such as ``SIGKILL`` or ``exit code 3``.
    attempt : int
        Which attempt this was, counted from 1.
    evidence : str
        What is known of why: memory, the stack of a crash, the last lines of the log.
    """

    def __init__(
        self, call: str, worker: str, ending: str, attempt: int = 1, evidence: str = ""
    ) -> None:
        super().__init__(call, worker, ending, attempt, evidence)
        self.call, self.worker, self.ending = call, worker, ending
        self.attempt, self.evidence = attempt, evidence

    def __str__(self) -> str:
        text = (
            f"worker {self.worker} ended with {self.ending} while it ran {self.call} "
            f"(attempt {self.attempt})"
        )
        return f"{text}\n{self.evidence}" if self.evidence else text


class StoreFull(MarsError, MemoryError):
    """There is no room for an object."""

    def __init__(self, what: str, size_bytes: int, reason: str) -> None:
        super().__init__(what, size_bytes, reason)
        self.what, self.size_bytes, self.reason = what, size_bytes, reason

    def __str__(self) -> str:
        return (
            f"no room for {self.what} ({self.size_bytes:,} bytes): {self.reason}; "
            f"drop objects that are no longer needed, or return less"
        )


class StartupFailed(MarsError, RuntimeError):
    """Worker processes, or the processes of a cluster, do not start."""


class ClusterUnreachable(MarsError, ConnectionError):
    """Nothing answers at the address of a cluster."""


class InternalError(MarsError, RuntimeError):
    """A bug in mars: please report it with the message."""
