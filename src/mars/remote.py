"""Describing calls: `spawn`, `map`, and the objects that stand for their results.

Nothing runs here. `Object.execute` asks the session to; what the session knows of a call is in
`mars.session`, how it runs in `mars.engines`.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, TypeVar, overload

from mars import session
from mars.attempt import call as attempt_call
from mars.attempt import codec, context
from mars.code import functions
from mars.config import is_eager, plain_scalar
from mars.config import options as program_options
from mars.engine import Run
from mars.errors import EncodeError, NotExecuted, SessionClosed
from mars.items import ItemCall, MapCall
from mars.logs import LogFetcher
from mars.observe.attempts import Attempt, Times
from mars.session import get_default_session
from mars.task import (
    DEFAULT_OPTIONS,
    Call,
    Function,
    Handle,
    Options,
    Output,
    check_function,
    parse_options,
)

if TYPE_CHECKING:
    from mars.execution import Execution
else:

    def __getattr__(name: str) -> object:
        # Late, as it comes with `concurrent.futures`, see `mars.errors`.
        if name != "Execution":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mars.execution import Execution

        return Execution


R = TypeVar("R")
T = TypeVar("T")

_INFO_FIELDS: Final = (
    "data_key", "object_id", "level", "memory_size", "store_size", "bands",
)  # fmt: skip


class Executable(Handle):
    """What can be executed and fetched: an object, several together, or a map."""

    __slots__ = ()

    _nothing: ClassVar[Any] = None  # the value of one that holds nothing

    def execute(
        self,
        session: Any = None,
        wait: bool = True,
        show_progress: bool | str | None = None,
        progress_update_interval: float = 1,
        on_error: str = "raise",
        seed: int | None = None,
        **accepted: Any,
    ) -> Any:
        """Run what it stands for and all that this needs, unless that is done.

        Parameters
        ----------
        session : Session, optional
            Default: the default session; one is made, with a warning, when there is none.
        wait : bool, default True
            False: give a future at once.
        show_progress : bool or "auto", optional
            Default: ``mars.options.show_progress``, which is "auto".
        progress_update_interval : float, default 1
            Seconds between two looks, at the most.
        on_error : {"raise", "continue"}
            See `mars.session.Session.execute`.
        seed : int, optional
            Seed of `rng` in this run; default: the session's.

        Returns
        -------
        Executable or Execution
            Itself; with ``wait=False`` a `concurrent.futures.Future` of itself, of a tuple one of
            the list of its members.

        Raises
        ------
        BaseException
            The first failing call's own error.

        Examples
        --------
        >>> spawn(sum, args=([1, 2, 3],)).execute().fetch()
        6
        """
        if wait and self._is_empty():
            return self
        chosen = _choose(session, accepted)
        if accepted:
            _drop_unused(accepted)
        result = self if wait else self._executed()
        return chosen.run(
            [self],
            wait=wait,
            show_progress=show_progress,
            interval_s=progress_update_interval,
            on_error=on_error,
            seed=seed,
            finish=lambda: result,
            **_run_arguments(accepted),
        )

    def to_object(self, session: Any = None, wait: bool = True, **kwargs: Any) -> Any:
        """Execute unless executed, and fetch.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.
        wait : bool, default True
            False: give a future of the value at once.
        **kwargs
            As of `execute`.

        Returns
        -------
        object or Execution

        Raises
        ------
        BaseException
            The call failed: its own error.
        """
        if wait and self._is_empty():
            return self._nothing
        chosen = _choose(session, kwargs)
        if wait and self._is_done(chosen):
            return self._value_in(chosen)
        _drop_unused(kwargs)
        return chosen.run(
            [self], wait=wait, finish=lambda: self._value_in(chosen), **_run_arguments(kwargs)
        )

    def _is_empty(self) -> bool:
        """Whether there is nothing to execute."""
        return False

    def _is_done(self, session: session.Session) -> bool:
        """Whether it is known to have its value."""
        return False

    def _executed(self) -> Any:
        """What a future of its run gives."""
        return self


class Object(Executable, Output, Generic[R]):
    """One value of a call that was described with `spawn`.

    Opaque: it is equal only to itself, hashable, true, and not a sequence, so it can go into
    any container, numpy object arrays included. As an argument of another `spawn`, however deep
    in containers, it stands for its value.
    """

    __slots__ = ("_log",)

    _log: tuple[session.Session, LogFetcher]

    def fetch(self, session: Any = None, **_: Any) -> R:
        """The value.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        object
            A fresh one each time. Large arrays are not copied: they show the stored bytes until
            they are written to, and what is written is seen by nobody else.

        Raises
        ------
        NotExecuted
            It was not executed in the session (a ValueError).
        BaseException
            The call failed: its own error.
        """
        value: R = _existing(session, self).value(self)
        return value

    @overload
    def fetch_log(
        self, session: Any = None, offsets: Any = None, sizes: Any = None,
        follow: Literal[False] = False,
    ) -> LogFetcher: ...  # fmt: skip

    @overload
    def fetch_log(
        self, session: Any = None, offsets: Any = None, sizes: Any = None, *, follow: Literal[True]
    ) -> Iterator[str]: ...

    def fetch_log(
        self, session: Any = None, offsets: Any = None, sizes: Any = None, follow: bool = False
    ) -> LogFetcher | Iterator[str]:
        """What the call has printed: Python, C code, threads and child processes alike.

        Works while the call runs, and after it failed or its worker died.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.
        offsets : int, str, dict or list, optional
            Where to start, in bytes; negative: from the end; text such as ``"-0.5k"``. None:
            where the last `fetch_log` of this object ended.
        sizes : int, str, dict or list, optional
            How much to read at the most, in bytes, default 1 MiB.
        follow : bool, default False
            True: give an iterator of lines, as they are printed, until the call ends.

        Returns
        -------
        LogFetcher or iterator of str
            One and the same LogFetcher each time; its text is that of the latest read.

        Examples
        --------
        >>> hello = spawn(print, args=("hello",)).execute()
        >>> print(hello.fetch_log())
        hello
        <BLANKLINE>
        """
        call = self._call
        if session is None and call.task is None and get_default_session() is None:
            return iter(()) if follow else LogFetcher(self.key, lambda: None)
        chosen = _existing(session, self)
        if follow:
            return chosen.follow_log(call)
        known = getattr(self, "_log", None)
        if known is None or known[0] is not chosen:
            # Of the call, not of this object: it would keep itself, and its value, alive.
            known = (chosen, LogFetcher(call.key, lambda: chosen.log_source(call)))
            self._log = known
        known[1].fetch(offsets=offsets, sizes=sizes)
        return known[1]

    def _is_done(self, session: session.Session) -> bool:
        return session.executed(self)

    def times(self, session: Any = None) -> Times | None:
        """When the call went through its stages, from queued to stored.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        Times or None
            Eight moments in seconds of `time.monotonic`; None before the call has ended.

        Examples
        --------
        >>> spawn(abs, -1).execute().times().running_s < 60
        True
        """
        return _existing(session, self).times(self)

    def attempts(self, session: Any = None) -> list[Attempt]:
        """Where each attempt of the call ran, and how it ended; first to last.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        list of Attempt
            Those that have ended: node, process id of the worker, and ending. Empty if a
            checkpoint had the result.

        Examples
        --------
        >>> [attempt.ending for attempt in spawn(abs, -1).execute().attempts()]
        ['value']
        """
        return _existing(session, self).attempts(self)

    @property
    def key(self) -> str:
        """32 hexadecimal digits that no other call has."""
        return self._call.key

    @property
    def name(self) -> str:
        """The call's name."""
        return self._call.name

    @property
    def op(self) -> Object[R]:
        """Itself; the original has an operand behind each object, with the same ``key``."""
        return self

    data = op

    @property
    def inputs(self) -> list[Object[Any]]:
        """Objects that are inputs of the call."""
        return [Object(call, index) for call, index in self._call.inputs]

    @property
    def cache(self) -> bool:
        """True: a result is kept as long as anything holds its object."""
        return True

    @cache.setter
    def cache(self, _: bool) -> None:
        """Accepted for programs of the original: results are kept anyway."""

    def copy(self) -> Object[R]:
        """Another handle of the same value."""
        return Object(self._call, self._index)

    def _fetch_infos(self, fields: Sequence[str] | None = None, session: Any = None) -> Any:
        chosen = _existing(session, self)
        task = chosen._task(self)
        size = sum(_size_of(value) for value in _values(task, self._index)) // _sharers(task)
        facts = {
            "data_key": self.key,
            "object_id": f"{self.key}_{self._index}",
            "level": "MEMORY",
            "memory_size": size,
            "store_size": size,
            "bands": [((*chosen.get_worker_addresses(), chosen.address)[0], "numa-0")],
        }
        unknown = set(fields or ()) - set(_INFO_FIELDS)
        if unknown:
            raise ValueError(f"there is no field {min(unknown)!r}; known: {_INFO_FIELDS}")
        return {field: [facts[field]] for field in fields or _INFO_FIELDS}

    def __reduce__(self) -> Any:
        return codec.place_of(self)

    def __copy__(self) -> Object[R]:
        return self.copy()

    def __repr__(self) -> str:
        return f"Object <op=RemoteFunction, key={self.key}_{self._index}>"

    def _repr_html_(self) -> str:
        from html import escape

        task = self._call.task
        state = "not executed" if task is None else task.stage.name.lower()
        return (
            f"<table><tr><th>Object</th><td>{escape(self.name)}</td></tr>"
            f"<tr><th>state</th><td>{state}</td></tr>"
            f"<tr><th>inputs</th><td>{len(self._call.inputs)}</td></tr></table>"
        )


def _sharers(task: Any) -> int:
    """How many values stand together: of an item of a map, those of its block."""
    return len(task.source.items) if task.source is not None else 1


def _values(task: Any, index: int) -> Iterable[Any]:
    if task.source is not None:
        return [task.source.result[0]]
    return [task.result if task.call.n_output is None else task.result[index]]


def _size_of(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value[1], int):  # in an arena: pickle, arena, offset, length, sizes
        return len(value[0] or b"") + int(sum(value[4]))
    return len(value[0]) + sum(len(buffer) for buffer in value[1])


def _drop_unused(kwargs: dict[str, Any]) -> None:
    for unused in ("extra_config", "fuse_enabled", "warn_duplicated_execution"):
        kwargs.pop(unused, None)


def _run_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    if not kwargs:
        return kwargs
    known = {"show_progress", "on_error", "seed", "cancelled", "checkpoint"}
    if "progress_update_interval" in kwargs:
        kwargs["interval_s"] = kwargs.pop("progress_update_interval")
    unknown = kwargs.keys() - known - {"interval_s"}
    if unknown:
        raise TypeError(f"execute() got an unexpected keyword argument {min(unknown)!r}")
    return kwargs


def _choose(given: Any, accepted: dict[str, Any]) -> session.Session:
    return session.choose(given, **(accepted.pop("new_session_kwargs", None) or {}))


def _existing(given: Any, handle: Executable) -> session.Session:
    found = session.get_default_session() if given is None else session.choose(given)
    if found is None:
        if _was_executed(handle):
            # Executed in a session that is closed, or in one that is not the default.
            raise SessionClosed("Session closed already, or not the default one")
        raise NotExecuted(repr(handle[0] if isinstance(handle, ExecutableTuple) else handle))
    return found


def _was_executed(handle: Any) -> bool:
    if isinstance(handle, ExecutableTuple):
        return any(_was_executed(one) for one in handle)
    return isinstance(handle, Executable) and handle._call.task is not None  # type: ignore[attr-defined]


class ExecutableTuple(tuple[Any, ...], Executable):
    """Objects that are executed and fetched together.

    Parameters
    ----------
    objects : iterable of Object
        Or maps, or tuples of them. A namedtuple keeps its fields, and `fetch` gives one of its
        type.

    Examples
    --------
    >>> ExecutableTuple([spawn(abs, -1), spawn(abs, -2)]).execute().fetch()
    [1, 2]
    """

    _named: Any
    _nothing: ClassVar[Any] = ()

    def __new__(cls, objects: Iterable[Any] = ()) -> ExecutableTuple:
        made = super().__new__(cls, objects)
        # A namedtuple's type has fields and knows how to be made from a list.
        made._named = type(objects) if hasattr(type(objects), "_fields") else None
        return made

    def __reduce__(self) -> Any:
        return _remade, (tuple(self), self._named)

    def __getattr__(self, name: str) -> Any:
        named = self.__dict__.get("_named")
        if named is not None and name in named._fields:
            return self[named._fields.index(name)]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        fields = self._named._fields if self._named is not None else ()
        return [*super().__dir__(), *fields]

    def __repr__(self) -> str:
        if self._named is not None:
            return repr(self._named(*self))
        return super().__repr__()

    def fetch(self, session: Any = None, **_: Any) -> Any:
        """Values of all members.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        list, tuple or namedtuple
            A list; of one member ``(value,)``; of none ``()``; of a namedtuple one of its type.

        Raises
        ------
        NotExecuted
            A member was not executed (a ValueError).
        BaseException
            A member's call failed: its own error.
        """
        return self._value_in(_existing(session, self)) if self else ()

    def _calls_in(self, realm: object) -> Sequence[Call]:
        _check_members(self)
        return [call for one in self for call in one._calls_in(realm)]

    def _value_in(self, session: Any) -> Any:
        _check_members(self)
        values = session.values(self)
        if self._named is not None:
            return self._named(*values)
        return values if len(values) > 1 else tuple(values)

    def _error_in(self, session: Any) -> list[Any]:
        return [one._error_in(session) for one in self]

    def fetch_log(self, session: Any = None, offsets: Any = None, sizes: Any = None) -> list[Any]:
        """Logs of all members, as a list; of a map the list of those of its items.

        Parameters and what each of them is: see `Object.fetch_log`.
        """
        return [output.fetch_log(session=session, offsets=offsets, sizes=sizes) for output in self]

    def errors(self, session: Any = None) -> list[Any]:
        """The error of each member, None for those that have a value or were not run.

        In the place of a map, the list of those of its items.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.
        """
        return self._error_in(_existing(session, self)) if self else []

    def _is_empty(self) -> bool:
        return not self

    def _executed(self) -> list[Any]:
        return list(self)

    def _fetch_infos(self, fields: Sequence[str] | None = None, session: Any = None) -> list[Any]:
        return [one._fetch_infos(fields, session) for one in self]


def _remade(objects: tuple[Any, ...], named: Any) -> ExecutableTuple:
    return ExecutableTuple(objects if named is None else named(*objects))


def _check_members(objects: Iterable[Any]) -> None:
    for item in objects:
        if not isinstance(item, Handle):
            raise TypeError(f"an ExecutableTuple holds objects of spawn or map, got {item!r:.80}")


# -- spawn ------------------------------------------------------------------------------------

_NO_KWARGS: Final[dict[str, Any]] = {}  # never changed


@overload
def spawn(
    func: Callable[..., R],
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    retry_when_fail: bool = False,
    resolve_tileable_input: bool = False,
    n_output: None = None,
    **options: Any,
) -> Object[R]: ...


@overload
def spawn(
    func: Callable[..., Iterable[T]],
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    retry_when_fail: bool = False,
    resolve_tileable_input: bool = False,
    *,
    n_output: int,
    **options: Any,
) -> list[Object[T]]: ...


def spawn(
    func: Callable[..., Any],
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    retry_when_fail: bool = False,
    resolve_tileable_input: bool = False,
    n_output: int | None = None,
    **options: Any,
) -> Any:
    """Describe a call, to run later in another process. Nothing runs before `execute`.

    Parameters
    ----------
    func : callable
        Function, lambda, closure, partial, bound method, builtin, class or callable instance. A
        worker runs it as it is now, with the modules and classes of the program as they are now.
    args : tuple or object, default ()
        Positional arguments; anything but a tuple is one argument. An `Object` in here, however
        deep in containers, becomes an input. Taken as they are now; large arrays when they are
        executed.
    kwargs : dict, optional
        Keyword arguments, likewise.
    retry_when_fail : bool, default False
        Retry up to three times, whatever the function raises.
    resolve_tileable_input : bool, default False
        Accepted for programs of the original: inputs always arrive as values.
    n_output : int, optional
        The result is an iterable of that many values, each with an object of its own.
    **options
        ``name`` (str): shown instead of the function's name.
        ``cpus`` (float, default 1): cores that the call owns, also the threads of libraries in
        it. ``memory`` (bytes or "2GiB"): what the call may take beyond its inputs; more is a
        `MemoryError` in the call. ``gpus`` (int): refused above 0 where there are none.
        ``timeout`` (float, seconds): limit for one attempt.
        ``retries`` (int, default 0), ``retry_on`` (exception class or tuple, default Exception):
        further attempts after such an exception.
        ``death_retries`` (int, default 3): further attempts after its worker died.
        ``idempotent`` (bool, default True): False: never start the call again after its worker
        died. ``priority`` (int, default 0): higher ones start first.
        ``cache`` (bool, default True): False: no checkpoint keeps the call.
        ``depends`` (any): what else the result depends on, for checkpoints.
        ``expect_worker`` (str): address of the worker group to run in. Hints of the original
        without effect here are accepted; docs/reference.md lists all.

    Returns
    -------
    Object or list of Object
        A list of ``n_output`` objects when that is given.

    Raises
    ------
    EncodeError
        The function or an argument does not pickle; the message has its path (a TypeError).
    TypeError
        ``func`` is not callable, ``kwargs`` is no dict, an option has the wrong type.
    ValueError
        An unknown option (``Unexpected kw: <name>``), or a value out of range.

    Notes
    -----
    Source: ``mars.remote.spawn`` of Mars; what differs is in docs/differences.md. Each `spawn`
    is its own call: two of the same function and arguments run twice.

    Examples
    --------
    >>> total = spawn(sum, args=([spawn(abs, -1), spawn(abs, -2)],))
    >>> total.execute().fetch()
    3
    """
    check_function(func)
    if kwargs is None:
        kwargs = _NO_KWARGS
    elif not isinstance(kwargs, dict):
        raise TypeError("kwargs has to be a dict")
    if type(args) is not tuple:
        args = tuple(args) if isinstance(args, tuple) else (args,)
    if n_output is not None:
        _check_n_output(n_output)
        n_output = int(n_output)
    if retry_when_fail is not False or resolve_tileable_input is not False:
        _flag(resolve_tileable_input, "resolve_tileable_input")
        retry_when_fail = _flag(retry_when_fail, "retry_when_fail")
    chosen = DEFAULT_OPTIONS
    if options or retry_when_fail:
        chosen = parse_options(options, retry_when_fail=retry_when_fail)
        if "retry_on" in options:
            _pack_retry_on(chosen)
    try:
        function = functions.describe(func, codec.Keep)
    except codec.HoldsObject:
        function, args = _applied(func), (func, *args)
    except Exception as error:
        raise _function_error(func, chosen, error) from None
    try:
        payload, buffers, found = codec.encode_arguments(args, kwargs)
    except Exception as error:
        raise _argument_error(args, kwargs, chosen.name or function.name, error) from None
    inputs = tuple([(output._call, output._index) for output in found]) if found else ()
    call = Call(function, payload, tuple(buffers) if buffers else (), inputs, chosen, n_output)
    if n_output is None:
        made: Object[Any] = Object(call, 0)
        if is_eager():
            made.execute()
        return made
    outputs: list[Object[Any]] = [Object(call, index) for index in range(n_output)]
    if is_eager():
        outputs[0].execute()
    return outputs


def _applied(func: Callable[..., Any]) -> Function:
    """For a partial or a closure that has objects in it: it becomes the first argument of this."""
    known = functions.describe(attempt_call.apply, codec.Keep)
    return Function(known.key, functions.name_of(func), known.data, known.buffers)


def _pack_retry_on(chosen: Options) -> None:
    try:
        chosen.retry_data = codec.encode_in_band(chosen.retry_on)
    except Exception as error:
        raise attempt_call.encode_error(chosen.retry_on, "retry_on", "spawn", error) from None


def _flag(value: object, option: str) -> bool:
    flag = plain_scalar(value)
    if not isinstance(flag, bool):
        raise TypeError(f"{option} has to be True or False, got {value!r}")
    return flag


def _check_n_output(n_output: object) -> None:
    if isinstance(n_output, bool) or not isinstance(n_output, Integral):
        raise TypeError(f"n_output has to be an int, got {n_output!r}")
    if n_output < 1:
        raise ValueError(f"n_output has to be 1 or more, got {n_output!r}")


def _function_error(func: Callable[..., Any], chosen: Options, error: Exception) -> EncodeError:
    return attempt_call.encode_error(func, "func", chosen.name or functions.name_of(func), error)


def _argument_error(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str, error: BaseException
) -> EncodeError:
    for position, value in enumerate(args):
        found = _find(value, f"args[{position}]")
        if found is not None:
            return EncodeError(name, *found)
    for key, value in kwargs.items():
        found = _find(value, f"kwargs[{key!r}]")
        if found is not None:
            return EncodeError(name, *found)
    return EncodeError(name, "its arguments", f"{type(error).__name__}: {error}")


def _find(value: object, root: str) -> tuple[str, str] | None:
    from mars.attempt import diagnose

    return diagnose.find_unpicklable(value, root, lambda part: codec.encode_arguments((part,), {}))


# -- map --------------------------------------------------------------------------------------


class MapObjects(Sequence[Any], Executable, Generic[R]):
    """The calls of `map`: a sequence with one object per item, made when it is indexed."""

    _nothing: ClassVar[Any] = []

    def __init__(self, call: MapCall) -> None:
        self._whole: Output = Output(call, 0)
        self._call = call
        self._made: dict[int, Object[R]] = {}
        for index in sorted(call.own):
            self[index]  # has its own inputs, so it is a call of its own, held by its object

    def __len__(self) -> int:
        return self._call.count

    @overload
    def __getitem__(self, index: int) -> Object[R]: ...

    @overload
    def __getitem__(self, index: slice) -> list[Object[R]]: ...

    def __getitem__(self, index: int | slice) -> Any:
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

    def fetch(self, session: Any = None, **_: Any) -> list[R]:
        """Values of all items, as a list.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Raises
        ------
        NotExecuted
            An item was not executed (a ValueError).
        BaseException
            An item failed: its own error.
        """
        return self._value_in(_existing(session, self)) if len(self) else []

    def _calls_in(self, realm: Any) -> Sequence[Call]:
        return self._call.pieces(realm) if len(self) else ()

    def _value_in(self, session: Any) -> list[R]:
        return self._call.values(session)

    def _error_in(self, session: Any) -> list[BaseException | None]:
        return self._call.errors(session)

    def errors(self, session: Any = None) -> list[BaseException | None]:
        """The error of each item, None for those that have a value or were not run.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.
        """
        return self._error_in(_existing(session, self)) if len(self) else []

    def _is_empty(self) -> bool:
        return not len(self)

    def _fetch_infos(self, fields: Sequence[str] | None = None, session: Any = None) -> list[Any]:
        return [one._fetch_infos(fields, session) for one in self]

    def fetch_log(self, session: Any = None, offsets: Any = None, sizes: Any = None) -> list[Any]:
        """Logs of all items, as a list of LogFetcher; see `Object.fetch_log`."""
        return [output.fetch_log(session=session, offsets=offsets, sizes=sizes) for output in self]

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def __repr__(self) -> str:
        return f"<map of {self._call.name} over {len(self)} items>"


def map(  # noqa: A001 (mars.remote.map)
    func: Callable[..., R], *iterables: Iterable[Any], **options: Any
) -> MapObjects[R]:
    """One call for each item, as the builtin ``map``, described at once.

    Small items are executed in blocks, so a million of them is no problem; results, errors, logs
    and random numbers are each item's own all the same.

    Parameters
    ----------
    func : callable
        Called with one argument from each iterable.
    *iterables : iterable
        Of the same length, or as long as the shortest. Items may be, or hold, objects. Taken as
        they are now; large arrays when they are sent to a worker.
    **options
        As of `spawn`, for each item; also ``retry_when_fail``.

    Returns
    -------
    MapObjects
        A sequence with one `Object` per item, with ``execute`` and ``fetch`` of its own.

    Raises
    ------
    EncodeError
        The function or an item does not pickle (a TypeError).
    TypeError, ValueError
        As of `spawn`.

    Examples
    --------
    >>> squares = map(pow, range(5), [2] * 5).execute()
    >>> squares.fetch()
    [0, 1, 4, 9, 16]
    >>> squares[3].fetch()
    9
    """
    check_function(func)
    if not iterables:
        raise TypeError("map() must have at least one iterable")
    retry_when_fail = _flag(options.pop("retry_when_fail", False), "retry_when_fail")
    chosen = parse_options(options, retry_when_fail=retry_when_fail)
    if "retry_on" in options:
        _pack_retry_on(chosen)
    holder: tuple[Callable[..., Any], ...] = ()
    try:
        function = functions.describe(func, codec.Keep)
    except codec.HoldsObject:
        function, holder = _applied(func), (func,)
    except Exception as error:
        raise _function_error(func, chosen, error) from None
    call = MapCall.over(function, chosen, iterables, holder)
    call.take(lambda args: _argument_error(args, {}, call.name, TypeError()))
    made: MapObjects[R] = MapObjects(call)
    if is_eager():
        made.execute()
    return made


# -- inside a call ----------------------------------------------------------------------------


def rng() -> Any:
    """The random numbers of the running call.

    Returns
    -------
    numpy.random.Generator
        Seeded from the run's seed and the call's place among the calls of its session, so a
        program gives the same digits on any number of workers, and no two calls share a stream.
        In one call always the same generator. Outside of a call: one seeded with
        ``mars.options.seed``.

    Raises
    ------
    ModuleNotFoundError
        numpy is not installed.

    Examples
    --------
    >>> def throw() -> int:
    ...     return int(rng().integers(1, 7))
    >>> spawn(throw).execute().fetch() in range(1, 7)
    True
    """
    from mars.attempt.rng import generator

    attempt = context.current()
    if attempt is None:
        return generator(program_options.seed, ())
    if attempt.generator is None:
        attempt.generator = generator(attempt.entropy, attempt.place)
    return attempt.generator


def run_script(
    script: str | os.PathLike[str] | IO[Any],
    data: dict[str, Any] | None = None,
    n_workers: int = 1,
    command_argv: Sequence[str] | None = None,
    session: Any = None,
    retry_when_fail: bool = False,
    run_kwargs: dict[str, Any] | None = None,
) -> Object[dict[str, str]]:
    """Run a script on ``n_workers`` workers, at once.

    Parameters
    ----------
    script : path or file
        The script; a file is read, as text or bytes.
    data : dict, optional
        Further globals of the script. Objects arrive as their values.
    n_workers : int, default 1
        Copies that run at the same time; ``RANK`` and ``WORLD_SIZE`` in the environment tell
        them apart.
    command_argv : sequence of str, optional
        ``sys.argv[1:]`` of the script.
    session : Session, optional
        Default: the default session.
    retry_when_fail : bool, default False
        As of `spawn`.
    run_kwargs : dict, optional
        As of `Object.execute`.

    Returns
    -------
    Object
        Its value is ``{"status": "ok"}``.

    Raises
    ------
    TypeError
        ``data`` is no dict.
    BaseException
        The script's own error.

    Examples
    --------
    >>> import io
    >>> status = run_script(io.StringIO("print('value is', value)"), data={"value": 3})
    >>> print(status.fetch_log())
    value is 3
    <BLANKLINE>
    """
    from mars import script as scripts

    if data is not None and not isinstance(data, dict):
        raise TypeError(f"data has to be a dict, got {type(data).__name__}")
    n_workers = plain_scalar(n_workers)
    if isinstance(n_workers, bool) or not isinstance(n_workers, int) or n_workers < 1:
        raise ValueError(f"n_workers has to be an int from 1 on, got {n_workers!r}")
    text, name = scripts.read(script)
    copies = [
        spawn(
            scripts.run,
            args=(text, name, rank, n_workers, dict(data or {}), tuple(command_argv or ())),
            retry_when_fail=retry_when_fail,
            name=os.path.basename(name),
        )
        for rank in range(n_workers)
    ]
    # With one copy its log is the script's; several have to be joined.
    status = copies[0] if n_workers == 1 else spawn(scripts.status, args=(copies,))
    status._call.speaks_for = tuple(copies) if n_workers > 1 else ()
    status.execute(session=session, **(run_kwargs or {}))
    return status


__all__ = [
    "Execution", "ExecutableTuple", "ItemCall", "MapObjects", "Object", "Run", "map", "rng",
    "run_script", "spawn",
]  # fmt: skip
