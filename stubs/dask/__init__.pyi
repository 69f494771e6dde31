"""What mars uses of Dask, for the type checker: Dask itself says few types.

A name that is not here is not used, or gives what nobody looks into. `tests/test_stubs.py` compares
these files with the Dask that is installed.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from dask import config as config
from dask.delayed import Delayed as Delayed
from dask.delayed import delayed as delayed

T = TypeVar("T")

__version__: str

def compute(*args: object, scheduler: object = ..., **kwargs: object) -> tuple[Any, ...]: ...
def persist(
    *args: T,
    traverse: bool = ...,
    optimize_graph: bool = ...,
    scheduler: Callable[..., object] | None = ...,
    **kwargs: object,
) -> tuple[T, ...]: ...
def annotate(**annotations: object) -> AbstractContextManager[None]: ...
def get_annotations() -> dict[str, object]: ...
def is_dask_collection(x: object) -> bool: ...
