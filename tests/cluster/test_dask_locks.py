"""Locks in a graph of Dask hold between the hosts of a cluster."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.dask
from mars.dask.lock_table import ClusterLock, LockTable
from mars.errors import UsageError
from tests.cluster.conftest import DaskHosts

dask = pytest.importorskip("dask")

pytestmark = pytest.mark.timeout(120)


def write(n: int, lock: Any, folder: Path) -> str:
    """Fails if somebody else is at it."""
    with lock:
        assert lock.acquire(timeout=0.01) is False
        for _ in range(5):
            (folder / "writing").mkdir()
            (folder / "writing").rmdir()
    context = mars.get_context()
    assert context is not None
    return context.worker_address


def test_a_lock_holds_between_hosts_and_is_free_when_its_call_has_ended(
    dask_hosts: DaskHosts, tmp_path: Path
) -> None:
    for _ in range(2):
        dask_hosts.add_node()
    killed = tmp_path / "killed"

    def once(n: int, lock: Any) -> int:
        lock.acquire()
        if n == 0 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), 9)
        if n == 1:
            return n  # and forgets to give it back
        lock.release()
        return n

    with dask_hosts.session(2) as session, mars.dask.enable(session):
        for lock in (threading.Lock(), dask.utils.SerializableLock("file.nc")):
            calls = [dask.delayed(write)(n, lock, tmp_path) for n in range(20)]
            assert len(set(dask.compute(*calls))) == 2
        lock = threading.Lock()
        calls = [dask.delayed(once)(n, lock) for n in range(6)]
        assert dask.compute(*calls) == tuple(range(6))
        assert killed.exists()


def test_a_table_knows_who_has_a_lock() -> None:
    table = LockTable()
    assert table.acquire("a", "one", None)
    assert not table.acquire("a", "two", 0)
    assert table.acquire("b", "two", 0)
    assert not table.release("a", "two")
    got = threading.Event()

    def wait() -> None:
        if table.acquire("a", "two", None):
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert table.release("a", "one")
    assert got.wait(30)
    waiting.join()
    assert not table.release("a", "one")


def test_a_lock_of_calls_cannot_be_taken_in_the_program() -> None:
    lock = ClusterLock("a")
    with pytest.raises(UsageError, match="in the program use the lock that the graph was made"):
        lock.acquire()
    with pytest.raises(UsageError):
        lock.locked()
    with pytest.raises(RuntimeError, match="not held"):
        lock.release()
