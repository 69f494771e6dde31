"""Whether a pickle names something of ``__main__``: the exact answer, for one that has that text.

Texts such as a filter of warnings have it too, and scikit-learn sends these with each of its calls.
So the pickle is read as `pickle` does it, in C, but all that it names is `_Inert`, which takes
whatever is done to it: nothing of the program is called. Where that does not work out, its
operations are looked at one by one, which takes twenty times as long. Called by
`mars.code.pickling`.
"""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from io import BytesIO


class _Inert:
    """In the place of each function, class and object."""

    __slots__ = ()

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return object.__new__(cls)

    def _take(self, *args: object, **kwargs: object) -> _Inert:
        return self

    __call__ = __setstate__ = append = extend = add = __setitem__ = _take


class _Found(Exception):
    """There is such a name."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Inert]:
        if module == "__main__":
            raise _Found
        return _Inert

    def persistent_load(self, pid: object) -> _Inert:
        return _Inert()


def names_main(data: bytes) -> bool:
    """Whether a pickle of protocol 5 refers to something by a name in ``__main__``."""
    try:
        _Reader(BytesIO(data), buffers=itertools.repeat(b"")).load()
    except _Found:
        return True
    except Exception:  # such as a class that a call makes, of which an object is made
        return by_operations(data)
    return False


def by_operations(data: bytes) -> bool:
    """`names_main`, whatever the pickle does with what it names."""
    import pickletools

    # The two texts before `STACK_GLOBAL` are a module and a name; they may be repeated ones.
    last: deque[object] = deque((None, None), 2)
    memo: list[object] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "MEMOIZE":
            memo.append(last[-1])
        elif isinstance(argument, int) and opcode.name in ("BINGET", "LONG_BINGET"):
            last.append(memo[argument])
        elif opcode.name == "STACK_GLOBAL" and last[0] == "__main__":
            return True
        elif isinstance(argument, str):
            last.append(argument)
    return False


__all__ = ["by_operations", "names_main"]
