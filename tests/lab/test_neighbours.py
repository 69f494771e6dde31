"""Who shares a host with us, or has a bundle for clients, and means harm.

On Dask and on Ray, over hosts of their own; the tests of an engine share a cluster.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.clusters import HEAD, NODES, WEB, Driver, LabCluster
from tests.lab.hosts import KEPT, Host, Lab, why_not

pytest.importorskip("distributed")
pytest.importorskip("ray")
pytest.importorskip("grpc")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

SOMEBODY = "4321"
"""Number of the other user; no account is needed."""

NEIGHBOUR = Path(__file__).with_name("neighbour.py").read_text()


@pytest.fixture(scope="module")
def lab(leak_guard: None) -> Iterator[Lab]:
    """Four hosts, on which nothing of the machine's own temporary files is seen."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Lab(["head", "one", "two", "client"], own_tmp=True) as made:
        yield made


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(lab: Lab, request: pytest.FixtureRequest) -> Iterator[LabCluster]:
    """Head, two nodes of one core, and a client with a bundle for clients."""
    made = LabCluster(lab, request.param)
    yield made
    made.close()


BEGIN = """
import json, os, socket, sys, time
import mars, mars.remote as mr

def say(word, value=""):
    print(word, json.dumps(value), flush=True)
"""

BUSY = """
os.makedirs("/mnt/home/job", 0o700, exist_ok=True)
open("/mnt/home/job/data", "w").write("secret")

def make(index):
    print("call", index, "prints")
    return bytes([index]) * 2_000_000

def wait():
    print("waiting", flush=True)
    time.sleep(600)

session = mars.new_session(
    sys.argv[1], checkpoint="/mnt/tmp/otto", working_dir="/mnt/home/job", object_memory="8MiB"
)
made = mr.ExecutableTuple([mr.spawn(make, args=(i,)) for i in range(20)]).execute()
run = mr.ExecutableTuple([mr.spawn(wait) for _ in range(2)]).execute(wait=False)
say("running")
input()
say("right", [one.fetch()[0] for one in made] == list(range(20)))
run.cancel()
session.stop_server()
"""


def try_all(host: Host) -> str:
    """Fail if another user gets anything there; command lines that everybody sees."""
    tried = host.run(sys.executable, "-", SOMEBODY, *KEPT, stdin=NEIGHBOUR, limit_s=120)
    found = json.loads(tried.stdout)
    answers = found["got"].pop("answered", [])
    assert found["got"] == {}, host.name
    for answer in answers:  # what hangs up gives none
        assert re.search(r" HTTP/1\.\d (400|401|403|404|405) ", answer), (host.name, answer)
    return "\n".join(found["command lines"])


def test_another_user_of_a_host_gets_nothing_that_is_ours(
    cluster: LabCluster, drive: Callable[..., Driver]
) -> None:
    driver = drive(BUSY)
    driver.until("running")
    secret = cluster["head"].run(
        "sh", "-c", "cat /mnt/home/.local/state/mars/clusters/*/credentials/token"
    )
    for name in ("head", *NODES, "client"):
        seen = try_all(cluster[name])
        assert "mars" in seen, "nothing of ours runs there"
        assert secret.stdout not in seen and "PRIVATE KEY" not in seen
    driver.go()
    assert driver.json("right") is True
    assert driver.end() == 0, driver.said


OWN = """
session = mars.new_session(engine=sys.argv[2], n_cpu=1, checkpoint=f"/mnt/tmp/otto-{sys.argv[2]}")
say("made", mr.spawn(lambda: len(bytes(2_000_000))).execute().fetch())
run = mr.spawn(time.sleep, (600,)).execute(wait=False)
say("running")
input()
run.cancel()
session.stop_server()
say("left", os.listdir("/mnt/tmp"))
"""


@pytest.mark.parametrize("engine", ["local", "dask", "ray"])
def test_another_user_gets_nothing_of_an_engine_of_ones_own(lab: Lab, engine: str) -> None:
    driver = Driver(lab["client"], BEGIN + OWN, "", engine)
    try:
        assert driver.json("made") == 2_000_000
        driver.until("running")
        try_all(lab["client"])
        driver.go()
        left = driver.json("left")
        assert not [name for name in left if name.startswith(("mars-", "ray"))], left
        assert driver.end() == 0, driver.said
    finally:
        driver.close()


FOLLOWED = """
import json, os, subprocess, sys
import mars, mars.remote as mr
from mars.deploy import credentials

def where():
    import statistics
    child = [sys.executable, "-c", "import statistics; print(statistics.__file__, end='')"]
    found = statistics.__file__, subprocess.run(child, capture_output=True, text=True).stdout
    return found, os.getcwd(), os.uname().nodename

inside = {"engine": "ray", "security": credentials.find(sys.argv[1])}
with mars.new_session(sys.argv[1], **({} if "http" in sys.argv[1] else inside)) as session:
    os.environ["PYTHONPATH"] = os.getcwd()
    for address in session.get_worker_addresses():
        print("found", json.dumps(mr.spawn(where, expect_worker=address).execute().fetch()))
"""

TRAP = """
import os, sys
folder = sys.argv[1]
os.makedirs(folder)
for name in ("statistics", "mars", "sitecustomize"):
    open(f"{folder}/{name}.py", "w").write(f"open('{folder}/trapped', 'w')")
for path in (folder, *(f"{folder}/{name}" for name in os.listdir(folder))):
    os.chown(path, 4321, 4321)
"""


@pytest.mark.parametrize("host", ["client", "one"])
def test_nothing_of_another_user_is_imported_because_the_program_has_a_folder_of_that_name(
    cluster: LabCluster, host: str
) -> None:
    """Also by Ray itself, for programs on a host of it."""
    if host == "one" and cluster.engine == "dask":
        pytest.skip("to Dask programs are outside wherever they are")
    folder = f"/tmp/job-{cluster.engine}-{host}"
    cluster["two"].run(sys.executable, "-c", TRAP, folder)
    cluster[host].run("mkdir", "-m", "700", folder)
    cluster[host].run("tee", f"{folder}/program.py", stdin=FOLLOWED)
    address = WEB if host == "client" else HEAD
    ran = cluster[host].run(
        "sh", "-c", f"cd {folder} && {sys.executable} program.py {address} 2>&1"
    )
    found = [json.loads(line[6:]) for line in ran.stdout.splitlines() if line.startswith("found")]
    assert sorted(node for _, _, node in found) == ["one", "two"]
    for modules, here, node in found:
        assert not any(module.startswith(folder) for module in modules)
        assert all(module.endswith("/statistics.py") for module in modules)
        assert (here == folder) == (node == host)
    assert not cluster["two"].run("ls", f"{folder}/trapped", check=False).stdout
    said = [line for line in ran.stdout.splitlines() if "does not follow" in line]
    assert len(said) == 1, ran.stdout
    assert f"to {folder}: {folder} belongs to user {SOMEBODY}" in said[0]
    assert f"leaves {folder} out of PYTHONPATH" in ran.stdout


# -- a bundle for clients --------------------------------------------------------------------------

STOLEN = """
def look():
    home = os.path.expanduser("~/.local/state/mars")
    found = [os.path.join(here, name) for here, _, names in os.walk(home) for name in names]
    return os.uname().nodename, found

session = mars.new_session(sys.argv[1])
addresses = session.get_worker_addresses()
calls = [mr.spawn(look, expect_worker=address) for address in addresses]
say("found", dict(mr.ExecutableTuple(calls).execute().fetch()))
session.stop_server()
"""


def test_a_call_finds_no_key_of_the_authority_on_a_node(
    cluster: LabCluster, drive: Callable[..., Driver]
) -> None:
    found = drive(STOLEN).json("found")
    assert set(found) == set(NODES)
    for files in found.values():
        assert any(file.endswith("key.pem") for file in files)
        assert not [file for file in files if file.endswith("ca.key")]


def test_a_bundle_for_clients_makes_no_other_bundle_and_no_node(cluster: LabCluster) -> None:
    client = cluster["client"]
    for words, told in (
        (("join", "10.77.0.1:7103"), "for clients"),
        (("credentials", "export"), "for clients"),
    ):
        refused = client.mars("cluster", *words, check=False)
        assert refused.returncode != 0 and told in refused.stderr
    refused = cluster["one"].mars("cluster", "credentials", "export", "--client-only", check=False)
    assert refused.returncode != 0 and "where the cluster was started" in refused.stderr


# Without our commands: as Dask and Ray themselves start a node.
AS_DASK = """
import asyncio, sys
import distributed
from mars.deploy import credentials

files = credentials.find("10.77.0.1:7103")
security = distributed.Security(
    tls_ca_file=files.ca_path, tls_client_cert=files.cert_path, tls_client_key=files.key_path,
    tls_worker_cert=files.cert_path, tls_worker_key=files.key_path, require_encryption=True,
)

async def main():
    for kind in (distributed.Worker, distributed.Nanny):
        one = kind("tls://10.77.0.1:7103", security=security, nthreads=2, name="evil",
                   host="tls://10.77.0.4", dashboard=False)
        try:
            await asyncio.wait_for(one.start(), 30)
            print(kind.__name__, "is a node", flush=True)
        except Exception as error:
            print(kind.__name__, "refused:", error, error.__cause__, flush=True)
        finally:
            await one.close()
    from distributed.comm import connect

    async with distributed.Client("tls://10.77.0.1:7103", security=security, asynchronous=True,
                                  set_as_default=False) as client:
        keys = await client.run_on_scheduler(
            lambda dask_scheduler: list(dask_scheduler.plugins["mars-relay"]._drivers)
        )
        assert keys, "no program runs"
        for op, facts in (("mars_node", {"address": "tls://10.77.0.4:1"}), ("mars_driver", {})):
            comm = await connect(client.scheduler.address, **client.connection_args)
            await comm.write({"op": op, "key": keys[0], "reply": False, **facts})
            try:
                print(op, "got", await asyncio.wait_for(comm.read(), 10), flush=True)
            except OSError as error:
                print(op, "refused:", error, flush=True)
            comm.abort()

asyncio.run(main())
"""

AS_RAY = """
import os, sys
from mars.deploy import credentials, ray_programs

files = credentials.find("10.77.0.1:7103")
os.environ.update(ray_programs.environment(files))
os.makedirs("/mnt/tmp/evil", 0o700)  # Ray lets everybody into its own, below
words = ["start", "--block", "--address", "10.77.0.1:7103", "--node-ip-address", "10.77.0.4",
         "--num-cpus", "2", "--object-store-memory", "134217728", "--memory", "500000000",
         "--labels", "mars-node=evil", "--temp-dir", "/mnt/tmp/evil/r", "--log-style", "record"]
os.execv(sys.executable, [sys.executable, "-P", "-m", "mars.deploy.ray_start", *words])
"""

ROUNDS = """
def where(index):
    time.sleep(0.02)
    return os.uname().nodename

def hosts():
    calls = [mr.spawn(where, args=(i,)) for i in range(100)]
    return sorted(set(mr.ExecutableTuple(calls).execute().fetch()))

session = mars.new_session(sys.argv[1])
say("before", hosts())
for line in sys.stdin:
    say("meanwhile", hosts())
    session.stop_server()
    began = time.monotonic()
    session = mars.new_session(sys.argv[1])
    say("another", hosts())
    say("took", time.monotonic() - began)
"""


def test_a_bundle_for_clients_makes_no_node_that_gets_calls_also_without_our_commands(
    cluster: LabCluster, drive: Callable[..., Driver], wait_until: Callable[..., None]
) -> None:
    """A program runs on the head all the while."""
    program = drive(ROUNDS, host="head")
    assert set(program.json("before")) <= set(NODES)
    if cluster.engine == "dask":
        tried = cluster["client"].run(sys.executable, "-W", "ignore", "-c", AS_DASK, limit_s=120)
        for what in ("Worker", "Nanny", "mars_node", "mars_driver"):
            assert f"{what} refused:" in tried.stdout, tried.stdout + tried.stderr
        assert "this certificate is for clients" in tried.stdout + tried.stderr
        assert "evil" not in cluster["head"].mars("cluster", "status", check=False).stdout
        one_round(program)
        return
    evil = Driver(cluster["client"], AS_RAY)
    try:
        # Ray lists it until it has found out that it cannot reach it.
        wait_until(lambda: is_listed(cluster["head"]) or evil.process.poll() is not None, 60)
        one_round(program)
        wait_until(lambda: not is_listed(cluster["head"]), 60)
        one_round(program)
    finally:
        evil.close()


def is_listed(head: Host) -> bool:
    return "node evil" in head.mars("cluster", "status", check=False).stdout


def one_round(program: Driver) -> None:
    program.go()
    # One of them may have done all before the other had begun.
    for session in ("meanwhile", "another"):
        assert set(program.json(session)) <= set(NODES)
    assert program.json("took") < 12, program.said  # Ray itself takes 15 s to give it up
