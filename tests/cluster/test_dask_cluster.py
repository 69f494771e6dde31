"""Sessions on a Dask cluster that is there: who may join, what comes and goes, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import mars
import mars.remote as mr
from mars.engines.cluster import nodes as cluster_nodes
from mars.engines.cluster.mirrors import Mirrors
from mars.engines.cluster.nodes import Nodes
from mars.engines.cluster.pairs import Pairs
from mars.engines.cluster.remote_node import RemoteNode
from mars.engines.kinds import EngineOptions
from tests.cluster.conftest import DaskHosts, node_process

pytestmark = pytest.mark.timeout(120)


def test_a_node_that_joins_during_a_run_takes_part(
    dask_hosts: DaskHosts, pass_gate: Callable[..., None], tmp_path: Path
) -> None:
    dask_hosts.add_node()
    with dask_hosts.session(1) as session:
        (first,) = session.get_worker_addresses()
        gate = tmp_path / "gate"
        holder = mr.spawn(pass_gate, (gate, 60.0))
        waiting = mr.spawn(lambda: mars.get_context().worker_address)
        run = mr.ExecutableTuple([holder, waiting]).execute(wait=False)
        dask_hosts.add_node()
        alone = mr.spawn(lambda: mars.get_context().worker_address).execute()
        assert alone.fetch() != first  # whose only core is taken
        gate.touch()
        run.result(60)
        assert len(session.get_worker_addresses()) == 2
        assert session.get_total_n_cpu() == 2


def test_calls_on_a_node_run_together_while_they_fit_into_its_memory(
    dask_hosts: DaskHosts,
    tmp_path: Path,
    note: Callable[..., None],
    lines: Callable[[object], list[str]],
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
) -> None:
    small = dask_hosts.add_node(cpus=2, memory="1GiB")
    large = dask_hosts.add_node(cpus=2, memory="2GiB")

    ledger, gate = tmp_path / "begun", tmp_path / "gate"

    def work() -> tuple[int, float, float]:
        started = time.monotonic()
        note(ledger)
        pass_gate(gate)
        time.sleep(0.3)
        return node_process(), started, time.monotonic()

    def together(ran: list[tuple[int, float, float]], node: int) -> int:
        here = [(start, end) for process, start, end in ran if process == node]
        return max((sum(a <= start < b for a, b in here) for start, _ in here), default=0)

    with dask_hosts.session(2):
        calls = [mr.spawn(work, memory="800MiB") for _ in range(8)]
        run = mr.ExecutableTuple(calls).execute(wait=False)
        # One on the small node, two on the large one; their processes may take long to start.
        wait_until(lambda: len(lines(ledger)) >= 3, 40)
        gate.touch()
        run.result(60)
        ran = [call.fetch() for call in calls]
        assert together(ran, small.pid) == 1
        assert together(ran, large.pid) == 2
        whole = [mr.spawn(work, memory="1.5GiB") for _ in range(2)]
        ran = mr.ExecutableTuple(whole).execute().fetch()
        assert together(ran, large.pid) == 1
        assert {process for process, _, _ in ran} == {large.pid}
        with pytest.raises(mars.errors.NoAvailableBand, match="node that has most"):
            mr.spawn(work, memory="3GiB").execute()


def test_who_has_no_certificate_is_refused_at_once(dask_hosts: DaskHosts, tmp_path: Path) -> None:
    dask_hosts.add_node()
    dask_hosts.session(1).stop_server()
    with pytest.raises(mars.errors.StartupFailed, match="certificate"):
        mars.new_session(dask_hosts.address.replace("tls://", "tcp://"))
    other = tmp_path / "other"
    other.mkdir()
    stranger = DaskHosts.__new__(DaskHosts)
    from distributed import Security

    made = Security.temporary()
    for name, content in (("ca", made.tls_ca_file), ("cert", made.tls_client_cert),
                          ("key", made.tls_client_key)):  # fmt: skip
        (other / name).write_text(content)
    stranger.ca_path, stranger.cert_path, stranger.key_path = (  # type: ignore[attr-defined]
        other / "ca", other / "cert", other / "key",
    )  # fmt: skip
    with pytest.raises(mars.errors.StartupFailed, match="certificate"):
        mars.new_session(dask_hosts.address, security=stranger)


def test_two_programs_share_a_cluster(dask_hosts: DaskHosts) -> None:
    dask_hosts.add_node(2)
    first = dask_hosts.session(1, default=False)
    from mars.engines import dask

    engine = dask.connect(dask_hosts.address, EngineOptions(security=dask_hosts.credentials))
    second = mars.session.Session(engine, "second")
    try:
        one, two = mr.spawn(abs, -1), mr.spawn(abs, -2)
        one.execute(session=first)
        two.execute(session=second)
        assert one.fetch(session=first) == 1
        assert two.fetch(session=second) == 2
    finally:
        engine.close()
        first.stop_server()


DRIVER = """
import os, sys, time
import mars, mars.remote as mr
from tests.cluster.conftest import Credentials
from pathlib import Path
folder = Path(sys.argv[2])
security = Credentials(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
mars.new_session(sys.argv[1], security=security)
pid = mr.spawn(os.getpid).execute().fetch()
run = mr.spawn(time.sleep, (60,)).execute(wait=False)
print(pid, flush=True)
time.sleep(60)
"""


def test_a_killed_program_leaves_no_process_on_the_nodes(
    dask_hosts: DaskHosts,
    script_environment: dict[str, str],
    wait_until: Callable[..., None],
) -> None:
    dask_hosts.add_node()
    dask_hosts.session(1).stop_server()
    root = str(Path(__file__).parents[2])
    environment = {**script_environment}
    environment["PYTHONPATH"] += os.pathsep + root
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, dask_hosts.address, str(dask_hosts.folder)],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    assert psutil.pid_exists(worker)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    wait_until(lambda: not psutil.pid_exists(worker))
    with dask_hosts.session(1):  # and the cluster serves the next one
        assert mr.spawn(abs, -3).execute().fetch() == 3


def test_calls_wait_for_a_node_when_the_last_one_is_lost_and_not_for_ever(
    dask_hosts: DaskHosts, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    only = dask_hosts.add_node()
    with dask_hosts.session(1) as session:
        monkeypatch.setattr(cluster_nodes, "NODE_WAIT_S", 0.3)
        only.kill()
        wait_until(lambda: not session.get_worker_addresses())
        with pytest.raises(mars.errors.NoAvailableBand, match="no node has any more"):
            mr.spawn(abs, -1, cpus=1).execute()
        monkeypatch.setattr(cluster_nodes, "NODE_WAIT_S", 60.0)
        waiting = mr.spawn(abs, -2)
        run = waiting.execute(wait=False)
        dask_hosts.add_node()
        run.result(60)
        assert waiting.fetch() == 2


def test_variables_for_calls_reach_the_nodes(dask_hosts: DaskHosts) -> None:
    dask_hosts.add_node()
    with dask_hosts.session(1, env={"MARS_TEST_VARIABLE": "seen"}):
        assert mr.spawn(os.getenv, ("MARS_TEST_VARIABLE",)).execute().fetch() == "seen"


def test_a_cluster_without_workers_is_named(
    dask_hosts: DaskHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mars.engines.cluster import engine

    monkeypatch.setattr(engine, "NODES_START_S", 0.5)
    dask_hosts.wait()
    with pytest.raises(mars.errors.StartupFailed, match="has no worker"):
        mars.new_session(dask_hosts.address, security=dask_hosts.credentials)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "through the scheduler"])
@pytest.mark.usefixtures("apart")
def test_values_and_logs_come_whichever_way_a_node_can_be_reached(
    dask_hosts: DaskHosts, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    from mars.engines.cluster import engine

    def unreachable(*_: object) -> None:
        raise OSError("no route to host")

    if not direct:
        monkeypatch.setattr(engine, "reach", unreachable)
    dask_hosts.add_node()

    def make(size: int) -> np.ndarray:
        print("makes", size)
        return np.arange(size)

    with dask_hosts.session(1, node_ports="21300-21399") as session:
        (node,) = session.engine.site._nodes.values()  # type: ignore[attr-defined]
        assert (node.line is not None) is direct
        if direct:
            assert 21_300 <= node.line._sending.getpeername()[1] <= 21_399
        made = mr.spawn(make, (3_000_000,)).execute()
        given = mr.spawn(np.sum, (np.arange(2_000_000),)).execute()
        assert made.fetch().sum() == np.arange(3_000_000).sum()
        assert given.fetch() == np.arange(2_000_000).sum()
        assert "makes 3000000" in str(made.fetch_log())


@pytest.mark.parametrize(
    "direct", [True, pytest.param(False, marks=pytest.mark.campaign)], ids=["direct", "passed on"]
)
@pytest.mark.usefixtures("apart")
def test_a_value_that_many_read_goes_to_the_other_node_once_and_before_all_is_read(
    dask_hosts: DaskHosts, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    got: list[object] = []
    get = Nodes._get

    def noted_get(loop: Nodes, attempt: int, value: object, *nodes: Any) -> None:
        got.append(value)
        get(loop, attempt, value, *nodes)

    monkeypatch.setattr(Nodes, "_get", noted_get)
    passed: list[object] = []
    pass_on = Mirrors.pass_on

    def noted(store: Mirrors, value: object, node: RemoteNode) -> None:
        passed.append(value)
        pass_on(store, value, node)

    monkeypatch.setattr(Mirrors, "pass_on", noted)
    if not direct:
        monkeypatch.setattr(Pairs, "may_meet", lambda *_: False)
    dask_hosts.add_node()
    dask_hosts.add_node()

    def read(array: np.ndarray) -> tuple[str | None, int]:
        time.sleep(0.05)
        return mars.get_context().worker_address, int(array.sum())

    with dask_hosts.session(2) as session:
        made = mr.spawn(np.arange, (2_000_000,))
        calls = [mr.spawn(read, (made,)) for _ in range(40)]
        told = mr.ExecutableTuple(calls).execute().fetch()
        assert {total for _, total in told} == {sum(range(2_000_000))}
        assert {where for where, _ in told} == set(session.get_worker_addresses())
        assert (len(got), len(passed)) == ((1, 0) if direct else (0, 1))
        assert (made.execute().fetch() == np.arange(2_000_000)).all()
