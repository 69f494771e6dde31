"""A pod of a cluster on Ray makes its certificate, before anything of Ray starts: a program.

``python -m mars.deploy.kubernetes.certify NAME...`` takes the authority of the cluster from the
Secret, and writes a certificate for this pod's address and for these names. Ray compares the
address that it connects to with the certificate, and nobody knows the addresses of pods before they
are there. It runs in a container of its own, so that calls never see the key of the authority: the
container of Ray has the folder with what is written here, and not the Secret.

With ``--head HOST:PORT`` it returns only when the head answers there, as a node of Ray that does
not find its head ends. Run by the kubelet, in each pod of a cluster on Ray.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from mars.deploy import certificates, private_files, records
from mars.deploy.credentials import CA, CA_KEY, CERTIFICATE, KEY, TOKEN, Credentials
from mars.deploy.knock import knock
from mars.deploy.kubernetes.places import AUTHORITY, POD_IP, SECRETS
from mars.errors import ClusterUnreachable
from mars.settings import HEAD_LOST_S, KUBERNETES_POLL_S


def write(authority: Path, own: Path, names: list[str]) -> Credentials:
    """Write certificate, key, authority and token of this pod; whatever was there is replaced."""
    for name in (CA, TOKEN, CERTIFICATE, KEY):
        (own / name).unlink(missing_ok=True)  # of a container that was started again
    for name in (CA, TOKEN):
        private_files.write_new(own / name, (authority / name).read_bytes())
    signer = own / CA, (authority / CA_KEY).read_bytes()
    certificates.issue(signer, own / CERTIFICATE, own / KEY, names, server=True)
    return Credentials(str(own / CA), str(own / CERTIFICATE), str(own / KEY), "")


def wait_for_head(address: str, files: Credentials, limit_s: float = HEAD_LOST_S) -> bool:
    """Whether the head takes our certificate within the limit."""
    host, port = records.split(address)
    until = time.monotonic() + limit_s
    while True:
        try:
            knock(host, port, files)
        except ClusterUnreachable as error:
            if time.monotonic() > until:
                print(error, file=sys.stderr)
                return False
            time.sleep(KUBERNETES_POLL_S)
        else:
            return True


def main(arguments: list[str]) -> int:
    """Write what this pod shows to others; 0 if it may start."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--head", default="")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args(arguments)
    names = [os.environ[POD_IP], "localhost", "127.0.0.1", *given.names]
    files = write(Path(AUTHORITY), Path(SECRETS), names)
    return 0 if not given.head or wait_for_head(given.head, files) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
