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

SCRATCH: Final = "/scratch"
"""The folder for temporary files and for values that are spilled, unless told otherwise."""

POD_NAME: Final = "MARS_K8S_POD_NAME"
POD_IP: Final = "MARS_K8S_POD_IP"
POD_NAMESPACE: Final = "MARS_K8S_POD_NAMESPACE"
"""Variables of a pod; the original has the same names."""

IMAGE: Final = "MARS_K8S_IMAGE"
"""Variable of the program: the image, where none is passed."""
