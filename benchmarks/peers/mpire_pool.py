"""mpire.WorkerPool."""
# mypy: disable-error-code="import-not-found,import-untyped,attr-defined"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import workload
from benchmarks.peer import Func, Peer

if TYPE_CHECKING:
    from benchmarks.workload import Array


class Mpire(Peer):
    """`WorkerPool`, forked and kept alive; large arrays as `shared_objects`, copied on write."""

    name = "mpire"
    package = "mpire"
    import_line = "from mpire import WorkerPool"
    first_result = """
from mpire import WorkerPool
def square(x): return x * x
if __name__ == "__main__":
    with WorkerPool(n_jobs=2) as pool:
        print(pool.apply(square, (3,)), flush=True)
"""

    def start(self, workers: int) -> None:
        from mpire import WorkerPool

        self._make = WorkerPool
        self._pool = WorkerPool(n_jobs=workers, keep_alive=True)

    def stop(self) -> None:
        self._pool.terminate()

    def submit(self, func: Func, *args: object) -> object:
        return self._pool.apply_async(func, args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get() for handle in handles]

    def one_by_one(self, func: Func, items: Iterable[object]) -> list[Any]:
        # In a tuple each: mpire passes the parts of an item as arguments of their own.
        return self._map(func, [(item,) for item in items], 1)

    def map(self, func: Func, items: Sequence[object]) -> list[Any]:
        return self._map(func, [(item,) for item in items], None)

    def level(self, func: Func, items: Sequence[object]) -> list[Any]:
        size = max(1, len(items) // self.workers)  # equal tasks: one message for each worker
        return self._map(func, [(item,) for item in items], size)

    def _map(self, func: Func, items: list[tuple[object]], size: int | None) -> list[Any]:
        return list(self._pool.map(func, items, chunk_size=size, concatenate_numpy_output=False))

    def share_put(self, array: Array, readers: int) -> list[float]:
        """A pool forked after the array exists: copy on write."""
        with self._make(n_jobs=self.workers, shared_objects=array, start_method="fork") as pool:
            return list(pool.map(workload.touch_for, range(readers), chunk_size=1))


PEER = Mpire
