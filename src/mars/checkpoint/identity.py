"""What makes two calls the same call, in whatever process, file or notebook cell they stand.

A call is its function, its arguments, the calls that make its inputs, and its place among equal
calls. A function is its code and all project code and values that it reaches; installed packages
count by name and version. Line numbers, file names, comments, docstrings and the order of sets do
not count. Nothing of this runs unless a checkpoint asks. Called by `mars.checkpoint`.

::

    Function ─ unpickle ─► Walk ─► Code (digest, and its parts for `mars runs why`)
    payload  ─ unpickle ─► Walk, one for each argument ─► digests

What is walked comes out of its pickle, so it is exactly what a worker would get. Values that no
process can tell apart from others, such as an open file, raise `Unidentified`.
"""

from __future__ import annotations

import builtins
import copyreg
import dis
import functools
import importlib.util
import marshal
import os
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final

from mars.attempt import codec
from mars.checkpoint.loader import MISSING, load, named
from mars.code.modules import Source, file_of, record_of, text_of
from mars.code.origin import is_project_module
from mars.code.pickling import new_world
from mars.code.world import expected, visiting
from mars.settings import BUFFER_BYTES
from mars.task import Call, Function

KEY_BYTES: Final = 16
PART_BYTES: Final = 8

_SCALARS: Final = frozenset({bool, int, float, complex, str, bytes, type(None), type(Ellipsis)})
"""Types whose values `marshal` writes in one way only, in any process."""

_KIND_OF_CODE: Final = 0x3AF
"""Flags that say what code is: *args, **kwargs, a generator, a coroutine. The others say where it
stands, and what was imported from `__future__` there."""

_HAS_DOCSTRING: Final = 0x4000000  # from Python 3.14 on

_OF_CLASS: Final = frozenset(
    {
        "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__",
        "_abc_impl", "__firstlineno__", "__static_attributes__", "__annotate__",
        "__annotate_func__", "__annotations_cache__", "__parameters__",
    }
)  # fmt: skip
"""What a class has beside what its author wrote, or that changes without a change of meaning."""


class Unidentified(Exception):
    """A value has no content that another process could recognize.

    Parameters
    ----------
    path : str
        Where it was met.
    reason : str
        What is in the way.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Code:
    """What a function amounts to.

    Attributes
    ----------
    digest : bytes
        Equal for functions that do the same.
    parts : dict
        What the digest is made of, by name: digests of code and values, versions of packages.
    codes : dict
        Code objects by the name of their part, for whoever wants to show where they changed.
    parameters : tuple of str
        Names of its positional parameters.
    draws : bool
        Whether it may ask for `mars.remote.rng`, whose numbers depend on a call's place.
    lasting : bool
        Whether it is all in the function's pickle; else a file, or a module, may have changed
        when it is needed again.
    sources : tuple of Source
        Modules of the project that the function imports.
    """

    __slots__ = ("codes", "digest", "draws", "lasting", "parameters", "parts", "sources")

    def __init__(self) -> None:
        self.digest = b""
        self.parts: dict[str, str] = {}
        self.codes: dict[str, types.CodeType] = {}
        self.parameters: tuple[str, ...] = ()
        self.draws = False
        self.lasting = True
        self.sources: tuple[Source, ...] = ()


class Place:
    """Stands for an input where arguments are walked."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Arrays:
    """Digests of large arrays that several calls share, for as long as the calls hold them."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[bytes, object]] = {}

    def digest(self, view: memoryview, address: int, owner: object) -> bytes:
        """Digest of a buffer; ``owner`` keeps its memory from being used for another."""
        key = (address, view.nbytes)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = (blake2b(view, digest_size=KEY_BYTES).digest(), owner)
        return known[0]


class Walk:
    """Feeds one value, and all that it reaches, into a digest in an order that is always the same.

    An object that was met before is a number, as in a pickle, so cycles end.

    Parameters
    ----------
    code : Code
        Takes the names of what was met.
    arrays : Arrays, optional
        Digests of large arrays.
    """

    def __init__(self, code: Code, arrays: Arrays | None = None) -> None:
        self.code = code
        self._arrays = arrays
        self._hash = blake2b(digest_size=KEY_BYTES)
        self._part: Any = None  # a second digest, of the part that is being walked
        self._numbers: dict[int, int] = {}
        self._held: list[object] = []  # so that no identity is used again
        self._path: list[str] = []
        self._sets: set[int] = set()

    def digest(self) -> bytes:
        """Of all that was walked so far."""
        return self._hash.digest()

    # -- values -------------------------------------------------------------------------------

    def walk(self, value: Any, step: str = "") -> None:
        """Take a value.

        Raises
        ------
        Unidentified
            It has no content that another process could recognize.
        """
        kind = type(value)
        if kind in _SCALARS:
            self._out(marshal.dumps(value, 2))
            return
        if step:
            self._path.append(step)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, value)
        elif kind.__module__ == "numpy" and kind.__name__ == "ndarray":
            self._array(value)
        elif isinstance(value, type):
            self._class(value)
        else:
            self._object(value)
        if step:
            self._path.pop()

    def _out(self, data: bytes) -> None:
        self._hash.update(data)
        if self._part is not None:
            self._part.update(data)

    def _tag(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._out(b"<%d:%b>" % (len(data), data))

    def _met(self, value: object) -> bool:
        """Whether a value was met before; from now on it was."""
        number = self._numbers.get(id(value))
        if number is None:
            self._numbers[id(value)] = len(self._numbers)
            self._held.append(value)
            return False
        self._out(b"@%d;" % number)
        return True

    def _sequence(self, value: Sequence[Any]) -> None:
        if type(value) is list and self._met(value):
            return
        self._out(b"(%d" % len(value) if type(value) is tuple else b"[%d" % len(value))
        if all(map(_SCALARS.__contains__, map(type, value))):
            self._out(marshal.dumps(tuple(value), 2))
            return
        for index, item in enumerate(value):
            self.walk(item, f"[{index}]")

    def _mapping(self, value: Any) -> None:
        # In its own order: a function that loops over it sees that.
        if self._met(value):
            return
        self._out(b"{%d" % len(value))
        for key, item in list(value.items()):
            self.walk(key)
            self.walk(item, f"[{key!r:.40}]")

    def _set(self, value: Any) -> None:
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

    def _bytearray(self, value: Any) -> None:
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

    def _array(self, value: Any) -> None:
        flags = value.flags
        if value.dtype.hasobject or not (flags.c_contiguous or flags.f_contiguous):
            if value.dtype.hasobject:
                self._object(value)
                return
            value = value.copy()  # in the order of its elements, whatever its strides
            flags = value.flags
        self._out(b"A")
        self.walk(value.dtype.descr if value.dtype.fields else value.dtype.str)
        self.walk(value.shape)
        self._out(b"C" if flags.c_contiguous else b"F")
        if not value.nbytes:
            return
        view = memoryview(value.reshape(-1, order="A").view("u1"))
        if value.nbytes >= BUFFER_BYTES and self._arrays is not None:
            address = value.__array_interface__["data"][0]
            self._out(self._arrays.digest(view, address, value))
        else:
            self._out(blake2b(view, digest_size=KEY_BYTES).digest())

    def _object(self, value: Any) -> None:
        """Anything else, by what its pickle would be made of."""
        if isinstance(value, weakref.ref) or type(value) in _CONTENTLESS:
            self._tag(f"{type(value).__module__}.{type(value).__qualname__}")
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
        """Something installed, by name and version of its package."""
        self._tag(f"{module}.{name}")
        self.package(module)
        if module == "mars.remote" and name == "rng":
            self.code.draws = True

    def package(self, module: str) -> None:
        """Note the version of the package that a module is in."""
        top = module.partition(".")[0]
        version = _version(top)
        if version is not None:
            self._tag(version)
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
            self._tag(parameter)
            self._value_part(f"default of {parameter} in {name}", value)
        self._out(b"G")
        self._globals(code, func.__globals__)
        self._out(b"L")
        for variable, cell in zip(code.co_freevars, func.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # still empty: a name that is assigned later
                self._out(b"?")
            else:
                self._value_part(f"value of {variable} in {name}", value)
        for attribute, value in sorted(func.__dict__.items()):
            if attribute != "__wrapped__":  # the function in the closure
                self._tag(attribute)
                self._value_part(f"attribute {attribute} of {name}", value)

    def _globals(self, code: types.CodeType, namespace: dict[str, Any]) -> None:
        for name, chain in _loads(code):
            if name == "import":
                self._imported(chain[0], namespace)
                continue
            value = namespace.get(name, MISSING)
            if value is MISSING:
                if not hasattr(builtins, name):
                    self._tag(f"no {name}")
                continue
            label = name
            steps = list(chain)
            # Of a module of the project only what is used of it.
            while steps and isinstance(value, types.ModuleType) and is_project_module(
                value.__name__
            ):  # fmt: skip
                step = steps.pop(0)
                value = getattr(value, step, MISSING)
                label = f"{label}.{step}"
            self._tag(label)
            if value is not MISSING:
                self._value_part(f"value of {label}", value)

    def _imported(self, name: str, namespace: dict[str, Any]) -> None:
        """A module that code imports when it runs."""
        if name.startswith("."):
            try:
                name = importlib.util.resolve_name(name, namespace.get("__package__") or "")
            except ImportError:
                self._tag(f"import {name}")
                return
        self.module(name)

    def module(self, name: str) -> None:
        """A module as a whole: of the project by the code of its file, else by name."""
        self._tag(f"module {name}")
        source = expected(name)  # as it was when the function was spawned
        path = file_of(name) if source is None else source.file
        if path is None:
            self.package(name)
            return
        self.code.lasting = False
        code = _compiled(path) if source is None else _compiled_source(source)
        if code is None or self._met(code):
            return
        self._begin_part()
        self.bytecode(code)
        self._end_part(f"module {name}", code)
        package = name if os.path.basename(path) == "__init__.py" else name.rpartition(".")[0]
        for imported, chain in _loads(code):
            if imported == "import":
                self._imported(chain[0], {"__package__": package})

    def _module(self, module: types.ModuleType) -> None:
        self.module(module.__name__)

    def bytecode(self, code: types.CodeType) -> None:
        """What code does, without where it stands."""
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
        self._tag(code.co_name)
        if "rng" in code.co_names:
            self.code.draws = True
        constants = code.co_consts
        self._out(b"k%d" % len(constants))
        line = code.co_firstlineno if "__firstlineno__" in code.co_names else None
        for index, constant in enumerate(constants):
            if index == 0 and _is_docstring(code):
                constant = None
            elif constant.__class__ is int and constant == line:
                constant = None  # Python 3.13 lets a class know where it stands
            self._constant(constant)

    def _constant(self, value: Any) -> None:
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
        self._tag(f"class {cls.__name__}")
        for base in cls.__bases__:
            self.walk(base)
        if type(cls) is not type:
            self.walk(type(cls))
        for name in sorted(vars(cls).keys() - _OF_CLASS):
            self._tag(name)
            self._value_part(f"{name} of class {cls.__name__}", vars(cls)[name])

    def _method(self, method: types.MethodType) -> None:
        self._out(b"M")
        self.walk(method.__func__)
        self.walk(method.__self__)

    def _builtin(self, func: Any) -> None:
        owner = getattr(func, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            self._name(func.__module__ or "builtins", func.__qualname__, func)
        else:
            self._tag(f"method {func.__name__}")
            self.walk(owner)

    def _by_name(self, value: Any) -> None:
        owner = getattr(value, "__objclass__", None)
        where = "" if owner is None else f"{owner.__module__}.{owner.__qualname__}."
        self._tag(f"{where}{value.__name__}")

    def _wrapped(self, value: Any) -> None:
        self._tag(type(value).__name__)
        self.walk(value.__func__)

    def _property(self, value: property) -> None:
        self._out(b"P")
        for part in (value.fget, value.fset, value.fdel):
            self.walk(part)

    def _cached_property(self, value: Any) -> None:
        self._out(b"Q")
        self.walk(value.func)

    def _cached(self, value: Any) -> None:
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
        self.code.parts[name] = self._part.hexdigest()
        self._part = None
        if code is not None:
            self.code.codes[name] = code

    def _value_part(self, name: str, value: Any) -> None:
        """A value that is a part; code has parts of its own."""
        if self._part is not None or isinstance(value, _HAVE_PARTS):
            self.walk(value, f" {name}" if not self._path else "")
            return
        part = self._part = blake2b(digest_size=PART_BYTES)
        try:
            self.walk(value, f" {name}")
        finally:
            self._part = None
        self.code.parts[name] = part.hexdigest()


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

_HANDLERS: Final[dict[type, Callable[[Walk, Any], None]]] = {
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
    """Version of an installed package; None: of the standard library, of mars, or not known."""
    if top in sys.stdlib_module_names or top in ("mars", "__main__", "builtins"):
        return None
    from importlib import metadata

    # Not `__version__`: whether a module is loaded here depends on what else happened.
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
    # The first constant of a function is its docstring, or None. Code of modules, classes and
    # comprehensions has no such place; only the first two have no local names of their own.
    return bool(code.co_flags & 1) and not code.co_name.startswith("<")


def _loads(code: types.CodeType) -> list[tuple[str, tuple[str, ...]]]:
    """Global names that code reads, each with the attributes that it then asks for; imports."""
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    pending = [code]
    while pending:
        one = pending.pop()
        pending.extend(c for c in one.co_consts if isinstance(c, types.CodeType))
        name: str | None = None
        chain: list[str] = []
        constants: list[Any] = []
        for step in dis.get_instructions(one):
            if name is not None and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                chain.append(step.argval)
                continue
            if name is not None:
                found[name, tuple(chain)] = None
                name = None
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                name, chain = step.argval, []
            elif step.opname == "IMPORT_NAME":
                level = next((c for c in constants[-2:] if isinstance(c, int)), 0)
                found["import", ("." * level + step.argval,)] = None
                members = constants[-1] if constants else None
                if isinstance(members, tuple):  # `from package import module`
                    for member in members:
                        dot = "" if step.argval == "" else "."
                        found["import", (f"{'.' * level}{step.argval}{dot}{member}",)] = None
            if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
                constants = [*constants[-1:], step.argval]
        if name is not None:
            found[name, tuple(chain)] = None
    return sorted(found)


def _compiled(path: str) -> types.CodeType | None:
    """The code of a source file, which says what it does without its comments."""
    try:
        stamp = os.stat(path).st_mtime_ns
        known = _files.get(path)
        if known is None or known[0] != stamp:
            with open(path, "rb") as file:
                made = compile(file.read(), path, "exec", dont_inherit=True, optimize=0)
            known = _files[path] = (stamp, made)
        return known[1]
    except (OSError, SyntaxError, ValueError):
        return None


_files: dict[str, tuple[int, types.CodeType]] = {}


def _compiled_source(source: Source) -> types.CodeType | None:
    """The code of a module as the program had it, whatever its file holds by now."""
    known = _sources.get(source.digest)
    if known is None:
        text = text_of(source.digest)
        if text is None:
            return _compiled(source.file)
        try:
            known = compile(text, source.file, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            return None
        _sources[source.digest] = known
    return known


_sources: dict[bytes, types.CodeType] = {}


_codes: dict[bytes, Code] = {}
_CODES_KEPT: Final = 4096


def look_again() -> None:
    """Files may have changed since the last time."""
    _file_digests.clear()
    for key in [key for key, code in _codes.items() if not code.lasting]:
        del _codes[key]


def code_of(function: Function) -> Code:
    """What a function amounts to.

    Raises
    ------
    Unidentified
        It reaches a value without a lasting content.
    """
    known = _codes.get(function.key)
    if known is not None:
        return known
    code = Code()
    code.parts["python"] = f"{sys.version_info[0]}.{sys.version_info[1]}"
    walk = Walk(code)
    walk._tag(code.parts["python"])
    try:
        # In a world of its own: modules are as they were when the function was spawned.
        with visiting(new_world(), unseen=True) as world:
            buffers = [pickle.PickleBuffer(x) for x in _raw(function.buffers)]
            value = codec.loads(function.data, buffers=buffers)
            walk.walk(value)
            code.sources = tuple(world.manifest.values())
    except Unidentified:
        raise
    except Exception as error:
        raise Unidentified(function.name, f"{type(error).__name__}: {error}") from error
    code.digest = walk.digest()
    code.parameters = tuple(_parameters(value))
    if not function.buffers:  # the key of one with large parts is good for one run only
        if len(_codes) >= _CODES_KEPT:
            _codes.clear()
        _codes[function.key] = code
    return code


def _raw(buffers: Sequence[Any]) -> Iterator[memoryview]:
    for buffer in buffers:
        yield buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)


def _parameters(func: Any) -> list[str]:
    import inspect

    try:
        return [
            name
            for name, parameter in inspect.signature(func).parameters.items()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return []


class Identity:
    """What one call is.

    Attributes
    ----------
    key : bytes
        16 bytes that only an equal call has.
    code : Code
        Of its function.
    arguments : bytes
        8 bytes for each argument.
    names : tuple of str
        Of those given by name, which come last.
    inputs : tuple of (bytes, int)
        Keys of the calls that make its inputs, and which of their values.
    ordinal : int
        How many equal calls came before it.
    place : tuple of int
        Where it is among the calls of its session.
    counted : bool
        Whether it was told as reused.
    """

    __slots__ = ("arguments", "code", "counted", "inputs", "key", "names", "ordinal", "place")

    def __init__(
        self,
        key: bytes,
        code: Code,
        arguments: bytes,
        names: tuple[str, ...],
        inputs: tuple[tuple[bytes, int], ...],
        ordinal: int,
        place: tuple[int, ...],
    ) -> None:
        self.key, self.code, self.arguments, self.names = key, code, arguments, names
        self.inputs, self.ordinal, self.place = inputs, ordinal, place
        self.counted = False


def arguments_of(call: Call, arrays: Arrays) -> tuple[bytes, tuple[str, ...], bool]:
    """Digests of a call's arguments, their names, and whether code among them draws.

    Raises
    ------
    Unidentified
        An argument has no lasting content.
    """
    payload, stored = call.payload, call.stored
    try:
        if stored is None and not call.inputs and codec.GLOBAL_REFERENCE not in payload:
            args, kwargs = codec.loads(payload)  # plain values: there is no class in it
        else:
            buffers = [x for x in stored or () if x is not payload]
            places = [Place(number) for number in range(len(call.inputs))]
            if _OURS in payload:  # classes and functions of the program, as they were
                with visiting(new_world(), unseen=True):
                    args, kwargs = load(payload, list(_raw(buffers)), places)
                    return digests_of(args, kwargs, arrays)
            args, kwargs = load(payload, list(_raw(buffers)), places)
    except Unidentified:
        raise
    except Exception as error:
        raise Unidentified("its arguments", f"{type(error).__name__}: {error}") from error
    return digests_of(args, kwargs, arrays)


_OURS: Final = b"mars.code."
"""In pickles that hold definitions, or what modules of the project held."""


def digests_of(
    args: Sequence[Any], kwargs: dict[str, Any], arrays: Arrays
) -> tuple[bytes, tuple[str, ...], bool]:
    """As `arguments_of`, of arguments that are there."""
    digests = []
    draws = False
    dumps = marshal.dumps
    for position, value in enumerate((*args, *kwargs.values()) if kwargs else args):
        if type(value) in _SCALARS:
            digests.append(blake2b(dumps(value, 2), digest_size=PART_BYTES).digest())
            continue
        code = Code()
        walk = Walk(code, arrays)
        walk.walk(value, f"args[{position}]")
        digests.append(walk.digest()[:PART_BYTES])
        draws |= code.draws
    return b"".join(digests), tuple(kwargs) if kwargs else (), draws


def value_digest(value: object) -> bytes:
    """Of what a program declares with ``depends=``: paths count by what is in their files."""
    if isinstance(value, os.PathLike):
        return _file_digest(os.fspath(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        digests = [value_digest(item) for item in value]
        if isinstance(value, (set, frozenset)):
            digests.sort()
        return blake2b(b"".join(digests), digest_size=KEY_BYTES).digest()
    if isinstance(value, dict):
        items = sorted((value_digest(key), value_digest(item)) for key, item in value.items())
        return blake2b(b"".join(k + v for k, v in items), digest_size=KEY_BYTES).digest()
    walk = Walk(Code())
    walk.walk(value, "depends")
    return walk.digest()


def _file_digest(path: str) -> bytes:
    known = _file_digests.get(path)
    if known is None:
        known = _file_digests[path] = _read_digest(path)
    return known


_file_digests: dict[str, bytes] = {}


def _read_digest(path: str) -> bytes:
    digest = blake2b(digest_size=KEY_BYTES)
    if os.path.isdir(path):
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                full = os.path.join(folder, name)
                digest.update(os.path.relpath(full, path).encode("utf-8", "surrogateescape"))
                digest.update(_read_digest(full))
        return digest.digest()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except FileNotFoundError:
        digest.update(b"there is no such file")
    return digest.digest()


def base_key(
    code: Code,
    arguments: bytes,
    names: tuple[str, ...],
    inputs: tuple[tuple[bytes, int], ...],
    n_output: int | None,
    depends: bytes,
    draw: bytes,
) -> bytes:
    """What equal calls have in common."""
    if inputs or names:
        data = marshal.dumps((names, inputs, n_output, depends, draw), 2)
    else:
        data = marshal.dumps((n_output, depends, draw), 2)
    return blake2b(
        b"%b%d:%b%b" % (code.digest, len(arguments), arguments, data), digest_size=KEY_BYTES
    ).digest()


def key_of(base: bytes, ordinal: int) -> bytes:
    """The key of the call that has ``ordinal`` equal ones before it."""
    if not ordinal:
        return base
    return blake2b(b"%b%d" % (base, ordinal), digest_size=KEY_BYTES).digest()
