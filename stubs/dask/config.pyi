"""See `dask/__init__.pyi`."""

from collections.abc import Mapping
from types import TracebackType

class set:  # noqa: A001, N801  as in Dask
    def __init__(self, arg: Mapping[str, object] | None = ..., **kwargs: object) -> None: ...
    def __enter__(self) -> dict[str, object]: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

def get(key: str, default: object = ...) -> object: ...
