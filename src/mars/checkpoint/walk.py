"""Walks through a value and all that it reaches, and makes a digest of it.

Two values have the same digest if no call can tell them apart. All code and values of the project
that a function reaches count; installed packages count by name and version. Line numbers, file
names, comments, docstrings and the order of sets do not count. What is walked comes out of its
pickle, so it is exactly what a worker would get. A value that has no content that lasts, such as an
open file, raises `Unidentified`. Called by `mars.checkpoint.digests` and `.declared`.
"""

from __future__ import annotations

import builtins
import copyreg
import functools
import importlib.util
import marshal
import os
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, cast

from mars.checkpoint.identity import KEY_BYTES, PART_BYTES, Code, Unidentified
from mars.checkpoint.loader import MISSING, named
from mars.checkpoint.module_code import compiled, compiled_source, loads
from mars.code.modules import file_of, record_of
from mars.code.origin import is_project_module
from mars.code.world import expected
from mars.settings import BUFFER_BYTES

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]

SCALARS: Final = frozenset({bool, int, float, complex, str, bytes, type(None), type(Ellipsis)})
"""Types whose values `marshal` writes in one way only, in any process."""

_KIND_OF_CODE: Final = 0x3AF
"""Flags that say what code is: *args, **kwargs, a generator, a coroutine. The other flags say where
the code stands, and what was imported from `__future__` there."""

_HAS_DOCSTRING: Final = 0x4000000  # from Python 3.14 on

_OF_CLASS: Final = frozenset(
    {
        "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__",
        "_abc_impl", "__firstlineno__", "__static_attributes__", "__annotate__",
        "__annotate_func__", "__annotations_cache__", "__parameters__",
    }
)  # fmt: skip
"""What a class has beside what its author wrote, or what can change and means nothing."""


class Place:
    """Stands in the place of an input while arguments are walked."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Arrays:
    """Digests of large arrays, so that an array that several calls share is read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[bytes, object]] = {}

    def digest(self, view: memoryview, address: int, owner: object) -> bytes:
        """Return the digest of a buffer; ``owner`` is held, so its memory is not used again."""
        key = (address, view.nbytes)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = (blake2b(view, digest_size=KEY_BYTES).digest(), owner)
        return known[0]


class Walk:
    """Feeds one value, and all that it reaches, into a digest in an order that is always the same.

    An object that was met before counts as a number, as in a pickle. So cycles end.

    Parameters
    ----------
    code : Code
        Learns the names and digests of the parts that are met.
    arrays : Arrays, optional
        Digests of large arrays.
    """

    def __init__(self, code: Code, arrays: Arrays | None = None) -> None:
        self.code = code
        self._arrays = arrays
        self._hash = blake2b(digest_size=KEY_BYTES)
        self._part: blake2b | None = None  # a second digest, of the part that is being walked
        self._numbers: dict[int, int] = {}
        self._held: list[object] = []  # so that no number of an object is used again
        self._path: list[str] = []
        self._sets: set[int] = set()

    def digest(self) -> bytes:
        """Return the digest of all that was walked so far."""
        return self._hash.digest()

    # -- values -------------------------------------------------------------------------------

    def walk(self, value: object, step: str = "") -> None:
        """Feed a value into the digest.

        Raises
        ------
        Unidentified
            It has no content that another process could recognize.
        """
        kind = type(value)
        if kind in SCALARS:
            self._out(_marshalled(value, 2))
            return
        if step:
            self._path.append(step)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, value)
        elif kind.__module__ == "numpy" and kind.__name__ == "ndarray":
            self._array(cast("Array", value))
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):  # with a class of its own, as `mars.remote` has
            self._module(value)
        else:
            self._object(value)
        if step:
            self._path.pop()

    def _out(self, data: bytes) -> None:
        self._hash.update(data)
        if self._part is not None:
            self._part.update(data)

    def tag(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._out(b"<%d:%b>" % (len(data), data))

    def _met(self, value: object) -> bool:
        """Whether a value was met before. From now on it counts as met."""
        number = self._numbers.get(id(value))
        if number is None:
            self._numbers[id(value)] = len(self._numbers)
            self._held.append(value)
            return False
        self._out(b"@%d;" % number)
        return True

    def _sequence(self, value: Sequence[object]) -> None:
        if type(value) is list and self._met(value):
            return
        self._out(b"(%d" % len(value) if type(value) is tuple else b"[%d" % len(value))
        if all(map(SCALARS.__contains__, map(type, value))):
            self._out(_marshalled(tuple(value), 2))
            return
        for index, item in enumerate(value):
            self.walk(item, f"[{index}]")

    def _mapping(self, value: Mapping[object, object]) -> None:
        # In its own order, as a function that loops over it sees that order.
        if self._met(value):
            return
        self._out(b"{%d" % len(value))
        for key, item in list(value.items()):
            self.walk(key)
            self.walk(item, f"[{key!r:.40}]")

    def _set(self, value: set[object] | frozenset[object]) -> None:
        self._out(b"%b%d" % (b"~" if type(value) is set else b"^", len(value)))
        if id(value) in self._sets:
            return
        self._sets.add(id(value))
        digests = []
        for item in value:
            inner = Walk(self.code, self._arrays)
            inner._sets = self._sets
            inner._path = [*self._path, "{…}"]
            inner.walk(item)
            digests.append(inner.digest())
        self._sets.discard(id(value))
        self._out(b"".join(sorted(digests)))

    def _bytearray(self, value: bytearray) -> None:
        if not self._met(value):
            self._out(b"b%d:" % len(value))
            self._out(bytes(value))

    def _range(self, value: range) -> None:
        self._out(b"r%d,%d,%d" % (value.start, value.stop, value.step))

    def _slice(self, value: slice) -> None:
        self._out(b":")
        for part in (value.start, value.stop, value.step):
            self.walk(part)

    def _place(self, value: Place) -> None:
        self._out(b"#%d;" % value.number)

    def _buffer(self, value: pickle.PickleBuffer) -> None:
        with value.raw() as view:
            self._out(b"B%d:" % view.nbytes)
            self._out(blake2b(view, digest_size=KEY_BYTES).digest())

    def _array(self, value: Array) -> None:
        flags = value.flags
        if value.dtype.hasobject or not (flags.c_contiguous or flags.f_contiguous):
            if value.dtype.hasobject:
                self._object(value)
                return
            value = value.copy()  # then its bytes are in the order of its elements
            flags = value.flags
        self._out(b"A")
        self.walk(value.dtype.descr if value.dtype.fields else value.dtype.str)
        self.walk(value.shape)
        self._out(b"C" if flags.c_contiguous else b"F")
        if not value.nbytes:
            return
        view = value.reshape(-1, order="A").view("u1").data
        if value.nbytes >= BUFFER_BYTES and self._arrays is not None:
            address = value.__array_interface__["data"][0]
            self._out(self._arrays.digest(view, address, value))
        else:
            self._out(blake2b(view, digest_size=KEY_BYTES).digest())

    def _object(self, value: object) -> None:
        """Feed any other value, by what its pickle would be made of."""
        if isinstance(value, weakref.ref) or type(value) in _CONTENTLESS:
            self.tag(f"{type(value).__module__}.{type(value).__qualname__}")
            return
        if self._met(value):
            return
        kind = type(value)
        reducer = copyreg.dispatch_table.get(kind)
        try:
            reduced = reducer(value) if reducer is not None else value.__reduce_ex__(5)
        except Exception as error:
            raise self._unidentified(value, f"{type(error).__name__}: {error}") from None
        self._held.append(reduced)
        if isinstance(reduced, str):
            module = pickle.whichmodule(value, reduced)  # type: ignore[attr-defined]
            self._name(module, reduced, value)
            return
        self._out(b"O%d" % len(reduced))
        for index, part in enumerate(reduced):
            if index in (3, 4) and part is not None:
                part = list(part)
            self.walk(part, f".{kind.__qualname__}" if index == 2 else "")

    def _unidentified(self, value: object, reason: str) -> Unidentified:
        path = "".join(self._path).removeprefix(".") or type(value).__qualname__
        return Unidentified(path, f"{type(value).__name__} has no lasting content ({reason})")

    # -- code ---------------------------------------------------------------------------------

    def _name(self, module: str, name: str, value: object) -> None:
        """Feed something installed, by its name and the version of its package."""
        self.tag(f"{module}.{name}")
        self.package(module)
        if module == "mars.remote" and name == "rng":
            self.code.draws = True

    def package(self, module: str) -> None:
        """Feed and note the version of the package that a module is in."""
        top = module.partition(".")[0]
        version = _version(top)
        if version is not None:
            self.tag(version)
            self.code.parts[f"package {top}"] = version

    def _function(self, func: types.FunctionType) -> None:
        if self._met(func):
            return
        if not _own(func.__module__) and named(func.__module__, func.__qualname__) is func:
            self._name(func.__module__, func.__qualname__, func)
            return
        if record_of(func.__module__) and named(func.__module__, func.__qualname__) is func:
            self.code.lasting = False  # its pickle is a name
        name = func.__qualname__.rpartition("<locals>.")[2]
        code = func.__code__
        self._out(b"F")
        self._begin_part()
        self.bytecode(code)
        self._end_part(f"function {name}", code)
        names = code.co_varnames[: code.co_argcount]
        defaults = func.__defaults__ or ()
        for parameter, value in zip(names[len(names) - len(defaults) :], defaults, strict=False):
            self._value_part(f"default of {parameter} in {name}", value)
        self._out(b"K")
        for parameter, value in sorted((func.__kwdefaults__ or {}).items()):
            self.tag(parameter)
            self._value_part(f"default of {parameter} in {name}", value)
        self._out(b"G")
        self._globals(code, func.__globals__)
        self._out(b"L")
        for variable, cell in zip(code.co_freevars, func.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # still empty: the name is assigned later
                self._out(b"?")
            else:
                self._value_part(f"value of {variable} in {name}", value)
        for attribute, value in sorted(func.__dict__.items()):
            if attribute != "__wrapped__":  # that is the function in the closure
                self.tag(attribute)
                self._value_part(f"attribute {attribute} of {name}", value)

    def _globals(self, code: types.CodeType, namespace: dict[str, object]) -> None:
        for name, chain in loads(code):
            if name == "import":
                self._imported(chain[0], namespace)
                continue
            value = namespace.get(name, MISSING)
            if value is MISSING:
                if not hasattr(builtins, name):
                    self.tag(f"no {name}")
                continue
            label = name
            steps = list(chain)
            # Of a module of the project, only what is used of it counts.
            while steps and isinstance(value, types.ModuleType) and is_project_module(
                value.__name__
            ):  # fmt: skip
                step = steps.pop(0)
                value = getattr(value, step, MISSING)
                label = f"{label}.{step}"
            self.tag(label)
            if value is not MISSING:
                self._value_part(f"value of {label}", value)

    def _imported(self, name: str, namespace: dict[str, object]) -> None:
        """Feed a module that code imports when it runs."""
        if name.startswith("."):
            try:
                package = namespace.get("__package__")
                name = importlib.util.resolve_name(
                    name, package if isinstance(package, str) else ""
                )
            except ImportError:
                self.tag(f"import {name}")
                return
        self.module(name)

    def module(self, name: str) -> None:
        """Feed a whole module: one of the project by the code of its file, others by name."""
        self.tag(f"module {name}")
        source = expected(name)  # as it was when the function was spawned
        path = file_of(name) if source is None else source.file
        if path is None:
            self.package(name)
            return
        self.code.lasting = False
        code = compiled(path) if source is None else compiled_source(source)
        if code is None or self._met(code):
            return
        self._begin_part()
        self.bytecode(code)
        self._end_part(f"module {name}", code)
        package = name if os.path.basename(path) == "__init__.py" else name.rpartition(".")[0]
        for imported, chain in loads(code):
            if imported == "import":
                self._imported(chain[0], {"__package__": package})

    def _module(self, module: types.ModuleType) -> None:
        self.module(module.__name__)

    def bytecode(self, code: types.CodeType) -> None:
        """Feed what code does, but not where it stands."""
        self._out(
            b"c%d,%d,%d,%d;"
            % (
                code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
                code.co_flags & _KIND_OF_CODE,
            )
        )  # fmt: skip
        self._out(code.co_code)
        self._out(code.co_exceptiontable)
        for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
            self._out(marshal.dumps(names, 2))
        self.tag(code.co_name)
        if "rng" in code.co_names:
            self.code.draws = True
        constants = code.co_consts
        self._out(b"k%d" % len(constants))
        line = code.co_firstlineno if "__firstlineno__" in code.co_names else None
        for index, constant in enumerate(constants):
            if index == 0 and _is_docstring(code):
                constant = None
            elif constant.__class__ is int and constant == line:
                constant = None  # from Python 3.13 on, a class knows its line
            self._constant(constant)

    def _constant(self, value: object) -> None:
        if isinstance(value, types.CodeType):
            self.bytecode(value)
        elif type(value) is tuple:
            self._out(b"(%d" % len(value))
            for item in value:
                self._constant(item)
        else:
            self.walk(value)

    def _class(self, cls: type) -> None:
        if self._met(cls):
            return
        if not _own(cls.__module__) and named(cls.__module__, cls.__qualname__) is cls:
            self._name(cls.__module__, cls.__qualname__, cls)
            return
        self.tag(f"class {cls.__name__}")
        for base in cls.__bases__:
            self.walk(base)
        if type(cls) is not type:
            self.walk(type(cls))
        for name in sorted(vars(cls).keys() - _OF_CLASS):
            self.tag(name)
            self._value_part(f"{name} of class {cls.__name__}", vars(cls)[name])

    def _method(self, method: types.MethodType) -> None:
        self._out(b"M")
        self.walk(method.__func__)
        self.walk(method.__self__)

    def _builtin(self, func: types.BuiltinFunctionType) -> None:
        owner = getattr(func, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            self._name(func.__module__ or "builtins", func.__qualname__, func)
        else:
            self.tag(f"method {func.__name__}")
            self.walk(owner)

    def _by_name(self, value: types.MethodDescriptorType) -> None:
        owner = getattr(value, "__objclass__", None)
        where = "" if owner is None else f"{owner.__module__}.{owner.__qualname__}."
        self.tag(f"{where}{value.__name__}")

    def _wrapped(self, value: staticmethod[..., object] | classmethod[object, ..., object]) -> None:
        self.tag(type(value).__name__)
        self.walk(value.__func__)

    def _property(self, value: property) -> None:
        self._out(b"P")
        for part in (value.fget, value.fset, value.fdel):
            self.walk(part)

    def _cached_property(self, value: functools.cached_property[object]) -> None:
        self._out(b"Q")
        self.walk(value.func)

    def _cached(self, value: functools._lru_cache_wrapper[object]) -> None:
        module, name = value.__module__, value.__qualname__
        if not _own(module) and named(module, name) is value:
            self._name(module, name, value)
            return
        self._out(b"R")
        self.walk(value.cache_parameters())
        self.walk(value.__wrapped__)

    # -- parts, for people --------------------------------------------------------------------

    def _begin_part(self) -> None:
        self._part = blake2b(digest_size=PART_BYTES)

    def _end_part(self, name: str, code: types.CodeType | None = None) -> None:
        assert self._part is not None
        self.code.parts[name] = self._part.hexdigest()
        self._part = None
        if code is not None:
            self.code.codes[name] = code

    def _value_part(self, name: str, value: object) -> None:
        """Feed a value that is a part of its own. Code has its parts already."""
        if self._part is not None or isinstance(value, _HAVE_PARTS):
            self.walk(value, f" {name}" if not self._path else "")
            return
        part = self._part = blake2b(digest_size=PART_BYTES)
        try:
            self.walk(value, f" {name}")
        finally:
            self._part = None
        self.code.parts[name] = part.hexdigest()


_marshalled: Final[Callable[..., bytes]] = marshal.dumps
"""Of scalars and tuples of them, as whoever calls it has made sure."""

_HAVE_PARTS: Final = (
    types.FunctionType, types.MethodType, types.ModuleType, type, staticmethod, classmethod,
    property, types.BuiltinFunctionType,
)  # fmt: skip
_CONTENTLESS: Final = frozenset(
    {
        type(__import__("_thread").allocate_lock()), type(__import__("_thread").RLock()),
        weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet, object,
    }
)  # fmt: skip
"""Types whose objects hold nothing that a call could depend on."""

_HANDLERS: Final[dict[type, Callable[..., None]]] = {
    tuple: Walk._sequence,
    list: Walk._sequence,
    dict: Walk._mapping,
    types.MappingProxyType: Walk._mapping,
    set: Walk._set,
    frozenset: Walk._set,
    bytearray: Walk._bytearray,
    range: Walk._range,
    slice: Walk._slice,
    Place: Walk._place,
    pickle.PickleBuffer: Walk._buffer,
    types.FunctionType: Walk._function,
    types.CodeType: Walk.bytecode,
    types.ModuleType: Walk._module,
    types.MethodType: Walk._method,
    types.BuiltinFunctionType: Walk._builtin,
    types.MethodDescriptorType: Walk._by_name,
    types.WrapperDescriptorType: Walk._by_name,
    types.ClassMethodDescriptorType: Walk._by_name,
    types.MemberDescriptorType: Walk._by_name,
    types.GetSetDescriptorType: Walk._by_name,
    staticmethod: Walk._wrapped,
    classmethod: Walk._wrapped,
    property: Walk._property,
    functools.cached_property: Walk._cached_property,
    type(functools.lru_cache(len)): Walk._cached,
}


def _own(module: str | None) -> bool:
    return module == "__main__" or record_of(module) is not None


@functools.cache
def _version(top: str) -> str | None:
    """Return the version of an installed package; None: standard library, mars, or not known."""
    if top in sys.stdlib_module_names or top in ("mars", "__main__", "builtins"):
        return None
    from importlib import metadata

    # `__version__` would not do: a module may or may not be loaded here.
    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(top)
        return metadata.version(names[0]) if names else None


def _is_docstring(code: types.CodeType) -> bool:
    if not code.co_consts or not isinstance(code.co_consts[0], str):
        return False
    if sys.version_info >= (3, 14):
        return bool(code.co_flags & _HAS_DOCSTRING)
    # The first constant of a function is its docstring, or None. Code of modules and classes has
    # no such place, and no flag 1 either. Code of comprehensions has the flag, and a name with "<".
    return bool(code.co_flags & 1) and not code.co_name.startswith("<")
