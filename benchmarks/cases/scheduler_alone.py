"""The scheduler without processes.

`mars.engines.driver.simulation` imitates messages and processes, and that would be all that is seen
here. This one only delivers: assigned tasks take their time in a virtual clock, then they are done.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import time
from collections import deque
from typing import Any

from benchmarks import memory
from benchmarks.case import Case, Metrics, Params, expect
from benchmarks.peer import Peer

LATENCY_S = 1e-4
"""What a message takes in the simulated cluster, one way."""


class Cluster:
    """Simulated workers in virtual time. Only what happens inside the scheduler is timed."""

    def __init__(self, workers: int) -> None:
        from mars.engines.driver.events import WorkerReady
        from mars.engines.driver.scheduler import Scheduler

        self.scheduler = Scheduler([("cluster", float(workers))])
        self.now = 0.0
        self.inside_s = 0.0
        self.events = 0
        self._due: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._queues: dict[int, deque[Any]] = {}
        for command in self.scheduler.start_all():
            self._queues[command.worker] = deque()  # type: ignore[union-attr]
        for worker in self._queues:
            self.tell(WorkerReady(worker))  # type: ignore[arg-type]

    def tell(self, event: Any) -> None:
        """One event, and what the scheduler wants done about it."""
        begin = time.perf_counter()
        commands = self.scheduler.on(event, self.now)
        self.inside_s += time.perf_counter() - begin
        self.events += 1
        for command in commands:
            kind = type(command).__name__
            if kind == "Assign":
                queue = self._queues[command.worker]  # type: ignore[union-attr]
                idle = not queue
                queue.extend((task, task.attempt) for task in command.tasks)  # type: ignore[union-attr]
                if idle:
                    self._begin(command.worker, self.now + LATENCY_S)  # type: ignore[union-attr]
            elif kind not in ("RunEnded", "Report"):
                raise AssertionError(f"{kind} is not simulated here")

    def _begin(self, worker: int, when: float) -> None:
        seconds = self.seconds
        heapq.heappush(self._due, (when + seconds, next(self._order), worker))

    def run(self, tasks: list[Any], seconds: float) -> None:
        """Run independent tasks that take ``seconds`` each."""
        from mars.engine import Run
        from mars.engines.driver.events import Finished, Outcome, Submitted, Tick
        from mars.engines.wire.status import VALUE

        self.seconds = seconds
        run = Run("benchmark", self)
        self.tell(Submitted(run, tasks))
        while self._due:
            timer = self.scheduler.next_timer()
            if timer is not None and timer < self._due[0][0]:
                self.now = max(self.now, timer)
                self.tell(Tick())
                continue
            self.now, _, worker = heapq.heappop(self._due)
            queue = self._queues[worker]
            _, attempt = queue.popleft()
            if queue:
                self._begin(worker, self.now)
            self.tell(Finished(worker, [Outcome(attempt, VALUE, seconds, b"")]))
        expect(run.done, len(tasks))

    def forget(self, task: Any) -> None:
        """As a session is asked to, when a handle goes."""


def run(peer: Peer, params: Params) -> Metrics:
    """Submit all tasks at once, and let simulated workers run them in virtual time."""
    from mars.calls.options import DEFAULT_OPTIONS
    from mars.task import Call, Function, Task

    cluster = Cluster(params["workers"])
    function = Function(b"function", "function", b"")
    count = params["tasks"]
    gc.collect()
    before = memory.resident_bytes()
    tasks = []
    for _ in range(count):
        call = Call(function, b"payload", (), (), DEFAULT_OPTIONS, None)
        call.handles += 1
        tasks.append(Task(call, cluster))
    cluster.inside_s, cluster.events = 0.0, 0
    cluster.run(tasks, params["seconds"])
    held = memory.resident_bytes() - before
    expect(len(tasks), count)
    return {
        "decisions_per_s": count / cluster.inside_s,
        "events_per_s": cluster.events / cluster.inside_s,
        "bytes_per_task": held / count,
        "seconds_inside": cluster.inside_s,
        "virtual_efficiency": count * params["seconds"] / params["workers"] / cluster.now,
    }


SIZES = {"1 000": 1_000, "10 000": 10_000, "100 000": 100_000, "1 000 000": 1_000_000}

CASE = Case(
    question="How many decisions a second does the scheduler alone make, for 10 000 workers?",
    metric="decisions_per_s",
    better="higher",
    run=run,
    full={
        f"{name} tasks, 10 000 workers": {"tasks": size, "workers": 10_000, "seconds": 0.1}
        for name, size in SIZES.items()
    }
    | {"100 000 tasks, 2 workers": {"tasks": 100_000, "workers": 2, "seconds": 0.1}},
    quick={"10 000 tasks, 1 000 workers": {"tasks": 10_000, "workers": 1_000, "seconds": 0.1}},
    tiny={"50 tasks, 5 workers": {"tasks": 50, "workers": 5, "seconds": 0.1}},
    limit_s=300,
    started=False,
    fresh="always",
    only=("mars",),
    size="tasks",
    note=(
        "One decision is the whole way of a task through the scheduler: the task is given to a "
        "worker, and its end is noted. Only time inside the scheduler counts. Bytes are those of "
        "the records of tasks, including the described calls."
    ),
)
