"""What a code object refers to: global names, attributes, imports.

Pure. Read from the instructions themselves, in one pass, since `dis` takes a hundred times as long.
Called by whoever has to know what a function reaches.
"""

from __future__ import annotations

import functools
import opcode
import re
import weakref
from collections.abc import Iterable, Iterator
from types import CodeType, GenericAlias, UnionType
from typing import Final

_OP: Final = opcode.opmap
_LOAD_GLOBAL: Final = _OP["LOAD_GLOBAL"]  # its argument has a flag in the lowest bit
_BY_NAME: Final = frozenset(
    _OP[name]
    for name in (
        "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "STORE_NAME", "DELETE_NAME",
        "LOAD_FROM_DICT_OR_GLOBALS",
    )
    if name in _OP
)  # fmt: skip
"""Instructions whose argument is the number of a name that may be a global one."""
_STORE_NAME: Final = _OP["STORE_NAME"]
_IMPORT_NAME: Final = _OP["IMPORT_NAME"]
_LOAD_CONST: Final = _OP["LOAD_CONST"]
_LOAD_SMALL_INT: Final = _OP.get("LOAD_SMALL_INT", -1)  # from Python 3.14 on
_EXTENDED_ARG: Final = _OP["EXTENDED_ARG"]

_DYNAMIC: Final = frozenset(
    {
        "getattr", "vars", "globals", "eval", "exec", "dir", "hasattr", "__dict__", "attrgetter",
        "import_module", "__import__", "getmembers", "__getattribute__",
    }
)  # fmt: skip
"""Who uses one of these may ask for a name that is not in the code."""

_BY_TEXT: Final = frozenset({"import_module", "__import__", "modules", "exec", "eval"})
"""Who uses one of these may name a module in a text."""

_OF_NAMESPACE: Final = frozenset({"globals", "eval", "exec"})
"""Who uses one of these may ask for a global name that is not in the code."""

_IDENTIFIER: Final = "[^\\W\\d]\\w*"


class Facts:
    """What one code object, and all code inside it, refers to.

    Attributes
    ----------
    globals : tuple of str
        Names that are looked up, set or deleted as global ones.
    hinted : tuple of str
        Names in annotations in text, of functions and classes that the code defines.
    mentioned : frozenset of str
        All names, of attributes too, and text that could be a name.
    stored : frozenset of str
        Names that the code itself binds in its own namespace: for modules and class bodies.
    imports : tuple of (int, str, tuple of str)
        Modules that it imports: how far up it starts, the name, and what it takes from there.
    texts : tuple of str
        What may be names of modules in texts, if it imports by text or runs text.
    dynamic : bool
        Whether it may ask for names that nobody can see here.
    """

    __slots__ = (
        "__weakref__", "dynamic", "globals", "hinted", "imports", "mentioned", "stored", "texts",
    )  # fmt: skip

    def __init__(self, code: CodeType) -> None:
        names: dict[str, None] = {}
        hinted: dict[str, None] = {}
        mentioned: set[str] = set()
        imports: dict[tuple[int, str, tuple[str, ...]], None] = {}
        self.stored = frozenset(_scan(code, names, imports))
        for inner in codes_in(code):
            mentioned.update(inner.co_names)
            mentioned.update(c for c in inner.co_consts if type(c) is str and c.isidentifier())
            if inner is not code:
                _scan(inner, names, imports)
            for text in _annotations_in(inner):
                hinted.update(dict.fromkeys(re.findall(_IDENTIFIER, text)))
        by_text = not _BY_TEXT.isdisjoint(mentioned)
        self.texts = tuple(dict.fromkeys(_modules_in_text(code))) if by_text else ()
        self.globals = tuple(names)
        self.hinted = tuple(hinted)
        self.mentioned = frozenset(mentioned)
        self.imports = tuple(imports)
        self.dynamic = not _DYNAMIC.isdisjoint(mentioned)


def asks_by_text(facts: Facts) -> bool:
    """Whether code may ask for global names of its own module that nobody can see in it."""
    return not _OF_NAMESPACE.isdisjoint(facts.globals) or (
        "__name__" in facts.globals and "modules" in facts.mentioned
    )


_IMPORTS_BY_TEXT: Final = frozenset({"import_module", "__import__"})


def imports_by_text(facts: Facts) -> bool:
    """Whether code may import a module whose name nobody can see in it."""
    return not _IMPORTS_BY_TEXT.isdisjoint(facts.mentioned)


def _scan(
    code: CodeType, names: dict[str, None], imports: dict[tuple[int, str, tuple[str, ...]], None]
) -> list[str]:
    """Note what the instructions of one code object refer to; the names that it stores."""
    stored = []
    raw, known, constants = code.co_code, code.co_names, code.co_consts
    level: object = None  # the last two constants, which an import takes
    members: object = None
    extended = 0
    for place in range(0, len(raw), 2):
        op, argument = raw[place], raw[place + 1] | extended
        extended = argument << 8 if op == _EXTENDED_ARG else 0
        if op == _LOAD_GLOBAL:
            names[known[argument >> 1]] = None
        elif op in _BY_NAME:
            names[known[argument]] = None
            if op == _STORE_NAME:
                stored.append(known[argument])
        elif op == _LOAD_CONST:
            level, members = members, constants[argument]
        elif op == _LOAD_SMALL_INT:
            level, members = members, argument
        elif op == _IMPORT_NAME:
            up = level if isinstance(level, int) else 0
            taken = members if isinstance(members, tuple) else ()
            imports[up, known[argument], taken] = None
    return stored


def _annotations_in(code: CodeType) -> Iterator[str]:
    """Annotations in text that code gives to the classes and functions which it defines."""
    if code.co_name == "__annotate__":  # from Python 3.14 on they are made when they are asked for
        yield from (text for text in code.co_consts if type(text) is str)
        return
    of_class = "__annotations__" in code.co_names
    parameters = {"return"}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            parameters.update(inner.co_varnames)
    if not of_class and len(parameters) == 1:
        return
    before: object = None
    extended = 0
    raw = code.co_code
    for place in range(0, len(raw), 2):
        op, argument = raw[place], raw[place + 1] | extended
        extended = argument << 8 if op == _EXTENDED_ARG else 0
        if op == _LOAD_CONST:
            constant = code.co_consts[argument]
            if type(constant) is str and before in parameters:
                yield constant
            elif type(constant) is tuple and parameters.issuperset(constant[::2]):
                yield from (text for text in constant[1::2] if type(text) is str)
            before = constant if type(constant) is str else None
        elif (
            type(before) is str
            and op in _BY_NAME
            and of_class
            and code.co_names[argument] == "__annotations__"
        ):
            yield before


def _modules_in_text(code: CodeType) -> Iterator[str]:
    """Names in constants that may be those of modules."""
    for inner in codes_in(code):
        for text in inner.co_consts:
            if type(text) is str:
                if re.fullmatch(_MODULE, text):  # `re` keeps what it has compiled
                    yield text
                yield from re.findall(_IMPORT, text)


_MODULE: Final = f"{_IDENTIFIER}(?:\\.{_IDENTIFIER})*"
_IMPORT: Final = f"(?:^|[;\\n])\\s*(?:import|from)\\s+({_MODULE})"


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """A code object and all inside it."""
    pending = [code]
    while pending:
        one = pending.pop()
        yield one
        pending.extend(constant for constant in one.co_consts if isinstance(constant, CodeType))


_known: dict[int, tuple[weakref.ref[CodeType], Facts]] = {}


def facts_of(code: CodeType) -> Facts:
    """What a code object refers to; looked at once."""
    known = _known.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    facts = Facts(code)
    key = id(code)
    _known[key] = weakref.ref(code, functools.partial(_forget, _known, key)), facts
    return facts


def _forget(known: dict[int, tuple[weakref.ref[CodeType], Facts]], key: int, _: object) -> None:
    """Code is gone; at the end of a program the names of this module may be, too."""
    known.pop(key, None)


_OF_TYPING: Final = frozenset(
    {"typing", "types", "collections.abc", "annotationlib", "typing_extensions"}
)
"""Modules whose objects in annotations may have text inside."""


def names_in_alias(value: object) -> Iterable[str]:
    """Names in texts inside an alias of a type, such as ``dict[str, "Tree"]``."""
    kind = type(value)
    if kind is GenericAlias or kind is UnionType or kind.__module__ == "typing":
        return names_in_hints({"": value})
    return ()


def names_in_hints(hints: object) -> Iterator[str]:
    """Names in annotations that are text, as all are under ``from __future__``.

    Also in text inside of what `typing` makes, which may be deep: ``dict[str, Optional["Node"]]``.
    """
    pending = list(hints.values()) if type(hints) is dict else []
    while pending:
        hint = pending.pop()
        kind = type(hint)
        if kind is type:
            continue
        if kind is str:
            yield from re.findall(_IDENTIFIER, hint)
        elif kind is list or kind is tuple:  # parameters of a callable
            pending.extend(hint)
        elif kind.__module__ in _OF_TYPING:
            pending.append(getattr(hint, "__forward_arg__", ()))
            pending.extend(getattr(hint, "__args__", ()) or ())


def resolved(level: int, name: str, package: str) -> str:
    """The full name of what ``import`` is given: with leading dots, it starts from a package."""
    if not level:
        return name
    base = package.rsplit(".", level - 1)[0] if level > 1 else package
    return f"{base}.{name}" if name else base
