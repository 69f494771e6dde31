"""Clusters on Kubernetes: `new_cluster` starts one in a namespace, and makes a session on it.

This module holds the public names, nothing else; programs in pods load it, too, so it loads the
others when they are asked for. `wanted` checks what was asked for, `manifests` writes it as
objects of Kubernetes, `pods` reads what became of pods, `api` talks to the API server, `tunnel`
leads to a port in a pod, `client` is the cluster as a program has it, and `starting` starts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mars.deploy.kubernetes.client import KubernetesClusterClient
    from mars.deploy.kubernetes.starting import connect_cluster, new_cluster

__all__ = ["KubernetesClusterClient", "connect_cluster", "new_cluster"]


def __getattr__(name: str) -> object:
    if name == "KubernetesClusterClient":
        from mars.deploy.kubernetes.client import KubernetesClusterClient

        return KubernetesClusterClient
    if name in __all__:
        from mars.deploy.kubernetes import starting

        return getattr(starting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
