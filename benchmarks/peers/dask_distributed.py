"""Dask distributed: a LocalCluster and its Client."""
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import workload
from benchmarks.peer import Func, GraphPeer

if TYPE_CHECKING:
    from benchmarks.workload import Array


def nested(depth: int) -> int:
    """Two calls from inside a call."""
    from distributed import worker_client

    if depth == 0:
        return 1
    with worker_client() as client:
        calls = client.map(nested, [depth - 1] * 2, pure=False)
        return sum(client.gather(calls))


class Dask(GraphPeer):
    """`LocalCluster`, one thread a process; impure calls, or equal calls would be made once."""

    name = "dask"
    package = "distributed"
    import_line = "from distributed import Client"
    first_result = """
from distributed import Client
def square(x): return x * x
if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        print(client.submit(square, 3).result(), flush=True)
"""

    def start(self, workers: int) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self._client = Client(self._cluster)

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()

    def submit(self, func: Func, *args: object) -> object:
        return self._client.submit(func, *args, pure=False)

    def gather(self, handles: Sequence[object]) -> list[Any]:
        return list(self._client.gather(handles))

    def one_by_one(self, func: Func, items: Iterable[object]) -> list[Any]:
        """`Client.map`: one task for each item, faster than as many `submit`."""
        return self.gather(self._client.map(func, list(items), pure=False))

    def share_put(self, array: Array, readers: int) -> list[float]:
        source = self._client.scatter(array, hash=False)
        return self.gather([self.submit(workload.touch_for, source, i) for i in range(readers)])

    def nested(self, depth: int) -> int:
        return int(self.gather([self.submit(nested, depth)])[0])


PEER = Dask
