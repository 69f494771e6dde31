"""What modules that travel by name hold in the program, as it travels beside a call.

A worker that imports a module finds in it what the module's file makes. The program may have set
something else: a constant, an attribute of a class, a function that a test replaces. So what a call
reaches of such modules goes with it, as a `State` for each name, and a worker sets what differs.
What is equal stays as the import made it, and so keeps its identity.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MappingProxyType, ModuleType
from typing import Final

from mars.code import modules
from mars.code.bytecode import codes_in
from mars.code.changes import (
    AS_IMPORTED,
    HEAP_TYPE,
    MISSING,
    CachedFunction,
    Group,
    Seen,
    State,
    is_plain,
    without_objects,
)
from mars.code.digest import blake2b
from mars.code.keepers import Apart, InBand
from mars.code.modules import Source
from mars.code.origin import found, module_of
from mars.code.parts import functions_in
from mars.code.reach import Reach
from mars.code.world import (
    World,
    current,
)
from mars.settings import BUFFER_BYTES, STATES_READ

Dumps = Callable[..., bytes]
"""Pickles a value, or raises. Takes the value, a keeper of buffers, a collection of functions that
travel by value whatever their name, and a dictionary that gets the objects of the pickle that can
be changed, by identity."""

_CHANGEABLE: Final = frozenset(
    {
        "array.array", "builtins.bytearray", "builtins.dict", "builtins.list", "builtins.set",
        "collections.OrderedDict", "collections.defaultdict", "collections.deque", "numpy.ndarray",
    }
)  # fmt: skip
"""Types written in C whose objects can be changed."""

_UNCHANGING: Final = (
    bool, int, float, complex, str, bytes, tuple, frozenset, type, ModuleType, FunctionType,
)  # fmt: skip

_WITHOUT_IDENTITY: Final = frozenset(
    map(
        id,
        (bool, int, float, complex, str, bytes, type(None), tuple, frozenset, type(MISSING)),
    )
)
"""Identities of types of values whose own identity tells nothing."""


class _Small(InBand):
    """Refuses large buffers: a value that has them is no content to compare."""

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes >= BUFFER_BYTES:
            raise _Large
        return True


class _Large(Exception):
    pass


_DEFINED: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, CachedFunction)


def note_changeable(pickler: object, met: dict[int, object]) -> None:
    """Add what a pickler has written and what can be changed, by identity."""
    written: dict[int, tuple[int, object]] = getattr(pickler, "memo", {}).copy()
    for _, value in written.values():
        if _is_changeable(value):
            met[id(value)] = value


def _is_changeable(value: object) -> bool:
    """Whether an object may be changed, as far as its type tells."""
    kind = type(value)
    title = f"{kind.__module__}.{kind.__qualname__}"
    if not kind.__flags__ & HEAP_TYPE:
        return title in _CHANGEABLE
    return (
        not modules.is_settled(kind)
        and not issubclass(kind, _UNCHANGING)
        and not title.startswith(("mars.", "typing.", "types."))
        and not any(base.__module__ == "enum" for base in kind.__mro__)
    )


def content_of(
    value: object,
    dumps: Dumps,
    by_value: tuple[object, ...] = (),
    met: dict[int, object] | None = None,
) -> bytes:
    """A value as a pickle that can be compared.

    Raises
    ------
    Exception
        It does not pickle, or it is large.
    """
    data = dumps(value, _Small(), by_value, met)
    if len(data) > BUFFER_BYTES:
        raise _Large
    return data


def _digest_of(value: object, dumps: Dumps) -> bytes | None:
    """What tells one large value from another; None: nobody can say."""
    keep = Apart()
    try:
        digest = blake2b(dumps(value, keep, ()), digest_size=16)
    except Exception:
        return None
    for buffer in keep.buffers:
        digest.update(buffer.raw())
    return digest.digest()


def outline_of(value: object) -> bytes | None:
    """What stands for a function that a decorator made; None: it is no function."""
    parts: list[bytes] = []
    seen: set[int] = set()
    pending = [value]
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if type(one) is FunctionType:
            code = one.__code__
            parts.append(f"{one.__globals__.get('__name__')}.{code.co_qualname}".encode())
            for inner in codes_in(code):
                parts.append(inner.co_code)
                parts.append(_told((inner.co_names, [*filter(is_plain, inner.co_consts)])))
            parts.append(_told(without_objects(one.__defaults__)))
            parts.append(_told(without_objects(one.__kwdefaults__)))
            for cell in one.__closure__ or ():
                try:
                    inside = cell.cell_contents
                except ValueError:
                    continue
                if type(inside) is FunctionType or hasattr(inside, "__wrapped__"):
                    pending.append(inside)
                else:
                    parts.append(type(inside).__qualname__.encode())
                    if is_plain(inside):
                        parts.append(_told(inside))
            for kind, made in _dispatched(one):
                parts.append(f"{kind.__module__}.{kind.__qualname__}".encode())
                pending.append(made)
        elif isinstance(one, type):
            parts.append(one.__qualname__.encode())
            parts += (f"{base.__module__}.{base.__qualname__}".encode() for base in one.__bases__)
            for name, value in sorted(vars(one).items()):
                inside = functions_in(value)
                if inside:
                    parts.append(name.encode())
                    pending.extend(inside)
        else:
            parts.append(type(one).__qualname__.encode())
            if type(one) is CachedFunction:
                parts.append(_told(tuple(one.cache_parameters().values())))
        for name, value in getattr(one, "__dict__", {}).items():
            if is_plain(value) and not name.startswith("__"):
                parts.append(_told((name, value)))
        below = getattr(one, "__wrapped__", None)
        if below is not None:
            pending.append(below)
    return b"\0".join(parts)


def _told(value: object) -> bytes:
    """A plain value, or a dictionary of such, as bytes that can be compared."""
    return repr(value).encode("utf-8", "backslashreplace")


def _dispatched(func: object) -> Iterable[tuple[type, object]]:
    """The functions of a `functools.singledispatch`, by class; of other functions none."""
    registry = vars(func).get("registry")
    return registry.items() if type(registry) is MappingProxyType else ()


def _is_decorated(module: str, path: str, value: object) -> bool:
    """Whether a value is what a decorator made of the function of that name."""
    if not callable(value) or isinstance(value, type):
        return False
    names = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return names == (module, path) and found(module, path) is value


def _inside(cls: type) -> Iterator[object]:
    """The functions and classes in the body of a class."""
    for value in vars(cls).values():
        yield from functions_in(value)
        if isinstance(value, type) and value.__qualname__.startswith(f"{cls.__qualname__}."):
            yield value
            yield from _inside(value)


def state_of(
    module: str, path: str, value: object, named: bool, dumps: Dumps, met: dict[int, object]
) -> State | None:
    """What a module holds; None: it does not matter. ``met`` gets what its content holds."""
    if value is MISSING:
        return State(module, path, None, None, MISSING, "")
    if value is AS_IMPORTED:
        return State(module, path, AS_IMPORTED, None, None, "")
    try:
        by_value: tuple[object, ...] = (value,) if _is_decorated(module, path, value) else ()
        if isinstance(value, type) and (module_of(value), value.__qualname__) == (module, path):
            by_value = value, *_inside(value)
        if by_value:
            outline = outline_of(value)
            try:
                content = content_of(value, dumps, by_value)
            except Exception:
                content = None
            return State(module, path, content, outline, None, "")
        content = content_of(value, dumps, (), met)
        return State(module, path, content, None, None, "")
    except _Large:
        if not named:
            return None
        return State(module, path, None, _digest_of(value, dumps), value, "")
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        is_code = type(value) is FunctionType
        outline = outline_of(value) if is_code else None
        return State(module, path, None, outline, None, f"{kind}: {error}")


class Prepared:
    """What a call's code expects of modules that travel by name."""

    __slots__ = ("data", "large", "sources")

    def __init__(self, sources: tuple[Source, ...], data: bytes, large: list[State]) -> None:
        self.sources, self.data, self.large = sources, data, large

    def __reduce__(self) -> tuple[object, ...]:
        return expect, (self.data, *self.large)

    def in_band(self, dumps: Callable[..., bytes]) -> Prepared:
        """The same with large values as pickles of their own."""
        large = []
        for state in self.large:
            try:
                content = dumps(state.value, InBand())
            except Exception as error:
                kind = type(state.value)
                lost = f"{kind.__module__}.{kind.__qualname__}: {error}"
                large.append(State(state.module, state.path, None, None, None, lost))
            else:
                large.append(State(state.module, state.path, content, None, None, ""))
        return Prepared(self.sources, self.data, large)


class _Holders:
    """Names whose values hold an object together, such as an entry of a dictionary.

    Each such group is pickled once more as one, so that a call finds one object, too.
    """

    def __init__(self) -> None:
        self._groups: list[tuple[dict[int, object], list[tuple[State, object]]]] = []

    def add(self, state: State, value: object, met: dict[int, object]) -> None:
        """Take a name, its value, and the objects in it that can be changed."""
        if not met:
            return
        members = [(state, value)]
        apart = []
        for group in self._groups:
            if group[0].keys().isdisjoint(met):
                apart.append(group)
            else:
                met = {**group[0], **met}
                members = [*group[1], *members]
        self._groups = [*apart, (met, members)]

    def together(self, dumps: Dumps) -> list[bytes]:
        """The pickles, each a list of values; what is in which place is noted in the states."""
        made: list[bytes] = []
        for _, members in self._groups:
            values = list({id(value): value for _, value in members}.values())
            if len(values) == 1:
                continue  # names of one object
            try:
                data = content_of(values, dumps)
            except Exception:  # together they are large, or nested too deep: each by itself, then
                continue
            places = {id(value): place for place, value in enumerate(values)}
            for state, value in members:
                state.group = len(made), places[id(value)]
            made.append(data)
        return made


def prepared_of(reaches: Iterable[Reach], dumps: Dumps) -> Prepared | None:
    """What goes beside a pickle of something that reaches so far; None: nothing has to."""
    names: dict[str, None] = {}
    held: dict[tuple[str, str], tuple[object, bool]] = {}
    for reach in reaches:
        names.update(reach.modules)
        held.update(reach.held)
    if not names and not held:
        return None
    states, large = [], []
    names_of: dict[int, list[State]] = {}
    holders = _Holders()
    for (module, path), (value, named) in held.items():
        met: dict[int, object] = {}
        if type(value) is Seen:
            value = value.value
            state = State(module, path, None, None, None, "")
            if not isinstance(value, _DEFINED):
                with contextlib.suppress(Exception):  # as imported, then
                    state.content = content_of(value, dumps, (), met)
            if _is_changeable(value):
                met[id(value)] = value
        else:
            known = state_of(module, path, value, named, dumps, met)
            if known is None:
                continue
            state = known
        if state.content is None and state.value is not None and state.value is not MISSING:
            large.append(state)
            continue
        states.append(state)
        if id(type(value)) not in _WITHOUT_IDENTITY:
            names_of.setdefault(id(value), []).append(state)
        holders.add(state, value, met)
    several = [same for same in names_of.values() if len(same) > 1]
    for number, same in enumerate(several):
        for state in same:
            state.same = number
    sources = modules.sources(names)
    together = holders.together(dumps)
    facts = [tuple(one) for one in sources], states, together
    return Prepared(sources, pickle.dumps(facts, 5), large)


def expect(data: bytes, *large: State) -> None:
    """Called while a pickle is read: have the world expect what comes with it."""
    world = current()
    if isinstance(world, World):
        world.expect(data, large)


@functools.lru_cache(maxsize=STATES_READ)
def read(data: bytes) -> tuple[list[Source], list[State]]:
    """What `Prepared` holds."""
    sources, states, together = pickle.loads(data)
    of_these = object()
    groups = [Group(one) for one in together]
    for state in states:
        if state.same is not None:
            state.same = of_these, state.same  # other pickles count anew
        if state.group is not None:
            number, place = state.group
            state.group = groups[number], place
    return [Source(*one) for one in sources], states


_ALIKE: Final = (dict, list, tuple, set, frozenset, str, bytes, int, float, bool, type(None))


def alike(one: object, other: object) -> bool:
    """Whether two values of plain types are equal, types included."""
    if type(one) is not type(other) or type(one) not in _ALIKE:
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and all(
            key in other and alike(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


Held = dict[tuple[str, str], object]
"""What modules held right after their import, by module and path, as it was compared."""


def comparing(dumps: Dumps) -> Callable[[State, object, Held], tuple[object] | None]:
    """A comparison of what a module holds after its import with what it held in the program."""

    def compare(state: State, now: object, held: Held) -> tuple[object] | None:
        if state.value is MISSING:
            return None if now is MISSING else (MISSING,)
        if state.content == AS_IMPORTED:
            return None
        key = state.module, state.path
        if state.content is None and state.value is not None:  # it is large
            large = state.module, f"{state.path} as a digest"
            same = held.get(large)
            if same is None:
                same = held[large] = _digest_of(now, dumps)
            return None if same is not None and same == state.outline else (state.value,)
        fresh = held.get(key)
        if fresh is None:
            fresh = held[key] = _fresh(now, state.outline is not None, dumps)
        wanted = state.content if state.outline is None else state.outline
        if fresh == wanted or state.content is None:
            return None
        value = pickle.loads(state.content)
        # What it is made of was imported just now, and may have changed what is there.
        comparable = state.outline is None and now is not MISSING
        if comparable and (_fresh(now, False, dumps) == wanted or alike(value, now)):
            return None
        return (value,)

    return compare


def _fresh(now: object, as_outline: bool, dumps: Callable[..., bytes]) -> object:
    if now is MISSING:
        return MISSING
    if as_outline:
        return outline_of(now)
    try:
        return content_of(now, dumps)
    except Exception:
        return MISSING
