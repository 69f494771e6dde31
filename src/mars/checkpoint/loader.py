"""Unpickling what another process pickled, with this program's own classes.

Called by the modules of this package that find out what a call is, and that read values.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mars.attempt import codec

if TYPE_CHECKING:
    from mars.task import Buffer

MISSING: Final = object()


def named(module: str | None, qualified: str) -> object:
    """Return what an import of a name would give; `MISSING`: nothing."""
    value: object = sys.modules.get(module or "", MISSING)
    for step in qualified.split("."):
        value = getattr(value, step, MISSING)
    return value


class Loader(pickle.Unpickler):
    """Unpickles with the program's own classes where a pickle carries a copy of them.

    A class that travels by value has a number in cloudpickle, which is valid in one process only.
    In a pickle of another process the class has another number. Its copy would then be a class of
    its own, and `isinstance` would not know it.
    """

    def find_class(self, module: str, name: str, /) -> object:
        if module == "cloudpickle.cloudpickle":
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return functools.partial(_skeleton, super().find_class(module, name), name)
            if name == "_class_setstate":
                return functools.partial(_set_state, super().find_class(module, name))
        return super().find_class(module, name)


_untouched: weakref.WeakSet[type] = weakref.WeakSet()
"""Classes of the program that stand in for copies. What a copy brings is not written to them."""


def _skeleton(make: Callable[..., type], kind: str, *parts: object) -> type:
    if kind == "_make_skeleton_class":
        body, name = parts[3], parts[1]
        module = body.get("__module__") if isinstance(body, dict) else None
    else:
        module, name = parts[4], parts[2]
    live = named(module, name) if isinstance(module, str) and isinstance(name, str) else MISSING
    if isinstance(live, type):
        _untouched.add(live)
        return live
    made = make(*parts)
    _untouched.discard(made)
    return made


def _set_state(apply: Callable[[object, object], object], cls: object, state: object) -> object:
    return cls if cls in _untouched else apply(cls, state)


def load(
    data: Buffer, buffers: Sequence[Buffer] = (), inputs: Sequence[object] = ()
) -> codec.Arguments:
    """Unpickle with the program's own classes."""
    return codec.decode_arguments(data, buffers, inputs, _load)


def function_of(data: Buffer, buffers: Sequence[Buffer]) -> Callable[..., object]:
    """Unpickle a function with the program's own classes."""
    function: Callable[..., object] = Loader(io.BytesIO(data), buffers=buffers).load()
    return function


def _load(data: Buffer, buffers: Sequence[Buffer]) -> codec.Arguments:
    loaded: codec.Arguments = Loader(io.BytesIO(data), buffers=buffers).load()
    return loaded
