"""What the user of a cluster is told: what nodes lack, what was lost, and what can be done."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars.remote as mr
from mars.engines.cluster import carrier, nodes, surroundings
from mars.errors import ClusterUnreachable, NoAvailableBand

WaitUntil = Callable[..., None]


def needs_it(fail: bool = False) -> int:
    import nowhere_at_all

    return int(nowhere_at_all.value)


def needs_another() -> None:
    import further_away  # noqa: F401


def tries_it() -> str:
    try:
        import nowhere_at_all  # noqa: F401
    except ImportError:
        return "without"
    return "with"


def asked(there: Any) -> list[tuple[str, ...]]:
    """The packages that nodes are asked for from now on, question by question."""
    questions = []
    for node in there.cluster._nodes.values():
        send = node.send

        def sent(item: Any, send: Callable[[Any], None] = send) -> None:
            if item[0] == carrier.NEED:
                questions.append(tuple(item[2]))
            send(item)

        node.send = sent
    return questions


def test_a_package_that_nodes_lack_is_named_before_calls_are_sent(
    on_nodes: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A run goes on without an answer after a while, which a busy machine may need.
    monkeypatch.setattr("mars.engines.cluster.engine.PACKAGES_S", 60.0)
    there = on_nodes(2)
    before: list[str] = []
    send = there.loop.submit

    def submitted(*arguments: Any) -> None:
        before.append(capfd.readouterr().err)
        send(*arguments)

    there.loop.submit = submitted
    with pytest.raises(ModuleNotFoundError):
        mr.spawn(needs_it).execute()
    lines = before[0].splitlines()
    assert len(lines) == 2, lines
    for node in there.cluster._nodes.values():
        assert (
            f"mars: node {node.title} has no nowhere_at_all, which calls of needs_it need: they "
            f"will fail there; on that host: pip install nowhere_at_all"
        ) in lines


def where_from() -> tuple[str | None, str]:
    return os.environ.get("PYTHONPATH"), os.environ["PATH"]


def test_places_that_nodes_do_not_follow_are_told_once_also_when_the_program_goes_there_later(
    on_nodes: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(surroundings, "_place", lambda: f"machine {next(numbers)}")
    monkeypatch.setattr(surroundings, "import_path", list)  # the nodes are in this process, too
    folder = tmp_path / "everybody's"
    folder.mkdir()
    folder.chmod(0o777)
    there = on_nodes(2)
    own = os.environ["PATH"]
    mr.spawn(where_from).execute()
    assert str(folder) not in capfd.readouterr().err

    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{own}")
    monkeypatch.syspath_prepend(str(folder))
    calls = [mr.spawn(where_from, expect_worker=one) for one in there.engine.worker_addresses]
    for found in mr.ExecutableTuple(calls).execute().fetch():
        assert found == (None, own)
    (told,) = [line for line in capfd.readouterr().err.splitlines() if str(folder) in line]
    assert f"does not follow this program to {folder}: every user may" in told


def hangs(file: str) -> None:
    Path(file).touch()
    while True:
        time.sleep(0.05)


def test_a_node_shows_where_the_call_of_its_worker_is(
    on_nodes: Callable[..., Any], tmp_path: Path, wait_until: WaitUntil
) -> None:
    there = on_nodes(2)
    files = [tmp_path / "one", tmp_path / "two"]
    calls = [
        mr.spawn(hangs, args=(str(file),), expect_worker=address)
        for file, address in zip(files, there.engine.worker_addresses, strict=True)
    ]
    run = mr.ExecutableTuple(calls).execute(wait=False)
    wait_until(lambda: all(file.exists() for file in files))
    for worker in there.engine.observe().workers:
        first, *frames = there.engine.stack(worker.number)
        assert first == "running a call"
        assert any(frame.endswith(" in hangs") and "test_told.py" in frame for frame in frames)
    assert there.engine.stack(1000) is None
    run.cancel()


def test_nodes_are_asked_once_for_a_package_whoever_needs_it(on_nodes: Callable[..., Any]) -> None:
    there = on_nodes(1)
    questions = asked(there)
    calls = [mr.spawn(needs_it, args=(bool(i % 2),)) for i in range(100)]
    mr.ExecutableTuple(calls).execute(on_error="continue")
    mr.ExecutableTuple(calls).execute(on_error="continue")
    mr.spawn(lambda: needs_it()).execute(on_error="continue")
    assert questions == [("nowhere_at_all",)]
    mr.spawn(needs_another).execute(on_error="continue")
    assert questions == [("nowhere_at_all",), ("further_away",)]


def test_what_is_there_or_optional_or_travels_by_itself_is_not_told_of(
    on_nodes: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "of_the_program.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)

    def of_the_program() -> int:
        import json  # noqa: F401

        import numpy  # noqa: F401
        import of_the_program  # type: ignore[import-not-found]

        return int(of_the_program.value)

    on_nodes(1)
    calls: list[Any] = [mr.spawn(tries_it), mr.spawn(of_the_program)]
    assert mr.ExecutableTuple(calls).execute().fetch() == ["without", 3]
    sys.modules.pop("of_the_program", None)
    assert "has no" not in capfd.readouterr().err


def test_a_node_that_comes_later_is_asked_too(
    on_nodes: Callable[..., Any], capfd: pytest.CaptureFixture[str], wait_until: WaitUntil
) -> None:
    there = on_nodes(1)
    mr.spawn(needs_it).execute(on_error="continue")
    capfd.readouterr()
    address = there.carrier.join()
    said: list[str] = []

    def told() -> bool:
        said.append(capfd.readouterr().err)
        return f"({address}) has no nowhere_at_all" in "".join(said)

    wait_until(told)


def test_a_node_that_does_not_answer_holds_up_no_run(
    on_nodes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = on_nodes(1)
    answers = there.cluster.workers.answers
    monkeypatch.setitem(answers, carrier.LACK, lambda *_: None)  # its answer does not come
    monkeypatch.setattr("mars.engines.cluster.engine.PACKAGES_S", 0.05)
    with pytest.raises(ModuleNotFoundError):
        mr.spawn(needs_it).execute()


def test_a_lost_node_is_told_of_but_not_if_the_cluster_is_gone(
    on_nodes: Callable[..., Any], capfd: pytest.CaptureFixture[str], wait_until: WaitUntil
) -> None:
    there = on_nodes(3)
    first, *others = there.session.get_worker_addresses()
    said: list[str] = []

    def told() -> bool:
        said.append(capfd.readouterr().err)
        return "run elsewhere" in "".join(said)

    there.carrier.lose(first)
    wait_until(told)
    assert "".join(said).count("was lost") == 1

    run = mr.spawn(_waits).execute(wait=False)
    for address in others:
        there.carrier.lose(address)
    there.cluster.ended("the test took it away")
    with pytest.raises(ClusterUnreachable):
        run.result(20)
    there.session.stop_server()
    assert "was lost" not in capfd.readouterr().err


def _waits() -> None:
    threading.Event().wait()


def test_a_lost_node_is_told_of_before_a_run_ends(
    on_nodes: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
) -> None:
    monkeypatch.setattr(nodes, "NODE_LOST_TOLD_S", 1000.0)
    there = on_nodes(2)
    told: list[str] = []
    monkeypatch.setattr(there.loop, "tell", told.append)
    first, last = there.session.get_worker_addresses()
    there.carrier.lose(first)
    wait_until(lambda: there.session.get_worker_addresses() == [last])
    assert told == []
    mr.spawn(abs, args=(-3,)).execute()
    (line,) = told
    assert "its calls run elsewhere" in line


def test_a_lost_node_is_told_of_at_the_end_at_the_latest(
    on_nodes: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
) -> None:
    monkeypatch.setattr(nodes, "NODE_LOST_TOLD_S", 1000.0)
    there = on_nodes(2)
    first, last = there.session.get_worker_addresses()
    there.carrier.lose(first)
    wait_until(lambda: there.session.get_worker_addresses() == [last])
    there.session.stop_server()
    assert capfd.readouterr().err.count("was lost") == 1


def test_who_asks_for_more_cores_than_a_node_has_is_told_what_a_cluster_can_do(
    on_nodes: Callable[..., Any],
) -> None:
    there = on_nodes(1)
    with pytest.raises(NoAvailableBand, match="let a node with more cores join") as caught:
        mr.spawn(abs, args=(1,), cpus=64).execute()
    assert "n_cpu" not in str(caught.value)
    there.carrier.own = True  # its size is the program's to choose
    with pytest.raises(NoAvailableBand, match=r"new_session\(n_cpu=...\) with more"):
        mr.spawn(abs, args=(1,), cpus=64).execute()


@pytest.mark.parametrize(
    ("known_as", "one", "two"),
    [
        (None, '"mars stack {pid}" on {host} shows', '"mars stack" on {host} shows'),
        ("http://head:7104", *['"mars stack http://head:7104" shows'] * 2),
    ],
)
def test_a_notice_about_a_call_on_another_host_names_a_command_that_looks_there(
    on_nodes: Callable[..., Any], apart: None, wait_until: WaitUntil, known_as: Any, one: str,
    two: str,
) -> None:  # fmt: skip
    there = on_nodes(2)
    there.cluster.known_as = known_as
    runs = []
    for said in (one, two):
        runs.append(mr.spawn(_waits).execute(wait=False))
        running: list[Any] = []

        def are_running(running: list[Any] = running) -> bool:
            running[:] = there.engine._running_calls()
            return len(running) == len(runs) and all(call.pid for call in running)

        wait_until(are_running)
        silence = there.engine._silence
        silence.lines(running, 0.0, 30.0)
        (line,) = silence.lines(running, 30.0 * 4 ** len(runs), 30.0)
        nodes = there.cluster._nodes.values()
        expected = [
            said.format(pid=call.pid, host=node.facts["host"]) for call in running for node in nodes
        ]
        assert any(text in line for text in expected), line
        assert any(f"on node {node.title}" in line for node in nodes), line
    for run in runs:
        run.cancel()


def test_a_notice_about_a_call_on_this_machine_names_its_process(
    on_nodes: Callable[..., Any], wait_until: WaitUntil
) -> None:
    there = on_nodes(1)
    run = mr.spawn(_waits).execute(wait=False)
    wait_until(lambda: [call.pid for call in there.engine._running_calls()])
    (call,) = there.engine._running_calls()
    assert there.cluster.how_to_look(call, False) == ("", f'"mars stack {call.pid}"')
    assert there.cluster.how_to_look(call, True) == ("", '"mars stack"')
    run.cancel()
