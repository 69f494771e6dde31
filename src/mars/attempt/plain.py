"""What travels without cloudpickle, which takes long to load at both ends.

A function is plain when all that it can reach is constants, installed modules and what they
define, and plain functions beside it. Most first calls are. A value is plain when all its
classes and functions are installed, as those of arrays are. Anything else, such as closures,
classes of the program and packages, whose submodules have to be found, is cloudpickle's: `code`
asks here first, and a worker gets the same either way.
"""

from __future__ import annotations

import builtins
import io
import marshal
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, GenericAlias, ModuleType, UnionType
from typing import Any, Final, TypeGuard

from mars.attempt.origin import is_installed, is_project_module, names_in
from mars.settings import BUFFER_BYTES

_CONSTANTS: Final = frozenset({bool, int, float, complex, str, bytes, type(None), type(...)})

_NAMED: Final = (FunctionType, type, type(lru_cache(len)))
"""What `pickle` writes as a name, without a look at whose it is."""

_OF_MODULE: Final = ("__name__", "__package__", "__file__")
"""For relative imports inside a function, and code that asks where it is."""

_CODE_VERSION: Final = 2
"""Of `marshal`: later ones write the same code in several ways, by how often it is referred to."""


class _NotPlain(Exception):
    pass


def dumps_function(func: object) -> bytes | None:
    """Pickle what is to be called; None when it is not plain."""
    if _by_value():
        return None
    try:
        if _is_ours(func):
            return pickle.dumps(_Reached(func), 5)
        _check(func)
        return pickle.dumps(func, 5)
    except _NotPlain:
        return None


def dumps_value(value: object, keep: Callable[[pickle.PickleBuffer], bool]) -> bytes | None:
    """Pickle a value, large buffers left to ``keep``; None when it is not plain."""
    if _by_value():
        return None
    file = io.BytesIO()
    try:
        _Pickler(file, 5, buffer_callback=keep).dump(value)
    except Exception:  # cloudpickle takes more, and its error is the better one
        return None
    return file.getvalue()


def _by_value() -> bool:
    """Whether the program told cloudpickle to take installed modules by value."""
    # While another thread imports it, it has nothing yet.
    registry = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", None)
    return registry is not None and bool(registry())


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object, /) -> Any:
        # type(), because isinstance() also asks the value, which may answer anything.
        if issubclass(type(value), _NAMED) and not is_installed(value):
            raise _NotPlain
        return NotImplemented


class _Reached:
    """All that a plain function reaches; unpickled, it is the function."""

    def __init__(self, root: FunctionType) -> None:
        namespace = root.__globals__
        if "__path__" in namespace:  # of a package: its submodules may be meant
            raise _NotPlain
        names: dict[str, None] = {name: None for name in _OF_MODULE if name in namespace}
        found = [root]
        self.functions = []
        for func in found:  # which grows meanwhile
            if func.__globals__ is not namespace:
                raise _NotPlain
            self.functions.append(_facts(func))
            for name in names_in(func.__code__):
                if name in namespace:
                    names[name] = None
                    value = namespace[name]
                    if _is_ours(value) and value not in found:
                        found.append(value)
        self.places: dict[str, int] = {}  # of functions, by global name
        self.modules: dict[str, str] = {}
        self.values: dict[str, object] = {}
        for name in names:
            value = namespace[name]
            if _is_ours(value):
                self.places[name] = found.index(value)
            elif type(value) is ModuleType:
                self.modules[name] = _name_of_module(value)
            else:
                _check(value)
                self.values[name] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.functions, self.places, self.modules, self.values)


def _is_ours(value: object) -> TypeGuard[FunctionType]:
    return type(value) is FunctionType and not is_installed(value)


def _facts(func: FunctionType) -> tuple[Any, ...]:
    if func.__closure__ is not None or func.__dict__ or getattr(func, "__type_params__", None):
        raise _NotPlain
    facts = func.__name__, func.__qualname__, func.__module__, func.__doc__, func.__defaults__
    _check(facts)
    by_name = func.__kwdefaults__, func.__annotations__
    for values in by_name:
        _check(tuple(values.values()) if values else ())
    try:
        return marshal.dumps(func.__code__, _CODE_VERSION), *facts, *by_name
    except ValueError:  # somebody has put other constants into it
        raise _NotPlain from None


def _name_of_module(module: ModuleType) -> str:
    name = module.__name__
    if (
        sys.modules.get(name) is not module
        or hasattr(module, "__path__")
        or name == "__main__"
        or is_project_module(name)
    ):
        raise _NotPlain
    return name


def _check(value: Any) -> None:
    """Refuse what is not known to pickle by itself, or large, or can change in place."""
    kind = type(value)
    if kind is str or kind is bytes:
        if len(value) >= BUFFER_BYTES:
            raise _NotPlain
    elif kind is tuple:
        for item in value:
            _check(item)
    elif kind is GenericAlias or kind is UnionType:  # of annotations
        _check(getattr(value, "__origin__", None))
        _check(value.__args__)
    elif issubclass(kind, (BuiltinFunctionType, FunctionType, type)):
        if not is_installed(value) and value is not type(None):  # which pickle knows
            raise _NotPlain
    elif kind not in _CONSTANTS:
        raise _NotPlain


def _rebuild(
    functions: Sequence[tuple[Any, ...]],
    places: Mapping[str, int],
    modules: Mapping[str, str],
    values: Mapping[str, object],
) -> FunctionType:
    """The first of the functions; all have the same globals."""
    namespace: dict[str, Any] = {"__builtins__": builtins.__dict__, **values}
    made = []
    for code, name, qualname, module, doc, defaults, by_name, hints in functions:
        func = FunctionType(marshal.loads(code), namespace, name, defaults)
        func.__qualname__, func.__module__, func.__doc__ = qualname, module, doc
        func.__kwdefaults__, func.__annotations__ = by_name, hints
        made.append(func)
    for name, where in modules.items():
        __import__(where)
        namespace[name] = sys.modules[where]
    namespace.update({name: made[place] for name, place in places.items()})
    return made[0]
