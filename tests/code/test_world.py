"""Worlds that threads of one process visit: one at a time, and all is put back."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mars.code import importing, world
from mars.code.arriving import new_world
from mars.code.importing import Generation
from mars.code.modules import Source
from mars.code.world import visiting

WaitUntil = Callable[..., None]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = sys.modules["__main__"], importing.current(), world.current()
    yield
    assert (sys.modules["__main__"], importing.current(), world.current()) == before
    assert not world._visits


def in_generation() -> world.World:
    """A world with modules of the project of its own."""
    made = new_world()
    made.generation = Generation({"of_nobody": Source("of_nobody", "/none.py", b"", False)})
    return made


def test_a_thread_waits_for_the_end_of_another_thread_s_visit(wait_until: WaitUntil) -> None:
    entered, second = threading.Event(), in_generation()

    def visit() -> object:
        with visiting(second):
            entered.set()
            return sys.modules["__main__"]

    with ThreadPoolExecutor(1) as pool:
        with visiting(in_generation()) as first:
            found = pool.submit(visit)
            assert not entered.wait(0.05)
            assert sys.modules["__main__"] is first.modules["__main__"]
        assert found.result(20) is second.modules["__main__"]


def test_a_thread_of_a_visitor_goes_on_from_there_and_may_end_later() -> None:
    outer, inner, before = in_generation(), in_generation(), world.current()
    inside, go = threading.Event(), threading.Event()

    def visit() -> object:
        world.enter_thread(outer)
        with visiting(inner):
            inside.set()
            assert go.wait(20)
            return sys.modules["__main__"]

    with ThreadPoolExecutor(1) as pool:
        with visiting(outer):
            found = pool.submit(visit)
            assert inside.wait(20)
        assert world.current() is before
        go.set()
        assert found.result(20) is inner.modules["__main__"]


def test_a_thread_that_was_left_behind_waits_for_nobody() -> None:
    gone, inner = in_generation(), in_generation()
    with visiting(gone):
        pass

    def visit() -> object:
        world.enter_thread(gone)
        with visiting(inner):
            return sys.modules["__main__"]

    with visiting(in_generation()) as other, ThreadPoolExecutor(1) as pool:
        assert pool.submit(visit).result(20) is inner.modules["__main__"]
        assert sys.modules["__main__"] is other.modules["__main__"]


def test_many_threads_that_visit_leave_everything_as_it_was() -> None:
    def visit(number: int) -> bool:
        with visiting(in_generation()) as mine:
            own = sys.modules["__main__"] is mine.modules["__main__"]
            if number % 3 == 0:
                with visiting(in_generation()) as inner:
                    own &= sys.modules["__main__"] is inner.modules["__main__"]
            return own and sys.modules["__main__"] is mine.modules["__main__"]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(visit, range(200)))


def test_who_only_reads_leaves_main_to_other_threads() -> None:
    main = sys.modules["__main__"]
    with visiting(in_generation(), unseen=True) as mine:
        assert sys.modules["__main__"] is main
        mine.module("made_by_hand", {})
        assert "made_by_hand" not in sys.modules
        assert world.current() is mine
    assert sys.modules["__main__"] is main


def test_a_process_that_is_forked_during_a_visit_can_visit() -> None:
    inside, go = threading.Event(), threading.Event()

    def visit() -> None:
        with visiting(in_generation()):
            inside.set()
            assert go.wait(20)

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(visit)
        assert inside.wait(20)
        with warnings.catch_warnings():  # Python 3.12 warns of threads
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            with visiting(in_generation()) as mine:
                os._exit(0 if world.current() is mine else 1)
        go.set()
        found.result(20)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_module_that_was_written_again_in_the_same_second_is_not_taken_from_its_compiled_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "written_twice.py"
    second = int(time.time()) - 100  # for both, whenever they are written
    file.write_text("VALUE = 1\n")
    os.utime(file, ns=(second * 10**9, second * 10**9))
    importlib.import_module("written_twice")
    compiled = importlib.util.cache_from_source(str(file))
    os.utime(compiled, ns=(second * 10**9 + 10, second * 10**9 + 10))
    file.write_text("VALUE = 2\n")
    os.utime(file, ns=(second * 10**9 + 20, second * 10**9 + 20))
    try:
        loader = importing._Told("written_twice", str(file), file.read_bytes())
        space: dict[str, object] = {}
        code = loader.get_code("written_twice")
        assert code is not None
        exec(code, space)
    finally:
        sys.modules.pop("written_twice", None)
    assert space["VALUE"] == 2
