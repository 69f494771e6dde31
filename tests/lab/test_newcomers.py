"""A cluster as newcomers meet it: what they are told, and how soon a program begins again."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.clusters import HEAD, NODES, SHARE, WEB, Driver, LabCluster
from tests.lab.hosts import Host, Lab

pytest.importorskip("distributed")
pytest.importorskip("ray")
pytest.importorskip("grpc")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

AGAIN_S = 15.0
"""A program that is started again begins within that; on a quiet machine it takes 3 seconds. Ray
holds the cores of a program that was killed for 30 seconds, if nobody tells it better."""


LACKS = "/mnt/tmp/lacks"

LACKING = """
import sys

class Lacks:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "sklearn":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Lacks)
"""
"""Python on the host ``two`` finds no scikit-learn."""


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(lab: Lab, request: pytest.FixtureRequest) -> Iterator[LabCluster]:
    """Head, nodes of one core, of which ``two`` lacks a package, and a client; each on a host."""
    made = LabCluster(lab, request.param, nodes=("one",))
    lab["two"].run("mkdir", LACKS)
    lab["two"].run("tee", f"{LACKS}/sitecustomize.py", stdin=LACKING)
    joining = ("mars", "cluster", "join", HEAD, "--credentials", "-", *SHARE)
    path = f"PYTHONPATH={os.pathsep.join([LACKS, os.environ.get('PYTHONPATH', '')])}"
    lab["two"].run("env", path, sys.executable, "-m", *joining, stdin=made.bundle, limit_s=120)
    yield made
    made.close()


BEGIN = """
import json, os, socket, sys, threading, time
import mars, mars.remote as mr

def say(word, value=""):
    print(word, json.dumps(value), flush=True)

began = time.monotonic()
"""

RUNS = """
def long_call():
    print("now", flush=True)
    threading.Event().wait()

session = mars.new_session(sys.argv[1])
say("began", time.monotonic() - began)
call = mr.spawn(long_call)
run = call.execute(wait=False)
for line in call.fetch_log(follow=True):
    break
say("runs")
run.result()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_program_that_was_ended_begins_within_seconds_when_it_is_started_again(
    drive: Callable[..., Driver], number: signal.Signals
) -> None:
    first = drive(RUNS)
    first.until("runs")
    Host.send(first.process, number)
    second = drive(RUNS)
    assert second.json("began") < AGAIN_S
    second.until("runs")  # the cores are free, too
    second.kill()


def test_a_program_without_credentials_gets_no_traceback_through_our_files(
    cluster: LabCluster,
) -> None:
    for address in (
        WEB,
        "tls://10.77.0.1:7103" if cluster.engine == "dask" else "ray://10.77.0.1:7105",
    ):
        program = f"import mars\nmars.new_session({address!r})\n"
        ended = cluster["client"].run(
            "env", "HOME=/mnt/tmp", sys.executable, "-c", program, check=False, limit_s=50.0
        )
        assert ended.returncode == 1
        lines = ended.stderr.splitlines()
        assert "mars cluster credentials import" in lines[-1], ended.stderr
        frames = [line for line in lines if line.startswith("  File ")]
        assert len(frames) == 2, ended.stderr  # of the program, and `new_session`


def test_the_examples_take_the_address_of_a_cluster(cluster: LabCluster) -> None:
    small = ("--points", "40_000", "--chunks", "4")
    ended = cluster["client"].run(
        sys.executable, str(EXAMPLES / "monte_carlo_pi.py"), *small, "--address", WEB
    )
    assert "on 2 cores" in ended.stdout  # each node has one
    pi = re.findall(r"^(?:serial|spawned)\s+(\S+)", ended.stdout, re.M)
    assert len(pi) == 2 and pi[0] == pi[1]


NEEDS = """
def trains():
    import sklearn
    return sklearn.__name__

def tries():
    try:
        import sklearn
    except ImportError:
        return "without"
    return "with"

with mars.new_session(sys.argv[1]) as session:
    places = session.get_worker_addresses()
    found = mr.ExecutableTuple([mr.spawn(tries, expect_worker=place) for place in places])
    say("tries", sorted(found.execute().fetch()))
    calls = [mr.spawn(trains, expect_worker=place) for place in places]
    mr.ExecutableTuple(calls).execute(on_error="continue")
    for call in calls:
        try:
            say("trains", call.fetch())
        except ModuleNotFoundError as error:
            say("fails", str(error))
"""


def test_a_package_that_a_node_lacks_is_named_before_calls_that_need_it_are_sent(
    cluster: LabCluster, drive: Callable[..., Driver]
) -> None:
    sklearn = pytest.importorskip("sklearn")
    driver = drive(NEEDS)
    assert driver.json("tries") == ["with", "without"]
    assert "sklearn" not in driver.said  # it is optional there
    assert driver.end() == 0
    told, *results = driver.said.splitlines()[-3:]
    assert re.fullmatch(
        r"mars: node two \(.*\) has no sklearn, which calls of trains need: they will fail there; "
        rf"on that host: pip install 'scikit-learn=={re.escape(sklearn.__version__)}'",
        told,
    ), driver.said
    assert sorted(result.split()[0] for result in results) == ["fails", "trains"]


SILENT = """
def waits_for_ever():
    threading.Event().wait()

session = mars.new_session(sys.argv[1])
mars.options.silent_notice = 1
mr.ExecutableTuple([mr.spawn(waits_for_ever) for _ in range(int(sys.argv[2]))]).execute()
"""


@pytest.mark.parametrize("count", [1, 2])
def test_the_command_that_a_notice_names_shows_where_calls_on_nodes_are(
    cluster: LabCluster, drive: Callable[..., Driver], count: int
) -> None:
    driver = drive(SILENT, str(count))  # with 2 no core is left for anybody else
    notice = driver.until("mars: ")
    found = re.search(r'"mars (stack [^"]+)" shows where', notice)
    assert found, notice
    assert " on node " in notice
    shown = cluster["client"].mars(*found[1].split()).stdout
    assert shown.count("in waits_for_ever") == count, shown
    assert [name for name in NODES if f"node {name} (" in shown] == list(NODES), shown
    driver.kill()


def test_a_head_that_is_killed_is_told_of_by_the_error_alone(
    cluster: LabCluster, drive: Callable[..., Driver]
) -> None:
    """The last test: the cluster is gone after it."""
    driver = drive(RUNS)
    driver.until("runs")
    before = len(driver.said)
    cluster.kill("head")
    assert driver.end(60.0) == 1
    said = driver.said[before:]
    assert said.count("Traceback") == 1, said
    assert "mars.errors.ClusterUnreachable: the cluster at" in said, said
    assert "run elsewhere" not in said
    if cluster.engine == "dask":  # Ray's client warns of its connections in lines of its own
        assert said.startswith("Traceback"), said
