"""What every collection of Dask has, be it an array, a frame or a delayed value.

Only for the type checker: `mars.tileables` and `mars.dask.running` take collections of any kind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Protocol


class Collection(Protocol):
    """A collection of Dask."""

    def __dask_graph__(self) -> Mapping[Hashable, object]: ...
    def __dask_keys__(self) -> list[object]: ...
    def __dask_postpersist__(self) -> tuple[Callable[..., object], tuple[object, ...]]: ...
    def compute(self, *, scheduler: str) -> object: ...


__all__ = ["Collection"]
