"""A cluster on Dask over hosts of their own: up on one, join from two, a program on a fourth."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.hosts import Host, Lab

pytest.importorskip("distributed")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

STRANGER = str(Path(__file__).parents[1] / "deploy" / "stranger.py")

HEAD = "10.77.0.1:7103"

CONNECT = """
import os, socket, sys, time
from distributed import Client, Security, wait
from mars.deploy.targets import resolve

target = resolve(sys.argv[1])
target.check()
assert target.engine == "dask" and target.credentials is not None
security = Security(
    tls_ca_file=target.credentials.ca_path,
    tls_client_cert=target.credentials.cert_path,
    tls_client_key=target.credentials.key_path,
    require_encryption=True,
)
client = Client(target.address, security=security, timeout=20)
"""


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Lab:
    """Head on ``head``, a node on ``one`` and on ``two``, credentials on ``client``."""
    lab["head"].mars("cluster", "up", "--engine", "dask", "--host", "10.77.0.1")
    bundle = lab["head"].mars("cluster", "credentials", "export").stdout
    for name in ("one", "two"):
        share = ("--n-cpu", "1", "--memory", "512MiB")
        lab[name].mars("cluster", "join", HEAD, "--credentials", "-", *share, stdin=bundle)
    for_clients = lab["head"].mars("cluster", "credentials", "export", "--client-only").stdout
    lab["client"].mars("cluster", "credentials", "import", stdin=for_clients)
    return lab


def connect(host: Host, program: str, *, check: bool = True) -> str:
    """What a program prints that runs after `CONNECT`."""
    ended = host.run(
        "env", "PYTHONWARNINGS=error", sys.executable, "-c", CONNECT + program, "http://10.77.0.1:7104",
        check=check,
    )  # fmt: skip
    return ended.stdout


def test_a_program_on_a_fourth_host_reaches_both_nodes_by_the_web_address(cluster: Lab) -> None:
    said = connect(
        cluster["client"],
        "print(sorted(client.run(socket.gethostname).values()))\n"
        "print(client.submit(pow, 7, 2).result())\nclient.close()\n",
    )
    assert said.splitlines() == ["['one', 'two']", "49"]


PROGRAM = """
import socket, sys, time
import mars
import mars.remote as mr

def square(i):
    print("call", i, "on", socket.gethostname())
    time.sleep(0.02)
    return i * i

with mars.new_session(sys.argv[1]):
    calls = [mr.spawn(square, args=(i,)) for i in range(40)]
    print(mr.spawn(sum, args=(calls,)).execute(show_progress=False).fetch())
    logs = [str(log) for log in mars.fetch_log(mr.ExecutableTuple(calls).execute())]
    assert [log.split()[1] for log in logs] == [str(i) for i in range(40)], logs
    print(sorted({log.split()[-1] for log in logs}))
"""


def test_a_mars_program_on_a_fourth_host_runs_on_both_nodes_with_its_logs(cluster: Lab) -> None:
    ended = cluster["client"].run(sys.executable, "-c", PROGRAM, "http://10.77.0.1:7104")
    assert ended.stdout.splitlines() == [str(sum(i * i for i in range(40))), "['one', 'two']"]


def test_status_names_the_nodes_and_is_well(cluster: Lab) -> None:
    report = json.loads(cluster["head"].mars("cluster", "status", "--json").stdout)[0]
    assert report["ok"] and report["secure"] and report["address"] == "tls://10.77.0.1:7103"
    assert sorted(node["host"] for node in report["nodes"]) == ["10.77.0.2", "10.77.0.3"]
    assert {node["n_cpu"] for node in report["nodes"]} == {1}


def test_nothing_beyond_loopback_talks_to_a_stranger(cluster: Lab) -> None:
    for name in ("head", "one", "two"):
        ports = cluster[name].ports()
        assert ports, f"nothing listens on {name}"
        said = cluster["client"].run(sys.executable, STRANGER, cluster[name].address, *ports)
        for port, (over_tls, over_tcp) in zip(ports, json.loads(said.stdout), strict=True):
            assert over_tls.startswith("refused:"), (name, port, over_tls)
            # The web port explains itself; the others hang up on what is no TLS.
            explained = port == "7104" and "HTTP/1.0 400" in over_tcp
            assert explained or over_tcp.startswith("refused:"), (name, port, over_tcp)


def test_a_host_without_credentials_is_refused_and_told_what_to_do(cluster: Lab) -> None:
    with Lab(["stranger"]) as other:  # knows nothing, and needs no network to be told so
        refused = other["stranger"].mars("cluster", "join", HEAD, check=False)
        assert refused.returncode == 2
        assert "credentials export" in refused.stderr


def test_a_client_bundle_does_not_let_a_host_join(cluster: Lab) -> None:
    refused = cluster["client"].mars("cluster", "join", HEAD, "--n-cpu", "1", check=False)
    assert refused.returncode == 2
    assert "for clients" in refused.stderr
    assert cluster["client"].processes() == []


def test_a_cut_link_stops_calls_and_a_mended_one_lets_them_go_on(
    cluster: Lab, wait_until: Callable[..., None]
) -> None:
    """What Dask's own client sees: the call waits while the link is down, and then it ends."""
    program = cluster["client"].start(
        sys.executable, "-u", "-c",
        CONNECT + "print('connected', flush=True)\ninput()\n"
        "calls = client.map(lambda n: (time.sleep(0.1), n)[1], range(40), pure=False)\n"
        "print('begun', flush=True)\nprint(sum(client.gather(calls)), flush=True)\n",
        "http://10.77.0.1:7104",
    )  # fmt: skip
    assert program.stdout is not None and program.stdin is not None
    try:
        assert program.stdout.readline() == "connected\n"
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "begun\n"
        cluster.cut("two")
        unreachable = cluster["head"].run(
            sys.executable, "-c", "import socket; socket.create_connection(('10.77.0.3', 22), 1)",
            check=False,
        )  # fmt: skip
        assert re.search("timed out|No route|unreachable", unreachable.stderr)
        cluster.mend("two")
        assert program.stdout.readline() == f"{sum(range(40))}\n"
        assert program.wait(10) == 0
    finally:
        Host.send(program, signal.SIGKILL)
        program.communicate(timeout=10)


def test_down_ends_all_that_was_started_and_leaves_no_file(
    cluster: Lab, wait_until: Callable[..., None]
) -> None:
    for name in ("one", "two", "head"):
        cluster[name].mars("cluster", "down")
        assert cluster[name].processes() == [], name
        assert cluster[name].files() == [], name
    gone = cluster["client"].run(
        sys.executable, "-c", CONNECT, "http://10.77.0.1:7104", check=False, limit_s=10
    )
    assert "no cluster answers at 10.77.0.1:7103" in gone.stderr
