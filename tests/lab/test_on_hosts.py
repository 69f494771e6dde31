"""A cluster of several hosts, with TLS and token, as its users and its enemies see it.

What a stranger gets, what the doctor says, and what is lost with a worker, a node, a link, a
driver or a head. On Dask and on Ray; the tests of an engine share a cluster, so their order counts.
"""

from __future__ import annotations

import collections
import json
import platform
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.lab.clusters import NODES, WEB, Driver, LabCluster
from tests.lab.scan import TRACE

pytest.importorskip("distributed")
pytest.importorskip("ray")
pytest.importorskip("grpc")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(500)]

LEFT_S = 90.0
"""What is promised: so long after a driver or head is killed nothing of ours is on the nodes."""


BEGIN = """
import collections, json, os, socket, sys, time
import mars, mars.remote as mr

def call(index, seconds=0.02):
    print("call", index, "on", socket.gethostname())
    time.sleep(seconds)
    return index * 3

def say(word, value=""):
    print(word, json.dumps(value), flush=True)

def address_of(session, host):
    for address in session.get_worker_addresses():
        found = mr.spawn(lambda: (socket.gethostname(), os.getpid()), expect_worker=address)
        name, pid = found.execute().fetch()
        if name == host:
            return address, pid
"""

SCAN = str(Path(__file__).with_name("scan.py"))

EXPLAINED = "HTTP/1.0 400"
"""What the web port tells who speaks no TLS: that it wants it."""


def test_a_port_scan_finds_nothing_that_talks_to_a_stranger_or_reads_a_pickle(
    cluster: LabCluster,
) -> None:
    with ThreadPoolExecutor() as pool:
        names = ("head", *NODES)
        scans = pool.map(
            lambda name: cluster["client"].run(
                sys.executable, SCAN, cluster[name].address, limit_s=200.0
            ),
            names,
        )
        found = {name: json.loads(scan.stdout) for name, scan in zip(names, scans, strict=True)}
    assert {"7103", "7104"} <= found["head"].keys()
    for name, ports in found.items():
        assert ports, f"nothing is open on {name}"
        for port, (over_tls, as_a_stranger, over_tcp, to_a_pickle) in ports.items():
            said = f"{name}:{port}"
            assert over_tls.startswith("refused:"), (said, over_tls)
            assert as_a_stranger.startswith("refused:"), (said, as_a_stranger)
            for answer in (over_tcp, to_a_pickle):
                explained = port == "7104" and EXPLAINED in answer
                assert explained or answer.startswith("refused:"), (said, answer)
        assert cluster[name].run("ls", TRACE, check=False).returncode, f"{name} read a pickle"


def test_the_doctor_names_nodes_versions_clocks_and_speeds(cluster: LabCluster) -> None:
    asked = cluster["client"].mars("doctor", WEB, "--json", limit_s=120.0)
    report = json.loads(asked.stdout)
    assert report["cluster"]["engine"]["text"].startswith(cluster.engine)
    assert report["cluster"]["head"]["value"] is True
    nodes = report["cluster"]["nodes"]["value"]
    assert len(nodes) == 2
    parts = [report[f"node {node}"] for node in nodes]
    assert sorted(part["host"]["value"] for part in parts) == ["one", "two"]
    for part in parts:
        assert part["python"]["value"] == platform.python_version()
        assert part["numpy"]["value"] == np.__version__
        assert part["distributed" if cluster.engine == "dask" else "ray"]["value"]
        assert abs(part["clock"]["value"]) < 1  # the hosts of a lab have one clock
        assert part["cores"]["value"] >= 1 and part["memory"]["value"] > 0
        assert part["/dev/shm"]["value"] > 0 and part["temporary files"]["value"] > 0
        assert 0 < part["round trip of a call"]["value"] < 10
        assert part["to the node"]["value"] > 0 and part["from the node"]["value"] > 0
    if cluster.engine == "dask":
        assert all(part["port"]["value"] is True for part in parts)


def test_the_doctor_says_what_keeps_a_program_out(cluster: LabCluster) -> None:
    silent = cluster["client"].mars("doctor", "tls://10.77.0.1:7999", "--json", check=False)
    assert silent.returncode == 1
    assert "no cluster answers at 10.77.0.1:7999" in silent.stdout
    stranger = cluster["one"].run(
        "env", "HOME=/mnt/tmp", sys.executable, "-m", "mars", "doctor", WEB, check=False
    )
    assert stranger.returncode == 1
    assert "mars cluster credentials import" in " ".join(stranger.stdout.split())


TESTS = Path(__file__).parents[1]


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("name", "arguments", "end"),
    [
        ("monte_carlo_pi.py", ["--points", "400_000", "--chunks", "8"], "What the call"),
        ("model_search.py", ["--rows", "600", "--skip-serial"], "The best three"),
    ],
    ids=["pi", "search"],
)
def test_a_seed_program_has_the_results_and_logs_that_it_has_on_one_machine(
    cluster: LabCluster, name: str, arguments: list[str], end: str
) -> None:
    source = (TESTS.parent / "examples" / name).read_text()
    client = cluster["client"]
    client.run("tee", "/mnt/tmp/program.py", stdin=source)
    ends = []
    for where in ([], ["--address", WEB]):
        given = [*arguments, *where]
        said = client.run(sys.executable, "/mnt/tmp/program.py", *given, limit_s=300.0).stdout
        assert end in said
        digits = re.search(r"spawned +(3\.\d+)", said)
        ends.append((digits and digits[1], said.partition(end)[2]))
    assert ends[0] == ends[1]


TIMES = """
with mars.new_session(sys.argv[1]) as session:
    calls = [mr.spawn(call, args=(i,)) for i in range(20)]
    begun = time.monotonic()
    mr.ExecutableTuple(calls).execute()
    moments = [moment - begun for one in calls for moment in one.times()]
    say("clocks", [min(moments), max(moments), time.monotonic() - begun])
    say("where", sorted({str(one.fetch_log()).split()[-1] for one in calls}))
"""


def test_times_of_calls_are_in_the_program_s_time(
    cluster: LabCluster, drive: Callable[..., Driver]
) -> None:
    ask = "import time; print(time.monotonic())"
    shown = [float(cluster[name].python(ask).stdout) for name in ("client", *NODES)]
    assert np.ptp(shown) > 1000, "hosts of one clock would prove nothing"
    driver = drive(TIMES)
    first, last, end = driver.json("clocks")
    assert -0.5 < first <= last < end + 0.5
    assert driver.json("where") == ["one", "two"]
    assert driver.end() == 0, driver.said


SEEN = """
import collections, pathlib, urllib.request

def made(i):
    print("made", i)
    time.sleep(0.05)
    return i

def added(a, b):
    time.sleep(0.1)
    return a + b

def hang():
    print("hangs", flush=True)
    while True:
        time.sleep(0.05)

def near(a, b):
    return abs(a - b) <= 0.02 * max(abs(a), abs(b), 0.01)

session = mars.new_session(sys.argv[1], web=True)
page, _, key = session.get_web_endpoint().partition("#key=")
def get(path):
    request = urllib.request.Request(
        page.rstrip("/") + path, headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()

calls = [mr.spawn(made, args=(i,)) for i in range(20)]
first = mr.spawn(added, args=(calls[0], calls[1]))
last = mr.spawn(added, args=(first, calls[2]))
begun = time.monotonic()
mr.ExecutableTuple([*calls, last]).execute()
took = time.monotonic() - begun
say("value", last.fetch())

# The numbers once more, from nothing but the rows.
report, frame = session.report(), session.attempts_frame()
rows = frame.to_dict("records")
seconds = {row["call"]: row["returned"] - row["called"] for row in rows}
ran = sum(seconds.values())
chain = max(seconds[one.key] for one in calls[:2]) + seconds[first.key]
path = max(seconds[calls[2].key], chain) + seconds[last.key]
nodes = {row["node"] for row in rows}  # what two clocks show is compared to milliseconds only
least = max(
    max(row["returned"] for row in rows if row["node"] == node)
    - min(row["called"] for row in rows if row["node"] == node)
    for node in nodes
)
say("rows", collections.Counter(row["node"].split()[0] for row in rows))
say("in our time", all(
    begun - 0.5 < row["received"] <= row["called"] <= row["returned"] <= row["stored"]
    < begun + took + 0.5
    for row in rows
))
say("numbers", {
    "wall": 0.98 * least <= report.wall_s <= took, "work": near(report.work_s, ran),
    "path": near(report.critical_path_s, path), "cores": report.cores == 2,
    "losses": near(sum(report.losses.values()), report.wall_s * 2),
    "least": near(report.limit_s, max(path, ran / 2)),
    "functions": {one.function: one.calls for one in report.functions},
    "advice": len(report.advice),
})
predicted = session.what_if(nodes=2, cpus=1).asked.wall_s  # with workers that are there already
say("what if", 0.98 * report.limit_s <= predicted <= took or [report.limit_s, predicted, took])
session.timeline("/mnt/tmp/timeline.json")
events = json.loads(pathlib.Path("/mnt/tmp/timeline.json").read_text())["traceEvents"]
say("timeline", [
    sorted(e["args"]["name"].split()[0] for e in events if e["name"] == "process_name"),
    sum(e.get("cat") == "value" and e["ph"] == "X" for e in events),
    min(e.get("ts", 0) for e in events) >= 0,
])
for name in ("saved.json", "saved.html"):
    report.save(f"/mnt/tmp/{name}")

run = mr.spawn(hang).execute(wait=False)
while True:
    now = json.loads(get("/api/overview"))
    if now["running"]:
        break
(running,) = now["running"]
stack = json.loads(get(f"/api/stack?worker={running['worker']}"))["text"]
say("stack", [stack.split("\\n")[0], ", line" in stack and " in hang" in stack])
say("overview", [sorted(one["node"].split()[0] for one in now["workers"]), now["ended"]])
say("log", "made 7" in get(f"/api/log?call={calls[7].key}"))
say("bars", len(json.loads(get("/api/timeline?since=0"))["rows"]))
say("page's report", near(json.loads(get("/api/report"))["work"], ran))
run.cancel()
session.stop_server()
"""


def test_page_and_report_show_what_ran_on_nodes(drive: Callable[..., Driver]) -> None:
    driver = drive(SEEN)
    assert driver.json("value") == 3
    assert sorted(driver.json("rows")) == ["one", "two"]
    assert driver.json("in our time") is True
    numbers = driver.json("numbers")
    assert numbers.pop("functions") == {"made": 20, "added": 2}
    assert numbers.pop("advice") <= 3
    assert all(numbers.values()), numbers
    assert driver.json("what if") is True
    assert driver.json("timeline") == [["one", "two"], 22, True]
    assert driver.json("stack") == ["running a call", True]
    assert driver.json("overview") == [["one", "two"], 22]
    assert driver.json("log") is True
    assert driver.json("bars") == 22
    assert driver.json("page's report") is True
    assert driver.end() == 0, driver.said


OWN_MODULES = """
import importlib, pathlib, pickle, shutil

folder = pathlib.Path("/mnt/home/own")  # of this host alone
def write(name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    importlib.invalidate_caches()

write("shop/__init__.py", "from .models import Item")
write("shop/models.py", "import threading\\nlock = threading.Lock()\\nrate = 1\\n"
      "class Item:\\n    n = 1\\n    def total(self): return self.n * rate\\n")
write("shop/late.py", "from shop import models\\ndef name(): return models.Item.__name__\\n")
sys.path.insert(0, str(folder))
sys.dont_write_bytecode = True
session = mars.new_session(sys.argv[1], default=True)
import shop, shop.models

def look(item):
    from shop.late import name
    from shop.models import Item
    copy = pickle.loads(pickle.dumps(item))
    return name(), type(item) is Item is shop.Item is type(copy), item.total(), socket.gethostname()

calls = [mr.spawn(look, args=(shop.Item(),))]
shop.models.rate = 5
calls.append(mr.spawn(look, args=(shop.Item(),)))
shop.models.rate = 1
write("shop/models.py", "rate = 1\\nclass Item:\\n    n = 700\\n"
      "    def total(self): return self.n * rate\\n")
importlib.reload(shop.models)
importlib.reload(shop)
calls.append(mr.spawn(look, args=(shop.Item(),)))
found = [call.execute().fetch() for call in calls + calls[::-1]]
say("totals", [one[2] for one in found])
say("same", all(one[:2] == ("Item", True) for one in found))
say("hosts", sorted({one[3] for one in found}))
"""


def test_modules_of_the_program_are_found_on_nodes_that_have_none_of_its_files(
    drive: Callable[..., Driver],
) -> None:
    driver = drive(OWN_MODULES)
    assert driver.json("totals") == [1, 5, 700, 700, 5, 1]
    assert driver.json("same") is True
    assert set(driver.json("hosts")) <= set(NODES)
    assert driver.end() == 0, driver.said


@pytest.mark.campaign
def test_the_original_s_surface_is_the_same_over_hosts(cluster: LabCluster, tmp_path: Path) -> None:
    """Values, errors and logs, as on `local`: the same tests, with another address."""
    tests = str(TESTS / "surface" / "test_surface_original.py")
    ended = cluster["client"].run(
        "env", f"MARS_TEST_CLUSTER={WEB}", sys.executable, "-m", "pytest", "-q", tests,
        "-p", "no:cacheprovider", "-m", "", "--rootdir", str(TESTS.parent),
        "--basetemp", str(tmp_path / "seen by all hosts"),
        limit_s=400.0, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout


MANY = """
with mars.new_session(sys.argv[1]) as session:
    calls = [mr.spawn(call, args=(i,)) for i in range(int(sys.argv[2]))]
    address, pid = address_of(session, "one")
    run = mr.ExecutableTuple(calls).execute(wait=False)
    calls[10].execute()
    say("worker", pid)
    run.result(180)
    say("values", [one.fetch() for one in calls] == [3 * i for i in range(len(calls))])
    logs = [str(one.fetch_log()).splitlines() for one in calls]
    # An attempt that was killed may have printed its line, too.
    wrong = [
        (i, log) for i, log in enumerate(logs)
        if not log or set(log) - {f"call {i} on one", f"call {i} on two"}
    ]
    say("logs", wrong)
    # Seldom enough to leave a small machine the time to start a node.
    more = [mr.spawn(call, args=(i, 0.5)) for i in range(400)]
    run = mr.ExecutableTuple(more).execute(wait=False)
    say("more")
    position = 0
    while position < len(more):
        said = str(more[position].fetch_log(offsets=0))
        if "on one" in said:
            break
        position += bool(said)
        time.sleep(0 if said else 0.1)
    say("nodes", [len(session.get_worker_addresses()), address in session.get_worker_addresses()])
    run.cancel()
    ended = [one for call in calls for one in call.attempts()]
    say("died", {one.node for one in ended if one.ending == "died"} == {f"one ({address})"})
    say("ran", sorted({one.node.split()[0] for one in ended if one.ending == "value"}))
"""


@pytest.mark.parametrize(
    "count", [200, pytest.param(2000, marks=pytest.mark.campaign)], ids=["some", "many"]
)
def test_killed_workers_and_nodes_cost_nothing_and_one_that_joins_during_a_run_gets_calls(
    cluster: LabCluster, drive: Callable[..., Driver], count: int
) -> None:
    driver = drive(MANY, str(count))
    pid = driver.until("worker")
    cluster["one"].run("kill", "-KILL", pid)
    cluster.kill("one")
    assert driver.until("values") == "true"
    assert driver.json("logs") == []
    driver.until("more")
    cluster["one"].mars("cluster", "down", check=False)
    cluster.join("one")
    assert driver.json("nodes") == [2, False]  # the one that joined is another
    assert driver.until("died") == "true"
    assert driver.json("ran") == ["one", "two"]
    assert driver.end() == 0, driver.said
    assert driver.said.count("was lost") == 1


CUT = """
with mars.new_session(sys.argv[1]) as session:
    calls = [mr.spawn(call, args=(i, 0.1)) for i in range(int(sys.argv[2]))]
    run = mr.ExecutableTuple(calls).execute(wait=False)
    mr.ExecutableTuple(calls[:4]).execute()
    say("running")
    run.result(180)
    values = [one.fetch() for one in calls] == [3 * i for i in range(len(calls))]
    logs = all(str(one.fetch_log()).startswith(f"call {i} on") for i, one in enumerate(calls))
    say("right", [values, logs])
    say("endings", collections.Counter(one.ending for call in calls for one in call.attempts()))
"""


def cut_for(cluster: LabCluster, name: str, seconds: int) -> None:
    """Cut a host's link, see for so long that nobody reaches it, and mend it."""
    cluster.lab.cut(name)
    knock = f"import socket; socket.create_connection(({cluster[name].address!r}, 22), {seconds})"
    unreachable = cluster["head"].run(sys.executable, "-c", knock, check=False)
    cluster.lab.mend(name)
    assert "timed out" in unreachable.stderr


def test_a_link_that_is_cut_for_a_moment_costs_nothing_and_no_second_attempt(
    cluster: LabCluster, drive: Callable[..., Driver]
) -> None:
    driver = drive(CUT, "80")
    driver.until("running")
    cut_for(cluster, "two", 3)
    assert driver.json("right") == [True, True]
    assert driver.json("endings") == {"value": 80}
    assert driver.end() == 0, driver.said


UNDER_WAY = """
import numpy as np

def make(size):
    print("made", flush=True)
    return np.arange(size)

with mars.new_session(sys.argv[1]) as session:
    two, _ = address_of(session, "two")
    made = mr.spawn(make, args=(50_000_000,), expect_worker=two)
    total = mr.spawn(np.sum, args=(made,), expect_worker=two)
    run = mr.ExecutableTuple([made, total]).execute(wait=False)
    write = type(session.engine.site.nodes.mirrors).write
    def told(*part):  # a part of it has come
        type(session.engine.site.nodes.mirrors).write = write
        say("under way")
        write(*part)
    type(session.engine.site.nodes.mirrors).write = told
    run.result(100)
    say("right", [int(made.fetch().sum()), int(total.fetch())])
    say("endings", collections.Counter(one.ending for one in made.attempts()))
"""


@pytest.mark.campaign
def test_a_link_that_is_cut_while_a_value_is_under_way_costs_nothing(
    cluster: LabCluster, drive: Callable[..., Driver]
) -> None:
    driver = drive(UNDER_WAY)
    driver.until("under way")
    cut_for(cluster, "two", 2)
    assert driver.json("right") == [sum(range(50_000_000))] * 2
    assert driver.json("endings") == {"value": 1}
    assert driver.end() == 0, driver.said


BETWEEN = """
import numpy as np

def make(size):
    return np.arange(size)

with mars.new_session(sys.argv[1]) as session:
    two, _ = address_of(session, "two")
    busy = mr.spawn(time.sleep, args=(0.2,), expect_worker=two)
    made = mr.spawn(make, args=(50_000_000,))
    there = mr.spawn(np.sum, args=(made,), expect_worker=two)
    get = type(session.engine.site.nodes)._get
    def told(*which):
        say("under way")
        get(*which)
    type(session.engine.site.nodes)._get = told
    mr.ExecutableTuple([busy, there]).execute()
    say("right", int(there.fetch()))
    say("ran on", [one.node.split()[0] for one in made.attempts()])
"""


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["a moment", "only between the two", "with its maker"])
def test_a_way_between_nodes_that_ends_in_the_middle_of_a_value_costs_at_most_its_copy(
    cluster: LabCluster, drive: Callable[..., Driver], wait_until: Callable[..., None], how: str
) -> None:
    def received() -> int:
        (row,) = json.loads(cluster["two"].run("ip", "-j", "-s", "link", "show", "eth0").stdout)
        return int(row["stats64"]["rx"]["bytes"])

    driver = drive(BETWEEN)
    driver.until("under way")
    before = received()
    wait_until(lambda: received() > before + 20_000_000)
    way = ("blackhole", cluster["one"].address)
    if how == "a moment":
        cut_for(cluster, "one", 2)
    elif how == "only between the two":
        cluster["two"].run("ip", "route", "add", *way)
    else:
        cluster.kill("one")
    assert received() < before + 350_000_000, "it had come before"
    assert driver.json("right") == sum(range(50_000_000))
    assert driver.json("ran on") == (["one", "two"] if how == "with its maker" else ["one"])
    assert driver.end() == 0, driver.said
    if how == "only between the two":
        cluster["two"].run("ip", "route", "delete", *way)
    elif how == "with its maker":
        cluster["one"].mars("cluster", "down", check=False)
        cluster.join("one")


STAYS_CUT = """
def often(index):
    with open("/mnt/tmp/often", "a") as ledger:
        print(index, file=ledger)
    return call(index, 0.004)

def once(index):
    with open("/mnt/tmp/ledger", "a") as ledger:
        print(index, file=ledger)
    return call(index, 0.004)

with mars.new_session(sys.argv[1]) as session:
    many = [mr.spawn(often, args=(i,)) for i in range(3000)]
    calls = [mr.spawn(once, args=(i,), idempotent=False) for i in range(3000)]
    both = [one for pair in zip(many, calls) for one in pair]
    run = mr.ExecutableTuple(both).execute(wait=False, on_error="continue")
    mr.ExecutableTuple(both[:100]).execute()
    say("running")
    try:
        run.result(180)
    except mars.errors.WorkerDied:
        pass
    failed = [i for i, one in enumerate(calls) if session.error(one) is not None]
    say("errors", sorted({type(session.error(calls[i])).__name__ for i in failed}))
    say("failed", failed)
    values = all(one.fetch() == 3 * i for i, one in enumerate(many))
    logs = all(str(one.fetch_log()).startswith(f"call {i} on") for i, one in enumerate(many))
    say("right", [values, logs])
    ended = [attempt for one in both for attempt in one.attempts()]
    say("died", sorted({one.node.split()[0] for one in ended if one.ending == "died"}))
    say("attempts", [len(one.attempts()) for one in many])
"""


@pytest.mark.campaign
def test_a_link_that_stays_cut_is_a_lost_node_and_what_must_not_run_twice_does_not(
    cluster: LabCluster, drive: Callable[..., Driver], wait_until: Callable[..., None]
) -> None:
    driver = drive(STAYS_CUT)
    driver.until("running")
    cluster.lab.cut("two")
    begun = time.monotonic()
    assert driver.until("mars: node").startswith("two (")
    assert 15 < time.monotonic() - begun < 35  # about 30, as is promised
    assert driver.json("errors") == ["WorkerDied"]
    failed = driver.json("failed")
    assert driver.json("right") == [True, True]
    assert driver.json("died") == ["two"]
    attempts = driver.json("attempts")
    cluster.lab.mend("two")
    assert driver.end() == 0, driver.said
    wait_until(lambda: not cluster.workers("two"), LEFT_S)
    ledgers = [cluster[name].run("cat", "/mnt/tmp/often").stdout.split() for name in NODES]
    ran = collections.Counter(int(index) for ledger in ledgers for index in ledger)
    assert all(1 <= ran[index] <= told for index, told in enumerate(attempts))
    ledgers = [cluster[name].run("cat", "/mnt/tmp/ledger").stdout.split() for name in NODES]
    ran = collections.Counter(int(index) for ledger in ledgers for index in ledger)
    assert set(ran.values()) == {1}  # on either side of the cut
    assert set(range(3000)) - set(failed) <= ran.keys()
    cluster["two"].mars("cluster", "down", check=False)
    cluster.join("two")


WAITING = """
session = mars.new_session(sys.argv[1])
done = [mr.spawn(call, args=(i,)) for i in range(20)]
mr.ExecutableTuple(done).execute()
run = mr.ExecutableTuple([mr.spawn(time.sleep, (600,)) for _ in range(2)]).execute(wait=False)
say("running")
"""

KILLED = WAITING + "input()"


def test_a_killed_driver_leaves_nothing_on_the_nodes(
    cluster: LabCluster, drive: Callable[..., Driver], wait_until: Callable[..., None]
) -> None:
    driver = drive(KILLED)
    driver.until("running")
    assert cluster.workers("one") and cluster.workers("two")
    driver.kill()
    wait_until(lambda: not cluster.workers("one") and not cluster.workers("two"), LEFT_S)


HEADLESS = (
    WAITING
    + """
began = time.monotonic()
try:
    run.result(100)
except mars.errors.ClusterUnreachable as error:
    say("error", [time.monotonic() - began, str(error)])
say("values", [one.fetch() for one in done] == [3 * i for i in range(20)])
say("logs", all(str(one.fetch_log()).startswith(f"call {i} on") for i, one in enumerate(done)))
try:
    mr.spawn(abs, (-1,)).execute()
except mars.errors.ClusterUnreachable as error:
    say("again", str(error))
began = time.monotonic()
session.stop_server()
say("stopped", time.monotonic() - began)
"""
)


def test_a_killed_head_is_an_error_within_seconds_and_finished_results_stay(
    cluster: LabCluster, drive: Callable[..., Driver], wait_until: Callable[..., None]
) -> None:
    """The last one: it takes the head away."""
    driver = drive(HEADLESS)
    driver.until("running")
    cluster.kill("head")
    after_s, message = driver.json("error")
    assert after_s < 15
    assert "is gone" in message and "mars cluster up" in message
    assert driver.until("values") == "true"
    assert driver.until("logs") == "true"
    assert "is gone" in driver.json("again")
    assert driver.json("stopped") < 20
    assert driver.end() == 0, driver.said
    wait_until(lambda: not cluster.workers("one") and not cluster.workers("two"), LEFT_S)
