"""`new_cluster` starts a cluster on Kubernetes, and `connect_cluster` goes to one that is there.

What is made first owns the rest, so that whatever fails later leaves nothing. Called by programs,
and in parts by ``mars cluster``.
"""

from __future__ import annotations

import atexit
import datetime
import math
import os
import secrets
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.calls.mistakes import unknown_argument
from mars.config import plain_scalar
from mars.deploy import credentials, private_files, ray_programs, records
from mars.deploy.clusters import check_installed
from mars.deploy.credentials import CA, CERTIFICATE, KEY, TOKEN, Credentials
from mars.deploy.knock import knock
from mars.deploy.kubernetes import manifests, pods
from mars.deploy.kubernetes.api import Api, ApiClient
from mars.deploy.kubernetes.client import (
    Kept,
    KubernetesClusterClient,
    Waiting,
    delete,
    secret_texts,
    way_in,
)
from mars.deploy.kubernetes.places import IMAGE
from mars.deploy.kubernetes.wanted import Wanted, wanted, whole
from mars.engines.kinds import DASK, KINDS, RAY
from mars.engines.ray import is_connected
from mars.errors import ClusterUnreachable, CredentialsError, StartupFailed, UsageError
from mars.observe.progress import write_line
from mars.sessions.opening import new_session
from mars.settings import CREDENTIALS_DAYS, KUBERNETES_LEASE_S, KUBERNETES_START_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mars.deploy.kubernetes.wanted import Json
    from mars.engines.kinds import EngineKind
    from mars.sessions.session import Session

__all__ = ["connect_cluster", "make_credentials", "new_cluster", "new_name", "start"]


def new_cluster(  # noqa: PLR0913 (the original's)
    kube_api_client: ApiClient | None = None,
    image: str | None = None,
    supervisor_num: int = 1,
    supervisor_cpu: float | str | None = None,
    supervisor_mem: int | str | None = None,
    worker_num: int = 1,
    worker_cpu: float | str | None = None,
    worker_mem: int | str | None = None,
    worker_spill_paths: Sequence[str] | None = None,
    worker_cache_mem: int | str | None = None,
    min_worker_num: int | None = None,
    web_num: int = 1,
    web_cpu: float | str | None = None,
    web_mem: int | str | None = None,
    service_type: str | None = None,
    timeout: float | None = None,
    *,
    namespace: str | None = None,
    name: str | None = None,
    lease: int = KUBERNETES_LEASE_S,
    worker_gpus: int = 0,
    engine: str | None = None,
    **options: object,
) -> KubernetesClusterClient:
    """Start a cluster on Kubernetes, and make a session on it.

    One pod runs the scheduler of Dask, or the head of Ray; the others run calls. The session is the
    default session.

    Parameters
    ----------
    kube_api_client : kubernetes.client.ApiClient, optional
        Whose rights are used. Default: those of the current context of ``KUBECONFIG`` or
        ``~/.kube/config``; in a pod, those of its service account.
    image : str, optional
        Image of all pods, with the same versions of mars and Python as here. Default: the variable
        ``MARS_K8S_IMAGE``. ``docker/Dockerfile`` makes one.
    supervisor_num, web_num, web_cpu, web_mem : optional
        Accepted for programs of the original, without effect: there is one scheduler, and no web
        server.
    supervisor_cpu, supervisor_mem : optional
        Cores and memory of the scheduler's pod. Default: 1 core and 1 GiB; on Ray 2 GiB.
    worker_num : int, default 1
        How many pods run calls.
    worker_cpu, worker_mem : optional
        Cores and memory of each of them, as ``2`` or ``"500m"``, and in bytes or as ``"8GiB"``.
        Default: 1 core and 2 GiB. Requests are limits.
    worker_spill_paths : sequence of str, default ("/scratch",)
        Folders for values that do not fit into memory. The first is for temporary files, too.
    worker_cache_mem : int or str, default "40%"
        The part of ``worker_mem`` that values may take, and that ``/dev/shm`` may take.
    min_worker_num : int, optional
        Return as soon as so many have joined. Default: all.
    service_type : {"ClusterIP", "NodePort", "LoadBalancer"}, optional
        How programs outside reach the scheduler. Default: "ClusterIP", and this program through the
        API server, as ``kubectl port-forward`` does.
    timeout : float, default 600
        How long it may take to start, in seconds.
    namespace : str, optional
        It has to exist. Default: that of the context, or of the pod.
    name : str, optional
        Of the cluster. Default: ``mars-`` and some letters.
    lease : int, default 300
        If this program is killed, Kubernetes deletes the cluster after this time, in seconds. 0: it
        stays until `KubernetesClusterClient.stop` or ``mars cluster down --kubernetes`` ends it.
    worker_gpus : int, default 0
        Whole GPUs of NVIDIA for each of the pods that run calls, for calls with ``gpus=``. The
        hosts need NVIDIA's device plugin. Requests are limits.
    engine : {"dask", "ray"}, optional
        What runs in the pods. Default: "dask". Ray has to be in the image, and here. A process has
        one connection to Ray, so it can have one such cluster at a time.
    **options
        Those of `mars.new_session`, such as ``checkpoint=`` or ``env=``. And of pods:
        ``worker_spill_size`` (4 GiB: disk of each worker's pod), ``extra_env``, ``extra_labels``,
        ``extra_volumes`` (as Kubernetes writes volumes, with a ``mountPath`` in each),
        ``pre_stop_command``; each of these four with ``supervisor_`` or ``worker_`` before it, too.
        ``service_name``, ``service_port``, ``image_pull_policy``, ``image_pull_secrets``,
        ``service_account``, ``node_selector``, ``tolerations``, ``user_id`` (10001),
        ``network_policy`` (True), ``valid_days`` (30: of the certificates). Those of the original
        that have no meaning here are taken without effect: ``web_port``, ``log_when_fail``,
        ``extra_modules``, ``worker_min_cache_mem``, ``cluster_cls``, and names that end with
        ``_mem_limit_ratio``.

    Returns
    -------
    KubernetesClusterClient
        With ``session``, ``endpoint``, ``namespace``, ``rescale_workers()`` and ``stop()``.

    Raises
    ------
    UsageError
        There is no such namespace, no image was named, or Kubernetes does not take an argument. Or
        the engine is not installed here, or this process is connected to another Ray.
    CredentialsError
        Kubernetes does not know us, or does not let us do something. The message says what.
    ClusterUnreachable
        The API server does not answer.
    StartupFailed
        Pods cannot start: the image cannot be pulled, a quota is exceeded, they crash. Or they do
        not start in time. The message has Kubernetes' reason.
    TypeError, ValueError
        An argument is wrong. The message names it.

    Notes
    -----
    Source: ``mars.deploy.kubernetes.new_cluster`` of Mars; what differs is in docs/differences.md.

    After an error, after ``stop()`` and after the end of the program nothing is left in the
    namespace. If the program is killed, Kubernetes ends the pods when the lease ends, and deletes
    all within a minute more. While pods wait, lines on stderr say what for.

    Examples
    --------
    ::

        from mars.deploy.kubernetes import new_cluster

        with new_cluster(image="registry/mars:1", worker_num=8, worker_cpu=4, worker_mem="16GiB"):
            print(mr.spawn(sum, args=([1, 2, 3],)).execute().fetch())
    """
    if whole("supervisor_num", supervisor_num) > 1:
        write_line("mars: a cluster on Kubernetes has one scheduler; supervisor_num is ignored")
    valid_days = options.pop("valid_days", CREDENTIALS_DAYS)
    limit_s = KUBERNETES_START_S if timeout is None else _seconds("timeout", timeout)
    session_options = {key: options.pop(key) for key in of_sessions(options)}
    asked = checked(
        dict(
            options,
            image=image,
            supervisor_cpu=supervisor_cpu,
            supervisor_mem=supervisor_mem,
            worker_num=worker_num,
            worker_cpu=worker_cpu,
            worker_mem=worker_mem,
            worker_gpus=worker_gpus,
            worker_spill_paths=worker_spill_paths,
            worker_cache_mem=worker_cache_mem,
            service_type=service_type,
            lease=lease,
            engine=engine,
        )
    )
    plan = wanted(name=name or new_name(), namespace=namespace or "default", **asked)
    enough = plan.worker_num
    if min_worker_num is not None:
        enough = whole("min_worker_num", min_worker_num, 1, plan.worker_num)
    del web_num, web_cpu, web_mem
    check_engine(plan.kind)
    api = Api(kube_api_client, namespace)
    plan = wanted(name=plan.name, namespace=api.namespace, **asked)
    if worker_cache_mem is not None:
        session_options.setdefault("object_memory", plan.shm_bytes)
    begun = time.monotonic()
    node, client = make_credentials(plan, _seconds("valid_days", valid_days))
    kept, service = start(api, plan, node, client)
    try:
        watch = Waiting(api, plan.name, begun + limit_s)
        inside = manifests.address(plan)
        return connected(kept, inside, service, client, watch, enough, session_options)
    except BaseException:
        kept.give_up()
        raise


def connect_cluster(
    name: str | None = None,
    namespace: str | None = None,
    kube_api_client: ApiClient | None = None,
    **session_options: object,
) -> KubernetesClusterClient:
    """Make a session on a cluster that is there, as of ``mars cluster up --kubernetes``.

    Parameters
    ----------
    name : str, optional
        Of the cluster. Not needed if there is one in the namespace.
    namespace, kube_api_client : optional
        As of `new_cluster`.
    **session_options
        Of `mars.new_session`, such as ``checkpoint=``.

    Returns
    -------
    KubernetesClusterClient
        At its end the cluster stays; its `KubernetesClusterClient.stop` ends it.

    Raises
    ------
    UsageError
        There is no such cluster, or there are several.
    CredentialsError, ClusterUnreachable, StartupFailed
        As of `new_cluster`.

    Examples
    --------
    ::

        from mars.deploy.kubernetes import connect_cluster

        with connect_cluster("mars-team"):
            print(mr.spawn(sum, args=([1, 2, 3],)).execute().fetch())
    """
    wrong = session_options.keys() - of_sessions(session_options)
    if wrong:
        raise TypeError(unknown_argument("connect_cluster", min(wrong), _SESSION))
    api = Api(kube_api_client, namespace)
    name = name or the_only(api)
    secret = api.secret(f"{name}-client")
    if secret is None:
        raise UsageError(
            f"there is no cluster {name!r} in namespace {api.namespace!r}; "
            f"`mars cluster status --kubernetes` lists them"
        )
    workers: pods.Facts | None = api.deployment(f"{name}-{manifests.WORKER}")
    told = {} if workers is None else workers["metadata"].get("labels") or {}
    engine = KINDS[told.get(manifests.ENGINE_LABEL, DASK.name)]
    check_engine(engine)
    kept = Kept(api, name, 0, 0.0, engine)
    kept.kind = "Job" if api.job(f"{name}-{manifests.SCHEDULER}") is not None else "Deployment"
    kept.ends_with_us = False
    try:
        service = api.service(told.get(manifests.SERVICE_LABEL, name))
        if service is None:
            raise ClusterUnreachable(f"the cluster {name} has no Service any more")
        facts: pods.Facts = service
        port = facts["spec"]["ports"][0]["port"]
        host = f"{facts['metadata']['name']}.{api.namespace}.svc:{port}"
        inside = engine.address(host, secure=True)
        watch = Waiting(api, name, time.monotonic() + KUBERNETES_START_S)
        return connected(kept, inside, service, secret_texts(secret), watch, 1, session_options)
    except BaseException:
        kept.close()
        raise


def start(
    api: Api, plan: Wanted, node: Mapping[str, str], client: Mapping[str, str]
) -> tuple[Kept, Json]:
    """Make all objects of a cluster; nothing is left if one cannot be made.

    Returns
    -------
    Kept and dict
        What this program has to keep up, and the Service as it was made.
    """
    begun = time.monotonic()
    first, *others = manifests.everything(plan, node, client)
    root = api.make(first)
    kept = Kept(api, plan.name, plan.lease_s, begun, plan.kind)
    try:
        made = [api.make(manifests.owned(one, root)) for one in others]
    except BaseException:
        kept.give_up()
        raise
    return kept, next(one for one in made if pods.name_of(one) == plan.service)


def make_credentials(plan: Wanted, valid_days: float) -> tuple[dict[str, str], dict[str, str]]:
    """An authority of its own, and what it signed: for the pods, and for programs.

    The key of the authority is forgotten: nobody can make further certificates. Pods of Ray make
    their own, so they get it.
    """
    host = f"{plan.service}.{plan.namespace}.svc"
    names = [plan.service, host, f"{host}.cluster.local", "localhost", "127.0.0.1"]
    folder = Path(platform.private_directory("mars-kubernetes-"))
    try:
        made = folder / "credentials"
        credentials.create(made, names, datetime.timedelta(days=valid_days))
        client = credentials.pack(made, client_only=True)
        if plan.kind is RAY:
            return credentials.pack(made, client_only=False), client
        names_of_files = CA, CERTIFICATE, KEY, TOKEN
        node = {name: private_files.read(made / name).decode() for name in names_of_files}
        return node, client
    finally:
        private_files.remove(folder)


def check_engine(kind: EngineKind) -> None:
    """Refuse an engine that this process cannot connect to, before anything is started.

    Raises
    ------
    UsageError
        It is not installed, or this process is connected to another Ray.
    """
    check_installed(kind)
    if kind is RAY and is_connected():
        raise UsageError(
            "this process is connected to Ray already, and has one connection at a time: end the "
            "session on it before, or use engine='dask'"
        )


def new_name() -> str:
    """A name for a cluster that nobody else has."""
    return f"mars-{secrets.token_hex(4)}"


def checked(options: dict[str, object]) -> dict[str, object]:
    """The options that mean something here; those of the original that do not are left out."""
    options["image"] = options.get("image") or os.environ.get(IMAGE)
    code = wanted.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    found = {}
    for key, value in options.items():
        if key in known:
            found[key] = value
        elif key not in _ACCEPTED and not key.endswith("_mem_limit_ratio"):
            raise TypeError(unknown_argument("new_cluster", key, (*known, *_SESSION)))
    return found


def of_sessions(options: Mapping[str, object]) -> list[str]:
    """Which options are of `mars.new_session`."""
    return [key for key in options if key in _SESSION]


_SESSION: Final = (
    "session_id", "default", "object_memory", "spill_directory", "log_limit", "seed", "checkpoint",
    "env", "working_dir", "node_ports",
)  # fmt: skip
"""Options of sessions that have a meaning here."""

_ACCEPTED: Final = frozenset(
    {
        "cluster_cls", "extra_modules", "log_when_fail", "supervisor_extra_modules",
        "supervisor_log_when_fail", "web_extra_env", "web_extra_labels", "web_extra_modules",
        "web_extra_volumes", "web_log_when_fail", "web_port", "web_pre_stop_command",
        "worker_extra_modules", "worker_log_when_fail", "worker_min_cache_mem",
    }
)  # fmt: skip
"""Options of the original without a meaning here."""


def the_only(api: Api) -> str:
    """The name of the only cluster in a namespace."""
    found = names(api)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"there is no cluster in namespace {api.namespace!r}; "
            f"`mars cluster up --kubernetes` starts one"
        )
    raise UsageError(
        f"there are {len(found)} clusters in namespace {api.namespace!r}, name one of them: "
        f"{', '.join(found)}"
    )


def names(api: Api) -> list[str]:
    """The names of all clusters in a namespace."""
    made = api.deployments(manifests.selector())
    return sorted({_instance(one) for one in made if _instance(one)})


def _instance(one: pods.Facts) -> str:
    return str((one["metadata"].get("labels") or {}).get(manifests.INSTANCE_LABEL, ""))


def connected(
    kept: Kept,
    inside: str,
    service: Json,
    client: Mapping[str, str],
    watch: Waiting,
    enough: int,
    session_options: Mapping[str, object] | None = None,
) -> KubernetesClusterClient:
    """A session on a cluster, when its scheduler answers and enough workers have joined."""
    for part, count in ((manifests.SCHEDULER, 1), (manifests.WORKER, enough)):
        selector = manifests.selector(kept.name, part)
        watch.until(
            lambda: sum(map(pods.is_running, kept.api.pods(selector))) >= count,  # noqa: B023
            count,
            part,
        )
    endpoint = way_in(kept, inside, service)
    files = kept.know(endpoint, client)
    session = _session(kept, endpoint, files, watch, session_options or {})
    site = session.engine.site  # type: ignore[attr-defined]
    site.why_lost, site.fate = kept.why_lost, kept.fate
    made = KubernetesClusterClient(kept, endpoint, session)
    # After `new_session`, whose handler has to run later: handlers run in reverse.
    atexit.register(made.at_exit)
    try:
        watch.until(lambda: made.count_workers() >= enough, enough)
    except BaseException:
        made.close()
        raise
    return made


def _session(
    kept: Kept, endpoint: str, files: Credentials, watch: Waiting, options: Mapping[str, object]
) -> Session:
    """A session; tried again on Ray, whose head may give up as it begins, see `beginning`."""
    tries = ray_programs.TRIES if kept.engine is RAY else 1
    for tries_left in reversed(range(tries)):
        watch.until(lambda: _answers(kept, endpoint, files), 1, manifests.SCHEDULER)
        try:
            return new_session(endpoint, **options)  # type: ignore[arg-type]
        except (StartupFailed, ClusterUnreachable):
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _answers(kept: Kept, endpoint: str, files: Credentials) -> bool:
    """Whether the scheduler takes our certificate; False: it may do so later."""
    host, port = records.split(endpoint)
    try:
        knock(host, port, files)
    except ClusterUnreachable:
        return False
    except CredentialsError as error:
        trouble = kept.trouble
        if trouble is not None and not isinstance(trouble, ClusterUnreachable):
            raise StartupFailed(f"the scheduler cannot be reached: {trouble}") from None
        # The tunnel takes a connection, and ends it if nobody listens in the pod yet.
        hung_up = error.__cause__ is None or isinstance(error.__cause__, _HUNG_UP)
        if not kept.tunnels or not hung_up:
            raise
        return False
    return True


_HUNG_UP: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)
"""What the end of a connection looks like that nobody has taken."""


def end(api: Api, name: str) -> bool:
    """Delete a cluster of any kind; whether it was there."""
    ended = [delete(api, kind, name) for kind in ("Job", "Deployment")]
    return any(ended)


def _seconds(name: str, value: object) -> float:
    value = plain_scalar(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} has to be a number, got {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} has to be more than 0, got {value!r}")
    return float(value)
