"""What an engine tells of itself: the attempts that have ended, and what there is at a moment."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.observe.observation import EndedAttempt, Observation

WaitUntil = Callable[..., None]


class Watch:
    """Asks the engine again and again for what is new."""

    def __init__(self, session: mars.session.Session) -> None:
        self._engine: Any = session.engine
        self._cursor = self.now().next

    def now(self) -> Observation:
        observation: Observation = self._engine.observe()
        return observation

    def ended(self) -> list[EndedAttempt]:
        """Attempts that have ended since this was asked last."""
        observation: Observation = self._engine.observe(self._cursor)
        self._cursor = observation.next
        assert not observation.missed
        return list(observation.attempts)


@pytest.fixture
def watch(session: mars.session.Session) -> Watch:
    """The engine is watched: what was before is known."""
    watch = Watch(session)
    watch.ended()
    return watch


def endings(attempts: list[EndedAttempt]) -> list[str]:
    return [one.ending for one in attempts]


def test_an_attempt_is_told_once_with_all_that_is_known_of_it(watch: Watch) -> None:
    call = mr.spawn(os.getpid, name="who")
    pid = call.execute().fetch()
    (one,) = watch.ended()
    assert watch.ended() == []
    assert (one.name, one.ending, one.attempt, one.size, one.depth) == ("who", "value", 1, 1, 0)
    assert one.pid == pid and one.node.startswith(socket.gethostname())
    assert one.group in [group.address for group in watch.now().groups]
    assert one.worker and one.number and one.run
    assert one.call == call.call.key
    assert one.times == call.times()


def spin(seconds: float) -> bytes:
    """Is on a processor for so long, and returns a kilobyte."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return b"x" * 1024


def test_an_attempt_tells_its_processor_time_and_its_sizes(watch: Watch) -> None:
    mr.spawn(spin, 0.05, cpus=0.5).execute()
    mr.spawn(time.sleep, 0.05).execute()
    mr.spawn(len, mr.spawn(spin, 0.0)).execute()
    spun, slept, maker, reader = watch.ended()
    assert (spun.function, spun.cpus, slept.cpus) == ("spin", 0.5, 1)
    assert spun.times is not None and slept.times is not None
    assert 0.05 <= spun.cpu_s <= spun.times.running_s + 0.05
    assert slept.cpu_s < 0.04 < slept.times.running_s
    assert 1024 < spun.written_bytes < 1400 and 1024 < maker.written_bytes < 1400
    assert spun.read_bytes < 200 and 1024 < reader.read_bytes < 1600
    assert maker.serial < reader.serial


def test_attempts_that_raise_are_told_each_with_its_number(watch: Watch) -> None:
    with pytest.raises(ZeroDivisionError):
        mr.spawn(divmod, (1, 0), retries=2).execute()
    attempts = watch.ended()
    assert endings(attempts) == ["error"] * 3
    assert [one.attempt for one in attempts] == [1, 2, 3]
    assert len({one.call for one in attempts}) == len({one.run for one in attempts}) == 1
    assert len({one.number for one in attempts}) == 3
    assert all(one.times is not None for one in attempts)


def test_calls_that_were_not_started_have_no_attempt(watch: Watch) -> None:
    with pytest.raises(ZeroDivisionError):
        mr.spawn(abs, (mr.spawn(divmod, (1, 0)),)).execute()
    assert [one.name for one in watch.ended()] == ["divmod"]


def test_an_attempt_that_its_timeout_ended_was_stopped(watch: Watch) -> None:
    with pytest.raises(TimeoutError):
        mr.spawn(time.sleep, 60, timeout=0.5).execute()
    assert endings(watch.ended()) == ["stopped"]


def test_an_attempt_that_was_cancelled_was_stopped(
    local_only: None, watch: Watch, wait_until: WaitUntil
) -> None:
    run = mr.spawn(time.sleep, 60).execute(wait=False)
    wait_until(lambda: any(one.attempt for one in watch.now().workers))
    run.cancel()
    wait_until(lambda: not any(one.attempt for one in watch.now().workers))
    assert endings(watch.ended()) == ["stopped"]


def test_an_attempt_that_ended_with_its_worker_died(
    local_only: None, watch: Watch, tmp_path: Path
) -> None:
    def fatal_once(flag: Path) -> int:
        if not flag.exists():
            flag.touch()
            print("here", flush=True)
            os._exit(3)
        return 5

    assert mr.spawn(fatal_once, tmp_path / "flag").execute().fetch() == 5
    first, second = watch.ended()
    assert endings([first, second]) == ["died", "value"]
    assert first.pid != second.pid and first.worker != second.worker
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.log_bytes == len("here\n")


def test_items_of_a_map_are_told_each_once(watch: Watch) -> None:
    mr.map(lambda x: 1 / x, [4, 0, 2, 0, 1]).execute(on_error="continue")
    attempts = watch.ended()
    assert sum(one.size for one in attempts) == 5
    assert sum(one.failed_items for one in attempts) == 2
    assert {one.ending for one in attempts if one.failed_items} == {"error"}


def test_nested_calls_are_told_by_the_engine_of_the_program(watch: Watch) -> None:
    def outer() -> int:
        return int(mr.spawn(abs, -3, name="inner").execute().fetch())

    assert mr.spawn(outer, name="outer").execute().fetch() == 3
    assert [(one.name, one.depth) for one in watch.ended()] == [("inner", 1), ("outer", 0)]


def test_what_a_call_printed_is_counted(watch: Watch) -> None:
    mr.spawn(print, "12345").execute()
    (one,) = watch.ended()
    assert one.log_bytes == 6


def test_an_observation_shows_the_call_that_runs(
    session: mars.session.Session, watch: Watch, tmp_path: Path, wait_until: WaitUntil
) -> None:
    gate = tmp_path / "gate"

    def waits(path: Path) -> int:
        while not path.exists():
            time.sleep(0.01)
        return os.getpid()

    call = mr.spawn(waits, gate, name="waits")
    thread = threading.Thread(target=lambda: call.execute(session=session))
    thread.start()
    try:
        wait_until(lambda: any(one.name == "waits" for one in watch.now().workers))
        seen = watch.now()
    finally:
        gate.touch()
        thread.join()
    (worker,) = [one for one in seen.workers if one.name == "waits"]
    (run,) = seen.runs
    assert (run.total, run.done, run.failed, run.depth) == (1, 0, 0, 0)
    assert worker.runs == (run.number,) and seen.running(run.number) == run.running == 1
    assert worker.pid == call.fetch() and worker.attempt and worker.queued == 1
    assert worker.call == call.call.key
    assert 0 < worker.sent <= seen.now <= time.monotonic()
    group = next(one for one in seen.groups if one.address == worker.group)
    assert group.free < group.cpus
    assert watch.now().runs == ()
    (attempt,) = watch.ended()
    assert (attempt.number, attempt.run) == (worker.attempt, run.number)


def test_what_the_process_of_a_worker_uses_is_told(
    session: mars.session.Session, watch: Watch, tmp_path: Path, wait_until: WaitUntil
) -> None:
    gate = tmp_path / "gate"

    def computes(path: Path) -> None:
        kept = bytearray(40_000_000)
        while not path.exists():
            sum(kept[:10_000])

    engine: Any = session.engine
    call = mr.spawn(computes, gate, name="computes")
    thread = threading.Thread(target=lambda: call.execute(session=session))
    thread.start()

    def used() -> Any:
        seen = watch.now().workers
        told = engine.usage(seen)
        return next((told.get(one.number) for one in seen if one.name == "computes"), None)

    try:
        wait_until(used)
        first = used()
        wait_until(lambda: used()[1] >= first[1] + 0.1 and used()[2] > 40_000_000)
        later = used()
    finally:
        gate.touch()
        thread.join()
    assert later[0] > first[0]


def test_threads_may_look_while_calls_run(watch: Watch) -> None:
    found: list[EndedAttempt] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            found.extend(watch.ended())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        mr.ExecutableTuple([mr.spawn(abs, index) for index in range(300)]).execute()
    finally:
        over.set()
        thread.join()
    found.extend(watch.ended())
    assert len(found) == len({one.number for one in found}) == 300


def test_an_engine_that_was_closed_still_tells(engine: str) -> None:
    opened = mars.new_session(engine=engine, n_cpu=1, default=False)
    with contextlib.closing(opened), pytest.raises(ZeroDivisionError):
        mr.spawn(divmod, (1, 0)).execute(session=opened)
    told = opened.engine.observe(0)
    assert endings(list(told.attempts)) == ["error"]
    assert told.runs == ()
