"""Whether the process of Dask in this pod answers: the liveness probe, a program.

``python -m mars.deploy.kubernetes.alive PORT`` shows the pod's own certificate at one of its ports
and ends with status 0 if it is taken. A probe of Kubernetes' own would open a connection without a
certificate, and Dask would print an error for each. Run by the kubelet, in each pod.
"""

from __future__ import annotations

import os
import sys

from mars.deploy.credentials import Credentials
from mars.deploy.knock import knock
from mars.deploy.kubernetes.places import CA_FILE, CERTIFICATE_FILE, KEY_FILE, POD_IP
from mars.errors import ClusterUnreachable, CredentialsError


def main(port: str) -> int:
    """Knock; 0 if somebody answers, else 1."""
    files = Credentials(CA_FILE, CERTIFICATE_FILE, KEY_FILE, "")
    try:
        knock(os.environ.get(POD_IP, "127.0.0.1"), int(port), files)
    except (ClusterUnreachable, CredentialsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
