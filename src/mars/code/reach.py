"""What a function reaches: remembered as long as nothing of it changes, noticed when it does.

A walk over the function, what it refers to, and so on. It ends at what is installed. In what
travels by value everything is looked at by its identity, so that a later change is seen and the
function is pickled again. Of modules that travel by name the walk notes what they hold, as a worker
that imports them may find something else there: the program may have set it.
"""

from __future__ import annotations

import abc
import functools
import gc
import itertools
import sys
import weakref
from collections.abc import Callable, Container, Iterable
from enum import Enum, EnumMeta
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Final

from mars.code import modules
from mars.code.bytecode import (
    Facts,
    asks_by_text,
    facts_of,
    imports_by_text,
    names_in_alias,
    names_in_hints,
    resolved,
)  # fmt: skip
from mars.code.changes import (
    AS_IMPORTED,
    DEFAULT,
    HEAP_TYPE,
    MISSING,
    REGISTERED,
    CachedFunction,
    Seen,
    is_plain,
    registered_at,
    without_objects,
)
from mars.code.modules import (
    Homes,
    Record,
    is_installed,
    is_settled,
    record_of,
    travels_by_value,
)  # fmt: skip
from mars.code.origin import found, is_global, module_of
from mars.code.parts import (
    EVERYTHING,
    NOT_LOOKED_AT,
    OF_BODY,
    OF_CLASS,
    OF_MEMBER,
    computes,
    functions_in,
    has_only_attributes,
    is_generated,
    names_of,
    says_little,
)
from mars.code.shared import Shared, shared_in
from mars.code.watched import Items, Watched, contents_of
from mars.settings import REACH_ITEMS

_ATOMS: Final = (
    int, float, complex, str, bytes, bool, type(None), type(Ellipsis), range, CodeType, UnionType,
    GenericAlias, GetSetDescriptorType, MemberDescriptorType,
    MethodDescriptorType, WrapperDescriptorType, ClassMethodDescriptorType,
)  # fmt: skip
_CODE: Final = (FunctionType, type)
_CONTAINERS_OF: Final = frozenset({"builtins", "collections", "types", "weakref", "_weakrefset"})
"""Modules of Python whose objects hold what others put into them."""


class Reach(Watched):
    """What a value refers to; with it, what stands inside of it where no walk comes by.

    Attributes
    ----------
    stable : bool
        False when something can change in place and we cannot see it: then only pickling again
        tells.
    modules : dict of str
        Names of the modules that travel by name.
    held : dict
        What these hold, by module and path; with it whether code names it.
    asked : dict of str to dict of str
        Names that are asked for of modules which travel by value.
    stands : dict of str
        Names under which the program has put something into ``sys.modules`` that no import would
        find there: another module, or an object that is none.
    shared : dict
        Objects of modules that stand inside something of the script, by module and name.
    codes : list of (CodeType, str)
        Code of the functions, and the package that each one's imports start from.
    met : set of int
        Identities of the functions and classes that it came by.
    installed : dict of str
        Names of modules that something was taken from which is installed.
    reducers : tuple of (type, callable)
        What the program has told `copyreg` of how objects pickle.
    """

    def __init__(self, root: object, inside: Iterable[object] = ()) -> None:
        super().__init__()
        self.stable = True
        self.modules: dict[str, None] = {}
        self.held: dict[tuple[str, str], tuple[object, bool]] = {}
        self.asked: dict[str, dict[str, None]] = {}
        self.stands: dict[str, None] = {}
        self.shared: Shared = {}
        self.codes: list[tuple[CodeType, str]] = []
        self.installed: dict[str, None] = {}
        self._seen: set[object] = set()
        self._held_alive: list[object] = []
        self._homes = Homes()
        self._room = REACH_ITEMS
        self._pending: list[Callable[[], object]] = []
        self._owned: list[object] = [root]  # what the script has under its names
        self._of_script = False  # something travels by value that may hold objects of modules
        self._plain: dict[int, bool] = {}  # by identity of the type: it may have no hash
        self._classes: dict[int, type] | None = None  # of the project, if code asks for subclasses
        self._root: object = root
        self._value(root, None)
        for one in (*inside, *(reducer for _, reducer in self.reducers)):
            self._later(one, None)
        self._walk()
        while self._owned:
            self._look_inside()
        self._root = None
        self._plain.clear()
        self._end_watch()
        self._classes = None
        self.met = {id(one) for one in self._held_alive if issubclass(type(one), _CODE)}
        self._seen.clear()
        self._held_alive.clear()  # the root has to be able to go

    # -- the walk ------------------------------------------------------------------------------

    def _walk(self) -> None:
        while True:
            while self._pending:  # a stack of our own: a chain of functions may be long
                self._pending.pop()()
            for cls in [*(self._classes or {}).values()]:
                below: list[type] = type.__subclasses__(cls)
                for one in below:
                    self._subclass(one)
            if not self._pending:
                return

    def _look_inside(self) -> None:
        """Find objects of modules inside what the script has."""
        owned, self._owned = self._owned, []
        for home, value in shared_in(owned, self._homes).items():
            self.shared[home] = value
            self._at_home(value)
        self._walk()

    def _subclass(self, cls: type) -> None:
        """A class that code may find by asking a class above it."""
        module = module_of(cls)
        ours = module == "__main__" or record_of(module) is not None
        if not ours or not isinstance(module, str):
            return
        if id(cls) in self._seen or found(module, cls.__qualname__) is not cls:
            return
        self._later(cls, None)
        self.asked.setdefault(module, {})[cls.__qualname__.partition(".")[0]] = None

    def _later(self, value: object, facts: Facts | None) -> None:
        if type(value) not in _QUICK:
            self._pending.append(functools.partial(self._value, value, facts))

    def _value(self, value: object, facts: Facts | None) -> None:
        """Look at a value that code with these ``facts`` refers to.

        None: it stands where anything may be asked of it.
        """
        # type(), because isinstance() also asks the value, which may answer anything.
        kind = type(value)
        if kind is BuiltinFunctionType:
            assert isinstance(value, BuiltinFunctionType)
            self._is_installed(value.__module__)
            if not issubclass(type(value.__self__), (ModuleType, type(None), type)):
                self._later(value.__self__, None)  # a method: of a list that grows, perhaps
            return
        if issubclass(kind, ModuleType):
            assert isinstance(value, ModuleType)
            self._module(value, facts)
            return
        if value is MISSING or (issubclass(kind, _ATOMS) and not kind.__flags__ & HEAP_TYPE):
            return
        if id(value) in self._seen:
            if value is self._root and not is_global(value):
                self.stable = False  # it would be held by what is remembered of it
            return
        self._seen.add(id(value))
        self._held_alive.append(value)
        if kind is FunctionType:
            assert isinstance(value, FunctionType)
            self._function(value)
        elif issubclass(kind, (tuple, frozenset)):
            assert isinstance(value, (tuple, frozenset))
            for item in value:
                self._later(item, None)
            if kind.__flags__ & HEAP_TYPE:
                self._instance(value)
        elif issubclass(kind, type) and isinstance(value, type):
            self._class(value)
        elif kind is list or kind is set:
            assert isinstance(value, (list, set))
            if not self._has_room(len(value)):
                return
            items: tuple[object, ...] = tuple(value)
            self._collections.append((value, items))
            for item in items:
                self._later(item, None)
        elif kind is dict:
            assert isinstance(value, dict)
            self._mapping(value)
        elif issubclass(kind, CachedFunction):
            assert isinstance(value, CachedFunction)
            if not is_installed(value):
                self._later(value.__wrapped__, None)
                record = record_of(module_of(value))
                if record is not None and record.by_name:
                    name = value.__qualname__
                    if found(value.__module__, name) is value:
                        self._take(value.__module__, record)
                        self._hold(value.__module__, name, value, named=True)
        elif issubclass(kind, (staticmethod, classmethod)):
            assert isinstance(value, (staticmethod, classmethod))
            self._later(value.__func__, None)
        elif issubclass(kind, property):
            assert isinstance(value, property)
            for part in (value.fget, value.fset, value.fdel):
                self._later(part, None)
        elif kind is MethodType:
            assert isinstance(value, MethodType)
            self._later(value.__func__, None)
            self._later(value.__self__, None)
        elif kind is functools.partial:
            assert isinstance(value, functools.partial)
            for piece in (value.func, value.args, value.keywords):
                self._later(piece, None)
            self._mapping(value.__dict__)
        elif issubclass(kind, Enum):
            self._later(kind, None)
            self._mapping(vars(value))
        else:
            self._is_installed(module_of(kind))
            if module_of(kind) != "typing" and not is_settled(kind):
                self._instance(value)

    def _is_installed(self, module: object) -> None:
        """Something comes from a module which is installed, most likely: there it is looked for."""
        if isinstance(module, str):
            self.installed[module] = None

    def _instance(self, value: object) -> None:
        """An object: its class, and what it holds, as far as that is known."""
        kind = type(value)
        module = module_of(kind)
        if isinstance(module, str) and sys.modules.get(module) is value:
            self._stand_in(module, value)
        elif not (travels_by_value(module) or record_of(module) is not None):
            self.stable = False
            if module in _CONTAINERS_OF:
                self._inside(value)
            return
        self._later(kind, None)
        if self._of_script:
            self._at_home(value)
        attributes = getattr(value, "__dict__", None)
        plain = self._plain.get(id(kind))
        if plain is None:
            plain = self._plain[id(kind)] = has_only_attributes(kind)
        if type(attributes) is dict and plain:
            for some, one in zip(self._instances, (value, kind), strict=True):
                some.append(one)
            self._mapping(attributes)
            return
        self.stable = False
        self._inside(value)

    def _inside(self, value: object) -> None:
        """What an object refers to that does not tell when it changes."""
        if issubclass(type(value), weakref.ref) and isinstance(value, weakref.ref):
            self._later(value(), None)
            return
        inside = [one for one in gc.get_referents(value) if type(one) is not ModuleType]
        if self._has_room(len(inside)):
            for one in inside:
                self._later(one, None)

    def _bind(self, namespace: dict[str, object], name: str, value: object) -> None:
        """Watch what a name is bound to."""
        _, names, values = self._globals.setdefault(id(namespace), (namespace, [], []))
        names.append(name)
        values.append(value)

    def _has_room(self, count: int) -> bool:
        self._room -= count
        if self._room < 0:
            self.stable = False
        return self._room >= 0

    def _mapping(self, mapping: Items, without: Container[object] = ()) -> None:
        if ("mapping", id(mapping)) in self._seen:
            return
        self._seen.add(("mapping", id(mapping)))
        self._held_alive.append(mapping)
        if not self._has_room(len(mapping)):
            return
        if not mapping:
            self._empty.append(mapping)
            return
        names, values = tuple(mapping), tuple(mapping.values())
        self._mappings.append((mapping, names, values))
        for name, value in zip(names, values, strict=False):
            if name not in without:
                self._later(name, None)
                self._later(value, None)

    def _watch(self, func: FunctionType) -> None:
        reference = weakref.ref(func)
        self._functions.append((reference, func.__code__, func.__defaults__, func.__kwdefaults__))

    def _function(self, func: FunctionType) -> None:
        module = module_of(func)
        record = record_of(module)
        if record is None and module != "__main__" and found(module, func.__qualname__) is func:
            self._is_installed(module)
            return  # nothing of it travels
        self._watch(func)
        facts = facts_of(func.__code__)
        if record is None or not isinstance(module, str) or not record.by_name:
            pass  # it travels by value
        elif found(module, func.__qualname__) is func:
            self._take(module, record)
            if self._is_own(func, record, func.__qualname__):
                modules.note_own(record, func.__qualname__, func)
                self._attributes_of(func, module, func.__qualname__)
                self._names_of(func.__globals__, facts, func)
                return
            self._hold(module, func.__qualname__, func, named=True)  # a decorator made it
        self._of_script = True
        for value in (*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()):
            self._own(value)
            self._later(value, None)
        self._mapping(func.__dict__)
        for cell in func.__closure__ or ():
            value = contents_of(cell)
            self._cells.append((cell, value))
            self._own(value)
            self._later(value, facts)
        self._names_of(func.__globals__, facts, func)

    def _attributes_of(self, func: FunctionType, module: str, path: str) -> None:
        """What is in a function of a module that travels by name, beside its code."""
        for name, given in (
            ("__defaults__", func.__defaults__), ("__kwdefaults__", func.__kwdefaults__),
        ):  # fmt: skip
            plain = without_objects(given)
            if plain:  # others stay themselves
                self._hold(module, f"{path}.{name}", plain, named=False)
            for one in given.values() if type(given) is dict else given or ():
                self._later(one, None)
        by_name = [*(func.__kwdefaults__ or {}).items()]
        for place, one in [*enumerate(func.__defaults__ or ()), *by_name]:
            if not is_plain(one):
                self.held[module, f"{path}{DEFAULT}{place}"] = Seen(one), False
                self._at_home(one)
        attributes = func.__dict__
        if not attributes:
            self._empty.append(attributes)
            return
        self._mappings.append((attributes, tuple(attributes), tuple(attributes.values())))
        for name, value in attributes.items():
            if not name.startswith("__"):
                self._hold(module, f"{path}.{name}", value, named=True)

    def _names_of(self, namespace: dict[str, object], facts: Facts, func: FunctionType) -> None:
        """Global names that a function's code, or its annotations, refer to; and its imports."""
        given = namespace.get("__name__")
        home = given if isinstance(given, str) else None
        module = sys.modules.get(home) if home is not None else None
        here = module is not None and module.__dict__ is namespace
        record = record_of(home) if here else None
        hinted = facts.hinted, names_in_hints(func.__annotations__)
        names = dict.fromkeys(itertools.chain(facts.globals, *hinted))
        for name in names:
            self._name(namespace, name, facts, home if here else None, record)
        if module is not None and here and asks_by_text(facts):
            self._module(module, None)
        if "__subclasses__" in facts.mentioned and self._classes is None:
            met = (one for one in self._held_alive if isinstance(one, type))
            self._classes = {id(one): one for one in met}
        if facts.dynamic and imports_by_text(facts):
            for unseen in modules.by_value():  # no worker would find them
                self._module(unseen, None)
        package = namespace.get("__package__") or ""
        if facts.imports:
            self.codes.append((func.__code__, package if isinstance(package, str) else ""))
        for level, imported, members in facts.imports:
            full = resolved(level, imported, package if isinstance(package, str) else "")
            for one in (full, *(f"{full}.{member}" for member in members)):
                self._import(one, facts)
        for one in facts.texts:
            self._import(one, facts)

    def _name(
        self, namespace: dict[str, object], name: str, facts: Facts | None, home: str | None,
        record: Record | None,
    ) -> None:  # fmt: skip
        value = namespace.get(name, MISSING)
        if ("name", id(namespace), name) not in self._seen:
            self._seen.add(("name", id(namespace), name))
            self._bind(namespace, name, value)
            if record is not None and record.by_name and home is not None:
                self._take(home, record)
                if value is MISSING:
                    if name in record.bound:
                        self.held[home, name] = MISSING, True
                elif self._is_own(value, record, name):
                    modules.note_own(record, name, value)
                    self.held[home, name] = AS_IMPORTED, True
                else:
                    self._hold(home, name, value, named=True)
            elif value is not MISSING:
                self._own(value)
        if value is not MISSING:
            self._later(value, facts)
            for one in names_in_alias(value):
                if ("name", id(namespace), one) not in self._seen:
                    self._name(namespace, one, facts, home, record)

    def _own(self, value: object) -> None:
        """Something that the script has under a name, as a default or in a closure."""
        self._owned.append(value)
        self._at_home(value)

    def _at_home(self, value: object) -> None:
        """What code that travels by value has in common with a module that travels by name."""
        home = self._homes.home_of(value)
        if home is not None:
            module, name = home
            record = record_of(module)
            assert record is not None
            self._take(module, record)
            self._bind(vars(record.module), name, value)
            self._hold(module, name, value, named=True)

    def _hold(self, module: str, path: str, value: object, *, named: bool) -> None:
        known = self.held.get((module, path))
        self.held[module, path] = value, named or (known is not None and known[1])
        self._later(value, None)
        if says_little(value):
            for name, one in list(vars(value).items()):  # large ones are in its pickle, most likely
                self._hold(module, f"{path}.{name}", one, named=False)

    def _is_own(self, value: object, record: Record, path: str, *, several: bool = False) -> bool:
        """Whether a module that travels by name has it from its own file.

        If the file defines several functions of that name, an import may choose another one than
        this; with ``several`` they are parts of one thing, such as a property.
        """
        if type(value) is FunctionType:
            return (
                value.__module__ == record.module.__name__
                and value.__qualname__ == value.__code__.co_qualname == path
                and record.has(value.__code__)
                and (several or len(record.codes[path]) == 1)
            )
        if issubclass(type(value), type) and isinstance(value, type):
            same_name = module_of(value) == record.module.__name__ and value.__qualname__ == path
            return same_name and record.makes(path)
        return False

    def _take(self, name: str, record: Record) -> None:
        if name not in self.modules:
            self.modules[name] = None
            self._specs.append((record.module, record.spec))

    def _import(self, name: str, facts: Facts) -> None:
        """A module that code imports when it runs."""
        module = sys.modules.get(name)
        if module is not None:
            if modules.is_stand_in(name, module):
                self._stand_in(name, module)
            self._later(module, facts)
            return
        source = modules.source_of(name)
        if source is not None and ("file", name) not in self._seen:
            self._seen.add(("file", name))
            self.modules[name] = None
            try:
                self._files.append((source.file, modules.stamp_of(source.file)))
            except OSError:
                return

    def _stand_in(self, name: str, value: object) -> None:
        """Something that the program has put into ``sys.modules`` itself."""
        if modules.is_stand_in(name, value):
            self.stands[name] = None
            self.stable = False  # nobody looks there again

    def _module(self, module: ModuleType, facts: Facts | None) -> None:
        name = module.__name__
        record = record_of(name)
        is_main = name == "__main__" and module is sys.modules.get(name)
        if record is None and module is sys.modules.get(name) and not is_main:
            self._is_installed(name)
        if ("module", id(module), id(facts)) in self._seen:
            return
        self._seen.add(("module", id(module), id(facts)))
        if record is None and not is_main:
            if facts is not None and getattr(module, "__file__", None) is None:
                self._submodules(module, facts)  # it may be a package of the project
            return
        namespace = vars(module)
        if record is None and facts is not None and not facts.dynamic:  # of the script
            names = [one for one in facts.mentioned if one in namespace]
        elif record is None:
            names = names_of(namespace)
            self.asked.setdefault(name, {})[EVERYTHING] = None
        elif facts is None or facts.dynamic or type(module) is not ModuleType:
            names = names_of(namespace)
            if not record.by_name:
                self.asked.setdefault(name, {})[EVERYTHING] = None
            names += [one for one in record.bound if one not in namespace]
        else:
            names = [one for one in facts.mentioned if one in namespace]
            if record.by_name:
                names += [one for one in facts.mentioned & record.bound if one not in namespace]
        if record is None or not record.by_name:
            self.asked.setdefault(name, {}).update(dict.fromkeys(names))
            for one in names:
                self._name(namespace, one, facts, None, None)
            return
        self._take(name, record)
        if not self._has_room(len(names)):
            return
        certain = facts is not None and not facts.dynamic and type(module) is ModuleType
        for one in names:
            if certain:
                self._name(namespace, one, facts, name, record)
            elif ("name", id(namespace), one) not in self._seen:
                self._seen.add(("name", id(namespace), one))
                value = namespace.get(one, MISSING)
                self._bind(namespace, one, value)
                if value is MISSING:
                    self.held[name, one] = MISSING, False
                elif self._is_own(value, record, one):
                    modules.note_own(record, one, value)
                    self.held[name, one] = AS_IMPORTED, False
                else:
                    self._hold(name, one, value, named=False)
                self._later(value, None)
        if facts is not None:
            self._submodules(module, facts)
            if "__getattr__" in namespace:
                self._made_when_asked(module, facts)

    def _made_when_asked(self, module: ModuleType, facts: Facts) -> None:
        """What the ``__getattr__`` of a module may give: what it refers to, and what is loaded."""
        made_by = vars(module)["__getattr__"]
        self._later(made_by, None)
        if type(made_by) is FunctionType:
            package = vars(module).get("__package__") or ""
            for level, imported, members in facts_of(made_by.__code__).imports:
                full = resolved(level, imported, package)
                for one in (full, *(f"{full}.{member}" for member in members)):
                    if one in sys.modules:
                        self._later(sys.modules[one], facts)
        inside = f"{module.__name__}."
        for name, inner in [*sys.modules.items()]:
            if name.startswith(inside):
                self._later(inner, facts)

    def _submodules(self, package: ModuleType, facts: Facts) -> None:
        """A package's modules, which are asked for as its attributes."""
        if hasattr(package, "__path__"):
            for one in facts.mentioned:
                inner = sys.modules.get(f"{package.__name__}.{one}")
                if inner is not None:
                    self._later(inner, facts)

    def _class(self, cls: type) -> None:
        module = module_of(cls)
        record = record_of(module)
        if record is None and module != "__main__":
            self._is_installed(module)
            if found(module, cls.__qualname__) is not cls:  # made by a function, say
                for base in cls.__bases__:
                    self._later(base, None)
                if "<locals>" in cls.__qualname__:
                    self._mapping(vars(cls), NOT_LOOKED_AT)
            return
        if self._classes is not None:
            self._classes[id(cls)] = cls
        self._registrations = abc.get_cache_token()
        self._bases.append((weakref.ref(cls), cls.__bases__))
        if (
            record is not None
            and record.by_name
            and isinstance(module, str)
            and found(module, cls.__qualname__) is cls
        ):
            self._take(module, record)
            if record.makes(cls.__qualname__):
                self._class_by_name(cls, module, record)
            else:
                self._hold(module, cls.__qualname__, cls, named=True)
                self._mapping(vars(cls), NOT_LOOKED_AT)
        else:
            self._of_script = True
            self._mapping(vars(cls), NOT_LOOKED_AT)
            for value in [*vars(cls).values()]:
                self._own(value)
            space = vars(sys.modules[module]) if module in sys.modules else {}
            for name in names_in_hints(vars(cls).get("__annotations__")):
                if name in space:
                    self._name(space, name, None, None, None)
        self._later(type(cls), None)
        for base in cls.__bases__:
            self._later(base, None)

    def _class_by_name(self, cls: type, module: str, record: Record) -> None:
        """A class that a worker imports: what is in it beside the code of its file."""
        names = tuple(vars(cls))
        if not self._has_room(len(names)):
            return
        self._mappings.append((vars(cls), names, tuple(vars(cls).values())))
        modules.note_names(record, cls.__qualname__, names)
        if cls.__bases__ != (object,) and not isinstance(cls, EnumMeta):
            self._hold(module, f"{cls.__qualname__}.__bases__", cls.__bases__, named=True)
        body = record.body_of(cls.__qualname__)
        for name in () if body is None else facts_of(body).stored:
            if name not in vars(cls) and name not in OF_BODY:
                self.held[module, f"{cls.__qualname__}.{name}"] = MISSING, False
        if issubclass(type(cls), abc.ABCMeta):
            registered = registered_at(cls)
            if registered:
                self._hold(module, f"{cls.__qualname__}.{REGISTERED}", registered, named=False)
        members = vars(cls)["_member_map_"] if isinstance(cls, EnumMeta) else {}
        for name in names:
            value = vars(cls)[name]
            path = f"{cls.__qualname__}.{name}"
            if name in members:
                if not is_plain(value._value_) or body is None or computes(body):
                    self._hold(module, f"{path}._value_", value._value_, named=False)
                self._later(value, None)
                for attribute, one in vars(value).items():
                    if attribute not in OF_MEMBER:
                        self._hold(module, f"{path}.{attribute}", one, named=True)
                continue
            if name in NOT_LOOKED_AT or name.startswith("_abc_"):
                continue
            if isinstance(cls, EnumMeta) and name.startswith("_") and name.endswith("_"):
                continue  # made by its metaclass
            own = True
            for part in functions_in(value):
                if is_generated(part, cls):
                    self._attributes_of(part, module, path)
                elif not self._is_own(part, record, path, several=part is not value):
                    own = False
                self._later(part, None)
            if issubclass(type(value), type):
                own = self._is_own(value, record, path)
                self._later(value, None)
            elif not functions_in(value):
                own = (
                    name in OF_CLASS or type(value) in (MemberDescriptorType, GetSetDescriptorType)
                )  # fmt: skip
            elif own:
                modules.note_own(record, path, value)
            if not own:
                self._hold(module, path, value, named=True)


_QUICK: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
