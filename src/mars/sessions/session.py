"""A session: what a program has executed on an engine, with its values, errors and logs.

Objects execute and fetch themselves by way of `mars.sessions.runs` and `mars.sessions.outcomes`;
the methods here do it for several objects. `mars.sessions.opening` makes sessions, and
`mars.sessions.opened` knows which are open.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol, cast

from mars.engine import Engine, SessionRealm
from mars.logs import LogFetcher
from mars.sessions.logs import CallLogs
from mars.sessions.opened import Opened
from mars.sessions.opened import opened as opened_here
from mars.sessions.outcomes import Outcomes
from mars.sessions.runs import Runs
from mars.sessions.views import Views
from mars.task import Call, Handle, Output
from mars.tracebacks import trim

TYPE_CHECKING = False  # known to type checkers; states are loaded when somebody looks
if TYPE_CHECKING:
    from mars.checkpoint.checkpoint import Checkpoint
    from mars.logs import Offsets

    class _Page(Protocol):
        """What shows it in a browser, as `mars.web.server.Page` does."""

        @property
        def facts(self) -> object: ...
        @property
        def link(self) -> str: ...
        def close(self) -> None: ...

    class _Desk(Protocol):
        def leave(self) -> None: ...


_ACCEPTED: Final = frozenset(
    {
        "cancelled", "extra_config", "fuse_enabled", "new_session_kwargs",
        "warn_duplicated_execution",
    }
)  # fmt: skip


_OF_EXECUTE: Final = (
    "checkpoint", "echo", "on_error", "progress_update_interval", "report", "seed",
    "session", "show_progress", "wait",
)  # fmt: skip


class Session(Outcomes, Views):
    """What a program has executed on an engine.

    `new_session` makes it. As a context manager it closes itself at the end. The engine stays if
    other sessions use it.

    Attributes
    ----------
    session_id : str
        Id of the session.
    address : str
        Address of the engine: ``new_session(address)`` makes another session on it.
    """

    __module__ = "mars.session"  # where programs find it

    def __init__(
        self,
        engine: Engine,
        session_id: str,
        *,
        seed: int | None = 0,
        timeout_s: float | None = None,
        nested: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        self.session_id = session_id
        self.address = engine.address
        self.engine = engine
        self.realm = SessionRealm(engine, session_id)
        self.runs = Runs(self.realm, session_id, seed=seed, timeout_s=timeout_s, nested=nested)
        self.logs = CallLogs(self.realm)
        self.page: _Page | None = None  # what shows it in a browser, see `mars.web.server`
        self.desk: _Desk | None = None  # where the commands of its user ask, see `mars.web.desk`
        self._nested = nested
        self._lock = threading.Lock()
        if checkpoint is not None:
            self.runs.checkpoint = self.runs.checkpoint_at(checkpoint)

    # -- executing ----------------------------------------------------------------------------

    def execute(
        self,
        *objects: object,
        wait: bool = True,
        show_progress: bool | str | None = None,
        progress_update_interval: float = 1,
        on_error: str = "raise",
        seed: int | None = None,
        checkpoint: object = None,
        echo: bool | str | None = None,
        report: str | os.PathLike[str] | None = None,
        **accepted: Any,
    ) -> Any:
        """Run everything that ``objects`` need and that is not done yet.

        Parameters
        ----------
        objects : Object
            What to execute, or one list, tuple or iterator of them.
        wait : bool, default True
            False: return a future at once.
        show_progress : bool or "auto", optional
            Default: ``mars.options.show_progress``.
        progress_update_interval : float, default 1
            Seconds between two looks at the progress, at most.
        on_error : {"raise", "continue"}
            "raise": the first failure ends the run and is raised. Results that are there stay,
            calls that run go on, and no further call is started. "continue": everything that can
            run does. An object that failed raises its own error when it is fetched.
        seed : int, optional
            Seed of `mars.remote.rng` in this run. Default: the session's.
        checkpoint : path, URL or False, optional
            Where this run keeps its results and looks for earlier ones. False: nowhere. Default:
            the session's.
        echo : {"all", "failures", "summary", True, False}, optional
            What is shown of what calls print, as of ``mars.options.echo``, which is the default.
            "all", or True: each line, as soon as it is complete, behind the name of its call.
        report : path, optional
            A file for the report on this run, ``.html`` or ``.json``; see `report`. It is written
            when the run has ended, also if a call failed.

        Returns
        -------
        Object, list or Execution
            One object: that object. Several objects: a list of them. With ``wait=False``: a future
            of that.

        Raises
        ------
        BaseException
            The error of the first call that failed.
        SessionClosed
            The session was closed.
        NoAvailableBand
            A call asks for more than any group of workers has.
        """
        try:
            unknown = accepted.keys() - _ACCEPTED
            if unknown:
                from mars.calls.mistakes import unknown_argument

                raise TypeError(unknown_argument("execute", min(unknown), _OF_EXECUTE))
            given = _handles(objects, "execute")
            result: object = given[0] if len(given) == 1 else list(given)
            for one in given:
                if not isinstance(one, Output):  # most programs have only these, and many
                    one.describe_beside(given, self)
            return self.runs.run(
                given,
                wait=wait,
                show_progress=show_progress,
                interval_s=progress_update_interval,
                on_error=on_error,
                seed=seed,
                finish=lambda: result,
                plain=True,
                cancelled=accepted.get("cancelled"),
                checkpoint=checkpoint,
                echo=echo,
                report=report,
            )
        except BaseException as error:
            trim(error)
            raise

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint, with ``reused``, ``executed`` and ``saved_s``. None: there is none."""
        return self.runs.checkpoint

    def put(self, value: object) -> Any:
        """Store a value once, for all calls and all runs of this session.

        Parameters
        ----------
        value : object
            What to store.

        Returns
        -------
        Object
            It needs no `execute`. All else is as of `mars.remote.put`.

        Raises
        ------
        EncodeError, StoreFull, SessionClosed
            As of `mars.remote.put`.
        """
        return above["put"](value, session=self)

    def executor(self, max_workers: int | None = None, **kwargs: object) -> Any:
        """An executor of `concurrent.futures` whose calls run in this session.

        Parameters
        ----------
        max_workers : int, optional
            How many of its calls may be in flight at a time. Default: as many as there are cores.
        **kwargs
            As of `mars.Executor`.

        Returns
        -------
        mars.Executor
            When it is shut down, the session stays open.
        """
        return above["executor"](max_workers, session=self, **kwargs)

    # -- reading ------------------------------------------------------------------------------

    def fetch(self, *objects: object, **unknown: object) -> Any:
        """Values of objects that were executed in this session.

        Parameters
        ----------
        objects : Object
            One or several, or one list, tuple or iterator of them.

        Returns
        -------
        object or list
            One object: its value. Several objects: a list of their values.

        Raises
        ------
        TypeError
            There is an argument that `fetch` does not have, such as ``timeout``: it never waits.
        NotExecuted
            An object was not executed here (a ValueError).
        BaseException
            The call of an object failed: its own error.
        """
        try:
            if unknown:
                refuse_fetch_arguments(unknown)
            values = self.values(_handles(objects, "fetch"))
            return values[0] if len(values) == 1 else values
        except BaseException as error:
            trim(error)
            raise

    def follow_log(self, call: Call) -> Iterator[str]:
        """The lines that a call prints, as it prints them, until it has ended.

        Parameters
        ----------
        call : Call
            The call. It may run, have ended, or wait for its turn.

        Raises
        ------
        SessionClosed
            The session was closed. If it is closed later, the lines end.
        """
        self.realm.check_open()
        return self.logs.follow(call)

    def follow_logs(self, handles: Sequence[Handle]) -> Iterator[str]:
        """The lines of several calls, as they print them, until all have ended.

        Each line begins with the name of its call. It raises what `follow_log` raises.

        Parameters
        ----------
        handles : sequence of Object
            Objects, maps and the like.
        """
        from mars.observe.echo import label_line, labels

        self.realm.check_open()
        found = [call for one in handles for call in one.calls_logged(self.realm)]
        feeds = self.logs.feeds(labels(list(dict.fromkeys(found))))
        return self.logs.follow_all(feeds, label_line)

    def fetch_log(
        self, *objects: object, offsets: Offsets | None = None, sizes: Offsets | None = None
    ) -> list[LogFetcher]:
        """What the calls of objects have printed.

        Parameters
        ----------
        objects : Object
            One or several, or one list or tuple of them.
        offsets, sizes : int, str, dict or list, optional
            See `mars.remote.Object.fetch_log`.

        Returns
        -------
        list of LogFetcher
            The log of each object. In the place of a map among several objects is a list of the
            logs of its items.
        """
        given: Sequence[Any] = _handles(objects, "fetch_log")
        logs = [one.fetch_log(session=self, offsets=offsets, sizes=sizes) for one in given]
        return logs[0] if len(given) == 1 and not isinstance(given[0], Output) else logs

    def fetch_infos(self, *objects: object, fields: Sequence[str] | None = None) -> list[Any]:
        """Facts about stored results; see `mars.session.fetch_infos`."""
        given: Sequence[Any] = _handles(objects, "fetch_infos")
        return [one.infos_in(self, fields) for one in given]

    # -- the session itself --------------------------------------------------------------------

    def as_default(self) -> Session:
        """Make this the default session.

        Returns
        -------
        Session
            Itself.

        Raises
        ------
        SessionClosed
            The session was closed.
        """
        self.realm.check_open()
        opened.default = self
        return self

    def close(self) -> None:
        """End the session. The engine ends with its last session. A second call does nothing."""
        with self._lock:
            if self.realm.closed or self._nested:
                return
            self.realm.closed = True
        if opened.default is self:
            opened.default = None
        with contextlib.ExitStack() as ending:  # all of it is done, whatever fails
            ending.callback(opened.leave, self)
            ending.callback(self.close_checkpoints)
            ending.callback(self.close_views)

    destroy = close

    def close_checkpoints(self) -> None:
        """Write to the disk what checkpoints keep. That needs the engine, so it is done first."""
        with contextlib.ExitStack() as ending:
            for checkpoint in self.runs.checkpoints.values():
                ending.callback(checkpoint.close)

    def close_views(self) -> None:
        """Tell nobody anything any more: no hook, page or command. A second call does nothing."""
        self.runs.end_following()
        with self._lock:
            desk, self.desk = self.desk, None
        if desk is not None:
            desk.leave()
        if self.page is not None:
            self.page.close()

    def stop_server(self) -> None:
        """End the engine and all sessions on it. A second call does nothing."""
        if self._nested:
            return
        with contextlib.ExitStack() as ending:
            ending.callback(self.close)
            ending.callback(opened.stop, self.engine)

    def __enter__(self) -> Session:
        self.realm.check_open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return self.realm.closed

    def get_total_n_cpu(self) -> int:
        """Cores that the calls of this engine share."""
        return int(self.engine.n_cpu)

    def get_worker_addresses(self) -> list[str]:
        """Addresses of worker groups, for ``spawn(..., expect_worker=address)``."""
        return list(self.engine.worker_addresses)

    def get_cluster_versions(self) -> list[str]:
        """Versions of mars that run in the engine."""
        from mars._version import __version__

        return [__version__]

    def get_web_endpoint(self) -> str | None:
        """The address of the page, with its key. None: the session has no page.

        Whoever has it may read all that the session's calls print, and cancel them.
        """
        return None if self.page is None or self.closed else str(self.page.link)

    def create_remote_object(
        self, name: str, cls: Callable[..., object], *args: object, **kw: object
    ) -> Any:
        """Make an object in this process that all calls of the session share.

        Parameters and errors as of `mars.attempt.context.Context.create_remote_object`. Nothing is
        pickled here.
        """
        return self.engine.create_object(self.session_id, name, cls, args, kw)

    def get_remote_object(self, name: str) -> Any:
        """The shared object of that name.

        Parameters
        ----------
        name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none.
        """
        return self.engine.get_object(self.session_id, name)

    def destroy_remote_object(self, name: str) -> None:
        """Forget a shared object.

        Parameters
        ----------
        name : str
            As given to `create_remote_object`.

        Raises
        ------
        KeyError
            There is none.
        """
        self.engine.destroy_object(self.session_id, name)

    def __repr__(self) -> str:
        return f"<Session {self.session_id} on {self.address}, {self._told()}>"

    def _told(self) -> str:
        """What it has, and what runs in it now."""
        if self.realm.closed:
            return "closed"
        told = f"{self.engine.n_cpu:g} cpus"
        seen = self.engine.observe()
        runs = [one for one in seen.runs if one.session == self.session_id and not one.depth]
        if not runs:
            return told
        running = len([w for w in seen.workers if {one.number for one in runs} & {*w.runs}])
        total, done = sum(one.total for one in runs), sum(one.done for one in runs)
        several = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        return f"{told}, {several}: {done} of {total} done, {running} running"

    def _repr_html_(self) -> str:
        from html import escape

        return (
            f"<table><tr><th>Session</th><td>{escape(self.session_id)}</td></tr>"
            f"<tr><th>engine</th><td>{escape(self.address)}</td></tr>"
            f"<tr><th>state</th><td>{escape(self._told())}</td></tr></table>"
        )


above: Final[dict[str, Callable[..., object]]] = {}
"""What a session offers although the modules that do it stand above this one, by name.

`mars.session`, from which programs get their sessions, says what is here."""


class SessionView:
    """A session with another surface, such as the one for ``async`` code.

    Attributes
    ----------
    session : Session
        The session.
    """

    session: Session


AnySession = Session | SessionView
"""What programs may pass where a session is asked for."""


def refuse_fetch_arguments(given: dict[str, object]) -> None:
    """Refuse arguments that `fetch` does not have, as the original does.

    Raises
    ------
    TypeError
        Always.
    """
    advice = ""
    if "timeout" in given:
        advice = (
            "; fetch does not wait: execute(wait=False).result(timeout=...) waits so long at most"
        )
    elif "on_error" in given:
        advice = "; it belongs to execute: execute(on_error='continue'), then errors() and fetch()"
    raise TypeError(f"`fetch` got unexpected arguments: {', '.join(given)}{advice}")


def _handles(objects: Sequence[object], what: str) -> Sequence[Handle]:
    """The objects, maps and tuples that a function was given; they may come in one list.

    They may also come out of one iterator, such as a generator.
    """
    if len(objects) == 1 and isinstance(objects[0], (tuple, list, Iterator)):
        objects = tuple(objects[0])
    given: list[Handle] = []
    for one in objects:
        if not isinstance(one, Handle):
            raise TypeError(f"{what} takes objects made by spawn or map, got {one!r:.80}")
        given.append(one)
    return given


opened: Final = cast("Opened[Session]", opened_here)
"""What is open in this process. Its module knows no session, see there."""

__all__ = ["AnySession", "Opened", "Session", "SessionView", "opened"]
