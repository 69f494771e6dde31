"""Which part of a value does not pickle, and what a call looks like in one line.

For messages only: nothing here decides anything, nothing here raises, and both work within a
budget, since they look at values of any size and any class. Called where an argument, result or
exception fails to encode, and wherever a call is named.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from reprlib import Repr
from typing import TYPE_CHECKING, Final, cast

from mars.settings import DIAGNOSE_DEPTH, DIAGNOSE_VISITS, PICKLE_LEVELS

if TYPE_CHECKING:
    import functools

    import numpy

_PLAIN: Final = frozenset({int, float, complex, bool, str, bytes, bytearray, type(None)})

_Part = tuple[str, object]  # what to add to the path, and the value there


def find_unpicklable(
    value: object, root: str, dumps: Callable[[object], object]
) -> tuple[str, str] | None:
    """Find the innermost part of a value that does not pickle. Never raises.

    Parameters
    ----------
    value : object
        What failed to pickle.
    root : str
        What to call it, such as ``args[0]``.
    dumps : callable
        Pickles a value, or raises.

    Returns
    -------
    tuple of str and str, or None
        Path with type, and the reason: ``("args[0]['model'].lock: _thread.lock",
        "cannot pickle '_thread.lock' object")``. None: it does pickle.
    """
    try:
        return _Search(dumps).search(value, root)
    except BaseException as trouble:  # noqa: BLE001  # the message is worth less than the error
        return f"{root}: {_type_name(value)}", _reason(trouble)


class _OutOfBudget(Exception):
    pass


class _Search:
    def __init__(self, dumps: Callable[[object], object]) -> None:
        self._dumps = dumps
        self._visits = 0

    def search(self, value: object, root: str) -> tuple[str, str] | None:
        trouble = self._trouble(value)
        if trouble is None:
            return None
        return self._inside(value, root, trouble, {id(value): value}) or (
            f"{root}: {_type_name(value)}",
            _reason(trouble),
        )

    def _inside(
        self, value: object, path: str, trouble: BaseException, above: dict[int, object]
    ) -> tuple[str, str] | None:
        """The culprit in or at ``value``; None if only a value above it on the path fails."""
        here = f"{_shown(path)}: {_type_name(value)}", _reason(trouble)
        if _too_much(trouble) or len(above) > DIAGNOSE_DEPTH:
            return here
        only_above = False
        try:
            for step, part, why in self._failing(list(_parts(value))):
                if id(part) in above:
                    only_above = True
                    continue
                # The dict of ids also keeps parts alive, which may have been made on the way.
                found = self._inside(part, path + step, why, {**above, id(part): part})
                if found is not None:
                    return found
                only_above = True
        except _OutOfBudget:
            return here
        return None if only_above else here

    def _failing(self, parts: Sequence[_Part]) -> Iterator[tuple[str, object, BaseException]]:
        """Parts that fail, found by halving: most of a large container is fine."""
        parts = [part for part in parts if type(part[1]) not in _PLAIN]
        if not parts:
            return
        if len(parts) == 1:
            step, value = parts[0]
            trouble = self._trouble(value)
            if trouble is not None:
                yield step, value, trouble
        elif self._trouble([value for _, value in parts]) is not None:
            middle = len(parts) // 2
            yield from self._failing(parts[:middle])
            yield from self._failing(parts[middle:])

    def _trouble(self, value: object) -> BaseException | None:
        self._visits += 1
        if self._visits > DIAGNOSE_VISITS:
            raise _OutOfBudget
        try:
            self._dumps(value)
        except KeyboardInterrupt:
            raise
        except BaseException as trouble:  # noqa: BLE001  # a class may raise what it likes
            return trouble
        return None


def _parts(value: object) -> Iterator[_Part]:
    """What pickling a value would go on to, each with the step that leads there."""
    try:
        yield from _parts_of_kind(value)
    except Exception:  # noqa: BLE001  # a property, or __reduce__, that raises
        return


def _parts_of_kind(value: object) -> Iterator[_Part]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f" key ({_short(key)})", key
            yield f"[{_short(key)}]", item
    elif isinstance(value, tuple) and hasattr(type(value), "_fields"):
        yield from ((f".{name}", item) for name, item in zip(value._fields, value, strict=False))  # type: ignore[attr-defined]
    elif isinstance(value, list | tuple):
        yield from ((f"[{place}]", item) for place, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from ((f" item ({_short(item)})", item) for item in value)
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
        return
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
        return
    elif isinstance(value, type):
        for name, item in vars(value).items():
            if isinstance(item, staticmethod | classmethod):
                item = item.__func__
            if name not in ("__dict__", "__weakref__", "__doc__", "__module__"):
                yield f".{name}", item
        yield from ((f" base {_type_name(base)}", base) for base in value.__bases__)
        return
    elif type(value).__module__ == "functools" and type(value).__name__ == "partial":
        partial = cast("functools.partial[object]", value)
        yield ".func", partial.func
        yield from ((f".args[{place}]", item) for place, item in enumerate(partial.args))
        yield from ((f".keywords[{name!r}]", item) for name, item in partial.keywords.items())
        return
    elif type(value).__module__ == "numpy" and type(value).__name__ == "ndarray":
        array = cast("numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]", value)
        if array.dtype.hasobject and array.dtype.names is None:
            for place, item in zip(_places(array.shape), array.flat, strict=False):
                yield f"[{', '.join(map(str, place))}]", item
        return
    if type(value) not in (dict, list, tuple, set, frozenset):
        yield from _parts_of_instance(value)


def _parts_of_instance(value: object) -> Iterator[_Part]:
    """Attributes, as its own ``__reduce__`` gives them: what it leaves out cannot hurt."""
    made_of = value.__reduce_ex__(4)
    if not isinstance(made_of, tuple):
        return  # a name: pickled by reference
    _, args, state, items, pairs = (*made_of, None, None, None)[:5]
    made_by = getattr(made_of[0], "__name__", "")
    if isinstance(args, tuple):
        # copyreg.__newobj__: the class, then the arguments for __new__.
        named = isinstance(value, BaseException)
        for place, item in enumerate(args):
            if item is type(value) and made_by.startswith("__newobj"):
                yield " class", item
            elif not isinstance(value, tuple | list | dict | set | frozenset):
                yield (f".args[{place}]" if named else f" part {place}"), item
    states = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    for part in states:
        if isinstance(part, dict):
            yield from ((f".{name}", item) for name, item in part.items())
        elif part is not None:
            yield " state", part
    if not isinstance(value, list) and items is not None:
        yield from ((f"[{place}]", item) for place, item in enumerate(islice(items, 100_000)))
    if not isinstance(value, dict) and pairs is not None:
        yield from ((f"[{_short(key)}]", item) for key, item in islice(pairs, 100_000))
    if type(value).__module__ == "__main__" or "<locals>" in type(value).__qualname__:
        yield " class", type(value)  # by value, with all it holds


def _parts_of_function(function: types.FunctionType) -> Iterator[_Part]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f" closure cell {name!r}", cell.cell_contents
        except ValueError:  # empty so far
            continue
    for name in _names_used(code):
        if name in function.__globals__:
            yield f" global {name!r}", function.__globals__[name]
    with_default = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    for name, item in zip(with_default[len(with_default) - len(defaults) :], defaults, strict=True):
        yield f" default of {name!r}", item
    for name, item in (function.__kwdefaults__ or {}).items():
        yield f" default of {name!r}", item
    yield from ((f".{name}", item) for name, item in vars(function).items())


def _names_used(code: types.CodeType) -> Iterable[str]:
    """Names that a function and the functions in it may look up among its globals."""
    names: dict[str, None] = {}
    waiting = [code]
    while waiting:
        code = waiting.pop()
        names.update(dict.fromkeys(code.co_names))
        waiting.extend(inner for inner in code.co_consts if isinstance(inner, types.CodeType))
    return names


def _places(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    from itertools import product

    return product(*map(range, shape))


def _type_name(value: object) -> str:
    cls = value if isinstance(value, type) else type(value)
    try:
        module = type.__dict__["__module__"].__get__(cls)
        qualname = str(type.__dict__["__qualname__"].__get__(cls))
    except Exception:  # noqa: BLE001
        return "?"
    return qualname if module == "builtins" else f"{module}.{qualname}"


_LONG_PATH: Final = 100
"""Characters; of a longer path the middle is left out."""


def _shown(path: str) -> str:
    return path if len(path) <= _LONG_PATH else f"{path[:60]}…{path[-30:]}"


def _too_much(trouble: BaseException) -> bool:
    """Whether it is the size or the depth of the whole that fails, and no part of it."""
    seen: BaseException | None = trouble
    for _ in range(5):  # cloudpickle raises an error of its own from a RecursionError
        if isinstance(seen, RecursionError | MemoryError):
            return True
        seen = None if seen is None else seen.__cause__ or seen.__context__
    return False


def _reason(trouble: BaseException) -> str:
    if _too_much(trouble) and not isinstance(trouble, MemoryError):
        return (
            f"nested deeper than {PICKLE_LEVELS:,} levels, or a method such as __reduce__ or "
            f"__getstate__ never ends"
        )
    try:
        text = str(trouble)
    except BaseException:  # noqa: BLE001
        text = ""
    text = text.replace("\n", " ")
    return f"{text[:297]}…" if len(text) > 298 else text or type(trouble).__name__


# -- one line about a call --------------------------------------------------------------------


def summarize_call(
    name: str, args: Sequence[object], kwargs: Mapping[str, object], limit: int = 120
) -> str:
    """Describe a call as ``name(args…)`` in one line. Never raises, never slow.

    Parameters
    ----------
    name : str
        Name of the function or of the call.
    args, kwargs : sequence, mapping
        Its arguments. Arrays show as ``array(shape, dtype)``, frames as ``DataFrame(rows×cols)``,
        instances of other classes by their class alone: their ``repr`` may take seconds.
    limit : int, default 120
        Length of the result at the most.

    Examples
    --------
    >>> summarize_call("fit", (list(range(100)),), {"depth": 3})
    'fit([0, 1, 2, ...], depth=3)'
    """
    try:
        name = _printable(str(name)[:limit])
        if len(name) > limit // 2:
            name = name[: max(limit // 2 - 1, 0)] + "…"
        shown: list[str] = []
        length = len(name)
        for prefix, value in _named(args, kwargs):
            shown.append(prefix + _short(value))
            length += len(shown[-1]) + 2
            if length > limit:
                break
        text = f"{name}({', '.join(shown)})"
        return text if len(text) <= limit else f"{text[: max(limit - 2, 0)]}…)"[:limit]
    except Exception:  # noqa: BLE001
        return f"{type(name).__name__}(…)"


def _named(args: Sequence[object], kwargs: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    yield from (("", value) for value in args)
    yield from ((f"{_printable(key[:60])}=", value) for key, value in kwargs.items())


# Classes of the standard library whose repr is short and quick.
_QUICK: Final = frozenset({"datetime", "decimal", "fractions", "pathlib", "uuid", "ipaddress"})


class _Short(Repr):
    """`reprlib` with an eye on what people pass to slow functions."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 3
        self.maxarray = self.maxdict = 3
        self.maxstring = self.maxother = 40

    def repr1(self, x: object, level: int) -> str:
        cls = type(x)
        if cls in _SAFE:
            return super().repr1(x, level)
        if type(x) is int:
            # Longer ones take quadratic time, or are refused, to be written out.
            return repr(x) if x.bit_length() < 128 else f"<int of {x.bit_length()} bits>"
        if type(x) is bytes or type(x) is bytearray:
            return f"<{len(x):,} bytes>" if len(x) > self.maxstring else repr(x)
        if isinstance(x, type):
            return x.__name__
        if cls in (types.FunctionType, types.BuiltinFunctionType, types.ModuleType):
            return str(getattr(x, "__name__", ""))
        if type(x) is types.MethodType:
            return f"{type(x.__self__).__name__}.{x.__name__}"
        package = cls.__module__.partition(".")[0]
        if package != "builtins" and hasattr(cls, "shape") and not hasattr(cls, "_fields"):
            return _array(x, cls)
        if package in _QUICK or (package == "builtins" and cls in (range, slice, type(...))):
            return repr(x)[: self.maxother * 2]
        if hasattr(cls, "__members__"):  # an enum
            return f"{cls.__name__}.{getattr(x, '_name_', '')}"
        if isinstance(x, str | bytes | list | tuple | dict | set | frozenset):
            return f"{cls.__name__}({len(x)} items)"
        return f"{cls.__name__}(…)"


# Exact classes: a subclass has a repr of its own.
_SAFE: Final = (str, float, complex, bool, type(None), list, tuple, set, frozenset, dict)


def _array(value: object, cls: type) -> str:
    shape = getattr(value, "shape", ())
    item: Callable[[], object] | None = getattr(value, "item", None)
    if shape == () and item is not None:
        return repr(item())[:40]
    name = {"ndarray": "array"}.get(cls.__name__, cls.__name__)
    if hasattr(cls, "columns"):
        return f"{name}({'×'.join(map(str, shape))})"
    dtype = getattr(value, "dtype", None)
    return f"{name}({shape}, {dtype})" if dtype is not None else f"{name}({shape})"


_REPR: Final = _Short()


def _short(value: object) -> str:
    try:
        text = _REPR.repr(value)
    except BaseException:  # noqa: BLE001
        return f"{type(value).__name__}(…)"
    return _printable(text)


def _printable(text: str) -> str:
    """Text that stays on its line and cannot steer a terminal."""
    return text if text.isprintable() else "".join(s if s.isprintable() else "?" for s in text)
