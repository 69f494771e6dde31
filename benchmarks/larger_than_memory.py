"""Data larger than memory: the answers, and how much memory they take.

``python -m benchmarks.larger_than_memory`` computes with tensors and frames of 3 GiB, measures what
all processes together have in memory (the proportional set size, 20 times a second), and exits with
1 if that was more than 768 MiB or an answer is wrong. It computes what needs no more than some
chunks at a time; an executed tensor stays in memory, whatever its size.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

MIB = 2**20


class Peak:
    """The most memory that this program and its workers have had at once, in bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()

    def _look(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.05):
            total = 0
            for one in [me, *me.children(recursive=True)]:
                with suppress(psutil.Error):  # it has ended meanwhile
                    total += one.memory_full_info().pss
            self.bytes = max(self.bytes, total)

    @contextmanager
    def watched(self) -> Iterator[Peak]:
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()


def cases(rows: int) -> dict[str, tuple[Callable[[], Any], float]]:
    """For each case what computes a number, and what the number has to be, up to 1 %."""
    import mars.dataframe as md
    import mars.tensor as mt

    def numbers() -> Any:
        return mt.random.RandomState(0).rand(rows, 4)

    def chosen() -> Any:
        x = numbers()
        return x[x[:, 0] > 0.9][:, 1].mean()

    def frame() -> Any:
        made = md.DataFrame(numbers(), columns=list("abcd"))
        return made.assign(key=(made.a * 10).astype(int)).groupby("key").b.mean().mean()

    return {
        "squares of a tensor": (lambda: ((numbers() - 0.5) ** 2).mean(), 1 / 12),
        "largest of each column": (lambda: numbers().max(axis=0).mean(), 1.0),
        "inside of a circle": (
            lambda: (mt.linalg.norm(numbers()[:, :2], axis=1) < 1).sum() * 4 / rows, 3.14159
        ),
        "groups of a frame": (frame, 0.5),
        "rows that are chosen": (chosen, 0.5),
    }  # fmt: skip


def main() -> int:
    import mars

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=3.0, help="size of the data (default: 3)")
    parser.add_argument("--limit-mib", type=float, default=768.0, help="(default: 768)")
    chosen = parser.parse_args()
    rows = int(chosen.gib * 2**30) // 32
    failed = False
    mars.new_session(n_cpu=2)
    for name, (compute, wanted) in cases(rows).items():
        start = time.perf_counter()
        with Peak().watched() as peak:
            got = float(compute().execute(show_progress=False).fetch())
        right = abs(got - wanted) < 0.01 * wanted and peak.bytes <= chosen.limit_mib * MIB
        failed |= not right
        print(
            f"{name:24} {got:.5f}  {time.perf_counter() - start:6.1f} s  "
            f"{peak.bytes / MIB:6.0f} MiB at most{'' if right else '  WRONG'}",
            flush=True,
        )
    mars.stop_server()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
