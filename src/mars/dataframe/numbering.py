"""An expression of Dask whose rows are numbered from 0 on, over all chunks.

It is a step of the expression like those of Dask itself, so Dask still leaves out columns that
nobody asks for, also those of what comes before. It is loaded when a frame is numbered.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from dask.dataframe.dask_expr._collection import FrameBase
    from dask.dataframe.dask_expr._expr import Expr

    from mars.dataframe.protocols import Rows


@functools.cache
def expression() -> type[Expr]:
    """The class `Numbered`. Dask is loaded for it."""
    from dask.dataframe.dask_expr._expr import Expr, Projection, plain_column_projection
    from dask.task_spec import List, Task, TaskRef

    class Numbered(Expr):
        """The rows of a frame with an index that counts them."""

        _parameters: ClassVar[list[str]] = ["frame", "label"]
        label: Hashable

        _defaults: ClassVar[dict[str, object]] = {"label": None}
        _is_length_preserving = True

        @functools.cached_property
        def _meta(self) -> Rows:
            return numbered_part(self.frame._meta, 0, self.label)

        def _divisions(self) -> tuple[None, ...]:
            count: int = self.frame.npartitions
            return (None,) * (count + 1)

        @property
        def _projection_columns(self) -> list[Hashable]:
            return []

        def _simplify_up(self, parent: Expr, dependents: object) -> Expr | None:
            """Columns that nobody asks for are left out below, as Dask's own steps do it."""
            if isinstance(parent, Projection) and self.frame.ndim == 2:
                return plain_column_projection(self, parent, dependents)
            return None

        def _layer(self) -> dict[Hashable, Task]:
            frame, count = self.frame._name, self.frame.npartitions
            if count == 1:
                key = (self._name, 0)
                return {key: Task(key, numbered_part, TaskRef((frame, 0)), 0, self.label)}
            lengths, places = f"lengths-{self._name}", f"places-{self._name}"
            graph: dict[Hashable, Task] = {
                (lengths, i): Task((lengths, i), len, TaskRef((frame, i))) for i in range(count)
            }
            graph[places] = Task(
                places, _places, List(*[TaskRef((lengths, i)) for i in range(count)])
            )
            for i in range(count):
                key = (self._name, i)
                graph[key] = Task(
                    key, _numbered, TaskRef((frame, i)), TaskRef(places), i, self.label
                )
            return graph

    Numbered.__qualname__ = "Numbered"  # a pickle finds it by its name
    return Numbered


def __getattr__(name: str) -> object:
    if name != "Numbered":
        raise AttributeError(f"module 'mars.dataframe.numbering' has no attribute {name!r}")
    return expression()


def _places(lengths: list[int]) -> list[int]:
    return [0, *itertools.accumulate(lengths)]


def _numbered(part: Rows, places: list[int], number: int, label: Hashable) -> Rows:
    return numbered_part(part, places[number], label)


def numbered_part(part: Rows, place: int, label: Hashable) -> Rows:
    """A part with numbers from a place on as its index."""
    import pandas

    made = part.copy(deep=False)
    made.index = pandas.RangeIndex(place, place + len(part), name=label)
    return made


def numbered(lazy: FrameBase, label: Hashable = None) -> FrameBase:
    """A frame of Dask whose index counts all rows from 0 on."""
    from dask.dataframe.dask_expr._collection import new_collection

    return new_collection(expression()(lazy.expr, label))


__all__ = ["numbered"]
