"""The API server of Kubernetes, by its official client: our few questions, and errors of ours.

A thin shell: objects go in and come out as they stand in JSON. The client is loaded here, and only
when a program asks for a cluster on Kubernetes. Called by `starting`, `client` and `tunnel`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn, Protocol, TypeVar

from mars.deploy.kubernetes.places import CERTIFY
from mars.deploy.kubernetes.wanted import Json
from mars.errors import ClusterUnreachable, CredentialsError, StartupFailed, UsageError
from mars.settings import KUBERNETES_CALL_S

Answer = TypeVar("Answer")

_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def is_inside() -> bool:
    """Whether this program runs in a pod that may talk to the API server."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and _OWN_NAMESPACE.exists()


# Of the client, which has no types, what we use.


class _Configuration(Protocol):
    host: str


class _Pools(Protocol):
    def clear(self) -> None: ...


class _RestClient(Protocol):
    pool_manager: _Pools


class ApiClient(Protocol):
    """A client of the API server, with somebody's rights."""

    configuration: _Configuration
    default_headers: Mapping[str, str]
    rest_client: _RestClient

    def sanitize_for_serialization(self, obj: object) -> object: ...


class Forwarded(Protocol):
    """Connections to ports of a pod."""

    def socket(self, port: int) -> socket.socket: ...


class _Listed(Protocol):
    items: list[object]


class _Refusal(Protocol):
    """An error of the API server."""

    status: int
    reason: str | None
    body: str


class Api:
    """What we ask of one API server, in one namespace.

    Parameters
    ----------
    api_client : kubernetes.client.ApiClient, optional
        Whose rights are used. Default: those of the pod that this is, else those of the current
        context of ``KUBECONFIG`` or ``~/.kube/config``.
    namespace : str, optional
        Default: that of the context or of the pod.

    Raises
    ------
    UsageError
        The client is not installed, or there is no configuration for it.
    """

    def __init__(self, api_client: ApiClient | None = None, namespace: str | None = None) -> None:
        try:
            import kubernetes
        except ImportError:
            raise UsageError(
                "the package kubernetes is not installed here; "
                "python -m pip install 'mars-remote[kubernetes]'"
            ) from None
        self._kubernetes = kubernetes
        self.inside = is_inside()
        given, found = self._configured(api_client)
        self.namespace = namespace or found or "default"
        self._given = given
        self._core = kubernetes.client.CoreV1Api(given)
        self._makes: dict[str, Callable[..., object]] = {
            "Job": kubernetes.client.BatchV1Api(given).create_namespaced_job,
            "Deployment": kubernetes.client.AppsV1Api(given).create_namespaced_deployment,
            "Secret": self._core.create_namespaced_secret,
            "Service": self._core.create_namespaced_service,
            "NetworkPolicy": (
                kubernetes.client.NetworkingV1Api(given).create_namespaced_network_policy
            ),
        }
        self._batch = kubernetes.client.BatchV1Api(given)
        self._apps = kubernetes.client.AppsV1Api(given)

    def _configured(self, api_client: ApiClient | None) -> tuple[ApiClient, str]:
        config = self._kubernetes.config
        try:
            if self.inside:
                found = _OWN_NAMESPACE.read_text().strip()
                if api_client is None:
                    configuration = self._kubernetes.client.Configuration()
                    config.load_incluster_config(client_configuration=configuration)
                    api_client = self._kubernetes.client.ApiClient(configuration)
                return api_client, found
            found = ""
            if api_client is None:
                _, current = config.list_kube_config_contexts()
                found = current["context"].get("namespace", "")
                api_client = config.new_client_from_config()
            return api_client, found
        except (config.ConfigException, OSError) as error:
            raise UsageError(
                f"no Kubernetes is known here ({error}); set KUBECONFIG, or pass "
                f"kube_api_client=kubernetes.config.new_client_from_config(FILE)"
            ) from None

    # -- questions ----------------------------------------------------------------------------

    def make(self, one: Json) -> Json:
        """Make an object; as the API server returns it."""
        kind = str(one["kind"])
        made = self._ask(
            f"make the {kind} {_name(one)}",
            lambda: self._makes[kind](self.namespace, one, **_LIMIT),
        )
        return {"apiVersion": one["apiVersion"], "kind": kind, **self._plain(made)}

    def pods(self, selector: str) -> list[Json]:
        """The pods with some labels."""
        return self._list("pods", self._core.list_namespaced_pod, selector)

    def pod(self, name: str) -> Json | None:
        """One pod; None: it is gone."""
        return self._get("pod", name, self._core.read_namespaced_pod)

    def events(self) -> list[Json]:
        """The events of the namespace; none if we may not see them."""
        try:
            return self._list("events", self._core.list_namespaced_event, "")
        except CredentialsError:
            return []

    def log(self, pod: str, lines: int) -> str:
        """The end of the log of a pod, of its container before if there was one; "": none."""
        of_pod: dict[str, object] = {}  # its main container
        ways = [(of, previous) for of in (of_pod, _OF_CERTIFY) for previous in (True, False)]
        for of, previous in ways:
            try:
                text = self._core.read_namespaced_pod_log(
                    pod, self.namespace, tail_lines=lines, previous=previous, **of, **_LIMIT
                )
            except Exception:  # noqa: S112 (it has no log, or is gone)
                continue
            if text:
                return str(text)
        return ""

    def secret(self, name: str) -> Json | None:
        """A Secret; None: there is none of that name."""
        return self._get("Secret", name, self._core.read_namespaced_secret)

    def service(self, name: str) -> Json | None:
        """A Service; None: there is none of that name."""
        return self._get("Service", name, self._core.read_namespaced_service)

    def job(self, name: str) -> Json | None:
        """A Job; None: there is none of that name."""
        return self._get("Job", name, self._batch.read_namespaced_job)

    def deployment(self, name: str) -> Json | None:
        """A Deployment; None: there is none of that name."""
        return self._get("Deployment", name, self._apps.read_namespaced_deployment)

    def deployments(self, selector: str) -> list[Json]:
        """The Deployments with some labels."""
        return self._list("deployments", self._apps.list_namespaced_deployment, selector)

    def jobs(self, selector: str) -> list[Json]:
        """The Jobs with some labels."""
        return self._list("jobs", self._batch.list_namespaced_job, selector)

    # -- changes ------------------------------------------------------------------------------

    def move_deadline(self, job: str, seconds: int) -> None:
        """Have a Job end so long after its start."""
        change = {"spec": {"activeDeadlineSeconds": seconds}}
        self._ask(
            f"renew the lease of {job}",
            lambda: self._batch.patch_namespaced_job(job, self.namespace, change, **_LIMIT),
        )

    def scale(self, deployment: str, count: int) -> None:
        """Have a Deployment run so many pods."""
        change = {"spec": {"replicas": count}}
        self._ask(
            f"scale {deployment}",
            lambda: self._apps.patch_namespaced_deployment(
                deployment, self.namespace, change, **_LIMIT
            ),
        )

    def delete(self, kind: str, name: str) -> bool:
        """Delete a Job or a Deployment, and all that it owns; whether it was there."""
        way = (
            self._batch.delete_namespaced_job
            if kind == "Job"
            else self._apps.delete_namespaced_deployment
        )
        try:
            self._ask(
                f"delete the {kind} {name}",
                lambda: way(name, self.namespace, propagation_policy="Background", **_LIMIT),
            )
        except _Missing:
            return False
        return True

    def forward(self, pod: str, port: int) -> Forwarded:
        """A connection to a port of a pod, through the API server: the client's socket."""
        from kubernetes.stream import portforward

        # The client changes the object that it is given, so each connection has its own.
        own = self._kubernetes.client.ApiClient(self._given.configuration)
        for name, text in self._given.default_headers.items():
            own.set_default_header(name, text)
        call = self._kubernetes.client.CoreV1Api(own).connect_get_namespaced_pod_portforward
        way: Callable[..., Forwarded] = portforward
        return self._ask(
            f"reach port {port} of pod {pod}",
            lambda: way(call, pod, self.namespace, ports=str(port)),
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._given.rest_client.pool_manager.clear()

    # -- inside -------------------------------------------------------------------------------

    def _plain(self, found: object) -> Json:
        plain = self._given.sanitize_for_serialization(found)
        assert isinstance(plain, dict)
        return plain

    def _list(self, what: str, way: Callable[..., _Listed], selector: str) -> list[Json]:
        found = self._ask(
            f"list {what}", lambda: way(self.namespace, label_selector=selector, **_LIMIT)
        )
        return [self._plain(one) for one in found.items]

    def _get(self, kind: str, name: str, way: Callable[..., object]) -> Json | None:
        try:
            return self._plain(
                self._ask(f"read {kind} {name}", lambda: way(name, self.namespace, **_LIMIT))
            )
        except _Missing:
            return None

    def _ask(self, what: str, way: Callable[[], Answer]) -> Answer:
        """Ask; an error of the client becomes one of ours."""
        import urllib3

        try:
            return way()
        except self._kubernetes.client.ApiException as error:
            self._fail(what, error)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            host = self._given.configuration.host
            reason = getattr(error, "reason", None) or error
            raise ClusterUnreachable(
                f"the API server {host} does not answer, to {what}: {reason}"
            ) from None

    def _fail(self, what: str, error: _Refusal) -> NoReturn:
        said = _words_of(error)
        if error.status == 401:
            raise CredentialsError(
                f"Kubernetes does not know who we are, to {what}: {said}; the token or certificate "
                f"of the kubeconfig has expired, or is of another cluster"
            ) from None
        if error.status == 403 and "exceeded quota" in said:
            raise StartupFailed(f"Kubernetes refuses to {what}: {said}") from None
        if error.status == 403:
            raise CredentialsError(
                f"Kubernetes does not let us {what}: {said}; `mars cluster manifest --role` prints "
                f"all rights that are needed"
            ) from None
        if error.status == 404:
            if f'namespaces "{self.namespace}" not found' in said:
                raise UsageError(
                    f"there is no namespace {self.namespace!r}, to {what}: {said}"
                ) from None
            raise _Missing(said) from None
        if error.status == 409:
            raise UsageError(f"Kubernetes cannot {what}: {said}; choose another name=") from None
        if error.status in (400, 413, 422):
            raise UsageError(f"Kubernetes cannot {what}: {said}") from None
        if error.status == 0 and ("403" in said or "Forbidden" in said):  # of the web socket
            raise CredentialsError(
                f"Kubernetes does not let us {what}: {said}; `mars cluster manifest --role` prints "
                f"all rights that are needed"
            ) from None
        if error.status == 0:
            raise ClusterUnreachable(f"Kubernetes does not let us {what}: {said}") from None
        raise ClusterUnreachable(
            f"Kubernetes does not {what} (status {error.status}): {said}"
        ) from None


class _Missing(UsageError):
    """There is no such object."""


_OF_CERTIFY: Final[dict[str, object]] = {"container": CERTIFY}

_LIMIT: Final[dict[str, object]] = {"_request_timeout": KUBERNETES_CALL_S}


def _words_of(error: _Refusal) -> str:
    """What Kubernetes says of an error."""
    body = error.body
    try:
        return str(json.loads(body)["message"])
    except (ValueError, TypeError, KeyError):
        return str(error.reason or body or error.status).strip()


def _name(one: Json) -> str:
    facts = one["metadata"]
    assert isinstance(facts, dict)
    return str(facts["name"])
