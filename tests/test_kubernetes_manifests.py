"""Clusters on Kubernetes without one: what is asked for, its objects, and what pods say."""

from __future__ import annotations

import copy
import datetime
import json
import math
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.deploy import certificates, credentials
from mars.deploy.kubernetes import beginning, certify, manifests, pods
from mars.deploy.kubernetes.client import KubernetesClusterClient, Waiting
from mars.deploy.kubernetes.tunnel import Tunnel
from mars.deploy.kubernetes.wanted import Wanted, cpu_milli, wanted
from mars.errors import StartupFailed, UsageError
from mars.gpus import find
from mars.settings import MIB

VERSIONS = ("1.25", "1.29", "1.33", "1.37")
"""The oldest with a schema, today's, and two between."""

FILES = {"ca.pem": "CA", "cert.pem": "CERT", "key.pem": "PRIVATE", "token": "T"}


def plan(**asked: Any) -> Wanted:
    return wanted(**({"name": "team", "namespace": "lab", "image": "registry/mars:1"} | asked))


PLANS = {
    "plain": {},
    "ray": {"engine": "ray"},
    "ray kept": {"engine": "ray", "lease": 0, "worker_num": 3, "service_name": "door",
                 "service_port": 9000, "worker_gpus": 2, "image_pull_policy": "Always"},
    "kept": {"lease": 0, "worker_num": 3},
    "all": {
        "worker_cpu": "1500m", "worker_mem": "3GiB", "worker_cache_mem": "1GiB",
        "worker_spill_paths": ["/scratch", "/more"], "worker_spill_size": "10GiB",
        "service_type": "NodePort", "service_name": "door", "service_port": 9000,
        "image_pull_policy": "Always", "image_pull_secrets": ["registry"],
        "service_account": "runner", "node_selector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "extra_env": {"OMP_NUM_THREADS": 1}, "worker_extra_env": {"A": "b"},
        "worker_gpus": 2, "extra_labels": {"team/name": "blue"}, "pre_stop_command": ["sleep", "1"],
        "extra_volumes": [{"name": "data", "mountPath": "/data", "readOnly": True,
                           "persistentVolumeClaim": {"claimName": "data"}}],
    },
}  # fmt: skip


def objects(**asked: Any) -> list[dict[str, Any]]:
    return manifests.everything(plan(**asked), FILES, FILES)  # type: ignore[return-value]


@pytest.mark.parametrize("version", VERSIONS)
def test_all_objects_are_what_kubernetes_takes(version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own
        import kubernetes_validate as schema
    made = [one for asked in PLANS.values() for one in objects(**asked)]
    made += [manifests.driver_role("lab")]
    made += [manifests.owned(made[1], {**made[0], "metadata": {"name": "n", "uid": "u"}})]
    for one in made:
        schema.validate(one, version, strict=True)
    wrong = copy.deepcopy(made[0])
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Never"
    with pytest.raises(schema.ValidationError):
        schema.validate(wrong, version, strict=True)


@pytest.mark.parametrize("asked", PLANS.values(), ids=PLANS)
def test_every_pod_is_without_rights_and_has_limits(asked: dict[str, Any]) -> None:
    made = objects(**asked)
    templates = [one["spec"]["template"] for one in made if one["kind"] in ("Job", "Deployment")]
    assert len(templates) == 2
    for template in templates:
        spec = template["spec"]
        (main,) = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        for container in (main, *spec.get("initContainers", ())):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            resources = container["resources"]
            assert resources["limits"] == resources["requests"]
            assert set(resources["limits"]) - {"nvidia.com/gpu"} == {
                "cpu", "memory", "ephemeral-storage"
            }  # fmt: skip
        assert "exec" in main["livenessProbe"]
        for volume in spec["volumes"]:
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""})
        assert "PRIVATE" not in json.dumps(template)  # secrets stand in Secrets only


def test_with_a_lease_kubernetes_itself_ends_and_deletes_all() -> None:
    first, *others = objects(lease=40)
    assert first["kind"] == "Job"
    assert first["spec"]["activeDeadlineSeconds"] == 40
    assert first["spec"]["ttlSecondsAfterFinished"] > 0
    root = {**first, "metadata": {**first["metadata"], "uid": "u-1"}}
    for one in others:
        (owner,) = manifests.owned(one, root)["metadata"]["ownerReferences"]  # type: ignore[index]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", "team-scheduler", "u-1")


def test_nothing_in_a_manifest_is_shared_or_by_chance() -> None:
    assert objects() == objects()


def test_workers_find_the_scheduler_at_its_service() -> None:
    made = {one["metadata"]["name"]: one for one in objects(**PLANS["all"])}
    command = made["team-worker"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "tls://door:9000" in command
    assert made["door"]["spec"]["ports"][0] == {
        "name": "tls-dask", "port": 9000, "targetPort": 8786, "protocol": "TCP",
    }  # fmt: skip
    assert manifests.address(plan(**PLANS["all"])) == "tls://door.lab.svc:9000"
    assert command[command.index("--nthreads") + 1] == "2"  # of 1.5 cores


def test_pods_that_run_calls_have_the_gpus_and_their_nodes_offer_them() -> None:
    for count in (0, 3):
        made = {one["metadata"]["name"]: one for one in objects(worker_gpus=count)}
        (worker,) = made["team-worker"]["spec"]["template"]["spec"]["containers"]
        (scheduler,) = made["team-scheduler"]["spec"]["template"]["spec"]["containers"]
        assert worker["resources"]["requests"] == worker["resources"]["limits"]
        asked = worker["resources"]["limits"].get("nvidia.com/gpu")
        told = {one["name"]: one.get("value", "") for one in worker["env"]}
        assert asked == ("3" if count else None)
        assert ("MARS_GPUS" in told) is bool(count)
        assert not count or len(find(environ=told).names) == count
        assert "nvidia.com/gpu" not in json.dumps(scheduler)
        assert "MARS_GPUS" not in json.dumps(scheduler)


def test_on_ray_nodes_find_the_head_by_a_name_of_its_pod() -> None:
    made = {one["metadata"]["name"]: one for one in objects(**PLANS["ray kept"])}
    for_nodes = made["team-nodes"]["spec"]
    assert (for_nodes["clusterIP"], for_nodes["type"]) == ("None", "ClusterIP")
    assert for_nodes["ports"][0]["port"] == for_nodes["ports"][0]["targetPort"] == 6379
    assert made["door"]["spec"]["ports"][0] == {
        "name": "tls-ray", "port": 9000, "targetPort": 10001, "protocol": "TCP",
    }  # fmt: skip
    assert manifests.address(plan(**PLANS["ray kept"])) == "ray://door.lab.svc:9000"
    head = made["team-scheduler"]["spec"]["template"]["spec"]["containers"][0]
    worker = made["team-worker"]["spec"]["template"]["spec"]["containers"][0]

    def option(container: dict[str, Any], name: str) -> str:
        return str(container["command"][container["command"].index(name) + 1])

    assert "--head" in head["command"] and "--include-dashboard=false" in head["command"]
    assert option(head, "--port") == "6379"
    assert option(head, "--ray-client-server-port") == "10001"
    assert option(worker, "--address") == "team-nodes:6379"
    assert option(worker, "--num-gpus") == "2"
    for container in (head, worker):
        assert option(container, "--node-ip-address") == "$(MARS_K8S_POD_IP)"
        told = {one["name"]: one.get("value") for one in container["env"]}
        assert (told["RAY_USE_TLS"], told["RAY_AUTH_MODE"]) == ("1", "token")
        assert told["RAY_AUTH_TOKEN_PATH"] == "/etc/mars/credentials/token"
        # Otherwise Ray keeps to 127.0.0.1 in the pod.
        assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in told
    for one in made.values():
        assert one["metadata"]["labels"]["mars/engine"] == "ray"
        assert one["metadata"]["labels"]["mars/service"] == "door"


def test_on_ray_only_the_container_that_makes_certificates_sees_the_key_of_the_authority() -> None:
    for one in objects(engine="ray"):
        if one["kind"] not in ("Job", "Deployment"):
            continue
        spec = one["spec"]["template"]["spec"]
        secrets = [volume["name"] for volume in spec["volumes"] if "secret" in volume]
        (main,), (certify,) = spec["containers"], spec["initContainers"]
        mounted = {mount["name"]: mount for mount in main["volumeMounts"]}
        assert secrets == ["authority"]
        assert "authority" not in mounted
        assert mounted["credentials"]["readOnly"] is True
        assert {mount["name"] for mount in certify["volumeMounts"]} == {"authority", "credentials"}
        assert "mars.deploy.kubernetes.certify" in certify["command"]


def test_on_ray_shared_memory_is_for_values_and_for_the_store_of_ray() -> None:
    made = {one["metadata"]["name"]: one for one in objects(engine="ray", worker_mem="1000MiB")}
    found = {}
    for name in ("team-scheduler", "team-worker"):
        spec = made[name]["spec"]["template"]["spec"]
        (shm,) = [one for one in spec["volumes"] if one["name"] == "shm"]
        words = spec["containers"][0]["command"]
        store = int(words[words.index("--object-store-memory") + 1])
        found[name] = shm["emptyDir"]["sizeLimit"], store // MIB
    assert found == {"team-scheduler": ("256Mi", 128), "team-worker": ("700Mi", 300)}


def test_a_pod_of_ray_makes_its_certificate_again_and_again(tmp_path: Path) -> None:
    made, own = tmp_path / "made", tmp_path / "own"
    credentials.create(made, ["nobody"], datetime.timedelta(days=1))
    own.mkdir()
    for address in ("10.0.0.1", "10.0.0.2"):  # the container was started again
        files = certify.write(made, own, [address, "team-nodes"])
        certificate = Path(files.cert_path)
        assert certificates.missing_names(certificate, [address, "team-nodes"]) == set()
        assert certificates.is_for_servers(certificate)
        assert certificates.expiry(certificate) == certificates.expiry(made / "ca.pem")
    assert certificates.missing_names(certificate, ["10.0.0.1"]) == {"10.0.0.1"}
    assert sorted(path.name for path in own.iterdir()) == [
        "ca.pem", "cert.pem", "key.pem", "token"
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in own.iterdir()} == {0o600}


PROGRAM = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
left = folder / "r" / "left"
assert not left.exists(), "what an earlier one has left is there"
left.parent.mkdir()
left.touch()
count = len(list(folder.glob("run-*")))
(folder / f"run-{count}").touch()
if count == int(sys.argv[2]):
    (folder / "r" / "ray_current_cluster").touch()
    while not (folder / "seen").exists():
        pass
sys.exit(7)
"""


@pytest.mark.parametrize(("begins", "runs"), [(0, 1), (1, 2), (9, 3)])
def test_ray_in_a_pod_is_started_again_only_if_it_ends_before_it_has_begun(
    tmp_path: Path, begins: int, runs: int, wait_until: Callable[..., None]
) -> None:
    code = tmp_path / "program.py"
    code.write_text(PROGRAM)
    command = [
        sys.executable, "-m", "mars.deploy.kubernetes.beginning", str(tmp_path), "3",
        sys.executable, str(code), str(tmp_path), str(begins),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE) as started:
        if begins < 3:
            wait_until((tmp_path / "r" / "ray_current_cluster").exists)
            (tmp_path / "seen").touch()
        said = started.communicate(timeout=60)[1].decode()
    assert started.returncode == 7, said
    assert len(list(tmp_path.glob("run-*"))) == runs
    assert said.count("once more") == runs - 1


def test_a_node_of_ray_gets_the_number_of_its_head() -> None:
    words = ["ray", "start", "--address", "localhost:6379", "--num-cpus", "2"]
    found = beginning.with_number(words)
    assert found[3] in ("127.0.0.1:6379", "[::1]:6379")
    assert found[:3] + found[4:] == words[:3] + words[4:]
    assert beginning.with_number(["ray", "start", "--head"]) == ["ray", "start", "--head"]


def test_a_pod_waits_for_its_head_no_longer_than_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = credentials.create(tmp_path / "made", ["127.0.0.1"], datetime.timedelta(days=1))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not certify.wait_for_head(f"127.0.0.1:{port}", files, limit_s=0.0)
    assert "no cluster answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"image": None}, UsageError, "MARS_K8S_IMAGE"),
        ({"name": "Team"}, ValueError, "small letters"),
        ({"worker_num": 0}, ValueError, "worker_num"),
        ({"worker_num": True}, TypeError, "worker_num"),
        ({"worker_cpu": "much"}, ValueError, "worker_cpu"),
        ({"worker_gpus": -1}, ValueError, "worker_gpus"),
        ({"worker_gpus": 0.5}, TypeError, "worker_gpus"),
        ({"worker_mem": "much"}, ValueError, "worker_mem"),
        ({"worker_cache_mem": "120%"}, ValueError, "less than worker_mem"),
        ({"service_type": "Ingress"}, ValueError, "service_type"),
        ({"service_port": 70_000}, ValueError, "service_port"),
        ({"extra_env": {"A=B": "c"}}, ValueError, "extra_env"),
        ({"worker_extra_labels": {"a": "b c"}}, ValueError, "worker_extra_labels"),
        ({"extra_volumes": [{"name": "data"}]}, ValueError, "mountPath"),
        ({"worker_spill_paths": ["scratch"]}, ValueError, "worker_spill_paths"),
        ({"user_id": 0}, ValueError, "user_id"),
        ({"engine": "spark"}, ValueError, "engine has to be 'dask' or 'ray'"),
        ({"engine": "local"}, ValueError, "engine"),
        ({"engine": "ray", "service_type": "NodePort"}, UsageError, "engine='dask'"),
        ({"engine": "ray", "service_type": "LoadBalancer"}, UsageError, "service_type"),
        ({"engine": "ray", "worker_cache_mem": "80%"}, ValueError, "object store"),
        ({"image_pull_policy": "Sometimes"}, ValueError, "image_pull_policy"),
    ],
)
def test_what_is_wrong_is_named(asked: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        plan(**asked)


@given(st.integers(1, 100_000))
def test_cores_in_both_ways_of_kubernetes(milli: int) -> None:
    assert cpu_milli("cpu", f"{milli}m") == milli
    assert milli <= cpu_milli("cpu", milli / 1000) <= milli + 1


def pod(**status: Any) -> dict[str, Any]:
    limits = {"limits": {"memory": "700Mi"}}
    return {
        "metadata": {"name": "team-worker-1"},
        "spec": {"containers": [{"resources": limits}]},
        "status": {"phase": "Running", **status},
    }


def event(reason: str, message: str, of: str = "team-worker-1", at: str = "1") -> dict[str, Any]:
    return {"involvedObject": {"name": of}, "reason": reason, "message": message,
            "lastTimestamp": at}  # fmt: skip


def test_why_a_pod_waits() -> None:
    unscheduled = pod(
        phase="Pending",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                     "message": "0/2 nodes are available: 2 Insufficient cpu."}],
    )  # fmt: skip
    found = pods.waits(unscheduled)
    assert found is not None and found.fatal == ""
    assert "Unschedulable: 0/2 nodes are available: 2 Insufficient cpu" in found.text
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    backing_off = pod(phase="Pending", containerStatuses=[{"state": state}])
    found = pods.waits(backing_off, [event("Failed", "Failed to pull image: not found")])
    assert found is not None and found.fatal == "soon" and "not found" in found.text
    state = {"waiting": {"reason": "ErrImageNeverPull"}}
    found = pods.waits(pod(phase="Pending", containerStatuses=[{"state": state}]))
    assert found is not None and found.fatal == "now"
    assert pods.waits(pod()) is None


def test_a_pod_that_prepares_itself_waits_and_does_not_run() -> None:
    again = {"waiting": {"reason": "CrashLoopBackOff"}}
    crashed = {"terminated": {"reason": "Error", "exitCode": 1}}
    first = {"name": "certify", "state": again, "lastState": crashed, "restartCount": 2}
    waiting = {"state": {"waiting": {"reason": "PodInitializing"}}}
    found = pod(phase="Pending", initContainerStatuses=[first], containerStatuses=[waiting])
    assert not pods.is_running(found)
    assert pods.restarts(found) == 2
    trouble = pods.waits(found)
    assert trouble is not None and "Error: exit code 1" in trouble.text
    first |= {"state": {"running": {}}, "lastState": {}}
    assert not pods.is_running(found), "it runs when its main container does"
    first["state"] = {"terminated": {"reason": "Completed", "exitCode": 0}}
    waiting["state"] = {"running": {"startedAt": "now"}}
    assert pods.is_running(found)
    assert pods.ending(found) == "", "what ended well is no reason"
    pulled = {"state": {"waiting": {"reason": "ErrImageNeverPull"}}}
    trouble = pods.waits(pod(phase="Pending", initContainerStatuses=[pulled]))
    assert trouble is not None and trouble.fatal == "now"


def test_a_quota_is_of_the_one_it_stops() -> None:
    events = [event("FailedCreate", "exceeded quota: small", of="team-worker-5f4c")]
    found = pods.refused("team-worker", events)
    assert found is not None and found.fatal and "exceeded quota" in found.text
    assert pods.refused("team2-worker", events) is None


def test_how_a_node_was_lost() -> None:
    killed = {"reason": "OOMKilled", "exitCode": 137}
    for when in ("state", "lastState"):
        found = pods.lost("p", pod(containerStatuses=[{when: {"terminated": killed}}]), [])
        assert found == "pod p: OOMKilled: over its memory limit of 700Mi"
    evicted = pod(phase="Failed", reason="Evicted", message="The node was low on memory.")
    assert pods.lost("p", evicted, []) == "pod p: Evicted: The node was low on memory."
    assert pods.lost("p", None, []) == "pod p was deleted"
    preempted = [event("Preempted", "by another pod", of="p")]
    assert pods.lost("p", None, preempted) == "pod p was deleted (Preempted: by another pod)"
    ending = pod()
    ending["metadata"]["deletionTimestamp"] = "now"
    assert pods.lost("p", ending, []) == "pod p is deleted"
    assert pods.lost("p", pod(), []) == ""


def test_the_command_prints_yaml_and_keeps_keys_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    from mars.cli import main

    monkeypatch.delenv("MARS_K8S_IMAGE", raising=False)
    given = ["cluster", "manifest", "--name", "team", "--namespace", "lab", "--workers", "2"]
    assert main(given) == 2
    assert "image=None" in capsys.readouterr().err
    given += ["--image", "registry/mars:1", "--env", "A=b"]
    kinds = {}
    for secrets in ("with", "without", "only"):
        assert main([*given, "--secrets", secrets]) == 0
        said = capsys.readouterr()
        kinds[secrets] = [one["kind"] for one in yaml.safe_load_all(said.out)]
        assert ("private keys" in said.err) == (secrets != "without")
        assert "&id" not in said.out
    assert kinds["only"] == ["Secret", "Secret"]
    assert kinds["without"] == ["Deployment", "Service", "Deployment", "NetworkPolicy"]
    assert sorted(kinds["with"]) == sorted(kinds["only"] + kinds["without"])
    assert main([*given, "--engine", "ray", "--secrets", "with"]) == 0
    made = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [one["kind"] for one in made] == [
        "Deployment", "Secret", "Secret", "Service", "Service", "Deployment", "NetworkPolicy",
    ]  # fmt: skip
    files = {one["metadata"]["name"]: set(one["data"]) for one in made if one["kind"] == "Secret"}
    assert files == {
        "team-node": {"ca.pem", "ca.key", "token"},
        "team-client": {"ca.pem", "cert.pem", "key.pem", "token"},
    }
    assert main(["cluster", "manifest", "--role", "--namespace", "lab"]) == 0
    (role,) = yaml.safe_load_all(capsys.readouterr().out)
    assert role["kind"] == "Role"
    assert not [rule for rule in role["rules"] if "*" in rule["verbs"] + rule["resources"]]


class Way:
    """A connection to a port of a pod, whose other end the test has."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()

    def socket(self, port: int) -> socket.socket:
        assert port == 10001
        return self.ours


def test_a_tunnel_asks_the_api_server_when_somebody_speaks_and_not_before(
    wait_until: Callable[..., None],
) -> None:
    made: list[Way] = []

    class Forwards:
        def forward(self, pod: str, port: int) -> Way:
            assert pod == "head"
            made.append(Way())
            return made[-1]

    tunnel = Tunnel(Forwards(), lambda: "head", 10001)  # type: ignore[arg-type]
    place = ("127.0.0.1", tunnel.port)
    socket.create_connection(place, 30).close()  # it looked whether somebody listens
    with socket.create_connection(place, 30) as silent, socket.create_connection(place, 30) as one:
        one.sendall(b"hello")
        wait_until(lambda: len(made) == 1)
        with made[0].theirs as theirs:
            theirs.settimeout(30)
            one.settimeout(30)
            silent.settimeout(30)
            assert theirs.recv(5, socket.MSG_WAITALL) == b"hello"
            theirs.sendall(b"answer")
            assert one.recv(6, socket.MSG_WAITALL) == b"answer"
            assert len(made) == 1
            tunnel.close()  # ends all, also who has said nothing yet
            assert one.recv(1) == silent.recv(1) == theirs.recv(1) == b""


class FakeApi:
    """What `Waiting` asks of an API server."""

    def __init__(self, *found: dict[str, Any], events: tuple[dict[str, Any], ...] = ()) -> None:
        self.found, self.told = list(found), list(events)

    def pods(self, selector: str) -> list[dict[str, Any]]:
        return self.found

    def events(self) -> list[dict[str, Any]]:
        return self.told

    def log(self, name: str, lines: int) -> str:
        return "Traceback: no module named mars"


def test_workers_are_counted_also_once_the_session_is_closed() -> None:
    ready = pod(conditions=[{"type": "Ready", "status": "True"}])
    api = SimpleNamespace(pods=FakeApi(ready, pod(phase="Pending")).pods, namespace="space")
    kept = SimpleNamespace(name="team", api=api)
    session = SimpleNamespace(closed=True)
    client = KubernetesClusterClient(kept, "ray://127.0.0.1:1", session)  # type: ignore[arg-type]
    assert client.count_workers() == 1


def test_what_never_comes_is_an_error_at_once_and_crashes_from_before_do_not_count() -> None:
    state = {"waiting": {"reason": "InvalidImageName", "message": "no image"}}
    api = FakeApi(pod(phase="Pending", containerStatuses=[{"state": state}]))
    with pytest.raises(StartupFailed, match="InvalidImageName: no image"):
        Waiting(api, "team", math.inf).look(1, "worker")  # type: ignore[arg-type]

    crashed = {"terminated": {"reason": "Error", "exitCode": 1}}
    status = {"restartCount": 5, "state": {"running": {}}, "lastState": crashed}
    api = FakeApi(pod(containerStatuses=[status]))
    watch = Waiting(api, "team", math.inf)  # type: ignore[arg-type]
    watch.look(1, "worker")  # it crashed before its scheduler came
    status["restartCount"] = 6
    watch.look(1, "worker")
    status["restartCount"] = 7
    with pytest.raises(StartupFailed, match="exit code 1; its log ends with:\nTraceback"):
        watch.look(1, "worker")

    with pytest.raises(StartupFailed, match="is not there after"):
        Waiting(FakeApi(), "team", 0.0).look(1, "worker")  # type: ignore[arg-type]
