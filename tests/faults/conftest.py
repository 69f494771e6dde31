"""One session of two cores for each module here, and ways to look at processes from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import mars

PATIENT_S = 25.0
"""Limit for what is promised within a second or two, on a machine that may have other work: far
beyond that, and less than what a test starts would live if nobody ended it."""

MARKER = "MARS_FAULT_TEST"
"""Environment variable that a program under test, and all that descends from it, carries."""


@pytest.fixture(scope="module")
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    """The module's default session: what one test does to it, the next ones must not feel."""
    opened = mars.new_session(n_cpu=2, default=True)
    yield opened
    opened.stop_server()


@pytest.fixture
def still_works(session: mars.session.Session) -> Iterator[None]:
    """After the test, the session makes calls as before."""
    yield
    import mars.remote as mr

    calls = [mr.spawn(pow, args=(i, 2)) for i in range(40)]
    assert mr.ExecutableTuple(calls).execute().fetch() == [i * i for i in range(40)]


@pytest.fixture
def within(request: pytest.FixtureRequest) -> Callable[[float], float]:
    """``within(2)``: the limit for what is promised within two seconds.

    Campaigns want a machine that has nothing else to do, and hold us to the number. In any other
    run the limit tells what comes late from what never comes.
    """
    exact = request.node.get_closest_marker("campaign") is not None
    return lambda promised_s: promised_s if exact else PATIENT_S


def processes_marked(mark: str) -> list[psutil.Process]:
    """Live processes whose environment holds the mark: a program's, however they are related."""
    found = []
    needle = f"{MARKER}={mark}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
            if needle in environment.split(b"\0"):
                process = psutil.Process(int(entry))
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        except (OSError, psutil.Error):  # it ended meanwhile
            continue
    return found


def shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if "mars" in name}


class Program:
    """A program under test in a session of its own, with its own temporary directory."""

    def __init__(self, folder: Path, environment: dict[str, str], code: str, *args: str) -> None:
        self.mark = f"{os.getpid()}-{folder.name}-{time.monotonic_ns()}"
        self.temporary = folder / f"temporary-{self.mark}"
        self.temporary.mkdir(mode=0o700)
        source = folder / f"program-{self.mark}.py"
        source.write_text(code)
        self._shared = shared_memory()
        self._errors = (folder / f"errors-{self.mark}").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, str(source), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**environment, MARKER: self.mark, "TMPDIR": str(self.temporary)},
            cwd=folder,
            start_new_session=True,
        )

    def line(self) -> str:
        """The next line that it prints; the test's own time limit is the limit."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def wait(self, limit_s: float = 30.0) -> int:
        return self.process.wait(limit_s)

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")

    def left_behind(self) -> dict[str, object]:
        """What remains of it now."""
        found: dict[str, object] = {
            "processes": [(p.pid, " ".join(p.cmdline())[:80]) for p in self.alive()],
            "files": os.listdir(self.temporary),
            "/dev/shm": sorted(shared_memory() - self._shared),
        }
        return {kind: left for kind, left in found.items() if left}

    def alive(self) -> list[psutil.Process]:
        return processes_marked(self.mark)

    def assert_nothing_left(self, limit_s: float = PATIENT_S) -> None:
        deadline = time.monotonic() + limit_s
        left: dict[str, object] = {"": "not looked"}
        while left:
            try:
                left = self.left_behind()
            except psutil.Error:  # ended while we looked
                continue
            assert not left or time.monotonic() < deadline, f"{left} after {limit_s} s"
            time.sleep(0.01)

    def close(self) -> None:
        for process in self.alive():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


@pytest.fixture
def program(tmp_path: Path, script_environment: dict[str, str]) -> Iterator[Callable[..., Program]]:
    """``program(code, *args)`` starts a program; it and its descendants end with the test."""
    started: list[Program] = []

    def start(code: str, *args: str) -> Program:
        started.append(Program(tmp_path, script_environment, code, *args))
        return started[-1]

    yield start
    for one in started:
        one.close()


def pids_in(text: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", text)]
