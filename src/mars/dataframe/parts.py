"""A frame of Dask, made of tasks that give its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def of_parts(parts: Sequence[Any], meta: Any) -> Any:
    """A frame of Dask.

    Parameters
    ----------
    parts : sequence of Delayed
        The chunks.
    meta : DataFrame or Series
        What they look like, without rows.
    """
    import dask
    import dask.dataframe as dd

    # Dask would make strings of another type of them, and pandas has its own.
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_delayed(list(parts), meta=meta, verify_meta=False)


__all__ = ["of_parts"]
