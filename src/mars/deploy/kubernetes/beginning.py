"""Starts Ray in a pod, and once more if it gives up as it begins: a program.

``python -m mars.deploy.kubernetes.beginning FOLDER TRIES COMMAND...`` runs the command, which keeps
its files in FOLDER, and ends with its status. Ray ends itself if its raylet has not registered 30
seconds after it was started, or its agent has not come after 15, which a busy host does not always
do in time. Kubernetes starts no second pod for a head, because a head's state is lost with its pod.
A Ray that ended before it began has no state, so it is started again here. It is the first process
of its container.

Ray takes the head's address as a number only, which is not known before the head's pod is there:
the name after ``--address`` is looked up each time.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from mars.deploy import records
from mars.deploy.ray_programs import BELOW, ray_has_begun
from mars.settings import KUBERNETES_POLL_S


def with_number(command: Sequence[str]) -> list[str]:
    """The same command, with a number for the name of the host after ``--address``."""
    words = list(command)
    if "--address" in words:
        place = words.index("--address") + 1
        host, port = records.split(words[place])
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        words[place] = records.joined(str(found[0][4][0]), port)
    return words


def run(folder: Path, tries: int, command: Sequence[str]) -> int:
    """Run a command until it ends after it has begun, or has not begun so many times.

    Returns
    -------
    int
        The status of its last end, as a shell has it.
    """
    ended = threading.Event()  # somebody wants our end
    running: list[subprocess.Popen[bytes]] = []

    def end(number: int, _: object) -> None:
        ended.set()
        for one in running:
            one.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    status = 1
    for tries_left in reversed(range(tries)):
        # What an earlier one has left says nothing of this one, and takes room.
        shutil.rmtree(folder / BELOW, ignore_errors=True)
        with subprocess.Popen(with_number(command)) as started:
            running[:] = [started]
            has_begun = False
            while not (has_begun or started.poll() is not None or ended.wait(KUBERNETES_POLL_S)):
                has_begun = ray_has_begun(folder)
            status = started.wait()
        running.clear()
        if has_begun or ended.is_set() or status == 0:
            break
        if tries_left:
            print(f"it ended with {status} before it had begun; once more", file=sys.stderr)
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
