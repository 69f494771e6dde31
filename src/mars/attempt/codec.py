"""Values to pickles and back, with inputs as numbered places and large buffers kept apart.

Pickling is also how inputs are found: an `Output` met while arguments are pickled becomes a
place, whatever container it sits in, and no container is rebuilt. The worker puts the values
back while it unpickles. Called by `mars.calls.spawn` (arguments), by the attempt (results) and by
whoever reads a result.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, cast

from mars.code.places import HoldsObject, note_in, numbered, place_of, stand_for
from mars.settings import BUFFER_BYTES, FEW_INPUTS
from mars.task import Output

if TYPE_CHECKING:
    from mars.task import Buffer

    Arguments = tuple[tuple[object, ...], dict[str, object]]
    """Positional arguments, and those with a name."""

loads = pickle.loads

GLOBAL_REFERENCE: Final = b"\x93"
"""STACK_GLOBAL: the only way protocol 5 names a class."""

_PLAIN: Final = frozenset({bool, int, float, str, bytes, type(None)})
"""Types whose values hold no output, no buffer and no class."""

_SIMPLE: Final = _PLAIN | {list, tuple, dict, set, frozenset}
"""Types whose values are pickled at once, and looked at only if a class was met."""

_NO_BUFFERS: Final[list[pickle.PickleBuffer]] = []
_NO_OUTPUTS: Final[list[Output]] = []
_EMPTY: Final = pickle.dumps(((), {}), 5)
"""No arguments at all."""


class Keep:
    """Collects what one pickle leaves out: large buffers, and the outputs it met.

    Parameters
    ----------
    least_bytes : int, default `BUFFER_BYTES`
        What is smaller stays in the pickle.
    """

    def __init__(self, least_bytes: int = BUFFER_BYTES) -> None:
        self.least_bytes = least_bytes
        self.buffers: list[pickle.PickleBuffer] = []
        self.found: list[Output] = []

    def restart(self) -> None:
        """Forget all: the pickle is made again from the beginning."""
        self.buffers.clear()
        self.found.clear()

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            size = buffer.raw().nbytes
        except BufferError:  # not contiguous: numpy sends such arrays in band
            return True
        if size < self.least_bytes:
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
    if type(value) in _SIMPLE:
        data = _simply(value, keep)
        if data is not None:
            return data, keep.buffers
    from mars.code.pickling import dumps  # late: many workers return nothing that needs it

    return dumps(value, keep), keep.buffers


def _simply(value: object, keep: Keep) -> bytes | None:
    """A pickle of a value that holds no class; None: it does, or does not pickle so."""
    try:
        data = pickle.dumps(value, 5, buffer_callback=keep)
    except Exception:  # what plain pickle refuses, the pickler for code may take
        return None
    return None if GLOBAL_REFERENCE in data else data


def encode_in_band(value: object) -> bytes:
    """Pickle a value with all its buffers inside.

    Raises
    ------
    Exception
        Whatever the value's pickling raises.
    """
    from mars.code.keepers import InBand
    from mars.code.pickling import dumps

    return dumps(value, InBand())


def encode_arguments(
    args: tuple[object, ...],
    kwargs: dict[str, object],
    least_bytes: int = BUFFER_BYTES,
    function: object = None,
) -> tuple[bytes, list[pickle.PickleBuffer], list[Output]]:
    """Pickle arguments; outputs among them, however deep, come back in the order of their places.

    Buffers from ``least_bytes`` on come back apart, uncopied. ``function`` is what gets them, if it
    was described just now: what it reaches goes with it.

    Raises
    ------
    Exception
        Whatever the pickling of a value raises.
    """
    if not kwargs:
        if not args:
            return _EMPTY, _NO_BUFFERS, _NO_OUTPUTS
        for value in args:
            if type(value) not in _PLAIN:
                break
        else:
            return pickle.dumps((args, kwargs), 5), _NO_BUFFERS, _NO_OUTPUTS
        if isinstance(args[0], Output) and (data := _of_outputs(args)) is not None:
            found = cast("list[Output]", [*args])
            makers = _makers(found, function)
            return _beside_makers(data, Keep(), makers) if makers else data, _NO_BUFFERS, found
    keep = Keep(least_bytes)
    outer = note_in(keep.found)
    try:
        if _are_simple(args) and (not kwargs or _are_simple(kwargs.values())):
            data = _simply((args, kwargs), keep)
            if data is not None:
                makers = _makers(keep.found, function)
                if makers:
                    data = _beside_makers(data, keep, makers)
                return data, keep.buffers, keep.found
        from mars.code.pickling import dumps_arguments

        data = dumps_arguments((args, kwargs), keep, lambda: _makers(keep.found, function))
    finally:
        note_in(outer)
    return data, keep.buffers, keep.found


def _of_outputs(args: tuple[object, ...]) -> bytes | None:
    """The pickle of arguments that are outputs and nothing else, as those of a chain or a tree.

    It does not depend on them, so no output has to be asked. None: there are others among them,
    or one of them twice, which has one place.
    """
    count = len(args)
    if count > 1 and not (all(map(_is_output, args)) and len(set(args)) == count):
        return None
    data = _places.get(count)
    if data is None:
        data = pickle.dumps((tuple(map(_Place, range(count))), {}), 5)
        if count <= FEW_INPUTS:
            _places[count] = data
    return data


_places: Final[dict[int, bytes]] = {}


class _Place:
    """Pickles as an output does."""

    def __init__(self, position: int) -> None:
        self._position = position

    def __reduce__(self) -> tuple[object, ...]:
        return numbered(self._position)


def _is_output(value: object) -> bool:
    return isinstance(value, Output)


def _beside_makers(data: bytes, keep: Keep, makers: list[object]) -> bytes:
    from mars.code.pickling import beside_makers  # late: as in `encode`

    return beside_makers(data, keep, makers)


def _makers(found: Iterable[Output], function: object) -> list[object]:
    """The functions that make outputs, if they refer to modules of the project.

    Classes of the project whose objects these outputs are have to be what they are now.
    """
    makers: dict[int, object] = {}
    for output in found:
        origin = output.call.function.origin
        maker = None if origin is None else origin()
        if maker is not None and maker is not function:
            makers[id(maker)] = maker
    return list(makers.values())


def _are_simple(values: Iterable[object]) -> bool:
    """Whether a first look at values tells that they may hold no class."""
    for value in values:
        kind = type(value)
        if kind not in _SIMPLE and not issubclass(kind, Output):
            return False
    return True


def copies(buffers: Iterable[Buffer]) -> list[bytearray]:
    """Fresh copies of buffers, for a value that may be changed."""
    return [bytearray(pickle.PickleBuffer(buffer).raw()) for buffer in buffers]


def decode_arguments(
    data: Buffer,
    buffers: Sequence[Buffer],
    inputs: Sequence[object],
    load: Callable[..., Arguments] = loads,
) -> Arguments:
    """Arguments for one attempt, with ``inputs`` in their places."""
    if not inputs:
        return load(data, buffers=buffers)
    before = stand_for(inputs)
    try:
        return load(data, buffers=buffers)
    finally:
        stand_for(before)


__all__ = [
    "GLOBAL_REFERENCE", "HoldsObject", "Keep", "copies", "decode_arguments", "encode",
    "encode_arguments", "encode_in_band", "loads", "place_of",
]  # fmt: skip
