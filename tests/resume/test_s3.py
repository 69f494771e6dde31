"""A checkpoint on a store that speaks S3: programs that know nothing but its address.

The server is one that is made for tests, on the loopback address. `make test` has it; elsewhere:
``pip install "moto[s3]" flask flask-cors s3fs``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mars.checkpoint import journal

MISSING = [name for name in ("moto", "flask", "flask_cors", "s3fs") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}, see the head of the file"),
]

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""

PROGRAM = """
import os, sys, time
import numpy as np
import mars, mars.remote as mr

ledger, gate = sys.argv[1:]

def work(index):
    print("work", index)
    while index == 5 and not os.path.exists(gate):
        time.sleep(0.01)
    with open(ledger, "a") as file:
        file.write(f"{index}\\n")
    return np.full(100_000 if index == 0 else 10, index)

with mars.new_session(n_cpu=2, checkpoint="s3://bucket/otto") as session:
    objects = mars.execute([mr.spawn(work, index) for index in range(6)])
    print([int(one.fetch()[-1]) for one in objects], str(objects[1].fetch_log()).strip())
    print(session.checkpoint.executed, "run", session.checkpoint.reused, "found")
"""

VALUES = "[0, 1, 2, 3, 4, 5] work 1\n"


SIGNED = (
    "AWS4-HMAC-SHA256 Credential=otto/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, "
    "Signature=which-nobody-verifies"
)


class Bucket:
    """The store, by its own protocol."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._ask("PUT", "")

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        headers = {"Authorization": SIGNED, "Content-Type": "application/octet-stream"}
        url = f"{self.address}/bucket{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())

    def names(self, kind: str) -> list[str]:
        listed = self._ask("GET", f"?list-type=2&prefix=otto/{kind}").decode()
        return sorted(re.findall("<Key>(.*?)</Key>", listed))

    def read(self, name: str) -> bytes:
        return self._ask("GET", f"/{name}")

    def write(self, name: str, data: bytes) -> None:
        self._ask("PUT", f"/{name}", data)

    def calls(self) -> int:
        """How many calls the journal has."""
        everything = [self.read(name) for name in self.names("journal")]
        return sum(last.kind == journal.CALL for data in everything for last in records(data))


def records(data: bytes) -> list[journal.Raw]:
    return [one for one in journal.scan(0, data) if isinstance(one, journal.Raw)]


@pytest.fixture
def bucket(leak_guard: None) -> Iterator[Bucket]:
    """An empty bucket of a server of its own."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        yield Bucket(server.stdout.readline().strip())
        server.stdin.close()
        server.wait(20)


@pytest.fixture
def start(
    bucket: Bucket, tmp_path: Path, script_environment: dict[str, str]
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """``start()`` runs the program, as a user who has set the store's address."""
    environment = {
        **script_environment,
        "AWS_ENDPOINT_URL": bucket.address,
        "AWS_ACCESS_KEY_ID": "otto",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, program, tmp_path / "ledger", tmp_path / "gate"]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_program_that_keeps_its_results_at_s3_goes_on_after_a_kill_and_a_torn_write(
    bucket: Bucket, start: Any, tmp_path: Path, lines: Any, wait_until: Any
) -> None:
    def rerun() -> str:
        output, errors = start().communicate(timeout=100)
        assert output.startswith(VALUES), errors
        return str(output.removeprefix(VALUES).strip())

    killed = start()
    wait_until(lambda: bucket.calls() == 5, 50)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert sorted(lines(tmp_path / "ledger")) == ["0", "1", "2", "3", "4"]
    (tmp_path / "gate").touch()
    assert rerun() == "1 run 5 found"  # at once: its last sign of life is there, and it is not
    assert rerun() == "0 run 6 found"
    assert len(bucket.names("results")) == 1
    # An object whose last record is cut off.
    torn = next(
        name
        for name in bucket.names("journal")
        if records(bucket.read(name))[-1].kind == journal.CALL
    )
    cut = bucket.read(torn)[:-3]
    bucket.write(torn, cut)
    assert bucket.read(torn) == cut
    assert rerun() == "1 run 5 found"
    assert rerun() == "0 run 6 found"


def test_a_second_program_at_s3_is_refused_while_the_first_gives_signs_of_life(
    bucket: Bucket, start: Any, tmp_path: Path, wait_until: Any
) -> None:
    first = start()
    wait_until(lambda: bucket.calls() == 5, 50)
    second = start()
    _, errors = second.communicate(timeout=100)
    assert second.returncode == 1
    assert (
        f"CheckpointBusy: the checkpoint s3://bucket/otto is in use by process {first.pid} on "
        f"{os.uname().nodename} since"
    ) in errors.splitlines()[-1]
    (tmp_path / "gate").touch()
    output, errors = first.communicate(timeout=100)
    assert output == f"{VALUES}6 run 0 found\n"
    assert "s3 has no locks, so two runs that begin at the same moment do not notice" in errors
    assert bucket.names("lock") == []
