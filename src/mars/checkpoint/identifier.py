"""Gives each call of a session its identity, before a run.

Calls are looked at in the order in which an undisturbed run would go. So equal calls, and places
for random numbers, are counted alike however much a checkpoint has already. Called by
`mars.checkpoint.checkpoint`.
"""

from __future__ import annotations

import marshal
import threading
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final

from mars.calls.held import HeldCall
from mars.calls.maps import ItemCall, MapCall
from mars.checkpoint import declared, digests
from mars.checkpoint.identity import (
    Code,
    Identity,
    MapIdentity,
    Unidentified,
    base_key,
    key_of,
    place_of,
)  # fmt: skip
from mars.checkpoint.journal import NO_ITEM
from mars.checkpoint.walk import Arrays
from mars.task import Call

UNKNOWN: Final = object()
"""The identity of a call that was never asked for."""


class Identifier:
    """Gives calls their identities, and counts equal ones.

    Parameters
    ----------
    tell : callable
        Takes lines for the user, about calls that cannot be kept.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._told: set[str] = set()  # names of functions
        self._ordinals: dict[bytes, int] = {}  # how many calls have had a key
        self._lock = threading.RLock()  # what is unpickled may ask for calls

    def identify(self, calls: Iterable[Call], entropy: int | None) -> None:
        """Give calls their identities. In ``calls`` inputs come before the calls that need them."""
        arrays = Arrays()
        digests.look_again()
        declared.look_again()
        with self._lock:
            for call in calls:
                self._identify(call, entropy, arrays)

    def _identify(self, call: Call, entropy: int | None, arrays: Arrays) -> None:
        if hasattr(call, "identity"):  # it was asked before
            known = self.of(call)
            if known is not UNKNOWN and not (known is not None and known.code.draws):
                return
        for source, _ in call.inputs:
            if self.of(source) is UNKNOWN:  # it was done before this session had the checkpoint
                self._identify_all(source, entropy, arrays)
        found: Identity | MapIdentity | None = None
        if call.options.cache:
            try:
                found = self._made(call, entropy, arrays)
            except Unidentified as error:
                self._not_kept(call, error)
        call.identity = (self, found)

    def _identify_all(self, last: Call, entropy: int | None, arrays: Arrays) -> None:
        pending = [last]
        while pending:
            call = pending[-1]
            missing = [one for one, _ in call.inputs if self.of(one) is UNKNOWN]
            if missing:
                pending.extend(missing)
                continue
            pending.pop()
            if self.of(call) is UNKNOWN:
                self._identify(call, entropy, arrays)

    def of(self, call: Call) -> Any:
        """Return the `Identity` or `MapIdentity` of a call; None: it is not kept; or `UNKNOWN`."""
        known = getattr(call, "identity", None)
        return known[1] if known is not None and known[0] is self else UNKNOWN

    def _not_kept(self, call: Call, error: Unidentified) -> None:
        name = call.function.name
        if name not in self._told:
            self._told.add(name)
            self._tell(
                f"mars: calls of {name} are not kept in the checkpoint: {error}. Pass what it is "
                f"made from, or say cache=False if they are to run each time."
            )

    def _made(
        self, call: Call, entropy: int | None, arrays: Arrays
    ) -> Identity | MapIdentity | None:
        if type(call) is Call:
            pass  # in most programs, all calls
        elif isinstance(call, HeldCall):
            return self._held(call, arrays)
        elif isinstance(call, MapCall):
            return self._map(call, entropy, arrays)
        elif isinstance(call, ItemCall) and not call.inputs:
            whole = call.map
            if self.of(whole) is UNKNOWN:
                self._identify(whole, entropy, arrays)
            of_map = self.of(whole)
            if of_map is None:
                return None
            key = of_map.key(call.index)
            if key == NO_ITEM:
                return None
            of_item = bytes(of_map.arguments[8 * call.index : 8 * call.index + 8])
            return Identity(key, of_map.code, of_item, (), (), 0, place_of(call))
        inputs = []
        for source, at in call.inputs:
            of_source = self.of(source)
            if not isinstance(of_source, Identity):
                return None  # an input is not kept, so neither is this call
            inputs.append((of_source.key, at))
        code = digests.code_of(call.function)
        arguments, names, draws = digests.arguments_of(call, arrays)
        draws |= code.draws
        place = place_of(call)
        draw = marshal.dumps((entropy, place), 2) if draws else b""
        depends = call.options.depends
        depending = b"" if depends is None else declared.value_digest(depends)
        of_inputs = tuple(inputs)
        base = base_key(code, arguments, names, of_inputs, call.n_output, depending, draw)
        # A call that draws random numbers is told from others by its place already.
        ordinal = 0 if draws else self._next(base)
        key = key_of(base, ordinal) if ordinal else base
        return Identity(key, code, arguments, names, of_inputs, ordinal, place)

    def _held(self, call: HeldCall, arrays: Arrays) -> Identity:
        """What a value is that the program has put: its content, in whatever session it is."""
        content, _, _ = digests.digests_of((call.value(),), {}, arrays)
        code = Code()
        code.digest = b"a value"
        return Identity(
            base_key(code, content, (), (), None, b"", b""), code, content, (), (), 0, ()
        )

    def _next(self, base: bytes) -> int:
        ordinal = self._ordinals.get(base, 0)
        self._ordinals[base] = ordinal + 1
        return ordinal

    def _map(self, call: MapCall, entropy: int | None, arrays: Arrays) -> MapIdentity:
        code = digests.code_of(call.function)
        depends = call.options.depends
        depending = b"" if depends is None else declared.value_digest(depends)
        (first,) = place_of(call) or (0,)
        keys, of_items = bytearray(16 * call.count), bytearray(8 * call.count)
        for index in range(call.count):
            if index in call.own:  # the item holds objects, and is a call of its own
                continue
            arguments, _, draws = digests.digests_of(call.arguments(index), {}, arrays)
            draws |= code.draws
            draw = marshal.dumps((entropy, (first, index)), 2) if draws else b""
            base = base_key(code, arguments, (), (), None, depending, draw)
            key = base if draws else key_of(base, self._next(base))
            keys[16 * index : 16 * index + 16] = key
            of_items[8 * index : 8 * index + 8] = (
                arguments if len(arguments) == 8 else blake2b(arguments, digest_size=8).digest()
            )
        return MapIdentity(code, keys, of_items)
