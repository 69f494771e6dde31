"""How objects are written that `pickle` refuses, and that hold no code of the program."""

from __future__ import annotations

import pickle
import types
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from mars.code.definitions import (
    code_bytes,
    make_view,
)


def _code_reduce(code: CodeType) -> tuple[object, ...]:
    data = code_bytes(code)
    if type(data) is bytes:
        return code_of, (data,)
    raise pickle.PicklingError("code with constants that no file could hold does not travel")


def code_of(data: bytes) -> CodeType:
    """Code that is no part of a function."""
    import marshal

    return marshal.loads(data)  # type: ignore[no-any-return]


def _wrapped_reduce(value: Any) -> tuple[object, ...]:
    return type(value), (value.__func__,)


def _property_reduce(value: property) -> tuple[object, ...]:
    return type(value), (value.fget, value.fset, value.fdel, value.__doc__)


def _proxy_reduce(value: types.MappingProxyType[Any, Any]) -> tuple[object, ...]:
    return types.MappingProxyType, (dict(value),)


def _descriptor_reduce(value: Any) -> tuple[object, ...]:
    return getattr, (value.__objclass__, value.__name__)


def _view_reduce(view: memoryview) -> tuple[object, ...]:
    data = pickle.PickleBuffer(view) if view.contiguous else view.tobytes()
    return make_view, (data, view.format, view.shape)


def _weak_mapping_reduce(value: Any) -> tuple[object, ...]:
    return type(value), (), None, None, iter(list(value.items()))


TABLE: Final[dict[type, Callable[[Any], Any]]] = {
    CodeType: _code_reduce,
    staticmethod: _wrapped_reduce,
    classmethod: _wrapped_reduce,
    property: _property_reduce,
    memoryview: _view_reduce,
    weakref.WeakValueDictionary: _weak_mapping_reduce,
    weakref.WeakKeyDictionary: _weak_mapping_reduce,
    types.MappingProxyType: _proxy_reduce,
    types.GetSetDescriptorType: _descriptor_reduce,
    types.MemberDescriptorType: _descriptor_reduce,
}
