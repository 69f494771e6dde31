"""The objects that stand for results: of one call, of several calls, and of a map.

`mars.calls.spawn` makes them. What they have in common is in `mars.calls.executable`.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, TypeVar, cast, overload

from mars.attempt import codec
from mars.calls.executable import Executable, default_realm, existing
from mars.errors import SessionClosed
from mars.sessions.opening import get_default_session
from mars.task import Call, Handle, Output

if TYPE_CHECKING:
    from mars.calls.maps import MapCall
    from mars.calls.shown import Row
    from mars.engine import SessionRealm
    from mars.logs import LogFetcher, LogReader, Offsets
    from mars.observe.attempts import Attempt, Times
    from mars.sessions.session import AnySession, Session
    from mars.task import Realm, Task

    class _Fields(tuple[object, ...]):
        """What a type of named tuples has."""

        _fields: ClassVar[tuple[str, ...]]

        def __new__(cls, *values: object) -> _Fields: ...


R = TypeVar("R")

_INFO_FIELDS: Final = (
    "data_key", "object_id", "level", "memory_size", "store_size", "bands",
)  # fmt: skip


class Object(Output, Executable[R], Generic[R]):
    """One value of a call that was described with `spawn`.

    It is opaque: equal only to itself, hashable, true, and not a sequence. So it can go into any
    container, also into a numpy array of objects. As an argument of another `spawn` it stands for
    its value, however deep in containers it is.
    """

    __slots__ = ("_log",)
    __module__ = "mars.remote"  # where programs find it

    _log: tuple[SessionRealm, LogReader]

    @overload  # type: ignore[override]  # of one call it is one log
    def fetch_log(
        self, session: AnySession | None = None, offsets: Offsets | None = None,
        sizes: Offsets | None = None, follow: Literal[False] = False,
    ) -> LogFetcher: ...  # fmt: skip

    @overload
    def fetch_log(
        self,
        session: AnySession | None = None,
        offsets: Offsets | None = None,
        sizes: Offsets | None = None,
        *,
        follow: Literal[True],
    ) -> Iterator[str]: ...

    def fetch_log(
        self,
        session: AnySession | None = None,
        offsets: Offsets | None = None,
        sizes: Offsets | None = None,
        follow: bool = False,
    ) -> LogFetcher | Iterator[str]:
        """What the call has printed. Python code, C code, threads and child processes count alike.

        The log can be read while the call runs, and after it failed or its worker died.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.
        offsets : int, str, dict or list, optional
            Where to start, in bytes, or as a text such as ``"-0.5k"``. A negative number counts
            from the end. None: where the last `fetch_log` of this object ended.
        sizes : int, str, dict or list, optional
            How much to read at most, in bytes. Default: 1 MiB.
        follow : bool, default False
            True: return an iterator of the lines, as they are printed, until the call ends.

        Returns
        -------
        LogFetcher or iterator of str
            What was read, as a text that never changes. See `log` for all of it.

        Examples
        --------
        >>> hello = spawn(print, args=("hello",)).execute()
        >>> print(hello.fetch_log())
        hello
        <BLANKLINE>
        """
        from mars.logs import LogFetcher, LogReader  # late: loaded with the session

        call = self.call
        if session is None and call.task is None and get_default_session() is None:
            return iter(()) if follow else LogFetcher("", self.key)
        chosen = existing(session, self)
        if follow:
            return chosen.follow_log(call)
        known = getattr(self, "_log", None)
        realm, logs = chosen.realm, chosen.logs
        if known is None or known[0] is not realm:
            # It holds the call, not this object: the object would keep itself and its value alive.
            # And it does not hold the session, so that `mars.sessions.replacing` sees who does.
            known = (realm, LogReader(call.key, lambda: logs.source(call)))
            self._log = known
        realm.check_open()
        return known[1].read(offsets=offsets, sizes=sizes)

    @property
    def log(self) -> str:
        r"""All that the call has printed so far, in the session that executed it last.

        It can be read while the call runs, and after it failed. Each look gives the whole log
        again; `fetch_log` reads a log in parts. Empty: nothing was printed, or the call was not
        executed.

        Raises
        ------
        SessionClosed
            The engine of the session has ended, and its logs with it.

        Examples
        --------
        >>> hello = spawn(print, args=("hello",)).execute()
        >>> hello.log
        'hello\n'
        >>> "hello" in hello.log
        True
        """
        from mars.engine import SessionRealm  # late, as in `fetch_log`
        from mars.logs import whole_text
        from mars.sessions.logs import CallLogs

        call = self.call
        task = call.task
        if task is None and call.whole is not None:
            task = call.whole.task  # an item of a map, in one of its blocks
        if task is None or not isinstance(task.realm, SessionRealm):
            return ""
        source = CallLogs(task.realm).source(call)
        try:
            return "" if source is None else whole_text(source)
        except OSError:
            if not task.realm.closed:
                raise
            raise SessionClosed(
                f"the log of {call.name} is gone: the session that executed it has ended; read "
                f".log before that, or keep its text"
            ) from None

    def infos_in(
        self, session: Session, fields: Sequence[str] | None = None
    ) -> dict[str, list[object]]:
        task = session.task_of(self)
        size = sum(_size_of(value) for value in _values(task, self.index)) // _sharers(task)
        facts = {
            "data_key": self.key,
            "object_id": f"{self.key}_{self.index}",
            "level": "MEMORY",
            "memory_size": size,
            "store_size": size,
            "bands": [((*session.get_worker_addresses(), session.address)[0], "numa-0")],
        }
        unknown = set(fields or ()) - set(_INFO_FIELDS)
        if unknown:
            raise ValueError(f"there is no field {min(unknown)!r}; known: {_INFO_FIELDS}")
        return {field: [facts[field]] for field in fields or _INFO_FIELDS}

    def _is_done(self, session: Session) -> bool:
        return session.executed(self)

    def _was_executed(self) -> bool:
        return self.call.task is not None

    def leaves(self) -> Sequence[Object[R]]:
        return (self,)

    def state_in(self, realm: SessionRealm | None) -> str:
        from mars.observe.states import state_in

        return state_in(self.call, realm).word

    def _title(self) -> str:
        from mars.observe.states import title_of

        return title_of(self.call)

    def times(self, session: AnySession | None = None) -> Times | None:
        """When the call went through its stages, from queued to stored.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        Times or None
            Eight moments, in seconds of `time.monotonic`. None: the call has not ended.

        Examples
        --------
        >>> spawn(abs, -1).execute().times().running_s < 60
        True
        """
        return existing(session, self).times(self)

    def attempts(self, session: AnySession | None = None) -> list[Attempt]:
        """Where each attempt of the call ran, and how it ended, in the order of the attempts.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        list of Attempt
            The attempts that have ended, each with its node, the process id of its worker, and how
            it ended. Empty if the result came from a checkpoint.

        Examples
        --------
        >>> [attempt.ending for attempt in spawn(abs, -1).execute().attempts()]
        ['value']
        """
        return existing(session, self).attempts(self)

    @property
    def key(self) -> str:
        """32 hexadecimal digits that no other call has."""
        return self.call.key

    @property
    def name(self) -> str:
        """The call's name."""
        return self.call.name

    @property
    def op(self) -> Object[R]:
        """The object itself. In the original it is an operand, which has the same ``key``."""
        return self

    data = op

    @property
    def inputs(self) -> list[Object[object]]:
        """The objects that are inputs of the call."""
        return [Object(call, index) for call, index in self.call.inputs]

    @property
    def cache(self) -> bool:
        """True. A result is kept as long as anything holds its object."""
        return True

    @cache.setter
    def cache(self, _: bool) -> None:
        """Accepted for programs of the original, without effect: results are kept anyway."""

    def copy(self) -> Object[R]:
        """Another object for the same value."""
        return Object(self.call, self.index)

    def __reduce__(self) -> tuple[object, ...]:
        return codec.place_of(self)

    def __copy__(self) -> Object[R]:
        return self.copy()

    def __repr__(self) -> str:
        return f"<{self._row().line(time.monotonic())}>"

    def __str__(self) -> str:
        """As the original shows it."""
        return f"Object <op=RemoteFunction, key={self.key}_{self.index}>"

    def _row(self) -> Row:
        from mars.calls.shown import row_of

        row = row_of(self.call, default_realm())
        several = self.call.n_output
        return row if several is None else row._replace(name=f"{row.name}[{self.index}]")

    def rows_shown(self, most: int) -> Sequence[Row]:
        return (self._row(),)

    def _repr_html_(self) -> str:
        from mars.calls.shown import table_of

        inputs = len(self.call.inputs)
        if not inputs:
            return table_of([self], "Object")
        return table_of([self], f"Object with {inputs} input{'' if inputs == 1 else 's'}")


def _sharers(task: Task) -> int:
    """How many values are stored together: the values of a whole block, if it is an item of one."""
    return len(task.source.items) if task.source is not None else 1


def _values(task: Task, index: int) -> Iterable[object]:
    if task.source is not None:
        return [task.source.result[0]]
    return [task.result if task.call.n_output is None else task.result[index]]


def _size_of(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value[1], int):  # in an arena: pickle, arena, offset, length, sizes
        return len(value[0] or b"") + int(sum(value[4]))
    return len(value[0]) + sum(len(buffer) for buffer in value[1])


class ExecutableTuple(tuple[Any, ...], Executable[Any]):
    """Objects that are executed and fetched together.

    Parameters
    ----------
    objects : iterable of Object
        Maps, and tuples of objects, can be among them. A namedtuple keeps its fields, and `fetch`
        returns a namedtuple of the same type.

    Examples
    --------
    >>> ExecutableTuple([spawn(abs, -1), spawn(abs, -2)]).execute().fetch()
    [1, 2]
    """

    __module__ = "mars.remote"  # where programs find it

    _named: type[_Fields] | None
    _kinds: set[type]  # of its members; few, while there may be a million objects
    _nothing: ClassVar[object] = ()

    def __new__(cls, objects: Iterable[object] = ()) -> ExecutableTuple:
        made = super().__new__(cls, objects)
        # The type of a namedtuple has fields.
        kind = type(objects)
        made._named = cast("type[_Fields]", kind) if hasattr(kind, "_fields") else None
        made._kinds = set(map(type, made))
        return made

    def __reduce__(self) -> tuple[object, ...]:
        return _remade, (tuple(self), self._named)

    def __getattr__(self, name: str) -> Any:
        named = self.__dict__.get("_named")
        if named is not None and name in named._fields:
            return self[named._fields.index(name)]
        from mars.calls import mistakes

        raise mistakes.missing(self, name)

    def __dir__(self) -> list[str]:
        fields = self._named._fields if self._named is not None else ()
        return [*super().__dir__(), *fields]

    def __repr__(self) -> str:
        if self._named is not None:
            return repr(self._named(*self))
        from mars.calls.shown import listing

        return listing(self)

    def _repr_html_(self) -> str:
        from mars.calls.shown import table_of, tally

        leaves = cast("Sequence[Object[object] | MapObjects[object]]", self.leaves())
        states = [one for leaf in leaves for one in leaf.states()]
        told = f"{len(states):,} calls: {tally(states)}" if states else "no calls"
        return table_of(leaves, told)

    def describe_beside(self, handles: Sequence[Handle], session: Session) -> None:
        """Describe calls of its members that are not described yet.

        ``session`` asks this before it executes ``handles`` together.
        """
        if self._kinds <= _SINGLE:
            return  # as most often: single objects are described
        for one in self:
            if not isinstance(one, Output) and isinstance(one, Handle):
                one.describe_beside(handles, session)

    def _parts(self) -> ExecutableTuple:
        if not (self._kinds <= _SINGLE or all(issubclass(kind, Handle) for kind in self._kinds)):
            for one in self:
                if not isinstance(one, Handle):
                    raise TypeError(
                        f"an ExecutableTuple holds objects of spawn or map, got {one!r:.80}"
                    )
        return self

    def _shaped(self, values: list[object]) -> object:
        if self._named is not None:
            return self._named(*values)
        return values if len(values) > 1 else tuple(values)

    def _is_empty(self) -> bool:
        return not self

    def _executed(self) -> list[object]:
        return list(self)


_SINGLE: Final = frozenset({Object})
"""What `spawn` returns."""


def _remade(objects: tuple[object, ...], named: type[_Fields] | None) -> ExecutableTuple:
    return ExecutableTuple(objects if named is None else named(*objects))


class MapObjects(Sequence[Any], Executable[list[R]], Generic[R]):
    """The calls of `map`: a sequence with one object per item. Indexing it makes the object."""

    __module__ = "mars.remote"  # where programs find it

    _nothing: ClassVar[object] = []

    def __init__(self, call: MapCall) -> None:
        self._whole: Output = Output(call, 0)
        self._call = call
        self._made: dict[int, Object[R]] = {}
        for index in sorted(call.own):
            self[index]  # it has inputs, so it is a call of its own, which its object holds

    def __len__(self) -> int:
        return self._call.count

    @overload
    def __getitem__(self, index: int) -> Object[R]: ...

    @overload
    def __getitem__(self, index: slice) -> list[Object[R]]: ...

    def __getitem__(self, index: int | slice) -> object:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = operator.index(index)
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError("map index out of range")
        made = self._made.get(index)
        if made is None:
            made = self._made[index] = Object(self._call.item(index), 0)
        return made

    def loose(self, index: int) -> Object[R]:
        """The object of an item, which is not held here: its value goes when nobody holds it."""
        made = self._made.get(index)
        return Object(self._call.item(index), 0) if made is None else made

    def calls_in(self, realm: Realm) -> Sequence[Call]:
        return self._call.pieces(realm) if len(self) else ()

    def calls_logged(self, realm: Realm) -> Sequence[Call]:
        return self._call.logged(realm)

    def value_in(self, session: Session) -> list[R]:
        return cast("list[R]", self._call.values(session.realm))  # as the function gave them

    def error_in(self, session: Session) -> list[BaseException | None]:
        return self._call.errors(session.realm)

    @property
    def whole(self) -> Call:
        """The call that all items have in common."""
        return self._call

    @property
    def own_items(self) -> set[int]:
        """Items that are calls of their own, and run outside of the map's blocks."""
        return self._call.own | self._call.made.keys()

    def leaves(self) -> Sequence[Executable[object]]:
        return (self,)

    def state_in(self, realm: SessionRealm | None) -> list[str]:
        task = self._call.task
        where: Any = task.realm if realm is None and task is not None else realm
        return [state.word for state in self._call.states(where)]

    def _title(self) -> str:
        return f"the map of {self._call.name}"

    def _parts(self) -> list[Object[R]]:
        return list(self)

    def _is_empty(self) -> bool:
        return not len(self)

    def _was_executed(self) -> bool:
        return self._call.task is not None

    def __reduce__(self) -> tuple[object, ...]:
        return list, (list(self),)

    def __repr__(self) -> str:
        from mars.calls.shown import tally

        told = f": {tally(self.states())}" if self._call.count else ""
        return f"<map of {self._call.name} over {len(self):,} items{told}>"

    def rows_shown(self, most: int) -> Sequence[Row]:
        from mars.calls.shown import rows_of_map

        return rows_of_map(self._call, default_realm(), most)

    def _repr_html_(self) -> str:
        from mars.calls.shown import table_of

        return table_of([self], repr(self)[1:-1])


__all__ = ["ExecutableTuple", "MapObjects", "Object"]
