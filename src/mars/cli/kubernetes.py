"""``mars cluster … --kubernetes``, and ``mars cluster manifest``.

Prints what to type next. Called by `mars.cli.cluster`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Final, TypedDict

from mars.deploy.kubernetes import manifests, pods, starting
from mars.deploy.kubernetes.api import Api
from mars.deploy.kubernetes.client import Waiting, wait_gone
from mars.deploy.kubernetes.wanted import Json, Wanted, wanted
from mars.engines.kinds import CLUSTERS
from mars.errors import UsageError
from mars.settings import CREDENTIALS_DAYS, KUBERNETES_GONE_S, KUBERNETES_START_S

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_OPTIONS: Final = (
    ("image", "image of all pods; default: the variable MARS_K8S_IMAGE"),
    ("worker_cpu", "cores of each of them, as 2 or 500m; default: 1"),
    ("worker_mem", "memory of each of them, as 8GiB; default: 2GiB"),
    ("worker_cache_mem", "what of it values may take, as 4GiB or 40%%; default: 40%%"),
    ("worker_spill_size", "disk of each of them, as 20GiB; default: 4GiB"),
    ("supervisor_cpu", "cores of the scheduler; default: 1"),
    ("supervisor_mem", "memory of the scheduler; default: 1GiB"),
    ("service_type", "ClusterIP, NodePort or LoadBalancer; default: ClusterIP"),
    ("service_account", "service account of the pods, which get no token of it"),
    ("image_pull_policy", "Always, IfNotPresent or Never; default: Kubernetes'"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add what says how a cluster on Kubernetes shall be."""
    parser.add_argument("--name", help="of the cluster, on Kubernetes; default: mars-XXXXXXXX")
    add_place(parser)
    parser.add_argument("--workers", type=int, default=1, help="how many pods run calls")
    parser.add_argument(
        "--worker-gpus", type=int, default=0,
        help="whole GPUs of NVIDIA for each of them; default: 0 (Kubernetes)",
    )  # fmt: skip
    for name, what in _OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, help=f"{what} (Kubernetes)")
    parser.add_argument(
        "--image-pull-secret", action="append", help="Secret for the image's registry; repeatable"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of all pods"
    )


def add_place(parser: ArgumentParser) -> None:
    """Add where on Kubernetes something is."""
    parser.add_argument("--namespace", help="on Kubernetes; default: that of the context")


def up(options: Namespace) -> int:
    """Start a cluster that stays."""
    # What is wrong with it is said before anybody is asked.
    starting.check_engine(_plan(options, "default").kind)
    api = Api(None, options.namespace)
    plan = _plan(options, api.namespace)
    node, client = starting.make_credentials(plan, options.valid_days)
    kept, service = starting.start(api, plan, node, client)
    try:
        deadline = time.monotonic() + (options.timeout or KUBERNETES_START_S)
        watch = Waiting(api, plan.name, deadline)
        inside = manifests.address(plan)
        starting.connected(kept, inside, service, client, watch, plan.worker_num).close()
    except BaseException:
        kept.give_up()
        raise
    where = f"{plan.name!r}, namespace={plan.namespace!r}"
    print(f"cluster {plan.name} in namespace {plan.namespace}: {plan.worker_num} workers are ready")
    print(f"a program:  mars.deploy.kubernetes.connect_cluster({where})")
    print(f"it ends:    mars cluster down --kubernetes --namespace {plan.namespace} {plan.name}")
    return 0


def status(options: Namespace) -> int:
    """Show the clusters of a namespace; 1 if a pod is not ready."""
    api = Api(None, options.namespace)
    names = starting.names(api) if options.address is None else [options.address]
    reports: list[_Report] = []
    for name in names:
        found = api.pods(manifests.selector(name))
        if not found and options.address is not None and name not in starting.names(api):
            raise UsageError(f"there is no cluster {name!r} in namespace {api.namespace!r}")
        reports.append({"name": name, "namespace": api.namespace, "pods": list(map(_pod, found))})
    if options.json:
        print(json.dumps(reports, indent=2))
    elif not reports:
        print(f"there is no cluster in namespace {api.namespace}")
    for report in () if options.json else reports:
        print(f"cluster {report['name']} in namespace {api.namespace}")
        for row in report["pods"]:
            again = f", started again {row['restarts']} times" if row["restarts"] else ""
            last = f", before: {row['ended']}" if row["ended"] and row["ready"] else ""
            print(f"  {row['part']} {row['name']} on {row['node']}: {row['state']}{again}{last}")
    api.close()
    rows = [row for report in reports for row in report["pods"]]
    return 0 if all(row["ready"] for row in rows) else 1


class _Report(TypedDict):
    name: str
    namespace: str
    pods: list[dict[str, object]]


def _pod(pod: Json) -> dict[str, object]:
    facts: pods.Facts = pod
    return {
        "name": pods.name_of(pod),
        "part": facts["metadata"]["labels"].get(manifests.PART_LABEL, "pod"),
        "node": facts["spec"].get("nodeName") or "no host yet",
        "state": pods.state(pod),
        "ready": pods.is_ready(pod),
        "restarts": pods.restarts(pod),
        "ended": pods.ending(pod),
    }


def down(options: Namespace) -> int:
    """End clusters."""
    api = Api(None, options.namespace)
    if options.all:
        names = starting.names(api)
    else:
        names = [options.address or starting.the_only(api)]
    for name in names:
        if not starting.end(api, name) and not options.if_known:
            raise UsageError(f"there is no cluster {name!r} in namespace {api.namespace!r}")
    for name in names:
        wait_gone(api, name, KUBERNETES_GONE_S)
        print(f"cluster {name} in namespace {api.namespace} has ended")
    api.close()
    return 0


def add_manifest(parser: ArgumentParser) -> None:
    """Add what ``mars cluster manifest`` understands."""
    engines = [kind.name for kind in CLUSTERS]
    parser.add_argument("--engine", choices=engines, help="what it runs on; default: dask")
    add_arguments(parser)
    parser.add_argument(
        "--valid-days", type=float, default=CREDENTIALS_DAYS, help="how long credentials are valid"
    )
    parser.add_argument(
        "--secrets",
        choices=("with", "without", "only"),
        default="with",
        help="print the Secrets, too, which hold private keys; not; or nothing else; default: with",
    )
    parser.add_argument(
        "--role", action="store_true", help="print the rights that a program needs, nothing else"
    )


def manifest(options: Namespace) -> int:
    """Print the objects of a cluster as YAML."""
    namespace = options.namespace or "default"
    if options.role:
        print(as_yaml([manifests.driver_role(namespace)]), end="")
        return 0
    plan = _plan(options, namespace)
    node = client = None
    if options.secrets != "without":
        node, client = starting.make_credentials(plan, options.valid_days)
        print(
            "mars cluster: the Secrets hold private keys; do not keep them in a repository "
            "(--secrets=without and --secrets=only print the two parts)",
            file=sys.stderr,
        )
    made = manifests.everything(plan, node, client)
    if options.secrets == "only":
        made = [one for one in made if one["kind"] == "Secret"]
    print(as_yaml(made), end="")
    return 0


def as_yaml(objects: list[Json]) -> str:
    """Objects as documents of YAML."""
    try:
        import yaml
    except ImportError:
        raise UsageError(
            "the package PyYAML is not installed here; "
            "python -m pip install 'mars-remote[kubernetes]'"
        ) from None
    # Through JSON: YAML would write an object that stands in two places as a reference.
    plain = [json.loads(json.dumps(one)) for one in objects]
    text: str = yaml.safe_dump_all(plain, sort_keys=False, explicit_start=True, width=100)
    return text


def _plan(options: Namespace, namespace: str) -> Wanted:
    asked: dict[str, object] = {name: getattr(options, name) for name, _ in _OPTIONS}
    variables = {}
    for text in options.env:
        name, found, value = text.partition("=")
        if not found:
            raise UsageError(f"--env {text} has to be NAME=VALUE")
        variables[name] = value
    asked |= {
        "worker_num": options.workers,
        "worker_gpus": options.worker_gpus,
        "extra_env": variables,
        "image_pull_secrets": options.image_pull_secret,
        "engine": options.engine,
        "lease": 0,  # it stays until somebody ends it
    }
    if options.name is None:
        options.name = starting.new_name()
    return wanted(name=options.name, namespace=namespace, **starting.checked(asked))
