"""Dask on mars, under the names of the original: `mars_scheduler` and `convert_dask_collection`.

New programs use `mars.dask`.
"""

from __future__ import annotations

from mars.calls.executable import Executable
from mars.dask import running
from mars.dask.backend import Scheduler

mars_scheduler = Scheduler()
"""``x.compute(scheduler=mars_scheduler)``: the same as ``scheduler="mars"`` once `mars.dask` is
imported."""


def convert_dask_collection(dc: object) -> Executable[object]:
    """Describe the computation of a collection of Dask, to execute it like any other calls.

    Parameters
    ----------
    dc : collection
        An array, a frame, a bag, a delayed call, or another collection of Dask.

    Returns
    -------
    Object
        ``execute().fetch()`` gives what ``dc.compute()`` gives.

    Raises
    ------
    TypeError
        ``dc`` is no collection of Dask.

    Notes
    -----
    Source: ``mars.contrib.dask.convert_dask_collection`` of Mars. Data in the graph are stored in
    the default session when this is called.

    Examples
    --------
    >>> import dask
    >>> convert_dask_collection(dask.delayed(sum)([1, 2])).execute().fetch()
    3
    """
    from dask import is_dask_collection

    if not is_dask_collection(dc):
        raise TypeError(f"'{type(dc).__name__}' object is not a valid dask collection")
    return running.described(dc)


__all__ = ["convert_dask_collection", "mars_scheduler"]
