"""See `dask/__init__.pyi`."""

from collections.abc import Hashable, Mapping

from dask.dataframe.dask_expr._collection import FrameBase

def from_graph(
    layer: Mapping[Hashable, object],
    _meta: object,
    divisions: tuple[object, ...],
    keys: list[Hashable],
    name_prefix: str,
) -> FrameBase: ...
