"""The scheduler that Dask knows as "mars", and `enable`, which makes it the one that is used.

This module loads nothing more: `mars.dask.running` is loaded when something is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mars.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mars.sessions.session import AnySession

C = TypeVar("C")

OLDEST = (2026, 1)
"""The first version of Dask whose protocol for schedulers of others includes `persist`."""


class Scheduler:
    """A scheduler for Dask: ``x.compute(scheduler=mars.dask.Scheduler(session))``.

    `mars.dask.scheduler` is one for the default session; Dask knows it by the name "mars".

    Parameters
    ----------
    session : Session, optional
        Runs the calls. Default: the default session at the time of a `compute`. If there is none,
        one is made, with a warning.

    Examples
    --------
    >>> import dask
    >>> total = dask.delayed(sum)([dask.delayed(abs)(-1), dask.delayed(abs)(-2)])
    >>> total.compute(scheduler=Scheduler())
    3
    """

    __name__ = "mars"  # callbacks and reports of Dask ask for it
    __module__ = "mars.dask"

    def __init__(self, session: AnySession | None = None) -> None:
        self._session = session

    def __call__(self, dsk: object, keys: object, **kwargs: object) -> Any:
        """Compute keys of a graph; the same as `get`."""
        return self.get(dsk, keys, **kwargs)

    def get(self, dsk: object, keys: object, **kwargs: object) -> Any:
        """Compute keys of a graph. Dask calls this for `compute`.

        Parameters
        ----------
        dsk : mapping or expression
            The graph.
        keys : key or list
            What to compute. Lists may be nested.
        **kwargs
            ``session`` (Session): runs the calls instead. ``num_workers`` (int): how many calls the
            graph is cut for; default: the cores of the session. ``show_progress`` and ``seed`` are
            as of `mars.Session.execute`. Others are ignored, as by each scheduler of Dask.

        Returns
        -------
        object or tuple
            The value of a key. For a list, a tuple of the values in it.

        Raises
        ------
        KeyError
            A key is not in the graph.
        UsageError
            The graph has a circle, or needs a key that it does not have, or an annotation names a
            resource that no call can ask for.
        BaseException
            The error of the first task that failed.

        Examples
        --------
        >>> Scheduler().get({"a": 1, "b": (abs, -2), "c": (sum, ["a", "b"])}, "c")
        3
        """
        from mars.dask import running

        return running.compute(self._session, dsk, keys, kwargs)

    def persist(
        self, collections: Sequence[C], *, optimize_graph: bool = True, **kwargs: object
    ) -> list[C]:
        """Compute collections, and keep their chunks in the session. Dask calls it for `persist`.

        Parameters
        ----------
        collections : sequence
            Collections of Dask.
        optimize_graph : bool, default True
            Whether Dask optimizes the graphs first.
        **kwargs
            As of `get`.

        Returns
        -------
        list
            The same collections. Their graphs hold what stands for each chunk; the chunks are freed
            with the collections. Another scheduler that computes them fetches the chunks.

        Raises
        ------
        BaseException
            As of `get`.

        Examples
        --------
        >>> import dask
        >>> [kept] = Scheduler().persist([dask.delayed(abs)(-1)])
        >>> kept.compute(scheduler=Scheduler())
        1
        """
        from mars.dask import running

        return running.persist(self._session, collections, optimize_graph, kwargs)

    def __reduce__(self) -> tuple[object, ...]:
        # In a worker it is the scheduler for the session of the call.
        return Scheduler, ()

    def __dask_tokenize__(self) -> object:
        return ("mars-scheduler", id(self._session))

    def __repr__(self) -> str:
        which = "the default session" if self._session is None else repr(self._session)
        return f"<mars.dask.Scheduler of {which}>"


scheduler = Scheduler()
"""The scheduler for the default session, which Dask knows as "mars"."""

get = scheduler.get
persist = scheduler.persist

_before: list[_Enabled] = []


def enable(session: AnySession | None = None) -> AbstractContextManager[object]:
    """Have Dask compute with mars, unless a program names another scheduler.

    Shuffles of frames and rechunking of arrays are done by tasks from then on.

    Parameters
    ----------
    session : Session, optional
        Runs the calls. Default: the default session at the time of each `compute`.

    Returns
    -------
    context manager
        As a context manager it holds until the end of the block. Without ``with``, it holds until
        `disable`, or to the end of the program.

    Raises
    ------
    UsageError
        Dask is older than 2026.1.

    Examples
    --------
    >>> import dask
    >>> with enable():
    ...     dask.delayed(sum)([1, 2]).compute()
    3
    """
    import dask

    chosen = scheduler if session is None else Scheduler(session)
    held = dask.config.set(
        {
            "scheduler": chosen,
            "dataframe.shuffle.method": "tasks",
            "array.rechunk.method": "tasks",
        }
    )
    enabled = _Enabled(held)
    _before.append(enabled)
    return enabled


def disable() -> None:
    """Take back what `enable` has done. A second call does nothing.

    Examples
    --------
    >>> import dask
    >>> _ = enable()
    >>> disable()
    >>> dask.config.get("scheduler", None) is None
    True
    """
    while _before:
        _before.pop().end()


class _Enabled:
    """What is taken back at the end of a block."""

    def __init__(self, held: AbstractContextManager[object]) -> None:
        self._held = held
        self._ended = False

    def __repr__(self) -> str:
        state = "no more" if self._ended else "from here on"
        return f"<Dask computes with mars {state}>"

    def __enter__(self) -> _Enabled:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            if self in _before:
                _before.remove(self)
            self._held.__exit__(None, None, None)


def register() -> None:
    """Make the name "mars" known to Dask.

    Raises
    ------
    UsageError
        Dask is older than 2026.1.
    """
    import dask
    from dask.base import named_schedulers

    version = tuple(int(part) for part in dask.__version__.split(".")[:2] if part.isdigit())
    if version < OLDEST:
        raise UsageError(
            f"mars.dask needs Dask {OLDEST[0]}.{OLDEST[1]} or later, which lets other schedulers "
            f"persist; {dask.__version__} is installed: pip install -U dask"
        )
    named_schedulers["mars"] = scheduler


__all__ = ["Scheduler", "disable", "enable", "get", "persist", "register", "scheduler"]
