"""Memory of freed objects is kept for the next ones for a while, and then goes back."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import mars
import mars.remote as mr
from mars import platform
from mars.engines.driver import loop, store

MIB = 1024 * 1024
WaitUntil = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    with mars.new_session(n_cpu=1) as session:
        yield session


@pytest.fixture
def idle_s(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``idle_s(1)``: after so many seconds it goes back."""

    def set_to(seconds: float) -> None:
        for module in (loop, store):
            monkeypatch.setattr(module, "IDLE_ARENA_S", seconds)

    return set_to


def counted(session: mars.session.Session) -> int:
    total: int = session.engine.store.ledger.total()  # type: ignore[attr-defined]
    return total


def held(session: mars.session.Session) -> int:
    arenas: dict[int, Any] = session.engine.store._arenas  # type: ignore[attr-defined]
    return sum(platform.held_bytes(descriptor) for descriptor, _ in list(arenas.values()))


def test_what_results_took_goes_back_when_nothing_more_is_freed(
    session: mars.session.Session, idle_s: Callable[[float], None], wait_until: WaitUntil
) -> None:
    idle_s(600)
    calls = mr.ExecutableTuple([mr.spawn(np.ones, args=(MIB,)) for _ in range(4)]).execute()
    assert counted(session) >= 32 * MIB
    del calls
    assert counted(session) >= 32 * MIB
    idle_s(0.3)
    mr.spawn(np.ones, args=(MIB,)).execute()  # is freed at once, and counts from now
    wait_until(lambda: counted(session) == 0)
    wait_until(lambda: held(session) == 0)
    assert mr.spawn(np.ones, args=(MIB,)).execute().fetch().sum() == MIB


def test_what_arguments_took_goes_back_too(
    session: mars.session.Session, idle_s: Callable[[float], None], wait_until: WaitUntil
) -> None:
    idle_s(0.3)
    mr.spawn(np.sum, args=(np.ones(MIB),)).execute()
    numbers = [1] * 2_000_000
    mr.spawn(lambda: numbers[0]).execute()
    wait_until(lambda: counted(session) == 0)
    wait_until(lambda: held(session) == 0)


def test_it_goes_back_while_the_worker_runs_a_long_call(
    session: mars.session.Session,
    idle_s: Callable[[float], None],
    wait_until: WaitUntil,
    tmp_path: Path,
    pass_gate: Callable[..., None],
) -> None:
    idle_s(0.3)
    made = mr.spawn(np.ones, args=(MIB,)).execute()
    gate = tmp_path / "gate"
    long = mr.spawn(pass_gate, args=(gate,)).execute(wait=False)
    wait_until(lambda: session.engine.observe().running(long._run.number) == 1)
    del made
    wait_until(lambda: counted(session) == 0)
    assert not long.done()
    gate.touch()
    long.result(20)


def test_what_is_used_again_and_again_stays(
    session: mars.session.Session, idle_s: Callable[[float], None]
) -> None:
    idle_s(600)
    for _ in range(5):
        assert mr.spawn(np.ones, args=(MIB,)).execute().fetch().sum() == MIB
        time.sleep(0.02)  # between two results, as in any program
        assert 8 * MIB <= counted(session) <= 24 * MIB


def use_and_free() -> tuple[int, int]:
    """Pages that were fresh, and the process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    made = [np.ones(3 * MIB) for _ in range(3)]  # of 24 MiB each
    del made
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, os.getpid()


def kept_by(pid: int) -> int:
    return psutil.Process(pid).memory_info().rss


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names,
    reason="only the C library of GNU is told what to keep",
)
def test_what_a_call_has_freed_is_used_by_the_next_and_goes_back_later(
    idle_s: Callable[[float], None], wait_until: WaitUntil
) -> None:
    idle_s(600)
    with mars.new_session(n_cpu=1, default=False) as own:  # so it has one worker
        fresh = [mr.spawn(use_and_free).execute(session=own).fetch(own)[0] for _ in range(3)]
        pid = mr.spawn(use_and_free).execute(session=own).fetch(own)[1]
        assert fresh[-1] < 500  # of 18 432, or 36 large ones and the ends
        kept = kept_by(pid)
        idle_s(0.3)
        assert mr.spawn(os.getpid).execute(session=own).fetch(own) == pid
        wait_until(lambda: kept_by(pid) < kept - 60 * MIB)


def test_a_program_that_says_how_memory_is_allocated_is_heard() -> None:
    code = """
import ctypes, sys
from mars import platform
class Library:
    def mallopt(self, *what): print(*what)
ctypes.CDLL = lambda name: Library()
platform.keep_heap(5)
"""
    for more, said in (
        ({}, "-3 33554432\n-1 5\n"),
        ({"MALLOC_TRIM_THRESHOLD_": "1"}, ""),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=9"}, ""),
    ):
        ran = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | more, capture_output=True, text=True
        )
        assert (ran.stdout, ran.stderr) == (said, "")
