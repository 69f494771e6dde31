"""See `dask/__init__.pyi`."""

from dask.dataframe.dask_expr._collection import FrameBase

class GroupBy:
    def __getitem__(self, key: object) -> GroupBy: ...
    def agg(self, *args: object, **kwargs: object) -> FrameBase: ...
