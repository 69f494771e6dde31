"""Files of large pages: where they are used, what is seen of them, and what happens without."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars
import mars.remote as mr
from mars import platform
from mars.engines.wire.arena import Allocator, Inputs
from mars.engines.wire.large_pages import LargePages
from mars.engines.wire.ledger import Ledger

MIB = 1 << 20

MOUNT = """
import socket, sys
from mars.engines.wire import large_pages
{change}
root = large_pages.Mounting().wait()
with socket.socket(fileno=int(sys.argv[1])) as sock:
    socket.send_fds(sock, [b"x"], [] if root is None else [root])
"""


def root(change: str = "") -> int | None:
    """What a process with one thread, as the zygote is one, gets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(
            [sys.executable, "-c", MOUNT.format(change=change), str(theirs.fileno())],
            check=True, pass_fds=[theirs.fileno()],
        )  # fmt: skip
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    return descriptors[0] if descriptors else None


@pytest.fixture
def pages() -> Iterator[LargePages]:
    descriptor = root()
    if descriptor is None:
        pytest.skip("this system does not let us mount, in a user namespace either")
    made = LargePages(descriptor)
    yield made
    made.close()


@pytest.fixture
def allocator(tmp_path: Path) -> Iterator[Allocator]:
    descriptor = Ledger.new()
    ledger = Ledger(descriptor, 0, 2**30)
    os.close(descriptor)
    made = Allocator(1, lambda *_: None, ledger, str(tmp_path))
    yield made
    made.close()
    ledger.close()


def link(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def test_a_file_has_no_name_and_is_on_no_mount_that_anybody_sees(pages: LargePages) -> None:
    file = pages.file("arena-7")
    try:
        assert link(file) == "/mars-arena-7 (deleted)"
        assert os.listdir(f"/proc/self/fd/{pages.descriptor}") == []
        device = os.fstat(file).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        assert number not in Path("/proc/self/mountinfo").read_text().split()
        address = platform.file_address(file)
        assert address is not None
        again = platform.open_at(address)  # as nodes of a cluster do
        os.pwrite(file, b"seen", 5 * MIB)
        assert os.pread(again, 4, 5 * MIB) == b"seen"
        os.close(again)
    finally:
        os.close(file)


def test_where_it_is_refused_there_is_none_and_nothing_waits() -> None:
    refuse = "def refuse(*_): raise PermissionError\nlarge_pages._call = refuse\n"
    assert root(refuse + "large_pages._enter_namespaces = refuse") is None
    assert root("import os\ndef refuse(): raise OSError\nos.fork = refuse") is None


def test_a_child_that_hangs_is_given_up() -> None:
    hang = "import time\nlarge_pages._mount = lambda: time.sleep(60)\nlarge_pages.MOUNT_S = 0.05"
    assert root(hang) is None


def test_values_are_read_from_a_file_that_is_shorter_than_its_mapping(
    pages: LargePages, allocator: Allocator
) -> None:
    allocator.pages = LargePages(os.dup(pages.descriptor))
    inputs = Inputs(lambda *_: None)
    allocator._announce = inputs.add_arena
    values = [os.urandom(size) for size in (MIB, 3 * MIB + 5, 100)]
    stored = [(None, *allocator.put([value], "a test")) for value in values]
    assert [bytes(inputs.buffers(one)[0]) for one in stored] == values
    del stored[1]
    inputs.buffers((None, *allocator.put([b"later"], "a test")))[0][0] = 1
    inputs.close()


def test_when_a_call_has_closed_the_descriptor_arenas_are_made_as_without_it(
    pages: LargePages, allocator: Allocator, tmp_path: Path
) -> None:
    descriptors: list[int] = []
    allocator._announce = lambda _, descriptor, __: descriptors.append(descriptor)
    folder = os.open(tmp_path, os.O_RDONLY)
    allocator.pages = LargePages(os.dup(pages.descriptor))
    os.dup2(folder, allocator.pages.descriptor)  # and its number stands for another folder
    os.close(folder)
    assert allocator.put([bytes(MIB)], "a test")
    assert link(descriptors[0]).startswith("/memfd:")
    assert list(tmp_path.iterdir()) == []


def test_an_engine_makes_the_arenas_of_workers_and_program_of_large_pages(
    pages: LargePages,
) -> None:
    session = mars.new_session(n_cpu=1)
    try:
        made = mr.spawn(np.ones, args=(MIB,)).execute(session=session)
        data: Any = np.arange(MIB)
        assert mr.spawn(np.sum, args=(data,)).execute(session=session).fetch(session) == data.sum()
        found = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                found.add(link(int(name)))
            except OSError:  # that of the listing itself
                continue
        assert {"/mars-arena-1 (deleted)", "/mars-arena-1048577 (deleted)"} <= found
        assert made.fetch(session).sum() == MIB
    finally:
        session.stop_server()
