"""multiprocessing.Pool, of the standard library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.peer import Func, PoolPeer


class Pool(PoolPeer):
    """`map`, with chunks of one or its own choice; large arrays in shared memory by hand."""

    name = "pool"
    import_line = "from multiprocessing import Pool"
    first_result = """
from multiprocessing import Pool
def square(x): return x * x
if __name__ == "__main__":
    with Pool(2) as pool:
        print(pool.apply(square, (3,)), flush=True)
"""

    def start(self, workers: int) -> None:
        import multiprocessing

        self._pool = multiprocessing.Pool(workers)

    def stop(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def submit(self, func: Func, *args: object) -> object:
        return self._pool.apply_async(func, args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get() for handle in handles]

    def one_by_one(self, func: Func, items: Iterable[object]) -> list[Any]:
        """One message each; faster than as many `apply_async`."""
        return self._pool.map(func, items, chunksize=1)

    def map(self, func: Func, items: Sequence[object]) -> list[Any]:
        return self._pool.map(func, items)

    def level(self, func: Func, items: Sequence[object]) -> list[Any]:
        size = max(1, len(items) // self.workers)  # equal tasks: one message for each worker
        return self._pool.map(func, items, chunksize=size)


PEER = Pool
