"""joblib.Parallel on its default backend, loky."""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import workload
from benchmarks.peer import Func, Peer

if TYPE_CHECKING:
    from benchmarks.workload import Array

Call = tuple[Func, tuple[object, ...], dict[str, object]]


class Joblib(Peer):
    """`Parallel` on loky, kept open between calls; batches of one or its own choice."""

    name = "joblib"
    package = "joblib"
    import_line = "import joblib"
    first_result = """
from joblib import Parallel, delayed
def square(x): return x * x
if __name__ == "__main__":
    print(Parallel(n_jobs=2)([delayed(square)(3), delayed(square)(4)])[0], flush=True)
"""

    def start(self, workers: int) -> None:
        from joblib import Parallel, delayed

        self._delayed = delayed
        # Auto batching for `map`; one task per message where a case asks for that.
        self._batched = Parallel(n_jobs=workers).__enter__()
        self._single = Parallel(n_jobs=workers, batch_size=1).__enter__()

    def stop(self) -> None:
        self._single.__exit__(None, None, None)
        self._batched.__exit__(None, None, None)

    def submit(self, func: Func, *args: object) -> object:
        return self._delayed(func)(*args)

    def gather(self, handles: Sequence[object]) -> list[Any]:
        return list(self._single(handles))

    def one_by_one(self, func: Func, items: Iterable[object]) -> list[Any]:
        call = self._delayed(func)
        return list(self._single(call(item) for item in items))

    def map(self, func: Func, items: Sequence[object]) -> list[Any]:
        call = self._delayed(func)
        return list(self._batched(call(item) for item in items))

    def share_put(self, array: Array, readers: int) -> list[float]:
        """Large arrays in arguments are dumped once and mapped, by joblib itself."""
        call = self._delayed(workload.touch_for)
        return list(self._batched(call(array, i) for i in range(readers)))


PEER = Joblib
