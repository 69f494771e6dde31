"""What is lost with a process or a node of a cluster, and what is not; on both engines."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import mars
import mars.remote as mr
from mars.engines.cluster import nodes as cluster_nodes
from mars.engines.cluster.mirrors import Mirrors
from mars.engines.cluster.remote_node import RemoteNode
from tests.cluster.conftest import node_process

pytestmark = pytest.mark.timeout(120)

Session = mars.session.Session


def short_call(index: int) -> int:
    print("call", index)
    time.sleep(0.02)
    return index * 3


def test_a_killed_node_costs_no_result_and_no_log(
    two_nodes: Session, kill_node: Callable[[str], None]
) -> None:
    calls = [mr.spawn(short_call, (index,)) for index in range(200)]
    run = mr.ExecutableTuple(calls).execute(wait=False)
    kill_node(two_nodes.get_worker_addresses()[0])
    run.result(60)
    assert [call.fetch() for call in calls] == [3 * index for index in range(200)]
    for index, call in enumerate(calls):
        assert f"call {index}\n" in str(call.fetch_log())


def test_a_killed_worker_process_costs_no_result_and_no_log(two_nodes: Session) -> None:
    calls = [mr.spawn(short_call, (index,)) for index in range(200)]
    victim = mr.spawn(os.getpid, expect_worker=two_nodes.get_worker_addresses()[0])
    pid = victim.execute().fetch()
    run = mr.ExecutableTuple(calls).execute(wait=False)
    os.kill(pid, signal.SIGKILL)
    run.result(60)
    assert [call.fetch() for call in calls] == [3 * index for index in range(200)]
    assert "call 7\n" in str(calls[7].fetch_log())


@pytest.fixture(params=["one machine", "apart"])
def where(request: pytest.FixtureRequest) -> None:
    """Whether values can be read where they are."""
    if request.param == "apart":
        request.getfixturevalue("apart")


def test_a_large_result_outlives_the_node_that_made_it(
    where: None, two_nodes: Session, kill_node: Callable[[str], None],
    note: Callable[..., None], tmp_path: Path,
    lines: Callable[[object], list[str]], wait_until: Callable[..., None],
) -> None:  # fmt: skip
    ledger = tmp_path / "runs"
    first, second = two_nodes.get_worker_addresses()

    def make() -> np.ndarray:
        note(ledger)
        return np.arange(500_000)

    made = mr.spawn(make, expect_worker=first).execute()
    kill_node(first)
    wait_until(lambda: two_nodes.get_worker_addresses() == [second], 30)
    total = mr.spawn(np.sum, (made,)).execute()  # read on the other node
    assert total.fetch() == made.fetch().sum() == np.arange(500_000).sum()
    assert lines(ledger) == ["run"]


def test_on_one_machine_large_values_are_not_copied(
    two_nodes: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(*_: object) -> None:
        raise AssertionError("bytes of a value went through a connection")

    monkeypatch.setattr(Mirrors, "write", copied)
    monkeypatch.setattr(RemoteNode, "ship", copied)
    first, second = two_nodes.get_worker_addresses()
    given = np.arange(400_000)
    made = mr.spawn(np.add, (given, 1), expect_worker=first)
    totals = [mr.spawn(np.sum, (made,), expect_worker=one) for one in (first, second)]
    mr.ExecutableTuple([made, *totals]).execute()
    assert [total.fetch() for total in totals] == [(given + 1).sum()] * 2
    fetched = made.fetch()
    fetched += 1  # the program's own: nobody else sees it
    assert (made.fetch() == given + 1).all()
    assert mr.spawn(np.sum, (made,), expect_worker=second).execute().fetch() == totals[0].fetch()


def test_a_call_that_must_not_run_twice_fails_with_its_node(
    two_nodes: Session, note: Callable[..., None], tmp_path: Path,
    lines: Callable[[object], list[str]], wait_until: Callable[..., None],
    pass_gate: Callable[..., None],
) -> None:  # fmt: skip
    ledger = tmp_path / "runs"
    address = two_nodes.get_worker_addresses()[0]
    pid = mr.spawn(node_process, expect_worker=address).execute().fetch()

    def once() -> None:
        note(ledger)
        print("it began")
        pass_gate(tmp_path / "never")

    call = mr.spawn(once, idempotent=False, expect_worker=address)
    run = call.execute(wait=False)
    wait_until(lambda: "it began" in str(call.fetch_log(offsets=0)))
    psutil.Process(pid).kill()
    host = re.escape(f"{socket.gethostname()} ({address})")
    with pytest.raises(mars.errors.WorkerDied, match=f"(?s)on node {host} .*its node .* was lost"):
        run.result(60)
    assert lines(ledger) == ["run"]
    assert "it began" in str(call.fetch_log(offsets=0))
    ((node, _, ending),) = call.attempts()
    assert (node, ending) == (f"{socket.gethostname()} ({address})", "died")


def test_attempts_name_the_node_of_each_and_how_it_ended(
    two_nodes: Session, note: Callable[..., None], tmp_path: Path, lines: Callable[..., list[str]]
) -> None:
    first, second = two_nodes.get_worker_addresses()
    ledger = tmp_path / "attempts"

    def third_time_lucky() -> int:
        note(ledger)
        count = len(lines(ledger))
        if count == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == 2:
            raise OSError("the second time")
        return os.getpid()

    call = mr.spawn(third_time_lucky, retries=1, expect_worker=second)
    pid = call.execute().fetch()
    title = f"{socket.gethostname()} ({second})"
    assert [(one.node, one.ending) for one in call.attempts()] == [
        (title, "died"), (title, "error"), (title, "value"),
    ]  # fmt: skip
    assert call.attempts()[-1].worker == pid  # which printed nothing
    assert call.attempts()[0].worker != pid
    item = mr.map(abs, range(50)).execute()[7]
    ((node, _, ending),) = item.attempts()
    assert ending == "value" and node in {title, f"{socket.gethostname()} ({first})"}


def test_calls_that_no_node_is_left_for_are_told_so(
    two_nodes: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_nodes, "NODE_WAIT_S", 0.5)
    address = two_nodes.get_worker_addresses()[0]
    kept = mr.spawn(abs, -5).execute()
    pid = mr.spawn(node_process, expect_worker=address).execute().fetch()
    stuck = mr.spawn(time.sleep, (60,), expect_worker=address).execute(wait=False)
    psutil.Process(pid).kill()
    with pytest.raises(mars.errors.NoAvailableBand, match="no node has any more"):
        stuck.result(60)
    assert kept.fetch() == 5
    assert mr.spawn(abs, -2).execute().fetch() == 2


dask_first = pytest.mark.parametrize(
    "two_nodes", ["dask", pytest.param("ray", marks=pytest.mark.campaign)], indirect=True
)


class Held:
    """Values that have begun to come, and come no further until they may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.may = threading.Event(), threading.Event()
        write = Mirrors.write

        def held(store: Mirrors, *part: Any) -> None:
            self.began.set()
            assert self.may.wait(60)
            write(store, *part)

        monkeypatch.setattr(Mirrors, "write", held)


@pytest.fixture
def held(apart: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held(monkeypatch)
    yield made
    made.may.set()


def large(ledger: Path) -> np.ndarray:
    with ledger.open("a") as file:
        print(mars.get_context().worker_address, node_process(), file=file)
    return np.arange(2_000_000)


@dask_first
def test_a_value_on_its_way_is_read_where_it_is_and_made_again_if_its_node_is_lost(
    held: Held, two_nodes: Session, tmp_path: Path, lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"
    made = mr.spawn(large, (ledger,))
    total = mr.spawn(np.sum, (made,))
    assert total.execute().fetch() == np.arange(2_000_000).sum()
    assert held.began.wait(30)
    assert made.states() == ["done"]
    run = made.execute(wait=False)
    first, pid = lines(ledger)[0].split()
    psutil.Process(int(pid)).kill()
    held.may.set()
    run.result(60)
    assert (made.fetch() == np.arange(2_000_000)).all()
    assert [line.split()[0] == first for line in lines(ledger)] == [True, False]
    assert total.fetch() == np.arange(2_000_000).sum()


@dask_first
def test_a_value_that_must_not_be_made_twice_is_not_read_before_it_has_come(
    held: Held, two_nodes: Session, tmp_path: Path, lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"
    made = mr.spawn(large, (ledger,), idempotent=False)
    total = mr.spawn(np.sum, (made,))
    run = total.execute(wait=False)
    assert held.began.wait(30)
    _, pid = lines(ledger)[0].split()
    psutil.Process(int(pid)).kill()
    held.may.set()
    with pytest.raises(mars.errors.WorkerDied, match=r"(?s)ran large .*had not come yet"):
        run.result(60)
    assert len(lines(ledger)) == 1 and not total.attempts()
