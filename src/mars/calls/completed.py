"""`as_completed`: the objects of many calls, each as soon as its call has ended.

All calls are one run, so arguments that they share are stored once. Programs find it in
`mars.remote`; the iterator itself is in `mars.completion`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from mars.calls.windowed import Windowed
from mars.completion import Completed
from mars.config import plain_scalar
from mars.engine import Run
from mars.errors import UsageError
from mars.execution import Execution
from mars.sessions.opening import choose
from mars.sessions.runs import Series
from mars.sessions.session import AnySession, Session
from mars.task import Handle

if TYPE_CHECKING:

    class _Begun(TypedDict, total=False):
        """What a run may be given here."""

        seed: int | None
        checkpoint: object
        series: Series | None
        ended: Callable[[Run], object] | None


def as_completed(
    objects: Iterable[object] | Handle | Execution,
    timeout: float | None = None,
    *,
    window: int | None = None,
    session: AnySession | None = None,
    seed: int | None = None,
    checkpoint: object = None,
) -> Completed:
    """Execute objects in one run, and give each one as soon as its call has ended.

    All calls start at once, unless there is a ``window``. A call that fails does not end the
    others: its object is given like all others, and its `fetch` raises the error. Each object is
    given once. Objects that are done already come first.

    The iterator lets go of each object that it gives. If the program holds no other reference, such
    as in a list, the value is freed when the loop goes on to the next object. So many large results
    need the memory of a few, as long as the program reads them as fast as they are made.

    Parameters
    ----------
    objects : iterable of Object, ExecutableTuple, MapObjects or Execution
        What to execute. Of a map, each item is given. A run that ``execute(wait=False)`` has
        returned is iterated over as it is, and not executed again.
    timeout : float, optional
        Seconds from now in which all have to come. None: no limit.
    window : int, optional
        How many objects may be under way or unread at a time, at least 1. A further call starts
        when the loop has taken an object. ``objects`` may be an iterator, such as a generator that
        spawns: it is read only so far. Each item of a map is a call of its own then, and its value
        is freed with its object. None: all calls start at once.
    session : Session, optional
        Default: the default session. If there is none, one is made.
    seed : int, optional
        Seed of `rng` in this run. Default: the session's.
    checkpoint : path, URL or False, optional
        As of `mars.session.Session.execute`.

    Returns
    -------
    Completed
        An iterator and an async iterator over objects. ``len`` says how many are still to come, if
        that is known. If the program leaves the loop early, the calls that have started go on;
        `Object.cancel` stops one of them.

    Raises
    ------
    TimeoutError
        Raised by the iterator: not all have ended within ``timeout``. The calls go on.
    KeyboardInterrupt
        Raised by the iterator at Ctrl-C, which cancels the run. What is done stays.
    TypeError
        Something is no object of `spawn` or `map`, ``timeout`` is no number, or ``window`` is no
        whole number.
    ValueError
        ``window`` is less than 1.
    UsageError
        There is a ``window``, and a run that has started already.

    Notes
    -----
    Inside a call, objects come when all calls have ended, unless there is a ``window``.

    Examples
    --------
    >>> calls = [spawn(pow, (2, i)) for i in range(4)]
    >>> sorted(done.fetch() for done in as_completed(calls))
    [1, 2, 4, 8]
    >>> few = as_completed((spawn(pow, (2, i)) for i in range(1000)), window=10)
    >>> sum(done.fetch() for done in few) == 2**1000 - 1
    True
    """
    timeout = plain_scalar(timeout)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout has to be seconds, got {timeout!r}")
    window = _checked(window)
    if isinstance(objects, Execution):
        if window is not None:
            raise UsageError(
                "this run has started all of its calls already, so window= comes too late; give "
                "as_completed the objects themselves, and do not execute them before"
            )
        return objects.completed(timeout)
    if window is not None:
        few = _windowed(objects, window, choose(session), seed, checkpoint)
        few.limit(timeout, few.stop)
        return few
    chosen = choose(session)
    given: list[Handle] = []
    for one in [objects] if isinstance(objects, Handle) else objects:
        if not isinstance(one, Handle):
            hint = ""
            if isinstance(one, Execution):
                hint = "; it runs them itself: pass the objects, or write `for obj in run`"
            elif hasattr(one, "add_done_callback"):
                hint = "; for futures there is concurrent.futures.as_completed"
            raise TypeError(
                f"as_completed takes objects made by spawn or map, got {one!r:.80}{hint}"
            )
        given.append(one)
    run = _begun(chosen, given, seed=seed, checkpoint=checkpoint)
    return run.completed(timeout, stop=True)


def _begun(chosen: Session, handles: Sequence[Handle], **options: Unpack[_Begun]) -> Execution:
    """A run of which nobody waits for the end: what has ended is read one by one."""
    run: Execution = chosen.runs.run(
        handles, finish=lambda: None, plain=True, wait=False, on_error="continue", **options
    )
    return run


def _checked(window: object) -> int | None:
    window = plain_scalar(window)
    if window is None:
        return None
    if isinstance(window, bool) or not isinstance(window, int):
        raise TypeError(f"window has to be a number of objects, got {window!r}")
    if window < 1:
        raise ValueError(f"window has to be 1 or more, got {window!r}")
    return window


def _windowed(
    objects: Iterable[object] | Handle,
    window: int,
    chosen: Session,
    seed: int | None,
    checkpoint: object,
) -> Windowed:
    series = Series()

    def start(one: Handle, ended: Callable[[Run], object]) -> Execution:
        return _begun(chosen, [one], seed=seed, checkpoint=checkpoint, series=series, ended=ended)

    given: Iterable[object] = [objects] if isinstance(objects, Handle) else objects
    return Windowed(given, window, start, chosen.runs.listen)


as_completed.__module__ = "mars.remote"  # where programs find it

__all__ = ["as_completed"]
