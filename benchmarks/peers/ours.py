"""mars: a graph of spawned calls, executed at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import workload
from benchmarks.peer import Func, GraphPeer, Levels


def nested(depth: int) -> int:
    """Two calls from inside a call."""
    import mars.remote as mr

    if depth == 0:
        return 1
    return sum(
        mr.ExecutableTuple([mr.spawn(nested, args=(depth - 1,)) for _ in "ab"]).execute().fetch()
    )


class Ours(GraphPeer):
    """`spawn` and `map` on the embedded engine; logs, timestamps, fault handling as they come."""

    name = "mars"
    package = "mars-remote"
    module = "mars"
    import_line = "import mars, mars.remote"
    first_result = """
import mars.remote as mr
def square(x): return x * x
print(mr.spawn(square, args=(3,)).execute().fetch(), flush=True)
"""

    def start(self, workers: int) -> None:
        import mars
        import mars.remote

        self._mr = mars.remote
        self._session = mars.new_session(n_cpu=workers, default=True)

    def stop(self) -> None:
        self._session.stop_server()

    def submit(self, func: Func, *args: object) -> object:
        return self._mr.spawn(func, args=args)

    def gather(self, handles: Sequence[object]) -> list[Any]:
        return list(self._mr.ExecutableTuple(handles).execute().fetch())

    def map(self, func: Func, items: Sequence[object]) -> list[Any]:
        return list(self._mr.map(func, items).execute().fetch())

    def one_by_one(self, func: Func, items: Iterable[object]) -> list[Any]:
        spawn = self._mr.spawn
        return self.gather([spawn(func, args=(item,)) for item in items])

    def outputs(self, count: int) -> list[int]:
        return self.gather(self._mr.spawn(workload.listing, args=(count,), n_output=count))

    def grid(self, levels: Levels, seconds: float) -> None:
        spawn, node = self._mr.spawn, workload.node
        before: list[object] = []
        every: list[object] = []
        for level in levels:
            before = [
                spawn(node, args=(seconds, *[before[point] for point in inputs]))
                for inputs in level
            ]
            every += before
        self._mr.ExecutableTuple(every).execute()

    def nested(self, depth: int) -> int:
        return int(self.gather([self.submit(nested, depth)])[0])


PEER = Ours
