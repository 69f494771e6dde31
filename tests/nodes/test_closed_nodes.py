"""A node on which no worker starts is closed and named with its cause; the others go on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import mars.remote as mr
from mars.engines.driver import deaths, reactor
from mars.engines.local import workers as local_workers
from mars.engines.local.process import LocalProcess, Watch
from mars.errors import StartupFailed


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """Nodes in this set have no room for temporary files: logs of workers that they start."""
    nodes: set[Any] = set()

    class Full(LocalProcess):
        def __init__(self, number: int, watch: Watch, others: Iterable[LocalProcess] = ()) -> None:
            super().__init__(number, watch, others)
            if any(threading.current_thread() is node._thread for node in nodes):
                device = os.open("/dev/full", os.O_RDWR)
                os.dup2(device, self.segment.descriptor, inheritable=False)
                os.close(device)

    monkeypatch.setattr(local_workers, "LocalProcess", Full)
    return nodes


def fill(there: Any, full: set[Any], *nodes: str) -> None:
    """The disks of nodes get full, and all workers end, so that others have to start."""
    for address in there.session.get_worker_addresses():
        mr.spawn(abs, args=(-1,), expect_worker=address).execute()
    full.update(map(there.carrier.node, nodes))
    calls = [
        mr.spawn(os._exit, args=(1,), expect_worker=address, death_retries=0)
        for address in there.session.get_worker_addresses()
    ]
    mr.ExecutableTuple(calls).execute(on_error="continue")


def wait_for(begun: str, over: str) -> None:
    Path(begun).touch()
    while not Path(over).exists():
        time.sleep(0.01)


def where(seconds: float) -> Any:
    from mars.attempt import context

    time.sleep(seconds)
    session = context.current()
    assert session is not None
    return session.worker_address


def test_a_node_with_a_full_disk_is_closed_and_the_others_go_on(
    on_nodes: Callable[..., Any],
    full: set[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wait_until: Callable[..., None],
) -> None:
    monkeypatch.setattr(reactor, "CLOSED_S", 0.5)
    there = on_nodes(2)
    bad, good = there.session.get_worker_addresses()
    fill(there, full, bad)
    while not there.loop.scheduler.groups[0].closed:
        calls = [mr.spawn(where, args=(0.0,)) for _ in range(20)]
        mr.ExecutableTuple(calls).execute()
        assert {call.fetch() for call in calls} == {good}
    wait_until(lambda: bad in capfd.readouterr().err)
    with pytest.raises(StartupFailed, match=r"No space left on device.*TMPDIR"):
        mr.spawn(where, args=(0.0,), expect_worker=bad).execute()
    full.clear()
    assert mr.spawn(where, args=(0.0,), expect_worker=bad).execute().fetch() == bad
    assert not there.loop.scheduler.groups[0].closed


def test_the_line_of_a_closed_node_names_it_with_its_cause_and_comes_once(
    on_nodes: Callable[..., Any],
    full: set[Any],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    monkeypatch.setattr(reactor, "CLOSED_S", 0.5)
    lines: list[str] = []
    there = on_nodes(2)
    monkeypatch.setattr(there.loop.deaths, "_tell", lines.append)
    bad, _ = there.session.get_worker_addresses()
    fill(there, full, bad)
    closed = []
    close = deaths.Deaths.close_group
    monkeypatch.setattr(
        deaths.Deaths, "close_group", lambda self, one: (closed.append(one), close(self, one))
    )
    while len(closed) < 2:
        mr.ExecutableTuple([mr.spawn(where, args=(0.1,)) for _ in range(4)]).execute()
    (line,) = [line for line in lines if "closed" in line]
    assert bad in line and "No space left on device" in line and "run elsewhere" in line


def test_a_node_with_fewer_workers_than_cores_is_named_with_the_cause(
    on_nodes: Callable[..., Any],
    full: set[Any],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    there = on_nodes(1)
    address = there.carrier.join(cpus=2.0)
    wait_until(lambda: address in there.session.get_worker_addresses())
    begun, over = tmp_path / "begun", tmp_path / "over"
    held = mr.spawn(wait_for, args=(str(begun), str(over)), expect_worker=address)
    run = held.execute(wait=False)
    wait_until(begun.exists)
    full.add(there.carrier.node(address))
    more = mr.spawn(where, args=(0.0,), expect_worker=address)
    waiting = more.execute(wait=False)
    said: list[str] = []
    wait_until(lambda: said.append(capfd.readouterr().err) or "fewer worker" in "".join(said))
    over.touch()
    run.result()
    waiting.result()
    assert more.fetch() == address
    (line,) = [line for line in "".join(said).splitlines() if "fewer worker" in line]
    assert f"than cores on node {os.uname().nodename} ({address}), as another one" in line
    assert "No space left on device" in line


def test_when_all_nodes_are_closed_the_run_ends_and_says_why_of_each(
    on_nodes: Callable[..., Any], full: set[Any]
) -> None:
    there = on_nodes(2)
    addresses = there.session.get_worker_addresses()
    fill(there, full, *addresses)
    for _ in range(2):
        with pytest.raises(StartupFailed, match="No space left on device") as told:
            mr.ExecutableTuple([mr.spawn(where, args=(0.0,)) for _ in range(4)]).execute()
    for address in addresses:
        assert address in str(told.value)
    full.clear()
    calls = [mr.spawn(where, args=(0.0,)) for _ in range(4)]
    mr.ExecutableTuple(calls).execute()
    assert {call.fetch() for call in calls} <= {*addresses}
