"""Parsl on its HighThroughputExecutor."""
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import workload
from benchmarks.peer import Func, GraphPeer, SharesByHand


def total_of(inputs: Sequence[int] = ()) -> int:
    """`workload.total` with the parameter in which Parsl looks for futures in a list."""
    return sum(inputs)


class Parsl(SharesByHand, GraphPeer):
    """`HighThroughputExecutor`: one block on this machine, loopback only, not encrypted."""

    name = "parsl"
    package = "parsl"
    import_line = "import parsl"
    first_result = """
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider
@parsl.python_app
def square(x): return x * x
if __name__ == "__main__":
    executor = HighThroughputExecutor(
        address="127.0.0.1", max_workers_per_node=2, cores_per_worker=1, encrypted=False,
        provider=LocalProvider(init_blocks=1, max_blocks=1))
    with parsl.load(Config(executors=[executor])):
        print(square(3).result(), flush=True)
"""

    def start(self, workers: int) -> None:
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        self._parsl = parsl
        self._apps: dict[Func, Any] = {}
        executor = HighThroughputExecutor(
            address="127.0.0.1",
            max_workers_per_node=workers,
            cores_per_worker=1,
            encrypted=False,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        self._kernel = parsl.load(Config(executors=[executor], strategy="none"))

    def stop(self) -> None:
        self._kernel.cleanup()

    def _app(self, func: Func) -> Any:
        if func not in self._apps:
            self._apps[func] = self._parsl.python_app(func)
        return self._apps[func]

    def submit(self, func: Func, *args: object) -> object:
        return self._app(func)(*args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.result() for handle in handles]

    def fan_in(self, width: int) -> int:
        handles = [self.submit(workload.one, i) for i in range(width)]
        return int(self._app(total_of)(inputs=handles).result())

    def nested(self, depth: int) -> int:
        """Join apps: they run in the driver, so they hold no worker while they wait."""
        one, add = self._app(workload.one), self._app(workload.add)

        @self._parsl.join_app  # type: ignore[untyped-decorator]
        def both(depth: int) -> Any:
            return add(both(depth - 1), both(depth - 1)) if depth else one()

        return int(both(depth).result())


PEER = Parsl
