"""The program's host has no room, or no descriptor, for what nodes send: calls fail, nodes stay."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars.remote as mr
from mars import platform
from mars.engines.cluster import mirrors, nodes
from mars.errors import DependencyFailed, StoreFull

MIB = 1024 * 1024


class Host:
    """Stands between the store and the system: while ``error`` is set, the system refuses."""

    def __init__(self, patch: pytest.MonkeyPatch, function: str, where: Any = os) -> None:
        self.error = 0
        self.refused = 0
        real = getattr(where, function)

        def call(*arguments: Any, **named: Any) -> Any:
            if self.error:
                self.refused += 1
                raise OSError(self.error, os.strerror(self.error))
            return real(*arguments, **named)

        patch.setattr(mirrors, where.__name__.rpartition(".")[2], _Like(where, function, call))


class _Like:
    """A module, as one other module sees it, with one function replaced."""

    def __init__(self, real: Any, name: str, function: Callable[..., Any]) -> None:
        self._real = real
        setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def fill(size: int, value: int) -> Any:
    return np.full(size, value, "u1")


def first(array: Any) -> int:
    return int(array[0])


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    ("where", "function", "code"),
    [
        (os, "pwrite", errno.ENOSPC),
        (os, "pwrite", errno.EIO),
        (os, "dup", errno.EMFILE),
        (platform, "sized_file", errno.ENOSPC),
        (platform, "sized_file", errno.EMFILE),
        (platform, "sized_file", errno.ENOMEM),
    ],
)
def test_a_host_without_room_fails_the_call_whose_value_comes_and_no_node(
    on_nodes: Callable[..., Any],
    apart: None,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
    direct: bool,
    where: Any,
    function: str,
    code: int,
) -> None:
    there = on_nodes(2, direct=direct)
    addresses = there.session.get_worker_addresses()
    kept = mr.spawn(fill, args=(MIB, 7)).execute()
    host = Host(monkeypatch, function, where)
    host.error = code
    calls = [mr.spawn(fill, args=(MIB, i), expect_worker=addresses[i % 2]) for i in range(4)]
    small = mr.spawn(abs, args=(-3,))
    block = mr.map(fill, [MIB] * 2, [5, 6])
    readers = [mr.spawn(first, args=(call,)) for call in calls]
    mr.ExecutableTuple([*calls, *readers, small, block]).execute(on_error="continue")
    assert host.refused
    failed = 0
    for i, (call, reader) in enumerate(zip(calls, readers, strict=True)):
        try:  # an arena that was there before needs no file
            assert call.fetch()[0] == i
            assert reader.fetch() == i
        except StoreFull as error:
            failed += 1
            told = str(error)
            assert "the result of fill" in told and os.strerror(code) in told
            with pytest.raises(DependencyFailed, match="its input fill failed"):
                reader.fetch()
    assert failed
    assert small.fetch() == 3
    assert there.session.get_worker_addresses() == addresses
    assert (kept.fetch() == 7).all()
    host.error = 0
    again = [*calls, *readers]
    mr.ExecutableTuple(again).execute()
    assert [call.fetch()[0] for call in calls] == [reader.fetch() for reader in readers]
    assert [reader.fetch() for reader in readers] == list(range(4))
    del calls, readers, again, call, reader, block, kept
    wait_until(lambda: there.store.ledger.total() == 0 and not there.nodes.mirrors._unkept)


def test_calls_that_only_feed_others_go_on_while_there_is_no_room_for_their_values(
    on_nodes: Callable[..., Any],
    apart: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are read where they are."""
    on_nodes(1, direct=True)
    host = Host(monkeypatch, "pwrite")
    host.error = errno.ENOSPC
    made = [mr.spawn(fill, args=(8 * MIB, i)) for i in range(3)]
    read = [mr.spawn(first, args=(call,)) for call in made]
    mr.ExecutableTuple(read).execute()
    assert [one.fetch() for one in read] == [0, 1, 2]


def test_a_value_that_others_read_late_comes_once_there_is_room(
    on_nodes: Callable[..., Any],
    apart: None,
    monkeypatch: pytest.MonkeyPatch,
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    there = on_nodes(1, direct=True)

    def read(array: Any) -> int:
        pass_gate(tmp_path / "gate")
        return int(array.sum())

    host = Host(monkeypatch, "pwrite")
    host.error = errno.ENOSPC
    made = mr.spawn(fill, args=(8 * MIB, 3))
    future = mr.spawn(read, args=(made,)).execute(wait=False)
    wait_until(lambda: there.nodes._no_room)
    host.error = 0
    wait_until(lambda: not there.nodes._no_room)
    (tmp_path / "gate").touch()
    assert future.result(20).fetch() == 24 * MIB
    assert (made.execute().fetch() == 3).all()
    assert len(made.attempts()) == 1


def test_a_value_that_is_asked_for_and_has_no_room_fails_its_call(
    on_nodes: Callable[..., Any],
    apart: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "FAR_ROOM_WAIT_S", 0.3)
    there = on_nodes(1, direct=True)
    host = Host(monkeypatch, "pwrite")
    host.error = errno.ENOSPC
    made = mr.spawn(fill, args=(8 * MIB, 3))
    with pytest.raises(StoreFull, match="the result of fill"):
        made.execute()
    host.error = 0
    assert (made.execute().fetch() == 3).all()
    assert len(there.session.get_worker_addresses()) == 1


def test_a_nested_call_whose_argument_has_no_room_fails_alone(
    on_nodes: Callable[..., Any], apart: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> str:
        try:
            return repr(mr.spawn(first, args=(fill(MIB, 1),)).execute().fetch())
        except StoreFull as error:
            return str(error)

    there = on_nodes(2)
    host = Host(monkeypatch, "pwrite")
    host.error = errno.ENOSPC
    assert "what a nested call is given" in mr.spawn(ask).execute().fetch()
    host.error = 0
    assert mr.spawn(ask).execute().fetch() == "1"
    assert len(there.session.get_worker_addresses()) == 2


def test_a_log_that_has_no_room_costs_what_is_printed_meanwhile_and_says_so(
    on_nodes: Callable[..., Any],
    apart: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wait_until: Callable[..., None],
    pass_gate: Callable[..., None],
    tmp_path: Path,
) -> None:
    from mars.engines.cluster import logs

    there = on_nodes(1)
    full = [False]
    lost: list[int] = []
    real = os.pwrite

    def write(descriptor: int, data: Any, position: int) -> int:
        if full[0]:
            lost.append(len(data))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, position)

    monkeypatch.setattr(logs, "os", _Like(os, "pwrite", write))

    def talk() -> int:
        print("before")
        pass_gate(tmp_path / "one")
        print("lost")
        pass_gate(tmp_path / "two")
        print("after")
        return 5

    call = mr.spawn(talk)
    future = call.execute(wait=False)
    wait_until(lambda: "before" in str(call.fetch_log(offsets=0)))
    full[0] = True
    (tmp_path / "one").touch()
    wait_until(lambda: sum(lost) >= 5)
    full[0] = False
    (tmp_path / "two").touch()
    assert future.result(20).fetch() == 5
    log = str(call.fetch_log(offsets=0))
    assert log.startswith("before\n") and log.endswith("after\n") and "lost" not in log
    assert "left out" in log
    assert len(there.session.get_worker_addresses()) == 1
    wait_until(lambda: "no room for logs on the host of the program" in capfd.readouterr().err)


def test_logs_of_all_workers_of_a_node_take_one_descriptor_of_the_program(
    on_nodes: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    def descriptors() -> int:
        return sum(name.endswith("(deleted)") for name in _open_files())

    def talk(i: int) -> None:
        print("line of", i, "x" * 300_000)
        os._exit(i)

    there = on_nodes(1)
    mr.spawn(abs, args=(-1,)).execute()
    before = descriptors()
    calls = [mr.spawn(talk, args=(i,), death_retries=0) for i in range(6)]
    mr.ExecutableTuple(calls).execute(on_error="continue")
    assert descriptors() - before <= 4  # those of the node itself, which is in this process, too
    for i, call in enumerate(calls):
        assert str(call.fetch_log(offsets=0)).startswith(f"line of {i} xxx")
        assert len(str(call.fetch_log(offsets=0))) > 300_000
    (node,) = there.nodes.shipping.nodes
    assert node.logs._users >= 6
    del calls, call
    wait_until(lambda: node.logs._users <= 2)


def _open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return found
