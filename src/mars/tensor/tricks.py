"""What numpy makes of an index: ``mt.r_[1:4, 0]``, ``mt.c_``, ``mt.mgrid`` and ``mt.ogrid``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mars.tensor.calling import fetched, lowered, whole
from mars.tensor.creation import tensor
from mars.tileables.tileable import wrap

if TYPE_CHECKING:
    from mars.tileables.tileable import Tileable

    Index = str | slice | tuple[str | slice | object, ...]


class _Joined:
    """``r_`` and ``c_``."""

    def __init__(self, columns: bool) -> None:
        self._columns = columns

    def __getitem__(self, items: object) -> object:
        import dask.array as da
        import numpy

        given = items if isinstance(items, tuple) else (items,)
        parts = []
        for one in given:
            if isinstance(one, str):
                return wrap(whole(_joined_by(self._columns), [given], {}))
            made = numpy.r_[one] if isinstance(one, slice) else lowered(one)
            made = da.atleast_1d(da.asarray(made))
            parts.append(made[:, None] if self._columns and made.ndim == 1 else made)
        return wrap(da.concatenate(parts, axis=-1 if self._columns else 0))


def _joined_by(columns: bool) -> Callable[[Index], object]:
    return _by_c if columns else _by_r


def _by_r(items: Index) -> object:
    import numpy

    return numpy.r_[items]


def _by_c(items: Index) -> object:
    import numpy

    return numpy.c_[items]


class _Grid:
    """``mgrid`` and ``ogrid``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, items: object) -> Tileable | list[Tileable]:
        import numpy

        items = _fetched_steps(items)
        made = getattr(numpy, self._name)[items]
        if isinstance(made, (list, tuple)):
            return [wrap(tensor(one)) for one in made]
        return wrap(tensor(made))


def _fetched_steps(items: object) -> object:
    if isinstance(items, tuple):
        return tuple(map(_fetched_steps, items))
    if isinstance(items, slice):
        return slice(fetched(items.start), fetched(items.stop), fetched(items.step))
    return items


def nd_grid(sparse: bool = False) -> _Grid:
    """``mgrid``, or with ``sparse`` ``ogrid``."""
    return ogrid if sparse else mgrid


r_, c_ = _Joined(False), _Joined(True)
mgrid, ogrid = _Grid("mgrid"), _Grid("ogrid")


def ndindex(*shape: int) -> Iterator[tuple[int, ...]]:
    """An iterator over all indices of a shape."""
    import numpy

    return numpy.ndindex(*shape)


__all__ = ["c_", "mgrid", "nd_grid", "ndindex", "ogrid", "r_"]
