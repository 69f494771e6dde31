"""concurrent.futures.ProcessPoolExecutor, of the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.peer import Func, PoolPeer

if TYPE_CHECKING:
    from concurrent.futures import Executor


class FromExecutor(PoolPeer):
    """Anything with the interface of `concurrent.futures.Executor`."""

    def make(self, workers: int) -> Executor:
        """A new executor."""
        raise NotImplementedError

    def start(self, workers: int) -> None:
        self._executor = self.make(workers)

    def stop(self) -> None:
        self._executor.shutdown()

    def submit(self, func: Func, *args: object) -> object:
        return self._executor.submit(func, *args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.result() for handle in handles]

    def map(self, func: Func, items: Sequence[object]) -> list[Any]:
        size = max(1, len(items) // (4 * self.workers))
        return list(self._executor.map(func, items, chunksize=size))

    def level(self, func: Func, items: Sequence[object]) -> list[Any]:
        size = max(1, len(items) // self.workers)  # equal tasks: one message for each worker
        return list(self._executor.map(func, items, chunksize=size))


class ProcessPoolExecutor(FromExecutor):
    """`submit`; `map` with four chunks a worker; large arrays in shared memory by hand."""

    name = "ppe"
    import_line = "from concurrent.futures import ProcessPoolExecutor"
    first_result = """
from concurrent.futures import ProcessPoolExecutor
def square(x): return x * x
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        print(pool.submit(square, 3).result(), flush=True)
"""

    def make(self, workers: int) -> Executor:
        from concurrent import futures

        return futures.ProcessPoolExecutor(workers)


PEER = ProcessPoolExecutor
