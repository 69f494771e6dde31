"""A checkpoint at an URL: the same promises, on what fsspec reaches."""

from __future__ import annotations

import gc
import json
import os
import time
import weakref
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest

import mars
import mars.remote as mr
from mars.checkpoint import journal, remote_folder
from mars.checkpoint.checkpoint import Checkpoint
from mars.checkpoint.history import History
from mars.checkpoint.upkeep import damages, prune
from mars.errors import CheckpointBusy, CheckpointUnusable

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
    monkeypatch.setattr(remote_folder.RemoteFolder, "sign_s", 0.05)

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
    monkeypatch.setattr(remote_folder, "CHECKPOINT_MERGE_SEGMENTS", 3)
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


# -- who has the lock ---------------------------------------------------------------------------


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> float:
    """Signs of life count for so many seconds."""
    monkeypatch.setattr(remote_folder, "CHECKPOINT_LOCK_S", 0.6)
    monkeypatch.setattr(remote_folder.RemoteFolder, "sign_s", 0.05)
    return 0.6


def lock_of(store: Any) -> dict[str, Any]:
    return dict(json.loads(store.cat_file("/bucket/otto/lock")))


def test_who_has_written_nothing_keeps_the_lock(store: Any, brief: float, wait_until: Any) -> None:
    with mars.new_session(engine="inline", n_cpu=1, checkpoint=URL):
        first = lock_of(store)["told"]
        wait_until(lambda: lock_of(store)["told"] > first + 2 * brief)  # it would have ended
        other = remote_folder.RemoteFolder(URL, create=True)
        with pytest.raises(CheckpointBusy, match="gave a sign of life 0 s ago"):
            other.lock()
    other.lock()
    other.close()
    assert not store.exists("/bucket/otto/lock")


def test_a_lock_that_somebody_has_tidied_away_is_there_again(
    store: Any, brief: float, wait_until: Any
) -> None:
    with mars.new_session(engine="inline", n_cpu=1, checkpoint=URL):
        store.rm_file("/bucket/otto/lock")
        wait_until(lambda: store.exists("/bucket/otto/lock"))
    assert not store.exists("/bucket/otto/lock")


def test_a_lock_that_another_process_took_is_left_to_it_and_told_of(
    store: Any, brief: float, wait_until: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """As when this one was stopped for minutes: then both write, and nothing is lost."""
    other = {"pid": 7, "host": "far", "since": time.time(), "program": "b.py", "token": "other"}
    with mars.new_session(engine="inline", n_cpu=1, checkpoint=URL):
        taken = json.dumps({**other, "told": time.time()}).encode()
        # Until the thread that gives signs has not written over it at this very moment.
        told: list[str] = []

        def is_told() -> bool:
            store.pipe_file("/bucket/otto/lock", taken)
            told.append(capfd.readouterr().err)
            return "process 7 on far" in "".join(told)

        wait_until(is_told)
        assert mr.spawn(work, 1).execute().fetch()[0] == 1
    assert lock_of(store)["token"] == "other"
    store.rm_file("/bucket/otto/lock")
    assert program(2) == ([0, 1], 1, 1)


def test_signs_that_cannot_be_given_for_long_are_told_of_once(
    store: Any, brief: float, monkeypatch: pytest.MonkeyPatch, wait_until: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real = type(store).pipe_file
    signs: list[str] = []

    def refuse(self: Any, path: str, value: bytes, **options: Any) -> None:
        if path.endswith("lock"):
            signs.append(path)
            raise ConnectionError("no way out")
        real(self, path, value, **options)

    with mars.new_session(engine="inline", n_cpu=1, checkpoint=URL):
        monkeypatch.setattr(type(store), "pipe_file", refuse)
        wait_until(lambda: len(signs) > 3 * brief / 0.05)
    told = capfd.readouterr().err
    assert told.count("no sign of life could be given there") == 1
    assert "ConnectionError: no way out" in told


@pytest.mark.parametrize("method", ["cat_file", "pipe_file", "find", "cat"])
def test_whatever_a_store_raises_when_a_checkpoint_is_opened_is_our_error(
    method: str, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(2)

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no credit left")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), method, refuse)
        with pytest.raises(CheckpointUnusable, match="RuntimeError: no credit left"):
            mars.new_session(engine="inline", n_cpu=1, checkpoint=URL)
    assert program(2) == ([0, 1], 0, 2)


def test_a_folder_of_this_machine_by_its_url(tmp_path: Any) -> None:
    with pytest.raises(CheckpointUnusable, match="No such file"):
        mars.new_session(engine="inline", checkpoint=f"file://{tmp_path}/not/there")
    where = f"file://{tmp_path}/there"
    for executed in (3, 0):
        with mars.new_session(engine="inline", n_cpu=1, checkpoint=where) as session:
            calls = [mr.spawn(work, index) for index in range(3)]
            mars.execute(calls)
            assert [int(call.fetch()[-1]) for call in calls] == [0, 1, 2]
            assert session.checkpoint.executed == executed


# -- what another process writes ----------------------------------------------------------------


def record(number: int) -> bytes:
    meta = number.to_bytes(16, "little") + bytes(journal.CALL_META.size - 16)
    return b"".join(journal.record(journal.CALL, meta, []))


def numbers(*opened: remote_folder.RemoteFolder) -> list[set[int]]:
    return [
        {
            int.from_bytes(one.meta[:16], "little")
            for number, view in folder.segments()
            for one in journal.scan(number, view)
            if isinstance(one, journal.Raw)
        }
        for folder in opened
    ]


def test_what_comes_after_the_listing_is_not_merged_away(store: Any) -> None:
    first = remote_folder.RemoteFolder(URL, create=True)
    for number in range(40):
        first.append([record(number)])
    second = remote_folder.RemoteFolder(URL, create=True)
    first.append([record(99)])  # it does not know that it counts as ended
    second._locked = True
    assert numbers(second) == [set(range(40))]
    first.append([record(100)])
    assert len(store.find("/bucket/otto/journal")) == 3
    second.append([record(7777)])
    assert numbers(remote_folder.RemoteFolder(URL, create=False)) == [{*range(40), 99, 100, 7777}]


def test_objects_that_are_merged_while_they_are_read_are_read_all_the_same(store: Any) -> None:
    first = remote_folder.RemoteFolder(URL, create=True)
    for number in range(5):
        first.append([record(number)])
    reader = remote_folder.RemoteFolder(URL, create=False)
    first.replace(iter([record(number) for number in range(5)]))
    assert numbers(reader) == [set(range(5))]


# -- ends that fail -----------------------------------------------------------------------------


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_a_store_that_is_gone_at_the_end_costs_no_process_and_no_error(
    store: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("gone")

    before = children()
    session = mars.new_session(n_cpu=1, checkpoint=URL)
    mr.spawn(work, 1).execute()
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "rm_file", refuse)
        session.close()
    assert children() == before
    assert "its lock could not be removed (RuntimeError: gone)" in capfd.readouterr().err
    store.rm_file("/bucket/otto/lock")


@pytest.mark.parametrize("end", ["close", "stop_server", "exit", "program"])
def test_a_checkpoint_that_cannot_be_closed_keeps_no_process(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Checkpoint) -> None:
        closed.append(self)
        real(self)
        raise RuntimeError("not today")

    real, closed = Checkpoint.close, list[Checkpoint]()
    monkeypatch.setattr(Checkpoint, "close", refuse)
    before = children()
    one = mars.new_session(n_cpu=1, checkpoint=URL)
    two = mars.new_session(one.address, checkpoint="memory://bucket/two")
    three = mars.new_session(n_cpu=1, checkpoint="memory://bucket/three")
    for session in (one, two, three):
        mr.spawn(work, 1).execute(session=session)
    started = children() - before
    ends: dict[str, list[Any]] = {
        "close": [one.close, two.close, three.close],
        "stop_server": [one.stop_server, three.stop_server],
        "exit": [lambda: one.__exit__(None, None, None), two.close, three.close],
        "program": [mars.session.close_all],
    }
    for act in ends[end]:
        with pytest.raises(RuntimeError, match="not today"):
            act()
    assert not children() & started
    assert {checkpoint.where for checkpoint in closed} >= {
        URL, "memory://bucket/two", "memory://bucket/three",
    }  # fmt: skip
    monkeypatch.undo()
    for session in (one, two, three):
        session.stop_server()
        session.close()


# -- what is kept alive -------------------------------------------------------------------------


class Large(bytearray):
    """Large, and one whose end can be heard of, but not of its buffer."""


@pytest.mark.parametrize("engine", ["local", "inline"])
@pytest.mark.parametrize("make", [lambda: np.ones(1_000_000), lambda: Large(8_000_000)])
def test_large_arguments_are_let_go_of_when_their_calls_are(
    engine: str, make: Any, tmp_path: Any, wait_until: Any
) -> None:
    with mars.new_session(engine=engine, n_cpu=1, checkpoint=tmp_path / "otto"):
        value = make()
        ended = weakref.ref(value)
        calls = [mr.spawn(len, args=(value,)) for _ in range(3)]
        mars.execute(calls)
        assert [call.fetch() for call in calls] == [len(value)] * 3
        del value, calls
        wait_until(lambda: gc.collect() is not None and ended() is None)
