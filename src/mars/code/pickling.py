"""Pickles of values and of functions, with the program's own code in them.

Three picklers, each for what the one before does not take. `Plain` writes what consists of
installed classes and functions, and of modules that travel by name, as names. `_Quick` adds
definitions of what travels by value. `_full` adds all the types that cloudpickle knows, and is
loaded only then.

In a *value* a class or function of the program is a reference: its tag, and a definition for a
world that lacks it. The definition is a pickle of its own, made once. In a *function* that is
spawned definitions stand as they are, so that what they share stays shared.

What the picklers have in common stands in `mars.code.rich`, with `mars.code.special` for objects
that are not written as they say, and `mars.code.stand_ins` for what stands for something else.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import sys
import threading
import types
import weakref
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, MutableMapping
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from mars.code import places, reductions
from mars.code import states as states_module
from mars.code.changes import (
    MISSING,
)
from mars.code.definitions import (
    making,
)
from mars.code.keepers import Apart, InBand, Keeper, Target
from mars.code.modules import travels_by_value
from mars.code.origin import found, module_of
from mars.code.parts import names_of
from mars.code.reach import Reach
from mars.code.reductions import TABLE, Reducer
from mars.code.rich import Rich
from mars.code.shared import Shared
from mars.code.special import BUILTIN_TYPES, Plain
from mars.code.stand_ins import Call, Root, fresh
from mars.code.states import Prepared, note_changeable, prepared_of
from mars.code.world import (
    current,
    look_for_reduced,
    tag_of,
    waiting_reducers,
)


def _is_loaded_module(value: object) -> bool:
    if not issubclass(type(value), ModuleType) or not isinstance(value, ModuleType):
        return False
    return sys.modules.get(value.__name__) is value


class _Listing(threading.local):
    def __init__(self) -> None:
        self.modules: list[ModuleType] = []  # that are looked through, one because of the other


_listing = _Listing()


def _public(module: ModuleType) -> list[str]:
    """Names of a module that pickle, where nobody knows which are needed."""
    listed = _listing.modules
    if any(one is module for one in listed):
        return []  # modules that refer to each other
    names = []
    listed.append(module)
    try:
        for name in names_of(vars(module)):
            value = vars(module).get(name)
            try:
                if not _is_loaded_module(value):
                    dumps(value if module.__name__ == "__main__" else fresh(value), Apart())
            except Exception:
                continue
            names.append(name)
    finally:
        listed.pop()
    return names


# -- picklers for definitions ---------------------------------------------------------------------


class _Whole(Rich):
    """What takes other pickles beside the one that is written."""

    if TYPE_CHECKING:  # of the pickler

        def __init__(self, file: Target, protocol: int, *, buffer_callback: Keeper) -> None: ...

        def dump(self, value: object, /) -> None: ...

    def refer(self, value: FunctionType | type) -> object:
        try:
            with places.collecting(None):
                data, buffers, reach = definition_of(value)
        except places.HoldsObject:
            # It refers to outputs: those are inputs of this very call.
            if isinstance(value, FunctionType):
                return self.define_function(value)
            return self.define_class(value)
        if reach is not None and (reach.modules or reach.held):
            self.reaches[id(reach)] = reach
        names = value.__module__, value.__qualname__
        return reference, (tag_of(value), *names, data, *buffers)

    def public_names(self, module: ModuleType) -> list[str]:
        return _public(module)

    def can_travel(self, value: object) -> bool:
        try:
            dumps(value, Apart())
        except Exception:
            return False
        return True


def _with_ours(table: MutableMapping[type, Reducer]) -> ChainMap[type, Reducer]:
    """Our reducers before those of a pickler, which may become more."""
    return ChainMap(TABLE, table)


class _Quick(_Whole, pickle.Pickler):
    """Writes definitions without cloudpickle, which takes long to load at both ends."""

    dispatch_table = _with_ours(vars(copyreg)["dispatch_table"])


@functools.cache
def _full() -> type[_Whole]:
    # Imported late: it takes ~15 ms, and most programs never need it. By the name that stands in
    # pickles: where one thread begins with the package and one with the module, one of them is
    # given what is not complete.
    import cloudpickle.cloudpickle as cloudpickle

    class Full(_Whole, cloudpickle.Pickler):  # type: ignore[misc]
        """Writes what cloudpickle can, and definitions in our own way."""

        dispatch_table = _with_ours(cloudpickle.Pickler.dispatch_table)

    return Full


@functools.cache
def _deep() -> type[_Whole]:
    from mars.code.deep import DeepPickler  # late: few values are nested so deep

    class Deep(_Whole, DeepPickler):
        """Writes definitions, and values that are nested deeper than Python's stack is."""

        dispatch_table = _full().dispatch_table

    return Deep


def _next_pickler(made: type[_Whole], error: Exception) -> type[_Whole] | None:
    """What takes more than a pickler that failed; None: nothing does."""
    if made is _Quick and not isinstance(error, RecursionError):
        return _full()
    # cloudpickle says it in its own words.
    is_deep = isinstance(error, RecursionError) or isinstance(error.__context__, RecursionError)
    return _deep() if is_deep and made is not _deep() else None


def _rich_dumps(
    value: object,
    keep: Keeper,
    *,
    arguments: bool = False,
    inside: bool = False,
    by_value: tuple[object, ...] = (),
    asked: dict[str, dict[str, None]] | None = None,
    prepared: object = None,
    new_file: Callable[[], Target] = io.BytesIO,
    table: dict[type, Reducer] | None = None,
    locks: bool = False,
    met: dict[int, object] | None = None,
    reducers: Iterable[tuple[object, ...]] = (),
    stands: Iterable[str] = (),
    held: Collection[tuple[str, str]] = (),
    shared: Shared | None = None,
) -> tuple[bytes, Rich]:
    """Pickle with definitions."""
    made: type[_Whole] = _Quick
    while True:
        keep.restart()
        file = new_file()
        pickler = made(file, 5, buffer_callback=keep)
        if table is not None:
            pickler.dispatch_table = ChainMap(*made.dispatch_table.maps[:-1], table)
        pickler.begin(
            arguments, inside, by_value, asked or {}, locks, reducers, stands, held, shared or {}
        )  # fmt: skip
        try:
            pickler.dump(Root(pickler, value, prepared))
        except Exception as error:
            more = _next_pickler(made, error)
            if more is None:
                raise
            made = more
            continue
        if met is not None:
            note_changeable(pickler, met)
        pickler.let_go()
        return file.getvalue(), pickler


# -- what others call -----------------------------------------------------------------------------


Made = TypeVar("Made")


class _Known(Generic[Made]):
    """A class or function that was defined before, or a function that was described."""

    __slots__ = ("made", "reach", "reference")

    def __init__(self, reference: weakref.ref[object], reach: Reach, made: Made) -> None:
        self.reference, self.reach, self.made = reference, reach, made


class Memory(Generic[Made]):
    """What was made of classes and functions, for as long as nothing that they reach changes."""

    def __init__(self) -> None:
        self.known: dict[int, _Known[Made]] = {}

    def get(self, value: object) -> _Known[Made] | None:
        """What was made, or None."""
        known = self.known.get(id(value))
        if known is not None and known.reference() is value and known.reach.unchanged():
            return known
        return None

    def put(self, value: object, reach: Reach, made: Made) -> None:
        """Remember what was made."""
        key = id(value)
        forget = functools.partial(_forget, self.known, key)
        self.known[key] = _Known(weakref.ref(value, forget), reach, made)


def _forget(known: dict[int, _Known[Made]], key: int, _: object) -> None:
    """A function is gone; at the end of a program the names of this module may be, too."""
    known.pop(key, None)


_definitions: Final = Memory[tuple[bytes, list[pickle.PickleBuffer]]]()
_entries: Final = Memory[None]()


def definition_of(value: object) -> tuple[bytes, list[pickle.PickleBuffer], Reach | None]:
    """A class or function for a world that lacks it: a pickle, its buffers, what it reaches."""
    known = _definitions.get(value)
    if known is not None:
        return (*known.made, known.reach)
    keep = Apart()
    reach = Reach(value)
    data, written = _dumps_definition(value, keep, reach)
    unseen = _unseen(written, reach)
    if unseen:
        reach = Reach(value, unseen)
        data, _ = _dumps_definition(value, keep, reach)
    if reach.stable and not keep.buffers and not _listing.modules:
        _definitions.put(value, reach, (data, []))
    return data, keep.buffers, reach


def _dumps_definition(value: object, keep: Keeper, reach: Reach) -> tuple[bytes, dict[int, object]]:
    data, rich = _rich_dumps(
        value, keep, inside=True, asked=reach.asked, stands=reach.stands, held=reach.held,
        shared=reach.shared,
    )  # fmt: skip
    return data, {**rich.reached, **rich.defined}


def _unseen(written: dict[int, object], reach: Reach) -> list[object]:
    """Functions and classes in a pickle that no walk came by.

    An object of an installed class holds them, such as `numpy.vectorize`.
    """
    return [
        one
        for key, one in written.items()
        if key not in reach.met and issubclass(type(one), (FunctionType, type))
    ]


def reference(tag: str, module: str, qualname: str, data: bytes, *buffers: object) -> object:
    """The class or function of that tag; made from its definition where nobody has it."""
    known = current().find(tag, module, qualname)
    if known is not MISSING:
        return known
    with making:
        known = current().find(tag, module, qualname)
        return pickle.loads(data, buffers=buffers) if known is MISSING else known


def opened(_: object, data: bytes, *buffers: object) -> object:
    """A value; what came beside it has been read before."""
    return pickle.loads(data, buffers=buffers)


def dumps(value: object, keep: Keeper) -> bytes:
    """Pickle a value; large buffers are left to ``keep``.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    return _dumps(value, keep, arguments=False)[0]


def dumps_arguments(
    value: object, keep: Keeper, origins: Callable[[], list[object]] = list
) -> bytes:
    """Pickle what a call is given, and what modules hold that it reaches.

    ``origins`` gives functions that make what is put into it later.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    data, reached, reaches = _dumps(value, keep, arguments=True)
    reached = [*reached, *origins()]
    if not reached and not reaches:
        return data
    return _beside(data, keep, reached, reaches)


def beside_makers(data: bytes, keep: Keeper, makers: Iterable[object]) -> bytes:
    """A pickle of what a call is given, and what modules hold that functions reach.

    ``makers`` make what is put into it later.
    """
    return _beside(data, keep, makers, ())


def _beside(
    data: bytes, keep: Keeper, reached: Iterable[object], reaches: Iterable[Reach]
) -> bytes:
    with places.collecting(None):  # what modules hold is no part of the arguments
        prepared = _prepared([*_reaches_of(reached), *reaches])
    if prepared is None:
        return data
    call = Call(opened, (prepared.in_band(_content_dumps), data, *keep.buffers))
    return pickle.dumps(call, 5, buffer_callback=lambda _: False)


def dumps_apart(value: object, new_file: Callable[[], Target], leave_out: type) -> bytes:
    """Pickle a value into a file of one's own, and without reducers for some classes.

    Parameters
    ----------
    value : object
        What to pickle.
    new_file : callable
        Makes a file that is written to; it has ``getvalue``, and may refuse to grow.
    leave_out : type
        For this class, and all below it, no reducer counts that somebody registered.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    table: dict[type, Reducer] = {
        cls: reduce
        for cls, reduce in copyreg.dispatch_table.items()
        if not (isinstance(cls, type) and issubclass(cls, leave_out))
    }
    return _dumps(value, InBand(), arguments=False, new_file=new_file, table=table)[0]


def _dumps(
    value: object,
    keep: Keeper,
    *,
    arguments: bool,
    new_file: Callable[[], Target] = io.BytesIO,
    table: dict[type, Reducer] | None = None,
    locks: bool = False,
    met: dict[int, object] | None = None,
) -> tuple[bytes, Collection[object], Collection[Reach]]:
    """A pickle, the definitions that it names, and what those that it holds reach.

    ``met`` gets the objects that it holds and that can be changed, by identity.
    """
    keep.restart()
    if waiting_reducers:
        look_for_reduced()
    file = new_file()
    plain = Plain(file, keep, arguments, locks)
    if table is not None:
        plain.dispatch_table = table
    try:
        plain.dump(value)
        data = file.getvalue()
        if not names_main(data):  # else an object says that it is found there
            if met is not None:
                note_changeable(plain, met)
            return data, plain.reached.values(), ()
    except Exception:  # the next one takes more, and its error is the better one
        pass
    data, rich = _rich_dumps(
        value, keep, arguments=arguments, new_file=new_file, table=table, locks=locks, met=met
    )
    return data, rich.reached.values(), rich.reaches.values()


def names_main(data: bytes) -> bool:
    """Whether a pickle of protocol 5 refers to something by a name in ``__main__``."""
    if b"__main__" not in data:
        return False
    from mars.code import main_names  # late: most pickles do not have the text

    return main_names.names_main(data)


def _reaches_of(values: Iterable[object]) -> list[Reach]:
    """What classes and functions that travel by name reach."""
    found = []
    for value in values:
        known = _entries.get(value)
        if known is None:
            reach = Reach(value)
            if reach.stable:
                _entries.put(value, reach, None)
        else:
            reach = known.reach
        found.append(reach)
    return found


_last: tuple[tuple[int, ...], list[Reach], Prepared | None] = (), [], None


def _prepared(reaches: list[Reach]) -> Prepared | None:
    """What goes beside something that reaches so far; the last answer is remembered."""
    global _last
    key = tuple(map(id, reaches))
    if key == _last[0] and all(reach.stable for reach in reaches):
        return _last[2]
    prepared = prepared_of(reaches, _content_dumps)
    _last = key, reaches, prepared  # which also keeps them alive, and so their identities
    return prepared


def _content_dumps(
    value: object,
    keep: Keeper,
    by_value: tuple[object, ...] = (),
    met: dict[int, object] | None = None,
) -> bytes:
    if not by_value:
        return _dumps(value, keep, arguments=False, locks=True, met=met)[0]
    return _rich_dumps(value, keep, by_value=by_value, locks=True)[0]


def dumps_function(func: object, keep: Keeper) -> tuple[bytes, Reach]:
    """Pickle what is to be called, with all that it reaches.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    reach = Reach(func)
    data, written = _dumps_reached(func, keep, reach)
    unseen = _unseen(written, reach)
    if unseen:
        reach = Reach(func, unseen)
        data, _ = _dumps_reached(func, keep, reach)
    return data, reach


def _dumps_reached(func: object, keep: Keeper, reach: Reach) -> tuple[bytes, dict[int, object]]:
    """A pickle of what is to be called, and code of the program in it, by identity."""
    keep.restart()
    prepared = prepared_of([reach], _content_dumps)
    reducers = _told(reach.reducers)
    if prepared is None and not reducers and not reach.stands:
        file = io.BytesIO()
        plain = Plain(file, keep, True)
        try:
            plain.dump(func)
            data = file.getvalue()
            if not names_main(data):
                return data, plain.reached
        except Exception:  # the next one takes more, and its error is the better one
            keep.restart()
    data, rich = _rich_dumps(
        func, keep, arguments=True, inside=True, asked=reach.asked, prepared=prepared,
        reducers=reducers, stands=reach.stands, held=reach.held, shared=reach.shared,
    )  # fmt: skip
    return data, {**rich.reached, **rich.defined}


def _place_of_class(cls: type) -> tuple[str, str] | None:
    """Module and name that other processes find a class by; None: it travels by value."""
    module = module_of(cls)
    if travels_by_value(module) or not isinstance(module, str):
        return None
    if found(module, cls.__qualname__) is cls:
        return module, cls.__qualname__
    if id(cls) in BUILTIN_TYPES:
        return BUILTIN_TYPES[id(cls)]
    for name, one in [*vars(sys.modules.get(module, types)).items()]:
        if one is cls:  # such as `_thread.lock`, which has another name there
            return module, name
    return None


def _told(reducers: Iterable[tuple[type, Callable[..., object]]]) -> list[tuple[object, ...]]:
    """Reducers as they travel: each beside the tag of its class, or its module and name."""
    told: list[tuple[object, ...]] = []
    for cls, reducer in reducers:
        try:
            key = _place_of_class(cls) or tag_of(cls)
            told.append(("reducer", key, dumps(reducer, InBand())))
        except Exception:  # a closure with a lock, say: objects pickle as they say themselves
            continue
    return told


compare_state: Final = states_module.comparing(_content_dumps)
"""What a module has to get back of a state, given what its import made; None: nothing."""


def __getattr__(name: str) -> object:
    """What pickles in journals of an earlier version name here."""
    if name == "make_typevar":
        from mars.code import parameters

        return parameters.make_typevar
    if name == "_code_of":
        return reductions.code_of
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
