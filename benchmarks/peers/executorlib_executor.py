"""executorlib on one node, with workers that stay."""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peer import Func, GraphPeer, SharesByHand


class Executorlib(SharesByHand, GraphPeer):
    """`SingleNodeExecutor` with `block_allocation`: its faster way for many small calls."""

    name = "executorlib"
    package = "executorlib"
    import_line = "from executorlib import SingleNodeExecutor"
    first_result = """
from executorlib import SingleNodeExecutor
def square(x): return x * x
if __name__ == "__main__":
    with SingleNodeExecutor(max_workers=2, block_allocation=True) as executor:
        print(executor.submit(square, 3).result(), flush=True)
"""

    def start(self, workers: int) -> None:
        from executorlib import SingleNodeExecutor

        self._executor = SingleNodeExecutor(max_workers=workers, block_allocation=True)

    def stop(self) -> None:
        self._executor.shutdown()

    def submit(self, func: Func, *args: object) -> object:
        return self._executor.submit(func, *args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.result() for handle in handles]


PEER = Executorlib
