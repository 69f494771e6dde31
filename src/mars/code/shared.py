"""Objects of modules that stand inside something of the script: in a list, or as an attribute.

The script has them in common with their modules, and so has a call. Objects of classes that a class
statement made tell a pickler where they are from. A dictionary, a list, and what else is written in
C do not, so `mars.code.reach` has them looked for here, and `mars.code.rich` writes their names.
"""

from __future__ import annotations

import functools
import gc
from collections import deque
from collections.abc import Iterable
from types import FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Final

from mars.code.changes import HEAP_TYPE
from mars.code.modules import Homes, record_of, travels_by_value
from mars.code.origin import module_of
from mars.settings import REACH_ITEMS

Shared = dict[tuple[str, str], object]
"""Objects, by the module and the name that they are known by."""

_HOLDING: Final = (
    dict, list, tuple, set, frozenset, deque, functools.partial, MethodType, MappingProxyType,
    SimpleNamespace,
)  # fmt: skip
_NOT_LOOKED_INTO: Final = (type, FunctionType, ModuleType)
_ATOMS: Final = frozenset(map(id, (int, float, complex, str, bytes, bool, type(None))))
"""Identities of types, as a metaclass may have no hash."""


def shared_in(values: Iterable[object], homes: Homes) -> Shared:
    """What modules that travel by name have in common with values of the script."""
    shared: Shared = {}
    known = homes.known()
    if not known:
        return shared
    pending = [*values]
    seen = set(map(id, pending))
    looked_into: dict[int, bool] = {}  # by identity of the type
    room = REACH_ITEMS
    while pending and room > 0:
        value = pending.pop()
        kind = type(value)
        home = homes.home_of(value) if id(value) in known else None
        if home is not None:
            if not kind.__flags__ & HEAP_TYPE:
                shared[home] = value
            continue  # what stands inside of it is its module's
        looks = looked_into.get(id(kind))
        if looks is None:
            looks = looked_into[id(kind)] = _is_looked_into(kind)
        if not looks:
            continue
        inside = gc.get_referents(value)
        room -= len(inside)
        for one in inside:
            if id(type(one)) not in _ATOMS and id(one) not in seen:
                seen.add(id(one))
                pending.append(one)
    return shared


def _is_looked_into(kind: type) -> bool:
    """Whether objects of a type hold what others have put into them."""
    if issubclass(kind, _HOLDING):
        return True
    if issubclass(kind, _NOT_LOOKED_INTO):
        return False
    module = module_of(kind)
    return travels_by_value(module) or record_of(module) is not None
