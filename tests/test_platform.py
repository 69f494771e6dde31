"""Files without a name, opened in another process of the machine; and ends of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from mars import platform

OPEN = """
import os, sys
from mars import platform
machine, *numbers = sys.argv[1].split(",")
try:
    file = platform.open_at((machine, *map(int, numbers)))
except OSError as error:
    print(error.strerror)
else:
    os.pwrite(file, b"seen", 0)
"""


def opened_elsewhere(address: tuple[object, ...]) -> str:
    """What another process says that tries to open a file."""
    told = ",".join(map(str, address))
    done = subprocess.run([sys.executable, "-c", OPEN, told], capture_output=True, text=True)
    assert not done.stderr
    return done.stdout.strip()


def test_another_process_of_the_machine_opens_the_same_file() -> None:
    file = platform.memory_file("test")
    address = platform.file_address(file)
    assert address is not None
    assert opened_elsewhere(address) == ""
    assert os.pread(file, 9, 0) == b"seen"
    os.close(file)


def test_a_file_of_another_machine_or_that_was_closed_is_not_mistaken_for_another() -> None:
    file, other = platform.memory_file("test"), platform.memory_file("other")
    address = platform.file_address(file)
    assert address is not None
    assert "another machine" in opened_elsewhere((f"{address[0]}0", *address[1:]))
    os.dup2(other, file)  # its number stands for another file from here on
    assert "closed" in opened_elsewhere(address)
    os.close(file)
    with pytest.raises(OSError, match="No such file"):
        platform.open_at(address)
    os.close(other)


@pytest.mark.parametrize("descriptors", [True, False])
def test_a_child_that_ends_is_reaped_at_once_and_one_that_does_not_is_told(
    descriptors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "HAS_PIDFD", descriptors and platform.HAS_PIDFD)
    read, write = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-Sc", "import os; os.read(0, 1)"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, read, 0)],
    )
    os.close(read)
    with platform.Process(pid) as child:
        assert not child.reap(0.01)
        os.close(write)
        assert child.reap(600)  # it does not wait to the end
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
        assert child.reap(30)  # somebody has reaped it


def test_a_process_that_has_ended_is_not_signalled_by_its_number() -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-Sc", ""], os.environ)
    with platform.Process(pid) as child:
        assert child.reap(30)
        child.pid = os.getpid()  # as if the number had been used again
        child.signal(signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        platform.Process(pid)


def test_ends_of_several_processes_are_waited_for_together() -> None:
    pids = [os.posix_spawn(sys.executable, [sys.executable, "-Sc", ""], os.environ) for _ in "ab"]
    descriptors = [platform.open_process(pid) for pid in pids]
    assert platform.wait_for_end(descriptors, 30)
    assert platform.is_of_process(descriptors[0], pids[0])
    assert not platform.is_of_process(descriptors[0], pids[1])
    for pid, descriptor in zip(pids, descriptors, strict=True):
        os.waitpid(pid, 0)
        os.close(descriptor)
