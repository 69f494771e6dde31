"""How code travels: functions and classes of the project by value, installed ones by name.

Whatever lives in ``__main__``, a notebook or a module outside site-packages and the standard
library is pickled by value, so a worker runs exactly what the caller's process has now, also
after an edit and a reload. A function is pickled once and known by the digest of its pickle;
it is pickled again as soon as something that it refers to has changed.
"""

from __future__ import annotations

import functools
import io
import operator
import pickle
import sys
import threading
import weakref
from collections import ChainMap
from collections.abc import Callable, Collection, Container, Mapping
from enum import Enum
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any, ClassVar, Final, Protocol

from mars.attempt import plain
from mars.attempt.origin import is_installed, is_project_module, names_in
from mars.task import Function

try:  # where `hashlib` has it from, which takes 4 ms to load OpenSSL
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b


class Keeper(Protocol):
    """Takes the large buffers that a pickle leaves out; falsy: the buffer is taken."""

    buffers: list[pickle.PickleBuffer]

    def __call__(self, buffer: pickle.PickleBuffer) -> bool: ...

    def restart(self) -> None: ...


_registry_lock = threading.RLock()

_NO_FILE: Final = "<dynamic-code>"
"""What cloudpickle writes in place of the name of a function's file."""

_CachedFunction: Any = type(functools.lru_cache(len))


def _with_cache(func: Any, parameters: dict[str, Any]) -> Any:
    """A function under a cache of its own, empty at first."""
    return functools.lru_cache(**parameters)(func)


@functools.cache
def _pickler() -> type[Any]:
    # Imported late: it takes ~15 ms, and a program of plain functions never needs it. By the name
    # that stands in pickles: where one thread begins with the package and one with the module, one
    # of them is given what is not complete.
    import cloudpickle.cloudpickle as cloudpickle

    reduce_code = cloudpickle.Pickler.dispatch_table[CodeType]

    def reduce_code_with_file(code: CodeType) -> tuple[object, ...]:
        # cloudpickle 3.1.3 began to leave the file's name out, and with it go the lines of a
        # traceback, and of `mars stack`.
        make, parts = reduce_code(code)
        return make, tuple(code.co_filename if part == _NO_FILE else part for part in parts)

    class ProjectPickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Pickles by value what belongs to the project."""

        dispatch_table: ClassVar[Any] = ChainMap(
            {CodeType: reduce_code_with_file}, cloudpickle.Pickler.dispatch_table
        )

        def __init__(self, file: io.BytesIO, keep: Keeper) -> None:
            super().__init__(file, protocol=5, buffer_callback=keep)
            self.registered: list[ModuleType] = []

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, ModuleType):
                self._by_value(obj.__name__)
            elif isinstance(obj, (FunctionType, type)):
                self._by_value(obj.__module__)
            elif isinstance(obj, _CachedFunction) and not is_installed(obj):
                return _with_cache, (obj.__wrapped__, obj.cache_parameters())
            return super().reducer_override(obj)

        def _by_value(self, name: str | None) -> None:
            if is_project_module(name):
                module = sys.modules[str(name)]
                if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                    cloudpickle.register_pickle_by_value(module)
                    self.registered.append(module)

        def dump(self, obj: object) -> None:
            # The registry is the whole process's: other users of cloudpickle must not see what is
            # ours, and two threads of ours must not take it from each other.
            with _registry_lock:
                try:
                    super().dump(obj)
                finally:
                    for module in self.registered:
                        cloudpickle.unregister_pickle_by_value(module)

    return ProjectPickler


def dumps(value: object, keep: Keeper) -> bytes:
    """Pickle with project code by value; where that fails, with importable code by name.

    Raises
    ------
    Exception
        Whatever pickling raises when both ways fail.
    """
    keep.restart()
    data = plain.dumps_value(value, keep)
    if data is not None:
        return data
    keep.restart()
    try:
        file = io.BytesIO()
        _pickler()(file, keep).dump(value)
        return file.getvalue()
    except Exception as by_value:
        # A module may hold what cannot travel, such as a lock. Where a worker can import it, its
        # name is enough.
        import cloudpickle.cloudpickle as cloudpickle

        file = io.BytesIO()
        keep.restart()
        try:
            cloudpickle.Pickler(file, protocol=5, buffer_callback=keep).dump(value)
        except Exception:
            raise by_value from None
        return file.getvalue()


_ATOMS: Final = (
    int, float, complex, str, bytes, bool, type(None), type(Ellipsis), range, CodeType, UnionType,
    GenericAlias, GetSetDescriptorType, MemberDescriptorType,
    MethodDescriptorType, WrapperDescriptorType, ClassMethodDescriptorType,
)  # fmt: skip
_SETTLED: Final = {
    "__future__._Feature", "datetime.date", "datetime.datetime", "datetime.timedelta",
    "datetime.timezone", "decimal.Decimal", "fractions.Fraction", "logging.Logger",
    "numpy._ArrayFunctionDispatcher", "numpy.ufunc", "pathlib.PosixPath", "pathlib.PurePosixPath",
    "pathlib.WindowsPath", "re.Pattern", "uuid.UUID",
}  # fmt: skip
"""Types whose objects do not change, or travel by their name."""
_NOT_LOOKED_AT: Final = {
    "__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__",
    "_abc_impl",
}  # fmt: skip
"""What Python keeps in a class for itself, and nobody changes in place."""
_MOST_HELD: Final = 10_000
"""Items of containers, classes and modules that a function refers to, up to which we look at all of
them at each `spawn`; that takes 0.2 ms."""
_MISSING: Final = object()


class _References:
    """What a function refers to, so that a later change of it is noticed.

    Containers, classes and modules are looked at by the identity of what is in them. ``stable`` is
    False when a value can change in place and we cannot see it: then only pickling it again tells.
    """

    def __init__(self, func: FunctionType) -> None:
        self.stable = True
        self._globals: list[tuple[dict[str, Any], str, object]] = []
        self._cells: list[tuple[CellType, object]] = []
        # Weak: the one that is remembered has to be able to go, and what it refers to is held.
        self._functions: list[tuple[weakref.ref[FunctionType], CodeType, object, object]] = []
        self._mappings: list[tuple[Mapping[Any, Any], tuple[Any, ...], tuple[Any, ...]]] = []
        self._collections: list[tuple[Collection[Any], tuple[Any, ...]]] = []
        self._seen: set[int] = set()
        self._room = _MOST_HELD
        self._function(func)

    def unchanged(self) -> bool:
        try:
            return self._unchanged()
        except RuntimeError:  # another thread changes one meanwhile
            return False

    def _unchanged(self) -> bool:
        for reference, func_code, defaults, kwdefaults in self._functions:
            func = reference()
            if (
                func is None
                or func.__code__ is not func_code
                or func.__defaults__ is not defaults
                or func.__kwdefaults__ is not kwdefaults
            ):
                return False
        for namespace, name, value in self._globals:
            if namespace.get(name, _MISSING) is not value:
                return False
        for cell, value in self._cells:
            if _contents(cell) is not value:
                return False
        for mapping, names, values in self._mappings:
            if not (_same(mapping, names) and _same(mapping.values(), values)):
                return False
        return all(_same(collection, items) for collection, items in self._collections)

    def _function(self, func: FunctionType) -> None:
        if is_installed(func):
            return  # by name: nothing of it travels
        reference = weakref.ref(func)
        self._functions.append((reference, func.__code__, func.__defaults__, func.__kwdefaults__))
        for value in (*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()):
            self._value(value)
        self._mapping(func.__dict__)
        for name in names_in(func.__code__):
            value = func.__globals__.get(name, _MISSING)
            self._globals.append((func.__globals__, name, value))
            self._value(value)
        for cell in func.__closure__ or ():
            value = _contents(cell)
            self._cells.append((cell, value))
            self._value(value)

    def _has_room(self, count: int) -> bool:
        self._room -= count
        if self._room < 0:
            self.stable = False
        return self._room >= 0

    def _mapping(self, mapping: Mapping[Any, Any], without: Container[object] = ()) -> None:
        if not self._has_room(len(mapping)):
            return
        names, values = tuple(mapping), tuple(mapping.values())
        self._mappings.append((mapping, names, values))
        for name, value in zip(names, values, strict=False):
            if name not in without:
                self._value(name)
                self._value(value)

    def _value(self, value: object) -> None:
        if not self.stable:
            return  # nobody will ask for the rest
        if isinstance(value, BuiltinFunctionType):
            if not isinstance(value.__self__, (ModuleType, type(None))):
                self._value(value.__self__)  # a method: of a list that grows, perhaps
            return
        if isinstance(value, _ATOMS) or value is _MISSING or id(value) in self._seen:
            return
        self._seen.add(id(value))
        kind = type(value)
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, (tuple, frozenset)):
            for item in value:
                self._value(item)
        elif isinstance(value, ModuleType):
            if is_project_module(value.__name__):
                namespace = vars(value)
                own = {name for name in namespace if name.startswith("__")}
                self._mapping(namespace, own)
        elif isinstance(value, type):
            if value.__module__ == "__main__" or is_project_module(value.__module__):
                self._mapping(vars(value), _NOT_LOOKED_AT)
                self._value(type(value))
                for base in value.__bases__:
                    self._value(base)
        elif kind is list or kind is set:
            if not self._has_room(len(value)):  # type: ignore[arg-type]
                return
            items: tuple[object, ...] = tuple(value)  # type: ignore[arg-type]
            self._collections.append((value, items))  # type: ignore[arg-type]
            for item in items:
                self._value(item)
        elif kind is dict:
            self._mapping(value)  # type: ignore[arg-type]
        elif isinstance(value, _CachedFunction):
            if not is_installed(value):
                self._value(value.__wrapped__)
        elif isinstance(value, (staticmethod, classmethod)):
            self._value(value.__wrapped__)
        elif isinstance(value, property):
            for part in (value.fget, value.fset, value.fdel):
                self._value(part)
        elif isinstance(value, Enum):
            self._value(kind)
            self._value(value._value_)
        elif kind.__module__ != "typing" and _title(kind) not in _SETTLED:
            self.stable = False


def _title(kind: type) -> str:
    return f"{str(kind.__module__).partition('.')[0]}.{kind.__name__}"


def _same(collection: Collection[Any], items: tuple[Any, ...]) -> bool:
    return len(collection) == len(items) and all(map(operator.is_, collection, items))


def _contents(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # still empty: a name that is assigned later
        return _MISSING


class _Known:
    """A function that was pickled before."""

    __slots__ = ("function", "reference", "references")

    def __init__(
        self, reference: weakref.ref[FunctionType], references: _References, function: Function
    ) -> None:
        self.reference, self.references, self.function = reference, references, function


_known: dict[int, _Known] = {}


def _forget(known: dict[int, _Known], key: int, _: object) -> None:
    """A function is gone; at the end of a program the names of this module may be, too."""
    known.pop(key, None)


def name_of(func: object) -> str:
    """What to call a function in logs and errors."""
    while isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return str(name).rpartition("<locals>.")[2]


def describe(func: object, keep_factory: Callable[[], Keeper]) -> Function:
    """The function as it travels, from memory where nothing that it refers to has changed.

    Parameters
    ----------
    func : callable
        What to pickle.
    keep_factory : callable
        Makes a collector of large buffers.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    known = _known.get(id(func))
    if known is not None and known.reference() is func and known.references.unchanged():
        return known.function
    keep = keep_factory()
    data = plain.dumps_function(func) or dumps(func, keep)
    buffers = tuple(keep.buffers)
    digest = blake2b(data, digest_size=16)
    for buffer in buffers:
        # By identity, not by content: hashing a large array at each spawn would cost more than
        # the call. An identity is unique only as long as its object lives, so engines must not
        # take such a key for the same function beyond the run whose calls hold it.
        view = buffer.raw()
        digest.update(f"{id(view.obj)}:{view.nbytes}".encode())
    function = Function(digest.digest(), name_of(func), data, buffers)
    if isinstance(func, FunctionType):
        references = _References(func)
        if references.stable and not buffers:
            key = id(func)
            reference = weakref.ref(func, functools.partial(_forget, _known, key))
            _known[key] = _Known(reference, references, function)
    return function


__all__ = ["describe", "dumps", "name_of"]
