"""How a batch travels: its pickle, and its large buffers, which all batches of a loop share.

::

    batch ──► pickle ──────────────────────────► an argument of its call
          └─► large buffers ──► put, once each ─► objects, further arguments

Where in a batch an array stands does not matter: in an argument, in an estimator, in a data frame
or in the object whose method is called. Called by `mars.joblib.flight`.
"""

from __future__ import annotations

import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mars.attempt import codec
from mars.calls.put import put
from mars.sessions.session import Session
from mars.settings import JOBLIB_SHARED_BYTES


class Packed(NamedTuple):
    """A batch, ready to travel."""

    data: bytes
    buffers: list[object]
    values: Sequence[object]


class Sharing:
    """The large buffers of the batches of one loop, each stored once.

    A buffer is known by the memory that it has. What was stored for it goes with the object that
    owns this memory, so a loop over large arrays that come and go does not fill the memory.

    A *large* buffer counts as it was when the loop first met it, as joblib has it. Of a smaller one
    joblib takes what it holds at each batch. So these are compared with what was stored, which
    takes a tenth of the time that sending them again would.

    Parameters
    ----------
    session : Session
        Where they are stored.
    least_bytes : int or None
        From this size on a buffer is large, in bytes. None: nothing is shared.
    """

    def __init__(self, session: Session, least_bytes: int | None) -> None:
        self._session = session
        self._large_bytes = sys.maxsize if least_bytes is None else least_bytes
        self._least_bytes = min(self._large_bytes, JOBLIB_SHARED_BYTES)
        if least_bytes is None:
            self._least_bytes = sys.maxsize
        # By memory: who owns it, what is stored of it, and what a small one held then.
        self._known: dict[tuple[int, int], tuple[object, object, bytes | None]] = {}
        self._lock = threading.Lock()

    def pack(self, items: object) -> Packed:
        """Pickle the items of a batch.

        Raises
        ------
        Exception
            Whatever its pickling raises.
        StoreFull
            There is no room for a large buffer.
        """
        data, buffers, found = codec.encode_arguments((items,), {}, self._least_bytes)
        return Packed(data, [self._object_of(buffer) for buffer in buffers], found)

    def _object_of(self, buffer: pickle.PickleBuffer) -> object:
        view = buffer.raw()
        key = _address(view), view.nbytes
        with self._lock:
            known = self._known.get(key)
            if known is None or (known[2] is not None and known[2] != view.tobytes()):
                copy = view.tobytes() if view.nbytes < self._large_bytes else None
                made = put(_plain(view), session=self._session)
                self._known[key] = known = self._held(_owner(view.obj), key), made, copy
        return known[1]

    def _held(self, owner: object, key: tuple[int, int]) -> object:
        """What is kept of the owner of memory: a weak reference, if that is possible."""
        known = self._known  # and not this object, which a reference would keep
        forget: Callable[[object], object] = lambda _: known.pop(key, None)
        try:
            return weakref.ref(owner, forget)
        except TypeError:
            return owner


def _address(view: memoryview) -> int:
    """Where memory begins."""
    numpy = sys.modules.get("numpy")
    return id(view.obj) if numpy is None else int(numpy.frombuffer(view, "u1").ctypes.data)


def _plain(view: memoryview) -> object:
    """Memory as a value that pickles, and that a checkpoint knows by its content."""
    numpy = sys.modules.get("numpy")
    return bytearray(view) if numpy is None else numpy.frombuffer(view, "u1")


def _owner(exporter: object) -> object:
    """Who owns the memory that an array shows: a view of it may be gone in a moment."""
    while (below := getattr(exporter, "base", None)) is not None:
        exporter = below.obj if isinstance(below, memoryview) else below
    return exporter


__all__ = ["Packed", "Sharing"]
