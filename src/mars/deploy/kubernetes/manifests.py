"""A cluster as objects of Kubernetes. Pure: the same cluster gives the same objects.

::

    Job or Deployment NAME-scheduler ── one pod: the engine's head ◄── Service NAME
      └ owns ─► Secret NAME-node, NAME-client    (credentials: of pods, and of programs)
                Deployment NAME-worker ── pods: a worker of the engine, which runs our node
                NetworkPolicy NAME       (who may connect: pods of this namespace)
                Service NAME-nodes       (on Ray: where nodes find the head)

The engine is Dask, or Ray; `engines` has what differs.

With a lease the scheduler is a Job with a deadline, which the program moves on. When the deadline
passes, Kubernetes ends the Job, deletes it, and with it all that it owns. So nothing in the cluster
has to watch for the program, and no pod has any right at the API server. Without a lease it is a
Deployment, which starts a scheduler again that crashed.

All pods run as a user without rights, with a file system that they cannot write to, and with
limits that are their requests. Called by `starting` and by ``mars cluster manifest``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Final

from mars.deploy.credentials import CA, CERTIFICATE, KEY, TOKEN
from mars.deploy.kubernetes import engines
from mars.deploy.kubernetes.engines import Container
from mars.deploy.kubernetes.places import (
    AUTHORITY,
    CERTIFY,
    POD_IP,
    POD_NAME,
    POD_NAMESPACE,
    RAY_HEAD_PORT,
    SCRATCH,
    SECRETS,
)
from mars.deploy.kubernetes.wanted import Json, Part, Wanted
from mars.settings import KUBERNETES_FINISHED_S, KUBERNETES_GRACE_S, MIB

NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
PART_LABEL: Final = "app.kubernetes.io/component"
MANAGER_LABEL: Final = "app.kubernetes.io/managed-by"
ENGINE_LABEL: Final = "mars/engine"
SERVICE_LABEL: Final = "mars/service"
"""What runs in the pods, and where programs connect: for programs that come later."""

SCHEDULER: Final = "scheduler"
WORKER: Final = "worker"

_PYTHON: Final = ("python", "-P", "-m")


def labels(name: str) -> dict[str, str]:
    """What all objects of a cluster carry."""
    return {NAME_LABEL: "mars", INSTANCE_LABEL: name, MANAGER_LABEL: "mars"}


def selector(name: str = "", part: str = "") -> str:
    """What finds the objects of a cluster, or of all clusters, or one kind of pods."""
    found = {NAME_LABEL: "mars"}
    if name:
        found[INSTANCE_LABEL] = name
    if part:
        found[PART_LABEL] = part
    return ",".join(f"{key}={text}" for key, text in found.items())


def address(wanted: Wanted) -> str:
    """Where programs in the same Kubernetes connect."""
    host = f"{wanted.service}.{wanted.namespace}.svc"
    return wanted.kind.address(f"{host}:{wanted.service_port}", secure=True)


def everything(
    wanted: Wanted, node: Mapping[str, str] | None, client: Mapping[str, str] | None
) -> list[Json]:
    """All objects of a cluster; first the one that owns the others.

    Parameters
    ----------
    wanted : Wanted
        The cluster.
    node, client : mapping of file name to text, or None
        Credentials of its pods, and of programs. None: their Secrets are made by somebody else.
    """
    made = [scheduler(wanted)]
    if node is not None:
        made.append(secret(wanted, "node", node))
    if client is not None:
        made.append(secret(wanted, "client", client))
    made.append(service(wanted))
    for_nodes = nodes_service(wanted)
    if for_nodes is not None:
        made.append(for_nodes)
    made.append(workers(wanted))
    if wanted.network_policy:
        made.append(network_policy(wanted))
    return made


def owned(one: Json, root: Json) -> Json:
    """An object that is deleted when ``root``, as the API server returned it, is."""
    facts = root["metadata"]
    assert isinstance(facts, Mapping)
    owner = {
        "apiVersion": root["apiVersion"],
        "kind": root["kind"],
        "name": facts["name"],
        "uid": facts["uid"],
        "controller": False,
        # To block would need a right that many clusters give to administrators only.
        "blockOwnerDeletion": False,
    }
    metadata = one["metadata"]
    assert isinstance(metadata, Mapping)
    return {**one, "metadata": {**metadata, "ownerReferences": [owner]}}


def secret(wanted: Wanted, whose: str, files: Mapping[str, str]) -> Json:
    """Certificate, key, authority and token, of pods ("node") or of programs ("client").

    Pods of Ray make their certificates, so theirs has the key of the authority instead.
    """
    data = {name: base64.b64encode(files[name].encode()).decode() for name in sorted(files)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(wanted, f"{wanted.name}-{whose}"),
        "type": "Opaque",
        "immutable": True,
        "data": data,
    }


def service(wanted: Wanted) -> Json:
    """One name and one port for programs; on Dask for workers, too."""
    port = engines.program_port(wanted.kind)
    return _service(wanted, wanted.service, f"tls-{wanted.kind.name}", wanted.service_port, port)


def nodes_service(wanted: Wanted) -> Json | None:
    """A name for the head's pod, by which nodes of Ray find it; None: they use `service`."""
    name = engines.nodes_service(wanted)
    if not name:
        return None
    own: Json = {"clusterIP": "None"}  # names lead to the pod itself
    return _service(wanted, name, "tls-head", RAY_HEAD_PORT, RAY_HEAD_PORT, own)


def _service(  # noqa: PLR0913 (what differs between two Services)
    wanted: Wanted, name: str, port_name: str, port: int, in_pod: int, more: Json | None = None
) -> Json:
    one = {"name": port_name, "port": port, "targetPort": in_pod, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(wanted, name),
        "spec": {
            "type": wanted.service_type,
            "selector": _selects(wanted, SCHEDULER),
            "ports": [one],
            # Workers try until it answers. Kubelets tell of a probe up to a minute late.
            "publishNotReadyAddresses": True,
            **(more or {}),
        },
    }


def network_policy(wanted: Wanted) -> Json:
    """Pods of this namespace may connect; others only to a Service that is open to the outside."""
    rules: list[Json] = [{"from": [{"podSelector": {}}]}]
    if wanted.service_type != "ClusterIP":
        rules.append({"ports": [{"port": engines.program_port(wanted.kind), "protocol": "TCP"}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(wanted, wanted.name),
        "spec": {
            "podSelector": {"matchLabels": {NAME_LABEL: "mars", INSTANCE_LABEL: wanted.name}},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    }


def scheduler(wanted: Wanted) -> Json:
    """The pod to which workers and programs connect; what owns the cluster."""
    pod = _pod(
        wanted,
        SCHEDULER,
        wanted.scheduler,
        engines.head(wanted),
        folders={SCRATCH: min(wanted.spill_bytes, 1 << 30)},
        restart="Never" if wanted.lease_s else "Always",
    )
    metadata = _metadata(wanted, f"{wanted.name}-{SCHEDULER}")
    if wanted.lease_s:
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {
                "backoffLimit": 0,  # another one would not know what this one knew
                "activeDeadlineSeconds": wanted.lease_s,
                "ttlSecondsAfterFinished": KUBERNETES_FINISHED_S,
                "template": pod,
            },
        }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _selects(wanted, SCHEDULER)},
            "template": pod,
        },
    }


def workers(wanted: Wanted) -> Json:
    """The pods that run calls."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(wanted, f"{wanted.name}-{WORKER}"),
        "spec": {
            "replicas": wanted.worker_num,
            "selector": {"matchLabels": _selects(wanted, WORKER)},
            # All at once: a new version of a worker does not work with an old scheduler.
            "strategy": {"type": "Recreate"},
            "template": _pod(
                wanted,
                WORKER,
                wanted.workers,
                engines.node(wanted),
                folders=dict.fromkeys(
                    wanted.spill_paths, wanted.spill_bytes // len(wanted.spill_paths)
                ),
                restart="Always",
            ),
        },
    }


def driver_role(namespace: str, name: str = "mars-driver") -> Json:
    """All rights that a program needs which starts clusters in a namespace, and no more."""
    rules = [
        (["batch"], ["jobs"], ["create", "get", "list", "patch", "delete"]),
        (["apps"], ["deployments"], ["create", "get", "list", "patch", "delete"]),
        ([""], ["services"], ["create", "get"]),
        ([""], ["secrets"], ["create", "get"]),
        (["networking.k8s.io"], ["networkpolicies"], ["create"]),
        ([""], ["pods", "events"], ["get", "list"]),
        ([""], ["pods/log"], ["get"]),
        # A connection is a GET or a POST, as the version of Kubernetes has it.
        ([""], ["pods/portforward"], ["create", "get"]),
    ]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace, "labels": {NAME_LABEL: "mars"}},
        "rules": [
            {"apiGroups": groups, "resources": resources, "verbs": verbs}
            for groups, resources, verbs in rules
        ],
    }


def _metadata(wanted: Wanted, name: str) -> Json:
    told = {ENGINE_LABEL: wanted.kind.name, SERVICE_LABEL: wanted.service}
    return {"name": name, "namespace": wanted.namespace, "labels": labels(wanted.name) | told}


def _selects(wanted: Wanted, part: str) -> dict[str, str]:
    return {NAME_LABEL: "mars", INSTANCE_LABEL: wanted.name, PART_LABEL: part}


def _pod(  # noqa: PLR0913 (what differs between two kinds of pods)
    wanted: Wanted,
    part: str,
    given: Part,
    container: Container,
    *,
    folders: Mapping[str, int],
    restart: str,
) -> Json:
    """A pod of one container, as the template of what starts it."""
    # 0440: the pod's group is its own.
    secret: Json = {"secretName": f"{wanted.name}-node", "defaultMode": 0o440}
    volumes: list[Json] = [{"name": "credentials", "secret": secret}]
    if container.certifies:
        own_files: Json = {"medium": "Memory", "sizeLimit": _size(MIB)}
        volumes = [
            {"name": "credentials", "emptyDir": own_files},
            {"name": "authority", "secret": secret},
        ]
    mounts: list[Json] = [{"name": "credentials", "mountPath": SECRETS, "readOnly": True}]
    for number, (folder, size) in enumerate(folders.items()):
        name = f"scratch-{number}" if number else "scratch"
        volumes.append({"name": name, "emptyDir": {"sizeLimit": _size(size)}})
        mounts.append({"name": name, "mountPath": folder})
    if container.shm_bytes:
        shm: Json = {"medium": "Memory", "sizeLimit": _size(container.shm_bytes)}
        volumes.append({"name": "shm", "emptyDir": shm})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    for one in given.volumes:
        volumes.append({key: value for key, value in one.items() if key not in _OF_MOUNTS})
        mount = {key: one[key] for key in _OF_MOUNTS if key in one}
        mounts.append({"name": one["name"], **mount})
    scratch = next(iter(folders))
    own = {"HOME": scratch, "TMPDIR": scratch, **container.program.environment}
    if given.gpus:
        own["MARS_GPUS"] = str(given.gpus)  # the pod sees these and no others: our node offers them
    env: list[Json] = [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in (
            (POD_NAME, "metadata.name"),
            (POD_NAMESPACE, "metadata.namespace"),
            (POD_IP, "status.podIP"),
        )
    ]
    # Those of the program count more than those of the user: they keep strangers out.
    theirs = {name: text for name, text in given.env.items() if name not in container.program.unset}
    env += [{"name": name, "value": text} for name, text in {**theirs, **own}.items()]
    limits = {
        "cpu": f"{given.cpu_milli}m",
        "memory": _size(given.memory_bytes),
        # The folders on disk, and what the container prints.
        "ephemeral-storage": _size(sum(folders.values()) + 256 * MIB),
    }
    if given.gpus:
        limits[_GPUS] = str(given.gpus)
    probe: Json = {
        "exec": {
            "command": [
                *_PYTHON,
                "mars.deploy.kubernetes.alive",
                str(next(iter(container.ports.values()))),
            ]
        },
        "timeoutSeconds": 20,
    }
    common: Json = {
        "image": wanted.image,
        "env": env,
        "resources": {"requests": dict(limits), "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # What a container that crashed printed last stands in the pod's status, too.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if wanted.pull_policy:
        common["imagePullPolicy"] = wanted.pull_policy
    runs: Json = {
        **common,
        "name": part,
        "command": ["python", *container.program.command[1:]],
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in container.ports.items()
        ],
        "startupProbe": {**probe, "periodSeconds": 3, "failureThreshold": 40},
        "livenessProbe": {**probe, "periodSeconds": 60, "failureThreshold": 4},
        "volumeMounts": mounts,
    }
    if given.pre_stop:
        runs["lifecycle"] = {"preStop": {"exec": {"command": list(given.pre_stop)}}}
    spec: Json = {
        "containers": [runs],
        "volumes": volumes,
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": KUBERNETES_GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": wanted.user_id,
            "runAsGroup": wanted.user_id,
            "fsGroup": wanted.user_id,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if container.certifies:
        spec["initContainers"] = [{**common, **_certifies(container)}]
    if wanted.service_account:
        spec["serviceAccountName"] = wanted.service_account
    if wanted.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in wanted.pull_secrets]
    if wanted.node_selector:
        spec["nodeSelector"] = dict(wanted.node_selector)
    if wanted.tolerations:
        spec["tolerations"] = list(wanted.tolerations)
    if part == WORKER:
        spec["affinity"] = _spread(wanted)
    metadata = {"labels": {**given.labels, **labels(wanted.name), PART_LABEL: part}}
    return {"metadata": metadata, "spec": spec}


def _certifies(container: Container) -> Json:
    """A container that makes the pod's certificate; no other one sees the authority's key."""
    head = ["--head", container.awaits] if container.awaits else []
    mounts: list[Json] = [
        {"name": "credentials", "mountPath": SECRETS},
        {"name": "authority", "mountPath": AUTHORITY, "readOnly": True},
    ]
    return {
        "name": CERTIFY,
        "command": [*_PYTHON, "mars.deploy.kubernetes.certify", *head, *container.names],
        "volumeMounts": mounts,
    }


def _spread(wanted: Wanted) -> Json:
    """Workers rather run on hosts that have none: a lost host then costs fewer of them."""
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": _selects(wanted, WORKER)},
    }
    preferred = [{"weight": 50, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


_GPUS: Final = "nvidia.com/gpu"
"""What NVIDIA's device plugin calls the GPUs of a host; Kubernetes gives out whole ones."""

_OF_MOUNTS: Final[Sequence[str]] = ("mountPath", "subPath", "readOnly")


def _size(size_bytes: int) -> str:
    """Bytes as Kubernetes writes them."""
    return f"{size_bytes // MIB}Mi" if size_bytes % MIB == 0 else str(size_bytes)


FILES: Final = (CA, CERTIFICATE, KEY, TOKEN)
"""What a Secret of a cluster holds."""
