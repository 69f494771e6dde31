"""See `dask/__init__.pyi`."""

import pandas

def meta_nonempty(x: object) -> pandas.DataFrame: ...
