"""The k-th call of one function of the system fails, in the program, a node or their line.

One typed error, or none, and nothing else: nothing hangs, no value is wrong, the session works on,
no node is lost but by the end of its line, nothing is left behind. As
`tests/faults/test_system_calls.py` has it for one machine; nodes live in this process, so threads
tell where a call is made.
"""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars.remote as mr
from mars.engines.cluster import nodes as cluster_nodes
from mars.engines.driver import loop as driver_loop
from tests.faults import injection
from tests.faults.campaign import SEED
from tests.faults.typed_work import BIG, TYPED, descriptors, double, nest, size, typed_errors

THREADS = {
    "program": ("mars-engine", "MainThread", "mars-reach", "test-carrier"),
    "node": ("mars-node", "mars-door", "mars-meet"),
    "line": ("mars-line-out", "mars-line-in"),
}

CASES = [
    ("program", "os.pwrite", ("ENOSPC", "EIO", "short")),
    ("program", "os.ftruncate", ("ENOSPC",)),
    ("program", "os.memfd_create", ("EMFILE", "ENOMEM")),
    ("program", "os.open", ("EMFILE", "ENOSPC")),
    ("program", "os.dup", ("EMFILE",)),
    ("program", "os.pread", ("EIO",)),
    ("program", "os.preadv", ("EIO",)),
    ("program", "os.fstat", ("EIO",)),
    ("program", "mmap.mmap", ("ENOMEM",)),
    ("program", "socket.socket.sendall", ("EPIPE", "ECONNRESET")),
    ("program", "socket.socket.connect", ("ECONNRESET", "EMFILE")),
    ("node", "os.pwrite", ("ENOSPC", "EIO", "short")),
    ("node", "os.ftruncate", ("ENOSPC",)),
    ("node", "os.memfd_create", ("EMFILE", "ENOMEM")),
    ("node", "os.open", ("EMFILE", "ENOSPC")),
    ("node", "os.dup", ("EMFILE",)),
    ("node", "os.pread", ("EIO",)),
    ("node", "os.preadv", ("EIO",)),
    ("node", "os.fstat", ("EIO",)),
    ("node", "mmap.mmap", ("ENOMEM",)),
    ("node", "socket.socketpair", ("EMFILE",)),
    ("node", "socket.socket.send", ("EPIPE", "ENOBUFS", "short")),
    ("node", "socket.socket.sendmsg", ("EPIPE", "ENOBUFS", "short")),
    ("node", "socket.socket.sendall", ("EPIPE",)),
    ("node", "socket.socket.recvmsg", ("ECONNRESET", "ENOMEM", "short")),
    ("line", "os.pwrite", ("ENOSPC", "EIO", "short")),
    ("line", "os.preadv", ("EIO", "ENOMEM")),
    ("line", "os.memfd_create", ("EMFILE", "ENOMEM")),
    ("line", "os.ftruncate", ("ENOSPC",)),
    ("line", "os.dup", ("EMFILE",)),
    ("line", "socket.socket.sendall", ("ECONNRESET", "ENOMEM")),
    ("line", "socket.socket.recv_into", ("ECONNRESET", "ENOMEM")),
]
EACH = [(where, name, error) for where, name, errors in CASES for error in errors]

ENDS_A_LINE = ("socket.socket.sendall", "socket.socket.recv_into")
"""What fails in these is the connection, and with it a node is lost."""

LARGE = 5_000_000


def work(session: Any) -> list[BaseException]:
    """Values that go there, come here and go on to another node; the typed errors on the way."""
    addresses = session.get_worker_addresses()
    first, last = addresses[0], addresses[-1]
    made = mr.spawn(double, args=(BIG,), expect_worker=first)
    large = mr.spawn(bytes, args=(LARGE,), expect_worker=first)
    expected: dict[Any, Any] = {
        made: BIG + BIG,
        mr.spawn(size, args=(BIG,), expect_worker=last): 300_000,
        mr.spawn(size, args=(made,), expect_worker=last): 600_000,
        mr.spawn(size, args=(large,)): LARGE,
        mr.spawn(size, args=(large,), expect_worker=last): LARGE,
        mr.spawn(nest): b"n" * 140_000,
        **{mr.spawn(pow, args=(i, 2)): i * i for i in range(10)},
    }
    return typed_errors(session, expected)


def try_out(plan: injection.Plan, make: Callable[..., Any], direct: bool) -> bool:
    """One program under the plan; whether anything failed."""
    names = THREADS[plan.where]

    def applies() -> bool:
        return threading.current_thread().name in names

    threads = threading.active_count()
    before = len(descriptors())
    undo = injection.install(plan, applies)
    there = None
    try:
        there = make(2, direct=direct)
    except TYPED:
        pass
    finally:
        if there is None:
            undo()
    if there is not None:
        try:
            work(there.session)
            happened = plan.happened()
            if there.session.get_worker_addresses():  # else both were lost by their lines
                assert work(there.session) == [] or not happened, "once is once"
            lost = 2 - len(there.session.get_worker_addresses())
            assert lost <= (plan.function in ENDS_A_LINE and plan.where == "line"), "a node is lost"
        finally:
            undo()
            there.session.stop_server()
        del there
    deadline = time.monotonic() + 5
    while len(descriptors()) > before or threading.active_count() > threads:
        gc.collect()
        assert time.monotonic() < deadline, f"{descriptors()} are open"
        time.sleep(0.01)
    return plan.happened()


@pytest.fixture
def make(
    on_nodes: Callable[..., Any], apart: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    # Calls for a node that is lost do not wait for another one like it.
    monkeypatch.setattr(cluster_nodes, "NODE_WAIT_S", 0.5)
    monkeypatch.setattr(driver_loop, "LOG_LOOK_S", 0.1)
    return on_nodes


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("where", "name", "error"), EACH)
def test_a_system_call_that_fails_at_either_end_is_one_typed_error_and_costs_no_node(
    where: str, name: str, error: str, tmp_path: Path, make: Callable[..., Any]
) -> None:
    k = random.Random(f"{SEED} {where} {name} {error}").randint(1, 5)
    plan = injection.Plan(where, name, k, error, False, str(tmp_path / f"mark-{k}"))
    try_out(plan, make, direct=where == "line" or k % 2 == 0)


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(("where", "name", "error"), EACH)
def test_each_single_system_call_at_either_end_may_fail(
    where: str, name: str, error: str, direct: bool, tmp_path: Path, make: Callable[..., Any]
) -> None:
    k = 1
    while k < 60:
        plan = injection.Plan(where, name, k, error, False, str(tmp_path / f"mark-{k}"))
        if not try_out(plan, make, direct):
            break
        k += 1
