"""Pi by Monte Carlo, twice in one run: a plain loop, then the same functions spawned.

Run it::

    python examples/monte_carlo_pi.py                                  # 200 million points
    python examples/monte_carlo_pi.py --points 2_000_000 --chunks 4    # a quick look
    python examples/monte_carlo_pi.py --address http://10.0.0.1:7104   # on a cluster

On a cluster every host needs numpy, too; the plain loop runs where the program runs.

Each chunk draws its points from its own seed, so both runs print the same digits, on any number
of cores. One chunk holds its points in memory: about 0.5 GB for 10 million of them, in every
worker process that computes one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time

import numpy as np

import mars
import mars.remote as mr


def calc_chunk(n: int, i: int) -> int:
    """Draw ``n`` points in the square around the unit circle; count those inside the circle."""
    rs = np.random.RandomState(i)
    a = rs.uniform(-1, 1, size=(n, 2))
    d = np.linalg.norm(a, axis=1)
    inside = int((d < 1).sum())
    print(f"chunk {i}: {inside:,} of {n:,} points inside")
    return inside


def calc_pi(fs: list[int], points: int) -> float:
    """Estimate pi from the counts of all chunks."""
    return sum(fs) * 4 / points


def serial(chunks: int, n: int) -> float:
    """Compute pi with a plain loop in this process."""
    # What the chunks print would bury the result here; spawned, each has a log of its own.
    with contextlib.redirect_stdout(io.StringIO()):
        fs = [calc_chunk(n, i) for i in range(chunks)]
    return calc_pi(fs, n * chunks)


def main() -> None:
    """Read the options, run both, compare."""
    parser = argparse.ArgumentParser(description="Pi by Monte Carlo: a plain loop, then spawned.")
    parser.add_argument("--points", type=int, default=200_000_000, help="points in all chunks")
    parser.add_argument("--chunks", type=int, default=20, help="calls to split them into")
    parser.add_argument(
        "--address", help="of a cluster, as http://HOST:7104; default: this machine"
    )
    options = parser.parse_args()
    if not 1 <= options.chunks <= options.points:
        parser.error("--chunks must lie between 1 and --points")
    n = options.points // options.chunks
    points = n * options.chunks

    print(f"{points:,} points in {options.chunks} chunks", flush=True)

    started = time.perf_counter()
    serial_pi = serial(options.chunks, n)
    serial_s = time.perf_counter() - started
    print(f"serial    {serial_pi}   {serial_s:6.2f} s", flush=True)

    # The start of the worker processes is inside the measured time.
    started = time.perf_counter()
    with mars.new_session(options.address) as session:
        fs = [mr.spawn(calc_chunk, args=(n, i)) for i in range(options.chunks)]
        pi = mr.spawn(calc_pi, args=(fs, points))
        spawned_pi = pi.execute().fetch()
        spawned_s = time.perf_counter() - started
        print(
            f"spawned   {spawned_pi}   {spawned_s:6.2f} s   on {session.get_total_n_cpu():g} cores"
        )
        print(f"speed-up  {serial_s / spawned_s:.2f}")

        print(f"\nWhat the call for chunk {options.chunks - 1} printed, from fs[-1].fetch_log():")
        print(str(fs[-1].fetch_log()).strip())

    if spawned_pi != serial_pi:
        raise SystemExit(f"the two runs differ: {serial_pi} and {spawned_pi}")


if __name__ == "__main__":
    main()
