"""Clusters on a real Kubernetes: both seed programs, faults, errors, and what is left.

`make kubernetes` runs these; nothing else does.
"""

from __future__ import annotations

import json
import signal
import time

import pytest

from tests.kubernetes.conftest import IMAGE, PROJECT, Space, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(500)]

BEGIN = """
import os, sys, time
import mars, mars.remote as mr
from mars.deploy.kubernetes import connect_cluster, new_cluster
from mars.errors import MarsError, WorkerDied

SMALL = dict(
    namespace=os.environ["SPACE"], worker_cpu=0.5, worker_mem="700MiB", supervisor_cpu="300m",
    supervisor_mem="400MiB", image_pull_policy="Never",
)

RAY = SMALL | dict(
    engine="ray", worker_cpu=1, worker_mem="1GiB", supervisor_cpu=1, supervisor_mem="1500MiB"
)

def where(i):
    import socket
    print("call", i)
    return socket.gethostname()

def begun(call):
    while not str(call.fetch_log()).strip():
        time.sleep(0.1)

def nap(i):
    import socket, time
    print("nap", i, flush=True)
    time.sleep(i)
    return socket.gethostname()
"""


def words(text: str) -> dict[str, str]:
    return dict(line.partition(" ")[::2] for line in text.splitlines())


SEED_PROGRAMS = f"""
import subprocess

def show_hosts(session):
    homes = session.get_worker_addresses()
    calls = [mr.spawn(where, args=(i,), expect_worker=homes[i]) for i in range(2)]
    mars.execute(calls)
    print("hosts", len(set(call.fetch() for call in calls)))
    print("log", str(calls[1].fetch_log()).strip().splitlines()[-1])

def run_seed_programs(address):
    for name, options in (
        ("monte_carlo_pi", ["--points", "2000000", "--chunks", "4"]),
        ("model_search", ["--rows", "600", "--trees-scale", "0.02"]),
    ):
        ended = subprocess.run(
            [sys.executable, {str(PROJECT / "examples")!r} + f"/{{name}}.py", *options,
             "--address", address],
            capture_output=True, text=True, check=False,
        )
        print(ended.stdout, ended.stderr, file=sys.stderr)
        print(name, ended.returncode)
"""


LOST_POD = """
def pods(cluster):
    selector = f"app.kubernetes.io/instance={cluster.name},app.kubernetes.io/component=worker"
    core = cluster._kept.api._core
    found = core.list_namespaced_pod(cluster.namespace, label_selector=selector).items
    return {pod.metadata.name for pod in found if not pod.metadata.deletion_timestamp}

def delete_a_pod(cluster):
    victim = sorted(pods(cluster))[0]
    core = cluster._kept.api._core
    core.delete_namespaced_pod(victim, cluster.namespace, grace_period_seconds=0)
    return victim

def lose_a_pod_and_give_one_back(cluster):
    calls = [mr.spawn(nap, args=(6,)) for i in range(2)]
    running = mars.execute(calls, wait=False)
    for call in calls:
        begun(call)
    victim = delete_a_pod(cluster)
    running.result()
    print("victim", victim not in {call.fetch() for call in calls})
    cluster.rescale_workers(1)
    print("one", cluster.count_workers())
"""


def check_seen(said: dict[str, str], err: str) -> None:
    """Calls ran on both hosts, each with its log, and both seed programs ended well."""
    assert said["hosts"] == "2"
    assert said["log"] == "call 1"
    assert said["monte_carlo_pi"] == "0", err  # equal to a plain loop, or it ends with an error
    assert said["model_search"] == "0", err


def test_both_seed_programs_logs_and_another_program(space: Space) -> None:
    out, err = space.run(
        BEGIN
        + SEED_PROGRAMS
        + """
with new_cluster(worker_num=2, **SMALL) as cluster:
    session = cluster.session
    show_hosts(session)
    print("default", session is mars.session.get_default_session())
    run_seed_programs(cluster.endpoint)
print("stopped")
"""
    )
    said = words(out)
    check_seen(said, err)
    assert said["default"] == "True"
    assert "stopped" in said
    space.wait_empty(10)


def test_killed_pod_rescale_and_memory(space: Space) -> None:
    out, err = space.run(
        BEGIN
        + LOST_POD
        + """
def eat(size):
    data = bytearray(size)
    return len(data)

with new_cluster(worker_num=2, **SMALL) as cluster:
    once = mr.spawn(nap, args=(60,), idempotent=False)
    lose_a_pod_and_give_one_back(cluster)
    held = mars.execute(once, wait=False)
    begun(once)
    delete_a_pod(cluster)
    try:
        held.result()
    except WorkerDied as error:
        print("died", "was deleted" in str(error) or "is deleted" in str(error), repr(str(error)))
    cluster.rescale_workers(2)
    print("two", cluster.count_workers())
    try:
        mr.spawn(eat, args=(2_000_000_000,), retry_when_fail=False).execute().fetch()
    except WorkerDied as error:
        print("memory", "OOMKilled" in str(error), repr(str(error)))
    print("after", mr.spawn(where, args=(1,)).execute().fetch() in pods(cluster))
"""
    )
    said = words(out)
    assert said["victim"] == "True"
    assert said["one"] == "1"
    assert said["died"].startswith("True"), out
    assert said["two"] == "2"
    assert said["memory"].startswith("True"), out
    assert said["after"] == "True"
    assert "was lost (pod " in err
    space.wait_empty(10)


def test_on_ray_both_seed_programs_a_killed_pod_rescale_and_no_key_of_the_authority(
    space: Space,
) -> None:
    out, err = space.run(
        BEGIN
        + SEED_PROGRAMS
        + LOST_POD
        + """
from mars.errors import UsageError

def keys():
    import os
    found = []
    for folder, _, files in os.walk("/etc/mars"):
        found += [os.path.join(folder, file) for file in files]
    return sorted(found)

with new_cluster(worker_num=2, **RAY) as cluster:
    session = cluster.session
    print("endpoint", cluster.endpoint)
    show_hosts(session)
    print("keys", mr.spawn(keys).execute().fetch())
    try:
        new_cluster(worker_num=1, **RAY)
    except UsageError as error:
        print("second", error)
    session.close()  # on Ray it has all cores, so other programs would wait
    run_seed_programs(cluster.endpoint)
    mars.new_session(cluster.endpoint)
    lose_a_pod_and_give_one_back(cluster)
print("stopped")
"""
    )
    said = words(out)
    assert said["endpoint"].startswith("ray://127.0.0.1:"), out
    check_seen(said, err)
    assert "ca.key" not in said["keys"] and "key.pem" in said["keys"], out
    assert "connected to Ray already" in said["second"]
    assert said["victim"] == "True", err
    assert said["one"] == "1"
    assert "stopped" in said
    space.wait_empty(10)


def test_calls_of_a_lost_node_run_elsewhere(space: Space) -> None:
    program = space.start(
        BEGIN
        + """
with new_cluster(worker_num=2, lease=600, **SMALL) as cluster:
    print("there", flush=True)
    calls = [mr.spawn(nap, args=(8,)) for i in range(2)]
    running = mars.execute(calls, wait=False)
    for call in calls:
        begun(call)
    print("running", flush=True)
    input()
    print("hosts", *(call.fetch() for call in running.result() or calls))
"""
    )
    assert program.stdout is not None and program.stdin is not None
    for word in ("there", "running"):
        line = program.stdout.readline().strip()
        assert line == word, line + (program.communicate()[1] if not line else "")
    pods = json.loads(space.kubectl("get", "pods", "-o", "json"))["items"]
    scheduler = next(pod for pod in pods if "-scheduler-" in pod["metadata"]["name"])
    worker = next(
        pod for pod in pods
        if "-worker-" in pod["metadata"]["name"]
        and pod["spec"]["nodeName"] != scheduler["spec"]["nodeName"]
    )  # fmt: skip
    lost = worker["spec"]["nodeName"]
    space.kubernetes.link(lost, "down")
    try:
        program.stdin.write("\n")
        program.stdin.flush()
        line = program.stdout.readline()
        assert line.startswith("hosts"), line + program.communicate()[1]
        assert worker["metadata"]["name"] not in line
    finally:
        space.kubernetes.link(lost, "up")
    _, err = program.communicate(timeout=200)
    assert program.returncode == 0, err
    ready = ["wait", "--for=condition=Ready", "--timeout=90s", f"node/{lost}"]
    space.kubernetes.kubectl(*ready)
    space.wait_empty(120)


def test_a_killed_program_leaves_nothing_after_its_lease(space: Space) -> None:
    program = space.start(
        BEGIN
        + """
with new_cluster(worker_num=1, lease=20, **SMALL) as cluster:
    print("there", flush=True)
    time.sleep(1000)
"""
    )
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line.strip() == "there", program.communicate()[1]
    begun = time.monotonic()
    wait_for(lambda: time.monotonic() > begun + 30, 60)  # the lease was renewed
    assert len(space.left()) > 5
    assert program.poll() is None
    program.send_signal(signal.SIGKILL)
    space.wait_empty(120)


INSIDE = """
import sys
import mars, mars.remote as mr
from mars.deploy.kubernetes import new_cluster

def where(i):
    import socket
    print("call", i)
    return socket.gethostname()

with new_cluster(image={image!r}, worker_num=2, image_pull_policy="Never", **{sizes!r}) as made:
    calls = [mr.spawn(where, args=(i,), expect_worker=home)
             for i, home in enumerate(made.session.get_worker_addresses())]
    mars.execute(calls)
    print("hosts", len({{call.fetch() for call in calls}}), made.endpoint)
"""


SIZES = {
    "dask": {
        "worker_cpu": 0.5, "worker_mem": "700MiB", "supervisor_cpu": "300m",
        "supervisor_mem": "400MiB",
    },
    "ray": {
        "engine": "ray", "worker_cpu": 1, "worker_mem": "1GiB", "supervisor_cpu": 1,
        "supervisor_mem": "1500MiB",
    },
}  # fmt: skip


@pytest.mark.parametrize("engine", SIZES)
def test_a_program_inside_needs_no_more_than_the_role(space: Space, engine: str) -> None:
    role = space.mars("cluster", "manifest", "--role", "--namespace", space.name)
    space.kubectl("apply", "-f", "-", data=role)
    space.kubectl("create", "serviceaccount", "driver")
    binding = ["create", "rolebinding", "driver", "--role=mars-driver"]
    space.kubectl(*binding, f"--serviceaccount={space.name}:driver")
    token = "jsonpath={.secrets[0].name}"
    wait_for(lambda: space.kubectl("get", "serviceaccount", "driver", "-o", token), 60)
    code = INSIDE.format(image=IMAGE, sizes=SIZES[engine])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "driver"},
        "spec": {
            "serviceAccountName": "driver",
            "restartPolicy": "Never",
            "volumes": [{"name": "program", "configMap": {"name": "program"}}],
            "containers": [
                {
                    "name": "driver",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["python", "/program/program.py"],
                    "volumeMounts": [{"name": "program", "mountPath": "/program"}],
                }
            ],
        },
    }
    (space.home / "program.py").write_text(code)
    space.kubectl("create", "configmap", "program", f"--from-file={space.home / 'program.py'}")
    space.kubectl("apply", "-f", "-", data=json.dumps(pod))

    def phase() -> str:
        return space.kubectl("get", "pod", "driver", "-o", "jsonpath={.status.phase}")

    wait_for(lambda: phase() in ("Succeeded", "Failed"), 200, lambda: space.kubectl("get", "pods"))
    log = space.kubectl("logs", "driver")
    assert phase() == "Succeeded", log
    assert f"hosts 2 {'ray' if engine == 'ray' else 'tls'}://mars-" in log, log
    space.wait_empty(10)


REFUSED = """
began = time.monotonic()
try:
    new_cluster(**(SMALL | {options}))
except MarsError as error:
    print("error", type(error).__name__, str(error).replace(chr(10), " "))
print("took", time.monotonic() - began)
"""

QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "small"},
    "spec": {"hard": {"pods": "1"}},
}


@pytest.mark.parametrize(
    ("options", "kind", "reason"),
    [
        ('{"namespace": "nobody"}', "UsageError", 'namespaces "nobody" not found'),
        ('{"image": "mars.test/none:1"}', "StartupFailed", "ErrImageNeverPull"),
        (
            '{"image": "registry.invalid/none:1", "image_pull_policy": "Always"}',
            "StartupFailed",
            "failed to pull",
        ),
        ('{"worker_num": 3}', "StartupFailed", "exceeded quota"),
    ],
    ids=["namespace", "no image", "registry", "quota"],
)
def test_what_cannot_be_is_one_error_within_thirty_seconds(
    space: Space, options: str, kind: str, reason: str
) -> None:
    if "worker_num" in options:
        space.kubectl("apply", "-f", "-", data=json.dumps(QUOTA))
    out, _ = space.run(BEGIN + REFUSED.format(options=options))
    said = words(out)
    assert said["error"].startswith(kind), out
    assert reason in said["error"], out
    assert float(said["took"]) < 30
    space.wait_empty(60)


def test_no_rights_and_an_expired_token_are_told(space: Space) -> None:
    space.kubectl("create", "serviceaccount", "nobody")
    path = "jsonpath={.secrets[0].name}"
    wait_for(lambda: space.kubectl("get", "serviceaccount", "nobody", "-o", path), 60)
    secret = space.kubectl("get", "serviceaccount", "nobody", "-o", path)
    token = space.kubectl("get", "secret", secret, "-o", "go-template={{.data.token|base64decode}}")
    config = json.loads(space.kubernetes.kubectl("config", "view", "--raw", "-o", "json"))
    for name, shown, reason in (
        ("poor", token, "is forbidden: User"),
        ("expired", token[:-4] + "AAAA", "Unauthorized"),
    ):
        config["users"] = [{"name": config["contexts"][0]["context"]["user"],
                            "user": {"token": shown}}]  # fmt: skip
        file = space.home / name
        file.write_text(json.dumps(config))
        out, _ = space.run(BEGIN + REFUSED.format(options="{}"), KUBECONFIG=str(file))
        assert words(out)["error"].startswith("CredentialsError"), out
        assert reason in out
        assert float(words(out)["took"]) < 30
    assert space.left() == []


def test_pending_pods_have_their_reason_told(space: Space) -> None:
    out, err = space.run(
        BEGIN + REFUSED.format(options='{"node_selector": {"disk": "gold"}, "timeout": 15}')
    )
    assert "mars: cluster mars-" in err and "didn't match" in err, err
    assert "StartupFailed" in out and "didn't match" in out
    space.wait_empty(60)


def test_the_command_starts_shows_and_ends_a_cluster(space: Space) -> None:
    where = ["--kubernetes", "--namespace", space.name]
    small = ["--worker-cpu", "0.5", "--worker-mem", "700MiB", "--supervisor-cpu", "300m",
             "--supervisor-mem", "400MiB", "--image-pull-policy", "Never"]  # fmt: skip
    said = space.mars("cluster", "up", *where, "--name", "team", *small)
    assert "1 workers are ready" in said
    out, _ = space.run(
        BEGIN
        + """
with connect_cluster("team", os.environ["SPACE"]) as cluster:
    print("host", mr.spawn(where, args=(1,)).execute().fetch())
"""
    )
    assert words(out)["host"].startswith("team-worker-")
    ready = ["wait", "--for=condition=Ready", "--timeout=110s", "pod"]
    space.kubectl(*ready, "-l", "app.kubernetes.io/name=mars")
    shown = space.mars("cluster", "status", *where, "--json", "team")
    rows = json.loads(shown)[0]["pods"]
    assert {row["part"] for row in rows} == {"scheduler", "worker"}
    assert "has ended" in space.mars("cluster", "down", *where, "team")
    space.wait_empty(30)
    assert "there is no cluster 'team'" in space.mars("cluster", "down", *where, "team", status=2)


SCAN = """
import contextlib, socket, ssl, sys
for host in sys.argv[1].split(","):
    for port in range(1, 65536):
        try:
            plain = socket.create_connection((host, port), 0.5)
        except OSError:
            continue
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with context.wrap_socket(plain) as secret:
                secret.settimeout(3)
                answer = secret.recv(1)
        except OSError:
            answer = b""
        with contextlib.suppress(OSError):  # one that speaks HTTP in the clear
            with socket.create_connection((host, port), 0.5) as plain:
                plain.settimeout(3)
                plain.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                answer = answer or plain.recv(4).startswith(b"HTTP")
        print("open", host, port, "answers" if answer else "refuses")
print("done")
"""


@pytest.mark.parametrize("sizes", ["SMALL", "RAY"])
def test_a_scan_from_another_namespace_gets_nowhere(space: Space, sizes: str) -> None:
    program = space.start(
        BEGIN
        + f"""
with new_cluster(worker_num=1, **{sizes}) as cluster:
    mr.spawn(where, args=(1,)).execute().fetch()
    print("there", flush=True)
    input()
"""
    )
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line.strip() == "there", program.communicate()[1]
    pods = json.loads(space.kubectl("get", "pods", "-o", "json"))["items"]
    hosts = [pod["status"]["podIP"] for pod in pods]
    stranger = ["run", "scan", f"--image={IMAGE}", "--image-pull-policy=Never", "--restart=Never",
                "-n", "default", "--command", "--", "python", "-c", SCAN]  # fmt: skip
    space.kubernetes.kubectl(*stranger, ",".join(hosts))
    try:

        def log() -> str:
            phase = space.kubernetes.kubectl(
                "get", "pod", "scan", "-n", "default", "-o", "jsonpath={.status.phase}"
            )
            return phase if phase in ("Succeeded", "Failed") else ""

        wait_for(log, 300)
        said = space.kubernetes.kubectl("logs", "scan", "-n", "default")
    finally:
        space.kubernetes.kubectl("delete", "pod", "scan", "-n", "default", "--wait=false")
    assert "done" in said, said
    found = [line for line in said.splitlines() if line.startswith("open")]
    assert found, "the scan saw no port at all, so it shows nothing"
    assert not [line for line in found if line.endswith("answers")], said
    program.communicate("\n", timeout=100)
    assert program.returncode == 0
