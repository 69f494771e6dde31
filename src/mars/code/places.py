"""Inputs inside a pickle: an output that is met there becomes a numbered place.

So inputs are found wherever pickle goes, and no container is rebuilt. Whoever reads the pickle says
which values the places stand for.
"""

from __future__ import annotations

import contextlib
import copyreg
import threading
from collections.abc import Callable, Iterator, Sequence

from mars.task import Output

Outputs = list[Output]
"""Outputs of calls."""


class _Current(threading.local):
    found: Outputs | None = None  # outputs met while arguments are pickled
    inputs: Sequence[object] = ()  # values for the places while they are unpickled
    whole: bool = False  # whether tensors and frames become plain values


_current = _Current()


def _input(position: int) -> object:
    """Stand for an input inside a pickle; the unpickler calls it."""
    return _current.inputs[position]


# An extension code keeps a place at 4 bytes and, above all, free of the opcode that names a class,
# so that arguments that hold only plain values and outputs stay on the fast path of `codec`. Codes
# from 0xF0 on are reserved for private use (PEP 307).
copyreg.add_extension(__name__, "_input", 0xF6)


class HoldsObject(TypeError):
    """An output is pickled where it cannot become an input."""


def place_of(output: Output) -> tuple[Callable[[int], object], tuple[int]]:
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


def is_collecting() -> bool:
    """Whether what is pickled now are arguments of a call, in which outputs become inputs."""
    return _current.found is not None


def are_whole() -> bool:
    """Whether tensors and frames that are pickled now arrive as plain arrays and frames."""
    return _current.whole


@contextlib.contextmanager
def whole_values() -> Iterator[None]:
    """Have tensors and frames among arguments arrive as plain arrays and frames."""
    outer, _current.whole = _current.whole, True
    try:
        yield
    finally:
        _current.whole = outer


def numbered(position: int) -> tuple[Callable[[int], object], tuple[int]]:
    """What stands for the value of a place inside a pickle, for a reducer."""
    return _input, (position,)


@contextlib.contextmanager
def collecting(found: Outputs | None) -> Iterator[None]:
    """Have outputs that are met noted in ``found``; None: refuse them."""
    outer = note_in(found)
    try:
        yield
    finally:
        note_in(outer)


def note_in(found: Outputs | None) -> Outputs | None:
    """From here on outputs that are met are noted in ``found``; gives back where they were before.

    As `collecting`, for whoever cannot afford a context manager.
    """
    before, _current.found = _current.found, found
    return before


def stand_for(inputs: Sequence[object]) -> Sequence[object]:
    """From here on places stand for these values, in this thread; gives back what they stood for.

    No context manager, as those cost as much as reading small arguments does.
    """
    before, _current.inputs = _current.inputs, inputs
    return before
