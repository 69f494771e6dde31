"""Where things are in a pod: ports, files and variables that manifests and programs agree on."""

from __future__ import annotations

from typing import Final

from mars.deploy.credentials import CA, CERTIFICATE, KEY

SECRETS: Final = "/etc/mars/credentials"
"""Where the Secret of a pod is mounted."""

CA_FILE: Final = f"{SECRETS}/{CA}"
CERTIFICATE_FILE: Final = f"{SECRETS}/{CERTIFICATE}"
KEY_FILE: Final = f"{SECRETS}/{KEY}"

SCHEDULER_PORT: Final = 8786
"""Where Dask's scheduler listens in its pod: Dask's own number."""

WORKER_PORT: Final = 8788
"""Where Dask's worker listens in its pod; its nanny takes the next number."""

RAY_HEAD_PORT: Final = 6379
"""Where Ray's head listens in its pod for nodes that join: Ray's own number."""

RAY_CLIENT_PORT: Final = 10_001
"""Where Ray's head listens in its pod for programs: Ray's own number. Its other ports follow."""

RAY_NODE_PORT: Final = 20_000
"""The first port of a node of Ray in its pod; its other ports follow."""

CERTIFY: Final = "certify"
"""The container in a pod of Ray that makes the pod's certificate, before the other one starts."""

AUTHORITY: Final = "/etc/mars/authority"
"""Where the Secret of a cluster on Ray is mounted while a pod makes its certificate."""

SCRATCH: Final = "/scratch"
"""The folder for temporary files and for values that are spilled, unless told otherwise."""

POD_NAME: Final = "MARS_K8S_POD_NAME"
POD_IP: Final = "MARS_K8S_POD_IP"
POD_NAMESPACE: Final = "MARS_K8S_POD_NAMESPACE"
"""Variables of a pod; the original has the same names."""

IMAGE: Final = "MARS_K8S_IMAGE"
"""Variable of the program: the image, where none is passed."""
