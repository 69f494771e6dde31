"""What happened in a session, for a program that wants to be told: ``mars.options.on_event``.

Loaded when an event is told for the first time.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

from typing import NamedTuple

from mars.observe.observation import EndedAttempt


class Event(NamedTuple):
    """One thing that happened.

    Attributes
    ----------
    kind : str
        ``"run began"``, ``"attempt ended"`` or ``"run ended"``.
    session : str
        Id of the session.
    run : int
        The number of the run. Runs of calls inside calls have numbers of their own.
    time : float
        When it happened, in seconds of `time.time`.
    attempt : EndedAttempt or None
        The attempt that has ended: which call, how it ended, and its moments. None: the event is
        about a run.
    total, done, failed : int
        Of a run: how many calls it has, and how many of them have ended well and otherwise.
    """

    kind: str
    session: str
    run: int
    time: float
    attempt: EndedAttempt | None = None
    total: int = 0
    done: int = 0
    failed: int = 0


BEGAN = "run began"
ATTEMPT = "attempt ended"
ENDED = "run ended"

__all__ = ["ATTEMPT", "BEGAN", "ENDED", "Event"]
