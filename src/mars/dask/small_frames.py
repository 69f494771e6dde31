"""Small frames between calls: the parts that a shuffle cuts a table into, and the like.

To pickle a frame of a few rows takes 40 us and to load it 35 us, most of it for names and classes
that all parts of a table have in common. A shuffle of a hundred partitions makes ten thousand such
parts. So between two calls of one graph a small frame travels as the bytes of its blocks, beside a
*schema*, which is pickled once for all parts alike: columns, types, and the kind of the index.

A frame that is anything but plain numbers is left as it is: text, objects, categories, times,
several levels of rows, attributes, subclasses. So is every frame where pandas has no public
function that puts blocks together (before 3.0). The program never sees what is made here.

Called by `mars.dask.program`, in workers.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Final, Protocol

from mars.settings import DASK_SCHEMAS_KEPT, DASK_SMALL_FRAME_BYTES

if TYPE_CHECKING:
    from types import ModuleType

    from numpy import dtype, ndarray
    from pandas import DataFrame, Index

    Labels = bytes | tuple[int, int, int]
    # Places and types of the blocks of a frame, type and name of its index.
    Facts = tuple[list["Placement"], list[dtype], dtype | None, object]
    # The same as it is pickled, after the columns.
    Schema = tuple[Index, list[ndarray], list[dtype], dtype | None, object]

_MARK: Final = "mars.dask.small_frames 1"
"""The first item of the tuple that a frame travels as."""

_KINDS: Final = frozenset("biufc")
"""Kinds of numpy's types whose values are nothing but their bytes."""


class Placement(Protocol):
    """Which columns a block of pandas has."""

    @property
    def as_array(self) -> ndarray: ...


class Packer:
    """Makes of the values of one call what travels."""

    def __init__(self) -> None:
        self._columns: Index | None = None  # of the last frame, with their names
        self._names: object = None
        self._facts: Facts | None = None
        self._schema = b""

    def __call__(self, value: object) -> object:
        """The value as it travels: most often as it is."""
        pandas = sys.modules.get("pandas")
        if pandas is None or type(value) is not pandas.DataFrame:
            return value
        try:
            return self._packed(value, pandas)
        except AttributeError:  # a version of pandas that keeps it otherwise
            return value

    def _packed(self, frame: DataFrame, pandas: ModuleType) -> object:
        array = sys.modules["numpy"].ndarray
        manager = frame._mgr
        columns, index = manager.axes
        places: list[Placement] = []
        kinds: list[dtype] = []
        parts: list[ndarray] = []
        size = 0
        for block in manager.blocks:
            values = block.values
            if type(values) is not array or values.dtype.kind not in _KINDS:
                return frame
            size += values.nbytes
            places.append(block.mgr_locs)
            kinds.append(values.dtype)
            parts.append(values)
        if type(index) is pandas.RangeIndex:
            rows: Labels = (index.start, index.stop, index.step)
            kind = None
        elif type(index) is pandas.Index and type(index._values) is array:
            labels: ndarray = index._values
            if labels.dtype.kind not in _KINDS:
                return frame
            size += labels.nbytes
            kind = labels.dtype
            rows = labels.tobytes()
        else:
            return frame
        if size > DASK_SMALL_FRAME_BYTES or frame._attrs or frame._flags is None:
            return frame
        if not frame._flags.allows_duplicate_labels:
            return frame
        facts: Facts = (places, kinds, kind, index.name)
        known = (
            self._columns is not None
            and columns.is_(self._columns)  # also of a view, such as each slice has
            and columns.names == self._names
            and facts == self._facts
        )
        if not known:
            self._note(columns, facts)
        return _MARK, self._schema, rows, len(index), [part.tobytes() for part in parts]

    def _note(self, columns: Index, facts: Facts) -> None:
        from pandas.api.internals import create_dataframe_from_blocks  # noqa: F401  # is it there?

        places, kinds, kind, name = facts
        arrays = [one.as_array for one in places]
        self._schema = pickle.dumps((columns, arrays, kinds, kind, name), 5)
        self._columns, self._names, self._facts = columns, columns.names, facts


_schemas: dict[bytes, Schema] = {}
"""Schemas that have come, as this process has them."""


def unpacked(value: object) -> object:
    """What a value was before it travelled."""
    if type(value) is not tuple or len(value) != 5 or value[0] != _MARK:
        return value
    return _frame(*value[1:])


def _frame(schema: bytes, rows: Labels, count: int, parts: list[bytes]) -> object:
    import numpy
    import pandas
    from pandas.api.internals import create_dataframe_from_blocks

    known = _schemas.get(schema)
    if known is None:
        if len(_schemas) >= DASK_SCHEMAS_KEPT:
            _schemas.clear()
        known = _schemas[schema] = pickle.loads(schema)
    columns, places, types, kind, name = known
    # Of bytes an array could not be written to. Blocks lie as pandas has them: columns, then rows.
    blocks = [
        (numpy.frombuffer(bytearray(part), kind_of).reshape(len(at), count), at)
        for part, kind_of, at in zip(parts, types, places, strict=True)
    ]
    if isinstance(rows, tuple):
        index = pandas.RangeIndex(*rows, name=name)
    else:
        index = pandas.Index(numpy.frombuffer(bytearray(rows), kind), name=name)
    return create_dataframe_from_blocks(blocks, index, columns.view())


__all__ = ["Packer", "unpacked"]
