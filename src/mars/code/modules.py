"""How each module of the project travels: by its name, or by value; and what its file holds.

A module whose file holds what the program runs travels by name: a worker imports it, so that it is
one thing there as it is here. The worker gets it from the same file, or, where that file is not
there or was changed meanwhile, from the text that the program had. All others travel by value, as
``__main__`` does: modules whose file was edited after the import, that were rewritten while they
were loaded, or made without a file, and those that are still being imported, since a worker
that imported them would run the program again.

The decision is made once for a module, and again only when it is loaded again.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

import contextlib
import functools
import importlib.machinery
import os
import sys
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from mars.code.digest import blake2b
from mars.code.origin import (
    found,
    is_made_by_hand,
    is_project_file,
    is_project_module,
    module_of,
)

if TYPE_CHECKING:

    class _Loader(Protocol):
        """What a module's spec names as its loader, as far as it can say what the file holds."""

        def get_code(self, name: str, /) -> object: ...

        def get_source(self, name: str, /) -> object: ...


_EXTENSIONS: Final = tuple(importlib.machinery.EXTENSION_SUFFIXES)
DIGEST_BYTES: Final = 16


_SETTLED: Final = {
    "__future__._Feature", "datetime.date", "datetime.datetime", "datetime.timedelta",
    "datetime.timezone", "decimal.Decimal", "fractions.Fraction", "logging.Logger",
    "numpy._ArrayFunctionDispatcher", "numpy.ufunc", "pathlib.PosixPath", "pathlib.PurePosixPath",
    "pathlib.WindowsPath", "re.Pattern", "uuid.UUID",
}  # fmt: skip
"""Types whose objects do not change, or travel by their name."""


def is_settled(kind: type) -> bool:
    """Whether objects of a type do not change, or travel by their name."""
    # By the package: some of these classes say that they are of a module inside it.
    return f"{str(module_of(kind)).partition('.')[0]}.{kind.__name__}" in _SETTLED


class Source(NamedTuple):
    """One module of the project, by what its file holds."""

    name: str
    file: str
    digest: bytes
    package: bool


class Record:
    """What is known of one module of the project.

    Attributes
    ----------
    module, spec
        The module, and the spec of its import: another one stands for another import.
    by_name : bool
        Whether it travels by name.
    source : Source or None
        What its file holds; None where that is not known, as of compiled modules.
    codes : dict
        The code of its file, by qualified name. Empty where that is not known.
    bound : frozenset of str
        Names that the module's own code binds.
    links : tuple of str
        Names of modules that its code may import, some of which may be none.
    """

    __slots__ = ("bound", "by_name", "codes", "intact", "links", "module", "source", "spec")

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.spec = getattr(module, "__spec__", None)
        self.by_name = self.intact = False
        self.source: Source | None = None
        self.codes: dict[str, list[CodeType]] = {}
        self.bound: frozenset[str] = frozenset()
        self.links: tuple[str, ...] = ()

    def body_of(self, qualname: str) -> CodeType | None:
        """The code of a class body; None: there are none or several of that name."""
        found = self.codes.get(qualname, ())
        return found[0] if len(found) == 1 else None

    def makes(self, path: str) -> bool:
        """Whether an import is sure to make the class of a qualified name, and one such class."""
        if not self.codes:
            return True  # nobody knows, as of compiled modules
        return path.partition(".")[0] in self.bound and len(self.codes.get(path, ())) < 2

    def has(self, code: CodeType) -> bool:
        """Whether code is that of the module's file."""
        return code in self.codes.get(code.co_qualname, ())


_lock: Final = threading.RLock()
_records: dict[str, tuple[object, object, Record | None]] = {}
_texts: dict[bytes, bytes] = {}  # compressed, by digest, for as long as the program runs
_kept_by_value: set[str] = set()


def record_of(name: object) -> Record | None:
    """What is known of a loaded module; None: it is installed, or ``__main__``, or not loaded."""
    if not isinstance(name, str):
        return None
    module = sys.modules.get(name)
    if module is None:
        return None
    known = _records.get(name)
    if (
        known is not None
        and known[0] is module
        and known[1] is getattr(module, "__spec__", None)
        and not (_registry() and _is_registered(name))
    ):
        record = known[2]
        if record is None or not record.by_name or not is_being_imported(module):
            return record
    with _lock:
        return _look(name, module)


def travels_by_value(name: object) -> bool:
    """Whether a module's functions and classes travel by value."""
    if name == "__main__":
        return True
    record = record_of(name)
    return record is not None and not record.by_name


def by_value() -> list[ModuleType]:
    """The loaded modules that travel by value, without ``__main__``."""
    records = (record_of(name) for name in list(sys.modules))
    return [one.module for one in records if one is not None and not one.by_name]


_own: dict[str, dict[str, tuple[object, object]]] = {}


def note_own(record: Record, path: str, value: object) -> None:
    """Remember a function or class that a module has from its own file, by its path there."""
    _own.setdefault(record.module.__name__, {})[path] = record.spec, value


_names: dict[str, dict[str, tuple[object, frozenset[str]]]] = {}


def note_names(record: Record, path: str, names: Iterable[str]) -> None:
    """Remember the attributes that a class of a module had when it was first looked at."""
    noted = _names.setdefault(record.module.__name__, {})
    if path not in noted or noted[path][0] is not record.spec:
        noted[path] = record.spec, frozenset(names)


def added_to(module: object, path: str, names: Iterable[str]) -> list[str]:
    """Attributes of a class that the program has added since."""
    made_by, known = _names.get(getattr(module, "__name__", ""), {}).get(path, (None, frozenset()))
    if made_by is None or made_by is not getattr(module, "__spec__", None):
        return []
    return [one for one in names if one not in known and not one.startswith(("__", "_abc_"))]


def own_of(module: object) -> list[tuple[str, object]]:
    """What was noted of a module since it was imported; classes before what is in them."""
    spec = getattr(module, "__spec__", None)
    noted = _own.get(getattr(module, "__name__", ""), {})
    return sorted(
        [(path, value) for path, (made_by, value) in [*noted.items()] if made_by is spec],
        key=lambda one: one[0].count("."),
    )


def is_stand_in(name: str, value: object) -> bool:
    """Whether the program itself has put something into ``sys.modules`` under a name.

    It is a module of the project under a second name, or an object of the project in the place of
    a module.
    """
    kind = type(value)
    if issubclass(kind, ModuleType):
        own = getattr(value, "__name__", "")
        return own != name and sys.modules.get(own) is value and record_of(own) is not None
    codes = [getattr(one, "__code__", None) for one in vars(kind).values()]
    return any(type(one) is CodeType and is_project_file(one.co_filename) for one in codes)


def is_installed(value: object) -> bool:
    """Whether a function or class is found under its name in an installed module."""
    module = module_of(value)
    if module == "__main__" or not isinstance(module, str) or record_of(module) is not None:
        return False
    return found(module, getattr(value, "__qualname__", "")) is value


def is_being_imported(module: ModuleType | None) -> bool:
    """Whether the code of a module's file still runs."""
    spec = getattr(module, "__spec__", None)
    if module is None or not getattr(spec, "_initializing", False):
        return False
    return spec is not _complete.get(module.__name__)


_complete: dict[str, object] = {}


def note_complete(module: ModuleType) -> None:
    """The code of a module's file has run; its import may have a moment to go."""
    _complete[module.__name__] = module.__spec__


class Homes:
    """Global variables of modules that travel by name, by the objects that they hold.

    A script that imports such an object has it in common with its module.
    """

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, str]] | None = None

    def known(self) -> Collection[int]:
        """Identities of all objects that a module has for its own, and of some others."""
        if self._names is None:
            self._names = _homes()
        return self._names

    def home_of(self, value: object) -> tuple[str, str] | None:
        """Module and name that an object is known by; None: no module has it for its own."""
        kind = type(value)
        if id(kind) in _WITHOUT_HOME or issubclass(kind, (type, FunctionType, ModuleType)):
            return None
        if is_settled(kind):
            return None
        if self._names is None:
            self._names = _homes()
        return self._names.get(id(value))


_WITHOUT_HOME: Final = frozenset(
    map(
        id,
        (
            bool, int, float, complex, str, bytes, type(None), tuple, frozenset, range,
            BuiltinFunctionType,
        ),
    )
)  # fmt: skip
"""Identities of types, as a metaclass may have no hash."""


def _homes() -> dict[int, tuple[str, str]]:
    names: dict[int, tuple[str, str]] = {}
    for module in [*sys.modules]:
        record = record_of(module)
        if record is None or not record.by_name or record.module is not sys.modules.get(module):
            continue
        for name, value in [*vars(record.module).items()]:
            if name in record.bound and id(type(value)) not in _WITHOUT_HOME:
                names.setdefault(id(value), (module, name))
    return names


class _Looking(threading.local):
    on = False


_looking = _Looking()


@contextlib.contextmanager
def only_looking() -> Iterator[None]:
    """Ask for modules that are being imported, perhaps, and not out of their own code."""
    before, _looking.on = _looking.on, True
    try:
        yield
    finally:
        _looking.on = before


def keep_by_value(name: str) -> None:
    """Have a module travel by value from here on: to import it would run the program again."""
    with _lock:
        if name not in _kept_by_value:
            _kept_by_value.add(name)
            _records.clear()


def note_importers() -> None:
    """Note modules whose import leads here: to import them in a worker would ask for calls, too."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            name: object = frame.f_globals.get("__name__")
            if not isinstance(name, str) or name == "__main__" or name in _kept_by_value:
                pass
            elif is_being_imported(sys.modules.get(name)) and is_project_module(name):
                keep_by_value(name)
        frame = frame.f_back  # type: ignore[assignment]


def _look(name: str, module: ModuleType) -> Record | None:
    registered = bool(_registry()) and _is_registered(name)
    # The script has another name as well, as soon as `multiprocessing` is imported.
    is_main = module is sys.modules.get("__main__")
    if is_main or not (is_project_module(name) or is_made_by_hand(name, module) or registered):
        if name != "__main__":
            _records[name] = module, getattr(module, "__spec__", None), None
        return None
    spec = getattr(module, "__spec__", None)
    if is_being_imported(module) and not _looking.on:
        # Whoever asks for it runs because it is being imported.
        _kept_by_value.add(name)
    record = Record(module)
    if registered:
        return record  # by value, as long as the program wants it so
    _examine(name, record)
    _records[name] = module, spec, record
    _decide(name, record)
    return record


def _examine(name: str, record: Record) -> None:
    """Read the module's file, and see whether it is what the program runs."""
    module, spec = record.module, record.spec
    file = getattr(module, "__file__", None)
    if name in _kept_by_value or not isinstance(file, str) or spec is None:
        return
    if file.endswith(_EXTENSIONS):
        record.intact = True
        return
    loader: _Loader | None = getattr(spec, "loader", None)
    if loader is None:
        return
    try:
        code = loader.get_code(spec.name)
    except Exception:  # it cannot say, or its file is gone or broken
        return
    if not isinstance(code, CodeType):
        return
    from mars.code.bytecode import codes_in, facts_of, resolved  # late: no first call needs it

    for inner in codes_in(code):
        record.codes.setdefault(inner.co_qualname, []).append(inner)
    if any(map(functools.partial(_is_edited, record, code.co_filename), _functions(module))):
        record.codes.clear()
        return
    record.intact = True
    facts = facts_of(code)
    record.bound = facts.stored
    package = spec.parent or ""
    links: dict[str, None] = {}
    for level, imported, members in facts.imports:
        full = resolved(level, imported, package)
        links[full] = None
        links.update({f"{full}.{member}": None for member in members})
    record.links = tuple(links)
    text = _text_of(loader, file, spec.name)
    if text is not None:
        record.source = _source(name, file, text, hasattr(module, "__path__"))


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Functions and methods that the module itself defines."""
    namespace = vars(module)
    pending = list(namespace.values())
    seen: set[int] = set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if type(value) is FunctionType:
            if value.__globals__ is namespace:
                yield value
        elif issubclass(type(value), (staticmethod, classmethod)):
            pending.append(value.__func__)
        elif issubclass(type(value), property):
            pending += (value.fget, value.fset, value.fdel)
        elif issubclass(type(value), type) and module_of(value) == module.__name__:
            pending.extend(vars(value).values())


def _is_edited(record: Record, file: str, func: FunctionType) -> bool:
    code = func.__code__
    return code.co_filename == file and code.co_qualname in record.codes and not record.has(code)


def _text_of(loader: "_Loader", file: str, name: str) -> bytes | None:
    known = getattr(loader, "text", None)  # of one of ours, see `mars.code.importing`
    if type(known) is bytes:
        return known
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except OSError:
        pass
    try:  # in an archive
        text = loader.get_source(name)
    except Exception:
        return None
    return text.encode() if isinstance(text, str) else None


def _source(name: str, file: str, text: bytes, package: bool) -> Source:
    digest = blake2b(text, digest_size=DIGEST_BYTES).digest()
    if digest not in _texts:
        _texts[digest] = zlib.compress(text, 1)
    return Source(name, os.path.abspath(file), digest, package)


def _decide(name: str, record: Record) -> None:
    """Whether the module travels by name: only if all that it took from others does, too."""
    group: dict[str, Record] = {name: record}
    takes: dict[str, set[str]] = {}
    pending = [name]
    while pending:
        one = pending.pop()
        takes[one] = set()
        if not group[one].intact:
            continue
        for other in _taken(group[one].module):
            if other == one or (module := sys.modules.get(other)) is None:
                continue
            takes[one].add(other)
            if other not in group:
                known = _records.get(other)
                if known is not None and known[0] is module and known[2] is not None:
                    group[other] = known[2]
                else:
                    if is_being_imported(module):
                        _kept_by_value.add(other)
                    group[other] = Record(module)
                    _examine(other, group[other])
                    _records[other] = module, module.__spec__, group[other]
                pending.append(other)
    by_value = {one for one, member in group.items() if not member.intact}
    while True:
        more = {one for one in takes if one not in by_value and takes[one] & by_value}
        if not more:
            break
        by_value |= more
    for one, member in group.items():
        member.by_name = one not in by_value


def _taken(module: ModuleType) -> set[str]:
    """Modules of the project that a module has something of."""
    names: set[object] = set()
    for value in list(vars(module).values()):
        # type(), because isinstance() also asks the value, which may answer anything.
        kind = type(value)
        if issubclass(kind, ModuleType):
            names.add(value.__name__)
        elif kind is FunctionType:
            names.add(module_of(value))
        elif issubclass(kind, type):
            names.update(module_of(base) for base in type.mro(value))
    return {
        name
        for name in names
        if isinstance(name, str)
        and (is_project_module(name) or is_made_by_hand(name, sys.modules.get(name)))
    }


def _registry() -> Collection[str] | None:
    """What the program told cloudpickle to take by value."""
    # While another thread imports it, it has nothing yet.
    known: Collection[str] | None = getattr(
        sys.modules.get("cloudpickle.cloudpickle"), "_PICKLE_BY_VALUE_MODULES", None
    )
    return known


def _is_registered(name: str) -> bool:
    registry = _registry() or ()
    parts = name.split(".")
    return any(".".join(parts[:length]) in registry for length in range(1, len(parts) + 1))


# -- what a worker needs to import ----------------------------------------------------------------


def sources(names: Iterable[str]) -> tuple[Source, ...]:
    """The modules of these names, and all that they may import of the project.

    They come in the order in which the program loaded them; last, those that it did not load.
    """
    loaded: dict[str, Source] = {}
    waiting: dict[str, Source] = {}
    pending = list(names)
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if "." in name:
            pending.append(name.rpartition(".")[0])
        record = record_of(name)
        if record is not None:
            if record.by_name and record.source is not None:
                loaded[name] = record.source
                pending.extend(record.links)
        elif name not in sys.modules:
            source = source_of(name)
            if source is not None:
                waiting[name] = source
                pending.extend(_links_of(source))
    order = [name for name in list(sys.modules) if name in loaded]
    return (*(loaded[name] for name in order), *waiting.values())


def file_of(name: str) -> str | None:
    """The source file of a module of the project, imported or not; None: it has none."""
    if name == "__main__":
        return None
    module = sys.modules.get(name)
    if module is not None:
        path = getattr(module, "__file__", None)
        return path if is_project_module(name) and isinstance(path, str) else None
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names:
        return None
    from importlib.util import find_spec  # late, as most programs never come here

    try:
        spec = find_spec(top)
    except (ImportError, AttributeError, ValueError):
        return None
    path = None if spec is None else spec.origin
    if path is None or not path.endswith(".py") or not is_project_file(path):
        return None
    for step in rest:  # by hand: Python would import the package to find what is in it
        stem = os.path.join(os.path.dirname(path), step)
        path = next(filter(os.path.isfile, (f"{stem}.py", os.path.join(stem, "__init__.py"))), None)
        if path is None:
            return None
    return path


_unloaded: dict[str, tuple[tuple[int, int, int], Source, tuple[str, ...]]] = {}
_nowhere: dict[str, tuple[str, ...]] = {}  # names that are no modules of the project, and the path


def source_of(name: str) -> Source | None:
    """What the file of a module holds that nobody imported yet; None: it is not the project's."""
    path = tuple(entry for entry in sys.path if isinstance(entry, str))
    if _nowhere.get(name) == path:
        return None
    file = file_of(name)
    if file is None or not file.endswith(".py"):
        _nowhere[name] = path
        return None
    from mars.code.bytecode import facts_of, resolved

    try:
        stamp = stamp_of(file)
        known = _unloaded.get(name)
        if known is not None and known[0] == stamp and known[1].file == os.path.abspath(file):
            return known[1]
        with open(file, "rb") as stream:
            text = stream.read()
        package = os.path.basename(file) == "__init__.py"
        source = _source(name, file, text, package)
        parent = name if package else name.rpartition(".")[0]
        links: dict[str, None] = {}
        for level, imported, members in facts_of(
            compile(text, file, "exec", dont_inherit=True, optimize=0)
        ).imports:
            full = resolved(level, imported, parent)
            links[full] = None
            links.update({f"{full}.{member}": None for member in members})
    except (OSError, SyntaxError, ValueError):
        return None
    _unloaded[name] = stamp, source, tuple(links)
    return source


def _links_of(source: Source) -> tuple[str, ...]:
    return _unloaded[source.name][2]


def stamp_of(file: str) -> tuple[int, int, int]:
    """What changes when a file does.

    Raises
    ------
    OSError
        It is not there.
    """
    status = os.stat(file)
    return status.st_mtime_ns, status.st_size, status.st_ino


def text_of(digest: bytes) -> bytes | None:
    """The text of a module's file, as the program had it."""
    data = _texts.get(digest)
    return None if data is None else zlib.decompress(data)


def packed_text(digest: bytes) -> bytes | None:
    """The same, as it is sent to other processes."""
    return _texts.get(digest)


def keep_packed_text(digest: bytes, data: bytes) -> bytes:
    """Take the text of a module that another process told of."""
    _texts.setdefault(digest, data)
    return zlib.decompress(data)
