"""A scheduler alone, whose workers are ready at once: what tests of single decisions share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mars.engines.driver.events import StartWorker
from mars.engines.driver.events import WorkerReady as Ready
from mars.engines.driver.scheduler import Scheduler
from mars.task import Task


class Realm:
    def forget(self, task: Task) -> None:
        """Nothing is kept."""


class History:
    """What happens to a scheduler, one event each millisecond."""

    def __init__(self, groups: Sequence[tuple[str, float]]) -> None:
        self.scheduler = Scheduler(groups)
        self.now = 0.0

    def on(self, event: Any) -> None:
        self.now += 0.001
        self.carry_out(self.scheduler.on(event, self.now))

    def carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            if isinstance(command, StartWorker):
                self.on(Ready(command.worker))
            else:
                self.note(command)

    def note(self, command: Any) -> None:
        """A command that starts no worker."""
