"""Makes digests of a function and of the arguments of a call, out of their pickles.

Nothing of this runs unless a checkpoint asks. Called by `mars.checkpoint.identifier`.

::

    function  ─ unpickle ─► Walk ─► Code: a digest, and its parts for `mars runs why`
    arguments ─ unpickle ─► a Walk for each argument ─► digests
"""

from __future__ import annotations

import marshal
import pickle
import sys
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from mars.attempt import codec
from mars.checkpoint.identity import PART_BYTES, Code, Unidentified
from mars.checkpoint.loader import load
from mars.checkpoint.walk import SCALARS, Arrays, Place, Walk
from mars.code.arriving import new_world
from mars.code.world import visiting
from mars.settings import CHECKPOINT_FUNCTIONS
from mars.task import Call, Function

if TYPE_CHECKING:
    from collections.abc import Callable

    from mars.task import Buffer

_codes: dict[bytes, Code] = {}


def look_again() -> None:
    """Forget what depends on files and modules: they may have changed since the last time."""
    for key in [key for key, code in _codes.items() if not code.lasting]:
        del _codes[key]


def code_of(function: Function) -> Code:
    """Find out what a function amounts to.

    Raises
    ------
    Unidentified
        It reaches a value that has no content that lasts.
    """
    known = _codes.get(function.key)
    if known is not None:
        return known
    code = Code()
    code.parts["python"] = f"{sys.version_info[0]}.{sys.version_info[1]}"
    walk = Walk(code)
    walk.tag(code.parts["python"])
    try:
        # In a world of its own, modules are as they were when the function was spawned.
        with visiting(new_world(), unseen=True) as world:
            buffers = [pickle.PickleBuffer(x) for x in _raw(function.buffers)]
            value = codec.loads(function.data, buffers=buffers)
            walk.walk(value)
            code.sources = tuple(world.manifest.values())
    except Unidentified:
        raise
    except Exception as error:
        raise Unidentified(function.name, f"{type(error).__name__}: {error}") from error
    code.digest = walk.digest()
    code.parameters = tuple(_parameters(value))
    if not function.buffers:  # the key of a function with large parts is valid for one run only
        if len(_codes) >= CHECKPOINT_FUNCTIONS:
            _codes.clear()
        _codes[function.key] = code
    return code


def _raw(buffers: Sequence[Buffer]) -> Iterator[memoryview]:
    for buffer in buffers:
        yield buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)


def _parameters(func: Callable[..., object]) -> list[str]:
    import inspect

    try:
        return [
            name
            for name, parameter in inspect.signature(func).parameters.items()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return []


def arguments_of(call: Call, arrays: Arrays) -> tuple[bytes, tuple[str, ...], bool]:
    """Return digests of a call's arguments, their names, and whether code among them draws.

    Raises
    ------
    Unidentified
        An argument has no content that lasts.
    """
    payload, stored = call.payload, call.stored
    try:
        if stored is None and not call.inputs and codec.GLOBAL_REFERENCE not in payload:
            args, kwargs = codec.loads(payload)  # plain values only: no class is named in there
        else:
            buffers = [x for x in stored or () if x is not payload]
            places = [Place(number) for number in range(len(call.inputs))]
            if _OURS in payload:  # classes and functions of the program, as they were at spawn
                with visiting(new_world(), unseen=True):
                    args, kwargs = load(payload, list(_raw(buffers)), places)
                    return digests_of(args, kwargs, arrays)
            args, kwargs = load(payload, list(_raw(buffers)), places)
    except Unidentified:
        raise
    except Exception as error:
        raise Unidentified("its arguments", f"{type(error).__name__}: {error}") from error
    return digests_of(args, kwargs, arrays)


def plain_arguments(call: Call) -> Sequence[object]:
    """The arguments of a call, if looking at them needs no code of the program; else none."""
    payload, stored = call.payload, call.stored
    if stored is not None or _OURS in payload:
        return ()
    if codec.GLOBAL_REFERENCE in payload and b"pathlib" not in payload:
        return ()
    try:
        args, kwargs = load(payload, [], [Place(number) for number in range(len(call.inputs))])
    except Exception:  # noqa: BLE001  # whoever runs the call sees why
        return ()
    return (*args, *kwargs.values())


_OURS: Final = b"mars.code."
"""Stands in pickles that hold definitions, or what modules of the project held."""


def digests_of(
    args: Sequence[object], kwargs: dict[str, object], arrays: Arrays
) -> tuple[bytes, tuple[str, ...], bool]:
    """Do what `arguments_of` does, for arguments that are not pickled."""
    digests = []
    draws = False
    dumps = marshal.dumps
    for position, value in enumerate((*args, *kwargs.values()) if kwargs else args):
        if type(value) in SCALARS:
            known = dumps(value, 2)  # type: ignore[arg-type]  # it is a scalar
            digests.append(blake2b(known, digest_size=PART_BYTES).digest())
            continue
        code = Code()
        walk = Walk(code, arrays)
        walk.walk(value, f"args[{position}]")
        digests.append(walk.digest()[:PART_BYTES])
        draws |= code.draws
    return b"".join(digests), tuple(kwargs) if kwargs else (), draws
