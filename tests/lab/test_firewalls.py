"""Hosts behind firewalls that let in what docs/starting-clusters.md names, and nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.clusters import NODES, WEB, LabCluster
from tests.lab.hosts import Host, Lab

pytest.importorskip("distributed")
pytest.importorskip("ray")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

FIRST = 7200
"""Of the ports of each node."""

OPEN = {
    "dask": {"head": "7103", "node": f"{FIRST}-{FIRST + 1}"},
    "ray": {
        "head": "7103, 7105-7107, 7114-8113",
        "node": f"{FIRST}-{FIRST + 1}, {FIRST + 8}-{FIRST + 1007}",
    },
}
"""What has to be open, and where; 7104 may stay closed."""

ADDRESS = {"dask": "tls://10.77.0.1:7103", "ray": "ray://10.77.0.1:7105"}

SESSIONS = "7190-7199"
"""What a program tells the nodes to take for themselves."""

PROGRAM = """
import json, sys
import numpy as np
import mars, mars.remote as mr

def make(size):
    return np.arange(size)

def read(array):
    return int(array.sum())

session = mars.new_session(sys.argv[1], node_ports=sys.argv[2])
one, two = sorted(session.get_worker_addresses())
made = mr.spawn(make, (2_000_000,), expect_worker=one)
there = mr.spawn(read, (made,), expect_worker=two)
small = [mr.spawn(pow, (index, 2)) for index in range(50)]
whole, *found = mr.ExecutableTuple([made, there, *small]).execute().fetch()
lines = [node.line is not None for node in session.engine.site.nodes.shipping.nodes]
print(json.dumps([found[0], sum(found[1:]), int(whole.sum()), lines]))
"""
ANSWER = [sum(range(2_000_000)), sum(n * n for n in range(50)), sum(range(2_000_000))]


@pytest.fixture(scope="module")
def shut(lab: Lab) -> Lab:
    """The hosts, with tools for firewalls."""
    if shutil.which("nft") is None:
        pytest.skip("nftables is not installed")
    tried = lab["client"].run("nft", "list", "tables", check=False)
    if tried.returncode:
        pytest.skip(f"this system has no firewall to offer: {tried.stderr.strip()}")
    return lab


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(shut: Lab, request: pytest.FixtureRequest) -> Iterator[LabCluster]:
    share = ("--n-cpu", "1", "--memory", "1GiB", "--port", str(FIRST))
    let_in(shut["client"], "")
    let_in_all(shut, request.param, SESSIONS)
    made = LabCluster(shut, request.param, share=share)
    try:
        yield made
    finally:
        made.close()


def let_in(host: Host, ports: str) -> None:
    """Drop all that comes from other hosts, but for answers and what goes to these ports."""
    opened = f"tcp dport {{ {ports} }} accept" if ports else ""
    rules = f"""
        table inet firewall
        delete table inet firewall
        table inet firewall {{
            counter dropped {{ }}
            chain coming {{
                type filter hook input priority 0; policy drop;
                iif lo accept
                ct state established,related accept
                meta l4proto {{ icmp, icmpv6 }} accept
                {opened}
                counter name dropped
            }}
        }}
    """
    host.run("nft", "--file", "-", stdin=rules)


def let_in_all(lab: Lab, engine: str, nodes: str = "", head: str = "") -> None:
    """Open what an engine needs, and further ports of the nodes and of the head."""
    let_in(lab["head"], ", ".join(filter(None, (OPEN[engine]["head"], head))))
    for name in NODES:
        let_in(lab[name], ", ".join(filter(None, (OPEN[engine]["node"], nodes))))


def dropped(host: Host) -> int:
    """Packets that its firewall has not let in."""
    listed = json.loads(host.run("nft", "--json", "list", "counters").stdout)["nftables"]
    return next(entry["counter"]["packets"] for entry in listed if "counter" in entry)


def run(cluster: LabCluster, address: str) -> Any:
    ran = cluster["client"].run(
        sys.executable, "-W", "ignore", "-c", PROGRAM, address, SESSIONS, limit_s=90.0
    )
    return json.loads(ran.stdout)


def test_the_ports_that_are_named_are_all_that_is_needed(cluster: LabCluster) -> None:
    address = ADDRESS[cluster.engine]
    assert run(cluster, address) == [*ANSWER, [True, True]]
    cluster["client"].mars("doctor", address, "--node-ports", SESSIONS)
    assert {name: dropped(cluster[name]) for name in NODES} == dict.fromkeys(NODES, 0)


def test_without_ports_for_sessions_values_take_another_way(cluster: LabCluster) -> None:
    let_in_all(cluster.lab, cluster.engine)
    assert run(cluster, ADDRESS[cluster.engine]) == [*ANSWER, [False, False]]
    assert all(dropped(cluster[name]) for name in NODES)
    let_in_all(cluster.lab, cluster.engine, SESSIONS, "7104")
    assert run(cluster, WEB) == [*ANSWER, [True, True]]
