"""Ray core: remote functions and its shared-memory store."""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import workload
from benchmarks.peer import Func, GraphPeer

if TYPE_CHECKING:
    from benchmarks.workload import Array


@functools.cache
def nested_remote() -> Any:
    """One remote function for each process: exporting it anew for each call would cost more."""
    import ray

    return ray.remote(nested)


def nested(depth: int) -> int:
    """Two calls from inside a call."""
    import ray

    if depth == 0:
        return 1
    call = nested_remote()
    return sum(ray.get([call.remote(depth - 1) for _ in "ab"]))


def total_of(*values: int) -> int:
    """`workload.total` with its values as arguments: Ray resolves only those."""
    return sum(values)


class Ray(GraphPeer):
    """Remote functions on a local instance without dashboard; logs off except where asked."""

    name = "ray"
    package = "ray"
    import_line = "import ray"
    first_result = """
import ray
@ray.remote
def square(x): return x * x
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
print(ray.get(square.remote(3)), flush=True)
"""

    def start(self, workers: int) -> None:
        import ray

        self._ray: Any = ray
        self._remotes: dict[Func, Any] = {}
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=self.logs,
            logging_level=logging.ERROR,
        )

    def stop(self) -> None:
        self._ray.shutdown()

    def _remote(self, func: Func) -> Any:
        if func not in self._remotes:
            self._remotes[func] = self._ray.remote(func)
        return self._remotes[func]

    def submit(self, func: Func, *args: object) -> object:
        return self._remote(func).remote(*args)

    def gather(self, handles: Sequence[object]) -> list[Any]:
        return list(self._ray.get(handles))

    def one_by_one(self, func: Func, items: Iterable[object]) -> list[Any]:
        call = self._remote(func)
        return self.gather([call.remote(item) for item in items])

    def fan_in(self, width: int) -> int:
        handles = [self.submit(workload.one, i) for i in range(width)]
        return int(self.gather([self.submit(total_of, *handles)])[0])

    def outputs(self, count: int) -> list[int]:
        call = self._remote(workload.listing).options(num_returns=count)
        return self.gather(call.remote(count))

    def share_put(self, array: Array, readers: int) -> list[float]:
        source = self._ray.put(array)
        return self.gather([self.submit(workload.touch_for, source, i) for i in range(readers)])

    def nested(self, depth: int) -> int:
        return int(self.gather([self.submit(nested, depth)])[0])


PEER = Ray
