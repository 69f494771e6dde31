"""Files without a name, opened in another process of the machine."""

from __future__ import annotations

import os
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
