"""`execute(wait=False)`: one future for scripts, threads and asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mars
import mars.remote as mr

WaitUntil = Callable[..., None]


def fail() -> None:
    raise ValueError("future failure")


def test_execute_without_waiting_gives_a_future_of_the_executed_object() -> None:
    call = mr.spawn(pow, args=(2, 5))
    execution = call.execute(wait=False)
    assert isinstance(execution, concurrent.futures.Future)
    assert execution.result(20).fetch() == 32
    assert call.fetch() == 32


def test_a_tuple_executed_without_waiting_gives_all_its_objects() -> None:
    calls = mr.ExecutableTuple([mr.spawn(pow, args=(i, 2)) for i in range(3)])
    objects = calls.execute(wait=False).result(20)
    assert [o.fetch() for o in objects] == [0, 1, 4]
    assert calls.fetch() == [0, 1, 4]


def test_module_level_execute_without_waiting_gives_a_future() -> None:
    calls = [mr.spawn(pow, args=(i, 2)) for i in range(3)]
    mars.execute(*calls, wait=False).result(20)
    assert mars.fetch(calls) == [0, 1, 4]


def test_the_documented_loop_over_done_ends_in_a_plain_script(wait_until: WaitUntil) -> None:
    execution = mr.spawn(pow, args=(2, 5)).execute(wait=False)
    wait_until(execution.done)
    assert execution.done() and not execution.running() and not execution.cancelled()
    assert execution.exception(5) is None


def test_progress_reaches_one() -> None:
    execution = mr.spawn(pow, args=(2, 5)).execute(wait=False)
    execution.result(20)
    assert execution.progress() == 1.0


def test_progress_is_between_zero_and_one_while_calls_run(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None], wait_until: WaitUntil
) -> None:
    gate = tmp_path / "gate"
    calls = [mr.spawn(int) for _ in range(5)]
    calls += [mr.spawn(pass_gate, args=(gate,)) for _ in range(5)]
    execution = mr.ExecutableTuple(calls).execute(wait=False)
    wait_until(lambda: execution.progress() >= 0.5)
    assert execution.progress() < 1.0
    assert not execution.done()
    gate.touch()
    execution.result(20)
    assert execution.progress() == 1.0


def test_progress_set_inside_a_call_is_seen_outside(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None], wait_until: WaitUntil
) -> None:
    gate = tmp_path / "gate"

    def halfway() -> None:
        mars.get_context().set_progress(0.5)
        pass_gate(gate)
        mars.get_context().set_progress(1.0)

    execution = mr.spawn(halfway).execute(wait=False)
    wait_until(lambda: 0.4 <= execution.progress() <= 0.6)
    gate.touch()
    execution.result(20)


def test_a_failure_is_the_futures_exception() -> None:
    execution = mr.spawn(fail).execute(wait=False)
    assert isinstance(execution.exception(20), ValueError)
    with pytest.raises(ValueError, match="future failure"):
        execution.result(20)


def test_continue_without_waiting_ends_without_an_exception() -> None:
    bad, good = mr.spawn(fail), mr.spawn(int)
    execution = mr.ExecutableTuple([bad, good]).execute(wait=False, on_error="continue")
    assert execution.exception(20) is None
    assert good.fetch() == 0
    with pytest.raises(ValueError):
        bad.fetch()


def test_a_callback_runs_once_with_the_future() -> None:
    seen: list[object] = []
    called = threading.Event()
    execution = mr.spawn(int).execute(wait=False)
    execution.add_done_callback(lambda f: (seen.append(f), called.set()))
    assert called.wait(20)
    assert seen == [execution]


def test_a_callback_that_fails_does_not_harm_the_run() -> None:
    execution = mr.spawn(int).execute(wait=False)
    execution.add_done_callback(lambda _: 1 / 0)
    assert execution.result(20).fetch() == 0
    assert mr.spawn(int).execute().fetch() == 0


def test_as_completed_yields_the_quick_one_first(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    slow = mr.spawn(pass_gate, args=(gate,)).execute(wait=False)
    quick = mr.spawn(int).execute(wait=False)
    completed = concurrent.futures.as_completed([slow, quick], timeout=20)
    assert next(completed) is quick
    gate.touch()
    assert next(completed) is slow


def test_result_with_a_short_timeout_raises_and_the_run_goes_on(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    call = mr.spawn(pass_gate, args=(gate,))
    execution = call.execute(wait=False)
    with pytest.raises(TimeoutError):
        execution.result(0.05)
    gate.touch()
    execution.result(20)
    assert call.fetch() is None


def test_several_executions_run_side_by_side(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    def meet(mine: Path, other: Path) -> bool:
        mine.touch()
        pass_gate(other)
        return True

    a, b = tmp_path / "a", tmp_path / "b"
    first = mr.spawn(meet, args=(a, b)).execute(wait=False)
    second = mr.spawn(meet, args=(b, a)).execute(wait=False)
    assert first.result(20).fetch() and second.result(20).fetch()


def test_an_execution_can_depend_on_one_that_is_still_running(
    local_only: None,
    tmp_path: Path,
    pass_gate: Callable[..., None],
    note: Callable[..., None],
    lines: Callable[[object], list[str]],
) -> None:
    gate, ledger = tmp_path / "gate", tmp_path / "runs"

    def source() -> int:
        note(ledger)
        pass_gate(gate)
        return 4

    first = mr.spawn(source)
    running = first.execute(wait=False)
    second = mr.spawn(pow, args=(first, 2))
    following = second.execute(wait=False)
    gate.touch()
    running.result(20)
    assert following.result(20).fetch() == 16
    assert first.fetch() == 4
    assert lines(ledger) == ["run"]


def test_an_execution_works_from_other_threads() -> None:
    def work(i: int) -> int:
        waited = mr.spawn(pow, args=(i, 2)).execute().fetch()
        later = mr.spawn(pow, args=(i, 2)).execute(wait=False)
        value: int = later.result(20).fetch()
        assert later.done() and waited == value
        return value

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(12))) == [i * i for i in range(12)]


def test_a_future_made_in_one_thread_can_be_waited_for_in_another() -> None:
    execution = mr.spawn(pow, args=(2, 5)).execute(wait=False)
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(execution.result(20).fetch()))
    thread.start()
    thread.join(20)
    assert got == [32]


def test_an_execution_can_be_awaited() -> None:
    async def main() -> int:
        call = mr.spawn(pow, args=(2, 5))
        executed = await call.execute(wait=False)
        value: int = executed.fetch()
        return value

    assert asyncio.run(main()) == 32


def test_several_executions_can_be_awaited_together() -> None:
    async def one(i: int) -> int:
        value: int = (await mr.spawn(pow, args=(i, 2)).execute(wait=False)).fetch()
        return value

    async def main() -> list[int]:
        return await asyncio.gather(*(one(i) for i in range(5)))

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_a_failure_is_raised_where_it_is_awaited() -> None:
    async def main() -> None:
        await mr.spawn(fail).execute(wait=False)

    with pytest.raises(ValueError, match="future failure"):
        asyncio.run(main())


def test_the_event_loop_runs_on_while_an_execution_is_awaited(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"

    async def main() -> None:
        execution = mr.spawn(pass_gate, args=(gate,)).execute(wait=False)

        async def opener() -> None:
            gate.touch()

        await asyncio.gather(execution_of(execution), opener())

    async def execution_of(execution: object) -> None:
        await execution  # type: ignore[misc]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_execute_and_fetch_work_inside_a_running_event_loop() -> None:
    async def main() -> int:
        value: int = mr.spawn(pow, args=(2, 5)).execute().fetch()
        return value

    assert asyncio.run(main()) == 32


def test_to_object_without_waiting_gives_a_future_of_the_value() -> None:
    future = mr.spawn(pow, args=(2, 5)).to_object(wait=False)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(20) == 32


def test_cancel_stops_running_calls_at_once_and_the_session_works_on(
    local_only: None,
    tmp_path: Path,
    note: Callable[..., None],
    lines: Callable[[object], list[str]],
    wait_until: WaitUntil,
) -> None:
    ledger = tmp_path / "runs"

    def sleeper(i: int) -> None:
        note(ledger, i)
        time.sleep(600)

    calls = mr.ExecutableTuple([mr.spawn(sleeper, args=(i,)) for i in range(10)])
    execution = calls.execute(wait=False)
    wait_until(lambda: len(lines(ledger)) == 2)
    assert execution.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        execution.result(10)
    assert execution.done() and execution.cancelled()
    after = mr.ExecutableTuple([mr.spawn(pow, args=(i, 2)) for i in range(4)])
    assert after.execute().fetch() == [0, 1, 4, 9]
    assert len(lines(ledger)) == 2
    with pytest.raises((ValueError, concurrent.futures.CancelledError)):
        calls[9].fetch()


def test_cancel_keeps_what_was_finished(
    local_only: None, tmp_path: Path, wait_until: WaitUntil
) -> None:
    quick, slow = mr.spawn(pow, args=(2, 5)), mr.spawn(time.sleep, args=(200,))
    execution = mr.ExecutableTuple([quick, slow]).execute(wait=False)
    wait_until(lambda: execution.progress() >= 0.5)
    execution.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        execution.result(10)
    assert quick.fetch() == 32


def test_cancelling_one_execution_leaves_the_other_alone(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    doomed = mr.spawn(time.sleep, args=(200,)).execute(wait=False)
    kept = mr.spawn(pass_gate, args=(gate,)).execute(wait=False)
    doomed.cancel()
    gate.touch()
    assert kept.result(20).fetch() is None
    with pytest.raises(concurrent.futures.CancelledError):
        doomed.result(10)


def test_a_cancelled_call_can_be_executed_again(local_only: None, tmp_path: Path) -> None:
    flag = tmp_path / "second"

    def first_time_slow() -> int:
        if not flag.exists():
            flag.touch()
            time.sleep(600)
        return 5

    call = mr.spawn(first_time_slow)
    execution = call.execute(wait=False)
    deadline = time.monotonic() + 20
    while not flag.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    execution.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        execution.result(10)
    assert call.execute().fetch() == 5


def test_cancel_after_the_end_changes_nothing() -> None:
    call = mr.spawn(pow, args=(2, 5))
    execution = call.execute(wait=False)
    execution.result(20)
    assert execution.cancel() is False
    assert call.fetch() == 32


def test_result_and_exception_keep_their_time_limit(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"
    execution = mr.spawn(pass_gate, args=(gate,)).execute(wait=False)
    for ask in (execution.result, execution.exception):
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(0.5)
        assert time.monotonic() - begun >= 0.5
    gate.touch()
    assert execution.exception(20) is None


class Read:
    """Knows in which thread it was unpickled."""

    def __init__(self) -> None:
        self.thread = ""

    def __getstate__(self) -> object:
        return {"no": "state"}

    def __setstate__(self, _: object) -> None:
        self.thread = threading.current_thread().name


class ReadError(Exception):
    def __init__(self, thread: str = "") -> None:
        super().__init__()
        self.thread = thread

    def __reduce__(self) -> object:
        return _read_error, ()


def _read_error() -> ReadError:
    return ReadError(threading.current_thread().name)


def raise_read_error() -> None:
    raise ReadError


@pytest.mark.parametrize("wait", ["result", "timed", "callback", "wait", "await"])
@pytest.mark.parametrize("make", [Read, raise_read_error])
def test_values_and_errors_are_unpickled_outside_of_the_engine_s_thread(
    make: Callable[[], object], wait: str
) -> None:
    future = mr.spawn(make).to_object(wait=False)
    called = threading.Event()
    if wait == "callback":
        future.add_done_callback(lambda _: called.set())
        assert called.wait(20)
    elif wait == "wait":
        concurrent.futures.wait([future], 20)
    elif wait == "await":

        async def main() -> None:
            await asyncio.wait([asyncio.wrap_future(future)])

        asyncio.run(main())
    limit_s = None if wait == "result" else 20
    found = future.exception(limit_s) or future.result(limit_s)
    assert isinstance(found, Read | ReadError)
    assert found.thread in {"MainThread", "mars-delivery"}


class Asks:
    """Asks for a call when it is unpickled in the program, as a lazy proxy may."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.found = 0

    def __getstate__(self) -> object:
        return self.pid

    def __setstate__(self, pid: int) -> None:
        import os

        self.found = mr.spawn(abs, args=(-5,)).execute().fetch() if os.getpid() == pid else 0


def test_a_value_that_asks_for_a_call_while_it_is_unpickled_hangs_nothing() -> None:
    import os

    futures = [mr.spawn(Asks, args=(os.getpid(),)).to_object(wait=False) for _ in range(3)]
    assert mr.spawn(pow, args=(2, 5)).execute().fetch() == 32
    assert [future.result(20).found for future in futures] == [5, 5, 5]


class SlowToRead:
    """Takes until somebody opens the gate to be unpickled in the program."""

    def __init__(self, pid: int, gate: str) -> None:
        self.state = pid, gate

    def __getstate__(self) -> object:
        return self.state

    def __setstate__(self, state: tuple[int, str]) -> None:
        import os

        self.state = state
        deadline = time.monotonic() + 20
        if os.getpid() == state[0]:
            Path(f"{state[1]}.reached").touch()
        while os.getpid() == state[0] and not os.path.exists(state[1]):
            if time.monotonic() > deadline:
                raise RuntimeError("the gate was not opened")
            time.sleep(0.005)


def test_a_value_that_is_slow_to_unpickle_holds_up_no_other_future(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    import os

    gate = tmp_path / "gate"
    slow = mr.spawn(SlowToRead, args=(os.getpid(), str(gate))).to_object(wait=False)
    wait_until((tmp_path / "gate.reached").exists)
    with pytest.raises(TimeoutError):
        slow.result(0.01)
    quick = [mr.spawn(pow, args=(2, i)).to_object(wait=False) for i in range(3)]
    done, waiting = concurrent.futures.wait([slow, *quick], 5, return_when="FIRST_COMPLETED")
    assert slow in waiting and done <= set(quick)
    assert concurrent.futures.wait(quick, 5).not_done == set()
    assert [future.result() for future in quick] == [1, 2, 4]
    gate.touch()
    assert isinstance(slow.result(20), SlowToRead)


def test_a_callback_may_wait_for_another_future(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gates = tmp_path / "first", tmp_path / "second"
    first, second = [mr.spawn(pass_gate, args=(gate,)).to_object(wait=False) for gate in gates]
    found: list[object] = []
    called = threading.Event()

    def wait(_: object) -> None:
        found.append(concurrent.futures.wait([second], 20).not_done)
        found.append(second.result(20))
        found.append(mr.spawn(pow, args=(2, 3)).to_object(wait=False).result())
        called.set()

    first.add_done_callback(wait)  # one that is added after the end is called at once, here
    for gate in gates:
        gate.touch()
    assert called.wait(20)
    assert found == [set(), None, 8]


def test_a_callback_may_wait_for_a_thread_that_waits_for_the_same_future(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    import os

    future = mr.spawn(SlowToRead, args=(os.getpid(), str(tmp_path / "gate"))).to_object(wait=False)
    got, called = threading.Event(), threading.Event()
    found: list[bool] = []

    def callback(_: object) -> None:
        found.append(got.wait(10))
        called.set()

    future.add_done_callback(callback)

    def wait() -> None:
        future.result()  # which waits, as the value is being unpickled just now
        got.set()

    wait_until((tmp_path / "gate.reached").exists)
    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: future._takers == 1)
    (tmp_path / "gate").touch()
    assert called.wait(20)
    thread.join(20)
    assert found == [True]


def test_a_callback_may_end_the_engine() -> None:
    session = mars.new_session(n_cpu=1, default=False)
    ended = threading.Event()
    future = mr.spawn(pow, args=(2, 5)).to_object(session=session, wait=False)
    future.add_done_callback(lambda _: (session.stop_server(), ended.set()))
    assert ended.wait(20)
    assert future.result(20) == 32


def test_callbacks_are_called_in_the_order_in_which_they_were_added() -> None:
    seen: list[int] = []
    called = threading.Event()
    execution = mr.spawn(time.sleep, args=(0.05,)).execute(wait=False)
    for number in range(20):
        execution.add_done_callback(lambda _, number=number: seen.append(number))
    execution.add_done_callback(lambda _: called.set())
    assert called.wait(20)
    assert sorted(seen) == seen and len(seen) == 20


def test_callbacks_of_futures_are_called_in_the_order_in_which_these_ended(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    seen: list[int] = []
    called = threading.Event()

    def note(number: int) -> None:
        seen.append(number)
        if len(seen) == 5:
            called.set()

    first = mr.spawn(pass_gate, args=(tmp_path / "gate",))
    calls = [first]
    for _ in range(4):  # each needs the one before it
        calls.append(mr.spawn(lambda _: None, args=(calls[-1],)))
    for number, call in enumerate(calls):
        execution = call.execute(wait=False)
        execution.add_done_callback(lambda _, number=number: note(number))
    (tmp_path / "gate").touch()
    assert called.wait(20)
    assert seen == [0, 1, 2, 3, 4]


def test_cancelled_is_true_as_soon_as_cancel_has_returned(local_only: None) -> None:
    for _ in range(20):
        execution = mr.spawn(time.sleep, args=(200,)).execute(wait=False)
        assert execution.cancel() and execution.cancelled() and execution.done()


class Exhausted(StopIteration):
    """A StopIteration of the program's own."""


def exhausted(kind: type[StopIteration]) -> None:
    raise kind("no more")


@pytest.mark.parametrize("kind", [StopIteration, Exhausted])
@pytest.mark.parametrize("way", ["await", "wrap_future", "to_object", "gather", "tuple", "map"])
def test_awaiting_a_call_that_raises_stop_iteration_ends(
    way: str, kind: type[StopIteration]
) -> None:
    call = mr.spawn(exhausted, kind)

    async def main() -> None:
        if way == "wrap_future":
            await asyncio.wrap_future(call.execute(wait=False))
        elif way == "to_object":
            await call.to_object(wait=False)
        elif way == "gather":
            await asyncio.gather(call.execute(wait=False), mr.spawn(int).execute(wait=False))
        elif way == "tuple":
            await mr.ExecutableTuple([call, mr.spawn(int)]).execute(wait=False)
        elif way == "map":
            await mr.map(exhausted, [kind]).execute(wait=False)
        else:
            await call.execute(wait=False)

    with pytest.raises(RuntimeError, match="no more") as caught:
        asyncio.run(asyncio.wait_for(main(), 20))
    assert type(caught.value.__cause__) is kind


def test_a_future_of_a_call_that_raises_stop_iteration_tells_it_the_same_way_everywhere() -> None:
    run = mr.spawn(next, args=(iter([]),)).execute(wait=False)
    for error in (run.exception(20), run.exception()):
        assert isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration)
    with pytest.raises(RuntimeError):
        run.result(20)
    with pytest.raises(StopIteration):  # who waits for the call itself gets its own error
        mr.spawn(next, args=(iter([]),)).execute()
