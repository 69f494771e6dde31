"""What a cluster on Kubernetes shall be: checked, with defaults, in plain units. Pure.

`manifests` writes it as objects of Kubernetes. Called with what users pass to `new_cluster` and to
``mars cluster``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from mars.calls.options import parse_bytes
from mars.config import plain_scalar
from mars.deploy.kubernetes.places import RAY_CLIENT_PORT, SCHEDULER_PORT, SCRATCH
from mars.deploy.ray_programs import store_bytes
from mars.engines.kinds import CLUSTERS, DASK, KINDS, RAY, EngineKind
from mars.errors import UsageError
from mars.settings import (
    KUBERNETES_CACHE_SHARE,
    KUBERNETES_HEAD_BYTES,
    KUBERNETES_LEASE_S,
    KUBERNETES_RAY_HEAD_BYTES,
    KUBERNETES_SPILL_BYTES,
    KUBERNETES_USER,
    KUBERNETES_WORKER_BYTES,
    MIB,
)

Json = dict[str, object]
"""An object of Kubernetes, or a part of one, as it stands in JSON."""

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_VARIABLE: Final = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
_LABEL: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY: Final = re.compile(
    r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
SERVICE_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer")


@dataclass(frozen=True, slots=True)
class Part:
    """What each pod of one kind gets; its requests are its limits.

    Attributes
    ----------
    cpu_milli : int
        Thousandths of a core.
    memory_bytes : int
        Of its processes, its values and its ``/dev/shm`` together.
    gpus : int
        Whole GPUs of NVIDIA.
    env, labels : mapping of str to str
        Further ones.
    volumes : sequence of dict
        Further volumes as Kubernetes writes them, each with a ``mountPath`` beside.
    pre_stop : sequence of str
        A command that runs before the pod is ended. Empty: none.
    """

    cpu_milli: int
    memory_bytes: int
    gpus: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[Json] = ()
    pre_stop: Sequence[str] = ()

    @property
    def cores(self) -> int:
        """How many calls of one core it runs at the same time."""
        return math.ceil(self.cpu_milli / 1000)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A cluster as it shall be.

    Attributes
    ----------
    name, namespace : str
        Of the cluster. All its objects have the name, or one that begins with it.
    image : str
        That all pods run.
    scheduler, workers : Part
        What a pod gets.
    worker_num : int
        How many pods run calls.
    shm_bytes, spill_bytes : int
        Sizes of ``/dev/shm``, and of the folder for temporary files and spilled values.
    kind : EngineKind
        The engine in the pods.
    lease_s : int
        The cluster ends if its program has not been heard of for this time, seconds. 0: it stays
        until somebody ends it.
    """

    name: str
    namespace: str
    image: str
    scheduler: Part
    workers: Part
    worker_num: int = 1
    shm_bytes: int = 0
    spill_bytes: int = KUBERNETES_SPILL_BYTES
    spill_paths: Sequence[str] = (SCRATCH,)
    service_type: str = "ClusterIP"
    service_name: str = ""
    service_port: int = SCHEDULER_PORT
    pull_policy: str = ""
    pull_secrets: Sequence[str] = ()
    service_account: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Json] = ()
    user_id: int = KUBERNETES_USER
    network_policy: bool = True
    lease_s: int = KUBERNETES_LEASE_S
    kind: EngineKind = DASK

    @property
    def service(self) -> str:
        """Name of the Service of the scheduler."""
        return self.service_name or self.name


def cpu_milli(name: str, value: object) -> int:
    """Thousandths of a core, of a number of cores or a text as Kubernetes writes it."""
    value = plain_scalar(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{name} has to be a number of cores, or a text as '500m', got {value!r}")
    try:
        if isinstance(value, str) and value.strip().endswith("m"):
            milli = float(value.strip()[:-1])
        else:
            milli = 1000 * float(value)
    except ValueError:
        raise ValueError(f"{name}={value!r} is no number of cores; write 2, or '500m'") from None
    if not 1 <= milli < 1e9:
        raise ValueError(f"{name} has to be 0.001 cores or more, got {value!r}")
    return math.ceil(milli)


def whole(name: str, value: object, at_least: int = 1, at_most: int | None = None) -> int:
    """An int within limits."""
    value = plain_scalar(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} has to be an int, got {value!r}")
    if value < at_least or (at_most is not None and value > at_most):
        limit = f"{at_least} or more" if at_most is None else f"from {at_least} to {at_most}"
        raise ValueError(f"{name} has to be {limit}, got {value}")
    return value


def dns_name(name: str, value: object) -> str:
    """A name that Kubernetes takes for a Service, and that leaves room for what follows on it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} has to be a str, got {value!r}")
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{name}={value!r} is no name on Kubernetes: write small letters, digits and '-', "
            f"beginning with a letter, at most 40"
        )
    return value


def engine_kind(value: object) -> EngineKind:
    """The engine in the pods, by its name."""
    if value is None:
        return DASK
    if value not in [kind.name for kind in CLUSTERS]:
        raise ValueError(f"engine has to be 'dask' or 'ray' on Kubernetes, got {value!r}")
    return KINDS[str(value)]


def words(name: str, value: object) -> Mapping[str, str]:
    """A mapping of texts; numbers are taken as texts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} has to be a dict, got {value!r}")
    for key, text in value.items():
        if not isinstance(key, str) or isinstance(text, bool) or not isinstance(text, (str, int)):
            raise TypeError(f"{name} has to map names to texts, got {key!r}: {text!r}")
    return {key: str(text) for key, text in value.items()}


def variables(name: str, value: object) -> Mapping[str, str]:
    """Environment variables of pods."""
    found = words(name, value)
    for key in found:
        if not _VARIABLE.fullmatch(key):
            raise ValueError(f"{name}[{key!r}] cannot be a variable of the environment")
    return found


def labels(name: str, value: object) -> Mapping[str, str]:
    """Labels of pods."""
    found = words(name, value)
    for key, text in found.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL.fullmatch(text):
            raise ValueError(f"{name}[{key!r}]={text!r} cannot be a label on Kubernetes")
    return found


def volumes(name: str, value: object) -> tuple[Json, ...]:
    """Further volumes, each with a name and a ``mountPath``."""
    if value is None:
        return ()
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} has to be a list of dicts, got {value!r}")
    for one in value:
        if not isinstance(one, Mapping) or not {"name", "mountPath"} <= one.keys():
            raise ValueError(
                f"{name} has to hold volumes as Kubernetes writes them, each with a 'mountPath', "
                f"as {{'name': 'data', 'mountPath': '/data', 'persistentVolumeClaim': "
                f"{{'claimName': 'data'}}}}; got {one!r}"
            )
    return tuple([dict(one) for one in value])


def sequence(name: str, value: object) -> tuple[str, ...]:
    """Some texts; one text is one of them."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{name} has to be a list of str, got {value!r}")
    return tuple(value)


def wanted(  # noqa: PLR0913 (what users may ask for)
    *,
    name: str,
    namespace: str,
    image: object,
    engine: object = None,
    worker_num: object = 1,
    worker_cpu: object = None,
    worker_mem: object = None,
    worker_gpus: object = None,
    worker_cache_mem: object = None,
    worker_spill_size: object = None,
    worker_spill_paths: object = None,
    supervisor_cpu: object = None,
    supervisor_mem: object = None,
    service_type: object = None,
    service_name: object = None,
    service_port: object = None,
    image_pull_policy: object = None,
    image_pull_secrets: object = None,
    service_account: object = None,
    node_selector: object = None,
    tolerations: object = None,
    user_id: object = None,
    network_policy: object = True,
    lease: object = None,
    extra_env: object = None,
    extra_labels: object = None,
    extra_volumes: object = None,
    pre_stop_command: object = None,
    supervisor_extra_env: object = None,
    supervisor_extra_labels: object = None,
    supervisor_extra_volumes: object = None,
    supervisor_pre_stop_command: object = None,
    worker_extra_env: object = None,
    worker_extra_labels: object = None,
    worker_extra_volumes: object = None,
    worker_pre_stop_command: object = None,
) -> Wanted:
    """Check what was asked for; the parameters are those of `mars.deploy.kubernetes.new_cluster`.

    Raises
    ------
    TypeError, ValueError, UsageError
        An argument is wrong. The message names it.
    """
    if not isinstance(image, str) or not image or image != image.strip():
        raise UsageError(
            f"image={image!r} is no image: pass image='REGISTRY/NAME:TAG', or set MARS_K8S_IMAGE; "
            f"docker/Dockerfile makes one with mars in it"
        )

    def part(
        kind: str, cpu: object, memory: object, defaults: tuple[int, int], gpus: object = None
    ) -> Part:
        own = {
            "env": (extra_env, supervisor_extra_env, worker_extra_env),
            "labels": (extra_labels, supervisor_extra_labels, worker_extra_labels),
            "volumes": (extra_volumes, supervisor_extra_volumes, worker_extra_volumes),
            "pre": (pre_stop_command, supervisor_pre_stop_command, worker_pre_stop_command),
        }
        which = 1 if kind == "supervisor" else 2
        return Part(
            defaults[0] if cpu is None else cpu_milli(f"{kind}_cpu", cpu),
            defaults[1] if memory is None else parse_bytes(memory, f"{kind}_mem"),
            0 if gpus is None else whole(f"{kind}_gpus", gpus, 0),
            {
                **variables("extra_env", own["env"][0]),
                **variables(f"{kind}_extra_env", own["env"][which]),
            },
            {
                **labels("extra_labels", own["labels"][0]),
                **labels(f"{kind}_extra_labels", own["labels"][which]),
            },
            volumes("extra_volumes", own["volumes"][0])
            + volumes(f"{kind}_extra_volumes", own["volumes"][which]),
            sequence(f"{kind}_pre_stop_command", own["pre"][which])
            or sequence("pre_stop_command", own["pre"][0]),
        )

    kind = engine_kind(engine)
    defaults = 1000, KUBERNETES_WORKER_BYTES
    of_head = 1000, KUBERNETES_RAY_HEAD_BYTES if kind is RAY else KUBERNETES_HEAD_BYTES
    workers = part("worker", worker_cpu, worker_mem, defaults, worker_gpus)
    paths = sequence("worker_spill_paths", worker_spill_paths) or (SCRATCH,)
    for path in paths:
        if not path.startswith("/") or path in ("/", "/dev/shm") or ":" in path:
            raise ValueError(f"worker_spill_paths has to hold absolute folders, got {path!r}")
    type_ = "ClusterIP" if service_type is None else service_type
    if type_ not in SERVICE_TYPES:
        raise ValueError(f"service_type has to be one of {SERVICE_TYPES}, got {service_type!r}")
    if kind is RAY and type_ != "ClusterIP":
        raise UsageError(
            f"service_type={type_!r} is not for engine='ray': Ray compares the address with the "
            f"certificate of its head, which is made before this Service has an address; leave it "
            f"out, or use engine='dask'"
        )
    shm_bytes = _cache(worker_cache_mem, workers.memory_bytes)
    if kind is RAY and shm_bytes + store_bytes(workers.memory_bytes) >= workers.memory_bytes:
        raise ValueError(
            f"worker_cache_mem={worker_cache_mem!r} leaves no memory for calls: on Ray its object "
            f"store takes {store_bytes(workers.memory_bytes) // MIB} MiB of worker_mem, too"
        )
    if image_pull_policy not in (None, "Always", "IfNotPresent", "Never"):
        raise ValueError(
            f"image_pull_policy has to be 'Always', 'IfNotPresent' or 'Never', "
            f"got {image_pull_policy!r}"
        )
    if tolerations is not None and (
        isinstance(tolerations, (str, Mapping))
        or not isinstance(tolerations, Sequence)
        or not all(isinstance(one, Mapping) for one in tolerations)
    ):
        raise TypeError(f"tolerations has to be a list of dicts, got {tolerations!r}")
    return Wanted(
        name=dns_name("name", name),
        namespace=namespace,
        image=image,
        scheduler=part("supervisor", supervisor_cpu, supervisor_mem, of_head),
        workers=workers,
        worker_num=whole("worker_num", worker_num),
        shm_bytes=shm_bytes,
        spill_bytes=(
            KUBERNETES_SPILL_BYTES
            if worker_spill_size is None
            else parse_bytes(worker_spill_size, "worker_spill_size")
        ),
        spill_paths=paths,
        service_type=str(type_),
        service_name="" if service_name is None else dns_name("service_name", service_name),
        service_port=(RAY_CLIENT_PORT if kind is RAY else SCHEDULER_PORT)
        if service_port is None
        else whole("service_port", service_port, 1, 65535),
        pull_policy=str(image_pull_policy or ""),
        pull_secrets=sequence("image_pull_secrets", image_pull_secrets),
        service_account="" if service_account is None else str(service_account),
        node_selector=words("node_selector", node_selector),
        tolerations=tuple([dict(one) for one in cast("Sequence[Json]", tolerations or ())]),
        user_id=KUBERNETES_USER if user_id is None else whole("user_id", user_id),
        network_policy=bool(network_policy),
        lease_s=KUBERNETES_LEASE_S if lease is None else whole("lease", lease, 0),
        kind=kind,
    )


def _cache(asked: object, memory_bytes: int) -> int:
    """Bytes for values, of a size or of a part of the memory such as ``"40%"``."""
    if asked is None:
        return int(KUBERNETES_CACHE_SHARE * memory_bytes)
    if isinstance(asked, str) and asked.strip().endswith("%"):
        try:
            share = float(asked.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"worker_cache_mem={asked!r} is no part; write '40%'") from None
        size = int(share * memory_bytes)
    else:
        size = parse_bytes(asked, "worker_cache_mem")
    if not 0 < size < memory_bytes:
        raise ValueError(
            f"worker_cache_mem={asked!r} has to be less than worker_mem, which holds it"
        )
    return size
