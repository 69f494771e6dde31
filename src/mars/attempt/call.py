"""Packs what came of a call: its outputs, or its failure.

All engines use this, so a result or an error looks the same in each. The engine itself calls the
function; in worker processes `mars.engines.worker.perform` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING

from mars.attempt import codec, context
from mars.errors import EncodeError
from mars.settings import INLINE_BYTES, LOG_TAIL_LINES
from mars.task import Value

if TYPE_CHECKING:
    from mars.task import Buffer

    Put = Callable[[Sequence[Buffer]], tuple[int, int, int, tuple[int, ...]]]
    """Copies the large parts of a value to an arena, and says where they are."""

_OWN_FILES = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,)


def apply(func: Callable[..., object], /, *args: object, **kwargs: object) -> object:
    """Call a function that came as an argument."""
    return func(*args, **kwargs)


def split_outputs(value: object, n_output: int | None) -> Sequence[object]:
    """The values of a call, as many as its ``n_output`` says.

    Raises
    ------
    TypeError
        The function did not return a sequence of values.
    ValueError
        It returned another number of values.
    """
    if n_output is None:
        return (value,)
    try:
        values: list[object] = list(value)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(
            f"Specifying n_output={n_output}, but result is not iterable, got {value!r:.200}"
        ) from None
    if len(values) != n_output:
        raise ValueError(f"Length of return value should be {n_output}, got {len(values)}")
    return values


def pack(value: object, name: str, put: Put) -> Value:
    """A value as engines keep it: small ones as their pickle, large ones through ``put``.

    Raises
    ------
    EncodeError
        It does not pickle; the message has the path of what does not.
    StoreFull
        No room is left for its large parts.
    """
    try:
        data, buffers = codec.encode(value)
    except Exception as error:
        raise encode_error(value, "result", name, error) from None
    return pack_encoded(data, buffers, put)


def pack_encoded(data: bytes, buffers: Sequence[Buffer], put: Put) -> Value:
    """As `pack`, of a value that has been pickled."""
    if not buffers:
        if len(data) <= INLINE_BYTES:
            return data
        return (None, *put((data,)))
    if len(data) <= INLINE_BYTES:
        return (data, *put(buffers))
    return (None, *put((data, *buffers)))


def encode_error(value: object, root: str, name: str, error: BaseException) -> EncodeError:
    """Which part of a value does not pickle, and why."""
    from mars.attempt import diagnose

    found = diagnose.find_unpicklable(value, root, codec.encode)
    if isinstance(value, CoroutineType):
        value.close()  # else it warns that nobody awaited it, in the log of a later call
    where, reason = found or (f"{root}: {type(value).__name__}", str(error))
    return EncodeError(name, where, reason)


def pack_failure(
    error: BaseException,
    *,
    name: str,
    arguments: tuple[tuple[object, ...], Mapping[str, object]] | None,
    attempt: int,
    where: str,
    printed: bytes,
) -> bytes:
    """Pack a failure as it travels: the exception with its frames, the call, and its last lines.

    ``printed`` is the end of what the call printed. The last `LOG_TAIL_LINES` lines of it are told.
    """
    from mars.attempt import diagnose, failure

    running = context.current()
    if running is not None and running.shown is not None:
        arguments = running.shown
    args, kwargs = arguments if arguments is not None else ((), {})
    described = diagnose.summarize_call(name, args, kwargs)
    notes = [f"attempt {attempt} on {where}"]  # completes "task <described> · "
    log_tail = "\n".join(printed.decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:])
    if log_tail:
        notes.append("its log ends with:\n" + "\n".join("  " + x for x in log_tail.splitlines()))
    return failure.encode_failure(error, call=described, notes=notes, skip_files=_OWN_FILES)
