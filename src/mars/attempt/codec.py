"""Values to pickles and back, with inputs as numbered places and large buffers kept apart.

Pickling is also how inputs are found: an `Output` met while arguments are pickled becomes a
place, whatever container it sits in, and no container is rebuilt. The worker puts the values
back while it unpickles. Called by `mars.remote` (arguments), by the attempt (results) and by
whoever reads a result.
"""

from __future__ import annotations

import copyreg
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from mars.attempt import code
from mars.settings import BUFFER_BYTES

loads = pickle.loads

GLOBAL_REFERENCE: Final = b"\x93"
"""STACK_GLOBAL: the only way protocol 5 names a class."""


class _Current(threading.local):
    found: list[Any] | None = None  # outputs met while arguments are pickled
    inputs: Sequence[object] = ()  # values for the places while they are unpickled


_current = _Current()


def _input(position: int) -> object:
    """Stand for an input inside a pickle; the unpickler calls it."""
    return _current.inputs[position]


# An extension code keeps a place at 4 bytes and, above all, free of GLOBAL_REFERENCE, so that
# arguments that hold only plain values and outputs stay on the fast path below. Codes from 0xF0
# on are reserved for private use (PEP 307).
copyreg.add_extension(__name__, "_input", 0xF6)


class HoldsObject(TypeError):
    """An output is pickled where it cannot become an input."""


def place_of(output: object) -> tuple[Callable[[int], object], tuple[int]]:
    """What an output is inside a pickle; called by its ``__reduce__``.

    Raises
    ------
    TypeError
        The output is pickled by itself, not as an argument of a call.
    """
    found = _current.found
    if found is None:
        raise HoldsObject(
            "an Object stands for a value that a session holds, so it cannot be pickled by itself "
            "or be part of a result; pass it as an argument of spawn, or fetch() it first"
        )
    found.append(output)
    return _input, (len(found) - 1,)


_PLAIN: Final = frozenset({bool, int, float, str, bytes, type(None)})
"""Types whose values hold no output, no buffer and no class."""

_NOTHING: Final[list[Any]] = []


class Keep:
    """Collects what one pickle leaves out: large buffers, and the outputs it met."""

    def __init__(self) -> None:
        self.buffers: list[pickle.PickleBuffer] = []
        self.found: list[Any] = []

    def restart(self) -> None:
        """Forget all: the pickle is made again from the beginning."""
        self.buffers.clear()
        self.found.clear()

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            size = buffer.raw().nbytes
        except BufferError:  # not contiguous: numpy sends such arrays in band
            return True
        if size < BUFFER_BYTES:
            return True
        self.buffers.append(buffer)
        return False


def encode(value: object) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle a value; buffers from `BUFFER_BYTES` on come back apart, uncopied.

    Raises
    ------
    Exception
        Whatever the value's pickling raises.
    """
    keep = Keep()
    try:
        data = pickle.dumps(value, 5, buffer_callback=keep)
    except Exception:  # what plain pickle refuses, the pickler for code may take
        return code.dumps(value, keep), keep.buffers
    if GLOBAL_REFERENCE in data:
        data = code.dumps(value, keep)
    return data, keep.buffers


def encode_in_band(value: object) -> bytes:
    """Pickle a value with all its buffers inside.

    Raises
    ------
    Exception
        Whatever the value's pickling raises.
    """
    try:
        return pickle.dumps(value, 5)
    except Exception:  # as in encode
        return code.dumps(value, _InBand())


class _InBand(Keep):
    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        return True


def encode_arguments(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[bytes, list[pickle.PickleBuffer], list[Any]]:
    """Pickle arguments; outputs among them, however deep, come back in the order of their places.

    Raises
    ------
    Exception
        Whatever the pickling of a value raises.
    """
    if not kwargs:
        for value in args:
            if type(value) not in _PLAIN:
                break
        else:
            return pickle.dumps((args, kwargs), 5), _NOTHING, _NOTHING
    keep = Keep()
    outer, _current.found = _current.found, keep.found
    try:
        try:
            data = pickle.dumps((args, kwargs), 5, buffer_callback=keep)
        except Exception:  # as in encode
            return code.dumps((args, kwargs), keep), keep.buffers, keep.found
        if GLOBAL_REFERENCE in data:
            data = code.dumps((args, kwargs), keep)
        return data, keep.buffers, keep.found
    finally:
        _current.found = outer


def decode_arguments(
    data: bytes | memoryview,
    buffers: Sequence[Any],
    inputs: Sequence[object],
    load: Callable[..., Any] = loads,
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Arguments for one attempt, with ``inputs`` in their places."""
    if not inputs:
        return load(data, buffers=buffers)  # type: ignore[no-any-return]
    outer, _current.inputs = _current.inputs, inputs
    try:
        return load(data, buffers=buffers)  # type: ignore[no-any-return]
    finally:
        _current.inputs = outer
