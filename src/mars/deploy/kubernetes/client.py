"""A cluster on Kubernetes as a program has it: its session, its size, its lease, and its end.

`starting` makes it. A thread renews the lease; nothing else of it runs by itself. The engine asks
it why a node was lost, in a thread of the engine's.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import fcntl
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING, Final

from mars.deploy import credentials, private_files, records
from mars.deploy.credentials import CA, CERTIFICATE, KEY, TOKEN, Credentials
from mars.deploy.kubernetes import manifests, pods
from mars.deploy.kubernetes.engines import program_port
from mars.deploy.kubernetes.tunnel import Tunnel
from mars.deploy.kubernetes.wanted import whole
from mars.deploy.records import Record
from mars.errors import ClusterUnreachable, CredentialsError, MarsError, StartupFailed, UsageError
from mars.observe.progress import write_line
from mars.settings import (
    KUBERNETES_CRASHES,
    KUBERNETES_GONE_S,
    KUBERNETES_HOPELESS_S,
    KUBERNETES_LEASES,
    KUBERNETES_LOG_LINES,
    KUBERNETES_PENDING_S,
    KUBERNETES_POLL_S,
    KUBERNETES_START_S,
    KUBERNETES_WHY_S,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from mars.deploy.kubernetes.api import Api
    from mars.deploy.kubernetes.wanted import Json
    from mars.engines.kinds import EngineKind
    from mars.sessions.session import Session

__all__ = ["Kept", "KubernetesClusterClient", "way_in"]


class Kept:
    """What this program has to keep up for a cluster: credentials, a way in, and a lease.

    Parameters
    ----------
    api : Api
        The API server, in the namespace of the cluster.
    name : str
        Of the cluster.
    lease_s : int
        How long it lives without a word of ours, seconds. 0: until somebody ends it.
    begun : float
        When the lease began, on the monotonic clock.
    engine : EngineKind
        The engine in the pods.
    """

    def __init__(self, api: Api, name: str, lease_s: int, begun: float, engine: EngineKind) -> None:
        self.api, self.name, self.lease_s, self.engine = api, name, lease_s, engine
        self.kind = "Job" if lease_s else "Deployment"
        self.root = f"{name}-{manifests.SCHEDULER}"
        self.ends_with_us = lease_s > 0
        self._begun = begun
        self._owner = os.getpid()
        self._closing = threading.Event()
        self._tunnel: Tunnel | None = None
        self._record: Record | None = None
        self._lock = -1
        self._renewing: threading.Thread | None = None
        if lease_s:
            self._renewing = threading.Thread(
                target=self._renew, name="mars-kubernetes-lease", daemon=True
            )
            self._renewing.start()

    @property
    def is_ours(self) -> bool:
        """Whether this process made it, not one that forked this one."""
        return os.getpid() == self._owner

    def know(self, endpoint: str, secret: Mapping[str, str]) -> Credentials:
        """Have programs of this user on this machine find the credentials by the address."""
        forget_stale()
        host, port = records.split(endpoint)
        identity = secrets.token_hex(8)
        record = Record(
            identity, self.engine.name, host, port, port, 0, secure=True, origin="import"
        )
        self._record = record
        records.save(record)
        # As long as this process lives, and holds it, nobody takes the record for a stale one.
        (record.directory / _LOCK).touch(0o600)
        self._lock = os.open(record.directory / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        private_files.directory(record.credentials)
        for name in (CA, CERTIFICATE, KEY, TOKEN):
            private_files.write_new(record.credentials / name, secret[name].encode())
        return credentials.load(record.credentials)

    def tunnel(self) -> Tunnel:
        """A port here that leads to the pod to which programs connect."""
        if self._tunnel is None:
            self._tunnel = Tunnel(self.api, self.scheduler, program_port(self.engine))
        return self._tunnel

    @property
    def tunnels(self) -> bool:
        """Whether this program goes through a tunnel."""
        return self._tunnel is not None

    @property
    def trouble(self) -> MarsError | None:
        """Why the last connection through the tunnel could not be made."""
        return None if self._tunnel is None else self._tunnel.trouble

    def scheduler(self) -> str:
        """The name of the scheduler's pod."""
        found = self.api.pods(manifests.selector(self.name, manifests.SCHEDULER))
        found.sort(key=lambda pod: (pods.is_running(pod), pods.is_ready(pod)), reverse=True)
        for pod in found:
            return pods.name_of(pod)
        raise ClusterUnreachable(f"the cluster {self.name} has no scheduler any more")

    def _renew(self) -> None:
        told = False
        while not self._closing.wait(self.lease_s / KUBERNETES_LEASES):
            # By our own clock since we asked for the Job: the server's may be another.
            seconds = int(time.monotonic() - self._begun) + self.lease_s
            try:
                self.api.move_deadline(self.root, seconds)
                told = False
            except UsageError:
                return  # it is gone: the session says so
            except MarsError as error:
                if not told:
                    write_line(f"mars: the lease of cluster {self.name} was not renewed: {error}")
                told = True

    def why_lost(self, host: str, reason: str) -> str:
        """Why a node was lost, with what Kubernetes says of its pod."""
        until = time.monotonic() + KUBERNETES_WHY_S
        while True:
            try:
                pod = self.api.pod(host)
                found = pods.lost(host, pod, self.api.events())
            except MarsError:
                return reason
            if found:
                return f"{found}; {reason}"
            if time.monotonic() > until or self._closing.wait(KUBERNETES_POLL_S):
                return reason

    def fate(self) -> str:
        """Why the scheduler is gone, as its pod says; "": it does not say."""
        try:
            if self.kind == "Job" and self.api.job(self.root) is None:
                return f"the cluster {self.name} was deleted"
            for pod in self.api.pods(manifests.selector(self.name, manifests.SCHEDULER)):
                found = pods.lost(pods.name_of(pod), pod, self.api.events())
                if found:
                    return f"of its scheduler, {found}"
        except MarsError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Let go of the cluster, which stays; idempotent."""
        if not self.is_ours:
            return
        self._closing.set()
        if self._renewing is not None and self._renewing is not threading.current_thread():
            self._renewing.join()
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None
        if self._record is not None:
            records.forget(self._record)
            self._record = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self.api.close()

    def give_up(self) -> None:
        """Delete the cluster after an error, which is what the user is told."""
        try:
            self.end(wait=False)
        except MarsError as error:
            later = "Kubernetes deletes it when its lease ends" if self.lease_s else "delete it"
            write_line(f"mars: cluster {self.name} could not be deleted ({error}); {later}")

    def end(self, wait: bool = True, timeout: float | None = None) -> None:
        """Delete the cluster, and wait until its pods are gone; idempotent."""
        if not self.is_ours:
            return
        try:
            delete(self.api, self.kind, self.name)
            if wait:
                wait_gone(self.api, self.name, KUBERNETES_GONE_S if timeout is None else timeout)
        finally:
            self.close()


_LOCK: Final = "kubernetes.lock"


def forget_stale() -> None:
    """Remove what programs that were killed have left on this machine."""
    for record in records.everything():
        path = record.directory / _LOCK
        if not path.exists():
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # somebody has removed it meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            records.forget(record)
        except BlockingIOError:  # its program lives
            pass
        finally:
            os.close(descriptor)


def delete(api: Api, kind: str, name: str) -> bool:
    """Delete a cluster, whose objects go with the one that owns them; whether it was there."""
    return api.delete(kind, f"{name}-{manifests.SCHEDULER}")


def wait_gone(api: Api, name: str, limit_s: float) -> None:
    """Wait until nothing of a cluster is left that we can see.

    Raises
    ------
    StartupFailed
        Something is left after the limit.
    """
    until = time.monotonic() + limit_s
    while True:
        selector = manifests.selector(name)
        left = [f"pod {pods.name_of(pod)}" for pod in api.pods(selector)]
        left += [f"Deployment {pods.name_of(one)}" for one in api.deployments(selector)]
        left += [f"Job {pods.name_of(one)}" for one in api.jobs(selector)]
        if not left:
            return
        if time.monotonic() > until:
            raise StartupFailed(
                f"the cluster {name} was deleted, but is not gone after {limit_s:g} s: "
                f"{', '.join(left)}; a pod on a node that is lost stays until Kubernetes gives "
                f"the node up"
            )
        time.sleep(KUBERNETES_POLL_S)


def way_in(kept: Kept, wanted_address: str, service: Json | None) -> str:
    """The address at which this program connects: inside, by the Service, else through a tunnel."""
    if kept.api.inside:
        return wanted_address
    found = _outside(service, kept)
    where = found or f"127.0.0.1:{kept.tunnel().port}"
    return kept.engine.address(where, secure=True)


def _outside(service: Json | None, kept: Kept) -> str:
    """Where a Service is open to the outside; "": it is not."""
    facts: pods.Facts = service or {}
    spec = facts.get("spec", {})
    if spec.get("type") == "NodePort":
        pod: pods.Facts = kept.api.pod(kept.scheduler()) or {}
        status = pod.get("status", {})
        if status.get("hostIP"):
            return f"{status['hostIP']}:{spec['ports'][0]['nodePort']}"
    if spec.get("type") == "LoadBalancer":
        status = facts.get("status", {})
        for one in (status.get("loadBalancer") or {}).get("ingress") or ():
            return f"{one.get('ip') or one.get('hostname')}:{spec['ports'][0]['port']}"
    return ""


def secret_texts(secret: Json) -> dict[str, str]:
    """What is in a Secret."""
    facts: pods.Facts = secret
    data = facts.get("data") or {}
    try:
        return {name: base64.b64decode(data[name]).decode() for name in manifests.FILES}
    except (KeyError, ValueError) as error:
        raise CredentialsError(f"the Secret {pods.name_of(secret)} is damaged: {error}") from None


class KubernetesClusterClient:
    """A cluster on Kubernetes; `new_cluster` and `connect_cluster` return it.

    It ends with `stop`, at the end of a ``with`` block, or when the program ends; one that
    `connect_cluster` returned is let go of instead.

    Attributes
    ----------
    session : Session
        A session on it.
    endpoint : str
        Where this program connects: of the Service inside of Kubernetes, else a port of this
        machine that leads there.
    name, namespace : str
        Of the cluster.
    """

    def __init__(self, kept: Kept, endpoint: str, session: Session) -> None:
        self.name, self.namespace = kept.name, kept.api.namespace
        self.endpoint = endpoint
        self.session = session
        self._kept: Kept | None = kept

    def _cluster(self) -> Kept:
        if self._kept is None:
            raise UsageError(
                f"cluster {self.name} was stopped, or let go of; new_cluster() starts another"
            )
        return self._kept

    def rescale_workers(
        self,
        new_scale: int,
        min_workers: int | None = None,
        wait: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Have another number of pods run calls.

        Calls of pods that end run elsewhere, as with any lost node.

        Parameters
        ----------
        new_scale : int
            How many pods.
        min_workers : int, optional
            How many of them to wait for. Default: all.
        wait : bool, default True
            Whether to return only when they have joined, or have left.
        timeout : float, default 600
            How long that may take, seconds.

        Raises
        ------
        StartupFailed
            They did not join in time, or cannot. The message has Kubernetes' reason. The new number
            stands, and pods may still come.
        TypeError, ValueError
            An argument is wrong.
        """
        api = self._cluster().api
        count = whole("new_scale", new_scale, 0)
        enough = count if min_workers is None else whole("min_workers", min_workers, 0, count)
        api.scale(f"{self.name}-{manifests.WORKER}", count)
        if wait:
            limit_s = KUBERNETES_START_S if timeout is None else float(timeout)
            watch = Waiting(api, self.name, time.monotonic() + limit_s)
            watch.until(lambda: enough <= self.count_workers() <= count, enough)

    def count_workers(self) -> int:
        """How many nodes run calls now; how many pods could, once the session is closed."""
        if not self.session.closed:
            return len(self.session.get_worker_addresses())
        found = self._cluster().api.pods(manifests.selector(self.name, manifests.WORKER))
        return sum(map(pods.is_ready, found))

    def stop(self, wait: bool = True, timeout: float | None = None) -> None:
        """End the session and the cluster; may be called twice.

        Values that were fetched before stay.

        Parameters
        ----------
        wait : bool, default True
            Whether to return only when all pods are gone.
        timeout : float, default 90
            How long that may take, seconds.

        Raises
        ------
        StartupFailed
            Something is left after this time. It was deleted, and goes when its node answers.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            return
        atexit.unregister(self.at_exit)
        try:
            self.session.stop_server()
        finally:
            kept.end(wait, timeout)

    def close(self) -> None:
        """End the session, and let go of the cluster; one with a lease is ended, see `stop`."""
        kept = self._kept
        if kept is None:
            return
        if kept.ends_with_us:
            self.stop()
            return
        self._kept = None
        atexit.unregister(self.at_exit)
        try:
            self.session.stop_server()
        finally:
            kept.close()

    def at_exit(self) -> None:
        """The program ends: so does what it has started."""
        if self._kept is not None and self._kept.is_ours:
            with contextlib.suppress(MarsError):  # the lease ends it
                self.close()

    def __enter__(self) -> KubernetesClusterClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<KubernetesClusterClient {self.namespace}/{self.name} at {self.endpoint}>"


class Waiting:
    """Looks at pods that start, says what they wait for, and gives up when that is hopeless."""

    def __init__(self, api: Api, name: str, deadline: float) -> None:
        self._api, self._name, self._deadline = api, name, deadline
        self._begun = time.monotonic()
        self._said = ""
        self._since: dict[str, float] = {}
        self._crashed: dict[str, int] = {}  # how often, before we looked

    def until(self, is_there: Callable[[], bool], enough: int, part: str = "") -> None:
        """Return when it is there; say every new reason why it is not."""
        while not is_there():
            self.look(enough, part or manifests.WORKER)
            time.sleep(KUBERNETES_POLL_S)

    def look(self, enough: int, part: str) -> None:
        """Look once.

        Raises
        ------
        StartupFailed
            It will not come, or time is over.
        """
        found = self._api.pods(manifests.selector(self._name, part))
        events = self._api.events()
        troubles = [one for pod in found if (one := pods.waits(pod, events)) is not None]
        made = pods.refused(f"{self._name}-{part}", events)
        if made is not None and len(found) < max(enough, 1):
            troubles.insert(0, made)
        now = time.monotonic()
        for pod in found:
            how = pods.ending(pod)
            ended = pod["status"].get("phase") == "Failed"  # type: ignore[attr-defined]
            count = pods.restarts(pod)
            # Workers that came long before their scheduler have crashed, and that is over.
            count -= self._crashed.setdefault(pods.name_of(pod), count)
            if how and (count >= KUBERNETES_CRASHES or ended):
                if pods.is_ready(pod) or (ended and part == manifests.WORKER):
                    continue  # evicted: another one comes in its place
                log = self._api.log(pods.name_of(pod), KUBERNETES_LOG_LINES).strip()
                last = f"; its log ends with:\n{log}" if log else ""
                self._fail(f"pod {pods.name_of(pod)} ended, {how}{last}")
        lasting = {one.text: self._since.get(_kind(one), now) for one in troubles}
        self._since = {_kind(one): self._since.get(_kind(one), now) for one in troubles}
        for one in troubles:
            waited_s = now - lasting[one.text]
            if one.fatal == "now" or (one.fatal == "soon" and waited_s > KUBERNETES_HOPELESS_S):
                self._fail(one.text)
        if troubles and now - self._begun > KUBERNETES_PENDING_S:
            text = troubles[0].text
            if len(troubles) > 1:
                text += f" (and {len(troubles) - 1} more)"
            if text != self._said:
                self._said = text
                write_line(f"mars: cluster {self._name} waits for {text}")
        if now > self._deadline:
            told = f": {troubles[0].text}" if troubles else _states(found)
            raise StartupFailed(
                f"cluster {self._name} is not there after {now - self._begun:.0f} s{told}"
            )

    def _fail(self, why: str) -> None:
        raise StartupFailed(f"cluster {self._name} cannot start: {why}")


def _kind(trouble: pods.Trouble) -> str:
    """What stays the same of a trouble: kubelets go to and fro between two words for one."""
    return trouble.fatal + trouble.text.partition(":")[0]


def _states(found: list[Json]) -> str:
    told = [f"{pods.name_of(pod)} is {pods.state(pod)}" for pod in found]
    return f": {', '.join(told)}" if told else ": it has no pods"
