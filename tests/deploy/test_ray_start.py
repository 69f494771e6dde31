"""What of Ray nobody else needs to reach talks with its own host only, or is not started."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mars.deploy import ray_programs, this_host
from mars.deploy.credentials import Credentials
from mars.deploy.programs import Node, Place
from mars.deploy.ray_start import keeping, kept
from mars.deploy.records import Record

GUARD = str(Path(this_host.__file__).resolve())
RAY = Path("/opt/my ray")
AGENT = RAY / "_private" / "runtime_env" / "agent" / "main.py"

SERVER = """
import asyncio, sys

async def answer(reader, writer):
    writer.write(b"come in")
    writer.close()

async def main():
    server = await asyncio.start_server(answer, "0.0.0.0", 0)
    print(__name__, sys.argv[1:], server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A server that listens on all addresses, run by way of `this_host`."""
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    command = [sys.executable, GUARD, str(program), "--argument"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


def test_a_server_hears_its_own_host_and_hangs_up_on_others(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    *told, port = server.stdout.readline().split()
    assert told == ["__main__", "['--argument']"]

    def said(to: str, of: str) -> bytes:
        with socket.create_connection((to, int(port)), 10, (of, 0)) as connection:
            try:
                return connection.recv(100)
            except ConnectionResetError:
                return b""

    # To come from another address than one goes to is what tells another host.
    assert [said("127.0.0.1", of) for of in ("127.0.0.1", "127.0.0.2", "127.0.0.1")] == [
        b"come in", b"", b"come in",
    ]  # fmt: skip
    assert said("127.0.0.2", "127.0.0.2") == b"come in"


def test_programs_of_ray_are_started_by_way_of_it_and_all_else_as_it_was() -> None:
    own = ["python", "-u", str(RAY / "monitor.py"), "--port=1"]
    assert kept(own, RAY) == ["python", "-u", GUARD, str(RAY / "monitor.py"), "--port=1"]
    others = ["gcs_server", f"--python_worker_command=python {RAY}/worker.py", "/home/me/call.py"]
    assert kept(others, RAY) == others
    agent = ["python", "-u", str(AGENT), "--node-id=7"]
    name = "--runtime_env_agent_command="
    (word,) = kept([name + subprocess.list2cmdline(agent)], RAY)
    assert word == name + subprocess.list2cmdline([*agent[:2], GUARD, *agent[2:]])


@pytest.mark.parametrize(
    "agent", ["--runtime_env_agent_command=agentd --listen", "--agents_command=python main.py"]
)
def test_a_ray_that_starts_its_agent_in_another_way_is_not_started(agent: str) -> None:
    start = keeping(lambda *_: pytest.fail("it is started"), RAY, "raylet", "9.9")
    with pytest.raises(SystemExit, match=r"how Ray 9\.9 starts its agents"):
        start(["raylet", agent], "raylet")


def test_a_node_has_all_its_ports_in_a_row_from_the_first_one() -> None:
    """Also those that it does not use: Ray takes 8265 and 10001 for planned otherwise."""
    record = Record("id", "ray", "10.0.0.1", 7103, 7105, 7104, secure=True, origin="up")
    place = Place(record, Credentials("ca", "cert", "key", "token"), Path("/tmp"))
    words = ray_programs.node(place, Node("name", "10.0.0.2", 1, 1 << 30, 7300)).command
    ports = {
        name: int(value)
        for name, value in itertools.pairwise(words)
        if name.startswith("--") and name.endswith("-port")
    }
    assert {"--dashboard-port", "--ray-client-server-port"} <= ports.keys()
    last = ports.pop("--max-worker-port")
    assert sorted(ports.values()) == list(range(7300, 7300 + len(ports)))
    assert ports["--min-worker-port"] == max(ports.values()) and last - max(ports.values()) == 999


WRITE_ADDRESS = """
import sys
from ray._private.utils import write_ray_address
write_ray_address("192.0.2.1:6379", sys.argv[1])
"""


def test_a_ray_that_may_still_give_up_has_not_begun(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    place = Place(Record("id", "ray", "192.0.2.1", 1, 2, 3, True, origin="up"), None, tmp_path)
    folder = tmp_path / ray_programs.BELOW
    (folder / "session_1" / "sockets").mkdir(parents=True)
    (folder / "session_1" / "sockets" / "raylet").touch()  # `ray start` waits for more than this
    assert not ray_programs.has_begun(place)
    # What it does next, when it gives up no more.
    subprocess.run([sys.executable, "-c", WRITE_ADDRESS, str(folder)], check=True)
    assert ray_programs.has_begun(place)
