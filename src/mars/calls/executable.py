"""What a program can execute and fetch, whatever it stands for.

`Executable` has all that objects, tuples of objects and maps have in common. To bring in another
kind of handle, such as a tensor or a table, make a subclass; the docstring of the class says what
it has to provide. Nothing runs here: the session does that, see `mars.sessions.runs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast

from mars.errors import NotExecuted, SessionClosed
from mars.sessions.opening import choose, get_default_session
from mars.task import Call, Handle, Output
from mars.tracebacks import trim

if TYPE_CHECKING:
    from mars.engine import SessionRealm
    from mars.logs import Offsets
    from mars.sessions.runs import RunArguments
    from mars.sessions.session import AnySession, Session
    from mars.task import Realm

V_co = TypeVar("V_co", covariant=True)

_UNUSED: Final = ("extra_config", "fuse_enabled", "warn_duplicated_execution")
_ARGUMENTS_OF_RUN: Final = frozenset(
    {"show_progress", "on_error", "seed", "cancelled", "checkpoint", "echo", "interval_s", "report"}
)


class Executable(Handle, Generic[V_co]):
    """What can be executed and fetched: an object, several objects together, or a map.

    Notes
    -----
    To add a kind of handle, write a subclass that provides two methods: `_parts` returns the
    executables that it consists of, and `_shaped` makes its value of their values. All else follows
    from these two. A dict of calls, for example, has the calls as its parts, and puts their values
    under the same keys::

        class Calls(dict, Executable):
            def _parts(self):
                return list(self.values())

            def _shaped(self, values):
                return dict(zip(self, values))

    A subclass whose values are not those of separate parts overrides `calls_in`, `value_in` and
    `error_in` instead. A map does so, because it keeps its values in blocks. If a handle can stand
    for no call at all, `_is_empty` says when it does, and `_nothing` is its value then.
    """

    __slots__ = ()
    __module__ = "mars.remote"  # where programs find it

    _nothing: ClassVar[object] = None

    # -- what a program calls ------------------------------------------------------------------

    def execute(
        self,
        session: AnySession | None = None,
        wait: bool = True,
        show_progress: bool | str | None = None,
        progress_update_interval: float = 1,
        on_error: str = "raise",
        seed: int | None = None,
        echo: bool | str | None = None,
        **accepted: object,
    ) -> Any:
        """Run what this stands for, and all that it needs. What is done already is not run again.

        Parameters
        ----------
        session : Session, optional
            Default: the default session. If there is none, one is made, and a line says so.
        wait : bool, default True
            False: return a future at once.
        show_progress : bool or "auto", optional
            Default: ``mars.options.show_progress``, which is "auto".
        progress_update_interval : float, default 1
            Seconds between two looks at the progress, at most.
        on_error : {"raise", "continue"}
            See `mars.session.Session.execute`.
        seed : int, optional
            Seed of `rng` in this run. Default: the session's.
        echo : {"all", "failures", "summary", True, False}, optional
            What is shown of what calls print; see `mars.session.Session.execute`.
        report : path, optional
            A file for the report on this run, ``.html`` or ``.json``.

        Returns
        -------
        Executable or Execution
            Itself. With ``wait=False`` a `concurrent.futures.Future` of itself; for a tuple, a
            future of the list of its members.

        Raises
        ------
        BaseException
            The error of the first call that failed.

        Examples
        --------
        >>> spawn(sum, args=([1, 2, 3],)).execute().fetch()
        6
        """
        try:
            if wait and self._is_empty():
                return self
            if accepted:
                chosen = _choose(session, accepted)
                _drop_unused(accepted)
            else:
                chosen = choose(session)
            self.describe_beside((self,), chosen)
            result = self if wait else self._executed()
            return chosen.runs.run(
                [self],
                wait=wait,
                show_progress=show_progress,
                interval_s=progress_update_interval,
                on_error=on_error,
                seed=seed,
                echo=echo,
                finish=lambda: result,
                **_run_arguments(accepted),  # type: ignore[misc]  # what is not above
            )
        except BaseException as error:
            trim(error)
            raise

    def fetch(self, session: AnySession | None = None, **unknown: object) -> V_co:
        """The value. What that is depends on the kind of handle.

        A single object: what its call returned. Several objects: a list of their values;
        ``(value,)`` if there is one object, ``()`` if there is none; a namedtuple if they were
        given as one. A map: a list of the values of its items.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        object
            A new value each time. Large arrays are not copied: they show the stored bytes until
            the program writes to them. Nobody else sees what it writes.

        Raises
        ------
        TypeError
            There is an argument that `fetch` does not have, such as ``timeout``: it never waits.
        NotExecuted
            A call was not executed in the session (a ValueError).
        BaseException
            A call failed: its own error.
        """
        try:
            if unknown:
                from mars.sessions.session import refuse_fetch_arguments

                refuse_fetch_arguments(unknown)
            if self._is_empty():
                return cast("V_co", self._nothing)
            return self.value_in(existing(session, self))
        except BaseException as error:
            trim(error)
            raise

    def to_object(self, session: AnySession | None = None, wait: bool = True, **kwargs: Any) -> Any:
        """Execute, unless that has been done, and fetch.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.
        wait : bool, default True
            False: return a future of the value at once.
        **kwargs
            As of `execute`.

        Returns
        -------
        object or Execution

        Raises
        ------
        BaseException
            A call failed: its own error.
        """
        try:
            if wait and self._is_empty():
                return self._nothing
            chosen = _choose(session, kwargs)
            if wait and self._is_done(chosen):
                return self.value_in(chosen)
            _drop_unused(kwargs)
            self.describe_beside((self,), chosen)
            return chosen.runs.run(
                [self], wait=wait, finish=lambda: self.value_in(chosen), **_run_arguments(kwargs)
            )
        except BaseException as error:
            trim(error)
            raise

    def cancel(self, session: AnySession | None = None) -> bool:
        """Stop the calls of this, and all calls that need their values. Other calls go on.

        `fetch` then raises `TaskCancelled`, and `execute` runs them again. A call that runs gets a
        KeyboardInterrupt; if that does not help, its process is replaced half a second later.
        Items that run in blocks of a map are stopped with the whole map only. To stop all calls of
        a run, use `Execution.cancel`.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        bool
            Whether a call was stopped. False: all have ended, or no run is at them.

        Raises
        ------
        UsageError
            It is called inside a call. There, cancel the run.

        Examples
        --------
        >>> import time
        >>> slow, quick = spawn(time.sleep, 60), spawn(abs, -1)
        >>> run = ExecutableTuple([slow, quick]).execute(wait=False)
        >>> slow.cancel(), run.result() and quick.fetch(), slow.states()
        (True, 1, ['cancelled'])
        """
        if self._is_empty():
            return False
        chosen = existing(session, self)
        stopped = False
        for leaf in self.leaves():
            for call in leaf.calls_in(chosen.realm):
                stopped |= chosen.withdraw(call)
        return stopped

    def errors(self, session: AnySession | None = None) -> list[Any]:
        """The error of each part: why it has no value. None for a part that has a value.

        That is the call's own error, or a `DependencyFailed`, `TaskCancelled`, and so on. A call
        that has not ended, or was not run, has a `NotExecuted`; its ``state`` says which. A single
        object has one part. In the place of a map among several objects is the list of the errors
        of its items.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.
        """
        if self._is_empty():
            return []
        found = self.error_in(existing(session, self))
        return found if isinstance(found, list) else [found]

    def states(self, session: AnySession | None = None) -> list[Any]:
        """The state of each part, in the order of `errors`.

        It is one of ``"not started"``, ``"waiting for inputs"``, ``"queued"``, ``"running"``,
        ``"done"``, ``"failed"``, ``"cancelled"`` and ``"reused"``. *Reused* is done, with a result
        that a checkpoint had. *Not started* are also calls whose run ended before their turn.

        Parameters
        ----------
        session : Session, optional
            Default: the default session. If there is none, the session in which each part was
            executed last.

        Examples
        --------
        >>> ExecutableTuple([spawn(abs, -1).execute(), spawn(abs, -2)]).states()
        ['done', 'not started']
        """
        if self._is_empty():
            return []
        found = self.state_in(default_realm() if session is None else choose(session).realm)
        return found if isinstance(found, list) else [found]

    def fetch_log(
        self,
        session: AnySession | None = None,
        offsets: Offsets | None = None,
        sizes: Offsets | None = None,
        follow: bool = False,
    ) -> Any:
        """The logs of all parts, as a list. The log of a map is a list of the logs of its items.

        With ``follow=True`` it is an iterator of the lines of all calls, as they are printed, until
        all of them have ended. Each line begins with the name of its call, such as ``fit 7 | ``.
        Calls with one name are numbered from 0, in their order here.

        For the parameters, and for what each log is, see `Object.fetch_log`.
        """
        if follow:
            if self._is_empty():
                return iter(())
            return existing(session, self).follow_logs((self,))
        return [
            one.fetch_log(session=session, offsets=offsets, sizes=sizes) for one in self._parts()
        ]

    def _fetch_infos(
        self, fields: Sequence[str] | None = None, session: AnySession | None = None
    ) -> object:
        """Facts about the stored results; programs of the original call it by this name."""
        return [] if self._is_empty() else self.infos_in(existing(session, self), fields)

    if not TYPE_CHECKING:  # else a type checker would take any name for one that is there

        def __getattr__(self, name: str) -> Any:
            from mars.calls import mistakes

            raise mistakes.missing(self, name)

    # -- what the session asks -----------------------------------------------------------------

    def calls_in(self, realm: Realm) -> Sequence[Call]:
        calls: list[Call] = []
        for one in self._parts():
            if isinstance(one, Output):  # most are, and there may be many
                calls.append(one.call)
            else:
                calls += one.calls_in(realm)
        return calls

    def calls_logged(self, realm: Realm) -> Sequence[Call]:
        return [call for one in self._parts() for call in one.calls_logged(realm)]

    def value_in(self, session: Session) -> V_co:
        return cast("V_co", self._shaped(session.values(self._parts())))

    def error_in(self, session: Session) -> object:
        return [one.error_in(session) for one in self._parts()]

    def leaves(self) -> Sequence[Executable[object]]:
        """The objects and maps that it consists of, for whoever tells of them one by one."""
        return [leaf for one in self._parts() for leaf in one.leaves()]

    def state_in(self, realm: SessionRealm | None) -> object:
        return [one.state_in(realm) for one in self._parts()]

    def infos_in(self, session: Session, fields: Sequence[str] | None = None) -> object:
        """Facts about the stored result, or a list of those of its parts."""
        return [one.infos_in(session, fields) for one in self._parts()]

    # -- what a subclass provides --------------------------------------------------------------

    def _parts(self) -> Sequence[Executable[object]]:
        """The executables that it consists of, in the order of their values."""
        raise NotImplementedError

    def _shaped(self, values: list[object]) -> object:
        """Its value, made of the values of its parts."""
        return values

    def _is_empty(self) -> bool:
        """Whether it stands for no call at all."""
        return False

    def _is_done(self, session: Session) -> bool:
        """Whether it is known to have its value in the session."""
        return False

    def _was_executed(self) -> bool:
        """Whether a call of it was executed, in whichever session."""
        return any(one._was_executed() for one in self._parts())

    def _title(self) -> str:
        """What errors call it."""
        return next((one._title() for one in self._parts()), "it")

    def _executed(self) -> object:
        """What a future returns once it was executed."""
        return self


def _drop_unused(kwargs: dict[str, object]) -> None:
    for unused in _UNUSED:
        kwargs.pop(unused, None)


def _run_arguments(kwargs: dict[str, object]) -> RunArguments:
    if not kwargs:
        return {}
    if "progress_update_interval" in kwargs:
        kwargs["interval_s"] = kwargs.pop("progress_update_interval")
    unknown = kwargs.keys() - _ARGUMENTS_OF_RUN
    if unknown:
        raise TypeError(_unknown("execute", min(unknown), {*_ARGUMENTS_OF_RUN, "session", "wait"}))
    return cast("RunArguments", kwargs)  # `Runs.run` looks at each


def _unknown(function: str, name: str, known: Iterable[str]) -> str:
    from mars.calls import mistakes

    return mistakes.unknown_argument(function, name, sorted(known))


def _choose(given: AnySession | None, accepted: dict[str, object]) -> Session:
    options = accepted.pop("new_session_kwargs", None) or {}
    assert isinstance(options, Mapping)
    return choose(given, **options)


def default_realm() -> SessionRealm | None:
    """What the tasks of the default session belong to; None: there is no default session."""
    default = get_default_session()
    return None if default is None else default.realm


def existing(given: AnySession | None, handle: Executable[object]) -> Session:
    """The session to read from. To read never starts an engine.

    Raises
    ------
    NotExecuted
        No session was given, there is no default session, and the handle was never executed.
    SessionClosed
        The same, but the handle was executed in a session that has ended, or is not the default.
    """
    found = get_default_session() if given is None else choose(given)
    if found is None:
        if handle._was_executed():
            raise SessionClosed("Session closed already, or not the default one")
        raise NotExecuted(handle._title())
    return found


__all__ = ["Executable", "default_realm", "existing"]
