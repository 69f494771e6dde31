"""A cluster on Ray over hosts of their own, with TLS and a token."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.lab.hosts import Lab

pytest.importorskip("ray")
pytest.importorskip("grpc")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

STRANGER = str(Path(__file__).parents[1] / "deploy" / "stranger.py")

PROGRAM = """
import os
import socket
import mars
import mars.remote as mr

def call(index):
    print("call", index)
    return socket.gethostname()

def variable():
    return os.environ["OF_ITS_OWN"]

with mars.new_session("http://10.77.0.1:7104"):
    calls = [mr.spawn(call, args=(i,)) for i in range(20)]
    hosts = sorted(set(mr.ExecutableTuple(calls).execute().fetch()))
    print(hosts, str(calls[7].fetch_log()).strip())
    try:
        mr.spawn(call, args=(1,), memory="1GiB").execute()
    except mars.errors.NoAvailableBand as error:
        print(error)

    import ray  # whose own tasks have an environment by way of the agent beside them

    own = ray.remote(num_cpus=0, runtime_env={"env_vars": {"OF_ITS_OWN": "value"}})(variable)
    print(ray.get(own.remote(), timeout=30))
"""

REFUSED = """
from dataclasses import replace
from mars.deploy.targets import resolve

target = resolve("http://10.77.0.1:7104")
target = replace(target, credentials=replace(target.credentials, token="ab" * 32))
try:
    target.check()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_cluster_on_ray_from_up_to_down(lab: Lab) -> None:
    """One test, because Ray needs half a minute to come and go."""
    lab["head"].mars("cluster", "up", "--engine", "ray", "--host", "head")
    bundle = lab["head"].mars("cluster", "credentials", "export").stdout
    share = ("--n-cpu", "1", "--memory", "1GiB")
    head = "10.77.0.1:7103"
    lab["one"].mars("cluster", "join", head, "--credentials", "-", *share, stdin=bundle)
    report = json.loads(lab["head"].mars("cluster", "status", "--json").stdout)[0]
    assert report["ok"] and [node["host"] for node in report["nodes"]] == ["10.77.0.2"]

    client_only = lab["head"].mars("cluster", "credentials", "export", "--client-only").stdout
    lab["client"].mars("cluster", "credentials", "import", stdin=client_only)
    printed, refused, own = lab["client"].python(PROGRAM).stdout.splitlines()[-3:]
    assert (printed, own) == ("['one'] call 7", "value")
    assert f"may take {0.9 * 2**30:,.0f} together" in refused  # of what it joined with

    refused = lab["client"].python(REFUSED, limit_s=15).stdout
    assert refused.startswith("CredentialsError") and "refuses the token" in refused

    for name in ("head", "one"):
        ports = lab[name].ports()
        said = lab["client"].run(sys.executable, STRANGER, lab[name].address, *ports)
        assert len(ports) >= 3, (name, ports)
        for port, (over_tls, over_tcp) in zip(ports, json.loads(said.stdout), strict=True):
            explained = port == "7104" and "HTTP/1.0 400" in over_tcp  # that it wants TLS
            assert over_tls.startswith("refused:"), (name, port, over_tls)
            assert explained or over_tcp.startswith("refused:"), (name, port, over_tcp)

    for name in ("one", "head"):
        lab[name].mars("cluster", "down")
        assert (lab[name].processes(), lab[name].files()) == ([], []), name
