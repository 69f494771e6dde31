"""See `dask/__init__.pyi`."""

from mars.dataframe.protocols import Rows

def meta_nonempty(x: object) -> Rows: ...
