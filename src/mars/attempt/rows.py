"""Arguments of many calls of one function, each pickled by itself when it is given.

So an item of a map is taken as the arguments of a `spawn` are: a later change is not seen, an
object that several items share is each item's own, and one that does not unpickle spoils no
other. Classes and functions of the program would stand in each of these pickles. They stand in
one beside them, `shared`, and an item refers to them by numbered places. Items are taken for
`mars.calls.maps`, and given back in workers and where a checkpoint is read.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain, islice, repeat
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mars.attempt import codec
from mars.code import places
from mars.code.modules import is_installed
from mars.code.pickling import names_main
from mars.code.special import handler_of
from mars.settings import ROW_DEPTH, ROWS_AT_ONCE

if TYPE_CHECKING:
    from mars.attempt.codec import Arguments
    from mars.task import Buffer

Row = bytes | tuple[bytes, "Sequence[Buffer]"]
"""Pickle of ``(args, {})``, and its large buffers if it has any."""

_FIXED: Final = frozenset({bool, int, float, complex, str, bytes, type(None), range})
_FIXED_BY_NAME: Final = frozenset({
    "datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta", "decimal.Decimal",
    "fractions.Fraction", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath",
    "pathlib.WindowsPath", "uuid.UUID",
})  # fmt: skip
_HOLDERS: Final = frozenset({tuple, frozenset})


def is_fixed(values: Iterable[object]) -> bool:
    """Whether none of the values can change: numbers, texts and the like, and tuples of such.

    One that cannot need not be taken before it is sent.
    """
    level: Iterable[object] = values
    for _ in range(ROW_DEPTH):
        try:
            kinds = set(map(type, level))
        except TypeError:  # a metaclass whose classes have no hash
            return False
        if not all(kind in _HOLDERS or _is_fixed_type(kind) for kind in kinds):
            return False
        if not kinds & _HOLDERS:
            return True
        held = [one for one in level if type(one) is tuple or type(one) is frozenset]
        level = list(chain.from_iterable(held))
    return False


def _is_fixed_type(kind: type) -> bool:
    if kind in _FIXED:
        return True
    if kind.__module__ == "numpy":
        numpy = sys.modules["numpy"]
        return issubclass(kind, (numpy.number, numpy.bool_, numpy.str_, numpy.bytes_))
    return f"{kind.__module__}.{kind.__qualname__}" in _FIXED_BY_NAME


_CODE: Final = (FunctionType, type, type(lru_cache(len)))
_NO_KWARGS: Final[dict[str, object]] = {}  # never changed


class _NotPlain(Exception):
    pass


class _Pickler(pickle.Pickler):
    """Puts places where code of the program stands; used for many rows."""

    def __init__(self, file: io.BytesIO, keep: codec.Keep, code: list[object]) -> None:
        super().__init__(file, 5, buffer_callback=keep)
        self._code = code
        # Of values: whether they are code; None: whether they have a name if they have no content.
        self._kinds: dict[type, bool | None] = {}
        self._places: dict[
            int, object
        ] = {}  # of code, by id; NotImplemented: it travels by its name

    def reducer_override(self, value: object, /) -> Any:  # as typeshed has it
        kind = type(value)
        try:
            is_code = self._kinds[kind]
        except (KeyError, TypeError):  # it is new, or its metaclass makes classes without a hash
            is_code = self._look_at(kind)
            with contextlib.suppress(TypeError):
                self._kinds[kind] = is_code
        if not is_code:
            if is_code is None and not getattr(value, "__dict__", None):
                raise _NotPlain  # it may be one that modules know by its name
            return NotImplemented
        place = self._places.get(id(value))
        if place is None:
            place = NotImplemented
            if not is_installed(value):
                place = places.numbered(len(self._code))
                self._code.append(value)  # and so its id stays its own
            self._places[id(value)] = place
        return place

    def _look_at(self, kind: type) -> bool | None:
        if issubclass(kind, _CODE):
            return True
        handler = handler_of(kind)
        if handler == "singleton":
            return None
        if handler:
            raise _NotPlain  # it has its own way to travel
        return False


class _Refuser(pickle.Pickler):
    """Refuses all but values and containers of Python's own."""

    def reducer_override(self, value: object, /) -> NoReturn:
        raise _NotPlain


def _plain_rows(part: Sequence[tuple[object, ...]]) -> list[bytes] | None:
    """Rows of what are values and containers of Python's own alone; None: there is more in them."""
    try:
        rows = list(map(pickle.dumps, zip(part, repeat(_NO_KWARGS), strict=False), repeat(5)))
        if codec.GLOBAL_REFERENCE in b"".join(rows):  # or a number or a text has that byte
            _Refuser(io.BytesIO(), 5).dump(part)
    except Exception:
        return None
    return rows


class Rows:
    """The arguments of many calls, as they were when they were taken.

    Attributes
    ----------
    rows : list of Row or None
        One for each call; None for those that hold objects of `mars.remote`.
    with_objects : list of int
        Which these are.
    shared : Row or None
        What rows refer to.
    plain : bool
        Whether all rows hold values and containers of Python's own alone: to load them runs no code
        and cannot fail.
    """

    def __init__(
        self, shared: Row | None = None, rows: Iterable[Row | None] = (), plain: bool = False
    ) -> None:
        self.rows = list(rows)
        self.shared = shared
        self.plain = plain
        self.with_objects: list[int] = []
        self._code: list[object] = []  # what rows refer to

    def take(self, arguments: Callable[[], Iterable[tuple[object, ...]]]) -> None:
        """Take the positional arguments of each call.

        ``arguments`` is called twice if what they refer to cannot stand beside them.

        Raises
        ------
        Exception
            Whatever pickling raises, for the call after the last one in `rows`.
        """
        self._take(arguments(), shares=True)
        if not self._code:
            return
        try:
            data, buffers, found = codec.encode_arguments((self._code,), _NO_KWARGS)
            if found:
                raise codec.HoldsObject
        except Exception:  # a closure that holds an object, say
            self.rows, self.with_objects, self._code = [], [], []
            self._take(arguments(), shares=False)
        else:
            self.shared = (data, buffers) if buffers else data

    def _take(self, arguments: Iterable[tuple[object, ...]], shares: bool) -> None:
        rows, keep, file = self.rows, codec.Keep(), io.BytesIO()
        pickler = _Pickler(file, keep, self._code)
        self.plain = True
        waiting = iter(arguments)
        with places.collecting(keep.found):
            while part := list(islice(waiting, ROWS_AT_ONCE)):
                plain = _plain_rows(part) if self.plain else None
                if plain is not None and not keep.found:
                    rows += plain
                    continue
                self.plain = False  # most likely others, too, so nobody looks at all of them again
                for args in part:
                    keep.restart()
                    data = self._encode(args, keep, pickler if shares else None, file)
                    if keep.found:
                        self.with_objects.append(len(rows))
                        rows.append(None)
                    else:
                        rows.append((data, tuple(keep.buffers)) if keep.buffers else data)

    @staticmethod
    def _encode(
        args: tuple[object, ...], keep: codec.Keep, pickler: _Pickler | None, file: io.BytesIO
    ) -> bytes:
        if pickler is not None:
            file.seek(0)
            file.truncate()
            pickler.clear_memo()
            # If it fails: the pickler for calls takes more, and its error is the better one.
            with contextlib.suppress(Exception):
                pickler.dump((args, _NO_KWARGS))
                data = file.getvalue()
                if not keep.found and not names_main(data):
                    return data
            keep.restart()
        data, buffers, found = codec.encode_arguments(args, _NO_KWARGS)
        keep.buffers[:], keep.found[:] = buffers, found
        return data

    def arguments(self, index: int) -> tuple[object, ...]:
        """Arguments of one call, with the program's own classes, to be looked at."""
        data, buffers = parts(self.rows[index])
        return codec.decode_arguments(data, buffers, self._code)[0]

    def loaded(self, index: int) -> tuple[object, ...]:
        """Fresh arguments of one call, as another process would have them."""
        data, buffers = parts(self.rows[index])
        shared: Sequence[object] = ()
        if self.shared is not None:
            content, large = parts(self.shared)
            shared = _beside(content, codec.copies(large), codec.loads)
        return codec.decode_arguments(data, codec.copies(buffers), shared)[0]

    def alone(self, index: int) -> tuple[bytes, Sequence[Buffer]]:
        """The arguments of one call as a pickle that needs nothing beside it, and buffers."""
        data, buffers = parts(self.rows[index])
        if self._code:
            args, kwargs = codec.decode_arguments(data, buffers, self._code)
            data, buffers, _ = codec.encode_arguments(args, kwargs)
        return data, buffers

    def block(self, indices: Sequence[int]) -> tuple[bytes, Sequence[Buffer]]:
        """Some calls, as one pickle and large buffers; `unpacked` gives them back."""
        if isinstance(indices, range):
            return packed(self.shared, self.rows[indices.start : indices.stop])
        return packed(self.shared, [self.rows[index] for index in indices])


def parts(row: Row | None) -> tuple[bytes, Sequence[Buffer]]:
    """A row as its pickle and its buffers."""
    assert row is not None
    return row if isinstance(row, tuple) else (row, ())


def packed(shared: Row | None, rows: Sequence[Row | None]) -> tuple[bytes, list[Buffer]]:
    """What rows share, and the rows, as one pickle and large buffers."""
    buffers: list[Buffer] = []
    counted: list[bytes | tuple[bytes, int] | None] = []
    for row in (shared, *rows):
        if isinstance(row, tuple):
            buffers.extend(row[1])
            counted.append((row[0], len(row[1])))
        else:
            counted.append(row)
    return pickle.dumps(counted, 5), buffers


def unpacked(
    data: Buffer, buffers: Sequence[Buffer], load: Callable[..., Arguments] = codec.loads
) -> tuple[Sequence[object], list[Row]]:
    """What rows share, loaded, and the rows; from what `packed` made."""
    left = iter(buffers)
    first, *counted = pickle.loads(data)
    shared: Sequence[object] = ()
    if first is not None:
        content, count = first if isinstance(first, tuple) else (first, 0)
        shared = _beside(content, list(islice(left, count)), load)
    rows: list[Row] = [
        (row[0], [next(left) for _ in range(row[1])]) if isinstance(row, tuple) else row
        for row in counted
    ]
    return shared, rows


def _beside(
    data: bytes, buffers: Sequence[Buffer], load: Callable[..., Arguments]
) -> Sequence[object]:
    """What stands beside rows."""
    (shared,), _ = load(data, buffers=buffers)
    assert isinstance(shared, list)
    return shared


__all__ = ["Row", "Rows", "is_fixed", "packed", "parts", "unpacked"]
