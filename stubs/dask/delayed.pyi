"""See `dask/__init__.pyi`."""

from collections.abc import Hashable, Mapping
from typing import Any

class Delayed:
    """A value to come. What is done with it is another one."""

    key: Hashable
    dask: Mapping[Hashable, object]

    def compute(self, **kwargs: object) -> Any: ...  # what the task returns
    def __getitem__(self, index: object) -> Delayed: ...
    def __call__(self, *args: object, **kwargs: object) -> Delayed: ...

def delayed(
    obj: object, name: str | None = ..., pure: bool | None = ..., nout: int | None = ...
) -> Delayed: ...
