"""Dask's collections on mars: arrays, frames, bags, delayed calls, and all that is built of them.

    import mars.dask

    mars.dask.enable()                   # all that the program computes from here on
    x.compute(scheduler="mars")          # or one computation

Importing this module makes the name "mars" known to Dask. `backend` has what Dask calls, `running`
spawns the calls, `plan` makes calls of a graph, `fusion` decides which tasks run together,
`lifting` takes the data out of it, `program` is the function of such a call, `threads` and
`at_home` say what the program runs itself, and `locks` are the locks between processes. Needs Dask
2026.1 or later: ``pip install "mars-remote[dask-collections]"``.
"""

from __future__ import annotations

from mars.dask.backend import Scheduler, disable, enable, get, persist, register, scheduler

register()

__all__ = ["Scheduler", "disable", "enable", "get", "persist", "scheduler"]
