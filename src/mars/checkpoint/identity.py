"""What a call is, in whatever process, file or notebook cell it stands: the facts, and their keys.

A call is its function, its arguments, the calls that make its inputs, and its place among equal
calls. `mars.checkpoint.identifier` finds these facts out. Pure. Called by all who compare calls.
"""

from __future__ import annotations

import marshal
from hashlib import blake2b
from types import CodeType
from typing import Final

from mars.code.modules import Source
from mars.task import Call

KEY_BYTES: Final = 16
"""Size of the key of a call."""

PART_BYTES: Final = 8
"""Size of the digest of one argument, or of one part of a function."""


class Unidentified(Exception):
    """A value has no content that another process could recognize.

    Parameters
    ----------
    path : str
        Where it was met.
    reason : str
        What is in the way.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Code:
    """What a function amounts to.

    Attributes
    ----------
    digest : bytes
        Equal for functions that do the same.
    parts : dict
        What the digest is made of, by name: digests of code and values, versions of packages. They
        are there for `mars runs why`.
    codes : dict
        Code objects by the name of their part, to show where they changed.
    parameters : tuple of str
        Names of its positional parameters.
    draws : bool
        Whether it may ask for `mars.remote.rng`, whose numbers depend on a call's place.
    lasting : bool
        Whether all of it is in the function's pickle. If not, a file or a module may have changed
        when the function is needed again.
    sources : tuple of Source
        Modules of the project that the function imports.
    """

    __slots__ = ("codes", "digest", "draws", "lasting", "parameters", "parts", "sources")

    def __init__(self) -> None:
        self.digest = b""
        self.parts: dict[str, str] = {}
        self.codes: dict[str, CodeType] = {}
        self.parameters: tuple[str, ...] = ()
        self.draws = False
        self.lasting = True
        self.sources: tuple[Source, ...] = ()


class Identity:
    """What one call is.

    Attributes
    ----------
    key : bytes
        16 bytes that only an equal call has.
    code : Code
        Of its function.
    arguments : bytes
        8 bytes for each argument.
    names : tuple of str
        Names of the arguments that are given by name. These come last.
    inputs : tuple of (bytes, int)
        Keys of the calls that make its inputs, and which value of each.
    ordinal : int
        How many equal calls came before it.
    place : tuple of int
        Where it is among the calls of its session.
    counted : bool
        Whether a run has already counted it as reused.
    """

    __slots__ = ("arguments", "code", "counted", "inputs", "key", "names", "ordinal", "place")

    def __init__(
        self,
        key: bytes,
        code: Code,
        arguments: bytes,
        names: tuple[str, ...],
        inputs: tuple[tuple[bytes, int], ...],
        ordinal: int,
        place: tuple[int, ...],
    ) -> None:
        self.key, self.code, self.arguments, self.names = key, code, arguments, names
        self.inputs, self.ordinal, self.place = inputs, ordinal, place
        self.counted = False


class MapIdentity:
    """What each item of a map is.

    Attributes
    ----------
    code : Code
        Of their function.
    keys, arguments : bytearray
        For each item its key, and a digest of its arguments; zeros for an item without a key.
    """

    __slots__ = ("arguments", "code", "keys")

    def __init__(self, code: Code, keys: bytearray, arguments: bytearray) -> None:
        self.code, self.keys, self.arguments = code, keys, arguments

    def key(self, item: int) -> bytes:
        """Return the key of one item."""
        return bytes(self.keys[16 * item : 16 * item + 16])


def base_key(
    code: Code,
    arguments: bytes,
    names: tuple[str, ...],
    inputs: tuple[tuple[bytes, int], ...],
    n_output: int | None,
    depends: bytes,
    draw: bytes,
) -> bytes:
    """Return the key of the first of several equal calls."""
    if inputs or names:
        data = marshal.dumps((names, inputs, n_output, depends, draw), 2)
    else:
        data = marshal.dumps((n_output, depends, draw), 2)
    return blake2b(
        b"%b%d:%b%b" % (code.digest, len(arguments), arguments, data), digest_size=KEY_BYTES
    ).digest()


def key_of(base: bytes, ordinal: int) -> bytes:
    """Return the key of the call that has ``ordinal`` equal ones before it."""
    if not ordinal:
        return base
    return blake2b(b"%b%d" % (base, ordinal), digest_size=KEY_BYTES).digest()


def place_of(call: Call) -> tuple[int, ...]:
    """Return where a call is among those of its session."""
    place = call.place
    if place is None:
        return (0,)
    return place if isinstance(place, tuple) else (place,)
