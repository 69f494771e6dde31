"""How long worker processes have waited for a core that something else had.

The system counts it: Linux in ``/proc/<pid>/schedstat``. So a call that waits for a core is told
from one that waits for a file or the network. It is known of the workers on this machine that have
not ended. Read when somebody asks for a report; calls cost no more for it.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from mars.observe.observation import EndedAttempt


def delay_s(node: str, pid: int) -> float | None:
    """Seconds that the main thread of a process could run, and had no core. None: not known."""
    if node != socket.gethostname():
        return None
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):  # it has ended, or the system does not count
        return None


def shares(
    attempts: Iterable[EndedAttempt], of: Callable[[str, int], float | None] = delay_s
) -> dict[int, float]:
    """Of the time in which calls ran and did not compute: which part they waited for a core.

    Parameters
    ----------
    attempts : iterable of EndedAttempt
        All attempts that the workers have had.
    of : callable
        As `delay_s`.

    Returns
    -------
    dict of int to float
        From 0 to 1, by the number of the worker. Workers of which it is not known are missing.
    """
    waited: dict[int, float] = defaultdict(float)
    places: dict[int, tuple[str, int]] = {}
    for one in attempts:
        if one.times is not None:
            waited[one.worker] += waited_s(one)
            places[one.worker] = one.node, one.pid
    told = {worker: of(*place) for worker, place in places.items() if waited[worker] > 0}
    return {
        worker: min(1.0, seconds / waited[worker])
        for worker, seconds in told.items()
        if seconds is not None
    }


def waited_s(one: EndedAttempt) -> float:
    """Seconds in which the function of an attempt ran and did not compute."""
    return 0.0 if one.times is None else max(0.0, one.times.running_s - one.cpu_s)


def starved_s(one: EndedAttempt, known: Mapping[int, float]) -> float:
    """Seconds in which it waited for a core; 0 if that is not known."""
    return waited_s(one) * known.get(one.worker, 0.0)


__all__ = ["delay_s", "shares", "starved_s", "waited_s"]
