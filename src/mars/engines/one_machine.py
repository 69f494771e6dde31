"""What the engine needs on one machine: its workers are processes that it starts here.

`start` gives the engine that sessions have by default. What an engine does stands in
`mars.engines.driver.engine`; here is what follows from its workers being on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mars import platform
from mars.attempt import context
from mars.engines.driver.engine import DriverEngine
from mars.engines.driver.scheduler import Scheduler
from mars.engines.driver.store import Store
from mars.engines.given import Given
from mars.engines.kinds import EngineOptions
from mars.engines.local.launch import Launch
from mars.engines.local.workers import LocalWorkers
from mars.observe.silence import RunningCall, advise_here
from mars.resources import memory_limit_bytes
from mars.settings import UNKNOWN_MEMORY_BYTES
from mars.task import Call

if TYPE_CHECKING:
    from mars.attempt.followed import Surroundings
    from mars.engines.wire.messages import Facts
    from mars.observe.observation import WorkerFacts


class ThisMachine:
    """The `Site` of an engine whose workers are processes of this machine.

    Parameters
    ----------
    given : Given
        What calls have besides what the program has.
    options : EngineOptions
        What the engine is started with.
    launch : Launch, optional
        The process that workers are forked from, on its way already.
    """

    known_as: str | None = None
    refused: Sequence[str] = ()
    silent: Sequence[str] = ()

    def __init__(self, given: Given, options: EngineOptions, launch: Launch | None = None) -> None:
        self._given, self._options, self._launch = given, options, launch
        self.memory_bytes = memory_limit_bytes()[0] or UNKNOWN_MEMORY_BYTES

    def new_store(
        self, wake: Callable[[Callable[[], object]], object], budget_bytes: int, directory: str
    ) -> Store:
        """What keeps the large values."""
        return Store(wake, budget_bytes, directory)

    def new_workers(self, facts: Facts, store: Store) -> LocalWorkers:
        """The worker processes."""
        return LocalWorkers(facts, store.ledger_descriptor, self._launch, store.use_pages)

    def new_scheduler(
        self, groups: Sequence[tuple[str, float]], room: Callable[[], float]
    ) -> Scheduler:
        """What decides."""
        return Scheduler(groups, room)

    def begin(self, engine: DriverEngine) -> None:
        """All that is needed is there."""

    def look_at(self, calls: Sequence[Call]) -> None:
        """Calls have here what the program has."""

    def as_told(
        self,
        path: list[str],
        here: str,
        variables: dict[bytes, bytes | None],
        settings: dict[str, object],
    ) -> Surroundings:
        """What calls are told of the program."""
        folder = self._given.working_dir
        if folder is not None:
            path, here = [folder, *path], folder
        return path, here, self._given.variables(variables), self._given.settings(settings)

    def more_cores(self) -> str:
        """What to do about a call that asks for more cores than there are."""
        return "new_session(n_cpu=...) with more"

    def find_gpus(self) -> Sequence[Sequence[str]]:
        """The GPUs of each group."""
        return self._options.gpus_of_groups()

    def more_gpus(self) -> str:
        """What to do about a call that asks for more GPUs than there are."""
        return self._options.how_to_have_gpus()

    def is_stopped(self, pid: int) -> bool:
        """Whether a worker process is held up."""
        return platform.is_stopped(pid)

    def usage(self, workers: Sequence[WorkerFacts]) -> Mapping[int, tuple[float, float, int]]:
        """What workers use."""
        found = {one.number: platform.usage_of(one.pid) for one in workers}
        return {number: told for number, told in found.items() if told is not None}

    def stack(self, worker: int, pid: int) -> Sequence[str] | None:
        """What a worker does now, and the stack of its call."""
        from mars.engines.local.stacks import looked_at  # late: somebody has to ask for it

        return looked_at(pid)

    def how_to_look(self, call: RunningCall, several: bool) -> tuple[str, str]:
        """What shows where a call is."""
        return advise_here(call, several)

    def ending(self) -> None:
        """The loop ends all that was started here."""

    def close(self) -> None:
        """The loop has ended all that was started here."""

    def inert(self) -> None:
        """The loop has let go of all that was started here."""


def start(name: str, options: EngineOptions, launch: Launch | None = None) -> DriverEngine:
    """Start an engine with worker processes on this machine.

    Parameters
    ----------
    name : str
        What the addresses of its workers begin with.
    options : EngineOptions
        What the engine is started with.
    launch : Launch, optional
        The process that workers are forked from, which is starting already. The engine ends it.

    Raises
    ------
    StartupFailed
        The system refuses a process or a thread.
    """
    cpus = [float(count) for count in options.cores]
    groups = list(zip(context.addresses(name, len(cpus)), cpus, strict=True))
    site = ThisMachine(Given(options.env, options.working_dir, options.storage), options, launch)
    return DriverEngine(name, site, groups, options)
