"""Frames of Dask and the tasks that give their chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def parts_of(lazy: Any) -> list[Any]:
    """The chunks of a frame of Dask, as tasks.

    Shuffles are done by tasks. Dask would do them on the disk of one machine, as soon as it is
    asked for the chunks, and a task that runs twice would write its rows twice.
    """
    import dask

    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        return list(lazy.to_delayed())


def array_of(lazy: Any) -> Any:
    """The values of a frame of Dask, as an array of Dask."""
    import dask

    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        return lazy.to_dask_array()


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


__all__ = ["array_of", "of_parts", "parts_of"]
