"""`as_completed`: the objects of many calls, each as soon as its call has ended.

All calls are one run, so arguments that they share are stored once. Programs find it in
`mars.remote`; the iterator itself is in `mars.completion`.
"""

from __future__ import annotations

from collections.abc import Iterable

from mars.completion import Completed
from mars.config import plain_scalar
from mars.execution import Execution
from mars.sessions.opening import choose
from mars.sessions.session import AnySession
from mars.task import Handle


def as_completed(
    objects: Iterable[object] | Handle | Execution,
    timeout: float | None = None,
    *,
    session: AnySession | None = None,
    seed: int | None = None,
    checkpoint: object = None,
) -> Completed:
    """Execute objects in one run, and give each one as soon as its call has ended.

    The calls start at once. A call that fails does not end the others: its object is given like all
    others, and its `fetch` raises the error. Each object is given once. Objects that are done
    already come first.

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
    session : Session, optional
        Default: the default session. If there is none, one is made.
    seed : int, optional
        Seed of `rng` in this run. Default: the session's.
    checkpoint : path, URL or False, optional
        As of `mars.session.Session.execute`.

    Returns
    -------
    Completed
        An iterator and an async iterator over objects. ``len`` says how many are still to come. If
        the program leaves the loop early, the calls go on; `Object.cancel` stops one of them.

    Raises
    ------
    TimeoutError
        Raised by the iterator: not all have ended within ``timeout``. The calls go on.
    KeyboardInterrupt
        Raised by the iterator at Ctrl-C, which cancels the run. What is done stays.
    TypeError
        Something is no object of `spawn` or `map`, or ``timeout`` is no number.

    Notes
    -----
    Inside a call, objects come when all calls have ended.

    Examples
    --------
    >>> calls = [spawn(pow, (2, i)) for i in range(4)]
    >>> sorted(done.fetch() for done in as_completed(calls))
    [1, 2, 4, 8]
    """
    timeout = plain_scalar(timeout)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout has to be seconds, got {timeout!r}")
    if isinstance(objects, Execution):
        return objects.completed(timeout)
    chosen = choose(session)
    given: list[Handle] = []
    for one in [objects] if isinstance(objects, Handle) else objects:
        if not isinstance(one, Handle):
            raise TypeError(f"as_completed takes objects made by spawn or map, got {one!r:.80}")
        given.append(one)
    run: Execution = chosen.runs.run(
        given,
        finish=lambda: None,
        plain=True,
        wait=False,
        on_error="continue",
        seed=seed,
        checkpoint=checkpoint,
    )
    return run.completed(timeout, stop=True)


as_completed.__module__ = "mars.remote"  # where programs find it

__all__ = ["as_completed"]
