"""loky: the reusable executor under joblib."""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from benchmarks.peers.process_pool_executor import FromExecutor

if TYPE_CHECKING:
    from concurrent.futures import Executor


class Loky(FromExecutor):
    """`get_reusable_executor`, used as ProcessPoolExecutor is."""

    name = "loky"
    package = "loky"
    import_line = "import loky"
    first_result = """
import loky
def square(x): return x * x
if __name__ == "__main__":
    pool = loky.get_reusable_executor(max_workers=2)
    print(pool.submit(square, 3).result(), flush=True)
"""

    def make(self, workers: int) -> Executor:
        import loky

        return cast("Executor", loky.get_reusable_executor(max_workers=workers, timeout=300))


PEER = Loky
