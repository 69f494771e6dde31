"""The loop with workers that are neither processes nor nodes: a third side of the same port."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mars.attempt import failure
from mars.attempt.capture import Segment
from mars.calls.options import DEFAULT_OPTIONS
from mars.engine import Run
from mars.engines.driver.loop import Loop
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.store import Store
from mars.engines.local.workers import Ended
from mars.engines.wire import messages
from mars.engines.wire.messages import UNMEASURED
from mars.engines.wire.status import VALUE
from mars.task import RECORD, Call, Function, Stage, Task


class Pretended:
    """A worker that runs its calls in the loop's thread; `os._exit` is how it dies."""

    where = "nowhere"
    title = "pretended"
    leaving = False
    broken = ""
    deaf = False

    def __init__(self, number: int, workers: PretendedWorkers) -> None:
        self.number, self.pid = number, 1000 + number
        self.segment = Segment()
        self.descriptors: list[int] = []
        self.arenas: set[int] = set()
        self.functions: dict[int, Any] = {}
        self.begun = 0
        self._workers = workers

    def send(self, message: messages.ToWorker) -> None:
        if message[0] == messages.TASKS:
            _, functions, _, calls, _ = message
            self.functions.update(functions)
            for call in calls:
                self._workers.soon(lambda call=call: self.run(call))

    def run(self, call: messages.CallMessage) -> None:
        if self.deaf or self.number in self._workers.dead:
            return
        attempt, _, function, payload, *_ = call
        self.begun = attempt
        args, _ = pickle.loads(payload)
        act = pickle.loads(self.functions[function][1])
        if act is os._exit:
            self._workers.end(self, args[0] << 8)
            return
        value = pickle.dumps(act(*args))
        now = time.monotonic_ns()
        record = RECORD.pack(attempt, VALUE, 0, 0, 0, *(now,) * 5, 0, *UNMEASURED, len(value))
        self._workers.driver.came(self, [(True, memoryview(record + value))])

    def order(self, message: messages.Order) -> None:
        """It is never behind."""

    def lend(self, value: Any, arena: tuple[int, int]) -> None:
        raise AssertionError("there are no large values")

    def interrupt(self, attempt: int) -> None:
        raise AssertionError("nothing is interrupted")

    def kill(self) -> None:
        self._workers.end(self, signal.SIGKILL)

    def running(self) -> tuple[int, int]:
        return self.begun, 0


class PretendedWorkers:
    """Fulfils `Workers`."""

    nodes = None
    alive = True

    def __init__(self) -> None:
        self.dead: dict[int, Ended] = {}
        self.processes: dict[int, Pretended] = {}
        self.started = 0

    def begin(
        self, driver: Any, watch: Any, soon: Callable[[Callable[[], object]], object]
    ) -> None:
        self.driver, self.soon = driver, soon

    def start(self, number: int, facts: dict[str, Any], group: int) -> Pretended:
        self.started += 1
        process = self.processes[number] = Pretended(number, self)
        ready = memoryview(pickle.dumps((messages.READY,)))
        self.soon(lambda: self.driver.started(process))
        self.soon(lambda: self.driver.came(process, [(False, ready)]))
        return process

    def end(self, process: Pretended, status: int) -> None:
        self.dead[process.number] = Ended(process.pid, status, attempt=process.begun)

    def bury(self) -> None:
        dead, self.dead = self.dead, {}
        for number, ended in dead.items():
            process = self.processes.pop(number)
            process.deaf = True
            self.driver.ended(process, ended)

    def starved(self, ended: Ended) -> bool:
        return False

    def title_of(self, group: int, address: str) -> str:
        return address

    def complaint(self) -> str:
        return ""

    def dismiss(self) -> None:
        for process in self.processes.values():
            self.end(process, 0)

    def stop(self) -> None:
        self.alive = False

    def close(self) -> None:
        self.stop()

    def forget(self) -> None:
        raise AssertionError("nothing forks")


class Realm:
    """Where the tasks belong."""

    def forget(self, task: Task) -> None:
        """Nobody counts them."""


@pytest.fixture
def workers() -> PretendedWorkers:
    return PretendedWorkers()


@pytest.fixture
def loop(workers: PretendedWorkers, tmp_path: Path) -> Iterator[Loop]:
    made: list[Loop] = []
    store = Store(lambda action: made[0].post(action), 2**30, str(tmp_path))
    made.append(Loop(Scheduler([("here:0", 2.0)]), workers, store, lambda line: None))
    made[0].start()
    yield made[0]
    made[0].close()


def execute(loop: Loop, *calls: tuple[Any, ...]) -> list[Task]:
    """Run calls, each a function and its arguments; how they ended."""
    realm = Realm()
    run = Run("session", realm, stop_on_error=False)
    tasks = []
    for function, *args in calls:
        described = Function(pickle.dumps(function), function.__name__, pickle.dumps(function))
        payload = pickle.dumps((tuple(args), {}))
        call = Call(described, payload, (), (), DEFAULT_OPTIONS, None)
        call.handles += 1
        task = call.task = Task(call, realm)
        task.asked = True
        tasks.append(task)
    loop.post(lambda: loop.submit(run, tasks))
    assert run.wait(20)
    return tasks


def test_the_loop_runs_calls_on_any_workers_that_fulfil_the_port(loop: Loop) -> None:
    tasks = execute(loop, *[(abs, -number) for number in range(100)])
    assert [pickle.loads(task.result) for task in tasks] == list(range(100))
    assert {task.where[0] for task in tasks if task.where is not None} == {"nowhere"}


def test_a_worker_that_ends_is_replaced_and_its_call_blamed_at_last(
    loop: Loop, workers: PretendedWorkers
) -> None:
    good, bad = execute(loop, (abs, -1), (os._exit, 3))
    assert pickle.loads(good.result) == 1
    assert bad.stage is Stage.FAILED
    error = failure.decode_failure(bad.result)
    assert "worker pretended ended with exit code 3 while it ran _exit" in str(error)
    assert workers.started > 2  # two at first, and another for each attempt
