"""Ours on Dask and Ray against plain Dask and Ray, on the same cluster, in one run.

``make bench-cluster`` starts a cluster of two nodes of one core each with the engine's own means,
runs every case with its own interface and with ours on the same nodes, in turns, and prints the
medians of both. What is started, such as our workers, is started before, and each case is run once
before it is measured.

Program and nodes are on one machine, so ours read large values where they are. With ``--apart``
they do not, as if each had a machine of its own. With ``--hosts`` each has one, made of namespaces,
and the cluster is one of ``mars cluster`` with TLS and token: head, two nodes, and the program on a
fourth host, or with ``--hosts head`` on that of the head. Needs root, as the tests of hosts do.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import mars
import mars.remote as mr
from mars import platform
from mars.deploy import ray_programs
from mars.deploy.targets import resolve
from mars.engines.cluster import carrier

TURNS = 2
"""So often plain and ours take turns."""

Case = tuple[str, Callable[[], object], Callable[[], object]]


def nothing() -> None:
    """A call that does nothing."""


def nap(seconds: float) -> None:
    time.sleep(seconds)


def add(a: int, b: int) -> int:
    return a + b


def large(size: int) -> Any:
    return np.ones(size, dtype=np.uint8)


def first(array: Any) -> int:
    return int(array[0])


def total(array: Any) -> int:
    return int(array.sum())


def ours_calls(count: int, seconds: float) -> None:
    function = time.sleep if seconds else nothing
    args = (seconds,) if seconds else ()
    mr.ExecutableTuple([mr.spawn(function, args) for _ in range(count)]).execute()


def ours_tree(leaves: int) -> None:
    level = [mr.spawn(add, (i, i)) for i in range(leaves)]
    while len(level) > 1:
        level = [mr.spawn(add, (a, b)) for a, b in zip(level[::2], level[1::2], strict=True)]
    assert level[0].execute().fetch() == leaves * (leaves - 1)


def ours_fetch(size: int) -> None:
    assert mr.spawn(large, (size,)).execute().fetch().nbytes == size


def ours_readers(size: int, readers: int, read: Callable[[Any], int], value: int) -> None:
    array = mr.spawn(large, (size,))
    calls = [mr.spawn(read, (array,)) for _ in range(readers)]
    assert mr.ExecutableTuple(calls).execute().fetch() == [value] * readers


def measure(act: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each round, after one that does not count."""
    act()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return times


# -- Dask ---------------------------------------------------------------------------------------


@contextmanager
def dask_cluster() -> Iterator[str]:
    """A scheduler and two workers on the loopback address, each in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "scheduler.json")
        common = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0",
                  "--scheduler-file", file]  # fmt: skip
        worker = ["dask_worker", "--no-nanny", "--nthreads", "1", "--local-directory", folder]
        commands = [["dask_scheduler", "--port", "0"], worker, worker]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{name}", *common, *rest],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for name, *rest in commands
        ]  # fmt: skip
        try:
            yield file
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def dask_cases(client: Any, scale: float) -> list[Case]:
    def calls(count: int, seconds: float) -> None:
        if seconds:
            futures = [client.submit(time.sleep, seconds, pure=False) for _ in range(count)]
        else:
            futures = [client.submit(nothing, pure=False) for _ in range(count)]
        client.gather(futures)

    def tree(leaves: int) -> None:
        level = [client.submit(add, i, i, pure=False) for i in range(leaves)]
        while len(level) > 1:
            level = [
                client.submit(add, a, b, pure=False)
                for a, b in zip(level[::2], level[1::2], strict=True)
            ]
        assert level[0].result() == leaves * (leaves - 1)

    def fetch(size: int) -> None:
        assert client.submit(large, size, pure=False).result().nbytes == size

    def readers(size: int, count: int, read: Callable[[Any], int], value: int) -> None:
        array = client.submit(large, size, pure=False)
        futures = [client.submit(read, array, pure=False) for _ in range(count)]
        assert client.gather(futures) == [value] * count

    return cases(calls, tree, fetch, readers, scale)


# -- Ray ----------------------------------------------------------------------------------------


def ray_cases(ray: Any, scale: float) -> list[Case]:
    remote_nothing, remote_sleep = ray.remote(nothing), ray.remote(nap)
    remote_add, remote_large = ray.remote(add), ray.remote(large)
    remote_read = {read: ray.remote(read) for read in (first, total)}

    def calls(count: int, seconds: float) -> None:
        if seconds:
            ray.get([remote_sleep.remote(seconds) for _ in range(count)])
        else:
            ray.get([remote_nothing.remote() for _ in range(count)])

    def tree(leaves: int) -> None:
        level = [remote_add.remote(i, i) for i in range(leaves)]
        while len(level) > 1:
            level = [remote_add.remote(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
        assert ray.get(level[0]) == leaves * (leaves - 1)

    def fetch(size: int) -> None:
        assert ray.get(remote_large.remote(size)).nbytes == size

    def readers(size: int, count: int, read: Callable[[Any], int], value: int) -> None:
        array = remote_large.remote(size)
        reads = [remote_read[read].remote(array) for _ in range(count)]
        assert ray.get(reads) == [value] * count

    return cases(calls, tree, fetch, readers, scale)


def cases(
    calls: Callable[[int, float], None],
    tree: Callable[[int], None],
    fetch: Callable[[int], None],
    readers: Callable[[int, int, Callable[[Any], int], int], None],
    scale: float,
) -> list[Case]:
    """Name, plain, and ours of each case."""
    many, some = int(4000 * scale), int(1000 * scale)
    few, leaves = int(200 * scale), 1 << int(8 + scale)
    size, shared = int(50e6 * scale), int(scale * (256 << 20))
    return [
        (f"{many} calls of nothing", lambda: calls(many, 0), lambda: ours_calls(many, 0)),
        (f"tree of {leaves} leaves", lambda: tree(leaves), lambda: ours_tree(leaves)),
        (f"{some} calls of 1 ms", lambda: calls(some, 0.001), lambda: ours_calls(some, 0.001)),
        (f"{few} calls of 10 ms", lambda: calls(few, 0.01), lambda: ours_calls(few, 0.01)),
        (f"fetch {size / 1e6:.0f} MB", lambda: fetch(size), lambda: ours_fetch(size)),
        (
            f"40 readers of {shared >> 20} MiB",
            lambda: readers(shared, 40, first, 1),
            lambda: ours_readers(shared, 40, first, 1),
        ),
        (
            f"40 sums of {shared >> 20} MiB",
            lambda: readers(shared, 40, total, shared),
            lambda: ours_readers(shared, 40, total, shared),
        ),
    ]


def chosen(table: list[Case], only: str) -> list[Case]:
    """The cases that were asked for."""
    return [case for case in table if only in case[0]]


def compare(
    engine: str, table: list[Case], rounds: int, session: Callable[[], mars.session.Session]
) -> None:
    """In turns of a few rounds, as on Ray our session takes the cores of all nodes."""
    plain_s: list[list[float]] = [[] for _ in table]
    ours_s: list[list[float]] = [[] for _ in table]
    for _ in range(TURNS):
        for (_, plain, _), times in zip(table, plain_s, strict=True):
            times += measure(plain, rounds)
        with session():
            for (_, _, ours), times in zip(table, ours_s, strict=True):
                times += measure(ours, rounds)
    print(f"\n{engine:<28}{'plain':>10}{'ours':>10}{'plain / ours':>14}", flush=True)
    for (name, _, _), theirs, own in zip(table, plain_s, ours_s, strict=True):
        before, after = statistics.median(theirs), statistics.median(own)
        print(f"{name:<28}{before:>9.3f}s{after:>9.3f}s{before / after:>13.2f}x", flush=True)


def run_dask(options: argparse.Namespace) -> None:
    with dask_cluster() as file:
        while not os.path.exists(file):
            time.sleep(0.05)
        on_dask(options, lambda address: mars.new_session(address), scheduler_file=file)


def on_dask(
    options: argparse.Namespace, session: Callable[[str], mars.session.Session], **how: Any
) -> None:
    """The cases on a Dask that is there."""
    from distributed import Client

    with Client(**how, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        address = client.scheduler.address
        compare(
            "Dask, 2 nodes", chosen(dask_cases(client, options.scale), options.only),
            options.rounds, lambda: session(address),
        )  # fmt: skip


def run_ray(options: argparse.Namespace) -> None:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
                   "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1)
        on_ray(options, cluster.address, lambda: mars.new_session(cluster.address, engine="ray"))
    finally:
        cluster.shutdown()


def on_ray(
    options: argparse.Namespace, address: str, session: Callable[[], mars.session.Session]
) -> None:
    """The cases on a Ray that is there."""
    import ray

    ray.init(address=address, log_to_driver=False, configure_logging=False)
    try:
        table = chosen(ray_cases(ray, options.scale), options.only)
        compare("Ray, 2 nodes", table, options.rounds, session)
    finally:
        ray.shutdown()


# -- on hosts of their own --------------------------------------------------------------------


def run_on_hosts(engine: str, options: argparse.Namespace) -> None:
    """Make hosts and a cluster over them, and run this module on one of them."""
    from tests.lab.clusters import WEB, LabCluster
    from tests.lab.hosts import Lab, why_not

    reason = why_not()
    if reason:
        sys.exit(f"--hosts: {reason}")
    with Lab(["head", "one", "two", "client"]) as lab:
        cluster = LabCluster(lab, engine, share=("--n-cpu", "1", "--memory", "4GiB"))
        try:
            words = ["--engines", engine, "--scale", str(options.scale), "--rounds",
                     str(options.rounds), "--only", options.only, "--at", WEB]  # fmt: skip
            program = lab[options.hosts].command(
                [sys.executable, "-m", "benchmarks.cluster", *words]
            )
            environment = lab[options.hosts].environment
            environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
            subprocess.run(program, env=environment, check=True)
        finally:
            cluster.close()


def run_at(engine: str, options: argparse.Namespace) -> None:
    """On a host: the cases on the cluster whose web address is given."""
    target = resolve(options.at)
    files = target.credentials
    assert files is not None
    if engine == "dask":
        from distributed import Security

        security = Security(
            tls_ca_file=files.ca_path, tls_client_cert=files.cert_path,
            tls_client_key=files.key_path, require_encryption=True,
        )  # fmt: skip
        on_dask(options, lambda _: mars.new_session(options.at), address=target.address,
                security=security)  # fmt: skip
    else:
        os.environ |= ray_programs.environment(files)
        on_ray(options, target.address, lambda: mars.new_session(options.at))


def main() -> None:
    """Read the options, run both engines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=["dask", "ray"], choices=["dask", "ray"])
    parser.add_argument(
        "--scale", type=float, default=1.0, help="sizes, as a part of the full ones"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--apart", action="store_true", help="as if on machines of their own")
    parser.add_argument(
        "--hosts", nargs="?", const="client", choices=["client", "head"],
        help="over hosts of their own; which one the program is on",
    )  # fmt: skip
    parser.add_argument("--at", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of Dask, about its own start
    if options.apart:
        platform.file_address = lambda descriptor: None
        carrier.can_open = lambda address: False
    for engine in options.engines:
        if options.at:
            run_at(engine, options)
        elif options.hosts:
            run_on_hosts(engine, options)
        else:
            {"dask": run_dask, "ray": run_ray}[engine](options)


if __name__ == "__main__":
    main()
