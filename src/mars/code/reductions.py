"""How objects are written that `pickle` refuses, and that hold no code of the program."""

from __future__ import annotations

import pickle
import types
import weakref
from collections.abc import Callable, Iterator
from types import CodeType
from typing import TYPE_CHECKING, Final, Protocol, cast

from mars.code.definitions import (
    code_bytes,
    make_view,
)

if TYPE_CHECKING:

    class _Wrapper(Protocol):
        """A staticmethod or classmethod."""

        @property
        def __func__(self) -> object: ...


def _code_reduce(code: CodeType) -> Reduced:
    data = code_bytes(code)
    if type(data) is bytes:
        return code_of, (data,)
    raise pickle.PicklingError("code with constants that no file could hold does not travel")


def code_of(data: bytes) -> CodeType:
    """Code that is no part of a function."""
    import marshal

    return marshal.loads(data)  # type: ignore[no-any-return]


def _wrapped_reduce(value: _Wrapper) -> Reduced:
    return type(value), (value.__func__,)


def _property_reduce(value: property) -> Reduced:
    return type(value), (value.fget, value.fset, value.fdel, value.__doc__)


def _proxy_reduce(value: types.MappingProxyType[object, object]) -> Reduced:
    return types.MappingProxyType, (dict(value),)


def _descriptor_reduce(value: types.GetSetDescriptorType | types.MemberDescriptorType) -> Reduced:
    return getattr, (value.__objclass__, value.__name__)


def _view_reduce(view: memoryview) -> Reduced:
    data = pickle.PickleBuffer(view) if view.contiguous else view.tobytes()
    return make_view, (data, view.format, view.shape)


# What weak containers hold is alive in the program, whoever holds it there. That may be nobody of
# those who travel, so where it is read the container itself has it live on.


def _weak_values_reduce(value: weakref.WeakValueDictionary[object, object]) -> Reduced:
    items = list(value.items())
    return type(value), (), {_ALIVE: [one for _, one in items]}, None, iter(items)


def _weak_keys_reduce(value: weakref.WeakKeyDictionary[object, object]) -> Reduced:
    items = list(value.items())
    return type(value), (), {_ALIVE: [one for one, _ in items]}, None, iter(items)


def _weak_set_reduce(value: weakref.WeakSet[object]) -> tuple[object, ...]:
    return type(value), (), list(value), None, None, fill_weak_set


def fill_weak_set(made: weakref.WeakSet[object], items: list[object]) -> None:
    """Put objects into a set that refers to them weakly, and have them live as long as it does."""
    made.update(items)
    vars(made)[_ALIVE] = items


_ALIVE: Final = "_mars_alive"

Reduced = (
    str
    | tuple[Callable[..., object], tuple[object, ...]]
    | tuple[Callable[..., object], tuple[object, ...], object]
    | tuple[Callable[..., object], tuple[object, ...], object, Iterator[object] | None]
    | tuple[
        Callable[..., object],
        tuple[object, ...],
        object,
        Iterator[object] | None,
        Iterator[object] | None,
    ]
)
"""What a reducer may give."""

Reducer = Callable[..., Reduced]
"""Says how objects of a class are written."""

TABLE: Final[dict[type, Reducer]] = {
    CodeType: _code_reduce,
    staticmethod: _wrapped_reduce,
    classmethod: _wrapped_reduce,
    property: _property_reduce,
    memoryview: _view_reduce,
    weakref.WeakValueDictionary: _weak_values_reduce,
    weakref.WeakKeyDictionary: _weak_keys_reduce,
    weakref.WeakSet: cast("Reducer", _weak_set_reduce),
    types.MappingProxyType: _proxy_reduce,
    types.GetSetDescriptorType: _descriptor_reduce,
    types.MemberDescriptorType: _descriptor_reduce,
}
