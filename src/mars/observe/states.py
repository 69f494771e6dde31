"""The states of calls, in the words that all reprs, errors and views use.

A call is in one of the eight states of `STATES`. `state_of` reads the state from the task of the
call, in any thread: it looks at one moment, and the call may go on meanwhile. `why_no_value` says
why there is nothing to fetch and what to do. Pure; loaded when somebody looks.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

from typing import Final, NamedTuple

from mars.task import Call, Realm, Stage, Task

NOT_STARTED: Final = "not started"
WAITING: Final = "waiting for inputs"
QUEUED: Final = "queued"
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
REUSED: Final = "reused"

STATES: Final = (NOT_STARTED, WAITING, QUEUED, RUNNING, DONE, FAILED, CANCELLED, REUSED)
"""All states. *Reused*: done, with a result that a checkpoint had. *Not started*: nobody has
executed the call, or its run ended before its turn."""

HAVE_VALUES: Final = frozenset({DONE, REUSED})
"""The states in which a call can be fetched."""

UNDER_WAY: Final = frozenset({WAITING, QUEUED, RUNNING})
"""The states of a call that a run is at."""


class State(NamedTuple):
    """The state of a call at one moment.

    Attributes
    ----------
    word : str
        One of `STATES`.
    since : float or None
        Of a running call: when it was sent to its worker, in seconds of `time.monotonic`.
    waits_for : str
        Of a call that waits for inputs: which ones, for people.
    """

    word: str
    since: float | None = None
    waits_for: str = ""

    def told(self, now: float) -> str:
        """The state in words, with the time that a running call has taken."""
        if self.word == RUNNING and self.since is not None:
            return f"{RUNNING} for {seconds(now - self.since)}"
        if self.word == WAITING and self.waits_for:
            return f"waiting for {self.waits_for}"
        return self.word


def seconds(span_s: float) -> str:
    """A span of time for people.

    Examples
    --------
    >>> seconds(3.14), seconds(75), seconds(7300)
    ('3.1 s', '1 min 15 s', '2 h 1 min')
    """
    span_s = max(span_s, 0.0)
    if span_s < 10:
        return f"{span_s:.1f} s"
    if span_s < 60:
        return f"{span_s:.0f} s"
    minutes, rest = divmod(int(span_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def title_of(call: Call) -> str:
    """What messages call a call: its name, or which item of a map it is.

    Parameters
    ----------
    call : Call
        The call.
    """
    index = getattr(call, "index", None)
    return call.name if index is None or call.whole is None else f"item {index} of {call.name}"


def state_of(task: Task | None) -> State:
    """The state of the call of a task; None: it was never executed."""
    if task is None:
        return State(NOT_STARTED)
    stage = task.stage
    if stage is Stage.DONE:
        return State(NOT_STARTED) if task.released else State(REUSED if task.reused else DONE)
    if stage is Stage.FAILED:
        return State(FAILED)
    if task.cancelled:
        return State(CANCELLED)
    if stage is Stage.MADE:
        return State(DONE)  # its value is on a node of the cluster, and comes when it is asked for
    if stage is Stage.ASSIGNED and runs_now(task):
        return State(RUNNING, task.sent_at or None)
    runs = task.runs if task.source is None else task.source.runs
    if stage is Stage.ABANDONED or (runs and not any(run.live for run in runs)):
        return State(NOT_STARTED)
    missing = [source for source, _ in task.call.inputs if _is_missing(source.task_in(task.realm))]
    if stage is Stage.WAITING and missing:
        return State(WAITING, waits_for=_several(list(dict.fromkeys(map(title_of, missing)))))
    return State(QUEUED)


def state_in(call: Call, realm: Realm | None) -> State:
    """The state of a call in one session.

    Parameters
    ----------
    call : Call
        The call; of a map, an item.
    realm : Realm or None
        What the tasks of the session belong to. None: the session that it was executed in last.
    """
    last = call.task
    if realm is None:
        if last is None and call.whole is not None:
            last = call.whole.task
        if last is None:
            return State(NOT_STARTED)
        realm = last.realm
    task = call.task_in(realm) or call.adopt(realm)
    if task is not None:
        return State(FAILED) if task.broken else state_of(task)
    if call.whole is None:
        return State(NOT_STARTED)
    found: State = call.whole.state_of_item(realm, call)
    return found


def runs_now(task: Task) -> bool:
    """Whether a task that was sent to a worker is the one that runs there, not one behind it."""
    worker = task.worker
    queue = None if worker is None else worker.queue
    try:
        return not queue or queue[0] is task
    except IndexError:  # it has ended just now
        return True


def _is_missing(source: Task | None) -> bool:
    return source is None or source.stage not in (Stage.DONE, Stage.MADE)


def _several(names: list[str]) -> str:
    if len(names) > 2:
        return f"{names[0]}, {names[1]} and {len(names) - 2} more"
    return " and ".join(names)


def why_no_value(state: State, now: float) -> str:
    """Why there is nothing to fetch, and what to do; it goes on after the name of the call.

    Parameters
    ----------
    state : State
        The state of the call.
    now : float
        Monotonic time, seconds.
    """
    word = state.word
    if word == RUNNING:
        time_told = "" if state.since is None else f", for {seconds(now - state.since)} now"
        return (
            f"is still running{time_told}. To wait for it, call execute(), which does not start it "
            f"again, or result() of the run that execute(wait=False) returned"
        )
    if word in UNDER_WAY:
        return f"is {state.told(now)}. execute() waits for it"
    return f"is {word}. Call execute() on it first"


__all__ = [
    "CANCELLED", "DONE", "FAILED", "HAVE_VALUES", "NOT_STARTED", "QUEUED", "REUSED", "RUNNING",
    "STATES", "State", "UNDER_WAY", "WAITING", "runs_now", "seconds", "state_in", "state_of",
    "title_of", "why_no_value",
]  # fmt: skip
