"""When a run will end, as a range: from what calls of each function have taken so far.

Pure: time comes as arguments. `mars.sessions.tally` fills the `Kind`s of a run, and asks
`time_left` for what shows progress. The range comes true in nine of ten looks if what calls take
differs by a factor of two or three; tests play many runs to see that. If one call in ten takes ten
times as long as the others, nobody can know it before one has ended, and the range is too low until
then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log, sqrt
from typing import Final, NamedTuple

_SURE: Final = 1.6
"""Standard deviations on either side: 90 % of a bell curve."""

_UNTRIED: Final = 0.8
"""Deviation of calls of a function of which one has ended, as a share of what that one took."""

_TAIL: Final = 1.0
"""By how much more the last of several calls may differ, for each logarithm of their number."""


class Kind:
    """The calls of one name in a run.

    Parameters
    ----------
    name : str
        The name.

    Attributes
    ----------
    total, done, failed : int
        Calls of it: all, those that ended well, those that ended otherwise.
    """

    __slots__ = ("_count", "_longest", "_mean", "_squares", "done", "failed", "name", "total")

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = self.done = self.failed = 0
        self._count = 0
        self._mean = self._squares = self._longest = 0.0

    def took(self, seconds: float, calls: int = 1) -> None:
        """Calls have ended that took so long each, on average."""
        self._count += calls
        change = seconds - self._mean
        self._mean += change * calls / self._count
        self._squares += change * (seconds - self._mean) * calls
        self._longest = max(self._longest, seconds)

    @property
    def mean_s(self) -> float | None:
        """What a call of it has taken on average, in seconds. None: none has ended."""
        return self._mean if self._count else None

    @property
    def spent_s(self) -> float:
        """What all ended calls of it have taken together, in seconds."""
        return self._mean * self._count

    @property
    def deviation_s(self) -> float:
        """By how much calls of it differ, in seconds; at first a guess, which gives way slowly."""
        guessed = 2.0 * (_UNTRIED * self._mean) ** 2
        return sqrt((self._squares + guessed) / (self._count + 1)) if self._count else 0.0

    @property
    def longest_s(self) -> float:
        """What the longest has taken, in seconds."""
        return self._longest

    @property
    def known(self) -> int:
        """How many have told how long they took."""
        return self._count


class Active(NamedTuple):
    """A call that runs now.

    Attributes
    ----------
    name : str
        What people call it.
    elapsed_s : float
        For how long it has run, in seconds.
    kind : Kind or None
        Which calls it is one of.
    calls : int
        How many calls it stands for: of a block of a map, its items.
    part : float
        The part that it says is done, 0 to 1. 0: it has said nothing.
    """

    name: str
    elapsed_s: float
    kind: Kind | None = None
    calls: int = 1
    part: float = 0.0


def _sure(calls: int) -> float:
    """Deviations beyond which none of so many calls is, most likely."""
    return _SURE + _TAIL * log(max(calls, 1))


def _remaining(active: Active, sure: float) -> tuple[float, float, float | None]:
    """Of a running call: least, expected and most seconds that remain. Most None: nobody knows."""
    elapsed_s, kind = active.elapsed_s, active.kind
    if active.part > 0.0:
        left_s = elapsed_s * (1.0 - active.part) / active.part
        return 0.6 * left_s, left_s, 1.5 * left_s
    if kind is None or kind.mean_s is None:
        return 0.0, elapsed_s, None
    mean_s = kind.mean_s * active.calls
    deviation_s = kind.deviation_s * sqrt(active.calls * (1 + active.calls / kind.known))
    # The more calls differ, the less it says that one has run for a while already: a long one may
    # have as much before it as a fresh one.
    alike = max(0.0, 1.0 - deviation_s / mean_s) if mean_s > 0.0 else 0.0
    whole_s = mean_s + sure * deviation_s
    most_s = max(whole_s - elapsed_s, (1.0 - alike) * whole_s)
    if elapsed_s > whole_s:  # longer than calls like it ever took
        most_s = max(most_s, elapsed_s)
    least_s = max(0.0, mean_s - _SURE * deviation_s - elapsed_s)
    return least_s, max(mean_s - elapsed_s, (1.0 - alike) * mean_s), most_s


def time_left(
    kinds: Iterable[Kind], running: Sequence[Active], elapsed_s: float
) -> tuple[float, float | None] | None:
    """The seconds that a run takes from now on, at least and at most.

    Parameters
    ----------
    kinds : iterable of Kind
        All calls of the run.
    running : sequence of Active
        Those that run now.
    elapsed_s : float
        Seconds since the run began.

    Returns
    -------
    tuple of (float, float or None), or None
        From and to. To None: some calls are like none that has ended. None: nothing is known.
    """
    kinds = list(kinds)
    begun: dict[int, int] = {}
    running_s: dict[int, float] = {}
    least_s = most_s = work_s = spent_s = 0.0
    is_open = False
    sure = _sure(len(running))
    for active in running:
        low_s, expected_s, high_s = _remaining(active, sure)
        least_s = max(least_s, low_s)
        work_s += expected_s
        spent_s += active.elapsed_s
        if high_s is None:
            is_open = True
        else:
            most_s = max(most_s, high_s)
        if active.kind is not None:
            key = id(active.kind)
            begun[key] = begun.get(key, 0) + active.calls
            running_s[key] = running_s.get(key, 0.0) + active.elapsed_s
    variance = longest_s = more_s = 0.0
    waiting = 0
    for kind in kinds:
        spent_s += kind.spent_s
        left = max(0, kind.total - kind.done - kind.failed - begun.get(id(kind), 0))
        if not left:
            continue
        waiting += left
        if kind.mean_s is None:
            is_open = True
            continue
        work_s += left * kind.mean_s
        # Those that have ended are the shorter ones: those that run may be as long as all of this.
        unseen_s = running_s.get(id(kind), 0.0) / kind.known
        more_s += left * max(0.0, unseen_s - kind.mean_s * begun.get(id(kind), 0) / kind.known / 2)
        variance += left * kind.deviation_s**2 * (1 + left / kind.known)
        usual_s = kind.mean_s + _sure(min(left, max(len(running), 1))) * kind.deviation_s
        longest_s = max(longest_s, kind.longest_s, usual_s)
    if not any(kind.known for kind in kinds) and not any(one.part > 0.0 for one in running):
        return None if waiting or running else (0.0, 0.0)
    if not waiting:
        return least_s, None if is_open else most_s
    # How many run at once: as it was so far, and as it is now. For tiny calls, most of the time is
    # not theirs, and it is less than one.
    so_far = spent_s / elapsed_s if elapsed_s > 0.0 else 1.0
    now = float(len(running)) or so_far
    fast, slow = max(so_far, now, 1e-9), max(min(so_far, now), 1e-9)
    doubt_s = _SURE * sqrt(variance)
    low_s = max(least_s, (work_s - doubt_s) / fast)
    if is_open:
        return low_s, None
    # At the end, cores are idle while the last calls run.
    tail_s = longest_s * (1.0 - 1.0 / max(1.0, fast))
    return low_s, max(most_s, (work_s + more_s + doubt_s) / slow + tail_s)


__all__ = ["Active", "Kind", "time_left"]
