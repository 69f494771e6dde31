"""What pods and events say: why a pod waits, and how one ended. Pure.

Takes objects as they stand in JSON, and gives texts for people. Called by `client`, while a cluster
starts and when a node is lost, and by ``mars cluster status``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Facts = Mapping[str, Any]
"""An object of Kubernetes."""

_REFUSED: Final = frozenset(
    {"InvalidImageName", "ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff",
     "RegistryUnavailable", "CreateContainerConfigError", "CreateContainerError",
     "RunContainerError"}
)  # fmt: skip
"""What a container waits for that seldom comes by itself."""

_AT_ONCE: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
"""And what never does."""

_MOVED: Final = frozenset(
    {"Evicted", "Preempted", "Preempting", "TaintManagerEviction", "NodeNotReady", "Killing",
     "OOMKilling"}
)  # fmt: skip
"""Events that say why a pod is ended."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something does not go on.

    Attributes
    ----------
    text : str
        Whom it concerns, and Kubernetes' own reason.
    fatal : str
        "": it may pass. "soon": hardly, if it stays for some seconds. "now": it will not.
    """

    text: str
    fatal: str = ""


def name_of(one: Facts) -> str:
    """The name of an object."""
    return str(one["metadata"]["name"])


def is_ready(pod: Facts) -> bool:
    """Whether a pod runs, answers, and was not told to end."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_running(pod: Facts) -> bool:
    """Whether its container runs now, ready or not, and was not told to end."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any((one.get("state") or {}).get("running") for one in _runs(pod))


def restarts(pod: Facts) -> int:
    """How often its container was started again."""
    return sum(one.get("restartCount", 0) for one in _containers(pod))


def state(pod: Facts) -> str:
    """One word or line for people: what a pod does."""
    if pod["metadata"].get("deletionTimestamp"):
        return "ends"
    if is_ready(pod):
        return "ready"
    if is_running(pod):
        return "starts"
    found = waits(pod)
    return found.text if found is not None else ending(pod) or pod["status"].get("phase", "unknown")


def waits(pod: Facts, events: Iterable[Facts] = ()) -> Trouble | None:
    """Why a pod does not run yet; None: it runs, or there is nothing to say."""
    status = pod.get("status", {})
    name = name_of(pod)
    for one in _containers(pod):
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _REFUSED:
            fatal = "now" if reason in _AT_ONCE else "soon"
            words = _said(reason, waiting.get("message"))
            if reason == "ImagePullBackOff":  # it says no more than that; the event before does
                words = _last(events, name, ("Failed",)) or words
            return Trouble(f"pod {name}: {words}", fatal)
        if reason == "CrashLoopBackOff":
            return Trouble(f"pod {name}: {ending(pod) or _said(reason, waiting.get('message'))}")
    if status.get("phase") != "Pending":
        return None
    for one in status.get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return Trouble(f"pod {name}: {_said(one.get('reason'), one.get('message'))}")
    told = _last(events, name, ("FailedMount", "FailedCreatePodSandBox", "FailedAttachVolume"))
    return Trouble(f"pod {name}: {told}") if told else None


def refused(owner: str, events: Iterable[Facts]) -> Trouble | None:
    """Why no pod is made for a Job or a Deployment: quota, rights, rules of the cluster."""
    for event in _newest_first(events):
        of = event["involvedObject"]["name"]
        # A Deployment makes its pods by a ReplicaSet, whose name begins with its own.
        if event.get("reason") == "FailedCreate" and (of == owner or of.startswith(f"{owner}-")):
            message = event.get("message", "")
            if "serviceaccount" in message and "token" in message:
                return Trouble(f"{of}: {message}")  # a new namespace has none for a moment
            return Trouble(f"{of}: {message}", "soon")
    return None


def ending(pod: Facts) -> str:
    """How a pod or its container ended, with Kubernetes' reason; "": it did not."""
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        return _said(status["reason"], status.get("message"))
    for one in status.get("conditions") or ():
        if one["type"] == "DisruptionTarget" and one["status"] == "True":
            return _said(one.get("reason"), one.get("message"))
    for one in _containers(pod):
        for when in ("state", "lastState"):
            ended = (one.get(when) or {}).get("terminated")
            if ended:
                reason = ended.get("reason") or "Error"
                if reason == "OOMKilled":
                    limit = _memory_limit(pod)
                    return f"OOMKilled: over its memory limit{f' of {limit}' if limit else ''}"
                code = ended.get("exitCode")
                return f"{reason}: exit code {code}"
    return ""


def lost(name: str, pod: Facts | None, events: Sequence[Facts]) -> str:
    """Why a node was lost, as its pod and the events say; "": they do not say yet."""
    told = _last(events, name, tuple(sorted(_MOVED - {"Killing"})))
    if pod is None:
        return f"pod {name} was deleted{f' ({told})' if told else ''}"
    how = ending(pod)
    if how:
        return f"pod {name}: {how}"
    if pod["metadata"].get("deletionTimestamp"):
        return f"pod {name} is deleted{f' ({told})' if told else ''}"
    if told:
        return f"pod {name}: {told}"
    return ""


def _containers(pod: Facts) -> Sequence[Facts]:
    """What is known of its containers, first of those that prepare it and have not ended well."""
    first = pod.get("status", {}).get("initContainerStatuses") or ()
    prepare = [one for one in first if not _ended_well(one)]
    return [*prepare, *_runs(pod)]


def _ended_well(container: Facts) -> bool:
    ended = (container.get("state") or {}).get("terminated")
    return ended is not None and ended.get("exitCode") == 0


def _runs(pod: Facts) -> Sequence[Facts]:
    return pod.get("status", {}).get("containerStatuses") or ()


def _memory_limit(pod: Facts) -> str:
    for one in pod.get("spec", {}).get("containers") or ():
        limit = one.get("resources", {}).get("limits", {}).get("memory")
        if limit:
            return str(limit)
    return ""


def _newest_first(events: Iterable[Facts]) -> list[Facts]:
    return sorted(events, key=lambda one: one.get("lastTimestamp") or "", reverse=True)


def _last(events: Iterable[Facts], name: str, reasons: Sequence[str]) -> str:
    for event in _newest_first(events):
        if event["involvedObject"]["name"] == name and event.get("reason") in reasons:
            return _said(event.get("reason"), event.get("message"))
    return ""


def _said(reason: str | None, message: str | None) -> str:
    return ": ".join(text.strip() for text in (reason, message) if text and text.strip())
