"""A tensor or a frame in a program: a collection of Dask that our sessions execute.

A `Tileable` (so the original calls them) is an `Executable` like the objects of `spawn`. It holds a
collection of Dask, which says what is to be computed. When it is executed, or given to a call, its
chunks are described as calls: then `objects` are what stands for the chunks, and `lazy` is the same
collection made of them. So results stay where they were made, and what is computed of them next
reads them there.

::

    lazy ──describe──► objects (calls) ──execute──► chunks in the store ──fetch──► one value

It never computes by itself. `mars.tensor` and `mars.dataframe` have the kinds that users know.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeGuard, TypeVar, overload

from mars.attempt import context
from mars.calls.executable import Executable
from mars.calls.objects import ExecutableTuple, Object
from mars.calls.spawn import spawn
from mars.code import places
from mars.config import is_eager
from mars.errors import NotExecuted
from mars.sessions.opening import choose, get_default_session
from mars.sessions.session import AnySession, Session
from mars.task import Call, Handle
from mars.tileables.logs import ChunkLogs

if TYPE_CHECKING:
    from mars.dask.collection import Collection
    from mars.logs import Offsets
    from mars.task import Realm

T = TypeVar("T")
Kind = TypeVar("Kind", bound="Tileable")


_KINDS: Final = {
    "Array": "mars.tensor.core:Tensor",
    "DataFrame": "mars.dataframe.core:DataFrame",
    "Series": "mars.dataframe.core:Series",
    "Index": "mars.dataframe.core:Index",
    "Scalar": "mars.dataframe.core:Scalar",
}
"""For each class of Dask's collections where its kind of tileable is. The packages of these are
above this one, and are loaded when a program has such a collection."""


class Tileable(Executable[Any]):
    """A tensor or a frame. Programs make them with `mars.tensor` and `mars.dataframe`.

    Parameters
    ----------
    lazy : collection of Dask, optional
        What it stands for.
    objects : list of Object, optional
        What stands for the chunks, in the order of their keys. None: not described yet.
    here : bool, default False
        Whether ``lazy`` is made of values that this process has.
    part_of : Tileable, optional
        What it was cut out of. If that is executed, this can be fetched at once.
    """

    __slots__ = ("__weakref__", "_here", "_lazy", "_objects", "_part_of", "_resolved")

    kind: ClassVar[str] = "Tileable"

    def __init__(
        self,
        lazy: Collection | None = None,
        *,
        objects: list[Object[object]] | None = None,
        here: bool = False,
        part_of: Tileable | None = None,
    ) -> None:
        self._lazy = lazy
        self._objects = objects
        self._here = here
        self._part_of = part_of
        self._resolved = objects is None and not here

    # -- what it stands for ---------------------------------------------------------------------

    @property
    def lazy(self) -> Collection:
        """The collection of Dask. The result of a call is executed to find out what it is."""
        if self._lazy is None:
            self._lazy = self._found_out()
        return self._lazy

    def become(self, other: Tileable) -> None:
        """Stand for something else from now on, as after ``x[0] = 1``."""
        for name in ("_lazy", "_objects", "_here", "_part_of", "_resolved"):
            setattr(self, name, getattr(other, name))

    @property
    def key(self) -> str:
        """What no other tensor or frame has, but those that are computed in the same way."""
        objects = self._objects
        if self._lazy is None and objects:
            return objects[0].key
        return _digest(self.lazy)

    @property
    def op(self) -> Tileable:
        """Itself. In the original it is an operand."""
        return self

    data = op

    @property
    def objects(self) -> list[Object[object]] | None:
        """What stands for the chunks; None: they are not described yet."""
        return self._objects

    def was_described(self) -> bool:
        """Whether its chunks are calls already, or values that are here."""
        return self._objects is not None or self._here

    def take_parts(self, lazy: Collection, objects: list[Object[object]]) -> None:
        """Have chunks described as these objects."""
        self._lazy, self._objects, self._resolved = lazy, objects, False

    # -- what the session asks ------------------------------------------------------------------

    def describe_beside(self, handles: Sequence[Handle], session: Session) -> None:
        if self.was_described():
            return
        found: dict[int, Tileable] = {}
        for handle in handles:
            members = handle if isinstance(handle, tuple) else (handle,)
            for one in members:
                if isinstance(one, Tileable) and not one.was_described():
                    found[id(one)] = one
        found[id(self)] = self
        describe(list(found.values()), session)

    def calls_in(self, realm: Realm) -> Sequence[Call]:
        return list(dict.fromkeys([one.call for one in self._objects or ()]))

    def leaves(self) -> Sequence[Object[object]]:
        return self._objects or ()

    def _parts(self) -> Sequence[Object[object]]:
        return self._objects or ()

    def value_in(self, session: Session | None) -> object:
        objects = self._objects
        if objects is not None and session is not None:
            if self._lazy is None:
                return session.value(objects[0])
            return self._assembled(session.values(objects))
        if self._here or self._shows(session):
            return self.lazy.compute(scheduler="sync")
        raise NotExecuted(self._title(), "is an unexecuted tileable. Call execute() on it first")

    def _shows(self, session: Session | None) -> bool:
        """Whether it was cut out of something that is executed."""
        whole = self._part_of
        return whole is not None and (whole._is_done(session) or whole._shows(session))

    def _is_done(self, session: Session | None) -> bool:
        if self._objects is None:
            return self._here
        return session is not None and all(map(session.executed, self._objects))

    def _was_executed(self) -> bool:
        return any(one.call.task is not None for one in self._objects or ())

    def _title(self) -> str:
        return repr(self) if self._lazy is None else self._described()

    def _assembled(self, values: list[Any]) -> object:
        """One value, made of those of the chunks."""
        raise NotImplementedError

    def _found_out(self) -> Collection:
        """The collection that the result of a call is. The call is executed for that."""
        raise NotImplementedError

    @classmethod
    def of_value(cls, value: object) -> Self:
        """A tensor or frame of one chunk, which this process has."""
        raise NotImplementedError

    # -- what a program calls -------------------------------------------------------------------

    def fetch(self, session: AnySession | None = None, **_: object) -> Any:
        """The value: an array of numpy, a frame of pandas, or a scalar.

        What was cut out of an executed tensor or frame, such as ``x[:3]`` or ``df.head()``, can be
        fetched without being executed; only the chunks that it shows are read.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.

        Returns
        -------
        ndarray, DataFrame, Series, Index or scalar

        Raises
        ------
        NotExecuted
            It was not executed in the session (a ValueError).
        BaseException
            A call failed: its own error.
        """
        if self._here:
            return self.value_in(None)
        return super().fetch(session)

    def errors(self, session: AnySession | None = None) -> list[BaseException | None]:
        """The error of each chunk; None for a chunk that has a value."""
        return super().errors(session) if self._objects else []

    def fetch_log(
        self,
        session: AnySession | None = None,
        offsets: Offsets | None = None,
        sizes: Offsets | None = None,
        follow: bool = False,
    ) -> ChunkLogs | Iterator[str]:
        """What the calls of its chunks have printed since the last read.

        Parameters
        ----------
        session : Session, optional
            Default: the default session.
        offsets, sizes : int, str, dict or list, optional
            As of `Object.fetch_log`; a dict has a value for some of the ``chunk_op_keys``.
        follow : bool, default False
            True: return an iterator of the lines of all calls, as they are printed.

        Returns
        -------
        ChunkLogs or iterator of str
            Its text names the chunk before what each has printed.
        """
        if follow:
            lines: Iterator[str] = super().fetch_log(session, follow=True)
            return lines
        return ChunkLogs(self._objects or (), session=session, offsets=offsets, sizes=sizes)

    def copy(self) -> Self:
        """Another handle for the same value; what is assigned to one does not change the other."""
        made = type(self)(self._lazy, objects=self._objects, here=self._here)
        made._part_of, made._resolved = self._part_of, self._resolved
        return made

    __copy__ = copy

    def __deepcopy__(self, memo: object) -> Self:
        return self.copy()

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        return bool(self.executed_value())

    def executed_value(
        self, session: AnySession | None = None, wait: bool = True, **kwargs: object
    ) -> Any:
        """Its value. It is executed before, unless that was done; see `to_object`."""
        if self._here:
            return self.value_in(None)
        return self.to_object(session=session, wait=wait, **kwargs)

    def _described(self) -> str:
        return f"{self.kind} <op={_op_of(self.lazy)}, key={self.key[:32]}>"

    # -- pickles --------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        kind = type(self)
        if places.is_collecting():
            if not self.was_described():
                describe([self], choose(None))
            if places.are_whole():
                return _whole, (kind, *self._rebuilding(self._objects))
            return _arrived, (kind, *self._rebuilding(self._objects))
        if self._objects is not None and self._lazy is not None:
            session = get_default_session()
            if session is not None and self._is_done(session):
                return _arrived, (kind, *self._rebuilding(session.values(self._objects)))
        if context.current() is not None and not self.was_described():
            self.execute()
            return self.__reduce__()
        if self._objects is not None:
            return places.place_of(self._objects[0])  # which says why it cannot
        return kind, (self.lazy,)

    def _rebuilding(self, chunks: Sequence[object] | None) -> tuple[object, ...]:
        """How the collection is made of its chunks: a function, its arguments, keys and chunks."""
        if self._lazy is None:
            return None, (), [None], chunks or []
        from dask.core import flatten

        func, state = self._recipe()
        keys = list(flatten(self.lazy.__dask_keys__()))
        if chunks is None:
            nodes = dict(self.lazy.__dask_graph__())
            chunks = [_value_of(nodes[key]) for key in keys]
        return func, state, keys, chunks

    def _recipe(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.lazy.__dask_postpersist__()


def describe(tileables: Sequence[Tileable], session: Session) -> None:
    """Describe the chunks of tensors and frames as calls. What several need is one call."""
    from mars.dask import running

    parts = running.stored_parts([one.lazy for one in tileables], session)
    for one, (lazy, objects) in zip(tileables, parts, strict=True):
        one.take_parts(lazy, objects)


@overload
def wrap(value: Collection, part_of: Tileable | None = None) -> Tileable: ...


@overload
def wrap(value: object, part_of: Tileable | None = None) -> object: ...


def wrap(value: object, part_of: Tileable | None = None) -> object:
    """A collection of Dask as a tensor or frame; containers of them; anything else as it is."""
    if isinstance(value, (tuple, list)):
        made = [wrap(one, part_of) for one in value]
        make: Callable[..., object] = type(value)
        return make(*made) if hasattr(value, "_fields") else make(made)
    if not _is_collection(value):
        return value
    return of_kind(kind_named(type(value).__name__), value, part_of)


def _is_collection(value: object) -> TypeGuard[Collection]:
    return hasattr(value, "__dask_graph__") and type(value).__name__ in _KINDS


def of_kind(kind: type[Kind], lazy: Collection, part_of: Tileable | None = None) -> Kind:
    """A tensor or frame of one kind. It is executed at once if the options say so."""
    made = kind(lazy, part_of=part_of)
    if is_eager():
        made.execute()
    return made


def kind_named(name: str) -> type[Tileable]:
    """The class of tileables that stands for a kind of collection, such as "DataFrame"."""
    module, _, found = _KINDS[name].partition(":")
    kind: type[Tileable] = getattr(importlib.import_module(module), found)
    return kind


@overload
def unwrap(value: Tileable) -> Collection: ...


@overload
def unwrap(value: object) -> object: ...


def unwrap(value: object) -> object:
    """The collection of Dask in the place of each tensor or frame, also inside of containers."""
    if isinstance(value, Tileable):
        return value.lazy
    if isinstance(value, ExecutableTuple):
        return tuple(unwrap(one) for one in value)
    if type(value) is list or type(value) is tuple:
        return type(value)([unwrap(one) for one in value])
    if type(value) is dict:
        return {key: unwrap(one) for key, one in value.items()}
    if type(value) is slice:
        return slice(unwrap(value.start), unwrap(value.stop), unwrap(value.step))
    return value


def stored_node(key: Hashable, stored: Object[object], session: Session) -> object:
    """A task of Dask that gives the value of an object."""
    from mars.dask import running

    return running.kept_task(key, stored, session)


def facts_of(func: Callable[..., T], stored: Object[object]) -> T:
    """What a small call tells of the value of an object; the object is executed before."""
    facts: T = spawn(func, (stored,), name="look").to_object(show_progress=False)
    return facts


def _arrived(
    kind: type[Tileable], func: Callable[..., Collection] | None, state: tuple[object, ...],
    keys: list[Hashable], values: list[object],
) -> Tileable:  # fmt: skip
    """The tensor or frame in the process that it was sent to: it has its chunks."""
    from dask.task_spec import DataNode

    if func is None:
        return kind.of_value(values[0])
    graph = {key: DataNode(key, value) for key, value in zip(keys, values, strict=True)}
    return kind(func(graph, *state), here=True)


def _whole(
    kind: type[Tileable], func: Callable[..., Collection] | None, state: tuple[object, ...],
    keys: list[Hashable], values: list[object],
) -> object:  # fmt: skip
    """The plain value in the place of a tensor or frame."""
    if func is None:
        return values[0]
    made = _arrived(kind, func, state, keys, values)
    return made._assembled(values)


def _value_of(node: object) -> object:
    return node() if callable(node) else node


def _op_of(lazy: Collection) -> str:
    from dask.utils import key_split

    words = str(key_split(_name_of(lazy))).replace("-", "_").split("_")
    return "".join(word[:1].upper() + word[1:] for word in words)


def _name_of(lazy: Collection) -> str:
    name = getattr(lazy, "name", None) if type(lazy).__name__ == "Array" else None
    return str(name or getattr(lazy, "_name", "frame"))


def value_of(value: object) -> object:
    """The executed value of a tensor or frame; anything else is itself."""
    return value.executed_value() if isinstance(value, Tileable) else value


def _digest(lazy: Collection) -> str:
    import hashlib

    return hashlib.md5(_name_of(lazy).encode(), usedforsecurity=False).hexdigest()


__all__ = [
    "Tileable",
    "describe",
    "facts_of",
    "kind_named",
    "of_kind",
    "stored_node",
    "unwrap",
    "value_of",
    "wrap",
]
