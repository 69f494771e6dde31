"""A checkpoint at an URL: the same promises, on what fsspec reaches."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pytest

import mars
import mars.remote as mr
from mars import folders
from mars.errors import CheckpointBusy, CheckpointUnusable
from mars.history import History, damages, prune

URL = "memory://bucket/otto"


@pytest.fixture(autouse=True)
def store() -> Iterator[Any]:
    """A file system in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def work(index: int) -> Any:
    print("work", index)
    return np.full(100 if index else 50_000, index)


def program(count: int = 4, engine: str = "inline") -> tuple[list[int], int, int]:
    with mars.new_session(engine=engine, n_cpu=2, checkpoint=URL) as session:
        objects = mars.execute([mr.spawn(work, index) for index in range(count)])
        values = [int(one.fetch()[-1]) for one in objects]
        assert str(objects[1].fetch_log()) == "work 1\n"
        return values, session.checkpoint.executed, session.checkpoint.reused


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_a_rerun_finds_what_is_at_an_url(
    store: Any, engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert program(engine=engine) == ([0, 1, 2, 3], 4, 0)
    assert "memory has no locks, so two runs" in capfd.readouterr().err
    names = store.find("/bucket/otto")
    assert any("/results/" in name for name in names)
    assert not any(name.endswith("lock") for name in names)
    assert program(engine=engine) == ([0, 1, 2, 3], 0, 4)
    assert program(5, engine=engine) == ([0, 1, 2, 3, 4], 1, 4)


def test_who_gave_a_sign_of_life_lately_is_left_alone(store: Any) -> None:
    holder = {"pid": 7, "host": "far", "since": time.time(), "program": "train.py"}
    store.pipe_file("/bucket/otto/lock", json.dumps({**holder, "told": time.time()}).encode())
    with pytest.raises(CheckpointBusy, match=r"process 7 on far since .* \(train.py\)"):
        mars.new_session(engine="inline", checkpoint=URL)
    store.pipe_file("/bucket/otto/lock", json.dumps({**holder, "told": time.time() - 90}).encode())
    assert program() == ([0, 1, 2, 3], 4, 0)


def test_a_run_gives_signs_of_life_also_while_nothing_is_written(
    store: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    monkeypatch.setattr(folders.RemoteFolder, "sign_s", 0.05)

    def told() -> float:
        return float(json.loads(store.cat_file("/bucket/otto/lock"))["told"])

    with mars.new_session(engine="inline", n_cpu=1, checkpoint=URL):
        mr.spawn(work, 1).execute()
        before = told()
        wait_until(lambda: told() > before)
        later = told()
        wait_until(lambda: told() > later)


def test_an_object_that_is_cut_off_or_changed_costs_what_is_in_it(store: Any) -> None:
    program()
    (name,) = store.find("/bucket/otto/journal")
    data = store.cat_file(name)
    store.pipe_file(name, data[:-3])
    assert program() == ([0, 1, 2, 3], 1, 3)
    assert program() == ([0, 1, 2, 3], 0, 4)


def test_many_objects_become_one(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MERGE_FROM", 3)
    for count in range(2, 7):
        assert program(count)[0] == list(range(count))
    assert len(store.find("/bucket/otto/journal")) <= 3
    assert program(6) == (list(range(6)), 0, 6)


def test_a_store_that_refuses_costs_the_rerun_and_not_the_run(
    store: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = type(store).pipe_file

    def refuse(self: Any, path: str, value: bytes, **options: Any) -> None:
        if "journal" in path:
            raise RuntimeError("no credit left")
        real(self, path, value, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "pipe_file", refuse)
        assert program() == ([0, 1, 2, 3], 4, 0)
    assert "RuntimeError: no credit left. The run goes on" in capfd.readouterr().err
    assert program() == ([0, 1, 2, 3], 4, 0)


def test_histories_and_pruning_work_at_an_url(store: Any) -> None:
    program(5)
    program(3)
    history = History(URL)
    assert [run.executed for run in history.runs] == [5, 0]
    assert damages(history) == []
    history.close()
    assert prune(URL, 1, print)[0] == 2
    assert program(3) == ([0, 1, 2], 0, 3)
    assert program(5) == ([0, 1, 2, 3, 4], 2, 3)


def test_an_url_that_nothing_serves_is_refused() -> None:
    with pytest.raises(CheckpointUnusable, match="nosuch"):
        mars.new_session(engine="inline", checkpoint="nosuch://bucket/otto")
    with pytest.raises(CheckpointUnusable, match="there is no journal"):
        History("memory://bucket/empty")


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import errno
    import fcntl

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with mars.new_session(engine="inline", n_cpu=1, checkpoint=tmp_path / "otto"):
        assert mr.spawn(abs, -1).execute().fetch() == 1
    assert "its file system has no locks (No locks available)" in capfd.readouterr().err
