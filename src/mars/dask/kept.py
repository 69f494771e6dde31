"""A persisted task, as it stands in the graph of a collection.

It is a task of Dask that fetches the value when it is called, so any scheduler can run it. Ours
takes what stands for the value, and fetches nothing. `mars.dask.running` makes it, and loads this
module only then, because it needs Dask.
"""

from __future__ import annotations

from dask.task_spec import Task


class KeptTask(Task):  # type: ignore[misc]  # Dask is not typed
    """A persisted task. Tests and tools of Dask ask it for its value as they ask a future."""

    __slots__ = ()

    def result(self) -> object:
        """The value, fetched from the session that has it.

        Raises
        ------
        SessionClosed
            The session has ended.
        """
        return self.func()


__all__ = ["KeptTask"]
